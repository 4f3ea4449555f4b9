//! What a window is: its size, its offset, how late a row may be, and which slice an instant falls into.

use std::{fmt, time::Duration};

use crate::{OperatorError, Result, Timestamp, time::micros_of};

/// Windows of one size, side by side: `[0 s, 10 s)`, `[10 s, 20 s)`, …, counted from 1970-01-01T00:00:00Z.
///
/// ```
/// use std::time::Duration;
/// use windrow_operators::window::Tumbling;
/// let window = Tumbling::of(Duration::from_secs(10)).allowed_lateness(Duration::from_secs(30));
/// assert_eq!(window.to_string(), "tumbling 10s, allowed lateness 30s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    size: Duration,
    offset: Duration,
    lateness: Duration,
}

impl Tumbling {
    /// Windows of `size`, in whole microseconds and at least one.
    pub fn of(size: Duration) -> Self {
        Self { size, offset: Duration::ZERO, lateness: Duration::ZERO }
    }

    /// Moves the windows: hours that begin at a quarter past have the offset of 15 minutes.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Self { offset, ..self }
    }

    /// Keeps a window open until the watermark is `lateness` past its end. It then gives one final result. The price is
    /// that every result comes so much later.
    #[must_use]
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// The same windows, closed as soon as the watermark passes their end.
    pub(super) fn without_lateness(self) -> Self {
        Self { lateness: Duration::ZERO, ..self }
    }

    /// How long a window waits for late rows.
    pub(super) fn lateness(&self) -> Duration {
        self.lateness
    }

    /// Which windows these are, however long they wait for late rows.
    pub(super) fn describe(&self) -> String {
        self.without_lateness().to_string()
    }

    /// The slices of these windows.
    pub fn slicing(&self) -> Result<Slicing> {
        let whole = |span: Duration| span.subsec_nanos().is_multiple_of(1_000);
        if !whole(self.size) || !whole(self.offset) || self.size.is_zero() {
            return Err(OperatorError::Plan(format!(
                "a window of {:?} with offset {:?}: size and offset are whole microseconds, the size at least one",
                self.size, self.offset
            )));
        }
        let size = micros_of(self.size);
        Ok(Slicing { size, offset: micros_of(self.offset) % size })
    }
}

impl fmt::Display for Tumbling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tumbling {:?}", self.size)?;
        if !self.offset.is_zero() {
            write!(f, " from {:?}", self.offset)?;
        }
        if !self.lateness.is_zero() {
            write!(f, ", allowed lateness {:?}", self.lateness)?;
        }
        Ok(())
    }
}

/// A stretch of event time: `start` inclusive, `end` exclusive. The first and the last slice of all time are cut off at
/// what a [`Timestamp`] can say; the last one then includes its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    /// The first instant in it.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Slice {
    /// Whether `time` lies in it.
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && (time < self.end || self.end == Timestamp::MAX)
    }

    /// The event time of its result: the last instant in it.
    pub fn result_time(&self) -> Timestamp {
        Timestamp::from_micros(self.end.micros() - 1)
    }
}

/// Cuts event time into equal slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slicing {
    size: i64,
    offset: i64,
}

impl Slicing {
    /// How long a slice is, in microseconds.
    pub(super) fn size(&self) -> i64 {
        self.size
    }

    /// The slice that `time` falls into. Right for every instant, also before 1970 (the division rounds down, not
    /// towards zero) and at both ends of time (the arithmetic is in 128 bits).
    pub fn slice_of(&self, time: Timestamp) -> Slice {
        let (size, offset) = (i128::from(self.size), i128::from(self.offset));
        // The last instant has no slice of its own, whose end nothing could say: it belongs to the one before.
        let time = time.micros().min(i64::MAX - 1);
        let start = (i128::from(time) - offset).div_euclid(size) * size + offset;
        let clamp = |t: i128| Timestamp::from_micros(t.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64);
        Slice { start: clamp(start), end: clamp(start + size) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slice(size: Duration, offset: Duration, t: i64) -> (i64, i64) {
        let slice = Tumbling::of(size).offset(offset).slicing().unwrap().slice_of(Timestamp::from_micros(t));
        (slice.start.micros(), slice.end.micros())
    }

    #[test]
    fn a_negative_time_belongs_to_the_window_before_1970() {
        let second = Duration::from_secs(1);
        assert_eq!(slice(second, Duration::ZERO, -1), (-1_000_000, 0));
        assert_eq!(slice(second, Duration::ZERO, 0), (0, 1_000_000));
        assert_eq!(slice(second, Duration::from_millis(250), 0), (-750_000, 250_000));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert!(Tumbling::of(Duration::ZERO).slicing().is_err());
        assert!(Tumbling::of(Duration::from_nanos(1_500)).slicing().is_err());
        assert!(Tumbling::of(Duration::MAX).slicing().is_err(), "not whole microseconds");
        assert!(Tumbling::of(Duration::from_secs(u64::MAX)).slicing().is_ok(), "all time is one window");
    }

    fn instants() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -1_000i64..1_000, Just(i64::MIN), Just(i64::MAX), (i64::MAX - 50)..=i64::MAX]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Against a definition that searches nothing: the slice holds the instant, has the size, starts at a multiple.
        #[test]
        fn slices_are_right_at_all_times(
            t in instants(),
            size in prop_oneof![1i64..5_000, any::<i64>().prop_map(|s| s.saturating_abs().max(1))],
            offset in prop_oneof![Just(0i64), 0i64..10_000],
        ) {
            let spec = Tumbling::of(Duration::from_micros(size as u64)).offset(Duration::from_micros(offset as u64));
            let slice = spec.slicing().unwrap().slice_of(Timestamp::from_micros(t));
            let (start, end) = (i128::from(slice.start.micros()), i128::from(slice.end.micros()));
            prop_assert!(slice.contains(Timestamp::from_micros(t)));
            let cut = start == i128::from(i64::MIN) || end == i128::from(i64::MAX);
            prop_assert!(cut || end - start == i128::from(size));
            prop_assert!(end - start <= i128::from(size));
            let multiple = |edge: i128| (edge - i128::from(offset)) % i128::from(size) == 0;
            prop_assert!(start == i128::from(i64::MIN) || multiple(start));
            prop_assert!(end == i128::from(i64::MAX) || multiple(end));
        }
    }
}
