//! What a running job says of itself: who slows it down, why a window is open, what its splits and checkpoints do. On a clock that
//! stands still unless everything waits, where time matters.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use tests::{on_two_threads, topic::Topic};
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::SchemaRef,
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
    status::{CheckpointKind, Exchange, JobStatus, OperatorKind, OperatorStatus, SampleKind, SplitState, State},
};

fn batch(seconds: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(seconds.iter().copied()));
    let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

/// A sink that takes its time for each batch, and fails so many times.
#[derive(Clone, Default)]
struct Slow {
    takes: Duration,
    failures: Arc<AtomicU64>,
    /// What it says when it fails.
    fails: &'static str,
}

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> String {
        "slow".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Slow {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        if self.failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            let (system, reason) = ("slow".into(), format!("it is not in the mood {}", self.fails));
            return Err(ConnectorError::Remote { system, reason, passes: true });
        }
        tokio::time::sleep(self.takes).await;
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

fn operator<'a>(status: &'a JobStatus, name: &str) -> &'a OperatorStatus {
    status.operators.iter().find(|operator| operator.name.contains(name)).unwrap()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    words.iter().for_each(|words| assert!(text.contains(words), "{words:?} is not in {text:?}"));
}

/// Also what is asked for the first time after a while is about the last seconds: the job notes them.
#[tokio::test(start_paused = true)]
async fn a_slow_sink_is_named_and_what_is_before_it_waits() {
    let job = Job::new("slow").channel_bytes(1 << 20).parallelism(2);
    job.source(Sequence::endless().splits(2))
        .event_time("at", Watermarks::in_order())
        .filter_expr(col("value").gt_eq(lit(0)))
        .key_by("value")
        .deduplicate(secs(1))
        .drop_late()
        .sink(Slow { takes: millis(500), ..Slow::default() });
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let waits = tokio::spawn(running.wait());
    tokio::time::sleep(secs(30)).await;
    let status = handle.status();
    assert_eq!((status.state, status.parallelism), (State::Running, 2));
    assert!((5_000..7_000).contains(&status.recent_ms), "{}", status.recent_ms);
    assert!((29_000..31_000).contains(&status.elapsed_ms), "{}", status.elapsed_ms);
    let (source, sink) = (operator(&status, "source"), operator(&status, "sink"));
    assert!(sink.tasks.iter().any(|task| task.busy > 0.95), "{:?}", sink.tasks);
    assert!(sink.tasks.iter().all(|task| task.blocked == 0.0));
    assert!(source.tasks.iter().all(|task| task.blocked > 0.5 && task.busy < 0.2), "{:?}", source.tasks);
    assert!(source.tasks.iter().all(|task| task.blocked_us > 10_000_000), "{:?}", source.tasks);
    assert!(sink.rows_in_per_s > 0.0 && source.rows_out_per_s > 0.0);
    let full = status.edges.iter().find(|edge| edge.exchange != Exchange::Chained).unwrap();
    assert!(full.queued_bytes > full.capacity_bytes / 2, "{full:?}");
    says(&status.bottleneck().unwrap(), &["sink slow is the bottleneck", "what is before it waits for it: #1 source"]);
    handle.stop();
    assert!(waits.await.unwrap().unwrap().stopped);
    let ended = handle.status();
    assert_eq!((ended.state, ended.bottleneck()), (State::Ended, None));
    assert_eq!(ended.elapsed_ms, handle.status().elapsed_ms);
}

#[derive(Record)]
struct Number {
    n: i64,
    at: Timestamp,
}

