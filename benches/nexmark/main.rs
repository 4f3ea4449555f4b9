//! Nexmark, measured: events per second, cores, memory and a checksum of the answer, per query.
//!
//! ```sh
//! cargo run --release -p benches --bin nexmark -- --queries q5,q7 --events 20000000 --parallelism 2
//! ```
//!
//! All events are made before the first clock starts, about 260 bytes for each; `--inline-source` makes them in the job instead, which
//! costs more than most queries. Events per second count events of all kinds, also those that a query does not read.

use std::process::ExitCode;

use benches::nexmark::{
    Events, Measured, Site, measure,
    queries::{ALL, Query, named},
};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs queries of the Nexmark suite and prints what they cost.
#[derive(Parser, Debug)]
struct Args {
    /// Which queries: q0 to q22, kt; all unless told
    #[arg(long, value_delimiter = ',', value_parser = query)]
    queries: Vec<Query>,
    /// Events of all kinds together
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Tasks per operator, and splits per source
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallelism: u16,
    /// How often each query is run
    #[arg(long, default_value_t = 1)]
    repetitions: usize,
    /// Events per second of event time: how many there are in a window
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    event_rate: u64,
    /// So many events at a time are shuffled; 1 leaves them in order
    #[arg(long, default_value_t = 1, value_parser = shuffled)]
    shuffled: u64,
    /// Another seed gives other events
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Makes the events as the job reads them
    #[arg(long)]
    inline_source: bool,
    /// Prints one JSON object per query and repetition, and no table
    #[arg(long)]
    json: bool,
}

fn query(name: &str) -> Result<Query, String> {
    let names = || ALL.map(|query| query.name).join(", ");
    named(name).ok_or_else(|| format!("there are {}", names()))
}

fn shuffled(group: &str) -> Result<u64, String> {
    match group.parse() {
        Ok(group) if group > 0 && group % 953 != 0 => Ok(group),
        _ => Err("a number of events from 1 on, but no multiple of 953".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let parallelism = usize::from(args.parallelism);
    let events = Events {
        count: args.events,
        seed: args.seed,
        rate: args.event_rate,
        shuffled: args.shuffled,
        splits: parallelism,
        ..Events::default()
    };
    let site = if args.inline_source { Site::inline(events)? } else { Site::ready(events)? };
    let queries = if args.queries.is_empty() { ALL.to_vec() } else { args.queries };
    if !args.json {
        println!(
            "{} events, {} MiB of them ready in memory, parallelism {parallelism}",
            args.events,
            site.bytes() >> 20
        );
        println!("{HEAD}");
    }
    for query in queries {
        for _ in 0..args.repetitions {
            let measured = measure(query, &site, parallelism).await?;
            let line = if args.json { serde_json::to_string(&measured)? } else { row(query, &measured) };
            println!("{line}");
        }
    }
    Ok(())
}

const HEAD: &str = "query   M events/s  seconds  cores  peak MiB        rows              checksum";

fn row(query: Query, measured: &Measured) -> String {
    let Measured { query: name, seconds, rate, cores, peak_bytes, rows, checksum, .. } = measured;
    let cores = cores.map_or("-".into(), |cores| format!("{cores:.2}"));
    let peak = peak_bytes.map_or("-".into(), |bytes| (bytes >> 20).to_string());
    let rate = rate / 1e6;
    format!("{name:<6} {rate:>11.3} {seconds:>8.2} {cores:>6} {peak:>9} {rows:>11} {checksum:>21}  {}", query.about)
}
