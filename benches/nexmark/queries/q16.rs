//! q16, channel statistics report: the numbers of [`q15`] per channel and day, and when its last bid of the day was.
//!
//! The suite tells the minute of the last bid, `HH:mm`; here it is the instant. A day is told when it is over.
//!
//! [`q15`]: super::q15

use windrow::{connectors::Untyped, prelude::*};

use super::q15::{by_rank, by_rank_names, day};
use crate::nexmark::Site;

/// `channel`, `day`, `last_bid` and twelve numbers.
pub fn per_channel(site: &Site, job: &Job) -> Stream<Untyped> {
    let last_bid = max(col("at")).alias("last_bid");
    let leading = [col("channel"), day(), col("last_bid")];
    site.bids(job, ["channel", "auction", "bidder", "price", "at"])
        .key_by("channel")
        .window(Calendar::days("UTC"))
        .aggregate(by_rank().into_iter().chain([last_bid]))
        .drop_late()
        .select(leading.into_iter().chain(by_rank_names().map(col)))
}
