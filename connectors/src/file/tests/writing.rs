//! Files appear complete or not at all, and what is written can be read again.

use std::sync::Arc;

use arrow::{
    array::{Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, TimeUnit},
};

use super::{Place, read_well, schema};
use crate::{File, Sink, Source, file::FileSink};

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

fn sinks(place: &Place) -> [FileSink; 2] {
    let directory = || File::directory(place.path("out/deep"));
    [directory().json(), directory().csv()]
}

fn visible(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(place.path("out/deep"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    for format in [0, 1] {
        let place = Place::new();
        let sink = &sinks(&place)[format];
        sink.accepts(&batch().schema()).unwrap();
        for task in [0, 12] {
            let mut writer = sink.writer(task, batch().schema()).await.unwrap();
            writer.write(batch()).await.unwrap();
            writer.write(batch().slice(0, 0)).await.unwrap();
            writer.write(batch()).await.unwrap();
            assert!(visible(&place).iter().filter(|name| !name.starts_with('.')).count() <= task, "not yet");
            writer.finish().await.unwrap();
            assert!(writer.finish().await.is_err() && writer.write(batch()).await.is_err());
        }
        let names = visible(&place);
        assert_eq!(names.len(), 2, "{names:?}");
        let ending = ["jsonl", "csv"][format];
        assert!(names[0].starts_with("part-") && names[0].ends_with(&format!("-000.{ending}")), "{names:?}");
        assert_eq!(names[0].len(), "part-01234567-000.".len() + ending.len());
        assert!(names[1].ends_with(&format!("-012.{ending}")), "{names:?}");

        let files = File::pattern(place.path("out/deep/*"));
        let source = if format == 0 { files.json_with(batch().schema()) } else { files.csv_with(batch().schema()) };
        let delivered = read_well(&source).await;
        assert_eq!(delivered.rejected, []);
        let expected = arrow::compute::concat_batches(&batch().schema(), &vec![batch(); 4]).unwrap();
        assert_eq!(delivered.batch(&source.schema().unwrap()), expected);
    }
}

#[tokio::test]
async fn a_writer_that_does_not_finish_leaves_nothing() {
    let place = Place::new();
    for sink in sinks(&place) {
        let mut writer = sink.writer(0, batch().schema()).await.unwrap();
        writer.write(batch()).await.unwrap();
        assert_eq!(visible(&place).len(), 1);
        drop(writer);
        let mut idle = sink.writer(1, batch().schema()).await.unwrap();
        idle.finish().await.unwrap();
        assert_eq!(visible(&place), Vec::<String>::new());
    }
    assert_eq!(place.names(), ["out"]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_not_overwritten() {
    let place = Place::new();
    let [sink, _] = sinks(&place);
    let mut first = sink.writer(0, batch().schema()).await.unwrap();
    first.write(batch()).await.unwrap();
    let mut same = sink.writer(0, batch().schema()).await.unwrap();
    assert!(same.write(batch()).await.unwrap_err().to_string().contains("cannot create"));
    drop(same);
    first.finish().await.unwrap();
    let published = std::fs::read(place.path(&format!("out/deep/{}", visible(&place)[0]))).unwrap();

    let mut again = sink.writer(0, batch().schema()).await.unwrap();
    again.write(batch().slice(0, 1)).await.unwrap();
    assert!(again.finish().await.unwrap_err().to_string().contains("cannot publish"));
    drop(again);
    assert_eq!(visible(&place).len(), 1);
    assert_eq!(std::fs::read(place.path(&format!("out/deep/{}", visible(&place)[0]))).unwrap(), published);
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_published() {
    let place = Place::new();
    let column: Arc<dyn Array> = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]));
    let bad = RecordBatch::try_from_iter([("at", column)]).unwrap();
    for sink in sinks(&place) {
        let mut writer = sink.writer(0, bad.schema()).await.unwrap();
        assert!(writer.write(bad.clone()).await.unwrap_err().to_string().contains("calendar"));
        assert!(writer.finish().await.is_err());
        drop(writer);
        assert_eq!(visible(&place), Vec::<String>::new());
    }
}

#[tokio::test]
async fn columns_that_cannot_be_written_are_refused_first() {
    let place = Place::new();
    let [json, csv] = sinks(&place);
    let nested = schema(&[("tags", DataType::new_list(DataType::Int64, true), true)]);
    json.accepts(&nested).unwrap();
    assert!(csv.accepts(&nested).unwrap_err().to_string().contains("\"tags\""));
    assert!(csv.name().ends_with("out/deep/*.csv"), "{}", csv.name());
}
