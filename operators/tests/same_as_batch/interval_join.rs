//! Rows of two streams that are near each other in time.

use proptest::prelude::*;
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::{
    Advance, Operator, Outbox, Partitioning, Port, StreamSchema, Timestamp,
    join::{Interval, IntervalJoin, IntervalJoinPlan, JoinType},
    state::{SegmentId, StateWriter},
    testing::{Check, Pipeline, Row},
};

use crate::{
    bids::{cases, fail, us},
    joins::{
        Case, Left, On, Right, RightNamed, TYPES, extreme_times, left_stream, pipeline, right_stream, some_case,
        some_left, some_right,
    },
};

fn plan(case: Case, (lower, upper): (i64, i64)) -> IntervalJoinPlan {
    let (left, right, condition) = (left_stream(), right_stream(), case.condition());
    let interval = Interval::between(lower, upper);
    IntervalJoinPlan::new(&left, &right, case.on.columns(), interval, case.join_type, condition.as_ref()).unwrap()
}

fn oracle(case: Case, (lower, upper): (i64, i64), left: &[Left], right: &[RightNamed]) -> Vec<Row> {
    let right = RightNamed::plain(right);
    let near = |l: &Left, r: &Right| {
        let apart = i128::from(r.since.micros()) - i128::from(l.at.micros());
        i128::from(lower) <= apart && apart <= i128::from(upper)
    };
    case.join(left, &right, near).into_iter().map(|pair| case.row(pair)).collect()
}

/// Of all signs, often of nothing, and sometimes far.
fn bounds() -> impl Strategy<Value = (i64, i64)> {
    prop_oneof![
        Just((0, 0)),
        (0i64..20, 0i64..20).prop_map(|(before, after)| (-before, after)),
        (-20i64..20, 0i64..10).prop_map(|(lower, length)| (lower, lower + length)),
        (5i64..40, 0i64..20).prop_map(|(lower, length)| (lower, lower + length)),
        (5i64..40, 0i64..20).prop_map(|(upper, length)| (-upper - length, -upper)),
        Just((-1_000, 1_000)),
    ]
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn every_type_of_join(
        left in some_left(-40i64..40), right in some_right(-40i64..40), case in some_case(), bounds in bounds(),
        bound in prop_oneof![Just(0u64), 0u64..25], seed: u64,
    ) {
        let plan = plan(case, bounds);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, bounds, left, right);
        check.run_two(&left, &RightNamed::of(&right), oracle).map_err(fail)?;
    }

    #[test]
    fn rows_behind_the_watermark_are_late(
        left in some_left(-40i64..40), right in some_right(-40i64..40), case in some_case(), bounds in bounds(),
        bound in 0u64..10, seed: u64,
    ) {
        let plan = plan(case, bounds);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed).fall_idle();
        let is_late = (|row: &Left, time| row.at < time, |row: &RightNamed, time| row.since() < time);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, bounds, left, right);
        check.run_two_beyond_bound(&left, &RightNamed::of(&right), is_late, oracle).map_err(fail)?;
    }

    #[test]
    fn intervals_at_the_ends_of_time(
        left in some_left(extreme_times()), right in some_right(extreme_times()), case in some_case(),
        bounds in prop_oneof![
            bounds(),
            Just((i64::MIN, i64::MAX)), Just((i64::MIN, i64::MIN)), Just((i64::MAX, i64::MAX)), Just((i64::MIN, -1)),
        ],
        bound in 0u64..9, seed: u64,
    ) {
        let plan = plan(case, bounds);
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(bound)).seed(seed);
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, bounds, left, right);
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
        let plan = plan(case, (-3, 2));
        let check = Check::new(pipeline(&plan, || plan.whole())).out_of_order(us(5));
        let oracle = |left: &[Left], right: &[RightNamed]| oracle(case, (-3, 2), left, right);
        check.assert_two(&lefts, &[], oracle);
        check.assert_two(&[], &rights, oracle);
        check.assert_two(&[], &[], oracle);
    }
}

