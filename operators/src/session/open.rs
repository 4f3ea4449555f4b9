//! The open sessions: which one a row belongs to, which ones it joins, and which are complete.
//!
//! ```text
//!   keys:  key bytes ──► sessions of the key, by time ─┐
//!                                                      ├──► slots: OpenSession { key, span, fragments }
//!   ends:  heap of (end, session) ─────────────────────┘
//! ```
//!
//! A session has one entry in the heap, with an end that it once had. When that comes up and the session has been
//! extended meanwhile, the entry is put back with the end of now: so a row that extends its session costs nothing there. A
//! session that was joined to another stays in its slot, dead, until its entry comes up or the slots are tidied.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    mem::size_of,
};

use super::{
    fragments::{Fragment, Fragments},
    given::{Given, Said},
    spec::Span,
};
use crate::key::{bytes::Key, encoded::ByKey};

/// With fewer slots nothing is tidied.
const FEW_SLOTS: usize = 1024;

/// A session that has not given its result.
pub(super) struct OpenSession {
    pub(super) key: Key,
    pub(super) span: Span,
    /// Where its aggregates are. One that takes rows is last.
    pub(super) fragments: Vec<Fragment>,
    /// What it has given, if sessions give more than one result.
    pub(super) given: Option<Box<Given>>,
    alive: bool,
}

/// All sessions that have not given their result. A session is known by the number of its slot.
pub(super) struct Sessions {
    pub(super) slots: Vec<OpenSession>,
    free: Vec<u32>,
    alive: usize,
    keys: ByKey<Key, VecDeque<u32>>,
    ends: BinaryHeap<Reverse<(i64, u32)>>,
    /// The same of the sessions that have changed since their last result, if they give more than one.
    waiting: BinaryHeap<Reverse<(i64, u32)>>,
    revising: bool,
    /// From which slot on [`Sessions::sweep`] goes on.
    swept: usize,
    /// What comes behind this is of the next sweep.
    sweep_ends: usize,
    /// The bytes of all keys.
    key_bytes: usize,
    no_key: Key,
}

