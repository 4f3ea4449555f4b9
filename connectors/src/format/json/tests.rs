//! The scan beside `serde_json`: the same records taken, with the same values, and the same words for the others.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, TimeUnit};
use proptest::prelude::*;

use super::*;

fn decoder() -> JsonDecoder {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let inner = DataType::Struct(vec![Field::new("a", DataType::Int32, false), field("é", DataType::Utf8)].into());
    let schema = Schema::new(vec![
        Field::new("a", DataType::Int64, false),
        field("b", DataType::Utf8),
        field("c", DataType::Float64),
        field("d", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("e", DataType::Boolean),
        field("u", DataType::UInt64),
        field("s", inner.clone()),
        field("l", DataType::new_list(inner, true)),
        field("f", DataType::new_list(DataType::Float32, true)),
        field("n\"\\\n", DataType::LargeUtf8),
    ]);
    JsonDecoder::new(Arc::new(schema), 1 << 20).unwrap()
}

/// Reads records as the decoder does, and by `serde_json` alone.
fn assert_same(records: &[Vec<u8>]) {
    let (mut ours, mut plain) = (decoder(), decoder());
    for record in records {
        let rows = plain.columns.rows();
        let expected = plain.parse(record).inspect_err(|_| plain.columns.truncate(rows));
        // Another word for a zero at the beginning is tested elsewhere.
        let rows = ours.columns.rows();
        let found = ours.decode(record).inspect_err(|_| ours.columns.truncate(rows));
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(record));
    }
    // Text tells 0.0 from -0.0.
    let (ours, plain) = (ours.flush().unwrap(), plain.flush().unwrap());
    assert_eq!(ours, plain);
    assert_eq!(format!("{ours:?}"), format!("{plain:?}"));
}

/// Whether the scan reads it all.
fn is_usual(record: &str) -> bool {
    scan::row(record.as_bytes(), &mut decoder().columns).is_some()
}

#[test]
fn what_programs_write_is_scanned() {
    let usual = [
        r#"{"a":1,"b":"x","c":1.5,"d":"2024-02-29T12:30:00.123Z","e":true,"u":18446744073709551615}"#,
        r#" { "e" : false , "d" : 1700000000000000, "a" : -9223372036854775808 , "b" : null } "#,
        "{\n\t\"a\": 1,\r\n\t\"b\": \"ü\"\n}",
        r#"{"a":1,"b":"a \"quote\", \u00e4 and \ud83d\ude00","n\"\\\n":"x"}"#,
        r#"{"a":1,"s":{"a":2,"é":"y"},"l":[{"a":3},null,{"a":4,"é":"z","x":0}],"f":[1,2.5,-0,1e-3]}"#,
        r#"{"a":1,"s":{"a":2},"l":[],"f":[ ],"c":-0.0,"x":{}}"#,
        r#"{"x":[[{"y":"\ud800"}]],"a":1,"y":"z","z":1e999,"t":true,"v":null,"w":"\u0000"}"#,
    ];
    for record in usual {
        assert!(is_usual(record), "{record}");
        assert_same(&[record.into(), record.into()]);
    }
}

#[test]
fn what_is_unusual_is_left_to_serde_json() {
    let unusual = [
        "",
        "{",
        "[]",
        "{}",
        r#"{"a":1}x"#,
        r#"{"a":1,}"#,
        r#"{"a":1 "b":"x"}"#,
        r#"{,"a":1}"#,
        r#"{"a" 1}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":-}"#,
        r#"{"a":1.}"#,
        r#"{"a":1,"c":.5}"#,
        r#"{"a":1,"c":1.e5}"#,
        r#"{"a":1,"c":1e}"#,
        r#"{"a":1,"c":1e+}"#,
        r#"{"a":1,"c":1e400}"#,
        r#"{"a":1,"c":123456789012345678901234567890}"#,
        r#"{"a":1,"c":-18446744073709551615}"#,
        r#"{"a":9223372036854775808}"#,
        r#"{"a":1,"u":18446744073709551616}"#,
        r#"{"a":1,"u":20000000000000000000}"#,
        r#"{"a":1,"u":00000000000000000000001}"#,
        r#"{"a":1,"b":"\ud800"}"#,
        r#"{"a":1,"b":"\x"}"#,
        "{\"a\":1,\"b\":\"\t\"}",
        "{\"a\":1,\"x\":\"\n\"}",
        "{\"a\":1,\"\n\":1}",
        "{\"a\":1,\"b\":\"x\",\"n\"\\\n\":\"y\"}",
        "{\"a\":1}\0",
        "{\"a\":1,\u{a0}\"b\":\"x\"}",
        "\u{feff}{\"a\":1}",
        r#"{"a":1,"e":tru}"#,
        r#"{"a":1,"e":trueish}"#,
        r#"{"a":1,"x":nul"#,
        r#"{"a":1,"x":[1,2}"#,
        r#"{"a":1,"x":01}"#,
        r#"{"a":1,"s":{"é":"no a"}}"#,
        r#"{"a":1,"l":[{"a":3},]}"#,
        r#"{"a":1,"l":{}}"#,
        r#"{"a":1,"s":[]}"#,
    ];
    // A good record before it, so that its names are expected.
    let good = r#"{"a":1,"b":"x","n\"\\\n":"y"}"#;
    for record in unusual {
        assert!(!is_usual(record), "{record}");
        assert_same(&[good.into(), record.into(), good.into()]);
    }
    assert_same(&[b"{\"a\":1,\"b\":\"\xff\"}".to_vec(), b"{\"a\":1,\"x\":\"\xc3\"}".to_vec()]);
}

