//! Splits that appear while a job runs: the answer is the one a batch computation gives, time does not go back, and nobody
//! waits for who looks for them. On a clock that stands still unless everything waits.

use tests::{
    rows,
    topic::{Mood, Topic, batch, right},
};
use windrow::{JobHandle, arrow::datatypes::SchemaRef, metrics::OperatorMetrics, prelude::*};

const EVERY: std::time::Duration = millis(50);

fn schema() -> SchemaRef {
    batch(&[]).schema()
}

/// Counts per key and window of ten seconds; and the late rows.
fn counting(topic: &Topic, watermarks: Watermarks, parallelism: usize) -> (Job, MemorySink, MemorySink) {
    let (out, late) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("growing").parallelism(parallelism);
    let windows = job.source(topic.clone()).event_time("at", watermarks).key_by("n").window(Tumbling::of(secs(10)));
    let (counts, too_late) = windows.aggregate([count()]).with_late();
    counts.select(["window_start", "n", "count"].map(col)).sink(out.clone());
    too_late.sink(late.clone());
    (job, out, late)
}

fn source(job: &JobHandle) -> OperatorMetrics {
    job.metrics().named("source").next().unwrap().clone()
}

/// Lets everything run that can.
async fn settle() {
    tokio::time::sleep(millis(1)).await;
}

/// Waits until a question for new splits has been answered, and what was found is read.
async fn found() {
    tokio::time::sleep(2 * EVERY).await;
}

