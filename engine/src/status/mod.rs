//! What a job does, in one structure: everything that a page, an API, a terminal or Prometheus shows of it.
//!
//! ```text
//!   tasks ── count at every batch ──► counters, channels, splits ──┐
//!   coordinator ── writes down ─────► checkpoints                  ├──► JobHandle::status() ──► JobStatus ──► JSON
//!   graph and plan ── once an attempt ──► operators and edges ─────┘                               ├─► why_open(operator)
//!                                                                                                  ├─► bottleneck()
//!                                                                                                  └─► prometheus(&status)
//! ```
//!
//! [`JobStatus`] is read from what the tasks count anyway; to read it takes no lock that a task waits for longer than for a few
//! loads, so it may be asked ten times a second, from any thread. It is a plain value: to print, to send as JSON, to keep and compare.
//! Its explanations, [`JobStatus::why_open`] and [`JobStatus::bottleneck`], are functions of it alone, so they say the same
//! wherever it has been sent.
//!
//! # As JSON
//!
//! The names of fields are those here, and stay; new ones may come. Who reads it ignores what it does not know, and takes what is
//! missing as zero, empty or absent: so does `Deserialize`. Enums are their names in `snake_case`.
//!
//! | a name that ends with | is |
//! |---|---|
//! | `_us` (of [`OperatorStatus`], [`SplitStatus`]) | event time, in microseconds since 1970; `busy_us`, `blocked_us`, and all of a [`Histogram`]: spans of time in microseconds |
//! | `_ms` | time on the wall in milliseconds since 1970, or a span of time in milliseconds, as said at the field |
//! | `_bytes`, or `bytes` | bytes |
//! | `_per_s` | per second, over the last [`JobStatus::recent_ms`] |
//!
//! The end of event time is `i64::MAX`. Who reads JSON into floating point takes everything above 9e18 for it.
//!
//! Counts begin at the start of the job, and again when it was started again after a failure; [`JobStatus::restarts`],
//! [`CheckpointStatus::last`] and [`CheckpointStatus::completed`] go on.
//!
//! # What is not exact
//!
//! The counters are not read all at once: while rows flow two of them may be a batch apart. At the end, and whenever everything
//! waits, they are exact, and for every operator `rows_in = processed + late + rejected + failed + in_flight`.

mod bottleneck;
mod checkpoints;
mod edge;
mod explain;
mod histogram;
mod live;
mod operator;
mod prometheus;
mod recent;
mod shape;
mod split;
#[cfg(test)]
mod tests;
mod why_open;

pub use checkpoints::{CheckpointDone, CheckpointKind, CheckpointStatus, CheckpointUnderway};
pub use edge::{EdgeStatus, Exchange};
#[cfg(feature = "terminal")]
pub(crate) use explain::{instant, span};
pub use histogram::{Bucket, Histogram};
pub(crate) use live::{Live, Now, Settled};
pub use operator::{EventTimeStatus, OperatorKind, OperatorStatus, Sample, SampleKind, TaskStatus};
pub use prometheus::{PROMETHEUS_CONTENT_TYPE, prometheus};
pub(crate) use recent::{NOTED_EVERY, Recent};
use serde::{Deserialize, Serialize};
pub use split::{SplitState, SplitStatus};

