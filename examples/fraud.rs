//! Orders and payments in, alerts out, exactly once; what cannot be read waits in a dead-letter topic.
//!
//! ```text
//!   orders ───► by order ──┐
//!                          ├─ windows of 10 s: same order, other amount or other country ─► fraud.alerts ┐ one transaction
//!   payments ─► by order ──┘                                                                             │ per checkpoint
//!      └── records that do not decode, of both ────────────────────────────────────────► fraud.dead      ┘
//! ```
//!
//! Two commands, against any broker, in any order; `fraud_events` makes the topics, for which this one waits, and fills them for half
//! a minute:
//!
//! ```sh
//! cargo run --release --example fraud_events -- localhost:9092
//! cargo run --release --example fraud -- localhost:9092
//! ```
//!
//! Stop it with Ctrl-C or `kill -9`, and start it again, also with another `--parallelism`: it goes on. A consumer that asks for
//! committed records (`isolation.level=read_committed`) sees every alert once. The last windows stay open until later events come.
//!
//! The dead letters are payments of a new version of the shop, which writes euros where cents were. `--redrive` reads them again, by
//! a reader that knows the new form, against the same orders, up to where the topics end. Done again it does nothing: the job has
//! ended. Letters of a later day are re-driven with `--redrive=2026-12-24T00:00:00Z`: those of payments that were written since then.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{
    convert::Infallible,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use windrow::{
    JobHandle, Report,
    connectors::{ConnectorError, Source, kafka::KafkaSink},
    metrics::OperatorMetrics,
    prelude::*,
};

/// Finds payments that do not fit their order.
#[derive(Parser, Debug)]
struct Args {
    /// Where a broker listens
    #[arg(default_value = "localhost:9092")]
    brokers: String,
    /// Where the checkpoints go: each Kafka cluster needs a directory of its own
    #[arg(long, default_value = "target/fraud")]
    checkpoints: String,
    /// Tasks per operator: may differ from start to start
    #[arg(long, default_value_t = 2)]
    parallelism: usize,
    /// Reads dead letters again: all, or those of payments written since a time, in RFC 3339
    #[arg(long, value_name = "SINCE", num_args = 0..=1, require_equals = true, default_missing_value = "1970-01-01T00:00:00Z",
        value_parser = humantime::parse_rfc3339)]
    redrive: Option<SystemTime>,
    /// Serve a page and an API at this address while it runs: 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    serve: Option<String>,
}

#[derive(Record)]
pub struct Order {
    pub order: i64,
    pub cents: i64,
    pub country: String,
    pub at: Timestamp,
}

#[derive(Record)]
pub struct Payment {
    pub order: i64,
    pub paid: i64,
    pub card_country: String,
    pub paid_at: Timestamp,
}

/// As the new version of the shop writes it.
#[derive(Record)]
pub struct PaymentInEuros {
    pub order: i64,
    pub euros: f64,
    pub card_country: String,
    pub paid_at: Timestamp,
}

/// Where everything is.
pub struct Topics {
    pub orders: String,
    pub payments: String,
    pub alerts: String,
    pub dead: String,
}

impl Default for Topics {
    fn default() -> Self {
        let [orders, payments, alerts, dead] =
            ["orders", "payments", "fraud.alerts", "fraud.dead"].map(|topic| topic.to_string());
        Self { orders, payments, alerts, dead }
    }
}

/// How far out of order the events of a partition come. The others go on without one that gets none any more, after longer than a
/// broker may be away: what is written there then is not late when it is back.
pub fn disorder() -> Watermarks {
    Watermarks::out_of_order(secs(2)).idle_after(mins(5))
}

/// The payments that do not fit their order. A payment is compared with orders of its window only: `.within(secs(0), secs(30))`
/// instead of `.window(…)` would be the join for whoever pays later than that.
pub fn compare(orders: Stream<Order>, payments: Stream<Payment>) -> Stream<Untyped> {
    orders
        .key_by("order")
        .join(payments.key_by("order"))
        .condition(col("paid").not_eq(col("cents")).or(col("card_country").not_eq(col("country"))))
        .window(Tumbling::of(secs(10)))
        .drop_late() // and count them
        .select(["order", "cents", "paid", "country", "card_country", "paid_at"].map(col))
}

/// What a payment in euros is in cents.
pub fn in_cents(payments: Stream<PaymentInEuros>) -> Stream<Payment> {
    payments.map(|payment| Payment {
        order: payment.order,
        paid: (payment.euros * 100.0).round() as i64,
        card_country: payment.card_country.to_owned(),
        paid_at: payment.paid_at,
    })
}

