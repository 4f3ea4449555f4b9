//! Which columns come from the payload, and which from the message around it.
//!
//! ```text
//!   columns of the source:   price   who   k          ts               (.key_column("k").timestamp_column("ts"))
//!                              │      │    │           │
//!   one message ──► payload ──►┴──────┘    key ────────┘ timestamp      built beside each other, joined per batch
//! ```

use std::sync::Arc;

use arrow::{
    array::{
        ArrayBuilder, ArrayRef, BinaryBuilder, Int32Array, Int64Builder, MapArray, RecordBatch, RecordBatchOptions,
        StringArray, StringBuilder, StructArray, TimestampMicrosecondBuilder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit},
};
use rdkafka::{
    Message,
    message::{Header, Headers},
};

use crate::{ConnectorError, Rejected, Result};

/// A part of a message beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Headers,
    Timestamp,
    Partition,
    Offset,
    Topic,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Headers => "headers",
            Self::Timestamp => "timestamp",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Topic => "topic",
        }
    }

    /// The column where the user has not declared one.
    fn field(self, name: &str) -> Field {
        match self {
            Self::Key => Field::new(name, DataType::Binary, true),
            Self::Headers => Field::new(name, Rejected::headers_type(), false),
            Self::Timestamp => {
                Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true)
            }
            Self::Partition => Field::new(name, DataType::Int32, false),
            Self::Offset => Field::new(name, DataType::Int64, false),
            Self::Topic => Field::new(name, DataType::Utf8, false),
        }
    }

    /// Whether a declared column can hold it; what it would have to be, if not.
    fn fits(self, data_type: &DataType) -> Result<(), &'static str> {
        let (fits, instead) = match self {
            Self::Key => (matches!(data_type, DataType::Binary | DataType::Utf8), "Binary or Utf8"),
            Self::Headers => (entries_of(data_type).is_some(), "a Map of Utf8 to nullable Binary"),
            Self::Timestamp => {
                (matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _)), "a timestamp in microseconds")
            }
            Self::Partition => (*data_type == DataType::Int32, "Int32"),
            Self::Offset => (*data_type == DataType::Int64, "Int64"),
            Self::Topic => (*data_type == DataType::Utf8, "Utf8"),
        };
        if fits { Ok(()) } else { Err(instead) }
    }
}

/// The entries of a map that can hold headers.
fn entries_of(data_type: &DataType) -> Option<(&FieldRef, &Fields)> {
    let DataType::Map(entries, _) = data_type else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    let [name, value] = fields.as_ref() else { return None };
    let fits = *name.data_type() == DataType::Utf8 && *value.data_type() == DataType::Binary && value.is_nullable();
    fits.then_some((entries, fields))
}

/// Where the columns of a source come from.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// All columns.
    pub(super) schema: SchemaRef,
    /// Those that the decoder fills.
    pub(super) payload: SchemaRef,
    /// The parts that are wanted, with their column.
    parts: Vec<(Part, FieldRef)>,
    /// For each column of `schema`.
    places: Vec<Place>,
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug)]
enum Place {
    Payload(usize),
    Part(usize),
}

