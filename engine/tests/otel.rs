//! Spans and events of a job reach a collector of OpenTelemetry, over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{sync::Arc, thread};

use tiny_http::{Response, Server};
use windrow::{otel, prelude::*};

/// What came to each path until the server was unblocked, put together: protobuf has texts as they are.
fn collect(server: &Server) -> [(&'static str, Vec<u8>); 2] {
    let mut came = [("/v1/traces", Vec::new()), ("/v1/logs", Vec::new())];
    for mut request in server.incoming_requests() {
        let kind = request.headers().iter().find(|header| header.field.equiv("Content-Type"));
        assert_eq!(kind.unwrap().value.as_str(), "application/x-protobuf");
        let (_, bytes) = came.iter_mut().find(|(path, _)| request.url() == *path).expect("another path");
        request.as_reader().read_to_end(bytes).unwrap();
        request.respond(Response::empty(200)).unwrap();
    }
    came
}

#[test]
fn a_job_is_exported() {
    let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
    let url = format!("http://{}/", server.server_addr());
    let Err(refused) = otel::export("x", Some("http://ann:CANARY@no address")) else { panic!("it is no address") };
    assert!(matches!(refused, otel::OtelError::Endpoint { .. }));
    assert!(!format!("{refused} {refused:?}").contains("CANARY"), "{refused}");
    let exporting = otel::export("the service", Some(&url)).unwrap();
    assert!(matches!(otel::export("x", Some(&url)), Err(otel::OtelError::Taken)), "once in a program");
    let collector = server.clone();
    let collecting = thread::spawn(move || collect(&collector));
    let store = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let job = Job::new("exported").checkpoint(store.path().to_str().unwrap(), hours(1));
        job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        handle.savepoint("before-lunch").await.unwrap();
        handle.stop();
        running.wait().await.unwrap();
    });
    // All that is to come has been answered then.
    drop(exporting);
    server.unblock();
    for (path, bytes) in collecting.join().unwrap() {
        let text = String::from_utf8_lossy(&bytes);
        let words: &[&str] = match path {
            "/v1/traces" => &["the service", "exported", "attempt", "checkpoint", "duration_ms", "before-lunch"],
            _ => &["the service", "savepoint complete", "before-lunch", "the job ended"],
        };
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} did not come to {path}: {text}"));
    }
}
