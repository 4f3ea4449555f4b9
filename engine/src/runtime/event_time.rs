//! Brings a source's event time into the engine's one unit, row by row, before anything else sees the row.
//!
//! A timestamp column that already has the engine's type is event time as it is. Any other column stays as the user
//! knows it, and event time goes beside it, hidden. A row whose time is null, is no time at all, or lies too far from
//! 1970 is rejected, as the record it was where the source says so.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, cast::AsArray},
    compute::{CastOptions, cast_with_options, filter_record_batch},
    datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use windrow_connectors::{Origins, Rejected};
use windrow_operators::{OperatorError, Result, StreamSchema, Timestamp, schema::index_of};

use crate::EventTime;

/// What a column has to go through to become event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    /// It is event time.
    AsIs,
    /// Integers (or timestamps) of this unit.
    Number(TimeUnit),
    /// Dates, or RFC 3339 text; text without a zone is in UTC.
    Cast,
    /// No column: it is when the row arrives.
    Arrival,
}

/// Extracts event time from the batches of one source.
#[derive(Clone, Debug)]
pub(crate) struct EventTimeReader {
    column: usize,
    conversion: Conversion,
    output: StreamSchema,
}

impl EventTimeReader {
    /// For batches of `schema`. Fails when the column is missing or cannot be event time.
    pub(crate) fn new(schema: &SchemaRef, spec: &EventTime) -> Result<Self> {
        let column = index_of(schema, &spec.column)?;
        let data_type = schema.field(column).data_type();
        let conversion = match (data_type, spec.unit) {
            (DataType::Timestamp(..), Some(_)) => {
                return Err(plan(format!("column {:?} is {data_type}: it has a unit, do not name one", spec.column)));
            }
            (data_type, None) if *data_type == Timestamp::data_type() => Conversion::AsIs,
            (DataType::Timestamp(unit, _), None) => Conversion::Number(*unit),
            (data_type, Some(unit)) if data_type.is_integer() => Conversion::Number(unit),
            (data_type, None) if data_type.is_integer() => {
                return Err(plan(format!(
                    "column {:?} is {data_type}: name its unit, as in EventTime::column({:?}).millis()",
                    spec.column, spec.column
                )));
            }
            // A unit is for numbers; text says what it is.
            (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, _) => Conversion::Cast,
            (DataType::Date32 | DataType::Date64, None) => Conversion::Cast,
            _ => {
                return Err(plan(format!(
                    "column {:?} is {data_type}: event time is a timestamp, a whole number with a unit, a date, or RFC \
                     3339 text",
                    spec.column
                )));
            }
        };
        let output = match conversion {
            Conversion::AsIs => StreamSchema::with_time(schema.clone(), &spec.column)?,
            _ => StreamSchema::with_hidden_time(schema)?,
        };
        Ok(Self { column, conversion, output })
    }

    /// For batches whose rows get the time of their arrival.
    pub(crate) fn arrival(schema: &SchemaRef) -> Result<Self> {
        Ok(Self { column: 0, conversion: Conversion::Arrival, output: StreamSchema::with_hidden_time(schema)? })
    }

    /// The schema of the batches with event time.
    pub(crate) fn output(&self) -> &StreamSchema {
        &self.output
    }

    /// The rows that have event time and the latest of their times. The others are rejected with the reason, as the records that
    /// they were according to `origins`.
    pub(crate) fn read(
        &self,
        batch: RecordBatch,
        origins: Option<&Origins>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(RecordBatch, Option<i64>)> {
        let times = self.convert(batch.column(self.column))?;
        let hidden = self.conversion != Conversion::AsIs;
        let column = times.as_primitive::<TimestampMicrosecondType>();
        let (least, latest) = bounds(column.values());
        if column.null_count() == 0 && is_usable(least) && is_usable(latest) {
            let latest = (batch.num_rows() > 0).then_some(latest);
            return Ok((self.attach(&batch, hidden.then_some(times))?, latest));
        }
        let usable: BooleanArray = column.iter().map(|time| Some(time.is_some_and(is_usable))).collect();
        for row in (0..batch.num_rows()).filter(|&row| !usable.value(row)) {
            rejected.push(self.reject(&batch, row, origins)?);
        }
        let kept = filter_record_batch(&batch, &usable)?;
        let times = arrow::compute::filter(&times, &usable)?;
        let latest = times.as_primitive::<TimestampMicrosecondType>().values().iter().copied().max();
        Ok((self.attach(&kept, hidden.then_some(times))?, latest))
    }

    /// All rows, with the time of their arrival as their event time.
    pub(crate) fn stamp(&self, batch: &RecordBatch, now: Timestamp) -> Result<(RecordBatch, Option<i64>)> {
        let times = Timestamp::column(vec![now.micros(); batch.num_rows()]);
        let latest = (batch.num_rows() > 0).then_some(now.micros());
        Ok((self.attach(batch, Some(times))?, latest))
    }

    fn attach(&self, batch: &RecordBatch, times: Option<ArrayRef>) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        // An array of a nullable column may carry an all-valid mask: event times are read without one.
        if let (None, Some(time)) = (&times, self.output.time()) {
            let values = columns[time].as_primitive::<TimestampMicrosecondType>();
            if values.nulls().is_some() {
                columns[time] = Timestamp::column(values.values().to_vec());
            }
        }
        columns.extend(times);
        Ok(RecordBatch::try_new(self.output.columns().clone(), columns)?)
    }

