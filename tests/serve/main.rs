//! Jobs that are served over HTTP, asked over real connections: every route, and everybody who may not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod addresses;
mod bounds;
mod client;
mod refusals;
mod routes;
mod secrets;

use tests::TOO_LONG;
use windrow::{RunningJob, prelude::*};

use client::Client;

/// Numbers, a thousand a second, counted by key in windows of an hour; what comes too late is counted.
fn counts(name: &str, store: &str) -> Job {
    let job = Job::new(name).checkpoint(store, hours(1)).serve("127.0.0.1:0");
    job.source(Sequence::endless().rate(1_000))
        .event_time("at", Watermarks::in_order())
        .select([col("at"), (col("value") % lit(2)).alias("odd")])
        .key_by("odd")
        .window(Tumbling::of(hours(1)))
        .aggregate([count()])
        .drop_late()
        .sink(MemorySink::new());
    job
}

/// Numbers, and nothing to save.
fn numbers(name: &str) -> Job {
    let job = Job::new(name).serve("127.0.0.1:0");
    job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    job
}

/// Waits until it is so; in vain not as long as the whole test may take, so that it says for what.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waits = async {
        while !is() {
            tokio::time::sleep(millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(TOO_LONG / 2, waits).await.is_ok(), "in vain waited: {what}");
}

fn client(running: &RunningJob) -> Client {
    Client::of(running.served().unwrap())
}
