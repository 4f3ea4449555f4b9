//! How fast are the operators that a keyed tumbling window is not? Each beside a loop written by hand.
//!
//! The same 2 million Nexmark bids (auction, price, event time), ready in memory as batches of 8,192 rows, go through
//! * the operators alone, called from a loop; what depends on the order of rows has its sort in front, as in a job;
//! * a loop over the same columns that keeps what it needs in hash maps ([`by_hand`]).
//!
//! Both advance the watermark after each batch and give their results as columns. The number of results and the sum of one of
//! their columns are compared before anything is measured. The loops know that rows come in order; operators do not. Only
//! `sort` has rows that come up to a second too late.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

mod by_hand;

use std::{hint::black_box, time::Duration};

use benches::{BATCH_ROWS, bids, columns, read_all};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{AsArray, Int64Array, RecordBatch},
        compute,
        datatypes::{DataType, Int64Type},
    },
    operators::{
        Advance, Operator, Outbox, Plan, Port, Result, StreamSchema,
        changes::{UpdatingPlan, UpsertPlan},
        count::CountPlan,
        keyed::{DedupPlan, ProcessPlan, fold},
        pattern::PatternPlan,
        session::SessionPlan,
        sort::SortPlan,
        window::AggregatePlan,
    },
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BIDS: u64 = 2_000_000;

/// How many results, and the sum of a column of theirs.
pub(crate) type Checksum = (i64, i64);

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
}

#[derive(Record)]
struct Milestone {
    auction: i64,
    total: i64,
}

/// What is measured: plans, one behind the other, and the loop that does the same.
struct Case {
    name: &'static str,
    plans: Vec<Box<dyn Plan>>,
    /// The column of the results that is summed.
    column: usize,
    by_hand: fn(&[RecordBatch]) -> Checksum,
    /// How late rows come at the most, in microseconds.
    disorder: i64,
}

fn cases(input: &StreamSchema) -> Result<Vec<Case>> {
    let key = &["auction"];
    let totals = [count(), sum(col("price")), max(col("price"))];
    let case = |name, column, by_hand, plans| Case { name, plans, column, by_hand, disorder: 0 };
    let sorted = || -> Result<Box<dyn Plan>> { Ok(Box::new(SortPlan::new(input, key)?)) };
    let hopping = Hopping::of(secs(10), secs(2));
    let milestones = fold::<Bid, (i64, i64), Milestone, _>(|(bids, total), bid, out| {
        (*bids, *total) = (*bids + 1, *total + bid.price);
        if *bids % 16 == 0 {
            out.emit(Milestone { auction: bid.auction, total: *total });
        }
    });
    let rise = Pattern::begin("low", col("price").lt(lit(by_hand::LOW)))
        .followed_by("high", col("price").gt(lit(by_hand::HIGH)))
        .within(secs(1))
        .skip(Skip::PastLast);
    let high = [last("high", "price")];
    Ok(vec![
        case("hopping", 4, by_hand::hopping, vec![Box::new(AggregatePlan::new(input, key, hopping, &totals)?)]),
        case(
            "session",
            4,
            by_hand::session,
            vec![Box::new(SessionPlan::new(
                input,
                key,
                Session::gap(Duration::from_micros(by_hand::GAP as u64)),
                &totals,
            )?)],
        ),
        case(
            "count window",
            4,
            by_hand::count_window,
            vec![sorted()?, Box::new(CountPlan::new(input, key, Count::of(by_hand::COUNT), &totals)?)],
        ),
        Case { disorder: by_hand::DISORDER, ..case("sort", 1, by_hand::sort, vec![sorted()?]) },
        case(
            "fold in order",
            1,
            by_hand::fold,
            vec![sorted()?, Box::new(ProcessPlan::new(input, key, milestones.clone(), None)?.in_order())],
        ),
        case("fold on arrival", 1, by_hand::fold, vec![Box::new(ProcessPlan::new(input, key, milestones, None)?)]),
        case(
            "deduplicate",
            1,
            by_hand::deduplicate,
            vec![sorted()?, Box::new(DedupPlan::new(input, key, Duration::from_micros(by_hand::WITHIN as u64))?)],
        ),
        case("pattern", 3, by_hand::pattern, vec![sorted()?, Box::new(PatternPlan::new(input, key, &rise, &high)?)]),
        case("totals", 2, by_hand::totals, vec![Box::new(UpdatingPlan::new(input, key, &totals, None)?)]),
        case("latest", 1, by_hand::latest, vec![Box::new(UpsertPlan::new(input, key, None, None)?)]),
    ])
}