/// What a job does. [`JobHandle::status`](crate::JobHandle::status) reads it.
///
/// ```
/// use windrow::{prelude::*, status::JobStatus};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("per-minute");
/// job.source(Sequence::new(10_000))
///     .event_time("at", Watermarks::in_order())
///     .window(Tumbling::of(mins(1)))
///     .aggregate([count()])
///     .drop_late()
///     .sink(MemorySink::new());
/// let running = job.start().await?;
/// let handle = running.handle();
/// println!("{}", handle.status().why_open("#2"));
/// running.wait().await?;
///
/// let status = handle.status();
/// assert_eq!(status.operators[0].rows_out, 10_000);
/// let json = serde_json::to_string(&status).unwrap();
/// assert_eq!(serde_json::from_str::<JobStatus>(&json).unwrap(), status);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// The name of the job.
    pub job: String,
    /// The version of Windrow that runs it.
    pub version: String,
    /// What it is doing.
    pub state: State,
    /// When it was started: the first time, not after a failure. Milliseconds since 1970.
    pub started_ms: u64,
    /// When this was read. Milliseconds since 1970.
    pub now_ms: u64,
    /// How long the job has been running, until this was read, or until it ended. Milliseconds.
    pub elapsed_ms: u64,
    /// How many times it was started again after a failure.
    pub restarts: u32,
    /// Why it failed last, if it did: what it was started again after, or what ended it.
    pub last_failure: Option<Failure>,
    /// How many tasks a keyed operator has: [`Job::parallelism`](crate::Job::parallelism).
    pub parallelism: usize,
    /// Its operators, in the order in which rows pass them. A window that runs in two phases has an entry for the first, whose name
    /// ends with `(first phase)`, before its own.
    pub operators: Vec<OperatorStatus>,
    /// Where rows go from one operator to another.
    pub edges: Vec<EdgeStatus>,
    /// Its checkpoints.
    pub checkpoints: CheckpointStatus,
    /// Its [memory budget](crate::Job::memory_budget), if it has one.
    pub memory: Option<MemoryStatus>,
    /// What a person should know, although the job runs: [`JobHandle::warnings`](crate::JobHandle::warnings).
    pub warnings: Vec<String>,
    /// Over how many milliseconds rates and shares are taken (`_per_s`, [`TaskStatus::busy`], [`TaskStatus::blocked`],
    /// [`EdgeStatus::blocked`]): about five seconds; less when the job, or its attempt, is younger.
    pub recent_ms: u64,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It reads, computes and writes.
    #[default]
    Running,
    /// It has been asked to stop: nothing more is read, what has been read is finished.
    Stopping,
    /// It has failed, and is about to be started again from its newest checkpoint. Counts are those of the attempt that failed.
    Restarting,
    /// It is over: exhausted, stopped, or failed for good.
    Ended,
}

/// A failure after which a job was started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// When. Milliseconds since 1970.
    pub at_ms: u64,
    /// What went wrong, with its cause.
    pub error: String,
}

/// The memory budget of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    /// How many bytes of state may be in memory.
    pub budget_bytes: u64,
    /// About how many there are, of all operators and tasks.
    pub held_bytes: u64,
    /// How many have been put on disk so far because they were too much; what was merged there and written again counts again.
    pub spilled_bytes: u64,
}

impl JobStatus {
    /// The index of an operator among [`JobStatus::operators`]: by its name in the printed job (`#3 window tumbling 10s`), its number
    /// there (`#3` or `3`), or its id in checkpoints (`window_1`).
    ///
    /// ```
    /// use windrow::status::{JobStatus, OperatorStatus};
    /// let window = OperatorStatus { name: "#3 window tumbling 10s".into(), id: Some("per-10s".into()), ..Default::default() };
    /// let status = JobStatus { operators: vec![window], ..Default::default() };
    /// assert_eq!(["#3", "3", "per-10s", "#3 window tumbling 10s"].map(|name| status.find(name)), [Some(0); 4]);
    /// assert_eq!(status.find("#30"), None);
    /// ```
    pub fn find(&self, operator: &str) -> Option<usize> {
        let place = |is: &dyn Fn(&OperatorStatus) -> bool| self.operators.iter().position(is);
        let number = operator.strip_prefix('#').unwrap_or(operator);
        let named = |one: &OperatorStatus| one.name == operator;
        // Both phases of a window have its number and its id: the second is the window.
        let numbered = |one: &OperatorStatus| {
            let own = one.name.split_whitespace().next().and_then(|first| first.strip_prefix('#'));
            !one.first_phase && own == Some(number)
        };
        let called = |one: &OperatorStatus| !one.first_phase && one.id.as_deref() == Some(operator);
        place(&named).or_else(|| place(&called)).or_else(|| place(&numbered))
    }
}
