//! The values of a key, from the bytes by which it is found: a timer has no row that would say them.

use std::fmt::Write as _;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{
        DataType, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::store::{Key, KeyPlan};
use crate::{
    OperatorError, Result, Timestamp,
    key::encoded::{KeyBytes, KeyEncoder},
    typed::type_label,
};

/// Key columns to keys and back.
pub(super) struct KeyReader {
    encoder: KeyEncoder,
    fields: Vec<FieldRef>,
}

impl KeyReader {
    pub(super) fn new(plan: &KeyPlan) -> Result<Self> {
        let fields = plan.key_fields().to_vec();
        Ok(Self { encoder: KeyEncoder::new(fields.iter().map(|field| field.data_type()))?, fields })
    }

    /// The key columns.
    pub(super) fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// The values of keys.
    pub(super) fn columns<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<Vec<ArrayRef>> {
        self.encoder.decode(keys.map(|key| &**key))
    }

    /// The keys of these columns.
    pub(super) fn keys(&self, columns: &[ArrayRef]) -> Result<KeyBytes> {
        self.encoder.encode(columns)
    }

    /// The values of a key as Rust values.
    pub(super) fn read<T: FromKey>(&self, key: &Key) -> Result<T> {
        T::from_key(&self.columns(std::iter::once(key))?).map_err(|why| {
            let columns = self.fields.iter().map(|field| format!("{} {}", field.name(), field.data_type()));
            let columns = columns.collect::<Vec<_>>().join(", ");
            OperatorError::Plan(format!("its key is ({columns}), which is no {}: {why}", type_label::<T>()))
        })
    }

    /// A key, to be printed.
    pub(super) fn printed(&self, key: &Key) -> String {
        let mut text = String::new();
        for (at, column) in self.columns(std::iter::once(key)).unwrap_or_default().iter().enumerate() {
            let value = arrow::util::display::array_value_to_string(column, 0).unwrap_or_else(|_| "?".into());
            let _ = write!(text, "{}{value}", if at > 0 { ", " } else { "" });
        }
        text
    }
}

/// The key of a process as a Rust value: see [`Keyed::key`](super::Keyed::key).
#[diagnostic::on_unimplemented(
    message = "a key is not a `{Self}`",
    note = "one key column is an integer, a float, `bool`, `String`, `Vec<u8>`, `Timestamp` or an `Option` of one; several \
            are a tuple of them"
)]
pub trait FromKey: Default {
    /// Of key columns with one row.
    #[doc(hidden)]
    fn from_key(key: &[ArrayRef]) -> Result<Self, String>;
}

/// The value of one key column.
pub trait KeyColumn: Default {
    /// Of a column with one row that is not null; `None` when it is of another type, or does not fit.
    #[doc(hidden)]
    fn value(column: &ArrayRef) -> Option<Self>;

    /// What a null is.
    #[doc(hidden)]
    fn null() -> Option<Self> {
        None
    }
}

fn value<T: KeyColumn>(column: &ArrayRef) -> Result<T, String> {
    let label = type_label::<T>();
    if column.is_null(0) {
        return T::null().ok_or_else(|| format!("a value is null, which only an Option<{label}> can say"));
    }
    T::value(column).ok_or_else(|| format!("a value of type {} is no {label}", column.data_type()))
}

impl<T: KeyColumn> FromKey for T {
    fn from_key(key: &[ArrayRef]) -> Result<Self, String> {
        match key {
            [column] => value(column),
            _ => Err(format!("it has {} columns, and this is one value", key.len())),
        }
    }
}

macro_rules! tuples {
    ($($count:literal ($($part:ident)+))+) => { $(
        impl<$($part: KeyColumn),+> FromKey for ($($part,)+) {
            #[allow(non_snake_case, reason = "the columns are called like their types")]
            fn from_key(key: &[ArrayRef]) -> Result<Self, String> {
                match key {
                    [$($part),+] => Ok(($(value($part)?,)+)),
                    _ => Err(format!("it has {} columns, and these are {} values", key.len(), $count)),
                }
            }
        }
    )+ };
}
tuples!(2 (A B) 3 (A B C) 4 (A B C D));

impl<T: KeyColumn> KeyColumn for Option<T> {
    fn value(column: &ArrayRef) -> Option<Self> {
        T::value(column).map(Some)
    }

    fn null() -> Option<Self> {
        Some(None)
    }
}

/// Integers of any width, if the value fits.
macro_rules! integers {
    ($($integer:ty)+) => { $(
        impl KeyColumn for $integer {
            fn value(column: &ArrayRef) -> Option<Self> {
                match column.data_type() {
                    DataType::Int8 => column.as_primitive::<Int8Type>().value(0).try_into().ok(),
                    DataType::Int16 => column.as_primitive::<Int16Type>().value(0).try_into().ok(),
                    DataType::Int32 => column.as_primitive::<Int32Type>().value(0).try_into().ok(),
                    DataType::Int64 => column.as_primitive::<Int64Type>().value(0).try_into().ok(),
                    DataType::UInt8 => column.as_primitive::<UInt8Type>().value(0).try_into().ok(),
                    DataType::UInt16 => column.as_primitive::<UInt16Type>().value(0).try_into().ok(),
                    DataType::UInt32 => column.as_primitive::<UInt32Type>().value(0).try_into().ok(),
                    DataType::UInt64 => column.as_primitive::<UInt64Type>().value(0).try_into().ok(),
                    _ => None,
                }
            }
        }
    )+ };
}
integers!(i8 i16 i32 i64 u8 u16 u32 u64);

impl KeyColumn for f32 {
    fn value(column: &ArrayRef) -> Option<Self> {
        column.as_primitive_opt::<Float32Type>().map(|values| values.value(0))
    }
}

impl KeyColumn for f64 {
    fn value(column: &ArrayRef) -> Option<Self> {
        match column.as_primitive_opt::<Float64Type>() {
            Some(values) => Some(values.value(0)),
            None => f32::value(column).map(f64::from),
        }
    }
}

impl KeyColumn for bool {
    fn value(column: &ArrayRef) -> Option<Self> {
        column.as_boolean_opt().map(|values| values.value(0))
    }
}

impl KeyColumn for String {
    fn value(column: &ArrayRef) -> Option<Self> {
        let text = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value(0),
            DataType::LargeUtf8 => column.as_string::<i64>().value(0),
            DataType::Utf8View => column.as_string_view().value(0),
            _ => return None,
        };
        Some(text.into())
    }
}

impl KeyColumn for Vec<u8> {
    fn value(column: &ArrayRef) -> Option<Self> {
        let bytes = match column.data_type() {
            DataType::Binary => column.as_binary::<i32>().value(0),
            DataType::LargeBinary => column.as_binary::<i64>().value(0),
            DataType::BinaryView => column.as_binary_view().value(0),
            _ => return None,
        };
        Some(bytes.into())
    }
}

impl KeyColumn for Timestamp {
    fn value(column: &ArrayRef) -> Option<Self> {
        let DataType::Timestamp(..) = column.data_type() else { return None };
        let micros = cast(column, &Self::data_type()).ok()?;
        micros.is_valid(0).then(|| Self::from_micros(micros.as_primitive::<TimestampMicrosecondType>().value(0)))
    }
}
