//! Rows of two streams in the same windows, where a row is in several.

use std::collections::BTreeSet;

use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Timestamp,
    join::{JoinType, WindowJoin, WindowJoinPlan},
    state::StateReader,
    testing::{Check, Row},
    window::{Cumulating, Global, Hopping, Window},
};

use crate::{
    bids::{cases, fail, us},
    calendar,
    joins::{
        Case, Left, On, Right, RightNamed, TYPES, extreme_times, left_stream, pipeline, right_stream, some_case,
        some_left, some_right,
    },
    restored::Saved,
    shape::Shape,
};

fn plan(case: Case, window: Window) -> WindowJoinPlan {
    let condition = case.condition();
    let (left, right) = (left_stream(), right_stream());
    WindowJoinPlan::new(&left, &right, case.on.columns(), window, case.join_type, condition.as_ref()).unwrap()
}

/// Window by window: the join of the rows that are in it.
fn oracle(case: Case, shape: &Shape, left: &[Left], right: &[RightNamed]) -> Vec<Row> {
    let right = RightNamed::plain(right);
    let times = left.iter().map(|l| l.at).chain(right.iter().map(|r| r.since));
    let windows: BTreeSet<_> = times.flat_map(|time| shape.windows_of(time)).collect();
    let mut rows = Vec::new();
    for window in windows {
        let is_in = |time: Timestamp| shape.windows_of(time).contains(&window);
        let left: Vec<Left> = left.iter().filter(|l| is_in(l.at)).cloned().collect();
        let right: Vec<Right> = right.iter().filter(|r| is_in(r.since)).cloned().collect();
        let cut = |time: i128| time.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        for (l, r) in case.join(&left, &right, |_, _| true) {
            let mut row = vec![cut(window.0).into(), cut(window.1).into()];
            row.extend(case.values(l, r));
            rows.push(Row::from(row));
        }
    }
    rows
}

fn shapes() -> impl Strategy<Value = Shape> {
    let hopping = prop_oneof![
        (1u64..12, 1u64..6).prop_map(|(slide, times)| (slide * times, slide)),
        (1u64..40, 1u64..40).prop_map(|(a, b)| (a.max(b), a.min(b).max(a.max(b) / 8))),
    ];
    let offset = || prop_oneof![Just(0u64), 0u64..50];
    prop_oneof![
        (hopping, offset()).prop_map(|((size, slide), offset)| Shape::Hopping { size, slide, offset }),
        (1u64..12, 1u64..6, offset())
            .prop_map(|(step, times, offset)| { Shape::Cumulating { size: step * times, step, offset } }),
    ]
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn every_type_of_join(
        left in some_left(-60i64..60), right in some_right(-60i64..60), case in some_case(), shape in shapes(),
        lateness in prop_oneof![Just(0u64), 0u64..30], bound in prop_oneof![Just(0u64), 0u64..25], seed: u64,
    ) {
        let plan = plan(case, shape.window().allowed_lateness(us(lateness)));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, &shape, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    /// These do not overlap.
    #[test]
    fn in_windows_of_the_calendar(
        left in some_left(calendar::times()), right in some_right(calendar::times()), case in some_case(),
        shape in calendar::shapes(), bound in prop_oneof![Just(0), 0..60 * calendar::HOUR as u64], seed: u64,
    ) {
        let plan = plan(case, shape.window());
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, &shape, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    /// Whoever falls idle stands at another time than the others when the job is restored.
    #[test]
    fn a_late_row_is_in_no_result_at_all(
        left in some_left(-60i64..60), right in some_right(-60i64..60), case in some_case(), shape in shapes(),
        lateness in prop_oneof![Just(0u64), 0u64..20], bound in 0u64..10, seed: u64,
    ) {
        let plan = plan(case, shape.window().allowed_lateness(us(lateness)));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed).fall_idle();
        let closed = |at: Timestamp, time: Timestamp| shape.is_closed(at, time, lateness);
        let is_late = (|row: &Left, time| closed(row.at, time), |row: &RightNamed, time| closed(row.since(), time));
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, &shape, left, right);
        check.run_two_beyond_bound(&left, &RightNamed::of(&right), is_late, oracle).map_err(fail)?;
    }

    #[test]
    fn at_both_ends_of_time(
        left in some_left(extreme_times()), right in some_right(extreme_times()), case in some_case(),
        size in prop_oneof![1u64..9, Just(1 << 62), Just(i64::MAX as u64), Just(u64::MAX)], times in 1u64..5,
        grows: bool, bound in 0u64..9, seed: u64,
    ) {
        let step = (size / times).max(1);
        let shape = match grows {
            true => Shape::Cumulating { size: size / step * step, step, offset: 0 },
            false => Shape::Hopping { size, slide: step, offset: 0 },
        };
        let plan = plan(case, shape.window());
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, &shape, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }
}

fn left(number: i64, at: i64) -> Left {
    Left { number: Some(number), tag: None, price: Some(at), at: Timestamp::from_micros(at) }
}

fn right(number: i64, since: i64) -> Right {
    Right { label: None, number: Some(number), price: Some(0), since: Timestamp::from_micros(since) }
}

fn take(join: &mut WindowJoin, lefts: Vec<Left>, rights: &[Right]) {
    let mut out = Outbox::new();
    let mut builders = Left::new_builders(0);
    builders.append_rows(lefts);
    join.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
    let mut builders = RightNamed::new_builders(0);
    builders.append_rows(RightNamed::of(rights));
    join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
    assert!(out.is_empty(), "nothing is late, and nothing leaves before its window closes");
}

