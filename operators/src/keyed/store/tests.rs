//! The store against a map, through saves of bounded segments and loads of which only the named segments are read.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, Int64Array, StringArray},
    datatypes::Int64Type,
};
use proptest::prelude::*;

use super::*;
use crate::{
    key::key_groups,
    state::{Part, SegmentId, bounded::with_batches_of},
    testing,
};

fn plan() -> KeyPlan {
    let columns = Schema::new(vec![Field::new("key", DataType::Utf8, false)]);
    let input = StreamSchema::without_time(Arc::new(columns));
    KeyPlan::new(&input, &["key"], vec![Field::new("value", DataType::Int64, true)], "a map").unwrap()
}

type Map = BTreeMap<i64, i64>;

fn column(key: i64) -> ArrayRef {
    let width = if key % 3 == 0 { 0 } else { 40 };
    Arc::new(StringArray::from(vec![format!("key {key:>width$}")]))
}

/// One task, and what a store would have of it.
struct Task {
    store: Store<i64>,
    next: SegmentId,
    disk: BTreeMap<SegmentId, RecordBatch>,
    named: Vec<SegmentId>,
}

impl Task {
    fn new() -> Self {
        Self { store: Store::new(&plan()).unwrap(), next: SegmentId(0), disk: BTreeMap::new(), named: Vec::new() }
    }

    /// Short keys and long ones.
    fn key(&self, key: i64) -> Key {
        let batch = RecordBatch::try_from_iter([("key", column(key))]).unwrap();
        self.store.keys(&batch).unwrap().get(0).into()
    }

    fn put(&mut self, key: i64, value: i64) {
        let bytes = self.key(key);
        self.store.entry(&bytes, |_, held| {
            let fate = if *held == value { Fate::Same } else { Fate::Changed };
            *held = value;
            fate
        });
    }

    fn remove(&mut self, key: i64) {
        self.store.existing(&self.key(key), |_| Fate::Removed);
    }

    /// Saves; gives the numbers of rows of the new segments.
    fn save(&mut self) -> Vec<usize> {
        let mut state = StateWriter::new(&mut self.next);
        let columns = |held: &[Option<&i64>]| {
            let values: Int64Array = held.iter().map(|held| held.copied()).collect();
            Ok(vec![Arc::new(values) as ArrayRef])
        };
        self.store.save_sized(&mut state, |_| 8, columns).unwrap();
        let state = state.finish();
        self.named = state.segments.iter().map(|(id, _)| *id).collect();
        let new: Vec<_> = state.segments.into_iter().filter_map(|(id, rows)| Some((id, rows?))).collect();
        let sealed = new.iter().map(|(_, rows)| rows.num_rows()).collect();
        self.disk.extend(new);
        self.disk.retain(|id, _| self.named.contains(id));
        sealed
    }

    /// Goes on as one that was loaded, from two former tasks if `rescaled`.
    fn restart(&mut self, rescaled: bool) {
        self.save();
        let parts = match rescaled {
            true => vec![self.part(|group| group < 128), self.part(|group| group >= 128)],
            false => vec![self.part(|_| true)],
        };
        self.load(parts);
    }

    /// Goes on as one of two tasks that share the key groups: its segments have fewer rows, in other proportions.
    fn split(&mut self, first: bool) {
        self.save();
        let part = self.part(|group| (group < 128) == first);
        self.disk = part.segments.iter().cloned().collect();
        self.load(vec![part]);
    }

    /// What it has left of some key groups.
    fn part(&self, keep: impl Fn(u8) -> bool) -> Part {
        let own = |rows: &RecordBatch| {
            let groups = rows.column(0).as_primitive::<arrow::datatypes::UInt8Type>();
            let own = groups.values().iter().map(|group| Some(keep(*group))).collect();
            arrow::compute::filter_record_batch(rows, &own).unwrap()
        };
        let segments = self.named.iter().map(|id| (*id, own(&self.disk[id]))).filter(|(_, rows)| rows.num_rows() > 0);
        Part { first_phase: false, numbers: BTreeMap::new(), segments: segments.collect(), stored: Vec::new() }
    }

    fn load(&mut self, parts: Vec<Part>) {
        self.store = Store::new(&plan()).unwrap();
        let plan = plan();
        let read = |rows: &RecordBatch, asked: &[usize]| {
            let values = plan.held(rows)[0].as_primitive::<Int64Type>();
            Ok(asked.iter().map(|&row| values.iter().nth(row).flatten()).collect())
        };
        self.store.load(&StateReader { key_groups: 0..256, parts }, read).unwrap();
    }

