//! Columns of a file as the columns that are wanted of it, and the rows of which that cannot be made.
//!
//! Types fit or do not before the first row is read: numbers are numbers of another width, texts are texts, times are times of another
//! unit. Whether a value fits is seen when it comes. Nearly always all do, so a batch is converted as a whole; if that fails, its
//! halves are, until the rows are alone that are to blame.

use std::collections::HashSet;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array},
    compute::{CastOptions, cast_with_options, concat_batches, take_record_batch},
    datatypes::{DataType, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::{Result, format::excerpt};

/// Makes the columns that are wanted.
#[derive(Debug)]
pub(super) struct Conversion {
    wanted: SchemaRef,
    /// For each wanted column where it is in what was read, unless it is null everywhere.
    places: Vec<Option<usize>>,
    /// Those of them with text of which nobody has seen yet whether it is UTF-8.
    unchecked: Vec<bool>,
}

impl Conversion {
    /// A conversion of batches with the columns `read`. The error says which column is not of a type that fits.
    pub(super) fn new(wanted: SchemaRef, read: &Schema, unchecked: &HashSet<String>) -> Result<Self, String> {
        let mut misfits = Vec::new();
        let mut places = Vec::with_capacity(wanted.fields().len());
        for field in wanted.fields() {
            let there = read.column_with_name(field.name());
            if let Some((_, there)) = there.filter(|(_, there)| !fits(there.data_type(), field.data_type())) {
                let (name, there, wanted) = (field.name(), plain(there.data_type()), field.data_type());
                misfits.push(format!("column {name:?} is {there}, which cannot be read as {wanted}"));
            }
            places.push(there.map(|(place, _)| place));
        }
        let unchecked = wanted.fields().iter().map(|field| unchecked.contains(field.name())).collect();
        if misfits.is_empty() { Ok(Self { wanted, places, unchecked }) } else { Err(misfits.join("; ")) }
    }

    /// The rows with the wanted columns, and those that are none, by their number, with the reason.
    pub(super) fn convert(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<(usize, String)>)> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        self.sort_out(rows, 0, &mut good, &mut bad)?;
        let batch = match good.len() {
            1 => good.remove(0),
            _ => concat_batches(&self.wanted, &good)?,
        };
        Ok((batch, bad))
    }

    fn sort_out(
        &self,
        rows: &RecordBatch,
        first: usize,
        good: &mut Vec<RecordBatch>,
        bad: &mut Vec<(usize, String)>,
    ) -> Result<()> {
        match self.whole(rows) {
            Ok(batch) => good.push(batch),
            Err(reason) if rows.num_rows() <= 1 => bad.push((first, reason)),
            Err(_) => {
                let half = rows.num_rows() / 2;
                for (from, to) in [(0, half), (half, rows.num_rows())] {
                    // A slice would not do: what is within the lists of other rows would be converted too.
                    let part = take_record_batch(rows, &UInt64Array::from_iter_values(from as u64..to as u64))?;
                    self.sort_out(&part, first + from, good, bad)?;
                }
            }
        }
        Ok(())
    }

    /// All rows, or why not, in words for one of them alone.
    fn whole(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        let columns = self.wanted.fields().iter().zip(&self.places).zip(&self.unchecked);
        let columns = columns.map(|((field, place), unchecked)| match place {
            Some(place) => column(field, rows.column(*place), *unchecked),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        });
        let (columns, options) = (columns.collect::<Result<_, _>>()?, RecordBatchOptions::new());
        let options = options.with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.wanted.clone(), columns, &options).map_err(|error| error.to_string())
    }
}

fn column(wanted: &FieldRef, values: &ArrayRef, unchecked: bool) -> Result<ArrayRef, String> {
    let (name, data_type) = (wanted.name(), wanted.data_type());
    if unchecked && has_text(values.data_type()) {
        values.to_data().validate_full().map_err(|error| format!("column {name:?}: {error}"))?;
    }
    if !wanted.is_nullable() && values.null_count() > 0 {
        return Err(format!("column {name:?} is null, and it is not nullable"));
    }
    if values.data_type() == data_type {
        return Ok(values.clone());
    }
    cast(values, data_type).map_err(|error| {
        let first = ArrayFormatter::try_new(values, &FormatOptions::default().with_null("null"));
        let first = first.ok().filter(|_| !values.is_empty()).map(|first| first.value(0).to_string());
        match first {
            Some(first) => format!("column {name:?}: {} does not fit {data_type}", excerpt(&first)),
            None => format!("column {name:?}: {error}"),
        }
    })
}

