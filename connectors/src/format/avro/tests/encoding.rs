//! Rows into Avro and back; what is registered, and what is refused.

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
        Int32Array, Int64Array, ListArray, MapArray, RecordBatchOptions, StringArray, StructArray,
        TimestampMicrosecondArray, UInt16Array, UInt64Array,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{DataType as D, Int32Type, TimeUnit},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    ConnectorError,
    format::{
        avro::AvroFormat,
        payload::{PayloadFormat, Payloads, RowEncoder},
    },
};

fn everything() -> RecordBatch {
    let micros = TimestampMicrosecondArray::from(vec![0, -1, i64::MAX]).with_timezone("+00:00");
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(Vec::new())]);
    let inner = vec![nullable("zip", D::Utf8), needed("no", D::Int64)];
    let inner_arrays: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec![Some("z"), None, Some("")])), Arc::new(Int64Array::from(vec![1, 2, 3]))];
    let address = StructArray::new(inner.into(), inner_arrays, None);
    let entries = vec![needed("key", D::Utf8), nullable("value", D::Float64)];
    let entry_arrays: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(Float64Array::from(vec![Some(0.5), None]))];
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2, 2, 2]));
    let entries_field = needed("entries", D::Struct(entries.clone().into()));
    let map = MapArray::new(
        Arc::new(entries_field),
        offsets,
        StructArray::new(entries.into(), entry_arrays, None),
        None,
        false,
    );
    let arrays: Vec<(&str, bool, ArrayRef)> = vec![
        ("flag", false, Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("tiny", false, Arc::new(Int8Array::from(vec![-128, 0, 127]))),
        ("port", false, Arc::new(UInt16Array::from(vec![0, 1, u16::MAX]))),
        ("n", false, Arc::new(Int32Array::from(vec![i32::MIN, 0, i32::MAX]))),
        ("id", true, Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("big", false, Arc::new(UInt64Array::from(vec![0, 1, i64::MAX as u64]))),
        ("single", false, Arc::new(Float32Array::from(vec![1.5, f32::INFINITY, -0.0]))),
        ("double", true, Arc::new(Float64Array::from(vec![None, Some(1e300), Some(0.1)]))),
        ("name", true, Arc::new(StringArray::from(vec![Some("grüße"), None, Some("")]))),
        ("raw", false, Arc::new(BinaryArray::from(vec![&b"\0\xFF"[..], b"", b"x"]))),
        ("day", false, Arc::new(Date32Array::from(vec![-1, 0, 1]))),
        ("at", false, Arc::new(micros)),
        (
            "price",
            true,
            Arc::new(
                Decimal128Array::from(vec![Some(-12_345), None, Some(99_999)]).with_precision_and_scale(5, 2).unwrap(),
            ),
        ),
        ("tags", true, Arc::new(list)),
        ("address", false, Arc::new(address)),
        ("scores", false, Arc::new(map)),
    ];
    let fields: Vec<Field> =
        arrays.iter().map(|(name, null, array)| Field::new(*name, array.data_type().clone(), *null)).collect();
    RecordBatch::try_new(columns(fields), arrays.into_iter().map(|(_, _, array)| array).collect()).unwrap()
}

fn registered(fake: &FakeRegistry, subject: &str) -> Value {
    serde_json::from_str(&fake.latest(subject).unwrap().text).unwrap()
}

#[test]
fn there_and_back() {
    let fake = FakeRegistry::start();
    let batch = everything();
    let format = AvroFormat::new(quick(&fake));
    let mut encoder = format.encoder(&batch.schema(), "all-types").unwrap();
    let mut out = Payloads::new();
    encoder.encode(&batch, &mut out).unwrap();
    encoder.encode(&batch.slice(1, 2), &mut out).unwrap();
    encoder.encode(&batch.slice(0, 0), &mut out).unwrap();
    assert_eq!(out.len(), 5);
    let mut decoder = decoder(&fake, &batch.schema());
    for row in 0..out.len() {
        decoder.push(out.get(row).unwrap()).unwrap();
    }
    let read = decoder.flush().unwrap();
    assert_eq!(read.slice(0, 3), batch);
    assert_eq!(read.slice(3, 2), batch.slice(1, 2));
    assert_eq!(registered(&fake, "all-types-value")["name"], "all_types");
    // Too large for Avro: the job is told, and nothing of the row is left behind.
    let schema = columns(vec![needed("big", D::UInt64)]);
    let mut encoder = format.encoder(&schema, "big").unwrap();
    let large = RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt64Array::from(vec![1, u64::MAX]))]).unwrap();
    out.clear();
    assert!(matches!(encoder.encode(&large, &mut out), Err(ConnectorError::Data { .. })));
    encoder.encode(&large.slice(0, 1), &mut out).unwrap();
    assert_eq!(out.get(0).unwrap()[5..], [2]);
    assert_eq!(out.len(), 1);
}

