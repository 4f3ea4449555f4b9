//! Column buffers built from a schema, which take one value at a time and can be cut back.
//!
//! Arrow's own builders cannot forget a value. These can ([`Columns::truncate`]), so a record that turns out to be bad
//! half-way is undone for nothing but the cost of that record, and every array that leaves here is free of filler.

use std::{mem, sync::Arc};

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray,
        LargeStringArray, ListArray, MapArray, NullBufferBuilder, PrimitiveArray, RecordBatch, RecordBatchOptions,
        StringArray, StringViewArray, StructArray, timezone::Tz,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, SchemaRef, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
        Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{config, keys::Keys, text};
use crate::Result;

/// Why a value does not go into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is of the right kind, but too large, too small, or not whole.
    Range,
    /// It is something else.
    Kind,
    /// It is null or missing, and the column is not nullable.
    Null,
}

/// What a format's values can be, beyond numbers, text and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// Nothing else.
    Csv,
    /// Structs and lists.
    Json,
    /// Structs, lists and bytes.
    Binary,
    /// These, and maps, bytes of a fixed number, decimals and times of day.
    Avro,
}

/// The buffers of some columns: those of a batch, or of a struct within it.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) fields: Fields,
    pub(super) columns: Vec<Column>,
    pub(super) keys: Keys,
    rows: usize,
}

impl Columns {
    /// Empty buffers. `within` is the path of the struct, empty for a batch.
    pub(super) fn new(fields: &Fields, within: &str, medium: Medium) -> Result<Self> {
        let mut columns = Vec::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            let path = if within.is_empty() { field.name().clone() } else { format!("{within}.{}", field.name()) };
            if fields[..i].iter().any(|other| other.name() == field.name()) {
                return Err(config(format!("two columns are called {path:?}: a record could not tell them apart")));
            }
            columns.push(Column::new(field, &path, medium)?);
        }
        let keys = Keys::new(fields.iter().map(|field| field.name().as_str()));
        Ok(Self { fields: fields.clone(), columns, keys, rows: 0 })
    }

    /// The complete rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Completes the row: columns without a value get null. On an error, which names the column, the row is open.
    pub(super) fn end_row(&mut self) -> Result<(), usize> {
        for (i, column) in self.columns.iter_mut().enumerate() {
            if column.len == self.rows {
                column.push_null().map_err(|_| i)?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// A row that nobody sees, because the struct is null there.
    fn push_filler(&mut self) {
        for column in &mut self.columns {
            column.push_filler();
        }
        self.rows += 1;
    }

    /// Forgets all but the first `rows` rows, and what was written of an open one.
    pub(super) fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.rows = rows;
    }

    /// About how many bytes the values take.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// Gives the rows away as a batch of `schema`, whose columns these are.
    pub(super) fn batch(&mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), self.take()?, &options)?)
    }

    /// Gives the rows away as arrays.
    pub(super) fn take(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns.iter_mut().map(Column::take).collect()
    }
}

/// The buffer of one column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) field: FieldRef,
    len: usize,
    /// `None` for a column that is not nullable.
    validity: Option<NullBufferBuilder>,
    pub(super) values: Values,
    width: usize,
}

#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Date32(Vec<i32>),
    Timestamp { values: Vec<i64>, unit: TimeUnit, utc: Tz },
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    LargeText { ends: Vec<i64>, bytes: Vec<u8> },
    Struct(Columns),
    Bytes { ends: Vec<i32>, bytes: Vec<u8> },
    Fixed { size: usize, bytes: Vec<u8> },
    Decimal(Vec<i128>),
    Time32 { values: Vec<i32>, unit: TimeUnit },
    Time64 { values: Vec<i64>, unit: TimeUnit },
    Map { ends: Vec<i32>, entries: Columns, field: FieldRef },
    List { ends: Vec<i32>, item: Box<Column> },
}

