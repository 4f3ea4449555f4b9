//! Keyed processes whose answer does not depend on the order of arrival: timers, states that are maps and lists, time to
//! live, side outputs, processing time; and reduce and fold over rows in order.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, StreamSchema, Timestamp,
    keyed::{Keyed, NoSide, Process, ProcessPlan, State, Timer, fold, reduce},
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    aggregate::KEYS,
    bids::{Bid, BidView, bids, cases, fail, some_bids, us, window_of},
};

/// A plan behind an exchange by its key.
pub(crate) fn pipeline<'a, P: Process>(plan: &'a ProcessPlan<P>, input: &StreamSchema, key: &[&str]) -> Pipeline<'a> {
    let columns: Vec<usize> = key.iter().map(|name| input.index_of(name).unwrap()).collect();
    Pipeline::new(input).exchange(columns).stage(plan.output(), || plan.whole())
}

/// Sums per stretch of 10 microseconds, emitted by a timer at its end. The state is a map.
#[derive(Clone)]
pub(crate) struct Buckets {
    key: &'static [&'static str],
}

#[derive(Record)]
pub(crate) struct Sum {
    key: String,
    end: Timestamp,
    rows: u64,
    sum: i64,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Open {
    key: String,
    buckets: BTreeMap<i64, (u64, i64)>,
}
impl State for Open {}

fn label(key: &[&str], auction: i64, who: Option<&str>) -> String {
    let part = |name: &&str| if *name == "who" { format!("{who:?}") } else { auction.to_string() };
    key.iter().map(part).collect::<Vec<_>>().join(" ")
}

impl Process for Buckets {
    type Row = Bid;
    type State = Open;
    type Output = Sum;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let (_, end) = window_of(key.time(), 10, 0);
        key.set_timer(Timestamp::from_micros(end));
        let open = key.state_mut();
        open.key = label(self.key, bid.auction, bid.who);
        let bucket = open.buckets.entry(end).or_default();
        *bucket = (bucket.0 + 1, bucket.1 + bid.price.unwrap_or(0));
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        assert_eq!(timer, Timer::Event(key.time()));
        let end = key.time();
        let open = key.state_mut();
        let (rows, sum) = open.buckets.remove(&end.micros()).unwrap_or_default();
        let (label, is_empty) = (open.key.clone(), open.buckets.is_empty());
        key.emit(Sum { key: label, end, rows, sum });
        if is_empty {
            key.clear();
        }
    }
}

pub(crate) fn buckets(key: &'static [&'static str]) -> ProcessPlan<Buckets> {
    ProcessPlan::new(&bids(), key, Buckets { key }, None).unwrap()
}

pub(crate) fn sums(rows: &[Bid], key: &[&str]) -> Vec<(String, i64, u64, i64)> {
    let mut sums: BTreeMap<_, (u64, i64)> = BTreeMap::new();
    for bid in rows {
        let end = window_of(bid.at, 10, 0).1;
        let sum = sums.entry((label(key, bid.auction, bid.who.as_deref()), end)).or_default();
        *sum = (sum.0 + 1, sum.1 + bid.price.unwrap_or(0));
    }
    sums.into_iter().map(|((key, end), (rows, sum))| (key, end, rows, sum)).collect()
}

/// Rows of an auction with less than this between them are one session. The state is a list.
const GAP: i64 = 7;

#[derive(Clone)]
struct Sessions;

#[derive(Record)]
struct Session {
    auction: i64,
    start: Timestamp,
    end: Timestamp,
    rows: u64,
}

