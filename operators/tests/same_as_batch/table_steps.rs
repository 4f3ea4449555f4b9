//! Tables that change, looked at after every step: what their changes add up to is the table as it is then, and not only at the
//! end. One task, saved and restored on the way.

use std::{collections::BTreeMap, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type, TimestampMicrosecondType, UInt8Type},
};
use datafusion_expr::{col, lit};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Plan, Port, StreamSchema, Timestamp,
    changes::UpsertPlan,
    join::JoinType,
    testing::{Check, Row, Value, final_table},
};

use crate::{
    bids::{Bid, bids, cases, fail, some_bids, us},
    change_join::{Case, Joined, Left, Right, changes, some_case, some_rows, tables_joined},
    planned::{Task, keyed},
    updating::batch_of,
};

/// The changes of a stream, each with what it does first; checks that none is before the promised time.
fn told(stream: &StreamSchema, batches: &[(Port, RecordBatch)], promised: i64, into: &mut Vec<Row>) {
    for (port, batch) in batches {
        assert_eq!(*port, Port::MAIN);
        let (op, time) = (stream.op().unwrap(), stream.time().unwrap());
        let times = batch.column(time).as_primitive::<TimestampMicrosecondType>().values();
        assert!(times.iter().all(|time| *time >= promised), "{times:?} after {promised} was promised");
        let ops = batch.column(op).as_primitive::<UInt8Type>().values();
        for row in 0..batch.num_rows() {
            let value = |column: usize| -> Value {
                let column = batch.column(column);
                match column.data_type() {
                    _ if column.is_null(row) => None::<i64>.into(),
                    DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
                    DataType::Utf8 => column.as_string::<i32>().value(row).to_string().into(),
                    _ => Timestamp::from_micros(column.as_primitive::<TimestampMicrosecondType>().value(row)).into(),
                }
            };
            let values: Vec<Value> = [ops[row].into()].into_iter().chain((0..op).map(value)).collect();
            into.push(values.into());
        }
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

/// What happens to a task, with the time that is promised before it.
#[derive(Clone, Debug)]
struct Step<T> {
    rows: T,
    advance: i64,
    restart: bool,
}

fn steps<T: std::fmt::Debug + 'static>(
    rows: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<Step<T>>> {
    let step = (rows, 0i64..8, prop::bool::weighted(0.3));
    prop::collection::vec(step.prop_map(|(rows, advance, restart)| Step { rows, advance, restart }), 1..14)
}

fn keep<T: Clone>(rows: &[T], most: usize) -> Vec<T> {
    rows.iter().take(most).cloned().collect()
}

/// The rows of both sides, and what each does, mostly inserts and updates.
fn some_changes() -> impl Strategy<Value = (Vec<Left>, Vec<Right>, Vec<u8>)> {
    let ops = prop::collection::vec(prop::sample::select(vec![0u8, 1, 1, 2]), 12);
    (some_rows(), ops).prop_map(|((left, right), ops)| (keep(&left, 6), keep(&right, 6), ops))
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn a_join_of_tables(
        case in some_case(), steps in steps(some_changes()), ttl in prop_oneof![Just(None), (0u64..30).prop_map(Some)],
        step in prop_oneof![1usize..6, Just(8_192)],
    ) {
        let joined = Joined::new(&case, ttl);
        let [l, r] = joined.upserts.each_ref().map(UpsertPlan::output);
        let mut task = Task::new(&joined.join);
        task.out.set_step(step);
        let (mut left, mut right, mut all, mut watermark) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), i64::MIN);
        let value = |names: &[&str], k, a| names.iter().map(|name| if *name == "k" { k } else { a }).collect::<Vec<i64>>();
        let output = joined.join.output();
        for (at, Step { rows: (lefts, rights, ops), advance, restart }) in steps.into_iter().enumerate() {
            let limit = ttl.map_or(i64::MIN, |ttl| watermark.saturating_sub(ttl as i64));
            for (row, op) in lefts.iter().zip(&ops).filter(|(row, _)| row.at.micros() >= limit) {
                let key = value(case.shape.left, row.k, row.a);
                if *op == 2 { left.remove(&key); } else { left.insert(key, row.clone()); }
            }
            for (row, op) in rights.iter().zip(&ops).filter(|(row, _)| row.since.micros() >= limit) {
                let key = value(case.shape.right, row.k, row.c);
                if *op == 2 { right.remove(&key); } else { right.insert(key, row.clone()); }
            }
            let mut builders = Left::new_builders(0);
            builders.append_rows(lefts.clone());
            let mut emitted = task.process(Port::MAIN, changes(l, builders.finish().into_record_batch(), ops[..lefts.len()].to_vec()));
            let mut builders = Right::new_builders(0);
            builders.append_rows(rights.clone());
            emitted.extend(task.process(Port::RIGHT, changes(r, builders.finish().into_record_batch(), ops[..rights.len()].to_vec())));
            emitted.retain(|(port, _)| *port == Port::MAIN);
            told(output, &emitted, watermark, &mut all);

            let before = watermark;
            watermark = (-20 + at as i64 * 4 + advance).max(watermark);
            let emitted = task.advance(watermark);
            told(output, &emitted, before, &mut all);
            if let Some(ttl) = ttl {
                left.retain(|_, row| row.at.micros() >= watermark - ttl as i64);
                right.retain(|_, row| row.since.micros() >= watermark - ttl as i64);
            }
            let expected = tables_joined(left.values().cloned().collect(), right.values().cloned().collect(), &case);
            let found = final_table(&case.key())(all.clone()).map_err(fail)?;
            prop_assert_eq!(sorted(found), sorted(expected), "after step {}", at);
            if restart {
                task.save();
                task.restart();
            }
        }
    }

    #[test]
    fn the_newest_rows_for_a_while(
        steps in steps(some_bids(-20i64..60)), ttl in 0i64..30, deletes: bool,
    ) {
        let condition = col("price").lt(lit(30));
        let plan = UpsertPlan::new(&bids(), &["auction"], deletes.then_some(&condition), Some(us(ttl as u64))).unwrap();
        let mut task = Task::new(&plan);
        let (mut newest, mut all, mut watermark): (BTreeMap<i64, Bid>, _, _) = (BTreeMap::new(), Vec::new(), i64::MIN);
        let order = |bid: &Bid| (bid.at, bid.auction, bid.who.clone(), bid.price);
        for (at, Step { rows, advance, restart }) in steps.into_iter().enumerate() {
            let (rows, limit) = (keep(&rows, 9), watermark.saturating_sub(ttl));
            for bid in rows.iter().filter(|bid| bid.at.micros() >= limit) {
                let kept = newest.entry(bid.auction).or_insert_with(|| bid.clone());
                if order(bid) > order(kept) {
                    *kept = bid.clone();
                }
            }
            let (late, emitted): (Vec<_>, Vec<_>) =
                task.process(Port::MAIN, batch_of(rows.clone())).into_iter().partition(|(port, _)| *port == Port::LATE);
            let late: usize = late.iter().map(|(_, rows)| rows.num_rows()).sum();
            prop_assert_eq!(late, rows.iter().filter(|bid| bid.at.micros() < limit).count());
            told(plan.output(), &emitted, watermark, &mut all);

            let before = watermark;
            watermark = (-20 + at as i64 * 4 + advance).max(watermark);
            told(plan.output(), &task.advance(watermark), before, &mut all);
            newest.retain(|_, bid| bid.at.micros() >= watermark - ttl);
            let there = newest.values().filter(|bid| !(deletes && bid.price.is_some_and(|price| price < 30)));
            let expected = there.map(|bid| (bid.auction, bid.who.clone(), bid.price, bid.at).into()).collect::<Vec<Row>>();
            let found = final_table(&[0])(all.clone()).map_err(fail)?;
            prop_assert_eq!(sorted(found), sorted(expected), "after step {}", at);
            if restart {
                task.save();
                task.restart();
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// In many tasks, restored and rescaled: in the end all rows have gone, and only rows that are so far behind are late.
    #[test]
    fn with_a_time_to_live_no_newest_row_is_left(
        rows in some_bids(-20i64..20), ttl in 0u64..40, deletes: bool, bound in 0u64..40, seed: u64,
    ) {
        let condition = col("price").lt(lit(30));
        let plan = UpsertPlan::new(&bids(), &["auction", "who"], deletes.then_some(&condition), Some(us(ttl))).unwrap();
        let check = || {
            let check = Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed);
            check.reduced(final_table(&[0, 1]))
        };
        let nothing = |_: &[Bid]| Vec::<Row>::new();
        // Behind the watermark by no more than the bound.
        if bound <= ttl {
            check().run(&rows, nothing).map_err(fail)?;
        }
        let is_late = |bid: &Bid, time: Timestamp| bid.at < time.saturating_sub(us(ttl));
        check().fall_idle().run_beyond_bound(&rows, is_late, nothing).map_err(fail)?;
    }
}

#[test]
fn newest_rows_at_both_ends_of_time() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX].map(Timestamp::from_micros);
    let rows: Vec<Bid> =
        (0i64..).zip(ends).map(|(i, at)| Bid { auction: i % 4, who: None, price: Some(i), at }).collect();
    for ttl in [us(0), us(5), Duration::MAX] {
        let plan = UpsertPlan::new(&bids(), &["auction"], Some(&col("price").eq(lit(3))), Some(ttl)).unwrap();
        let check = Check::new(keyed(&bids(), &plan)).reduced(final_table(&[0]));
        check.assert(&rows, |_| Vec::<Row>::new());
    }
}

