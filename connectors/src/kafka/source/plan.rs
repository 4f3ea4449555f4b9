//! What the user said of a source, ready for its readers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use super::layout::Layout;
use crate::{Result, format::Decoder, kafka::connection::Config};
use arrow::datatypes::SchemaRef;

/// Makes a decoder for rows of a schema, with the longest record in bytes.
pub(super) type Make = dyn Fn(SchemaRef, usize) -> Result<Box<dyn Decoder>> + Send + Sync;

/// Where reading starts, in partitions that the job has no position of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first record that the topic still has.
    #[default]
    Earliest,
    /// With the first record that is written after the reader has started.
    Latest,
    /// With the first record that is not older than this, in milliseconds since 1970; where all are older, as
    /// [`Start::Latest`]. By the timestamp that the topic keeps.
    Millis(i64),
    /// With these offsets, by topic and partition. A partition that is not named is an error.
    ///
    /// ```
    /// # use windrow_connectors::kafka::Start;
    /// let start = Start::Offsets([(("bids".to_string(), 0), 1_200), (("bids".to_string(), 1), 990)].into());
    /// ```
    Offsets(BTreeMap<(String, i32), u64>),
    /// With what the [`group`](super::KafkaInput::group) has committed. A partition with records of which it has committed nothing is
    /// an error: reading it from its beginning, or not, is not for us to guess.
    Group,
}

/// Whose records are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, and those without one. It waits at the first record of a transaction that is open.
    #[default]
    ReadCommitted,
    /// All, also those of transactions that are open or were aborted.
    ReadUncommitted,
}

/// A source, as its readers see it.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) topics: Vec<String>,
    pub(super) start: Start,
    pub(super) group: Option<String>,
    pub(super) isolation: Isolation,
    /// Ends at the ends that the partitions have when the job begins.
    pub(super) bounded: bool,
    /// Whether partitions may be added later.
    pub(super) grows: bool,
    pub(super) batch_rows: usize,
    pub(super) max_record_bytes: usize,
    pub(super) layout: Layout,
    /// It lists what is there, as it is, and with all headers: dead letters that were cut, too.
    pub(super) lists: bool,
    /// What is allowed and unwise.
    pub(super) warnings: Vec<String>,
    pub(super) make: Arc<Make>,
    /// Whether nobody asks what rows were. Each reader has its own.
    pub(super) without_origins: Arc<AtomicBool>,
}

impl Plan {
    /// What to call the source in messages.
    pub(super) fn name(&self) -> String {
        name(&self.config, &self.topics)
    }

    /// What to call one of its topics in messages.
    pub(super) fn topic(&self, topic: usize) -> String {
        let name = self.topics.get(topic).map_or("", String::as_str);
        format!("{}, topic {name}", self.config.name())
    }

    /// A decoder of payloads.
    pub(super) fn decoder(&self) -> Result<Box<dyn Decoder>> {
        (self.make)(self.layout.payload.clone(), self.max_record_bytes)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("config", &self.config)
            .field("topics", &self.topics)
            .field("start", &self.start)
            .field("group", &self.group)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// `kafka k:9092, topic a`, `kafka k:9092, topics a, b`.
pub(super) fn name(config: &Config, topics: &[String]) -> String {
    let several = if topics.len() == 1 { "" } else { "s" };
    match topics {
        [] => config.name(),
        topics => format!("{}, topic{several} {}", config.name(), topics.join(", ")),
    }
}
