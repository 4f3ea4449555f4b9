//! Keyed processes call by call: when timers fire, how long keys live, what a save writes.

use std::collections::BTreeMap;

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::{
    Advance, Operator, OperatorError, Outbox, Partitioning, Plan, Port, StreamSchema, Timestamp,
    keyed::{Keyed, NoSide, Process, ProcessOperator, ProcessPlan, Timer},
};

use crate::{bids::us, restored::Saved};

#[derive(Clone, Record)]
pub(crate) struct Order {
    pub(crate) key: i64,
    pub(crate) value: i64,
    at: Timestamp,
}

impl Order {
    pub(crate) fn new(key: i64, value: i64) -> Self {
        Self { key, value, at: at(0) }
    }
}

pub(crate) fn orders() -> StreamSchema {
    StreamSchema::with_time(Order::schema(), "at").unwrap()
}

pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

pub(crate) fn batch(rows: impl IntoIterator<Item = (i64, i64, i64)>) -> RecordBatch {
    let mut builders = Order::new_builders(0);
    builders.append_rows(rows.into_iter().map(|(key, value, time)| Order { key, value, at: at(time) }));
    builders.finish().into_record_batch()
}

#[derive(Clone, Record)]
pub(crate) struct Said {
    pub(crate) what: i64,
    pub(crate) at: Timestamp,
}

/// Does what the value of a row says, and says what it does.
#[derive(Clone)]
pub(crate) struct Obedient;

pub(crate) const SAY: i64 = 0;
const CLEAR: i64 = -1;
/// Sets a timer for the instant after each that fires.
pub(crate) const FOR_EVER: i64 = -2;
/// Sets a processing-time timer for an instant that has passed, again and again.
pub(crate) const IMPATIENT: i64 = -3;

impl Process for Obedient {
    type Row = Order;
    type State = Vec<i64>;
    type Output = Said;
    type Side = NoSide;

    fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
        match order.value {
            SAY => key.emit(Said { what: key.state().len() as i64, at: key.time() }),
            CLEAR => key.clear(),
            IMPATIENT => {
                key.state_mut().push(IMPATIENT);
                key.set_processing_timer(at(-5));
            }
            value => {
                key.state_mut().push(if value == FOR_EVER { value } else { order.key * 1_000 + value });
                key.set_timer(if value == FOR_EVER { key.time() } else { at(value) });
            }
        }
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        let what = key.state().first().copied().unwrap_or(0);
        key.emit(Said { what, at: key.time() });
        match timer {
            Timer::Event(time) if what == FOR_EVER => key.set_timer(time + us(1)),
            Timer::Processing(time) => key.set_processing_timer(time),
            Timer::Event(_) => {}
        }
    }
}

pub(crate) fn obedient(ttl: Option<u64>) -> ProcessOperator<Obedient> {
    ProcessPlan::new(&orders(), &["key"], Obedient, ttl.map(us)).unwrap().whole().unwrap()
}

pub(crate) fn process(
    operator: &mut impl Operator,
    rows: impl IntoIterator<Item = (i64, i64, i64)>,
) -> Vec<(i64, i64, i64)> {
    let mut out = Outbox::new();
    operator.process(Port::MAIN, batch(rows), &mut out).unwrap();
    said(&mut out)
}

/// What was said, the time that the function saw, and the hidden event time.
pub(crate) fn said(out: &mut Outbox) -> Vec<(i64, i64, i64)> {
    let rows = |batch: RecordBatch| {
        let time = |column: usize| batch.column(column).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let what = batch.column(0).as_primitive::<Int64Type>();
        (0..batch.num_rows()).map(|row| (what.value(row), time(1).value(row), time(2).value(row))).collect::<Vec<_>>()
    };
    out.drain().flat_map(|(_, batch)| rows(batch)).collect()
}

pub(crate) fn advance(operator: &mut impl Operator, time: Timestamp) -> Vec<(i64, i64, i64)> {
    let mut out = Outbox::new();
    while operator.advance(time, &mut out).unwrap() == Advance::Again {}
    said(&mut out)
}

