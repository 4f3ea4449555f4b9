//! Takes checkpoints of a running job: asks for barriers, gathers what the tasks report, makes it durable, decides it,
//! and publishes what the sinks staged.
//!
//! ```text
//!   every 10 s, or a savepoint is asked for, or it was decided where a split begins or ends
//!     │
//!     ▼            barrier e in band, through all tasks                 durable          decided      visible
//!   watch ──► sources ──► … ──► operators ──► sinks ──► TaskReports ──► segments,   ──► epoch/e ──► Sink::commit ──► done/e
//!                                                       (one per task)  MANIFEST                                     GC
//! ```
//!
//! With a sink whose system decides for itself whether an epoch counts, that comes between the manifest and the record: see
//! [`witnessed`](super::witnessed).
//!
//! One epoch is under way at a time, and the next is asked for only when the former is decided and published. Tasks never
//! wait for any of it: a task saves its state as references to Arrow arrays that do not change, lets the barrier go on,
//! and works. A task that has ended has said its last word, which stands for it in every later checkpoint; when all have
//! ended, a last checkpoint holds the whole job.
//!
//! When nothing has moved there is no checkpoint; then it only looks whether a later start has taken over.
//!
//! Without a checkpoint store there is only that last step: when all tasks have ended well, what the sinks staged is
//! published.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{
    Notify,
    mpsc::{UnboundedReceiver, UnboundedSender},
    oneshot, watch,
};
use windrow_connectors::{Epoch, Receipt, Sink};

use super::{
    archive::Archive,
    crash::crash_point,
    faults::mutated,
    layout::Layout,
    manifest::{Kind, Manifest},
    tell::{Sources, tell},
};
use crate::{
    Error, Result,
    clock::{Moment, sleep_until},
    metrics::{
        Counters,
        log::{CheckpointLog, Written},
    },
    runtime::report::{Snapshot, TaskId, TaskReport},
};

/// How long the store may take to say whether there is a later start, when nothing hangs on it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happens after a savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    Stop,
}

/// Somebody wants a savepoint; without a name a checkpoint, as any other, but now.
#[derive(Debug)]
pub(crate) struct Savepoint {
    pub(crate) name: Option<String>,
    pub(crate) then: Then,
    pub(crate) reply: oneshot::Sender<Result<Epoch>>,
}

/// The sinks of a job, by id.
pub(crate) type Sinks = BTreeMap<String, (String, Arc<dyn Sink>)>;

/// Publishes what was staged, sink by sink; tries all, also when one fails.
pub(crate) async fn publish(sinks: &Sinks, staged: &BTreeMap<String, Vec<Receipt>>) -> Result<()> {
    let mut first = None;
    for (id, receipts) in staged {
        let Some((operator, sink)) = sinks.get(id) else { continue };
        let some = if mutated("only the first receipt of a sink is published") { 1 } else { receipts.len() };
        if let Err(error) = sink.commit(&receipts[..some.min(receipts.len())]).await {
            first.get_or_insert(Error::Sink { operator: operator.clone(), error });
        }
        crash_point("K10 sink");
        if !receipts.is_empty() && mutated("only the first sink is published") {
            break;
        }
    }
    first.map_or(Ok(()), Err)
}

pub(crate) struct Coordinator {
    pub(crate) layout: Arc<Layout>,
    pub(crate) sinks: Sinks,
    pub(crate) sources: Sources,
    pub(crate) reports: UnboundedReceiver<TaskReport>,
    pub(crate) barrier: watch::Sender<Option<Epoch>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) savepoints: UnboundedReceiver<Savepoint>,
    /// Rung when it is decided where a split begins or ends and no checkpoint holds that: one is taken at once.
    pub(crate) decided: Arc<Notify>,
    pub(crate) counters: Arc<[Arc<Counters>]>,
    /// The epoch that comes next.
    pub(crate) next: Epoch,
    /// Where checkpoints go; `None` without a store.
    pub(crate) archive: Option<Archive>,
    /// The last words of tasks that have ended. Their receipts are taken out when a checkpoint holds them.
    pub(crate) ended: BTreeMap<TaskId, Snapshot>,
    /// For who watches.
    pub(crate) log: Arc<CheckpointLog>,
}

/// The epoch that is under way.
pub(crate) struct Underway {
    epoch: Epoch,
    savepoint: Option<Savepoint>,
    reports: BTreeMap<TaskId, Snapshot>,
    began: Moment,
    /// Whether anything had moved when its barrier was sent.
    moved: bool,
}

