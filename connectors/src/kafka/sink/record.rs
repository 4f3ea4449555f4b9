//! Columns into what a record has beside its value: key, headers, partition, time, and whether it takes its key away.
//!
//! ```text
//!   schema ──► Layout: which column is what                          (once)
//!   batch  ──► Parts: key bytes, header names and values, numbers    (columns converted as a whole)
//!                └── row 7 ──► Outgoing
//! ```

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int32Array, OffsetSizeTrait, RecordBatch, StringArray,
        StructArray, TimestampMillisecondArray,
    },
    compute::{cast, filter_record_batch, kernels::cmp},
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType, UInt8Type},
    json::writer::EncoderOptions,
};

use super::KafkaOutput;
use crate::{
    ConnectorError, OP, Result,
    format::{Encoder, Format, Payloads, RowEncoder, alternatives, payload_json::objects},
};

/// A delete, in the column [`OP`].
const DELETE: u8 = 2;

/// Which column of a batch is what.
pub(super) struct Layout {
    key: Vec<usize>,
    key_schema: SchemaRef,
    /// Keys have a format of their own.
    key_encoded: bool,
    headers: Option<usize>,
    partition: Option<usize>,
    timestamp: Option<usize>,
    /// The batches are changes, and this column says of which kind.
    op: Option<usize>,
    /// The format says by itself what a change does: deletes have values too, and that column is among them.
    takes_changes: bool,
    value: Vec<usize>,
    value_schema: SchemaRef,
}

impl Layout {
    /// Fails for a column that is not there or cannot be what it is said to be, naming it.
    pub(super) fn new(output: &KafkaOutput, schema: &SchemaRef, takes_changes: bool) -> Result<Self> {
        let find = |name: &String, what: &str| {
            schema.index_of(name).map_err(|_| {
                let there = alternatives(name, schema.fields().iter().map(|field| field.name().as_str()));
                refused(format!("there is no column {name:?} for the {what}; there are {there}"))
            })
        };
        let find_opt = |name: &Option<String>, what| name.as_ref().map(|name| find(name, what)).transpose();
        let key: Vec<_> = output.key.iter().map(|name| find(name, "key")).collect::<Result<_>>()?;
        let (headers, partition) = (find_opt(&output.headers, "headers")?, find_opt(&output.partition, "partition")?);
        let timestamp = find_opt(&output.timestamp, "time")?;
        let op = schema.index_of(OP).ok();
        let apart = [headers, partition, op.filter(|_| !takes_changes)];
        let value = |column: &usize| !apart.contains(&Some(*column));
        let mut value: Vec<_> = (0..schema.fields().len()).filter(value).collect();
        let beside = |column: &usize| key.contains(column) || timestamp == Some(*column);
        if output.bare && !value.iter().all(beside) {
            value.retain(|column| !beside(column));
        }
        let (key_schema, value_schema) = (Arc::new(schema.project(&key)?), Arc::new(schema.project(&value)?));
        let key_encoded = output.key_format.is_some();
        let layout = Self {
            key,
            key_schema,
            key_encoded,
            headers,
            partition,
            timestamp,
            op,
            takes_changes,
            value,
            value_schema,
        };
        layout.check(schema)?;
        Ok(layout)
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        match (self.key_encoded, self.key.is_empty()) {
            (true, true) => return Err(refused("the key has a format and no column: say .key(…)".into())),
            (true, false) => {}
            (false, _) => check_key(&self.key.iter().map(|&column| schema.field(column)).collect::<Vec<_>>())?,
        }
        let columns = [
            (
                self.headers,
                is_headers as fn(&DataType) -> bool,
                "the headers: they are a Map of text to bytes or text, or a List of \
              Structs of a key (text) and a value (bytes or text)",
            ),
            (self.partition, |data_type| *data_type == DataType::Int32, "the partition: it is an Int32"),
            (self.timestamp, |data_type| matches!(data_type, DataType::Timestamp(..)), "the time: it is a Timestamp"),
        ];
        for (column, suits, what) in columns {
            if let Some(field) = column.map(|column| schema.field(column)).filter(|field| !suits(field.data_type())) {
                return Err(refused(format!("column {:?} ({}) cannot be {what}", field.name(), field.data_type())));
            }
        }
        match self.op {
            Some(_) if self.key.is_empty() => Err(refused("changes need a key: say .key(…)".into())),
            _ => Ok(()),
        }
    }

