//! How a source declares event time: the column, its unit, and how far out of order rows may come.

use std::{fmt, time::Duration};

use arrow::datatypes::TimeUnit;

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
    /// The column called `column`.
    pub fn column(column: impl Into<String>) -> Self {
        Self { column: column.into(), unit: None }
    }

    /// Numbers count seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> Self {
        Self { unit: Some(TimeUnit::Second), ..self }
    }

    /// Numbers count milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> Self {
        Self { unit: Some(TimeUnit::Millisecond), ..self }
    }

    /// Numbers count microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> Self {
        Self { unit: Some(TimeUnit::Microsecond), ..self }
    }

    /// Numbers count nanoseconds since 1970. The engine keeps microseconds; what is finer is rounded down.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    pub(crate) bound: Duration,
    pub(crate) idle_after: Option<Duration>,
}

impl Watermarks {
    /// Rows of a split may be earlier than its latest row by at most `bound`.
    pub fn out_of_order(bound: Duration) -> Self {
        Self { bound, idle_after: None }
    }

    /// Each split is in order of event time.
    pub fn in_order() -> Self {
        Self::out_of_order(Duration::ZERO)
    }

    /// A split that has delivered nothing for `span` of processing time does not hold the others back. Without this a
    /// silent split keeps every window open, because it might still bring an early row.
    #[must_use]
    pub fn idle_after(self, span: Duration) -> Self {
        Self { idle_after: Some(span), ..self }
    }
}

impl fmt::Display for Watermarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Duration::ZERO => write!(f, "in order")?,
            bound => write!(f, "out of order by {bound:?}")?,
        }
        match self.idle_after {
            Some(span) => write!(f, ", idle after {span:?}"),
            None => Ok(()),
        }
    }
}