impl Underway {
    fn new(epoch: Epoch, savepoint: Option<Savepoint>, moved: bool) -> Self {
        Self { epoch, savepoint, reports: BTreeMap::new(), began: Moment::now(), moved }
    }

    /// It was asked for before there were tasks to hear of it.
    pub(crate) fn begins_now(self) -> Self {
        Self { began: Moment::now(), ..self }
    }
}

enum Event {
    Report(TaskReport),
    /// All senders are gone: every task has ended or was ended.
    NoTasks,
    Due,
    Decided,
    Savepoint(Savepoint),
    TimedOut,
}

impl Coordinator {
    /// Lines for the tasks to report by.
    pub(crate) fn line() -> (UnboundedSender<TaskReport>, UnboundedReceiver<TaskReport>) {
        tokio::sync::mpsc::unbounded_channel()
    }

    /// Works until the job has ended and its last checkpoint is complete, or an epoch has been open for too long.
    pub(crate) async fn run(mut self, first: Option<Underway>) -> Result<()> {
        let witnessed = self.archive.as_ref().and_then(|archive| archive.witnessed.clone());
        let Some(witnessed) = witnessed else { return self.work(first).await };
        let error = tokio::select! {
            ended = self.work(first) => return ended,
            error = witnessed.watch() => error,
        };
        match &self.archive {
            Some(archive) => Err(archive.explain(error.of(archive.store.job())).await),
            None => Ok(()),
        }
    }

    async fn work(&mut self, first: Option<Underway>) -> Result<()> {
        let tasks: Vec<TaskId> = self.layout.tasks().collect();
        if let Some(first) = &first {
            self.note_begin(first.epoch);
        }
        let mut underway = first;
        let mut due = self.due();
        // Nothing has moved since the checkpoint that the job began from.
        let mut activity = 0;
        // The savepoint that the job is being stopped for.
        let mut last_savepoint = None;
        loop {
            match self.next_event(underway.as_ref(), due).await {
                Event::Report(TaskReport { task, epoch: None, snapshot }) => {
                    self.log.answers(task);
                    self.ended.insert(task, snapshot);
                }
                Event::Report(TaskReport { task, epoch: Some(epoch), snapshot }) => {
                    if let Some(underway) = underway.as_mut().filter(|underway| underway.epoch == epoch) {
                        self.log.answers(task);
                        underway.reports.insert(task, snapshot);
                        crash_point("K3 report");
                    }
                }
                // Without the last word of every task the job has failed; whoever failed says why.
                Event::NoTasks => return Ok(()),
                Event::Due => {
                    due = self.due();
                    // Nothing moved since the last checkpoint: it still holds.
                    let (looked, now) = (Moment::now(), self.activity());
                    match activity == now {
                        true => {
                            self.log.nothing_moved(looked);
                            self.look_around().await?;
                        }
                        false => underway = Some(self.begin(None)),
                    }
                    activity = now;
                }
                Event::Decided => underway = Some(self.begin(None)),
                Event::Savepoint(savepoint) => match (self.accept(savepoint).await, underway.is_some()) {
                    (Some(savepoint), _) if savepoint.then == Then::Stop => {
                        self.stop.send_replace(true);
                        match &last_savepoint {
                            Some(Savepoint { name, .. }) => {
                                let name = name.as_deref().unwrap_or_default();
                                let reason = format!("the job is already stopping with savepoint {name:?}");
                                // Who asked may have gone.
                                let job = self
                                    .archive
                                    .as_ref()
                                    .map_or_else(String::new, |archive| archive.store.job().into());
                                let _ = savepoint.reply.send(Err(Error::Savepoint { job, reason }));
                            }
                            None => last_savepoint = Some(savepoint),
                        }
                    }
                    (Some(savepoint), false) => underway = Some(self.begin(Some(savepoint))),
                    _ => {}
                },
                Event::TimedOut => return Err(self.timed_out(&tasks, underway.as_ref())),
            }
            let is_there = |task: &TaskId| {
                self.ended.contains_key(task) || underway.as_ref().is_some_and(|u| u.reports.contains_key(task))
            };
            let complete = tasks.iter().all(is_there);
            if let Some(underway) = underway.take_if(|_| complete) {
                self.complete_in_time(underway).await?;
            }
            if underway.is_none() && tasks.iter().all(|task| self.ended.contains_key(task)) {
                let last = Underway::new(self.take_epoch(), last_savepoint, self.activity() > 0);
                self.note_begin(last.epoch);
                return self.complete_in_time(last).await;
            }
        }
    }

