//! How event time is cut into slices, and which slices make up a window: arithmetic that is right at both ends of time.
//!
//! ```text
//!   hopping 5 every 2              cumulating 6 by 2
//!   ├─────────┤                    ├───┤
//!       ├─────────┤                ├───────┤
//!           ├─────────┤            ├───────────┤
//!   ├─┼─┼─┼─┼─┼─┼─┼─┼─┤ slices     ├───┼───┼───┤ slices
//! ```
//!
//! A slice goes from one instant at which a window begins or ends to the next. So a window is a run of whole slices, and
//! fewer do not do: of hopping windows there is one slice per slide, or two when the size is not a multiple of it.

use super::calendar::Days;
use crate::Timestamp;

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

/// A stretch of time in numbers that do not overflow: several windows may end after the end of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: i128,
    pub(crate) end: i128,
}

impl Stretch {
    /// As much of it as there is.
    pub(crate) fn cut(self) -> Slice {
        Slice { start: cut(self.start), end: cut(self.end) }
    }
}

fn cut(time: i128) -> Timestamp {
    Timestamp::from_micros(time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

/// Cuts event time into slices, and makes windows of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slicing(Shape);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Tumbling(Grid),
    /// Windows begin on the grid, which has the slide.
    Hopping {
        starts: Grid,
        size: i128,
    },
    /// Windows begin on one grid and end on another.
    Cumulating {
        starts: Grid,
        ends: Grid,
    },
    Calendar(Days),
    /// One for all time.
    Global,
}

/// Instants at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    step: i128,
    offset: i128,
}

impl Grid {
    fn new(step: u128, offset: u128) -> Self {
        Self { step: step as i128, offset: (offset % step) as i128 }
    }

    /// The last instant of the grid that is not after `time`. Right also before 1970: the division rounds down, not
    /// towards zero.
    fn at_or_before(self, time: i128) -> i128 {
        (time - self.offset).div_euclid(self.step) * self.step + self.offset
    }

    fn after(self, time: i128) -> i128 {
        self.at_or_before(time) + self.step
    }
}

impl Slicing {
    pub(super) fn tumbling(size: u128, offset: u128) -> Self {
        // All time is one window as soon as the size is that of half of it.
        let size = size.min(i64::MAX as u128);
        Self(Shape::Tumbling(Grid::new(size, offset.min(i64::MAX as u128))))
    }

    pub(super) fn hopping(size: u128, slide: u128, offset: u128) -> Self {
        Self(Shape::Hopping { starts: Grid::new(slide, offset), size: size as i128 })
    }

    pub(super) fn cumulating(size: u128, step: u128, offset: u128) -> Self {
        Self(Shape::Cumulating { starts: Grid::new(size, offset), ends: Grid::new(step, offset) })
    }

    pub(super) fn calendar(days: Days) -> Self {
        Self(Shape::Calendar(days))
    }

    pub(super) fn global() -> Self {
        Self(Shape::Global)
    }

    /// The one slice of all time, if there is only that.
    pub(super) fn all_time(&self) -> Option<Slice> {
        matches!(self.0, Shape::Global).then_some(Slice { start: Timestamp::MIN, end: Timestamp::MAX })
    }

    /// Whether a slice may be in several windows.
    pub(crate) fn overlaps(&self) -> bool {
        matches!(self.0, Shape::Hopping { .. } | Shape::Cumulating { .. })
    }

    /// The slice that `time` falls into. Right for every instant, also before 1970 and at both ends of time.
    pub fn slice_of(&self, time: Timestamp) -> Slice {
        // The last instant has no slice of its own, whose end nothing could say: it belongs to the one before.
        let time = time.micros().min(i64::MAX - 1);
        let at = i128::from(time);
        match &self.0 {
            Shape::Tumbling(grid) => {
                let start = grid.at_or_before(at);
                Stretch { start, end: start + grid.step }.cut()
            }
            Shape::Hopping { starts, size } => {
                let start = starts.at_or_before(at);
                // Where a window ends between two that begin.
                let edge = start + size % starts.step;
                let (start, end) = if at < edge { (start, edge) } else { (edge, start + starts.step) };
                Stretch { start, end }.cut()
            }
            Shape::Cumulating { ends, .. } => Stretch { start: ends.at_or_before(at), end: ends.after(at) }.cut(),
            Shape::Calendar(days) => days.slice_of(time),
            Shape::Global => Slice { start: Timestamp::MIN, end: Timestamp::MAX },
        }
    }

