//! What a session is: the gap that ends it, the same for all rows or each row's own, how late a row may be, and on which
//! occasions there are results.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::{Array, RecordBatch, cast::AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit},
};
use datafusion_expr::Expr;

use crate::{
    OperatorError, Result, StreamSchema,
    expr::{Lowering, describe, evaluate},
    time::{micros_of, spelled},
    typed::{Record, Rows},
    window::repeats::Repeats,
};

/// Gives the gap of each row of a batch, in microseconds.
type ReadGaps = Arc<dyn Fn(&RecordBatch) -> Result<Vec<i64>> + Send + Sync>;
/// Makes one for a stream.
type BindGaps = Arc<dyn Fn(&StreamSchema) -> Result<ReadGaps> + Send + Sync>;

/// Sessions: stretches of rows without a gap of silence between them.
///
/// A row at `t` keeps its session open until `t + gap`, and a row before that instant belongs to the same session. So
/// a row that comes exactly `gap` after the last one begins a new session.
///
/// ```
/// use std::time::Duration;
/// use windrow_operators::session::Session;
/// let session = Session::gap(Duration::from_secs(30)).allowed_lateness(Duration::from_secs(5));
/// assert_eq!(session.to_string(), "session gap 30s, allowed lateness 5s");
/// ```
///
/// Each row may bring its own gap, here longer for those who bid much:
///
/// ```
/// use std::time::Duration;
/// use typed_arrow::prelude::*;
/// use windrow_operators::session::Session;
///
/// #[derive(Record)]
/// struct Bid { bidder: i64, price: i64 }
///
/// let session = Session::gap_of::<Bid>(|bid| Duration::from_secs(if bid.price > 100 { 60 } else { 10 }));
/// ```
#[derive(Clone)]
pub struct Session {
    gap: Gap,
    lateness: Duration,
    repeats: Repeats,
}

#[derive(Clone)]
enum Gap {
    Fixed(Duration),
    Expr(Expr),
    Rows(BindGaps),
}

impl Session {
    /// Sessions that end after `gap` without a row, in whole microseconds and at least one.
    pub fn gap(gap: Duration) -> Self {
        Self::new(Gap::Fixed(gap))
    }

