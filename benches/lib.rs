//! What the benches share: events ready in memory, and the hand-written loops they are measured against.
//!
//! A claim about speed is a ratio to a baseline of the same run; machines differ and drift.

use std::collections::HashMap;

use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{Fetch, Source, SplitId},
    prelude::*,
};
use windrow_operators::time::event_times;

/// Rows per batch, in memory and on every edge.
pub const BATCH_ROWS: usize = 8192;

/// The size of a window of the keyed-window benchmark, in microseconds.
pub const WINDOW_MICROS: i64 = 10_000_000;

/// `bids` Nexmark bids (auction, price, at) in order of event time, ready in memory.
pub fn bids(bids: u64) -> (SchemaRef, Vec<RecordBatch>) {
    let source = Nexmark::new().events(bids.div_ceil(46) * 50).batch_rows(BATCH_ROWS).bids().columns(["auction", "price", "at"]);
    read_all(&source)
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

type Table = HashMap<i64, Totals, foldhash::fast::FixedState>;

/// The keyed window as one would write it by hand: a hash map per window, results as columns when the time passes.
#[derive(Default)]
pub struct HandWritten {
    open: std::collections::BTreeMap<i64, Table>,
    /// Rows, count, sum and max over all results: what a benchmark compares.
    pub checksum: [i64; 4],
}

impl HandWritten {
    /// Adds a batch in which all times lie in few windows.
    pub fn add(&mut self, auctions: &[i64], prices: &[i64], times: &[i64]) {
        let mut row = 0;
        while row < times.len() {
            let window = times[row].div_euclid(WINDOW_MICROS);
            let end = (window + 1) * WINDOW_MICROS;
            let table = self.open.entry(window).or_default();
            while row < times.len() && times[row] < end && times[row] >= end - WINDOW_MICROS {
                let price = prices[row];
                table
                    .entry(auctions[row])
                    .and_modify(|t| *t = Totals { count: t.count + 1, sum: t.sum + price, max: t.max.max(price) })
                    .or_insert(Totals { count: 1, sum: price, max: price });
                row += 1;
            }
        }
    }

    /// Gives the results of the windows that end at `time` or before.
    pub fn advance(&mut self, time: i64) {
        while let Some(first) = self.open.first_entry() {
            if (first.key() + 1) * WINDOW_MICROS > time {
                return;
            }
            let (window, table) = first.remove_entry();
            self.emit(window, table);
        }
    }

    /// Gives what is left.
    pub fn finish(&mut self) {
        for (window, table) in std::mem::take(&mut self.open) {
            self.emit(window, table);
        }
    }

    fn emit(&mut self, window: i64, table: Table) {
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
        self.checksum[0] += rows as i64;
        for i in 0..3 {
            self.checksum[i + 1] += columns[i + 3].iter().sum::<i64>();
        }
        std::hint::black_box(columns);
    }
}
