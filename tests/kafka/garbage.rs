//! Records that are none: the job fails, counts them, or puts them into a topic from which they come back.

use std::collections::{BTreeMap, BTreeSet};

use tests::{
    broker::{Broker, Message, Result, verify::Record as Found},
    run,
};
use windrow::prelude::*;

use crate::{
    running::{accounted, json, values},
    windows::{Order, order, orders},
};

const RECORDS: i64 = 2_000;

/// One in a hundred is not what it should be.
fn one_percent(broker: &Broker) -> Result<String> {
    let topic = broker.new_topic("dirty", 3)?;
    let message = |(n, row): (usize, &(String, i64, i64))| match n % 100 {
        42 => Message::of(format!(r#"{{"user":"{}","amount":"{} EUR","at":"2026-01-01T00:00:00Z"}}"#, row.0, row.1))
            .key(row.0.clone()),
        _ => order(row),
    };
    broker.produce(&topic, orders(RECORDS).iter().enumerate().map(message))?;
    Ok(topic)
}

fn is_bad(record: &&Found) -> bool {
    record.text().contains("EUR")
}

#[test]
fn without_a_word_the_first_bad_record_fails_the_job_and_is_shown() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("dirty", 1)?;
    broker.produce(&topic, orders(10).iter().map(order).chain([Message::of("{\"user\": \"u1\", \"am")]))?;
    let kafka = Kafka::brokers(broker.address());
    let job = Job::new("strict");
    job.source(kafka.topic(&topic).bounded().json::<Order>()).sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    let start =
        format!("#1 source kafka {}, topic {topic}: rejected a record of {topic}/0 at position 10: ", broker.address());
    assert!(error.starts_with(&start), "{error}");
    assert!(error.contains("\n  the record: {\"user\": \"u1\", \"am\n"), "{error}");
    assert!(error.contains("call .with_rejects() on the source"), "{error}");
    Ok(())
}

#[test]
fn bad_records_are_counted_when_they_are_dropped() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, output) = (one_percent(broker)?, broker.new_topic("clean", 1)?);
    let kafka = Kafka::brokers(broker.address());
    let job = Job::new("lenient").parallelism(2);
    job.source(kafka.topic(&topic).bounded().json::<Order>()).drop_rejects().sink(kafka.to_topic(&output).json());
    let report = run(job)?;
    accounted(&report, RECORDS as u64, RECORDS as u64 / 100);
    let good = broker.committed(&topic)?.iter().filter(|record| !is_bad(record)).cloned().collect::<Vec<_>>();
    let amounts = |records: &[Found]| {
        let mut amounts: Vec<_> = records.iter().map(|record| json(record)["amount"].as_i64()).collect();
        amounts.sort_unstable();
        amounts
    };
    assert_eq!(amounts(&broker.committed(&output)?), amounts(&good));
    Ok(())
}

#[test]
fn dead_letters_are_what_they_were_say_why_and_come_back() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead) = (one_percent(broker)?, broker.new_topic("dead", 1)?);
    let kafka = Kafka::brokers(broker.address());
    let job = Job::new("letters").parallelism(2);
    let good = MemorySink::new();
    let (orders, rejected) = job.source(kafka.topic(&topic).bounded().json::<Order>()).with_rejects();
    orders.sink(good.clone());
    rejected.sink(kafka.to_topic(&dead).dead_letters());
    accounted(&run(job)?, RECORDS as u64, RECORDS as u64 / 100);
    assert_eq!(good.rows() as i64, RECORDS - RECORDS / 100);

    let input = broker.committed(&topic)?;
    let bad: BTreeMap<_, _> = input.iter().filter(is_bad).map(|bad| ((bad.partition, bad.offset), bad)).collect();
    let letters = broker.committed(&dead)?;
    assert_eq!((letters.len(), bad.len()), (20, 20));
    for letter in &letters {
        let header = |name: &str| letter.header(name).unwrap_or_else(|| panic!("no {name}: {letter:?}"));
        let place = (header("windrow.partition").parse()?, header("windrow.offset").parse()?);
        let original = bad.get(&place).unwrap_or_else(|| panic!("nothing bad at {place:?}"));
        assert_eq!((&letter.key, &letter.value, letter.time), (&original.key, &original.value, original.time));
        assert_eq!(header("windrow.topic"), topic);
        assert_eq!(header("windrow.split"), format!("{topic}/{}", place.0));
        assert_eq!(header("windrow.position"), place.1.to_string());
        assert_eq!(header("windrow.source"), format!("kafka {}, topic {topic}", broker.address()));
        assert_eq!(header("windrow.error"), format!("column \"amount\": {} is not Int64", json(original)["amount"]));
        assert_eq!(letter.headers.len(), 7, "{letter:?}");
    }
    let places: BTreeSet<_> =
        letters.iter().map(|letter| (letter.header("windrow.partition"), letter.header("windrow.offset"))).collect();
    assert_eq!(places.len(), 20, "each of them once");

    re_drive(broker, &kafka, &dead, &letters)
}

/// An order with whatever stood for the amount.
#[derive(Record)]
struct Letter {
    user: String,
    amount: String,
    at: Timestamp,
    key: Option<String>,
}

/// Reads the dead letters with columns that they fit, mends them, and writes them as the orders they should have been.
fn re_drive(broker: &Broker, kafka: &Kafka, dead: &str, letters: &[Found]) -> Result<()> {
    let mended = broker.new_topic("mended", 1)?;
    let job = Job::new("re-drive");
    job.source(kafka.topic(dead).bounded().key_column("key").json::<Letter>())
        .map(|letter| Order {
            user: letter.key.unwrap_or_default().to_string(),
            amount: letter.amount.trim_end_matches(" EUR").parse().unwrap_or_default(),
            at: letter.at,
        })
        .sink(kafka.to_topic(&mended).key("user").json());
    accounted(&run(job)?, 20, 0);
    let mut expected: Vec<String> = letters
        .iter()
        .map(|letter| letter.text().replace(" EUR\"", "").replace("\"amount\":\"", "\"amount\":"))
        .collect();
    expected.sort_unstable();
    assert_eq!(values(&broker.committed(&mended)?), expected);
    Ok(())
}
