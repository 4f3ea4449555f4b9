//! Fields into columns, for streams whose rows have no type of their own.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::plan::{TIMESTAMP, wrapped};

/// Deeper than anybody nests messages, and no deeper than the stack is.
const MAX_DEPTH: usize = 32;
/// The columns of messages in messages multiply.
const MAX_FIELDS: usize = 10_000;

/// The columns of a message. All are nullable, since another version of the schema may lack any. The error names the field
/// that has none.
pub(super) fn of(message: &MessageDescriptor) -> Result<SchemaRef, String> {
    Ok(Arc::new(Schema::new(fields(message, &mut Vec::new(), &mut 0)?)))
}

fn fields(message: &MessageDescriptor, within: &mut Vec<String>, count: &mut usize) -> Result<Fields, String> {
    let name = message.full_name();
    if within.iter().any(|outer| outer == name) {
        return Err(format!(
            "the message {name} contains itself, which no column can: give the columns that are wanted"
        ));
    }
    if within.len() >= MAX_DEPTH {
        return Err(format!("the message {name} is nested deeper than {MAX_DEPTH}: give the columns that are wanted"));
    }
    within.push(name.to_string());
    let fields = message.fields().map(|field| column(&field, within, count)).collect();
    within.pop();
    fields
}

fn column(field: &FieldDescriptor, within: &mut Vec<String>, count: &mut usize) -> Result<Field, String> {
    *count += 1;
    if *count > MAX_FIELDS {
        return Err(format!("it has more than {MAX_FIELDS} fields: give the columns that are wanted"));
    }
    if field.is_group() {
        return Err(format!(
            "the field {} is a group, which is not read: give the columns that are wanted",
            field.full_name()
        ));
    }
    let element = match field.kind() {
        Kind::Message(message) if message.full_name() == TIMESTAMP => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
        }
        Kind::Message(message) => match wrapped(&message).as_ref().and_then(scalar) {
            Some(scalar) => scalar,
            None => DataType::Struct(fields(&message, within, count)?),
        },
        kind => scalar(&kind).unwrap_or(DataType::Binary),
    };
    let data_type = if field.is_list() || field.is_map() {
        DataType::List(Arc::new(Field::new_list_field(element, false)))
    } else {
        element
    };
    Ok(Field::new(field.name(), data_type, true))
}

fn scalar(kind: &Kind) -> Option<DataType> {
    Some(match kind {
        Kind::Double => DataType::Float64,
        Kind::Float => DataType::Float32,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Bool => DataType::Boolean,
        Kind::String | Kind::Enum(_) => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Message(_) => return None,
    })
}
