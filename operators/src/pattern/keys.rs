//! The keys that have partial matches, and the orders in which they are asked for.
//!
//! ```text
//!   key bytes ──► Slot { partial matches, what is noted of them }
//!   starts:  when the first one of each key began        ──► which keys a watermark closes
//!   held:    the least time of a match that may come yet ──► what is promised downstream
//! ```
//!
//! Most rows change neither of both, so they are compared with what was noted, and cost nothing there.

use std::{collections::BTreeSet, mem::size_of};

use super::{matching::Matching, plan::Shared};
use crate::{
    Result,
    key::{bytes::Key, encoded::ByKey},
};

#[derive(Default)]
pub(super) struct Keys {
    slots: ByKey<Key, Slot>,
    /// When the first partial match of each key began.
    starts: BTreeSet<(i64, Key)>,
    /// The least event time of a match that may still come out of rows that have come, of keys that have one.
    held: BTreeSet<(i64, Key)>,
    bytes: usize,
}

struct Slot {
    key: Key,
    matching: Matching,
    noted: Noted,
}

/// What the orders and the size have of a key.
#[derive(Clone, Copy, Default)]
struct Noted {
    start: Option<i64>,
    held: Option<i64>,
    bytes: usize,
}

impl Noted {
    fn of(plan: &Shared, matching: &Matching, key: &Key) -> Self {
        let start = matching.start().map(|(_, start)| start);
        let bytes = if start.is_some() { size_of::<Slot>() + matching.size() + key.len() } else { 0 };
        Self { start, held: matching.held(plan), bytes }
    }
}

impl Keys {
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.slots.contains_key(key)
    }

    /// Has `act` change the partial matches of a key, of which there are none yet or some. A key without any takes no room.
    pub(super) fn look_at(
        &mut self,
        plan: &Shared,
        key: &[u8],
        act: impl FnOnce(&Key, &mut Matching) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = self.slots.get_mut(key) else {
            let (key, mut matching): (Key, _) = (key.into(), Matching::default());
            act(&key, &mut matching)?;
            let noted = Noted::of(plan, &matching, &key);
            if noted.start.is_some() {
                self.note(&key, Noted::default(), noted);
                self.slots.insert(key.clone(), Slot { key, matching, noted });
            }
            return Ok(());
        };
        act(&slot.key, &mut slot.matching)?;
        let noted = Noted::of(plan, &slot.matching, &slot.key);
        let (key, before) = (slot.key.clone(), std::mem::replace(&mut slot.noted, noted));
        self.note(&key, before, noted);
        if noted.start.is_none() {
            self.slots.remove(&key);
        }
        Ok(())
    }

    fn note(&mut self, key: &Key, before: Noted, now: Noted) {
        renew(&mut self.starts, key, before.start, now.start);
        renew(&mut self.held, key, before.held, now.held);
        self.bytes = self.bytes - before.bytes + now.bytes;
    }

    /// When the first partial match of all began, and its key.
    pub(super) fn first(&self) -> Option<&(i64, Key)> {
        self.starts.first()
    }

    /// No match that is still to come has an earlier time.
    pub(super) fn held(&self) -> Option<i64> {
        self.held.first().map(|(held, _)| *held)
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.bytes
    }
}

fn renew(order: &mut BTreeSet<(i64, Key)>, key: &Key, before: Option<i64>, now: Option<i64>) {
    if before != now {
        before.map(|time| order.remove(&(time, key.clone())));
        now.map(|time| order.insert((time, key.clone())));
    }
}
