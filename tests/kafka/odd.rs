//! Payloads that are nothing, nearly something, or an attack: each is a row or is rejected with a reason, by itself.

use tests::{
    broker::{Broker, Message, Result},
    rows, run,
};
use windrow::prelude::*;

use crate::running::accounted;

#[derive(Record)]
struct Reading {
    id: i64,
    value: Option<f64>,
    text: Option<String>,
}

fn nested(levels: usize) -> String {
    format!(r#"{{"id":1,"more":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
}

/// A payload, and what the reason says if it is none.
fn payloads() -> Vec<(Option<Vec<u8>>, Option<&'static str>)> {
    let bytes = |text: &[u8]| Some(text.to_vec());
    vec![
        (bytes(br#"{"id":1,"value":1.5,"text":"a"}"#), None),
        (None, Some("no payload")),
        (bytes(b""), Some("")),
        (bytes(b"   "), Some("")),
        (bytes(b"null"), Some("null")),
        (bytes(b"[]"), Some("")),
        (bytes(br#"{"id":2}{"id":3}"#), Some("trailing")),
        // What nobody asked for is passed over, however deep it is.
        (bytes(nested(10_000).as_bytes()), None),
        (bytes(nested(10_000).replace("more", "text").as_bytes()), Some("\"text\"")),
        (bytes(b"{\"id\":4,\"text\":\"\xff\xfe\"}"), Some("")),
        (bytes(br#"{"id":5,"value":NaN}"#), Some("")),
        (bytes(br#"{"id":6,"value":"NaN"}"#), Some("\"value\"")),
        (bytes(br#"{"id":7,"value":1e999}"#), Some("does not fit")),
        (bytes(br#"{"id":9223372036854775808}"#), Some("\"id\"")),
        (bytes(br#"{"id":8.5}"#), Some("\"id\"")),
        (bytes(br#"{"value":1}"#), Some("\"id\"")),
        (bytes(br#"{"id":9,"text":"\ud800"}"#), Some("")),
        (bytes(b"\0\0\0\0\x01{\"id\":10}"), Some("json_schema")),
        (bytes("\u{feff}{\"id\":11}".as_bytes()), Some("")),
        (bytes(br#"{"id":12,"text":null,"more":{"a":[1,2,{"b":null}]}}"#), None),
    ]
}

fn good_rows() -> Vec<String> {
    ["12|null|null", "1|1.5|a", "1|null|null"].map(String::from).into()
}

#[test]
fn what_is_no_row_is_rejected_with_its_reason_and_its_neighbours_are_rows() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead) = (broker.new_topic("odd", 1)?, broker.new_topic("dead", 1)?);
    let payloads = payloads();
    let message = |payload: &Option<Vec<u8>>| payload.clone().map_or_else(Message::null, Message::of).key("k");
    broker.produce(&topic, payloads.iter().map(|(payload, _)| message(payload)))?;
    let kafka = Kafka::brokers(broker.address());
    let out = MemorySink::new();
    let job = Job::new("odd");
    let (good, rejected) = job.source(kafka.topic(&topic).bounded().json::<Reading>()).with_rejects();
    good.sink(out.clone());
    rejected.sink(kafka.to_topic(&dead).dead_letters());
    let report = run(job)?;
    let letters = broker.committed(&dead)?;
    let mut wrong = Vec::new();
    for letter in &letters {
        let offset: usize = letter.header("windrow.offset").unwrap_or_default().parse()?;
        let (payload, why) = &payloads[offset];
        let said = letter.header("windrow.error").unwrap_or_default();
        if said.is_empty() || why.is_none_or(|why| !said.contains(why)) {
            wrong.push(format!("{offset}: {why:?}, and it says: {said}"));
        }
        assert_eq!(letter.value.as_deref().unwrap_or_default(), payload.as_deref().unwrap_or_default(), "{offset}");
        assert_eq!(letter.key.as_deref(), Some(b"k".as_slice()), "{offset}");
    }
    assert_eq!((wrong, rows(&out.batches())), (Vec::new(), good_rows()));
    let bad = payloads.iter().filter(|(_, why)| why.is_some()).count();
    accounted(&report, payloads.len() as u64, bad as u64);
    assert_eq!(letters.len(), bad);
    Ok(())
}