/// How many rows leave up to `time`, and in how many steps.
fn advance(join: &mut WindowJoin, time: i64) -> (usize, usize) {
    let (mut out, mut emitted, mut steps) = (Outbox::new(), 0, 1);
    while join.advance(Timestamp::from_micros(time), &mut out).unwrap() == Advance::Again {
        let rows: usize = out.drain().map(|(_, rows)| rows.num_rows()).sum();
        assert!(rows <= 2 * 8192, "{rows} rows in one step");
        (emitted, steps) = (emitted + rows, steps + 1);
    }
    (emitted + out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), steps)
}

const FULL: Case = Case { join_type: JoinType::Full, on: On::Number, condition: false };

/// The last of 1000 µs, every microsecond: each pair is in many windows. What is held is the rows, once.
#[test]
fn large_windows_with_a_small_slide_leave_in_steps() {
    for join_type in TYPES {
        let mut join = plan(Case { join_type, ..FULL }, Hopping::of(us(1_000), us(1))).whole().unwrap();
        let lefts: Vec<Left> = (0..300).map(|i| left(i, i)).collect();
        take(&mut join, lefts.clone(), &(0..300).map(|i| right(i, i)).collect::<Vec<_>>());
        let held = join.size();
        // Rows of equal times are in the same thousand windows.
        let expected = if join_type == JoinType::LeftAnti { 0 } else { 300 * 1_000 };
        let (emitted, steps) = advance(&mut join, i64::MAX);
        assert_eq!(emitted, expected, "{join_type}");
        assert!(expected == 0 || steps > 10, "{join_type}: {steps} steps");
        assert_eq!(join.size(), 0, "{join_type}");
        assert!(held < 100_000, "{held} bytes for 600 rows");
    }
}

/// One left row with very many partners in its window: it does not leave in one step.
#[test]
fn one_row_with_very_many_partners_leaves_in_steps() {
    for join_type in [JoinType::Inner, JoinType::Full, JoinType::LeftSemi] {
        let mut join = plan(Case { join_type, ..FULL }, Hopping::of(us(10), us(5))).whole().unwrap();
        take(&mut join, vec![left(1, 7)], &vec![right(1, 8); 100_000]);
        let emitted = advance(&mut join, i64::MAX).0;
        assert_eq!(emitted, if join_type == JoinType::LeftSemi { 2 } else { 200_000 }, "{join_type}");
    }
}

/// Rows leave with the last window that they are in, as time goes on.
#[test]
fn rows_are_dropped_when_their_last_window_has_closed() {
    let mut join = plan(FULL, Hopping::of(us(60), us(20))).whole().unwrap();
    let mut most = 0;
    for minute in 0..1_000 {
        let rights: Vec<Right> = (0..60).map(|i| right(minute * 60 + i, minute * 60 + i)).collect();
        take(&mut join, (0..60).map(|i| left(minute * 60 + i, minute * 60 + i)).collect(), &rights);
        most = most.max(join.size());
        let emitted = advance(&mut join, (minute + 1) * 60).0;
        // At the beginning some windows have not begun to close.
        assert_eq!(emitted, if minute == 0 { 20 + 40 + 60 } else { 180 });
    }
    assert!(most < 100_000, "{most} bytes for about 220 rows");
    assert_eq!(advance(&mut join, 1_000 * 60 + 40).0, 60);
    assert_eq!(join.size(), 0);
    let mut join = plan(FULL, Cumulating::of(us(60), us(20))).whole().unwrap();
    take(&mut join, vec![left(1, 3)], &[right(1, 25)]);
    let emitted: Vec<usize> = [20, 40, 59, 60].map(|time| advance(&mut join, time).0).to_vec();
    assert_eq!(emitted, [1, 1, 0, 1], "alone, then the pair");
    assert_eq!(join.size(), 0);
}

/// If inputs fell idle, tasks stood at different times: each window gives its result once for each key.
#[test]
fn a_window_is_given_once_by_tasks_that_stood_at_different_times() {
    let task = |number: i64, time: i64| {
        let mut join = plan(FULL, Hopping::of(us(30), us(10))).whole().unwrap();
        take(&mut join, vec![left(number, 95)], &[right(number, 97), right(-1 - number, 96)]);
        let (emitted, _) = advance(&mut join, time);
        let mut saved = Saved::new();
        saved.save(&mut join);
        (saved.part(), emitted)
    };
    // Windows [70, 100), [80, 110) and [90, 120): a pair and a row alone in each.
    // Keys of different key groups, as they are of different tasks.
    for (number, other) in [(1, 5), (7, 3), (4, 1)] {
        let ((ahead, of_ahead), (behind, of_behind)) = (task(number, 111), task(other, 99));
        assert_eq!((of_ahead, of_behind), (4, 0));
        for parts in [vec![ahead.clone(), behind.clone()], vec![behind, ahead]] {
            let mut join = plan(FULL, Hopping::of(us(30), us(10))).whole().unwrap();
            join.load(&StateReader { key_groups: 0..256, parts }).unwrap();
            // It may be saved once more before it goes on.
            let mut saved = Saved::new();
            saved.save(&mut join);
            let mut again = plan(FULL, Hopping::of(us(30), us(10))).whole().unwrap();
            saved.load(&mut again);
            for join in [&mut join, &mut again] {
                assert_eq!(advance(join, 100).0, 2 + 2, "of the task behind: two windows, which the other has given");
                assert_eq!(advance(join, 119).0, 0);
                assert_eq!(advance(join, 120).0, 4);
                assert_eq!(join.size(), 0);
            }
        }
    }
}

#[test]
fn early_results_of_a_join_are_refused() {
    let (left, right) = (left_stream(), right_stream());
    for window in [Global::every_rows(10), Global::every(us(10))] {
        let refused = WindowJoinPlan::new(&left, &right, &[("number", "number")], window, JoinType::Inner, None);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("a window all time") && message.contains("given once"), "{message}");
    }
}
