//! q8, monitor new users: who has registered and begun to sell in the same ten seconds, once each, and which ten seconds these were.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `id`, `name`, `window_start`.
pub fn new_users(site: &Site, job: &Job) -> Stream<Untyped> {
    let sellers = site.auctions(job, ["seller", "at"]).select([col("seller")]);
    site.persons(job, ["id", "name", "at"])
        .key_by("id")
        .join(sellers.key_by("seller"))
        .kind(JoinType::LeftSemi)
        .window(Tumbling::of(secs(10)))
        .drop_late()
        .select(["id", "name", "window_start"].map(col))
}
