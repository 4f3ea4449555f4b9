//! Rows into payloads: the other direction of [`Decoder::push`](super::Decoder::push), for sinks whose records are framed by
//! somebody else.

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::{CsvRowEncoder, Encoder, Format, JsonRowEncoder};
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
}

/// A format of payloads, before it meets rows. [`KafkaOutput::encoded`](crate::kafka::KafkaOutput::encoded) has an example.
pub trait PayloadFormat: Send + Sync + 'static {
    /// Whether rows of `schema` can be written to `topic`; the error names the column that cannot. Called while the job is described,
    /// so it asks nobody outside.
    fn accepts(&self, schema: &SchemaRef, topic: &str) -> Result<()>;

    /// An encoder for rows of `schema` in `topic`. Called for each writer before its first row, on a thread that may wait: for a
    /// schema registry, say.
    fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<Box<dyn RowEncoder>>;

    /// What is allowed and unwise in how others are asked for schemas: a login that is sent without encryption.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a sink of changes is to hand over the changes as they are, with the column [`OP`](crate::OP) as the last one: then a
    /// payload says by itself what it does, and a delete has one too. By default the sink takes that column off, and a delete
    /// has no payload.
    fn takes_changes(&self) -> bool {
        false
    }
}

impl PayloadFormat for Format {
    fn accepts(&self, schema: &SchemaRef, _topic: &str) -> Result<()> {
        Encoder::accepts(*self, schema)
    }

    fn encoder(&self, schema: &SchemaRef, _topic: &str) -> Result<Box<dyn RowEncoder>> {
        Ok(match *self {
            Self::Json => Box::new(JsonRowEncoder::new(schema)?),
            Self::Csv { delimiter } => Box::new(CsvRowEncoder::new(schema, delimiter)?),
        })
    }
}
