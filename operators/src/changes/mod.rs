//! Tables that change: streams of inserts, updates and deletes by a key.
//!
//! ```text
//!   rows ──► UpdatingPlan: aggregates per key, without a window ─┐                      ┌─► a sink that takes changes
//!   rows ──► UpsertPlan: the newest row of each key ─────────────┼─► changes by key ────┼─► ChangeJoinPlan ─► changes
//!            ChangeFilter, ChangeProject: stay changes ◄─────────┘                      └─► Changelog ─► rows
//! ```
//!
//! A stream of changes ([`StreamSchema::changes`](crate::StreamSchema::changes)) is a table by key, told as it comes to be. A
//! change has the columns of the table, what it does ([`INSERT`], [`UPDATE`] or [`DELETE`] in the hidden column
//! [`HIDDEN_OP`](crate::schema::HIDDEN_OP)), and as its event time that of the row that caused it, or the time at which something
//! went away. If that is before the time that was promised downstream the promised time stands in its place.
//!
//! * An update replaces the whole row of its key. A delete has the row as it was.
//! * The changes of one key are in order: insert, any number of updates, delete, insert, … . Those of different keys are in any
//!   order. They stay in order over an exchange by the key, or by a part of it.
//! * An operator says what has changed once per batch of its input. So how many changes there are depends on how the rows
//!   came; the last change of a key does not.
//! * Behind a [`ChangeFilter`] insert and update both mean *this is the row now*, and a delete may name a key that was never
//!   there. Sinks and the operators here take all changes so.
//!
//! What is kept is in `store`: the newest row per key in immutable pieces. `lifetime`: event time and
//! how long a key stays without a row.

mod join;
mod lifetime;
mod stateless;
mod store;
mod updating;
mod upsert;

pub use join::ChangeJoinPlan;
pub use stateless::{ChangeFilter, ChangeProject, Changelog, OP_COLUMN};
pub use updating::UpdatingPlan;
pub use upsert::UpsertPlan;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt8Array},
    compute::take,
};

use crate::{Result, StreamSchema, Timestamp, outbox::EMIT_ROWS};

/// A change that adds the row of a key.
pub const INSERT: u8 = 0;
/// A change that replaces the row of a key.
pub const UPDATE: u8 = 1;
/// A change that takes the row of a key away.
pub const DELETE: u8 = 2;

/// A batch of changes: the columns a user sees, what each does, and when, if the stream has event time.
fn changes(
    stream: &StreamSchema,
    mut visible: Vec<ArrayRef>,
    ops: Vec<u8>,
    times: impl FnOnce() -> Vec<i64>,
) -> Result<RecordBatch> {
    visible.push(Arc::new(UInt8Array::from(ops)));
    if stream.time().is_some() {
        visible.push(Timestamp::column(times()));
    }
    Ok(RecordBatch::try_new(stream.columns().clone(), visible)?)
}

/// The rows `rows` of columns.
fn take_all(columns: &[ArrayRef], rows: &[u32]) -> Result<Vec<ArrayRef>> {
    let rows = arrow::array::UInt32Array::from(rows.to_vec());
    Ok(columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?)
}
