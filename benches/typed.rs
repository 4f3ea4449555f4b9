//! What does a closure over row views cost beside a loop over the columns?
//!
//! `filter`: keep the bids above a price, over numbers and over text. `map`: a new record of two numbers. Each beside a
//! loop that reads the columns by hand and uses the same Arrow kernel or builders, over the same batches in memory.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{hint::black_box, sync::Arc, time::Duration};

use benches::{bids, read_all};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{AsArray, BooleanArray, Int64Array, RecordBatch},
        buffer::BooleanBuffer,
        compute::filter_record_batch,
        datatypes::Int64Type,
    },
    operators::{
        Operator, Outbox, Port, StreamSchema,
        typed::{FilterRows, MapRows},
    },
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
}

#[derive(Record)]
struct Channel {
    channel: String,
    price: i64,
}

#[derive(Record)]
struct Euro {
    auction: i64,
    cents: i64,
}

const CHEAP: i64 = 1_000;

/// Runs an operator over all batches; returns how many rows came out.
fn rows_through(operator: &mut dyn Operator, batches: &[RecordBatch]) -> usize {
    let mut out = Outbox::new();
    let mut rows = 0;
    for batch in batches {
        let processed = operator.process(Port::MAIN, batch.clone(), &mut out);
        processed.unwrap_or_else(|error| unreachable!("{error}"));
        rows += out.drain().map(|(_, batch)| black_box(batch).num_rows()).sum::<usize>();
    }
    rows
}

fn kept(batch: &RecordBatch, mask: &BooleanArray) -> usize {
    black_box(filter_record_batch(batch, mask)).map_or(0, |batch| batch.num_rows())
}

fn number(batch: &RecordBatch, column: usize) -> &Int64Array {
    batch.column(column).as_primitive::<Int64Type>()
}

fn filter_numbers_by_hand(batches: &[RecordBatch]) -> usize {
    let mask = |batch: &RecordBatch| {
        let (price, auction) = (number(batch, 1).values(), number(batch, 0).values());
        let keep = BooleanBuffer::collect_bool(batch.num_rows(), |row| price[row] > CHEAP && auction[row] % 2 == 0);
        BooleanArray::new(keep, None)
    };
    batches.iter().map(|batch| kept(batch, &mask(batch))).sum()
}

fn filter_text_by_hand(batches: &[RecordBatch]) -> usize {
    let mask = |batch: &RecordBatch| {
        let (channel, price) = (batch.column(0).as_string::<i32>(), number(batch, 1).values());
        let keep = |row| price[row] > CHEAP && channel.value(row) == "Google";
        BooleanArray::new(BooleanBuffer::collect_bool(batch.num_rows(), keep), None)
    };
    batches.iter().map(|batch| kept(batch, &mask(batch))).sum()
}

fn map_by_hand(batches: &[RecordBatch]) -> usize {
    let map = |batch: &RecordBatch| {
        let cents = Int64Array::from_iter_values(number(batch, 1).values().iter().map(|price| price * 9 / 10));
        let auction = Int64Array::from_iter_values(number(batch, 0).values().iter().copied());
        black_box(RecordBatch::try_from_iter([("auction", Arc::new(auction) as _), ("cents", Arc::new(cents) as _)]))
    };
    batches.iter().map(|batch| map(batch).map_or(0, |batch| batch.num_rows())).sum()
}

fn typed(criterion: &mut Criterion) {
    let (schema, numbers) = bids(2_000_000);
    let source = Nexmark::new().events(1_000_000).bids().columns(["channel", "price"]);
    let (text_schema, texts) = read_all(&source);
    let stream = StreamSchema::without_time(schema);
    let text_stream = StreamSchema::without_time(text_schema);
    let built = "the records are columns of the stream";

    let mut filter = FilterRows::<Bid, _>::new(&stream, |bid| bid.price > CHEAP && bid.auction % 2 == 0)
        .unwrap_or_else(|error| unreachable!("{built}: {error}"));
    let mut filter_text =
        FilterRows::<Channel, _>::new(&text_stream, |bid| bid.price > CHEAP && bid.channel == "Google")
            .unwrap_or_else(|error| unreachable!("{built}: {error}"));
    let mut map = MapRows::<Bid, Euro, _>::new(&stream, |bid| Euro { auction: bid.auction, cents: bid.price * 9 / 10 })
        .unwrap_or_else(|error| unreachable!("{built}: {error}"));
    assert_eq!(rows_through(&mut filter, &numbers), filter_numbers_by_hand(&numbers));
    assert_eq!(rows_through(&mut filter_text, &texts), filter_text_by_hand(&texts));
    assert_eq!(rows_through(&mut map, &numbers), map_by_hand(&numbers));

    let rows =
        |batches: &[RecordBatch]| Throughput::Elements(batches.iter().map(|batch| batch.num_rows() as u64).sum());
    let mut group = criterion.benchmark_group("typed");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(rows(&numbers));
    group.bench_function("filter_numbers/loop", |b| b.iter(|| filter_numbers_by_hand(&numbers)));
    group.bench_function("filter_numbers/closure", |b| b.iter(|| rows_through(&mut filter, &numbers)));
    group.bench_function("map/loop", |b| b.iter(|| map_by_hand(&numbers)));
    group.bench_function("map/closure", |b| b.iter(|| rows_through(&mut map, &numbers)));
    group.throughput(rows(&texts));
    group.bench_function("filter_text/loop", |b| b.iter(|| filter_text_by_hand(&texts)));
    group.bench_function("filter_text/closure", |b| b.iter(|| rows_through(&mut filter_text, &texts)));
    group.finish();
}

criterion_group!(benches, typed);
criterion_main!(benches);
