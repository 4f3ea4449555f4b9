//! A job that is fed by hand, so that a test says what has been read when it is saved, stopped or changed.

use windrow::{JobHandle, Report, RunningJob, connectors::memory::MemoryInput, prelude::*};

use super::{
    lives::{HANGS, place, start},
    scenario::{Click, batch, schema},
};

/// The input, the checkpoints and the output of a job; they outlive its incarnations and its versions.
pub struct Hand {
    pub directory: tempfile::TempDir,
    pub input: MemoryInput,
    source: MemorySource,
    pub out: MemorySink,
}

/// A row of `user` and `amount` at `seconds`.
pub fn click(user: i64, amount: i64, seconds: i64) -> Click {
    Click { user, shop: user % 2, amount, at: Timestamp::from_micros(seconds * 1_000_000) }
}

impl Hand {
    pub fn new() -> Self {
        let (input, source) = MemorySource::by_hand(schema(), 1);
        Self { directory: place(), input, source, out: MemorySink::new() }
    }

    pub fn store(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    pub fn push(&self, rows: &[Click]) {
        self.input.push(0, batch(rows));
    }

    /// The job that `build` makes of the rows. It takes no checkpoint by itself after its first.
    pub fn job(&self, build: impl FnOnce(Stream<Click>, MemorySink)) -> Job {
        let job = Job::new("by-hand").restarts(windrow::Restarts::never());
        let rows = job.source(self.source.clone().one_by_one()).event_time("at", Watermarks::out_of_order(secs(100)));
        build(rows.fail_on_rejects().typed(), self.out.clone());
        job.checkpoint(self.store(), hours(100))
    }

    /// What is visible, values separated by `|`, sorted.
    pub fn rows(&self) -> Vec<String> {
        tests::rows(&self.out.batches())
    }
}

/// Starts a job and waits until it has read `rows` rows.
pub async fn read(job: impl Fn() -> Job, rows: u64) -> windrow::Result<RunningJob> {
    let running = start(job).await?;
    until(&running.handle(), |job| job.metrics().named("source").map(|source| source.rows_in).sum::<u64>() >= rows)
        .await;
    Ok(running)
}

/// Waits until something is so.
pub async fn until(job: &JobHandle, is_so: impl Fn(&JobHandle) -> bool) {
    let waiting = async {
        while !is_so(job) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANGS, waiting).await.expect("it hangs");
}

/// Stops a job with a savepoint.
pub async fn save_and_stop(running: RunningJob, name: &str) -> Report {
    let handle = running.handle();
    let (saved, ended) = tokio::join!(handle.stop_with_savepoint(name), running.wait());
    saved.unwrap();
    ended.unwrap()
}