fn take(join: &mut IntervalJoin, lefts: &[Left], rights: &[Right]) -> usize {
    let mut out = Outbox::new();
    let mut builders = Left::new_builders(0);
    builders.append_rows(lefts.to_vec());
    join.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
    let mut builders = RightNamed::new_builders(0);
    builders.append_rows(RightNamed::of(rights));
    join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

/// What it emits up to `time`, and what it then promises.
fn advance(join: &mut IntervalJoin, time: i64) -> (usize, i64) {
    let (mut out, mut emitted) = (Outbox::new(), 0);
    loop {
        let step = join.advance(Timestamp::from_micros(time), &mut out).unwrap();
        let rows: usize = out.drain().map(|(_, rows)| rows.num_rows()).sum();
        assert!(rows <= 2 * 8192, "{rows} rows in one step");
        emitted += rows;
        if let Advance::Promise(promise) = step {
            return (emitted, promise.micros());
        }
    }
}

#[test]
fn a_pair_leaves_at_once_and_a_row_without_a_partner_when_none_can_come() {
    let case = Case { join_type: JoinType::Left, on: On::Number, condition: false };
    let mut join = plan(case, (-5, 10)).whole().unwrap();
    assert_eq!(take(&mut join, &[left(1, 100), left(2, 100)], &[right(1, 95), right(1, 110), right(1, 111)]), 2);
    assert_eq!(advance(&mut join, 105), (0, 100), "row 2 may still leave with its own time");
    assert_eq!(advance(&mut join, 110), (0, 100), "a partner at 110 may come");
    assert_eq!(advance(&mut join, 111), (1, 111));
    let case = Case { join_type: JoinType::Inner, ..case };
    let mut join = plan(case, (-5, 10)).whole().unwrap();
    take(&mut join, &[left(1, 100)], &[]);
    assert_eq!(advance(&mut join, 105), (0, 105), "nothing holds an inner join back");
}

/// To the last moment: both when the partner comes, and when an outer row looks once more.
#[test]
fn a_row_is_kept_until_the_watermark_has_passed_its_last_partner() {
    for join_type in [JoinType::Inner, JoinType::Left, JoinType::Right, JoinType::Full] {
        let case = Case { join_type, on: On::Number, condition: false };
        let join = || plan(case, (-5, 10)).whole().unwrap();
        let mut after = join();
        take(&mut after, &[left(1, 100)], &[]);
        advance(&mut after, 110);
        assert_eq!(take(&mut after, &[], &[right(1, 110)]), 1, "{join_type}");
        assert_eq!(advance(&mut after, 200).0, 0, "{join_type}");
        let mut before = join();
        take(&mut before, &[], &[right(1, 95)]);
        advance(&mut before, 100);
        assert_eq!(take(&mut before, &[left(1, 100)], &[]), 1, "{join_type}");
        for time in [105, 110, 111, 200] {
            assert_eq!(advance(&mut before, time).0, 0, "at {time}: {join_type}");
        }
        let mut apart = join();
        assert_eq!(take(&mut apart, &[left(1, 90)], &[right(1, 100)]), 1);
        for time in [100, 101, 105, 106, 200] {
            assert_eq!(advance(&mut apart, time).0, 0, "at {time}: {join_type}");
        }
        assert_eq!((after.size(), before.size(), apart.size()), (0, 0, 0), "{join_type}");
    }
    for (join_type, alone) in [(JoinType::LeftSemi, 1), (JoinType::LeftAnti, 0)] {
        let case = Case { join_type, on: On::Number, condition: false };
        let mut join = plan(case, (-5, 10)).whole().unwrap();
        take(&mut join, &[left(1, 100)], &[]);
        advance(&mut join, 110);
        take(&mut join, &[], &[right(1, 110)]);
        assert_eq!(advance(&mut join, 111).0, alone, "{join_type}");
        let mut join = plan(case, (-5, 10)).whole().unwrap();
        take(&mut join, &[], &[right(1, 95)]);
        advance(&mut join, 100);
        assert_eq!(take(&mut join, &[left(1, 100)], &[]), alone, "at once: {join_type}");
        assert_eq!(advance(&mut join, 200).0, 0, "{join_type}");
    }
}

/// Also the many rows that one watermark decides.
#[test]
fn rows_without_a_partner_leave_in_steps() {
    let case = Case { join_type: JoinType::Full, on: On::Number, condition: false };
    let mut join = plan(case, (0, 10)).whole().unwrap();
    let lefts: Vec<Left> = (0..30_000).map(|i| left(i, i % 7)).collect();
    let rights: Vec<Right> = (0..20_000).map(|i| right(-1 - i, i % 7)).collect();
    assert_eq!(take(&mut join, &lefts, &rights), 0);
    assert_eq!(advance(&mut join, 100), (50_000, 100));
    assert_eq!(join.size(), 0);
}

/// One row meets a million that wait for it. The pairs leave in many steps of one batch, and what is answered for adds up.
#[test]
fn a_million_partners_of_one_row_leave_in_steps() {
    let mut builders = Left::new_builders(0);
    builders.append_rows((0..1_000_000).map(|i| left(1, i % 1_000)));
    let waiting = builders.finish().into_record_batch();
    for (join_type, condition, expected) in
        [(JoinType::Inner, false, 1_000_000), (JoinType::Right, true, 999_000), (JoinType::LeftAnti, false, 0)]
    {
        let case = Case { join_type, on: On::Number, condition };
        let mut join = plan(case, (-1_000, 1_000)).whole().unwrap();
        let mut out = Outbox::new();
        join.process(Port::MAIN, waiting.clone(), &mut out).unwrap();
        assert!(!out.take_again() && out.is_empty(), "nothing to meet yet");
        out.take_counts();
        let mut builders = RightNamed::new_builders(0);
        builders.append_rows(RightNamed::of(&[right(1, 500)]));
        let one = builders.finish().into_record_batch();
        join.process(Port::RIGHT, one.clone(), &mut out).unwrap();
        let (mut emitted, mut steps) = (0, 0);
        loop {
            let rows: usize = out.drain().map(|(_, rows)| rows.num_rows()).sum();
            assert!(rows <= 8192, "{rows} rows in one step");
            (emitted, steps) = (emitted + rows, steps + 1);
            if !out.take_again() {
                break;
            }
            join.process(Port::RIGHT, one.slice(0, 0), &mut out).unwrap();
        }
        assert_eq!(emitted, expected, "{join_type}");
        assert_eq!(out.take_counts(), (1, 0));
        assert!(join_type == JoinType::LeftAnti || steps > 120, "{steps} steps");
    }
}

/// Nothing else may be asked of it meanwhile.
#[test]
fn a_join_that_is_half_way_through_takes_and_saves_nothing() {
    let case = Case { join_type: JoinType::Inner, on: On::Number, condition: false };
    let mut join = plan(case, (-10, 10)).whole().unwrap();
    let mut out = Outbox::new();
    out.set_step(3);
    let mut builders = Left::new_builders(0);
    builders.append_rows((0..8).map(|i| left(1, i)));
    let lefts = builders.finish().into_record_batch();
    join.process(Port::MAIN, lefts.clone(), &mut out).unwrap();
    let mut builders = RightNamed::new_builders(0);
    builders.append_rows(RightNamed::of(&[right(1, 5)]));
    join.process(Port::RIGHT, builders.finish().into_record_batch(), &mut out).unwrap();
    assert!(out.take_again());
    let mut next = SegmentId(0);
    let saved = join.save(&mut StateWriter::new(&mut next)).unwrap_err().to_string();
    assert!(saved.contains("half-way"), "{saved}");
    let given = join.process(Port::MAIN, lefts, &mut out).unwrap_err().to_string();
    assert!(given.contains("half-way"), "{given}");
}

/// A day of minutes, each with keys of its own, with every type of join.
#[test]
fn rows_are_kept_only_as_long_as_partners_may_come() {
    for (join_type, bounds) in TYPES.into_iter().flat_map(|t| [(t, (-60, 120)), (t, (30, 90)), (t, (-90, -30))]) {
        let case = Case { join_type, on: On::Number, condition: false };
        let mut join = plan(case, bounds).whole().unwrap();
        let mut most = 0;
        for minute in 0..24 * 60 {
            let lefts: Vec<Left> = (0..20).map(|i| left(minute * 60 + i, minute * 60 + i)).collect();
            let rights: Vec<Right> = (0..20).map(|i| right(minute * 60 + i + 7, minute * 60 + i + 7)).collect();
            take(&mut join, &lefts, &rights);
            advance(&mut join, (minute + 1) * 60);
            if minute > 60 {
                most = most.max(join.size());
            }
        }
        assert!(most < 150_000, "{most} bytes for about 100 rows: {join_type} {bounds:?}");
        advance(&mut join, 24 * 3_600 + 1_000);
        assert_eq!(join.size(), 0, "{join_type} {bounds:?}");
    }
}

#[derive(Clone, Record)]
struct Probe {
    level: Option<f64>,
    at: Timestamp,
}

#[derive(Clone, Record)]
struct Mark {
    mark: Option<f64>,
    name: String,
    since: Timestamp,
}

/// All zeros are one key and so are all NaNs: in the groups of the exchange and in the indexes behind it.
#[test]
fn zeros_are_one_key_and_so_are_nans() {
    let levels = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), Some(1.5), None];
    let at = |i: usize| Timestamp::from_micros(i as i64 * 7 % 41);
    let probes: Vec<Probe> = (0..40).map(|i| Probe { level: levels[i % 6], at: at(i) }).collect();
    let mark = |i: usize| Mark { mark: levels[i * 5 % 6], name: format!("m{i}"), since: at(3 * i) };
    let marks: Vec<Mark> = (0..20).map(mark).collect();
    let left = StreamSchema::with_time(Probe::schema(), "at").unwrap();
    let right = StreamSchema::with_time(Mark::schema(), "since").unwrap();
    let interval = Interval::around(us(5), us(5));
    let plan = IntervalJoinPlan::new(&left, &right, &[("level", "mark")], interval, JoinType::Inner, None).unwrap();
    let by = |column| Partitioning::Key(vec![column]);
    let pipeline = Pipeline::two(&left, &right).exchange_two([0], by(0)).stage(plan.output(), || plan.whole());
    Check::new(pipeline).out_of_order(us(4)).assert_two(&probes, &marks, |probes, marks| {
        let mut pairs = Vec::new();
        for (probe, mark) in probes.iter().flat_map(|probe| marks.iter().map(move |mark| (probe, mark))) {
            let same = probe.level.zip(mark.mark).is_some_and(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
            if same && (mark.since.micros() - probe.at.micros()).abs() <= 5 {
                pairs.push((probe.level, probe.at, mark.mark, mark.name.clone(), mark.since));
            }
        }
        pairs
    });
}
