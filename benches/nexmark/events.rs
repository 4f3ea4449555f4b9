//! Which events there are, and in which order they come: the stream of the crate `nexmark`.
//!
//! ```text
//!   position   0  1  2  3 │ 4  5  6  7 │ …        groups of `shuffled` events (one: in order)
//!   event      0  1  2  3 │ 7  4  5  6 │ …        each in an order of its own, as the crate has it
//!              P  A  A  A   B  B  B  B             1 person, 3 auctions, 46 bids in every 50
//! ```
//!
//! Every event is a function of its number, so any part of the stream can be made on its own. The crate's generator seeds a
//! random number generator and allocates three strings for each event: hence events are made before the clock starts.

use std::{ops::Range, time::Duration};

use nexmark::{
    EventGenerator,
    config::NexmarkConfig,
    event::{Event, EventType},
};
use windrow::prelude::{Watermarks, millis};

/// Persons, auctions and bids in every 50 events.
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const BIDS: u64 = 46;
const ROUND: u64 = PERSONS + AUCTIONS + BIDS;

/// How far apart the streams of two seeds begin. No run is as long.
const SEED_EVENTS: u64 = ROUND * 100_000_000;

/// Midnight of 15 July 2015, UTC, in milliseconds since 1970.
pub const MIDNIGHT: u64 = 1_436_918_400_000;

/// How many auctions are open at a time, on average.
const IN_FLIGHT: u64 = 100;

/// The three kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody registers.
    Person,
    /// Somebody sells something.
    Auction,
    /// Somebody offers a price.
    Bid,
}

/// Which events a run has. The default is the common stream: ten million events in order, 100,000 to a second of event time.
#[derive(Clone, Debug)]
pub struct Events {
    /// Events of all kinds together.
    pub count: u64,
    /// Another seed gives another part of the same endless stream, with the same event times.
    pub seed: u64,
    /// Events per second of event time.
    pub rate: u64,
    /// The event time of the first event, in milliseconds since 1970.
    pub start: u64,
    /// So many events at a time are shuffled: one leaves them in order. Not a multiple of 953, which the shuffling multiplies by.
    pub shuffled: u64,
    /// Events of all kinds that make one batch of each kind. A batch is in one split.
    pub batch: u64,
    /// The splits of each kind; batches are dealt in turn.
    pub splits: usize,
}

impl Default for Events {
    fn default() -> Self {
        // Batches of 8,188 bids.
        Self { count: 10_000_000, seed: 0, rate: 100_000, start: MIDNIGHT, shuffled: 1, batch: 8_900, splits: 1 }
    }
}

impl Events {
    /// How far out of order rows come at most: a group of shuffled events, and the millisecond that times are rounded to.
    pub fn watermarks(&self) -> Watermarks {
        match self.shuffled {
            1 => Watermarks::in_order(),
            group => Watermarks::out_of_order(millis(group * 1000 / self.rate + 2)),
        }
    }

    /// How long an auction is open at most: twice what it takes to open as many as are open at a time, and a little more.
    pub fn longest_auction(&self) -> Duration {
        millis(2 * (IN_FLIGHT * ROUND / AUCTIONS) * 1000 / self.rate + 10)
    }

    /// The positions of each batch, in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (count, batch) = (self.count, self.batch.max(1));
        (0..count).step_by(batch as usize).map(move |first| first..(first + batch).min(count))
    }

    /// The events of one kind at these positions.
    pub fn of(&self, kind: Kind, positions: Range<u64>) -> Vec<Event> {
        let mut generator = EventGenerator::new(self.config()).with_type_filter(kind.of_crate());
        let mut events = Vec::new();
        for number in positions.map(|position| self.event_at(position)) {
            if Kind::of_event(number) == kind {
                generator = generator.with_offset(kind.row(number));
                events.extend(generator.next());
            }
        }
        events
    }

    /// All events at these positions.
    pub fn all(&self, positions: Range<u64>) -> Vec<Event> {
        let mut generator = EventGenerator::new(self.config());
        let mut events = Vec::new();
        for number in positions.map(|position| self.event_at(position)) {
            let kind = Kind::of_event(number);
            generator = generator.with_type_filter(kind.of_crate()).with_offset(kind.row(number));
            events.extend(generator.next());
        }
        events
    }

    /// How many seconds of event time it is from the start to `micros`, since 1970, times the events per second: the number of the
    /// first event that is not earlier.
    pub fn number_at(&self, micros: i64) -> f64 {
        (micros - self.start as i64 * 1000) as f64 / 1e6 * self.rate as f64
    }

    /// The number of the event at a position.
    fn event_at(&self, position: u64) -> u64 {
        position / self.shuffled * self.shuffled + position * 953 % self.shuffled
    }

    fn config(&self) -> NexmarkConfig {
        NexmarkConfig {
            base_time: self.start,
            first_event_id: (self.seed * SEED_EVENTS) as usize,
            first_rate: self.rate as usize,
            next_rate: self.rate as usize,
            in_flight_auctions: IN_FLIGHT as usize,
            ..NexmarkConfig::default()
        }
    }
}

impl Kind {
    fn of_event(number: u64) -> Self {
        match number % ROUND {
            place if place < PERSONS => Self::Person,
            place if place < PERSONS + AUCTIONS => Self::Auction,
            _ => Self::Bid,
        }
    }

    /// How many events of its kind come before event `number`, which is of this kind.
    fn row(self, number: u64) -> u64 {
        let (share, before) = match self {
            Self::Person => (PERSONS, 0),
            Self::Auction => (AUCTIONS, PERSONS),
            Self::Bid => (BIDS, PERSONS + AUCTIONS),
        };
        number / ROUND * share + number % ROUND - before
    }

    fn of_crate(self) -> EventType {
        match self {
            Self::Person => EventType::Person,
            Self::Auction => EventType::Auction,
            Self::Bid => EventType::Bid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events as the crate's own generator gives them.
    fn by_crate(events: &Events) -> Vec<Event> {
        let config = NexmarkConfig { out_of_order_group_size: events.shuffled as usize, ..events.config() };
        EventGenerator::new(config).take(events.count as usize).collect()
    }

    #[test]
    fn they_are_those_of_the_crate_in_its_order() {
        for (shuffled, seed) in [(1, 0), (100, 0), (1000, 3)] {
            let events = Events { count: 3000, shuffled, seed, ..Events::default() };
            let all = by_crate(&events);
            for kind in [Kind::Person, Kind::Auction, Kind::Bid] {
                let expected: Vec<_> =
                    all.iter().filter(|event| event.event_type() == kind.of_crate()).cloned().collect();
                let parts: Vec<_> = [0..1234, 1234..3000].into_iter().flat_map(|part| events.of(kind, part)).collect();
                assert_eq!(parts, expected);
            }
            assert_eq!([0..1234, 1234..3000].map(|part| events.all(part)).concat(), all);
        }
    }

    #[test]
    fn an_auction_is_no_longer_than_is_said_and_rows_are_in_the_bound() {
        let events = Events { count: 100_000, shuffled: 500, rate: 1000, ..Events::default() };
        let mut latest = 0;
        for event in by_crate(&events) {
            assert!(latest <= event.timestamp() + 502, "{latest} and then {}", event.timestamp());
            latest = latest.max(event.timestamp());
            if let Event::Auction(auction) = event {
                assert!(u128::from(auction.expires - auction.date_time) <= events.longest_auction().as_millis());
            }
        }
    }
}
