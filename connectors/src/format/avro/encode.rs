//! Rows into Avro records with the id of their schema in front.
//!
//! arrow-avro does the work. Around it: the schema of the columns is registered, under names that Avro allows; and a schema from the
//! registry is compared with the columns, since arrow-avro writes numbers as the column has them, whatever the schema says.

use std::{collections::HashMap, iter, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, Schema as Columns, SchemaRef, TimeUnit},
};
use arrow_avro::{
    schema::{
        AVRO_FIELD_DEFAULT_METADATA_KEY, AVRO_NAME_METADATA_KEY, AVRO_NAMESPACE_METADATA_KEY, AvroSchema,
        FingerprintStrategy, SCHEMA_METADATA_KEY,
    },
    writer::{Encoder, WriterBuilder, format::AvroSoeFormat},
};

use crate::{
    ConnectorError, Result, SchemaRegistry,
    format::{
        alternatives,
        encode::elements,
        payload::{PayloadFormat, Payloads, RowEncoder},
    },
    registry::SchemaKind,
};

/// How rows are written as Avro: which registry, under which subject and name.
///
/// The schema is made from the columns and registered when a writer is made, as Confluent's serializers do. A nullable column has
/// the default null, so it may be added and taken away later without breaking the readers.
///
/// ```
/// use windrow_connectors::{SchemaRegistry, format::avro::AvroFormat};
///
/// let format = AvroFormat::new(SchemaRegistry::at("http://localhost:8081")).record_name("shop.Alert");
/// ```
///
/// For a topic: `kafka.to_topic("alerts").encoded(format)`, or `.avro(&registry)` where nothing of this is to be said.
#[derive(Clone, Debug)]
pub struct AvroFormat {
    registry: SchemaRegistry,
    name: Option<String>,
    subject: Option<String>,
    latest: bool,
}

impl AvroFormat {
    /// Records whose schema is registered in `registry`, under the subject `{topic}-value`.
    pub fn new(registry: SchemaRegistry) -> Self {
        Self { registry, name: None, subject: None, latest: false }
    }

    /// Calls the record this, with its namespace: `shop.Alert`. Otherwise it has the name of the topic.
    #[must_use]
    pub fn record_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Registers under this subject instead.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Registers nothing, and writes by the newest schema of the subject. It must have the columns, all of them, with the same types.
    /// A column that may be null can be written into a field that may not, as long as no null comes: the columns of a query are
    /// often nullable by type alone. A null ends the job, and the error names its column and row.
    #[must_use]
    pub fn use_latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// An encoder for rows of `schema` in `topic`. Blocks while the registry is asked.
    ///
    /// # Errors
    /// `Config` if Avro has no type or no name for a column, naming it, or if the registry says that the schema is not
    /// compatible with the former ones; `Remote` if the registry does not answer.
    pub fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<AvroEncoder> {
        let subject = self.subject.clone().unwrap_or_else(|| format!("{topic}-value"));
        check(schema.fields(), "")?;
        if self.latest {
            let (id, text, fields) = self.newest(schema, &subject)?;
            return Ok(AvroEncoder { fields, ..AvroEncoder::new(schema, id, text)? });
        }
        let text = self.schema_of(schema, topic)?;
        AvroEncoder::new(schema, self.registry.register(&subject, SchemaKind::Avro, &text)?, text)
    }

    /// The Avro schema of the columns.
    fn schema_of(&self, schema: &SchemaRef, topic: &str) -> Result<String> {
        let name = match &self.name {
            Some(name) if name.split('.').all(is_name) => name.clone(),
            Some(name) => {
                return Err(ConnectorError::Config(format!("{name:?} is no name for an Avro record: {NAMES}")));
            }
            None => name_of(topic),
        };
        let mut metadata = HashMap::new();
        let short = match name.rsplit_once('.') {
            Some((namespace, short)) => {
                metadata.insert(AVRO_NAMESPACE_METADATA_KEY.to_string(), namespace.to_string());
                short
            }
            None => &name,
        };
        metadata.insert(AVRO_NAME_METADATA_KEY.to_string(), short.to_string());
        let columns = Columns::new_with_metadata(with_defaults(schema.fields()), metadata);
        let text = AvroSchema::try_from(&columns).map_err(|error| {
            ConnectorError::Config(format!("the columns have no Avro schema: {error}: choose other types"))
        })?;
        Ok(text.json_string)
    }

