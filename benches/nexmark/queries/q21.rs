//! q21, add channel id: every bid that came by one of the four great channels, which have numbers, or whose URL says by which channel.

use windrow::prelude::*;

use crate::nexmark::Site;

/// What is read of a bid.
#[derive(Record)]
pub struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    url: String,
}

/// What is said of it.
#[derive(Record)]
pub struct Channelled {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    channel_id: String,
}

fn channel_id<'a>(channel: &str, url: &'a str) -> Option<&'a str> {
    let great = [("apple", "0"), ("google", "1"), ("facebook", "2"), ("baidu", "3")];
    let known = great.into_iter().find(|(name, _)| channel.eq_ignore_ascii_case(name));
    known.map(|(_, id)| id).or_else(|| url.split('&').find_map(|part| part.strip_prefix("channel_id=")))
}

/// `auction`, `bidder`, `price`, `channel`, `channel_id`.
pub fn channels(site: &Site, job: &Job) -> Stream<Channelled> {
    site.of_records().bids(job, ["auction", "bidder", "price", "channel", "url", "at"]).typed::<Bid>().flat_map(|bid| {
        channel_id(bid.channel, bid.url).map(|id| Channelled {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            channel: bid.channel.into(),
            channel_id: id.into(),
        })
    })
}
