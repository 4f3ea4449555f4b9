//! Rows into records, with a cluster in memory.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BinaryBuilder, Float64Array, Int32Array, Int64Array, MapBuilder, RecordBatch,
        StringArray, StringBuilder, TimestampMicrosecondArray, UInt8Array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{
    super::in_memory::{InMemory, Written},
    *,
};
use crate::Epoch;

mod letters;

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
    assert!(refused.starts_with("kafka memory, topic t: column \"a b\""), "{refused}");
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
        "kafka memory, topic t: there is no column \"g\" for the key; there are \"f\"; did you mean \"f\"?"
    );
    assert!(
        refused(to().key("f"), float.clone())
            .starts_with("kafka memory, topic t: column \"f\" (Float64) cannot be the key: ")
    );
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
    assert!(refused.starts_with("kafka memory, topic t: raw payloads are made of one column"), "{refused}");
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
        assert!(refused.starts_with("kafka memory, topic t: column \"a b\""), "{refused}");
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

/// A broker refuses a batch that is larger than its topic takes, and the job would end.
#[tokio::test]
async fn batches_are_no_larger_than_their_topics_take() {
    let cluster = InMemory::with_topics(&["small", "a", "b"]);
    cluster.takes("small", 20_000);
    cluster.takes("a", 5_000_000);
    let rows = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]).schema();
    let kafka = || Kafka::brokers("memory");
    for (kafka, expected) in [(kafka(), [1_000_000, 20_000]), (kafka().set("batch.size", "7000"), [7_000, 7_000])] {
        let kafka = kafka.written_to(Arc::new(cluster.clone()));
        let mut writers = Vec::new();
        for (topic, task) in [("a", 0), ("a", 1), ("small", 0), ("b", 0), ("small", 1)] {
            writers.push(kafka.to_topic(topic).json().writer(&incarnation(), task, rows.clone()).await.unwrap());
        }
        let mut made = expected.to_vec();
        made.dedup();
        assert_eq!(cluster.batches(), made, "those that have the same share a producer");
        assert_eq!(cluster.asked(), ["a", "small", "b"], "once for all tasks");
    }
    // A transaction has one producer for all topics, and another for the next epoch.
    let kafka = kafka().written_to(Arc::new(cluster.clone()));
    let sinks = ["a", "small", "b"].map(|topic| kafka.to_topic(topic).json().exactly_once());
    let [witness, ..] = sinks.each_ref().map(|sink| sink.witness().unwrap());
    let places = sinks.each_ref().map(|sink| sink.place().unwrap());
    for nonce in [7, 8] {
        let incarnation = Incarnation { nonce, ..incarnation() };
        witness.fence("fraud", &incarnation, &places).await.unwrap();
        assert_eq!(cluster.batches(), [20_000, 20_000]);
        sinks[1].writer(&incarnation, 0, rows.clone()).await.unwrap();
        assert_eq!(cluster.asked(), ["a small b"], "at once, and once at each start");
    }
    // Another job of the connection does not write to the small one.
    let other = Incarnation { job: "0badcafe".into(), ..incarnation() };
    witness.fence("theft", &other, &places[..1]).await.unwrap();
    assert_eq!((cluster.batches(), cluster.asked()), (vec![1_000_000, 1_000_000], vec!["a".to_owned()]));
    assert_eq!(kafka.to_topic("a").json().place(), None, "it is in no transaction");
}

/// Otherwise the job would go on with batches that the topic refuses.
#[tokio::test]
async fn a_limit_that_nobody_answers_for_is_an_error_and_is_asked_for_again() {
    let (cluster, kafka) = connection();
    cluster.takes("t", 20_000);
    let rows = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]).schema();
    let sinks = [kafka.to_topic("t").json(), kafka.to_topic("t").json().exactly_once()];
    let witness = sinks[1].witness().unwrap();
    cluster.fail("ask");
    let refused = [
        sinks[0].writer(&incarnation(), 0, rows.clone()).await.map(drop).unwrap_err(),
        witness.fence("fraud", &incarnation(), &["t".into()]).await.unwrap_err(),
    ];
    for refused in refused {
        assert!(matches!(refused, ConnectorError::Remote { passes: true, .. }), "{refused}");
    }
    let missing = kafka.to_topic("nowhere").json().writer(&incarnation(), 0, rows.clone()).await.map(drop).unwrap_err();
    assert!(matches!(missing, ConnectorError::Config(_)), "{missing}");
    assert_eq!(cluster.batches(), [0; 0]);
    cluster.mend();
    let _writer = sinks[0].writer(&incarnation(), 0, rows).await.unwrap();
    witness.fence("fraud", &incarnation(), &["t".into()]).await.unwrap();
    assert_eq!(cluster.batches(), [20_000; 3]);
}
