//! Job processes as the programs `crash` and `kafka_faults` see them: the same program, started again with the word `job`, killed,
//! stopped, interrupted, awaited.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use windrow::{CheckpointError, Error};

/// No job here takes nearly so long: what runs into it hangs.
const TOO_LONG: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// How a job process ended, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was read and written.
    Complete = 0,
    /// By an error that is none of the others.
    Failed = 1,
    /// Another process had the lock.
    Locked = 3,
    /// Another process started at the same moment.
    Starting = 4,
    /// A later process had taken over.
    Fenced = 5,
    /// A second interrupt came.
    Aborted = 6,
}

impl Ended {
    /// All ways to end.
    pub const ALL: [Self; 6] =
        [Self::Complete, Self::Failed, Self::Locked, Self::Starting, Self::Fenced, Self::Aborted];

    /// What a job process that failed ends with.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Checkpoint { error: CheckpointError::Locked { .. }, .. } => Self::Locked,
            Error::Checkpoint { error: CheckpointError::Starting { .. }, .. } => Self::Starting,
            Error::Checkpoint { error: CheckpointError::Fenced { .. }, .. } => Self::Fenced,
            Error::Aborted { .. } => Self::Aborted,
            _ => Self::Failed,
        }
    }
}

/// Runs the job of this process on two threads, says how it ended, and is what the process ends with. `job` says whether it was stopped
/// before its end.
pub fn run(job: impl Future<Output = windrow::Result<bool>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(job) {
        Ok(stopped) => {
            println!("{}", if stopped { "stopped" } else { "exhausted" });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(Ended::of(&error) as u8)
        }
    }
}

/// How a job process is started. `Start::of(...).parallelism(2).env(...)`.
#[derive(Clone, Debug)]
pub struct Start {
    seed: u64,
    place: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Start {
    /// With this seed, in the directory of its run.
    pub fn of(seed: u64, place: &Path) -> Self {
        Self { seed, place: place.to_path_buf(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// With an option and its value.
    #[must_use]
    pub fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.arguments.extend([format!("--{option}"), value.to_string()]);
        self
    }

    /// An option without a value.
    #[must_use]
    pub fn flag(mut self, option: &str) -> Self {
        self.arguments.push(format!("--{option}"));
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }

    /// Starts the process; `name` is for its output, which is kept with the run.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(self, name: impl ToString) -> io::Result<Process> {
        let name = name.to_string();
        let output = |ending: &str| File::create(self.place.join(format!("{name}.{ending}")));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("job").arg("--seed").arg(self.seed.to_string()).arg("--place").arg(&self.place);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(std::process::Stdio::null()).stdout(output("out")?).stderr(output("err")?).spawn()?;
        Ok(Process { child, place: self.place, name })
    }
}

/// A job process. Dropped, it is killed.
pub struct Process {
    child: Child,
    place: PathBuf,
    /// The name of its output.
    pub name: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Ended(Ended),
    /// By a signal.
    Signal(i32),
}

impl Process {
    /// How it ended; none if it still runs after `patience`.
    ///
    /// # Errors
    ///
    /// When its end cannot be told.
    pub fn ended_within(&mut self, patience: Duration) -> io::Result<Option<Exit>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return exit(status).map(Some);
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// How it ended. A process that hangs is killed.
    ///
    /// # Errors
    ///
    /// When it hangs, or its end cannot be told.
    pub fn wait(&mut self) -> Result<Exit, String> {
        match self.ended_within(TOO_LONG) {
            Ok(Some(exit)) => Ok(exit),
            Ok(None) => Err(format!("{} hangs{}", self.name, self.said())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// Waits for its end, which must be a good one.
    ///
    /// # Errors
    ///
    /// With what it said, when it ended in another way.
    pub fn complete(&mut self) -> Result<(), String> {
        match self.wait()? {
            Exit::Ended(Ended::Complete) => Ok(()),
            exit => Err(self.unexpected(exit)),
        }
    }

    /// Says that it should not have ended so, and what it said.
    pub fn unexpected(&self, exit: Exit) -> String {
        format!("{} ended with {exit:?}{}", self.name, self.said())
    }

    /// What it wrote to its standard error.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(self.place.join(format!("{}.err", self.name))).unwrap_or_default();
        if text.is_empty() { String::new() } else { format!(", and said:\n{}", text.trim_end()) }
    }

    /// What it wrote to its standard output.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.place.join(format!("{}.out", self.name))).unwrap_or_default()
    }

    /// SIGKILL. Returns how it ended: it may have come too late.
    ///
    /// # Errors
    ///
    /// When it cannot be killed.
    pub fn kill(&mut self) -> io::Result<Exit> {
        self.child.kill()?;
        exit(self.child.wait()?)
    }

    /// Sends a signal by its name, such as `STOP`. It may come too late.
    ///
    /// # Errors
    ///
    /// When there is no `kill`.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args([&format!("-{signal}"), &id]).stderr(std::process::Stdio::null()).status().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exit(status: ExitStatus) -> io::Result<Exit> {
    use std::os::unix::process::ExitStatusExt;
    if let Some(signal) = status.signal() {
        return Ok(Exit::Signal(signal));
    }
    let known = Ended::ALL.into_iter().find(|ended| Some(*ended as i32) == status.code());
    known.map(Exit::Ended).ok_or_else(|| io::Error::other(format!("it ended with {status}")))
}
