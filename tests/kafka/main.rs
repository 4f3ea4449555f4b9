//! Whole jobs against a real broker: what is in the topics afterwards, as a consumer sees it that is not the engine's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod absent;
mod bounded;
mod broken;
mod columns;
mod compacted;
mod garbage;
mod growing;
mod keys;
mod large;
mod letters;
mod odd;
mod poison;
mod re_drive;
mod running;
mod schemas;
mod security;
mod starts;
mod tables;
mod transactions;
mod truncated;
mod windows;
