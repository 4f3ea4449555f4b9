//! A call for each row: a closure over a view of the row makes a future, whose answer is made into rows.
//!
//! The answer is an iterator. It is asked for a batch of records at a time, so what it makes on the way is never held as a
//! whole.

use std::{collections::VecDeque, marker::PhantomData, sync::Arc};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use typed_arrow::schema::{BuildRows, IntoRecordBatch, RowBuilder};
use windrow_operators::{
    Result, StreamSchema,
    typed::{Record, Rows},
};

use super::{BATCH_ROWS, Piece, Work, rows::gather_column};

/// The future of one attempt.
pub(crate) type Call<I> = BoxFuture<'static, std::result::Result<I, String>>;

/// Makes the records that the answer `I` gives of each row.
pub(crate) struct MapCalls<T, U, I, F> {
    /// `an async map`.
    kind: &'static str,
    rows: Rows<T>,
    call: F,
    time: Option<usize>,
    output: StreamSchema,
    records: PhantomData<fn() -> (U, I)>,
}

impl<T: Record, U: Record, I, F> MapCalls<T, U, I, F> {
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub(crate) fn new(kind: &'static str, stream: &StreamSchema, call: F) -> Result<Self> {
        let output = match stream.time() {
            Some(_) => StreamSchema::with_hidden_time(&U::schema())?,
            None => StreamSchema::without_time(U::schema()),
        };
        Ok(Self { kind, rows: Rows::new(stream)?, call, time: stream.time(), output, records: PhantomData })
    }

    /// The schema of the result.
    pub(crate) fn output(&self) -> &StreamSchema {
        &self.output
    }
}

impl<T, U, I, F> Work for MapCalls<T, U, I, F>
where
    T: Record,
    U: Record,
    I: Iterator<Item = U> + Send + 'static,
    F: for<'a> Fn(T::View<'a>) -> Call<I> + Send + Sync + 'static,
{
    type Done = I;

    fn what(&self) -> String {
        // Without its modules, which may move; what is generic is called as it is without its parameters.
        let name = std::any::type_name::<U>();
        let name = name.split('<').next().unwrap_or(name);
        format!("{} to {}", self.kind, name.rsplit("::").next().unwrap_or(name))
    }

    fn unit_rows(&self) -> usize {
        1
    }

    fn call(self: Arc<Self>, row: RecordBatch) -> Call<I> {
        let begin = || -> Result<Option<Call<I>>> {
            let columns = self.rows.columns(&row)?;
            let view = self.rows.views(&columns)?.next().transpose()?;
            Ok(view.map(&self.call))
        };
        match begin() {
            Ok(Some(call)) => call,
            Ok(None) => Box::pin(async { Err("internal: a call without a row".into()) }),
            Err(error) => Box::pin(async move { Err(error.to_string()) }),
        }
    }

    fn results(&self, results: &I) -> usize {
        results.size_hint().0
    }

    fn next_batch(&self, done: &mut VecDeque<(Piece, I)>) -> Result<Option<RecordBatch>> {
        let mut builders = <U as BuildRows>::new_builders(done.len());
        // The row that each result is of, so that it has its event time.
        let mut of = Vec::with_capacity(done.len());
        while of.len() < BATCH_ROWS
            && let Some((piece, results)) = done.front_mut()
        {
            match results.next() {
                Some(record) => {
                    builders.append_row(record);
                    of.push(piece.clone());
                }
                None => {
                    done.pop_front();
                }
            }
        }
        if of.is_empty() {
            return Ok(None);
        }
        let mut columns = builders.finish().into_record_batch().columns().to_vec();
        if let Some(time) = self.time {
            columns.push(gather_column(&of, time)?);
        }
        Ok(Some(RecordBatch::try_new(self.output.columns().clone(), columns)?))
    }
}
