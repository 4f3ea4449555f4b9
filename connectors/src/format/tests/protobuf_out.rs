//! Rows into messages: the schema that is made of columns, frames, and what cannot be written.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
};
use proptest::prelude::*;

use super::{protobuf::registry, schema};
use crate::{
    SchemaRegistry,
    format::{Decoder, JsonDecoder, Payloads, Protobuf},
    registry::testing::{FakeRegistry, Mood},
};

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
    let (fake, registry) = registry(&[]);
    fake.next_id(101);
    let lines = [r#"{"id":1,"note":"","d":0.5,"ms":1500,"lines":[{"sku":"a","n":0}],"numbers":[1,-1]}"#.to_string()];
    let messages = encoded(&Protobuf::from_registry(&registry), &rows(all(), &lines));
    let registered = fake.latest("orders-eu-value").unwrap();
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
    assert_eq!((registered.kind.as_str(), registered.text.as_str()), ("PROTOBUF", text));
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

/// A reader finds a field by its number, so a name keeps it.
#[test]
fn a_column_keeps_its_number_wherever_it_stands() {
    let (fake, registry) = registry(&[]);
    let made = Protobuf::from_registry(&registry);
    let inner = |names: &[&str]| {
        let fields: Vec<_> = names.iter().map(|name| (*name, DataType::Int64, false)).collect();
        DataType::Struct(schema(&fields).fields().clone())
    };
    let int = DataType::Int64;
    let write = |columns: &[(&str, DataType, bool)]| {
        // As another job would, which remembers nothing.
        let made = Protobuf::from_registry(&SchemaRegistry::at(&fake.url));
        made.encoder(&schema(columns), "t").unwrap();
        let text = fake.latest("t-value").unwrap().text;
        text.split_once("message").unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    made.encoder(&schema(&[("a", int.clone(), false), ("b", int.clone(), false)]), "t").unwrap();
    let two = [("b", int.clone(), false), ("a", int.clone(), false)];
    for _ in 0..2 {
        assert_eq!(write(&two), "T { int64 b = 2; int64 a = 1; }");
    }
    let three = [("s", inner(&["x", "y"]), false), ("a", int.clone(), false)];
    for _ in 0..2 {
        let text = "T { reserved 2; message S { int64 x = 1; int64 y = 2; } S s = 3; int64 a = 1; }";
        assert_eq!(write(&three), text);
    }
    let four = [("c", int, false), ("s", inner(&["z", "y"]), false)];
    for _ in 0..2 {
        let text = "T { reserved 1 to 2; int64 c = 4; message S { reserved 1; int64 z = 3; int64 y = 2; } S s = 3; }";
        assert_eq!(write(&four), text);
    }
    fake.add("t-value", "PROTOBUF", "no schema", &[]);
    let error = made.encoder(&schema(&two), "t").err().unwrap().to_string();
    assert!(error.contains("the newest schema of subject \"t-value\""), "{error}");
}

#[test]
fn columns_are_those_of_the_message() {
    let text = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        message M { int32 a = 1; E e = 2; google.protobuf.Timestamp at = 3; google.protobuf.StringValue s = 4;
        repeated N n = 5; map<string, bytes> m = 6; message N { double d = 1; } } enum E { NO = 0; }
        message Ring { Ring ring = 1; }"#;
    let structure = |fields: &[(&str, DataType, bool)]| DataType::Struct(schema(fields).fields().clone());
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, false)));
    let expected = schema(&[
        ("a", DataType::Int32, true),
        ("e", DataType::Utf8, true),
        ("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
        ("s", DataType::Utf8, true),
        ("n", list(structure(&[("d", DataType::Float64, true)])), true),
        ("m", list(structure(&[("key", DataType::Utf8, true), ("value", DataType::Binary, true)])), true),
    ]);
    let plain = Protobuf::from_proto(text, "M").unwrap();
    assert_eq!(plain.columns("t").unwrap(), expected);
    plain.decoder(expected.clone()).unwrap();
    let (fake, registry) = registry(&[]);
    fake.add("ours", "PROTOBUF", text, &[]);
    assert_eq!(Protobuf::from_registry(&registry).subject("ours").columns("t").unwrap(), expected);
    assert!(Protobuf::from_registry(&registry).columns("t").unwrap_err().to_string().contains("\"t-value\""));
    let error = Protobuf::from_proto(text, "Ring").unwrap().columns("t").unwrap_err().to_string();
    assert!(error.contains("Ring contains itself"), "{error}");
}

