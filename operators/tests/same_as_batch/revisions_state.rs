//! The state of windows that give more than one result: after a restore comes the revision that would have come, at the moment
//! at which it would have come; a save writes what changed; and the state falls.

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::Int64Type,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, first_value, max, sum};
use windrow_operators::{
    Advance, KeyGroup, Operator, Outbox, Plan, Port, Timestamp,
    key::key_groups,
    state::{Part, StateReader},
    testing::with_batches_of,
    window::{AggregatePlan, Cumulating, Global, Hopping, Tumbling, Window},
};

use crate::{
    aggregate::every_aggregate,
    bids::{bids, us},
    restored::{Saved, batch, process},
};

pub(crate) fn at(time: i64) -> Timestamp {
    Timestamp::from_micros(time)
}

pub(crate) fn plan(window: Window) -> AggregatePlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum"), max(col("who")).alias("who")];
    AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap()
}

/// The visible rows that left, sorted and printed.
pub(crate) fn printed(plan: &AggregatePlan, out: &mut Outbox) -> Vec<String> {
    let mut printed = Vec::new();
    for (port, rows) in out.drain().filter(|(port, _)| *port == Port::MAIN) {
        assert!(rows.num_rows() <= 8192, "{port:?}");
        let rows = plan.output().show(&rows).unwrap();
        let options = FormatOptions::default();
        let columns: Vec<_> = rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let row = |row| columns.iter().map(|c| format!("{} ", c.value(row))).collect::<String>();
        printed.extend((0..rows.num_rows()).map(row));
    }
    printed.sort_unstable();
    printed
}

/// Tasks that share the key groups.
pub(crate) struct Tasks<'p> {
    plan: &'p AggregatePlan,
    tasks: Vec<(Box<dyn Operator>, Saved)>,
    out: Outbox,
}

impl<'p> Tasks<'p> {
    pub(crate) fn new(plan: &'p AggregatePlan, number: usize) -> Self {
        let tasks = (0..number).map(|_| (Plan::whole(plan).unwrap(), Saved::new())).collect();
        Self { plan, tasks, out: Outbox::new() }
    }

    /// Rows, a watermark, and a tick at the processing time `now`, a little later; returns what comes of each.
    pub(crate) fn step(&mut self, rows: &RecordBatch, time: Timestamp, now: Timestamp) -> Vec<Vec<String>> {
        let Self { plan, tasks, out } = self;
        out.set_now(at(now.micros() - 1));
        let number = tasks.len();
        for (task, (operator, _)) in tasks.iter_mut().enumerate() {
            operator.process(Port::MAIN, share(rows, task, number), out).unwrap();
        }
        let mut all = vec![printed(plan, out)];
        for (operator, _) in &mut *tasks {
            while operator.advance(time, out).unwrap() == Advance::Again {}
        }
        all.push(printed(plan, out));
        out.set_now(now);
        tasks.iter_mut().for_each(|(operator, _)| operator.tick(out).unwrap());
        all.push(printed(plan, out));
        all
    }

    fn save(&mut self) {
        self.tasks.iter_mut().for_each(|(operator, saved)| {
            saved.save(operator.as_mut());
        });
    }

    /// The same as other tasks.
    fn restored(&mut self, number: usize) -> Self {
        self.restored_as(self.plan, number)
    }

    /// The same as other tasks, which may have other occasions.
    pub(crate) fn restored_as(&mut self, plan: &'p AggregatePlan, number: usize) -> Self {
        self.save();
        let mut others = Tasks::new(plan, number);
        others.out.set_now(self.out.now());
        for (task, (operator, saved)) in others.tasks.iter_mut().enumerate() {
            let key_groups = KeyGroup::range(task, number);
            let part = |(_, saved): &(_, Saved)| {
                let mut part = saved.part();
                part.segments.iter_mut().for_each(|(_, rows)| *rows = within(rows, &key_groups));
                part.segments.retain(|(_, rows)| rows.num_rows() > 0);
                part
            };
            let mut parts: Vec<Part> = self.tasks.iter().map(part).collect();
            *saved = Saved::after(&mut parts);
            operator.load(&StateReader { key_groups, parts }).unwrap();
            operator.tick(&mut others.out).unwrap();
            assert_eq!(others.out.drain().count(), 0, "nothing is due because it was restored");
        }
        others
    }
}

