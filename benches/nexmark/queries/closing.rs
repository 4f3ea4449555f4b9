//! Auctions that close: the bids that count, and the price that wins. For q4, q6 and q9.
//!
//! ```text
//!   bids ─────► by auction ─┐
//!                           ├─ as of the bid: made in time? ──► a session per auction, until it expires ──► highest price
//!   auctions ─► by number ──┘
//! ```
//!
//! A bid counts when its auction has begun and has not expired yet, both ends included. The auction is the newest of its number at
//! the time of the bid, which is what a join as of a time finds.

use windrow::{arrow::datatypes::DataType, cast, connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// The bids that were made in time, with the columns of `auctions`: `id` and `expires` among them, and none that bids have too.
pub fn in_time(site: &Site, bids: Stream<Untyped>, auctions: Stream<Untyped>) -> Stream<Untyped> {
    bids.key_by("auction")
        .join(auctions.key_by("id").ttl(site.events().longest_auction()))
        .condition(col("at").lt_eq(col("expires")))
        .as_of()
        .drop_late()
}

/// What auctions with bids were sold for, when they have closed: `auction`, `of` and `price`. `of` is a column of the auctions, the
/// same for all bids of one: so it is no key here, though it is in the suite's text, and the sessions are where the join has brought their bids together.
pub fn prices(site: &Site, job: &Job, of: &str) -> Stream<Untyped> {
    let bids = site.bids(job, ["auction", "price", "at"]);
    let auctions = site.auctions(job, ["id", "expires", of, "at"]).select(["id", "expires", of].map(col));
    // Each bid keeps the session of its auction open until the auction has expired, and that instant is part of it.
    let micros = |column| cast(col(column), DataType::Int64);
    let until_closed = Session::gap_expr(micros("expires") - micros("at") + lit(1));
    in_time(site, bids, auctions)
        .key_by("auction")
        .window(until_closed)
        .aggregate([max(col(of)).alias(of), max(col("price")).alias("price")])
        .drop_late()
        .select(["auction", of, "price"].map(col))
}
