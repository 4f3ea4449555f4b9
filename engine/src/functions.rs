//! Small words that make pipelines read well.

use std::time::Duration;

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
