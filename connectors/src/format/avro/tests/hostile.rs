//! Records that mean harm: no panic, no memory beyond their size, and good records beside them unharmed.

use std::{cell::RefCell, time::Instant};

use arrow::datatypes::{DataType as D, TimeUnit};
use arrow_avro::{
    reader::ReaderBuilder,
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;

/// A bit of everything, some of it passed over.
const FIELDS: &str = r#"
    {"name":"id","type":"long"},
    {"name":"skipped","type":{"type":"array","items":{"type":"map","values":["null","string","Row"]}}},
    {"name":"name","type":["null","string"]},
    {"name":"suit","type":{"type":"enum","name":"Suit","symbols":["a","b","c"]}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"places","type":{"type":"array","items":{"type":"record","name":"Place","fields":[
        {"name":"x","type":"double"},{"name":"mark","type":["null","boolean"]},{"name":"nothing","type":"null"}]}}},
    {"name":"scores","type":{"type":"map","values":"float"}},
    {"name":"raw","type":{"type":"fixed","name":"Raw","size":3}},
    {"name":"either","type":["int","long","null"]},
    {"name":"matrix","type":{"type":"array","items":{"type":"array","items":"int"}}}"#;

fn wanted() -> SchemaRef {
    let place = D::Struct(vec![needed("x", D::Float64), nullable("mark", D::Boolean)].into());
    let entries = D::Struct(vec![needed("key", D::Utf8), needed("value", D::Float32)].into());
    columns(vec![
        needed("id", D::Int64),
        nullable("name", D::Utf8),
        needed("suit", D::Utf8),
        needed("price", D::Decimal128(20, 2)),
        needed("at", D::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))),
        needed("places", D::List(Arc::new(needed("item", place)))),
        needed("scores", D::Map(Arc::new(needed("entries", entries)), false)),
        needed("raw", D::FixedSizeBinary(3)),
        nullable("either", D::Int64),
        needed("matrix", D::List(Arc::new(needed("item", D::List(Arc::new(needed("item", D::Int32))))))),
    ])
}

fn value(id: i64) -> V {
    let place =
        |x| V::Record(vec![V::F64(x), some(id % 2, if id % 2 == 0 { V::Null } else { V::Bool(true) }), V::Null]);
    let entry = V::Map(vec![("s", some(1, text("passed over"))), ("n", some(0, V::Null))]);
    V::Record(vec![
        V::Int(id),
        V::Array(vec![entry.clone(), entry]),
        some(1, text("Ada")),
        V::Int(id % 3),
        V::Bytes(vec![1, 2, 3]),
        V::Int(id * 1_000),
        V::Array((0..id % 4).map(|x| place(x as f64)).collect()),
        V::Map(vec![("f", V::F32(0.5))]),
        V::Fixed(vec![7, 8, 9]),
        some(id % 2, V::Int(id)),
        V::Array(vec![V::Array(vec![V::Int(1), V::Int(2)]), V::Array(Vec::new())]),
    ])
}

/// What is done to a good record.
#[derive(Clone, Debug)]
enum Harm {
    Random(Vec<u8>),
    Flip(Vec<(usize, u8)>),
    Cut(usize),
    Insert(usize, Vec<u8>),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Harm::Random),
        proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4).prop_map(Harm::Flip),
        any::<usize>().prop_map(Harm::Cut),
        (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
    ]
}

fn harmed(mut record: Vec<u8>, harm: &Harm) -> Vec<u8> {
    let body = record.len() - 5;
    match harm {
        Harm::Random(bytes) => record.splice(5.., bytes.iter().copied()).for_each(drop),
        Harm::Flip(flips) => flips.iter().for_each(|(at, byte)| record[5 + at % body] = *byte),
        Harm::Cut(at) => record.truncate(5 + at % body),
        Harm::Insert(at, bytes) => {
            let at = 5 + at % body;
            record.splice(at..at, bytes.iter().copied()).for_each(drop);
        }
    }
    record
}