/// Operators in line, as a task calls them.
struct Line {
    operators: Vec<Box<dyn Operator>>,
    out: Outbox,
    column: usize,
    total: Checksum,
}

impl Line {
    fn process(&mut self, from: usize, batch: RecordBatch) -> Result<()> {
        match self.operators.get_mut(from) {
            Some(operator) => operator.process(Port::MAIN, batch, &mut self.out)?,
            None => {
                let column = compute::cast(batch.column(self.column), &DataType::Int64)?;
                let sum: i64 = column.as_primitive::<Int64Type>().values().iter().fold(0, |a, b| a.wrapping_add(*b));
                self.total = (self.total.0 + batch.num_rows() as i64, self.total.1.wrapping_add(sum));
                return Ok(());
            }
        }
        self.forward(from)
    }

    fn forward(&mut self, from: usize) -> Result<()> {
        let batches: Vec<RecordBatch> = self.out.drain().map(|(_, batch)| batch).collect();
        batches.into_iter().try_for_each(|batch| self.process(from + 1, batch))
    }

    fn advance(&mut self, mut time: Timestamp) -> Result<()> {
        for from in 0..self.operators.len() {
            time = loop {
                let advance = self.operators[from].advance(time, &mut self.out)?;
                self.forward(from)?;
                if let Advance::Promise(promise) = advance {
                    break promise;
                }
            };
        }
        Ok(())
    }
}

fn operators(case: &Case, batches: &[RecordBatch]) -> Checksum {
    let run = || -> Result<Checksum> {
        let operators = case.plans.iter().map(|plan| plan.whole()).collect::<Result<_>>()?;
        let mut line = Line { operators, out: Outbox::new(), column: case.column, total: (0, 0) };
        let mut latest = i64::MIN;
        for batch in batches {
            line.process(0, batch.clone())?;
            latest = latest.max(columns(batch).2.iter().copied().max().unwrap_or(i64::MIN));
            line.advance(Timestamp::from_micros(latest - case.disorder))?;
        }
        line.advance(Timestamp::MAX)?;
        Ok(line.total)
    };
    run().unwrap_or_else(|error| unreachable!("{}: {error}", case.name))
}

fn event_time(criterion: &mut Criterion) {
    let (schema, in_order) = bids(BIDS);
    let late =
        Nexmark::new().events(BIDS.div_ceil(46) * 50).out_of_order(Duration::from_micros(by_hand::DISORDER as u64));
    let (_, disordered) = read_all(&late.batch_rows(BATCH_ROWS).bids().columns(["auction", "price", "at"]));
    let rows = in_order.iter().map(|batch| batch.num_rows() as u64).sum();
    let cases = StreamSchema::with_time(schema, "at").and_then(|input| cases(&input));
    let cases = cases.unwrap_or_else(|error| unreachable!("{error}"));
    let batches = |case: &Case| if case.disorder > 0 { &disordered } else { &in_order };
    for case in &cases {
        assert_eq!(operators(case, batches(case)), (case.by_hand)(batches(case)), "{}", case.name);
    }
    let mut group = criterion.benchmark_group("event_time");
    group.throughput(Throughput::Elements(rows));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    for case in &cases {
        group.bench_function(BenchmarkId::new(case.name, "hand_written"), |b| {
            b.iter(|| black_box((case.by_hand)(batches(case))));
        });
        group.bench_function(BenchmarkId::new(case.name, "operators"), |b| {
            b.iter(|| black_box(operators(case, batches(case))));
        });
    }
    group.finish();
}

/// A result that is not kept must not be optimised away.
pub(crate) fn keep(columns: Vec<Vec<i64>>) {
    black_box(columns.into_iter().map(Int64Array::from).collect::<Vec<_>>());
}

criterion_group!(benches, event_time);
criterion_main!(benches);
