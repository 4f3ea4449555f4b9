//! The broker's side of mode K: fencing, the outcome of a transaction, and its timeout.
//!
//! ```text
//!              begin            marker             EndTxn(commit)             broker completes
//!     None  ----------> Open  ----------> Marked  ----------------> Prepared -----------------> None, visible
//!                        |                  |                          |
//!                        +- init_transactions of another, timeout -+   +- init_transactions waits
//!                                      None, not visible
//! ```
//!
//! The client learns the outcome in a step of its own (`C6Reply`): a lost reply is a crash between the two, a lost
//! request is a pause before the first, and "retriable, so the same call again" finds what is there.

use super::state::{NOBODY, State, Transaction, TransactionalId};

/// Fences the owner and aborts its open transaction. False: a commit has begun, wait for its completion.
pub(crate) fn init_transactions(s: &mut State, id: usize, generation: u8) -> bool {
    if s.ids[id].transaction == Transaction::Prepared {
        return false;
    }
    s.ids[id] = TransactionalId { owner: generation, ..TransactionalId::default() };
    true
}

/// What a client hears.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok,
    /// "Concurrent transactions": the previous commit of this id is not complete; try again.
    Wait,
    /// Another producer has the id, or the transaction was timed out: fatal.
    Fenced,
}

/// Lazily begins the transaction of an attempt.
pub(crate) fn begin(s: &mut State, id: usize, generation: u8, slot: u8) -> Reply {
    let there = &mut s.ids[id];
    if there.owner != generation {
        return Reply::Fenced;
    }
    match there.transaction {
        Transaction::Prepared => return Reply::Wait,
        Transaction::None => (there.transaction, there.slot) = (Transaction::Open, slot),
        Transaction::Open | Transaction::Marked => {}
    }
    if there.slot == slot { Reply::Ok } else { Reply::Fenced }
}

/// The marker, the last record of a transaction.
pub(crate) fn mark(s: &mut State, id: usize, generation: u8) -> Reply {
    let behind = matches!(s.ids[1 - id].transaction, Transaction::Marked | Transaction::Prepared);
    let there = &mut s.ids[id];
    if there.owner != generation || there.transaction != Transaction::Open {
        return Reply::Fenced;
    }
    (there.transaction, there.behind) = (Transaction::Marked, behind);
    s.ids[1 - id].behind = false;
    Reply::Ok
}

/// EndTxn(commit).
pub(crate) fn end(s: &mut State, id: usize, generation: u8, from: Transaction) -> Reply {
    let there = &mut s.ids[id];
    if there.owner != generation || there.transaction != from {
        return Reply::Fenced;
    }
    there.transaction = Transaction::Prepared;
    Reply::Ok
}

/// No transaction with a marker is open: the last stable offset of the marker topic is its end.
pub(crate) fn stable(s: &State) -> bool {
    let open = |id: &TransactionalId| matches!(id.transaction, Transaction::Marked | Transaction::Prepared);
    !open(&s.ids[0]) && !open(&s.ids[1])
}

/// A reader of a partition gets no further than the first transaction that is not complete. The sink gate puts all
/// records of e before those of e+1.
pub(crate) fn below_last_stable_offset(s: &State, number: u8) -> bool {
    let holds = |id: &TransactionalId| id.transaction != Transaction::None && s.attempt(id.slot).number <= number;
    !s.ids.iter().any(|id| holds(id) && s.attempt(id.slot).number != 0)
}

/// The broker writes the commit markers into the partitions. Two commits may be under way, and be completed in any order;
/// the newest marker is the one that stands last in its partition.
pub(crate) fn complete(s: &mut State, id: usize, with_marker: bool) -> bool {
    let TransactionalId { owner, transaction, slot, behind, overtaken } = s.ids[id];
    if transaction != Transaction::Prepared {
        return false;
    }
    s.attempt_mut(slot).visible = true;
    if with_marker && !overtaken {
        s.marker = slot;
    }
    let other = &mut s.ids[1 - id];
    if matches!(other.transaction, Transaction::Marked | Transaction::Prepared) {
        other.overtaken |= with_marker && behind;
    }
    s.ids[id] = TransactionalId { owner, ..TransactionalId::default() };
    true
}

/// The broker aborts a transaction that was open for too long, and fences its producer.
pub(crate) fn time_out(s: &mut State, id: usize) -> bool {
    let open = matches!(s.ids[id].transaction, Transaction::Open | Transaction::Marked);
    if open {
        s.ids[id] = TransactionalId { owner: NOBODY, ..TransactionalId::default() };
    }
    open
}