#[test]
fn rows_without_columns() {
    let fake = FakeRegistry::start();
    let schema = columns(Vec::new());
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let batch = RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options).unwrap();
    let mut out = Payloads::new();
    AvroFormat::new(quick(&fake)).encoder(&schema, "t").unwrap().encode(&batch, &mut out).unwrap();
    assert_eq!(out.len(), 2);
    assert_eq!(out.get(1).unwrap(), [0, 0, 0, 0, 1]);
}

#[test]
fn what_is_registered() {
    let fake = FakeRegistry::start();
    fake.next_id(500);
    let street = needed("street", D::Utf8).with_metadata([("secret".to_string(), "of ours".to_string())].into());
    let address = D::Struct(vec![street, nullable("zip", D::Int32)].into());
    let schema = columns(vec![needed("id", D::Int64), nullable("address", address)]);
    let format = AvroFormat::new(quick(&fake)).record_name("shop.Order").subject("orders");
    for _ in 0..3 {
        format.clone().encoder(&schema, "topic").unwrap();
    }
    assert_eq!(fake.requests().len(), 1);
    let expected = json!({"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"},
        {"name": "address", "default": null, "type": ["null", {"type": "record", "name": "address", "fields": [
            {"name": "street", "type": "string"},
            {"name": "zip", "type": ["null", "int"], "default": null},
        ]}]},
    ]});
    assert_eq!(registered(&fake, "orders"), expected);
    // A null of a whole struct, and the id in front.
    let mut encoder = format.encoder(&schema, "topic").unwrap();
    let nulls = arrow::array::new_null_array(schema.field(1).data_type(), 1);
    let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![3])), nulls]).unwrap();
    let mut out = Payloads::new();
    encoder.encode(&batch, &mut out).unwrap();
    assert_eq!(out.get(0).unwrap(), [0, 0, 0, 1, 244, 6, 0]);
}

#[test]
fn what_is_refused() {
    let fake = FakeRegistry::start();
    let format = AvroFormat::new(quick(&fake));
    let refused = |format: &AvroFormat, schema: &SchemaRef| match format.encoder(schema, "t").unwrap_err() {
        ConnectorError::Config(reason) => reason,
        other => panic!("{other}"),
    };
    let odd = D::Struct(vec![nullable("a b", D::Int32)].into());
    assert!(refused(&format, &columns(vec![needed("s", odd)])).contains("column \"s.a b\" has no name for Avro"));
    let one = columns(vec![needed("v", D::Int64)]);
    assert!(refused(&format.clone().record_name("a-b"), &one).contains("no name for an Avro record"));
    // The same is known without a question.
    assert!(format.clone().record_name("a-b").accepts(&one, "t").is_err());
    format.accepts(&one, "t").unwrap();
    format.clone().use_latest().accepts(&one, "t").unwrap();
    assert_eq!(fake.requests().len(), 0);
    assert!(fake.latest("t-value").is_none());
    fake.close("t-value");
    assert!(refused(&format, &one).contains("READER_FIELD_MISSING_DEFAULT_VALUE"));
    fake.mood(Mood::Status(500));
    assert!(matches!(format.encoder(&one, "t"), Err(ConnectorError::Remote { passes: true, .. })));
}

