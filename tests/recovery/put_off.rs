//! Splits that cannot be read for a while: no other waits for them, they begin where they would have, and what is decided late is
//! kept at once. On a clock that stands still unless everything waits.
//!
//! ```text
//!   a job begins     p0 is read     p1 is put off … has a leader: where it begins and ends is decided ──► a checkpoint
//!   a crash          p0             p1: the same, whatever has come since
//! ```

use std::time::Duration;

use async_trait::async_trait;
use tests::{
    rows,
    topic::{Mood, Topic, batch, right},
};
use windrow::{
    Error, JobHandle, Report, Restarts, RunningJob,
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
};

use super::lives::{place, start};

/// What outlives a job of two partitions, with a record each. It has no checkpoints but those that something makes it take.
struct Late {
    directory: tempfile::TempDir,
    topic: Topic,
    out: MemorySink,
    parallelism: usize,
}

impl Late {
    fn new(parallelism: usize, topic: impl Fn(Topic) -> Topic) -> Self {
        let topic = topic(Topic::new(batch(&[]).schema(), 2, millis(50)));
        (0..2).for_each(|partition| topic.push(partition, batch(&[partition as i64])));
        Self { directory: place(), topic, out: MemorySink::new(), parallelism }
    }

    fn job(&self) -> Job {
        let job = Job::new("late").parallelism(self.parallelism).restarts(Restarts::never());
        job.source(self.topic.clone()).sink(self.out.clone());
        job.checkpoint(self.directory.path().to_str().unwrap(), hours(100))
    }

    async fn start(&self) -> RunningJob {
        let running = start(|| self.job()).await.unwrap();
        soon().await;
        running
    }

    /// Runs it to the end of its input.
    async fn finish(&self) -> Report {
        let running = self.start().await;
        self.topic.end_all();
        tokio::time::timeout(hours(1), running.wait()).await.expect("it hangs").unwrap()
    }

    fn assert(&self, expected: &[i64]) {
        assert_eq!(rows(&self.out.batches()), rows(&[batch(expected)]));
    }
}

/// Everything happens that can.
async fn soon() {
    tokio::time::sleep(millis(100)).await;
}

/// What was put off has been asked for again.
async fn asked_again() {
    tokio::time::sleep(Duration::from_millis(5_100)).await;
}

fn completed(job: &JobHandle) -> u64 {
    job.metrics().checkpoints.completed
}

fn read(job: &JobHandle) -> u64 {
    job.metrics().named("source").map(|source| source.rows_in).sum()
}

