//! Faults of operators that go on with a batch (`Outbox::again`): each is planted into one that repeats rows, and caught.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    testing::{Check, Pipeline},
};

use crate::broken::{Reading, readings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    EmitsAllAtOnce,
    DropsTheRest,
    GoesOnForEver,
    AnswersInEachStep,
    NeverAnswersForTheRest,
    AsksOnAWatermark,
}

const TIMES: usize = 50;

/// Every row so many times.
struct Repeat {
    fault: Fault,
    left: VecDeque<RecordBatch>,
}

impl Operator for Repeat {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let is_new = batch.num_rows() > 0;
        if is_new {
            self.left = (0..batch.num_rows()).flat_map(|row| vec![batch.slice(row, 1); TIMES]).collect();
        }
        let answers = match self.fault {
            Fault::AnswersInEachStep => self.left.len().div_ceil(TIMES),
            Fault::NeverAnswersForTheRest => batch.num_rows().min(1),
            _ => batch.num_rows(),
        };
        out.processed(answers);
        let is_second = !is_new;
        let step = match self.fault {
            Fault::EmitsAllAtOnce if is_second => self.left.len(),
            _ => out.step().min(self.left.len()),
        };
        self.left.drain(..step).for_each(|row| out.emit(row));
        if self.fault == Fault::DropsTheRest && is_second {
            self.left.clear();
        }
        if !self.left.is_empty() || self.fault == Fault::GoesOnForEver {
            out.again();
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if self.fault == Fault::AsksOnAWatermark {
            out.again();
        }
        Ok(Advance::Promise(time))
    }
}

fn check(fault: Fault) -> std::result::Result<(), String> {
    let readings = readings();
    let make = move || Ok(Repeat { fault, left: VecDeque::new() });
    let pipeline = Pipeline::new(&readings).stage(&readings, make);
    let rows: Vec<Reading> =
        (0..20).map(|i| Reading { sensor: i % 3, value: i, at: Timestamp::from_micros(i) }).collect();
    Check::new(pipeline).run(&rows, |rows| {
        let repeated = rows.iter().flat_map(|row| vec![row.clone(); TIMES]);
        repeated.map(|row| (row.sensor, row.value, row.at)).collect::<Vec<_>>()
    })
}

#[test]
fn an_operator_that_goes_on_passes() {
    check(Fault::None).unwrap();
}

#[test]
fn every_fault_of_going_on_is_caught() {
    use Fault::*;
    let caught = [
        (EmitsAllAtOnce, "where a step has"),
        (DropsTheRest, "missing"),
        (GoesOnForEver, "called again for one batch"),
        (AnswersInEachStep, "law 2"),
        (NeverAnswersForTheRest, "law 2"),
        (AsksOnAWatermark, "when it was not given one"),
    ];
    for (fault, words) in caught {
        let failure = check(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(words), "{fault:?} was caught, but by this: {failure}");
    }
}
