//! Envelopes into rows.
//!
//! The name that says which row counts, `op`, often stands behind the rows. So a record is read twice: first what the
//! envelope says, passing over the rows; then the row that counts, straight into the columns, passing over all else.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use serde::{
    Deserialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::{CAPTURED_AT, CHANGE, CHANGED_AT, times};
use crate::{
    Result,
    format::{
        Decoder, Frame,
        columns::{Column, Columns, Medium, Misfit, Values},
        config, excerpt,
        frame::Lines,
        infer,
        json::{Blame, Row},
    },
};

/// What Debezium writes instead of a long value that an update did not touch and the database did not send; and the same where
/// bytes are written in base64 (of either alphabet, with its end or without) or hex.
const UNAVAILABLE: [&[u8]; 4] = [
    b"__debezium_unavailable_value",
    b"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    b"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ",
    b"5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
];

/// Decodes Debezium's change events into rows of the table.
///
/// The columns are those of the table, and if the schema has them: [`op`](CHANGE), [`__ts_ms`](CAPTURED_AT) and
/// [`__source_ts_ms`](CHANGED_AT), which are taken from the envelope (columns of the table that are called so cannot be
/// read). `c` and `r` are inserts, `u` an update, and their row is `after`; `d` is a delete, and its row is `before`.
/// The envelope may stand alone or within `{"schema": …, "payload": …}`.
///
/// Values are read as [`JsonDecoder`](crate::format::JsonDecoder) does, so Debezium's whole numbers for times
/// (`io.debezium.time.*`) must meet a column of their unit: `Timestamp` is milliseconds, `MicroTimestamp` microseconds,
/// `NanoTimestamp` nanoseconds, `Date` days into Date32. Where the record brings its own schema along
/// (`{"schema": …, "payload": …}`) they are converted to the unit of a timestamp column, and one that does not fit without a rest
/// is a reason to reject the record. Decimals come as base64 by default: set
/// `decimal.handling.mode` to `string` or `double`.
///
/// A record without a payload, the tombstone that follows a delete, is no row and no error.
///
/// Rejected are: a delete without `before`, or whose `before` has no value for a column that is not nullable (without
/// `REPLICA IDENTITY FULL` there are only the key columns); any delete if the schema has no column `op`, because its
/// row would look like the others; an update that lacks a value, because it is long and was not touched
/// (`__debezium_unavailable_value`, also in base64 or hex, in a list or a struct); `t` (truncate) and `m` (message), which are no rows.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{DebeziumDecoder, Decoder, MAX_RECORD_BYTES};
///
/// let fields = vec![Field::new("op", DataType::Utf8, false), Field::new("id", DataType::Int64, false)];
/// let mut decoder = DebeziumDecoder::new(Arc::new(Schema::new(fields)), MAX_RECORD_BYTES)?;
/// decoder.push(br#"{"before": null, "after": {"id": 7}, "op": "c", "ts_ms": 1700000000000}"#).unwrap();
/// decoder.push(br#"{"payload": {"before": {"id": 7}, "after": null, "op": "d"}}"#).unwrap();
/// assert!(!decoder.push_null().unwrap());
/// assert!(decoder.push(br#"{"op": "t"}"#).unwrap_err().contains("truncate"));
/// assert_eq!(decoder.flush()?.num_rows(), 2);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct DebeziumDecoder {
    schema: SchemaRef,
    /// The columns of the table.
    table: Columns,
    /// The columns of the envelope.
    envelope: Columns,
    /// For each column of the schema whether it is one of the envelope, and its number there.
    places: Vec<(bool, usize)>,
    /// Whether a column of the table is a timestamp.
    has_times: bool,
    lines: Lines,
}

