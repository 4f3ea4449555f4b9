//! Windows of so many rows of a key, behind a sort.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use proptest::prelude::*;
use windrow_operators::{
    Operator, Outbox, Plan, Port, StreamSchema, Timestamp,
    count::{Count, CountPlan},
    sort::SortPlan,
    state::{Part, SegmentId, StateReader, StateWriter, TaskState},
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, aggregates, key_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    sort::{Fault, Faulty, advance, batch, caught, columns_of, in_order, is_late, sorted},
};

pub(crate) fn pipeline<'a>(sort: &'a SortPlan, plan: &'a CountPlan, key: &[&str]) -> Pipeline<'a> {
    sorted(sort, key).stage(plan.output(), || plan.whole()).keyed(Plan::keyed_output(plan))
}

/// All rows of a key in a list, and each window a part of the list.
pub(crate) fn oracle(rows: &[Bid], key: &[&str], size: usize, slide: usize) -> Vec<Row> {
    let mut lists: BTreeMap<Vec<Value>, Vec<Bid>> = BTreeMap::new();
    for bid in rows {
        lists.entry(key_of(bid, key)).or_default().push(bid.clone());
    }
    let mut results = Vec::new();
    for (key, mut list) in lists {
        list.sort_by_key(in_order);
        let mut first = 0;
        while first + size <= list.len() {
            results.push(result(key.clone(), &list[first..first + size]));
            first += slide;
        }
    }
    results
}

fn result(key: Vec<Value>, bids: &[Bid]) -> Row {
    let prices: Vec<i64> = bids.iter().filter_map(|bid| bid.price).collect();
    let sum = (!prices.is_empty()).then(|| prices.iter().sum::<i64>());
    let mut row: Vec<Value> = vec![bids[0].at.into(), bids[bids.len() - 1].at.into()];
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
    #![proptest_config(cases(40))]

    #[test]
    fn every_aggregate_over_every_key(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        size in 1u64..9, slide in 1u64..9, bound in prop_oneof![Just(0u64), 0u64..25], seed: u64,
    ) {
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = CountPlan::new(&bids(), key, Count::of(size).every(slide), &aggregates()).unwrap();
        let check = Check::new(pipeline(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, size as usize, slide as usize)).map_err(fail)?;
    }

    #[test]
    fn late_rows_are_in_no_window(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()), size in 1u64..6, slide in 1u64..6, seed: u64,
    ) {
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = CountPlan::new(&bids(), key, Count::of(size).every(slide), &aggregates()).unwrap();
        let check = Check::new(pipeline(&sort, &plan, key)).out_of_order(us(5)).seed(seed).fall_idle();
        let oracle = |rows: &[Bid]| oracle(rows, key, size as usize, slide as usize);
        check.run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
    }

    #[test]
    fn at_all_times(
        rows in some_bids(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -5i64..5]),
        size in 1u64..5, slide in 1u64..5, seed: u64,
    ) {
        let sort = SortPlan::new(&bids(), &["auction"]).unwrap();
        let plan = CountPlan::new(&bids(), &["auction"], Count::of(size).every(slide), &aggregates()).unwrap();
        let check = Check::new(pipeline(&sort, &plan, &["auction"])).out_of_order(us(1 << 62)).seed(seed);
        check.run(&rows, |rows| oracle(rows, &["auction"], size as usize, slide as usize)).map_err(fail)?;
    }
}

fn bid(auction: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(auction + at), at: Timestamp::from_micros(at) }
}

/// More rows than are worked on at once, in very many windows.
#[test]
fn many_rows_in_many_windows() {
    let rows: Vec<Bid> = (0..1_000).map(|i| bid(i % 2, i)).collect();
    for (size, slide) in [(150, 1), (300, 100), (7, 1_000), (1, 1)] {
        let sort = SortPlan::new(&bids(), &["auction"]).unwrap();
        let plan = CountPlan::new(&bids(), &["auction"], Count::of(size).every(slide), &aggregates()).unwrap();
        let check = Check::new(pipeline(&sort, &plan, &["auction"])).rounds(1).batch_rows(200..=1_000);
        check.assert(&rows, |rows| oracle(rows, &["auction"], size as usize, slide as usize));
    }
}

