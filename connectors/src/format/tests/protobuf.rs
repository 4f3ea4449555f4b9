//! Messages into columns, against bytes written by hand; and what a registry may answer.

use std::time::Duration;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
    json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited},
};

use super::schema;
use crate::{
    ConnectorError, SchemaRegistry,
    format::{Decoder, Frame, Protobuf},
    registry::testing::{FakeRegistry, Mood},
};

/// A registry with these .proto texts by id, and how to ask it.
pub(super) fn registry(texts: &[(u32, &str)]) -> (FakeRegistry, SchemaRegistry) {
    let fake = FakeRegistry::start();
    for (id, text) in texts {
        fake.next_id(*id);
        assert_eq!(fake.add(&format!("s{id}"), "PROTOBUF", text, &[]), *id);
    }
    let registry = SchemaRegistry::at(&fake.url).patience(Duration::from_secs(5), Duration::from_millis(1));
    (fake, registry)
}

/// The rows as JSON, nulls left out.
fn json(batch: &RecordBatch) -> Vec<String> {
    let mut bytes = Vec::new();
    let mut writer: LineDelimitedWriter<_> = WriterBuilder::new().build::<_, LineDelimited>(&mut bytes);
    writer.write(batch).unwrap();
    String::from_utf8(bytes).unwrap().lines().map(str::to_string).collect()
}

fn read(text: &str, columns: &[(&str, DataType, bool)], messages: &[&[u8]]) -> Vec<String> {
    let mut decoder = Protobuf::from_proto(text, "M").unwrap().decoder(schema(columns)).unwrap();
    for message in messages {
        decoder.push(message).unwrap_or_else(|reason| panic!("{message:02x?}: {reason}"));
    }
    json(&decoder.flush().unwrap())
}

fn structure(fields: &[(&str, DataType, bool)]) -> DataType {
    DataType::Struct(schema(fields).fields().clone())
}

#[test]
fn scalars_of_all_kinds() {
    let text = r#"syntax = "proto3"; message M {
        int32 a = 1; int64 b = 2; uint32 c = 3; uint64 d = 4; sint32 e = 5; sint64 f = 6; fixed32 g = 7; fixed64 h = 8;
        sfixed32 i = 9; sfixed64 j = 10; float k = 11; double l = 12; bool m = 13; string n = 14; bytes o = 15; }"#;
    let columns = [
        ("a", DataType::Int32, false),
        ("b", DataType::Int64, false),
        ("c", DataType::UInt32, false),
        ("d", DataType::UInt64, false),
        ("e", DataType::Int32, false),
        ("f", DataType::Int64, false),
        ("g", DataType::UInt32, false),
        ("h", DataType::UInt64, false),
        ("i", DataType::Int32, false),
        ("j", DataType::Int64, false),
        ("k", DataType::Float32, false),
        ("l", DataType::Float64, false),
        ("m", DataType::Boolean, false),
        ("n", DataType::Utf8, false),
        ("o", DataType::Binary, false),
    ];
    let message = [
        &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], // a: -1, as ten bytes
        &[0x10, 0x96, 0x01],                                                     // b: 150
        &[0x18, 0xff, 0xff, 0xff, 0xff, 0x0f],                                   // c: 2^32 - 1
        &[0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],     // d: 2^64 - 1
        &[0x28, 0x03],                                                           // e: -2
        &[0x30, 0x04],                                                           // f: 2
        &[0x3d, 1, 0, 0, 0x80],                                                  // g: 2^31 + 1
        &[0x41, 1, 0, 0, 0, 0, 0, 0, 0],                                         // h: 1
        &[0x4d, 0xff, 0xff, 0xff, 0xff],                                         // i: -1
        &[0x51, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],                 // j: -2
        &[0x5d, 0, 0, 0xc0, 0x3f],                                               // k: 1.5
        &[0x61, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],                                   // l: 1.5
        &[0x68, 0x02],                                                           // m: true
        &[0x72, 2, 0xc3, 0xa9],                                                  // n: é
        &[0x7a, 2, 0xff, 0x00],                                                  // o
        &[0x82, 0x06, 1, 7],                                                     // 96: unknown
        &[0x8b, 0x06, 0x08, 1, 0x8c, 0x06],                                      // 97: an unknown group
    ];
    let full = r#"{"a":-1,"b":150,"c":4294967295,"d":18446744073709551615,"e":-2,"f":2,"g":2147483649,"h":1,"i":-1,"j":-2,"k":1.5,"l":1.5,"m":true,"n":"é","o":"ff00"}"#;
    let empty =
        r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0,"j":0,"k":0.0,"l":0.0,"m":false,"n":"","o":""}"#;
    assert_eq!(read(text, &columns, &[&message.concat(), b""]), [full, empty]);
}