/// The values as another type, all of them.
fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let DataType::Timestamp(to_unit, _) = to else { return cast_with_options(values, to, &options) };
    let DataType::Timestamp(unit, _) = values.data_type() else { return cast_with_options(values, to, &options) };
    // A time without a zone counts as UTC, which a cast would take for one of the other zone.
    let numbers = cast_with_options(values, &DataType::Int64, &options)?;
    let numbers = in_unit(numbers.as_primitive::<Int64Type>(), *unit, *to_unit)?;
    cast_with_options(&numbers, to, &options)
}

/// Times since 1970 in another unit. What is finer than it is cut off, towards the past.
fn in_unit(times: &Int64Array, from: TimeUnit, to: TimeUnit) -> Result<Int64Array, arrow::error::ArrowError> {
    let (from, to) = (per_second(from), per_second(to));
    if from >= to {
        return Ok(times.unary(|time| time.div_euclid(from / to)));
    }
    let beyond = || arrow::error::ArrowError::ArithmeticOverflow("the time is too far away".into());
    times.try_unary(|time| time.checked_mul(to / from).ok_or_else(beyond))
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Whether values of one type can be read as the other, unless one of them is too large.
fn fits(there: &DataType, wanted: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256, Dictionary, Int32, Int64, Timestamp};
    match (there, wanted) {
        (_, Dictionary(_, wanted)) => fits(there, wanted),
        (Timestamp(..), Timestamp(..)) => true,
        // A plain number counts in the column's own unit, as in JSON.
        (Int32 | Int64, wanted) if wanted.is_temporal() => arrow::compute::can_cast_types(there, wanted),
        (
            Decimal32(_, there) | Decimal64(_, there) | Decimal128(_, there) | Decimal256(_, there),
            Decimal32(_, wanted) | Decimal64(_, wanted) | Decimal128(_, wanted) | Decimal256(_, wanted),
        ) => there <= wanted,
        _ if there.is_integer() => wanted.is_integer() || wanted.is_floating(),
        _ if there.is_floating() => wanted.is_floating() && there.primitive_width() <= wanted.primitive_width(),
        _ if is_text(there) => is_text(wanted),
        _ if is_bytes(there) => is_bytes(wanted) || is_text(wanted),
        _ => is_alike(there, wanted),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether two types differ only in what is called how within them, what may be null there, and how lists and texts are laid out.
fn is_alike(there: &DataType, wanted: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    let same_names = |a: &Fields, b: &Fields| a.iter().map(|it| it.name()).eq(b.iter().map(|it| it.name()));
    match (there, wanted) {
        (List(there) | LargeList(there), List(wanted) | LargeList(wanted) | FixedSizeList(wanted, _)) => {
            is_alike(there.data_type(), wanted.data_type())
        }
        (Map(there, _), Map(wanted, _)) => match (there.data_type(), wanted.data_type()) {
            (Struct(there), Struct(wanted)) => are_alike(there, wanted),
            _ => false,
        },
        (Struct(there), Struct(wanted)) => same_names(there, wanted) && are_alike(there, wanted),
        _ => there == wanted || (is_text(there) && is_text(wanted)) || (is_bytes(there) && is_bytes(wanted)),
    }
}

fn are_alike(there: &Fields, wanted: &Fields) -> bool {
    there.len() == wanted.len() && there.iter().zip(wanted).all(|(a, b)| is_alike(a.data_type(), b.data_type()))
}

/// Whether there is text in values of a type.
fn has_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|field| has_text(field.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_text(item.data_type()),
        other => is_text(other),
    }
}

/// What the user knows a type as: that we read it as views is our business.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}
