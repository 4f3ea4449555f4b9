//! How a source declares event time: the column, its unit, and what its rows promise about those that will follow.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::TimeUnit};
use windrow_operators::{Timestamp, time::spelled};

/// Which column holds event time, and in which unit when it is a plain number.
///
/// A timestamp column, or RFC 3339 text, needs no unit, so its name is enough: `.event_time("at", …)`.
///
/// ```
/// use windrow::EventTime;
/// let unix_seconds = EventTime::column("Timestamp").seconds();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    pub(crate) column: String,
    pub(crate) unit: Option<TimeUnit>,
}

impl EventTime {
    /// The column called `column`: [`EventTime`] has an example, and [`Stream::event_time`](crate::Stream::event_time) one that runs.
    pub fn column(column: impl Into<String>) -> Self {
        Self { column: column.into(), unit: None }
    }

    /// Numbers count seconds since 1970. [`EventTime`] has an example.
    #[must_use]
    pub fn seconds(self) -> Self {
        Self { unit: Some(TimeUnit::Second), ..self }
    }

    /// Numbers count milliseconds since 1970. As [`seconds`](Self::seconds).
    #[must_use]
    pub fn millis(self) -> Self {
        Self { unit: Some(TimeUnit::Millisecond), ..self }
    }

    /// Numbers count microseconds since 1970. As [`seconds`](Self::seconds).
    #[must_use]
    pub fn micros(self) -> Self {
        Self { unit: Some(TimeUnit::Microsecond), ..self }
    }

    /// Numbers count nanoseconds since 1970. The engine keeps microseconds; what is finer is rounded down. As
    /// [`seconds`](Self::seconds).
    #[must_use]
    pub fn nanos(self) -> Self {
        Self { unit: Some(TimeUnit::Nanosecond), ..self }
    }
}

impl From<&str> for EventTime {
    fn from(column: &str) -> Self {
        Self::column(column)
    }
}

/// How watermarks follow from the rows of each split.
///
/// The watermark of a split is the latest event time it has delivered, less the out-of-orderness: no earlier row is
/// expected. What comes earlier all the same is late, if its window has been closed: windows close between two batches,
/// so beyond the bound it depends on the batches which rows are late. Within the bound none is.
///
/// ```
/// use std::time::Duration;
/// use windrow::Watermarks;
/// let w = Watermarks::out_of_order(Duration::from_secs(5)).idle_after(Duration::from_secs(30));
/// assert_eq!(w.to_string(), "out of order by 5s, idle after 30s");
/// ```
#[derive(Clone, Debug)]
pub struct Watermarks {
    pub(crate) strategy: Strategy,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) max_future: Option<Duration>,
    pub(crate) align_within: Option<Duration>,
}

/// Where the watermark of a split comes from.
#[derive(Clone)]
pub(crate) enum Strategy {
    /// Its latest row, less this.
    OutOfOrder(Duration),
    /// A generator of the user's for each split.
    Custom(Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>),
    /// The clock, whether rows come or not.
    Clock,
}

impl Watermarks {
    /// Rows of a split may be earlier than its latest row by at most `bound`.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// assert_eq!(Watermarks::out_of_order(secs(5)).to_string(), "out of order by 5s");
    /// ```
    pub fn out_of_order(bound: Duration) -> Self {
        Self::of(Strategy::OutOfOrder(bound))
    }

    /// Each split is in order of event time.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// assert_eq!(Watermarks::in_order().to_string(), "in order");
    /// ```
    pub fn in_order() -> Self {
        Self::out_of_order(Duration::ZERO)
    }

