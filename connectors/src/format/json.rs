//! JSON lines into columns.
//!
//! Each record is read on its own, straight into the column buffers: no tree of values, no allocation for text without
//! escapes, and a limit on depth. The usual ones are read by `scan`; all others, and above all the bad ones, by
//! `serde_json`, whose callbacks are driven by the schema. arrow-json's reader is not used because it decodes over line
//! ends: one broken line can eat the next.

mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Decoder, Frame,
    columns::{Column, Columns, Medium, Misfit, Values},
    excerpt,
    frame::Lines,
    keys::{Found, Keys},
    most_values,
};
use crate::Result;

const FRAMED: &str = "JSON from a schema registry does: that is read by json_schema";

/// Decodes JSON objects, one a line.
///
/// Values must have the column's type: no number in quotes, no 1.0 for an integer. Times are RFC 3339 text, or whole
/// numbers in the column's unit; dates are `2024-02-29` or days since 1970. Names without a column are passed over. A
/// record is rejected if it is no object, holds a column twice, lacks one that is not nullable, or is not UTF-8.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{Decoder, JsonDecoder, MAX_RECORD_BYTES};
///
/// let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
/// let mut decoder = JsonDecoder::new(schema, MAX_RECORD_BYTES)?;
/// decoder.push(br#"{"name": "Ada"}"#).unwrap();
/// decoder.push(b"{}").unwrap();
/// assert!(decoder.push(br#"{"name": 7}"#).is_err());
/// assert_eq!(decoder.flush()?.num_rows(), 2);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    columns: Columns,
    lines: Lines,
}

impl JsonDecoder {
    /// A decoder for rows of `schema`. Fails for a column type that JSON text cannot hold, naming the column.
    pub fn new(schema: SchemaRef, max_record_bytes: usize) -> Result<Self> {
        let columns = Columns::new(schema.fields(), "", Medium::Json)?;
        Ok(Self { schema, columns, lines: Lines::new(max_record_bytes) })
    }

    fn decode(&mut self, record: &[u8]) -> Result<(), String> {
        let rows = self.columns.rows();
        if scan::row(record, &mut self.columns).is_some() {
            return Ok(());
        }
        self.columns.truncate(rows);
        self.parse(record)
    }

    /// Reads any record, or says why it is none.
    fn parse(&mut self, record: &[u8]) -> Result<(), String> {
        // One look over the bytes here saves the parser one for every text, and covers the values it passes over.
        let text = std::str::from_utf8(record).map_err(|error| format!("not UTF-8: {error}"))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let mut blame = Blame::new(text.len());
        Row { columns: &mut self.columns, blame: &mut blame }
            .deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|error| blame.explain(text, &error))
    }
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.lines.frame(bytes, last)
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let rows = self.columns.rows();
        self.decode(record).inspect_err(|_| self.columns.truncate(rows)).map_err(|reason| match record.first() {
            Some(0) => format!("{reason}; it begins with a zero, as {FRAMED}"),
            _ => reason,
        })
    }

    fn len(&self) -> usize {
        self.columns.rows()
    }

    fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        self.columns.batch(&self.schema)
    }
}

/// An object, into a row of columns.
pub(super) struct Row<'a> {
    pub(super) columns: &'a mut Columns,
    pub(super) blame: &'a mut Blame,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { columns, blame } = self;
        let row = columns.rows();
        let mut place = 0;
        while let Some(found) = map.next_key_seed(Key { keys: &mut columns.keys, place })? {
            place = found.next;
            let Some(i) = found.column else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let column = &mut columns.columns[i];
            if column.len() != row {
                return Err(blame.on(columns.fields[i].name(), "stands twice in the record"));
            }
            if let Err(error) = map.next_value_seed(Cell { column, blame }) {
                blame.within(columns.fields[i].name());
                return Err(error);
            }
        }
        columns.end_row().map_err(|i| blame.on(columns.fields[i].name(), "is missing, and it is not nullable"))
    }
}

/// The name of a value, into its column.
struct Key<'a> {
    keys: &'a mut Keys,
    place: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Found;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.keys.find(self.place, name))
    }
}

/// A value, into its column.
struct Cell<'a> {
    column: &'a mut Column,
    blame: &'a mut Blame,
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { column, blame } = self;
        let read = deserializer.deserialize_any(Cell { column: &mut *column, blame: &mut *blame });
        if read.is_err() {
            // The innermost column is here first, and it is the one to name.
            blame.expected.get_or_insert_with(|| column.field.data_type().clone());
        }
        read
    }
}

