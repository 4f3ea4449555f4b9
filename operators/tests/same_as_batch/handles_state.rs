//! Maps and lists of a key call by call: what a save writes, what is left, versions, and mistakes.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{Array, AsArray, RecordBatch};
use serde::{Deserialize, Serialize, Serializer};
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::{
    Operator, Outbox, Plan, Port, StreamSchema, Timestamp,
    keyed::{
        FromKey, Keyed, ListState, MapKey, MapState, NoSide, Process, ProcessOperator, ProcessPlan,
        Saved as SavedState, State, Timer, fold, reduce,
    },
    state::StateReader,
};

use crate::{
    bids::us,
    process_state::{Order, OrderView, Said, orders, process},
    restored::Saved,
};

const MAP: MapState<i64, i64> = MapState::new("map");
const LIST: ListState<i64> = ListState::new("list");

/// Does with its map and list what the value of a row says: the last digit is what, the others are with what.
#[derive(Clone)]
struct Obedient;

const TELL: i64 = 0;
const INSERT: i64 = 1;
const REMOVE: i64 = 2;
const PUSH: i64 = 3;
const POP_FRONT: i64 = 4;
const POP: i64 = 5;
const CLEAR_MAP: i64 = 6;
const CLEAR_LIST: i64 = 7;
const CLEAR: i64 = 8;

impl Process for Obedient {
    type Row = Order;
    type State = ();
    type Output = Said;
    type Side = NoSide;

    fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
        let with = order.value / 10;
        match order.value % 10 {
            INSERT => key.map(&MAP).insert(&(with % 1_000), with),
            REMOVE => drop(key.map(&MAP).remove(&(with % 1_000))),
            PUSH => key.list(&LIST).push(with),
            POP_FRONT => drop(key.list(&LIST).pop_front()),
            POP => drop(key.list(&LIST).pop()),
            CLEAR_MAP => key.map(&MAP).clear(),
            CLEAR_LIST => key.list(&LIST).clear(),
            CLEAR => key.clear(),
            _ => {
                let told: Vec<i64> = key.map(&MAP).iter().map(|(_, value)| value).collect();
                let told = told.into_iter().chain(key.list(&LIST).iter().map(|item| -item)).collect::<Vec<_>>();
                told.into_iter().for_each(|what| key.emit(Said { what, at: key.time() }));
            }
        }
    }
}

fn obedient(ttl: Option<u64>) -> ProcessOperator<Obedient> {
    ProcessPlan::new(&orders(), &["key"], Obedient, ttl.map(us)).unwrap().whole().unwrap()
}

fn tell(operator: &mut impl Operator, keys: i64) -> Vec<i64> {
    process(operator, (0..keys).map(|key| (key, TELL, 99))).into_iter().map(|(what, ..)| what).collect()
}

fn rows_saved(saved: &Saved) -> usize {
    saved.part().segments.iter().map(|(_, rows)| rows.num_rows()).sum()
}

