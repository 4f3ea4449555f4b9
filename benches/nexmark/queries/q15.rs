//! q15, bidding statistics report: of every day how many bids there were, of how many bidders, for how many auctions; and the same of
//! cheap bids (rank 1, below 10,000 cents), of middling ones, and of dear ones (rank 3, from 1,000,000 on).
//!
//! The suite's table changes with every bid; here a day is told when it is over. (`.early_every(secs(10))` would tell it on the way.)

use windrow::{aggregates::count_distinct, arrow::datatypes::DataType, cast, connectors::Untyped, prelude::*};

use super::{RANK_2, RANK_3};
use crate::nexmark::Site;

/// `day`, as text, and twelve numbers.
pub fn per_day(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "bidder", "price", "at"])
        .window(Calendar::days("UTC"))
        .aggregate(by_rank())
        .drop_late()
        .select(std::iter::once(day()).chain(by_rank_names().map(col)))
}

/// The day that a window of the calendar is: `2015-07-15`.
pub(super) fn day() -> Expr {
    cast(cast(col("window_start"), DataType::Date32), DataType::Utf8).alias("day")
}

const RANKS: [&str; 4] = ["total", "rank1", "rank2", "rank3"];

/// Bids, bidders and auctions, each of all bids and of those of each rank.
pub(super) fn by_rank() -> Vec<Expr> {
    let ranked = |rank: &str, aggregate: Expr| match rank {
        "rank1" => filtered(aggregate, col("price").lt(lit(RANK_2))),
        "rank2" => filtered(aggregate, col("price").gt_eq(lit(RANK_2)).and(col("price").lt(lit(RANK_3)))),
        "rank3" => filtered(aggregate, col("price").gt_eq(lit(RANK_3))),
        _ => aggregate,
    };
    let counts =
        [("bids", count()), ("bidders", count_distinct(col("bidder"))), ("auctions", count_distinct(col("auction")))];
    let named = |(what, aggregate): (&str, Expr)| {
        RANKS.map(|rank| ranked(rank, aggregate.clone()).alias(format!("{rank}_{what}")))
    };
    counts.into_iter().flat_map(named).collect()
}

/// What they are called.
pub(super) fn by_rank_names() -> impl Iterator<Item = String> {
    ["bids", "bidders", "auctions"].into_iter().flat_map(|what| RANKS.map(|rank| format!("{rank}_{what}")))
}
