//! What is around a payload as columns; columns that are inferred; payloads that are no objects.

use tests::{
    broker::{Broker, Message, Result},
    rows, run,
};
use windrow::{
    arrow::datatypes::{DataType, Field, Schema},
    connectors::{Source, format::Format},
    prelude::*,
};

use crate::running::{accounted, values};

/// Everything that a message is, in a type.
#[derive(Record)]
struct Whole {
    price: i64,
    key: Option<String>,
    written: Timestamp,
    partition: i32,
    offset: i64,
    topic: String,
}

fn messages() -> [Message; 3] {
    let first = Message::of(r#"{"price":1}"#).key("k1").partition(0).time(1_700_000_000_123);
    let first = first.header("a", "1").header("b", "2").header("a", "3").null_header("none");
    let second = Message::of(r#"{"price":2}"#).partition(1).time(1_700_000_000_000);
    let third = Message::of(r#"{"price":3}"#).key(vec![0xff, 0xfe]).partition(0).time(1_700_000_001_000);
    [first, second, third]
}

#[test]
fn what_is_around_a_payload_goes_into_the_fields_of_a_type() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("whole", 2)?;
    broker.produce(&topic, messages())?;
    let input = Kafka::brokers(broker.address()).topic(&topic).bounded();
    let input = input.key_column("key").timestamp_column("written").partition_column("partition");
    let (out, bad) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("typed");
    let source = input.offset_column("offset").topic_column("topic").json::<Whole>();
    let (good, rejected) = job.source(source).with_rejects();
    good.sink(out.clone());
    rejected.select(["position", "reason"].map(col)).sink(bad.clone());
    accounted(&run(job)?, 3, 1);
    let expected =
        [format!("1|k1|2023-11-14T22:13:20.123Z|0|0|{topic}"), format!("2|null|2023-11-14T22:13:20Z|1|0|{topic}")];
    assert_eq!(rows(&out.batches()), expected);
    let bad = rows(&bad.batches());
    assert!(bad.len() == 1 && bad[0].starts_with("1|the key is not UTF-8"), "{bad:?}");
    Ok(())
}

#[test]
fn what_is_around_a_payload_is_appended_to_columns_known_at_run_time() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, copy) = (broker.new_topic("whole", 2)?, broker.new_topic("copy", 2)?);
    broker.produce(&topic, messages())?;
    let kafka = Kafka::brokers(broker.address());
    let input = kafka.topic(&topic).bounded().key_column("k").headers_column("h").timestamp_column("t");
    let columns = Schema::new(vec![Field::new("price", DataType::Int64, false)]);
    let source = input.partition_column("p").offset_column("o").json_with(columns.into());
    let out = MemorySink::new();
    let job = Job::new("untyped");
    let all = job.source(source).fail_on_rejects();
    all.clone().sink(out.clone());
    let copied = all.select(["price", "h", "t", "p"].map(col));
    copied.sink(kafka.to_topic(&copy).headers_column("h").timestamp_column("t").partition_column("p").json());
    accounted(&run(job)?, 3, 0);
    let expected = [
        "1|6b31|{a: 31, b: 32, a: 33, none: null}|2023-11-14T22:13:20.123Z|0|0",
        "2|null|{}|2023-11-14T22:13:20Z|1|0",
        "3|fffe|{}|2023-11-14T22:13:21Z|0|1",
    ];
    assert_eq!(rows(&out.batches()), expected);

    // The same, once around: partition, time and headers are those of the original.
    let (original, copied) = (broker.committed(&topic)?, broker.committed(&copy)?);
    let around = |records: &[tests::broker::verify::Record]| {
        records.iter().map(|one| (one.partition, one.offset, one.time, one.headers.clone())).collect::<Vec<_>>()
    };
    assert_eq!(around(&copied), around(&original));
    Ok(())
}

#[test]
fn several_topics_are_one_stream_and_a_column_says_which() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (a, b) = (broker.new_topic("a", 2)?, broker.new_topic("b", 1)?);
    let price = |price: i32| Message::of(format!(r#"{{"price":{price}}}"#)).partition(0);
    broker.produce(&a, (0..3).map(price))?;
    broker.produce(&b, (10..12).map(price))?;
    let kafka = Kafka::brokers(broker.address());
    let columns = Schema::new(vec![Field::new("price", DataType::Int64, false)]);
    let out = MemorySink::new();
    let job = Job::new("both").parallelism(2);
    let both = kafka.topics([&a, &b]).bounded().topic_column("topic").offset_column("at");
    job.source(both.json_with(columns.into())).sink(out.clone());
    accounted(&run(job)?, 5, 0);
    let expected = [(0, &a, 0), (10, &b, 0), (11, &b, 1), (1, &a, 1), (2, &a, 2)];
    assert_eq!(rows(&out.batches()), expected.map(|(price, topic, at)| format!("{price}|{topic}|{at}")));

    let job = Job::new("missing");
    job.source(kafka.topics([a.as_str(), "no-such-topic"]).bounded().raw()).discard();
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains(&format!("topics {a}, no-such-topic")), "{error}");
    assert!(error.contains("there is no topic no-such-topic"), "{error}");
    Ok(())
}

