//! Sessions that give more than one result: one lies within no other of its key with a greater revision, and is the answer.
//! Those that do are what it was on the way.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{array_agg, avg, count, count_distinct, max, median, sum};
use proptest::prelude::*;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Result, Timestamp,
    session::{Session, SessionAggregate, SessionPlan},
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, aggregates},
    bids::{Bid, bids, cases, fail, some_bids, us},
    extremes::instants,
    restored::{Saved, batch, names, process},
    revisions::{Occasions, occasions},
    session::{Gap, gaps, is_behind, oracle, pipeline},
};

fn session_of(occasions: Occasions, mut session: Session) -> Session {
    if occasions.corrections {
        session = session.corrections();
    }
    if let Some(every) = occasions.every {
        session = session.early_every(us(every));
    }
    occasions.rows.into_iter().fold(session, Session::early_rows)
}

/// The results of each key that no later one has replaced, without their revisions. A result replaces those within it; it has
/// the next revision, and more rows than all of them.
pub(crate) fn not_replaced(keys: usize) -> impl Fn(Vec<Row>) -> Result<Vec<Row>, String> {
    move |rows| {
        let mut standing: BTreeMap<Vec<Value>, Vec<(u64, Row)>> = BTreeMap::new();
        for row in rows {
            let values = row.values();
            let own = standing.entry(values[3..3 + keys].to_vec()).or_default();
            let within = |former: &Row| {
                let former = former.values();
                values[0] <= former[0] && former[1] <= values[1]
            };
            let overlaps = |former: &Row| values[0] < former.values()[1] && former.values()[0] < values[1];
            if let Some((_, former)) = own.iter().find(|(_, former)| overlaps(former) && !within(former)) {
                return Err(format!("{row} overlaps {former}, which it does not replace"));
            }
            let replaced: Vec<(u64, Row)> = own.extract_if(.., |(_, former)| within(former)).collect();
            let next = replaced.iter().map(|(revision, _)| revision + 1).max().unwrap_or(0);
            if values[2] != Value::from(next) {
                return Err(format!("{row} should have the revision {next}"));
            }
            if let Some((_, former)) = replaced.iter().find(|(_, former)| former.values()[3 + keys] >= values[3 + keys])
            {
                return Err(format!("the number of rows of {former} does not become that of {row}"));
            }
            own.push((next, row));
        }
        let without_revision = |(_, row): (u64, Row)| {
            let values = row.values();
            Row::from([&values[..2], &values[3..]].concat())
        };
        Ok(standing.into_values().flatten().map(without_revision).collect())
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn what_is_not_replaced_is_the_answer(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        gap in gaps(), lateness in 1u64..40, bound in prop_oneof![Just(0u64), 0u64..25],
        occasions in occasions(), beyond: bool, seed: u64,
    ) {
        let session = session_of(occasions, gap.session().allowed_lateness(us(lateness)));
        let plan = SessionPlan::new(&bids(), key, session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed);
        let check = check.reduced(not_replaced(key.len()));
        let oracle = |rows: &[Bid]| oracle(rows, key, gap);
        if beyond {
            let is_late = |bid: &Bid, time| is_behind(bid, time, lateness);
            check.fall_idle().run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }

    /// Long stretches of time with few keys: many sessions of a key give results and then become one.
    #[test]
    fn many_sessions_of_a_key(
        rows in some_bids(-600i64..600),
        key in prop::sample::select(vec![KEYS[0], KEYS[2]]),
        gap in gaps(), bound in 50u64..400, lateness in 100u64..400, occasions in occasions(), seed: u64,
    ) {
        let session = session_of(occasions, gap.session().allowed_lateness(us(lateness)));
        let plan = SessionPlan::new(&bids(), key, session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed);
        check.reduced(not_replaced(key.len())).run(&rows, |rows| oracle(rows, key, gap)).map_err(fail)?;
    }

    /// Without allowed lateness there are early results only.
    #[test]
    fn early_results_of_sessions_that_do_not_wait(
        rows in some_bids(-60i64..60), gap in gaps(), every in prop::option::of(1u64..50), n in 1u32..5, seed: u64,
    ) {
        let session = session_of(Occasions { corrections: false, every, rows: Some(n) }, gap.session());
        let plan = SessionPlan::new(&bids(), &["who"], session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["who"])).out_of_order(us(10)).seed(seed).reduced(not_replaced(1));
        check.run(&rows, |rows| oracle(rows, &["who"], gap)).map_err(fail)?;
    }

    #[test]
    fn at_both_ends_of_time(
        rows in some_bids(instants()),
        gap in prop_oneof![Just(Gap::Fixed(1)), Just(Gap::Fixed(1 << 62)), Just(Gap::Closure), (1u64..100).prop_map(Gap::Fixed)],
        lateness in prop_oneof![1u64..20, Just(i64::MAX as u64), Just(u64::MAX)],
        occasions in occasions(), seed: u64,
    ) {
        let session = session_of(occasions, gap.session().allowed_lateness(us(lateness)));
        let plan = SessionPlan::new(&bids(), &["auction"], session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(u64::MAX)).seed(seed).rounds(6);
        check.reduced(not_replaced(1)).run(&rows, |rows| oracle(rows, &["auction"], gap)).map_err(fail)?;
    }
}

fn at(time: i64) -> Timestamp {
    Timestamp::from_micros(time)
}

fn counts(session: Session) -> SessionPlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    SessionPlan::new(&bids(), &["auction"], session, &aggregates).unwrap()
}