    /// The newest schema of the subject and its fields, if the columns can be written by it.
    fn newest(&self, schema: &SchemaRef, subject: &str) -> Result<(u32, String, Fields)> {
        let found = self.registry.latest(subject)?;
        let wrong = |reason: String| {
            ConnectorError::Config(format!(
                "the newest schema of subject {subject:?}, id {}, is not that of the columns: {reason}",
                found.id
            ))
        };
        if !found.references.is_empty() {
            return Err(wrong("it refers to other schemas, which is read but not written".to_string()));
        }
        let there = super::columns(&found)?;
        same_fields(there.fields(), schema.fields(), "").map_err(wrong)?;
        Ok((found.id, found.text.clone(), there.fields().clone()))
    }
}

/// Writes rows as Avro records. Made by [`AvroFormat::encoder`].
#[derive(Debug)]
pub struct AvroEncoder {
    encoder: Encoder,
    /// The fields of a schema that was not made from the columns: they may be null where it has no null.
    fields: Fields,
}

impl AvroEncoder {
    /// Writes rows of `schema` by the schema with this text, which the registry has under `id`.
    fn new(schema: &SchemaRef, id: u32, text: String) -> Result<Self> {
        let metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_string(), text)]);
        let encoder = WriterBuilder::new(Columns::new_with_metadata(schema.fields().clone(), metadata))
            .with_fingerprint_strategy(FingerprintStrategy::Id(id))
            .build_encoder::<AvroSoeFormat>()
            .map_err(|error| ConnectorError::Config(format!("the columns cannot be written as Avro: {error}")))?;
        Ok(Self { encoder, fields: Fields::empty() })
    }
}

impl PayloadFormat for AvroFormat {
    /// By the schema that is made from the columns. Whether the newest schema of a subject fits is known only when it is asked for.
    fn accepts(&self, schema: &SchemaRef, topic: &str) -> Result<()> {
        check(schema.fields(), "")?;
        if self.latest {
            return Ok(());
        }
        AvroEncoder::new(schema, 0, self.schema_of(schema, topic)?).map(drop)
    }

    fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<Box<dyn RowEncoder>> {
        Ok(Box::new(Self::encoder(self, schema, topic)?))
    }

    fn warnings(&self) -> Vec<String> {
        self.registry.warnings()
    }
}

impl RowEncoder for AvroEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.encoder.schema(), batch.columns().to_vec(), &options)?;
        check_nulls(&self.fields, &batch)?;
        let encoded = self.encoder.encode(&batch);
        let rows = self.encoder.flush();
        encoded.map_err(|error| ConnectorError::Data {
            at: "a row to be written as Avro".to_string(),
            reason: error.to_string(),
        })?;
        let buffer = out.buffer();
        let start = buffer.len();
        buffer.extend_from_slice(rows.bytes());
        for end in rows.offsets().iter().skip(1) {
            out.end_at(start + end);
        }
        Ok(())
    }
}

const NAMES: &str = "names are ASCII letters, digits and _, not beginning with a digit";

