//! What moves a watermark: a rule of the user's, rows from the future, the clock. On a clock that stands still unless
//! everything waits.

use std::{sync::Arc, time::SystemTime};

use tests::rows;
use windrow::{
    WatermarkGenerator,
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::Int64Type,
    },
    metrics::OperatorMetrics,
    prelude::*,
};

fn batch(times: &[i64]) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(times.iter().copied()));
    let at = Timestamp::column(times.iter().map(|t| t * 1_000_000).collect());
    RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
}

fn written(out: &MemorySink) -> Vec<String> {
    rows(&out.written())
}

fn late(operators: &[OperatorMetrics]) -> u64 {
    operators.iter().map(|operator| operator.late).sum()
}

/// A row whose `n` is negative says that everything before it has come.
struct Punctuation;

impl WatermarkGenerator for Punctuation {
    fn after_rows(&mut self, rows: &RecordBatch, times: &[i64]) -> Option<Timestamp> {
        assert_eq!(rows.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["n", "at"]);
        assert_eq!(rows.num_rows(), times.len());
        let n = rows.column(0).as_primitive::<Int64Type>();
        let last = n.values().iter().rposition(|n| *n < 0)?;
        Some(Timestamp::from_micros(times[last]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_generator_of_each_split_says_how_far_time_is() {
    for hidden in [false, true] {
        // With text as event time there is a hidden column, which the generator does not see.
        let rows_of = |rows: &[(i64, i64)]| {
            let n: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
            let times: Vec<i64> = rows.iter().map(|row| row.1 * 1_000_000).collect();
            let text = times.iter().map(|time| Timestamp::from_micros(*time).to_string());
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(text));
            let at = if hidden { text } else { Timestamp::column(times) };
            RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
        };
        for parallelism in [1, 2] {
            let (input, source) = MemorySource::by_hand(rows_of(&[]).schema(), 2);
            let job = Job::new("punctuated").parallelism(parallelism);
            let out = MemorySink::new();
            job.source(source)
                .event_time("at", Watermarks::custom(|| Punctuation))
                .window(Tumbling::of(secs(10)))
                .aggregate([count()])
                .drop_late()
                .select([col("count")])
                .sink(out.clone());
            let running = job.start().await.unwrap();
            // Far out of order, and nobody has said that anything is complete.
            input.push(0, rows_of(&[(1, 100), (1, 5), (1, 3)]));
            input.push(1, rows_of(&[(-1, 90)]));
            tokio::time::sleep(secs(1)).await;
            assert_eq!(written(&out), Vec::<String>::new());
            input.push(0, rows_of(&[(-1, 10), (1, 200), (1, 17)]));
            tokio::time::sleep(secs(1)).await;
            assert_eq!(written(&out), ["2"], "[0, 10) is complete");
            // A generator that goes back is not followed.
            input.push(0, rows_of(&[(-1, 4), (1, 11)]));
            input.end_all();
            let report = running.wait().await.unwrap();
            assert_eq!(late(&report.metrics.operators), 1, "the row at 4 s");
            assert_eq!(rows(&out.batches()), ["1", "1", "1", "2", "3"]);
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[tokio::test(start_paused = true)]
async fn one_row_a_day_ahead_makes_no_honest_row_late() {
    let (now, day) = (now(), 86_400);
    let strict = Watermarks::out_of_order(secs(30));
    for (watermarks, bounded) in [(strict.clone(), false), (strict.max_future(secs(20)), true)] {
        for splits in [1, 2] {
            let (input, source) = MemorySource::by_hand(batch(&[]).schema(), splits);
            let job = Job::new("future").parallelism(splits);
            let out = MemorySink::new();
            job.source(source)
                .event_time("at", watermarks.clone())
                .window(Tumbling::of(secs(1)))
                .aggregate([count()])
                .drop_late()
                .sink(out.clone());
            let running = job.start().await.unwrap();
            for split in 0..splits {
                input.push(split, batch(&[now, now + day]));
                input.push(split, batch(&[now + day + 1]));
            }
            for second in 0..9 {
                tokio::time::sleep(secs(1)).await;
                (0..splits).for_each(|split| input.push(split, batch(&[now + second, now + second - 8])));
            }
            input.end_all();
            let report = running.wait().await.unwrap();
            let operators = &report.metrics.operators;
            assert_eq!(late(operators) == 0, bounded, "{watermarks}");
            let future = if bounded { 2 * splits as u64 } else { 0 };
            assert_eq!(operators[0].future, future);
            assert_eq!(report.metrics.to_string().contains("rows are from the future"), bounded);
            assert_eq!(operators[0].latest, Some(Timestamp::from_micros((now + day + 1) * 1_000_000)));
            if bounded {
                // The rows from the future are in windows of their own.
                assert!(out.rows() >= 18);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_read_as_ever_and_one_row_from_the_future_in_it_moves_nothing() {
    let batches = vec![batch(&[10, 20, now() * 2, 30]), batch(&[25, 40]), batch(&[50])];
    let job = Job::new("history");
    let out = MemorySink::new();
    job.source(MemorySource::batches(batches))
        .event_time("at", Watermarks::out_of_order(secs(5)).max_future(mins(1)))
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .sink(out.clone());
    let report = job.run().await.unwrap();
    assert_eq!((late(&report.metrics.operators), report.metrics.operators[0].future), (0, 1));
    assert_eq!(out.rows(), 6);
}

#[tokio::test(start_paused = true)]
async fn windows_end_by_the_clock_and_no_row_is_late() {
    for parallelism in [1, 2] {
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 3);
        let job = Job::new("processing").parallelism(parallelism);
        let out = MemorySink::new();
        job.source(source)
            .processing_time()
            .window(Tumbling::of(secs(10)))
            .aggregate([count(), sum(col("n")).alias("n")])
            .drop_late()
            .select([col("n")])
            .sink(out.clone());
        assert!(job.to_string().contains("watermarks: processing time"), "{job}");
        let running = job.start().await.unwrap();
        // What the rows say of time does not matter, nor that two splits are silent; one ends.
        for n in [1_000, 5, 300] {
            input.push(0, batch(&[n]));
        }
        input.end(2);
        tokio::time::sleep(secs(11)).await;
        assert_eq!(written(&out), ["1305"], "nothing has come since, and the window has ended");
        input.push(1, batch(&[7]));
        tokio::time::sleep(secs(11)).await;
        assert_eq!(written(&out), ["1305", "7"]);
        input.push(1, batch(&[8]));
        input.end_all();
        let report = running.wait().await.unwrap();
        assert_eq!(late(&report.metrics.operators), 0);
        assert_eq!(rows(&out.batches()), ["1305", "7", "8"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_in_processing_time_does_not_go_back_with_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 3);
    let out = MemorySink::new();
    let start = async |parallelism| {
        let job = Job::new("back").parallelism(parallelism);
        let windows = job.source(source.clone()).processing_time().window(Tumbling::of(secs(10))).aggregate([count()]);
        windows.drop_late().sink(out.clone());
        job.checkpoint(store, hours(10)).start().await.unwrap()
    };
    let running = start(2).await;
    input.push(0, batch(&[1]));
    // The clock of the next life begins with the time on the wall, where this hour has not passed.
    tokio::time::sleep(hours(1)).await;
    input.push(1, batch(&[1]));
    tokio::time::sleep(millis(300)).await;
    running.handle().stop_with_savepoint("later").await.unwrap();
    running.wait().await.unwrap();

    let running = start(3).await;
    let reached = |running: &windrow::RunningJob| running.handle().metrics().operators[0].watermark.unwrap();
    tokio::time::sleep(millis(300)).await;
    let began = reached(&running);
    input.push(2, batch(&[1]));
    input.push(1, batch(&[1]));
    tokio::time::sleep(mins(30)).await;
    assert_eq!(reached(&running), began, "the clock has not come there");
    tokio::time::sleep(mins(40)).await;
    assert!(reached(&running) > began);
    input.end_all();
    let report = running.wait().await.unwrap();
    assert_eq!(late(&report.metrics.operators), 0);
    let counts: i64 = out
        .batches()
        .iter()
        .flat_map(|batch| batch.column_by_name("count").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .sum();
    assert_eq!(counts, 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_promised_is_promised_after_a_restore() {
    let (now, day) = (now(), 86_400);
    let strategies = [
        (Watermarks::custom(|| Punctuation).idle_after(hours(1)), now - 60),
        (Watermarks::out_of_order(secs(30)).max_future(secs(20)), now - 30),
    ];
    for (watermarks, promised) in strategies {
        for (before, after) in [(1, 1), (2, 1), (1, 2), (2, 3)] {
            let directory = tempfile::tempdir().unwrap();
            let store = directory.path().to_str().unwrap();
            let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 2);
            let out = MemorySink::new();
            let start = async |parallelism| {
                let job = Job::new("promises").parallelism(parallelism);
                let rows = job.source(source.clone()).event_time("at", watermarks.clone());
                rows.window(Tumbling::of(secs(1))).aggregate([count()]).drop_late().sink(out.clone());
                job.checkpoint(store, hours(10)).start().await.unwrap()
            };
            let running = start(before).await;
            for split in 0..2 {
                input.push(split, batch(&[now - 60, now, now + day]));
                let n: ArrayRef = Arc::new(Int64Array::from(vec![-1]));
                let at = Timestamp::column(vec![(now - 60) * 1_000_000]);
                input.push(split, RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap());
            }
            let reached = |running: &windrow::RunningJob| running.handle().metrics().operators[0].watermark;
            tokio::time::sleep(secs(1)).await;
            let promised = Some(Timestamp::from_micros(promised * 1_000_000));
            assert_eq!(reached(&running), promised);
            running.handle().stop_with_savepoint("promised").await.unwrap();
            running.wait().await.unwrap();
            let running = start(after).await;
            tokio::time::sleep(secs(1)).await;
            let windows = running.handle().metrics().named("window").next().unwrap().watermark;
            assert_eq!(windows, promised, "{watermarks}, {before} → {after}");
            input.end_all();
            running.wait().await.unwrap();
        }
    }
}

#[test]
fn event_time_is_declared_once() {
    let job = Job::new("twice");
    let source = || job.source(Sequence::new(1));
    source().event_time("at", Watermarks::in_order()).processing_time().sink(MemorySink::new());
    source().processing_time().event_time("at", Watermarks::in_order()).sink(MemorySink::new());
    let error = tests::run(job).unwrap_err().to_string();
    assert_eq!(error.matches("its event time has been declared already").count(), 2, "{error}");
}
