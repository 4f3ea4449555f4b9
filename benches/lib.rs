//! What the benches share: events ready in memory, and the hand-written loops they are measured against.
//!
//! A claim about speed is a ratio to a baseline of the same run; machines differ and drift.

mod add_up;
mod cpu;
pub mod nexmark;
mod ratios;
mod size;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{Fetch, Source, SplitId},
    prelude::*,
};
use windrow_operators::time::event_times;

pub use add_up::AddUp;
pub use cpu::cpu_time;
pub use ratios::{Ratios, median};
pub use size::{amount, measures, rows};

/// Rows per batch, in memory and on every edge.
pub const BATCH_ROWS: usize = 8192;

/// The size of a window of the keyed-window benchmark, in microseconds.
pub const WINDOW_MICROS: i64 = 10_000_000;

/// `bids` Nexmark bids (auction, price, at) in order of event time, ready in memory.
pub fn bids(bids: u64) -> (SchemaRef, Vec<RecordBatch>) {
    let source =
        Nexmark::new().events(bids.div_ceil(46) * 50).batch_rows(BATCH_ROWS).bids().columns(["auction", "price", "at"]);
    read_all(&source)
}

/// The same bids with their texts (auction, price, at, channel, url): rows as they come from a topic.
pub fn wide_bids(bids: u64) -> (SchemaRef, Vec<RecordBatch>) {
    let columns = ["auction", "price", "at", "channel", "url"];
    read_all(&Nexmark::new().events(bids.div_ceil(46) * 50).batch_rows(BATCH_ROWS).bids().columns(columns))
}

/// How many rows there are.
pub fn row_count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// A runtime of so many threads: a job on one of them has one core, however many tasks it has.
pub fn threads(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// All rows of a bounded source.
pub fn read_all(source: &impl Source) -> (SchemaRef, Vec<RecordBatch>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = async {
        let schema = source.schema()?;
        let splits: Vec<SplitId> = source.splits().await?;
        let mut reader = source.reader(splits.into_iter().map(|split| (split, None)).collect()).await?;
        let mut batches = Vec::new();
        loop {
            match reader.fetch().await? {
                Fetch::Rows(rows) => batches.push(rows.batch),
                Fetch::SplitEnd(_) => {}
                Fetch::End => return Ok::<_, windrow::connectors::ConnectorError>((schema, batches)),
            }
        }
    };
    match runtime.map(|runtime| runtime.block_on(read)) {
        Ok(Ok(read)) => read,
        other => unreachable!("a generator does not fail: {:?}", other.map(|read| read.map(|_| ()))),
    }
}

/// The columns of a batch of bids.
pub fn columns(batch: &RecordBatch) -> (&[i64], &[i64], &[i64]) {
    use windrow::arrow::{array::AsArray, datatypes::Int64Type};
    let number = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().as_ref();
    (number(0), number(1), event_times(batch, 2).unwrap_or_default())
}

/// What the hand-written loop keeps per auction.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Number of bids.
    pub count: i64,
    /// Sum of prices.
    pub sum: i64,
    /// Highest price.
    pub max: i64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        *self = Self { count: self.count + other.count, sum: self.sum + other.sum, max: self.max.max(other.max) };
    }
}

type Table = HashMap<i64, Totals, foldhash::fast::FixedState>;

/// Rows, count, sum and max over all results: what a benchmark compares.
pub type Checksum = [i64; 4];

/// The keyed window as one would write it by hand: a hash map per window, results as columns when the time passes.
#[derive(Default)]
pub struct HandWritten {
    open: BTreeMap<i64, Table>,
    checksum: Checksum,
}

