//! The answers of the examples, with other sinks, against plain loops.

use windrow::arrow::array::{AsArray, RecordBatch};

mod cqrs;
mod event_sourcing;
mod fan_out;
mod fraud;
mod idempotent_consumer;
mod retry_dead_letter;
mod schema_versions;
mod sessions_and_funnels;

/// The tasks per operator that each example is run with.
const PARALLELISM: std::ops::RangeInclusive<usize> = 1..=3;

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}

/// The numbers in a column.
fn numbers(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let of = |batch: &RecordBatch| {
        let column = batch.column_by_name(column).unwrap();
        column.as_primitive::<windrow::arrow::datatypes::Int64Type>().values().to_vec()
    };
    let mut numbers: Vec<i64> = batches.iter().flat_map(of).collect();
    numbers.sort_unstable();
    numbers
}
