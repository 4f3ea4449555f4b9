//! What windows a user asks for: their shape, their offset, how late a row may be; and what cannot be.
//!
//! ```text
//!   tumbling      ├──────┼──────┼──────┤        hopping   ├───────────┤           cumulating   ├───┤
//!                                                         │   ├───────────┤                    ├───────┤
//!   calendar      ├ day ─┼ 23 h ┼ day ─┤                  │   │   ├───────────┤                ├───────────┤
//! ```
//!
//! A [`Window`] is described here and cut into slices in `slicing`.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Slicing,
    calendar::{Days, Unit},
    repeats::Repeats,
};
use crate::{OperatorError, Result, time::spelled};

/// More slices than this in one window are taken for a mistake: each is a table, and every window merges all of its own.
const MOST_SLICES: u128 = 100_000;

/// Windows over event time. Made by [`Tumbling`], [`Hopping`], [`Cumulating`] or [`Calendar`]; what cannot be is refused
/// when the plan is built.
///
/// A window gives one result per key, when the watermark passes its end (and the allowed lateness). A row is late as soon
/// as the watermark has passed the next instant after it at which any window begins or ends (and the allowed lateness):
/// then it is in no result at all, so that every result is what a batch computation over the rows that are not late gives.
///
/// With [`Window::corrections`], [`Window::early_every`] or [`Window::early_rows`] a window of aggregates gives more than one
/// result per key. Each is marked by the column `revision`, which counts from 0, and replaces those before it: only the one
/// with the greatest revision is the answer. How many there are depends on how rows arrive and on the clock. Windows that the
/// end of time cuts off to the same bounds are then one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub(super) shape: Shape,
    offset: Duration,
    lateness: Duration,
    pub(super) repeats: Repeats,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Tumbling { size: Duration },
    Hopping { size: Duration, slide: Duration },
    Cumulating { size: Duration, step: Duration },
    Calendar { unit: Unit, zone: Arc<str> },
    Global,
}

/// Windows of one size, side by side: `[0 s, 10 s)`, `[10 s, 20 s)`, …, counted from 1970-01-01T00:00:00Z.
///
/// ```
/// use std::time::Duration;
/// use windrow_operators::window::Tumbling;
/// let window = Tumbling::of(Duration::from_secs(10)).allowed_lateness(Duration::from_secs(30));
/// assert_eq!(window.to_string(), "tumbling 10s, allowed lateness 30s");
/// ```
#[derive(Debug)]
pub enum Tumbling {}

impl Tumbling {
    /// Windows of `size`, in whole microseconds and at least one.
    pub fn of(size: Duration) -> Window {
        Window::new(Shape::Tumbling { size })
    }
}

/// Windows of one size that begin at every `slide`, so that they overlap: the last ten seconds, every two seconds.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::sum;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::window::{AggregatePlan, Hopping};
///
/// let window = Hopping::of(Duration::from_secs(10), Duration::from_secs(2));
/// assert_eq!(window.to_string(), "hopping 10s every 2s");
///
/// let price: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
/// let at = Timestamp::column(vec![0, 3_000_000]);
/// let bids = RecordBatch::try_from_iter([("price", price), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(bids.schema(), "at").unwrap();
/// let plan = AggregatePlan::new(&stream, &[], window, &[sum(col("price"))]).unwrap();
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, bids, &mut out).unwrap();
/// operator.advance(Timestamp::MAX, &mut out).unwrap();
/// let windows = out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
/// assert_eq!(windows, 6, "from [-8 s, 2 s) to [2 s, 12 s)");
/// ```
#[derive(Debug)]
pub enum Hopping {}

impl Hopping {
    /// Windows of `size`, one of which begins at every multiple of `slide`. Both in whole microseconds; `slide` is at
    /// least one and at most `size`, because rows between windows would be in no result.
    pub fn of(size: Duration, slide: Duration) -> Window {
        Window::new(Shape::Hopping { size, slide })
    }
}

/// Windows that begin together and grow: today until one o'clock, today until two, …, today.
///
/// ```
/// use std::time::Duration;
/// use windrow_operators::window::Cumulating;
/// let window = Cumulating::of(Duration::from_secs(3600), Duration::from_secs(600));
/// assert_eq!(window.to_string(), "cumulating 1h by 10min");
/// ```
#[derive(Debug)]
pub enum Cumulating {}

impl Cumulating {
    /// Windows that begin at every multiple of `size` and end after `step`, twice `step`, … until `size`, which is a
    /// multiple of `step`. Both in whole microseconds and at least one.
    pub fn of(size: Duration, step: Duration) -> Window {
        Window::new(Shape::Cumulating { size, step })
    }
}

