//! Window aggregation, whole and in two phases, over all kinds of keys, aggregates and windows.

use std::collections::{BTreeMap, BTreeSet};

use datafusion_expr::{Expr, ExprFunctionExt, col, lit};
use datafusion_functions_aggregate::expr_fn::{
    approx_distinct, array_agg, avg, bool_and, count, count_distinct, max, median, min, sum,
};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    testing::{Check, Pipeline, Row, Value},
    window::{AggregatePlan, Tumbling},
};

use crate::{
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
    shape::{Bounds, cut, groups, wide},
};

pub(crate) const KEYS: [&[&str]; 4] = [&[], &["auction"], &["who"], &["who", "auction"]];

/// Aggregates over bids of every kind of accumulator: with states of one column and of several, of text and lists, also those
/// that only DataFusion's adapter runs.
pub(crate) fn every_aggregate() -> Vec<(&'static str, Expr)> {
    let even = (col("price") % lit(2)).eq(lit(0));
    vec![
        ("min text", min(col("who"))),
        ("avg", avg(col("price"))),
        ("distinct", count_distinct(col("price"))),
        ("distinct text", count_distinct(col("who"))),
        ("approx", approx_distinct(col("who"))),
        ("median", median(col("price"))),
        ("all", bool_and(even.clone())),
        ("list", array_agg(col("price"))),
        ("filtered", sum(col("price")).filter(even.clone()).build().unwrap()),
        ("filtered distinct", count_distinct(col("price")).filter(even).build().unwrap()),
    ]
}

/// The columns called `names` of a bid.
pub(crate) fn key_of(bid: &Bid, names: &[&str]) -> Vec<Value> {
    let value = |name: &&str| match *name {
        "auction" => bid.auction.into(),
        _ => bid.who.clone().into(),
    };
    names.iter().map(value).collect()
}

pub(crate) fn pipeline<'a>(plan: &'a AggregatePlan, key: &[&str], two_phases: bool) -> Pipeline<'a> {
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

pub(crate) fn aggregates() -> Vec<Expr> {
    let dear = count(lit(1)).filter(col("price").gt(lit(50))).build().unwrap();
    vec![
        count(lit(1)).alias("bids"),
        count(col("price")).alias("prices"),
        sum(col("price")).alias("sum"),
        min(col("price")).alias("min"),
        max(col("who")).alias("max"),
        avg(col("price")).alias("avg"),
        count_distinct(col("price")).alias("distinct"),
        dear.alias("dear"),
    ]
}

pub(crate) fn oracle(rows: &[Bid], key: &[&str], size: u128, offset: u128) -> Vec<Row> {
    oracle_of(rows, key, |time| vec![wide(window_of(time, size, offset))])
}

/// The same over windows of which a row may be in several.
pub(crate) fn oracle_of(rows: &[Bid], key: &[&str], windows: impl Fn(Timestamp) -> Vec<Bounds>) -> Vec<Row> {
    let groups = groups(rows, key, windows);
    let row = |((window, key), bids): ((_, _), Vec<&Bid>)| {
        let (start, end) = cut(window);
        result(start, end, key, &bids)
    };
    groups.into_iter().map(row).collect()
}

pub(crate) fn result(start: i64, end: i64, key: Vec<Value>, bids: &[&Bid]) -> Row {
    let prices: Vec<i64> = bids.iter().filter_map(|bid| bid.price).collect();
    let sum = (!prices.is_empty()).then(|| prices.iter().sum::<i64>());
    let mut row: Vec<Value> = vec![start.into(), end.into()];
    row.extend(key);
    row.push(bids.len().into());
    row.push(prices.len().into());
    row.push(sum.into());
    row.push(prices.iter().min().copied().into());
    row.push(bids.iter().filter_map(|bid| bid.who.clone()).max().into());
    row.push(sum.map(|sum| sum as f64 / prices.len() as f64).into());
    row.push(prices.iter().collect::<BTreeSet<_>>().len().into());
    row.push(prices.iter().filter(|&&price| price > 50).count().into());
    row.into()
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn every_aggregate_over_every_key(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        two_phases: bool,
        size in prop_oneof![Just(1u64), 2u64..30, Just(1_000_000)],
        offset in prop_oneof![Just(0u64), 0u64..50],
        lateness in prop_oneof![Just(0u64), 0u64..30],
        bound in prop_oneof![Just(0u64), 0u64..25],
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).offset(us(offset)).allowed_lateness(us(lateness));
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, size.into(), offset.into())).map_err(fail)?;
    }
}