#[derive(Record)]
struct Counted {
    value: i64,
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_named_and_hold_the_watermark() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("calls").channel_bytes(1 << 10);
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .typed::<Number>()
        .map_async(|number| {
            let (n, at) = (number.n, number.at);
            async move {
                tokio::time::sleep(millis(400)).await;
                Ok::<_, String>(Number { n, at })
            }
        })
        .capacity(1)
        .drop_failed()
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    (0..1_000).for_each(|second| input.push(0, batch(&[second])));
    tokio::time::sleep(secs(10)).await;
    let status = handle.status();
    says(&status.bottleneck().unwrap(), &["async map is the bottleneck", "#1 source", "Its calls take too long"]);
    says(&status.why_open("#3"), &["have come to #2 async map", "of them wait for their calls"]);
    handle.stop();
    running.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_split_that_holds_time_back_is_explained() {
    for idle_after in [None, Some(mins(5))] {
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 3);
        let job = Job::new("held-back").parallelism(2);
        let watermarks = Watermarks::out_of_order(secs(1));
        let watermarks = idle_after.map_or(watermarks.clone(), |span| watermarks.idle_after(span));
        job.source(source)
            .event_time("at", watermarks)
            .key_by("n")
            .window(Tumbling::of(secs(10)))
            .aggregate([count()])
            .drop_late()
            .sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        input.push(1, batch(&[3, 4]));
        tokio::time::sleep(millis(10)).await;
        says(
            &handle.status().why_open("window_1"),
            &["No event time has come", "has not delivered a row with event time yet"],
        );
        for second in 0..43 {
            [0, 2].into_iter().for_each(|split| input.push(split, batch(&[100 + second])));
            tokio::time::sleep(secs(1)).await;
        }
        let status = handle.status();
        let splits = &operator(&status, "source").splits;
        assert_eq!(splits.iter().map(|split| split.holds_back).collect::<Vec<_>>(), [true, false, false]);
        let held = &splits[0];
        assert_eq!((held.split.as_str(), held.state, held.rows, held.position), ("1", SplitState::Reading, 2, Some(1)));
        assert_eq!((held.watermark_us, held.latest_us), (Some(3_000_000), Some(4_000_000)));
        assert!(status.now_ms - held.rows_at_ms.unwrap() >= 43_000);
        assert_eq!((splits[1].rows, splits[1].watermark_us), (43, Some(141_000_000)));
        let said = status.why_open("window_1");
        says(
            &said,
            &["stands at 1970-01-01T00:00:03Z", "It waits for split 1 of #1 source", "Its last rows came 43 s ago"],
        );
        says(
            &said,
            &["up to 2 min 18 s ahead", if idle_after.is_some() { "after 5 min" } else { "does not say .idle_after" }],
        );
        if idle_after.is_some() {
            tokio::time::sleep(mins(4)).await;
            [0, 2].into_iter().for_each(|split| input.push(split, batch(&[200])));
            tokio::time::sleep(mins(1)).await;
            let status = handle.status();
            let idle = operator(&status, "source").splits.iter().find(|split| split.split == "1").unwrap();
            assert_eq!((idle.state, idle.holds_back), (SplitState::Idle, false));
            assert!((40_000..46_000).contains(&(status.now_ms - idle.since_ms)), "{status:?}");
            says(&status.why_open("window_1"), &["stands at 1970-01-01T00:03:19Z"]);
            // It speaks again.
            input.push(1, batch(&[201]));
            tokio::time::sleep(millis(10)).await;
            let status = handle.status();
            assert!(operator(&status, "source").splits.iter().all(|split| split.state == SplitState::Reading));
        }
        input.end_all();
        running.wait().await.unwrap();
        let status = handle.status();
        assert!(operator(&status, "source").splits.iter().all(|split| split.state == SplitState::Ended));
        assert_eq!(operator(&status, "window").watermark_us, Some(i64::MAX));
        says(&status.why_open("window_1"), &["event time has come to its end"]);
    }
}