#[test]
fn the_newest_schema_is_used_if_it_is_that_of_the_columns() {
    let fake = FakeRegistry::start();
    let format = AvroFormat::new(quick(&fake)).use_latest();
    let schema = columns(vec![
        needed("id", D::Int32),
        nullable("at", D::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))),
        nullable("name", D::Utf8),
    ]);
    assert!(format.encoder(&schema, "t").unwrap_err().to_string().contains("no schema for the subject \"t-value\""));
    let fields = r#"{"name":"name","type":["string","null"]},{"name":"id","type":"long"},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}]}"#;
    let id = fake.add_avro("t-value", &record(fields));
    let mut encoder = format.encoder(&schema, "t").unwrap();
    let at = arrow::array::TimestampMillisecondArray::from(vec![Some(5), None]).with_timezone("+00:00");
    let arrays: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(at), Arc::new(StringArray::from(vec![None, Some("x")]))];
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut out = Payloads::new();
    encoder.encode(&batch, &mut out).unwrap();
    let expected = V::Record(vec![some(1, V::Null), V::Int(1), some(1, V::Int(5))]);
    assert_eq!(out.get(0).unwrap(), framed(id, &expected));
    let mut decoder = AvroDecoder::new(columns(vec![needed("id", D::Int64)]), quick(&fake), 100).unwrap();
    decoder.push(out.get(1).unwrap()).unwrap();
    assert_eq!(rows(&decoder.flush().unwrap()), ["{\"id\":2}"]);

    // arrow-avro would write a double where the schema says long, without a word.
    for (other, why) in [
        (
            r#"{"name":"id","type":"double"},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},{"name":"name","type":["null","string"]}"#,
            "column \"id\" is Int32",
        ),
        (
            r#"{"name":"id","type":"int"},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},{"name":"name","type":["null","string"]}"#,
            "column \"at\" is",
        ),
        (r#"{"name":"id","type":"int"},{"name":"name","type":["null","string"]}"#, "no field for column \"at\""),
        (
            r#"{"name":"more","type":"int"},{"name":"id","type":"long"},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}]},{"name":"name","type":["null","string"]}"#,
            "a field \"more\"",
        ),
    ] {
        fake.add_avro("t-value", &record(other));
        let error = format.encoder(&schema, "t").unwrap_err();
        assert!(matches!(error, ConnectorError::Config(_)) && error.to_string().contains(why), "{error}");
    }
    assert!(fake.requests().iter().all(|(method, ..)| method == "GET"));
}

/// Types that Avro has another width or unit for: written as that.
#[test]
fn other_widths_and_units() {
    let fake = FakeRegistry::start();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(86_399), None, Some(0)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
    let (s, zone) = (TimeUnit::Second, Some("+00:00".into()));
    let seconds = cast(&cast(&numbers, &D::Int32).unwrap(), &D::Time32(s)).unwrap();
    let written = [
        (cast(&numbers, &D::Timestamp(s, None)).unwrap(), D::Timestamp(TimeUnit::Millisecond, None)),
        (cast(&numbers, &D::Timestamp(s, zone.clone())).unwrap(), D::Timestamp(TimeUnit::Millisecond, zone.clone())),
        (cast(&numbers, &D::Timestamp(s, Some("+02:00".into()))).unwrap(), D::Timestamp(TimeUnit::Millisecond, zone)),
        (cast(&numbers, &D::Timestamp(TimeUnit::Nanosecond, None)).unwrap(), D::Timestamp(TimeUnit::Nanosecond, None)),
        (seconds, D::Time32(TimeUnit::Millisecond)),
        (cast(&numbers, &D::Time64(TimeUnit::Microsecond)).unwrap(), D::Time64(TimeUnit::Microsecond)),
        (cast(&numbers, &D::UInt32).unwrap(), D::Int64),
        (cast(&texts, &D::LargeUtf8).unwrap(), D::Utf8),
        (cast(&texts, &D::Utf8View).unwrap(), D::Utf8),
        (cast(&texts, &D::LargeBinary).unwrap(), D::Binary),
        (cast(&texts, &D::BinaryView).unwrap(), D::Binary),
        (arrow::array::new_null_array(&D::FixedSizeBinary(7), 3), D::FixedSizeBinary(7)),
    ];
    for (i, (array, to)) in written.into_iter().enumerate() {
        let (schema, topic) = (columns(vec![nullable("v", array.data_type().clone())]), format!("t{i}"));
        let mut encoder = AvroFormat::new(quick(&fake)).encoder(&schema, &topic).unwrap();
        let mut out = Payloads::new();
        encoder.encode(&RecordBatch::try_new(schema, vec![array.clone()]).unwrap(), &mut out).unwrap();
        let there = crate::format::avro::columns(&quick(&fake).latest(&format!("{topic}-value")).unwrap()).unwrap();
        assert_eq!(there, columns(vec![nullable("v", to.clone())]));
        let mut decoder = decoder(&fake, &there);
        (0..3).for_each(|row| decoder.push(out.get(row).unwrap()).unwrap());
        assert_eq!(decoder.flush().unwrap().column(0), &cast(&array, &to).unwrap());
    }
    let text_ids = D::Dictionary(D::Int32.into(), D::Utf8.into());
    for refused in [D::Null, text_ids, D::Time64(TimeUnit::Nanosecond), D::Duration(s), D::Decimal128(9, -2)] {
        let list = D::List(Arc::new(nullable("item", refused)));
        let error = AvroFormat::new(quick(&fake)).encoder(&columns(vec![nullable("v", list)]), "t").unwrap_err();
        assert!(matches!(error, ConnectorError::Config(_)), "{error}");
    }
}

