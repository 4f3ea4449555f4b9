//! Rows into records, with a cluster in memory.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BinaryBuilder, Float64Array, Int32Array, Int64Array, MapBuilder, RecordBatch,
        StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMillisecondArray, UInt8Array, UInt64Array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{
    super::in_memory::{InMemory, Written},
    *,
};
use crate::Epoch;

fn incarnation() -> Incarnation {
    Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 }
}

fn connection() -> (InMemory, Kafka) {
    let cluster = InMemory::with_topics(&["t"]);
    (cluster.clone(), Kafka::brokers("memory").written_to(Arc::new(cluster)))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// Writes to topic `t`, at once.
async fn written(output: impl FnOnce(KafkaOutput) -> KafkaSink, batch: &RecordBatch) -> Result<Vec<Written>> {
    let (cluster, kafka) = connection();
    let sink = output(kafka.to_topic("t"));
    let mut writer = sink.writer(&incarnation(), 0, batch.schema()).await?;
    writer.write(batch.clone()).await?;
    assert_eq!(writer.stage(Epoch(1)).await?, []);
    Ok(cluster.committed())
}

fn people() -> RecordBatch {
    let mut headers = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
    headers.keys().append_value("trace");
    headers.values().append_value(b"\x01x");
    headers.keys().append_value("none");
    headers.values().append_null();
    headers.append(true).unwrap();
    headers.append(false).unwrap();
    batch(vec![
        ("user", Arc::new(StringArray::from(vec![Some("ann"), None]))),
        ("n", Arc::new(Int64Array::from(vec![1, -2]))),
        ("h", Arc::new(headers.finish())),
        ("p", Arc::new(Int32Array::from(vec![None, Some(2)]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_999), None]))),
    ])
}

