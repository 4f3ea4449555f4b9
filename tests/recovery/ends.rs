//! A job over what there was when it began: it reads that and no more, however often it is started; and says so when it is started
//! although it has finished.
//!
//! ```text
//!   topic at the first start   0 … 49 │ 50 … 99        the ends are in the first checkpoint
//!   while it is down           + 100 … 149, a new partition of 150 … 199
//!   started again              the same 0 … 99;   and again: nothing, with a word;   under another name: all
//! ```

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tests::{on_two_threads, rows, run, topic::Topic, wait_for};
use windrow::{
    Faults, Report, Restarts,
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    prelude::*,
};

use super::lives::place;

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let at = Timestamp::column(range.clone().map(|n| n * 1_000_000).collect());
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

fn push(topic: &Topic, partition: usize, range: std::ops::Range<i64>) {
    range.step_by(5).for_each(|n| topic.push(partition, numbers(n..n + 5)));
}

/// What grows while a bounded job is down.
struct Over {
    topic: Topic,
    directory: tempfile::TempDir,
    out: MemorySink,
}

impl Over {
    fn new() -> Self {
        let topic = Topic::new(numbers(0..0).schema(), 2, secs(1)).bounded();
        push(&topic, 0, 0..50);
        push(&topic, 1, 50..100);
        Self { topic, directory: place(), out: MemorySink::new() }
    }

    fn grow(topic: &Topic) {
        push(topic, 0, 100..150);
        push(topic, topic.add(), 150..200);
    }

    fn store(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Counts by window. `seen` sees every number.
    fn job(&self, name: &str, parallelism: usize, seen: impl Fn(i64) + Send + Sync + Clone + 'static) -> Job {
        let job = Job::new(name).parallelism(parallelism).checkpoint(self.store(), hours(100));
        let job = job.restarts(Restarts::at_most(1).waiting(millis(1)..=millis(1)));
        job.source(self.topic.clone())
            .event_time("at", Watermarks::out_of_order(secs(1_000)))
            .fail_on_rejects()
            .typed::<Number>()
            .filter(move |number| {
                seen(number.n);
                true
            })
            .window(Tumbling::of(secs(10)))
            .aggregate([count(), sum(col("n")).alias("sum")])
            .drop_late()
            .select([col("count"), col("sum")])
            .sink(self.out.clone());
        job
    }

    /// Grows when the first checkpoint is there, and fails the job once.
    fn crash(&self, faults: Faults) -> windrow::Result<Report> {
        let (begun, crashes, topic) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(true), self.topic.clone());
        let (has_begun, crashes) = (begun.clone(), Arc::new(crashes));
        let job = self.job("over", 2, move |n| {
            if n == 30 && crashes.swap(false, Relaxed) {
                wait_for(&has_begun);
                Self::grow(&topic);
                panic!("a crash");
            }
        });
        on_two_threads(faults.during(async {
            let running = job.start().await?;
            let handle = running.handle();
            let watch = async {
                while handle.metrics().checkpoints.completed == 0 {
                    tokio::time::sleep(millis(1)).await;
                }
                begun.store(true, Relaxed);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = running.wait() => ended,
                () = watch => unreachable!(),
            }
        }))
    }

    fn rows(&self) -> Vec<String> {
        rows(&self.out.batches())
    }
}

#[derive(Record)]
pub struct Number {
    n: i64,
    at: Timestamp,
}

/// What a batch computation says.
fn right(first: i64, end: i64) -> Vec<String> {
    let mut rows: Vec<String> = (first..end).step_by(10).map(|n| format!("10|{}", (n..n + 10).sum::<i64>())).collect();
    rows.sort_unstable();
    rows
}

fn said(report: &Report) -> String {
    report.warnings.join("\n")
}

fn read(report: &Report) -> u64 {
    report.metrics.named("source").map(|source| source.rows_in).sum()
}

/// Those that show where ends were fixed.
pub const MUTANTS: [&str; 2] = ["where splits end is not saved", "what was not there when the ends were fixed is read"];

