//! Makes one new record of each row.

use std::{marker::PhantomData, sync::Arc};

use arrow::array::RecordBatch;
use typed_arrow::schema::{BuildRows, IntoRecordBatch, RowBuilder, SchemaMeta};

use super::{Record, Rows};
use crate::{Operator, Outbox, Port, Result, StreamSchema};

/// Gives the record that `F` makes of each row. Event time goes on, hidden.
pub struct MapRows<T, U, F> {
    rows: Rows<T>,
    map: Arc<F>,
    time: Option<usize>,
    output: StreamSchema,
    record: PhantomData<fn() -> U>,
}

impl<T: Record, U: Record, F> MapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> U + Send + Sync,
{
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub fn new(stream: &StreamSchema, map: F) -> Result<Self> {
        let (rows, output) = (Rows::new(stream)?, output::<U>(stream)?);
        Ok(Self { rows, map: Arc::new(map), time: stream.time(), output, record: PhantomData })
    }
}

impl<T, U, F> MapRows<T, U, F> {
    /// The schema of the result.
    pub fn output(&self) -> &StreamSchema {
        &self.output
    }
}

impl<T, U, F> Clone for MapRows<T, U, F> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            map: self.map.clone(),
            time: self.time,
            output: self.output.clone(),
            record: PhantomData,
        }
    }
}

/// The columns of `U`, and the event time of `stream`.
pub(crate) fn output<U: SchemaMeta>(stream: &StreamSchema) -> Result<StreamSchema> {
    match stream.time() {
        Some(_) => StreamSchema::with_hidden_time(&U::schema()),
        None => Ok(StreamSchema::without_time(U::schema())),
    }
}

impl<T: Record, U: Record, F> Operator for MapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> U + Send + Sync,
{
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let columns = self.rows.columns(&batch)?;
        let mut builders = <U as BuildRows>::new_builders(batch.num_rows());
        for view in self.rows.views(&columns)? {
            builders.append_row((self.map)(view?));
        }
        let mut columns = builders.finish().into_record_batch().columns().to_vec();
        columns.extend(self.time.map(|time| batch.column(time).clone()));
        out.processed(batch.num_rows());
        out.emit(RecordBatch::try_new(self.output.columns().clone(), columns)?);
        Ok(())
    }
}
