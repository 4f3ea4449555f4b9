//! More live keys: every operator with a state per key, and one hash map by hand. For the tables that change, the loop gives the new
//! values of the keys of each batch too.
//!
//! ```text
//!   fill: every key once ──► update: random keys, a watermark after each batch ──► size ──► close: the end of all time
//! ```
//!
//! All rows lie in one window, and in one session of their key. A watermark that visits all live keys would be seen in `update`: there
//! is one for every 8,192 rows.

use std::{collections::HashMap, hint::black_box, time::Duration};

use benches::{BATCH_ROWS, amount, median, rows};
use windrow::{
    arrow::array::{AsArray, RecordBatch},
    arrow::datatypes::Int64Type,
    operators::{
        Plan, Result, StreamSchema,
        changes::{UpdatingPlan, UpsertPlan},
        keyed::{DedupPlan, ProcessPlan, fold},
        session::SessionPlan,
        window::AggregatePlan,
    },
    prelude::*,
};

use crate::{Alone, Check, ROUNDS, ROWS, batch, nanos, timed};

#[derive(Record)]
struct Priced {
    key: i64,
    price: i64,
}

#[derive(Record)]
struct Total {
    key: i64,
    total: i64,
}

/// Nanoseconds per row of each phase (of `close`, per key), and bytes per key.
#[derive(Clone, Copy)]
struct Costs {
    fill: f64,
    update: f64,
    close: f64,
    bytes: f64,
}

/// The rows of a run, the same for all sides.
struct Rows {
    keys: u64,
    updates: u64,
    random: fastrand::Rng,
    /// How many rows have been made. Each is a microsecond after the former.
    made: u64,
}

impl Rows {
    fn new(keys: u64, updates: u64) -> Self {
        Self { keys, updates, random: fastrand::Rng::with_seed(1), made: 0 }
    }
}

impl Iterator for Rows {
    /// Whether they fill, the rows, and the time of the last.
    type Item = (bool, RecordBatch, i64);

    fn next(&mut self) -> Option<Self::Item> {
        // A prime, so that every key comes once, and not one after the other.
        const STEP: u64 = 6_700_417;
        let fills = self.made < self.keys;
        let left = if fills { self.keys - self.made } else { self.keys + self.updates - self.made };
        let (first, rows) = (self.made, left.min(BATCH_ROWS as u64));
        let key = |row| if fills { row * STEP % self.keys } else { self.random.u64(..self.keys) };
        let keys: Vec<i64> = (first..first + rows).map(key).map(|key| key as i64).collect();
        let prices = keys.iter().map(|_| self.random.i64(1..1_000_000)).collect();
        self.made += rows;
        let times = (first as i64..self.made as i64).collect();
        (rows > 0).then(|| (fills, batch(keys, prices, times), self.made as i64 - 1))
    }
}

fn measure(plan: &dyn Plan, keys: u64, updates: u64) -> Result<Costs> {
    let mut results = 0;
    let mut take = |batch: &RecordBatch| results += black_box(batch).num_rows();
    let mut alone = Alone::new(plan.whole()?, &mut take);
    let [mut fill, mut update, mut close] = [Duration::ZERO; 3];
    for (fills, batch, time) in Rows::new(keys, updates) {
        timed(if fills { &mut fill } else { &mut update }, || alone.process(batch, time))?;
    }
    let bytes = alone.operator.size() as f64 / keys as f64;
    timed(&mut close, || alone.advance(Timestamp::MAX))?;
    black_box(results);
    Ok(Costs { fill: nanos(fill, keys), update: nanos(update, updates), close: nanos(close, keys), bytes })
}

/// Gives rows of key, count, sum and max as columns.
fn give(rows: impl Iterator<Item = (i64, [i64; 3])>) {
    let mut columns: [Vec<i64>; 4] = Default::default();
    for (key, [count, sum, max]) in rows {
        columns.iter_mut().zip([key, count, sum, max]).for_each(|(column, value)| column.push(value));
        if columns[0].len() == BATCH_ROWS {
            black_box(std::mem::take(&mut columns));
        }
    }
    black_box(columns);
}

