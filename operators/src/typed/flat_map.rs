//! Makes any number of new records of each row.

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take,
};
use typed_arrow::schema::{BuildRows, IntoRecordBatch, RowBuilder};

use super::{Record, Rows, map::output};
use crate::{Operator, Outbox, Port, Result, StreamSchema};

/// How many records one emitted batch holds at the most; a row that explodes does not explode a batch.
const BATCH_ROWS: usize = 8192;

/// Gives the records of the iterator that `F` makes of each row, in order. Each keeps the event time of its row.
pub struct FlatMapRows<T, U, F> {
    rows: Rows<T>,
    map: Arc<F>,
    time: Option<usize>,
    output: StreamSchema,
    record: PhantomData<fn() -> U>,
}

impl<T: Record, U: Record, F, I> FlatMapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> I + Send + Sync,
    I: IntoIterator<Item = U>,
{
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub fn new(stream: &StreamSchema, map: F) -> Result<Self> {
        let (rows, output) = (Rows::new(stream)?, output::<U>(stream)?);
        Ok(Self { rows, map: Arc::new(map), time: stream.time(), output, record: PhantomData })
    }
}

impl<T, U, F> FlatMapRows<T, U, F> {
    /// The schema of the result.
    pub fn output(&self) -> &StreamSchema {
        &self.output
    }
}

impl<T, U: BuildRows, F> FlatMapRows<T, U, F> {
    /// The built records with the event times of the rows `from` which they came.
    fn emit(&self, batch: &RecordBatch, built: U::Builders, from: Vec<u32>, out: &mut Outbox) -> Result<()> {
        let mut columns = built.finish().into_record_batch().columns().to_vec();
        if let Some(time) = self.time {
            columns.push(take(batch.column(time), &UInt32Array::from(from), None)?);
        }
        out.emit(RecordBatch::try_new(self.output.columns().clone(), columns)?);
        Ok(())
    }
}

impl<T, U, F> Clone for FlatMapRows<T, U, F> {
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

impl<T: Record, U: Record, F, I> Operator for FlatMapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> I + Send + Sync,
    I: IntoIterator<Item = U>,
{
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let columns = self.rows.columns(&batch)?;
        let mut builders = U::new_builders(batch.num_rows());
        let mut from = Vec::with_capacity(batch.num_rows());
        for (row, view) in self.rows.views(&columns)?.enumerate() {
            for record in (self.map)(view?) {
                builders.append_row(record);
                from.push(row as u32);
                if from.len() == BATCH_ROWS {
                    let full = std::mem::replace(&mut builders, U::new_builders(BATCH_ROWS));
                    self.emit(&batch, full, std::mem::take(&mut from), out)?;
                }
            }
        }
        out.processed(batch.num_rows());
        if !from.is_empty() {
            self.emit(&batch, builders, from, out)?;
        }
        Ok(())
    }
}