#[test]
fn a_count_of_keys_only() {
    let rows: Vec<Bid> = (0..50).map(|i| bid(i % 4, i)).collect();
    let sort = SortPlan::new(&bids(), &["auction"]).unwrap();
    let plan = CountPlan::new(&bids(), &["auction"], Count::of(5), &[]).unwrap();
    Check::new(pipeline(&sort, &plan, &["auction"]))
        .out_of_order(us(8))
        .assert(&rows, |_| (0..4).flat_map(|key| (0..2).map(move |n| (key + 20 * n, key + 20 * n + 16, key))));
}

fn counts(size: u64, slide: u64) -> CountPlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    CountPlan::new(&bids(), &["auction"], Count::of(size).every(slide), &aggregates).unwrap()
}

/// One task and what a store would have of it.
#[derive(Default)]
pub(crate) struct Saved {
    next: u64,
    store: BTreeMap<SegmentId, RecordBatch>,
    pub(crate) state: TaskState,
}

impl Saved {
    /// Saves; returns the rows that were sealed.
    pub(crate) fn save(&mut self, operator: &mut impl Operator) -> usize {
        let mut next = SegmentId(self.next);
        let mut writer = StateWriter::new(&mut next);
        operator.save(&mut writer).unwrap();
        self.state = writer.finish();
        self.next = next.0;
        let new: Vec<_> = self.state.segments.iter().filter_map(|(id, rows)| Some((*id, rows.clone()?))).collect();
        let sealed = new.iter().map(|(_, rows)| rows.num_rows()).sum();
        self.store.extend(new);
        sealed
    }

    pub(crate) fn load<O: Operator>(&self, mut operator: O) -> O {
        let segments = self.state.segments.iter().map(|(id, _)| (*id, self.store[id].clone())).collect();
        let part = Part { first_phase: false, numbers: self.state.numbers.clone(), segments, stored: Vec::new() };
        operator.load(&StateReader { key_groups: 0..256, parts: vec![part] }).unwrap();
        operator
    }
}

/// A day of virtual time over many keys: a save writes what has changed, keys that are done go, also through restarts.
#[test]
fn a_day_leaves_only_windows_that_are_not_full() {
    let plan = counts(10, 10);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::default();
    let keys = 20_000;
    operator
        .process(Port::MAIN, batch(&(0..keys).map(|key| bid(key, 0)).collect::<Vec<_>>()), &mut Outbox::new())
        .unwrap();
    assert_eq!(saved.save(&mut operator), keys as usize);
    let full = operator.size();
    let (mut results, mut changed, mut sealed, hours) = (0, 0, 0, 24);
    for hour in 0..hours {
        let from = hour * keys * 9 / hours;
        let rows: Vec<Bid> = (from..(hour + 1) * keys * 9 / hours).map(|i| bid(i / 9, 1 + hour)).collect();
        let touched = rows.iter().map(|bid| bid.auction).collect::<BTreeSet<_>>().len();
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch(&rows), &mut out).unwrap();
        results += out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        advance(&mut operator, hour);
        (changed, sealed) = (changed + touched, sealed + saved.save(&mut operator));
        if hour % 7 == 3 {
            operator = saved.load(plan.whole().unwrap());
        }
    }
    assert_eq!(results, keys as usize);
    assert!(sealed < 5 * changed, "{sealed} rows for {changed} changes");
    saved.save(&mut operator);
    saved.save(&mut operator);
    assert!(operator.size() < full / 10, "{} of {full} bytes", operator.size());
    let size = saved.load(plan.whole().unwrap()).size();
    assert!(size < full / 10, "{size} of {full} bytes after a restart");
}

