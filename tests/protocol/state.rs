//! What the model remembers: the durable facts that everybody sees, and the memory of each process that dies with it.
//!
//! ```text
//!   durable                                            memory of a run (one incarnation)
//!   gen/*    highest generation                        step, generation
//!   epoch/*  a record per number: fence|commit|abort   head: the checkpoint it continues
//!   done/*   a bit per number                          high: the highest number it knows answered
//!   ckpt/*   an attempt per slot:                      undecided + answer, while it recovers
//!            MANIFEST, state, tmp and final files      gc: what its garbage collector is about to delete
//!   Kafka    two transactional ids, newest marker
//! ```
//!
//! An *attempt* is the k-th epoch that generation g tried, so it has a slot of its own whatever number it got: two
//! attempts with one number are possible here, and for the properties to rule out. Slots are named from 1; 0 is "none".
//! Everything is a `u8` in a fixed array: the checker keeps millions of states and hashes every one.

use std::hash::{Hash, Hasher};

/// Incarnations that may start, and one more that the property "a lone restart recovers" runs by itself.
pub(crate) const RUNS: usize = 4;
/// Attempts: at most 3 incarnations of 3 epochs.
pub(crate) const SLOTS: usize = 9;
/// Names in `epoch/*`.
pub(crate) const NAMES: usize = 16;
/// Nobody: a transactional id before the first `init_transactions`, or after the broker timed its transaction out.
pub(crate) const NOBODY: u8 = 0;

/// A record in `epoch/*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Record {
    #[default]
    None,
    /// Written by this generation.
    Fence(u8),
    /// The attempt of this slot.
    Commit(u8),
    Abort(u8),
}

impl Record {
    fn code(self) -> u8 {
        match self {
            Record::None => 0,
            Record::Fence(generation) => 0x10 | generation,
            Record::Commit(slot) => 0x20 | slot,
            Record::Abort(slot) => 0x30 | slot,
        }
    }
}

/// A MANIFEST on the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub(crate) enum Manifest {
    #[default]
    Absent,
    Torn,
    Whole,
}

/// Everything that one attempt at an epoch leaves behind. Number, parent and range stay when its files are deleted: they
/// are what the properties talk about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Its number in `epoch/*`; 0: not tried yet.
    pub(crate) number: u8,
    /// The slot of the checkpoint that it continues.
    pub(crate) parent: u8,
    /// It covers the input records `start..end`.
    pub(crate) start: u8,
    pub(crate) end: u8,
    pub(crate) manifest: Manifest,
    /// Its own state file.
    pub(crate) state: bool,
    /// A bit per output file.
    pub(crate) tmp: u8,
    pub(crate) last: u8,
    /// Its Kafka transaction is visible to `read_committed`.
    pub(crate) visible: bool,
}

/// The transaction of a transactional id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transaction {
    #[default]
    None,
    Open,
    /// Open, and its last record is the marker.
    Marked,
    /// EndTxn(commit) is logged; the broker will complete it, whatever happens to the producer.
    Prepared,
}

/// A transactional id, as its coordinator knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransactionalId {
    /// The generation whose `init_transactions` was the last.
    pub(crate) owner: u8,
    pub(crate) transaction: Transaction,
    /// The attempt whose records it holds.
    pub(crate) slot: u8,
    /// Its marker stands behind that of the other id's transaction, which was not complete then.
    pub(crate) behind: bool,
    /// A marker behind its own is committed already.
    pub(crate) overtaken: bool,
}

/// Why a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Another start took the generation.
    StartLost,
    /// A newer generation exists.
    Newer,
    /// Its number in `epoch/*` has another answer.
    Orphaned,
    /// Kafka fenced its producer, or timed its transaction out.
    Fenced,
}

