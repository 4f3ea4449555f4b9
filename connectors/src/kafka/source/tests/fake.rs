//! A cluster in memory, whose logs lose, repeat, are cut off, and begin again, as a test says.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use fastrand::Rng;
use rdkafka::{
    Timestamp,
    message::{OwnedHeaders, OwnedMessage},
};

use crate::{
    ConnectorError, Result,
    kafka::source::feed::{Event, Fault, Feed, Partition},
};

/// So many brokers lead partitions, in turn.
const BROKERS: i32 = 3;

/// One partition: offsets that are not in `records` are markers, or were taken away by compaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) records: BTreeMap<u64, Written>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) millis: Option<i64>,
    pub(super) headers: Option<OwnedHeaders>,
}

impl Log {
    pub(super) fn append(&mut self, record: Written) -> u64 {
        self.records.insert(self.end, record);
        self.end += 1;
        self.end - 1
    }

    /// A JSON object that holds its offset.
    pub(super) fn append_number(&mut self) {
        let payload = format!(r#"{{"v": {}}}"#, self.end).into_bytes();
        self.append(Written { payload: Some(payload), ..Written::default() });
    }

    /// Markers: offsets without a record.
    pub(super) fn skip(&mut self, offsets: u64) {
        self.end += offsets;
    }

    pub(super) fn remove_before(&mut self, first: u64) {
        self.first = first;
        self.records = self.records.split_off(&first);
    }

    pub(super) fn cut_off(&mut self, end: u64) {
        self.end = end;
        self.records.split_off(&end);
    }
}

#[derive(Clone, Default)]
pub(super) struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(super) struct Inner {
    /// `None` where the topic was deleted.
    pub(super) topics: Vec<Option<Vec<Log>>>,
    pub(super) committed: BTreeMap<Partition, u64>,
    /// The group's broker is away; and how many times it was asked.
    pub(super) group_away: bool,
    pub(super) group_asked: usize,
    /// Ends behind the decided one, where a transaction is open.
    pub(super) open: BTreeMap<Partition, u64>,
    /// Where a new leader takes its log to end, which is longer.
    pub(super) lagging: BTreeMap<Partition, u64>,
    /// Written to this partition just after the question for offsets at a time has been answered.
    pub(super) behind_answer: Option<(Partition, Written)>,
    /// A broker that has just started: it knows topics only when it is asked for their partitions for long.
    pub(super) stale: bool,
    /// Ends are told without their offset.
    pub(super) ends_unknown: bool,
    /// Why partitions cannot be added.
    pub(super) silent: bool,
    /// Partitions without a leader; those whose leader does not answer a question for offsets; and the partitions of each such question.
    pub(super) leaderless: BTreeSet<Partition>,
    pub(super) hangs: BTreeSet<Partition>,
    pub(super) bounds_of: Vec<Vec<Partition>>,
    /// Records before this offset were replaced, and librdkafka has found out.
    pub(super) truncated: Option<(Partition, String)>,
    /// Its log was shorter when it was fetched from than it is now.
    pub(super) refused: Option<Partition>,
    /// What comes next cannot be read.
    pub(super) garbage: Option<(Partition, String)>,
    /// Nothing comes of these until they are assigned so often.
    pub(super) stuck: BTreeMap<Partition, u32>,
    /// Nothing comes of any before there is a new client; and whether the client has forgotten its brokers.
    pub(super) hopeless: bool,
    pub(super) brokerless: bool,
    /// How many new clients there were.
    pub(super) renewed: usize,
    /// What was assigned, in order.
    pub(super) assigned: Vec<(Partition, u64)>,
    /// The questions where partitions end, as they are answered; no answer while the cluster is `away`.
    pub(super) asked: Vec<Vec<Partition>>,
    pub(super) away: bool,
    pub(super) polls: usize,
    pub(super) pauses: usize,
}

impl World {
    pub(super) fn new(partitions: &[usize]) -> Self {
        let topics = partitions.iter().map(|&count| Some(vec![Log::default(); count])).collect();
        Self(Arc::new(Mutex::new(Inner { topics, ..Inner::default() })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn log<R>(&self, at: Partition, act: impl FnOnce(&mut Log) -> R) -> R {
        act(&mut self.lock().topics[at.topic].as_mut().unwrap()[at.number as usize])
    }

    /// A client that sees this world, and stumbles now and then.
    pub(super) fn feed(&self, seed: u64, stumbles: bool) -> FakeFeed {
        FakeFeed {
            world: self.clone(),
            finding: Vec::new(),
            state: RefCell::new(State { rng: Rng::with_seed(seed), stumbles, ..State::default() }),
        }
    }
}

pub(super) struct FakeFeed {
    world: World,
    /// Those whose ends are being asked for.
    finding: Vec<Partition>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    rng: Rng,
    stumbles: bool,
    reading: BTreeMap<Partition, Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// What is polled next; and what was polled so far at most.
    next: u64,
    polled: u64,
    paused: bool,
    told_end: Option<u64>,
}

impl State {
    /// After a reconnect or a pause some of what was polled comes again.
    fn again(&mut self, at: Partition) {
        let back = self.rng.u64(0..6);
        if let Some(reading) = self.reading.get_mut(&at) {
            reading.next = reading.polled.saturating_sub(back);
        }
    }
}

fn no_answer() -> ConnectorError {
    ConnectorError::Remote { system: "fake".to_string(), reason: "no answer".to_string(), passes: true }
}

impl FakeFeed {
    /// Nobody answers for a partition without a leader.
    fn led(&self, of: &[Partition]) -> Result<()> {
        let world = self.world.lock();
        if of.iter().any(|at| world.leaderless.contains(at)) { Err(no_answer()) } else { Ok(()) }
    }

    /// Another client that sees the same world.
    pub(super) fn another(&self) -> impl Fn() -> FakeFeed + Send + Sync + use<> {
        let world = self.world.clone();
        move || world.feed(0, false)
    }
}

impl Feed for FakeFeed {
    type Record<'a> = OwnedMessage;

    fn poll(&self, wait: Duration) -> Option<Event<OwnedMessage>> {
        let mut state = self.state.borrow_mut();
        let mut world = self.world.lock();
        world.polls += 1;
        let stale = world.stale;
        let flows = |(at, reading): &(&Partition, &Reading)| {
            !reading.paused && !world.hopeless && !world.stuck.contains_key(at) && !world.leaderless.contains(at)
        };
        let mut unpaused: Vec<Partition> = state.reading.iter().filter(flows).map(|(at, _)| *at).collect();
        state.rng.shuffle(&mut unpaused);
        for at in unpaused {
            if state.stumbles && state.rng.u8(..) < 4 {
                return Some(Event::Failed { topic: at.topic, fault: Fault::Passing, reason: "broker down".into() });
            }
            let failed = |fault, reason: &str| Some(Event::Failed { topic: at.topic, fault, reason: reason.into() });
            if stale {
                return failed(Fault::Unknown, "unknown topic");
            }
            if world.refused.take_if(|other| *other == at).is_some() {
                return failed(Fault::Position, "offset out of range");
            }
            let Some(logs) = &world.topics[at.topic] else { return failed(Fault::Unknown, "unknown topic") };
            let Some(log) = logs.get(at.number as usize) else { return failed(Fault::Unknown, "unknown partition") };
            if state.stumbles && state.rng.u8(..) < 8 {
                state.again(at);
            }
            if world.truncated.as_ref().is_some_and(|(other, _)| *other == at) {
                let reason = world.truncated.take().unwrap().1;
                return failed(Fault::Truncated, &reason);
            }
            if world.garbage.as_ref().is_some_and(|(other, _)| *other == at) {
                let reason = world.garbage.take().unwrap().1;
                return failed(Fault::Garbage, &reason);
            }
            let reading = state.reading.get_mut(&at).unwrap();
            if reading.polled < log.first || reading.polled > log.end {
                return failed(Fault::Position, "offset out of range");
            }
            let end = world.lagging.get(&at).map_or(log.end, |&end| end.max(reading.next).min(log.end));
            if let Some((&offset, written)) = log.records.range(reading.next..end.max(reading.next)).next() {
                reading.next = offset + 1;
                reading.polled = reading.polled.max(offset + 1);
                reading.told_end = None;
                let time = written.millis.map_or(Timestamp::NotAvailable, Timestamp::CreateTime);
                let record = OwnedMessage::new(
                    written.payload.clone(),
                    written.key.clone(),
                    String::new(),
                    time,
                    at.number,
                    offset as i64,
                    written.headers.clone(),
                );
                return Some(Event::Record { at, record });
            }
            (reading.next, reading.polled) = (end, end);
            if reading.told_end != Some(end) {
                reading.told_end = Some(end);
                return Some(Event::End { at, offset: Some(end).filter(|_| !world.ends_unknown) });
            }
        }
        drop(world);
        if !wait.is_zero() {
            std::thread::sleep(Duration::from_micros(200));
        }
        None
    }

    fn partitions(&mut self, topic: usize, expected: i32) -> Result<Option<i32>> {
        let mut world = self.world.lock();
        if world.silent {
            return Err(no_answer());
        }
        if std::mem::take(&mut world.stale) && expected == 0 {
            return Ok(None);
        }
        drop(world);
        Ok(self.world.lock().topics[topic].as_ref().map(|logs| logs.len() as i32))
    }

    fn leaders(&mut self, of: &[Partition]) -> Result<Vec<Option<i32>>> {
        let world = self.world.lock();
        Ok(of.iter().map(|at| Some((at.number + 2) % BROKERS).filter(|_| !world.leaderless.contains(at))).collect())
    }

    fn bounds(&mut self, of: &[Partition]) -> Result<Vec<(u64, u64)>> {
        self.led(of)?;
        self.world.lock().bounds_of.push(of.to_vec());
        let begun = Instant::now();
        while of.iter().any(|at| self.world.lock().hangs.contains(at)) {
            if begun.elapsed() > Duration::from_secs(5) {
                return Err(no_answer());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(of.iter().map(|at| self.world.log(*at, |log| (log.first, log.end))).collect())
    }

    fn open_end(&mut self, at: Partition) -> Result<u64> {
        self.led(&[at])?;
        let end = self.world.log(at, |log| log.end);
        Ok(self.world.lock().open.get(&at).copied().unwrap_or(end))
    }

    fn since(&mut self, millis: i64, of: &[Partition]) -> Result<Vec<Option<u64>>> {
        self.led(of)?;
        let since = |log: &mut Log| log.records.iter().find(|(_, one)| one.millis >= Some(millis)).map(|(at, _)| *at);
        let answer = of.iter().map(|&at| self.world.log(at, since)).collect();
        let behind = self.world.lock().behind_answer.take();
        if let Some((at, record)) = behind {
            self.world.log(at, |log| log.append(record));
        }
        Ok(answer)
    }

    fn find_ends(&mut self, of: &[Partition]) {
        self.finding = of.to_vec();
        self.world.lock().asked.push(of.to_vec());
    }

    fn found_ends(&mut self) -> Vec<(Partition, u64)> {
        let of = std::mem::take(&mut self.finding);
        if self.world.lock().away {
            return Vec::new();
        }
        let led = of.into_iter().filter(|at| self.led(&[*at]).is_ok());
        led.map(|at| (at, self.world.log(at, |log| log.end))).collect()
    }

    fn fetched(&self, at: Partition) -> Option<u64> {
        self.state.borrow().reading.get(&at).map(|reading| reading.polled)
    }

    fn knows_brokers(&self, _topic: usize) -> bool {
        !self.world.lock().brokerless
    }

    fn renew(&mut self, topic: usize) -> Result<()> {
        self.state.get_mut().reading.retain(|at, _| at.topic != topic);
        let mut world = self.world.lock();
        (world.hopeless, world.brokerless) = (false, false);
        world.renewed += 1;
        Ok(())
    }

    fn committed(&mut self, of: &[Partition]) -> Result<Vec<Option<u64>>> {
        let mut world = self.world.lock();
        world.group_asked += 1;
        if world.group_away {
            return Err(no_answer());
        }
        drop(world);
        Ok(of.iter().map(|at| self.world.lock().committed.get(at).copied()).collect())
    }

    fn assign(&mut self, from: &[(Partition, u64)]) -> Result<()> {
        for &(at, next) in from {
            let mut world = self.world.lock();
            world.assigned.push((at, next));
            if let Some(times) = world.stuck.get_mut(&at) {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    world.stuck.remove(&at);
                }
            }
            let reading = Reading { next, polled: next, paused: false, told_end: None };
            assert!(self.state.get_mut().reading.insert(at, reading).is_none(), "{at:?} is assigned twice");
            drop(world);
            // What was under way of its former reading.
            if self.state.get_mut().stumbles {
                self.state.get_mut().again(at);
            }
        }
        Ok(())
    }

    fn unassign(&mut self, at: Partition) -> Result<()> {
        assert!(self.state.get_mut().reading.remove(&at).is_some(), "{at:?} is not assigned");
        Ok(())
    }

    fn pause(&mut self, of: &[Partition]) -> Result<()> {
        self.world.lock().pauses += 1;
        of.iter().for_each(|at| self.state.get_mut().reading.get_mut(at).unwrap().paused = true);
        Ok(())
    }

    fn resume(&mut self, of: &[Partition]) -> Result<()> {
        for at in of {
            let state = self.state.get_mut();
            let reading = state.reading.get_mut(at).unwrap();
            assert!(reading.paused, "{at:?} is not paused");
            (reading.paused, reading.told_end) = (false, None);
            if state.stumbles {
                state.again(*at);
            }
        }
        Ok(())
    }
}
