//! Columns into .proto text, for messages whose schema nobody wrote.
//!
//! ```text
//!   id: Int64                               message Orders {
//!   note: Utf8, nullable            ──►       int64 id = 1;
//!   lines: List<Struct<sku: Utf8>>            optional string note = 2;
//!                                             message Lines { string sku = 1; }
//!                                             repeated Lines lines = 3;
//!                                           }
//! ```
//!
//! The number of a field is the place of its column, so the same columns always make the same text, and a column that is
//! added at the end leaves the others their numbers.

use std::{collections::HashSet, fmt::Write};

use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use prost_reflect::MessageDescriptor;

use super::{ProtoText, schema::compile};
use crate::{Result, format::config};

/// The message for rows of `schema`, called after the topic, and its text.
pub(super) fn message(schema: &SchemaRef, topic: &str) -> Result<(MessageDescriptor, String)> {
    let name = camel(topic);
    let mut text = "syntax = \"proto3\";\n\nimport \"google/protobuf/timestamp.proto\";\n\n".to_string();
    write_message(schema.fields(), &name, "", "", &mut text)?;
    let refused = |reason: String| config(format!("the columns make no schema of Protocol Buffers: {reason}"));
    let file = compile(&ProtoText { text: text.clone(), references: Vec::new() }).map_err(refused)?;
    let first = file.messages().next();
    Ok((first.ok_or_else(|| refused("it has no message".to_string()))?, text))
}

fn write_message(fields: &Fields, name: &str, within: &str, indent: &str, text: &mut String) -> Result<()> {
    let _ = writeln!(text, "{indent}message {name} {{");
    // A message within may not be called like a field.
    let mut taken: HashSet<String> = fields.iter().map(|field| field.name().clone()).collect();
    for (i, field) in fields.iter().enumerate() {
        let path = if within.is_empty() { field.name().clone() } else { format!("{within}.{}", field.name()) };
        write_field(field, i + 1, &path, &mut taken, &format!("{indent}  "), text)?;
    }
    let _ = writeln!(text, "{indent}}}");
    Ok(())
}

fn write_field(
    field: &Field,
    number: usize,
    path: &str,
    taken: &mut HashSet<String>,
    indent: &str,
    text: &mut String,
) -> Result<()> {
    let name = field.name();
    let refused = |hint: &str| {
        let data_type = field.data_type();
        config(format!("column {path:?} ({data_type}) cannot be written as Protobuf: {hint}"))
    };
    let is_word = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_word(name) || !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return Err(refused("a field is called by letters, digits and _, and does not begin with a digit; rename it"));
    }
    let (element, label) = match field.data_type() {
        DataType::List(item) => (item.data_type(), "repeated "),
        other if field.is_nullable() => (other, "optional "),
        other => (other, ""),
    };
    let of = match element {
        DataType::Struct(fields) => {
            let mut inner = camel(name);
            while !taken.insert(inner.clone()) {
                let _ = write!(inner, "{number}");
            }
            write_message(fields, &inner, path, indent, text)?;
            inner
        }
        scalar => match scalar_name(scalar) {
            Some(scalar) => scalar.to_string(),
            None => return Err(refused("it has no form for this type; project it away, or cast it")),
        },
    };
    let _ = writeln!(text, "{indent}{label}{of} {name} = {number};");
    Ok(())
}

fn scalar_name(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Boolean => "bool",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Date32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes",
        DataType::Timestamp(..) => "google.protobuf.Timestamp",
        _ => return None,
    })
}

/// `orders-eu` as `OrdersEu`.
fn camel(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let camel: String = words
        .map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_ascii_uppercase())
        })
        .collect();
    if camel.starts_with(|first: char| first.is_ascii_alphabetic()) { camel } else { format!("Row{camel}") }
}
