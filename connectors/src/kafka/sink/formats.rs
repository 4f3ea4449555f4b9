//! What is in the values of the records that are written. Each format is a [`PayloadFormat`] for [`KafkaOutput::encoded`].

use std::sync::Arc;

use super::{KafkaOutput, KafkaSink, KeyFormat};
use crate::{
    SchemaRegistry,
    format::{AvroFormat, Debezium, Format, JsonSchemaFormat, PayloadFormat, Protobuf, Raw},
};

/// How keys are encoded that are not written as they are.
impl KafkaOutput {
    /// Keys are Avro records of the columns of [`key`](Self::key), with the id of their schema in front, which is registered as
    /// `{topic}-key`. A key of one column is a record of one field.
    ///
    /// ```
    /// use windrow_connectors::{SchemaRegistry, kafka::Kafka};
    ///
    /// let (kafka, registry) = (Kafka::brokers("localhost:9092"), SchemaRegistry::at("http://localhost:8081"));
    /// let alerts = kafka.to_topic("alerts").key("card").avro_key(&registry).avro(&registry);
    /// ```
    pub fn avro_key(self, registry: &SchemaRegistry) -> Self {
        let subject = self.key_name();
        self.key_encoded(AvroFormat::new(registry.clone()).subject(subject))
    }

    /// Keys are JSON objects of the columns of [`key`](Self::key), with the id of their JSON Schema in front, which is registered as
    /// `{topic}-key`.
    pub fn json_schema_key(self, registry: &SchemaRegistry) -> Self {
        let subject = self.key_name();
        self.key_encoded(JsonSchemaFormat::new(registry.clone()).subject(subject))
    }

    /// Keys are messages of Protocol Buffers of the columns of [`key`](Self::key); with a registry their schema is registered as
    /// `{topic}-key`.
    pub fn protobuf_key(self, messages: &Protobuf) -> Self {
        let subject = self.key_name();
        self.key_encoded(messages.clone().subject(subject))
    }

    fn key_encoded(mut self, format: impl PayloadFormat) -> Self {
        self.key_format = Some(KeyFormat(Arc::new(format)));
        self
    }

    /// What the schema of the keys is called.
    pub(super) fn key_name(&self) -> String {
        format!("{}-key", self.topic)
    }
}

/// With a format it is a sink.
impl KafkaOutput {
    /// Values are JSON objects. Nulls are left out, times are RFC 3339 text.
    pub fn json(self) -> KafkaSink {
        self.encoded(Format::Json)
    }

    /// Values are records of CSV with commas, without a header: the fields are the columns, in order; null is an empty field, times are
    /// RFC 3339 text. `.encoded(Format::Csv { delimiter: b';' })` has other delimiters.
    pub fn csv(self) -> KafkaSink {
        self.encoded(Format::CSV)
    }

    /// The value is the only column beside those of the key, the headers, the partition and the time, bytes or text, as it is; null is a
    /// record without a value, a tombstone. A column that is the only one is key and value.
    ///
    /// ```
    /// use windrow_connectors::kafka::Kafka;
    ///
    /// let kafka = Kafka::brokers("localhost:9092");
    /// let source = kafka.topic("orders").key_column("key").headers_column("headers").raw();
    /// let copy = kafka.to_topic("orders.copy").key("key").headers_column("headers").raw();
    /// ```
    pub fn raw(self) -> KafkaSink {
        Self { bare: true, ..self }.encoded(Raw)
    }

    /// Values are Debezium's JSON envelopes: a row of a stream is an insert, a change of a table what it is, a delete too. There is no
    /// tombstone behind it, so the topic is not one to compact. See [`DebeziumEncoder`](crate::format::DebeziumEncoder).
    ///
    /// ```
    /// use windrow_connectors::kafka::Kafka;
    ///
    /// let changes = Kafka::brokers("localhost:9092").to_topic("balances").key("account").debezium();
    /// ```
    pub fn debezium(self) -> KafkaSink {
        self.encoded(Debezium)
    }

    /// Values are Avro, with the id of their schema in front. It is made from the columns, and registered as `{topic}-value` before the
    /// first row is written. [`AvroFormat`] has more to choose from: give it to [`encoded`](Self::encoded).
    ///
    /// ```
    /// use windrow_connectors::{SchemaRegistry, format::AvroFormat, kafka::Kafka};
    ///
    /// let (kafka, registry) = (Kafka::brokers("localhost:9092"), SchemaRegistry::at("http://localhost:8081"));
    /// let alerts = kafka.to_topic("alerts").avro(&registry);
    /// let named = kafka.to_topic("alerts").encoded(AvroFormat::new(registry).record_name("shop.Alert"));
    /// ```
    pub fn avro(self, registry: &SchemaRegistry) -> KafkaSink {
        self.encoded(AvroFormat::new(registry.clone()))
    }

    /// Values are JSON objects with the id of their JSON Schema in front. It is made from the columns, and registered as
    /// `{topic}-value` before the first row is written; [`JsonSchemaFormat`] has another subject.
    ///
    /// ```
    /// use windrow_connectors::{SchemaRegistry, kafka::Kafka};
    ///
    /// let registry = SchemaRegistry::at("http://localhost:8081");
    /// let alerts = Kafka::brokers("localhost:9092").to_topic("alerts").json_schema(&registry);
    /// ```
    pub fn json_schema(self, registry: &SchemaRegistry) -> KafkaSink {
        self.encoded(JsonSchemaFormat::new(registry.clone()))
    }

    /// Values are messages of Protocol Buffers.
    ///
    /// ```
    /// use windrow_connectors::{SchemaRegistry, format::Protobuf, kafka::Kafka};
    ///
    /// let registry = SchemaRegistry::at("http://localhost:8081");
    /// let messages = Protobuf::from_registry(&registry); // or from_proto(text, "shop.Alert")
    /// let alerts = Kafka::brokers("localhost:9092").to_topic("alerts").protobuf(&messages);
    /// ```
    pub fn protobuf(self, messages: &Protobuf) -> KafkaSink {
        self.encoded(messages.clone())
    }

    /// Values are in this format, which may be one of your own.
    ///
    /// ```
    /// use arrow::{array::{AsArray, RecordBatch}, datatypes::SchemaRef};
    /// use windrow_connectors::{Result, format::{PayloadFormat, Payloads, RowEncoder}, kafka::Kafka};
    ///
    /// /// The first column, which is text, and nothing else.
    /// struct Bare;
    ///
    /// impl PayloadFormat for Bare {
    ///     fn accepts(&self, _schema: &SchemaRef, _topic: &str) -> Result<()> {
    ///         Ok(())
    ///     }
    ///
    ///     fn encoder(&self, _schema: &SchemaRef, _topic: &str) -> Result<Box<dyn RowEncoder>> {
    ///         Ok(Box::new(Bare))
    ///     }
    /// }
    ///
    /// impl RowEncoder for Bare {
    ///     fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
    ///         for text in batch.column(0).as_string::<i32>() {
    ///             out.buffer().extend_from_slice(text.unwrap_or("").as_bytes());
    ///             out.end();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let lines = Kafka::brokers("localhost:9092").to_topic("lines").encoded(Bare);
    /// ```
    pub fn encoded(self, format: impl PayloadFormat) -> KafkaSink {
        KafkaSink { output: Arc::new(self), format: Arc::new(format), dead_letters: false, exactly_once: false }
    }
}
