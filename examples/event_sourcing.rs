//! The log is the truth, balances are derived: rebuilt by replaying it, now or as of any point in time.
//!
//! ```text
//!   log/*.jsonl: opened, deposited, withdrawn
//!        │ replay, in the order of event time
//!        └─► at <= --until ─► +cents or -cents ─► per account: sum, count, last ─► table of balances
//! ```
//!
//! Nothing but the log is kept. A replay gives the same table each time, at any parallelism, because what counts is in the
//! events and not in the order or the speed at which they are read. The example shows it by replaying twice.
//!
//! ```sh
//! cargo run --release --example event_sourcing -- --until 2026-01-02T00:00:00Z
//! ```

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Parser;
use windrow::prelude::*;

/// Rebuilds the balances of accounts from a log of events.
#[derive(Parser, Debug)]
struct Args {
    /// The directory of the log, `*.jsonl`; without it a log is written to a temporary one
    #[arg(long)]
    log: Option<PathBuf>,
    /// Balances as of this time, in RFC 3339
    #[arg(long, default_value = "2026-01-02T12:00:00Z", value_parser = humantime::parse_rfc3339)]
    until: SystemTime,
}

/// What has happened to an account. An event is never changed; a mistake is corrected by a further one.
#[derive(Record, Clone, Debug)]
pub struct AccountEvent {
    pub account: String,
    /// `opened`, `deposited` or `withdrawn`.
    pub kind: String,
    pub cents: i64,
    pub at: Timestamp,
}

/// What an event does to the balance.
#[derive(Record)]
pub struct Change {
    account: String,
    cents: i64,
    at: Timestamp,
}

/// The balances as of `until`, as changes by `account`: `balance`, `events`, `last`.
pub fn balances(job: &Job, log: &Path, until: Timestamp) -> Stream<Untyped> {
    job.source(File::pattern(log.join("*.jsonl").to_string_lossy()).json::<AccountEvent>())
        .event_time("at", Watermarks::in_order())
        .fail_on_rejects()
        .filter(move |event| event.at <= until)
        .map(|event| {
            let cents = match event.kind {
                "withdrawn" => -event.cents,
                _ => event.cents,
            };
            Change { account: event.account.to_string(), cents, at: event.at }
        })
        .key_by("account")
        .aggregate([sum(col("cents")).alias("balance"), count().alias("events"), max(col("at")).alias("last")])
}

/// Three days of events of five accounts, one file a day.
pub fn history() -> Vec<Vec<AccountEvent>> {
    const START: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z
    let event = |day: i64, n: i64| AccountEvent {
        account: ["ada", "bob", "cleo", "dan", "eve"][(n % 5) as usize].into(),
        kind: match n {
            n if day == 0 && n < 5 => "opened",
            n if n * 7 % 3 == 0 => "withdrawn",
            _ => "deposited",
        }
        .into(),
        cents: if day == 0 && n < 5 { 0 } else { n * 7_919 % 10_000 },
        at: Timestamp::from_micros((START + day * 86_400 + n * 86) * 1_000_000),
    };
    (0..3).map(|day| (0..1_000).map(|n| event(day, n)).collect()).collect()
}

/// Writes the log, as the service that owns it would.
pub fn write_log(log: &Path) -> std::io::Result<()> {
    for (day, events) in history().into_iter().enumerate() {
        let line = |e: AccountEvent| {
            format!("{{\"account\":{:?},\"kind\":{:?},\"cents\":{},\"at\":\"{}\"}}\n", e.account, e.kind, e.cents, e.at)
        };
        std::fs::write(log.join(format!("day-{day}.jsonl")), events.into_iter().map(line).collect::<String>())?;
    }
    Ok(())
}

async fn replay(log: &Path, until: Timestamp, parallelism: usize) -> Result<String, Box<dyn Error>> {
    let (job, table) = (Job::new("balances").parallelism(parallelism), MemoryTable::new());
    balances(&job, log, until).sink(table.clone());
    job.run().await?;
    Ok(table.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let log = match &args.log {
        Some(log) => log.as_path(),
        None => {
            write_log(temporary.path())?;
            temporary.path()
        }
    };
    let until = args.until.duration_since(SystemTime::UNIX_EPOCH)?;
    let until = Timestamp::default() + until;

    let now = replay(log, Timestamp::MAX, 1).await?;
    println!("now:\n{now}\n\nas of {until}:\n{}", replay(log, until, 1).await?);
    let same = replay(log, Timestamp::MAX, 4).await? == now;
    println!("\nreplayed again, by four tasks: {}", if same { "the same" } else { "NOT the same" });
    Ok(())
}
