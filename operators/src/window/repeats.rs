//! Windows that give more than one result: on which occasions, and which windows can.
//!
//! ```text
//!   corrections    after the end, of groups to which late rows have come        needs allowed lateness
//!   early          before the end, by the clock or by the number of rows
//!   Global         all time: early results, and one at the end of the input
//! ```

use std::{fmt, time::Duration};

use super::{
    Window,
    spec::{Shape, Span, is_whole},
};
use crate::{OperatorError, Result};

/// On which occasions a window or a session gives more results than the final one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeats {
    pub(crate) corrections: bool,
    pub(crate) every: Option<Duration>,
    pub(crate) rows: Option<u32>,
}

impl Repeats {
    /// Whether there are none: one final result.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// These, if there are any; fails when there can be none of what waits for late rows as long as `lateness`, as `what`
    /// says it.
    pub(crate) fn checked(&self, lateness: Duration, what: impl Fn() -> String) -> Result<Option<&Self>> {
        let refuse = |why: &str| Err(OperatorError::Plan(format!("{}: {why}", what())));
        match self {
            none if none.is_none() => Ok(None),
            Self { corrections: true, .. } if lateness.is_zero() => {
                refuse("corrections are made of rows that come late: say how late with .allowed_lateness(…)")
            }
            Self { rows: Some(0), .. } => refuse("early results come after at least one row: say after how many"),
            Self { every: Some(every), .. } if every.is_zero() || !is_whole(*every) => {
                refuse("early results come every so many whole microseconds, at least one")
            }
            some => Ok(Some(some)),
        }
    }
}

impl fmt::Display for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.corrections {
            f.write_str(", with corrections")?;
        }
        if let Some(every) = self.every {
            write!(f, ", early every {}", Span(every))?;
        }
        if let Some(rows) = self.rows {
            write!(f, ", early after {rows} rows")?;
        }
        Ok(())
    }
}

/// One window over all time, which gives results while it goes on: the number of bids per auction so far.
///
/// Of each key whose rows have changed it gives a result now and then, and one at the end of the input if there is one. The
/// result has no `window_start` and no `window_end`, but a column `revision` that counts the results of the key from 0, then
/// the key and the aggregates. It has no event time, and the input needs none: no row is late.
///
/// The state of a key is kept for ever, also over the end of the input: whoever goes on with the job goes on with it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::sum;
/// use windrow_operators::{Outbox, Plan, Port, StreamSchema};
/// use windrow_operators::window::{AggregatePlan, Global};
///
/// assert_eq!(Global::every(Duration::from_secs(5)).to_string(), "all time, early every 5s");
/// let price: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
/// let bids = RecordBatch::try_from_iter([("price", price)]).unwrap();
/// let stream = StreamSchema::without_time(bids.schema());
/// let plan = AggregatePlan::new(&stream, &[], Global::every_rows(2), &[sum(col("price"))]).unwrap();
/// assert_eq!(plan.output().to_string(), "revision Int64, sum(price) Int64");
/// let mut operator = Plan::whole(&plan).unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, bids, &mut out).unwrap();
/// assert_eq!(out.drain().count(), 1, "two rows have come");
/// ```
#[derive(Debug)]
pub enum Global {}

impl Global {
    /// With results every `span` of processing time, in whole microseconds and at least one.
    pub fn every(span: Duration) -> Window {
        Window::new(Shape::Global).early_every(span)
    }

    /// With a result of a key when at least `rows` rows have come to it since its last one. Looked at once per batch.
    pub fn every_rows(rows: u32) -> Window {
        Window::new(Shape::Global).early_rows(rows)
    }
}

