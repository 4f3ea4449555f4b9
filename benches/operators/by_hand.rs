//! The loops that one would write by hand, for rows that are in order of event time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque, hash_map::Entry},
};

use benches::{WINDOW_MICROS, columns};
use windrow::arrow::array::RecordBatch;

use crate::{Checksum, keep};

/// Microseconds without a row that end a session.
pub(crate) const GAP: i64 = 300_000;
/// Rows in a count window.
pub(crate) const COUNT: u64 = 16;
/// Microseconds within which a row of the same key is dropped.
pub(crate) const WITHIN: i64 = 100_000;
/// Microseconds that rows may come too late, where they do.
pub(crate) const DISORDER: i64 = 1_000_000;
/// How many rows of a window are kept, over all auctions and of each.
pub(crate) const TOP: usize = 10;
pub(crate) const TOP_PER_KEY: usize = 3;
/// A price below this is low, one above [`HIGH`] is high.
pub(crate) const LOW: i64 = 300;
pub(crate) const HIGH: i64 = 1_000_000;

type Map<V> = HashMap<i64, V, foldhash::fast::FixedState>;

#[derive(Clone, Copy)]
struct Totals {
    count: i64,
    sum: i64,
    max: i64,
}

impl Totals {
    fn of(price: i64) -> Self {
        Self { count: 1, sum: price, max: price }
    }

    fn add(&mut self, other: Self) {
        *self = Self { count: self.count + other.count, sum: self.sum + other.sum, max: self.max.max(other.max) };
    }
}

/// Results, in columns.
#[derive(Default)]
struct Results {
    columns: Vec<Vec<i64>>,
    total: Checksum,
}

impl Results {
    /// A row, of which the value in `summed` is summed.
    fn push<const N: usize>(&mut self, row: [i64; N], summed: usize) {
        self.columns.resize_with(N, Vec::new);
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value);
        }
        self.total = (self.total.0 + 1, self.total.1.wrapping_add(row[summed]));
    }

    /// A batch of results goes on.
    fn flush(&mut self) {
        if self.columns.first().is_some_and(|column| !column.is_empty()) {
            keep(std::mem::take(&mut self.columns));
        }
    }
}

fn each(batches: &[RecordBatch], mut row: impl FnMut(i64, i64, i64, &mut Results)) -> Checksum {
    let mut results = Results::default();
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        for i in 0..times.len() {
            row(auctions[i], prices[i], times[i], &mut results);
        }
        results.flush();
    }
    results.total
}

/// A map per slice of two seconds; a window of ten adds five of them up.
pub(crate) fn hopping(batches: &[RecordBatch]) -> Checksum {
    const SLIDE: i64 = 2_000_000;
    let mut slices: BTreeMap<i64, Map<Totals>> = BTreeMap::new();
    // The window that is next to close, by the number of its last slice.
    let mut next = None;
    let mut results = Results::default();
    let mut close = |slices: &mut BTreeMap<i64, Map<Totals>>, next: &mut Option<i64>, until: i64| {
        while let Some(last) = next.filter(|last| *last < until && slices.range(last - 4..).next().is_some()) {
            let mut window: Map<Totals> = Map::default();
            for slice in slices.range(last - 4..=last).map(|(_, slice)| slice) {
                for (auction, totals) in slice {
                    window.entry(*auction).and_modify(|into| into.add(*totals)).or_insert(*totals);
                }
            }
            for (auction, Totals { count, sum, max }) in window {
                results.push([(last - 4) * SLIDE, (last + 1) * SLIDE, auction, count, sum, max], 4);
            }
            results.flush();
            slices.remove(&(last - 4));
            *next = Some(last + 1);
        }
    };
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        let mut i = 0;
        while i < times.len() {
            let number = times[i].div_euclid(SLIDE);
            next.get_or_insert(number);
            let slice = slices.entry(number).or_default();
            while i < times.len() && times[i] < (number + 1) * SLIDE {
                let one = Totals::of(prices[i]);
                slice.entry(auctions[i]).and_modify(|totals| totals.add(one)).or_insert(one);
                i += 1;
            }
        }
        let time = times.last().copied().unwrap_or(i64::MIN);
        close(&mut slices, &mut next, time.div_euclid(SLIDE));
    }
    close(&mut slices, &mut next, i64::MAX);
    results.total
}

/// The dearest rows of a window: price, time and auction, the cheapest of them on top of the heap.
type Dearest = BinaryHeap<Reverse<(i64, Reverse<i64>, Reverse<i64>)>>;

