//! Splits that are silent around a restart, on a clock that stands still unless everything waits: what the job had promised
//! about time before is what it promises after, neither more nor less, so results come as soon as they would have.

use std::{sync::Arc, time::Duration};

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
}

/// The longest that a result may take once its window is complete; the silence that counts as idle is much longer.
const SOON: Duration = Duration::from_secs(60);

impl Quiet {
    fn job(&self, parallelism: usize) -> Job {
        let job = Job::new("quiet").parallelism(parallelism).restarts(windrow::Restarts::never());
        let watermarks = match self.silence {
            Silence::Ahead => Watermarks::in_order(),
            Silence::Idle => Watermarks::in_order().idle_after(hours(1)),
        };
        job.source(self.source.clone())
            .event_time("at", watermarks)
            .key_by("n")
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
        let running = self.started(before).await?;
        let handle = running.handle();
        // Split 1 speaks once and not again for days.
        self.input.push(1, batch(&[if self.silence == Silence::Ahead { 1_000 } else { 1 }]));
        self.input.push(0, batch(&[2, 13]));
        let patience = if self.silence == Silence::Ahead { SOON } else { hours(2) };
        if self.silence == Silence::Idle {
            // Split 0 is not idle: it brings a row now and then.
            for _ in 0..9 {
                tokio::time::sleep(mins(10)).await;
                self.input.push(0, batch(&[13]));
            }
        }
        let first = if self.silence == Silence::Ahead { 1 } else { 2 };
        self.written(first, patience).await?;
        let failed = |error: windrow::Error| error.to_string();
        handle.savepoint("quiet").await.map_err(failed)?;
        drop(running);

        let running = self.started(after).await?;
        self.input.push(0, batch(&[27]));
        self.written(first + 1, SOON).await?;
        self.input.push(0, batch(&[3, 38]));
        self.written(first + 2, SOON).await?;
        self.input.end_all();
        let report = running.wait().await.map_err(failed)?;
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        if late != 1 {
            return Err(format!("{:?}: {late} rows were late, and not the one at 3 s", self.silence));
        }
        let text =
            |(start, n, count): (i64, i64, usize)| format!("{}|{n}|{count}", Timestamp::from_micros(start * 1_000_000));
        let right = match self.silence {
            Silence::Ahead => vec![(0, 2, 1), (10, 3, 1), (20, 2, 1), (30, 3, 1), (1_000, 0, 1)],
            Silence::Idle => vec![(0, 1, 1), (0, 2, 1), (10, 3, 10), (20, 2, 1), (30, 3, 1)],
        };
        let (found, right) = (tests::rows(&self.out.batches()), right.into_iter().map(text).collect::<Vec<_>>());
        if found == right { Ok(()) } else { Err(format!("{:?}: {found:?} instead of {right:?}", self.silence)) }
    }
}

/// One job with a silent split that is saved, dropped and goes on.
pub fn run(silence: Silence, before: usize, after: usize, faults: Faults) -> Result<(), String> {
    let directory = place();
    let (input, source) = MemorySource::by_hand(schema(), 2);
    let store = directory.path().to_str().unwrap().to_string();
    let quiet = Quiet { silence, store, input, source, out: MemorySink::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(faults.during(quiet.live(before, after)))
}

#[test]
fn a_silent_split_is_as_silent_after_a_restore() {
    for silence in [Silence::Ahead, Silence::Idle] {
        for (before, after) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)] {
            run(silence, before, after, Faults::default())
                .unwrap_or_else(|wrong| panic!("{before} → {after}: {wrong}"));
        }
    }
}
