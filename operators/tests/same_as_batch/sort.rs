//! Rows in order of event time: which leave, in which order, and what is late. Also the pieces that the tests of what
//! stands behind a sort share.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Result, StreamSchema, Timestamp,
    sort::{Sort, SortPlan},
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline, Row},
};

use crate::{
    aggregate::KEYS,
    bids::{Bid, bids, cases, fail, some_bids, us},
};

/// The order in which bids leave a sort: time, then the columns from the first to the last, nulls first.
pub(crate) fn in_order(bid: &Bid) -> (Timestamp, i64, Option<String>, Option<i64>) {
    (bid.at, bid.auction, bid.who.clone(), bid.price)
}

pub(crate) fn columns_of(key: &[&str]) -> Vec<usize> {
    key.iter().map(|name| bids().index_of(name).unwrap()).collect()
}

/// Bids by key in one task each, sorted there.
pub(crate) fn sorted<'a>(plan: &'a SortPlan, key: &[&str]) -> Pipeline<'a> {
    Pipeline::new(&bids())
        .exchange(columns_of(key))
        .stage(plan.output(), || plan.whole())
        .keyed(Plan::keyed_output(plan))
}

/// Whether a row is late at a sort that was given `time`.
pub(crate) fn is_late(bid: &Bid, time: Timestamp) -> bool {
    bid.at < time
}

pub(crate) fn batch(rows: &[Bid]) -> RecordBatch {
    let mut builders = Bid::new_builders(rows.len());
    builders.append_rows(rows.iter().cloned());
    builders.finish().into_record_batch()
}

/// What an operator emits up to `time`; each batch is one step.
pub(crate) fn advance(operator: &mut impl Operator, time: i64) -> Vec<RecordBatch> {
    let mut emitted = Vec::new();
    loop {
        let mut out = Outbox::new();
        let step = operator.advance(Timestamp::from_micros(time), &mut out).unwrap();
        let batches: Vec<_> = out.drain().map(|(_, batch)| batch).collect();
        assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() <= 8192, "a step is bounded");
        emitted.extend(batches);
        if step != Advance::Again {
            return emitted;
        }
    }
}

/// An operator with a planted fault.
pub(crate) struct Faulty<O> {
    pub(crate) inner: O,
    pub(crate) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    PromisesTheWatermark,
    ForgetsTheNumbers,
    ForgetsOneSegment,
    SwallowsLateRows,
    KeepsTheLastRowOfABatch,
}

impl<O: Operator> Faulty<O> {
    pub(crate) fn new(inner: O, fault: Fault) -> Result<Self> {
        Ok(Self { inner, fault })
    }
}

impl<O: Operator> Operator for Faulty<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        match self.fault {
            Fault::SwallowsLateRows => {
                let mut inner = Outbox::new();
                self.inner.process(port, batch, &mut inner)?;
                let (processed, late) = inner.take_counts();
                out.processed((processed + late) as usize);
                inner.drain().filter(|(port, _)| *port == Port::MAIN).for_each(|(_, batch)| out.emit(batch));
                Ok(())
            }
            Fault::KeepsTheLastRowOfABatch => {
                out.processed(1);
                self.inner.process(port, batch.slice(0, batch.num_rows() - 1), out)
            }
            _ => self.inner.process(port, batch, out),
        }
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        Ok(match self.inner.advance(time, out)? {
            Advance::Promise(_) if self.fault == Fault::PromisesTheWatermark => Advance::Promise(time),
            advance => advance,
        })
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.inner.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let mut state = state.clone();
        for part in &mut state.parts {
            match self.fault {
                Fault::ForgetsTheNumbers => part.numbers.clear(),
                Fault::ForgetsOneSegment => drop(part.segments.pop()),
                _ => {}
            }
        }
        self.inner.load(&state)
    }
}

/// Whether the harness is content with a pipeline in one of some seeds.
pub(crate) fn caught(check: impl Fn(u64) -> Result<(), String>) -> bool {
    (0..6).any(|seed| check(seed).is_err())
}

fn all(rows: &[Bid]) -> Vec<Row> {
    rows.iter().map(|bid| Row::from((bid.auction, bid.who.clone(), bid.price, bid.at))).collect()
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn every_row_leaves(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), bound in 0u64..25, seed: u64,
    ) {
        let plan = SortPlan::new(&bids(), key).unwrap();
        Check::new(sorted(&plan, key)).out_of_order(us(bound)).seed(seed).run(&rows, all).map_err(fail)?;
    }

    #[test]
    fn or_is_late(rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), seed: u64) {
        let plan = SortPlan::new(&bids(), key).unwrap();
        let check = Check::new(sorted(&plan, key)).out_of_order(us(5)).seed(seed).fall_idle();
        check.run_beyond_bound(&rows, is_late, all).map_err(fail)?;
    }

    #[test]
    fn at_all_times(
        rows in some_bids(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -5i64..5]), seed: u64,
    ) {
        let plan = SortPlan::new(&bids(), &["who"]).unwrap();
        Check::new(sorted(&plan, &["who"])).out_of_order(us(1 << 62)).seed(seed).run(&rows, all).map_err(fail)?;
    }

    /// What has left is in order, and it is what is earlier than the watermark.
    #[test]
    fn in_order_of_time_and_then_of_all_columns(
        rows in some_bids(-30i64..30), size in 1usize..20, mut times in prop::collection::vec(-40i64..40, 0..8),
    ) {
        let mut sort = SortPlan::new(&bids(), &["who"]).unwrap().whole().unwrap();
        for rows in rows.chunks(size) {
            sort.process(Port::MAIN, batch(rows), &mut Outbox::new()).unwrap();
        }
        let mut expected = rows.clone();
        expected.sort_by_key(in_order);
        let expected = batch(&expected);
        times.sort_unstable();
        times.push(i64::MAX);
        let mut left = 0;
        for time in times {
            for emitted in advance(&mut sort, time) {
                prop_assert_eq!(&emitted, &expected.slice(left, emitted.num_rows()));
                left += emitted.num_rows();
            }
            let gone = rows.iter().filter(|bid| bid.at.micros() < time || time == i64::MAX).count();
            prop_assert_eq!(left, gone);
        }
    }
}