    /// The columns of the key.
    pub(super) fn key_schema(&self) -> &SchemaRef {
        &self.key_schema
    }

    /// The columns of the value.
    pub(super) fn value_schema(&self) -> &SchemaRef {
        &self.value_schema
    }

    /// The values of the rows that have one, and what else the rows have.
    pub(super) fn split(
        &self,
        batch: &RecordBatch,
        key_encoder: Option<&mut Box<dyn RowEncoder>>,
    ) -> Result<(RecordBatch, Parts)> {
        let deletes = match self.op.filter(|_| !self.takes_changes) {
            Some(op) => {
                let op = batch.column(op).as_primitive_opt::<UInt8Type>();
                let op = op.ok_or_else(|| refused(format!("column {OP:?} is not a UInt8")))?;
                Some(cmp::eq(op, &arrow::array::UInt8Array::new_scalar(DELETE))?)
            }
            None => None,
        };
        let values = batch.project(&self.value)?;
        let values = match &deletes {
            Some(deletes) if deletes.true_count() > 0 => filter_record_batch(&values, &arrow::compute::not(deletes)?)?,
            _ => values,
        };
        let parts = Parts {
            key: self.keys(batch, key_encoder)?,
            headers: self.headers.map(|column| Headers::new(batch, column)).transpose()?,
            partition: self.partition.map(|column| partitions(batch, column)).transpose()?,
            timestamp: self.timestamp.map(|column| times(batch, column)).transpose()?,
            deletes,
        };
        Ok((values, parts))
    }

    fn keys(&self, batch: &RecordBatch, encoder: Option<&mut Box<dyn RowEncoder>>) -> Result<Option<Keys>> {
        let keys = match (self.key.as_slice(), encoder) {
            ([], _) => return Ok(None),
            (columns, Some(encoder)) => {
                let mut keys = Payloads::new();
                encoder.encode(&batch.project(columns)?, &mut keys)?;
                Keys::Encoded(keys)
            }
            ([column], None) => Keys::Bytes(key_bytes(batch.column(*column))?),
            (columns, None) => {
                let columns = batch.project(columns)?;
                let mut keys = Payloads::new();
                objects(&columns, &EncoderOptions::default().with_explicit_nulls(true), &mut keys)?;
                Keys::Encoded(keys)
            }
        };
        let missing = (0..batch.num_rows()).find(|&row| self.op.is_some() && keys.get(row).is_none());
        match (missing, self.key.first()) {
            (Some(_), Some(&column)) => Err(ConnectorError::Data {
                at: format!("column {:?}", batch.schema_ref().field(column).name()),
                reason:
                    "it is null in a change, and the topic needs a key for each record. Filter such rows away, or give \
                         them another key"
                        .into(),
            }),
            _ => Ok(Some(keys)),
        }
    }
}

fn check_key(key: &[&Field]) -> Result<()> {
    if let [field] = key {
        let (name, data_type) = (field.name(), field.data_type());
        return if is_text(data_type) || is_bytes(data_type) || data_type.is_integer() || *data_type == DataType::Boolean
        {
            Ok(())
        } else {
            Err(refused(format!(
                "column {name:?} ({data_type}) cannot be the key: it is text, bytes, a whole number or a boolean. Cast it to text, \
                 or give more columns, which are then a JSON object"
            )))
        };
    }
    let fields: Vec<Field> = key.iter().map(|&field| field.clone()).collect();
    Encoder::accepts(Format::Json, &Arc::new(Schema::new(fields)))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn is_headers(data_type: &DataType) -> bool {
    let (DataType::Map(entry, _) | DataType::List(entry) | DataType::LargeList(entry)) = data_type else {
        return false;
    };
    let DataType::Struct(fields) = entry.data_type() else { return false };
    matches!(&fields[..], [key, value] if is_text(key.data_type()) && (is_text(value.data_type()) || is_bytes(value.data_type())))
}

/// Bytes as they are; anything else as text.
fn key_bytes(column: &ArrayRef) -> Result<BinaryArray> {
    let column = if is_bytes(column.data_type()) { column.clone() } else { cast(column, &DataType::Utf8)? };
    Ok(cast(&column, &DataType::Binary)?.as_binary::<i32>().clone())
}

fn partitions(batch: &RecordBatch, column: usize) -> Result<Int32Array> {
    let partitions = batch.column(column).as_primitive::<Int32Type>().clone();
    match arrow::compute::min(&partitions) {
        Some(least) if least < 0 => Err(bad(batch, column, format!("{least} is no partition: they begin at 0"))),
        _ => Ok(partitions),
    }
}

fn times(batch: &RecordBatch, column: usize) -> Result<TimestampMillisecondArray> {
    let millis = cast(batch.column(column), &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    let millis = millis.as_primitive::<TimestampMillisecondType>().clone();
    match arrow::compute::min(&millis) {
        Some(least) if least < 0 => {
            Err(bad(batch, column, format!("{least} ms is before 1970, and the time of a record cannot be")))
        }
        _ => Ok(millis),
    }
}

fn bad(batch: &RecordBatch, column: usize, reason: String) -> ConnectorError {
    ConnectorError::Data { at: format!("column {:?}", batch.schema_ref().field(column).name()), reason }
}

fn refused(reason: String) -> ConnectorError {
    ConnectorError::Config(reason)
}

/// What the rows of one batch have beside their values.
pub(super) struct Parts {
    key: Option<Keys>,
    headers: Option<Headers>,
    partition: Option<Int32Array>,
    timestamp: Option<TimestampMillisecondArray>,
    deletes: Option<BooleanArray>,
}

enum Keys {
    Bytes(BinaryArray),
    Encoded(Payloads),
}

impl Keys {
    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Bytes(keys) => keys.is_valid(row).then(|| keys.value(row)),
            Self::Encoded(keys) => keys.get(row),
        }
    }
}