    /// Completes an epoch, or fails: a store or a sink that does not answer must not stop the checkpoints without a word. The time
    /// that its barrier took counts, so that an epoch is never open for longer than was said. A failure that has a later start
    /// of the job behind it says so.
    async fn complete_in_time(&mut self, underway: Underway) -> Result<()> {
        let gives_up = self.gives_up(&underway);
        let timeout = self.archive.as_ref().map(|archive| archive.timeout.clone()).unwrap_or_default();
        let epoch = underway.epoch;
        let completed = tokio::select! {
            completed = self.complete(underway) => completed,
            () = sleep_until(gives_up) => {
                Err(timeout.passed(epoch, vec!["the checkpoint store, or a sink that is to publish".into()]))
            }
        };
        match (completed, &self.archive) {
            (Err(error), Some(archive)) => Err(archive.explain(error).await),
            (Err(error), None) => Err(error),
            (Ok(manifest), _) => {
                if let Some(manifest) = manifest {
                    tell(&self.sources, &manifest).await;
                }
                Ok(())
            }
        }
    }

    async fn next_event(&mut self, underway: Option<&Underway>, due: Option<Moment>) -> Event {
        let gives_up = underway.and_then(|underway| self.gives_up(underway));
        let idle = underway.is_none();
        let saves = self.archive.is_some();
        tokio::select! {
            biased;
            report = self.reports.recv() => report.map_or(Event::NoTasks, Event::Report),
            () = sleep_until(gives_up) => Event::TimedOut,
            // One at a time: who asks meanwhile waits.
            Some(savepoint) = self.savepoints.recv(), if idle => Event::Savepoint(savepoint),
            () = self.decided.notified(), if idle && saves => Event::Decided,
            () = sleep_until(due), if idle => Event::Due,
        }
    }

    /// When an epoch has taken too long; without a store it may take as long as it takes.
    fn gives_up(&self, underway: &Underway) -> Option<Moment> {
        self.archive.as_ref().map(|archive| underway.began.after(archive.timeout.after))
    }

    fn due(&self) -> Option<Moment> {
        self.archive.as_ref().map(|archive| Moment::now().after(archive.every))
    }

    /// A number that changes whenever a row has moved.
    fn activity(&self) -> u64 {
        self.counters.iter().map(|counters| counters.activity()).fold(0, u64::wrapping_add)
    }

