//! A topic that gains partitions while a job reads it.

use tests::broker::{Broker, Message, Result};
use windrow::prelude::*;

use crate::{
    running::{accounted, has_read, source, store, until, while_running},
    starts::{Number, numbers, seen},
    windows::{BEGIN, Order, Row, answer_in, batch_answer, count_orders, moment, order},
};

fn at_seconds(seconds: std::ops::Range<i64>) -> Vec<Row> {
    seconds.map(|second| (format!("u{}", second % 3), second, BEGIN + second * 1_000)).collect()
}

fn to(partition: i32, rows: &[Row]) -> Vec<Message> {
    rows.iter().map(|row| order(row).partition(partition)).collect()
}

#[test]
fn new_partitions_are_read_and_hold_the_watermark_until_they_speak() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let (input, output) = (broker.new_topic("growing", 1)?, broker.new_topic("grown", 1)?);
    let job = Job::new("growing").parallelism(2);
    let orders = job
        .source(kafka.topic(&input).discover_every(millis(100)).json::<Order>())
        .event_time("at", Watermarks::in_order())
        .fail_on_rejects();
    count_orders(orders, &kafka, &output);
    let (first, second, end) = (at_seconds(0..100), at_seconds(100..150), at_seconds(1000..1001));
    let all: Vec<&Row> = first.iter().chain(&second).chain(&second).chain(&second).collect();
    let expected = batch_answer(all);
    let report = while_running(job, async |job| {
        broker.produce(&input, to(0, &first)).unwrap();
        has_read(job, 100).await;
        broker.create_partitions(&input, 3).unwrap();
        broker.produce(&input, to(1, &second)).unwrap();
        has_read(job, 150).await;
        broker.produce(&input, to(0, &second)).unwrap();
        has_read(job, 200).await;
        let reached = source(job).watermark.expect("it has begun");
        assert!(reached <= moment(BEGIN + 100_000), "nobody knows what partition 2 will say: {reached}");
        broker.produce(&input, to(2, &second)).unwrap();
        (0..3).for_each(|partition| broker.produce(&input, to(partition, &end)).unwrap());
        let written = || job.metrics().named("sink").map(|sink| sink.rows_out).sum::<u64>();
        until("all windows are written", || written() >= expected.len() as u64).await;
    })?;
    accounted(&report, 253, 0);
    assert!(report.stopped);
    let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
    assert_eq!(late, 0, "{}", report.metrics);
    assert_eq!(answer_in(broker, &output)?, expected);
    Ok(())
}

#[test]
fn partitions_for_which_nobody_looks_are_read_from_their_first_record_at_the_next_start() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, place, out) = (broker.new_topic("unwatched", 1)?, tempfile::tempdir()?, MemorySink::new());
    let job = || {
        let job = Job::new("unwatched").parallelism(2).checkpoint(store(place.path()), hours(1));
        let input = Kafka::brokers(broker.address()).topic(&topic).from(Start::Latest).discover_every(None);
        job.source(input.json::<Number>()).sink(out.clone());
        job
    };
    broker.produce(&topic, numbers(0..10, 0))?;
    while_running(job(), async |job| {
        until("it has begun", || job.metrics().checkpoints.completed > 0).await;
        broker.produce(&topic, numbers(10..20, 0)).unwrap();
        has_read(job, 10).await;
        broker.create_partitions(&topic, 3).unwrap();
        broker.produce(&topic, numbers(100..150, 1).chain(numbers(200..230, 2))).unwrap();
    })?;
    while_running(job(), async |job| {
        broker.produce(&topic, numbers(150..160, 1)).unwrap();
        has_read(job, 90).await;
    })?;
    assert_eq!(seen(&out), (10..20).chain(100..160).chain(200..230).collect::<Vec<_>>());
    Ok(())
}
