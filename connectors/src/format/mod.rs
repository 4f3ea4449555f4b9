//! Formats: bytes into columns, and columns into bytes.
//!
//! ```text
//!   bytes of a file ──► Decoder::frame ──► one record ──► Decoder::push ──► column builders ──► Decoder::flush
//!   one Kafka message ───────────────────► one record ──────┘    │                               RecordBatch
//!                                                                └─► a reason: the record is rejected
//!   RecordBatch ──► Encoder::encode ──► bytes
//! ```
//!
//! *Framing* (where does a record end?) and *decoding* (what does it say?) are two steps, because a record that does
//! not decode must not harm its neighbours: the frame is found first, by line ends alone, and a broken record is
//! dropped within its frame. A message broker frames for us, so it calls [`Decoder::push`] only.
//!
//! Rows go straight from text into column buffers (`columns`), which can be cut back to a row count: that is how a
//! record that fails in its fifth column leaves nothing in the first four.
//!
//! | file | why it exists |
//! |---|---|
//! | `frame` | record ends, limits and open quotes |
//! | `columns`, `text`, `keys` | buffers built from a schema; times, dates and numbers from text; names to columns |
//! | [`json`], [`csv`] | the two decoders |
//! | [`encode`] | the two encoders |
//! | `avro` | records with the id of a schema in a registry, and how columns and schemas fit |
//! | `json_schema` | JSON with the id of a schema in a registry |
//! | [`payload`], [`payload_json`], [`payload_csv`] | rows into payloads, one for each |
//! | [`raw`] | payloads as they are |
//! | [`debezium`] | the changes of a database |
//! | `protobuf` | messages of Protocol Buffers, with or without a schema registry |
//! | `infer` | a schema from a sample |

use std::fmt;

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::{ConnectorError, Result};

#[cfg(feature = "kafka")]
pub mod avro;
mod columns;
pub mod csv;
pub mod debezium;
pub mod encode;
mod frame;
pub(crate) mod infer;
pub mod json;
#[cfg(feature = "kafka")]
pub mod json_schema;
mod keys;
pub mod payload;
pub mod payload_csv;
pub mod payload_json;
#[cfg(feature = "kafka")]
pub mod protobuf;
pub mod raw;
#[cfg(test)]
mod tests;
mod text;

#[cfg(feature = "kafka")]
pub use avro::{AvroDecoder, AvroEncoder, AvroFormat};
pub use csv::CsvDecoder;
pub use debezium::{Debezium, DebeziumDecoder, DebeziumEncoder};
pub use encode::Encoder;
pub use frame::{Frame, Span};
pub use json::JsonDecoder;
#[cfg(feature = "kafka")]
pub use json_schema::{JsonSchemaDecoder, JsonSchemaFormat};
pub use payload::{PayloadFormat, Payloads, RowEncoder};
pub use payload_csv::CsvRowEncoder;
pub use payload_json::JsonRowEncoder;
#[cfg(feature = "kafka")]
pub use protobuf::Protobuf;
pub use raw::{Raw, RawDecoder, RawEncoder};
pub(crate) use text::alternatives;

/// The longest record that is decoded unless the user says otherwise: 10 MiB.
pub const MAX_RECORD_BYTES: usize = 10 << 20;

/// Turns records into columns, batch after batch.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{Decoder, Format, MAX_RECORD_BYTES};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
/// let mut decoder = Format::Json.decoder(schema, MAX_RECORD_BYTES)?;
/// decoder.push(br#"{"price": 7, "who": "x"}"#).unwrap();
/// let reason = decoder.push(br#"{"price": 1e400}"#).unwrap_err();
/// assert_eq!(reason, r#"column "price": 1e400 does not fit Int64"#);
/// assert_eq!(decoder.flush()?.num_rows(), 1);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
pub trait Decoder: Send {
    /// The columns of the batches.
    fn schema(&self) -> &SchemaRef;

    /// Finds the record that `bytes` begin with. `last` says that no bytes follow these.
    ///
    /// `bytes` begin at [`Span::next`] of the former frame; after [`Frame::More`], the same bytes and more behind
    /// them. The decoder counts on it: it does not look twice at a byte that it has searched.
    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame;

    /// Whether a file of this format begins with a record that names the columns, for [`Decoder::header`].
    fn has_header(&self) -> bool {
        false
    }

    /// Takes the record that names the columns. The error says which column is missing.
    fn header(&mut self, record: &[u8]) -> Result<(), String> {
        let _ = record;
        Ok(())
    }

    /// Decodes one record into one row of the batch. On an error, which says why in words, nothing of the record remains there, and the
    /// record is to be rejected, unless there is a [`Decoder::failure`].
    fn push(&mut self, record: &[u8]) -> Result<(), String>;

    /// Takes a record without a payload, as a log has them that is compacted: a *tombstone*, which takes its key away. `true` if
    /// that is a row of the batch. On an error, which says why in words, nothing of it remains there.
    fn push_null(&mut self) -> Result<bool, String> {
        Err("it has no payload: a tombstone, which says that its key is gone, and this format has no row for that"
            .into())
    }

    /// Why the former [`Decoder::push`] could not decide about its record, if it could not: a schema registry does not answer. The
    /// record may be good, so it is not rejected: give away the rows before it, and end the source with this error, so that the job
    /// starts again at the record. Asked after each `push` that failed; the answer is taken away with it.
    fn failure(&mut self) -> Option<ConnectorError> {
        None
    }

    /// The rows in the batch so far.
    fn len(&self) -> usize;

    /// About how many bytes the batch has so far, if the decoder knows: it can have many more than its records, and the reader then
    /// gives it away earlier. May be asked after every record, so it must be cheap.
    fn bytes(&self) -> usize {
        0
    }

    /// Whether the batch has no rows yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the batch away and begins a new one.
    fn flush(&mut self) -> Result<RecordBatch>;
}

/// A format, before it meets a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Fields between delimiters, as in RFC 4180, with a header that names the columns.
    Csv {
        /// What stands between two fields: an ASCII character, neither a quote nor a line end.
        delimiter: u8,
    },
}

impl Format {
    /// CSV with commas.
    pub const CSV: Self = Self::Csv { delimiter: b',' };

    /// A decoder for rows of `schema`. Fails for a column type that the format cannot hold, naming the column.
    pub fn decoder(self, schema: SchemaRef, max_record_bytes: usize) -> Result<Box<dyn Decoder>> {
        Ok(match self {
            Self::Json => Box::new(JsonDecoder::new(schema, max_record_bytes)?),
            Self::Csv { delimiter } => Box::new(CsvDecoder::new(schema, delimiter, max_record_bytes)?),
        })
    }

    /// The ending of file names: `jsonl` or `csv`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "jsonl",
            Self::Csv { .. } => "csv",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Csv { .. } => "CSV",
        })
    }
}

/// A piece of the user's data, short enough for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// How many values a record of this length may hold. What is empty takes few bytes of it or none, and as many values of columns as a
/// struct has fields: a megabyte of `{}` in a list could take gigabytes.
fn most_values(record_bytes: usize) -> usize {
    1_000_000 + record_bytes.saturating_mul(4)
}

fn config(message: String) -> ConnectorError {
    ConnectorError::Config(message)
}
