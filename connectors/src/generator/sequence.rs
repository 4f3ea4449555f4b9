//! The numbers 0, 1, 2, ...: the source for demonstrations, and for tests that must see every row exactly once.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;

use super::{
    ENDLESS, UTC, event_time,
    reader::{Delivery, RowNumbers, Series},
};
use crate::{Position, Result, Source, SourceReader, SplitId, TypedSource, Untyped};

/// A source of consecutive numbers with the columns `value: Int64` and `at: Timestamp`, where
/// `at = start + value * step`.
///
/// Number `v` belongs to split `v mod k` of `k` splits.
///
/// ```
/// use windrow_connectors::{Fetch, Sequence, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let numbers = Sequence::new(1_000).splits(4).step(250_000);
///
/// let splits = Source::splits(&numbers).await?;
/// let mut reader = numbers.reader(splits.into_iter().map(|split| (split, None)).collect()).await?;
/// let mut rows = 0;
/// loop {
///     match reader.fetch().await? {
///         Fetch::Rows(read) => rows += read.batch.num_rows(),
///         Fetch::SplitEnd(_) => {}
///         Fetch::End => break,
///     }
/// }
/// assert_eq!(rows, 1_000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sequence {
    count: u64,
    start: i64,
    step: i64,
    delivery: Delivery,
}

impl Sequence {
    /// The numbers from 0 to `count - 1`, in one split, a millisecond of event time apart, beginning with 1970.
    pub fn new(count: u64) -> Self {
        Self { count: count.min(ENDLESS), start: 0, step: 1_000, delivery: Delivery::default() }
    }

    /// All numbers: never ends.
    pub fn endless() -> Self {
        Self::new(ENDLESS)
    }

    /// Deals the numbers to `splits` splits.
    pub fn splits(mut self, splits: usize) -> Self {
        self.delivery.splits = splits;
        self
    }

    /// Delivers this many numbers a second, over all splits. Without it they come as fast as they are taken.
    pub fn rate(mut self, events_per_second: u64) -> Self {
        self.delivery.rate = Some(events_per_second);
        self
    }

    /// At most this many rows in a batch (8192 unless told).
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.delivery.batch_rows = rows;
        self
    }

    /// The event time of number 0, in microseconds since 1970.
    pub fn start(mut self, micros: i64) -> Self {
        self.start = micros;
        self
    }

    /// The event time between two numbers, in microseconds.
    pub fn step(mut self, micros: i64) -> Self {
        self.step = micros;
        self
    }
}

#[async_trait]
impl Source for Sequence {
    fn name(&self) -> String {
        "sequence".to_owned()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.delivery.check(&self.name())?;
        Ok(schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        self.delivery.check(&self.name())?;
        Ok(self.delivery.split_ids())
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        let series = Numbers { count: self.count, start: self.start, step: self.step, schema: schema() };
        self.delivery.open(&self.name(), series, assigned)
    }
}

impl TypedSource for Sequence {
    type Row = Untyped;
}

fn schema() -> SchemaRef {
    let fields = [Field::new("value", DataType::Int64, false), Field::new("at", event_time(), false)];
    Arc::new(Schema::new(fields.to_vec()))
}

/// Every number is an event of its own, so that its value, its row number and its event number are the same.
struct Numbers {
    count: u64,
    start: i64,
    step: i64,
    schema: SchemaRef,
}

impl Series for Numbers {
    fn rows(&self) -> u64 {
        self.count
    }

    fn event(&self, row: u64) -> u64 {
        row
    }

    fn rows_before(&self, event: u64) -> u64 {
        event
    }

    fn batch(&self, rows: RowNumbers) -> Result<RecordBatch> {
        // Row numbers stay below `ENDLESS`, far from the sign bit.
        let values: Vec<i64> = rows.iter().map(|row| row as i64).collect();
        let times: Vec<i64> =
            values.iter().map(|value| self.start.saturating_add(value.saturating_mul(self.step))).collect();
        let times = TimestampMicrosecondArray::from(times).with_timezone(UTC);
        let columns = vec![Arc::new(Int64Array::from(values)) as _, Arc::new(times) as _];
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

#[cfg(test)]
mod tests;