#[test]
fn timers_fire_in_order_once_and_not_too_early() {
    let mut operator = obedient(None);
    process(&mut operator, [(2, 50, 0), (1, 50, 0), (1, 50, 1), (1, 30, 2), (3, 51, 0)]);
    assert_eq!(advance(&mut operator, at(29)), []);
    assert_eq!(advance(&mut operator, at(30)), [(1_050, 30, 30)]);
    assert_eq!(advance(&mut operator, at(50)), [(1_050, 50, 50), (2_050, 50, 50)], "by instant, then by key");
    assert_eq!(advance(&mut operator, at(50)), []);
    assert_eq!(advance(&mut operator, Timestamp::MAX), [(3_051, 51, 51)]);
}

#[test]
fn a_timer_in_the_past_fires_at_the_next_watermark_and_keeps_the_promise() {
    let mut operator = obedient(None);
    advance(&mut operator, at(100));
    assert_eq!(process(&mut operator, [(1, 40, 60), (1, SAY, 60)]), [(1, 60, 100)], "a row behind the watermark");
    assert_eq!(advance(&mut operator, at(100)), [(1_040, 40, 100)]);
    let mut saved = Saved::new();
    process(&mut operator, [(1, 41, 60)]);
    saved.save(&mut operator);
    let mut restored = obedient(None);
    saved.load(&mut restored);
    assert_eq!(advance(&mut restored, at(101)), [(1_040, 41, 100)], "it remembers what was promised");
}

#[test]
fn the_end_of_the_input_is_not_a_time() {
    let mut operator = obedient(Some(10));
    process(&mut operator, [(1, 5, 0), (1, 99, 0), (2, 7, 0)]);
    assert_eq!(advance(&mut operator, Timestamp::MAX), [(1_005, 5, 5), (2_007, 7, 7)], "99 is beyond its life");
    let mut saved = Saved::new();
    saved.save(&mut operator);
    let mut restored = obedient(Some(10));
    saved.load(&mut restored);
    assert_eq!(process(&mut restored, [(2, SAY, 8)]), [(1, 8, 8)], "a job that goes on finds the state, and its times");
}

#[test]
fn many_timers_fire_in_steps() {
    let mut operator = obedient(None);
    process(&mut operator, (0..20_000).map(|key| (key, 5, 0)));
    let (mut steps, mut all) = (0, 0);
    loop {
        let mut out = Outbox::new();
        let step = operator.advance(at(5), &mut out).unwrap();
        let fired = said(&mut out).len();
        assert!(fired <= 8_192);
        (steps, all) = (steps + 1, all + fired);
        if step == Advance::Promise(at(5)) {
            break;
        }
    }
    assert_eq!((steps, all), (3, 20_000));
}

