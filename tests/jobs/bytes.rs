//! Bytes: of splits, of tasks, of operators and of the ways between them. They are of the same rows, and agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use windrow::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray},
    prelude::*,
    status::{Exchange, JobStatus, OperatorKind, TaskStatus},
};

/// What is counted of each task is what goes over its channels; of a source in its splits.
pub(crate) fn are_those_of_tasks_splits_and_edges(status: &JobStatus) {
    for (place, own) in status.operators.iter().enumerate() {
        let sum = |of: fn(&TaskStatus) -> Option<u64>| own.tasks.iter().filter_map(of).reduce(|sum, one| sum + one);
        let (came, left) = (sum(|task| task.bytes_in), sum(|task| task.bytes_out));
        assert_eq!((own.bytes_in, own.bytes_out), (came, left), "{}", own.name);
        let ways = status.edges.iter().filter(|edge| edge.exchange != Exchange::Chained);
        let sent: Vec<u64> = ways.clone().filter(|edge| edge.from == place).map(|edge| edge.bytes).collect();
        let got: Vec<u64> = ways.filter(|edge| edge.to == place).map(|edge| edge.bytes).collect();
        assert_eq!(left, (!sent.is_empty()).then(|| sent.iter().sum()), "{}", own.name);
        match own.kind {
            OperatorKind::Source => {
                assert_eq!(came, Some(own.splits.iter().map(|split| split.bytes).sum()));
                assert!(own.splits.iter().all(|split| (split.bytes > 0) == (split.rows > 0)), "{:?}", own.splits);
            }
            _ => assert_eq!(came, (!got.is_empty()).then(|| got.iter().sum()), "{}", own.name),
        }
    }
}

/// What is read counts as it lies in memory, by split and by task; what did not decode as it came.
#[tokio::test]
async fn of_what_is_read_they_are_those_of_the_rows() {
    let column = |rows: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..rows)) };
    let batch = |rows| RecordBatch::try_from_iter([("n", column(rows))]).unwrap();
    let job = Job::new("bytes").parallelism(2);
    let splits = vec![vec![batch(100)], vec![batch(10), batch(20)]];
    job.source(MemorySource::new(batch(0).schema(), splits)).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    running.wait().await.unwrap();
    let status = handle.status();
    let source = &status.operators[0];
    let read: BTreeMap<&str, u64> = source.splits.iter().map(|split| (split.split.as_str(), split.bytes)).collect();
    assert_eq!(read, BTreeMap::from([("0", 800), ("1", 240)]));
    let tasks: BTreeSet<_> = source.tasks.iter().map(|task| (task.bytes_in, task.bytes_out)).collect();
    assert_eq!(tasks, BTreeSet::from([(Some(800), Some(800)), (Some(240), Some(240))]));
    let sink = &status.operators[1];
    assert_eq!((sink.bytes_in, sink.bytes_out), (Some(1_040), None));
    are_those_of_tasks_splits_and_edges(&status);
}

/// Event time is a column more behind the source, and rows that have none are taken out: what was read is what came.
#[tokio::test]
async fn event_time_is_no_part_of_what_was_read() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let times: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..100).map(|row| match row {
        0 => "no time at all, and so no row".to_owned(),
        row => format!("1970-01-01T00:00:{:02}.000000Z", row % 60),
    })));
    let rows = RecordBatch::try_from_iter([("n", numbers), ("at", times)]).unwrap();
    let length = |row: usize| if row == 0 { 29 } else { 27 };
    let read: usize = (0..100).map(|row| 8 + 16 + length(row)).sum();
    let (kept, time) = (read - 8 - 16 - length(0), 99 * 8);
    let job = Job::new("bytes");
    let source = job.source(MemorySource::new(rows.schema(), vec![vec![rows.slice(0, 100), rows.slice(1, 99)]]));
    source.event_time("at", Watermarks::out_of_order(mins(2))).drop_rejects().sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    running.wait().await.unwrap();
    let status = handle.status();
    let source = &status.operators[0];
    assert_eq!((source.rejected, source.bytes_in), (1, Some((read + kept) as u64)));
    assert_eq!(source.bytes_out, Some(2 * (kept + time) as u64), "also of the batch of which nothing was taken out");
    are_those_of_tasks_splits_and_edges(&status);
}
