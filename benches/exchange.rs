//! What does it cost that rows go to the task of their key?
//!
//! ```text
//!   partition:  batch ──hash, take──► 2 or 8 parts                     Partitioner beside the same by hand
//!   pipeline:   2 sources ══by auction══► 2 windows ──► results        a job beside two threads with channels between them
//! ```
//!
//! Nexmark bids, narrow (three numbers) and wide (two texts besides), `WINDROW_BENCH_ROWS` of them if not 4 million. The pipelines
//! compute the totals per auction and 10 s of the bench `window`. `rows` sends every row through the exchange (the job has a source
//! that may be idle, so it aggregates behind it), `groups` aggregates before. By hand each thread reads every other batch; `rows`
//! keeps the half that is its own and sends the other to its neighbour, through a channel of 64 batches; `groups` merges the tables of
//! both. All results are compared before anything is measured.

use std::{
    hint::black_box,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use benches::{AddUp, Checksum, HandWritten, Ratios, bids, columns, row_count, rows, wide_bids};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{AsArray, RecordBatch, UInt32Array},
        compute::take,
        datatypes::{Int64Type, SchemaRef},
    },
    operators::key::Partitioner,
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BIDS: u64 = 4_000_000;
/// How many batches wait between two threads at most.
const WAITING: usize = 64;

/// The task of an auction, as one would choose it by hand.
fn task_of(auction: i64, tasks: usize) -> usize {
    let hash = (auction as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash >> 32) as usize * tasks) >> 32
}

/// The rows of each task.
fn parts_by_hand(batch: &RecordBatch, tasks: usize) -> Vec<RecordBatch> {
    let mut rows = vec![Vec::with_capacity(batch.num_rows() * 2 / tasks); tasks];
    for (row, auction) in columns(batch).0.iter().enumerate() {
        rows[task_of(*auction, tasks)].push(row as u32);
    }
    let part = |rows: Vec<u32>| {
        let rows = UInt32Array::from(rows);
        let taken = batch.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>();
        taken.and_then(|columns| RecordBatch::try_new(batch.schema(), columns))
    };
    rows.into_iter().map(|rows| part(rows).unwrap_or_else(|error| unreachable!("{error}"))).collect()
}

/// Splits all batches by hand; how many rows there are in the parts.
fn split_by_hand(batches: &[RecordBatch], tasks: usize) -> usize {
    let rows = |batch| black_box(parts_by_hand(batch, tasks)).iter().map(RecordBatch::num_rows).sum::<usize>();
    batches.iter().map(rows).sum()
}

/// The same by the engine.
fn split(batches: &[RecordBatch], tasks: usize) -> usize {
    let mut partitioner = Partitioner::new(vec![0], tasks);
    let mut rows = |batch| {
        let parts = partitioner.split(batch).unwrap_or_else(|error| unreachable!("{error}"));
        black_box(parts).iter().map(|(_, part)| part.num_rows()).sum::<usize>()
    };
    batches.iter().map(&mut rows).sum()
}

/// One of two threads: the rows of its auctions, and how far each thread has read.
struct Worker {
    number: usize,
    windows: HandWritten,
    times: [i64; 2],
    neighbour: SyncSender<(RecordBatch, i64)>,
    from: Receiver<(RecordBatch, i64)>,
}

impl Worker {
    fn add(&mut self, batch: &RecordBatch, of: usize, time: i64) {
        let (auctions, prices, times) = columns(batch);
        self.windows.add(auctions, prices, times);
        self.times[of] = time;
        self.windows.advance(self.times[0].min(self.times[1]));
    }