#[test]
fn without_saves_a_key_that_is_done_is_gone() {
    let mut operator = counts(5, 5).whole().unwrap();
    for i in 0..5 {
        let rows: Vec<Bid> = (0..1_000).map(|key| bid(key, i)).collect();
        operator.process(Port::MAIN, batch(&rows), &mut Outbox::new()).unwrap();
    }
    assert_eq!(operator.size(), 0);
}

#[test]
fn planted_faults_are_found() {
    let rows: Vec<Bid> = (0..80).map(|i| bid(i % 3, i * 37 % 83)).collect();
    let (sort, plan) = (SortPlan::new(&bids(), &["auction"]).unwrap(), counts(4, 3));
    let expected = |rows: &[Bid]| {
        let full = oracle(rows, &["auction"], 4, 3);
        let short = |row: &Row| row.to_string();
        full.iter().map(short).collect::<Vec<_>>()
    };
    assert!(!expected(&rows).is_empty());
    let sums = |rows: &[Bid]| {
        let mut lists: BTreeMap<i64, Vec<&Bid>> = BTreeMap::new();
        rows.iter().for_each(|bid| lists.entry(bid.auction).or_default().push(bid));
        let mut results = Vec::new();
        for (key, mut list) in lists {
            list.sort_by_key(|bid| bid.at);
            for window in list.windows(4).step_by(3) {
                let sum: i64 = window.iter().filter_map(|bid| bid.price).sum();
                results.push((window[0].at, window[3].at, key, 4, sum));
            }
        }
        results
    };
    let run = |fault, seed| {
        let pipeline = sorted(&sort, &["auction"]).stage(plan.output(), || Faulty::new(plan.whole()?, fault));
        Check::new(pipeline).out_of_order(us(20)).seed(seed).run(&rows, sums)
    };
    assert!(!caught(|seed| run(Fault::None, seed)));
    assert!(caught(|seed| run(Fault::ForgetsOneSegment, seed)));
    assert!(caught(|seed| run(Fault::KeepsTheLastRowOfABatch, seed)));
    let unsorted = |seed| {
        let pipeline = Pipeline::new(&bids()).exchange(columns_of(&["auction"])).stage(plan.output(), || plan.whole());
        Check::new(pipeline).out_of_order(us(20)).seed(seed).run(&rows, sums)
    };
    assert!(caught(unsorted), "without a sort");
}

#[test]
fn mistakes_are_refused() {
    let message =
        |size, slide| CountPlan::new(&bids(), &[], Count::of(size).every(slide), &[]).unwrap_err().to_string();
    assert!(message(0, 1).contains("at least one row"));
    assert!(message(1, 0).contains("at least one row"));
    assert!(message(u64::MAX, u64::MAX).contains("at most"));
    assert_eq!(
        message(10_000, 1),
        "count windows of 10000 rows every 1 rows: each row would be in 10000 windows, at most 1024 are allowed: let the \
         windows begin every 10 rows or more"
    );
    let timeless = StreamSchema::without_time(bids().columns().clone());
    assert!(CountPlan::new(&timeless, &[], Count::of(1), &[]).unwrap_err().to_string().contains("needs event time"));
    let error = |key: &str, name: &str| {
        let twice = CountPlan::new(&bids(), &[key], Count::of(1), &[count(lit(1)).alias(name)]);
        twice.unwrap_err().to_string()
    };
    assert!(error("auction", "auction").contains("two columns"));
    assert!(error("prise", "n").contains("did you mean \"price\"?"));
    let plan = |size| CountPlan::new(&bids(), &["auction"], Count::of(size).every(1), &[]).unwrap();
    let form = |size: u64| windrow_operators::Plan::state_form(&plan(size));
    assert!(form(2).accepts(&form(3)).is_err());
}
