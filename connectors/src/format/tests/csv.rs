//! What the CSV decoder takes, what it refuses, and how it says so.

use arrow::{
    array::AsArray,
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampSecondType},
};

use super::{read, schema};
use crate::format::{CsvDecoder, Decoder};

fn decoder(header: &str, fields: &[(&str, DataType, bool)]) -> CsvDecoder {
    let mut decoder = CsvDecoder::new(schema(fields), b',', 1 << 20).unwrap();
    decoder.header(header.as_bytes()).unwrap();
    decoder
}

#[test]
fn columns_are_found_by_name() {
    let mut decoder = decoder("x,name,y,price", &[("price", DataType::Int64, false), ("name", DataType::Utf8, true)]);
    let (batch, rejects) = read(&mut decoder, b"1,a,2,10\r\n\r\n1,\"b, \"\"c\"\"\r\nd\",2,20\n,,,30", 3);
    assert!(rejects.is_empty(), "{rejects:?}");
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[10, 20, 30]);
    let names: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(names, [Some("a"), Some("b, \"c\"\r\nd"), None]);
}

#[test]
fn a_missing_column_is_named_with_those_that_are_there() {
    let mut decoder = CsvDecoder::new(schema(&[("price", DataType::Int64, true)]), b',', 100).unwrap();
    let reason = decoder.header(b"auction,Price").unwrap_err();
    assert_eq!(reason, r#"the header has no column "price"; it has "auction", "Price"; did you mean "Price"?"#);
    let reason = decoder.header(b"a,b").unwrap_err();
    assert_eq!(reason, r#"the header has no column "price"; it has "a", "b""#);
    assert!(decoder.header(b"price,price").unwrap_err().contains("twice"));
    assert!(decoder.header(b"\xff,price").unwrap_err().contains("UTF-8"));
    decoder.header(b"\"price\"").unwrap();
}

#[test]
fn reasons_name_the_column_and_the_value() {
    let at = DataType::Timestamp(TimeUnit::Second, None);
    let fields = [
        ("n", DataType::Int8, false),
        ("f", DataType::Float64, true),
        ("ok", DataType::Boolean, true),
        ("at", at, true),
        ("t", DataType::Utf8, false),
    ];
    let mut decoder = decoder("n,f,ok,at,t", &fields);
    decoder.push(b"1,NaN,true,1969-12-31T23:59:59Z,").unwrap();
    let cases: &[(&[u8], &str)] = &[
        (b"200,,,,", r#"column "n": 200 does not fit Int8"#),
        (b" 1,,,,", r#"column "n": " 1" is not Int8"#),
        (b",,,,", r#"column "n" is empty, and it is not nullable"#),
        (b"1,1e999,,,", r#"column "f": 1e999 does not fit Float64"#),
        (b"1,,yes,,", r#"column "ok": "yes" is not Boolean"#),
        (b"1,,,soon,", r#"column "at": "soon" is not Timestamp(s)"#),
        (b"x,,,", "has 4 fields instead of 5"),
        (b"1,,,,,", "has 6 fields instead of 5"),
        (b"1,\"\",,,,", "has 6 fields instead of 5"),
        (b"1,\"open", "a quote opens and does not close"),
    ];
    for (record, expected) in cases {
        assert_eq!(decoder.push(record).unwrap_err(), *expected);
        decoder.push(b"2,\"1.5\",FALSE,9223372036854775807,\"\xef\xbb\xbfx\"").unwrap();
    }
    assert!(decoder.push(b"1,,,,\xff").unwrap_err().starts_with("not UTF-8"));
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.num_rows(), 1 + cases.len());
    assert!(batch.column(1).as_primitive::<Float64Type>().value(0).is_nan());
    assert_eq!(batch.column(3).as_primitive::<TimestampSecondType>().value(0), -1);
    assert_eq!(batch.column(3).as_primitive::<TimestampSecondType>().value(1), i64::MAX);
    assert_eq!(batch.column(4).as_string::<i32>().value(0), "");
}

#[test]
fn a_byte_order_mark_within_a_file_is_text() {
    let mut decoder = decoder("a", &[("a", DataType::Utf8, true)]);
    for _ in 0..2 {
        decoder.push("\u{feff}\"x\"".as_bytes()).unwrap();
    }
    let batch = decoder.flush().unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "\u{feff}\"x\"");
    assert_eq!(batch.column(0).as_string::<i32>().value(1), "\u{feff}\"x\"");
}

#[test]
fn another_delimiter_and_those_that_cannot_be() {
    let mut decoder =
        CsvDecoder::new(schema(&[("a", DataType::Utf8, true), ("b", DataType::Int64, true)]), b'\t', 100).unwrap();
    decoder.push(b"x,y\t1").unwrap();
    decoder.push(b"\"x\ty\"\t2").unwrap();
    assert_eq!(decoder.flush().unwrap().column(0).as_string::<i32>().value(1), "x\ty");
    for delimiter in [b'"', b'\n', b'\r', 0xe4] {
        assert!(CsvDecoder::new(schema(&[]), delimiter, 100).unwrap_err().to_string().contains("delimiter"));
    }
}

#[test]
fn nested_columns_are_refused() {
    let list = DataType::new_list(DataType::Int64, true);
    let error = CsvDecoder::new(schema(&[("tags", list, true)]), b',', 100).unwrap_err().to_string();
    assert!(error.contains(r#""tags""#) && error.contains("CSV"), "{error}");
}

#[test]
fn a_line_end_behind_a_payload_is_no_part_of_it() {
    let mut decoder =
        CsvDecoder::new(schema(&[("n", DataType::Int64, true), ("s", DataType::Utf8, true)]), b',', 100).unwrap();
    for payload in [&b"1,b\n"[..], b"1,b\r\n", b"1,\"b\"\n", b"1,\"b\"\r\n", b"1,b"] {
        decoder.push(payload).unwrap();
    }
    // One, and no more.
    decoder.push(b"1,b\n\n").unwrap();
    let batch = decoder.flush().unwrap();
    let texts: Vec<_> = batch.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(texts, ["b", "b", "b", "b", "b", "b\n"]);
}
