//! Topics as sinks.
//!
//! ```text
//!   KafkaOutput: topic, key, headers …  ──.json()──► KafkaSink ──► one KafkaWriter for each task
//!                                                                    │
//!   batch ──► key, headers, partition, time (record) ──┐             │
//!        └──► values (a RowEncoder of some format) ────┴──► Outgoing ├──► the connection's plain producer: at least once
//!                                                                    └──► its transaction: exactly once
//! ```
//!
//! | file | why it exists |
//! |---|---|
//! | `writer` | the rows of one task into records |
//! | `record` | columns into what a record has beside its value |
//! | `formats` | what is in the values |
//! | `dead_letter` | rejected records, with the reason in headers |

use std::{fmt, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;

use super::{Kafka, cluster::Cluster, connection::MAX_MESSAGE_BYTES};
use crate::{
    ConnectorError, Incarnation, OP, Result, Sink, SinkWriter, Witness,
    format::{PayloadFormat, RowEncoder},
};

mod dead_letter;
mod formats;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use record::Layout;
use writer::{Encoders, KafkaWriter, Target};

/// Topics as sinks.
impl Kafka {
    /// Writes to a topic, which must be there before the job starts. What is chosen next is the format, as with
    /// [`KafkaOutput::json`]; see [`KafkaOutput`] for an example.
    pub fn to_topic(&self, topic: impl Into<String>) -> KafkaOutput {
        let (topic, none) = (topic.into(), Vec::new());
        KafkaOutput {
            kafka: self.clone(),
            topic,
            key: none,
            key_format: None,
            headers: None,
            partition: None,
            timestamp: None,
            bare: false,
        }
    }
}

/// A topic to write to, and which columns become the key, the headers, the partition and the time of a record. With a format it is
/// a [`KafkaSink`].
///
/// Without [`partition_column`](Self::partition_column) a record with a key goes to the partition that Java's producer
/// would choose (murmur2), so that topics written by both are partitioned alike; one without a key to any. `partitioner` among
/// the settings of the connection chooses otherwise.
///
/// ```
/// use windrow_connectors::{Sink, kafka::Kafka};
///
/// let kafka = Kafka::brokers("localhost:9092");
/// let hot = kafka.to_topic("hot-items").key("item").timestamp_column("at").json().exactly_once();
/// assert_eq!(hot.name(), "kafka localhost:9092, topic hot-items");
/// ```
#[derive(Clone, Debug)]
pub struct KafkaOutput {
    kafka: Kafka,
    topic: String,
    key: Vec<String>,
    /// What is in the keys, if they are not written as they are.
    key_format: Option<KeyFormat>,
    headers: Option<String>,
    partition: Option<String>,
    timestamp: Option<String>,
    /// Key and time are not in the value too.
    bare: bool,
}

/// How keys are encoded.
#[derive(Clone)]
struct KeyFormat(Arc<dyn PayloadFormat>);

impl fmt::Debug for KeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFormat")
    }
}

/// The columns that make a key: one name, or several.
pub trait KeyColumns {
    /// Their names.
    fn names(self) -> Vec<String>;
}

