//! Sources that wait for each other: what is ahead in event time is not read, whoever is silent holds nobody, and the
//! answer is the same. On a clock that stands still unless everything waits.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use tests::rows;
use windrow::{
    JobHandle,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::{
        ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource, memory::MemoryInput,
    },
    metrics::OperatorMetrics,
    prelude::*,
};

const DRIFT: i64 = 10;

fn batch(seconds: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(seconds.iter().copied()));
    let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

/// One row a second, each in a batch of its own.
fn seconds(range: std::ops::Range<i64>) -> Vec<RecordBatch> {
    range.map(|second| batch(&[second])).collect()
}

fn memory(splits: Vec<Vec<RecordBatch>>) -> MemorySource {
    MemorySource::new(batch(&[]).schema(), splits)
}

fn aligned() -> Watermarks {
    Watermarks::in_order().align_within(secs(DRIFT as u64))
}

/// The counts per minute of two sources together.
fn counting(
    job: &Job,
    left: impl TypedSource<Row = Untyped>,
    right: impl TypedSource<Row = Untyped>,
    watermarks: &Watermarks,
) -> MemorySink {
    let out = MemorySink::new();
    let left = job.source(left).event_time("at", watermarks.clone());
    left.union(job.source(right).event_time("at", watermarks.clone()))
        .window(Tumbling::of(mins(1)))
        .aggregate([count()])
        .drop_late()
        .select([col("window_start"), col("count")])
        .sink(out.clone());
    out
}

fn source(job: &JobHandle, number: usize) -> OperatorMetrics {
    job.metrics().named("source").nth(number).unwrap().clone()
}

fn latest(job: &JobHandle, number: usize) -> i64 {
    source(job, number).latest.map_or(i64::MIN, |latest| latest.micros() / 1_000_000)
}

