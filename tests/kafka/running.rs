//! Jobs at work, and what their topics say.
//!
//! ```text
//!   while_running(job, act): start ──► act: produce, kill, look, until(…) ──► stop ──► Report
//!                                  └── the job fails meanwhile: its error, at once
//! ```

use std::{
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{broker::verify::Record, on_two_threads};
use windrow::{JobHandle, Report, metrics::OperatorMetrics, prelude::*};

/// Nothing that a test waits for takes nearly so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "after {PATIENCE:?} still not so: {what}");
        tokio::time::sleep(millis(10)).await;
    }
}

/// Does something while a job runs, which is stopped then. Returns early when the job ends by itself.
pub(crate) fn while_running(job: Job, act: impl AsyncFnOnce(&JobHandle)) -> windrow::Result<Report> {
    on_two_threads(async {
        let running = job.start().await?;
        let handle = running.handle();
        let mut ended = pin!(running.wait());
        tokio::select! {
            ended = &mut ended => return ended,
            () = act(&handle) => handle.stop(),
        }
        ended.await
    })
}

/// The source of a job that has one.
pub(crate) fn source(job: &JobHandle) -> OperatorMetrics {
    job.metrics().named("source").next().cloned().expect("a source")
}

/// Waits until the source has read so many records since the last start.
pub(crate) async fn has_read(job: &JobHandle, records: u64) {
    until(&format!("{records} records are read"), || source(job).rows_in >= records).await;
}

/// Every row is accounted for, and the source has seen so many, and rejected so many of them.
pub(crate) fn accounted(report: &Report, read: u64, rejected: u64) {
    assert!(report.metrics.operators.iter().all(OperatorMetrics::balances), "{}", report.metrics);
    let sources: Vec<_> = report.metrics.named("source").map(|source| (source.rows_in, source.rejected)).collect();
    assert_eq!(sources, [(read, rejected)], "{}", report.metrics);
}

/// The values of records, sorted.
pub(crate) fn values(records: &[Record]) -> Vec<String> {
    let mut values: Vec<String> = records.iter().map(Record::text).collect();
    values.sort_unstable();
    values
}

/// The value of a record that is JSON.
pub(crate) fn json(record: &Record) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).unwrap_or_else(|why| panic!("{why}: {record:?}"))
}

/// Where a job keeps its checkpoints.
pub(crate) fn store(place: &Path) -> String {
    place.to_str().expect("a path of text").to_owned()
}
