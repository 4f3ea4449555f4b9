//! The harness itself: a correct operator passes, and each deliberate fault in it is caught.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType},
};
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Advance, KeyedOutput, Operator, Outbox, Port, Result, StreamSchema, Timestamp,
    key::key_groups,
    state::{KEY_GROUP, StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::bids::us;

pub(crate) const SIZE: i64 = 10;
pub(crate) const LATENESS: i64 = 4;

#[derive(Clone, Debug, Record)]
pub(crate) struct Reading {
    pub(crate) sensor: i64,
    pub(crate) value: i64,
    pub(crate) at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    DropsTheRestOfABatchWithALateRow,
    ForgetsToAnswerForTheRestOfABatchWithALateRow,
    DropsLateRowsInSilence,
    CallsRowsLateThatAreNot,
    ReportsLateRowsTwice,
    FiresOneWindowEarly,
    RoundsTowardsZero,
    EmitsAfterThePromise,
    PromisesTooMuch,
    PromisesWithoutTheLateness,
    TakesAPromiseBack,
    PromisesWhatItsRowsAllow,
    CountsWrong,
    CountsOnAWatermark,
    LosesTheLastWindow,
    NeverEnds,
    AsksForMoreForEver,
    ForgetsTheKey,
    KeepsOneRowPerBatch,
    EmitsAnotherSchema,
    Fails,
}

/// Sums per sensor and window, written as simply as can be.
struct Sums {
    fault: Fault,
    sums: BTreeMap<(i64, i64), i64>,
    closed: i64,
    held: Option<RecordBatch>,
}

pub(crate) fn readings() -> StreamSchema {
    StreamSchema::with_time(Reading::schema(), "at").unwrap()
}

pub(crate) fn sums_schema() -> StreamSchema {
    let fields = ["start", "sensor", "sum"].map(|name| Field::new(name, DataType::Int64, false));
    StreamSchema::with_hidden_time(&Schema::new(fields.to_vec())).unwrap()
}

impl Sums {
    fn new(fault: Fault) -> Result<Self> {
        Ok(Self { fault, sums: BTreeMap::new(), closed: i64::MIN, held: None })
    }

    fn start_of(&self, time: i64) -> i64 {
        if self.fault == Fault::RoundsTowardsZero { time / SIZE * SIZE } else { time.div_euclid(SIZE) * SIZE }
    }

    fn results(&self, closed: &BTreeMap<(i64, i64), i64>) -> Result<RecordBatch> {
        let results = results(closed)?;
        if self.fault == Fault::EmitsAnotherSchema {
            let names = ["begin", "sensor", "sum", "__time"];
            return Ok(RecordBatch::try_from_iter(names.into_iter().zip(results.columns().to_vec()))?);
        }
        Ok(results)
    }

    /// Adds the rows that are not late; returns how many it takes for processed, and which are late.
    fn add(&mut self, batch: &RecordBatch) -> (usize, Vec<u32>) {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>().clone();
        let (sensors, values) = (numbers(0), numbers(1));
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>().clone();
        let mut late = Vec::new();
        let mut processed = 0;
        for row in 0..batch.num_rows() {
            let start = self.start_of(times.value(row));
            let slack = if self.fault == Fault::CallsRowsLateThatAreNot { SIZE } else { 0 };
            if start + SIZE <= self.closed.saturating_add(slack) && self.closed != i64::MIN {
                late.push(row as u32);
                match self.fault {
                    Fault::ForgetsToAnswerForTheRestOfABatchWithALateRow => break,
                    Fault::DropsTheRestOfABatchWithALateRow => {
                        processed = batch.num_rows() - late.len();
                        break;
                    }
                    _ => continue,
                }
            }
            processed += 1;
            let sensor = if self.fault == Fault::ForgetsTheKey { 0 } else { sensors.value(row) };
            *self.sums.entry((start, sensor)).or_insert(0) += values.value(row);
            if self.fault == Fault::KeepsOneRowPerBatch {
                processed = batch.num_rows() - late.len();
                break;
            }
        }
        (processed, late)
    }

    fn answer(&self, processed: usize, late: RecordBatch, out: &mut Outbox) {
        out.processed(processed + usize::from(self.fault == Fault::CountsWrong));
        match self.fault {
            Fault::DropsLateRowsInSilence => out.processed(late.num_rows()),
            Fault::ReportsLateRowsTwice => {
                out.late(late.clone());
                let (processed, _) = out.take_counts();
                out.processed(processed as usize);
                out.late(late);
            }
            _ => out.late(late),
        }
    }
}

impl Operator for Sums {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        if let Some(held) = self.held.take() {
            out.emit(held);
        }
        if self.fault == Fault::Fails {
            return Err(windrow_operators::OperatorError::Internal("as ordered".into()));
        }
        let (processed, late) = self.add(&batch);
        let late = take_record_batch(&batch, &UInt32Array::from(late))?;
        self.answer(processed, late, out);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end = time == Timestamp::MAX;
        match self.fault {
            Fault::AsksForMoreForEver if end => return Ok(Advance::Again),
            Fault::CountsOnAWatermark => out.processed(1),
            Fault::LosesTheLastWindow if end => self.sums.clear(),
            _ => {}
        }
        self.closed = if end { i64::MAX } else { time.micros().saturating_sub(LATENESS).max(self.closed) };
        let early = if self.fault == Fault::FiresOneWindowEarly { SIZE } else { 0 };
        let last = self.closed.saturating_add(early).saturating_sub(SIZE).saturating_add(1);
        let open = self.sums.split_off(&(last, i64::MIN));
        let closed = std::mem::replace(&mut self.sums, open);
        let results = self.results(&closed)?;
        match self.fault {
            Fault::EmitsAfterThePromise if !end && results.num_rows() > 0 => self.held = Some(results),
            _ => out.emit(results),
        }
        let promise = match self.fault {
            Fault::PromisesTooMuch if !end => time.micros() + 1,
            Fault::PromisesWithoutTheLateness => time.micros(),
            Fault::TakesAPromiseBack if !end => -time.micros(),
            Fault::PromisesWhatItsRowsAllow if !end && self.sums.is_empty() => (self.closed - 1).min(time.micros()),
            Fault::NeverEnds => self.closed.min(1_000),
            // A restored one may have closed more than the watermark, which begins anew, has reached.
            _ => self.closed.min(time.micros()),
        };
        Ok(Advance::Promise(Timestamp::from_micros(promise)))
    }

    /// All of it, every time.
    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        state.set("closed", self.closed);
        if !self.sums.is_empty() {
            state.seal(segment(self.sums.iter().map(|(key, sum)| (*key, *sum)))?);
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.closed = state.greatest(false, "closed").unwrap_or(i64::MIN);
        for (_, rows) in state.parts.iter().flat_map(|part| &part.segments) {
            self.sums.extend(rows_of_segment(rows));
        }
        Ok(())
    }
}

