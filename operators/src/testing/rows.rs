//! Rows as plain values, so that a batch of the operators and a tuple of the oracle can be compared, sorted and printed.

use std::fmt;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, cast::AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, UInt64Type},
    util::display::{ArrayFormatter, FormatOptions},
};

use super::Record;
use crate::Timestamp;

/// One value of a row. Numbers compare by value over all integer widths, and a [`Timestamp`] is its microseconds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Null,
    Bool(bool),
    Int(i128),
    /// The bits, in an order that sorts like the numbers. All zeros are one value, and all NaNs.
    Float(i64),
    Text(String),
}

impl Value {
    /// The absence of a value.
    pub const NULL: Self = Self(Repr::Null);
}

/// One row: the form in which an oracle gives what it expects. Made of a tuple, or of a `Vec<Value>`.
///
/// ```
/// use windrow_operators::testing::Row;
/// assert_eq!(Row::from((1_i64, "a", None::<f64>)).to_string(), r#"(1, "a", null)"#);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row(Vec<Value>);

impl Row {
    /// Its values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.0
    }
}

impl From<Vec<Value>> for Row {
    fn from(values: Vec<Value>) -> Self {
        Self(values)
    }
}

macro_rules! row_from_tuple {
    ($($name:ident)+) => {
        impl<$($name: Into<Value>),+> From<($($name,)+)> for Row {
            #[allow(non_snake_case, reason = "the names of the type parameters serve as names of the fields")]
            fn from(($($name,)+): ($($name,)+)) -> Self {
                Self(vec![$($name.into()),+])
            }
        }
    };
}
row_from_tuple!(A);
row_from_tuple!(A B);
row_from_tuple!(A B C);
row_from_tuple!(A B C D);
row_from_tuple!(A B C D E);
row_from_tuple!(A B C D E F);
row_from_tuple!(A B C D E F G);
row_from_tuple!(A B C D E F G H);

macro_rules! value_from_integer {
    ($($integer:ty)+) => {
        $(impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                Self(Repr::Int(value as i128))
            }
        })+
    };
}
value_from_integer!(i8 i16 i32 i64 i128 u8 u16 u32 u64 usize);

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(Repr::Bool(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        let one_of_its_kind = if value.is_nan() { f64::NAN } else { value + 0.0 };
        Self(Repr::Float(sortable(one_of_its_kind.to_bits() as i64)))
    }
}

/// Between the bits of a float and an integer that sorts like the float; its own inverse.
fn sortable(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self(Repr::Text(value.to_string()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self(Repr::Text(value))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        value.micros().into()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NULL, Into::into)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Null => f.write_str("null"),
            Repr::Bool(value) => write!(f, "{value}"),
            Repr::Int(value) => write!(f, "{value}"),
            Repr::Float(bits) => write!(f, "{:?}", f64::from_bits(sortable(*bits) as u64)),
            Repr::Text(text) if text.len() > 60 => write!(f, "{:?}…", text.chars().take(50).collect::<String>()),
            Repr::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The batch that holds `records`.
pub(super) fn batch_of<T: Record + Clone>(records: &[T]) -> RecordBatch {
    use typed_arrow::schema::{IntoRecordBatch, RowBuilder};
    let mut builders = T::new_builders(records.len());
    builders.append_rows(records.iter().cloned());
    builders.finish().into_record_batch()
}

/// The rows of a batch as values.
pub(super) fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = (0..batch.num_rows()).map(|_| Row(Vec::with_capacity(batch.num_columns()))).collect();
    for column in batch.columns() {
        let values = values_of(column).map_err(|error| format!("the harness cannot read a column: {error}"))?;
        for (row, value) in rows.iter_mut().zip(values) {
            row.0.push(value);
        }
    }
    Ok(rows)
}

fn values_of(column: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    let as_type = |data_type| cast(column, &data_type);
    let data_type = column.data_type();
    Ok(match data_type {
        DataType::Boolean => column.as_boolean().iter().map(Into::into).collect(),
        DataType::Timestamp(..) => {
            as_type(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Into::into).collect()
        }
        _ if data_type.is_signed_integer() => {
            as_type(DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Into::into).collect()
        }
        _ if data_type.is_unsigned_integer() => {
            as_type(DataType::UInt64)?.as_primitive::<UInt64Type>().iter().map(Into::into).collect()
        }
        _ if data_type.is_floating() => {
            as_type(DataType::Float64)?.as_primitive::<Float64Type>().iter().map(Into::into).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            as_type(DataType::Utf8)?.as_string::<i32>().iter().map(Into::into).collect()
        }
        _ => printed(column)?,
    })
}

/// Values of a type that [`Value`] has no form for, as Arrow prints them.
fn printed(column: &ArrayRef) -> Result<Vec<Value>, arrow::error::ArrowError> {
    let options = FormatOptions::default();
    let format = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let value = |row| match column.is_null(row) {
        true => Ok(Value::NULL),
        false => Ok(format.value(row).try_to_string()?.into()),
    };
    (0..column.len()).map(value).collect()
}

/// How many rows of a difference are shown.
const SHOWN: usize = 8;

/// What distinguishes two bags of rows; `None` when nothing does.
pub(super) fn difference(mut expected: Vec<Row>, mut actual: Vec<Row>) -> Option<String> {
    expected.sort_unstable();
    actual.sort_unstable();
    if expected == actual {
        return None;
    }
    let total = (expected.len(), actual.len());
    let (missing, extra) = subtract(expected, actual);
    let mut text = format!("expected {} rows, got {}", total.0, total.1);
    for (what, rows) in [("missing", missing), ("extra", extra)] {
        for row in rows.iter().take(SHOWN) {
            text.push_str(&format!("\n  {what:>7}: {row}"));
        }
        if rows.len() > SHOWN {
            text.push_str(&format!("\n  {what:>7}: and {} more", rows.len() - SHOWN));
        }
    }
    Some(text)
}

/// Of two sorted bags, what only the first has and what only the second has.
fn subtract(first: Vec<Row>, second: Vec<Row>) -> (Vec<Row>, Vec<Row>) {
    let (mut only_first, mut only_second) = (Vec::new(), Vec::new());
    let mut second = second.into_iter().peekable();
    for row in first {
        while let Some(smaller) = second.next_if(|other| *other < row) {
            only_second.push(smaller);
        }
        if second.next_if_eq(&row).is_none() {
            only_first.push(row);
        }
    }
    only_second.extend(second);
    (only_first, only_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_sort_like_numbers_and_print_as_themselves() {
        let floats = [f64::NEG_INFINITY, -2.5, 0.0, 1e-9, 3.0, f64::INFINITY, f64::NAN];
        let values: Vec<Value> = floats.iter().map(|&float| float.into()).collect();
        assert!(values.is_sorted());
        assert_eq!(values[1].to_string(), "-2.5");
        assert_eq!(Value::from(-0.0), Value::from(0.0));
    }

    #[test]
    fn a_difference_counts_equal_rows() {
        let rows = |values: &[i64]| values.iter().map(|&value| Row::from((value,))).collect::<Vec<_>>();
        assert_eq!(difference(rows(&[2, 1, 1]), rows(&[1, 2, 1])), None);
        let text = difference(rows(&[1, 1, 2]), rows(&[3, 1, 2])).unwrap();
        assert_eq!(text, "expected 3 rows, got 3\n  missing: (1)\n    extra: (3)");
    }
}