#[test]
fn a_column_that_a_type_does_not_have_is_a_mistake() -> Result<()> {
    let job = Job::new("mistakes");
    let input = Kafka::brokers("127.0.0.1:1").topic("t");
    job.source(input.clone().headers_column("headers").json::<Whole>()).sink(MemorySink::new());
    job.source(input.key_column("price").json::<Whole>()).sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    let expected =
        "topic t: the column \"headers\" is to hold the headers, and the record's type has no such field: add it";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("the column \"price\" has the type Int64, and the key needs Binary or Utf8"), "{error}");
    Ok(())
}

/// A mistake in what a source is asked for does not hide those in what is done with its rows.
#[test]
fn mistakes_of_a_source_and_of_its_sink_are_told_together_and_each_names_the_topic_once() -> Result<()> {
    let (job, kafka) = (Job::new("mistakes"), Kafka::brokers("127.0.0.1:1"));
    let out = || kafka.to_topic("out").json();
    let rows = job.source(kafka.topic("t").key_column("kee").json::<Whole>()).fail_on_rejects();
    rows.clone().sink(kafka.to_topic("out").key("prise").json());
    rows.filter_expr(col("prize").gt(lit(1))).sink(out());
    let open = Schema::new(vec![Field::new("price", DataType::Int64, false)]);
    let open = kafka.topic("u").key_column("price").topic_column("topic").json_with(open.into());
    job.source(open).select([col("topic"), col("price")]).sink(out());
    let error = run(job).unwrap_err().to_string();
    let names = "there are \"price\", \"key\", \"written\", \"partition\", \"offset\", \"topic\"";
    for expected in [
        "#1 source kafka 127.0.0.1:1, topic t: the column \"kee\" is to hold the key, and the record's type has no such field",
        &format!(
            "#2 sink kafka 127.0.0.1:1, topic out: there is no column \"prise\" for the key; {names}; did you mean \"price\"?"
        ),
        "#2 filter prize > Int32(1): there is no column \"prize\", did you mean \"price\"?",
        "source kafka 127.0.0.1:1, topic u: the column \"price\" has the type Int64, and the key needs Binary or Utf8",
    ] {
        assert!(error.contains(expected), "{error}\ninstead of\n{expected}");
    }
    assert_eq!(error.matches("topic t").count() + error.matches("topic u").count(), 2, "{error}");
    assert_eq!(error.matches("#").count(), 4, "no mistake follows from another: {error}");
    Ok(())
}

#[test]
fn columns_are_inferred_from_what_the_topic_holds() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("inferred", 2)?;
    let kafka = Kafka::brokers(broker.address());
    let nothing = kafka.topic(&topic).infer_json(10).unwrap_err().to_string();
    assert!(nothing.contains(&topic) && nothing.contains("give a schema instead"), "{nothing}");
    let texts = [r#"{"id":1,"price":2}"#, "garbage", r#"{"price":2.5,"tags":["x"],"id":3}"#, r#"{"id":null}"#];
    broker.produce(&topic, texts.map(Message::of))?;
    let source = kafka.topic(&topic).bounded().offset_column("at").infer_json(1000)?;
    let schema = source.schema()?;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert!(["id", "price", "tags", "at"].iter().all(|name| names.contains(name)), "{names:?}");
    let out = MemorySink::new();
    let job = Job::new("inferred");
    job.source(source).drop_rejects().select(["id", "price", "tags"].map(col)).sink(out.clone());
    accounted(&run(job)?, 4, 1);
    assert_eq!(rows(&out.batches()), ["1|2.0|null", "3|2.5|[x]", "null|null|null"]);

    let missing = kafka.topic("no-such-topic").infer_json(10).unwrap_err().to_string();
    assert!(missing.contains("there is no topic no-such-topic"), "{missing}");
    Ok(())
}

#[derive(Record)]
struct Line {
    id: i64,
    name: Option<String>,
}

#[test]
fn records_of_csv_and_bytes_as_they_are() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, copy) = (broker.new_topic("csv", 1)?, broker.new_topic("csv", 1)?);
    let kafka = Kafka::brokers(broker.address());
    let texts = ["1;a", "2;\"b;\n\"\"c\"", "3;", "x;d", "4", "5;e;f"];
    broker.produce(&topic, texts.map(Message::of).into_iter().chain([Message::null()]))?;
    let out = MemorySink::new();
    let job = Job::new("csv");
    let lines = job.source(kafka.topic(&topic).bounded().delimiter(b';').csv::<Line>()).drop_rejects();
    lines.clone().sink(out.clone());
    lines.sink(kafka.to_topic(&copy).encoded(Format::Csv { delimiter: b';' }));
    accounted(&run(job)?, 7, 4);
    assert_eq!(rows(&out.batches()), ["1|a", "2|b;\n\"c", "3|null"]);
    assert_eq!(values(&broker.committed(&copy)?), ["1;a", "2;\"b;\n\"\"c\"", "3;"]);

    let (binary, copy) = (broker.new_topic("raw", 1)?, broker.new_topic("raw", 1)?);
    let bytes: Vec<u8> = (0..=255).collect();
    broker.produce(&binary, [Message::of(bytes.clone()), Message::null().key("gone"), Message::of("")])?;
    let job = Job::new("raw");
    let raw = job.source(kafka.topic(&binary).bounded().raw());
    raw.sink(kafka.to_topic(&copy).raw());
    accounted(&run(job)?, 3, 0);
    let copied: Vec<_> = broker.committed(&copy)?.into_iter().map(|record| record.value).collect();
    assert_eq!(copied, [Some(bytes), None, Some(Vec::new())]);
    Ok(())
}
