//! The job process: a scenario as a Windrow job, run until it ends, and an exit code that says how it ended.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;
use tests::process;
use windrow::{
    Restarts, RunningJob,
    connectors::{File, TimePartition, Untyped, file::FileSource},
    prelude::*,
};

use super::{
    pacing::{Interruptible, Paced},
    scenario::{Answer, Format, Output, Partitions, Scenario, Second, Source, Step, What},
};

/// The name of the job, and of its folder in the store.
pub(crate) const JOB: &str = "crash";

/// What a job process is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChildArgs {
    /// From which the scenario is drawn.
    #[arg(long)]
    pub(crate) seed: u64,
    /// The directory of the run.
    #[arg(long)]
    pub(crate) place: PathBuf,
    #[arg(long, default_value_t = 1)]
    pub(crate) parallelism: usize,
    /// Between two checkpoints, in milliseconds; what the scenario says unless told.
    #[arg(long)]
    pub(crate) interval: Option<u64>,
    /// When to start, in milliseconds since 1970.
    #[arg(long)]
    pub(crate) start_at: Option<u64>,
    /// The sources end only when there is this file.
    #[arg(long)]
    pub(crate) held_until: Option<PathBuf>,
    /// Takes this savepoint ...
    #[arg(long)]
    pub(crate) savepoint: Option<String>,
    /// ... after so many milliseconds ...
    #[arg(long, default_value_t = 0)]
    pub(crate) savepoint_after: u64,
    /// ... and stops.
    #[arg(long)]
    pub(crate) stop: bool,
}

/// An event as the job knows it.
#[derive(Record, Clone, Debug)]
struct Event {
    id: i64,
    user: i64,
    country: String,
    amount: i64,
    at: Timestamp,
}

/// Runs the job.
pub(crate) fn run(args: &ChildArgs) -> ExitCode {
    let scenario = Scenario::new(args.seed);
    wait_until(args.start_at);
    process::run(work(&scenario, args))
}

fn wait_until(start_at: Option<u64>) {
    let due = Duration::from_millis(start_at.unwrap_or_default());
    while SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|now| now < due) {
        std::hint::spin_loop();
    }
}

/// Returns whether the job was stopped before its end.
async fn work(scenario: &Scenario, args: &ChildArgs) -> windrow::Result<bool> {
    let running: RunningJob = build(scenario, args).start().await?;
    let Some(savepoint) = &args.savepoint else { return running.wait().await.map(|report| report.stopped) };
    let handle = running.handle();
    let ask = async {
        tokio::time::sleep(Duration::from_millis(args.savepoint_after)).await;
        match args.stop {
            true => handle.stop_with_savepoint(savepoint).await,
            false => handle.savepoint(savepoint).await,
        }
    };
    let (ended, asked) = tokio::join!(running.wait(), ask);
    match asked {
        Ok(epoch) => println!("savepoint {epoch}"),
        // The job ended before it was asked.
        Err(error) => println!("{error}"),
    }
    ended.map(|report| report.stopped)
}

/// The job of a scenario.
fn build(scenario: &Scenario, args: &ChildArgs) -> Job {
    let place = &args.place;
    let interval = args.interval.map_or(scenario.interval, Duration::from_millis);
    let job = Job::new(JOB)
        .parallelism(args.parallelism)
        .channel_bytes(scenario.channel_bytes)
        .checkpoint(place.join("store").display().to_string(), interval)
        // A failure must show.
        .restarts(Restarts::never());
    let sources = scenario.sources.iter().enumerate().map(|(index, source)| {
        let paced =
            Paced { inner: files(source, index, place), pause: source.pause, held_until: args.held_until.clone() };
        let watermarks = Watermarks::out_of_order(micros(scenario.bound));
        job.source(paced).event_time("at", watermarks).fail_on_rejects()
    });
    let stream = sources.reduce(Stream::union);
    let Some(stream) = stream else { return job };
    let rows = scenario.steps.iter().fold(stream, apply);
    if scenario.outputs.iter().any(|output| output.what == What::Rows) {
        write(scenario, place, What::Rows, rows.clone().select(["id", "user", "country", "amount", "at"].map(col)));
    }
    let (answer, late) = answer(&scenario.answer, rows);
    write(scenario, place, What::Answer, answer);
    if let Some(late) = late {
        match scenario.outputs.iter().any(|output| output.what == What::Late) {
            true => write(scenario, place, What::Late, late.select(["id", "user", "country", "amount", "at"].map(col))),
            false => late.discard(),
        }
    }
    job
}

