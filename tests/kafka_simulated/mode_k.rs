//! Rows 3 and 4 of the fault matrix with the exactly-once sink of topics, as the connector has it.
//!
//! `SEED=17 STORY=1 cargo test -p tests --test kafka_simulated one_seed_of_topics -- --ignored --nocapture` runs one and tells all that
//! happened on the cluster.

use std::sync::Arc;

use windrow::{
    connectors::kafka::{Kafka, KafkaSink},
    prelude::*,
};

use super::{
    day::day,
    exactly_once::{all, seed},
    simulated::Simulated,
    targets::{AtLeastOnce, Target},
};

/// Topics, written to exactly once.
#[derive(Clone, Copy)]
pub struct ExactlyOnce;

impl Target for ExactlyOnce {
    type Connection = Kafka;
    type Sink = KafkaSink;

    fn connect(&self, process: &Simulated) -> Kafka {
        Kafka::brokers("simulated").written_to(Arc::new(process.clone()))
    }

    fn sink(connection: &Kafka, topic: &'static str) -> KafkaSink {
        connection.to_topic(topic).json().exactly_once()
    }

    fn rows(&self, cluster: &Simulated, topic: &str) -> Vec<String> {
        AtLeastOnce.rows(cluster, topic)
    }

    fn take(&self, cluster: &Simulated, topic: &str) -> Vec<String> {
        AtLeastOnce.take(cluster, topic)
    }
}

#[test]
fn a_topic_has_every_row_once_whatever_is_done_to_the_job_and_the_cluster() {
    let lived = all(0..200, || ExactlyOnce);
    println!("200 seeds: {lived:?}");
    assert!(lived.crashes > 100 && lived.zombies > 30 && lived.faults > 2_000, "{lived:?}");
}

#[test]
#[ignore = "the full count"]
fn a_topic_has_every_row_once_whatever_is_done_to_the_job_and_the_cluster_in_full() {
    println!("10,000 seeds: {:?}", all(0..10_000, || ExactlyOnce));
}

#[test]
#[ignore = "the seed in SEED"]
fn one_seed_of_topics() {
    println!("{:?}", all(seed()..seed() + 1, || ExactlyOnce));
}

#[test]
fn ten_minutes_of_topics_are_right_and_have_their_checkpoints() {
    let day = day(1, mins(10), &ExactlyOnce).unwrap();
    day.is_steady();
    assert!((50..=75).contains(&day.checkpoints), "{}", day.checkpoints);
}

#[test]
#[ignore = "the full count: a day, twenty times"]
fn a_day_of_topics_is_right_and_memory_does_not_grow() {
    for seed in 0..20 {
        day(seed, hours(24), &ExactlyOnce).unwrap().check(seed);
    }
}
