//! Every type, into every column that takes it, and into none that does not.

use arrow::datatypes::{DataType as D, Fields, TimeUnit};

use super::*;

#[test]
fn numbers() {
    for (n, shown) in [
        (0, "0"),
        (-1, "-1"),
        (63, "63"),
        (64, "64"),
        (-65, "-65"),
        (i32::MAX.into(), "2147483647"),
        (i32::MIN.into(), "-2147483648"),
    ] {
        for to in [D::Int32, D::Int64] {
            assert_eq!(one("\"int\"", V::Int(n), to).unwrap(), shown);
        }
    }
    assert_eq!(one("\"long\"", V::Int(i64::MIN), D::Int64).unwrap(), i64::MIN.to_string());
    assert_eq!(one("\"long\"", V::Int(i64::MAX), D::Int64).unwrap(), i64::MAX.to_string());
    assert_eq!(one("\"int\"", V::Int(7), D::Float64).unwrap(), "7.0");
    assert_eq!(one("\"long\"", V::Int(7), D::Float32).unwrap(), "7.0");
    assert_eq!(one("\"float\"", V::F32(1.5), D::Float64).unwrap(), "1.5");
    assert_eq!(one("\"double\"", V::F64(0.1), D::Float64).unwrap(), "0.1");
    assert_eq!(one("\"long\"", V::Int(u32::MAX.into()), D::UInt32).unwrap(), "4294967295");
    // In range of the type, out of the column's: the record's fault.
    assert_eq!(one("\"int\"", V::Int(300), D::Int8).unwrap_err(), "column \"v\": 300 does not fit Int8 (schema id 1)");
    assert!(one("\"int\"", V::Int(1 << 40), D::Int64).unwrap_err().contains("32 bits"));
    for infinite in [f32::INFINITY, f32::NAN] {
        assert!(one("\"float\"", V::F32(infinite), D::Float32).is_ok());
        assert!(one("\"double\"", V::F64(infinite.into()), D::Float64).is_ok());
    }
}

#[test]
fn what_would_lose_something_is_refused_by_the_schema() {
    let refused = [
        ("\"long\"", D::Int32, "long"),
        ("\"double\"", D::Float32, "double"),
        ("\"float\"", D::Int64, "float"),
        ("\"string\"", D::Int64, "string"),
        ("\"long\"", D::Utf8, "long"),
        ("\"long\"", D::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), "long"),
        ("\"int\"", D::Date32, "int"),
        (
            r#"{"type":"long","logicalType":"timestamp-micros"}"#,
            D::Timestamp(TimeUnit::Millisecond, None),
            "long (timestamp-micros)",
        ),
        (
            r#"{"type":"long","logicalType":"local-timestamp-micros"}"#,
            D::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            "long (local-timestamp-micros)",
        ),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
            D::Decimal128(9, 3),
            "bytes (decimal(9, 2))",
        ),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#,
            D::Decimal128(8, 2),
            "bytes (decimal(9, 2))",
        ),
        ("[\"null\",\"string\"]", D::Boolean, "string"),
        ("[\"int\",\"boolean\"]", D::Utf8, "int"),
    ];
    for (from, to, described) in refused {
        // An empty record: what is in it has not been looked at.
        let reason = one(from, V::Record(Vec::new()), to.clone()).unwrap_err();
        let expected =
            format!("column \"v\": the writer has {described} there, which does not become {to} (schema id 1)");
        assert_eq!(reason, expected);
    }
    assert_eq!(
        one("\"null\"", V::Null, D::Int64).unwrap_err(),
        "column \"v\": the writer has null there, and the column is not nullable (schema id 1)"
    );
}

