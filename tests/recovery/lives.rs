//! The lives of a job: it is started, ends in one way or another, and is started again, on the same store and the same
//! sinks, perhaps at another parallelism.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use windrow::{CheckpointError, Error, Faults, JobHandle, Report, RunningJob, prelude::*};

use super::{
    scenario::{Outputs, Scenario},
    witness::{Connection, LOST},
};

/// When a life ends, unless the job comes to its end before.
#[derive(Clone, Copy, Debug)]
pub enum When {
    After(Duration),
    /// When so many records have been read in this life, or no more seem to come.
    Read(u64),
}

impl When {
    async fn has_come(self, job: &JobHandle) {
        match self {
            Self::After(span) => tokio::time::sleep(span).await,
            Self::Read(records) => {
                let read = || job.metrics().named("source").map(|source| source.rows_in).sum::<u64>();
                let enough = async {
                    while read() < records {
                        tokio::task::yield_now().await;
                    }
                };
                // Too early is as good a moment as any.
                let _ = tokio::time::timeout(Duration::from_millis(50), enough).await;
            }
        }
    }
}

/// How a life ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Dropped: its tasks end wherever they wait, as in a crash.
    Crash(When),
    /// Stopped cleanly.
    Stop(When),
    /// Stopped with a savepoint.
    Savepoint(When, String),
    /// A savepoint on the way, and then a crash.
    SavepointThenCrash(When, String),
    /// A crash at a named point of the protocol, when it is passed for the n-th time.
    Point(&'static str, usize),
}

/// The points of the protocol within the checkpoint store.
pub const POINTS: [&str; 11] = [
    "K2 segments written",
    "K4 manifest begun",
    "K5 prepared",
    "K8 decided",
    "K11 done",
    "K12 gc",
    "K13 R1 locked",
    "K13 R1 generation",
    "K13 R3 read",
    "K13 R4 claimed",
    "K13 R4 fenced",
];

#[derive(Clone, Debug)]
pub struct Life {
    pub parallelism: usize,
    pub end: End,
}

/// What became of the lives of a job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    pub crashes: usize,
    pub stops: usize,
    pub savepoints: usize,
}

impl std::ops::AddAssign for Lived {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.savepoints += other.savepoints;
    }
}

/// A job is not found to hang before this.
pub const HANGS: Duration = Duration::from_secs(60);

/// Starts a job whose former incarnation was dropped a moment ago, and may not have let go of the store yet: what it was
/// writing, a thread may still write.
pub async fn start(job: impl Fn() -> Job) -> windrow::Result<RunningJob> {
    loop {
        match job().start().await {
            Err(Error::Checkpoint {
                error: CheckpointError::Locked { .. } | CheckpointError::Starting { .. }, ..
            }) => {
                tokio::task::yield_now().await;
            }
            started => return started,
        }
    }
}

/// A scenario that is about to be lived through.
pub struct Trial<'a> {
    pub scenario: &'a Scenario,
    pub store: &'a str,
    pub faults: Faults,
    /// When a life counts as one that hangs.
    pub patience: Duration,
    pub to: Outputs,
}

impl<'a> Trial<'a> {
    pub fn new(scenario: &'a Scenario, store: &'a str) -> Self {
        Self { scenario, store, faults: Faults::default(), patience: HANGS, to: Outputs::default() }
    }

    /// Lives the given lives and then one to the end of the input. What is wrong is said in words, with the seed.
    pub async fn live(&self, lives: &[Life], last: usize) -> Result<Lived, String> {
        let to = &self.to;
        let said = |what: &str, error: &dyn std::fmt::Display| format!("seed {}: {what}: {error}", self.scenario.seed);
        let mut lived = Lived::default();
        for (at, life) in lives.iter().enumerate() {
            let what = format!("life {at}, {life:?}");
            let ended = tokio::time::timeout(self.patience, Box::pin(self.one_life(to, life))).await;
            let ended = ended.map_err(|_| said(&what, &"it hangs"))?;
            lived += match ended {
                Err(lost) if lost.contains(LOST) => Lived { crashes: 1, ..Lived::default() },
                ended => ended.map_err(|error| said(&what, &error))?,
            };
        }
        self.to.cluster.iter().for_each(Connection::calm);
        self.scenario.speak_last();
        let to_the_end = Box::pin(self.faults.clone().during(async {
            let running = start(|| self.scenario.job(self.store, last, to)).await?;
            running.wait().await
        }));
        let what = format!("{lives:?}, then {last}");
        let report = tokio::time::timeout(self.patience, to_the_end).await.map_err(|_| said(&what, &"it hangs"))?;
        let report = report.map_err(|error| said(&what, &error))?;
        balanced(&report).map_err(|error| said(&what, &error))?;
        self.scenario.check(to).map_err(|wrong| said(&what, &wrong))?;
        self.to.cluster.as_ref().map_or(Ok(()), Connection::check).map_err(|wrong| said(&what, &wrong))?;
        Ok(lived)
    }

