//! q2, selection: auction and price of the bids for auctions whose number is a multiple of 123.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `auction` and `price` of some bids.
pub fn selection(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "price", "at"])
        .filter_expr((col("auction") % lit(123)).eq(lit(0)))
        .select(["auction", "price"].map(col))
}