    /// Each row brings its own gap: what the closure says of it. A gap of less than a microsecond counts as one.
    ///
    /// A checkpoint cannot tell whether the closure is still the same: sessions that are restored keep the ends that
    /// they had.
    pub fn gap_of<T: Record>(gap: impl for<'a> Fn(T::View<'a>) -> Duration + Send + Sync + 'static) -> Self {
        let gap = Arc::new(gap);
        let bind = move |stream: &StreamSchema| {
            let (rows, gap) = (Rows::<T>::new(stream)?, gap.clone());
            let read = move |batch: &RecordBatch| {
                let columns = rows.columns(batch)?;
                rows.views(&columns)?.map(|view| Ok(micros_of(gap(view?)).max(1))).collect()
            };
            Ok(Arc::new(read) as ReadGaps)
        };
        Self::new(Gap::Rows(Arc::new(bind)))
    }

    /// Each row brings its own gap: the value of `gap`, a `Duration` or a whole number of microseconds. A gap that is
    /// zero, negative or null counts as one microsecond.
    pub fn gap_expr(gap: Expr) -> Self {
        Self::new(Gap::Expr(gap))
    }

    fn new(gap: Gap) -> Self {
        Self { gap, lateness: Duration::ZERO, repeats: Repeats::default() }
    }

    /// Keeps a session open until the watermark is `lateness` past its end. It then gives one final result. The price
    /// is that every result comes so much later, unless there are [`Session::corrections`].
    #[must_use]
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness, ..self }
    }

    /// Does not wait for late rows: a session gives its first result when the watermark passes its end. Rows that join it
    /// within the allowed lateness, of which there must be some, make a new result at the next watermark.
    ///
    /// Such a row may make the session longer, or one of two. So with this, [`Session::early_every`] or
    /// [`Session::early_rows`] **a result replaces all former ones of its key that lie within its bounds**; the one that
    /// lies within no other of its key with a greater `revision` is the answer. The column `revision`, after `window_end`, is 0
    /// for a result that replaces none, and else one more than the greatest of those that it replaces.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    /// use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    /// use datafusion_expr::col;
    /// use datafusion_functions_aggregate::expr_fn::sum;
    /// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
    /// use windrow_operators::session::{Session, SessionPlan};
    ///
    /// let click = |n: i64, at: i64| {
    ///     let n: ArrayRef = Arc::new(Int64Array::from(vec![n]));
    ///     RecordBatch::try_from_iter([("n", n), ("at", Timestamp::column(vec![at]))]).unwrap()
    /// };
    /// let session = Session::gap(Duration::from_micros(10)).allowed_lateness(Duration::from_micros(50)).corrections();
    /// let stream = StreamSchema::with_time(click(0, 0).schema(), "at").unwrap();
    /// let plan = SessionPlan::new(&stream, &[], session, &[sum(col("n"))]).unwrap();
    /// let mut operator = plan.whole().unwrap();
    /// let mut out = Outbox::new();
    /// let mut results = Vec::new();
    /// for (n, at, watermark) in [(1, 0, 0), (2, 15, 30), (4, 8, 31)] {
    ///     operator.process(Port::MAIN, click(n, at), &mut out).unwrap();
    ///     operator.advance(Timestamp::from_micros(watermark), &mut out).unwrap();
    ///     for (_, rows) in out.drain() {
    ///         let time = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    ///         let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
    ///         results.push((time(0), time(1), number(2), number(3)));
    ///     }
    /// }
    /// assert_eq!(results, [
    ///     (vec![0, 15], vec![10, 25], vec![0, 0], vec![1, 2]), // two sessions
    ///     (vec![0], vec![25], vec![1], vec![7]),               // a row at 8 makes one of them: both are replaced
    /// ]);
    /// ```
    #[must_use]
    pub fn corrections(mut self) -> Self {
        self.repeats.corrections = true;
        self
    }

    /// Gives results of a session before its end, too: every `span` of processing time, of the sessions to which rows have
    /// come since their last result. In whole microseconds and at least one. What a result replaces see
    /// [`Session::corrections`]; with those the results that come after the end do not wait for the clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// use windrow_operators::session::Session;
    /// let session = Session::gap(Duration::from_secs(1800)).early_every(Duration::from_secs(60));
    /// assert_eq!(session.to_string(), "session gap 1800s, early every 1min");
    /// ```
    #[must_use]
    pub fn early_every(mut self, span: Duration) -> Self {
        self.repeats.every = Some(span);
        self
    }

    /// Gives results of a session before its end, too: when at least `rows` rows have come to it since its last result.
    /// Looked at once per batch, so how many results there are depends on how rows arrive. What a result replaces see
    /// [`Session::corrections`].
    #[must_use]
    pub fn early_rows(mut self, rows: u32) -> Self {
        self.repeats.rows = Some(rows);
        self
    }

    /// On which occasions there are more results than the final one, if there are any; fails when there can be none.
    pub(super) fn repeats(&self) -> Result<Option<&Repeats>> {
        self.repeats.checked(self.lateness, || format!("a {self}"))
    }

    /// How long a session waits for late rows.
    pub(super) fn lateness(&self) -> Duration {
        self.lateness
    }

    /// Which sessions these are, however long they wait for late rows.
    pub(super) fn describe(&self) -> Result<String> {
        let gap = match &self.gap {
            Gap::Expr(gap) => format!("session gap {}", describe(gap)?),
            _ => Self::new(self.gap.clone()).to_string(),
        };
        // On which occasions may change: the state is the same.
        Ok(if self.repeats.is_none() { gap } else { gap + ", with revisions" })
    }

    /// What tells the gaps of the rows of `stream`.
    pub(super) fn gaps(&self, stream: &StreamSchema) -> Result<Gaps> {
        match &self.gap {
            Gap::Fixed(gap) if gap.is_zero() || !gap.subsec_nanos().is_multiple_of(1_000) => {
                let what = "a session gap is whole microseconds, at least one";
                Err(OperatorError::Plan(format!("a session with a gap of {}: {what}", spelled(*gap))))
            }
            Gap::Fixed(gap) => Ok(Gaps::Fixed(micros_of(*gap))),
            Gap::Rows(bind) => Ok(Gaps::Each(bind(stream)?)),
            Gap::Expr(gap) => of_expression(gap, stream),
        }
    }
}