/// The results of windows.
pub(crate) fn results(closed: &BTreeMap<(i64, i64), i64>) -> Result<RecordBatch> {
    let column = |value: fn((&(i64, i64), &i64)) -> i64| Int64Array::from_iter_values(closed.iter().map(value));
    let start = column(|((start, _), _)| *start);
    let time = Timestamp::column(start.values().iter().map(|start| start + SIZE - 1).collect());
    let (sensor, sum) = (column(|((_, sensor), _)| *sensor), column(|(_, sum)| *sum));
    let columns = vec![Arc::new(start) as _, Arc::new(sensor) as _, Arc::new(sum) as _, time];
    Ok(RecordBatch::try_new(sums_schema().columns().clone(), columns)?)
}

/// Sums per (start, sensor), as a segment.
pub(crate) fn segment(sums: impl Iterator<Item = ((i64, i64), i64)>) -> Result<RecordBatch> {
    let (mut starts, mut sensors, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for ((start, sensor), sum) in sums {
        starts.push(start);
        sensors.push(sensor);
        values.push(sum);
    }
    let [starts, sensors, values] = [starts, sensors, values].map(|v| Arc::new(Int64Array::from(v)) as ArrayRef);
    let groups = key_groups(std::slice::from_ref(&sensors), sensors.len())?;
    let groups: ArrayRef = Arc::new(UInt8Array::from_iter_values(groups.iter().map(|group| group.0)));
    let columns = [(KEY_GROUP, groups), ("start", starts), ("sensor", sensors), ("sum", values)];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The sums of a segment.
pub(crate) fn rows_of_segment(rows: &RecordBatch) -> Vec<((i64, i64), i64)> {
    let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
    let keys = numbers(1).into_iter().zip(numbers(2));
    keys.zip(numbers(3)).collect()
}

pub(crate) fn rows() -> Vec<Reading> {
    let reading = |i: i64| Reading { sensor: i % 3, value: i * i + 1, at: Timestamp::from_micros(i * 37 % 83 - 41) };
    (0..80).map(reading).collect()
}

pub(crate) fn oracle(rows: &[Reading]) -> Vec<(i64, i64, i64)> {
    let mut sums = BTreeMap::new();
    for row in rows {
        *sums.entry((row.at.micros().div_euclid(SIZE) * SIZE, row.sensor)).or_insert(0) += row.value;
    }
    sums.into_iter().map(|((start, sensor), sum)| (start, sensor, sum)).collect()
}

fn pipeline<'a>(fault: Fault) -> Pipeline<'a> {
    Pipeline::new(&readings()).exchange([0]).stage(&sums_schema(), move || Sums::new(fault))
}

fn within_bound(fault: Fault) -> Result<(), String> {
    Check::new(pipeline(fault)).out_of_order(us(6)).seed(7).run(&rows(), oracle)
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let is_late =
        |row: &Reading, time: Timestamp| row.at.micros().div_euclid(SIZE) * SIZE + SIZE + LATENESS <= time.micros();
    Check::new(pipeline(fault)).out_of_order(us(6)).seed(7).fall_idle().run_beyond_bound(&rows(), is_late, oracle)
}

#[test]
fn a_correct_operator_passes() {
    within_bound(Fault::None).unwrap();
    let late = beyond_bound(Fault::None).unwrap();
    assert!(late > 20, "only {late} rows were late: this checks nothing");
}

#[test]
fn every_fault_is_caught_within_the_bound() {
    use Fault::*;
    let caught = [
        (FiresOneWindowEarly, "law"),
        (RoundsTowardsZero, "law"),
        (EmitsAfterThePromise, "law 3"),
        (PromisesTooMuch, "when it was given only"),
        (PromisesWithoutTheLateness, "law 3"),
        (TakesAPromiseBack, "law 3"),
        (CountsWrong, "law 2"),
        (CountsOnAWatermark, "law 2"),
        (LosesTheLastWindow, "missing"),
        (NeverEnds, "at the end of the input"),
        (AsksForMoreForEver, "to be called again"),
        (ForgetsTheKey, "missing"),
        (KeepsOneRowPerBatch, "missing"),
        (EmitsAnotherSchema, "with the columns"),
        (CallsRowsLateThatAreNot, "all rows are within the bound"),
        (Fails, "as ordered"),
    ];
    for (fault, word) in caught {
        let failure = within_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
        assert!(failure.contains("again with: .replay("), "{failure}");
    }
}

#[test]
fn every_fault_with_late_rows_is_caught_beyond_the_bound() {
    use Fault::*;
    let caught = [
        (DropsTheRestOfABatchWithALateRow, "missing"),
        (ForgetsToAnswerForTheRestOfABatchWithALateRow, "law 2"),
        (DropsLateRowsInSilence, "missing"),
        (CallsRowsLateThatAreNot, "but it was not"),
        (ReportsLateRowsTwice, "more often than it came"),
    ];
    for (fault, word) in caught {
        let failure = beyond_bound(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
    }
}

#[test]
fn an_exchange_that_is_missing_is_caught() {
    let alone = Pipeline::new(&readings()).stage(&sums_schema(), || Sums::new(Fault::None));
    let failure = Check::new(alone).out_of_order(us(6)).run(&rows(), oracle).unwrap_err();
    assert!(failure.contains("extra"), "{failure}");
    let alone = Pipeline::new(&readings()).stage(&sums_schema(), || Sums::new(Fault::None));
    Check::new(alone).parallelism(1..=1).out_of_order(us(6)).assert(&rows(), oracle);
}

#[test]
fn rows_and_promises_that_are_not_where_the_plan_says_are_caught() {
    let run = |fault, column| {
        let pipeline = pipeline(fault).keyed(Some(KeyedOutput::columns([column])));
        Check::new(pipeline).out_of_order(us(6)).seed(7).run(&rows(), oracle)
    };
    let (sensor, sum) = (1, 2);
    run(Fault::None, sensor).unwrap();
    let failure = run(Fault::None, sum).unwrap_err();
    assert!(failure.contains("an exchange by the columns [2] would send to task"), "{failure}");
    let failure = run(Fault::PromisesWhatItsRowsAllow, sensor).unwrap_err();
    assert!(failure.contains("one task promised"), "{failure}");
}

#[test]
fn a_failure_can_be_replayed() {
    let failure = within_bound(Fault::RoundsTowardsZero).unwrap_err();
    let seed = failure.rsplit("0x").next().unwrap().trim_end_matches(')');
    let seed = u64::from_str_radix(seed, 16).unwrap();
    let check = Check::new(pipeline(Fault::RoundsTowardsZero)).out_of_order(us(6)).replay(seed);
    assert_eq!(check.run(&rows(), oracle).unwrap_err(), failure);
}

#[test]
#[should_panic(expected = "missing: (-40, 0, ")]
fn the_assertion_panics_with_the_difference() {
    Check::new(pipeline(Fault::ForgetsTheKey)).out_of_order(us(6)).assert(&rows(), |rows| {
        let mut expected = oracle(rows);
        expected.retain(|(_, sensor, _)| *sensor == 0);
        expected
    });
}

#[test]
fn a_pipeline_that_does_not_fit_its_rows_is_refused() {
    let pipeline = Pipeline::new(&crate::bids::bids()).exchange([0]);
    let failure = Check::new(pipeline).run(&rows(), oracle).unwrap_err();
    assert!(failure.contains("the rows have the columns"), "{failure}");
    let pipeline = Pipeline::new(&readings()).exchange([9]);
    let failure = Check::new(pipeline).run(&rows(), oracle).unwrap_err();
    assert!(failure.contains("the stream there has 3"), "{failure}");
}
