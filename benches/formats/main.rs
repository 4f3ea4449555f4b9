//! How many bytes a second become columns, and columns bytes, beside the bare libraries?
//!
//! ```text
//!   decode:  text, records, messages in memory ──► columns      windrow │ arrow-json, arrow-csv, arrow-avro, serde_json, prost
//!   encode:  columns ──► text, records, messages, a file        windrow │ the same, and parquet
//! ```
//!
//! Nexmark bids of seven columns, `WINDROW_BENCH_ROWS` of them if not 92,000. A second is worth as many bytes as the format has, so
//! compare sides, not formats. What the libraries do not do: Arrow's readers stop at the first bad record, and its JSON reader decodes
//! over line ends, where a bad record here becomes a rejected row and its neighbours stay. serde_json and prost make a struct of each
//! record, not columns, and serde_json leaves times as text. Avro records and Protobuf messages come one by one, as from a topic; Avro
//! with the id of their schema in a registry. Parquet is written and not read: a whole job beside a writer, both as far as the disk.
//!
//! [`engine`] is this engine's side, [`bare`] that of the libraries, [`protobuf`] that of prost.

#![allow(missing_docs, unreachable_pub, reason = "derive(Message) makes public types")]

mod bare;
mod engine;
mod protobuf;

use std::{sync::Arc, time::Duration};

use benches::{BATCH_ROWS, Ratios, read_all, row_count, rows};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tests::broker::registry::Registry;
use windrow::{
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
    },
    connectors::{
        SchemaRegistry,
        format::{AvroFormat, Format, PayloadFormat, Payloads, Protobuf},
    },
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BIDS: u64 = 92_000;

/// What fails here is the bench.
pub(crate) fn sound<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| unreachable!("{error}"))
}

/// Formats side by side, in a group of criterion's.
struct Sides<'a, 'c> {
    group: criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>,
    ratios: &'a Ratios,
    /// How many rows every side has to do.
    rows: usize,
}

impl Sides<'_, '_> {
    /// Measures sides that do the same to so many bytes; the first is this engine's.
    fn of(&mut self, name: &str, bytes: usize, sides: &[(&str, &dyn Fn() -> usize)]) {
        self.group.throughput(Throughput::Bytes(bytes as u64));
        let names: Vec<String> = sides.iter().map(|(side, _)| format!("{name}/{side}")).collect();
        for (side, (_, run)) in names.iter().zip(sides) {
            assert_eq!(run(), self.rows, "{side}");
            self.group.bench_function(side, |b| b.iter_custom(|times| self.ratios.time(side, times, run)));
        }
        names.iter().skip(1).for_each(|bare| self.ratios.print(&names[0], bare));
    }
}

/// Everything that the sides read or write.
struct Bids {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// A registry, which has the schema of Avro records under the topic `bids`.
    registry: SchemaRegistry,
    /// The same, as messages.
    messages: Vec<protobuf::Bid>,
}

fn payloads(format: &dyn PayloadFormat, schema: &SchemaRef, batches: &[RecordBatch]) -> Payloads {
    let mut encoder = sound(format.encoder(schema, "bids"));
    let mut payloads = Payloads::new();
    batches.iter().for_each(|batch| sound(encoder.encode(batch, &mut payloads)));
    payloads
}

fn length(payloads: &Payloads) -> usize {
    (0..payloads.len()).filter_map(|row| payloads.get(row)).map(<[u8]>::len).sum()
}

fn decode(sides: &mut Sides<'_, '_>, bids: &Bids) {
    let Bids { schema, batches, registry, .. } = bids;
    let json = engine::text(Format::Json, batches);
    for (columns, schema) in [("7 columns", schema), ("3 columns", &three(schema))] {
        let ours = || engine::decode_text(Format::Json, schema, &json);
        let name = format!("decode json {columns}");
        sides.of(&name, json.len(), &[("windrow", &ours), ("arrow", &|| bare::decode_json(schema, &json))]);
    }
    let ours = || engine::decode_text(Format::Json, schema, &json);
    sides.of("decode json", json.len(), &[("windrow", &ours), ("serde_json", &|| bare::decode_json_structs(&json))]);

    let csv = engine::text(Format::CSV, batches);
    // Arrow's CSV reader takes an empty text for null.
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let ours = || engine::decode_text(Format::CSV, schema, &csv);
    sides.of("decode csv", csv.len(), &[("windrow", &ours), ("arrow", &|| bare::decode_csv(&nullable, &csv))]);

    let avro = payloads(&AvroFormat::new(registry.clone()), schema, batches);
    let (ours, theirs) = (|| engine::decode_avro(schema, registry, &avro), || bare::decode_avro(registry, &avro));
    sides.of("decode avro", length(&avro), &[("windrow", &ours), ("arrow-avro", &theirs)]);

    let format = sound(Protobuf::from_proto(protobuf::BID, "Bid"));
    let messages = payloads(&format, schema, batches);
    let ours = || engine::decode_protobuf(&format, schema, &messages);
    let theirs = || protobuf::decode(&messages);
    sides.of("decode protobuf", length(&messages), &[("windrow", &ours), ("prost", &theirs)]);
}