#[test]
fn a_chain_of_timers_without_end_is_an_error_at_the_end() {
    let mut operator = obedient(None);
    process(&mut operator, [(1, FOR_EVER, 0)]);
    assert_eq!(advance(&mut operator, at(1_000)).len(), 1_001);
    let mut out = Outbox::new();
    let error = loop {
        drop(out.drain());
        match operator.advance(Timestamp::MAX, &mut out) {
            Ok(step) => assert_eq!(step, Advance::Again),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.starts_with("process Obedient sets timers without end"), "{error}");
    let mut mortal = obedient(Some(1_000));
    process(&mut mortal, [(1, FOR_EVER, 0)]);
    assert_eq!(advance(&mut mortal, Timestamp::MAX).len(), 1_001, "the chain ends with the life of the key");
}

/// A timer for an instant that has passed comes once a tick, so that one tick has an end.
#[test]
fn an_impatient_process_does_not_hang() {
    let mut operator = obedient(None);
    let mut out = Outbox::new();
    operator.process(Port::MAIN, batch([(1, IMPATIENT, 0)]), &mut out).unwrap();
    assert_eq!(out.take_wake(), Some(at(-5)));
    for _ in 0..3 {
        operator.tick(&mut out).unwrap();
        assert_eq!(said(&mut out), [(IMPATIENT, 0, 0)]);
        assert_eq!(out.take_wake(), Some(at(-5)));
    }
}

/// A restored operator asks for its wake-up again.
#[test]
fn processing_timers_are_asked_for_again() {
    let mut operator = obedient(None);
    process(&mut operator, [(1, IMPATIENT, 0)]);
    let mut saved = Saved::new();
    saved.save(&mut operator);
    let mut restored = obedient(None);
    saved.load(&mut restored);
    let mut out = Outbox::new();
    out.set_now(at(7));
    restored.tick(&mut out).unwrap();
    assert_eq!(said(&mut out).len(), 1);
    assert!(out.take_wake().is_some());
}

#[test]
fn a_key_expires_when_the_watermark_is_more_than_its_life_past_its_last_row() {
    let mut operator = obedient(Some(10));
    process(&mut operator, [(1, 1_000, 0), (2, 1_000, 0)]);
    process(&mut operator, [(2, SAY, 5)]);
    advance(&mut operator, at(10));
    assert_eq!(process(&mut operator, [(3, SAY, 10)]), [(0, 10, 10)]);
    let before = operator.size();
    advance(&mut operator, at(11));
    assert!(operator.size() < before);
    assert_eq!(process(&mut operator, [(1, SAY, 11), (2, SAY, 11)]), [(0, 11, 11), (1, 11, 11)]);
    assert_eq!(advance(&mut operator, at(20_000)), [], "their timers are gone with them");
    assert_eq!(operator.size(), 0);
}

/// A key that expires and comes again, before and after saves.
#[test]
fn a_key_that_has_gone_does_not_come_back() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    // A large old segment that new ones do not absorb.
    process(&mut operator, (0..1_000).map(|key| (key, 9_000, 0)));
    assert_eq!(saved.save(&mut operator), 1_000);
    process(&mut operator, [(1, CLEAR, 1), (2, CLEAR, 1), (3, CLEAR, 1)]);
    process(&mut operator, [(2, 7, 1), (3, 7, 1), (3, CLEAR, 1), (5_000, 7, 1), (5_000, CLEAR, 1)]);
    assert_eq!(saved.save(&mut operator), 3, "two tombstones, and one that is new");
    let mut restored = obedient(None);
    saved.load(&mut restored);
    let all = [(1, SAY, 2), (2, SAY, 2), (3, SAY, 2), (4, SAY, 2), (5_000, SAY, 2)];
    let counts: Vec<i64> = process(&mut restored, all).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(counts, [0, 1, 0, 1, 0]);
    // Removed right after it was restored.
    process(&mut restored, [(2, CLEAR, 3), (4, CLEAR, 3)]);
    saved.save(&mut restored);
    let mut again = obedient(None);
    saved.load(&mut again);
    let counts: Vec<i64> = process(&mut again, all).into_iter().map(|(what, ..)| what).collect();
    assert_eq!(counts, [0; 5]);
    assert_eq!(advance(&mut again, Timestamp::MAX).len(), 996);
}

/// Against a map: keys come and go, saves and restores between them.
#[test]
fn the_state_is_a_map_over_any_history() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..20 {
        let keys = [3, 40, 400][round % 3];
        let (mut operator, mut saved, mut model) = (obedient(None), Saved::new(), BTreeMap::<i64, i64>::new());
        for step in 0..60 {
            let most = [1, 4, 60][random.usize(..3)];
            let rows: Vec<_> = (0..random.usize(..=most))
                .map(|_| (random.i64(0..keys), if random.u8(..3) == 0 { CLEAR } else { 1_000_000 }, step))
                .collect();
            for (key, value, _) in &rows {
                match *value {
                    CLEAR => drop(model.remove(key)),
                    _ => *model.entry(*key).or_insert(0) += 1,
                }
            }
            process(&mut operator, rows);
            if random.bool() {
                saved.save(&mut operator);
                let living = model.len();
                let segments: usize = saved.part().segments.iter().map(|(_, rows)| rows.num_rows()).sum();
                assert!(living > 0 || segments == 0 || !saved.state.segments.is_empty());
                assert!(saved.state.segments.len() <= 12);
                if random.u8(..4) == 0 {
                    operator = obedient(None);
                    saved.load(&mut operator);
                }
            }
        }
        let counts: Vec<i64> =
            process(&mut operator, (0..keys).map(|key| (key, SAY, 99))).iter().map(|s| s.0).collect();
        let expected: Vec<i64> = (0..keys).map(|key| model.get(&key).copied().unwrap_or(0)).collect();
        assert_eq!(counts, expected, "round {round}");
        process(&mut operator, (0..keys).map(|key| (key, CLEAR, 100)));
        // The tombstones of a last save are in its segments; then nothing is left.
        saved.save(&mut operator);
        saved.save(&mut operator);
        assert_eq!(saved.state.segments, [], "round {round}: nothing lives, so nothing is named");
        assert_eq!(operator.size(), 0);
    }
}

