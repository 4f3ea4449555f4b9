//! Faults of keyed state and timers, planted into a process that is right otherwise, and caught: mostly by giving it back
//! other segments than it has saved.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch},
    compute::{concat, filter_record_batch},
    datatypes::TimestampMicrosecondType,
};
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    keyed::{Process, ProcessPlan},
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    bids::{Bid, bids, us},
    process::{Alarms, Fading, TTL, alarm_rows, alarms, buckets, fading_rows, kept, pipeline, sums},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    LosesTimers,
    LosesProcessingTimers,
    ForgetsTombstones,
    RestoresTimersThatHaveFired,
    TheOldestWins,
    LosesTheTimeOfTheLastRow,
    FiresTwice,
}

struct Broken<O> {
    fault: Fault,
    operator: O,
}

impl<O: Operator> Operator for Broken<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.operator.process(port, batch, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let advance = self.operator.advance(time, out)?;
        if self.fault == Fault::FiresTwice {
            let fired: Vec<_> = out.drain().collect();
            for (_, batch) in &fired {
                out.emit(batch.clone());
                out.emit(batch.slice(0, 1));
            }
        }
        Ok(advance)
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        self.operator.tick(out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.operator.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let mut state = state.clone();
        for part in &mut state.parts {
            let oldest_first = part.segments.clone();
            for (at, (_, rows)) in part.segments.iter_mut().enumerate() {
                *rows = match self.fault {
                    Fault::LosesTimers => with_column(rows, "timers", emptied),
                    Fault::LosesProcessingTimers => with_column(rows, "processing_timers", emptied),
                    Fault::LosesTheTimeOfTheLastRow => with_column(rows, "time", shifted),
                    Fault::ForgetsTombstones => {
                        let living: BooleanArray = named(rows, "state").is_not_null();
                        filter_record_batch(rows, &living).unwrap()
                    }
                    Fault::RestoresTimersThatHaveFired => with_column(rows, "timers", |timers| again(rows, timers)),
                    Fault::TheOldestWins => oldest_first[oldest_first.len() - 1 - at].1.clone(),
                    Fault::None | Fault::FiresTwice => rows.clone(),
                };
            }
        }
        self.operator.load(&state)
    }
}

trait Nulls {
    fn is_not_null(&self) -> BooleanArray;
}

impl Nulls for ArrayRef {
    fn is_not_null(&self) -> BooleanArray {
        arrow::compute::is_not_null(self).unwrap()
    }
}

fn named<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).unwrap()
}

fn with_column(rows: &RecordBatch, name: &str, change: impl Fn(&ArrayRef) -> ArrayRef) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    let at = rows.schema().index_of(name).unwrap();
    columns[at] = change(&columns[at]);
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// Lists with nothing in them.
fn emptied(lists: &ArrayRef) -> ArrayRef {
    let lists = lists.as_list::<i32>();
    let (field, _, values, nulls) = lists.clone().into_parts();
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(vec![0; lists.len()]);
    Arc::new(ListArray::new(field, offsets, values.slice(0, 0), nulls))
}

fn shifted(times: &ArrayRef) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    Arc::new(times.unary::<_, TimestampMicrosecondType>(|time| time + 5).with_data_type(Timestamp::data_type()))
}

/// The timers of each key and, where it has none left, one at the end of the bucket of its last row.
fn again(rows: &RecordBatch, timers: &ArrayRef) -> ArrayRef {
    let (lists, times) = (timers.as_list::<i32>(), named(rows, "time").as_primitive::<TimestampMicrosecondType>());
    let mut all: Vec<ArrayRef> = Vec::new();
    let mut lengths = Vec::new();
    for row in 0..rows.num_rows() {
        let end = times.value(row).div_euclid(10) * 10;
        let former = Timestamp::column(if times.is_null(row) { vec![] } else { vec![end] });
        lengths.push(former.len() + lists.value(row).len());
        all.extend([former, lists.value(row)]);
    }
    let values = concat(&all.iter().map(|values| values.as_ref()).collect::<Vec<_>>()).unwrap();
    let (field, _, _, _) = lists.clone().into_parts();
    Arc::new(ListArray::new(field, arrow::buffer::OffsetBuffer::from_lengths(lengths), values, lists.nulls().cloned()))
}

fn broken<'a, P: Process>(plan: &'a ProcessPlan<P>, fault: Fault) -> Pipeline<'a> {
    let make = move || Ok(Broken { fault, operator: plan.whole()? });
    Pipeline::new(&bids()).exchange([0]).stage(plan.output(), make)
}

fn bid(auction: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(at), at: Timestamp::from_micros(at) }
}

/// Keys that come, go, and come again.
fn rows() -> Vec<Bid> {
    (0..240).map(|i| bid(i * 7 % 41, i)).collect()
}

fn check_sums(fault: Fault) -> Result<(), String> {
    let plan = buckets(&["auction"]);
    let check = Check::new(broken(&plan, fault)).out_of_order(us(6)).seed(3).batch_rows(1..=12);
    check.run(&rows(), |rows| sums(rows, &["auction"]))
}

fn check_fading(fault: Fault, ttl: Option<u64>) -> Result<(), String> {
    let plan = ProcessPlan::new(&bids(), &["auction"], Fading, ttl.map(us)).unwrap();
    let check = Check::new(broken(&plan, fault)).out_of_order(us(6)).seed(3).batch_rows(1..=12);
    check.run(&fading_rows(rows()), kept)
}

fn check_alarms(fault: Fault) -> Result<(), String> {
    let plan = ProcessPlan::new(&bids(), &["auction"], Alarms, None).unwrap();
    Check::new(broken(&plan, fault)).out_of_order(us(20)).batch_rows(1..=9).run(&alarm_rows(), alarms)
}

#[test]
fn a_correct_process_passes() {
    check_sums(Fault::None).unwrap();
    check_fading(Fault::None, Some(TTL)).unwrap();
    check_alarms(Fault::None).unwrap();
}

#[track_caller]
fn caught(fault: Fault, result: Result<(), String>, word: &str) {
    let failure = result.expect_err(&format!("{fault:?} was not caught"));
    assert!(failure.contains(word), "{fault:?} was caught, but by this: {failure}");
    let of_saving = fault != Fault::FiresTwice && fault != Fault::None;
    assert!(!of_saving || !failure.contains("never restarted"), "{fault:?} is not a fault of saving: {failure}");
}

#[test]
fn every_fault_is_caught() {
    use Fault::*;
    for (fault, word) in [
        (LosesTimers, "missing"),
        (ForgetsTombstones, "extra"),
        (RestoresTimersThatHaveFired, "extra"),
        (TheOldestWins, "law 1"),
        (FiresTwice, "extra"),
    ] {
        caught(fault, check_sums(fault), word);
    }
    caught(LosesProcessingTimers, check_alarms(LosesProcessingTimers), "missing");
    caught(LosesTheTimeOfTheLastRow, check_fading(LosesTheTimeOfTheLastRow, Some(TTL)), "law 1");
}

#[test]
fn a_forgotten_time_to_live_is_caught() {
    caught(Fault::None, check_fading(Fault::None, None), "extra");
    caught(Fault::None, check_fading(Fault::None, Some(TTL - 1)), "missing");
    caught(Fault::None, check_fading(Fault::None, Some(TTL + 1)), "extra");
}

/// The pipeline of the other tests is the same one.
#[test]
fn the_pipeline_is_that_of_the_tests() {
    let plan = buckets(&["auction"]);
    Check::new(pipeline(&plan, &bids(), &["auction"])).assert(&rows(), |rows| sums(rows, &["auction"]));
}