impl Values {
    fn new(field: &Field, path: &str, medium: Medium) -> Result<Self> {
        let nested = medium != Medium::Csv;
        let bytes = matches!(medium, Medium::Binary | Medium::Avro);
        Ok(match field.data_type() {
            DataType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::UInt8 => Self::UInt8(Vec::new()),
            DataType::UInt16 => Self::UInt16(Vec::new()),
            DataType::UInt32 => Self::UInt32(Vec::new()),
            DataType::UInt64 => Self::UInt64(Vec::new()),
            DataType::Float32 => Self::Float32(Vec::new()),
            DataType::Float64 => Self::Float64(Vec::new()),
            DataType::Date32 => Self::Date32(Vec::new()),
            DataType::Timestamp(unit, _) => Self::Timestamp { values: Vec::new(), unit: *unit, utc: "+00:00".parse()? },
            DataType::Utf8 | DataType::Utf8View => Self::Text { ends: vec![0], bytes: Vec::new() },
            DataType::LargeUtf8 => Self::LargeText { ends: vec![0], bytes: Vec::new() },
            DataType::Struct(fields) if nested => Self::Struct(Columns::new(fields, path, medium)?),
            DataType::List(item) if nested => {
                let item = Box::new(Column::new(item, &format!("{path}[]"), medium)?);
                Self::List { ends: vec![0], item }
            }
            DataType::Binary if bytes => Self::Bytes { ends: vec![0], bytes: Vec::new() },
            DataType::FixedSizeBinary(size) if medium == Medium::Avro && *size >= 0 => {
                Self::Fixed { size: usize::try_from(*size).unwrap_or_default(), bytes: Vec::new() }
            }
            DataType::Decimal128(..) if medium == Medium::Avro => Self::Decimal(Vec::new()),
            DataType::Time32(unit) if medium == Medium::Avro => Self::Time32 { values: Vec::new(), unit: *unit },
            DataType::Time64(unit) if medium == Medium::Avro => Self::Time64 { values: Vec::new(), unit: *unit },
            DataType::Map(field, false) if medium == Medium::Avro => {
                let DataType::Struct(fields) = field.data_type() else {
                    return Err(config(format!("column {path:?} is a map without entries")));
                };
                let entries = Columns::new(fields, &format!("{path}{{}}"), medium)?;
                Self::Map { ends: vec![0], entries, field: field.clone() }
            }
            other => {
                let (source, more) = match medium {
                    Medium::Csv => ("CSV", ""),
                    Medium::Json => ("JSON", ", or a struct or list of these"),
                    Medium::Binary => ("this format", ", Binary, or a struct or list of these"),
                    Medium::Avro => ("Avro", ", decimal of 128 bits, time, binary, or a struct, list or map of these"),
                };
                return Err(config(format!(
                    "column {path:?} has the type {other}, which cannot be read from {source}: choose a boolean, \
                     integer, float, text, date or timestamp type{more}"
                )));
            }
        })
    }
}

/// Writes a number into a column of any type of number: `$whole` makes it an integer of the column's width, `$f32` and
/// `$f64` are its forms for float columns.
macro_rules! push_number {
    ($values:expr, $value:expr, $whole:ident, $f32:expr, $f64:expr) => {
        match $values {
            Values::Int64(values) => values.push($whole($value)?),
            Values::Float64(values) => values.push($f64),
            Values::Timestamp { values, .. } | Values::Time64 { values, .. } => values.push($whole($value)?),
            Values::Time32 { values, .. } => values.push($whole($value)?),
            Values::Int32(values) | Values::Date32(values) => values.push($whole($value)?),
            Values::UInt64(values) => values.push($whole($value)?),
            Values::UInt32(values) => values.push($whole($value)?),
            Values::Int16(values) => values.push($whole($value)?),
            Values::Int8(values) => values.push($whole($value)?),
            Values::UInt16(values) => values.push($whole($value)?),
            Values::UInt8(values) => values.push($whole($value)?),
            Values::Float32(values) => values.push($f32),
            _ => return Err(Misfit::Kind),
        }
    };
}

fn narrow<T, N: TryFrom<T>>(value: T) -> Result<N, Misfit> {
    N::try_from(value).map_err(|_| Misfit::Range)
}

fn no_fraction<N>(_: f64) -> Result<N, Misfit> {
    Err(Misfit::Range)
}

fn single(value: f64) -> Result<f32, Misfit> {
    let rounded = value as f32;
    if rounded.is_infinite() { Err(Misfit::Range) } else { Ok(rounded) }
}

impl Column {
    fn new(field: &FieldRef, path: &str, medium: Medium) -> Result<Self> {
        let validity = field.is_nullable().then(|| NullBufferBuilder::new(0));
        let values = Values::new(field, path, medium)?;
        let width = match &values {
            Values::Struct(columns) => 1 + columns.columns.iter().map(|column| column.width).sum::<usize>(),
            _ => 1,
        };
        Ok(Self { field: field.clone(), len: 0, validity, values, width })
    }