/// Where a run is: the name says the step that it will take next (6.5: C, 6.6: R).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum At {
    #[default]
    Off,
    R1Create,
    R2First,
    R2Second,
    R3Records,
    R3Manifests,
    R4Marker,
    R4Generation,
    R4Answer,
    R4Fence,
    R5Look,
    R6Clean,
    R8Restore,
    C2Stage,
    C5Write,
    C5Sync,
    C6Marker,
    C6EndTxn,
    C6Reply,
    C6Create,
    C6Generation,
    C7Cache,
    /// C8 and R5: `look` only in the mutant that looks before it links.
    PublishLook,
    PublishLink,
    PublishUnlink,
    PublishDone,
    Stopping(Reason),
    /// It refuses to go on, and calls a human. Never right here: nobody removes files or topics in this model.
    Alarm,
    Dead,
}

impl At {
    fn code(self) -> u8 {
        match self {
            At::Off => 0,
            At::R1Create => 1,
            At::R2First => 2,
            At::R2Second => 3,
            At::R3Records => 4,
            At::R3Manifests => 5,
            At::R4Marker => 6,
            At::R4Generation => 7,
            At::R4Answer => 8,
            At::R4Fence => 9,
            At::R5Look => 10,
            At::R6Clean => 11,
            At::R8Restore => 12,
            At::C2Stage => 13,
            At::C5Write => 14,
            At::C5Sync => 15,
            At::C6Marker => 16,
            At::C6EndTxn => 17,
            At::C6Reply => 18,
            At::C6Create => 19,
            At::C6Generation => 20,
            At::C7Cache => 21,
            At::PublishLook => 22,
            At::PublishLink => 23,
            At::PublishUnlink => 24,
            At::PublishDone => 25,
            At::Alarm => 26,
            At::Dead => 27,
            At::Stopping(reason) => 28 + reason as u8,
        }
    }
}

/// What a recovery found out about the undecided epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    None,
    Commit,
    Abort,
}

/// Where the garbage collector of a run is. It runs beside the epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gc {
    #[default]
    Idle,
    /// It has read `gen/*`, and is the newest.
    Checked,
    /// It has classified: this slot is the oldest that is kept. Manifests go first, then files.
    Manifests(u8),
    Files(u8),
}

/// The memory of one incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) at: At,
    pub(crate) generation: u8,
    /// Slot of the checkpoint that it continues: `c`, later its own last committed epoch.
    pub(crate) head: u8,
    /// The highest number in `epoch/*` that it knows to be answered; before R1 is over, the highest generation it saw.
    pub(crate) high: u8,
    pub(crate) undecided: u8,
    pub(crate) answer: Answer,
    /// Epochs it has begun.
    pub(crate) epochs: u8,
    /// The file that it publishes.
    pub(crate) file: u8,
    /// It publishes in R5, not in C8.
    pub(crate) recovering: bool,
    pub(crate) gc: Gc,
}

impl Run {
    pub(crate) fn alive(&self) -> bool {
        !matches!(self.at, At::Off | At::Dead)
    }
}

/// One state of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The highest name in `gen/*`; they are never deleted.
    pub(crate) generations: u8,
    /// `epoch/*`, by number.
    pub(crate) records: [Record; NAMES],
    /// Numbers whose record was deleted, which only a mutant does; the record above stays, to compare.
    pub(crate) forgotten: u16,
    /// A number got a second, different record.
    pub(crate) answered_twice: bool,
    /// `done/*`, a bit per number.
    pub(crate) done: u16,
    pub(crate) attempts: [Attempt; SLOTS],
    pub(crate) runs: [Run; RUNS],
    pub(crate) ids: [TransactionalId; 2],
    /// The attempt that the newest committed marker names.
    pub(crate) marker: u8,
}

impl State {
    /// The attempt of a slot. Slot 0, "no checkpoint", reads as one that covers nothing.
    pub(crate) fn attempt(&self, slot: u8) -> Attempt {
        if slot == 0 { Attempt::default() } else { self.attempts[slot as usize - 1] }
    }

