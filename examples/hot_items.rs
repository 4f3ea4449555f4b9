//! The three hottest auctions of every ten seconds, live.
//!
//! ```text
//!   Nexmark bids ─► key by auction ─► windows of 10 s: count, highest price ─► per window: top 3 ─► console
//! ```
//!
//! Rows go to stdout, progress and a closing summary to stderr. Without flags it runs for about half a minute.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use windrow::{JobHandle, Report, prelude::*};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// How far out of order bids arrive, and how far the job expects them to.
const DISORDER: Duration = secs(2);

/// The three hottest auctions of every ten seconds of Nexmark bids.
#[derive(Parser, Debug)]
struct Args {
    /// Nexmark events to generate; 46 of 50 are bids, which this job reads
    #[arg(long, default_value_t = 1_500_000)]
    events: u64,
    /// Events per second, both of the clock on the wall and of event time; 0 is as fast as the machine can
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Tasks per operator
    #[arg(long, default_value_t = 2)]
    parallelism: usize,
    /// The seed of the generator: the same seed gives the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Serve a page and an API at this address while it runs: 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    serve: Option<String>,
    /// Show the job in the whole terminal while it runs; rows are printed only where stdout is something else
    #[arg(long)]
    watch: bool,
}

/// The bids of the generator with these settings.
pub fn nexmark(events: u64, rate: u64, splits: usize, seed: u64) -> Nexmark {
    let nexmark = Nexmark::new().events(events).seed(seed).splits(splits).out_of_order(DISORDER);
    match rate {
        0 => nexmark,
        rate => nexmark.rate(rate).event_rate(rate),
    }
}

/// The columns of a bid that this job looks at.
#[derive(Record)]
struct Bid {
    price: i64,
}

/// The job, up to its sink: `window_start`, `rank`, `auction`, `bids` and `top_price`.
pub fn hot_items(job: &Job, nexmark: Nexmark) -> Stream<Untyped> {
    job.source(nexmark.bids().columns(["auction", "price", "at"]))
        .event_time("at", Watermarks::out_of_order(DISORDER))
        .typed::<Bid>()
        .filter(|bid| bid.price > 0)
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("bids"), max(col("price")).alias("top_price")])
        .drop_late()
        .window(Tumbling::of(secs(10)))
        .top(3, "bids")
        .drop_late()
        .select(["window_start", "rank", "auction", "bids", "top_price"].map(col))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(report) => {
            summary(&report);
            if report.stopped { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
        }
        Err(error @ windrow::Error::Aborted { .. }) => {
            eprintln!("{error}");
            // Not by way of main: the runtime would wait for a write that may never return.
            std::process::exit(INTERRUPTED.into())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> windrow::Result<Report> {
    let job = Job::new("hot-items").parallelism(args.parallelism);
    let nexmark = nexmark(args.events, args.rate, args.parallelism.max(1), args.seed);
    let rows = hot_items(&job, nexmark);
    if args.watch && std::io::stdout().is_terminal() {
        // They would be written over the view.
        rows.discard();
    } else {
        rows.sink(Console::new());
    }
    let job = args.serve.into_iter().fold(job, Job::serve);
    if args.watch {
        return job.watch().run().await;
    }
    eprintln!("{job}");

    let running = job.start().await?;
    if let Some(served) = running.served() {
        eprintln!("look at {}", served.url());
    }
    let progress = tokio::spawn(progress(running.handle()));
    let report = running.wait().await;
    progress.abort();
    // The progress line has no line end of its own.
    eprintln!();
    report
}

/// A line on stderr: rewritten in place on a terminal, where the next table covers it; one per second elsewhere.
async fn progress(job: JobHandle) {
    let terminal = std::io::stderr().is_terminal();
    let mut tick = tokio::time::interval(if terminal { millis(200) } else { secs(1) });
    let (mut former, mut at) = (0, Duration::ZERO);
    // The first tick comes at once, when there is no rate to speak of.
    tick.tick().await;
    loop {
        tick.tick().await;
        let (events, now) = (events(&job), job.elapsed());
        let rate = (events - former) as f64 / (now - at).as_secs_f64().max(0.001);
        (former, at) = (events, now);
        let line = format!("{events:>12} events  {rate:>12.0} events/s  watermark lag {}", lag(&job));
        let mut stderr = std::io::stderr().lock();
        // A progress line that cannot be written is not worth failing for.
        let _ = if terminal { write!(stderr, "{line}\x1b[K\r") } else { writeln!(stderr, "{line}") };
    }
}

fn events(job: &JobHandle) -> u64 {
    job.metrics().named("source").map(|source| source.rows_in).sum()
}

/// How far the windows are behind the latest event, in event time.
fn lag(job: &JobHandle) -> String {
    let metrics = job.metrics();
    let latest = metrics.named("source").filter_map(|source| source.latest).max();
    let watermark = metrics.named("window tumbling").filter_map(|window| window.watermark).min();
    match (latest, watermark) {
        (Some(latest), Some(watermark)) if watermark < Timestamp::MAX => {
            format!("{:.1} s", latest.micros().saturating_sub(watermark.micros()) as f64 / 1e6)
        }
        _ => "-".into(),
    }
}

fn summary(report: &Report) {
    let events: u64 = report.metrics.named("source").map(|source| source.rows_in).sum();
    let seconds = report.elapsed.as_secs_f64();
    let how = if report.stopped { "stopped, open windows gave no result" } else { "done" };
    eprintln!("{}", report.metrics);
    eprintln!("{how}: {events} events (bids) in {seconds:.1} s, {:.0} events/s", events as f64 / seconds);
}
