//! Windows over event time, on slices.
//!
//! ```text
//!   rows ──► Slicing: which slice? ──► Slices<S>: BTreeMap slice → S ──watermark passes──► result of the slice
//!                 │                           │
//!                 └─ closed already ──► LATE  └─ S = GroupTable (aggregates) or TopRows (rows)
//! ```
//!
//! A tumbling window is one *slice* of event time. A row goes into its slice once; when the watermark passes the end of
//! the slice (and the allowed lateness), the slice is closed, gives its result, and is dropped. So a watermark costs
//! what it closes, not what is alive.
//!
//! With several tasks the work has two phases around the exchange, so that groups and not rows cross it:
//!
//! ```text
//!   rows ──► PreAggregate ──(key, state)──► exchange by key ──► WindowAggregate (merging) ──► results
//!   rows ──► Top (first phase) ──rows──► exchange by key ──► Top (second phase) ──► results
//! ```
//!
//! A save takes down how far event time had come and seals a segment of what has changed since the last one:
//!
//! ```text
//!   table of each open slice ──save──► Saved: which groups changed? ──► Segments: one new, older ones kept or absorbed
//!   first phase: nothing but the time, it was flushed
//! ```
//!
//! * [`spec`]: what a window is, and the arithmetic that is right at both ends of time.
//! * `slices`: assignment of rows to slices, lateness, closing in bounded steps.
//! * `table`: the groups of one slice: DataFusion's `GroupValues` and `GroupsAccumulator`s.
//! * `saved`: what changed since the last save. `form`: the disk format.
//! * [`aggregate`], `preaggregate`: the aggregation in one phase or two. [`top`]: the greatest rows of a window.

pub mod aggregate;
pub(crate) mod arguments;
pub(crate) mod form;
mod preaggregate;
mod saved;
mod slices;
pub mod spec;
pub(crate) mod table;
pub mod top;

pub use aggregate::{AggregatePlan, WindowAggregate};
pub use preaggregate::PreAggregate;
pub use slices::is_open;
pub use spec::{Slice, Slicing, Tumbling};
pub use top::{Top, TopPlan};

/// The column of a window's result that says where the window begins (inclusive).
pub const WINDOW_START: &str = "window_start";
/// The column of a window's result that says where the window ends (exclusive).
pub const WINDOW_END: &str = "window_end";
