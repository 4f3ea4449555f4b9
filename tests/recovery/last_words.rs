//! A task that passes a barrier and then ends, while the checkpoint of that barrier is still under way: what it said at
//! its end belongs to the next checkpoint.

use std::sync::Arc;

use async_trait::async_trait;
use tests::TOO_LONG;
use tokio::sync::{Notify, watch};
use windrow::{
    Restarts,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
};

/// A sink that stages nothing before it is told to.
#[derive(Clone)]
struct Slow {
    open: watch::Receiver<bool>,
    waits: Arc<Notify>,
}

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> String {
        "slow".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Slow {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        self.waits.notify_one();
        self.open.wait_for(|open| *open).await.expect("the test is there");
        Ok(Vec::new())
    }
}

fn batch(times: &[i64]) -> RecordBatch {
    let n = Int64Array::from_iter_values(times.iter().copied());
    let at = Timestamp::column(times.iter().map(|t| t * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("at", at)]).unwrap()
}

/// On one thread: when the test goes on after it gave way, every task has got as far as it could.
#[test]
fn the_last_word_of_a_task_is_saved_with_the_next_checkpoint() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let store = tempfile::tempdir().unwrap();
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
        let (open, opened) = watch::channel(true);
        let slow = Slow { open: opened, waits: Arc::default() };
        // A restart would hide the failure.
        let job = Job::new("last-words").restarts(Restarts::never());
        let job = job.checkpoint(store.path().to_str().unwrap(), hours(1));
        job.source(source)
            .event_time("at", Watermarks::in_order())
            .key_by("n")
            .window(Tumbling::of(secs(1_000)))
            .aggregate([count()])
            .drop_late()
            .sink(slow.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let waiting = tokio::spawn(running.wait());
        let until_taken = async |rows: u64| {
            while handle.metrics().named("window").all(|window| window.rows_in < rows) {
                tokio::task::yield_now().await;
            }
        };
        input.push(0, batch(&[1, 2]));
        until_taken(2).await;
        handle.savepoint("open").await.unwrap();

        open.send_replace(false);
        input.push(0, batch(&[3]));
        until_taken(3).await;
        // A permit may be left of the checkpoints before.
        let left = async { slow.waits.notified().await };
        let _ = tokio::time::timeout(millis(1), left).await;
        let asking = handle.clone();
        let saving = tokio::spawn(async move { asking.savepoint("under-way").await });
        slow.waits.notified().await;
        input.push(0, batch(&[4]));
        until_taken(4).await;
        handle.stop();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        open.send_replace(true);
        saving.await.unwrap().unwrap();
        assert!(waiting.await.unwrap().unwrap().stopped);
    };
    runtime.block_on(async { tokio::time::timeout(TOO_LONG, test).await }).expect("it hangs");
}
