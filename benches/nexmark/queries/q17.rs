//! q17, auction statistics report: per auction and day how many bids, how many of each rank, and the least, the greatest, the average and
//! the sum of prices.
//!
//! The suite's table changes with every bid; here a day is told when it is over. As in the suite the average is a whole number, rounded
//! down.

use windrow::{connectors::Untyped, prelude::*};

use super::{RANK_2, RANK_3, q15::day};
use crate::nexmark::Site;

/// `auction`, `day` and eight numbers.
pub fn per_auction(site: &Site, job: &Job) -> Stream<Untyped> {
    let price = || col("price");
    site.bids(job, ["auction", "price", "at"])
        .key_by("auction")
        .window(Calendar::days("UTC"))
        .aggregate([
            count().alias("total_bids"),
            filtered(count(), price().lt(lit(RANK_2))).alias("rank1_bids"),
            filtered(count(), price().gt_eq(lit(RANK_2)).and(price().lt(lit(RANK_3)))).alias("rank2_bids"),
            filtered(count(), price().gt_eq(lit(RANK_3))).alias("rank3_bids"),
            min(price()).alias("min_price"),
            max(price()).alias("max_price"),
            sum(price()).alias("sum_price"),
        ])
        .drop_late()
        .select([
            col("auction"),
            day(),
            col("total_bids"),
            col("rank1_bids"),
            col("rank2_bids"),
            col("rank3_bids"),
            col("min_price"),
            col("max_price"),
            (col("sum_price") / col("total_bids")).alias("avg_price"),
            col("sum_price"),
        ])
}
