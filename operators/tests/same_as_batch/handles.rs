//! Maps and lists of a key against loops with maps and vectors of their own: the rows in order of event time, restarts,
//! any number of tasks; and faults that are planted into what is restored, and caught.

use std::collections::{BTreeSet, HashMap};

use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use proptest::prelude::*;
use typed_arrow::prelude::*;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    keyed::{Keyed, ListState, MapState, NoSide, Process, ProcessPlan, Timer},
    sort::SortPlan,
    state::{StateReader, StateWriter},
    testing::{Check, Pipeline},
};

use crate::{
    bids::{Bid, BidView, bids, cases, fail, some_bids, us},
    process_in_order::{behind_a_sort, by_key},
    sort::sorted,
};

/// How long a key lives, and when after a row its timer comes.
const TTL: i64 = 9;
const LATER: i64 = 5;

/// Does with a map and a list what the price says, and tells all that is in them, at each row and some time after it.
#[derive(Clone)]
struct Book {
    sums: MapState<(String, i64), i64>,
    last: ListState<i64>,
    /// A fault: an entry is there again after a clear.
    one_survives: bool,
}

const BOOK: Book = Book { sums: MapState::new("sums"), last: ListState::new("last"), one_survives: false };

#[derive(Record)]
struct Told {
    auction: i64,
    at: Timestamp,
    what: String,
}

impl Book {
    fn tell(&self, auction: i64, key: &mut Keyed<'_, Self>) {
        let sums: Vec<_> = key.map(&self.sums).iter().collect();
        let last = key.list(&self.last);
        let (backwards, len): (Vec<_>, _) = (last.iter().rev().collect(), last.len());
        let last: Vec<_> = (0..=len).filter_map(|at| last.get(at)).collect();
        key.emit(Told { auction, at: key.time(), what: what(&sums, &last, &backwards, len) });
    }
}

fn what(sums: &[((String, i64), i64)], last: &[i64], backwards: &[i64], len: usize) -> String {
    format!("{sums:?} {last:?} {backwards:?} {len}")
}

impl Process for Book {
    type Row = Bid;
    type State = ();
    type Output = Told;
    type Side = NoSide;

    fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
        let (price, who) = (bid.price.unwrap_or(0), bid.who.unwrap_or("nobody").to_string());
        let entry = (who, price.rem_euclid(3));
        if price % 13 == 0 {
            let survivor = key.map(&self.sums).iter().next();
            key.clear();
            if let Some((entry, sum)) = survivor.filter(|_| self.one_survives) {
                key.map(&self.sums).insert(&entry, sum);
            }
        }
        let mut sums = key.map(&self.sums);
        match price.rem_euclid(7) {
            0 => sums.clear(),
            1 => assert_eq!(sums.contains(&entry), sums.remove(&entry)),
            _ => sums.insert(&entry, sums.get(&entry).unwrap_or(0) + price),
        }
        let mut last = key.list(&self.last);
        match price.rem_euclid(11) {
            0 => last.clear(),
            1 => assert_eq!(last.get(0), last.pop_front()),
            2 => assert_eq!(last.len().checked_sub(1).and_then(|at| last.get(at)), last.pop()),
            3 => drop(last.set(1, -price)),
            _ => last.push(price),
        }
        key.set_timer(key.time() + us(LATER as u64));
        self.tell(bid.auction, key);
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let auction = key.key();
        self.tell(auction, key);
    }
}

/// The same by hand, over the rows of one key.
#[derive(Default)]
struct ByHand {
    sums: HashMap<(String, i64), i64>,
    last: Vec<i64>,
    timers: BTreeSet<i64>,
}

impl ByHand {
    fn what(&self) -> String {
        let mut sums: Vec<_> = self.sums.iter().map(|(entry, sum)| (entry.clone(), *sum)).collect();
        sums.sort();
        let backwards: Vec<_> = self.last.iter().rev().copied().collect();
        what(&sums, &self.last, &backwards, self.last.len())
    }

    fn row(&mut self, bid: &Bid) {
        let price = bid.price.unwrap_or(0);
        if price % 13 == 0 {
            *self = Self::default();
        }
        let entry = (bid.who.clone().unwrap_or("nobody".into()), price.rem_euclid(3));
        match price.rem_euclid(7) {
            0 => self.sums.clear(),
            1 => drop(self.sums.remove(&entry)),
            _ => *self.sums.entry(entry).or_default() += price,
        }
        match price.rem_euclid(11) {
            0 => self.last.clear(),
            1 => drop(self.last.drain(..self.last.len().min(1))),
            2 => drop(self.last.pop()),
            3 => self.last.iter_mut().skip(1).take(1).for_each(|item| *item = -price),
            _ => self.last.push(price),
        }
        self.timers.insert(bid.at.micros() + LATER);
    }
}

