//! The state of a stopped job, asked in SQL.

#![allow(missing_docs, reason = "derive(Record) makes public types")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use windrow::{
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::Int64Type,
    },
    prelude::*,
};

use typed_arrow::schema::SchemaMeta;

#[derive(Record, Clone)]
struct Bid {
    auction: i64,
    price: i64,
    at: Timestamp,
}

#[tokio::test]
async fn a_stopped_job_is_asked_in_sql() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let bid = |auction, price, at| Bid { auction, price, at: Timestamp::from_micros(at) };
    let bids = vec![bid(1, 5, 0), bid(1, 7, 10), bid(2, 9, 1_000_010), bid(1, 1, 1_000_020), bid(2, 3, 1_000_030)];
    let rows = bids.len() as u64;
    let (input, source) = MemorySource::by_hand(Bid::schema(), 1);
    let job = Job::new("bids").checkpoint(store, hours(1));
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .key_by("auction")
        .window(Tumbling::of(secs(1)))
        .aggregate([count().alias("bids"), max(col("price")).alias("highest")])
        .drop_late()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let batch = batch_of(bids);
    input.push(0, batch);
    while handle.metrics().named("source").all(|source| source.rows_out < rows) {
        tokio::task::yield_now().await;
    }
    handle.stop();
    running.wait().await.unwrap();

    let state = windrow::state::open(format!("{store}/bids")).await.unwrap();
    let context = state.context().unwrap();
    let answer = context.sql("select auction, bids, highest from window_1 order by auction").await.unwrap();
    let answer: Vec<RecordBatch> = answer.collect().await.unwrap();
    let column = |i: usize| -> Vec<i64> {
        answer.iter().flat_map(|batch| batch.column(i).as_primitive::<Int64Type>().values().to_vec()).collect()
    };
    assert_eq!((column(0), column(1), column(2)), (vec![1, 2], vec![1, 2], vec![1, 9]), "the first window has fired");
    let splits = context.sql("select split from source_1 where not ended").await.unwrap().collect().await.unwrap();
    assert_eq!(splits.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

/// Records as one batch.
fn batch_of(bids: Vec<Bid>) -> RecordBatch {
    use windrow::arrow::array::{ArrayRef, Int64Array};
    let number =
        |value: fn(&Bid) -> i64| -> ArrayRef { std::sync::Arc::new(bids.iter().map(value).collect::<Int64Array>()) };
    let at = Timestamp::column(bids.iter().map(|bid| bid.at.micros()).collect());
    RecordBatch::try_new(Bid::schema(), vec![number(|bid| bid.auction), number(|bid| bid.price), at]).unwrap()
}