fn files(source: &Source, index: usize, place: &Path) -> FileSource<Event> {
    let pattern = format!("{}/in/{index}/*", place.display());
    let files = File::pattern(pattern).batch_rows(source.batch_rows);
    if source.format == Format::Csv { files.csv() } else { files.json() }
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

fn apply(stream: Stream<Event>, step: &Step) -> Stream<Event> {
    let amount_as = |amount: Expr| [col("id"), col("user"), col("country"), amount.alias("amount"), col("at")];
    match *step {
        Step::KeepAmounts { divisor, but } => stream.filter_expr((col("amount") % lit(divisor)).not_eq(lit(but))),
        Step::KeepUsers { divisor, but } => stream.filter(move |event| event.user % divisor != but),
        Step::Multiply { by } => stream.select(amount_as(col("amount") * lit(by))).typed(),
        Step::Add { term } => stream.map(move |event| Event {
            id: event.id,
            user: event.user,
            country: event.country.to_string(),
            amount: event.amount + term,
            at: event.at,
        }),
        Step::Copy { copies } => stream.flat_map(move |event| {
            let count = if event.user % copies == 0 { 0 } else { copies };
            let copy = |copy| Event {
                id: event.id * 4 + copy,
                user: event.user + copy,
                country: event.country.to_string(),
                amount: event.amount,
                at: event.at,
            };
            (0..count).map(copy).collect::<Vec<_>>()
        }),
    }
}

/// The answer, and what came too late for it.
fn answer(answer: &Answer, rows: Stream<Event>) -> (Stream<Untyped>, Option<Stream<Event>>) {
    match answer {
        Answer::Rows => (rows.select(["id", "user", "country", "amount", "at"].map(col)), None),
        Answer::Greatest { key, size, n } => {
            let (greatest, late) = windows(rows, key, *size).top(*n, "id").with_late();
            let columns = ["window_start", "rank", "id", "user", "country", "amount", "at"];
            (greatest.select(columns.map(col)), Some(late))
        }
        Answer::Groups { key, size, then } => {
            let aggregates = [
                count().alias("n"),
                sum(col("amount")).alias("total"),
                max(col("id")).alias("top_id"),
                avg(col("amount")).alias("mean"),
            ];
            let (groups, late) = windows(rows, key, *size).aggregate(aggregates).with_late();
            let columns = |first: &[&str], key: &[&'static str], rest: &[&str]| {
                first.iter().chain(key).chain(rest).map(|name| col(*name)).collect::<Vec<_>>()
            };
            let answer = match then {
                None => groups.select(columns(&["window_start"], key, &["n", "total", "top_id", "mean"])),
                Some(Second::Sums { key, size }) => {
                    let sums = [count().alias("groups"), sum(col("n")).alias("n"), sum(col("total")).alias("total")];
                    let sums = windows(groups, key, *size).aggregate(sums).drop_late();
                    sums.select(columns(&["window_start"], key, &["groups", "n", "total"]))
                }
                Some(Second::Greatest { key: second, size, n }) => {
                    let groups = groups.select(columns(&[], key, &["n", "total", "top_id", "mean"]));
                    let greatest = windows(groups, second, *size).top(*n, "top_id").drop_late();
                    greatest.select(columns(&["window_start", "rank"], key, &["n", "total", "top_id", "mean"]))
                }
            };
            (answer, Some(late))
        }
    }
}

fn windows<T: 'static>(stream: Stream<T>, key: &[&str], size: i64) -> windrow::api::Windowed<T> {
    let window = Tumbling::of(micros(size));
    if key.is_empty() {
        return stream.window(window);
    }
    stream.key_by(key.iter().map(ToString::to_string).collect::<Vec<_>>()).window(window)
}

/// Adds the sinks that write `what`.
fn write(scenario: &Scenario, place: &Path, what: What, stream: Stream<Untyped>) {
    let wanted: Vec<&Output> = scenario.outputs.iter().filter(|output| output.what == what).collect();
    for output in wanted {
        let directory = File::directory(place.join(output.directory));
        let sink = match output.format {
            Format::Json => directory.json(),
            Format::Csv => directory.csv(),
            Format::Parquet => directory.parquet(),
        };
        let sink = match output.partitions {
            Partitions::None => sink,
            Partitions::Column(column) => sink.partition_by([column]),
            Partitions::Hourly(column) => sink.partition_by_time(column, TimePartition::Hourly),
            Partitions::Daily(column) => sink.partition_by_time(column, TimePartition::Daily),
        };
        let sink = output.roll_bytes.map_or(sink.clone(), |bytes| sink.roll_bytes(bytes));
        stream.clone().sink(Interruptible(sink));
    }
}