impl Process for Sessions {
    type Row = Bid;
    type State = Vec<(i64, i64)>;
    type Output = Session;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let time = key.time();
        key.state_mut().push((time.micros(), bid.auction));
        key.set_timer(time + us(GAP as u64));
    }

    fn timer(&mut self, _timer: Timer, key: &mut Keyed<'_, Self>) {
        let now = key.time().micros();
        let last = now - GAP;
        if key.state().iter().any(|(time, _)| last < *time && *time < now) {
            return;
        }
        let (session, rest): (Vec<_>, Vec<_>) = key.state().iter().partition(|(time, _)| *time <= last);
        let Some(&(start, auction)) = session.iter().min() else { return };
        let at = Timestamp::from_micros;
        key.emit(Session { auction, start: at(start), end: at(last), rows: session.len() as u64 });
        match rest.is_empty() {
            true => key.clear(),
            false => *key.state_mut() = rest,
        }
    }
}

fn sessions(rows: &[Bid]) -> Vec<(i64, i64, i64, u64)> {
    let mut times: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for bid in rows {
        times.entry(bid.auction).or_default().push(bid.at.micros());
    }
    let mut sessions = Vec::new();
    for (auction, mut times) in times {
        times.sort_unstable();
        for session in times.chunk_by(|a, b| b - a < GAP) {
            sessions.push((auction, session[0], session[session.len() - 1], session.len() as u64));
        }
    }
    sessions
}

/// The time to live of [`Fading`].
pub(crate) const TTL: u64 = 50;

/// Each row asks for a timer that comes only if a later row has kept the key alive.
#[derive(Clone)]
pub(crate) struct Fading;

#[derive(Record)]
pub(crate) struct Kept {
    auction: i64,
    at: Timestamp,
}

impl Process for Fading {
    type Row = Bid;
    type State = Option<i64>;
    type Output = Kept;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        *key.state_mut() = Some(bid.auction);
        key.set_timer(key.time() + us(TTL + 5));
    }

    fn timer(&mut self, _timer: Timer, key: &mut Keyed<'_, Self>) {
        if let Some(auction) = *key.state() {
            key.emit(Kept { auction, at: key.time() });
        }
    }
}

/// The rows of a key come within 10 microseconds, so all have come before it can expire.
pub(crate) fn fading_rows(rows: Vec<Bid>) -> Vec<Bid> {
    rows.into_iter().map(|bid| Bid { auction: bid.at.micros().div_euclid(10), ..bid }).collect()
}

pub(crate) fn kept(rows: &[Bid]) -> BTreeSet<(i64, i64)> {
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for bid in rows {
        let last = last.entry(bid.auction).or_insert(i64::MIN);
        *last = (*last).max(bid.at.micros());
    }
    let timers = rows.iter().map(|bid| (bid.auction, bid.at.micros() + TTL as i64 + 5));
    timers.filter(|(auction, at)| *at <= last[auction] + TTL as i64).collect()
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn sums_by_timers(
        rows in prop_oneof![some_bids(-60i64..60), some_bids(any::<i64>())],
        key in prop::sample::select(KEYS.to_vec()), bound in 0u64..25, seed: u64,
    ) {
        let plan = buckets(key);
        let check = Check::new(pipeline(&plan, &bids(), key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| sums(rows, key)).map_err(fail)?;
    }

    #[test]
    fn sessions_by_timers(rows in some_bids(-60i64..60), bound in 0u64..25, seed: u64) {
        let plan = ProcessPlan::new(&bids(), &["auction"], Sessions, None).unwrap();
        let check = Check::new(pipeline(&plan, &bids(), &["auction"])).out_of_order(us(bound)).seed(seed);
        check.run(&rows, sessions).map_err(fail)?;
    }

    /// A time to live that is long enough changes nothing.
    #[test]
    fn sums_with_a_long_life(rows in some_bids(-60i64..60), bound in 0u64..25, seed: u64) {
        let plan = ProcessPlan::new(&bids(), KEYS[1], Buckets { key: KEYS[1] }, Some(us(10))).unwrap();
        let check = Check::new(pipeline(&plan, &bids(), KEYS[1])).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| sums(rows, KEYS[1])).map_err(fail)?;
    }

    #[test]
    fn a_key_lives_as_long_as_its_time(rows in some_bids(-60i64..160), bound in 0u64..25, seed: u64) {
        let rows = fading_rows(rows);
        let plan = ProcessPlan::new(&bids(), &["auction"], Fading, Some(us(TTL))).unwrap();
        let check = Check::new(pipeline(&plan, &bids(), &["auction"])).out_of_order(us(bound)).seed(seed);
        check.run(&rows, kept).map_err(fail)?;
    }
}

