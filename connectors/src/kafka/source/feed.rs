//! What a reader asks of Kafka, so that tests can put a log in its place that loses, repeats, cuts off and begins again.

use std::time::Duration;

use rdkafka::Message;

use crate::{ConnectorError, Result, SplitId};

/// A partition of one of the topics of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition {
    /// Which topic: its place in the source's list.
    pub(super) topic: usize,
    /// Its number.
    pub(super) number: i32,
}

impl Partition {
    /// The split's name: `bids/3`.
    pub(super) fn split(self, topics: &[String]) -> SplitId {
        let topic = topics.get(self.topic).map_or("", String::as_str);
        SplitId::new(format!("{topic}/{}", self.number))
    }

    /// The partition that a split of this source names.
    pub(super) fn of(split: &SplitId, topics: &[String]) -> Result<Self> {
        let (topic, number) = split.as_str().rsplit_once('/').unwrap_or_default();
        let topic = topics.iter().position(|other| other == topic);
        match (topic, number.parse()) {
            (Some(topic), Ok(number)) => Ok(Self { topic, number }),
            _ => Err(ConnectorError::Config(format!(
                "there is a position for {split}, and this source reads {}: it belongs to another source",
                topics.join(", ")
            ))),
        }
    }
}

/// What comes from the topics.
pub(super) enum Event<M> {
    /// A record. Of one partition they come in the order of their offsets; after a reconnect some may come again.
    Record {
        /// Where it is from.
        at: Partition,
        /// The record.
        record: M,
    },
    /// The end of a partition, as of now. It comes after all records before it.
    End {
        /// Which partition.
        at: Partition,
        /// The offset of the record to come, if it is known.
        offset: Option<u64>,
    },
    /// Something went wrong with this topic.
    Failed {
        /// The topic: its place in the list.
        topic: usize,
        /// What it means.
        fault: Fault,
        /// In librdkafka's words.
        reason: String,
    },
}

/// What a failure means for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It passes: librdkafka goes on by itself.
    Passing,
    /// The log does not have the position that was asked for.
    Position,
    /// Records before the position have been replaced: the cluster has lost what it had confirmed.
    Truncated,
    /// The topic or the partition is not known, for now or for ever.
    Unknown,
    /// We may not read it.
    Forbidden,
    /// The broker does not take us for who we say we are.
    Login,
    /// What was received cannot be read as records.
    Garbage,
    /// Anything else. Nothing is known of what comes next, so the reader ends.
    Other,
}

/// The partitions of some topics, as one client sees them. A call with an answer from the cluster takes its time.
pub(super) trait Feed: Send {
    /// A record, borrowed from where it was received.
    type Record<'a>: Message
    where
        Self: 'a;

    /// The next event; `None` when there was none for so long, or when librdkafka had business of its own.
    fn poll(&self, wait: Duration) -> Option<Event<Self::Record<'_>>>;

    /// How many partitions a topic has; `None` if there is no such topic. If it has fewer than `expected` it asks again for a
    /// while: what was just made is not known to all brokers at once.
    fn partitions(&mut self, topic: usize, expected: i32) -> Result<Option<i32>>;

    /// Which broker leads each of these partitions, which there are; `None` where that is none at the moment.
    fn leaders(&mut self, of: &[Partition]) -> Result<Vec<Option<i32>>>;

    /// The first offset there is, and the one after the last: of all that is decided, if only what is committed is read.
    fn bounds(&mut self, of: &[Partition]) -> Result<Vec<(u64, u64)>>;

    /// The offset after the last record, decided or not.
    fn open_end(&mut self, at: Partition) -> Result<u64>;

    /// The offset of the first record that is not older than `millis` after 1970; `None` where all are older.
    fn since(&mut self, millis: i64, of: &[Partition]) -> Result<Vec<Option<u64>>>;

    /// Finds out where these end, of all that is decided, if only what is committed is read: by itself, with a client that is made for
    /// it, so that it says more than one that may stand still. Unless it is at it already.
    fn find_ends(&mut self, of: &[Partition]);

    /// What was found out since the last time.
    fn found_ends(&mut self) -> Vec<(Partition, u64)>;

    /// How far a partition has been fetched, records or not, as of about a second ago.
    fn fetched(&self, at: Partition) -> Option<u64>;

    /// Whether the client of a topic knows of any broker, as of about a second ago.
    fn knows_brokers(&self, topic: usize) -> bool;

    /// Goes on with a new client for a topic, to which nothing is assigned yet. What the old one had received is gone; nobody waits
    /// for it to be closed.
    fn renew(&mut self, topic: usize) -> Result<()>;

    /// What the group has committed.
    fn committed(&mut self, of: &[Partition]) -> Result<Vec<Option<u64>>>;

    /// Reads these too, from these offsets.
    fn assign(&mut self, from: &[(Partition, u64)]) -> Result<()>;

    /// Reads this one no longer.
    fn unassign(&mut self, at: Partition) -> Result<()>;

    /// Gets no more records of these, until they are resumed.
    fn pause(&mut self, of: &[Partition]) -> Result<()>;

    /// Goes on with these, from where they were paused.
    fn resume(&mut self, of: &[Partition]) -> Result<()>;
}
