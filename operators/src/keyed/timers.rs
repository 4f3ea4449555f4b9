//! Timers of all keys, in the order in which they fire, and when keys expire.
//!
//! ```text
//!   event        (instant, key) ordered ──watermark──► fire        a timer that is set by one that fires, and is due no
//!   processing   (instant, key) ordered ──tick───────► fire        later, waits in `held_back` for the next round
//!   expiry       (instant, key) ordered ──watermark──► remove
//! ```
//!
//! What stands here can be made again from what the keys hold; only that is saved.

use std::{collections::BTreeSet, mem::size_of};

use super::store::Key;

type Queue = BTreeSet<(i64, Key)>;

/// An instant of which of the two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Event,
    Processing,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    event: Queue,
    processing: Queue,
    /// By kind, until when timers are firing: what is set up to the instant of the one that fires now has to wait.
    firing: [Option<i64>; 2],
    held_back: Vec<(Kind, i64, Key)>,
    pub(super) expiry: Expiry,
}

/// Keys, in the order in which they may expire.
#[derive(Debug, Default)]
pub(super) struct Expiry(Queue);

impl Expiry {
    /// Looks at `key` when the watermark has passed `due`.
    pub(super) fn expect(&mut self, due: i64, key: &Key) {
        self.0.insert((due, key.clone()));
    }

    /// Does so no more.
    pub(super) fn forget(&mut self, due: i64, key: &Key) {
        self.0.remove(&(due, key.clone()));
    }

    /// Takes the next key that is to be looked at when the watermark is `now`.
    pub(super) fn next(&mut self, now: i64) -> Option<Key> {
        if self.0.first()?.0 < now { self.0.pop_first().map(|(_, key)| key) } else { None }
    }

    /// About how many bytes it takes; the keys are shared with the store.
    pub(super) fn size(&self) -> usize {
        size_of::<(i64, Key)>() * self.0.len()
    }
}

impl Timers {
    fn queue(&mut self, kind: Kind) -> &mut Queue {
        match kind {
            Kind::Event => &mut self.event,
            Kind::Processing => &mut self.processing,
        }
    }

    /// Sets a timer.
    pub(super) fn set(&mut self, kind: Kind, at: i64, key: &Key) {
        match self.firing[kind as usize] {
            Some(instant) if at <= instant => self.held_back.push((kind, at, key.clone())),
            _ => drop(self.queue(kind).insert((at, key.clone()))),
        }
    }

    /// Unsets the timers of a key.
    pub(super) fn unset(&mut self, kind: Kind, at: impl IntoIterator<Item = i64>, key: &Key) {
        for at in at {
            self.queue(kind).remove(&(at, key.clone()));
        }
        if !self.held_back.is_empty() {
            self.held_back.retain(|(held, _, other)| *held != kind || other != key);
        }
    }

    /// Takes the next timer that is due at `now`. Until [`Timers::fired`] none is taken that is set for its instant or
    /// before. Of processing time a round has those that were due when it began, also if time goes on meanwhile: so it ends.
    pub(super) fn next(&mut self, kind: Kind, now: i64) -> Option<(i64, Key)> {
        let now = match (kind, self.firing[kind as usize]) {
            (Kind::Processing, Some(begun)) => begun.min(now),
            _ => now,
        };
        let queue = self.queue(kind);
        let (at, key) = if queue.first()?.0 <= now { queue.pop_first()? } else { return None };
        self.firing[kind as usize] = Some(if kind == Kind::Event { at } else { now });
        Some((at, key))
    }

    /// Ends a round of one kind. Says whether timers that were set in it are due at once.
    pub(super) fn fired(&mut self, kind: Kind) -> bool {
        self.firing[kind as usize] = None;
        let (of_kind, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held_back).into_iter().partition(|(held, ..)| *held == kind);
        self.held_back = others;
        let any = !of_kind.is_empty();
        self.queue(kind).extend(of_kind.into_iter().map(|(_, at, key)| (at, key)));
        any
    }

    /// The first instant of processing time that is waited for.
    pub(super) fn first_processing(&self) -> Option<i64> {
        self.processing.first().map(|(at, _)| *at)
    }

    /// How many event-time timers are waiting.
    pub(super) fn events(&self) -> usize {
        self.event.len()
    }

    /// About how many bytes it takes; the keys are shared with the store.
    pub(super) fn size(&self) -> usize {
        let timers = self.event.len() + self.processing.len() + self.held_back.len();
        size_of::<(i64, Key)>() * timers + self.expiry.size()
    }
}
