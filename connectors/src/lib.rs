//! Where rows come from and where they go: sources, sinks and formats.
//!
//! ```text
//!   file, topic, generator                                   file, topic, console
//!          │                                                          ▲
//!          ▼                                                          │
//!      Source ── splits ──► SourceReader ── Fetch ──► engine ──► SinkWriter ◄── Sink (writer, commit, clean)
//!                               │      (split, rows, rejected,        │
//!                               │       next position)                │
//!                            Decoder: bytes → columns              arrow writers
//! ```
//!
//! This crate owns *what a source and a sink are* and every connector. It knows nothing of operators or of the
//! engine: a reader returns rows together with the position after them, and the engine remembers that position. So a
//! connector has no checkpoint code that could disagree with the rows it delivered.
//!
//! * [`source`] and [`sink`]: the contracts.
//! * [`mod@format`]: bytes to columns and back, in batches. A record that does not decode becomes a [`Rejected`] row with
//!   its bytes, its position and the reason; its neighbours are not harmed.
//! * [`origins`]: the bytes and positions of those that do decode, for the engine may reject them for their event time.
//! * [`mod@file`], [`generator`], [`memory`], [`console`]: the connectors; with the feature `kafka` also topics.
//! * [`lookup`]: tables that rows are looked up in.

/// What implementations of the contracts are written with.
pub use async_trait::async_trait;

pub mod console;
pub mod error;
pub mod file;
pub mod format;
pub mod generator;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lookup;
pub mod memory;
pub mod origins;
#[cfg(feature = "kafka")]
pub mod registry;
#[cfg(feature = "secret")]
pub mod secret;
pub mod sink;
pub mod source;

pub use console::Console;
pub use error::{ConnectorError, Result};
pub use file::{File, TimePartition};
pub use generator::{nexmark::Nexmark, sequence::Sequence};
pub use lookup::{Cached, Lookup, TableFile};
pub use memory::{MemorySink, MemorySource, MemoryTable};
pub use origins::Origins;
#[cfg(feature = "kafka")]
pub use registry::SchemaRegistry;
#[cfg(feature = "secret")]
pub use secret::Secret;
pub use sink::{Epoch, Incarnation, Marker, OP, Receipt, Sink, SinkWriter, Witness};
pub use source::{Fetch, Position, PutOff, Rejected, Rows, Source, SourceReader, SplitId, TypedSource, Untyped};
