//! Files appear complete or not at all, and what is written can be read again.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
        FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
        StringViewArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
    },
    compute::concat_batches,
    datatypes::{DataType, Field, Fields, Int32Type, Int64Type, TimeUnit},
};

use super::{Place, incarnation, parquet_rows, read_well, says, schema, staged};
use crate::{Epoch, File, Sink, SinkWriter, Source, file::FileSink};

fn batch() -> RecordBatch {
    let arrays: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX])),
        Arc::new(StringArray::from(vec![Some("a \"quoted\",\r\nline"), None, Some("\u{1f33e}")])),
        Arc::new(Float64Array::from(vec![Some(0.1), Some(-1e300), None])),
        Arc::new(TimestampMillisecondArray::from(vec![-1, 253_402_300_799_999, 0])),
    ];
    let columns = schema(&[
        ("n", DataType::Int64, false),
        ("t", DataType::Utf8, true),
        ("f", DataType::Float64, true),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]);
    RecordBatch::try_new(columns, arrays).unwrap()
}

fn sinks(place: &Place) -> [FileSink; 3] {
    let directory = || File::directory(place.path("out/deep"));
    [directory().json(), directory().csv(), directory().parquet()]
}

async fn writer(sink: &FileSink, task: usize) -> Box<dyn SinkWriter> {
    sink.writer(&incarnation(1), task, batch().schema()).await.unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    for format in [0, 1, 2] {
        let place = Place::new();
        let sink = &sinks(&place)[format];
        sink.accepts(&batch().schema()).unwrap();
        for task in [0, 12] {
            let mut writer = writer(sink, task).await;
            writer.write(batch()).await.unwrap();
            writer.write(batch().slice(0, 0)).await.unwrap();
            writer.write(batch()).await.unwrap();
            let receipts = writer.stage(Epoch(5)).await.unwrap();
            assert_eq!(receipts.len(), 1);
            assert!(place.files("out/deep").iter().filter(|name| !name.starts_with('.')).count() <= task, "not yet");
            sink.commit(&receipts).await.unwrap();
            assert_eq!(writer.stage(Epoch(6)).await.unwrap(), [], "an epoch without rows has no file");
        }
        let names = place.files("out/deep");
        assert_eq!(names.len(), 2, "{names:?}");
        let ending = ["jsonl", "csv", "parquet"][format];
        for (name, task) in names.iter().zip(["000", "012"]) {
            let begin = format!("part-00c0ffee-000001-0000000005-{task}-");
            assert!(name.starts_with(&begin) && name.ends_with(&format!(".{ending}")), "{names:?}");
        }
        assert!(sink.name().ends_with(&format!("out/deep/*.{ending}")), "{}", sink.name());

        let expected = concat_batches(&batch().schema(), &vec![batch(); 4]).unwrap();
        let files = File::pattern(place.path("out/deep/*"));
        let source = match format {
            0 => files.json_with(batch().schema()),
            1 => files.csv_with(batch().schema()),
            _ => {
                let read: Vec<_> =
                    names.iter().flat_map(|name| parquet_rows(place.path(&format!("out/deep/{name}")))).collect();
                assert_eq!(concat_batches(&batch().schema(), &read).unwrap(), expected);
                continue;
            }
        };
        let delivered = read_well(&source).await;
        assert_eq!(delivered.rejected, []);
        assert_eq!(delivered.batch(&source.schema().unwrap()), expected);
    }
}

