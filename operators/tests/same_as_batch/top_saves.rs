//! What a save of the greatest rows writes: the keys that have new winners, and nothing of the others.

use fastrand::Rng;
use windrow_operators::{
    Operator, Plan, Timestamp,
    state::{Part, StateReader},
    window::{Hopping, TopPlan, Tumbling, Window},
};

use crate::{
    aggregate::KEYS,
    bids::{bids, us},
    restored::{Saved, process, results},
};

fn top(key: &[&str], window: Window, n: usize) -> TopPlan {
    TopPlan::new(&bids(), key, window, n, "price").unwrap()
}

#[test]
fn the_keys_that_have_new_winners_are_written() {
    let plan = top(&["auction"], Tumbling::of(us(10)), 2);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..1_800).map(|i| (i / 60 % 5, i, i % 60)));
    assert_eq!(saved.save(&mut operator), 6 * 5 * 2, "without losers");
    process(&mut operator, [(1, 10_001, 5)]);
    assert_eq!(saved.save(&mut operator), 2, "one key of one slice");
    process(&mut operator, [(1, 1, 5), (2, 2, 25)]);
    assert_eq!(saved.save(&mut operator), 0, "two losers");
    process(&mut operator, [(77, 1, 35)]);
    assert_eq!(saved.save(&mut operator), 1 + 2, "a key that is new, and the segment before, which is as small");
    assert_eq!(saved.save(&mut operator), 0, "nothing has changed");
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    assert_eq!(saved.save(&mut restored), 0, "loaded is not changed");
    assert_eq!(results(&mut restored, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
}

/// A large state of which little changes: every save writes about as much as has changed, over many saves and a restart,
/// and there are few segments.
#[test]
fn a_small_change_writes_little() {
    const AUCTIONS: i64 = 20_000;
    let plan = top(&["auction"], Tumbling::of(us(100)), 2);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..2 * AUCTIONS).map(|i| (i % AUCTIONS, i, 7)));
    assert_eq!(saved.save(&mut operator), 2 * AUCTIONS as usize);
    let mut total = 0;
    for save in 0..100_i64 {
        if save == 50 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
        }
        process(&mut operator, (0..10).map(|i| ((save * 7_919 + i * 1_999) % AUCTIONS, 100_001 + save, 7)));
        let written = saved.save(&mut operator);
        assert!(save > 0 || written == 20);
        total += written;
        assert!(saved.state.segments.len() <= 8, "{} segments", saved.state.segments.len());
    }
    assert!((2_000..16_000).contains(&total), "{total} rows for 2000 that have changed");
}

/// Winners that have lost since are still in an older segment, and rows that have won again are in two.
#[test]
fn what_older_segments_have_of_a_key_is_passed_over() {
    let plan = top(&["auction"], Tumbling::of(us(10)), 3);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..100).map(|i| (i, 1, 5)));
    saved.save(&mut operator);
    process(&mut operator, [(7, 2, 5)]);
    saved.save(&mut operator);
    assert_eq!(saved.state.segments.len(), 2, "the first has auction 7 too");
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    let all = results(&mut restored, Timestamp::MAX);
    assert_eq!(all.len(), 101, "each row once");
    assert_eq!(all, results(&mut operator, Timestamp::MAX));
}

/// However often it is saved and goes on from that, the answer is the one of an operator that never was.
#[test]
fn saves_and_restarts_do_not_change_the_answer() {
    let windows = || [Tumbling::of(us(30)), Hopping::of(us(30), us(10)).allowed_lateness(us(10))];
    for (seed, key) in (0..40).zip(KEYS.iter().cycle()) {
        for window in windows() {
            let mut random = Rng::with_seed(seed);
            let plan = if random.bool() { TopPlan::with_ties } else { TopPlan::new };
            let plan = plan(&bids(), key, window, random.usize(1..5), "price").unwrap();
            let (mut plain, mut operator) = (Plan::whole(&plan).unwrap(), Plan::whole(&plan).unwrap());
            let mut saved = Saved::new();
            let (mut expected, mut given) = (Vec::new(), Vec::new());
            for time in 0..30 {
                let some = random.usize(0..40);
                let row = |random: &mut Rng| (random.i64(0..6), random.i64(0..60), 5 * time + random.i64(0..20));
                let rows: Vec<_> = (0..some).map(|_| row(&mut random)).collect();
                process(&mut *plain, rows.iter().copied());
                process(&mut *operator, rows);
                if random.bool() {
                    saved.save(&mut *operator);
                    if random.u8(0..3) == 0 {
                        operator = Plan::whole(&plan).unwrap();
                        saved.load(&mut *operator);
                    }
                }
                let time = Timestamp::from_micros(5 * time);
                expected.extend(results(&mut *plain, time));
                given.extend(results(&mut *operator, time));
            }
            expected.extend(results(&mut *plain, Timestamp::MAX));
            given.extend(results(&mut *operator, Timestamp::MAX));
            assert_eq!(given, expected, "per {key:?}, seed {seed}");
        }
    }
}

/// A save used to write a touched slice wholly; what it wrote is read as it was meant.
#[test]
fn segments_of_whole_slices_are_read() {
    let plan = top(&["auction"], Tumbling::of(us(10)), 2);
    let first = |i: i64| (i % 10, i, 5);
    let (mut former, mut operator) = (plan.whole().unwrap(), plan.whole().unwrap());
    process(&mut former, (0..50).map(first));
    process(&mut operator, (0..50).map(first).chain([(3, 101, 5), (4, 103, 5), (4, 104, 5)]));
    let mut segments = Vec::new();
    for operator in [&mut former, &mut operator] {
        let mut saved = Saved::new();
        saved.next.0 = segments.len() as u64;
        saved.save(operator);
        segments.extend(saved.part().segments);
    }
    let mut restored = plan.whole().unwrap();
    let part = Part { first_phase: false, numbers: Default::default(), segments, stored: Vec::new() };
    restored.load(&StateReader { key_groups: 0..256, parts: vec![part] }).unwrap();
    assert_eq!(results(&mut restored, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
}
