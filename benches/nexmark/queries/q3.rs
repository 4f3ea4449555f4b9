//! q3, local item suggestion: who sells something of category 10 and lives in Oregon, Idaho or California: name, city and
//! state, and the auction. A person and an auction belong together whenever they come.
//!
//! The suite remembers all persons and auctions for ever; here they find each other within [`REMEMBERED`]. The generator writes
//! states in small letters.

use windrow::{connectors::Untyped, prelude::*};

use super::REMEMBERED;
use crate::nexmark::Site;

/// `name`, `city`, `state` of a seller and `id` of the auction.
pub fn local_items(site: &Site, job: &Job) -> Stream<Untyped> {
    let sellers = site
        .persons(job, ["id", "name", "city", "state", "at"])
        .filter_expr(col("state").in_list(["or", "id", "ca"].map(lit).into(), false))
        .select([col("id").alias("seller"), col("name"), col("city"), col("state")]);
    site.auctions(job, ["id", "seller", "category", "at"])
        .filter_expr(col("category").eq(lit(10)))
        .select(["id", "seller"].map(col))
        .key_by("seller")
        .join(sellers.key_by("seller"))
        .within(REMEMBERED, REMEMBERED)
        .drop_late()
        .select(["name", "city", "state", "id"].map(col))
}
