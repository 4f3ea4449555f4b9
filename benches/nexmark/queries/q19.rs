//! q19, auction top ten: the ten highest bids of each auction, and their ranks.
//!
//! The suite's table changes with every bid that is among them; here the answer is told when the day is over, so that an auction that
//! is open at midnight has ten bids of either day. Of equal prices the suite takes any; here they are ordered by the other columns.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// All columns of a bid, and `rank`.
pub fn top_bids(site: &Site, job: &Job) -> Stream<Untyped> {
    let columns = ["auction", "bidder", "price", "channel", "url", "at", "extra"];
    site.bids(job, columns)
        .key_by("auction")
        .window(Calendar::days("UTC"))
        .top(10, "price")
        .drop_late()
        .select(columns.into_iter().chain(["rank"]).map(col))
}
