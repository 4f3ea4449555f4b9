//! The command `windrow` as a process: what it prints, where, and how it ends.
//!
//! | file | why it exists |
//! |---|---|
//! | `help` | every command shows examples, and exit codes are told |
//! | `offline` | checkpoints, what is in them, state |
//! | `config` | what holds, and who says it |
//! | `online` | a job that is served: status, savepoint, stop, cancel |
//! | `watch` | the view of such a job, and the terminal afterwards |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod config;
mod help;
mod offline;
#[cfg(feature = "serve")]
mod online;
// Others have another `script`.
#[cfg(all(feature = "serve", target_os = "linux"))]
mod watch;

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use windrow::prelude::*;

/// The command, with nothing of the environment of the tests.
fn windrow(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("WINDROW_")) {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// What a command did.
#[derive(Debug)]
struct Did {
    code: i32,
    out: String,
    err: String,
}

fn did(command: &mut Command) -> Did {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Did { code: status.code().expect("it was not killed"), out: text(stdout), err: text(stderr) }
}

fn run(args: &[&str]) -> Did {
    did(&mut windrow(args))
}

/// What a command prints that does what it should.
fn printed(args: &[&str]) -> String {
    let did = run(args);
    assert_eq!((did.code, did.err.as_str()), (0, ""), "{args:?}: {did:?}");
    did.out
}

/// How a command fails: its code and message.
fn failed(args: &[&str]) -> (i32, String) {
    let did = run(args);
    assert_ne!(did.code, 0, "{did:?}");
    assert!(did.out.is_empty(), "{did:?}");
    (did.code, did.err)
}

/// Waits until it is so, and not for ever.
fn until(deadline: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < deadline, "after {deadline:?} not yet: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A job with a window that is open at its end, and a savepoint.
fn stopped_job(store: &str, name: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let job = Job::new(name).checkpoint(store, hours(1)).parallelism(2);
        job.source(Sequence::endless().rate(1_000))
            .event_time("at", Watermarks::in_order())
            .select([col("at"), (col("value") % lit(2)).alias("odd")])
            .key_by("odd")
            .window(Tumbling::of(hours(24)))
            .aggregate([count().alias("numbers")])
            .drop_late()
            .sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let waiting = tokio::spawn(running.wait());
        until(secs(60), "ten rows are read", || handle.metrics().named("source").any(|source| source.rows_in >= 10));
        handle.stop_with_savepoint("before-upgrade").await.unwrap();
        waiting.await.unwrap().unwrap();
    });
}
