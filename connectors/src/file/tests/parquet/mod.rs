//! Parquet files as a source: their columns by name and type, their rows from any on, and what is said of those that cannot be read.

use std::{fs, sync::Arc};

use ::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, GzipLevel, ZstdLevel},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Int64Type, SchemaRef},
};
use proptest::prelude::*;
use typed_arrow::Record;

use super::{Delivered, Place, error_of, read_from, read_well, schema};
use crate::{File, Position, Source, SplitId, Untyped, file::FileSource};

mod damage;
mod sizes;
mod types;

#[derive(Record)]
struct Bid {
    price: i64,
    name: Option<String>,
}

/// Writes a file with row groups of so many rows.
fn write(place: &Place, name: &str, rows: &RecordBatch, group: usize) -> String {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group));
    write_as(place, name, rows, properties.set_data_page_row_count_limit(3).set_write_batch_size(1).build())
}

fn write_as(place: &Place, name: &str, rows: &RecordBatch, properties: WriterProperties) -> String {
    let path = place.path(name);
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    path
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// Prices, of which every seventh is missing, and names, of which some are long.
fn bids(count: i64) -> RecordBatch {
    let prices: Int64Array = (0..count).map(|n| (n % 7 != 3).then_some(n)).collect();
    let names: StringArray =
        (0..count).map(|n| (n % 3 != 0).then(|| format!("{n} {}", "y".repeat(n as usize % 20)))).collect();
    rows(vec![
        ("more", Arc::new(Int32Array::from_value(0, count as usize))),
        ("name", Arc::new(names)),
        ("price", Arc::new(prices)),
    ])
}

fn numbers(values: &[Option<i64>]) -> RecordBatch {
    rows(vec![("n", Arc::new(Int64Array::from(values.to_vec())))])
}

fn rejects(delivered: &Delivered) -> Vec<(u64, String, String)> {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap()).unwrap();
    delivered.rejected.iter().map(|it| (it.position.unwrap().0, it.reason.clone(), text(&it.bytes))).collect()
}

#[tokio::test]
async fn columns_are_found_by_name_and_rows_that_miss_a_value_are_rejected() {
    let place = Place::new();
    let source = File::pattern(write(&place, "a.parquet", &bids(10), 4)).parquet::<Bid>();
    assert_eq!(source.name(), format!("file {}", place.path("a.parquet")));
    source.check().unwrap();
    let delivered = read_well(&source).await;
    let batch = delivered.batch(&source.schema().unwrap());
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(batch.column(1).as_string::<i32>().iter().nth(1).unwrap(), Some("1 y"));
    let reason = r#"column "price" is null, and it is not nullable"#;
    assert_eq!(rejects(&delivered), [(3, reason.to_owned(), "name=null price=null".to_owned())]);
    assert_eq!(delivered.ended.len(), 1);
}

fn source_of(path: &str, batch_rows: usize) -> FileSource<Untyped> {
    let columns = schema(&[("name", DataType::Utf8, true), ("price", DataType::Int8, false)]);
    File::pattern(path).batch_rows(batch_rows).parquet_with(columns)
}

/// A reader that starts where another stopped delivers what the other would have delivered.
async fn resumes_everywhere(path: &str, batch_rows: usize) -> Delivered {
    let source = source_of(path, batch_rows);
    let delivered = read_well(&source).await;
    let schema = source.schema().unwrap();
    let batch = delivered.batch(&schema);
    for (split, next, rows, rejected) in &delivered.steps {
        let (rest, end) = read_from(&source, vec![(split.clone(), Some(*next))]).await;
        end.unwrap();
        assert_eq!(rest.batch(&schema), batch.slice(*rows, batch.num_rows() - rows), "at row {next}");
        assert_eq!(rejects(&rest), rejects(&delivered)[*rejected..], "at row {next}");
    }
    delivered
}

#[tokio::test]
async fn reading_goes_on_from_every_row_within_and_between_row_groups() {
    let place = Place::new();
    let path = write(&place, "a.parquet", &bids(150), 40);
    let whole = resumes_everywhere(&path, 8192).await;
    // Every seventh is null, and 128 and up are too large for the column.
    let good = (0..150).filter(|n| n % 7 != 3 && *n < 128).count();
    assert_eq!((whole.rows(), whole.rejected.len()), (good, 150 - good));
    assert_eq!(rejects(&whole)[18].1, r#"column "price": 128 does not fit Int8"#);
    for batch_rows in [1, 3, 39, 40, 41] {
        let parts = resumes_everywhere(&path, batch_rows).await;
        assert!(parts.steps.len() >= 150 / batch_rows);
        assert_eq!(rejects(&parts), rejects(&whole));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_file_resumes_and_batches_do_not_matter(count in 0..60_i64, group in 1..30_usize, batch_rows in 1..20_usize) {
        let place = Place::new();
        let path = write(&place, "a.parquet", &bids(count), group);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (one, other) = (resumes_everywhere(&path, batch_rows).await, read_well(&source_of(&path, 8192)).await);
            let schema = source_of(&path, 1).schema().unwrap();
            assert_eq!(one.batch(&schema), other.batch(&schema));
            assert_eq!(rejects(&one), rejects(&other));
        });
    }
}

