//! A job at work: waiting for it, asking it, stopping it, starting it again after a failure.
//!
//! ```text
//!   start ──► attempt: tasks + coordinator ──ended──► Report
//!                ▲        │ failed
//!                └─ wait ◄┘  from the newest checkpoint, unless there is none or nothing moves on
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, Span};
use windrow_connectors::Epoch;

use super::{
    attempt::{Attempt, Blueprint},
    interrupts::Interrupts,
};
use crate::{
    Error, Result,
    checkpoint::{Savepoint, Then, Witnessed},
    clock::{Moment, sleep_until, whole_millis},
    metrics::{CheckpointCounters, Counters, JobMetrics, log::CheckpointLog, redact::redacted},
    status::{Failure, JobStatus, Live, NOTED_EVERY, Now, Recent, State},
    trace,
};

/// What the handles of a job share with it. It outlives the attempts.
pub(crate) struct Shared {
    job: String,
    started: Moment,
    /// The same on the wall, in milliseconds since 1970.
    started_ms: u64,
    pub(crate) stop: watch::Sender<bool>,
    /// Whether it is to end at once.
    cancel: watch::Sender<bool>,
    /// Of the attempt that is at work.
    line: Mutex<Line>,
    pub(crate) log: Arc<CheckpointLog>,
    life: Mutex<Life>,
}

/// What has happened to the job as a whole.
#[derive(Default)]
struct Life {
    restarts: u32,
    failure: Option<Failure>,
    /// It has failed and is not yet started again.
    restarting: bool,
    ended: Option<Moment>,
}

/// What an attempt can be asked.
pub(crate) struct Line {
    pub(crate) counters: Arc<[Arc<Counters>]>,
    pub(crate) checkpoints: Arc<CheckpointCounters>,
    /// Absent before the first attempt.
    pub(crate) live: Option<Arc<Live>>,
    pub(crate) recent: Arc<Mutex<Recent>>,
    pub(crate) warnings: Vec<String>,
    /// The physical plan in words.
    pub(crate) explained: String,
    /// Who decides whether an epoch counts, when it is not the checkpoint store.
    pub(crate) witnessed: Option<Witnessed>,
    /// Absent without checkpoints.
    pub(crate) savepoints: Option<mpsc::UnboundedSender<Savepoint>>,
}

impl Shared {
    /// A new attempt takes the place of the former.
    pub(crate) fn connect(&self, mut line: Line) {
        for warning in &mut line.warnings {
            *warning = redacted(warning);
            trace::warning(Span::current().id(), None, warning);
        }
        *self.line() = line;
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a status is read from.
    fn looked_at(&self) -> (Option<Arc<Live>>, Arc<Mutex<Recent>>) {
        let line = self.line();
        (line.live.clone(), line.recent.clone())
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The span of the attempt of this number, which begins.
    fn attempt(&self, job: &Span, number: u32) -> Span {
        self.log.is_of(number);
        trace::attempt(job, &self.job, number)
    }

    /// An attempt has failed, and the job may be started again.
    fn failed(&self, attempt: &Span, error: &Error) {
        let failure = Failure { at_ms: Now::look().wall_ms, error: redacted(&said(error)) };
        // Nobody works on a checkpoint any more.
        self.log.give_up();
        trace::failed(attempt, &failure.error);
        let mut life = self.life();
        life.restarting = true;
        life.failure = Some(failure);
    }

    fn started_again(&self) {
        let mut life = self.life();
        life.restarting = false;
        life.restarts += 1;
        let restarts = life.restarts;
        // Who collects may ask for the status.
        drop(life);
        trace::restarted(restarts);
    }
}

/// An error with what caused it.
fn said(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Waits until the job is to end at once. The sender is in every handle, and so in who waits.
async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    let _ = cancel.wait_for(|cancel| *cancel).await;
}

/// Says that the job is over when it is dropped, however that comes about.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.life().ended = Some(Moment::now());
    }
}

