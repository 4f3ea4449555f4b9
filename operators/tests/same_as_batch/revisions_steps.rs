//! Windows and sessions that give more than one result: when occasions and the number of tasks change, and when very much is
//! due at once.

use std::collections::{BTreeMap, BTreeSet};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion_expr::lit;
use datafusion_functions_aggregate::expr_fn::count;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    session::{Session, SessionPlan},
    state::Rule,
    window::{AggregatePlan, Cumulating, Hopping, Tumbling, Window},
};

use crate::{
    bids::{bids, us},
    restored::{Saved, batch, process},
    revisions_state::{Tasks, at, plan, printed},
};

/// The last results, without their revisions, which must be 0, 1, 2, … of each window and key.
#[derive(Default)]
struct Last(BTreeMap<String, (usize, String)>);

impl Last {
    fn add(&mut self, rows: impl IntoIterator<Item = String>) {
        for row in rows {
            let words: Vec<&str> = row.split(' ').collect();
            let of = [words[0], words[1], words[3]].join(" ");
            let next = self.0.get(&of).map_or(0, |(next, _)| *next);
            assert_eq!(words[2], next.to_string(), "the revision of {row}");
            self.0.insert(of, (next + 1, [&words[..2], &words[3..]].concat().join(" ")));
        }
    }
}

/// The results of windows that give one each.
fn at_once(window: Window, rows: impl IntoIterator<Item = (i64, i64, i64)>) -> Vec<String> {
    let plan = plan(window);
    let (mut operator, mut out) = (plan.whole().unwrap(), Outbox::new());
    process(&mut operator, rows);
    while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
    printed(&plan, &mut out)
}

/// Two tasks have rows in a window of the future, of which one keeps a record and the other none: it came under other
/// occasions. A third task goes on for both of them.
#[test]
fn a_record_of_one_task_does_not_hide_the_keys_of_another() {
    let window = || Hopping::of(us(40), us(20)).allowed_lateness(us(30));
    let [late, early] = [plan(window().corrections()), plan(window().corrections().early_rows(1_000))];
    for orders in [[&late, &early, &early], [&late, &early, &late]] {
        let keys: Vec<(i64, i64, i64)> = (0..8).map(|key| (key, 1, 15)).collect();
        let mut last = Last::default();
        let mut tasks = Tasks::new(orders[0], 2);
        last.add(tasks.step(&batch(keys.clone()), at(5), at(10)).concat());
        tasks = tasks.restored_as(orders[1], 2);
        // The key is of one of the two.
        last.add(tasks.step(&batch([(0, 1, 16)]), at(6), at(20)).concat());
        tasks = tasks.restored_as(orders[2], 1);
        for (time, now) in [(at(50), at(30)), (Timestamp::MAX, at(40))] {
            last.add(tasks.step(&batch([]), time, now).concat());
        }
        let given: BTreeSet<String> = last.0.into_values().map(|(_, row)| row).collect();
        let expected = at_once(window(), keys.into_iter().chain([(0, 1, 16)]));
        assert_eq!(given, expected.into_iter().collect());
    }
}

#[test]
fn occasions_and_the_number_of_tasks_change_in_turn() {
    let shapes: [fn() -> Window; 3] =
        [|| Tumbling::of(us(20)), || Hopping::of(us(30), us(8)), || Cumulating::of(us(24), us(8))];
    for (shape, seed) in shapes.iter().flat_map(|shape| (0..6).map(move |seed| (shape, seed))) {
        let window = || shape().allowed_lateness(us(60));
        let plans = [
            plan(window().corrections()),
            plan(window().early_rows(2)),
            plan(window().corrections().early_rows(1_000)),
            plan(window().corrections().early_every(us(7))),
        ];
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut tasks, mut last, mut all) = (Tasks::new(&plans[0], 2), Last::default(), Vec::new());
        for step in 0..100_i64 {
            let rows: Vec<_> =
                (0..random.i64(0..6)).map(|i| (random.i64(0..7), i + step, step * 2 + random.i64(-30..25))).collect();
            all.extend(rows.clone());
            let time = if step == 99 { Timestamp::MAX } else { at(step * 2 - 5) };
            last.add(tasks.step(&batch(rows), time, at(step * 3)).concat());
            if random.u8(..3) == 0 {
                tasks = tasks.restored_as(&plans[random.usize(..plans.len())], 1 + random.usize(..3));
            }
        }
        let given: BTreeSet<String> = last.0.into_values().map(|(_, row)| row).collect();
        assert_eq!(given, at_once(window(), all).into_iter().collect(), "{}, seed {seed}", window());
    }
}

