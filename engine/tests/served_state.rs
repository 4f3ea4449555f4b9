//! The state of a running job, asked in SQL over HTTP: as of one epoch, by select only.

#![allow(missing_docs, reason = "derive(Record) makes public types")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use typed_arrow::schema::SchemaMeta;
use windrow::{
    JobHandle,
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    prelude::*,
    serve::{ExposeSecret, Served},
};

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
    at: Timestamp,
}

fn batch(bids: &[(i64, i64)]) -> RecordBatch {
    let column =
        |value: fn(&(i64, i64)) -> i64| -> ArrayRef { Arc::new(bids.iter().map(value).collect::<Int64Array>()) };
    let at = Timestamp::column(bids.iter().map(|_| 0).collect());
    RecordBatch::try_new(Bid::schema(), vec![column(|bid| bid.0), column(|bid| bid.1), at]).unwrap()
}

/// The status and the JSON of an answer.
fn ask(served: &Served, request: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(served.address()).unwrap();
    stream.set_read_timeout(Some(mins(1))).unwrap();
    let (token, length) = (served.token().expose_secret(), body.len());
    let headers =
        format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {length}");
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn get(served: &Served, operator: &str, sql: &str, more: &str) -> (u16, Value) {
    let [operator, sql] = [operator, sql].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
    ask(served, &format!("GET /state/{operator}?sql={sql}{more}"), "")
}

async fn until_read(job: &JobHandle, rows: u64) {
    let waits = async {
        while job.status().operators[0].rows_out < rows {
            tokio::time::sleep(millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(mins(1), waits).await.is_ok(), "{rows} rows are not read");
}

fn job(store: &str) -> (Job, windrow::connectors::memory::MemoryInput) {
    let (input, source) = MemorySource::by_hand(Bid::schema(), 1);
    let job = Job::new("bids").checkpoint(store, hours(1)).serve("127.0.0.1:0");
    job.source(source)
        .event_time("at", Watermarks::in_order())
        .key_by("auction")
        .window(Tumbling::of(hours(1)))
        .aggregate([count().alias("bids"), max(col("price")).alias("highest")])
        .drop_late()
        .id("Per-auction")
        .sink(MemorySink::new());
    (job, input)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_those_of_one_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let (job, input) = job(directory.path().to_str().unwrap());
    let running = job.start().await.unwrap();
    let (handle, served) = (running.handle(), running.served().unwrap());
    input.push(0, batch(&[(1, 5), (1, 7), (2, 9)]));
    until_read(&handle, 3).await;
    let epoch = handle.savepoint("one").await.unwrap().0;
    input.push(0, batch(&[(2, 11), (3, 1)]));
    until_read(&handle, 5).await;

    let sql = "select auction, bids, highest from state order by auction";
    let row = |auction, bids, highest| json!({ "auction": auction, "bids": bids, "highest": highest });
    let rows = json!([row(1, 2, 7), row(2, 1, 9)]);
    let expected =
        json!({ "epoch": epoch, "columns": ["auction", "bids", "highest"], "rows": rows, "truncated": false });
    let status = handle.status();
    let name = &status.operators[status.find("Per-auction").unwrap()].name;
    for operator in ["2", "#2", "Per-auction", name] {
        assert_eq!(get(served, operator, sql, ""), (200, expected.clone()), "{operator}");
    }
    let by_name = sql.replace("state", "\"Per-auction\"");
    assert_eq!(get(served, "2", &by_name, ""), (200, expected.clone()));

    let fresh = json!({ "sql": sql, "fresh": true }).to_string();
    let (status, answer) = ask(served, "POST /state/2", &fresh);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["epoch"].as_u64().unwrap() > epoch);
    assert_eq!(answer["rows"], json!([row(1, 2, 7), row(2, 2, 11), row(3, 1, 1)]));
    assert_eq!(get(served, "2", sql, "").1, answer, "it is the newest now");
    assert_eq!(ask(served, "POST /state/2", &json!({ "sql": sql }).to_string()).1, answer);
    assert_eq!(get(served, "2", sql, &format!("&epoch={epoch}")), (200, expected), "and the older one is kept");

    let (_, nothing) = get(served, "1", "select * from state where ended", "");
    assert_eq!(nothing["columns"], json!(["split", "position", "ended", "latest", "idle"]), "names also without rows");
    assert_eq!(nothing["rows"], json!([]));
    let (_, split) = get(served, "1", "select position, null as n, latest from state", "");
    assert_eq!(split["rows"][0], json!({ "position": 2, "n": null, "latest": "1970-01-01T00:00:00Z" }));

    input.end_all();
    running.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_questions_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (job, input) = job(directory.path().to_str().unwrap());
    let running = job.start().await.unwrap();
    let (handle, served) = (running.handle(), running.served().unwrap());
    input.push(0, batch(&[(1, 5)]));
    until_read(&handle, 1).await;
    handle.savepoint("one").await.unwrap();

    let elsewhere = directory.path().join("copy.csv");
    let copy = format!("copy state to '{}'", elsewhere.display());
    let external = format!("create external table t stored as csv location '{}'", elsewhere.display());
    let refused = [
        "create table t as select 1",
        "create view t as select 1",
        "drop table state",
        "insert into state select * from state",
        "delete from state",
        "update state set bids = 0",
        "set datafusion.execution.batch_size = 1",
        "prepare p as select 1",
        "begin",
        "select 1; select 2",
        "",
        "nonsense",
        "select * from '/etc/passwd'",
        "select * from \"/etc/passwd\"",
        "select * from nowhere",
        &copy,
        &external,
        "explain analyze insert into state select * from state",
        // What makes long texts of short ones.
        "select 'a' || 'b'",
        "select * from (select 'a' || 'b') t",
        "select 1 where exists (select 'a' || 'b')",
        "select 1 from state order by 'a' || 'b'",
        "select auction, auction from (select 1 auction) a, (select 2 auction) b",
    ];
    for sql in refused {
        let (status, answer) = get(served, "2", sql, "");
        assert_eq!(status, 400, "{sql}: {answer}");
    }
    assert!(!elsewhere.exists());
    let (_, unknown) = get(served, "2", "select * from nowhere", "");
    let said = unknown["error"].as_str().unwrap();
    assert!(
        said.contains("nowhere") && said.contains("There are the tables state, \"Per-auction\", \"source_1\""),
        "{said}"
    );

    for (operator, words) in
        [("7", "no operator \"7\""), ("../../etc", "no operator"), ("3", "There are tables of: Per-auction, source_1")]
    {
        let (status, answer) = get(served, operator, "select 1", "");
        assert_eq!(status, 404, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
    for query in
        ["", "sql", "sql=select%201&sql=select%202", "sql=select%201&epoch=x", "sql=select%201&limit=2", "epoch=1"]
    {
        let (status, answer) = ask(served, &format!("GET /state/2?{query}"), "");
        assert_eq!(status, 400, "{query}: {answer}");
    }
    assert_eq!(get(served, "2", "select 1", "&epoch=999999").0, 409);
    assert_eq!(get(served, "2", &format!("select '{}'", "a".repeat(5_000)), "").0, 400);
    assert_eq!(get(served, "2", "select 1", "").0, 200, "and the next one is answered");

    handle.stop();
    assert!(running.wait().await.unwrap().stopped);
}
