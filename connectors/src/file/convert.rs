//! Columns of a file as the columns that are wanted of it, and the rows of which that cannot be made.
//!
//! Types fit or do not before the first row is read: numbers are numbers of another width, texts are texts, timestamps are timestamps of
//! another unit. Whether a value fits is seen when it comes. Nearly always all do, so a column is converted as a whole; if that fails,
//! its nulls are looked for, then its halves are converted, until the values are alone that are to blame.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array,
        new_empty_array, new_null_array,
    },
    compute::{CastOptions, cast_with_options, filter_record_batch, take},
    datatypes::{DataType, Decimal128Type, Decimal256Type, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::format::excerpt;

type Result<T, E = ArrowError> = std::result::Result<T, E>;

/// The rows that are no rows of what is wanted, by their number, and why.
type Bad = BTreeMap<usize, String>;

/// Makes the columns that are wanted.
#[derive(Debug)]
pub(super) struct Conversion {
    wanted: SchemaRef,
    /// For each wanted column where it is in what was read, unless it is null everywhere.
    places: Vec<Option<usize>>,
}

impl Conversion {
    /// A conversion of batches with the columns `read`. The error says which columns are not of a type that fits.
    pub(super) fn new(wanted: SchemaRef, read: &Schema) -> Result<Self, String> {
        let mut misfits = Vec::new();
        let mut places = Vec::with_capacity(wanted.fields().len());
        for field in wanted.fields() {
            let there = read.column_with_name(field.name());
            if let Some((_, there)) = there.filter(|(_, there)| !is_convertible(there.data_type(), field.data_type())) {
                let (name, there, wanted) = (field.name(), plain(there.data_type()), field.data_type());
                misfits.push(format!("column {name:?} is {there}, which cannot be read as {wanted}"));
            }
            places.push(there.map(|(place, _)| place));
        }
        if misfits.is_empty() { Ok(Self { wanted, places }) } else { Err(misfits.join("; ")) }
    }

    /// The rows with the wanted columns, and those that are none.
    pub(super) fn convert(&self, rows: &RecordBatch) -> Result<(RecordBatch, Bad)> {
        let mut bad = Bad::new();
        let mut columns = Vec::with_capacity(self.places.len());
        for (field, place) in self.wanted.fields().iter().zip(&self.places) {
            match place.map(|place| rows.column(place)) {
                None => columns.push(new_null_array(field.data_type(), rows.num_rows())),
                Some(values) => match column(field, values) {
                    Ok(column) => columns.push(column),
                    Err(_) => blame(field, values, &mut bad)?,
                },
            }
        }
        if bad.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            return Ok((RecordBatch::try_new_with_options(self.wanted.clone(), columns, &options)?, bad));
        }
        let good: BooleanArray = (0..rows.num_rows()).map(|row| Some(!bad.contains_key(&row))).collect();
        let (batch, worse) = self.convert(&filter_record_batch(rows, &good)?)?;
        match worse.into_iter().next() {
            None => Ok((batch, bad)),
            Some((_, reason)) => Err(ArrowError::ComputeError(format!("rows fit alone and not together: {reason}"))),
        }
    }
}

fn column(wanted: &FieldRef, values: &ArrayRef) -> Result<ArrayRef> {
    if !wanted.is_nullable() && values.logical_null_count() > 0 {
        return Err(ArrowError::InvalidArgumentError("there are nulls".into()));
    }
    check_decimals(values)?;
    cast(values, wanted.data_type())
}

/// The library believes the file that all are as short as it says.
fn check_decimals(values: &ArrayRef) -> Result<()> {
    match values.data_type() {
        DataType::Decimal128(precision, _) => {
            values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)
        }
        DataType::Decimal256(precision, _) => {
            values.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)
        }
        DataType::List(_) => check_decimals(values.as_list::<i32>().values()),
        DataType::Struct(_) => values.as_struct().columns().iter().try_for_each(check_decimals),
        DataType::Map(..) => values.as_map().entries().columns().iter().try_for_each(check_decimals),
        _ => Ok(()),
    }
}

/// A value as text. One whose zone nobody knows is no reason to fail.
pub(super) fn shown(values: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(values, &options).map_or_else(|_| "?".to_owned(), |values| values.value(row).to_string())
}

/// Finds the rows because of which a column cannot be made.
fn blame(wanted: &FieldRef, values: &ArrayRef, bad: &mut Bad) -> Result<()> {
    let name = wanted.name();
    let nulls = values.logical_nulls().filter(|_| !wanted.is_nullable());
    let is_null = |row: &usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(*row));
    for row in (0..values.len()).filter(is_null) {
        bad.entry(row).or_insert_with(|| format!("column {name:?} is null, and it is not nullable"));
    }
    let mut rest: Vec<Vec<u64>> = vec![(0..values.len()).filter(|row| !is_null(row)).map(|row| row as u64).collect()];
    while let Some(rows) = rest.pop() {
        // A slice would not do: what is within the lists of other rows would be converted too.
        let some = take(values, &UInt64Array::from(rows.clone()), None)?;
        if column(wanted, &some).is_ok() {
            continue;
        }
        if let [row] = rows[..] {
            let (value, data_type) = (shown(&some, 0), wanted.data_type());
            let reason = || format!("column {name:?}: {} does not fit {data_type}", excerpt(&value));
            bad.entry(row as usize).or_insert_with(reason);
            continue;
        }
        let (first, second) = rows.split_at(rows.len() / 2);
        rest.extend([first.to_vec(), second.to_vec()]);
    }
    Ok(())
}

