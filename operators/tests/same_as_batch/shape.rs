//! Windows of every shape by their definitions, and the checks that hold for all of them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
    sync::{LazyLock, Mutex},
};

use chrono::{DateTime, Datelike};
use chrono_tz::Tz;
use proptest::prelude::*;
use windrow_operators::{
    Timestamp,
    testing::{Check, Pipeline, Row, Value},
    window::{AggregatePlan, Calendar, Cumulating, Hopping, TopPlan, Window},
};

use crate::{
    aggregate::{self, KEYS, key_of},
    bids::{Bid, bids, some_bids, us},
    top,
};

/// A window, in terms that its oracle knows.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Hopping { size: u64, slide: u64, offset: u64 },
    Cumulating { size: u64, step: u64, offset: u64 },
    Calendar { unit: &'static str, zone: &'static str },
}

/// A window in numbers that do not overflow: at the ends of time several are cut off to the same.
pub(crate) type Bounds = (i128, i128);

impl Shape {
    pub(crate) fn window(&self) -> Window {
        match *self {
            Self::Hopping { size, slide, offset } => Hopping::of(us(size), us(slide)).offset(us(offset)),
            Self::Cumulating { size, step, offset } => Cumulating::of(us(size), us(step)).offset(us(offset)),
            Self::Calendar { unit: "day", zone } => Calendar::days(zone),
            Self::Calendar { unit: "week", zone } => Calendar::weeks(zone),
            Self::Calendar { unit: "month", zone } => Calendar::months(zone),
            Self::Calendar { zone, .. } => Calendar::years(zone),
        }
    }

    /// All windows that contain `time`, of all that begin near it.
    pub(crate) fn windows_of(&self, time: Timestamp) -> Vec<Bounds> {
        // The last instant belongs to the windows of the one before: nothing could say where others end.
        let t = i128::from(time.micros().min(i64::MAX - 1));
        let mut near = Vec::new();
        match *self {
            Self::Hopping { size, slide, offset } => {
                let (size, slide, offset) = (i128::from(size), i128::from(slide), i128::from(offset));
                for k in (t - offset) / slide - size / slide - 2..=(t - offset) / slide + 2 {
                    near.push((k * slide + offset, k * slide + offset + size));
                }
            }
            Self::Cumulating { size, step, offset } => {
                let (size, step, offset) = (i128::from(size), i128::from(step), i128::from(offset));
                for k in (t - offset) / size - 2..=(t - offset) / size + 2 {
                    let start = k * size + offset;
                    near.extend((1..=size / step).map(|n| (start, start + n * step)));
                }
            }
            Self::Calendar { unit, zone } => {
                near.extend(edges(unit, zone).windows(2).map(|edge| (i128::from(edge[0]), i128::from(edge[1]))));
            }
        }
        near.retain(|(start, end)| *start <= t && t < *end);
        near
    }

    /// The next instant after `time` at which a window begins or ends: then what is of `time` is late.
    fn edge_after(&self, time: Timestamp) -> i128 {
        let t = i128::from(time.micros());
        let next = |grid: i128, offset: i128| (1..=grid).map(|more| t + more).find(|x| (x - offset) % grid == 0);
        match *self {
            Self::Hopping { size, slide, offset } => {
                let (size, slide, offset) = (i128::from(size), i128::from(slide), i128::from(offset));
                next(slide, offset).unwrap().min(next(slide, offset + size).unwrap())
            }
            Self::Cumulating { step, offset, .. } => next(step.into(), offset.into()).unwrap(),
            Self::Calendar { .. } => self.windows_of(time)[0].1,
        }
    }

    pub(crate) fn is_late(&self, bid: &Bid, time: Timestamp, lateness: u64) -> bool {
        self.is_closed(bid.at, time, lateness)
    }

    /// Whether a row of `at` is late when the watermark is at `time`.
    pub(crate) fn is_closed(&self, at: Timestamp, time: Timestamp, lateness: u64) -> bool {
        self.edge_after(at) + i128::from(lateness) <= i128::from(time.micros())
    }
}

const HALF_HOUR: i64 = 1_800_000_000;

/// 2024-01-01T00:00:00Z.
pub(crate) const YEAR_2024: i64 = 1_704_067_200_000_000;

/// Where units of the calendar begin around the year 2024, found by walking: at each step the clocks are looked at.
fn edges(unit: &'static str, zone: &'static str) -> Vec<i64> {
    type Known = HashMap<(&'static str, &'static str), Vec<i64>>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let walk = || {
        let tz: Tz = zone.parse().unwrap();
        let unit_of = |time: i64| {
            let date = DateTime::from_timestamp_micros(time).unwrap().with_timezone(&tz).date_naive();
            match unit {
                "day" => (date.year(), date.ordinal()),
                "week" => (date.iso_week().year(), date.iso_week().week()),
                "month" => (date.year(), date.month()),
                _ => (date.year(), 0),
            }
        };
        let steps = YEAR_2024 / HALF_HOUR - 48 * 380..YEAR_2024 / HALF_HOUR + 48 * 750;
        let times: Vec<i64> = steps.map(|n| n * HALF_HOUR).collect();
        times.windows(2).filter(|pair| unit_of(pair[0]) != unit_of(pair[1])).map(|pair| pair[1]).collect()
    };
    KNOWN.lock().unwrap().entry((unit, zone)).or_insert_with(walk).clone()
}

