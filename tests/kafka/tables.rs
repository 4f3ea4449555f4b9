//! The changes of a database as a topic, into a table, and as upserts of a compacted topic.

use std::collections::BTreeMap;

use tests::{
    broker::{Broker, Message, Result},
    rows, run,
};
use windrow::prelude::*;

use crate::running::{accounted, json};

#[derive(Record)]
struct Change {
    id: i64,
    name: Option<String>,
    op: String,
    __source_ts_ms: i64,
}

/// Creates, updates and deletes of ten rows, in the order in which they were made; a tombstone behind each delete.
fn history() -> (Vec<Message>, BTreeMap<i64, Option<String>>) {
    let mut random = fastrand::Rng::with_seed(11);
    let mut table = BTreeMap::<i64, Option<String>>::new();
    let mut messages = Vec::new();
    let row = |id: i64, name: &Option<String>| {
        format!(r#"{{"id":{id},"name":{}}}"#, name.as_ref().map_or("null".into(), |name| format!("\"{name}\"")))
    };
    for step in 0..500 {
        let (id, name) = (random.i64(0..10), (step % 7 > 0).then(|| format!("n{step}")));
        let before = table.get(&id).map_or("null".into(), |name| row(id, name));
        let delete = table.contains_key(&id) && random.u8(0..3) == 0;
        let (op, after) = match (table.contains_key(&id), delete) {
            (_, true) => ("d", "null".into()),
            (true, _) => ("u", row(id, &name)),
            (false, _) if step < 10 => ("r", row(id, &name)),
            (false, _) => ("c", row(id, &name)),
        };
        let value = format!(
            r#"{{"before":{before},"after":{after},"source":{{"ts_ms":{}}},"op":"{op}","ts_ms":{step}}}"#,
            1_700_000_000_000_i64 + step
        );
        let key = format!(r#"{{"id":{id}}}"#);
        messages.push(Message::of(value).key(key.clone()));
        match delete {
            true => {
                table.remove(&id);
                messages.push(Message::null().key(key));
            }
            false => {
                table.insert(id, name);
            }
        }
    }
    (messages, table)
}

fn lines(table: &BTreeMap<i64, Option<String>>) -> Vec<String> {
    table.iter().map(|(id, name)| format!("{id}|{}", name.as_deref().unwrap_or("null"))).collect()
}

#[test]
fn changes_of_debezium_become_the_table_and_upserts_of_a_compacted_topic() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let topic = broker.new_topic("changes", 2)?;
    let (messages, expected) = history();
    let records = messages.len() as u64;
    broker.produce(&topic, messages)?;
    let lines = lines(&expected);
    for parallelism in [1, 2] {
        let upserts = format!("upserts-{:08x}", fastrand::u32(..));
        broker.create_topic(&upserts, 2, &[("cleanup.policy", "compact")])?;
        let table = MemoryTable::new();
        let job = Job::new("changes").parallelism(parallelism);
        let newest = job
            .source(kafka.topic(&topic).bounded().batch_rows(20).debezium::<Change>())
            .event_time(EventTime::column("__source_ts_ms").millis(), Watermarks::in_order())
            .fail_on_rejects()
            .key_by("id")
            .latest_unless(col("op").eq(lit("delete")))
            .drop_late()
            .select(["id", "name"].map(col));
        newest.clone().sink(table.clone());
        newest.sink(kafka.to_topic(&upserts).key("id").json());
        let report = run(job)?;
        // A tombstone is no row: it is read, and answered for, and nothing leaves for it.
        accounted(&report, records, 0);
        let source = report.metrics.named("source").next().expect("a source");
        assert_eq!((source.rows_out, source.processed), (500, records));
        assert!(records > 500);
        assert_eq!(rows(&table.batches()), lines, "{parallelism} tasks");

        // The last record of each key is its row, or a tombstone.
        let mut last = BTreeMap::new();
        let mut tombstones = 0;
        for record in broker.committed(&upserts)? {
            let key: i64 = String::from_utf8(record.key.clone().expect("a key"))?.parse()?;
            tombstones += usize::from(record.value.is_none());
            last.insert(key, record);
        }
        last.retain(|_, record| record.value.is_some());
        let found: Vec<String> = last
            .values()
            .map(json)
            .map(|row| format!("{}|{}", row["id"], row["name"].as_str().unwrap_or("null")))
            .collect();
        assert_eq!(found, lines, "{parallelism} tasks");
        assert!(tombstones > 0);
    }
    Ok(())
}

#[derive(Record)]
struct Envelope {
    id: i64,
    name: Option<String>,
    op: String,
    __offset: i64,
}

#[test]
fn changes_that_are_written_as_envelopes_are_the_same_table_again() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let (topic, envelopes) = (broker.new_topic("changes", 2)?, broker.new_topic("envelopes", 2)?);
    let (messages, expected) = history();
    broker.produce(&topic, messages)?;
    let job = Job::new("out");
    job.source(kafka.topic(&topic).bounded().batch_rows(20).debezium::<Change>())
        .event_time(EventTime::column("__source_ts_ms").millis(), Watermarks::in_order())
        .fail_on_rejects()
        .key_by("id")
        .latest_unless(col("op").eq(lit("delete")))
        .drop_late()
        .select(["id", "name"].map(col))
        .sink(kafka.to_topic(&envelopes).key("id").debezium());
    run(job)?;
    let again = MemoryTable::new();
    let job = Job::new("again");
    job.source(kafka.topic(&envelopes).bounded().offset_column("__offset").debezium::<Envelope>())
        .event_time(EventTime::column("__offset").millis(), Watermarks::in_order())
        .fail_on_rejects()
        .key_by("id")
        .latest_unless(col("op").eq(lit("delete")))
        .drop_late()
        .select(["id", "name"].map(col))
        .sink(again.clone());
    run(job)?;
    assert_eq!(rows(&again.batches()), lines(&expected));
    Ok(())
}

#[test]
fn upserts_without_their_key_are_a_mistake_and_the_message_says_which() -> Result<()> {
    let job = Job::new("keyless");
    let table = job.source(MemorySource::records(vec![Envelope { id: 1, name: None, op: "c".into(), __offset: 1 }]));
    let table = table.event_time(EventTime::column("__offset").millis(), Watermarks::in_order()).fail_on_rejects();
    table.key_by("id").latest().sink(Kafka::brokers("127.0.0.1:1").to_topic("t").json());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains(".key([\"id\"])") && error.contains(".changelog()"), "{error}");
    Ok(())
}