/// Against maps and queues: entries come and go, saves and restores between them.
#[test]
fn the_entries_are_those_of_a_model_over_any_history() {
    let mut random = fastrand::Rng::with_seed(17);
    for round in 0..30 {
        let (keys, entries) = ([1, 3, 40][round % 3], [3, 30, 300][round % 4 % 3]);
        let (mut operator, mut saved) = (obedient(None), Saved::new());
        let mut model = BTreeMap::<i64, (BTreeMap<i64, i64>, VecDeque<i64>)>::new();
        for step in 0..60 {
            let most = [1, 8, 200][random.usize(..3)];
            let rows: Vec<(i64, i64, i64)> = (0..random.usize(..=most))
                .map(|_| {
                    let mut does = [INSERT, INSERT, REMOVE, PUSH, PUSH, POP_FRONT, POP][random.usize(..7)];
                    if random.u8(..50) == 0 {
                        does = [CLEAR_MAP, CLEAR_LIST, CLEAR][random.usize(..3)];
                    }
                    let with = random.i64(0..entries) + 1_000 * random.i64(0..5);
                    (random.i64(0..keys), with * 10 + does, step)
                })
                .collect();
            for (key, value, _) in &rows {
                let (map, list) = model.entry(*key).or_default();
                let with = value / 10;
                match value % 10 {
                    INSERT => drop(map.insert(with % 1_000, with)),
                    REMOVE => drop(map.remove(&(with % 1_000))),
                    PUSH => list.push_back(with),
                    POP_FRONT => drop(list.pop_front()),
                    POP => drop(list.pop_back()),
                    CLEAR_MAP => map.clear(),
                    CLEAR_LIST => list.clear(),
                    _ => (map.clear(), list.clear()).0,
                }
            }
            process(&mut operator, rows);
            if random.bool() {
                saved.save(&mut operator);
                let living: usize = model.values().map(|(map, list)| 1 + map.len() + list.len()).sum();
                assert!(rows_saved(&saved) <= 200 + 8 * living, "{} for {living}", rows_saved(&saved));
                if random.u8(..3) == 0 {
                    operator = obedient(None);
                    saved.load(&mut operator);
                }
            }
        }
        let expected: Vec<i64> = model
            .values()
            .flat_map(|(map, list)| map.values().copied().chain(list.iter().map(|item| -item)).collect::<Vec<_>>())
            .collect();
        assert_eq!(tell(&mut operator, keys), expected, "round {round}");
        process(&mut operator, (0..keys).map(|key| (key, CLEAR, 100)));
        saved.save(&mut operator);
        saved.save(&mut operator);
        assert_eq!(saved.state.segments, [], "round {round}: nothing lives, so nothing is named");
        assert_eq!(operator.size(), 0);
    }
}

/// One task becomes two, which go on, and become one.
#[test]
fn entries_go_with_the_key_group_of_their_key() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    let all = |does: i64| move |key: i64| (key, (key * 1_000 + key % 7) * 10 + does, 0);
    process(&mut operator, (0..200).flat_map(|key| [all(INSERT)(key), all(PUSH)(key)]));
    saved.save(&mut operator);
    process(&mut operator, (0..200).step_by(3).map(|key| (key, (key % 7) * 10 + REMOVE, 0)));
    saved.save(&mut operator);
    let mut parts = Vec::new();
    for groups in [0..100_usize, 100..256] {
        let mut part = saved.part();
        for (_, rows) in &mut part.segments {
            let own = rows.column(0).as_primitive::<arrow::datatypes::UInt8Type>().values().iter();
            let own = own.map(|group| Some(groups.contains(&usize::from(*group)))).collect();
            *rows = arrow::compute::filter_record_batch(rows, &own).unwrap();
        }
        let mut task = obedient(None);
        let mut saved_of_task = Saved::after(std::slice::from_mut(&mut part));
        task.load(&StateReader { key_groups: groups.clone(), parts: vec![part] }).unwrap();
        // Every key is told to both: of those that are another's there is nothing.
        process(&mut task, (0..200).step_by(2).map(|key| (key, POP, 1)));
        saved_of_task.save(&mut task);
        parts.push(saved_of_task.part());
    }
    let _ = Saved::after(&mut parts);
    let mut whole = obedient(None);
    whole.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    let expected: Vec<i64> = (0..200)
        .flat_map(|key: i64| {
            let value = key * 1_000 + key % 7;
            [(key % 3 != 0).then_some(value), (key % 2 != 0).then_some(-value)].into_iter().flatten()
        })
        .collect();
    assert_eq!(tell(&mut whole, 200), expected);
}

/// Of many entries few are left, at other places in memory.
#[test]
fn what_has_gone_takes_no_room() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    let left = || (0..5).flat_map(|key: i64| (4_950 + key..5_000).step_by(5).map(|item| -item)).collect::<Vec<_>>();
    for is_saved in [true, false] {
        process(&mut operator, (0..5_000).map(|i| (i % 5, i * 10 + PUSH, 0)));
        if is_saved {
            assert_eq!(saved.save(&mut operator), 5_005);
        }
        let full = operator.size();
        process(&mut operator, (0..4_950).map(|i| (i % 5, POP_FRONT, 0)));
        saved.save(&mut operator);
        assert!(operator.size() < full / 20, "{} of {full}", operator.size());
        assert_eq!(tell(&mut operator, 5), left());
        process(&mut operator, [(1, 10 + PUSH, 0), (1, POP, 0), (1, 20 + INSERT, 0)]);
        saved.save(&mut operator);
        operator = obedient(None);
        saved.load(&mut operator);
        process(&mut operator, [(1, 20 + REMOVE, 0)]);
        assert_eq!(tell(&mut operator, 5), left());
        process(&mut operator, (0..5).map(|key| (key, CLEAR, 0)));
    }
}

