//! What a running job counts.
//!
//! Every operator of the printed job has one set of counters, shared by its tasks. They are exact and keep the law that
//! no row vanishes: for an operator `rows_in = processed + late`, for a source `rows_in = processed + rejected`, for an async
//! operator `rows_in = processed + failed + in_flight`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use tracing::{Span, span::Id};
use windrow_connectors::{Epoch, SplitId};
use windrow_operators::Timestamp;

use crate::{runtime::align::Hold, trace};

pub(crate) mod histogram;
pub(crate) mod log;
pub(crate) mod meter;
pub(crate) mod redact;
pub(crate) mod samples;
pub(crate) mod splits;
mod task;

use redact::redacted;
use samples::Samples;
use splits::SplitTable;
use task::Reached;
pub(crate) use task::TaskCounters;

/// What the name of an operator's first phase ends with.
pub(crate) const FIRST_PHASE: &str = " (first phase)";

/// How many splits that are not read are named.
const SHOWN_SPLITS: usize = 3;

/// Who warns: what each says takes the place of what it said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Warner {
    Task(usize),
    /// Who looks for new splits: the source has failed to say.
    Discovery,
    /// The same: the source has not answered for long.
    Silence,
}

/// The counters of one operator.
#[derive(Debug)]
pub(crate) struct Counters {
    name: String,
    /// The span of the attempt, if anybody collects.
    attempt: Option<Id>,
    tasks: Vec<TaskCounters>,
    pub(crate) rejected: AtomicU64,
    pub(crate) future: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// How many times the position of a split went on without rows.
    pub(crate) moved: AtomicU64,
    latest: AtomicI64,
    /// The furthest that was ever read of its watermark, and of its promise.
    reached: AtomicI64,
    promised: AtomicI64,
    spilled_bytes: AtomicU64,
    spilled_segments: AtomicU64,
    /// Of each task: the splits that are not read for now, and why.
    paused: Mutex<Vec<Option<(String, Hold)>>>,
    /// Of each task: how many records wait to be read, and the split in which most do.
    lags: Mutex<Vec<Option<(u64, String, u64)>>>,
    warnings: Mutex<BTreeMap<Warner, String>>,
    /// The splits of a source.
    pub(crate) splits: SplitTable,
    /// Late, rejected and failed rows.
    pub(crate) samples: Samples,
}

