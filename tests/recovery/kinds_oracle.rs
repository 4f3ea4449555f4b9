//! The right answers of [`Kind`], computed over all rows at once with loops over sorted rows.

use std::collections::{BTreeMap, BTreeSet};

use windrow::prelude::Timestamp;

use super::{
    kinds::{HIGH, Kind, LOW, chained, link},
    oracle::{Rows, sorted, text},
    scenario::Click,
};

type Key = (i64, i64);

fn user(click: &Click) -> Key {
    (click.user, 0)
}

fn user_and_shop(click: &Click) -> Key {
    (click.user, click.shop)
}

/// The rows of each key, in order of time and then of their columns.
fn by(rows: &[Click], key: fn(&Click) -> Key) -> BTreeMap<Key, Vec<&Click>> {
    let mut rows: Vec<&Click> = rows.iter().collect();
    rows.sort_by_key(|click| (click.at, click.user, click.shop, click.amount));
    let mut keys: BTreeMap<Key, Vec<&Click>> = BTreeMap::new();
    for click in rows {
        keys.entry(key(click)).or_default().push(click);
    }
    keys
}

fn at(time: i64) -> Timestamp {
    Timestamp::from_micros(time)
}

impl Kind {
    /// What comes out of `rows`.
    pub fn right(&self, rows: &[Click]) -> Rows {
        sorted(match *self {
            Self::Sessions { gap } => sessions(rows, gap),
            Self::Hopping { size, slide } => hopping(rows, size, slide),
            Self::Near { before, after, left, greater } => near(rows, before, after, left, greater),
            Self::AsOf { left, ttl } => as_of(rows, left, ttl),
            Self::Streaks { gap, .. } => streaks(rows, gap),
            Self::First { within, .. } => firsts(rows, within),
            Self::Rise { within, every } => rises(rows, within, every),
            Self::Calm { within } => calms(rows, within),
            Self::Totals => totals(rows),
            Self::ByUser { gap, near } => by_user(rows, gap, near),
            Self::Latest => by(rows, user_and_shop).values().map(|of| text(of[of.len() - 1])).collect(),
        })
    }
}

fn window(start: i64, end: i64, of: &[&Click]) -> String {
    let total: i64 = of.iter().map(|click| click.amount).sum();
    let most = of.iter().map(|click| click.shop).max().unwrap_or_default();
    format!("{}|{}|{}|{}|{total}|{most}", at(start), at(end), of[0].user, of.len())
}

fn sessions(rows: &[Click], gap: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        for session in of.chunk_by(|a, b| b.time() - a.time() < gap) {
            found.push(window(session[0].time(), session[session.len() - 1].time() + gap, session));
        }
    }
    found
}

fn hopping(rows: &[Click], size: i64, slide: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        let holds = |start: i64, time: i64| start <= time && time < start + size;
        let back = |time: i64| (0..=size / slide).map(move |back| (time.div_euclid(slide) - back) * slide);
        let starts: BTreeSet<i64> = of.iter().flat_map(|click| back(click.time())).collect();
        for start in starts {
            let first = of.partition_point(|click| click.time() < start);
            let inside: Vec<&Click> =
                of[first..].iter().take_while(|click| holds(start, click.time())).copied().collect();
            if !inside.is_empty() {
                found.push(window(start, start + size, &inside));
            }
        }
    }
    found
}

fn near(rows: &[Click], before: i64, after: i64, left: bool, greater: bool) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user_and_shop).values() {
        for click in of {
            let first = of.partition_point(|other| other.time() < click.time() - before);
            let inside = of[first..].iter().take_while(|other| other.time() <= click.time() + after);
            let partners: Vec<&&Click> = inside.filter(|other| !greater || click.amount < other.amount).collect();
            found.extend(partners.iter().map(|other| format!("{}|{}|{}", text(click), other.amount, other.at)));
            if left && partners.is_empty() {
                found.push(format!("{}|null|null", text(click)));
            }
        }
    }
    found
}

