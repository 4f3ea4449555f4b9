//! Bytes written by hand, for an oracle that shares no code with the decoder; what they become; and who rejects them.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    json::LineDelimitedWriter,
};

use super::AvroDecoder;
use crate::{
    SchemaRegistry,
    format::{Decoder, MAX_RECORD_BYTES},
    registry::testing::{FakeRegistry, Mood},
};

mod encoding;
mod evolution;
mod hostile;
mod registry;
mod types;

/// A value as a writer has it.
#[derive(Clone, Debug)]
enum V {
    Null,
    Bool(bool),
    /// An int, long, or enum.
    Int(i64),
    F32(f32),
    F64(f64),
    /// Bytes, or a string.
    Bytes(Vec<u8>),
    Fixed(Vec<u8>),
    Array(Vec<V>),
    Map(Vec<(&'static str, V)>),
    Record(Vec<V>),
    Branch(i64, Box<V>),
}

fn text(text: &str) -> V {
    V::Bytes(text.as_bytes().to_vec())
}

fn some(branch: i64, value: V) -> V {
    V::Branch(branch, Box::new(value))
}

/// Zigzag by arithmetic: 0, -1, 1, -2, … are 0, 1, 2, 3, …; then digits of base 128, the lowest first.
fn number(n: i64, out: &mut Vec<u8>) {
    let n = i128::from(n);
    let mut rest = if n >= 0 { n * 2 } else { -n * 2 - 1 };
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        if rest == 0 {
            out.push(digit);
            return;
        }
        out.push(digit + 128);
    }
}

fn write(value: &V, out: &mut Vec<u8>) {
    match value {
        V::Null => {}
        V::Bool(b) => out.push(u8::from(*b)),
        V::Int(n) => number(*n, out),
        V::F32(f) => out.extend(f.to_bits().to_le_bytes()),
        V::F64(f) => out.extend(f.to_bits().to_le_bytes()),
        V::Bytes(bytes) => {
            number(bytes.len() as i64, out);
            out.extend(bytes);
        }
        V::Fixed(bytes) => out.extend(bytes),
        V::Array(items) => {
            // The first item in a block of its own, whose count is negative and which has its size.
            if let Some((first, rest)) = items.split_first() {
                let mut block = Vec::new();
                write(first, &mut block);
                number(-1, out);
                number(block.len() as i64, out);
                out.extend(block);
                if !rest.is_empty() {
                    number(rest.len() as i64, out);
                    rest.iter().for_each(|item| write(item, out));
                }
            }
            number(0, out);
        }
        V::Map(entries) => {
            if !entries.is_empty() {
                number(entries.len() as i64, out);
            }
            for (key, value) in entries {
                write(&text(key), out);
                write(value, out);
            }
            number(0, out);
        }
        V::Record(fields) => fields.iter().for_each(|field| write(field, out)),
        V::Branch(branch, value) => {
            number(*branch, out);
            write(value, out);
        }
    }
}

fn framed(id: u32, value: &V) -> Vec<u8> {
    let mut out = vec![0, (id >> 24) as u8, (id >> 16) as u8, (id >> 8) as u8, id as u8];
    write(value, &mut out);
    out
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Row","namespace":"test","fields":[{fields}]}}"#)
}

fn columns(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn needed(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn quick(fake: &FakeRegistry) -> SchemaRegistry {
    SchemaRegistry::at(&fake.url).patience(Duration::from_millis(300), Duration::from_millis(1))
}

fn decoder(fake: &FakeRegistry, schema: &SchemaRef) -> AvroDecoder {
    AvroDecoder::new(schema.clone(), quick(fake), MAX_RECORD_BYTES).unwrap()
}

/// The rows as JSON, one a line.
fn rows(batch: &RecordBatch) -> Vec<String> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_string).collect()
}

/// What one value of a field becomes in a column, as JSON; or why it does not.
fn one(field_type: &str, value: V, column: DataType) -> Result<String, String> {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(&format!(r#"{{"name":"v","type":{field_type}}}"#)));
    let schema = columns(vec![needed("v", column)]);
    let mut decoder = decoder(&fake, &schema);
    decoder.push(&framed(id, &value))?;
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.schema(), schema);
    Ok(rows(&batch)[0].trim_start_matches(r#"{"v":"#).trim_end_matches('}').to_string())
}