    /// Watermarks by a rule of your own: each split has a generator, which `generator` makes. See
    /// [`WatermarkGenerator`].
    pub fn custom<G: WatermarkGenerator + 'static>(generator: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self::of(Strategy::Custom(Arc::new(move || Box::new(generator()))))
    }

    /// The watermark follows the clock.
    pub(crate) fn clock() -> Self {
        Self::of(Strategy::Clock)
    }

    fn of(strategy: Strategy) -> Self {
        Self { strategy, idle_after: None, max_future: None, align_within: None }
    }

    /// A split that has delivered nothing for `span` of processing time does not hold the others back. Without this a
    /// silent split keeps every window open, because it might still bring an early row.
    ///
    /// Its silence counts from the start of the job, also when it goes on from a checkpoint in which the split was idle. A split of
    /// which records are known to wait is never idle: it is behind. Nor is one that cannot be read for now, because nobody leads a
    /// partition, say, unless it begins behind all there is.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// assert_eq!(Watermarks::in_order().idle_after(mins(1)).to_string(), "in order, idle after 60s");
    /// ```
    #[must_use]
    pub fn idle_after(self, span: Duration) -> Self {
        Self { idle_after: Some(span), ..self }
    }

    /// A row whose event time lies more than `span` after the processing time does not move the watermark. Without this
    /// one row that is stamped a year ahead, by a clock that is wrong, makes all that follow late.
    ///
    /// The row itself stays, in the window that it says. Such rows are counted:
    /// [`OperatorMetrics::future`](crate::metrics::OperatorMetrics::future). When all rows of a batch are from the future
    /// the watermark moves as if they lay `span` after the processing time, so that a split whose clock runs ahead goes
    /// on too. With a `span` no longer than the out-of-orderness this makes no row late that is read as soon as it is
    /// written.
    ///
    /// If there are rows from the future, it depends on the clock of this machine and on the batches which rows are late.
    /// If there are none nothing does.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// let w = Watermarks::out_of_order(secs(30)).max_future(secs(10));
    /// assert_eq!(w.to_string(), "out of order by 30s, at most 10s into the future");
    /// ```
    #[must_use]
    pub fn max_future(self, span: Duration) -> Self {
        Self { max_future: Some(span), ..self }
    }

    /// A split whose watermark is more than `drift` ahead of the slowest split is not read until that has caught up: what
    /// it would bring could only wait, in windows and joins, for the slow one. The slowest is sought among the splits of
    /// all sources of the job for which this is said. Results do not depend on it, only how much has to be held.
    ///
    /// * Splits that have ended or are idle hold nobody: say [`idle_after`](Self::idle_after) for sources that may fall
    ///   silent, or a silent split stops the others, as it stops all windows. A split that waits does not become idle; its silence
    ///   counts from when it is read again.
    /// * A split that has not delivered a row yet holds nobody if its task has read others.
    /// * A split is a batch further ahead than `drift` when it is paused.
    /// * A source that cannot leave out one of its splits is paused as a whole, per task, when all of them are ahead.
    ///
    /// Who waits, and for whom: [`OperatorMetrics::paused`](crate::metrics::OperatorMetrics::paused).
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// assert_eq!(Watermarks::in_order().align_within(mins(2)).to_string(), "in order, aligned within 120s");
    /// ```
    #[must_use]
    pub fn align_within(self, drift: Duration) -> Self {
        Self { align_within: Some(drift), ..self }
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder(bound) if bound.is_zero() => write!(f, "in order"),
            Self::OutOfOrder(bound) => write!(f, "out of order by {}", spelled(*bound)),
            Self::Custom(_) => write!(f, "by a custom rule"),
            Self::Clock => write!(f, "processing time"),
        }
    }
}

impl fmt::Display for Watermarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.strategy)?;
        if let Some(span) = self.idle_after {
            write!(f, ", idle after {}", spelled(span))?;
        }
        if let Some(span) = self.max_future {
            write!(f, ", at most {} into the future", spelled(span))?;
        }
        match self.align_within {
            Some(drift) => write!(f, ", aligned within {}", spelled(drift)),
            None => Ok(()),
        }
    }
}

/// Says how far the watermark of one split may move. [`Watermarks::custom`] makes one for each split.
///
/// It is asked after each batch, and answers only when it has something to say. So it may follow every row, or wait for
/// rows that mark a time (punctuation), or for so many rows or so much event time. It is not asked while nothing comes:
/// that is what [`Watermarks::idle_after`] is for. It should depend on nothing but the rows, or the results will depend
/// on when the job runs.
///
/// The engine keeps what has to be kept: a watermark never goes backwards, and only the end of the stream is the end of
/// time. After a restore the watermark stands where it stood.
///
/// ```
/// use windrow::{WatermarkGenerator, arrow::array::{AsArray, RecordBatch}, prelude::*};
///
/// /// A row whose `kind` is "tick" says that all earlier rows have come.
/// struct Ticks;
///
/// impl WatermarkGenerator for Ticks {
///     fn after_rows(&mut self, rows: &RecordBatch, times: &[i64]) -> Option<Timestamp> {
///         let kinds = rows.column_by_name("kind")?.as_string_opt::<i32>()?;
///         let last = kinds.iter().rposition(|kind| kind == Some("tick"))?;
///         Some(Timestamp::from_micros(times[last]))
///     }
/// }
///
/// let watermarks = Watermarks::custom(|| Ticks).idle_after(secs(30));
/// assert_eq!(watermarks.to_string(), "by a custom rule, idle after 30s");
/// ```
pub trait WatermarkGenerator: Send {
    /// The split has delivered `rows`, in the columns of the source, with these event times in microseconds since 1970.
    /// From now on no row earlier than what is returned is expected; with `None` nothing changes.
    ///
    /// There is at least one row, and those that were rejected are not among them. With [`Watermarks::max_future`] a
    /// row from the future is given with the latest time of the batch that is not.
    fn after_rows(&mut self, rows: &RecordBatch, times: &[i64]) -> Option<Timestamp>;

    /// The job goes on from a checkpoint, in which the latest row of this split was at `latest`. Called once, before the
    /// first row. A generator that remembers more than that begins anew.
    fn restore(&mut self, latest: Timestamp) {
        let _ = latest;
    }
}