/// A task whose splits are idle holds nobody, nor does what shares it: it is not blamed for what another source holds.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_idle_is_not_blamed() {
    let (input, first) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let (other, second) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("idle").parallelism(2);
    let one = job.source(first).event_time("at", Watermarks::in_order().idle_after(secs(5)));
    let two = job.source(second).event_time("at", Watermarks::in_order());
    one.filter_expr(col("n").gt_eq(lit(0)))
        .union(two.filter_expr(col("n").gt_eq(lit(0))))
        .key_by("n")
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    input.push(1, batch(&[3]));
    other.push(0, batch(&[50]));
    for second in 0..20 {
        input.push(0, batch(&[100 + second]));
        tokio::time::sleep(secs(1)).await;
    }
    let status = handle.status();
    let filter = status.operators.iter().find(|own| own.name.contains("filter") && own.rows_in > 1).unwrap();
    assert_eq!((filter.watermark_us, filter.promised_us), (Some(119_000_000), Some(119_000_000)), "{filter:?}");
    assert_eq!(filter.tasks.iter().map(|task| task.idle).collect::<BTreeSet<_>>(), BTreeSet::from([false, true]));
    let held = status.operators.iter().find(|own| own.watermark_us == Some(50_000_000)).unwrap();
    says(&status.why_open("window_1"), &["stands at 1970-01-01T00:00:50Z", &format!("split 0 of {}", held.name)]);
    // It speaks again, and ends behind the others.
    input.push(1, batch(&[110]));
    tokio::time::sleep(millis(10)).await;
    assert!(handle.status().operators.iter().all(|own| own.tasks.iter().all(|task| !task.idle)));
    input.end_all();
    other.end_all();
    running.wait().await.unwrap();
}

/// When all are idle event time is as far as any of them has come, also when one has never said anything.
#[tokio::test(start_paused = true)]
async fn a_source_that_is_idle_keeps_its_watermark() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 3);
    let job = Job::new("all-idle").parallelism(3);
    job.source(source)
        .event_time("at", Watermarks::in_order().idle_after(secs(1)))
        .filter_expr(col("n").gt_eq(lit(0)))
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    [(0, 7), (1, 9)].into_iter().for_each(|(split, second)| input.push(split, batch(&[second])));
    tokio::time::sleep(secs(3)).await;
    let status = handle.status();
    for name in ["source", "filter", "sink"] {
        let own = operator(&status, name);
        assert_eq!(own.watermark_us, Some(9_000_000), "{name}");
        assert!(own.tasks.iter().all(|task| task.idle));
    }
    assert_eq!(handle.metrics().named("source").next().unwrap().watermark, Some(Timestamp::from_micros(9_000_000)));
    input.end_all();
    running.wait().await.unwrap();
    assert_eq!(operator(&handle.status(), "sink").watermark_us, Some(i64::MAX));
}

/// A job that has failed is at work no more, though rows were waiting for their calls.
#[tokio::test(start_paused = true)]
async fn what_has_failed_is_not_busy() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("failed");
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .typed::<Number>()
        .map_async(|number| {
            let (n, at) = (number.n, number.at);
            async move {
                tokio::time::sleep(secs(n as u64)).await;
                if n < 3 { Ok(Number { n, at }) } else { Err("refused") }
            }
        })
        .capacity(1)
        .fail_on_failure()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    (1..100).for_each(|second| input.push(0, batch(&[second])));
    let error = running.wait().await.unwrap_err().to_string();
    says(&error, &["refused"]);
    let busy = || operator(&handle.status(), "async map").tasks[0].busy_us;
    let then = busy();
    assert!(then > 5_000_000, "{then}");
    tokio::time::sleep(mins(1)).await;
    assert_eq!(busy(), then);
}

