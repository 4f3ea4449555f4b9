//! The answers of the queries that bring bids, auctions and persons together.

use std::collections::{BTreeMap, HashMap};

use nexmark::event::{Auction, Bid};

use crate::oracle::{Tables, row, us};

pub(crate) fn q3(all: &Tables) -> Vec<String> {
    let mut rows = Vec::new();
    for auction in all.auctions.iter().filter(|auction| auction.category == 10) {
        for person in all.persons.iter().filter(|person| person.id == auction.seller) {
            if ["or", "id", "ca"].contains(&person.state.as_str()) {
                rows.push(row!(person.name, person.city, person.state, auction.id));
            }
        }
    }
    rows
}

fn auctions(all: &Tables) -> HashMap<usize, &Auction> {
    all.auctions.iter().map(|auction| (auction.id, auction)).collect()
}

/// Each auction with a bid that was made while it was open, and the best of them.
fn winners(all: &Tables) -> Vec<(&Auction, &Bid)> {
    let auctions = auctions(all);
    let mut best: HashMap<usize, &Bid> = HashMap::new();
    for bid in &all.bids {
        let open =
            auctions.get(&bid.auction).is_some_and(|a| a.date_time <= bid.date_time && bid.date_time <= a.expires);
        if !open {
            continue;
        }
        let former = best.entry(bid.auction).or_insert(bid);
        let key = |b: &Bid| (std::cmp::Reverse(b.price), b.date_time, b.bidder, b.extra.clone());
        if key(bid) < key(former) {
            *former = bid;
        }
    }
    best.into_iter().map(|(auction, bid)| (auctions[&auction], bid)).collect()
}

pub(crate) fn q4(all: &Tables) -> Vec<String> {
    let mut prices: HashMap<usize, Vec<usize>> = HashMap::new();
    for (auction, bid) in winners(all) {
        prices.entry(auction.category).or_default().push(bid.price);
    }
    let average = |prices: &[usize]| prices.iter().sum::<usize>() / prices.len();
    prices.into_iter().map(|(category, prices)| row!(category, average(&prices))).collect()
}

pub(crate) fn q6(all: &Tables) -> Vec<String> {
    let mut closed: BTreeMap<usize, Vec<(u64, usize, usize)>> = BTreeMap::new();
    for (auction, bid) in winners(all) {
        closed.entry(auction.seller).or_default().push((auction.expires, auction.id, bid.price));
    }
    let mut rows = Vec::new();
    for (seller, mut closed) in closed {
        closed.sort_unstable();
        for end in 1..=closed.len() {
            let last = &closed[end.saturating_sub(10)..end];
            let average = last.iter().map(|(_, _, price)| price).sum::<usize>() / last.len();
            rows.push(row!(seller, average));
        }
    }
    rows
}

pub(crate) fn q9(all: &Tables) -> Vec<String> {
    let whole = |(a, b): (&Auction, &Bid)| {
        row!(
            a.id,
            a.item_name,
            a.description,
            a.initial_bid,
            a.reserve,
            us(a.date_time),
            us(a.expires),
            a.seller,
            a.category,
            a.extra,
            b.auction,
            b.bidder,
            b.price,
            us(b.date_time),
            b.extra,
        )
    };
    winners(all).into_iter().map(whole).collect()
}

pub(crate) fn q20(all: &Tables) -> Vec<String> {
    let auctions = auctions(all);
    let mut rows = Vec::new();
    for b in &all.bids {
        let Some(a) = auctions.get(&b.auction).filter(|auction| auction.category == 10) else { continue };
        rows.push(row!(
            b.auction,
            b.bidder,
            b.price,
            b.channel,
            b.url,
            us(b.date_time),
            b.extra,
            a.item_name,
            a.description,
            a.initial_bid,
            a.reserve,
            us(a.date_time),
            us(a.expires),
            a.seller,
            a.category,
            a.extra,
        ));
    }
    rows
}