/// The `n` dearest bids of ten seconds, of each key.
fn dearest(batches: &[RecordBatch], n: usize, key: impl Fn(i64) -> i64) -> Checksum {
    let mut open: BTreeMap<i64, Map<Dearest>> = BTreeMap::new();
    let mut results = Results::default();
    let mut close = |open: &mut BTreeMap<i64, Map<Dearest>>, until: i64| {
        while let Some(window) = open.first_entry().filter(|window| *window.key() < until) {
            let (window, groups) = window.remove_entry();
            for group in groups.into_values() {
                for (rank, Reverse((price, Reverse(auction), Reverse(at)))) in (1..).zip(group.into_sorted_vec()) {
                    let (start, end) = (window * WINDOW_MICROS, (window + 1) * WINDOW_MICROS);
                    results.push([start, end, rank, auction, price, at], 4);
                }
            }
            results.flush();
        }
        results.total
    };
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        for i in 0..times.len() {
            let groups = open.entry(times[i].div_euclid(WINDOW_MICROS)).or_default();
            let group = groups.entry(key(auctions[i])).or_default();
            let row = Reverse((prices[i], Reverse(auctions[i]), Reverse(times[i])));
            if group.len() < n {
                group.push(row);
            } else if group.peek().is_some_and(|least| row < *least) {
                group.pop();
                group.push(row);
            }
        }
        close(&mut open, times.last().copied().unwrap_or(i64::MIN).div_euclid(WINDOW_MICROS));
    }
    close(&mut open, i64::MAX)
}

/// The dearest bids of ten seconds.
pub(crate) fn top(batches: &[RecordBatch]) -> Checksum {
    dearest(batches, TOP, |_| 0)
}

/// The dearest bids of ten seconds on each auction.
pub(crate) fn top_per_key(batches: &[RecordBatch]) -> Checksum {
    dearest(batches, TOP_PER_KEY, |auction| auction)
}

/// The sessions that are open, and a queue that looks at each when it may be over.
#[derive(Default)]
struct Sessions {
    open: Map<(i64, i64, Totals)>,
    queue: VecDeque<(i64, i64)>,
    results: Results,
}

impl Sessions {
    fn add(&mut self, auction: i64, price: i64, time: i64) {
        let one = Totals::of(price);
        match self.open.entry(auction) {
            Entry::Occupied(mut session) if time < session.get().1 + GAP => {
                let (_, latest, totals) = session.get_mut();
                *latest = time;
                totals.add(one);
            }
            Entry::Occupied(mut session) => {
                let (start, latest, Totals { count, sum, max }) = session.insert((time, time, one));
                self.results.push([start, latest + GAP, auction, count, sum, max], 4);
            }
            Entry::Vacant(session) => {
                session.insert((time, time, one));
                self.queue.push_back((time + GAP, auction));
            }
        }
    }

    fn close(&mut self, time: i64) {
        while self.queue.front().is_some_and(|(over, _)| *over <= time) {
            let Some((_, auction)) = self.queue.pop_front() else { break };
            let Entry::Occupied(session) = self.open.entry(auction) else { continue };
            let (start, latest, Totals { count, sum, max }) = *session.get();
            if latest + GAP <= time {
                session.remove();
                self.results.push([start, latest + GAP, auction, count, sum, max], 4);
            } else {
                // Looked at again one gap later: a little late, but once.
                self.queue.push_back((time + GAP, auction));
            }
        }
        self.results.flush();
    }
}

/// Sessions of an auction.
pub(crate) fn session(batches: &[RecordBatch]) -> Checksum {
    let mut sessions = Sessions::default();
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        for i in 0..times.len() {
            sessions.add(auctions[i], prices[i], times[i]);
        }
        sessions.close(times.last().copied().unwrap_or(i64::MIN));
    }
    while !sessions.open.is_empty() {
        sessions.close(i64::MAX - GAP);
    }
    sessions.results.total
}

/// A result for every sixteen bids of an auction, and one for what is left at the end.
pub(crate) fn count_window(batches: &[RecordBatch]) -> Checksum {
    let mut open: Map<(i64, Totals)> = Map::default();
    let (rows, sums) = each(batches, |auction, price, time, results| {
        let (first, totals) = open
            .entry(auction)
            .and_modify(|(_, totals)| totals.add(Totals::of(price)))
            .or_insert_with(|| (time, Totals::of(price)));
        if totals.count == COUNT as i64 {
            results.push([*first, time, auction, totals.count, totals.sum, totals.max], 4);
            open.remove(&auction);
        }
    });
    (rows, sums)
}

