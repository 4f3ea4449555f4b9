//! Session windows against sorted rows that are split where there is a gap: with static and dynamic gaps, over all kinds of
//! keys and aggregates, with late rows, and at both ends of time.

use std::{collections::BTreeMap, time::Duration};

use datafusion_expr::{Expr, col, lit};
use datafusion_functions_aggregate::expr_fn::{count, max, sum};
use proptest::prelude::*;
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, StreamSchema, Timestamp,
    session::{Session, SessionAggregate, SessionPlan},
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, aggregates, key_of, result},
    bids::{Bid, bids, cases, fail, some_bids, us},
    extremes::instants,
    restored::batch,
};

/// Where the gap of a row comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gap {
    Fixed(u64),
    Closure,
    Expression,
}

impl Gap {
    pub(crate) fn session(self) -> Session {
        match self {
            Self::Fixed(gap) => Session::gap(us(gap)),
            Self::Closure => Session::gap_of::<Bid>(|bid| us(bid.price.unwrap_or(7).unsigned_abs() % 23)),
            Self::Expression => Session::gap_expr(col("price") - lit(30)),
        }
    }

    /// The gap of a bid, in microseconds.
    fn of(self, bid: &Bid) -> i128 {
        match self {
            Self::Fixed(gap) => gap.min(i64::MAX as u64).into(),
            Self::Closure => i128::from(bid.price.unwrap_or(7).abs() % 23).max(1),
            Self::Expression => i128::from(bid.price.unwrap_or(0) - 30).max(1),
        }
    }
}

pub(crate) fn gaps() -> impl Strategy<Value = Gap> {
    prop_oneof![3 => (1u64..30).prop_map(Gap::Fixed), 1 => Just(Gap::Closure), 1 => Just(Gap::Expression)]
}

pub(crate) fn pipeline<'a>(plan: &'a SessionPlan, key: &[&str]) -> Pipeline<'a> {
    let columns: Vec<usize> = key.iter().map(|name| bids().index_of(name).unwrap()).collect();
    Pipeline::new(&bids()).exchange(columns).stage(plan.output(), || plan.whole()).keyed(Plan::keyed_output(plan))
}

/// The sessions of the rows, by the definition: the last instant of all counts as the one before it, and what reaches
/// beyond the end of time stops there.
fn sessions<'a>(rows: &'a [Bid], key: &[&str], gap: Gap) -> Vec<(i64, i64, Vec<Value>, Vec<&'a Bid>)> {
    let mut keys: BTreeMap<Vec<Value>, Vec<&Bid>> = BTreeMap::new();
    for bid in rows {
        keys.entry(key_of(bid, key)).or_default().push(bid);
    }
    let mut sessions: Vec<(i64, i128, Vec<Value>, Vec<&Bid>)> = Vec::new();
    for (key, mut own) in keys {
        own.sort_by_key(|bid| bid.at);
        let mut is_first = true;
        for bid in own {
            let at = bid.at.micros().min(i64::MAX - 1);
            let end = i128::from(at) + gap.of(bid);
            match sessions.last_mut() {
                Some(last) if !is_first && i128::from(at) < last.1 => {
                    last.1 = last.1.max(end);
                    last.3.push(bid);
                }
                _ => sessions.push((at, end, key.clone(), vec![bid])),
            }
            is_first = false;
        }
    }
    let cut = |end: i128| end.min(i64::MAX.into()) as i64;
    sessions.into_iter().map(|(start, end, key, bids)| (start, cut(end), key, bids)).collect()
}

pub(crate) fn oracle(rows: &[Bid], key: &[&str], gap: Gap) -> Vec<Row> {
    sessions(rows, key, gap).into_iter().map(|(start, end, key, bids)| result(start, end, key, &bids)).collect()
}