impl Window {
    /// Does not wait for late rows: a window gives its first result when the watermark passes its end. Rows that come within
    /// the allowed lateness, of which there must be some, make a new result of their groups, with the next `revision`, at
    /// the next watermark: of hopping and cumulating windows in each that the row is in and that is past its end.
    ///
    /// What is promised downstream is still as late as the last correction, so that none is late for a window that follows.
    ///
    /// From its end on until the lateness is over, a hopping or cumulating window holds each of its keys with the number of
    /// its results, and each of its results is merged of all its slices: with `n` steps, those of one cumulating window cost
    /// about `n²/2` slices. With long windows, small steps and many keys, allow little lateness.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    /// use arrow::datatypes::Int64Type;
    /// use datafusion_expr::col;
    /// use datafusion_functions_aggregate::expr_fn::sum;
    /// use windrow_operators::{Outbox, Plan, Port, StreamSchema, Timestamp};
    /// use windrow_operators::window::{AggregatePlan, Tumbling};
    ///
    /// let bid = |price: i64, at: i64| {
    ///     let price: ArrayRef = Arc::new(Int64Array::from(vec![price]));
    ///     RecordBatch::try_from_iter([("price", price), ("at", Timestamp::column(vec![at]))]).unwrap()
    /// };
    /// let window = Tumbling::of(Duration::from_micros(10)).allowed_lateness(Duration::from_micros(30)).corrections();
    /// let stream = StreamSchema::with_time(bid(0, 0).schema(), "at").unwrap();
    /// let plan = AggregatePlan::new(&stream, &[], window, &[sum(col("price"))]).unwrap();
    /// let mut operator = Plan::whole(&plan).unwrap();
    /// let mut out = Outbox::new();
    /// let mut results = Vec::new();
    /// for (price, at, watermark) in [(5, 3, 12), (7, 4, 20), (0, 25, 29)] {
    ///     operator.process(Port::MAIN, bid(price, at), &mut out).unwrap();
    ///     operator.advance(Timestamp::from_micros(watermark), &mut out).unwrap();
    ///     let value = |rows: &RecordBatch, column: usize| rows.column(column).as_primitive::<Int64Type>().value(0);
    ///     results.extend(out.drain().map(|(_, rows)| (value(&rows, 2), value(&rows, 3))));
    /// }
    /// assert_eq!(results, [(0, 5), (1, 12)], "(revision, sum) of the window [0, 10)");
    /// ```
    #[must_use]
    pub fn corrections(mut self) -> Self {
        self.repeats.corrections = true;
        self
    }

    /// Gives results of a window before its end, too: every `span` of processing time, of the groups that have changed since
    /// their last result. In whole microseconds and at least one. With [`Window::corrections`] those that come after the
    /// end do not wait for the clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use windrow_operators::window::Calendar;
    /// let window = Calendar::days("Europe/Berlin").early_every(Duration::from_secs(10));
    /// assert_eq!(window.to_string(), "days in Europe/Berlin, early every 10s");
    /// ```
    #[must_use]
    pub fn early_every(mut self, span: Duration) -> Self {
        self.repeats.every = Some(span);
        self
    }

    /// Gives results of a window before its end, too: of a group when at least `rows` rows have come to it since its last
    /// result. Looked at once per batch, so how many results there are depends on how rows arrive.
    ///
    /// Each batch that makes a result costs a copy of the states of all groups of the window, as does a tick of
    /// [`Window::early_every`]: with very many keys take so many rows that it is seldom, or the clock. With early results
    /// of hopping and cumulating windows each row is counted, though not aggregated, once per window that it is in, and each
    /// of these windows has its own results, each merged of all its slices.
    #[must_use]
    pub fn early_rows(mut self, rows: u32) -> Self {
        self.repeats.rows = Some(rows);
        self
    }

    /// On which occasions there are more results than the final one, if there are any; fails when there can be none.
    pub(super) fn repeats(&self) -> Result<Option<&Repeats>> {
        if self.repeats.corrections && self.shape == Shape::Global {
            return Err(OperatorError::Plan(format!(
                "a window {self}: all time has no end after which there could be corrections: leave out .corrections()"
            )));
        }
        self.repeats.checked(self.lateness(), || format!("a window {self}"))
    }

    /// Refuses windows that give more than one result; `what` gives only one.
    pub(crate) fn only_final(&self, what: &str) -> Result<()> {
        match self.repeats()? {
            None => Ok(()),
            Some(_) => Err(OperatorError::Plan(format!(
                "a window {self}: {what} are given once, when they are final, because a row that comes may \
                 take back others: leave out .corrections() and .early_…(…), which are for aggregates"
            ))),
        }
    }
}