#[test]
fn a_save_writes_the_entries_that_have_changed() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    process(&mut operator, (0..20_000).map(|i| (1, (i * 1_000 + i % 1_000) * 10 + PUSH, 0)));
    process(&mut operator, (0..1_000).map(|i| (1, i * 10 + INSERT, 0)));
    assert_eq!(saved.save(&mut operator), 21_001);
    assert_eq!(saved.save(&mut operator), 0);
    process(&mut operator, (0..10).map(|i| (1, i * 10 + INSERT, 0)));
    assert_eq!(saved.save(&mut operator), 0, "the same values again");
    process(&mut operator, (0..10).map(|i| (1, (i + 1_000) * 10 + INSERT, 0)));
    assert_eq!(saved.save(&mut operator), 10);
    process(&mut operator, [(1, TELL, 0)]);
    assert_eq!(saved.save(&mut operator), 0, "who only looks changes nothing");
    process(&mut operator, [(1, 5 * 10 + REMOVE, 0), (1, 999_999 * 10 + REMOVE, 0)]);
    assert!(saved.save(&mut operator) <= 12, "two tombstones, and the small segment before");
    let (mut total, size) = (0, operator.size());
    for save in 0..100_i64 {
        process(&mut operator, (0..10).map(|i| (1, ((save * 7 + i * 99) % 1_000) * 10 + 1_000 * save + INSERT, 0)));
        process(&mut operator, [(1, save * 10 + PUSH, 0), (1, POP_FRONT, 0)]);
        total += saved.save(&mut operator);
        assert!(saved.state.segments.len() <= 14, "{} segments", saved.state.segments.len());
    }
    assert!(total <= 12_000, "{total} rows for 1200 changes");
    assert!(operator.size() < size + size / 2, "{} bytes, and {size} before", operator.size());
}

/// A day of ever new keys, each of which lives for a minute, with a map and a list. The state stays as small as what lives in
/// a minute, in memory and in segments, and falls to nothing.
#[test]
fn a_day_of_new_keys() {
    const SECOND: i64 = 1_000_000;
    let mut operator = obedient(Some(60 * SECOND as u64));
    let mut saved = Saved::new();
    let (mut most, mut most_saved) = (0, 0);
    let advance = |operator: &mut ProcessOperator<Obedient>, seconds: i64| {
        let mut out = Outbox::new();
        let time = Timestamp::from_micros(seconds * SECOND);
        while operator.advance(time, &mut out).unwrap() == windrow_operators::Advance::Again {}
    };
    for minute in 0..24 * 60_i64 {
        let does = |i: i64| [(i % 3) * 10 + INSERT, i * 10 + PUSH, (i % 2) * 10 + REMOVE];
        let rows =
            (0..30).flat_map(|i| does(i).map(move |does| (minute * 10 + i / 3, does, (minute * 60 + 2 * i) * SECOND)));
        process(&mut operator, rows);
        advance(&mut operator, minute * 60 + 58);
        most = most.max(operator.size());
        if minute % 5 == 0 {
            saved.save(&mut operator);
            most_saved = most_saved.max(rows_saved(&saved));
            if minute % 60 == 0 {
                operator = obedient(Some(60 * SECOND as u64));
                saved.load(&mut operator);
            }
        }
    }
    assert!(most < 40_000, "{most} bytes for 20 keys");
    assert!(most_saved < 1_000, "{most_saved} rows for 20 keys");
    advance(&mut operator, 25 * 3_600);
    saved.save(&mut operator);
    assert_eq!((operator.size(), &saved.state.segments[..]), (0, &[][..]));
}

