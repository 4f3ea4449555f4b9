//! Parquet files as a source: their columns by name and type, their rows from any on, and what is said of those that cannot be read.

use std::{fs, sync::Arc};

use ::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, GzipLevel, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int96, Int96Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
        Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray,
        TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    },
    datatypes::{DataType, Field, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use proptest::prelude::*;
use typed_arrow::Record;

use super::{Delivered, Place, error_of, read_all, read_from, read_well, schema};
use crate::{File, Position, Source, SplitId, Untyped, file::FileSource};

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

/// What a column of one type is as another: its values, and the reasons why others are not.
async fn read_as(values: ArrayRef, wanted: DataType) -> Result<(ArrayRef, Vec<String>), String> {
    let place = Place::new();
    let path = write(&place, "a.parquet", &rows(vec![("c", values)]), 100);
    let source = File::pattern(path).parquet_with(schema(&[("c", wanted, true)]));
    source.check().map_err(|error| error.to_string())?;
    let delivered = read_well(&source).await;
    let reasons = delivered.rejected.iter().map(|it| it.reason.clone()).collect();
    Ok((delivered.batch(&source.schema().unwrap()).column(0).clone(), reasons))
}

#[tokio::test]
async fn values_are_read_as_other_types_as_far_as_they_fit() {
    let float = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
    let int64 = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let text = || -> ArrayRef { Arc::new(StringArray::from(vec![Some("a"), None, Some("more than twelve bytes")])) };
    let micros = |values: Vec<i64>, zone: Option<&str>| -> ArrayRef {
        Arc::new(arrow::array::TimestampMicrosecondArray::from(values).with_timezone_opt(zone))
    };
    let micros_of = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let decimal = |values: Vec<i128>, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(8, scale).unwrap())
    };
    let beyond = i64::MAX / 1_000_000 + 1;
    let cases: Vec<(ArrayRef, ArrayRef, &[&str])> = vec![
        (Arc::new(Int32Array::from(vec![-1, i32::MAX])), int64(vec![-1, i64::from(i32::MAX)]), &[]),
        (
            int64(vec![1, -1, i64::MAX]),
            Arc::new(UInt64Array::from(vec![1, i64::MAX as u64])),
            &["-1 does not fit UInt64"],
        ),
        (int64(vec![1 << 40, 5]), Arc::new(Int32Array::from(vec![5])), &["1099511627776 does not fit Int32"]),
        (int64(vec![3]), float(vec![3.0]), &[]),
        (Arc::new(Float32Array::from(vec![0.5])), float(vec![0.5]), &[]),
        (text(), Arc::new(LargeStringArray::from(text().as_string::<i32>().iter().collect::<Vec<_>>())), &[]),
        (text(), Arc::new(StringViewArray::from(text().as_string::<i32>().iter().collect::<Vec<_>>())), &[]),
        (text(), Arc::new(text().as_string::<i32>().iter().collect::<DictionaryArray<Int32Type>>()), &[]),
        (
            Arc::new(BinaryArray::from(vec![b"ok".as_slice(), b"\xff\x00"])),
            Arc::new(StringArray::from(vec!["ok"])),
            &["ff00 does not fit Utf8"],
        ),
        // Cut off towards the past, also before 1970.
        (Arc::new(TimestampNanosecondArray::from(vec![1_999, -1, -1_000])), micros(vec![1, -1, -1], None), &[]),
        (
            Arc::new(TimestampSecondArray::from(vec![-7, beyond])),
            micros(vec![-7_000_000], Some("+00:00")),
            &["does not fit Timestamp(µs, \"+00:00\")"],
        ),
        // The same instant in another zone; without one it is UTC.
        (micros(vec![5], Some("+00:00")), micros(vec![5], Some("Europe/Berlin")), &[]),
        (micros(vec![5], None), micros(vec![5], Some("+02:00")), &[]),
        (int64(vec![5]), micros(vec![5], None), &[]),
        (decimal(vec![105], 2), decimal(vec![1_050], 3), &[]),
        (decimal(vec![1, 99_999_999], 2), decimal(vec![10], 3), &["does not fit Decimal128(8, 3)"]),
    ];
    for (values, expected, reasons) in cases {
        let case = format!("{} as {}", values.data_type(), expected.data_type());
        let (read, rejected) = read_as(values, expected.data_type().clone()).await.unwrap();
        assert_eq!(&read, &expected, "{case}");
        assert_eq!(rejected.len(), reasons.len(), "{case}: {rejected:?}");
        assert!(rejected.iter().zip(reasons).all(|(it, reason)| it.contains(reason)), "{case}: {rejected:?}");
    }
    for (values, wanted, said) in [
        (text(), DataType::Int64, "column \"c\" is Utf8, which cannot be read as Int64"),
        (float(vec![1.0]), DataType::Int64, "column \"c\" is Float64, which cannot be read as Int64"),
        (float(vec![1.0]), DataType::Float32, "Float64, which cannot be read as Float32"),
        (int64(vec![1]), DataType::Utf8, "Int64, which cannot be read as Utf8"),
        (text(), micros_of(None), "Utf8, which cannot be read as Timestamp"),
        (decimal(vec![105], 2), DataType::Decimal128(8, 1), "cannot be read as Decimal128(8, 1)"),
        (text(), DataType::new_list(DataType::Utf8, true), "Utf8, which cannot be read as List"),
    ] {
        let error = read_as(values, wanted).await.unwrap_err();
        assert!(error.contains("a.parquet: ") && error.contains(said), "{error}");
    }
}