fn share(rows: &RecordBatch, task: usize, tasks: usize) -> RecordBatch {
    let groups = key_groups(&rows.columns()[..1], rows.num_rows()).unwrap();
    let own = KeyGroup::range(task, tasks);
    let own: BooleanArray = groups.iter().map(|group| Some(own.contains(&usize::from(group.0)))).collect();
    filter_record_batch(rows, &own).unwrap()
}

fn within(rows: &RecordBatch, key_groups: &std::ops::Range<usize>) -> RecordBatch {
    let groups = rows.column(0).as_primitive::<arrow::datatypes::UInt8Type>();
    let own: BooleanArray =
        groups.iter().map(|group| Some(key_groups.contains(&usize::from(group.unwrap())))).collect();
    filter_record_batch(rows, &own).unwrap()
}

/// Early results are due when there is a tick, not in between: else it mattered which task had asked before.
fn windows() -> Vec<Window> {
    let tumbling = || Tumbling::of(us(20)).allowed_lateness(us(30));
    vec![
        tumbling().corrections(),
        tumbling().early_rows(3),
        tumbling().early_every(us(9)),
        tumbling().corrections().early_every(us(15)).early_rows(4),
        Tumbling::of(us(40)).early_every(us(6)),
        Global::every_rows(5),
        Global::every(us(12)),
        Hopping::of(us(20), us(8)).allowed_lateness(us(30)).corrections(),
        Hopping::of(us(20), us(5)).allowed_lateness(us(30)).corrections().early_every(us(15)).early_rows(4),
        Cumulating::of(us(24), us(8)).early_every(us(9)),
        Cumulating::of(us(24), us(8)).allowed_lateness(us(30)).early_rows(3),
        Cumulating::of(us(24), us(8)).allowed_lateness(us(20)).corrections(),
    ]
}

/// Step by step the same results with the same revisions, however often and with however many tasks it is restored.
#[test]
fn every_result_comes_when_and_as_it_would_have_come() {
    for window in windows() {
        let plan = plan(window.clone());
        let mut straight = Tasks::new(&plan, 1);
        let mut others = [Tasks::new(&plan, 1), Tasks::new(&plan, 2), Tasks::new(&plan, 3)];
        let mut random = fastrand::Rng::with_seed(11);
        let mut results = 0;
        for step in 0..120_i64 {
            let rows: Vec<_> =
                (0..random.i64(0..6)).map(|i| (random.i64(0..5), i + step, step * 2 + random.i64(-30..10))).collect();
            let (rows, time) = (batch(rows), if step == 119 { Timestamp::MAX } else { at(step * 2 - 5) });
            let expected = straight.step(&rows, time, at(step * 3));
            results += expected.iter().map(Vec::len).sum::<usize>();
            for (i, tasks) in others.iter_mut().enumerate() {
                assert_eq!(tasks.step(&rows, time, at(step * 3)), expected, "{window}, {i}, at step {step}");
                match i {
                    0 => *tasks = tasks.restored(1),
                    1 if step % 3 == 0 => tasks.save(),
                    1 => *tasks = tasks.restored(2),
                    _ => *tasks = tasks.restored(1 + random.usize(..4)),
                }
            }
        }
        assert!(results > 60, "{window}: {results} results");
    }
}