#[test]
fn without_rows_there_are_no_windows() {
    for (key, two_phases) in [(KEYS[0], false), (KEYS[0], true), (KEYS[1], true)] {
        let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(10)), &aggregates()).unwrap();
        Check::new(pipeline(&plan, key, two_phases)).assert(&[], |_: &[Bid]| Vec::<Row>::new());
    }
}

/// Distinct values per window and key, without an aggregate.
#[test]
fn a_window_of_keys_only() {
    let rows: Vec<Bid> = (0..50).map(|i| bid(i % 4, i)).collect();
    let plan = AggregatePlan::new(&bids(), &["auction"], Tumbling::of(us(10)), &[]).unwrap();
    for two_phases in [false, true] {
        Check::new(pipeline(&plan, &["auction"], two_phases)).out_of_order(us(8)).assert(&rows, |rows| {
            let distinct: BTreeSet<_> = rows.iter().map(|bid| (bid.at.micros() / 10 * 10, bid.auction)).collect();
            distinct.into_iter().map(|(start, auction)| (start, start + 10, auction))
        });
    }
}

/// The first phase has waited for late rows: the second does not wait again.
#[test]
fn two_phases_wait_for_late_rows_once() {
    let window = Tumbling::of(us(10)).allowed_lateness(us(30));
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1))]).unwrap();
    let out = &mut Outbox::new();
    let (mut partial, mut merging) = (plan.partial().unwrap(), plan.merging().unwrap());
    let at = Timestamp::from_micros;
    let mut rows = Bid::new_builders(1);
    rows.append_rows([bid(1, 5)]);
    partial.process(Port::MAIN, rows.finish().into_record_batch(), out).unwrap();
    assert_eq!(partial.advance(at(39), out).unwrap(), Advance::Promise(at(9)));
    assert_eq!(out.drain().count(), 0, "the window waits until 40");
    assert_eq!(partial.advance(at(40), out).unwrap(), Advance::Promise(at(10)));
    let states: Vec<_> = out.drain().collect();
    for (_, states) in states {
        merging.process(Port::MAIN, states, out).unwrap();
    }
    assert_eq!(merging.advance(at(10), out).unwrap(), Advance::Promise(at(10)));
    assert_eq!(out.drain().count(), 1);
}

/// One watermark completes far more groups than one call of `advance` emits.
#[test]
fn a_large_firing_leaves_in_steps() {
    let rows: Vec<Bid> = (0..30_000).map(|i| bid(i % 20_000, i % 3)).collect();
    for two_phases in [false, true] {
        let counts = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
        let plan = AggregatePlan::new(&bids(), &["auction"], Tumbling::of(us(2)), &counts).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"], two_phases)).rounds(3).parallelism(1..=3);
        check.batch_rows(1_000..=9_000).assert(&rows, |rows| {
            let mut groups: BTreeMap<_, (u64, i64)> = BTreeMap::new();
            for bid in rows {
                let group = groups.entry((bid.at.micros() / 2 * 2, bid.auction)).or_default();
                *group = (group.0 + 1, group.1 + bid.price.unwrap());
            }
            groups.into_iter().map(|((start, auction), (bids, sum))| (start, start + 2, auction, bids, sum))
        });
    }
}

fn bid(auction: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(auction + at), at: Timestamp::from_micros(at) }
}
