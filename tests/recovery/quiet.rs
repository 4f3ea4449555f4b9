//! Splits that are silent around a restart, on a clock that stands still unless everything waits: what the job had promised
//! about time before is what it promises after, neither more nor less. A split that was idle may only have been waiting for the
//! job to be back, so it holds the others again until it has been silent for as long as ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use windrow::{
    Faults, RunningJob,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::memory::MemoryInput,
    prelude::*,
};

use super::lives::{place, start};

/// Why a split does not hold the others back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It is far ahead.
    Ahead,
    /// It counts as idle.
    Idle,
    /// It counts as idle, and rows wait for calls when the job is saved, some of them late.
    Calls,
}

#[derive(Record)]
struct Row {
    n: i64,
}

fn schema() -> SchemaRef {
    batch(&[]).schema()
}

fn batch(seconds: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(seconds.iter().map(|second| second % 5)));
    let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).expect("columns of one length")
}

struct Quiet {
    silence: Silence,
    store: String,
    input: MemoryInput,
    source: MemorySource,
    out: MemorySink,
    /// Whether calls wait for their answers.
    held: Arc<AtomicBool>,
}

/// The longest that a result may take once its window is complete; the silence that counts as idle is much longer.
const SOON: Duration = Duration::from_secs(60);

impl Quiet {
    fn job(&self, parallelism: usize) -> Job {
        let job = Job::new("quiet").parallelism(parallelism).restarts(windrow::Restarts::never());
        let watermarks = match self.silence {
            Silence::Ahead => Watermarks::in_order(),
            Silence::Idle | Silence::Calls => Watermarks::in_order().idle_after(hours(1)),
        };
        let rows = job.source(self.source.clone()).event_time("at", watermarks).typed::<Row>();
        let rows = match self.silence {
            Silence::Ahead | Silence::Idle => rows,
            Silence::Calls => {
                let held = self.held.clone();
                let call = move |row: RowView<'_>| {
                    let (n, held) = (row.n, held.clone());
                    async move {
                        while held.load(Relaxed) {
                            tokio::time::sleep(secs(1)).await;
                        }
                        Ok::<_, String>(Row { n })
                    }
                };
                rows.map_async(call).timeout(hours(100)).ordered().fail_on_failure()
            }
        };
        rows.key_by("n")
            .window(Tumbling::of(secs(10)))
            .aggregate([count()])
            .drop_late()
            .select(["window_start", "n", "count"].map(col))
            .sink(self.out.clone());
        job.checkpoint(&self.store, mins(10))
    }

    /// Waits until so many rows have been written, not longer than `most`.
    async fn written(&self, rows: usize, most: Duration) -> Result<(), String> {
        let written = || self.out.written().iter().map(RecordBatch::num_rows).sum::<usize>();
        let enough = async {
            while written() < rows {
                tokio::time::sleep(millis(100)).await;
            }
        };
        let in_time = tokio::time::timeout(most, enough).await;
        in_time.map_err(|_| format!("{:?}: {} rows written and not {rows} after {most:?}", self.silence, written()))
    }

    async fn started(&self, parallelism: usize) -> Result<RunningJob, String> {
        start(|| self.job(parallelism)).await.map_err(|error| error.to_string())
    }

    async fn live(&self, before: usize, after: usize) -> Result<(), String> {
        match self.silence {
            Silence::Ahead => self.ahead(before, after).await,
            Silence::Idle => self.idle(before, after).await,
            Silence::Calls => self.calls(before, after).await,
        }
    }

    /// Split 1 speaks once, of what is far ahead.
    async fn ahead(&self, before: usize, after: usize) -> Result<(), String> {
        let running = self.started(before).await?;
        self.input.push(1, batch(&[1_000]));
        self.input.push(0, batch(&[2, 13]));
        self.written(1, SOON).await?;
        self.save(running).await?;

        let running = self.started(after).await?;
        self.input.push(0, batch(&[27]));
        self.written(2, SOON).await?;
        self.input.push(0, batch(&[3, 38]));
        self.written(3, SOON).await?;
        self.end(running, &[(0, 2, 1), (10, 3, 1), (20, 2, 1), (30, 3, 1), (1_000, 0, 1)]).await
    }

    /// Split 1 is silent for so long that split 0 goes on without it, and then has as much to catch up with as split 0.
    async fn idle(&self, before: usize, after: usize) -> Result<(), String> {
        let running = self.started(before).await?;
        self.input.push(1, batch(&[1]));
        self.input.push(0, batch(&[2, 13]));
        self.go_on(9, 13).await;
        self.written(2, SOON).await?;
        self.save(running).await?;

        let running = self.started(after).await?;
        self.input.push(0, batch(&[27]));
        tokio::time::sleep(SOON).await;
        self.input.push(1, batch(&[14]));
        self.go_on(9, 27).await;
        self.written(4, SOON).await?;
        self.input.push(0, batch(&[3, 38]));
        self.written(5, SOON).await?;
        self.end(running, &[(0, 1, 1), (0, 2, 1), (10, 3, 10), (10, 4, 1), (20, 2, 10), (30, 3, 1)]).await
    }

    /// The rows at 13 and the one at 3 are in no result when the job is saved. Split 0 went on without split 1 between them.
    async fn calls(&self, before: usize, after: usize) -> Result<(), String> {
        let running = self.started(before).await?;
        self.input.push(1, batch(&[1]));
        self.input.push(0, batch(&[2]));
        tokio::time::sleep(SOON).await;
        self.held.store(true, Relaxed);
        self.go_on(9, 13).await;
        self.input.push(0, batch(&[3]));
        tokio::time::sleep(SOON).await;
        self.save(running).await?;

        self.held.store(false, Relaxed);
        let running = self.started(after).await?;
        tokio::time::sleep(SOON).await;
        self.end(running, &[(0, 1, 1), (0, 2, 1), (10, 3, 9)]).await
    }

    /// Split 0 brings a row now and then, so that it is not idle.
    async fn go_on(&self, rows: usize, second: i64) {
        for _ in 0..rows {
            tokio::time::sleep(mins(10)).await;
            self.input.push(0, batch(&[second]));
        }
        tokio::time::sleep(secs(1)).await;
    }

    async fn save(&self, running: RunningJob) -> Result<(), String> {
        running.handle().savepoint("quiet").await.map(drop).map_err(|error| error.to_string())
    }

    /// The end of the input. Only the row at 3 s was late, and the results are these.
    async fn end(&self, running: RunningJob, right: &[(i64, i64, usize)]) -> Result<(), String> {
        self.input.end_all();
        let report = running.wait().await.map_err(|error| error.to_string())?;
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        if late != 1 {
            return Err(format!("{:?}: {late} rows were late, and not the one at 3 s", self.silence));
        }
        let text = |(start, n, count): &(i64, i64, usize)| {
            format!("{}|{n}|{count}", Timestamp::from_micros(start * 1_000_000))
        };
        let (found, right) = (tests::rows(&self.out.batches()), right.iter().map(text).collect::<Vec<_>>());
        if found == right { Ok(()) } else { Err(format!("{:?}: {found:?} instead of {right:?}", self.silence)) }
    }
}

/// One job with a silent split that is saved, dropped and goes on.
pub fn run(silence: Silence, before: usize, after: usize, faults: Faults) -> Result<(), String> {
    let directory = place();
    let (input, source) = MemorySource::by_hand(schema(), 2);
    let store = directory.path().to_str().unwrap().to_string();
    let quiet = Quiet { silence, store, input, source, out: MemorySink::new(), held: Arc::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(faults.during(quiet.live(before, after)))
}

#[test]
fn what_was_said_of_silent_splits_is_said_again_and_they_are_waited_for_again() {
    for silence in [Silence::Ahead, Silence::Idle, Silence::Calls] {
        for (before, after) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)] {
            run(silence, before, after, Faults::default())
                .unwrap_or_else(|wrong| panic!("{before} → {after}: {wrong}"));
        }
    }
}
