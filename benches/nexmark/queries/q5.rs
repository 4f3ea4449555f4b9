//! q5, hot items: of the last ten seconds, every two seconds, the auction with most bids and how many it had; all of them when
//! several have as many.

use std::time::Duration;

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// How often a window ends.
const EVERY: Duration = secs(2);

/// `auction`, `bids`.
pub fn hot_items(site: &Site, job: &Job) -> Stream<Untyped> {
    with_windows(site, job).select(["auction", "bids"].map(col))
}

/// The same with the window that each row is of: `since`, `until`, `auction`, `bids`.
pub fn with_windows(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "at"])
        .key_by("auction")
        .window(Hopping::of(secs(10), EVERY))
        .aggregate([count().alias("bids")])
        .drop_late()
        .select([col("window_start").alias("since"), col("window_end").alias("until"), col("auction"), col("bids")])
        // A result is of the last instant of its window, so these are the results of one window.
        .window(Tumbling::of(EVERY))
        .top_with_ties(1, "bids")
        .drop_late()
        .select(["since", "until", "auction", "bids"].map(col))
}