#[test]
fn texts_bytes_and_enums() {
    assert_eq!(one("\"string\"", text("grüße"), D::Utf8).unwrap(), "\"grüße\"");
    assert_eq!(one("\"bytes\"", text("grüße"), D::Utf8View).unwrap(), "\"grüße\"");
    assert_eq!(one("\"string\"", text("ab"), D::Binary).unwrap(), "\"6162\"");
    assert!(one("\"string\"", V::Bytes(vec![0xFF]), D::Utf8).unwrap_err().contains("not UTF-8"));
    let fixed = r#"{"type":"fixed","name":"F","size":2}"#;
    assert_eq!(one(fixed, V::Fixed(vec![1, 2]), D::FixedSizeBinary(2)).unwrap(), "\"0102\"");
    assert_eq!(one(fixed, V::Fixed(vec![1, 2]), D::Binary).unwrap(), "\"0102\"");
    let suit = r#"{"type":"enum","name":"Suit","symbols":["hearts","spades"]}"#;
    assert_eq!(one(suit, V::Int(1), D::Utf8).unwrap(), "\"spades\"");
    for outside in [-1, 2, i64::MAX] {
        assert!(
            one(suit, V::Int(outside), D::Utf8)
                .unwrap_err()
                .contains(&format!("symbol {outside} is chosen, and there are 2"))
        );
    }
    let uuid = r#"{"type":"string","logicalType":"uuid"}"#;
    let id = "00112233-4455-6677-8899-aabbccddeeff";
    assert_eq!(one(uuid, text(id), D::Utf8).unwrap(), format!("{id:?}"));
    assert_eq!(one(uuid, text(id), D::FixedSizeBinary(16)).unwrap(), "\"00112233445566778899aabbccddeeff\"");
    assert!(one(uuid, text("00112233"), D::FixedSizeBinary(16)).is_err());
}

