//! q12, processing time windows: how many bids a bidder has made in every ten seconds.
//!
//! The suite's ten seconds are of the clock on the wall, so that its answer is another one in every run: `.processing_time()` at the
//! source would give that here. So that the answer can be checked and compared, time is that of the events: what the clock
//! would say if every bid arrived when it was made.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `bidder`, `bids`, `window_start`, `window_end`.
pub fn per_bidder(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["bidder", "at"])
        .key_by("bidder")
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("bids")])
        .drop_late()
        .select(["bidder", "bids", "window_start", "window_end"].map(col))
}
