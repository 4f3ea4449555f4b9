//! Columns into bytes, for sinks: arrow's JSON lines and CSV writers, with the checks that they lack.
//!
//! Arrow's writers print a time that no calendar or no day holds as the *text* `ERROR: ...`, as if it were the value. Here
//! such a batch is refused before anything of it is written.

use std::io::Write;

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, RunArray, new_empty_array},
    compute,
    csv::WriterBuilder,
    datatypes::{
        ArrowTemporalType, DataType, Date32Type, Date64Type, DurationMillisecondType, DurationSecondType, FieldRef,
        Int16Type, Int32Type, Int64Type, SchemaRef, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
        Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType,
    },
    json::{
        LineDelimitedWriter,
        writer::{EncoderOptions, make_encoder},
    },
    temporal_conversions::as_datetime,
};

use super::{Format, config};
use crate::{ConnectorError, Result};

/// Writes batches as records of a format, into whatever bytes go to.
///
/// Nulls are left out of JSON objects and are empty fields in CSV. JSON has no NaN or infinity: they are written as
/// null. Times are RFC 3339 text.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::format::{Encoder, Format};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![7, 8]))])?;
/// let mut bytes = Vec::new();
/// Encoder::new(Format::CSV).encode(&batch, &mut bytes)?;
/// assert_eq!(bytes, b"price\n7\n8\n");
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    /// Whether the header of a CSV file is still to be written.
    begins: bool,
}

impl Encoder {
    /// An encoder for one file.
    pub fn new(format: Format) -> Self {
        Self { format, begins: true }
    }

    /// Writes the rows of `batch` to `out`. After an error `out` may hold a part of them.
    pub fn encode(&mut self, batch: &RecordBatch, out: impl Write) -> Result<()> {
        check_times(batch)?;
        match self.format {
            Format::Json => LineDelimitedWriter::new(out).write(batch)?,
            Format::Csv { delimiter } => {
                let header = std::mem::take(&mut self.begins);
                WriterBuilder::new().with_header(header).with_delimiter(delimiter).build(out).write(batch)?;
            }
        }
        Ok(())
    }

    /// Whether batches of `schema` can be written. The error names the column that cannot.
    pub fn accepts(format: Format, schema: &SchemaRef) -> Result<()> {
        schema.fields().iter().try_for_each(|field| accepts_field(format, field))
    }
}

fn accepts_field(format: Format, field: &FieldRef) -> Result<()> {
    let (name, data_type) = (field.name(), field.data_type());
    let refused =
        |hint: &str| Err(config(format!("column {name:?} ({data_type}) cannot be written as {format}: {hint}")));
    match format {
        Format::Csv { .. } if data_type.is_nested() => refused("CSV has no nested values; write JSON, or project it"),
        Format::Csv { .. } => Ok(()),
        Format::Json => {
            let array = new_empty_array(data_type);
            match make_encoder(field, &array, &EncoderOptions::default()) {
                Ok(_) => Ok(()),
                Err(_) => refused("JSON has no form for this type; project it away or cast it"),
            }
        }
    }
}

/// Refuses a batch with a time outside the calendar or the day, which Arrow's printers would turn into an error message
/// in the place of the value.
pub(crate) fn check_times(batch: &RecordBatch) -> Result<()> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if let Some(Outside { path, value, data_type }) = outside(column) {
            let name = format!("{}{path}", field.name());
            let reason = match data_type {
                DataType::Time32(_) | DataType::Time64(_) => "is not a time of a day",
                DataType::Duration(_) => "is too long a time for text",
                _ => "is a time outside the calendar, which text cannot hold",
            };
            return Err(ConnectorError::Data {
                at: format!("column {name:?}"),
                reason: format!("{value} as {data_type} {reason}"),
            });
        }
    }
    Ok(())
}

/// A time that has no text, and where it is within its column.
struct Outside {
    path: String,
    value: i64,
    data_type: DataType,
}

/// A time in the array that has no text. What lies within a null is not written, and not looked at.
fn outside(array: &ArrayRef) -> Option<Outside> {
    let found = outside_within(array)?;
    if array.null_count() == 0 {
        return Some(found);
    }
    match compute::is_not_null(array).and_then(|valid| compute::filter(array, &valid)) {
        Ok(written) => outside_within(&written),
        Err(_) => Some(found),
    }
}