#[test]
fn a_save_writes_what_has_changed() {
    let mut operator = obedient(None);
    let mut saved = Saved::new();
    process(&mut operator, (0..20_000).map(|key| (key, 1_000_000, 0)));
    assert_eq!(saved.save(&mut operator), 20_000);
    assert_eq!(saved.save(&mut operator), 0);
    process(&mut operator, (0..10).map(|i| (i * 999, 2_000_000, 1)));
    assert_eq!(saved.save(&mut operator), 10);
    process(&mut operator, (0..10).map(|i| (i * 999, SAY, 1)));
    assert_eq!(saved.save(&mut operator), 0, "who only looks changes nothing");
    let mut total = 0;
    for save in 0..100_i64 {
        process(
            &mut operator,
            (0..10).map(|i| ((save * 7_919 + i * 4_999) % 20_000, if i < 3 { CLEAR } else { 2 }, 1)),
        );
        total += saved.save(&mut operator);
        assert!(saved.state.segments.len() <= 10, "{} segments", saved.state.segments.len());
    }
    assert!(total <= 10_000, "{total} rows for 1000 changes");
}

/// A day of ever new keys, each of which lives for a minute. The state stays as small as what lives in a minute, in memory
/// and in segments, and falls to nothing.
#[test]
fn a_day_of_new_keys() {
    const SECOND: i64 = 1_000_000;
    let plan = ProcessPlan::new(&orders(), &["key"], Obedient, Some(us(60 * SECOND as u64))).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    let (mut most, mut most_saved) = (0, 0);
    for minute in 0..24 * 60_i64 {
        let rows = (0..30).map(|i| (minute * 30 + i, 90_000 * SECOND, (minute * 60 + 2 * i) * SECOND));
        process(&mut operator, rows);
        advance(&mut operator, at((minute * 60 + 58) * SECOND));
        most = most.max(operator.size());
        if minute % 5 == 0 {
            saved.save(&mut operator);
            let rows = saved.part().segments.iter().map(|(_, rows)| rows.num_rows()).sum();
            most_saved = most_saved.max(rows);
        }
    }
    assert!(most < 30_000, "{most} bytes for 60 keys");
    assert!(most_saved < 1_000, "{most_saved} rows for 60 keys");
    advance(&mut operator, at(25 * 3_600 * SECOND));
    saved.save(&mut operator);
    assert_eq!((operator.size(), &saved.state.segments[..]), (0, &[][..]));
}

#[test]
fn without_event_time_an_event_timer_says_so() {
    let stream = StreamSchema::without_time(Order::schema());
    let plan = ProcessPlan::new(&stream, &["key"], Obedient, None).unwrap();
    let error = plan.whole().unwrap().process(Port::MAIN, batch([(1, 5, 0)]), &mut Outbox::new()).unwrap_err();
    assert!(matches!(error, OperatorError::Plan(_)));
    assert_eq!(
        error.to_string(),
        "process Obedient has set an event-time timer, but its stream has no event time: declare it at the source with \
         .event_time(column, …), or use set_processing_timer"
    );
    let error = ProcessPlan::new(&stream, &["key"], Obedient, Some(us(5))).err().unwrap().to_string();
    assert_eq!(
        error,
        "the time to live of process Obedient needs event time: declare it at the source with .event_time(column, …)"
    );
}

#[test]
fn a_plan_says_what_it_is() {
    let plan = ProcessPlan::new(&orders(), &["key"], Obedient, None).unwrap();
    assert_eq!(plan.state_form().meaning, "Obedient per key");
    assert_eq!(plan.inputs(), [Partitioning::Key(vec![0])]);
    let names: Vec<_> = plan.state_form().columns.fields().iter().map(|field| field.name().clone()).collect();
    let held = ["handle", "entry", "version", "state", "time", "timers", "processing_timers"];
    assert_eq!(
        (&names[..2], &names[2..]),
        (&["__key_group", "key"].map(String::from)[..], &held.map(String::from)[..])
    );
    let error = ProcessPlan::new(&orders(), &["kei"], Obedient, None).err().unwrap().to_string();
    assert!(error.contains("did you mean \"key\""), "{error}");
}