impl Sessions {
    /// With `revising` they give more than one result each.
    pub(super) fn new(revising: bool) -> Self {
        Self {
            waiting: BinaryHeap::new(),
            revising,
            swept: 0,
            sweep_ends: 0,
            slots: Vec::new(),
            free: Vec::new(),
            alive: 0,
            keys: ByKey::default(),
            ends: BinaryHeap::new(),
            key_bytes: 0,
            no_key: Key::from(&[][..]),
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.alive
    }

    /// Makes a row part of a session: the one it falls into, one that joins all that it overlaps, or a new one. `None`
    /// when it comes too late: its time is before `closed` and within none of the open sessions of its key.
    pub(super) fn add(&mut self, key: &[u8], row: Span, closed: i64, fragments: &mut Fragments) -> Option<u32> {
        let Some(own) = self.keys.get_mut(key) else {
            if row.start < closed {
                return None;
            }
            let key: Key = key.into();
            let slot = self.insert(key.clone(), row, Vec::new());
            self.key_bytes += key.len();
            self.keys.insert(key, VecDeque::from([slot]));
            return Some(slot);
        };
        let slots = &mut self.slots;
        let span = |slot: u32| slots[slot as usize].span;
        let first = own.partition_point(|&slot| span(slot).end <= row.start);
        if row.start < closed && own.get(first).is_none_or(|&slot| span(slot).start > row.start) {
            return None;
        }
        let overlapped = own.iter().skip(first).take_while(|&&slot| span(slot).start < row.end).count();
        if overlapped == 0 {
            let key = slots[own[0] as usize].key.clone();
            let slot = self.insert(key, row, Vec::new());
            if let Some(own) = self.keys.get_mut(&self.slots[slot as usize].key) {
                own.insert(first, slot);
            }
            return Some(slot);
        }
        let mut slot = own[first];
        if overlapped > 1 {
            for other in own.drain(first + 1..first + overlapped) {
                slot = join(slots, slot, other, fragments);
                self.alive -= 1;
            }
            own[first] = slot;
        }
        let session = &mut slots[slot as usize];
        session.span = session.span.hull(row);
        Some(slot)
    }

    /// Adds a session of a key that was saved. Those of one key come one after the other, by time.
    pub(super) fn restore(&mut self, key: &[u8], span: Span, fragments: Vec<Fragment>) -> u32 {
        let known = self.keys.get_key_value(key).map(|(key, _)| key.clone());
        let key: Key = known.unwrap_or_else(|| {
            self.key_bytes += key.len();
            key.into()
        });
        let slot = self.insert(key.clone(), span, fragments);
        self.keys.entry(key).or_default().push_back(slot);
        slot
    }

    fn insert(&mut self, key: Key, span: Span, fragments: Vec<Fragment>) -> u32 {
        let given = self.revising.then(Box::default);
        let session = OpenSession { key, span, fragments, given, alive: true };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = session;
                slot
            }
            None => {
                self.slots.push(session);
                (self.slots.len() - 1) as u32
            }
        };
        self.alive += 1;
        self.ends.push(Reverse((span.end, slot)));
        slot
    }

    /// The next sessions that end at `closed` or before, at most `limit`, by their ends.
    pub(super) fn complete(&mut self, closed: i64, limit: usize) -> Vec<u32> {
        let mut complete = Vec::new();
        while complete.len() < limit {
            let Some(&Reverse((end, slot))) = self.ends.peek().filter(|Reverse((end, _))| *end <= closed) else {
                break;
            };
            self.ends.pop();
            let session = &self.slots[slot as usize];
            if !session.alive {
                self.free.push(slot);
            } else if session.span.end > end {
                self.ends.push(Reverse((session.span.end, slot)));
            } else {
                complete.push(slot);
            }
        }
        complete
    }

    /// Rows have come to a session. Returns how many have since its last result, if there may be more than one.
    pub(super) fn count(&mut self, slot: u32, rows: i64) -> Option<i64> {
        let session = &mut self.slots[slot as usize];
        let given = session.given.as_mut()?;
        given.count(rows);
        if !std::mem::replace(&mut given.waits, true) {
            self.waiting.push(Reverse((session.span.end, slot)));
        }
        Some(given.since())
    }

    /// A session gives a result now, which the save `save` will write. Returns its revision.
    pub(super) fn give(&mut self, slot: u32, save: u32) -> Option<i64> {
        let session = &mut self.slots[slot as usize];
        session.given.as_mut().map(|given| given.give(session.span, save))
    }

    /// Whether a session is open, ends after `passed`, and at least `rows` rows have come to it since its last result.
    pub(super) fn has_changed(&self, slot: u32, passed: i64, rows: i64) -> bool {
        let session = &self.slots[slot as usize];
        session.alive && session.span.end > passed && session.given.as_ref().is_some_and(|given| given.since() >= rows)
    }

    /// The next sessions that end at `until` or before and have changed since their last result, at most `limit`, by their
    /// ends.
    pub(super) fn passed(&mut self, until: i64, limit: usize) -> Vec<u32> {
        let mut passed = Vec::new();
        while passed.len() < limit {
            let Some(&Reverse((_, slot))) = self.waiting.peek().filter(|Reverse((end, _))| *end <= until) else {
                break;
            };
            self.waiting.pop();
            let session = &mut self.slots[slot as usize];
            let Some(given) = session.given.as_mut().filter(|given| session.alive && given.waits) else { continue };
            if session.span.end > until {
                self.waiting.push(Reverse((session.span.end, slot)));
                continue;
            }
            given.waits = false;
            passed.extend((given.since() > 0).then_some(slot));
        }
        passed
    }

    /// The next sessions that end after `passed` and have changed since their last result, at most `limit`, in a sweep that
    /// goes through all. When there are fewer it is over, and the next one begins.
    pub(super) fn sweep(&mut self, passed: i64, limit: usize) -> Vec<u32> {
        if self.swept == 0 {
            self.sweep_ends = self.slots.len();
        }
        let rest = self.swept as u32..self.slots.len().min(self.sweep_ends) as u32;
        let changed: Vec<u32> = rest.filter(|slot| self.has_changed(*slot, passed, 1)).take(limit).collect();
        let last = changed.last().filter(|_| changed.len() == limit);
        self.swept = last.map_or(0, |last| *last as usize + 1);
        changed
    }

    /// The session of a key that spans a stretch of time.
    pub(super) fn spanning(&mut self, key: &[u8], span: Span) -> Option<&mut OpenSession> {
        let own = self.keys.get(key)?;
        let at = own.partition_point(|&slot| self.slots[slot as usize].span.end < span.end);
        let session = &mut self.slots[*own.get(at)? as usize];
        (session.span.start <= span.start).then_some(session)
    }

    /// The sessions that have not given their last result.
    pub(super) fn open(&self) -> impl Iterator<Item = &OpenSession> {
        self.slots.iter().filter(|session| session.alive)
    }

    /// Forgets a session that [`Sessions::complete`] gave, and its key with the last one.
    pub(super) fn remove(&mut self, slot: u32) {
        let session = &mut self.slots[slot as usize];
        let key = std::mem::replace(&mut session.key, self.no_key.clone());
        (session.alive, session.fragments, session.given) = (false, Vec::new(), None);
        self.free.push(slot);
        self.alive -= 1;
        if let Some(own) = self.keys.get_mut(&key) {
            // The first of its key to end is also the first in time.
            if let Some(at) = own.iter().position(|&other| other == slot) {
                own.remove(at);
            }
            if own.is_empty() {
                self.keys.remove(&key);
                self.key_bytes -= key.len();
            }
        }
    }

    /// Gives memory back when most slots are empty.
    pub(super) fn tidy(&mut self, fragments: &mut Fragments) {
        if self.slots.len() < FEW_SLOTS || 4 * self.alive > self.slots.len() {
            return;
        }
        self.swept = self.slots.iter().take(self.swept).filter(|session| session.alive).count();
        self.sweep_ends = self.slots.iter().take(self.sweep_ends).filter(|session| session.alive).count();
        let mut moved = vec![u32::MAX; self.slots.len()];
        let mut slots = Vec::with_capacity(self.alive);
        for (former, session) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            if session.alive {
                moved[former] = slots.len() as u32;
                slots.push(session);
            }
        }
        self.ends = slots.iter().zip(0..).map(|(session, slot)| Reverse((session.span.end, slot))).collect();
        let waits = |session: &OpenSession| session.given.as_ref().is_some_and(|given| given.waits);
        let waiting = slots.iter().zip(0..).filter(|(session, _)| waits(session));
        self.waiting = waiting.map(|(session, slot)| Reverse((session.span.end, slot))).collect();
        (self.slots, self.free) = (slots, Vec::new());
        for slot in self.keys.values_mut().flatten() {
            *slot = moved[*slot as usize];
        }
        self.keys.shrink_to_fit();
        fragments.renumber(&moved);
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<OpenSession>() + self.alive * size_of::<[Fragment; 4]>();
        let keys = self.keys.capacity() * size_of::<(Key, [u32; 12])>() + self.key_bytes;
        let given = if self.revising { self.alive * size_of::<(Given, Said)>() } else { 0 };
        let heaps = (self.ends.capacity() + self.waiting.capacity()) * size_of::<(i64, u64)>();
        slots + keys + given + heaps + self.free.capacity() * size_of::<u32>()
    }
}

/// Makes one session of two of a key; the one with fewer fragments moves. Returns which is left.
fn join(slots: &mut [OpenSession], one: u32, other: u32, fragments: &mut Fragments) -> u32 {
    let count = |slot: u32| slots[slot as usize].fragments.len();
    let (left, gone) = if count(one) >= count(other) { (one, other) } else { (other, one) };
    let session = &mut slots[gone as usize];
    session.alive = false;
    let (span, moved, given) = (session.span, std::mem::take(&mut session.fragments), session.given.take());
    fragments.relabel(&moved, left);
    let session = &mut slots[left as usize];
    if let (Some(own), Some(given)) = (&mut session.given, given) {
        own.join(*given);
    }
    session.span = session.span.hull(span);
    let before = session.fragments.len();
    session.fragments.extend(moved);
    let last = session.fragments.len() - 1;
    if before > 0 && !fragments.takes_rows(session.fragments[last]) {
        session.fragments.swap(before - 1, last);
    }
    left
}
