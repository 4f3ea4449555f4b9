//! Payloads as they are: one column of bytes or text.
//!
//! ```text
//!   payload ──► one row; no payload ──► null        one row ──► payload; null ──► no payload, a tombstone
//! ```

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, SchemaRef},
};

use super::{
    Decoder, Frame, PayloadFormat, Payloads, RowEncoder,
    columns::{Columns, Medium},
    config,
    frame::Lines,
};
use crate::Result;

/// What the column of a [`RawDecoder`] is called unless the user says otherwise.
pub const RAW_COLUMN: &str = "value";

/// Takes each payload as it is, into the only column: `Binary`, or a text type.
///
/// A payload that is not UTF-8 is rejected if the column is text. A record without a payload is a row with null, and
/// rejected if the column is not nullable. In a file a line is a record.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{Decoder, RawDecoder, MAX_RECORD_BYTES, raw::RAW_COLUMN};
///
/// let schema = Arc::new(Schema::new(vec![Field::new(RAW_COLUMN, DataType::Utf8, true)]));
/// let mut decoder = RawDecoder::new(schema, MAX_RECORD_BYTES)?;
/// decoder.push(b"any text").unwrap();
/// assert!(decoder.push_null().unwrap());
/// assert!(decoder.push(b"\xff").is_err());
/// assert_eq!(decoder.flush()?.num_rows(), 2);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct RawDecoder {
    schema: SchemaRef,
    columns: Columns,
    lines: Lines,
}

impl RawDecoder {
    /// A decoder for rows of `schema`, which has one column of the type Binary, Utf8, LargeUtf8 or Utf8View.
    pub fn new(schema: SchemaRef, max_record_bytes: usize) -> Result<Self> {
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        let [DataType::Binary | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View] = types[..] else {
            return Err(config(format!(
                "a payload as it is goes into one column of the type Binary or Utf8; the columns are {}",
                described(&schema)
            )));
        };
        let columns = Columns::new(schema.fields(), "", Medium::Binary)?;
        Ok(Self { schema, columns, lines: Lines::new(max_record_bytes) })
    }

    fn write(&mut self, record: &[u8]) -> Result<(), String> {
        let Some(column) = self.columns.columns.first_mut() else { return Ok(()) };
        let pushed = match column.field.data_type() {
            DataType::Binary => column.push_bytes(record),
            _ => column.push_text(std::str::from_utf8(record).map_err(|error| format!("not UTF-8: {error}"))?),
        };
        pushed.map_err(|_| format!("{} bytes more do not fit into one batch", record.len()))?;
        self.columns.end_row().map_err(|_| "has no value".to_string())
    }
}

impl Decoder for RawDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.lines.frame(bytes, last)
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let rows = self.columns.rows();
        self.write(record).inspect_err(|_| self.columns.truncate(rows))
    }

    fn push_null(&mut self) -> Result<bool, String> {
        match self.columns.end_row() {
            Ok(()) => Ok(true),
            Err(i) => {
                let name = self.schema.field(i).name();
                Err(format!("it has no payload, and the column {name:?} is not nullable"))
            }
        }
    }

    fn len(&self) -> usize {
        self.columns.rows()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        self.columns.batch(&self.schema)
    }
}

/// Makes the bytes of the only column the payload; null is a record without one, a tombstone.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{RecordBatch, StringArray}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::format::{Payloads, RawEncoder, RowEncoder};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec![Some("a"), None]))])?;
/// let mut payloads = Payloads::new();
/// RawEncoder::new(&schema)?.encode(&batch, &mut payloads)?;
/// assert_eq!((payloads.get(0), payloads.get(1)), (Some(&b"a"[..]), None));
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct RawEncoder {
    /// What makes bytes of the column.
    bytes: for<'a> fn(&'a ArrayRef, usize) -> &'a [u8],
}

impl RawEncoder {
    /// An encoder for rows of `schema`. Fails if that is not one column of bytes or text.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
        let bytes: for<'a> fn(&'a ArrayRef, usize) -> &'a [u8] = match types[..] {
            [DataType::Binary] => |array, row| array.as_binary::<i32>().value(row),
            [DataType::LargeBinary] => |array, row| array.as_binary::<i64>().value(row),
            [DataType::BinaryView] => |array, row| array.as_binary_view().value(row),
            [DataType::Utf8] => |array, row| array.as_string::<i32>().value(row).as_bytes(),
            [DataType::LargeUtf8] => |array, row| array.as_string::<i64>().value(row).as_bytes(),
            [DataType::Utf8View] => |array, row| array.as_string_view().value(row).as_bytes(),
            _ => {
                return Err(config(format!(
                    "raw payloads are made of one column of the type Binary or Utf8; the columns are {}: select one \
                     of them, or write another format",
                    described(schema)
                )));
            }
        };
        Ok(Self { bytes })
    }
}

impl RowEncoder for RawEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        let Some(column) = batch.columns().first() else {
            return Err(config("raw payloads are made of one column, and there is none".to_string()));
        };
        for row in 0..batch.num_rows() {
            if column.is_null(row) {
                out.null();
            } else {
                out.buffer().extend_from_slice((self.bytes)(column, row));
                out.end();
            }
        }
        Ok(())
    }
}

/// Payloads as they are, for a sink: see [`RawEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl PayloadFormat for Raw {
    fn accepts(&self, schema: &SchemaRef, _topic: &str) -> Result<()> {
        RawEncoder::new(schema).map(drop)
    }

    fn encoder(&self, schema: &SchemaRef, _topic: &str) -> Result<Box<dyn RowEncoder>> {
        Ok(Box::new(RawEncoder::new(schema)?))
    }
}

fn described(schema: &SchemaRef) -> String {
    let fields = schema.fields().iter().take(20).map(|field| format!("{:?} ({})", field.name(), field.data_type()));
    let fields: Vec<String> = fields.collect();
    if fields.is_empty() { "none".to_string() } else { fields.join(", ") }
}