    /// The first window that contains `slice` and ends after `reached`. There must be one: see
    /// [`Slicing::last_end`]. Windows that contain later slices and end after `reached` do not end before it.
    pub(crate) fn next_window(&self, slice: Slice, reached: i128) -> Stretch {
        let start = i128::from(slice.start.micros());
        let after = reached.max(start);
        match &self.0 {
            Shape::Hopping { starts, size } => {
                let start = starts.after(after - size);
                Stretch { start, end: start + size }
            }
            Shape::Cumulating { starts, ends } => {
                let end = ends.after(after);
                Stretch { start: starts.at_or_before(end - 1), end }
            }
            Shape::Tumbling(_) | Shape::Calendar(_) | Shape::Global => {
                Stretch { start, end: slice.end.micros().into() }
            }
        }
    }

    /// Whether there is a longer window that begins with this one.
    pub(super) fn grows(&self, window: Stretch) -> bool {
        match &self.0 {
            Shape::Cumulating { starts, .. } => window.end < starts.after(window.start),
            Shape::Hopping { .. } | Shape::Tumbling(_) | Shape::Calendar(_) | Shape::Global => false,
        }
    }

    /// Where the last window ends that contains `slice`.
    pub(crate) fn last_end(&self, slice: Slice) -> i128 {
        let start = i128::from(slice.start.micros());
        match &self.0 {
            Shape::Hopping { starts, size } => starts.at_or_before(start) + size,
            Shape::Cumulating { starts, .. } => starts.after(start),
            Shape::Tumbling(_) | Shape::Calendar(_) | Shape::Global => slice.end.micros().into(),
        }
    }

    /// The same, as far as there is time.
    pub(crate) fn needed_until(&self, slice: Slice) -> Timestamp {
        cut(self.last_end(slice))
    }

