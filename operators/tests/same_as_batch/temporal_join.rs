//! Each left row with the version of its key as of its time.

use std::{cmp::Reverse, time::Duration};

use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Timestamp,
    join::{JoinType, TemporalJoin, TemporalJoinPlan},
    testing::{Check, Row},
};

use crate::{
    bids::{cases, fail, us},
    joins::{
        Case, Left, On, Right, RightNamed, extreme_times, left_stream, pipeline, right_stream, some_left, some_right,
    },
};

fn plan(case: Case, ttl: Option<Duration>) -> TemporalJoinPlan {
    let condition = case.condition();
    let (left, right) = (left_stream(), right_stream());
    TemporalJoinPlan::new(&left, &right, case.on.columns(), case.join_type, condition.as_ref(), ttl).unwrap()
}

/// By the definition: all versions in order, the last one that is not later than the row, and then the condition.
fn oracle(case: Case, ttl: Option<Duration>, left: &[Left], right: &[RightNamed]) -> Vec<Row> {
    let mut versions = RightNamed::plain(right);
    // Nulls are least.
    versions.sort_by_key(|v| (v.since, v.label.clone(), v.number, v.price));
    versions.reverse();
    let mut results = Vec::new();
    for row in left {
        let of_row = std::slice::from_ref(row);
        let are_pair = |version: &Right, condition: bool| {
            let inner = Case { join_type: JoinType::Inner, condition, ..case };
            !inner.join(of_row, std::slice::from_ref(version), |_, _| true).is_empty()
        };
        let version = versions.iter().find(|version| version.since <= row.at && are_pair(version, false));
        let counts = |version: &&Right| {
            let age = i128::from(row.at.micros()) - i128::from(version.since.micros());
            ttl.is_none_or(|ttl| age <= i128::try_from(ttl.as_micros()).unwrap())
        };
        let version = version.filter(counts).filter(|version| are_pair(version, case.condition));
        if version.is_some() || case.join_type == JoinType::Left {
            results.push(case.row((Some(row), version)));
        }
    }
    results
}

fn some_case() -> impl Strategy<Value = Case> {
    let types = prop::sample::select(vec![JoinType::Inner, JoinType::Left]);
    let on = prop::sample::select(vec![On::Number, On::NumberAndText]);
    (types, on, any::<bool>()).prop_map(|(join_type, on, condition)| Case { join_type, on, condition })
}

fn some_ttl() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![Just(None), (0u64..40).prop_map(|ttl| Some(us(ttl))), Just(Some(Duration::MAX))]
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn the_newest_version_that_is_not_later(
        left in some_left(-40i64..40), right in some_right(-40i64..40), case in some_case(), ttl in some_ttl(),
        bound in prop_oneof![Just(0u64), 0u64..25], seed: u64,
    ) {
        let plan = plan(case, ttl);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, ttl, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    #[test]
    fn versions_of_one_time(left in some_left(0i64..4), right in some_right(0i64..3), case in some_case(), seed: u64) {
        let plan = plan(case, None);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(2)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, None, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    #[test]
    fn rows_and_versions_behind_the_watermark_are_late(
        left in some_left(-40i64..40), right in some_right(-40i64..40), case in some_case(), ttl in some_ttl(),
        bound in 0u64..10, seed: u64,
    ) {
        let plan = plan(case, ttl);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed).fall_idle();
        let is_late = (|row: &Left, time| row.at < time, |row: &RightNamed, time| row.since() < time);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, ttl, left, right);
        check.run_two_beyond_bound(&left, &RightNamed::of(&right), is_late, oracle).map_err(fail)?;
    }

    #[test]
    fn versions_at_the_ends_of_time(
        left in some_left(extreme_times()), right in some_right(extreme_times()), case in some_case(), ttl in some_ttl(),
        bound in 0u64..9, seed: u64,
    ) {
        let plan = plan(case, ttl);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, ttl, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }
}

fn left(number: i64, at: i64) -> Left {
    Left { number: Some(number), tag: None, price: Some(at), at: Timestamp::from_micros(at) }
}

fn right(number: i64, since: i64) -> Right {
    Right { label: None, number: Some(number), price: Some(since), since: Timestamp::from_micros(since) }
}

const INNER: Case = Case { join_type: JoinType::Inner, on: On::Number, condition: false };

