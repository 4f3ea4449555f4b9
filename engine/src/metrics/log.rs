//! The last checkpoints of a job, and the one that is under way. It outlives the attempts of the job.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tracing::Span;
use windrow_connectors::Epoch;

use crate::{
    checkpoint::CheckpointReason as Kind,
    clock::{Moment, wall_millis, whole_millis},
    runtime::report::TaskId,
    status::{CheckpointDone, CheckpointKind},
    trace,
};

/// How many are remembered.
const KEPT: usize = 50;

/// The coordinator writes it down, a few times a checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointLog {
    job: String,
    /// The number of the attempt that is at work.
    attempt: AtomicU32,
    entries: Mutex<Entries>,
    /// Of the one that is under way. Apart from what is read, so that nobody who reads makes it last.
    span: Mutex<Option<Span>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entries {
    /// All that was read before is in a checkpoint. Attempts that fail do not change it.
    pub(crate) held_until: Moment,
    /// Newest first.
    pub(crate) last: VecDeque<CheckpointDone>,
    /// How many there have been.
    pub(crate) completed: u64,
    pub(crate) underway: Option<Going>,
}

impl Entries {
    fn new(now: Moment) -> Self {
        Self { held_until: now, last: VecDeque::new(), completed: 0, underway: None }
    }
}

/// One that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Going {
    pub(crate) epoch: u64,
    pub(crate) began: Moment,
    began_ms: u64,
    /// The tasks that have not answered.
    pub(crate) missing: BTreeSet<TaskId>,
    /// When the last of them did.
    pub(crate) answered: Option<Moment>,
}

/// What has become of a checkpoint.
pub(crate) struct Written {
    pub(crate) kind: Kind,
    /// What was written for it.
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    /// What a restart reads.
    pub(crate) total_bytes: u64,
    pub(crate) total_segments: u64,
}

impl CheckpointLog {
    pub(crate) fn new(job: &str) -> Self {
        let (entries, span) = (Mutex::new(Entries::new(Moment::now())), Mutex::default());
        Self { job: job.into(), attempt: AtomicU32::new(0), entries, span }
    }

    /// The attempt of this number is at work now.
    pub(crate) fn is_of(&self, attempt: u32) {
        self.attempt.store(attempt, Relaxed);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self) -> MutexGuard<'_, Option<Span>> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A barrier is on its way to these tasks.
    pub(crate) fn begin(&self, epoch: Epoch, tasks: impl Iterator<Item = TaskId>) {
        let (began, began_ms) = (Moment::now(), wall_millis());
        let missing: BTreeSet<TaskId> = tasks.collect();
        let answered = missing.is_empty().then_some(began);
        self.entries().underway = Some(Going { epoch: epoch.0, began, began_ms, missing, answered });
        let span = trace::checkpoint(&self.job, self.attempt.load(Relaxed), epoch.0);
        let former = self.span().replace(span);
        drop(former);
    }

    /// A task has answered, or has ended, so that its last word stands for it.
    pub(crate) fn answers(&self, task: TaskId) {
        if let Some(going) = &mut self.entries().underway
            && going.missing.remove(&task)
            && going.missing.is_empty()
        {
            going.answered = Some(Moment::now());
        }
    }

    /// Nothing has moved since the newest, as seen at `now`: it holds all.
    pub(crate) fn nothing_moved(&self, now: Moment) {
        self.entries().held_until = now;
    }

    /// The one that is under way is durable, decided and visible.
    pub(crate) fn complete(&self, written: Written) {
        let mut entries = self.entries();
        let Some(going) = entries.underway.take() else { return };
        let now = Moment::now();
        let millis = |until: Moment| whole_millis(until.since(going.began));
        let Written { kind, bytes, segments, total_bytes, total_segments } = written;
        let (kind, savepoint) = match kind {
            Kind::Periodic => (CheckpointKind::Periodic, None),
            Kind::Savepoint(name) => (CheckpointKind::Savepoint, Some(name)),
            Kind::Final => (CheckpointKind::Final, None),
        };
        let done = CheckpointDone {
            epoch: going.epoch,
            kind,
            savepoint,
            began_ms: going.began_ms,
            took_ms: millis(now),
            answered_ms: millis(going.answered.unwrap_or(now)),
            bytes,
            segments,
            total_bytes,
            total_segments,
        };
        entries.last.truncate(KEPT - 1);
        entries.last.push_front(done.clone());
        entries.completed += 1;
        entries.held_until = going.began;
        // Who collects may ask for the status: nothing is held while it is told.
        drop(entries);
        let span = self.span().take();
        if let Some(span) = span {
            trace::complete(&span, &done);
        }
    }

    /// Nobody works on the one that is under way any more.
    pub(crate) fn give_up(&self) {
        self.entries().underway = None;
        let span = self.span().take();
        drop(span);
    }

    pub(crate) fn read(&self) -> Entries {
        self.entries().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fifty_are_remembered_newest_first() {
        let log = CheckpointLog::new("test");
        let task = |task| TaskId { chain: 0, task };
        for epoch in 1..=60 {
            log.begin(Epoch(epoch), [task(0), task(1)].into_iter());
            log.answers(task(1));
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            assert_eq!(log.read().underway.unwrap().missing, BTreeSet::from([task(0)]));
            log.answers(task(0));
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let kind = if epoch == 60 { Kind::Savepoint("s".into()) } else { Kind::Periodic };
            log.complete(Written { kind, bytes: 7, segments: 1, total_bytes: 9, total_segments: 2 });
        }
        let read = log.read();
        assert_eq!((read.last.len(), read.completed, read.underway.is_none()), (50, 60, true));
        assert_eq!((read.last[0].epoch, read.last[49].epoch), (60, 11));
        assert_eq!((read.last[0].kind, read.last[0].savepoint.as_deref()), (CheckpointKind::Savepoint, Some("s")));
        assert_eq!((read.last[1].kind, &read.last[1].savepoint), (CheckpointKind::Periodic, &None));
        assert_eq!((read.last[0].took_ms, read.last[0].answered_ms, read.last[0].total_bytes), (5, 3, 9));
        log.begin(Epoch(61), [task(0)].into_iter());
        log.give_up();
        assert!(log.read().underway.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_held_up_to_the_barrier_or_while_nothing_moves() {
        let log = CheckpointLog::new("test");
        let wait = async || tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let unheld = || Moment::now().since(log.read().held_until).as_millis();
        wait().await;
        assert_eq!(unheld(), 10, "none was ever complete");
        log.begin(Epoch(1), std::iter::empty());
        wait().await;
        log.give_up();
        assert_eq!(unheld(), 20, "nor is this one");
        log.begin(Epoch(2), std::iter::empty());
        wait().await;
        log.complete(Written { kind: Kind::Periodic, bytes: 0, segments: 0, total_bytes: 0, total_segments: 0 });
        assert_eq!(unheld(), 10, "since its barrier");
        wait().await;
        log.nothing_moved(Moment::now());
        assert_eq!(unheld(), 0);
    }
}