/// (start, end, revision, auction, bids) of what left, in order of all.
fn left(out: &mut Outbox) -> Vec<(i64, i64, i64, i64, i64)> {
    let mut left = Vec::new();
    for (_, rows) in out.drain().filter(|(port, _)| *port == Port::MAIN) {
        assert!(rows.num_rows() <= 8192);
        let time = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
        let (starts, ends, numbers) = (time(0), time(1), [2, 3, 4].map(number));
        left.extend((0..rows.num_rows()).map(|i| (starts[i], ends[i], numbers[0][i], numbers[1][i], numbers[2][i])));
    }
    left.sort_unstable();
    left
}

fn advance(operator: &mut SessionAggregate, time: Timestamp) -> Vec<(i64, i64, i64, i64, i64)> {
    let mut out = Outbox::new();
    while operator.advance(time, &mut out).unwrap() == Advance::Again {}
    left(&mut out)
}

/// The first result at the watermark that passes it, then one for each watermark with late rows that joined it; also when all
/// is restored in between.
#[test]
fn corrections_come_at_the_next_watermark() {
    let plan = counts(Session::gap(us(10)).allowed_lateness(us(20)).corrections());
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    let mut step = |rows: &[(i64, i64, i64)], time: i64| {
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch(rows.iter().copied()), &mut out).unwrap();
        let late = out.take_counts().1;
        let results = advance(&mut operator, at(time));
        saved.save(&mut operator);
        operator = plan.whole().unwrap();
        saved.load(&mut operator);
        (late, results)
    };
    assert_eq!(step(&[(1, 1, 0), (1, 1, 4), (1, 1, 15), (2, 1, 3)], 12), (0, vec![]));
    assert_eq!(step(&[], 14), (0, vec![(0, 14, 0, 1, 2), (3, 13, 0, 2, 1)]), "not at 12");
    assert_eq!(step(&[], 25), (0, vec![(15, 25, 0, 1, 1)]));
    assert_eq!(step(&[(1, 1, 6)], 26), (0, vec![(0, 25, 1, 1, 4)]), "one session");
    assert_eq!(step(&[], 27), (0, vec![]), "all has been said");
    assert_eq!(step(&[(2, 1, 8), (2, 1, 7)], 28), (0, vec![(3, 18, 1, 2, 3)]));
    assert_eq!(step(&[(1, 1, 10)], 45), (0, vec![(0, 25, 2, 1, 5)]), "with the last watermark");
    assert_eq!(step(&[(1, 1, 10)], 50), (1, vec![]));
    assert_eq!(operator.size(), plan.whole().unwrap().size());
    assert_eq!(saved.state.segments, []);
}

#[test]
fn early_results_come_by_the_clock_and_by_rows() {
    let session = Session::gap(us(10)).allowed_lateness(us(20)).corrections().early_every(us(100)).early_rows(3);
    let mut operator = counts(session).whole().unwrap();
    let mut out = Outbox::new();
    out.set_now(at(250));
    operator.process(Port::MAIN, batch([(1, 1, 0), (1, 1, 19), (1, 1, 1)]), &mut out).unwrap();
    assert_eq!((out.take_wake(), left(&mut out)), (Some(at(300)), vec![]));
    operator.process(Port::MAIN, batch([(1, 1, 10)]), &mut out).unwrap();
    assert_eq!(left(&mut out), [(0, 29, 0, 1, 4)], "two that had one and two rows, and one more");
    operator.process(Port::MAIN, batch([(2, 1, 1), (1, 1, 25)]), &mut out).unwrap();
    operator.tick(&mut out).unwrap();
    assert_eq!((out.take_wake(), left(&mut out)), (Some(at(300)), vec![]), "too early");
    out.set_now(at(300));
    operator.tick(&mut out).unwrap();
    assert_eq!(left(&mut out), [(0, 35, 1, 1, 5), (1, 11, 0, 2, 1)]);
    operator.tick(&mut out).unwrap();
    assert_eq!((out.take_wake(), left(&mut out)), (None, vec![]), "nothing has changed");
    assert_eq!(advance(&mut operator, at(20)), [], "nor at its end");
    operator.process(Port::MAIN, batch((0..9).map(|_| (2, 1, 5))), &mut out).unwrap();
    out.set_now(at(500));
    operator.tick(&mut out).unwrap();
    assert_eq!(left(&mut out), [], "a correction waits for the watermark");
    assert_eq!(advance(&mut operator, at(21)), [(1, 15, 1, 2, 10)]);
    assert_eq!(advance(&mut operator, Timestamp::MAX), []);
}

