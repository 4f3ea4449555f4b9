//! Tests of the memory source and sink against the contracts.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use proptest::prelude::*;
use typed_arrow::Record;

use super::*;
use crate::{
    Epoch, Fetch, Incarnation, Position, Rejected, Sink, SinkWriter, Source, SourceReader, SplitId, TypedSource,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn batch(values: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
}

fn values(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn open(source: &impl Source, position: Option<Position>) -> Box<dyn SourceReader> {
    let splits = Source::splits(source).await.unwrap();
    source.reader(splits.into_iter().map(|split| (split, position)).collect()).await.unwrap()
}

/// What a reader delivers, as text: `split:values@next`, `split:end`, `end`.
async fn next(reader: &mut dyn SourceReader) -> String {
    match reader.fetch().await.unwrap() {
        Fetch::Rows(rows) => format!("{}:{:?}@{}", rows.split, values(&rows.batch), rows.next),
        Fetch::SplitEnd(split) => format!("{split}:end"),
        Fetch::End => "end".to_owned(),
    }
}

async fn all(reader: &mut dyn SourceReader) -> Vec<String> {
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != "end") {
        all.push(next(reader).await);
    }
    all
}

#[tokio::test]
async fn splits_take_turns() {
    let source = MemorySource::new(schema(), vec![vec![batch(0..1), batch(1..2)], vec![], vec![batch(2..4)]]);
    let fetched = all(&mut *open(&source, None).await).await;
    assert_eq!(fetched, ["0:[0]@1", "1:end", "2:[2, 3]@1", "0:[1]@2", "2:end", "0:end", "end"]);
}

#[tokio::test]
async fn a_reader_goes_on_from_a_position() {
    let source = MemorySource::batches((0..6).map(|n| batch(n..n + 1)).collect()).splits(2);
    let fetched = all(&mut *open(&source, Some(Position(2))).await).await;
    assert_eq!(fetched, ["0:[4]@3", "1:[5]@3", "0:end", "1:end", "end"]);
}

#[tokio::test]
async fn batches_are_not_copied() {
    let original = batch(0..100);
    let source = MemorySource::batches(vec![original.clone()]).batch_rows(60);
    let mut reader = open(&source, None).await;
    let Fetch::Rows(first) = reader.fetch().await.unwrap() else { panic!("rows expected") };
    let address = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().as_ptr();
    assert_eq!(address(&first.batch), address(&original));
    assert_eq!(first.batch.num_rows(), 60);
}

#[tokio::test]
async fn records_become_a_typed_source() {
    #[derive(Record)]
    struct Count {
        n: i64,
    }
    fn row_type<S: TypedSource>(_: &S) -> &'static str {
        std::any::type_name::<S::Row>()
    }
    let source = MemorySource::records((0..5).map(|n| Count { n }).collect()).batch_rows(2).splits(2);
    assert!(row_type(&source).ends_with("Count"));
    let fetched = all(&mut *open(&source, None).await).await;
    assert_eq!(fetched, ["0:[0, 1]@1", "1:[2, 3]@1", "0:[4]@2", "1:end", "0:end", "end"]);
}

