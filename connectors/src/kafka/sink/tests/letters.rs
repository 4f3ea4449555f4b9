//! Dead letters: as they were, or cut to fit, and always with where they came from first.

use arrow::array::{TimestampMillisecondArray, UInt64Array};

use super::*;

fn rejects() -> RecordBatch {
    let texts = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
    batch(vec![
        ("source", texts(vec!["orders", "files", "orders"])),
        ("split", texts(vec!["orders.v1/3", "/data/in.csv", "orders.v1/3"])),
        ("position", Arc::new(UInt64Array::from(vec![Some(1207), None, Some(1208)]))),
        ("line", Arc::new(UInt64Array::from(vec![None, Some(4), None]))),
        ("reason", texts(vec!["column \"price\": x", "no", "it has no payload"])),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"{\"pr"[..]), Some(&b"a,b"[..]), None]))),
        ("key", Arc::new(BinaryArray::from(vec![Some(&b"u7"[..]), None, Some(&b"u8"[..])]))),
        ("truncated", Arc::new(UInt64Array::from(vec![None, Some(5_000_000), None]))),
        ("headers", own_headers(&[&[("trace", Some("7")), ("none", None)], &[], &[]])),
        ("timestamp", times(vec![Some(1_700_000_000_123), None, Some(0)])),
        ("partition", Arc::new(Int32Array::from(vec![Some(3), None, Some(3)]))),
    ])
}

fn times(times: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(times).with_timezone("+00:00"))
}

/// What the records of a topic had for headers.
fn own_headers(rows: &[&[(&str, Option<&str>)]]) -> ArrayRef {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
    for row in rows {
        for (name, value) in *row {
            maps.keys().append_value(name);
            maps.values().append_option(*value);
        }
        maps.append(!row.is_empty()).unwrap();
    }
    Arc::new(maps.finish())
}

/// Rejected records, some of their columns replaced.
fn but(mut columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let rejects = rejects();
    let column = |(field, column): (&Arc<Field>, &ArrayRef)| {
        let other = columns.iter().position(|(name, _)| name == field.name());
        other.map_or_else(|| column.clone(), |at| columns.remove(at).1)
    };
    let columns = rejects.schema_ref().fields().iter().zip(rejects.columns()).map(column).collect();
    RecordBatch::try_new(rejects.schema(), columns).unwrap()
}

#[tokio::test]
async fn dead_letters_are_the_records_as_they_were_with_the_reason_in_headers() {
    let letters = written(KafkaOutput::dead_letters, &rejects()).await.unwrap();
    let headers: Vec<Vec<_>> = letters
        .iter()
        .map(|letter| {
            letter.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or("null"))).collect()
        })
        .collect();
    assert_eq!((letters[0].key.as_deref(), letters[0].value.as_deref()), (Some("u7"), Some("{\"pr")));
    assert_eq!(
        headers[0],
        [
            ("trace", "7"),
            ("none", "null"),
            ("windrow.error", "column \"price\": x"),
            ("windrow.source", "orders"),
            ("windrow.split", "orders.v1/3"),
            ("windrow.position", "1207"),
            ("windrow.topic", "orders.v1"),
            ("windrow.partition", "3"),
            ("windrow.offset", "1207"),
        ]
    );
    assert_eq!(
        (letters[1].key.as_deref(), letters[1].value.as_deref()),
        (None, None),
        "no record, not even a part of one"
    );
    assert_eq!(
        headers[1],
        [
            ("windrow.error", "no"),
            ("windrow.source", "files"),
            ("windrow.split", "/data/in.csv"),
            ("windrow.line", "4"),
            ("windrow.truncated", "5000000"),
            ("windrow.excerpt", "a,b"),
        ]
    );
    assert_eq!((letters[2].key.as_deref(), letters[2].value.as_deref()), (Some("u8"), None), "a tombstone stays one");
    let times: Vec<_> = letters.iter().map(|letter| letter.timestamp).collect();
    assert_eq!(times, [Some(1_700_000_000_123), None, Some(0)]);
}

