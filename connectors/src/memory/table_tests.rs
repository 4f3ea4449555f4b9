//! What a memory table shows, through commits, crashes and restarts.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt8Array},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use proptest::prelude::*;

use super::{MemorySink, MemoryTable};
use crate::{Epoch, Incarnation, OP, Sink, SinkWriter};

fn columns() -> SchemaRef {
    let fields = vec![
        Field::new("value", DataType::Int64, false),
        Field::new("who", DataType::Utf8, true),
        Field::new("id", DataType::Int64, false),
    ];
    Arc::new(Schema::new(fields))
}

/// (op, id, value); the other column of the key is null for even ids.
fn changes(changes: &[(u8, i64, i64)]) -> RecordBatch {
    let who = |&(_, id, _): &(u8, i64, i64)| (id % 2 != 0).then_some("odd");
    let mut fields = columns().fields().to_vec();
    fields.push(Arc::new(Field::new(OP, DataType::UInt8, false)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.2))),
        Arc::new(changes.iter().map(who).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.1))),
        Arc::new(UInt8Array::from_iter_values(changes.iter().map(|change| change.0))),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn table() -> MemoryTable {
    let table = MemoryTable::new();
    table.accepts_changes(&columns(), &[2, 1]).unwrap();
    table
}

fn incarnation(generation: u64) -> Incarnation {
    Incarnation { job: "00c0ffee".to_owned(), generation, nonce: 7 }
}

async fn writer(table: &MemoryTable, generation: u64, task: usize) -> Box<dyn SinkWriter> {
    table.writer(&incarnation(generation), task, changes(&[]).schema()).await.unwrap()
}

