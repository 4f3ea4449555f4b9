//! Clients that want too much, come too often, or do not go on: the others are answered, and the job does not notice.

use std::{io::Write, net::TcpStream};

use tests::on_two_threads;

use super::{
    client,
    client::{Client, read},
    numbers,
};

/// As many as there may be.
const CONNECTIONS: usize = 64;

fn asked(ask: impl FnOnce(&Client)) {
    on_two_threads(async {
        let running = numbers("bounded").start().await.unwrap();
        ask(&client(&running));
        running.handle().stop();
        let report = running.wait().await.unwrap();
        assert!(report.stopped && report.metrics.operators.iter().all(|operator| operator.balances()));
    });
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    asked(|client| {
        let headers = client.headers();
        let long = format!(r#"{{"name": "{}"}}"#, "a".repeat(70 << 10));
        assert!(client.post("/api/savepoint", &long).is(413).error().contains("65536 bytes"));
        // Before it has come, if it says how long it is.
        let said =
            format!("POST /api/stop HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 99999999999\r\n\r\n{{}}");
        client.raw(said.as_bytes()).unwrap().is(413);
        // And if it does not.
        let chunk = format!("1000\r\n{}\r\n", "a".repeat(0x1000)).repeat(17);
        let endless =
            format!("POST /api/stop HTTP/1.1\r\nhost: localhost\r\n{headers}transfer-encoding: chunked\r\n\r\n{chunk}");
        client.raw(endless.as_bytes()).unwrap().is(413);
        // Two lengths are how requests are smuggled past a proxy.
        let two = format!(
            "POST /api/stop HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
        );
        assert!(client.raw(two.as_bytes()).is_none_or(|answer| answer.status == 400));
        let deep = format!(r#"{{"name": {}"#, "[".repeat(60_000));
        client.post("/api/savepoint", &deep).is(400);
    });
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    asked(|client| {
        let long = "a".repeat(64 << 10);
        let many = "x: y\r\n".repeat(1_000);
        for head in [
            format!("GET /{long} HTTP/1.1\r\n"),
            format!("GET / HTTP/1.1\r\nx: {long}\r\n"),
            format!("GET / HTTP/1.1\r\n{many}"),
        ] {
            let answer = client.raw(format!("{head}host: localhost\r\n\r\n").as_bytes());
            assert!(answer.is_none_or(|answer| [414, 431].contains(&answer.status)));
        }
        client.get("/api/status").is(200);
    });
}

#[test]
fn who_does_not_finish_holds_nobody() {
    asked(|client| {
        let begin = |bytes: &str| {
            let mut stream = client.connect();
            stream.write_all(bytes.as_bytes()).unwrap();
            stream
        };
        let headers = client.headers();
        let never_finished: Vec<TcpStream> = (0..CONNECTIONS / 4)
            .flat_map(|_| {
                [begin(""), begin("GET /api/sta"), begin("GET /api/status HTTP/1.1\r\nhost: localhost\r\nx-")]
            })
            .collect();
        let body =
            begin(&format!("POST /api/stop HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 100\r\n\r\n{{"));
        for _ in 0..100 {
            client.get("/api/status").is(200);
        }
        drop((never_finished, body));
    });
}

#[test]
fn who_holds_places_and_asks_nothing_makes_room() {
    asked(|client| {
        let held: Vec<TcpStream> = (0..2 * CONNECTIONS).map(|_| client.connect()).collect();
        for _ in 0..CONNECTIONS {
            client.get("/api/status").is(200);
        }
        drop(held);
    });
}

/// All of them have sent their request when the server comes to them: none of them is taken for one that asks nothing.
#[test]
fn who_comes_with_many_others_is_answered_or_told() {
    asked(|client| {
        let begin = |_| {
            let mut stream = client.connect();
            stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            stream
        };
        let all: Vec<TcpStream> = (0..2 * CONNECTIONS).map(begin).collect();
        for stream in all {
            let status = read(stream).expect("an answer").status;
            assert!([200, 503].contains(&status), "{status}");
        }
    });
}

/// A client that does not read what it has asked for.
#[test]
fn the_job_ends_although_clients_hold_on() {
    on_two_threads(async {
        let running = numbers("left").start().await.unwrap();
        let client = client(&running);
        let mut silent: Vec<TcpStream> = (0..8).map(|_| client.connect()).collect();
        for stream in &mut silent {
            stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        }
        silent.extend((0..8).map(|_| client.connect()));
        running.handle().stop();
        running.wait().await.unwrap();
        assert!(TcpStream::connect(client.address).is_err());
    });
}