fn is_name(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A name for the records of a topic.
fn name_of(topic: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = topic.chars().map(plain).collect();
    if is_name(&name) { name } else { format!("_{name}") }
}

/// Refuses names that arrow-avro would change, so that `a b` and `a_b` would be one; and types that it would write with a loss, as
/// nanoseconds of a day, or not at all.
fn check(fields: &Fields, within: &str) -> Result<()> {
    for field in fields {
        let path = if within.is_empty() { field.name().clone() } else { format!("{within}.{}", field.name()) };
        if !is_name(field.name()) {
            return Err(ConnectorError::Config(format!("column {path:?} has no name for Avro: {NAMES}")));
        }
        check_type(field.data_type(), &path)?;
    }
    Ok(())
}

fn check_type(data_type: &DataType, path: &str) -> Result<()> {
    use DataType as D;
    match data_type {
        D::Struct(fields) => check(fields, path),
        D::List(item) | D::LargeList(item) => check_type(item.data_type(), &format!("{path}[]")),
        D::Map(entries, _) => match entries.data_type() {
            D::Struct(entries) => {
                entries.iter().try_for_each(|entry| check_type(entry.data_type(), &format!("{path}{{}}")))
            }
            other => check_type(other, path),
        },
        D::Boolean | D::Float32 | D::Float64 | D::Decimal128(..) | D::FixedSizeBinary(_) => Ok(()),
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Ok(()),
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView => Ok(()),
        D::Date32 | D::Time32(_) | D::Time64(TimeUnit::Microsecond) | D::Timestamp(..) => Ok(()),
        other => Err(ConnectorError::Config(format!(
            "column {path:?} has the type {other}, which is not written as Avro: choose a boolean, integer, float, text, binary, \
             decimal of 128 bits, date, time up to microseconds or timestamp type, or a struct, list or map of these"
        ))),
    }
}

/// The fields without what Arrow knows of them beside their type, which is nobody's business; and null as the default of those that
/// may be null.
fn with_defaults(fields: &Fields) -> Fields {
    fields.iter().map(with_default).collect()
}

fn with_default(field: &FieldRef) -> Field {
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(with_defaults(fields)),
        DataType::List(item) => DataType::List(Arc::new(plain(item))),
        DataType::LargeList(item) => DataType::LargeList(Arc::new(plain(item))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(plain(entries)), *sorted),
        other => other.clone(),
    };
    let metadata = if field.is_nullable() {
        HashMap::from([(AVRO_FIELD_DEFAULT_METADATA_KEY.to_string(), "null".to_string())])
    } else {
        HashMap::new()
    };
    Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
}

/// What is in a list or a map is no field of a record, and has no default.
fn plain(field: &FieldRef) -> Field {
    with_default(field).with_metadata(HashMap::new())
}

/// Whether rows with the columns `wanted` are written as the schema with the columns `there` says.
fn same_fields(there: &Fields, wanted: &Fields, within: &str) -> Result<(), String> {
    for column in wanted {
        let path = if within.is_empty() { column.name().clone() } else { format!("{within}.{}", column.name()) };
        let Some((_, field)) = there.find(column.name()) else {
            let names = there.iter().map(|field| field.name().as_str());
            return Err(format!("it has no field for column {path:?}; it has {}", alternatives(column.name(), names)));
        };
        same(field.data_type(), column.data_type(), &path)?;
    }
    match there.iter().find(|field| wanted.find(field.name()).is_none()) {
        Some(field) => Err(format!("it has a field {:?}, and no column is called so", field.name())),
        None => Ok(()),
    }
}

fn same(there: &DataType, wanted: &DataType, path: &str) -> Result<(), String> {
    use DataType as D;
    let same = match (there, wanted) {
        (D::Struct(there), D::Struct(wanted)) => return same_fields(there, wanted, path),
        (D::List(there), D::List(wanted) | D::LargeList(wanted)) => {
            return same(there.data_type(), wanted.data_type(), &format!("{path}[]"));
        }
        (D::Map(there, _), D::Map(wanted, _)) => return same(there.data_type(), wanted.data_type(), path),
        // Whole numbers are written the same, whatever their width.
        (D::Int32, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16) => true,
        (D::Int64, D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64) => true,
        (D::Utf8, D::Utf8 | D::LargeUtf8 | D::Utf8View) => true,
        (D::Binary, D::Binary | D::LargeBinary | D::BinaryView) => true,
        (D::Timestamp(there, zone), D::Timestamp(wanted, other)) => {
            there == wanted && zone.is_some() == other.is_some()
        }
        (there, wanted) => there == wanted,
    };
    if same { Ok(()) } else { Err(format!("column {path:?} is {wanted}, and would have to be {there}")) }
}

