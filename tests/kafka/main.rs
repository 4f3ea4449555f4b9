//! Jobs that read and write topics, against a real Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod security;