#[tokio::test]
async fn a_letter_that_is_rejected_again_says_where_it_came_from_first() {
    let first = [("windrow.error", Some("then")), ("windrow.topic", Some("orders")), ("trace", Some("7"))];
    let again = but(vec![("headers", own_headers(&[&first, &[], &[]]))]);
    let letters = written(KafkaOutput::dead_letters, &again).await.unwrap();
    let headers: Vec<_> = letters[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let expected =
        [("windrow.topic", Some("orders")), ("trace", Some("7")), ("windrow.error", Some("column \"price\": x"))];
    assert_eq!(headers, expected);
}

/// A file may lie at `in/7`.
#[tokio::test]
async fn only_what_its_source_says_is_a_partition_is_one() {
    let of_files = but(vec![("partition", Arc::new(Int32Array::from(vec![None; 3])))]);
    let letters = written(KafkaOutput::dead_letters, &of_files).await.unwrap();
    let is_place = |name: &str| ["windrow.topic", "windrow.partition", "windrow.offset"].contains(&name);
    assert!(letters.iter().flat_map(|letter| &letter.headers).all(|(name, _)| !is_place(name)), "{letters:?}");
}

#[tokio::test]
async fn a_time_that_brokers_may_refuse_is_in_a_header() {
    let times = times(vec![Some(i64::MAX), Some(-5), Some(5)]);
    let letters = written(KafkaOutput::dead_letters, &but(vec![("timestamp", times)])).await.unwrap();
    let of = |letter: &Written| {
        let header = letter.headers.iter().find(|(name, _)| name == "windrow.timestamp");
        (letter.timestamp, header.and_then(|(_, value)| value.clone()))
    };
    let expected = [(None, Some("9223372036854775807".into())), (None, Some("-5".into())), (Some(5), None)];
    assert_eq!(letters.iter().map(of).collect::<Vec<_>>(), expected);
}

/// Whatever is large in it: a letter that nobody takes would end the job, at every start again.
#[tokio::test]
async fn a_letter_that_is_too_large_for_client_or_topic_is_an_excerpt() {
    let large = "ä".repeat(600_000);
    let bytes = || Arc::new(BinaryArray::from(vec![Some(large.as_bytes()), Some(b"x"), None])) as ArrayRef;
    let texts = || Arc::new(StringArray::from(vec![large.as_str(), "no", "no"])) as ArrayRef;
    let own = || own_headers(&[&[("large", Some(large.as_str()))], &[], &[]]);
    for (column, array, whole) in [
        ("bytes", bytes(), 1_200_012),
        ("key", bytes(), 1_200_014),
        ("reason", texts(), 16),
        ("headers", own(), 1_200_011),
    ] {
        let letters = written(KafkaOutput::dead_letters, &but(vec![(column, array)])).await.unwrap();
        let Written { key, value, headers, .. } = &letters[0];
        assert_eq!(
            (header(&letters[0], "windrow.truncated"), value),
            (Some(whole.to_string().as_str()), &None),
            "{column}"
        );
        let excerpt = if column == "bytes" { &large[..1024] } else { "{\"pr" };
        assert_eq!(header(&letters[0], "windrow.excerpt"), Some(excerpt), "{column}");
        let lengths = headers.iter().filter_map(|(_, value)| value.as_ref()).chain(key).chain(value).map(String::len);
        assert!(lengths.max() <= Some(1024), "{column}");
        assert!(headers.iter().any(|(name, _)| name == "windrow.offset"), "{column}");
        assert_eq!(letters[1].key, if column == "key" { Some("x".into()) } else { None }, "the others are whole");
    }
}

/// Writes to a topic that takes so much.
async fn written_to(largest: usize, rejects: RecordBatch) -> Vec<Written> {
    let (cluster, kafka) = connection();
    cluster.takes("t", largest);
    let sink = kafka.to_topic("t").dead_letters();
    let mut letters = sink.writer(&incarnation(), 0, rejects.schema()).await.unwrap();
    letters.write(rejects).await.unwrap();
    cluster.committed()
}

fn header<'a>(letter: &'a Written, name: &str) -> Option<&'a str> {
    let found: Vec<_> = letter.headers.iter().filter(|(other, _)| other == name).collect();
    assert!(found.len() < 2, "{name} twice: {letter:?}");
    found.first().map(|(_, value)| value.as_deref().unwrap_or("null"))
}

