//! What a sink is: a place that makes a writer for each task.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;

use crate::Result;

/// A place that rows go to.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// What to call it in messages and in the printed graph: `console`, `file out/`.
    fn name(&self) -> String;

    /// Whether rows with this schema can be written. Asked before the first row is read; the error says which column
    /// cannot be written and why.
    fn accepts(&self, schema: &SchemaRef) -> Result<()>;

    /// How many writers may work side by side. 1 for a sink whose rows share one stream, such as the console.
    fn max_writers(&self) -> usize {
        usize::MAX
    }

    /// The writer of task number `task`, for batches of `schema`.
    async fn writer(&self, task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>>;
}

/// Writes the rows of one task.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes a batch. It may be buffered until [`SinkWriter::finish`].
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Makes visible and durable all that was written; the last call. A writer that is dropped without it publishes
    /// nothing that a reader could take for complete.
    async fn finish(&mut self) -> Result<()>;
}
