//! Sources hear how far they are final, after the output of a checkpoint is visible; and cannot hold the job up by that.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tests::on_two_threads;
use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{Position, Result, Source, SourceReader, SplitId, TypedSource, Untyped},
    prelude::*,
};

use super::lives::place;

/// What a source was told, and how many rows were visible then.
type Told = Arc<Mutex<Vec<(Vec<(SplitId, Position)>, usize)>>>;

/// Numbers in two splits.
struct Listens {
    inner: Sequence,
    told: Told,
    out: MemorySink,
    answers: bool,
}

#[async_trait]
impl Source for Listens {
    fn name(&self) -> String {
        "listens".into()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.inner.schema()
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        Source::splits(&self.inner).await
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        self.inner.reader(assigned).await
    }

    async fn checkpointed(&self, positions: &[(SplitId, Position)]) {
        self.told.lock().unwrap().push((positions.to_vec(), self.out.rows()));
        if !self.answers {
            std::future::pending().await
        }
    }
}

impl TypedSource for Listens {
    type Row = Untyped;
}

fn listening(answers: bool, store: Option<&str>) -> (Job, Told) {
    let (told, out) = (Told::default(), MemorySink::new());
    let job = Job::new("told");
    let source = Listens { inner: Sequence::new(1_000).splits(2), told: told.clone(), out: out.clone(), answers };
    job.source(source).event_time("at", Watermarks::in_order()).sink(out);
    let job = match store {
        Some(store) => job.checkpoint(store, hours(1)).checkpoint_timeout(secs(1)),
        None => job,
    };
    (job, told)
}

#[test]
fn a_source_hears_of_positions_when_their_output_is_visible() {
    on_two_threads(async {
        let directory = place();
        let (job, told) = listening(true, directory.path().to_str());
        job.run().await.unwrap();
        let told = told.lock().unwrap();
        assert!(told.len() > 1, "at the beginning and at the end: {told:?}");
        let (positions, visible) = told.last().unwrap();
        assert_eq!(positions.len(), 2);
        assert_eq!(*visible, 1_000);
        let read: u64 = positions.iter().map(|(_, position)| position.0).sum();
        assert!(read >= 1_000, "{positions:?}");
    });
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_listen_holds_nothing_up() {
    let directory = place();
    let (job, told) = listening(false, directory.path().to_str());
    let began = tokio::time::Instant::now();
    job.run().await.unwrap();
    assert!(told.lock().unwrap().len() > 1);
    assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
}

#[test]
fn without_checkpoints_there_is_nothing_to_tell() {
    let (job, told) = listening(true, None);
    tests::run(job).unwrap();
    assert!(told.lock().unwrap().is_empty());
}
