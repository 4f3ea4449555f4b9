//! Queries as one would write them by hand: Arrow's kernels, or loops over columns with a hash map for each window.
//!
//! They do what the query asks and no more: in order, no state that could be saved. As a job they find the time that
//! each batch has come to, close what is over, and give results as columns.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, Scalar, StringViewArray},
        compute::{
            and, cast, filter_record_batch, interleave_record_batch,
            kernels::{
                cmp::eq,
                numeric::{mul, rem},
            },
            max,
        },
        datatypes::{DataType, Int64Type, TimestampMicrosecondType},
        error::ArrowError,
    },
    prelude::Timestamp,
};

use super::{Input, Tally, tally};

type Map<V> = HashMap<i64, V, foldhash::fast::FixedState>;
type Set = HashSet<i64, foldhash::fast::FixedState>;
type Result<T> = std::result::Result<T, ArrowError>;

/// In microseconds.
const TEN_SECONDS: i64 = 10_000_000;
const SLICE: i64 = 2_000_000;
const SLICES: i64 = TEN_SECONDS / SLICE;

fn number(value: i64) -> Scalar<ArrayRef> {
    Scalar::new(Arc::new(Int64Array::from(vec![value])))
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> &'a [i64] {
    batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>()).map_or(&[], |it| it.values())
}

fn times(batch: &RecordBatch) -> &[i64] {
    let column = batch.column_by_name("at").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.map_or(&[], |column| column.values())
}

/// The time that the stream has come to: what a watermark is made of.
fn latest(batch: &RecordBatch) -> Option<i64> {
    batch.column_by_name("at").and_then(|at| max(at.as_primitive::<TimestampMicrosecondType>()))
}

/// Where the bids are.
fn is_bid(batch: &RecordBatch) -> Result<BooleanArray> {
    eq(batch.column(0), &number(2))
}

/// All columns that are read but `kind`, of the bids.
fn bids(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns: Vec<usize> = (1..batch.num_columns()).collect();
    filter_record_batch(&batch.project(&columns)?, &is_bid(batch)?)
}

fn each(batches: &[RecordBatch], of: impl Fn(&RecordBatch) -> Result<RecordBatch>) -> Result<Tally> {
    let (mut total, mut watermark) = ([0; 2], i64::MIN);
    for batch in batches {
        watermark = watermark.max(latest(batch).unwrap_or(i64::MIN));
        tally(&mut total, &of(batch)?);
    }
    std::hint::black_box(watermark);
    Ok(total)
}

pub(crate) fn q0(input: &Input) -> Result<Tally> {
    each(&input.mixed_wide, bids)
}

pub(crate) fn q1(input: &Input) -> Result<Tally> {
    let rate = Scalar::new(Arc::new(Float64Array::from(vec![0.908])) as ArrayRef);
    each(&input.mixed_wide, |batch| {
        let bids = bids(batch)?;
        let mut columns = bids.columns().to_vec();
        columns[2] = mul(&cast(&columns[2], &DataType::Float64)?, &rate)?;
        RecordBatch::try_from_iter(["auction", "bidder", "price", "at", "extra"].into_iter().zip(columns))
    })
}

pub(crate) fn q2(input: &Input) -> Result<Tally> {
    each(&input.mixed_narrow, |batch| {
        let chosen = eq(&rem(batch.column(1), &number(123))?, &number(0))?;
        filter_record_batch(&batch.project(&[1, 2])?, &and(&is_bid(batch)?, &chosen)?)
    })
}

