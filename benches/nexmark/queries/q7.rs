//! q7, highest bid: of every ten seconds the bid with the highest price; all of them when several have it.
//!
//! In the suite's text a bid at the very instant at which a window ends may count for that window too; here it is in the next one.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `auction`, `price`, `bidder`, `at`, `extra`.
pub fn highest_bids(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "price", "bidder", "at", "extra"])
        .window(Tumbling::of(secs(10)))
        .top_with_ties(1, "price")
        .drop_late()
        .select(["auction", "price", "bidder", "at", "extra"].map(col))
}
