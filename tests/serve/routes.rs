//! Every route, of jobs that run.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use serde_json::json;
use tests::{TOO_LONG, on_two_threads};
use windrow::{
    Error, JobHandle, RunningJob,
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
    prelude::*,
    status::{JobStatus, State},
};

use super::{client, counts, numbers, until};

async fn has_read(job: &JobHandle) {
    until("rows are read", || job.status().operators[0].rows_out > 10).await;
}

async fn ends(running: RunningJob) -> windrow::Result<windrow::Report> {
    tokio::time::timeout(TOO_LONG, running.wait()).await.expect("it does not end")
}

#[test]
fn a_running_job_shows_its_page_its_status_and_its_plan() {
    let directory = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let running = counts("shown", directory.path().to_str().unwrap()).start().await.unwrap();
        let (client, job) = (client(&running), running.handle());
        assert!(running.served().unwrap().url().starts_with(&format!("http://{}/#token=", client.address)));
        has_read(&job).await;

        for (path, kind) in
            [("/", "text/html"), ("/assets/page.css", "text/css"), ("/assets/page.js", "text/javascript")]
        {
            let file = client.get(path).is(200);
            assert!(file.head.contains(&format!("content-type: {kind}; charset=utf-8")), "{file:?}");
            assert!(!file.body.is_empty());
        }
        let page = client.get("/").body;
        assert!(page.contains("\"assets/page.css\"") && page.contains("\"assets/page.js\""), "{page}");

        let status = client.get("/api/status").is(200);
        for header in [
            "content-type: application/json",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "connection: close",
        ] {
            assert!(status.head.contains(header), "{header}: {}", status.head);
        }
        assert!(!status.head.contains("access-control"), "{}", status.head);
        let read: JobStatus = serde_json::from_str(&status.body).unwrap();
        assert_eq!((read.job.as_str(), read.state), ("shown", State::Running));
        assert_eq!(read.operators.len(), job.status().operators.len());

        let words = client.get("/api/words").is(200).json();
        let open = words["why_open"].as_array().unwrap();
        assert_eq!(open.len(), 1, "{words}");
        let window = &read.operators[read.find("window_1").unwrap()];
        assert_eq!(open[0]["operator"], json!(window.name));
        assert!(open[0]["text"].as_str().unwrap().contains(&window.name), "{words}");
        assert!(words.as_object().unwrap().contains_key("bottleneck"));

        let plan = client.get("/api/plan").is(200).json();
        assert!(plan["text"].as_str().unwrap().contains("chain 1, 1 task"), "{plan}");
        job.stop();
        ends(running).await.unwrap();
    });
}

