//! A job drawn from a seed by a small grammar, and whether what it wrote is right.
//!
//! ```text
//!   job     := input {union input} step* fork ending
//!   input   := splits of unequal length, some empty, some silent to the end; sometimes records to reject
//!   step    := filter | select | flat map
//!   fork    := - | the rows to a sink of their own | diamond | union with itself
//!   ending  := rows | window [late rows] [window] | top | a kind of kinds.rs
//! ```
//!
//! What is right is computed in [`oracle`](super::oracle), without the engine.

use std::time::Duration;

use windrow::{
    aggregates::count_distinct,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::memory::MemoryInput,
    prelude::*,
};

use super::{
    kinds::Kind,
    witness::{Connection, Decided},
};

/// What travels through the jobs here.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Click {
    pub user: i64,
    pub shop: i64,
    pub amount: i64,
    pub at: Timestamp,
}

impl Click {
    pub fn time(&self) -> i64 {
        self.at.micros()
    }

    /// Whether its event time is one that the engine rejects.
    pub fn is_bad(&self) -> bool {
        self.time().unsigned_abs() >= 1 << 62
    }
}

/// The splits of a source, each a list of batches.
pub struct Input {
    pub splits: Vec<Vec<Vec<Click>>>,
    /// The hand of a source that is silent until the last life of the job, and ends then.
    hand: Option<MemoryInput>,
    source: MemorySource,
}

impl Input {
    pub fn rows(&self) -> impl Iterator<Item = &Click> {
        self.splits.iter().flatten().flatten()
    }

    fn of(splits: Vec<Vec<Vec<Click>>>, silent: bool) -> Self {
        let batches = |split: &Vec<Vec<Click>>| split.iter().map(|rows| batch(rows)).collect();
        if !silent {
            let source = MemorySource::new(schema(), splits.iter().map(batches).collect());
            return Self { splits, hand: None, source };
        }
        let (hand, source) = MemorySource::by_hand(schema(), splits.len());
        for (split, rows) in splits.iter().enumerate() {
            rows.iter().for_each(|rows| hand.push(split, batch(rows)));
        }
        Self { splits, hand: Some(hand), source }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    KeepShops(i64),
    Scale(i64),
    Halve,
    /// Each row goes through a call that takes its time. Not drawn.
    Call {
        ordered: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    None,
    Raw,
    Diamond,
    Twice,
}

/// Windows over `key`; `late` when rows beyond the bound are in the input and leave by a sink of their own.
#[derive(Clone, Debug)]
pub struct WindowSpec {
    pub key: Vec<&'static str>,
    pub size: i64,
    pub offset: i64,
    pub lateness: i64,
    pub late: bool,
    /// More aggregates than the count and the sum.
    pub more: bool,
    /// How many windows a second window has; 0 for none.
    pub second: i64,
}

#[derive(Clone, Debug)]
pub enum Ending {
    Rows,
    Window(WindowSpec),
    Top { window: WindowSpec, n: usize },
    Kind(Kind),
}

impl Ending {
    /// Whether there are rows beyond the bound.
    fn has_late(&self) -> bool {
        match self {
            Self::Window(window) => window.late,
            Self::Kind(kind) => kind.has_late(),
            Self::Rows | Self::Top { .. } => false,
        }
    }
}

/// Where a job writes; it outlives the job.
#[derive(Clone, Default)]
pub struct Outputs {
    pub results: MemorySink,
    pub raw: MemorySink,
    pub late: MemorySink,
    pub rejects: MemorySink,
    pub table: MemoryTable,
    /// The cluster that decides when results, late and raw rows become visible, if there is one.
    pub cluster: Option<Connection>,
}

impl Outputs {
    /// To where a new process writes.
    fn connected(&self) -> Self {
        Self { cluster: self.cluster.as_ref().map(Connection::again), ..self.clone() }
    }

    fn decided(&self, to: &MemorySink) -> Decided {
        Decided { to: to.clone(), by: self.cluster.clone() }
    }
}

/// A job and its input.
pub struct Scenario {
    pub seed: u64,
    pub inputs: Vec<Input>,
    pub steps: Vec<Step>,
    pub fork: Fork,
    pub ending: Ending,
    pub disorder: i64,
    pub rejects: bool,
    /// A silent split may count as idle, though not while the test lasts. It changes the plan.
    pub may_idle: bool,
    pub interval: Duration,
    pub channel_bytes: usize,
    pub parallelism: usize,
}

/// The names of jobs, and so of the folder of their checkpoints.
pub const JOB: &str = "clicks";

pub fn micros(span: i64) -> Duration {
    Duration::from_micros(span.unsigned_abs())
}

impl Scenario {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5ce7_a210);
        let ending = draw_ending(&mut random);
        Self::with(seed, ending)
    }

