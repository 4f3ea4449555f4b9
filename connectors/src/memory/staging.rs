//! What the writers of a sink in memory have written, and what has become of it.
//!
//! ```text
//!   write ──► Written ──stage──► Staged(receipt) ──commit──► Committed
//!                └───────────────────┴── clean, by a later generation: forgotten
//! ```

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{ConnectorError, Epoch, Incarnation, Receipt, Result, SinkWriter};

/// What all writers of a sink have written.
#[derive(Debug, Default)]
pub(super) struct Staging {
    /// In the order in which it arrived.
    pieces: Vec<Piece>,
    /// Every receipt that was ever committed: to commit it again is no error and changes nothing.
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

impl Staging {
    /// Whether anyone has ever written.
    pub(super) fn has_writers(&self) -> bool {
        self.writers > 0
    }

    /// The batches that are committed.
    pub(super) fn committed(&self) -> Vec<RecordBatch> {
        let committed = self.pieces.iter().filter(|piece| piece.state == State::Committed);
        committed.map(|piece| piece.batch.clone()).collect()
    }

    /// Removes and returns them.
    pub(super) fn take_committed(&mut self) -> Vec<RecordBatch> {
        let taken = self.pieces.extract_if(.., |piece| piece.state == State::Committed);
        taken.map(|piece| piece.batch).collect()
    }

    /// All batches.
    pub(super) fn all(&self) -> Vec<RecordBatch> {
        self.pieces.iter().map(|piece| piece.batch.clone()).collect()
    }

    fn writer(&mut self, incarnation: &Incarnation, task: usize) -> WriterId {
        self.writers += 1;
        WriterId { incarnation: incarnation.clone(), task, number: self.writers - 1 }
    }

    fn write(&mut self, writer: &WriterId, batch: RecordBatch) {
        self.pieces.push(Piece { writer: writer.clone(), state: State::Written, batch });
    }

    fn stage(&mut self, writer: &WriterId, receipt: Receipt) -> Vec<Receipt> {
        let written = |piece: &&mut Piece| piece.state == State::Written && piece.writer == *writer;
        let staged = self.pieces.iter_mut().filter(written).map(|piece| piece.state = State::Staged(receipt.clone()));
        if staged.count() > 0 { vec![receipt] } else { Vec::new() }
    }

    /// Commits what is staged under a receipt.
    pub(super) fn commit(&mut self, receipt: &Receipt) -> Result<()> {
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
                reason: "nothing is staged under this receipt. A sink in memory keeps what is staged as long as its process \
                         lives, and until a later generation of the job cleans up"
                    .to_owned(),
            });
        }
        self.committed.insert(receipt.clone());
        Ok(())
    }

    /// Forgets what former incarnations of the job have not committed.
    pub(super) fn clean(&mut self, incarnation: &Incarnation) {
        self.pieces.retain(|piece| {
            let theirs = &piece.writer.incarnation;
            piece.state == State::Committed
                || theirs.job != incarnation.job
                || theirs.generation >= incarnation.generation
        });
    }
}

/// Locks what is only ever locked for one addition: a panic elsewhere leaves it whole.
pub(super) fn lock<K>(kept: &Mutex<K>) -> MutexGuard<'_, K> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to the staging of a sink that keeps `K`.
pub(super) struct Writer<K> {
    kept: Arc<Mutex<K>>,
    id: WriterId,
    /// What the sink is called in receipts.
    sink: &'static str,
    check: fn(&RecordBatch) -> Result<()>,
}

impl<K: AsMut<Staging>> Writer<K> {
    /// The next writer. Each batch is checked before it is kept.
    pub(super) fn new(
        kept: &Arc<Mutex<K>>,
        incarnation: &Incarnation,
        task: usize,
        sink: &'static str,
        check: fn(&RecordBatch) -> Result<()>,
    ) -> Self {
        let id = lock(kept).as_mut().writer(incarnation, task);
        Self { kept: kept.clone(), id, sink, check }
    }
}

#[async_trait]
impl<K: AsMut<Staging> + Send> SinkWriter for Writer<K> {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            (self.check)(&batch)?;
            lock(&self.kept).as_mut().write(&self.id, batch);
        }
        Ok(())
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        let WriterId { incarnation: Incarnation { job, generation, nonce }, task, number } = &self.id;
        let receipt = Receipt(format!(
            "{}: job {job}, generation {generation}, nonce {nonce:08x}, task {task}, writer {number}, epoch {epoch}",
            self.sink
        ));
        Ok(lock(&self.kept).as_mut().stage(&self.id, receipt))
    }
}
