//! What is in the messages of a topic.
//!
//! Each format is a decoder for [`KafkaInput::decoded`]; with the columns of a Rust type, with columns that are given, or with those
//! that the topic or the registry show.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use typed_arrow::schema::SchemaMeta;

use super::{
    KafkaSource, Start,
    input::KafkaInput,
    plan::{Make, Plan},
    sample::sample,
};
use crate::{
    ConnectorError, Result, SchemaRegistry, Untyped,
    format::{
        AvroDecoder, CsvDecoder, DebeziumDecoder, Decoder, Format, JsonSchemaDecoder, MAX_RECORD_BYTES, Protobuf,
        RawDecoder, avro, infer, raw::RAW_COLUMN,
    },
    registry::unframed,
};

impl KafkaInput {
    /// JSON objects with the columns of a `#[derive(Record)]` struct; times as in [`FileInput::json`](crate::file::FileInput::json).
    pub fn json<T: SchemaMeta + 'static>(self) -> KafkaSource<T> {
        self.read(Format::Json, T::schema())
    }

    /// JSON objects with these columns.
    pub fn json_with(self, schema: SchemaRef) -> KafkaSource<Untyped> {
        self.read(Format::Json, schema)
    }

    /// Records of CSV with the columns of a `#[derive(Record)]` struct, in their order: a message has no header.
    pub fn csv<T: SchemaMeta + 'static>(self) -> KafkaSource<T> {
        let delimiter = self.delimiter;
        self.read(Format::Csv { delimiter }, T::schema())
    }

    /// Records of CSV with these columns, in their order: a message has no header.
    pub fn csv_with(self, schema: SchemaRef) -> KafkaSource<Untyped> {
        let delimiter = self.delimiter;
        self.read(Format::Csv { delimiter }, schema)
    }

    /// Avro with the columns of a `#[derive(Record)]` struct. In front of each record stands the id of the schema it was written
    /// with, which the registry has; fields are found by name, and converted as Avro says.
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{SchemaRegistry, Source, kafka::Kafka};
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// let registry = SchemaRegistry::at("http://localhost:8081");
    /// let bids = Kafka::brokers("localhost:9092").topic("bids").avro::<Bid>(&registry);
    /// assert_eq!(bids.schema()?.fields().len(), 2);
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn avro<T: SchemaMeta + 'static>(self, registry: &SchemaRegistry) -> KafkaSource<T> {
        self.read_avro(T::schema(), registry)
    }

    /// Avro with these columns.
    pub fn avro_with(self, schema: SchemaRef, registry: &SchemaRegistry) -> KafkaSource<Untyped> {
        self.read_avro(schema, registry)
    }

    /// Avro with the columns of the newest schema that the registry has for the values of the topic, `{topic}-value`. Asks it
    /// now, and blocks.
    pub fn infer_avro(self, registry: &SchemaRegistry) -> Result<KafkaSource<Untyped>> {
        let Some(topic) = self.topics.first() else { return Ok(self.avro_with(Arc::new(Schema::empty()), registry)) };
        let schema = avro::columns(&*registry.latest(&format!("{topic}-value"))?)?;
        Ok(self.avro_with(schema, registry))
    }

    fn read_avro<T: 'static>(mut self, schema: SchemaRef, registry: &SchemaRegistry) -> KafkaSource<T> {
        self.warnings = registry.warnings();
        let (registry, reader) = (registry.clone(), self.reader_schema.take());
        self.decoded(schema, move |schema, max| {
            let decoder = AvroDecoder::new(schema, registry.clone(), max)?;
            Ok(Box::new(match &reader {
                Some(reader) => decoder.reader_schema(reader)?,
                None => decoder,
            }))
        })
    }

    /// JSON objects with the columns of a `#[derive(Record)]` struct. In front of each stands the id of its JSON Schema, which the
    /// registry has. See [`JsonSchemaDecoder`].
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{SchemaRegistry, kafka::Kafka};
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// let registry = SchemaRegistry::at("http://localhost:8081");
    /// let bids = Kafka::brokers("localhost:9092").topic("bids").json_schema::<Bid>(&registry);
    /// ```
    pub fn json_schema<T: SchemaMeta + 'static>(self, registry: &SchemaRegistry) -> KafkaSource<T> {
        self.read_json_schema(T::schema(), registry)
    }

    /// JSON objects with the id of their JSON Schema in front, with these columns.
    pub fn json_schema_with(self, schema: SchemaRef, registry: &SchemaRegistry) -> KafkaSource<Untyped> {
        self.read_json_schema(schema, registry)
    }

    /// JSON objects with the id of their JSON Schema in front, with the columns that the first `records` of them show, as with
    /// [`infer_json`](Self::infer_json).
    pub fn infer_json_schema(self, records: usize, registry: &SchemaRegistry) -> Result<KafkaSource<Untyped>> {
        let object = |payload: &[u8]| {
            unframed(payload).ok().map(|(_, text)| text).filter(|text| is_object(text)).map(<[u8]>::to_vec)
        };
        let schema = self.infer(records, object, |sample| infer::json(sample, None))?;
        Ok(self.json_schema_with(schema, registry))
    }

    fn read_json_schema<T: 'static>(mut self, schema: SchemaRef, registry: &SchemaRegistry) -> KafkaSource<T> {
        self.warnings = registry.warnings();
        let registry = registry.clone();
        self.decoded(schema, move |schema, max| Ok(Box::new(JsonSchemaDecoder::new(schema, registry.clone(), max)?)))
    }

    /// Messages of Protocol Buffers with the columns of a `#[derive(Record)]` struct.
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{SchemaRegistry, format::Protobuf, kafka::Kafka};
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// let registry = SchemaRegistry::at("http://localhost:8081");
    /// let messages = Protobuf::from_registry(&registry); // or from_proto(text, "shop.Bid")
    /// let bids = Kafka::brokers("localhost:9092").topic("bids").protobuf::<Bid>(&messages);
    /// ```
    pub fn protobuf<T: SchemaMeta + 'static>(self, messages: &Protobuf) -> KafkaSource<T> {
        self.read_protobuf(T::schema(), messages)
    }

    /// Messages of Protocol Buffers with these columns.
    pub fn protobuf_with(self, schema: SchemaRef, messages: &Protobuf) -> KafkaSource<Untyped> {
        self.read_protobuf(schema, messages)
    }

    /// Messages of Protocol Buffers with the columns that they have themselves; with a registry alone those of the first message in
    /// the newest schema of `{topic}-value`, or of the subject that was given. Asks it now, and blocks.
    pub fn infer_protobuf(self, messages: &Protobuf) -> Result<KafkaSource<Untyped>> {
        let schema = match self.topics.first() {
            Some(topic) => messages.columns(topic)?,
            None => Arc::new(Schema::empty()),
        };
        Ok(self.protobuf_with(schema, messages))
    }

    fn read_protobuf<T: 'static>(mut self, schema: SchemaRef, messages: &Protobuf) -> KafkaSource<T> {
        self.warnings = messages.warnings();
        let messages = messages.clone();
        self.decoded(schema, move |schema, _| Ok(Box::new(messages.decoder(schema)?)))
    }

    /// The changes of a table, in Debezium's JSON envelopes, with the columns of a `#[derive(Record)]` struct: those of the table that
    /// it wants, and `op`, which says `insert`, `update` or `delete`. See [`DebeziumDecoder`]. To have the table again:
    /// `.key_by("id").latest_unless(col("op").eq(lit("delete")))`.
    pub fn debezium<T: SchemaMeta + 'static>(self) -> KafkaSource<T> {
        self.read_debezium(T::schema())
    }

    /// The changes of a table with these columns.
    pub fn debezium_with(self, schema: SchemaRef) -> KafkaSource<Untyped> {
        self.read_debezium(schema)
    }

    /// The changes of a table with the columns that the first `records` of them show, as with [`infer_json`](Self::infer_json).
    pub fn infer_debezium(self, records: usize) -> Result<KafkaSource<Untyped>> {
        let schema = self.infer(records, object, |sample| DebeziumDecoder::infer(sample, None))?;
        Ok(self.debezium_with(schema))
    }

    fn read_debezium<T: 'static>(self, schema: SchemaRef) -> KafkaSource<T> {
        self.decoded(schema, |schema, max| Ok(Box::new(DebeziumDecoder::new(schema, max)?)))
    }

    /// The payloads as they are, in a nullable column `value` of bytes: null where there is none.
    ///
    /// With a [`headers_column`](Self::headers_column) it lists dead letters that were cut, too: `value` is null, and the headers
    /// `windrow.truncated` and `windrow.excerpt` say what it was. Without it, and in every other format, they are rejected.
    pub fn raw(mut self) -> KafkaSource<Untyped> {
        let schema = Schema::new(vec![Field::new(RAW_COLUMN, DataType::Binary, true)]);
        self.as_it_is = true;
        self.decoded(Arc::new(schema), |schema, max| Ok(Box::new(RawDecoder::new(schema, max)?)))
    }

    /// JSON objects with the columns that the first `records` records show of those that the topics hold now. Every column is nullable;
    /// one that was always null is text. Reads them now, for at most ten seconds after the brokers have answered, and blocks.
    pub fn infer_json(self, records: usize) -> Result<KafkaSource<Untyped>> {
        let schema = self.infer(records, object, |sample| infer::json(sample, None))?;
        Ok(self.json_with(schema))
    }

    /// Records of CSV with columns of these names, in their order, and of the types that the first `records` of them show, as with
    /// [`infer_json`](Self::infer_json): a message has no header, so nobody else knows the names.
    pub fn infer_csv<N: Into<String>>(
        self,
        columns: impl IntoIterator<Item = N>,
        records: usize,
    ) -> Result<KafkaSource<Untyped>> {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        let texts = columns.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>();
        let mut probe = CsvDecoder::new(Arc::new(Schema::new(texts)), self.delimiter, MAX_RECORD_BYTES)?;
        // A record with other fields is no reason to guess less of the rest.
        let record = |payload: &[u8]| {
            let fits = probe.push(payload).is_ok() && probe.flush().is_ok();
            fits.then(|| payload.strip_suffix(b"\n").unwrap_or(payload).to_vec())
        };
        let schema = self.infer(records, record, |sample| infer::csv_columns(&columns, sample, self.delimiter))?;
        Ok(self.csv_with(schema))
    }

    fn infer(
        &self,
        records: usize,
        keep: impl FnMut(&[u8]) -> Option<Vec<u8>>,
        infer: impl Fn(&[Vec<u8>]) -> Result<SchemaRef>,
    ) -> Result<SchemaRef> {
        let make: Arc<Make> = Arc::new(|schema, max| Format::Json.decoder(schema, max));
        let plan: Plan = self.plan::<Untyped>(Arc::new(Schema::empty()), make)?;
        let plan = Plan { start: Start::Earliest, bounded: true, grows: false, ..plan };
        let records = sample(&plan, records.max(1), keep)?;
        if records.is_empty() {
            return Err(ConnectorError::Config(format!(
                "{}: the columns cannot be inferred: no record in it is of this format; give a schema instead",
                plan.name()
            )));
        }
        infer(&records).map_err(|error| ConnectorError::Data {
            at: plan.name(),
            reason: format!("the columns cannot be inferred, give a schema: {error}"),
        })
    }

    fn read<T: 'static>(self, format: Format, schema: SchemaRef) -> KafkaSource<T> {
        self.decoded(schema, move |schema, max_record_bytes| format.decoder(schema, max_record_bytes))
    }
}

fn is_object(payload: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload).is_ok()
}

fn object(payload: &[u8]) -> Option<Vec<u8>> {
    is_object(payload).then(|| payload.to_vec())
}