impl HandWritten {
    /// Adds a batch; the time of a row decides its window.
    pub fn add(&mut self, auctions: &[i64], prices: &[i64], times: &[i64]) {
        let mut row = 0;
        while row < times.len() {
            let window = times[row].div_euclid(WINDOW_MICROS);
            let (start, end) = (window * WINDOW_MICROS, (window + 1) * WINDOW_MICROS);
            let table = self.open.entry(window).or_default();
            while row < times.len() && times[row] < end && times[row] >= start {
                let price = prices[row];
                let one = Totals { count: 1, sum: price, max: price };
                table.entry(auctions[row]).and_modify(|totals| totals.add(one)).or_insert(one);
                row += 1;
            }
        }
    }

    /// Takes the windows that end at `time` or before.
    fn closed(&mut self, time: i64) -> impl Iterator<Item = (i64, Table)> + '_ {
        std::iter::from_fn(move || {
            let first = self.open.first_entry()?;
            let closed = (*first.key()).saturating_add(1).saturating_mul(WINDOW_MICROS) <= time;
            closed.then(|| first.remove_entry())
        })
    }

    /// The whole computation on one thread.
    pub fn run(batches: &[RecordBatch]) -> Checksum {
        let mut windows = Self::default();
        for batch in batches {
            let (auctions, prices, times) = columns(batch);
            windows.add(auctions, prices, times);
            windows.advance(times.last().copied().unwrap_or(i64::MIN));
        }
        windows.advance(i64::MAX);
        windows.checksum
    }

    /// What has come of the windows that are closed.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Gives the results of the windows that end at `time` or before.
    pub fn advance(&mut self, time: i64) {
        let closed: Vec<_> = self.closed(time).collect();
        for (window, table) in closed {
            emit(&mut self.checksum, window, table);
        }
    }

    /// The whole computation on two threads: each aggregates every other batch; who closes a window second merges the
    /// tables of both and gives the result.
    pub fn run_on_two_threads(batches: &[RecordBatch]) -> Checksum {
        let met: Mutex<HashMap<i64, Table>> = Mutex::default();
        let thread = |parity: usize| {
            let mut windows = Self::default();
            let advance = |windows: &mut Self, time| {
                let closed: Vec<_> = windows.closed(time).collect();
                for (window, table) in closed {
                    let other = {
                        let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
                        match met.remove(&window) {
                            Some(other) => other,
                            None => {
                                met.insert(window, table);
                                continue;
                            }
                        }
                    };
                    emit(&mut windows.checksum, window, merge(table, other));
                }
            };
            for batch in batches.iter().skip(parity).step_by(2) {
                let (auctions, prices, times) = columns(batch);
                windows.add(auctions, prices, times);
                advance(&mut windows, times.last().copied().unwrap_or(i64::MIN));
            }
            advance(&mut windows, i64::MAX);
            windows.checksum
        };
        let mut total = std::thread::scope(|scope| {
            let other = scope.spawn(|| thread(1));
            let own = thread(0);
            sum(own, other.join().unwrap_or_default())
        });
        // Windows that only one thread has seen.
        for (window, table) in met.into_inner().unwrap_or_else(PoisonError::into_inner) {
            emit(&mut total, window, table);
        }
        total
    }
}

fn sum(a: Checksum, b: Checksum) -> Checksum {
    std::array::from_fn(|i| a[i] + b[i])
}

fn merge(a: Table, b: Table) -> Table {
    let (mut large, small) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    for (auction, totals) in small {
        large.entry(auction).and_modify(|into| into.add(totals)).or_insert(totals);
    }
    large
}

fn emit(checksum: &mut Checksum, window: i64, table: Table) {
    let rows = table.len();
    let mut columns: [Vec<i64>; 6] = std::array::from_fn(|_| Vec::with_capacity(rows));
    for (auction, totals) in table {
        columns[0].push(window * WINDOW_MICROS);
        columns[1].push((window + 1) * WINDOW_MICROS);
        columns[2].push(auction);
        columns[3].push(totals.count);
        columns[4].push(totals.sum);
        columns[5].push(totals.max);
    }
    checksum[0] += rows as i64;
    for i in 0..3 {
        checksum[i + 1] += columns[i + 3].iter().sum::<i64>();
    }
    std::hint::black_box(columns);
}
