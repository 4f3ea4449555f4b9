//! q9, winning bids: every auction that has closed with a bid, and the bid that wins: the highest, of several the first.
//!
//! The suite tells a winner from the first bid on, and corrects it; here it is told once, when the auction has closed. Where bids
//! of one price come in one millisecond the suite takes any; here it is the one of the lowest bidder.
//!
//! ```text
//!   bids in time ──► by auction: the best so far ──expired──► winner ─┐
//!                                                                     ├─► with all columns of the auction
//!   auctions ─────────────────────────────────────────────────────────┘
//! ```
//!
//! The winner is found among narrow rows: an auction is half a kilobyte and has some fifteen bids.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use windrow::{connectors::Untyped, prelude::*};

use super::closing;
use crate::nexmark::Site;

/// A bid that was made in time.
#[derive(Clone, Debug, Record, Serialize, Deserialize)]
pub struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    bid_at: Timestamp,
    bid_extra: String,
    expires: Timestamp,
}

/// Tells the best bid of an auction when it has expired.
#[derive(Clone)]
struct Winner;

impl Process for Winner {
    type Row = Bid;
    type State = Option<Bid>;
    type Output = Bid;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let value = |price, at, bidder, extra| (price, Reverse(at), Reverse(bidder), Reverse(extra));
        let best =
            key.state().as_ref().map(|best| value(best.price, best.bid_at, best.bidder, best.bid_extra.as_str()));
        if best.is_some_and(|best| best >= value(bid.price, bid.bid_at, bid.bidder, bid.bid_extra)) {
            return;
        }
        // A bid in this millisecond still counts.
        key.set_timer(bid.expires + millis(1));
        *key.state_mut() = Some(Bid {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            bid_at: bid.bid_at,
            bid_extra: bid.bid_extra.into(),
            expires: bid.expires,
        });
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        if let Some(best) = key.state_mut().take() {
            key.emit(best);
        }
        key.clear();
    }
}

/// All columns of the auction, then `auction`, `bidder`, `price`, `bid_at`, `bid_extra`.
pub fn winning_bids(site: &Site, job: &Job) -> Stream<Untyped> {
    let bids = site.bids(job, ["auction", "bidder", "price", "at", "extra"]);
    let bids = bids.select([
        col("auction"),
        col("bidder"),
        col("price"),
        col("at"),
        col("at").alias("bid_at"),
        col("extra").alias("bid_extra"),
    ]);
    const AUCTION: [&str; 10] =
        ["id", "item_name", "description", "initial_bid", "reserve", "at", "expires", "seller", "category", "extra"];
    let auctions = site.auctions(job, AUCTION);
    let winners = closing::in_time(site, bids, auctions.clone().select(["id", "expires"].map(col)))
        .typed::<Bid>()
        .key_by("auction")
        .on_arrival()
        .process(Winner)
        .select(["auction", "bidder", "price", "bid_at", "bid_extra"].map(col));
    winners
        .key_by("auction")
        .join(auctions.key_by("id").ttl(site.events().longest_auction()))
        .as_of()
        .drop_late()
        .select(AUCTION.into_iter().chain(["auction", "bidder", "price", "bid_at", "bid_extra"]).map(col))
}
