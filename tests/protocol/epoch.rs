//! C1 to C9 of a running job, publishing (6.7), and the garbage collector beside them.
//!
//! ```text
//!   mode K  C2 stage -> C5 MANIFEST -> C6 marker -> EndTxn -> reply -> C7 cache  -+-> C8 publish, done -> C2 ...
//!   mode S  C2 stage -> C5 MANIFEST -> C6 Create epoch/e -> re-read gen/*        -+
//!
//!   C9      re-read gen/* -> classify -> delete manifests -> delete files
//! ```
//!
//! A replay is not deterministic, so an epoch of an odd generation covers one record, and one of an even generation two:
//! ranges of different incarnations do not fall together by luck.

use super::{
    kafka::{self, Reply},
    model::{Mode, Protocol},
    mutants::{Defence, Mutation},
    state::{At, Attempt, Gc, Manifest, Reason, Record, State, Transaction},
};

impl Protocol {
    /// One step of a run, or of its publishing in R5. False: it has nothing to do.
    pub(crate) fn run(&self, s: &mut State, p: usize, lost: bool) -> bool {
        match s.runs[p].at {
            At::C2Stage => return self.stage(s, p),
            At::C5Write => {
                self.attempt_of(s, p).manifest = Manifest::Torn;
                s.runs[p].at = At::C5Sync;
            }
            At::C5Sync => {
                // Its garbage collection, by a newer run that knows it to be void, is not undone by the end of the write.
                if self.attempt_of(s, p).manifest == Manifest::Torn {
                    self.attempt_of(s, p).manifest = Manifest::Whole;
                }
                // After a lost reply the next Create says AlreadyExists, and what is there is read back: whole.
                if !lost {
                    s.runs[p].at = self.after_manifest(s, p);
                }
            }
            At::C6Marker | At::C6EndTxn => self.transact(s, p),
            At::C6Reply => {
                let early = self.mutant(Mutation::CommitBeforeManifest);
                s.runs[p].at = if early { At::C5Write } else { At::C7Cache };
            }
            At::C7Cache => self.cache(s, p, lost),
            At::C6Create => self.decide(s, p, lost),
            At::C6Generation => {
                if s.generations != s.runs[p].generation {
                    s.runs[p].at = At::Stopping(Reason::Newer);
                } else {
                    self.decided(s, p);
                }
            }
            At::PublishLook => {
                let present = s.attempt(s.runs[p].head).last >> s.runs[p].file & 1 == 1;
                s.runs[p].at = if present { At::PublishUnlink } else { At::PublishLink };
            }
            At::PublishLink => self.link(s, p),
            At::PublishUnlink => self.unlink(s, p),
            At::PublishDone => self.write_done(s, p, lost),
            _ => return false,
        }
        true
    }

    /// The slot of the epoch that the run is at.
    pub(crate) fn slot_of(&self, s: &State, p: usize) -> u8 {
        (s.runs[p].generation - 1) * self.epochs + s.runs[p].epochs
    }