/// All NaNs are one key, both zeros are, and a key column may be called like one of the state's.
#[test]
fn float_keys_and_names_that_collide() {
    #[derive(Record)]
    struct Reading {
        state: f64,
        version: i64,
    }
    let count = windrow_operators::keyed::fold::<Reading, i64, Said, _>(|count, _, out| {
        *count += 1;
        out.emit(Said { what: *count, at: at(0) });
    });
    let states: ArrayRef = std::sync::Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN, 0.0, -0.0]));
    let versions: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![1; 4]));
    let rows = RecordBatch::try_new(Reading::schema(), vec![states, versions]).unwrap();
    let stream = StreamSchema::without_time(Reading::schema());
    let plan = ProcessPlan::new(&stream, &["state", "version"], count, None).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    for expected in [[1, 2, 1, 2], [3, 4, 3, 4]] {
        let mut out = Outbox::new();
        operator.process(Port::MAIN, rows.clone(), &mut out).unwrap();
        let emitted: Vec<_> = out.drain().map(|(_, batch)| batch).collect();
        assert_eq!(emitted[0].column(0).as_primitive::<Int64Type>().values(), &expected);
        saved.save(&mut operator);
        assert_eq!(saved.part().segments[0].1.schema().field(6).name(), "_state");
        operator = plan.whole().unwrap();
        saved.load(&mut operator);
    }
}

/// Keys of every type that can be one, with nulls, come back as they were.
#[test]
fn keys_of_every_type() {
    use arrow::{array::new_null_array, compute::cast, compute::concat, datatypes::TimeUnit};
    #[derive(Record)]
    struct Nothing {
        row: i64,
    }
    let numbers: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![0, 1, 2]));
    let utc = Some(std::sync::Arc::from("+00:00"));
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Date32,
        DataType::Date64,
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, utc),
    ];
    let mut columns: Vec<(String, ArrayRef, bool)> =
        vec![("row".into(), std::sync::Arc::new(Int64Array::from(vec![0; 4])), false)];
    for data_type in types {
        let values = match data_type {
            DataType::Date32 => cast(&cast(&numbers, &DataType::Int32).unwrap(), &data_type).unwrap(),
            _ => cast(&numbers, &data_type).unwrap(),
        };
        let values = concat(&[&values, &new_null_array(&data_type, 1)]).unwrap();
        columns.push((data_type.to_string(), values, true));
    }
    for data_type in [DataType::Binary, DataType::LargeBinary, DataType::BinaryView] {
        let text = cast(&numbers, &DataType::Utf8).unwrap();
        let values = concat(&[&cast(&text, &data_type).unwrap(), &new_null_array(&data_type, 1)]).unwrap();
        columns.push((data_type.to_string(), values, true));
    }
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let stream = StreamSchema::without_time(rows.schema());
    let names: Vec<String> = rows.schema().fields().iter().skip(1).map(|field| field.name().clone()).collect();
    let mut keys: Vec<Vec<&str>> = names.iter().map(|name| vec![name.as_str()]).collect();
    keys.push(names.iter().map(String::as_str).collect());
    keys.push(Vec::new());
    for key in keys {
        let count = windrow_operators::keyed::fold::<Nothing, i64, Said, _>(|count, _, out| {
            *count += 1;
            out.emit(Said { what: *count, at: at(0) });
        });
        let plan = ProcessPlan::new(&stream, &key, count, None).unwrap();
        let mut saved = Saved::new();
        for round in 0..3 {
            let mut operator = plan.whole().unwrap();
            saved.load(&mut operator);
            let mut out = Outbox::new();
            operator.process(Port::MAIN, rows.clone(), &mut out).unwrap();
            let emitted: Vec<_> = out.drain().map(|(_, batch)| batch).collect();
            let counts = emitted[0].column(0).as_primitive::<Int64Type>().values().to_vec();
            let expected = match key[..] {
                [] => [1, 2, 3, 4].map(|count| count + 4 * round),
                // True is every number but zero.
                ["Boolean"] => [1 + round, 1 + 2 * round, 2 + 2 * round, 1 + round],
                _ => [1 + round; 4],
            };
            assert_eq!(counts, expected, "{key:?} in round {round}");
            saved.save(&mut operator);
        }
    }
}
