//! Protobuf by prost: a struct for each message.

use std::hint::black_box;

use prost::Message;
use windrow::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{Int64Type, TimestampMicrosecondType},
    },
    connectors::format::Payloads,
};

use crate::sound;

/// What the messages are, in Protobuf's own language.
pub(crate) const BID: &str = r#"syntax = "proto3";
message Bid {
    int64 auction = 1; int64 bidder = 2; int64 price = 3; string channel = 4; string url = 5; int64 at = 6; string extra = 7;
}"#;

/// The same in Rust.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bid {
    #[prost(int64, tag = "1")]
    pub(crate) auction: i64,
    #[prost(int64, tag = "2")]
    pub(crate) bidder: i64,
    #[prost(int64, tag = "3")]
    pub(crate) price: i64,
    #[prost(string, tag = "4")]
    pub(crate) channel: String,
    #[prost(string, tag = "5")]
    pub(crate) url: String,
    #[prost(int64, tag = "6")]
    pub(crate) at: i64,
    #[prost(string, tag = "7")]
    pub(crate) extra: String,
}

/// The rows of batches.
pub(crate) fn messages(batches: &[RecordBatch]) -> Vec<Bid> {
    let message = |batch: &RecordBatch, row: usize| {
        let number = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        let text = |column: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        Bid {
            auction: number(0),
            bidder: number(1),
            price: number(2),
            channel: text(3),
            url: text(4),
            at: batch.column(5).as_primitive::<TimestampMicrosecondType>().value(row),
            extra: text(6),
        }
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| message(batch, row))).collect()
}

/// How many messages there are.
pub(crate) fn decode(messages: &Payloads) -> usize {
    let mut rows = 0;
    for record in (0..messages.len()).filter_map(|row| messages.get(row)) {
        black_box(sound(Bid::decode(record)));
        rows += 1;
    }
    rows
}

/// How many messages there are, in one buffer that keeps its memory.
pub(crate) fn encode(messages: &[Bid]) -> usize {
    let mut bytes = Vec::new();
    for batch in messages.chunks(benches::BATCH_ROWS) {
        bytes.clear();
        batch.iter().for_each(|bid| sound(bid.encode(&mut bytes)));
        black_box(&bytes);
    }
    messages.len()
}
