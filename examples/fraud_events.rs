//! Orders and payments for the example `fraud`: makes the topics, unless they are there, and fills them.
//!
//! ```text
//!   0, 1, 2, … ─┬─► an order ──────────────────────────────────────────────► orders
//!               ├─► its payment, up to a second later; 2 % do not fit ─────► payments
//!               └─► 1 %: the amount in another field, and now and then in none ─► payments
//! ```
//!
//! ```sh
//! cargo run --release --example fraud_events -- localhost:9092
//! ```
//!
//! Events have the time of now. Run it as often as you like: every run makes orders of its own.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    types::RDKafkaErrorCode,
};
use windrow::{Report, prelude::*};

/// Writes orders and payments, some of which do not fit each other and some of which do not decode.
#[derive(Parser, Debug)]
struct Args {
    /// Where a broker listens
    #[arg(default_value = "localhost:9092")]
    brokers: String,
    /// For how long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Orders per second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
}

#[derive(Record)]
pub struct Number {
    value: i64,
    at: Timestamp,
}

#[derive(Record)]
pub struct Order {
    order: i64,
    cents: i64,
    country: String,
    at: Timestamp,
}

#[derive(Record)]
pub struct Payment {
    order: i64,
    paid: i64,
    card_country: String,
    paid_at: Timestamp,
}

/// As the new version of the shop writes it: `"euros":12.5`, and not `"paid":1250`.
#[derive(Record)]
pub struct PaymentInEuros {
    order: i64,
    euros: Option<f64>,
    card_country: String,
    paid_at: Timestamp,
}

const COUNTRIES: [&str; 7] = ["AT", "CH", "DE", "ES", "FR", "IT", "PL"];

/// A number that looks as if it were drawn.
fn draw(value: i64, below: i64) -> i64 {
    (value + 1).wrapping_mul(6_364_136_223_846_793_005).rotate_right(33).rem_euclid(below)
}

fn country(value: i64) -> String {
    COUNTRIES[(value % 7) as usize].into()
}

/// Its time is the number of an order: no other run makes the same.
fn order(value: i64, at: Timestamp) -> Order {
    Order { order: at.micros(), cents: 500 + draw(value, 50_000), country: country(value), at }
}

fn payment(value: i64, at: Timestamp) -> Payment {
    let Order { order, cents, country: home, .. } = order(value, at);
    let other_amount = matches!(value % 400, 3 | 103 | 203 | 303 | 7);
    let other_country = value % 100 == 5;
    Payment {
        order,
        paid: if other_amount { cents - 100 } else { cents },
        card_country: if other_country { country(value + 1) } else { home },
        paid_at: at + millis(draw(value, 1_000) as u64),
    }
}

fn payment_in_euros(value: i64, at: Timestamp) -> PaymentInEuros {
    let Payment { order, paid, card_country, paid_at } = payment(value, at);
    let euros = (value % 1_000 != 7).then_some(paid as f64 / 100.0);
    PaymentInEuros { order, euros, card_country, paid_at }
}

/// Writes an order for each number, and its payment.
pub async fn fill(kafka: &Kafka, orders: &str, payments: &str, numbers: Sequence) -> windrow::Result<Report> {
    let job = Job::new("fraud-events");
    let numbers = job.source(numbers).fail_on_rejects().typed::<Number>();
    let in_euros = |value: i64| value % 100 == 7;
    numbers.clone().map(|n| order(n.value, n.at)).sink(kafka.to_topic(orders).key("order").json());
    let (old, new) = (numbers.clone().filter(move |n| !in_euros(n.value)), numbers.filter(move |n| in_euros(n.value)));
    old.map(|n| payment(n.value, n.at)).sink(kafka.to_topic(payments).key("order").json());
    new.map(|n| payment_in_euros(n.value, n.at)).sink(kafka.to_topic(payments).key("order").json());
    job.run().await
}

/// Topics are made by whoever runs the cluster, so Windrow does not: this is librdkafka. Leaves those alone that are there.
async fn make_topics(brokers: &str, topics: &[&str]) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set_log_level(RDKafkaLogLevel::Emerg);
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|error| error.to_string())?;
    // As many copies as the cluster gives by itself.
    let new: Vec<_> = topics.iter().map(|topic| NewTopic::new(topic, 4, TopicReplication::Fixed(-1))).collect();
    let made = admin.create_topics(&new, &AdminOptions::new().request_timeout(Some(secs(10)))).await;
    for made in made.map_err(|error| format!("no topics could be made at {brokers}: is a broker there? ({error})"))? {
        match made {
            Ok(topic) => eprintln!("made topic {topic}"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(format!("topic {topic} could not be made: {code}")),
        }
    }
    Ok(())
}

async fn run(args: &Args) -> Result<Report, String> {
    make_topics(&args.brokers, &["orders", "payments", "fraud.alerts", "fraud.dead"]).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let numbers = Sequence::new(args.seconds * args.rate)
        .rate(args.rate)
        .start(now.as_micros() as i64)
        .step((1_000_000 / args.rate) as i64);
    eprintln!("{} orders a second for {} s …", args.rate, args.seconds);
    let filled = fill(&Kafka::brokers(&args.brokers), "orders", "payments", numbers).await;
    filled.map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(report) => {
            let written: u64 = report.metrics.named("sink").map(|sink| sink.rows_out).sum();
            println!("{written} records written");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