impl Layout {
    /// The columns `schema`, of which those named in `wanted` come from the message. If `open`, one that is not in the schema is
    /// appended; otherwise that is an error.
    pub(super) fn new(schema: &SchemaRef, wanted: &[(Part, String)], open: bool) -> Result<Self> {
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        for (i, (part, name)) in wanted.iter().enumerate() {
            if wanted[..i].iter().any(|(_, other)| other == name) {
                return Err(config(format!("the column {name:?} cannot be two parts of a message")));
            }
            match fields.iter().find(|field| field.name() == name) {
                Some(field) => part.fits(field.data_type()).map_err(|instead| {
                    let (part, declared) = (part.name(), field.data_type());
                    config(format!("the column {name:?} has the type {declared}, and the {part} needs {instead}"))
                })?,
                None if open => fields.push(Arc::new(part.field(name))),
                None => {
                    let part = part.name();
                    return Err(config(format!(
                        "the column {name:?} is to hold the {part}, and the record's type has no such field: add it"
                    )));
                }
            }
        }
        let (mut parts, mut payload, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for field in &fields {
            match wanted.iter().find(|(_, name)| name == field.name()) {
                Some((part, _)) => {
                    places.push(Place::Part(parts.len()));
                    parts.push((*part, field.clone()));
                }
                None => {
                    places.push(Place::Payload(payload.len()));
                    payload.push(field.clone());
                }
            }
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let payload = if parts.is_empty() { schema.clone() } else { Arc::new(Schema::new(payload)) };
        Ok(Self { schema, payload, parts, places })
    }

    /// The columns that there would be without a mistake in `wanted`, as far as one can tell.
    pub(super) fn columns(schema: &SchemaRef, wanted: &[(Part, String)], open: bool) -> SchemaRef {
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        for (part, name) in wanted.iter().filter(|_| open) {
            if fields.iter().all(|field| field.name() != name) {
                fields.push(Arc::new(part.field(name)));
            }
        }
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }

    /// Empty buffers for the parts.
    pub(super) fn builders(&self) -> Vec<Builder> {
        self.parts
            .iter()
            .map(|(part, field)| match part {
                Part::Key if *field.data_type() == DataType::Utf8 => Builder::KeyText(StringBuilder::new()),
                Part::Key => Builder::Key(BinaryBuilder::new()),
                Part::Headers => {
                    Builder::Headers { names: StringBuilder::new(), values: BinaryBuilder::new(), ends: vec![0] }
                }
                Part::Timestamp => {
                    Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone()))
                }
                Part::Offset => Builder::Offset(Int64Builder::new()),
                Part::Partition => Builder::Partition,
                Part::Topic => Builder::Topic,
            })
            .collect()
    }

    /// Whether there is a column of headers.
    pub(super) fn has_headers(&self) -> bool {
        self.parts.iter().any(|(part, _)| *part == Part::Headers)
    }

    /// Whether the parts of `record` go into their columns; if not, the reason in words. To be asked before its payload is decoded,
    /// so that a row is there wholly or not at all, and after [`headers`], which reads all of them.
    pub(super) fn check<M: Message>(&self, record: &M) -> Result<(), String> {
        for (part, field) in &self.parts {
            let there = match part {
                Part::Key => match record.key() {
                    Some(key) if *field.data_type() == DataType::Utf8 => {
                        std::str::from_utf8(key).map_err(|error| format!("the key is not UTF-8: {error}"))?;
                        true
                    }
                    key => key.is_some(),
                },
                Part::Timestamp => micros(record)?.is_some(),
                // No headers are an empty map.
                Part::Headers | Part::Partition | Part::Offset | Part::Topic => true,
            };
            if !there && !field.is_nullable() {
                let (part, name) = (part.name(), field.name());
                return Err(format!("column {name:?} is not nullable, and the record has no {part}"));
            }
        }
        Ok(())
    }

    /// Joins the columns of the payload with those of the parts.
    pub(super) fn join(
        &self,
        payload: RecordBatch,
        builders: &mut [Builder],
        topic: &str,
        partition: i32,
    ) -> Result<RecordBatch> {
        if payload.num_columns() != self.payload.fields().len() {
            return Err(config(format!(
                "the decoder made {} columns instead of {}: a bug in it",
                payload.num_columns(),
                self.payload.fields().len()
            )));
        }
        if self.parts.is_empty() {
            return Ok(payload);
        }
        let rows = payload.num_rows();
        let mut parts = Vec::with_capacity(self.parts.len());
        for ((_, field), builder) in self.parts.iter().zip(builders) {
            parts.push(builder.finish(field, rows, topic, partition)?);
        }
        let columns = self.places.iter().map(|place| match place {
            Place::Payload(i) => payload.column(*i).clone(),
            Place::Part(i) => parts[*i].clone(),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &options)?)
    }
}

