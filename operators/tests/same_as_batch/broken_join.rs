//! Faults that joins have: each is planted into a left interval join written as simply as can be, and caught.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType},
};
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Advance, Operator, Outbox, Partitioning, Port, Result, StreamSchema, Timestamp,
    key::key_groups,
    state::{KEY_GROUP, StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::bids::us;

/// The right row is at most so much earlier, and at most so much later.
const BEFORE: i64 = 4;
const AFTER: i64 = 9;

#[derive(Clone, Copy, Debug, Record)]
struct Event {
    key: Option<i64>,
    id: i64,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NullKeysMatch,
    EvictsRightRowsTooEarly,
    EvictsLeftRowsTooEarly,
    DecidesTooEarly,
    LeavesOutAnEndOfTheInterval,
    PromisesMoreThanItsOuterRows,
    ForgetsMatchesWhenItIsRestored,
    ForgetsWhatItHasDecided,
    ForgetsTheRightSideWhenItIsRestored,
    ForgetsTheWatermark,
    LooksInOneDirectionOnly,
    DropsTheEndOfTheInput,
}

#[derive(Clone, Copy)]
struct Held {
    event: Event,
    matched: bool,
    decided: bool,
}

struct LeftJoin {
    fault: Fault,
    left: Vec<Held>,
    right: Vec<Event>,
    watermark: i64,
}

fn stream() -> StreamSchema {
    StreamSchema::with_time(Event::schema(), "at").unwrap()
}

fn output() -> StreamSchema {
    let fields = [("key", true), ("left", false), ("right", true)];
    let fields = fields.map(|(name, null)| Field::new(name, DataType::Int64, null));
    StreamSchema::with_hidden_time(&Schema::new(fields.to_vec())).unwrap()
}

fn events(rows: &RecordBatch, first: usize) -> Vec<Event> {
    let numbers = |column: usize| rows.column(first + column).as_primitive::<Int64Type>();
    let (keys, ids) = (numbers(0), numbers(1));
    let times = rows.column(first + 2).as_primitive::<TimestampMicrosecondType>();
    let event = |row: usize| Event {
        key: keys.is_valid(row).then(|| keys.value(row)),
        id: ids.value(row),
        at: Timestamp::from_micros(times.value(row)),
    };
    (0..rows.num_rows()).map(event).collect()
}

fn results(rows: &[(Event, Option<Event>)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(left, _)| left.key).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(left, _)| Some(left.id)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(_, right)| right.map(|right| right.id)).collect::<Int64Array>()),
        Timestamp::column(rows.iter().map(|(l, r)| r.map_or(l.at, |r| r.at.max(l.at)).micros()).collect()),
    ];
    RecordBatch::try_new(output().columns().clone(), columns).unwrap()
}

impl LeftJoin {
    fn partners(&self, left: &Event, right: &Event) -> bool {
        let apart = right.at.micros() - left.at.micros();
        let excluded = self.fault == Fault::LeavesOutAnEndOfTheInterval && apart == AFTER;
        let null = left.key.is_none() && self.fault != Fault::NullKeysMatch;
        left.key == right.key && !null && (-BEFORE..=AFTER).contains(&apart) && !excluded
    }

    fn decide(&mut self, all: bool, out: &mut Outbox) {
        let early = i64::from(self.fault == Fault::DecidesTooEarly);
        let mut alone = Vec::new();
        for held in &mut self.left {
            if !held.decided && (all || held.event.at.micros() + AFTER < self.watermark + early) {
                held.decided = true;
                if !held.matched {
                    alone.push((held.event, None));
                }
            }
        }
        out.emit(results(&alone));
        // Decided rows stay a little longer than they have to.
        let slack = if self.fault == Fault::EvictsLeftRowsTooEarly { -1 } else { 5 };
        self.left.retain(|held| held.event.at.micros() + AFTER + slack >= self.watermark);
        let early = i64::from(self.fault == Fault::EvictsRightRowsTooEarly);
        self.right.retain(|right| right.at.micros() + BEFORE >= self.watermark + early);
    }
}

