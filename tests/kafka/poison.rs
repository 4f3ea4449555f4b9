//! One record in a hundred is poison: nothing, noise, a bomb, nearly a row, or 20 MB of one. Whatever is done with it, every record is accounted for,
//! and a job that fails by one stands at that one, also when it is started again.
//!
//! ```text
//!   good good ☠ good … ──► skip ────────► the good ones; the others are a number
//!                     ├──► dead letters ► the good ones, and each of the others as it was, once
//!                     └──► fail ────────► what is before ☠; again: ☠; then skipped: what is behind it
//! ```

use std::collections::BTreeMap;

use tests::{
    broker::{Broker, Message, Result},
    run,
};
use windrow::prelude::*;

use crate::running::{accounted, has_read, json, store, while_running};

const RECORDS: i64 = 2_000;
/// As many kinds of poison as [`poison`] knows.
const KINDS: u64 = 15;
/// What a source takes unless told: 10 MiB, of payload and key.
const LARGEST: usize = 10 << 20;
const KEY: &str = "poison";

#[derive(Record)]
struct Reading {
    id: i64,
    value: Option<f64>,
    text: Option<String>,
}

fn good(id: i64) -> Message {
    Message::of(format!(r#"{{"id":{id},"value":{id}.5,"text":"t{id}"}}"#)).key("k")
}

/// A payload that is no [`Reading`], or none at all.
fn poison(kind: u64, random: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let nested = |open: &str, close: &str| {
        format!(r#"{{"id":1,"text":{}1{}}}"#, open.repeat(10_000), close.repeat(10_000)).into_bytes()
    };
    let noise = |random: &mut fastrand::Rng, length: usize| {
        let mut noise = vec![0xff; length];
        random.fill(noise.get_mut(1..).unwrap_or_default());
        noise
    };
    Some(match kind % KINDS {
        0 => return None,
        1 => Vec::new(),
        2 => b"{\"id\":4,\"text\":\"\xff\xfe\xc0\"}".to_vec(),
        3 => nested("[", "]"),
        4 => nested(r#"{"a":"#, "}"),
        5 => br#"{"id":5,"value":NaN}"#.to_vec(),
        6 => br#"{"id":6,"value":-Infinity}"#.to_vec(),
        7 => br#"{"id":7,"value":Infinity}"#.to_vec(),
        8 => br#"{"id":8,"value":1e999}"#.to_vec(),
        9 => br#"{"id":"nine","value":{}}"#.to_vec(),
        // It is long, and is nothing but the begin of a row.
        10 => [br#"{"id":10,"text":""#.to_vec(), vec![b'x'; random.usize(1..900_000)]].concat(),
        11 => noise(random, 200),
        12 => {
            let length = random.usize(10_000..LARGEST / 2);
            noise(random, length)
        }
        // As large as a record may be.
        13 => noise(random, LARGEST - KEY.len()),
        // It would be a row, of 20 MB.
        _ => [br#"{"id":14,"text":""#.as_slice(), &vec![b'x'; 20_000_000], br#""}"#].concat(),
    })
}

fn message(payload: Option<Vec<u8>>) -> Message {
    payload.map_or_else(Message::null, Message::of).key(KEY)
}

/// A topic that takes all of it.
fn roomy(broker: &Broker, name: &str, partitions: usize) -> Result<String> {
    let topic = format!("{name}-{:08x}", fastrand::u32(..));
    broker.create_topic(&topic, partitions, &[("max.message.bytes", "30000000")])?;
    Ok(topic)
}

/// A topic with one percent of poison; the ids of what is good, and where the rest is.
#[allow(clippy::type_complexity, reason = "once")]
fn one_percent(broker: &Broker) -> Result<(String, Vec<i64>, BTreeMap<(i32, i64), Option<Vec<u8>>>)> {
    let topic = roomy(broker, "poisoned", 3)?;
    let mut random = fastrand::Rng::with_seed(21);
    let (mut ids, mut bad, mut ends) = (Vec::new(), BTreeMap::new(), [0_i64; 3]);
    let mut messages = Vec::new();
    for id in 0..RECORDS {
        let partition = random.usize(0..3);
        let message = match id % 100 {
            42 => {
                let payload = poison(id as u64 / 100, &mut random);
                bad.insert((partition as i32, ends[partition]), payload.clone());
                message(payload)
            }
            _ => {
                ids.push(id);
                good(id)
            }
        };
        messages.push(message.partition(partition as i32));
        ends[partition] += 1;
    }
    broker.produce(&topic, messages)?;
    Ok((topic, ids, bad))
}

fn ids(broker: &Broker, topic: &str) -> Result<Vec<i64>> {
    let mut ids: Vec<i64> =
        broker.committed(topic)?.iter().map(|record| json(record)["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[test]
fn poison_that_is_skipped_is_counted_and_nothing_else_is_missing() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, good, bad) = one_percent(broker)?;
    let kafka = Kafka::brokers(broker.address());
    let output = broker.new_topic("skipped", 2)?;
    let job = Job::new("skips").parallelism(2);
    let rows = job.source(kafka.topic(&topic).bounded().json::<Reading>()).drop_rejects();
    rows.sink(kafka.to_topic(&output).json());
    accounted(&run(job)?, RECORDS as u64, bad.len() as u64);
    assert_eq!(ids(broker, &output)?, good);
    Ok(())
}

#[test]
fn poison_becomes_dead_letters_that_are_what_they_were_once() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, good, bad) = one_percent(broker)?;
    // What a source takes is kept whole.
    let kafka = Kafka::brokers(broker.address()).set("message.max.bytes", "11000000");
    let (output, dead, place) = (broker.new_topic("kept", 2)?, roomy(broker, "dead", 1)?, tempfile::tempdir()?);
    let job = Job::new(format!("buries-{:08x}", fastrand::u32(..))).parallelism(2);
    let job = job.checkpoint(store(place.path()), millis(100));
    let (rows, rejected) = job.source(kafka.topic(&topic).bounded().json::<Reading>()).with_rejects();
    rows.sink(kafka.to_topic(&output).json().exactly_once());
    rejected.sink(kafka.to_topic(&dead).dead_letters().exactly_once());
    accounted(&run(job)?, RECORDS as u64, bad.len() as u64);
    assert_eq!(ids(broker, &output)?, good);
    let letters = broker.committed(&dead)?;
    assert_eq!(letters.len(), bad.len());
    let mut found = BTreeMap::new();
    for letter in &letters {
        let number = |name: &str| letter.header(name).unwrap_or_default().parse::<i64>();
        let place = (number("windrow.partition")? as i32, number("windrow.offset")?);
        assert!(letter.header("windrow.error").is_some_and(|error| !error.is_empty()), "{place:?}");
        let cut = letter.header("windrow.truncated").map(|size| (size.to_owned(), letter.header("windrow.excerpt")));
        let cut = cut.map(|(size, excerpt)| (size, excerpt.unwrap_or_default().as_bytes().to_vec()));
        found.insert(place, (letter.value.clone(), cut));
    }
    let expected = |payload: &Option<Vec<u8>>| {
        let size = payload.as_ref().map_or(0, |payload| payload.len() + KEY.len());
        let is_whole = size <= LARGEST;
        let cut = payload.as_ref().filter(|_| !is_whole).map(|payload| (size.to_string(), payload[..1024].to_vec()));
        (payload.clone().filter(|_| is_whole), cut)
    };
    let differs = |(at, payload): (&(i32, i64), _)| (found.get(at) != Some(&expected(payload))).then_some(*at);
    let differ: Vec<_> = bad.iter().filter_map(differs).collect();
    assert!(differ.is_empty() && found.len() == bad.len(), "{differ:?}");
    Ok(())
}

#[test]
fn a_job_that_fails_by_poison_stands_at_it_and_does_not_pass_it_when_it_is_started_again() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, output) = (roomy(broker, "strict", 1)?, broker.new_topic("strict-out", 1)?);
    let (place, kafka) = (tempfile::tempdir()?, Kafka::brokers(broker.address()));
    let name = format!("strict-{:08x}", fastrand::u32(..));
    let job = || {
        let job = Job::new(&name).checkpoint(store(place.path()), mins(1));
        job.restarts(Restarts::at_most(3).waiting(millis(10)..=millis(10)))
    };
    let readings = |job: &Job| job.source(kafka.topic(&topic).json::<Reading>());
    let written = || kafka.to_topic(&output).json().exactly_once();
    let strict = || {
        let job = job();
        readings(&job).fail_on_rejects().sink(written());
        job
    };
    let lenient = || {
        let job = job();
        readings(&job).drop_rejects().sink(written());
        job
    };
    let mut random = fastrand::Rng::with_seed(21);
    let (mut expected, mut offset) = (Vec::new(), 0);
    for kind in [0, 2, 4, 8, 13, 14] {
        let payload = poison(kind, &mut random);
        let (before, behind) = (offset..offset + 20, offset + 21..offset + 30);
        let all = before.clone().map(good).chain([message(payload)]).chain(behind.clone().map(good));
        broker.produce(&topic, all)?;
        for again in 0..2 {
            let error = run(strict()).unwrap_err().to_string();
            let at = format!("rejected a record of {topic}/0 at position {}: ", offset + 20);
            assert!(error.contains(&at) && error.len() < 5_000, "kind {kind}, start {again}: {error}");
            // What is before it belongs to no checkpoint.
            assert_eq!(ids(broker, &output)?, expected, "kind {kind}, start {again}");
        }
        // The next one fails behind a checkpoint, which is taken when this is stopped.
        let report = while_running(lenient(), async |job| has_read(job, 30).await)?;
        accounted(&report, 30, 1);
        expected.extend(before.chain(behind));
        assert_eq!(ids(broker, &output)?, expected, "kind {kind}");
        offset += 30;
    }
    Ok(())
}
