//! q22, get URL directories: every bid with the first three directories of its URL.

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
pub struct Directories {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    dir1: Option<String>,
    dir2: Option<String>,
    dir3: Option<String>,
}

/// `auction`, `bidder`, `price`, `channel`, `dir1`, `dir2`, `dir3`.
pub fn directories(site: &Site, job: &Job) -> Stream<Directories> {
    site.of_records().bids(job, ["auction", "bidder", "price", "channel", "url", "at"]).typed::<Bid>().map(|bid| {
        // https: , nothing, the host, and then they come.
        let mut directories = bid.url.split('/').skip(3).map(String::from);
        Directories {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            channel: bid.channel.into(),
            dir1: directories.next(),
            dir2: directories.next(),
            dir3: directories.next(),
        }
    })
}
