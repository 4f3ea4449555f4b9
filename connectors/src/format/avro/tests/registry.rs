//! Ids that are there, that are not, and a registry that does not say.

use arrow::datatypes::DataType as D;

use super::*;
use crate::ConnectorError;

const ONE: &str = r#"{"name":"v","type":"long"}"#;

#[test]
fn frames() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(ONE));
    let mut decoder = AvroDecoder::new(columns(vec![needed("v", D::Int64)]), quick(&fake), 100).unwrap();
    for short in [&b""[..], b"\0", b"\0\0\0\0", b"\x01\0\0\0\x01\x02", b"{\"v\": 1}"] {
        assert!(decoder.push(short).unwrap_err().contains("no schema id"));
    }
    assert_eq!(decoder.push(&[0; 101]).unwrap_err(), "101 bytes, and the limit is 100");
    let good = framed(id, &V::Record(vec![V::Int(1)]));
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(decoder.push(&longer).unwrap_err(), "1 bytes are left behind the record (schema id 1)");
    assert_eq!(decoder.push(&good[..5]).unwrap_err(), "column \"v\": the record ends within a number (schema id 1)");
    decoder.push(&good).unwrap();
    assert!(decoder.failure().is_none());
    assert_eq!(rows(&decoder.flush().unwrap()), ["{\"v\":1}"]);
    let mut other = super::decoder(&fake, &columns(vec![nullable("w", D::Int64)]));
    let reason = other.push(&good[..5]).unwrap_err();
    assert_eq!(reason, "field \"v\", which is passed over: the record ends within a number (schema id 1)");
}

#[test]
fn an_id_that_is_not_there_rejects_its_records_and_no_others() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(ONE));
    let mut decoder = decoder(&fake, &columns(vec![needed("v", D::Int64)]));
    for n in 0..10 {
        decoder.push(&framed(id, &V::Record(vec![V::Int(n)]))).unwrap();
        let reason = decoder.push(&framed(77, &V::Record(vec![V::Int(n)]))).unwrap_err();
        assert_eq!(reason, format!("schema id 77 is not in the schema registry {}", fake.url));
        assert!(decoder.failure().is_none());
    }
    assert_eq!(decoder.flush().unwrap().num_rows(), 10);
    assert_eq!(fake.requests().len(), 3, "once for the one, twice for the other");
}

#[test]
fn a_registry_that_is_down_ends_the_source_and_rejects_nothing() {
    let fake = FakeRegistry::start();
    let known = fake.add_avro("t-value", &record(ONE));
    let other = fake.add_avro("u-value", &record(r#"{"name":"v","type":"int"}"#));
    let mut decoder = decoder(&fake, &columns(vec![needed("v", D::Int64)]));
    decoder.push(&framed(known, &V::Record(vec![V::Int(1)]))).unwrap();
    for mood in [Mood::Status(500), Mood::Garbage, Mood::Slow(Duration::from_millis(500)), Mood::Status(401)] {
        fake.mood(mood);
        decoder.push(&framed(other, &V::Record(vec![V::Int(2)]))).unwrap_err();
        let Some(ConnectorError::Remote { .. }) = decoder.failure() else { panic!("undecided") };
        assert!(decoder.failure().is_none());
        // What is known goes on.
        decoder.push(&framed(known, &V::Record(vec![V::Int(3)]))).unwrap();
    }
    fake.mood(Mood::Fine);
    decoder.push(&framed(other, &V::Record(vec![V::Int(4)]))).unwrap();
    assert_eq!(rows(&decoder.flush().unwrap()).last().unwrap(), "{\"v\":4}");
}

#[test]
fn schemas_that_are_none() {
    let fake = FakeRegistry::start();
    let schema = columns(vec![needed("v", D::Int64)]);
    let mut decoder = decoder(&fake, &schema);
    let mut reason = |id| decoder.push(&framed(id, &V::Record(vec![V::Int(1)]))).unwrap_err();
    assert_eq!(reason(fake.add("p", "PROTOBUF", "syntax", &[])), "its schema is Protobuf, not Avro (schema id 1)");
    assert!(reason(fake.add_avro("a", "\"long\"")).contains("it is long, not a record"));
    assert!(reason(fake.add_avro("b", "{")).contains("not JSON"));
    assert!(reason(fake.add_avro("c", r#"{"type":"record","name":"R"}"#)).contains("without \"fields\""));
    assert!(
        reason(fake.add_avro("d", &record(r#"{"name":"v","type":"int"},{"name":"v","type":"int"}"#))).contains("twice")
    );
    assert!(reason(fake.add_avro("e", &record(r#"{"name":"v","type":[["int"]]}"#))).contains("union directly within"));
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(500), "}".repeat(500));
    assert!(reason(fake.add_avro("f", &record(&format!(r#"{{"name":"v","type":{deep}}}"#)))).contains("not JSON"));
    let missing = reason(fake.add_avro("g", &record(r#"{"name":"V","type":"int"}"#)));
    assert!(missing.contains("column \"v\" is not nullable") && missing.contains("did you mean \"V\"?"), "{missing}");
}

#[test]
fn schemas_that_refer_to_others() {
    let fake = FakeRegistry::start();
    fake.add_avro("zip", r#"{"type":"fixed","name":"shop.Zip","size":2}"#);
    fake.add(
        "address",
        "AVRO",
        r#"{"type":"record","name":"Address","namespace":"shop","fields":[{"name":"zip","type":"Zip"}]}"#,
        &[("shop.Zip", "zip", 1)],
    );
    let text = r#"{"type":"record","name":"shop.Order","fields":[{"name":"to","type":"Address"},{"name":"from","type":"shop.Address"}]}"#;
    let id = fake.add("order", "AVRO", text, &[("shop.Address", "address", 1)]);
    let address = D::Struct(vec![needed("zip", D::FixedSizeBinary(2))].into());
    let mut decoder = decoder(&fake, &columns(vec![needed("from", address.clone()), needed("to", address)]));
    let place = |n| V::Record(vec![V::Fixed(vec![n, n])]);
    decoder.push(&framed(id, &V::Record(vec![place(1), place(2)]))).unwrap();
    assert_eq!(rows(&decoder.flush().unwrap()), [r#"{"from":{"zip":"0202"},"to":{"zip":"0101"}}"#]);
}

#[test]
fn columns_without_a_type_in_avro_are_refused() {
    let fake = FakeRegistry::start();
    let schema = columns(vec![nullable("v", D::Duration(arrow::datatypes::TimeUnit::Second))]);
    let error = AvroDecoder::new(schema, quick(&fake), 100).unwrap_err();
    assert!(matches!(error, ConnectorError::Config(_)) && error.to_string().contains("\"v\""), "{error}");
}
