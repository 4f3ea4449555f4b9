//! Records into rows: columns from the message, what is rejected, ends, pauses, and partitions that are added.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use rdkafka::message::{Header, OwnedHeaders};

use super::*;
use crate::{
    Source,
    format::{Decoder, Format, Frame},
    kafka::source::tests::fake::Written,
};

fn written(key: Option<&[u8]>, payload: Option<&[u8]>) -> Written {
    Written { key: key.map(<[u8]>::to_vec), payload: payload.map(<[u8]>::to_vec), ..Written::default() }
}

#[tokio::test]
async fn parts_of_messages_are_columns() {
    let world = World::new(&[2]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("1") })
        .insert(Header { key: "trace", value: None::<&str> });
    let full = Written { millis: Some(1_500), headers: Some(headers), ..written(Some(b"k"), Some(br#"{"v": 7}"#)) };
    world.log(at(0, 1), |log| {
        log.skip(3);
        log.append(full);
        log.append(written(None, Some(br#"{"v": 8}"#)));
    });
    let parts = input().key_column("key").headers_column("h").timestamp_column("ts");
    let source = parts.partition_column("p").offset_column("o").topic_column("t").json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 1), None)]).await.unwrap();
    let rows = rows(&mut reader).await;
    assert_eq!(rows.batch.schema(), source.schema().unwrap());
    assert_eq!((rows.split.as_str(), rows.next, values(&rows)), ("a/1", Position(5), vec![7, 8]));
    let column = |name: &str| rows.batch.column_by_name(name).unwrap();
    let keys = column("key").as_binary::<i32>();
    assert_eq!((keys.value(0), keys.is_null(1)), (&b"k"[..], true));
    let times = column("ts").as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.is_null(1)), (1_500_000, true));
    assert_eq!(column("p").as_primitive::<Int32Type>().values(), &[1, 1]);
    assert_eq!(column("o").as_primitive::<Int64Type>().values(), &[3, 4]);
    assert_eq!(column("t").as_string::<i32>().value(1), "a");
    let headers = column("h").as_map();
    assert_eq!(headers.value_offsets(), &[0, 2, 2]);
    assert_eq!(headers.keys().as_string::<i32>().value(1), "trace");
    assert!(headers.values().is_null(1) && headers.values().as_binary::<i32>().value(0) == b"1");
}

