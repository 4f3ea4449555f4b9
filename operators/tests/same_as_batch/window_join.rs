//! Rows of two streams in the same window.

use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    join::{JoinType, WindowJoinPlan},
    testing::{Check, Row},
    window::{Tumbling, Window},
};

use crate::{
    bids::{cases, fail, us, window_of},
    joins::{
        Case, Left, On, Right, RightNamed, TYPES, extreme_times, left_stream, pipeline, right_stream, some_case,
        some_left, some_right,
    },
};

fn plan(case: Case, window: Window) -> WindowJoinPlan {
    let condition = case.condition();
    let (left, right) = (left_stream(), right_stream());
    WindowJoinPlan::new(&left, &right, case.on.columns(), window, case.join_type, condition.as_ref()).unwrap()
}

fn oracle(case: Case, size: u64, offset: u64, left: &[Left], right: &[RightNamed]) -> Vec<Row> {
    let window = |time: Timestamp| window_of(time, size.into(), offset.into());
    let right = RightNamed::plain(right);
    let joined = case.join(left, &right, |l, r| window(l.at) == window(r.since));
    let row = |(l, r): (Option<&Left>, Option<&Right>)| {
        let (start, end) = window(l.map_or_else(|| r.unwrap().since, |l| l.at));
        let mut row = vec![start.into(), end.into()];
        row.extend(case.values(l, r));
        Row::from(row)
    };
    joined.into_iter().map(row).collect()
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn every_type_of_join(
        left in some_left(-60i64..60), right in some_right(-60i64..60), case in some_case(),
        size in prop_oneof![Just(1u64), 2u64..30, Just(1_000_000)],
        offset in prop_oneof![Just(0u64), 0u64..50],
        lateness in prop_oneof![Just(0u64), 0u64..30],
        bound in prop_oneof![Just(0u64), 0u64..25],
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).offset(us(offset)).allowed_lateness(us(lateness));
        let plan = plan(case, window);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, size, offset, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    #[test]
    fn rows_of_closed_windows_are_late(
        left in some_left(-60i64..60), right in some_right(-60i64..60), case in some_case(),
        size in 1u64..30, lateness in prop_oneof![Just(0u64), 0u64..20], bound in 0u64..10, seed: u64,
    ) {
        let plan = plan(case, Tumbling::of(us(size)).allowed_lateness(us(lateness)));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed).fall_idle();
        let closed = |at: Timestamp, time: Timestamp| {
            i128::from(window_of(at, size.into(), 0).1) + i128::from(lateness) <= i128::from(time.micros())
        };
        let is_late = (|row: &Left, time| closed(row.at, time), |row: &RightNamed, time| closed(row.since(), time));
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, size, 0, left, right);
        check.run_two_beyond_bound(&left, &RightNamed::of(&right), is_late, oracle).map_err(fail)?;
    }

    #[test]
    fn windows_at_the_ends_of_time(
        left in some_left(extreme_times()), right in some_right(extreme_times()), case in some_case(),
        size in prop_oneof![1u64..9, Just(u64::MAX)], bound in 0u64..9, seed: u64,
    ) {
        let plan = plan(case, Tumbling::of(us(size)));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, size, 0, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }
}

fn left(number: i64, at: i64) -> Left {
    Left { number: Some(number), tag: None, price: Some(at), at: Timestamp::from_micros(at) }
}

fn right(number: i64, since: i64) -> Right {
    Right { label: None, number: Some(number), price: Some(0), since: Timestamp::from_micros(since) }
}

#[test]
fn one_side_or_both_may_be_empty() {
    let (lefts, rights) = ((0..30).map(|i| left(i % 3, i)).collect::<Vec<_>>(), (0..30).map(|i| right(i % 4, i)));
    let rights = RightNamed::of(&rights.collect::<Vec<_>>());
    for join_type in TYPES {
        let case = Case { join_type, on: On::Number, condition: false };
        let plan = plan(case, Tumbling::of(us(7)));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(5));
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, 7, 0, left, right);
        check.assert_two(&lefts, &[], oracle);
        check.assert_two(&[], &rights, oracle);
        check.assert_two(&[], &[], oracle);
    }
}

