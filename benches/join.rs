//! How fast are joins of two streams? Amounts and prices of the same item, near each other in time, in the same window, or each
//! amount with the price as of its time.
//!
//! The same 2 million left rows (`WINDROW_BENCH_ROWS` says otherwise) and a quarter as many right rows of 100,000 items, 20 seconds of
//! event time, ready in memory as batches of 8,192 and 2,048 rows, go through
//! * `hand_written`: one loop over the columns, with a hash map of the rows of each item;
//! * `operator`: the operator alone, called from a loop;
//! * `pipeline`: a whole job from two memory sources to a sink that counts, at parallelism 1.
//!
//! `tables` joins the newest amount of each item with its newest price, from streams of changes; only the operator alone.
//!
//! A left row has about one partner. All of them advance the watermark after each batch and give their results as columns; the
//! sums of the results are compared before anything is measured.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use benches::{AddUp, BATCH_ROWS, Ratios, columns, row_count, rows as amount};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        compute::concat_batches,
        datatypes::Int64Type,
    },
    operators::{
        Advance, Outbox, Plan, Port, StreamSchema,
        changes::{ChangeJoinPlan, UpsertPlan},
        join::{Interval, IntervalJoinPlan, JoinType, TemporalJoinPlan, WindowJoinPlan},
        window::{Hopping, Tumbling, Window},
    },
    prelude::{Job, MemorySource, Timestamp, Watermarks},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LEFT_ROWS: u64 = 2_000_000;
const ITEMS: i64 = 100_000;
/// A left row every so many microseconds; a right row every four times as many.
const EVERY: i64 = 10;
const RIGHT_EVERY: i64 = 4;

/// How far partners are apart at most, and how long a window is. In microseconds.
const NEAR: i64 = 2_000_000;
const SIZE: i64 = 4_000_000;
const SLIDE: i64 = 1_000_000;

/// Rows, amounts and prices over all results.
type Checksum = [i64; 3];

/// The batches of both sides, a left one and a right one of the same time.
struct Input {
    left: Vec<RecordBatch>,
    right: Vec<RecordBatch>,
}

impl Input {
    fn new(left_rows: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut side = |names: [&str; 3], rows: usize, every: i64| {
            let (first, per_batch) = (0..rows as i64, BATCH_ROWS as i64 * EVERY / every);
            let batch = |start: i64| {
                let rows = start..(start + per_batch).min(first.end);
                let items = Int64Array::from_iter_values(rows.clone().map(|_| random.i64(0..ITEMS)));
                let values = Int64Array::from_iter_values(rows.clone().map(|_| random.i64(1..1_000)));
                let times = Timestamp::column(rows.map(|row| row * every).collect());
                let columns = [Arc::new(items) as ArrayRef, Arc::new(values), times];
                RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap_or_else(|e| unreachable!("{e}"))
            };
            first.clone().step_by(per_batch as usize).map(batch).collect::<Vec<_>>()
        };
        let left = side(["item", "amount", "at"], left_rows, EVERY);
        let right = side(["item", "cents", "since"], left_rows.div_ceil(RIGHT_EVERY as usize), EVERY * RIGHT_EVERY);
        Self { left, right }
    }

    /// The changes of the two tables that have the newest row of each item, a batch for each batch of rows.
    fn changes(&self) -> (Self, [StreamSchema; 2]) {
        let tables = self.schemas().map(|rows| UpsertPlan::new(&rows, &["item"], None, None));
        let [left, right] = tables.map(|table| table.unwrap_or_else(|error| unreachable!("{error}")));
        let of = |table: &UpsertPlan, batches: &[RecordBatch]| -> windrow::operators::Result<Vec<RecordBatch>> {
            let (mut upsert, mut out) = (table.whole()?, Outbox::new());
            let mut changes = Vec::new();
            for batch in batches {
                upsert.process(Port::MAIN, batch.clone(), &mut out)?;
                let parts: Vec<RecordBatch> = out.drain().map(|(_, part)| part).collect();
                changes.push(concat_batches(table.output().columns(), &parts)?);
            }
            Ok(changes)
        };
        let [left_changes, right_changes] =
            [of(&left, &self.left), of(&right, &self.right)].map(|side| side.unwrap_or_else(|e| unreachable!("{e}")));
        (Self { left: left_changes, right: right_changes }, [left.output().clone(), right.output().clone()])
    }

