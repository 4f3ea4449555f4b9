//! Small batches that a source has ready go through a job as one, and no answer depends on it.

use std::sync::Arc;

use tests::{on_two_threads, rows, run};
use windrow::{
    arrow::{
        array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch},
        datatypes::{Int8Type, SchemaRef},
    },
    connectors::{
        ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource, Untyped, async_trait,
    },
    prelude::*,
};

#[derive(Record)]
struct Row {
    n: i64,
}

/// Rows of these seconds.
fn batch(seconds: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from(seconds.to_vec()));
    let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

/// How many rows the batches have that leave a job which takes these.
fn lengths(source: impl TypedSource<Row = Untyped>) -> Vec<usize> {
    let (job, out) = (Job::new("together"), MemorySink::new());
    job.source(source).event_time("at", Watermarks::in_order()).filter_expr(col("n").gt_eq(lit(0))).sink(out.clone());
    run(job).unwrap();
    out.batches().iter().map(RecordBatch::num_rows).collect()
}

/// So many batches of so many rows.
fn batches(count: i64, length: i64) -> MemorySource {
    let of = |first: i64| batch(&(first..first + length).collect::<Vec<_>>());
    MemorySource::batches((0..count).map(|number| of(number * length)).collect())
}

#[test]
fn small_batches_that_are_ready_are_one_and_others_stay_as_they_are() {
    // The first goes alone, and how many go together depends on how long those before took.
    let together = lengths(batches(200, 10));
    assert!(together.len() < 150 && together.iter().sum::<usize>() == 2_000, "{together:?}");
    assert!(together.iter().all(|length| *length <= 640), "as many fetches as one waits for: {together:?}");
    assert_eq!(lengths(batches(50, 10).one_by_one()), [10; 50]);
    assert_eq!(lengths(batches(4, 2_000)), [2_000; 4]);
    let many = lengths(batches(60, 1_000));
    assert!(many.iter().all(|length| *length <= 9_000), "as many rows as are enough: {many:?}");
}

#[test]
fn a_stream_without_event_time_is_taken_together_too() {
    let (job, out) = (Job::new("timeless"), MemorySink::new());
    job.source(batches(200, 10)).filter_expr(col("n").gt_eq(lit(0))).sink(out.clone());
    run(job).unwrap();
    assert!(out.rows() == 2_000 && out.batches().len() < 150, "{}", out.batches().len());
}

#[test]
fn rows_that_take_long_do_not_go_together() {
    let (job, out) = (Job::new("slow"), MemorySink::new());
    let slow = |_: RowView<'_>| {
        std::thread::sleep(std::time::Duration::from_millis(6));
        true
    };
    job.source(batches(20, 2)).typed::<Row>().filter(slow).sink(out.clone());
    run(job).unwrap();
    assert_eq!(out.batches().iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2; 20]);
}

/// One row, and then records for ever that are none.
struct Chatter;

struct Chatting(u64);

#[async_trait]
impl Source for Chatter {
    fn name(&self) -> String {
        "chatter".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(batch(&[]).schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok(vec![SplitId::new("all")])
    }

    async fn reader(&self, _: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(Chatting(0)))
    }
}

impl TypedSource for Chatter {
    type Row = Untyped;
}

#[async_trait]
impl SourceReader for Chatting {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        self.0 += 1;
        let batch = if self.0 == 1 { batch(&[1]) } else { batch(&[]) };
        let (split, next) = (SplitId::new("all"), Position(self.0));
        Ok(Fetch::Rows(Rows { split, batch, rejected: Vec::new(), passed_over: 1, next, origins: None }))
    }
}

#[test]
fn rows_do_not_wait_for_more_for_ever() {
    let (job, out) = (Job::new("chatter"), MemorySink::new());
    job.source(Chatter).event_time("at", Watermarks::in_order()).sink(out.clone());
    on_two_threads(async {
        let running = job.start().await.unwrap();
        while out.written().is_empty() {
            tokio::task::yield_now().await;
        }
        running.handle().stop();
        running.wait().await.unwrap();
    });
}

#[test]
fn numbers_of_dictionaries_are_not_joined() {
    let named = |name: &str| {
        let names: DictionaryArray<Int8Type> = [name; 3].into_iter().collect();
        let columns = [("n", batch(&[1, 1, 1]).column(0).clone()), ("name", Arc::new(names) as ArrayRef)];
        let with_time = columns.into_iter().chain([("at", batch(&[1, 1, 1]).column(1).clone())]);
        RecordBatch::try_from_iter(with_time).unwrap()
    };
    let source = MemorySource::batches((0..200).map(|number| named(&number.to_string())).collect());
    assert_eq!(lengths(source), [3; 200]);
}

/// What windows of ten seconds count, and which rows are late.
fn answer(source: impl TypedSource<Row = Untyped>) -> (Vec<String>, Vec<String>) {
    let (job, out, late) = (Job::new("late"), MemorySink::new(), MemorySink::new());
    let (counts, too_late) = job
        .source(source)
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("rows")])
        .with_late();
    counts.select(["window_start", "rows"].map(col)).sink(out.clone());
    too_late.select([col("n")]).sink(late.clone());
    let report = run(job).unwrap();
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
    (rows(&out.batches()), rows(&late.batches()))
}

#[test]
fn which_rows_are_late_does_not_depend_on_which_batches_are_ready() {
    let arrivals: [&[i64]; 7] = [&[1, 2], &[12], &[3, 13], &[14], &[25], &[26, 4, 15], &[31]];
    let source = || MemorySource::batches(arrivals.map(batch).to_vec());
    let (counts, late) = answer(source());
    assert_eq!(late, ["15", "3", "4"]);
    assert_eq!((counts, late), answer(source().one_by_one()));
}
