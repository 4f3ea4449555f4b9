//! q4, average price per category: of all auctions that have closed with a bid, the average of the highest price, per category. A
//! table of five rows that changes.
//!
//! The suite counts an auction from its first bid on, and corrects the average with each higher one; here it counts when it has
//! closed. At the end both are the same. The average is a whole number, rounded down.

use windrow::{connectors::Untyped, prelude::*};

use super::closing;
use crate::nexmark::Site;

/// `category` and `average`, as changes.
pub fn category_average(site: &Site, job: &Job) -> Stream<Untyped> {
    closing::prices(site, job, "category")
        .key_by("category")
        .aggregate([sum(col("price")).alias("sum"), count().alias("auctions")])
        .select([col("category"), (col("sum") / col("auctions")).alias("average")])
}