/// A crash in which one of [`MUTANTS`] shows.
pub fn attack(_seed: u64, faults: Faults) -> Result<(), String> {
    let over = Over::new();
    over.crash(faults).map_err(|error| error.to_string())?;
    match over.rows() {
        rows if rows == right(0, 100) => Ok(()),
        rows => Err(format!("{rows:?} instead of {:?}", right(0, 100))),
    }
}

#[test]
fn what_has_come_since_the_first_start_is_not_read_after_a_crash() {
    let over = Over::new();
    let report = over.crash(Faults::default()).unwrap();
    assert_eq!((over.rows(), read(&report)), (right(0, 100), 100));
    let said = said(&report);
    assert!(
        said.starts_with("#1 source topic: not read, ") && said.contains("they have come since: p2. To read"),
        "{said}"
    );
}

#[test]
fn a_job_that_has_finished_says_so_when_it_is_started_again() {
    let over = Over::new();
    over.crash(Faults::default()).unwrap();
    for parallelism in [1, 3] {
        let report = run(over.job("over", parallelism, |_| {})).unwrap();
        assert_eq!((over.rows(), read(&report)), (right(0, 100), 0));
        let said = said(&report);
        assert!(said.starts_with("job \"over\" has finished: its checkpoint "), "{said}");
        assert!(said.contains(over.store()) && said.contains("another name, or another directory"), "{said}");
        assert!(said.contains(", of 20"), "a date: {said}");
    }
    // As it advises.
    let report = run(over.job("all-over", 2, |_| {})).unwrap();
    assert_eq!((said(&report).as_str(), read(&report)), ("", 200));
    let mut both = [right(0, 100), right(0, 200)].concat();
    both.sort_unstable();
    assert_eq!(over.rows(), both);
}

#[test]
fn a_job_that_has_finished_and_now_takes_new_partitions_is_not_told_that_it_reads_nothing() {
    let mut over = Over::new();
    run(over.job("over", 2, |_| {})).unwrap();
    over.topic = over.topic.clone().unwatched();
    let report = run(over.job("over", 2, |_| {})).unwrap();
    assert!(said(&report).contains("this start reads nothing, and"), "{}", said(&report));
    Over::grow(&over.topic);
    over.topic.end_all();
    let report = run(over.job("over", 2, |_| {})).unwrap();
    assert!(said(&report).contains("reads nothing but splits (partitions, files) that are new"), "{}", said(&report));
    assert_eq!(read(&report), 50, "the partition that has appeared, and of the others nothing");
    let mut all = [right(0, 100), right(150, 200)].concat();
    all.sort_unstable();
    assert_eq!(over.rows(), all);
}

#[test]
fn a_job_that_was_stopped_has_not_finished() {
    let (over, goes_on) = (Over::new(), Arc::new(AtomicBool::new(false)));
    let gate = goes_on.clone();
    let job = over.job("over", 1, move |_| wait_for(&gate));
    on_two_threads(async {
        let running = job.start().await.unwrap();
        running.handle().stop();
        goes_on.store(true, Relaxed);
        assert!(running.wait().await.unwrap().stopped);
    });
    Over::grow(&over.topic);
    let report = run(over.job("over", 2, |_| {})).unwrap();
    assert!(!said(&report).contains("has finished"), "{}", said(&report));
    assert_eq!(over.rows(), right(0, 100));
}

#[test]
fn a_job_over_files_has_finished_until_there_is_another_file() {
    let (files, store, out) = (place(), place(), MemorySink::new());
    let write = |name: &str, n: i64| fs::write(files.path().join(name), format!("{{\"n\":{n}}}\n")).unwrap();
    let job = || {
        let job = Job::new("files").checkpoint(store.path().to_str().unwrap(), hours(1));
        job.source(
            File::patterns([pattern(files.path())]).json_with(numbers(0..0).schema().project(&[0]).unwrap().into()),
        )
        .sink(out.clone());
        run(job).unwrap()
    };
    write("1.jsonl", 1);
    assert_eq!(said(&job()), "");
    assert!(said(&job()).contains("job \"files\" has finished"));
    write("2.jsonl", 2);
    assert_eq!(said(&job()), "");
    assert!(said(&job()).contains("job \"files\" has finished"));
    assert_eq!(rows(&out.batches()), ["1", "2"]);
}

fn pattern(directory: &Path) -> String {
    format!("{}/*.jsonl", directory.display())
}
