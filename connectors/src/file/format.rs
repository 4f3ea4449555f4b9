//! What can be in a file, for its source and its sink.

use std::fmt;

use arrow::datatypes::{DataType, FieldRef, Fields, IntervalUnit, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;

use crate::{
    ConnectorError, Result,
    format::{Encoder, Format},
};

/// What is in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// Records one after the other.
    Text(Format),
    /// Columns in row groups, with a footer that says where they are.
    Parquet,
}

impl FileFormat {
    pub(super) const ALL: [Self; 3] = [Self::Text(Format::Json), Self::Text(Format::CSV), Self::Parquet];

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Text(format) => format.extension(),
            Self::Parquet => "parquet",
        }
    }

    /// Whether rows of `schema` can be written. The error names the column that cannot.
    pub(super) fn accepts(self, schema: &SchemaRef) -> Result<()> {
        match self {
            Self::Text(format) => Encoder::accepts(format, schema),
            Self::Parquet => schema.fields().iter().try_for_each(parquet_accepts),
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(format) => format.fmt(f),
            Self::Parquet => f.write_str("Parquet"),
        }
    }
}

fn parquet_accepts(field: &FieldRef) -> Result<()> {
    let refused = |why: &str| {
        let (name, data_type) = (field.name(), field.data_type());
        let hint = "project it away or cast it";
        ConnectorError::Config(format!("column {name:?} ({data_type}) cannot be written as Parquet: {why}; {hint}"))
    };
    if let Some(inner) = unknown_to_parquet(field.data_type()) {
        return Err(refused(&format!("it has no form for {inner}")));
    }
    let alone = Schema::new(Fields::from(vec![field.clone()]));
    ArrowSchemaConverter::new().convert(&alone).map(drop).map_err(|error| refused(&error.to_string()))
}

/// A type within `data_type` that the writer would fail on only when it meets a value, or panic on.
fn unknown_to_parquet(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::Interval(IntervalUnit::MonthDayNano) => {
            Some(data_type)
        }
        DataType::Dictionary(_, value) if value.is_nested() => Some(data_type),
        DataType::Dictionary(_, value) => unknown_to_parquet(value),
        DataType::Struct(fields) if fields.is_empty() => Some(data_type),
        DataType::Struct(fields) => fields.iter().find_map(|field| unknown_to_parquet(field.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _) => unknown_to_parquet(item.data_type()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn what_parquet_cannot_hold_is_refused_before_the_first_row() {
        let accepts = |name: &str, data_type: DataType| {
            let schema = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
            FileFormat::Parquet.accepts(&schema).map_err(|error| error.to_string())
        };
        let odd = DataType::Interval(IntervalUnit::MonthDayNano);
        let error = accepts("wait", DataType::new_list(odd, true)).unwrap_err();
        assert!(error.contains("\"wait\"") && error.contains("Parquet") && error.contains("MonthDayNano"), "{error}");
        assert!(accepts("none", DataType::Struct(Fields::empty())).is_err());
        let union = arrow::datatypes::UnionFields::from_fields([Field::new("i", DataType::Int64, true)]);
        let union = DataType::Union(union, arrow::datatypes::UnionMode::Sparse);
        assert!(accepts("odd", DataType::Struct(Fields::from(vec![Field::new("u", union, true)]))).is_err());
        accepts("tag", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))).unwrap();
    }
}
