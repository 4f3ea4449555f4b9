//! How fast do JSON lines and CSV become columns, beside Arrow's own readers?
//!
//! Nexmark bids as text in memory, all seven columns and three of them. Arrow's readers stop at the first bad record, and
//! its JSON reader decodes over line ends; ours turns each bad record into a rejected row and keeps its neighbours.

use std::{hint::black_box, sync::Arc, time::Duration};

use benches::{BATCH_ROWS, read_all};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::RecordBatch,
        csv,
        datatypes::{Schema, SchemaRef},
        json,
    },
    connectors::format::{Encoder, Format, Frame, MAX_RECORD_BYTES},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn encoded(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut encoder = Encoder::new(format);
    for batch in batches {
        encoder.encode(batch, &mut text).unwrap_or_else(|error| unreachable!("{error}"));
    }
    text
}

/// Rows decoded by this crate's decoder.
fn windrow(format: Format, schema: &SchemaRef, text: &[u8]) -> usize {
    let decoder = format.decoder(schema.clone(), MAX_RECORD_BYTES);
    let mut decoder = decoder.unwrap_or_else(|error| unreachable!("{error}"));
    let (mut rows, mut at) = (0, 0);
    let mut header = decoder.has_header();
    loop {
        match decoder.frame(&text[at..], true) {
            Frame::Record(span) => {
                let record = &text[at..at + span.end];
                let pushed = if std::mem::take(&mut header) { decoder.header(record) } else { decoder.push(record) };
                pushed.unwrap_or_else(|reason| unreachable!("{reason}"));
                at += span.next;
            }
            Frame::Blank(span) => at += span.next,
            Frame::More => break,
            Frame::Bad(..) | Frame::TooLong => unreachable!("the text is sound"),
        }
        if decoder.len() == BATCH_ROWS || at >= text.len() {
            rows += black_box(decoder.flush()).map_or(0, |batch| batch.num_rows());
        }
        if at >= text.len() {
            break;
        }
    }
    rows
}

fn arrow_json(schema: &SchemaRef, text: &[u8]) -> usize {
    let reader = json::ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).build(text);
    let reader = reader.unwrap_or_else(|error| unreachable!("{error}"));
    reader.map(|batch| black_box(batch).map_or(0, |batch| batch.num_rows())).sum()
}

fn arrow_csv(schema: &SchemaRef, text: &[u8]) -> usize {
    let reader = csv::ReaderBuilder::new(schema.clone()).with_header(true).with_batch_size(BATCH_ROWS).build(text);
    let reader = reader.unwrap_or_else(|error| unreachable!("{error}"));
    reader.map(|batch| black_box(batch).map_or(0, |batch| batch.num_rows())).sum()
}

fn formats(criterion: &mut Criterion) {
    let (schema, batches) = read_all(&Nexmark::new().events(100_000).bids());
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let three = ["auction", "price", "at"].map(|name| schema.index_of(name).unwrap_or_default());
    let three = Arc::new(schema.project(&three).unwrap_or_else(|error| unreachable!("{error}")));

    let json = encoded(Format::Json, &batches);
    let csv = encoded(Format::CSV, &batches);
    for schema in [&schema, &three] {
        assert_eq!((windrow(Format::Json, schema, &json), arrow_json(schema, &json)), (rows, rows));
        assert_eq!(windrow(Format::CSV, schema, &csv), rows);
    }
    // Arrow's CSV reader takes an empty text for null.
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    assert_eq!(arrow_csv(&nullable, &csv), rows);

    let mut group = criterion.benchmark_group("formats");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Bytes(json.len() as u64));
    for (columns, schema) in [("7_columns", &schema), ("3_columns", &three)] {
        group.bench_function(format!("json/{columns}/windrow"), |b| b.iter(|| windrow(Format::Json, schema, &json)));
        group.bench_function(format!("json/{columns}/arrow"), |b| b.iter(|| arrow_json(schema, &json)));
    }
    group.throughput(Throughput::Bytes(csv.len() as u64));
    group.bench_function("csv/7_columns/windrow", |b| b.iter(|| windrow(Format::CSV, &schema, &csv)));
    group.bench_function("csv/7_columns/arrow", |b| b.iter(|| arrow_csv(&nullable, &csv)));
    group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);
