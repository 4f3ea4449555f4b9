//! What there is to see of a split of a source.

use serde::{Deserialize, Serialize};

/// A split of a source: a file, a partition of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitStatus {
    /// Its name.
    pub split: String,
    /// The task of the source that reads it.
    pub task: usize,
    /// What is done with it.
    pub state: SplitState,
    /// Why it is paused or put off, in words.
    pub why: Option<String>,
    /// Since when it is in this state. Milliseconds since 1970.
    pub since_ms: u64,
    /// Its watermark; absent before the first. It stays when the split ends.
    pub watermark_us: Option<i64>,
    /// The latest event time it has delivered, less what is too far in the future.
    pub latest_us: Option<i64>,
    /// Where it is read next, in the unit of the source: an offset, a byte, a count.
    pub position: Option<u64>,
    /// How many records of it wait, as far as is known.
    pub lag: Option<u64>,
    /// How many records have been read of it, decoded or not.
    pub rows: u64,
    /// How many bytes they had: rows as they lie in memory, and records that did not decode as they came, as far as they were kept.
    pub bytes: u64,
    /// When the last of them came, and was through. Milliseconds since 1970; absent before the first.
    pub rows_at_ms: Option<u64>,
    /// Whether event time waits for it: it is neither idle nor ended, and no other such split of its source is further behind. When all
    /// are equally far all of them are.
    pub holds_back: bool,
}

/// What is done with a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitState {
    /// It is read, as soon as it has something.
    #[default]
    Reading,
    /// It has delivered nothing for so long that nobody waits for it.
    Idle,
    /// It is too far ahead of others, and not read until they have caught up:
    /// [`Watermarks::align_within`](crate::Watermarks::align_within).
    Paused,
    /// Its reader cannot read it for now, and tries again.
    PutOff,
    /// It has been read to its end.
    Ended,
}