/// A day of minutes, each with keys of its own, some of which are taken away: what is kept is of the last two hours.
#[test]
fn a_day_of_newest_rows_leaves_nothing() {
    const MINUTE: i64 = 60_000_000;
    for deletes in [None, Some(col("price").eq(lit(0)))] {
        let ttl = Some(Duration::from_secs(3_600));
        let plan = UpsertPlan::new(&bids(), &["auction"], deletes.as_ref(), ttl).unwrap();
        let mut task = Task::new(&plan);
        let floor = task.operator.size();
        let (mut most, mut early) = (0, 0);
        for minute in 0..24 * 60 {
            let at = Timestamp::from_micros(minute * MINUTE);
            let bid = |i| Bid { auction: minute * 10 + i, who: None, price: Some(i % 3), at };
            task.process(Port::MAIN, batch_of((0..20).map(bid).collect()));
            task.advance(at.micros());
            if minute % 10 == 0 {
                task.save();
                assert!(task.state.segments.len() < 24, "{} segments", task.state.segments.len());
            }
            if minute % 250 == 0 {
                task.save();
                task.restart();
            }
            most = most.max(task.operator.size());
            early = if minute == 180 { most } else { early };
        }
        assert!(most < 2 * early, "{early} bytes after three hours and {most} at the most");
        task.advance(26 * 60 * MINUTE);
        assert_eq!((task.operator.size(), task.save(), task.state.segments.len()), (floor, 0, 0));
    }
}

