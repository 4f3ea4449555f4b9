//! The greatest rows of a window, whole and in two phases, keyed and over all, with ties and nulls.

use std::cmp::Reverse;

use proptest::prelude::*;
use windrow_operators::{
    Plan, Timestamp,
    testing::{Check, Pipeline, Row},
    window::{TopPlan, Tumbling},
};

use crate::{
    aggregate::KEYS,
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
    shape::{Bounds, cut, groups, wide},
};

pub(crate) fn pipeline<'a>(plan: &'a TopPlan, key: &[&str], two_phases: bool) -> Pipeline<'a> {
    if two_phases {
        return Pipeline::new(&bids())
            .first_phase(plan.between(), || plan.partial())
            .exchange(plan.key_between())
            .stage(plan.output(), || plan.merging())
            .keyed(Plan::keyed_output(plan));
    }
    let columns: Vec<usize> = key.iter().map(|name| bids().index_of(name).unwrap()).collect();
    Pipeline::new(&bids()).exchange(columns).stage(plan.output(), || plan.whole()).keyed(Plan::keyed_output(plan))
}

/// Sorts every window and key as the documentation says: greatest price first, nulls least, ties by the other columns.
pub(crate) fn oracle(rows: &[Bid], key: &[&str], size: u64, n: usize) -> Vec<Row> {
    oracle_of(rows, key, n, |time| vec![wide(window_of(time, size.into(), 0))])
}

/// The same over windows of which a row may be in several.
pub(crate) fn oracle_of(rows: &[Bid], key: &[&str], n: usize, windows: impl Fn(Timestamp) -> Vec<Bounds>) -> Vec<Row> {
    ranked(rows, key, n, false, windows)
}

/// With ties the price of the n-th decides who else is there.
pub(crate) fn ranked(
    rows: &[Bid],
    key: &[&str],
    n: usize,
    ties: bool,
    windows: impl Fn(Timestamp) -> Vec<Bounds>,
) -> Vec<Row> {
    let mut results = Vec::new();
    for ((window, _), mut bids) in groups(rows, key, windows) {
        let (start, end) = cut(window);
        bids.sort_by_key(|bid| (Reverse(bid.price), bid.auction, bid.who.is_none(), bid.who.clone(), bid.at));
        let least = bids.get(n - 1).map(|bid| bid.price);
        let tied = bids.iter().skip(n).take_while(|bid| ties && Some(bid.price) == least).count();
        for (rank, bid) in bids.into_iter().take(n + tied).enumerate() {
            results.push(Row::from((start, end, rank + 1, bid.auction, bid.who.clone(), bid.price, bid.at)));
        }
    }
    results
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn the_greatest_of_each_window_and_key(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        two_phases: bool,
        n in 1usize..6,
        ties: bool,
        size in prop_oneof![Just(1u64), 2u64..40, Just(1_000_000)],
        lateness in prop_oneof![Just(0u64), 0u64..30],
        bound in 0u64..20,
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let plan = if ties { TopPlan::with_ties } else { TopPlan::new };
        let plan = plan(&bids(), key, window, n, "price").unwrap();
        let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(bound)).seed(seed);
        let windows = |time| vec![wide(window_of(time, size.into(), 0))];
        check.run(&rows, |rows| ranked(rows, key, n, ties, windows)).map_err(fail)?;
    }
}

/// Enough rows that losers are sorted out long before the window closes, and enough keys that few are.
#[test]
fn losers_are_dropped_on_the_way() {
    for auctions in [3, 9_000] {
        let bid = |i: i64| Bid {
            auction: i % auctions,
            who: None,
            price: (i % 7 != 0).then_some(i * 7_919 % 1_000),
            at: Timestamp::from_micros(i % 50),
        };
        let rows: Vec<Bid> = (0..40_000).map(bid).collect();
        for key in [KEYS[0], KEYS[1]] {
            for two_phases in [false, true] {
                for ties in [false, true] {
                    let plan = if ties { TopPlan::with_ties } else { TopPlan::new };
                    let plan = plan(&bids(), key, Tumbling::of(us(25)), 3, "price").unwrap();
                    let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(50)).rounds(2);
                    let windows = |time| vec![wide(window_of(time, 25, 0))];
                    check.batch_rows(2_000..=6_000).assert(&rows, |rows| ranked(rows, key, 3, ties, windows));
                }
            }
        }
    }
}