    /// The values, with that of an open row if it is there already.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many values one value takes at least: those of a struct are there also where it is empty or null.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// About how many bytes the values take.
    fn bytes(&self) -> usize {
        let each = match &self.values {
            Values::Struct(columns) => return columns.bytes(),
            Values::List { item, .. } => return self.len * 4 + item.bytes(),
            Values::Map { entries, .. } => return self.len * 4 + entries.bytes(),
            Values::Text { bytes, .. } | Values::Bytes { bytes, .. } => return self.len * 4 + bytes.len(),
            Values::LargeText { bytes, .. } => return self.len * 8 + bytes.len(),
            Values::Fixed { bytes, .. } => return bytes.len(),
            Values::Boolean(_) => return self.len / 8,
            Values::Decimal(_) => 16,
            _ => 8,
        };
        self.len * each
    }

    /// Counts the value that was just written.
    #[inline]
    pub(super) fn written(&mut self) {
        self.len += 1;
        if let Some(validity) = &mut self.validity {
            validity.append_non_null();
        }
    }

    pub(super) fn push_null(&mut self) -> Result<(), Misfit> {
        if self.validity.is_none() {
            return Err(Misfit::Null);
        }
        self.push_filler();
        Ok(())
    }

    /// Null, or any value where null is not allowed: for places that nobody sees.
    fn push_filler(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date32(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::UInt8(values) => values.push(0),
            Values::UInt16(values) => values.push(0),
            Values::UInt32(values) => values.push(0),
            Values::UInt64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Text { ends, .. }
            | Values::Bytes { ends, .. }
            | Values::Map { ends, .. }
            | Values::List { ends, .. } => ends.push(ends[self.len]),
            Values::Fixed { size, bytes } => bytes.resize(bytes.len() + *size, 0),
            Values::Decimal(values) => values.push(0),
            Values::Time32 { values, .. } => values.push(0),
            Values::Time64 { values, .. } => values.push(0),
            Values::LargeText { ends, .. } => ends.push(ends[self.len]),
            Values::Struct(columns) => columns.push_filler(),
        }
        self.len += 1;
        if let Some(validity) = &mut self.validity {
            validity.append_null();
        }
    }

    pub(super) fn push_bool(&mut self, value: bool) -> Result<(), Misfit> {
        let Values::Boolean(values) = &mut self.values else { return Err(Misfit::Kind) };
        values.append(value);
        self.written();
        Ok(())
    }

    pub(super) fn push_i64(&mut self, value: i64) -> Result<(), Misfit> {
        push_number!(&mut self.values, value, narrow, value as f32, value as f64);
        self.written();
        Ok(())
    }

    pub(super) fn push_u64(&mut self, value: u64) -> Result<(), Misfit> {
        push_number!(&mut self.values, value, narrow, value as f32, value as f64);
        self.written();
        Ok(())
    }

    /// A number that was written with a fraction or an exponent, or is beyond 64 bits: never whole.
    pub(super) fn push_f64(&mut self, value: f64) -> Result<(), Misfit> {
        push_number!(&mut self.values, value, no_fraction, single(value)?, value);
        self.written();
        Ok(())
    }

