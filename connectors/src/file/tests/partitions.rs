//! Rows find their directory, and a directory has a name that no value of the data can abuse.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, DictionaryArray, Int64Array, RecordBatch, StringArray,
        StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    },
    datatypes::{DataType, Int32Type, Int64Type, TimeUnit},
};
use proptest::prelude::*;

use super::{Place, incarnation, parquet_rows, says, schema, staged};
use crate::{
    Epoch, File, Sink, TimePartition,
    file::{
        FileSink,
        sink::partition::{PartitionBy, Partitioning, value_name},
    },
};

/// The numbers in the files of each directory.
fn numbers(place: &Place) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for name in place.files("out") {
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
        for batch in parquet_rows(place.path(&format!("out/{name}"))) {
            let values = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec();
            found.entry(directory.clone()).or_default().extend(values);
        }
    }
    found
}

async fn published(sink: &FileSink, batches: &[RecordBatch]) {
    sink.accepts(&batches[0].schema()).unwrap();
    let receipts = staged(sink, 1, 0, 1, batches).await;
    sink.commit(&receipts).await.unwrap();
}

fn out(place: &Place) -> FileSink {
    File::directory(place.path("out")).parquet()
}

fn with_numbers(name: &str, column: ArrayRef) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..column.len() as i64));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, false), (name, column, true)]).unwrap()
}

#[tokio::test]
async fn rows_of_a_directory_keep_their_order() {
    let place = Place::new();
    let countries: ArrayRef = Arc::new(StringArray::from(vec![
        Some("DE"),
        None,
        Some("a/b"),
        Some("DE"),
        Some(""),
        Some(".."),
        Some("__HIVE_DEFAULT_PARTITION__"),
        Some("DE"),
        None,
        Some("Österreich 100%"),
    ]));
    let batch = with_numbers("country", countries);
    published(&out(&place).partition_by(["country"]), &[batch.clone(), batch.slice(0, 1)]).await;
    let expected = [
        ("country=", vec![4]),
        ("country=%5F_HIVE_DEFAULT_PARTITION__", vec![6]),
        ("country=%C3%96sterreich%20100%25", vec![9]),
        ("country=..", vec![5]),
        ("country=DE", vec![0, 3, 7, 0]),
        ("country=__HIVE_DEFAULT_PARTITION__", vec![1, 8]),
        ("country=a%2Fb", vec![2]),
    ];
    let expected: BTreeMap<String, Vec<i64>> = expected.map(|(name, rows)| (name.to_owned(), rows)).into();
    assert_eq!(numbers(&place), expected);
}

#[tokio::test]
async fn times_and_columns_combine_in_the_order_of_the_calls() {
    const HOUR: i64 = 3_600;
    let seconds = [Some(0), Some(-1), Some(HOUR), Some(86_400 * 20_777 + 13 * HOUR + 59), None, Some(HOUR - 1)];
    let scaled = |scale: i64| seconds.map(|time| time.map(|time| time * scale)).to_vec();
    let columns: [ArrayRef; 4] = [
        Arc::new(TimestampSecondArray::from(scaled(1))),
        Arc::new(TimestampMillisecondArray::from(scaled(1_000)).with_timezone("+05:00")),
        Arc::new(TimestampMicrosecondArray::from(scaled(1_000_000)).with_timezone("+00:00")),
        Arc::new(TimestampNanosecondArray::from(scaled(1_000_000_000))),
    ];
    for column in columns {
        let place = Place::new();
        let batch = with_numbers("at", column);
        published(&out(&place).partition_by_time("at", TimePartition::Hourly), std::slice::from_ref(&batch)).await;
        let expected = [
            ("dt=1969-12-31/hour=23", vec![1]),
            ("dt=1970-01-01/hour=00", vec![0, 5]),
            ("dt=1970-01-01/hour=01", vec![2]),
            ("dt=2026-11-20/hour=13", vec![3]),
            ("dt=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__", vec![4]),
        ];
        let expected: BTreeMap<String, Vec<i64>> = expected.map(|(name, rows)| (name.to_owned(), rows)).into();
        assert_eq!(numbers(&place), expected);

        let place = Place::new();
        let sink = out(&place).partition_by(["n"]).partition_by_time("at", TimePartition::Daily);
        published(&sink, &[batch.slice(2, 2)]).await;
        assert_eq!(numbers(&place).into_keys().collect::<Vec<_>>(), ["n=2/dt=1970-01-01", "n=3/dt=2026-11-20"]);
    }
}

#[tokio::test]
async fn every_type_that_is_accepted_has_names() {
    let columns: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(Int64Array::from(vec![Some(-5), None])), "x=-5"),
        (Arc::new(BooleanArray::from(vec![Some(true), None])), "x=true"),
        (Arc::new(StringViewArray::from(vec![Some("v"), None])), "x=v"),
        (Arc::new(Date32Array::from(vec![Some(20_777), None])), "x=2026-11-20"),
        (Arc::new([Some("red"), None].into_iter().collect::<DictionaryArray<Int32Type>>()), "x=red"),
    ];
    for (column, name) in columns {
        let place = Place::new();
        published(&out(&place).partition_by(["x"]), &[with_numbers("x", column)]).await;
        let expected = [(name, vec![0]), ("x=__HIVE_DEFAULT_PARTITION__", vec![1])];
        assert_eq!(numbers(&place), expected.map(|(name, rows)| (name.to_owned(), rows)).into());
    }
}

