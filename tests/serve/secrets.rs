//! Secrets are nowhere: not in an answer, not in what the process prints, not in what is written down. The job runs in a process of its
//! own, so that all it prints is seen.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
};

use async_trait::async_trait;
use tests::on_two_threads;
use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{ConnectorError, Position, Source, SourceReader, SplitId, TypedSource, Untyped},
    prelude::*,
    serve::Serve,
};

use super::client;

/// Of the source, and of the one who watches.
const SECRETS: [&str; 2] = ["canary-password-51ad", "canary-token-7c1f"];
const STORE: &str = "WINDROW_TEST_STORE";
const ANSWERS: &str = "WINDROW_TEST_ANSWERS";

/// A source with a login, as that of Kafka, which says all that it may about itself.
struct Login {
    rows: Sequence,
    password: Secret,
}

#[async_trait]
impl Source for Login {
    fn name(&self) -> String {
        format!("login {:?}", self.password)
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        self.rows.schema()
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Source::splits(&self.rows).await
    }

    async fn reader(&self, splits: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>, ConnectorError> {
        self.rows.reader(splits).await
    }

    fn warnings(&self) -> Vec<String> {
        vec![format!("the password {:?} is sent without encryption", self.password)]
    }
}

impl TypedSource for Login {
    type Row = Untyped;
}

/// The other process. It is a test so that it is in this program.
#[test]
#[ignore = "the test below starts it"]
fn the_process_with_secrets() {
    let (Ok(store), Ok(answers)) = (env::var(STORE), env::var(ANSWERS)) else { return };
    let mut answers = OpenOptions::new().create(true).append(true).open(answers).unwrap();
    on_two_threads(async {
        let [password, token] = SECRETS.map(Secret::new);
        let serve = Serve::at("127.0.0.1:0").token(token);
        println!("{serve:?}");
        let login = Login { rows: Sequence::endless().rate(1_000), password };
        let job = Job::new("secrets").checkpoint(&store, hours(1)).serve(serve);
        job.source(login)
            .event_time("at", Watermarks::in_order())
            .window(Tumbling::of(hours(1)))
            .aggregate([count()])
            .drop_late()
            .sink(MemorySink::new());
        println!("{job} {job:?}");
        let running = job.start().await.unwrap();
        let served = running.served().unwrap();
        let taken = Serve::at(served.address().to_string()).token(Secret::new(SECRETS[1]));
        let again = Job::new("again").serve(taken);
        again.source(Sequence::new(1)).sink(MemorySink::new());
        println!("{served:?} {:?} {}", served.token(), again.run().await.unwrap_err());
        let client = client(&running);
        let with = client.headers();
        let without = with.replace(SECRETS[1], "not-the-token");
        let requests = [
            ("GET /", ""),
            ("GET /assets/page.js", ""),
            ("GET /api/status", ""),
            ("GET /api/words", ""),
            ("GET /api/plan", ""),
            ("GET /api/state", ""),
            ("GET /metrics", ""),
            ("GET /state/1?sql=select", ""),
            ("GET /nothing", ""),
            ("POST /api/savepoint", r#"{"name": "a"}"#),
            ("POST /api/savepoint", r#"{"name": "a"}"#),
            ("POST /api/savepoint", "{"),
            ("POST /state/1", r#"{"sql": "select", "fresh": true}"#),
            ("POST /api/nothing", "{}"),
            ("POST /api/stop", r#"{"savepoint": "b"}"#),
        ];
        let waits = tokio::spawn(running.wait());
        for (line, body) in requests {
            for headers in [without.as_str(), "origin: http://evil.example\r\n", &with] {
                writeln!(answers, "{:?}", client.request(line, headers, body)).unwrap();
            }
        }
        println!("{:?}", waits.await.unwrap().unwrap());
    });
}

/// Every file below, and what is in it.
fn files(below: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
}

#[test]
fn secrets_are_in_no_answer_no_output_and_no_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let answers = directory.path().join("answers");
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "secrets::the_process_with_secrets", "--nocapture"]);
    child.env(STORE, directory.path().join("store")).env(ANSWERS, &answers);
    let output = child.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        printed.contains("login Secret(…)") && printed.contains("Served") && printed.contains("in use"),
        "{printed}"
    );
    let answered = fs::read_to_string(&answers).unwrap();
    assert_eq!(answered.lines().count(), 45);
    for seen in ["is sent without encryption", "chain 0", "status: 401", "status: 403", "status: 409", "epoch"] {
        assert!(answered.contains(seen), "{seen}");
    }
    let mut found = vec![("standard output".into(), output.stdout), ("standard error".into(), output.stderr)];
    files(directory.path(), &mut found);
    assert!(found.len() > 5, "checkpoints and savepoints");
    for (name, bytes) in found {
        for secret in SECRETS {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in {name}");
        }
    }
}
