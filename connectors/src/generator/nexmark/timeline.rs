//! The numbering that the three kinds of events share, and the event time of a number.
//!
//! ```text
//!   n mod 50:   0        1 2 3      4 5 6 ... 49
//!               person   auctions   bids
//! ```

const EVENTS_PER_ROUND: u64 = 50;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Auction,
    Bid,
}

impl Kind {
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Person => "persons",
            Self::Auction => "auctions",
            Self::Bid => "bids",
        }
    }

    /// Where in a round of 50 the events of this kind begin.
    fn offset(self) -> u64 {
        match self {
            Self::Person => 0,
            Self::Auction => 1,
            Self::Bid => 4,
        }
    }

    /// How many of 50 events are of this kind.
    pub(super) fn share(self) -> u64 {
        match self {
            Self::Person => 1,
            Self::Auction => 3,
            Self::Bid => 46,
        }
    }

    /// The event number of the `row`-th event of this kind.
    #[inline]
    pub(super) fn event(self, row: u64) -> u64 {
        // The shares are spelled out so that the compiler divides by constants: this runs for every row.
        match self {
            Self::Person => row * EVENTS_PER_ROUND,
            Self::Auction => row / 3 * EVENTS_PER_ROUND + 1 + row % 3,
            Self::Bid => row / 46 * EVENTS_PER_ROUND + 4 + row % 46,
        }
    }

    /// How many of the events 0 .. `event` are of this kind.
    pub(super) fn rows_before(self, event: u64) -> u64 {
        let in_last_round = (event % EVENTS_PER_ROUND).saturating_sub(self.offset()).min(self.share());
        event / EVENTS_PER_ROUND * self.share() + in_last_round
    }
}

/// The number of the round that event `n` is in; every round brings one person and three auctions.
#[inline]
pub(super) fn round(n: u64) -> u64 {
    n / EVENTS_PER_ROUND
}

/// The row number of the auction that event `n` opens.
#[inline]
pub(super) fn auction_row(n: u64) -> u64 {
    round(n) * 3 + n % EVENTS_PER_ROUND - 1
}

/// How event time follows from the event number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    /// Microseconds since 1970.
    pub(super) start: i64,
    events_per_second: u64,
    /// The time between two events, if it is a whole number: saves the division for every row.
    micros_per_event: Option<u64>,
    /// Event times are set back by less than this many microseconds.
    pub(super) disorder: u64,
}

impl Default for Timeline {
    /// The start is that of the suites; the rate makes ten million events last 100 seconds.
    fn default() -> Self {
        let start = 1_436_918_400_000_000;
        Self { start, events_per_second: 100_000, micros_per_event: Some(10), disorder: 0 }
    }
}

impl Timeline {
    /// The same with this many events in a second of event time. 0 is refused when the source is used.
    pub(super) fn at_rate(self, events_per_second: u64) -> Self {
        let divides = events_per_second > 0 && MICROS_PER_SECOND.is_multiple_of(events_per_second);
        let micros_per_event = divides.then(|| MICROS_PER_SECOND / events_per_second);
        Self { events_per_second, micros_per_event, ..self }
    }

    pub(super) fn events_per_second(&self) -> u64 {
        self.events_per_second
    }

    /// The event time of event `n`, before any disorder.
    #[inline]
    pub(super) fn in_order(&self, n: u64) -> i64 {
        let since_start = match self.micros_per_event {
            Some(micros) => n.saturating_mul(micros),
            None => {
                // In two steps, or the product would overflow after some days of a fast endless source.
                let rate = self.events_per_second;
                let rest = u128::from(n % rate) * u128::from(MICROS_PER_SECOND) / u128::from(rate);
                (n / rate).saturating_mul(MICROS_PER_SECOND).saturating_add(rest as u64)
            }
        };
        self.start.saturating_add_unsigned(since_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_share_one_numbering() {
        let mut all: Vec<(u64, Kind)> = Vec::new();
        for kind in [Kind::Person, Kind::Auction, Kind::Bid] {
            all.extend((0..kind.rows_before(517)).map(|row| (kind.event(row), kind)));
        }
        all.sort_by_key(|(event, _)| *event);
        assert!(all.iter().map(|(event, _)| *event).eq(0..517), "every number has exactly one kind");
        for (event, kind) in all {
            let expected = match event % 50 {
                0 => Kind::Person,
                1..=3 => Kind::Auction,
                _ => Kind::Bid,
            };
            assert_eq!(kind, expected, "event {event}");
        }
    }

    #[test]
    fn rows_before_inverts_event() {
        for kind in [Kind::Person, Kind::Auction, Kind::Bid] {
            for row in 0..500 {
                assert_eq!(kind.rows_before(kind.event(row)), row);
                assert_eq!(kind.rows_before(kind.event(row) + 1), row + 1);
            }
        }
    }

    #[test]
    fn auction_rows_count_auctions() {
        for row in 0..500 {
            assert_eq!(auction_row(Kind::Auction.event(row)), row);
        }
    }

    #[test]
    fn event_time_follows_the_rate_even_when_it_does_not_divide_a_second() {
        let at = |rate, n| Timeline { start: 5, ..Timeline::default() }.at_rate(rate).in_order(n);
        assert_eq!(at(100_000, 7), 75);
        assert_eq!(at(3, 1), 333_338);
        assert_eq!(at(3, 3), 1_000_005);
        assert_eq!(at(2_000_000, 3), 6);
        assert_eq!(at(1, u64::MAX), i64::MAX, "the far end saturates instead of wrapping into the past");
    }
}