impl Parts {
    pub(super) fn key(&self, row: usize) -> Option<&[u8]> {
        self.key.as_ref()?.get(row)
    }

    pub(super) fn partition(&self, row: usize) -> Option<i32> {
        self.partition.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
    }

    pub(super) fn timestamp(&self, row: usize) -> Option<i64> {
        self.timestamp.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
    }

    /// Whether the row takes its key away, and has no value.
    pub(super) fn is_delete(&self, row: usize) -> bool {
        self.deletes.as_ref().is_some_and(|deletes| deletes.value(row))
    }

    /// Fills `headers` with those of a row.
    pub(super) fn headers<'a>(&'a self, row: usize, headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) {
        headers.clear();
        let Some(all) = &self.headers else { return };
        let (start, end) = all.ranges.get(row).copied().unwrap_or_default();
        headers.extend((start..end).map(|i| (all.names.value(i), all.values.is_valid(i).then(|| all.values.value(i)))));
    }
}

struct Headers {
    /// Where those of each row are.
    ranges: Vec<(usize, usize)>,
    names: StringArray,
    values: BinaryArray,
}

impl Headers {
    fn new(batch: &RecordBatch, column: usize) -> Result<Self> {
        let array = batch.column(column);
        let (ranges, entries) = if let Some(map) = array.as_map_opt() {
            (ranges(map, map.value_offsets()), map.entries().clone())
        } else if let Some(list) = array.as_list_opt::<i32>() {
            (ranges(list, list.value_offsets()), entries(list.values(), batch, column)?)
        } else if let Some(list) = array.as_list_opt::<i64>() {
            (ranges(list, list.value_offsets()), entries(list.values(), batch, column)?)
        } else {
            return Err(bad(batch, column, format!("{} is no list of headers", array.data_type())));
        };
        let [names, values] = entries.columns() else {
            return Err(bad(batch, column, "a header has a key and a value".into()));
        };
        let names = cast(names, &DataType::Utf8)?.as_string::<i32>().clone();
        let values = key_bytes(values)?;
        let mut used = ranges.iter().flat_map(|&(start, end)| start..end);
        if used.any(|entry| names.is_null(entry) || entries.is_null(entry)) {
            return Err(bad(batch, column, "a header without a name: filter such rows away, or give it one".into()));
        }
        Ok(Self { ranges, names, values })
    }
}

fn entries(values: &ArrayRef, batch: &RecordBatch, column: usize) -> Result<StructArray> {
    let entries = values.as_struct_opt().cloned();
    entries.ok_or_else(|| bad(batch, column, format!("{} is no header", values.data_type())))
}

/// From where to where the elements of each row are; nowhere for a null.
fn ranges<O: OffsetSizeTrait>(array: &dyn Array, offsets: &[O]) -> Vec<(usize, usize)> {
    let rows = offsets.windows(2).enumerate();
    let range = |(row, ends): (usize, &[O])| match ends {
        [start, end] if array.is_valid(row) => (start.as_usize(), end.as_usize()),
        _ => (0, 0),
    };
    rows.map(range).collect()
}
