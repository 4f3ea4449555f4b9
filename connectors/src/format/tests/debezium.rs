//! Debezium's envelopes: what goes in, what is refused and why, and what comes out.

use std::sync::Arc;

use arrow::{
    array::{AsArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt8Array},
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
    util::pretty::pretty_format_batches,
};
use proptest::prelude::*;

use super::schema;
use crate::{
    OP,
    format::{Debezium, DebeziumDecoder, DebeziumEncoder, Decoder, PayloadFormat, Payloads, RowEncoder},
};

fn columns() -> SchemaRef {
    schema(&[("op", DataType::Utf8, false), ("id", DataType::Int64, false), ("name", DataType::Utf8, true)])
}

fn decoder() -> DebeziumDecoder {
    DebeziumDecoder::new(columns(), 1 << 20).unwrap()
}

/// The rows as `op id name`.
fn rows(decoder: &mut DebeziumDecoder) -> Vec<String> {
    let batch = decoder.flush().unwrap();
    let (ops, ids, names) = (
        batch.column(0).as_string::<i32>(),
        batch.column(1).as_primitive::<Int64Type>(),
        batch.column(2).as_string::<i32>(),
    );
    let names = names.iter().map(|name| name.unwrap_or("-"));
    ops.iter().flatten().zip(ids.values()).zip(names).map(|((op, id), name)| format!("{op} {id} {name}")).collect()
}

#[test]
fn envelopes_of_all_kinds_are_rows() {
    let mut decoder = decoder();
    for record in [
        r#"{"before":null,"after":{"id":1,"name":"a"},"source":{"ts_ms":5,"db":"x"},"op":"c","ts_ms":6,"transaction":null}"#,
        r#"{"op":"r","after":{"name":"b","id":2}}"#,
        r#"{"after":{"id":3,"more":{"op":"d"}},"before":{"id":9},"op":"u"}"#,
        r#"{"schema":{"type":"struct","op":7},"payload":{"before":{"id":4,"name":"d"},"after":null,"op":"d"}}"#,
        r#"{"payload":{"op":"d","before":{"id":5}},"schema":null}"#,
        r#" { "op" : "\u0063" , "aft\u0065r" : { "id" : 6, "op": "x", "name": null } } "#,
    ] {
        decoder.push(record.as_bytes()).unwrap_or_else(|reason| panic!("{record}: {reason}"));
    }
    assert_eq!(decoder.push_null(), Ok(false), "a tombstone");
    assert_eq!(decoder.len(), 6);
    let expected = ["insert 1 a", "insert 2 b", "update 3 -", "delete 4 d", "delete 5 -", "insert 6 -"];
    assert_eq!(rows(&mut decoder), expected);
}