/// What is done with the windows, and how rows arrive.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) rows: Vec<Bid>,
    pub(crate) key: &'static [&'static str],
    /// The greatest so many rows, or aggregates.
    pub(crate) top: Option<usize>,
    pub(crate) phases: Phases,
    pub(crate) lateness: u64,
    pub(crate) bound: u64,
    /// Whether rows come beyond the bound.
    pub(crate) beyond: bool,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phases {
    One,
    Two,
    /// Two, but one with one task.
    TwoOrOne,
}

/// Cases with spans of time in units of `unit` microseconds.
pub(crate) fn some_cases(times: impl Strategy<Value = i64> + Clone, unit: u64) -> impl Strategy<Value = Case> {
    let span = move |most: u64| prop_oneof![Just(0u64), (0..most).prop_map(move |n| n * unit)];
    let phases = prop::sample::select(vec![Phases::One, Phases::Two, Phases::TwoOrOne]);
    let key = prop::sample::select(KEYS.to_vec());
    let top = prop::option::weighted(0.4, 1usize..4);
    let drawn = (some_bids(times), key, top, phases, span(30), span(25), any::<bool>(), any::<u64>());
    drawn.prop_map(|(rows, key, top, phases, lateness, bound, beyond, seed)| Case {
        rows,
        key,
        top,
        phases,
        lateness,
        bound,
        beyond,
        seed,
    })
}

/// Holds windows of this shape against their definition.
pub(crate) fn check(shape: &Shape, case: &Case) -> Result<(), String> {
    check_few(shape, case, 12, 1..=usize::MAX)
}

/// The same in fewer rounds, with batches of so many rows.
pub(crate) fn check_few(
    shape: &Shape,
    case: &Case,
    rounds: u8,
    batch_rows: RangeInclusive<usize>,
) -> Result<(), String> {
    let window = shape.window().allowed_lateness(us(case.lateness));
    let windows = |time| shape.windows_of(time);
    if let Some(n) = case.top {
        let plan = TopPlan::new(&bids(), case.key, window, n, "price").map_err(|error| error.to_string())?;
        let shapes = [false, true].map(|two| top::pipeline(&plan, case.key, two));
        let check = arrivals(case, shapes).rounds(rounds).batch_rows(batch_rows);
        return hold(shape, case, &check, |rows| top::oracle_of(rows, case.key, n, windows));
    }
    let plan = AggregatePlan::new(&bids(), case.key, window, &aggregate::aggregates());
    let plan = plan.map_err(|error| error.to_string())?;
    let shapes = [false, true].map(|two| aggregate::pipeline(&plan, case.key, two));
    let check = arrivals(case, shapes).rounds(rounds).batch_rows(batch_rows);
    hold(shape, case, &check, |rows| aggregate::oracle_of(rows, case.key, windows))
}

fn arrivals<'a>(case: &Case, [one, two]: [Pipeline<'a>; 2]) -> Check<'a> {
    let check = match case.phases {
        Phases::One => Check::new(one),
        Phases::Two => Check::new(two),
        Phases::TwoOrOne => Check::new(two).one_task(one),
    };
    let check = check.out_of_order(us(case.bound)).seed(case.seed);
    // Not in two phases: see late.rs.
    if case.beyond && case.phases == Phases::One { check.fall_idle() } else { check }
}

fn hold(shape: &Shape, case: &Case, check: &Check<'_>, oracle: impl Fn(&[Bid]) -> Vec<Row>) -> Result<(), String> {
    if !case.beyond {
        return check.run(&case.rows, oracle);
    }
    let is_late = |bid: &Bid, time| shape.is_late(bid, time, case.lateness);
    check.run_beyond_bound(&case.rows, is_late, oracle).map(|_| ())
}

/// Rows by window and key.
pub(crate) fn groups<'a>(
    rows: &'a [Bid],
    key: &[&str],
    windows: impl Fn(Timestamp) -> Vec<Bounds>,
) -> BTreeMap<(Bounds, Vec<Value>), Vec<&'a Bid>> {
    let mut groups: BTreeMap<_, Vec<&Bid>> = BTreeMap::new();
    for bid in rows {
        for window in windows(bid.at) {
            groups.entry((window, key_of(bid, key))).or_default().push(bid);
        }
    }
    groups
}

/// As much of a window as there is.
pub(crate) fn cut((start, end): Bounds) -> (i64, i64) {
    let cut = |time: i128| time.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (cut(start), cut(end))
}

/// As if it were not cut off.
pub(crate) fn wide((start, end): (i64, i64)) -> Bounds {
    (start.into(), end.into())
}

/// Bids, simply.
pub(crate) fn bid(auction: i64, price: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(price), at: Timestamp::from_micros(at) }
}

/// That rows were late: else the checks above would be empty.
pub(crate) fn late_rows(shape: &Shape, rows: &[Bid], top: Option<usize>) -> usize {
    let is_late = |bid: &Bid, time| shape.is_late(bid, time, 0);
    match top {
        Some(n) => {
            let plan = TopPlan::new(&bids(), &["auction"], shape.window(), n, "price").unwrap();
            let check = Check::new(top::pipeline(&plan, &["auction"], false)).out_of_order(us(5));
            let oracle = |rows: &[Bid]| top::oracle_of(rows, &["auction"], n, |time| shape.windows_of(time));
            check.run_beyond_bound(rows, is_late, oracle).unwrap()
        }
        None => {
            let plan = AggregatePlan::new(&bids(), &["auction"], shape.window(), &aggregate::aggregates()).unwrap();
            let check = Check::new(aggregate::pipeline(&plan, &["auction"], true)).out_of_order(us(5));
            let oracle = |rows: &[Bid]| aggregate::oracle_of(rows, &["auction"], |time| shape.windows_of(time));
            check.run_beyond_bound(rows, is_late, oracle).unwrap()
        }
    }
}