/// arrow-avro would write the 0 or the empty text that lies in the place of the null.
#[test]
fn a_null_is_never_written_where_the_newest_schema_has_none() {
    let fake = FakeRegistry::start();
    let fields = r#"{"name":"id","type":"long"},
        {"name":"s","type":["null",{"type":"record","name":"S","fields":[{"name":"zip","type":"string"}]}]},
        {"name":"l","type":{"type":"array","items":"long"}},{"name":"m","type":{"type":"map","values":"double"}},
        {"name":"o","type":["null",{"type":"array","items":"long"}]}"#;
    fake.add_avro("t-value", &record(fields));
    let zip = D::Struct(vec![nullable("zip", D::Utf8)].into());
    let entries = D::Struct(vec![needed("key", D::Utf8), nullable("value", D::Float64)].into());
    let schema = columns(vec![
        nullable("id", D::Int64),
        nullable("s", zip),
        nullable("l", D::List(Arc::new(nullable("item", D::Int64)))),
        nullable("m", D::Map(Arc::new(needed("entries", entries)), false)),
        nullable("o", D::List(Arc::new(nullable("item", D::Int64)))),
    ]);
    let mut encoder = AvroFormat::new(quick(&fake)).use_latest().encoder(&schema, "t").unwrap();
    let mut json = |lines: &str| {
        let reader = arrow::json::ReaderBuilder::new(schema.clone()).build(lines.as_bytes()).unwrap();
        let batch = reader.into_iter().next().unwrap().unwrap();
        let mut out = Payloads::new();
        encoder.encode(&batch, &mut out).map(|()| out.len())
    };
    let good = r#"{"id":1,"s":{"zip":"z"},"l":[1,2],"m":{"a":0.5}}"#;
    // What is nullable by its type alone is written, and what lies within a null does not count.
    let null = r#"{"id":1,"s":null,"l":[1,2,3],"m":{"a":1,"b":2},"o":null}"#;
    assert_eq!(json(&format!("{good}\n{null}\n{good}\n{null}")).unwrap(), 4);
    for (bad, path) in [
        (r#"{"s":{"zip":"z"},"l":[1,2],"m":{}}"#, "id"),
        (r#"{"id":1,"s":{},"l":[],"m":{}}"#, "s.zip"),
        (r#"{"id":1,"s":null,"l":[3,null],"m":{}}"#, "l[]"),
        (r#"{"id":1,"s":null,"m":{}}"#, "l"),
        (r#"{"id":1,"s":null,"l":[],"m":{"b":null}}"#, "m{}"),
        (r#"{"id":1,"s":null,"l":[],"m":{},"o":[1,null]}"#, "o[]"),
    ] {
        let error = json(&format!("{null}\n{bad}\n{null}")).unwrap_err();
        assert!(matches!(error, ConnectorError::Data { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(&format!("column {path:?}")) && error.contains("row 1 of"), "{path}: {error}");
    }
}

/// A list that is null may have elements in Arrow, which nobody sees.
#[test]
fn what_lies_within_a_null_list_is_not_written() {
    let fake = FakeRegistry::start();
    fake.add_avro("t-value", &record(r#"{"name":"o","type":["null",{"type":"array","items":"long"}]}"#));
    let item = Arc::new(nullable("item", D::Int64));
    let schema = columns(vec![nullable("o", D::List(item.clone()))]);
    let mut encoder = AvroFormat::new(quick(&fake)).use_latest().encoder(&schema, "t").unwrap();
    let mut encode = |elements: [Option<i64>; 4]| {
        let (offsets, valid) = (OffsetBuffer::from_lengths([1, 2, 1]), vec![true, false, true]);
        let list =
            ListArray::new(item.clone(), offsets, Arc::new(Int64Array::from(elements.to_vec())), Some(valid.into()));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(list)]).unwrap();
        // Of a part of a batch too.
        let mut row =
            |batch: &RecordBatch| encoder.encode(batch, &mut Payloads::new()).map_err(|error| error.to_string());
        row(&batch).and_then(|()| row(&batch.slice(1, 2)))
    };
    encode([Some(1), None, None, Some(4)]).unwrap();
    let error = encode([Some(1), None, None, None]).unwrap_err();
    assert!(error.contains("column \"o[]\"") && error.contains("row 2 of"), "{error}");
}
