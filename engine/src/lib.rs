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
//!  pure computation    sources, sinks, formats             (topics of Kafka with the feature `kafka`)
//! ```
//!
//! ## The life of a row
//!
//! ```text
//!  file, topic ─► SourceReader ─► event time ─► Chain ──┐            rejected ─► fail | count | stream
//!                 (split, rows,    per split     filter, │
//!                  next position)  watermarks    map, …  │ exchange: by key group, to every task (rules), or all to one;
//!                                                        ▼ channels bounded in bytes
//!  the right side of a join ═════ exchange by key ═════► Gate (merges the inputs of a port, and all watermarks)
//!                                                        ▼ ports: MAIN, RIGHT
//!                                Chain: sort ─► operator with state: window, process, join, pattern, table, …
//!                                        └──────────┴─ late rows ─► drop | stream
//!                                                   └─ results, side outputs ─┐
//!                  failed rows ◄─ AsyncTask: calls in flight ◄── Gate ◄───────┤
//!                                     └──────── results ──────► Gate ─► SinkWriter: rows, or changes by key
//! ```
//!
//! One enum travels on every edge, in order: batches, watermarks, barriers, and the end. Operators are synchronous state
//! machines over batches and watermarks; they never await, read a clock, or touch a disk. Tokio lives in `runtime`, I/O in
//! the connectors.
//!
//! * An operator with state is described by a [`Plan`](operators::Plan): how the rows of each input choose their task, which
//!   streams leave it by which [`Port`](operators::Port), the form of its state, whether its work can be split around the
//!   exchange, so that groups and not rows cross it, and in which columns its results still have their key: what follows by
//!   these, also behind filters and projections, is in the same task without an exchange. The engine knows no more of a window,
//!   a join or a pattern than that.
//! * What depends on the order of rows has a [`sort`](operators::sort) by the same key in front.
//! * What calls something outside ([`Stream::map_async`], [`Stream::lookup`]) is a task of its own, with its rows in flight; at
//!   a barrier they are its state, and nobody waits for a call.
//! * Processing time comes from the task: [`Outbox::now`](operators::Outbox::now). An operator asks for it with
//!   [`wake_at`](operators::Outbox::wake_at), and gets a [`tick`](operators::Operator::tick).
//! * A stream has rows, or [changes](operators::changes) of a table by its key: inserts, updates and deletes, for a join of
//!   tables and for a sink that takes them.
//!
//! ## Time
//!
//! A watermark `w` on an edge promises: no row earlier than `w` will come. Sources make them per split (a file, a partition);
//! a task takes the least of its inputs, so the slowest split counts, and an operator promises downstream what it can keep.
//!
//! | the watermark of a split is | |
//! |---|---|
//! | its latest row, less a bound | [`Watermarks::out_of_order`], [`in_order`](Watermarks::in_order) |
//! | what a rule of yours says | [`Watermarks::custom`] |
//! | the clock | [`Stream::processing_time`]: no row is late, and the answer depends on when the job runs |
//!
//! | against | say |
//! |---|---|
//! | one row that is stamped a year ahead | [`max_future`](Watermarks::max_future) |
//! | a split that falls silent and holds all windows | [`idle_after`](Watermarks::idle_after) |
//! | a source that runs far ahead of another, and fills joins | [`align_within`](Watermarks::align_within) |
//!
//! Splits may appear while a job runs ([`discover_every`](connectors::Source::discover_every)): who looks for them gives them in turn to
//! the tasks that there are. A new split holds the watermark where it is until it speaks or is idle, and no watermark goes back.
//!
//! A stream without event time, such as rules read from a file, or late rows, is idle: it holds nobody back. At the end of its
//! input a source promises the end of time; a job that is stopped does not, so that what is open stays open.
//!
//! ## Order
//!
//! Rows arrive in any order within the bound. Windows, joins, and tables that keep all their keys give the same answer
//! for all of them. What depends on the order sees rows **in order of event time**, rows of one time in the order of their
//! columns:
//!
//! | in order of event time | as rows arrive |
//! |---|---|
//! | [`process`](api::KeyedStream::process), [`reduce`](api::KeyedStream::reduce), [`fold`](api::KeyedStream::fold) | the same [`on_arrival`](OnArrival) |
//! | [`pattern`](api::KeyedStream::pattern), [`deduplicate`](api::KeyedStream::deduplicate), [`Count`](prelude::Count) windows | functions [`with_rules`](api::KeyedStream::with_rules) |
//! | what [`in_order`](api::KeyedStream::in_order) gives | `array_agg`, `first_value` and their like in other windows; how many changes a table tells on its way |
//!
//! The price of order is that a row waits until the watermark has passed it, and that a row behind the watermark is late.
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
//! of the output is visible, is decided by one file; or, with a sink that writes in transactions, by the commit of one, which
//! comes between the manifest and that file. [`Job::checkpoint`] switches it on; the module `checkpoint` has the
//! protocol, [`state`] shows what is in one.
//!
//! A job begins with a checkpoint, before its first row, and again where it has a source or a split that the last one does not: a
//! source that begins "now" begins at the same record in every later life. A split that the checkpoint does not have, of a source that
//! looks for new ones and that it has, has appeared since, and is read from its first record.
//!
//! ## Who watches
//!
//! ```text
//!   tasks ── counters, channels, splits ──► JobHandle::status ──┐
//!   coordinator ◄── savepoint, stop, cancel ── JobHandle ◄──────┤ thread of `serve` ◄── who may? ◄── browser, CLI, Prometheus
//!   checkpoint store ── one epoch, as tables ── SQL ────────────┘
//! ```
//!
//! Nobody who watches takes time from a task: what is counted is counted anyway, and [`Job::serve`](api::Job) answers on a thread of its own.
//!
//! ## Memory
//!
//! Channels are bounded in bytes; state is by [`Job::memory_budget`]. An operator is told what it may use
//! ([`Operator::limit`](operators::Operator::limit)) and gets a [`Room`](operators::spill::Room) for the rest, which is a directory of the
//! job. Windows of aggregates put partial states there, and merge them part by part when a window fires; what cannot be put there
//! is counted, and is an error when it is more than the budget: the chapter `docs/src/memory.md` of the book.
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
//! * The book, in the folder `docs` of the repository: a first job, concepts, every operator and connector, how to run a job and to
//!   change it, and what things are called elsewhere.
//! * [`api`]: [`Job`], [`Stream`] and what can be said with them. In the book: `docs/src/windows.md`, `joins.md`,
//!   `late-and-rejected.md`.
//! * Topics of Kafka, with the feature `kafka`: `connectors::kafka` (`source`, `sink`, `transaction`), formats and the schema
//!   registry beside it; how to use them, their limits and their errors: `docs/src/kafka.md`. How a transaction decides a
//!   checkpoint: `docs/src/exactly-once.md`.
//! * [`operators`]: the contract of an operator and all operators. [`connectors`]: sources, sinks, formats.
//! * [`metrics`]: what a job counts. [`status`]: what it does, for who watches, and as Prometheus
//!   reads it ([`status::prometheus`]). What happens to it is said by `tracing` (`trace.rs`); the feature `otel` takes that to a collector. `serve` (with the feature
//!   of this name): all of it over HTTP, and who may ask: `docs/src/http.md`. [`Error`]: what can go wrong. [`state`]: a look into the state of a stopped job.
//! * [`config`]: what a file and the environment say of a job. The module `terminal` (feature `terminal`) shows one in a terminal, and the
//!   program `windrow` (feature `cli`, `docs/src/command.md`) looks after jobs from outside.
//!
//! ## Choices that differ from what one might expect
//!
//! * Event time is in microseconds. A time column of another type stays as the user knows it; its event time goes beside
//!   it in a hidden column.
//! * The end of a stream says why: exhausted (all windows complete) or stopped (they are not).
//! * An operator answers for its rows ([`operators::Outbox::processed`]); the engine checks the sum after each batch.
//! * A sink commits by itself ([`connectors::Sink::commit`], no separate committer), because what was staged is described
//!   wholly by receipts; and a job without checkpoints takes the same way, with one commit at its end.
//! * Stopping a job cleanly is a checkpoint: what operators hold is kept, and the next start goes on.
//! * Allowed lateness keeps a window open longer, and it still gives one result: a first one and corrections only with
//!   `.corrections()`. There are no retractions: a result of a session replaces those of its key that lie within its bounds.
//! * A row that is late is in no result at all, also where windows overlap and some that it belongs to are open. So every result
//!   is what a batch computation over the rows that are not late gives.
//! * The state of a key is one value of a Rust type ([`operators::keyed::State`]), saved as a whole; what is large is a map or a list
//!   of its own ([`operators::keyed::MapState`], [`operators::keyed::ListState`]), saved entry by entry.
//! * An operator that has more to emit than is good at once says [`operators::Advance::Again`] at a watermark and
//!   [`Outbox::again`](operators::Outbox::again) for a batch, and is called again.

