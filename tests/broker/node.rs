//! The process of a broker: its settings, its start, its violent end, and its start again on the same data.
//!
//! ```text
//! the test ──pipe──> sh ──> java kafka.Kafka
//!   a line: kill -9, keep the data          (Node::kill)
//!   the pipe ends: kill -9, remove the data (Node dropped, or the test itself killed with -9)
//! ```
//!
//! The shell in between is there because a test that is killed cannot clean up, and its pipe closes nevertheless.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer},
    metadata::Metadata,
};
use tempfile::TempDir;

use super::{
    Options, Result,
    jars::{self, Jars},
};

const SLOWEST_START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const LOG: &str = "broker.log";
const SETTINGS: &str = "server.properties";

/// `$0` is the place, `$@` the command. Its process id is said first.
const GUARD: &str = r#"
trap '' INT
exec 3<&0
"$@" </dev/null 3<&- >>"$0/broker.log" 2>&1 &
java=$!
echo "$java"
{ read -r _ <&3 || : >"$0/.abandoned"; kill -9 "$java"; } >/dev/null 2>&1 &
guard=$!
exec >/dev/null 2>&1
wait "$java"
status=$?
kill "$guard"
[ -e "$0/.abandoned" ] && rm -rf "$0"
exit $status
"#;

/// What every node gets, unless the options say otherwise.
const ORDINARY: &[(&str, &str)] = &[
    // Tests write records of any age: what they have written stays.
    ("log.retention.ms", "-1"),
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "2"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    // A transaction that has timed out is aborted within a second, not within ten.
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000"),
    // A node that was killed may come back when the session of its former life has ended: not after nine seconds.
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "250"),
];

/// A node of our own.
pub(super) struct Node {
    ports: BTreeMap<String, u16>,
    command: Vec<String>,
    process: Mutex<Option<Process>>,
    // Last: it is removed when the process has ended.
    place: TempDir,
}

struct Process {
    shell: Child,
    pipe: Option<ChildStdin>,
    java: String,
}

impl Node {
    /// Formats a new directory and starts a node there, ready for clients.
    pub(super) fn start(options: &Options, jars: &Jars, advertised: &BTreeMap<String, u16>) -> Result<Self> {
        let mut last = String::new();
        // Another process may take a port before the broker does.
        for _ in 0..3 {
            let node = Self::format(options, jars, advertised)?;
            match node.run() {
                Ok(()) => return Ok(node),
                Err(error) => last = error.to_string(),
            }
            if !is_clash(&last) {
                break;
            }
        }
        Err(last.into())
    }

