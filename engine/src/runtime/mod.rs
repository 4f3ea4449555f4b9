//! How a job runs: tasks, the channels between them, and who watches over them.
//!
//! ```text
//!   source task                      operator task                     sink task
//!   ┌─────────────────────┐          ┌─────────────────────┐           ┌──────────────────┐
//!   │ SourceReader        │ channel  │ Gate                │  channel  │ Gate             │
//!   │  └ event time       │ (bytes)  │  └ Chain: operators │           │  └ SinkWriter    │
//!   │     └ Chain         ├─────────►│      in a tree      ├──────────►│                  │
//!   │        └ Outputs    │ exchange │       └ Outputs     │           │                  │
//!   └─────────────────────┘          └─────────────────────┘           └──────────────────┘
//!            ▲ stop                            supervisor: first failure ends all
//! ```
//!
//! Beside the source tasks of a source that may get new splits runs its discovery, which gives them what it finds.
//!
//! Under a memory budget ([`memory`]) operators put state that is too much for memory into files ([`spill`]).
//!
//! A batch goes through a chain as plain function calls; only between tasks does it wait in a channel. What waits there in small
//! parts, because an exchange has cut it, is taken together ([`gather`]), and so are small batches that a source has ready.
//! `await` happens in five places: a reader's fetch, a gate's input, an output's send, a sink's write, and the calls of an async
//! operator, which is a task of its own: a gate, calls, and the chain behind them.

pub(crate) mod align;
pub(crate) mod async_task;
pub(crate) mod brake;
pub(crate) mod chain;
pub(crate) mod channel;
pub(crate) mod discovery;
mod event_time;
pub(crate) mod exchange;
pub(crate) mod gate;
mod gather;
pub(crate) mod memory;
pub(crate) mod operator_task;
mod readers;
pub(crate) mod rejects;
pub(crate) mod report;
pub(crate) mod signals;
pub(crate) mod sink_task;
pub(crate) mod source_task;
mod source_time;
pub(crate) mod spill;
pub(crate) mod splits;
pub(crate) mod supervisor;

pub(crate) use event_time::EventTimeReader;
