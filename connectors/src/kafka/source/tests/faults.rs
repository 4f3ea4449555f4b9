//! Five hundred lives of a reader, over logs that repeat, skip, are cut off, expire, are deleted and made again: every record comes
//! once and in order, or the reader ends with the error that says what happened.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::{SplitId, kafka::source::feed::Partition};

/// What happens to the log at the end of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Well,
    /// Records expire that were not read.
    Expired,
    /// All that was read expires, and what is no record behind it, and the reader starts again.
    OnlyMarkers,
    /// A new leader does not have the last ones.
    CutOff,
    Deleted,
    /// With fewer records than were read.
    MadeAgain,
}

const FATES: [Fate; 6] = [Fate::Well, Fate::Expired, Fate::OnlyMarkers, Fate::CutOff, Fate::Deleted, Fate::MadeAgain];

/// What came of each partition: the next position, and the numbers.
#[derive(Default)]
struct Delivered(BTreeMap<SplitId, (u64, Vec<i64>)>);

impl Delivered {
    fn take(&mut self, rows: &Rows) {
        let (next, numbers) = self.0.entry(rows.split.clone()).or_default();
        assert!(rows.next.0 >= *next, "{} goes back from {next} to {}", rows.split, rows.next);
        assert!(rows.rejected.is_empty());
        *next = rows.next.0;
        numbers.extend(values(rows));
    }

    fn next(&self, split: &SplitId) -> u64 {
        self.0.get(split).map_or(0, |(next, _)| *next)
    }
}