    fn attempt_of<'a>(&self, s: &'a mut State, p: usize) -> &'a mut Attempt {
        let slot = self.slot_of(s, p);
        s.attempt_mut(slot)
    }

    /// C2 to C4: state and tmp files are durable, the sinks have flushed.
    fn stage(&self, s: &mut State, p: usize) -> bool {
        let run = s.runs[p];
        if run.epochs == self.epochs {
            return false;
        }
        s.runs[p].epochs += 1;
        let (slot, number) = (self.slot_of(s, p), run.high + 1);
        if self.mode == Mode::Kafka {
            let id = usize::from(number & 1);
            let first_use = self.mutant(Mutation::OneIdFenced) && id == 1 && run.epochs < 2;
            if first_use && s.ids[id].owner != run.generation && !kafka::init_transactions(s, id, run.generation) {
                return false;
            }
            match kafka::begin(s, id, run.generation, slot) {
                Reply::Ok => {}
                Reply::Wait => return false,
                Reply::Fenced => {
                    s.runs[p].at = At::Stopping(Reason::Fenced);
                    return true;
                }
            }
        }
        let start = s.attempt(run.head).end;
        let end = start + if run.generation & 1 == 1 { 1 } else { 2 };
        let tmp = (1 << self.files) - 1;
        let attempt = s.attempt_mut(slot);
        *attempt = Attempt { number, parent: run.head, start, end, state: true, tmp, ..Attempt::default() };
        for other in 1..=self.slots() {
            if self.same_names(s, slot, other) {
                s.attempt_mut(other).tmp = 0;
            }
        }
        s.runs[p].at = match self.mode {
            _ if !self.mutant(Mutation::CommitBeforeManifest) => At::C5Write,
            Mode::Kafka => At::C6Marker,
            Mode::Store => At::C6Create,
        };
        true
    }

    fn after_manifest(&self, s: &mut State, p: usize) -> At {
        match self.mode {
            Mode::Kafka if self.mutant(Mutation::CommitBeforeManifest) => At::C7Cache,
            Mode::Store if self.mutant(Mutation::CommitBeforeManifest) => {
                self.decided(s, p);
                s.runs[p].at
            }
            Mode::Kafka if self.mutant(Mutation::MarkerOmitted) => At::C6EndTxn,
            Mode::Kafka => At::C6Marker,
            Mode::Store => {
                if self.mutant(Mutation::PublishedBeforeDecision) {
                    let all = (1 << self.files) - 1;
                    self.attempt_of(s, p).last = all;
                }
                At::C6Create
            }
        }
    }

    /// The records of e+1 flow while e is being decided: its transaction may begin at any time.
    pub(crate) fn begin_next(&self, s: &mut State, p: usize) -> bool {
        let run = s.runs[p];
        let busy = matches!(run.at, At::C5Write | At::C5Sync | At::C6Marker | At::C6EndTxn | At::C6Reply | At::C7Cache);
        let id = usize::from(run.high & 1);
        if !busy || run.epochs == self.epochs || s.ids[id].transaction != Transaction::None {
            return false;
        }
        let next = self.slot_of(s, p) + 1;
        kafka::begin(s, id, run.generation, next) == Reply::Ok
    }

    /// C6 in mode K.
    fn transact(&self, s: &mut State, p: usize) {
        let (id, generation) = (usize::from((s.runs[p].high + 1) & 1), s.runs[p].generation);
        let marked = if self.mutant(Mutation::MarkerOmitted) { Transaction::Open } else { Transaction::Marked };
        let (reply, next) = match s.runs[p].at {
            At::C6Marker => (kafka::mark(s, id, generation), At::C6EndTxn),
            _ => (kafka::end(s, id, generation, marked), At::C6Reply),
        };
        s.runs[p].at = if reply == Reply::Ok { next } else { At::Stopping(Reason::Fenced) };
    }

    /// C6 in mode S: the record is the decision.
    fn decide(&self, s: &mut State, p: usize, lost: bool) {
        let record = Record::Commit(self.slot_of(s, p));
        let there = s.create(s.runs[p].high + 1, record);
        if lost {
        } else if there != record {
            s.runs[p].at = At::Stopping(Reason::Orphaned);
        } else if self.mutant(Mutation::CommitBeforeManifest) {
            s.runs[p].at = At::C5Write;
        } else if self.lacks(Defence::GenerationReadAfterCreate) {
            self.decided(s, p);
        } else {
            s.runs[p].at = At::C6Generation;
        }
    }

    /// C7: a cached copy of Kafka's decision.
    fn cache(&self, s: &mut State, p: usize, lost: bool) {
        let record = Record::Commit(self.slot_of(s, p));
        let there = s.create(s.runs[p].high + 1, record);
        if lost {
        } else if there == record {
            self.decided(s, p);
        } else {
            self.refuse(s, p);
        }
    }

    fn decided(&self, s: &mut State, p: usize) {
        s.runs[p].head = self.slot_of(s, p);
        s.runs[p].high += 1;
        if self.mutant(Mutation::DecidedWhileUnpublished) && s.runs[p].epochs < self.epochs {
            s.runs[p].at = At::C2Stage;
        } else {
            self.publish(s, p, 0);
        }
    }

    /// 6.7, one file after the other.
    pub(crate) fn publish(&self, s: &mut State, p: usize, file: u8) {
        let looks = self.mutant(Mutation::LooksBeforeLink);
        s.runs[p].file = file;
        s.runs[p].at = if looks { At::PublishLook } else { At::PublishLink };
        if file == 0 && self.mutant(Mutation::DoneBeforePublish) {
            let number = s.attempt(s.runs[p].head).number;
            s.done |= 1 << number;
        }
    }

    /// `link(tmp, final)`, and what its error means. Looking at the final name comes after the tmp name was found absent:
    /// two runs may publish the same epoch, and the other one unlinks the tmp file after it has linked it.
    fn link(&self, s: &mut State, p: usize) {
        let (head, bit) = (s.runs[p].head, 1 << s.runs[p].file);
        let looked = self.mutant(Mutation::LooksBeforeLink);
        let mut taken = false;
        for other in 1..=self.slots() {
            taken |= self.same_names(s, head, other) && s.attempt(other).last & bit != 0;
        }
        let attempt = s.attempt_mut(head);
        let (tmp, last) = (attempt.tmp & bit != 0, attempt.last & bit != 0);
        if last && self.mutant(Mutation::EarlyReturnInPublish) {
            s.runs[p].at = At::PublishDone;
        } else if taken || !tmp && (!last || looked) {
            self.refuse(s, p);
        } else {
            attempt.last |= bit;
            s.runs[p].at = At::PublishUnlink;
        }
    }

    /// Their files have the same names. Never in the protocol: generation and nonce are in them.
    fn same_names(&self, s: &State, one: u8, other: u8) -> bool {
        if self.mutant(Mutation::NamesNeitherEpochNorGeneration) {
            one != other && one % self.epochs == other % self.epochs
        } else {
            let number = s.attempt(one).number;
            self.lacks(Defence::GenerationInNames) && one != other && s.attempt(other).number == number
        }
    }

    fn unlink(&self, s: &mut State, p: usize) {
        let (head, file) = (s.runs[p].head, s.runs[p].file);
        s.attempt_mut(head).tmp &= !(1 << file);
        if file + 1 < self.files {
            self.publish(s, p, file + 1);
        } else {
            s.runs[p].file = 0;
            s.runs[p].at = At::PublishDone;
        }
    }

    fn write_done(&self, s: &mut State, p: usize, lost: bool) {
        let number = s.attempt(s.runs[p].head).number;
        s.done |= 1 << number;
        if lost {
            return;
        }
        s.runs[p].file = 0;
        if s.runs[p].recovering {
            self.published(s, p);
        } else {
            s.runs[p].at = At::C2Stage;
        }
    }

    /// C9: a step of the garbage collector.
    pub(crate) fn collect(&self, s: &mut State, p: usize) -> bool {
        let run = s.runs[p];
        match run.gc {
            Gc::Idle => {
                let running = run.alive() && run.epochs > 0 && !matches!(run.at, At::Stopping(_) | At::Alarm);
                if !running || !s.is_done(run.head) {
                    return false;
                }
                if s.generations == run.generation || self.lacks(Defence::GenerationReadInGc) {
                    s.runs[p].gc = Gc::Checked;
                } else {
                    s.runs[p].at = At::Stopping(Reason::Newer);
                }
            }
            Gc::Checked => {
                let oldest = self.oldest_kept(s);
                s.runs[p].gc = if self.any_doomed(s, oldest) { Gc::Manifests(oldest) } else { Gc::Idle };
            }
            Gc::Manifests(oldest) => {
                for slot in 1..=self.slots() {
                    if self.doomed(s, slot, oldest) {
                        s.attempt_mut(slot).manifest = Manifest::Absent;
                    }
                }
                s.runs[p].gc = Gc::Files(oldest);
            }
            Gc::Files(oldest) => {
                for slot in 1..=self.slots() {
                    let kept = s.refers(oldest, slot) && !self.mutant(Mutation::GcIgnoresReferences);
                    if self.doomed(s, slot, oldest) && !kept {
                        s.attempt_mut(slot).state = false;
                    }
                }
                if self.mutant(Mutation::NamesDeletedByGc) {
                    s.forgotten |= (1 << s.attempt(oldest).number) - 1;
                }
                s.runs[p].gc = Gc::Idle;
            }
        }
        true
    }

    /// The oldest of the committed epochs to keep; 0 while there are not more of them.
    fn oldest_kept(&self, s: &State) -> u8 {
        let mut kept = if self.lacks(Defence::TwoKept) { 1 } else { self.keep };
        let mut number = s.highest();
        while number > 0 {
            if let Record::Commit(slot) = s.records[number as usize] {
                kept -= 1;
                if kept == 0 {
                    return slot;
                }
            }
            number -= 1;
        }
        0
    }

    fn doomed(&self, s: &State, slot: u8, oldest: u8) -> bool {
        let number = s.attempt(slot).number;
        if self.mutant(Mutation::GcDeletesUndecided) && number > s.highest() {
            return true;
        }
        let newest = self.mutant(Mutation::GcDeletesNewest) && slot == s.last_committed(s.highest());
        newest || number != 0 && number < s.attempt(oldest).number
    }

    fn any_doomed(&self, s: &State, oldest: u8) -> bool {
        let mut any = false;
        for slot in 1..=self.slots() {
            let attempt = s.attempt(slot);
            let left = attempt.manifest != Manifest::Absent || attempt.state && !s.refers(oldest, slot);
            any |= left && self.doomed(s, slot, oldest);
        }
        any
    }
}