#[tokio::test]
async fn parquet_keeps_every_type_with_its_nulls() {
    let strings = || StringArray::from(vec![Some("a"), None, Some("\u{1f33e}")]);
    let inner = Fields::from(vec![
        Field::new("x", DataType::Int64, true),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
    ]);
    let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    tags.append_value([Some("p"), None]);
    tags.append_null();
    tags.append_value(Vec::<Option<&str>>::new());
    let tags: ArrayRef = Arc::new(tags.finish());
    let structs: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])), tags.clone()];
    let present = arrow::buffer::NullBuffer::from(vec![true, true, false]);
    let mut entries =
        arrow::array::MapBuilder::new(None, arrow::array::StringBuilder::new(), arrow::array::Int64Builder::new());
    entries.keys().append_value("k");
    entries.values().append_value(7);
    for present in [true, false, true] {
        entries.append(present).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        ("u", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("f", Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(-0.0)]))),
        ("s", Arc::new(strings())),
        ("l", Arc::new(LargeStringArray::from(vec![Some(""), None, Some("x")]))),
        ("v", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None, Some("y")]))),
        ("y", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None, Some(b"")]))),
        ("d", Arc::new(Date32Array::from(vec![Some(-1), None, Some(i32::MAX)]))),
        (
            "m",
            Arc::new(
                Decimal128Array::from(vec![Some(-12_345), None, Some(1)]).with_precision_and_scale(20, 3).unwrap(),
            ),
        ),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MIN), None, Some(1)]).with_timezone("+00:00"))),
        ("k", Arc::new([Some("red"), None, Some("red")].into_iter().collect::<DictionaryArray<Int32Type>>())),
        (
            "z",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some([1_u8; 4]), None, Some([0; 4])].into_iter(),
                    4,
                )
                .unwrap(),
            ),
        ),
        ("list", tags),
        ("struct", Arc::new(StructArray::new(inner, structs, Some(present)))),
        ("map", Arc::new(entries.finish())),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let place = Place::new();
    let sink = File::directory(place.path("out")).parquet();
    sink.accepts(&batch.schema()).unwrap();
    let receipts = staged(&sink, 1, 0, 1, &[batch.clone(), batch.slice(1, 2)]).await;
    sink.commit(&receipts).await.unwrap();
    let read = parquet_rows(place.path(&format!("out/{}", says(&receipts[0], "published"))));
    let expected = concat_batches(&batch.schema(), &[batch.clone(), batch.slice(1, 2)]).unwrap();
    assert_eq!(concat_batches(&batch.schema(), &read).unwrap(), expected);
    // Our own source takes the types of Parquet, and makes of them those that are asked for.
    let source = File::pattern(place.path("out/*.parquet")).parquet_with(batch.schema());
    let delivered = read_well(&source).await;
    assert_eq!(delivered.batch(&batch.schema()), expected);
}

#[tokio::test]
async fn a_writer_that_does_not_stage_leaves_nothing_and_one_that_does_leaves_what_it_staged() {
    let place = Place::new();
    for sink in sinks(&place) {
        let mut first = writer(&sink, 0).await;
        first.write(batch()).await.unwrap();
        assert_eq!(place.files("out/deep").len(), 1);
        drop(first);
        assert_eq!(place.files("out/deep"), Vec::<String>::new());

        let mut second = writer(&sink, 0).await;
        second.write(batch()).await.unwrap();
        let receipts = second.stage(Epoch(1)).await.unwrap();
        second.write(batch()).await.unwrap();
        drop(second);
        assert_eq!(place.files("out/deep"), [says(&receipts[0], "hidden")]);
        sink.commit(&receipts).await.unwrap();
        fs::remove_file(place.path(&format!("out/deep/{}", says(&receipts[0], "published")))).unwrap();
    }
    assert_eq!(place.names(), ["out"]);
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_published() {
    let place = Place::new();
    let column: Arc<dyn Array> = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]));
    let bad = RecordBatch::try_from_iter([("at", column)]).unwrap();
    let [json, csv, parquet] = sinks(&place);
    for sink in [json, csv, parquet.partition_by_time("at", crate::TimePartition::Daily)] {
        let mut writer = sink.writer(&incarnation(1), 0, bad.schema()).await.unwrap();
        let good: Arc<dyn Array> = Arc::new(TimestampMillisecondArray::from(vec![7]));
        writer.write(RecordBatch::try_from_iter([("at", good)]).unwrap()).await.unwrap();
        assert!(writer.write(bad.clone()).await.unwrap_err().to_string().contains("calendar"));
        assert_eq!(place.files("out/deep"), Vec::<String>::new(), "the good row will be written again");
        assert!(writer.write(bad.slice(0, 0)).await.is_err());
        let error = writer.stage(Epoch(1)).await.unwrap_err().to_string();
        assert!(error.contains("out/deep") && error.contains("task 0"), "{error}");
    }
}

/// A job that is aborted while a writer waits for the disk drops the call; what it had in hand must not be forgotten.
#[tokio::test]
async fn a_call_that_is_given_up_half_way_is_a_failed_one() {
    let place = Place::new();
    for sink in sinks(&place) {
        let mut writer = writer(&sink.roll_bytes(1), 0).await;
        // Polled once: the rows are written, and the part is being closed on another thread. That may be done already.
        for _ in 0..1_000 {
            tokio::select! {
                biased;
                written = writer.write(batch()) => written.unwrap(),
                () = std::future::ready(()) => break,
            }
        }
        let error = writer.stage(Epoch(1)).await.unwrap_err().to_string();
        assert!(error.contains("takes no more rows"), "{error}");
        assert!(writer.write(batch()).await.is_err());
    }
}

