//! Nexmark, measured: events per second, cores, memory, latencies and a checksum of the answer, per query.
//!
//! ```sh
//! cargo run --release -p benches --bin nexmark -- --queries q5,q7 --events 20000000 --parallelism 1,2 --latency
//! cargo run --release -p benches --bin nexmark -- --queries q5 --distinct-auctions 50000000 --memory-budget 256MiB --parallelism 2
//! ```
//!
//! All events are made before the first clock starts, about 260 bytes for each; `--inline-source` makes them in the job instead, which
//! costs more than most queries. Events per second count events of all kinds, also those that a query does not read.

use std::{fs, path::PathBuf, process::ExitCode};

use benches::{
    nexmark::{
        Distinct, Events, Measured, Settings, Site, Sum,
        measure::{self, Result},
        pace::Latency,
        picture::{self, Bar},
        queries::{ALL, Query, named},
    },
    threads,
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
    /// Tasks per operator, splits per source, and threads that run them: one after another
    #[arg(long, value_delimiter = ',', default_values_t = [1], value_parser = clap::value_parser!(u16).range(1..=256))]
    parallelism: Vec<u16>,
    /// How often each query is measured, after a first run that takes the checksum
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
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
    /// Also measures how long results take, at half of the rate of the run before
    #[arg(long, conflicts_with_all = ["inline_source", "shuffled", "distinct_auctions"])]
    latency: bool,
    /// Measures how long results take with so many events offered per second
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["inline_source", "shuffled", "distinct_auctions"])]
    rate: Option<u64>,
    /// Bytes of state that a job may hold in memory: 268435456, or 256MiB
    #[arg(long, value_parser = bytes)]
    memory_budget: Option<usize>,
    /// Runs q5 over bids for so many auctions, whose answer is known, and fails when it is another one
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["events", "event_rate", "shuffled", "seed"])]
    distinct_auctions: Option<u64>,
    /// Prints one JSON object per query and repetition, and no table
    #[arg(long)]
    json: bool,
    /// Also draws the rates into this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn query(name: &str) -> std::result::Result<Query, String> {
    let names = || ALL.map(|query| query.name).join(", ");
    named(name).ok_or_else(|| format!("there are {}", names()))
}

fn shuffled(group: &str) -> std::result::Result<u64, String> {
    match group.parse() {
        Ok(group) if group > 0 && group % 953 != 0 => Ok(group),
        _ => Err("a number of events from 1 on, but no multiple of 953".into()),
    }
}

