//! In which partition a record lands: that in which Java's producer puts records of the same key, so that topics can be joined
//! partition by partition, whoever wrote them.
//!
//! ```text
//!   keys ──► Job ──► .key("key") ─────────────► ours   (7 partitions) ─┐
//!     └────► Java's console producer ─────────► theirs (7 partitions) ─┴─ the same key, the same partition
//! ```

use std::collections::{BTreeMap, BTreeSet};

use tests::{
    broker::{Broker, Result},
    run,
};
use windrow::prelude::*;

use crate::running::{accounted, json, store};

/// A number of partitions in which no two rules agree by chance.
const PARTITIONS: usize = 7;

/// Keys and their murmur2, as Kafka's own tests have them (`UtilsTest.testMurmur2`).
const KNOWN: [(&str, i32); 6] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
];

#[derive(Record)]
struct Keyed {
    key: Option<String>,
    n: i64,
}

/// Writes rows with these keys by a job, and returns where each row is.
fn ours(broker: &Broker, keys: &[Option<&str>], once: bool) -> Result<Vec<i32>> {
    let topic = broker.new_topic("ours", PARTITIONS)?;
    let place = tempfile::tempdir()?;
    let row = |(n, key): (usize, &Option<&str>)| Keyed { key: key.map(String::from), n: n as i64 };
    let job = Job::new(format!("keys-{:08x}", fastrand::u32(..)));
    let job = if once { job.checkpoint(store(place.path()), mins(1)) } else { job };
    let output = Kafka::brokers(broker.address()).to_topic(&topic).key("key").json();
    let rows = job.source(MemorySource::records(keys.iter().enumerate().map(row).collect::<Vec<_>>()));
    rows.sink(if once { output.exactly_once() } else { output });
    accounted(&run(job)?, keys.len() as u64, 0);
    let mut places = vec![-1; keys.len()];
    for record in broker.committed(&topic)? {
        let n = json(&record)["n"].as_u64().expect("a number") as usize;
        assert_eq!(record.key.as_deref(), keys[n].map(str::as_bytes));
        places[n] = record.partition;
    }
    Ok(places)
}

#[test]
fn a_key_lands_where_the_default_partitioner_of_java_puts_it() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let mut names: Vec<String> = KNOWN.iter().map(|(key, _)| key.to_string()).collect();
    // Of every length that the hash treats apart, and of letters of several bytes.
    names.extend((0..150).map(|n| format!("{}{n}", "käse€🦀".chars().cycle().take(n % 9).collect::<String>())));
    names.push(String::new());
    let keys: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();

    let theirs = broker.new_topic("theirs", PARTITIONS)?;
    let records: Vec<_> = keys.iter().enumerate().map(|(n, key)| (*key, n.to_string())).collect();
    let by_java = broker.produce_by_java(&theirs, &records)?;
    let theirs: BTreeMap<Vec<u8>, i32> =
        broker.committed(&theirs)?.into_iter().map(|record| (record.key.expect("a key"), record.partition)).collect();
    assert!(by_java.is_none() || theirs.len() == names.len(), "{} of {}", theirs.len(), names.len());

    for once in [false, true] {
        let places = ours(broker, &keys, once)?;
        for ((key, hash), place) in KNOWN.iter().zip(&places) {
            assert_eq!(*place, (hash & i32::MAX) % PARTITIONS as i32, "{key}");
        }
        let apart: Vec<_> = names
            .iter()
            .zip(&places)
            .filter_map(|(name, ours)| Some((name, ours, theirs.get(name.as_bytes())?)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .collect();
        assert!(apart.is_empty(), "exactly once: {once}; key, ours, Java's: {apart:?}");
        assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), PARTITIONS);
    }
    Ok(())
}

#[test]
fn a_record_without_a_key_lands_anywhere_and_has_none() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    for once in [false, true] {
        let places = ours(broker, &[None; 50], once)?;
        assert!(places.iter().all(|place| (0..PARTITIONS as i32).contains(place)), "{places:?}");
    }
    Ok(())
}
