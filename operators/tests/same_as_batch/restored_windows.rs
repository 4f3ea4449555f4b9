//! The state of windows of several slices: closed slices are written once, rescaled tasks go on where each had come, and
//! readers know which rows were still needed.

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, count_distinct, first_value, max, sum};
use windrow_operators::{
    Operator, Outbox, Plan, Port, Timestamp,
    state::{Part, StateReader},
    window::{AggregatePlan, Calendar, Cumulating, Hopping, TopPlan, Tumbling, Window, is_open},
};

use crate::{
    aggregate::{KEYS, every_aggregate},
    bids::{bids, us},
    restored::{Saved, batch, process, promise, results},
};

fn counts(window: Window) -> AggregatePlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap()
}

fn hopping() -> Window {
    Hopping::of(us(30), us(10))
}

fn at(time: i64) -> Timestamp {
    Timestamp::from_micros(time)
}

fn load(plan: &dyn Plan, parts: Vec<Part>) -> Box<dyn Operator> {
    let mut operator = plan.whole().unwrap();
    operator.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    operator
}

/// A closed slice does not change: however often the state is saved, also after it was loaded, it is written once.
#[test]
fn a_closed_slice_is_written_once() {
    let plan = counts(Hopping::of(us(1_000), us(10)));
    let top = TopPlan::new(&bids(), &["auction"], Hopping::of(us(1_000), us(10)), 1, "price").unwrap();
    for plan in [&plan as &dyn Plan, &top] {
        let mut operator = plan.whole().unwrap();
        let (mut saved, mut total) = (Saved::new(), 0);
        for slice in 0..60 {
            process(&mut *operator, (0..100).map(|i| (i, i, slice * 10 + i % 10)));
            if slice % 2 == 0 {
                total += saved.save(&mut *operator);
            }
            assert_eq!(results(&mut *operator, at(slice * 10 + 10)).len(), 100);
            total += saved.save(&mut *operator);
            if slice == 30 {
                operator = load(plan, vec![saved.part()]);
            }
        }
        // Written about log₂(60) times, because new segments absorb older ones; not 60 times.
        assert!((6_000..42_000).contains(&total), "{} rows of 6000 groups were written: {total}", plan.noun());
        let before = total;
        for time in 600..610 {
            results(&mut *operator, at(time));
            total += saved.save(&mut *operator);
        }
        assert_eq!(total, before, "nothing has changed");
    }
}

/// What has changed between the last save and the closing of its slice is written, and only that.
#[test]
fn what_changed_before_its_slice_closed_is_written() {
    let plan = counts(hopping());
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..1_000).map(|i| (i, 1, i % 10)));
    assert_eq!(saved.save(&mut operator), 1_000);
    process(&mut operator, [(7, 1, 7), (2_000, 1, 7)]);
    assert_eq!(results(&mut operator, at(10)).len(), 1_001);
    assert_eq!(saved.save(&mut operator), 2);
    assert_eq!(saved.save(&mut operator), 0);
    let mut restored = load(&plan, vec![saved.part()]);
    assert_eq!(saved.save(&mut *restored), 0, "loaded is not changed");
    assert_eq!(results(&mut *restored, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
}

/// A table that had grown and closed without a save is written by the first.
#[test]
fn the_first_save_comes_when_slices_are_closed() {
    for key in KEYS {
        let aggregates = [count(lit(1)).alias("bids"), count_distinct(col("price")).alias("distinct")];
        let plan = AggregatePlan::new(&bids(), key, hopping(), &aggregates).unwrap();
        let mut operator = plan.whole().unwrap();
        process(&mut operator, (0..300).map(|i| (i % 7, i, i % 60)));
        assert!(!results(&mut operator, at(40)).is_empty());
        let mut saved = Saved::new();
        saved.save(&mut operator);
        let mut restored = load(&plan, vec![saved.part()]);
        process(&mut *restored, (0..30).map(|i| (i % 7, i, 50 + i % 10)));
        process(&mut operator, (0..30).map(|i| (i % 7, i, 50 + i % 10)));
        saved.save(&mut operator);
        let mut again = load(&plan, vec![saved.part()]);
        let expected = results(&mut operator, Timestamp::MAX);
        assert_eq!(results(&mut *restored, Timestamp::MAX), expected);
        assert_eq!(results(&mut *again, Timestamp::MAX), expected);
    }
}

/// Slices leave with the last window that needs them, and readers of the state know which rows are left.
#[test]
fn what_no_window_needs_is_not_open() {
    let plan = counts(hopping());
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..60).map(|i| (1, 1, i)));
    for (time, open_from) in [(0, -20), (9, -20), (10, -10), (20, 0), (30, 10), (45, 20), (60, 40)] {
        results(&mut operator, at(time));
        saved.save(&mut operator);
        let numbers = &saved.state.numbers;
        assert_eq!(numbers.keys().collect::<Vec<_>>(), ["closed", "open_from"]);
        assert_eq!((numbers["closed"], numbers["open_from"]), (time, open_from));
        assert!(is_open(numbers, open_from) && !is_open(numbers, open_from - 1));
    }
    results(&mut operator, at(70));
    assert!(operator.size() > 0, "[50, 60) is in [50, 80)");
    results(&mut operator, at(80));
    assert_eq!(operator.size(), 0);
    assert_eq!(saved.save(&mut operator), 0);
    assert_eq!(saved.state.segments, []);

    let numbers = |window: Window, time: i64| {
        let mut operator = counts(window).whole().unwrap();
        results(&mut operator, at(time));
        let mut saved = Saved::new();
        saved.save(&mut operator);
        saved.state.numbers
    };
    assert_eq!(
        numbers(Cumulating::of(us(100), us(10)), 150)["open_from"],
        100,
        "all of a period are needed until its end"
    );
    assert_eq!(numbers(Cumulating::of(us(100), us(10)), 200)["open_from"], 200);
    assert_eq!(numbers(Calendar::days("UTC"), 1)["open_from"], 0);
    assert_eq!(numbers(Calendar::days("UTC"), 86_400_000_000)["open_from"], 86_400_000_000);
    let tumbling = numbers(Tumbling::of(us(10)), 15);
    assert_eq!(tumbling.keys().collect::<Vec<_>>(), ["closed", "open_from"]);
}