/// Lets everything run that can.
async fn settle() {
    tokio::time::sleep(millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_fast_source_stays_near_a_slow_one_and_the_answer_is_the_same() {
    let mut answers = Vec::new();
    for (watermarks, parallelism) in [(Watermarks::in_order(), 1), (aligned(), 1), (aligned(), 3)] {
        let is_aligned = watermarks.to_string().contains("aligned");
        let (input, slow) = MemorySource::by_hand(batch(&[]).schema(), 2);
        let fast = memory(vec![seconds(0..300), seconds(100..400)]);
        let job = Job::new("fast-and-slow").parallelism(parallelism);
        let out = counting(&job, slow, fast, &watermarks);
        let running = job.start().await.unwrap();
        let handle = running.handle();
        for second in 0..300 {
            input.push(0, batch(&[second]));
            input.push(1, batch(&[second]));
            settle().await;
            let ahead = latest(&handle, 1) - second;
            // A batch of it is one second.
            assert!(!is_aligned || second < 100 || ahead <= DRIFT + 1, "{ahead} s ahead at {second}");
            if is_aligned && second == 150 {
                let told = source(&handle, 1).paused.join("; ");
                assert!(told.contains("more than 10s ahead of split"), "{told}");
                assert!(told.contains("of #1 source memory"), "{told}");
                assert!(source(&handle, 0).paused.is_empty());
                assert!(handle.metrics().to_string().contains("not read: split"), "{}", handle.metrics());
            }
        }
        input.end_all();
        let report = running.wait().await.unwrap();
        assert!(report.metrics.operators.iter().all(|operator| operator.late == 0 && operator.paused.is_empty()));
        answers.push(rows(&out.batches()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

/// A job in which 300 s of a source wait for a source of `splits` splits that `behave`s.
async fn with_another(splits: usize, watermarks: Watermarks, behave: impl AsyncFn(&MemoryInput, &JobHandle)) {
    for parallelism in [1, 2, 4] {
        let (input, other) = MemorySource::by_hand(batch(&[]).schema(), splits);
        let job = Job::new("other").parallelism(parallelism);
        let out = counting(&job, other, memory(vec![seconds(0..300), seconds(0..300)]), &watermarks);
        let running = job.start().await.unwrap();
        settle().await;
        behave(&input, &running.handle()).await;
        input.end_all();
        let ended = tokio::time::timeout(mins(1), running.wait()).await;
        ended.expect("it waits for nobody").unwrap();
        assert!(out.rows() >= 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_said_nothing_yet_holds_the_others() {
    with_another(1, aligned(), async |_, job| assert!(source(job, 1).rows_in <= 4)).await;
}

#[tokio::test(start_paused = true)]
async fn idle_splits_hold_nobody() {
    with_another(2, aligned().idle_after(secs(5)), async |input, job| {
        input.push(0, batch(&[1]));
        settle().await;
        assert!(source(job, 1).rows_in < 30, "not yet");
        // Split 1 first, and then split 0, which may have been waiting for it and could not be heard until then.
        tokio::time::sleep(secs(11)).await;
        assert_eq!(source(job, 1).rows_in, 600);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ended_splits_hold_nobody() {
    with_another(2, aligned(), async |input, job| {
        input.push(0, batch(&[1]));
        input.push(1, batch(&[100]));
        input.end(0);
        settle().await;
        assert!((200..240).contains(&source(job, 1).rows_in), "the other split holds it");
        input.end(1);
        settle().await;
        assert_eq!(source(job, 1).rows_in, 600);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_source_without_splits_holds_nobody() {
    with_another(0, aligned(), async |_, job| assert_eq!(source(job, 1).rows_in, 600)).await;
}

#[tokio::test(start_paused = true)]
async fn sources_of_which_one_is_not_aligned_do_not_wait_for_it() {
    let (input, silent) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("alone");
    job.source(silent).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
    let out = MemorySink::new();
    job.source(memory(vec![seconds(0..300), seconds(0..50)])).event_time("at", aligned()).sink(out.clone());
    let running = job.start().await.unwrap();
    settle().await;
    assert_eq!(source(&running.handle(), 1).rows_in, 350);
    input.end_all();
    running.wait().await.unwrap();
}

/// Reads its splits one after the other, and cannot leave one out.
struct OneAfterTheOther(Vec<Vec<RecordBatch>>);

#[async_trait]
impl Source for OneAfterTheOther {
    fn name(&self) -> String {
        "one after the other".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(batch(&[]).schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok((0..self.0.len()).map(|split| SplitId::new(split.to_string())).collect())
    }

    async fn reader(&self, splits: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let batches = |id: &SplitId| self.0[id.as_str().parse::<usize>().unwrap()].clone().into();
        Ok(Box::new(InOrder(splits.into_iter().map(|(id, _)| (batches(&id), id, 0)).collect())))
    }
}

impl TypedSource for OneAfterTheOther {
    type Row = Untyped;
}

struct InOrder(VecDeque<(VecDeque<RecordBatch>, SplitId, u64)>);

#[async_trait]
impl SourceReader for InOrder {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        let Some((batches, split, next)) = self.0.front_mut() else { return Ok(Fetch::End) };
        let split = split.clone();
        let Some(batch) = batches.pop_front() else {
            self.0.pop_front();
            return Ok(Fetch::SplitEnd(split));
        };
        *next += 1;
        let (rejected, next) = (Vec::new(), Position(*next));
        Ok(Fetch::Rows(Rows { split, batch, rejected, passed_over: 0, next, origins: None }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_one_split_after_the_other_is_not_made_to_wait_for_what_it_has_not_begun() {
    // The splits of one are behind each other, before each other, and beside those of the other source.
    let layouts = [vec![0..300, 0..300, 0..300], vec![600..900, 300..600, 0..300], vec![0..300, 300..600, 600..900]];
    for (one, other) in (0..3).flat_map(|one| (0..3).map(move |other| (one, other))) {
        let splits = |layout: usize| layouts[layout].iter().cloned().map(seconds).collect::<Vec<_>>();
        for parallelism in [1, 2, 3] {
            for reads_together in [true, false] {
                let job = Job::new("in-order").parallelism(parallelism);
                let (left, out) = (OneAfterTheOther(splits(one)), MemorySink::new());
                let left = job.source(left).event_time("at", aligned());
                let right = match reads_together {
                    true => job.source(OneAfterTheOther(splits(other))).event_time("at", aligned()),
                    false => job.source(memory(splits(other))).event_time("at", aligned()),
                };
                left.union(right).sink(out.clone());
                let ended = tokio::time::timeout(mins(1), job.run()).await;
                ended.unwrap_or_else(|_| panic!("{one} and {other} wait for each other")).unwrap();
                assert_eq!(out.rows(), 1_800);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_cannot_leave_out_a_split_waits_as_a_whole() {
    let (input, slow) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("whole");
    let out = counting(&job, slow, OneAfterTheOther(vec![seconds(0..300), seconds(0..20)]), &aligned());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    for second in 0..100 {
        input.push(0, batch(&[second]));
        settle().await;
        assert!(latest(&handle, 1) <= second + DRIFT + 1, "{} at {second}", latest(&handle, 1));
    }
    let told = source(&handle, 1).paused.join("; ");
    assert_eq!(told, "splits 0, 1: more than 10s ahead of split 0 of #1 source memory");
    input.end_all();
    running.wait().await.unwrap();
    assert_eq!(out.rows(), 5);
}

#[tokio::test(start_paused = true)]
async fn more_files_than_are_open_at_once_are_read_to_their_end() {
    let directory = tempfile::tempdir().unwrap();
    // A file per 5 s, named so that they are found in the wrong order.
    for file in 0..150_i64 {
        let lines = (0..5).map(|i| format!("{{\"n\": {i}, \"at\": {}}}\n", (file * 5 + i) * 1_000_000));
        std::fs::write(directory.path().join(format!("{:03}.jsonl", 149 - file)), lines.collect::<String>()).unwrap();
    }
    let pattern = directory.path().join("*.jsonl");
    for parallelism in [1, 2] {
        let job = Job::new("files").parallelism(parallelism);
        let files = File::pattern(pattern.to_str().unwrap()).batch_rows(2).json_with(batch(&[]).schema());
        let out = counting(&job, memory(vec![seconds(0..750)]), files, &aligned());
        tokio::time::timeout(mins(5), job.run()).await.expect("it does not hang").unwrap();
        let counts: Vec<_> = rows(&out.batches()).iter().map(|row| row.split_once('|').unwrap().1.to_owned()).collect();
        assert_eq!(counts.len(), 13);
        assert_eq!(counts.iter().filter(|count| *count == "120").count(), 12);
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_and_a_stop_go_on_while_a_source_waits_and_it_waits_again_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let (input, slow) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let fast = memory(vec![seconds(0..300)]);
    let out = MemorySink::new();
    let start = async |parallelism| {
        let job = Job::new("saved").parallelism(parallelism);
        let (left, right) = (job.source(slow.clone()), job.source(fast.clone()));
        let left = left.event_time("at", aligned().idle_after(hours(1)));
        left.union(right.event_time("at", aligned().idle_after(secs(1)))).sink(out.clone());
        job.checkpoint(store, hours(1)).start().await.unwrap()
    };
    let running = start(1).await;
    input.push(0, batch(&[50]));
    // Much longer than a split may be silent that is read.
    tokio::time::sleep(secs(60)).await;
    let handle = running.handle();
    assert_eq!(latest(&handle, 1), 50 + DRIFT + 1);
    assert_eq!(source(&handle, 1).paused.len(), 1);
    handle.savepoint("waiting").await.unwrap();
    handle.stop();
    assert!(running.wait().await.unwrap().stopped);
    let running = start(2).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(source(&running.handle(), 1).rows_in, 0, "it is as far ahead as it was");
    input.push(0, batch(&[70]));
    settle().await;
    assert_eq!(latest(&running.handle(), 1), 70 + DRIFT + 1);
    input.end_all();
    running.wait().await.unwrap();
    assert_eq!(out.rows(), 302);
}
