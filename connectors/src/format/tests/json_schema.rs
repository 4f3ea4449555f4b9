//! JSON with the id of a schema in front: what is read, rejected, registered and written.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray},
    datatypes::{DataType, Int32Type},
};
use serde_json::{Value, json};

use super::schema;
use crate::{
    ConnectorError, SchemaRegistry,
    format::{Decoder, JsonDecoder, JsonSchemaDecoder, JsonSchemaFormat, PayloadFormat, Payloads},
    registry::testing::{FakeRegistry, Mood},
};

fn quick(fake: &FakeRegistry) -> SchemaRegistry {
    SchemaRegistry::at(&fake.url).patience(Duration::from_millis(500), Duration::from_millis(1))
}

fn framed(id: u32, text: &str) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), text.as_bytes()].concat()
}

#[test]
fn what_a_registry_frames_is_read_and_the_rest_is_rejected() {
    let fake = FakeRegistry::start();
    let (first, second) =
        (fake.add("t-value", "JSON", "{}", &[]), fake.add("t-value", "JSON", r#"{"type":"object"}"#, &[]));
    let avro = fake.add_avro("a-value", "\"int\"");
    let columns = schema(&[("n", DataType::Int64, false)]);
    let mut decoder = JsonSchemaDecoder::new(columns, quick(&fake), 100).unwrap();
    for (id, n) in [(first, 1), (second, 2), (first, 3)] {
        decoder.push(&framed(id, &format!(r#"{{"n":{n},"more":0}}"#))).unwrap();
    }
    assert_eq!(fake.requests().len(), 2, "each schema once");
    for (record, why) in [
        (br#"{"n":4}"#.to_vec(), "no schema id"),
        (vec![0, 0, 0], "no schema id"),
        (framed(first, ""), "not JSON"),
        (framed(first, r#"{"n":"x"}"#), "column \"n\""),
        (framed(avro, r#"{"n":4}"#), "its schema is Avro, not JSON Schema"),
        (framed(77, r#"{"n":4}"#), "schema id 77 is not in the schema registry"),
        (framed(first, &" ".repeat(100)), "the limit is 100"),
    ] {
        let reason = decoder.push(&record).unwrap_err();
        assert!(reason.contains(why) && decoder.failure().is_none(), "{reason}");
    }
    // Who forgot the registry is told so; these bytes are not even text.
    let mut plain = JsonDecoder::new(schema(&[("n", DataType::Int64, false)]), 100).unwrap();
    assert!(plain.push(&framed(100_001, r#"{"n":4}"#)).unwrap_err().contains("read by json_schema"));
    fake.mood(Mood::Status(500));
    assert!(decoder.push(&framed(9, r#"{"n":5}"#)).is_err());
    assert!(matches!(decoder.failure(), Some(ConnectorError::Remote { passes: true, .. })));
    decoder.push(&framed(first, r#"{"n":6}"#)).unwrap();
    let n = Int64Array::from(vec![1, 2, 3, 6]);
    assert_eq!(decoder.flush().unwrap().column(0).as_ref(), &n);
}

#[test]
fn there_and_back_by_a_schema_that_is_registered_once() {
    let fake = FakeRegistry::start();
    fake.next_id(258);
    let tags = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let columns: Vec<(&str, DataType, bool, ArrayRef)> = vec![
        ("id", DataType::Int64, false, Arc::new(Int64Array::from(vec![7, 8]))),
        ("who", DataType::Utf8, true, Arc::new(StringArray::from(vec![Some("a"), None]))),
        ("score", DataType::Float64, false, Arc::new(Float64Array::from(vec![0.5, 1.5]))),
        ("tags", DataType::new_list(DataType::Int32, true), true, Arc::new(tags)),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, kind, null, _)| (*name, kind.clone(), *null)).collect();
    let columns_of = schema(&fields);
    let arrays = columns.into_iter().map(|(.., array)| array).collect();
    let batch = RecordBatch::try_new(columns_of.clone(), arrays).unwrap();

    let format = JsonSchemaFormat::new(quick(&fake));
    format.accepts(&columns_of, "bids").unwrap();
    assert!(fake.requests().is_empty());
    let mut out = Payloads::new();
    for _ in 0..2 {
        out.clear();
        format.encoder(&columns_of, "bids").unwrap().encode(&batch, &mut out).unwrap();
    }
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(out.get(0).unwrap(), framed(258, r#"{"id":7,"who":"a","score":0.5,"tags":[1,null]}"#));
    let entry = fake.latest("bids-value").unwrap();
    assert_eq!(entry.kind, "JSON");
    let maybe = |value: Value| json!({"oneOf": [{"type": "null"}, value]});
    let expected = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "title": "bids", "type": "object",
        "additionalProperties": false, "required": ["id", "score"],
        "properties": {
            "id": {"type": "integer"}, "who": maybe(json!({"type": "string"})), "score": maybe(json!({"type": "number"})),
            "tags": maybe(json!({"type": "array", "items": maybe(json!({"type": "integer"}))})),
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&entry.text).unwrap(), expected);
    let mut decoder = JsonSchemaDecoder::new(columns_of.clone(), quick(&fake), 1000).unwrap();
    (0..2).for_each(|row| decoder.push(out.get(row).unwrap()).unwrap());
    assert_eq!(decoder.flush().unwrap(), batch);

    format.clone().subject("other").encoder(&columns_of, "bids").unwrap();
    assert!(fake.latest("other").is_some());
    fake.close("closed");
    let error = format.subject("closed").encoder(&columns_of, "bids").err().unwrap();
    assert!(matches!(error, ConnectorError::Config(_)), "{error}");
}
