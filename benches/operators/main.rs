//! How fast is each operator alone, beside a loop written by hand?
//!
//! ```text
//!   batches in memory ──► operators in line, called from a loop ([`Line`])   ──► number of results, sum of one column
//!                     └─► [`by_hand`]: a loop over the same columns          ──► the same
//! ```
//!
//! 2 million Nexmark bids (`WINDROW_BENCH_ROWS` says otherwise) in batches of 8,192 rows, a watermark after each. What depends on the
//! order of rows has its sort in front, as in a job. Both sides give their results as columns; the number of results and the sum of
//! one of their columns are compared before anything is measured. The loops know that rows come in order, operators do not; only the
//! rows of `sort` come up to a second too late. The keyed tumbling window has a bench of its own, `window`; joins have `join`.
//!
//! * [`stateful`]: windows, sessions, sort, processes, patterns, tables. [`by_hand`]: their loops.
//! * [`stateless`]: filter, map and flat-map, by closures over row views and by expressions, beside loops that use Arrow's kernels.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

mod by_hand;
mod stateful;
mod stateless;

use std::{hint::black_box, time::Duration};

use benches::{BATCH_ROWS, Ratios, bids, columns, read_all, row_count, rows, wide_bids};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{AsArray, Int64Array, RecordBatch},
        compute,
        datatypes::{DataType, Int64Type, SchemaRef},
    },
    operators::{Advance, Operator, Outbox, Port, Result, StreamSchema},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BIDS: u64 = 2_000_000;

/// How many results, and the sum of a column of theirs.
pub(crate) type Checksum = (i64, i64);

/// Which rows go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Auction, price and time, in order.
    InOrder,
    /// The same, up to a second too late.
    Disordered,
    /// In order, and two texts.
    Wide,
}

/// Operators in line.
pub(crate) type Operators = Vec<Box<dyn Operator>>;

/// What is measured: operators, one behind the other, and the loop that does the same.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) rows: Rows,
    /// Made anew for each run.
    pub(crate) operators: Box<dyn Fn() -> Result<Operators>>,
    /// The column of the results that is summed.
    pub(crate) column: usize,
    pub(crate) by_hand: fn(&[RecordBatch]) -> Checksum,
}

/// Operators as a task calls them, and what comes out of the last.
struct Line {
    operators: Operators,
    out: Outbox,
    column: usize,
    total: Checksum,
}

impl Line {
    fn process(&mut self, from: usize, batch: RecordBatch) -> Result<()> {
        let Some(operator) = self.operators.get_mut(from) else {
            let (rows, sum) = figures(&batch, self.column);
            self.total = (self.total.0 + rows, self.total.1.wrapping_add(sum));
            return Ok(());
        };
        let none = batch.slice(0, 0);
        operator.process(Port::MAIN, batch, &mut self.out)?;
        loop {
            let again = self.out.take_again();
            self.forward(from)?;
            if !again {
                return Ok(());
            }
            self.operators[from].process(Port::MAIN, none.clone(), &mut self.out)?;
        }
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

/// How many rows, and the sum of a column.
pub(crate) fn figures(batch: &RecordBatch, column: usize) -> Checksum {
    let column = compute::cast(batch.column(column), &DataType::Int64).unwrap_or_else(|e| unreachable!("{e}"));
    let values = column.as_primitive::<Int64Type>().values();
    (batch.num_rows() as i64, values.iter().fold(0, |a, b| a.wrapping_add(*b)))
}

/// A result that is not kept must not be optimised away.
pub(crate) fn keep(columns: Vec<Vec<i64>>) {
    black_box(columns.into_iter().map(Int64Array::from).collect::<Vec<_>>());
}

fn run(case: &Case, batches: &[RecordBatch]) -> Checksum {
    let disorder = if case.rows == Rows::Disordered { by_hand::DISORDER } else { 0 };
    let run = || -> Result<Checksum> {
        let mut line = Line { operators: (case.operators)()?, out: Outbox::new(), column: case.column, total: (0, 0) };
        let mut latest = i64::MIN;
        for batch in batches {
            line.process(0, batch.clone())?;
            latest = latest.max(columns(batch).2.iter().copied().max().unwrap_or(i64::MIN));
            line.advance(Timestamp::from_micros(latest - disorder))?;
        }
        line.advance(Timestamp::MAX)?;
        Ok(line.total)
    };
    run().unwrap_or_else(|error| unreachable!("{}: {error}", case.name))
}

/// The rows that cases ask for.
struct Input {
    in_order: (SchemaRef, Vec<RecordBatch>),
    disordered: Vec<RecordBatch>,
    wide: (SchemaRef, Vec<RecordBatch>),
}

impl Input {
    fn new(amount: u64) -> Self {
        let late = Duration::from_micros(by_hand::DISORDER as u64);
        let late = Nexmark::new().events(amount.div_ceil(46) * 50).out_of_order(late);
        let (_, disordered) = read_all(&late.batch_rows(BATCH_ROWS).bids().columns(["auction", "price", "at"]));
        Self { in_order: bids(amount), disordered, wide: wide_bids(amount) }
    }

    fn of(&self, case: &Case) -> &[RecordBatch] {
        match case.rows {
            Rows::InOrder => &self.in_order.1,
            Rows::Disordered => &self.disordered,
            Rows::Wide => &self.wide.1,
        }
    }

    fn cases(&self) -> Result<Vec<Case>> {
        let stream = |schema: &SchemaRef| StreamSchema::with_time(schema.clone(), "at");
        let (numbers, wide) = (stream(&self.in_order.0)?, stream(&self.wide.0)?);
        Ok(stateless::cases(&numbers, &wide)?.into_iter().chain(stateful::cases(&numbers)?).collect())
    }
}

fn operators(criterion: &mut Criterion) {
    let input = Input::new(rows(BIDS));
    let cases = input.cases().unwrap_or_else(|error| unreachable!("{error}"));
    let ratios = Ratios::of("operators");
    for case in &cases {
        let batches = input.of(case);
        assert_eq!(run(case, batches), (case.by_hand)(batches), "{}", case.name);

        let mut group = criterion.benchmark_group("operators");
        group.throughput(Throughput::Elements(row_count(batches)));
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
        let [by_hand, operator] = ["hand_written", "operator"].map(|side| format!("{}/{side}", case.name));
        let mut bench = |side: &str, run: &dyn Fn() -> Checksum| {
            group.bench_function(side, |b| b.iter_custom(|times| ratios.time(side, times, run)));
        };
        bench(&by_hand, &|| (case.by_hand)(batches));
        bench(&operator, &|| run(case, batches));
        group.finish();
        ratios.print(&operator, &by_hand);
    }
}

criterion_group!(benches, operators);
criterion_main!(benches);
