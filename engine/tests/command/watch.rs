//! `windrow status --watch` in a terminal: however it ends, the terminal is as it was, and the job goes on.
//!
//! ```text
//!   script (makes a terminal) ──► sh: says its process id, becomes the command ──► stty: how the terminal is afterwards
//!      ▲ keys          │ what is shown
//!   the test ◄─────────┘      SIGTERM ──► the command
//! ```

use std::{
    fs,
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use windrow::{prelude::*, status::State};

use super::{online::Served, printed, until, windrow};

const LONG: std::time::Duration = secs(60);
const IN_THE_VIEW: &str = "\u{1b}[?1049h";
const OUT_OF_IT: &str = "\u{1b}[?1049l";

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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("skipped: there is no `script` here, which makes terminals: apt-get install bsdutils");
                return None;
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
        assert!(Command::new("kill").args([signal, &self.pid]).status().unwrap().success());
    }

    /// That the command ends by itself, and leaves the terminal as it was.
    fn ends(mut self, why: &str) {
        until(LONG, "the command and its terminal have ended", || self.script.try_wait().unwrap().is_some());
        self.reads.take().unwrap().join().unwrap();
        let shown = self.shown.lock().unwrap().clone();
        let (view, after) = shown.split_once("ended with ").unwrap();
        assert!(after.starts_with('0'), "{why}: {after}");
        assert!(view.rfind(OUT_OF_IT) > view.rfind(IN_THE_VIEW), "{why}: the view is left");
        for mode in ["icanon", "echo", "isig", "opost", "icrnl"] {
            let words: Vec<&str> = after.split([' ', ';', '\r', '\n']).collect();
            assert!(words.contains(&mode), "{why}: {mode} is off: {after}");
        }
    }
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
