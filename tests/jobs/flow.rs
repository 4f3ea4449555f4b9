//! How rows flow: forks, unions, rejects, late rows, back-pressure.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use async_trait::async_trait;
use tests::{on_two_threads, rows, run};
use tokio::sync::Notify;
use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Rejected, Sink, SinkWriter},
    prelude::*,
};

#[derive(Record)]
struct Number {
    value: i64,
}

#[derive(Record)]
struct Named {
    name: String,
    twice: Option<i64>,
}

fn numbers(job: &Job, count: u64) -> Stream<Number> {
    job.source(Sequence::new(count).splits(3)).event_time("at", Watermarks::in_order()).drop_rejects().typed()
}

#[test]
fn a_fork_gives_every_row_to_each_branch() {
    for parallelism in [1, 4] {
        let job = Job::new("fork").parallelism(parallelism);
        let [all, even, counted] = [(); 3].map(|()| MemorySink::new());
        let stream = numbers(&job, 50_000);
        stream.clone().sink(all.clone());
        stream.clone().filter(|number| number.value % 2 == 0).sink(even.clone());
        stream.window(Tumbling::of(hours(1))).aggregate([count()]).drop_late().sink(counted.clone());
        run(job).unwrap();
        assert_eq!((all.rows(), even.rows(), counted.rows()), (50_000, 25_000, 1));
    }
}

#[test]
fn closures_and_expressions_meet_on_one_stream() {
    let job = Job::new("mixed").parallelism(2);
    let out = MemorySink::new();
    numbers(&job, 6)
        .filter_expr(col("value").gt(lit(0)))
        .map(|n| Named { name: format!("n{}", n.value), twice: (n.value > 2).then_some(2 * n.value) })
        .filter_expr(col("name").not_eq(lit("n5")))
        .filter(|named| named.twice != Some(6) || named.name != "n3")
        .flat_map(|named| [named.name.to_uppercase(), named.name.to_string()].map(|name| Named { name, twice: None }))
        .select([col("name").alias("who")])
        .sink(out.clone());
    run(job).unwrap();
    assert_eq!(rows(&out.batches()), ["N1", "N2", "N4", "n1", "n2", "n4"]);
}

#[test]
fn event_time_survives_closures_that_forget_it() {
    let job = Job::new("hidden").parallelism(2);
    let out = MemorySink::new();
    numbers(&job, 10_000)
        .map(|n| Named { name: if n.value % 2 == 0 { "even" } else { "odd" }.into(), twice: None })
        .key_by("name")
        .window(Tumbling::of(secs(5)))
        .aggregate([count()])
        .drop_late()
        .select([col("name"), col("count")])
        .sink(out.clone());
    run(job).unwrap();
    // One value per millisecond: two windows of five seconds.
    assert_eq!(rows(&out.batches()), ["even|2500", "even|2500", "odd|2500", "odd|2500"]);
}

#[test]
fn a_union_has_the_rows_and_the_lesser_watermark_of_both() {
    let job = Job::new("union").parallelism(2);
    let out = MemorySink::new();
    let slow = numbers(&job, 2_000).filter(|number| number.value >= 0);
    let fast = job.source(Sequence::new(5_000).step(50)).event_time("at", Watermarks::in_order()).drop_rejects();
    slow.union(fast.typed::<Number>())
        .window(Tumbling::of(secs(1)))
        .aggregate([count()])
        .drop_late()
        .select([col("count")])
        .sink(out.clone());
    let report = run(job).unwrap();
    // 1,000 a second for two seconds, and 5,000 in a quarter of the first.
    assert_eq!(rows(&out.batches()), ["1000", "6000"]);
    let union: Vec<_> = report.metrics.named("union").map(|union| (union.rows_in, union.rows_out)).collect();
    assert_eq!(union, [(7_000, 7_000)]);
    assert!(report.metrics.operators.iter().all(|operator| operator.balances() && operator.late == 0));
}

fn batch(times: &[i64]) -> RecordBatch {
    let n = Int64Array::from_iter_values(times.iter().copied());
    RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("at", Timestamp::column(times.to_vec()))]).unwrap()
}

#[test]
fn late_rows_leave_as_they_came() {
    for parallelism in [1, 2] {
        // The second batch of the only split comes when the watermark stands at 100.
        let batches = vec![batch(&[5, 15, 100]), batch(&[7, 101, 19]), batch(&[99, 105])];
        let job = Job::new("late").parallelism(parallelism);
        let [out, late_out] = [(); 2].map(|()| MemorySink::new());
        let (counts, late) = job
            .source(MemorySource::batches(batches))
            .event_time("at", Watermarks::in_order())
            .key_by("n")
            .window(Tumbling::of(std::time::Duration::from_micros(10)))
            .aggregate([count()])
            .with_late();
        counts.select([col("n")]).sink(out.clone());
        late.select([col("n")]).sink(late_out.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&late_out.batches()), ["19", "7", "99"]);
        assert_eq!(rows(&out.batches()), ["100", "101", "105", "15", "5"]);
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        assert_eq!(late, 3);
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
    }
}