#[tokio::test]
async fn mistakes_are_errors_before_the_first_row() {
    let error = MemorySource::batches(Vec::new()).schema().unwrap_err().to_string();
    assert!(error.contains("MemorySource::new"), "{error}");
    assert!(MemorySource::new(schema(), vec![vec![]]).schema().is_ok());

    let other = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let error = MemorySource::new(schema(), vec![vec![batch(0..1), other]]).schema().unwrap_err().to_string();
    assert!(error.contains("batch 1 of split 0"), "{error}");

    let stranger = vec![(crate::SplitId::new("7"), None)];
    let error = MemorySource::new(schema(), vec![vec![]]).reader(stranger).await.err().unwrap().to_string();
    assert!(error.contains("no split 7"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hand_feeds_a_waiting_reader() {
    let (input, source) = MemorySource::by_hand(schema(), 2);
    let mut reader = open(&source, None).await;

    // A fetch that is given up has taken nothing.
    assert!(tokio::time::timeout(Duration::from_secs(1), reader.fetch()).await.is_err());
    let other_hand = input.clone();
    let feeding = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        other_hand.push(1, batch(0..2));
    };
    let (fetched, ()) = tokio::join!(next(&mut *reader), feeding);
    assert_eq!(fetched, "1:[0, 1]@1");

    let bad = Rejected {
        position: Some(Position(1)),
        line: Some(2),
        bytes: Some(b"x".to_vec()),
        ..Rejected::of("not a number")
    };
    input.reject(1, bad.clone());
    let Fetch::Rows(rows) = reader.fetch().await.unwrap() else { panic!("rows expected") };
    assert_eq!((rows.batch.num_rows(), rows.rejected, rows.next), (0, vec![bad], Position(2)));

    input.end(1);
    assert_eq!(next(&mut *reader).await, "1:end");
    input.push(0, batch(5..6));
    input.end_all();
    assert_eq!(all(&mut *reader).await, ["0:[5]@1", "0:end", "end"]);

    // A restored job reads the same again.
    assert_eq!(all(&mut *open(&source, None).await).await[0], "0:[5]@1");
}

#[tokio::test]
async fn a_dropped_hand_is_a_failure_not_an_end() {
    let (input, source) = MemorySource::by_hand(schema(), 2);
    input.end(0);
    input.push(1, batch(0..1));
    drop(input);
    let mut reader = open(&source, None).await;
    assert_eq!(next(&mut *reader).await, "0:end");
    assert_eq!(next(&mut *reader).await, "1:[0]@1");
    let error = reader.fetch().await.unwrap_err().to_string();
    assert!(error.contains("split 1") && error.contains("dropped"), "{error}");
}

#[tokio::test]
async fn a_batch_with_other_columns_fails_the_reader() {
    let (input, source) = MemorySource::by_hand(schema(), 1);
    let mut reader = open(&source, None).await;
    input.push(0, RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap());
    let error = reader.fetch().await.unwrap_err().to_string();
    assert!(error.contains("split 0, batch 0"), "{error}");
}

fn incarnation(generation: u64) -> Incarnation {
    Incarnation { job: "00c0ffee".to_owned(), generation, nonce: generation as u32 * 77 }
}

async fn writer(sink: &MemorySink, generation: u64, task: usize) -> Box<dyn SinkWriter> {
    sink.writer(&incarnation(generation), task, schema()).await.unwrap()
}

fn all_values(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(values).collect()
}

#[tokio::test]
async fn rows_are_visible_when_they_are_committed() {
    let sink = MemorySink::new();
    let mut zero = writer(&sink, 1, 0).await;
    let mut one = writer(&sink, 1, 1).await;
    zero.write(batch(0..1)).await.unwrap();
    one.write(batch(1..3)).await.unwrap();
    zero.write(batch(3..4)).await.unwrap();
    zero.write(batch(0..0)).await.unwrap();
    assert_eq!(sink.written().len(), 3, "a batch without rows is nothing");

    let of_one = one.stage(Epoch(1)).await.unwrap();
    assert_eq!((of_one.len(), sink.rows()), (1, 0), "staged is not visible");
    one.write(batch(7..8)).await.unwrap();
    sink.commit(&of_one).await.unwrap();
    assert_eq!(all_values(&sink.batches()), [1, 2], "what was written after the stage is of the next epoch");
    assert_eq!(all_values(&sink.take()), [1, 2]);
    sink.commit(&of_one).await.unwrap();
    assert_eq!((sink.rows(), sink.written().len()), (0, 3), "a commit that is repeated brings nothing back");

    let mut both = zero.stage(Epoch(1)).await.unwrap();
    both.extend(one.stage(Epoch(2)).await.unwrap());
    assert_eq!(both.iter().chain(&of_one).collect::<std::collections::BTreeSet<_>>().len(), 3, "receipts differ");
    sink.commit(&both).await.unwrap();
    assert_eq!(all_values(&sink.batches()), [0, 3, 7]);
    assert_eq!(zero.stage(Epoch(2)).await.unwrap(), [], "no rows, no receipts");
}

#[tokio::test]
async fn a_crash_before_the_decision_leaves_nothing_and_one_behind_it_leaves_everything() {
    let sink = MemorySink::new();
    let mut first = writer(&sink, 1, 0).await;
    first.write(batch(0..1)).await.unwrap();
    let decided = first.stage(Epoch(1)).await.unwrap();
    first.write(batch(1..2)).await.unwrap();
    let undecided = first.stage(Epoch(2)).await.unwrap();
    first.write(batch(2..3)).await.unwrap();
    drop(first);

    // The second generation commits what was decided, cleans up, and writes rows 1 and 2 again.
    sink.commit(&decided).await.unwrap();
    sink.clean(&Incarnation { job: "another0".to_owned(), ..incarnation(9) }).await.unwrap();
    sink.clean(&incarnation(1)).await.unwrap();
    assert_eq!(sink.written().len(), 3, "neither another job's nor my own generation's");
    sink.clean(&incarnation(2)).await.unwrap();
    assert_eq!(all_values(&sink.written()), [0]);
    let mut second = writer(&sink, 2, 0).await;
    second.write(batch(1..3)).await.unwrap();
    let again = second.stage(Epoch(3)).await.unwrap();

    let mixed = [undecided[0].clone(), again[0].clone()];
    let error = sink.commit(&mixed).await.unwrap_err().to_string();
    assert!(error.contains("generation 1") && error.contains("epoch 2"), "{error}");
    assert_eq!(all_values(&sink.batches()), [0, 1, 2], "the receipts behind a bad one are committed all the same");
}

proptest! {
    /// Whatever the cut and the splits, a reader that stops anywhere and a second one that goes on from the positions
    /// deliver every row once.
    #[test]
    fn nothing_is_lost_or_doubled(
        sizes in prop::collection::vec(0_i64..5, 0..8),
        splits in 1_usize..4,
        rows in 1_usize..4,
        stop in 0_usize..12,
    ) {
        let mut end = 0;
        let batches: Vec<_> = sizes.iter().map(|size| { end += size; batch(end - size..end) }).collect();
        let source = MemorySource::new(schema(), vec![batches]).batch_rows(rows).splits(splits);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut seen = runtime.block_on(async {
            let mut seen = Vec::new();
            let mut positions: Vec<_> =
                Source::splits(&source).await.unwrap().into_iter().map(|split| (split, None)).collect();
            for limit in [stop, usize::MAX] {
                let mut reader = source.reader(positions.clone()).await.unwrap();
                for _ in 0..limit {
                    match reader.fetch().await.unwrap() {
                        Fetch::Rows(read) => {
                            seen.extend(values(&read.batch));
                            positions.iter_mut().filter(|p| p.0 == read.split).for_each(|p| p.1 = Some(read.next));
                        }
                        Fetch::SplitEnd(_) => {}
                        Fetch::End => break,
                    }
                }
            }
            seen
        });
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..end).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_split_ends_but_delivers_nothing() {
    let (input, source) = MemorySource::by_hand(schema(), 3);
    let mut reader = open(&source, None).await;
    (0..2).for_each(|split| input.push(split, batch(0..1)));
    input.end(2);
    assert!(reader.pause(&["0", "2"].map(SplitId::new)));
    assert_eq!([next(&mut *reader).await, next(&mut *reader).await], ["1:[0]@1", "2:end"]);
    input.end_all();
    assert_eq!(next(&mut *reader).await, "1:end");
    let waits = tokio::time::timeout(Duration::from_secs(1), reader.fetch()).await;
    assert!(waits.is_err(), "what is left is paused, and that is not the end");
    assert!(reader.pause(&[]));
    assert_eq!(
        [next(&mut *reader).await, next(&mut *reader).await, next(&mut *reader).await],
        ["0:[0]@1", "0:end", "end"]
    );
}
