//! Windows that give more than one result: the greatest revision is the answer, those before it are what it was on the way.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use datafusion_expr::{Expr, col, lit};
use datafusion_functions_aggregate::expr_fn::{count, max};
use proptest::prelude::*;
use windrow_operators::{
    Plan, StreamSchema, Timestamp,
    stateless::Project,
    testing::{Check, Pipeline, Row, Value},
    window::{AggregatePlan, Calendar, Cumulating, Global, Hopping, TopPlan, Tumbling, Window},
};

use crate::{
    aggregate::{KEYS, aggregates, oracle, oracle_of, pipeline},
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
    late::closed,
    shape::{self, Shape, YEAR_2024, bid, wide},
};

/// Of `bounds` columns, the revision, those of the key and the aggregates: the last result of each window and key, without
/// its revision. The revisions of each must be 0, 1, 2, …, and what they tell must only grow.
pub(crate) fn last_revisions(bounds: usize, keys: usize) -> impl Fn(Vec<Row>) -> Result<Vec<Row>, String> {
    move |rows| {
        let mut last: HashMap<Vec<Value>, (usize, Row)> = HashMap::new();
        for row in rows {
            let values = row.values();
            let of: Vec<Value> =
                values[..bounds].iter().chain(&values[bounds + 1..bounds + 1 + keys]).cloned().collect();
            let next = last.get(&of).map_or(0, |(results, _)| *results);
            if values[bounds] != Value::from(next) {
                return Err(format!("{row} should have the revision {next}"));
            }
            if let Some((_, former)) = last.get(&of) {
                grows(&former.values()[bounds + 1 + keys..], &values[bounds + 1 + keys..])
                    .map_err(|what| format!("{what} of {former} does not become that of {row}"))?;
            }
            last.insert(of, (next + 1, row));
        }
        let without_revision = |row: Row| {
            let values = row.values();
            Row::from([&values[..bounds], &values[bounds + 1..]].concat())
        };
        Ok(last.into_values().map(|(_, row)| without_revision(row)).collect())
    }
}

/// Whether [`aggregates`] may go from these values to those: of some rows, and of these and more.
fn grows(before: &[Value], after: &[Value]) -> Result<(), &'static str> {
    let grows = |at: usize| before[at] <= after[at];
    match () {
        () if before[0] >= after[0] => Err("the number of rows"),
        () if before.len() > 1 && !grows(1) => Err("the number of prices"),
        // Without a price there is none.
        () if before.len() > 3 && before[3] != Value::NULL && before[3] < after[3] => Err("the least price"),
        () if before.len() > 6 && !(grows(4) && grows(6) && grows(7)) => Err("a maximum or a number"),
        () => Ok(()),
    }
}

/// On which occasions there are results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasions {
    pub(crate) corrections: bool,
    pub(crate) every: Option<u64>,
    pub(crate) rows: Option<u32>,
}

impl Occasions {
    pub(crate) fn of(self, mut window: Window) -> Window {
        if self.corrections {
            window = window.corrections();
        }
        if let Some(every) = self.every {
            window = window.early_every(us(every));
        }
        self.rows.into_iter().fold(window, Window::early_rows)
    }
}

pub(crate) fn occasions() -> impl Strategy<Value = Occasions> {
    let every = prop::option::of(prop_oneof![Just(1u64), 5u64..60, Just(1_000_000)]);
    let rows = prop::option::of(prop_oneof![Just(1u32), 2u32..6, Just(u32::MAX)]);
    (any::<bool>(), every, rows).prop_map(|(corrections, every, rows)| Occasions {
        corrections: corrections || every.is_none() && rows.is_none(),
        every,
        rows,
    })
}

