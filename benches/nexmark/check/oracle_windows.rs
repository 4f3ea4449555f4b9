//! The answers of the queries over windows and days.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use benches::nexmark::{Events, Kind};
use nexmark::event::{Bid, Event};

use crate::oracle::{Tables, date, row, us};

const TEN_SECONDS: u64 = 10_000;
const DAY: u64 = 86_400_000;

/// Where the window of this length begins that `at` is in.
fn begin(at: u64, length: u64) -> u64 {
    at / length * length
}

pub(crate) fn q5(all: &Tables) -> Vec<String> {
    let mut counts: BTreeMap<u64, BTreeMap<usize, u64>> = BTreeMap::new();
    for b in &all.bids {
        for back in 0..5 {
            let window = begin(b.date_time, 2_000) - back * 2_000;
            *counts.entry(window).or_default().entry(b.auction).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for auctions in counts.into_values() {
        let most = *auctions.values().max().unwrap();
        let hot = auctions.into_iter().filter(|(_, bids)| *bids == most);
        rows.extend(hot.map(|(auction, bids)| row!(auction, bids)));
    }
    rows
}

pub(crate) fn q7(all: &Tables) -> Vec<String> {
    let mut highest: BTreeMap<u64, usize> = BTreeMap::new();
    for b in &all.bids {
        let top = highest.entry(begin(b.date_time, TEN_SECONDS)).or_default();
        *top = b.price.max(*top);
    }
    let wins = |b: &&Bid| highest[&begin(b.date_time, TEN_SECONDS)] == b.price;
    all.bids.iter().filter(wins).map(|b| row!(b.auction, b.price, b.bidder, us(b.date_time), b.extra)).collect()
}

pub(crate) fn q8(all: &Tables) -> Vec<String> {
    let sold: HashSet<_> = all.auctions.iter().map(|a| (a.seller, begin(a.date_time, TEN_SECONDS))).collect();
    let registered = all.persons.iter().map(|p| (p, begin(p.date_time, TEN_SECONDS)));
    let new = registered.filter(|(person, window)| sold.contains(&(person.id, *window)));
    new.map(|(person, window)| row!(person.id, person.name, us(window))).collect()
}

pub(crate) fn q11(all: &Tables) -> Vec<String> {
    let mut times: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    all.bids.iter().for_each(|b| times.entry(b.bidder).or_default().push(b.date_time));
    let mut rows = Vec::new();
    for (bidder, mut times) in times {
        times.sort_unstable();
        for session in times.chunk_by(|a, b| b - a <= TEN_SECONDS) {
            let (first, last) = (session[0], session[session.len() - 1]);
            rows.push(row!(bidder, session.len(), us(first), us(last + TEN_SECONDS)));
        }
    }
    rows
}

pub(crate) fn q12(all: &Tables) -> Vec<String> {
    let mut counts: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    all.bids.iter().for_each(|b| *counts.entry((b.bidder, begin(b.date_time, TEN_SECONDS))).or_default() += 1);
    let row = |((bidder, start), bids): ((usize, u64), u64)| row!(bidder, bids, us(start), us(start + TEN_SECONDS));
    counts.into_iter().map(row).collect()
}

/// From 1; 0 is none.
fn rank(b: &Bid) -> usize {
    match b.price {
        ..10_000 => 1,
        10_000..1_000_000 => 2,
        _ => 3,
    }
}

/// Twelve numbers of bids: how many, of all and of each rank; the same of bidders and of auctions.
fn by_rank(bids: &[&Bid]) -> String {
    let of = |only: usize| bids.iter().filter(move |b| only == 0 || rank(b) == only);
    let bidders = |only| of(only).map(|b| b.bidder).collect::<BTreeSet<_>>().len();
    let auctions = |only| of(only).map(|b| b.auction).collect::<BTreeSet<_>>().len();
    let counts = [[0, 1, 2, 3].map(|only| of(only).count()), [0, 1, 2, 3].map(bidders), [0, 1, 2, 3].map(auctions)];
    counts.concat().iter().map(usize::to_string).collect::<Vec<_>>().join("|")
}

pub(crate) fn q15(all: &Tables) -> Vec<String> {
    let mut days: BTreeMap<u64, Vec<&Bid>> = BTreeMap::new();
    all.bids.iter().for_each(|b| days.entry(begin(b.date_time, DAY)).or_default().push(b));
    days.into_iter().map(|(day, bids)| row!(date(day), by_rank(&bids))).collect()
}

pub(crate) fn q16(all: &Tables) -> Vec<String> {
    let mut days: BTreeMap<(&str, u64), Vec<&Bid>> = BTreeMap::new();
    all.bids.iter().for_each(|b| days.entry((&b.channel, begin(b.date_time, DAY))).or_default().push(b));
    let row = |((channel, day), bids): ((&str, u64), Vec<&Bid>)| {
        let last = bids.iter().map(|b| b.date_time).max().unwrap();
        row!(channel, date(day), us(last), by_rank(&bids))
    };
    days.into_iter().map(row).collect()
}

pub(crate) fn q17(all: &Tables) -> Vec<String> {
    let mut days: BTreeMap<(usize, u64), Vec<&Bid>> = BTreeMap::new();
    all.bids.iter().for_each(|b| days.entry((b.auction, begin(b.date_time, DAY))).or_default().push(b));
    let mut rows = Vec::new();
    for ((auction, day), bids) in days {
        let of = |only| bids.iter().filter(|b| rank(b) == only).count();
        let prices = || bids.iter().map(|b| b.price);
        let (least, most, sum) = (prices().min().unwrap(), prices().max().unwrap(), prices().sum::<usize>());
        let average = sum / bids.len();
        rows.push(row!(auction, date(day), bids.len(), of(1), of(2), of(3), least, most, average, sum));
    }
    rows
}

pub(crate) fn q19(all: &Tables) -> Vec<String> {
    let mut auctions: BTreeMap<usize, Vec<&Bid>> = BTreeMap::new();
    all.bids.iter().for_each(|b| auctions.entry(b.auction).or_default().push(b));
    let mut rows = Vec::new();
    for mut bids in auctions.into_values() {
        bids.sort_by_key(|b| {
            (std::cmp::Reverse(b.price), b.bidder, b.channel.clone(), b.url.clone(), b.date_time, b.extra.clone())
        });
        for (rank, b) in (1..=10).zip(bids) {
            rows.push(row!(b.auction, b.bidder, b.price, b.channel, b.url, us(b.date_time), b.extra, rank));
        }
    }
    rows
}

pub(crate) fn kt(all: &Tables) -> Vec<String> {
    let mut windows: BTreeMap<(u64, usize), Vec<usize>> = BTreeMap::new();
    for b in &all.bids {
        windows.entry((begin(b.date_time, TEN_SECONDS), b.auction)).or_default().push(b.price);
    }
    let row = |((start, auction), prices): ((u64, usize), Vec<usize>)| {
        let (sum, max) = (prices.iter().sum::<usize>(), prices.iter().max().unwrap());
        row!(us(start), us(start + TEN_SECONDS), auction, prices.len(), sum, max)
    };
    windows.into_iter().map(row).collect()
}

/// Rows, counts, sums and maxima over all results, a million events at a time.
pub(crate) fn kt_totals(events: &Events) -> [usize; 4] {
    let mut windows: BTreeMap<(u64, usize), [usize; 3]> = BTreeMap::new();
    for first in (0..events.count).step_by(1_000_000) {
        for event in events.of(Kind::Bid, first..(first + 1_000_000).min(events.count)) {
            let Event::Bid(b) = event else { continue };
            let [count, sum, max] = windows.entry((begin(b.date_time, TEN_SECONDS), b.auction)).or_default();
            (*count, *sum, *max) = (*count + 1, *sum + b.price, b.price.max(*max));
        }
    }
    let total = |figure: usize| windows.values().map(|figures| figures[figure]).sum();
    [windows.len(), total(0), total(1), total(2)]
}