impl Operator for LeftJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let rows = events(&batch, 0);
        let late: BooleanArray = rows.iter().map(|row| Some(row.at.micros() < self.watermark)).collect();
        let port_of_late = if port == Port::RIGHT { Port::LATE_RIGHT } else { Port::LATE };
        out.late_on(port_of_late, filter_record_batch(&batch, &late)?);
        out.processed(rows.len() - late.true_count());
        let mut pairs = Vec::new();
        for row in rows.into_iter().zip(late.values()).filter(|(_, late)| !late).map(|(row, _)| row) {
            if port == Port::RIGHT {
                for at in 0..self.left.len() {
                    if self.partners(&self.left[at].event, &row) {
                        self.left[at].matched = true;
                        pairs.push((self.left[at].event, Some(row)));
                    }
                }
                self.right.push(row);
            } else {
                let blind = self.fault == Fault::LooksInOneDirectionOnly;
                let found = self.right.iter().filter(|right| !blind && self.partners(&row, right));
                let before = pairs.len();
                pairs.extend(found.map(|right| (row, Some(*right))));
                self.left.push(Held { event: row, matched: pairs.len() > before, decided: false });
            }
        }
        out.emit(results(&pairs));
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end = time == Timestamp::MAX;
        if !end {
            self.watermark = self.watermark.max(time.micros());
        }
        self.decide(end && self.fault != Fault::DropsTheEndOfTheInput, out);
        let waiting = self.left.iter().filter(|held| !held.decided).map(|held| held.event.at).min();
        let held_back = waiting.filter(|_| !end && self.fault != Fault::PromisesMoreThanItsOuterRows);
        let reached = if end { time } else { Timestamp::from_micros(self.watermark).min(time) };
        Ok(Advance::Promise(held_back.map_or(reached, |waiting| waiting.min(reached))))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        /// The event, whether it has matched, whether it is decided, whether it is of the left side.
        type Saved = (Event, bool, bool, bool);
        state.set("watermark", self.watermark);
        let left = self.left.iter().map(|held| (held.event, held.matched, held.decided, true));
        let rows: Vec<Saved> = left.chain(self.right.iter().map(|right| (*right, false, false, false))).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let key: ArrayRef = Arc::new(rows.iter().map(|row| row.0.key).collect::<Int64Array>());
        let groups = key_groups(std::slice::from_ref(&key), rows.len())?.into_iter().map(|group| group.0);
        let flag = |of: &dyn Fn(&Saved) -> bool| {
            Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>()) as ArrayRef
        };
        state.seal(RecordBatch::try_from_iter_with_nullable([
            (KEY_GROUP, Arc::new(arrow::array::UInt8Array::from_iter_values(groups)) as ArrayRef, false),
            ("matched", flag(&|row| row.1), false),
            ("decided", flag(&|row| row.2), false),
            ("left", flag(&|row| row.3), false),
            ("key", key, true),
            ("id", Arc::new(rows.iter().map(|row| Some(row.0.id)).collect::<Int64Array>()), false),
            ("at", Timestamp::column(rows.iter().map(|row| row.0.at.micros()).collect()), false),
        ])?);
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        if self.fault != Fault::ForgetsTheWatermark {
            self.watermark = state.greatest(false, "watermark").unwrap_or(i64::MIN);
        }
        for (_, rows) in state.parts.iter().flat_map(|part| &part.segments) {
            let flag = |column: usize, row: usize| rows.column(column).as_boolean().value(row);
            for (row, event) in events(rows, 4).into_iter().enumerate() {
                if flag(3, row) {
                    let matched = flag(1, row) && self.fault != Fault::ForgetsMatchesWhenItIsRestored;
                    let decided = flag(2, row) && self.fault != Fault::ForgetsWhatItHasDecided;
                    self.left.push(Held { event, matched, decided });
                } else if self.fault != Fault::ForgetsTheRightSideWhenItIsRestored {
                    self.right.push(event);
                }
            }
        }
        Ok(())
    }
}