/// Others write everything as if it could be null.
#[tokio::test]
async fn what_must_not_be_null_within_a_list_rejects_its_row() {
    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![None]), None]);
    let wanted = DataType::List(Arc::new(Field::new("it", DataType::Int64, false)));
    let (read, reasons) = read_as(Arc::new(lists), wanted).await.unwrap();
    assert_eq!((read.len(), read.null_count()), (2, 1));
    assert_eq!(read.as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].starts_with("column \"c\": [null] does not fit List"), "{reasons:?}");
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

/// A file of one column as others may write it.
fn write_raw<T: ::parquet::data_type::DataType>(place: &Place, name: &str, column: &str, values: &[T::T]) -> String {
    let path = place.path(name);
    let message = Arc::new(parse_message_type(&format!("message m {{ required {column}; }}")).unwrap());
    let mut writer = SerializedFileWriter::new(fs::File::create(&path).unwrap(), message, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    path
}

/// The library takes the word of a file that something is text, of all but the usual way to say so.
#[tokio::test]
async fn what_is_called_text_and_is_none_is_rejected() {
    let place = Place::new();
    let values = ["\"a\"".into(), ByteArray::from(vec![b'"', 0xff, b'"']), "\"longer than twelve bytes\"".into()];
    for (n, annotation) in ["(JSON)", "(STRING)", "(UTF8)", ""].into_iter().enumerate() {
        let path =
            write_raw::<ByteArrayType>(&place, &format!("{n}.parquet"), &format!("binary c {annotation}"), &values);
        let source = File::pattern(path).parquet_with(schema(&[("c", DataType::Utf8, false)]));
        let (delivered, end) = read_all(&source).await;
        match end {
            Ok(()) => {
                assert_eq!((delivered.rows(), delivered.rejected.len()), (2, 1), "{annotation}");
                assert_eq!(delivered.rejected[0].position, Some(Position(1)), "{annotation}");
            }
            // What the library looks at itself makes the page unreadable.
            Err(error) => assert!(error.to_string().contains("damaged"), "{annotation}: {error}"),
        }
    }
}

/// Nanoseconds since 1970 in 64 bits end in 2262, and the times of old files need not.
#[tokio::test]
async fn times_of_96_bits_are_read_far_from_1970() {
    let place = Place::new();
    let time = |julian_day: u32, nanos: u64| {
        let mut time = Int96::new();
        time.set_data((nanos & 0xffff_ffff) as u32, (nanos >> 32) as u32, julian_day);
        time
    };
    // 1970-01-01, 0001-01-01, 3000-01-01.
    let times = [time(2_440_588, 1_500), time(1_721_426, 0), time(2_816_788, 0)];
    let path = write_raw::<Int96Type>(&place, "a.parquet", "int96 at", &times);
    let source = File::pattern(&path).infer_parquet().unwrap();
    assert_eq!(source.schema().unwrap().field(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    let batch = read_well(&source).await.batch(&source.schema().unwrap());
    assert_eq!(
        batch.column(0).as_primitive::<TimestampMicrosecondType>().values(),
        &[1, -62_135_596_800_000_000, 32_503_680_000_000_000]
    );
    let wanted = schema(&[("at", DataType::Timestamp(TimeUnit::Second, Some("+00:00".into())), false)]);
    let delivered = read_well(&File::pattern(path).parquet_with(wanted.clone())).await;
    let seconds = delivered.batch(&wanted);
    let seconds = seconds.column(0).as_primitive::<arrow::datatypes::TimestampSecondType>();
    assert_eq!(seconds.values(), &[0, -62_135_596_800, 32_503_680_000]);
}

#[tokio::test]
async fn what_is_no_parquet_file_is_named() {
    let place = Place::new();
    let whole = fs::read(write(&place, "whole.parquet", &bids(100), 30)).unwrap();
    for (name, bytes) in [
        ("empty.parquet", &b""[..]),
        ("text.parquet", b"{\"price\": 1}\n{\"price\": 2}\n"),
        ("cut.parquet", &whole[..whole.len() / 2]),
        ("end.parquet", &whole[whole.len() - 100..]),
    ] {
        let path = place.path(name);
        fs::write(&path, bytes).unwrap();
        let source = File::pattern(&path).parquet::<Bid>();
        let error = error_of(&source).await;
        assert!(error.starts_with(&format!("{path}: the file is no Parquet file, or is damaged: ")), "{error}");
        assert_eq!(source.check().unwrap_err().to_string(), error);
    }
    fs::create_dir(place.path("dir.parquet")).unwrap();
    assert!(error_of(&File::pattern(place.path("dir.parquet")).parquet::<Bid>()).await.contains("is a directory"));
}

/// Bytes that are not what they were give an error that names the file, or rows, and never a panic; an error stays one.
#[tokio::test]
async fn damage_anywhere_is_an_error_or_goes_unseen_and_never_a_panic() {
    let place = Place::new();
    let whole = fs::read(write(&place, "whole.parquet", &bids(60), 30)).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let path = place.path("damaged.parquet");
    let (mut errors, mut rows) = (0, 0);
    for at in 4..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] = if random.bool() { random.u8(..) } else { damaged[at] ^ (1 << random.u8(..8)) };
        fs::write(&path, damaged).unwrap();
        let source = File::pattern(&path).parquet::<Bid>();
        let (delivered, end) = read_all(&source).await;
        rows += delivered.rows();
        if let Err(error) = end {
            assert!(error.to_string().starts_with(&path), "{error}");
            errors += 1;
        }
    }
    assert!(errors > 100 && rows > 1_000, "{errors} {rows}");
}
