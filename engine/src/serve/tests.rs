//! The server with bounds that a test can reach, and with answers that no route gives.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use bytes::Bytes;
use hyper::{Request, StatusCode, body::Incoming};
use tokio::{net::TcpListener, sync::Notify};

use super::{
    answer::{self, Response},
    routes::undone,
    server::serve,
    *,
};
use crate::{checkpoint::CheckpointError, clock::Moment};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn limits() -> Limits {
    Limits { connections: 8, head: LONG, read: LONG, farewell: LONG }
}

/// What a client gets that writes this and reads to the end.
fn says(address: SocketAddr, request: &'static str) -> JoinHandle<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    std::thread::spawn(move || {
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    })
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Serves while `clients` do what they do, on another thread.
async fn served<F, Answer>(limits: Limits, answer: F, clients: impl FnOnce(SocketAddr) + Send + 'static)
where
    F: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Response>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let clients = std::thread::spawn(move || {
        clients(address);
        drop(stop);
    });
    tokio::time::timeout(LONG, serve(listener, &limits, answer, stopped)).await.expect("it does not end");
    clients.join().unwrap();
}

fn hello() -> Response {
    answer::bytes_of(StatusCode::OK, "text/plain", Bytes::from_static(b"hello"))
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_others_are_served() {
    let answer = |request: Request<Incoming>| async move {
        assert_ne!(request.uri().path(), "/panic", "as it was asked for");
        hello()
    };
    served(limits(), answer, |address| {
        let panicked = says(address, "GET /panic HTTP/1.1\r\nhost: localhost\r\n\r\n").join().unwrap();
        assert!(panicked.starts_with("HTTP/1.1 500") && panicked.contains("the job goes on"), "{panicked}");
        assert!(says(address, ASK).join().unwrap().ends_with("hello"));
    })
    .await;
}

#[tokio::test]
async fn who_sends_no_head_in_time_is_cut_off() {
    let limits = Limits { head: SHORT, ..limits() };
    served(
        limits,
        |_| async { hello() },
        |address| {
            for slow in ["", "GET / HTT", "GET / HTTP/1.1\r\nhost: localhost\r\n"] {
                assert_eq!(says(address, slow).join().unwrap(), "", "there is nothing to answer");
            }
            assert!(says(address, ASK).join().unwrap().ends_with("hello"));
        },
    )
    .await;
}

/// More than fits into the buffers of a connection, which nobody reads.
#[tokio::test]
async fn who_does_not_read_in_time_is_cut_off() {
    let limits = Limits { read: SHORT, connections: 1, ..limits() };
    let (asked, was_asked) = mpsc::channel();
    let answer = |request: Request<Incoming>| {
        let length = if request.uri().path() == "/long" { 64 << 20 } else { 1 };
        asked.send(()).unwrap();
        async move { answer::bytes_of(StatusCode::OK, "text/plain", vec![b'x'; length].into()) }
    };
    served(limits, answer, move |address| {
        let mut silent = TcpStream::connect(address).unwrap();
        silent.write_all(b"GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        was_asked.recv_timeout(LONG).unwrap();
        // There is a place for one.
        let begun = Moment::now();
        while !says(address, ASK).join().unwrap().starts_with("HTTP/1.1 200") {
            assert!(begun.elapsed() < LONG, "it holds its place");
            std::thread::yield_now();
        }
        drop(silent);
    })
    .await;
}

/// Who only holds a place gives it to who comes, the oldest first; who waits for an answer keeps it.
#[tokio::test]
async fn a_place_is_for_who_asks() {
    let (asked, was_asked) = mpsc::channel();
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let answer = |request: Request<Incoming>| {
        let (asked, waits) = (asked.clone(), waits.clone());
        async move {
            if request.uri().path() == "/waits" {
                asked.send(()).unwrap();
                waits.notified().await;
            }
            hello()
        }
    };
    served(Limits { connections: 2, ..limits() }, answer, move |address| {
        const WAIT: &str = "GET /waits HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let first = says(address, WAIT);
        was_asked.recv_timeout(LONG).unwrap();
        let oldest = says(address, "GET /wai");
        for _ in 0..3 {
            assert!(says(address, ASK).join().unwrap().ends_with("hello"));
        }
        assert_eq!(oldest.join().unwrap(), "", "it had the place that another needed");
        let second = says(address, WAIT);
        was_asked.recv_timeout(LONG).unwrap();
        let refused = says(address, "").join().unwrap();
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
        go.notify_waiters();
        for answered in [first, second] {
            assert!(answered.join().unwrap().ends_with("hello"));
        }
        assert!(says(address, ASK).join().unwrap().ends_with("hello"));
    })
    .await;
}

#[test]
fn what_is_not_done_is_the_affair_of_the_store_or_of_the_job() {
    let status = |error: CheckpointError| undone(error.of("job")).status;
    let (path, reason) = (String::from("/store"), String::from("why"));
    let io = CheckpointError::Io { action: "read", path: path.clone(), reason: reason.clone(), source: None };
    assert_eq!(status(io), StatusCode::SERVICE_UNAVAILABLE);
    let corrupt = CheckpointError::Corrupt { path: path.clone(), reason: reason.clone(), advice: "what to do" };
    assert_eq!(status(corrupt), StatusCode::INTERNAL_SERVER_ERROR);
    let exists = CheckpointError::Exists { name: "a".into(), path };
    assert_eq!(status(exists), StatusCode::CONFLICT);
    assert_eq!(undone(Error::Savepoint { job: "job".into(), reason: reason.clone() }).status, StatusCode::CONFLICT);
    assert_eq!(undone(Error::NoCheckpoint { job: "job".into(), reason }).status, StatusCode::CONFLICT);
}

/// At the end the answers that are under way are given, and who has not asked yet is not waited for.
#[tokio::test]
async fn the_end_waits_for_answers_and_for_nobody_else() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let answer = |_| {
        let (asked, go) = (asked.clone(), go.clone());
        async move {
            asked.notify_one();
            go.notified().await;
            hello()
        }
    };
    let limits = limits();
    let serves = serve(listener, &limits, answer, stopped);
    let (_idle, waits) = (TcpStream::connect(address).unwrap(), says(address, ASK));
    let ends = async {
        asked.notified().await;
        drop(stop);
        // The address is free before the answer is given.
        while TcpStream::connect(address).is_ok() {
            tokio::task::yield_now().await;
        }
        go.notify_one();
    };
    tokio::time::timeout(LONG, async { tokio::join!(serves, ends) }).await.expect("it does not end");
    assert!(waits.join().unwrap().ends_with("hello"));
}
