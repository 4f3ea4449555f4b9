//! JSON with a schema registry, as Confluent's JSON Schema serializers write it.
//!
//! ```text
//!   0 │ id │ {"price": 7}  ──► is the id that of a JSON Schema? ──► JSON into columns
//!
//!   columns ──► JSON Schema ──► registry ──► id      rows ──► 0 │ id │ {"price":7}
//! ```
//!
//! A JSON Schema says which values are allowed, not how they are encoded. So it is not needed to read them: the columns say
//! what is wanted, and a value that does not fit them is a reason to reject the record.

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Fields, SchemaRef},
    json::writer::EncoderOptions,
};
use serde_json::{Map, Value, json};

use super::{
    Decoder, Encoder, Format, Frame, JsonDecoder, PayloadFormat, Payloads, RowEncoder, payload_json::framed_objects,
};
use crate::{
    ConnectorError, Result, SchemaRegistry,
    registry::{SchemaKind, frame, unframed},
};

/// Decodes JSON objects with the id of a JSON Schema in front: a zero, four bytes, the text. As [`JsonDecoder`] otherwise.
///
/// A record is rejected if the registry has no schema with its id, or one of another kind. Its text is not held against the
/// schema: whoever wrote it has done that.
///
/// ```no_run
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::{SchemaRegistry, format::{Decoder, JsonSchemaDecoder, MAX_RECORD_BYTES}};
///
/// let registry = SchemaRegistry::at("http://localhost:8081");
/// let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
/// let mut decoder = JsonSchemaDecoder::new(schema, registry, MAX_RECORD_BYTES)?;
/// decoder.push(b"\0\0\0\0\x4d{\"price\": 7}").unwrap();
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
///
/// When the registry does not answer, [`Decoder::push`] fails, and [`Decoder::failure`] says that it is not the record's fault.
#[derive(Debug)]
pub struct JsonSchemaDecoder {
    json: JsonDecoder,
    registry: SchemaRegistry,
    max_record_bytes: usize,
    /// The id of the former record, which mostly is that of the next.
    latest: Option<u32>,
    failure: Option<ConnectorError>,
}

impl JsonSchemaDecoder {
    /// A decoder for rows of `schema`, whose writers' schemas are in `registry`. Records of more than `max_record_bytes` are
    /// rejected. Asks nothing yet.
    ///
    /// # Errors
    /// `Config` for a column of a type that JSON text cannot hold, naming it.
    pub fn new(schema: SchemaRef, registry: SchemaRegistry, max_record_bytes: usize) -> Result<Self> {
        let json = JsonDecoder::new(schema, max_record_bytes)?;
        Ok(Self { json, registry, max_record_bytes, latest: None, failure: None })
    }

    fn check(&mut self, id: u32) -> Result<(), String> {
        if self.latest == Some(id) {
            return Ok(());
        }
        let found = self.registry.schema(id).map_err(|error| {
            let reason = error.to_string();
            self.failure = Some(error);
            reason
        })?;
        match found?.kind {
            SchemaKind::Json => self.latest = Some(id),
            kind => return Err(format!("its schema is {kind}, not JSON Schema (schema id {id})")),
        }
        Ok(())
    }
}

impl Decoder for JsonSchemaDecoder {
    fn schema(&self) -> &SchemaRef {
        self.json.schema()
    }

    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.json.frame(bytes, last)
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        self.failure = None;
        if record.len() > self.max_record_bytes {
            return Err(format!("{} bytes, and the limit is {}", record.len(), self.max_record_bytes));
        }
        let (id, text) = unframed(record)?;
        self.check(id)?;
        self.json.push(text)
    }

    fn failure(&mut self) -> Option<ConnectorError> {
        self.failure.take()
    }

    fn len(&self) -> usize {
        self.json.len()
    }

    fn bytes(&self) -> usize {
        self.json.bytes()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        self.json.flush()
    }
}