#[derive(Clone, Record, Serialize, Deserialize)]
pub(crate) struct Price {
    auction: i64,
    price: Option<i64>,
}

/// Bids one after the other, whose running results are the same whichever order equal times have.
fn in_order(rows: Vec<Bid>) -> Vec<Bid> {
    let timed = rows.into_iter().enumerate();
    timed.map(|(i, bid)| Bid { at: Timestamp::from_micros(3 * i as i64), ..bid }).collect()
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn a_running_reduce(rows in some_bids(0i64..1), seed: u64) {
        let total = reduce(|a: Price, b: Price| Price { price: a.price.max(b.price), ..b });
        let plan = ProcessPlan::new(&bids(), &["auction"], total, None).unwrap();
        let check = Check::new(pipeline(&plan, &bids(), &["auction"])).parallelism(1..=1).seed(seed);
        let oracle = |rows: &[Bid]| {
            let mut tops: BTreeMap<i64, Option<i64>> = BTreeMap::new();
            let mut running = |bid: &Bid| {
                let top = tops.entry(bid.auction).or_insert(None);
                *top = (*top).max(bid.price);
                (bid.auction, *top)
            };
            rows.iter().map(&mut running).collect::<Vec<_>>()
        };
        check.run(&in_order(rows), oracle).map_err(fail)?;
    }

    /// Emits the prices of a key two by two, the greater first.
    #[test]
    fn a_fold(rows in some_bids(0i64..1), seed: u64, has_time: bool) {
        let input = if has_time { bids() } else { StreamSchema::without_time(Bid::schema()) };
        let pairs = fold::<Bid, Option<i64>, Price, _>(|last, bid, out| match last.take() {
            Some(former) => [former, bid.price.unwrap_or(0)].into_iter().for_each(|price| {
                out.emit(Price { auction: bid.auction, price: Some(price) });
            }),
            None => *last = bid.price,
        });
        let plan = ProcessPlan::new(&input, &["auction"], pairs, None).unwrap();
        // Without event time the harness shuffles rows: one is in order.
        let rows = if has_time { in_order(rows) } else { rows.into_iter().take(1).collect() };
        let check = Check::new(pipeline(&plan, &input, &["auction"])).parallelism(1..=1).seed(seed);
        let oracle = |rows: &[Bid]| {
            let (mut last, mut out) = (BTreeMap::new(), Vec::new());
            for bid in rows {
                let last = last.entry(bid.auction).or_insert(None);
                match last.take() {
                    Some(former) => out.extend([(bid.auction, Some(former)), (bid.auction, Some(bid.price.unwrap_or(0)))]),
                    None => *last = bid.price,
                }
            }
            out
        };
        check.run(&rows, oracle).map_err(fail)?;
    }
}

/// Every row asks to be emitted at a processing time of its own.
#[derive(Clone)]
pub(crate) struct Alarms;

impl Process for Alarms {
    type Row = Bid;
    type State = BTreeMap<i64, i64>;
    type Output = Price;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let at = bid.price.unwrap_or(0);
        key.state_mut().insert(at, bid.auction);
        key.set_processing_timer(Timestamp::from_micros(at));
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        let Timer::Processing(at) = timer else { panic!("{timer:?}") };
        assert!(key.now() >= at, "not a millisecond too early");
        let auction = key.state_mut().remove(&at.micros());
        key.emit(Price { auction: auction.unwrap_or(-1), price: Some(at.micros()) });
        if key.state().is_empty() {
            key.clear();
        }
    }
}

pub(crate) fn alarm_rows() -> Vec<Bid> {
    let row =
        |i: i64| Bid { auction: i % 5, who: None, price: Some(i * 37 % 401), at: Timestamp::from_micros(i * 7 % 90) };
    (0..60).map(row).collect()
}