/// Windows of the calendar of a time zone: from one local midnight to another. So a day has 23 or 25 hours when clocks
/// change, and begins when the clocks first show its date, also where there is no midnight on that day.
///
/// The zone is one of the IANA database, such as `Europe/Berlin`; any other is refused when the plan is built.
///
/// ```
/// use windrow_operators::window::Calendar;
/// assert_eq!(Calendar::months("America/New_York").to_string(), "months in America/New_York");
/// ```
#[derive(Debug)]
pub enum Calendar {}

impl Calendar {
    /// Days.
    pub fn days(zone: &str) -> Window {
        Window::calendar(Unit::Day, zone)
    }

    /// Weeks, which begin on Monday.
    pub fn weeks(zone: &str) -> Window {
        Window::calendar(Unit::Week, zone)
    }

    /// Months.
    pub fn months(zone: &str) -> Window {
        Window::calendar(Unit::Month, zone)
    }

    /// Years.
    pub fn years(zone: &str) -> Window {
        Window::calendar(Unit::Year, zone)
    }
}

impl Window {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, offset: Duration::ZERO, lateness: Duration::ZERO, repeats: Repeats::default() }
    }

    fn calendar(unit: Unit, zone: &str) -> Self {
        Self::new(Shape::Calendar { unit, zone: zone.into() })
    }

    /// Moves the windows: hours that begin at a quarter past have the offset of 15 minutes. Not for a calendar.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Self { offset, ..self }
    }

    /// Keeps a window open until the watermark is `lateness` past its end. It then gives one final result. The price is
    /// that every result comes so much later, unless there are [`Window::corrections`].
    #[must_use]
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Whether it is all time.
    pub(super) fn is_global(&self) -> bool {
        self.shape == Shape::Global
    }

    /// The same windows, closed as soon as the watermark passes their end.
    pub(super) fn without_lateness(&self) -> Self {
        Self { lateness: Duration::ZERO, ..self.clone() }
    }

    /// How long a window waits for late rows.
    pub(crate) fn lateness(&self) -> Duration {
        self.lateness
    }

    /// Which windows these are, however long they wait for late rows. Part of the form of the state.
    pub(crate) fn describe(&self) -> String {
        let once = Self { repeats: Repeats::default(), ..self.without_lateness() };
        // On which occasions may change: the state is the same.
        let revised = if self.repeats.is_none() { "" } else { ", with revisions" };
        format!("{once}{revised}")
    }

    /// The slices of these windows; fails when there can be no such windows.
    pub fn slicing(&self) -> Result<Slicing> {
        let refuse = |why: String| Err(OperatorError::Plan(format!("a window {self}: {why}")));
        let micros = |span: Duration| span.as_micros();
        match &self.shape {
            Shape::Tumbling { size } => {
                self.whole(&[*size])?;
                Ok(Slicing::tumbling(micros(*size), micros(self.offset)))
            }
            Shape::Hopping { size, slide } => {
                self.whole(&[*size, *slide])?;
                if slide > size {
                    return refuse(
                        "between two windows there would be rows in no window: slide by at most the size".into(),
                    );
                }
                let (size, slide) = (micros(*size), micros(*slide));
                self.bounded(size.div_ceil(slide) * if size.is_multiple_of(slide) { 1 } else { 2 })?;
                Ok(Slicing::hopping(size, slide, micros(self.offset)))
            }
            Shape::Cumulating { size, step } => {
                self.whole(&[*size, *step])?;
                let (size, step) = (micros(*size), micros(*step));
                if !size.is_multiple_of(step) {
                    return refuse("the last step would be cut off: take a size that is a multiple of the step".into());
                }
                self.bounded(size / step)?;
                Ok(Slicing::cumulating(size, step, micros(self.offset)))
            }
            Shape::Calendar { unit, zone } => {
                if !self.offset.is_zero() {
                    return refuse("windows of the calendar begin at local midnight: leave out .offset(…)".into());
                }
                Ok(Slicing::calendar(Days::new(*unit, zone)?))
            }
            Shape::Global => {
                if !self.offset.is_zero() || !self.lateness.is_zero() {
                    return refuse(
                        "all time does not move and no row is late: leave out .offset(…) and .allowed_lateness(…)"
                            .into(),
                    );
                }
                Ok(Slicing::global())
            }
        }
    }

    /// Refuses what is not whole microseconds, and nothing at all.
    fn whole(&self, spans: &[Duration]) -> Result<()> {
        match spans.iter().all(|span| is_whole(*span) && !span.is_zero()) && is_whole(self.offset) {
            true => Ok(()),
            false => Err(OperatorError::Plan(format!(
                "a window {}: its spans and its offset are whole microseconds, the spans at least one",
                self.describe()
            ))),
        }
    }

    /// Refuses windows of very many slices.
    fn bounded(&self, slices: u128) -> Result<()> {
        match slices <= MOST_SLICES {
            true => Ok(()),
            false => Err(OperatorError::Plan(format!(
                "a window {self}: every window would be made of {slices} slices and every row be in as many results; at most \
                 {MOST_SLICES}"
            ))),
        }
    }
}