fn of_expression(gap: &Expr, stream: &StreamSchema) -> Result<Gaps> {
    let (physical, data_type) = Lowering::new(stream)?.scalar(gap)?;
    // Microseconds for one unit, or units for one microsecond. Arrow's own cast would make nulls of long gaps.
    let (times, parts) = match &data_type {
        DataType::UInt64 => (0, 0),
        other if other.is_integer() => (1, 1),
        DataType::Duration(TimeUnit::Second) => (1_000_000, 1),
        DataType::Duration(TimeUnit::Millisecond) => (1_000, 1),
        DataType::Duration(TimeUnit::Microsecond) => (1, 1),
        DataType::Duration(TimeUnit::Nanosecond) => (1, 1_000),
        _ => (0, 0),
    };
    if parts == 0 {
        let what = "a session gap is a signed integer of microseconds or a Duration: cast it";
        return Err(OperatorError::Plan(format!("{gap} is {data_type}, but {what}")));
    }
    Ok(Gaps::Each(Arc::new(move |batch| {
        let gaps = cast(&evaluate(physical.as_ref(), batch)?, &DataType::Int64)?;
        let gaps = gaps.as_primitive::<Int64Type>();
        let micros = |gap: Option<i64>| (gap.unwrap_or(0).saturating_mul(times) / parts).max(1);
        match gaps.null_count() {
            0 => Ok(gaps.values().iter().map(|gap| micros(Some(*gap))).collect()),
            _ => Ok(gaps.iter().map(micros).collect()),
        }
    })))
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gap {
            Gap::Fixed(gap) => write!(f, "session gap {}", spelled(*gap))?,
            Gap::Expr(gap) => write!(f, "session gap {gap}")?,
            Gap::Rows(_) => write!(f, "session gap by a closure")?,
        }
        if !self.lateness.is_zero() {
            write!(f, ", allowed lateness {}", spelled(self.lateness))?;
        }
        write!(f, "{}", self.repeats)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

/// Tells the gaps of rows, in microseconds: each at least one.
#[derive(Clone)]
pub(super) enum Gaps {
    Fixed(i64),
    Each(ReadGaps),
}

impl Gaps {
    /// The gap of each row of a batch, or the one of all.
    pub(super) fn read(&self, batch: &RecordBatch) -> Result<RowGaps> {
        Ok(match self {
            Self::Fixed(gap) => RowGaps::Same(*gap),
            Self::Each(read) => RowGaps::Each(read(batch)?),
        })
    }
}

/// The gaps of the rows of one batch.
pub(super) enum RowGaps {
    Same(i64),
    Each(Vec<i64>),
}

impl RowGaps {
    pub(super) fn of(&self, row: usize) -> i64 {
        match self {
            Self::Same(gap) => *gap,
            Self::Each(gaps) => gaps[row],
        }
    }
}

/// A stretch of event time: `start` inclusive, `end` exclusive and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Span {
    /// What a row at `time` with this gap spans. Nothing could say where a session of the last instant ends, so that
    /// instant counts as the one before it; gaps that reach beyond the end of time stop there.
    pub(super) fn of_row(time: i64, gap: i64) -> Self {
        let start = time.min(i64::MAX - 1);
        Self { start, end: start.saturating_add(gap) }
    }

    /// From the beginning of the first to the end of the last.
    pub(super) fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DurationSecondArray, Int16Array};
    use datafusion_expr::col;

    use super::*;

    fn read(column: ArrayRef) -> Result<Vec<i64>> {
        let batch = RecordBatch::try_from_iter([("gap", column)]).unwrap();
        let stream = StreamSchema::without_time(batch.schema());
        match Session::gap_expr(col("gap")).gaps(&stream)?.read(&batch)? {
            RowGaps::Each(gaps) => Ok(gaps),
            RowGaps::Same(_) => unreachable!(),
        }
    }

    #[test]
    fn a_gap_is_at_least_a_microsecond_and_ends_with_time() {
        assert_eq!(read(Arc::new(Int16Array::from(vec![Some(7), None, Some(0), Some(-5)]))).unwrap(), [7, 1, 1, 1]);
        let seconds = DurationSecondArray::from(vec![Some(2), None, Some(i64::MAX), Some(i64::MIN)]);
        assert_eq!(read(Arc::new(seconds)).unwrap(), [2_000_000, 1, i64::MAX, 1]);
        assert_eq!(Span::of_row(i64::MAX, 1), Span { start: i64::MAX - 1, end: i64::MAX });
        assert_eq!(Span::of_row(i64::MIN, i64::MAX), Span { start: i64::MIN, end: -1 });
    }

    #[test]
    fn other_types_are_refused() {
        let error = read(Arc::new(arrow::array::UInt64Array::from(vec![1]))).unwrap_err().to_string();
        assert_eq!(
            error,
            "gap is UInt64, but a session gap is a signed integer of microseconds or a Duration: cast it"
        );
    }
}