impl KeyColumns for &str {
    fn names(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl KeyColumns for String {
    fn names(self) -> Vec<String> {
        vec![self]
    }
}

impl<T: Into<String>> KeyColumns for Vec<T> {
    fn names(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>, const N: usize> KeyColumns for [T; N] {
    fn names(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl KafkaOutput {
    /// The columns that make the key of a record: `.key("user")`, `.key(["region", "user"])`. They stay in the value too.
    ///
    /// One column is written as it is: text and bytes are the key, whole numbers and booleans are it as text (`42`, which is also
    /// their JSON), and null is no key. Several columns are a JSON object with all of them, in this order, nulls included.
    /// Without a key, records go to any partition. Of [`raw`](Self::raw) values it is left out.
    pub fn key(mut self, columns: impl KeyColumns) -> Self {
        self.key = columns.names();
        self
    }

    /// The column of headers: a map of text to bytes or text, or a list of structs of a `key` and a `value`, as a source of topics has
    /// them. It is left out of the value; null is no headers.
    pub fn headers_column(mut self, column: impl Into<String>) -> Self {
        self.headers = Some(column.into());
        self
    }

    /// The column that says to which partition a record goes, an `Int32`. It is left out of the value; where it is null, the key
    /// says it.
    pub fn partition_column(mut self, column: impl Into<String>) -> Self {
        self.partition = Some(column.into());
        self
    }

    /// The column that is the time of a record, a timestamp, to the millisecond. Where it is null, and without such a column, it is the
    /// time at which the record is sent. It stays in the value too. Records have no times before 1970, and the very first
    /// millisecond of that year is written as the second, because librdkafka takes 0 for the time of now. Of [`raw`](Self::raw) values it
    /// is left out.
    pub fn timestamp_column(mut self, column: impl Into<String>) -> Self {
        self.timestamp = Some(column.into());
        self
    }

    /// The topic takes the records that a source rejected, as they were: value and key are those of the record, so that reading the
    /// topic with the same format is to try them again. So are its headers and its time; behind them more headers say why it was
    /// rejected, and where it came from:
    ///
    /// | header | what it says |
    /// |---|---|
    /// | `windrow.error` | what is wrong with the record |
    /// | `windrow.source`, `windrow.split` | which source read it, `kafka localhost:9092, topic orders`, and which part of it |
    /// | `windrow.position`, `windrow.line` | where in that part it begins, where that is known |
    /// | `windrow.topic`, `windrow.partition`, `windrow.offset` | the same for a record of a topic |
    /// | `windrow.truncated`, `windrow.excerpt` | how many bytes the record has, and the beginning of its value, where it had to be cut |
    /// | `windrow.timestamp` | its time in milliseconds since 1970, where that cannot be the time of the letter |
    ///
    /// A letter that is read again and rejected again keeps what it says; `windrow.error` tells of the last time.
    ///
    /// A record that is larger than its source allows (`max_record_bytes`), or than client and topic take (`message.max.bytes`,
    /// `max.message.bytes`), is *cut*: the letter has no value, the first 1024 bytes of it are in `windrow.excerpt`, key and error are cut
    /// off after as many, and the record's own headers are left out. No source of Windrow takes such a letter for a record, or for a
    /// tombstone: it rejects it, unless it lists what is there ([`raw`](super::KafkaInput::raw) with a column of headers). A topic that
    /// nobody may ask for its limit (`DESCRIBE_CONFIGS`) is taken for one that has Kafka's default, 1,048,588 bytes. The time of a letter is that of now if the record's is in the
    /// future or before 1970, which brokers may refuse.
    ///
    /// [`exactly_once`](KafkaSink::exactly_once) puts them into the transaction of the other sinks of the connection.
    pub fn dead_letters(self) -> KafkaSink {
        KafkaSink { dead_letters: true, ..dead_letter::output(self).raw() }
    }
}

/// A topic as a sink. [`KafkaOutput`] makes it and has an example.
///
/// Without [`exactly_once`](Self::exactly_once), records are visible as they are written, and after a failure some are written
/// again.
///
/// The changes of a table become upserts of a compacted topic: an insert or update is a record with the row as its value, a delete is
/// one without a value, a *tombstone*. As [`debezium`](KafkaOutput::debezium) each is an envelope, a delete too. Their
/// [`key`](KafkaOutput::key) has to be the columns that the table is keyed by.
#[derive(Clone)]
pub struct KafkaSink {
    output: Arc<KafkaOutput>,
    format: Arc<dyn PayloadFormat>,
    dead_letters: bool,
    exactly_once: bool,
}

impl KafkaSink {
    /// Records become visible, to readers that ask for committed ones (`isolation.level=read_committed`), together with the checkpoint
    /// that they belong to, and exactly once, whatever fails. All such sinks of one connection commit in one transaction.
    pub fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    fn cluster(&self) -> &Arc<dyn Cluster> {
        self.output.kafka.transactions.cluster(&self.output.kafka.config)
    }

    /// The largest dead letter that client and topic take. Of a topic that nobody knows, what it takes unless it is told otherwise.
    fn letter_bytes(&self, largest: Option<usize>) -> usize {
        largest.unwrap_or(MAX_MESSAGE_BYTES).min(self.output.kafka.config.max_message_bytes())
    }

    /// What becomes of the columns of `schema`. Asks nobody outside.
    fn layout(&self, schema: &SchemaRef) -> Result<Layout> {
        let takes_changes = self.format.takes_changes();
        let layout = if self.dead_letters {
            dead_letter::accepts(schema).and_then(|()| Layout::new(&self.output, &dead_letter::schema(), takes_changes))
        } else {
            Layout::new(&self.output, schema, takes_changes)
        };
        layout.map_err(|error| self.named(error))
    }

    /// An encoder for columns of the value, or of the key. A registry may have to be asked for it.
    async fn encoder(
        &self,
        format: &Arc<dyn PayloadFormat>,
        schema: SchemaRef,
        name: String,
    ) -> Result<Box<dyn RowEncoder>> {
        let format = format.clone();
        let made = tokio::task::spawn_blocking(move || format.encoder(&schema, &name)).await;
        let made = made.unwrap_or_else(|error| {
            let (system, reason) = ("the format".to_owned(), format!("making an encoder was stopped: {error}"));
            Err(ConnectorError::Remote { system, reason, passes: true })
        });
        made.map_err(|error| self.named(error))
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn name(&self) -> String {
        format!("{}, topic {}", self.cluster().name(), self.output.topic)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.output.kafka.warnings();
        let keys = self.output.key_format.iter().flat_map(|KeyFormat(format)| format.warnings());
        for warning in self.format.warnings().into_iter().chain(keys) {
            // The registry of both is mostly the same.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        let layout = self.layout(schema)?;
        let key = match &self.output.key_format {
            Some(KeyFormat(format)) => format.accepts(layout.key_schema(), &self.output.key_name()),
            None => Ok(()),
        };
        let accepted = key.and_then(|()| self.format.accepts(layout.value_schema(), &self.output.topic));
        accepted.map_err(|error| self.named(error))
    }

    fn accepts_changes(&self, schema: &SchemaRef, key: &[usize]) -> Result<()> {
        let key = key.iter().filter_map(|&column| schema.fields().get(column));
        let mut wanted: Vec<_> = key.map(|field| field.name().clone()).collect();
        let ask = format!(".key({wanted:?})");
        let mut said = self.output.key.clone();
        wanted.sort_unstable();
        said.sort_unstable();
        if self.dead_letters || wanted.is_empty() || wanted != said {
            let reason = format!(
                "changes are keyed by the columns that say which row changes: say {ask}, or write .changelog() to it"
            );
            return Err(self.named(ConnectorError::Config(reason)));
        }
        self.accepts(&with_op(schema))
    }

    fn witness(&self) -> Option<Arc<dyn Witness>> {
        // The first one who asks says how to connect.
        self.exactly_once.then(|| {
            self.cluster();
            self.output.kafka.transactions.clone() as Arc<dyn Witness>
        })
    }

    fn place(&self) -> Option<String> {
        self.exactly_once.then(|| self.output.topic.clone())
    }

    async fn writer(&self, incarnation: &Incarnation, _task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let layout = self.layout(&schema)?;
        let Kafka { config, transactions } = &self.output.kafka;
        let (cluster, topic) = (self.cluster().as_ref(), &self.output.topic);
        // A topic that is not there is an error now, not when the first row has waited for it.
        // If neither is answered, the first is told: it knows why.
        let largest = async { Ok(transactions.limits.of(cluster, topic, incarnation).await) };
        let (_, largest) = tokio::try_join!(cluster.partitions(topic), largest)?;
        let largest = largest?;
        let keys = match &self.output.key_format {
            Some(KeyFormat(format)) => {
                Some(self.encoder(format, layout.key_schema().clone(), self.output.key_name()).await?)
            }
            None => None,
        };
        let values = self.encoder(&self.format, layout.value_schema().clone(), self.output.topic.clone()).await?;
        let target = if self.exactly_once {
            Target::Transaction(transactions.join(incarnation)?)
        } else {
            Target::Plain(transactions.plain(config, largest).await?, transactions.clone())
        };
        let output = self.output.clone();
        let letters = self.dead_letters.then(|| self.letter_bytes(largest));
        Ok(Box::new(KafkaWriter::new(output, target, layout, Encoders { keys, values }, letters)))
    }
}

impl KafkaSink {
    /// Says which topic a refusal is about.
    fn named(&self, error: ConnectorError) -> ConnectorError {
        let (name, topic) = (self.name(), &self.output.topic);
        match error {
            ConnectorError::Config(reason) => ConnectorError::Config(format!("{name}: {reason}")),
            ConnectorError::Data { at, reason } => ConnectorError::Data { at: format!("{name}, {at}"), reason },
            ConnectorError::Remote { system, reason, passes } => {
                ConnectorError::Remote { system: format!("{system}, for topic {topic}"), reason, passes }
            }
            other => other,
        }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output, dead_letters, exactly_once, .. } = self;
        let mut shown = f.debug_struct("KafkaSink");
        shown.field("topic", &output.topic).field("dead_letters", dead_letters).field("exactly_once", exactly_once);
        shown.finish_non_exhaustive()
    }
}

/// The columns of batches of changes.
fn with_op(schema: &SchemaRef) -> SchemaRef {
    let op = arrow::datatypes::Field::new(OP, arrow::datatypes::DataType::UInt8, false);
    let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(op)]).collect();
    Arc::new(Schema::new(fields))
}
