//! More windows at once: rows that are spread over many open windows, and rows that are in many overlapping ones.
//!
//! ```text
//!   tumbling:  a row lies anywhere in the next 1, 4, 16 windows of 10 s, so that so many are open
//!   hopping:   windows of 2, 8, 32 s every 2 s, so that a row is in 1, 4, 16 of them
//! ```
//!
//! Both have 10,000 keys. By hand `tumbling` is a map per window; `hopping` is a map per two seconds, of which a window adds up what is
//! in it. Both sides are compared. The bytes are those of a key in a window; hopping windows share the slices that they are made of.

use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
    time::Duration,
};

use benches::{BATCH_ROWS, Checksum, HandWritten, WINDOW_MICROS, columns, median, rows};
use windrow::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::Int64Type,
    },
    operators::{Plan, Result, StreamSchema, window::AggregatePlan},
    prelude::*,
};

use crate::{Alone, Check, ROUNDS, ROWS, batch, nanos, timed};

const KEYS: i64 = 10_000;
/// Microseconds from one row to the next.
const EVERY: i64 = 10;
const SLIDE: i64 = 2_000_000;

/// Batches, each with the time that no later row is before.
type Input = Vec<(RecordBatch, i64)>;

/// Rows that may be as much before those behind them as `spread`, in microseconds.
fn input(rows: u64, spread: i64) -> Input {
    let mut random = fastrand::Rng::with_seed(2);
    let mut one = |first: u64| {
        let times = (first..rows.min(first + BATCH_ROWS as u64)).map(|row| row as i64 * EVERY);
        let times: Vec<i64> = times.map(|time| time + random.i64(0..spread.max(1))).collect();
        let keys = times.iter().map(|_| random.i64(0..KEYS)).collect();
        let prices = times.iter().map(|_| random.i64(1..1_000_000)).collect();
        (batch(keys, prices, times), (first + BATCH_ROWS as u64) as i64 * EVERY)
    };
    (0..rows).step_by(BATCH_ROWS).map(&mut one).collect()
}