#[tokio::test]
async fn a_directory_that_is_removed_while_it_is_written_to_is_named() {
    let place = Place::new();
    for sink in sinks(&place) {
        let mut one = writer(&sink, 0).await;
        fs::remove_dir_all(place.path("out")).unwrap();
        let error = one.write(batch()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot create") && error.contains("out/deep/.part-"), "{error}");

        let mut two = writer(&sink, 0).await;
        two.write(batch()).await.unwrap();
        fs::remove_dir_all(place.path("out")).unwrap();
        let error = two.stage(Epoch(1)).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot make durable") && error.contains("out/deep"), "{error}");
    }
}

#[tokio::test]
async fn columns_that_cannot_be_written_are_refused_first() {
    let place = Place::new();
    let [json, csv, parquet] = sinks(&place);
    let nested = schema(&[("tags", DataType::new_list(DataType::Int64, true), true)]);
    json.accepts(&nested).unwrap();
    parquet.accepts(&nested).unwrap();
    assert!(csv.accepts(&nested).unwrap_err().to_string().contains("\"tags\""));
    let odd = schema(&[("odd", DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano), true)]);
    assert!(parquet.accepts(&odd).unwrap_err().to_string().contains("\"odd\""));

    for job in ["", "a-b", "../a", "a/b", &"x".repeat(65)] {
        let job = crate::Incarnation { job: job.to_owned(), ..incarnation(1) };
        assert!(json.writer(&job, 0, batch().schema()).await.is_err(), "{job:?}");
    }
}

#[tokio::test]
async fn a_part_is_closed_when_it_is_large() {
    let numbers = |from: i64| -> RecordBatch {
        let mut random = fastrand::Rng::with_seed(from as u64);
        let noise = Int64Array::from_iter_values(std::iter::repeat_with(|| random.i64(..)).take(1_000));
        let numbers = Int64Array::from_iter_values(from..from + 1_000);
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("r", Arc::new(noise) as _)]).unwrap()
    };
    let place = Place::new();
    for sink in sinks(&place) {
        let batches: Vec<_> = (0..10).map(|i| numbers(i * 1_000)).collect();
        let receipts = staged(&sink.clone().roll_bytes(20_000), 1, 0, 1, &batches).await;
        let rows: Vec<u64> = receipts
            .iter()
            .map(|receipt| serde_json::from_str::<serde_json::Value>(&receipt.0).unwrap()["rows"].as_u64().unwrap())
            .collect();
        assert_eq!(rows.iter().sum::<u64>(), 10_000);
        assert!((4..=10).contains(&rows.len()), "{rows:?}");
        let one = staged(&sink, 1, 0, 1, &batches).await;
        assert_eq!(one.len(), 1);
        sink.commit(&receipts).await.unwrap();
        sink.commit(&one).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_closed_when_it_is_old() {
    let place = Place::new();
    let sink = File::directory(place.path("out")).json().roll_after(Duration::from_secs(60));
    let mut writer = writer(&sink, 0).await;
    for seconds in [0, 59, 1, 30, 30, 1] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        writer.write(batch()).await.unwrap();
    }
    // Opened at 0 and closed at 60 with three batches; opened at 90, and closed by the stage.
    let receipts = writer.stage(Epoch(1)).await.unwrap();
    let rows: Vec<serde_json::Value> =
        receipts.iter().map(|receipt| serde_json::from_str(&receipt.0).unwrap()).collect();
    assert_eq!(rows.iter().map(|fields| fields["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [9, 9]);
}

/// Fault matrix, row 24: whoever reads all final names at any time finds complete Parquet files only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_a_file_without_its_footer() {
    let place = Place::new();
    let sink = File::directory(place.path("out")).parquet().roll_bytes(2_000);
    let mut writers = [writer(&sink, 0).await, writer(&sink, 1).await];
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (done, out) = (done.clone(), place.path("out"));
        move || {
            let (mut opened, mut last) = (0, false);
            while !last {
                last = done.load(Relaxed);
                for entry in fs::read_dir(&out).unwrap().map(|entry| entry.unwrap()) {
                    if !entry.file_name().to_str().unwrap().starts_with('.') {
                        assert!(parquet_rows(entry.path()).iter().map(RecordBatch::num_rows).sum::<usize>() > 0);
                        opened += 1;
                    }
                }
            }
            opened
        }
    });
    let mut rows = 0;
    for epoch in 1..20 {
        let mut receipts = Vec::new();
        for writer in &mut writers {
            for _ in 0..5 {
                writer.write(batch()).await.unwrap();
                rows += 3;
            }
            receipts.extend(writer.stage(Epoch(epoch)).await.unwrap());
        }
        sink.commit(&receipts).await.unwrap();
    }
    done.store(true, Relaxed);
    assert!(reader.join().unwrap() >= 38);
    let read = place.files("out").into_iter().flat_map(|name| parquet_rows(place.path(&format!("out/{name}"))));
    assert_eq!(read.map(|batch| batch.column(0).as_primitive::<Int64Type>().len()).sum::<usize>(), rows);
}
