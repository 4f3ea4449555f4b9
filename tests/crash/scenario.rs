//! A job drawn from a seed by a small grammar: sources, steps, an answer, sinks. Both the job process and the naive batch
//! computation begin from this description, and share nothing else.
//!
//! ```text
//!   1–3 sources of 1–4 files ── union ── 0–3 × (filter | map | flat map) ──┬── the rows themselves ──┬── 1–2 sinks
//!                                                                         └── window ─┬─ second ────┘
//!                                                                                     └─ late rows ──── a sink
//! ```

use std::time::Duration;

use super::input::{self, Row};

/// Events begin here: 2026-01-01 in microseconds, just before a change of hour, so that partitions by time differ.
const BEGIN: i64 = 1_767_225_600_000_000 + 3_000_000_000;
pub(crate) const SECOND: i64 = 1_000_000;

/// A job and its input.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) sources: Vec<Source>,
    /// How far out of order rows may come, in microseconds.
    pub(crate) bound: i64,
    pub(crate) steps: Vec<Step>,
    pub(crate) answer: Answer,
    pub(crate) outputs: Vec<Output>,
    /// Between two checkpoints.
    pub(crate) interval: Duration,
    pub(crate) channel_bytes: usize,
}

/// How rows are written, read and written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
    Parquet,
}

impl Format {
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Json => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// One source: its files are its splits.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) format: Format,
    pub(crate) files: Vec<Vec<Row>>,
    pub(crate) batch_rows: usize,
    /// Before each fetch, so that the job takes its time.
    pub(crate) pause: Duration,
}

/// What happens to one row at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// An expression: keeps amounts that leave another remainder.
    KeepAmounts { divisor: i64, but: i64 },
    /// A closure: keeps users who leave another remainder.
    KeepUsers { divisor: i64, but: i64 },
    /// An expression: multiplies amounts.
    Multiply { by: i64 },
    /// A closure: adds to amounts.
    Add { term: i64 },
    /// A closure: `copies` of each row, of users that follow each other. None of the users that are divisible by it.
    Copy { copies: i64 },
}

/// What is computed of the rows.
#[derive(Debug)]
pub(crate) enum Answer {
    Rows,
    /// Aggregates per key and window.
    Groups {
        key: Vec<&'static str>,
        size: i64,
        then: Option<Second>,
    },
    /// The rows with the greatest ids per key and window.
    Greatest {
        key: Vec<&'static str>,
        size: i64,
        n: usize,
    },
}

/// A window over the result of the first, of a size that is a multiple of the first.
#[derive(Debug)]
pub(crate) enum Second {
    /// The sums of the groups.
    Sums { key: Vec<&'static str>, size: i64 },
    /// The groups with the greatest ids.
    Greatest { key: Vec<&'static str>, size: i64, n: usize },
}

/// What a sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Answer,
    /// The rows that go into the answer.
    Rows,
    Late,
}

/// Into which directories a sink deals its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partitions {
    None,
    /// By a column.
    Column(&'static str),
    Hourly(&'static str),
    Daily(&'static str),
}

/// One sink.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) what: What,
    /// Below the place of the run. Two sinks may share one.
    pub(crate) directory: &'static str,
    pub(crate) format: Format,
    pub(crate) partitions: Partitions,
    pub(crate) roll_bytes: Option<u64>,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let random = &mut random;
        let is_late = random.u8(..4) == 0;
        let bound = random.i64(0..60) * SECOND;
        let sources = sources(random, bound, is_late);
        let steps = (0..random.usize(..4)).map(|_| step(random)).collect();
        let mut answer = answer(random);
        if is_late && matches!(answer, Answer::Rows) {
            answer = Answer::Groups { key: vec!["user"], size: 20 * SECOND, then: None };
        }
        let outputs = outputs(random, &answer, is_late);
        let interval = Duration::from_millis(random.u64(5..100));
        let channel_bytes = if random.u8(..4) == 0 { 1 } else { 1 << random.u32(10..20) };
        Self { sources, bound, steps, answer, outputs, interval, channel_bytes }
    }

    /// The rows of all sources.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sources.iter().flat_map(|source| source.files.iter().flatten())
    }
}

