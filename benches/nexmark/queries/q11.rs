//! q11, user sessions: how many bids a bidder has made without a pause of ten seconds, and from when to when.
//!
//! As in the suite, a session ends ten seconds after its last bid.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `bidder`, `bids`, `window_start`, `window_end`.
pub fn sessions(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["bidder", "at"])
        .key_by("bidder")
        .window(Session::gap(secs(10)))
        .aggregate([count().alias("bids")])
        .drop_late()
        .select(["bidder", "bids", "window_start", "window_end"].map(col))
}
