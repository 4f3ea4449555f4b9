//! What a user writes: jobs and streams.
//!
//! ```text
//!   Job::new ──.source()──► Stream<T, FromSource> ──.event_time().with_rejects()──► Stream<T>
//!                                                                                      │
//!     filter, map, flat_map, select, union, typed; map_async, lookup ──► Stream ◄──────┤
//!                                                                                 .key_by()
//!                                                                                      ▼
//!     .window(…).aggregate(…), .top(…) ◄───────────────────────────────────────── KeyedStream
//!     .process(…), .reduce, .fold, .pattern, .deduplicate, .in_order  ◄────────────────┤
//!     .on_arrival().process(…), .reduce, .fold ──► Stream  ◄───────────────────────────┤
//!     .join(other).window(…), .between(…), .as_of(), .tables()  ◄──────────────────────┤
//!     .with_rules(rules).process(…); .aggregate([…]), .latest(): tables ◄──────────────┘
//!            │
//!            └─► Results ──.drop_late(), .with_late()──► Stream ──.sink(), .discard()
//!
//!   Job::run ◄── the job, once everything is said
//! ```
//!
//! Every call checks what it can at once: names, types, keys. A mistake does not panic and does not interrupt the chain
//! of calls; it is kept, and [`Job::run`] lists all of them before the first row is read. So where it says here that *the job
//! does not run*, `run` and `start` return [`Error::Plan`](crate::Error::Plan) with what is wrong, where, and what to do.

mod arrivals;
mod attempt;
mod calls;
mod interrupts;
mod job;
mod joined;
mod key;
mod keyed;
mod results;
mod ruled;
mod running;
mod sourced;
mod stream;
mod tables;
mod windowed;

pub use arrivals::OnArrival;
pub use calls::{AsyncResult, LookupOn};
pub use job::Job;
pub use joined::{Joined, Joining};
pub use key::Key;
pub use keyed::{Forever, KeyedStream, Ttl};
pub use results::Results;
pub use ruled::Ruled;
pub use running::{JobHandle, Report, RunningJob};
pub use stream::{Derived, FromSource, Stream};
pub use windowed::{WindowKind, Windowed};
