//! Rows into messages: the schema that is made of columns, frames, and what cannot be written.

use std::{sync::Arc, sync::atomic::Ordering};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
};
use proptest::prelude::*;

use super::{protobuf::Registry, schema};
use crate::format::{Decoder, JsonDecoder, Payloads, Protobuf};

fn all() -> SchemaRef {
    let line =
        DataType::Struct(schema(&[("sku", DataType::Utf8, false), ("n", DataType::UInt16, true)]).fields().clone());
    let stamp = |unit| DataType::Timestamp(unit, None);
    schema(&[
        ("id", DataType::Int64, false),
        ("note", DataType::Utf8, true),
        ("ok", DataType::Boolean, true),
        ("tiny", DataType::Int8, true),
        ("big", DataType::UInt64, true),
        ("day", DataType::Date32, true),
        ("f", DataType::Float32, true),
        ("d", DataType::Float64, false),
        ("at", stamp(TimeUnit::Nanosecond), true),
        ("ms", stamp(TimeUnit::Millisecond), false),
        ("line", line.clone(), true),
        ("lines", DataType::List(Arc::new(Field::new_list_field(line, false))), false),
        ("numbers", DataType::List(Arc::new(Field::new_list_field(DataType::Int32, false))), false),
    ])
}

fn rows(columns: SchemaRef, lines: &[String]) -> RecordBatch {
    let mut decoder = JsonDecoder::new(columns, 1 << 20).unwrap();
    for line in lines {
        decoder.push(line.as_bytes()).unwrap_or_else(|reason| panic!("{line}: {reason}"));
    }
    decoder.flush().unwrap()
}

fn encoded(protobuf: &Protobuf, batch: &RecordBatch) -> Vec<Vec<u8>> {
    let mut out = Payloads::new();
    protobuf.encoder(&batch.schema(), "orders-eu").unwrap().encode(batch, &mut out).unwrap();
    (0..out.len()).map(|row| out.get(row).unwrap().to_vec()).collect()
}

fn refused(protobuf: &Protobuf, columns: &[(&str, DataType, bool)]) -> String {
    protobuf.encoder(&schema(columns), "t").err().unwrap().to_string()
}

