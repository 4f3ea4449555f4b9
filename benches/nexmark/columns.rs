//! Events as columns, one batch per kind.

use std::sync::Arc;

use nexmark::event::{Auction, Bid, Event, Person};
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        error::ArrowError,
    },
    prelude::Timestamp,
};

use super::Kind;

type Column = (&'static str, ArrayRef);

fn numbers<T>(rows: &[T], of: impl Fn(&T) -> usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| of(row) as i64)))
}

fn texts<T>(rows: &[T], of: impl Fn(&T) -> &String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
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
