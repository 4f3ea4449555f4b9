//! What there is to see of an operator and its tasks.

use serde::{Deserialize, Serialize};

use super::{Histogram, SplitStatus};

/// An operator of a job, over all its tasks. Counts are those of [`OperatorMetrics`](crate::metrics::OperatorMetrics).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorStatus {
    /// Its number and name in the printed job: `#3 window tumbling 10s per auction`.
    pub name: String,
    /// What it is called in checkpoints, if it has something to remember: `window_1`.
    pub id: Option<String>,
    /// What it is.
    pub kind: OperatorKind,
    /// Whether it is the first phase of a window: what is aggregated before an exchange.
    pub first_phase: bool,
    /// Its chain: operators with the same number share their tasks, and rows go from one to the next without waiting.
    pub chain: usize,
    /// Rows that came in. For a source: records read, whether they decoded or not.
    pub rows_in: u64,
    /// Rows that left by the main output. For a sink: rows written.
    pub rows_out: u64,
    /// Rows that came in, per second.
    pub rows_in_per_s: f64,
    /// Rows that left, per second.
    pub rows_out_per_s: f64,
    /// Bytes of the rows that came in from other tasks; of a source those that it has read, as they lie in memory, and not as they came
    /// over the wire or from a file. Absent where rows come from the same task, in which they are not counted.
    pub bytes_in: Option<u64>,
    /// Bytes of the rows that left for other tasks, by all outputs; what goes to two is counted twice. Absent of a sink, and where
    /// no output leaves the task.
    pub bytes_out: Option<u64>,
    /// Rows that the operator answered for as processed.
    pub processed: u64,
    /// Rows that came too late.
    pub late: u64,
    /// Records of a source that did not decode or had no usable event time.
    pub rejected: u64,
    /// Rows of a source from the future: they are processed, and did not move the watermark.
    pub future: u64,
    /// Rows of an async operator whose call failed, after its last attempt.
    pub failed: u64,
    /// Rows of an async operator that have neither a result nor failed yet.
    pub in_flight: u64,
    /// Attempts of an async operator after the first of a call.
    pub retries: u64,
    /// The watermark of the task that is furthest behind; absent before the first. `i64::MAX` after the end. Only tasks
    /// count that are not idle; when all are, it is the watermark of the one that is furthest.
    pub watermark_us: Option<i64>,
    /// What it has promised downstream: less than its watermark where late rows may still give results. Absent of a sink.
    pub promised_us: Option<i64>,
    /// The latest event time a source has seen.
    pub latest_us: Option<i64>,
    /// How event time comes about; absent of what is no source, and of a source without event time.
    pub event_time: Option<EventTimeStatus>,
    /// How many records of a source wait to be read, as far as is known.
    pub lag: Option<u64>,
    /// About how many bytes of state it holds in memory.
    pub state_bytes: u64,
    /// How many bytes of state it has put on disk so far because they were too much for memory.
    pub spilled_bytes: u64,
    /// In how many segments.
    pub spilled_segments: u64,
    /// Its tasks.
    pub tasks: Vec<TaskStatus>,
    /// The splits of a source: those that hold event time back first, then those that are not read, those that are, those that have
    /// ended. At most a thousand.
    pub splits: Vec<SplitStatus>,
    /// How many splits are not in the list.
    pub splits_left_out: u64,
    /// How long each call of the operator took: a batch, a watermark, a timer; of a sink each write. Absent before the first, of a
    /// source, and of an async operator, whose calls run beside each other.
    pub call_time: Option<Histogram>,
    /// Of each batch that a sink has written: the wall clock then, less the latest event time in it (0 where that is in the future). So
    /// it is how old results are when they leave the job; what is written in a transaction is seen with its checkpoint. Absent where
    /// rows have no event time, and before the first.
    pub latency: Option<Histogram>,
    /// What a person should know of it, although the job runs.
    pub warnings: Vec<String>,
    /// The last few late, rejected or failed rows, newest first: at most one a second is taken, and eight are kept.
    pub samples: Vec<Sample>,
}

/// What an operator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorKind {
    /// Reads.
    Source,
    /// Works on one row at a time.
    #[default]
    Stateless,
    /// Remembers: a window, a join, a process function.
    Stateful,
    /// Calls something outside.
    Async,
    /// Puts streams together.
    Union,
    /// Writes.
    Sink,
}

/// How the event time of a source comes about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTimeStatus {
    /// In words: `out of order by 5s, idle after 30s`.
    pub watermarks: String,
    /// After how many milliseconds without rows a split is idle; absent when never.
    pub idle_after_ms: Option<u64>,
    /// How many milliseconds a split may be ahead of the slowest before it is paused; absent when it never is.
    pub align_within_ms: Option<u64>,
}

/// A task of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStatus {
    /// Rows that came in.
    pub rows_in: u64,
    /// Rows that left by the main output.
    pub rows_out: u64,
    /// Bytes of the rows that came in from other tasks, as [`OperatorStatus::bytes_in`].
    pub bytes_in: Option<u64>,
    /// Bytes of the rows that left for other tasks, as [`OperatorStatus::bytes_out`].
    pub bytes_out: Option<u64>,
    /// The time of its work, in microseconds: of this operator alone. Of a sink it lasts until a write has ended; of an async operator
    /// it is the time in which rows wait for a free call; of a source that in which its reader works, and not that in which it waits.
    pub busy_us: u64,
    /// The time that its **chain** has waited for room downstream, in microseconds: back-pressure. All operators of a chain have the same
    /// here. It is no work of anybody, so it is in none of their `busy_us`.
    pub blocked_us: u64,
    /// The share of the recent time that `busy_us` grew by, from 0 to 1.
    pub busy: f64,
    /// The share of the recent time that `blocked_us` grew by, from 0 to 1.
    pub blocked: f64,
    /// Its watermark; absent before the first. `i64::MAX` after the end.
    pub watermark_us: Option<i64>,
    /// Whether nobody is to wait for its event time, because the splits behind it are idle, or have none.
    pub idle: bool,
    /// About how many bytes of state it holds in memory.
    pub state_bytes: u64,
}

/// A row that was not processed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// What became of it.
    pub kind: SampleKind,
    /// When. Milliseconds since 1970.
    pub at_ms: u64,
    /// The row, and what is wrong with it: at most 256 bytes. It is of the data: to be shown as text, and only to who may see the data.
    pub text: String,
}

/// What became of a row that was not processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleKind {
    /// It came too late.
    #[default]
    Late,
    /// It did not decode, or has no usable event time.
    Rejected,
    /// The call for it failed.
    Failed,
}
