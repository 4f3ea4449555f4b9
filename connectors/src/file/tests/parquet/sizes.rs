//! Batches are as large as they may be, however a file has its rows.

use std::{fs, sync::Arc};

use ::parquet::file::properties::WriterProperties;
use arrow::{
    array::{
        ArrayRef, AsArray, Int64Builder, ListArray, ListBuilder, MapBuilder, RecordBatch, StringBuilder,
        StringViewArray,
    },
    datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef},
};

use super::super::{Place, read_well, schema};
use super::{rejects, rows, write_as};
use crate::File;

/// Lists of numbers, of which every 50th has a null; pairs of the same; and a text that is in the file once and is large in memory.
fn lists(count: i64) -> RecordBatch {
    let list = |n: i64| Some(vec![Some(n), (n % 50 != 7).then_some(-n)]);
    let lists = || -> ArrayRef { Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>((0..count).map(list))) };
    let mut entries = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for n in 0..count {
        entries.keys().append_value("k");
        entries.values().append_value(n);
        entries.append(true).unwrap();
    }
    let (large, odd) = ("x".repeat(400_000), "y".to_owned());
    let texts = StringViewArray::from_iter_values((0..count).map(|n| if n % 3 == 0 { &large } else { &odd }));
    rows(vec![("pair", lists()), ("list", lists()), ("map", Arc::new(entries.finish())), ("text", Arc::new(texts))])
}

/// Batches are cut where they become too large, and no row gets what is within the lists of another.
#[tokio::test]
async fn lists_stay_with_their_rows_wherever_batches_end() {
    let place = Place::new();
    let path = write_as(&place, "a.parquet", &lists(300), WriterProperties::builder().build());
    let item = |null| Arc::new(Field::new("it", DataType::Int64, null));
    let entry =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, false)]);
    let wanted = schema(&[
        ("pair", DataType::FixedSizeList(item(true), 2), true),
        ("list", DataType::List(item(false)), true),
        ("map", DataType::Map(Arc::new(Field::new("of", DataType::Struct(entry), false)), false), true),
    ]);
    let whole = File::pattern(&path).parquet_with(wanted.clone());
    let with_text = wanted.fields().iter().map(|field| field.as_ref().clone());
    let with_text: SchemaRef =
        Arc::new(Schema::new(with_text.chain([Field::new("text", DataType::Utf8, true)]).collect::<Vec<_>>()));
    let parts = File::pattern(&path).parquet_with(with_text.clone());
    let (whole, parts) = (read_well(&whole).await, read_well(&parts).await);
    assert_eq!(whole.batches.len(), 1);
    assert!(parts.batches.len() > 3 && parts.batches.iter().all(|batch| batch.num_rows() < 200));
    assert_eq!(parts.batch(&with_text).project(&[0, 1, 2]).unwrap(), whole.batch(&wanted));
    let rejected: Vec<u64> = rejects(&whole).iter().map(|it| it.0).collect();
    assert_eq!(rejected, [7, 57, 107, 157, 207, 257]);
    assert_eq!(rejects(&parts).iter().map(|it| it.0).collect::<Vec<_>>(), rejected);
    let batch = whole.batch(&wanted);
    for (row, n) in (0..300).filter(|n| n % 50 != 7).enumerate() {
        let pair = batch.column(0).as_fixed_size_list().value(row);
        assert_eq!(pair.as_primitive::<Int64Type>().values(), &[n, -n]);
        let entry = batch.column(2).as_map().value(row);
        assert_eq!(entry.column(1).as_primitive::<Int64Type>().values(), &[n]);
    }
}

/// A value that a dictionary holds once may stand in every row.
#[tokio::test]
async fn texts_that_a_file_repeats_do_not_make_batches_of_gigabytes() {
    let place = Place::new();
    let text = "x".repeat(500_000);
    let texts = StringViewArray::from_iter_values((0..200).map(|_| &text));
    let properties = WriterProperties::builder().build();
    let path = write_as(&place, "a.parquet", &rows(vec![("name", Arc::new(texts))]), properties);
    assert!(fs::metadata(&path).unwrap().len() < 1_000_000, "it is there once");
    let delivered = read_well(&File::pattern(path).parquet_with(schema(&[("name", DataType::Utf8, true)]))).await;
    assert_eq!(delivered.rows(), 200);
    assert!(delivered.batches.iter().all(|batch| batch.num_rows() <= 33), "16 MiB");
}

