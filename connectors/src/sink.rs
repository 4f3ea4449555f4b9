//! What a sink is: a place that makes a writer for each task, and makes visible what the writers staged.
//!
//! ```text
//!   rows of epoch 7 ──write──► SinkWriter ──stage(7)──► receipts ──► the checkpoint of epoch 7
//!                              (hidden, durable)                          │ decided
//!                                                     Sink::commit ◄──────┘
//!                                                     (visible; again after a crash)
//! ```
//!
//! Rows travel in *epochs*: what flows between two barriers. At a barrier a writer *stages* its rows: durable, but seen
//! by no reader, described by receipts. The receipts are part of the checkpoint. Only when the checkpoint is decided does
//! the engine commit them, and after a crash it commits them again, so committing is idempotent. So a row is visible
//! exactly if the state that made it is what the job goes on from.
//!
//! Some systems cannot do that: a Kafka transaction that was staged by a process that died cannot be committed by the next
//! one. Then the order is turned round. The checkpoint is only *prepared*, the system commits the rows of the epoch together with a
//! [`Marker`] that names it, and this decides. Such a system is a [`Witness`]: after a crash the marker says what it did.
//!
//! ```text
//!   write ──► SinkWriter ──stage(7): all delivered──► the checkpoint of epoch 7 is prepared ──► Witness::decide(marker 7)
//!             (not visible)                                                    rows and marker visible in one step
//! ```

use std::{fmt, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{ConnectorError, Result};

/// The column that says what a change does, a `UInt8` and the last one of the batches that a sink of changes is given: 0 insert,
/// 1 update, 2 delete.
///
/// Insert and update both mean that this is the row of its key now; a delete may name a key that is not there.
pub const OP: &str = "__op";

/// The number of a checkpoint, and of the rows that flow between the barrier before it and its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One incarnation of a job: what tells its hidden things from those of others.
///
/// Generations of one job only grow. Two incarnations never have the same nonce, so names that contain it never collide;
/// and an incarnation can tell which of its job's leftovers are of an earlier one, and remove them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Eight hexadecimal digits that stand for the job and its checkpoint store.
    pub job: String,
    /// How many times the job had been started when this incarnation was.
    pub generation: u64,
    /// A random number.
    pub nonce: u32,
}

/// What a writer staged. Means something to its sink only; the engine keeps it in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Receipt(pub String);

/// A place that rows go to.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// What to call it in messages and in the printed graph: `console`, `file out/`.
    fn name(&self) -> String;

    /// Whether rows with this schema can be written. Asked before the first row is read; the error says which column
    /// cannot be written and why.
    fn accepts(&self, schema: &SchemaRef) -> Result<()>;

    /// Whether changes of a table with these columns can be written, of which `key` say which row changes. `schema` are the columns
    /// without [`OP`]; the batches that writers then get have it as their last one. Asked before the first change is read,
    /// instead of [`Sink::accepts`]; the error says why not.
    ///
    /// Changes of one key come to one writer, in order. A sink that appends rows keeps this default, which refuses.
    fn accepts_changes(&self, _schema: &SchemaRef, _key: &[usize]) -> Result<()> {
        Err(ConnectorError::Config(format!(
            "{} appends rows and cannot take changes: write .changelog() to it, or use a sink that takes upserts",
            self.name()
        )))
    }

    /// What is allowed and unwise, in words: a login that is sent without encryption. Asked once at each start of the job, and shown
    /// while it runs. It must not take long.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// How many writers may work side by side. 1 for a sink whose rows share one stream, such as the console.
    fn max_writers(&self) -> usize {
        usize::MAX
    }

    /// Who decides whether an epoch counts, when it is not the checkpoint store. Sinks that have one of these in common commit
    /// as one; a job can have only one.
    fn witness(&self) -> Option<Arc<dyn Witness>> {
        None
    }

    /// Where in the system of its [`Sink::witness`] the rows go, if that has to know it before the first writer is made: a topic.
    fn place(&self) -> Option<String> {
        None
    }

    /// The writer of task number `task`, for batches of `schema`. The writers of all tasks of a job are made before any of them
    /// is given a row.
    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>>;

    /// Makes visible what was staged. Idempotent: receipts that were committed before, wholly or in part, are not
    /// an error. Tries every receipt, also when one fails, and then returns the first error.
    ///
    /// A sink without receipts, whose rows are visible as they are written, keeps this default; after a crash it repeats
    /// rows.
    async fn commit(&self, _receipts: &[Receipt]) -> Result<()> {
        Ok(())
    }

    /// Removes what earlier generations of the same job left staged. Called when everything that is decided has been
    /// committed, before the first row.
    async fn clean(&self, _incarnation: &Incarnation) -> Result<()> {
        Ok(())
    }
}

/// What a [`Witness`] keeps of an epoch: who it was and what was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Who wrote the epoch.
    pub incarnation: Incarnation,
    /// The epoch.
    pub epoch: Epoch,
}

/// A system that makes the rows of an epoch visible in one step and keeps a [`Marker`] of it, and so decides whether the epoch
/// counts. The protocol around it, with every moment at which a process may die, is in `docs/src/exactly-once.md`.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// What to call it in messages, and what tells it from others in a checkpoint: `kafka localhost:9092, topic __windrow.fraud.commits`.
    /// `job` is the name of the job. Whatever decides whom [`Witness::fence`] fences is a part of it.
    fn name(&self, job: &str) -> String;

    /// The longest that an epoch may stay open, from its first row to the decision. After that the system throws its rows away.
    fn longest_epoch(&self) -> Duration;

    /// How long the epoch of the job has been open that was opened first and is not decided yet.
    fn open_for(&self, job: &str) -> Option<Duration>;

    /// Takes over from every former incarnation of the job. When this returns none of them can decide anything any more, and
    /// nothing that they wrote is still open. Comes before [`Witness::newest`], and before the first writer is made. `places` are those
    /// of the job's sinks, each once: [`Sink::place`].
    async fn fence(&self, job: &str, incarnation: &Incarnation, places: &[String]) -> Result<()>;

    /// The marker of the newest epoch that counts; `None` when there never was one. Fails rather than guesses.
    async fn newest(&self, job: &str) -> Result<Option<Marker>>;

    /// Makes visible what all writers have staged for the epoch, and with it `marker`: the marker alone when there are no rows, or
    /// no writers yet. The future may be dropped before it is ready, which is an error like any other. If it returns well, the epoch counts. On any error it may
    /// count or not: only the next incarnation can tell.
    async fn decide(&self, marker: &Marker) -> Result<()>;

    /// The incarnation writes and decides nothing more: its writers are gone, because the job has ended or failed. Throws away what
    /// is open and was not asked to be decided, so that no reader waits for it until the next start, and forgets the incarnation.
    /// What fails here the next [`Witness::fence`] does. The engine waits for it for a few seconds.
    async fn give_up(&self, _job: &str, _incarnation: &Incarnation) {}
}

/// Writes the rows of one task.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes a batch. It may be buffered until [`SinkWriter::stage`].
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Ends an epoch. What was written since the last call is durable when this returns, and visible only after
    /// [`Sink::commit`] of the receipts. Without rows there are no receipts. A writer that is dropped has published
    /// nothing that was not committed.
    ///
    /// Called at each barrier, and once more when the input has ended. It may wait for the other writers of its sink to come to the
    /// same barrier, or to be dropped.
    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>>;
}