    fn format(options: &Options, jars: &Jars, advertised: &BTreeMap<String, u16>) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("windrow-kafka-").tempdir()?;
        let names = [("PLAINTEXT", "PLAINTEXT"), ("CONTROLLER", "PLAINTEXT")];
        let names: Vec<(&str, &str)> = names.into_iter().chain(options.listeners.iter().copied()).collect();
        let free = free_ports(names.len())?;
        let ports: BTreeMap<String, u16> = names.iter().map(|(name, _)| name.to_string()).zip(free).collect();
        fs::write(place.path().join(SETTINGS), settings(options, place.path(), &names, &ports, advertised))?;
        let mut words = jars.java("kafka.tools.StorageTool", 128, false);
        words.extend(["format", "-t", "d2luZHJvdy10ZXN0LW5vZA", "-c", SETTINGS].map(String::from));
        words.extend(options.users.iter().flat_map(|user| ["--add-scram".to_string(), user.clone()]));
        jars::run(place.path(), "timeout", [vec!["60".to_string()], words].concat())?;
        let mut command = jars.java("kafka.Kafka", options.heap_megabytes, options.thorough);
        command.push(SETTINGS.into());
        Ok(Self { ports, command, process: Mutex::new(None), place })
    }

    pub(super) fn port(&self, listener: &str) -> Option<u16> {
        self.ports.get(listener).copied()
    }

    /// Starts the process and waits until it answers.
    fn run(&self) -> Result<()> {
        let mut place = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let process = place.insert(self.spawn()?);
        let until = Instant::now() + SLOWEST_START;
        loop {
            let ended = process.shell.try_wait()?;
            if ended.is_none() && self.answers() {
                return Ok(());
            }
            if ended.is_some() || Instant::now() >= until {
                let what = ended.map_or("does not answer".into(), |status| format!("ended with {status}"));
                if let Some(process) = place.take() {
                    process.kill()?;
                }
                return Err(format!("the broker {what}; the end of its log:\n{}", self.log_tail()).into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn spawn(&self) -> Result<Process> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(GUARD).arg(self.place.path()).args(&self.command).current_dir(self.place.path());
        let log = File::options().create(true).append(true).open(self.place.path().join(LOG))?;
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let pipe = shell.stdin.take();
        let mut java = String::new();
        if let Some(output) = shell.stdout.take() {
            BufReader::new(output).read_line(&mut java)?;
        }
        Ok(Process { shell, pipe, java: java.trim().to_string() })
    }

    /// Whether a metadata request is answered, and every partition has its leader back.
    fn answers(&self) -> bool {
        let Some(port) = self.port("PLAINTEXT") else { return false };
        // Quicker than a client that retries.
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            return false;
        }
        metadata(&format!("127.0.0.1:{port}"), None).is_ok_and(|found| has_leaders(&found))
    }

    /// Ends the process with SIGKILL and keeps its data.
    pub(super) fn kill(&self) -> Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        process.ok_or("the broker does not run")?.kill()
    }

    /// Starts it again on the same data and ports.
    pub(super) fn restart(&self) -> Result<()> {
        if self.process.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.kill()?;
        }
        let mut result = self.run();
        // A client that tries in vain may hold the port for a moment.
        for _ in 0..3 {
            match &result {
                Err(error) if is_clash(&error.to_string()) => std::thread::sleep(Duration::from_millis(500)),
                _ => break,
            }
            File::create(self.place.path().join(LOG))?;
            result = self.run();
        }
        result
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(super) fn signal(&self, signal: &str) -> Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let process = process.as_ref().ok_or("the broker does not run")?;
        jars::run(self.place.path(), "kill", [&format!("-{signal}"), &process.java])?;
        Ok(())
    }

    /// The last lines that the broker wrote.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.place.path().join(LOG)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Process {
    fn kill(mut self) -> Result<()> {
        if let Some(mut pipe) = self.pipe.take() {
            // It may have ended by itself.
            let _ = pipe.write_all(b"kill\n");
            self.shell.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of the pipe is the shell's word to kill and clean up.
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

fn is_clash(error: &str) -> bool {
    error.contains("Address already in use") || error.contains("BindException")
}

/// Free ports on the loopback device.
///
/// Not those that the system gives to clients: one that tries to reach a killed broker there could get that very port for
/// its own side, connect to itself, and keep the broker from coming back.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in 0..1000 {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(15_000..32_000))));
    }
    let ports: Vec<u16> = held.iter().filter_map(|held| Some(held.local_addr().ok()?.port())).collect();
    if ports.len() == count { Ok(ports) } else { Err("no free ports on 127.0.0.1".into()) }
}

fn settings(
    options: &Options,
    place: &Path,
    names: &[(&str, &str)],
    ports: &BTreeMap<String, u16>,
    advertised: &BTreeMap<String, u16>,
) -> String {
    let port = |name: &str| ports.get(name).copied().unwrap_or_default();
    let seen = |name: &str| advertised.get(name).copied().unwrap_or_else(|| port(name));
    let list = |entry: &dyn Fn(&str) -> String, skip: &str| {
        let names = names.iter().map(|(name, _)| *name).filter(|name| *name != skip);
        names.map(entry).collect::<Vec<_>>().join(",")
    };
    let kinds: Vec<String> = names.iter().map(|(name, protocol)| format!("{name}:{protocol}")).collect();
    let mut settings: BTreeMap<String, String> =
        ORDINARY.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    settings.extend([
        ("controller.quorum.voters".into(), format!("1@127.0.0.1:{}", port("CONTROLLER"))),
        ("listeners".into(), list(&|name| format!("{name}://127.0.0.1:{}", port(name)), "")),
        ("advertised.listeners".into(), list(&|name| format!("{name}://127.0.0.1:{}", seen(name)), "CONTROLLER")),
        ("listener.security.protocol.map".into(), kinds.join(",")),
        ("log.dirs".into(), place.join("data").display().to_string()),
    ]);
    settings.extend(options.settings.iter().cloned());
    settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// What the broker says of its topics, or of one.
pub(super) fn metadata(address: &str, topic: Option<&str>) -> Result<Metadata> {
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer = config.set("bootstrap.servers", address).set("log_level", "0").create()?;
    Ok(consumer.fetch_metadata(topic, Duration::from_secs(2))?)
}

pub(super) fn has_leaders(metadata: &Metadata) -> bool {
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let fine = metadata.topics().iter().all(|topic| topic.error().is_none());
    !metadata.brokers().is_empty() && fine && partitions.into_iter().all(|partition| partition.leader() >= 0)
}
