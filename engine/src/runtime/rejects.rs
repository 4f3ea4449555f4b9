//! Records that do not decode or have no event time: what becomes of them, and what they look like as rows.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BinaryBuilder, Int32Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
        TimestampMillisecondArray, UInt64Array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use windrow_connectors::{Rejected, SplitId};

/// How many bytes of a rejected record an error shows.
const EXCERPT_BYTES: usize = 200;

/// What becomes of rejected records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RejectTo {
    Fail,
    Count,
    Edges(Vec<usize>),
}

/// The columns of a stream of rejected records.
pub(crate) fn rejects_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("position", DataType::UInt64, true),
        Field::new("line", DataType::UInt64, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("bytes", DataType::Binary, true),
        Field::new("key", DataType::Binary, true),
        Field::new("truncated", DataType::UInt64, true),
        Field::new("headers", Rejected::headers_type(), true),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())), true),
        Field::new("partition", DataType::Int32, true),
    ]))
}

/// The beginning of a record, for an error.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES)]).into_owned();
    if bytes.len() > EXCERPT_BYTES { format!("{text}…") } else { text }
}

/// Rejected records as rows. `operator` is the name of the source in the printed job: its number there means nothing to who reads these
/// rows later.
pub(super) fn rejects(
    operator: &str,
    split: &SplitId,
    rejected: &[Rejected],
) -> windrow_operators::Result<RecordBatch> {
    let (rows, source) = (rejected.len(), operator.split_once(" source ").map_or(operator, |(_, source)| source));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(source, rows))),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(split.as_str(), rows))),
        Arc::new(rejected.iter().map(|r| r.position.map(|position| position.0)).collect::<UInt64Array>()),
        Arc::new(rejected.iter().map(|r| r.line).collect::<UInt64Array>()),
        Arc::new(StringArray::from_iter_values(rejected.iter().map(|r| &r.reason))),
        Arc::new(rejected.iter().map(|r| r.bytes.as_deref()).collect::<BinaryArray>()),
        Arc::new(rejected.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
        Arc::new(rejected.iter().map(|r| r.truncated).collect::<UInt64Array>()),
        headers(rejected)?,
        Arc::new(rejected.iter().map(|r| r.timestamp).collect::<TimestampMillisecondArray>().with_timezone("+00:00")),
        Arc::new(rejected.iter().map(|r| r.partition).collect::<Int32Array>()),
    ];
    Ok(RecordBatch::try_new(rejects_schema(), columns)?)
}

/// Their headers; null for none, which most have.
fn headers(rejected: &[Rejected]) -> windrow_operators::Result<ArrayRef> {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
    for record in rejected {
        for (name, value) in &record.headers {
            maps.keys().append_value(name);
            maps.values().append_option(value.as_deref());
        }
        maps.append(!record.headers.is_empty())?;
    }
    Ok(Arc::new(maps.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn rows_name_their_source_without_its_number_in_the_job() {
        let rejected = [Rejected::of("x")];
        for (operator, source) in [("#3 source kafka k:1, topic a", "kafka k:1, topic a"), ("tests", "tests")] {
            let rows = rejects(operator, &SplitId::new("a/0"), &rejected).unwrap();
            assert_eq!(rows.column(0).as_string::<i32>().value(0), source);
        }
    }
}
