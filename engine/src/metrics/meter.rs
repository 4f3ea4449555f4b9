//! Time that is spent on something: so far, and while it lasts.
//!
//! ```text
//!   begin ──── 3 ms ──── end      begin ── 2 ms ── now
//!                                                   └─ reads 5 ms
//! ```
//!
//! One task begins and ends; anybody reads. So an operator that has been in one call for a minute is seen to be busy, and not only
//! when it returns.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::clock::Moment;

/// What it costs: two stores, an addition that nobody contends for, and the readings of the clock that its user makes.
#[derive(Debug)]
pub(crate) struct Meter {
    origin: Moment,
    /// Nanoseconds, of what has ended.
    total: AtomicU64,
    /// When what lasts began, in nanoseconds behind the origin, plus one; 0 when nothing does.
    since: AtomicU64,
    /// The most that was ever read of it, in microseconds.
    shown: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { origin: Moment::now(), total: AtomicU64::new(0), since: AtomicU64::new(0), shown: AtomicU64::new(0) }
    }

    pub(crate) fn begin(&self, now: Moment) {
        self.since.store(now.nanos_since(self.origin) + 1, Relaxed);
    }

    pub(crate) fn end(&self, now: Moment) {
        let since = self.since.load(Relaxed);
        if since > 0 {
            // In this order: who has read the new total does not add what has just ended to it once more.
            self.since.store(0, Relaxed);
            self.total.fetch_add((now.nanos_since(self.origin) + 1).saturating_sub(since), Release);
        }
    }

    /// Time that has been spent, and was measured by others.
    pub(crate) fn add(&self, began: Moment, now: Moment) {
        self.total.fetch_add(now.nanos_since(began), Relaxed);
    }

    /// Begins or ends, if that is a change; the clock is read only then.
    pub(crate) fn set(&self, on: bool) {
        let is_on = self.since.load(Relaxed) > 0;
        match (is_on, on) {
            (false, true) => self.begin(Moment::now()),
            (true, false) => self.end(Moment::now()),
            _ => {}
        }
    }

    /// Begins now, and ends when what is returned is dropped: also when the future is dropped that has it.
    pub(crate) fn running(&self) -> Running<'_> {
        self.begin(Moment::now());
        Running(self)
    }

    /// In microseconds, with what lasts at `now`. Between the two loads something may end: then it is missed until the next look, never
    /// counted twice. It does not go back: who reads it as a counter would take that for a new beginning.
    pub(crate) fn micros(&self, now: Moment) -> u64 {
        let total = self.total.load(Acquire);
        let lasts = match self.since.load(Relaxed) {
            0 => 0,
            since => (now.nanos_since(self.origin) + 1).saturating_sub(since),
        };
        let micros = (total + lasts) / 1_000;
        self.shown.fetch_max(micros, Relaxed).max(micros)
    }
}

pub(crate) struct Running<'a>(&'a Meter);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.end(Moment::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_counted_while_it_does_and_once() {
        let meter = Meter::new();
        let micros = || meter.micros(Moment::now());
        let wait = async |millis| tokio::time::sleep(Duration::from_millis(millis)).await;
        wait(5).await;
        assert_eq!(micros(), 0);
        {
            let _running = meter.running();
            wait(3).await;
            assert_eq!(micros(), 3_000);
            wait(1).await;
        }
        wait(7).await;
        assert_eq!(micros(), 4_000);
        meter.set(true);
        wait(2).await;
        meter.set(true);
        wait(2).await;
        assert_eq!(micros(), 8_000);
        meter.set(false);
        meter.set(false);
        meter.end(Moment::now());
        wait(9).await;
        assert_eq!(micros(), 8_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_does_not_go_back() {
        let meter = Meter::new();
        meter.begin(Moment::now());
        let began = Moment::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(meter.micros(Moment::now()), 5_000);
        // Its user has looked at the clock before.
        meter.end(began);
        assert_eq!(meter.micros(Moment::now()), 5_000);
    }
}