/// Step by step the same results with the same revisions, however often it is restored.
#[test]
fn every_result_comes_when_and_as_it_would_have_come() {
    let session = || Session::gap(us(15)).allowed_lateness(us(30));
    for session in [
        session().corrections(),
        session().early_rows(3),
        session().early_every(us(9)),
        session().corrections().early_every(us(15)).early_rows(4),
    ] {
        let plan = counts(session.clone());
        let (mut straight, mut other, mut saved) = (plan.whole().unwrap(), plan.whole().unwrap(), Saved::new());
        let mut random = fastrand::Rng::with_seed(7);
        let mut results = 0;
        for step in 0..200_i64 {
            let rows: Vec<_> =
                (0..random.i64(0..6)).map(|i| (random.i64(0..5), i + step, step * 2 + random.i64(-30..10))).collect();
            let time = if step == 199 { Timestamp::MAX } else { at(step * 2 - 5) };
            let [expected, found] = [&mut straight, &mut other].map(|operator| {
                let mut out = Outbox::new();
                out.set_now(at(step * 3 - 1));
                operator.process(Port::MAIN, batch(rows.iter().copied()), &mut out).unwrap();
                let mut all = vec![left(&mut out), advance(operator, time)];
                out.set_now(at(step * 3));
                operator.tick(&mut out).unwrap();
                all.push(left(&mut out));
                all
            });
            assert_eq!(found, expected, "{session} at step {step}");
            results += expected.iter().map(Vec::len).sum::<usize>();
            saved.save(&mut other);
            if step % 3 != 0 {
                other = plan.whole().unwrap();
                saved.load(&mut other);
                let mut out = Outbox::new();
                out.set_now(at(step * 3));
                other.tick(&mut out).unwrap();
                assert_eq!(out.drain().count(), 0, "nothing is due because it was restored");
            }
        }
        assert!(results > 60, "{session}: {results} results");
    }
}

/// One task stood at 60 and one at 30: each key goes on with its own revisions, and the first results that the second still
/// owes come at the next watermark, however early it is.
#[test]
fn former_tasks_stood_at_different_times() {
    let plan = counts(Session::gap(us(10)).allowed_lateness(us(25)).corrections());
    let mut parts = Vec::new();
    for (auction, time, first) in [(1, 60, 2), (2, 30, 1)] {
        let mut operator = plan.whole().unwrap();
        process(&mut operator, [(auction, 1, 5), (auction, 1, 40), (auction, 1, 70)]);
        assert_eq!(advance(&mut operator, at(time)).len(), first);
        process(&mut operator, [(auction, 1, 45)]);
        let mut saved = Saved::new();
        saved.save(&mut operator);
        parts.push(saved.part());
    }
    let mut saved = Saved::after(&mut parts);
    let mut operator = plan.whole().unwrap();
    operator.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    saved.save(&mut operator);
    operator = plan.whole().unwrap();
    saved.load(&mut operator);
    assert_eq!(advance(&mut operator, at(1)), [(40, 55, 0, 2, 2), (40, 55, 1, 1, 2)]);
    assert_eq!(advance(&mut operator, Timestamp::MAX), [(70, 80, 0, 1, 1), (70, 80, 0, 2, 1)]);
}

/// A large state of which little changes.
#[test]
fn a_save_writes_what_has_changed() {
    let plan = counts(Session::gap(us(1_000)).allowed_lateness(us(100_000)).corrections());
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..10_000).map(|i| (i, i, i % 100)));
    assert_eq!(saved.save(&mut operator), 10_000);
    assert_eq!(advance(&mut operator, at(2_000)).len(), 10_000);
    assert_eq!(saved.save(&mut operator), 10_000, "all have given a result");
    let mut total = 0;
    for round in 0..40 {
        process(&mut operator, (0..5).map(|i| (i * 999, 1, i)));
        total += saved.save(&mut operator);
        assert_eq!(advance(&mut operator, at(2_001 + round)).len(), 5);
        total += saved.save(&mut operator);
        assert_eq!(saved.save(&mut operator), 0);
        assert!(saved.state.segments.len() < 25, "{} segments", saved.state.segments.len());
        if round == 20 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
            assert_eq!(saved.save(&mut operator), 0);
        }
    }
    assert!((400..4_000).contains(&total), "{total} rows for 400 changes");
}