/// (id, value), as the table gives them.
fn shown(table: &MemoryTable) -> Vec<(i64, i64)> {
    let numbers = |rows: &RecordBatch, column| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
    let batches = table.batches();
    batches.iter().flat_map(|rows| numbers(rows, 2).into_iter().zip(numbers(rows, 0)).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn a_change_is_seen_when_it_is_committed_and_applied_once() {
    let table = table();
    let (mut zero, mut one) = (writer(&table, 1, 0).await, writer(&table, 1, 1).await);
    zero.write(changes(&[(0, 9, 1), (0, 2, 2), (1, 9, 3)])).await.unwrap();
    one.write(changes(&[(0, -5, 4), (2, 77, 0)])).await.unwrap();
    let of_zero = zero.stage(Epoch(1)).await.unwrap();
    let of_one = one.stage(Epoch(1)).await.unwrap();
    assert_eq!((table.rows(), table.batches().len()), (0, 0));
    table.commit(&of_zero).await.unwrap();
    assert_eq!(shown(&table), [(2, 2), (9, 3)], "sorted by key");
    table.commit(&[of_one, of_zero.clone()].concat()).await.unwrap();
    assert_eq!(shown(&table), [(-5, 4), (2, 2), (9, 3)]);

    zero.write(changes(&[(2, 9, 3)])).await.unwrap();
    let next = zero.stage(Epoch(2)).await.unwrap();
    assert_eq!(zero.stage(Epoch(3)).await.unwrap(), [], "no changes, no receipts");
    table.commit(&next).await.unwrap();
    table.commit(&of_zero).await.unwrap();
    assert_eq!(shown(&table), [(-5, 4), (2, 2)], "a commit that is repeated brings nothing back");
    let row = table.get(&[&Int64Array::new_scalar(-5), &StringArray::new_scalar("odd")]).unwrap().unwrap();
    assert_eq!((row.num_rows(), row.num_columns(), row.column(0).as_primitive::<Int64Type>().value(0)), (1, 3, 4));
    assert!(table.get(&[&Int64Array::new_scalar(9), &StringArray::new_scalar("odd")]).unwrap().is_none());
    assert!(table.get(&[&Int64Array::new_scalar(9)]).unwrap_err().to_string().contains("2 columns"));
}

#[tokio::test]
async fn a_crash_before_the_decision_leaves_nothing_and_one_behind_it_leaves_everything() {
    let table = table();
    let mut first = writer(&table, 1, 0).await;
    first.write(changes(&[(0, 1, 1)])).await.unwrap();
    let decided = first.stage(Epoch(1)).await.unwrap();
    first.write(changes(&[(1, 1, 2)])).await.unwrap();
    let undecided = first.stage(Epoch(2)).await.unwrap();
    first.write(changes(&[(2, 1, 2)])).await.unwrap();
    drop(first);

    table.commit(&decided).await.unwrap();
    table.clean(&Incarnation { job: "another0".to_owned(), ..incarnation(9) }).await.unwrap();
    table.clean(&incarnation(2)).await.unwrap();
    table.accepts_changes(&columns(), &[2, 1]).unwrap();
    let mut second = writer(&table, 2, 0).await;
    second.write(changes(&[(1, 1, 3)])).await.unwrap();
    let again = second.stage(Epoch(2)).await.unwrap();
    let error = table.commit(&[undecided[0].clone(), again[0].clone()]).await.unwrap_err().to_string();
    assert!(error.contains("generation 1") && error.contains("epoch 2"), "{error}");
    assert_eq!(shown(&table), [(1, 3)], "the receipts behind a bad one are committed all the same");
}

#[tokio::test]
async fn it_takes_changes_of_one_form_and_no_rows() {
    let table = table();
    let other = MemoryTable::new();
    other.accepts_changes(&columns(), &[0]).unwrap();
    other.accepts_changes(&columns(), &[2]).expect("nobody has written yet");
    let mut writer = writer(&table, 1, 0).await;
    let text = |result: crate::Result<()>| result.unwrap_err().to_string();
    assert!(text(table.accepts(&columns())).contains("write .key_by(…).latest() to it, or use MemorySink"));
    assert!(
        text(table.accepts_changes(&columns(), &[2])).contains("this memory table is of other changes: by id, who")
    );
    assert!(text(MemoryTable::new().accepts_changes(&columns(), &[3])).contains("no column number 3"));
    let error = text(MemorySink::new().accepts_changes(&columns(), &[2]));
    let words =
        "memory appends rows and cannot take changes: write .changelog() to it, or use a sink that takes upserts";
    assert_eq!(error, words);
    let rows = changes(&[(0, 1, 1)]).project(&[0, 1, 2]).unwrap();
    assert!(text(writer.write(rows).await).contains("takes changes"));
    assert!(MemoryTable::new().get(&[]).unwrap_err().to_string().contains("before a job"));
    let one_row = MemoryTable::new();
    one_row.accepts_changes(&columns(), &[]).unwrap();
    let mut writer = one_row.writer(&incarnation(1), 0, columns()).await.unwrap();
    writer.write(changes(&[(0, 1, 1), (1, 2, 2)])).await.unwrap();
    one_row.commit(&writer.stage(Epoch(1)).await.unwrap()).await.unwrap();
    assert_eq!((shown(&one_row), one_row.get(&[]).unwrap().unwrap().num_rows()), (vec![(2, 2)], 1));
}

#[tokio::test]
async fn what_does_not_count_any_more_is_not_kept() {
    let table = table();
    let mut writer = writer(&table, 1, 0).await;
    for epoch in 1..200 {
        writer.write(changes(&(0..500).map(|id| (1, id, epoch)).collect::<Vec<_>>())).await.unwrap();
        table.commit(&writer.stage(Epoch(epoch as u64)).await.unwrap()).await.unwrap();
        assert!(table.held() < 10_000, "{} rows for 500", table.held());
    }
    assert_eq!(shown(&table), (0..500).map(|id| (id, 199)).collect::<Vec<_>>());
}

proptest! {
    /// Against a map, through commits that are repeated and restarts that repeat what was not committed.
    #[test]
    fn it_is_the_map_of_what_was_committed(
        epochs in prop::collection::vec((prop::collection::vec((0u8..3, -3i64..6, 0i64..100), 0..20), any::<bool>(), any::<bool>()), 1..15)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let table = table();
            let mut model = BTreeMap::new();
            let mut generation = 1;
            let mut tasks = [writer(&table, 1, 0).await, writer(&table, 1, 1).await];
            for (epoch, (rows, crashes, again)) in epochs.into_iter().enumerate() {
                let mut receipts = Vec::new();
                for attempt in [crashes, false].into_iter().skip(usize::from(!crashes)) {
                    receipts.clear();
                    for (task, writer) in tasks.iter_mut().enumerate() {
                        let own = rows.iter().filter(|row| row.1.rem_euclid(2) == task as i64);
                        writer.write(changes(&own.copied().collect::<Vec<_>>())).await.unwrap();
                        receipts.extend(writer.stage(Epoch(epoch as u64)).await.unwrap());
                    }
                    if attempt {
                        generation += 1;
                        table.clean(&incarnation(generation)).await.unwrap();
                        tasks = [writer(&table, generation, 0).await, writer(&table, generation, 1).await];
                    }
                }
                for (op, id, value) in rows {
                    match op {
                        2 => model.remove(&id),
                        _ => model.insert(id, value),
                    };
                }
                table.commit(&receipts).await.unwrap();
                if again {
                    table.commit(&receipts).await.unwrap();
                }
                prop_assert_eq!(shown(&table), model.clone().into_iter().collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }
}