fn pipeline<'a>(fault: Fault) -> Pipeline<'a> {
    let make = move || Ok(LeftJoin { fault, left: Vec::new(), right: Vec::new(), watermark: i64::MIN });
    Pipeline::two(&stream(), &stream()).exchange_two([0], Partitioning::Key(vec![0])).stage(&output(), make)
}

fn rows(step: i64) -> Vec<Event> {
    let event =
        |i: i64| Event { key: (i % 7 != 3).then_some(i % 4), id: i, at: Timestamp::from_micros(i * step % 101 - 50) };
    (0..60).map(event).collect()
}

fn oracle(left: &[Event], right: &[Event]) -> Vec<(Option<i64>, i64, Option<i64>)> {
    let mut results = Vec::new();
    for l in left {
        let near = |r: &&Event| (-BEFORE..=AFTER).contains(&(r.at.micros() - l.at.micros()));
        let partners: Vec<_> = right.iter().filter(|r| l.key.is_some() && l.key == r.key).filter(near).collect();
        match partners.is_empty() {
            true => results.push((l.key, l.id, None)),
            false => results.extend(partners.into_iter().map(|r| (l.key, l.id, Some(r.id)))),
        }
    }
    results
}

fn within_bound(fault: Fault) -> Result<(), String> {
    (0..3).try_for_each(|seed| {
        let check = Check::new(pipeline(fault)).out_of_order(us(6)).seed(seed).batch_rows(1..=12);
        check.run_two(&rows(37), &rows(53), oracle)?;
        // Several rows of one time, and partners that are as late as they may be: they come at the watermark.
        let coarse = |row: Event| Event { at: Timestamp::from_micros(row.at.micros() / 4 * 4), ..row };
        let latest = |row: Event| Event { at: row.at.saturating_add(us(AFTER as u64)), ..row };
        let left: Vec<Event> = rows(37).into_iter().map(coarse).collect();
        let right: Vec<Event> = left.iter().copied().map(latest).collect();
        Check::new(pipeline(fault)).seed(seed).batch_rows(1..=12).run_two(&left, &right, oracle)
    })
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let check = Check::new(pipeline(fault)).out_of_order(us(6)).seed(7).fall_idle();
    let is_late = (|row: &Event, time| row.at < time, |row: &Event, time| row.at < time);
    check.run_two_beyond_bound(&rows(37), &rows(53), is_late, oracle)
}

#[test]
fn a_correct_join_passes() {
    within_bound(Fault::None).unwrap();
    let late = beyond_bound(Fault::None).unwrap();
    assert!(late > 100, "only {late} rows were late");
}

#[test]
fn every_fault_of_a_join_is_caught() {
    use Fault::*;
    let caught = [
        (NullKeysMatch, "extra: (null"),
        (EvictsRightRowsTooEarly, "missing"),
        (EvictsLeftRowsTooEarly, "missing"),
        (DecidesTooEarly, "extra"),
        (LeavesOutAnEndOfTheInterval, "missing"),
        (PromisesMoreThanItsOuterRows, "law 3"),
        (LooksInOneDirectionOnly, "missing"),
        (DropsTheEndOfTheInput, "missing"),
    ];
    for (fault, word) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
    }
}

#[test]
fn every_fault_of_a_restored_join_is_caught() {
    use Fault::*;
    let caught = [
        (ForgetsMatchesWhenItIsRestored, "extra"),
        (ForgetsWhatItHasDecided, "law"),
        (ForgetsTheRightSideWhenItIsRestored, "missing"),
    ];
    for (fault, word) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
        assert!(!failure.contains("never restarted"), "{fault:?} is not a fault of restoring: {failure}");
    }
    let failure = beyond_bound(ForgetsTheWatermark).expect_err("a forgotten watermark was not caught");
    assert!(!failure.contains("never restarted"), "{failure}");
}