    /// The start of the first slice that is in a window which ends after `fired`.
    pub(super) fn needed_from(&self, fired: Timestamp) -> Timestamp {
        if fired == Timestamp::MAX {
            return fired;
        }
        let after = i128::from(fired.micros());
        match &self.0 {
            Shape::Hopping { starts, size } => cut(starts.after(after - size)),
            Shape::Cumulating { starts, .. } => cut(starts.at_or_before(after)),
            Shape::Tumbling(_) | Shape::Calendar(_) | Shape::Global => self.slice_of(fired).start,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::window::{Cumulating, Hopping, Tumbling, Window};

    fn us(micros: i64) -> Duration {
        Duration::from_micros(micros.unsigned_abs())
    }

    fn slice(window: &Window, t: i64) -> (i64, i64) {
        let slice = window.slicing().unwrap().slice_of(Timestamp::from_micros(t));
        (slice.start.micros(), slice.end.micros())
    }

    #[test]
    fn a_negative_time_belongs_to_the_window_before_1970() {
        let second = Tumbling::of(us(1_000_000));
        assert_eq!(slice(&second, -1), (-1_000_000, 0));
        assert_eq!(slice(&second, 0), (0, 1_000_000));
        assert_eq!(slice(&second.offset(us(250_000)), 0), (-750_000, 250_000));
    }

    #[test]
    fn a_slice_ends_where_any_window_begins_or_ends() {
        let window = Hopping::of(us(5), us(2));
        assert_eq!([0, 1, 2, 3].map(|t| slice(&window, t)), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        let window = Hopping::of(us(10), us(4)).offset(us(1));
        assert_eq!([0, 1, 2, 3, 4, 5].map(|t| slice(&window, t)), [(-1, 1), (1, 3), (1, 3), (3, 5), (3, 5), (5, 7)]);
        assert_eq!(slice(&Hopping::of(us(9), us(3)), -1), (-3, 0));
        assert_eq!(slice(&Cumulating::of(us(9), us(3)), -1), (-3, 0));
    }

    fn instants() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            -1_000i64..1_000,
            Just(i64::MIN),
            Just(i64::MAX),
            (i64::MAX - 50)..=i64::MAX,
            i64::MIN..i64::MIN + 50
        ]
    }

    fn sizes() -> impl Strategy<Value = i64> {
        prop_oneof![1i64..50, 1i64..5_000, any::<i64>().prop_map(|s| s.saturating_abs().max(1))]
    }

    fn offsets() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0i64), 0i64..10_000, Just(i64::MAX)]
    }

    /// A size and a part of it that is not too small.
    fn parts() -> impl Strategy<Value = (i64, i64)> {
        (sizes(), 1i64..60).prop_map(|(size, parts)| (size, (size / parts).max(1)))
    }

    fn cut_micros(time: i128) -> i64 {
        time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// All windows that contain `t`, by their definition: each multiple of the slide is tried that could begin one.
    fn hopping(t: i64, size: i64, slide: i64, offset: i64) -> Vec<(i128, i128)> {
        let (t, size, slide, offset) =
            (i128::from(t.min(i64::MAX - 1)), i128::from(size), i128::from(slide), i128::from(offset));
        let near = (t - offset) / slide;
        let starts = (near - size / slide - 2..=near + 2).map(|k| k * slide + offset);
        starts.filter(|start| *start <= t && t < start + size).map(|start| (start, start + size)).collect()
    }

    fn cumulating(t: i64, size: i64, step: i64, offset: i64) -> Vec<(i128, i128)> {
        let (t, size, step, offset) =
            (i128::from(t.min(i64::MAX - 1)), i128::from(size), i128::from(step), i128::from(offset));
        let near = (t - offset) / size;
        let starts = (near - 2..=near + 2).map(|k| k * size + offset);
        let all = starts.flat_map(|start| (1..=size / step).map(move |k| (start, start + k * step)));
        all.filter(|(start, end)| *start <= t && t < *end).collect()
    }

    /// Walks through the windows of the slice that `t` is in, as firing does.
    fn walk(slicing: &Slicing, t: i64) -> Vec<(i128, i128)> {
        let slice = slicing.slice_of(Timestamp::from_micros(t));
        let mut reached = i128::from(i64::MIN);
        let mut windows = Vec::new();
        while slicing.last_end(slice) > reached {
            let window = slicing.next_window(slice, reached);
            windows.push((window.start, window.end));
            reached = window.end;
        }
        windows
    }

    /// What any slicing must keep, given the windows of an instant.
    fn check(slicing: &Slicing, t: i64, windows: impl Fn(i64) -> Vec<(i128, i128)>) -> Result<(), TestCaseError> {
        let slice = slicing.slice_of(Timestamp::from_micros(t));
        prop_assert!(slice.contains(Timestamp::from_micros(t)));
        prop_assert_eq!(walk(slicing, t), windows(t));
        // The first and the last instant of a slice are in the same windows, those beside it are in others.
        let (start, end) = (slice.start.micros(), slice.end.micros());
        prop_assert!(start < end);
        prop_assert_eq!(windows(start), windows(t));
        prop_assert_eq!(windows(end - 1), windows(t));
        prop_assert!(start == i64::MIN || windows(start - 1) != windows(t));
        prop_assert!(end == i64::MAX || windows(end) != windows(t));
        // A slice is needed from the oldest one on until its last window has fired.
        let last = cut_micros(windows(t).last().unwrap().1);
        prop_assert_eq!(slicing.needed_until(slice).micros(), last);
        prop_assert!(slicing.needed_from(Timestamp::from_micros(last)).micros() > start);
        prop_assert!(slicing.needed_from(Timestamp::from_micros(last - 1)).micros() <= start);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Against a definition that searches nothing: the slice holds the instant, has the size, starts at a multiple.
        #[test]
        fn slices_are_right_at_all_times(t in instants(), size in sizes(), offset in offsets()) {
            let slicing = Tumbling::of(us(size)).offset(us(offset)).slicing().unwrap();
            let slice = slicing.slice_of(Timestamp::from_micros(t));
            let (start, end) = (i128::from(slice.start.micros()), i128::from(slice.end.micros()));
            prop_assert!(slice.contains(Timestamp::from_micros(t)));
            let cut = start == i128::from(i64::MIN) || end == i128::from(i64::MAX);
            prop_assert!(cut || end - start == i128::from(size));
            prop_assert!(end - start <= i128::from(size));
            let multiple = |edge: i128| (edge - i128::from(offset)) % i128::from(size) == 0;
            prop_assert!(start == i128::from(i64::MIN) || multiple(start));
            prop_assert!(end == i128::from(i64::MAX) || multiple(end));
        }

        #[test]
        fn hopping_windows_are_right_at_all_times(t in instants(), (size, slide) in parts(), offset in offsets()) {
            let slicing = Hopping::of(us(size), us(slide)).offset(us(offset)).slicing().unwrap();
            check(&slicing, t, |t| hopping(t, size, slide, offset))?;
        }

        #[test]
        fn cumulating_windows_are_right_at_all_times(t in instants(), (size, step) in parts(), offset in offsets()) {
            let size = size / step * step;
            let slicing = Cumulating::of(us(size), us(step)).offset(us(offset)).slicing().unwrap();
            check(&slicing, t, |t| cumulating(t, size, step, offset))?;
        }

        /// Wherever firing has come to, it finds the next window that contains the slice.
        #[test]
        fn no_window_is_passed_over(t in -200i64..200, (size, slide) in (1i64..40, 1i64..40), reached in -250i64..250) {
            let (size, slide) = (size.max(slide), size.min(slide));
            let slicing = Hopping::of(us(size), us(slide)).slicing().unwrap();
            let slice = slicing.slice_of(Timestamp::from_micros(t));
            let expected = hopping(t, size, slide, 0).into_iter().find(|(_, end)| *end > reached.into());
            let found = (slicing.last_end(slice) > reached.into()).then(|| slicing.next_window(slice, reached.into()));
            prop_assert_eq!(found.map(|window| (window.start, window.end)), expected);
        }
    }
}
