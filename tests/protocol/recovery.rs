//! R1 to R8: from a start to a run that reads records, one access to the store or to Kafka per step.
//!
//! ```text
//!   R1 gen/{max+1} -> R2 init_transactions, both ids -> R3 records, manifests -> R4 marker
//!                                                          ^                        |
//!                    number taken by somebody else         |       R4 re-read gen/*: newer -> stop     (the mend)
//!                                                          |                        |
//!                                                          +---- R4 answer u, Create the fence record
//!                                                                                   |
//!                           C2 <- R8 restore <- R6 delete older tmp files <- R5 publish c again
//! ```

use super::{
    kafka,
    model::{Mode, Protocol},
    mutants::{Defence, Mutation},
    state::{Answer, At, Manifest, NOBODY, Reason, Record, State},
};

impl Protocol {
    /// Starts a run: it reads the highest generation, and is to create the next one.
    pub(crate) fn start(&self, s: &mut State, p: usize) {
        s.runs[p].high = s.generations;
        s.runs[p].at = At::R1Create;
    }

    /// One step of a recovery. False: it has to wait.
    pub(crate) fn recover(&self, s: &mut State, p: usize, lost: bool) -> bool {
        match s.runs[p].at {
            At::R1Create => self.take_generation(s, p, lost),
            At::R2First => return self.fence_kafka(s, p, 0),
            At::R2Second => return self.fence_kafka(s, p, 1),
            At::R3Records => {
                let high = s.highest();
                s.runs[p].high = high;
                s.runs[p].head = s.last_committed(high);
                s.runs[p].at = At::R3Manifests;
            }
            At::R3Manifests => self.read_manifests(s, p),
            At::R4Marker => return self.read_marker(s, p),
            At::R4Generation => self.reread_generation(s, p),
            At::R4Answer => self.answer(s, p, lost),
            At::R4Fence => self.fence(s, p, lost),
            At::R5Look => {
                let done = s.is_done(s.runs[p].head);
                if done {
                    self.published(s, p);
                } else {
                    s.runs[p].recovering = true;
                    self.publish(s, p, 0);
                }
            }
            At::R6Clean => {
                self.clean(s, p);
                let early = self.mutant(Mutation::TmpDeletedBeforeFence);
                s.runs[p].at = if early { self.before_deciding(s, p) } else { At::R8Restore };
            }
            At::R8Restore => self.restore(s, p),
            _ => return false,
        }
        true
    }

    fn take_generation(&self, s: &mut State, p: usize, lost: bool) {
        if s.generations != s.runs[p].high {
            s.runs[p].at = At::Stopping(Reason::StartLost);
            return;
        }
        s.generations += 1;
        if lost {
            return;
        }
        s.runs[p].generation = s.generations;
        s.runs[p].at = match self.mode {
            Mode::Kafka if !self.mutant(Mutation::MarkerReadBeforeFence) => At::R2First,
            _ => self.before_reading(),
        };
    }

    /// `init_transactions` aborts what is open, and waits for what has begun to commit.
    fn fence_kafka(&self, s: &mut State, p: usize, id: usize) -> bool {
        if !kafka::init_transactions(s, id, s.runs[p].generation) {
            return false;
        }
        let early = self.mutant(Mutation::MarkerReadBeforeFence);
        s.runs[p].at = match id {
            0 if !self.mutant(Mutation::OneIdFenced) => At::R2Second,
            _ if early => self.before_deciding(s, p),
            _ => self.before_reading(),
        };
        true
    }

    /// R3: the manifests. An undecided one counts if it is whole, has the next number, and continues the last committed.
    fn read_manifests(&self, s: &mut State, p: usize) {
        let (high, head) = (s.runs[p].high, s.runs[p].head);
        if head != 0 && s.attempt(head).manifest != Manifest::Whole {
            // The second mend. Older runs may have decided more epochs since the records were read, and have collected
            // this one; then there are newer records by now, and only otherwise a file is missing.
            let newer = s.highest() != high && !self.mutant(Mutation::MissingManifestRefused);
            return if newer { self.read_again(s, p) } else { self.refuse(s, p) };
        }
        let any = self.mutant(Mutation::VoidManifestClaimed);
        let torn = self.mutant(Mutation::TornManifestTrusted) || self.lacks(Defence::TornSeenInModeK);
        let enough = if torn { Manifest::Torn } else { Manifest::Whole };
        let any_parent = self.lacks(Defence::ParentCompared);
        let mut undecided = 0;
        for slot in 1..=self.slots() {
            let attempt = s.attempt(slot);
            let fits = attempt.number == high + 1 && (any_parent || attempt.parent == head);
            let void = any && attempt.number != 0 && !self.committed(s, slot);
            if attempt.manifest >= enough && (fits || void) && attempt.number >= s.attempt(undecided).number {
                undecided = slot;
            }
        }
        s.runs[p].undecided = undecided;
        s.runs[p].answer = match undecided {
            0 => Answer::None,
            _ if self.lacks(Defence::ClaimInModeS) => Answer::None,
            _ => Answer::Commit,
        };
        s.runs[p].at = match self.mode {
            Mode::Kafka => At::R4Marker,
            Mode::Store if self.mutant(Mutation::TmpDeletedBeforeFence) => At::R6Clean,
            Mode::Store => self.before_deciding(s, p),
        };
    }