#[tokio::test]
async fn declared_columns_are_filled_where_they_stand() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| {
        log.append(written(Some(b"good"), Some(br#"{"v": 1, "k": "from the payload"}"#)));
        log.append(written(Some(&[0xff]), Some(br#"{"v": 2}"#)));
        log.append(written(None, Some(br#"{"v": 3}"#)));
    });
    let fields = vec![Field::new("k", DataType::Utf8, false), Field::new("v", DataType::Int64, true)];
    let source = input().key_column("k").json_with(Arc::new(Schema::new(fields)));
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    let rows = rows(&mut reader).await;
    assert_eq!(rows.batch.column(0).as_string::<i32>().value(0), "good");
    assert_eq!((rows.batch.num_rows(), rows.next), (1, Position(3)));
    let reasons = reasons(&rows.rejected);
    assert_eq!(reasons[0].0, 1);
    assert!(reasons[0].1.contains("the key is not UTF-8"), "{reasons:?}");
    assert_eq!(reasons[1], (2, r#"column "k" is not nullable, and the record has no key"#));
}

#[test]
fn columns_that_cannot_be_are_told_before_the_first_record() {
    let error = |source: super::super::KafkaSource<Untyped>| source.check().unwrap_err().to_string();
    let wrong = error(input().key_column("v").json_with(numbers()));
    assert!(wrong.contains(r#"column "v" has the type Int64, and the key needs Binary or Utf8"#), "{wrong}");
    let twice = error(input().key_column("x").topic_column("x").json_with(numbers()));
    assert!(twice.contains(r#"column "x" cannot be two parts"#), "{twice}");
    let typed = input().offset_column("o").decoded::<i64>(numbers(), |schema, max| Format::Json.decoder(schema, max));
    let missing = typed.check().unwrap_err().to_string();
    assert!(missing.contains(r#"the column "o" is to hold the offset"#), "{missing}");
    let group = error(input().from(crate::kafka::Start::Group).json_with(numbers()));
    assert!(group.contains("needs a group"), "{group}");
    let before = error(input().from(crate::kafka::Start::Millis(-1)).json_with(numbers()));
    assert!(before.contains("before 1970"), "{before}");
    let none = error(Kafka::brokers("b").topics::<String>([]).json_with(numbers()));
    assert!(none.contains("without a topic"), "{none}");
}

#[tokio::test]
async fn what_does_not_decode_is_rejected_with_all_it_had() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| {
        log.append(written(Some(b"a"), Some(b"garbage")));
        log.append(written(Some(b"gone"), None));
        log.append(written(Some(b"big"), Some(&vec![b'x'; 5_000])));
        log.append(written(None, Some(br#"{"v": 3}"#)));
    });
    let source = input().max_record_bytes(4_000).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    let rows = rows(&mut reader).await;
    assert_eq!((values(&rows), rows.next), (vec![3], Position(4)));
    let [garbage, null, big] = rows.rejected.as_slice() else { panic!("{:?}", rows.rejected) };
    let kept = |rejected: &crate::Rejected| (rejected.bytes.clone().unwrap_or_default(), rejected.key.clone());
    assert_eq!(kept(garbage), (b"garbage".to_vec(), Some(b"a".to_vec())));
    assert!(null.reason.contains("no payload") && null.bytes.is_none(), "{}", null.reason);
    assert_eq!(big.reason, "has 5003 bytes, more than the 4000 of max_record_bytes");
    assert_eq!((big.bytes.as_ref().unwrap().len(), big.position), (1024, Some(Position(2))));
    assert_eq!((garbage.truncated, big.truncated), (None, Some(5_003)));
}

/// Those that do not decode, and those of rows that the engine rejects for their event time.
#[tokio::test]
async fn what_is_rejected_keeps_its_headers_its_time_and_its_partition() {
    let world = World::new(&[2]);
    let headers = OwnedHeaders::new().insert(Header { key: "a", value: Some("x") });
    let headers = headers.insert(Header { key: "none", value: None::<&str> });
    for payload in ["garbage", r#"{"v": 1}"#] {
        let record =
            Written { millis: Some(7), headers: Some(headers.clone()), ..written(None, Some(payload.as_bytes())) };
        world.log(at(0, 1), |log| log.append(record));
    }
    let mut reader =
        open(&plan(&input().json_with(numbers())), world.feed(1, false), &[(at(0, 1), None)]).await.unwrap();
    let mut rows = rows(&mut reader).await;
    rows.rejected.extend(rows.origins.as_ref().unwrap().reject(0, "no time".into()));
    assert_eq!(rows.rejected.len(), 2);
    for rejected in &rows.rejected {
        let headers = [("a".to_string(), Some(b"x".to_vec())), ("none".to_string(), None)];
        assert_eq!((rejected.headers.as_slice(), rejected.timestamp), (headers.as_slice(), Some(7)), "{rejected:?}");
        assert_eq!((rejected.partition, rejected.truncated), (Some(1), None));
    }
}

/// A row that decodes may still be rejected, for its event time: as the message it was.
#[tokio::test]
async fn rows_know_the_messages_they_were() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| {
        log.append(written(Some(b"a"), Some(br#"{"v": 0, "more": true}"#)));
        log.append(written(Some(b"bad"), Some(b"garbage")));
        log.skip(3);
        log.append(written(None, Some(br#" {"v":null}"#)));
        log.append(written(Some(b""), Some(b"{}")));
    });
    let source = input().batch_rows(3).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    let first = rows(&mut reader).await;
    assert_eq!(reasons(&first.rejected)[0].0, 1);
    let text = |text: &str| Some(text.to_string());
    let expected = [(0, text(r#"{"v": 0, "more": true}"#), text("a")), (5, text(r#" {"v":null}"#), None)];
    assert_eq!(origins(&first), expected);
    assert_eq!(origins(&rows(&mut reader).await), [(6, text("{}"), text(""))], "the next batch begins anew");
}

#[tokio::test]
async fn headers_count_if_they_are_wanted() {
    let world = World::new(&[1]);
    let headers = OwnedHeaders::new().insert(Header { key: "large", value: Some(&vec![0; 5_000]) });
    world.log(at(0, 0), |log| log.append(Written { headers: Some(headers), ..written(None, Some(br#"{"v": 1}"#)) }));
    for (wanted, rows_there) in [(true, 0), (false, 1)] {
        let input = input().max_record_bytes(4_000);
        let source = if wanted { input.headers_column("h") } else { input }.json_with(numbers());
        let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
        let rows = rows(&mut reader).await;
        assert_eq!((rows.batch.num_rows(), rows.rejected.len()), (rows_there, 1 - rows_there));
    }
}

#[tokio::test]
async fn what_rows_were_is_not_kept_when_nobody_asks() {
    let world = World::new(&[1]);
    let plan = plan(&input().json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    reader.without_origins();
    world.log(at(0, 0), |log| log.append_number());
    let without = rows(&mut reader).await;
    assert_eq!((without.batch.num_rows(), without.origins.is_none()), (1, true));
    // Another reader of the same source has its own.
    let mut other = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert_eq!(origins(&rows(&mut other).await).len(), 1);
}

/// Takes tombstones: as rows, or not at all.
struct Tombstones(Box<dyn Decoder>, bool);

impl Decoder for Tombstones {
    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }
    fn frame(&mut self, bytes: &[u8], last: bool) -> Frame {
        self.0.frame(bytes, last)
    }
    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        self.0.push(record)
    }
    fn push_null(&mut self) -> Result<bool, String> {
        if self.1 { self.0.push(b"{}").map(|()| true) } else { Ok(false) }
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn flush(&mut self) -> Result<arrow::array::RecordBatch> {
        self.0.flush()
    }
}

#[tokio::test]
async fn a_format_can_have_rows_for_tombstones() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| {
        log.append(written(Some(b"1"), Some(br#"{"v": 1}"#)));
        log.append(written(Some(b"2"), None));
        log.append(written(Some(b"3"), Some(br#"{"v": 3}"#)));
    });
    for are_rows in [true, false] {
        let make = move |schema, max| Ok(Box::new(Tombstones(Format::Json.decoder(schema, max)?, are_rows)) as Box<_>);
        let source = input().key_column("k").decoded::<Untyped>(numbers(), make);
        let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
        let rows = rows(&mut reader).await;
        let keys: Vec<_> = rows.batch.column(1).as_binary::<i32>().iter().flatten().collect();
        let expected: &[&[u8]] = if are_rows { &[b"1", b"2", b"3"] } else { &[b"1", b"3"] };
        assert_eq!((keys.as_slice(), rows.next), (expected, Position(3)));
        assert_eq!((rows.passed_over, rows.rejected.len()), (3 - expected.len() as u64, 0));
        let was =
            |offset: u64, payload: Option<&str>| (offset, payload.map(str::to_string), Some((offset + 1).to_string()));
        let mut expected = vec![was(0, Some(r#"{"v": 1}"#)), was(1, None), was(2, Some(r#"{"v": 3}"#))];
        expected.retain(|(offset, ..)| are_rows || *offset != 1);
        assert_eq!(origins(&rows), expected);
    }
}

#[tokio::test]
async fn a_bounded_source_ends_at_its_ends_and_not_at_records() {
    let world = World::new(&[3]);
    // Ends with markers; is empty; ends with a record.
    world.log(at(0, 0), |log| {
        log.append_number();
        log.skip(2);
    });
    world.log(at(0, 2), |log| (0..5).for_each(|_| log.append_number()));
    let source = input().bounded().json_with(numbers());
    assert_eq!(source.discover_every(), None);
    let all = [(at(0, 0), None), (at(0, 1), None), (at(0, 2), None)];
    let mut reader = open(&plan(&source), world.feed(3, false), &all).await.unwrap();
    for number in 0..3 {
        world.log(at(0, number), |log| (0..9).for_each(|_| log.append_number()));
    }
    let (mut ended, mut values_of) = (Vec::new(), Vec::new());
    loop {
        match next(&mut reader).await.unwrap().unwrap() {
            Fetch::Rows(rows) => values_of.extend(values(&rows).into_iter().map(|value| (rows.split.clone(), value))),
            Fetch::SplitEnd(split) => ended.push(split),
            Fetch::End => break,
        }
    }
    values_of.sort();
    ended.sort();
    let expected = (0..5).map(|value| (split("a/2"), value));
    assert_eq!(values_of, [(split("a/0"), 0)].into_iter().chain(expected).collect::<Vec<_>>());
    assert_eq!(ended, [split("a/0"), split("a/1"), split("a/2")]);
}

#[tokio::test]
async fn the_end_that_a_lagging_leader_tells_is_not_the_end() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..10).for_each(|_| log.append_number()));
    world.lock().lagging.insert(at(0, 0), 4);
    let source = input().bounded().json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert_eq!(values(&rows(&mut reader).await), [0, 1, 2, 3]);
    assert!(next(&mut reader).await.is_none());
    world.lock().lagging.clear();
    assert_eq!(values(&rows(&mut reader).await), [4, 5, 6, 7, 8, 9]);
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::SplitEnd(_)))));
}

#[tokio::test]
async fn a_reader_without_partitions_ends_only_if_none_can_come() {
    let world = World::new(&[1]);
    let bounded = plan(&input().bounded().json_with(numbers()));
    let mut reader = open(&bounded, world.feed(1, false), &[]).await.unwrap();
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
    let fixed = plan(&input().discover_every(None).json_with(numbers()));
    let mut reader = open(&fixed, world.feed(1, false), &[]).await.unwrap();
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
    let growing = plan(&input().json_with(numbers()));
    let mut reader = open(&growing, world.feed(1, false), &[]).await.unwrap();
    assert!(next(&mut reader).await.is_none());
    world.log(at(0, 0), |log| log.append_number());
    reader.add(vec![split("a/0")]).await.unwrap();
    assert_eq!(values(&rows(&mut reader).await), [0]);
}

#[tokio::test]
async fn added_partitions_are_read_from_their_beginning_even_when_the_channel_is_full() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..1_000).for_each(|_| log.append_number()));
    let source =
        input().batch_rows(10).from(crate::kafka::Start::Offsets([(("a".into(), 0), 100)].into())).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert_eq!(reader.positions(), [(split("a/0"), Position(100))]);
    // The thread has filled the channel by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.lock().topics[0].as_mut().unwrap().push(Default::default());
    world.log(at(0, 1), |log| {
        (0..20).for_each(|_| log.append_number());
        log.remove_before(5);
    });
    reader.add(vec![split("a/1")]).await.unwrap();
    assert_eq!(reader.positions(), [(split("a/0"), Position(100)), (split("a/1"), Position(5))]);
    let (all, end) = drain(&mut reader).await;
    end.unwrap();
    let of = |name: &str| all.iter().filter(|rows| rows.split.as_str() == name).flat_map(values).collect::<Vec<_>>();
    assert_eq!(of("a/0"), (100..1_000).collect::<Vec<_>>());
    assert_eq!(of("a/1"), (5..20).collect::<Vec<_>>());
    assert!(reader.positions().is_empty());
}

#[tokio::test]
async fn a_paused_partition_waits_and_loses_nothing() {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..500).for_each(|_| log.append_number()));
    }
    let source = input().batch_rows(10).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, true), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(reader.pause(&[split("a/0")]));
    let (other, _) = drain(&mut reader).await;
    assert!(other.iter().all(|rows| rows.split.as_str() == "a/1"));
    assert_eq!(other.iter().flat_map(values).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    reader.pause(&[split("a/1")]);
    let (paused, _) = drain(&mut reader).await;
    assert_eq!(paused.iter().flat_map(values).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn lag_is_what_is_left_and_nothing_at_the_end() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| {
        (0..50).for_each(|_| log.append_number());
        log.skip(2);
    });
    let plan = plan(&input().batch_rows(20).json_with(numbers()));
    let ends = Ends::default();
    let feed = world.feed(1, false);
    let assigned = vec![Assigned { at: at(0, 0), position: None, end: None, appeared: false }];
    let mut reader = KafkaReader::start(plan, assigned, ends.clone(), first_of(feed)).await.unwrap();
    assert_eq!(reader.lag(), [(split("a/0"), 52)], "known before the first statistics come");
    // What the statistics say: with the two markers at the end.
    ends.lock().unwrap().insert(at(0, 0), 52);
    assert_eq!(reader.lag(), [(split("a/0"), 52)]);
    rows(&mut reader).await;
    assert_eq!(reader.lag(), [(split("a/0"), 32)]);
    drain(&mut reader).await.1.unwrap();
    assert_eq!(reader.lag(), [(split("a/0"), 0)]);
}

#[tokio::test]
async fn the_thread_ends_with_its_reader() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..10_000).for_each(|_| log.append_number()));
    let alive = Arc::new(());
    let held = alive.clone();
    let make = move |schema, max| {
        let _held = &held;
        Format::Json.decoder(schema, max)
    };
    let reader = {
        let source = input().batch_rows(10).decoded::<Untyped>(numbers(), make);
        open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap()
    };
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(reader);
    for _ in 0..4_000 {
        if Arc::strong_count(&alive) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the thread still holds its decoder");
}
