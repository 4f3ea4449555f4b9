//! What most of these tests read: bids, how to generate them, and the windows they fall into by the definition.

use std::{fmt, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseError};
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{StreamSchema, Timestamp};

/// What most of these tests read.
#[derive(Clone, PartialEq, Record)]
pub(crate) struct Bid {
    pub(crate) auction: i64,
    pub(crate) who: Option<String>,
    pub(crate) price: Option<i64>,
    pub(crate) at: Timestamp,
}

/// In one line, because proptest prints many.
impl fmt::Debug for Bid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?} at {}", self.auction, self.who, self.price, self.at.micros())
    }
}

pub(crate) fn bids() -> StreamSchema {
    StreamSchema::with_time(Bid::schema(), "at").unwrap()
}

/// Bids with few distinct values, so that keys, times and prices collide, and nulls.
pub(crate) fn some_bids(times: impl Strategy<Value = i64> + Clone) -> impl Strategy<Value = Vec<Bid>> {
    let who = prop::option::weighted(0.8, prop::sample::select(vec!["", "ann", "bob", "日本"]));
    let price = prop::option::weighted(0.9, -20i64..100);
    let bid = (-3i64..4, who, price, times).prop_map(|(auction, who, price, at)| Bid {
        auction,
        who: who.map(String::from),
        price,
        at: Timestamp::from_micros(at),
    });
    prop::collection::vec(bid, 0..60)
}

/// The window of `size` (from `offset`) that holds `time`, by the definition, in numbers that do not overflow. The ends
/// of time cut windows off; the last one includes its end.
pub(crate) fn window_of(time: Timestamp, size: u128, offset: u128) -> (i64, i64) {
    let (size, offset) = (i128::try_from(size.min(1 << 63)).unwrap(), i128::try_from(offset).unwrap());
    let size = size.min(i128::from(i64::MAX));
    let time = i128::from(time.micros()).min(i128::from(i64::MAX) - 1);
    let start = time - (time - offset).rem_euclid(size);
    let cut = |time: i128| i64::try_from(time.clamp(i128::from(i64::MIN), i128::from(i64::MAX))).unwrap();
    (cut(start), cut(start + size))
}

pub(crate) fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Few cases, because each is checked in twelve scenarios. `PROPTEST_CASES=2000 cargo test` looks longer.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 10_000, ..ProptestConfig::default() }
}

/// For `?` in a proptest.
pub(crate) fn fail(failure: String) -> TestCaseError {
    TestCaseError::fail(failure)
}
