//! Rows into payloads: the other direction of [`Decoder::push`](super::Decoder::push), for sinks whose records are framed by
//! somebody else.

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::Result;

/// The payloads of rows, one after the other in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    bytes: Vec<u8>,
    /// Where each payload ends; `None` for a row without one.
    ends: Vec<(usize, bool)>,
}

impl Payloads {
    /// No payloads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all payloads and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The buffer, for a writer to append the bytes of the next payload to. [`Payloads::end`] ends it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Everything in the buffer behind the former payload is the next one.
    pub fn end(&mut self) {
        self.end_at(self.bytes.len());
    }

    /// The next payload ends at this byte of the buffer, behind the former one.
    pub fn end_at(&mut self, end: usize) {
        self.ends.push((end, true));
    }

    /// The next row has no payload: a null.
    pub fn null(&mut self) {
        self.ends.push((self.bytes.len(), false));
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The payload of a row; `None` for a null, and beyond the last.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let (end, is_there) = *self.ends.get(row)?;
        let start = row.checked_sub(1).map_or(0, |former| self.ends[former].0);
        is_there.then(|| self.bytes.get(start..end)).flatten()
    }
}

/// Turns rows into payloads, one for each.
pub trait RowEncoder: Send {
    /// Appends a payload for each row of `batch`. After an error `out` may hold a part of them.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()>;

    /// Whether a sink of changes is to hand over the changes as they are, with the column [`OP`](crate::OP) as the last one: then a
    /// payload says by itself what it does, and a delete has one too. By default the sink takes that column off, and a delete
    /// has no payload.
    fn takes_changes(&self) -> bool {
        false
    }
}

/// A format of payloads: makes an encoder for rows of a schema, or says which column it cannot hold. Called when the job is
/// checked and once per writer; the second argument is the topic, by which a registry names its schemas.
pub type MakeEncoder = dyn Fn(&SchemaRef, &str) -> Result<Box<dyn RowEncoder>> + Send + Sync;