impl Cell<'_> {
    fn number<E: serde::de::Error>(self, pushed: Result<(), Misfit>) -> Result<(), E> {
        pushed.map_err(|misfit| self.blame.fault(Fault::Number(misfit)))
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.column.field.data_type())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.column.push_null().map_err(|_| self.blame.fault(Fault::Null))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.column.push_bool(value).map_err(|_| self.blame.fault(Fault::Found(value.to_string())))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let pushed = self.column.push_i64(value);
        self.number(pushed)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let pushed = self.column.push_u64(value);
        self.number(pushed)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let pushed = push_float(self.column, value);
        self.number(pushed)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.column.push_text(value).map_err(|misfit| {
            let shown = format!("{:?}", excerpt(value));
            self.blame.fault(if misfit == Misfit::Range { Fault::TooLarge(shown) } else { Fault::Found(shown) })
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { column, blame } = self;
        let Values::List { ends, item } = &mut column.values else {
            return Err(blame.fault(Fault::Found("a list".to_string())));
        };
        let start = ends.last().map_or(0, |end| *end as usize);
        loop {
            if item.len() > start {
                blame.spend(item.width())?;
            }
            match seq.next_element_seed(Cell { column: &mut *item, blame: &mut *blame }) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    blame.within(&format!("[{}]", item.len() - start));
                    return Err(error);
                }
            }
        }
        column.end_list().map_err(|_| blame.fault(Fault::TooLarge("the list".to_string())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { column, blame } = self;
        let Values::Struct(columns) = &mut column.values else {
            return Err(blame.fault(Fault::Found("an object".to_string())));
        };
        Row { columns, blame }.visit_map(map)?;
        column.written();
        Ok(())
    }
}

fn push_float(column: &mut Column, value: f64) -> Result<(), Misfit> {
    // The parser gives the whole number -0 as this; -0.0 cannot be told from it, and loses nothing either.
    let is_zero = value == 0.0 && value.is_sign_negative();
    column.push_f64(value).or_else(|misfit| if is_zero { column.push_i64(0) } else { Err(misfit) })
}

/// What went wrong, and in which column. Written on the way out of the callbacks, put into words once.
#[derive(Debug)]
pub(super) struct Blame {
    /// How many values the lists of the record may hold yet.
    values: usize,
    path: String,
    expected: Option<DataType>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum Fault {
    /// The number that ends where the parser stands.
    Number(Misfit),
    /// Something of another kind than the column.
    Found(String),
    TooLarge(String),
    Null,
    /// The lists of the record hold more than it may.
    TooMany,
    /// The rest of a sentence that begins with the column.
    Other(&'static str),
}

impl Blame {
    /// For a record of this length.
    pub(super) fn new(bytes: usize) -> Self {
        Self { values: most_values(bytes), path: String::new(), expected: None, fault: None }
    }

    /// Accounts for so many values of a list.
    fn spend<E: serde::de::Error>(&mut self, values: usize) -> Result<(), E> {
        match self.values.checked_sub(values) {
            Some(left) => self.values = left,
            None => return Err(self.fault(Fault::TooMany)),
        }
        Ok(())
    }

    #[cold]
    fn fault<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.fault = Some(fault);
        E::custom("")
    }

    #[cold]
    pub(super) fn on<E: serde::de::Error>(&mut self, column: &str, what: &'static str) -> E {
        self.within(column);
        self.fault(Fault::Other(what))
    }

    #[cold]
    fn within(&mut self, name: &str) {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
    }

    /// The reason for the user. `error` tells where the parser stood; what it says is used for bad JSON only.
    #[cold]
    pub(super) fn explain(self, record: &str, error: &serde_json::Error) -> String {
        let expected = self.expected.map(|data_type| data_type.to_string()).unwrap_or_default();
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        let column = if self.path.is_empty() { String::new() } else { format!("column {:?}", self.path) };
        match self.fault {
            Some(Fault::Null) => format!("{column} is null, and it is not nullable"),
            Some(Fault::TooMany) => format!("{column}: too many values for a record of its size"),
            Some(Fault::Other(what)) => format!("{column} {what}"),
            Some(Fault::TooLarge(shown)) => format!("{column}: {shown} does not fit {expected}"),
            Some(Fault::Found(shown)) => format!("{column}: {shown} is not {expected}"),
            Some(Fault::Number(Misfit::Range)) => {
                format!("{column}: {} does not fit {expected}", number(record, error))
            }
            Some(Fault::Number(_)) => format!("{column}: {} is not {expected}", number(record, error)),
            None if message == "number out of range" && !column.is_empty() => {
                format!("{column}: {} does not fit {expected}", number(record, error))
            }
            None if error.is_data() => format!("not an object: {}", excerpt(message)),
            None if column.is_empty() => format!("not JSON: {message} (byte {})", offset(record, error)),
            None => format!("{column}: not JSON: {message} (byte {})", offset(record, error)),
        }
    }
}

/// Where the parser stood.
fn offset(record: &str, error: &serde_json::Error) -> usize {
    let lines = record.split_inclusive('\n').take(error.line().saturating_sub(1));
    (lines.map(str::len).sum::<usize>() + error.column()).min(record.len())
}

/// The number around the place where the parser stood, as it was written.
fn number(record: &str, error: &serde_json::Error) -> String {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let at = offset(record, error);
    let (before, behind) = record.as_bytes().split_at(at);
    let start = at - before.iter().rev().take_while(|byte| is_part(byte)).count();
    let end = at + behind.iter().take_while(|byte| is_part(byte)).count();
    excerpt(record.get(start..end).unwrap_or_default())
}