/// Addresses with passwords and signatures stand in the errors of what users call: they are shown without.
#[test]
fn secrets_in_the_texts_of_users_are_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let restarts = Restarts::at_most(1).waiting(millis(1)..=millis(1));
        let job = Job::new("secret").checkpoint(directory.path().to_str().unwrap(), millis(5)).restarts(restarts);
        let error = "503 of https://ann:CANARY-1@example.org/pay?token=CANARY-2&amount=5&sig=CANARY-3";
        job.source(Sequence::endless().rate(100))
            .typed::<Counted>()
            .map_async(move |number| {
                let value = number.value;
                async move { if value % 2 == 0 { Ok(Counted { value }) } else { Err(error) } }
            })
            .drop_failed()
            .sink(Slow { failures: Arc::new(AtomicU64::new(1)), fails: error, ..Slow::default() });
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let waits = tokio::spawn(running.wait());
        let status = loop {
            let status = handle.status();
            let sampled = status.operators.iter().any(|own| !own.samples.is_empty());
            if status.last_failure.is_some() && sampled {
                break status;
            }
            tokio::time::sleep(millis(2)).await;
        };
        let json = serde_json::to_string(&status).unwrap();
        assert!(!json.contains("CANARY"), "{json}");
        says(&json, &["503 of https://***@example.org/pay?token=***&amount=5&sig=***"]);
        says(&status.last_failure.unwrap().error, &["https://***@example.org/pay?token=***"]);
        // Between a failure and the restart there is nothing that could be stopped cleanly.
        while handle.status().restarts == 0 {
            tokio::time::sleep(millis(2)).await;
        }
        handle.stop();
        waits.await.unwrap().unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_paused_split_says_whom_it_waits_for() {
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
    let job = Job::new("aligned");
    job.source(source).event_time("at", Watermarks::in_order().align_within(secs(10))).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    input.push(0, batch(&[0]));
    (0..100).for_each(|second| input.push(1, batch(&[second])));
    tokio::time::sleep(secs(2)).await;
    let status = handle.status();
    let paused = operator(&status, "source").splits.iter().find(|split| split.split == "1").unwrap();
    assert_eq!((paused.state, paused.holds_back), (SplitState::Paused, false));
    says(paused.why.as_deref().unwrap(), &["more than 10s ahead of split 0 of #1 source"]);
    input.end_all();
    running.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn new_splits_are_shown() {
    let topic = Topic::new(tests::topic::batch(&[]).schema(), 1, millis(50));
    let job = Job::new("growing");
    job.source(topic.clone()).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    topic.push(0, tests::topic::batch(&[1]));
    let new = topic.add();
    tokio::time::sleep(millis(200)).await;
    topic.push(new, tests::topic::batch(&[1, 2]));
    tokio::time::sleep(millis(200)).await;
    let status = handle.status();
    let splits = &operator(&status, "source").splits;
    assert_eq!(splits.iter().map(|split| split.rows).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    handle.stop();
    running.wait().await.unwrap();
}

#[test]
fn checkpoints_are_listed_and_restarts_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    on_two_threads(async {
        let sink = Slow::default();
        let failures = sink.failures.clone();
        let job = || {
            let restarts = Restarts::at_most(5).waiting(millis(1)..=millis(1));
            let job = Job::new("saved").checkpoint(store, millis(5)).restarts(restarts);
            job.source(Sequence::endless().rate(20_000))
                .event_time("at", Watermarks::in_order())
                .key_by("value")
                .window(Tumbling::of(hours(1)))
                .aggregate([count()])
                .drop_late()
                .sink(MemorySink::new());
            job
        };
        let with_failures = job();
        with_failures.source(Sequence::endless().rate(1_000)).sink(sink);
        let running = with_failures.start().await.unwrap();
        let handle = running.handle();
        let waits = tokio::spawn(running.wait());
        while handle.status().checkpoints.completed < 5 {
            tokio::time::sleep(millis(2)).await;
        }
        failures.store(2, SeqCst);
        while handle.status().restarts < 2 || handle.status().checkpoints.completed < 55 {
            tokio::time::sleep(millis(2)).await;
        }
        handle.savepoint("one").await.unwrap();
        let status = handle.status();
        let CheckpointKind::Savepoint =
            status.checkpoints.last.iter().find(|one| one.savepoint.is_some()).unwrap().kind
        else {
            panic!("{:?}", status.checkpoints)
        };
        assert_eq!((status.restarts, status.checkpoints.last.len()), (2, 50));
        says(&status.last_failure.unwrap().error, &["it is not in the mood"]);
        let checkpoints = &status.checkpoints;
        assert_eq!((checkpoints.every_ms, checkpoints.timeout_ms), (Some(5), Some(600_000)));
        says(checkpoints.store.as_deref().unwrap(), &[store, "saved"]);
        assert!(checkpoints.restored_from.is_some(), "the first holds where the sources begin");
        assert!(checkpoints.last.iter().zip(&checkpoints.last[1..]).all(|(one, older)| one.epoch > older.epoch));
        assert_eq!(checkpoints.newest, Some(checkpoints.last[0].epoch));
        assert!(checkpoints.last.iter().all(|one| one.answered_ms <= one.took_ms && one.bytes <= one.total_bytes));
        assert!(checkpoints.last.iter().any(|one| one.segments > 0 && one.bytes > 0));
        handle.stop();
        waits.await.unwrap().unwrap();
        let status = handle.status();
        assert_eq!((status.state, status.checkpoints.last[0].kind), (State::Ended, CheckpointKind::Final));
        assert_eq!(status.checkpoints.underway, None);
    });
}

/// One task never takes the barrier; it is named.
#[test]
fn a_checkpoint_that_waits_says_for_whom() {
    let directory = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let job = Job::new("waits").checkpoint(directory.path().to_str().unwrap(), millis(20));
        job.source(Sequence::endless().rate(1_000)).sink(Slow { takes: hours(1), ..Slow::default() });
        let running = job.start().await.unwrap();
        let handle = running.handle();
        loop {
            let status = handle.status();
            if let Some(underway) =
                status.checkpoints.underway.filter(|underway| underway.missing == ["#2 sink slow (task 0)"])
                && status.now_ms > underway.since_ms + 100
            {
                break;
            }
            tokio::time::sleep(millis(5)).await;
        }
        let sink = operator(&handle.status(), "sink").tasks[0];
        assert!(sink.busy_us > 100_000, "a write that lasts is seen: {sink:?}");
    });
}

