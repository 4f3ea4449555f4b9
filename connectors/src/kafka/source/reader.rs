//! The reader of a task: takes batches from its thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed, mpsc as std_mpsc},
    task::Poll,
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{
    appeared::Appeared,
    feed::{Feed, Partition},
    plan::Plan,
    poller::{Command, Item, Poller},
    start::{self, Assigned, Begin, Unknown},
};
use crate::{ConnectorError, Fetch, Position, PutOff, Result, SourceReader, SplitId};

/// Batches that wait between the thread and the task.
const WAITING: usize = 4;

/// The ends of partitions: those at the start, and then as librdkafka's statistics tell them about once a second.
pub(super) type Ends = Arc<Mutex<BTreeMap<Partition, u64>>>;

pub(super) struct KafkaReader {
    plan: Plan,
    /// The partitions, in the order in which they were assigned.
    lanes: Vec<Reading>,
    items: mpsc::Receiver<Item>,
    commands: std_mpsc::Sender<Command>,
    /// What came of partitions that are paused, in order.
    held: VecDeque<Item>,
    paused: HashSet<SplitId>,
    /// What the thread was told last.
    told: BTreeSet<Partition>,
    ends: Ends,
    appeared: Appeared,
    /// What it is to read and cannot yet, and why.
    put_off: start::PutOff,
    /// Something has been fetched, or tried to be.
    reads_on: bool,
}

/// How far a partition has been handed over.
struct Reading {
    at: Partition,
    split: SplitId,
    next: u64,
    /// Where it ends for good, if it does.
    end: Option<u64>,
    begun: bool,
    ended: bool,
}

impl Reading {
    fn new(begin: &Begin, plan: &Plan) -> Self {
        let split = begin.at.split(&plan.topics);
        Self { at: begin.at, split, next: begin.next, end: begin.end, begun: false, ended: false }
    }
}

impl KafkaReader {
    /// A reader whose thread reads from the feed that `open` makes, which keeps the ends up to date that it is given. All that blocks
    /// happens there, or in a thread that asks with a feed of its own.
    pub(super) async fn start<F: Feed + 'static>(
        plan: Plan,
        assigned: Vec<Assigned>,
        ends: Ends,
        open: impl Fn(Option<Ends>) -> Result<F> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (out, items) = mpsc::channel(WAITING);
        let (commands, obeyed) = std_mpsc::channel();
        let (reply, begun) = oneshot::channel();
        let plan = Plan { without_origins: Arc::default(), ..plan };
        let open = Arc::new(open);
        let appeared = Appeared::new(&plan, open.clone());
        let (theirs, kept) = (plan.clone(), ends.clone());
        // Reading the secrets, connecting and asking where partitions begin block as well, so all of it happens there.
        let thread = move || {
            let begin = move || -> Result<_> {
                let mut feed = open(Some(kept))?;
                let (begins, put_off) = start::resolve(&mut feed, &theirs, &assigned)?;
                let mut poller = Poller::new(feed, theirs, out, obeyed);
                poller.assign(&begins)?;
                poller.waits_for(put_off.iter().map(|(assigned, _)| assigned.at));
                Ok((poller, begins, put_off))
            };
            match begin() {
                Ok((poller, begins, put_off)) => {
                    // If nobody waits any more the poller notices at once.
                    let _ = reply.send(Ok((begins, put_off)));
                    poller.run();
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        };
        std::thread::Builder::new()
            .name("windrow-kafka".into())
            .spawn(thread)
            .map_err(|error| ConnectorError::io("start a thread for", plan.name(), error))?;
        let begun: Result<_> = begun.await.map_err(|_| thread_ended(&plan))?;
        let (begins, put_off) = begun?;
        let mut reader = Self {
            plan,
            lanes: Vec::new(),
            items,
            commands,
            held: VecDeque::new(),
            paused: HashSet::new(),
            told: BTreeSet::new(),
            ends,
            appeared,
            put_off,
            reads_on: false,
        };
        reader.reads(&begins);
        Ok(reader)
    }

    /// From now on these too.
    fn reads(&mut self, begins: &[Begin]) {
        self.lanes.extend(begins.iter().map(|begin| Reading::new(begin, &self.plan)));
        // The statistics come later. Where all has been read by then and nothing more comes, nobody would ask for the lag again.
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for begin in begins {
            ends.entry(begin.at).or_insert(begin.known_end);
        }
    }

    fn is_paused(&self, item: &Item) -> bool {
        let lane = match item {
            Item::Rows { lane, .. } | Item::Ended { lane } => *lane,
            Item::Failed(_) => return false,
        };
        self.lanes.get(lane).is_some_and(|lane| self.paused.contains(&lane.split))
    }

    /// The first item that waited for its partition to go on.
    fn take_held(&mut self) -> Option<Item> {
        let first = self.held.iter().position(|item| !self.is_paused(item))?;
        let item = self.held.remove(first);
        self.tell();
        item
    }

    /// Tells the thread which partitions not to read: those that are paused, and those of which batches still wait here, so that
    /// these do not become more and more.
    fn tell(&mut self) {
        let held = self.held.iter().filter_map(|item| match item {
            Item::Rows { lane, .. } => Some(*lane),
            _ => None,
        });
        let held: HashSet<usize> = held.collect();
        let stop =
            |(i, lane): &(usize, &Reading)| !lane.ended && (held.contains(i) || self.paused.contains(&lane.split));
        let paused: BTreeSet<Partition> = self.lanes.iter().enumerate().filter(stop).map(|(_, lane)| lane.at).collect();
        if paused != self.told {
            // A thread that has ended says why through the channel.
            let _ = self.commands.send(Command::Pause(paused.iter().copied().collect()));
            self.told = paused;
        }
    }

    /// Why the thread has ended: it says so last of all.
    async fn why_ended(&mut self) -> ConnectorError {
        while let Some(item) = self.items.recv().await {
            self.held.push_back(item);
        }
        let failed = self.held.iter().position(|item| matches!(item, Item::Failed(_)));
        match failed.and_then(|failed| self.held.remove(failed)) {
            Some(Item::Failed(error)) => error,
            _ => thread_ended(&self.plan),
        }
    }

    /// What the task is to see of an item.
    fn hand_over(&mut self, item: Item) -> Result<Fetch> {
        match item {
            Item::Rows { lane, rows } => {
                let reading = &mut self.lanes[lane];
                (reading.next, reading.begun) = (rows.next.0, true);
                Ok(Fetch::Rows(rows))
            }
            Item::Ended { lane } => {
                let reading = &mut self.lanes[lane];
                reading.ended = true;
                Ok(Fetch::SplitEnd(reading.split.clone()))
            }
            Item::Failed(error) => Err(error),
        }
    }
}

/// What the thread says while it is asked to add partitions.
enum Either {
    Answer(Result<(), oneshot::error::RecvError>),
    Item(Option<Item>),
}

pub(super) fn thread_ended(plan: &Plan) -> ConnectorError {
    ConnectorError::Remote {
        system: plan.name(),
        reason: "the thread that reads it has ended unasked: a bug in the connector".to_string(),
        passes: true,
    }
}

#[async_trait]
impl SourceReader for KafkaReader {
    /// There is nothing between taking an item from the channel and returning it that could be cancelled.
    async fn fetch(&mut self) -> Result<Fetch> {
        self.reads_on = true;
        loop {
            if let Some(item) = self.take_held() {
                return self.hand_over(item);
            }
            if !self.plan.grows && self.put_off.is_empty() && self.lanes.iter().all(|lane| lane.ended) {
                return Ok(Fetch::End);
            }
            match self.items.recv().await {
                Some(item) if self.is_paused(&item) => self.held.push_back(item),
                Some(item) => return self.hand_over(item),
                // It has sent everything, and what is left is of paused partitions.
                None if !self.held.is_empty() => pending().await,
                None => return Err(thread_ended(&self.plan)),
            }
        }
    }