/// A day in which rows come a quarter of an hour late, with corrections and early results.
#[test]
fn state_falls_to_its_floor() {
    const MINUTE: i64 = 60_000_000;
    let minutes = |n: u64| us(n * MINUTE as u64);
    let session = Session::gap(minutes(3)).allowed_lateness(minutes(20));
    let early = session.clone().early_every(minutes(3)).early_rows(2);
    for session in [session.clone().corrections(), early.clone(), early.corrections()] {
        let plan = counts(session.clone());
        let mut operator = plan.whole().unwrap();
        let (mut out, mut saved) = (Outbox::new(), Saved::new());
        let (mut before, mut after, mut results) = (0, 0, 0);
        for minute in 0..8 * 60 {
            let now = minute * MINUTE;
            out.set_now(at(now));
            // An auction speaks for a minute in seven.
            let rows = (0..100).map(|i| (i % 7 * 100 + i, i, now + i - if i % 10 == 0 { 15 * MINUTE } else { 0 }));
            operator.process(Port::MAIN, batch(rows.filter(|row| row.0 / 100 == minute % 7)), &mut out).unwrap();
            while operator.advance(at(now), &mut out).unwrap() == Advance::Again {}
            operator.tick(&mut out).unwrap();
            results += left(&mut out).len();
            let largest = if minute < 4 * 60 { &mut before } else { &mut after };
            *largest = operator.size().max(*largest);
            if minute % 10 == 0 {
                saved.save(&mut operator);
                assert!(saved.state.segments.len() < 20, "{}", saved.state.segments.len());
            }
        }
        assert!(results > 1_000 && before > 1_000 && after < before * 5 / 4, "{session}: {results}, {before}, {after}");
        advance(&mut operator, at(10 * 60 * MINUTE));
        saved.save(&mut operator);
        assert_eq!(saved.state.segments, []);
    }
}

/// Results on the way leave every kind of accumulator as it was, and leave in bounded batches.
#[test]
fn many_sessions_and_many_aggregates() {
    let price = || col("price");
    let aggregates =
        [avg(price()), count_distinct(price()), median(price()), array_agg(price()), max(col("who")), count(lit(1))];
    let plan = |session| SessionPlan::new(&bids(), &["auction"], session, &aggregates).unwrap();
    let plain = plan(Session::gap(us(20)));
    let revised = plan(Session::gap(us(20)).allowed_lateness(us(50)).corrections().early_rows(2));
    let (mut one, mut other, mut out) = (plain.whole().unwrap(), revised.whole().unwrap(), Outbox::new());
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |out: &mut Outbox| {
        for (_, rows) in out.drain() {
            assert!(rows.num_rows() <= 8192);
            use arrow::util::display::{ArrayFormatter, FormatOptions};
            let options = FormatOptions::default();
            let columns: Vec<_> =
                rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
            for row in 0..rows.num_rows() {
                let value = |column: &usize| columns[*column].value(row).to_string() + " ";
                let all: Vec<usize> = (0..columns.len()).filter(|column| *column != 2).collect();
                last.insert(value(&3), all.iter().map(value).collect());
            }
        }
    };
    for from in 0..3 {
        let rows = || (0..10_000).map(move |i| (i, i * 7 % 90 + from, 15 * from + i % 3));
        process(&mut one, rows());
        other.process(Port::MAIN, batch(rows()), &mut out).unwrap();
        add(&mut out);
    }
    while other.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
    add(&mut out);
    let mut given: Vec<String> = last.into_values().collect();
    given.sort_unstable();
    assert_eq!(given, crate::restored::results(&mut one, Timestamp::MAX));
}