fn payloads(payloads: [Option<&[u8]>; 3]) -> ArrayRef {
    Arc::new(BinaryArray::from(payloads.to_vec()))
}

fn whole() -> ArrayRef {
    Arc::new(UInt64Array::from(vec![None; 3]))
}

#[tokio::test]
async fn what_the_topic_takes_counts() {
    let bytes = payloads([Some(&[b'x'; 2_400]), None, Some(&[b'y'; 2_000])]);
    let letters = written_to(2_500, but(vec![("bytes", bytes), ("truncated", whole())])).await;
    let lengths: Vec<_> = letters.iter().map(|letter| letter.value.as_ref().map(String::len)).collect();
    assert_eq!(lengths, [None, None, Some(2_000)]);
    assert_eq!(header(&letters[0], "windrow.excerpt").map(str::len), Some(1_024));
    // The value, the key and the headers of the record: `u7`, `trace: 7`, `none`.
    let truncated: Vec<_> = letters.iter().map(|letter| header(letter, "windrow.truncated")).collect();
    assert_eq!(truncated, [Some("2412"), None, None], "a tombstone was not cut");
}

/// What nobody can say is taken for what brokers take unless told otherwise, whatever the client would send.
#[tokio::test]
async fn a_topic_whose_limit_is_unknown_takes_what_topics_take_by_default() {
    let cluster = InMemory::with_topics(&["t"]);
    let kafka = Kafka::brokers("memory").set("message.max.bytes", "10000000").written_to(Arc::new(cluster.clone()));
    let sink = kafka.to_topic("t").dead_letters();
    let mut letters = sink.writer(&incarnation(), 0, rejects().schema()).await.unwrap();
    let (large, fits) = (vec![b'x'; 1_048_588], vec![b'y'; 1_048_000]);
    let bytes = payloads([Some(&large), None, Some(&fits)]);
    letters.write(but(vec![("bytes", bytes), ("truncated", whole())])).await.unwrap();
    let lengths: Vec<_> = cluster.values("t").iter().map(String::len).collect();
    assert_eq!(lengths, ["tombstone".len(), "tombstone".len(), fits.len()]);
}

/// What a letter had before it was read and rejected again.
const FIRST: [(&str, Option<&str>); 6] = [
    ("trace", Some("7")),
    ("windrow.error", Some("then")),
    ("windrow.source", Some("kafka k:1, topic first")),
    ("windrow.topic", Some("first")),
    ("windrow.partition", Some("9")),
    ("windrow.offset", Some("42")),
];

fn place(letter: &Written) -> [Option<&str>; 4] {
    ["windrow.source", "windrow.topic", "windrow.partition", "windrow.offset"].map(|name| header(letter, name))
}

const FIRST_PLACE: [Option<&str>; 4] = [Some("kafka k:1, topic first"), Some("first"), Some("9"), Some("42")];

#[tokio::test]
async fn a_letter_that_is_cut_later_says_where_it_came_from_first() {
    let large = [b'x'; 5_000];
    let again = |truncated: Option<u64>| {
        let truncated = Arc::new(UInt64Array::from(vec![truncated, None, None])) as ArrayRef;
        let headers = own_headers(&[&FIRST, &[], &[]]);
        but(vec![("headers", headers), ("bytes", payloads([Some(&large), None, None])), ("truncated", truncated)])
    };
    // It fits; the topic takes less; its source has taken only the beginning.
    for (largest, truncated, expected) in [
        (10_000, None, None),
        // The value, the key `u7` and the header `trace: 7`: what it has for being a letter its record had not.
        (4_500, None, Some("5008")),
        (10_000, Some(7_000_000), Some("7000000")),
    ] {
        let letters = written_to(largest, again(truncated)).await;
        let letter = &letters[0];
        assert_eq!(place(letter), FIRST_PLACE);
        assert_eq!(header(letter, "windrow.error"), Some("column \"price\": x"), "of the last time");
        assert_eq!(header(letter, "windrow.truncated"), expected);
        assert_eq!(letter.value.is_some(), expected.is_none());
        assert_eq!(header(letter, "windrow.excerpt").map(str::len), expected.map(|_| 1_024));
        assert_eq!(header(letter, "trace"), Some("7").filter(|_| expected.is_none()));
    }
}

