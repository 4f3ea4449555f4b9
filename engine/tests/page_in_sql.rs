//! The page of a job that can be asked in SQL, in a real browser: the answers are those of the engine and not of a mock. Apart from
//! `tests/browser`, whose programs are built without DataFusion's SQL.

#![cfg(unix)]
#![allow(missing_docs, reason = "derive(Record) makes public types")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "other tests want more of a browser")]
#[path = "../../tests/browser/driver.rs"]
mod driver;

use std::{env, io::Write, sync::Arc, time::Duration};

use driver::Browser;
use typed_arrow::schema::SchemaMeta;
use windrow::{
    JobHandle,
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    prelude::*,
};

/// As the other tests in a browser have it.
const TOO_LONG: Duration = Duration::from_secs(120);
/// The first whole number that a JavaScript number cannot hold.
const LARGE: i64 = (1 << 53) + 1;
const ROWS: i64 = 10_001;

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
    at: Timestamp,
}

fn batch(bids: impl Iterator<Item = (i64, i64)> + Clone) -> RecordBatch {
    let column =
        |value: fn((i64, i64)) -> i64| -> ArrayRef { Arc::new(bids.clone().map(value).collect::<Int64Array>()) };
    let at = Timestamp::column(bids.clone().map(|_| 0).collect());
    RecordBatch::try_new(Bid::schema(), vec![column(|bid| bid.0), column(|bid| bid.1), at]).unwrap()
}

/// Says that the test is skipped. Not by `eprintln`, which is silent in a test that passes.
fn skip<T>(reason: &str) -> Option<T> {
    let may_not = env::var_os("WINDROW_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!may_not, "skipped: {reason}; and WINDROW_NO_SKIP=1 forbids that");
    let name = std::thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(std::io::stderr(), "{name} ... skipped: {reason}");
    None
}

async fn until_read(job: &JobHandle, rows: u64) {
    let waits = async {
        while job.status().operators[0].rows_out < rows {
            tokio::time::sleep(millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(TOO_LONG, waits).await.is_ok(), "{rows} rows are not read");
}

#[test]
fn answers_are_exact_and_say_of_which_epoch_they_are_and_what_is_left_out() {
    let Some(browser) = Browser::start("sql") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (input, source) = MemorySource::by_hand(Bid::schema(), 1);
    // The next checkpoint is one that somebody asks for.
    let job = Job::new("bids").checkpoint(directory.path().to_str().unwrap(), hours(1)).serve("127.0.0.1:0");
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .key_by("auction")
        .window(Tumbling::of(hours(1)))
        .aggregate([count().alias("bids"), max(col("price")).alias("highest")])
        .drop_late()
        .id("Per-auction")
        .sink(MemorySink::new());
    let running = runtime.block_on(job.start()).unwrap();
    let (handle, served) = (running.handle(), running.served().unwrap());
    let (host, url) = (served.address().to_string(), served.url());
    let ended = runtime.spawn(running.wait());
    input.push(0, batch([(LARGE, i64::MAX), (LARGE, 7), (2, 9)].into_iter()));
    runtime.block_on(until_read(&handle, 3));
    let first = runtime.block_on(handle.savepoint("one")).unwrap();

    browser.open(&url);
    browser.reads("#state", "running");
    browser.reads("#sql select", "Per-auction");
    let asks = |sql: &str, says: &str| {
        browser.write("#sql textarea", sql);
        browser.click("#sql button[type=submit]");
        browser.reads("#sql [role=status]", says)
    };
    let cells = || browser.texts("#sql tbody td");
    asks("select auction, bids, highest from state order by auction desc", &format!("2 rows as of checkpoint {first}"));
    assert_eq!(cells(), ["9007199254740993", "2", "9223372036854775807", "2", "1", "9"]);
    let heads: Vec<String> = browser.texts("#sql th").iter().map(|head| head.to_lowercase()).collect();
    assert_eq!(heads, ["auction", "bids", "highest"]);
    browser.reads("#sql .side p", "tumbling 3600s");
    browser.screenshot("exact");

    // What has come since is in the state, and in no checkpoint yet.
    input.push(0, batch((0..ROWS).map(|auction| (10 + auction, 1))));
    runtime.block_on(until_read(&handle, 3 + ROWS as u64));
    asks("select count(*) as keys from state", &format!("1 row as of checkpoint {first}"));
    assert_eq!(cells(), ["2"]);
    browser.click("#sql input[type=checkbox]");
    let said = asks("select count(*) as keys, 'now' as fresh from state", "1 row as of checkpoint ");
    browser.reads("#sql tbody", "now");
    assert_eq!(cells(), [(ROWS + 2).to_string(), "now".into()], "{said}");
    let newest = handle.status().checkpoints.newest.unwrap();
    assert!(newest > first.0);
    browser.click("#sql input[type=checkbox]");

    let says = format!(
        "10,000 rows, of which the first 1000 are shown as of checkpoint {newest}; there are more, which are left out"
    );
    asks("select auction from state order by auction", &says);
    let shown = browser.texts("#sql tbody tr");
    assert_eq!((shown.len(), shown[0].trim(), shown[999].trim()), (1_000, "2", "1008"));
    browser.screenshot("truncated");

    browser.complains_only_of(&[]);
    browser.write("#sql textarea", "drop table state");
    browser.click("#sql button[type=submit]");
    browser.reads("#sql .notice.bad", "");
    assert_eq!(cells(), Vec::<String>::new(), "no rows of another question stay");
    browser.complains_only_of(&["status of 400"]);
    input.end_all();
    runtime.block_on(ended).unwrap().unwrap();
    browser.finish(&[host], &["net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET"]);
}
