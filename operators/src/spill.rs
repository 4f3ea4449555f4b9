//! How much an operator may hold, and where it puts the rest: an operator touches no disk, its caller does.
//!
//! ```text
//!   the job's budget ──► Memory: an allowance, and a room ──Operator::limit──► operator
//!                                                                               │ holds too much
//!   Room (a directory, of the engine) ◄──store(batches, one at a time)──────────┤
//!     └──► Stored ──read(batch)──────────────────────────────────────────────►──┘ when it needs them
//!                 └──► a segment of a checkpoint, as it is: StateWriter::seal_stored
//! ```
//!
//! What is stored is never changed and is gone when nobody has it any more. It does not outlive the process: what a restart
//! needs is in a checkpoint.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};

use crate::{OperatorError, Result};

/// Where batches are put that do not fit into memory. Whoever calls operators has one; its calls may block.
pub trait Room: Send + Sync + fmt::Debug {
    /// Writes batches of `schema` one after the other. The next is asked for when one is written, so few are in memory. Fails
    /// with the first error of `batches`, or when there is no place: [`OperatorError::Spill`].
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>>;
}

/// Batches in a [`Room`]. They are gone with the last that has this.
pub trait Stored: Send + Sync + fmt::Debug {
    /// How many there are.
    fn batches(&self) -> usize;

    /// One of them, counted from 0.
    fn read(&self, batch: usize) -> Result<RecordBatch>;
}

/// All rows of what is stored, in one batch.
pub fn read_all(stored: &dyn Stored) -> Result<RecordBatch> {
    let batches = (0..stored.batches()).map(|batch| stored.read(batch)).collect::<Result<Vec<_>>>()?;
    let empty = || OperatorError::Internal("nothing was stored where a segment was".into());
    let schema = batches.first().ok_or_else(empty)?.schema();
    Ok(concat_batches(&schema, &batches)?)
}

/// How much an operator may hold, and where it puts the rest. An operator that has one uses about half of the
/// allowance for what it holds; the other half is for the work of putting it away and getting it back.
#[derive(Clone, Debug)]
pub struct Memory {
    allowance: Arc<AtomicUsize>,
    room: Arc<dyn Room>,
}

impl Memory {
    /// So many bytes, of which the caller may change its mind, and a room.
    pub fn new(allowance: Arc<AtomicUsize>, room: Arc<dyn Room>) -> Self {
        Self { allowance, room }
    }

    /// How many bytes the operator may use now.
    pub fn allowance(&self) -> usize {
        self.allowance.load(Relaxed)
    }

    /// Where it puts what is too much.
    pub fn room(&self) -> &dyn Room {
        self.room.as_ref()
    }
}
