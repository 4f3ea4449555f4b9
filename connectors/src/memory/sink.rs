//! A sink that keeps what is written, and knows what was published.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;

use crate::{Result, Sink, SinkWriter};

/// Collects the rows of all tasks. A clone is another handle to the same rows, so a test keeps one and gives the
/// other to the job.
///
/// Rows become visible in [`batches`](Self::batches) when their writer finishes, as with real sinks; a job that was
/// aborted has published nothing. [`written`](Self::written) shows also the others.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::{MemorySink, Sink, SinkWriter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))])?;
///
/// let sink = MemorySink::new();
/// let mut writer = sink.writer(0, schema).await?;
/// writer.write(batch).await?;
/// assert_eq!(sink.rows(), 0);
/// writer.finish().await?;
/// assert_eq!(sink.rows(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    kept: Arc<Mutex<Kept>>,
}

/// What all writers have written, in the order in which it arrived.
#[derive(Debug, Default)]
struct Kept {
    writers: Vec<Writer>,
    batches: Vec<(WriterNumber, RecordBatch)>,
}

/// A writer, not a task: a job that is restarted has a second writer for the same task, and what the first one left
/// unfinished must stay invisible.
#[derive(Clone, Copy, Debug)]
struct WriterNumber(usize);

#[derive(Debug)]
struct Writer {
    task: usize,
    finished: bool,
}

impl Kept {
    fn is_visible(&self, writer: WriterNumber) -> bool {
        self.writers[writer.0].finished
    }
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// The batches of finished writers, in the order in which they were written.
    pub fn batches(&self) -> Vec<RecordBatch> {
        let kept = self.kept();
        kept.batches.iter().filter(|(writer, _)| kept.is_visible(*writer)).map(|(_, batch)| batch.clone()).collect()
    }

    /// The number of rows in [`batches`](Self::batches).
    pub fn rows(&self) -> usize {
        self.batches().iter().map(RecordBatch::num_rows).sum()
    }

    /// Removes and returns the batches of finished writers.
    pub fn take(&self) -> Vec<RecordBatch> {
        let mut kept = self.kept();
        let all = std::mem::take(&mut kept.batches);
        let (visible, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(writer, _)| kept.is_visible(*writer));
        kept.batches = rest;
        visible.into_iter().map(|(_, batch)| batch).collect()
    }

    /// All batches, also those whose writer has not finished and perhaps never will.
    pub fn written(&self) -> Vec<RecordBatch> {
        self.kept().batches.iter().map(|(_, batch)| batch.clone()).collect()
    }

    /// The tasks whose writers have finished, in ascending order; a task that finished twice is named twice.
    pub fn finished(&self) -> Vec<usize> {
        let mut tasks: Vec<usize> =
            self.kept().writers.iter().filter(|writer| writer.finished).map(|writer| writer.task).collect();
        tasks.sort_unstable();
        tasks
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    async fn writer(&self, task: usize, _schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let mut kept = self.kept();
        let number = WriterNumber(kept.writers.len());
        kept.writers.push(Writer { task, finished: false });
        Ok(Box::new(MemoryWriter { sink: self.clone(), number }))
    }
}

struct MemoryWriter {
    sink: MemorySink,
    number: WriterNumber,
}

#[async_trait]
impl SinkWriter for MemoryWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.sink.kept().batches.push((self.number, batch));
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.sink.kept().writers[self.number.0].finished = true;
        Ok(())
    }
}