fn as_of(rows: &[Click], left: bool, ttl: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        for click in of {
            let passed = of.partition_point(|other| other.time() <= click.time());
            let version = of[..passed].iter().rfind(|other| other.shop % 2 == 0);
            match version.filter(|version| ttl == 0 || click.time() - version.time() <= ttl) {
                Some(version) => {
                    found.push(format!("{}|{}|{}|{}", text(click), version.shop, version.amount, version.at));
                }
                None if left => found.push(format!("{}|null|null|null", text(click))),
                None => {}
            }
        }
    }
    found
}

fn streaks(rows: &[Click], gap: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        for streak in of.chunk_by(|a, b| b.time() - a.time() < gap) {
            let chain = streak.iter().fold(0, |chain, click| chained(chain, click.amount));
            found.push(format!("{}|{}|{}|{chain}", streak[0].user, streak[0].at, streak.len()));
        }
    }
    found
}

fn firsts(rows: &[Click], within: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user_and_shop).values() {
        let mut kept: Option<i64> = None;
        for click in of {
            if kept.is_none_or(|kept| click.time() > kept + within) {
                kept = Some(click.time());
                found.push(text(click));
            }
        }
    }
    found
}

fn rises(rows: &[Click], within: i64, every: bool) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        let mut next = 0;
        while next < of.len() {
            let low = of[next];
            next += 1;
            if low.amount >= LOW {
                continue;
            }
            let high = of[next..].iter().position(|click| click.amount > HIGH).map(|high| next + high);
            if let Some(place) = high.filter(|high| of[*high].time() - low.time() < within) {
                let high = of[place];
                found.push(format!("{}|{}|{}|{}|{}", low.user, low.at, high.at, low.amount, high.amount));
                next = if every { next } else { place + 1 };
            }
        }
    }
    found
}

fn calms(rows: &[Click], within: i64) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        for (place, low) in of.iter().enumerate().filter(|(_, click)| click.amount < LOW) {
            let mut behind = of[place + 1..].iter().take_while(|click| click.time() - low.time() < within);
            if !behind.any(|click| click.amount > HIGH) {
                found.push(format!("{}|{}|{}", low.user, low.at, low.amount));
            }
        }
    }
    found
}

fn totals(rows: &[Click]) -> Rows {
    let total = |of: &Vec<&Click>| {
        let total: i64 = of.iter().map(|click| click.amount).sum();
        let most = of.iter().map(|click| click.shop).max().unwrap_or_default();
        format!("{}|{}|{total}|{most}|{}", of[0].user, of.len(), of[0].at)
    };
    by(rows, user).values().map(total).collect()
}

fn by_user(rows: &[Click], gap: i64, near: Option<i64>) -> Rows {
    let mut found = Vec::new();
    for of in by(rows, user).values() {
        let even: Vec<&Click> = of.iter().filter(|click| click.shop % 2 == 0).copied().collect();
        let newest = |time: i64| even.iter().rfind(|click| click.time() <= time).map(|click| click.amount);
        // When, of what amount, and whether there is a partner.
        let mut joined: Vec<(i64, i64, bool)> = Vec::new();
        for click in of.iter().filter(|click| click.amount > LOW) {
            let Some(near) = near else {
                joined.push((click.time(), click.amount, newest(click.time()).is_some()));
                continue;
            };
            let partners = even.iter().filter(|other| (other.time() - click.time()).abs() <= near);
            let before = joined.len();
            joined.extend(partners.map(|other| (other.time().max(click.time()), click.amount, true)));
            if joined.len() == before {
                joined.push((click.time(), click.amount, false));
            }
        }
        joined.sort_unstable();
        let mut chains: BTreeMap<i64, i64> = BTreeMap::new();
        for session in joined.chunk_by(|a, b| b.0 - a.0 < gap) {
            let (total, had) =
                (session.iter().map(|row| row.1).sum(), session.iter().filter(|row| row.2).count() as i64);
            let chain = chains.entry(had).or_default();
            *chain = link(*chain, total, had, newest(session[session.len() - 1].0 + gap - 1));
            found.push(format!("{}|{chain}", of[0].user));
        }
    }
    found
}
