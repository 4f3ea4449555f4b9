//! A sink that keeps what is written, and shows what was committed.
//!
//! ```text
//!   write ──► Written ──stage──► Staged(receipt) ──commit──► Committed     batches(), rows(), take()
//!                └───────────────────┴── clean, by a later generation: forgotten
//! ```
//!
//! It outlives the job that writes to it. So a test that lets a job crash and starts it again on the same sink sees
//! what a user of files or topics would see, and sees it fail if receipts are lost, forgotten or made up.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;

use crate::{ConnectorError, Epoch, Incarnation, Receipt, Result, Sink, SinkWriter};

/// Collects the rows of all tasks. A clone is another handle to the same rows, so a test keeps one and gives the
/// other to the job.
///
/// Rows become visible in [`batches`](Self::batches) when they are committed, as with real sinks; a job that was
/// aborted has published nothing since its last checkpoint. [`written`](Self::written) shows also the others.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::{Epoch, Incarnation, MemorySink, Sink, SinkWriter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))])?;
///
/// let sink = MemorySink::new();
/// let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
/// let mut writer = sink.writer(&incarnation, 0, schema).await?;
/// writer.write(batch).await?;
/// let receipts = writer.stage(Epoch(1)).await?;
/// assert_eq!(sink.rows(), 0);
/// sink.commit(&receipts).await?;
/// sink.commit(&receipts).await?; // again, as after a crash
/// assert_eq!(sink.rows(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What all writers have written, in the order in which it arrived.
    pieces: Vec<Piece>,
    /// Every receipt that was ever committed: its rows may have been taken since, and to commit it again is no error.
    committed: HashSet<Receipt>,
    writers: usize,
}

/// A batch and what has become of it.
#[derive(Debug)]
struct Piece {
    writer: WriterId,
    state: State,
    batch: RecordBatch,
}

/// A writer, not a task: a job that is restarted has a second writer for the same task, and what the first one left
/// must not be mistaken for what the second one writes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WriterId {
    incarnation: Incarnation,
    task: usize,
    /// Counts the writers of the sink.
    number: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Written,
    Staged(Receipt),
    Committed,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// The committed batches, in the order in which they were written.
    pub fn batches(&self) -> Vec<RecordBatch> {
        let kept = self.kept();
        let committed = kept.pieces.iter().filter(|piece| piece.state == State::Committed);
        committed.map(|piece| piece.batch.clone()).collect()
    }

    /// The number of rows in [`batches`](Self::batches).
    pub fn rows(&self) -> usize {
        self.batches().iter().map(RecordBatch::num_rows).sum()
    }

    /// Removes and returns the committed batches.
    pub fn take(&self) -> Vec<RecordBatch> {
        let taken = self.kept().pieces.extract_if(.., |piece| piece.state == State::Committed).collect::<Vec<_>>();
        taken.into_iter().map(|piece| piece.batch).collect()
    }

    /// All batches, also those that are not committed and perhaps never will be.
    pub fn written(&self) -> Vec<RecordBatch> {
        self.kept().pieces.iter().map(|piece| piece.batch.clone()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn commit(&mut self, receipt: &Receipt) -> Result<()> {
        let mut known = self.committed.contains(receipt);
        for piece in &mut self.pieces {
            if matches!(&piece.state, State::Staged(staged) if staged == receipt) {
                piece.state = State::Committed;
                known = true;
            }
        }
        if !known {
            return Err(ConnectorError::Data {
                at: receipt.0.clone(),
                reason: "nothing is staged under this receipt. A memory sink keeps rows as long as its process lives, \
                         and until a later generation of the job cleans up"
                    .to_owned(),
            });
        }
        self.committed.insert(receipt.clone());
        Ok(())
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

    async fn writer(&self, incarnation: &Incarnation, task: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let mut kept = self.kept();
        let id = WriterId { incarnation: incarnation.clone(), task, number: kept.writers };
        kept.writers += 1;
        Ok(Box::new(MemoryWriter { sink: self.clone(), id }))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        let mut kept = self.kept();
        let mut result = Ok(());
        for receipt in receipts {
            result = result.and(kept.commit(receipt));
        }
        result
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        self.kept().pieces.retain(|piece| {
            let theirs = &piece.writer.incarnation;
            piece.state == State::Committed
                || theirs.job != incarnation.job
                || theirs.generation >= incarnation.generation
        });
        Ok(())
    }
}

struct MemoryWriter {
    sink: MemorySink,
    id: WriterId,
}

impl MemoryWriter {
    fn receipt(&self, epoch: Epoch) -> Receipt {
        let WriterId { incarnation: Incarnation { job, generation, nonce }, task, number } = &self.id;
        Receipt(format!(
            "memory: job {job}, generation {generation}, nonce {nonce:08x}, task {task}, writer {number}, epoch {epoch}"
        ))
    }
}

#[async_trait]
impl SinkWriter for MemoryWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            let piece = Piece { writer: self.id.clone(), state: State::Written, batch };
            self.sink.kept().pieces.push(piece);
        }
        Ok(())
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        let receipt = self.receipt(epoch);
        let mut kept = self.sink.kept();
        let mut receipts = Vec::new();
        for piece in &mut kept.pieces {
            if piece.state == State::Written && piece.writer == self.id {
                piece.state = State::Staged(receipt.clone());
                receipts = vec![receipt.clone()];
            }
        }
        Ok(receipts)
    }
}