/// The values as another type, all of them.
fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    match (values.data_type(), to) {
        (there, _) if there == to => Ok(values.clone()),
        (DataType::Null, _) => Ok(new_null_array(to, values.len())),
        // A time without a zone counts as UTC, which a cast would take for one of the other zone.
        (DataType::Timestamp(unit, _), DataType::Timestamp(to_unit, _)) => {
            let numbers = cast_with_options(values, &DataType::Int64, &options)?;
            let numbers: ArrayRef = Arc::new(in_unit(numbers.as_primitive::<Int64Type>(), *unit, *to_unit)?);
            cast_with_options(&numbers, to, &options)
        }
        _ => cast_with_options(values, to, &options),
    }
}

/// Times since 1970 in another unit. What is finer than it is cut off, towards the past.
fn in_unit(times: &Int64Array, from: TimeUnit, to: TimeUnit) -> Result<Int64Array> {
    let (from, to) = (per_second(from), per_second(to));
    if from >= to {
        return Ok(times.unary(|time| time.div_euclid(from / to)));
    }
    let beyond = || ArrowError::ArithmeticOverflow("the time is too far away".into());
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

/// Whether we read values of one type as the other, and Arrow can.
fn is_convertible(there: &DataType, wanted: &DataType) -> bool {
    fits(there, wanted) && cast(&new_empty_array(there), wanted).is_ok()
}

/// Whether values of one type can be read as the other, unless one of them is too large.
fn fits(there: &DataType, wanted: &DataType) -> bool {
    use DataType::{
        Decimal32, Decimal64, Decimal128, Decimal256, Dictionary, FixedSizeBinary, Float16, Int32, Int64, Null,
        Timestamp, UInt32, UInt64,
    };
    match (there, wanted) {
        (Null, _) | (Timestamp(..), Timestamp(..)) => true,
        // A batch may have more values than a shorter key can tell apart.
        (_, Dictionary(key, wanted)) => {
            let is_wide = matches!(key.as_ref(), Int32 | Int64 | UInt32 | UInt64);
            is_wide && (is_text(wanted) || is_bytes(wanted)) && fits(there, wanted)
        }
        // A plain number counts in the column's own unit, as in JSON.
        (Int32 | Int64, wanted) if wanted.is_temporal() => true,
        (
            Decimal32(_, there) | Decimal64(_, there) | Decimal128(_, there) | Decimal256(_, there),
            Decimal32(_, wanted) | Decimal64(_, wanted) | Decimal128(_, wanted) | Decimal256(_, wanted),
        ) => there <= wanted,
        _ if there.is_integer() => wanted.is_integer() || (wanted.is_floating() && *wanted != Float16),
        _ if there.is_floating() => wanted.is_floating() && there.primitive_width() <= wanted.primitive_width(),
        _ if is_text(there) => is_text(wanted),
        _ if is_bytes(there) => is_bytes(wanted) || is_text(wanted),
        (FixedSizeBinary(_), wanted) if is_bytes(wanted) => true,
        _ => is_alike(there, wanted),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether two types differ only in what is called how within them, what may be null there, how lists and texts are laid out, and in
/// what zone times are shown.
fn is_alike(there: &DataType, wanted: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct, Timestamp};
    let same_names = |a: &Fields, b: &Fields| a.iter().map(|it| it.name()).eq(b.iter().map(|it| it.name()));
    match (there, wanted) {
        (List(there) | LargeList(there), List(wanted) | LargeList(wanted) | FixedSizeList(wanted, _)) => {
            is_alike(there.data_type(), wanted.data_type())
        }
        (Map(there, sorted), Map(wanted, to_be_sorted)) => match (there.data_type(), wanted.data_type()) {
            (Struct(there), Struct(wanted)) => sorted == to_be_sorted && are_alike(there, wanted),
            _ => false,
        },
        (Struct(there), Struct(wanted)) => same_names(there, wanted) && are_alike(there, wanted),
        (Timestamp(there, Some(_)), Timestamp(wanted, Some(_))) => there == wanted,
        _ => there == wanted || (is_text(there) && is_text(wanted)) || (is_bytes(there) && is_bytes(wanted)),
    }
}

fn are_alike(there: &Fields, wanted: &Fields) -> bool {
    there.len() == wanted.len() && there.iter().zip(wanted).all(|(a, b)| is_alike(a.data_type(), b.data_type()))
}

/// What the user knows a type as: that we read it as views is our business.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}
