//! Slow and stuck sinks under checkpoints, and graphs in which a barrier could wait for itself.
//!
//! A deadlock is a job that is not at its end after [`HANGS`](super::lives::HANGS): by then a job that works has been at
//! its end for very long. The seed of its graph is printed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use tests::on_two_threads;
use tokio::sync::Notify;
use windrow::{
    Error, Restarts,
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
};

use super::{
    hand::{Hand, click, read, until},
    lives::{HANGS, balanced, place, start},
};

type Outcome<T> = Result<T, ConnectorError>;

#[derive(Record)]
struct Number {
    value: i64,
}

/// A sink that does not write until it is let go.
#[derive(Clone, Default)]
struct Stuck {
    open: Arc<AtomicBool>,
    opened: Arc<Notify>,
    reached: Arc<Notify>,
    /// How often it was asked to stage.
    staged: Arc<AtomicUsize>,
    rows: MemorySink,
}

impl Stuck {
    fn let_go(&self) {
        self.open.store(true, SeqCst);
        self.opened.notify_waiters();
    }

    async fn waits(&self) {
        self.reached.notify_one();
        loop {
            let opened = self.opened.notified();
            if self.open.load(SeqCst) {
                return;
            }
            opened.await;
        }
    }
}

#[async_trait]
impl Sink for Stuck {
    fn name(&self) -> String {
        "stuck".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Outcome<()> {
        Ok(())
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Outcome<Box<dyn SinkWriter>> {
        Ok(Box::new(StuckWriter(self.clone(), self.rows.writer(incarnation, task, schema).await?)))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Outcome<()> {
        self.rows.commit(receipts).await
    }

    async fn clean(&self, incarnation: &Incarnation) -> Outcome<()> {
        self.rows.clean(incarnation).await
    }
}

struct StuckWriter(Stuck, Box<dyn SinkWriter>);

#[async_trait]
impl SinkWriter for StuckWriter {
    async fn write(&mut self, batch: RecordBatch) -> Outcome<()> {
        self.0.waits().await;
        self.1.write(batch).await
    }

    async fn stage(&mut self, epoch: Epoch) -> Outcome<Vec<Receipt>> {
        self.0.staged.fetch_add(1, SeqCst);
        self.1.stage(epoch).await
    }
}

/// On one thread, everything that can run has run when control comes back often enough without a change.
async fn until_it_stands_still(read: impl Fn() -> u64) -> u64 {
    let mut before = u64::MAX;
    while before != read() {
        before = read();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
    before
}

#[tokio::test]
async fn a_stuck_sink_holds_the_source_within_the_channel_also_under_checkpoints() {
    const ROWS: u64 = 5_000_000;
    const CHANNEL: usize = 1 << 20;
    let (directory, sink) = (place(), Stuck::default());
    let job = Job::new("stuck").channel_bytes(CHANNEL);
    job.source(Sequence::new(ROWS)).event_time("at", Watermarks::in_order()).sink(sink.clone());
    let job = job.checkpoint(directory.path().to_str().unwrap(), millis(1));
    let running = job.start().await.unwrap();
    let handle = running.handle();
    sink.reached.notified().await;
    let read = until_it_stands_still(|| handle.metrics().operators[0].rows_out).await;
    // 16 bytes a row, as without checkpoints: what the channel holds, a batch at the sink, one at the source.
    let most = CHANNEL as u64 / 16 + 3 * 8_192;
    assert!(read <= most, "{read} rows are on their way, at most {most} fit");
    sink.let_go();
    let report = tokio::time::timeout(HANGS, running.wait()).await.expect("it hangs").unwrap();
    balanced(&report).unwrap();
    assert_eq!(sink.rows.rows() as u64, ROWS);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_pass_a_stuck_sink_names_it() {
    let (directory, sink) = (place(), Stuck::default());
    let job = |restarts: Restarts| {
        let job = Job::new("stuck").parallelism(2).channel_bytes(1);
        let numbers = job.source(Sequence::new(20_000).splits(2)).event_time("at", Watermarks::in_order());
        let numbers = numbers.fail_on_rejects();
        numbers.clone().filter_expr(lit(false)).sink(MemorySink::new());
        numbers.sink(sink.clone());
        job.checkpoint(directory.path().to_str().unwrap(), secs(1)).checkpoint_timeout(secs(30)).restarts(restarts)
    };
    let error = tokio::time::timeout(hours(1), job(Restarts::never()).run()).await.expect("it hangs").unwrap_err();
    let Error::CheckpointTimeout { after, silent, .. } = &error else { panic!("{error}") };
    assert_eq!(*after, secs(30));
    assert!(silent.iter().any(|task| task.contains("sink stuck (task 0)")), "{silent:?}");
    // Who waits for it has not answered either; who holds them all stands last, furthest down.
    assert!(silent.last().unwrap().contains("sink stuck"), "{silent:?}");
    assert!(error.to_string().contains("was not complete after 30s: no answer from "), "{error}");
    // It is tried again, and says so when that does not help.
    let error = job(Restarts::at_most(2).waiting(secs(1)..=secs(1))).run().await.unwrap_err();
    assert!(matches!(&error, Error::GaveUp { restarts: 2, .. }), "{error}");
    assert!(error.to_string().contains("sink stuck"), "{error}");
    sink.let_go();
    job(Restarts::never()).run().await.unwrap();
    assert_eq!(sink.rows.rows(), 20_000);
}

/// One sink holds a checkpoint up; what is before the others has answered, goes on, and ends before it is complete.
pub async fn held_up() -> Result<(), String> {
    let (hand, stuck, free) = (Hand::new(), Stuck::default(), Stuck::default());
    free.let_go();
    let job = || {
        hand.job(|rows, out| {
            rows.clone().sink(stuck.clone());
            rows.clone().select([col("amount")]).sink(free.clone());
            let window = rows.key_by("user").window(Tumbling::of(secs(10)));
            window.aggregate([sum(col("amount")).alias("total")]).drop_late().select([col("total")]).sink(out);
        })
    };
    let failed = |error: Error| error.to_string();
    hand.push(&[click(1, 10, 1)]);
    let running = read(job, 1).await.map_err(failed)?;
    let handle = running.handle();
    // The window and its neighbour answer the barrier, the stuck sink does not; another row comes, and then they end.
    let rest = async {
        until(&handle, |_| free.staged.load(SeqCst) == 2).await;
        hand.push(&[click(1, 5, 2)]);
        until(&handle, |job| job.metrics().operators[0].rows_out == 2).await;
        handle.stop();
        until(&handle, |_| free.staged.load(SeqCst) == 3).await;
        stuck.let_go();
    };
    let (saved, (), ended) = tokio::join!(handle.savepoint("held-up"), rest, running.wait());
    saved.map_err(failed)?;
    assert!(ended.map_err(failed)?.stopped);
    hand.input.end_all();
    start(job).await.map_err(failed)?.wait().await.map_err(failed)?;
    let (windows, rows) = (hand.rows(), tests::rows(&free.rows.batches()));
    match (windows == ["15"], rows == ["10", "5"], stuck.rows.rows()) {
        (true, true, 2) => Ok(()),
        (.., stuck) => Err(format!("windows {windows:?}, rows {rows:?}, {stuck} rows of the stuck sink")),
    }
}

#[tokio::test]
async fn a_stop_while_a_sink_holds_a_checkpoint_up_keeps_what_came_behind_its_barrier() {
    held_up().await.unwrap();
}

/// A graph over one or two sources that forks and meets again, drawn from a seed; every row reaches the sink as often as
/// there are paths to it.
fn draw(random: &mut fastrand::Rng, job: &Job, numbers: u64) -> (Stream<Number>, i64) {
    let source = |random: &mut fastrand::Rng| {
        let rows = job.source(Sequence::new(numbers).splits(random.usize(1..4)).step(random.i64(1..2_000)));
        let watermarks = Watermarks::in_order();
        let watermarks = if random.bool() { watermarks.idle_after(hours(1)) } else { watermarks };
        rows.event_time("at", watermarks).fail_on_rejects().typed::<Number>()
    };
    let mut streams = vec![(source(random), 1)];
    if random.bool() {
        streams.push((source(random), 1));
    }
    for _ in 0..random.usize(1..7) {
        let at = random.usize(0..streams.len());
        let (stream, paths) = streams.swap_remove(at);
        match random.u8(0..5) {
            0 => streams.push((stream.filter(|n| n.value >= 0), paths)),
            1 => streams.push((stream.select([col("value")]).typed(), paths)),
            2 => streams.push((stream.clone().union(stream), 2 * paths)),
            3 => {
                let (even, odd) = (stream.clone().filter(|n| n.value % 2 == 0), stream.filter(|n| n.value % 2 != 0));
                streams.push((even.union(odd), paths));
            }
            _ => streams.extend([(stream.clone(), paths), (stream, paths)]),
        }
    }
    let columns = |(stream, paths): (Stream<Number>, i64)| (stream.select([col("value")]).typed::<Number>(), paths);
    let union = streams.into_iter().map(columns).reduce(|(a, n), (b, m)| (a.union(b), n + m));
    union.expect("a stream")
}

fn graphs(seeds: std::ops::Range<u64>) {
    const NUMBERS: u64 = 600;
    let graphs = seeds.clone().count();
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let (directory, out, sums) = (place(), MemorySink::new(), MemorySink::new());
        let job = Job::new("graph").parallelism(random.usize(1..5)).channel_bytes(1);
        let (rows, paths) = draw(&mut random, &job, NUMBERS);
        rows.clone().sink(out.clone());
        let windows = rows.key_by("value").window(Tumbling::of(millis(random.u64(1..500))));
        let counts = windows.aggregate([count().alias("n")]).drop_late();
        counts
            .window(Tumbling::of(hours(1)))
            .aggregate([sum(col("n")).alias("sum")])
            .drop_late()
            .select([col("sum")])
            .sink(sums.clone());
        let job = job.checkpoint(directory.path().to_str().unwrap(), millis(1)).restarts(Restarts::never());
        let ended = on_two_threads(async { tokio::time::timeout(HANGS, job.run()).await });
        let report =
            ended.unwrap_or_else(|_| panic!("seed {seed} hangs")).unwrap_or_else(|error| panic!("{seed}: {error}"));
        balanced(&report).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        let right = NUMBERS as i64 * paths;
        assert_eq!(out.rows() as i64, right, "seed {seed}");
        let total: i64 =
            sums.batches().iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).sum();
        assert_eq!(total, right, "seed {seed}");
    }
    println!("{graphs} graphs came to their end, none was stuck");
}

#[test]
fn no_graph_deadlocks_over_tiny_channels() {
    graphs(0..120);
}

#[test]
#[ignore = "the full count"]
fn no_graph_deadlocks_over_tiny_channels_in_full() {
    graphs(1_000..2_000);
}
