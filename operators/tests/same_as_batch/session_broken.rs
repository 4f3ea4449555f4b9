//! Faults that session windows invite, each planted into a session operator that is as simple as can be, and caught.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array, UInt32Array},
    compute::take_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    key::key_groups,
    state::{KEY_GROUP, StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    bids::us,
    broken::{Reading, readings, sums_schema},
};

const GAP: i64 = 5;
const LATENESS: i64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Keeps a row as long as its own gap has not ended.
    JudgesARowByItsOwnGap,
    JoinsWhatOnlyTouches,
    EndsWithTheLastRow,
    LeavesSessionsThatARowHasJoined,
    PromisesWithoutTheLateness,
    ForgetsHowFarTimeHadCome,
    /// Saves only rows whose own gap has not ended, though their session is open.
    ForgetsTheBeginningOfASession,
    SavesWhatHasGivenItsResult,
}

/// Keeps the rows of open sessions and finds the sessions anew each time: (sensor, time, value).
struct Sessions {
    fault: Fault,
    rows: Vec<(i64, i64, i64)>,
    fired: Vec<(i64, i64, i64)>,
    closed: i64,
}

/// (sensor, start, end, rows): by sensor and time.
type Found = (i64, i64, i64, Vec<(i64, i64, i64)>);

fn sessions(rows: &[(i64, i64, i64)], fault: Fault) -> Vec<Found> {
    let touch = i64::from(fault == Fault::JoinsWhatOnlyTouches);
    let mut sorted = rows.to_vec();
    // Without the joining of sessions a row goes to the one that was there first.
    if fault != Fault::LeavesSessionsThatARowHasJoined {
        sorted.sort_unstable();
    }
    let mut found: Vec<Found> = Vec::new();
    for (sensor, at, value) in sorted {
        let overlaps = |s: &&mut Found| s.0 == sensor && at < s.2 + touch && s.1 < at + GAP + touch;
        match found.iter_mut().find(overlaps) {
            Some(session) => {
                (session.1, session.2) = (session.1.min(at), session.2.max(at + GAP));
                session.3.push((sensor, at, value));
            }
            None => found.push((sensor, at, at + GAP, vec![(sensor, at, value)])),
        }
    }
    found
}

impl Operator for Sessions {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>().clone();
        let mut late = Vec::new();
        for row in 0..batch.num_rows() {
            let (sensor, at, value) = (numbers(0).value(row), times.value(row), numbers(1).value(row));
            let open = sessions(&self.rows, self.fault);
            let spans = |s: &Found| s.0 == sensor && s.1 <= at && at < s.2;
            let is_late = match self.fault {
                Fault::JudgesARowByItsOwnGap => at + GAP <= self.closed,
                _ => at < self.closed,
            };
            if is_late && !open.iter().any(spans) {
                late.push(row as u32);
            } else {
                self.rows.push((sensor, at, value));
            }
        }
        out.processed(batch.num_rows() - late.len());
        out.late(take_record_batch(&batch, &UInt32Array::from(late))?);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let is_end = time == Timestamp::MAX;
        self.closed = if is_end { i64::MAX } else { time.micros().saturating_sub(LATENESS).max(self.closed) };
        let early = if self.fault == Fault::EndsWithTheLastRow { GAP } else { 0 };
        let (complete, open): (Vec<_>, Vec<_>) =
            sessions(&self.rows, self.fault).into_iter().partition(|session| session.2 - early <= self.closed);
        self.rows = open.into_iter().flat_map(|session| session.3).collect();
        self.fired.extend(complete.iter().flat_map(|session| session.3.clone()));
        let column = |value: fn(&Found) -> i64| Int64Array::from_iter_values(complete.iter().map(value));
        let sums = column(|s| s.3.iter().map(|row| row.2).sum());
        let ends = Timestamp::column(complete.iter().map(|s| s.2 - 1).collect());
        let columns: Vec<ArrayRef> = vec![Arc::new(column(|s| s.1)), Arc::new(column(|s| s.0)), Arc::new(sums), ends];
        out.emit(RecordBatch::try_new(sums_schema().columns().clone(), columns)?);
        let waits = self.fault != Fault::PromisesWithoutTheLateness;
        let promise = if waits { self.closed.min(time.micros()) } else { time.micros() };
        Ok(Advance::Promise(Timestamp::from_micros(promise)))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.fault != Fault::ForgetsHowFarTimeHadCome {
            state.set("closed", self.closed);
        }
        let mut rows = self.rows.clone();
        match self.fault {
            Fault::ForgetsTheBeginningOfASession => rows.retain(|row| row.1 + GAP > self.closed),
            Fault::SavesWhatHasGivenItsResult => rows.extend(&self.fired),
            _ => {}
        }
        if !rows.is_empty() {
            let column = |value: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(value)))
            };
            let sensors = column(|row| row.0);
            let groups = key_groups(std::slice::from_ref(&sensors), rows.len())?;
            let groups: ArrayRef = Arc::new(UInt8Array::from_iter_values(groups.iter().map(|group| group.0)));
            let columns =
                [(KEY_GROUP, groups), ("sensor", sensors), ("at", column(|r| r.1)), ("value", column(|r| r.2))];
            state.seal(RecordBatch::try_from_iter(columns)?);
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.closed = state.greatest(false, "closed").unwrap_or(i64::MIN);
        for (_, rows) in state.parts.iter().flat_map(|part| &part.segments) {
            let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
            let rows = numbers(1).into_iter().zip(numbers(2)).zip(numbers(3));
            self.rows.extend(rows.map(|((sensor, at), value)| (sensor, at, value)));
        }
        Ok(())
    }
}

