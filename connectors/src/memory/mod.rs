//! Rows that come from memory and go to memory: for tests, and for measurements of everything but I/O.
//!
//! ```text
//!   Vec<RecordBatch>, Vec<T>, MemoryInput ──► MemorySource ──► job ──► MemorySink ──► batches(), records(), to_string()
//!                                                          └──► MemoryTable ─► the newest row per key
//! ```
//!
//! Both sides keep the promises of the contracts to the letter, so that a test that passes with them says something
//! about real connectors: a source can be read again from any position, a sink shows nothing before it is committed.

mod look;
mod sink;
mod source;
mod staging;
mod table;

pub use sink::MemorySink;
pub use source::{MemoryInput, MemorySource};
pub use table::MemoryTable;

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
