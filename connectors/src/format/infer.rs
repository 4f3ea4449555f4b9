//! A schema from a sample of records, by arrow's own inference.
//!
//! The sample is made of records that framed and parsed, so that a broken line does not spoil the guess, and so that
//! its size is bounded. Every column is nullable: a sample cannot show that nulls never come.

use std::{io::Cursor, sync::Arc};

use arrow::{
    csv::reader::Format as CsvFormat,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
    json::reader::infer_json_schema_from_iterator,
};

use crate::Result;

/// The schema of JSON objects.
pub(crate) fn json(records: &[Vec<u8>]) -> Result<SchemaRef> {
    let values = records.iter().map(|record| {
        serde_json::from_slice::<serde_json::Value>(record).map_err(|error| ArrowError::JsonError(error.to_string()))
    });
    Ok(readable(&infer_json_schema_from_iterator(values)?))
}

/// The schema of CSV records below a header.
pub(crate) fn csv(header: &[u8], records: &[Vec<u8>], delimiter: u8) -> Result<SchemaRef> {
    let mut sample = Vec::new();
    for record in std::iter::once(header).chain(records.iter().map(Vec::as_slice)) {
        sample.extend_from_slice(record);
        sample.push(b'\n');
    }
    let format = CsvFormat::default().with_header(true).with_delimiter(delimiter).with_terminator(b'\n');
    let (schema, _) = format.infer_schema(Cursor::new(sample), None)?;
    Ok(readable(&schema))
}

/// The schema with columns that were always null as text, which any later value can be read into.
fn readable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(readable_field).collect::<Vec<_>>()))
}

fn readable_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Null => DataType::Utf8,
        DataType::List(item) => DataType::List(readable_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(readable_field).collect()),
        other => other.clone(),
    };
    Arc::new(Field::new(field.name(), data_type, true))
}
