//! The server with bounds that a test can reach, and with answers that no route gives.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread::JoinHandle,
};

use bytes::Bytes;
use hyper::{Request, StatusCode, body::Incoming};
use tokio::{net::TcpListener, sync::Notify};

use super::{
    answer::{self, Response},
    server::serve,
    *,
};

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
    let answer = |request: Request<Incoming>| async move {
        let length = if request.uri().path() == "/long" { 64 << 20 } else { 1 };
        answer::bytes_of(StatusCode::OK, "text/plain", vec![b'x'; length].into())
    };
    served(limits, answer, |address| {
        let mut silent = TcpStream::connect(address).unwrap();
        silent.write_all(b"GET /long HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        // There is a place for one.
        while !says(address, ASK).join().unwrap().starts_with("HTTP/1.1 200") {
            std::thread::yield_now();
        }
        drop(silent);
    })
    .await;
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
