//! Async maps: order, capacity, time-outs, attempts, failed rows, and event time around calls that take their time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tests::{on_two_threads, rows, run};
use tokio::sync::Semaphore;
use windrow::{
    Error,
    api::AsyncResult,
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        datatypes::Int64Type,
    },
    prelude::*,
};

#[derive(Record)]
struct Number {
    value: i64,
}

#[derive(Record)]
struct Doubled {
    value: i64,
    twice: i64,
}

fn numbers(job: &Job, count: u64, splits: usize) -> Stream<Number> {
    job.source(Sequence::new(count).splits(splits)).event_time("at", Watermarks::in_order()).fail_on_rejects().typed()
}

/// An answer after some time that is drawn.
async fn double(value: i64) -> Result<Doubled, String> {
    for _ in 0..fastrand::u32(0..30) {
        tokio::task::yield_now().await;
    }
    Ok(Doubled { value, twice: 2 * value })
}

fn values(out: &MemorySink) -> Vec<i64> {
    let batches = out.batches();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn in_order_or_as_they_come() {
    for ordered in [true, false] {
        let (job, out) = (Job::new("order"), MemorySink::new());
        let calls = numbers(&job, 5_000, 1).map_async(|n| double(n.value)).capacity(64);
        let calls = if ordered { calls.ordered() } else { calls };
        calls.fail_on_failure().filter(|n| n.twice == 2 * n.value).sink(out.clone());
        let report = run(job).unwrap();
        let mut came = values(&out);
        assert_eq!(came.is_sorted(), ordered, "ordered: {ordered}");
        came.sort_unstable();
        assert_eq!(came, (0..5_000).collect::<Vec<_>>());
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
        assert_eq!(
            report.metrics.named("async map").map(|o| (o.rows_in, o.rows_out)).collect::<Vec<_>>(),
            [(5_000, 5_000)]
        );
    }
}

#[test]
fn never_more_calls_are_in_flight_than_the_capacity() {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for ordered in [true, false] {
        let job = Job::new("capacity");
        let (now, peak) = (under_way.clone(), most.clone());
        let calls = numbers(&job, 2_000, 1).map_async(move |n| {
            let (value, now, peak) = (n.value, now.clone(), peak.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                let answer = double(value).await;
                now.fetch_sub(1, SeqCst);
                answer
            }
        });
        let calls = calls.capacity(7);
        let calls = if ordered { calls.ordered() } else { calls };
        calls.fail_on_failure().sink(MemorySink::new());
        run(job).unwrap();
        assert_eq!(most.swap(0, SeqCst), 7);
    }
}

#[test]
fn calls_that_are_full_slow_down_the_source() {
    on_two_threads(async {
        let gate = Arc::new(Semaphore::new(0));
        let job = Job::new("slow").channel_bytes(10_000);
        let (out, call) = (MemorySink::new(), gate.clone());
        let source = job.source(Sequence::endless()).event_time("at", Watermarks::in_order());
        source
            .typed::<Number>()
            .map_async(move |n| {
                let (value, gate) = (n.value, call.clone());
                async move {
                    gate.acquire().await.map_err(|error| error.to_string())?.forget();
                    double(value).await
                }
            })
            .capacity(5)
            .fail_on_failure()
            .sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let read = |name: &str| handle.metrics().named(name).map(|o| o.rows_in).sum::<u64>();
        // Until nothing moves for a while: the source is full of what nobody takes.
        let (mut last, mut same) = (u64::MAX, 0);
        while same < 20_000 {
            tokio::task::yield_now().await;
            let now = read("source");
            (last, same) = (now, if now == last { same + 1 } else { 0 });
        }
        assert!(last < 100_000, "{last} rows were read");
        let in_flight = handle.metrics().named("async map").map(|o| o.in_flight).sum::<u64>();
        assert!(in_flight >= 5, "{in_flight}");
        gate.add_permits(Semaphore::MAX_PERMITS / 2);
        handle.stop();
        let report = running.wait().await.unwrap();
        // Without checkpoints there is no other place for rows in flight than the output.
        assert_eq!(out.rows() as u64, report.metrics.named("source").map(|o| o.rows_out).sum::<u64>());
        assert!(report.metrics.operators.iter().all(|o| o.balances() && o.in_flight == 0));
    });
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_has_failed() {
    let job = Job::new("time out");
    let (out, dead) = (MemorySink::new(), MemorySink::new());
    let (done, failed) = numbers(&job, 6, 1)
        .map_async(|n| {
            let value = n.value;
            async move {
                // Longer and longer: of the six the last two never come.
                tokio::time::sleep(secs(2 * value.unsigned_abs())).await;
                double(value).await
            }
        })
        .timeout(secs(7))
        .retry(Retry::exponential(2, millis(100)))
        .with_failed();
    done.sink(out.clone());
    failed.select(["value", "error", "attempts"].map(col)).sink(dead.clone());
    let began = tokio::time::Instant::now();
    let report = job.run().await.unwrap();
    assert_eq!(values(&out), [0, 1, 2, 3]);
    assert_eq!(rows(&dead.batches()), ["4|no answer within 7s|2", "5|no answer within 7s|2"]);
    assert!((secs(14)..secs(15)).contains(&began.elapsed()), "{:?}", began.elapsed());
    let calls = report.metrics.named("async map").next().unwrap();
    assert_eq!((calls.rows_in, calls.processed, calls.failed, calls.retries), (6, 4, 2, 2));
    assert!(calls.balances());
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_then_leaves_as_it_came() {
    let tries: Arc<Mutex<BTreeMap<i64, usize>>> = Arc::default();
    let job = Job::new("attempts");
    let (out, dead) = (MemorySink::new(), MemorySink::new());
    let count = tries.clone();
    let (done, failed) = numbers(&job, 30, 1)
        .map_async(move |n| {
            let value = n.value;
            let tried = *count.lock().unwrap().entry(value).and_modify(|tried| *tried += 1).or_insert(1);
            async move {
                match value % 3 {
                    0 => double(value).await,
                    // The third attempt goes through.
                    1 if tried >= 3 => double(value).await,
                    _ => Err(format!("attempt {tried} of {value}")),
                }
            }
        })
        .retry(Retry::exponential(3, secs(1)))
        .ordered()
        .with_failed();
    done.sink(out.clone());
    // Failed rows keep their event time.
    let windows = failed.clone().window(Tumbling::of(hours(1))).aggregate([count_rows()]).drop_late();
    let counted = MemorySink::new();
    windows.select([col("n")]).sink(counted.clone());
    failed.sink(dead.clone());
    let report = job.run().await.unwrap();
    assert_eq!(values(&out), (0..30).filter(|value| value % 3 < 2).collect::<Vec<_>>());
    assert_eq!(rows(&counted.batches()), ["10"]);
    let names = dead.batches()[0].schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    assert_eq!(names, ["value", "at", "error", "attempts"], "the columns that came, and why");
    assert_eq!(dead.rows(), 10);
    assert!(rows(&dead.batches()).iter().all(|row| row.contains("|attempt 3 of ") && row.ends_with("|3")));
    let calls = report.metrics.named("async map").next().unwrap();
    assert_eq!((calls.processed, calls.failed, calls.retries), (20, 10, 40));
    assert!(calls.balances());
}

fn count_rows() -> Expr {
    count().alias("n")
}

#[test]
fn failed_rows_are_dropped_when_that_is_said_and_fail_the_job_when_it_is() {
    let build = |job: &Job, count| {
        numbers(job, count, 1)
            .flat_map_async(|n| {
                let value = n.value;
                async move {
                    match value % 4 {
                        0 => Err("no quarter"),
                        1 => Ok(None),
                        _ => Ok(Some(Number { value })),
                    }
                }
            })
            .retry(Retry::exponential(2, millis(1)))
    };
    let (job, out) = (Job::new("drops"), MemorySink::new());
    build(&job, 100).drop_failed().sink(out.clone());
    let report = run(job).unwrap();
    assert_eq!(out.rows(), 50);
    let calls = report.metrics.named("async flat map").next().unwrap();
    assert_eq!((calls.rows_out, calls.processed, calls.failed), (50, 75, 25));
    let (job, out) = (Job::new("fails"), MemorySink::new());
    // One of these fails: which of several is the first is up to the waits between their attempts, which are drawn.
    build(&job, 4).fail_on_failure().sink(out.clone());
    let error = run(job).unwrap_err();
    assert!(matches!(&error, Error::Call { attempts: 2, .. }));
    let said = error.to_string();
    assert!(
        said.starts_with("#2 async flat map: a call failed after 2 attempts: no quarter\n  the row: value: 0, at: "),
        "{said}"
    );
    assert!(said.contains(".with_failed()"), "{said}");
    assert_eq!(out.rows(), 0);
}

#[test]
fn several_results_of_a_row_all_have_its_time() {
    let (job, out) = (Job::new("several"), MemorySink::new());
    numbers(&job, 1_000, 1)
        .flat_map_async(|n| {
            let value = n.value;
            async move { double(value).await.map(|_| (0..value % 4).map(|value| Number { value }).collect::<Vec<_>>()) }
        })
        .fail_on_failure()
        .window(Tumbling::of(millis(100)))
        .aggregate([count_rows()])
        .drop_late()
        .select([col("n")])
        .sink(out.clone());
    run(job).unwrap();
    assert_eq!(rows(&out.batches()), vec!["150"; 10], "a row every millisecond");
}

/// A call that panics when it is made, or when it is at work, for every tenth row; of these every second the first time only.
fn panicking(job: &Job, at_once: bool) -> AsyncResult<Doubled> {
    let tries: Arc<Mutex<BTreeMap<i64, usize>>> = Arc::default();
    numbers(job, 1_000, 2)
        .map_async(move |n| {
            let value = n.value;
            let tried = *tries.lock().unwrap().entry(value).and_modify(|tried| *tried += 1).or_insert(1);
            let breaks = value % 10 == 0 && (value % 20 == 0 || tried == 1);
            assert!(!(at_once && breaks), "a ten: {value}");
            async move {
                let answer = double(value).await;
                assert!(!breaks, "a ten: {value}");
                answer
            }
        })
        .retry(Retry::exponential(2, millis(1)))
}

#[test]
fn a_panic_in_a_call_is_a_failed_attempt() {
    for at_once in [true, false] {
        let (job, out, dead) = (Job::new("panic").parallelism(2), MemorySink::new(), MemorySink::new());
        let (done, failed) = panicking(&job, at_once).with_failed();
        done.sink(out.clone());
        failed.select(["value", "error", "attempts"].map(col)).sink(dead.clone());
        let report = run(job).unwrap();
        assert_eq!((out.rows(), dead.rows()), (950, 50));
        assert!(rows(&dead.batches()).contains(&"500|the call panicked: a ten: 500|2".to_string()));
        let calls = report.metrics.named("async map").next().unwrap();
        assert_eq!((calls.failed, calls.retries), (50, 100));
        assert!(calls.balances());
        let job = Job::new("panic");
        panicking(&job, at_once).fail_on_failure().sink(MemorySink::new());
        let error = run(job).unwrap_err();
        assert!(
            matches!(&error, Error::Call { operator, attempts: 2, reason, .. }
            if operator == "#2 async map" && reason.starts_with("the call panicked: a ten: ")),
            "{error}"
        );
    }
}

/// What a stream without event time says after each of its batches is no fence.
#[test]
fn without_event_time_a_slow_call_holds_up_no_other() {
    on_two_threads(async {
        let (job, out, open) = (Job::new("unordered"), MemorySink::new(), Arc::new(Semaphore::new(0)));
        let batch = |from| {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 10));
            RecordBatch::try_from_iter([("value", values)]).unwrap()
        };
        let batches = (0..10).map(|number| batch(number * 10)).collect();
        let gate = open.clone();
        job.source(MemorySource::batches(batches).batch_rows(10))
            .typed::<Number>()
            .map_async(move |n| {
                let (value, gate) = (n.value, gate.clone());
                async move {
                    if value == 0 {
                        gate.acquire().await.map_err(|error| error.to_string())?.forget();
                    }
                    double(value).await
                }
            })
            .fail_on_failure()
            .sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        while handle.metrics().named("async map").map(|calls| calls.rows_out).sum::<u64>() < 99 {
            tokio::task::yield_now().await;
        }
        open.add_permits(1);
        running.wait().await.unwrap();
        assert_eq!(values(&out).last(), Some(&0), "the slow one is the last");
    });
}

/// A batch that leaves full makes room for calls; answers that come while it waits for room are taken.
#[test]
fn rows_that_wait_go_on_when_a_full_batch_has_left() {
    let columns: [(&str, ArrayRef); 1] = [("value", Arc::new(Int64Array::from_iter_values(0..20_000)))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for (capacity, at_once) in [(8_192, true), (8_192, false), (20_000, false), (100, false)] {
        let (job, out) = (Job::new("full").channel_bytes(1), MemorySink::new());
        job.source(MemorySource::batches(vec![batch.clone()]).batch_rows(20_000))
            .typed::<Number>()
            .map_async(move |n| {
                let value = n.value;
                async move { if at_once { Ok(Doubled { value, twice: 2 * value }) } else { double(value).await } }
            })
            .capacity(capacity)
            .fail_on_failure()
            .sink(out.clone());
        run(job).unwrap();
        assert_eq!(out.rows(), 20_000, "capacity {capacity}, at once: {at_once}");
    }
}

#[test]
fn many_results_of_a_call_leave_batch_by_batch_and_are_not_made_before() {
    let (made, seen, ahead) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (job, out) = (Job::new("many"), MemorySink::new());
    let (making, made, most) = (made.clone(), made, ahead.clone());
    numbers(&job, 3, 1)
        .flat_map_async(move |_| {
            let count = making.clone();
            let numbers = (0..50_000).map(move |value| {
                count.fetch_add(1, SeqCst);
                Number { value }
            });
            async move { Ok::<_, String>(numbers) }
        })
        .fail_on_failure()
        .filter(move |_| {
            let seen = seen.fetch_add(1, SeqCst);
            most.fetch_max(made.load(SeqCst) - seen, SeqCst);
            true
        })
        .sink(out.clone());
    let report = run(job).unwrap();
    assert_eq!(out.rows(), 150_000);
    assert!(out.batches().iter().all(|batch| batch.num_rows() <= 8_192));
    assert_eq!(ahead.load(SeqCst), 8_192, "a batch, and nothing of the next");
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
}

/// Windows behind calls: no watermark overtakes a row, or the row would be late; and none waits without need.
#[test]
fn windows_behind_calls_give_the_same_answer() {
    const COUNT: i64 = 20_000;
    let mut right: Vec<String> =
        (0..10).flat_map(|digit| vec![format!("{digit}|100"); COUNT as usize / 1_000]).collect();
    right.sort_unstable();
    for (ordered, parallelism, splits) in [(false, 1, 1), (true, 1, 1), (false, 3, 3), (true, 3, 4), (false, 2, 5)] {
        let (job, out) = (Job::new("windows").parallelism(parallelism).channel_bytes(20_000), MemorySink::new());
        let calls = numbers(&job, COUNT.unsigned_abs(), splits).map_async(|n| double(n.value)).capacity(50);
        let calls = if ordered { calls.ordered() } else { calls };
        calls
            .fail_on_failure()
            .select([(col("value") % lit(10_i64)).alias("digit")])
            .key_by("digit")
            .window(Tumbling::of(secs(1)))
            .aggregate([count_rows()])
            .drop_late()
            .select(["digit", "n"].map(col))
            .sink(out.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&out.batches()), right, "ordered: {ordered}, {parallelism} tasks, {splits} splits");
        assert!(report.metrics.operators.iter().all(|operator| operator.late == 0 && operator.balances()));
    }
}

#[test]
fn a_watermark_waits_for_the_rows_before_it_and_lets_nothing_past() {
    on_two_threads(async {
        let job = Job::new("watermarks");
        let (out, open) = (MemorySink::new(), Arc::new(Semaphore::new(0)));
        let second = Arc::new(AtomicBool::new(false));
        let (gate, called) = (open.clone(), second.clone());
        let source = job.source(Sequence::new(2_000).splits(1)).event_time("at", Watermarks::in_order());
        source
            .typed::<Number>()
            .map_async(move |n| {
                let (value, gate, called) = (n.value, gate.clone(), called.clone());
                async move {
                    if value == 0 {
                        gate.acquire().await.map_err(|error| error.to_string())?.forget();
                    }
                    called.fetch_or(value == 1_999, SeqCst);
                    double(value).await
                }
            })
            .capacity(5_000)
            .fail_on_failure()
            .sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        // All others are answered; but for the first, whose watermark nothing has passed.
        let calls = || handle.metrics().named("async map").next().cloned().unwrap();
        while !second.load(SeqCst) || calls().in_flight == 2_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(calls().watermark, None);
        open.add_permits(1);
        running.wait().await.unwrap();
        assert_eq!(out.rows(), 2_000);
    });
}

#[test]
fn the_plan_shows_calls_in_a_chain_of_their_own() {
    let job = Job::new("explained").parallelism(2);
    let (done, failed) = numbers(&job, 10, 3).filter(|n| n.value > 0).map_async(|n| double(n.value)).with_failed();
    done.filter(|n| n.value > 1).sink(MemorySink::new());
    failed.sink(MemorySink::new());
    let printed = job.to_string();
    assert!(
        printed.contains("#3 async map")
            && printed.contains("failed: value Int64, at time, error Utf8, attempts UInt32"),
        "{printed}"
    );
    let plan = on_two_threads(job.explain()).unwrap();
    let lines: Vec<&str> = plan.lines().collect();
    assert_eq!(lines[0], "chain 0, 2 tasks: #1 source sequence → #2 filter");
    assert_eq!(lines[2], "chain 1, 2 tasks: #3 async map → #4 filter");
}

#[test]
fn mistakes_are_told_before_the_first_row() {
    let job = Job::new("mistakes");
    let calls = numbers(&job, 10, 1).map_async(|n| double(n.value)).capacity(0).timeout(secs(0));
    calls.retry(Retry::exponential(0, secs(1))).drop_failed().sink(MemorySink::new());
    let again = numbers(&job, 10, 1).select([col("value"), col("value").alias("error")]);
    let (done, failed) = again.typed::<Number>().map_async(|n| double(n.value)).with_failed();
    done.sink(MemorySink::new());
    failed.sink(MemorySink::new());
    let said = run(job).unwrap_err().to_string();
    for words in [
        "#2 async map: a capacity of 0",
        "#2 async map: a timeout of 0",
        "#2 async map: 0 attempts",
        r#"#6 async map: failed rows: the rows have a column "error" already"#,
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let job = Job::new("nowhere");
    let (done, _) = numbers(&job, 10, 1).map_async(|n| double(n.value)).with_failed();
    done.sink(MemorySink::new());
    let said = run(job).unwrap_err().to_string();
    assert!(said.contains("#2 async map: its failed rows go nowhere"), "{said}");
}
