//! q19, auction top ten: the ten highest bids of each auction, and their ranks.
//!
//! The suite's table changes with every bid that is among them; here the answer is that table at the end of the input. (With
//! `Calendar::days("UTC")` as the window it would be told day by day, and an auction that is open at midnight would have ten bids of
//! either day.) Of equal prices the suite takes any; here they are ordered by the other columns.

use std::time::Duration;

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// A window that all bids are in: the hundred years from 1970 on.
const ALWAYS: Duration = hours(100 * 365 * 24);

/// All columns of a bid, and `rank`.
pub fn top_bids(site: &Site, job: &Job) -> Stream<Untyped> {
    let columns = ["auction", "bidder", "price", "channel", "url", "at", "extra"];
    site.bids(job, columns)
        .key_by("auction")
        .window(Tumbling::of(ALWAYS))
        .top(10, "price")
        .drop_late()
        .select(columns.into_iter().chain(["rank"]).map(col))
}
