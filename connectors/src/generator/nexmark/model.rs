//! Who bids how much on what: the distributions of Nexmark, as pure functions of the seed and the event number.

use std::hint::select_unpredictable;

use super::{
    price::Prices,
    random::{Random, Salt, below},
    text::Letters,
    timeline::{self, Kind, Timeline},
};

/// Ids begin here, so that the suites' queries find matches even in small inputs.
const FIRST_AUCTION: u64 = 1000;
const FIRST_PERSON: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;

/// One bid in two goes to any auction in flight, the other to the hot one; and so on.
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_SELLER_RATIO: u64 = 4;

/// Who is hot changes after this many new auctions or persons.
const HOT_PERIOD: u64 = 100;

const IN_FLIGHT_AUCTIONS: u64 = 100;
const ACTIVE_PERSONS: u64 = 1000;

/// Bids and auctions may name this many auctions and persons that are still to come.
const LEAD: u64 = 10;

/// The values of all events of one site.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) random: Random,
    pub(super) letters: Letters,
    prices: Prices,
    timeline: Timeline,
    /// How long it takes to open as many auctions as are in flight, on average, in microseconds.
    horizon: u64,
}

impl Model {
    pub(super) fn new(seed: u64, timeline: Timeline) -> Self {
        let events = IN_FLIGHT_AUCTIONS * (Kind::Bid.share() + Kind::Auction.share() + Kind::Person.share())
            / Kind::Auction.share();
        let horizon = timeline.in_order(events).saturating_sub(timeline.start).unsigned_abs();
        let random = Random::new(seed);
        Self { letters: Letters::new(&random), prices: Prices::new(), random, timeline, horizon }
    }

    /// The event time of event `n`.
    #[inline]
    pub(super) fn at(&self, n: u64) -> i64 {
        let in_order = self.timeline.in_order(n);
        if self.timeline.disorder == 0 {
            return in_order;
        }
        in_order.saturating_sub_unsigned(below(self.random.draw(n, Salt::Lateness), self.timeline.disorder))
    }

    /// The auction that bid `n` is for.
    #[inline]
    pub(super) fn bid_auction(&self, n: u64) -> i64 {
        let random = self.random.draw(n, Salt::Auction);
        let newest = timeline::round(n) * 3 + 2;
        let oldest = newest.saturating_sub(IN_FLIGHT_AUCTIONS);
        let any = oldest + below(random, newest - oldest + 1 + LEAD);
        let hot = newest / HOT_PERIOD * HOT_PERIOD;
        // The low bits decide, the high bits choose.
        id(FIRST_AUCTION, select_unpredictable(random.is_multiple_of(HOT_AUCTION_RATIO), any, hot))
    }

    /// The person who makes bid `n`. The hot bidder is next to the hot seller, so that they differ.
    #[inline]
    pub(super) fn bidder(&self, n: u64) -> i64 {
        let random = self.random.draw(n, Salt::Bidder);
        let hot = timeline::round(n) / HOT_PERIOD * HOT_PERIOD + 1;
        let cold = random.is_multiple_of(HOT_BIDDER_RATIO);
        id(FIRST_PERSON, select_unpredictable(cold, active_person(random, n), hot))
    }

    /// The person who opens auction `n`.
    pub(super) fn seller(&self, n: u64) -> i64 {
        let random = self.random.draw(n, Salt::Seller);
        let hot = timeline::round(n) / HOT_PERIOD * HOT_PERIOD;
        let cold = random.is_multiple_of(HOT_SELLER_RATIO);
        id(FIRST_PERSON, select_unpredictable(cold, active_person(random, n), hot))
    }

    /// The price of a bid, or the first price of an auction, in cents.
    #[inline]
    pub(super) fn price(&self, n: u64) -> i64 {
        self.prices.pick(self.random.draw(n, Salt::Price))
    }

    pub(super) fn reserve(&self, n: u64) -> i64 {
        self.price(n) + self.prices.pick(self.random.draw(n, Salt::Reserve))
    }

    pub(super) fn auction_id(&self, n: u64) -> i64 {
        id(FIRST_AUCTION, timeline::auction_row(n))
    }

    pub(super) fn person_id(&self, n: u64) -> i64 {
        id(FIRST_PERSON, timeline::round(n))
    }

    pub(super) fn category(&self, n: u64) -> i64 {
        id(FIRST_CATEGORY, below(self.random.draw(n, Salt::Category), CATEGORIES))
    }

    /// When auction `n` closes: on average when as many others have been opened as are in flight.
    pub(super) fn expires(&self, n: u64) -> i64 {
        let length = 1 + below(self.random.draw(n, Salt::Expiry), self.horizon.saturating_mul(2));
        self.at(n).saturating_add_unsigned(length)
    }
}

#[inline]
fn id(first: u64, number: u64) -> i64 {
    // Event numbers stay below 2^58, and ids below event numbers.
    (first + number) as i64
}

/// Any of the persons who joined last, or of the next few.
#[inline]
fn active_person(random: u64, n: u64) -> u64 {
    let persons = timeline::round(n) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + below(random, active + LEAD)
}