    /// R4 in mode K. A read_committed consumer that has to reach the high watermark waits for every open transaction
    /// below it.
    fn read_marker(&self, s: &mut State, p: usize) -> bool {
        if !kafka::stable(s) {
            return false;
        }
        let run = &mut s.runs[p];
        if self.mutant(Mutation::UndecidedNotAnswered) {
            run.answer = Answer::None;
        } else if self.mutant(Mutation::ClaimedInModeK) {
            run.answer = if run.undecided == 0 { Answer::None } else { Answer::Commit };
        } else if run.undecided != 0 && s.marker == run.undecided {
            run.answer = Answer::Commit;
        } else if s.marker == run.head {
            run.answer = if run.undecided == 0 { Answer::None } else { Answer::Abort };
        } else {
            self.refuse(s, p);
            return true;
        }
        s.runs[p].at = if self.mutant(Mutation::MarkerReadBeforeFence) {
            At::R2First
        } else if self.mutant(Mutation::TmpDeletedBeforeFence) {
            At::R6Clean
        } else {
            self.before_deciding(s, p)
        };
        true
    }

    /// Before the reads. Only the mutants have something to do here.
    fn before_reading(&self) -> At {
        if self.mutant(Mutation::GenerationReadFirst) { At::R4Generation } else { At::R3Records }
    }

    /// After the last read of a recovery, before the first record that it writes.
    fn before_deciding(&self, s: &State, p: usize) -> At {
        let not_here = self.mutant(Mutation::NoGenerationReadInRecovery)
            || self.mutant(Mutation::GenerationReadFirst)
            || self.mutant(Mutation::GenerationReadLast);
        if !not_here {
            At::R4Generation
        } else if s.runs[p].answer == Answer::None {
            self.before_fencing()
        } else {
            At::R4Answer
        }
    }

    fn before_fencing(&self) -> At {
        if self.mutant(Mutation::NoFenceRecord) { At::R5Look } else { At::R4Fence }
    }

    /// The mend. What this run goes on with, it has read before any newer generation existed, or it stops here. Then its
    /// records cannot answer for an epoch of a newer run, and fences stand in the order of the generations.
    fn reread_generation(&self, s: &mut State, p: usize) {
        let newest = s.generations == s.runs[p].generation;
        s.runs[p].at = if !newest {
            At::Stopping(Reason::Newer)
        } else if self.mutant(Mutation::GenerationReadFirst) {
            At::R3Records
        } else if self.mutant(Mutation::GenerationReadLast) {
            At::R5Look
        } else if s.runs[p].answer == Answer::None {
            self.before_fencing()
        } else {
            At::R4Answer
        };
    }

    fn answer(&self, s: &mut State, p: usize, lost: bool) {
        let run = s.runs[p];
        let record = match run.answer {
            Answer::Abort => Record::Abort(run.undecided),
            _ => Record::Commit(run.undecided),
        };
        let there = s.create(run.high + 1, record);
        if lost {
            return;
        }
        if there != record {
            return self.read_again(s, p);
        }
        let run = &mut s.runs[p];
        run.high += 1;
        if run.answer == Answer::Commit {
            run.head = run.undecided;
        }
        (run.undecided, run.answer) = (0, Answer::None);
        run.at = self.before_fencing();
    }

    fn fence(&self, s: &mut State, p: usize, lost: bool) {
        let (number, record) = (s.runs[p].high + 1, Record::Fence(s.runs[p].generation));
        let there = s.create(number, record);
        if lost {
        } else if there == record {
            // Created now, or before a reply that was lost: its nonce is in it.
            s.runs[p].high = number;
            s.runs[p].at = if self.mutant(Mutation::GenerationReadLast) { At::R4Generation } else { At::R5Look };
        } else {
            self.read_again(s, p);
        }
    }

    /// Somebody else has taken the number: back to R3.
    fn read_again(&self, s: &mut State, p: usize) {
        let run = &mut s.runs[p];
        (run.undecided, run.answer, run.head, run.high) = (0, Answer::None, 0, 0);
        run.at = self.before_reading();
    }

    /// R5 is over, the files of `c` are published.
    pub(crate) fn published(&self, s: &mut State, p: usize) {
        s.runs[p].recovering = false;
        s.runs[p].at = if self.mutant(Mutation::TmpDeletedBeforeFence) { At::R8Restore } else { At::R6Clean };
    }

    /// R6: tmp files of older generations. Listing and deleting is one step: whatever a slow cleaner finds late is only
    /// more.
    fn clean(&self, s: &mut State, p: usize) {
        let run = s.runs[p];
        for slot in 1..=self.slots() {
            let generation = self.generation_of(slot);
            let older = generation < run.generation;
            let taken = older || self.mutant(Mutation::CleanerTakesNewer) && generation != run.generation;
            if taken && slot != run.head && slot != run.undecided {
                s.attempt_mut(slot).tmp = 0;
            }
        }
    }

    /// R8: everything that the manifest of `c` names has to be there.
    fn restore(&self, s: &mut State, p: usize) {
        let head = s.runs[p].head;
        if !s.restorable(head) {
            return self.refuse(s, p);
        }
        s.runs[p].at = At::C2Stage;
    }

    /// Something is missing or does not belong together. A run that was overtaken is allowed to be wrong about that.
    pub(crate) fn refuse(&self, s: &mut State, p: usize) {
        let newest = s.runs[p].generation == s.generations && s.generations != NOBODY;
        s.runs[p].at = if newest { At::Alarm } else { At::Stopping(Reason::Newer) };
    }
}
