//! Nexmark: the queries of the public suite, over the common stream, measured and checked.
//!
//! ```text
//!   Events ──► columns per kind ──► Site: persons, auctions, bids ──► a query ──► Checksum   (the binary `nexmark`)
//!   (crate     ready in memory,                                          └──────► its rows   (the test `nexmark`, beside an
//!   `nexmark`) or as they are asked for                                                       oracle that shares no code)
//! ```
//!
//! * [`Events`]: which events, in which order, in how many splits and batches; [`Distinct`]: others, of more keys than memory.
//!   [`Site`]: the sources that a query reads.
//! * [`queries`]: one file per query. [`Checksum`]: where results go. [`mod@measure`]: a query and what it cost; [`pace`]: how long its
//!   results take. [`picture`]: rates as bars.

pub mod checksum;
pub mod columns;
mod distinct;
pub mod events;
pub mod measure;
pub mod pace;
pub mod picture;
pub mod queries;
pub mod site;
mod source;

pub use checksum::{Checksum, Sum};
pub use distinct::Distinct;
pub use events::{Events, Kind};
pub use measure::{Measured, Settings};
pub use site::Site;