fn encode(sides: &mut Sides<'_, '_>, bids: &Bids) {
    let Bids { schema, batches, registry, messages } = bids;
    let json = engine::text(Format::Json, batches).len();
    let lines = || engine::encode_text(Format::Json, batches);
    let theirs = || bare::encode_json(batches);
    sides.of("encode json lines", json, &[("windrow", &lines), ("arrow", &theirs)]);
    let ours = || engine::encode_payloads(&Format::Json, schema, batches);
    sides.of("encode json records", json, &[("windrow", &ours), ("arrow", &theirs)]);

    let csv = engine::text(Format::CSV, batches).len();
    let lines = || engine::encode_text(Format::CSV, batches);
    sides.of("encode csv", csv, &[("windrow", &lines), ("arrow", &|| bare::encode_csv(batches))]);

    let avro = AvroFormat::new(registry.clone());
    let bytes = length(&payloads(&avro, schema, batches));
    let ours = || engine::encode_payloads(&avro, schema, batches);
    let theirs = || bare::encode_avro(registry, schema, batches);
    sides.of("encode avro", bytes, &[("windrow", &ours), ("arrow-avro", &theirs)]);

    let format = sound(Protobuf::from_proto(protobuf::BID, "Bid"));
    let bytes = length(&payloads(&format, schema, batches));
    let ours = || engine::encode_payloads(&format, schema, batches);
    sides.of("encode protobuf", bytes, &[("windrow", &ours), ("prost", &|| protobuf::encode(messages))]);

    let runtime = sound(tokio::runtime::Runtime::new());
    let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let job = || engine::write_parquet(&runtime, schema, batches);
    let directory = sound(tempfile::tempdir());
    let theirs = || bare::write_parquet(schema, batches, &directory.path().join("bids.parquet"));
    sides.of("write parquet", bytes, &[("windrow", &job), ("parquet", &theirs)]);
}

/// From the page cache. The bytes are those of the file.
fn read_parquet(sides: &mut Sides<'_, '_>, bids: &Bids) {
    let Bids { schema, batches, .. } = bids;
    let runtime = sound(tokio::runtime::Runtime::new());
    let directory = sound(tempfile::tempdir());
    let path = directory.path().join("bids.parquet");
    bare::write_parquet(schema, batches, &path);
    let bytes = sound(std::fs::metadata(&path)).len() as usize;
    let name = path.to_str().unwrap_or_default();
    for (columns, schema) in [("7 columns", schema), ("3 columns", &three(schema))] {
        let ours = || engine::read_parquet(&runtime, schema, name);
        let sides_name = format!("read parquet {columns}");
        sides.of(&sides_name, bytes, &[("windrow", &ours), ("parquet", &|| bare::read_parquet(schema, &path))]);
    }
}

/// Numbers and a time, without the texts.
fn three(schema: &SchemaRef) -> SchemaRef {
    let three = ["auction", "price", "at"].map(|name| schema.index_of(name).unwrap_or_default());
    Arc::new(sound(schema.project(&three)))
}

fn formats(criterion: &mut Criterion) {
    let bids = Nexmark::new().events(rows(BIDS).div_ceil(46) * 50).batch_rows(BATCH_ROWS).bids();
    let (schema, batches) = read_all(&bids);
    let server = Registry::start().unwrap_or_else(|error| unreachable!("{error}"));
    let registry = SchemaRegistry::at(server.url());
    let messages = protobuf::messages(&batches);
    let bids = Bids { schema, batches, registry, messages };
    let ratios = Ratios::of("formats");
    let mut group = criterion.benchmark_group("formats");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let mut sides = Sides { group, ratios: &ratios, rows: row_count(&bids.batches) as usize };
    decode(&mut sides, &bids);
    encode(&mut sides, &bids);
    read_parquet(&mut sides, &bids);
    sides.group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);
