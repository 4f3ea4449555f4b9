//! The transaction coordinator: who owns a transactional id, and what becomes of its transaction.
//!
//! ```text
//!                    AddPartitions              EndTxn               a control record in every partition
//!   Empty, Complete ───────────────► Ongoing ───────────► Prepare ─────────────────────────────────────► Complete
//!        ▲  │ Init: next epoch          │                  ▲   (decided, though nobody sees it yet)
//!        └──┘                           └── Init, expiry: next epoch, abort
//! ```
//!
//! The producer that owns an id is the one with its newest epoch; any other is told that it is fenced.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    broker::{Code, Partition},
    log::Identity,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    Ongoing,
    /// Decided; some control records are not written yet.
    Prepare {
        commit: bool,
    },
    Complete {
        commit: bool,
    },
}

/// A transactional id.
#[derive(Debug)]
pub struct Owned {
    pub who: Identity,
    /// Who it was before it wanted a new epoch; it may not have heard of it.
    before: Option<Identity>,
    pub state: State,
    /// In milliseconds.
    pub timeout: u64,
    /// Counts the transactions, so that an expiry does not meet the wrong one.
    pub number: u64,
    /// That the transaction writes to; once it is decided, those without a control record.
    pub partitions: BTreeSet<Partition>,
}

/// What the broker has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// Watch the time of this transaction.
    Watch,
    /// Write the control records.
    WriteOutcome,
}

#[derive(Debug, Default)]
pub struct Coordinator {
    ids: BTreeMap<String, Owned>,
    /// It moves to another broker, and answers nothing before.
    pub away_until: u64,
}

impl Coordinator {
    pub fn get(&self, id: &str) -> Option<&Owned> {
        self.ids.get(id)
    }

    pub fn open(&self) -> impl Iterator<Item = &str> {
        let open = |owned: &Owned| matches!(owned.state, State::Ongoing | State::Prepare { .. });
        self.ids.iter().filter(move |(_, owned)| open(owned)).map(|(id, _)| id.as_str())
    }

    /// Those with a transaction that nobody has decided.
    pub fn ongoing(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().filter(|(_, owned)| owned.state == State::Ongoing).map(|(id, _)| id.as_str())
    }

    /// A new owner; with `known` the old one, which wants a new epoch.
    pub fn init(
        &mut self,
        id: &str,
        timeout: u64,
        known: Option<Identity>,
        fresh: impl FnOnce() -> u64,
    ) -> (Result<Identity, Code>, Next) {
        let owned = self.ids.entry(id.to_owned()).or_insert_with(|| Owned {
            who: Identity { id: fresh(), epoch: 0 },
            before: None,
            state: State::Empty,
            timeout,
            number: 0,
            partitions: BTreeSet::new(),
        });
        if known.is_some() && known == owned.before && owned.state == State::Empty {
            return (Ok(owned.who), Next::Nothing);
        }
        if known.is_some_and(|known| known != owned.who) {
            return (Err(Code::Fenced), Next::Nothing);
        }
        match owned.state {
            State::Prepare { .. } => (Err(Code::ConcurrentTransactions), Next::Nothing),
            State::Ongoing => {
                owned.abort_by_fencing();
                (Err(Code::ConcurrentTransactions), Next::WriteOutcome)
            }
            State::Empty | State::Complete { .. } => {
                owned.who.epoch += 1;
                (owned.state, owned.timeout, owned.before) = (State::Empty, timeout, known);
                (Ok(owned.who), Next::Nothing)
            }
        }
    }

    /// A transaction is about to write to more partitions; it begins with the first of them.
    pub fn add(&mut self, id: &str, who: Identity, partitions: &[Partition]) -> (Result<(), Code>, Next) {
        let owned = match self.owned_by(id, who) {
            Ok(owned) => owned,
            Err(code) => return (Err(code), Next::Nothing),
        };
        let next = match owned.state {
            State::Prepare { .. } => return (Err(Code::ConcurrentTransactions), Next::Nothing),
            State::Ongoing => Next::Nothing,
            State::Empty | State::Complete { .. } => {
                owned.state = State::Ongoing;
                owned.number += 1;
                Next::Watch
            }
        };
        owned.partitions.extend(partitions.iter().cloned());
        (Ok(()), next)
    }

    /// Whether a transaction may write to a partition: asked by the partition's leader.
    pub fn may_write(&self, id: &str, who: Identity, partition: &Partition) -> Result<(), Code> {
        match self.ids.get(id) {
            Some(owned) if owned.who != who => Err(Code::Fenced),
            Some(owned) if owned.state == State::Ongoing && owned.partitions.contains(partition) => Ok(()),
            _ => Err(Code::InvalidState),
        }
    }

    /// Decides a transaction. Once this returns well the outcome is final, though no reader sees it yet.
    pub fn end(&mut self, id: &str, who: Identity, commit: bool) -> (Result<(), Code>, Next) {
        let owned = match self.owned_by(id, who) {
            Ok(owned) => owned,
            Err(code) => return (Err(code), Next::Nothing),
        };
        match owned.state {
            State::Ongoing => {
                owned.state = State::Prepare { commit };
                (Ok(()), Next::WriteOutcome)
            }
            // The same request again.
            State::Prepare { commit: decided } if decided == commit => {
                (Err(Code::ConcurrentTransactions), Next::Nothing)
            }
            State::Complete { commit: decided } if decided == commit => (Ok(()), Next::Nothing),
            State::Empty | State::Prepare { .. } | State::Complete { .. } => (Err(Code::InvalidState), Next::Nothing),
        }
    }

    /// The time of a transaction is over. False if it is no longer open.
    pub fn expire(&mut self, id: &str, number: u64) -> bool {
        match self.ids.get_mut(id) {
            Some(owned) if owned.number == number && owned.state == State::Ongoing => {
                owned.abort_by_fencing();
                true
            }
            _ => false,
        }
    }

    /// A control record is written; what it says, and by whom.
    pub fn written(&mut self, id: &str, partition: &Partition) -> Option<(Identity, bool)> {
        let owned = self.ids.get_mut(id)?;
        let State::Prepare { commit } = owned.state else { return None };
        if !owned.partitions.remove(partition) {
            return None;
        }
        if owned.partitions.is_empty() {
            owned.state = State::Complete { commit };
        }
        Some((owned.who, commit))
    }

    fn owned_by(&mut self, id: &str, who: Identity) -> Result<&mut Owned, Code> {
        self.ids.get_mut(id).filter(|owned| owned.who == who).ok_or(Code::Fenced)
    }
}

impl Owned {
    fn abort_by_fencing(&mut self) {
        self.who.epoch += 1;
        self.state = State::Prepare { commit: false };
    }
}
