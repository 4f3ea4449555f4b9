//! The thread that polls librdkafka and decodes.
//!
//! ```text
//!   librdkafka's queue ──poll──► Lane "bids/0" ─┐
//!   (bounded in bytes)           Lane "bids/1" ─┼─ a batch is full, or ─► channel ─► KafkaReader::fetch
//!                                     …         ┘  nothing more is there   (4 batches; when it is full
//!   commands: pause, add ◄────────────────────────────────────────────      the thread waits)
//! ```
//!
//! A thread of its own, because librdkafka's calls block, and because decoding then runs beside the operators. It ends when the
//! reader is dropped.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

use tokio::sync::{
    mpsc::{Sender, error::TrySendError},
    oneshot,
};

use super::{
    fault,
    feed::{Event, Fault, Feed, Partition},
    lane::{Lane, Taken},
    plan::Plan,
    start::{self, Begin},
    watch::ASKED,
};
use crate::{ConnectorError, Result, Rows, SplitId};

/// How long the thread waits for records before it looks whether it is still needed.
const WAIT: Duration = Duration::from_millis(100);

/// So many records are taken between two looks at commands and the clock.
const BURST: usize = 256;

/// While other partitions have much to catch up with, a few records of one wait no longer than this.
const LINGER: Duration = Duration::from_millis(50);

/// What all batches that are being filled may hold together.
const MAX_BYTES: usize = 16 << 20;

/// While the channel is full, how long to wait before another look at it.
const FULL: Duration = Duration::from_millis(2);

/// When the channel has been full for so long, librdkafka is served again, without taking records: its statistics would become more
/// and more, and nobody would give it a new token. Not sooner: what it has fetched ahead is thrown away then and fetched again.
const STALLED: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// How long from one look at what stands still to the next.
const LOOK: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };

/// While there is always something to take, what is missed may wait behind it: then only one look in so many counts.
const BUSY: u32 = 10;

/// What the thread tells its reader. `lane` counts the partitions in the order in which they were assigned.
pub(super) enum Item {
    /// Rows, or none and where the partition stands now: behind offsets that are no records.
    Rows { lane: usize, rows: Rows },
    /// That is all there will be.
    Ended { lane: usize },
    /// The thread has ended.
    Failed(ConnectorError),
}

/// What the reader tells its thread.
pub(super) enum Command {
    /// These are not to be read, all others are.
    Pause(Vec<Partition>),
    /// Read these too, from there.
    Add(Vec<Begin>, oneshot::Sender<()>),
}

pub(super) struct Poller<F> {
    feed: F,
    plan: Plan,
    lanes: Vec<Lane>,
    /// By topic and number, which lane.
    places: Vec<Vec<Option<usize>>>,
    paused: Vec<Partition>,
    /// All are paused, because the channel was full for long.
    stalled: bool,
    /// Those that the feed reads, paused or not.
    reading: BTreeSet<Partition>,
    /// Those that cannot be read yet, and that are to be.
    to_come: BTreeSet<Partition>,
    /// What came while the channel was full, but for records.
    later: VecDeque<Step>,
    out: Sender<Item>,
    commands: Receiver<Command>,
    /// The lanes whose batch is not empty, and the bytes in them.
    filled: Vec<usize>,
    bytes: usize,
    flushed: Instant,
    looked: Instant,
    looks: u32,
    /// Whether there was nothing to take once since the last look.
    was_dry: bool,
}

/// What one look at the feed came to.
enum Step {
    Nothing,
    Took,
    Flush(usize),
    End(usize, Option<u64>),
    Failed { topic: usize, fault: Fault, reason: String },
}

/// Why the thread ends: `None` when its reader is gone or has all.
type Outcome<T = ()> = Result<T, Option<ConnectorError>>;

