//! Rows for small exact examples: two streams, `user, amount, at` and `other, paid, since`, given at once or fed by hand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tests::rows;
use windrow::{
    JobHandle, Report, RunningJob,
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    connectors::{Rejected, memory::MemoryInput},
    operators,
    prelude::*,
};

/// A row of the first stream.
#[derive(Record, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Click {
    pub(crate) user: i64,
    pub(crate) amount: i64,
    pub(crate) at: Timestamp,
}

/// A row of the second stream.
#[derive(Record, Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) other: i64,
    pub(crate) paid: i64,
    pub(crate) since: Timestamp,
}

/// Of a row: its key, its value, and its time in seconds.
pub(crate) type Row = (i64, i64, i64);

const CLICKS: [&str; 3] = ["user", "amount", "at"];
const PAYMENTS: [&str; 3] = ["other", "paid", "since"];

fn batch(names: [&str; 3], rows: &[Row]) -> RecordBatch {
    let column = |of: fn(&Row) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let times = Timestamp::column(rows.iter().map(|row| row.2 * 1_000_000).collect());
    RecordBatch::try_from_iter(names.into_iter().zip([column(|row| row.0), column(|row| row.1), times])).unwrap()
}

/// Clicks in batches of one row.
pub(crate) fn clicks(job: &Job, rows: &[Row]) -> Stream<Click> {
    let splits = vec![rows.iter().map(|row| batch(CLICKS, &[*row])).collect()];
    let source = job.source(MemorySource::new(batch(CLICKS, &[]).schema(), splits));
    source.event_time("at", Watermarks::out_of_order(hours(1))).fail_on_rejects().typed()
}

/// Payments in batches of one row.
pub(crate) fn payments(job: &Job, rows: &[Row]) -> Stream<Payment> {
    let splits = vec![rows.iter().map(|row| batch(PAYMENTS, &[*row])).collect()];
    let source = job.source(MemorySource::new(batch(PAYMENTS, &[]).schema(), splits));
    source.event_time("since", Watermarks::out_of_order(hours(1))).fail_on_rejects().typed()
}

/// The hand that feeds a stream, of rows that come in order.
pub(crate) struct Hand {
    input: MemoryInput,
    source: MemorySource,
    names: [&'static str; 3],
}

impl Hand {
    pub(crate) fn of_clicks() -> Self {
        Self::new(CLICKS)
    }

    pub(crate) fn of_payments() -> Self {
        Self::new(PAYMENTS)
    }

    fn new(names: [&'static str; 3]) -> Self {
        let (input, source) = MemorySource::by_hand(batch(names, &[]).schema(), 1);
        Self { input, source, names }
    }

    /// The stream, without event time yet.
    pub(crate) fn source<T: operators::typed::Record>(&self, job: &Job) -> Stream<T> {
        job.source(self.source.clone()).fail_on_rejects().typed()
    }

    /// The stream. Its watermark is the time of its newest row.
    pub(crate) fn timed<T: operators::typed::Record>(&self, job: &Job) -> Stream<T> {
        let source = job.source(self.source.clone()).event_time(self.names[2], Watermarks::in_order());
        source.fail_on_rejects().typed()
    }

    /// The same, and the records that are rejected.
    pub(crate) fn with_rejects<T: operators::typed::Record>(&self, job: &Job) -> (Stream<T>, Stream<Untyped>) {
        let source = job.source(self.source.clone()).event_time(self.names[2], Watermarks::in_order());
        let (rows, rejected) = source.with_rejects();
        (rows.typed(), rejected)
    }

    /// Gives a record that is none, of a line.
    pub(crate) fn reject(&self, line: u64, reason: &str) {
        let position = Some(windrow::connectors::Position(line));
        self.input.reject(0, Rejected { position, line: Some(line), bytes: Some(Vec::new()), ..Rejected::of(reason) });
    }

    /// Gives rows, and waits until nothing moves any more: on a paused clock that is when it leaps.
    pub(crate) async fn push(&self, rows: &[Row]) {
        self.give(rows);
        tokio::time::sleep(secs(1)).await;
    }

    /// Gives rows.
    pub(crate) fn give(&self, rows: &[Row]) {
        self.input.push(0, batch(self.names, rows));
    }

    pub(crate) fn end(&self) {
        self.input.end_all();
    }
}

/// What has been written, committed or not.
pub(crate) fn written(out: &MemorySink) -> Vec<String> {
    rows(&out.written())
}

/// Waits for the end of a job whose rows must all be accounted for.
pub(crate) async fn ended(running: RunningJob) -> Report {
    let report = running.wait().await.unwrap();
    balanced(&report);
    report
}

pub(crate) fn balanced(report: &Report) {
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

/// The bytes of state of the operators whose name holds `name`.
pub(crate) fn state_bytes(job: &JobHandle, name: &str) -> u64 {
    let metrics = job.metrics();
    let found = metrics.operators.iter().filter(|operator| operator.operator.contains(name));
    let bytes: Vec<u64> = found.map(|operator| operator.state_bytes).collect();
    assert!(!bytes.is_empty(), "{name} in {metrics}");
    bytes.iter().sum()
}

/// How many rows were late at the operators whose name holds `name`.
pub(crate) fn late_at(report: &Report, name: &str) -> u64 {
    let operators = report.metrics.operators.iter();
    operators.filter(|operator| operator.operator.contains(name)).map(|operator| operator.late).sum()
}
