//! What an operator is, and every operator.
//!
//! ```text
//!                     ┌───────────────────── Operator ─────────────────────┐
//!   batch ──process──►│  a state machine: no clock, no thread, no I/O      │──► Outbox: rows on MAIN and side outputs,
//!   time  ──advance──►│  (what it holds is its fields between two calls)   │            late rows on LATE, LATE_RIGHT
//!   clock ────tick───►│                                                    │──► the promise made downstream
//!                     └────────────────────────────────────────────────────┘
//!                         ▲ made for every task by a Plan: inputs, outputs, form of the state, one phase or two
//! ```
//!
//! An operator is synchronous and has one caller at a time. So "its state" is simply its fields between two calls, it
//! is tested without a runtime, and back-pressure happens where the caller empties the [`Outbox`].
//!
//! * [`operator`], [`outbox`], [`watermark`], [`time`], [`schema`], [`key`]: the vocabulary. [`plan`]: what the engine has to know of
//!   an operator with state. [`state`]: segments, which checkpoints are made of. [`spill`]: where what is too much for memory
//!   goes. [`bytes`]: how much rows take.
//! * [`stateless`]: filter and project by DataFusion expressions.
//! * [`typed`]: filter, map and flat-map by Rust closures over zero-copy views of the same batches.
//! * [`keyed`]: Rust code with state and timers per key, with rules that every task gets; the first row of a key in a while.
//! * `aggregates`: aggregates per key, for all that aggregate.
//! * [`session`]: keyed session windows, as unions of fragments.
//! * [`window`]: tumbling, hopping, cumulating and calendar windows on slices, their pre-aggregation, early results and
//!   corrections, one window over all time, and the top rows of a window.
//! * [`sort`]: rows in order of event time, for what depends on it: [`pattern`] (complex events) and [`count`] (windows of
//!   so many rows).
//! * [`join`]: rows of two streams that belong together: in a window, in an interval, or as of a time.
//! * [`changes`]: tables that change: streams of inserts, updates and deletes by a key, and their joins.
//! * `testing` (feature `testing`): the harness that holds an operator against a naive batch computation.
//!
//! Laws that every operator keeps, and that the harness checks:
//! 1. On a bounded input its output is what a batch computation gives, for every arrival order within the bound.
//! 2. Rows in = rows processed + rows late. [`Outbox::processed`] is how an operator answers for its rows.
//! 3. After it has promised `t` it emits no row whose event time is before `t`, but for late ones ([`Port::is_timed`]).

mod aggregates;
pub mod bytes;
pub mod changes;
pub mod count;
pub mod error;
pub mod expr;
pub mod join;
pub mod key;
pub mod keyed;
mod late;
pub mod operator;
pub mod outbox;
pub mod pattern;
pub mod plan;
pub mod schema;
pub mod session;
pub mod sort;
pub mod spill;
pub mod state;
pub mod stateless;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod typed;
pub mod watermark;
pub mod window;

pub use error::{OperatorError, Result};
pub use key::KeyGroup;
pub use operator::{Advance, Operator, Port};
pub use outbox::Outbox;
pub use plan::{KeyedOutput, Partitioning, Plan};
pub use schema::StreamSchema;
pub use time::Timestamp;
pub use watermark::{Watermark, WatermarkMerge};
