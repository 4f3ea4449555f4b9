//! How a pattern is written: steps, what joins them, how often they are repeated, and what is told of a match.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::{BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
};
use datafusion_expr::Expr;

use crate::{OperatorError, Result, StreamSchema, expr::describe, time::spelled, typed::Record, typed::Rows};

/// Steps that rows of a key go through, in order of event time. What it means exactly is said in the
/// [module](crate::pattern). Mistakes are told when the plan is made.
///
/// ```
/// use std::time::Duration;
/// use datafusion_expr::{col, lit};
/// use windrow_operators::pattern::{Pattern, Skip};
///
/// let pattern = Pattern::begin("small", col("amount").lt(lit(10)))
///     .one_or_more()
///     .next("large", col("amount").gt(col("small.amount") * lit(100)))
///     .not_followed_by("cancel", col("amount").lt(lit(0)))
///     .within(Duration::from_secs(60))
///     .skip(Skip::PastLast);
/// assert_eq!(
///     pattern.to_string(),
///     "small: amount < 10, one or more; next large: amount > small.amount * 100; not followed by cancel: amount < 0; \
///      within 60s; skip past last"
/// );
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Pattern {
    pub(super) steps: Vec<Step>,
    pub(super) within: Option<Duration>,
    pub(super) skip: Skip,
    /// The first mistake.
    pub(super) mistake: Option<String>,
}

/// Where the next match of a key may begin after a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    /// After the last row of the match.
    #[default]
    PastLast,
    /// At the row after the first row of the match: no row is skipped.
    ToNext,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) condition: Condition,
    pub(super) join: Join,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) optional: bool,
}

/// How a step is joined to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Begin,
    Next,
    FollowedBy,
    NotNext,
    NotFollowedBy,
}

impl Join {
    pub(super) fn is_absence(self) -> bool {
        matches!(self, Self::NotNext | Self::NotFollowedBy)
    }
}

impl Pattern {
    /// A match begins with a row that fits `condition`. The step is called `name` in conditions of later steps and in
    /// measures.
    pub fn begin(name: impl Into<String>, condition: impl Into<Condition>) -> Self {
        let pattern = Self { steps: Vec::new(), within: None, skip: Skip::default(), mistake: None };
        pattern.step(name, condition, Join::Begin)
    }

    /// The next row of the key fits.
    pub fn next(self, name: impl Into<String>, condition: impl Into<Condition>) -> Self {
        self.step(name, condition, Join::Next)
    }

    /// A later row of the key fits; the first that does is taken.
    pub fn followed_by(self, name: impl Into<String>, condition: impl Into<Condition>) -> Self {
        self.step(name, condition, Join::FollowedBy)
    }

    /// The next row of the key does not fit.
    pub fn not_next(self, name: impl Into<String>, condition: impl Into<Condition>) -> Self {
        self.step(name, condition, Join::NotNext)
    }

    /// No row fits until the next step takes one, or, at the end of a pattern, until the time is over.
    pub fn not_followed_by(self, name: impl Into<String>, condition: impl Into<Condition>) -> Self {
        self.step(name, condition, Join::NotFollowedBy)
    }

    /// The last step takes `n` rows.
    pub fn times(self, n: u64) -> Self {
        self.repeat(n, n)
    }

    /// The last step takes from `least` to `most` rows, as many as it can.
    pub fn times_between(self, least: u64, most: u64) -> Self {
        let optional = least == 0 && most > 0;
        let repeated = self.repeat(if optional { 1 } else { least }, most);
        if optional { repeated.optional() } else { repeated }
    }

    /// The last step takes as many rows as it can, and at least one.
    pub fn one_or_more(self) -> Self {
        self.repeat(1, u64::MAX)
    }

    /// The last step may be without a row.
    pub fn optional(self) -> Self {
        self.change("optional", |step| step.optional = true)
    }

    /// The time from the first row of a match to its last is less than `span`.
    pub fn within(self, span: Duration) -> Self {
        Self { within: Some(span), ..self }
    }

    /// Where the next match may begin; after the last row unless told.
    pub fn skip(self, skip: Skip) -> Self {
        Self { skip, ..self }
    }

    fn step(mut self, name: impl Into<String>, condition: impl Into<Condition>, join: Join) -> Self {
        let (name, condition) = (name.into(), condition.into());
        self.steps.push(Step { name, condition, join, min: 1, max: 1, optional: false });
        self
    }

    fn repeat(self, min: u64, max: u64) -> Self {
        if min == 0 || min > max {
            let name = self.steps.last().map_or("", |step| &step.name).to_string();
            return self.mistaken(format!("step {name:?} of a pattern takes from {min} to {max} rows: that is none"));
        }
        self.change("repeated", |step| (step.min, step.max) = (min, max))
    }

    fn change(mut self, what: &str, change: impl FnOnce(&mut Step)) -> Self {
        match self.steps.last_mut() {
            Some(step) if step.join.is_absence() => {
                let name = step.name.clone();
                self.mistaken(format!("step {name:?} of a pattern is of rows that are absent: it cannot be {what}"))
            }
            Some(step) => {
                change(step);
                self
            }
            None => self,
        }
    }