    async fn one_life(&self, to: &Outputs, life: &Life) -> Result<Lived, String> {
        match life.end {
            End::Point(point, pass) => Box::pin(self.life_to_a_point(to, life.parallelism, point, pass)).await,
            _ => self.faults.clone().during(Box::pin(one_life(self.scenario, self.store, to, life))).await,
        }
    }

    /// A crash is an unwinding at the point: nothing behind it happens.
    async fn life_to_a_point(
        &self,
        to: &Outputs,
        parallelism: usize,
        point: &'static str,
        pass: usize,
    ) -> Result<Lived, String> {
        let passed = Arc::new(AtomicUsize::new(0));
        let count = passed.clone();
        let faults = self.faults.clone().at_points(move |at| {
            if at == point && count.fetch_add(1, SeqCst) + 1 == pass {
                resume_unwind(Box::new("a crash"));
            }
        });
        let run = Box::pin(caught(faults.during(async {
            let running = start(|| self.scenario.job(self.store, parallelism, to)).await?;
            running.wait().await
        })));
        // Where the point is not reached the job may wait for ever: then it is a crash anywhere.
        let ended = tokio::time::timeout(Duration::from_millis(100), run).await.ok().flatten();
        match ended {
            Some(Ok(report)) => balanced(&report).map(|()| Lived::default()),
            Some(Err(error)) if passed.load(SeqCst) < pass => Err(error.to_string()),
            _ => Ok(Lived { crashes: 1, ..Lived::default() }),
        }
    }
}

/// `None` when the future unwinds.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Every row that came in is accounted for.
pub fn balanced(report: &Report) -> Result<(), String> {
    let wrong = report.metrics.operators.iter().find(|operator| !operator.balances());
    wrong.map_or(Ok(()), |operator| Err(format!("{operator:?} does not balance")))
}

async fn one_life(scenario: &Scenario, store: &str, to: &Outputs, life: &Life) -> Result<Lived, String> {
    let in_words = |error: Error| error.to_string();
    let running = start(|| scenario.job(store, life.parallelism, to)).await.map_err(in_words)?;
    let handle = running.handle();
    let mut lived = Lived::default();
    match life.end.clone() {
        End::Crash(when) => tokio::select! {
            ended = running.wait() => balanced(&ended.map_err(in_words)?)?,
            () = when.has_come(&handle) => lived.crashes += 1,
        },
        End::Stop(when) => {
            let stop = async {
                when.has_come(&handle).await;
                handle.stop();
                std::future::pending().await
            };
            let report =
                tokio::select! { ended = running.wait() => ended.map_err(in_words)?, () = stop => return Ok(lived) };
            balanced(&report)?;
            lived.stops += usize::from(report.stopped);
        }
        End::Savepoint(when, name) => {
            let mut waiting = std::pin::pin!(running.wait());
            let stop = async {
                when.has_come(&handle).await;
                handle.stop_with_savepoint(name).await
            };
            // A job that fails does not read on.
            let saved = tokio::select! {
                saved = stop => Some(saved),
                ended = &mut waiting => {
                    balanced(&ended.map_err(in_words)?)?;
                    None
                }
            };
            if let Some(saved) = saved {
                lived.savepoints += taken(saved)?;
                balanced(&waiting.await.map_err(in_words)?)?;
            }
        }
        End::Point(..) => {}
        End::SavepointThenCrash(when, name) => {
            let save = async {
                when.has_come(&handle).await;
                handle.savepoint(name).await
            };
            tokio::select! {
                ended = running.wait() => balanced(&ended.map_err(in_words)?)?,
                saved = save => {
                    lived.savepoints += taken(saved)?;
                    lived.crashes += 1;
                }
            }
        }
    }
    Ok(lived)
}

/// A job may have come to its end before its savepoint; nothing else is right.
fn taken(saved: windrow::Result<windrow::connectors::Epoch>) -> Result<usize, String> {
    match saved {
        Ok(_) => Ok(1),
        Err(Error::Savepoint { reason, .. }) if reason.contains("ended before") => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

/// A directory for checkpoints: in memory where there is such a place, because a test of processes that never die with
/// the machine needs no flush.
pub fn place() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a directory")
}
