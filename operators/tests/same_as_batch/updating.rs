//! Aggregates without a window: what the changes add up to is what a batch computation gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{TimestampMicrosecondType, UInt8Type},
};
use datafusion_expr::{Expr, col, lit};
use datafusion_functions_aggregate::expr_fn::{array_agg, count, first_value, sum};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Outbox, Plan, Port, StreamSchema, Timestamp,
    changes::UpdatingPlan,
    testing::{Check, Pipeline, Row, Value, final_table},
};

use crate::{
    aggregate::{KEYS, aggregates, key_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    planned::{Fault, Faulty, Planned, Task, keyed},
};

fn oracle(rows: &[Bid], key: &[&str]) -> Vec<Row> {
    let mut groups: BTreeMap<_, Vec<&Bid>> = BTreeMap::new();
    for bid in rows {
        groups.entry(key_of(bid, key)).or_default().push(bid);
    }
    groups.into_iter().map(|(key, bids)| row(key, &bids)).collect()
}

fn row(mut row: Vec<Value>, bids: &[&Bid]) -> Row {
    let prices: Vec<i64> = bids.iter().filter_map(|bid| bid.price).collect();
    let sum = (!prices.is_empty()).then(|| prices.iter().sum::<i64>());
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

/// The rows as they were when they were deleted; all must have been.
fn last_words(key: usize) -> impl Fn(Vec<Row>) -> Result<Vec<Row>, String> {
    move |changes| {
        let left = final_table(&(0..key).collect::<Vec<_>>())(changes.clone())?;
        if let Some(row) = left.first() {
            return Err(format!("{row} was not deleted"));
        }
        let deletes = changes.into_iter().filter(|change| change.values()[0] == Value::from(2));
        Ok(deletes.map(|change| change.values()[1..].to_vec().into()).collect())
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn every_aggregate_over_every_key(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), bound in 0u64..40, seed: u64,
    ) {
        let plan = UpdatingPlan::new(&bids(), key, &aggregates(), None).unwrap();
        let check = Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed);
        let check = check.reduced(final_table(&(0..key.len()).collect::<Vec<_>>()));
        check.run(&rows, |rows| oracle(rows, key)).map_err(fail)?;
    }

    /// Rows of a key are never further apart than the time to live, so each key lives once.
    #[test]
    fn a_group_goes_after_its_time_to_live(
        rows in some_bids(0i64..60), key in prop::sample::select(KEYS.to_vec()), bound in 0u64..25, more in 0u64..100,
        seed: u64,
    ) {
        let plan = UpdatingPlan::new(&bids(), key, &aggregates(), Some(us(60 + more))).unwrap();
        let check = Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed).reduced(last_words(key.len()));
        check.run(&rows, |rows| oracle(rows, key)).map_err(fail)?;
    }

    /// With a short time to live a key lives several times; no row is lost between its lives.
    #[test]
    fn the_lives_of_a_key_have_all_its_rows(rows in some_bids(-60i64..60), ttl in 0u64..20, bound in 0u64..25, seed: u64) {
        let sums = [count(lit(1)).alias("n")];
        let plan = UpdatingPlan::new(&bids(), &["auction"], &sums, Some(us(ttl))).unwrap();
        let counts = |rows: Vec<(Value, i64)>| {
            let mut counts: BTreeMap<Value, i64> = BTreeMap::new();
            rows.into_iter().for_each(|(key, n)| *counts.entry(key).or_default() += n);
            counts.into_iter().map(|(key, n)| Row::from(vec![key, n.into()])).collect::<Vec<_>>()
        };
        let number = |value: &Value| value.to_string().parse::<i64>().unwrap();
        let reduce = move |changes| {
            let lives = last_words(1)(changes)?;
            Ok(counts(lives.iter().map(|row| (row.values()[0].clone(), number(&row.values()[1]))).collect()))
        };
        let check = || Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed).reduced(reduce);
        let oracle = |rows: &[Bid]| counts(rows.iter().map(|bid| (bid.auction.into(), 1)).collect());
        check().run(&rows, oracle).map_err(fail)?;
        let is_late = |bid: &Bid, time: Timestamp| bid.at.saturating_add(us(ttl)) < time;
        check().fall_idle().run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
    }
}