struct Life {
    seed: u64,
    rng: Rng,
    world: World,
    plan: Plan,
    partitions: Vec<Partition>,
    delivered: Delivered,
    /// All that was ever written.
    written: BTreeMap<SplitId, Vec<i64>>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let counts: Vec<usize> = (0..rng.usize(1..3)).map(|_| rng.usize(1..4)).collect();
        let topics = ["a", "b"].into_iter().take(counts.len());
        let source = Kafka::brokers("fake:1").topics(topics).batch_rows(rng.usize(1..40)).json_with(numbers());
        let all = counts.iter().enumerate().flat_map(|(topic, &count)| (0..count as i32).map(move |n| at(topic, n)));
        let partitions = all.collect();
        let (world, plan) = (World::new(&counts), plan(&source));
        Self { seed, rng, world, plan, partitions, delivered: Delivered::default(), written: BTreeMap::new() }
    }

    fn split(&self, at: Partition) -> SplitId {
        at.split(&self.plan.topics)
    }

    fn write(&mut self) {
        for at in self.partitions.clone() {
            let split = self.split(at);
            for _ in 0..self.rng.usize(0..30) {
                if self.rng.u8(..) < 40 {
                    let gap = self.rng.u64(1..5);
                    self.world.log(at, |log| log.skip(gap));
                } else {
                    let offset = self.world.log(at, |log| {
                        log.append_number();
                        log.end - 1
                    });
                    self.written.entry(split.clone()).or_default().push(offset as i64);
                }
            }
        }
    }

    async fn reader(&mut self) -> KafkaReader {
        // A partition of which nothing came has no position, and one that has expired meanwhile would be an error.
        let assigned: Vec<_> = self
            .partitions
            .iter()
            .map(|&at| (at, self.delivered.0.get(&self.split(at)).map(|(next, _)| *next)))
            .collect();
        open(&self.plan, self.world.feed(self.rng.u64(..), true), &assigned).await.unwrap()
    }

    /// Reads, pauses, writes, grows and starts again.
    async fn live(&mut self) -> KafkaReader {
        self.write();
        let mut reader = self.reader().await;
        for _ in 0..self.rng.usize(5..25) {
            match self.rng.u8(0..10) {
                0 => {
                    let mut paused: Vec<_> = self.partitions.iter().map(|&at| self.split(at)).collect();
                    paused.retain(|_| self.rng.bool());
                    reader.pause(&paused);
                }
                1 => reader = self.reader().await,
                2 if self.partitions.len() < 8 => {
                    let topic = self.rng.usize(0..self.plan.topics.len());
                    let number = self.partitions.iter().filter(|at| at.topic == topic).count() as i32;
                    self.world.lock().topics[topic].as_mut().unwrap().push(Default::default());
                    self.partitions.push(at(topic, number));
                    self.write();
                    reader.add(vec![self.split(at(topic, number))]).await.unwrap();
                }
                3 | 4 => self.write(),
                _ => {
                    let fetched = tokio::time::timeout(Duration::from_millis(2), reader.fetch()).await;
                    if let Ok(fetch) = fetched {
                        let Fetch::Rows(rows) = fetch.unwrap() else { panic!("an unbounded source ended") };
                        self.delivered.take(&rows);
                    }
                }
            }
        }
        reader
    }

    /// Lets it happen to one partition; the words that the error must have, if there must be one.
    fn strike(&mut self, fate: Fate, reader: &mut KafkaReader) -> Option<String> {
        let at = self.partitions[self.rng.usize(0..self.partitions.len())];
        let name = self.split(at).to_string();
        match fate {
            Fate::Well | Fate::OnlyMarkers => None,
            Fate::Deleted => {
                self.world.lock().topics[at.topic] = None;
                Some("the partition is not there any more".to_string())
            }
            Fate::Expired => {
                // The records that are not polled yet, so that it is known which are lost.
                reader.pause(&self.partitions.iter().map(|&at| self.split(at)).collect::<Vec<_>>());
                std::thread::sleep(Duration::from_millis(3));
                self.world.log(at, |log| {
                    log.skip(40_000);
                    log.remove_before(log.end - 2);
                });
                Some(format!("records of {name} were removed"))
            }
            Fate::CutOff | Fate::MadeAgain => {
                self.world.log(at, |log| {
                    log.skip(1);
                    log.cut_off(0);
                });
                let read = self.delivered.next(&self.split(at)) > 0;
                read.then(|| format!("{name} ends at 0"))
            }
        }
    }

    /// Reads up to the ends, which are no records, and starts again when all has expired.
    async fn outlive(&mut self, mut reader: KafkaReader) -> KafkaReader {
        reader.pause(&[]);
        let ends: Vec<_> = self.partitions.clone();
        let ends: Vec<(Partition, u64)> = ends
            .into_iter()
            .map(|at| {
                let gap = self.rng.u64(0..3);
                self.world.log(at, |log| log.skip(gap));
                (at, self.world.log(at, |log| log.end))
            })
            .collect();
        while ends.iter().any(|(at, end)| self.delivered.next(&self.split(*at)) < *end) {
            match tokio::time::timeout(PATIENCE, reader.fetch()).await {
                Ok(Ok(Fetch::Rows(rows))) => self.delivered.take(&rows),
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
        drop(reader);
        ends.iter().for_each(|(at, end)| self.world.log(*at, |log| log.remove_before(*end)));
        let reader = self.reader().await;
        self.write();
        reader
    }

    /// Whether as much was delivered as was written.
    fn has_all(&self) -> bool {
        self.written.iter().all(|(split, written)| {
            self.delivered.0.get(split).map_or(0, |(_, numbers)| numbers.len()) >= written.len()
        })
    }

    /// How it ended, and whether with an error.
    async fn run(mut self) -> (Fate, bool) {
        let fate = FATES[self.rng.usize(0..FATES.len())];
        let mut reader = self.live().await;
        if fate == Fate::Well {
            self.write();
        }
        if fate == Fate::OnlyMarkers {
            reader = self.outlive(reader).await;
        }
        let error = self.strike(fate, &mut reader);
        reader.pause(&[]);
        let end = loop {
            let silence = match (&error, fate) {
                (Some(_), _) => PATIENCE,
                (None, Fate::Well | Fate::OnlyMarkers) if self.has_all() => Duration::from_millis(1),
                (None, Fate::Well | Fate::OnlyMarkers) => PATIENCE,
                // It may end either way.
                (None, _) => Duration::from_millis(40),
            };
            match tokio::time::timeout(silence, reader.fetch()).await {
                Err(_) => break None,
                Ok(Ok(Fetch::Rows(rows))) => self.delivered.take(&rows),
                Ok(Ok(other)) => panic!("{other:?} of an unbounded source"),
                Ok(Err(error)) => break Some(error),
            }
        };
        let seed = self.seed;
        match (&end, &error) {
            (None, None) => {}
            (Some(end), Some(words)) => {
                assert!(matches!(end, ConnectorError::Data { .. }), "seed {seed}: {end:?}");
                assert!(end.to_string().contains(words), "seed {seed}, {fate:?}: {end} instead of {words}");
            }
            // A log that was cut off before anything of it came to us may have been polled or not.
            (Some(end), None) => {
                assert!(matches!(fate, Fate::CutOff | Fate::MadeAgain), "seed {seed}, {fate:?}: {end}");
                assert!(end.to_string().contains("ends at 0"), "seed {seed}: {end}");
            }
            (None, Some(words)) => panic!("seed {seed}, {fate:?}: silence instead of {words}"),
        }
        for (split, (_, numbers)) in &self.delivered.0 {
            let written = self.written.get(split).map_or(&[][..], Vec::as_slice);
            assert!(written.starts_with(numbers), "seed {seed}, {fate:?}, {split}: {numbers:?} of {written:?}");
        }
        if matches!(fate, Fate::Well | Fate::OnlyMarkers) {
            for (split, written) in &self.written {
                let numbers = self.delivered.0.get(split).map_or(&[][..], |(_, numbers)| numbers);
                assert_eq!(numbers, written, "seed {seed}, {split}");
            }
        }
        (fate, end.is_some())
    }
}

#[test]
fn every_record_comes_once_or_the_reader_says_what_was_lost() {
    let lives = |seeds: std::ops::Range<u64>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        seeds.map(|seed| runtime.block_on(Life::new(seed).run())).collect::<Vec<_>>()
    };
    // Most of a life is waiting for the other thread.
    let ends: Vec<(Fate, bool)> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..10).map(|part| scope.spawn(move || lives(part * 50..(part + 1) * 50))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert_eq!(ends.len(), 500);
    for fate in FATES {
        let fails = !matches!(fate, Fate::Well | Fate::OnlyMarkers);
        let ended = ends.iter().filter(|end| **end == (fate, fails)).count();
        assert!(ended > 50, "{fate:?} came to its end only {ended} times");
    }
}