fn bid(i: i64, at: i64) -> Bid {
    Bid { auction: i, who: None, price: Some(i), at: Timestamp::from_micros(at) }
}

#[test]
fn many_rows_leave_in_steps() {
    let mut sort = SortPlan::new(&bids(), &["auction"]).unwrap().whole().unwrap();
    let rows: Vec<Bid> = (0..20_000).map(|i| bid(i, i * 7_919 % 20_000)).collect();
    sort.process(Port::MAIN, batch(&rows), &mut Outbox::new()).unwrap();
    let steps = advance(&mut sort, i64::MAX);
    assert!(steps.len() > 2);
    let times: Vec<i64> = steps
        .iter()
        .flat_map(|rows| rows.column(3).as_primitive::<TimestampMicrosecondType>().values().to_vec())
        .collect();
    assert!(times.into_iter().eq(0..20_000));
    assert_eq!(sort.size(), 0);
}

/// The end is not a time: what is started again may find more, but nothing before what has left.
#[test]
fn after_the_end_only_what_has_left_is_closed() {
    let mut sort = SortPlan::new(&bids(), &[]).unwrap().whole().unwrap();
    sort.process(Port::MAIN, batch(&[bid(1, 50)]), &mut Outbox::new()).unwrap();
    advance(&mut sort, i64::MAX);
    let mut out = Outbox::new();
    sort.process(Port::MAIN, batch(&[bid(1, 49), bid(1, 50), bid(1, 51)]), &mut out).unwrap();
    assert_eq!(out.take_counts(), (2, 1));
}

/// A day of one row per second: what is held is what the watermark has not passed.
#[test]
fn a_day_is_not_held() {
    let plan = SortPlan::new(&bids(), &["auction"]).unwrap();
    let mut sort: Sort = plan.whole().unwrap();
    let (second, mut most, mut left) = (1_000_000, 0, 0);
    for minute in 0..24 * 60 {
        let rows: Vec<Bid> = (0..60).map(|s| bid(s % 7, (minute * 60 + 59 - s) * second)).collect();
        sort.process(Port::MAIN, batch(&rows), &mut Outbox::new()).unwrap();
        left += advance(&mut sort, (minute * 60 - 10) * second).iter().map(RecordBatch::num_rows).sum::<usize>();
        most = most.max(sort.size());
    }
    assert!(most < 100_000, "{most} bytes for two minutes");
    left += advance(&mut sort, i64::MAX).iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!((left, sort.size()), (24 * 3600, 0));
}

#[test]
fn planted_faults_are_found() {
    let rows: Vec<Bid> = (0..60).map(|i| bid(i % 5, i * 37 % 83)).collect();
    let plan = SortPlan::new(&bids(), &["auction"]).unwrap();
    let run = |fault, seed| {
        let pipeline = Pipeline::new(&bids()).exchange([0]);
        let pipeline = pipeline.stage(plan.output(), || Faulty::new(plan.whole()?, fault));
        let check = Check::new(pipeline).out_of_order(us(5)).seed(seed);
        check.run_beyond_bound(&rows, is_late, all).map(drop)
    };
    assert!(!caught(|seed| run(Fault::None, seed)));
    for fault in
        [Fault::ForgetsTheNumbers, Fault::ForgetsOneSegment, Fault::SwallowsLateRows, Fault::KeepsTheLastRowOfABatch]
    {
        assert!(caught(|seed| run(fault, seed)), "{fault:?}");
    }
}

#[test]
fn what_cannot_be_sorted_is_refused() {
    use arrow::datatypes::{DataType, Field, Schema};
    let timeless = StreamSchema::without_time(bids().columns().clone());
    let error = SortPlan::new(&timeless, &[]).unwrap_err().to_string();
    assert!(error.contains("sorting needs event time"), "{error}");
    let error = SortPlan::new(&bids(), &["prise"]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"price\"?"), "{error}");
    let fields =
        vec![Field::new("__key_group", DataType::Int64, false), Field::new("at", Timestamp::data_type(), false)];
    let stream = StreamSchema::with_time(Schema::new(fields).into(), "at").unwrap();
    assert!(SortPlan::new(&stream, &[]).unwrap_err().to_string().contains("is reserved"));
}

/// The hidden time of what a window gave is kept.
#[test]
fn hidden_time_is_sorted_by_too() {
    use arrow::datatypes::{DataType, Field, Schema};
    let stream = StreamSchema::with_hidden_time(&Schema::new(vec![Field::new("n", DataType::Int64, false)])).unwrap();
    let mut sort = SortPlan::new(&stream, &[]).unwrap().whole().unwrap();
    let numbers = arrow::array::Int64Array::from(vec![1, 2, 3]);
    let columns = vec![std::sync::Arc::new(numbers) as _, Timestamp::column(vec![9, 7, 8])];
    let rows = RecordBatch::try_new(stream.columns().clone(), columns).unwrap();
    sort.process(Port::MAIN, rows, &mut Outbox::new()).unwrap();
    let left = advance(&mut sort, i64::MAX);
    assert_eq!(left[0].column(0).as_primitive::<Int64Type>().values(), &[2, 3, 1]);
    assert_eq!(left[0].column(0).null_count(), 0);
}