/// Rows without event time and late rows, in a window of one phase and of two; failed calls.
#[test]
fn rows_that_were_not_processed_are_shown_and_sums_are_those_of_the_metrics() {
    for parallelism in [1, 3] {
        let names: ArrayRef = Arc::new(StringArray::from_iter((0..3_000).map(|n| Some(format!("name {n}")))));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3_000));
        let times = (0..3_000).map(|n| match n {
            7 => None,
            2_000.. => Some("1970-01-01T00:00:01Z".to_string()),
            n => Some(format!("2026-01-01T00:{:02}:{:02}Z", n / 60, n % 60)),
        });
        let times: ArrayRef = Arc::new(StringArray::from_iter(times));
        let rows = RecordBatch::try_from_iter([("n", numbers), ("name", names), ("at", times)]).unwrap();
        let batches = (0..30).map(|part| rows.slice(100 * part, 100)).collect();
        let job = Job::new("samples").parallelism(parallelism);
        let (timed, rejected) = job
            .source(MemorySource::new(rows.schema(), vec![batches]))
            .event_time("at", Watermarks::in_order())
            .with_rejects();
        rejected.sink(MemorySink::new());
        let (counts, late) = timed.clone().key_by("n").window(Tumbling::of(secs(10))).aggregate([count()]).with_late();
        counts.sink(MemorySink::new());
        late.select([col("name")]).sink(MemorySink::new());
        timed.window(Tumbling::of(mins(1))).aggregate([count()]).drop_late().sink(MemorySink::new());
        let (status, metrics) = on_two_threads(async {
            let running = job.start().await.unwrap();
            let handle = running.handle();
            running.wait().await.unwrap();
            (handle.status(), handle.metrics())
        });
        let source = operator(&status, "source");
        assert_eq!((source.rows_in, source.rejected, source.kind), (3_000, 1, OperatorKind::Source));
        assert_eq!(source.splits.iter().map(|split| split.rows).sum::<u64>(), source.rows_in);
        assert_eq!(source.samples[0].kind, SampleKind::Rejected);
        says(&source.samples[0].text, &["0: column \"at\": event time is null", "name 7"]);
        let windows = status.operators.iter().filter(|operator| operator.late > 0);
        for window in windows.clone() {
            assert_eq!((window.late, window.samples[0].kind), (1_000, SampleKind::Late));
            says(&window.samples[0].text, &["n: 2000, name: name 2000, at: 1970-01-01T00:00:01Z"]);
            assert!(!window.samples[0].text.contains("__"), "{:?}", window.samples);
        }
        assert_eq!(windows.count(), 2);
        let mut compared = 0;
        for own in &status.operators {
            let metrics = metrics.named(&own.name).find(|metrics| metrics.operator == own.name).unwrap();
            assert_eq!((own.rows_in, own.rows_out, own.late), (metrics.rows_in, metrics.rows_out, metrics.late));
            assert_eq!(
                own.rows_in,
                own.processed + own.late + own.rejected + own.failed + own.in_flight,
                "{}",
                own.name
            );
            assert_eq!(own.tasks.iter().map(|task| task.rows_in).sum::<u64>(), own.rows_in);
            assert_eq!(own.tasks.iter().map(|task| task.rows_out).sum::<u64>(), own.rows_out);
            compared += 1;
        }
        assert_eq!(compared, metrics.operators.len());
        for edge in &status.edges {
            let (from, to) = (&status.operators[edge.from], &status.operators[edge.to]);
            let expected = match edge.label.as_str() {
                "" => from.rows_out,
                "late" => from.late,
                "rejected" => from.rejected,
                other => panic!("an edge {other:?}"),
            };
            assert_eq!((edge.rows, edge.rows), (expected, to.rows_in), "{edge:?} from {} to {}", from.name, to.name);
            assert_eq!(edge.queued_bytes, 0);
            assert_eq!(edge.exchange == Exchange::Chained, from.chain == to.chain);
            assert_eq!(edge.bytes > 0, from.chain != to.chain && edge.rows > 0, "{edge:?}");
        }
        let two_phases = status.operators.iter().filter(|operator| operator.first_phase).count();
        assert_eq!(two_phases, if parallelism > 1 { 1 } else { 0 });
        assert!(source.bytes_in.is_some() && operator(&status, "sink").bytes_in.is_some());
        super::bytes::are_those_of_tasks_splits_and_edges(&status);
    }
}

/// Who asks slows nobody down, and sees counts that only grow.
#[test]
fn it_may_be_asked_from_any_thread_at_any_time() {
    on_two_threads(async {
        let job = Job::new("asked").parallelism(2);
        job.source(Nexmark::new().events(300_000).splits(2).bids())
            .event_time("at", Watermarks::out_of_order(secs(5)))
            .key_by("auction")
            .window(Tumbling::of(secs(10)))
            .aggregate([count()])
            .drop_late()
            .sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handles = [running.handle(), running.handle()];
        let asks = handles.map(|handle| {
            std::thread::spawn(move || {
                let (mut asked, mut rows) = (0, 0);
                while handle.status().state != State::Ended {
                    let status = handle.status();
                    let now = operator(&status, "source").rows_out;
                    assert!(now >= rows);
                    assert!(!status.why_open("2").is_empty());
                    (asked, rows) = (asked + 1, now);
                    std::thread::sleep(millis(1));
                }
                asked
            })
        });
        let report = running.wait().await.unwrap();
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
        asks.into_iter().for_each(|asks| assert!(asks.join().unwrap() > 0));
    });
}
