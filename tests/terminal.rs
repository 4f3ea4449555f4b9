//! A job that shows itself in a real terminal: the one of `script`, which hands on what is drawn and what is typed.
//!
//! ```text
//!   test ── keys ──► script ──► a terminal ──► this program once more, in the role of a job that is watched
//!     ▲                │                          │ what it wants to say of itself goes to a file
//!     └── what is drawn┘ ◄────────────────────────┘
//! ```
//!
//! A terminal that is stopped is one whose `script` is stopped and whose buffer is full: whoever writes to it waits.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::{fs::OpenOptionsExt, process::parent_id},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use tests::{TOO_LONG, skip};
use windrow::{JobHandle, prelude::*, status::State};

/// Where a job of [`the_job_in_the_terminal`] says what became of it; without this variable that is no test.
const SAYS: &str = "WINDROW_TEST_TERMINAL";
const ROLE: &str = "WINDROW_TEST_TERMINAL_ROLE";
/// `O_NONBLOCK` of Linux.
const NOT_WAITING: i32 = 0o4000;
const LOOK: Duration = millis(5);
const CTRL_C: &str = "\x03";

/// A terminal with a job in it.
struct Terminal {
    script: Child,
    /// What is drawn, as it comes.
    drawn: Receiver<Vec<u8>>,
    seen: String,
    directory: tempfile::TempDir,
}