/// Only what is behind the watermark by more than the lateness may be late.
pub(crate) fn is_behind(bid: &Bid, time: Timestamp, lateness: u64) -> bool {
    i128::from(bid.at.micros()) + i128::from(lateness) < i128::from(time.micros())
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn every_aggregate_over_every_key(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        gap in gaps(),
        lateness in prop_oneof![Just(0u64), 0u64..30],
        bound in prop_oneof![Just(0u64), 0u64..25],
        seed: u64,
    ) {
        let session = gap.session().allowed_lateness(us(lateness));
        let plan = SessionPlan::new(&bids(), key, session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, gap)).map_err(fail)?;
    }

    /// Long stretches of time with few keys: many sessions of a key are open, and rows join them.
    #[test]
    fn many_sessions_of_a_key(
        rows in some_bids(-600i64..600),
        key in prop::sample::select(vec![KEYS[0], KEYS[2]]),
        gap in gaps(), bound in 50u64..800, seed: u64,
    ) {
        let plan = SessionPlan::new(&bids(), key, gap.session(), &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, gap)).map_err(fail)?;
    }

    #[test]
    fn a_session_says_exactly_which_rows_it_left_out(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        gap in gaps(), lateness in prop_oneof![Just(0u64), 0u64..20], bound in 0u64..10,
        seed: u64,
    ) {
        let session = gap.session().allowed_lateness(us(lateness));
        let plan = SessionPlan::new(&bids(), key, session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed).fall_idle();
        let is_late = |bid: &Bid, time| is_behind(bid, time, lateness);
        check.run_beyond_bound(&rows, is_late, |rows| oracle(rows, key, gap)).map_err(fail)?;
    }

    #[test]
    fn at_all_times_with_all_gaps(
        rows in some_bids(instants()),
        gap in prop_oneof![
            Just(Gap::Fixed(1)), Just(Gap::Fixed(10)), Just(Gap::Fixed(1 << 62)), Just(Gap::Fixed(i64::MAX as u64)),
            Just(Gap::Closure), Just(Gap::Expression), (1u64..100).prop_map(Gap::Fixed),
        ],
        lateness in prop_oneof![Just(us(0)), Just(us(20)), Just(Duration::MAX)],
        bound in prop_oneof![Just(us(0)), Just(us(20)), Just(Duration::from_secs(u64::MAX))],
        beyond: bool, seed: u64,
    ) {
        let session = gap.session().allowed_lateness(lateness);
        let plan = SessionPlan::new(&bids(), &["auction"], session, &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(bound).seed(seed);
        let oracle = |rows: &[Bid]| oracle(rows, &["auction"], gap);
        if beyond {
            let lateness = u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX).min(i64::MAX as u64);
            check.run_beyond_bound(&rows, |bid, time| is_behind(bid, time, lateness), oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }
}

/// That the tests above do meet late rows.
#[test]
fn rows_beyond_the_bound_are_late() {
    let bid = |i: i64| Bid { auction: i % 3, who: None, price: Some(i), at: Timestamp::from_micros(i * 37 % 83 - 41) };
    let rows: Vec<Bid> = (0..80).map(bid).collect();
    let gap = Gap::Fixed(2);
    let plan = SessionPlan::new(&bids(), &["auction"], gap.session(), &aggregates()).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(5));
    let is_late = |bid: &Bid, time| is_behind(bid, time, 0);
    let late = check.run_beyond_bound(&rows, is_late, |rows| oracle(rows, &["auction"], gap)).unwrap();
    assert!(late > 20, "only {late} rows were late");
}

#[test]
fn without_rows_there_are_no_sessions_and_without_aggregates_there_are_keys() {
    let plan = SessionPlan::new(&bids(), &["auction"], Session::gap(us(10)), &[]).unwrap();
    Check::new(pipeline(&plan, &["auction"])).assert(&[], |_: &[Bid]| Vec::<Row>::new());
    let rows: Vec<Bid> = (0..60).map(|i| bid(i % 4, i * i % 997)).collect();
    Check::new(pipeline(&plan, &["auction"])).out_of_order(us(80)).assert(&rows, |rows| {
        let sessions = sessions(rows, &["auction"], Gap::Fixed(10));
        sessions.into_iter().map(|(start, end, key, _)| (start, end, key[0].clone())).collect::<Vec<_>>()
    });
}

/// One key at times from 0 to 9,999 with many watermarks: a session that never ends, and thousands that do.
#[test]
fn long_sessions_and_short_ones() {
    let rows: Vec<Bid> = (0..3_000).map(|i| bid(i % 2, i / 2 * (1 + 4 * (i % 2)))).collect();
    let plan = SessionPlan::new(&bids(), &["auction"], Session::gap(us(4)), &aggregates()).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(50)).rounds(4).batch_rows(20..=60);
    check.assert(&rows, |rows| oracle(rows, &["auction"], Gap::Fixed(4)));
}