#[tokio::test]
async fn a_letter_that_was_cut_stays_so_however_often_it_is_rejected() {
    let cut = [("windrow.truncated", Some("5000000")), ("windrow.excerpt", Some("{\"pr"))];
    let cut = [FIRST.as_slice(), &cut].concat();
    let again = but(vec![("headers", own_headers(&[&cut, &[], &[]])), ("bytes", payloads([None; 3]))]);
    let large = "y".repeat(5_000);
    let reason = Arc::new(StringArray::from(vec![large.as_str(), "no", "no"])) as ArrayRef;
    let more =
        but(vec![("headers", own_headers(&[&cut, &[], &[]])), ("bytes", payloads([None; 3])), ("reason", reason)]);
    for rejects in [again, more] {
        let letters = written_to(4_000, rejects).await;
        let letter = &letters[0];
        assert_eq!((place(letter), letter.value.as_deref()), (FIRST_PLACE, None));
        assert_eq!(header(letter, "windrow.truncated"), Some("5000000"));
        assert_eq!(header(letter, "windrow.excerpt"), Some("{\"pr"));
    }
}

/// Whoever writes to the source's topic may say so.
#[tokio::test]
async fn a_letter_that_was_not_cut_does_not_say_so() {
    let said = [("windrow.truncated", Some("5")), ("windrow.excerpt", Some("x")), ("trace", Some("7"))];
    let letters = written_to(10_000, but(vec![("headers", own_headers(&[&said, &[], &said[1..]]))])).await;
    for letter in [&letters[0], &letters[2]] {
        assert_eq!((header(letter, "windrow.truncated"), header(letter, "windrow.excerpt")), (None, None));
        assert_eq!(header(letter, "trace"), Some("7"));
    }
    assert_eq!(letters[0].value.as_deref(), Some("{\"pr"));
}

/// What somebody has written into such headers is not kept without bounds.
#[tokio::test]
async fn headers_that_stay_are_bounded_too() {
    let large = "z".repeat(50_000);
    let own =
        [("windrow.error", Some("then")), ("windrow.topic", Some(large.as_str())), ("windrow.topic", Some("two"))];
    let letters = written_to(5_000, but(vec![("headers", own_headers(&[&own, &[], &[]]))])).await;
    assert_eq!(header(&letters[0], "windrow.topic").map(str::len), Some(1_024));
}

#[tokio::test]
async fn dead_letters_are_in_the_transaction_of_the_other_sinks() {
    let (cluster, kafka) = connection();
    let sinks = [kafka.to_topic("t").json().exactly_once(), kafka.to_topic("t").dead_letters().exactly_once()];
    assert!(Arc::ptr_eq(&sinks[0].witness().unwrap(), &sinks[1].witness().unwrap()));
    sinks[1].accepts(&rejects().schema()).unwrap();
    let witness = sinks[1].witness().unwrap();
    witness.fence("fraud", &incarnation(), &["t".into()]).await.unwrap();
    let mut letters = sinks[1].writer(&incarnation(), 0, rejects().schema()).await.unwrap();
    letters.write(rejects()).await.unwrap();
    letters.stage(Epoch(1)).await.unwrap();
    assert_eq!(cluster.committed(), []);
    witness.decide(&crate::Marker { incarnation: incarnation(), epoch: Epoch(1) }).await.unwrap();
    assert_eq!(cluster.committed().len(), 4);
}
