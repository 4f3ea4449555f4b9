//! A checkpoint has one time limit, from its barrier to its last sink: the barrier and what follows cannot take it twice.

use std::time::Duration;

use async_trait::async_trait;
use windrow::{
    Error, Restarts,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{Epoch, Incarnation, Receipt, Result, Sink, SinkWriter},
    prelude::*,
};

use super::{
    hand::{Hand, click, read},
    witness::{Connection, Fate},
};

/// Takes its time, to stage and to publish.
#[derive(Clone)]
struct Slow(Duration);

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> String {
        "slow".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        if !receipts.is_empty() {
            tokio::time::sleep(self.0).await;
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Slow {
    async fn write(&mut self, _: RecordBatch) -> Result<()> {
        Ok(())
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        if epoch.0 > 1 {
            tokio::time::sleep(self.0).await;
        }
        Ok(vec![Receipt("slow".into())])
    }
}

#[tokio::test(start_paused = true)]
async fn the_barrier_and_what_follows_have_one_time_limit() {
    for (each, fits) in [(4, true), (6, false)] {
        let hand = Hand::new();
        let job = || {
            let job = hand.job(|rows, _| rows.select([col("amount")]).sink(Slow(secs(each))));
            job.checkpoint_timeout(secs(10))
        };
        hand.push(&[click(1, 1, 1)]);
        let running = read(job, 1).await.unwrap();
        // The first checkpoint publishes too.
        tokio::time::sleep(secs(9)).await;
        let handle = running.handle();
        let began = tokio::time::Instant::now();
        let saved = tokio::spawn(async move { handle.savepoint("now").await });
        if fits {
            saved.await.unwrap().unwrap();
            continue;
        }
        let error = running.wait().await.unwrap_err();
        assert!(matches!(error, Error::CheckpointTimeout { lowered: None, .. }), "{error}");
        assert_eq!(began.elapsed().as_secs(), 10, "{error}");
        assert!(error.to_string().ends_with("a sink that is to publish"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_never_comes_back_ends_at_the_limit_that_the_sink_allows() {
    let (hand, cluster) = (Hand::new(), Connection::new().longest(secs(900)));
    let job = || {
        let cluster = cluster.clone();
        let job = hand.job(|rows, out| rows.select([col("amount")]).sink(cluster.sink(&out)));
        job.checkpoint(hand.store(), secs(10)).restarts(Restarts::never())
    };
    cluster.reply([Fate::Fine, Fate::Never]);
    hand.push(&[click(1, 1, 1)]);
    let began = tokio::time::Instant::now();
    let error = read(job, 1).await.unwrap().wait().await.unwrap_err();
    assert!(matches!(&error, Error::CheckpointTimeout { lowered: Some(_), .. }), "{error}");
    assert_eq!(began.elapsed().as_secs(), 300);
    let said = error.to_string();
    for part in ["was not complete after 290s", "sink memory throws the rows", "open for 900s", "fit 3 times"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // The same process goes on after that.
    cluster.reply([Fate::Never]);
    let again = || job().restarts(Restarts::at_most(1));
    hand.push(&[click(1, 2, 2)]);
    let running = read(again, 2).await.unwrap();
    hand.input.end_all();
    running.wait().await.unwrap();
    assert_eq!(hand.rows(), ["1", "2"]);
}
