//! What this engine does to bytes and columns. Each function returns how many rows it has done.

use std::hint::black_box;

use benches::BATCH_ROWS;
use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{
        Fetch, File, SchemaRegistry, Source,
        format::{AvroDecoder, Decoder, Encoder, Format, Frame, MAX_RECORD_BYTES, PayloadFormat, Payloads, Protobuf},
    },
    prelude::*,
};

use crate::sound;

/// Batches as lines.
pub(crate) fn text(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut encoder = Encoder::new(format);
    batches.iter().for_each(|batch| sound(encoder.encode(batch, &mut text)));
    text
}

pub(crate) fn decode_text(format: Format, schema: &SchemaRef, text: &[u8]) -> usize {
    let mut decoder = sound(format.decoder(schema.clone(), MAX_RECORD_BYTES));
    let (mut rows, mut at) = (0, 0);
    let mut header = decoder.has_header();
    loop {
        match decoder.frame(&text[at..], true) {
            Frame::Record(span) => {
                let record = &text[at..at + span.end];
                let pushed = if std::mem::take(&mut header) { decoder.header(record) } else { decoder.push(record) };
                sound(pushed);
                at += span.next;
            }
            Frame::Blank(span) => at += span.next,
            Frame::More => break,
            Frame::Bad(..) | Frame::TooLong => unreachable!("the text is sound"),
        }
        if decoder.len() == BATCH_ROWS || at >= text.len() {
            rows += black_box(sound(decoder.flush())).num_rows();
        }
        if at >= text.len() {
            break;
        }
    }
    rows
}

fn decode(mut decoder: impl Decoder, payloads: &Payloads) -> usize {
    let mut rows = 0;
    for record in (0..payloads.len()).filter_map(|row| payloads.get(row)) {
        sound(decoder.push(record));
        if decoder.len() == BATCH_ROWS {
            rows += black_box(sound(decoder.flush())).num_rows();
        }
    }
    rows + black_box(sound(decoder.flush())).num_rows()
}

pub(crate) fn decode_avro(schema: &SchemaRef, registry: &SchemaRegistry, records: &Payloads) -> usize {
    decode(sound(AvroDecoder::new(schema.clone(), registry.clone(), MAX_RECORD_BYTES)), records)
}

pub(crate) fn decode_protobuf(protobuf: &Protobuf, schema: &SchemaRef, messages: &Payloads) -> usize {
    decode(sound(protobuf.decoder(schema.clone())), messages)
}

/// Lines, into one buffer that keeps its memory.
pub(crate) fn encode_text(format: Format, batches: &[RecordBatch]) -> usize {
    let mut text = Vec::new();
    let mut encoder = Encoder::new(format);
    let mut rows = 0;
    for batch in batches {
        text.clear();
        sound(encoder.encode(batch, &mut text));
        black_box(&text);
        rows += batch.num_rows();
    }
    rows
}

/// Records, into one buffer that keeps its memory, as the sink of a topic does.
pub(crate) fn encode_payloads(format: &dyn PayloadFormat, schema: &SchemaRef, batches: &[RecordBatch]) -> usize {
    let mut encoder = sound(format.encoder(schema, "bids"));
    let mut payloads = Payloads::new();
    let mut rows = 0;
    for batch in batches {
        payloads.clear();
        sound(encoder.encode(batch, &mut payloads));
        rows += black_box(&payloads).len();
    }
    rows
}

/// A job that writes one file.
pub(crate) fn write_parquet(runtime: &tokio::runtime::Runtime, schema: &SchemaRef, batches: &[RecordBatch]) -> usize {
    let directory = sound(tempfile::tempdir());
    let job = Job::new("write").parallelism(1);
    job.source(MemorySource::new(schema.clone(), vec![batches.to_vec()]))
        .sink(File::directory(directory.path().join("bids")).parquet());
    let report = sound(runtime.block_on(job.run()));
    report.metrics.named("source").map(|source| source.rows_out as usize).sum()
}

/// A reader of one file, as a task of a job has it.
pub(crate) fn read_parquet(runtime: &tokio::runtime::Runtime, schema: &SchemaRef, path: &str) -> usize {
    let source = File::pattern(path).parquet_with(schema.clone());
    runtime.block_on(async {
        let splits = sound(source.splits().await).into_iter().map(|split| (split, None)).collect();
        let mut reader = sound(source.reader(splits).await);
        let mut rows = 0;
        loop {
            match sound(reader.fetch().await) {
                Fetch::Rows(read) => rows += black_box(read).batch.num_rows(),
                Fetch::SplitEnd(_) => {}
                Fetch::End => return rows,
            }
        }
    })
}
