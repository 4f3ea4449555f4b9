//! Where a job is served, and where it is not: in words, and before it has read a row.

use std::net::TcpListener;

use tests::on_two_threads;
use windrow::{Error, prelude::*, serve::Serve};

use super::{numbers, until};

#[track_caller]
fn refused(serve: impl Into<Serve>) -> Error {
    let serve = serve.into();
    on_two_threads(async { numbers("refused").serve(serve).run().await.unwrap_err() })
}

#[test]
fn others_reach_it_with_a_token_only() {
    for address in ["0.0.0.0:0", "[::]:8080", "192.0.2.7:80", "[2001:db8::1]:80", "[::ffff:127.0.0.1]:80"] {
        let error = refused(address);
        assert!(matches!(error, Error::Plan { .. }), "{error}");
        let said = error.to_string();
        for words in ["others can reach it", ".token(Secret::env(\"WINDROW_TOKEN\"))", "127.0.0.1:"] {
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn what_is_no_address_is_a_mistake() {
    for address in
        ["", "8080", ":8080", "localhost", "localhost:x", "example.com:80", "http://127.0.0.1:80", "127.0.0.1:99999"]
    {
        let said = refused(address).to_string();
        assert!(said.contains(&format!("{address:?}, which is no address")), "{said}");
    }
    for host in ["", "http://jobs", "jobs:80", "jobs/path"] {
        let said = refused(Serve::at("127.0.0.1:0").host(host)).to_string();
        assert!(said.contains("which is no name of a host"), "{said}");
    }
}

/// A proxy in front makes everybody one of this machine.
#[test]
fn who_is_known_by_a_name_has_a_token() {
    let said = refused(Serve::at("127.0.0.1:0").host("jobs.example.com")).to_string();
    for words in ["as \"jobs.example.com\"", "others can reach it", ".token(Secret::env(\"WINDROW_TOKEN\"))"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_start_that_fails_gives_the_address_back() {
    let store = tempfile::tempdir().unwrap();
    on_two_threads(async {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let job = || numbers("again").serve(address).checkpoint(store.path().to_str().unwrap(), hours(1));
        for _ in 0..5 {
            let error = job().restore(Restore::savepoint("never-taken")).start().await.err().unwrap();
            assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        }
        let running = job().start().await.unwrap();
        assert_eq!(running.served().unwrap().address(), address);
        running.handle().stop();
        running.wait().await.unwrap();
    });
}

#[test]
fn what_cannot_be_had_fails_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = refused(address);
    assert!(matches!(&error, Error::Serve { job, .. } if job == "refused"), "{error}");
    assert!(error.to_string().contains(&format!("at {address}: the address is in use")), "{error}");

    let elsewhere = refused(Serve::at("192.0.2.7:0").token(Secret::new("a-token"))).to_string();
    assert!(elsewhere.contains("192.0.2.7 is no address of this machine"), "{elsewhere}");

    let missing = refused(Serve::at("127.0.0.1:0").token(Secret::env("WINDROW_NO_SUCH_VARIABLE"))).to_string();
    assert!(missing.contains("WINDROW_NO_SUCH_VARIABLE is not set"), "{missing}");
    for token in ["two words", "gr\u{fc}n", "line\nend"] {
        let unusable = refused(Serve::at("127.0.0.1:0").token(Secret::new(token))).to_string();
        assert!(unusable.contains("characters") && !unusable.contains(token), "{unusable}");
    }
}

#[test]
fn localhost_is_an_address_and_a_job_that_is_dropped_is_served_no_more() {
    on_two_threads(async {
        let running = numbers("local").serve("localhost:0").start().await.unwrap();
        let address = running.served().unwrap().address();
        assert!(address.ip().is_loopback());
        drop(running);
        // Its thread ends by itself.
        until("the address is free", || TcpListener::bind(address).is_ok()).await;
        let job = Job::new("not-served");
        job.source(Sequence::new(1)).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        assert!(running.served().is_none());
        running.wait().await.unwrap();
    });
}
