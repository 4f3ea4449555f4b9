//! The lives of a job on a simulated cluster: it is started, dies, sleeps, is replaced, and comes to its end at last. Then its
//! output is compared.
//!
//! ```text
//!   process 1 ──crash          process 2 ──asleep┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄woken: "fenced"        process 3 ──► the end
//!            └─ start ────────────────┘      └─ LOCK removed, start ────────────────────┘
//! ```

use std::{fs, path::Path, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use windrow::{CheckpointError, Error, Faults, Report, RunningJob};

use super::{
    scenario::{End, JOB, Life, Scenario},
    simulated::Simulated,
    targets::Target,
};

/// In virtual time: what takes longer hangs.
pub const HANGS: Duration = Duration::from_secs(20 * 3_600);

/// What happened in some scenarios.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    pub crashes: usize,
    pub stops: usize,
    /// Incarnations that ended with an error that goes away by itself.
    pub failures: usize,
    /// Incarnations that slept, and were told that they had been replaced.
    pub zombies: usize,
    pub faults: u64,
    pub rows: usize,
}

impl std::ops::AddAssign for Lived {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.failures += other.failures;
        self.zombies += other.zombies;
        self.faults += other.faults;
        self.rows += other.rows;
    }
}

type Zombie = (Simulated, JoinHandle<windrow::Result<Report>>);

struct Trial<'a, T> {
    scenario: &'a Scenario,
    target: &'a T,
    store: &'a Path,
    cluster: Simulated,
    zombies: Vec<Zombie>,
    faults: Faults,
    lived: Lived,
}

/// Runs the scenario of a seed in virtual time; what is wrong is said in words, with the seed.
pub fn run<T: Target>(scenario: &Scenario, target: &T) -> Result<Lived, String> {
    run_with(scenario, target, Faults::default())
}

/// The same, with a mistake in the engine.
pub fn run_with<T: Target>(scenario: &Scenario, target: &T, faults: Faults) -> Result<Lived, String> {
    // A test of processes that never die with the machine needs no flush.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let store = directory.path();
    let lived = runtime.block_on(async {
        let cluster = scenario.cluster();
        // With STORY set: all that happened on the cluster, to find out why.
        let told = std::env::var_os("STORY").is_some();
        cluster.look(|world| world.story = told.then(Vec::new));
        let trial = Trial {
            scenario,
            target,
            store,
            cluster: cluster.clone(),
            zombies: Vec::new(),
            faults: faults.clone(),
            lived: Lived::default(),
        };
        let lived = faults.during(Box::pin(trial.live())).await;
        cluster.look(|world| world.story.iter().flatten().for_each(|line| println!("{line}")));
        lived
    });
    lived.map_err(|wrong| format!("SEED={}: {wrong}\n{scenario:?}", scenario.seed))
}