fn overlapping() -> impl Strategy<Value = Shape> {
    let offset = prop_oneof![Just(0u64), 0u64..50];
    prop_oneof![
        (1u64..12, 1u64..6, offset.clone())
            .prop_map(|(slide, times, offset)| { Shape::Hopping { size: slide * times, slide, offset } }),
        (1u64..40, 1u64..40, offset.clone()).prop_map(|(a, b, offset)| {
            Shape::Hopping { size: a.max(b), slide: a.min(b).max(a.max(b) / 12), offset }
        }),
        (1u64..12, 1u64..7, offset)
            .prop_map(|(step, times, offset)| { Shape::Cumulating { size: step * times, step, offset } }),
    ]
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn the_greatest_revision_is_the_answer(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        size in prop_oneof![Just(1u64), 2u64..30, Just(1_000_000)],
        offset in prop_oneof![Just(0u64), 0u64..50],
        lateness in 1u64..40,
        bound in prop_oneof![Just(0u64), 0u64..25],
        occasions in occasions(),
        beyond: bool,
        seed: u64,
    ) {
        let offset = if beyond { 0 } else { offset };
        let window = occasions.of(Tumbling::of(us(size)).offset(us(offset)).allowed_lateness(us(lateness)));
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key, false)).out_of_order(us(bound)).seed(seed);
        let check = check.reduced(last_revisions(2, key.len()));
        let oracle = |rows: &[Bid]| oracle(rows, key, size.into(), offset.into());
        if beyond {
            let is_late = |bid: &Bid, time| closed(bid, time, size, lateness);
            check.fall_idle().run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }

    /// Without allowed lateness there are early results only.
    #[test]
    fn early_results_of_windows_that_do_not_wait(
        rows in some_bids(-60i64..60), size in 1u64..40, every in prop::option::of(1u64..50), n in 1u32..5, seed: u64,
    ) {
        let window = Occasions { corrections: false, every, rows: Some(n) }.of(Tumbling::of(us(size)));
        let plan = AggregatePlan::new(&bids(), &["who"], window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["who"], false)).out_of_order(us(10)).seed(seed);
        let check = check.reduced(last_revisions(2, 1));
        check.run(&rows, |rows| oracle(rows, &["who"], size.into(), 0)).map_err(fail)?;
    }

    #[test]
    fn one_window_for_all_time(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        every in prop::option::of(1u64..50),
        n in 1u32..20, seed: u64,
    ) {
        let window = every.map_or(Global::every_rows(n), |every| Global::every(us(every)));
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key, false)).out_of_order(us(10)).seed(seed);
        check.reduced(last_revisions(0, key.len())).run(&rows, |rows| all_time(rows, key)).map_err(fail)?;
    }

    #[test]
    fn at_both_ends_of_time(
        rows in some_bids(prop_oneof![
            Just(i64::MIN), Just(i64::MAX), i64::MIN..i64::MIN + 30, i64::MAX - 30..=i64::MAX, -30i64..30, any::<i64>()
        ]),
        size in prop_oneof![Just(10u64), Just(i64::MAX as u64), Just(u64::MAX), 1u64..=u64::MAX],
        lateness in prop_oneof![1u64..20, Just(i64::MAX as u64), Just(u64::MAX)],
        occasions in occasions(), seed: u64,
    ) {
        let window = occasions.of(Tumbling::of(us(size)).allowed_lateness(us(lateness)));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"], false)).out_of_order(us(u64::MAX)).seed(seed);
        let check = check.reduced(last_revisions(2, 1)).rounds(6);
        check.run(&rows, |rows| oracle(rows, &["auction"], size.into(), 0)).map_err(fail)?;
    }

    /// Days of 23 to 25 hours.
    #[test]
    fn days_of_a_calendar(hours in prop::collection::vec((0i64..24 * 120, -3i64..4), 0..60), occasions in occasions(), seed: u64) {
        let zone = "Europe/Berlin";
        let hour = 3_600_000_000;
        let rows: Vec<Bid> = hours.iter().map(|(n, auction)| bid(*auction, *n, YEAR_2024 + (n + 24 * 60) * hour)).collect();
        let window = occasions.of(Calendar::days(zone).allowed_lateness(us(30 * hour as u64)));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"], false)).out_of_order(us(20 * hour as u64)).seed(seed);
        let shape = Shape::Calendar { unit: "day", zone };
        let oracle = |rows: &[Bid]| oracle_of(rows, &["auction"], |time| shape.windows_of(time));
        check.reduced(last_revisions(2, 1)).rounds(6).run(&rows, oracle).map_err(fail)?;
    }

    /// Windows that share slices.
    #[test]
    fn windows_that_overlap(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        shape in overlapping(), lateness in 1u64..40, bound in prop_oneof![Just(0u64), 0u64..25],
        occasions in occasions(), beyond: bool, seed: u64,
    ) {
        let window = occasions.of(shape.window().allowed_lateness(us(lateness)));
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key, false)).out_of_order(us(bound)).seed(seed);
        let check = check.reduced(last_revisions(2, key.len()));
        let oracle = |rows: &[Bid]| oracle_of(rows, key, |time| shape.windows_of(time));
        if beyond {
            let is_late = |bid: &Bid, time| shape.is_late(bid, time, lateness);
            check.fall_idle().run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }

    /// Without allowed lateness there are early results only.
    #[test]
    fn early_results_of_windows_that_overlap_and_do_not_wait(
        rows in some_bids(-60i64..60), shape in overlapping(), every in prop::option::of(1u64..50), n in 1u32..5, seed: u64,
    ) {
        let window = Occasions { corrections: false, every, rows: Some(n) }.of(shape.window());
        let plan = AggregatePlan::new(&bids(), &["who"], window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["who"], false)).out_of_order(us(10)).seed(seed);
        let check = check.reduced(last_revisions(2, 1));
        check.run(&rows, |rows| oracle_of(rows, &["who"], |time| shape.windows_of(time))).map_err(fail)?;
    }

    /// Windows that are cut off to the same bounds are one.
    #[test]
    fn windows_that_overlap_at_both_ends_of_time(
        rows in some_bids(prop_oneof![
            Just(i64::MIN), Just(i64::MAX), i64::MIN..i64::MIN + 30, i64::MAX - 30..=i64::MAX, -30i64..30, any::<i64>()
        ]),
        size in prop_oneof![Just(10u64), Just(i64::MAX as u64), Just(u64::MAX), 1u64..=u64::MAX],
        times in 1u64..8, cumulates: bool,
        lateness in prop_oneof![1u64..20, Just(i64::MAX as u64), Just(u64::MAX)],
        occasions in occasions(), seed: u64,
    ) {
        let step = (size / times).max(1);
        let shape = match cumulates {
            true => Shape::Cumulating { size: step * times, step, offset: 0 },
            false => Shape::Hopping { size, slide: step, offset: 0 },
        };
        let window = occasions.of(shape.window().allowed_lateness(us(lateness)));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"], false)).out_of_order(us(u64::MAX)).seed(seed);
        let windows = |time| {
            let windows: std::collections::BTreeSet<_> = shape.windows_of(time).into_iter().map(shape::cut).collect();
            windows.into_iter().map(wide).collect()
        };
        let check = check.reduced(last_revisions(2, 1)).rounds(6);
        check.run(&rows, |rows| oracle_of(rows, &["auction"], windows)).map_err(fail)?;
    }

    /// The second window takes every result of the first, and none is late to it although it does not wait: the promise of
    /// the first is as late as its last correction. Results only grow here, so the greatest is the last.
    #[test]
    fn corrections_are_in_time_for_the_next_window(
        rows in some_bids(-60i64..60),
        lateness in 1u64..30, inner in 1u64..15, factor in 1u64..5, bound in 0u64..10,
        occasions in occasions(), again: bool, beyond: bool, seed: u64,
    ) {
        let outer = inner * factor;
        let counts = [count(lit(1)).alias("bids")];
        let window = occasions.of(Tumbling::of(us(inner)).allowed_lateness(us(lateness)));
        let first = AggregatePlan::new(&bids(), &["auction"], window, &counts).unwrap();
        let renamed = Project::new(first.output(), &[col("window_start").alias("first"), col("auction"), col("bids")]).unwrap();
        let most = [count(lit(1)).alias("n"), max(col("bids")).alias("most")];
        let window = Tumbling::of(us(outer));
        let window = if again { window.allowed_lateness(us(5)).corrections() } else { window };
        let second = AggregatePlan::new(renamed.output(), &["first", "auction"], window, &most).unwrap();
        let pipeline = Pipeline::new(&bids())
            .exchange([0])
            .stage(first.output(), || first.whole())
            .stage(renamed.output(), || Ok(renamed.clone()))
            .exchange([0, 1])
            .stage(second.output(), || second.whole());
        let check = Check::new(pipeline).out_of_order(us(bound)).seed(seed);
        let greatest = |row: &Row| {
            let values: Vec<Value> = row.values().to_vec();
            // Without the number of results, which depends on the batches.
            Row::from([&values[..values.len() - 2], &values[values.len() - 1..]].concat())
        };
        let check = check.reduced(move |rows| {
            let rows = if again { last_revisions(2, 2)(rows)? } else { rows };
            Ok(rows.iter().map(greatest).collect())
        });
        let oracle = |rows: &[Bid]| {
            let mut counts: BTreeMap<_, u64> = BTreeMap::new();
            for bid in rows {
                *counts.entry((window_of(bid.at, inner.into(), 0), bid.auction)).or_default() += 1;
            }
            counts.into_iter().map(move |(((start, end), auction), bids)| {
                let (from, to) = window_of(Timestamp::from_micros(end - 1), outer.into(), 0);
                (from, to, start, auction, bids)
            })
        };
        if beyond {
            let is_late = |bid: &Bid, time| closed(bid, time, inner, lateness);
            check.run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }
}

