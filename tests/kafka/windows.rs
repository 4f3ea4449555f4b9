//! The job that everybody writes first: a topic, event time, windows by key, a topic. The answer is that of a batch.

use std::{collections::BTreeMap, time::Duration};

use tests::{
    broker::{Broker, Message, Result},
    run,
};
use windrow::{JobHandle, prelude::*};

use crate::running::{accounted, json, store, until, while_running};

/// An order, as producers write it.
#[derive(Record)]
pub(crate) struct Order {
    pub(crate) user: String,
    pub(crate) amount: i64,
    pub(crate) at: Timestamp,
}

/// An order: whose, how much, when in milliseconds.
pub(crate) type Row = (String, i64, i64);

/// The begin of the first window.
pub(crate) const BEGIN: i64 = 1_700_000_000_000;

pub(crate) fn moment(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis * 1_000)
}

pub(crate) fn order((user, amount, millis): &Row) -> Message {
    let value = format!(r#"{{"user":"{user}","amount":{amount},"at":"{}"}}"#, moment(*millis));
    Message::of(value).key(user.clone()).time(*millis)
}

/// Orders of eleven users, ten in a second, each up to three seconds late.
pub(crate) fn orders(count: i64) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(7);
    let row = |n: i64| (format!("u{}", random.u8(0..11)), random.i64(1..1000), BEGIN + n * 100 - random.i64(0..3000));
    (0..count).map(row).collect()
}

/// Count and total by window of ten seconds and user, as lines, computed in one go.
pub(crate) fn batch_answer<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    let mut windows = BTreeMap::<(i64, &str), (u64, i64)>::new();
    for (user, amount, millis) in rows {
        let (count, total) = windows.entry((millis.div_euclid(10_000) * 10_000, user)).or_default();
        *count += 1;
        *total += amount;
    }
    let line = |((start, user), (count, total)): (&(i64, &str), &(u64, i64))| {
        format!("{} {user} {count} {total}", moment(*start))
    };
    let mut lines: Vec<String> = windows.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// The same lines, from a topic.
pub(crate) fn answer_in(broker: &Broker, topic: &str) -> Result<Vec<String>> {
    let line = |record| {
        let row = json(record);
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let start: Timestamp = text("window_start").parse().expect("a time");
        format!("{start} {} {} {}", text("user"), row["count"], row["total"])
    };
    let mut lines: Vec<String> = broker.committed(topic)?.iter().map(line).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// Count and total by window of ten seconds and user, into a topic.
pub(crate) fn count_orders(orders: Stream<Order>, kafka: &Kafka, output: &str) {
    orders
        .key_by("user")
        .window(Tumbling::of(secs(10)))
        .aggregate([count(), sum(col("amount")).alias("total")])
        .drop_late()
        .sink(kafka.to_topic(output).key("user").timestamp_column("window_start").json());
}

#[test]
fn windows_over_a_topic_are_those_of_a_batch_at_every_parallelism() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let input = broker.new_topic("orders", 3)?;
    let rows = orders(5_000);
    broker.produce(&input, rows.iter().map(order))?;
    for parallelism in [1, 2] {
        let output = broker.new_topic("totals", 3)?;
        let job = Job::new("totals").parallelism(parallelism);
        let orders = job
            .source(kafka.topic(&input).bounded().json::<Order>())
            .event_time("at", Watermarks::out_of_order(Duration::from_secs(3)))
            .fail_on_rejects();
        count_orders(orders, &kafka, &output);
        let report = run(job)?;
        accounted(&report, 5_000, 0);
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        assert_eq!(late, 0, "{}", report.metrics);
        let expected = batch_answer(&rows);
        assert_eq!(answer_in(broker, &output)?, expected);
        let written: Vec<_> = report.metrics.named("sink").map(|sink| sink.rows_out).collect();
        assert_eq!(written, [expected.len() as u64]);

        let mut homes = BTreeMap::new();
        for record in broker.committed(&output)? {
            let row = json(&record);
            assert_eq!(record.key.as_deref(), row["user"].as_str().map(str::as_bytes));
            let start: Timestamp = row["window_start"].as_str().unwrap_or_default().parse()?;
            assert_eq!(moment(record.time), start, "the time of a record is the column that was named");
            let home = *homes.entry(record.key.clone()).or_insert(record.partition);
            assert_eq!(home, record.partition, "all records of a key are in one partition");
        }
    }
    Ok(())
}

#[test]
fn a_partition_that_was_idle_when_the_job_stopped_catches_up_without_late_rows() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let rows = orders(20_000);
    for parallelism in [1, 2] {
        let input = broker.new_topic("quiet", 2)?;
        let place = tempfile::tempdir()?;
        let counting = || {
            let job = Job::new("quiet").parallelism(parallelism).checkpoint(store(place.path()), millis(100));
            job.source(kafka.topic(&input).json::<Order>())
                .event_time("at", Watermarks::out_of_order(secs(3)).idle_after(millis(500)))
                .fail_on_rejects()
                .key_by("user")
                .window(Tumbling::of(secs(10)))
                .aggregate([count()])
                .drop_late()
                .discard();
            job
        };
        let window = |job: &JobHandle| job.metrics().named("window").next().cloned().expect("a window");
        let reached = |job: &JobHandle, row: usize| window(job).watermark >= Some(moment(rows[row].2 - 6_000));
        broker.produce(&input, rows[..500].iter().map(|row| order(row).partition(0)))?;
        while_running(counting(), async |job| until("partition 1 is idle", || reached(job, 499)).await)?;
        let missed = rows[500..].iter().enumerate();
        broker.produce(&input, missed.map(|(n, row)| order(row).partition((n % 2) as i32)))?;
        let report = while_running(counting(), async |job| {
            until("both have caught up", || window(job).rows_in == 19_500 && reached(job, 19_999)).await;
        })?;
        assert_eq!(report.metrics.named("window").map(|window| window.late).sum::<u64>(), 0, "{}", report.metrics);
    }
    Ok(())
}
