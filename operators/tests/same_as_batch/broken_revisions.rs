//! Faults that only windows with several results have: each is planted around the real operator, and caught.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array},
    compute::filter_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Result, Timestamp,
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline, Row},
    window::{AggregatePlan, Tumbling, Window},
};

use crate::{
    bids::{Bid, bids, us},
    revisions::last_revisions,
    shape::{Shape, bid, cut},
};

/// Where the revision and the number of bids are.
const REVISION: usize = 2;
const BIDS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    RestartsRevisionsAtZero,
    ForgetsWhatHasChanged,
    LosesACorrection,
    LosesAllCorrections,
    NumbersCorrectionsFromZero,
    AnEarlyResultAfterTheFinalOne,
    SaysTheSameTwice,
    PromisesWithoutTheLateness,
    CorrectsInPlaceOfAdding,
}

struct Faulty {
    fault: Fault,
    inner: Box<dyn Operator>,
    /// An early result of an open window.
    first: Option<RecordBatch>,
    is_early: bool,
}

impl Faulty {
    fn new(plan: &AggregatePlan, fault: Fault) -> Result<Self> {
        Ok(Self { fault, inner: Plan::whole(plan)?, first: None, is_early: false })
    }

    /// Calls the operator and passes on what the fault leaves of its results.
    fn call<T>(
        &mut self,
        out: &mut Outbox,
        call: impl FnOnce(&mut dyn Operator, &mut Outbox) -> Result<T>,
    ) -> Result<T> {
        let mut own = Outbox::new();
        own.set_now(out.now());
        let result = call(self.inner.as_mut(), &mut own)?;
        let batches: Vec<_> = own.drain().collect();
        for (port, batch) in batches {
            match port {
                Port::MAIN => self.emit(batch, out)?,
                _ => out.late(batch),
            }
        }
        out.processed(own.take_counts().0 as usize);
        own.take_wake().into_iter().for_each(|time| out.wake_at(time));
        Ok(result)
    }

    fn emit(&mut self, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let revisions = batch.column(REVISION).as_primitive::<Int64Type>().clone();
        let keep = |keep: &dyn Fn(i64) -> bool| {
            let keep: BooleanArray = revisions.values().iter().map(|revision| Some(keep(*revision))).collect();
            filter_record_batch(&batch, &keep)
        };
        let change = |column: usize, change: &dyn Fn(usize) -> i64| {
            let mut columns = batch.columns().to_vec();
            columns[column] = Arc::new(Int64Array::from_iter_values((0..batch.num_rows()).map(change))) as ArrayRef;
            RecordBatch::try_new(batch.schema(), columns)
        };
        match self.fault {
            Fault::LosesACorrection => out.emit(keep(&|revision| revision != 1)?),
            Fault::LosesAllCorrections => out.emit(keep(&|revision| revision == 0)?),
            Fault::NumbersCorrectionsFromZero => out.emit(change(REVISION, &|row| revisions.value(row).max(1) - 1)?),
            Fault::CorrectsInPlaceOfAdding => {
                let bids = batch.column(BIDS).as_primitive::<Int64Type>();
                out.emit(change(BIDS, &|row| if revisions.value(row) > 0 { 1 } else { bids.value(row) })?);
            }
            Fault::SaysTheSameTwice => {
                out.emit(batch.clone());
                out.emit(change(REVISION, &|row| revisions.value(row) + 1)?);
            }
            Fault::AnEarlyResultAfterTheFinalOne if self.is_early && self.first.is_none() => {
                self.first = Some(batch.slice(0, 1));
                out.emit(batch);
            }
            _ => out.emit(batch),
        }
        Ok(())
    }
}

