//! What the user says of a topic to be read.

use std::{any::TypeId, fmt, sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;

use super::{
    KafkaSource, Start,
    layout::{Layout, Part},
    plan::{self, Isolation, Make, Plan},
};
use crate::{
    ConnectorError, Result, Untyped,
    format::{Decoder, MAX_RECORD_BYTES},
    kafka::connection::{Config, Kafka},
};

/// Topics to read, before it is said what is in them. See [`Kafka::topic`].
///
/// A record is one message. What does not decode, or has no usable event time, is rejected with its offset, its payload and its key.
/// A message without a payload is rejected too, unless the format has a row for it. A dead letter that was cut
/// ([`KafkaOutput::dead_letters`](crate::kafka::KafkaOutput::dead_letters)) is no record, and is rejected; [`raw`](Self::raw) can list it.
///
/// Every reader holds, for each topic, about 32 MiB of what librdkafka has received (`queued.max.messages.kbytes`, see
/// [`Kafka::set`]) and one answer of a broker (16 MiB: `fetch.max.bytes`); and about 20 MiB of columns, with as
/// much again for the messages that they were. Single batches of a producer that are larger come on top, up to 100 MB each.
#[derive(Clone)]
pub struct KafkaInput {
    config: Config,
    pub(super) topics: Vec<String>,
    start: Start,
    group: Option<String>,
    isolation: Isolation,
    bounded: bool,
    discover: Option<Duration>,
    batch_rows: usize,
    max_record_bytes: usize,
    pub(super) delimiter: u8,
    pub(super) reader_schema: Option<String>,
    parts: Vec<(Part, String)>,
    /// Payloads are not decoded.
    pub(super) as_it_is: bool,
    /// What is allowed and unwise of the format.
    pub(super) warnings: Vec<String>,
}

impl fmt::Debug for KafkaInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaInput")
            .field("config", &self.config)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// A topic to read. Records that were written by transactions are seen when these are committed.
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{Source, kafka::{Kafka, Start}};
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// let bids = Kafka::brokers("localhost:9092").topic("bids").from(Start::Latest).json::<Bid>();
    /// assert_eq!(bids.name(), "kafka localhost:9092, topic bids");
    /// assert_eq!(bids.schema()?.fields().len(), 2);
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn topic(&self, topic: impl Into<String>) -> KafkaInput {
        self.topics([topic])
    }

    /// Topics to read as one stream. All their records have the same columns. A reader has a client of librdkafka, with its
    /// connections and its memory, for each.
    pub fn topics<N: Into<String>>(&self, topics: impl IntoIterator<Item = N>) -> KafkaInput {
        let mut names: Vec<String> = Vec::new();
        for topic in topics.into_iter().map(Into::into) {
            if !names.contains(&topic) {
                names.push(topic);
            }
        }
        KafkaInput {
            config: self.config.clone(),
            topics: names,
            start: Start::default(),
            group: None,
            isolation: Isolation::default(),
            bounded: false,
            discover: Some(Duration::from_secs(30)),
            batch_rows: 8192,
            max_record_bytes: MAX_RECORD_BYTES,
            delimiter: b',',
            reader_schema: None,
            parts: Vec::new(),
            as_it_is: false,
            warnings: Vec::new(),
        }
    }
}

