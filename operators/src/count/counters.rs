//! What is held for each key: how many rows it has had, and the windows that are not full.
//!
//! ```text
//!   put(key, rows, open) ──► changed in the save to come ──save──► all rows of the changed keys ──► a segment
//!        │
//!        └─ nothing left ──► gone, or, while an older segment has rows of the key, a mark that it is gone
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::state::segments::{Changes, Segments};

/// A window that is not full: the time of its first row, and the states of the aggregates in row format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) start: i64,
    pub(super) state: Box<[u8]>,
}

/// What is held for a key.
#[derive(Debug)]
pub(super) struct Counter {
    /// The rows since the first of the open windows began.
    pub(super) rows: u64,
    pub(super) open: Vec<Open>,
    /// The save in which it last changed, and the first that has it.
    changed: u32,
    born: u32,
}

impl Counter {
    /// How many rows it takes on disk.
    fn weight(&self) -> usize {
        self.open.len().max(1)
    }

    fn is_done(&self) -> bool {
        self.rows == 0
    }

    fn bytes(&self, key: &[u8]) -> usize {
        let open: usize = self.open.iter().map(|open| size_of::<Open>() + open.state.len()).sum();
        size_of::<Self>() + key.len() + open
    }
}

/// The counters of all keys, by the row format of the key.
#[derive(Debug, Default)]
pub(super) struct Counters {
    keys: HashMap<Box<[u8]>, Counter>,
    changes: Changes,
    /// Keys that are done, by the save in which they became so.
    done: BTreeMap<u32, HashSet<Box<[u8]>>>,
    bytes: usize,
}

impl Counters {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Counter> {
        self.keys.get(key)
    }

    /// Replaces what is held for a key. `save` is the number of the save to come.
    pub(super) fn put(&mut self, key: &[u8], rows: u64, open: Vec<Open>, save: u32) {
        let born = self.remove(key).map_or(save, |former| former.born);
        let counter = Counter { rows, open, changed: save, born };
        // Of a key that no segment has, nothing need be said when it is done.
        if !(counter.is_done() && born == save) {
            self.insert(key, counter);
        }
    }

    /// Takes what a segment has of a key that was last changed in the save `save`.
    pub(super) fn restore(&mut self, key: &[u8], rows: u64, open: Vec<Open>, save: u32) {
        self.insert(key, Counter { rows, open, changed: save, born: save });
    }

    fn insert(&mut self, key: &[u8], counter: Counter) {
        if counter.is_done() {
            self.done.entry(counter.changed).or_default().insert(key.into());
        }
        *self.changes.entry(counter.changed).or_default() += counter.weight();
        self.bytes += counter.bytes(key);
        self.keys.insert(key.into(), counter);
    }

    fn remove(&mut self, key: &[u8]) -> Option<Counter> {
        let counter = self.keys.remove(key)?;
        self.bytes = self.bytes.saturating_sub(counter.bytes(key));
        if let Some(done) = self.done.get_mut(&counter.changed) {
            done.remove(key);
            if done.is_empty() {
                self.done.remove(&counter.changed);
            }
        }
        if let Some(rows) = self.changes.get_mut(&counter.changed) {
            *rows = rows.saturating_sub(counter.weight());
            if *rows == 0 {
                self.changes.remove(&counter.changed);
            }
        }
        Some(counter)
    }

    /// How many rows on disk last changed in which save.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What changed after the save `since`.
    pub(super) fn since(&self, since: u32) -> impl Iterator<Item = (&[u8], &Counter)> {
        let changed = self.keys.iter().filter(move |(_, counter)| counter.changed > since);
        changed.map(|(key, counter)| (key.as_ref(), counter))
    }

    /// Forgets the keys that are done and of which only the oldest segment has rows: it has the newest of them.
    pub(super) fn forget(&mut self, segments: &Segments) {
        let Some(oldest) = segments.ends().next() else { return };
        let newer = self.done.split_off(&(oldest + 1));
        for (save, keys) in std::mem::replace(&mut self.done, newer) {
            for key in keys {
                if self.keys.get(&key).is_some_and(|counter| counter.is_done() && counter.changed == save) {
                    self.remove(&key);
                }
            }
        }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(start: i64) -> Vec<Open> {
        vec![Open { start, state: [7].into() }]
    }

    #[test]
    fn a_key_that_is_done_is_held_only_while_an_older_segment_has_it() {
        let mut counters = Counters::default();
        counters.put(b"a", 1, open(5), 1);
        counters.put(b"a", 0, Vec::new(), 1);
        assert_eq!((counters.size(), counters.changes().len()), (0, 0), "it was never saved");
        counters.put(b"a", 1, open(5), 1);
        counters.put(b"a", 0, Vec::new(), 2);
        assert_eq!(counters.since(1).map(|(key, _)| key).collect::<Vec<_>>(), [b"a"]);
        assert_eq!(counters.changes(), &Changes::from([(2, 1)]));
        counters.put(b"a", 2, open(6), 3);
        assert!(counters.get(b"a").is_some_and(|counter| counter.open == open(6)));
    }
}