/// The rows by time, of which some come [`DISORDER`] too late.
pub(crate) fn sort(batches: &[RecordBatch]) -> Checksum {
    let mut waiting: Vec<(i64, i64, i64)> = Vec::new();
    let (mut latest, mut results) = (i64::MIN, Results::default());
    let mut leave = |waiting: &mut Vec<(i64, i64, i64)>, time: i64| {
        waiting.sort_unstable();
        let rest = waiting.split_off(waiting.partition_point(|row| row.0 < time));
        for (time, auction, price) in std::mem::replace(waiting, rest) {
            results.push([auction, price, time], 1);
        }
        results.flush();
    };
    for batch in batches {
        let (auctions, prices, times) = columns(batch);
        waiting.extend((0..times.len()).map(|i| (times[i], auctions[i], prices[i])));
        latest = latest.max(times.iter().copied().max().unwrap_or(i64::MIN));
        leave(&mut waiting, latest - DISORDER);
    }
    leave(&mut waiting, i64::MAX);
    results.total
}

/// The running total of an auction, at every sixteenth bid.
pub(crate) fn fold(batches: &[RecordBatch]) -> Checksum {
    let mut state: Map<(i64, i64)> = Map::default();
    each(batches, |auction, price, time, results| {
        let (bids, total) = state.entry(auction).or_default();
        (*bids, *total) = (*bids + 1, *total + price);
        if *bids % 16 == 0 {
            results.push([auction, *total, time], 1);
        }
    })
}

/// The first bid on an auction in a tenth of a second.
pub(crate) fn deduplicate(batches: &[RecordBatch]) -> Checksum {
    let mut seen: Map<i64> = Map::default();
    each(batches, |auction, price, time, results| {
        let last = seen.entry(auction).or_insert(i64::MIN);
        if *last == i64::MIN || time - *last > WITHIN {
            *last = time;
            results.push([auction, price, time], 1);
        }
    })
}

/// A low price and a high one within a second of it.
pub(crate) fn pattern(batches: &[RecordBatch]) -> Checksum {
    let mut begun: Map<i64> = Map::default();
    each(batches, |auction, price, time, results| {
        if price > HIGH
            && let Some(start) = begun.remove(&auction)
            && time - start < 1_000_000
        {
            results.push([start, time, auction, price], 3);
        } else if price < LOW {
            let start = begun.entry(auction).or_insert(time);
            if time - *start >= 1_000_000 {
                *start = time;
            }
        }
    })
}

/// The totals of the auctions of a batch.
pub(crate) fn totals(batches: &[RecordBatch]) -> Checksum {
    let mut state: Map<(Totals, usize)> = Map::default();
    let mut results = Results::default();
    let mut touched: Vec<i64> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let (auctions, prices, _) = columns(batch);
        for (auction, price) in auctions.iter().zip(prices) {
            let none = (Totals { count: 0, sum: 0, max: i64::MIN }, usize::MAX);
            let (totals, last) = state.entry(*auction).or_insert(none);
            totals.add(Totals::of(*price));
            if std::mem::replace(last, number) != number {
                touched.push(*auction);
            }
        }
        for auction in touched.drain(..) {
            let Totals { count, sum, max } = state[&auction].0;
            results.push([auction, count, sum, max], 2);
        }
        results.flush();
    }
    results.total
}

/// The newest bid on the auctions of a batch; of several at one time the one with the highest price.
pub(crate) fn latest(batches: &[RecordBatch]) -> Checksum {
    let mut state: Map<((i64, i64), usize)> = Map::default();
    let mut results = Results::default();
    let mut touched: Vec<i64> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let (auctions, prices, times) = columns(batch);
        for (i, auction) in auctions.iter().enumerate() {
            let (newest, last) = state.entry(*auction).or_insert(((i64::MIN, 0), usize::MAX));
            if (times[i], prices[i]) > *newest {
                *newest = (times[i], prices[i]);
                if std::mem::replace(last, number) != number {
                    touched.push(*auction);
                }
            }
        }
        for auction in touched.drain(..) {
            let (time, price) = state[&auction].0;
            results.push([auction, price, time], 1);
        }
        results.flush();
    }
    results.total
}
