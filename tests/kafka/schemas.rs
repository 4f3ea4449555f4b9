//! Records whose schema is in a registry: Avro and Protobuf, in and out, and a registry that does not know, or does not answer.
//!
//! Payloads are made and read by hand here, byte by byte, so that both sides of the connector are held against the standard.

use std::sync::Arc;

use tests::{
    broker::{
        Broker, Message, Result,
        registry::{Mood, Registry},
        verify::Record as Found,
    },
    rows, run,
};
use windrow::{
    arrow::datatypes::{DataType, Field, Schema},
    prelude::*,
};

use crate::running::{accounted, has_read, source, store, until, while_running};

const V1: &str =
    r#"{"type":"record","name":"Bid","fields":[{"name":"id","type":"long"},{"name":"who","type":"string"}]}"#;
const V2: &str = r#"{"type":"record","name":"Bid","fields":[{"name":"price","type":"double"},
    {"name":"who","type":["null","string"],"default":null},{"name":"id","type":"int"}]}"#;
const PROTO: &str =
    r#"syntax = "proto3"; package shop; message Other { int32 x = 1; } message Bid { int64 id = 1; string who = 2; }"#;

#[derive(Record, Clone)]
struct Bid {
    id: i64,
    who: Option<String>,
    price: Option<f64>,
}

/// What stands in front of a payload.
fn framed(id: u32, payload: Vec<u8>) -> Message {
    Message::of([vec![0], id.to_be_bytes().to_vec(), payload].concat())
}

/// A number of one byte, as Avro writes it.
fn zigzag(n: i8) -> u8 {
    u8::try_from(n * 2).expect("a small one")
}

fn text(text: &str) -> Vec<u8> {
    [vec![zigzag(i8::try_from(text.len()).expect("a short one"))], text.as_bytes().to_vec()].concat()
}

fn v1(schema: u32, id: i8, who: &str) -> Message {
    framed(schema, [vec![zigzag(id)], text(who)].concat())
}

fn v2(schema: u32, id: i8, who: Option<&str>, price: f64) -> Message {
    let who = who.map_or_else(|| vec![0], |who| [vec![2], text(who)].concat());
    framed(schema, [price.to_le_bytes().to_vec(), who, vec![zigzag(id)]].concat())
}

/// A Protobuf message of a Bid.
fn proto(id: u8, who: &str) -> Vec<u8> {
    [vec![0x08, id, 0x12, u8::try_from(who.len()).expect("a short one")], who.as_bytes().to_vec()].concat()
}

#[test]
fn avro_of_two_versions_is_read_as_one_type_and_by_the_newest_schema() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let topic = broker.new_topic("avro", 2)?;
    let subject = format!("{topic}-value");
    let (first, second) = (server.register(&subject, "AVRO", V1)?, server.register(&subject, "AVRO", V2)?);
    let messages = [v1(first, 1, "a"), v2(second, 2, None, 2.5), v1(first, 3, "c"), v2(second, 4, Some("d"), 0.0)];
    broker.produce(&topic, messages)?;
    let registry = SchemaRegistry::at(server.url());

    let out = MemorySink::new();
    let job = Job::new("typed").parallelism(2);
    job.source(kafka.topic(&topic).bounded().avro::<Bid>(&registry)).sink(out.clone());
    accounted(&run(job)?, 4, 0);
    assert_eq!(rows(&out.batches()), ["1|a|null", "2|null|2.5", "3|c|null", "4|d|0.0"]);
    let asked = server.requests().iter().filter(|request| request.starts_with("GET /schemas/ids/")).count();
    // Tasks that meet a schema at the same moment ask both; what one has learnt the other need not ask.
    assert!((2..=4).contains(&asked), "each schema once by a task: {:?}", server.requests());

    // The newest schema needs a price, which the first has not.
    let (out, bad) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("inferred");
    let inferred = kafka.topic(&topic).bounded().infer_avro(&registry)?;
    let (good, rejected) = job.source(inferred).with_rejects();
    good.sink(out.clone());
    rejected.select([col("reason")]).sink(bad.clone());
    accounted(&run(job)?, 4, 2);
    assert_eq!(rows(&out.batches()), ["0.0|d|4", "2.5|null|2"]);
    assert!(rows(&bad.batches()).iter().all(|reason| reason.contains("price")), "{:?}", rows(&bad.batches()));
    Ok(())
}

fn bids() -> Vec<Bid> {
    let who = |n: i64| (n != 2).then(|| format!("w{n}"));
    (1..5).map(|n| Bid { id: n, who: who(n), price: Some(0.5) }).collect()
}

/// The records by value.
fn sorted(mut records: Vec<Found>) -> Vec<Vec<u8>> {
    records.sort_by(|a, b| a.value.cmp(&b.value));
    records.into_iter().map(|record| record.value.expect("a value")).collect()
}