    fn without_origins(&mut self) {
        self.plan.without_origins.store(true, Relaxed);
    }

    fn positions(&self) -> Vec<(SplitId, Position)> {
        let unread = self.lanes.iter().filter(|lane| !lane.begun);
        unread.map(|lane| (lane.split.clone(), Position(lane.next))).collect()
    }

    fn ends(&self) -> Vec<(SplitId, Position)> {
        let end = |lane: &Reading| Some((lane.split.clone(), Position(lane.end?)));
        self.lanes.iter().filter_map(end).collect()
    }

    fn put_off(&self) -> Vec<PutOff> {
        let put_off = |(assigned, why): &(Assigned, Unknown)| PutOff {
            split: assigned.at.split(&self.plan.topics),
            reason: why.reason.clone(),
            behind: assigned.may_be_behind(&self.plan),
            unanswered: !why.leaderless,
        };
        self.put_off.iter().map(put_off).collect()
    }

    /// What was put off when it was made begins as it would have begun then.
    async fn add(&mut self, splits: Vec<SplitId>) -> Result<()> {
        let added = splits.iter().map(|split| Partition::of(split, &self.plan.topics)).collect::<Result<Vec<_>>>()?;
        let is_new = |at: &Partition| self.lanes.iter().all(|lane| lane.at != *at);
        let known: BTreeMap<Partition, Assigned> =
            self.put_off.iter().map(|(assigned, _)| (assigned.at, *assigned)).collect();
        let assigned = |at| known.get(&at).copied().unwrap_or(Assigned::appeared(at));
        let added: Vec<Assigned> = added.into_iter().filter(is_new).map(assigned).collect();
        let (begins, left) = self.appeared.find(&self.plan, &added, !self.reads_on).await?;
        self.put_off.retain(|(former, _)| added.iter().all(|assigned| assigned.at != former.at));
        self.put_off.extend(left);
        if begins.is_empty() {
            return Ok(());
        }
        let (reply, mut assigned) = oneshot::channel();
        if self.commands.send(Command::Add(begins.clone(), reply)).is_err() {
            return Err(self.why_ended().await);
        }
        // The thread may stand before a full channel, and must get past it to see the command.
        loop {
            let answer = poll_fn(|context| match Pin::new(&mut assigned).poll(context) {
                Poll::Ready(answer) => Poll::Ready(Either::Answer(answer)),
                Poll::Pending => self.items.poll_recv(context).map(Either::Item),
            });
            match answer.await {
                Either::Answer(Ok(())) => break,
                Either::Item(Some(item)) => self.held.push_back(item),
                Either::Answer(Err(_)) | Either::Item(None) => return Err(self.why_ended().await),
            }
        }
        self.reads(&begins);
        self.tell();
        Ok(())
    }

    /// librdkafka learns of new ends with the records it fetches: what is written to a partition that is paused is not counted.
    fn lag(&self) -> Vec<(SplitId, u64)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = self.lanes.iter().filter_map(|lane| {
            let left = ends.get(&lane.at)?.saturating_sub(lane.next);
            Some((lane.split.clone(), if lane.ended { 0 } else { left }))
        });
        lag.collect()
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.paused = splits.iter().cloned().collect();
        self.tell();
        true
    }
}
