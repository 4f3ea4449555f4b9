//! Ctrl-C and SIGTERM, as the system sends them. A binary of its own: the signal reaches every job of the process.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{process::Command, sync::Arc};

use async_trait::async_trait;
use tests::TOO_LONG;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use windrow::{
    Error, JobHandle,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
};

fn send(signal: &str) {
    let kill = Command::new("kill").args([signal, &std::process::id().to_string()]).status();
    assert!(kill.unwrap().success());
}

/// A sink whose first write never returns.
#[derive(Clone, Default)]
struct Stuck(Arc<Notify>);

#[async_trait]
impl Sink for Stuck {
    fn name(&self) -> String {
        "stuck".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Stuck {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        self.0.notify_one();
        std::future::pending().await
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

async fn until_it_writes(job: &JobHandle) {
    while job.metrics().named("sink").all(|sink| sink.rows_in == 0) {
        tokio::task::yield_now().await;
    }
}

/// One test, because both parts hear each other's signals. On one thread a task that was spawned has been polled, and so
/// listens, by the time another gives way.
#[test]
fn the_first_interrupt_stops_cleanly_and_the_second_aborts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let interrupts = async {
        // From here on neither ends the process.
        tokio::spawn(tokio::signal::ctrl_c());
        let _terminate = signal(SignalKind::terminate()).unwrap();
        for first in ["-INT", "-TERM"] {
            let (job, out) = (Job::new("endless").parallelism(2), MemorySink::new());
            job.source(Sequence::endless().splits(2)).sink(out.clone());
            let running = job.start().await.unwrap();
            let handle = running.handle();
            let waiting = tokio::spawn(running.wait());
            until_it_writes(&handle).await;
            send(first);
            let report = waiting.await.unwrap().unwrap();
            assert!(report.stopped);
            assert_eq!(
                report.metrics.operators[0].rows_in,
                out.rows() as u64,
                "what was read is written and published"
            );
            assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
        }

        let (job, stuck) = (Job::new("stuck"), Stuck::default());
        job.source(Sequence::endless()).sink(stuck.clone());
        let waiting = tokio::spawn(job.start().await.unwrap().wait());
        stuck.0.notified().await;
        while !waiting.is_finished() {
            send("-TERM");
            tokio::task::yield_now().await;
        }
        assert!(matches!(waiting.await.unwrap(), Err(Error::Aborted { job }) if job == "stuck"));
    };
    runtime.block_on(async { tokio::time::timeout(TOO_LONG, interrupts).await }).expect("it hangs");
}
