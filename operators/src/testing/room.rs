//! A room without a disk: what is stored becomes bytes, as in a file, and is counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::store::{decode, encode};
use crate::{
    OperatorError, Result,
    spill::{Memory, Room, Stored},
};

/// A [`Room`] for tests of operators that put away what is too much for memory: give them its [`TestRoom::memory`].
#[derive(Clone, Debug, Default)]
pub struct TestRoom(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    stored: AtomicUsize,
    there: AtomicUsize,
    /// How many batches fit into it, and one more; 0 when all do.
    full_after: AtomicUsize,
    batches: AtomicUsize,
}

impl TestRoom {
    /// A room with place for everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// A room that is full after so many batches.
    pub fn full_after(batches: usize) -> Self {
        let room = Self::new();
        room.0.full_after.store(batches + 1, Relaxed);
        room
    }

    /// So many bytes, and this room for the rest.
    pub fn memory(&self, bytes: usize) -> Memory {
        Memory::new(Arc::new(AtomicUsize::new(bytes)), Arc::new(self.clone()))
    }

    /// How often something was stored.
    pub fn stored(&self) -> usize {
        self.0.stored.load(Relaxed)
    }

    /// How much of that is still there.
    pub fn there(&self) -> usize {
        self.0.there.load(Relaxed)
    }
}

impl Room for TestRoom {
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>> {
        let full_after = self.0.full_after.load(Relaxed);
        let mut bytes = Vec::new();
        for batch in batches {
            let batch = batch?;
            if batch.schema_ref() != schema {
                return Err(OperatorError::Internal(format!("{:?} was stored as {schema:?}", batch.schema())));
            }
            if self.0.batches.fetch_add(1, Relaxed) + 1 == full_after {
                return Err(OperatorError::Spill("the room is full".into()));
            }
            bytes.push(encode(&batch)?);
        }
        self.0.stored.fetch_add(1, Relaxed);
        self.0.there.fetch_add(1, Relaxed);
        Ok(Arc::new(InBytes { bytes, counts: self.0.clone() }))
    }
}

#[derive(Debug)]
struct InBytes {
    bytes: Vec<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Stored for InBytes {
    fn batches(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, batch: usize) -> Result<RecordBatch> {
        let bytes = self.bytes.get(batch);
        let bytes = bytes.ok_or_else(|| OperatorError::Internal(format!("batch {batch} was never stored")))?;
        Ok(decode(bytes)?)
    }
}

impl Drop for InBytes {
    fn drop(&mut self) {
        self.counts.there.fetch_sub(1, Relaxed);
    }
}
