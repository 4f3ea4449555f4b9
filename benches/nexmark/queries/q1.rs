//! q1, currency conversion: every bid with its price in euros, at 0.908 to the dollar.
//!
//! The suite's price is a decimal; here it is a double.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `auction`, `bidder`, `price`, `at`, `extra` of every bid.
pub fn currency(site: &Site, job: &Job) -> Stream<Untyped> {
    let euros = (col("price") * lit(0.908)).alias("price");
    site.bids(job, ["auction", "bidder", "price", "at", "extra"]).select([
        col("auction"),
        col("bidder"),
        euros,
        col("at"),
        col("extra"),
    ])
}