#[test]
fn floats_that_are_no_numbers_are_kept() {
    use arrow::{
        array::AsArray,
        datatypes::{Float32Type, Float64Type},
    };
    let text = r#"syntax = "proto3"; message M { float a = 1; double b = 2; }"#;
    let columns = schema(&[("a", DataType::Float32, false), ("b", DataType::Float64, false)]);
    let mut decoder = Protobuf::from_proto(text, "M").unwrap().decoder(columns).unwrap();
    decoder.push(&[0x0d, 0, 0, 0x80, 0x7f, 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]).unwrap();
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Float32Type>().value(0), f32::INFINITY);
    assert!(batch.column(1).as_primitive::<Float64Type>().value(0).is_nan());
}

#[test]
fn presence_defaults_and_the_last_one_counts() {
    let text = r#"syntax = "proto3"; message M { int32 a = 1; optional int32 b = 2;
        oneof c { int32 x = 3; string y = 4; N z = 5; } int32 gone = 6; } message N { int32 p = 1; int32 q = 2; }"#;
    let n = structure(&[("p", DataType::Int32, false), ("q", DataType::Int32, false)]);
    let columns =
        [("a", DataType::Int32, true), ("b", DataType::Int32, true), ("x", DataType::Int32, true), ("z", n, true)];
    let rows = read(
        text,
        &columns,
        &[
            b"",
            &[0x10, 0, 0x08, 1, 0x08, 2],          // b is there and 0; a is the last
            &[0x18, 1, 0x22, 0],                   // y, which has no column, takes x away
            &[0x2a, 2, 0x08, 1, 0x18, 9],          // x takes z away
            &[0x2a, 2, 0x08, 1, 0x2a, 2, 0x10, 2], // pieces of z are merged
            &[0x2a, 2, 0x08, 1, 0x18, 0, 0x2a, 2, 0x10, 2], // … but not across x
        ],
    );
    let expected = [
        r#"{"a":0}"#,
        r#"{"a":2,"b":0}"#,
        r#"{"a":0}"#,
        r#"{"a":0,"x":9}"#,
        r#"{"a":0,"z":{"p":1,"q":2}}"#,
        r#"{"a":0,"z":{"p":0,"q":2}}"#,
    ];
    assert_eq!(rows, expected);

    let strict = schema(&[("b", DataType::Int32, false)]);
    let mut decoder = Protobuf::from_proto(text, "M").unwrap().decoder(strict).unwrap();
    assert_eq!(decoder.push(b"").unwrap_err(), r#"column "b": is missing, and it is not nullable"#);
    assert_eq!(decoder.len(), 0);
}