/// A bounded source whose partitions are paused and read on at random, and grow behind their ends.
async fn bounded_life(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let count = rng.usize(1..5);
    let world = World::new(&[count]);
    let all: Vec<Partition> = (0..count as i32).map(|number| at(0, number)).collect();
    let mut written = BTreeMap::<SplitId, Vec<i64>>::new();
    let source = input().bounded().batch_rows(rng.usize(1..40)).json_with(numbers());
    let plan = plan(&source);
    let name = |at: Partition| at.split(&plan.topics);
    for &at in &all {
        for _ in 0..rng.usize(0..200) {
            if rng.u8(..) < 40 {
                let gap = rng.u64(1..5);
                world.log(at, |log| log.skip(gap));
            } else {
                written.entry(name(at)).or_default().push(world.log(at, |log| log.end) as i64);
                world.log(at, |log| log.append_number());
            }
        }
    }
    let assigned: Vec<_> = all.iter().map(|&at| (at, None)).collect();
    let mut reader = open(&plan, world.feed(rng.u64(..), true), &assigned).await.unwrap();
    let mut read = BTreeMap::<SplitId, Vec<i64>>::new();
    let mut ended = Vec::new();
    loop {
        if rng.u8(..) < 60 {
            let paused: Vec<_> = all.iter().map(|&at| name(at)).filter(|_| rng.bool()).collect();
            reader.pause(&paused);
            let grown = all[rng.usize(..count)];
            world.log(grown, |log| log.append_number());
        }
        match tokio::time::timeout(Duration::from_millis(3), reader.fetch()).await {
            Ok(Ok(Fetch::Rows(rows))) => read.entry(rows.split.clone()).or_default().extend(values(&rows)),
            Ok(Ok(Fetch::SplitEnd(split))) => ended.push(split),
            Ok(Ok(Fetch::End)) => break,
            Ok(Err(error)) => panic!("seed {seed}: {error}"),
            // All that is left is paused.
            Err(_) => assert!(reader.pause(&[])),
        }
    }
    read.retain(|_, values| !values.is_empty());
    ended.sort();
    assert_eq!((ended.len(), read), (count, written), "seed {seed}");
}

#[test]
fn bounded_partitions_end_at_their_ends_however_they_are_paused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    (0..200).for_each(|seed| runtime.block_on(bounded_life(seed)));
}

#[tokio::test]
async fn the_number_of_lost_records_is_exact() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..10).for_each(|_| log.append_number()));
    let plan = plan(&input().json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert_eq!(rows(&mut reader).await.next, Position(10));
    world.log(at(0, 0), |log| {
        (0..90).for_each(|_| log.append_number());
        log.remove_before(75);
    });
    let error = next(&mut reader).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("65 records of a/0 were removed"), "{error}");
    assert!(error.contains("the offsets 10 to 74"), "{error}");
    // It has ended, and says so again rather than nothing.
    assert!(next(&mut reader).await.unwrap().is_err());
}

/// Another topic of the same name has grown past the position between the broker's refusal and the reader's question. Were it taken
/// for a passing failure, the next start would go on in the middle of the other topic.
#[tokio::test]
async fn a_log_that_was_cut_off_and_has_grown_again_is_another_one() {
    for partitions in [1, 2] {
        let world = World::new(&[partitions]);
        let all: Vec<Partition> = (0..partitions as i32).map(|number| at(0, number)).collect();
        all.iter().for_each(|at| world.log(*at, |log| (0..10).for_each(|_| log.append_number())));
        let plan = plan(&input().json_with(numbers()));
        let starts: Vec<_> = all.iter().map(|at| (*at, None)).collect();
        let mut reader = open(&plan, world.feed(1, false), &starts).await.unwrap();
        for _ in &all {
            assert_eq!(rows(&mut reader).await.next, Position(10));
        }
        {
            let mut world = world.lock();
            world.topics[0].as_mut().unwrap().iter_mut().for_each(|log| (0..10).for_each(|_| log.append_number()));
            world.refused = Some(at(0, 0));
        }
        let error = loop {
            if let Err(error) = next(&mut reader).await.unwrap() {
                break error;
            }
        };
        assert!(matches!(error, ConnectorError::Data { .. }), "no restart mends it: {error:?}");
        let error = error.to_string();
        assert!(error.contains("the topic was deleted and made again, or the cluster has lost records"), "{error}");
        assert!(error.contains("(offset out of range)") && error.contains("a/0"), "{error}");
        assert_eq!(error.contains("a/0 at offset 10, a/1 at offset "), partitions == 2, "{error}");
    }
}