pub(crate) fn alarms(rows: &[Bid]) -> Vec<(i64, Option<i64>)> {
    rows.iter().map(|bid| (bid.auction, bid.price)).collect()
}

#[test]
fn processing_time_timers_fire_once() {
    for input in [bids(), StreamSchema::without_time(Bid::schema())] {
        let plan = ProcessPlan::new(&input, &["auction"], Alarms, None).unwrap();
        let check = Check::new(pipeline(&plan, &input, &["auction"])).out_of_order(us(20)).batch_rows(1..=9);
        for seed in 0..4 {
            check.run(&alarm_rows(), alarms).unwrap();
            Check::new(pipeline(&plan, &input, &["auction"])).seed(seed).assert(&alarm_rows(), alarms);
        }
    }
}

/// Cheap bids leave by the side.
#[derive(Clone)]
struct Cheap;

impl Process for Cheap {
    type Row = Bid;
    type State = ();
    type Output = Kept;
    type Side = Price;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        match bid.price {
            Some(50..) => key.emit(Kept { auction: bid.auction, at: bid.at }),
            price => key.emit_side(Price { auction: bid.auction, price }),
        }
    }
}

/// An operator that shows on its main output what leaves by the side.
struct BySide<O>(O);

impl<O: Operator> BySide<O> {
    fn turn(inner: &mut Outbox, out: &mut Outbox) {
        out.processed(inner.take_counts().0 as usize);
        for (_, batch) in inner.drain().filter(|(port, _)| *port == Port::side(0)).collect::<Vec<(Port, RecordBatch)>>()
        {
            out.emit(batch);
        }
    }
}

impl<O: Operator> Operator for BySide<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let mut inner = Outbox::new();
        self.0.process(port, batch, &mut inner)?;
        Self::turn(&mut inner, out);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let mut inner = Outbox::new();
        let advance = self.0.advance(time, &mut inner)?;
        Self::turn(&mut inner, out);
        Ok(advance)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.0.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state)
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn main_and_side_output(rows in some_bids(-60i64..60), bound in 0u64..25, seed: u64) {
        let plan = ProcessPlan::new(&bids(), &["auction"], Cheap, None).unwrap();
        let check = Check::new(pipeline(&plan, &bids(), &["auction"])).out_of_order(us(bound)).seed(seed);
        let is_dear = |bid: &&Bid| bid.price >= Some(50);
        let dear = |rows: &[Bid]| rows.iter().filter(is_dear).map(|bid| (bid.auction, bid.at)).collect::<Vec<_>>();
        check.run(&rows, dear).map_err(fail)?;

        let side = plan.side().unwrap();
        let by_side = Pipeline::new(&bids()).exchange([0]).stage(side, || Ok(BySide(plan.whole()?)));
        let check = Check::new(by_side).out_of_order(us(bound)).seed(seed);
        let cheap = |rows: &[Bid]| {
            rows.iter().filter(|bid| !is_dear(bid)).map(|bid| (bid.auction, bid.price)).collect::<Vec<_>>()
        };
        check.run(&rows, cheap).map_err(fail)?;
    }
}

/// Rows behind the watermark are processed like others, and what they emit keeps the promise.
#[test]
fn rows_beyond_the_bound_are_not_late() {
    let plan = ProcessPlan::new(&bids(), &["auction"], Cheap, None).unwrap();
    let rows: Vec<Bid> = alarm_rows();
    let check = Check::new(pipeline(&plan, &bids(), &["auction"])).out_of_order(us(5)).fall_idle();
    let oracle = |rows: &[Bid]| {
        let dear = rows.iter().filter(|bid| bid.price >= Some(50));
        dear.map(|bid| (bid.auction, bid.at)).collect::<Vec<_>>()
    };
    assert_eq!(check.run_beyond_bound(&rows, |_, _| false, oracle).unwrap(), 0);
}