#[tokio::test]
async fn a_position_that_is_not_there_any_more_is_an_error() {
    let place = Place::new();
    let path = write(&place, "a.parquet", &bids(10), 4);
    let read =
        async |row| read_from(&source_of(&path, 3), vec![(SplitId::new(path.as_str()), Some(Position(row)))]).await;
    let (delivered, end) = read(10).await;
    end.unwrap();
    assert_eq!((delivered.rows(), delivered.ended.len()), (0, 1));
    let error = read(11).await.1.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{path}: reading was to resume at row 11, but")), "{error}");
    assert!(error.contains("only 10 rows: it was truncated or replaced"), "{error}");
}

#[tokio::test]
async fn columns_that_came_later_are_null_before_and_a_wrong_name_is_told() {
    let place = Place::new();
    write(&place, "a.parquet", &numbers(&[Some(1), Some(2)]), 10);
    write(
        &place,
        "b.parquet",
        &rows(vec![("price", Arc::new(Int64Array::from(vec![7]))), ("n", Arc::new(Int64Array::from(vec![3])))]),
        10,
    );
    let columns = |fields: &[(&str, bool)]| {
        schema(&fields.iter().map(|(name, null)| (*name, DataType::Int64, *null)).collect::<Vec<_>>())
    };
    let source = |fields: &[(&str, bool)]| File::pattern(place.path("*.parquet")).parquet_with(columns(fields));
    let both = source(&[("n", false), ("price", true)]);
    both.check().unwrap();
    let batch = read_well(&both).await.batch(&both.schema().unwrap());
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    assert_eq!(batch.column(1).null_count(), 2);

    let wrong = source(&[("n", false), ("prise", true)]).check().unwrap_err().to_string();
    assert!(
        wrong.contains(r#"b.parquet: the file has no column "prise"; it has "price", "n"; did you mean "price"?"#),
        "{wrong}"
    );
    let missing = source(&[("price", false)]);
    let error = missing.check().unwrap_err().to_string();
    assert!(error.contains(r#"a.parquet: the file has no column "price"; it has "n""#), "{error}");
    assert_eq!(error_of(&missing).await, error);
    // Both the first and the last file are looked at.
    write(&place, "c.parquet", &rows(vec![("n", Arc::new(StringArray::from(vec!["1"])))]), 10);
    let error = both.check().unwrap_err().to_string();
    assert!(error.ends_with("c.parquet: column \"n\" is Utf8, which cannot be read as Int64"), "{error}");

    // Only the number of the rows is known then.
    let none = File::pattern(place.path("a.parquet")).parquet_with(columns(&[("price", true)]));
    let delivered = read_well(&none).await;
    assert_eq!(delivered.batch(&none.schema().unwrap()).column(0).null_count(), 2);
}

#[tokio::test]
async fn columns_are_inferred_from_the_first_file() {
    let place = Place::new();
    write(&place, "a.parquet", &bids(10), 4);
    let files = || File::pattern(place.path("*.parquet"));
    let source = files().infer_parquet().unwrap();
    let names = |schema: SchemaRef| {
        schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect::<Vec<_>>()
    };
    assert_eq!(names(source.schema().unwrap()), ["more: Int32", "name: Utf8", "price: Int64"]);
    let delivered = read_well(&source).await;
    assert_eq!(delivered.batch(&source.schema().unwrap()), bids(10));
    let chosen = files().columns(["price", "name"]).infer_parquet().unwrap();
    assert_eq!(names(chosen.schema().unwrap()), ["price: Int64", "name: Utf8"]);
    assert_eq!(read_well(&chosen).await.rows(), 10);
    let error = files().columns(["prize"]).infer_parquet().unwrap_err().to_string();
    assert!(error.contains(r#"no column "prize"; it has"#) && error.contains(r#"did you mean "price"?"#), "{error}");
    let error = File::pattern(place.path("*.pq")).infer_parquet().unwrap_err().to_string();
    assert!(error.contains("no file matches"), "{error}");
}

#[tokio::test]
async fn pages_are_read_however_they_are_compressed() {
    let place = Place::new();
    let kinds = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let properties = WriterProperties::builder().set_compression(kind).build();
        let source =
            File::pattern(write_as(&place, &format!("{n}.parquet"), &bids(100), properties)).infer_parquet().unwrap();
        assert_eq!(read_well(&source).await.batch(&source.schema().unwrap()), bids(100), "{kind:?}");
    }
}

#[tokio::test]
async fn many_files_are_read_in_turns() {
    let place = Place::new();
    for n in 0..20 {
        write(&place, &format!("{n:02}.parquet"), &numbers(&[Some(n), Some(n), Some(n)]), 10);
    }
    let source = File::pattern(place.path("*.parquet")).batch_rows(1).infer_parquet().unwrap();
    let delivered = read_well(&source).await;
    assert_eq!((delivered.rows(), delivered.ended.len()), (60, 20));
    let first: Vec<i64> =
        delivered.batches.iter().take(8).map(|it| it.column(0).as_primitive::<Int64Type>().value(0)).collect();
    assert_eq!(first.len(), first.iter().collect::<std::collections::HashSet<_>>().len(), "{first:?}");
}

/// A file of one column as others may write it; of a repeated one with its levels.
fn write_raw<T: ::parquet::data_type::DataType>(
    place: &Place,
    name: &str,
    column: &str,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> String {
    let path = place.path(name);
    let message = Arc::new(parse_message_type(&format!("message m {{ {column}; }}")).unwrap());
    let mut writer = SerializedFileWriter::new(fs::File::create(&path).unwrap(), message, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let defined = levels.map(|levels| vec![1; levels.len()]);
    column.typed::<T>().write_batch(values, defined.as_deref(), levels).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    path
}