#[test]
fn the_plan_of_revised_sessions_and_what_cannot_be() {
    let second = us(1_000_000);
    let session = || Session::gap(second).allowed_lateness(second);
    let corrected = counts(session().corrections());
    assert_eq!(
        corrected.output().to_string().split(", ").map(|column| column.split(' ').next().unwrap()).collect::<Vec<_>>()
            [..5],
        ["window_start", "window_end", "revision", "auction", "bids"]
    );
    let form = corrected.state_form();
    assert_eq!(
        names(&form),
        ["__key_group", "window_start", "window_end", "auction", "bids", "sum", "rows", "revision"]
    );
    assert_eq!(form.meaning, "session gap 1s, with revisions; count(1), sum(price)");
    assert_eq!(form, counts(session().early_rows(7)).state_form(), "the occasions may change");
    assert!(form.accepts(&counts(session()).state_form()).is_err());
    for (session, words) in [
        (Session::gap(second).corrections(), ["session gap 1s, with corrections", ".allowed_lateness("]),
        (session().early_rows(0), ["early after 0 rows", "at least one row"]),
        (session().early_every(us(0)), ["early every 0ns", "whole microseconds"]),
    ] {
        let error = SessionPlan::new(&bids(), &[], session, &[]).err().unwrap().to_string();
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ForgetsWhatHasBeenGiven,
    LosesCorrections,
    NumbersFromZero,
    SaysTheSameTwice,
}

/// The operator with a fault around it.
struct Faulty(Fault, SessionAggregate);

impl Faulty {
    fn call<T>(
        &mut self,
        out: &mut Outbox,
        call: impl FnOnce(&mut SessionAggregate, &mut Outbox) -> Result<T>,
    ) -> Result<T> {
        let mut own = Outbox::new();
        own.set_now(out.now());
        let result = call(&mut self.1, &mut own)?;
        let batches: Vec<_> = own.drain().collect();
        for (port, rows) in batches {
            if port == Port::LATE {
                out.late(rows);
                continue;
            }
            let revisions = rows.column(2).as_primitive::<Int64Type>();
            let is_first: BooleanArray = revisions.values().iter().map(|revision| Some(*revision == 0)).collect();
            let changed = |revision: fn(i64) -> i64| {
                let mut columns = rows.columns().to_vec();
                columns[2] = Arc::new(Int64Array::from_iter_values(revisions.values().iter().copied().map(revision)));
                RecordBatch::try_new(rows.schema(), columns)
            };
            match self.0 {
                Fault::LosesCorrections => out.emit(filter_record_batch(&rows, &is_first)?),
                Fault::NumbersFromZero => out.emit(changed(|_| 0)?),
                Fault::SaysTheSameTwice => {
                    out.emit(rows.clone());
                    out.emit(changed(|revision| revision + 1)?);
                }
                Fault::None | Fault::ForgetsWhatHasBeenGiven => out.emit(rows),
            }
        }
        out.processed(own.take_counts().0 as usize);
        own.take_wake().into_iter().for_each(|time| out.wake_at(time));
        Ok(result)
    }
}

impl Operator for Faulty {
    fn process(&mut self, port: Port, rows: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.call(out, |inner, out| inner.process(port, rows, out))
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.call(out, |inner, out| inner.advance(time, out))
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        self.call(out, |inner, out| inner.tick(out))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.1.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let mut state = state.clone();
        if self.0 == Fault::ForgetsWhatHasBeenGiven {
            let is_given =
                |rows: &RecordBatch| rows.columns().last().is_some_and(|revision| revision.null_count() == 0);
            state.parts.iter_mut().for_each(|part| part.segments.retain(|(_, rows)| !is_given(rows)));
        }
        self.1.load(&state)
    }
}

#[test]
fn every_fault_is_caught() {
    let plan = counts(Session::gap(us(5)).allowed_lateness(us(30)).corrections().early_rows(2));
    let rows: Vec<Bid> = (0..120).map(|i: i64| crate::shape::bid(i % 3, i, i * 37 % 173 - 86)).collect();
    let check = |fault: Fault| {
        let new = || Ok(Faulty(fault, plan.whole()?));
        let pipeline = Pipeline::new(&bids()).exchange([0]).stage(plan.output(), new);
        let check = Check::new(pipeline).out_of_order(us(20)).seed(3).reduced(not_replaced(1));
        check.run(&rows, |rows| {
            let whole = oracle(rows, &["auction"], Gap::Fixed(5));
            // The start, the end, the auction, the number of bids, and the sum.
            whole.iter().map(|row| Row::from([&row.values()[..4], &row.values()[5..6]].concat())).collect::<Vec<_>>()
        })
    };
    check(Fault::None).unwrap();
    for (fault, words) in [
        (Fault::ForgetsWhatHasBeenGiven, "should have the revision"),
        (Fault::LosesCorrections, "missing"),
        (Fault::NumbersFromZero, "should have the revision"),
        (Fault::SaysTheSameTwice, "the number of rows"),
    ] {
        let failure = check(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(failure.contains(words), "{fault:?} was caught, but by this: {failure}");
    }
}
