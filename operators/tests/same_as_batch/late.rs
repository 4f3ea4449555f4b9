//! Rows beyond the bound and tasks that fall idle: what is late leaves as it came, and nothing else is lost.

use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::Int64Type};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use proptest::prelude::*;
use windrow_operators::{
    Operator, Outbox, Port, Timestamp,
    stateless::Filter,
    testing::{Check, Pipeline, Row},
    window::{AggregatePlan, TopPlan, Tumbling},
};

use crate::{
    aggregate::{KEYS, key_of, pipeline},
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
    restored::batch,
    top,
};

/// Whether the window of a bid was closed at `time`, by the definition.
pub(crate) fn closed(bid: &Bid, time: Timestamp, size: u64, lateness: u64) -> bool {
    let (_, end) = window_of(bid.at, size.into(), 0);
    i128::from(end) + i128::from(lateness) <= i128::from(time.micros())
}

fn sums(rows: &[Bid], key: &[&str], size: u64) -> Vec<Row> {
    let mut groups: BTreeMap<_, (u64, Option<i64>)> = BTreeMap::new();
    for bid in rows {
        let group = groups.entry((window_of(bid.at, size.into(), 0), key_of(bid, key))).or_default();
        group.0 += 1;
        group.1 = bid.price.map(|price| price + group.1.unwrap_or(0)).or(group.1);
    }
    let mut results = Vec::new();
    for (((start, end), key), (bids, sum)) in groups {
        let mut row = vec![start.into(), end.into()];
        row.extend(key);
        row.extend([bids.into(), sum.into()]);
        results.push(Row::from(row));
    }
    results
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn an_aggregation_says_exactly_which_rows_it_left_out(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        two_phases: bool,
        size in 1u64..30, lateness in prop_oneof![Just(0u64), 0u64..20], bound in 0u64..10,
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates).unwrap();
        let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(bound)).seed(seed);
        // Not in two phases: a task that was idle judges lateness by its own rows only, and the groups that it then makes
        // may be too late for the second phase, which can no longer give back the rows.
        let check = if two_phases { check } else { check.fall_idle() };
        let is_late = |bid: &Bid, time| closed(bid, time, size, lateness);
        check.run_beyond_bound(&rows, is_late, |rows| sums(rows, key, size)).map_err(fail)?;
    }

    #[test]
    fn a_top_says_exactly_which_rows_it_left_out(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        two_phases: bool,
        size in 1u64..30, lateness in prop_oneof![Just(0u64), 0u64..20],
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let plan = TopPlan::new(&bids(), key, window, 2, "price").unwrap();
        let check = Check::new(top::pipeline(&plan, key, two_phases)).out_of_order(us(5)).seed(seed);
        let check = if two_phases { check } else { check.fall_idle() };
        let is_late = |bid: &Bid, time| closed(bid, time, size, lateness);
        check.run_beyond_bound(&rows, is_late, |rows| top::oracle(rows, key, size, 2)).map_err(fail)?;
    }

    /// An operator without state passes late rows on; the window behind it tells them.
    #[test]
    fn a_filter_does_not_hide_late_rows(rows in some_bids(-60i64..60), seed: u64) {
        let window = Tumbling::of(us(10));
        let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap();
        let pipeline = Pipeline::new(&bids())
            .stage(&bids(), || Filter::new(&bids(), &col("price").gt(lit(10))))
            .exchange([0])
            .stage(plan.output(), || plan.whole());
        let check = Check::new(pipeline).out_of_order(us(5)).seed(seed).fall_idle();
        let oracle = |rows: &[Bid]| {
            let dear: Vec<Bid> = rows.iter().filter(|bid| bid.price.is_some_and(|price| price > 10)).cloned().collect();
            sums(&dear, &["auction"], 10)
        };
        check.run_beyond_bound(&rows, |bid, time| closed(bid, time, 10, 0), oracle).map_err(fail)?;
    }
}

/// That the tests above do meet late rows.
#[test]
fn rows_beyond_the_bound_are_late() {
    let bid = |i: i64| Bid { auction: i % 3, who: None, price: Some(i), at: Timestamp::from_micros(i * 37 % 83 - 41) };
    let rows: Vec<Bid> = (0..80).map(bid).collect();
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    let plan = AggregatePlan::new(&bids(), &["auction"], Tumbling::of(us(10)), &aggregates).unwrap();
    for two_phases in [false, true] {
        let check = Check::new(pipeline(&plan, &["auction"], two_phases)).out_of_order(us(5));
        let is_late = |bid: &Bid, time| closed(bid, time, 10, 0);
        let late = check.run_beyond_bound(&rows, is_late, |rows| sums(rows, &["auction"], 10)).unwrap();
        assert!(late > 20, "only {late} rows were late");
    }
}

/// Of however many windows they are, in the order in which they came.
#[test]
fn late_rows_of_one_batch_leave_together() {
    let plan = AggregatePlan::new(&bids(), &["auction"], Tumbling::of(us(10)), &[]).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut out = Outbox::new();
    operator.advance(Timestamp::from_micros(50), &mut out).unwrap();
    let rows = [(1, 1, 45), (2, 1, 55), (3, 1, 5), (4, 1, 41), (5, 1, 6), (6, 1, 25)];
    operator.process(Port::MAIN, batch(rows), &mut out).unwrap();
    assert_eq!(out.take_counts(), (1, 5));
    let left: Vec<_> = out.drain().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, Port::LATE);
    assert_eq!(left[0].1.column(0).as_primitive::<Int64Type>().values(), &[1, 3, 4, 5, 6]);
}
