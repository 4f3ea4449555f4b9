//! A job drawn from a seed, what is done to it, and what its output must be.
//!
//! ```text
//!   job     := input step* fork ending
//!   input   := numbers | numbers united with fewer numbers of another source     at a rate, in 1 to 4 splits
//!   step    := leave some out | multiply
//!   fork    := - | the rows to a second topic, too
//!   ending  := rows | tumbling windows by key
//!   life    := after some time: crash | put to sleep, and woken when another has taken its place | stop
//! ```
//!
//! What is right is found by a naive loop over the numbers, which shares nothing with the engine.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use windrow::{Restarts, arrow::datatypes::DataType, cast, connectors::Untyped, prelude::*};

use super::{
    simulated::{Settings, Simulated},
    targets::Target,
};

/// Where results go, and where the rows of a fork.
pub const RESULTS: &str = "results";
pub const ROWS: &str = "rows";

pub const JOB: &str = "numbers";

#[derive(Record)]
pub struct Number {
    pub value: i64,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    LeaveOut { of: i64, rest: i64 },
    Multiply(i64),
}

#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Rows,
    /// `size` in milliseconds of event time; a number is one later than the one before.
    Windows {
        keys: i64,
        size: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Crash,
    /// It does not get on for a while, without noticing.
    Sleep,
    Stop,
}

#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub parallelism: usize,
    pub after: Duration,
    pub end: End,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub numbers: i64,
    pub splits: usize,
    /// Those of a second source, or none.
    pub others: i64,
    pub other_splits: usize,
    /// Numbers a second.
    pub rate: u64,
    pub steps: Vec<Step>,
    pub fork: bool,
    pub ending: Ending,
    pub interval: Duration,
    pub partitions: usize,
    pub lives: Vec<Life>,
    /// Of the last life.
    pub parallelism: usize,
    pub settings: Settings,
}

/// How many values there are in each window by key, and their sum, in the columns of a target: start, key, number, sum.
pub fn windows<T: 'static>(rows: Stream<T>, keys: i64, size: Duration) -> Stream<Untyped> {
    rows.select([(col("value") % lit(keys)).alias("key"), col("value")])
        .key_by("key")
        .window(Tumbling::of(size))
        .aggregate([count().alias("n"), sum(col("value")).alias("total")])
        .drop_late()
        .select([
            cast(col("window_start"), DataType::Int64).alias("a"),
            col("key").alias("b"),
            col("n").alias("c"),
            col("total").alias("d"),
        ])
}

