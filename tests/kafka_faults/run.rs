//! One run: its topics, its starts, and what must hold in the end: every record committed once, and nothing left open.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tests::{
    broker::{Broker, verify::Record},
    process::{Ended, Exit, Process, Start},
};

use super::{
    child::RUNNING,
    cluster::{self, Feeder, OUTPUTS, at_once},
    figures::{Failure, Figures},
    oracle::{self, Difference},
    scenario::{IN, MORE, Scenario},
};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// After a start of the job readers of committed records have to get on within this.
const LONGEST_STALL: Duration = Duration::from_secs(2);
/// What takes longer than this hangs.
const TOO_LONG: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(2);

/// A run under way.
pub(crate) struct Run<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) seed: u64,
    pub(crate) place: PathBuf,
    /// Its name, with which those of its topics begin.
    pub(crate) job: String,
    pub(crate) scenario: Scenario,
    pub(crate) random: fastrand::Rng,
    pub(crate) figures: Figures,
    /// How long a transaction may stay open.
    pub(crate) transaction_timeout: Duration,
    /// How often the job may start itself again.
    pub(crate) restarts: u32,
    pub(crate) proxied: bool,
    /// How often the job looks for new partitions.
    pub(crate) discovery: Duration,
    /// Records of the input that may not be there any more in the end.
    pub(crate) gone: Vec<Record>,
    /// How many records of the input are there twice.
    pub(crate) repeated: usize,
}

impl<'a> Run<'a> {
    /// Creates the topics.
    pub(crate) fn begin(broker: &'a Broker, seed: u64, place: &Path) -> Result<Self> {
        let scenario = Scenario::new(seed);
        // The faults are drawn apart from the scenario, so that one does not change with the other.
        let random = fastrand::Rng::with_seed(seed ^ 0xfa01_7500);
        let job = format!("job{seed}-{:08x}", fastrand::u32(..));
        cluster::create_topics(broker, &job, &scenario)?;
        let figures = Figures { runs: 1, ..Figures::default() };
        let (place, transaction_timeout) = (place.to_path_buf(), Duration::from_secs(60));
        Ok(Self {
            broker,
            seed,
            place,
            job,
            scenario,
            random,
            figures,
            transaction_timeout,
            restarts: 0,
            proxied: false,
            discovery: Duration::from_secs(30),
            gone: Vec::new(),
            repeated: 0,
        })
    }

