//! A job in this process that is served, and the command that asks it.

use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinHandle};
use windrow::{
    JobHandle, Report,
    prelude::*,
    serve::{ExposeSecret, Serve},
};

use super::{did, failed, printed, until, windrow};

/// An endless job that is served.
pub(crate) struct Served {
    runtime: Runtime,
    pub(crate) handle: JobHandle,
    waiting: JoinHandle<windrow::Result<Report>>,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) store: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(serve: impl Into<Serve>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = tempfile::tempdir().unwrap();
        let (handle, waiting, url, token) = runtime.block_on(async {
            let job = Job::new("numbers").checkpoint(store.path().to_str().unwrap(), hours(1)).serve(serve);
            job.source(Sequence::endless().rate(1_000))
                .event_time("at", Watermarks::in_order())
                .window(Tumbling::of(hours(24)))
                .aggregate([count()])
                .drop_late()
                .sink(MemorySink::new());
            let running = job.start().await.unwrap();
            let served = running.served().unwrap();
            let (url, token) = (format!("http://{}", served.address()), served.token().expose_secret().to_owned());
            let handle = running.handle();
            (handle, tokio::spawn(running.wait()), url, token)
        });
        until(secs(60), "ten rows are read", || handle.metrics().named("source").any(|source| source.rows_in >= 10));
        Self { runtime, handle, waiting, url, token, store }
    }

    /// What a command with the token prints.
    fn told(&self, args: &[&str]) -> String {
        let did = did(windrow(args).env("WINDROW_TOKEN", &self.token));
        assert_eq!((did.code, did.err.as_str()), (0, ""), "{args:?}: {did:?}");
        did.out
    }

    pub(crate) fn ended(self) -> windrow::Result<Report> {
        self.runtime.block_on(self.waiting).unwrap()
    }
}

#[test]
fn a_job_is_asked_saved_and_stopped() {
    let job = Served::start("127.0.0.1:0");
    let status = printed(&["status", &job.url]);
    assert!(status.starts_with("job numbers: running for"), "{status}");
    assert!(status.contains("#2 window tumbling") && status.contains("WATERMARK"), "{status}");
    let json: Value = serde_json::from_str(&printed(&["status", &job.url, "--json"])).unwrap();
    assert_eq!((json["job"].as_str(), json["state"].as_str()), (Some("numbers"), Some("running")));
    // host:port, without http://
    let short = job.url.strip_prefix("http://").unwrap();
    let why = printed(&["why-open", short, "2"]);
    assert!(why.starts_with("Event time at #2 window tumbling") || why.starts_with("No event time has come"), "{why}");
    let (code, said) = failed(&["why-open", &job.url, "77"]);
    assert!(code == 1 && said.contains("There is no operator \"77\"") && said.contains("#1 source"), "{said}");

    // Without the token nothing is changed.
    let (code, said) = failed(&["savepoint", &job.url, "s"]);
    assert!(code == 4 && said.contains("--token-file FILE"), "{said}");
    let wrong = did(windrow(&["stop", &job.url]).env("WINDROW_TOKEN", "another"));
    assert!(wrong.code == 4 && wrong.err.contains("refuses the token") && !wrong.err.contains("another:"), "{wrong:?}");

    let taken = job.told(&["savepoint", &job.url, "before-lunch"]);
    assert!(taken.starts_with("savepoint \"before-lunch\" is checkpoint "), "{taken}");
    let file = job.store.path().join("token");
    std::fs::write(&file, format!("{}\n", job.token)).unwrap();
    let (code, said) = failed(&["savepoint", &job.url, "before-lunch", "--token-file", file.to_str().unwrap()]);
    assert!(code == 1 && said.contains("there is already a savepoint"), "{said}");
    assert!(!job.handle.status().warnings.iter().any(|warning| warning.contains(&job.token)));

    let stopped = job.told(&["stop", &job.url, "--savepoint", "before-upgrade"]);
    assert!(stopped.contains("the job has stopped; savepoint \"before-upgrade\""), "{stopped}");
    let (url, store) = (job.url.clone(), job.store.path().to_str().unwrap().to_owned());
    let listed = printed(&["checkpoints", &store]);
    assert!(listed.contains("before-lunch") && listed.contains("before-upgrade"), "{listed}");
    assert!(job.ended().unwrap().stopped);
    let (code, said) = failed(&["status", &url]);
    assert!(code == 3 && said.contains("does not answer") && said.contains(".serve("), "{said}");
}

#[test]
fn a_job_is_cancelled_and_another_wants_its_token_for_reading_too() {
    let job = Served::start("127.0.0.1:0");
    assert!(job.told(&["cancel", &job.url]).contains("at once"));
    assert!(matches!(job.ended(), Err(windrow::Error::Aborted { .. })));

    let secret = "a-long-token-of-the-test";
    let job = Served::start(Serve::at("127.0.0.1:0").token(windrow::connectors::Secret::new(secret)));
    let (code, said) = failed(&["status", &job.url]);
    assert!(code == 4 && said.contains("wants a token"), "{said}");
    assert!(job.told(&["status", &job.url]).starts_with("job numbers"));
    assert!(job.told(&["stop", &job.url]).contains("stopping"));
    assert!(job.ended().unwrap().stopped);
}

#[test]
fn what_is_no_job_and_what_is_no_terminal_are_told() {
    let job = Served::start("127.0.0.1:0");
    let (code, said) = failed(&["status", &job.url, "--watch"]);
    assert!(code == 2 && said.contains("--watch needs a terminal"), "{said}");
    let (code, said) = failed(&["status", &format!("{}/elsewhere", job.url)]);
    assert!(code == 1 && said.contains("there is nothing here"), "{said}");
    job.handle.stop();
    job.ended().unwrap();
}
