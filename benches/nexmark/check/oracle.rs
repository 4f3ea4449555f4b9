//! The answers of the queries that look at one bid at a time, or keep the last one.

use std::collections::HashMap;

use benches::nexmark::{Events, Kind};
use nexmark::event::{Auction, Bid, Event, Person};

use crate::text::thousandths;

/// All events of a setting, by kind.
pub(crate) struct Tables {
    pub(crate) persons: Vec<Person>,
    pub(crate) auctions: Vec<Auction>,
    pub(crate) bids: Vec<Bid>,
}

impl Tables {
    pub(crate) fn new(events: &Events) -> Self {
        let mut tables = Self { persons: Vec::new(), auctions: Vec::new(), bids: Vec::new() };
        for event in [Kind::Person, Kind::Auction, Kind::Bid].map(|kind| events.of(kind, 0..events.count)).concat() {
            match event {
                Event::Person(person) => tables.persons.push(person),
                Event::Auction(auction) => tables.auctions.push(auction),
                Event::Bid(bid) => tables.bids.push(bid),
            }
        }
        tables
    }
}

/// A row as text.
macro_rules! row {
    ($($value:expr),* $(,)?) => { [$($value.to_string()),*].join("|") };
}
pub(crate) use row;

/// Milliseconds in microseconds.
pub(crate) fn us(millis: u64) -> u64 {
    millis * 1000
}

const MINUTE: u64 = 60_000;

pub(crate) fn q0(all: &Tables) -> Vec<String> {
    all.bids.iter().map(|b| row!(b.auction, b.bidder, b.price, us(b.date_time), b.extra)).collect()
}

pub(crate) fn q1(all: &Tables) -> Vec<String> {
    let euros = |b: &Bid| thousandths(b.price as f64 * 0.908);
    all.bids.iter().map(|b| row!(b.auction, b.bidder, euros(b), us(b.date_time), b.extra)).collect()
}

pub(crate) fn q2(all: &Tables) -> Vec<String> {
    all.bids.iter().filter(|b| b.auction % 123 == 0).map(|b| row!(b.auction, b.price)).collect()
}

fn hm(millis: u64) -> u64 {
    millis / MINUTE / 60 % 24 * 100 + millis / MINUTE % 60
}

pub(crate) fn q10(all: &Tables) -> Vec<String> {
    all.bids.iter().map(|b| row!(b.auction, b.bidder, b.price, us(b.date_time), b.extra, hm(b.date_time))).collect()
}

/// The date of an instant of 14 or 15 July 2015.
pub(crate) fn date(millis: u64) -> &'static str {
    ["2015-07-14", "2015-07-15"][(millis / 86_400_000 - 16_630) as usize]
}

/// The lines of the files, each with the directory that it is in.
pub(crate) fn log(all: &Tables) -> Vec<String> {
    let line = |b: &Bid| {
        let (date, of_day) = (date(b.date_time), b.date_time % 86_400_000);
        let (hour, minute, second) = (of_day / 3_600_000, of_day / MINUTE % 60, of_day / 1000 % 60);
        let millis = match of_day % 1000 {
            0 => String::new(),
            millis => format!(".{millis:03}"),
        };
        let hm = hm(b.date_time);
        let at = format!("{date}T{hour:02}:{minute:02}:{second:02}{millis}Z");
        format!("dt={date}/hm={hm} {},{},{},{at},{},{hm}", b.auction, b.bidder, b.price, b.extra)
    };
    all.bids.iter().map(line).collect()
}

pub(crate) fn q13(all: &Tables) -> Vec<String> {
    let side = |b: &Bid| format!("side-{}", b.auction % 10_000);
    all.bids.iter().map(|b| row!(b.auction, b.bidder, b.price, us(b.date_time), side(b))).collect()
}

pub(crate) fn q14(all: &Tables) -> Vec<String> {
    let mut rows = Vec::new();
    for b in &all.bids {
        let price = 0.908 * b.price as f64;
        if price <= 1_000_000.0 || price >= 50_000_000.0 {
            continue;
        }
        let hour = b.date_time / 3_600_000 % 24;
        let time = if (8..=18).contains(&hour) {
            "dayTime"
        } else if hour <= 6 || hour >= 20 {
            "nightTime"
        } else {
            "otherTime"
        };
        let c = b.extra.matches('c').count();
        rows.push(row!(b.auction, b.bidder, thousandths(price), time, us(b.date_time), b.extra, c));
    }
    rows
}

fn whole(b: &Bid) -> String {
    row!(b.auction, b.bidder, b.price, b.channel, b.url, us(b.date_time), b.extra)
}

pub(crate) fn q18(all: &Tables) -> Vec<String> {
    let mut last: HashMap<(usize, usize), &Bid> = HashMap::new();
    let order = |b: &Bid| (b.date_time, b.price, b.channel.clone(), b.url.clone(), b.extra.clone());
    for b in &all.bids {
        let kept = last.entry((b.bidder, b.auction)).or_insert(b);
        if order(b) > order(kept) {
            *kept = b;
        }
    }
    last.into_values().map(whole).collect()
}

pub(crate) fn q21(all: &Tables) -> Vec<String> {
    let mut rows = Vec::new();
    for b in &all.bids {
        let id = match b.channel.to_lowercase().as_str() {
            "apple" => Some("0".to_owned()),
            "google" => Some("1".to_owned()),
            "facebook" => Some("2".to_owned()),
            "baidu" => Some("3".to_owned()),
            // The channel is the last parameter, after another one.
            _ => b.url.find("&channel_id=").map(|at| b.url[at + "&channel_id=".len()..].to_owned()),
        };
        rows.extend(id.map(|id| row!(b.auction, b.bidder, b.price, b.channel, id)));
    }
    rows
}

pub(crate) fn q22(all: &Tables) -> Vec<String> {
    let parts = |b: &Bid| {
        b.url.strip_prefix("https://www.nexmark.com/").unwrap().split('/').map(String::from).collect::<Vec<_>>()
    };
    all.bids.iter().map(|b| row!(b.auction, b.bidder, b.price, b.channel, parts(b)[..3].join("|"))).collect()
}