#[test]
fn what_is_not_there_is_said() {
    on_two_threads(async {
        let running = numbers("missing").start().await.unwrap();
        let client = client(&running);
        assert!(client.get("/api/nothing").is(404).error().contains("/api/status"));
        client.get("/api/status/").is(404);
        for (line, allow) in [
            ("POST /api/status", "get"),
            ("DELETE /state/1", "get, post"),
            ("PUT /api/stop", "post"),
            ("OPTIONS /", "get"),
        ] {
            let refused = client.request(line, &client.headers(), "{}").is(405);
            assert!(refused.head.contains(&format!("allow: {allow}\r\n")), "{refused:?}");
        }
        // It changes nothing, so that a token is not what is missing.
        for path in ["/", "/assets/page.js", "/api/status", "/metrics"] {
            let refused = client.request(&format!("HEAD {path}"), "", "").is(405);
            assert!(refused.head.contains("allow: get\r\n") && refused.body.is_empty(), "{refused:?}");
        }
        client.get("/api/stop").is(405);
        // Without checkpoints there is no state.
        for refused in [client.get("/api/state"), client.post("/api/savepoint", r#"{"name": "one"}"#)] {
            assert!(refused.is(409).error().contains("no checkpoints"));
        }
        for body in ["", "{}", "{\"name\": 7}", "{\"name\": \"a\", \"nam\": 1}", "[", "\"name\"", "\u{0}"] {
            assert!(client.post("/api/savepoint", body).is(400).error().contains("the body"));
        }
        assert!(client.post("/api/cancel", "{\"force\": true}").is(400).error().contains("unknown field"));
        // This test is built without SQL.
        let asked = client.request("GET /state/1?sql=select%201", &client.headers(), "");
        assert!(asked.is(501).error().contains("feature `sql`"));
        running.handle().stop();
        ends(running).await.unwrap();
    });
}

#[test]
fn a_job_is_saved_stopped_and_goes_on_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    on_two_threads(async {
        let job = |out: &MemorySink| {
            let job = Job::new("saved").checkpoint(store, hours(1)).serve("127.0.0.1:0");
            job.source(Sequence::endless().rate(1_000)).select([col("value")]).sink(out.clone());
            job
        };
        let first = MemorySink::new();
        let running = job(&first).start().await.unwrap();
        let client_of_first = client(&running);
        has_read(&running.handle()).await;
        let waits = tokio::spawn(ends(running));

        let epoch =
            client_of_first.post("/api/savepoint", r#"{"name": "before-lunch"}"#).is(200).json()["epoch"].as_u64();
        let again = client_of_first.post("/api/savepoint", r#"{"name": "before-lunch"}"#).is(409);
        assert!(again.error().contains("before-lunch"), "{again:?}");
        client_of_first.post("/api/savepoint", r#"{"name": "../../etc"}"#).is(409);
        let state = client_of_first.get("/api/state").is(200).json();
        assert_eq!(state["epoch"].as_u64(), epoch);
        let table =
            json!({ "name": "source_1", "meaning": "the splits of a source", "operator": "#1 source sequence" });
        assert_eq!(state["tables"][0], table, "{state}");

        let last =
            client_of_first.post("/api/stop", r#"{"savepoint": "before-upgrade"}"#).is(200).json()["epoch"].as_u64();
        assert!(last > epoch && epoch.is_some());
        assert!(waits.await.unwrap().unwrap().stopped);
        assert!(TcpStream::connect(client_of_first.address).is_err(), "it is served no longer than it runs");

        let second = MemorySink::new();
        let running = job(&second).restore(Restore::savepoint("before-upgrade")).start().await.unwrap();
        has_read(&running.handle()).await;
        let client = client(&running);
        assert_eq!(client.get("/api/status").json()["checkpoints"]["restored_from"].as_u64(), last);
        let waits = tokio::spawn(ends(running));
        assert_eq!(client.post("/api/stop", "{}").is(202).json(), json!({ "state": "stopping" }));
        assert!(waits.await.unwrap().unwrap().stopped);
        let values = |out: &MemorySink| -> Vec<i64> {
            let of = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
            out.batches().iter().flat_map(of).collect()
        };
        let both = [values(&first), values(&second)].concat();
        assert_eq!(both, (0..both.len() as i64).collect::<Vec<_>>(), "every row once");
    });
}

#[test]
fn a_job_is_cancelled() {
    on_two_threads(async {
        let running = numbers("cancelled").start().await.unwrap();
        let client = client(&running);
        let waits = tokio::spawn(ends(running));
        assert_eq!(client.post("/api/cancel", "{}").is(202).json(), json!({ "state": "cancelled" }));
        assert!(matches!(waits.await.unwrap(), Err(Error::Aborted { .. })));
    });
}

/// A sink that fails so many times, and then is stuck for ever.
#[derive(Clone)]
struct Failing(Arc<AtomicU64>);

#[async_trait]
impl Sink for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Failing {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        if self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            let (system, reason) = ("failing".into(), "it is not in the mood".into());
            return Err(ConnectorError::Remote { system, reason, passes: true });
        }
        std::future::pending().await
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

/// Also while it waits to be started again, and while all of its tasks wait.
#[test]
fn it_is_served_over_failures_until_it_is_cancelled_while_it_is_stuck() {
    let directory = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let restarts = Restarts::at_most(5).waiting(millis(1)..=millis(1));
        let store = directory.path().to_str().unwrap();
        let job = Job::new("failing").checkpoint(store, hours(1)).restarts(restarts).serve("127.0.0.1:0");
        job.source(Sequence::endless().rate(1_000)).sink(Failing(Arc::new(AtomicU64::new(2))));
        let running = job.start().await.unwrap();
        let client = client(&running);
        let waits = tokio::spawn(ends(running));
        until("it runs again", || {
            let status = client.get("/api/status").is(200).json();
            let runs = status["restarts"] == json!(2) && status["operators"][1]["rows_in"] != json!(0);
            assert!(!runs || status["last_failure"]["error"].as_str().unwrap().contains("not in the mood"));
            runs
        })
        .await;
        client.post("/api/cancel", "{}").is(202);
        assert!(matches!(waits.await.unwrap(), Err(Error::Aborted { .. })));
    });
}

#[test]
fn a_job_that_waits_to_be_started_again_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let restarts = Restarts::at_most(5).waiting(hours(1)..=hours(1));
        let store = directory.path().to_str().unwrap();
        let job = Job::new("waiting").checkpoint(store, hours(1)).restarts(restarts).serve("127.0.0.1:0");
        job.source(Sequence::endless().rate(1_000)).sink(Failing(Arc::new(AtomicU64::new(1))));
        let running = job.start().await.unwrap();
        let client = client(&running);
        let waits = tokio::spawn(ends(running));
        until("it waits", || client.get("/api/status").is(200).json()["state"] == json!("restarting")).await;
        client.post("/api/cancel", "{}").is(202);
        assert!(matches!(waits.await.unwrap(), Err(Error::Aborted { .. })));
    });
}
