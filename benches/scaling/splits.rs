//! More splits: a whole job that reads 10, 100 or 1,000 of them in one task, with a watermark each.
//!
//! The rows are the same, in batches of 1,024, dealt to the splits in turn, so that the splits stay in step.

use std::time::{Duration, Instant};

use benches::{AddUp, HandWritten, bids, columns, median, row_count, rows};
use windrow::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    prelude::*,
};

use crate::{Check, ROUNDS, ROWS, nanos, timed};

const BATCH_ROWS: usize = 1024;

/// The sum of the counts over all results: every row once.
fn job(runtime: &tokio::runtime::Runtime, source: MemorySource) -> (u64, Duration) {
    let job = Job::new("splits").parallelism(1);
    let out =
        AddUp::new(|[rows], batch| *rows += batch.column(3).as_primitive::<Int64Type>().values().iter().sum::<i64>());
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count(), sum(col("price")), max(col("price"))])
        .drop_late()
        .sink(out.clone());
    let began = Instant::now();
    runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    (out.total()[0].unsigned_abs(), began.elapsed())
}

fn by_hand(batches: &[RecordBatch]) -> i64 {
    let mut windows = HandWritten::default();
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        windows.add(auctions, prices, times);
        windows.advance(times.last().copied().unwrap_or(i64::MIN));
    }
    windows.advance(i64::MAX);
    windows.checksum()[1]
}

fn cut(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let cut = |batch: &RecordBatch| {
        let (batch, rows) = (batch.clone(), batch.num_rows());
        (0..rows).step_by(BATCH_ROWS).map(move |first| batch.slice(first, BATCH_ROWS.min(rows - first)))
    };
    batches.iter().flat_map(cut).collect()
}

/// Prints the table.
pub(crate) fn run(check: &mut Check) {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));
    let (schema, batches): (SchemaRef, _) = bids(rows(2 * ROWS));
    let batches = cut(&batches);
    let rows = row_count(&batches);
    println!("\n{:16} {:>10} {:>10} {:>10}", "job", "splits", "ns per row", "by hand");
    let mut former = None;
    for splits in [10, 100, 1_000] {
        let [mut engine, mut hand] = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let mut time = Duration::ZERO;
            assert_eq!(timed(&mut time, || by_hand(&batches)).unsigned_abs(), rows);
            hand.push(nanos(time, rows));
            let source = MemorySource::new(schema.clone(), vec![batches.clone()]).splits(splits);
            let (counted, time) = job(&runtime, source);
            assert_eq!(counted, rows, "{splits} splits");
            engine.push(nanos(time, rows));
        }
        let (engine, hand) = (median(&engine), median(&hand));
        println!("{:16} {splits:>10} {engine:10.1} {hand:10.1}", "keyed window");
        if let Some((before, hand_before)) = former.replace((engine, hand)) {
            check.step(&format!("job of {splits} splits"), (before, engine), (hand_before, hand));
        }
    }
}