/// The same, if the array itself has no nulls.
fn outside_within(array: &ArrayRef) -> Option<Outside> {
    let below = |path: &str, inner: &ArrayRef| {
        outside(inner).map(|found| Outside { path: format!("{path}{}", found.path), ..found })
    };
    match array.data_type() {
        data_type if !holds_times(data_type) => None,
        DataType::Timestamp(TimeUnit::Second, _) => out_of_range::<TimestampSecondType>(array),
        DataType::Timestamp(TimeUnit::Millisecond, _) => out_of_range::<TimestampMillisecondType>(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => out_of_range::<TimestampMicrosecondType>(array),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => out_of_range::<TimestampNanosecondType>(array),
        DataType::Date32 => out_of_range::<Date32Type>(array),
        DataType::Date64 => out_of_range::<Date64Type>(array),
        DataType::Time32(TimeUnit::Second) => out_of_range::<Time32SecondType>(array),
        DataType::Time32(_) => out_of_range::<Time32MillisecondType>(array),
        DataType::Time64(TimeUnit::Microsecond) => out_of_range::<Time64MicrosecondType>(array),
        DataType::Time64(_) => out_of_range::<Time64NanosecondType>(array),
        DataType::Duration(TimeUnit::Second) => out_of_range::<DurationSecondType>(array),
        DataType::Duration(TimeUnit::Millisecond) => out_of_range::<DurationMillisecondType>(array),
        DataType::Struct(fields) => {
            let mut inner = fields.iter().zip(array.as_struct().columns());
            inner.find_map(|(field, column)| below(&format!(".{}", field.name()), column))
        }
        DataType::Map(..) => elements(array)?.as_struct().columns().iter().find_map(|column| below("{}", column)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            below("", &compute::take(dictionary.values(), dictionary.keys(), None).ok()?)
        }
        DataType::RunEndEncoded(..) => below("", &runs(array)?),
        DataType::Union(..) => (0..array.len()).find_map(|row| below("", &array.as_union().value(row))),
        DataType::ListView(_) => (0..array.len()).find_map(|row| below("[]", &array.as_list_view::<i32>().value(row))),
        DataType::LargeListView(_) => {
            (0..array.len()).find_map(|row| below("[]", &array.as_list_view::<i64>().value(row)))
        }
        _ => below("[]", &elements(array)?),
    }
}

/// Whether values of the type are times, or have some in them, which may have no text.
fn holds_times(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::Timestamp(..) | D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) => true,
        D::Duration(unit) => matches!(unit, TimeUnit::Second | TimeUnit::Millisecond),
        D::List(item) | D::LargeList(item) | D::ListView(item) | D::LargeListView(item) | D::FixedSizeList(item, _) => {
            holds_times(item.data_type())
        }
        D::Map(entries, _) => holds_times(entries.data_type()),
        D::Struct(fields) => fields.iter().any(|field| holds_times(field.data_type())),
        D::Union(fields, _) => fields.iter().any(|(_, field)| holds_times(field.data_type())),
        D::Dictionary(_, values) => holds_times(values),
        D::RunEndEncoded(_, values) => holds_times(values.data_type()),
        _ => false,
    }
}

/// What is in the lists or maps of the array, without what lies before the first and behind the last of them.
pub(super) fn elements(array: &ArrayRef) -> Option<ArrayRef> {
    fn used<O: OffsetSizeTrait>(offsets: &[O], values: &dyn Array) -> Option<ArrayRef> {
        let (first, last) = (offsets.first()?.as_usize(), offsets.last()?.as_usize());
        Some(values.slice(first, last - first))
    }
    match array.data_type() {
        DataType::List(_) => used(array.as_list::<i32>().value_offsets(), array.as_list::<i32>().values()),
        DataType::LargeList(_) => used(array.as_list::<i64>().value_offsets(), array.as_list::<i64>().values()),
        DataType::Map(..) => used(array.as_map().value_offsets(), array.as_map().entries()),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().values().clone()),
        _ => None,
    }
}

/// The values of the runs that the array shows.
fn runs(array: &ArrayRef) -> Option<ArrayRef> {
    let short = || array.as_run_opt::<Int16Type>().map(RunArray::values_slice);
    let long = || array.as_run_opt::<Int64Type>().map(RunArray::values_slice);
    array.as_run_opt::<Int32Type>().map(RunArray::values_slice).or_else(short).or_else(long)
}

fn out_of_range<T: ArrowTemporalType>(array: &ArrayRef) -> Option<Outside>
where
    i64: From<T::Native>,
{
    let values = array.as_primitive::<T>();
    let ends = [compute::min(values), compute::max(values)];
    let value = ends.into_iter().flatten().map(i64::from).find(|value| !is_writable::<T>(*value))?;
    Some(Outside { path: String::new(), value, data_type: array.data_type().clone() })
}

/// Whether the time has a text: the day or the calendar holds it, the calendar with a day to spare for time zones.
fn is_writable<T: ArrowTemporalType>(value: i64) -> bool {
    let day = match T::DATA_TYPE {
        DataType::Time32(unit) | DataType::Time64(unit) => return (0..per_day(unit)).contains(&value),
        DataType::Duration(TimeUnit::Second) => return value.checked_mul(1_000).is_some_and(|value| value > i64::MIN),
        DataType::Duration(_) => return value > i64::MIN,
        DataType::Date32 => 1,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => return true,
        DataType::Timestamp(unit, _) => per_day(unit),
        _ => per_day(TimeUnit::Millisecond),
    };
    [value.checked_sub(day), value.checked_add(day)]
        .iter()
        .all(|value| value.is_some_and(|v| as_datetime::<T>(v).is_some()))
}

fn per_day(unit: TimeUnit) -> i64 {
    86_400
        * match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        }
}
