//! Where reading begins, and that "from now on" is the same record after a crash.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tests::{
    broker::{
        Broker, Message, Options, Result,
        proxy::{Api, Fault, Rule},
    },
    on_two_threads, run, wait_for,
};
use windrow::{
    connectors::{Position, Source, SplitId},
    prelude::*,
};

use crate::running::{has_read, store, until, while_running};

#[derive(Record)]
pub(crate) struct Number {
    pub(crate) n: i64,
}

/// The time of number 0 in milliseconds.
const TIME: i64 = 1_700_000_000_000;

/// Numbers as records of one partition, each a second later than the one before.
pub(crate) fn numbers(range: std::ops::Range<i64>, partition: i32) -> impl Iterator<Item = Message> {
    range.map(move |n| Message::of(format!(r#"{{"n":{n}}}"#)).partition(partition).time(TIME + n * 1_000))
}

/// The numbers that were committed, sorted.
pub(crate) fn seen(out: &MemorySink) -> Vec<i64> {
    let mut all: Vec<i64> = out.records::<Number>().expect("numbers").iter().map(|number| number.n).collect();
    all.sort_unstable();
    all
}

/// Numbers 0..20 in partition 0, 100..120 in partition 1.
fn two_partitions(broker: &Broker) -> Result<String> {
    let topic = broker.new_topic("starts", 2)?;
    broker.produce(&topic, numbers(0..20, 0).chain(numbers(100..120, 1)))?;
    Ok(topic)
}

/// What there is now from the start on.
fn from(broker: &Broker, topic: &str, start: Start) -> windrow::Result<Vec<i64>> {
    let out = MemorySink::new();
    let job = Job::new("starts");
    let input = Kafka::brokers(broker.address()).topic(topic).group(format!("{topic}-group"));
    job.source(input.from(start).bounded().json::<Number>()).sink(out.clone());
    run(job)?;
    Ok(seen(&out))
}

fn group(broker: &Broker, topic: &str) -> Result<BaseConsumer> {
    Ok(broker.config().set("group.id", format!("{topic}-group")).create()?)
}

fn commit(broker: &Broker, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(group(broker, topic)?.commit(&list, CommitMode::Sync)?)
}

#[test]
fn reading_begins_where_it_is_told_to() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = two_partitions(broker)?;
    let range = |first: i64, second: i64| (first..20).chain(second..120).collect::<Vec<_>>();
    assert_eq!(from(broker, &topic, Start::Earliest)?, range(0, 100));
    assert_eq!(from(broker, &topic, Start::Latest)?, range(20, 120));
    assert_eq!(from(broker, &topic, Start::Millis(TIME + 15_000))?, range(15, 100));
    assert_eq!(from(broker, &topic, Start::Millis(TIME + 14_999))?, range(15, 100));
    assert_eq!(from(broker, &topic, Start::Millis(TIME + 110_001))?, range(20, 111));
    let offsets = |second: u64| Start::Offsets([((topic.clone(), 0), 7), ((topic.clone(), 1), second)].into());
    assert_eq!(from(broker, &topic, offsets(20))?, range(7, 120));

    let error = from(broker, &topic, Start::Offsets([((topic.clone(), 0), 7)].into())).unwrap_err().to_string();
    assert!(error.contains(&format!("has no offset for {topic}/1")), "{error}");
    let error = from(broker, &topic, offsets(21)).unwrap_err().to_string();
    assert!(error.contains(&format!("the next offset to read is 21, and {topic}/1 ends at 20")), "{error}");

    let error = from(broker, &topic, Start::Group).unwrap_err().to_string();
    assert!(error.contains(&format!("the group {topic}-group has committed nothing for {topic}/0")), "{error}");
    commit(broker, &topic, &[(0, 3), (1, 19)])?;
    assert_eq!(from(broker, &topic, Start::Group)?, range(3, 119));
    Ok(())
}

#[test]
fn from_now_on_is_the_same_record_after_a_crash() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = two_partitions(broker)?;
    let place = tempfile::tempdir()?;
    let (out, crash) = (MemorySink::new(), Arc::new(AtomicBool::new(true)));
    let job = Job::new("from-now").parallelism(2).checkpoint(store(place.path()), hours(1));
    let job = job.restarts(Restarts::at_most(3).waiting(millis(10)..=millis(10)));
    let crashed = crash.clone();
    job.source(Kafka::brokers(broker.address()).topic(&topic).from(Start::Latest).json::<Number>())
        .filter(move |number| number.n != 25 || !crash.swap(false, Relaxed) || panic!("a crash"))
        .sink(out.clone());
    let report = while_running(job, async |job| {
        until("it has begun", || job.metrics().checkpoints.completed > 0).await;
        broker.produce(&topic, numbers(120..125, 1).chain(numbers(20..30, 0))).unwrap();
        until("it crashes", || !crashed.load(Relaxed)).await;
        // Before the crash fewer have passed the filter.
        let written = || job.metrics().named("sink").map(|sink| sink.rows_in).sum::<u64>();
        until("all are written", || written() == 15).await;
    })?;
    assert!(report.stopped);
    assert_eq!(seen(&out), (20..30).chain(120..125).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn positions_are_committed_to_the_group_for_who_watches_it() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = two_partitions(broker)?;
    let source = Kafka::brokers(broker.address()).topic(&topic).group(format!("{topic}-group")).json::<Number>();
    let split = |partition: i32, next: u64| (SplitId::new(format!("{topic}/{partition}")), Position(next));
    on_two_threads(source.checkpointed(&[split(0, 11), split(1, 20)]));
    assert_eq!(source.not_committed(), 0);
    assert_eq!(committed(broker, &topic)?, [11, 20]);
    Ok(())
}

/// The last positions of a job whose input then stands still: no checkpoint follows that would put it right.
#[test]
fn positions_that_come_while_a_commit_takes_long_or_fails_are_committed_after_it() -> Result<()> {
    for (fault, times) in [(Fault::DelayReply(secs(4)), 1), (Fault::DropRequest, 10)] {
        let Some(broker) = Broker::own(Options::default().proxied()) else { return Ok(()) };
        let topic = two_partitions(&broker)?;
        let proxy = broker.proxy()?;
        let source = Kafka::brokers(proxy.address()).topic(&topic).group(format!("{topic}-group")).json::<Number>();
        let split = |partition: i32, next: u64| (SplitId::new(format!("{topic}/{partition}")), Position(next));
        proxy.inject(1, [Rule::of(Api::OffsetCommit, fault).times(times)])?;
        on_two_threads(source.checkpointed(&[split(0, 11), split(1, 0)]));
        on_two_threads(source.checkpointed(&[split(0, 15), split(1, 20)]));
        let until = Instant::now() + secs(60);
        while committed(&broker, &topic)? != [15, 20] {
            assert!(Instant::now() < until, "{:?} after {fault:?}", committed(&broker, &topic)?);
            std::thread::sleep(millis(100));
        }
        assert!(proxy.faults(Api::OffsetCommit) > 0);
    }
    Ok(())
}

/// What the group has committed of both partitions; -1001 is nothing.
fn committed(broker: &Broker, topic: &str) -> Result<Vec<i64>> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, 1);
    let found = group(broker, topic)?.committed_offsets(list, secs(10))?;
    let offset = |offset: Offset| offset.to_raw().unwrap_or(-1001);
    Ok(found.elements().iter().map(|element| offset(element.offset())).collect())
}