/// A job at work. Dropping it ends it at once, without publishing what its sinks have not finished; as after a crash, readers of
/// topics that it wrote to in a transaction may wait for this until the job is started again.
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let store = directory.path().to_str().unwrap(); // "/var/lib/jobs"
/// let numbers = || {
///     let job = Job::new("numbers").checkpoint(store, hours(1));
///     job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
///     job
/// };
/// let running = numbers().start().await?;
/// let handle = running.handle(); // may be cloned, and asked from anywhere
/// # while handle.metrics().named("source").all(|source| source.rows_in < 10) { tokio::task::yield_now().await; }
/// println!("{} after {:?}", handle.metrics(), handle.elapsed());
/// for warning in handle.warnings() {
///     eprintln!("{warning}");
/// }
/// handle.savepoint("before-lunch").await?;
/// let stop = tokio::spawn(async move { handle.stop_with_savepoint("before-upgrade").await });
/// let report = running.wait().await?;
/// assert!(report.stopped);
/// stop.await.unwrap()?;
///
/// // Another day: from there, and not from an older checkpoint.
/// let running = numbers().restore(Restore::savepoint("before-upgrade")).start().await?;
/// running.handle().stop(); // without a name: its last checkpoint holds what was read
/// running.wait().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a running job ends it: .wait() for it"]
pub struct RunningJob {
    blueprint: Blueprint,
    attempt: Attempt,
    /// How many attempts there have been.
    attempts: u32,
    handle: JobHandle,
    span: Span,
    #[cfg(feature = "serve")]
    served: Option<crate::serve::Served>,
    _over: Over,
}

