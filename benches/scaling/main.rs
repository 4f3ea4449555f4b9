//! Does the cost of a row stay when there is more of everything? More live keys, more open windows, more splits.
//!
//! ```text
//!   [`keys`]     10 k … 10 M live keys       each operator with a state per key      ns per row, bytes per key
//!   [`windows`]  1, 4, 16 windows at once    tumbling out of order, and hopping      ns per row, bytes per group
//!   [`splits`]   10, 100, 1,000 splits       a whole job                             ns per row
//! ```
//!
//! A loop written by hand does the same beside it: what becomes slower there too is the memory of the machine, not the engine. A
//! *cliff* is a step from one size to the next at which a row becomes more than twice as expensive, beyond what the step does to the
//! loop. The last line says whether there is one.
//!
//! Not a criterion bench: what counts is how figures follow from size to size. `WINDROW_BENCH_ROWS` says how many rows are measured
//! (4 million), `WINDROW_BENCH_KEYS` the greatest number of keys (10 million). `-- keys`, `-- windows` or `-- splits` run a part.

mod keys;
mod splits;
mod windows;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use windrow::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    operators::{Advance, Operator, Outbox, Port, Result},
    prelude::Timestamp,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: u64 = 4_000_000;
/// How often each size is measured. The median counts.
const ROUNDS: usize = 3;
/// By how much a row may become more expensive at a step.
const CLIFF: f64 = 2.0;

/// How figures follow each other.
#[derive(Default)]
struct Check {
    steps: usize,
    cliffs: Vec<String>,
}

impl Check {
    /// A step from one size to the next: nanoseconds by the engine and by hand, before and after it.
    fn step(&mut self, what: &str, engine: (f64, f64), by_hand: (f64, f64)) {
        self.steps += 1;
        let (grown, memory) = (engine.1 / engine.0, (by_hand.1 / by_hand.0).max(1.0));
        if grown / memory > CLIFF {
            self.cliffs.push(format!("{what}: {grown:.1} times as much for a row, by hand {memory:.1} times"));
        }
    }

    fn print(&self) {
        match &self.cliffs[..] {
            [] => println!("scaling: no cliff worse than {CLIFF}x beyond cache effects, in {} steps", self.steps),
            cliffs => {
                println!("scaling: {} of {} steps are cliffs worse than {CLIFF}x:", cliffs.len(), self.steps);
                cliffs.iter().for_each(|cliff| println!("  {cliff}"));
            }
        }
    }
}

/// Rows of key, price and time.
fn batch(keys: Vec<i64>, prices: Vec<i64>, times: Vec<i64>) -> RecordBatch {
    let columns: [(_, ArrayRef); 3] = [
        ("key", Arc::new(Int64Array::from(keys))),
        ("price", Arc::new(Int64Array::from(prices))),
        ("at", Timestamp::column(times)),
    ];
    RecordBatch::try_from_iter(columns).unwrap_or_else(|error| unreachable!("{error}"))
}

/// An operator, called from a loop.
struct Alone<'a> {
    operator: Box<dyn Operator>,
    out: Outbox,
    /// What is done with results.
    take: &'a mut dyn FnMut(&RecordBatch),
}

impl<'a> Alone<'a> {
    fn new(operator: Box<dyn Operator>, take: &'a mut dyn FnMut(&RecordBatch)) -> Self {
        Self { operator, out: Outbox::new(), take }
    }

    fn drain(&mut self) {
        self.out.drain().for_each(|(_, batch)| (self.take)(&batch));
    }

    /// Gives it rows, and then the time.
    fn process(&mut self, batch: RecordBatch, time: i64) -> Result<()> {
        self.operator.process(Port::MAIN, batch, &mut self.out)?;
        self.drain();
        self.advance(Timestamp::from_micros(time))
    }

    fn advance(&mut self, time: Timestamp) -> Result<()> {
        while self.operator.advance(time, &mut self.out)? == Advance::Again {
            self.drain();
        }
        self.drain();
        Ok(())
    }
}

/// Adds how long `run` takes to `total`.
fn timed<T>(total: &mut Duration, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = run();
    *total += began.elapsed();
    result
}

/// Nanoseconds for each of so many rows.
fn nanos(time: Duration, rows: u64) -> f64 {
    time.as_secs_f64() * 1e9 / rows.max(1) as f64
}

fn main() {
    let mut check = Check::default();
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, run) in [("keys", keys::run as fn(&mut Check)), ("windows", windows::run), ("splits", splits::run)] {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            run(&mut check);
        }
    }
    check.print();
}