impl DebeziumDecoder {
    /// A decoder for rows of `schema`. Fails for a column type that JSON text cannot hold, and for a column of the envelope
    /// that has another type than its own, naming the column.
    pub fn new(schema: SchemaRef, max_record_bytes: usize) -> Result<Self> {
        let (mut table, mut envelope, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for field in schema.fields() {
            let is_envelope = [CHANGE, CAPTURED_AT, CHANGED_AT].contains(&field.name().as_str());
            if is_envelope {
                check_type(field)?;
            }
            let part = if is_envelope { &mut envelope } else { &mut table };
            places.push((is_envelope, part.len()));
            part.push(field.clone());
        }
        let has_times = table.iter().any(|field| matches!(field.data_type(), DataType::Timestamp(..)));
        let table = Columns::new(&table.into(), "", Medium::Json)?;
        let envelope = Columns::new(&envelope.into(), "", Medium::Json)?;
        Ok(Self { schema, table, envelope, places, has_times, lines: Lines::new(max_record_bytes) })
    }

    /// The schema of change events, from a sample of them: `op`, and every column that stands in a `before` or an `after`, or
    /// of all these the ones in `columns`. Columns of the table are nullable. Fails if a record is no change event, or if a
    /// column in `columns` is not there.
    pub fn infer(sample: &[Vec<u8>], columns: Option<&[String]>) -> Result<SchemaRef> {
        let mut rows = Vec::new();
        for record in sample {
            let text =
                std::str::from_utf8(record).map_err(|error| config(format!("the sample is not UTF-8: {error}")))?;
            let envelope: Sample = serde_json::from_str(text)
                .map_err(|error| config(format!("the sample has a record that is no change event: {error}")))?;
            let rows_of = |envelope: Sample| [envelope.before, envelope.after].into_iter().flatten();
            let outer = [envelope.payload].into_iter().flatten().flat_map(|envelope| rows_of(*envelope));
            let inner = [envelope.before, envelope.after].into_iter().flatten();
            rows.extend(outer.chain(inner).map(|row| serde_json::Value::Object(row).to_string().into_bytes()));
        }
        let wanted: Option<Vec<String>> =
            columns.map(|columns| columns.iter().filter(|name| *name != CHANGE).cloned().collect());
        let table = infer::json(&rows, wanted.as_deref())?;
        let change = Arc::new(Field::new(CHANGE, DataType::Utf8, false));
        let is_wanted = columns.is_none_or(|columns| columns.iter().any(|name| name == CHANGE));
        let table = table.fields().iter().filter(|field| field.name() != CHANGE).cloned();
        Ok(Arc::new(Schema::new(is_wanted.then_some(change).into_iter().chain(table).collect::<Vec<_>>())))
    }

    fn decode(&mut self, record: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(record).map_err(|error| format!("not UTF-8: {error}"))?;
        let (envelope, wrapped) = Envelope::read(text)?;
        let change = envelope.change()?;
        if change == "delete" && !self.envelope.fields.iter().any(|field| field.name() == CHANGE) {
            return Err(format!(
                "it is a delete, and the schema has no column {CHANGE:?} that could tell: add it, as text"
            ));
        }
        let row = if change == "delete" { "before" } else { "after" };
        let mut blame = Blame::new(record.len());
        let mut json = serde_json::Deserializer::from_str(text);
        let payload = Walk { to: row, then: Some(Row { columns: &mut self.table, blame: &mut blame }) };
        let read = match wrapped {
            true => Walk { to: "payload", then: Some(payload) }.deserialize(&mut json),
            false => payload.deserialize(&mut json),
        };
        read.map_err(|error| {
            let reason = blame.explain(text, &error);
            let hint = "a delete has the columns of the table's replica identity only: make the others nullable, or set \
                        REPLICA IDENTITY FULL";
            if change == "delete" { format!("{reason} ({hint})") } else { reason }
        })?;
        let newest = self.table.rows().saturating_sub(1);
        if let Some(column) = self.table.columns.iter().find(|column| is_unavailable(column, newest)) {
            let name = column.field.name();
            return Err(format!(
                "column {name:?} was not sent, because it is long and was not changed: set REPLICA IDENTITY FULL"
            ));
        }
        if wrapped && self.has_times {
            times::convert(text, row, &mut self.table)?;
        }
        self.push_envelope(&envelope, change)
    }

    fn push_envelope(&mut self, envelope: &Envelope, change: &str) -> Result<(), String> {
        for (field, column) in self.envelope.fields.iter().zip(&mut self.envelope.columns) {
            let time = match field.name().as_str() {
                CHANGE => {
                    column.push_text(change).map_err(|_| "the batch is full".to_string())?;
                    continue;
                }
                CAPTURED_AT => envelope.ts_ms,
                _ => envelope.source.as_ref().and_then(|source| source.ts_ms),
            };
            if let Some(time) = time {
                push_millis(column, time)
                    .map_err(|_| format!("column {:?}: {time} ms does not fit {}", field.name(), field.data_type()))?;
            }
        }
        self.envelope.end_row().map_err(|i| {
            let name = self.envelope.fields[i].name();
            format!("column {name:?} is missing in the envelope, and it is not nullable")
        })
    }
}

impl Decoder for DebeziumDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.lines.frame(bytes, last)
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let rows = self.envelope.rows();
        self.decode(record).inspect_err(|_| {
            self.table.truncate(rows);
            self.envelope.truncate(rows);
        })
    }

    /// A tombstone: no row, because the delete before it was one.
    fn push_null(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    fn len(&self) -> usize {
        self.envelope.rows()
    }

    fn bytes(&self) -> usize {
        self.table.bytes() + self.envelope.bytes()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.envelope.rows()));
        let (table, envelope) = (self.table.take()?, self.envelope.take()?);
        let array =
            |(is_envelope, i): &(bool, usize)| if *is_envelope { envelope[*i].clone() } else { table[*i].clone() };
        let arrays = self.places.iter().map(array).collect();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

fn check_type(field: &Field) -> Result<()> {
    let (name, data_type) = (field.name(), field.data_type());
    let fits = match name.as_str() {
        CHANGE => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        _ => matches!(data_type, DataType::Int64 | DataType::Timestamp(..)),
    };
    if fits {
        return Ok(());
    }
    let wanted = if name == CHANGE { "Utf8: insert, update or delete" } else { "Int64 milliseconds or a timestamp" };
    Err(config(format!("column {name:?} of Debezium's envelope is {wanted}; it cannot be {data_type}")))
}