impl<F: Feed> Poller<F> {
    pub(super) fn new(feed: F, plan: Plan, out: Sender<Item>, commands: Receiver<Command>) -> Self {
        let places = vec![Vec::new(); plan.topics.len()];
        Self {
            feed,
            plan,
            lanes: Vec::new(),
            places,
            paused: Vec::new(),
            stalled: false,
            reading: BTreeSet::new(),
            to_come: BTreeSet::new(),
            later: VecDeque::new(),
            out,
            commands,
            filled: Vec::new(),
            bytes: 0,
            flushed: Instant::now(),
            looked: Instant::now(),
            looks: 0,
            was_dry: false,
        }
    }

    /// It is not at its end before these have been added and read.
    pub(super) fn waits_for(&mut self, to_come: impl Iterator<Item = Partition>) {
        self.to_come.extend(to_come);
    }

    /// Begins to read these.
    pub(super) fn assign(&mut self, begins: &[Begin]) -> Result<()> {
        let unread = begins.iter().filter(|begin| begin.end.is_none_or(|end| begin.next < end));
        let from: Vec<_> = unread.map(|begin| (begin.at, begin.next)).collect();
        if !from.is_empty() {
            self.feed.assign(&from)?;
        }
        self.reading.extend(from.iter().map(|(at, _)| *at));
        for begin in begins {
            self.to_come.remove(&begin.at);
            let lane = self.lanes.len();
            self.lanes.push(Lane::new(begin.at, begin.next, begin.end, &self.plan));
            let number = usize::try_from(begin.at.number).unwrap_or_default();
            if let Some(places) = self.places.get_mut(begin.at.topic) {
                places.resize(places.len().max(number + 1), None);
                places[number] = Some(lane);
            }
        }
        Ok(())
    }

    /// Reads until the reader is gone, all has been read, or something fails.
    pub(super) fn run(mut self) {
        if let Err(Some(error)) = self.read() {
            let out = self.out.clone();
            // The reader may take its time, and nobody serves the clients meanwhile.
            drop(self);
            // If the reader is gone nobody wants to know.
            let _ = out.blocking_send(Item::Failed(error));
        }
    }

    fn read(&mut self) -> Outcome {
        self.end_done(0)?;
        loop {
            self.obey()?;
            // Only when nearly all has been taken: a job that is slow would have it all fetched again for each of its batches.
            if self.stalled && self.out.capacity() + 1 >= self.out.max_capacity() {
                self.go_on()?;
            }
            // One that is not bounded may have none yet, and be given some.
            if self.plan.bounded && self.to_come.is_empty() && self.lanes.iter().all(|lane| lane.ended) {
                return Ok(());
            }
            for _ in 0..BURST {
                let step = match self.later.pop_front() {
                    Some(step) => step,
                    None if !self.filled.is_empty() => self.step(Duration::ZERO)?,
                    None => self.step(if self.stalled { 10 * FULL } else { WAIT })?,
                };
                match step {
                    Step::Took => {}
                    Step::Nothing => {
                        self.was_dry = true;
                        self.flush_all()?;
                        break;
                    }
                    Step::Flush(lane) => {
                        self.flush(lane)?;
                        break;
                    }
                    Step::End(lane, offset) => {
                        self.at_end(lane, offset)?;
                        break;
                    }
                    Step::Failed { topic, fault, reason } => {
                        self.failed(topic, fault, &reason)?;
                        break;
                    }
                }
            }
            if self.bytes > MAX_BYTES || (!self.filled.is_empty() && self.flushed.elapsed() > LINGER) {
                self.flush_all()?;
            }
            if self.looked.elapsed() >= LOOK {
                self.look()?;
                self.looked = Instant::now();
            }
        }
    }