/// Thousands of keys that come and go, so that slots and tables are tidied.
#[test]
fn many_keys() {
    let burst = (0..6_000).map(|i| bid(i % 1_500, i * i * 31 % 400));
    let rows: Vec<Bid> = burst.chain((0..2_000).map(|i| bid(i % 900, 1_000 + i))).collect();
    let plan = SessionPlan::new(&bids(), &["auction"], Session::gap(us(40)), &aggregates()).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(100)).rounds(6).batch_rows(200..=900);
    check.assert(&rows, |rows| oracle(rows, &["auction"], Gap::Fixed(40)));
}

/// Thousands of sessions that become one, in any order: their fragments are merged on the way.
#[test]
fn many_sessions_become_one() {
    let rows: Vec<Bid> = (0..24_000).map(|i| bid(0, 2 * i)).collect();
    let plan = SessionPlan::new(&bids(), &["auction"], Session::gap(us(3)), &aggregates()).unwrap();
    let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(60_000)).rounds(2);
    let check = check.parallelism(1..=2).batch_rows(2_000..=6_000);
    check.assert(&rows, |rows| oracle(rows, &["auction"], Gap::Fixed(3)));
}

#[derive(Clone, Record)]
struct Probe {
    level: Option<f64>,
    at: Timestamp,
}

/// All zeros are one key and so are all NaNs, also after a load.
#[test]
fn zeros_are_one_key_and_so_are_nans() {
    let levels = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), Some(1.5), None];
    let probe = |i: i64| Probe { level: levels[i as usize % 6], at: Timestamp::from_micros(i * i % 97) };
    let rows: Vec<Probe> = (0..60).map(probe).collect();
    let stream = StreamSchema::with_time(Probe::schema(), "at").unwrap();
    let plan = SessionPlan::new(&stream, &["level"], Session::gap(us(8)), &[count(lit(1))]).unwrap();
    let pipeline = Pipeline::new(&stream).exchange([0]).stage(plan.output(), || plan.whole());
    Check::new(pipeline).out_of_order(us(20)).assert(&rows, |rows| {
        let mut keys: BTreeMap<Value, Vec<i64>> = BTreeMap::new();
        for row in rows {
            keys.entry(row.level.into()).or_default().push(row.at.micros());
        }
        let mut found = Vec::new();
        for (level, mut times) in keys {
            times.sort_unstable();
            for session in times.chunk_by(|a, b| b - a < 8) {
                found.push((session[0], session[session.len() - 1] + 8, level.clone(), session.len()));
            }
        }
        found
    });
}

/// One watermark completes far more sessions than one call of `advance` emits: they leave in steps, by their ends.
#[test]
fn a_large_firing_leaves_in_steps_by_their_ends() {
    let plan = counts(Session::gap(us(10)));
    let mut operator = plan.whole().unwrap();
    process(&mut operator, (0..20_000).map(|i| (i, 1, i * 7_919 % 20_011)));
    let (mut ends, mut steps) = (Vec::new(), Vec::new());
    loop {
        let mut out = Outbox::new();
        let step = operator.advance(Timestamp::from_micros(15_000), &mut out).unwrap();
        let rows: Vec<_> = out.drain().map(|(_, rows)| rows).collect();
        steps.push(rows.iter().map(|rows| rows.num_rows()).sum::<usize>());
        for rows in rows {
            ends.extend(windrow_operators::time::event_times(&rows, 1).unwrap().iter().copied());
        }
        if step != Advance::Again {
            assert_eq!(step, Advance::Promise(Timestamp::from_micros(15_000)));
            break;
        }
    }
    assert!(steps.len() > 1 && steps.iter().all(|rows| *rows <= 8_192), "{steps:?}");
    assert!(ends.is_sorted() && ends.len() > 14_000 && ends.iter().all(|end| *end <= 15_000));
}

