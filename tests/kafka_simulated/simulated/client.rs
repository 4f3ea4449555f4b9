//! The thread of a producer: takes records from its queue, and sees to it that they are written, in order, once.
//!
//! ```text
//!   queue of partition 0:  r7 r6 r5 │ r4 r3 ──► Produce, first = 3, on its way     (one request a partition at a time)
//!   queue of partition 1:  r2 r1    │           AddPartitions first, once a transaction
//! ```
//!
//! It does as librdkafka does: what may be tried again is tried again with the same sequence numbers; a record that cannot be
//! written spoils its transaction, which can then only be aborted; a fenced producer can do nothing any more.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    broker::{Code, Partition, Reply, Request},
    log::{Identity, Record},
    world::{Caller, Process, World},
};

/// Whether a producer can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// The transaction can only be aborted.
    Spoiled(String),
    /// Nothing can be done any more with this producer; perhaps another one would do.
    Fatal(String),
}

#[derive(Debug)]
struct Waiting {
    /// Counts the records that were taken.
    number: u64,
    record: Arc<Record>,
    since: u64,
}

#[derive(Debug)]
enum Asked {
    Add(Vec<Partition>),
    Produce { partition: Partition, count: usize },
}

#[derive(Debug)]
pub struct Client {
    number: u64,
    pub process: Process,
    /// Its transactional id.
    pub id: Option<String>,
    pub who: Option<Identity>,
    /// When the transaction began.
    pub begun: Option<u64>,
    pub health: Health,
    /// Why a record could not be written; forgotten with its transaction.
    pub lost: Option<String>,
    /// The partitions that the coordinator knows of.
    pub added: BTreeSet<Partition>,
    queue: BTreeMap<Partition, VecDeque<Waiting>>,
    next: BTreeMap<Partition, u64>,
    /// What the thread waits for. One request at a time, so that one answer is for it.
    asked: Option<Asked>,
    /// What was sent to this partition last may have been written or not.
    pub unsure: Option<Partition>,
    queued_bytes: usize,
    taken: u64,
    /// The size of the record that was sent last, or had no room.
    pub wanted: usize,
    /// It will look at its queue again by itself.
    due: bool,
}

impl Client {
    pub fn new(number: u64, process: Process, id: Option<String>) -> Self {
        Self {
            number,
            process,
            id,
            who: None,
            begun: None,
            health: Health::Well,
            lost: None,
            added: BTreeSet::new(),
            queue: BTreeMap::new(),
            next: BTreeMap::new(),
            asked: None,
            unsure: None,
            queued_bytes: 0,
            taken: 0,
            wanted: 0,
            due: false,
        }
    }

    /// Another identity: sequence numbers begin anew.
    pub fn becomes(&mut self, who: Identity) {
        self.who = Some(who);
        self.next.clear();
        self.added.clear();
        self.unsure = None;
        self.health = Health::Well;
        self.lost = None;
    }

    /// How many records were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether nothing is left of the first `taken` records.
    pub fn is_through(&self, taken: u64) -> bool {
        self.queue.values().filter_map(VecDeque::front).all(|waiting| waiting.number > taken)
    }

    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    pub fn has_room(&self, bytes: usize, world: &World) -> bool {
        self.queued_bytes == 0 || self.queued_bytes + bytes <= world.settings.queue_bytes
    }

    pub fn take(&mut self, partition: Partition, record: Record, world: &mut World) {
        self.queued_bytes += size(&record);
        self.taken += 1;
        let waiting = Waiting { number: self.taken, record: Arc::new(record), since: world.now };
        self.queue.entry(partition).or_default().push_back(waiting);
        self.look_again(1, world);
    }

    /// Forgets what is queued; what is on its way stays so.
    pub fn purge(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
    }

    fn look_again(&mut self, after: u64, world: &mut World) {
        if !self.due {
            self.due = true;
            world.drain_after(self.number, after);
        }
    }

