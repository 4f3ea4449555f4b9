//! A job that fails and is started again by itself: as often as it may, from its newest checkpoint, with the right answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tests::on_two_threads;
use windrow::{
    CheckpointError, Error, Restarts,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{
        ConnectorError, Epoch, Fetch, Incarnation, Position, Receipt, Sink, SinkWriter, Source, SourceReader, SplitId,
        TypedSource,
    },
    prelude::*,
};

use super::lives::{HANGS, balanced, place};

type Outcome<T> = Result<T, ConnectorError>;

#[derive(Record)]
struct Number {
    value: i64,
}

const NUMBERS: u64 = 100_000;

/// Counts of numbers by their last digit in windows of ten seconds, a thousandth of a second apart.
fn digits(rows: Stream<Number>, sink: impl Sink) {
    rows.select([(col("value") % lit(10)).alias("digit")])
        .key_by("digit")
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("n")])
        .drop_late()
        .select(["window_start", "digit", "n"].map(col))
        .sink(sink);
}

fn right_digits() -> Vec<String> {
    let window = |start: i64| Timestamp::from_micros(start * 10_000_000);
    let rows = (0..NUMBERS as i64 / 10_000).flat_map(|w| (0..10).map(move |d| format!("{}|{d}|1000", window(w))));
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    rows
}

fn numbers(job: &Job) -> Stream<Number> {
    let source = job.source(Sequence::new(NUMBERS).splits(3));
    source.event_time("at", Watermarks::in_order()).fail_on_rejects().typed()
}

/// Soon, and so often.
fn quickly(limit: u32) -> Restarts {
    Restarts::at_most(limit).waiting(millis(1)..=millis(5))
}

/// Never within the time of a test: who waits for it hangs.
fn after_hours() -> Restarts {
    Restarts::at_most(5).waiting(hours(1)..=hours(1))
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, future).await.expect("it hangs")
}

#[test]
fn a_closure_that_panics_a_few_times_does_not_change_the_answer() {
    for parallelism in [1, 3] {
        let (directory, out, failures) = (place(), MemorySink::new(), Arc::new(AtomicUsize::new(0)));
        let job = Job::new("panics").parallelism(parallelism).channel_bytes(20_000);
        let count = failures.clone();
        let rows = numbers(&job).filter(move |n| {
            ![70, 30_000, 61_111, 99_999].contains(&n.value) || count.fetch_add(1, SeqCst) >= 4 || fail()
        });
        digits(rows, out.clone());
        let job = job.checkpoint(directory.path().to_str().unwrap(), millis(1)).restarts(quickly(10));
        let report = tests::run(job).unwrap();
        balanced(&report).unwrap();
        assert!(failures.load(SeqCst) > 4, "it failed four times and went through then");
        assert_eq!(tests::rows(&out.batches()), right_digits());
    }
}

fn fail() -> bool {
    panic!("not this time")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    Write,
    Stage,
    Commit,
    Clean,
}

/// A sink that fails `left` times at some place, and keeps its rows in another. What comes before the first row fails only at
/// a restart, for which the first write fails: a job that cannot begin the first time is told so.
#[derive(Clone)]
struct Flaky {
    at: At,
    restarted: Arc<AtomicBool>,
    left: Arc<AtomicUsize>,
    /// Fails only when it has committed so often since it failed last.
    after_commits: usize,
    commits: Arc<AtomicUsize>,
    rows: MemorySink,
}

impl Flaky {
    fn new(at: At, times: usize) -> Self {
        let (left, commits) = (Arc::new(AtomicUsize::new(times)), Arc::default());
        let restarted = Arc::new(AtomicBool::new(!matches!(at, At::Open | At::Clean)));
        Self { at, restarted, left, after_commits: 0, commits, rows: MemorySink::new() }
    }

    fn pass(&self, at: At) -> Outcome<()> {
        let down = || Err(ConnectorError::io("reach", "/far/away", std::io::Error::other("the line is down")));
        if at == At::Write && !self.restarted.swap(true, SeqCst) {
            return down();
        }
        if at != self.at || !self.restarted.load(SeqCst) || self.commits.load(SeqCst) < self.after_commits {
            return Ok(());
        }
        let failing = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if !failing {
            return Ok(());
        }
        self.commits.store(0, SeqCst);
        down()
    }
}

