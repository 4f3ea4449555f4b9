//! A call for each row: a closure over a view of the row makes a future, whose answer is made into rows.

use std::{marker::PhantomData, sync::Arc};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use typed_arrow::schema::{BuildRows, IntoRecordBatch, RowBuilder};
use windrow_operators::{
    Result, StreamSchema,
    typed::{Record, Rows},
};

use super::{Piece, Work, rows::gather_column};

/// The future of one attempt.
pub(crate) type Call<I> = BoxFuture<'static, std::result::Result<I, String>>;

/// Makes the records that the answer `I` holds of each row.
pub(crate) struct MapCalls<T, U, I, F> {
    rows: Rows<T>,
    call: F,
    time: Option<usize>,
    output: StreamSchema,
    records: PhantomData<fn() -> (U, I)>,
}

impl<T: Record, U: Record, I, F> MapCalls<T, U, I, F> {
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub(crate) fn new(stream: &StreamSchema, call: F) -> Result<Self> {
        let output = match stream.time() {
            Some(_) => StreamSchema::with_hidden_time(&U::schema())?,
            None => StreamSchema::without_time(U::schema()),
        };
        Ok(Self { rows: Rows::new(stream)?, call, time: stream.time(), output, records: PhantomData })
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
    I: IntoIterator<Item = U> + Send + 'static,
    F: for<'a> Fn(T::View<'a>) -> Call<I> + Send + Sync + 'static,
{
    type Done = I;

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

    fn build(&self, done: Vec<(Piece, I)>) -> Result<Vec<RecordBatch>> {
        let mut builders = <U as BuildRows>::new_builders(done.len());
        // The row that each result is of, so that it has its event time.
        let mut of = Vec::with_capacity(done.len());
        for (piece, results) in done {
            for record in results {
                builders.append_row(record);
                of.push(piece.clone());
            }
        }
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let mut columns = builders.finish().into_record_batch().columns().to_vec();
        if let Some(time) = self.time {
            columns.push(gather_column(&of, time)?);
        }
        Ok(vec![RecordBatch::try_new(self.output.columns().clone(), columns)?])
    }
}