/// The delete leaves at the row's time and the time to live, once the watermark is past it.
#[test]
fn a_newest_row_goes_in_time() {
    let plan = UpsertPlan::new(&bids(), &["auction"], None, Some(us(10))).unwrap();
    assert_eq!(plan.outputs().len(), 2, "rows may be late");
    let mut task = Task::new(&plan);
    let bid = |at| batch_of(vec![Bid { auction: 1, who: None, price: Some(7), at: Timestamp::from_micros(at) }]);
    task.process(Port::MAIN, bid(5));
    assert_eq!(task.advance(15).len(), 0, "15 is not more than 10 after 5");
    let gone = task.advance(16).remove(0).1;
    assert_eq!(gone.column(4).as_primitive::<UInt8Type>().values(), &[2]);
    assert_eq!(gone.column(2).as_primitive::<Int64Type>().values(), &[7], "the row as it was");
    assert_eq!(gone.column(5).as_primitive::<TimestampMicrosecondType>().values(), &[15]);
    assert_eq!(task.process(Port::MAIN, bid(5)).remove(0).0, Port::LATE);
    assert_eq!(task.process(Port::MAIN, bid(6)).remove(0).0, Port::MAIN, "behind the watermark, but not too far");
    let error = |time| UpsertPlan::new(&time, &["auction"], None, Some(us(1))).unwrap_err().to_string();
    let timeless = StreamSchema::without_time(bids().columns().clone());
    assert!(error(timeless).contains("a time to live is counted in event time"));
}

