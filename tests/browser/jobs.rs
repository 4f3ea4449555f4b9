//! The jobs that the browser looks at, and what is common to starting and stopping them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tests::TOO_LONG;
use tokio::{runtime::Runtime, task::JoinHandle};
use windrow::{
    JobHandle, Report, RunningJob,
    arrow::{
        array::{ArrayRef, RecordBatch, StringArray},
        datatypes::SchemaRef,
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
};

/// Starts a job: with the address that it is served at, and the one to open.
pub(crate) fn served(runtime: &Runtime, job: Job) -> (RunningJob, String, String) {
    let running = runtime.block_on(job.start()).unwrap();
    let served = running.served().unwrap();
    let (host, url) = (served.address().to_string(), served.url());
    (running, host, url)
}

/// Stops a job, and waits for its end.
pub(crate) fn stop(runtime: &Runtime, handle: &JobHandle, ended: JoinHandle<windrow::Result<Report>>) {
    handle.stop();
    let report = runtime.block_on(async { tokio::time::timeout(TOO_LONG, ended).await });
    assert!(report.unwrap().unwrap().unwrap().stopped);
}

/// Counts numbers by the hour: an endless job, with checkpoints.
pub(crate) fn numbers(store: &str) -> Job {
    let job = Job::new("numbers").checkpoint(store, millis(200)).serve("127.0.0.1:0");
    job.source(Sequence::endless().rate(5_000))
        .id("numbers")
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(hours(1)))
        .aggregate([count()])
        .drop_late()
        .id("per-hour")
        .sink(MemorySink::new());
    job
}

/// A row of a second of event time.
pub(crate) fn second(second: i64) -> (i64, &'static str) {
    (second, "a row")
}

/// Rows with a text, each of a second of event time.
pub(crate) fn split_rows(rows: &[(i64, &str)]) -> RecordBatch {
    let n: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, text)| *text)));
    let at = Timestamp::column(rows.iter().map(|(second, _)| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

/// The first whole number of a text: `Records read\n1,234 (3.4 k/s)` is 1234.
pub(crate) fn whole(text: &str) -> u64 {
    let from = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[from..].chars().take_while(|c| c.is_ascii_digit() || *c == ',');
    number.filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// A sink that takes as long for a batch as it is told, while the job runs.
#[derive(Clone)]
pub(crate) struct Sluggish {
    name: &'static str,
    millis: Arc<AtomicU64>,
}

impl Sluggish {
    pub(crate) fn called(name: &'static str) -> Self {
        Self { name, millis: Arc::default() }
    }

    pub(crate) fn takes(&self, span: Duration) {
        self.millis.store(span.as_millis() as u64, SeqCst);
    }
}

#[async_trait]
impl Sink for Sluggish {
    fn name(&self) -> String {
        self.name.into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Sluggish {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        tokio::time::sleep(millis(self.millis.load(SeqCst))).await;
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}