    /// Looks whether something stands still. What was under way of its former reading and still comes is not taken twice.
    fn look(&mut self) -> Outcome {
        for (at, end) in self.feed.found_ends() {
            let Some(lane) = self.place(at).and_then(|lane| self.lanes.get_mut(lane)) else { continue };
            if lane.watch.answer(end > lane.next) {
                let next = lane.next;
                self.flush_all()?;
                return Err(Some(fault::stands_still(&self.plan, at, next, end)));
            }
        }
        self.looks = self.looks.wrapping_add(1);
        if !std::mem::take(&mut self.was_dry) && !self.looks.is_multiple_of(BUSY) {
            return Ok(());
        }
        let ask = self.looks.is_multiple_of(ASKED);
        let paused: BTreeSet<Partition> = self.paused.iter().copied().collect();
        let mut lost: BTreeSet<usize> = self.reading.iter().map(|at| at.topic).collect();
        lost.retain(|topic| !self.feed.knows_brokers(*topic));
        let (mut again, mut asked) = (Vec::new(), Vec::new());
        for lane in self.lanes.iter_mut().filter(|lane| self.reading.contains(&lane.at)) {
            if self.stalled || paused.contains(&lane.at) {
                lane.watch.rest();
            }
            if lane.watch.look(self.feed.fetched(lane.at)) {
                // To take it up was of no use.
                if lane.watch.is_behind() {
                    lost.insert(lane.at.topic);
                }
                again.push((lane.at, lane.next));
                asked.push(lane.at);
            } else if ask && lane.watch.is_idle() {
                asked.push(lane.at);
            }
        }
        again.retain(|(at, _)| !lost.contains(&at.topic));
        for (at, _) in &again {
            self.feed.unassign(*at)?;
        }
        if !again.is_empty() {
            self.feed.assign(&again)?;
        }
        lost.into_iter().try_for_each(|topic| self.renew(topic))?;
        if !asked.is_empty() {
            self.feed.find_ends(&asked);
        }
        Ok(())
    }

    /// Reads the partitions of a topic with a new client from where they stand.
    fn renew(&mut self, topic: usize) -> Result<()> {
        let read = |lane: &&Lane| lane.at.topic == topic && self.reading.contains(&lane.at);
        let from: Vec<_> = self.lanes.iter().filter(read).map(|lane| (lane.at, lane.next)).collect();
        let mut stop: Vec<_> = from.iter().map(|(at, _)| *at).collect();
        stop.retain(|at| self.stalled || self.paused.contains(at));
        self.feed.renew(topic)?;
        self.feed.assign(&from)?;
        self.lanes.iter_mut().filter(|lane| lane.at.topic == topic).for_each(|lane| lane.watch.renewed());
        if stop.is_empty() { Ok(()) } else { self.feed.pause(&stop) }
    }

    /// Its lane.
    fn place(&self, at: Partition) -> Option<usize> {
        *self.places.get(at.topic)?.get(usize::try_from(at.number).ok()?)?
    }

    /// Takes one event from the feed.
    fn step(&mut self, wait: Duration) -> Outcome<Step> {
        let Self { feed, plan, lanes, places, filled, bytes, flushed, .. } = self;
        let place = |at: Partition| *places.get(at.topic)?.get(usize::try_from(at.number).ok()?)?;
        let (at, record) = match feed.poll(wait) {
            None => return Ok(Step::Nothing),
            Some(Event::Record { at, record }) => (at, record),
            Some(Event::End { at, offset }) => {
                let Some((index, lane)) = place(at).and_then(|index| Some((index, lanes.get_mut(index)?))) else {
                    return Ok(Step::Took);
                };
                lane.watch.end();
                let is_done = lane.ended || lane.is_done();
                return match offset {
                    None if !is_done => Err(Some(fault::end_unknown(plan, at))),
                    offset => Ok(Step::End(index, offset)),
                };
            }
            Some(Event::Failed { topic, fault, reason }) => return Ok(Step::Failed { topic, fault, reason }),
        };
        let Some((index, lane)) = place(at).and_then(|index| Some((index, lanes.get_mut(index)?))) else {
            return Ok(Step::Took);
        };
        lane.watch.record();
        let was_empty = lane.is_empty();
        let (taken, full) = match lane.take(&record, plan)? {
            Taken::No if lane.is_done() && !lane.ended => return Ok(Step::End(index, None)),
            Taken::No => return Ok(Step::Took),
            Taken::Yes(taken) => (taken, false),
            Taken::Full(taken) => (taken, true),
        };
        if was_empty {
            if filled.is_empty() {
                *flushed = Instant::now();
            }
            filled.push(index);
        }
        *bytes += taken;
        Ok(match lane.is_done() {
            true => Step::End(index, None),
            false if full => Step::Flush(index),
            false => Step::Took,
        })
    }