#[test]
fn a_job_commits_to_the_group_what_final_checkpoints_hold_and_no_more() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = two_partitions(broker)?;
    let place = tempfile::tempdir()?;
    let job = Job::new("watched").checkpoint(store(place.path()), hours(1));
    let input = Kafka::brokers(broker.address()).topic(&topic).group(format!("{topic}-group"));
    job.source(input.json::<Number>()).sink(MemorySink::new());
    while_running(job, async |job| {
        has_read(job, 40).await;
        let before = committed(broker, &topic).unwrap();
        assert!(before.iter().all(|offset| *offset <= 0), "no checkpoint holds these records yet: {before:?}");
        job.savepoint("now").await.unwrap();
        until("they are committed", || committed(broker, &topic).unwrap() == [20, 20]).await;
        broker.produce(&topic, numbers(20..25, 0)).unwrap();
        has_read(job, 45).await;
        assert_eq!(committed(broker, &topic).unwrap(), [20, 20]);
    })?;
    Ok(())
}

#[test]
fn records_that_retention_took_before_they_were_read_are_counted() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, place) = (broker.new_topic("retention", 1)?, tempfile::tempdir()?);
    let kafka = Kafka::brokers(broker.address());
    let out = MemorySink::new();
    let job = || {
        let job = Job::new("slow").checkpoint(store(place.path()), hours(1));
        let job = job.restarts(Restarts::at_most(3).waiting(millis(10)..=millis(10)));
        job.source(kafka.topic(&topic).json::<Number>()).sink(out.clone());
        job
    };
    broker.produce(&topic, numbers(0..50, 0))?;
    while_running(job(), async |job| has_read(job, 50).await)?;
    broker.produce(&topic, numbers(50..100, 0))?;
    // What was read may go.
    broker.delete_records(&topic, 0, 50)?;
    while_running(job(), async |job| has_read(job, 50).await)?;
    assert_eq!(seen(&out), (0..100).collect::<Vec<_>>());
    broker.produce(&topic, numbers(100..150, 0))?;
    broker.delete_records(&topic, 0, 137)?;
    let error = run(job()).unwrap_err().to_string();
    let expected = format!(
        "#1 source kafka {}, topic {topic}: {topic}/0, offset 100: 37 records of {topic}/0 were removed before they were \
         read, by retention or by hand: the offsets 100 to 136. The first that is left is 137.",
        broker.address()
    );
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(seen(&out).len(), 100);
    Ok(())
}

#[test]
fn records_that_go_while_the_job_reads_slowly_are_counted_too() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("retention", 1)?;
    // librdkafka does not take much ahead.
    let kafka = Kafka::brokers(broker.address()).set("queued.min.messages", "1").set("fetch.message.max.bytes", "1");
    let go = Arc::new(AtomicBool::new(false));
    let job = Job::new("slow");
    let gate = go.clone();
    job.source(kafka.topic(&topic).batch_rows(1).json::<Number>())
        .filter(move |_| {
            wait_for(&gate);
            true
        })
        .sink(MemorySink::new());
    let error = while_running(job, async |job| {
        broker.produce(&topic, numbers(0..1, 0)).unwrap();
        has_read(job, 1).await;
        // Some twenty to a batch of the producer, and a batch is the least that is fetched.
        let padding = "x".repeat(50_000);
        let large = |n: i64| Message::of(format!(r#"{{"n":{n},"padding":"{padding}"}}"#)).partition(0);
        broker.produce(&topic, (1..201).map(large)).unwrap();
        broker.delete_records(&topic, 0, 201).unwrap();
        go.store(true, Relaxed);
        std::future::pending::<()>().await;
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&format!("records of {topic}/0 were removed before they were read")), "{error}");
    assert!(error.contains("to 200. The first that is left is 201."), "{error}");
    Ok(())
}