    /// A scenario with this ending, and all else drawn.
    pub fn with(seed: u64, ending: Ending) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let disorder = random.i64(0..2_000);
        let late = ending.has_late();
        let rejects = random.u8(0..5) == 0;
        let silent = random.u8(0..4) == 0;
        let count = random.usize(1..4);
        let inputs = (0..count).map(|at| {
            // Lengths differ by up to three orders of magnitude.
            let rows = if random.u8(0..3) == 0 { random.usize(0..40) } else { random.usize(100..2_500) };
            let splits = vec![Vec::new(); random.usize(1..5)];
            Input::of(draw(&mut random, splits, rows, disorder, late, rejects), silent && at + 1 == count)
        });
        let inputs = inputs.collect();
        let steps = (0..random.usize(0..3)).map(|_| match random.u8(0..3) {
            0 => Step::KeepShops(random.i64(0..3)),
            1 => Step::Scale(random.i64(-3..4)),
            _ => Step::Halve,
        });
        let steps = steps.collect();
        Self {
            seed,
            inputs,
            steps,
            fork: [Fork::None, Fork::None, Fork::Raw, Fork::Diamond, Fork::Twice][random.usize(0..5)],
            ending,
            disorder,
            rejects,
            may_idle: random.u8(0..3) == 0,
            interval: Duration::from_millis(random.u64(1..8)),
            channel_bytes: [1, 5_000, 2 << 20][random.usize(0..3)],
            parallelism: random.usize(1..5),
        }
    }

    /// The same without filters, forks and what else is between the input and the ending, and with one input only.
    pub fn plain(mut self) -> Self {
        self.inputs.truncate(1);
        Self { steps: Vec::new(), fork: Fork::None, ..self }
    }

    /// The same with one split of `rows` rows of many users, of which some are late if the ending takes late rows.
    pub fn one_split(self, rows: usize) -> Self {
        let late = self.ending.has_late();
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut splits = draw(&mut random, vec![Vec::new()], rows, self.disorder, late, self.rejects);
        for (at, click) in splits.iter_mut().flatten().flatten().enumerate() {
            // Then few of them: a large state of which little changes.
            click.user = random.i64(0..if at < rows / 2 { 1_000 } else { 10 });
        }
        // Through a narrow channel it does not come to its end at once.
        let interval = Duration::from_millis(1);
        Self { inputs: vec![Input::of(splits, false)], channel_bytes: 1, interval, ..self }
    }

    /// Lets the silent sources end, so that the job can.
    pub fn speak_last(&self) {
        self.inputs.iter().filter_map(|input| input.hand.as_ref()).for_each(MemoryInput::end_all);
    }

    /// The job, with checkpoints in `store`. It stays down when it fails: then a test sees why.
    pub fn job(&self, store: &str, parallelism: usize, to: &Outputs) -> Job {
        let job = Job::new(JOB).parallelism(parallelism).channel_bytes(self.channel_bytes);
        self.build(&job, to);
        job.checkpoint(store, self.interval).restarts(windrow::Restarts::never())
    }

    fn build(&self, job: &Job, to: &Outputs) {
        let to = &to.connected();
        let inputs = self.inputs.iter().map(|input| self.read(job, input, to));
        let Some(rows) = inputs.reduce(|left, right| left.union(right)) else { return };
        let rows = self.steps.iter().fold(rows, step);
        let rows = match self.fork {
            Fork::None => rows,
            Fork::Raw => {
                rows.clone().sink(to.decided(&to.raw));
                rows
            }
            Fork::Diamond => {
                rows.clone().filter(|click| click.user % 2 == 0).union(rows.filter(|click| click.user % 2 != 0))
            }
            Fork::Twice => rows.clone().union(rows),
        };
        match &self.ending {
            Ending::Rows => rows.sink(to.decided(&to.results)),
            Ending::Window(window) => aggregate(rows, window, to),
            Ending::Kind(kind) => kind.build(rows, to),
            Ending::Top { window, n } => {
                let (n, tumbling) = (*n, window.tumbling());
                let top = match window.key.is_empty() {
                    true => rows.window(tumbling).top(n, "amount"),
                    false => rows.key_by(window.key()).window(tumbling).top(n, "amount"),
                };
                top.drop_late()
                    .select(["window_start", "rank", "user", "shop", "amount", "at"].map(col))
                    .sink(to.decided(&to.results));
            }
        }
    }

    fn read(&self, job: &Job, input: &Input, to: &Outputs) -> Stream<Click> {
        let watermarks = Watermarks::out_of_order(micros(self.disorder));
        let watermarks = if self.may_idle { watermarks.idle_after(hours(10)) } else { watermarks };
        // Small batches that are ready go through the job as one.
        let source = input.source.clone();
        let source = if self.seed.is_multiple_of(2) { source.one_by_one() } else { source };
        let source = job.source(source).event_time("at", watermarks);
        if !self.rejects {
            return source.fail_on_rejects().typed();
        }
        let (rows, rejected) = source.with_rejects();
        rejected.select([col("bytes")]).sink(to.rejects.clone());
        rows.typed()
    }
}