impl RunningJob {
    /// Starts the first attempt.
    pub(crate) async fn start(blueprint: Blueprint) -> Result<Self> {
        let now = Now::look();
        let shared = Arc::new(Shared {
            job: blueprint.graph.job.clone(),
            started: now.moment,
            started_ms: now.wall_ms,
            stop: watch::channel(false).0,
            cancel: watch::channel(false).0,
            line: Mutex::new(Line {
                counters: Arc::new([]),
                checkpoints: Arc::default(),
                live: None,
                recent: Recent::new().shared(),
                warnings: Vec::new(),
                explained: String::new(),
                witnessed: None,
                savepoints: None,
            }),
            log: Arc::new(CheckpointLog::new(&blueprint.graph.job)),
            life: Mutex::default(),
        });
        // Before anything is begun: an address that cannot be had is told at once.
        #[cfg(feature = "serve")]
        let listening = match &blueprint.serve {
            Some(serve) => Some(serve.listen(&shared.job).await?),
            None => None,
        };
        let over = Over(shared.clone());
        let span = trace::job(&shared.job);
        let first = shared.attempt(&span, 1);
        let attempt = Attempt::start(&blueprint, &shared, &first).await;
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => {
                shared.failed(&first, &error);
                // Who starts it again at once finds the address free.
                #[cfg(feature = "serve")]
                if let Some(listening) = listening {
                    listening.close().await;
                }
                return Err(error);
            }
        };
        let handle = JobHandle(shared);
        #[cfg(feature = "serve")]
        let served = listening.map(|listening| listening.serve(handle.clone()));
        Ok(Self {
            blueprint,
            attempt,
            attempts: 1,
            handle,
            span,
            #[cfg(feature = "serve")]
            served,
            _over: over,
        })
    }

    /// Where it is served, if it is: see [`Job::serve`](crate::Job::serve), which has an example.
    #[cfg(feature = "serve")]
    pub fn served(&self) -> Option<&crate::serve::Served> {
        self.served.as_ref()
    }

    /// A handle to ask and to stop the job with, from anywhere. [`RunningJob`] has an example.
    pub fn handle(&self) -> JobHandle {
        self.handle.clone()
    }

    /// Waits for the end. The first Ctrl-C or SIGTERM stops the job cleanly: sources stop reading, what has been read is processed
    /// and written. Windows that are still open give no result, because they are not complete; with checkpoints the last
    /// one holds them, and the job goes on from there when it is started again. A second one aborts: this returns at
    /// once, or as soon as the open transactions of its sinks are thrown away, which takes ten seconds at most, and a third one
    /// ends. From then on neither ends the process by itself. A runtime that is dropped then still waits for a task that blocks, such as a write to a stalled pipe.
    ///
    /// With checkpoints a job that fails is started again from the newest one: see [`Restarts`](crate::Restarts).
    /// [`RunningJob`] has an example.
    ///
    /// [`JobHandle::cancel`] is the same as the second of them.
    pub async fn wait(mut self) -> Result<Report> {
        let span = self.span.clone();
        let ended = self.work().instrument(span.clone()).await;
        span.in_scope(|| match &ended {
            Ok(report) => trace::ended(&self.handle.0.job, report.stopped, None),
            Err(error) => trace::ended(&self.handle.0.job, false, Some(&redacted(&said(error)))),
        });
        // Who has stopped it by way of HTTP gets its answer.
        #[cfg(feature = "serve")]
        if let Some(served) = self.served.take() {
            served.end(matches!(ended, Err(Error::Aborted { .. }))).await;
        }
        ended
    }

    async fn work(&mut self) -> Result<Report> {
        let mut interrupts = Interrupts::new(&self.blueprint, self.handle.clone());
        if let Err(error) = self.work_until_over(&mut interrupts).await {
            interrupts.leave().await;
            return Err(error);
        }
        interrupts.end().await;
        let shared = &self.handle.0;
        let stopped = self.attempt.stopped.load(Relaxed);
        Ok(Report {
            stopped,
            elapsed: shared.started.elapsed(),
            metrics: self.handle.metrics(),
            warnings: self.handle.warnings(),
        })
    }

    async fn work_until_over(&mut self, interrupts: &mut Interrupts) -> Result<()> {
        let mut restarts = 0;
        // So that who asks for the first time also learns what went on lately.
        let handle = self.handle.clone();
        let noting = async {
            loop {
                sleep_until(Some(Moment::now().after(NOTED_EVERY))).await;
                handle.note();
            }
        };
        tokio::pin!(noting);
        let mut cancel = self.handle.0.cancel.subscribe();
        loop {
            let ended = tokio::select! {
                ended = self.attempt.tasks.join() => ended,
                () = &mut noting => continue,
                () = cancelled(&mut cancel) => {
                    self.abort(interrupts).await;
                    return Err(self.aborted());
                }
                () = interrupts.next() => {
                    if let Err(aborted) = self.interrupt(interrupts) {
                        self.abort(interrupts).await;
                        return Err(aborted);
                    }
                    continue;
                }
            };
            let explained = match ended {
                Ok(()) => None,
                Err(error) => Some(self.attempt.explain(error).await),
            };
            // Before the wait: also who is never started again leaves nothing open behind.
            self.attempt.give_up().await;
            let Some(error) = explained else { return Ok(()) };
            if self.attempt.has_progressed() {
                restarts = 0;
            }
            self.start_again(error, &mut restarts, interrupts).await?;
        }
    }

    fn interrupt(&self, interrupts: &mut Interrupts) -> Result<()> {
        if !interrupts.is_first() {
            return Err(self.aborted());
        }
        self.handle.stop();
        Ok(())
    }

    fn aborted(&self) -> Error {
        Error::Aborted { job: self.handle.0.job.clone() }
    }

    /// Ends the job at once; only what its sinks have open is thrown away first, unless that is interrupted too.
    async fn abort(&mut self, interrupts: &mut Interrupts) {
        tokio::select! {
            () = self.attempt.abort() => {}
            () = interrupts.next() => {}
        }
    }

    /// Starts the job again, as often as it may, unless somebody stops it meanwhile; otherwise returns why it failed.
    async fn start_again(&mut self, mut error: Error, restarts: &mut u32, interrupts: &mut Interrupts) -> Result<()> {
        let span = std::mem::replace(&mut self.attempt.span, Span::none());
        self.handle.0.failed(&span, &error);
        drop(span);
        let mut stop = self.handle.0.stop.subscribe();
        let mut cancel = self.handle.0.cancel.subscribe();
        tokio::select! {
            restarted = self.restart(&mut error, restarts) => return restarted,
            // Nothing is running that could be stopped cleanly: what the last checkpoint holds is what there is.
            Ok(_) = stop.wait_for(|stop| *stop) => {}
            () = cancelled(&mut cancel) => return Err(self.aborted()),
            () = interrupts.next() => self.interrupt(interrupts)?,
        }
        Err(error)
    }

    /// `error` is why the job failed, or could not be started again.
    async fn restart(&mut self, error: &mut Error, restarts: &mut u32) -> Result<()> {
        let last = |error: &mut Error| std::mem::replace(error, Error::Disconnected { operator: String::new() });
        loop {
            let limit = self.blueprint.restarts.limit;
            if self.blueprint.settings.is_none() || !error.may_pass() || limit == 0 {
                return Err(last(error));
            }
            if *restarts == limit {
                let (job, cause) = (self.handle.0.job.clone(), Box::new(last(error)));
                return Err(Error::GaveUp { job, restarts: limit, cause });
            }
            sleep_until(Some(Moment::now().after(self.blueprint.restarts.delay(*restarts)))).await;
            *restarts += 1;
            self.attempts += 1;
            let shared = &self.handle.0;
            let span = shared.attempt(&self.span, self.attempts);
            match Attempt::start(&self.blueprint, shared, &span).await {
                Ok(attempt) => {
                    self.attempt = attempt;
                    self.handle.0.started_again();
                    return Ok(());
                }
                Err(again) => {
                    self.handle.0.failed(&span, &again);
                    *error = again;
                }
            }
        }
    }
}