#[test]
fn a_window_over_late_rows_gives_its_result_at_the_end() {
    for parallelism in [1, 2] {
        let batches = vec![batch(&[5, 15, 100]), batch(&[7, 101, 19])];
        let job = Job::new("late-window").parallelism(parallelism);
        let [out, late_out] = [(); 2].map(|()| MemorySink::new());
        let window = || Tumbling::of(std::time::Duration::from_micros(10));
        let source = job.source(MemorySource::batches(batches)).event_time("at", Watermarks::in_order());
        let (counts, late) = source.key_by("n").window(window()).aggregate([count()]).with_late();
        counts.sink(out.clone());
        late.key_by("n").window(window()).aggregate([count()]).drop_late().select([col("n")]).sink(late_out.clone());
        run(job).unwrap();
        assert_eq!(rows(&late_out.batches()), ["19", "7"], "parallelism {parallelism}");
    }
}

#[test]
fn a_stream_of_a_longer_job_or_of_one_that_has_run_is_a_mistake_and_no_panic() {
    let (short, long) = (Job::new("short"), Job::new("long"));
    let other = numbers(&long, 1).filter(|_| true).filter(|_| true);
    let stream = numbers(&short, 1);
    let kept = stream.clone();
    stream.union(other).sink(MemorySink::new());
    assert!(run(short).unwrap_err().to_string().contains("belongs to another job"));
    drop(long);
    kept.filter(|_| true).discard();
}

#[test]
fn a_window_with_allowed_lateness_waits_and_gives_one_result() {
    let batches = vec![batch(&[5, 15, 100]), batch(&[71, 61, 50])];
    let job = Job::new("patient");
    let [out, late_out] = [(); 2].map(|()| MemorySink::new());
    let micros = std::time::Duration::from_micros;
    let (counts, late) = job
        .source(MemorySource::batches(batches))
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(micros(10)).allowed_lateness(micros(30)))
        .aggregate([count(), sum(col("n")).alias("sum")])
        .with_late();
    counts.select([col("sum")]).sink(out.clone());
    late.select([col("n")]).sink(late_out.clone());
    run(job).unwrap();
    assert_eq!(rows(&late_out.batches()), ["50", "61"], "windows that end at 70 or before are closed");
    assert_eq!(rows(&out.batches()), ["100", "15", "5", "71"]);
}

#[test]
fn rejected_records_can_be_processed_like_any_stream() {
    on_two_threads(async {
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
        let job = Job::new("rejects").parallelism(2);
        let [out, dead] = [(); 2].map(|()| MemorySink::new());
        let (stream, rejected) = job.source(source).event_time("at", Watermarks::in_order()).with_rejects();
        stream.sink(out.clone());
        rejected.filter_expr(col("reason").eq(lit("bad"))).select([col("line"), col("split")]).sink(dead.clone());
        let running = job.start().await.unwrap();
        let reject = |line: u64, reason: &str| Rejected {
            position: Some(Default::default()),
            line: Some(line),
            bytes: Some(b"x".to_vec()),
            ..Rejected::of(reason)
        };
        input.push(0, batch(&[1, 2]));
        input.reject(0, reject(3, "bad"));
        input.reject(1, reject(4, "worse"));
        input.push(1, batch(&[5]));
        input.end_all();
        let report = running.wait().await.unwrap();
        assert_eq!((out.rows(), dead.rows()), (3, 1));
        let source = &report.metrics.operators[0];
        assert_eq!((source.rows_in, source.processed, source.rejected), (5, 3, 2));
    });
}

/// A sink that takes its first batch and then waits until it is let go.
#[derive(Clone, Default)]
struct Gated {
    open: Arc<AtomicBool>,
    opened: Arc<Notify>,
    reached: Arc<Notify>,
}

#[async_trait]
impl Sink for Gated {
    fn name(&self) -> String {
        "gated".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Gated {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        self.reached.notify_one();
        while !self.open.load(SeqCst) {
            self.opened.notified().await;
        }
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

/// On one thread everything that can run has run when control comes back, so "it stands still" can be observed.
#[tokio::test]
async fn a_slow_sink_holds_the_source_within_the_bytes_of_the_channel() {
    const ROWS: u64 = 10_000_000;
    const CHANNEL: usize = 1 << 20;
    let job = Job::new("slow").channel_bytes(CHANNEL);
    let sink = Gated::default();
    job.source(Sequence::new(ROWS)).event_time("at", Watermarks::in_order()).sink(sink.clone());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    sink.reached.notified().await;
    let read = || handle.metrics().operators[0].rows_out;
    let mut before = u64::MAX;
    while before != read() {
        before = read();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
    // 16 bytes a row: what the channel holds, a batch at the sink, one at the source.
    let most = CHANNEL as u64 / 16 + 2 * 8_192 + 8_192;
    assert!(before <= most, "{before} rows are on their way, at most {most} fit");
    sink.open.store(true, SeqCst);
    sink.opened.notify_one();
    let report = running.wait().await.unwrap();
    assert_eq!(report.metrics.operators[1].rows_in, ROWS);
}

#[test]
fn a_diamond_over_tiny_channels_does_not_deadlock() {
    for parallelism in [1, 3] {
        let job = Job::new("diamond").parallelism(parallelism).channel_bytes(1);
        let out = MemorySink::new();
        let stream = numbers(&job, 20_000);
        let left = stream.clone().filter(|n| n.value % 2 == 0);
        let right = stream.filter(|n| n.value % 2 == 1);
        left.union(right)
            .key_by("value")
            .window(Tumbling::of(secs(1)))
            .aggregate([count()])
            .drop_late()
            .window(Tumbling::of(secs(1)))
            .aggregate([sum(col("count")).alias("n")])
            .drop_late()
            .select([col("n")])
            .sink(out.clone());
        run(job).unwrap();
        let total: i64 =
            out.batches().iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).sum();
        assert_eq!((out.rows(), total), (20, 20_000));
    }
}
