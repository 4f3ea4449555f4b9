//! One partition: records and control records in order, and what the leader of the partition knows of each producer.
//!
//! ```text
//!   offset   0   1   2        3   4        5         6
//!            a1  b1  a2  COMMIT a b2  c1 (no transaction)
//!                ▲ last stable offset: b is open   ▲ high watermark
//! ```
//!
//! Who reads what is committed gets no further than the last stable offset, so c1 waits for b.

use std::{collections::BTreeMap, sync::Arc};

/// A producer, and which of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub id: u64,
    pub epoch: u64,
}

/// A record as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<i64>,
}

/// What stands at an offset.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A record; `transactional` if it counts only when its transaction is committed.
    Data { who: Identity, transactional: bool, record: Arc<Record> },
    /// The outcome of the transaction that `who` had open.
    Control { who: Identity, commit: bool },
}

/// What the leader knows of a producer.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    epoch: u64,
    /// The sequence number of its next record.
    next: u64,
    /// The first offset of its open transaction.
    open: Option<usize>,
}

/// Why records are not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAppended {
    /// A newer incarnation of the producer was here.
    Fenced,
    /// A record in between is missing.
    OutOfOrder,
}

#[derive(Debug, Default)]
pub struct Log {
    /// The offset of the first entry that is not forgotten.
    first: usize,
    entries: Vec<Entry>,
    known: BTreeMap<u64, Known>,
    /// Transactions that were thrown away: whose, their first offset, and the one behind their last.
    aborted: Vec<(u64, usize, usize)>,
}

impl Log {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn high_watermark(&self) -> usize {
        self.first + self.entries.len()
    }

    pub fn last_stable_offset(&self) -> usize {
        self.known.values().filter_map(|known| known.open).min().unwrap_or(self.high_watermark())
    }

    /// The last record below the last stable offset that is committed.
    pub fn last_committed(&self) -> Option<Arc<Record>> {
        let below = self.entries.iter().zip(self.first..self.last_stable_offset());
        let is_aborted = |id: u64, offset: usize| {
            self.aborted.iter().any(|(of, from, to)| *of == id && (*from..*to).contains(&offset))
        };
        let mut committed = below.rev().filter_map(|(entry, offset)| match entry {
            Entry::Data { who, transactional, record } if !transactional || !is_aborted(who.id, offset) => Some(record),
            _ => None,
        });
        committed.next().cloned()
    }

    /// Forgets the first entries.
    pub fn forget(&mut self, entries: usize) {
        assert!(entries <= self.last_stable_offset() - self.first, "nobody has seen the rest");
        self.entries.drain(..entries);
        self.first += entries;
        self.aborted.retain(|(_, _, end)| *end > self.first);
    }

    /// Whether a transaction of the producer is open here: then the coordinator need not be asked whether it is.
    pub fn is_open(&self, who: Identity) -> bool {
        self.known.get(&who.id).is_some_and(|known| known.epoch == who.epoch && known.open.is_some())
    }

    /// Appends records, the first with the sequence number `first`. What is there already is not appended again.
    pub fn append(
        &mut self,
        who: Identity,
        transactional: bool,
        first: u64,
        records: &[Arc<Record>],
    ) -> Result<(), NotAppended> {
        let known = self.known.entry(who.id).or_default();
        if who.epoch < known.epoch {
            return Err(NotAppended::Fenced);
        }
        if who.epoch > known.epoch {
            (known.epoch, known.next) = (who.epoch, 0);
        }
        if first > known.next {
            return Err(NotAppended::OutOfOrder);
        }
        let new = records.iter().skip((known.next - first) as usize);
        for record in new {
            known.next += 1;
            if transactional && known.open.is_none() {
                known.open = Some(self.first + self.entries.len());
            }
            self.entries.push(Entry::Data { who, transactional, record: record.clone() });
        }
        Ok(())
    }

    /// Writes the outcome of a transaction. It may come from a coordinator that has fenced the producer since, and then fences it
    /// here, too.
    pub fn control(&mut self, who: Identity, commit: bool) {
        let known = self.known.entry(who.id).or_default();
        if who.epoch > known.epoch {
            (known.epoch, known.next) = (who.epoch, 0);
        }
        if let (Some(first), false) = (known.open.take(), commit) {
            self.aborted.push((who.id, first, self.first + self.entries.len()));
        }
        self.entries.push(Entry::Control { who, commit });
    }
}