    /// Takes what has come. Whether more may come.
    fn receive(&mut self) -> bool {
        loop {
            match self.from.try_recv() {
                Ok((batch, time)) => self.add(&batch, 1 - self.number, time),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn send(&mut self, part: RecordBatch, time: i64) {
        let mut message = (part, time);
        // Both channels may be full: what has come goes first.
        while let Err(TrySendError::Full(back)) = self.neighbour.try_send(message) {
            message = back;
            self.receive();
            thread::yield_now();
        }
    }

    fn run(mut self, batches: &[RecordBatch]) -> Checksum {
        for batch in batches.iter().skip(self.number).step_by(2) {
            let time = columns(batch).2.last().copied().unwrap_or(i64::MIN);
            let mut parts = parts_by_hand(batch, 2);
            let (Some(second), Some(first)) = (parts.pop(), parts.pop()) else { continue };
            let (own, other) = if self.number == 0 { (first, second) } else { (second, first) };
            self.send(other, time);
            self.add(&own, self.number, time);
            self.receive();
        }
        let Self { mut windows, from, neighbour, .. } = self;
        drop(neighbour);
        for (batch, _) in from {
            let (auctions, prices, times) = columns(&batch);
            windows.add(auctions, prices, times);
        }
        windows.advance(i64::MAX);
        windows.checksum()
    }
}

/// Rows through channels between two threads.
fn rows_by_hand(batches: &[RecordBatch]) -> Checksum {
    let (to_second, second) = sync_channel(WAITING);
    let (to_first, first) = sync_channel(WAITING);
    let worker = |number, neighbour, from| Worker {
        number,
        windows: HandWritten::default(),
        times: [i64::MIN; 2],
        neighbour,
        from,
    };
    let (first, second) = (worker(0, to_second, first), worker(1, to_first, second));
    let (own, other) = thread::scope(|scope| {
        let other = scope.spawn(|| second.run(batches));
        (first.run(batches), other.join().unwrap_or_default())
    });
    std::array::from_fn(|i| own[i] + other[i])
}

fn add(total: &mut Checksum, batch: &RecordBatch) {
    total[0] += batch.num_rows() as i64;
    for i in 0..3 {
        total[i + 1] += batch.column(3 + i).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
}

fn pipeline(
    runtime: &tokio::runtime::Runtime,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    watermarks: Watermarks,
) -> Checksum {
    let job = Job::new("exchange").parallelism(2);
    let out = AddUp::new(add);
    job.source(MemorySource::new(schema.clone(), vec![batches.to_vec()]).splits(2))
        .event_time("at", watermarks)
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count(), sum(col("price")), max(col("price"))])
        .drop_late()
        .sink(out.clone());
    runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    out.total()
}

fn exchange(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));
    let amount = rows(BIDS);
    let ratios = Ratios::of("exchange");
    for (width, (schema, batches)) in [("narrow", bids(amount)), ("wide", wide_bids(amount))] {
        // One in order needs no exchange of rows; one that may be idle does.
        let (in_order, may_idle) = (Watermarks::in_order, || Watermarks::in_order().idle_after(hours(1)));
        let rows = row_count(&batches);
        let expected = HandWritten::run(&batches);
        for tasks in [2, 8] {
            assert_eq!((split_by_hand(&batches, tasks), split(&batches, tasks)), (rows as usize, rows as usize));
        }
        assert_eq!(rows_by_hand(&batches), expected);
        assert_eq!(HandWritten::run_on_two_threads(&batches), expected);
        assert_eq!(pipeline(&runtime, &schema, &batches, may_idle()), expected);
        assert_eq!(pipeline(&runtime, &schema, &batches, in_order()), expected);

        let mut group = criterion.benchmark_group("exchange");
        group.throughput(Throughput::Elements(rows));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
        let mut pair = |name: &str, by_hand: &dyn Fn(), engine: &dyn Fn()| {
            let [hand_written, windrow] = ["hand_written", "windrow"].map(|side| format!("{name}/{width}/{side}"));
            for (side, run) in [(&hand_written, by_hand), (&windrow, engine)] {
                group.bench_function(side, |b| b.iter_custom(|times| ratios.time(side, times, run)));
            }
            ratios.print(&windrow, &hand_written);
        };
        for tasks in [2, 8] {
            let by_hand = || {
                black_box(split_by_hand(&batches, tasks));
            };
            let engine = || {
                black_box(split(&batches, tasks));
            };
            pair(&format!("partition_{tasks}"), &by_hand, &engine);
        }
        let engine = |watermarks: Watermarks| {
            black_box(pipeline(&runtime, &schema, &batches, watermarks));
        };
        let rows_by_hand = || {
            black_box(rows_by_hand(&batches));
        };
        let groups_by_hand = || {
            black_box(HandWritten::run_on_two_threads(&batches));
        };
        pair("rows", &rows_by_hand, &|| engine(may_idle()));
        pair("groups", &groups_by_hand, &|| engine(in_order()));
        group.finish();
        ratios.print(&format!("groups/{width}/windrow"), &format!("rows/{width}/windrow"));
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