fn sources(random: &mut fastrand::Rng, bound: i64, is_late: bool) -> Vec<Source> {
    let count = random.usize(1..4);
    let mut next_id = 0;
    // How long a source takes when one task reads it.
    let span = Duration::from_millis(random.u64(80..280));
    let one = |_| {
        let files = random.usize(1..5);
        let files: Vec<Vec<Row>> = (0..files)
            .map(|_| {
                let rows = if random.u8(..12) == 0 { 0 } else { random.usize(5..900 / count / files + 10) };
                input::rows(random, &mut next_id, rows, BEGIN, bound, is_late)
            })
            .collect();
        let rows: usize = files.iter().map(Vec::len).sum();
        let pause = Duration::from_micros(random.u64(1_000..4_000));
        let fetches = (span.as_micros() / pause.as_micros()) as usize;
        let format = if random.bool() { Format::Json } else { Format::Csv };
        Source { format, files, batch_rows: rows.div_ceil(fetches.max(1)).max(1), pause }
    };
    (0..count).map(one).collect()
}

fn step(random: &mut fastrand::Rng) -> Step {
    let divisor = random.i64(2..6);
    let but = random.i64(0..divisor);
    match random.u8(..5) {
        0 => Step::KeepAmounts { divisor, but },
        1 => Step::KeepUsers { divisor, but },
        2 => Step::Multiply { by: random.i64(-3..4) },
        3 => Step::Add { term: random.i64(-50..50) },
        _ => Step::Copy { copies: random.i64(2..4) },
    }
}

fn key(random: &mut fastrand::Rng) -> Vec<&'static str> {
    match random.u8(..6) {
        0 => vec![],
        1 | 2 => vec!["user"],
        3 => vec!["country"],
        4 => vec!["user", "country"],
        _ => vec!["country", "user"],
    }
}

fn answer(random: &mut fastrand::Rng) -> Answer {
    let size = random.i64(5..600) * SECOND;
    let key = key(random);
    match random.u8(..8) {
        0 | 1 => Answer::Rows,
        2 => Answer::Greatest { key, size, n: random.usize(1..5) },
        3..=5 => Answer::Groups { key, size, then: None },
        _ => {
            let mut second = key.clone();
            second.truncate(random.usize(..=second.len()));
            let wide = size * random.i64(1..4);
            let then = match random.bool() {
                true => Second::Sums { key: second, size: wide },
                false => Second::Greatest { key: second, size: wide, n: random.usize(1..4) },
            };
            Answer::Groups { key, size, then: Some(then) }
        }
    }
}

fn outputs(random: &mut fastrand::Rng, answer: &Answer, is_late: bool) -> Vec<Output> {
    let formats = [Format::Json, Format::Csv, Format::Parquet];
    let one = |random: &mut fastrand::Rng, what, directory, format| {
        let (column, time) = match (what, answer) {
            (What::Answer, Answer::Groups { key, then, .. }) => {
                let key = match then {
                    Some(Second::Sums { key, .. }) => key,
                    _ => key,
                };
                (key.first().copied(), "window_start")
            }
            (What::Answer, Answer::Greatest { .. }) => (Some("country"), "window_start"),
            _ => (Some("country"), "at"),
        };
        let partitions = match (random.u8(..8), column) {
            (0 | 1, Some(column)) => Partitions::Column(column),
            (2, _) => Partitions::Hourly(time),
            (3, _) => Partitions::Daily(time),
            _ => Partitions::None,
        };
        let roll_bytes = (random.u8(..3) == 0).then(|| random.u64(1..3_000));
        Output { what, directory, format, partitions, roll_bytes }
    };
    let first = random.usize(..3);
    let mut outputs = vec![one(random, What::Answer, "out", formats[first])];
    if random.u8(..3) == 0 {
        let what = if random.bool() { What::Answer } else { What::Rows };
        // Two sinks in one directory are told apart by their format.
        let (directory, format) = match random.bool() {
            true => ("out", formats[(first + random.usize(1..3)) % 3]),
            false => ("other", formats[random.usize(..3)]),
        };
        outputs.push(one(random, what, directory, format));
    }
    if is_late {
        let format = formats[random.usize(..3)];
        outputs.push(one(random, What::Late, "late", format));
    }
    outputs
}