#[tokio::test(start_paused = true)]
async fn one_without_a_leader_at_the_start_begins_later_and_once() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, Topic::latest);
        late.topic.leaderless(1, true);
        let running = late.start().await;
        let handle = running.handle();
        late.topic.push(0, batch(&[2]));
        soon().await;
        assert_eq!((read(&handle), completed(&handle)), (1, 1), "the other is read");
        let warnings = handle.warnings().concat();
        assert!(warnings.contains("1 split is not read yet, and asked for again: the broker"), "{warnings}");
        late.topic.leaderless(1, false);
        asked_again().await;
        assert_eq!(completed(&handle), 2, "it is kept where it begins");
        assert_eq!(handle.warnings(), Vec::<String>::new());
        drop(running);
        late.topic.push(1, batch(&[3]));
        late.finish().await;
        late.assert(&[2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_no_life_could_read_begins_in_the_first_that_can() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, Topic::latest);
        late.topic.leaderless(1, true);
        drop(late.start().await);
        let running = late.start().await;
        assert_eq!(completed(&running.handle()), 0, "nothing is new");
        drop(running);
        late.topic.leaderless(1, false);
        let running = late.start().await;
        assert_eq!(completed(&running.handle()), 1, "where it begins is");
        drop(running);
        late.topic.push(1, batch(&[3]));
        late.finish().await;
        late.assert(&[3]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_read_before_goes_on_where_it_was() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, |topic| topic);
        let running = late.start().await;
        running.handle().stop_with_savepoint("read").await.unwrap();
        running.wait().await.unwrap();
        late.topic.leaderless(1, true);
        late.topic.push(0, batch(&[2]));
        late.topic.push(1, batch(&[3]));
        let running = late.start().await;
        assert_eq!(read(&running.handle()), 1);
        // It is in a checkpoint in which it was not read.
        running.handle().stop_with_savepoint("put-off").await.unwrap();
        running.wait().await.unwrap();
        late.topic.leaderless(1, false);
        late.finish().await;
        late.assert(&[0, 1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bounded_job_does_not_end_without_it_and_ends_once() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, Topic::bounded);
        late.topic.leaderless(1, true);
        let mut running = late.start().await;
        let handle = running.handle();
        asked_again().await;
        assert_eq!((read(&handle), completed(&handle)), (1, 1), "it waits for the other");
        // Nor in a later life.
        drop(running);
        running = late.start().await;
        let handle = running.handle();
        asked_again().await;
        assert_eq!(read(&handle), 1);
        // It is decided where it ends, and a crash comes before it is read.
        late.topic.away(1, true);
        late.topic.leaderless(1, false);
        asked_again().await;
        assert_eq!((read(&handle), completed(&handle)), (1, 1));
        drop(running);
        late.topic.push(1, batch(&[2]));
        late.topic.away(1, false);
        let ended = tokio::time::timeout(hours(1), late.start().await.wait()).await.expect("it hangs").unwrap();
        assert_eq!(ended.warnings, Vec::<String>::new());
        late.assert(&[0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_job_that_becomes_bounded_keeps_its_ends_at_once() {
    for parallelism in [1, 2] {
        let mut late = Late::new(parallelism, Topic::fixed);
        drop(late.start().await);
        late.topic.away(1, true);
        late.topic = late.topic.clone().bounded();
        let running = late.start().await;
        assert_eq!(completed(&running.handle()), 1);
        drop(running);
        late.topic.push(0, batch(&[2]));
        late.topic.push(1, batch(&[3]));
        late.topic.away(1, false);
        let ended = tokio::time::timeout(hours(1), late.start().await.wait()).await.expect("it hangs").unwrap();
        assert_eq!(ended.warnings, Vec::<String>::new());
        late.assert(&[0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_bounded_job_never_reads_is_named() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, Topic::bounded);
        late.topic.away(1, true);
        drop(late.start().await);
        (0..12).for_each(|_| late.topic.push(late.topic.add(), batch(&[2])));
        let named = "#1 source topic: not read, because the job reads what there was when it began, and they have come since: p2, p3, p4, p5, \
                     p6, p7, p8, p9, p10, p11 and 2 more. To read them, start another job, with a name of its own";
        // At every start.
        for _ in 0..2 {
            let running = late.start().await;
            assert_eq!(running.handle().warnings(), [named]);
            drop(running);
        }
        late.topic.away(1, false);
        let ended = tokio::time::timeout(hours(1), late.start().await.wait()).await.expect("it hangs").unwrap();
        assert_eq!(ended.warnings, [named]);
        late.assert(&[0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_bounded_job_did_not_read_it_reads_when_it_is_endless() {
    for parallelism in [1, 2] {
        let mut late = Late::new(parallelism, Topic::bounded);
        late.topic.away(1, true);
        drop(late.start().await);
        late.topic.push(late.topic.add(), batch(&[2]));
        // It is in a checkpoint of this life.
        let running = late.start().await;
        assert_eq!(completed(&running.handle()), 1);
        drop(running);
        late.topic.away(1, false);
        late.topic.push(0, batch(&[3]));
        late.topic = late.topic.clone().unwatched().latest();
        assert_eq!(late.finish().await.warnings, Vec::<String>::new());
        late.assert(&[0, 1, 2, 3]);
    }
}

/// How a job begins that counts in windows, and what becomes of what is late.
struct Counting {
    topic: Topic,
    out: MemorySink,
    late: MemorySink,
}

impl Counting {
    fn new(topic: Topic) -> Self {
        Self { topic, out: MemorySink::new(), late: MemorySink::new() }
    }

    async fn start(&self, watermarks: &Watermarks, parallelism: usize, store: &str) -> RunningJob {
        let job = Job::new("late").parallelism(parallelism).restarts(Restarts::never());
        let rows = job.source(self.topic.clone()).event_time("at", watermarks.clone()).key_by("n");
        let (counts, late) = rows.window(Tumbling::of(secs(10))).aggregate([count()]).with_late();
        counts.select(["window_start", "n", "count"].map(col)).sink(self.out.clone());
        late.sink(self.late.clone());
        job.checkpoint(store, hours(100)).start().await.unwrap()
    }

    /// The first partition goes on, a second per second.
    async fn goes_on(&self, seconds: std::ops::Range<i64>) {
        for second in seconds {
            self.topic.push(0, batch(&[second]));
            tokio::time::sleep(secs(1)).await;
        }
    }

    async fn finish(&self, running: RunningJob) -> Vec<String> {
        self.topic.end_all();
        tokio::time::timeout(hours(1), running.wait()).await.expect("it hangs").unwrap();
        assert_eq!(rows(&self.late.batches()), Vec::<String>::new(), "nothing is late");
        rows(&self.out.batches())
    }
}

fn aligned(watermarks: Watermarks) -> [Watermarks; 3] {
    let idle = watermarks.clone().idle_after(secs(2));
    [watermarks, idle.clone().align_within(secs(5)), idle]
}

#[tokio::test(start_paused = true)]
async fn event_time_waits_for_one_that_is_put_off() {
    for (parallelism, watermarks) in
        [1, 2].into_iter().flat_map(|tasks| aligned(Watermarks::in_order()).map(|w| (tasks, w)))
    {
        for appears in [false, true] {
            let (place, case) = (place(), format!("{parallelism} tasks, {watermarks}, appears: {appears}"));
            let store = place.path().to_str().unwrap();
            let counting = Counting::new(Topic::new(batch(&[]).schema(), 2 - usize::from(appears), millis(50)));
            let mut running = None;
            if appears {
                running = Some(counting.start(&watermarks, parallelism, store).await);
                soon().await;
                assert_eq!(counting.topic.add(), 1);
            }
            counting.topic.leaderless(1, true);
            counting.topic.push(1, batch(&[1, 2, 3]));
            let mut running = match running {
                Some(running) => running,
                None => counting.start(&watermarks, parallelism, store).await,
            };
            soon().await;
            counting.goes_on(1..31).await;
            assert_eq!(rows(&counting.out.written()), Vec::<String>::new(), "{case}");
            let warnings = running.handle().warnings().concat();
            assert!(
                warnings.contains("1 split is not read yet, holds event time back, and is asked for again"),
                "{warnings}"
            );
            // Nor does it in a later life.
            running.handle().stop_with_savepoint("put-off").await.unwrap();
            running.wait().await.unwrap();
            running = counting.start(&watermarks, parallelism, store).await;
            counting.goes_on(31..41).await;
            assert_eq!(rows(&counting.out.written()), Vec::<String>::new(), "{case}");
            counting.topic.leaderless(1, false);
            counting.goes_on(41..101).await;
            let idles = watermarks.to_string().contains("idle");
            assert_eq!(rows(&counting.out.written()).is_empty(), !idles, "{case}: its silence counts from now");
            assert_eq!(counting.finish(running).await, right(&(1..101).chain(1..4).collect::<Vec<_>>()), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn event_time_does_not_wait_for_one_that_begins_behind_all_there_is() {
    for parallelism in [1, 2] {
        let place = place();
        let counting = Counting::new(Topic::new(batch(&[]).schema(), 2, millis(50)).latest());
        counting.topic.push(1, batch(&[1, 2, 3]));
        counting.topic.leaderless(1, true);
        let watermarks = Watermarks::in_order().idle_after(secs(2));
        let running = counting.start(&watermarks, parallelism, place.path().to_str().unwrap()).await;
        soon().await;
        counting.goes_on(1..31).await;
        assert!(rows(&counting.out.written()).len() >= 10, "two windows of five keys");
        let warnings = running.handle().warnings().concat();
        assert!(warnings.contains("1 split is not read yet, and asked for again"), "{warnings}");
        counting.topic.leaderless(1, false);
        tokio::time::sleep(mins(1)).await;
        counting.topic.push(1, batch(&[31]));
        soon().await;
        assert_eq!(counting.finish(running).await, right(&(1..32).collect::<Vec<_>>()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_fails_at_its_start_only_if_nobody_answers_for_any_of_it() {
    for parallelism in [1, 2, 3] {
        let late = Late::new(parallelism, |topic| topic);
        late.topic.hangs(1, true);
        let running = late.start().await;
        assert_eq!(read(&running.handle()), 1, "{parallelism} tasks: the other is read");
        assert!(running.handle().warnings().concat().contains("1 split is not read yet"));
        running.handle().stop_with_savepoint("one").await.unwrap();
        running.wait().await.unwrap();
        // Nobody says anything of the rest.
        for leaderless in [false, true] {
            late.topic.leaderless(0, leaderless);
            late.topic.hangs(0, !leaderless);
            let error = late.job().start().await.map(drop).unwrap_err().to_string();
            assert_eq!(error, "#1 source topic: the broker: it is in a bad mood", "{parallelism} tasks");
        }
        // Nobody can be asked: it waits.
        late.topic.leaderless(0, true);
        late.topic.leaderless(1, true);
        late.topic.hangs(0, false);
        late.topic.hangs(1, false);
        let running = late.start().await;
        late.topic.leaderless(0, false);
        late.topic.leaderless(1, false);
        late.topic.end_all();
        tokio::time::timeout(hours(1), running.wait()).await.expect("it hangs").unwrap();
        late.assert(&[0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_no_answer() {
    for parallelism in [1, 2] {
        let late = Late::new(parallelism, Topic::bounded);
        late.topic.leaderless(1, true);
        let running = late.start().await;
        running.handle().stop_with_savepoint("half").await.unwrap();
        running.wait().await.unwrap();
        late.topic.leaderless(1, false);
        late.topic.hangs(1, true);
        assert!(late.job().start().await.is_err());
        late.topic.hangs(1, false);
        late.finish().await;
        late.assert(&[0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn all_tasks_of_a_job_ask_at_once_and_its_first_checkpoint_has_its_time() {
    let topics = [(); 2].map(|()| Topic::new(batch(&[]).schema(), 5, millis(50)));
    let (directory, out) = (place(), MemorySink::new());
    let job = Job::new("slow").parallelism(4).restarts(Restarts::never());
    for topic in &topics {
        (0..5).for_each(|partition| topic.push(partition, batch(&[partition as i64])));
        (0..4).for_each(|partition| topic.hangs(partition, true));
        job.source(topic.clone()).sink(out.clone());
    }
    let job = job.checkpoint(directory.path().to_str().unwrap(), hours(1)).checkpoint_timeout(secs(10));
    let begun = tokio::time::Instant::now();
    let running = job.start().await.unwrap();
    // A task with two of them asks for 40 s.
    assert!(begun.elapsed() < secs(41), "{:?}", begun.elapsed());
    soon().await;
    assert_eq!((read(&running.handle()), completed(&running.handle())), (2, 1));
    for topic in &topics {
        (0..4).for_each(|partition| topic.hangs(partition, false));
        topic.end_all();
    }
    tokio::time::timeout(hours(1), running.wait()).await.expect("it hangs").unwrap();
    assert_eq!(out.rows(), 10);
}

#[tokio::test(start_paused = true)]
async fn who_is_put_off_is_asked_less_and_less_often() {
    let late = Late::new(1, |topic| topic);
    late.topic.leaderless(1, true);
    let running = late.start().await;
    // At 5, 10, 20, 40, 80, 140, 200, … seconds.
    tokio::time::sleep(secs(150)).await;
    late.topic.leaderless(1, false);
    tokio::time::sleep(secs(49)).await;
    assert_eq!(read(&running.handle()), 1);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(read(&running.handle()), 2);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn tasks_do_not_erase_what_others_say() {
    let late = Late::new(2, |topic| topic);
    (0..2).for_each(|partition| late.topic.leaderless(partition, true));
    let running = late.start().await;
    let handle = running.handle();
    assert_eq!(handle.warnings().len(), 1, "two tasks say the same: {:?}", handle.warnings());
    late.topic.leaderless(0, false);
    late.topic.mood(Mood::Fails);
    asked_again().await;
    let warnings = handle.warnings();
    assert!(warnings.len() == 2, "{warnings:?}");
    assert!(warnings[0].contains("1 split is not read yet") || warnings[1].contains("1 split is not read yet"));
    late.topic.mood(Mood::Well);
    asked_again().await;
    assert_eq!(handle.warnings().len(), 1, "{:?}", handle.warnings());
    late.topic.leaderless(1, false);
    tokio::time::sleep(mins(1)).await;
    assert_eq!(handle.warnings(), Vec::<String>::new());
    drop(running);
}

/// Takes rows, and fails a second later.
struct Failing;

#[async_trait]
impl Sink for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl SinkWriter for Failing {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        tokio::time::sleep(secs(1)).await;
        Err(ConnectorError::io("reach", "/far/away", std::io::Error::other("the line is down")))
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_where_splits_begin_is_no_progress() {
    let (topic, directory) = (Topic::new(batch(&[]).schema(), 1, millis(50)), place());
    let job = || {
        let job = Job::new("late").restarts(Restarts::at_most(3).waiting(secs(1)..=secs(1)));
        job.source(topic.clone()).sink(Failing);
        job.checkpoint(directory.path().to_str().unwrap(), hours(1))
    };
    let running = start(job).await.unwrap();
    soon().await;
    assert_eq!(completed(&running.handle()), 1);
    drop(running);
    // It is in no checkpoint, so every start takes one at once.
    topic.leaderless(topic.add(), true);
    topic.push(0, batch(&[1]));
    let running = start(job).await.unwrap();
    let handle = running.handle();
    soon().await;
    assert_eq!((read(&handle), completed(&handle)), (1, 1));
    let error = tokio::time::timeout(secs(30), running.wait()).await.expect("it starts again for ever").unwrap_err();
    assert!(matches!(&error, Error::GaveUp { restarts: 3, .. }), "{error}");
}
