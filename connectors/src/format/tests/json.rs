//! What the JSON decoder takes, what it refuses, and how it says so.

use arrow::{
    array::{Array, AsArray, StructArray},
    datatypes::{
        DataType, Date32Type, Field, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, UInt8Type,
    },
};

use super::{read, schema};
use crate::format::{Decoder, JsonDecoder};

fn decoder(fields: &[(&str, DataType, bool)]) -> JsonDecoder {
    JsonDecoder::new(schema(fields), 1 << 20).unwrap()
}

/// The reason why `record` is refused by columns `price Int64 not null, name Utf8`.
fn reason(record: &[u8]) -> String {
    let mut decoder = decoder(&[("price", DataType::Int64, false), ("name", DataType::Utf8, true)]);
    decoder.push(br#"{"price":1,"name":"before"}"#).unwrap();
    let reason = decoder.push(record).unwrap_err();
    decoder.push(br#"{"price":2,"name":"behind"}"#).unwrap();
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2], "neighbours are not harmed");
    assert_eq!(batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["before", "behind"]);
    reason
}

#[test]
fn reasons_name_the_column_and_the_value() {
    let cases: &[(&str, &str)] = &[
        (r#"{"price": 1e400}"#, r#"column "price": 1e400 does not fit Int64"#),
        (r#"{"price": 9223372036854775808}"#, r#"column "price": 9223372036854775808 does not fit Int64"#),
        (r#"{"price": -99999999999999999999}"#, r#"column "price": -99999999999999999999 does not fit Int64"#),
        (r#"{"price": 1.0, "name": "x"}"#, r#"column "price": 1.0 does not fit Int64"#),
        (r#"{"price": "7"}"#, r#"column "price": "7" is not Int64"#),
        (r#"{"price": true}"#, r#"column "price": true is not Int64"#),
        (r#"{"price": [1]}"#, r#"column "price": a list is not Int64"#),
        (r#"{"price": {"a": 1}}"#, r#"column "price": an object is not Int64"#),
        (r#"{"price": null}"#, r#"column "price" is null, and it is not nullable"#),
        (r#"{"name": "x"}"#, r#"column "price" is missing, and it is not nullable"#),
        (r#"{"price": 1, "name": 2}"#, r#"column "name": 2 is not Utf8"#),
        (r#"{"price": 1, "name": "x", "price": 2}"#, r#"column "price" stands twice in the record"#),
        (r#"{"name": "x", "price": 1,"#, "not JSON: EOF while parsing a value (byte 25)"),
        (r#"{"price": NaN}"#, r#"column "price": not JSON: expected value (byte 11)"#),
        (r#"{"price": 1} x"#, "not JSON: trailing characters (byte 14)"),
        (r#"{"price": 1}{"price": 2}"#, "not JSON: trailing characters (byte 13)"),
        ("[1]", "not an object: invalid type: sequence, expected an object"),
        ("7", "not an object: invalid type: integer `7`, expected an object"),
        ("rubbish", "not JSON: expected value (byte 1)"),
        ("", "not JSON: EOF while parsing a value (byte 0)"),
    ];
    for (record, expected) in cases {
        assert_eq!(reason(record.as_bytes()), *expected, "{record}");
    }
    let invalid = reason(b"{\"price\": 1, \"other\": \"\xff\"}");
    assert!(invalid.starts_with("not UTF-8"), "{invalid}");
    let deep = format!(r#"{{"price": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(reason(deep.as_bytes()), r#"column "price": a list is not Int64"#);
}

#[test]
fn unknown_names_are_passed_over_however_deep() {
    let mut decoder = decoder(&[("price", DataType::Int64, false)]);
    let deep = format!(r#"{{"x": {}1{}, "price": 7}}"#, "[".repeat(100_000), "]".repeat(100_000));
    decoder.push(deep.as_bytes()).unwrap();
    decoder.push(br#"{"price": 8, "x": {"price": "other"}, "x": 1e999}"#).unwrap();
    assert_eq!(decoder.flush().unwrap().column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
}

#[test]
fn missing_and_null_in_any_order_of_names() {
    let mut decoder =
        decoder(&[("a", DataType::Int64, true), ("b", DataType::Utf8, true), ("c", DataType::Boolean, true)]);
    let input = br#"{"a":1,"b":"x","c":true}
{"c":false,"b":"y \u00e4\n\"","a":null}
{}
  {"b":null} 
{"b":"z","a":-3}
"#;
    let (batch, rejects) = read(&mut decoder, input, 7);
    assert!(rejects.is_empty(), "{rejects:?}");
    let a: Vec<_> = batch.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(a, [Some(1), None, None, None, Some(-3)]);
    let b: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(b, [Some("x"), Some("y ä\n\""), None, None, Some("z")]);
    let c: Vec<_> = batch.column(2).as_boolean().iter().collect();
    assert_eq!(c, [Some(true), Some(false), None, None, None]);
}

#[test]
fn numbers_at_the_edge() {
    let mut decoder = decoder(&[
        ("small", DataType::UInt8, true),
        ("single", DataType::Float32, true),
        ("double", DataType::Float64, true),
    ]);
    decoder.push(br#"{"small": 255, "single": 3, "double": 9007199254740993}"#).unwrap();
    decoder.push(br#"{"double": 0.1}"#).unwrap();
    decoder.push(br#"{"double": 2.2250738585072011e-308, "single": -1e-50}"#).unwrap();
    for bad in [r#"{"small": 256}"#, r#"{"small": -1}"#, r#"{"single": 1e39}"#, r#"{"double": 1e400}"#] {
        assert!(decoder.push(bad.as_bytes()).unwrap_err().contains("does not fit"), "{bad}");
    }
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.num_rows(), 3);
    assert_eq!(batch.column(0).as_primitive::<UInt8Type>().value(0), 255);
    assert_eq!(batch.column(1).as_primitive::<Float32Type>().value(0), 3.0);
    assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(1), 0.1);
    assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(2), 2.225_073_858_507_201e-308);
}

#[test]
fn times_from_text_and_from_numbers() {
    let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
    let microseconds = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into()));
    let mut decoder =
        decoder(&[("at", milliseconds, false), ("zoned", microseconds.clone(), true), ("day", DataType::Date32, true)]);
    decoder.push(br#"{"at": "1969-12-31T23:59:59.999Z", "zoned": "9999-12-31T23:59:59.999999+01:00"}"#).unwrap();
    decoder.push(br#"{"at": -9223372036854775808, "day": "1969-12-31"}"#).unwrap();
    decoder.push(br#"{"at": 9223372036854775807, "day": 19000}"#).unwrap();
    let soon = decoder.push(br#"{"at": "soon"}"#).unwrap_err();
    assert_eq!(soon, r#"column "at": "soon" is not Timestamp(ms)"#);
    assert!(decoder.push(br#"{"at": 9223372036854775808}"#).unwrap_err().contains("does not fit"));
    assert!(decoder.push(br#"{"at": 0, "day": "2020-02-30"}"#).unwrap_err().contains("day"));

    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(0).as_primitive::<TimestampMillisecondType>().values(), &[-1, i64::MIN, i64::MAX]);
    assert_eq!(batch.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 253_402_297_199_999_999);
    assert_eq!(batch.column(1).data_type(), &microseconds);
    let days: Vec<_> = batch.column(2).as_primitive::<Date32Type>().iter().collect();
    assert_eq!(days, [None, Some(-1), Some(19000)]);
}

#[test]
fn structs_and_lists_of_them() {
    let inner = DataType::Struct(
        vec![
            Field::new("x", DataType::Int64, false),
            Field::new("tags", DataType::new_list(DataType::Utf8, false), true),
        ]
        .into(),
    );
    let mut decoder = decoder(&[("one", inner.clone(), true), ("many", DataType::new_list(inner, false), true)]);
    decoder.push(br#"{"one": {"x": 1, "tags": ["a", "b"]}, "many": [{"x": 2}, {"tags": [], "x": 3}]}"#).unwrap();
    let cases: &[(&str, &str)] = &[
        (r#"{"one": {"tags": ["a"]}}"#, r#"column "one.x" is missing, and it is not nullable"#),
        (r#"{"one": {"x": 1, "tags": ["a", null]}}"#, r#"column "one.tags[1]" is null, and it is not nullable"#),
        (r#"{"many": [{"x": 1}, {"x": 2, "tags": ["q", 7]}]}"#, r#"column "many[1].tags[1]": 7 is not Utf8"#),
        (r#"{"many": [{"x": 1, "x": 1}]}"#, r#"column "many[0].x" stands twice in the record"#),
        (r#"{"many": [{"x": 1}, "#, r#"column "many[1]": not JSON: EOF while parsing a value (byte 20)"#),
        (r#"{"many": [null]}"#, r#"column "many[0]" is null, and it is not nullable"#),
    ];
    for (record, expected) in cases {
        assert_eq!(decoder.push(record.as_bytes()).unwrap_err(), *expected);
        assert_eq!(decoder.len(), 1);
    }
    decoder.push(br#"{"one": null, "many": []}"#).unwrap();
    let batch = decoder.flush().unwrap();
    let one: &StructArray = batch.column(0).as_struct();
    assert_eq!(one.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert!(one.is_null(1));
    let many = batch.column(1).as_list::<i32>();
    assert_eq!(many.value_offsets(), &[0, 2, 2]);
    assert_eq!(many.values().as_struct().column(0).as_primitive::<Int64Type>().values(), &[2, 3]);
}

#[test]
fn all_text_types_and_empty_batches() {
    let fields = [("a", DataType::Utf8, false), ("b", DataType::LargeUtf8, false), ("c", DataType::Utf8View, true)];
    let mut decoder = decoder(&fields);
    assert_eq!(decoder.flush().unwrap().num_rows(), 0);
    for _ in 0..2 {
        decoder.push(br#"{"a": "", "b": "large", "c": "a text that is longer than twelve bytes"}"#).unwrap();
        assert!(decoder.push(br#"{"a": "gone", "b": "gone", "c": 1}"#).is_err());
        decoder.push(br#"{"a": "q", "b": ""}"#).unwrap();
        let batch = decoder.flush().unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().value(1), "q");
        assert_eq!(batch.column(1).as_string::<i64>().value(0), "large");
        assert_eq!(batch.column(2).as_string_view().value(0), "a text that is longer than twelve bytes");
        assert!(batch.column(2).is_null(1));
    }
}

#[test]
fn types_that_are_not_read_are_refused_by_name() {
    for (name, data_type) in [("raw", DataType::Binary), ("wait", DataType::Duration(TimeUnit::Second))] {
        let error = JsonDecoder::new(schema(&[(name, data_type.clone(), true)]), 100).unwrap_err().to_string();
        assert!(error.contains(&format!("{name:?}")) && error.contains(&data_type.to_string()), "{error}");
    }
    let nested = DataType::new_list(DataType::Struct(vec![Field::new("raw", DataType::Binary, true)].into()), true);
    let error = JsonDecoder::new(schema(&[("rows", nested, true)]), 100).unwrap_err().to_string();
    assert!(error.contains(r#""rows[].raw""#), "{error}");
    let twice = schema(&[("a", DataType::Int64, true), ("a", DataType::Utf8, true)]);
    assert!(JsonDecoder::new(twice, 100).unwrap_err().to_string().contains("two columns"));
}

#[test]
fn minus_zero_is_a_whole_number() {
    let fields = [("n", DataType::Int64, true), ("u", DataType::UInt8, true), ("f", DataType::Float64, true)];
    let mut decoder = decoder(&fields);
    decoder.push(br#"{"n": -0, "u": -0, "f": -0}"#).unwrap();
    assert!(decoder.push(br#"{"n": 0.5}"#).is_err());
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 0);
    assert!(batch.column(1).is_valid(0));
    assert!(batch.column(2).as_primitive::<Float64Type>().value(0).is_sign_negative());
}