    pub(crate) fn attempt_mut(&mut self, slot: u8) -> &mut Attempt {
        &mut self.attempts[slot as usize - 1]
    }

    /// The highest number in `epoch/*`. There are no gaps, so it is the first free one less one.
    pub(crate) fn highest(&self) -> u8 {
        let mut number = 0;
        while number + 1 < NAMES && self.records[number + 1] != Record::None {
            number += 1;
        }
        number as u8
    }

    /// The manifest of an attempt refers to the state file of another: to its own and the two before, as checkpoints are
    /// incremental.
    pub(crate) fn refers(&self, slot: u8, to: u8) -> bool {
        let parent = self.attempt(slot).parent;
        to != 0 && (to == slot || to == parent || to == self.attempt(parent).parent)
    }

    /// A restart from this attempt finds its manifest, and everything that it names.
    pub(crate) fn restorable(&self, slot: u8) -> bool {
        let there = |slot: u8| slot == 0 || self.attempt(slot).state;
        let parent = self.attempt(slot).parent;
        let manifest = slot == 0 || self.attempt(slot).manifest == Manifest::Whole;
        manifest && there(slot) && there(parent) && there(self.attempt(parent).parent)
    }

    /// The attempt that the newest commit record up to `number` names.
    pub(crate) fn last_committed(&self, number: u8) -> u8 {
        let mut number = number as usize;
        while number > 0 {
            if let Record::Commit(slot) = self.records[number] {
                return slot;
            }
            number -= 1;
        }
        0
    }

    /// Put-if-absent of `epoch/{number}`: the record that stands there afterwards.
    pub(crate) fn create(&mut self, number: u8, record: Record) -> Record {
        let forgotten = self.forgotten >> number & 1 == 1;
        let there = &mut self.records[number as usize];
        if *there == Record::None {
            *there = record;
        } else if forgotten {
            self.forgotten &= !(1 << number);
            self.answered_twice |= *there != record;
            *there = record;
        }
        *there
    }

    pub(crate) fn is_done(&self, slot: u8) -> bool {
        slot == 0 || self.done >> self.attempt(slot).number & 1 == 1
    }
}

/// One write of packed bytes: the derived one would be a hundred small ones.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut bytes = [0; NAMES + 5 * SLOTS + 8 * (RUNS - 1) + 12];
        let mut at = 0;
        let mut put = |byte: u8| {
            bytes[at] = byte;
            at += 1;
        };
        for record in &self.records {
            put(record.code());
        }
        for attempt in &self.attempts {
            put(attempt.number);
            if attempt.number == 0 {
                continue;
            }
            put(attempt.parent);
            put(attempt.start << 4 | attempt.end);
            put((attempt.manifest as u8) << 2 | (attempt.state as u8) << 1 | attempt.visible as u8);
            put(attempt.tmp << 4 | attempt.last);
        }
        for run in &self.runs[..RUNS - 1] {
            put(run.at.code());
            if !run.alive() {
                continue;
            }
            put(run.generation << 4 | run.head);
            put(run.high << 4 | run.undecided);
            put((run.answer as u8) << 4 | run.epochs << 2 | (run.recovering as u8) << 1);
            put(run.file);
            put(match run.gc {
                Gc::Idle => 0,
                Gc::Checked => 1,
                Gc::Manifests(slot) => 0x10 | slot,
                Gc::Files(slot) => 0x20 | slot,
            });
        }
        for id in &self.ids {
            put(id.owner << 4 | (id.behind as u8) << 3 | (id.overtaken as u8) << 2 | id.transaction as u8);
            put(id.slot);
        }
        put(self.generations << 4 | self.marker);
        put(self.done as u8);
        put((self.done >> 8) as u8);
        put(self.forgotten as u8);
        put((self.forgotten >> 8) as u8);
        put(self.answered_twice as u8);
        hasher.write(&bytes);
    }
}
