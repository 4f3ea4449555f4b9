//! What readers see of a partition, found from its entries alone: nothing here asks the coordinator, the log's own
//! bookkeeping, or a producer.

use std::{collections::BTreeMap, sync::Arc};

use super::log::{Entry, Record};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Aborted,
    Open,
}

/// What became of each entry; control records count as committed. Goes backwards: the outcome of a record stands in the
/// first control record of its producer behind it.
fn outcomes(entries: &[Entry]) -> Vec<Outcome> {
    let mut next: BTreeMap<u64, Outcome> = BTreeMap::new();
    let mut outcomes: Vec<Outcome> = entries
        .iter()
        .rev()
        .map(|entry| match entry {
            Entry::Control { who, commit } => {
                next.insert(who.id, if *commit { Outcome::Committed } else { Outcome::Aborted });
                Outcome::Committed
            }
            Entry::Data { transactional: false, .. } => Outcome::Committed,
            Entry::Data { who, .. } => next.get(&who.id).copied().unwrap_or(Outcome::Open),
        })
        .collect();
    outcomes.reverse();
    outcomes
}

/// How far a `read_committed` reader gets: to the first record whose outcome is not known.
pub fn stable(entries: &[Entry]) -> usize {
    outcomes(entries).iter().position(|outcome| *outcome == Outcome::Open).unwrap_or(entries.len())
}

/// What a `read_committed` reader gets.
pub fn committed(entries: &[Entry]) -> Vec<Arc<Record>> {
    let known = outcomes(entries);
    let known = known.into_iter().take_while(|outcome| *outcome != Outcome::Open);
    let seen = entries.iter().zip(known).filter(|(_, outcome)| *outcome == Outcome::Committed);
    seen.filter_map(|(entry, _)| record(entry)).collect()
}

/// What a `read_uncommitted` reader gets.
pub fn uncommitted(entries: &[Entry]) -> Vec<Arc<Record>> {
    entries.iter().filter_map(record).collect()
}

fn record(entry: &Entry) -> Option<Arc<Record>> {
    match entry {
        Entry::Data { record, .. } => Some(record.clone()),
        Entry::Control { .. } => None,
    }
}
