//! Rejected records as records of a topic: what they were, with the reason in headers.
//!
//! ```text
//!   source    split      position  reason              bytes   key        value  key  headers (its own, and)
//!   orders    orders/3   1207      column "price": …   {"pr…   u7    ──►  {"pr…  u7   windrow.error: column "price": …
//!                                                                                     windrow.topic: orders, windrow.partition: 3 …
//!   too large: it is cut                                             ──►  none   u7   windrow.truncated: 5000000,
//!                                                                                     windrow.excerpt: {"pr …
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, ListBuilder, MapArray, RecordBatch,
        StringArray, StringBuilder, StructBuilder, TimestampMillisecondArray, UInt64Array,
    },
    datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit},
};

use super::{
    super::{
        connection::{HEADER_BYTES, RECORD_BYTES},
        letters::{self, ERROR, EXCERPT, EXCERPT_BYTES, FIRST_PLACE, TRUNCATED},
    },
    KafkaOutput,
};
use crate::{ConnectorError, Rejected, Result};

const VALUE: &str = "value";
const KEY: &str = "key";
const HEADERS: &str = "headers";
const TIMESTAMP: &str = "timestamp";

/// Clocks differ by less. Brokers may refuse what is far in the future.
const SKEW: Duration = Duration::from_secs(60);

