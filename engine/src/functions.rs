//! Small words that make pipelines read well.

use std::time::Duration;

use datafusion_common::Column;
use datafusion_expr::{Expr, ident, lit};

/// The column called `name`, exactly as it is written (DataFusion's own `col` folds case and splits at dots).
///
/// ```
/// use windrow::prelude::*;
/// let cheap = col("Price").lt(lit(100));
/// ```
pub fn col(name: impl Into<String>) -> Expr {
    ident(name)
}

/// The column called `name` of the left side of a join, where both sides have one.
pub fn left(name: impl Into<String>) -> Expr {
    col_of("left", name)
}

/// The column called `name` of the right side of a join, where both sides have one.
pub fn right(name: impl Into<String>) -> Expr {
    col_of("right", name)
}

/// The column called `name` of the row that an earlier `step` of a pattern has matched.
pub fn col_of(step: impl Into<String>, name: impl Into<String>) -> Expr {
    Expr::Column(Column::new(Some(step.into()), name))
}

/// The number of rows, called `count` unless it is given an `.alias(…)`.
pub fn count() -> Expr {
    datafusion_functions_aggregate::expr_fn::count(lit(1)).alias("count")
}

/// `n` milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` minutes.
pub const fn mins(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// `n` hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(3_600 * n)
}