    fn pairs(&self) -> impl Iterator<Item = (&RecordBatch, &RecordBatch)> {
        self.left.iter().zip(&self.right)
    }

    fn schemas(&self) -> [StreamSchema; 2] {
        let of = |batches: &[RecordBatch], time| StreamSchema::with_time(batches[0].schema(), time);
        [of(&self.left, "at"), of(&self.right, "since")].map(|stream| stream.unwrap_or_else(|e| unreachable!("{e}")))
    }
}

type Map<V> = HashMap<i64, V, foldhash::fast::FixedState>;

/// (item, amount or price, time)
type Row = (i64, i64, i64);

/// Pairs as columns: item, amount, at, cents, since, time. They are added up and given away in batches.
#[derive(Default)]
struct Pairs {
    columns: [Vec<i64>; 6],
    checksum: Checksum,
}

impl Pairs {
    fn push(&mut self, left: Row, right: Row, time: i64) {
        let row = [left.0, left.1, left.2, right.1, right.2, time];
        self.columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        if self.columns[0].len() == BATCH_ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.checksum[0] += self.columns[0].len() as i64;
        self.checksum[1] += self.columns[1].iter().sum::<i64>();
        self.checksum[2] += self.columns[3].iter().sum::<i64>();
        black_box(std::mem::take(&mut self.columns));
    }
}

fn rows(batch: &RecordBatch) -> impl Iterator<Item = Row> + '_ {
    let (items, values, times) = columns(batch);
    items.iter().zip(values).zip(times).map(|((item, value), time)| (*item, *value, *time))
}

/// Each row looks into the rows of its item on the other side, which are in order of time; the old ones go when they are met.
fn interval_by_hand(input: &Input) -> Checksum {
    let (mut lefts, mut rights) = (Map::<VecDeque<Row>>::default(), Map::<VecDeque<Row>>::default());
    let (mut pairs, mut watermark) = (Pairs::default(), i64::MIN);
    let keep = |rows: &mut Map<VecDeque<Row>>, row: Row, watermark: i64| {
        let rows = rows.entry(row.0).or_default();
        while rows.front().is_some_and(|old| old.2.saturating_add(NEAR) < watermark) {
            rows.pop_front();
        }
        rows.push_back(row);
    };
    for (left, right) in input.pairs() {
        for row in rows(left) {
            let found = rights.get(&row.0).into_iter().flatten();
            found.filter(|r| (r.2 - row.2).abs() <= NEAR).for_each(|r| pairs.push(row, *r, row.2.max(r.2)));
            keep(&mut lefts, row, watermark);
        }
        for row in rows(right) {
            let found = lefts.get(&row.0).into_iter().flatten();
            found.filter(|l| (row.2 - l.2).abs() <= NEAR).for_each(|l| pairs.push(*l, row, row.2.max(l.2)));
            keep(&mut rights, row, watermark);
        }
        watermark = columns(left).2.last().copied().unwrap_or(watermark);
    }
    pairs.flush();
    pairs.checksum
}

/// For each window the left rows, and the right rows by item; a row is put into every window that it is in.
fn windows_by_hand(input: &Input, slide: i64) -> Checksum {
    let mut windows: BTreeMap<i64, (Vec<Row>, Map<Vec<Row>>)> = BTreeMap::new();
    let mut pairs = Pairs::default();
    let starts = |time: i64| {
        let last = time.div_euclid(slide) * slide;
        (0..SIZE / slide).map(move |back| last - back * slide)
    };
    let mut close = |windows: &mut BTreeMap<i64, (Vec<Row>, Map<Vec<Row>>)>, watermark: i64| {
        while let Some(first) = windows.first_entry().filter(|first| *first.key() <= watermark - SIZE) {
            let (start, (lefts, rights)) = first.remove_entry();
            for left in lefts {
                rights.get(&left.0).into_iter().flatten().for_each(|r| pairs.push(left, *r, start + SIZE - 1));
            }
        }
        pairs.flush();
        pairs.checksum
    };
    for (left, right) in input.pairs() {
        for row in rows(left) {
            starts(row.2).for_each(|start| windows.entry(start).or_default().0.push(row));
        }
        for row in rows(right) {
            starts(row.2).for_each(|start| windows.entry(start).or_default().1.entry(row.0).or_default().push(row));
        }
        close(&mut windows, columns(left).2.last().copied().unwrap_or(i64::MIN));
    }
    close(&mut windows, i64::MAX)
}

