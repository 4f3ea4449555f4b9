//! Dead letters that were cut, which are no records, and whose headers are read only where they may be.

use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, AsArray};
use rdkafka::{
    Timestamp,
    message::{Header, OwnedHeaders, OwnedMessage},
};

use super::*;
use crate::kafka::source::{
    KafkaSource,
    lane::{Lane, Taken},
    layout::ASKED,
    tests::fake::Written,
};

fn with(headers: &[(&str, &str)]) -> OwnedHeaders {
    let insert = |all: OwnedHeaders, (key, value): &(&str, &str)| all.insert(Header { key, value: Some(*value) });
    headers.iter().fold(OwnedHeaders::new(), insert)
}

/// A letter that was cut.
fn cut(whole: &str) -> Written {
    let headers = [("windrow.topic", "first"), ("windrow.error", "no"), ("windrow.truncated", whole)];
    let headers = with(&[headers.as_slice(), &[("windrow.excerpt", "{\"v\":")]].concat());
    Written { key: Some(b"k".to_vec()), headers: Some(headers), ..Written::default() }
}

async fn read(source: KafkaSource<Untyped>, records: Vec<Written>) -> Rows {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| _ = records.into_iter().map(|record| log.append(record)).count());
    rows(&mut open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap()).await
}

fn why(bytes: &str) -> String {
    format!("is only the beginning of a record of {bytes} bytes, as the header windrow.truncated says")
}

/// Without a payload it would be a null, or a row that was deleted.
#[tokio::test]
async fn a_dead_letter_that_was_cut_is_no_record_and_no_tombstone() {
    let texts = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
    let listed = input().headers_column("h");
    for source in [
        input().raw(),
        input().csv_with(texts),
        input().json_with(numbers()),
        input().debezium_with(numbers()),
        listed.clone().json_with(numbers()),
        listed.debezium_with(numbers()),
    ] {
        let rows = read(source, vec![cut("5000000"), cut("x")]).await;
        assert_eq!(reasons(&rows.rejected), [(0, why("5000000").as_str()), (1, why("too many").as_str())]);
        assert_eq!((rows.batch.num_rows(), rows.passed_over), (0, 0));
        let [letter, _] = rows.rejected.as_slice() else { panic!("{rows:?}") };
        assert_eq!((letter.bytes.as_deref(), letter.key.as_deref()), (None, Some(&b"k"[..])));
        assert_eq!(letter.headers.len(), 4, "it can be a letter again");
    }
}

#[tokio::test]
async fn letters_that_were_cut_are_listed_beside_their_headers() {
    let whole = Written { payload: Some(b"whole".to_vec()), ..Written::default() };
    let rows = read(input().headers_column("h").raw(), vec![cut("5000000"), whole, Written::default()]).await;
    assert_eq!((rows.rejected.len(), rows.batch.num_rows()), (0, 3));
    let (values, headers) = (rows.batch.column(0).as_binary::<i32>(), rows.batch.column(1).as_map());
    assert!(values.is_null(0) && values.value(1) == b"whole" && values.is_null(2));
    assert_eq!(headers.value_offsets(), [0, 4, 4, 4]);
    let (names, values) = (headers.keys().as_string::<i32>(), headers.values().as_binary::<i32>());
    assert_eq!((names.value(2), values.value(2)), ("windrow.truncated", &b"5000000"[..]));
    assert_eq!((names.value(3), values.value(3)), ("windrow.excerpt", &b"{\"v\":"[..]));
    // For their event time they are rejected as what they are, and do not become whole letters that are empty.
    let was = |row| rows.origins.as_ref().unwrap().reject(row, "no time".into()).unwrap();
    assert_eq!((was(0).bytes, was(0).headers.len(), was(0).headers[2].0.as_str()), (None, 4, "windrow.truncated"));
    assert_eq!((was(1).bytes, was(2).bytes), (Some(b"whole".to_vec()), None));
}

