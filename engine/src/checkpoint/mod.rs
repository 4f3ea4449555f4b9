//! Checkpoints: how a job gets back, after a crash at any moment, to one state of which everything is there, and how its
//! output has every row once all the same.
//!
//! ```text
//!   coordinator ──► archive ──► store ──► {root}/{job}/ckpt/… epoch/… done/…
//!        ▲             ▲          │
//!        │ reports     │ segments │ after a crash
//!      tasks ◄──────── restore ◄──┴── begin
//!
//!   start                       a checkpoint                                    after a crash
//!   ─────                       ────────────                                    ─────────────
//!   LOCK, gen/4                 ckpt/8-4/s/…  segments of state                 LOCK, gen/5
//!   read epoch/*, ckpt/*        ckpt/8-4/MANIFEST ◄─ prepared                   a prepared manifest without a decision
//!   epoch/7 = fence             epoch/8 = commit  ◄─ decided: it counts           is decided: epoch/8 = commit
//!   next checkpoint: 8          sinks make their rows visible                   epoch/9 = fence
//!                               done/8                                          no done/8: sinks commit again
//!                               old checkpoints are removed                     next checkpoint: 10
//! ```
//!
//! That is a job whose checkpoints are decided by the store. A sink that commits in transactions decides itself: then the
//! manifest only prepares, `epoch/8` is a copy of what the sink's system has decided, and a start asks that for its newest
//! marker before it answers for a manifest without a decision. The store's fence is written all the same.
//!
//! ```text
//!   start                       a checkpoint                                    after a crash
//!   ─────                       ────────────                                    ─────────────
//!   LOCK, gen/4                 ckpt/8-4/MANIFEST      ◄─ prepared              LOCK, gen/5
//!   Witness::fence              Witness::decide(8)     ◄─ decided, visible      Witness::fence: nobody decides 8 any more
//!   read epoch/*, ckpt/*        epoch/8 = commit       ◄─ a copy                a prepared manifest without a decision:
//!   Witness::newest             done/8                                          newest marker 8: epoch/8 = commit
//!   epoch/7 = fence                                                             newest marker 6: epoch/8 = abort
//! ```
//!
//! Nothing in the store is ever overwritten. A file is created under a name that was free, or it is not; so two processes
//! that want the same number find out who was first, on a disk as in S3. A process that was replaced while it slept finds
//! its next number taken and stops.
//!
//! * [`coordinator`]: when a checkpoint is taken, and in which order it becomes durable, decided, visible. [`archive`]:
//!   from what tasks report to segments and a manifest.
//!   [`tell`]: sources hear of what is final.
//! * [`begin`]: from the store to a job that may run. [`restore`]: from a manifest to what each task begins with, at any
//!   parallelism. [`layout`]: which tasks there are, and what of each is saved. [`settings`]: what the user says.
//! * [`store`]: the steps of a checkpoint. [`recovery`]: what a start finds and decides. [`collect`]: removing the old.
//!   [`read`]: looking at checkpoints without running the job.
//! * [`witnessed`]: what is asked of the system that decides instead of the store, and when. [`answer`]: what its newest
//!   marker says at a start.
//! * [`manifest`], [`record`], [`frame`], [`names`]: what is on disk, and what it is called.
//! * [`location`], [`local`], [`objects`]: the storage. [`error`]: what can go wrong with it. [`crash`], [`faults`]: for tests.

mod answer;
mod archive;
mod begin;
mod collect;
mod coordinator;
mod crash;
mod error;
mod faults;
mod fetched;
mod frame;
mod layout;
mod local;
mod location;
mod manifest;
mod names;
mod objects;
mod read;
mod record;
mod recovery;
mod restore;
mod settings;
mod store;
mod tell;
#[cfg(test)]
mod tests;
mod witnessed;

pub(crate) use archive::Start;
pub(crate) use begin::{Begin, begin};
pub(crate) use coordinator::{Coordinator, Savepoint, Sinks, Then, Underway};
#[cfg(feature = "faults")]
pub use crash::crash_point;
pub use error::CheckpointError;
#[cfg(feature = "faults")]
pub use faults::{Faults, MUTANTS};
pub(crate) use faults::{inherit, mutated};
pub(crate) use layout::Layout;
pub(crate) use location::{job_and_store, jobs, without_secrets};
pub(crate) use manifest::{Kind as CheckpointReason, Manifest, SavedTask, SplitState};
pub(crate) use read::Listed;
pub use read::Wanted;
pub(crate) use restore::{Restored, Segments};
pub(crate) use settings::{KEPT_CHECKPOINTS, Settings};
pub use settings::{Restarts, Restore};
pub(crate) use store::CheckpointStore;
pub(crate) use tell::Sources;
pub(crate) use witnessed::{Witnessed, give_up, timeout};
