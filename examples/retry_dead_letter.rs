//! A service that fails: calls are tried again, and what fails for good waits in a dead-letter file for another run.
//!
//! ```text
//!   run 1   payments ────────────────────► charge(…)  ─ok───► receipts
//!                                          3 attempts ─failed─► dead/run-1/*.jsonl: the payment, error, attempts
//!                                                                    │
//!   run 2   dead/run-1/*.jsonl, read as payments ─────► charge(…) ─ok┴─► receipts
//!                                                                 ─failed─► dead/run-2/*.jsonl: never, somebody looks
//! ```
//!
//! The same job serves both runs: a dead letter has all columns of its row, so it is read as one again. A call is made at
//! least once, so the service must know a payment by its id and charge it once; the one here does.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use windrow::prelude::*;

/// How often a payment is tried within a run.
pub const ATTEMPTS: u32 = 3;

#[derive(Record, Clone, Debug)]
pub struct Payment {
    pub id: i64,
    pub cents: i64,
    pub at: Timestamp,
}

#[derive(Record)]
pub struct Receipt {
    id: i64,
    cents: i64,
    number: String,
}

/// A payment service of which one part is down, and which is shaky. A clone is the same service.
#[derive(Clone, Default)]
pub struct Service {
    /// How often each payment was tried.
    tried: Arc<Mutex<HashMap<i64, u32>>>,
    /// Whether the part that serves every fifth payment is down.
    down: bool,
}

impl Service {
    pub fn half_down() -> Self {
        Self { down: true, ..Self::default() }
    }

    async fn charge(self, id: i64, cents: i64) -> Result<String, String> {
        tokio::time::sleep(millis(1)).await;
        let tried = {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            let tried = tried.entry(id).or_default();
            *tried += 1;
            *tried
        };
        match id {
            _ if cents <= 0 => Err(format!("{cents} cents cannot be charged")),
            id if self.down && id % 5 == 0 => Err("503 service unavailable".into()),
            id if id % 3 == 0 && tried % ATTEMPTS != 0 => Err("timed out".into()),
            id => Ok(format!("R-{id:05}")),
        }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u32 {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// The receipts, and the dead letters.
pub fn charge<S>(job: &Job, payments: S, service: &Service) -> (Stream<Receipt>, Stream<Untyped>)
where
    S: TypedSource<Row = Payment>,
{
    let service = service.clone();
    job.source(payments)
        .event_time("at", Watermarks::out_of_order(secs(5)))
        .fail_on_rejects()
        .map_async(move |payment| {
            let (id, cents) = (payment.id, payment.cents);
            let call = service.clone().charge(id, cents);
            async move { call.await.map(|number| Receipt { id, cents, number }) }
        })
        .capacity(50)
        .timeout(secs(2))
        .retry(Retry::exponential(ATTEMPTS, millis(2)))
        .with_failed()
}

/// Payments, some of nothing.
pub fn payments() -> Vec<Payment> {
    let payment = |n: i64| Payment {
        id: n,
        cents: if n % 300 == 0 { 0 } else { n * 7_919 % 2_000 },
        at: Timestamp::from_micros(1_767_225_600_000_000 + n * 1_000),
    };
    (1..=1_000).map(payment).collect()
}

/// Charges payments, and says what came of it.
async fn run<S: TypedSource<Row = Payment>>(
    name: &str,
    payments: S,
    service: &Service,
    dead: impl Into<std::path::PathBuf>,
) -> windrow::Result<()> {
    let (job, receipts) = (Job::new(name), MemorySink::new());
    let (charged, failed) = charge(&job, payments, service);
    charged.sink(receipts.clone());
    failed.sink(File::directory(dead).json());
    let report = job.run().await?;
    let Some(calls) = report.metrics.named("async map").next() else { return Ok(()) };
    println!(
        "{name}: {} payments, {} charged in {} calls, {} dead letters",
        calls.rows_in,
        receipts.rows(),
        service.calls(),
        calls.failed
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let dead = |run: &str| directory.path().join("dead").join(run);
    let letters = |run: &str| dead(run).join("*.jsonl").to_string_lossy().into_owned();

    run("run-1", MemorySource::records(payments()), &Service::half_down(), dead("run-1")).await?;
    println!("the service is up again");
    run("run-2", File::pattern(letters("run-1")).json::<Payment>(), &Service::default(), dead("run-2")).await?;

    println!("left for somebody to look at:");
    let job = Job::new("left");
    // A schema of its own would do as well; this one takes what the files show.
    job.source(File::pattern(letters("run-2")).infer_json(100)?).sink(Console::new());
    job.run().await?;
    Ok(())
}
