//! Records with the id of their writer's schema in front, into columns.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::{cursor::Cursor, plan::Plan, read, schema::Schema};
use crate::{
    ConnectorError, Result, SchemaRegistry,
    format::{
        Decoder, Frame, Span,
        columns::{Columns, Medium},
    },
    registry::{SchemaKind, unframed},
};

/// How many writers' plans are kept; a topic has a handful.
const MOST_PLANS: usize = 10_000;

/// Decodes Avro records as Confluent's serializers write them: a zero, the id of the writer's schema in four bytes, the record.
///
/// Each is read by the schema that it was written with, and resolved to the wanted columns by Avro's rules: fields are matched
/// by name, those without a column are passed over, a column without a field is null if it may be; `int` becomes `Int64`, and
/// so on, as Avro's rules have it: a `long` in a `Float64` is rounded to the nearest, and nothing else is lost. `enum` and `uuid` become text; a union is a column if all that the records hold of it
/// goes into the column. A record with something else is rejected, and so is every record of a writer whose
/// schema does not fit, with the field and both types.
///
/// ```no_run
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::{SchemaRegistry, format::{AvroDecoder, Decoder, MAX_RECORD_BYTES}};
///
/// let registry = SchemaRegistry::at("http://localhost:8081");
/// let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
/// let mut decoder = AvroDecoder::new(schema, registry, MAX_RECORD_BYTES)?;
/// if let Err(reason) = decoder.push(&[0, 0, 0, 0, 77, 2]) {
///     match decoder.failure() {
///         Some(error) => return Err(error),
///         None => println!("rejected: {reason}"),
///     }
/// }
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
///
/// When the registry does not answer, [`Decoder::push`] fails, and [`Decoder::failure`] says that it is not the record's fault.
#[derive(Debug)]
pub struct AvroDecoder {
    schema: SchemaRef,
    registry: SchemaRegistry,
    reader: Option<Arc<Schema>>,
    max_record_bytes: usize,
    columns: Columns,
    plans: HashMap<u32, Writer>,
    /// The writer of the former record, which mostly is that of the next.
    latest: Option<(u32, Writer)>,
    failure: Option<ConnectorError>,
}

/// How to read what a writer wrote, or why not.
type Writer = Arc<Result<Plan, String>>;

impl AvroDecoder {
    /// A decoder for rows of `schema`, whose writers' schemas are in `registry`. Records of more than `max_record_bytes` are
    /// rejected. Asks nothing yet.
    ///
    /// # Errors
    /// `Config` for a column of a type that Avro has nothing for.
    pub fn new(schema: SchemaRef, registry: SchemaRegistry, max_record_bytes: usize) -> Result<Self> {
        let columns = Columns::new(schema.fields(), "", Medium::Avro)?;
        Ok(Self {
            schema,
            registry,
            reader: None,
            max_record_bytes,
            columns,
            plans: HashMap::new(),
            latest: None,
            failure: None,
        })
    }

    /// Reads by this Avro schema, in JSON: with its defaults for fields that a writer does not have, its aliases for fields that
    /// were called otherwise, and its logical types for numbers that were written without. It has a field for each column.
    ///
    /// # Errors
    /// `Config` if it is no Avro schema, or does not fit the columns.
    pub fn reader_schema(mut self, json: &str) -> Result<Self> {
        let wrong = |reason: String| ConnectorError::Config(format!("the reader's Avro schema: {reason}"));
        let reader = Arc::new(Schema::parse(json, std::iter::empty()).map_err(wrong)?);
        Plan::new(reader.clone(), Some(&reader), self.schema.fields()).map_err(wrong)?;
        self.reader = Some(reader);
        Ok(self)
    }

    fn decode(&mut self, record: &[u8]) -> Result<(), String> {
        if record.len() > self.max_record_bytes {
            return Err(format!("{} bytes, and the limit is {}", record.len(), self.max_record_bytes));
        }
        let (id, body) = unframed(record)?;
        let writer = self.writer(id)?;
        let plan = writer.as_ref().as_ref().map_err(String::clone)?;
        let mut cursor = Cursor::new(body);
        read::record(&plan.root, &plan.schema, &mut cursor, &mut self.columns)
            .map_err(|bad| format!("{bad} (schema id {id})"))?;
        match cursor.left() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left behind the record (schema id {id})")),
        }
    }

    fn writer(&mut self, id: u32) -> Result<Writer, String> {
        match &self.latest {
            Some((latest, writer)) if *latest == id => return Ok(writer.clone()),
            _ => {}
        }
        if self.plans.len() >= MOST_PLANS {
            self.plans.clear();
        }
        let writer = match self.plans.entry(id) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => {
                let found = self.registry.schema(id).map_err(|error| {
                    let reason = error.to_string();
                    self.failure = Some(error);
                    reason
                })?;
                // That there is none is not kept here: it may be there soon.
                let found = found?;
                let plan = match found.kind {
                    SchemaKind::Avro => {
                        let references = found.references.iter().map(|reference| reference.text.as_str());
                        Schema::parse(&found.text, references)
                            .and_then(|writer| Plan::new(Arc::new(writer), self.reader.as_ref(), self.schema.fields()))
                    }
                    kind => Err(format!("its schema is {kind}, not Avro")),
                };
                place.insert(Arc::new(plan.map_err(|reason| format!("{reason} (schema id {id})")))).clone()
            }
        };
        self.latest = Some((id, writer.clone()));
        Ok(writer)
    }
}

impl Decoder for AvroDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All of it: a record without a length of its own needs somebody else to frame it.
    fn frame(&mut self, bytes: &[u8], _last: bool) -> Frame {
        Frame::Record(Span { end: bytes.len(), next: bytes.len(), lines: 0 })
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let rows = self.columns.rows();
        self.decode(record).inspect_err(|_| self.columns.truncate(rows))
    }

    fn failure(&mut self) -> Option<ConnectorError> {
        self.failure.take()
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
