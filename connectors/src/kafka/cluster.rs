//! What the sinks ask of a cluster.
//!
//! ```text
//!   KafkaSink ──► Transactions ──► Cluster ──► Producer "windrow.fraud.0" ─┬─► librdkafka ──► brokers
//!                      │                   └─► Producer "windrow.fraud.1" ─┘
//!                      └──► newest value of the marker topic
//! ```
//!
//! The traits say nothing of librdkafka, so that tests can put a cluster in its place that loses requests and replies, moves
//! coordinators, times transactions out and lets zombies write, ten thousand times in virtual time.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::Result;

/// By topic and partition, how many records were written.
pub type Delivered = BTreeMap<String, BTreeMap<i32, u64>>;

/// A cluster to write to.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// What to call it in messages: `kafka localhost:9092`.
    fn name(&self) -> String;

    /// A producer that writes in transactions under `id`, no more than `batch` bytes as one batch, unless a single record has more. It
    /// does nothing before [`Producer::init_transactions`].
    async fn transactional(&self, id: &str, batch: usize) -> Result<Arc<dyn Producer>>;

    /// A producer that writes at once, no more than `batch` bytes as one batch, unless a single record has more.
    async fn plain(&self, batch: usize) -> Result<Arc<dyn Producer>>;

    /// How many partitions a topic has. Fails when it does not exist.
    async fn partitions(&self, topic: &str) -> Result<usize>;

    /// The largest records that these topics take, and with what is around them the largest batches. A topic is left out that nobody may
    /// ask for it, or that is not there. Tries again by itself, for some seconds; fails when nobody answers, because then it may be known
    /// at the next start.
    async fn largest_records(&self, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
        let _ = topics;
        Ok(BTreeMap::new())
    }

    /// Creates a compacted topic with one partition, unless it is there.
    async fn create_compacted(&self, topic: &str) -> Result<()>;

    /// The value of the last record of the only partition of `topic` that is committed. Reads up to the end that the
    /// partition had when the call began, *including* what is not committed then, so it waits until the outcome of every open
    /// transaction before that end is known. Fails rather than guesses when that takes too long.
    async fn last_committed(&self, topic: &str) -> Result<Option<Vec<u8>>>;
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Which partition; by its key, or any, if not said.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; without one it is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// In milliseconds since 1970; now if not said.
    pub timestamp: Option<i64>,
}

/// Writes to topics. Shared by all writers of a connection.
#[async_trait]
pub trait Producer: Send + Sync + 'static {
    /// Fences every former producer of the same id, and waits until the outcome of what it wrote is final. Tries again by
    /// itself until it knows.
    async fn init_transactions(&self) -> Result<()>;

    /// Begins a transaction. What is sent from now on belongs to it.
    async fn begin(&self) -> Result<()>;

    /// Takes a copy of `record` to send it. `false` when there is no room: nothing was taken, see [`Producer::room`].
    fn send(&self, record: &Outgoing<'_>) -> Result<bool>;

    /// Waits until there may be room again.
    async fn room(&self);

    /// Waits until everything is written that was taken before the call. Fails when any record that was ever taken could not be.
    async fn flush(&self) -> Result<()>;

    /// How many records have been written to each partition, by topic, since the transaction began. A cluster that does
    /// not count them says nothing.
    fn delivered(&self) -> Delivered {
        Delivered::default()
    }

    /// Commits the transaction. Tries again by itself as long as that makes sense. Only when it returns well the transaction
    /// is committed; otherwise it may be or not.
    async fn commit(&self) -> Result<()>;

    /// Throws the transaction away.
    async fn abort(&self) -> Result<()>;
}
