//! # Windrow
//!
//! A stream processing engine that you `cargo add`. A job reads unbounded streams of events, computes over them by
//! *event time* in parallel, keyed partitions, and writes its results. On a bounded input the answer is the one a batch
//! computation gives, for every order of arrival within the declared bound and for every parallelism.
//!
//! ```text
//!  examples/   benches/   tests/          rooms of their own: they use everything and define nothing
//!       \         |         /
//!            engine/   (this crate)                        jobs, streams, plan, runtime, checkpoints, metrics
//!            /        \
//!  operators/          connectors/                         two towers that do not know each other
//!  pure computation    sources, sinks, formats
//! ```
//!
//! ## The life of a row
//!
//! ```text
//!  file, topic ─► SourceReader ─► event time ─► Chain ──┐            rejected ─► fail | count | stream
//!                 (split, rows,    per split     filter, │
//!                  next position)  watermarks    map, …  │ exchange by key group, channels bounded in bytes
//!                                                        ▼
//!                            SinkWriter ◄─ Gate ◄─ Chain: window ◄─ Gate (merges inputs and watermarks)
//!                                                         └─ late rows ─► drop | stream
//! ```
//!
//! One enum travels on every edge, in order: batches, watermarks, barriers, and the end. Operators are synchronous state machines
//! over batches and watermarks; they never await, read a clock, or touch a disk. Tokio lives in `runtime`, I/O in the
//! connectors.
//!
//! ## The life of a checkpoint
//!
//! ```text
//!                 ┌───────────────────────── coordinator ─────────────────────────┐
//!                 │ asks                                      hears from each task│
//!   barrier 7 ─► source ══► operators ══► Gate (waits for 7 on every input) ══► sink
//!                 │ positions   │ segments of state                             │ staged files
//!                 └─────────────┴──────────────────┬────────────────────────────┘
//!                     store: segments, MANIFEST, epoch/7 = commit ──► Sink::commit ──► done/7
//! ```
//!
//! A checkpoint is a cut through all streams, made by barriers that travel in band. What a restart goes on from, and what
//! of the output is visible, is decided by one file. [`Job::checkpoint`] switches it on; the module `checkpoint` has the
//! protocol, [`state`] shows what is in one.
//!
//! ## A first job
//!
//! ```
//! use windrow::prelude::*;
//!
//! #[derive(Record)]
//! struct Bid {
//!     auction: i64,
//!     price: i64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> windrow::Result<()> {
//! let job = Job::new("highest-bids");
//! let out = MemorySink::new();
//! job.source(Nexmark::new().events(10_000).bids())
//!     .event_time("at", Watermarks::out_of_order(secs(5)))
//!     .typed::<Bid>()
//!     .filter(|bid| bid.price > 100)                 // a closure over a zero-copy view of the row …
//!     .filter_expr(col("auction").not_eq(lit(0)))    // … or an expression, on the same stream
//!     .key_by("auction")
//!     .window(Tumbling::of(secs(10)))
//!     .aggregate([count(), max(col("price")).alias("top")])
//!     .drop_late()
//!     .sink(out.clone());
//! println!("{job}");
//! let report = job.parallelism(2).run().await?;
//! assert!(out.rows() > 0);
//! assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
//! # Ok(())
//! # }
//! ```
//!
//! ## Where to look
//!
//! * [`api`]: [`Job`], [`Stream`] and what can be said with them.
//! * [`operators`]: the contract of an operator and all operators. [`connectors`]: sources, sinks, formats.
//! * [`metrics`]: what a job counts. [`Error`]: what can go wrong. [`state`]: a look into the state of a stopped job.
//!
//! ## Choices that differ from what one might expect
//!
//! * Event time is in microseconds. A time column of another type stays as the user knows it; its event time goes beside
//!   it in a hidden column.
//! * The end of a stream says why: exhausted (all windows complete) or stopped (they are not).
//! * An operator answers for its rows ([`operators::Outbox::processed`]); the engine checks the sum after each batch.
//! * A sink commits by itself ([`connectors::Sink::commit`], no separate committer), because what was staged is described
//!   wholly by receipts; and a job without checkpoints takes the same way, with one commit at its end.
//! * Stopping a job cleanly is a checkpoint: what windows hold is kept, and the next start goes on.
//! * Operators never await. What calls a service or a table ([`Stream::map_async`], [`Stream::lookup`]) is a task of its
//!   own; at a barrier the rows in flight are its state, so a checkpoint waits for no call.
//! * An operator that has more to emit than is good at once says [`operators::Advance::Again`].

pub mod api;
mod checkpoint;
mod clock;
mod error;
mod event_time;
mod functions;
pub mod metrics;
mod plan;
pub mod prelude;
mod runtime;
pub mod state;

pub use api::{Job, JobHandle, Report, RunningJob, Stream};
/// For sinks of tests: a point where a process can be made to end.
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use checkpoint::crash_point;
pub use checkpoint::{CheckpointError, Restarts, Restore};
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use checkpoint::{Faults, MUTANTS};
pub use error::{Error, Result};
pub use event_time::{EventTime, WatermarkGenerator, Watermarks};
pub use functions::{col, col_of, count, hours, left, millis, mins, right, secs};
pub use runtime::async_task::{call::Retry, lookup::LookupKind};

pub use arrow;
pub use datafusion_expr::cast;
/// DataFusion's aggregate functions, beyond the few in the prelude.
pub use datafusion_functions_aggregate::expr_fn as aggregates;
pub use windrow_connectors as connectors;
pub use windrow_operators as operators;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