#[cfg(test)]
thread_local! {
    /// How often [`headers`] was asked for those of a message.
    pub(super) static ASKED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// The headers of a message that can be read; if one cannot, the reason in words.
pub(super) fn headers<M: Message>(record: &M) -> (Vec<Header<'_, &[u8]>>, Option<String>) {
    #[cfg(test)]
    ASKED.set(ASKED.get() + 1);
    let Some(headers) = record.headers() else { return (Vec::new(), None) };
    let (mut read, mut unreadable) = (Vec::with_capacity(headers.count()), None);
    for header in (0..headers.count()).map(|i| header(headers, i)) {
        match header {
            Ok(header) => read.push(header),
            Err(reason) => unreadable = Some(reason),
        }
    }
    (read, unreadable)
}

/// A header of a message. Its name can be any bytes; librdkafka's binding takes it for UTF-8 and panics where it is not, in every one
/// of its functions, which must not be more than one bad record. The hook for panics still sees it, once for such a record.
fn header<H: Headers>(headers: &H, i: usize) -> Result<Header<'_, &[u8]>, String> {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| headers.try_get(i)));
    read.ok().flatten().ok_or_else(|| "the name of a header is not UTF-8".to_string())
}

/// When it was made or written, whichever the topic keeps. In microseconds, as the engine counts. Its producer chooses it freely.
fn micros<M: Message>(record: &M) -> Result<Option<i64>, String> {
    let Some(millis) = record.timestamp().to_millis() else { return Ok(None) };
    let micros = millis.checked_mul(1_000);
    micros.map(Some).ok_or_else(|| format!("its timestamp of {millis} ms does not fit a column of microseconds"))
}

/// The buffer of a part.
pub(super) enum Builder {
    Key(BinaryBuilder),
    KeyText(StringBuilder),
    Headers {
        names: StringBuilder,
        values: BinaryBuilder,
        ends: Vec<i32>,
    },
    Timestamp(TimestampMicrosecondBuilder),
    Offset(Int64Builder),
    /// The same for all rows of a batch, so built with it.
    Partition,
    Topic,
}

impl Builder {
    /// Takes the part of a record that passed [`Layout::check`].
    pub(super) fn push<M: Message>(&mut self, record: &M) {
        match self {
            Self::Key(keys) => keys.append_option(record.key()),
            Self::KeyText(keys) => keys.append_option(record.key().and_then(|key| std::str::from_utf8(key).ok())),
            Self::Headers { names, values, ends } => {
                if let Some(headers) = record.headers() {
                    for header in (0..headers.count()).filter_map(|i| header(headers, i).ok()) {
                        names.append_value(header.key);
                        values.append_option(header.value);
                    }
                }
                // A batch holds far fewer: its size is bounded.
                ends.push(i32::try_from(names.len()).unwrap_or(i32::MAX));
            }
            Self::Timestamp(times) => times.append_option(micros(record).ok().flatten()),
            Self::Offset(offsets) => offsets.append_value(record.offset()),
            Self::Partition | Self::Topic => {}
        }
    }

    fn finish(&mut self, field: &FieldRef, rows: usize, topic: &str, partition: i32) -> Result<ArrayRef> {
        Ok(match self {
            Self::Key(keys) => Arc::new(keys.finish()),
            Self::KeyText(keys) => Arc::new(keys.finish()),
            Self::Headers { names, values, ends } => {
                let Some((entry, fields)) = entries_of(field.data_type()) else {
                    return Err(config(format!("the column {:?} is no map", field.name())));
                };
                let entries: Vec<ArrayRef> = vec![Arc::new(names.finish()), Arc::new(values.finish())];
                let entries = StructArray::try_new(fields.clone(), entries, None)?;
                let ends = OffsetBuffer::new(std::mem::replace(ends, vec![0]).into());
                Arc::new(MapArray::try_new(entry.clone(), ends, entries, None, false)?)
            }
            Self::Timestamp(times) => Arc::new(times.finish()),
            Self::Offset(offsets) => Arc::new(offsets.finish()),
            Self::Partition => Arc::new(Int32Array::from_value(partition, rows)),
            Self::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
        })
    }
}

fn config(message: String) -> ConnectorError {
    ConnectorError::Config(message)
}
