//! Makes any number of new records of each row.
//!
//! ```text
//!   batch ──► 5 records of row 0, 3 of row 1, … until they are enough ──► made ──a step──► Outbox, again
//! ```

use std::{collections::VecDeque, marker::PhantomData, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take,
};
use typed_arrow::schema::{IntoRecordBatch, RowBuilder};

use super::{Record, Rows, map::output};
use crate::{Operator, OperatorError, Outbox, Port, Result, StreamSchema, outbox::EMIT_ROWS, state::StateWriter};

/// Gives the records of the iterator that `F` makes of each row, in order. Each keeps the event time of its row.
///
/// A batch of which the rows make very many records leaves in steps: see [`Outbox::again`]. One row is not divided: its iterator
/// is asked for all it has, and what it gives is held until it has left.
pub struct FlatMapRows<T, U, F> {
    rows: Rows<T>,
    map: Arc<F>,
    time: Option<usize>,
    output: StreamSchema,
    /// Records on their way out, and the rows of the batch whose turn comes when they are.
    made: VecDeque<RecordBatch>,
    rest: Option<Rest>,
    record: PhantomData<fn() -> U>,
}

/// Rows that wait, and their columns as the closure sees them: these are made once.
struct Rest {
    batch: RecordBatch,
    columns: RecordBatch,
}

impl<T: Record, U: Record, F, I> FlatMapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> I + Send + Sync,
    I: IntoIterator<Item = U>,
{
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub fn new(stream: &StreamSchema, map: F) -> Result<Self> {
        let (rows, output) = (Rows::new(stream)?, output::<U>(stream)?);
        Ok(Self {
            rows,
            map: Arc::new(map),
            time: stream.time(),
            output,
            made: VecDeque::new(),
            rest: None,
            record: PhantomData,
        })
    }
}

impl<T, U, F> FlatMapRows<T, U, F> {
    /// The schema of the result.
    pub fn output(&self) -> &StreamSchema {
        &self.output
    }

    /// Whether no batch is half-way through.
    fn is_idle(&self) -> bool {
        self.made.is_empty() && self.rest.is_none()
    }
}

impl<T: Record, U: Record, F, I> FlatMapRows<T, U, F>
where
    F: for<'a> Fn(T::View<'a>) -> I + Send + Sync,
    I: IntoIterator<Item = U>,
{
    /// Makes records of the rows of a batch until there are `enough`; returns the rows that are left.
    fn make(&mut self, Rest { batch, columns }: &Rest, enough: usize) -> Result<Option<Rest>> {
        let mut builders = U::new_builders(batch.num_rows());
        let mut from = Vec::with_capacity(batch.num_rows());
        let (mut made, mut rest) = (VecDeque::new(), None);
        for (row, view) in self.rows.views(columns)?.enumerate() {
            if !made.is_empty() || from.len() >= enough {
                let [batch, columns] = [batch, columns].map(|rows| rows.slice(row, rows.num_rows() - row));
                rest = Some(Rest { batch, columns });
                break;
            }
            for record in (self.map)(view?) {
                builders.append_row(record);
                from.push(row as u32);
                if from.len() == EMIT_ROWS {
                    let full = std::mem::replace(&mut builders, U::new_builders(0));
                    made.push_back(self.batch_of(batch, full, std::mem::take(&mut from))?);
                }
            }
        }
        if !from.is_empty() {
            made.push_back(self.batch_of(batch, builders, from)?);
        }
        self.made = made;
        Ok(rest)
    }

    /// The built records with the event times of the rows `from` which they came.
    fn batch_of(&self, batch: &RecordBatch, built: U::Builders, from: Vec<u32>) -> Result<RecordBatch> {
        let mut columns = built.finish().into_record_batch().columns().to_vec();
        if let Some(time) = self.time {
            columns.push(take(batch.column(time), &UInt32Array::from(from), None)?);
        }
        Ok(RecordBatch::try_new(self.output.columns().clone(), columns)?)
    }

    /// Emits a step of what has been made, or two if that is all of it.
    fn leave(&mut self, out: &mut Outbox) {
        let made: usize = self.made.iter().map(RecordBatch::num_rows).sum();
        let mut left = if made <= 2 * out.step() { made } else { out.step() };
        while left > 0
            && let Some(records) = self.made.pop_front()
        {
            let some = left.min(records.num_rows());
            out.emit(records.slice(0, some));
            left -= some;
            if some < records.num_rows() {
                self.made.push_front(records.slice(some, records.num_rows() - some));
            }
        }
    }
}

impl<T, U, F> Clone for FlatMapRows<T, U, F> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            map: self.map.clone(),
            time: self.time,
            output: self.output.clone(),
            made: VecDeque::new(),
            rest: None,
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
        if batch.num_rows() > 0 {
            if !self.is_idle() {
                return Err(OperatorError::Internal("a flat map was given rows with others half-way through".into()));
            }
            out.processed(batch.num_rows());
            self.rest = Some(Rest { columns: self.rows.columns(&batch)?, batch });
        }
        if self.made.is_empty()
            && let Some(rows) = self.rest.take()
        {
            self.rest = self.make(&rows, out.step())?;
        }
        self.leave(out);
        if !self.is_idle() {
            out.again();
        }
        Ok(())
    }

    fn save(&mut self, _state: &mut StateWriter<'_>) -> Result<()> {
        match self.is_idle() {
            true => Ok(()),
            false => Err(OperatorError::Internal("a flat map was saved with rows half-way through".into())),
        }
    }
}