    /// A number of 32 bits, which is as it is also when it is infinite or none.
    #[cfg(feature = "kafka")]
    pub(super) fn push_f32(&mut self, value: f32) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Float32(values) => values.push(value),
            Values::Float64(values) => values.push(f64::from(value)),
            _ => return Err(Misfit::Kind),
        }
        self.written();
        Ok(())
    }

    /// Text of a format with types: it goes into text columns, and is how such a format writes times.
    pub(super) fn push_text(&mut self, value: &str) -> Result<(), Misfit> {
        self.push_utf8(value.as_bytes())
    }

    /// The same, for bytes that the caller knows to be UTF-8. (With others there would be an error instead of a batch.)
    pub(super) fn push_utf8(&mut self, value: &[u8]) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Text { ends, bytes } => {
                let end = narrow(bytes.len() + value.len())?;
                bytes.extend_from_slice(value);
                ends.push(end);
            }
            Values::LargeText { ends, bytes } => {
                let end = narrow(bytes.len() + value.len())?;
                bytes.extend_from_slice(value);
                ends.push(end);
            }
            Values::Timestamp { values, unit, utc } => values.push(text::timestamp(value, *unit, utc)?),
            Values::Date32(values) => values.push(text::date(str::from_utf8(value).map_err(|_| Misfit::Kind)?)?),
            _ => return Err(Misfit::Kind),
        }
        self.written();
        Ok(())
    }

    #[cfg_attr(not(feature = "kafka"), allow(dead_code))]
    pub(super) fn push_bytes(&mut self, value: &[u8]) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Bytes { ends, bytes } => {
                let end = narrow(bytes.len() + value.len())?;
                bytes.extend_from_slice(value);
                ends.push(end);
            }
            Values::Fixed { size, bytes } if *size == value.len() => bytes.extend_from_slice(value),
            Values::Fixed { .. } => return Err(Misfit::Range),
            _ => return Err(Misfit::Kind),
        }
        self.written();
        Ok(())
    }

    /// A decimal of the column's scale, without its point.
    #[cfg(feature = "kafka")]
    pub(super) fn push_decimal(&mut self, value: i128) -> Result<(), Misfit> {
        let Values::Decimal(values) = &mut self.values else { return Err(Misfit::Kind) };
        values.push(value);
        self.written();
        Ok(())
    }

    /// A field of a format that knows text only. Empty is null, or the empty text where null is not allowed.
    pub(super) fn push_field(&mut self, field: &str) -> Result<(), Misfit> {
        let is_text = matches!(self.values, Values::Text { .. } | Values::LargeText { .. });
        if field.is_empty() && (self.validity.is_some() || !is_text) {
            return self.push_null();
        }
        match &mut self.values {
            Values::Boolean(values) => values.append(text::boolean(field)?),
            Values::Int8(values) => values.push(text::whole(field)?),
            Values::Int16(values) => values.push(text::whole(field)?),
            Values::Int32(values) => values.push(text::whole(field)?),
            Values::Int64(values) => values.push(text::whole(field)?),
            Values::UInt8(values) => values.push(text::whole(field)?),
            Values::UInt16(values) => values.push(text::whole(field)?),
            Values::UInt32(values) => values.push(text::whole(field)?),
            Values::UInt64(values) => values.push(text::whole(field)?),
            Values::Float32(values) => values.push(text::float(field)?),
            Values::Float64(values) => values.push(text::float(field)?),
            Values::Timestamp { values, unit, utc } => values.push(text::timestamp_field(field, *unit, utc)?),
            _ => return self.push_text(field),
        }
        self.written();
        Ok(())
    }

    /// Ends the list whose elements were pushed into the item column, or the map whose entries were.
    pub(super) fn end_list(&mut self) -> Result<(), Misfit> {
        match &mut self.values {
            Values::List { ends, item } => ends.push(narrow(item.len)?),
            Values::Map { ends, entries, .. } => ends.push(narrow(entries.rows)?),
            _ => return Err(Misfit::Kind),
        }
        self.written();
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int8(values) => values.truncate(len),
            Values::Int16(values) => values.truncate(len),
            Values::Int32(values) | Values::Date32(values) => values.truncate(len),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.truncate(len),
            Values::UInt8(values) => values.truncate(len),
            Values::UInt16(values) => values.truncate(len),
            Values::UInt32(values) => values.truncate(len),
            Values::UInt64(values) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Text { ends, bytes } | Values::Bytes { ends, bytes } => {
                ends.truncate(len + 1);
                bytes.truncate(ends[len] as usize);
            }
            Values::LargeText { ends, bytes } => {
                ends.truncate(len + 1);
                bytes.truncate(ends[len] as usize);
            }
            Values::Fixed { size, bytes } => bytes.truncate(len * *size),
            Values::Decimal(values) => values.truncate(len),
            Values::Time32 { values, .. } => values.truncate(len),
            Values::Time64 { values, .. } => values.truncate(len),
            Values::Map { ends, entries, .. } => {
                ends.truncate(len + 1);
                entries.truncate(ends[len] as usize);
            }
            Values::Struct(columns) => columns.truncate(len),
            Values::List { ends, item } => {
                ends.truncate(len + 1);
                item.truncate(ends[len] as usize);
            }
        }
        self.len = len;
        if let Some(validity) = &mut self.validity {
            validity.truncate(len);
        }
    }

    /// Gives the values away as an array, and makes room for as many.
    fn take(&mut self) -> Result<ArrayRef> {
        let len = mem::take(&mut self.len);
        let nulls = self.validity.as_mut().and_then(NullBufferBuilder::finish);
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int8(values) => Arc::new(numbers::<Int8Type>(values, nulls)?),
            Values::Int16(values) => Arc::new(numbers::<Int16Type>(values, nulls)?),
            Values::Int32(values) => Arc::new(numbers::<Int32Type>(values, nulls)?),
            Values::Int64(values) => Arc::new(numbers::<Int64Type>(values, nulls)?),
            Values::UInt8(values) => Arc::new(numbers::<UInt8Type>(values, nulls)?),
            Values::UInt16(values) => Arc::new(numbers::<UInt16Type>(values, nulls)?),
            Values::UInt32(values) => Arc::new(numbers::<UInt32Type>(values, nulls)?),
            Values::UInt64(values) => Arc::new(numbers::<UInt64Type>(values, nulls)?),
            Values::Float32(values) => Arc::new(numbers::<Float32Type>(values, nulls)?),
            Values::Float64(values) => Arc::new(numbers::<Float64Type>(values, nulls)?),
            Values::Date32(values) => Arc::new(numbers::<Date32Type>(values, nulls)?),
            Values::Timestamp { values, unit, .. } => times(values, *unit, nulls, self.field.data_type())?,
            Values::Text { ends, bytes } => {
                let array = StringArray::try_new(offsets(ends), text_bytes(bytes), nulls)?;
                match self.field.data_type() {
                    DataType::Utf8View => Arc::new(StringViewArray::from(&array)),
                    _ => Arc::new(array),
                }
            }
            Values::LargeText { ends, bytes } => {
                Arc::new(LargeStringArray::try_new(offsets(ends), text_bytes(bytes), nulls)?)
            }
            Values::Bytes { ends, bytes } => Arc::new(BinaryArray::try_new(offsets(ends), text_bytes(bytes), nulls)?),
            Values::Fixed { size, bytes } => fixed(*size, bytes, nulls, len)?,
            Values::Decimal(values) => {
                let array = numbers::<Decimal128Type>(values, nulls)?;
                Arc::new(array.with_data_type(self.field.data_type().clone()))
            }
            Values::Time32 { values, unit: TimeUnit::Second } => Arc::new(numbers::<Time32SecondType>(values, nulls)?),
            Values::Time32 { values, .. } => Arc::new(numbers::<Time32MillisecondType>(values, nulls)?),
            Values::Time64 { values, unit: TimeUnit::Microsecond } => {
                Arc::new(numbers::<Time64MicrosecondType>(values, nulls)?)
            }
            Values::Time64 { values, .. } => Arc::new(numbers::<Time64NanosecondType>(values, nulls)?),
            Values::Map { ends, entries, field } => {
                let rows = entries.rows;
                let arrays = entries.take()?;
                let entries = StructArray::try_new_with_length(entries.fields.clone(), arrays, None, rows)?;
                Arc::new(MapArray::try_new(field.clone(), offsets(ends), entries, nulls, false)?)
            }
            Values::Struct(columns) => {
                let arrays = columns.take()?;
                Arc::new(StructArray::try_new_with_length(columns.fields.clone(), arrays, nulls, len)?)
            }
            Values::List { ends, item } => {
                let values = item.take()?;
                Arc::new(ListArray::try_new(item.field.clone(), offsets(ends), values, nulls)?)
            }
        })
    }
}