#[test]
fn harmed_records_do_no_harm() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(FIELDS));
    let reading = RefCell::new(decoder(&fake, &wanted()));
    let mut alone = decoder(&fake, &wanted());
    let good: Vec<Vec<u8>> = (0..12).map(|n| framed(id, &value(n))).collect();
    good.iter().for_each(|record| alone.push(record).unwrap());
    let expected = rows(&alone.flush().unwrap());

    let cases = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let harms = proptest::collection::vec((0..12_usize, harm()), 1..4);
    let rejected = RefCell::new(0_u32);
    let run = |harms: Vec<(usize, Harm)>| {
        let mut decoder = reading.borrow_mut();
        // Where the good records are among the rows, and how many rows there must be.
        let (mut places, mut count, mut bytes) = (Vec::new(), 0, 0);
        for (n, harm) in &harms {
            decoder.push(&good[*n]).unwrap();
            places.push((*n, count));
            count += 1;
            let bad = harmed(good[*n].clone(), harm);
            bytes += good[*n].len() + bad.len();
            match decoder.push(&bad) {
                Ok(()) => count += 1,
                Err(reason) => {
                    *rejected.borrow_mut() += 1;
                    prop_assert!(!reason.is_empty() && reason.len() < 1_000);
                }
            }
            prop_assert!(decoder.failure().is_none());
        }
        prop_assert_eq!(decoder.len(), count);
        let batch = decoder.flush().unwrap();
        prop_assert_eq!(batch.num_rows(), count);
        // Buffers keep the room they had, so this is the most that any batch until now took.
        prop_assert!(batch.get_array_memory_size() < (4 << 20) + 64 * bytes);
        for (n, place) in places {
            prop_assert_eq!(&rows(&batch.slice(place, 1))[0], &expected[n]);
        }
        Ok(())
    };
    TestRunner::new(cases).run(&harms, run).unwrap();
    assert!(*rejected.borrow() > 5_000, "{rejected:?}");
}