#[test]
fn lists_maps_enums_and_googles_messages() {
    let text = r#"syntax = "proto3";
        import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        message M { repeated sint32 a = 1; repeated string b = 2; map<string, int64> c = 3; repeated N d = 4;
          Color e = 5; Color f = 6; google.protobuf.Timestamp g = 7; google.protobuf.StringValue h = 8; }
        message N { int32 p = 1; repeated N more = 2; }
        enum Color { NONE = 0; RED = 1; }"#;
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let entry = structure(&[("key", DataType::Utf8, false), ("value", DataType::Int64, false)]);
    let n = DataType::Struct(
        vec![int("p"), Field::new("more", DataType::new_list(structure(&[("p", DataType::Int32, true)]), true), true)]
            .into(),
    );
    let columns = [
        ("a", DataType::new_list(DataType::Int32, true), true),
        ("b", DataType::new_list(DataType::Utf8, false), false),
        ("c", DataType::new_list(entry, false), true),
        ("d", DataType::new_list(n, true), true),
        ("e", DataType::Utf8, false),
        ("f", DataType::Int16, false),
        ("g", DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())), true),
        ("h", DataType::Utf8, true),
    ];
    let full = [
        &[0x0a, 2, 1, 2, 0x12, 1, b'x', 0x08, 3][..], // a: packed -1 1, then alone -2; b between them
        &[0x12, 0],                                   // b: ""
        &[0x1a, 5, 0x0a, 1, b'k', 0x10, 5, 0x1a, 0],  // c: k → 5, and all defaults
        &[0x22, 0, 0x22, 6, 0x08, 1, 0x12, 2, 0x08, 2], // d: {}, {1, [{2}]}
        &[0x28, 1, 0x30, 0x83, 0x02],                 // e: RED; f: 259, which has no name
        &[0x3a, 13, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 1], // g: -1 s and 1 ns
        &[0x42, 0],                                   // h: ""
    ];
    let expected = [
        r#"{"a":[],"b":[],"c":[],"d":[],"e":"NONE","f":0}"#,
        r#"{"a":[-1,1,-2],"b":["x",""],"c":[{"key":"k","value":5},{"key":"","value":0}],"d":[{"p":0,"more":[]},{"p":1,"more":[{"p":2}]}],"e":"RED","f":259,"g":"1969-12-31T23:59:59Z","h":""}"#,
    ];
    assert_eq!(read(text, &columns, &[b"", &full.concat()]), expected);
}