/// Late rows make one correction per group and watermark, a group that is new begins at revision 0, and what is beyond the
/// lateness is late.
#[test]
fn corrections_come_at_the_next_watermark() {
    let plan = plan(Tumbling::of(us(10)).allowed_lateness(us(20)).corrections());
    let mut operator = plan.whole().unwrap();
    let mut out = Outbox::new();
    let mut step = |rows: &[(i64, i64, i64)], time: i64| {
        operator.process(Port::MAIN, batch(rows.iter().copied()), &mut out).unwrap();
        assert!(out.is_empty() || out.take_counts().1 > 0, "not per row");
        let late: usize = out.drain().map(|(_, rows)| rows.num_rows()).sum();
        assert_eq!(operator.advance(at(time), &mut out).unwrap(), Advance::Promise(at(time - 20)));
        let count = |row: String| row.split(' ').skip(2).take(3).collect::<Vec<_>>().join(" ");
        (late, printed(&plan, &mut out).into_iter().map(count).collect::<Vec<_>>())
    };
    let none: [&str; 0] = [];
    // The revision, the auction and the number of bids.
    assert_eq!(step(&[(1, 1, 3), (1, 1, 4)], 9), (0, none.map(String::from).to_vec()));
    assert_eq!(step(&[], 10), (0, vec!["0 1 2".to_string()]));
    assert_eq!(step(&[], 11), (0, vec![]));
    assert_eq!(step(&[(1, 1, 5), (1, 1, 6), (2, 1, 7)], 12), (0, vec!["0 2 1".into(), "1 1 4".into()]));
    assert_eq!(step(&[(2, 1, 5)], 12), (0, vec!["1 2 2".into()]));
    assert_eq!(step(&[(1, 1, 5)], 30), (0, vec!["2 1 5".into()]), "with the last watermark");
    assert_eq!(step(&[(1, 1, 5)], 31), (1, vec![]));
    assert_eq!(operator.size(), 0);
}

/// When early results wait for the clock, a watermark does not, and after the end none is early.
#[test]
fn early_results_come_by_the_clock_and_by_rows() {
    let plan = plan(Tumbling::of(us(10)).allowed_lateness(us(20)).corrections().early_every(us(100)).early_rows(3));
    let mut operator = plan.whole().unwrap();
    let mut out = Outbox::new();
    out.set_now(at(250));
    let first = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|row| row.split(' ').skip(2).take(3).collect::<Vec<_>>().join(" ")).collect()
    };
    operator.process(Port::MAIN, batch([(1, 1, 1), (1, 1, 1), (2, 1, 1)]), &mut out).unwrap();
    assert_eq!((out.take_wake(), out.drain().count()), (Some(at(300)), 0));
    operator.process(Port::MAIN, batch([(1, 1, 1), (1, 1, 1)]), &mut out).unwrap();
    assert_eq!(first(printed(&plan, &mut out)), ["0 1 4"], "three rows and one more in the same batch");
    operator.tick(&mut out).unwrap();
    assert_eq!((out.take_wake(), out.drain().count()), (Some(at(300)), 0), "too early");
    out.set_now(at(300));
    operator.tick(&mut out).unwrap();
    assert_eq!(first(printed(&plan, &mut out)), ["0 2 1"], "auction 1 has not changed");
    assert_eq!(out.take_wake(), None, "nothing has changed");
    operator.process(Port::MAIN, batch([(1, 1, 1)]), &mut out).unwrap();
    operator.advance(at(10), &mut out).unwrap();
    assert_eq!(first(printed(&plan, &mut out)), ["1 1 5"]);
    operator.process(Port::MAIN, batch((0..9).map(|_| (1, 1, 1))), &mut out).unwrap();
    out.set_now(at(500));
    operator.tick(&mut out).unwrap();
    assert_eq!(out.drain().count(), 0, "a correction waits for the watermark");
    operator.advance(at(11), &mut out).unwrap();
    assert_eq!(first(printed(&plan, &mut out)), ["2 1 14"]);
}