fn add(total: &mut Checksum, batch: &RecordBatch) {
    total[0] += batch.num_rows() as i64;
    for i in 0..3 {
        total[i + 1] += batch.column(3 + i).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
}

/// The results, the time they took, and the most bytes that were held after a batch.
fn operator(plan: &AggregatePlan, input: &Input) -> Result<(Checksum, Duration, usize)> {
    let (mut total, mut time, mut bytes) = ([0; 4], Duration::ZERO, 0);
    let mut take = |batch: &RecordBatch| add(&mut total, batch);
    let mut alone = Alone::new(Plan::whole(plan)?, &mut take);
    for (batch, watermark) in input {
        timed(&mut time, || alone.process(batch.clone(), *watermark))?;
        bytes = bytes.max(alone.operator.size());
    }
    timed(&mut time, || alone.advance(Timestamp::MAX))?;
    Ok((total, time, bytes))
}

fn tumbling_by_hand(input: &Input) -> Checksum {
    let mut windows = HandWritten::default();
    for (batch, watermark) in input {
        let (keys, prices, times) = columns(batch);
        windows.add(keys, prices, times);
        windows.advance(*watermark);
    }
    windows.advance(i64::MAX);
    windows.checksum()
}

type Slice = HashMap<i64, [i64; 3], foldhash::fast::FixedState>;

/// Adds a row or the figures of a slice.
fn join(slice: &mut Slice, key: i64, [count, sum, max]: [i64; 3]) {
    let into = slice.entry(key).or_insert([0, 0, i64::MIN]);
    *into = [into[0] + count, into[1] + sum, into[2].max(max)];
}

/// Every window adds up its `slices`.
fn hopping_by_hand(input: &Input, slices: i64) -> Checksum {
    let mut open: BTreeMap<i64, Slice> = BTreeMap::new();
    let mut next = None;
    let mut total = [0; 4];
    let mut close = |open: &mut BTreeMap<i64, Slice>, next: &mut Option<i64>, until: i64| {
        while let Some(end) = next.filter(|last| *last < until && !open.is_empty()) {
            let mut window = Slice::default();
            for slice in open.range(end - slices + 1..=end).map(|(_, slice)| slice) {
                slice.iter().for_each(|(key, figures)| join(&mut window, *key, *figures));
            }
            let mut columns: [Vec<i64>; 6] = std::array::from_fn(|_| Vec::with_capacity(window.len()));
            for (key, [count, sum, max]) in window {
                let row = [(end - slices + 1) * SLIDE, (end + 1) * SLIDE, key, count, sum, max];
                columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            }
            total[0] += columns[0].len() as i64;
            (1..4).for_each(|i| total[i] += columns[i + 2].iter().sum::<i64>());
            black_box(columns);
            open.remove(&(end - slices + 1));
            *next = Some(end + 1);
        }
        total
    };
    for (batch, watermark) in input {
        let (keys, prices, times) = columns(batch);
        for i in 0..times.len() {
            let number = times[i].div_euclid(SLIDE);
            next.get_or_insert(number);
            join(open.entry(number).or_default(), keys[i], [1, prices[i], prices[i]]);
        }
        close(&mut open, &mut next, watermark.div_euclid(SLIDE));
    }
    close(&mut open, &mut next, i64::MAX)
}

/// A kind of window, and how to have so many of them at once.
struct Case {
    name: &'static str,
    window: fn(i64) -> Window,
    spread: fn(i64) -> i64,
    by_hand: fn(&Input, i64) -> Checksum,
}

const CASES: [Case; 2] = [
    Case {
        name: "tumbling window",
        window: |_| Tumbling::of(Duration::from_micros(WINDOW_MICROS as u64)),
        spread: |windows| windows * WINDOW_MICROS,
        by_hand: |input, _| tumbling_by_hand(input),
    },
    Case {
        name: "hopping window",
        window: |windows| {
            Hopping::of(Duration::from_micros((SLIDE * windows) as u64), Duration::from_micros(SLIDE as u64))
        },
        spread: |_| 0,
        by_hand: hopping_by_hand,
    },
];

/// Prints the table.
pub(crate) fn run(check: &mut Check) {
    let rows = rows(ROWS);
    println!("\n{:16} {:>10} {:>10} {:>10} {:>15}", "operator", "windows", "ns per row", "by hand", "bytes per group");
    for Case { name, window, spread, by_hand } in CASES {
        let mut former = None;
        for windows in [1, 4, 16] {
            let input = input(rows, spread(windows));
            let totals = [count(), sum(col("price")), max(col("price"))];
            let plan = StreamSchema::with_time(input[0].0.schema(), "at")
                .and_then(|stream| AggregatePlan::new(&stream, &["key"], window(windows), &totals))
                .unwrap_or_else(|error| unreachable!("{name}: {error}"));
            let [mut engine, mut hand] = [Vec::new(), Vec::new()];
            let mut most = 0;
            for _ in 0..ROUNDS {
                let mut time = Duration::ZERO;
                let expected = timed(&mut time, || by_hand(&input, windows));
                hand.push(nanos(time, rows));
                let (total, time, bytes) = operator(&plan, &input).unwrap_or_else(|e| unreachable!("{name}: {e}"));
                assert_eq!(total, expected, "{name}, {windows} windows");
                engine.push(nanos(time, rows));
                most = bytes;
            }
            let (engine, hand) = (median(&engine), median(&hand));
            let bytes = most as f64 / (windows * KEYS) as f64;
            println!("{name:16} {windows:>10} {engine:10.1} {hand:10.1} {bytes:15.0}");
            if let Some((before, hand_before)) = former.replace((engine, hand)) {
                check.step(&format!("{name}, {windows} at once"), (before, engine), (hand_before, hand));
            }
        }
    }
}
