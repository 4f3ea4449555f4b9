//! Law 1, operator by operator: what comes out is what a batch computation gives. All in one binary, because linking
//! takes longer than running.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod aggregate;
mod bids;
mod broadcast;
mod broken;
mod broken_join;
mod broken_process;
mod broken_revisions;
mod broken_state;
mod broken_windows;
mod calendar;
mod change_join;
mod count;
mod cumulating;
mod custom;
mod dedup;
mod extremes;
mod handles;
mod handles_state;
mod hopping;
mod interval_join;
mod join_errors;
mod join_saves;
mod joins;
mod late;
mod pattern;
mod plan_errors;
mod planned;
mod preaggregate;
mod process;
mod process_in_order;
mod process_state;
mod process_versions;
mod restored;
mod restored_windows;
mod revisions;
mod revisions_state;
mod session;
mod session_broken;
mod session_state;
mod shape;
mod sizes;
mod sort;
mod stateless;
mod table_steps;
mod temporal_join;
mod top;
mod top_saves;
mod two_inputs;
mod typed;
mod updating;
mod upsert;
mod window_join;
mod windows_in_line;