fn told(rows: &[Bid], ttl: bool) -> Vec<(i64, i64, String)> {
    let mut told = Vec::new();
    for rows in by_key(rows, &["auction"]) {
        let (mut by_hand, mut latest, auction) = (ByHand::default(), i64::MIN, rows[0].auction);
        for bid in &rows {
            let at = bid.at.micros();
            while let Some(due) = by_hand.timers.pop_first() {
                if due > at {
                    by_hand.timers.insert(due);
                    break;
                }
                told.push((auction, due, by_hand.what()));
            }
            if ttl && at.saturating_sub(latest) > TTL {
                by_hand = ByHand::default();
            }
            by_hand.row(bid);
            latest = at;
            told.push((auction, at, by_hand.what()));
        }
        let left = std::mem::take(&mut by_hand.timers);
        told.extend(left.into_iter().map(|due| (auction, due, by_hand.what())));
    }
    told
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn maps_and_lists_are_those_of_a_loop(rows in some_bids(-60i64..60), ttl: bool, bound in 0u64..25, seed: u64) {
        let key = &["auction"];
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = ProcessPlan::new(&bids(), key, BOOK, ttl.then_some(us(TTL as u64))).unwrap().in_order();
        let check = Check::new(behind_a_sort(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| told(rows, ttl)).map_err(fail)?;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ForgetsTombstones,
    LosesEntries,
    TheOldestWins,
    MixesKeys,
    OneSurvivesClear,
    ForgetsTimeToLive,
}

struct Broken<O> {
    fault: Fault,
    operator: O,
}

fn keep(rows: &RecordBatch, keep: impl Fn(bool, bool) -> bool) -> RecordBatch {
    let valid = |name: &str| arrow::compute::is_not_null(rows.column_by_name(name).unwrap()).unwrap();
    let (entries, living) = (valid("handle"), valid("state"));
    let kept = (0..rows.num_rows()).map(|row| Some(keep(entries.value(row), living.value(row))));
    filter_record_batch(rows, &kept.collect::<BooleanArray>()).unwrap()
}

fn is_of_entries(rows: &RecordBatch) -> bool {
    rows.num_rows() > 0 && rows.column_by_name("handle").unwrap().is_valid(0)
}

/// Entries with the keys of other rows.
fn mixed(rows: &RecordBatch) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    let half = columns[1].len() / 2;
    let parts = [columns[1].slice(half, columns[1].len() - half), columns[1].slice(0, half)];
    columns[1] = arrow::compute::concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>()).unwrap();
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

impl<O: Operator> Operator for Broken<O> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        self.operator.process(port, batch, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.operator.advance(time, out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.operator.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let mut state = state.clone();
        for part in &mut state.parts {
            let mut entries: Vec<_> = part.segments.iter().filter(|(_, rows)| is_of_entries(rows)).cloned().collect();
            for (_, rows) in &mut part.segments {
                *rows = match self.fault {
                    Fault::ForgetsTombstones => keep(rows, |entry, living| !entry || living),
                    Fault::LosesEntries => keep(rows, |entry, _| !entry),
                    Fault::TheOldestWins if is_of_entries(rows) => entries.pop().unwrap().1,
                    Fault::MixesKeys if is_of_entries(rows) => mixed(rows),
                    _ => rows.clone(),
                };
            }
        }
        self.operator.load(&state)
    }
}

fn check(fault: Fault) -> Result<(), String> {
    let rows: Vec<Bid> = (0..240)
        .map(|i| Bid {
            auction: i * i % 11,
            who: Some(["ann", "bob", "cleo"][i as usize % 3].into()),
            price: Some(i * 31 % 97),
            at: Timestamp::from_micros(i),
        })
        .collect();
    let key = &["auction"];
    let sort = SortPlan::new(&bids(), key).unwrap();
    let ttl = (fault != Fault::ForgetsTimeToLive).then_some(us(TTL as u64));
    let book = Book { one_survives: fault == Fault::OneSurvivesClear, ..BOOK };
    let plan = ProcessPlan::new(&bids(), key, book, ttl).unwrap().in_order();
    let stage: Pipeline<'_> = sorted(&sort, key).stage(plan.output(), || Ok(Broken { fault, operator: plan.whole()? }));
    Check::new(stage).out_of_order(us(6)).seed(3).batch_rows(1..=12).run(&rows, |rows| told(rows, true))
}

#[test]
fn every_fault_is_caught() {
    use Fault::*;
    check(None).unwrap();
    for fault in [ForgetsTombstones, LosesEntries, TheOldestWins, MixesKeys] {
        let failure = check(fault).expect_err(&format!("{fault:?} was not caught"));
        assert!(!failure.contains("never restarted"), "{fault:?} is not a fault of saving: {failure}");
    }
    for fault in [OneSurvivesClear, ForgetsTimeToLive] {
        check(fault).expect_err(&format!("{fault:?} was not caught"));
    }
}