#[test]
fn what_is_refused_says_why() {
    let mut decoder = decoder();
    decoder.push(br#"{"op":"c","after":{"id":1}}"#).unwrap();
    for (record, reason) in [
        (r#"{"op":"t","after":null}"#, "truncate"),
        (r#"{"op":"m","message":{}}"#, "message"),
        (r#"{"op":"x","after":{"id":1}}"#, "\"op\" is \"x\""),
        (r#"{"op":7,"after":{"id":1}}"#, "not a change event"),
        (r#"{"after":{"id":1}}"#, "no \"op\""),
        (r#"{"payload":null,"schema":null}"#, "no \"op\""),
        (r#"{"op":"c","after":null}"#, "without \"after\""),
        (r#"{"op":"u","before":{"id":1}}"#, "without \"after\""),
        (r#"{"op":"d","after":{"id":1}}"#, "REPLICA IDENTITY"),
        (r#"{"op":"d","before":{"name":"x"}}"#, "column \"id\" is missing, and it is not nullable (a delete has"),
        (r#"{"op":"c","after":{"id":1},"after":{"id":2}}"#, "duplicate field"),
        (r#"{"op":"c","after":{"id":1,"id":2}}"#, "stands twice"),
        (r#"{"op":"c","after":{"id":"1"}}"#, "column \"id\": \"1\" is not Int64"),
        (r#"{"op":"c","after":7}"#, "not an object"),
        (r#"{"op":"c","after":[]}"#, "not an object"),
        (r#"{"op":"c","after":{"id":1}} x"#, "not JSON"),
        (r#"{"op":"c","after":{"id":NaN}}"#, "not JSON"),
        (r#"{"op":"c","after":{"id":1}"#, "not JSON"),
        (r#"{"op":"u","after":{"id":1,"name":"__debezium_unavailable_value"}}"#, "column \"name\" was not sent"),
        ("7", "not a change event"),
        ("null", "not a change event"),
        ("", "not JSON"),
    ] {
        let refused = decoder.push(record.as_bytes()).unwrap_err();
        assert!(refused.contains(reason), "{record}: {refused}");
        assert_eq!(decoder.len(), 1);
    }
    assert!(decoder.push(b"{\"op\":\"c\",\"after\":{\"id\":1,\"x\":\"\xff\"}}").unwrap_err().contains("UTF-8"));
    decoder.push(br#"{"op":"d","before":{"id":2}}"#).unwrap();
    assert_eq!(rows(&mut decoder), ["insert 1 -", "delete 2 -"]);
}

#[test]
fn a_value_that_was_not_sent_is_found_in_every_form() {
    let item = |data_type| DataType::List(Arc::new(Field::new("item", data_type, true)));
    let inner = DataType::Struct(vec![Field::new("t", DataType::Utf8, true)].into());
    let columns = schema(&[
        ("op", DataType::Utf8, false),
        ("t", DataType::LargeUtf8, true),
        ("l", item(DataType::Utf8), true),
        ("n", item(DataType::Int32), true),
        ("s", inner.clone(), true),
        ("ls", item(inner), true),
    ]);
    let mut decoder = DebeziumDecoder::new(columns, 1 << 20).unwrap();
    let word = "__debezium_unavailable_value";
    let numbers: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
    let row = |row: &str| format!(r#"{{"op":"u","after":{{{row}}}}}"#);
    decoder.push(row(r#""t":"x","l":["y"],"n":[95,95],"s":{"t":"z"},"ls":[{"t":"z"},null]"#).as_bytes()).unwrap();
    decoder.push(row(r#""t":null,"l":null,"n":[],"s":null"#).as_bytes()).unwrap();
    for (column, value) in [
        ("t", format!("\"{word}\"")),
        ("t", "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"".to_string()),
        ("t", "\"5f5f646562657a69756d5f756e617661696c61626c655f76616c7565\"".to_string()),
        ("l", format!("[\"{word}\"]")),
        ("n", format!("[{}]", numbers.join(","))),
        ("s", format!("{{\"t\":\"{word}\"}}")),
        ("ls", format!("[{{}},{{\"t\":\"{word}\"}}]")),
    ] {
        let reason = decoder.push(row(&format!("\"{column}\":{value}")).as_bytes()).unwrap_err();
        assert!(reason.contains(&format!("column {column:?} was not sent")), "{reason}");
    }
    assert_eq!(decoder.flush().unwrap().num_rows(), 2);
}

#[test]
fn times_have_the_unit_that_the_record_tells() {
    let time = |unit| DataType::Timestamp(unit, None);
    let (micros, millis) = (time(TimeUnit::Microsecond), time(TimeUnit::Millisecond));
    let columns = schema(&[("op", DataType::Utf8, false), ("us", micros, true), ("ms", millis, true)]);
    let mut decoder = DebeziumDecoder::new(columns, 1 << 20).unwrap();
    let record = |name: &str, row: &str| {
        let field = |column: &str| format!(r#"{{"field":"{column}","type":"int64","name":"{name}","optional":true}}"#);
        let fields = format!("{},{}", field("us"), field("ms"));
        format!(
            r#"{{"schema":{{"fields":[{{"field":"before","fields":[]}},{{"field":"after","fields":[{fields}]}}]}},
               "payload":{{"op":"c","after":{row}}}}}"#
        )
    };
    let mut push = |name: &str, row: &str| decoder.push(record(name, row).as_bytes());
    push("io.debezium.time.Timestamp", r#"{"us":5,"ms":5}"#).unwrap();
    push("io.debezium.time.MicroTimestamp", r#"{"us":7,"ms":7000}"#).unwrap();
    push("io.debezium.time.NanoTimestamp", r#"{"us":-9000,"ms":null}"#).unwrap();
    push("io.debezium.time.ZonedTimestamp", r#"{"us":"1970-01-01T00:00:01Z","ms":"1970-01-01T00:00:01Z"}"#).unwrap();
    let reason = push("io.debezium.time.MicroTimestamp", r#"{"us":7,"ms":7001}"#).unwrap_err();
    assert!(reason.contains("column \"ms\": 7001 of io.debezium.time.MicroTimestamp does not fit"), "{reason}");
    let reason = push("io.debezium.time.Timestamp", r#"{"us":9223372036854775807}"#).unwrap_err();
    assert!(reason.contains("column \"us\""), "{reason}");
    // Who says nothing is believed.
    decoder.push(br#"{"op":"c","after":{"us":5,"ms":5}}"#).unwrap();
    let batch = decoder.flush().unwrap();
    let values = |i: usize| batch.column(i).to_data().buffers()[0].typed_data::<i64>()[..5].to_vec();
    assert_eq!(values(1), [5_000, 7, -9, 1_000_000, 5]);
    assert_eq!(values(2), [5, 7, 0, 1_000, 5]);
}

#[test]
fn a_delete_needs_a_column_that_tells() {
    let mut decoder = DebeziumDecoder::new(schema(&[("id", DataType::Int64, false)]), 100).unwrap();
    decoder.push(br#"{"op":"u","after":{"id":1}}"#).unwrap();
    assert!(decoder.push(br#"{"op":"d","before":{"id":1}}"#).unwrap_err().contains("no column \"op\""));
    assert_eq!(decoder.flush().unwrap().num_rows(), 1);
    let mut none = DebeziumDecoder::new(schema(&[]), 100).unwrap();
    none.push(br#"{"op":"u","after":{"id":1}}"#).unwrap();
    assert_eq!(none.flush().unwrap().num_rows(), 1);
}

#[test]
fn times_of_the_envelope() {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = schema(&[
        ("id", DataType::Int64, true),
        ("__source_ts_ms", micros.clone(), false),
        ("__ts_ms", DataType::Int64, true),
        ("t", micros, true),
    ]);
    let mut decoder = DebeziumDecoder::new(columns, 1000).unwrap();
    decoder.push(br#"{"op":"c","after":{"id":1,"t":77},"source":{"ts_ms":-3},"ts_ms":4}"#).unwrap();
    decoder.push(br#"{"source":{"ts_ms":5,"x":[]},"op":"c","after":{"t":null}}"#).unwrap();
    for (record, reason) in [
        (r#"{"op":"c","after":{"id":1}}"#, "column \"__source_ts_ms\" is missing"),
        (r#"{"op":"c","after":{"id":1},"source":{"ts_ms":9223372036854775807}}"#, "does not fit"),
        (r#"{"op":"c","after":{"id":1},"source":{"ts_ms":1.5}}"#, "not a change event"),
    ] {
        assert!(decoder.push(record.as_bytes()).unwrap_err().contains(reason), "{record}");
    }
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(1).as_primitive::<TimestampMicrosecondType>().values()[..], [-3000, 5000]);
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(4), None]);
    assert_eq!(batch.column(3).as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<_>>(), [Some(77), None]);

    let refused =
        |name, data_type| DebeziumDecoder::new(schema(&[(name, data_type, true)]), 10).unwrap_err().to_string();
    assert!(refused("op", DataType::UInt8).contains("column \"op\""));
    assert!(refused("__ts_ms", DataType::Utf8).contains("column \"__ts_ms\""));
    assert!(refused("id", DataType::Binary).contains("column \"id\""));
}

#[test]
fn depth_is_no_danger() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut decoder = decoder();
    let unwanted = format!(r#"{{"op":"c","after":{{"id":1,"x":{}}}}}"#, deep(10_000));
    decoder.push(unwanted.as_bytes()).unwrap();
    let payloads = format!("{}1{}", r#"{"payload":"#.repeat(10_000), "}".repeat(10_000));
    assert!(decoder.push(payloads.as_bytes()).is_err());
    let wanted = format!(r#"{{"op":"c","after":{{"id":{}}}}}"#, deep(10_000));
    assert!(decoder.push(wanted.as_bytes()).is_err());
    let objects = format!(r#"{{"op":"c","after":{}1{}}}"#, r#"{"name":"#.repeat(10_000), "}".repeat(10_000));
    assert!(decoder.push(objects.as_bytes()).is_err());
    assert_eq!(rows(&mut decoder), ["insert 1 -"]);
}

#[test]
fn a_schema_is_inferred_from_both_rows() {
    let sample = [
        br#"{"op":"c","after":{"id":1,"name":"a"}}"#.to_vec(),
        br#"{"payload":{"op":"d","before":{"id":1,"old":2.5}}}"#.to_vec(),
    ];
    let all = DebeziumDecoder::infer(&sample, None).unwrap();
    let expected = [
        ("op", DataType::Utf8, false),
        ("id", DataType::Int64, true),
        ("name", DataType::Utf8, true),
        ("old", DataType::Float64, true),
    ];
    assert_eq!(all, schema(&expected));
    let some = DebeziumDecoder::infer(&sample, Some(&["id".to_string()])).unwrap();
    assert_eq!(some, schema(&[("id", DataType::Int64, true)]));
    let named = DebeziumDecoder::infer(&sample, Some(&["op".to_string(), "id".to_string()])).unwrap();
    assert_eq!(named.field(0).name(), "op");
    assert!(
        DebeziumDecoder::infer(&sample, Some(&["idd".to_string()])).unwrap_err().to_string().contains("did you mean")
    );
    assert!(DebeziumDecoder::infer(&[b"7".to_vec()], None).is_err());
}

fn table() -> SchemaRef {
    schema(&[("id", DataType::Int64, false), ("name", DataType::Utf8, true), ("f", DataType::Float64, true)])
}

fn changes(ops: Option<Vec<u8>>, names: Vec<Option<&str>>) -> RecordBatch {
    let ids = Int64Array::from_iter_values(0..names.len() as i64);
    let floats = Float64Array::from_iter_values((0..names.len()).map(|_| f64::NAN));
    let batch =
        RecordBatch::try_new(table(), vec![Arc::new(ids), Arc::new(StringArray::from(names)), Arc::new(floats)]);
    let batch = batch.unwrap();
    let Some(ops) = ops else { return batch };
    let table = table();
    let fields = table.fields().iter().cloned().chain([Arc::new(Field::new(OP, DataType::UInt8, false))]);
    let mut arrays = batch.columns().to_vec();
    arrays.push(Arc::new(UInt8Array::from(ops)));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays).unwrap()
}

#[test]
fn changes_are_envelopes() {
    let mut encoder = DebeziumEncoder::new(&table()).unwrap();
    assert!(Debezium.takes_changes());
    Debezium.accepts(&table(), "t").unwrap();
    let mut out = Payloads::new();
    encoder.encode(&changes(Some(vec![0, 1, 2]), vec![Some("a\nb"), None, Some("\"")]), &mut out).unwrap();
    encoder.encode(&changes(None, vec![Some("x")]), &mut out).unwrap();
    let text: Vec<&str> = (0..out.len()).map(|row| std::str::from_utf8(out.get(row).unwrap()).unwrap()).collect();
    let expected = [
        r#"{"before":null,"after":{"id":0,"name":"a\nb","f":null},"op":"c","ts_ms":null}"#,
        r#"{"before":null,"after":{"id":1,"name":null,"f":null},"op":"u","ts_ms":null}"#,
        r#"{"before":{"id":2,"name":"\"","f":null},"after":null,"op":"d","ts_ms":null}"#,
        r#"{"before":null,"after":{"id":0,"name":"x","f":null},"op":"c","ts_ms":null}"#,
    ];
    assert_eq!(text, expected);
    let error = encoder.encode(&changes(Some(vec![3]), vec![None]), &mut out).unwrap_err();
    assert!(error.to_string().contains("__op"), "{error}");
    encoder.encode(&changes(Some(vec![]), vec![]), &mut out).unwrap();
}

/// Envelopes, nearly envelopes, and nothing of the kind.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string()),
        2 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => any::<f64>().prop_map(|n| format!("{n:?}")),
        1 => Just("null".to_string()),
        1 => Just("{\"id\": [1, {}]}".to_string()),
    ];
    let member = ("id|name|op|x", value.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let row = prop_oneof![
        6 => prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        2 => (any::<i64>(), any::<String>()).prop_map(|(id, name)| serde_json::json!({"id": id, "name": name}).to_string()),
        1 => Just("null".to_string()),
        1 => value,
    ];
    let part = prop_oneof![
        3 => ("before|after", row.clone()).prop_map(|(name, row)| format!("\"{name}\":{row}")),
        2 => "[crudtm]".prop_map(|op| format!("\"op\":\"{op}\"")),
        1 => ("source|ts_ms|schema|payload|op", row).prop_map(|(name, row)| format!("\"{name}\":{row}")),
    ];
    let envelope = prop::collection::vec(part, 0..4).prop_map(|parts| format!("{{{}}}", parts.join(",")));
    let record = (envelope, 0..4u8).prop_map(|(envelope, wrap)| match wrap {
        0 => format!("{{\"schema\":{{}},\"payload\":{envelope}}}"),
        _ => envelope,
    });
    prop_oneof![
        9 => record.clone().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
        2 => (record, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(record, at, byte)| {
            let mut bytes = record.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

/// What a record should be, by a tree of values: refused, or this. `None` if the tree cannot hold a number of it, which may be one that
/// nobody asks for.
fn plainly(record: &[u8]) -> Option<Option<String>> {
    match serde_json::from_slice(record) {
        Err(error) if error.to_string().starts_with("number out of range") => None,
        tree => Some(tree.ok().and_then(|tree| change(&tree))),
    }
}

fn change(tree: &serde_json::Value) -> Option<String> {
    let envelope = match tree.get("payload") {
        Some(payload) if !payload.is_null() && tree.get("op").is_none_or(|op| op.is_null()) => payload,
        _ => tree,
    };
    let (op, row) = match envelope.get("op")?.as_str()? {
        "c" | "r" => ("insert", envelope.get("after")?),
        "u" => ("update", envelope.get("after")?),
        "d" => ("delete", envelope.get("before")?),
        _ => return None,
    };
    // The parser gives the whole number -0 as a float.
    let id = row.get("id")?;
    let id = id.as_i64().or_else(|| id.as_f64().filter(|id| *id == 0.0 && id.is_sign_negative()).map(|_| 0))?;
    let name = row.get("name").and_then(|name| name.as_str()).unwrap_or("-");
    Some(format!("{op} {id} {name}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn hostile_records_harm_nobody(records in prop::collection::vec(records(), 1..6)) {
        let mut together = decoder();
        let good = br#"{"op":"c","after":{"id":7,"name":"good"}}"#;
        let mut expected = Vec::new();
        for record in &records {
            let mut alone = decoder();
            if alone.push(record).is_ok() {
                let batch = alone.flush().unwrap();
                prop_assert_eq!(batch.num_rows(), 1);
                let row = rows(&mut { let mut again = decoder(); again.push(record).unwrap(); again });
                if let Some(expected) = plainly(record) {
                    prop_assert_eq!(row.first().cloned(), expected);
                }
                expected.push(batch);
                together.push(record).unwrap();
            } else {
                prop_assert!(together.push(record).is_err());
            }
            together.push(good).unwrap();
            let mut neighbour = decoder();
            neighbour.push(good).unwrap();
            expected.push(neighbour.flush().unwrap());
        }
        let expected = concat_batches(&columns(), &expected).unwrap();
        let batch = together.flush().unwrap();
        prop_assert_eq!(&batch, &expected, "{}", pretty_format_batches(std::slice::from_ref(&batch)).unwrap());
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same(rows in prop::collection::vec((any::<i64>(), prop::option::of(any::<String>()), 0..3u8), 1..8)) {
        let fields = [("id", DataType::Int64, false), ("name", DataType::Utf8, true), (OP, DataType::UInt8, false)];
        let batch = RecordBatch::try_new(schema(&fields), vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.clone()))),
            Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.2))),
        ]).unwrap();
        let mut out = Payloads::new();
        DebeziumEncoder::new(&schema(&fields[..2])).unwrap().encode(&batch, &mut out).unwrap();
        let mut decoder = decoder();
        for row in 0..out.len() {
            decoder.push(out.get(row).unwrap()).unwrap();
        }
        let words = ["insert", "update", "delete"];
        let expected: Vec<String> = rows.iter().map(|(id, name, op)| {
            format!("{} {id} {}", words[usize::from(*op)], name.as_deref().unwrap_or("-"))
        }).collect();
        prop_assert_eq!(super::debezium::rows(&mut decoder), expected);
    }
}