#[test]
fn what_is_refused_says_why_and_leaves_nothing() {
    let text = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
        message M { int64 a = 1; string b = 2; E c = 3; google.protobuf.Timestamp d = 4; N n = 5; repeated N l = 6; string x = 9; }
        message N { int32 p = 1; string s = 2; } enum E { Z = 0; }"#;
    let n = structure(&[("p", DataType::Int8, true), ("s", DataType::Utf8, true)]);
    let columns = schema(&[
        ("a", DataType::Int64, false),
        ("b", DataType::Utf8, false),
        ("c", DataType::Utf8, false),
        ("d", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        ("n", n.clone(), true),
        ("l", DataType::new_list(n, true), true),
    ]);
    let mut decoder = Protobuf::from_proto(text, "M").unwrap().decoder(columns.clone()).unwrap();
    decoder.push(&[0x08, 1]).unwrap();
    for (bytes, reason) in [
        (&[0x08][..], "not a message of Protocol Buffers: invalid varint"),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "invalid varint"),
        (&[0x00, 1], "invalid tag"),
        (&[0x0f, 1], "invalid wire type"),
        (&[0x0c], "unexpected end group tag"),
        (&[0x53], "invalid varint"),
        (&[0x12, 5, b'x'], "it ends within a value"),
        (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "it ends within a value"),
        (&[0x4a, 5, b'x'], "it ends within a value"),
        (&[0x0d, 1, 2, 3, 4], "column \"a\": it is encoded as another type"),
        (&[0x0b, 0x0c], "column \"a\": it is encoded as another type"),
        (&[0x12, 1, 0xff], "column \"b\": not UTF-8"),
        (&[0x18, 7], "column \"c\": 7 is no value of the enum E"),
        (
            &[0x22, 2, 0x10, 0x7f, 0x22, 11, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "-1 nanoseconds",
        ),
        (&[0x22, 7, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40], "does not fit Timestamp"),
        (&[0x2a, 3, 0x08, 0x80, 0x01], "column \"n.p\": 128 does not fit Int8"),
        (&[0x32, 0, 0x32, 3, 0x12, 1, 0xff], "column \"l[1].s\": not UTF-8"),
        (&[0x32, 2, 0x12, 1], "column \"l[0]\": not a message"),
    ] {
        let refused = decoder.push(bytes).unwrap_err();
        assert!(refused.contains(reason), "{bytes:02x?}: {refused}");
        assert_eq!(decoder.len(), 1);
    }
    let groups = [vec![0x53; 10_000], vec![0x54; 10_000]].concat();
    assert!(decoder.push(&groups).unwrap_err().contains("recursion limit"));
    decoder.push(&[0x08, 2]).unwrap();
    let rows = json(&decoder.flush().unwrap());
    assert_eq!(rows, [r#"{"a":1,"b":"","c":"Z","l":[]}"#, r#"{"a":2,"b":"","c":"Z","l":[]}"#]);
    assert!(matches!(decoder.frame(b"x", true), Frame::Bad(span, _) if span.next == 1));
    assert!(decoder.push_null().unwrap_err().contains("tombstone"));
}

#[test]
fn columns_that_do_not_match_are_found_before_a_message_comes() {
    let text = r#"syntax = "proto2"; message M { optional int64 price = 1; repeated bytes b = 2; optional N n = 3;
        optional group G = 4 { optional int32 x = 1; } map<int32, N> m = 5; } message N { optional string s = 1; }"#;
    let order = Protobuf::from_proto(text, "M").unwrap();
    let refused = |name, data_type| order.decoder(schema(&[(name, data_type, true)])).unwrap_err().to_string();
    assert!(
        refused("prize", DataType::Int64)
            .contains(r#"column "prize": the message M has no such field; it has "price""#)
    );
    assert!(
        refused("price", DataType::Utf8)
            .contains(r#"column "price" is Utf8, and the field M.price is int64: choose Int64"#)
    );
    assert!(refused("price", DataType::Float64).contains("choose Int64"));
    assert!(refused("b", DataType::Binary).contains("repeated bytes: choose a List"));
    assert!(refused("b", DataType::new_list(DataType::Utf8, true)).contains("choose Binary"));
    assert!(refused("n", DataType::Utf8).contains("is N: choose a Struct"));
    assert!(refused("n", structure(&[("s", DataType::Int8, true)])).contains(r#"column "n.s""#));
    assert!(refused("n", structure(&[("t", DataType::Utf8, true)])).contains(r#"column "n.t""#));
    assert!(refused("m", structure(&[])).contains("a map of"));
    assert!(refused("g", structure(&[("x", DataType::Int32, true)])).contains("groups"));
    assert!(refused("price", DataType::Duration(TimeUnit::Second)).contains("\"price\""));

    let error = |text: &str, message: &str| Protobuf::from_proto(text, message).unwrap_err().to_string();
    assert!(error(text, "P").contains("no message \"P\""));
    assert!(error("message {", "M").contains("line 1:"), "{}", error("message {", "M"));
    assert!(error("import \"nowhere.proto\";", "M").contains("nowhere.proto"));
    assert!(error(&format!("//{}", "x".repeat(2 << 20)), "M").contains("bytes"));
    assert!(error(&"message A { ".repeat(10_000), "A").contains("nested"));
    assert!(error(&format!("option x = {};", "{ a: ".repeat(10_000)), "A").contains("nested"));
    assert!(
        error("syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\";", "google.protobuf.Timestamp")
            .contains("imported")
    );
    assert!(Protobuf::from_descriptor_set(b"\xff\xff", "M").is_err());
}

#[test]
fn descriptor_sets_are_schemas_too() {
    let set = [
        &[0x0a, 30][..],                                            // a file of 30 bytes
        &[0x0a, 1, b'f'],                                           // its name
        &[0x22, 17, 0x0a, 1, b'M', 0x12, 12],                       // the message M with a field
        &[0x0a, 1, b'a', 0x18, 1, 0x20, 1, 0x28, 3, 0x52, 1, b'a'], // a = 1, optional, int64
        &[0x62, 6, b'p', b'r', b'o', b't', b'o', b'3'],
    ];
    let protobuf = Protobuf::from_descriptor_set(&set.concat(), "M").unwrap();
    let registry = protobuf.clone().with_registry(&SchemaRegistry::at("http://127.0.0.1:1"));
    let columns = schema(&[("a", DataType::Int64, false)]);
    assert!(registry.encoder(&columns, "t").err().unwrap().to_string().contains("use from_proto"));
    let mut decoder = protobuf.decoder(columns).unwrap();
    decoder.push(&[0x08, 5]).unwrap();
    assert_eq!(json(&decoder.flush().unwrap()), [r#"{"a":5}"#]);
}

const SHOP: &str = r#"syntax = "proto3"; package shop;
    message First { int64 id = 1; message A { string x = 1; } map<string, int32> m = 2; message B { int64 id = 7; } }
    message Second { int64 id = 2; }"#;

fn ids() -> SchemaRef {
    schema(&[("id", DataType::Int64, false), ("later", DataType::Utf8, true)])
}

#[test]
fn frames_say_which_message_of_which_schema() {
    let again = format!("{SHOP} ");
    let texts = [(1, SHOP), (3, "what?"), (4, "syntax = \"proto3\";"), (0xff00_0102, &again)];
    let (fake, registry) = registry(&texts);
    let avro = fake.add_avro("a", "\"int\"");
    assert_eq!(avro, 0xff00_0103);
    let mut decoder = Protobuf::from_registry(&registry).decoder(ids()).unwrap();
    for message in [
        &[0, 0, 0, 0, 1, 0, 0x08, 1][..],   // the first message, in short
        &[0, 0, 0, 0, 1, 2, 0, 0x08, 2],    // in long
        &[0, 0xff, 0, 1, 2, 2, 2, 0x10, 3], // the second message
        &[0, 0, 0, 0, 1, 4, 0, 2, 0x38, 4], // First.B: the message of the map does not count
        &[0, 0, 0, 0, 1, 0],                // a message without fields
    ] {
        decoder.push(message).unwrap_or_else(|reason| panic!("{message:02x?}: {reason}"));
        assert!(decoder.failure().is_none());
    }
    for (message, reason) in [
        (&[][..], "byte 0"),
        (b"{\"id\":1}", "byte 0"),
        (&[0, 0, 0, 0], "within the id"),
        (&[0, 0, 0, 0, 1], "are broken"),
        (&[0, 0, 0, 0, 1, 0x80], "are broken"),
        (&[0, 0, 0, 0, 1, 1], "count -1"),
        (&[0, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "count 9223372036854775807"),
        (&[0, 0, 0, 0, 1, 2], "are broken"),
        (&[0, 0, 0, 0, 1, 2, 1], "message -1"),
        (&[0, 0, 0, 0, 1, 2, 6], "message [3] of schema 1"),
        (
            &[0, 0, 0, 0, 1, 4, 0, 0],
            "schema 1: column \"id\": the message shop.First.A has no such field; it has \"x\"",
        ),
        (&[0, 0, 0, 0, 2, 0], "schema id 2 is not in the schema registry"),
        (&[0, 0xff, 0, 1, 3, 0], "is Avro, not Protobuf"),
        (&[0, 0, 0, 0, 3, 0], "schema 3 does not compile: line 1:1:"),
        (&[0, 0, 0, 0, 4, 0], "message [0] of schema 4"),
        (&[0, 0, 0, 0, 1, 0, 0x08], "not a message"),
    ] {
        let refused = decoder.push(message).unwrap_err();
        assert!(refused.contains(reason), "{message:02x?}: {refused}");
        assert!(decoder.failure().is_none());
    }
    let rows = json(&decoder.flush().unwrap());
    assert_eq!(rows, [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#, r#"{"id":4}"#, r#"{"id":0}"#]);

    let asked = fake.requests().len();
    decoder.push(&[0, 0, 0, 0, 1, 0, 0x08, 1]).unwrap();
    decoder.push(&[0, 0, 0, 0, 3, 0]).unwrap_err();
    assert_eq!(fake.requests().len(), asked, "what is known is not asked for again");
}

#[test]
fn a_registry_that_is_down_rejects_nothing() {
    let (fake, registry) = registry(&[(1, SHOP)]);
    let mut decoder = Protobuf::from_registry(&registry).decoder(ids()).unwrap();
    fake.mood(Mood::Status(500));
    assert!(decoder.push(&[0, 0, 0, 0, 1, 0]).unwrap_err().contains("did not answer"));
    assert!(matches!(decoder.failure(), Some(ConnectorError::Remote { passes: true, .. })));
    assert!(decoder.failure().is_none());
    fake.mood(Mood::Fine);
    decoder.push(&[0, 0, 0, 0, 1, 0]).unwrap();
    fake.mood(Mood::Status(500));
    decoder.push(&[0, 0, 0, 0, 1, 0]).unwrap();
    assert!(decoder.push(&[7]).is_err());
    assert!(decoder.failure().is_none());
    assert_eq!(decoder.len(), 2);
}

/// Confluent's clients have these files built in, so no registry has them.
#[test]
fn what_clients_have_built_in_is_imported_without_a_reference() {
    let text = r#"syntax = "proto3"; import "google/type/money.proto"; import "google/type/date.proto";
        import "confluent/meta.proto"; import "confluent/type/decimal.proto"; package shop;
        message Bid { option (confluent.message_meta).doc = "what is offered"; google.type.Money price = 1;
            google.type.Date day = 2 [(confluent.field_meta) = { doc: "of the bid", tags: ["PII"] }];
            confluent.type.Decimal total = 3 [(confluent.field_meta).params = { key: "precision", value: "10" }]; }"#;
    let (_fake, registry) = registry(&[(1, text)]);
    let protobuf = Protobuf::from_registry(&registry);
    let columns = schema(&[
        ("price", structure(&[("currency_code", DataType::Utf8, false), ("units", DataType::Int64, false)]), true),
        ("day", structure(&[("year", DataType::Int32, false)]), true),
        ("total", structure(&[("value", DataType::Binary, false), ("scale", DataType::Int32, false)]), true),
    ]);
    let mut decoder = protobuf.decoder(columns).unwrap();
    let message = [
        &[0, 0, 0, 0, 1, 0][..],
        &[0x0a, 6, 0x0a, 2, b'E', b'U', 0x10, 7, 0x12, 3, 0x08, 0xea, 0x0f],
        &[0x1a, 5, 0x0a, 1, 0xff, 0x18, 2],
    ];
    decoder.push(&message.concat()).unwrap();
    let expected = r#"{"price":{"currency_code":"EU","units":7},"day":{"year":2026},"total":{"value":"ff","scale":2}}"#;
    assert_eq!(json(&decoder.flush().unwrap()), [expected]);
    let error = Protobuf::from_proto("import \"shop/x.proto\";", "M").unwrap_err().to_string();
    assert!(
        error.contains("shop/x.proto") && error.contains("not found: register that file as a reference"),
        "{error}"
    );
}

#[test]
fn references_are_imports() {
    let texts = |references: &[(&str, &str)]| {
        let (fake, registry) = registry(&[]);
        let text = "syntax = \"proto3\"; import \"other.proto\"; message M { o.Other id = 1; }";
        fake.next_id(1);
        fake.add("m", "PROTOBUF", text, &references.iter().map(|(name, _)| (*name, *name, 1)).collect::<Vec<_>>());
        for (name, text) in references {
            fake.add(name, "PROTOBUF", text, &[]);
        }
        let columns = schema(&[("id", structure(&[("id", DataType::Int32, true)]), true)]);
        (Protobuf::from_registry(&registry).decoder(columns).unwrap(), fake)
    };
    let message = [0, 0, 0, 0, 1, 0, 0x0a, 2, 0x08, 5];
    let other = "syntax = \"proto3\"; package o; message Other { int32 id = 1; }";
    let (mut decoder, _fake) = texts(&[("other.proto", other)]);
    decoder.push(&message).unwrap();
    assert_eq!(json(&decoder.flush().unwrap()), [r#"{"id":{"id":5}}"#]);
    assert!(texts(&[]).0.push(&message).unwrap_err().contains("other.proto"));
    assert!(
        texts(&[("other.proto", "import \"other.proto\";")]).0.push(&message).unwrap_err().contains("does not compile")
    );
    let many: Vec<(String, String)> = (0..200).map(|i| (format!("{i}.proto"), format!("// {i}"))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert!(texts(&many).0.push(&message).unwrap_err().contains("200 imports"));
}
