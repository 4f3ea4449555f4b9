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
//! The number of a field is what readers go by, so a column keeps the number that its name has in the schema before, wherever
//! it stands now, and the number of one that is gone is reserved for ever. Without a schema before it is the place of the
//! column. The same columns make the same text again, since the schema that was made of them gives them their numbers.

use std::{collections::HashSet, fmt::Write, ops::Range};

use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use prost_reflect::{Kind, MessageDescriptor};

use super::schema::{ProtoText, compile};
use crate::{Result, format::config};

/// The message for rows of `schema`, called after the topic, and its text. `former` is what rows were written as before.
pub(super) fn message(
    schema: &SchemaRef,
    topic: &str,
    former: Option<&MessageDescriptor>,
) -> Result<(MessageDescriptor, String)> {
    let name = camel(topic);
    let mut text = "syntax = \"proto3\";\n\nimport \"google/protobuf/timestamp.proto\";\n\n".to_string();
    write_message(schema.fields(), former, &name, "", "", &mut text)?;
    let refused = |reason: String| config(format!("the columns make no schema of Protocol Buffers: {reason}"));
    let file = compile(&ProtoText { text: text.clone(), references: Vec::new() }).map_err(refused)?;
    let first = file.messages().next();
    Ok((first.ok_or_else(|| refused("it has no message".to_string()))?, text))
}

fn write_message(
    fields: &Fields,
    former: Option<&MessageDescriptor>,
    name: &str,
    within: &str,
    indent: &str,
    text: &mut String,
) -> Result<()> {
    let _ = writeln!(text, "{indent}message {name} {{");
    let reserved = reserved(fields, former);
    for range in &reserved {
        let _ = match range.end - range.start {
            1 => writeln!(text, "{indent}  reserved {};", range.start),
            _ => writeln!(text, "{indent}  reserved {} to {};", range.start, range.end - 1),
        };
    }
    let known = former.into_iter().flat_map(MessageDescriptor::fields).map(|field| field.number() + 1);
    let mut next = known.chain(reserved.iter().map(|range| range.end)).max().unwrap_or(1);
    // A message within may not be called like a field.
    let mut taken: HashSet<String> = fields.iter().map(|field| field.name().clone()).collect();
    for field in fields {
        let path = if within.is_empty() { field.name().clone() } else { format!("{within}.{}", field.name()) };
        let known = former.and_then(|former| former.get_field_by_name(field.name()));
        let number = match &known {
            Some(known) => known.number(),
            None => {
                let number = if NOT_OURS.contains(&next) { NOT_OURS.end } else { next };
                next = number + 1;
                number
            }
        };
        let inner = known.and_then(|known| match known.kind() {
            Kind::Message(inner) => Some(inner),
            _ => None,
        });
        write_field(field, (number, inner.as_ref()), &path, &mut taken, &format!("{indent}  "), text)?;
    }
    let _ = writeln!(text, "{indent}}}");
    Ok(())
}

/// Numbers that Protobuf keeps for itself.
const NOT_OURS: Range<u32> = 19_000..20_000;

/// The numbers that are not to be used again: those of fields without a column now, and those that were reserved before.
fn reserved(fields: &Fields, former: Option<&MessageDescriptor>) -> Vec<Range<u32>> {
    let Some(former) = former else { return Vec::new() };
    let gone = former.fields().filter(|field| fields.find(field.name()).is_none());
    let mut all: Vec<_> =
        gone.map(|field| field.number()..field.number() + 1).chain(former.reserved_ranges()).collect();
    all.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u32>> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn write_field(
    field: &Field,
    (number, former): (u32, Option<&MessageDescriptor>),
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
            write_message(fields, former, &inner, path, indent, text)?;
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