impl Counters {
    pub(crate) fn new(name: String, tasks: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            attempt: Span::current().id(),
            tasks: (0..tasks).map(|_| TaskCounters::new()).collect(),
            rejected: AtomicU64::new(0),
            future: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            latest: AtomicI64::new(i64::MIN),
            reached: AtomicI64::new(i64::MIN),
            promised: AtomicI64::new(i64::MIN),
            spilled_bytes: AtomicU64::new(0),
            spilled_segments: AtomicU64::new(0),
            paused: Mutex::new((0..tasks).map(|_| None).collect()),
            lags: Mutex::new(vec![None; tasks]),
            warnings: Mutex::default(),
            splits: SplitTable::default(),
            samples: Samples::new(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What one of its tasks counts.
    pub(crate) fn task(&self, task: usize) -> &TaskCounters {
        &self.tasks[task]
    }

    pub(crate) fn tasks(&self) -> &[TaskCounters] {
        &self.tasks
    }

    fn sum(&self, of: impl Fn(&TaskCounters) -> u64) -> u64 {
        self.tasks.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// A segment of so many bytes was put on disk, because it was too much for memory.
    pub(crate) fn spilled(&self, bytes: u64) {
        self.spilled_bytes.fetch_add(bytes, Relaxed);
        self.spilled_segments.fetch_add(1, Relaxed);
    }

    /// The splits that a task does not read for now, and why.
    pub(crate) fn pauses(&self, task: usize, splits: &[SplitId], hold: Option<Hold>) {
        let shown = splits.iter().take(SHOWN_SPLITS).map(SplitId::as_str).collect::<Vec<_>>().join(", ");
        let more = splits.len().saturating_sub(SHOWN_SPLITS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let plural = if splits.len() == 1 { "split" } else { "splits" };
        self.paused()[task] = hold.filter(|_| !splits.is_empty()).map(|hold| (format!("{plural} {shown}{more}"), hold));
    }

    fn paused(&self) -> MutexGuard<'_, Vec<Option<(String, Hold)>>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records wait in the splits of a task, as far as is known.
    pub(crate) fn lags(&self, task: usize, splits: &[(SplitId, u64)]) {
        let total = splits.iter().map(|(_, lag)| *lag).fold(0, u64::saturating_add);
        let most = splits.iter().max_by_key(|(_, lag)| *lag);
        self.lagging()[task] = most.map(|(split, most)| (total, split.as_str().to_owned(), *most));
    }

    fn lagging(&self) -> MutexGuard<'_, Vec<Option<(u64, String, u64)>>> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person should know of the operator now, if anything, as this one says.
    pub(crate) fn warn(&self, warner: Warner, warning: Option<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(warning) = warning else {
            warnings.remove(&warner);
            return;
        };
        let warning = redacted(&warning);
        let is_new = !warnings.values().any(|said| *said == warning);
        warnings.insert(warner, warning.clone());
        // Who collects may ask for the warnings.
        drop(warnings);
        if is_new {
            trace::warning(self.attempt.clone(), Some(&self.name), &warning);
        }
    }

    /// What several tasks say in the same words, once.
    pub(crate) fn warnings(&self) -> BTreeSet<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Rows that came too late.
    pub(crate) fn late(&self) -> u64 {
        self.sum(|task| task.late.load(Relaxed))
    }

    pub(crate) fn saw(&self, time: i64) {
        self.latest.fetch_max(time, Relaxed);
    }

    /// A number that changes whenever rows come in or leave, or a position goes on without them.
    pub(crate) fn activity(&self) -> u64 {
        let of_task = |task: &TaskCounters| {
            let counts = [&task.rows_in, &task.rows_out, &task.late, &task.processed];
            counts.iter().map(|count| count.load(Relaxed)).fold(0, u64::wrapping_add)
        };
        self.sum(of_task).wrapping_add(self.failed.load(Relaxed)).wrapping_add(self.moved.load(Relaxed))
    }

    /// How far event time is over all tasks; `None` before the first.
    fn watermark(&self) -> Option<i64> {
        self.over_tasks(&self.reached, |task| &task.watermark)
    }

    /// What all tasks together have promised downstream; `None` before the first.
    pub(crate) fn promised(&self) -> Option<i64> {
        self.over_tasks(&self.promised, |task| &task.promised)
    }

    /// As [`WatermarkMerge`](windrow_operators::WatermarkMerge) takes it: as far as the least of the tasks that are active; when none is, as
    /// far as any of them was before its end. A task that wakes behind the others pulls nobody back.
    fn over_tasks(&self, before: &AtomicI64, of: impl Fn(&TaskCounters) -> &Reached) -> Option<i64> {
        // One look at each: between two of them a task may wake.
        let look = |task: &TaskCounters| (task.is_idle(), of(task).has_ended(), of(task).before_end());
        let looks: Vec<(bool, bool, i64)> = self.tasks.iter().map(look).collect();
        let active = looks.iter().filter(|(idle, ended, _)| !idle && !ended).map(|(.., time)| *time).min();
        let furthest = || looks.iter().map(|(.., time)| *time).max().unwrap_or(i64::MIN);
        let have_ended = !looks.is_empty() && looks.iter().all(|(_, ended, _)| *ended);
        let now = if have_ended { i64::MAX } else { active.unwrap_or_else(furthest) };
        let reached = before.fetch_max(now, Relaxed).max(now);
        (reached != i64::MIN).then_some(reached)
    }

    pub(crate) fn read(&self) -> OperatorMetrics {
        let lags: Vec<_> = self.lagging().iter().flatten().cloned().collect();
        let lag = lags.iter().map(|(total, ..)| *total).reduce(u64::saturating_add);
        let most = lags.into_iter().map(|(_, split, most)| (split, most)).max_by_key(|(_, most)| *most);
        OperatorMetrics {
            operator: self.name.clone(),
            rows_in: self.sum(|task| task.rows_in.load(Relaxed)),
            rows_out: self.sum(|task| task.rows_out.load(Relaxed)),
            processed: self.sum(|task| task.processed.load(Relaxed)),
            late: self.late(),
            rejected: self.rejected.load(Relaxed),
            future: self.future.load(Relaxed),
            failed: self.failed.load(Relaxed),
            in_flight: self.sum(TaskCounters::rows_in_flight),
            retries: self.retries.load(Relaxed),
            watermark: self.watermark().map(Timestamp::from_micros),
            latest: Some(self.latest.load(Relaxed)).filter(|latest| *latest != i64::MIN).map(Timestamp::from_micros),
            state_bytes: self.sum(TaskCounters::held_bytes),
            spilled_bytes: self.spilled_bytes.load(Relaxed),
            spilled_segments: self.spilled_segments.load(Relaxed),
            paused: self.paused().iter().flatten().map(|(splits, hold)| format!("{splits}: {hold}")).collect(),
            lag,
            furthest_behind: most,
        }
    }
}

/// In the order in which rows pass: the first phase of an operator before the operator.
pub(crate) fn in_order_of_rows(counters: &[Arc<Counters>]) -> Arc<[Arc<Counters>]> {
    let mut ordered = counters.to_vec();
    ordered.sort_by_key(|own| {
        let name = own.name().strip_suffix(FIRST_PHASE);
        let place = counters.iter().position(|other| other.name() == name.unwrap_or(own.name()));
        (place, name.is_none())
    });
    ordered.into()
}

/// What one operator has counted, over all its tasks, since the job started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorMetrics {
    /// Its number and name in the printed job.
    pub operator: String,
    /// Rows that came in. For a source: records read, whether they decoded or not.
    pub rows_in: u64,
    /// Rows that left by the main output. For a sink: rows written.
    pub rows_out: u64,
    /// Rows that the operator answered for as processed. For a source: those that left, and records that are no rows by their format
    /// and no mistakes either, such as the tombstones behind Debezium's deletes.
    pub processed: u64,
    /// Rows that came too late.
    pub late: u64,
    /// Records of a source that did not decode or had no usable event time.
    pub rejected: u64,
    /// Rows of a source from the future, which did not move the watermark: see
    /// [`Watermarks::max_future`](crate::Watermarks::max_future).
    pub future: u64,
    /// Rows of an async operator whose call failed, after its last attempt.
    pub failed: u64,
    /// Rows of an async operator that have come in and have neither a result nor failed yet. A job that was stopped has
    /// them in its last checkpoint.
    pub in_flight: u64,
    /// Attempts of an async operator after the first of a call.
    pub retries: u64,
    /// The watermark of the task that is furthest behind, of those that are not idle; `None` before the first. When all are idle it is
    /// that of the furthest. [`Timestamp::MAX`] after the end.
    pub watermark: Option<Timestamp>,
    /// The latest event time a source has seen.
    pub latest: Option<Timestamp>,
    /// About how many bytes of state the operator holds in memory, looked at about once a second, when rows or watermarks
    /// come, and at the end.
    pub state_bytes: u64,
    /// How many bytes of state it has put on disk so far, because they were too much for memory: see
    /// [`Job::memory_budget`](crate::Job::memory_budget). What was merged there and written again counts again.
    pub spilled_bytes: u64,
    /// In how many segments.
    pub spilled_segments: u64,
    /// The splits that a source does not read for now and whom they wait for, a sentence per task: see
    /// [`Watermarks::align_within`](crate::Watermarks::align_within).
    pub paused: Vec<String>,
    /// How many records (not how much time) of a source wait to be read, over all its splits, looked at about once a second.
    /// `None` when it does not know.
    pub lag: Option<u64>,
    /// The split of a source in which most records wait, and how many those are.
    pub furthest_behind: Option<(String, u64)>,
}

impl OperatorMetrics {
    /// Whether every row is accounted for. True between two batches, and at the end of a job.
    pub fn balances(&self) -> bool {
        self.rows_in == self.processed + self.late + self.rejected + self.failed + self.in_flight
    }
}

/// The counters of checkpoints.
#[derive(Debug, Default)]
pub(crate) struct CheckpointCounters {
    completed: AtomicU64,
    /// How many of them hold that something has moved.
    moved: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    newest: AtomicU64,
    not_collected: AtomicU64,
}

impl CheckpointCounters {
    /// A segment was written.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.segments.fetch_add(1, Relaxed);
    }

    /// Old checkpoints could not be removed.
    pub(crate) fn not_collected(&self) {
        self.not_collected.fetch_add(1, Relaxed);
    }

    /// A checkpoint is decided and published. `moved`: rows had been read, or left, when its barrier was sent.
    pub(crate) fn complete(&self, epoch: Epoch, moved: bool) {
        self.completed.fetch_add(1, Relaxed);
        self.moved.fetch_add(u64::from(moved), Relaxed);
        self.newest.store(epoch.0, Relaxed);
    }

    /// Whether one is complete that holds more than the one from which the job went on: not only where its splits begin.
    pub(crate) fn have_moved(&self) -> bool {
        self.moved.load(Relaxed) > 0
    }

    pub(crate) fn read(&self) -> CheckpointMetrics {
        let completed = self.completed.load(Relaxed);
        CheckpointMetrics {
            completed,
            newest: (completed > 0).then(|| Epoch(self.newest.load(Relaxed))),
            segments: self.segments.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            not_collected: self.not_collected.load(Relaxed),
        }
    }
}

/// What checkpoints have counted since the job was started, or started again after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointMetrics {
    /// How many are complete: durable, decided, and what the sinks staged for them visible.
    pub completed: u64,
    /// The newest of them.
    pub newest: Option<Epoch>,
    /// How many segments of state were written.
    pub segments: u64,
    /// The bytes of these segments.
    pub bytes: u64,
    /// How many times old checkpoints could not be removed. They are tried again after the next checkpoint; when this
    /// keeps growing the store fills up: look at its rights, and for files in it that are not its own.
    pub not_collected: u64,
}

/// What a job has counted, operator by operator in the order of the printed job.
/// [`Results::drop_late`](crate::Results::drop_late) has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobMetrics {
    /// One entry per operator.
    pub operators: Vec<OperatorMetrics>,
    /// What its checkpoints have counted.
    pub checkpoints: CheckpointMetrics,
}

