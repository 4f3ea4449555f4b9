//! The harness with two inputs: a correct operator passes, and faults that only two inputs have are caught.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt8Array},
    compute::{filter_record_batch, not},
    datatypes::{DataType, Field, Schema},
};
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Advance, Operator, Outbox, Partitioning, Port, Result, StreamSchema, Timestamp,
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline},
    time::event_times,
};

use crate::bids::us;

#[derive(Clone, Record)]
struct Left {
    key: i64,
    at: Timestamp,
}

#[derive(Clone, Record)]
struct Right {
    at: Timestamp,
    key: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    TakesRightForLeft,
    GivesLateRowsToTheOtherSide,
    DropsTheRightSide,
}

/// Passes on the keys of both sides, each with its port; rows behind the watermark are late.
struct Both(Fault, Timestamp);

impl Operator for Both {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let (time, key, late) = if port == Port::RIGHT { (0, 1, Port::LATE_RIGHT) } else { (1, 0, Port::LATE) };
        let times = event_times(&batch, time).unwrap();
        let is_late = BooleanArray::from_iter(times.iter().map(|&t| Some(t < self.1.micros())));
        let other = if late == Port::LATE { Port::LATE_RIGHT } else { Port::LATE };
        let late_port = if self.0 == Fault::GivesLateRowsToTheOtherSide { other } else { late };
        out.late_on(late_port, filter_record_batch(&batch, &is_late)?);
        let rows = filter_record_batch(&batch, &not(&is_late)?)?;
        out.processed(rows.num_rows());
        if self.0 == Fault::DropsTheRightSide && port == Port::RIGHT {
            return Ok(());
        }
        let tag = if self.0 == Fault::TakesRightForLeft { 0 } else { port.0 };
        let tags: ArrayRef = Arc::new(UInt8Array::from(vec![tag; rows.num_rows()]));
        let columns = vec![tags, rows.column(key).clone(), rows.column(time).clone()];
        out.emit(RecordBatch::try_new(output().columns().clone(), columns)?);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, _out: &mut Outbox) -> Result<Advance> {
        self.1 = time;
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        state.set("time", self.1.micros());
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.1 = state.greatest(false, "time").map_or(Timestamp::MIN, Timestamp::from_micros);
        Ok(())
    }
}

fn output() -> StreamSchema {
    let fields = vec![Field::new("tag", DataType::UInt8, false), Field::new("key", DataType::Int64, false)];
    StreamSchema::with_hidden_time(&Schema::new(fields)).unwrap()
}

fn pipeline<'a>(fault: Fault, right: Partitioning) -> Pipeline<'a> {
    let left_stream = StreamSchema::with_time(Left::schema(), "at").unwrap();
    let right_stream = StreamSchema::with_time(Right::schema(), "at").unwrap();
    let make = move || Ok(Both(fault, Timestamp::MIN));
    Pipeline::two(&left_stream, &right_stream).exchange_two([0], right).stage(&output(), make)
}

fn rows() -> (Vec<Left>, Vec<Right>) {
    let time = |i: i64| Timestamp::from_micros(i * 37 % 101 - 50);
    let left = (0..60).map(|i| Left { key: i % 7, at: time(i) }).collect();
    let right = (0..25).map(|i| Right { key: i % 5, at: time(3 * i) }).collect();
    (left, right)
}

fn oracle(left: &[Left], right: &[Right]) -> Vec<(i64, i64)> {
    left.iter().map(|row| (0, row.key)).chain(right.iter().map(|row| (1, row.key))).collect()
}

fn within_bound(fault: Fault) -> Result<(), String> {
    let (left, right) = rows();
    let check = Check::new(pipeline(fault, Partitioning::Key(vec![1]))).out_of_order(us(9)).seed(3);
    check.run_two(&left, &right, oracle)
}

fn beyond_bound(fault: Fault) -> Result<usize, String> {
    let (left, right) = rows();
    let check = Check::new(pipeline(fault, Partitioning::Key(vec![1]))).out_of_order(us(9)).seed(3).fall_idle();
    let is_late = (|row: &Left, time| row.at < time, |row: &Right, time| row.at < time);
    check.run_two_beyond_bound(&left, &right, is_late, oracle)
}

#[test]
fn a_correct_operator_of_two_inputs_passes() {
    within_bound(Fault::None).unwrap();
    let late = beyond_bound(Fault::None).unwrap();
    assert!(late > 50, "only {late} rows were late");
    let check = Check::new(pipeline(Fault::None, Partitioning::Key(vec![1]))).out_of_order(us(9));
    check.assert_two(&[], &rows().1, oracle);
    check.assert_two(&rows().0, &[], oracle);
    check.assert_two(&[], &[], oracle);
}

#[test]
fn every_task_gets_all_rows_of_a_broadcast() {
    let (left, right) = rows();
    let check = Check::new(pipeline(Fault::None, Partitioning::Broadcast)).out_of_order(us(9)).parallelism(3..=3);
    check.assert_two(&left, &right, |left, right| oracle(left, &[right, right, right].concat()));
}

#[test]
fn faults_of_two_inputs_are_caught() {
    for (fault, words) in [(Fault::TakesRightForLeft, "missing: (1, "), (Fault::DropsTheRightSide, "missing: (1, ")] {
        let failure = within_bound(fault).unwrap_err();
        assert!(failure.contains(words) && failure.contains("60 and 25 rows"), "{fault:?}: {failure}");
    }
    let failure = beyond_bound(Fault::GivesLateRowsToTheOtherSide).unwrap_err();
    assert!(failure.contains("with the columns"), "{failure}");
}

#[test]
fn a_second_input_that_goes_nowhere_is_refused() {
    let stream = || StreamSchema::with_time(Left::schema(), "at").unwrap();
    let make = || Ok(Both(Fault::None, Timestamp::MIN));
    let none: [Left; 0] = [];
    let without = Check::new(Pipeline::two(&stream(), &stream()).exchange([0]).stage(&output(), make));
    assert!(without.run_two(&none, &none, |_, _| oracle(&[], &[])).unwrap_err().contains("exchange_two"));
    let key = || Partitioning::Key(vec![0]);
    let one = Check::new(Pipeline::new(&stream()).exchange_two([0], key()).stage(&output(), make));
    assert!(one.run(&none, |_| oracle(&[], &[])).unwrap_err().contains("exchange_two"));
    let one = Check::new(Pipeline::new(&stream()).exchange([0]).stage(&output(), make));
    assert!(one.run_two(&none, &none, |_, _| oracle(&[], &[])).unwrap_err().contains("2 inputs"));
}
