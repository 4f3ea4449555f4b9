//! The job process: a scenario as a Windrow job between topics, run until it ends, and an exit code that says how it ended.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tests::process;
use windrow::{connectors::Untyped, prelude::*};

use super::scenario::{IN, Join, MORE, Scenario};

/// What a job process prints when its job has taken over and runs.
pub(crate) const RUNNING: &str = "running";

/// What a job process is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChildArgs {
    /// From which the scenario is drawn.
    #[arg(long)]
    pub(crate) seed: u64,
    /// The directory of the run.
    #[arg(long)]
    pub(crate) place: PathBuf,
    #[arg(long)]
    pub(crate) brokers: String,
    /// The name of the job, with which the names of its topics begin.
    #[arg(long)]
    pub(crate) job: String,
    #[arg(long, default_value_t = 1)]
    pub(crate) parallelism: usize,
    /// How long a transaction may stay open, in milliseconds.
    #[arg(long)]
    pub(crate) transaction_timeout: u64,
    /// How often the job starts itself again without progress.
    #[arg(long, default_value_t = 0)]
    pub(crate) restarts: u32,
    /// How often it looks for new partitions, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) discovery: u64,
    /// It ends where the input ends.
    #[arg(long)]
    pub(crate) bounded: bool,
}

/// An event as the job knows it.
#[derive(Record, Clone, Debug)]
struct Event {
    id: i64,
    user: i64,
    amount: i64,
    at: Timestamp,
}

/// Runs the job.
pub(crate) fn run(args: &ChildArgs) -> ExitCode {
    process::run(async {
        let running = build(&Scenario::new(args.seed), args).start().await?;
        println!("{RUNNING}");
        running.wait().await.map(|report| report.stopped)
    })
}

/// The job of a scenario.
fn build(scenario: &Scenario, args: &ChildArgs) -> Job {
    let name = &args.job;
    let kafka = Kafka::brokers(&args.brokers).transaction_timeout(Duration::from_millis(args.transaction_timeout));
    let job = Job::new(name)
        .parallelism(args.parallelism)
        .checkpoint(args.place.join("store").display().to_string(), scenario.interval)
        .restarts(Restarts::at_most(args.restarts).waiting(millis(20)..=millis(500)));
    let read = |topic: &str| {
        let input = kafka.topic(format!("{name}.{topic}")).group(name).batch_rows(scenario.batch_rows);
        let input = input.discover_every(Duration::from_millis(args.discovery));
        let input = if args.bounded { input.bounded() } else { input };
        let watermarks = Watermarks::out_of_order(Duration::from_micros(scenario.bound.unsigned_abs()));
        job.source(input.json::<Event>()).event_time("at", watermarks).with_rejects()
    };
    let (events, rejected) = read(IN);
    let (divisor, but) = (scenario.divisor, scenario.but);
    let kept = events.filter(move |event| event.amount % divisor != but);
    let topic = |topic: &str| {
        let output = kafka.to_topic(format!("{name}.{topic}"));
        if scenario.keyed { output.key("user") } else { output }.json().exactly_once()
    };
    let columns = || ["id", "user", "amount"].map(col);
    let rows = kept.clone().select(columns());
    let dead = kafka.to_topic(format!("{name}.dead")).dead_letters().exactly_once();
    if let Some(join) = scenario.join {
        let (more, more_rejected) = read(MORE);
        rejected.union(more_rejected).sink(dead);
        rows.union(more.clone().select(columns())).sink(topic("rows"));
        pairs(join, kept, more).sink(topic("answers"));
    } else {
        rejected.sink(dead);
        rows.sink(topic("rows"));
        windows(scenario, kept).sink(topic("answers"));
    }
    job
}

fn windows(scenario: &Scenario, events: Stream<Event>) -> Stream<Untyped> {
    events
        .key_by("user")
        .window(Tumbling::of(Duration::from_micros(scenario.window.unsigned_abs())))
        .aggregate([
            count().alias("n"),
            sum(col("amount")).alias("total"),
            min(col("id")).alias("first"),
            max(col("id")).alias("last"),
        ])
        // None is.
        .drop_late()
        .select(["user", "n", "total", "first", "last"].map(col))
}

fn pairs(join: Join, events: Stream<Event>, more: Stream<Event>) -> Stream<Untyped> {
    let more = more.select([col("user").alias("other"), col("id").alias("partner")]);
    let [before, after] = [join.before, join.after].map(|span| Duration::from_micros(span.unsigned_abs()));
    let near = events.key_by("user").join(more.key_by("other")).within(before, after);
    // None is late.
    near.drop_late().select(["user", "id", "partner"].map(col))
}
