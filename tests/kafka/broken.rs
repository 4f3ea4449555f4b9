//! A broker that is killed, and one that hangs, while a job reads and writes: at least once is kept, and the lag is shown.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tests::broker::{Broker, Options, Result, verify::Record as Found};
use windrow::prelude::*;

use crate::{
    running::{accounted, has_read, json, source, store, until, while_running},
    starts::{Number, numbers},
};

fn distinct(records: &[Found]) -> BTreeSet<i64> {
    records.iter().filter_map(|record| json(record)["n"].as_i64()).collect()
}

/// So many of the numbers from 0 on have been written at least once.
fn all_written(broker: &Broker, topic: &str, count: i64) -> bool {
    broker.committed(topic).is_ok_and(|records| distinct(&records) == (0..count).collect())
}

#[test]
fn nothing_is_lost_when_the_broker_is_killed_or_hangs() -> Result<()> {
    let Some(broker) = Broker::own(Options::default()).map(Arc::new) else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let (input, output) = (broker.new_topic("in", 2)?, broker.new_topic("out", 2)?);
    let place = tempfile::tempdir()?;
    let job = Job::new("survivor").parallelism(2).checkpoint(store(place.path()), millis(100));
    let job = job.restarts(Restarts::at_most(100).waiting(millis(50)..=millis(200)));
    let (slow, crash) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (is_slow, crashes) = (slow.clone(), crash.clone());
    job.source(kafka.topic(&input).batch_rows(10).json::<Number>())
        .filter(move |_| {
            if is_slow.load(Relaxed) {
                std::thread::sleep(millis(3));
            }
            !crashes.swap(false, Relaxed) || panic!("a crash while the broker is away")
        })
        .sink(kafka.to_topic(&output).key("n").json());
    while_running(job, async |job| {
        broker.produce(&input, numbers(0..1000, 0).chain(numbers(1000..2000, 1))).unwrap();
        has_read(job, 100).await;
        broker.kill().unwrap();
        // librdkafka has taken more than was read by then.
        crash.store(true, Relaxed);
        until("it crashes", || !crash.load(Relaxed)).await;
        // Meanwhile the job tries to start again.
        let again = broker.clone();
        tokio::task::spawn_blocking(move || again.restart()).await.unwrap().unwrap();
        slow.store(false, Relaxed);
        broker.produce(&input, numbers(2000..3000, 0)).unwrap();
        until("all is written after the kill", || all_written(&broker, &output, 3000)).await;

        broker.pause().unwrap();
        // So long it answers nobody.
        tokio::time::sleep(secs(1)).await;
        broker.resume().unwrap();
        broker.produce(&input, numbers(3000..4000, 1)).unwrap();
        until("all is written after the pause", || all_written(&broker, &output, 4000)).await;
        until("the lag is 0", || source(job).lag == Some(0)).await;
    })?;
    Ok(())
}

#[test]
fn the_lag_of_a_slow_job_is_shown_and_falls_to_nothing() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let topic = broker.new_topic("lag", 2)?;
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let job = Job::new("slow");
    job.source(kafka.topic(&topic).batch_rows(10).json::<Number>())
        .filter(move |_| {
            if is_slow.load(Relaxed) {
                std::thread::sleep(millis(2));
            }
            true
        })
        .discard();
    let report = while_running(job, async |job| {
        broker.produce(&topic, numbers(0..1000, 0).chain(numbers(1000..5000, 1))).unwrap();
        until("there is a lag", || source(job).lag.is_some_and(|lag| lag > 1000)).await;
        let found = source(job);
        assert!(found.lag.is_some_and(|lag| lag < 5000), "{found:?}");
        let furthest = found.furthest_behind.as_ref().map(|(split, _)| split.clone());
        assert_eq!(furthest, Some(format!("{topic}/1")), "{found:?}");
        let shown = job.metrics().to_string();
        assert!(shown.contains("records behind"), "{shown}");
        slow.store(false, Relaxed);
        has_read(job, 5000).await;
        until("the lag is 0", || source(job).lag == Some(0)).await;
    })?;
    accounted(&report, 5000, 0);
    Ok(())
}
