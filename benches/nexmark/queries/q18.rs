//! q18, find last bid: the last bid of each bidder for each auction. A table that changes.
//!
//! Of several in one millisecond the suite takes any; here it is the one whose columns sort last.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// All columns of a bid, as changes by `bidder` and `auction`.
pub fn last_bids(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "bidder", "price", "channel", "url", "at", "extra"])
        .key_by(["bidder", "auction"])
        .latest()
}
