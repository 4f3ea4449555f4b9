//! Windows over event time, on slices.
//!
//! ```text
//!   rows ──► Slicing: which slice? ──► Slices<S>: BTreeMap slice → S ──watermark passes──► result of the slice (tumbling,
//!                 │                           │                                            calendar) or of a window, which
//!                 └─ closed already ──► LATE  └─ S = Groups (aggregates) or Buffer (rows)  merges several (hopping, …)
//! ```
//!
//! Windows are made of *slices* of event time, which go from one instant at which a window begins or ends to the next. A row
//! goes into its slice once, in however many windows that is:
//!
//! ```text
//!   hopping 4 every 2        ├─────────┤              a window fires when the watermark passes its end (and the allowed
//!                                 ├─────────┤         lateness): it merges the states of its slices
//!   slices               ────┼────┼────┼────┼────
//!                         ▲             ▲    ▲        a slice is dropped when the last window that it is in has fired
//!                      dropped       closed  open     a row is late when its slice is closed
//! ```
//!
//! A tumbling window and one of the calendar is one slice, which gives its own result and is dropped. So a watermark costs what
//! it closes, not what is alive.
//!
//! A window of aggregates may also give results before it is complete, and corrections afterwards (`revise`). Each has a
//! `revision`, and the greatest of a window and key is the answer. How many there are depends on how rows arrive and on the
//! clock; what the last one says does not.
//!
//! ```text
//!   rows of a window ───────────────────────────┤ end                        ├ end + lateness
//!                      ▲ early_rows, early_every │ ▲ next watermark           │
//!   revision           0        1                2      3 (a correction)      └ dropped: what comes now is late
//!   promised           ◄─────────────── the watermark less the lateness: no correction is late downstream
//! ```
//!
//! This is made in one phase. A window that is one slice — tumbling, of the calendar, or [`Global`], which is all time — keeps
//! with each group what it has given; windows that share slices keep it besides them (`overlapping`).
//!
//! Otherwise, with several tasks, the work has two phases around the exchange, so that groups and not rows cross it. The
//! first knows of slices only; the second makes windows of them:
//!
//! ```text
//!   rows ──► PreAggregate ──(key, state)──► exchange by key ──► WindowAggregate (merging) ──► results
//!   rows ──► Top (first phase) ──rows──► exchange by key ──► Top (second phase) ──► results
//! ```
//!
//! A save takes down how far event time had come and seals a segment of what has changed since the last one:
//!
//! ```text
//!   groups of each slice ──save──► Saved: which groups changed? ──► Segments: one new, older ones kept or absorbed
//!   first phase: nothing but the time, it was flushed
//! ```
//!
//! * [`spec`]: what windows a user asks for. `slicing`: the arithmetic of their slices, right at both ends of time;
//!   `calendar`: the same for the days of a time zone.
//! * `slices`: what is held of each slice, lateness, firing in bounded steps. `split`: a batch by slices. `progress`: how far
//!   event time has come, also over restores.
//! * `table`: the groups of one slice: DataFusion's `GroupValues` and `GroupsAccumulator`s. `direct`: a `GroupValues` of our
//!   own, for whole numbers that are close to each other. `groups`: closed slices, and
//!   windows of several.
//! * `repeats`: which windows may give more than one result. `occasions`: when. `revise`: for windows of one slice;
//!   `overlapping`: for those that share slices. `given`: what each group has given, and whether it has changed since.
//! * `spilled`: the groups of a slice that are not in memory. `spilling`: when they go there, and how windows fire with them.
//! * `saved`: what changed since the last save. `form`: the disk format.
//! * [`aggregate`], `preaggregate`: the aggregation in one phase or two. [`top`]: the greatest rows of a window.

pub mod aggregate;
mod calendar;
mod direct;
pub(crate) mod form;
mod given;
mod groups;
pub(crate) mod occasions;
mod overlapping;
mod preaggregate;
mod progress;
pub(crate) mod repeats;
pub(crate) mod revise;
mod saved;
mod sealing;
mod slices;
mod slicing;
pub mod spec;
mod spilled;
mod spiller;
mod spilling;
mod split;
pub(crate) mod table;
pub mod top;

pub use aggregate::{AggregatePlan, WindowAggregate};
pub use preaggregate::PreAggregate;
pub use progress::is_open;
pub(crate) use progress::{Owed, Progress};
pub use repeats::Global;
pub use slicing::{Slice, Slicing};
pub use spec::{Calendar, Cumulating, Hopping, Tumbling, Window};
pub use top::{Top, TopPlan};

/// The column of a window's result that says where the window begins (inclusive).
pub const WINDOW_START: &str = "window_start";
/// The column of a window's result that says where the window ends (exclusive).
pub const WINDOW_END: &str = "window_end";
/// The column that counts the results of a window and key from 0, when there may be more than one.
pub const REVISION: &str = "revision";
