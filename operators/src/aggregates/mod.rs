//! Aggregates per key, for all that aggregate: windows, sessions, windows of so many rows, and tables that change.
//!
//! ```text
//!   stream, key, expressions ──► Planned ─┬─ output: the columns of the result
//!                                         ├─ states: the columns of the state ─┐ a disk format
//!                                         ├─ meaning: `tumbling 10s; sum(price)` ─┘
//!                                         └─ Aggregates ─┐ makes
//!                                                        ▼
//!   rows ──ArgumentReader──► Arguments ──update──► Accumulators ──► states, or final values
//!                            states of others ──merge──┘
//! ```
//!
//! Which groups there are, what makes a window complete and how groups are kept is the matter of each operator.
//!
//! * `plan`: expressions to `Aggregates`, and the columns they have. `types`: what is said of a type that does not fit.
//! * `arguments`: what they are fed with. `accumulators`: what they are at work.

mod accumulators;
mod arguments;
mod plan;
mod types;

pub(crate) use accumulators::Accumulators;
pub(crate) use arguments::{ArgumentReader, Arguments};
pub(crate) use plan::{Aggregates, Planned};