    pub(crate) fn feeder(&self) -> Feeder<'a> {
        self.feeders(self.scenario.records.len()).0
    }

    /// So many, each for its share of the records, in order.
    pub(crate) fn parts(&self, count: usize) -> Vec<Feeder<'a>> {
        let length = self.scenario.records.len().div_ceil(count.max(1)).max(1);
        let part = |records: &[_]| Feeder::new(self.broker, &self.job, records.to_vec());
        self.scenario.records.chunks(length).map(part).collect()
    }

    /// Two, one for so many records and one for the rest.
    pub(crate) fn feeders(&self, first: usize) -> (Feeder<'a>, Feeder<'a>) {
        let (first, rest) = self.scenario.records.split_at(first);
        let feeder = |records: &[_]| Feeder::new(self.broker, &self.job, records.to_vec());
        (feeder(first), feeder(rest))
    }

    /// The next start, at a parallelism of its own. A bounded job ends where the input ends.
    pub(crate) fn start(&mut self, bounded: bool) -> Result<Process> {
        self.figures.starts += 1;
        let brokers = if self.proxied { self.broker.proxy()?.address() } else { self.broker.address() };
        let start = Start::of(self.seed, &self.place)
            .with("brokers", brokers)
            .with("job", &self.job)
            .with("parallelism", self.random.usize(1..5))
            .with("transaction-timeout", self.transaction_timeout.as_millis())
            .with("restarts", self.restarts)
            .with("discovery", self.discovery.as_millis());
        let start = if bounded { start.flag("bounded") } else { start };
        Ok(start.start(format!("start-{}", self.figures.starts))?)
    }

    /// A time in milliseconds drawn from a range.
    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.random.u64(range.start * 1_000..range.end * 1_000))
    }

    /// Kills the job. It must not have ended before, unless it was `bounded` and is complete.
    pub(crate) fn kill(&mut self, process: &mut Process, bounded: bool) -> Result<()> {
        match process.kill()? {
            Exit::Signal(9) => self.figures.kills += 1,
            Exit::Ended(Ended::Complete) if bounded => {}
            exit => return Err(self.failed(process.unexpected(exit))),
        }
        Ok(())
    }

    /// Waits until a checkpoint has all input that there is, by a process that lives.
    pub(crate) fn until_read(&self, process: &mut Process) -> Result<()> {
        let look = || match process.ended_within(Duration::ZERO) {
            Ok(None) => Ok(()),
            Ok(Some(exit)) => Err(process.unexpected(exit)),
            Err(error) => Err(error.to_string()),
        };
        let read = cluster::until_read(self.broker, &self.job, &self.scenario.inputs(), TOO_LONG, look);
        // A process that hangs may have said something.
        read.map_err(|error| self.failed(format!("{error}; {} said: {}", process.name, process.said())))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.place.join("store").join(&self.job)
    }

    /// How often the job was started, by others or by itself. A record that is being written has a `#` in its name.
    pub(crate) fn generations(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.store().join("gen")) else { return 0 };
        entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().contains('#')).count()
    }

    pub(crate) fn failed(&self, reason: String) -> Failure {
        Failure { reason, figures: Box::new(self.figures.clone()) }
    }

    /// Ends the run: one last start that nobody disturbs, under the eyes of a reader of its topics; then everything must be there.
    pub(crate) fn finish(mut self) -> Result<Figures> {
        let mut last = self.start(true)?;
        self.watch(&mut last)?;
        last.complete().map_err(|error| self.failed(error))?;
        self.check()
    }

    /// Waits until a start of the job has taken over, and then for readers of committed records to get on.
    pub(crate) fn watch(&mut self, process: &mut Process) -> Result<()> {
        until_running(process)?;
        let stall = cluster::stall(self.broker, &self.job, 4 * LONGEST_STALL)?;
        self.figures.longest_stall = self.figures.longest_stall.max(stall);
        if stall > LONGEST_STALL {
            let reason =
                format!("readers of committed records do not get on for {stall:?} after {} runs", process.name);
            return Err(self.failed(reason));
        }
        Ok(())
    }

    /// That everything is there, once, and nothing else.
    pub(crate) fn check(mut self) -> Result<Figures> {
        let stall = cluster::stall(self.broker, &self.job, LONGEST_STALL)?;
        if stall >= LONGEST_STALL {
            return Err(self.failed("a transaction is open after the end".into()));
        }
        let committed_in = |topic: &str| self.broker.committed(&format!("{}.{topic}", self.job));
        let outputs = at_once(OUTPUTS, committed_in)?;
        let here = committed_in(IN)?.into_iter().chain(std::mem::take(&mut self.gone));
        let records: BTreeMap<_, _> = here.map(|record| ((record.partition, record.offset), record)).collect();
        let records: Vec<Record> = records.into_values().collect();
        let more = if self.scenario.join.is_some() { committed_in(MORE)? } else { Vec::new() };
        let (there, fed) = (records.len() + more.len(), self.scenario.records.len() + self.repeated);
        if there != fed {
            return Err(self.failed(format!("the harness: {fed} records were fed to {}, {there} are there", self.job)));
        }
        let expected = oracle::answers(&self.scenario, &records, &more);
        self.figures.rows = outputs.iter().map(|records| records.len() as u64).sum();
        self.figures.dead = outputs[2].len() as u64;
        self.figures.epochs = committed(&self.store().join("epoch"))?;
        let compared = [
            ("rows", &expected.rows, oracle::found_rows(&outputs[0])),
            ("answers", &expected.answers, oracle::found_answers(&outputs[1])),
            ("dead", &expected.dead, oracle::found_dead(&self.job, &outputs[2])),
        ];
        let mut wrong = String::new();
        for (topic, expected, found) in compared {
            let difference = Difference::between(expected, &found);
            if let Some(text) = difference.text() {
                self.figures.lost += difference.lost.len() as u64;
                self.figures.repeated += difference.repeated.len() as u64;
                let (found, expected) = (found.len(), expected.len());
                wrong += &format!("{}.{topic}: {found} records, expected {expected}: {text}\n", self.job);
            }
        }
        if wrong.is_empty() { Ok(self.figures) } else { Err(self.failed(wrong.trim_end().to_string())) }
    }
}

/// Waits until the job of a process has taken over.
pub(crate) fn until_running(process: &mut Process) -> Result<()> {
    until(process, "it runs", |process| process.printed().contains(RUNNING))
}

/// Waits for something that a process does.
pub(crate) fn until(process: &mut Process, what: &str, done: impl Fn(&Process) -> bool) -> Result<()> {
    let begin = Instant::now();
    while !done(process) {
        if let Some(exit) = process.ended_within(LOOK)? {
            return if done(process) { Ok(()) } else { Err(process.unexpected(exit).into()) };
        }
        if begin.elapsed() >= TOO_LONG {
            return Err(format!("{} hangs before {what}; it said: {}", process.name, process.said()).into());
        }
    }
    Ok(())
}

/// How many checkpoints were decided to count. The records are framed JSON.
fn committed(epochs: &Path) -> io::Result<u64> {
    let mut committed = 0;
    for entry in fs::read_dir(epochs)? {
        committed += u64::from(String::from_utf8_lossy(&fs::read(entry?.path())?).contains("\"commit\""));
    }
    Ok(committed)
}
