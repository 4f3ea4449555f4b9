//! What has to hold in every state (6.8), and what has to be reached in some, lest the check be empty.
//!
//! The properties look at the durable facts, and ask four questions: is there one lineage (I1, I2), does everybody who may
//! still decide continue it (I3), does a reader see exactly its records (I4, the ranges), and can a process that starts
//! now continue it (I5, the lone restart)?

use stateright::Property;

use super::{
    kafka,
    model::{Mode, Protocol},
    mutants::Mutation,
    state::{Answer, At, Gc, Manifest, RUNS, Reason, Record, State, Transaction},
};

type Law = fn(&Protocol, &State) -> bool;

/// By the names of 6.8.
const LAWS: [(&str, Law); 8] = [
    ("I1: a commit begins only after its MANIFEST is durable", Protocol::manifest_first),
    ("I2: a number has one answer, and the committed epochs are one line", Protocol::one_lineage),
    ("I3: who may decide continues the newest committed epoch", Protocol::newest_continued),
    ("I4: a final name is of a committed epoch, and done means all of them", Protocol::finals),
    ("I5: what a restart needs is there", Protocol::nothing_needed_deleted),
    ("a reader sees consecutive ranges, each once", Protocol::ranges),
    ("nobody calls a human", |_, s| s.runs.iter().all(|run| run.at != At::Alarm)),
    ("a lone restart recovers, and publishes what is committed", Protocol::lone_restart),
];

