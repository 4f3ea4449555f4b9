//! q6, average selling price by seller: of the last ten auctions of a seller that have closed with a bid, the average of the highest
//! price, a whole number, rounded down; anew whenever one closes.
//!
//! Flink cannot run the suite's text, which wants the rows of a query that changes in order. Here auctions are taken in the order
//! in which they close, those of one instant by number. (The suite's frame of ten rows before the current one is of eleven; the
//! benchmark's definition says ten.)

use std::collections::VecDeque;

use windrow::prelude::*;

use super::closing;
use crate::nexmark::Site;

/// What an auction was sold for. Every auction here has both, but the greatest of no bids would be none.
#[derive(Record)]
pub struct Sold {
    seller: Option<i64>,
    price: Option<i64>,
}

/// What a seller gets, on average.
#[derive(Record)]
pub struct Average {
    seller: i64,
    average: i64,
}

const LAST: usize = 10;

/// `seller` and `average`.
pub fn seller_average(site: &Site, job: &Job) -> Stream<Average> {
    closing::prices(site, job, "seller")
        .typed::<Sold>()
        .key_by("seller")
        .fold::<VecDeque<i64>, Average, _>(|prices, sold, out| {
            prices.extend(sold.price);
            if prices.len() > LAST {
                prices.pop_front();
            }
            let average = prices.iter().sum::<i64>() / prices.len() as i64;
            out.emit(Average { seller: sold.seller.unwrap_or_default(), average });
        })
        .drop_late()
}