/// It fires at the watermark that passes its end and the lateness, not before and not later.
#[test]
fn a_session_fires_promptly() {
    let plan = counts(Session::gap(us(10)).allowed_lateness(us(5)));
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(1, 1, 100), (1, 1, 109)]);
    assert_eq!(emitted(&mut operator, 123), 0);
    assert_eq!(emitted(&mut operator, 124), 1, "119 and 5");
}

/// A row that touches the end of a session begins another; one before it joins; one between two makes them one.
#[test]
fn rows_join_what_they_overlap() {
    let plan = counts(Session::gap(us(10)));
    for (times, sessions) in [(vec![0, 10], 2), (vec![0, 9], 1), (vec![0, 18, 9], 1), (vec![0, 19, 9], 2)] {
        let mut operator = plan.whole().unwrap();
        process(&mut operator, times.iter().map(|at| (1, 1, *at)));
        assert_eq!(emitted(&mut operator, i64::MAX), sessions, "{times:?}");
    }
}

/// Behind the watermark only a row within an open session is kept. One that would make it begin earlier, or a session of
/// its own, is late although its gap has not ended: `[80, 95)` gave its result, and rows before 95 might belong to it.
#[test]
fn what_is_late() {
    let plan = counts(Session::gap(us(15)));
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(1, 1, 80), (1, 1, 98)]);
    assert_eq!(emitted(&mut operator, 100), 1);
    for (auction, at, processed) in [(1, 94, 0), (1, 97, 0), (1, 98, 1), (1, 99, 1), (2, 99, 0), (2, 100, 1)] {
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch([(auction, 1, at)]), &mut out).unwrap();
        assert_eq!(out.take_counts(), (processed, 1 - processed), "{auction} at {at}");
    }
}

fn counts(session: Session) -> SessionPlan {
    let aggregates: [Expr; 2] = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    SessionPlan::new(&bids(), &["auction"], session, &aggregates).unwrap()
}

fn process(operator: &mut SessionAggregate, rows: impl IntoIterator<Item = (i64, i64, i64)>) {
    crate::restored::process(operator, rows);
}

fn emitted(operator: &mut SessionAggregate, time: i64) -> usize {
    let mut out = Outbox::new();
    while operator.advance(Timestamp::from_micros(time), &mut out).unwrap() == Advance::Again {}
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

fn bid(auction: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(auction + at), at: Timestamp::from_micros(at) }
}

/// Sessions of sessions: the results of one are rows of another, which begins where their last instant is.
#[test]
fn sessions_in_line() {
    let inner = counts(Session::gap(us(5)));
    let most = [max(col("bids")).alias("most")];
    let outer = SessionPlan::new(inner.output(), &[], Session::gap(us(8)), &most).unwrap();
    let rows: Vec<Bid> = (0..150).map(|i| bid(i % 3, i * 37 % 401)).collect();
    let pipeline = pipeline(&inner, &["auction"]).exchange([]).stage(outer.output(), || outer.whole());
    Check::new(pipeline).out_of_order(us(12)).assert(&rows, |rows| {
        let mut inner: Vec<_> = sessions(rows, &["auction"], Gap::Fixed(5));
        inner.sort_by_key(|(_, end, ..)| *end);
        let mut outer: Vec<(i64, i64, usize)> = Vec::new();
        for (_, end, _, bids) in inner {
            match outer.last_mut().filter(|last| end - 1 < last.1) {
                Some(last) => *last = (last.0, end + 7, last.2.max(bids.len())),
                None => outer.push((end - 1, end + 7, bids.len())),
            }
        }
        outer
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |session: Session, words: &str| {
        let error = match SessionPlan::new(&bids(), &["auction"], session, &[]) {
            Ok(_) => panic!("this was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words), "{error}");
    };
    refused(Session::gap(Duration::ZERO), "whole microseconds, at least one");
    refused(Session::gap(Duration::from_nanos(1_500)), "whole microseconds, at least one");
    refused(Session::gap_expr(col("who")), "who is Utf8");
    refused(Session::gap_expr(col("prise")), "did you mean \"price\"?");
    let stream = StreamSchema::without_time(bids().columns().clone());
    assert!(SessionPlan::new(&stream, &[], Session::gap(us(1)), &[]).is_err(), "no event time");
}