impl Terminal {
    /// None: skip the test, it has been said why.
    fn with(role: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let program = env::current_exe().unwrap();
        // Of a terminal that has no size nothing could be filled.
        let inside = format!(
            "stty cols 100 rows 30; exec '{}' --exact the_job_in_the_terminal --nocapture --test-threads 1",
            program.display()
        );
        let started = Command::new("script")
            .args(["--quiet", "--return", "--command", &inside, "/dev/null"])
            .env(SAYS, directory.path().join("says"))
            .env(ROLE, role)
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut script = match started {
            Ok(script) => script,
            Err(error) if error.kind() == ErrorKind::NotFound => return skip("there is no program `script`"),
            Err(error) => panic!("script: {error}"),
        };
        let (send, drawn) = channel();
        let mut out = script.stdout.take().unwrap();
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut part) {
                if send.send(part[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { script, drawn, seen: String::new(), directory })
    }

    /// Waits until the words have been drawn.
    #[track_caller]
    fn draws(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.seen.contains(words) {
            if let Err(why) = self.part(begun) {
                panic!("{words:?} is not drawn ({why}), but: {:?}", self.seen);
            }
        }
    }

    /// Takes what is drawn next. There is one deadline for all parts: a line that is rewritten for ever is no progress.
    fn part(&mut self, begun: Instant) -> Result<(), RecvTimeoutError> {
        let left = TOO_LONG.checked_sub(begun.elapsed()).ok_or(RecvTimeoutError::Timeout)?;
        self.seen += &String::from_utf8_lossy(&self.drawn.recv_timeout(left)?);
        Ok(())
    }

    fn types(&mut self, keys: &str) {
        self.script.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the job has said what became of it.
    #[track_caller]
    fn says(&self) -> String {
        let begun = Instant::now();
        loop {
            match fs::read_to_string(self.directory.path().join("says")) {
                Ok(said) if said.ends_with('\n') => return said,
                _ if begun.elapsed() < TOO_LONG => {}
                _ => {
                    let drawn = self.drawn.try_iter().flatten().collect::<Vec<_>>();
                    panic!("the job hangs, and drew: {:?}{:?}", self.seen, String::from_utf8_lossy(&drawn));
                }
            }
            thread::sleep(LOOK);
        }
    }

    /// All that was drawn, when the program in it has ended.
    #[track_caller]
    fn ended(mut self) -> String {
        let begun = Instant::now();
        loop {
            match self.part(begun) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(RecvTimeoutError::Timeout) => panic!("the program does not end, and draws: {:?}", self.seen),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What is in the terminal ends with it.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn a_line_is_drawn_and_stays() {
    let Some(mut terminal) = Terminal::with("line") else { return };
    terminal.draws("first running");
    terminal.types(CTRL_C);
    assert_eq!(terminal.says(), "first true, second true\n");
    let drawn = terminal.ended();
    assert!(drawn.contains("first ended"), "{drawn:?}");
    assert!(!drawn.contains("second"), "one job is drawn at a time: {drawn:?}");
}

#[test]
fn the_view_takes_keys_and_gives_the_terminal_back() {
    const TAKEN: &str = "\x1b[?1049h";
    const GIVEN_BACK: &str = "\x1b[?1049l";
    let Some(mut terminal) = Terminal::with("view") else { return };
    terminal.draws(TAKEN);
    terminal.draws("q leave");
    // In the view it is a key, which stops the job as always.
    terminal.types(CTRL_C);
    assert_eq!(terminal.says(), "first true, second true\n");
    let drawn = terminal.ended();
    let (_, after) = drawn.rsplit_once(GIVEN_BACK).expect("the terminal is given back");
    assert!(after.contains("first ended"), "{after:?}");
    assert_eq!(drawn.matches(TAKEN).count(), 1);
    assert!(!drawn.contains("second"), "one job is drawn at a time: {drawn:?}");
}

/// On one thread: who waited for the terminal there would hold up all.
#[test]
fn a_terminal_that_is_stopped_holds_nobody_up() {
    for role in ["stopped line", "stopped view"] {
        let Some(terminal) = Terminal::with(role) else { return };
        assert_eq!(terminal.says(), "first true\n", "{role}");
    }
}

fn job(name: &str, view: bool) -> Job {
    let job = if view { Job::new(name).watch() } else { Job::new(name).progress() };
    job.source(Sequence::endless().rate(10_000)).sink(MemorySink::new());
    job
}

async fn until_read(job: &JobHandle, rows: u64) {
    while job.status().operators[0].rows_out < rows {
        tokio::time::sleep(LOOK).await;
    }
}

/// Stops who hands on what is drawn, and fills the terminal. Nobody can write to it from then on.
fn stop_the_terminal() {
    let script = parent_id().to_string();
    assert!(Command::new("kill").args(["-STOP", &script]).status().unwrap().success());
    let state = || fs::read_to_string(Path::new("/proc").join(&script).join("stat")).unwrap();
    while !state().rsplit_once(") ").unwrap().1.starts_with('T') {
        thread::sleep(LOOK);
    }
    let mut terminal = OpenOptions::new().write(true).custom_flags(NOT_WAITING).open("/dev/tty").unwrap();
    loop {
        match terminal.write(b"full") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// No test, but the program in the terminal.
#[test]
fn the_job_in_the_terminal() {
    let Some(says) = env::var_os(SAYS).map(PathBuf::from) else { return };
    let role = env::var(ROLE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let view = role.ends_with("view");
    let said = runtime.block_on(async {
        if role.starts_with("stopped") {
            Box::pin(in_a_stopped_terminal(view)).await
        } else {
            Box::pin(two_at_a_time(view)).await
        }
    });
    let part = says.with_extension("part");
    File::create(&part).unwrap().write_all(said.as_bytes()).unwrap();
    fs::rename(part, says).unwrap();
}

/// The first is stopped by Ctrl-C.
async fn two_at_a_time(view: bool) -> String {
    let first = job("first", view).start().await.unwrap();
    let second = job("second", view).start().await.unwrap();
    let (one, other) = (first.handle(), second.handle());
    let stops = async {
        while one.status().state == State::Running {
            tokio::time::sleep(LOOK).await;
        }
        other.stop();
    };
    let (first, second, ()) = tokio::join!(first.wait(), second.wait(), stops);
    format!("first {}, second {}\n", first.unwrap().stopped, second.unwrap().stopped)
}

async fn in_a_stopped_terminal(view: bool) -> String {
    let running = job("first", view).start().await.unwrap();
    let handle = running.handle();
    stop_the_terminal();
    let reads = async {
        let read = handle.status().operators[0].rows_out;
        until_read(&handle, read + 5_000).await;
        handle.stop();
    };
    let (report, ()) = tokio::join!(running.wait(), reads);
    format!("first {}\n", report.unwrap().stopped)
}