#[test]
fn avro_is_written_with_the_id_of_a_registered_schema() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let topic = broker.new_topic("avro-out", 1)?;
    let registry = SchemaRegistry::at(server.url());
    let job = Job::new("write");
    let format = AvroFormat::new(registry.clone()).record_name("shop.Bid");
    job.source(MemorySource::records(bids())).sink(kafka.to_topic(&topic).key("id").encoded(format));
    run(job)?;
    let written = sorted(broker.committed(&topic)?);
    let id: u32 = 1;
    let expected: Vec<Vec<u8>> = bids()
        .iter()
        .map(|bid| {
            let who = bid.who.as_ref().map_or_else(|| vec![0], |who| [vec![2], text(who)].concat());
            let price = [vec![2], 0.5_f64.to_le_bytes().to_vec()].concat();
            [vec![0], id.to_be_bytes().to_vec(), vec![zigzag(bid.id as i8)], who, price].concat()
        })
        .collect();
    assert_eq!(written, expected);
    let schema = registry.latest(&format!("{topic}-value"))?;
    assert_eq!(schema.id, id);
    assert!(schema.text.contains("\"Bid\"") && schema.text.contains("shop"), "{}", schema.text);
    let registrations = server.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(registrations, 1, "{:?}", server.requests());

    let out = MemorySink::new();
    let job = Job::new("read");
    job.source(kafka.topic(&topic).bounded().avro::<Bid>(&registry)).sink(out.clone());
    run(job)?;
    assert_eq!(rows(&out.batches()), ["1|w1|0.5", "2|null|0.5", "3|w3|0.5", "4|w4|0.5"]);
    Ok(())
}

#[derive(Record)]
struct Named {
    id: i64,
    who: String,
}

#[test]
fn protobuf_is_read_and_written_with_and_without_a_registry() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let registry = SchemaRegistry::at(server.url());
    let plain = Protobuf::from_proto(PROTO, "shop.Bid")?;
    for (name, messages) in [("plain", plain.clone()), ("framed", plain.with_registry(&registry))] {
        let (topic, copy) = (broker.new_topic(name, 1)?, broker.new_topic("copy", 1)?);
        let id = server.register(&format!("{topic}-value"), "PROTOBUF", PROTO)?;
        // The second message of the schema: one number, 1, twice as large because of its sign.
        let frame = |payload: Vec<u8>| match name {
            "plain" => payload,
            _ => [vec![0], id.to_be_bytes().to_vec(), vec![2, 2], payload].concat(),
        };
        let payloads = [(1, "a"), (2, "b"), (3, "c")].map(|(id, who)| frame(proto(id, who)));
        broker.produce(&topic, payloads.clone().map(Message::of).into_iter().chain([Message::of(vec![0x08])]))?;
        let (out, bad) = (MemorySink::new(), MemorySink::new());
        let job = Job::new("protobuf");
        let (bids, rejected) = job.source(kafka.topic(&topic).bounded().protobuf::<Named>(&messages)).with_rejects();
        bids.clone().sink(out.clone());
        let out_format = messages.clone();
        bids.sink(kafka.to_topic(&copy).protobuf(&out_format));
        rejected.sink(bad.clone());
        accounted(&run(job)?, 4, 1);
        assert_eq!(rows(&out.batches()), ["1|a", "2|b", "3|c"], "{name}");
        assert_eq!(bad.rows(), 1);
        assert_eq!(sorted(broker.committed(&copy)?), payloads, "{name}");
    }
    Ok(())
}

#[test]
fn json_with_a_registry_is_written_read_and_inferred() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let topic = broker.new_topic("json-schema", 1)?;
    let registry = SchemaRegistry::at(server.url());
    let job = Job::new("write");
    job.source(MemorySource::records(bids())).sink(kafka.to_topic(&topic).json_schema(&registry));
    run(job)?;
    let id = registry.latest(&format!("{topic}-value"))?.id;
    let first = [&[0][..], &id.to_be_bytes(), br#"{"id":1,"who":"w1","price":0.5}"#].concat();
    assert_eq!(sorted(broker.committed(&topic)?)[0], first);
    let avro = server.register("other", "AVRO", V1)?;
    broker.produce(&topic, [framed(avro, b"{\"id\":5}".to_vec()), Message::of("{\"id\":6}")])?;

    let (out, inferred) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("read");
    let input = || kafka.topic(&topic).bounded();
    job.source(input().json_schema::<Bid>(&registry)).drop_rejects().sink(out.clone());
    job.source(input().infer_json_schema(100, &registry)?).drop_rejects().sink(inferred.clone());
    run(job)?;
    assert_eq!(rows(&out.batches()), ["1|w1|0.5", "2|null|0.5", "3|w3|0.5", "4|w4|0.5"]);
    assert_eq!(inferred.rows(), 4);
    Ok(())
}

