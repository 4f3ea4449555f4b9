//! Watermarks in a running job, on a clock that stands still unless everything waits.

use std::sync::Arc;

use async_trait::async_trait;
use tests::{rows, topic::Topic};
use windrow::{
    JobHandle,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::{ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource},
    prelude::*,
};

fn batch(times: &[i64]) -> RecordBatch {
    let n = Int64Array::from_iter_values(times.iter().copied());
    let at = Timestamp::column(times.iter().map(|t| t * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("at", at)]).unwrap()
}

/// Counts per ten seconds, as rows `count`.
fn counting(job: &Job, source: impl TypedSource<Row = Untyped>, watermarks: Watermarks) -> MemorySink {
    let out = MemorySink::new();
    job.source(source)
        .event_time("at", watermarks)
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .select([col("count")])
        .sink(out.clone());
    out
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_task_that_wakes_behind_the_others_leave_as_late_rows() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let job = Job::new("wakes").parallelism(2);
    let (out, late_out) = (MemorySink::new(), MemorySink::new());
    let (counts, late) = job
        .source(source)
        .event_time("at", Watermarks::in_order().idle_after(secs(5)))
        .key_by("n")
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .with_late();
    counts.select([col("n")]).sink(out.clone());
    late.select([col("n")]).sink(late_out.clone());
    let running = job.start().await.unwrap();
    input.push(0, batch(&[1, 25]));
    until_watermark(&running.handle(), 25).await;
    input.push(1, batch(&[3, 26]));
    input.end_all();
    running.wait().await.unwrap();
    assert_eq!(rows(&out.batches()), ["1", "25", "26"]);
    assert_eq!(rows(&late_out.batches()), ["3"]);
}

