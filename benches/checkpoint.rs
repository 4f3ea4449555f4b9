//! What checkpoints cost: the throughput of the keyed window with one every second beside that without, and how many bytes
//! a checkpoint writes when much or little has changed.
//!
//! Not a criterion bench: the two sides must alternate for some seconds each, and what counts is their ratio. Run with
//! `cargo bench -p benches --bench checkpoint`. `WINDROW_BENCH_ROWS` says how many rows a run has, if not 800 million of 10,000 keys
//! and 120 million of a million; `WINDROW_BENCH_KEYS` how many groups are kept where bytes are counted, if not a million.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use benches::{AddUp, BATCH_ROWS, amount, measures, median, rows};
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    connectors::{ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows that a window has, so that a million keys are all met in it.
const WINDOW_ROWS: i64 = 16_000_000;
/// How many pairs of runs are measured. The median of their ratios counts.
const ROUNDS: usize = 5;

/// Keys spread evenly, a row a microsecond of event time; ready in memory, again and again.
#[derive(Clone)]
struct Cycle {
    schema: SchemaRef,
    batches: Arc<Vec<(ArrayRef, ArrayRef)>>,
    rows: u64,
    splits: usize,
}

impl Cycle {
    fn new(keys: u64, rows: u64, splits: usize) -> Self {
        let fields = [("key", DataType::Int64), ("price", DataType::Int64), ("at", Timestamp::data_type())];
        let fields: Vec<Field> = fields.map(|(name, data_type)| Field::new(name, data_type, false)).to_vec();
        let mut random = fastrand::Rng::with_seed(1);
        let mut column = |below: u64| -> ArrayRef {
            Arc::new((0..BATCH_ROWS).map(|_| random.u64(..below) as i64).collect::<Int64Array>())
        };
        let batches = (0..512).map(|_| (column(keys), column(1_000_000))).collect();
        Self { schema: Arc::new(Schema::new(fields)), batches: Arc::new(batches), rows, splits }
    }
}

impl TypedSource for Cycle {
    type Row = Untyped;
}

#[async_trait]
impl Source for Cycle {
    fn name(&self) -> String {
        "cycle".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(self.schema.clone())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok((0..self.splits).map(|split| SplitId::new(split.to_string())).collect())
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let splits = assigned.into_iter().map(|(split, next)| (split, next.unwrap_or_default().0)).collect();
        Ok(Box::new(CycleReader { cycle: self.clone(), splits, turn: 0 }))
    }
}

struct CycleReader {
    cycle: Cycle,
    splits: Vec<(SplitId, u64)>,
    turn: usize,
}

#[async_trait]
impl SourceReader for CycleReader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        let Cycle { schema, batches, rows, splits } = &self.cycle;
        if self.splits.is_empty() {
            return Ok(Fetch::End);
        }
        let turn = self.turn % self.splits.len();
        let (split, next) = &mut self.splits[turn];
        if *next * *splits as u64 >= *rows {
            let (split, _) = self.splits.swap_remove(turn);
            return Ok(Fetch::SplitEnd(split));
        }
        let (key, price) = &batches[(*next as usize / BATCH_ROWS * 7 + turn * 131) % batches.len()];
        let first = *next as i64 * *splits as i64;
        let at = Timestamp::column((0..BATCH_ROWS as i64).map(|row| first + row).collect());
        *next += BATCH_ROWS as u64;
        self.turn += 1;
        let batch = RecordBatch::try_new(schema.clone(), vec![key.clone(), price.clone(), at])?;
        Ok(Fetch::Rows(Rows {
            split: split.clone(),
            batch,
            rejected: Vec::new(),
            passed_over: 0,
            next: Position(*next),
            origins: None,
        }))
    }
}

/// Counts the rows of results; nothing of the sink is measured.
fn count_rows() -> AddUp<1> {
    AddUp::new(|[rows], batch| *rows += batch.num_rows() as i64)
}

struct Run {
    rows_per_second: f64,
    checkpoints: u64,
    bytes: u64,
}