    fn content(&mut self) -> Map {
        let store = &mut self.store;
        let keys: Vec<Key> = store.iter_mut().map(|(key, _)| key.clone()).collect();
        let names = store.encoder.decode(keys.iter().map(|key| &**key)).unwrap();
        let names = names[0].as_string::<i32>().iter().flatten().map(|name| name[4..].trim().parse().unwrap());
        let values = keys.iter().map(|key| *store.get(key).unwrap().1);
        let content: Map = names.zip(values).collect();
        assert_eq!(content.len(), store.len());
        content
    }

    /// Every key stands in one run, and is found.
    fn check(&self) {
        let Store { kept, places, key_bytes, .. } = &self.store;
        assert_eq!(kept.check(), places.len());
        assert_eq!(*key_bytes, places.keys().map(|key| key.elsewhere()).sum::<usize>());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(i64, i64),
    Remove(i64),
    Save,
    Restart(bool),
    Split(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0i64..30, 1i64..100).prop_map(|(key, value)| Step::Put(key, value)),
        6 => (0i64..30).prop_map(Step::Remove),
        3 => Just(Step::Save),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => any::<bool>().prop_map(Step::Split),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn it_is_a_map(steps in steps(), bytes in prop::sample::select(vec![1, 200, 1 << 30])) {
        testing::with_batches_of(bytes, || {
            let (mut task, mut model) = (Task::new(), Map::new());
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        task.put(key, value);
                        model.insert(key, value);
                    }
                    Step::Remove(key) => {
                        task.remove(key);
                        model.remove(&key);
                    }
                    Step::Save => drop(task.save()),
                    Step::Restart(rescaled) => task.restart(rescaled),
                    Step::Split(first) => {
                        task.split(first);
                        model.retain(|key, _| (key_groups(&[column(*key)], 1).unwrap()[0].0 < 128) == first);
                    }
                }
                task.check();
                assert_eq!(task.content(), model);
            }
            model.keys().for_each(|key| task.remove(*key));
            task.save();
            task.save();
            assert_eq!((task.store.size(), task.named.len()), (0, 0), "nothing is left");
        });
    }
}

#[test]
fn a_save_of_much_writes_several_segments_and_the_next_only_what_changed() {
    with_batches_of(1_000, || {
        let mut task = Task::new();
        // Long keys only.
        let key = |n: i64| 3 * n + 1;
        (0..100).for_each(|n| task.put(key(n), 1));
        let sealed = task.save();
        assert!(sealed.len() >= 5 && sealed.iter().all(|rows| *rows <= 20), "{sealed:?}");
        assert_eq!(sealed.iter().sum::<usize>(), 100);
        assert_eq!(task.save(), [0; 0]);
        task.put(key(7), 2);
        task.remove(key(8));
        assert_eq!(task.save(), [2]);
        task.restart(false);
        task.put(key(9), 2);
        assert_eq!(task.save(), [1], "those of the first save count as one");
        assert_eq!(task.content().values().filter(|value| **value == 1).count(), 97);
    });
}

/// What a save walks is what it writes, and its runs.
#[test]
fn a_save_costs_what_has_changed() {
    let mut task = Task::new();
    (0..5_000).for_each(|key| task.put(key, 0));
    task.save();
    let mut random = fastrand::Rng::with_seed(1);
    let mut written = 0;
    for save in 1..=100 {
        (0..10).for_each(|_| task.put(random.i64(0..5_000), save));
        written += task.save().iter().sum::<usize>();
        assert!(task.store.kept.room().0 <= 12, "{} runs", task.store.kept.room().0);
    }
    assert!(written < 10_000, "{written} rows for 1000 changes of 5000 keys");
}

#[test]
fn without_saves_nothing_is_left_of_keys_that_come_and_go() {
    let mut task = Task::new();
    for key in 0..5_000 {
        task.put(key, 1);
        task.remove(key);
    }
    assert_eq!(task.store.size(), 0);
    assert!(task.store.kept.room().1 < 100);
}

/// Also in memory.
#[test]
fn what_has_gone_takes_no_room() {
    let mut task = Task::new();
    (0..5_000).for_each(|key| task.put(key, key));
    task.save();
    (0..4_990).for_each(|key| task.remove(key));
    task.check();
    task.save();
    task.put(7, 7);
    task.save();
    task.check();
    let expected: Map = (4_990..5_000).chain([7]).map(|key| (key, key)).collect();
    assert_eq!(task.content(), expected, "they are found at their new places");
    assert!(task.store.places.capacity() < 100 && task.store.kept.room().1 < 100);
    task.restart(false);
    assert_eq!(task.content(), expected);
}