#[test]
fn columns_of_csv_and_protobuf_are_found_out_and_a_reader_has_its_own_schema() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let registry = SchemaRegistry::at(server.url());
    let (csv, proto_topic, avro) =
        (broker.new_topic("csv", 1)?, broker.new_topic("proto", 1)?, broker.new_topic("avro", 1)?);
    broker.produce(&csv, ["1,a,0.5", "2,b,1\n", "no", "3,\"c\",2"].map(Message::of))?;
    let id = server.register(&format!("{proto_topic}-value"), "PROTOBUF", PROTO)?;
    broker.produce(&proto_topic, [framed(id, vec![0, 0x08, 7])])?;
    broker.produce(&avro, [v1(server.register("bids", "AVRO", V1)?, 1, "a")])?;

    let sinks = [MemorySink::new(), MemorySink::new(), MemorySink::new()];
    let job = Job::new("inferred");
    let input = |topic: &str| kafka.topic(topic).bounded();
    job.source(input(&csv).infer_csv(["id", "who", "price"], 100)?).drop_rejects().sink(sinks[0].clone());
    let messages = Protobuf::from_registry(&registry);
    job.source(input(&proto_topic).infer_protobuf(&messages)?).sink(sinks[1].clone());
    // The writer says neither of these, and calls one otherwise.
    let reader = r#"{"type":"record","name":"Bid","fields":[{"name":"id","type":"long"},
        {"name":"name","type":"string","aliases":["who"]},{"name":"price","type":"double","default":9.5}]}"#;
    let columns = [("id", DataType::Int64), ("name", DataType::Utf8), ("price", DataType::Float64)];
    let columns = columns.map(|(name, data_type)| Field::new(name, data_type, false));
    let schema = Arc::new(Schema::new(columns.to_vec()));
    job.source(input(&avro).reader_schema(reader).avro_with(schema, &registry)).sink(sinks[2].clone());
    run(job)?;
    let [csv, proto, avro] = sinks.map(|sink| rows(&sink.batches()));
    assert_eq!(csv, ["1|a|0.5", "2|b|1.0", "3|c|2.0"]);
    assert_eq!((proto, avro), (vec!["7".to_string()], vec!["1|a|9.5".to_string()]));
    Ok(())
}

#[test]
fn an_id_that_the_registry_does_not_have_rejects_the_record() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let (topic, dead) = (broker.new_topic("unknown-id", 1)?, broker.new_topic("dead", 1)?);
    let id = server.register("bids", "AVRO", V1)?;
    let cut = Message::of(vec![0, 0, 0]);
    broker.produce(&topic, [v1(id, 1, "a"), v1(77_777, 2, "b"), v1(id, 3, "c"), cut, Message::of("{}")])?;
    let out = MemorySink::new();
    let job = Job::new("unknown");
    let registry = SchemaRegistry::at(server.url());
    let (good, rejected) = job.source(kafka.topic(&topic).bounded().avro::<Bid>(&registry)).with_rejects();
    good.sink(out.clone());
    rejected.sink(kafka.to_topic(&dead).dead_letters());
    accounted(&run(job)?, 5, 3);
    assert_eq!(rows(&out.batches()), ["1|a|null", "3|c|null"]);
    let letters = broker.committed(&dead)?;
    let why: Vec<&str> = letters.iter().filter_map(|letter| letter.header("windrow.error")).collect();
    assert!(why.len() == 3 && why[0].contains("77777"), "{why:?}");
    let offsets: Vec<&str> = letters.iter().filter_map(|letter| letter.header("windrow.offset")).collect();
    assert_eq!(offsets, ["1", "3", "4"]);
    Ok(())
}

#[test]
fn a_registry_that_is_down_rejects_nothing_and_the_job_goes_on_when_it_is_back() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, server) = (Kafka::brokers(broker.address()), Registry::start()?);
    let topic = broker.new_topic("registry-down", 1)?;
    let (first, second) = (server.register("bids", "AVRO", V1)?, server.register("bids", "AVRO", V2)?);
    let registry = SchemaRegistry::at(server.url());
    let place = tempfile::tempdir()?;
    let out = MemorySink::new();
    let job = Job::new("patient").checkpoint(store(place.path()), millis(200));
    let job = job.restarts(Restarts::at_most(100).waiting(millis(50)..=millis(100)));
    job.source(kafka.topic(&topic).avro::<Bid>(&registry)).drop_rejects().sink(out.clone());
    let report = while_running(job, async |job| {
        broker.produce(&topic, [v1(first, 1, "a")]).unwrap();
        until("the first is written", || out.rows() == 1).await;
        server.set_mood(Mood::Fails(503));
        let before = server.requests().len();
        broker.produce(&topic, [v1(first, 2, "b"), v2(second, 3, None, 1.0), v1(first, 4, "d")]).unwrap();
        // Several tries each time, so it has been started again.
        until("it has asked often", || server.requests().len() > before + 8).await;
        assert_eq!(source(job).rejected, 0);
        server.set_mood(Mood::Well);
        has_read(job, 3).await;
    })?;
    accounted(&report, 3, 0);
    assert_eq!(rows(&out.batches()), ["1|a|null", "2|b|null", "3|null|1.0", "4|d|null"]);

    // Without checkpoints it fails, and says at which record of what.
    server.set_mood(Mood::Fails(503));
    let job = Job::new("impatient");
    let registry = SchemaRegistry::at(server.url());
    job.source(kafka.topic(&topic).bounded().avro::<Bid>(&registry)).drop_rejects().sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains(&server.url()) && error.contains("503"), "{error}");
    Ok(())
}