/// Asks and stops a running job. [`RunningJob`] has an example with all of its methods.
#[derive(Clone)]
pub struct JobHandle(Arc<Shared>);

impl JobHandle {
    /// Asks the job to stop cleanly; see [`RunningJob::wait`]. Returns at once.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Ends the job at once, as a second Ctrl-C does; see [`RunningJob::wait`], which then returns [`Error::Aborted`]. What its sinks
    /// have not published is lost, or written again when the job is started again from its newest checkpoint. Returns at once; nothing
    /// happens until somebody waits for the job.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("numbers");
    /// job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    /// let running = job.start().await?;
    /// running.handle().cancel();
    /// assert!(matches!(running.wait().await, Err(windrow::Error::Aborted { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) {
        self.0.cancel.send_replace(true);
    }

    /// Takes a checkpoint now, without a name, also when nothing has moved since the last one. Returns its epoch when it is complete:
    /// so that who then looks into the [state](crate::state) sees it as of now. Fails with [`Error::NoCheckpoint`] when the job has no
    /// checkpoints, or ends before.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = directory.path().to_str().unwrap(); // "/var/lib/jobs"
    /// let job = Job::new("numbers").checkpoint(store, hours(1));
    /// job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    /// let running = job.start().await?;
    /// let epoch = running.handle().checkpoint().await?;
    /// let state = windrow::state::open_checkpoint(format!("{store}/numbers"), epoch).await?;
    /// assert!(state.table("source_1").is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn checkpoint(&self) -> Result<Epoch> {
        self.ask(None, Then::GoOn).await
    }

    /// Takes a savepoint: a checkpoint with a name, kept until you delete it. Returns its epoch when it is complete.
    /// Fails when the name is taken, the job has no checkpoints, or it ends before.
    pub async fn savepoint(&self, name: impl Into<String>) -> Result<Epoch> {
        self.ask(Some(name.into()), Then::GoOn).await
    }

    /// Stops the job cleanly with a savepoint: it holds everything that was read, and nothing is read after it.
    pub async fn stop_with_savepoint(&self, name: impl Into<String>) -> Result<Epoch> {
        self.ask(Some(name.into()), Then::Stop).await
    }

    async fn ask(&self, name: Option<String>, then: Then) -> Result<Epoch> {
        let (job, is_named) = (self.0.job.clone(), name.is_some());
        let what = if is_named { "savepoint" } else { "checkpoint" };
        let refused = |reason: String| match is_named {
            true => Error::Savepoint { job, reason },
            false => Error::NoCheckpoint { job, reason },
        };
        let Some(savepoints) = self.0.line().savepoints.clone() else {
            return Err(refused("the job has no checkpoints: say .checkpoint(url, every) before it runs".into()));
        };
        let (reply, answer) = oneshot::channel();
        let asked = savepoints.send(Savepoint { name, then, reply }).is_ok();
        let told = if asked { answer.await.ok() } else { None };
        told.unwrap_or_else(|| {
            Err(refused(format!("the job ended before the {what} was complete, or failed and is being started again")))
        })
    }

    /// What has been counted since the job was started, or started again after a failure.
    pub fn metrics(&self) -> JobMetrics {
        let line = self.0.line();
        JobMetrics::read(&line.counters, &line.checkpoints)
    }

    /// What the job does, in one structure: for a page, a terminal, an API. Costs some microseconds and stops nobody, so it may be
    /// asked many times a second. [`JobStatus`] has an example.
    ///
    /// After the end it says what was counted by then. Rates and shares are of the last seconds: while somebody waits in
    /// [`RunningJob::wait`] they are noted each second, otherwise when this is called.
    pub fn status(&self) -> JobStatus {
        let shared = &self.0;
        let now = Now::look();
        let (live, recent) = shared.looked_at();
        let mut status = live.as_ref().map_or_else(JobStatus::default, |live| live.read(now));
        if let Some(live) = live {
            let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.fill(&mut status, live.senders(), now.moment);
        }
        status.job.clone_from(&shared.job);
        status.version = env!("CARGO_PKG_VERSION").into();
        (status.started_ms, status.now_ms) = (shared.started_ms, now.wall_ms);
        status.warnings = self.warnings();
        let life = shared.life();
        let until = life.ended.unwrap_or(now.moment);
        status.elapsed_ms = whole_millis(until.since(shared.started));
        (status.restarts, status.last_failure) = (life.restarts, life.failure.clone());
        status.state = match life.ended {
            Some(_) => State::Ended,
            None if life.restarting => State::Restarting,
            None if *shared.stop.borrow() => State::Stopping,
            None => State::Running,
        };
        status
    }

    /// Notes what has been counted, for the rates and shares of who asks later.
    fn note(&self) {
        let (live, recent) = self.0.looked_at();
        if let Some(live) = live {
            let now = Moment::now();
            recent.lock().unwrap_or_else(PoisonError::into_inner).note(live.counts(now), now);
        }
    }

    /// What a person should know about the checkpoint store, although the job runs: that it says that the job has finished and nothing
    /// is left to read, that everybody may write to it, that the remains of an interrupted checkpoint were left aside. And about its operators: that the new file of a lookup's
    /// table cannot be read, and the old rows serve on; that a source cannot be asked for new splits, and the known ones are read
    /// on. What sources and sinks say is unwise: a login that is sent without encryption. And that the transaction of a sink has been open for so long that it may soon be aborted.
    pub fn warnings(&self) -> Vec<String> {
        let line = self.0.line();
        let said = line.counters.iter().flat_map(|own| own.warnings().into_iter().map(move |said| (own.name(), said)));
        let operators = said.map(|(name, said)| format!("{name}: {said}"));
        let witness = line.witnessed.as_ref().and_then(|witnessed| witnessed.warning());
        line.warnings.iter().cloned().chain(operators).chain(witness).collect()
    }

    /// The physical plan of what runs, in words: what [`Job::explain`](crate::Job::explain) says before.
    pub fn explain(&self) -> String {
        self.0.line().explained.clone()
    }

    /// How long the job has been running.
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// What a job did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it was stopped before its sources were exhausted. Windows that were open then gave no result.
    pub stopped: bool,
    /// How long it ran.
    pub elapsed: Duration,
    /// What it counted, since the last restart.
    pub metrics: JobMetrics,
    /// What [`JobHandle::warnings`] said when it ended: also that the job had finished before, so that nothing was left to do.
    pub warnings: Vec<String>,
}
