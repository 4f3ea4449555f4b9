//! Whole jobs, from source to sink, on a real runtime.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod alerts;
mod alignment;
mod answers;
mod bad_input;
mod bytes;
mod calls;
mod clicks;
mod discovery;
mod examples;
mod exchanges;
mod failures;
mod files;
mod flow;
mod joins;
mod keyed;
mod lookups;
mod memory;
mod mistakes;
mod order;
mod prometheus;
mod real_data;
mod revisions;
mod rules;
mod state;
mod status;
mod tables;
mod time;
mod together;
mod watermarks;

/// The examples are tested as they are, not a copy of them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/cqrs.rs"]
mod cqrs;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/event_sourcing.rs"]
mod event_sourcing;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/fan_out.rs"]
mod fan_out;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/fraud.rs"]
mod fraud;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/fraud_events.rs"]
mod fraud_events;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/hot_items.rs"]
mod hot_items;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/idempotent_consumer.rs"]
mod idempotent_consumer;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/retry_dead_letter.rs"]
mod retry_dead_letter;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/schema_versions.rs"]
mod schema_versions;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/sessions_and_funnels.rs"]
mod sessions_and_funnels;
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/windows_over_files.rs"]
mod windows_over_files;
