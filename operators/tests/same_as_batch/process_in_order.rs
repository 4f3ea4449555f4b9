//! Processes behind a sort: what depends on the order of rows has one answer, that of the rows in order of event time.
//!
//! ```text
//!   rows, in any order ──exchange by key──► SortPlan ──► ProcessPlan::in_order() ──► results
//!                                                                                      ║ the same
//!   the same rows ──► sorted, one key after the other: a loop ─────────────────────► results
//! ```

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use typed_arrow::prelude::*;
use windrow_operators::{
    Operator, Outbox, Plan, Port, Timestamp,
    keyed::{Keyed, NoSide, Process, ProcessPlan, State, Timer, fold},
    sort::SortPlan,
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, key_of},
    bids::{Bid, BidView, bids, cases, fail, some_bids, us},
    sort::{advance, batch, in_order, is_late, sorted},
};

/// A pipeline of a sort and of a process by the same key.
pub(crate) fn behind_a_sort<'a, P: Process>(
    sort: &'a SortPlan,
    plan: &'a ProcessPlan<P>,
    key: &'static [&'static str],
) -> Pipeline<'a> {
    sorted(sort, key).stage(plan.output(), || plan.whole())
}

pub(crate) fn by_key(rows: &[Bid], key: &[&str]) -> Vec<Vec<Bid>> {
    let mut keys: BTreeMap<Vec<Value>, Vec<Bid>> = BTreeMap::new();
    let mut rows = rows.to_vec();
    rows.sort_by_key(in_order);
    for bid in rows {
        keys.entry(key_of(&bid, key)).or_default().push(bid);
    }
    keys.into_values().collect()
}

/// Of each key and stretch without a pause the auctions, in order, and what is made of the prices one after the other.
#[derive(Clone)]
struct Told {
    pause: i64,
}

#[derive(Record)]
struct Story {
    start: Timestamp,
    end: Timestamp,
    auctions: String,
    last: i64,
    chain: i64,
    long: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct SoFar {
    times: Vec<i64>,
    auctions: Vec<i64>,
    chain: i64,
}
impl State for SoFar {}

fn link(chain: i64, price: Option<i64>) -> i64 {
    chain.wrapping_mul(31).wrapping_add(price.unwrap_or(-7))
}

fn story(times: &[i64], auctions: &[i64], chain: i64, last: i64, long: bool) -> Story {
    let at = Timestamp::from_micros;
    let auctions = auctions.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    Story { start: at(times[0]), end: at(times[times.len() - 1]), auctions, last, chain, long }
}

/// A story is told when it pauses, and half a pause after its first row if that has not been yet.
impl Process for Told {
    type Row = Bid;
    type State = SoFar;
    type Output = Story;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let now = key.time();
        key.set_timer(now + us(self.pause.unsigned_abs()));
        let so_far = key.state_mut();
        if so_far.times.is_empty() {
            key.set_timer(now + us(self.pause.unsigned_abs() / 2));
        }
        let so_far = key.state_mut();
        so_far.times.push(now.micros());
        so_far.auctions.push(bid.auction);
        so_far.chain = link(so_far.chain, bid.price);
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        assert_eq!(timer, Timer::Event(key.time()));
        let now = key.time().micros();
        let SoFar { times, auctions, chain } = key.state();
        let Some(&latest) = times.last() else { return };
        let is_over = now - latest == self.pause;
        if is_over || now - times[0] == self.pause / 2 {
            let told = story(times, auctions, *chain, now, !is_over);
            key.emit(told);
        }
        if is_over {
            key.clear();
        }
    }
}

fn stories(rows: &[Bid], key: &[&str], pause: i64) -> Vec<Row> {
    let mut told = Vec::new();
    for rows in by_key(rows, key) {
        for rows in rows.chunk_by(|a, b| b.at.micros() - a.at.micros() < pause) {
            let mut tell = |until: i64, is_over: bool| {
                // A row at the time of a timer comes after it.
                let rows: Vec<&Bid> = rows.iter().filter(|bid| is_over || bid.at.micros() < until).collect();
                let times: Vec<i64> = rows.iter().map(|bid| bid.at.micros()).collect();
                let auctions: Vec<i64> = rows.iter().map(|bid| bid.auction).collect();
                let chain = rows.iter().fold(0, |chain, bid| link(chain, bid.price));
                let Story { start, end, auctions, last, chain, long } =
                    story(&times, &auctions, chain, until, !is_over);
                told.push(Row::from((start, end, auctions, last, chain, long)));
            };
            tell(rows[0].at.micros() + pause / 2, false);
            tell(rows[rows.len() - 1].at.micros() + pause, true);
        }
    }
    told
}

