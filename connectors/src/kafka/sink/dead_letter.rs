//! Rejected records as records of a topic: what they were, with the reason in headers.
//!
//! ```text
//!   source    split      position  reason              bytes   key        value  key  headers
//!   orders    orders/3   1207      column "price": …   {"pr…   u7    ──►  {"pr…  u7   windrow.error: column "price": …
//!                                                                                     windrow.topic: orders, windrow.partition: 3 …
//! ```

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryBuilder, ListBuilder, RecordBatch, StringBuilder, StructBuilder},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt64Type},
};

use super::KafkaOutput;
use crate::{ConnectorError, Result};

const VALUE: &str = "value";
const KEY: &str = "key";
const HEADERS: &str = "headers";

/// What the rows of rejected records have, in the order in which the engine gives them.
const COLUMNS: [(&str, DataType); 7] = [
    ("source", DataType::Utf8),
    ("split", DataType::Utf8),
    ("position", DataType::UInt64),
    ("line", DataType::UInt64),
    ("reason", DataType::Utf8),
    ("bytes", DataType::Binary),
    ("key", DataType::Binary),
];

/// The same topic, for rows of [`schema`].
pub(super) fn output(output: KafkaOutput) -> KafkaOutput {
    let (key, headers) = (vec![KEY.into()], Some(HEADERS.into()));
    KafkaOutput { key, key_format: None, headers, partition: None, timestamp: None, ..output }
}

/// Whether these are the rows of rejected records.
pub(super) fn accepts(schema: &SchemaRef) -> Result<()> {
    for (name, data_type) in &COLUMNS {
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
    ]))
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// Rejected records as rows of [`schema`].
pub(super) fn rows(batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| ConnectorError::Config(format!("dead letters: no column {name:?}")))
    };
    let text = |name| Ok::<_, ConnectorError>(column(name)?.as_string::<i32>());
    let number = |name| Ok::<_, ConnectorError>(column(name)?.as_primitive::<UInt64Type>());
    let (source, split, reason) = (text("source")?, text("split")?, text("reason")?);
    let (position, line) = (number("position")?, number("line")?);
    let mut headers = Headers::new();
    for row in 0..batch.num_rows() {
        let position = position.is_valid(row).then(|| position.value(row).to_string());
        headers.add("windrow.error", reason.value(row));
        headers.add("windrow.source", source.value(row));
        headers.add("windrow.split", split.value(row));
        if let Some(position) = &position {
            headers.add("windrow.position", position);
        }
        if line.is_valid(row) {
            headers.add("windrow.line", &line.value(row).to_string());
        }
        if let (Some((topic, partition)), Some(offset)) = (topic_partition(split.value(row)), &position) {
            headers.add("windrow.topic", topic);
            headers.add("windrow.partition", partition);
            headers.add("windrow.offset", offset);
        }
        headers.end();
    }
    let columns = vec![column("bytes")?.clone(), column("key")?.clone(), headers.finish()];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The topic and partition of a split that is one: `orders/3`. A path has other parts than that.
fn topic_partition(split: &str) -> Option<(&str, &str)> {
    let (topic, partition) = split.rsplit_once('/')?;
    let is_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_one = !topic.is_empty() && topic.chars().all(is_topic) && partition.parse::<u32>().is_ok();
    is_one.then_some((topic, partition))
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

    fn add(&mut self, name: &str, value: &str) {
        let entry = self.list.values();
        if let Some(names) = entry.field_builder::<StringBuilder>(0) {
            names.append_value(name);
        }
        if let Some(values) = entry.field_builder::<BinaryBuilder>(1) {
            values.append_value(value);
        }
        entry.append(true);
    }

    fn end(&mut self) {
        self.list.append(true);
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.list.finish())
    }
}