/// A map for each slice of two seconds; at each end the last five are brought together.
pub(crate) fn q5(input: &Input) -> Result<Tally> {
    let mut slices: BTreeMap<i64, Map<i64>> = BTreeMap::new();
    let (mut total, mut next) = ([0; 2], None);
    for batch in &input.bids {
        let (auctions, times) = (numbers(batch, "auction"), times(batch));
        let mut row = 0;
        while row < times.len() {
            let slice = times[row].div_euclid(SLICE);
            let counts = slices.entry(slice).or_default();
            while row < times.len() && times[row].div_euclid(SLICE) == slice {
                *counts.entry(auctions[row]).or_default() += 1;
                row += 1;
            }
        }
        let now = times.last().map_or(i64::MIN, |time| time.div_euclid(SLICE));
        let first = *next.get_or_insert(times.first().map_or(now, |time| time.div_euclid(SLICE)));
        for closed in first..now {
            hottest(&mut slices, closed, &mut total)?;
        }
        next = next.max(Some(now));
    }
    let last = slices.keys().next_back().copied().unwrap_or_default();
    for closed in next.unwrap_or(last)..last + SLICES {
        hottest(&mut slices, closed, &mut total)?;
    }
    Ok(total)
}

/// The auctions with most bids in the window that ends with the slice `closed`, whose first slice nobody needs any more.
fn hottest(slices: &mut BTreeMap<i64, Map<i64>>, closed: i64, total: &mut Tally) -> Result<()> {
    let mut window = slices.range(..=closed).map(|(_, counts)| counts);
    let Some(largest) = window.next() else { return Ok(()) };
    let mut counts = largest.clone();
    for slice in window {
        slice.iter().for_each(|(auction, count)| *counts.entry(*auction).or_default() += count);
    }
    let most = counts.values().copied().max().unwrap_or_default();
    let hot: Vec<(i64, i64)> = counts.into_iter().filter(|(_, count)| *count == most).collect();
    let (auctions, bids): (Vec<i64>, Vec<i64>) = hot.into_iter().unzip();
    let columns = [("auction", auctions), ("bids", bids)];
    let columns = columns.map(|(name, values)| (name, Arc::new(Int64Array::from(values)) as ArrayRef));
    tally(total, &RecordBatch::try_from_iter(columns)?);
    slices.remove(&(closed - SLICES + 1));
    Ok(())
}

/// The rows with the highest price so far, by batch and row.
pub(crate) fn q7(input: &Input) -> Result<Tally> {
    let (mut total, mut best, mut highest, mut window) = ([0; 2], Vec::new(), i64::MIN, i64::MIN);
    let batches: Vec<&RecordBatch> = input.bids.iter().collect();
    let mut give = |best: &mut Vec<(usize, usize)>| {
        if !best.is_empty() {
            tally(&mut total, &interleave_record_batch(&batches, best)?);
            best.clear();
        }
        Ok::<_, ArrowError>(())
    };
    for (number, batch) in batches.iter().enumerate() {
        let (prices, times) = (numbers(batch, "price"), times(batch));
        let mut row = 0;
        while row < times.len() {
            let of_row = times[row].div_euclid(TEN_SECONDS);
            if of_row != window {
                give(&mut best)?;
                (window, highest) = (of_row, i64::MIN);
            }
            // In order: all rows of the window that are in the batch.
            let end = row + times[row..].partition_point(|time| *time < (window + 1) * TEN_SECONDS);
            let top = prices[row..end].iter().copied().max().unwrap_or(i64::MIN);
            if top >= highest {
                if top > highest {
                    best.clear();
                }
                highest = top;
                best.extend((row..end).filter(|row| prices[*row] == top).map(|row| (number, row)));
            }
            row = end;
        }
    }
    give(&mut best)?;
    Ok(total)
}

/// Who has registered and who has sold in a window.
#[derive(Default)]
struct Seen<'a> {
    /// Names by id.
    persons: Map<&'a str>,
    sellers: Set,
}

#[derive(Default)]
struct Sites<'a>(BTreeMap<i64, Seen<'a>>);