/// The job that always runs.
pub fn find(job: &Job, kafka: &Kafka, topics: &Topics) {
    // The group is for tools that watch how far the job is: nobody reads the positions from there.
    let orders = kafka.topic(&topics.orders).group("fraud").json::<Order>();
    let payments = kafka.topic(&topics.payments).group("fraud").json::<Payment>();
    let (orders, bad_orders) = job.source(orders).event_time("at", disorder()).with_rejects();
    let (payments, bad_payments) = job.source(payments).event_time("paid_at", disorder()).with_rejects();
    // All that is written by sinks of one connection becomes visible in one step, together with the checkpoint.
    compare(orders, payments).sink(alerts(kafka, topics));
    bad_orders.union(bad_payments).sink(kafka.to_topic(&topics.dead).dead_letters().exactly_once());
}

/// The job that reads dead letters again, of all payments that were written `since`, in milliseconds. What still does not decode is counted
/// and stays where it is.
pub fn redrive(job: &Job, kafka: &Kafka, topics: &Topics, since: i64) {
    let orders = kafka.topic(&topics.orders).bounded().json::<Order>();
    let letters = kafka.topic(&topics.dead).from(Start::Millis(since)).bounded().json::<PaymentInEuros>();
    let orders = job.source(orders).event_time("at", disorder()).drop_rejects();
    // Letters lie in the order in which they were met, which is that of several partitions.
    let letters = job.source(letters).event_time("paid_at", Watermarks::out_of_order(hours(1))).drop_rejects();
    compare(orders, in_cents(letters)).sink(alerts(kafka, topics));
}

fn alerts(kafka: &Kafka, topics: &Topics) -> KafkaSink {
    kafka.to_topic(&topics.alerts).key("order").json().exactly_once()
}

async fn run(args: &Args) -> windrow::Result<Report> {
    let (kafka, topics) = (Kafka::brokers(&args.brokers), Topics::default());
    let since = args.redrive.map(|since| since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64));
    let name = since.map_or("fraud".to_string(), |since| format!("fraud-redrive-{since}"));
    let job = Job::new(name).parallelism(args.parallelism).checkpoint(&args.checkpoints, secs(2));
    match since {
        Some(since) => redrive(&job, &kafka, &topics, since),
        None => find(&job, &kafka, &topics),
    }
    eprintln!("{job}");
    wait_for_topics(&kafka, &topics).await?;

    let job = args.serve.iter().fold(job, |job, address| job.serve(address.as_str()));
    let running = job.start().await?;
    if let Some(served) = running.served() {
        eprintln!("look at {}", served.url());
    }
    let (handle, mut told) = (running.handle(), Vec::new());
    let report = tokio::select! {
        report = running.wait() => report?,
        never = progress(&handle, &mut told) => match never {},
    };
    tell(&report.warnings, &mut told);
    Ok(report)
}

/// They are made by `fraud_events`.
async fn wait_for_topics(kafka: &Kafka, topics: &Topics) -> windrow::Result<()> {
    let source = kafka.topics([&topics.orders, &topics.payments]).raw();
    eprintln!("looking for {} …", source.name());
    loop {
        match source.splits().await {
            Ok(_) => return Ok(()),
            Err(ConnectorError::Config(missing)) => eprintln!("{missing}; waiting for fraud_events"),
            Err(error) => return Err(windrow::Error::Source { operator: "the topics".into(), error }),
        }
        tokio::time::sleep(secs(2)).await;
    }
}

/// A line every two seconds, if there is anything new.
async fn progress(job: &JobHandle, told: &mut Vec<String>) -> Infallible {
    let (mut tick, mut former) = (tokio::time::interval(secs(2)), String::new());
    loop {
        tick.tick().await;
        let line = counts(job);
        if line != former {
            eprintln!("{line}");
            former = line;
        }
        tell(&job.warnings(), told);
    }
}

/// The warnings that were not told yet.
fn tell(warnings: &[String], told: &mut Vec<String>) {
    for warning in warnings {
        if !told.contains(warning) {
            eprintln!("warning: {warning}");
            told.push(warning.clone());
        }
    }
}

/// What was read and written since the job was started, and what waits to be read.
fn counts(job: &JobHandle) -> String {
    let metrics = job.metrics();
    let sum = |part: &str, count: fn(&OperatorMetrics) -> u64| metrics.named(part).map(count).sum::<u64>();
    let [read, behind, dead] = [
        sum("source", |source| source.rows_in),
        sum("source", |source| source.lag.unwrap_or(0)),
        sum("source", |source| source.rejected),
    ];
    let (late, alerts) = (sum("join", |join| join.late), sum("select", |select| select.rows_out));
    format!("{read:>8} read  {behind:>8} behind  {alerts:>6} alerts  {dead:>6} dead letters  {late:>4} late")
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(report) => {
            eprintln!("{}", report.metrics);
            if !report.stopped {
                return ExitCode::SUCCESS;
            }
            eprintln!("stopped with a checkpoint: start it again, and it goes on");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