pub mod api;
mod checkpoint;
mod clock;
pub mod config;
mod error;
mod event_time;
mod functions;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
mod plan;
pub mod prelude;
mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod state;
pub mod status;
#[cfg(feature = "terminal")]
pub mod terminal;
#[cfg(any(feature = "serve", feature = "terminal"))]
mod thread;
mod trace;

pub use api::{
    AsyncResult, Derived, Forever, FromSource, Job, JobHandle, Joined, Joining, Key, KeyedStream, LookupOn, OnArrival,
    Report, Results, Ruled, RunningJob, Stream, Ttl, WindowKind, Windowed,
};
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
pub use functions::{col, col_of, count, filtered, hours, left, millis, mins, right, secs};
pub use runtime::async_task::{call::Retry, lookup::LookupKind};

pub use arrow;
/// Conversions of types in expressions: `cast` fails the job on a value that cannot be, `try_cast` gives null for it.
///
/// ```
/// use windrow::{arrow::datatypes::DataType, prelude::*, try_cast};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// #[derive(Record)]
/// struct Line { text: String }
///
/// let lines = ["7", "x", "9"].map(|text| Line { text: text.into() });
/// let job = Job::new("numbers");
/// let out = MemorySink::new();
/// job.source(MemorySource::records(lines.into()))
///     .filter_expr(try_cast(col("text"), DataType::Int64).gt(lit(7)))
///     .sink(out.clone());
/// job.run().await?;
/// assert_eq!(out.rows(), 1);
/// # Ok(())
/// # }
/// ```
pub use datafusion_expr::{cast, try_cast};
/// DataFusion's aggregate functions, beyond the few in the prelude.
pub use datafusion_functions_aggregate::expr_fn as aggregates;
pub use windrow_connectors as connectors;
pub use windrow_operators as operators;

// Its snippets read topics.
#[cfg(all(doctest, feature = "kafka"))]
#[doc = include_str!("../../README.md")]
struct Readme;
