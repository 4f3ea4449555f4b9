//! When an event is due: wall-clock pacing of generators.
//!
//! Kept apart from the reader because rounding must agree in both directions: an event that was waited for has to
//! count as due when the wait is over, or the reader would deliver nothing.

use std::time::Duration;

use tokio::time::Instant;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Batches are delivered in portions of this much time, so that a high rate does not dissolve into tiny batches.
const PORTIONS_PER_SECOND: u64 = 100;

/// A steady rate from a moment on. Events are counted from that moment: number 0 is due at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: u64,
    started: Instant,
}

impl Pace {
    /// `rate` events a second (at least one), from now on.
    pub(super) fn from_now(rate: u64) -> Self {
        Self { rate: rate.max(1), started: Instant::now() }
    }

    /// When event number `event` is due. Rounded up, so that [`Pace::latest_due`] at that moment includes it.
    pub(super) fn due(&self, event: u64) -> Instant {
        let nanos = (u128::from(event % self.rate) * NANOS_PER_SECOND).div_ceil(u128::from(self.rate));
        let nanos = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.started + Duration::from_secs(event / self.rate) + nanos
    }

    /// The greatest number of an event that is due now.
    pub(super) fn latest_due(&self) -> u64 {
        let elapsed = self.started.elapsed().as_nanos();
        u64::try_from(elapsed.saturating_mul(u128::from(self.rate)) / NANOS_PER_SECOND).unwrap_or(u64::MAX)
    }

    /// How many events make one portion: 10 ms worth.
    pub(super) fn portion(&self) -> u64 {
        self.rate / PORTIONS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_that_was_waited_for_is_due() {
        for rate in [1, 3, 7, 1_000, 999_983, 100_000_000] {
            let pace = Pace::from_now(rate);
            for event in [0, 1, 2, rate, rate * 3 + 1] {
                tokio::time::sleep_until(pace.due(event)).await;
                assert!(pace.latest_due() >= event, "rate {rate}, event {event}");
            }
        }
    }

    proptest! {
        #[test]
        fn due_times_follow_the_rate(rate in 1_u64..10_000_000, event in 0_u64..1 << 40) {
            let pace = Pace::from_now(rate);
            let due = (pace.due(event) - pace.started).as_nanos();
            let exact = u128::from(event) * NANOS_PER_SECOND;
            prop_assert!(due * u128::from(rate) >= exact);
            prop_assert!(due.saturating_sub(1) * u128::from(rate) < exact.max(1));
        }
    }
}