/// What the rows of rejected records have, in the order in which the engine gives them.
fn columns() -> [(&'static str, DataType); 11] {
    [
        ("source", DataType::Utf8),
        ("split", DataType::Utf8),
        ("position", DataType::UInt64),
        ("line", DataType::UInt64),
        ("reason", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("key", DataType::Binary),
        ("truncated", DataType::UInt64),
        ("headers", Rejected::headers_type()),
        ("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))),
        ("partition", DataType::Int32),
    ]
}

/// The same topic, for rows of [`schema`].
pub(super) fn output(output: KafkaOutput) -> KafkaOutput {
    let (headers, timestamp) = (Some(HEADERS.into()), Some(TIMESTAMP.into()));
    KafkaOutput { key: vec![KEY.into()], key_format: None, headers, partition: None, timestamp, ..output }
}

/// Whether these are the rows of rejected records.
pub(super) fn accepts(schema: &SchemaRef) -> Result<()> {
    for (name, data_type) in &columns() {
        if schema.field_with_name(name).is_ok_and(|field| field.data_type() == data_type) {
            continue;
        }
        return Err(ConnectorError::Config(format!(
            "dead letters are the rows of rejected records, and these have no column {name:?} ({data_type}): write the stream \
             that .with_rejects() gives, or choose a format, as with .json()"
        )));
    }
    Ok(())
}

/// The rows that are written.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(VALUE, DataType::Binary, true),
        Field::new(KEY, DataType::Binary, true),
        Field::new(HEADERS, DataType::new_list(DataType::Struct(header_fields()), false), false),
        Field::new(TIMESTAMP, DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// Rejected records as rows of [`schema`], none of them `largest` bytes or more as a record of its topic.
pub(super) fn rows(batch: &RecordBatch, largest: usize, now: SystemTime) -> Result<RecordBatch> {
    let rejects = Rejects::of(batch)?;
    let latest = (now + SKEW).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (mut values, mut keys) = (BinaryBuilder::new(), BinaryBuilder::new());
    let (mut headers, mut times) = (Headers::new(), Vec::new());
    for row in 0..batch.num_rows() {
        let letter = rejects.letter(row, latest).fitted(largest);
        values.append_option(letter.value);
        keys.append_option(letter.key);
        times.push(letter.timestamp);
        headers.push(letter.headers());
    }
    let times = Arc::new(TimestampMillisecondArray::from(times));
    let columns: Vec<ArrayRef> = vec![Arc::new(values.finish()), Arc::new(keys.finish()), headers.finish(), times];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The columns of rejected records.
struct Rejects<'a> {
    source: &'a StringArray,
    split: &'a StringArray,
    position: &'a UInt64Array,
    line: &'a UInt64Array,
    reason: &'a StringArray,
    bytes: &'a BinaryArray,
    key: &'a BinaryArray,
    truncated: &'a UInt64Array,
    headers: &'a MapArray,
    timestamp: &'a TimestampMillisecondArray,
    partition: &'a Int32Array,
}

impl<'a> Rejects<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        accepts(batch.schema_ref())?;
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| ConnectorError::Config(format!("dead letters: no column {name:?}")))
        };
        Ok(Self {
            source: column("source")?.as_string(),
            split: column("split")?.as_string(),
            position: column("position")?.as_primitive(),
            line: column("line")?.as_primitive(),
            reason: column("reason")?.as_string(),
            bytes: column("bytes")?.as_binary(),
            key: column("key")?.as_binary(),
            truncated: column("truncated")?.as_primitive(),
            headers: column("headers")?.as_map(),
            timestamp: column("timestamp")?.as_primitive(),
            partition: column("partition")?.as_primitive(),
        })
    }

    /// The headers that the record had.
    fn headers(&self, row: usize) -> Vec<(&'a str, Option<&'a [u8]>)> {
        let offsets = self.headers.value_offsets();
        let (Some(&start), Some(&end)) = (offsets.get(row), offsets.get(row + 1)) else { return Vec::new() };
        let (names, values) = (self.headers.keys().as_string::<i32>(), self.headers.values().as_binary::<i32>());
        let entries = (start as usize..end as usize).filter(|_| self.headers.is_valid(row));
        entries.map(|i| (names.value(i), values.is_valid(i).then(|| values.value(i)))).collect()
    }

    fn letter(&self, row: usize, latest: u128) -> Letter<'a> {
        let number = |column: &UInt64Array| column.is_valid(row).then(|| column.value(row).to_string());
        let millis = self.timestamp.is_valid(row).then(|| self.timestamp.value(row));
        let timestamp = millis.filter(|&millis| u128::try_from(millis).is_ok_and(|millis| millis <= latest));
        let (split, position) = (self.split.value(row), number(self.position));
        let mut said = vec![("windrow.source", self.source.value(row).to_owned()), ("windrow.split", split.to_owned())];
        let mut say = |name, value: Option<String>| said.extend(value.map(|value| (name, value)));
        say("windrow.position", position.clone());
        say("windrow.line", number(self.line));
        if self.partition.is_valid(row) {
            let partition = self.partition.value(row).to_string();
            let topic = split.strip_suffix(&partition).and_then(|topic| topic.strip_suffix('/'));
            say("windrow.topic", Some(topic.unwrap_or(split).to_owned()));
            say("windrow.partition", Some(partition));
            say("windrow.offset", position);
        }
        say(letters::TIMESTAMP, millis.filter(|_| timestamp.is_none()).map(|millis| millis.to_string()));
        let letter = Letter {
            cut: None,
            value: self.bytes.is_valid(row).then(|| self.bytes.value(row)),
            key: self.key.is_valid(row).then(|| self.key.value(row)),
            timestamp,
            own: self.headers(row),
            error: self.reason.value(row),
            said,
        }
        .cut_before();
        match number(self.truncated) {
            // Its source has kept the beginning.
            Some(whole) => letter.cut(whole),
            None => letter,
        }
    }
}

/// A rejected record on its way into the topic.
struct Letter<'a> {
    value: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    timestamp: Option<i64>,
    /// The headers of the record.
    own: Vec<(&'a str, Option<&'a [u8]>)>,
    error: &'a str,
    /// Where it came from.
    said: Vec<(&'static str, String)>,
    cut: Option<Cut<'a>>,
}

/// What a letter has that was cut.
struct Cut<'a> {
    /// The bytes of its record.
    whole: Whole<'a>,
    /// The beginning of its payload.
    excerpt: Option<&'a [u8]>,
}

enum Whole<'a> {
    Counted(String),
    /// It was cut before, and says so.
    Said(&'a [u8]),
}