impl WindowSpec {
    fn tumbling(&self) -> Window {
        Tumbling::of(micros(self.size)).offset(micros(self.offset)).allowed_lateness(micros(self.lateness))
    }

    fn key(&self) -> Vec<String> {
        self.key.iter().map(ToString::to_string).collect()
    }
}

fn step(rows: Stream<Click>, step: &Step) -> Stream<Click> {
    match *step {
        Step::KeepShops(but) => rows.filter(move |click| click.shop % 3 != but),
        Step::Scale(by) => {
            rows.select([col("user"), col("shop"), (col("amount") * lit(by)).alias("amount"), col("at")]).typed()
        }
        Step::Halve => rows.flat_map(|click| {
            let half = click.amount / 2;
            [half, click.amount - half].map(|amount| Click { user: click.user, shop: click.shop, amount, at: click.at })
        }),
        Step::Call { ordered } => {
            let calls = rows.map_async(|click| {
                call(Click { user: click.user, shop: click.shop, amount: click.amount, at: click.at })
            });
            let calls = calls.capacity(40);
            let calls = if ordered { calls.ordered() } else { calls };
            calls.fail_on_failure()
        }
    }
}

/// Answers at once, soon or late.
async fn call(click: Click) -> Result<Click, String> {
    match fastrand::u8(0..100) {
        0..40 => {}
        40..99 => {
            for _ in 0..fastrand::u32(0..20) {
                tokio::task::yield_now().await;
            }
        }
        _ => tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await,
    }
    Ok(click)
}