/// One task stood at 40 and one at 20. What one has closed is closed, and each key goes on with its own revisions; the first
/// results that the second still owes come at the next watermark, however early it is.
#[test]
fn former_tasks_stood_at_different_times() {
    let plan = plan(Tumbling::of(us(10)).allowed_lateness(us(15)).corrections().early_rows(1_000));
    let mut parts = Vec::new();
    let mut out = Outbox::new();
    for (auction, time) in [(1, 40), (2, 20)] {
        let mut operator = plan.whole().unwrap();
        process(&mut operator, (0..5).map(|i| (auction, 1, 10 * i + 5)));
        while operator.advance(at(time), &mut out).unwrap() == Advance::Again {}
        process(&mut operator, [(auction, 1, 36)]);
        let mut saved = Saved::new();
        saved.save(&mut operator);
        parts.push(saved.part());
    }
    assert_eq!(printed(&plan, &mut out).len(), 6);
    let mut operator = plan.whole().unwrap();
    operator.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    let mut saved = Saved::new();
    saved.save(&mut operator);
    operator = plan.whole().unwrap();
    saved.load(&mut operator);
    operator.process(Port::MAIN, batch([(2, 1, 15), (2, 1, 25)]), &mut out).unwrap();
    assert_eq!(out.take_counts(), (1, 1), "until 25 all is closed");
    out.drain().for_each(drop);
    let short = |rows: Vec<String>| -> Vec<String> {
        let words =
            |row: &String| row.split(' ').map(|w| w.trim_start_matches("1970-01-01T00:00:00").to_string()).collect();
        let pick = |words: Vec<String>| format!("{} {} {} {}", words[0], words[3], words[2], words[4]);
        rows.iter().map(words).map(pick).collect()
    };
    operator.advance(at(5), &mut out).unwrap();
    // The start, the auction, the revision and the number of bids.
    let expected = [".000020Z 2 0 2", ".000030Z 2 0 2", ".000030Z 1 1 2"];
    assert_eq!(short(printed(&plan, &mut out)), expected, "windows until 40 are past their end");
    operator.advance(Timestamp::MAX, &mut out).unwrap();
    assert_eq!(short(printed(&plan, &mut out)), [".000040Z 1 0 1", ".000040Z 2 0 1"]);
}

/// The same of windows that share slices, whose rows may be needed for one key and have been given of another.
#[test]
fn former_tasks_of_windows_that_overlap_stood_at_different_times() {
    let window = || Hopping::of(us(20), us(10)).allowed_lateness(us(15));
    // The end of the window, the auction, the revision and the number of bids.
    let early = (2, vec!["10 2 0 1", "20 2 0 2"], vec!["30 1 0 2", "30 2 0 2", "40 1 0 3", "40 2 0 3"]);
    let corrected = (6, vec!["30 2 0 2", "40 1 1 3", "40 2 0 3"], vec![]);
    let last = ["50 1 0 3", "50 2 0 3", "60 1 0 1", "60 2 0 1"];
    for (window, (before, owed, rest)) in [(window().early_rows(1_000), early), (window().corrections(), corrected)] {
        let plan = plan(window.clone());
        let mut parts = Vec::new();
        let mut out = Outbox::new();
        for (auction, time) in [(1, 40), (2, 20)] {
            let mut operator = plan.whole().unwrap();
            process(&mut operator, (0..5).map(|i| (auction, 1, 10 * i + 5)));
            while operator.advance(at(time), &mut out).unwrap() == Advance::Again {}
            process(&mut operator, [(auction, 1, 36)]);
            let mut saved = Saved::new();
            saved.save(&mut operator);
            parts.push(saved.part());
        }
        assert_eq!(printed(&plan, &mut out).len(), before, "{window}");
        let mut saved = Saved::after(&mut parts);
        let mut operator = plan.whole().unwrap();
        operator.load(&StateReader { key_groups: 0..256, parts }).unwrap();
        let short = |rows: Vec<String>| -> Vec<String> {
            let short = |row: &String| {
                let words: Vec<&str> = row.split(' ').collect();
                let end = words[1].trim_start_matches("1970-01-01T00:00:00.0000").trim_end_matches('Z');
                format!("{end} {} {} {}", words[3], words[2], words[4])
            };
            let mut rows: Vec<String> = rows.iter().map(short).collect();
            rows.sort_unstable();
            rows
        };
        for _ in 0..2 {
            saved.save(&mut operator);
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
        }
        while operator.advance(at(1), &mut out).unwrap() == Advance::Again {}
        assert_eq!(short(printed(&plan, &mut out)), owed, "{window}");
        while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
        assert_eq!(short(printed(&plan, &mut out)), [&rest[..], &last].concat(), "{window}");
    }
}