/// The prices of each item in order of time. The right rows of a pair of batches are those of its time, so they go first.
fn as_of_by_hand(input: &Input) -> Checksum {
    let mut versions = Map::<VecDeque<Row>>::default();
    let mut pairs = Pairs::default();
    for (left, right) in input.pairs() {
        for row in rows(right) {
            versions.entry(row.0).or_default().push_back(row);
        }
        for row in rows(left) {
            let Some(versions) = versions.get_mut(&row.0) else { continue };
            // The rows come in order: what is older than the version of this one, no later one asks for.
            while versions.get(1).is_some_and(|next| next.2 <= row.2) {
                versions.pop_front();
            }
            if let Some(version) = versions.front().filter(|version| version.2 <= row.2) {
                pairs.push(row, *version, row.2);
            }
        }
    }
    pairs.flush();
    pairs.checksum
}

/// The newest row of each item on either side. Every change of one that has a partner changes the result.
fn tables_by_hand(input: &Input) -> Checksum {
    let (mut lefts, mut rights) = (Map::<Row>::default(), Map::<Row>::default());
    let mut pairs = Pairs::default();
    for (left, right) in input.pairs() {
        for row in rows(left) {
            lefts.insert(row.0, row);
            rights.get(&row.0).into_iter().for_each(|other| pairs.push(row, *other, row.2.max(other.2)));
        }
        for row in rows(right) {
            rights.insert(row.0, row);
            lefts.get(&row.0).into_iter().for_each(|other| pairs.push(*other, row, row.2.max(other.2)));
        }
    }
    pairs.flush();
    pairs.checksum
}

fn add(total: &mut Checksum, batch: &RecordBatch) {
    let sum = |name: &str| {
        let column = batch.column_by_name(name).map(|column| column.as_primitive::<Int64Type>());
        column.map_or(0, |column| column.values().iter().sum::<i64>())
    };
    total[0] += batch.num_rows() as i64;
    total[1] += sum("amount");
    total[2] += sum("cents");
}

fn operator(plan: &dyn Plan, input: &Input) -> Checksum {
    let mut total = [0; 3];
    let mut run = || -> windrow::operators::Result<()> {
        let mut join = plan.whole()?;
        let mut out = Outbox::new();
        let mut drain = |out: &mut Outbox| out.drain().for_each(|(_, batch)| add(&mut total, &batch));
        for (left, right) in input.pairs() {
            for (port, batch) in [(Port::MAIN, left), (Port::RIGHT, right)] {
                join.process(port, batch.clone(), &mut out)?;
                drain(&mut out);
                while out.take_again() {
                    join.process(port, batch.slice(0, 0), &mut out)?;
                    drain(&mut out);
                }
            }
            let time = columns(left).2.last().copied().unwrap_or(i64::MIN);
            while join.advance(Timestamp::from_micros(time), &mut out)? == Advance::Again {
                drain(&mut out);
            }
            drain(&mut out);
        }
        while join.advance(Timestamp::MAX, &mut out)? == Advance::Again {
            drain(&mut out);
        }
        drain(&mut out);
        Ok(())
    };
    run().unwrap_or_else(|error| unreachable!("{error}"));
    total
}

/// What is done with two streams of the same item.
#[derive(Clone)]
enum Join {
    Interval,
    Window(Window),
    AsOf,
}

impl Join {
    fn plan(&self, input: &Input) -> Box<dyn Plan> {
        let ([left, right], on) = (input.schemas(), [("item", "item")]);
        let plan = match self {
            Self::Interval => {
                let near = Interval::between(-NEAR, NEAR);
                let plan = IntervalJoinPlan::new(&left, &right, &on, near, JoinType::Inner, None);
                plan.map(|plan| Box::new(plan) as Box<dyn Plan>)
            }
            Self::Window(window) => {
                let plan = WindowJoinPlan::new(&left, &right, &on, window.clone(), JoinType::Inner, None);
                plan.map(|plan| Box::new(plan) as Box<dyn Plan>)
            }
            Self::AsOf => {
                let plan = TemporalJoinPlan::new(&left, &right, &on, JoinType::Inner, None, None);
                plan.map(|plan| Box::new(plan) as Box<dyn Plan>)
            }
        };
        plan.unwrap_or_else(|error| unreachable!("{error}"))
    }