fn batch(rows: impl IntoIterator<Item = (i64, i64, i64)>) -> RecordBatch {
    let bid = |(auction, price, at)| Bid { auction, who: None, price: Some(price), at: Timestamp::from_micros(at) };
    batch_of(rows.into_iter().map(bid).collect())
}

pub(crate) fn batch_of(rows: Vec<Bid>) -> RecordBatch {
    let mut builders = Bid::new_builders(0);
    builders.append_rows(rows);
    builders.finish().into_record_batch()
}

#[test]
fn the_order_of_rows_reaches_aggregates_that_mind() {
    let aggregates: [Expr; 2] =
        [first_value(col("price"), vec![]).alias("first"), array_agg(col("price")).alias("all")];
    let plan = UpdatingPlan::new(&bids(), &["auction"], &aggregates, None).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut out = Outbox::new();
    for price in [5, 3, 9] {
        operator.process(Port::MAIN, batch([(1, price, 0), (2, -price, 0)]), &mut out).unwrap();
    }
    let (_, last) = out.drain().next_back().unwrap();
    let printed = arrow::util::pretty::pretty_format_batches(&[plan.output().show(&last).unwrap()]);
    let printed = printed.unwrap().to_string();
    assert!(printed.contains("| 5     | [5, 3, 9]    |") && printed.contains("[-5, -3, -9]"), "{printed}");
}

#[test]
fn without_event_time_there_are_changes_without_a_time() {
    let stream = StreamSchema::without_time(bids().columns().clone());
    let plan = UpdatingPlan::new(&stream, &["auction"], &[sum(col("price")).alias("sum")], None).unwrap();
    assert_eq!((plan.output().time(), plan.output().op()), (None, Some(2)));
    let rows: Vec<Bid> =
        (0..80).map(|i| Bid { auction: i % 7, who: None, price: Some(i), at: Timestamp::from_micros(i) }).collect();
    let check = Check::new(keyed(&stream, &plan)).reduced(final_table(&[0]));
    check.assert(&rows, |rows| {
        let mut sums = BTreeMap::new();
        rows.iter().for_each(|bid| *sums.entry(bid.auction).or_insert(0) += bid.price.unwrap());
        sums.into_iter()
    });
    let error = UpdatingPlan::new(&stream, &["auction"], &[], Some(us(1))).unwrap_err().to_string();
    assert!(error.contains("a time to live is counted in event time"), "{error}");
}

#[test]
fn both_ends_of_time() {
    for ttl in [us(0), us(5), Duration::MAX] {
        let plan = UpdatingPlan::new(&bids(), &["auction"], &[count(lit(1)).alias("n")], Some(ttl)).unwrap();
        let ends = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
        let rows: Vec<Bid> = (0i64..)
            .zip(ends)
            .map(|(auction, at)| Bid { auction, who: None, price: None, at: Timestamp::from_micros(at) })
            .collect();
        let check = Check::new(keyed(&bids(), &plan)).reduced(last_words(1));
        check.assert(&rows, |rows| rows.iter().map(|bid| (bid.auction, 1)).collect::<Vec<_>>());
    }
}

/// The delete leaves at the last row's time and the time to live, once the watermark is past it.
#[test]
fn a_delete_is_timed() {
    let plan = UpdatingPlan::new(&bids(), &["auction"], &[count(lit(1)).alias("n")], Some(us(10))).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut out = Outbox::new();
    operator.process(Port::MAIN, batch([(1, 0, 5), (1, 0, 3)]), &mut out).unwrap();
    assert_eq!(
        operator.advance(Timestamp::from_micros(15), &mut out).unwrap(),
        Advance::Promise(Timestamp::from_micros(15))
    );
    assert_eq!(out.drain().count(), 1, "15 is not more than 10 after 5");
    assert_eq!(operator.advance(Timestamp::from_micros(16), &mut out).unwrap(), Advance::Again);
    let (_, gone) = out.drain().next().unwrap();
    assert_eq!(gone.column(2).as_primitive::<UInt8Type>().values(), &[2]);
    assert_eq!(gone.column(3).as_primitive::<TimestampMicrosecondType>().values(), &[15]);
    // Behind the watermark, but within the time to live: it counts, at the time that was promised.
    assert_eq!(
        operator.advance(Timestamp::from_micros(16), &mut out).unwrap(),
        Advance::Promise(Timestamp::from_micros(16))
    );
    operator.process(Port::MAIN, batch([(1, 0, 6), (1, 0, 5)]), &mut out).unwrap();
    let emitted: Vec<_> = out.drain().collect();
    assert_eq!(
        emitted.iter().map(|(port, rows)| (*port, rows.num_rows())).collect::<Vec<_>>(),
        [(Port::LATE, 1), (Port::MAIN, 1)]
    );
    assert_eq!(emitted[1].1.column(3).as_primitive::<TimestampMicrosecondType>().values(), &[16]);
}