fn bytes(text: &str) -> std::result::Result<usize, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
    let (number, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift))).unwrap_or((text, &0));
    let bytes = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a number of bytes, or one of KiB, MiB or GiB: 256MiB".into())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let (site, known) = site(&args)?;
    let queries = match (&known, args.queries.as_slice()) {
        (None, []) => ALL.to_vec(),
        (Some(_), []) => named("q5").into_iter().collect(),
        (Some(_), queries) if queries.iter().any(|query| query.name != "q5") => {
            return Err("--distinct-auctions has bids for q5 alone: leave out the other queries".into());
        }
        (_, queries) => queries.to_vec(),
    };
    if !args.json {
        println!("{} events, {} MiB of them ready in memory", site.events().count, site.bytes() >> 20);
        println!("{HEAD}");
    }
    let mut bars = Vec::new();
    for query in &queries {
        for parallelism in &args.parallelism {
            let settings = Settings { parallelism: usize::from(*parallelism), memory_budget: args.memory_budget };
            let runs = runs(&args, query, &site.splits(settings.parallelism), settings, known)?;
            if !args.json {
                println!("{}", row(query, &runs));
            }
            bars.push(Bar { query: query.name.into(), parallelism: settings.parallelism, rates: rates(&runs) });
        }
    }
    if let Some(file) = &args.svg {
        let title = format!("Windrow, Nexmark: million events per second, of {} events", site.events().count);
        fs::write(file, picture::svg(&title, &bars)).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// What the queries read, and what q5 has to say of it if that is known.
fn site(args: &Args) -> Result<(Site, Option<Sum>)> {
    if let Some(auctions) = args.distinct_auctions {
        let bids = Distinct::new(auctions);
        let answer = Sum::of(&bids.q5()?)?;
        return Ok((Site::distinct(bids)?, Some(answer)));
    }
    let events = Events {
        count: args.events,
        seed: args.seed,
        rate: args.event_rate,
        shuffled: args.shuffled,
        ..Events::default()
    };
    Ok((if args.inline_source { Site::inline(events)? } else { Site::ready(events)? }, None))
}

/// The measured runs of a query; as JSON they are printed at once.
fn runs(args: &Args, query: &Query, site: &Site, settings: Settings, known: Option<Sum>) -> Result<Vec<Measured>> {
    // Tasks of a job may overlap at any parallelism: threads are what makes it so many cores.
    let runtime = threads(settings.parallelism)?;
    let answer = match known {
        Some(answer) => answer,
        None => runtime.block_on(measure::answer(query, site, settings))?,
    };
    let mut runs = Vec::new();
    for repetition in 1..=args.repeat as usize {
        let mut measured = match known {
            Some(expected) => runtime.block_on(measure::measure_known(query, site, settings, repetition, expected))?,
            None => runtime.block_on(measure::measure(query, site, settings, repetition, answer))?,
        };
        if args.latency || args.rate.is_some() {
            let rate = args.rate.map_or(measured.rate / 2.0, |rate| rate as f64);
            measured.latency = runtime.block_on(measure::latency(query, site, settings, rate))?;
        }
        if args.json {
            println!("{}", serde_json::to_string(&measured)?);
        }
        runs.push(measured);
    }
    Ok(runs)
}

const HEAD: &str = "\
query  tasks  M events/s (least - most)    seconds  cores  peak MiB  disk MiB        rows          checksum  p50 ms  p99 ms  p99.9 ms";

/// Medians of the runs.
fn row(query: &Query, runs: &[Measured]) -> String {
    let [least, rate, most] = rates(runs).map(|rate| rate / 1e6);
    let of = |figure: fn(&Measured) -> Option<f64>| median(runs.iter().filter_map(figure).collect());
    let shown = |figure: Option<f64>, digits: usize| figure.map_or("-".into(), |figure| format!("{figure:.digits$}"));
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let percentile =
        |of: fn(Latency) -> f64| shown(median(runs.iter().filter_map(|run| run.latency.map(of)).collect()), 2);
    let (seconds, cores) = (shown(of(|run| Some(run.seconds)), 2), shown(of(|run| run.cores), 2));
    let peak = shown(of(|run| run.peak_bytes.map(|bytes| bytes as f64)).map(|bytes| mebibytes(bytes as u64)), 0);
    let disk = shown(of(|run| Some(run.spilled_bytes as f64)).map(|bytes| mebibytes(bytes as u64)), 0);
    let (rows, checksum) = runs.first().map_or((0, String::new()), |run| (run.rows, run.checksum.to_string()));
    let tasks = runs.first().map_or(0, |run| run.parallelism);
    let (p50, p99, p999) = (percentile(|l| l.p50), percentile(|l| l.p99), percentile(|l| l.p999));
    let spread = format!("{rate:.3} ({least:.3} - {most:.3})");
    format!(
        "{:<6} {tasks:>5}  {spread:<26} {seconds:>8} {cores:>6} {peak:>9} {disk:>9} {rows:>11}  {checksum:>16} {p50:>7} {p99:>7} \
         {p999:>9}  {}",
        query.name, query.about
    )
}

/// The slowest run, the median, the fastest.
fn rates(runs: &[Measured]) -> [f64; 3] {
    let rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
    let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rates.iter().copied().fold(0.0, f64::max);
    [least, median(rates).unwrap_or_default(), most]
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => Some((figures.get(middle.checked_sub(1)?)? + figures.get(middle)?) / 2.0),
        _ => figures.get(middle).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_medians() {
        assert_eq!(bytes("268435456"), Ok(256 << 20));
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("1 GiB"), Ok(1 << 30));
        assert!(bytes("a lot").is_err() && bytes("99999999999999999999GiB").is_err());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
