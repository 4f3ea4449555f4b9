//! Events as columns, one batch per kind.

use std::sync::Arc;

use nexmark::event::{Auction, Bid, Event, Person};
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringViewArray},
        error::ArrowError,
    },
    prelude::Timestamp,
};

use super::Kind;

type Column = (&'static str, ArrayRef);

fn numbers<T>(rows: &[T], of: impl Fn(&T) -> usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| of(row) as i64)))
}

/// As views of one buffer, which has nothing else.
fn texts<T>(rows: &[T], of: impl Fn(&T) -> &String) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(rows.iter().map(of)).gc())
}

/// From milliseconds.
fn times<T>(rows: &[T], of: impl Fn(&T) -> u64) -> ArrayRef {
    Timestamp::column(rows.iter().map(|row| of(row) as i64 * 1000).collect())
}

/// One row for each of the events that are of `kind`.
pub fn batch(kind: Kind, events: Vec<Event>) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<Column> = match kind {
        Kind::Person => {
            persons(&only(events, |event| if let Event::Person(person) = event { Some(person) } else { None }))
        }
        Kind::Auction => {
            auctions(&only(events, |event| if let Event::Auction(auction) = event { Some(auction) } else { None }))
        }
        Kind::Bid => bids(&only(events, |event| if let Event::Bid(bid) = event { Some(bid) } else { None })),
    };
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, false)))
}

/// A row for each of the events, with the columns of bids and `kind`, which is 2 for a bid: the stream of all kinds that the suite
/// filters bids out of.
pub fn mixed(events: Vec<Event>) -> Result<RecordBatch, ArrowError> {
    let kinds = events.iter().map(|event| match event {
        Event::Person(_) => 0,
        Event::Auction(_) => 1,
        Event::Bid(_) => BID,
    });
    let kinds: ArrayRef = Arc::new(Int64Array::from_iter_values(kinds));
    let rows: Vec<Bid> = events.into_iter().map(as_bid).collect();
    let columns = [("kind", kinds)].into_iter().chain(bids(&rows));
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, false)))
}

/// What [`mixed`] calls a bid.
pub const BID: i64 = 2;

/// What is not there is 0, or empty.
fn as_bid(event: Event) -> Bid {
    let other = |date_time, extra| Bid {
        auction: 0,
        bidder: 0,
        price: 0,
        channel: String::new(),
        url: String::new(),
        date_time,
        extra,
    };
    match event {
        Event::Person(person) => other(person.date_time, person.extra),
        Event::Auction(auction) => other(auction.date_time, auction.extra),
        Event::Bid(bid) => bid,
    }
}

fn only<T>(events: Vec<Event>, of: impl Fn(Event) -> Option<T>) -> Vec<T> {
    events.into_iter().filter_map(of).collect()
}

fn persons(rows: &[Person]) -> Vec<Column> {
    vec![
        ("id", numbers(rows, |row| row.id)),
        ("name", texts(rows, |row| &row.name)),
        ("email", texts(rows, |row| &row.email_address)),
        ("credit_card", texts(rows, |row| &row.credit_card)),
        ("city", texts(rows, |row| &row.city)),
        ("state", texts(rows, |row| &row.state)),
        ("at", times(rows, |row| row.date_time)),
        ("extra", texts(rows, |row| &row.extra)),
    ]
}

fn auctions(rows: &[Auction]) -> Vec<Column> {
    vec![
        ("id", numbers(rows, |row| row.id)),
        ("item_name", texts(rows, |row| &row.item_name)),
        ("description", texts(rows, |row| &row.description)),
        ("initial_bid", numbers(rows, |row| row.initial_bid)),
        ("reserve", numbers(rows, |row| row.reserve)),
        ("at", times(rows, |row| row.date_time)),
        ("expires", times(rows, |row| row.expires)),
        ("seller", numbers(rows, |row| row.seller)),
        ("category", numbers(rows, |row| row.category)),
        ("extra", texts(rows, |row| &row.extra)),
    ]
}

fn bids(rows: &[Bid]) -> Vec<Column> {
    vec![
        ("auction", numbers(rows, |row| row.auction)),
        ("bidder", numbers(rows, |row| row.bidder)),
        ("price", numbers(rows, |row| row.price)),
        ("channel", texts(rows, |row| &row.channel)),
        ("url", texts(rows, |row| &row.url)),
        ("at", times(rows, |row| row.date_time)),
        ("extra", texts(rows, |row| &row.extra)),
    ]
}