/// Each row is in a thousand windows, and all are due.
#[test]
fn many_windows_are_due_in_one_batch() {
    let window = Hopping::of(us(1_000), us(1)).early_rows(1);
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("bids")]).unwrap();
    let (mut operator, mut out) = (Plan::whole(&plan).unwrap(), Outbox::new());
    for round in 1..=2 {
        let mut rows = batch((0..50).map(|key| (key, 1, 5_000)));
        let (mut calls, mut results) = (0, BTreeSet::new());
        loop {
            operator.process(Port::MAIN, rows.clone(), &mut out).unwrap();
            let mut emitted = 0;
            for (_, rows) in out.drain() {
                emitted += rows.num_rows();
                let ends = rows.column(1).as_primitive::<TimestampMicrosecondType>().values().to_vec();
                let numbers = [2, 3, 4].map(|at| rows.column(at).as_primitive::<Int64Type>().values().to_vec());
                for (row, end) in ends.into_iter().enumerate() {
                    assert_eq!([numbers[0][row], numbers[2][row]], [round - 1, round], "the revision, the rows");
                    results.insert((end, numbers[1][row]));
                }
            }
            assert!(emitted <= 8192 + 50, "{emitted} results in one call");
            (rows, calls) = (rows.slice(0, 0), calls + 1);
            if !out.take_again() {
                break;
            }
        }
        assert_eq!(results.len(), 50_000);
        assert!(calls > 5, "{calls} calls");
        assert_eq!(out.take_counts(), (50, 0));
    }
}

/// The keys of these results.
fn keys_of(out: &mut Outbox) -> Vec<i64> {
    let keys = |rows: RecordBatch| rows["auction"].as_primitive::<Int64Type>().values().to_vec();
    out.drain().flat_map(|(_, rows)| keys(rows)).collect()
}

/// Early results of a window or a session in the middle, while more than one call emits changes all the time in those before.
#[test]
fn early_results_by_the_clock_come_to_the_last() {
    let counts = [count(lit(1)).alias("bids")];
    let window = |window: Window| -> Box<dyn Plan> {
        Box::new(AggregatePlan::new(&bids(), &["auction"], window.early_every(us(100)), &counts).unwrap())
    };
    let session = Session::gap(us(10)).early_every(us(100));
    let plans = [
        window(Tumbling::of(us(10))),
        window(Hopping::of(us(20), us(10))),
        Box::new(SessionPlan::new(&bids(), &["auction"], session, &counts).unwrap()),
    ];
    for (which, plan) in plans.into_iter().enumerate() {
        let (mut operator, mut out) = (plan.whole().unwrap(), Outbox::new());
        let busy = || batch((0..9_000).map(|key| (key, 1, 1)));
        operator.process(Port::MAIN, busy(), &mut out).unwrap();
        operator.process(Port::MAIN, batch([(9_999, 1, 45)]), &mut out).unwrap();
        let mut sweeps = 0;
        for now in [100, 200, 300] {
            assert_eq!(out.take_wake(), Some(at(now)), "{which}");
            out.set_now(at(now));
            let (mut ticks, mut last) = (0, 0);
            while out.now() >= at(now) && ticks < 6 {
                ticks += 1;
                operator.tick(&mut out).unwrap();
                last += keys_of(&mut out).into_iter().filter(|key| *key == 9_999).count();
                let is_swept = out.take_wake().is_some_and(|wake| wake > at(now));
                // One message after each tick.
                operator.process(Port::MAIN, busy(), &mut out).unwrap();
                if is_swept {
                    sweeps += 1;
                    break;
                }
            }
            let windows = if which == 1 { 2 } else { 1 };
            assert_eq!(last, if now == 100 { windows } else { 0 }, "{which} at {now}, in {ticks} ticks");
        }
        assert_eq!(sweeps, 3, "{which}: each comes to its end");
    }
}

/// Who reads a checkpoint without the job passes over what closed windows have given, also of those that begin as others do
/// which are not closed.
#[test]
fn what_closed_windows_have_given_does_not_count() {
    let window = Cumulating::of(us(30), us(10)).allowed_lateness(us(5)).corrections();
    let plan = plan(window);
    let form = plan.state_form();
    assert_eq!(form.columns.field(2).name(), "window_end");
    let rule = Rule::From { side: None, time: 2, number: "windows_from".into() };
    assert!(form.reading.rules.contains(&rule), "{:?}", form.reading);
    let (mut operator, mut out, mut saved) = (plan.whole().unwrap(), Outbox::new(), Saved::new());
    process(&mut operator, [(1, 1, 1), (2, 1, 11)]);
    // The first window with something given that is not closed; without one what is not closed.
    for (time, from) in [(3, -1), (12, 10), (14, 10), (15, 11), (16, 12), (20, 20), (24, 20), (31, 30), (35, 31)] {
        while operator.advance(at(time), &mut out).unwrap() == Advance::Again {}
        saved.save(&mut operator);
        assert_eq!(saved.state.numbers["windows_from"], from, "at {time}");
        operator = plan.whole().unwrap();
        saved.load(&mut operator);
        saved.save(&mut operator);
        assert_eq!(saved.state.numbers["windows_from"], from, "at {time}, restored");
    }
}