#[test]
fn any_word_can_be_a_column() {
    let (_fake, registry) = registry(&[]);
    let registry = Protobuf::from_registry(&registry);
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
    let (fake, registry) = registry(&[]);
    fake.next_id(101);
    let framed = plain.with_registry(&registry).subject("ours");
    assert_eq!(encoded(&framed, &batch), [vec![0, 0, 0, 0, 101, 4, 0, 2, 0x18, 5], vec![0, 0, 0, 0, 101, 4, 0, 2]]);
    assert_eq!(fake.latest("ours").unwrap().text, text);
    let mut decoder = framed.decoder(batch.schema()).unwrap();
    for message in encoded(&framed, &batch) {
        decoder.push(&message).unwrap();
    }
    assert_eq!(decoder.flush().unwrap(), batch);
    fake.mood(Mood::Status(500));
    assert!(framed.subject("another").encoder(&batch.schema(), "t").is_err());
}

#[test]
fn columns_that_cannot_be_written_are_named() {
    let (_fake, registry) = registry(&[]);
    let made = Protobuf::from_registry(&registry);
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
        refused(&given, &[s.clone(), ("x", DataType::Int32, false), ("y", DataType::Int32, false)])
            .contains("oneof M.o")
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

/// What a `oneof` is read into can be written, and two of its members in one row cannot: one would be lost.
#[test]
fn a_oneof_is_written_as_it_is_read_wherever_it_stands() {
    let text = r#"syntax = "proto3"; message M { oneof o { int32 x = 1; string y = 2; } repeated N n = 3;
        message N { oneof p { int32 a = 1; int32 b = 2; } } }"#;
    let messages = Protobuf::from_proto(text, "M").unwrap();
    let inner = schema(&[("a", DataType::Int32, true), ("b", DataType::Int32, true)]).fields().clone();
    let item = Arc::new(Field::new_list_field(DataType::Struct(inner), true));
    let columns =
        schema(&[("x", DataType::Int32, true), ("y", DataType::Utf8, true), ("n", DataType::List(item), true)]);
    let written = [&[0x08, 0, 0x1a, 2, 0x08, 7, 0x1a, 2, 0x10, 0][..], &[0x12, 0], &[]];
    let mut decoder = messages.decoder(columns.clone()).unwrap();
    written.iter().for_each(|message| decoder.push(message).unwrap());
    assert_eq!(encoded(&messages, &decoder.flush().unwrap()), written);
    let mut encoder = messages.encoder(&columns, "t").unwrap();
    for (line, why) in [
        (r#"{"x":0,"y":"","n":[]}"#, r#"column "x": it and "y" are not null"#),
        (r#"{"x":0,"n":[{"a":1},{"a":1,"b":2}]}"#, r#"column "n.a": it and "b" are not null"#),
    ] {
        let error = encoder.encode(&rows(columns.clone(), &[line.to_string()]), &mut Payloads::new()).unwrap_err();
        assert!(matches!(error, crate::ConnectorError::Data { .. }) && error.to_string().starts_with(why), "{error}");
    }
}

#[test]
fn a_null_in_a_required_field_is_an_error_that_names_it() {
    let text = r#"syntax = "proto2"; message M { required int32 a = 1; optional N n = 2; message N { required int32 b = 1; } }"#;
    let messages = Protobuf::from_proto(text, "M").unwrap();
    let inner = DataType::Struct(schema(&[("b", DataType::Int32, true)]).fields().clone());
    let columns = schema(&[("a", DataType::Int32, true), ("n", inner, true)]);
    // Nullable by type alone is fine.
    assert_eq!(encoded(&messages, &rows(columns.clone(), &[r#"{"a":0}"#.to_string()])), [[0x08, 0]]);
    let mut encoder = messages.encoder(&columns, "t").unwrap();
    for (line, column) in [("{}", "a"), (r#"{"a":1,"n":{}}"#, "n.b")] {
        let error = encoder.encode(&rows(columns.clone(), &[line.to_string()]), &mut Payloads::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("column {column:?}: it is null, and the field is required"));
    }
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
    let (_fake, registry) = registry(&[]);
    let made = Protobuf::from_registry(&registry);
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
        static REGISTRY: LazyLock<(FakeRegistry, SchemaRegistry)> = LazyLock::new(|| registry(&[]));
        let registry = Protobuf::from_registry(&REGISTRY.1);
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
