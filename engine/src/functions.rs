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

/// The column called `name` of the left side of a join, where both sides have one: see
/// [`Joining::condition`](crate::api::Joining::condition). [`right`] has an example.
pub fn left(name: impl Into<String>) -> Expr {
    col_of("left", name)
}

/// The column called `name` of the right side of a join, where both sides have one.
///
/// ```
/// use windrow::prelude::*;
/// assert_eq!(left("price").lt(right("price")).to_string(), "left.price < right.price");
/// ```
pub fn right(name: impl Into<String>) -> Expr {
    col_of("right", name)
}

/// The column called `name` of the last row that an earlier `step` of a pattern has taken: see
/// [`KeyedStream::pattern`](crate::api::KeyedStream::pattern).
///
/// ```
/// use windrow::prelude::*;
/// let larger = col("amount").gt(col_of("small", "amount"));
/// assert_eq!(larger.to_string(), "amount > small.amount");
/// ```
pub fn col_of(step: impl Into<String>, name: impl Into<String>) -> Expr {
    Expr::Column(Column::new(Some(step.into()), name))
}

/// The number of rows, an `Int64` called `count` unless it is given an `.alias(…)`.
///
/// ```
/// use windrow::prelude::*;
/// let bids = count().alias("bids");
/// ```
pub fn count() -> Expr {
    datafusion_functions_aggregate::expr_fn::count(lit(1)).alias("count")
}

/// `n` milliseconds.
///
/// ```
/// use windrow::prelude::*;
/// assert_eq!((millis(60_000), secs(60), mins(60)), (mins(1), mins(1), hours(1)));
/// ```
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` seconds: as [`millis`], which has an example.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` minutes: as [`millis`], which has an example.
pub const fn mins(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// `n` hours: as [`millis`], which has an example.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(3_600 * n)
}
