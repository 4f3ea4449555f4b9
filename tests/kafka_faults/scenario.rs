//! A job drawn from a seed, and its input. Both the job process and the naive batch computation begin from this, and share nothing
//! else.
//!
//! ```text
//!   seeds that are odd:
//!   in, 1–4 partitions ──► event time ──► filter ──┬──► rows
//!        │                                         └──► key by user ──► windows ──► answers
//!        └── 1 % garbage ─────────────────────────────────────────────────────────► dead letters
//!
//!   seeds that are even:
//!   in   ──► event time ──► filter ──┬── union ──► rows
//!   more ──► event time ─────────────┼───┘
//!     │                              └── join of rows of one user that are near each other ──► answers
//!     └── 1 % garbage of both ─────────────────────────────────────────────────────────────► dead letters
//! ```

use std::time::Duration;

use tests::broker::Message;

/// Events begin here: 2026-01-01, in microseconds since 1970.
const BEGIN: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;

/// What the job reads, without the name of the job.
pub(crate) const IN: &str = "in";
/// What it reads too if it joins.
pub(crate) const MORE: &str = "more";

/// A job and its input.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Of the first topic that is read.
    pub(crate) partitions: usize,
    /// There is a second one.
    pub(crate) join: Option<Join>,
    /// Of the topics that are written.
    pub(crate) rows_partitions: usize,
    pub(crate) answers_partitions: usize,
    /// How far out of order the rows of a partition come, in microseconds.
    pub(crate) bound: i64,
    /// The length of a window, in microseconds.
    pub(crate) window: i64,
    /// The filter keeps amounts that leave another remainder.
    pub(crate) divisor: i64,
    pub(crate) but: i64,
    /// Whether the records of the topics have keys.
    pub(crate) keyed: bool,
    /// Between two checkpoints.
    pub(crate) interval: Duration,
    pub(crate) batch_rows: usize,
    pub(crate) records: Vec<Input>,
    /// From one row to the next, in microseconds.
    step: i64,
    users: i64,
    /// No row of `records` is later.
    latest: i64,
}

/// Which rows of two topics belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Join {
    /// Of the second topic.
    pub(crate) partitions: usize,
    /// How much earlier, in microseconds, the row of the second topic may be.
    pub(crate) before: i64,
    /// And how much later.
    pub(crate) after: i64,
}

/// A record of the input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) topic: &'static str,
    partition: i32,
    key: Option<String>,
    value: Option<Vec<u8>>,
}

impl Input {
    pub(crate) fn message(&self) -> Message {
        let message = self.value.clone().map_or_else(Message::null, Message::of).partition(self.partition);
        match &self.key {
            Some(key) => message.key(key.as_str()),
            None => message,
        }
    }

    /// Whether it belongs into one of the first so many partitions of the first topic.
    pub(crate) fn is_in(&self, partitions: usize) -> bool {
        self.topic == IN && usize::try_from(self.partition).is_ok_and(|partition| partition < partitions)
    }
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let random = &mut random;
        let divisor = random.i64(2..7);
        let mut scenario = Self {
            partitions: random.usize(1..=4),
            join: None,
            rows_partitions: random.usize(1..=3),
            answers_partitions: random.usize(1..=2),
            bound: random.i64(0..60) * SECOND,
            window: random.i64(5..600) * SECOND,
            divisor,
            but: random.i64(0..divisor),
            keyed: random.bool(),
            interval: Duration::from_millis(random.u64(30..250)),
            batch_rows: random.usize(1..500),
            records: Vec::new(),
            step: 0,
            users: 0,
            latest: BEGIN,
        };
        let count = random.i64(600..2500);
        (scenario.step, scenario.users) = (random.i64(1..3 * SECOND), random.i64(1..30));
        let begins: Vec<i64> = (0..scenario.partitions).map(|_| BEGIN + random.i64(0..600) * SECOND).collect();
        scenario.records = scenario.input(random, IN, 0..count, scenario.step, &begins);
        if seed.is_multiple_of(2) {
            scenario.add_topic(random, count);
        }
        scenario
    }

    /// A second topic, with a third as many rows over the same time, about two of which a row of the first has for partners.
    fn add_topic(&mut self, random: &mut fastrand::Rng, count: i64) {
        let (partitions, step) = (random.usize(1..=3), 3 * self.step);
        let reach = 2 * step * self.users;
        self.join = Some(Join { partitions, before: random.i64(0..=reach), after: random.i64(0..=reach) });
        let begins: Vec<i64> = (0..partitions).map(|_| BEGIN + random.i64(0..600) * SECOND - count * step).collect();
        let more = self.input(random, MORE, count..count + count / 3, step, &begins);
        // They come side by side.
        let mut more = more.into_iter();
        for (number, record) in (1..).zip(std::mem::take(&mut self.records)) {
            self.records.push(record);
            self.records.extend(if number % 3 == 0 { more.next() } else { None });
        }
        self.records.extend(more);
    }

    /// The topics that the job reads, and how many partitions they have.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, usize)> {
        let more = self.join.map(|join| (MORE, join.partitions));
        [(IN, self.partitions)].into_iter().chain(more).collect()
    }

    /// More partitions, and so many more records, for all of them. They are later than all before: for the new partitions too none is
    /// late. They are returned, and belong to the input from now on.
    pub(crate) fn grow(&mut self, random: &mut fastrand::Rng, partitions: usize, count: usize) -> Vec<Input> {
        self.partitions += partitions;
        let (begin, first) = (self.latest + self.bound, self.records.len() as i64);
        // A row is at its number of steps behind the begin.
        let begins = vec![begin - first * self.step; self.partitions];
        let more = self.input(random, IN, first..first + count as i64, self.step, &begins);
        self.records.extend(more.iter().cloned());
        more
    }

    /// Rows within the bound in each partition, so that none is late; the partitions are apart in time.
    fn input(
        &mut self,
        random: &mut fastrand::Rng,
        topic: &'static str,
        ids: std::ops::Range<i64>,
        step: i64,
        begins: &[i64],
    ) -> Vec<Input> {
        let mut records = Vec::new();
        for id in ids {
            let partition = random.usize(0..begins.len());
            let disorder = if self.bound == 0 { 0 } else { random.i64(0..=self.bound) };
            let at = begins[partition] + id * step - disorder;
            self.latest = self.latest.max(at);
            let (user, amount) = (random.i64(0..self.users), random.i64(-1_000..1_000));
            let row = format!("{{\"id\":{id},\"user\":{user},\"amount\":{amount},\"at\":{at}}}");
            let value = if random.u8(0..100) == 0 { garbage(random, &row) } else { Some(row.into_bytes()) };
            let key = random.bool().then(|| format!("user {user}"));
            records.push(Input { topic, partition: partition as i32, key, value });
        }
        records
    }
}

fn garbage(random: &mut fastrand::Rng, row: &str) -> Option<Vec<u8>> {
    match random.u8(0..6) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some((0..random.usize(1..200)).map(|_| random.u8(128..)).collect()),
        3 => Some(row.as_bytes()[..random.usize(1..row.len())].to_vec()),
        4 => Some(row.replace("\"amount\":", "\"amount\":\"many\",\"other\":").into_bytes()),
        _ => Some(row.replace("\"id\":", "\"di\":").into_bytes()),
    }
}
