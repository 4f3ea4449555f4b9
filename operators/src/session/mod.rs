//! Session windows: stretches of rows of one key without a gap of silence between them.
//!
//! ```text
//!   one key     r r  r              r    r r                    r = a row, and the gap that it keeps its session open
//!               ├─┴──┴────┤         ├────┴─┴────┤
//!               session   closed    session
//!
//!   rows ──► Sessions: which session? ──► Fragments: a group of the current table ──watermark passes──► result
//!                 │                          frozen at a result or a save; merged when small or dead
//!                 └─ before it, and in no open session ──► LATE
//! ```
//!
//! Which windows there are depends on the rows: one that comes between two sessions makes one of them. So aggregates cannot
//! be kept per window. A session is a union of *fragments*; two sessions become one by putting together the lists of
//! their fragments, and the states of the fragments are merged once, when the watermark has passed the session.
//!
//! A session may give results before it is complete, and corrections afterwards. Its bounds only grow, so a result replaces
//! those of its key that lie within its own: no row is taken back by another. For when they come see `window`.
//!
//! * [`spec`]: the gap, and lateness. [`plan`]: what is computed, and the disk format.
//! * `open`: the sessions that rows may join, each with its key, which is held for as long as it is open.
//! * `fragments`: the tables of aggregates. `given`: which results there have been, if there may be several.
//! * `saved`: checkpoints. [`aggregate`]: the operator.

pub mod aggregate;
mod fragments;
mod given;
mod open;
pub mod plan;
mod saved;
pub mod spec;

pub use aggregate::SessionAggregate;
pub use plan::SessionPlan;
pub use spec::Session;
