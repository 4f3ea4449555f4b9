//! One stream, several readers: an archive, alerts, and a table of the best of every window.
//!
//! ```text
//!                    ┌─► all bids ──────────────────────────────────────► Parquet files, a directory a day
//!   Nexmark bids ────┼─► price > 995,000.00 ────────────────────────────► console, at once
//!                    └─► per auction and 6 h: bids, highest ─► top 3 ───► table, asked after the run
//! ```
//!
//! A fork is a visible `.clone()`: the source is read once, and each branch gets the same batches without a copy. A slow
//! branch slows down the source, and so the others: nothing is dropped. With `.checkpoint(…)` on the job all three would
//! agree on one cut through the stream.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{error::Error, path::Path};

use windrow::prelude::*;

/// In cents. Three bids in ten thousand are dearer.
const DEAR: i64 = 99_500_000;

/// How far out of order bids arrive, and how far the job expects them to.
const DISORDER: std::time::Duration = secs(30);

/// The columns of a bid that the closure looks at.
#[derive(Record)]
pub struct Bid {
    price: i64,
}

/// The branches, up to their sinks.
pub struct Branches {
    /// Every bid.
    pub all: Stream<Bid>,
    /// The dear ones: `at`, `bidder`, `auction`, `price`.
    pub alerts: Stream<Untyped>,
    /// Changes by `window_start` and `rank`: `window_end`, `auction`, `bids`, `highest`.
    pub top: Stream<Untyped>,
}

/// Two days and some hours of bids, one event a second.
pub fn nexmark(splits: usize) -> Nexmark {
    Nexmark::new().events(200_000).event_rate(1).splits(splits).out_of_order(DISORDER)
}

pub fn fan_out(job: &Job, nexmark: &Nexmark) -> Branches {
    let bids = job
        .source(nexmark.bids().columns(["auction", "bidder", "price", "at"]))
        .event_time("at", Watermarks::out_of_order(DISORDER))
        .fail_on_rejects()
        .typed::<Bid>();

    let alerts = bids.clone().filter(|bid| bid.price > DEAR).select(["at", "bidder", "auction", "price"].map(col));

    let top = bids
        .clone()
        .key_by("auction")
        .window(Tumbling::of(hours(6)))
        .aggregate([count().alias("bids"), max(col("price")).alias("highest")])
        .drop_late()
        .window(Tumbling::of(hours(6)))
        .top(3, "bids")
        .drop_late()
        // Rows become a table by saying what their key is: the newest of each key counts, and each key stays.
        .key_by(["window_start", "rank"])
        .latest();

    Branches { all: bids, alerts, top }
}

/// What is below a directory, with sizes.
fn print_files(directory: &Path) -> std::io::Result<()> {
    let mut days: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    days.sort_by_key(|day| day.file_name());
    for day in days {
        for file in std::fs::read_dir(day.path())? {
            let file = file?;
            println!("{}/{}  {} bytes", day.file_name().display(), file.file_name().display(), file.metadata()?.len());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let job = Job::new("fan-out").parallelism(2);
    let table = MemoryTable::new();

    let Branches { all, alerts, top } = fan_out(&job, &nexmark(2));
    all.sink(File::directory(directory.path()).parquet().partition_by_time("at", TimePartition::Daily));
    alerts.sink(Console::new());
    top.sink(table.clone());

    let report = job.run().await?;
    println!("\nthe archive:");
    print_files(directory.path())?;
    println!("\nthe busiest auctions of every six hours:\n{table}");
    println!("\n{}", report.metrics);
    Ok(())
}
