//! Event time: one unit, one type.
//!
//! Every event time in the engine is a count of **microseconds since 1970-01-01T00:00:00Z** in an `i64`, and every
//! event-time column has the Arrow type [`Timestamp::data_type`]. Microseconds, because they hold the dates people
//! write (year 9999 does not fit into nanoseconds) and the precision brokers and logs have. Sources convert; nothing
//! else does.

use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

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
/// assert_eq!("1970-01-01T01:00:01.5+01:00".parse::<Timestamp>().unwrap(), t);
/// assert_eq!(t - Timestamp::from_secs(1).unwrap(), std::time::Duration::from_millis(500));
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

    /// The instant `secs` seconds after 1970, unless it lies beyond what an `i64` of microseconds holds.
    pub const fn from_secs(secs: i64) -> Option<Self> {
        match secs.checked_mul(1_000_000) {
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

/// Like [`Timestamp::saturating_sub`].
impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        self.saturating_sub(span)
    }
}

/// How much later it is than another instant; nothing if it is earlier, as between two [`Instant`](std::time::Instant)s.
impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(if self > earlier { self.0.abs_diff(earlier.0) } else { 0 })
    }
}

/// What RFC 3339 can say: the years 0 to 9999.
const YEARS: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;
/// What is behind the number of another instant.
const SINCE_1970: &str = " us since 1970";

/// RFC 3339 in UTC, for years that it has; otherwise microseconds since 1970. [`Timestamp::from_str`] reads both.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arrow::temporal_conversions::timestamp_us_to_datetime(self.0).filter(|_| YEARS.contains(&self.0)) {
            Some(at) => write!(f, "{}Z", at.format("%Y-%m-%dT%H:%M:%S%.f")),
            None => write!(f, "{}{SINCE_1970}", self.0),
        }
    }
}

/// Reads RFC 3339, with any offset from UTC: `2026-01-02T03:04:05.5+01:00`. What is less than a microsecond is cut off.
impl FromStr for Timestamp {
    type Err = OperatorError;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_suffix(SINCE_1970).and_then(|number| number.parse().ok());
        let instant = || chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_micros());
        number.or_else(instant).map(Self).ok_or_else(|| {
            let form = "write it as RFC 3339 does, with its offset from UTC: 2026-01-02T03:04:05Z";
            OperatorError::Plan(format!("{text:?} is no instant: {form}"))
        })
    }
}

/// A span of time for people, and for the names of operators and the forms of their states, which must not change: `1.5s`,
/// `250ms`, `10µs`. What [`Duration`]'s own `Debug` prints now.
pub fn spelled(span: Duration) -> String {
    let nanos = u64::from(span.subsec_nanos());
    let (whole, rest, digits, unit) = match (span.as_secs(), nanos) {
        (0, 0..1_000) => (nanos, 0, 0, "ns"),
        (0, 1_000..1_000_000) => (nanos / 1_000, nanos % 1_000, 3, "µs"),
        (0, _) => (nanos / 1_000_000, nanos % 1_000_000, 6, "ms"),
        (seconds, _) => (seconds, nanos, 9, "s"),
    };
    match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}.{}{unit}", format!("{rest:0digits$}").trim_end_matches('0')),
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(Timestamp::MIN.saturating_sub(Duration::from_secs(1)), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_secs(i64::MIN), None);
        assert_eq!(Timestamp::MIN - Duration::from_secs(1), Timestamp::MIN);
        assert_eq!(Timestamp::MAX - Timestamp::MIN, Duration::from_micros(u64::MAX));
        assert_eq!(Timestamp::MIN - Timestamp::MAX, Duration::ZERO, "it is not later");
    }

    #[test]
    fn prints_what_rfc_3339_can_say_and_the_number_otherwise() {
        assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(253_402_300_799_000_000).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::MAX.to_string(), "9223372036854775807 us since 1970");
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read(micros: i64, in_years in YEARS) {
            for micros in [micros, in_years, YEARS.start, YEARS.start - 1, YEARS.end - 1, YEARS.end, i64::MIN, i64::MAX] {
                let at = Timestamp(micros);
                prop_assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
                prop_assert_eq!(at.to_string().ends_with('Z'), YEARS.contains(&micros));
            }
        }

        #[test]
        fn a_span_is_spelled_as_it_stands_in_checkpoints(secs in prop_oneof![Just(0), 0u64..100_000, any::<u64>()], nanos in 0u32..1_000_000_000, cut in 0u32..10) {
            let span = Duration::new(secs, nanos / 10u32.pow(cut.min(9)) * 10u32.pow(cut.min(9)));
            prop_assert_eq!(spelled(span), format!("{span:?}"));
        }
    }

    #[test]
    fn instants_are_read_with_any_offset() {
        let read = |text: &str| text.parse::<Timestamp>().map(Timestamp::micros);
        assert_eq!(read("1970-01-01T01:00:00.0000019+01:00").unwrap(), 1);
        assert_eq!(read("1969-12-31T23:59:59.999999Z").unwrap(), -1);
        for text in ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", " us since 1970"] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("2026-01-02T03:04:05Z"), "{message}");
        }
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
