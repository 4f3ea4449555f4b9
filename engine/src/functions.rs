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

/// An aggregate of those rows only that meet a condition, as SQL's `FILTER (WHERE …)`. What is no aggregate is a mistake that
/// is told when the job runs.
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("small-and-all");
/// let out = MemorySink::new();
/// job.source(Sequence::new(10))
///     .event_time("at", Watermarks::in_order())
///     .window(Tumbling::of(secs(10)))
///     .aggregate([filtered(count(), col("value").lt(lit(3))).alias("small"), count().alias("all")])
///     .drop_late()
///     .select(["small", "all"].map(col))
///     .sink(out.clone());
/// job.run().await?;
/// assert_eq!(out.to_string(), "\
/// +-------+-----+
/// | small | all |
/// +-------+-----+
/// | 3     | 10  |
/// +-------+-----+");
///
/// let job = Job::new("mistaken");
/// let numbers = job.source(Sequence::new(10)).event_time("at", Watermarks::in_order());
/// let mistaken = filtered(col("value"), lit(true));
/// numbers.window(Tumbling::of(secs(10))).aggregate([mistaken]).drop_late().sink(MemorySink::new());
/// assert!(job.run().await.unwrap_err().to_string().contains("of what is no aggregate"));
/// # Ok(())
/// # }
/// ```
pub fn filtered(aggregate: Expr, condition: Expr) -> Expr {
    match aggregate {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(filtered(*alias.expr, condition));
            Expr::Alias(alias)
        }
        Expr::AggregateFunction(mut function) => {
            let filter = &mut function.params.filter;
            *filter = Some(Box::new(match filter.take() {
                Some(former) => former.and(condition),
                None => condition,
            }));
            Expr::AggregateFunction(function)
        }
        // No stream has such a column: so the job does not run, and says why.
        other => col(format!("filtered({other}, {condition}), of what is no aggregate")),
    }
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