#[test]
fn one_side_or_both_may_be_empty() {
    let lefts: Vec<Left> = (0..30).map(|i| left(i % 3, i)).collect();
    let rights = RightNamed::of(&(0..30).map(|i| right(i % 4, i)).collect::<Vec<_>>());
    for join_type in [JoinType::Inner, JoinType::Left] {
        let case = Case { join_type, ..INNER };
        let plan = plan(case, None);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(5));
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, None, left, right);
        check.assert_two(&lefts, &[], oracle);
        check.assert_two(&[], &rights, oracle);
        check.assert_two(&[], &[], oracle);
    }
}

fn take(join: &mut TemporalJoin, lefts: &[Left], rights: &[Right]) {
    let mut out = Outbox::new();
    let mut builders = Left::new_builders(0);
    builders.append_rows(lefts.to_vec());
    join.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
    let mut builders = RightNamed::new_builders(0);
    builders.append_rows(RightNamed::of(rights));
    join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
    assert!(out.is_empty(), "nothing leaves before the watermark has passed it");
}

fn advance(join: &mut TemporalJoin, time: i64) -> usize {
    let (mut out, mut emitted) = (Outbox::new(), 0);
    loop {
        let step = join.advance(Timestamp::from_micros(time), &mut out).unwrap();
        let rows: usize = out.drain().map(|(_, rows)| rows.num_rows()).sum();
        assert!(rows <= 2 * 8192, "{rows} rows in one step");
        emitted += rows;
        if step != Advance::Again {
            return emitted;
        }
    }
}

#[test]
fn many_rows_leave_in_steps() {
    let mut join = plan(INNER, None).whole().unwrap();
    take(&mut join, &(0..50_000).map(|i| left(i % 9, i % 77)).collect::<Vec<_>>(), &[]);
    take(&mut join, &[], &(0..9).map(|i| right(i, -1)).collect::<Vec<_>>());
    assert_eq!(advance(&mut join, 100), 50_000);
}

/// Not the newest version that meets the condition, but the newest one if it does.
#[test]
fn a_condition_does_not_look_for_an_older_version() {
    for (join_type, found) in [(JoinType::Inner, 1), (JoinType::Left, 2)] {
        let mut join = plan(Case { join_type, condition: true, ..INNER }, None).whole().unwrap();
        // Of the price, which is its time, more than that of the version: the left row at 12 is dearer than 10 only.
        take(&mut join, &[left(1, 12), left(1, 25)], &[right(1, 10), right(1, 20)]);
        let dearer = Right { price: Some(99), ..right(1, 11) };
        take(&mut join, &[], &[dearer]);
        assert_eq!(advance(&mut join, 30), found, "{join_type}");
    }
}

/// A day of minutes with one version of each of 50 keys in every minute: about one of each stays.
#[test]
fn superseded_versions_are_dropped() {
    let mut join = plan(INNER, None).whole().unwrap();
    let mut sizes = Vec::new();
    for minute in 0..24 * 60 {
        take(&mut join, &[], &(0..50).map(|i| right(i, minute * 60 + i)).collect::<Vec<_>>());
        advance(&mut join, (minute + 1) * 60);
        sizes.push(join.size());
    }
    sizes.sort_by_key(|size| Reverse(*size));
    assert!(sizes[0] < 30_000, "{} bytes for 50 versions", sizes[0]);
    let lefts: Vec<Left> = (0..50).map(|i| left(i, 24 * 3_600)).collect();
    take(&mut join, &lefts, &[]);
    assert_eq!(advance(&mut join, 24 * 3_600 + 1), 50);
}

#[test]
fn a_version_counts_until_its_last_moment() {
    for (at, found) in [(15, 1), (16, 0)] {
        let mut join = plan(INNER, Some(us(5))).whole().unwrap();
        take(&mut join, &[], &[right(1, 10)]);
        for time in [11, 14, 15] {
            advance(&mut join, time);
        }
        take(&mut join, &[left(1, at)], &[]);
        assert_eq!(advance(&mut join, 30), found);
    }
}

/// A day of minutes, each with keys of its own.
#[test]
fn versions_that_do_not_count_any_more_are_dropped() {
    let mut join = plan(INNER, Some(us(300))).whole().unwrap();
    let mut most = 0;
    for minute in 0..24 * 60 {
        let at = minute * 60;
        take(&mut join, &[left(minute, at + 59)], &(0..20).map(|i| right(minute + i, at + i)).collect::<Vec<_>>());
        assert_eq!(advance(&mut join, at + 60), 1);
        most = most.max(join.size());
    }
    assert!(most < 60_000, "{most} bytes for about 100 versions");
    advance(&mut join, 24 * 3_600 + 1_000);
    assert_eq!(join.size(), 0);
}
