//! How long a record takes from when it should have been sent to when a reader of the output has it.
//!
//! ```text
//!   sender, 50,000/s ──► topic ──► pipeline ──► topic ──► reader ──► histogram
//!   "due": when it was due, not when there was time for it: a pipeline that stalls is not forgiven for what waits meanwhile
//! ```
//!
//! All in one process, so one clock.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, Producer},
};
use serde::{Deserialize, Serialize};
use windrow::prelude::*;

use crate::{
    Result,
    load::{PATIENCE, Topics, client, send},
};

/// Records a second.
pub const RATE: u64 = 50_000;
pub const PARTITIONS: i32 = 2;
/// Sent first, and not counted.
const WARM_UP: Duration = Duration::from_secs(3);

/// What travels.
#[derive(Record, Serialize, Deserialize, Debug)]
pub struct Tick {
    pub number: u64,
    /// Microseconds since the measurement began.
    pub due: u64,
}

/// What a pipeline is given.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub brokers: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    /// It ends soon after this is set.
    pub stop: &'a AtomicBool,
}

/// Runs a pipeline, which writes every tick that it reads; returns how long they took, in microseconds.
pub fn measure(
    brokers: &str,
    time: Duration,
    isolation: &str,
    pipeline: impl Fn(Ends<'_>) -> Result<()> + Send + Sync,
) -> Result<Histogram<u64>> {
    let mut topics = Topics::new(brokers)?;
    let (from, to) = (topics.create("ticks", PARTITIONS)?, topics.create("tocks", PARTITIONS)?);
    let count = (WARM_UP + time).as_secs() * RATE;
    let stop = AtomicBool::new(false);
    let ends = Ends { brokers, from: &from, to: &to, stop: &stop };
    thread::scope(|scope| {
        let piping = scope.spawn(|| pipeline(ends));
        let began = Instant::now();
        let sending = scope.spawn(move || send_at_rate(brokers, ends.from, count, began));
        let taken = read(brokers, isolation, ends.to, count, began);
        // Also when that failed: the threads are waited for.
        stop.store(true, SeqCst);
        sending.join().map_err(|_| "the sender panicked")??;
        piping.join().map_err(|_| "the pipeline panicked")??;
        taken
    })
}

/// One line of figures.
pub fn line(name: &str, taken: &Histogram<u64>) -> String {
    let millis = |quantile| taken.value_at_quantile(quantile) as f64 / 1_000.0;
    format!(
        "kafka/{name}: {} records at {RATE}/s: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms",
        taken.len(),
        millis(0.5),
        millis(0.99),
        millis(0.999),
        taken.max() as f64 / 1_000.0
    )
}

fn quick_producer(brokers: &str) -> Result<BaseProducer> {
    let mut config = client(brokers);
    config.set("enable.idempotence", "true").set("linger.ms", "1").set("queue.buffering.max.messages", "1000000");
    Ok(config.create()?)
}

fn quick_consumer(brokers: &str, isolation: &str) -> Result<BaseConsumer> {
    let mut config = client(brokers);
    config
        .set("group.id", "windrow-bench")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation)
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100");
    Ok(config.create()?)
}

fn assign(consumer: &BaseConsumer, topic: &str) -> Result<()> {
    let mut assigned = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assigned.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    Ok(consumer.assign(&assigned)?)
}

fn send_at_rate(brokers: &str, topic: &str, count: u64, began: Instant) -> Result<()> {
    let producer = quick_producer(brokers)?;
    let mut json = Vec::new();
    for number in 0..count {
        let due = number * 1_000_000 / RATE;
        while micros_since(began) < due {
            producer.poll(Duration::from_micros(200));
        }
        json.clear();
        serde_json::to_writer(&mut json, &Tick { number, due })?;
        let partition = i32::try_from(number % u64::try_from(PARTITIONS)?)?;
        send(&producer, topic, Some(partition), &json)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Reads `count` ticks, each once.
fn read(brokers: &str, isolation: &str, topic: &str, count: u64, began: Instant) -> Result<Histogram<u64>> {
    let consumer = quick_consumer(brokers, isolation)?;
    assign(&consumer, topic)?;
    let mut taken = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut seen = vec![false; usize::try_from(count)?];
    let (mut left, mut last) = (count, Instant::now());
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let now = micros_since(began);
                last = Instant::now();
                let tick: Tick = serde_json::from_slice(message.payload().unwrap_or_default())?;
                let seen = seen.get_mut(usize::try_from(tick.number)?).ok_or("a tick that was never sent")?;
                if std::mem::replace(seen, true) {
                    return Err(format!("tick {} came twice", tick.number).into());
                }
                left -= 1;
                if tick.due >= u64::try_from(WARM_UP.as_micros())? {
                    taken.saturating_record(now.saturating_sub(tick.due).max(1));
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None if last.elapsed() > Duration::from_secs(30) => return Err(format!("{left} ticks do not come").into()),
            None => {}
        }
    }
    Ok(taken)
}

fn micros_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The pipeline without an engine: decodes, encodes, writes.
pub fn by_hand(ends: Ends<'_>) -> Result<()> {
    let (consumer, producer) = (quick_consumer(ends.brokers, "read_uncommitted")?, quick_producer(ends.brokers)?);
    assign(&consumer, ends.from)?;
    let mut json = Vec::new();
    while !ends.stop.load(SeqCst) {
        match consumer.poll(Duration::from_millis(10)) {
            Some(Ok(message)) => {
                let tick: Tick = serde_json::from_slice(message.payload().unwrap_or_default())?;
                json.clear();
                serde_json::to_writer(&mut json, &tick)?;
                send(&producer, ends.to, None, &json)?;
                if tick.number.is_multiple_of(100) {
                    producer.poll(Duration::ZERO);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                producer.poll(Duration::ZERO);
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(producer.flush(PATIENCE)?)
}
