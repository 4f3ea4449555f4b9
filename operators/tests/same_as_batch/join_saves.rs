//! What a save of a join writes: about what has changed. And what a restored join still knows.

use arrow::array::RecordBatch;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Timestamp,
    join::{Interval, IntervalJoinPlan, JoinType, TemporalJoinPlan, WindowJoinPlan},
    state::StateReader,
    window::Tumbling,
};

use crate::{
    bids::us,
    joins::{Left, Right, RightNamed, left_stream, right_stream},
    restored::Saved,
};

const ON: [(&str, &str); 1] = [("number", "number")];

fn left_rows(rows: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    let mut builders = Left::new_builders(0);
    let row = |(number, at)| Left { number: Some(number), tag: None, price: None, at: Timestamp::from_micros(at) };
    builders.append_rows(rows.into_iter().map(row));
    builders.finish().into_record_batch()
}

fn right_rows(rows: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    let mut builders = RightNamed::new_builders(0);
    let row =
        |(number, at)| Right { number: Some(number), label: None, price: None, since: Timestamp::from_micros(at) };
    builders.append_rows(RightNamed::of(&rows.into_iter().map(row).collect::<Vec<_>>()));
    builders.finish().into_record_batch()
}

fn lefts(join: &mut impl Operator, rows: impl Iterator<Item = (i64, i64)>) -> usize {
    let mut out = Outbox::new();
    join.process(Port::MAIN, left_rows(rows), &mut out).unwrap();
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

fn rights(join: &mut impl Operator, rows: impl Iterator<Item = (i64, i64)>) -> usize {
    let mut out = Outbox::new();
    join.process(Port::RIGHT, right_rows(rows), &mut out).unwrap();
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

fn advance(join: &mut impl Operator, time: i64) -> usize {
    let mut out = Outbox::new();
    while join.advance(Timestamp::from_micros(time), &mut out).unwrap() == Advance::Again {}
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

/// 40 000 rows of each side, and then few more between saves.
fn little_is_written<O: Operator>(make: impl Fn() -> O) {
    let (mut join, mut saved) = (make(), Saved::new());
    lefts(&mut join, (0..40_000).map(|i| (i, i)));
    rights(&mut join, (0..40_000).map(|i| (-i, i)));
    assert_eq!(saved.save(&mut join), 80_000);
    assert_eq!(saved.save(&mut join), 0, "nothing has changed");
    let mut written = 0;
    for save in 0..100_i64 {
        if save == 50 {
            join = make();
            saved.load(&mut join);
        }
        lefts(&mut join, (0..10).map(|i| (i, 40_000 + save)));
        rights(&mut join, (0..10).map(|i| (-i, 40_000 + save)));
        written += saved.save(&mut join);
        assert!(saved.state.segments.len() <= 24, "{} segments", saved.state.segments.len());
    }
    assert!((2_000..20_000).contains(&written), "{written} rows for 2000 changes");
}

#[test]
fn a_save_of_a_join_writes_what_has_changed() {
    let (left, right) = (left_stream(), right_stream());
    let window = WindowJoinPlan::new(&left, &right, &ON, Tumbling::of(us(1_000_000)), JoinType::Full, None).unwrap();
    little_is_written(|| window.whole().unwrap());
    let near = Interval::around(us(50_000), us(50_000));
    let interval = IntervalJoinPlan::new(&left, &right, &ON, near, JoinType::Full, None).unwrap();
    little_is_written(|| interval.whole().unwrap());
    let temporal = TemporalJoinPlan::new(&left, &right, &ON, JoinType::Left, None, None).unwrap();
    little_is_written(|| temporal.whole().unwrap());
}

/// Many windows are open, some rows come for the first of them, and each is closed between two saves.
#[test]
fn windows_that_close_do_not_make_the_rows_of_others_new() {
    const SIZE: i64 = 100;
    const OPEN: i64 = 60;
    let window = Tumbling::of(us(SIZE as u64));
    let plan = WindowJoinPlan::new(&left_stream(), &right_stream(), &ON, window, JoinType::Full, None).unwrap();
    let (mut join, mut saved, mut written) = (plan.whole().unwrap(), Saved::new(), 0);
    let mut random = fastrand::Rng::with_seed(3);
    let (mut came, mut gone) = (0, 0);
    for newest in 0..400 {
        for _ in 0..4 {
            let mut at = || match random.u8(0..20) {
                0 => (newest - random.i64(0..OPEN)).max(0) * SIZE + random.i64(0..SIZE),
                _ => newest * SIZE + random.i64(0..SIZE),
            };
            let rows: Vec<(i64, i64)> = (0..50).map(|_| (at(), at())).collect();
            lefts(&mut join, rows.iter().map(|(at, _)| (-1, *at)));
            rights(&mut join, rows.iter().map(|(_, at)| (1, *at)));
            came += 2 * rows.len();
        }
        gone += advance(&mut join, (newest - OPEN + 1) * SIZE);
        written += saved.save(&mut join);
        assert!(saved.state.segments.len() <= 50, "{} segments", saved.state.segments.len());
    }
    assert!(written < 6 * came, "{written} rows written of {came} that came");
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    assert_eq!(gone + advance(&mut restored, i64::MAX), came, "each alone, once");
}

/// Few of many keys get a new version: the others are not written again.
#[test]
fn a_new_version_of_a_few_keys_writes_little() {
    let temporal = TemporalJoinPlan::new(&left_stream(), &right_stream(), &ON, JoinType::Left, None, None).unwrap();
    let (mut join, mut saved) = (temporal.whole().unwrap(), Saved::new());
    rights(&mut join, (0..40_000).map(|i| (i, 0)));
    advance(&mut join, 1);
    assert_eq!(saved.save(&mut join), 40_000);
    let mut written = 0;
    for save in 0..100_i64 {
        rights(&mut join, (0..10).map(|i| (save * 7 + i, save + 1)));
        advance(&mut join, save + 2);
        written += saved.save(&mut join);
    }
    assert!(written < 8_000, "{written} rows for 1000 new versions");
    let mut restored = temporal.whole().unwrap();
    saved.load(&mut restored);
    assert_eq!(lefts(&mut restored, (0..40_000).map(|i| (i, 500))), 0);
    assert_eq!(advance(&mut restored, 501), 40_000);
}

/// A left row that has met its partner before the save does not leave alone after it.
#[test]
fn a_restored_join_knows_which_rows_have_met_a_partner() {
    let near = Interval::around(us(10), us(10));
    for join_type in [JoinType::Left, JoinType::Full, JoinType::LeftAnti] {
        let plan = IntervalJoinPlan::new(&left_stream(), &right_stream(), &ON, near, join_type, None).unwrap();
        let (mut join, mut saved) = (plan.whole().unwrap(), Saved::new());
        lefts(&mut join, [(1, 100), (2, 100)].into_iter());
        rights(&mut join, [(1, 90)].into_iter());
        advance(&mut join, 105);
        saved.save(&mut join);
        let mut restored = plan.whole().unwrap();
        saved.load(&mut restored);
        assert_eq!(advance(&mut restored, 111), 1, "row 2 alone: {join_type}");
        // A full join writes once more which rows are decided and still looked for.
        let moved = if join_type == JoinType::Full { 2 } else { 0 };
        assert_eq!(saved.save(&mut restored), moved, "{join_type}");
        let mut again = plan.whole().unwrap();
        saved.load(&mut again);
        assert_eq!(advance(&mut again, i64::MAX), 0, "everything has left: {join_type}");
    }
}

/// If inputs fell idle, tasks stood at different times. Rows that the one ahead would have called late are late, and what
/// the one behind still held leaves.
#[test]
fn a_join_restored_from_two_tasks_goes_on_from_the_one_that_was_ahead() {
    fn check<O: Operator>(make: impl Fn() -> O) {
        let task = |number: i64, at: i64, time: i64| {
            let (mut join, mut saved) = (make(), Saved::new());
            assert_eq!(lefts(&mut join, [(number, at)].into_iter()), 0);
            assert_eq!(advance(&mut join, time), 0);
            saved.save(&mut join);
            saved.part()
        };
        for parts in [[task(1, 95, 95), task(2, 205, 200)], [task(2, 205, 200), task(1, 95, 95)]] {
            let mut join = make();
            join.load(&StateReader { key_groups: 0..256, parts: parts.to_vec() }).unwrap();
            let mut out = Outbox::new();
            for port in [Port::MAIN, Port::RIGHT] {
                let rows = if port == Port::MAIN { left_rows([(3, 150)]) } else { right_rows([(3, 150)]) };
                join.process(port, rows, &mut out).unwrap();
                assert_eq!(out.take_counts(), (0, 1));
            }
            out.drain().for_each(drop);
            assert_eq!(advance(&mut join, 130), 1, "the row at 95 alone");
            assert_eq!(advance(&mut join, 202), 0);
            assert_eq!(advance(&mut join, i64::MAX), 1, "the row at 205 alone");
        }
    }
    let (left, right) = (left_stream(), right_stream());
    let window = WindowJoinPlan::new(&left, &right, &ON, Tumbling::of(us(10)), JoinType::Full, None).unwrap();
    check(|| window.whole().unwrap());
    let interval = Interval::around(us(10), us(10));
    let interval = IntervalJoinPlan::new(&left, &right, &ON, interval, JoinType::Full, None).unwrap();
    check(|| interval.whole().unwrap());
    let temporal = TemporalJoinPlan::new(&left, &right, &ON, JoinType::Left, None, None).unwrap();
    check(|| temporal.whole().unwrap());
}

/// Also when that partner is decided itself and only waits to be found.
#[test]
fn a_restored_full_join_knows_the_partners_that_are_decided() {
    let near = Interval::around(us(10), us(10));
    let plan = IntervalJoinPlan::new(&left_stream(), &right_stream(), &ON, near, JoinType::Full, None).unwrap();
    for sides in [[Port::MAIN, Port::RIGHT], [Port::RIGHT, Port::MAIN]] {
        let (mut join, mut saved) = (plan.whole().unwrap(), Saved::new());
        let mut out = Outbox::new();
        for (port, at) in sides.into_iter().zip([90, 100]) {
            let rows = if port == Port::MAIN { left_rows([(1, at)]) } else { right_rows([(1, at)]) };
            join.process(port, rows, &mut out).unwrap();
        }
        assert_eq!(out.drain().count(), 1, "the pair");
        assert_eq!(advance(&mut join, 101), 0);
        saved.save(&mut join);
        let mut restored = plan.whole().unwrap();
        saved.load(&mut restored);
        assert_eq!(advance(&mut restored, 111), 0, "both have met");
        assert_eq!(advance(&mut restored, 200), 0);
        assert_eq!(restored.size(), 0);
    }
}
