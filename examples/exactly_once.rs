//! Kill it, start it again, as often as you like: at the end every row is there once.
//!
//! ```text
//!   Nexmark bids ─► key by auction ─► windows of 10 s: count, highest price ─► JSON lines, exactly once
//!                          checkpoint every 500 ms ─► {directory}/checkpoints
//! ```
//!
//! A run without interruption takes about half a minute. `kill -9` it and start it with the same arguments; it goes on
//! where it was, also with another `--parallelism`. When it has ended, the sum of the counts in the files is the number of
//! bids, and this program says so.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use windrow::{
    Report,
    arrow::{array::AsArray, datatypes::Int64Type},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts Nexmark bids per auction and ten seconds into files, and survives every kill.
#[derive(Parser, Debug)]
struct Args {
    /// Where the results and the checkpoints go
    directory: PathBuf,
    /// Nexmark events to generate, a multiple of 50; 46 of 50 are bids
    #[arg(long, default_value_t = 1_500_000)]
    events: u64,
    /// Events per second; 0 is as fast as the machine can
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Tasks per operator: may differ from start to start
    #[arg(long, default_value_t = 2)]
    parallelism: usize,
}

/// What is checked in the files at the end.
#[derive(Record)]
struct Counted {
    bids: i64,
}

async fn run(args: &Args) -> windrow::Result<Report> {
    let checkpoints = args.directory.join("checkpoints");
    let job = Job::new("bids").parallelism(args.parallelism).checkpoint(checkpoints.to_string_lossy(), millis(500));
    // The splits are part of what a checkpoint remembers, so they do not follow the parallelism.
    let nexmark = Nexmark::new().events(args.events).splits(4).out_of_order(secs(2));
    let nexmark = if args.rate == 0 { nexmark } else { nexmark.rate(args.rate).event_rate(args.rate) };
    job.source(nexmark.bids().columns(["auction", "price", "at"]))
        .event_time("at", Watermarks::out_of_order(secs(2)))
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("bids"), max(col("price")).alias("highest")])
        .drop_late()
        .sink(File::directory(args.directory.join("bids")).json());
    job.run().await
}

/// The number of published rows, and the sum of their counts.
async fn published(args: &Args) -> windrow::Result<(usize, i64)> {
    let (job, out) = (Job::new("check"), MemorySink::new());
    let files = args.directory.join("bids/*.jsonl");
    job.source(File::pattern(files.to_string_lossy()).json::<Counted>()).sink(out.clone());
    job.run().await?;
    let counts = out
        .batches()
        .iter()
        .map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>())
        .sum();
    Ok((out.rows(), counts))
}

async fn report(args: &Args) -> windrow::Result<ExitCode> {
    let report = run(args).await?;
    eprintln!("{}", report.metrics);
    if report.stopped {
        eprintln!("stopped with a checkpoint: start again to go on");
        return Ok(ExitCode::from(130));
    }
    let (rows, counted) = published(args).await?;
    let expected = args.events / 50 * 46;
    println!("{rows} rows, {counted} bids counted, {expected} generated");
    Ok(if counted == expected as i64 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn main() -> ExitCode {
    match report(&Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