/// All time goes on after the end of the input, and needs no event time.
#[test]
fn all_time_goes_on_after_its_end() {
    let columns = bids().columns().clone();
    let timeless = windrow_operators::StreamSchema::without_time(columns);
    let aggregates = [count(lit(1)).alias("bids")];
    let plan = AggregatePlan::new(&timeless, &["auction"], Global::every_rows(100), &aggregates).unwrap();
    let mut operator = plan.whole().unwrap();
    let (mut out, mut saved) = (Outbox::new(), Saved::new());
    for expected in ["0 1 2 ", "1 1 4 ", "2 1 6 "] {
        process(&mut operator, [(1, 1, 7), (1, 1, -7)]);
        assert_eq!(operator.advance(at(50), &mut out).unwrap(), Advance::Promise(at(50)));
        assert_eq!(operator.advance(Timestamp::MAX, &mut out).unwrap(), Advance::Promise(Timestamp::MAX));
        assert_eq!(printed(&plan, &mut out), [expected]);
        saved.save(&mut operator);
        operator = plan.whole().unwrap();
        saved.load(&mut operator);
    }
}

#[test]
fn a_save_writes_what_has_changed() {
    let plan = plan(Tumbling::of(us(100)).allowed_lateness(us(1_000)).corrections());
    let mut operator = plan.whole().unwrap();
    let (mut saved, mut out) = (Saved::new(), Outbox::new());
    process(&mut operator, (0..10_000).map(|i| (i, i, i % 100)));
    assert_eq!(saved.save(&mut operator), 10_000);
    while operator.advance(at(100), &mut out).unwrap() == Advance::Again {}
    assert_eq!(printed(&plan, &mut out).len(), 10_000);
    assert_eq!(saved.save(&mut operator), 10_000, "all have given a result");
    let mut total = 0;
    for round in 0..40 {
        process(&mut operator, (0..5).map(|i| (i * 999, 1, i)));
        total += saved.save(&mut operator);
        operator.advance(at(101 + round), &mut out).unwrap();
        assert_eq!(printed(&plan, &mut out).len(), 5);
        total += saved.save(&mut operator);
        assert_eq!(saved.save(&mut operator), 0);
        if round == 20 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
            assert_eq!(saved.save(&mut operator), 0);
        }
    }
    assert!((400..4_000).contains(&total), "{total} rows for 400 changes");
    let rows: Vec<_> = saved.part().segments.into_iter().map(|(_, rows)| rows).collect();
    let most = rows.iter().filter_map(|rows| {
        let revisions = rows.column_by_name("revision").unwrap().as_primitive::<Int64Type>();
        arrow::compute::max(revisions)
    });
    assert_eq!(most.max(), Some(41), "the next one");
}

