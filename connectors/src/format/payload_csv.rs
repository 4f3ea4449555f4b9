//! Rows into lines of CSV, one payload for each.
//!
//! ```text
//!   batch ──► arrow's CSV writer ──► 7,"a,b"⏎8,"two⏎lines"⏎ ──► 7,"a,b"
//!                                              └ hidden          8,"two⏎lines"
//! ```

use arrow::{array::RecordBatch, csv::WriterBuilder, datatypes::SchemaRef};
use memchr::memchr2_iter;

use super::{Encoder, Format, Payloads, RowEncoder, encode::check_times};
use crate::{ConnectorError, Result};

/// Makes a line of CSV of each row, without its line end and without a header: the fields are the columns, in order.
///
/// As in files: null is an empty field, times are RFC 3339 text, and a field with a delimiter, a quote or a line end
/// stands in quotes.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch, StringArray}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::format::{CsvRowEncoder, Payloads, RowEncoder};
///
/// let fields = vec![Field::new("n", DataType::Int64, false), Field::new("text", DataType::Utf8, false)];
/// let schema = Arc::new(Schema::new(fields));
/// let columns = (Int64Array::from(vec![7, 8]), StringArray::from(vec!["a,b", "two\nlines"]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(columns.0), Arc::new(columns.1)])?;
/// let mut payloads = Payloads::new();
/// CsvRowEncoder::new(&schema, b',')?.encode(&batch, &mut payloads)?;
/// assert_eq!(payloads.get(0), Some(&b"7,\"a,b\""[..]));
/// assert_eq!(payloads.get(1), Some(&b"8,\"two\nlines\""[..]));
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct CsvRowEncoder {
    delimiter: u8,
    lines: Vec<u8>,
}

impl CsvRowEncoder {
    /// An encoder for rows of `schema`. Fails for a column that CSV has no form for, naming it, and for a delimiter that
    /// is a quote, a line end or not ASCII.
    pub fn new(schema: &SchemaRef, delimiter: u8) -> Result<Self> {
        super::csv::check_delimiter(delimiter)?;
        Encoder::accepts(Format::Csv { delimiter }, schema)?;
        Ok(Self { delimiter, lines: Vec::new() })
    }
}

impl RowEncoder for CsvRowEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        check_times(batch)?;
        let Self { delimiter, lines } = self;
        lines.clear();
        WriterBuilder::new().with_header(false).with_delimiter(*delimiter).build(&mut *lines).write(batch)?;

        // A quote within quotes is written twice, so each one that is passed opens or closes.
        let (mut start, mut quoted, mut rows) = (0, false, 0);
        for at in memchr2_iter(b'"', b'\n', lines) {
            if lines.get(at) == Some(&b'"') {
                quoted = !quoted;
            } else if !quoted {
                out.buffer().extend_from_slice(lines.get(start..at).unwrap_or_default());
                out.end();
                (start, rows) = (at + 1, rows + 1);
            }
        }
        if (start, rows) != (lines.len(), batch.num_rows()) {
            let reason = format!("{} rows made {rows} lines of CSV: a bug in the encoder", batch.num_rows());
            return Err(ConnectorError::Data { at: "CSV payloads".to_string(), reason });
        }
        Ok(())
    }
}