    fn flush_all(&mut self) -> Outcome {
        while let Some(&lane) = self.filled.first() {
            self.flush(lane)?;
        }
        Ok(())
    }

    /// Gives a batch away. Waits while the channel is full: that is how a slow job slows the reading down.
    fn flush(&mut self, lane: usize) -> Outcome {
        if self.filled.first() == Some(&lane) {
            self.flushed = Instant::now();
        }
        self.filled.retain(|&other| other != lane);
        let filling = &mut self.lanes[lane];
        self.bytes = self.bytes.saturating_sub(filling.held());
        let rows = filling.flush(&self.plan)?;
        self.send(Item::Rows { lane, rows })
    }

    /// The end of a partition has been reached: for now, or for good.
    fn at_end(&mut self, lane: usize, offset: Option<u64>) -> Outcome {
        let filling = &mut self.lanes[lane];
        if filling.ended {
            return Ok(());
        }
        // What lies before the end and was not delivered is no record: markers of transactions, mostly. To stand behind them
        // matters: when they expire, nothing was lost. But a new leader may not know yet how long its log is.
        let news = offset.is_some_and(|offset| offset > filling.next);
        filling.next = filling.next.max(offset.unwrap_or_default());
        let (at, ends) = (filling.at, filling.is_done());
        if news || !filling.is_empty() {
            self.flush(lane)?;
        }
        if !ends {
            return Ok(());
        }
        if self.reading.remove(&at) {
            self.feed.unassign(at)?;
        }
        self.end(lane)
    }

    /// Of what begins from this lane on, some is at its end already.
    fn end_done(&mut self, from: usize) -> Outcome {
        for lane in from..self.lanes.len() {
            if self.lanes[lane].is_done() {
                self.end(lane)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, lane: usize) -> Outcome {
        self.lanes[lane].ended = true;
        self.send(Item::Ended { lane })
    }

    /// Waits while the channel is full.
    fn send(&mut self, item: Item) -> Outcome {
        let began = Instant::now();
        let Some(mut item) = self.try_send(item)? else { return Ok(()) };
        while !self.stalled && began.elapsed() < STALLED {
            std::thread::sleep(FULL);
            match self.try_send(item)? {
                None => return Ok(()),
                Some(back) => item = back,
            }
        }
        if !std::mem::replace(&mut self.stalled, true) {
            let flowing = self.flowing();
            if !flowing.is_empty() {
                self.feed.pause(&flowing)?;
            }
        }
        while let Some(back) = self.try_send(item)? {
            item = back;
            // A record that was on its way all the same goes into its batch, which is given away in its turn.
            match self.step(10 * FULL)? {
                Step::Nothing => std::thread::sleep(FULL),
                Step::Took | Step::Flush(_) | Step::Failed { fault: Fault::Passing, .. } => {}
                step => self.later.push_back(step),
            }
        }
        Ok(())
    }

    /// Reads on after the channel was full for long.
    fn go_on(&mut self) -> Result<()> {
        self.stalled = false;
        let flowing = self.flowing();
        if flowing.is_empty() { Ok(()) } else { self.feed.resume(&flowing) }
    }

    /// What is read and was not told to pause.
    fn flowing(&self) -> Vec<Partition> {
        self.reading.iter().filter(|at| !self.paused.contains(at)).copied().collect()
    }

    /// The item comes back when the channel is full.
    fn try_send(&self, item: Item) -> Outcome<Option<Item>> {
        match self.out.try_send(item) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(item)) => Ok(Some(item)),
            Err(TrySendError::Closed(_)) => Err(None),
        }
    }

