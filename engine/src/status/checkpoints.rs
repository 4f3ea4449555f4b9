//! What there is to see of the checkpoints of a job.

use serde::{Deserialize, Serialize};

/// The checkpoints of a job. All absent, empty and zero for one without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointStatus {
    /// How often one is taken, in milliseconds; absent without checkpoints. None is taken when nothing has moved.
    pub every_ms: Option<u64>,
    /// How long one may take before the job fails, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Where they are, with the folder of the job. A store whose URL has a user or a password is refused, so there is none in it.
    pub store: Option<String>,
    /// The checkpoint that this attempt of the job went on from; absent when it began at the beginning.
    pub restored_from: Option<u64>,
    /// How many have been completed since the job was started.
    pub completed: u64,
    /// The newest of them.
    pub newest: Option<u64>,
    /// Until when all that had been read is in a checkpoint, as far as is known: the barrier of the newest, or, each time that one would be
    /// due and nothing has moved since, that time; before the first, the start of the job. Milliseconds since 1970; absent without
    /// checkpoints.
    pub held_until_ms: Option<u64>,
    /// The last 50 of them, newest first.
    pub last: Vec<CheckpointDone>,
    /// The one that is under way.
    pub underway: Option<CheckpointUnderway>,
    /// How many times old ones could not be removed; if this grows the store fills up.
    pub not_collected: u64,
}

/// A checkpoint that is complete: durable, decided, and what sinks staged for it visible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointDone {
    /// Its number.
    pub epoch: u64,
    /// Why it was taken.
    pub kind: CheckpointKind,
    /// Its name, if it is a savepoint.
    pub savepoint: Option<String>,
    /// When its barrier was sent. Milliseconds since 1970.
    pub began_ms: u64,
    /// How long it took until it was complete, in milliseconds.
    pub took_ms: u64,
    /// How much of that it took until every task had answered: the way of the barrier through rows that wait. The rest is writing it
    /// and making the output visible. Milliseconds.
    pub answered_ms: u64,
    /// How many bytes of state were written for it: what has changed.
    pub bytes: u64,
    /// In how many segments.
    pub segments: u64,
    /// How many bytes of state a restart from it reads.
    pub total_bytes: u64,
    /// In how many segments.
    pub total_segments: u64,
}

/// Why a checkpoint was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKind {
    /// Because it was time, or somebody wanted one now, or where a split begins or ends was decided.
    #[default]
    Periodic,
    /// Because somebody asked for a savepoint.
    Savepoint,
    /// Because the job ended or was stopped.
    Final,
}

/// A checkpoint that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointUnderway {
    /// Its number.
    pub epoch: u64,
    /// When its barrier was sent. Milliseconds since 1970.
    pub since_ms: u64,
    /// The tasks that have not answered, at most a hundred: `#3 window tumbling 10s (task 0)`. When there are none it is being written
    /// and made visible.
    pub missing: Vec<String>,
}