/// What is left when most rows have gone is found in another place; its partners come and go as before.
#[test]
fn a_join_goes_on_when_most_rows_have_gone() {
    const ROWS: i64 = 6_000;
    for join_type in [JoinType::Full, JoinType::LeftSemi, JoinType::LeftAnti] {
        let case = Case { shape: crate::change_join::SHAPES[1], join_type, condition: true };
        let joined = Joined::new(&case, None);
        let [l, r] = joined.upserts.each_ref().map(UpsertPlan::output);
        let (mut task, mut all) = (Task::new(&joined.join), Vec::new());
        let at = Timestamp::from_micros(0);
        let left = |k, x| Left { k, a: 0, x: Some(x), at };
        let right = |k| Right { y: None, k, c: 4, since: at };
        let lefts = |task: &mut Task<'_>, rows: Vec<Left>, op: u8| {
            let ops = vec![op; rows.len()];
            let mut builders = Left::new_builders(0);
            builders.append_rows(rows);
            task.process(Port::MAIN, changes(l, builders.finish().into_record_batch(), ops))
        };
        let rights = |task: &mut Task<'_>, rows: Vec<Right>, op: u8| {
            let ops = vec![op; rows.len()];
            let mut builders = Right::new_builders(0);
            builders.append_rows(rows);
            task.process(Port::RIGHT, changes(r, builders.finish().into_record_batch(), ops))
        };
        let goes = |k: &i64| k % 1_000 != 999;
        let mut emitted = lefts(&mut task, (0..ROWS).map(|k| left(k, 5)).collect(), 0);
        emitted.extend(rights(&mut task, (0..ROWS).map(right).collect(), 0));
        let full = task.operator.size();
        emitted.extend(lefts(&mut task, (0..ROWS).filter(goes).map(|k| left(k, 5)).collect(), 2));
        emitted.extend(rights(&mut task, (0..ROWS).filter(goes).map(right).collect(), 2));
        assert!(task.operator.size() < full / 100, "{full} bytes, then {}", task.operator.size());
        emitted.extend(lefts(&mut task, vec![left(999, 4), left(1, 5)], 1));
        emitted.extend(rights(&mut task, vec![right(1_999)], 2));
        emitted.extend(rights(&mut task, vec![right(1), right(2)], 1));
        told(joined.join.output(), &emitted, i64::MIN, &mut all);
        let there = [999, 1_999, 2_999, 3_999, 4_999, 5_999];
        let of_left = there.iter().map(|&k| left(k, if k == 999 { 4 } else { 5 })).chain([left(1, 5)]).collect();
        let of_right = there.into_iter().filter(|k| *k != 1_999).chain([1, 2]).map(right).collect();
        let found = final_table(&case.key())(all).unwrap();
        assert_eq!(sorted(found), sorted(tables_joined(of_left, of_right, &case)), "{join_type}");
    }
}

/// A semi join says nothing when another partner comes or an update leaves things as they are.
#[test]
fn a_semi_join_tells_first_and_last_partners() {
    for (join_type, ops) in [(JoinType::LeftSemi, [0, 2]), (JoinType::LeftAnti, [2, 0])] {
        let shape = crate::change_join::SHAPES[1];
        let joined = Joined::new(&Case { shape, join_type, condition: false }, None);
        assert_eq!(joined.join.output().to_string(), "changes by k, a: k Int64, a Int64, x Int64, at Timestamp");
        let [l, r] = joined.upserts.each_ref().map(UpsertPlan::output);
        let mut task = Task::new(&joined.join);
        let mut builders = Left::new_builders(0);
        builders.append_rows([1, 2].map(|a| Left { k: 1, a, x: None, at: Timestamp::from_micros(0) }));
        let there = task.process(Port::MAIN, changes(l, builders.finish().into_record_batch(), vec![0, 0]));
        assert_eq!(there.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), if ops[0] == 2 { 2 } else { 0 });
        let mut right = |c, op: u8| {
            let mut builders = Right::new_builders(0);
            builders.append_rows([Right { y: None, k: 1, c, since: Timestamp::from_micros(0) }]);
            let told = task.process(Port::RIGHT, changes(r, builders.finish().into_record_batch(), vec![op]));
            let ops = told.iter().flat_map(|(_, rows)| rows.column(4).as_primitive::<UInt8Type>().values().to_vec());
            ops.collect::<Vec<u8>>()
        };
        assert_eq!(right(7, 0), [ops[0]; 2], "{join_type}");
        assert_eq!(right(8, 0), [0; 0], "another one");
        assert_eq!(right(7, 1), [0; 0], "an update");
        assert_eq!(right(7, 2), [0; 0]);
        assert_eq!(right(8, 1), [0; 0], "an update of the only one");
        assert_eq!(right(8, 2), [ops[1]; 2], "{join_type}");
    }
}