fn numbers<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<PrimitiveArray<T>> {
    let room = Vec::with_capacity(values.len());
    Ok(PrimitiveArray::try_new(ScalarBuffer::from(mem::replace(values, room)), nulls)?)
}

/// Bytes of a fixed number each. Of none at all, their number cannot be told from the buffer.
fn fixed(size: usize, bytes: &mut Vec<u8>, nulls: Option<NullBuffer>, len: usize) -> Result<ArrayRef> {
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let array = FixedSizeBinaryArray::try_new_with_len(size, text_bytes(bytes), nulls, len)?;
    Ok(Arc::new(array))
}

fn times(values: &mut Vec<i64>, unit: TimeUnit, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef> {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok(match unit {
        TimeUnit::Second => Arc::new(numbers::<TimestampSecondType>(values, nulls)?.with_timezone_opt(zone)),
        TimeUnit::Millisecond => Arc::new(numbers::<TimestampMillisecondType>(values, nulls)?.with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(numbers::<TimestampMicrosecondType>(values, nulls)?.with_timezone_opt(zone)),
        TimeUnit::Nanosecond => Arc::new(numbers::<TimestampNanosecondType>(values, nulls)?.with_timezone_opt(zone)),
    })
}

fn offsets<O: arrow::array::OffsetSizeTrait>(ends: &mut Vec<O>) -> OffsetBuffer<O> {
    let mut room = Vec::with_capacity(ends.len());
    room.push(O::default());
    OffsetBuffer::new(ScalarBuffer::from(mem::replace(ends, room)))
}

fn text_bytes(bytes: &mut Vec<u8>) -> Buffer {
    let room = Vec::with_capacity(bytes.len());
    Buffer::from_vec(mem::replace(bytes, room))
}
