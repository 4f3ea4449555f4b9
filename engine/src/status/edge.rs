//! What there is to see of the way from one operator to another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where rows go from one operator to another. Channels are between tasks: there is one for each pair that rows go between, and this is
/// about all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeStatus {
    /// Whose rows they are: an index of [`JobStatus::operators`](super::JobStatus::operators).
    pub from: usize,
    /// Who takes them.
    pub to: usize,
    /// Which output it is: empty for the main one, or `late`, `late on the right`, `rejected`, `failed`, `side`.
    pub label: String,
    /// How rows choose their task.
    pub exchange: Exchange,
    /// How many rows have gone this way; not known (0) of a side output whose operators share a task.
    pub rows: u64,
    /// How many bytes they had; not known (0) when both operators share a task.
    pub bytes: u64,
    /// Rows per second.
    pub rows_per_s: f64,
    /// How many bytes wait in its channels, with at least 256 for each message; 0 when both operators share a task.
    pub queued_bytes: u64,
    /// How many may; 0 when both operators share a task.
    pub capacity_bytes: u64,
    /// How long senders have waited for room in it, all tasks together, in microseconds.
    pub blocked_us: u64,
    /// The share of the recent time that a sender waited for room in it, from 0 to 1, on average over the tasks that send.
    pub blocked: f64,
}

/// How rows choose their task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// Both operators share a task: no channel.
    #[default]
    Chained,
    /// From each task to one other: rows keep their partition.
    Forward,
    /// To the task that has the key group of the row.
    ByKeyGroup,
    /// All to one task.
    ToOneTask,
    /// Each to every task.
    Broadcast,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chained => "chained",
            Self::Forward => "forward",
            Self::ByKeyGroup => "by key group",
            Self::ToOneTask => "all to one task",
            Self::Broadcast => "to every task",
        })
    }
}
