//! What a user writes: jobs and streams.
//!
//! ```text
//!   Job::new ──.source()──► Stream<T, FromSource> ──.event_time().with_rejects()──► Stream<T>
//!                                                                  │ filter, map, select, union, clone …
//!            Stream<Untyped> ◄── .drop_late() ── Windowed ◄── .window() ◄── .key_by()
//!                   │
//!                   └── .sink()                     Job::run ◄── the job, once everything is said
//! ```
//!
//! Every call checks what it can at once: names, types, keys. A mistake does not panic and does not interrupt the chain
//! of calls; it is kept, and [`Job::run`] lists all of them before the first row is read.

mod attempt;
mod calls;
mod job;
mod joined;
mod key;
mod keyed;
mod results;
mod running;
mod stream;
mod windowed;

pub use calls::{AsyncResult, LookupOn};
pub use job::Job;
pub use joined::{Joined, Joining};
pub use key::Key;
pub use keyed::{KeyedStream, Ruled};
pub use results::Results;
pub use running::{JobHandle, Report, RunningJob};
pub use stream::{FromSource, Stream};
pub use windowed::{WindowKind, Windowed};
