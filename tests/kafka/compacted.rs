//! A topic that was compacted, with transactions that were aborted: most offsets are no records. What is left is read once, from
//! wherever a job was, and its positions are behind what is no record.
//!
//! ```text
//!   partition 0   ┄┄┄┄┄┄┄┄ a ┄┄┄┄┄┄┄┄|┄┄┄┄┄┄┄┄ b ┄┄┄ k2 … k9 ∅0 ∅1 z ✗✗✗✗✗✗
//!                 the begin is gone  └ a checkpoint's position      the end is aborted
//! ```

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tests::{
    broker::{Broker, Message, Options, Result, verify::Record as Found},
    rows, run,
};
use windrow::{connectors::kafka::KafkaInput, prelude::*};

use crate::{
    bounded::crash,
    running::{accounted, has_read, json, source, store, until, while_running},
    starts::seen,
};

/// In the year 3000: later than the markers of transactions, which are of today. A segment ends when a record is a second later than
/// the first one in it, by what the records say; and only what is not in the last segment is compacted.
const TIME: i64 = 32_503_680_000_000;

/// A record of a number, or a tombstone.
fn message(partition: i32, segment: i64, key: impl Into<Vec<u8>>, n: Option<i64>) -> Message {
    let value = n.map(|n| format!(r#"{{"n":{n}}}"#));
    let message = value.map_or_else(Message::null, Message::of);
    message.key(key).partition(partition).time(TIME + segment * 10_000)
}

/// Records of ten keys in turn, but for one with a key of its own.
fn turns(segment: i64, range: std::ops::Range<i64>, own: i64) -> impl Iterator<Item = Message> {
    range.map(move |n| {
        let key = if n == own { format!("own-{own}") } else { format!("k{}", n % 10) };
        message(0, segment, key, Some(n))
    })
}

fn transaction(broker: &Broker, topic: &str, segment: i64, first: i64, commit: bool) -> Result<()> {
    let records = (0..10).map(|n| message(1, segment, format!("t{n}"), Some(first + n)));
    broker.transaction(topic, records, commit)
}

/// What the first job reads: the offsets 0 to 30 of partition 0, and 27 offsets of partition 1 of which 15 are records.
fn first_part(broker: &Broker, topic: &str) -> Result<()> {
    broker.produce(topic, turns(0, 0..31, 15))?;
    transaction(broker, topic, 0, 1_000, true)?;
    transaction(broker, topic, 0, 1_100, false)?;
    broker.produce(topic, (0..5).map(|n| message(1, 0, format!("q{n}"), Some(1_200 + n))))
}

/// More, by which all but one of those in partition 0 become old, and with which both partitions end in what was aborted. Waits until
/// what is old is gone.
fn second_part(broker: &Broker, topic: &str) -> Result<()> {
    broker.produce(topic, turns(1, 31..61, 45).chain(["k0", "k1"].map(|key| message(0, 1, key, None))))?;
    transaction(broker, topic, 1, 1_300, true)?;
    transaction(broker, topic, 1, 1_400, false)?;
    broker.produce(topic, [message(0, 2, "last", Some(61)), message(1, 2, "last", Some(1_500))])?;
    let aborted = (0..2).flat_map(|partition| (0..5).map(move |n| message(partition, 2, "none", Some(2_000 + n))));
    broker.transaction(topic, aborted, false)?;
    let left = last_of_each_key(&broker.committed(topic)?);
    let until = std::time::Instant::now() + secs(60);
    while broker.committed(topic)? != left {
        assert!(std::time::Instant::now() < until, "it is not compacted: {}", broker.log_tail());
        std::thread::sleep(millis(50));
    }
    Ok(())
}

/// Of each key of a partition the last record, by partition and offset.
fn last_of_each_key(records: &[Found]) -> Vec<Found> {
    let last: BTreeMap<_, _> = records.iter().map(|record| ((record.partition, record.key.clone()), record)).collect();
    let mut last: Vec<Found> = last.into_values().cloned().collect();
    last.sort_unstable();
    last
}

/// Records as lines, sorted.
fn lines<'a>(records: impl IntoIterator<Item = &'a Found>) -> Vec<String> {
    let hex = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        None => "null".into(),
    };
    let line =
        |record: &Found| format!("{}|{}|{}|{}", record.partition, record.offset, hex(&record.key), hex(&record.value));
    let mut lines: Vec<String> = records.into_iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// A job that reads everything that a record is.
fn whole(job: Job, input: KafkaInput, to: &MemorySink) -> Job {
    let input = input.key_column("key").partition_column("partition").offset_column("offset");
    job.source(input.raw()).select(["partition", "offset", "key", "value"].map(col)).sink(to.clone());
    job
}

async fn no_lag(job: &windrow::JobHandle) {
    until("the lag is 0", || source(job).lag == Some(0)).await;
}

#[test]
fn what_compaction_and_aborted_transactions_leave_is_read_once_from_any_position() -> Result<()> {
    let Some(broker) = Broker::own(Options::default().set("log.cleaner.backoff.ms", 50)) else { return Ok(()) };
    let broker = Arc::new(broker);
    let topic = "compacted";
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "1000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("message.timestamp.after.max.ms", "9223372036854775807"),
    ];
    broker.create_topic(topic, 2, &settings)?;
    first_part(&broker, topic)?;
    let kafka = Kafka::brokers(broker.address());
    let (place, out) = (tempfile::tempdir()?, MemorySink::new());
    let endless = || {
        let job = Job::new("endless").parallelism(2).checkpoint(store(place.path()), hours(1));
        whole(job, kafka.topic(topic), &out)
    };
    while_running(endless(), async |job| {
        has_read(job, 46).await;
        no_lag(job).await;
    })?;
    let before = broker.committed(topic)?;
    assert_eq!((before.len(), rows(&out.batches())), (46, lines(&before)));

    let left = bounded_meanwhile(&broker, &kafka, topic, place.path())?;

    // Its position in partition 0 is 31, which is not there any more, nor is the offset before it.
    let more: Vec<&Found> = left.iter().filter(|record| record.offset >= [31, 27][record.partition as usize]).collect();
    let report = while_running(endless(), async |job| {
        has_read(job, more.len() as u64).await;
        no_lag(job).await;
    })?;
    accounted(&report, more.len() as u64, 0);
    let mut expected = [lines(&before), lines(more.iter().copied())].concat();
    expected.sort_unstable();
    assert_eq!(rows(&out.batches()), expected);

    // Now it is behind what was aborted.
    broker.produce(topic, [message(0, 2, "later", Some(62))])?;
    let report = while_running(endless(), async |job| {
        has_read(job, 1).await;
        no_lag(job).await;
    })?;
    accounted(&report, 1, 0);
    assert_eq!(out.rows(), expected.len() + 1);

    let all = broker.committed(topic)?;
    let count = all.len() as u64;
    for parallelism in [1, 2] {
        let out = MemorySink::new();
        let job = Job::new("whole").parallelism(parallelism);
        accounted(&run(whole(job, kafka.topic(topic).bounded().batch_rows(3), &out))?, count, 0);
        assert_eq!(rows(&out.batches()), lines(&all));
        let out = MemorySink::new();
        let job = whole(Job::new("waits").parallelism(parallelism), kafka.topic(topic), &out);
        let report = while_running(job, async |job| {
            has_read(job, count).await;
            no_lag(job).await;
        })?;
        accounted(&report, count, 0);
        assert_eq!(rows(&out.batches()), lines(&all));
    }
    Ok(())
}

/// A bounded job that begins before the compaction, fails, and goes on after it: its ends are at offsets that are gone. Returns what is
/// left of the topic.
fn bounded_meanwhile(broker: &Arc<Broker>, kafka: &Kafka, topic: &'static str, place: &Path) -> Result<Vec<Found>> {
    let out = MemorySink::new();
    let job = Job::new("bounded").checkpoint(store(place), hours(1));
    let (other, to) = (broker.clone(), out.clone());
    crash(kafka.topic(topic), job, 1, |numbers| numbers.sink(to), move || second_part(&other, topic).unwrap())?;
    let left = broker.committed(topic)?;
    let offsets: Vec<i64> = left.iter().filter(|record| record.partition == 0).map(|record| record.offset).collect();
    assert_eq!(
        offsets,
        [15, 45].into_iter().chain(52..60).chain(61..64).collect::<Vec<_>>(),
        "the gaps are where they should be"
    );
    let number = |record: &Found| json(record)["n"].as_i64().expect("a number");
    let below = left.iter().filter(|record| record.offset < [31, 27][record.partition as usize]);
    let mut expected: Vec<i64> = below.map(number).collect();
    expected.sort_unstable();
    assert_eq!(seen(&out), expected);
    Ok(left)
}
