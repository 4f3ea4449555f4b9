//! Columns into bytes, for sinks: arrow's JSON lines and CSV writers, with the checks that they lack.
//!
//! Arrow's writers print a time that no calendar holds as the *text* `ERROR: ...`, as if it were the value. Here such
//! a batch is refused before anything of it is written.

use std::io::Write;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, new_empty_array},
    compute,
    csv::WriterBuilder,
    datatypes::{
        ArrowTemporalType, DataType, Date32Type, Date64Type, FieldRef, SchemaRef, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
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

/// Refuses a batch with a time outside the calendar, which Arrow's printers would turn into an error message in the
/// place of the value.
pub(crate) fn check_times(batch: &RecordBatch) -> Result<()> {
    let mut columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns.try_for_each(|(field, column)| check_column(field.name(), column))
}

/// Refuses times outside the calendar, also within structs and lists.
fn check_column(name: &str, column: &ArrayRef) -> Result<()> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => check_range::<TimestampSecondType>(name, column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => check_range::<TimestampMillisecondType>(name, column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => check_range::<TimestampMicrosecondType>(name, column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => check_range::<TimestampNanosecondType>(name, column),
        DataType::Date32 => check_range::<Date32Type>(name, column),
        DataType::Date64 => check_range::<Date64Type>(name, column),
        DataType::List(_) => check_column(name, column.as_list::<i32>().values()),
        DataType::Struct(fields) => {
            let inner = fields.iter().zip(column.as_struct().columns());
            inner.into_iter().try_for_each(|(field, column)| check_column(&format!("{name}.{}", field.name()), column))
        }
        _ => Ok(()),
    }
}

fn check_range<T: ArrowTemporalType>(name: &str, column: &ArrayRef) -> Result<()>
where
    i64: From<T::Native>,
{
    let values = column.as_primitive::<T>();
    let ends = [compute::min(values), compute::max(values)];
    let outside = ends.into_iter().flatten().map(i64::from).find(|value| !is_writable::<T>(*value));
    match outside {
        None => Ok(()),
        Some(value) => Err(ConnectorError::Data {
            at: format!("column {name:?}"),
            reason: format!("{value} as {} is a time outside the calendar, which text cannot hold", column.data_type()),
        }),
    }
}

/// Whether the calendar holds the time, with a day to spare for time zones.
fn is_writable<T: ArrowTemporalType>(value: i64) -> bool {
    let day = match T::DATA_TYPE {
        DataType::Date32 => 1,
        DataType::Timestamp(TimeUnit::Second, _) => 86_400,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 86_400_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => return true,
        _ => 86_400_000,
    };
    [value.checked_sub(day), value.checked_add(day)]
        .iter()
        .all(|value| value.is_some_and(|v| as_datetime::<T>(v).is_some()))
}
