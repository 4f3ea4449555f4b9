//! Jobs with a memory budget: the same answer from disk, nothing left there, and errors that say what to do.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tests::{on_two_threads, rows, run, wait_for};
use windrow::{
    CheckpointError, Error, JobHandle, Report, WindowKind, arrow::array::RecordBatch, metrics::OperatorMetrics,
    prelude::*,
};

/// Counts and sums per key and window of numbers whose keys come again, one window further on.
fn job(name: &str, window: impl Into<WindowKind>, numbers: u64, keys: i64, out: &MemorySink) -> Job {
    let job = Job::new(name);
    job.source(Sequence::new(numbers).splits(2).step(100))
        .event_time("at", Watermarks::in_order())
        .select([col("at"), (col("value") % lit(keys)).alias("key"), col("value")])
        .key_by("key")
        .window(window)
        .aggregate([count().alias("n"), sum(col("value")).alias("total"), max(col("value")).alias("last")])
        .drop_late()
        .sink(out.clone());
    job
}

fn windows() -> [(&'static str, WindowKind); 3] {
    [
        ("tumbling", Tumbling::of(secs(8)).into()),
        ("hopping", Hopping::of(secs(6), secs(3)).into()),
        ("cumulating", Cumulating::of(secs(8), secs(4)).into()),
    ]
}

fn answer(out: &MemorySink) -> Vec<String> {
    rows(&out.batches())
}

fn left(below: &Path) -> Vec<String> {
    let entries = fs::read_dir(below).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn window(report: &Report) -> &OperatorMetrics {
    report.metrics.operators.iter().find(|operator| operator.operator.ends_with("per key")).unwrap()
}

#[test]
fn a_job_that_does_not_fit_gives_the_same_answer() {
    for (name, spec) in windows() {
        let expected = MemorySink::new();
        let report = run(job(name, spec.clone(), 120_000, 60_000, &expected)).unwrap();
        assert_eq!(window(&report).spilled_bytes, 0, "without a budget");
        for (tasks, budget) in [(1, 3 << 19), (2, 1 << 20)] {
            let (out, below) = (MemorySink::new(), tempfile::tempdir().unwrap());
            let job = job(name, spec.clone(), 120_000, 60_000, &out).parallelism(tasks);
            let report = run(job.memory_budget(budget).spill_to(below.path())).unwrap();
            let window = window(&report);
            assert!(window.spilled_bytes > 200 << 10, "{name}: {window:?}");
            assert!(window.spilled_segments > 4 && window.balances(), "{name}: {window:?}");
            assert!(answer(&out) == answer(&expected), "{name}, {tasks} tasks");
            assert_eq!(left(below.path()), Vec::<String>::new(), "files are gone");
            let shown = report.metrics.to_string();
            assert!(shown.contains("bytes of state were put on disk in"), "{shown}");
        }
    }
}

/// From savepoint to savepoint, with other budgets and other numbers of tasks: what was on disk is in the checkpoint.
#[test]
fn a_job_goes_on_from_what_was_on_disk() {
    for (name, spec) in windows() {
        let expected = MemorySink::new();
        run(job(name, spec.clone(), 60_000, 40_000, &expected)).unwrap();
        let (out, store, below) = (MemorySink::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lives = [(2, Some(1 << 20)), (1, Some(2 << 20)), (3, None), (2, Some(1 << 20))];
        let (mut spilled, mut stopped) = (0, 0);
        for (life, (tasks, budget)) in lives.into_iter().enumerate() {
            let mut job = job(name, spec.clone(), 60_000, 40_000, &out).parallelism(tasks);
            job = job.checkpoint(store.path().to_str().unwrap(), millis(40));
            if let Some(bytes) = budget {
                job = job.memory_budget(bytes).spill_to(below.path());
            }
            let last = life == lives.len() - 1;
            let report = on_two_threads(async {
                let running = job.start().await?;
                let handle = running.handle();
                let wanted = (15_000 * (life as u64 + 1)).saturating_sub(stopped);
                let read = |handle: &JobHandle| handle.metrics().named("source").map(|it| it.rows_in).sum::<u64>();
                while !last && read(&handle) < wanted {
                    tokio::task::yield_now().await;
                }
                if !last {
                    handle.stop();
                }
                running.wait().await
            });
            let report = report.unwrap();
            stopped += report.metrics.named("source").map(|it| it.rows_in).sum::<u64>();
            spilled += window(&report).spilled_segments;
            assert_eq!(left(below.path()), Vec::<String>::new());
        }
        assert!(spilled > 0, "{name}");
        assert!(answer(&out) == answer(&expected), "{name}");
    }
}

/// Killed after checkpoints, with other numbers of tasks each time: what was on disk is gone, and the answer comes once.
#[test]
fn a_job_that_is_killed_goes_on_from_its_checkpoint() {
    for (name, spec) in windows() {
        let expected = MemorySink::new();
        run(job(name, spec.clone(), 60_000, 40_000, &expected)).unwrap();
        let (out, store, below) = (MemorySink::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lives = [2, 3, 1, 2];
        let (mut spilled, mut killed) = (0, 0);
        for (life, tasks) in lives.into_iter().enumerate() {
            let job = || {
                let job = job(name, spec.clone(), 60_000, 40_000, &out).parallelism(tasks);
                let job = job.checkpoint(store.path().to_str().unwrap(), millis(20));
                job.memory_budget(3 << 19).spill_to(below.path())
            };
            let last = life == lives.len() - 1;
            on_two_threads(async {
                let running = loop {
                    // The former life may not have let go of the store yet.
                    match job().start().await {
                        Err(Error::Checkpoint {
                            error: CheckpointError::Locked { .. } | CheckpointError::Starting { .. },
                            ..
                        }) => tokio::task::yield_now().await,
                        started => break started.unwrap(),
                    }
                };
                let handle = running.handle();
                let on_disk = || handle.metrics().operators.iter().map(|it| it.spilled_segments).sum::<u64>();
                let read = || handle.metrics().named("source").map(|it| it.rows_in).sum::<u64>();
                let checkpoints = || handle.metrics().checkpoints.completed;
                let killed_at = async {
                    while last || read() < 12_000 || checkpoints() < 2 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    report = running.wait() => spilled += window(&report.unwrap()).spilled_segments,
                    () = killed_at => {
                        killed += 1;
                        spilled += on_disk();
                    }
                }
            });
        }
        assert!(spilled > 0 && killed > 0, "{name}: {spilled} spilled, {killed} killed");
        assert!(answer(&out) == answer(&expected), "{name}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let below = tempfile::tempdir().unwrap();
    let file = below.path().join("a-file");
    fs::write(&file, "").unwrap();
    let job = job("full", Tumbling::of(secs(60)), 200_000, 100_000, &MemorySink::new());
    let error = run(job.memory_budget(1 << 20).spill_to(&file)).unwrap_err();
    assert!(matches!(error, Error::Operator { .. }), "{error:?}");
    let error = error.to_string();
    let words =
        ["window tumbling 60s per key", "a-file", "cannot be written", ".spill_to(directory)", ".memory_budget(bytes)"];
    words.iter().for_each(|words| assert!(error.contains(words), "{words:?} in {error}"));
}

/// What keeps all its state in memory may not hold more than the budget: an error, and no death of the process.
#[test]
fn state_that_stays_in_memory_may_not_exceed_the_budget() {
    let job = Job::new("sessions").memory_budget(1 << 20);
    job.source(Sequence::new(2_000_000).step(1).batch_rows(1_024))
        .event_time("at", Watermarks::in_order())
        .key_by("value")
        .window(Session::gap(mins(1)))
        .aggregate([count()])
        .drop_late()
        .discard();
    let error = run(job).unwrap_err().to_string();
    let words =
        ["session", "of state in this task", "the memory budget of the job is 1.0 MiB", ".memory_budget(bytes)"];
    words.iter().for_each(|words| assert!(error.contains(words), "{words:?} in {error}"));
}

/// When all rows are as great as the last, all of them stay.
#[test]
fn greatest_rows_with_ties_may_not_exceed_the_budget() {
    let job = Job::new("ties").memory_budget(2 << 20);
    job.source(Sequence::new(2_000_000).step(1).batch_rows(1_024))
        .event_time("at", Watermarks::in_order())
        .select([col("at"), col("value"), (col("value") * lit(0)).alias("points")])
        .window(Tumbling::of(hours(1)))
        .top_with_ties(1, "points")
        .drop_late()
        .discard();
    let error = run(job).unwrap_err();
    assert!(matches!(error, Error::Operator { .. }), "{error:?}");
    let error = error.to_string();
    let words = [
        "top 1 with ties by points of tumbling 3600s: it holds ",
        " MiB of state in this task",
        "the memory budget of the job is 2.0 MiB",
        "give it more with .memory_budget(bytes), or let it remember less, with shorter windows",
        "greatest rows without ties",
    ];
    words.iter().for_each(|words| assert!(error.contains(words), "{words:?} in {error}"));
}

#[derive(Record)]
struct Number {
    value: i64,
}

/// So many rows, of a third fewer keys, in one window; after half of them the source waits until `half` says that it may go on.
fn in_halves(rows: i64, window: impl Into<WindowKind>, half: &Half, out: &MemorySink) -> Job {
    let (job, half) = (Job::new("halves"), half.clone());
    job.source(Sequence::new(rows as u64).step(100))
        .event_time("at", Watermarks::in_order())
        .typed::<Number>()
        .filter(move |number| {
            if number.value == rows / 2 && !half.goes_on.load(Relaxed) {
                half.reached.store(true, Relaxed);
                wait_for(&half.goes_on);
            }
            true
        })
        .select([col("at"), (col("value") % lit(rows * 2 / 3)).alias("key"), col("value")])
        .key_by("key")
        .window(window)
        .aggregate([count().alias("n"), sum(col("value")).alias("total")])
        .drop_late()
        .sink(out.clone());
    job
}

#[derive(Clone, Default)]
struct Half {
    reached: Arc<AtomicBool>,
    goes_on: Arc<AtomicBool>,
}

/// Runs `job`, which is [`in_halves`], to where it waits, and stops it there.
fn stopped_half_way(job: Job, half: &Half) -> windrow::Result<Report> {
    on_two_threads(async {
        let running = job.start().await?;
        while !half.reached.load(Relaxed) {
            tokio::task::yield_now().await;
        }
        running.handle().stop();
        half.goes_on.store(true, Relaxed);
        running.wait().await
    })
}

/// What is restored goes to disk wherever the future is polled that starts the job.
#[test]
fn a_job_goes_on_from_disk_on_every_kind_of_runtime() {
    type Run = fn(&tokio::runtime::Runtime, Job) -> windrow::Result<Report>;
    let alone: Run = |runtime, job| runtime.block_on(job.run());
    let among_others: Run = |runtime, job| runtime.block_on(tokio::task::LocalSet::new().run_until(job.run()));
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let many = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let expected = MemorySink::new();
    let done = Half::default();
    done.goes_on.store(true, Relaxed);
    // What is restored are megabytes: what is small would stay in memory.
    let in_halves = |half: &Half, out: &MemorySink| in_halves(120_000, Tumbling::of(secs(60)), half, out);
    run(in_halves(&done, &expected)).unwrap();
    for (name, runtime, run_on) in
        [("one", one(), alone), ("local on one", one(), among_others), ("local", many(), among_others)]
    {
        let (out, half) = (MemorySink::new(), Half::default());
        let (store, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let saved = |half| in_halves(half, &out).checkpoint(store.path().to_str().unwrap(), hours(1));
        let report = stopped_half_way(saved(&half), &half);
        assert!(report.unwrap().stopped, "{name}");
        let report = run_on(&runtime, saved(&half).memory_budget(1 << 20).spill_to(below.path())).unwrap();
        assert!(window(&report).spilled_segments > 0, "{name}");
        assert!(answer(&out) == answer(&expected), "{name}");
    }
}

/// Operators that put nothing on disk, however much they hold, and windows that hold little, need no directory that can be
/// written: neither to run nor to be restored.
#[test]
fn what_needs_no_disk_is_restored_without_one() {
    let below = tempfile::tempdir().unwrap();
    let nowhere = below.path().join("a-file");
    fs::write(&nowhere, "").unwrap();
    let window: WindowKind = Tumbling::of(secs(60)).into();
    for (name, rows, window) in [("session", 120_000, Session::gap(secs(60)).into()), ("small", 600, window)] {
        let (expected, out, done) = (MemorySink::new(), MemorySink::new(), Half::default());
        done.goes_on.store(true, Relaxed);
        run(in_halves(rows, window.clone(), &done, &expected)).unwrap();
        let (half, store) = (Half::default(), tempfile::tempdir().unwrap());
        let job = |half: &Half| {
            let job = in_halves(rows, window.clone(), half, &out).checkpoint(store.path().to_str().unwrap(), hours(1));
            job.memory_budget(64 << 20).spill_to(&nowhere)
        };
        let report = stopped_half_way(job(&half), &half);
        assert!(report.unwrap().stopped, "{name}");
        let report = run(job(&half)).unwrap();
        assert_eq!(self::window(&report).spilled_segments, 0, "{name}");
        assert!(answer(&out) == answer(&expected), "{name}");
    }
}

#[test]
fn mistakes_about_memory_are_told_before_the_first_row() {
    let job = || job("mistakes", Tumbling::of(secs(60)), 10, 10, &MemorySink::new());
    let many = || job().memory_budget(2 << 20).parallelism(16);
    for error in [run(many()).unwrap_err(), on_two_threads(many().explain()).unwrap_err()] {
        let error = error.to_string();
        let words = [
            "a memory budget of 2097152 bytes is too little for the 18 operators with state",
            "at least 4718592, which is 256 KiB for each",
            ".memory_budget(4718592)",
            ".parallelism(tasks)",
        ];
        words.iter().for_each(|words| assert!(error.contains(words), "{words:?} in {error}"));
    }
    run(many().memory_budget(4_718_592)).unwrap();
    let error = run(job().memory_budget(4_096)).unwrap_err().to_string();
    assert!(error.contains("a memory budget of 4096 bytes is too little: at least 1048576 (1 MiB)"), "{error}");
    let error = run(job().spill_to("/nowhere")).unwrap_err().to_string();
    assert!(error.contains("say .memory_budget(bytes)"), "{error}");
}

/// The greatest resident set of this process, in MiB.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Tens of millions of keys in a few hundred MiB:
/// `KEYS=50000000 BUDGET_MIB=256 cargo test --release -p tests --test jobs -- --ignored --nocapture more_keys_than_memory`
#[test]
#[ignore = "takes minutes, and gigabytes of disk below TMPDIR"]
#[cfg(target_os = "linux")]
fn more_keys_than_memory() {
    let number = |name: &str, or: u64| std::env::var(name).map_or(or, |value| value.parse().unwrap());
    let (keys, budget) = (number("KEYS", 50_000_000), number("BUDGET_MIB", 256) as usize);
    // All keys are in one window; each comes twice, so that it is in several of its slices.
    let out = Totals::default();
    let job = Job::new("many-keys").parallelism(2).memory_budget(budget << 20);
    job.source(Sequence::new(2 * keys).splits(2).step((500_000_000 / (2 * keys as i64)).max(1)))
        .event_time("at", Watermarks::in_order())
        .select([col("at"), (col("value") % lit(keys as i64)).alias("key"), col("value")])
        .key_by("key")
        .window(Hopping::of(mins(10), mins(5)))
        .aggregate([count().alias("n"), sum(col("value")).alias("total")])
        .drop_late()
        .select([col("window_end"), col("n"), col("total")])
        .window(Tumbling::of(mins(5)))
        .aggregate([count().alias("keys"), sum(col("n")).alias("rows"), sum(col("total")).alias("total")])
        .drop_late()
        .sink(out.0.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let before = peak();
    let report = runtime.block_on(job.run()).unwrap();
    println!("{}peak {} MiB, before {before} MiB", report.metrics, peak());
    let values = out.sums();
    let all: i64 = 2 * keys as i64;
    // Every row is in two windows.
    assert_eq!(values, (2 * all, all * (all - 1)));
}

/// What the rows of the long test add up to.
#[derive(Default)]
struct Totals(MemorySink);

impl Totals {
    fn sums(&self) -> (i64, i64) {
        let of = |name: &str| {
            let sum = |rows: &RecordBatch| {
                let column = rows.column_by_name(name).unwrap();
                let numbers = column.as_any().downcast_ref::<windrow::arrow::array::Int64Array>().unwrap();
                numbers.values().iter().sum::<i64>()
            };
            self.0.batches().iter().map(sum).sum::<i64>()
        };
        (of("rows"), of("total"))
    }
}
