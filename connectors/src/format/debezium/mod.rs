//! Debezium: the changes of a database table, as its connectors write them to topics, in JSON.
//!
//! ```text
//!   {"schema": …, "payload": {"before": {"id": 1, "name": "Al"}, "after": {"id": 1, "name": "Ada"}, "op": "u", …}}
//!    └ both, or the envelope alone      └ the row of a delete     └ the row of all others       └ c r u d
//!                                                 │
//!                                                 ▼
//!                        op      id  name
//!                        update  1   Ada        ──► .key_by("id").latest_unless(col("op").eq(lit("delete"))) is the table
//! ```
//!
//! | file | why it exists |
//! |---|---|
//! | `decode` | envelopes into rows |
//! | `times` | times whose unit the record tells |
//! | `encode` | rows and changes into envelopes |

mod decode;
mod encode;
mod times;

pub use decode::DebeziumDecoder;
pub use encode::{Debezium, DebeziumEncoder};

/// The column that says what a change does, in the words of a changelog: `insert`, `update` or `delete`. Text.
pub const CHANGE: &str = "op";

/// The column of the time at which the connector took the change, Debezium's `ts_ms`. A timestamp, or Int64 milliseconds.
pub const CAPTURED_AT: &str = "__ts_ms";

/// The column of the time at which the database made the change, Debezium's `source.ts_ms`. A timestamp, or Int64
/// milliseconds.
pub const CHANGED_AT: &str = "__source_ts_ms";
