//! Topics for measurements, and what is in them: the same bids in every run.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde::{Deserialize, Serialize};
use windrow::prelude::*;

use crate::Result;

/// What travels. About 80 bytes as JSON.
#[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Bid {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    /// Microseconds since 1970.
    pub at: i64,
}

/// The longest that anything may take here.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Bid number `number`.
pub fn bid(number: u64) -> Bid {
    let mut random = fastrand::Rng::with_seed(number);
    Bid {
        auction: random.i64(0..100_000),
        bidder: random.i64(0..1_000_000),
        price: random.i64(1..10_000),
        at: 1_700_000_000_000_000 + number as i64 * 100,
    }
}

/// What every client here is told.
pub fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("client.id", "windrow-bench");
    client
}

/// A producer for throughput: large batches, nothing lost or repeated on the way, nothing compressed.
pub fn producer(brokers: &str) -> Result<BaseProducer> {
    let mut config = client(brokers);
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "131072");
    Ok(config.create()?)
}

/// Sends a record, and waits while there is no room.
pub fn send(producer: &BaseProducer, topic: &str, partition: Option<i32>, value: &[u8]) -> Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(value);
    record.partition = partition;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((
                rdkafka::error::KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull),
                again,
            )) => {
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Topics that are deleted in the end.
pub struct Topics {
    brokers: String,
    admin: AdminClient<rdkafka::client::DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    made: Vec<String>,
}

impl Topics {
    pub fn new(brokers: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { brokers: brokers.to_owned(), admin: client(brokers).create()?, runtime, made: Vec::new() })
    }

    /// A new topic; its name begins with `what`.
    pub fn create(&mut self, what: &str, partitions: i32) -> Result<String> {
        let name = format!("windrow-bench-{what}-{:08x}", fastrand::u32(..));
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        for made in self.runtime.block_on(self.admin.create_topics(&[topic], &options))? {
            made.map_err(|(topic, error)| format!("cannot create topic {topic}: {error}"))?;
        }
        self.made.push(name.clone());
        Ok(name)
    }

    /// Deletes a topic before the end.
    pub fn delete(&mut self, topic: &str) -> Result<()> {
        self.made.retain(|made| made != topic);
        self.runtime.block_on(self.admin.delete_topics(&[topic], &AdminOptions::new()))?;
        Ok(())
    }

    /// How many records are committed in a topic. They are counted: offsets are given to the markers of transactions too.
    pub fn records(&self, topic: &str, partitions: i32) -> Result<u64> {
        let mut config = client(&self.brokers);
        config.set("group.id", "windrow-bench").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.set("isolation.level", "read_committed").create()?;
        let mut assigned = TopicPartitionList::new();
        for partition in 0..partitions {
            assigned.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&assigned)?;
        let (mut records, mut unread, began) = (0, partitions, Instant::now());
        while unread > 0 {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => records += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
                Some(Err(error)) => return Err(error.into()),
                None if began.elapsed() > PATIENCE => return Err(format!("{topic} cannot be read to its end").into()),
                None => {}
            }
        }
        Ok(records)
    }

    /// A topic of bids 0 to `count - 1`, dealt to the partitions in turn.
    pub fn filled(&mut self, count: u64, partitions: i32) -> Result<String> {
        let topic = self.create("bids", partitions)?;
        let producer = producer(&self.brokers)?;
        let mut json = Vec::new();
        for number in 0..count {
            json.clear();
            serde_json::to_writer(&mut json, &bid(number))?;
            let partition = i32::try_from(number % u64::try_from(partitions)?)?;
            send(&producer, &topic, Some(partition), &json)?;
            if number.is_multiple_of(10_000) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(PATIENCE)?;
        let there = self.records(&topic, partitions)?;
        if there != count {
            return Err(format!("topic {topic} has {there} records and not {count}").into());
        }
        Ok(topic)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let names: Vec<&str> = self.made.iter().map(String::as_str).collect();
        // A topic that stays is in nobody's way.
        let _ = self.runtime.block_on(self.admin.delete_topics(&names, &AdminOptions::new()));
    }
}
