//! CSV into columns.
//!
//! A record without a quote, which is nearly every one, is cut at its delimiters; `csv-core` takes the others. Line
//! ends within quotes are the framer's business (`frame`).

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use csv_core::{ReadRecordResult, Terminator};
use memchr::{memchr, memchr_iter};

use super::{
    Decoder, Frame,
    columns::{Columns, Medium, Misfit},
    config, excerpt,
    frame::QuotedLines,
    text::alternatives,
};
use crate::Result;

/// Decodes records of RFC 4180, with any delimiter.
///
/// Columns are found by the names in the header, and other fields are passed over; without a call of
/// [`Decoder::header`] the fields are the columns, in order. Nothing is trimmed. An empty field is null, in a text
/// column that is not nullable the empty text. A record is rejected if its number of fields is wrong, if a value does
/// not have the column's type, or if it is not UTF-8.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{CsvDecoder, Decoder, MAX_RECORD_BYTES};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
/// let mut decoder = CsvDecoder::new(schema, b',', MAX_RECORD_BYTES)?;
/// decoder.header(b"auction,price").unwrap();
/// decoder.push(b"1,100").unwrap();
/// assert_eq!(decoder.push(b"1,1o0").unwrap_err(), r#"column "price": "1o0" is not Int64"#);
/// assert_eq!(decoder.flush()?.num_rows(), 1);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct CsvDecoder {
    schema: SchemaRef,
    columns: Columns,
    /// For each field of a record its column, unless it has none.
    targets: Vec<Option<usize>>,
    lines: QuotedLines,
    splitter: Splitter,
}

impl CsvDecoder {
    /// A decoder for rows of `schema`. Fails for a column type that CSV cannot hold, naming the column, and for a
    /// delimiter that is a quote, a line end or not ASCII.
    pub fn new(schema: SchemaRef, delimiter: u8, max_record_bytes: usize) -> Result<Self> {
        check_delimiter(delimiter)?;
        let columns = Columns::new(schema.fields(), "", Medium::Csv)?;
        let targets = (0..schema.fields().len()).map(Some).collect();
        let lines = QuotedLines::new(delimiter, max_record_bytes);
        Ok(Self { schema, columns, targets, lines, splitter: Splitter::new(delimiter) })
    }
}

impl Decoder for CsvDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.lines.frame(bytes, last)
    }

    fn has_header(&self) -> bool {
        true
    }

    fn header(&mut self, record: &[u8]) -> Result<(), String> {
        let mut names = Vec::new();
        self.splitter.split(record, |fields| names.extend(fields.map(str::to_string)))?;
        let mut targets = vec![None; names.len()];
        for (i, field) in self.schema.fields().iter().enumerate() {
            let mut places = names.iter().enumerate().filter(|(_, name)| *name == field.name());
            match (places.next(), places.next()) {
                (Some((place, _)), None) => targets[place] = Some(i),
                (Some(_), Some(_)) => {
                    return Err(format!("the header names the column {:?} twice", excerpt(field.name())));
                }
                (None, _) => {
                    let there = alternatives(field.name(), names.iter().map(String::as_str));
                    return Err(format!("the header has no column {:?}; it has {there}", field.name()));
                }
            }
        }
        self.targets = targets;
        Ok(())
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let Self { columns, targets, splitter, .. } = self;
        // Some write the line end into the message. Of a file the framer has taken it off.
        let record = record.strip_suffix(b"\n").map_or(record, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let rows = columns.rows();
        let decoded = splitter.split(record, |fields| push_fields(columns, targets, fields)).flatten();
        decoded.inspect_err(|_| columns.truncate(rows))
    }

    fn len(&self) -> usize {
        self.columns.rows()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        self.columns.batch(&self.schema)
    }
}