#[test]
fn times() {
    let utc = |unit| D::Timestamp(unit, Some("+00:00".into()));
    let millis = r#"{"type":"long","logicalType":"timestamp-millis"}"#;
    assert_eq!(one(millis, V::Int(1_500), utc(TimeUnit::Microsecond)).unwrap(), "\"1970-01-01T00:00:01.500Z\"");
    assert_eq!(one(millis, V::Int(-1), utc(TimeUnit::Millisecond)).unwrap(), "\"1969-12-31T23:59:59.999Z\"");
    assert_eq!(one(millis, V::Int(1), D::Int64).unwrap(), "1");
    assert!(one(millis, V::Int(i64::MAX), utc(TimeUnit::Microsecond)).unwrap_err().contains("does not fit Timestamp"));
    let nanos = r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#;
    assert_eq!(
        one(nanos, V::Int(1), D::Timestamp(TimeUnit::Nanosecond, None)).unwrap(),
        "\"1970-01-01T00:00:00.000000001\""
    );
    assert_eq!(one(r#"{"type":"int","logicalType":"date"}"#, V::Int(-1), D::Date32).unwrap(), "\"1969-12-31\"");
    let noon = V::Int(12 * 3_600_000);
    assert_eq!(
        one(r#"{"type":"int","logicalType":"time-millis"}"#, noon.clone(), D::Time32(TimeUnit::Millisecond)).unwrap(),
        "\"12:00:00\""
    );
    assert_eq!(
        one(r#"{"type":"int","logicalType":"time-millis"}"#, noon, D::Time64(TimeUnit::Microsecond)).unwrap(),
        "\"12:00:00\""
    );
}

#[test]
fn decimals() {
    let bytes = r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}"#;
    for (raw, shown) in
        [(vec![], "0.00"), (vec![0x7F], "1.27"), (vec![0xFF], "-0.01"), (vec![0x01, 0x86, 0x9F], "999.99")]
    {
        assert_eq!(one(bytes, V::Bytes(raw), D::Decimal128(5, 2)).unwrap(), shown);
    }
    // More bytes than needed, and more digits than there may be.
    let mut long = vec![0xFF; 40];
    assert_eq!(one(bytes, V::Bytes(long.clone()), D::Decimal128(9, 2)).unwrap(), "-0.01");
    long[0] = 0;
    assert!(one(bytes, V::Bytes(long), D::Decimal128(9, 2)).unwrap_err().contains("more than 5 digits"));
    assert!(
        one(bytes, V::Bytes(vec![0x01, 0x86, 0xA0]), D::Decimal128(9, 2)).unwrap_err().contains("more than 5 digits")
    );
    let mut turned = vec![0; 17];
    turned[1] = 0x80;
    assert!(one(bytes, V::Bytes(turned), D::Decimal128(9, 2)).is_err());
    let fixed = r#"{"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":5,"scale":2}"#;
    assert_eq!(one(fixed, V::Fixed(vec![0xFF, 0xFF, 0x9C]), D::Decimal128(5, 2)).unwrap(), "-1.00");
}

#[test]
fn lists_maps_and_structs() {
    let list = D::List(Arc::new(nullable("item", D::Int64)));
    let items = V::Array(vec![some(1, V::Int(1)), some(0, V::Null), some(1, V::Int(-3))]);
    assert_eq!(one(r#"{"type":"array","items":["null","int"]}"#, items, list.clone()).unwrap(), "[1,null,-3]");
    assert_eq!(one(r#"{"type":"array","items":"long"}"#, V::Array(Vec::new()), list.clone()).unwrap(), "[]");
    let lists = D::List(Arc::new(needed("item", list)));
    let nested = V::Array(vec![V::Array(vec![V::Int(1)]), V::Array(Vec::new()), V::Array(vec![V::Int(2), V::Int(3)])]);
    assert_eq!(
        one(r#"{"type":"array","items":{"type":"array","items":"int"}}"#, nested, lists).unwrap(),
        "[[1],[],[2,3]]"
    );

    let entries = Fields::from(vec![needed("key", D::Utf8), nullable("value", D::Float64)]);
    let map = D::Map(Arc::new(needed("entries", D::Struct(entries))), false);
    let values = V::Map(vec![("a", V::F32(0.5)), ("b", V::F32(2.0))]);
    assert_eq!(one(r#"{"type":"map","values":"float"}"#, values, map).unwrap(), r#"{"a":0.5,"b":2.0"#);

    let inner = Fields::from(vec![nullable("absent", D::Boolean), needed("b", D::Int64), nullable("a", D::Utf8)]);
    let inner_type = r#"{"type":"record","name":"Inner","fields":[{"name":"a","type":"string"},{"name":"x","type":"double"},{"name":"b","type":"int"}]}"#;
    let value = V::Record(vec![text("t"), V::F64(0.0), V::Int(9)]);
    assert_eq!(one(inner_type, value, D::Struct(inner.clone())).unwrap(), r#"{"b":9,"a":"t""#);
    let structs = D::List(Arc::new(needed("item", D::Struct(inner))));
    let bad = V::Array(vec![
        V::Record(vec![text("t"), V::F64(0.0), V::Int(9)]),
        V::Record(vec![text("t"), V::F64(0.0), V::Int(1 << 33)]),
    ]);
    let reason = one(&format!(r#"{{"type":"array","items":{inner_type}}}"#), bad, structs).unwrap_err();
    assert!(reason.starts_with("column \"v[1].b\": 8589934592 is not an int"), "{reason}");
}

#[test]
fn unions_are_columns_when_all_they_hold_goes_in() {
    let union = r#"["null","int","long",{"type":"long","logicalType":"timestamp-millis"}]"#;
    assert_eq!(one(union, some(1, V::Int(5)), D::Int64).unwrap(), "5");
    assert_eq!(one(union, some(2, V::Int(1 << 40)), D::Int64).unwrap(), "1099511627776");
    assert_eq!(
        one(union, some(0, V::Null), D::Int64).unwrap_err(),
        "column \"v\": the writer has null there, and the column is not nullable (schema id 1)"
    );
    for outside in [-1, 4, i64::MIN] {
        assert!(one(union, some(outside, V::Null), D::Int64).unwrap_err().contains("branch"));
    }
    // Only the record that holds the other type is rejected.
    let mixed = r#"["string","int"]"#;
    assert_eq!(one(mixed, some(1, V::Int(5)), D::Int64).unwrap(), "5");
    assert!(one(mixed, some(0, text("five")), D::Int64).unwrap_err().contains("the writer has string there"));
}

#[test]
fn booleans_are_zero_or_one() {
    assert_eq!(one("\"boolean\"", V::Bool(true), D::Boolean).unwrap(), "true");
    assert!(one("\"boolean\"", V::Fixed(vec![2]), D::Boolean).unwrap_err().contains("2 is not a boolean"));
}

#[test]
fn schemas_become_columns() {
    let schema = |fields: &str| crate::registry::RegisteredSchema {
        id: 1,
        kind: crate::registry::SchemaKind::Avro,
        text: record(fields),
        references: Vec::new(),
    };
    let found = super::super::columns(&schema(
        r#"{"name":"id","type":"long"},{"name":"name","type":["null","string"]},
           {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
           {"name":"suit","type":{"type":"enum","name":"S","symbols":["a"]}},
           {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
           {"name":"tags","type":{"type":"array","items":["string","null"]}},
           {"name":"at_home","type":{"type":"record","name":"A","fields":[{"name":"zip","type":"int"}]}},
           {"name":"at_work","type":["null","A"]}"#,
    ))
    .unwrap();
    let address = D::Struct(vec![needed("zip", D::Int32)].into());
    let expected = columns(vec![
        needed("id", D::Int64),
        nullable("name", D::Utf8),
        needed("at", D::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))),
        needed("suit", D::Utf8),
        needed("price", D::Decimal128(9, 2)),
        needed("tags", D::List(Arc::new(nullable("item", D::Utf8)))),
        needed("at_home", address.clone()),
        nullable("at_work", address),
    ]);
    assert_eq!(found, expected);
    let refused = |fields| super::super::columns(&schema(fields)).unwrap_err().to_string();
    let tree = refused(r#"{"name":"next","type":["null","Row"]}"#);
    assert!(tree.contains("field \"next\" is record test.Row, which contains itself"), "{tree}");
    assert!(refused(r#"{"name":"v","type":["int","string"]}"#).contains("field \"v\" is a union of int, string"));
    assert!(refused(r#"{"name":"v","type":"Nobody"}"#).contains("the type \"Nobody\" is not defined"));
    // Thirty types that each hold the one before twice would be a billion columns.
    let mut laughs =
        r#"{"name":"f0","type":{"type":"record","name":"L0","fields":[{"name":"x","type":"int"}]}}"#.to_string();
    for i in 1..30 {
        let before = i - 1;
        laughs += &format!(
            r#",{{"name":"f{i}","type":{{"type":"record","name":"L{i}","fields":[{{"name":"a","type":"L{before}"}},{{"name":"b","type":"L{before}"}}]}}}}"#
        );
    }
    assert!(refused(&laughs).contains("more than 10000 columns"));
}

/// A type that contains itself can be passed over, and read as deep as the columns go.
#[test]
fn trees_are_read_as_deep_as_the_columns() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(r#"{"name":"n","type":"int"},{"name":"next","type":["null","Row"]}"#));
    let schema = columns(vec![nullable("next", D::Struct(vec![needed("n", D::Int64)].into())), needed("n", D::Int32)]);
    let chain = |depth: i64| {
        let mut value = V::Record(vec![V::Int(depth), some(0, V::Null)]);
        for n in (0..depth).rev() {
            value = V::Record(vec![V::Int(n), some(1, value)]);
        }
        value
    };
    let mut decoder = decoder(&fake, &schema);
    for depth in [0, 1, 2, 50] {
        decoder.push(&framed(id, &chain(depth))).unwrap();
    }
    assert!(decoder.push(&framed(id, &chain(100))).unwrap_err().contains("more than 64 deep"));
    let mut endless = framed(id, &V::Null);
    endless.extend([0, 2].repeat(1_000_000));
    assert!(decoder.push(&endless).unwrap_err().contains("more than 64 deep"));
    let first = r#"{"next":{"n":1},"n":0}"#;
    assert_eq!(rows(&decoder.flush().unwrap()), [r#"{"n":0}"#, first, first, first]);
}