/// Refuses a null where the schema has none: arrow-avro would write what lies in its place, a 0 or an empty text.
fn check_nulls(there: &Fields, batch: &RecordBatch) -> Result<()> {
    for field in there {
        let Some(column) = batch.column_by_name(field.name()) else { continue };
        let Some((path, row)) = null_within(field, column, None) else { continue };
        return Err(ConnectorError::Data {
            at: format!("column {:?}", format!("{}{path}", field.name())),
            reason: format!(
                "it is null in row {row} of a batch, and the newest Avro schema of the subject has no null there: filter such rows \
                 away, put a value in its place, or let the schema allow null"
            ),
        });
    }
    Ok(())
}

/// The first null that would be written and that the field has no form for: its path, as what follows the name of the field (nothing,
/// `.zip`, `[]`), and its row. Of the rows only those that are valid in `written` are written: the others lie within a null.
fn null_within(there: &Field, array: &ArrayRef, written: Option<&NullBuffer>) -> Option<(String, usize)> {
    if array.null_count() > 0 && !there.is_nullable() {
        let is_written = |row: usize| written.is_none_or(|written| written.is_valid(row));
        let found = (0..array.len()).find(|&row| array.is_null(row) && is_written(row));
        if let Some(row) = found {
            return Some((String::new(), row));
        }
    }
    let written = NullBuffer::union(written, array.nulls());
    match (there.data_type(), array.data_type()) {
        (DataType::Struct(fields), DataType::Struct(_)) => fields.iter().find_map(|field| {
            let column = array.as_struct().column_by_name(field.name())?;
            let (path, row) = null_within(field, column, written.as_ref())?;
            Some((format!(".{}{path}", field.name()), row))
        }),
        (DataType::List(item), _) => {
            let (path, row) = null_among(item, &elements(array)?, &lengths(array), written.as_ref())?;
            Some((format!("[]{path}"), row))
        }
        (DataType::Map(entries, _), _) => {
            let DataType::Struct(entries) = entries.data_type() else { return None };
            let values = elements(array)?.as_struct_opt()?.columns().get(1)?.clone();
            let (path, row) = null_among(entries.get(1)?, &values, &lengths(array), written.as_ref())?;
            Some((format!("{{}}{path}"), row))
        }
        _ => None,
    }
}

/// The same, of what is in lists or maps of these lengths. The row is that of the list.
fn null_among(
    item: &Field,
    elements: &ArrayRef,
    lengths: &[usize],
    written: Option<&NullBuffer>,
) -> Option<(String, usize)> {
    // A list that is null may have elements all the same.
    let written = written.map(|lists| {
        let each = lists.iter().zip(lengths).flat_map(|(is_valid, length)| iter::repeat_n(is_valid, *length));
        each.collect::<NullBuffer>()
    });
    let (path, element) = null_within(item, elements, written.as_ref())?;
    let mut end = 0;
    let row = lengths.iter().position(|length| {
        end += length;
        element < end
    })?;
    Some((path, row))
}

/// How many elements each of the lists or maps has.
fn lengths(array: &ArrayRef) -> Vec<usize> {
    match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().offsets().lengths().collect(),
        DataType::LargeList(_) => array.as_list::<i64>().offsets().lengths().collect(),
        DataType::Map(..) => array.as_map().offsets().lengths().collect(),
        _ => Vec::new(),
    }
}