#[async_trait]
impl Sink for Flaky {
    fn name(&self) -> String {
        "flaky".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Outcome<()> {
        Ok(())
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Outcome<Box<dyn SinkWriter>> {
        self.pass(At::Open)?;
        Ok(Box::new(FlakyWriter(self.clone(), self.rows.writer(incarnation, task, schema).await?)))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Outcome<()> {
        self.pass(At::Commit)?;
        self.commits.fetch_add(1, SeqCst);
        self.rows.commit(receipts).await
    }

    async fn clean(&self, incarnation: &Incarnation) -> Outcome<()> {
        self.pass(At::Clean)?;
        self.rows.clean(incarnation).await
    }
}

struct FlakyWriter(Flaky, Box<dyn SinkWriter>);

#[async_trait]
impl SinkWriter for FlakyWriter {
    async fn write(&mut self, batch: RecordBatch) -> Outcome<()> {
        self.0.pass(At::Write)?;
        self.1.write(batch).await
    }

    async fn stage(&mut self, epoch: Epoch) -> Outcome<Vec<Receipt>> {
        self.0.pass(At::Stage)?;
        self.1.stage(epoch).await
    }
}

fn to_flaky(sink: &Flaky, store: &str, restarts: Restarts) -> Job {
    let job = Job::new("flaky").parallelism(2).channel_bytes(20_000);
    digits(numbers(&job), sink.clone());
    job.checkpoint(store, millis(1)).restarts(restarts)
}

#[test]
fn a_sink_that_fails_a_few_times_anywhere_has_every_row_once() {
    for at in [At::Open, At::Write, At::Stage, At::Commit, At::Clean] {
        let directory = place();
        let sink = Flaky::new(at, 3);
        let report = tests::run(to_flaky(&sink, directory.path().to_str().unwrap(), quickly(5)));
        balanced(&report.unwrap_or_else(|error| panic!("{at:?}: {error}"))).unwrap();
        assert_eq!(tests::rows(&sink.rows.batches()), right_digits(), "{at:?}");
    }
}

#[test]
fn a_sink_that_always_fails_is_given_up_after_so_many_restarts_and_named() {
    for limit in [0, 1, 4] {
        for at in [At::Open, At::Write] {
            let directory = place();
            let sink = Flaky::new(at, usize::MAX);
            // Nothing but the first checkpoint completes, because no barrier can pass.
            let error = tests::run(to_flaky(&sink, directory.path().to_str().unwrap(), quickly(limit))).unwrap_err();
            let cause = "sink flaky: cannot reach /far/away: the line is down";
            match &error {
                Error::Sink { .. } => assert_eq!(limit, 0),
                Error::GaveUp { restarts, .. } => assert_eq!(*restarts, limit),
                other => panic!("{other}"),
            }
            assert!(error.to_string().contains(cause), "{error}");
            if limit > 0 {
                let gave_up = format!(r#"job "flaky" gave up after {limit} restarts without progress: "#);
                assert!(error.to_string().starts_with(&gave_up), "{error}");
            }
            assert_eq!(sink.rows.rows(), 0);
        }
    }
}

#[test]
fn progress_begins_the_count_anew() {
    on_two_threads(in_time(async {
        let directory = place();
        // It fails twenty times, each time after two more commits: the first of them is a checkpoint that is complete.
        let sink = Flaky { after_commits: 2, ..Flaky::new(At::Write, 20) };
        let job = Job::new("progress").channel_bytes(1);
        job.source(Sequence::endless().splits(2))
            .event_time("at", Watermarks::in_order())
            .select([col("value")])
            .sink(sink.clone());
        let job = job.checkpoint(directory.path().to_str().unwrap(), millis(1)).restarts(quickly(2));
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let failures = async {
            while sink.left.load(SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
            handle.stop();
        };
        let (ended, ()) = tokio::join!(running.wait(), failures);
        // It may have been stopped while it waited for its last restart.
        assert!(ended.is_ok() || ended.is_err_and(|error| matches!(error, Error::Sink { .. })));
        let mut values: Vec<i64> = tests::rows(&sink.rows.batches()).iter().map(|row| row.parse().unwrap()).collect();
        values.sort_unstable();
        let missing_or_twice = |split: i64| {
            let of_split = values.iter().filter(move |value| **value % 2 == split);
            of_split.zip(0..).find(|(value, at)| **value != 2 * at + split)
        };
        assert_eq!((missing_or_twice(0), missing_or_twice(1)), (None, None));
    }));
}

/// A source that is connected for a while, and brings nothing.
struct Drops(Arc<AtomicUsize>);

#[async_trait]
impl Source for Drops {
    fn name(&self) -> String {
        "drops".into()
    }

    fn schema(&self) -> Outcome<SchemaRef> {
        Sequence::new(0).schema()
    }

    async fn splits(&self) -> Outcome<Vec<SplitId>> {
        Ok(vec![SplitId::new("only")])
    }

    async fn reader(&self, _: Vec<(SplitId, Option<Position>)>) -> Outcome<Box<dyn SourceReader>> {
        self.0.fetch_add(1, SeqCst);
        Ok(Box::new(DropsReader))
    }
}

impl TypedSource for Drops {
    type Row = Untyped;
}

struct DropsReader;

#[async_trait]
impl SourceReader for DropsReader {
    async fn fetch(&mut self) -> Outcome<Fetch> {
        tokio::time::sleep(secs(100)).await;
        Err(ConnectorError::io("read from", "/a/broker", std::io::Error::other("it hung up")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_nothing_is_no_progress() {
    let (directory, readers) = (place(), Arc::new(AtomicUsize::new(0)));
    let job = Job::new("drops");
    job.source(Drops(readers.clone())).sink(MemorySink::new());
    let job = job.checkpoint(directory.path().to_str().unwrap(), secs(10));
    let job = job.restarts(Restarts::at_most(3).waiting(secs(1)..=secs(5)));
    let error = tokio::time::timeout(hours(24), job.run()).await.expect("it never gives up").unwrap_err();
    assert!(matches!(&error, Error::GaveUp { restarts: 3, .. }), "{error}");
    assert!(error.to_string().contains("cannot read from /a/broker: it hung up"), "{error}");
    // The first attempt took the checkpoint that every job begins with.
    assert!((4..=5).contains(&readers.load(SeqCst)), "{readers:?}");
}

#[test]
fn what_does_not_mend_itself_is_not_tried_again() {
    on_two_threads(in_time(async {
        let directory = place();
        let store = directory.path().to_str().unwrap();
        // A record that is rejected.
        let garbage = Timestamp::column(vec![1, i64::MAX]);
        let batch = RecordBatch::try_from_iter([("at", garbage)]).unwrap();
        let job = Job::new("rejected");
        job.source(MemorySource::batches(vec![batch])).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
        let error = job.checkpoint(store, millis(1)).restarts(after_hours()).run().await.unwrap_err();
        assert!(matches!(&error, Error::Rejected { .. }), "{error}");

        // A mistake in the plan, and one that only a sink can know.
        let job = Job::new("plan").parallelism(0);
        job.source(Sequence::new(1)).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
        let error = job.checkpoint(store, millis(1)).restarts(after_hours()).run().await.unwrap_err();
        assert!(matches!(&error, Error::Plan { .. }), "{error}");

        // A second process.
        let endless = || {
            let job = Job::new("locked");
            job.source(Sequence::endless()).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
            job.checkpoint(store, secs(1)).restarts(after_hours())
        };
        let running = endless().start().await.unwrap();
        let error = endless().run().await.unwrap_err();
        assert!(matches!(&error, Error::Checkpoint { error: CheckpointError::Locked { .. }, .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("another process runs this job: it holds ") && said.contains(store), "{said}");
        drop(running);

        // Without checkpoints there is nothing to go on from.
        let sink = Flaky::new(At::Write, 1);
        let job = Job::new("bare").restarts(after_hours());
        numbers(&job).sink(sink);
        assert!(matches!(job.run().await.unwrap_err(), Error::Sink { .. }));
    }));
}

#[test]
fn a_stop_while_it_waits_for_a_restart_does_not_wait() {
    on_two_threads(in_time(async {
        let directory = place();
        let sink = Flaky::new(At::Write, usize::MAX);
        let running = to_flaky(&sink, directory.path().to_str().unwrap(), after_hours()).start().await.unwrap();
        let handle = running.handle();
        let failed = async {
            while sink.left.load(SeqCst) == usize::MAX {
                tokio::task::yield_now().await;
            }
            handle.stop();
            std::future::pending().await
        };
        let error = tokio::select! { ended = running.wait() => ended.unwrap_err(), () = failed => return };
        assert!(error.to_string().contains("the line is down"), "{error}");
        // What the last checkpoint holds is what there is, and the job goes on from it.
        sink.left.store(0, SeqCst);
        to_flaky(&sink, directory.path().to_str().unwrap(), quickly(0)).run().await.unwrap();
        assert_eq!(tests::rows(&sink.rows.batches()), right_digits());
    }));
}

#[test]
fn the_waits_grow_and_are_bounded() {
    on_two_threads(in_time(async {
        let directory = place();
        let sink = Flaky::new(At::Open, 6);
        let restarts = Restarts::at_most(10).waiting(millis(2)..=millis(16));
        let began = std::time::Instant::now();
        to_flaky(&sink, directory.path().to_str().unwrap(), restarts).run().await.unwrap();
        // A write failed, and then six times the first writer could not be made: 2 + 4 + 8 + 4 * 16 ms.
        assert!(began.elapsed() >= Duration::from_millis(78));
        assert_eq!(tests::rows(&sink.rows.batches()), right_digits());
    }));
}