/// A job without checkpoints never saves: what has gone leaves nothing.
#[test]
fn without_saves_nothing_is_left() {
    let mut operator = obedient(None);
    for round in 0..100 {
        process(&mut operator, (0..100).map(|i| (i % 3, (round * 100 + i) * 10 + PUSH, 0)));
        process(&mut operator, (0..100).map(|i| (i % 3, POP_FRONT, 0)));
    }
    let of_keys = operator.size();
    process(&mut operator, (0..3).map(|key| (key, CLEAR, 0)));
    assert_eq!(operator.size(), 0);
    assert!(of_keys < 1_000, "{of_keys} bytes for three keys");
}

/// A process with one map and one list of these types, which reads all of them at a row with the value 0.
#[derive(Clone)]
struct Typed<K: MapKey, V: State, T: State>(MapState<K, V>, ListState<T>, fn(i64) -> (K, V, T));

impl<K, V, T> Process for Typed<K, V, T>
where
    K: MapKey + Clone,
    V: State + Clone,
    T: State + Clone,
{
    type Row = Order;
    type State = ();
    type Output = Said;
    type Side = NoSide;

    fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
        let (entry, value, item) = self.2(order.value);
        if order.value == 0 {
            let what = key.map(&self.0).iter().count() + key.list(&self.1).iter().count();
            return key.emit(Said { what: what as i64, at: key.time() });
        }
        key.map(&self.0).insert(&entry, value);
        key.list(&self.1).push(item);
    }

    fn name() -> std::borrow::Cow<'static, str> {
        "Typed".into()
    }
}

fn typed<K, V, T>(map: &'static str, list: &'static str, make: fn(i64) -> (K, V, T)) -> ProcessOperator<Typed<K, V, T>>
where
    K: MapKey + Clone,
    V: State + Clone,
    T: State + Clone,
{
    let typed = Typed(MapState::new(map), ListState::new(list), make);
    ProcessPlan::new(&orders(), &["key"], typed, None).unwrap().whole().unwrap()
}

fn order(key: i64, value: i64) -> RecordBatch {
    let mut rows = Order::new_builders(1);
    rows.append_row(Order::new(key, value));
    rows.finish().into_record_batch()
}