/// Count, sum and max in a hash map, given at the end; with `changes` also those of the keys of each batch.
fn by_hand(keys: u64, updates: u64, changes: bool) -> Costs {
    // The last number is that of the batch that the key was in last.
    let mut map: HashMap<i64, ([i64; 3], usize), foldhash::fast::FixedState> = HashMap::default();
    let mut changed = Vec::new();
    let [mut fill, mut update, mut close] = [Duration::ZERO; 3];
    for (number, (fills, batch, _)) in Rows::new(keys, updates).enumerate() {
        timed(if fills { &mut fill } else { &mut update }, || {
            let [keys, prices] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>().values());
            for (key, price) in keys.iter().zip(prices) {
                let ([count, sum, max], last) = map.entry(*key).or_insert(([0, 0, i64::MIN], usize::MAX));
                (*count, *sum, *max) = (*count + 1, *sum + price, (*max).max(*price));
                if changes && std::mem::replace(last, number) != number {
                    changed.push(*key);
                }
            }
            give(changed.drain(..).map(|key| (key, map[&key].0)));
        });
    }
    let bytes = (map.capacity() * (size_of::<(i64, ([i64; 3], usize))>() + 1)) as f64 / keys as f64;
    timed(&mut close, || give(std::mem::take(&mut map).into_iter().map(|(key, (figures, _))| (key, figures))));
    Costs { fill: nanos(fill, keys), update: nanos(update, updates), close: nanos(close, keys), bytes }
}

/// The medians of some rounds.
fn rounds(mut run: impl FnMut() -> Costs) -> Costs {
    let costs: Vec<Costs> = (0..ROUNDS).map(|_| run()).collect();
    let of = |part: fn(&Costs) -> f64| median(&costs.iter().map(part).collect::<Vec<_>>());
    Costs { fill: of(|c| c.fill), update: of(|c| c.update), close: of(|c| c.close), bytes: of(|c| c.bytes) }
}

/// An operator, and whether it gives the changes of each batch.
type Subject = (&'static str, bool, Box<dyn Plan>);

fn subjects() -> Result<Vec<Subject>> {
    let input = StreamSchema::with_time(batch(vec![0], vec![0], vec![0]).schema(), "at")?;
    let (key, long) = (&["key"], hours(1_000));
    let totals = [count(), sum(col("price")), max(col("price"))];
    let total = fold::<Priced, i64, Total, _>(|total, row, out| {
        *total += row.price;
        if *total % 16 == 0 {
            out.emit(Total { key: row.key, total: *total });
        }
    });
    Ok(vec![
        ("tumbling window", false, Box::new(AggregatePlan::new(&input, key, Tumbling::of(long), &totals)?)),
        ("session", false, Box::new(SessionPlan::new(&input, key, Session::gap(long), &totals)?)),
        ("fold", false, Box::new(ProcessPlan::new(&input, key, total, None)?)),
        ("deduplicate", false, Box::new(DedupPlan::new(&input, key, long)?)),
        ("totals", true, Box::new(UpdatingPlan::new(&input, key, &totals, None)?)),
        ("latest", true, Box::new(UpsertPlan::new(&input, key, None, None)?)),
    ])
}

/// Prints the table.
pub(crate) fn run(check: &mut Check) {
    let most = amount("WINDROW_BENCH_KEYS", 10_000_000, 1_000);
    let sizes: Vec<u64> = [1_000, 100, 10, 1].map(|part| most / part).into_iter().filter(|keys| *keys > 0).collect();
    let updates = rows(ROWS);
    println!("\n{:16} {:>10} {:>27} {:>27} {:>15}", "", "", "ns per row", "by hand", "bytes per key");
    let phases = format!("{:>8} {:>9} {:>8}", "fill", "update", "close");
    println!("{:16} {:>10} {phases} {phases} {:>7} {:>7}", "operator", "live keys", "", "by hand");
    let [final_only, changing] = [false, true].map(|changes| -> Vec<Costs> {
        sizes.iter().map(|keys| rounds(|| by_hand(*keys, updates, changes))).collect()
    });
    for (name, changes, plan) in subjects().unwrap_or_else(|error| unreachable!("{error}")) {
        let mut former: Option<(Costs, Costs)> = None;
        for (keys, hand) in sizes.iter().zip(if changes { &changing } else { &final_only }) {
            let costs = || measure(plan.as_ref(), *keys, updates).unwrap_or_else(|e| unreachable!("{name}: {e}"));
            let costs = rounds(costs);
            let phases = |c: &Costs| format!("{:8.1} {:9.1} {:8.1}", c.fill, c.update, c.close);
            let (engine, by_hand) = (phases(&costs), phases(hand));
            println!("{name:16} {keys:>10} {engine} {by_hand} {:7.0} {:7.0}", costs.bytes, hand.bytes);
            if let Some((engine, by_hand)) = former {
                let mut step = |phase: &str, of: fn(&Costs) -> f64| {
                    let what = format!("{name}, {phase} of {keys} keys");
                    check.step(&what, (of(&engine), of(&costs)), (of(&by_hand), of(hand)));
                };
                step("fill", |costs| costs.fill);
                step("update", |costs| costs.update);
                step("close", |costs| costs.close);
            }
            former = Some((costs, *hand));
        }
    }
}
