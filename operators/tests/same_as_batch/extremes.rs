//! Windows at both ends of time, of the least and the greatest size.

use std::{collections::BTreeMap, time::Duration};

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use proptest::prelude::*;
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    StreamSchema, Timestamp,
    testing::{Check, Pipeline, Row, Value},
    window::{AggregatePlan, TopPlan, Tumbling},
};

use crate::{
    aggregate::pipeline,
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
};

fn oracle(rows: &[Bid], size: u128, offset: u128) -> Vec<Row> {
    let mut groups: BTreeMap<_, (u64, i64)> = BTreeMap::new();
    for bid in rows {
        let group = groups.entry((window_of(bid.at, size, offset), bid.auction)).or_default();
        *group = (group.0 + 1, group.1 + bid.price.unwrap_or(0));
    }
    let row = |(((start, end), auction), (bids, sum))| Row::from((start, end, auction, bids, sum));
    groups.into_iter().map(row).collect()
}

fn check(
    rows: &[Bid],
    two_phases: bool,
    size: Duration,
    offset: u64,
    bound: Duration,
    seed: u64,
) -> Result<(), String> {
    let window = Tumbling::of(size).offset(us(offset)).allowed_lateness(us(seed % 3));
    let prices = sum(datafusion_expr::when(col("price").is_null(), lit(0i64)).otherwise(col("price")).unwrap());
    let aggregates = [count(lit(1)).alias("bids"), prices.alias("sum")];
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"], two_phases)).out_of_order(bound).seed(seed);
    check.run(rows, |rows| oracle(rows, size.as_micros(), offset.into()))
}

pub(crate) fn instants() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![
        Just(i64::MIN),
        Just(i64::MAX),
        i64::MIN..i64::MIN + 30,
        i64::MAX - 30..=i64::MAX,
        -30i64..30,
        any::<i64>(),
    ]
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn at_all_times_with_all_sizes(
        rows in some_bids(instants()),
        two_phases: bool,
        size in prop_oneof![
            Just(us(1)), Just(us(10)), Just(us(i64::MAX as u64)), Just(us(1 << 62)), Just(Duration::from_secs(u64::MAX)),
            (1u64..100).prop_map(us), (1u64..=i64::MAX as u64).prop_map(us),
        ],
        offset in prop_oneof![Just(0u64), 0u64..20, Just(i64::MAX as u64)],
        bound in prop_oneof![Just(us(0)), Just(us(20)), Just(Duration::from_secs(u64::MAX))],
        seed: u64,
    ) {
        check(&rows, two_phases, size, offset, bound, seed).map_err(fail)?;
    }
}

/// The last instant has no slice of its own: nothing could say where that slice ends.
#[test]
fn the_last_instant_belongs_to_the_window_before_it() {
    let at = |at| Bid { auction: 1, who: None, price: Some(1), at: Timestamp::from_micros(at) };
    let rows: Vec<Bid> = [i64::MAX - 2, i64::MAX - 1, i64::MAX, i64::MAX, i64::MIN].map(at).to_vec();
    for two_phases in [false, true] {
        for (size, offset) in [(1, 0), (10, 7), (10, 6)] {
            check(&rows, two_phases, us(size), offset, us(0), 0).unwrap();
        }
    }
}

#[derive(Clone, Record)]
struct Probe {
    level: Option<f64>,
    at: Timestamp,
}

/// All zeros are one key and so are all NaNs: in the groups of the exchange and in the tables behind it.
#[test]
fn zeros_are_one_key_and_so_are_nans() {
    let levels = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), Some(1.5), None];
    let probe = |i: usize| Probe { level: levels[i % 6], at: Timestamp::from_micros(i as i64 % 9) };
    let rows: Vec<Probe> = (0..60).map(probe).collect();
    let stream = StreamSchema::with_time(Probe::schema(), "at").unwrap();
    let plan = AggregatePlan::new(&stream, &["level"], Tumbling::of(us(3)), &[count(lit(1))]).unwrap();
    let top = TopPlan::new(&stream, &["level"], Tumbling::of(us(3)), 1, "at").unwrap();
    // Of a bag of equal keys any representation may stand for all, which `Row` does not tell apart.
    let counts = |rows: &[Probe]| {
        let mut counts = BTreeMap::new();
        for row in rows {
            *counts.entry((row.at.micros() / 3 * 3, Value::from(row.level))).or_insert(0) += 1;
        }
        counts.into_iter().map(|((start, level), count)| (start, start + 3, level, count))
    };
    let latest = |rows: &[Probe]| {
        let mut latest = BTreeMap::new();
        for row in rows {
            let last = latest.entry((row.at.micros() / 3 * 3, Value::from(row.level))).or_insert(row.at);
            *last = row.at.max(*last);
        }
        latest.into_iter().map(|((start, level), at)| (start, start + 3, 1, level, at))
    };
    let input = || Pipeline::new(&stream);
    let whole = input().exchange([0]).stage(plan.output(), || plan.whole());
    let first = input().first_phase(plan.between(), || plan.partial()).exchange(plan.key_between());
    let mut failures = Vec::new();
    failures.extend(Check::new(whole).run(&rows, counts).err());
    failures.extend(Check::new(first.stage(plan.output(), || plan.merging())).run(&rows, counts).err());
    failures.extend(Check::new(input().exchange([0]).stage(top.output(), || top.whole())).run(&rows, latest).err());
    let first = input().first_phase(top.between(), || top.partial()).exchange(top.key_between());
    failures.extend(Check::new(first.stage(top.output(), || top.merging())).run(&rows, latest).err());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
