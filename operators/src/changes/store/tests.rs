//! The store against a map, through saves and loads of which only the named segments are read.

use std::collections::{BTreeMap, HashMap};

use arrow::{array::Int64Array, datatypes::Int64Type};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;
use crate::{
    state::{Part, StateReader, StateWriter, TaskState},
    testing::with_batches_of,
};

fn store() -> Newest {
    let field = |name| Arc::new(Field::new(name, DataType::Int64, false)) as FieldRef;
    Newest::new(columns(&[field("key")], &[field("value")]).unwrap(), 1, true).unwrap()
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Puts (key, gone, time, value).
fn put(store: &mut Newest, rows: &[(i64, bool, i64, i64)]) {
    let key = [numbers(rows.iter().map(|row| row.0))];
    let gone = rows.iter().map(|row| Some(row.1)).collect();
    let time = Timestamp::column(rows.iter().map(|row| row.2).collect());
    let batch = store.rows(&key, &key, gone, time, vec![numbers(rows.iter().map(|row| row.3))]).unwrap();
    let keys = store.encode(&key).unwrap();
    let found = store.find(&keys, rows.len());
    store.put(batch, &keys, &found).unwrap();
}

/// The slots of keys that are there, and those of keys that are known to be gone.
fn known(store: &Newest) -> (Vec<u32>, Vec<u32>) {
    let keys = store.encode(&[numbers(-50..50)]).unwrap();
    store.find(&keys, 100).into_iter().flatten().partition(|slot| !store.is_gone(*slot))
}

type Rows = BTreeMap<i64, (i64, i64)>;

fn rows_of(store: &Newest, rows: &RecordBatch) -> Rows {
    let numbers = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
    let (keys, values) = (numbers(&store.key(rows)[0]), numbers(&store.own(rows)[0]));
    keys.into_iter().zip(store.times(rows).iter().copied().zip(values)).collect()
}

fn content(store: &Newest) -> Rows {
    rows_of(store, &store.gather(&known(store).0).unwrap())
}

/// One task and its checkpoints.
#[derive(Default)]
struct Disk {
    next: Option<SegmentId>,
    segments: HashMap<SegmentId, RecordBatch>,
    state: TaskState,
}

impl Disk {
    fn save(&mut self, store: &mut Newest) -> usize {
        let mut writer = StateWriter::new(self.next.get_or_insert(SegmentId(0)));
        store.save(&mut writer, |rows| Ok(rows.clone())).unwrap();
        self.state = writer.finish();
        let new: Vec<_> = self.state.segments.iter().filter_map(|(id, rows)| Some((*id, rows.clone()?))).collect();
        let sealed = new.iter().map(|(_, rows)| rows.num_rows()).sum();
        self.segments.extend(new);
        self.segments.retain(|id, _| self.state.segments.iter().any(|(named, _)| named == id));
        sealed
    }

    fn load(&self, store: &mut Newest) {
        let segments = self.state.segments.iter().map(|(id, _)| (*id, self.segments[id].clone())).collect();
        let part = Part { first_phase: false, numbers: BTreeMap::new(), segments, stored: Vec::new() };
        store.load(&StateReader { key_groups: 0..256, parts: vec![part] }, |rows| Ok(Some(rows.clone()))).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(BTreeMap<i64, (i64, i64)>),
    Remove(BTreeMap<i64, ()>),
    Expire(i64),
    Save,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || -20i64..20;
    let step = prop_oneof![
        4 => prop::collection::btree_map(key(), (-30i64..30, 0i64..1000), 0..12).prop_map(Step::Put),
        2 => prop::collection::btree_map(key(), Just(()), 0..8).prop_map(Step::Remove),
        1 => (-40i64..40).prop_map(Step::Expire),
        2 => Just(Step::Save),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

fn map(steps: Vec<Step>, bytes: usize) -> Result<(), TestCaseError> {
    let (mut store, mut disk, mut model) = (store(), Disk::default(), Rows::new());
    for step in steps {
        match step {
            Step::Put(rows) => {
                put(
                    &mut store,
                    &rows.iter().map(|(&key, &(time, value))| (key, false, time, value)).collect::<Vec<_>>(),
                );
                model.extend(rows);
            }
            Step::Remove(keys) => {
                let columns = [numbers(keys.keys().copied())];
                let found = store.find(&store.encode(&columns).unwrap(), keys.len());
                let slots: Vec<u32> = found.into_iter().flatten().filter(|slot| !store.is_gone(*slot)).collect();
                let removed = store.remove(&slots).unwrap();
                let gone: Rows = model.extract_if(.., |key, _| keys.contains_key(key)).collect();
                prop_assert_eq!(rows_of(&store, &removed), gone);
            }
            Step::Expire(before) => loop {
                let (slots, rows) = store.expire(Some(before), 5).unwrap();
                prop_assert!(slots.len() <= 5 && slots.len() == rows.num_rows());
                for (key, row) in rows_of(&store, &rows) {
                    prop_assert!(row.0 < before);
                    prop_assert_eq!(model.remove(&key), Some(row));
                }
                if slots.is_empty() {
                    prop_assert!(model.values().all(|row| row.0 >= before));
                    break;
                }
            },
            Step::Save => drop(disk.save(&mut store)),
            Step::Restart => {
                disk.save(&mut store);
                store = self::store();
                disk.load(&mut store);
            }
        }
        prop_assert_eq!(content(&store), model.clone());
        let all: usize = store.all().map(|(_, slots)| slots.len()).sum();
        prop_assert_eq!(all, model.len());
        prop_assert!(store.pieces.len() < 8 || bytes < 1 << 30);
        if model.is_empty() {
            prop_assert_eq!((store.pieces.len(), store.index.len(), store.slots.len(), store.size()), (0, 0, 0, 0));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_is_a_map(steps in steps(), bytes in prop::sample::select(vec![0, 200, 600, 1 << 30])) {
        with_batches_of(bytes, || map(steps, bytes))?;
    }

    /// Keys that went away at or after the time are known to be gone, also after a restart; the others are forgotten.
    #[test]
    fn it_remembers_keys_that_are_gone(
        steps in prop::collection::vec((prop::collection::btree_map(-20i64..20, (any::<bool>(), 0i64..30), 0..10), 0i64..4, any::<bool>()), 1..30)
    ) {
        let (mut store, mut disk, mut model, mut watermark) = (store(), Disk::default(), BTreeMap::new(), 0);
        store.remember_from(Timestamp::from_micros(watermark));
        for (rows, more, restart) in steps {
            let rows: Vec<_> = rows.into_iter().map(|(key, (gone, ahead))| (key, gone, watermark + ahead, 0)).collect();
            put(&mut store, &rows);
            model.extend(rows.iter().map(|&(key, gone, time, _)| (key, (gone, time))));
            watermark += more;
            store.forget_before(Timestamp::from_micros(watermark)).unwrap();
            if restart {
                disk.save(&mut store);
                store = self::store();
                store.remember_from(Timestamp::from_micros(watermark));
                disk.load(&mut store);
            }
            let (there, gone) = known(&store);
            let keys = |slots: &[u32]| rows_of(&store, &store.gather(slots).unwrap()).into_keys().collect::<Vec<_>>();
            let expected = |gone: bool| {
                let of = model.iter().filter(move |(_, row)| row.0 == gone && (!gone || row.1 >= watermark));
                of.map(|(key, _)| *key).collect::<Vec<_>>()
            };
            prop_assert_eq!(keys(&there), expected(false));
            let gone = keys(&gone);
            prop_assert!(expected(true).iter().all(|key| gone.contains(key)), "{:?} of {:?}", gone, expected(true));
        }
        store.forget_before(Timestamp::from_micros(1_000)).unwrap();
        let (there, _) = known(&store);
        store.remove(&there).unwrap();
        prop_assert_eq!(store.size(), 0);
    }
}

#[test]
fn a_small_change_of_a_large_table_writes_little() {
    let (mut store, mut disk) = (store(), Disk::default());
    put(&mut store, &(0..50_000).map(|key| (key, false, key, 0)).collect::<Vec<_>>());
    assert_eq!((disk.save(&mut store), disk.save(&mut store)), (50_000, 0));
    let mut total = 0;
    for save in 0..300 {
        put(&mut store, &(0..10).map(|i| ((save * 37 + i * 4_999) % 50_000, false, save, 1)).collect::<Vec<_>>());
        total += disk.save(&mut store);
        assert!(store.pieces.len() <= 12, "{} pieces", store.pieces.len());
    }
    assert!(total < 30_000, "{total} rows for 3000 changes");
}

/// Keys that come and go while most of the table is too large to be merged leave nothing behind.
#[test]
fn a_large_table_forgets_keys_that_are_gone() {
    with_batches_of(3_000, || {
        let (mut store, mut disk) = (store(), Disk::default());
        put(&mut store, &(0..50).map(|key| (key, false, key, 0)).collect::<Vec<_>>());
        disk.save(&mut store);
        for round in 0..100 {
            let keys = 1_000 + 10 * round..1_010 + 10 * round;
            put(&mut store, &keys.clone().map(|key| (key, false, round, 0)).collect::<Vec<_>>());
            disk.save(&mut store);
            let found = store.find(&store.encode(&[numbers(keys)]).unwrap(), 10);
            store.remove(&found.into_iter().flatten().collect::<Vec<_>>()).unwrap();
            disk.save(&mut store);
            assert!(store.index.len() <= 160, "{} keys after round {round}", store.index.len());
        }
    });
}

/// Of pieces that are too large to be merged with newer ones one row each stays, and there are not more and more of them.
#[test]
fn what_is_left_of_large_pieces_is_merged() {
    with_batches_of(3_000, || {
        let (mut store, mut disk) = (store(), Disk::default());
        for round in 0..300 {
            let changing = (0..99).map(|key| (key, false, round, round));
            put(&mut store, &changing.chain([(1_000 + round, false, round, round)]).collect::<Vec<_>>());
            disk.save(&mut store);
            assert!(store.pieces.len() < 20, "{} pieces after round {round}", store.pieces.len());
        }
        let rows: usize = store.pieces.iter().map(|piece| piece.rows.num_rows()).sum();
        assert!((399..800).contains(&rows), "{rows} rows");
        let mut restored = self::store();
        disk.load(&mut restored);
        assert_eq!((content(&store).len(), restored.index.len()), (49 + 1, 399));
    });
}

/// A row is copied a few times, and then not again however many come.
#[test]
fn rows_of_a_large_table_stay_where_they_are() {
    with_batches_of(30_000, || {
        let mut store = store();
        let mut first = None;
        for batch in 0..200 {
            put(&mut store, &(100 * batch..100 * batch + 100).map(|key| (key, false, key, 0)).collect::<Vec<_>>());
            let data = store.pieces[0].rows.column(1).as_primitive::<Int64Type>().values().as_ptr();
            if batch >= 15 {
                assert_eq!(*first.get_or_insert(data), data, "copied with batch {batch}");
            }
        }
        assert!(store.pieces.len() < 60, "{} pieces", store.pieces.len());
    });
}

/// The rows that stay are found under their new numbers, and those that have died in their pieces do not come back.
#[test]
fn slots_are_given_back_when_most_rows_have_gone() {
    let (mut store, mut disk) = (store(), Disk::default());
    put(&mut store, &(0..50_000).map(|key| (key, false, key, key)).collect::<Vec<_>>());
    disk.save(&mut store);
    assert!(store.renumber().is_none(), "all are in use");
    let full = store.size();
    let slots = |store: &Newest, keys: &[i64]| {
        let columns = [numbers(keys.iter().copied())];
        store.find(&store.encode(&columns).unwrap(), keys.len())
    };
    let stay: Vec<i64> = (0..50_000).filter(|key| key % 5_000 == 77).collect();
    let go: Vec<i64> = (0..50_000).filter(|key| key % 5_000 != 77).collect();
    let gone: Vec<u32> = slots(&store, &go).into_iter().flatten().collect();
    store.remove(&gone).unwrap();
    let before = slots(&store, &stay);
    let to = store.renumber().unwrap();
    let after = slots(&store, &stay);
    assert!(before.iter().zip(&after).all(|(before, after)| to[before.unwrap() as usize] == *after));
    assert_eq!((store.slots.len(), store.free.len()), (10, 0));
    assert!(store.size() < full / 500, "{full} bytes, then {}", store.size());
    put(&mut store, &[(77, false, 0, 1), (3, false, 0, 2)]);
    let mut expected: Rows = stay.iter().map(|&key| (key, (key, key))).collect();
    expected.extend([(77, (0, 1)), (3, (0, 2))]);
    let content = |store: &Newest| {
        let known: Vec<i64> = (0..50_000).collect();
        let there = slots(store, &known).into_iter().flatten().filter(|slot| !store.is_gone(*slot)).collect::<Vec<_>>();
        rows_of(store, &store.gather(&there).unwrap())
    };
    assert_eq!(content(&store), expected);
    disk.save(&mut store);
    let mut restored = self::store();
    disk.load(&mut restored);
    assert_eq!(content(&restored), expected);
}
