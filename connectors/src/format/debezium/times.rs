//! Times whose unit the record's own schema tells.
//!
//! ```text
//!   "schema": {"fields": [{"field": "after", "fields": [{"field": "at", "name": "io.debezium.time.Timestamp"}]}]}   milliseconds
//!   "payload": {"after": {"at": 1700000000123}}                        column at: Timestamp(µs) ──► 1700000000123000
//! ```

use std::borrow::Cow;

use arrow::datatypes::TimeUnit;
use serde::Deserialize;

use crate::format::columns::{Columns, Values};

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    schema: Option<Described<'a>>,
}

/// A part of a schema of Kafka Connect, as far as it is looked at.
#[derive(Deserialize)]
struct Described<'a> {
    #[serde(borrow, default)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    fields: Option<Vec<Described<'a>>>,
}

impl<'a> Described<'a> {
    fn field(&self, name: &str) -> Option<&Described<'a>> {
        self.fields.iter().flatten().find(|field| field.field.as_deref() == Some(name))
    }

    /// How many nanoseconds it counts.
    fn nanos(&self) -> Option<i128> {
        Some(match self.name.as_deref()? {
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => 1_000_000,
            "io.debezium.time.MicroTimestamp" => 1_000,
            "io.debezium.time.NanoTimestamp" => 1,
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => 86_400_000_000_000,
            _ => return None,
        })
    }
}

/// Brings the times of the newest row, which stands in `row` of the envelope, to the units of their columns. The error says which
/// cannot be.
pub(super) fn convert(text: &str, row: &str, table: &mut Columns) -> Result<(), String> {
    // A schema that is none says nothing; the rest of the record has been read.
    let Ok(Record { schema: Some(schema) }) = serde_json::from_str(text) else { return Ok(()) };
    let Some(described) = schema.field(row) else { return Ok(()) };
    for column in &mut table.columns {
        let name = column.field.name();
        let Values::Timestamp { values, unit, .. } = &mut column.values else { continue };
        let Some(from) = described.field(name).and_then(Described::nanos) else { continue };
        let to = match unit {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        };
        let Some(value) = values.last_mut() else { continue };
        let nanos = i128::from(*value) * from;
        match i64::try_from(nanos / to) {
            Ok(converted) if nanos % to == 0 => *value = converted,
            _ => {
                let unit = described.field(name).and_then(|field| field.name.as_deref()).unwrap_or_default();
                return Err(format!("column {name:?}: {value} of {unit} does not fit {}", column.field.data_type()));
            }
        }
    }
    Ok(())
}