async fn grow(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (parallelism, disorder) = (1 + seed as usize % 4, random.i64(0..8));
    let may_idle = random.bool();
    let mut watermarks = Watermarks::out_of_order(secs(disorder as u64));
    if may_idle {
        watermarks = watermarks.idle_after(millis(random.u64(20..200)));
    }
    let first = random.usize(1..4);
    let topic = Topic::new(schema(), first, EVERY);
    let (job, out, late) = counting(&topic, watermarks, parallelism);
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let (mut pushed, mut ended, mut reached) = (Vec::new(), Vec::new(), None);
    for now in 0..200 {
        let mut into = random.usize(0..topic.partitions());
        if random.u8(0..20) == 0 {
            into = topic.add();
            if random.bool() {
                found().await;
            }
        }
        if ended.contains(&into) {
            continue;
        }
        let seconds: Vec<i64> = (0..random.usize(1..4)).map(|_| now + disorder - random.i64(0..=disorder)).collect();
        topic.push(into, batch(&seconds));
        pushed.extend(seconds);
        settle().await;
        if into + 1 == topic.partitions() && into >= first {
            // Before the watermark has passed its rows it must be known that there is such a split.
            found().await;
        }
        match random.u8(0..40) {
            0 => tokio::time::sleep(millis(random.u64(0..300))).await,
            1 if into > 0 => {
                topic.end(into);
                ended.push(into);
            }
            _ => {}
        }
        let watermark = source(&handle).watermark;
        assert!(watermark >= reached, "seed {seed}: from {reached:?} back to {watermark:?}");
        reached = watermark;
    }
    found().await;
    assert_eq!(source(&handle).rows_in, pushed.len() as u64, "seed {seed}: all splits are read");
    topic.end_all();
    let report = running.wait().await.unwrap();
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
    assert_eq!(rows(&late.batches()), Vec::<String>::new(), "seed {seed}: late rows");
    assert_eq!(rows(&out.batches()), right(&pushed), "seed {seed}: {parallelism} tasks, idle: {may_idle}");
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_that_of_a_batch_computation_whenever_splits_appear() {
    for seed in 0..200 {
        tokio::time::timeout(hours(1), grow(seed)).await.unwrap_or_else(|_| panic!("seed {seed} hangs"));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_new_split_behind_the_watermark_are_told_as_late() {
    for parallelism in 1..=4 {
        let topic = Topic::new(schema(), 2, EVERY);
        let (job, out, late) = counting(&topic, Watermarks::in_order(), parallelism);
        let running = job.start().await.unwrap();
        topic.push(0, batch(&[100]));
        topic.push(1, batch(&[100]));
        found().await;
        let new = topic.add();
        topic.push(new, batch(&[3, 104, 7]));
        found().await;
        topic.end_all();
        running.wait().await.unwrap();
        assert_eq!(rows(&out.batches()), right(&[100, 100, 104]));
        assert_eq!(late.rows(), 2, "each of them once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_new_split_holds_windows_until_it_is_idle() {
    for (watermarks, holds) in [(Watermarks::in_order(), true), (Watermarks::in_order().idle_after(secs(5)), false)] {
        for parallelism in 1..=3 {
            let topic = Topic::new(schema(), 2, EVERY);
            let (job, out, _) = counting(&topic, watermarks.clone(), parallelism);
            let running = job.start().await.unwrap();
            settle().await;
            let new = topic.add();
            found().await;
            // The others are never silent for long.
            for second in 0..20 {
                (0..2).for_each(|split| topic.push(split, batch(&[second])));
                tokio::time::sleep(secs(1)).await;
                let complete = out.written().len();
                assert!(complete == 0 || (!holds && second > 9), "{complete} results at {second}");
            }
            assert_eq!(out.written().is_empty(), holds);
            topic.push(new, batch(&[25]));
            topic.end_all();
            running.wait().await.unwrap();
            let all: Vec<i64> = (0..20).flat_map(|second| [second, second]).chain([25]).collect();
            assert_eq!(rows(&out.batches()), right(&all));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_split_that_has_not_spoken_holds_the_watermark_after_a_restore_too() {
    for (mute, before, after) in [(false, 1, 1), (false, 2, 2), (true, 1, 1), (true, 1, 2), (true, 2, 3)] {
        let store = tempfile::tempdir().unwrap();
        let topic = Topic::new(schema(), 2, EVERY);
        let topic = if mute { topic.mute() } else { topic };
        let start = async |parallelism| {
            let (job, _, late) = counting(&topic, Watermarks::in_order(), parallelism);
            (job.checkpoint(store.path().to_str().unwrap(), hours(100)).start().await.unwrap(), late)
        };
        let (running, _) = start(before).await;
        (0..2).for_each(|split| topic.push(split, batch(&[60])));
        settle().await;
        let new = topic.add();
        found().await;
        (0..2).for_each(|split| topic.push(split, batch(&[75])));
        settle().await;
        running.handle().stop_with_savepoint("new").await.unwrap();
        running.wait().await.unwrap();

        let (running, late) = start(after).await;
        (0..2).for_each(|split| topic.push(split, batch(&[90])));
        found().await;
        topic.push(new, batch(&[65]));
        topic.end_all();
        running.wait().await.unwrap();
        assert_eq!(late.rows(), 0, "mute: {mute}, {before} → {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_asked_is_read_on_with_a_warning() {
    for (mood, told) in [(Mood::Fails, "bad mood"), (Mood::Hangs, "has not answered for 50ms")] {
        let topic = Topic::new(schema(), 1, EVERY);
        let (job, out, _) = counting(&topic, Watermarks::in_order(), 2);
        let running = job.start().await.unwrap();
        let handle = running.handle();
        found().await;
        assert_eq!(handle.warnings(), Vec::<String>::new());
        topic.mood(mood);
        let new = topic.add();
        topic.push(new, batch(&[1]));
        topic.push(0, batch(&[2]));
        tokio::time::sleep(secs(1)).await;
        let warnings = handle.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(told) && warnings[0].contains("#1 source"), "{warnings:?}");
        assert_eq!(source(&handle).rows_in, 1, "what is known is read");
        topic.mood(Mood::Well);
        found().await;
        assert_eq!(handle.warnings(), Vec::<String>::new());
        topic.end_all();
        running.wait().await.unwrap();
        assert_eq!(rows(&out.batches()), right(&[1, 2]));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_asks_keeps_a_job_from_its_end() {
    for stops in [false, true] {
        let topic = Topic::new(schema(), 3, EVERY);
        let (job, ..) = counting(&topic, Watermarks::in_order(), 2);
        let running = job.start().await.unwrap();
        topic.mood(Mood::Hangs);
        found().await;
        match stops {
            true => running.handle().stop(),
            false => topic.end_all(),
        }
        let ended = tokio::time::timeout(millis(1), running.wait()).await.expect("it waits for nobody").unwrap();
        assert_eq!(ended.stopped, stops);
    }
}

#[tokio::test(start_paused = true)]
async fn splits_go_to_tasks_that_have_not_ended() {
    let topic = Topic::new(schema(), 2, EVERY);
    let (job, out, late) = counting(&topic, Watermarks::in_order(), 2);
    let running = job.start().await.unwrap();
    topic.push(1, batch(&[1]));
    topic.end(0);
    settle().await;
    for second in 2..6 {
        let new = topic.add();
        topic.push(new, batch(&[second]));
    }
    found().await;
    topic.end_all();
    running.wait().await.unwrap();
    assert_eq!((rows(&out.batches()), late.rows()), (right(&[1, 2, 3, 4, 5]), 0));
}

#[tokio::test(start_paused = true)]
async fn a_source_may_begin_without_splits() {
    for parallelism in [1, 3] {
        let topic = Topic::new(schema(), 0, EVERY);
        let (job, out, late) = counting(&topic, Watermarks::in_order(), parallelism);
        let running = job.start().await.unwrap();
        found().await;
        topic.add();
        topic.add();
        topic.push(0, batch(&[1, 20]));
        topic.push(1, batch(&[2, 30]));
        found().await;
        assert_eq!(rows(&out.written()).len(), 2, "[0, 10) is complete");
        topic.end_all();
        running.wait().await.unwrap();
        assert_eq!((rows(&out.batches()), late.rows()), (right(&[1, 20, 2, 30]), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_split_that_cannot_be_read_yet_is_asked_for_again() {
    let topic = Topic::new(schema(), 1, EVERY);
    let (job, out, late) = counting(&topic, Watermarks::in_order(), 1);
    let running = job.start().await.unwrap();
    let handle = running.handle();
    topic.adding(Mood::Fails);
    let new = topic.add();
    topic.push(new, batch(&[2]));
    found().await;
    assert!(handle.warnings().concat().contains("1 split is not read yet"), "{:?}", handle.warnings());
    topic.push(0, batch(&[1]));
    settle().await;
    assert_eq!(source(&handle).rows_in, 1, "the others are read on");
    topic.adding(Mood::Well);
    tokio::time::sleep(secs(6)).await;
    assert_eq!(source(&handle).rows_in, 2);
    topic.end_all();
    running.wait().await.unwrap();
    assert_eq!((rows(&out.batches()), late.rows()), (right(&[1, 2]), 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_split_that_cannot_be_read_yet_keeps_no_other_from_being_read() {
    for parallelism in [1, 2] {
        let topic = Topic::new(schema(), 2, EVERY);
        let (job, out, late) = counting(&topic, Watermarks::out_of_order(hours(1)), parallelism);
        let running = job.start().await.unwrap();
        let handle = running.handle();
        settle().await;
        topic.adding(Mood::AllBut(4));
        for second in 2..9 {
            let new = topic.add();
            topic.push(new, batch(&[second]));
        }
        found().await;
        assert_eq!(source(&handle).rows_in, 6, "all but that one");
        let warnings = handle.warnings().concat();
        assert!(warnings.contains(": 1 split is not read yet"), "{warnings}");
        topic.adding(Mood::Well);
        tokio::time::sleep(millis(5_010)).await;
        assert_eq!(source(&handle).rows_in, 7);
        assert_eq!(handle.warnings(), Vec::<String>::new());
        topic.end_all();
        running.wait().await.unwrap();
        assert_eq!((rows(&out.batches()), late.rows()), (right(&[2, 3, 4, 5, 6, 7, 8]), 0));
    }
}

/// With a clock that goes on, because checkpoints are written meanwhile.
#[tokio::test]
async fn checkpoints_go_on_while_a_reader_finds_out_where_a_split_begins() {
    let store = tempfile::tempdir().unwrap();
    let topic = Topic::new(schema(), 1, EVERY);
    let (job, _, _) = counting(&topic, Watermarks::in_order(), 1);
    let job = job.checkpoint(store.path().to_str().unwrap(), millis(20));
    let running = job.start().await.unwrap();
    let handle = running.handle();
    topic.adding(Mood::Hangs);
    topic.add();
    found().await;
    tokio::time::timeout(secs(20), handle.savepoint("meanwhile")).await.expect("a checkpoint").unwrap();
    topic.adding(Mood::Well);
    topic.push(1, batch(&[1]));
    found().await;
    assert_eq!(source(&handle).rows_in, 1);
    topic.end_all();
    running.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_is_told_how_many_records_wait() {
    for parallelism in [1, 2] {
        let (topic, other) = (Topic::new(schema(), 2, EVERY), Topic::new(schema(), 1, EVERY));
        let aligned = || Watermarks::in_order().align_within(secs(10));
        let job = Job::new("behind").parallelism(parallelism);
        let (left, right) = (job.source(topic.clone()), job.source(other.clone()));
        left.event_time("at", aligned()).union(right.event_time("at", aligned())).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        settle().await;
        assert_eq!((source(&handle).lag, source(&handle).furthest_behind.map(|most| most.1)), (Some(0), Some(0)));
        // The other source is behind, so most of this is not read.
        other.push(0, batch(&[0]));
        topic.push(0, batch(&[0]));
        topic.push(1, batch(&[0]));
        settle().await;
        [0, 0, 1].into_iter().for_each(|split| topic.push(split, batch(&[100])));
        topic.push(1, batch(&[110, 120]));
        tokio::time::sleep(secs(2)).await;
        // Each split has gone beyond the limit by one batch.
        assert_eq!(source(&handle).lag, Some(3));
        assert_eq!(source(&handle).furthest_behind, Some(("p1".into(), 2)));
        assert!(
            handle.metrics().to_string().contains("3 records behind, 2 of them in split p1"),
            "{}",
            handle.metrics()
        );
        // No row comes, and it is noticed all the same.
        topic.push(0, batch(&[130, 140, 150]));
        tokio::time::sleep(secs(2)).await;
        assert_eq!((source(&handle).lag, source(&handle).furthest_behind), (Some(6), Some(("p0".into(), 4))));
        topic.end_all();
        other.end_all();
        let report = running.wait().await.unwrap();
        assert_eq!(report.metrics.operators[0].lag, None, "nothing is read any more");
        assert!(!report.metrics.to_string().contains("behind"));
    }
}

#[test]
fn splits_may_appear_at_any_moment_between_threads() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        // A bound that nothing exceeds.
        let topic = Topic::new(schema(), random.usize(1..3), millis(1));
        let (job, out, late) = counting(&topic, Watermarks::out_of_order(hours(1)), 1 + seed as usize % 4);
        let mut pushed = Vec::new();
        let report = tests::on_two_threads(async {
            let running = job.start().await.unwrap();
            let handle = running.handle();
            for second in 0..200 {
                let into = match random.u8(0..10) {
                    0 => topic.add(),
                    _ => random.usize(0..topic.partitions()),
                };
                topic.push(into, batch(&[second]));
                pushed.push(second);
                if random.u8(0..10) == 0 {
                    tokio::time::sleep(millis(1)).await;
                }
            }
            while source(&handle).rows_in < pushed.len() as u64 {
                tokio::task::yield_now().await;
            }
            topic.end_all();
            running.wait().await.unwrap()
        });
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
        assert_eq!((rows(&out.batches()), late.rows()), (right(&pushed), 0), "seed {seed}");
    }
}