    /// The event time of each row, null where there is none.
    fn convert(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let null_if_impossible = CastOptions { safe: true, ..CastOptions::default() };
        match self.conversion {
            Conversion::AsIs | Conversion::Arrival => Ok(column.clone()),
            Conversion::Cast => Ok(cast_with_options(column, &Timestamp::data_type(), &null_if_impossible)?),
            Conversion::Number(unit) => {
                let numbers = cast_with_options(column, &DataType::Int64, &null_if_impossible)?;
                let numbers = numbers.as_primitive::<Int64Type>();
                let micros: Int64Array = numbers.iter().map(|n| n.and_then(|n| to_micros(n, unit))).collect();
                let (_, values, nulls) = micros.into_parts();
                let micros = arrow::array::TimestampMicrosecondArray::new(values, nulls);
                Ok(Arc::new(micros.with_data_type(Timestamp::data_type())))
            }
        }
    }

    fn reject(&self, batch: &RecordBatch, row: usize, origins: Option<&Origins>) -> Result<Rejected> {
        let options = FormatOptions::default().with_null("null");
        let text = |column: usize| -> Result<String> {
            Ok(ArrayFormatter::try_new(batch.column(column), &options)?.value(row).to_string())
        };
        let field = |column: usize| batch.schema_ref().field(column).name().clone();
        let value = text(self.column)?;
        let reason = match batch.column(self.column).is_null(row) {
            true => format!("column {:?}: event time is null", field(self.column)),
            false => format!("column {:?}: {value} is not an event time the engine can keep", field(self.column)),
        };
        if let Some(origins) = origins {
            let beyond = || OperatorError::Internal(format!("row {row} of a source has no origin"));
            return origins.reject(row, reason).ok_or_else(beyond);
        }
        let values = (0..batch.num_columns()).map(|column| Ok(format!("{}={}", field(column), text(column)?)));
        let bytes = Some(values.collect::<Result<Vec<_>>>()?.join(" ").into_bytes());
        Ok(Rejected { bytes, ..Rejected::of(reason) })
    }
}

/// Event time reaches 146,000 years before and after 1970. What lies beyond is garbage, and neither the end of its
/// window nor its text could be written down: it must not stop a job that can go on without it.
fn is_usable(time: i64) -> bool {
    time.unsigned_abs() < 1 << 62
}

fn bounds(times: &[i64]) -> (i64, i64) {
    times.iter().fold((0, i64::MIN), |(least, latest), &time| (least.min(time), latest.max(time)))
}

fn plan(message: String) -> OperatorError {
    OperatorError::Plan(message)
}

