//! What one would write without an engine: loops over `BaseConsumer` and `BaseProducer`, tuned as by someone who knows librdkafka.
//!
//! ```text
//!   count    consume ──► bytes
//!   decode   consume ──► serde_json ──► a struct
//!   process  consume ──► serde_json ──► filter, map ──► serde_json ──► produce … flush
//! ```
//!
//! Each loop is told its partitions, so that it can run on several threads. Buffers are used again; records are borrowed from
//! librdkafka as long as they are looked at. Every loop ends when it has seen the end that its partitions had at the start.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    producer::Producer,
};
use serde::Serialize;

use crate::{
    Result,
    load::{Bid, PATIENCE, client, producer, send},
};

/// Bids of less are left out.
pub const CHEAP: i64 = 1_000;

/// What `process` writes.
#[derive(Serialize, Debug)]
pub struct Euro {
    pub auction: i64,
    pub cents: i64,
    pub at: i64,
}

/// What a loop has seen; the same for all loops that do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
    /// Sum of prices of the bids, or of the cents that were written.
    pub sum: i64,
    pub written: u64,
}

impl Seen {
    pub fn add(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
            sum: self.sum + other.sum,
            written: self.written + other.written,
        }
    }
}

/// A consumer for throughput: nothing committed, and as much fetched ahead as the connector does. With larger fetches and queues
/// (8 MiB a partition, 128 MiB) it was slower: what waits in the queue leaves the caches.
pub fn consumer(brokers: &str) -> Result<BaseConsumer> {
    let mut config = client(brokers);
    config
        .set("group.id", "windrow-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_uncommitted")
        .set("fetch.min.bytes", "1")
        .set("fetch.max.bytes", "16777216")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "32768");
    Ok(config.create()?)
}

/// Reads the partitions from their first record to the end they have now.
fn each(
    brokers: &str,
    topic: &str,
    partitions: &[i32],
    mut what: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    let consumer = consumer(brokers)?;
    let mut assigned = TopicPartitionList::new();
    let mut left = 0;
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, *partition, Duration::from_secs(20))?;
        left += high - low;
        assigned.add_partition_offset(topic, *partition, Offset::Offset(low))?;
    }
    consumer.assign(&assigned)?;
    let began = Instant::now();
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                what(&message)?;
                left -= 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None if began.elapsed() > PATIENCE => return Err(format!("{left} records of {topic} do not come").into()),
            None => {}
        }
    }
    Ok(())
}

/// Counts records and bytes.
pub fn count(brokers: &str, topic: &str, partitions: &[i32]) -> Result<Seen> {
    let mut seen = Seen::default();
    each(brokers, topic, partitions, |message| {
        seen.records += 1;
        seen.bytes += message.payload_len() as u64;
        Ok(())
    })?;
    Ok(seen)
}

/// Decodes every record.
pub fn decode(brokers: &str, topic: &str, partitions: &[i32]) -> Result<Seen> {
    let mut seen = Seen::default();
    each(brokers, topic, partitions, |message| {
        let bid: Bid = serde_json::from_slice(message.payload().unwrap_or_default())?;
        seen.records += 1;
        seen.bytes += message.payload_len() as u64;
        seen.sum += bid.price;
        Ok(())
    })?;
    Ok(seen)
}

/// Decodes every record, leaves some out, and writes the others to a topic in another form.
pub fn process(brokers: &str, topic: &str, partitions: &[i32], to: &str) -> Result<Seen> {
    let mut seen = Seen::default();
    let producer = producer(brokers)?;
    let mut json = Vec::with_capacity(256);
    each(brokers, topic, partitions, |message| {
        let bid: Bid = serde_json::from_slice(message.payload().unwrap_or_default())?;
        seen.records += 1;
        seen.bytes += message.payload_len() as u64;
        if let Some(euro) = euro(&bid) {
            json.clear();
            serde_json::to_writer(&mut json, &euro)?;
            send(&producer, to, None, &json)?;
            seen.sum += euro.cents;
            seen.written += 1;
        }
        if seen.records.is_multiple_of(1_000) {
            producer.poll(Duration::ZERO);
        }
        Ok(())
    })?;
    producer.flush(PATIENCE)?;
    Ok(seen)
}

/// The filter and the map of `process`.
pub fn euro(bid: &Bid) -> Option<Euro> {
    (bid.price >= CHEAP).then_some(Euro { auction: bid.auction, cents: bid.price * 9 / 10, at: bid.at })
}