fn aggregate(rows: Stream<Click>, window: &WindowSpec, to: &Outputs) {
    let mut aggregates = vec![count().alias("clicks"), sum(col("amount")).alias("total")];
    let mut shown = vec![col("window_start")];
    shown.extend(window.key.iter().map(|name| col(*name)));
    shown.extend([col("clicks"), col("total")]);
    if window.more {
        aggregates.extend([
            min(col("amount")).alias("least"),
            max(col("shop")).alias("most"),
            avg(col("amount")).alias("mean"),
            count_distinct(col("shop")).alias("shops"),
        ]);
        shown.extend(["least", "most", "mean", "shops"].map(col));
    }
    let tumbling = window.tumbling();
    let result = match window.key.is_empty() {
        true => rows.window(tumbling).aggregate(aggregates),
        false => rows.key_by(window.key()).window(tumbling).aggregate(aggregates),
    };
    let result = match window.late {
        true => {
            let (result, late) = result.with_late();
            late.sink(to.decided(&to.late));
            result
        }
        false => result.drop_late(),
    };
    match window.second {
        0 => result.select(shown).sink(to.decided(&to.results)),
        windows => result
            .window(Tumbling::of(micros(window.size * windows)))
            .aggregate([count().alias("n"), sum(col("total")).alias("grand")])
            .drop_late()
            .select(["window_start", "n", "grand"].map(col))
            .sink(to.decided(&to.results)),
    }
}

fn draw_ending(random: &mut fastrand::Rng) -> Ending {
    let key = [vec![], vec!["user"], vec!["user", "shop"]][random.usize(0..3)].clone();
    let size = random.i64(50..6_000);
    let late = random.u8(0..3) == 0;
    let window = WindowSpec {
        key,
        size,
        offset: if random.bool() { random.i64(0..size) } else { 0 },
        lateness: if random.u8(0..3) == 0 { random.i64(0..3_000) } else { 0 },
        late,
        more: !late && random.bool(),
        second: if !late && random.u8(0..3) == 0 { random.i64(2..5) } else { 0 },
    };
    match random.u8(0..9) {
        0 => Ending::Rows,
        6..9 => Ending::Kind(Kind::draw(random)),
        1 => Ending::Top { window: WindowSpec { late: false, lateness: 0, ..window }, n: random.usize(1..5) },
        _ => Ending::Window(window),
    }
}

/// Deals `rows` rows to splits that are empty.
fn draw(
    random: &mut fastrand::Rng,
    mut splits: Vec<Vec<Vec<Click>>>,
    rows: usize,
    disorder: i64,
    late: bool,
    rejects: bool,
) -> Vec<Vec<Vec<Click>>> {
    let most = random.usize(1..40);
    let count = splits.len();
    // A split takes turns with the others, or has almost nothing.
    let busy: Vec<bool> = (0..count).map(|split| split == 0 || random.u8(0..3) > 0).collect();
    let (mut time, mut left) = (random.i64(-20_000..20_000), rows);
    while left > 0 {
        let split = random.usize(0..count);
        let few = random.usize(1..=most).min(left);
        left -= few;
        let batch = (0..few).map(|_| {
            time += random.i64(0..20);
            let too_late = late && random.u8(0..20) == 0;
            let back = if too_late { disorder + random.i64(1..9_000) } else { random.i64(0..=disorder) };
            let bad = rejects && random.u8(0..30) == 0;
            let at = if bad { i64::MAX - random.i64(0..1_000) } else { time - back };
            Click {
                user: random.i64(0..40),
                shop: random.i64(0..7),
                amount: random.i64(-1_000..1_000),
                at: Timestamp::from_micros(at),
            }
        });
        splits[if busy[split] { split } else { 0 }].push(batch.collect());
    }
    splits
}

pub fn schema() -> SchemaRef {
    batch(&[]).schema()
}

pub fn batch(rows: &[Click]) -> RecordBatch {
    let column =
        |of: fn(&Click) -> i64| -> ArrayRef { std::sync::Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    RecordBatch::try_from_iter([
        ("user", column(|click| click.user)),
        ("shop", column(|click| click.shop)),
        ("amount", column(|click| click.amount)),
        ("at", Timestamp::column(rows.iter().map(Click::time).collect())),
    ])
    .expect("columns of one length")
}
