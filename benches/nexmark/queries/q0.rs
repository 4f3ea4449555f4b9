//! q0, pass through: every bid as it is, but for its channel and its URL. What the engine itself costs.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `auction`, `bidder`, `price`, `at`, `extra` of every bid.
pub fn pass_through(site: &Site, job: &Job) -> Stream<Untyped> {
    site.bids(job, ["auction", "bidder", "price", "at", "extra"])
}
