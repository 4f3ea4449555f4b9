//! The occasions on which something that gives more than one result gives them, for windows and sessions alike.
//!
//! ```text
//!   event time    ──────────────────────────┼ passed: past its end ────────┼ closed: dropped ──►
//!                   early, by the clock or     first result at a watermark,
//!                   by the number of rows      then corrections
//! ```

use std::time::Duration;

use super::repeats::Repeats;
use crate::{
    Outbox, Timestamp,
    state::{Part, StateReader, StateWriter},
    time::micros_of,
};

/// The number that says which windows are past their end, when that is not all that are closed.
const PASSED: &str = "passed";

/// When results are due.
pub(crate) struct Occasions {
    corrections: bool,
    every: Option<Duration>,
    rows: Option<u32>,
    /// What ends here or before has given a result at a watermark: no more early ones.
    passed: Timestamp,
    /// When early results are due.
    due: Option<Timestamp>,
}

impl Occasions {
    pub(crate) fn new(repeats: &Repeats) -> Self {
        Self {
            corrections: repeats.corrections,
            every: repeats.every,
            rows: repeats.rows,
            passed: Timestamp::MIN,
            due: None,
        }
    }

    /// Whether there are early results.
    pub(crate) fn are_early(&self) -> bool {
        self.every.is_some() || self.rows.is_some()
    }

    /// What ends here or before has given a result at a watermark.
    pub(crate) fn passed(&self) -> Timestamp {
        self.passed
    }

    /// After how many rows there is an early result of what ends at `end`, if there is one.
    pub(crate) fn rows_until(&self, end: Timestamp) -> Option<u32> {
        self.rows.filter(|_| end > self.passed)
    }

    /// Asks to be woken for early results, when something has changed.
    pub(crate) fn ask(&mut self, has_changed: bool, out: &mut Outbox) {
        match self.every {
            Some(every) if has_changed => {
                let due = *self.due.get_or_insert_with(|| next_multiple(out.now(), every));
                out.wake_at(due);
            }
            _ => self.due = None,
        }
    }

    /// Whether early results are due by the clock.
    pub(crate) fn are_due(&self, out: &Outbox) -> bool {
        self.due.is_some_and(|due| out.now() >= due)
    }

    /// All that was due by the clock has been given.
    pub(crate) fn given(&mut self) {
        self.due = None;
    }

    /// Event time has come to `time`, and what ends at `closed` or before is dropped. Returns until where results are due.
    pub(crate) fn pass(&mut self, time: Timestamp, closed: Timestamp) -> Timestamp {
        let passed = if self.corrections && time < Timestamp::MAX { time } else { closed };
        self.passed = self.passed.max(closed).max(passed);
        if time == Timestamp::MAX { time } else { self.passed }
    }

    /// Takes down how far that is.
    pub(crate) fn save(&self, closed: Timestamp, state: &mut StateWriter<'_>) {
        if self.passed > closed {
            state.set(PASSED, self.passed.micros());
        }
    }

    /// Goes on where former tasks were: what is past its end for one of them gives no more early results.
    pub(crate) fn load(&mut self, state: &StateReader, closed: Timestamp) {
        let passed = state.greatest(false, PASSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        self.passed = passed.max(closed);
    }
}

/// How far it was for a former task that had closed what ends at `closed` or before.
pub(super) fn passed(part: &Part, closed: Timestamp) -> Timestamp {
    part.numbers.get(PASSED).map_or(closed, |passed| Timestamp::from_micros(*passed).max(closed))
}

/// The next time after `now` that is a multiple of `every`: the same for all tasks, and after a restore.
fn next_multiple(now: Timestamp, every: Duration) -> Timestamp {
    let (now, every) = (i128::from(now.micros()), i128::from(micros_of(every).max(1)));
    let next = (now.div_euclid(every) + 1) * every;
    Timestamp::from_micros(next.min(i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_multiple_is_later_as_long_as_there_is_time() {
        let next =
            |now: i64, every: u64| next_multiple(Timestamp::from_micros(now), Duration::from_micros(every)).micros();
        assert_eq!([next(0, 10), next(9, 10), next(10, 10), next(-1, 10)], [10, 10, 20, 0]);
        assert_eq!(next(i64::MIN, 7), (i64::MIN.div_euclid(7) + 1) * 7);
        assert_eq!([next(i64::MAX, 7), next(5, u64::MAX)], [i64::MAX, i64::MAX]);
    }
}
