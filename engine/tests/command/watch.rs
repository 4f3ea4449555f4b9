//! `windrow status --watch` in a terminal: however it ends, the terminal is as it was, and the job goes on.
//!
//! ```text
//!   script (makes a terminal) ──► sh: says its process id, becomes the command ──► stty: how the terminal is afterwards
//!      ▲ keys          │ what is shown
//!   the test ◄─────────┘      SIGTERM ──► the command
//! ```

use std::{
    env,
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use windrow::{prelude::*, status::State};

use super::{online::Served, printed, until, windrow};

const LONG: std::time::Duration = secs(60);
const IN_THE_VIEW: &str = "\u{1b}[?1049h";
const OUT_OF_IT: &str = "\u{1b}[?1049l";
/// `O_NONBLOCK` and `O_NOCTTY` of Linux.
const NOT_WAITING: i32 = 0o4400;

/// Says that the test is skipped. Not by `eprintln`, which is silent in a test that passes.
fn skip<T>(reason: &str) -> Option<T> {
    let may_not = env::var_os("WINDROW_NO_SKIP").is_some_and(|value| value == "1");
    assert!(!may_not, "skipped: {reason}; and WINDROW_NO_SKIP=1 forbids that");
    let name = std::thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(std::io::stderr(), "{name} ... skipped: {reason}");
    None
}

/// A terminal in which the command runs.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    /// Only empty at the end.
    reads: Option<JoinHandle<()>>,
    pid: String,
}

impl Terminal {
    /// Watches the job. `None` where there is no `script`.
    fn watch(job: &Served) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let (program, url) = (env!("CARGO_BIN_EXE_windrow"), &job.url);
        let begin = format!("echo $$ > {0}.new && mv {0}.new {0}", pid.display());
        let shell = format!(
            "stty rows 40 cols 120; sh -c '{begin}; exec {program} status {url} --watch'; echo ended with $?; stty -a"
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &shell, "/dev/null"]);
        // Nothing of the environment of the tests but what the command gets elsewhere too.
        for (name, value) in windrow(&[]).get_envs() {
            assert!(value.is_none());
            command.env_remove(name);
        }
        command.env("WINDROW_TOKEN", &job.token).env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut script = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return skip("there is no `script` here, which makes terminals: apt-get install bsdutils");
            }
            script => script.unwrap(),
        };
        let shown = Arc::new(Mutex::new(String::new()));
        let (into, mut out) = (shown.clone(), script.stdout.take().unwrap());
        let reads = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(some @ 1..) = out.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..some]));
            }
        });
        until(LONG, "the command has begun", || pid.exists());
        let keys = script.stdin.take().unwrap();
        let terminal =
            Self { script, keys, shown, reads: Some(reads), pid: fs::read_to_string(pid).unwrap().trim().into() };
        until(LONG, "the view is there", || terminal.shows(IN_THE_VIEW) && terminal.shows("numbers"));
        Some(terminal)
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn kill(&self, signal: &str) {
        kill(signal, &self.pid);
    }

    /// Stops who hands on what is drawn, and fills the terminal. Nobody can write to it from then on.
    fn stop(&self) {
        let script = self.script.id().to_string();
        kill("-STOP", &script);
        until(LONG, "the terminal is stopped", || state(&script) == Some('T'));
        let terminal = Path::new("/proc").join(&self.pid).join("fd/2");
        let mut terminal = OpenOptions::new().write(true).custom_flags(NOT_WAITING).open(terminal).unwrap();
        // The system hands on what it has taken a little later, and then there is room again.
        let mut refused = 0;
        until(LONG, "the terminal is full", || {
            match terminal.write(b"full") {
                Ok(_) => refused = 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => refused += 1,
                Err(error) => panic!("{error}"),
            }
            refused == 200
        });
    }

    /// That the command ends by itself, and leaves the terminal as it was.
    fn ends(self, why: &str) {
        let view = self.ends_with("0", why);
        assert!(view.rfind(OUT_OF_IT) > view.rfind(IN_THE_VIEW), "{why}: the view is left");
    }

    /// That the command ends with this exit code, and keys are as they were. Returns what was drawn.
    fn ends_with(mut self, code: &str, why: &str) -> String {
        until(LONG, "the command and its terminal have ended", || self.script.try_wait().unwrap().is_some());
        self.reads.take().unwrap().join().unwrap();
        let shown = self.shown.lock().unwrap().clone();
        let (view, after) = shown.split_once("ended with ").unwrap();
        assert_eq!(after.split(['\r', '\n']).next(), Some(code), "{why}: {after}");
        for mode in ["icanon", "echo", "isig", "opost", "icrnl"] {
            let words: Vec<&str> = after.split([' ', ';', '\r', '\n']).collect();
            assert!(words.contains(&mode), "{why}: {mode} is off: {after}");
        }
        view.to_owned()
    }
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// What a process does, as a letter: `T` when it is stopped. `None` when it is gone.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended; what runs in it ends with its terminal.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// How many savepoints there are.
fn savepoints(job: &Served) -> usize {
    let listed: serde_json::Value =
        serde_json::from_str(&printed(&["checkpoints", job.store.path().to_str().unwrap(), "--json"])).unwrap();
    let checkpoints = listed[0]["checkpoints"].as_array().unwrap().iter();
    checkpoints.map(|one| one["savepoints"].as_array().unwrap().len()).sum()
}

#[test]
fn whatever_ends_the_view_gives_the_terminal_back_and_does_nothing_to_the_job() {
    let job = Served::start("127.0.0.1:0");
    for (at, why) in ["q", "ctrl-c", "-TERM", "-INT"].into_iter().enumerate() {
        let Some(mut terminal) = Terminal::watch(&job) else { break };
        terminal.press(&format!("ssave-{at}\r"));
        until(LONG, "the savepoint is taken", || savepoints(&job) == at + 1);
        match why {
            "q" => terminal.press("q"),
            "ctrl-c" => terminal.press("\u{3}"),
            signal => terminal.kill(signal),
        }
        terminal.ends(why);
        assert_eq!(job.handle.status().state, State::Running, "{why}");
        assert_eq!(savepoints(&job), at + 1, "{why}: those that were asked for, and no other");
    }
    job.handle.stop();
    assert!(job.ended().unwrap().stopped);
}

#[test]
fn a_signal_also_ends_it_in_a_terminal_that_is_stopped() {
    let job = Served::start("127.0.0.1:0");
    if let Some(terminal) = Terminal::watch(&job) {
        terminal.stop();
        terminal.kill("-TERM");
        until(LONG, "the command has ended", || matches!(state(&terminal.pid), None | Some('Z')));
        kill("-CONT", &terminal.script.id().to_string());
        terminal.ends_with("143", "SIGTERM");
        assert_eq!(job.handle.status().state, State::Running);
    }
    job.handle.stop();
    assert!(job.ended().unwrap().stopped);
}
