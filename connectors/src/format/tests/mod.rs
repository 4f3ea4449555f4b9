//! Tests of the formats: what each decoder takes and refuses, and laws that hold for any bytes.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{Decoder, Frame};

mod csv;
mod debezium;
mod encode;
mod frames;
mod json;
#[cfg(feature = "kafka")]
mod json_schema;
mod payloads;
mod properties;
#[cfg(feature = "kafka")]
mod protobuf;
#[cfg(feature = "kafka")]
mod protobuf_hostile;
#[cfg(feature = "kafka")]
mod protobuf_out;

/// Columns from `(name, type, nullable)`.
fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let fields: Vec<Field> =
        fields.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable)).collect();
    Arc::new(Schema::new(fields))
}

/// Where each line that is no row begins, and why it is none.
type Rejects = Vec<(usize, String)>;

/// Reads `input` as a file reader does that gets `chunk` bytes at a time.
fn read(decoder: &mut dyn Decoder, input: &[u8], chunk: usize) -> (RecordBatch, Rejects) {
    let (mut start, mut end) = (0, chunk.min(input.len()));
    let mut rejects = Vec::new();
    loop {
        let bytes = &input[start..end];
        let next = match decoder.frame(bytes, end == input.len()) {
            Frame::Record(span) => {
                let before = decoder.len();
                if let Err(reason) = decoder.push(&bytes[..span.end]) {
                    assert_eq!(decoder.len(), before);
                    rejects.push((start, reason));
                }
                span.next
            }
            Frame::Blank(span) => span.next,
            Frame::Bad(span, reason) => {
                rejects.push((start, reason.to_string()));
                span.next
            }
            Frame::TooLong => {
                rejects.push((start, "too long".to_string()));
                input[start..].iter().position(|byte| *byte == b'\n').map_or(input.len() - start, |at| at + 1)
            }
            Frame::More if end == input.len() => return (decoder.flush().unwrap(), rejects),
            Frame::More => {
                end = (end + chunk).min(input.len());
                continue;
            }
        };
        assert!(next > 0, "every frame moves on");
        start += next;
        end = end.max(start);
    }
}