/// Per key, over all rows.
fn all_time(rows: &[Bid], key: &[&str]) -> Vec<Row> {
    let rows = oracle_of(rows, key, |_| vec![wide((0, 1))]);
    rows.into_iter().map(|row| Row::from(row.values()[2..].to_vec())).collect()
}

/// That rows were late in the check above, and that there were corrections.
#[test]
fn the_checks_above_meet_late_rows_and_corrections() {
    let rows: Vec<Bid> = (0..80).map(|i: i64| bid(i % 3, i, i * 37 % 83 - 41)).collect();
    let window = Tumbling::of(us(10)).allowed_lateness(us(5)).corrections();
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &aggregates()).unwrap();
    let most = std::cell::Cell::new(0);
    let reduce = |rows: Vec<Row>| {
        let revision = rows.iter().map(|row| row.values()[2].clone()).max();
        most.set(most.get().max((0..50).find(|n| revision == Some(Value::from(*n))).unwrap_or(0)));
        last_revisions(2, 1)(rows)
    };
    let check = Check::new(pipeline(&plan, &["auction"], false)).out_of_order(us(5)).reduced(reduce);
    let is_late = |bid: &Bid, time| closed(bid, time, 10, 5);
    let late = check.run_beyond_bound(&rows, is_late, |rows| oracle(rows, &["auction"], 10, 0)).unwrap();
    assert!(late > 20, "only {late} rows were late");
    drop(check);
    assert!(most.get() > 0, "there was no correction");
}

