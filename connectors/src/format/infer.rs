//! A schema from a sample of records, by arrow's own inference.
//!
//! The sample is made of records that framed and parsed, so that a broken line does not spoil the guess, and so that
//! its size is bounded. Every column is nullable, and times are in microseconds or finer: a sample cannot show that
//! nulls or fractions of a second never come.

use std::{collections::BTreeSet, io::Cursor, sync::Arc};

use arrow::{
    csv::reader::Format as CsvFormat,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    json::reader::infer_json_schema_from_iterator,
};

use super::{config, text::alternatives};
use crate::Result;

/// The schema of JSON objects, or the part of it with these columns.
pub(crate) fn json(records: &[Vec<u8>], columns: Option<&[String]>) -> Result<SchemaRef> {
    let mut passed = BTreeSet::new();
    let values = records.iter().map(|record| {
        let value = serde_json::from_slice::<serde_json::Value>(record);
        let mut value = value.map_err(|error| ArrowError::JsonError(error.to_string()))?;
        if let (Some(columns), Some(object)) = (columns, value.as_object_mut()) {
            object.retain(|name, _| {
                let wanted = columns.contains(name);
                if !wanted && !passed.contains(name) {
                    passed.insert(name.clone());
                }
                wanted
            });
        }
        Ok(value)
    });
    let schema = infer_json_schema_from_iterator(values)?;
    let there: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let there = there.into_iter().chain(passed.iter().map(String::as_str));
    readable(&schema, columns, there)
}

/// The schema of CSV records below a header, or the part of it with these columns.
pub(crate) fn csv(header: &[u8], records: &[Vec<u8>], delimiter: u8, columns: Option<&[String]>) -> Result<SchemaRef> {
    let mut sample = Vec::new();
    for record in std::iter::once(header).chain(records.iter().map(Vec::as_slice)) {
        sample.extend_from_slice(record);
        sample.push(b'\n');
    }
    let format = CsvFormat::default().with_header(true).with_delimiter(delimiter).with_terminator(b'\n');
    let (schema, _) = format.infer_schema(Cursor::new(sample), None)?;
    readable(&schema, columns, schema.fields().iter().map(|field| field.name().as_str()))
}

/// The schema of CSV records without a header: columns of these names, in their order.
#[cfg(feature = "kafka")]
pub(crate) fn csv_columns(names: &[String], records: &[Vec<u8>], delimiter: u8) -> Result<SchemaRef> {
    let quoted = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let header = quoted.collect::<Vec<_>>().join(&char::from(delimiter).to_string());
    csv(header.as_bytes(), records, delimiter, None)
}

/// The columns that are wanted, of types that any later value can be read into. `there` are all names in the sample.
fn readable<'a>(
    schema: &Schema,
    columns: Option<&[String]>,
    there: impl Iterator<Item = &'a str> + Clone,
) -> Result<SchemaRef> {
    let Some(columns) = columns else {
        return Ok(Arc::new(Schema::new(schema.fields().iter().map(readable_field).collect::<Vec<_>>())));
    };
    let find = |name: &String| match schema.column_with_name(name) {
        Some((column, _)) => Ok(readable_field(&schema.fields()[column])),
        None => Err(config(format!("the sample has no column {name:?}; it has {}", alternatives(name, there.clone())))),
    };
    Ok(Arc::new(Schema::new(columns.iter().map(find).collect::<Result<Vec<_>>>()?)))
}

fn readable_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        // Text takes any value.
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::List(item) => DataType::List(readable_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(readable_field).collect()),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, true))
}
