//! Prometheus itself reads a running job, and answers what the book asks.
//!
//! ```text
//!   job ──► /metrics ◄── scrapes, 5 times a second ── prometheus ◄── the queries of docs/src/operating.md ── this test
//! ```
//!
//! Where the program `prometheus` is not installed the test is skipped, and says so; `WINDROW_NO_SKIP=1` makes that a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use tests::on_two_threads;
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::DataType,
    },
    prelude::*,
    status::{JobStatus, prometheus},
    try_cast,
};

pub(crate) const BOOK: &str = include_str!("../../docs/src/operating.md");

/// What the alerts ask, and the lines of the block of queries.
fn queries() -> (Vec<&'static str>, Vec<&'static str>) {
    let alerts = super::alerts::alerts().into_iter().map(|alert| alert.asks).collect();
    let (_, block) = BOOK.split_once("```promql\n").unwrap();
    (alerts, block.lines().take_while(|line| !line.starts_with("```")).collect())
}

#[test]
fn the_book_names_every_metric_and_no_other() {
    let text = prometheus(&JobStatus::default());
    let family = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some(match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
    };
    let exported: BTreeSet<String> = text.lines().filter_map(family).collect();
    let row = |line: &str| Some(format!("windrow_{}", line.strip_prefix("| `windrow_")?.split('`').next()?));
    assert_eq!(BOOK.lines().filter_map(row).collect::<BTreeSet<_>>(), exported);
    // Alerts and queries are about what there is.
    let (alerts, queries) = queries();
    assert!(alerts.len() > 8 && queries.len() > 2);
    let is_known = |word: &str| exported.contains(word.strip_suffix("_bucket").unwrap_or(word));
    for query in alerts.into_iter().chain(queries) {
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let mut named = words.filter(|word| word.starts_with("windrow_")).peekable();
        assert!(named.peek().is_some() && named.all(is_known), "{query}");
    }
}

/// The program, until this is dropped.
struct Prometheus {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// None: skip the test, it has been said why.
    fn reading(target: SocketAddr) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: windrow\n  static_configs: [{{targets: \
             [\"{target}\"]}}]\n"
        );
        fs::write(at("prometheus.yml"), config).unwrap();
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return skip("there is no program `prometheus`"),
            Err(error) => panic!("prometheus: {error}"),
        };
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        // The last word of the line is the address.
        let listens = log.find(|line| line.contains("\"Listening on\"")).expect("it does not start");
        let (_, address) = listens.rsplit_once("address=").unwrap();
        let url = format!("http://{address}/api/v1/query");
        // Who does not read on would stop it.
        thread::spawn(move || log.for_each(drop));
        Some(Self { process, url, _directory: directory })
    }

    /// The labels and the values of an answer; none while it cannot say.
    fn ask(&self, query: &str) -> Option<Vec<(BTreeMap<String, String>, f64)>> {
        let answer = ureq::get(&self.url).query("query", query).config().http_status_as_error(false).build().call();
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        match answer.status().as_u16() {
            503 => return None,
            status => assert_eq!(status, 200, "{query}: {text}"),
        }
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sample = |sample: &serde_json::Value| {
            let labels = serde_json::from_value(sample["metric"].clone()).unwrap();
            (labels, sample["value"][1].as_str().unwrap().parse().unwrap())
        };
        Some(json["data"]["result"].as_array().unwrap().iter().map(sample).collect())
    }

    /// Asks until the answer is what it should be.
    fn until(&self, query: &str, is_it: impl Fn(&[(BTreeMap<String, String>, f64)]) -> bool) {
        for _ in 0..600 {
            if self.ask(query).is_some_and(|answer| is_it(&answer)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{query}: {:?}", self.ask(query));
    }
}

/// Says that a test is skipped. Not by `eprintln`, which is silent in a test that passes.
fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        env::var_os("WINDROW_NO_SKIP").is_none_or(|value| value != "1"),
        "skipped: {reason}; and WINDROW_NO_SKIP=1 forbids that"
    );
    let name = thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(io::stderr(), "{name} ... skipped: {reason}");
    None
}

#[test]
fn prometheus_reads_a_job_and_answers_what_the_book_asks() {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let at = Timestamp::column((0..1_000).map(|second| second * 1_000_000).collect());
    let rows = RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap();
    let (input, source) = MemorySource::by_hand(rows.schema(), 1);
    let store = tempfile::tempdir().unwrap();
    let job = Job::new("scraped").checkpoint(store.path().to_str().unwrap(), millis(50)).serve("127.0.0.1:0");
    job.source(source)
        .event_time("at", Watermarks::in_order())
        // Its name has what labels must escape.
        .filter_expr(try_cast(col("n"), DataType::Utf8).not_eq(lit("a\"b\\c")))
        .window(Tumbling::of(secs(10)))
        .aggregate([count()])
        .drop_late()
        .sink(MemorySink::new());
    let work = async {
        let running = job.start().await.unwrap();
        let address = running.served().unwrap().address();
        input.push(0, rows);
        let waits = tokio::spawn(running.wait());
        let Some(prometheus) = Prometheus::reading(address) else { return };
        let asks = tokio::task::spawn_blocking(move || {
            prometheus.until("up", |up| up.iter().any(|(_, value)| *value == 1.0));
            let (alerts, queries) = queries();
            let read = queries.into_iter().find(|query| query.ends_with("(windrow_task_rows_in_total)")).unwrap();
            // The window that the last row is in is open: 99 have given a result.
            prometheus.until(read, |answer| {
                let rows = |name: &str| {
                    let is = |labels: &BTreeMap<String, String>| {
                        labels["job_name"] == "scraped" && labels["operator"].contains(name)
                    };
                    answer.iter().find(|(labels, _)| is(labels)).map(|(_, value)| *value)
                };
                (rows("source"), rows("window"), rows("sink")) == (Some(1_000.0), Some(1_000.0), Some(99.0))
            });
            let lag = "windrow_operator_watermark_timestamp_seconds{operator=~\".*window.*\"}";
            prometheus.until(lag, |answer| matches!(answer, [(_, value)] if *value == 999.0));
            let escaped = |labels: &BTreeMap<String, String>| labels["operator"].contains("a\"b\\c");
            prometheus.until("windrow_operator_info", |answer| answer.iter().any(|(labels, _)| escaped(labels)));
            prometheus.until("windrow_checkpoint_epoch >= 2", |answer| answer.len() == 1);
            let latency =
                "histogram_quantile(0.5, sum by (le) (windrow_operator_event_time_latency_seconds_bucket)) > 1e4";
            prometheus.until(latency, |answer| answer.len() == 1);
            // Every alert is one that Prometheus understands, and a healthy job sets off none but those about old event times.
            for alert in alerts {
                let set_off = prometheus.ask(alert).unwrap();
                let of_time = alert.contains("watermark_lag") || alert.contains("latency");
                assert!(set_off.is_empty() || of_time, "{alert}: {set_off:?}");
            }
        });
        asks.await.unwrap();
        input.end_all();
        waits.await.unwrap().unwrap();
    };
    on_two_threads(work);
}