/// Whether it is whole microseconds.
pub(super) fn is_whole(span: Duration) -> bool {
    span.subsec_nanos().is_multiple_of(1_000)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            // As it stands in checkpoints, and so it stays: `tumbling 3600s`.
            Shape::Tumbling { size } => write!(f, "tumbling {}", spelled(*size))?,
            Shape::Hopping { size, slide } => write!(f, "hopping {} every {}", Span(*size), Span(*slide))?,
            Shape::Cumulating { size, step } => write!(f, "cumulating {} by {}", Span(*size), Span(*step))?,
            Shape::Calendar { unit, zone } => write!(f, "{unit} in {zone}")?,
            Shape::Global => f.write_str("all time")?,
        }
        if !self.offset.is_zero() {
            write!(f, " from {}", spelled(self.offset))?;
        }
        if !self.lateness.is_zero() {
            write!(f, ", allowed lateness {}", spelled(self.lateness))?;
        }
        write!(f, "{}", self.repeats)
    }
}

/// In hours or minutes when it is whole ones.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match self.0.subsec_nanos() == 0 && seconds > 0 {
            true if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
            true if seconds.is_multiple_of(60) => write!(f, "{}min", seconds / 60),
            _ => f.write_str(&spelled(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn refused(window: &Window, words: &[&str]) {
        let message = window.slicing().unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let zero = Duration::ZERO;
        let odd = Duration::from_nanos(1_500);
        let whole = &["whole microseconds"][..];
        refused(&Tumbling::of(zero), whole);
        refused(&Tumbling::of(odd), whole);
        refused(&Tumbling::of(Duration::MAX), whole);
        refused(&Tumbling::of(secs(1)).offset(odd), whole);
        assert!(Tumbling::of(secs(u64::MAX)).slicing().is_ok(), "all time is one window");
        for window in [Hopping::of(zero, zero), Hopping::of(secs(1), zero), Hopping::of(secs(1), odd)] {
            refused(&window, whole);
        }
        for window in [Cumulating::of(zero, zero), Cumulating::of(secs(1), zero), Cumulating::of(odd, odd)] {
            refused(&window, whole);
        }
        refused(&Hopping::of(secs(2), secs(3)), &["hopping 2s every 3s", "no window", "at most the size"]);
        refused(&Cumulating::of(secs(5), secs(2)), &["cumulating 5s by 2s", "multiple of the step"]);
        refused(&Cumulating::of(secs(2), secs(5)), &["multiple of the step"]);
    }

    #[test]
    fn too_many_slices_are_refused() {
        assert!(Hopping::of(secs(100_000), secs(1)).slicing().is_ok());
        refused(&Hopping::of(secs(100_001), secs(1)), &["100001 slices", "at most 100000"]);
        refused(&Hopping::of(secs(200_001), secs(4)), &["100002 slices"]);
        refused(&Cumulating::of(secs(u64::MAX), secs(1)), &["at most 100000"]);
        assert!(Cumulating::of(secs(u64::MAX), secs(u64::MAX)).slicing().is_ok());
    }

    #[test]
    fn they_say_what_they_are() {
        let texts = [
            (Hopping::of(secs(10), secs(2)), "hopping 10s every 2s"),
            (Hopping::of(secs(7200), secs(90)).offset(secs(3)), "hopping 2h every 90s from 3s"),
            (
                Cumulating::of(secs(3600), secs(600)).allowed_lateness(secs(1)),
                "cumulating 1h by 10min, allowed lateness 1s",
            ),
            (Calendar::days("Europe/Berlin"), "days in Europe/Berlin"),
            (Calendar::weeks("UTC"), "weeks in UTC"),
            (Calendar::years("UTC"), "years in UTC"),
            (Tumbling::of(secs(3600)), "tumbling 3600s"),
        ];
        for (window, text) in texts {
            assert_eq!(window.to_string(), text);
        }
    }

    #[test]
    fn a_zone_that_does_not_exist_is_refused_with_the_likely_one() {
        refused(&Calendar::days("Europe/Berln"), &["\"Europe/Berln\"", "did you mean \"Europe/Berlin\"?"]);
        refused(&Calendar::days("berlin"), &["did you mean \"Europe/Berlin\"?"]);
        refused(&Calendar::months("Mars/Olympus_Mons_Base"), &["no time zone", "IANA"]);
        refused(&Calendar::days("UTC").offset(secs(60)), &["local midnight", ".offset("]);
    }
}
