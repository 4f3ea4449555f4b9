//! q14, calculation: of bids whose price in euros is between 1,000,000 and 50,000,000 cents, that price, whether they were made by
//! day or by night, and how often the letter c is in their text, which takes a function of one's own.
//!
//! The suite's price is a decimal; here it is a double.

use windrow::prelude::*;

use crate::nexmark::Site;

/// What is read of a bid.
#[derive(Record)]
pub struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    at: Timestamp,
    extra: String,
}

/// What is said of it.
#[derive(Record)]
pub struct Calculated {
    auction: i64,
    bidder: i64,
    price: f64,
    time_of_day: String,
    at: Timestamp,
    extra: String,
    count_of_c: i64,
}

fn in_euros(cents: i64) -> f64 {
    0.908 * cents as f64
}

/// By the hour in UTC.
fn time_of_day(at: Timestamp) -> &'static str {
    match at.micros().div_euclid(3_600_000_000).rem_euclid(24) {
        8..=18 => "dayTime",
        ..=6 | 20.. => "nightTime",
        _ => "otherTime",
    }
}

fn count_of(letter: u8, text: &str) -> i64 {
    text.bytes().filter(|byte| *byte == letter).count() as i64
}

/// `auction`, `bidder`, `price`, `time_of_day`, `at`, `extra`, `count_of_c`.
pub fn calculation(site: &Site, job: &Job) -> Stream<Calculated> {
    site.of_records()
        .bids(job, ["auction", "bidder", "price", "at", "extra"])
        .typed::<Bid>()
        .filter(|bid| in_euros(bid.price) > 1_000_000.0 && in_euros(bid.price) < 50_000_000.0)
        .map(|bid| Calculated {
            auction: bid.auction,
            bidder: bid.bidder,
            price: in_euros(bid.price),
            time_of_day: time_of_day(bid.at).into(),
            at: bid.at,
            extra: bid.extra.into(),
            count_of_c: count_of(b'c', bid.extra),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_belong_to_the_day_or_the_night_or_neither() {
        let at = |hour: u64| time_of_day(Timestamp::from_micros(1_436_918_400_000_000) + hours(hour));
        assert_eq!([0, 6, 20, 23].map(at), ["nightTime"; 4]);
        assert_eq!([8, 12, 18].map(at), ["dayTime"; 3]);
        assert_eq!([7, 19].map(at), ["otherTime"; 2]);
    }
}