fn length(part: Option<&[u8]>) -> usize {
    part.map_or(0, <[u8]>::len)
}

fn beginning(part: &[u8]) -> &[u8] {
    part.get(..EXCERPT_BYTES).unwrap_or(part)
}

impl<'a> Letter<'a> {
    /// A letter that was cut before stays one. What only such letters have is not left to others: whatever has a payload was not cut.
    fn cut_before(mut self) -> Self {
        let found = |name: &str| self.own.iter().find(|(other, _)| *other == name).and_then(|(_, value)| *value);
        if self.value.is_none() {
            let excerpt = found(EXCERPT).map(beginning);
            self.cut = found(TRUNCATED).map(|whole| Cut { whole: Whole::Said(beginning(whole)), excerpt });
        }
        self.own.retain(|(name, _)| ![TRUNCATED, EXCERPT].contains(name));
        self
    }

    /// Only the beginnings of its parts. Of its headers those stay that say where it came from first.
    fn cut(mut self, whole: String) -> Self {
        let (excerpt, whole) = (self.value.take().map(beginning), Whole::Counted(whole));
        self.cut.get_or_insert(Cut { whole, excerpt });
        self.key = self.key.map(beginning);
        self.error = &self.error[..self.error.floor_char_boundary(EXCERPT_BYTES)];
        let is_again = self.is_again();
        let mut left: Vec<_> = FIRST_PLACE.into_iter().chain([ERROR]).filter(|_| is_again).collect();
        self.own
            .retain(|(name, _)| left.iter().position(|other| other == name).map(|at| left.swap_remove(at)).is_some());
        self.own.iter_mut().for_each(|(_, value)| *value = value.map(beginning));
        self
    }

    /// The same, or cut if it is too large for the topic.
    fn fitted(self, largest: usize) -> Self {
        let (bytes, headers) = self
            .headers()
            .fold((0, 0), |(bytes, headers), (name, value)| (bytes + name.len() + length(value), headers + 1));
        let parts = length(self.value) + length(self.key);
        if parts + bytes + headers * HEADER_BYTES + RECORD_BYTES <= largest {
            return self;
        }
        // What it has for being a letter its record had not.
        let is_again = self.is_again();
        let its = self.own.iter().filter(|(name, _)| !is_again || !letters::is_own(name));
        let whole = parts + its.map(|(name, value)| name.len() + length(*value)).sum::<usize>();
        self.cut(whole.to_string())
    }

    /// It was a letter before.
    fn is_again(&self) -> bool {
        self.own.iter().any(|(name, _)| *name == ERROR)
    }

    /// Its headers. One that was a letter before tells where it came from first, and what is wrong with it now.
    fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let is_again = self.is_again();
        let own = self.own.iter().copied().filter(|(name, _)| *name != ERROR);
        let said = self.said.iter().filter(move |_| !is_again).map(|(name, value)| (*name, Some(value.as_bytes())));
        let cut = self.cut.iter().flat_map(|Cut { whole, excerpt }| {
            let whole = match whole {
                Whole::Counted(bytes) => bytes.as_bytes(),
                Whole::Said(bytes) => bytes,
            };
            [(TRUNCATED, Some(whole))].into_iter().chain(excerpt.map(|excerpt| (EXCERPT, Some(excerpt))))
        });
        own.chain([(ERROR, Some(self.error.as_bytes()))]).chain(said).chain(cut)
    }
}

struct Headers {
    list: ListBuilder<StructBuilder>,
}

impl Headers {
    fn new() -> Self {
        let entry =
            StructBuilder::new(header_fields(), vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
        let field = Field::new_list_field(DataType::Struct(header_fields()), false);
        Self { list: ListBuilder::new(entry).with_field(field) }
    }

    /// Those of the next row.
    fn push<'a>(&mut self, headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) {
        for (name, value) in headers {
            let entry = self.list.values();
            if let Some(names) = entry.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
                values.append_option(value);
            }
            entry.append(true);
        }
        self.list.append(true);
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.list.finish())
    }
}