#[test]
fn hostile_depth_and_many_values_meet_the_same_limits() {
    let mut inner = DataType::Int64;
    for _ in 0..140 {
        inner = DataType::new_list(inner, true);
    }
    let schema = Arc::new(Schema::new(vec![Field::new("l", inner, true)]));
    for depth in [1, 60, 63, 64, 65, 120, 126, 127, 128, 140, 100_000] {
        let record = format!(r#"{{"l":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let (mut ours, mut plain) =
            (JsonDecoder::new(schema.clone(), 1 << 20).unwrap(), JsonDecoder::new(schema.clone(), 1 << 20).unwrap());
        assert_eq!(ours.decode(record.as_bytes()), plain.parse(record.as_bytes()), "{depth}");
    }
    let wide = DataType::Struct((0..2_000).map(|i| Field::new(format!("f{i}"), DataType::Int64, true)).collect());
    let schema = Arc::new(Schema::new(vec![Field::new("l", DataType::new_list(wide, true), true)]));
    for (values, is_taken) in [(400, true), (600, false)] {
        let record = format!(r#"{{"l":[{}]}}"#, vec!["{}"; values].join(","));
        let mut decoder = JsonDecoder::new(schema.clone(), 1 << 20).unwrap();
        assert_eq!(scan::row(record.as_bytes(), &mut decoder.columns).is_some(), is_taken, "{values}");
        decoder.columns.truncate(0);
        assert_eq!(decoder.push(record.as_bytes()).is_ok(), is_taken, "{values}");
    }
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 2 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r ")]
}

fn whole() -> BoxedStrategy<String> {
    let unsigned = (any::<u64>(), 0..64u32).prop_map(|(n, shift)| (n >> shift).to_string());
    let signed = (any::<i64>(), 0..64u32).prop_map(|(n, shift)| (n >> shift).to_string());
    prop_oneof![4 => unsigned, 4 => signed, 1 => "-?[0-9]{1,22}"].boxed()
}

fn float() -> BoxedStrategy<String> {
    prop_oneof![
        any::<f64>().prop_map(|n| format!("{n:?}")),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        any::<f32>().prop_map(|n| format!("{n}")),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"[a-z ]{0,40}\"",
        "\"([a-zé€]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\ud[89ab]00\\\\ud[cdef]00){0,8}\"",
    ]
    .boxed()
}

fn time() -> BoxedStrategy<String> {
    let time =
        "\"20[0-9]{2}-[01][0-9]-[0-2][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|z|[+-]0[0-9]:00)?\"";
    prop_oneof![3 => time, 1 => whole()].boxed()
}

fn word() -> BoxedStrategy<String> {
    prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_string).boxed()
}

fn list(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (prop::collection::vec(value, 0..4), space()).prop_map(|(values, space)| {
        let between = format!("{space},{space}");
        format!("[{space}{}{space}]", values.join(&between))
    })
}

fn object(member: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    // Otherwise most records would have no `a`, or two.
    (prop::collection::vec(member, 0..5), prop::bool::weighted(0.9), space()).prop_map(|(mut members, has_a, space)| {
        if has_a {
            members.retain(|member| !member.contains("\"a\""));
            members.push("\"a\":7".to_string());
        }
        format!("{space}{{{}{space}}}{space}", members.join(","))
    })
}

fn member<N, V>(name: N, value: V) -> BoxedStrategy<String>
where
    N: Strategy<Value = &'static str> + 'static,
    V: Strategy<Value = String> + 'static,
{
    let member = (name, value, space(), space());
    member.prop_map(|(name, value, before, behind)| format!("{before}\"{name}\"{behind}:{before}{value}")).boxed()
}

/// Any value under any name.
fn any_member() -> BoxedStrategy<String> {
    const NAMES: &[&str] = &["a", "b", "c", "d", "e", "u", "s", "l", "f", "x", "é", "n\\\"\\\\\\n", "\\u0061", "other"];
    let name = || prop::sample::select(NAMES);
    let leaf = prop_oneof![whole(), float(), text(), time(), word()];
    let value =
        leaf.prop_recursive(3, 12, 4, move |inner| prop_oneof![list(inner.clone()), object(member(name(), inner))]);
    member(name(), value)
}

/// A value that mostly fits, under the name of its column.
fn fitting_member() -> BoxedStrategy<String> {
    let inner = || object(prop_oneof![member(Just("é"), text()), member(Just("x"), word())]).boxed();
    prop_oneof![
        member(Just("a"), whole()),
        member(Just("b"), text()),
        member(Just("c"), prop_oneof![float(), whole()]),
        member(Just("d"), time()),
        member(Just("e"), word()),
        member(Just("u"), whole()),
        member(Just("s"), inner()),
        member(Just("l"), list(inner())),
        member(Just("f"), list(float())),
        member(prop::sample::select(&["n\\\"\\\\\\n", "n\\u0022\\u005c\\u000a"]), text()),
    ]
    .boxed()
}

/// A record, and what a fault on the way makes of it.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => prop::sample::select(b"{}[]\",:\\0123456789+-.eEtfn \n\0u".as_slice()),
        1 => any::<u8>(),
    ];
    let fault = (any::<prop::sample::Index>(), 0..4, byte);
    let faults = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec(fault, 1..3)];
    (object(prop_oneof![9 => fitting_member(), 1 => any_member()]), faults).prop_map(|(record, faults)| {
        let mut record = record.into_bytes();
        for (at, kind, byte) in faults {
            let at = at.index(record.len() + 1);
            match kind {
                0 => record.insert(at, byte),
                1 => record.truncate(at),
                _ if at == record.len() => {}
                2 => drop(record.remove(at)),
                _ => record[at] = byte,
            }
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_record_is_read_as_serde_json_reads_it(records in prop::collection::vec(record(), 1..6)) {
        assert_same(&records);
    }
}
