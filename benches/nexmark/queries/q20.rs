//! q20, expand bid with auction: every bid for an auction of category 10, with all columns of the auction. They belong together whenever
//! they come: some bids are a little earlier than their auction.
//!
//! The suite remembers all bids and auctions for ever; here a bid finds an auction that is at most [`REMEMBERED`] older, or a little
//! newer.

use windrow::{connectors::Untyped, prelude::*};

use super::REMEMBERED;
use crate::nexmark::Site;

/// All columns of the bid, then all of the auction but its number.
pub fn expanded(site: &Site, job: &Job) -> Stream<Untyped> {
    let auctions = site
        .auctions(
            job,
            [
                "id",
                "item_name",
                "description",
                "initial_bid",
                "reserve",
                "at",
                "expires",
                "seller",
                "category",
                "extra",
            ],
        )
        .filter_expr(col("category").eq(lit(10)))
        .select([
            col("id").alias("auction"),
            col("item_name"),
            col("description"),
            col("initial_bid"),
            col("reserve"),
            col("at").alias("opened"),
            col("expires"),
            col("seller"),
            col("category"),
            col("extra").alias("auction_extra"),
        ]);
    site.bids(job, ["auction", "bidder", "price", "channel", "url", "at", "extra"])
        .key_by("auction")
        .join(auctions.key_by("auction"))
        .within(REMEMBERED, secs(10))
        .drop_late()
}
