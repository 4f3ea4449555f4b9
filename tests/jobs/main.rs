//! Whole jobs, from source to sink, on a real runtime.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod alignment;
mod answers;
mod bad_input;
mod calls;
mod failures;
mod files;
mod flow;
mod keyed;
mod lookups;
mod mistakes;
mod real_data;
mod revisions;
mod time;
mod watermarks;

/// The examples are tested as they are, not a copy of them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/hot_items.rs"]
mod hot_items;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/windows_over_files.rs"]
mod windows_over_files;
