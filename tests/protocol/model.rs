//! The protocol as a `stateright` model: its bounds, and everything that can happen next in a state.
//!
//! Time is not in the model: a process that is not stepped is paused, and one that is stepped again after others is the
//! zombie that wakes. So a pause, and a zombie that continues, lie between any two steps of everybody; a request that
//! arrives late is a pause before its step; a request that fails is one that was never made.

use stateright::{Model, Property};

use super::{
    kafka,
    mutants::{Defence, Mutation},
    state::{At, Run, State, Transaction},
};

/// Who decides an epoch (6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// S: the record `epoch/*` in the checkpoint store.
    Store,
    /// K: the Kafka transaction.
    Kafka,
}

/// The protocol within bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) mode: Mode,
    /// Processes that start, one after the other or together.
    pub(crate) incarnations: u8,
    /// How many of them may be alive at once; a paused one is alive.
    pub(crate) together: u8,
    /// Epochs that each of them begins.
    pub(crate) epochs: u8,
    /// Output files of each epoch.
    pub(crate) files: u8,
    /// Committed epochs that the garbage collector keeps; 0: it does not run.
    pub(crate) keep: u8,
    /// Also look whether the interesting states are reached.
    pub(crate) sights: bool,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) without: Option<Defence>,
}

/// What can happen. The number is that of an incarnation, or of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start(u8),
    /// The next step of the run; a run that is stopping ends.
    Step(u8),
    /// The same, but the reply of its Create is lost: it is done, and the run does not know.
    ReplyLost(u8),
    /// A crash: its memory is gone, what it has put somewhere stays.
    Crash(u8),
    /// The transaction of the next epoch begins while this one is being decided.
    BeginNext(u8),
    Collect(u8),
    /// The broker completes a transaction whose commit has begun.
    Complete(u8),
    /// The broker times a transaction out.
    TimeOut(u8),
}

impl Protocol {
    pub(crate) fn mutant(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn lacks(&self, defence: Defence) -> bool {
        self.without == Some(defence)
    }

    pub(crate) fn slots(&self) -> u8 {
        self.incarnations * self.epochs
    }

    pub(crate) fn generation_of(&self, slot: u8) -> u8 {
        (slot - 1) / self.epochs + 1
    }

    /// One step of a run, wherever it is. False: it waits, or has come to its end.
    pub(crate) fn step(&self, s: &mut State, p: usize, lost: bool) -> bool {
        match s.runs[p].at {
            At::Off | At::Dead | At::Alarm => false,
            At::Stopping(_) => {
                s.runs[p] = Run { at: At::Dead, ..Run::default() };
                true
            }
            _ => self.recover(s, p, lost) || self.run(s, p, lost),
        }
    }

    fn may_start(&self, s: &State, p: usize) -> bool {
        let mut alive = 0;
        for run in &s.runs {
            alive += u8::from(run.alive());
        }
        alive < self.together && (p == 0 || s.runs[p - 1].at != At::Off)
    }
}

/// Its next step is a Create, whose reply may be lost.
fn creates(at: At) -> bool {
    use At::{C5Sync, C6Create, C7Cache, PublishDone, R1Create, R4Answer, R4Fence};
    matches!(at, R1Create | R4Answer | R4Fence | C5Sync | C6Create | C7Cache | PublishDone)
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        for p in 0..self.incarnations {
            let run = &s.runs[p as usize];
            if run.at == At::Off {
                if self.may_start(s, p as usize) {
                    actions.push(Action::Start(p));
                }
                continue;
            }
            if run.at == At::Dead {
                continue;
            }
            actions.push(Action::Step(p));
            if matches!(run.at, At::Stopping(_) | At::Alarm) {
                continue;
            }
            actions.push(Action::Crash(p));
            if creates(run.at) {
                actions.push(Action::ReplyLost(p));
            }
            if self.mode == Mode::Kafka && run.epochs > 0 {
                actions.push(Action::BeginNext(p));
            }
            if self.keep > 0 && run.epochs > 0 {
                actions.push(Action::Collect(p));
            }
        }
        for (id, there) in (0..).zip(&s.ids) {
            match there.transaction {
                Transaction::None => {}
                Transaction::Prepared => actions.push(Action::Complete(id)),
                Transaction::Open | Transaction::Marked => actions.push(Action::TimeOut(id)),
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = *last;
        let moved = match action {
            Action::Start(p) => {
                self.start(&mut s, p as usize);
                true
            }
            Action::Step(p) => self.step(&mut s, p as usize, false),
            Action::ReplyLost(p) => self.step(&mut s, p as usize, true),
            Action::Crash(p) => {
                s.runs[p as usize] = Run { at: At::Dead, ..Run::default() };
                true
            }
            Action::BeginNext(p) => self.begin_next(&mut s, p as usize),
            Action::Collect(p) => self.collect(&mut s, p as usize),
            Action::Complete(id) => kafka::complete(&mut s, id as usize, !self.mutant(Mutation::MarkerOmitted)),
            Action::TimeOut(id) => kafka::time_out(&mut s, id as usize),
        };
        moved.then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![self.laws()];
        if self.sights {
            properties.extend(self.sights());
        }
        properties
    }
}