/// Refuses a delimiter that could not be told from what it separates.
pub(super) fn check_delimiter(delimiter: u8) -> Result<()> {
    if !delimiter.is_ascii() || matches!(delimiter, b'"' | b'\n' | b'\r') {
        return Err(config(format!(
            "the CSV delimiter {:?} cannot be told from text, quotes or line ends: choose another ASCII character",
            char::from(delimiter)
        )));
    }
    Ok(())
}

/// Fields into their columns. A wrong number of fields is the reason to give even if a value does not fit either: it
/// would have been meant for another column.
fn push_fields(
    columns: &mut Columns,
    targets: &[Option<usize>],
    fields: &mut dyn Iterator<Item = &str>,
) -> Result<(), String> {
    let mut count = 0;
    let mut fault = None;
    for field in fields {
        if let (Some(Some(i)), None) = (targets.get(count), &fault) {
            fault = columns.columns[*i].push_field(field).err().map(|misfit| (*i, misfit, field));
        }
        count += 1;
    }
    if count != targets.len() {
        return Err(format!("has {count} fields instead of {}", targets.len()));
    }
    if let Some((i, misfit, field)) = fault {
        let column = &columns.fields[i];
        let (name, data_type, shown) = (column.name(), column.data_type(), excerpt(field));
        return Err(match misfit {
            Misfit::Range => format!("column {name:?}: {shown} does not fit {data_type}"),
            Misfit::Kind => format!("column {name:?}: {shown:?} is not {data_type}"),
            Misfit::Null => format!("column {name:?} is empty, and it is not nullable"),
        });
    }
    columns.end_row().map_err(|i| format!("column {:?} is missing", columns.fields[i].name()))
}

/// Cuts a record into fields.
#[derive(Debug)]
struct Splitter {
    delimiter: u8,
    quoted: csv_core::Reader,
    /// The fields of a quoted record without their quotes, back to back, and where they end.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Splitter {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, quoted: unquoter(delimiter), text: Vec::new(), ends: Vec::new() }
    }

    /// Hands the fields of `record` to `take`.
    fn split<R>(&mut self, record: &[u8], take: impl FnOnce(&mut dyn Iterator<Item = &str>) -> R) -> Result<R, String> {
        let text = std::str::from_utf8(record).map_err(|error| format!("not UTF-8: {error}"))?;
        if memchr(b'"', record).is_none() {
            return Ok(take(&mut text.split(char::from(self.delimiter))));
        }
        let count = self.unquote(record)?;
        let text = std::str::from_utf8(&self.text).map_err(|error| format!("not UTF-8: {error}"))?;
        let mut start = 0;
        let mut fields = self.ends[..count].iter().map(|&end| {
            let field = text.get(start..end).unwrap_or_default();
            start = end;
            field
        });
        Ok(take(&mut fields))
    }

    /// Fills `text` and `ends`; returns the number of fields.
    fn unquote(&mut self, record: &[u8]) -> Result<usize, String> {
        self.text.clear();
        // A record of megabytes must not pin its memory for ever.
        self.text.shrink_to(record.len().max(1 << 20));
        self.text.resize(record.len() + 1, 0);
        self.ends.clear();
        self.ends.resize(memchr_iter(self.delimiter, record).count() + 2, 0);
        let (_, read, written, fields) = self.quoted.read_record(record, &mut self.text, &mut self.ends);
        // The line feed ends the last field, unless a quote is open, which the framer has ruled out for files.
        let (result, _, _, more) = self.quoted.read_record(b"\n", &mut self.text[written..], &mut self.ends[fields..]);
        if read != record.len() || result != ReadRecordResult::Record {
            self.quoted = unquoter(self.delimiter);
            return Err("a quote opens and does not close".to_string());
        }
        self.text.truncate(written);
        Ok(fields + more)
    }
}

fn unquoter(delimiter: u8) -> csv_core::Reader {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build();
    // At its first byte csv-core would take a byte order mark off. An empty line passes that point.
    reader.read_record(b"\n", &mut [0], &mut [0]);
    reader
}
