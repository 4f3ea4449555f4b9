//! The records that a user's function emits, on their way to batches.
//!
//! ```text
//!   emit(record) ──► Collector: records and their event times ──8192 rows, or the end of the call──► Outbox
//! ```

use arrow::array::{ArrayRef, RecordBatch};
use typed_arrow::schema::{IntoRecordBatch, RowBuilder};

use crate::{
    Outbox, Port, Result, StreamSchema, Timestamp,
    outbox::EMIT_ROWS,
    typed::{Record, output_of},
};

/// Records of one output.
pub(super) struct Collector<U: Side> {
    port: Port,
    schema: StreamSchema,
    records: Vec<U>,
    times: Vec<i64>,
    /// How many records have come.
    pub(super) emitted: usize,
}

impl<U: Side> Collector<U> {
    pub(super) fn new(port: Port, schema: &StreamSchema) -> Self {
        Self { port, schema: schema.clone(), records: Vec::new(), times: Vec::new(), emitted: 0 }
    }

    pub(super) fn push(&mut self, record: U, time: i64, out: &mut Outbox) -> Result<()> {
        self.records.push(record);
        self.times.push(time);
        self.emitted += 1;
        if self.times.len() < EMIT_ROWS { Ok(()) } else { self.finish(out) }
    }

    /// Sends what has been collected.
    pub(super) fn finish(&mut self, out: &mut Outbox) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let mut columns = U::columns(std::mem::take(&mut self.records));
        let times = std::mem::take(&mut self.times);
        columns.extend(self.schema.time().map(|_| Timestamp::column(times)));
        out.emit_on(self.port, RecordBatch::try_new(self.schema.columns().clone(), columns)?);
        Ok(())
    }
}

/// There is no side output: the [`Process::Side`](super::Process::Side) of a process without one.
#[derive(Clone, Copy, Debug)]
pub enum NoSide {}

/// What leaves by the side output of a process: a record, or [`NoSide`].
pub trait Side: Sized + 'static {
    /// The schema of the side output of a process over `input`, if it has one.
    fn schema(input: &StreamSchema) -> Result<Option<StreamSchema>>;

    /// The columns of records.
    fn columns(records: Vec<Self>) -> Vec<ArrayRef>;
}

impl<U: Record> Side for U {
    fn schema(input: &StreamSchema) -> Result<Option<StreamSchema>> {
        output_of::<U>(input).map(Some)
    }

    fn columns(records: Vec<Self>) -> Vec<ArrayRef> {
        let mut builders = U::new_builders(records.len());
        builders.append_rows(records);
        builders.finish().into_record_batch().columns().to_vec()
    }
}

impl Side for NoSide {
    fn schema(_: &StreamSchema) -> Result<Option<StreamSchema>> {
        Ok(None)
    }

    fn columns(_: Vec<Self>) -> Vec<ArrayRef> {
        Vec::new()
    }
}