#[tokio::test]
async fn columns_become_key_headers_partition_and_time() {
    let output =
        |to: KafkaOutput| to.key("user").headers_column("h").partition_column("p").timestamp_column("at").json();
    let some = |text: &str| Some(text.to_owned());
    let first = Written {
        topic: "t".into(),
        partition: None,
        key: some("ann"),
        value: some(r#"{"user":"ann","n":1,"at":"1970-01-01T00:00:00.001999"}"#),
        headers: vec![("trace".into(), some("\u{1}x")), ("none".into(), None)],
        timestamp: Some(1),
    };
    let (key, value, headers) = (None, some(r#"{"n":-2}"#), Vec::new());
    let second = Written { partition: Some(2), key, value, headers, timestamp: None, topic: "t".into() };
    assert_eq!(written(output, &people()).await.unwrap(), [first, second]);
}

#[tokio::test]
async fn keys_are_text_or_a_json_object() {
    let keys = |written: Vec<Written>| written.into_iter().map(|record| record.key).collect::<Vec<_>>();
    let one = written(|to| to.key("n").json(), &people()).await.unwrap();
    assert_eq!(keys(one), [Some("1".into()), Some("-2".into())]);
    let several = written(|to| to.key(["n", "user"]).json(), &people()).await.unwrap();
    assert_eq!(keys(several), [Some(r#"{"n":1,"user":"ann"}"#.into()), Some(r#"{"n":-2,"user":null}"#.into())]);
    let none = written(KafkaOutput::json, &batch(vec![("n", Arc::new(Int64Array::from(vec![1])))])).await.unwrap();
    assert_eq!(keys(none), [None]);
}

#[tokio::test]
async fn keys_can_have_a_schema_of_their_own() {
    let fake = crate::registry::testing::FakeRegistry::start();
    let registry = crate::SchemaRegistry::at(&fake.url);
    let messages = crate::format::Protobuf::from_registry(&registry);
    let one = batch(vec![("n", Arc::new(Int64Array::from(vec![3]))), ("x", Arc::new(Int64Array::from(vec![4])))]);
    let key = |mut written: Vec<Written>| written.remove(0).key.unwrap();
    let text = key(written(|to| to.key("n").json_schema_key(&registry).json(), &one).await.unwrap());
    assert_eq!(text, "\0\0\0\0\u{1}{\"n\":3}");
    let avro = written(|to| to.key("n").avro_key(&registry).avro(&registry), &one).await.unwrap();
    assert_eq!((avro[0].key.as_deref(), fake.latest("t-key").unwrap().id), (Some("\0\0\0\0\u{2}\u{2}\u{6}"), 2));
    assert!(fake.latest("t-key").unwrap().text.contains("\"t_key\"") && fake.latest("t-value").unwrap().id == 3);
    let proto = key(written(|to| to.key("n").protobuf_key(&messages).json(), &one).await.unwrap());
    assert_eq!(proto, "\0\0\0\0\u{4}\0\u{8}\u{3}");
    let refused = written(|to| to.avro_key(&registry).json(), &one).await.unwrap_err().to_string();
    assert!(refused.contains("say .key("), "{refused}");
    let odd = batch(vec![("a b", Arc::new(Int64Array::from(vec![3])))]).schema();
    let (_, kafka) = connection();
    let refused = kafka.to_topic("t").key("a b").avro_key(&registry).json().accepts(&odd).unwrap_err().to_string();
    assert!(refused.starts_with("topic t: column \"a b\""), "{refused}");
}

#[tokio::test]
async fn what_a_record_cannot_have_is_an_error_that_says_where() {
    let refused = |batch: RecordBatch, output: fn(KafkaOutput) -> KafkaSink| async move {
        written(output, &batch).await.unwrap_err().to_string()
    };
    let with = |name, array| batch(vec![(name, array)]);
    let negative =
        refused(with("p", Arc::new(Int32Array::from(vec![0, -1]))), |to| to.partition_column("p").json()).await;
    assert_eq!(negative, "column \"p\": -1 is no partition: they begin at 0");
    let early = Arc::new(TimestampMicrosecondArray::from(vec![-2_000]));
    let early = refused(with("at", early), |to| to.timestamp_column("at").json()).await;
    assert_eq!(early, "column \"at\": -2 ms is before 1970, and the time of a record cannot be");
    let late = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
    let late = refused(with("at", late), |to| to.key("at").json()).await;
    assert!(late.contains("cannot be the key"), "{late}");
}

#[test]
fn columns_that_do_not_suit_are_refused_before_the_first_row() {
    let (_, kafka) = connection();
    let refused = |output: KafkaOutput, schema: SchemaRef| output.json().accepts(&schema).unwrap_err().to_string();
    let float = batch(vec![("f", Arc::new(Float64Array::from(vec![1.0])) as ArrayRef)]).schema();
    let to = || kafka.to_topic("t");
    assert_eq!(
        refused(to().key("g"), float.clone()),
        "topic t: there is no column \"g\" for the key; there are [\"f\"]"
    );
    assert!(refused(to().key("f"), float.clone()).starts_with("topic t: column \"f\" (Float64) cannot be the key: "));
    assert!(refused(to().headers_column("f"), float.clone()).contains("cannot be the headers: they are a Map"));
    assert!(refused(to().partition_column("f"), float.clone()).contains("cannot be the partition: it is an Int32"));
    assert!(refused(to().timestamp_column("f"), float.clone()).contains("cannot be the time: it is a Timestamp"));
    to().key(["f", "f"]).json().accepts(&float).unwrap();
    let refused = to().dead_letters().accepts(&float).unwrap_err().to_string();
    assert!(refused.contains("these have no column \"source\" (Utf8)"), "{refused}");
}

#[tokio::test]
async fn changes_become_upserts_and_tombstones() {
    let changes = batch(vec![
        ("user", Arc::new(StringArray::from(vec!["ann", "bob", "ann", "bob"]))),
        ("n", Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(3)]))),
        (OP, Arc::new(UInt8Array::from(vec![0, 0, 2, 1]))),
    ]);
    let upserts = written(|to| to.key("user").json(), &changes).await.unwrap();
    let upserts: Vec<_> =
        upserts.iter().map(|record| (record.key.as_deref().unwrap(), record.value.as_deref())).collect();
    assert_eq!(
        upserts,
        [
            ("ann", Some(r#"{"user":"ann","n":1}"#)),
            ("bob", Some(r#"{"user":"bob","n":2}"#)),
            ("ann", None),
            ("bob", Some(r#"{"user":"bob","n":3}"#)),
        ]
    );
    let nobody = batch(vec![
        ("user", Arc::new(StringArray::from(vec![Some("ann"), None]))),
        (OP, Arc::new(UInt8Array::from(vec![0, 0]))),
    ]);
    let refused = written(|to| to.key("user").json(), &nobody).await.unwrap_err().to_string();
    assert!(refused.starts_with("column \"user\": it is null in a change"), "{refused}");
}

#[test]
fn changes_are_keyed_as_their_table_is() {
    let (_, kafka) = connection();
    let fields = [("a", DataType::Int64), ("b", DataType::Utf8), ("c", DataType::Float64)];
    let fields: Vec<_> = fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let to = || kafka.to_topic("t");
    to().key("a").json().accepts_changes(&schema, &[0]).unwrap();
    to().key(["b", "a"]).json().accepts_changes(&schema, &[0, 1]).unwrap();
    for (sink, key) in [(to().json(), vec![0]), (to().key("b").json(), vec![0]), (to().key("a").json(), vec![0, 1])] {
        let refused = sink.accepts_changes(&schema, &key).unwrap_err().to_string();
        let ask = if key.len() == 1 { r#"say .key(["a"])"# } else { r#"say .key(["a", "b"])"# };
        assert!(refused.contains(ask), "{refused}");
    }
    assert!(to().key("c").json().accepts_changes(&schema, &[2]).is_err());
}

#[tokio::test]
async fn envelopes_say_by_themselves_what_a_change_does() {
    let changes = batch(vec![
        ("user", Arc::new(StringArray::from(vec!["ann", "ann", "bob"]))),
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        (OP, Arc::new(UInt8Array::from(vec![0, 2, 1]))),
    ]);
    let (_, kafka) = connection();
    let rows = changes.project(&[0, 1]).unwrap();
    let sink = kafka.to_topic("t").key("user").debezium();
    sink.accepts_changes(&rows.schema(), &[0]).unwrap();
    assert!(kafka.to_topic("t").debezium().accepts_changes(&rows.schema(), &[0]).is_err());
    let pairs = |envelopes: Vec<Written>| {
        envelopes.into_iter().map(|record| (record.key.unwrap(), record.value.unwrap())).collect::<Vec<_>>()
    };
    let envelopes = written(|to| to.key("user").debezium(), &changes).await.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        pairs(envelopes),
        [
            pair("ann", r#"{"before":null,"after":{"user":"ann","n":1},"op":"c","ts_ms":null}"#),
            pair("ann", r#"{"before":{"user":"ann","n":null},"after":null,"op":"d","ts_ms":null}"#),
            pair("bob", r#"{"before":null,"after":{"user":"bob","n":3},"op":"u","ts_ms":null}"#),
        ]
    );
    sink.accepts(&rows.schema()).unwrap();
    let inserts = written(|to| to.key("user").debezium(), &rows.slice(0, 1)).await.unwrap();
    let insert = r#"{"before":null,"after":{"user":"ann","n":1},"op":"c","ts_ms":null}"#;
    assert_eq!(pairs(inserts), [pair("ann", insert)]);
}

#[tokio::test]
async fn raw_values_are_what_is_left_beside_the_key() {
    let rows = batch(vec![
        ("k", Arc::new(StringArray::from(vec![Some("a"), None]))),
        ("value", Arc::new(BinaryArray::from(vec![Some(&b"x,y"[..]), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![7_000, 8_000]))),
    ]);
    let raw = written(|to| to.key("k").timestamp_column("at").raw(), &rows).await.unwrap();
    let parts: Vec<_> = raw.iter().map(|r| (r.key.as_deref(), r.value.as_deref(), r.timestamp)).collect();
    assert_eq!(parts, [(Some("a"), Some("x,y"), Some(7)), (None, None, Some(8))]);
    let only = written(|to| to.key("k").raw(), &rows.project(&[0]).unwrap()).await.unwrap();
    assert_eq!((only[0].key.as_deref(), only[0].value.as_deref()), (Some("a"), Some("a")));
    let refused = written(|to| to.key("k").raw(), &rows).await.unwrap_err().to_string();
    assert!(refused.starts_with("topic t: raw payloads are made of one column"), "{refused}");
    let csv = written(|to| to.key("k").csv(), &rows.project(&[0, 1]).unwrap()).await;
    assert!(csv.is_ok() || csv.unwrap_err().to_string().contains("\"value\""));
}

/// A format that has to ask somebody for an encoder, who refuses.
struct Asks(Arc<std::sync::Mutex<Vec<std::thread::ThreadId>>>);

impl PayloadFormat for Asks {
    fn accepts(&self, _schema: &SchemaRef, _topic: &str) -> Result<()> {
        Ok(())
    }

    fn encoder(&self, _schema: &SchemaRef, _topic: &str) -> Result<Box<dyn RowEncoder>> {
        self.0.lock().unwrap().push(std::thread::current().id());
        let (system, reason) = ("schema registry r".into(), "away".into());
        Err(ConnectorError::Remote { system, reason, passes: true })
    }
}

#[tokio::test]
async fn an_encoder_is_made_where_waiting_is_allowed_and_its_failure_names_the_topic() {
    let (_, kafka) = connection();
    let asked = Arc::default();
    let sink = kafka.to_topic("t").key("n").encoded(Asks(Arc::clone(&asked)));
    let schema = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]).schema();
    sink.accepts(&schema).unwrap();
    sink.accepts_changes(&schema, &[0]).unwrap();
    assert!(asked.lock().unwrap().is_empty());
    let failed = sink.writer(&incarnation(), 0, schema).await.map(drop).unwrap_err();
    assert_eq!(failed.to_string(), "schema registry r, for topic t: away");
    assert!(matches!(failed, ConnectorError::Remote { passes: true, .. }));
    assert!(*asked.lock().unwrap() != [std::thread::current().id()] && asked.lock().unwrap().len() == 1);
}

#[test]
fn formats_with_a_registry_are_described_without_it() {
    let registry = crate::SchemaRegistry::at("http://127.0.0.1:1");
    let (_, kafka) = connection();
    let messages = crate::format::Protobuf::from_registry(&registry);
    let good = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]).schema();
    let bad = batch(vec![("a b", Arc::new(Int64Array::from(vec![1])))]).schema();
    let to = || kafka.to_topic("t");
    to().json_schema(&registry).accepts(&good).unwrap();
    for sink in [to().avro(&registry), to().protobuf(&messages)] {
        sink.accepts(&good).unwrap();
        let refused = sink.accepts(&bad).unwrap_err().to_string();
        assert!(refused.starts_with("topic t: column \"a b\""), "{refused}");
    }
}

#[test]
fn logins_without_encryption_are_warnings() {
    let (_, kafka) = connection();
    let secret = || crate::Secret::new("canary");
    let registry = crate::SchemaRegistry::at("http://r:1").basic_auth("me", secret());
    let messages = crate::format::Protobuf::from_registry(&registry);
    let open = kafka.clone().sasl(crate::kafka::Sasl::plain("me", secret()));
    for (sink, expected) in [
        (kafka.to_topic("t").avro(&registry), 1),
        (kafka.to_topic("t").protobuf(&messages), 1),
        (kafka.to_topic("t").json_schema(&registry), 1),
        (kafka.to_topic("t").key("k").avro_key(&registry).json(), 1),
        (kafka.to_topic("t").key("k").avro_key(&registry).avro(&registry), 1),
        (open.to_topic("t").avro(&registry), 2),
        (open.to_topic("t").json(), 1),
        (kafka.to_topic("t").json(), 0),
    ] {
        let warnings = sink.warnings();
        assert!(warnings.len() == expected && !warnings.concat().contains("canary"), "{warnings:?}");
    }
}

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
    assert_eq!((letters[1].key.as_deref(), letters[1].value.as_deref()), (None, Some("a,b")));
    assert_eq!(
        headers[1],
        [
            ("windrow.error", "no"),
            ("windrow.source", "files"),
            ("windrow.split", "/data/in.csv"),
            ("windrow.line", "4"),
            ("windrow.truncated", "5000000"),
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
    let header = || own_headers(&[&[("large", Some(large.as_str()))], &[], &[]]);
    for (column, array, whole) in [
        ("bytes", bytes(), 1_200_012),
        ("key", bytes(), 1_200_014),
        ("reason", texts(), 16),
        ("headers", header(), 1_200_011),
    ] {
        let letters = written(KafkaOutput::dead_letters, &but(vec![(column, array)])).await.unwrap();
        let Written { key, value, headers, .. } = &letters[0];
        let truncated = headers.iter().find(|(name, _)| name == "windrow.truncated");
        assert_eq!(truncated.and_then(|(_, value)| value.clone()), Some(whole.to_string()), "{column}");
        let lengths = headers.iter().filter_map(|(_, value)| value.as_ref()).chain(key).chain(value).map(String::len);
        assert!(lengths.max() <= Some(1024), "{column}");
        assert!(headers.iter().any(|(name, _)| name == "windrow.offset"), "{column}");
        assert_eq!(letters[1].key, if column == "key" { Some("x".into()) } else { None }, "the others are whole");
    }
    let (cluster, kafka) = connection();
    cluster.takes("t", 2_500);
    let mut letters = kafka.to_topic("t").dead_letters().writer(&incarnation(), 0, rejects().schema()).await.unwrap();
    let bytes = Arc::new(BinaryArray::from(vec![Some(&[b'x'; 2_400][..]), None, Some(&[b'y'; 2_000][..])]));
    letters
        .write(but(vec![("bytes", bytes), ("truncated", Arc::new(UInt64Array::from(vec![None; 3])))]))
        .await
        .unwrap();
    let lengths: Vec<_> = cluster.values("t").iter().map(String::len).collect();
    assert_eq!(lengths, [1_024, "tombstone".len(), 2_000], "what the topic takes counts");
}

#[tokio::test]
async fn dead_letters_are_in_the_transaction_of_the_other_sinks() {
    let (cluster, kafka) = connection();
    let sinks = [kafka.to_topic("t").json().exactly_once(), kafka.to_topic("t").dead_letters().exactly_once()];
    assert!(Arc::ptr_eq(&sinks[0].witness().unwrap(), &sinks[1].witness().unwrap()));
    sinks[1].accepts(&rejects().schema()).unwrap();
    let witness = sinks[1].witness().unwrap();
    witness.fence("fraud", &incarnation()).await.unwrap();
    let mut letters = sinks[1].writer(&incarnation(), 0, rejects().schema()).await.unwrap();
    letters.write(rejects()).await.unwrap();
    letters.stage(Epoch(1)).await.unwrap();
    assert_eq!(cluster.committed(), []);
    witness.decide(&crate::Marker { incarnation: incarnation(), epoch: Epoch(1) }).await.unwrap();
    assert_eq!(cluster.committed().len(), 4);
}

#[tokio::test]
async fn a_failed_producer_that_writes_at_once_is_replaced() {
    let (cluster, kafka) = connection();
    let sink = kafka.to_topic("t").json();
    let rows = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]);
    let mut first = sink.writer(&incarnation(), 0, rows.schema()).await.unwrap();
    let second = sink.writer(&incarnation(), 1, rows.schema()).await.unwrap();
    assert_eq!(cluster.alive(), 1, "the writers share it");
    cluster.fail("flush");
    first.write(rows.clone()).await.unwrap();
    first.stage(Epoch(1)).await.unwrap_err();
    assert!(first.write(rows.clone()).await.is_err());
    let third = sink.writer(&incarnation(), 0, rows.schema()).await.unwrap();
    assert_eq!(cluster.alive(), 2);
    drop((first, second, third));
    assert_eq!(cluster.alive(), 0);
}