/// The same within lists, where the library makes a copy for each.
#[tokio::test]
async fn lists_that_a_file_repeats_do_not_make_batches_of_gigabytes() {
    let place = Place::new();
    let text = "x".repeat(20_000);
    let mut lists = ListBuilder::new(StringBuilder::new());
    (0..3_000).for_each(|_| lists.append_value([Some(&text)]));
    let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>((0..3_000).map(|_| Some(vec![Some(7); 5_000])));
    for (name, lists) in [("texts", Arc::new(lists.finish()) as ArrayRef), ("numbers", Arc::new(numbers))] {
        let properties = WriterProperties::builder().build();
        let path = write_as(&place, name, &rows(vec![("l", lists)]), properties);
        assert!(fs::metadata(&path).unwrap().len() < 1_000_000, "they are there once");
        let delivered = read_well(&File::pattern(path).infer_parquet().unwrap()).await;
        assert_eq!(delivered.rows(), 3_000);
        let largest = delivered.batches.iter().map(RecordBatch::get_array_memory_size).max().unwrap();
        assert!(largest < 40 << 20, "{name}: {largest}");
    }
}

/// A row group of one large row, as a writer that flushes by time leaves, does not make the others slow.
#[tokio::test]
async fn one_large_row_does_not_make_all_batches_small() {
    let place = Place::new();
    let large = "x".repeat(9_000_000);
    let texts = (0..20_001).map(|n| if n == 20_000 { large.as_str() } else { "y" });
    let texts = rows(vec![("t", Arc::new(StringViewArray::from_iter_values(texts)))]);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(20_000)).build();
    let delivered =
        read_well(&File::pattern(write_as(&place, "a.parquet", &texts, properties)).infer_parquet().unwrap()).await;
    assert_eq!((delivered.rows(), delivered.batches.len()), (20_001, 3));
}

/// Nor one at the beginning of a row group.
#[tokio::test]
async fn batches_are_large_again_behind_a_large_row() {
    let place = Place::new();
    let large = "x".repeat(17 << 20);
    let texts = (0..20_000).map(|n| if n == 0 { large.as_str() } else { "y" });
    let texts = rows(vec![("t", Arc::new(StringViewArray::from_iter_values(texts)) as ArrayRef)]);
    let path = write_as(&place, "a.parquet", &texts, WriterProperties::builder().build());
    let delivered = read_well(&File::pattern(path).infer_parquet().unwrap()).await;
    assert_eq!(delivered.rows(), 20_000);
    assert!(delivered.batches.len() < 8, "{}", delivered.batches.len());
}

/// Also where steps are shorter at the end of a row group than at the beginning of the next.
#[tokio::test]
async fn a_batch_has_no_more_rows_than_asked_for() {
    let place = Place::new();
    let large = "x".repeat(17 << 20);
    let texts = (0..600).map(|n| if n % 150 == 149 { large.as_str() } else { "y" });
    let texts = rows(vec![("t", Arc::new(StringViewArray::from_iter_values(texts)) as ArrayRef)]);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(150)).build();
    let path = write_as(&place, "a.parquet", &texts, properties);
    let delivered = read_well(&File::pattern(path).batch_rows(100).infer_parquet().unwrap()).await;
    assert_eq!(delivered.rows(), 600);
    assert!(delivered.batches.iter().all(|batch| batch.num_rows() <= 100));
}

/// Lists of nothing take room too.
#[tokio::test]
async fn lists_of_empty_lists_are_not_read_by_the_thousand() {
    let place = Place::new();
    let mut lists = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
    for _ in 0..200 {
        (0..100_000).for_each(|_| lists.values().append(true));
        lists.append(true);
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let path = write_as(&place, "a.parquet", &rows(vec![("l", lists)]), WriterProperties::builder().build());
    assert!(fs::metadata(&path).unwrap().len() < 1_000_000);
    let delivered = read_well(&File::pattern(path).infer_parquet().unwrap()).await;
    assert_eq!(delivered.rows(), 200);
    let largest = delivered.batches.iter().map(RecordBatch::get_array_memory_size).max().unwrap();
    assert!(largest < 40 << 20, "{largest}");
}

#[tokio::test]
async fn wide_rows_are_read_few_at_a_time() {
    let place = Place::new();
    let lists: Vec<_> = (0..64).map(|n| Some(vec![Some(n); 100_000])).collect();
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let source = File::pattern(write_as(&place, "a.parquet", &rows(vec![("l", Arc::new(lists))]), properties));
    let delivered = read_well(&source.infer_parquet().unwrap()).await;
    assert_eq!(delivered.rows(), 64);
    assert!(delivered.batches.iter().all(|batch| batch.num_rows() <= 21), "of 800,000 bytes each");
}