fn run(runtime: &tokio::runtime::Runtime, source: &Cycle, tasks: usize, every: Option<Duration>) -> Run {
    let directory = tempfile::tempdir().unwrap_or_else(|error| unreachable!("{error}"));
    let mut job = Job::new("cost").parallelism(tasks);
    if let Some(every) = every {
        job = job.checkpoint(directory.path().to_string_lossy(), every);
    }
    let out = count_rows();
    job.source(source.clone())
        .event_time("at", Watermarks::in_order())
        .key_by("key")
        .window(Tumbling::of(Duration::from_micros(WINDOW_ROWS as u64)))
        .aggregate([count(), sum(col("price")), max(col("price"))])
        .drop_late()
        .sink(out.clone());
    let report = runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    assert!(out.total()[0] > 0);
    let checkpoints = report.metrics.checkpoints;
    Run {
        rows_per_second: source.rows as f64 / report.elapsed.as_secs_f64(),
        checkpoints: checkpoints.completed,
        bytes: checkpoints.bytes,
    }
}

/// Throughput with a checkpoint every second, beside that without.
fn throughput(runtime: &tokio::runtime::Runtime) {
    for (keys, full) in [(10_000, 800_000_000), (1_000_000, 120_000_000)] {
        for tasks in [1, 2] {
            let source = Cycle::new(keys, rows(full), tasks);
            let mut ratios = Vec::new();
            let (mut without, mut with) = (Vec::new(), Vec::new());
            let mut last = None;
            for _ in 0..if measures() { ROUNDS } else { 1 } {
                let plain = run(runtime, &source, tasks, None);
                let checked = run(runtime, &source, tasks, Some(secs(1)));
                ratios.push(checked.rows_per_second / plain.rows_per_second);
                without.push(plain.rows_per_second / 1e6);
                with.push(checked.rows_per_second / 1e6);
                last = Some(checked);
            }
            let (checkpoints, bytes) = last.map_or((0, 0), |run| (run.checkpoints, run.bytes));
            println!(
                "checkpoint/{keys} keys/{tasks} tasks: {:.1} M rows/s without, {:.1} with one every second: ratio {:.3} \
                 (of each pair: {}); {checkpoints} checkpoints, {:.1} MB each",
                median(&without),
                median(&with),
                median(&ratios),
                ratios.iter().map(|ratio| format!("{ratio:.3}")).collect::<Vec<_>>().join(" "),
                bytes as f64 / 1e6 / checkpoints.max(1) as f64,
            );
        }
    }
}

/// The length of all segments below a store.
fn segment_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => segment_bytes(&entry.path()),
        Ok(metadata) if entry.path().components().any(|part| part.as_os_str() == "s") => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// What a checkpoint writes when some of a million groups have changed since the last.
fn bytes(runtime: &tokio::runtime::Runtime) {
    let kept = amount("WINDROW_BENCH_KEYS", 1_000_000, 1_000) as i64;
    for changed in [100_000, 1_000, 10, 1].map(|part| (kept / part).max(1)) {
        let directory = tempfile::tempdir().unwrap_or_else(|error| unreachable!("{error}"));
        let schema = Cycle::new(1, 1, 1).schema;
        let batch = |keys: i64| {
            let column = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..keys)) };
            let at = Timestamp::column(vec![0; keys as usize]);
            RecordBatch::try_new(schema.clone(), vec![column(), column(), at])
                .unwrap_or_else(|error| unreachable!("{error}"))
        };
        let (input, source) = MemorySource::by_hand(schema.clone(), 1);
        let job = Job::new("bytes").checkpoint(directory.path().to_string_lossy(), hours(1));
        job.source(source)
            .event_time("at", Watermarks::in_order())
            .key_by("key")
            .window(Tumbling::of(hours(1)))
            .aggregate([count(), sum(col("price")), max(col("price"))])
            .drop_late()
            .sink(count_rows());
        let written = runtime.block_on(async {
            let running = job.start().await?;
            let handle = running.handle();
            let read = async |rows: u64| {
                while handle.metrics().named("source").all(|source| source.rows_out < rows) {
                    tokio::task::yield_now().await;
                }
            };
            input.push(0, batch(kept));
            read(kept as u64).await;
            handle.savepoint("all").await?;
            let before = segment_bytes(directory.path());
            input.push(0, batch(changed));
            read((kept + changed) as u64).await;
            handle.savepoint("changed").await?;
            let written = (before, segment_bytes(directory.path()) - before);
            handle.stop();
            running.wait().await?;
            Ok::<_, windrow::Error>(written)
        });
        let (first, second) = written.unwrap_or_else(|error| unreachable!("{error}"));
        println!(
            "checkpoint/bytes: {kept} groups kept ({:.1} MB at first), {changed} changed: {:.3} MB written",
            first as f64 / 1e6,
            second as f64 / 1e6
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));
    bytes(&runtime);
    throughput(&runtime);
}
