//! The simulated cluster among many clients and many faults, drawn from a seed: whether every transaction is seen wholly or not at
//! all, as its client was told, and whether a seed always gives the same.
//!
//! ```text
//!   actor "a"  ─ init ─ begin ─ send… ─ commit ─┐ forgets its producer, or keeps it as a zombie that writes on
//!   actor "b"  ─ init ─ …                       ├──► what each was told ──► compared with what readers see
//!   actor      ─ send… ─ flush (plain)         ─┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use windrow::connectors::kafka::cluster::{Cluster, Outgoing, Producer};

use super::simulated::{BATCH, Settings, Simulated, log::Record, read};

const OUT: &str = "out";

/// What the client of a transaction knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    Aborted,
    /// It may count or not.
    Nothing,
}

/// The transactions, by name, with the number of their records.
type Known = BTreeMap<String, (Told, usize)>;

/// One transaction. Its records say which it is, and how many they are.
async fn transaction(
    producer: &Arc<dyn Producer>,
    name: &str,
    random: &mut fastrand::Rng,
) -> (Told, usize, Result<(), ()>) {
    let count = random.usize(1..20);
    if producer.begin().await.is_err() {
        return (Told::Aborted, count, Err(()));
    }
    for n in 0..count {
        let value = format!("{name} {n}");
        let partition = Some(random.i32(0..3));
        let record =
            Outgoing { topic: OUT, partition, key: None, value: Some(value.as_bytes()), headers: &[], timestamp: None };
        loop {
            match producer.send(&record) {
                Ok(true) => break,
                Ok(false) => producer.room().await,
                // Nothing of it can ever be committed.
                Err(_) => return (Told::Aborted, count, Err(())),
            }
        }
        if random.u8(0..20) == 0 {
            tokio::time::sleep(Duration::from_millis(random.u64(0..3_000))).await;
        }
    }
    match random.u8(0..10) {
        0 => match producer.abort().await {
            Ok(()) => (Told::Aborted, count, Ok(())),
            Err(_) => (Told::Aborted, count, Err(())),
        },
        // The process dies while it commits.
        1 => {
            let time = Duration::from_millis(random.u64(0..50));
            match tokio::time::timeout(time, producer.commit()).await {
                Ok(Ok(())) => (Told::Committed, count, Err(())),
                _ => (Told::Nothing, count, Err(())),
            }
        }
        _ => match producer.commit().await {
            Ok(()) => (Told::Committed, count, Ok(())),
            Err(_) => (Told::Nothing, count, Err(())),
        },
    }
}

/// Takes the id over again and again; what it leaves behind dies, or goes on as a zombie.
async fn actor(cluster: Simulated, id: String, seed: u64) -> Known {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut known = Known::new();
    let mut zombies: Vec<Arc<dyn Producer>> = Vec::new();
    for life in 0..4 {
        let producer = cluster.transactional(&id, BATCH).await.unwrap();
        if producer.init_transactions().await.is_err() {
            continue;
        }
        for (at, zombie) in zombies.drain(..).enumerate() {
            let name = format!("{id}.{life}.zombie{at}");
            let (told, count, _) = transaction(&zombie, &name, &mut random).await;
            // A zombie is fenced already when it begins.
            assert_ne!(told, Told::Committed, "{name}");
            known.insert(name, (Told::Aborted, count));
        }
        for number in 0..random.usize(1..5) {
            let name = format!("{id}.{life}.{number}");
            let (told, count, ended) = transaction(&producer, &name, &mut random).await;
            known.insert(name, (told, count));
            if ended.is_err() {
                break;
            }
        }
        if random.bool() {
            zombies.push(producer);
        }
    }
    known
}

async fn plain(cluster: Simulated, seed: u64) -> Known {
    let mut random = fastrand::Rng::with_seed(seed);
    let producer = cluster.plain(BATCH).await.unwrap();
    let mut known = Known::new();
    for number in 0..5 {
        let name = format!("plain.0.{number}");
        let record = Outgoing {
            topic: OUT,
            partition: Some(random.i32(0..3)),
            key: None,
            value: Some(&format!("{name} 0").into_bytes()),
            headers: &[],
            timestamp: None,
        };
        while !producer.send(&record).unwrap() {
            producer.room().await;
        }
        let told = if producer.flush().await.is_ok() { Told::Committed } else { Told::Nothing };
        known.insert(name, (told, 1));
    }
    known
}