impl KafkaInput {
    /// Where to start, in partitions of which there is no position in a checkpoint; [`Start::Earliest`] if not said. It is turned
    /// into offsets when the reader starts, before the first record. Partitions that appear later are read from their first record.
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// A group to which the positions of final checkpoints are committed, for tools that watch how far its readers are. They are
    /// never read from there, except once for [`Start::Group`]; no member joins the group; and when committing fails that is only
    /// counted.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Whose records to read; those of committed transactions if not said.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Ends where the partitions end when the job begins, instead of waiting for more. The ends are in its checkpoints, the first of
    /// which is taken before a record is read: a job that starts again, after a failure or by hand, reads to the same ends, and one
    /// that has finished reads nothing. Partitions that were not there when it began it does not read.
    pub fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }

    /// How often to look for new partitions; every 30 s if not said, never with `None` and when [`bounded`](Self::bounded). Unless it
    /// is bounded, a start that goes on from a checkpoint finds those that have appeared, too, and reads them from their first record.
    pub fn discover_every(mut self, period: impl Into<Option<Duration>>) -> Self {
        self.discover = period.into();
        self
    }

    /// The rows of a batch; 8192 if not said. There are fewer when no more have come, and when they are large.
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.batch_rows = rows.max(1);
        self
    }

    /// The longest record, payload, key and the headers that are wanted together; 10 MiB if not said. Longer ones are rejected with their first KiB.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes.max(1);
        self
    }

    /// What stands between two fields of CSV; a comma if not said.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Reads Avro by this schema, in JSON: with its defaults for fields that a writer does not have, its aliases for fields that
    /// were called otherwise, and its logical types for numbers that were written without. It has a field for each column.
    pub fn reader_schema(mut self, json: impl Into<String>) -> Self {
        self.reader_schema = Some(json.into());
        self
    }

    /// The column for the key: `Binary` or `Utf8`, null for a record without one.
    ///
    /// As with all these columns: if the schema has a column of this name it is filled from the message instead of the payload. If
    /// not, it is appended to columns that are known at run time only, and is an error for a record's type.
    ///
    /// ```
    /// # use windrow_connectors::{Source, kafka::Kafka};
    /// # use arrow::datatypes::{DataType, Field, Schema};
    /// # let schema = std::sync::Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, false)]));
    /// let bids = Kafka::brokers("localhost:9092").topic("bids").key_column("k").offset_column("at").json_with(schema);
    /// let schema = bids.schema()?;
    /// assert_eq!(schema.field(1).data_type(), &DataType::Binary);
    /// assert_eq!(schema.field(2).name(), "at");
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn key_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Key, name)
    }

    /// The column for the headers: a `Map` of `Utf8` to nullable `Binary`, in the order of the message, names more than once if
    /// they are there more than once.
    pub fn headers_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Headers, name)
    }

    /// The column for the record's timestamp, in microseconds: when it was made, or when it was written, whichever the topic keeps.
    pub fn timestamp_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Timestamp, name)
    }

    /// The column for the number of the partition: `Int32`.
    pub fn partition_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Partition, name)
    }

    /// The column for the offset: `Int64`.
    pub fn offset_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Offset, name)
    }

    /// The column for the name of the topic: `Utf8`.
    pub fn topic_column(self, name: impl Into<String>) -> Self {
        self.part(Part::Topic, name)
    }

    fn part(mut self, part: Part, name: impl Into<String>) -> Self {
        self.parts.retain(|(other, _)| *other != part);
        self.parts.push((part, name.into()));
        self
    }

    /// Payloads that `make` makes a decoder for, given the columns that it is to fill and the longest record in bytes. A decoder
    /// is made for each partition; those without a payload go to [`Decoder::push_null`]. `T` is a `#[derive(Record)]` struct of
    /// these columns, or [`Untyped`].
    pub fn decoded<T: 'static>(
        self,
        schema: SchemaRef,
        make: impl Fn(SchemaRef, usize) -> Result<Box<dyn Decoder>> + Send + Sync + 'static,
    ) -> KafkaSource<T> {
        // A layout that cannot be is told when the job is checked, with everything else.
        let discover = self.discover.filter(|_| !self.bounded);
        let plan = self.plan::<T>(schema.clone(), Arc::new(make)).map_err(|error| error.to_string());
        let columns = match &plan {
            Ok(plan) => plan.layout.schema.clone(),
            Err(_) => Layout::columns(&schema, &self.parts, is_open::<T>()),
        };
        KafkaSource::new(plan::name(&self.config, &self.topics), columns, plan, discover)
    }

    pub(super) fn plan<T: 'static>(&self, schema: SchemaRef, make: Arc<Make>) -> Result<Plan> {
        let name = || plan::name(&self.config, &self.topics);
        if self.topics.is_empty() {
            return Err(ConnectorError::Config(format!("{}: a source without a topic has nothing to read", name())));
        }
        if self.start == Start::Group && self.group.is_none() {
            return Err(ConnectorError::Config(format!("{}: Start::Group needs a group: say .group(name)", name())));
        }
        if let Start::Millis(millis) = self.start
            && millis < 0
        {
            return Err(ConnectorError::Config(format!(
                "{}: Start::Millis({millis}) is before 1970, and to Kafka a negative time is not a time: say Start::Earliest",
                name()
            )));
        }
        let layout = Layout::new(&schema, &self.parts, is_open::<T>())
            .map_err(|error| ConnectorError::Config(format!("{}: {error}", name())))?;
        Ok(Plan {
            config: self.config.clone(),
            topics: self.topics.clone(),
            start: self.start.clone(),
            group: self.group.clone(),
            isolation: self.isolation,
            bounded: self.bounded,
            grows: self.discover.is_some() && !self.bounded,
            batch_rows: self.batch_rows,
            max_record_bytes: self.max_record_bytes,
            lists: self.as_it_is && layout.has_headers(),
            layout,
            warnings: self.config.warnings().into_iter().chain(self.warnings.clone()).collect(),
            make,
            without_origins: Arc::default(),
        })
    }
}

/// Whether the columns are known at run time only, so that there may be more.
fn is_open<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<Untyped>()
}
