//! How fast are joins of two streams? Amounts and prices of the same item, near each other in time or in the same window.
//!
//! The same 2 million left rows and 0.5 million right rows of 100,000 items, 25 seconds of event time, ready in memory as
//! batches of 8,192 and 2,048 rows, go through
//! * `hand_written`: one loop over the columns, with a hash map of the rows of each item;
//! * `operator`: the operator alone, called from a loop;
//! * `pipeline`: a whole job from two memory sources to a sink that counts, at parallelism 1.
//!
//! A left row has about one partner. All of them advance the watermark after each batch and give their results as columns; the
//! sums of the results are compared before anything is measured.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use benches::{AddUp, BATCH_ROWS, columns};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        datatypes::Int64Type,
    },
    operators::{
        Advance, Outbox, Plan, Port, StreamSchema,
        join::{Interval, IntervalJoinPlan, JoinType, WindowJoinPlan},
        window::{Hopping, Tumbling, Window},
    },
    prelude::{Job, MemorySource, Timestamp, Watermarks},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LEFT_ROWS: usize = 2_000_000;
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
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut side = |names: [&str; 3], rows: usize, every: i64| {
            let (first, per_batch) = (0..rows as i64, BATCH_ROWS as i64 * EVERY / every);
            let batch = |start: i64| {
                let rows = start..(start + per_batch).min(first.end);
                let items = Int64Array::from_iter_values(rows.clone().map(|_| random.i64(..ITEMS)));
                let values = Int64Array::from_iter_values(rows.clone().map(|_| random.i64(1..1_000)));
                let times = Timestamp::column(rows.map(|row| row * every).collect());
                let columns = [Arc::new(items) as ArrayRef, Arc::new(values), times];
                RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap_or_else(|e| unreachable!("{e}"))
            };
            first.clone().step_by(per_batch as usize).map(batch).collect::<Vec<_>>()
        };
        let left = side(["item", "amount", "at"], LEFT_ROWS, EVERY);
        let right = side(["item", "cents", "since"], LEFT_ROWS / RIGHT_EVERY as usize, EVERY * RIGHT_EVERY);
        Self { left, right }
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
        };
        plan.unwrap_or_else(|error| unreachable!("{error}"))
    }

    fn by_hand(&self, input: &Input, slide: i64) -> Checksum {
        match self {
            Self::Interval => interval_by_hand(input),
            Self::Window(_) => windows_by_hand(input, slide),
        }
    }

    fn pipeline(&self, runtime: &tokio::runtime::Runtime, input: &Input) -> Checksum {
        let job = Job::new("joins");
        let out = AddUp::new(add);
        let source = |batches: &[RecordBatch]| MemorySource::new(batches[0].schema(), vec![batches.to_vec()]);
        let left = job.source(source(&input.left)).event_time("at", Watermarks::in_order());
        let right = job.source(source(&input.right)).event_time("since", Watermarks::in_order());
        let join = left.key_by("item").join(right.key_by("item"));
        let joined = match self {
            Self::Interval => join.between(Interval::between(-NEAR, NEAR)),
            Self::Window(window) => join.window(window.clone()),
        };
        joined.drop_late().sink(out.clone());
        runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
        out.total()
    }
}

fn joins(criterion: &mut Criterion) {
    let input = Input::new();
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));
    let micros = |micros: i64| Duration::from_micros(micros.unsigned_abs());
    let rows = input.pairs().map(|(left, right)| (left.num_rows() + right.num_rows()) as u64).sum();
    let cases = [
        ("interval", Join::Interval, SIZE),
        ("tumbling", Join::Window(Tumbling::of(micros(SIZE))), SIZE),
        ("hopping", Join::Window(Hopping::of(micros(SIZE), micros(SLIDE))), SLIDE),
    ];
    for (name, join, slide) in cases {
        let plan = join.plan(&input);
        let expected = join.by_hand(&input, slide);
        assert_eq!(operator(plan.as_ref(), &input), expected, "{name}");
        assert_eq!(join.pipeline(&runtime, &input), expected, "{name}");

        let mut group = criterion.benchmark_group("joins");
        group.throughput(Throughput::Elements(rows));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
        group.bench_function(BenchmarkId::new("hand_written", name), |b| {
            b.iter(|| black_box(join.by_hand(&input, slide)));
        });
        group.bench_function(BenchmarkId::new("operator", name), |b| {
            b.iter(|| black_box(operator(plan.as_ref(), &input)));
        });
        group.bench_function(BenchmarkId::new("pipeline", name), |b| {
            b.iter(|| black_box(join.pipeline(&runtime, &input)));
        });
        group.finish();
    }
}

criterion_group!(benches, joins);
criterion_main!(benches);