/// Wholly or not at all, as was said, and in order.
fn check(known: &Known, seen: &[Vec<Arc<Record>>]) -> Result<(), String> {
    let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for partition in seen {
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for record in partition {
            let text =
                String::from_utf8(record.value.clone().unwrap_or_default()).map_err(|error| error.to_string())?;
            let (name, number) = text.split_once(' ').ok_or("no name")?;
            let number: usize = number.parse().map_err(|_| "no number")?;
            if last.insert(name.to_owned(), number).is_some_and(|before| before >= number) {
                return Err(format!("{text} is out of order"));
            }
            if !found.entry(name.to_owned()).or_default().insert(number) {
                return Err(format!("{text} is there twice"));
            }
        }
    }
    for (name, (told, count)) in known {
        let seen = found.remove(name).map_or(0, |numbers| numbers.len());
        let right = match told {
            Told::Committed => seen == *count,
            Told::Aborted => seen == 0,
            Told::Nothing => seen == 0 || seen == *count,
        };
        if !right {
            return Err(format!("{name}: {seen} of {count} records are seen, and its client was told {told:?}"));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("nobody wrote {found:?}")) }
}

#[derive(Debug, PartialEq, Eq)]
struct Storm {
    trace: u64,
    faults: u64,
    committed: usize,
    unknown: usize,
}

fn storm(seed: u64) -> Storm {
    let settings = Settings {
        seed,
        percent: (seed % 21) as u32,
        transaction_timeout: 15_000,
        message_timeout: 14_000,
        request_timeout: 3_000,
        queue_bytes: 500,
        batch: 4,
        ..Settings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let cluster = Simulated::new(settings);
        cluster.create(OUT, 3);
        let ids = ["a", "b", "c"];
        let actors =
            (1..).zip(ids).map(|(at, id)| tokio::spawn(actor(cluster.process(), id.to_owned(), seed * 10 + at)));
        let mut actors: Vec<_> = actors.collect();
        actors.push(tokio::spawn(plain(cluster.process(), seed)));
        let mut known = Known::new();
        for actor in actors {
            known.append(&mut actor.await.unwrap());
        }
        // After a takeover no outcome is open any more.
        cluster.look(|world| world.plan.calm());
        for id in ids {
            cluster.transactional(id, BATCH).await.unwrap().init_transactions().await.unwrap();
        }
        assert!(cluster.open().is_empty() && cluster.stuck().is_empty(), "seed {seed}");
        let seen = cluster.committed(OUT);
        check(&known, &seen).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        cluster.look(|world| {
            for log in &world.broker.topics[OUT] {
                assert_eq!(log.last_stable_offset(), read::stable(log.entries()), "seed {seed}");
                let last = read::committed(log.entries()).pop();
                assert_eq!(log.last_committed(), last, "seed {seed}");
            }
        });
        let told = |told| known.values().filter(|(what, _)| *what == told).count();
        let (committed, unknown) = (told(Told::Committed), told(Told::Nothing));
        cluster.look(|world| Storm { trace: world.trace(), faults: world.plan.happened, committed, unknown })
    })
}

#[test]
fn among_many_faults_every_transaction_is_seen_wholly_or_not_at_all() {
    let storms: Vec<Storm> = (1_000..1_100).map(storm).collect();
    let sum = |of: fn(&Storm) -> usize| storms.iter().map(of).sum::<usize>();
    let (faults, committed, unknown) =
        (sum(|storm| storm.faults as usize), sum(|storm| storm.committed), sum(|storm| storm.unknown));
    println!("100 storms: {faults} faults, {committed} transactions committed, {unknown} of unknown outcome");
    assert!(faults > 2_000 && committed > 2_000 && unknown > 100, "{faults} {committed} {unknown}");
}

#[test]
fn a_seed_always_gives_the_same() {
    let mut traces = BTreeSet::new();
    for seed in 0..200 {
        let (first, second) = (storm(seed), storm(seed));
        assert_eq!(first, second, "seed {seed}");
        traces.insert(first.trace);
    }
    assert_eq!(traces.len(), 200, "200 of 200 alike, and no two seeds");
}