#[track_caller]
fn fails(operator: &mut impl Operator, value: i64, words: &str) {
    let error = operator.process(Port::MAIN, order(7, value), &mut Outbox::new()).unwrap_err().to_string();
    assert_eq!(error, words);
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Dollars {
    dollars: i64,
}
impl State for Dollars {}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Cents {
    cents: i64,
}
impl State for Cents {
    const VERSION: u32 = 2;

    fn upcast(version: u32, saved: SavedState<'_>) -> windrow_operators::Result<Self> {
        match version {
            1 => Ok(Self { cents: 100 * saved.read::<Dollars>()?.dollars }),
            _ => Err(saved.unknown_version()),
        }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Careless {
    cents: i64,
}
impl State for Careless {
    const VERSION: u32 = 2;
}

#[test]
fn entries_have_versions() {
    let mut first = typed("a", "b", |i| (i, Dollars { dollars: i }, Dollars { dollars: -i }));
    process(&mut first, [(7, 5, 0), (7, 6, 0)]);
    let mut saved = Saved::new();
    saved.save(&mut first);
    let mut second = typed("a", "b", |i| (i, Cents { cents: i }, Cents { cents: -i }));
    saved.load(&mut second);
    // Entries of both versions.
    assert_eq!(process(&mut second, [(7, 6, 0), (7, 0, 0)]), [(5, 0, 0)]);
    saved.save(&mut second);
    let mut again = typed("a", "b", |i| (i, Cents { cents: i }, Cents { cents: -i }));
    saved.load(&mut again);
    assert_eq!(process(&mut again, [(7, 0, 0)]), [(5, 0, 0)]);

    let mut careless = typed("a", "b", |i| (i, Careless { cents: i }, 0i64));
    saved.load(&mut careless);
    fails(
        &mut careless,
        0,
        "process Typed: the entry 5 of \"a\" of key (7), of version 1 (now 2), cannot be read: it was saved by version 1 of \
         the state and this program has version 2: write State::upcast for version 1, or start the program that saved it",
    );
    let mut items = typed("c", "b", |i| (i, 0i64, Careless { cents: i }));
    saved.load(&mut items);
    let error = items.process(Port::MAIN, order(7, 0), &mut Outbox::new()).unwrap_err().to_string();
    assert!(error.starts_with("process Typed: the entry 0 of \"b\" of key (7), of version 1 (now 2)"), "{error}");
}

#[test]
fn one_name_has_one_type() {
    let mut operator = typed("x", "x", |i| (i, Some(i), i));
    fails(
        &mut operator,
        5,
        "process Typed: the state called \"x\" is used as a list of i64 and as a map of i64 to Option<i64>: give each a \
         name of its own",
    );
    let mut saved = Saved::new();
    let mut former = typed("x", "y", |i| (i, i, i));
    process(&mut former, [(7, 5, 0)]);
    saved.save(&mut former);
    let mut other = typed("y", "z", |i| (i.to_string(), i, i));
    saved.load(&mut other);
    let words = "process Typed: the state called \"y\" is a map of String to i64 now, but what was saved under this name has \
                 other entries: give it another name";
    fails(&mut other, 0, words);
    let mut unsigned = typed("x", "y", |i| (i as u64, i, i));
    saved.load(&mut unsigned);
    let error = unsigned.process(Port::MAIN, order(7, 1), &mut Outbox::new()).unwrap_err().to_string();
    assert!(error.contains("\"x\" is a map of u64 to i64 now"), "{error}");
    let mut wider = typed("x", "y", |i| (i as i16, i128::from(i) as i64, i));
    saved.load(&mut wider);
    assert_eq!(process(&mut wider, [(7, 5, 0), (7, 0, 0)]), [(3, 0, 0)], "another width");
}

#[test]
fn a_name_whose_entries_are_all_gone_has_no_type() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    process(&mut operator, (0..10).map(|item| (7, item * 10 + PUSH, 0)));
    process(&mut operator, [(7, 50 + INSERT, 0)]);
    saved.save(&mut operator);
    process(&mut operator, [(7, 50 + REMOVE, 0)]);
    assert_eq!(saved.save(&mut operator), 1, "a tombstone");
    let mut other = typed("map", "list", |i| (i.to_string(), i, i));
    saved.load(&mut other);
    process(&mut other, [(7, 5, 0)]);
}

/// Cannot be written when it is negative.
#[derive(Clone, Default, Deserialize)]
struct Picky(i64);
impl State for Picky {}

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 < 0 { Err(serde::ser::Error::custom("it is negative")) } else { to.serialize_i64(self.0) }
    }
}

#[test]
fn a_value_that_cannot_be_written_fails_the_job() {
    let mut operator = typed("a", "b", |i| (i, i, Picky(i)));
    process(&mut operator, [(7, 5, 0)]);
    let error = operator.process(Port::MAIN, order(7, -5), &mut Outbox::new()).unwrap_err().to_string();
    let words = "process Typed: the entry 1 of \"b\" of key (7): the state Picky cannot be saved: it is negative";
    assert!(error.starts_with(words), "{error}");
}

/// What others read in a checkpoint.
#[test]
fn the_entries_are_a_table() {
    let plan = ProcessPlan::new(&orders(), &["key"], Obedient, None).unwrap();
    assert_eq!(plan.state_form().identity, 3, "the key, the name, the entry");
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(7, 50 + INSERT, 0), (7, 60 + PUSH, 0)]);
    let mut saved = Saved::new();
    saved.save(&mut operator);
    let part = saved.part();
    let rows = &part.segments.iter().find(|(_, rows)| rows.num_rows() == 2).unwrap().1;
    let text = |row: usize| {
        let handle = rows.column_by_name("handle").unwrap().as_string::<i32>().value(row).to_string();
        let bytes = |name: &str| rows.column_by_name(name).unwrap().as_binary::<i64>().value(row).to_vec();
        (handle, bytes("entry"), bytes("state"))
    };
    let mut all = [text(0), text(1)];
    all.sort();
    let list = ("list".into(), b"#\0\0\0\0\0\0\0\0".to_vec(), vec![6]);
    assert_eq!(all, [list, ("map".into(), b"i\x80\0\0\0\0\0\0\x05".to_vec(), vec![5])]);
    assert!(rows.column_by_name("time").unwrap().is_null(0));
}