fn oracle(rows: &[Reading]) -> Vec<(i64, i64, i64)> {
    let mut found: Vec<(i64, i64, i64, i64)> = Vec::new();
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|row| (row.sensor, row.at));
    for row in sorted {
        let at = row.at.micros();
        match found.last_mut().filter(|last| last.0 == row.sensor && at - last.2 < GAP) {
            Some(last) => (last.2, last.3) = (at, last.3 + row.value),
            None => found.push((row.sensor, at, at, row.value)),
        }
    }
    found.into_iter().map(|(sensor, start, _, sum)| (start, sensor, sum)).collect()
}

/// Sessions of one row and of several, of which some end just where others begin.
fn rows() -> Vec<Reading> {
    let reading =
        |i: i64| Reading { sensor: i % 3, value: i * i + 1, at: Timestamp::from_micros(i * i * 31 % 211 - 100) };
    (0..100).map(reading).collect()
}

fn check<'a>(fault: Fault) -> Check<'a> {
    let new = move || Ok(Sessions { fault, rows: Vec::new(), fired: Vec::new(), closed: i64::MIN });
    let pipeline = Pipeline::new(&readings()).exchange([0]).stage(&sums_schema(), new);
    Check::new(pipeline).out_of_order(us(6)).seed(7)
}

fn within_bound(fault: Fault) -> Result<(), String> {
    check(fault).run(&rows(), oracle)
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let is_late = |row: &Reading, time: Timestamp| row.at.micros() + LATENESS < time.micros();
    check(fault).fall_idle().run_beyond_bound(&rows(), is_late, oracle)
}

#[test]
fn a_correct_operator_passes() {
    within_bound(Fault::None).unwrap();
    let late = beyond_bound(Fault::None).unwrap();
    assert!(late > 20, "only {late} rows were late: this checks nothing");
}

#[test]
fn every_fault_is_caught() {
    use Fault::*;
    let caught = [
        (JoinsWhatOnlyTouches, "law 1"),
        (EndsWithTheLastRow, "law"),
        (LeavesSessionsThatARowHasJoined, "law 1"),
        (PromisesWithoutTheLateness, "law 3"),
        (ForgetsTheBeginningOfASession, "missing"),
        (SavesWhatHasGivenItsResult, "law"),
    ];
    for (fault, word) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
    }
    for fault in [JudgesARowByItsOwnGap, ForgetsHowFarTimeHadCome] {
        let failure = beyond_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains("law"), "{fault:?} was caught, but by this: {failure}");
    }
}