/// One task stood at 40 and one at 20. The windows of the first do not fire again for its keys; those of the second fire for
/// its, also when the job is saved once or twice before the next watermark.
#[test]
fn former_tasks_stood_at_different_times() {
    for window in [hopping(), Cumulating::of(us(60), us(10)), Hopping::of(us(30), us(20))] {
        let aggregation = counts(window.clone());
        let top = TopPlan::new(&bids(), &["auction"], window.clone(), 1, "price").unwrap();
        // Windows of one key only there are, too.
        for (plan, from) in [(&aggregation as &dyn Plan, 0), (&aggregation, 3), (&top, 0), (&top, 3)] {
            let first = |auction: i64| if auction == 2 { from } else { 0 };
            let rows = |auction: i64| (first(auction)..6).map(move |i| (auction, i + 1, 10 * i + 5));
            // What it gives when each key stands alone.
            let mut expected = Vec::new();
            let mut parts = Vec::new();
            for (auction, time) in [(1, 40), (2, 20)] {
                let mut operator = plan.whole().unwrap();
                process(&mut *operator, rows(auction));
                let given = results(&mut *operator, at(time));
                let mut saved = Saved::new();
                saved.save(&mut *operator);
                parts.push(saved.part());
                let all = results(&mut *operator, Timestamp::MAX);
                assert!(given.is_empty() == (first(auction) > 0) && !all.is_empty());
                expected.extend(all);
            }
            expected.sort_unstable();
            let mut operators = vec![load(plan, parts)];
            let mut saved = Saved::new();
            for _ in 0..2 {
                saved.save(operators.last_mut().unwrap().as_mut());
                operators.push(load(plan, vec![saved.part()]));
            }
            for operator in &mut operators {
                let mut out = Outbox::new();
                operator.process(Port::MAIN, batch([(2, 1, 35)]), &mut out).unwrap();
                assert_eq!(out.take_counts(), (0, 1), "what one task has closed is closed");
                let mut given = results(&mut **operator, at(30));
                assert!(given.iter().all(|row| row.contains(" 2 ")), "auction 1 has had its results: {given:?}");
                given.extend(results(&mut **operator, Timestamp::MAX));
                given.sort_unstable();
                assert_eq!(given, expected, "{} of {window}", plan.noun());
            }
        }
    }
}

/// At the end of the input all windows fire, and what is in any of them is late for who goes on. What is in none is not.
#[test]
fn a_job_that_goes_on_after_its_end() {
    let plan = counts(hopping());
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(1, 1, 5)]);
    assert_eq!(results(&mut operator, Timestamp::MAX).len(), 3);
    let mut saved = Saved::new();
    saved.save(&mut operator);
    let mut restored = load(&plan, vec![saved.part()]);
    let mut out = Outbox::new();
    restored.process(Port::MAIN, batch([(1, 1, 29), (1, 1, 30)]), &mut out).unwrap();
    assert_eq!(out.take_counts(), (1, 1));
    out.drain().for_each(drop);
    assert_eq!(restored.advance(at(10), &mut out).unwrap(), promise(10));
    assert_eq!(results(&mut *restored, Timestamp::MAX).len(), 3);
}

/// The states of every kind of accumulator are merged into windows and stay as they are for the next one.
#[test]
fn every_aggregate_is_merged_from_slices() {
    let own = [
        ("count", count(col("price"))),
        ("sum", sum(col("price"))),
        ("max", max(col("price"))),
        ("first", first_value(col("price"), vec![])),
    ];
    for (name, aggregate) in every_aggregate().into_iter().chain(own) {
        for key in KEYS {
            for saves in [false, true] {
                let aggregates = [aggregate.clone().alias("x"), count(lit(1)).alias("bids")];
                let plan = |window| AggregatePlan::new(&bids(), key, window, &aggregates).unwrap();
                let rows = || (0..400).map(|i| (i % 5, i * 7 % 90, i / 4));
                // The same windows by other means: three rows of tumbling ones.
                let mut expected = Vec::new();
                for offset in [0, 10, 20] {
                    let mut operator = plan(Tumbling::of(us(30)).offset(us(offset))).whole().unwrap();
                    process(&mut operator, rows());
                    expected.extend(results(&mut operator, Timestamp::MAX));
                }
                expected.sort_unstable();
                let plan = plan(hopping());
                let mut operator = Plan::whole(&plan).unwrap();
                let (mut saved, mut given) = (Saved::new(), Vec::new());
                for (i, row) in rows().enumerate() {
                    process(&mut *operator, [row]);
                    if i % 16 == 15 {
                        given.extend(results(&mut *operator, at(row.2)));
                    }
                    if saves && i % 23 == 22 {
                        saved.save(&mut *operator);
                    }
                    if saves && i % 69 == 68 {
                        operator = load(&plan, vec![saved.part()]);
                    }
                }
                given.extend(results(&mut *operator, Timestamp::MAX));
                given.sort_unstable();
                assert_eq!(given, expected, "{name} per {key:?}");
            }
        }
    }
}