    /// Sends what there is.
    pub fn drain(&mut self, world: &mut World) {
        self.due = false;
        if self.asked.is_some() || world.asleep.contains(&self.process) || self.health != Health::Well {
            return;
        }
        let Some(who) = self.who else { return };
        let oldest = self.queue.values().filter_map(|queue| queue.front()).map(|waiting| waiting.since).min();
        let Some(oldest) = oldest else { return };
        if world.now >= oldest + world.settings.message_timeout {
            self.spoil(&format!("a record waited {} ms in vain", world.settings.message_timeout));
            return;
        }
        if let Some(id) = self.id.clone() {
            let new: Vec<Partition> =
                self.queue.keys().filter(|partition| !self.added.contains(*partition)).cloned().collect();
            if !new.is_empty() {
                self.asked = Some(Asked::Add(new.clone()));
                world.ask(Caller::Client(self.number), Request::Add { id, who, partitions: new });
                return;
            }
        }
        // The oldest first, so that no partition starves.
        let oldest = self.queue.iter().filter_map(|(partition, queue)| Some((queue.front()?.since, partition))).min();
        let Some(partition) = oldest.map(|(_, partition)| partition.clone()) else { return };
        self.unsure = Some(partition.clone());
        let waiting = self.queue.get(&partition).into_iter().flatten();
        let records: Vec<Arc<Record>> =
            waiting.take(world.settings.batch).map(|waiting| waiting.record.clone()).collect();
        let first = self.next.get(&partition).copied().unwrap_or(0);
        self.asked = Some(Asked::Produce { partition: partition.clone(), count: records.len() });
        let request = Request::Produce { id: self.id.clone(), who, partition, first, records };
        world.ask(Caller::Client(self.number), request);
    }

    /// A reply has come, or will not come any more.
    pub fn answered(&mut self, reply: &Reply, world: &mut World) {
        let Some(asked) = self.asked.take() else { return };
        match (reply, asked) {
            (Reply::TimedOut, _) => self.after_a_pause(world),
            (Reply::Error(code), _) if code.passes() => self.after_a_pause(world),
            (Reply::Error(Code::Fenced), _) => self.fenced(world),
            (Reply::Error(code), Asked::Produce { .. }) => self.spoil(&format!("a record was refused: {code:?}")),
            (Reply::Error(code), Asked::Add(_)) => self.spoil(&format!("a partition was refused: {code:?}")),
            (_, Asked::Add(partitions)) => {
                self.added.extend(partitions);
                self.look_again(0, world);
            }
            (_, Asked::Produce { partition, count }) => {
                self.unsure = None;
                *self.next.entry(partition.clone()).or_default() += count as u64;
                if let Some(queue) = self.queue.get_mut(&partition) {
                    for waiting in queue.drain(..count.min(queue.len())) {
                        self.queued_bytes = self.queued_bytes.saturating_sub(size(&waiting.record));
                    }
                    if queue.is_empty() {
                        self.queue.remove(&partition);
                    }
                }
                self.look_again(0, world);
            }
        }
    }

    fn after_a_pause(&mut self, world: &mut World) {
        let pause = world.plan.backoff();
        self.look_again(pause, world);
    }

    /// A record could not be written.
    fn spoil(&mut self, why: &str) {
        self.lost.get_or_insert_with(|| why.to_owned());
        self.purge();
        match self.id {
            Some(_) => self.health = Health::Spoiled(why.to_owned()),
            // Without a transaction it begins a new epoch by itself, and goes on.
            None => {
                if let Some(who) = &mut self.who {
                    who.epoch += 1;
                }
                self.next.clear();
            }
        }
    }

    /// The coordinator says so to who was replaced, and also to who took too long: the client cannot tell but by its clock.
    pub fn fenced(&mut self, world: &World) {
        let timeout = world.settings.transaction_timeout;
        let why = match self.begun.is_some_and(|begun| world.now >= begun + timeout) {
            true => format!("the transaction took longer than {timeout} ms and was thrown away"),
            false => "fenced: another producer has its transactional id".to_owned(),
        };
        if !self.queue.is_empty() {
            self.lost.get_or_insert_with(|| why.clone());
        }
        self.purge();
        // The engine finds out whether it was replaced.
        self.health = Health::Fatal(why);
    }
}

pub fn size(record: &Record) -> usize {
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + 50
}