/// Counts the rows of a key as long as it lives: a key that has been silent for longer than its time to live begins again.
#[derive(Clone)]
struct Steps;

#[derive(Record)]
struct Step {
    auction: i64,
    at: Timestamp,
    step: i64,
}

impl Process for Steps {
    type Row = Bid;
    type State = (i64, i64);
    type Output = Step;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let (auction, step) = key.state_mut();
        (*auction, *step) = (bid.auction, *step + 1);
        let step = *step;
        key.set_timer(key.time() + us(LATER));
        key.emit(Step { auction: bid.auction, at: key.time(), step });
    }

    /// Beyond the time to live it does not come.
    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let (auction, step) = *key.state();
        key.emit(Step { auction, at: key.time(), step: -step });
    }
}

const TTL: i64 = 9;
const LATER: u64 = 14;

fn steps(rows: &[Bid]) -> Vec<(i64, i64, i64)> {
    let mut told = Vec::new();
    for rows in by_key(rows, &["auction"]) {
        for life in rows.chunk_by(|a, b| b.at.micros() - a.at.micros() <= TTL) {
            let at = |bid: &Bid| bid.at.micros();
            let end = at(&life[life.len() - 1]) + TTL;
            told.extend(life.iter().zip(1..).map(|(bid, step)| (bid.auction, at(bid), step)));
            // Of rows of one time there is one timer.
            let mut due: Vec<i64> = life.iter().map(|bid| at(bid) + LATER as i64).collect();
            due.dedup();
            for due in due {
                // The key has to be alive at that time: its last row *before* the timer tells how long it lives.
                let before = life.iter().filter(|bid| at(bid) < due).count();
                let lives = at(&life[before - 1]) + TTL;
                if due <= lives && due <= end {
                    told.push((life[0].auction, due, -(before as i64)));
                }
            }
        }
    }
    told
}

/// A timer that sets the next one: each second of the three after a row, all of them before the next row.
#[derive(Clone)]
struct Chain;

impl Process for Chain {
    type Row = Bid;
    type State = (i64, i64, i64);
    type Output = Step;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        *key.state_mut() = (bid.auction, key.time().micros(), bid.price.unwrap_or(0));
        key.set_timer(key.time() + us(1));
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let (auction, since, price) = *key.state();
        let now = key.time();
        key.emit(Step { auction, at: now, step: price });
        match now.micros() - since < 3 {
            true => key.set_timer(now + us(1)),
            false => key.clear(),
        }
    }
}

