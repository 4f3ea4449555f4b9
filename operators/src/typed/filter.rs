//! Keeps the rows for which a closure says yes.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
};

use super::{Record, Rows};
use crate::{Operator, Outbox, Port, Result, StreamSchema, stateless::emit_kept};

/// Keeps the rows for which `F` is true. The schema stays as it is.
///
/// ```
/// use typed_arrow::prelude::*;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, typed::FilterRows};
///
/// #[derive(Record)]
/// struct Bid { price: i64, who: String }
///
/// let mut rows = Bid::new_builders(2);
/// rows.append_rows([Bid { price: 5, who: "a".into() }, Bid { price: 500, who: "b".into() }]);
/// let batch = rows.finish().into_record_batch();
///
/// let stream = StreamSchema::without_time(batch.schema());
/// let mut filter = FilterRows::<Bid, _>::new(&stream, |bid| bid.price > 100 && bid.who == "b").unwrap();
/// let mut out = Outbox::new();
/// filter.process(Port::MAIN, batch, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 1);
/// ```
pub struct FilterRows<T, F> {
    rows: Rows<T>,
    keep: Arc<F>,
}

impl<T: Record, F> FilterRows<T, F>
where
    F: for<'a> Fn(T::View<'a>) -> bool + Send + Sync,
{
    /// Over rows of `stream`. Fails when a field of `T` is not among its columns.
    pub fn new(stream: &StreamSchema, keep: F) -> Result<Self> {
        Ok(Self { rows: Rows::new(stream)?, keep: Arc::new(keep) })
    }
}

impl<T, F> Clone for FilterRows<T, F> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), keep: self.keep.clone() }
    }
}

impl<T: Record, F> Operator for FilterRows<T, F>
where
    F: for<'a> Fn(T::View<'a>) -> bool + Send + Sync,
{
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let columns = self.rows.columns(&batch)?;
        let mut views = self.rows.views(&columns)?;
        let mut failed = None;
        // Packs 64 answers at a time, which a builder that takes one at a time does not.
        let keep = BooleanBuffer::collect_bool(batch.num_rows(), |_| match views.next() {
            Some(Ok(view)) => (self.keep)(view),
            Some(Err(error)) => {
                failed = Some(error);
                false
            }
            None => false,
        });
        if let Some(error) = failed {
            return Err(error);
        }
        emit_kept(batch, &BooleanArray::new(keep, None), out)
    }
}