    /// Does what the reader says.
    fn obey(&mut self) -> Outcome {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Pause(paused)) => self.pause(paused)?,
                Ok(Command::Add(begins, reply)) => {
                    if self.stalled {
                        self.go_on()?;
                    }
                    let first = self.lanes.len();
                    self.assign(&begins)?;
                    let _ = reply.send(());
                    self.end_done(first)?;
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(None),
            }
        }
    }

    fn pause(&mut self, paused: Vec<Partition>) -> Result<()> {
        let is_read = |at: &&Partition| self.reading.contains(at);
        let stop: Vec<_> = paused.iter().filter(|at| !self.paused.contains(at)).filter(is_read).copied().collect();
        let go: Vec<_> = self.paused.iter().filter(|at| !paused.contains(at)).filter(is_read).copied().collect();
        self.paused = paused;
        if self.stalled {
            return Ok(());
        }
        if !stop.is_empty() {
            self.feed.pause(&stop)?;
        }
        if go.is_empty() { Ok(()) } else { self.feed.resume(&go) }
    }

    /// librdkafka does not say of which partition records were replaced, but where it stood.
    fn truncated(&self, topic: usize, reason: &str) -> ConnectorError {
        let read = || self.lanes.iter().filter(|lane| lane.at.topic == topic && !lane.ended);
        let cut = fault::Cut::of(reason);
        // Offsets that are no records it may have passed alone, and what it fetched was given away before.
        let stood =
            |lane: &&Lane| cut.is_some_and(|cut| cut.end.unwrap_or_default() < lane.next && lane.next <= cut.next);
        let exactly: Vec<&Lane> = read().filter(|lane| cut.is_some_and(|cut| cut.next == lane.next)).collect();
        let perhaps: Vec<&Lane> = read().filter(stood).collect();
        let lanes = [exactly, perhaps].into_iter().find(|lanes| !lanes.is_empty());
        let lanes = lanes.unwrap_or_else(|| read().collect());
        let splits: Vec<String> = lanes.iter().map(|lane| lane.split.to_string()).collect();
        fault::truncated(&self.plan, topic, &splits, cut, reason)
    }

    /// librdkafka does not say either which partition has what cannot be read, but mostly it is what comes next.
    fn unreadable(&self, topic: usize, reason: &str) -> ConnectorError {
        fault::unreadable(&self.plan, topic, &self.stood(topic), reason)
    }

    /// The partitions of a topic that are read, with the offsets of their next records.
    fn stood(&self, topic: usize) -> Vec<(&SplitId, u64)> {
        let read = self.lanes.iter().filter(|lane| lane.at.topic == topic && !lane.ended);
        read.map(|lane| (&lane.split, lane.next)).collect()
    }

    /// Finds out what a failure means for the partitions that are read. What was taken before it is given away first.
    fn failed(&mut self, topic: usize, fault: Fault, reason: &str) -> Outcome {
        if fault == Fault::Passing {
            return Ok(());
        }
        self.flush_all()?;
        // A broker that has just started may not know the topic yet, so it is asked until it knows as many as are read.
        let read = self.lanes.iter().filter(|lane| lane.at.topic == topic && !lane.ended);
        let expected = read.map(|lane| lane.at.number.saturating_add(1)).max().unwrap_or_default();
        let count = match fault {
            Fault::Truncated => return Err(Some(self.truncated(topic, reason))),
            Fault::Garbage => return Err(Some(self.unreadable(topic, reason))),
            Fault::Unknown | Fault::Position => self.feed.partitions(topic, expected)?,
            _ => return Err(Some(fault::failed(&self.plan, topic, fault, reason))),
        };
        for lane in self.lanes.iter().filter(|lane| lane.at.topic == topic && !lane.ended) {
            if count.is_none_or(|count| lane.at.number >= count) {
                return Err(Some(fault::deleted(&self.plan, &lane.split, lane.next)));
            }
            if fault == Fault::Position {
                for bounds in self.feed.bounds(&[lane.at])? {
                    start::check_within(&mut self.feed, &self.plan, lane.at, lane.next, bounds)?;
                }
            }
        }
        match fault {
            Fault::Position => Err(Some(fault::grown_again(&self.plan, topic, &self.stood(topic), reason))),
            // The topic is there: its metadata were late.
            _ => Ok(()),
        }
    }
}
