//! Windows one after the other: what the first gives the second must not lose.

use std::{cmp::Reverse, collections::BTreeMap};

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, max};
use proptest::prelude::*;
use windrow_operators::{
    testing::{Check, Pipeline, Row, Value},
    window::{AggregatePlan, Hopping, TopPlan, Tumbling},
};

use crate::{
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
    late::closed,
    shape::{Shape, cut, groups},
};

/// Bids per auction and window of `size`.
fn counts(rows: &[Bid], size: u64) -> BTreeMap<((i64, i64), i64), u64> {
    let mut counts = BTreeMap::new();
    for bid in rows {
        *counts.entry((window_of(bid.at, size.into(), 0), bid.auction)).or_insert(0) += 1;
    }
    counts
}

/// Per auction and window of `outer`, how many inner windows had bids and how many the fullest of them had.
fn fullest(rows: &[Bid], inner: u64, outer: u64) -> Vec<Row> {
    let mut windows: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (((_, end), auction), bids) in counts(rows, inner) {
        let last = windrow_operators::Timestamp::from_micros(end - 1);
        let window = windows.entry((window_of(last, outer.into(), 0), auction)).or_default();
        *window = (window.0 + 1, window.1.max(bids));
    }
    windows.into_iter().map(|(((start, end), auction), (n, most))| (start, end, auction, n, most).into()).collect()
}

/// In each window the auction with the most bids.
fn hottest(rows: &[Bid], size: u64) -> Vec<Row> {
    let mut windows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((window, auction), bids) in counts(rows, size) {
        windows.entry(window).or_default().push((Reverse(bids), auction));
    }
    let best = |auctions: Vec<(Reverse<u64>, i64)>| auctions.into_iter().min().unwrap();
    let row = |((start, end), auctions)| {
        let (Reverse(bids), auction) = best(auctions);
        Row::from((start, end, 1, auction, bids))
    };
    windows.into_iter().map(row).collect()
}

proptest! {
    #![proptest_config(cases(32))]

    /// The first window waits for late rows, so its results come late, and its promise says so. The second does not
    /// wait, and still no result of the first is late to it: else the check would meet a late row that no input row is.
    #[test]
    fn the_second_window_keeps_what_the_first_gave(
        rows in some_bids(-60i64..60),
        lateness in 0u64..30, inner in 1u64..15, factor in 1u64..5, bound in 0u64..10,
        two_phases: bool, beyond: bool, seed: u64,
    ) {
        let outer = inner * factor;
        let window = Tumbling::of(us(inner)).allowed_lateness(us(lateness));
        let first = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("bids")]).unwrap();
        let renamed = windrow_operators::stateless::Project::new(first.output(), &[col("auction"), col("bids")]).unwrap();
        let most = [count(lit(1)).alias("n"), max(col("bids")).alias("most")];
        let second = AggregatePlan::new(renamed.output(), &["auction"], Tumbling::of(us(outer)), &most).unwrap();
        let pipeline = match two_phases {
            true => Pipeline::new(&bids())
                .first_phase(first.between(), || first.partial())
                .exchange(first.key_between())
                .stage(first.output(), || first.merging())
                .stage(renamed.output(), || Ok(renamed.clone()))
                .first_phase(second.between(), || second.partial())
                .exchange(second.key_between())
                .stage(second.output(), || second.merging()),
            false => Pipeline::new(&bids())
                .exchange([0])
                .stage(first.output(), || first.whole())
                .stage(renamed.output(), || Ok(renamed.clone()))
                .stage(second.output(), || second.whole()),
        };
        let check = Check::new(pipeline).out_of_order(us(bound)).seed(seed);
        if beyond {
            let is_late = |bid: &Bid, time| closed(bid, time, inner, lateness);
            check.run_beyond_bound(&rows, is_late, |rows| fullest(rows, inner, outer)).map_err(fail)?;
        } else {
            check.run(&rows, |rows| fullest(rows, inner, outer)).map_err(fail)?;
        }
    }

    /// The hottest auction of each window: aggregate by auction, then the top of the same windows over all.
    #[test]
    fn the_top_of_an_aggregation(
        rows in some_bids(-60i64..60), lateness in 0u64..20, size in 1u64..40, two_phases: bool, seed: u64
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("bids")]).unwrap();
        let top = TopPlan::new(plan.output(), &[], Tumbling::of(us(size)), 1, "bids").unwrap();
        let counted = Pipeline::new(&bids())
            .first_phase(plan.between(), || plan.partial())
            .exchange(plan.key_between())
            .stage(plan.output(), || plan.merging());
        let pipeline = match two_phases {
            true => counted.first_phase(top.between(), || top.partial()).exchange([]).stage(top.output(), || top.merging()),
            false => counted.exchange([]).stage(top.output(), || top.whole()),
        };
        Check::new(pipeline).out_of_order(us(10)).seed(seed).run(&rows, |rows| hottest(rows, size)).map_err(fail)?;
    }

    /// The hottest auction of hopping windows: each of them ends in a tumbling window of its own, as long as the slide.
    #[test]
    fn the_top_of_hopping_windows(
        rows in some_bids(-60i64..60), lateness in 0u64..20, slide in 1u64..10, times in 1u64..5, two_phases: bool, seed: u64
    ) {
        let size = slide * times;
        let window = Hopping::of(us(size), us(slide)).allowed_lateness(us(lateness));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("bids")]).unwrap();
        let top = TopPlan::new(plan.output(), &[], Tumbling::of(us(slide)), 1, "bids").unwrap();
        let counted = Pipeline::new(&bids())
            .first_phase(plan.between(), || plan.partial())
            .exchange(plan.key_between())
            .stage(plan.output(), || plan.merging());
        let pipeline = match two_phases {
            true => counted.first_phase(top.between(), || top.partial()).exchange([]).stage(top.output(), || top.merging()),
            false => counted.exchange([]).stage(top.output(), || top.whole()),
        };
        let shape = Shape::Hopping { size, slide, offset: 0 };
        let oracle = |rows: &[Bid]| {
            let mut windows: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for ((window, auction), bids) in groups(rows, &["auction"], |time| shape.windows_of(time)) {
                windows.entry(window).or_default().push((Reverse(bids.len()), auction));
            }
            let hottest = windows.into_iter().map(|(window, auctions)| {
                let (Reverse(bids), auction) = auctions.into_iter().min().unwrap();
                let (_, end) = cut(window);
                let mut row: Vec<Value> = vec![(end - slide as i64).into(), end.into(), 1.into()];
                row.extend(auction);
                row.push(bids.into());
                Row::from(row)
            });
            hottest.collect::<Vec<_>>()
        };
        Check::new(pipeline).out_of_order(us(10)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }
}