    fn by_hand(&self, input: &Input, slide: i64) -> Checksum {
        match self {
            Self::Interval => interval_by_hand(input),
            Self::Window(_) => windows_by_hand(input, slide),
            Self::AsOf => as_of_by_hand(input),
        }
    }

    fn pipeline(&self, runtime: &tokio::runtime::Runtime, input: &Input) -> Checksum {
        let job = Job::new("join");
        let out = AddUp::new(add);
        let source = |batches: &[RecordBatch]| MemorySource::new(batches[0].schema(), vec![batches.to_vec()]);
        let left = job.source(source(&input.left)).event_time("at", Watermarks::in_order());
        let right = job.source(source(&input.right)).event_time("since", Watermarks::in_order());
        let join = left.key_by("item").join(right.key_by("item"));
        let joined = match self {
            Self::Interval => join.between(Interval::between(-NEAR, NEAR)),
            Self::Window(window) => join.window(window.clone()),
            Self::AsOf => join.as_of(),
        };
        joined.drop_late().sink(out.clone());
        runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
        out.total()
    }
}

fn join(criterion: &mut Criterion) {
    let input = Input::new(amount(LEFT_ROWS) as usize);
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));
    let micros = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let rows = input.pairs().map(|(left, right)| (left.num_rows() + right.num_rows()) as u64).sum();
    let cases = [
        ("interval", Join::Interval, SIZE),
        ("tumbling", Join::Window(Tumbling::of(micros(SIZE))), SIZE),
        ("hopping", Join::Window(Hopping::of(micros(SIZE), micros(SLIDE))), SLIDE),
        ("as_of", Join::AsOf, SIZE),
    ];
    let ratios = Ratios::of("join");
    for (name, join, slide) in cases {
        let plan = join.plan(&input);
        let expected = join.by_hand(&input, slide);
        assert!(expected[0] > 0, "{name}: no row has a partner");
        assert_eq!(operator(plan.as_ref(), &input), expected, "{name}");
        assert_eq!(join.pipeline(&runtime, &input), expected, "{name}");

        let mut group = criterion.benchmark_group("join");
        group.throughput(Throughput::Elements(rows));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
        let sides = ["hand_written", "operator", "pipeline"].map(|side| format!("{side}/{name}"));
        let [by_hand, alone, whole] = &sides;
        let mut bench = |side: &str, run: &dyn Fn() -> Checksum| {
            group.bench_function(side, |b| b.iter_custom(|times| ratios.time(side, times, run)));
        };
        bench(by_hand, &|| join.by_hand(&input, slide));
        bench(alone, &|| operator(plan.as_ref(), &input));
        bench(whole, &|| join.pipeline(&runtime, &input));
        group.finish();
        ratios.print(alone, by_hand);
        ratios.print(whole, by_hand);
    }
}

fn tables(criterion: &mut Criterion) {
    let (input, [left, right]) = Input::new(amount(LEFT_ROWS) as usize).changes();
    let plan = ChangeJoinPlan::new(&left, &right, &[("item", "item")], JoinType::Inner, None, None);
    let plan = plan.unwrap_or_else(|error| unreachable!("{error}"));
    let expected = tables_by_hand(&input);
    assert!(expected[0] > 0, "no row has a partner");
    assert_eq!(operator(&plan, &input), expected);

    let ratios = Ratios::of("join");
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(row_count(&input.left) + row_count(&input.right)));
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
    let mut bench = |side: &str, run: &dyn Fn() -> Checksum| {
        group.bench_function(side, |b| b.iter_custom(|times| ratios.time(side, times, run)));
    };
    bench("hand_written/tables", &|| tables_by_hand(&input));
    bench("operator/tables", &|| operator(&plan, &input));
    group.finish();
    ratios.print("operator/tables", "hand_written/tables");
}

criterion_group!(benches, join, tables);
criterion_main!(benches);