    /// A job that has nothing to save has no checkpoint either by which it would notice a later start: it would read on beside that
    /// one, with all its connections, and write at its next row what is not written exactly once.
    async fn look_around(&self) -> Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let patience = Moment::now().after(PATIENCE);
        tokio::select! {
            replaced = archive.replaced() => replaced,
            () = sleep_until(Some(patience)) => Ok(()),
        }
    }

    fn take_epoch(&mut self) -> Epoch {
        let epoch = self.next;
        self.next = Epoch(epoch.0 + 1);
        epoch
    }

    /// Sends a barrier on its way.
    pub(crate) fn begin(&mut self, savepoint: Option<Savepoint>) -> Underway {
        let epoch = self.take_epoch();
        crash_point("K1 no barrier");
        self.barrier.send_replace(Some(epoch));
        self.note_begin(epoch);
        Underway::new(epoch, savepoint, self.activity() > 0)
    }

    /// For who watches: a checkpoint is under way, and which tasks are to answer.
    fn note_begin(&self, epoch: Epoch) {
        if self.archive.is_some() {
            self.log.begin(epoch, self.layout.tasks().filter(|task| !self.ended.contains_key(task)));
        }
    }

    /// Whether the name of a savepoint can be had; otherwise tells who asked. A checkpoint without a name is for who waits for it: when
    /// nobody does any more, none is taken.
    async fn accept(&self, savepoint: Savepoint) -> Option<Savepoint> {
        let archive = self.archive.as_ref()?;
        if savepoint.name.is_none() && savepoint.then == Then::GoOn && savepoint.reply.is_closed() {
            return None;
        }
        let free = match &savepoint.name {
            Some(name) => archive.check_savepoint(name).await,
            None => Ok(()),
        };
        match free {
            Ok(()) => Some(savepoint),
            Err(error) => {
                // Who asked may have gone.
                let _ = savepoint.reply.send(Err(error));
                None
            }
        }
    }

    /// Makes an epoch durable, has it decided, publishes it. What there is of it in the store, if there is one.
    async fn complete(&mut self, underway: Underway) -> Result<Option<Manifest>> {
        let Underway { epoch, savepoint, mut reports, moved, .. } = underway;
        let mut staged: BTreeMap<String, Vec<Receipt>> = BTreeMap::new();
        let mut last_words = Vec::new();
        for (task, ended) in &mut self.ended {
            let mut receipts = std::mem::take(&mut ended.receipts);
            if mutated("the receipts of ended tasks are dropped") {
                receipts.clear();
            }
            // A task that reported and then ended: its last word belongs to the next checkpoint.
            match reports.contains_key(task) {
                true if mutated("what a task staged between its barrier and its end is dropped") => {}
                true => ended.receipts = receipts,
                false => {
                    last_words.push(*task);
                    reports.insert(*task, Snapshot { receipts, ..ended.clone() });
                }
            }
        }
        for (task, snapshot) in &mut reports {
            if let Some(sink) = &self.layout.chains[task.chain].sink {
                staged.entry(sink.clone()).or_default().append(&mut snapshot.receipts);
            }
        }
        let Some(archive) = &mut self.archive else { return publish(&self.sinks, &staged).await.map(|()| None) };
        let kind = match savepoint.as_ref().and_then(|savepoint| savepoint.name.clone()) {
            Some(name) => Kind::Savepoint(name),
            None if last_words.len() == reports.len() => Kind::Final,
            None => Kind::Periodic,
        };
        if mutated("the sinks publish before the decision") {
            publish(&self.sinks, &staged).await?;
        }
        let before = archive.counters.read();
        let manifest = archive.write(&self.layout, &self.sinks, epoch, kind, &reports, &staged).await?;
        // What an ended task left is in the store now.
        for (_, ended) in self.ended.iter_mut().filter(|(task, _)| last_words.contains(task)) {
            for state in &mut ended.operators {
                state.segments.iter_mut().for_each(|(_, rows)| *rows = None);
                state.stored.clear();
            }
        }
        if mutated("done is written before the sinks have published") {
            archive.published(epoch).await?;
        }
        let kept = archive.keep(&manifest).await;
        publish(&self.sinks, &staged).await?;
        crash_point("K10 published");
        archive.published(epoch).await?;
        let after = archive.counters.read();
        self.log.complete(Written {
            kind: manifest.kind.clone(),
            bytes: after.bytes - before.bytes,
            segments: after.segments - before.segments,
            total_bytes: manifest.segments().map(|segment| segment.length).sum(),
            total_segments: manifest.segments().count() as u64,
        });
        if let Some(Savepoint { reply, .. }) = savepoint {
            // Who asked may have gone.
            let _ = reply.send(kept.map(|()| epoch));
        }
        archive.collect().await?;
        archive.counters.complete(epoch, moved);
        Ok(Some(manifest))
    }

    /// Names the tasks that did not answer.
    fn timed_out(&self, tasks: &[TaskId], underway: Option<&Underway>) -> Error {
        let answered = |task: &TaskId| {
            self.ended.contains_key(task) || underway.is_some_and(|underway| underway.reports.contains_key(task))
        };
        let silent = tasks.iter().filter(|task| !answered(task));
        let epoch = underway.map_or(self.next, |underway| underway.epoch);
        let timeout = self.archive.as_ref().map(|archive| archive.timeout.clone()).unwrap_or_default();
        timeout.passed(epoch, silent.map(|task| self.layout.name(*task)).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Job, prelude::*};

    #[tokio::test]
    async fn for_who_has_gone_no_checkpoint_is_taken_but_a_savepoint_is() {
        let directory = tempfile::tempdir().unwrap();
        let job = Job::new("numbers").checkpoint(directory.path().to_str().unwrap(), hours(1));
        job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let asks = async {
            let before = handle.checkpoint().await.unwrap();
            for _ in 0..5 {
                let mut gone = Box::pin(handle.checkpoint());
                assert!(futures::poll!(&mut gone).is_pending());
            }
            let between = handle.checkpoint().await.unwrap();
            let mut gone = Box::pin(handle.savepoint("one"));
            assert!(futures::poll!(&mut gone).is_pending());
            drop(gone);
            let after = handle.checkpoint().await.unwrap();
            handle.stop();
            [before, between, after].map(|epoch| epoch.0)
        };
        let ([before, between, after], ended) = tokio::join!(asks, running.wait());
        ended.unwrap();
        assert_eq!(between, before + 1, "nobody waited for those between");
        assert_eq!(after, between + 2, "a savepoint is kept for later");
    }
}