fn chains(rows: &[Bid]) -> Vec<(i64, i64, i64)> {
    let mut told = Vec::new();
    for rows in by_key(rows, &["auction"]) {
        let mut due: BTreeMap<i64, i64> = BTreeMap::new();
        for at in rows[0].at.micros()..=rows[rows.len() - 1].at.micros() + 3 {
            // The last row before this instant is the one that the timer finds.
            let Some(last) = rows.iter().rfind(|bid| bid.at.micros() < at) else { continue };
            if at - last.at.micros() <= 3 {
                due.insert(at, last.price.unwrap_or(0));
            }
        }
        told.extend(due.into_iter().map(|(at, price)| (rows[0].auction, at, price)));
    }
    told
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn stories_with_timers_and_lists(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()),
        pause in 2i64..20, bound in 0u64..25, seed: u64,
    ) {
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = ProcessPlan::new(&bids(), key, Told { pause }, None).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| stories(rows, key, pause)).map_err(fail)?;
    }

    #[test]
    fn what_is_late_is_not_in_them(rows in some_bids(-60i64..60), pause in 2i64..20, seed: u64) {
        let sort = SortPlan::new(&bids(), KEYS[1]).unwrap();
        let plan = ProcessPlan::new(&bids(), KEYS[1], Told { pause }, None).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, KEYS[1])).out_of_order(us(5)).seed(seed);
        check.run_beyond_bound(&rows, is_late, |rows| stories(rows, KEYS[1], pause)).map_err(fail)?;
    }

    #[test]
    fn a_time_to_live_ends_at_the_same_row(rows in some_bids(-60i64..60), bound in 0u64..25, seed: u64) {
        let key = &["auction"];
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = ProcessPlan::new(&bids(), key, Steps, Some(us(TTL as u64))).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, steps).map_err(fail)?;
    }

    #[test]
    fn timers_that_set_timers(rows in some_bids(-40i64..40), bound in 0u64..25, seed: u64) {
        let key = &["auction"];
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = ProcessPlan::new(&bids(), key, Chain, None).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, chains).map_err(fail)?;
    }

    /// A fold that tells each price less the one before, at any time there is.
    #[test]
    fn a_fold_at_all_times(
        rows in some_bids(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -5i64..5]), seed: u64,
    ) {
        let key = &["who"];
        let sort = SortPlan::new(&bids(), key).unwrap();
        let steps = fold::<Bid, i64, Step, _>(|last, bid, out| {
            let price = bid.price.unwrap_or(0);
            out.emit(Step { auction: bid.auction, at: bid.at, step: price - *last });
            *last = price;
        });
        let plan = ProcessPlan::new(&bids(), key, steps, None).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, key)).out_of_order(us(1 << 62)).seed(seed);
        let oracle = |rows: &[Bid]| {
            let mut told = Vec::new();
            for rows in by_key(rows, key) {
                let mut last = 0;
                for bid in rows {
                    let price = bid.price.unwrap_or(0);
                    told.push((bid.auction, bid.at, price - last));
                    last = price;
                }
            }
            told
        };
        check.run(&rows, oracle).map_err(fail)?;
    }
}

/// Without the order the harness finds the difference: the test is able to fail.
#[test]
fn on_arrival_is_caught() {
    let rows: Vec<Bid> = (0..200)
        .map(|i| Bid { auction: i % 5, who: None, price: Some(i), at: Timestamp::from_micros(i * 37 % 200) })
        .collect();
    let plan = ProcessPlan::new(&bids(), KEYS[1], Told { pause: 6 }, None).unwrap();
    let caught = |plan: &ProcessPlan<Told>| {
        let sort = SortPlan::new(&bids(), KEYS[1]).unwrap();
        let check = Check::new(behind_a_sort(&sort, plan, KEYS[1])).out_of_order(us(9)).batch_rows(1..=12);
        check.run(&rows, |rows| stories(rows, KEYS[1], 6)).is_err()
    };
    assert!(caught(&plan), "rows in order, but timers at watermarks only");
    assert!(!caught(&plan.in_order()));
}

/// A day of keys that come and go: what is held is what lives.
#[test]
fn a_day_is_not_held() {
    let second = 1_000_000_i64;
    let sort = SortPlan::new(&bids(), &["auction"]).unwrap();
    let plan = ProcessPlan::new(&bids(), &["auction"], Told { pause: 10 * second }, None).unwrap().in_order();
    let (mut sort, mut process) = (sort.whole().unwrap(), Plan::whole(&plan).unwrap());
    let (mut most, mut told) = (0, 0);
    for minute in 0..24 * 60 {
        let row = |s: i64| {
            let at = Timestamp::from_micros((minute * 60 + 59 - s) * second);
            Bid { auction: minute * 4 + s / 15, who: None, price: Some(s), at }
        };
        sort.process(Port::MAIN, batch(&(0..60).map(row).collect::<Vec<_>>()), &mut Outbox::new()).unwrap();
        let until = minute * 60 * second;
        for rows in advance(&mut sort, until) {
            let mut out = Outbox::new();
            process.process(Port::MAIN, rows, &mut out).unwrap();
            told += out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        }
        let mut out = Outbox::new();
        while process.advance(Timestamp::from_micros(until), &mut out).unwrap() == windrow_operators::Advance::Again {}
        told += out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        most = most.max(process.size());
    }
    assert!(most < 20_000, "{most} bytes for two keys");
    assert!(told > 2 * 4 * (24 * 60 - 2), "{told} stories");
}
