//! Rows and changes into envelopes.

use std::io::Write;

use crate::{
    ConnectorError, OP, Result,
    format::{Encoder, Format, PayloadFormat, Payloads, RowEncoder, config, payload_json::objects},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{SchemaRef, UInt8Type},
    json::writer::EncoderOptions,
};

/// Makes an envelope of each change, or of each row of a stream without changes, for which it is an insert.
///
/// ```text
///   insert  {"before":null,"after":{…},"op":"c","ts_ms":null}
///   update  {"before":null,"after":{…},"op":"u","ts_ms":null}
///   delete  {"before":{…},"after":null,"op":"d","ts_ms":null}
/// ```
///
/// The row before an update is not known, and neither is a time: put one into a column. Every column stands in the row,
/// also with null; JSON has no NaN or infinity, which are null too. Times are RFC 3339 text.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::format::{DebeziumEncoder, Payloads, RowEncoder};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![7]))])?;
/// let mut payloads = Payloads::new();
/// DebeziumEncoder::new(&schema)?.encode(&batch, &mut payloads)?;
/// assert_eq!(payloads.get(0), Some(&br#"{"before":null,"after":{"id":7},"op":"c","ts_ms":null}"#[..]));
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct DebeziumEncoder {
    rows: Payloads,
}

impl DebeziumEncoder {
    /// An encoder for rows of `schema`, with or without [`OP`] as the last column. Fails for a column that JSON has no form
    /// for, naming it.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        Encoder::accepts(Format::Json, schema)?;
        Ok(Self { rows: Payloads::new() })
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Payloads, op: impl Fn(usize) -> Result<Op>) -> Result<()> {
        self.rows.clear();
        objects(batch, &EncoderOptions::default().with_explicit_nulls(true), &mut self.rows)?;
        for row in 0..batch.num_rows() {
            op(row)?.envelope(self.rows.get(row).unwrap_or_default(), out);
        }
        Ok(())
    }
}

impl RowEncoder for DebeziumEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        let Some(last) = batch.num_columns().checked_sub(1) else {
            return Err(config("a Debezium envelope holds a row, and there are no columns".to_string()));
        };
        if batch.schema_ref().field(last).name() != OP {
            return self.write(batch, out, |_| Ok(Op::Create));
        }
        let ops = batch.column(last).as_primitive_opt::<UInt8Type>();
        let op = |row: usize| {
            let value = ops.filter(|ops| row < ops.len() && ops.is_valid(row)).map(|ops| ops.value(row));
            match value {
                Some(0) => Ok(Op::Create),
                Some(1) => Ok(Op::Update),
                Some(2) => Ok(Op::Delete),
                other => {
                    let reason = format!("it is {other:?}, and neither insert (0), update (1) nor delete (2)");
                    Err(ConnectorError::Data { at: format!("column {OP:?}"), reason })
                }
            }
        };
        let columns: Vec<usize> = (0..last).collect();
        self.write(&batch.project(&columns)?, out, op)
    }
}

/// Debezium's envelopes, for a sink: see [`DebeziumEncoder`].
#[derive(Clone, Copy, Debug)]
pub struct Debezium;

impl PayloadFormat for Debezium {
    fn accepts(&self, schema: &SchemaRef, _topic: &str) -> Result<()> {
        DebeziumEncoder::new(schema).map(drop)
    }

    fn encoder(&self, schema: &SchemaRef, _topic: &str) -> Result<Box<dyn RowEncoder>> {
        Ok(Box::new(DebeziumEncoder::new(schema)?))
    }

    fn takes_changes(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy)]
enum Op {
    Create,
    Update,
    Delete,
}

impl Op {
    fn envelope(self, row: &[u8], out: &mut Payloads) {
        let (before, after, op): (&[u8], &[u8], _) = match self {
            Self::Create => (b"null", row, "c"),
            Self::Update => (b"null", row, "u"),
            Self::Delete => (row, b"null", "d"),
        };
        let to = out.buffer();
        for part in [b"{\"before\":", before, b",\"after\":", after] {
            to.extend_from_slice(part);
        }
        let _ = write!(to, r#","op":"{op}","ts_ms":null}}"#);
        out.end();
    }
}