    fn mistaken(mut self, mistake: String) -> Self {
        self.mistake.get_or_insert(mistake);
        self
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            f.write_str(match step.join {
                Join::Begin => "",
                Join::Next => "next ",
                Join::FollowedBy => "followed by ",
                Join::NotNext => "not next ",
                Join::NotFollowedBy => "not followed by ",
            })?;
            write!(f, "{}: {}", step.name, step.condition)?;
            match (step.min, step.max) {
                (1, 1) => {}
                (1, u64::MAX) => f.write_str(", one or more")?,
                (min, max) if min == max => write!(f, ", {min} times")?,
                (min, max) => write!(f, ", {min} to {max} times")?,
            }
            f.write_str(if step.optional { ", optional; " } else { "; " })?;
        }
        if let Some(within) = self.within {
            write!(f, "within {}; ", spelled(within))?;
        }
        f.write_str(match self.skip {
            Skip::PastLast => "skip past last",
            Skip::ToNext => "skip to next",
        })
    }
}

/// Which rows of a batch fit.
pub(super) type Mask = Arc<dyn Fn(&RecordBatch) -> Result<BooleanArray> + Send + Sync>;
/// Fits a closure to a stream.
type MakeMask = Arc<dyn Fn(&StreamSchema) -> Result<Mask> + Send + Sync>;

/// Which rows fit a step: an expression over the row and over earlier steps (`col_of("small", "amount")` in a job), or a closure over
/// the row.
#[derive(Clone)]
pub struct Condition(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Expr(Box<Expr>),
    Rows(MakeMask),
}

impl From<Expr> for Condition {
    fn from(expr: Expr) -> Self {
        Self(Kind::Expr(Box::new(expr)))
    }
}

impl Condition {
    /// A closure over views of `T`, as in a typed filter. A restore cannot tell whether it is the same closure.
    ///
    /// ```
    /// use typed_arrow::prelude::*;
    /// use windrow_operators::pattern::{Condition, Pattern};
    ///
    /// #[derive(Record)]
    /// struct Bid { price: i64 }
    ///
    /// let pattern = Pattern::begin("dear", Condition::by::<Bid, _>(|bid| bid.price > 100));
    /// ```
    pub fn by<T, F>(fits: F) -> Self
    where
        T: Record,
        F: for<'a> Fn(T::View<'a>) -> bool + Send + Sync + 'static,
    {
        let fits = Arc::new(fits);
        Self(Kind::Rows(Arc::new(move |stream| {
            let (rows, fits) = (Rows::<T>::new(stream)?, fits.clone());
            Ok(Arc::new(move |batch: &RecordBatch| {
                let columns = rows.columns(batch)?;
                let mut views = rows.views(&columns)?;
                let mut failed = None;
                let mask = BooleanBuffer::collect_bool(batch.num_rows(), |_| match views.next() {
                    Some(Ok(view)) => fits(view),
                    Some(Err(error)) => {
                        failed = Some(error);
                        false
                    }
                    None => false,
                });
                failed.map_or(Ok(BooleanArray::new(mask, None)), Err::<BooleanArray, OperatorError>)
            }) as Mask)
        })))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Expr(expr) => match describe(expr) {
                Ok(text) => f.write_str(&text),
                Err(_) => write!(f, "{expr}"),
            },
            Kind::Rows(_) => f.write_str("a closure"),
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is told of a match. Made by [`first`], [`last`] and [`count_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A column of the first row that a step took.
    First {
        /// The step.
        step: String,
        /// The column of the input.
        column: String,
        /// The column of the result.
        name: String,
    },
    /// A column of the last row that a step took.
    Last {
        /// The step.
        step: String,
        /// The column of the input.
        column: String,
        /// The column of the result.
        name: String,
    },
    /// How many rows a step took.
    Count {
        /// The step.
        step: String,
        /// The column of the result.
        name: String,
    },
}

/// The value of `column` in the first row that `step` took; null if it took none. Called `first(step.column)` unless it
/// is given an alias.
pub fn first(step: &str, column: &str) -> Measure {
    Measure::First { step: step.into(), column: column.into(), name: format!("first({step}.{column})") }
}

/// The value of `column` in the last row that `step` took; null if it took none. Called `last(step.column)` unless it is
/// given an alias.
pub fn last(step: &str, column: &str) -> Measure {
    Measure::Last { step: step.into(), column: column.into(), name: format!("last({step}.{column})") }
}

/// How many rows `step` took, an `Int64`. Called `count(step)` unless it is given an alias.
pub fn count_of(step: &str) -> Measure {
    Measure::Count { step: step.into(), name: format!("count({step})") }
}

impl Measure {
    /// Names the column of the result.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> Self {
        let (Self::First { name, .. } | Self::Last { name, .. } | Self::Count { name, .. }) = &mut self;
        *name = alias.into();
        self
    }
}