impl Scenario {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6b61_666b);
        let numbers = random.i64(1..600);
        let rate = random.u64(100..3_000);
        // About as long as it runs undisturbed, and longer.
        let most = (numbers.unsigned_abs() * 1_500 / rate).max(20);
        let steps = (0..random.usize(0..3)).map(|_| match random.bool() {
            true => Step::LeaveOut { of: random.i64(2..5), rest: random.i64(0..2) },
            false => Step::Multiply(random.i64(1..4)),
        });
        let steps = steps.collect();
        let ending = match random.u8(0..3) {
            0 => Ending::Rows,
            _ => Ending::Windows { keys: random.i64(1..20), size: random.i64(10..200) },
        };
        let count = random.usize(0..6);
        let lives = (0..count).map(|_| Life {
            parallelism: random.usize(1..5),
            // What one life has read and committed the next ones need not read.
            after: Duration::from_millis(random.u64(0..2 * most / count as u64)),
            end: [End::Crash, End::Crash, End::Crash, End::Sleep, End::Sleep, End::Stop][random.usize(0..6)],
        });
        let lives = lives.collect();
        let transaction_timeout = [10_000, 20_000, 60_000][random.usize(0..3)];
        let settings = Settings {
            seed,
            percent: random.u32(0..21),
            transaction_timeout,
            message_timeout: transaction_timeout - 500,
            request_timeout: transaction_timeout / [50, 100, 200][random.usize(0..3)],
            queue_bytes: [300, 2_000, 100_000][random.usize(0..3)],
            batch: random.usize(10..60),
            ..Settings::default()
        };
        Self {
            seed,
            numbers,
            splits: random.usize(1..5),
            rate,
            steps,
            fork: random.u8(0..3) == 0,
            ending,
            interval: Duration::from_millis(random.u64(5..200)),
            partitions: random.usize(1..4),
            lives,
            parallelism: random.usize(1..5),
            settings,
            others: if random.u8(0..3) == 0 { random.i64(1..=numbers) } else { 0 },
            other_splits: random.usize(1..4),
        }
    }

    /// Nothing is done to it, and nothing to requests.
    pub fn undisturbed(mut self) -> Self {
        self.lives.clear();
        self.settings.percent = 0;
        self
    }

    pub fn cluster(&self) -> Simulated {
        let cluster = Simulated::new(self.settings);
        for topic in self.topics() {
            cluster.create(topic, self.partitions);
        }
        cluster
    }

    pub fn topics(&self) -> Vec<&'static str> {
        if self.fork { vec![RESULTS, ROWS] } else { vec![RESULTS] }
    }

    /// The job as a process of the cluster runs it.
    pub fn job<T: Target>(&self, store: &str, parallelism: usize, target: &T, process: &Simulated) -> Job {
        let job = Job::new(JOB).parallelism(parallelism).channel_bytes(5_000);
        let read = |numbers: i64, splits| {
            let numbers = Sequence::new(numbers.unsigned_abs()).splits(splits).rate(self.rate).batch_rows(16);
            job.source(numbers).event_time("at", Watermarks::in_order()).fail_on_rejects()
        };
        let rows = match self.others {
            0 => read(self.numbers, self.splits),
            others => read(self.numbers, self.splits).union(read(others, self.other_splits)),
        };
        let rows = rows.typed();
        let rows = self.steps.iter().fold(rows, |rows: Stream<Number>, step| match *step {
            Step::LeaveOut { of, rest } => rows.filter(move |number| number.value % of != rest),
            Step::Multiply(by) => rows.select([(col("value") * lit(by)).alias("value")]).typed(),
        });
        let connection = target.connect(process);
        if self.fork {
            rows.clone().select([col("value").alias("a")]).sink(T::sink(&connection, ROWS));
        }
        match self.ending {
            Ending::Rows => rows.select([col("value").alias("a")]).sink(T::sink(&connection, RESULTS)),
            Ending::Windows { keys, size } => {
                windows(rows, keys, Duration::from_millis(size.unsigned_abs())).sink(T::sink(&connection, RESULTS));
            }
        }
        let restarts = Restarts::at_most(100).waiting(Duration::from_millis(1)..=Duration::from_secs(2));
        job.checkpoint(store, self.interval).restarts(restarts)
    }

    /// The output: rows as text, values separated by `|`, sorted.
    pub fn right(&self) -> HashMap<&'static str, Vec<String>> {
        let mut rows = Vec::new();
        let mut windows: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
        for number in (0..self.numbers).chain(0..self.others) {
            let mut value = Some(number);
            for step in &self.steps {
                value = value.and_then(|value| match *step {
                    Step::LeaveOut { of, rest } => (value % of != rest).then_some(value),
                    Step::Multiply(by) => Some(value * by),
                });
            }
            let Some(value) = value else { continue };
            rows.push(value.to_string());
            if let Ending::Windows { keys, size } = self.ending {
                // Number n is n milliseconds late in 1970.
                let (n, total) = windows.entry((number / size * size * 1_000, value % keys)).or_default();
                *n += 1;
                *total += value;
            }
        }
        rows.sort_unstable();
        let mut results: Vec<String> =
            windows.iter().map(|((start, key), (n, total))| format!("{start}|{key}|{n}|{total}")).collect();
        results.sort_unstable();
        let results = if matches!(self.ending, Ending::Rows) { rows.clone() } else { results };
        HashMap::from([(RESULTS, results), (ROWS, rows)])
    }
}