/// Early results beyond what one call emits.
#[test]
fn many_groups_leave_in_bounded_batches() {
    let rows: Vec<Bid> = (0..30_000).map(|i| bid(i % 20_000, i, i % 3)).collect();
    let window = Tumbling::of(us(2)).allowed_lateness(us(2)).corrections().early_every(us(30)).early_rows(2);
    let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("bids")]).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"], false)).rounds(2).parallelism(1..=2);
    check.reduced(last_revisions(2, 1)).batch_rows(4_000..=9_000).assert(&rows, |rows| {
        let groups = shape::groups(rows, &["auction"], |time| vec![wide(window_of(time, 2, 0))]);
        let row = |((window, key), bids): ((_, Vec<Value>), Vec<&Bid>)| {
            let (start, end) = shape::cut(window);
            Row::from([vec![start.into(), end.into()], key, vec![bids.len().into()]].concat())
        };
        groups.into_iter().map(row).collect::<Vec<Row>>()
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let second = Duration::from_secs(1);
    let tumbling = || Tumbling::of(second);
    let cases: [(Window, &[&str]); 10] = [
        (tumbling().corrections(), &["tumbling 1s, with corrections", ".allowed_lateness("]),
        (tumbling().early_rows(0), &["at least one row"]),
        (tumbling().early_every(Duration::ZERO), &["whole microseconds", "at least one"]),
        (tumbling().early_every(Duration::from_nanos(10)), &["whole microseconds"]),
        (Hopping::of(second * 2, second).early_rows(0), &["hopping 2s every 1s", "at least one row"]),
        (Cumulating::of(second * 2, second).corrections(), &["cumulating 2s by 1s", ".allowed_lateness("]),
        (Global::every_rows(1).corrections(), &["all time", "no end"]),
        (Global::every_rows(1).allowed_lateness(second), &["no row is late", ".allowed_lateness("]),
        (Global::every_rows(1).offset(second), &[".offset("]),
        (Global::every(Duration::ZERO), &["all time, early every 0ns"]),
    ];
    for (window, words) in cases {
        for error in [
            AggregatePlan::new(&bids(), &[], window.clone(), &[]).unwrap_err(),
            TopPlan::new(&bids(), &[], window.clone(), 1, "price").unwrap_err(),
        ] {
            let message = error.to_string();
            words.iter().for_each(|word| assert!(message.contains(word), "{word:?} is not in: {message}"));
        }
    }
    for window in [tumbling().early_rows(3), tumbling().allowed_lateness(second).corrections(), Global::every_rows(3)] {
        let message = TopPlan::new(&bids(), &[], window, 1, "price").unwrap_err().to_string();
        assert!(message.contains("the top rows of a window are given once"), "{message}");
    }
    let named: [Expr; 1] = [count(lit(1)).alias("revision")];
    assert!(AggregatePlan::new(&bids(), &[], tumbling(), &named).is_ok());
    let message = AggregatePlan::new(&bids(), &[], tumbling().early_rows(1), &named).unwrap_err().to_string();
    assert!(message.contains("\"revision\"") && message.contains(".alias("), "{message}");
}

/// What the plan says of it: one phase, the columns, and the state.
#[test]
fn the_plan_of_revised_windows() {
    let counts = [count(lit(1)).alias("bids")];
    let plan = |window| AggregatePlan::new(&bids(), &["auction"], window, &counts).unwrap();
    let second = Duration::from_secs(1);
    let window = Tumbling::of(second).allowed_lateness(second);
    assert!(plan(window.clone()).two_phases().is_some());
    let corrected = plan(window.clone().corrections());
    assert!(corrected.two_phases().is_none());
    assert!(corrected.partial().is_err() && corrected.merging().is_err());
    let names =
        |schema: &arrow::datatypes::Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&corrected.output().visible()), ["window_start", "window_end", "revision", "auction", "bids"]);
    let form = corrected.state_form();
    assert_eq!(names(&form.columns), ["__key_group", "window_start", "auction", "bids", "revision", "since"]);
    assert_eq!(form.meaning, "tumbling 1s, with revisions; count(1)");
    assert_eq!(form, plan(window.clone().early_rows(7)).state_form(), "the occasions may change");
    assert_eq!(plan(window.clone()).state_form().meaning, "tumbling 1s; count(1)");
    assert!(form.accepts(&plan(window).state_form()).is_err());

    let hopping = plan(Hopping::of(second * 2, second).early_rows(1));
    let form = hopping.state_form();
    assert!(hopping.two_phases().is_none());
    let columns = ["__key_group", "window_start", "window_end", "auction", "bids", "revision", "since"];
    assert_eq!((names(&form.columns), form.identity), (columns.map(String::from).to_vec(), 3));
    assert_eq!(form.meaning, "hopping 2s every 1s, with revisions; count(1)");

    let timeless = StreamSchema::without_time(bids().columns().clone());
    let global = AggregatePlan::new(&timeless, &["auction"], Global::every(second), &counts).unwrap();
    assert_eq!(names(global.output().columns()), ["revision", "auction", "bids"]);
    assert_eq!(global.state_form().meaning, "all time, with revisions; count(1)");
}
