//! How far a window operator has come: what is late, what has given its result, and the numbers that say so in its state.
//!
//! ```text
//!   ───────────── windows have fired ─────────────┼── fire at the next watermark ──┼──────── open ────────►  event time
//!                                               fired                            closed
//! ```
//!
//! The two differ only after a restore from several tasks that stood at different times: the greatest time counts for what is
//! late, and each key's windows go on from where its own task had come.

use std::collections::BTreeMap;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt8Array},
    compute::filter_record_batch,
};

use super::{Slice, Slicing};
use crate::{
    Result, Timestamp,
    key::key_groups,
    state::{Part, StateReader, StateWriter},
};

/// The number that says how far event time had come: rows of slices that end there or before are late.
const CLOSED: &str = "closed";
/// The number that says which rows of a segment were still needed: those of slices that begin there or later. After it the
/// number of a key group whose windows have given their result further than those of others.
pub(super) const OPEN_FROM: &str = "open_from";
/// What checkpoints of earlier versions have in its place, of windows that are slices of one length: how long they are.
const SIZE: &str = "window_size";
/// The number that says up to where windows have given their result, when that is not so far: a task that was restored
/// from several may have closed slices that the next watermark lets out.
const FIRED: &str = "fired";
/// Before the number of a key group, whose windows have given their result up to there and not only to [`FIRED`].
const FIRED_OF: &str = "fired_";

/// How far event time had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every slice that ends here or before is closed.
    pub(crate) closed: Timestamp,
    /// Every window that ends here or before has given its result.
    fired: Timestamp,
    /// Key groups whose windows have given their result further than that, and how far.
    ahead: BTreeMap<u8, Timestamp>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { closed: Timestamp::MIN, fired: Timestamp::MIN, ahead: BTreeMap::new() }
    }

    /// Up to where all windows have given their result, in the numbers of [`Slicing::next_window`].
    pub(crate) fn reached(&self) -> i128 {
        if self.fired == Timestamp::MAX { i128::MAX } else { self.fired.micros().into() }
    }

    /// All windows that are closed have given their result.
    pub(crate) fn caught_up(&mut self) {
        self.fired = self.closed;
        self.ahead.clear();
    }

    /// Takes down the numbers.
    pub(crate) fn save(&self, slicing: &Slicing, state: &mut StateWriter<'_>) {
        state.set(CLOSED, self.closed.micros());
        state.set(OPEN_FROM, slicing.needed_from(self.fired).micros());
        if self.fired < self.closed {
            state.set(FIRED, self.fired.micros());
        }
        for (group, fired) in &self.ahead {
            state.set(&format!("{FIRED_OF}{group}"), fired.micros());
            state.set(&format!("{OPEN_FROM}_{group}"), slicing.needed_from(*fired).micros());
        }
    }

    /// Goes on where former tasks were. Behind the exchange they stood at the same time, or, when inputs fell idle, one
    /// was ahead: its windows have given their only result and must not open again, so the greatest counts. Windows of the
    /// keys of the others have still to give theirs. Only windows that share slices must be told for which keys: a slice
    /// that is a window is loaded for those of the others alone.
    pub(crate) fn load(&mut self, state: &StateReader, shared: bool) {
        self.closed = state.greatest(false, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        // Of those with segments: if it is one it keeps them, and they have rows of slices that have long fired.
        let with_segments = || state.parts.iter().filter(|part| part.has_rows());
        self.fired = with_segments().map(fired).min().unwrap_or(self.closed);
        for part in with_segments().filter(|_| shared) {
            let stored = part.stored.iter().flat_map(|segment| segment.key_groups.iter().copied());
            for group in part.segments.iter().flat_map(|(_, rows)| groups(rows)).chain(stored) {
                let of_group = part.numbers.get(&format!("{FIRED_OF}{group}"));
                let fired = of_group.map_or_else(|| fired(part), |micros| Timestamp::from_micros(*micros));
                if fired > self.fired {
                    self.ahead.insert(group, fired);
                }
            }
        }
    }

    /// The same for a first phase. Before the exchange tasks stand at different times; the least makes no row late that
    /// was not. But what the second phase has closed would be late there, and could no longer be told as rows.
    pub(super) fn load_flushed(&mut self, state: &StateReader) {
        self.load(state, false);
        let least = state.least(true, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        self.closed = self.closed.max(least);
        self.caught_up();
    }

    /// Which keys have a result of this window: not those whose task had given it before a restore.
    pub(crate) fn owed(&self, window: Slice) -> Owed {
        let done = self.ahead.iter().filter(|(_, fired)| window.end <= **fired);
        Owed { done: done.map(|(group, _)| *group).collect() }
    }
}

/// Which keys a window still owes a result.
pub(crate) struct Owed {
    /// The key groups that have had it.
    done: Vec<u8>,
}

impl Owed {
    /// Whether all keys are.
    pub(crate) fn all(&self) -> bool {
        self.done.is_empty()
    }

    /// Which of so many rows have keys, the columns `key`, that are owed the result.
    pub(crate) fn of(&self, key: &[ArrayRef], rows: usize) -> Result<BooleanArray> {
        let groups: Vec<u8> = match key.is_empty() {
            true => vec![0; rows],
            false => key_groups(key, rows)?.iter().map(|group| group.0).collect(),
        };
        Ok(groups.iter().map(|group| Some(!self.done.contains(group))).collect())
    }

    /// The rows of `rows` whose keys, the columns `key`, are owed the result.
    pub(super) fn keep(&self, rows: RecordBatch, key: &[ArrayRef]) -> Result<RecordBatch> {
        if self.all() {
            return Ok(rows);
        }
        Ok(filter_record_batch(&rows, &self.of(key, rows.num_rows())?)?)
    }
}

/// The key groups that a segment has rows of.
fn groups(rows: &RecordBatch) -> impl Iterator<Item = u8> + use<> {
    let mut present = [false; 256];
    let column = rows.columns().first().and_then(|column| column.as_any().downcast_ref::<UInt8Array>());
    for group in column.iter().flat_map(|groups| groups.values().iter()) {
        present[usize::from(*group)] = true;
    }
    (0..=u8::MAX).filter(move |group| present[usize::from(*group)])
}

/// Up to where windows of a former task have all given their result.
pub(super) fn fired(part: &Part) -> Timestamp {
    fired_micros(&part.numbers).map_or(Timestamp::MIN, Timestamp::from_micros)
}

/// How far event time had come for a former task.
pub(super) fn closed(part: &Part) -> Timestamp {
    part.numbers.get(CLOSED).map_or(Timestamp::MIN, |micros| Timestamp::from_micros(*micros))
}

fn fired_micros(numbers: &BTreeMap<String, i64>) -> Option<i64> {
    numbers.get(FIRED).or_else(|| numbers.get(CLOSED)).copied()
}

/// Whether the slice that begins at `start` (microseconds) was still in a window that had to give its result when its task
/// set these numbers of its state. For who reads a checkpoint without the job: segments still have rows of windows that are
/// done.
pub fn is_open(numbers: &BTreeMap<String, i64>, start: i64) -> bool {
    if let Some(open_from) = numbers.get(OPEN_FROM) {
        return start >= *open_from;
    }
    match (numbers.get(SIZE), fired_micros(numbers)) {
        (Some(size), Some(fired)) => start.saturating_add(*size) > fired,
        _ => true,
    }
}