/// Says its key in a timer.
#[derive(Clone)]
struct Named<T>(fn(T) -> String);

#[derive(Record, Clone)]
struct Login {
    user: String,
    shard: Option<i32>,
    at: Timestamp,
}

#[derive(Record)]
struct Name {
    name: String,
}

impl<T: FromKey + Clone + 'static> Process for Named<T> {
    type Row = Login;
    type State = ();
    type Output = Name;
    type Side = NoSide;

    fn row(&mut self, _: LoginView<'_>, key: &mut Keyed<'_, Self>) {
        key.set_timer(key.time());
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let name = self.0(key.key());
        key.emit(Name { name });
        key.clear();
    }
}

fn names<T: FromKey + Clone + 'static>(key: &[&str], say: fn(T) -> String) -> Result<Vec<String>, String> {
    let logins = StreamSchema::with_time(Login::schema(), "at").unwrap();
    let mut operator = ProcessPlan::new(&logins, key, Named(say), None).unwrap().whole().unwrap();
    let mut rows = Login::new_builders(2);
    let at = Timestamp::from_micros;
    rows.append_row(Login { user: "ann".into(), shard: Some(3), at: at(1) });
    rows.append_row(Login { user: "bob".into(), shard: None, at: at(2) });
    let mut out = Outbox::new();
    operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut out).unwrap();
    operator.advance(at(5), &mut out).map_err(|error| error.to_string())?;
    let batches: Vec<RecordBatch> = out.drain().map(|(_, batch)| batch).collect();
    Ok(batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(String::from)).collect())
}

#[test]
fn a_timer_knows_its_key() {
    assert_eq!(names(&["user"], |user: String| user).unwrap(), ["ann", "bob"]);
    assert_eq!(names(&["shard"], |shard: Option<u64>| format!("{shard:?}")).unwrap(), ["Some(3)", "None"]);
    let both = |(user, shard, at): (String, Option<i64>, Timestamp)| format!("{user} {shard:?} {}", at.micros());
    assert_eq!(names(&["user", "shard", "at"], both).unwrap(), ["ann Some(3) 1", "bob None 2"]);
    let error = names(&["user"], |user: i64| user.to_string()).unwrap_err();
    assert_eq!(
        error,
        "process Named asks for its key: its key is (user Utf8), which is no i64: a value of type Utf8 is no i64"
    );
    let error = names(&["user", "shard"], |user: String| user).unwrap_err();
    assert!(error.ends_with("it has 2 columns, and this is one value"), "{error}");
    let error = names(&["shard"], |shard: i32| shard.to_string()).unwrap_err();
    assert!(error.ends_with("a value is null, which only an Option<i32> can say"), "{error}");
}

/// Two folds over the same key are two states.
#[test]
fn a_fold_is_named_by_its_types() {
    let one = fold::<Order, Option<(u64, String)>, Said, _>(|_, _, _| {});
    let other = fold::<Order, Vec<i64>, Said, _>(|_, _, _| {});
    let one = ProcessPlan::new(&orders(), &["key"], one, None).unwrap().state_form();
    let other = ProcessPlan::new(&orders(), &["key"], other, None).unwrap().state_form();
    assert_eq!(one.meaning, "Fold of Option<(u64, String)> to Said per key");
    assert_eq!(other.meaning, "Fold of Vec<i64> to Said per key");
    assert!(other.accepts(&one).unwrap_err().contains("Option<(u64, String)>"));

    #[derive(Clone, Record, Serialize, Deserialize)]
    struct Row {
        key: i64,
    }
    let last = reduce(|_: Row, row: Row| row);
    let plan = ProcessPlan::new(&orders(), &["key"], last, None).unwrap();
    assert_eq!(plan.state_form().meaning, "Reduce of Row per key");
}
