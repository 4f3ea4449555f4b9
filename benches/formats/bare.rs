//! What the libraries do alone. Each function returns how many rows it has done.

use std::{borrow::Cow, collections::HashMap, fs, hint::black_box, io::BufWriter, path::Path};

use arrow_avro::{
    reader::ReaderBuilder,
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SCHEMA_METADATA_KEY, SchemaStore},
    writer::{WriterBuilder, format::AvroSoeFormat},
};
use benches::BATCH_ROWS;
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde::Deserialize;
use windrow::{
    arrow::{
        array::RecordBatch,
        csv,
        datatypes::{Schema, SchemaRef},
        json,
    },
    connectors::{SchemaRegistry, format::Payloads},
};

use crate::sound;

fn count<E: std::fmt::Display>(reader: impl Iterator<Item = Result<RecordBatch, E>>) -> usize {
    reader.map(|batch| black_box(sound(batch)).num_rows()).sum()
}

pub(crate) fn decode_json(schema: &SchemaRef, text: &[u8]) -> usize {
    count(sound(json::ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).build(text)))
}

pub(crate) fn decode_csv(schema: &SchemaRef, text: &[u8]) -> usize {
    count(sound(csv::ReaderBuilder::new(schema.clone()).with_header(true).with_batch_size(BATCH_ROWS).build(text)))
}

/// A bid with the texts where they are, if nothing in them is escaped.
#[derive(Deserialize)]
struct Bid<'a> {
    auction: i64,
    bidder: i64,
    price: i64,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    at: Cow<'a, str>,
    #[serde(borrow)]
    extra: Cow<'a, str>,
}

pub(crate) fn decode_json_structs(text: &[u8]) -> usize {
    let mut rows = 0;
    for bid in serde_json::Deserializer::from_slice(text).into_iter::<Bid<'_>>() {
        let Bid { auction, bidder, price, channel, url, at, extra } = sound(bid);
        black_box((auction, bidder, price, channel, url, at, extra));
        rows += 1;
    }
    rows
}

/// The id and the text of the schema of the bids.
fn schema_of(registry: &SchemaRegistry) -> (u32, String) {
    let schema = sound(registry.latest("bids-value"));
    (schema.id, schema.text.clone())
}

pub(crate) fn decode_avro(registry: &SchemaRegistry, records: &Payloads) -> usize {
    let (id, text) = schema_of(registry);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    sound(store.set(Fingerprint::Id(id), AvroSchema::new(text)));
    let decoder = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(BATCH_ROWS).build_decoder();
    let mut decoder = sound(decoder);
    let mut rows = 0;
    for record in (0..records.len()).filter_map(|row| records.get(row)) {
        sound(decoder.decode(record));
        if decoder.batch_is_full() {
            rows += black_box(sound(decoder.flush())).map_or(0, |batch| batch.num_rows());
        }
    }
    rows + black_box(sound(decoder.flush())).map_or(0, |batch| batch.num_rows())
}

pub(crate) fn encode_avro(registry: &SchemaRegistry, schema: &SchemaRef, batches: &[RecordBatch]) -> usize {
    let (id, text) = schema_of(registry);
    let metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_string(), text)]);
    let columns = Schema::new_with_metadata(schema.fields().clone(), metadata);
    let encoder = WriterBuilder::new(columns).with_fingerprint_strategy(FingerprintStrategy::Id(id));
    let mut encoder = sound(encoder.build_encoder::<AvroSoeFormat>());
    let mut rows = 0;
    for batch in batches {
        let batch = sound(RecordBatch::try_new(encoder.schema(), batch.columns().to_vec()));
        sound(encoder.encode(&batch));
        rows += black_box(encoder.flush()).offsets().len() - 1;
    }
    rows
}

pub(crate) fn encode_json(batches: &[RecordBatch]) -> usize {
    let mut text = Vec::new();
    let mut rows = 0;
    for batch in batches {
        text.clear();
        sound(json::LineDelimitedWriter::new(&mut text).write(batch));
        black_box(&text);
        rows += batch.num_rows();
    }
    rows
}

pub(crate) fn encode_csv(batches: &[RecordBatch]) -> usize {
    let mut text = Vec::new();
    let mut rows = 0;
    for batch in batches {
        text.clear();
        sound(csv::WriterBuilder::new().with_header(rows == 0).build(&mut text).write(batch));
        black_box(&text);
        rows += batch.num_rows();
    }
    rows
}

/// The columns of `schema`, as the library gives them.
pub(crate) fn read_parquet(schema: &SchemaRef, path: &Path) -> usize {
    let reader = sound(ParquetRecordBatchReaderBuilder::try_new(sound(fs::File::open(path))));
    let columns = schema.fields().iter().map(|field| field.name().as_str());
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns);
    count(sound(reader.with_projection(mask).with_batch_size(BATCH_ROWS).build()))
}

/// With the settings of the engine's sink, and as durable.
pub(crate) fn write_parquet(schema: &SchemaRef, batches: &[RecordBatch], path: &Path) -> usize {
    let file = sound(fs::File::create(path));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = sound(ArrowWriter::try_new(BufWriter::new(file), schema.clone(), Some(properties)));
    batches.iter().for_each(|batch| sound(writer.write(batch)));
    let file = sound(sound(writer.into_inner()).into_inner());
    sound(file.sync_all());
    batches.iter().map(RecordBatch::num_rows).sum()
}
