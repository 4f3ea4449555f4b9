//! Connectors of the job process: a file source that takes its time, so that kills land in the middle, and a file sink
//! that can be interrupted between two files of one commit.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{
        ConnectorError, Epoch, Fetch, Incarnation, Position, Receipt, Sink, SinkWriter, Source, SourceReader, SplitId,
        TypedSource, file::FileSink,
    },
    crash_point,
};

type Result<T, E = ConnectorError> = std::result::Result<T, E>;

/// How long a reader that is held waits before it looks again.
const LOOK: Duration = Duration::from_millis(2);

/// Delivers what another source delivers, but waits before each fetch, and ends only when it is allowed to.
pub(crate) struct Paced<S> {
    pub(crate) inner: S,
    pub(crate) pause: Duration,
    /// The source does not end before there is a file of this name.
    pub(crate) held_until: Option<PathBuf>,
}

#[async_trait]
impl<S: Source> Source for Paced<S> {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.inner.schema()
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        self.inner.splits().await
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        let inner = self.inner.reader(assigned).await?;
        let (pause, held_until) = (self.pause, self.held_until.clone());
        Ok(Box::new(PacedReader { inner, pause, held_until, due: Instant::now() + pause }))
    }
}

impl<S: TypedSource> TypedSource for Paced<S> {
    type Row = S::Row;
}

struct PacedReader {
    inner: Box<dyn SourceReader>,
    pause: Duration,
    held_until: Option<PathBuf>,
    /// When the next fetch begins. Kept here, because a fetch that is given up has waited all the same.
    due: Instant,
}

#[async_trait]
impl SourceReader for PacedReader {
    async fn fetch(&mut self) -> Result<Fetch> {
        tokio::time::sleep_until(self.due.into()).await;
        // The file reader has no await point: nothing is taken and then given up.
        let fetched = self.inner.fetch().await?;
        self.due = Instant::now() + self.pause;
        if matches!(fetched, Fetch::End) {
            // Given up here, it finds the end once more.
            while self.held_until.as_ref().is_some_and(|file| !file.exists()) {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(fetched)
    }
}

/// A file sink with points where the process can end: around a stage, and, where a point is wanted at all, between two
/// files of one commit.
pub(crate) struct Interruptible(pub(crate) FileSink);

#[async_trait]
impl Sink for Interruptible {
    fn name(&self) -> String {
        self.0.name()
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        self.0.accepts(schema)
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let inner = self.0.writer(incarnation, task, schema).await?;
        Ok(Box::new(InterruptibleWriter(inner)))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        // Otherwise at once, as the sink does.
        let files = if std::env::var_os("WINDROW_CRASH_POINT").is_some() { 1 } else { receipts.len().max(1) };
        for receipts in receipts.chunks(files) {
            crash_point("K10 file");
            self.0.commit(receipts).await?;
        }
        Ok(())
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        crash_point("K13 R6 clean");
        self.0.clean(incarnation).await
    }
}

struct InterruptibleWriter(Box<dyn SinkWriter>);

#[async_trait]
impl SinkWriter for InterruptibleWriter {
    async fn write(&mut self, batch: windrow::arrow::array::RecordBatch) -> Result<()> {
        self.0.write(batch).await
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        crash_point("K3 stage");
        let staged = self.0.stage(epoch).await;
        crash_point("K3 staged");
        staged
    }
}
