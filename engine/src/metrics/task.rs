//! What one task of an operator counts.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use windrow_operators::Timestamp;

use super::{histogram::Times, meter::Meter};

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
    /// It has passed on that nobody is to wait for its event time.
    idle: AtomicBool,
    /// The bytes of its state in memory.
    held: AtomicU64,
    /// Rows of an async operator that have come in and not left.
    in_flight: AtomicU64,
    /// The time of its work: of a sink until a write has ended, of an async operator while rows wait for a free call, of a source
    /// while its reader is at work and not while it waits.
    pub(crate) busy: Meter,
    /// The time that a source did not read because a task behind it holds too much.
    pub(crate) braked: Meter,
    /// How long each call of an operator took, or each write of a sink.
    pub(crate) calls: Times,
    /// Of each batch that a sink has written, how long its latest event is ago.
    pub(crate) latency: Times,
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
            idle: AtomicBool::new(false),
            held: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            busy: Meter::new(),
            braked: Meter::new(),
            calls: Times::default(),
            latency: Times::default(),
        }
    }

    pub(crate) fn reaches(&self, time: Timestamp) {
        self.watermark.store(time.micros(), Relaxed);
    }

    pub(crate) fn promises(&self, time: Timestamp) {
        self.promised.store(time.micros(), Relaxed);
    }

    /// Whether nobody is to wait for its event time.
    pub(crate) fn idles(&self, idle: bool) {
        self.idle.store(idle, Relaxed);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Relaxed)
    }

    pub(crate) fn holds(&self, bytes: usize) {
        self.held.store(bytes as u64, Relaxed);
    }

    pub(crate) fn in_flight(&self, rows: usize) {
        self.in_flight.store(rows as u64, Relaxed);
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