/// A letter that was cut has none: this is somebody else's header.
#[tokio::test]
async fn what_has_a_payload_is_a_record_whatever_its_headers_say() {
    let headers = Some(with(&[("windrow.truncated", "7")]));
    let record = Written { payload: Some(br#"{"v": 1}"#.to_vec()), headers, ..Written::default() };
    let rows = read(input().json_with(numbers()), vec![record]).await;
    assert_eq!((values(&rows), rows.rejected.len()), (vec![1], 0));
}

/// What says where a letter came from first stays, and that it was cut.
#[tokio::test]
async fn a_letter_that_is_too_long_keeps_what_makes_it_one() {
    let large = "x".repeat(5_000);
    let place = [("windrow.topic", "first"), ("windrow.error", "no"), ("trace", large.as_str())];
    let whole =
        Written { payload: Some(large.clone().into_bytes()), headers: Some(with(&place)), ..Written::default() };
    let cut = Written { key: Some(large.clone().into_bytes()), ..cut("5000000") };
    for source in [input(), input().headers_column("h")] {
        let rows = read(source.max_record_bytes(4_000).raw(), vec![whole.clone(), cut.clone()]).await;
        let [whole, cut] = rows.rejected.as_slice() else { panic!("{rows:?}") };
        let names = |rejected: &Rejected| rejected.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(whole), ["windrow.topic", "windrow.error"]);
        assert_eq!(names(cut), ["windrow.topic", "windrow.error", "windrow.truncated", "windrow.excerpt"]);
        assert!(whole.truncated >= Some(5_000) && whole.bytes.as_ref().is_some_and(|bytes| bytes.len() == 1_024));
        assert!(cut.truncated.is_some() && cut.bytes.is_none());
    }
}

fn record(payload: Option<&str>, offset: i64) -> OwnedMessage {
    let payload = payload.map(|payload| payload.as_bytes().to_vec());
    let headers = Some(with(&[("trace", "7")]));
    OwnedMessage::new(payload, None, "a".into(), Timestamp::NotAvailable, 0, offset, headers)
}

/// How often headers were asked for.
fn asked(act: impl FnOnce()) -> u32 {
    ASKED.set(0);
    act();
    ASKED.get()
}

/// librdkafka makes a list of them for each record that it is asked for.
#[test]
fn headers_of_records_with_a_payload_are_not_asked_for_unless_somebody_wants_them() {
    let good = |lane: &mut Lane, plan: &Plan, offset| {
        let taken = lane.take(&record(Some(r#"{"v": 1}"#), offset), plan).unwrap();
        assert!(matches!(taken, Taken::Yes(_)));
    };
    let lane = |plan: &Plan| Lane::new(at(0, 0), 0, None, plan);

    let plain = plan(&input().json_with(numbers()));
    plain.without_origins.store(true, Relaxed);
    let mut rows = lane(&plain);
    assert_eq!(asked(|| (0..100).for_each(|offset| good(&mut rows, &plain, offset))), 0);
    // Once each: it may be a letter that was cut, and what is rejected is kept with them.
    assert_eq!(asked(|| _ = rows.take(&record(None, 100), &plain).unwrap()), 1);
    assert_eq!(asked(|| _ = rows.take(&record(Some("garbage"), 101), &plain).unwrap()), 1);
    let rejected = rows.flush(&plain).unwrap().rejected;
    assert!(rejected.len() == 2 && rejected.iter().all(|rejected| rejected.headers.len() == 1), "{rejected:?}");

    // Rows that may be rejected later are kept with them, unless one could not be read.
    let kept = plan(&input().json_with(numbers()));
    let mut rows = lane(&kept);
    assert_eq!(asked(|| good(&mut rows, &kept, 0)), 1);
    rows.blind = true;
    assert_eq!(asked(|| good(&mut rows, &kept, 1)), 0);
    let headers = Some(with(&[("windrow.truncated", "7")]));
    let cut = OwnedMessage::new(None, None, "a".into(), Timestamp::NotAvailable, 0, 2, headers);
    rows.take(&cut, &kept).unwrap();
    assert_eq!(reasons(&rows.flush(&kept).unwrap().rejected), [(2, why("7").as_str())], "blind or not");
}
