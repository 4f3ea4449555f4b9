//! Faults that a review of the checkpoint runtime found, each with the job that showed it.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tests::rows;
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    prelude::*,
};

#[derive(Record)]
pub struct Number {
    pub n: i64,
    pub at: Timestamp,
}

/// Numbers that are also their second of event time.
fn batch(numbers: &[i64]) -> RecordBatch {
    let n = Int64Array::from_iter_values(numbers.iter().copied());
    let at = Timestamp::column(numbers.iter().map(|n| n * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("at", at)]).unwrap()
}

fn schema() -> SchemaRef {
    batch(&[]).schema()
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

/// Passes numbers on; panics once at 99, if `fails` says so.
fn passing(store: &str, source: MemorySource, sink: MemorySink, fails: &Arc<AtomicBool>) -> Job {
    let fails = fails.clone();
    let job = Job::new("numbers")
        .checkpoint(store, Duration::from_millis(20))
        .restarts(Restarts::at_most(3).waiting(millis(1)..=millis(5)));
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .typed::<Number>()
        .filter(move |number| {
            assert!(!(number.n == 99 && fails.swap(false, SeqCst)), "once");
            true
        })
        .select([col("n")])
        .sink(sink);
    job
}

#[test]
fn a_job_that_was_restored_from_a_savepoint_restarts_from_its_own_checkpoints() {
    for repeat in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_str().unwrap();
        let rows = tests::on_two_threads(async {
            let (input, source) = MemorySource::by_hand(schema(), 1);
            let (sink, fails) = (MemorySink::new(), Arc::new(AtomicBool::new(true)));
            let running = passing(store, source.clone(), sink.clone(), &fails).start().await.unwrap();
            input.push(0, batch(&[1, 2]));
            until(|| sink.rows() == 2).await;
            let handle = running.handle();
            let (savepoint, ended) = tokio::join!(handle.stop_with_savepoint("a"), running.wait());
            savepoint.unwrap();
            ended.unwrap();
            let restore = Restore::savepoint("a");
            let restore = if repeat { restore.repeat_output() } else { restore };
            let running = passing(store, source, sink.clone(), &fails).restore(restore).start().await.unwrap();
            input.push(0, batch(&[3]));
            until(|| sink.rows() == 3).await;
            input.push(0, batch(&[99]));
            input.end_all();
            running.wait().await.unwrap();
            assert!(!fails.load(SeqCst), "it has failed once");
            rows(&sink.batches())
        });
        assert_eq!(rows, ["1", "2", "3", "99"], "repeat {repeat}");
    }
}

/// Numbers to a sink, and a window beside it, of which the checkpoint has state.
fn forked(store: &str, source: MemorySource, sink: MemorySink, window: Duration) -> Job {
    let job = Job::new("forked").checkpoint(store, Duration::from_millis(20));
    let numbers = job.source(source).event_time("at", Watermarks::in_order()).fail_on_rejects();
    numbers.clone().select([col("n")]).sink(sink);
    numbers.window(Tumbling::of(window)).aggregate([count()]).drop_late().sink(MemorySink::new());
    job
}

#[test]
fn a_start_that_is_refused_has_not_gone_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let rows = tests::on_two_threads(async {
        let (input, source) = MemorySource::by_hand(schema(), 1);
        let sink = MemorySink::new();
        let running = forked(store, source.clone(), sink.clone(), secs(1000)).start().await.unwrap();
        input.push(0, batch(&[1]));
        until(|| sink.rows() == 1).await;
        let savepoint = running.handle().savepoint("a").await.unwrap();
        input.push(0, batch(&[2, 3]));
        until(|| sink.rows() == 3).await;
        running.handle().stop();
        running.wait().await.unwrap();
        let changed = forked(store, source.clone(), sink.clone(), secs(77));
        let refused = changed.restore(Restore::savepoint("a").repeat_output()).run().await.unwrap_err().to_string();
        assert!(refused.contains(&format!("cannot go on from checkpoint {savepoint}:")), "{refused}");
        input.end_all();
        forked(store, source, sink.clone(), secs(1000)).run().await.unwrap();
        rows(&sink.batches())
    });
    assert_eq!(rows, ["1", "2", "3"]);
}

#[test]
fn a_split_that_comes_after_the_end_is_not_late() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    for parallelism in [1, 2] {
        let sink = MemorySink::new();
        let run = |splits: Vec<Vec<RecordBatch>>| {
            let job =
                Job::new(format!("after-the-end-{parallelism}")).parallelism(parallelism).checkpoint(store, secs(1));
            job.source(MemorySource::new(schema(), splits))
                .event_time("at", Watermarks::in_order())
                .window(Tumbling::of(secs(10)))
                .aggregate([count().alias("count")])
                .drop_late()
                .select([col("count")])
                .sink(sink.clone());
            let report = tests::on_two_threads(job.run()).unwrap();
            report.metrics.operators.iter().map(|operator| operator.late).sum::<u64>()
        };
        let first = vec![batch(&[1, 2])];
        assert_eq!(run(vec![first.clone()]), 0);
        assert_eq!(run(vec![first.clone(), vec![batch(&[100, 101, 102])]]), 0);
        assert_eq!(rows(&sink.batches()), ["2", "3"]);
        assert_eq!(run(vec![first, vec![batch(&[100, 101, 102])], vec![batch(&[3])]]), 1, "[0, 10) has had its result");
    }
}

#[test]
fn a_split_that_ended_and_was_away_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let sink = MemorySink::new();
    let run = |splits: Vec<Vec<RecordBatch>>| {
        let job = Job::new("away").checkpoint(store, secs(1));
        let numbers = job.source(MemorySource::new(schema(), splits)).fail_on_rejects();
        numbers.select([col("n")]).sink(sink.clone());
        tests::on_two_threads(job.run()).unwrap();
    };
    let (a, b) = (vec![batch(&[1])], vec![batch(&[2])]);
    run(vec![a.clone(), b.clone()]);
    run(vec![a.clone()]);
    run(vec![a, b]);
    assert_eq!(rows(&sink.batches()), ["1", "2"]);
}

#[test]
fn of_two_stops_with_a_savepoint_the_second_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    tests::on_two_threads(async {
        let (input, source) = MemorySource::by_hand(schema(), 1);
        let running = passing(store, source, MemorySink::new(), &Arc::default()).start().await.unwrap();
        input.push(0, batch(&[1]));
        let handle = running.handle();
        let (a, b) = (handle.stop_with_savepoint("a"), handle.stop_with_savepoint("b"));
        let (a, b, ended) = tokio::join!(biased; a, b, running.wait());
        ended.unwrap();
        a.unwrap();
        let error = b.unwrap_err().to_string();
        assert!(error.contains("stopping with savepoint \"a\"") || error.contains("the job ended before"), "{error}");
    });
}

#[test]
fn a_stray_file_among_the_savepoints_does_not_end_the_job() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    tests::on_two_threads(async {
        let (input, source) = MemorySource::by_hand(schema(), 1);
        let running = passing(store, source, MemorySink::new(), &Arc::default()).start().await.unwrap();
        let handle = running.handle();
        let completed = || handle.metrics().checkpoints.completed;
        until(|| completed() >= 1).await;
        fs::write(directory.path().join("numbers/savepoint/.DS_Store"), "x").unwrap();
        for number in 1..5 {
            let before = completed();
            input.push(0, batch(&[number]));
            until(|| completed() > before).await;
        }
        assert_eq!(handle.metrics().checkpoints.not_collected, 0);
        input.end_all();
        running.wait().await.unwrap();
    });
}