impl Operator for Faulty {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.is_early = true;
        self.call(out, |inner, out| inner.process(port, batch, out))?;
        self.is_early = false;
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let advance = self.call(out, |inner, out| inner.advance(time, out))?;
        // What had been said before the window was complete, once more.
        let end = |first: &RecordBatch| first.column(1).as_primitive::<TimestampMicrosecondType>().value(0);
        if let Some(first) = self.first.take_if(|first| end(first) <= time.micros()) {
            out.emit(first);
        }
        Ok(if self.fault == Fault::PromisesWithoutTheLateness { Advance::Promise(time) } else { advance })
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        self.call(out, |inner, out| inner.tick(out))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.inner.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let mut state = state.clone();
        let (name, lost): (_, fn(usize) -> ArrayRef) = match self.fault {
            Fault::RestartsRevisionsAtZero => ("revision", |rows| Arc::new(Int64Array::from(vec![0; rows]))),
            Fault::ForgetsWhatHasChanged => ("since", |rows| Arc::new(UInt32Array::from(vec![0; rows]))),
            _ => return self.inner.load(&state),
        };
        for (_, rows) in state.parts.iter_mut().flat_map(|part| &mut part.segments) {
            let mut columns = rows.columns().to_vec();
            let column = rows.schema().index_of(name)?;
            columns[column] = lost(columns[column].len());
            *rows = RecordBatch::try_new(rows.schema(), columns)?;
        }
        self.inner.load(&state)
    }
}

fn rows() -> Vec<Bid> {
    (0..120).map(|i: i64| bid(i % 3, i, i * 37 % 83 - 41)).collect()
}

/// Windows of one slice, and windows that share slices.
const SHAPES: [Shape; 2] =
    [Shape::Hopping { size: 10, slide: 10, offset: 0 }, Shape::Hopping { size: 10, slide: 4, offset: 0 }];

fn check(shape: &Shape, fault: Fault, beyond: bool) -> Result<(), String> {
    let is_tumbling = matches!(shape, Shape::Hopping { size, slide, .. } if size == slide);
    let window: Window = if is_tumbling { Tumbling::of(us(10)) } else { shape.window() };
    let window = window.allowed_lateness(us(15)).corrections().early_rows(3);
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap();
    let pipeline = Pipeline::new(&bids()).exchange([0]).stage(plan.output(), || Faulty::new(&plan, fault));
    let check = Check::new(pipeline).out_of_order(us(8)).seed(3).batch_rows(1..=10).reduced(last_revisions(2, 1));
    let oracle = |rows: &[Bid]| {
        let mut sums = std::collections::BTreeMap::new();
        for bid in rows {
            for window in shape.windows_of(bid.at) {
                let (bids, sum) = sums.entry((cut(window), bid.auction)).or_insert((0, 0));
                (*bids, *sum) = (*bids + 1, *sum + bid.price.unwrap());
            }
        }
        let row = |(((start, end), auction), (bids, sum))| Row::from((start, end, auction, bids, sum));
        sums.into_iter().map(row).collect::<Vec<Row>>()
    };
    match beyond {
        false => check.run(&rows(), oracle),
        true => check.run_beyond_bound(&rows(), |bid, time| shape.is_late(bid, time, 15), oracle).map(drop),
    }
}

#[test]
fn the_operator_passes() {
    for shape in &SHAPES {
        check(shape, Fault::None, false).unwrap();
        check(shape, Fault::None, true).unwrap();
    }
}

#[test]
fn every_fault_of_windows_with_several_results_is_caught() {
    use Fault::*;
    let caught = [
        (RestartsRevisionsAtZero, "should have the revision", false),
        (ForgetsWhatHasChanged, "missing", false),
        (LosesACorrection, "should have the revision", true),
        (LosesAllCorrections, "missing", true),
        (NumbersCorrectionsFromZero, "should have the revision", true),
        (AnEarlyResultAfterTheFinalOne, "should have the revision", true),
        (SaysTheSameTwice, "the number of rows", true),
        (CorrectsInPlaceOfAdding, "the number of rows", true),
    ];
    for shape in &SHAPES {
        for (fault, words, without_restart) in caught {
            let failure = check(shape, fault, false).expect_err(&format!("{fault:?} was not caught"));
            assert!(failure.contains(words), "{fault:?} was caught, but by this: {failure}");
            assert_eq!(failure.contains("never restarted"), without_restart, "{fault:?}: {failure}");
        }
        let failure = check(shape, PromisesWithoutTheLateness, true).unwrap_err();
        assert!(failure.contains("after it had promised") && failure.contains("law 3"), "{failure}");
    }
}