/// Ten thousand new keys an hour, each seen for a while, over a day: what is kept stays that of the last two hours.
#[test]
fn a_day_with_a_time_to_live_leaves_nothing() {
    const MINUTE: i64 = 60_000_000;
    let ttl = Duration::from_secs(3_600);
    let plan = UpdatingPlan::new(&bids(), &["auction"], &[sum(col("price")).alias("sum")], Some(ttl)).unwrap();
    let mut task = Task::new(&plan);
    let (mut most, mut early, mut inserts, mut deletes) = (0, 0, 0, 0);
    for minute in 0..24 * 60 {
        let at = minute * MINUTE;
        let mut emitted = task.process(Port::MAIN, batch((0..100).map(|i| (minute * 20 + i, i, at + i))));
        emitted.extend(task.advance(at));
        for (_, rows) in emitted {
            let ops = rows.column(2).as_primitive::<UInt8Type>().values();
            inserts += ops.iter().filter(|op| **op == 0).count();
            deletes += ops.iter().filter(|op| **op == 2).count();
        }
        if minute % 5 == 0 {
            task.save();
            assert!(task.state.segments.len() < 14, "{} segments", task.state.segments.len());
        }
        if minute % 100 == 0 {
            task.save();
            task.restart();
        }
        most = most.max(task.operator.size());
        early = if minute == 180 { most } else { early };
    }
    assert!(most < 2 * early, "{early} bytes after three hours and {most} at the most");
    deletes += task.advance(26 * 60 * MINUTE).iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
    assert_eq!((task.operator.size(), inserts), (plan.whole().unwrap().size(), deletes));
    assert_eq!((task.save(), task.state.segments.len()), (0, 0), "nothing is left in a checkpoint");
}

/// A large table of which little changes: every save writes about as much as has changed.
#[test]
fn a_save_writes_what_has_changed() {
    let plan = UpdatingPlan::new(&bids(), &["auction"], &[sum(col("price")).alias("sum")], None).unwrap();
    let mut task = Task::new(&plan);
    task.process(Port::MAIN, batch((0..50_000).map(|i| (i, i, i))));
    assert_eq!((task.save(), task.save(), task.state.segments.len()), (50_000, 0, 1));
    let mut total = 0;
    for save in 0..100 {
        if save == 50 {
            task.restart();
        }
        task.process(Port::MAIN, batch((0..10).map(|i| ((save * 7_919 + i * 4_999) % 100_000, 1, i))));
        total += task.save();
        assert!(task.state.segments.len() <= 10, "{} segments", task.state.segments.len());
    }
    assert!((1_000..10_000).contains(&total), "{total} rows for 1000 changes");
}

#[test]
fn faults_are_caught() {
    let rows: Vec<Bid> = (0..90)
        .map(|i| Bid { auction: i % 7, who: None, price: Some(i), at: Timestamp::from_micros(i * 37 % 61) })
        .collect();
    let plan = UpdatingPlan::new(&bids(), &["auction"], &aggregates(), Some(us(100))).unwrap();
    let run = |fault| {
        let stage = || Ok(Faulty::new(Planned(plan.whole()?), plan.output(), fault));
        let pipeline = Pipeline::new(&bids()).exchange([0]).stage(plan.output(), stage);
        let check = Check::new(pipeline).out_of_order(us(9)).reduced(last_words(1));
        check.run(&rows, |rows| oracle(rows, &["auction"]))
    };
    run(None).unwrap();
    let caught = [
        (Fault::InsertsForUpdates, "came upon"),
        (Fault::DeletesAreLost, "was not deleted"),
        (Fault::DeletesAnotherRow, "came upon"),
        (Fault::LastRowOfABatchIsLost, ""),
        (Fault::ForgetsItsState, "came upon"),
    ];
    for (fault, words) in caught {
        let failure = run(Some(fault)).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(words), "{fault:?} was caught, but by this: {failure}");
    }
}
