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
    /// Of a source: the bytes of what it has read. What goes between tasks is counted by the channels.
    pub(crate) bytes_read: AtomicU64,
    pub(crate) processed: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(super) watermark: Reached,
    /// What it has promised downstream: less than its watermark where late rows may still give results.
    pub(super) promised: Reached,
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
            bytes_read: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            late: AtomicU64::new(0),
            watermark: Reached::new(),
            promised: Reached::new(),
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
        self.watermark.goes_on(time.micros());
    }

    pub(crate) fn promises(&self, time: Timestamp) {
        self.promised.goes_on(time.micros());
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
        self.watermark.known()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(crate) fn rows_in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }
}

/// How far event time is: `i64::MIN` before the first, `i64::MAX` at the end.
#[derive(Debug)]
pub(super) struct Reached {
    now: AtomicI64,
    before_end: AtomicI64,
}

impl Reached {
    fn new() -> Self {
        Self { now: AtomicI64::new(i64::MIN), before_end: AtomicI64::new(i64::MIN) }
    }

    fn goes_on(&self, micros: i64) {
        if micros != i64::MAX {
            self.before_end.store(micros, Relaxed);
        }
        self.now.store(micros, Relaxed);
    }

    fn known(&self) -> Option<i64> {
        Some(self.now.load(Relaxed)).filter(|micros| *micros != i64::MIN)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.now.load(Relaxed) == i64::MAX
    }

    /// What was reached before the end.
    pub(super) fn before_end(&self) -> i64 {
        self.before_end.load(Relaxed)
    }
}