/// Lets the job go on until the window operator has seen a watermark of `seconds`. With a paused clock a wait moves
/// time forward only when nothing else can run.
async fn until_watermark(job: &JobHandle, seconds: i64) {
    let reached = |micros: i64| {
        let metrics = job.metrics();
        // The first sink is that of the results; late rows carry no time.
        let mut sinks = metrics.named("sink");
        sinks.next().is_some_and(|sink| sink.watermark.is_some_and(|w| w.micros() >= micros))
    };
    while !reached(seconds * 1_000_000) {
        tokio::time::sleep(millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_split_keeps_windows_open_until_it_counts_as_idle() {
    for parallelism in [1, 2] {
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
        let job = Job::new("idle").parallelism(parallelism);
        let out = counting(&job, source, Watermarks::in_order().idle_after(secs(30)));
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let started = handle.elapsed();
        input.push(0, batch(&[1, 2, 25]));
        until_watermark(&handle, 25).await;
        assert!(handle.elapsed() - started >= secs(30), "not before the silence is long enough");
        assert_eq!(rows(&out.written()), ["2"], "the window [0, 10) is complete, [20, 30) is not");
        // It speaks again, behind the others: late, and no reason to go back.
        input.push(1, batch(&[3, 40]));
        input.end_all();
        let report = running.wait().await.unwrap();
        assert_eq!(rows(&out.batches()), ["1", "1", "2"]);
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        assert_eq!(late, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_split_whose_rows_cannot_be_read_is_not_idle_but_behind() {
    // A reader is asked once a second; who is about to be idle is asked for then.
    for idle_after in [millis(300), secs(30)] {
        for parallelism in [1, 2] {
            let topic = Topic::new(batch(&[]).schema(), 2, secs(1)).fixed();
            let job = Job::new("away").parallelism(parallelism);
            let out = counting(&job, topic.clone(), Watermarks::in_order().idle_after(idle_after));
            let running = job.start().await.unwrap();
            let late = || running.handle().metrics().operators.iter().map(|operator| operator.late).sum::<u64>();
            (0..2).for_each(|split| topic.push(split, batch(&[1])));
            tokio::time::sleep(millis(10)).await;
            topic.away(1, true);
            topic.push(1, batch(&[2, 11]));
            for second in 3..40 {
                topic.push(0, batch(&[second]));
                tokio::time::sleep(idle_after / 2).await;
            }
            assert_eq!((rows(&out.written()).len(), late()), (0, 0), "split 0 waits for it");
            topic.away(1, false);
            topic.push(0, batch(&[40]));
            tokio::time::sleep(millis(10)).await;
            assert_eq!(rows(&out.written()), ["10"], "[0, 10) is complete");
            // Nothing waits any more, so its silence counts, a second after it is known at the latest.
            for _ in 0..8 {
                tokio::time::sleep((idle_after + secs(1)) / 8).await;
                topic.push(0, batch(&[41]));
            }
            tokio::time::sleep(millis(10)).await;
            assert_eq!(rows(&out.written()), ["10", "10", "10", "11"]);
            topic.end_all();
            running.wait().await.unwrap();
            assert_eq!(rows(&out.batches()), ["10", "10", "10", "11", "9"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_that_goes_on_without_rows_wakes_nobody() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let job = Job::new("no-record");
    let out = counting(&job, source, Watermarks::in_order().idle_after(secs(30)));
    let running = job.start().await.unwrap();
    let handle = running.handle();
    input.push(0, batch(&[1, 25]));
    until_watermark(&handle, 25).await;
    let idle = handle.elapsed();
    input.push(1, batch(&[]));
    tokio::time::sleep(millis(10)).await;
    input.push(0, batch(&[40]));
    until_watermark(&handle, 40).await;
    assert!(handle.elapsed() - idle < secs(1), "{:?}", handle.elapsed() - idle);
    input.end_all();
    running.wait().await.unwrap();
    assert_eq!(rows(&out.batches()), ["1", "1", "1"]);
}

#[tokio::test]
async fn a_position_that_goes_on_without_rows_is_in_the_next_checkpoint() {
    let store = tempfile::tempdir().unwrap();
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("kept").checkpoint(store.path().to_str().unwrap(), millis(10));
    job.source(source).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let completed = || handle.metrics().checkpoints.completed;
    tokio::time::sleep(millis(300)).await;
    let before = completed();
    input.push(0, batch(&[]));
    let more = async {
        while completed() == before {
            tokio::time::sleep(millis(10)).await;
        }
    };
    tokio::time::timeout(secs(20), more).await.expect("a checkpoint");
    input.end_all();
    running.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_idleness_a_silent_split_holds_everything_to_the_end() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let job = Job::new("hold").parallelism(2);
    let out = counting(&job, source, Watermarks::in_order());
    let running = job.start().await.unwrap();
    input.push(0, batch(&[1, 2, 25]));
    tokio::time::sleep(hours(24)).await;
    assert_eq!(out.written().len(), 0);
    // The split ends: it holds nobody any more.
    input.push(1, batch(&[4]));
    input.end(1);
    until_watermark(&running.handle(), 25).await;
    assert_eq!(rows(&out.written()), ["3"]);
    input.end(0);
    running.wait().await.unwrap();
    assert_eq!(rows(&out.batches()), ["1", "3"]);
}

#[tokio::test(start_paused = true)]
async fn all_splits_idle_release_what_was_seen() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let job = Job::new("all-idle");
    let out = counting(&job, source, Watermarks::out_of_order(secs(5)).idle_after(secs(1)));
    let running = job.start().await.unwrap();
    input.push(0, batch(&[3]));
    input.push(1, batch(&[17]));
    until_watermark(&running.handle(), 12).await;
    assert_eq!(rows(&out.written()), ["1"], "[0, 10) is complete at 17 s less 5 s");
    input.end_all();
    running.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn watermarks_are_per_split_not_per_task() {
    // One task reads both splits; the second is far behind, and in order by itself.
    let splits = vec![vec![batch(&[100, 110, 120])], vec![batch(&[1, 11]), batch(&[21, 31])]];
    let job = Job::new("per-split");
    let out = counting(&job, MemorySource::new(batch(&[]).schema(), splits), Watermarks::in_order());
    let report = job.run().await.unwrap();
    assert_eq!(rows(&out.batches()), ["1"; 7]);
    assert!(report.metrics.operators.iter().all(|operator| operator.late == 0));
}

/// A source that is always ready with rows of one split and never has any of the other.
struct OneBusySplit;

#[async_trait]
impl Source for OneBusySplit {
    fn name(&self) -> String {
        "one busy split".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(batch(&[]).schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok(["busy", "silent"].map(SplitId::new).to_vec())
    }

    async fn reader(&self, _: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(BusyReader(0)))
    }
}

impl TypedSource for OneBusySplit {
    type Row = Untyped;
}

struct BusyReader(i64);

#[async_trait]
impl SourceReader for BusyReader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        self.0 += 1;
        let (split, next) = (SplitId::new("busy"), Position(self.0 as u64));
        let (batch, rejected) = (batch(&[self.0]), Vec::new());
        Ok(Fetch::Rows(Rows { split, batch, rejected, passed_over: 0, next, origins: None }))
    }
}

#[test]
fn a_split_that_is_always_ready_does_not_hide_the_silence_of_another() {
    tests::on_two_threads(async {
        let job = Job::new("busy");
        let out = MemorySink::new();
        job.source(OneBusySplit)
            .event_time("at", Watermarks::in_order().idle_after(millis(5)))
            .window(Tumbling::of(secs(10)))
            .aggregate([count()])
            .drop_late()
            .sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        while handle.metrics().named("sink").all(|sink| sink.rows_in == 0) {
            tokio::task::yield_now().await;
        }
        handle.stop();
        assert!(running.wait().await.unwrap().stopped);
    });
}