/// Windows that share slices: what they have given is saved besides the groups of the slices.
#[test]
fn a_save_writes_what_has_changed_and_what_has_been_given() {
    let plan = plan(Hopping::of(us(100), us(50)).allowed_lateness(us(1_000)).corrections());
    let mut operator = plan.whole().unwrap();
    let (mut saved, mut out) = (Saved::new(), Outbox::new());
    process(&mut operator, (0..10_000).map(|i| (i, i, i % 50)));
    assert_eq!(saved.save(&mut operator), 10_000, "before the end there is nothing to save of a window");
    while operator.advance(at(50), &mut out).unwrap() == Advance::Again {}
    assert_eq!(printed(&plan, &mut out).len(), 10_000);
    assert_eq!(saved.save(&mut operator), 20_000, "all have given a result; the former segment is absorbed");
    let mut total = 0;
    for round in 0..40 {
        process(&mut operator, (0..5).map(|i| (i * 999, 1, i)));
        total += saved.save(&mut operator);
        operator.advance(at(51 + round), &mut out).unwrap();
        assert_eq!(printed(&plan, &mut out).len(), 5);
        total += saved.save(&mut operator);
        assert_eq!(saved.save(&mut operator), 0);
        if round == 20 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
            assert_eq!(saved.save(&mut operator), 0);
        }
    }
    assert!((600..6_000).contains(&total), "{total} rows for 400 changes of groups and 600 of records");
    while operator.advance(at(2_000), &mut out).unwrap() == Advance::Again {}
    saved.save(&mut operator);
    assert_eq!((operator.size(), saved.state.segments), (0, vec![]));
}

/// A job may be started again with other occasions.
#[test]
fn occasions_may_change_over_a_restore() {
    let shapes: [fn() -> Window; 3] =
        [|| Tumbling::of(us(20)), || Hopping::of(us(20), us(8)), || Cumulating::of(us(24), us(8))];
    for shape in shapes {
        let window = || shape().allowed_lateness(us(60));
        let plans = [
            plan(window().corrections()),
            plan(window().early_rows(2)),
            plan(window().corrections().early_every(us(7))),
        ];
        let plain = plan(window());
        let mut expected = plain.whole().unwrap();
        let mut operator = plans[0].whole().unwrap();
        let (mut out, mut saved) = (Outbox::new(), Saved::new());
        let mut random = fastrand::Rng::with_seed(5);
        let mut last = std::collections::BTreeMap::new();
        let mut add = |out: &mut Outbox| {
            for row in printed(&plans[0], out) {
                let words: Vec<&str> = row.split(' ').collect();
                let of = [words[0], words[1], words[3]].join(" ");
                let next = last.get(&of).map_or(0, |(next, _)| *next);
                assert_eq!(words[2], next.to_string(), "the revision of {row}");
                last.insert(of, (next + 1, [&words[..2], &words[3..]].concat().join(" ")));
            }
        };
        for step in 0..150_i64 {
            let rows: Vec<_> =
                (0..random.i64(0..6)).map(|i| (random.i64(0..5), i + step, step * 2 + random.i64(-30..10))).collect();
            process(&mut expected, rows.clone());
            out.set_now(at(step * 3));
            operator.process(Port::MAIN, batch(rows), &mut out).unwrap();
            let time = if step == 149 { Timestamp::MAX } else { at(step * 2 - 5) };
            while operator.advance(time, &mut out).unwrap() == Advance::Again {}
            operator.tick(&mut out).unwrap();
            add(&mut out);
            if random.u8(..4) == 0 {
                saved.save(&mut operator);
                operator = plans[random.usize(..3)].whole().unwrap();
                saved.load(&mut operator);
            }
        }
        while expected.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
        let given: std::collections::BTreeSet<String> = last.into_values().map(|(_, row)| row).collect();
        assert_eq!(given, printed(&plain, &mut out).into_iter().collect(), "{}", window());
    }
}