impl<T: Target> Trial<'_, T> {
    async fn live(mut self) -> Result<Lived, String> {
        for (at, life) in self.scenario.lives.iter().enumerate() {
            let ended = timeout(HANGS, Box::pin(self.one_life(life))).await;
            ended.map_err(|_| format!("life {at} hangs"))?.map_err(|wrong| format!("life {at}: {wrong}"))?;
        }
        self.last_life().await.map_err(|wrong| format!("the last life: {wrong}"))?;
        self.compare().await
    }

    async fn one_life(&mut self, life: &Life) -> Result<(), String> {
        let process = self.cluster.process();
        let starting = self.start(&process, life.parallelism);
        // It may die before it has begun.
        let Ok(running) = timeout(life.after, starting).await else {
            self.lived.crashes += 1;
            return Ok(());
        };
        let running = running?;
        let handle = running.handle();
        // It starts itself again with the same mistake.
        let mut ended = tokio::spawn(self.faults.clone().during(running.wait()));
        if let Ok(ended) = timeout(life.after, &mut ended).await {
            return self.ended(ended.map_err(|error| error.to_string())?).map(|_| ());
        }
        match life.end {
            End::Crash => {
                ended.abort();
                let _ = ended.await;
                self.lived.crashes += 1;
            }
            End::Stop => {
                handle.stop();
                let ended = ended.await.map_err(|error| error.to_string())?;
                let report = self.ended(ended)?;
                self.lived.stops += usize::from(report.is_some_and(|report| report.stopped));
            }
            End::Sleep => {
                process.sleep();
                // As if the store had no locks: then generations and epochs must do.
                fs::remove_file(self.store.join(JOB).join("LOCK")).map_err(|error| error.to_string())?;
                self.zombies.push((process, ended));
            }
        }
        Ok(())
    }

    /// What a job has come to; `None` if it failed in a way that another start may mend.
    fn ended(&mut self, ended: windrow::Result<Report>) -> Result<Option<Report>, String> {
        match ended {
            Ok(report) => balanced(&report).map(|()| Some(report)),
            Err(error) if passes(&error) => {
                self.lived.failures += 1;
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn last_life(&mut self) -> Result<(), String> {
        let process = self.cluster.process();
        let running = timeout(HANGS, self.start(&process, self.scenario.parallelism)).await;
        let mut running = running.map_err(|_| "it does not start")??;
        let mut waking = Vec::new();
        for (at, (zombie, ended)) in self.zombies.drain(..).enumerate() {
            waking.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(37 * at as u64)).await;
                zombie.wake();
                timeout(HANGS, ended).await
            }));
        }
        loop {
            let ended = timeout(HANGS, running.wait()).await.map_err(|_| "it hangs")?;
            if self.ended(ended)?.is_some() {
                break;
            }
            running = self.start(&process, self.scenario.parallelism).await?;
        }
        for zombie in waking {
            let ended = zombie.await.map_err(|error| error.to_string())?;
            let ended = ended.map_err(|_| "a zombie goes on")?.map_err(|error| error.to_string())?;
            match ended {
                Err(error) if is_replaced(&error) => self.lived.zombies += 1,
                Err(error) => return Err(format!("a zombie says: {error}")),
                // It had come to its end when it was put to sleep.
                Ok(report) => balanced(&report)?,
            }
        }
        Ok(())
    }

    /// Starts a job whose former incarnation was dropped a moment ago. What may go away by itself is tried again.
    async fn start(&self, process: &Simulated, parallelism: usize) -> Result<RunningJob, String> {
        let store = self.store.to_str().ok_or("the path is no text")?;
        for _ in 0..1_000_000 {
            let job = self.scenario.job(store, parallelism, self.target, process);
            match job.start().await {
                Err(Error::Checkpoint {
                    error: CheckpointError::Locked { .. } | CheckpointError::Starting { .. },
                    ..
                }) => tokio::task::yield_now().await,
                Err(error) if passes(&error) => tokio::time::sleep(Duration::from_millis(100)).await,
                started => return started.map_err(|error| format!("start: {error}")),
            }
        }
        Err("it does not start".into())
    }

    async fn compare(self) -> Result<Lived, String> {
        let (mut lived, right) = (self.lived, self.scenario.right());
        // A commit is complete soon after it is decided.
        self.cluster.look(|world| world.plan.calm());
        tokio::time::sleep(Duration::from_secs(60)).await;
        for topic in self.scenario.topics() {
            let (found, right) = (self.target.rows(&self.cluster, topic), &right[topic]);
            if found != *right {
                return Err(difference(topic, &found, right));
            }
            lived.rows += found.len();
        }
        let (open, stuck) = (self.cluster.open(), self.cluster.stuck());
        if !open.is_empty() || !stuck.is_empty() {
            return Err(format!("after a clean end these are open: {open:?}, and readers do not get on in {stuck:?}"));
        }
        lived.faults = self.cluster.look(|world| world.plan.happened);
        Ok(lived)
    }
}

/// Both are sorted.
fn difference(topic: &str, found: &[String], right: &[String]) -> String {
    let only_in = |one: &[String], other: &[String]| {
        let mut other = other.iter().peekable();
        let is_missing = |row: &&String| {
            while other.next_if(|there| there < row).is_some() {}
            other.next_if_eq(row).is_none()
        };
        let rows: Vec<String> = one.iter().filter(is_missing).cloned().collect();
        format!("{} ({:?})", rows.len(), &rows[..rows.len().min(10)])
    };
    let (lost, repeated) = (only_in(right, found), only_in(found, right));
    format!(
        "topic {topic}: {} rows and not {}; lost: {lost}; repeated or made up: {repeated}",
        found.len(),
        right.len()
    )
}

fn balanced(report: &Report) -> Result<(), String> {
    let wrong = report.metrics.operators.iter().find(|operator| !operator.balances());
    wrong.map_or(Ok(()), |operator| Err(format!("{operator:?} does not balance")))
}

/// Whether the error says that another incarnation has taken over.
fn is_replaced(error: &Error) -> bool {
    matches!(error, Error::Checkpoint { error: CheckpointError::Fenced { .. }, .. })
}

/// Whether another start may do better: what the simulated cluster says goes away by itself, unless somebody has taken over.
fn passes(error: &Error) -> bool {
    let said = error.to_string();
    said.contains("simulated kafka") && !matches!(error, Error::GaveUp { .. })
}
