//! KT, the keyed tumbling window that engines are compared by: per auction and ten seconds how many bids, and the sum and the
//! greatest of their prices. Not one of the suite's.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `window_start`, `window_end`, `auction`, `bids`, `sum`, `top`.
pub fn keyed_window(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "price", "at"])
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count().alias("bids"), sum(col("price")).alias("sum"), max(col("price")).alias("top")])
        .drop_late()
}