impl Protocol {
    /// The law that a state breaks.
    pub(crate) fn broken(&self, s: &State) -> Option<&'static str> {
        LAWS.iter().find(|(_, holds)| !holds(self, s)).map(|(name, _)| *name)
    }

    /// One property, because the checker looks every name up in every state; `broken` tells the laws apart.
    pub(crate) fn laws(&self) -> Property<Self> {
        Property::always("the laws hold", |protocol, s| protocol.broken(s).is_none())
    }

    /// The states that make the check worth its name.
    pub(crate) fn sights(&self) -> Vec<Property<Self>> {
        let mut sights = vec![
            Property::sometimes("two starts take one generation", |_, s: &State| stopping(s, Reason::StartLost)),
            Property::sometimes("a recovery is overtaken by a newer one", |_, s: &State| {
                s.runs.iter().any(|run| run.at == At::R4Generation && run.generation < s.generations)
            }),
            Property::sometimes("publishing is repeated after a crash between two files", |_, s: &State| {
                let repeated = |head| (1..=2).contains(&s.attempt(head).last) && s.attempt(head).tmp == 2;
                s.runs.iter().any(|run| run.recovering && run.at == At::PublishLink && repeated(run.head))
            }),
            Property::sometimes("a torn MANIFEST is met at recovery", |_, s: &State| {
                let torn = |number| s.attempts.iter().any(|a| a.number == number && a.manifest == Manifest::Torn);
                s.runs.iter().any(|run| run.at == At::R3Manifests && torn(run.high + 1))
            }),
        ];
        if self.keep > 0 {
            sights.push(Property::sometimes("GC has deleted a MANIFEST", |_, s: &State| {
                s.runs.iter().any(|run| matches!(run.gc, Gc::Files(_)))
            }));
        }
        match self.mode {
            Mode::Store => sights.extend([
                Property::sometimes("a fence meets a record: back to R3", |_, s: &State| {
                    s.runs.iter().any(|run| {
                        let there = s.records[run.high as usize + 1];
                        run.at == At::R4Fence && matches!(there, Record::Commit(_))
                    })
                }),
                Property::sometimes("a zombie loses the race against the fence", |_, s: &State| {
                    stopping(s, Reason::Orphaned)
                }),
                Property::sometimes("a zombie wins before the fence, and stops", |_, s: &State| {
                    s.runs.iter().any(|run| run.at == At::C6Generation && run.generation < s.generations)
                }),
                Property::sometimes("an undecided MANIFEST is claimed", |_, s: &State| answering(s, Answer::Commit)),
            ]),
            Mode::Kafka => sights.extend([
                Property::sometimes("Kafka fences a zombie", |_, s: &State| stopping(s, Reason::Fenced)),
                Property::sometimes("a zombie commits before the fence", |_, s: &State| {
                    s.runs.iter().any(|run| run.at == At::C7Cache && run.generation < s.generations)
                }),
                Property::sometimes("an undecided MANIFEST is aborted", |_, s: &State| answering(s, Answer::Abort)),
                Property::sometimes("the marker answers for an undecided MANIFEST", |_, s: &State| {
                    answering(s, Answer::Commit)
                }),
                Property::sometimes("init_transactions waits for a commit that has begun", |_, s: &State| {
                    let waits = |at| at == At::R2First && s.ids[0].transaction == Transaction::Prepared;
                    s.runs.iter().any(|run| waits(run.at))
                }),
                Property::sometimes("both transactional ids are open", |_, s: &State| {
                    let open = |id: usize| s.ids[id].transaction == Transaction::Open;
                    open(0) && s.ids[1].transaction == Transaction::Marked
                }),
            ]),
        }
        sights
    }

    /// The truth: the record in mode S, the transaction in mode K.
    pub(crate) fn committed(&self, s: &State, slot: u8) -> bool {
        let attempt = s.attempt(slot);
        if slot == 0 || attempt.number == 0 {
            return false;
        }
        match self.mode {
            Mode::Store if self.mutant(Mutation::VoidManifestClaimed) => s.records.contains(&Record::Commit(slot)),
            Mode::Store => s.records[attempt.number as usize] == Record::Commit(slot),
            Mode::Kafka => attempt.visible || self.preparing(s, slot),
        }
    }

    fn preparing(&self, s: &State, slot: u8) -> bool {
        let is = |id: usize| s.ids[id].transaction == Transaction::Prepared && s.ids[id].slot == slot;
        is(0) || is(1)
    }

    fn newest(&self, s: &State) -> u8 {
        let mut newest = 0;
        for slot in 1..=self.slots() {
            if self.committed(s, slot) && s.attempt(slot).number > s.attempt(newest).number {
                newest = slot;
            }
        }
        newest
    }

    fn manifest_first(&self, s: &State) -> bool {
        let durable = |slot: u8| slot == 0 || s.attempt(slot).manifest == Manifest::Whole;
        match self.mode {
            Mode::Store => true, // The record is the commit, and I5 asks for the manifest it names.
            // Of an older one it may be collected: the broker takes its time to complete a commit.
            Mode::Kafka => {
                let newest = self.newest(s);
                !self.preparing(s, newest) || durable(newest)
            }
        }
    }

    fn one_lineage(&self, s: &State) -> bool {
        let (mut numbers, mut parents) = (0u16, 0u16);
        for slot in 1..=self.slots() {
            if !self.committed(s, slot) {
                continue;
            }
            let attempt = s.attempt(slot);
            let (number, parent) = (1 << attempt.number, 1 << attempt.parent);
            let orphan = attempt.parent != 0 && !self.committed(s, attempt.parent);
            let record = s.records[attempt.number as usize];
            let cached = record == Record::None || record == Record::Commit(slot);
            if orphan || numbers & number != 0 || parents & parent != 0 || !cached {
                return false;
            }
            (numbers, parents) = (numbers | number, parents | parent);
        }
        for record in &s.records {
            let contradicts = match *record {
                Record::Commit(slot) => !self.committed(s, slot),
                Record::Abort(slot) => self.committed(s, slot),
                _ => false,
            };
            if contradicts {
                return false;
            }
        }
        !s.answered_twice
    }

    /// The newest generation, once it has fenced the others: nothing may be committed but what it knows, or is at, and
    /// the records that it goes on from are the first that no committed epoch covers.
    fn newest_continued(&self, s: &State) -> bool {
        for (p, run) in s.runs.iter().enumerate() {
            if run.generation != s.generations || !run.alive() || !beyond_the_fence(run.at) {
                continue;
            }
            let newest = self.newest(s);
            let own = run.epochs > 0 && newest == self.slot_of(s, p);
            let covered = self.coverage(s, |slot| self.committed(s, slot));
            let position = s.attempt(newest).end;
            if newest != run.head && !own || covered != Some(position) {
                return false;
            }
        }
        true
    }

    fn finals(&self, s: &State) -> bool {
        for slot in 1..=self.slots() {
            let attempt = s.attempt(slot);
            if attempt.number == 0 {
                continue;
            }
            let done = s.done >> attempt.number & 1 == 1;
            let committed = self.committed(s, slot);
            if attempt.last != 0 && !committed || done && committed && attempt.last != self.all_files() {
                return false;
            }
        }
        true
    }

    fn all_files(&self) -> u8 {
        (1 << self.files) - 1
    }

    /// The newest committed epoch and an undecided one can be restored, and no file of any committed one is lost.
    fn nothing_needed_deleted(&self, s: &State) -> bool {
        let (newest, next) = (self.newest(s), s.highest() + 1);
        for slot in 1..=self.slots() {
            let attempt = s.attempt(slot);
            let committed = self.committed(s, slot);
            // Once whole, an undecided manifest has to stay. Its state file tells that it was written.
            let undecided = attempt.number == next && attempt.parent == newest && self.past_manifest(s, slot);
            if !committed && !undecided {
                continue;
            }
            let published = attempt.tmp | attempt.last == self.all_files();
            if !published || (undecided || slot == newest) && !s.restorable(slot) {
                return false;
            }
        }
        true
    }

    /// Whole, or deleted behind the back of a run that is about to decide it.
    fn past_manifest(&self, s: &State, slot: u8) -> bool {
        let deciding = |at| matches!(at, At::C6Create | At::C6Marker | At::C6EndTxn);
        let mut past = s.attempt(slot).manifest == Manifest::Whole;
        for (p, run) in s.runs.iter().enumerate() {
            past |= deciding(run.at) && run.epochs > 0 && self.slot_of(s, p) == slot && run.generation == s.generations;
        }
        past
    }

    /// How many records the attempts cover together, from the first one on. None: a gap, or a record twice.
    fn coverage(&self, s: &State, counts: impl Fn(u8) -> bool) -> Option<u8> {
        let mut seen = 0u32;
        for slot in 1..=self.slots() {
            if !counts(slot) {
                continue;
            }
            let attempt = s.attempt(slot);
            let range = (1u32 << attempt.end) - (1 << attempt.start);
            if seen & range != 0 {
                return None;
            }
            seen |= range;
        }
        (seen & (seen + 1) == 0).then_some(seen.count_ones() as u8)
    }

    fn ranges(&self, s: &State) -> bool {
        let consecutive = |file: u8| self.coverage(s, |slot| s.attempt(slot).last >> file & 1 == 1).is_some();
        let readable = |slot: u8| s.attempt(slot).visible && kafka::below_last_stable_offset(s, s.attempt(slot).number);
        let topic = self.mode == Mode::Store || self.coverage(s, readable).is_some();
        topic && consecutive(0) && (self.files < 2 || consecutive(1))
    }

    /// When all are dead, one start without any fault runs through, restores the newest committed epoch, and leaves every
    /// committed record visible. As everybody may crash in every state, this speaks for all of them.
    fn lone_restart(&self, s: &State) -> bool {
        if s.runs.iter().any(|run| run.alive()) {
            return true;
        }
        let (mut s, p) = (*s, RUNS - 1);
        self.start(&mut s, p);
        while s.runs[p].at != At::C2Stage {
            let completed = (0..2).any(|id| kafka::complete(&mut s, id, !self.mutant(Mutation::MarkerOmitted)));
            if !completed && !self.step(&mut s, p, false) {
                return false;
            }
        }
        let newest = self.newest(&s);
        let complete = |slot: u8| !self.committed(&s, slot) || s.attempt(slot).last == self.all_files();
        s.runs[p].head == newest && (1..=self.slots()).all(complete)
    }
}

fn stopping(s: &State, reason: Reason) -> bool {
    s.runs.iter().any(|run| run.at == At::Stopping(reason))
}

fn answering(s: &State, answer: Answer) -> bool {
    s.runs.iter().any(|run| run.at == At::R4Answer && run.answer == answer)
}

fn beyond_the_fence(at: At) -> bool {
    use At::{Alarm, Dead, Off, R1Create, R2First, R2Second, R3Manifests, R3Records, R4Answer, R4Fence, R4Generation};
    let before = matches!(at, R1Create | R2First | R2Second | R3Records | R3Manifests | At::R4Marker);
    let deciding = matches!(at, R4Generation | R4Answer | R4Fence);
    !before && !deciding && !matches!(at, Off | Dead | Alarm | At::Stopping(_))
}