#[test]
fn what_cannot_be_partitioned_by_is_refused_first() {
    let columns = schema(&[
        ("country", DataType::Utf8, true),
        ("price", DataType::Float64, true),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ("day", DataType::Date32, true),
        ("tags", DataType::new_list(DataType::Utf8, true), true),
        ("dt", DataType::Utf8, true),
        (&"long".repeat(20), DataType::Utf8, true),
    ]);
    let sink = || File::directory("out").json();
    let by = |column: &str| sink().partition_by([column]);
    let by_time = |column: &str| sink().partition_by_time(column, TimePartition::Hourly);
    let refused = [
        (by("contry"), vec!["\"contry\"", "did you mean \"country\"?"]),
        (by_time("At"), vec!["\"At\"", "did you mean \"at\"?"]),
        (by("price"), vec!["\"price\" (Float64)", "cast it"]),
        (by("tags"), vec!["\"tags\""]),
        (by("at"), vec!["\"at\"", "partition_by_time"]),
        (by_time("country"), vec!["\"country\" (Utf8)", "need a timestamp"]),
        (by_time("day"), vec!["\"day\"", "partition_by"]),
        (by("dt").partition_by_time("at", TimePartition::Daily), vec!["\"dt\"", "once"]),
        (by("country").partition_by(["country"]), vec!["\"country\"", "once"]),
        (by(&"long".repeat(20)), vec!["80 bytes", "rename"]),
    ];
    for (sink, expected) in refused {
        let error = sink.accepts(&columns).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    by("country").partition_by(["day"]).partition_by_time("at", TimePartition::Hourly).accepts(&columns).unwrap();
}

#[tokio::test]
async fn the_open_files_of_a_task_are_bounded() {
    let place = Place::new();
    let sink = out(&place).partition_by(["n"]);
    let numbers_of =
        |values: Vec<i64>| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap();
    let mut writer = sink.writer(&incarnation(1), 0, numbers_of(vec![]).schema()).await.unwrap();
    // 0 is used all the time and stays open; the other 99 come round and round, so each is closed before it comes again.
    for round in 0..2 {
        for n in 1..100 {
            writer.write(numbers_of(vec![0, n])).await.unwrap();
        }
        // Only Linux says which files a process has open.
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
            let open = open.filter(|path| path.starts_with(place.path("out"))).count();
            assert_eq!(open, 64, "round {round}");
        }
    }
    let receipts = writer.stage(Epoch(1)).await.unwrap();
    assert_eq!(receipts.iter().filter(|receipt| says(receipt, "hidden").starts_with("n=0/")).count(), 1);
    assert_eq!(receipts.len(), 1 + 2 * 99);
    sink.commit(&receipts).await.unwrap();
    let found = numbers(&place);
    assert_eq!((found.len(), found["n=0"].len(), found["n=99"].len()), (100, 198, 2));
}

#[test]
fn long_values_are_cut_to_names_of_their_own() {
    assert_eq!(value_name(None), "__HIVE_DEFAULT_PARTITION__");
    let mut names = HashSet::new();
    for length in [0, 1, 64, 65, 66, 67, 165, 166, 167, 168, 198, 199, 200, 201, 1_000] {
        for (byte, width) in [("a", 1), ("\u{fc}", 6), ("/", 3), ("_", 1)] {
            let value = byte.repeat(length);
            let name = value_name(Some(value.as_bytes()));
            assert_eq!(name.len(), if length * width < 200 { length * width } else { 200 }, "{byte:?} {length}");
            // A value that looks like the cut name of another is not taken for it.
            assert!(name.len() < 200 || value_name(Some(name.as_bytes())) != name, "{byte:?} {length}");
            assert!(names.insert(name) || length == 0, "{byte:?} {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever a value is, its name is one harmless component of a path, and is no other value's.
    #[test]
    fn names_stay_below_the_root_and_differ(
        values in prop::collection::hash_set(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                prop::collection::vec(prop::sample::select(b"./\\%=_-~Aa\0\n ".to_vec()), 0..90),
                "[a%2F]{190,210}".prop_map(String::into_bytes),
                "_{1,2}HIVE_DEFAULT_PARTITION__".prop_map(String::into_bytes),
            ],
            1..20,
        )
    ) {
        let root = std::path::Path::new("/data/out");
        let mut names = HashSet::from([value_name(None)]);
        for value in &values {
            let name = value_name(Some(value));
            prop_assert!(name.len() <= 200);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-%".contains(&byte)), "{}", name);
            let path = root.join(format!("country={name}"));
            prop_assert_eq!(path.parent(), Some(root));
            prop_assert_eq!(path.components().count(), root.components().count() + 1);
            if name.len() < 200 {
                let decoded: Vec<u8> = percent_encoding::percent_decode_str(&name).collect();
                prop_assert_eq!(&decoded, value);
            }
            prop_assert!(names.insert(name), "two values have one name");
        }
    }

    /// No row is lost or doubled on its way to a directory, and each is where its value says.
    #[test]
    fn every_row_is_in_the_directory_of_its_value(
        values in prop::collection::vec(prop::option::of("[ab/.%]{0,3}"), 1..60),
        rows in 1_usize..20,
    ) {
        let batch = with_numbers("x", Arc::new(StringArray::from(values.clone())));
        let batches: Vec<_> =
            (0..values.len()).step_by(rows).map(|at| batch.slice(at, rows.min(values.len() - at))).collect();
        let by = [PartitionBy::Column("x".to_owned())];
        let partitioning = Partitioning::new(&by, &batch.schema()).unwrap();
        let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for batch in batches {
            for (directory, rows) in partitioning.split(&batch).unwrap() {
                let numbers = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                found.entry(directory).or_default().extend(numbers);
            }
        }
        let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (n, value) in (0..).zip(&values) {
            let name = value_name(value.as_deref().map(str::as_bytes));
            expected.entry(format!("x={name}")).or_default().push(n);
        }
        prop_assert_eq!(found, expected);
    }
}
