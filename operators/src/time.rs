//! Event time: one unit, one type.
//!
//! Every event time in the engine is a count of **microseconds since 1970-01-01T00:00:00Z** in an `i64`, and every
//! event-time column has the Arrow type [`Timestamp::data_type`]. Microseconds, because they hold the dates people
//! write (year 9999 does not fit into nanoseconds) and the precision brokers and logs have. Sources convert; nothing
//! else does.

use std::{fmt, ops::Add, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, PrimitiveArray, PrimitiveBuilder, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use serde::{Deserialize, Serialize};
use typed_arrow::{
    bridge::{ArrowBinding, ArrowBindingView},
    error::ViewAccessError,
};

use crate::{OperatorError, Result};

/// The zone of event-time columns. An offset rather than a name, so that printing it needs no time-zone database.
const UTC: &str = "+00:00";

/// An instant of event time: microseconds since 1970-01-01T00:00:00Z.
///
/// It is also a field type for records: `#[derive(Record)] struct Bid { price: i64, at: Timestamp }`.
///
/// ```
/// use windrow_operators::Timestamp;
/// let t = Timestamp::from_millis(1_500).unwrap();
/// assert_eq!(t.micros(), 1_500_000);
/// assert_eq!(t.to_string(), "1970-01-01T00:00:01.500Z");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before everything: what a stream promises when it promises nothing.
    pub const MIN: Self = Self(i64::MIN);
    /// After everything: what the end of a stream promises.
    pub const MAX: Self = Self(i64::MAX);

    /// The instant `micros` microseconds after 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The instant `millis` milliseconds after 1970, unless it lies beyond what an `i64` of microseconds holds.
    pub const fn from_millis(millis: i64) -> Option<Self> {
        match millis.checked_mul(1_000) {
            Some(micros) => Some(Self(micros)),
            None => None,
        }
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Earlier by `span`; the earliest instant if that does not exist.
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(span)))
    }

    /// Later by `span`; the latest instant if that does not exist.
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(span)))
    }

    /// The Arrow type of event-time columns.
    pub fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC)))
    }

    /// A column of event times.
    pub fn column(micros: Vec<i64>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(micros).with_timezone(UTC))
    }
}

/// Like [`Timestamp::saturating_add`].
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        self.saturating_add(span)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arrow::temporal_conversions::timestamp_us_to_datetime(self.0) {
            // Beyond year 9999 or before year 0 RFC 3339 has no form.
            Some(at) if at.to_string().len() <= 26 => write!(f, "{}Z", at.format("%Y-%m-%dT%H:%M:%S%.f")),
            _ => write!(f, "{} us since 1970", self.0),
        }
    }
}

/// `span` in whole microseconds, at most `i64::MAX`.
pub(crate) fn micros_of(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The event times of a batch, without a copy. `None` when the column is not what [`Timestamp::data_type`] says or
/// holds a null, which a source never lets through.
pub fn event_times(batch: &RecordBatch, column: usize) -> Option<&[i64]> {
    let times = batch.column(column).as_any().downcast_ref::<TimestampMicrosecondArray>()?;
    (times.null_count() == 0).then(|| times.values().as_ref())
}

/// [`event_times`] where there must be some: an operator that was planned by event time gets no row without.
pub(crate) fn times_of(batch: &RecordBatch, column: usize) -> Result<&[i64]> {
    event_times(batch, column)
        .ok_or_else(|| OperatorError::Internal("a row without event time reached an operator that needs it".into()))
}

impl ArrowBinding for Timestamp {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;
    type Array = PrimitiveArray<TimestampMicrosecondType>;

    fn data_type() -> DataType {
        Timestamp::data_type()
    }

    fn new_builder(capacity: usize) -> Self::Builder {
        PrimitiveBuilder::with_capacity(capacity).with_data_type(Timestamp::data_type())
    }

    fn append_value(builder: &mut Self::Builder, value: &Self) {
        builder.append_value(value.0);
    }

    fn append_null(builder: &mut Self::Builder) {
        builder.append_null();
    }

    fn finish(mut builder: Self::Builder) -> Self::Array {
        builder.finish()
    }
}

impl ArrowBindingView for Timestamp {
    type Array = PrimitiveArray<TimestampMicrosecondType>;
    type View<'a> = Timestamp;

    fn get_view(array: &Self::Array, index: usize) -> Result<Timestamp, ViewAccessError> {
        if index >= array.len() {
            return Err(ViewAccessError::OutOfBounds { index, len: array.len(), field_name: None });
        }
        if array.is_null(index) {
            return Err(ViewAccessError::UnexpectedNull { index, field_name: None });
        }
        Ok(Timestamp(array.value(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(Timestamp::MIN.saturating_sub(Duration::from_secs(1)), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
    }

    #[test]
    fn prints_what_rfc_3339_can_say_and_the_number_otherwise() {
        assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(253_402_300_799_000_000).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::MAX.to_string(), "9223372036854775807 us since 1970");
    }

    #[test]
    fn a_column_with_a_null_has_no_event_times() {
        let array = TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone(UTC);
        let batch = RecordBatch::try_from_iter([("at", Arc::new(array) as ArrayRef)]).unwrap();
        assert_eq!(event_times(&batch, 0), None);
        let batch = RecordBatch::try_from_iter([("at", Timestamp::column(vec![1, 2]))]).unwrap();
        assert_eq!(event_times(&batch, 0), Some(&[1, 2][..]));
    }
}