impl JobMetrics {
    pub(crate) fn read(counters: &[Arc<Counters>], checkpoints: &CheckpointCounters) -> Self {
        let operators = counters.iter().map(|counters| counters.read()).collect();
        Self { operators, checkpoints: checkpoints.read() }
    }

    /// The operators whose name contains `part`.
    pub fn named<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a OperatorMetrics> + 'a {
        self.operators.iter().filter(move |operator| operator.operator.contains(part))
    }
}

impl fmt::Display for JobMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.operators.iter().map(|operator| operator.operator.chars().count()).max().unwrap_or(0);
        writeln!(f, "{:width$} {:>12} {:>12} {:>9} {:>9}", "operator", "rows in", "rows out", "late", "rejected")?;
        for o in &self.operators {
            let counts = (o.rows_in, o.rows_out, o.late, o.rejected);
            writeln!(f, "{:width$} {:>12} {:>12} {:>9} {:>9}", o.operator, counts.0, counts.1, counts.2, counts.3)?;
            if o.failed > 0 {
                writeln!(f, "{:width$}   {} rows whose call failed", "", o.failed)?;
            }
            if o.future > 0 {
                writeln!(f, "{:width$}   {} rows are from the future", "", o.future)?;
            }
            if o.spilled_segments > 0 {
                let (bytes, segments) = (o.spilled_bytes, o.spilled_segments);
                writeln!(f, "{:width$}   {bytes} bytes of state were put on disk in {segments} segments", "")?;
            }
            if let (Some(lag @ 1..), Some((split, most))) = (o.lag, &o.furthest_behind) {
                writeln!(f, "{:width$}   {lag} records behind, {most} of them in split {split}", "")?;
            }
            for paused in &o.paused {
                writeln!(f, "{:width$}   not read: {paused}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_over_tasks_is_as_who_merges_them_has_it() {
        let counters = Counters::new("#1 window".into(), 2);
        let (one, other) = (counters.task(0), counters.task(1));
        let at = Timestamp::from_micros;
        assert_eq!(counters.watermark(), None);
        one.reaches(at(50));
        assert_eq!(counters.watermark(), None, "the other has said nothing");
        other.reaches(at(10));
        assert_eq!(counters.watermark(), Some(10));
        one.reaches(Timestamp::MAX);
        assert_eq!(counters.watermark(), Some(10), "the other is active");
        other.idles(true);
        assert_eq!(counters.watermark(), Some(50), "what the one had reached before its end");
        other.idles(false);
        other.reaches(at(60));
        assert_eq!((counters.watermark(), one.watermark()), (Some(60), Some(i64::MAX)));
        other.reaches(Timestamp::MAX);
        assert_eq!(counters.watermark(), Some(i64::MAX));
    }
}