/// Half a day in which rows come a quarter of an hour late, with corrections and early results.
#[test]
fn state_falls_to_its_floor() {
    const MINUTE: i64 = 60_000_000;
    let minutes = |n: u64| us(n * MINUTE as u64);
    let tumbling = Tumbling::of(minutes(10)).allowed_lateness(minutes(20));
    let early = tumbling.clone().early_every(minutes(3)).early_rows(2);
    let hopping = Hopping::of(minutes(10), minutes(4)).allowed_lateness(minutes(20));
    let cumulating = Cumulating::of(minutes(12), minutes(4)).allowed_lateness(minutes(20));
    for window in [
        tumbling.clone().corrections(),
        early.clone(),
        early.corrections(),
        hopping.clone().corrections(),
        hopping.early_every(minutes(3)).early_rows(2),
        cumulating.corrections().early_every(minutes(3)),
    ] {
        let plan = plan(window.clone());
        let mut operator = Plan::whole(&plan).unwrap();
        let (mut out, mut saved) = (Outbox::new(), Saved::new());
        let (mut before, mut after, mut results) = (0, 0, 0);
        for minute in 0..12 * 60 {
            let now = minute * MINUTE;
            out.set_now(at(now));
            let rows = (0..100).map(|i| (i, i * 31 % 17, now + i - if i % 10 == 0 { 15 * MINUTE } else { 0 }));
            operator.process(Port::MAIN, batch(rows), &mut out).unwrap();
            while operator.advance(at(now), &mut out).unwrap() == Advance::Again {}
            operator.tick(&mut out).unwrap();
            results +=
                out.drain().map(|(port, rows)| if port == Port::MAIN { rows.num_rows() } else { 0 }).sum::<usize>();
            let largest = if minute < 4 * 60 { &mut before } else { &mut after };
            *largest = operator.size().max(*largest);
            if minute % 10 == 0 {
                saved.save(&mut *operator);
                assert!(saved.state.segments.len() < 12);
            }
        }
        assert_eq!(out.take_counts(), (12 * 60 * 100, 0));
        assert!(results > 7_200 && before > 1_000 && after < before * 5 / 4, "{window}: {results}, {before}, {after}");
        while operator.advance(at(13 * 60 * MINUTE), &mut out).unwrap() == Advance::Again {}
        assert_eq!(operator.size(), 0, "{window}");
        saved.save(&mut *operator);
        assert_eq!(saved.state.segments, []);
    }
}

/// Results on the way leave every kind of accumulator as it was, and those of several slices may be merged in several goes.
#[test]
fn every_aggregate_is_as_if_nothing_had_left_before() {
    let own = [("count", count(col("price"))), ("first", first_value(col("price"), vec![]))];
    for (name, aggregate) in every_aggregate().into_iter().chain(own) {
        let windows = [(Tumbling::of(us(20)), usize::MAX), (Hopping::of(us(20), us(4)), 0)];
        for (key, (window, bytes)) in
            crate::aggregate::KEYS.iter().flat_map(|key| windows.iter().map(move |w| (*key, w)))
        {
            let plan = |window| AggregatePlan::new(&bids(), key, window, std::slice::from_ref(&aggregate)).unwrap();
            let rows = |from: i64| (from..from + 30).map(|i| (i % 5, i * 7 % 90, i % 40));
            let (plain, revised) = (plan(window.clone()), plan(window.clone().early_rows(1)));
            let (mut one, mut other, mut out) = (plain.whole().unwrap(), revised.whole().unwrap(), Outbox::new());
            let mut last = std::collections::BTreeMap::new();
            for from in 0..10 {
                process(&mut one, rows(from * 30));
                with_batches_of(*bytes, || other.process(Port::MAIN, batch(rows(from * 30)), &mut out)).unwrap();
                for row in printed(&revised, &mut out) {
                    let words: Vec<&str> = row.splitn(4, ' ').collect();
                    let rest: Vec<&str> = words[3].splitn(key.len() + 1, ' ').collect();
                    let of = [&[words[0], words[1]], &rest[..key.len()]].concat().join(" ");
                    last.insert(of, format!("{} {} {}", words[0], words[1], words[3]));
                }
            }
            one.advance(Timestamp::MAX, &mut out).unwrap();
            let expected = printed(&plain, &mut out);
            let mut given: Vec<String> = last.into_values().collect();
            given.sort_unstable();
            assert_eq!(given, expected, "{name} per {key:?}, {window}");
            other.advance(Timestamp::MAX, &mut out).unwrap();
            assert_eq!(out.drain().count(), 0, "all has been said");
        }
    }
}