impl<'a> Sites<'a> {
    /// Returns the first window that is not over after these.
    fn add(&mut self, persons: &'a RecordBatch, auctions: &RecordBatch) -> i64 {
        let names = persons.column(1).as_string_view();
        for (row, (id, time)) in numbers(persons, "id").iter().zip(times(persons)).enumerate() {
            self.0.entry(time.div_euclid(TEN_SECONDS)).or_default().persons.insert(*id, names.value(row));
        }
        for (seller, time) in numbers(auctions, "seller").iter().zip(times(auctions)) {
            self.0.entry(time.div_euclid(TEN_SECONDS)).or_default().sellers.insert(*seller);
        }
        latest(persons).min(latest(auctions)).map_or(i64::MIN, |time| time.div_euclid(TEN_SECONDS))
    }

    fn take_before(&mut self, window: i64) -> BTreeMap<i64, Seen<'a>> {
        let open = self.0.split_off(&window);
        std::mem::replace(&mut self.0, open)
    }
}

pub(crate) fn q8(input: &Input) -> Result<Tally> {
    let (mut total, mut sites) = ([0; 2], Sites::default());
    for (persons, auctions) in input.persons.iter().zip(&input.auctions) {
        let now = sites.add(persons, auctions);
        sites.take_before(now).iter().try_for_each(|(window, seen)| newcomers(*window, seen, &mut total))?;
    }
    sites.0.iter().try_for_each(|(window, seen)| newcomers(*window, seen, &mut total))?;
    Ok(total)
}

/// Each thread takes every other batch; who closes a window second puts what both have seen together and gives the result.
pub(crate) fn q8_on_two_threads<'a>(input: &'a Input) -> Result<Tally> {
    let met: Mutex<BTreeMap<i64, Seen<'a>>> = Mutex::default();
    // What the other thread has seen of a window, or nothing, when it still will.
    let meet = |window: i64, seen| {
        let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
        match met.remove(&window) {
            Some(other) => Some((seen, other)),
            None => {
                met.insert(window, seen);
                None
            }
        }
    };
    let thread = |parity: usize| -> Result<Tally> {
        let (mut total, mut sites) = ([0; 2], Sites::default());
        let mut close = |over: BTreeMap<i64, Seen<'a>>| -> Result<()> {
            for (window, seen) in over {
                if let Some((own, other)) = meet(window, seen) {
                    newcomers(window, &together(own, other), &mut total)?;
                }
            }
            Ok(())
        };
        for (persons, auctions) in input.persons.iter().zip(&input.auctions).skip(parity).step_by(2) {
            let now = sites.add(persons, auctions);
            close(sites.take_before(now))?;
        }
        close(sites.take_before(i64::MAX))?;
        Ok(total)
    };
    let [mut total, other] = std::thread::scope(|scope| -> Result<_> {
        let other = scope.spawn(|| thread(1));
        let own = thread(0)?;
        Ok([own, other.join().unwrap_or(Ok([0; 2]))?])
    })?;
    (total[0], total[1]) = (total[0] + other[0], total[1].wrapping_add(other[1]));
    // Windows that only one thread has seen.
    let left = met.into_inner().unwrap_or_else(PoisonError::into_inner);
    left.iter().try_for_each(|(window, seen)| newcomers(*window, seen, &mut total))?;
    Ok(total)
}

fn together<'a>(a: Seen<'a>, b: Seen<'a>) -> Seen<'a> {
    let (mut large, small) = if a.sellers.len() >= b.sellers.len() { (a, b) } else { (b, a) };
    large.persons.extend(small.persons);
    large.sellers.extend(small.sellers);
    large
}

fn newcomers(window: i64, seen: &Seen<'_>, total: &mut Tally) -> Result<()> {
    let new = seen.persons.iter().filter(|(id, _)| seen.sellers.contains(id));
    let (ids, names): (Vec<i64>, Vec<&str>) = new.map(|(id, name)| (*id, *name)).unzip();
    let starts = Timestamp::column(vec![window * TEN_SECONDS; ids.len()]);
    let columns = [
        ("id", Arc::new(Int64Array::from(ids)) as ArrayRef),
        ("name", Arc::new(StringViewArray::from(names))),
        ("window_start", starts),
    ];
    tally(total, &RecordBatch::try_from_iter(columns)?);
    Ok(())
}
