//! Jobs in real processes between topics of a real Kafka, and harm that is done to both; and whether every row is there in the
//! end, once, as a consumer sees it that is not Windrow's.
//!
//! ```text
//!   seed ──► scenario ──► producer ──► in ──► job process ──✕──► job process ──✕── … ──► job process ──► rows, answers, dead
//!                                      │      (this program)  SIGKILL, SIGSTOP, another parallelism            │
//!                                      │           │                                                          │
//!                                      │      [proxy: requests and replies are lost]   broker: SIGKILL, SIGSTOP │
//!                                      └── kcat ── oracle: a naive batch computation ──── equal? ◄──── kcat ──┘
//! ```
//!
//! * [`scenario`]: the jobs that seeds stand for, and their input. [`oracle`]: their answers.
//! * [`child`]: the job process. [`tests::process`]: how it is started, killed, awaited.
//! * [`run`]: one run. [`cluster`]: what it asks of the broker. [`faults`]: what is done to it. [`figures`]: what is counted.

#![cfg(unix)]
#![allow(missing_docs, unreachable_pub, reason = "derive(Record) makes public types")]

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use tests::broker::{Broker, Options};

use self::{
    faults::Fault,
    figures::{Failure, Figures, some},
};

mod child;
mod cluster;
mod faults;
mod figures;
mod oracle;
mod run;
mod scenario;

/// After so many failures no new run begins.
const ENOUGH_FAILURES: usize = 5;

/// Then a new broker takes over: one with thousands of partitions is slow, and slow to start again.
const RUNS_OF_A_BROKER: usize = 25;

/// Starts jobs between topics of a broker of its own as real processes, does harm to them, to the broker and to what is between
/// them, and compares what was committed with a naive batch computation.
///
/// The last line has the figures. Kills are of job processes, broker faults are kills and pauses of the broker, proxy faults are
/// requests and replies that were lost, delayed, or answered in the broker's place; epochs are checkpoints that were decided; rows
/// are committed records. The exit code is 0 if nothing was lost or repeated and no other rule was broken.
#[derive(Parser, Debug)]
#[command(name = "kafka_faults", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many runs there are of row 13; of the others as many in proportion, at least one. With --only it is their number.
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// The first seed of each row; each run takes the next.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only these rows of the fault matrix.
    #[arg(long, value_enum)]
    only: Vec<Fault>,
    /// For how many seconds a commit is delayed that row 14 delays.
    #[arg(long, default_value_t = 30)]
    delay: u64,
    /// Where the runs take place; in memory, or in the directory for temporary files, if not said.
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The job process. For this program itself.
    #[command(hide = true)]
    Job(child::ChildArgs),
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Command::Job(job)) = arguments.command.take() {
        return child::run(&job);
    }
    let began = Instant::now();
    let chosen = if arguments.only.is_empty() { Fault::value_variants().to_vec() } else { arguments.only.clone() };
    let tasks = chosen.into_iter().flat_map(|fault| {
        let runs = if arguments.only.is_empty() { fault.share(arguments.runs) } else { arguments.runs };
        (0..runs as u64).map(move |run| (fault, run))
    });
    let (mut figures, mut failures, mut broker) = (Figures::default(), 0, None::<(Broker, usize)>);
    for (fault, number) in tasks {
        if broker.as_ref().is_none_or(|(_, runs)| *runs >= RUNS_OF_A_BROKER) {
            drop(broker.take());
            let Some(new) = Broker::own(Options::default().proxied()) else {
                println!("kafka_faults: skipped");
                return ExitCode::SUCCESS;
            };
            broker = Some((new, 0));
        }
        let Some((broker, runs)) = &mut broker else { break };
        *runs += 1;
        let seed = arguments.first_seed + number;
        failures += usize::from(!one(fault, seed, broker, &arguments, &mut figures));
        if failures >= ENOUGH_FAILURES {
            break;
        }
    }
    println!("{} of a job, {:.0} s", some(figures.starts, "start"), began.elapsed().as_secs_f64());
    if failures > 0 {
        println!("kafka_faults: {figures}; {failures} FAILED");
        return ExitCode::FAILURE;
    }
    println!("kafka_faults: {figures}");
    ExitCode::SUCCESS
}

/// Does one run, in a directory of its own that is kept if it fails, and says what came of it.
fn one(fault: Fault, seed: u64, broker: &Broker, arguments: &Arguments, figures: &mut Figures) -> bool {
    let began = Instant::now();
    let place = match place(arguments) {
        Ok(place) => place,
        Err(error) => {
            println!("FAILED {fault} SEED={seed}: no directory for a run: {error}");
            return false;
        }
    };
    let delay = Duration::from_secs(arguments.delay);
    let work = AssertUnwindSafe(|| fault.run(broker, seed, place.path(), delay));
    let done = catch_unwind(work).unwrap_or_else(|_| Err(Failure::from("the run panicked".to_string())));
    let done = done.map_err(|failure| (failure.reason, failure.figures));
    let elapsed = began.elapsed().as_secs_f64();
    match done {
        Ok(its) => {
            println!("{fault} SEED={seed}: {its}, {elapsed:.1} s");
            *figures += its;
            true
        }
        Err((reason, its)) => {
            println!(
                "FAILED {fault} SEED={seed} after {elapsed:.1} s\n  {}\n  kept: {}\n  again: cargo run --release -p tests \
                 --bin kafka_faults -- --only {fault} --runs 1 --first-seed {seed}",
                reason.replace('\n', "\n  "),
                place.keep().display(),
            );
            *figures += *its;
            false
        }
    }
}

/// No machine dies here, only processes: so memory is as good as a disk, and does not make one wait.
fn place(arguments: &Arguments) -> std::io::Result<tempfile::TempDir> {
    let place = || tempfile::Builder::new().prefix("windrow-kafka-faults-").to_owned();
    match &arguments.directory {
        Some(directory) => place().tempdir_in(directory),
        None => place().tempdir_in("/dev/shm").or_else(|_| place().tempdir()),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