fn push_millis(column: &mut Column, time: i64) -> Result<(), Misfit> {
    let value = match &column.values {
        Values::Timestamp { unit: TimeUnit::Second, .. } => Some(time.div_euclid(1_000)),
        Values::Timestamp { unit: TimeUnit::Microsecond, .. } => time.checked_mul(1_000),
        Values::Timestamp { unit: TimeUnit::Nanosecond, .. } => time.checked_mul(1_000_000),
        _ => Some(time),
    };
    column.push_i64(value.ok_or(Misfit::Range)?)
}

/// Whether the value of the column at this row is Debezium's word for "not sent", or holds it.
fn is_unavailable(column: &Column, row: usize) -> bool {
    fn part<E: Copy + TryInto<usize>>(ends: &[E], row: usize) -> Option<std::ops::Range<usize>> {
        Some((*ends.get(row)?).try_into().ok()?..(*ends.get(row + 1)?).try_into().ok()?)
    }
    match &column.values {
        Values::Text { ends, bytes } => part(ends, row).is_some_and(|part| is_word(bytes.get(part))),
        Values::LargeText { ends, bytes } => part(ends, row).is_some_and(|part| is_word(bytes.get(part))),
        Values::Struct(columns) => columns.columns.iter().any(|column| is_unavailable(column, row)),
        Values::List { ends, item } => part(ends, row).is_some_and(|part| {
            is_word_in_numbers(&item.values, part.clone()) || part.clone().any(|row| is_unavailable(item, row))
        }),
        _ => false,
    }
}

fn is_word(text: Option<&[u8]>) -> bool {
    text.is_some_and(|text| UNAVAILABLE.contains(&text))
}

/// In a list of numbers it stands as its bytes.
fn is_word_in_numbers(values: &Values, part: std::ops::Range<usize>) -> bool {
    fn is<N: Copy + PartialEq + From<u8>>(numbers: &[N], part: std::ops::Range<usize>) -> bool {
        numbers.get(part).is_some_and(|numbers| numbers.iter().copied().eq(UNAVAILABLE[0].iter().map(|&b| b.into())))
    }
    match values {
        Values::Int16(numbers) => is(numbers, part),
        Values::Int32(numbers) => is(numbers, part),
        Values::Int64(numbers) => is(numbers, part),
        Values::Float32(numbers) => is(numbers, part),
        Values::Float64(numbers) => is(numbers, part),
        _ => false,
    }
}

/// What an envelope says, without its rows: of those only whether they are there.
#[derive(Deserialize)]
struct Envelope<'a> {
    payload: Option<Box<Envelope<'a>>>,
    before: Option<IgnoredAny>,
    after: Option<IgnoredAny>,
    #[serde(borrow)]
    op: Option<Op<'a>>,
    ts_ms: Option<i64>,
    source: Option<Origin>,
}

#[derive(Deserialize)]
struct Op<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Origin {
    ts_ms: Option<i64>,
}

/// An envelope of a sample.
#[derive(Deserialize)]
struct Sample {
    payload: Option<Box<Sample>>,
    before: Option<serde_json::Map<String, serde_json::Value>>,
    after: Option<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> Envelope<'a> {
    /// The envelope, and whether it stands within `payload`.
    fn read(text: &'a str) -> Result<(Self, bool), String> {
        let mut outer: Self = serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "not a change event" } else { "not JSON" };
            format!("{what}: {}", excerpt(&error.to_string()))
        })?;
        match outer.payload.take() {
            Some(inner) if outer.op.is_none() => Ok((*inner, true)),
            _ => Ok((outer, false)),
        }
    }

    /// What it does, in the words of a changelog.
    fn change(&self) -> Result<&'static str, String> {
        let Some(Op(op)) = &self.op else {
            return Err("not a change event: it has no \"op\"".to_string());
        };
        let change = match op.as_ref() {
            "c" | "r" => "insert",
            "u" => "update",
            "d" => "delete",
            "t" => {
                return Err(
                    "it says that the table was emptied (truncate), which is no row: empty what reads it too".into()
                );
            }
            "m" => return Err("it is a message of the application (op \"m\"), which is no row".to_string()),
            other => return Err(format!("\"op\" is {:?}, which is none of c, r, u and d", excerpt(other))),
        };
        match (change, &self.before, &self.after) {
            ("delete", None, _) => {
                Err("it is a delete without \"before\", so nobody knows which row: set REPLICA IDENTITY \
                                        DEFAULT with a primary key, or FULL"
                    .to_string())
            }
            ("insert" | "update", _, None) => Err(format!("it is an {change} without \"after\"")),
            _ => Ok(change),
        }
    }
}

/// An object, of which one value goes to `then` and all others are passed over.
struct Walk<S> {
    to: &'static str,
    /// Taken at the first value of the name.
    then: Option<S>,
}

impl<'de, S: DeserializeSeed<'de, Value = ()>> DeserializeSeed<'de> for Walk<S> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()>> Visitor<'de> for Walk<S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name>()? {
            match self.then.take_if(|_| name.0 == self.to) {
                Some(seed) => map.next_value_seed(seed)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