/// How rows are written as JSON with the id of a schema in front: which registry, under which subject.
///
/// The JSON Schema is made from the columns and registered when a writer is made: an object with these properties and no others,
/// which may be null or missing where the column may be null. So a nullable column may be added later: what was written before
/// is right by the new schema too. One that is taken away makes it wrong, which registries refuse unless told otherwise.
///
/// ```
/// use windrow_connectors::{SchemaRegistry, format::JsonSchemaFormat};
///
/// let format = JsonSchemaFormat::new(SchemaRegistry::at("http://localhost:8081")).subject("shop.Alert");
/// ```
///
/// For a topic: `kafka.to_topic("alerts").encoded(format)`, or `.json_schema(&registry)` where nothing of this is to be said.
#[derive(Clone, Debug)]
pub struct JsonSchemaFormat {
    registry: SchemaRegistry,
    subject: Option<String>,
}

impl JsonSchemaFormat {
    /// Objects whose schema is registered in `registry`, under the subject `{topic}-value`.
    pub fn new(registry: SchemaRegistry) -> Self {
        Self { registry, subject: None }
    }

    /// Registers under this subject instead.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }
}

impl PayloadFormat for JsonSchemaFormat {
    fn accepts(&self, schema: &SchemaRef, _topic: &str) -> Result<()> {
        Encoder::accepts(Format::Json, schema)
    }

    fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<Box<dyn RowEncoder>> {
        self.accepts(schema, topic)?;
        let subject = self.subject.clone().unwrap_or_else(|| format!("{topic}-value"));
        let mut text = object(schema.fields());
        text["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        text["title"] = json!(topic);
        let id = self.registry.register(&subject, SchemaKind::Json, &text.to_string())?;
        Ok(Box::new(Framed(frame(id))))
    }

    fn warnings(&self) -> Vec<String> {
        self.registry.warnings()
    }
}

/// Writes objects behind what stands in front of each.
#[derive(Debug)]
struct Framed([u8; 5]);

impl RowEncoder for Framed {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        framed_objects(batch, &EncoderOptions::default(), &self.0, out)
    }
}

/// The schema of objects with these fields: what [`Encoder`] makes of them.
fn object(fields: &Fields) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name().clone(), property(field))).collect();
    let needed = fields.iter().filter(|field| !field.is_nullable()).map(|field| json!(field.name()));
    json!({
        "type": "object",
        "properties": properties,
        "required": needed.collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn property(field: &Field) -> Value {
    let value = value(field.data_type());
    // What is no number is written as null.
    if field.is_nullable() || field.data_type().is_floating() {
        json!({ "oneOf": [{ "type": "null" }, value] })
    } else {
        value
    }
}

fn value(data_type: &DataType) -> Value {
    use DataType as D;
    match data_type {
        D::Null => json!({ "type": "null" }),
        D::Boolean => json!({ "type": "boolean" }),
        integer if integer.is_integer() => json!({ "type": "integer" }),
        D::Float16 | D::Float32 | D::Float64 => json!({ "type": "number" }),
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => json!({ "type": "number" }),
        D::Date32 => json!({ "type": "string", "format": "date" }),
        D::Timestamp(_, Some(_)) => json!({ "type": "string", "format": "date-time" }),
        D::List(item) | D::LargeList(item) | D::ListView(item) | D::LargeListView(item) | D::FixedSizeList(item, _) => {
            json!({ "type": "array", "items": property(item) })
        }
        D::Struct(fields) => object(fields),
        D::Map(entries, _) => {
            let values = match entries.data_type() {
                D::Struct(entries) => entries.get(1).map(|field| property(field)),
                _ => None,
            };
            json!({ "type": "object", "additionalProperties": values.unwrap_or(json!({})) })
        }
        D::Dictionary(_, inner) => value(inner),
        D::RunEndEncoded(_, inner) => value(inner.data_type()),
        // Text, bytes in hexadecimal digits, and times without a zone.
        _ => json!({ "type": "string" }),
    }
}