/// Nanoseconds are rounded down, also before 1970; what does not fit is no event time.
fn to_micros(number: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => number.checked_mul(1_000_000),
        TimeUnit::Millisecond => number.checked_mul(1_000),
        TimeUnit::Microsecond => Some(number),
        TimeUnit::Nanosecond => Some(number.div_euclid(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{BooleanArray, Date32Array, StringArray, TimestampNanosecondArray, UInt64Array},
        datatypes::{Field, Schema},
    };
    use windrow_connectors::Position;
    use windrow_operators::time::event_times;

    use super::*;

    fn read(column: ArrayRef, spec: EventTime) -> Result<(Vec<i64>, Vec<String>)> {
        let schema = Arc::new(Schema::new(vec![Field::new("t", column.data_type().clone(), true)]));
        let reader = EventTimeReader::new(&schema, &spec)?;
        let mut rejected = Vec::new();
        let (batch, latest) = reader.read(RecordBatch::try_new(schema, vec![column]).unwrap(), None, &mut rejected)?;
        let times = event_times(&batch, reader.output().time().unwrap()).unwrap().to_vec();
        assert_eq!(latest, times.iter().copied().max());
        Ok((times, rejected.into_iter().map(|r| r.reason).collect()))
    }

    fn t() -> EventTime {
        EventTime::column("t")
    }

    #[test]
    fn numbers_in_each_unit_and_at_the_ends() {
        let numbers = || Arc::new(Int64Array::from(vec![Some(-1), Some(2), None, Some(i64::MAX)])) as ArrayRef;
        let (times, reasons) = read(numbers(), t().seconds()).unwrap();
        assert_eq!(times, [-1_000_000, 2_000_000]);
        assert_eq!(reasons[0], r#"column "t": event time is null"#);
        assert_eq!(reasons[1], r#"column "t": 9223372036854775807 is not an event time the engine can keep"#);
        assert_eq!(read(numbers(), t().micros()).unwrap().0, [-1, 2]);
        let ends = [i64::MIN, -(1 << 62) + 1, (1 << 62) - 1, 1 << 62].map(Some);
        let (times, reasons) = read(Arc::new(Int64Array::from(ends.to_vec())), t().micros()).unwrap();
        assert_eq!((times.as_slice(), reasons.len()), (&[-(1 << 62) + 1, (1 << 62) - 1][..], 2));
        assert_eq!(read(numbers(), t().nanos()).unwrap().0, [-1, 0, 9_223_372_036_854_775], "rounded down");
        let unsigned = Arc::new(UInt64Array::from(vec![7, u64::MAX]));
        assert_eq!(read(unsigned, t().millis()).unwrap().0, [7_000]);
    }

    #[test]
    fn a_row_is_rejected_as_the_record_it_was_if_that_is_known() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Int64, true)]));
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![Some(1), None]))]).unwrap();
        let reader = EventTimeReader::new(&schema, &t().micros()).unwrap();
        let mut origins = Origins::new();
        origins.push(Position(7), Some(3), b"{\"t\": 1}", None);
        origins.push(Position(16), Some(4), b"{}", Some(b"k"));
        let reject = |origins: Option<&Origins>| {
            let mut rejected = Vec::new();
            let (kept, latest) = reader.read(batch.clone(), origins, &mut rejected).unwrap();
            assert_eq!((kept.num_rows(), latest, rejected.len()), (1, Some(1), 1));
            rejected.remove(0)
        };
        let reason = r#"column "t": event time is null"#.to_string();
        let (bytes, key) = (b"{}".to_vec(), Some(b"k".to_vec()));
        let (position, line, bytes) = (Some(Position(16)), Some(4), Some(bytes));
        let known = Rejected { position, line, bytes, key, ..Rejected::of(&reason) };
        assert_eq!(reject(Some(&origins)), known);
        let unknown = Rejected { bytes: Some(b"t=null".to_vec()), ..Rejected::of(reason) };
        assert_eq!(reject(None), unknown);
    }

    #[test]
    fn text_and_dates_and_other_timestamps() {
        let text =
            StringArray::from(vec!["2005-06-03T15:42:50.675Z", "2005-06-03T17:42:50+02:00", "soon", "9999-12-31"]);
        let (times, reasons) = read(Arc::new(text), t()).unwrap();
        assert_eq!(times, [1_117_813_370_675_000, 1_117_813_370_000_000, 253_402_214_400_000_000]);
        assert_eq!(reasons, [r#"column "t": soon is not an event time the engine can keep"#]);
        assert_eq!(read(Arc::new(Date32Array::from(vec![-1])), t()).unwrap().0, [-86_400_000_000]);
        assert_eq!(read(Arc::new(TimestampNanosecondArray::from(vec![-1])), t()).unwrap().0, [-1]);
        assert_eq!(read(Timestamp::column(vec![5]), t()).unwrap().0, [5]);
    }

    #[test]
    fn columns_that_cannot_be_event_time_are_refused_by_name() {
        let flag = || Arc::new(BooleanArray::from(vec![true])) as ArrayRef;
        let error = read(flag(), t()).unwrap_err().to_string();
        assert!(error.starts_with(r#"column "t" is Boolean: event time is a timestamp"#), "{error}");
        let error = read(Arc::new(Int64Array::from(vec![1])), t()).unwrap_err().to_string();
        assert!(error.contains(r#"name its unit, as in EventTime::column("t").millis()"#), "{error}");
        let error = read(Timestamp::column(vec![5]), t().seconds()).unwrap_err().to_string();
        assert!(error.contains("it has a unit"), "{error}");
        let error = read(flag(), EventTime::column("time")).unwrap_err().to_string();
        assert!(error.contains(r#"there is no column "time""#), "{error}");
    }
}