#[test]
fn a_schema_is_made_of_the_columns() {
    let registry = Arc::new(Registry::default());
    let lines = [r#"{"id":1,"note":"","d":0.5,"ms":1500,"lines":[{"sku":"a","n":0}],"numbers":[1,-1]}"#.to_string()];
    let messages = encoded(&Protobuf::from_registry(registry.clone()), &rows(all(), &lines));
    let registered = registry.registered.lock().unwrap().clone();
    let text = r#"syntax = "proto3";

import "google/protobuf/timestamp.proto";

message OrdersEu {
  int64 id = 1;
  optional string note = 2;
  optional bool ok = 3;
  optional int32 tiny = 4;
  optional uint64 big = 5;
  optional int32 day = 6;
  optional float f = 7;
  double d = 8;
  optional google.protobuf.Timestamp at = 9;
  google.protobuf.Timestamp ms = 10;
  message Line {
    string sku = 1;
    optional uint32 n = 2;
  }
  optional Line line = 11;
  message Lines {
    string sku = 1;
    optional uint32 n = 2;
  }
  repeated Lines lines = 12;
  repeated int32 numbers = 13;
}
"#;
    assert_eq!(registered, [("orders-eu-value".to_string(), text.to_string())]);
    let expected = [
        &[0, 0, 0, 0, 101, 0][..],                               // frame: id 101, the first message
        &[0x08, 1, 0x12, 0],                                     // id: 1; note is there and empty
        &[0x41, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f],                   // d: 0.5
        &[0x52, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01], // ms: 1 s and 500 million ns
        &[0x62, 5, 0x0a, 1, b'a', 0x10, 0],                      // lines: n is there and 0
        &[0x6a, 11, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // numbers, packed
    ];
    assert_eq!(messages[0], expected.concat());
}

#[test]
fn any_word_can_be_a_column() {
    let registry = Protobuf::from_registry(Arc::new(Registry::default()));
    let inner = DataType::Struct(schema(&[("Inner", DataType::Int8, true)]).fields().clone());
    let names = ["google", "message", "optional", "string", "_", "import"];
    let at = DataType::Timestamp(TimeUnit::Second, None);
    let mut columns: Vec<_> = names.iter().map(|name| (*name, at.clone(), true)).collect();
    // The message within would be called like its field.
    columns.push(("Inner", inner, true));
    for topic in ["a.b-c", "", "7", "é", "google"] {
        let encoder = registry.encoder(&schema(&columns), topic);
        assert!(encoder.is_ok(), "{topic}: {}", encoder.err().unwrap());
    }
}

#[test]
fn given_messages_are_framed_with_their_place() {
    let text = r#"syntax = "proto3"; package p; message A { message X { int32 a = 1; } message B { optional sint64 id = 3; } }"#;
    let ids = schema(&[("id", DataType::Int32, true)]);
    let batch = RecordBatch::try_new(ids, vec![Arc::new(Int32Array::from(vec![Some(-3), None]))]).unwrap();
    let plain = Protobuf::from_proto(text, "p.A.B").unwrap();
    assert_eq!(encoded(&plain, &batch), [vec![0x18, 5], vec![]]);
    let registry = Arc::new(Registry::default());
    let framed = plain.with_registry(registry.clone());
    assert_eq!(encoded(&framed, &batch), [vec![0, 0, 0, 0, 101, 4, 0, 2, 0x18, 5], vec![0, 0, 0, 0, 101, 4, 0, 2]]);
    assert_eq!(registry.registered.lock().unwrap()[0].1, text);
    let mut decoder = framed.decoder(batch.schema()).unwrap();
    for message in encoded(&framed, &batch) {
        decoder.push(&message).unwrap();
    }
    assert_eq!(decoder.flush().unwrap(), batch);
    registry.is_down.store(true, Ordering::Relaxed);
    assert!(framed.encoder(&batch.schema(), "t").is_err());
}

#[test]
fn columns_that_cannot_be_written_are_named() {
    let made = Protobuf::from_registry(Arc::new(Registry::default()));
    assert!(refused(&made, &[("a-b", DataType::Int64, true)]).contains("column \"a-b\""));
    assert!(refused(&made, &[("", DataType::Int64, true)]).contains("column \"\""));
    assert!(
        refused(&made, &[("l", DataType::new_list(DataType::new_list(DataType::Int8, true), true), true)])
            .contains("\"l\"")
    );
    assert!(refused(&made, &[("x", DataType::Decimal128(9, 2), true)]).contains("column \"x\" (Decimal128"));
    assert!(
        refused(&made, &[("a_b", DataType::Int8, true), ("aB", DataType::Int8, true)])
            .contains("the columns make no schema")
    );

    let text = r#"syntax = "proto2"; message M { optional int32 a = 1; optional uint64 u = 2; required string s = 3;
        oneof o { int32 x = 4; int32 y = 5; } optional float f = 6; optional E e = 7; } enum E { RED = 4; }"#;
    let given = Protobuf::from_proto(text, "M").unwrap();
    let s = ("s", DataType::Utf8, false);
    assert!(refused(&given, &[("a", DataType::Int32, true)]).contains("field \"s\" of the message M is required"));
    assert!(refused(&given, &[s.clone(), ("a", DataType::Int64, true)]).contains("column \"a\" is Int64"));
    assert!(refused(&given, &[s.clone(), ("u", DataType::Int64, true)]).contains("column \"u\" is Int64"));
    assert!(refused(&given, &[s.clone(), ("f", DataType::Float64, true)]).contains("column \"f\""));
    assert!(refused(&given, &[s.clone(), ("z", DataType::Float64, true)]).contains("column \"z\""));
    assert!(
        refused(&given, &[s.clone(), ("x", DataType::Int32, true), ("y", DataType::Int32, true)]).contains("oneof M.o")
    );

    let columns = schema(&[s, ("e", DataType::Utf8, true)]);
    let batch = |e: &str| {
        RecordBatch::try_new(
            columns.clone(),
            vec![Arc::new(StringArray::from(vec!["x"])), Arc::new(StringArray::from(vec![e]))],
        )
        .unwrap()
    };
    assert_eq!(encoded(&given, &batch("RED")), [vec![0x1a, 1, b'x', 0x38, 4]]);
    let mut encoder = given.encoder(&columns, "t").unwrap();
    let error = encoder.encode(&batch("BLUE"), &mut Payloads::new()).unwrap_err();
    assert_eq!(error.to_string(), "column \"e\": \"BLUE\" is no value of the enum E");
    let other = RecordBatch::try_from_iter([("e", batch("RED").column(0).clone())]).unwrap();
    assert!(encoder.encode(&other, &mut Payloads::new()).unwrap_err().to_string().contains("other columns"));
}

#[test]
fn a_null_in_a_list_is_an_error_that_names_it() {
    let items: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let list = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Int64, true)),
        OffsetBuffer::from_lengths([2]),
        items,
        None,
    );
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("l", list.data_type().clone(), true)),
        Arc::new(list) as ArrayRef,
    )]);
    let batch = RecordBatch::try_from_iter([("s", Arc::new(inner) as ArrayRef)]).unwrap();
    let made = Protobuf::from_registry(Arc::new(Registry::default()));
    let error = made.encoder(&batch.schema(), "t").unwrap().encode(&batch, &mut Payloads::new()).unwrap_err();
    assert!(error.to_string().starts_with("column \"s.l\": a list has a null in it"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(rows_of in prop::collection::vec(
        (any::<i64>(), prop::option::of(any::<String>()), any::<Option<bool>>(), any::<Option<i8>>(), any::<Option<u64>>(),
         (any::<Option<i32>>(), prop::option::of(prop::num::f32::NORMAL), prop::num::f64::NORMAL | prop::num::f64::ZERO,
          any::<Option<i64>>(), any::<i64>()),
         prop::option::of((any::<String>(), any::<Option<u16>>())), prop::collection::vec(any::<String>(), 0..3),
         prop::collection::vec(any::<i32>(), 0..4)), 1..6)) {
        let lines: Vec<String> = rows_of.into_iter().map(|(id, note, ok, tiny, big, (day, f, d, at, ms), line, lines, numbers)| {
            let lines: Vec<_> = lines.into_iter().map(|sku| serde_json::json!({"sku": sku})).collect();
            let line = line.map(|(sku, n)| serde_json::json!({"sku": sku, "n": n}));
            serde_json::json!({"id": id, "note": note, "ok": ok, "tiny": tiny, "big": big, "day": day, "f": f, "d": d, "at": at,
                "ms": ms, "line": line, "lines": lines, "numbers": numbers}).to_string()
        }).collect();
        let batch = rows(all(), &lines);
        let registry = Protobuf::from_registry(Arc::new(Registry::default()));
        let mut decoder = registry.decoder(all()).unwrap();
        for message in encoded(&registry, &batch) {
            decoder.push(&message).unwrap();
        }
        prop_assert_eq!(decoder.flush().unwrap(), batch);
    }
}

#[test]
fn bytes_and_views_are_written() {
    let text = r#"syntax = "proto3"; message M { bytes b = 1; string s = 2; double d = 3; }"#;
    let columns: [(&str, ArrayRef); 3] = [
        ("b", Arc::new(arrow::array::BinaryViewArray::from_iter_values([b"\xff"]))),
        ("s", Arc::new(arrow::array::StringViewArray::from_iter_values(["é"]))),
        ("d", Arc::new(arrow::array::Float32Array::from(vec![f32::NAN]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let message = encoded(&Protobuf::from_proto(text, "M").unwrap(), &batch).remove(0);
    assert_eq!(message[..7], [0x0a, 1, 0xff, 0x12, 2, 0xc3, 0xa9]);
    let read = schema(&[("d", DataType::Float64, false)]);
    let mut decoder = Protobuf::from_proto(text, "M").unwrap().decoder(read).unwrap();
    decoder.push(&message).unwrap();
    assert!(decoder.flush().unwrap().column(0).as_primitive::<arrow::datatypes::Float64Type>().value(0).is_nan());
}
