//! What one task of an operator counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use windrow_operators::Timestamp;

use super::meter::Meter;

/// Each task has a cache line of its own: tasks run on different cores, and count at every batch.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct TaskCounters {
    pub(crate) rows_in: AtomicU64,
    pub(crate) rows_out: AtomicU64,
    pub(crate) processed: AtomicU64,
    pub(crate) late: AtomicU64,
    watermark: AtomicI64,
    /// What it has promised downstream: less than its watermark where late rows may still give results.
    promised: AtomicI64,
    /// The bytes of its state in memory.
    held: AtomicU64,
    /// Rows of an async operator that have come in and not left.
    in_flight: AtomicU64,
    /// The time of its work: of a sink until a write has ended, of an async operator while rows wait for a free call, of a source
    /// while its reader is at work and not while it waits.
    pub(crate) busy: Meter,
    /// The time that a source did not read because a task behind it holds too much.
    pub(crate) braked: Meter,
}

impl TaskCounters {
    pub(super) fn new() -> Self {
        Self {
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            late: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
            promised: AtomicI64::new(i64::MIN),
            held: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            busy: Meter::new(),
            braked: Meter::new(),
        }
    }

    pub(crate) fn reaches(&self, time: Timestamp) {
        self.watermark.store(time.micros(), Relaxed);
    }

    pub(crate) fn promises(&self, time: Timestamp) {
        self.promised.store(time.micros(), Relaxed);
    }

    pub(crate) fn holds(&self, bytes: usize) {
        self.held.store(bytes as u64, Relaxed);
    }

    pub(crate) fn in_flight(&self, rows: usize) {
        self.in_flight.store(rows as u64, Relaxed);
    }

    /// `i64::MIN` before the first.
    pub(super) fn watermark_micros(&self) -> i64 {
        self.watermark.load(Relaxed)
    }

    /// `None` before the first.
    pub(crate) fn watermark(&self) -> Option<i64> {
        known(self.watermark.load(Relaxed))
    }

    /// `None` before the first.
    pub(crate) fn promised(&self) -> Option<i64> {
        known(self.promised.load(Relaxed))
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(crate) fn rows_in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }
}

fn known(micros: i64) -> Option<i64> {
    (micros != i64::MIN).then_some(micros)
}