/// A few bytes that ask for the world.
#[test]
fn bombs() {
    let fake = FakeRegistry::start();
    let array = |items: &str| record(&format!(r#"{{"name":"v","type":{{"type":"array","items":{items}}}}}"#));
    let empty = r#"{"type":"record","name":"Empty","fields":[]}"#;
    let nulls = fake.add_avro("a", &array("\"null\""));
    let empties = fake.add_avro("b", &array(empty));
    let texts = fake.add_avro("c", &array("\"string\""));
    let mut laughs = String::from(r#"{"name":"l0","type":"null"}"#);
    for i in 1..40 {
        let before = if i == 1 { "\"null\"".to_string() } else { format!("\"L{}\"", i - 1) };
        laughs += &format!(
            r#",{{"name":"l{i}","type":{{"type":"record","name":"L{i}","fields":[{{"name":"a","type":{before}}},{{"name":"b","type":{before}}}]}}}}"#
        );
    }
    let laughs = fake.add_avro("d", &record(&laughs));
    let columns = columns(vec![nullable("v", D::List(Arc::new(nullable("item", D::Utf8))))]);
    let skipping = super::columns(vec![nullable("w", D::Int64)]);
    let begun = Instant::now();
    for schema in [columns, skipping] {
        let mut decoder = decoder(&fake, &schema);
        let mut push = |id: u32, counts: &[i64]| {
            let mut record = framed(id, &V::Null);
            counts.iter().for_each(|count| number(*count, &mut record));
            decoder.push(&record).unwrap_err()
        };
        for count in [i64::MAX, i64::MIN, 1 << 40, -(1 << 40)] {
            for id in [nulls, empties, texts] {
                push(id, &[count, 0]);
                push(id, &[count, i64::MAX, 0]);
            }
            // Many blocks of nothing.
            push(nulls, &[10_000; 2_000]);
        }
        // A text said to be huge, or of a negative length.
        push(texts, &[1, i64::MAX]);
        push(texts, &[1, -5]);
        if schema.field(0).name() == "w" {
            assert!(push(laughs, &[]).contains("too many values"));
        }
        let batch = decoder.flush().unwrap();
        assert_eq!(batch.num_rows(), 0);
        assert!(batch.get_array_memory_size() < 64 << 20);
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

fn any_value() -> impl Strategy<Value = V> {
    let place = (any::<f64>(), any::<Option<bool>>());
    let head = (any::<i64>(), any::<Option<String>>(), 0..3_i64, any::<i64>(), -100_000_000..100_000_000_000_000_i64);
    let tail = (
        proptest::collection::vec(place, 0..4),
        proptest::collection::vec(any::<f32>(), 0..3),
        any::<[u8; 3]>(),
        any::<Option<i64>>(),
        proptest::collection::vec(proptest::collection::vec(any::<i32>(), 0..3), 0..3),
    );
    (head, tail).prop_map(|((id, name, suit, price, at), (places, scores, raw, either, matrix))| {
        let optional = |mark: Option<bool>| mark.map_or_else(|| some(0, V::Null), |mark| some(1, V::Bool(mark)));
        let places = places.into_iter().map(|(x, mark)| V::Record(vec![V::F64(x), optional(mark), V::Null]));
        let keys = ["p", "q", "r"];
        V::Record(vec![
            V::Int(id),
            V::Array(Vec::new()),
            name.map_or_else(|| some(0, V::Null), |name| some(1, text(&name))),
            V::Int(suit),
            V::Bytes(price.to_be_bytes().to_vec()),
            V::Int(at),
            V::Array(places.collect()),
            V::Map(keys.into_iter().zip(scores).map(|(key, score)| (key, V::F32(score))).collect()),
            V::Fixed(raw.to_vec()),
            either.map_or_else(|| some(2, V::Null), |n| some(1, V::Int(n))),
            V::Array(
                matrix.into_iter().map(|row| V::Array(row.into_iter().map(|n| V::Int(n.into())).collect())).collect(),
            ),
        ])
    })
}

/// The fields that arrow-avro reads rightly, read by both.
#[test]
fn arrow_avro_agrees() {
    // A null in a struct is more than they can: their batch fails.
    let plain = FIELDS
        .replace(r#",{"name":"nothing","type":"null"}"#, "")
        .replace(r#"["null","string","Row"]"#, r#"["null","string"]"#)
        .replace(r#"["int","long","null"]"#, r#"{"type":"array","items":"int"}"#);
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(&plain));
    let mut fields = wanted().fields().to_vec();
    fields.retain(|field| field.name() != "either");
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let ours = RefCell::new(decoder(&fake, &schema));
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), AvroSchema::new(record(&plain))).unwrap();
    let theirs = RefCell::new(ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap());
    let cases = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    let run = |values: Vec<V>| {
        let (mut ours, mut theirs) = (ours.borrow_mut(), theirs.borrow_mut());
        for value in &values {
            let V::Record(mut fields) = value.clone() else { return Ok(()) };
            fields[9] = V::Array(Vec::new());
            let record = framed(id, &V::Record(fields));
            ours.push(&record).unwrap();
            assert_eq!(theirs.decode(&record).unwrap(), record.len());
        }
        let theirs = theirs.flush().unwrap().unwrap();
        let kept: Vec<usize> =
            schema.fields().iter().map(|field| theirs.schema().index_of(field.name()).unwrap()).collect();
        let theirs = rows(&theirs.project(&kept).unwrap());
        prop_assert_eq!(rows(&ours.flush().unwrap()), theirs);
        Ok(())
    };
    TestRunner::new(cases).run(&proptest::collection::vec(any_value(), 1..5), run).unwrap();
}

/// How fast: `cargo test -p windrow-connectors --features kafka avro_speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn avro_speed() {
    let fields = r#"{"name":"id","type":"long"},{"name":"name","type":["null","string"]},{"name":"price","type":"double"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"count","type":"int"},{"name":"place","type":"string"}"#;
    let fake = FakeRegistry::start();
    let id = fake.add_avro("t-value", &record(fields));
    let micros = D::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let schema = columns(vec![
        needed("id", D::Int64),
        nullable("name", D::Utf8),
        needed("price", D::Float64),
        needed("at", micros),
        needed("count", D::Int32),
        needed("place", D::Utf8),
    ]);
    let record_of = |n: i64| {
        framed(
            id,
            &V::Record(vec![
                V::Int(n),
                some(1, text("Ada Lovelace")),
                V::F64(0.5),
                V::Int(1_700_000_000_000_000 + n),
                V::Int(3),
                text("London, Marylebone"),
            ]),
        )
    };
    let records: Vec<Vec<u8>> = (0..1_000).map(record_of).collect();
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), AvroSchema::new(record(fields))).unwrap();
    let mut theirs = ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap();
    let mut ours = decoder(&fake, &schema);
    for _ in 0..3 {
        let begun = Instant::now();
        for _ in 0..100 {
            records.iter().for_each(|record| ours.push(record).unwrap());
            assert_eq!(ours.flush().unwrap().num_rows(), records.len());
        }
        let own = 1e5 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        for _ in 0..100 {
            records.iter().for_each(|record| assert_eq!(theirs.decode(record).unwrap(), record.len()));
            assert_eq!(theirs.flush().unwrap().unwrap().num_rows(), records.len());
        }
        let other = 1e5 / begun.elapsed().as_secs_f64();
        println!("checked and decoded {own:.0} rows/s, arrow-avro alone {other:.0} rows/s, {:.2} of it", own / other);
    }
}