#[test]
fn rows_of_both_sides_are_late() {
    let lefts: Vec<Left> = (0..80).map(|i| left(i % 3, i * 37 % 83 - 41)).collect();
    let rights: Vec<Right> = (0..80).map(|i| right(i % 3, i * 53 % 83 - 41)).collect();
    let case = Case { join_type: JoinType::Full, on: On::Number, condition: false };
    let plan = plan(case, Tumbling::of(us(10)));
    let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(5));
    let closed = |at: Timestamp, time: Timestamp| window_of(at, 10, 0).1 <= time.micros();
    let is_late = (|row: &Left, time| closed(row.at, time), |row: &RightNamed, time| closed(row.since(), time));
    let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, 10, 0, left, right);
    let late = check.run_two_beyond_bound(&lefts, &RightNamed::of(&rights), is_late, oracle).unwrap();
    assert!(late > 40, "only {late} rows were late");
}

/// One watermark completes far more pairs than one call of `advance` emits.
#[test]
fn a_large_window_leaves_in_steps() {
    let rows: Vec<Left> = (0..400).map(|i| left(i % 2, i)).collect();
    let rights: Vec<Right> = (0..400).map(|i| right(i % 2, i)).collect();
    for (join_type, expected) in [(JoinType::Full, 80_000), (JoinType::LeftSemi, 400), (JoinType::LeftAnti, 0)] {
        let case = Case { join_type, on: On::Number, condition: false };
        let mut join = plan(case, Tumbling::of(us(1_000))).whole().unwrap();
        let mut out = Outbox::new();
        let mut builders = Left::new_builders(0);
        builders.append_rows(rows.clone());
        join.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
        let mut builders = RightNamed::new_builders(0);
        builders.append_rows(RightNamed::of(&rights));
        join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
        let mut total = 0;
        loop {
            let step = join.advance(Timestamp::from_micros(1_000), &mut out).unwrap();
            let rows: usize = out.drain().map(|(_, batch)| batch.num_rows()).sum();
            assert!(rows <= 8192 + 400, "{rows} rows in one step");
            total += rows;
            if step != Advance::Again {
                break;
            }
        }
        assert_eq!(total, expected);
        assert_eq!(join.size(), 0);
    }
}

/// A day of minutes, each with keys of its own.
#[test]
fn nothing_is_left_of_windows_that_have_closed() {
    let case = Case { join_type: JoinType::Full, on: On::Number, condition: false };
    let mut join = plan(case, Tumbling::of(us(60))).whole().unwrap();
    let mut out = Outbox::new();
    let mut most = 0;
    for minute in 0..24 * 60 {
        let mut builders = Left::new_builders(0);
        builders.append_rows((0..60).map(|i| left(minute * 60 + i, minute * 60 + i)));
        join.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
        let mut builders = RightNamed::new_builders(0);
        builders
            .append_rows(RightNamed::of(&(0..60).map(|i| right(minute * 60 + i, minute * 60 + i)).collect::<Vec<_>>()));
        join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
        most = most.max(join.size());
        join.advance(Timestamp::from_micros((minute + 1) * 60), &mut out).unwrap();
        assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 60);
        assert_eq!(join.size(), 0);
    }
    assert!(most < 100_000, "{most} bytes for 120 rows");
}

#[test]
fn two_operators_of_one_plan_have_one_form_of_state() {
    let case = Case { join_type: JoinType::Left, on: On::Number, condition: true };
    let form = plan(case, Tumbling::of(us(60))).state_form();
    assert_eq!(
        form.meaning,
        "left join, tumbling 60µs, on left.number = right.number, where price > least AND left.number != Int32(2)"
    );
    let names: Vec<&str> = form.columns.fields().iter().map(|field| field.name().as_str()).collect();
    let (own, sides) = names.split_at(2);
    assert_eq!(own, ["__key_group", "side"]);
    assert_eq!(sides[..2], ["left.number", "left.tag"]);
    assert_eq!(sides[4..], ["right.label", "right.number", "right.least", "right.since"]);
}
