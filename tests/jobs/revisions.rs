//! Windows that give more than one result, in whole jobs: corrections, early results by rows and by the clock, all time.

use tests::{rows, run};
use windrow::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    prelude::*,
};

fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let amount: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let at = Timestamp::column(rows.iter().map(|row| row.1 * 1_000_000).collect());
    RecordBatch::try_from_iter([("amount", amount), ("at", at)]).unwrap()
}

fn source(batches: &[&[(i64, i64)]]) -> MemorySource {
    let batches = batches.iter().map(|rows| batch(rows)).collect();
    MemorySource::new(batch(&[]).schema(), vec![batches]).one_by_one()
}

#[test]
fn a_late_row_corrects_its_window_and_the_next_window_in_line_takes_the_correction() {
    let job = Job::new("corrected");
    let (out, late) = (MemorySink::new(), MemorySink::new());
    let (totals, too_late) = job
        .source(source(&[&[(1, 1)], &[(2, 12)], &[(4, 3)], &[(8, 45)], &[(16, 4)]]))
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(secs(10)).allowed_lateness(secs(20)).corrections())
        .aggregate([sum(col("amount")).alias("total")])
        .with_late();
    totals
        .window(Tumbling::of(secs(60)))
        .aggregate([count().alias("results"), max(col("revision")).alias("revision"), max(col("total")).alias("most")])
        .drop_late()
        .select(["results", "revision", "most"].map(col))
        .sink(out.clone());
    too_late.select([col("amount")]).sink(late.clone());
    let report = run(job).unwrap();
    assert_eq!(rows(&out.batches()), ["4|1|8"], "[0, 10) twice: 1 and 5; [10, 20); [40, 50)");
    assert_eq!(rows(&late.batches()), ["16"]);
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

#[test]
fn early_results_by_rows_come_before_the_end() {
    let job = Job::new("early");
    let out = MemorySink::new();
    job.source(source(&[&[(1, 1), (1, 2)], &[(1, 3)], &[(1, 4)]]))
        .event_time("at", Watermarks::in_order())
        .window(Tumbling::of(secs(10)).early_rows(2))
        .aggregate([count()])
        .drop_late()
        .select(["revision", "count"].map(col))
        .sink(out.clone());
    run(job).unwrap();
    assert_eq!(rows(&out.batches()), ["0|2", "1|4"]);
}

#[test]
fn a_late_row_corrects_every_hopping_window_that_it_is_in() {
    let job = Job::new("corrected-hopping");
    let (out, late) = (MemorySink::new(), MemorySink::new());
    let (totals, too_late) = job
        .source(source(&[&[(1, 1)], &[(2, 12)], &[(4, 3)], &[(8, 45)], &[(16, 4)]]))
        .event_time("at", Watermarks::in_order())
        .window(Hopping::of(secs(20), secs(10)).allowed_lateness(secs(20)).corrections())
        .aggregate([sum(col("amount")).alias("total")])
        .with_late();
    totals.select(["revision", "total"].map(col)).sink(out.clone());
    too_late.select([col("amount")]).sink(late.clone());
    let report = run(job).unwrap();
    let expected = ["0|1", "0|2", "0|7", "0|8", "0|8", "1|5"];
    assert_eq!(rows(&out.batches()), expected, "[-10, 10): 1, then 5; [0, 20), [10, 30); [30, 50), [40, 60)");
    assert_eq!(rows(&late.batches()), ["16"]);
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

#[test]
fn a_late_row_makes_one_session_of_two_that_had_given_their_result() {
    let job = Job::new("corrected-sessions");
    let out = MemorySink::new();
    job.source(source(&[&[(1, 1)], &[(2, 15)], &[(4, 40)], &[(8, 9)]]))
        .event_time("at", Watermarks::in_order())
        .window(Session::gap(secs(10)).allowed_lateness(secs(35)).corrections().early_rows(100))
        .aggregate([sum(col("amount")).alias("total")])
        .drop_late()
        .select(["revision", "total"].map(col))
        .sink(out.clone());
    let report = run(job).unwrap();
    assert_eq!(rows(&out.batches()), ["0|1", "0|2", "0|4", "1|11"], "[1, 11), [15, 25), [40, 50); [1, 25)");
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

/// Without event time, by tokio's clock, which leaps when all wait.
#[tokio::test(start_paused = true)]
async fn a_window_over_all_time_gives_results_by_the_clock() {
    let (hand, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
    let job = Job::new("so-far");
    let out = MemorySink::new();
    job.source(source)
        .window(Global::every(secs(5)))
        .aggregate([sum(col("amount")).alias("total")])
        .drop_late()
        .sink(out.clone());
    let running = job.start().await.unwrap();
    for (amount, results) in [(1, 1), (2, 2)] {
        hand.push(0, batch(&[(amount, 0)]));
        let written = async {
            while out.written().len() < results {
                tokio::time::sleep(millis(100)).await;
            }
        };
        tokio::time::timeout(secs(60), written).await.expect("the clock gives a result");
    }
    hand.end_all();
    running.wait().await.unwrap();
    assert_eq!(rows(&out.batches()), ["0|1", "1|3"]);
}
