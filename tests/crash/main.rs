//! Jobs in real processes that are killed, raced, suspended and stopped, thousands of times; and whether every row is
//! there in the end, once.
//!
//! ```text
//!   seed ──► scenario ──► input files ──► job process ──✕──► job process ──✕── … ──► job process ──► published files
//!               │                         (this program)  SIGKILL, at another parallelism     │             │
//!               └────────────────────────────── oracle: a naive batch computation ────────────┴── equal? ◄──┘
//! ```
//!
//! * [`scenario`]: the grammar that jobs are drawn from. [`input`]: their files. [`oracle`]: their answers.
//! * [`child`]: the job process. [`pacing`]: its connectors. [`tests::process`]: how it is started, killed, awaited.
//! * [`run`]: one run and what must hold after it. [`faults`]: what is done to it. [`watcher`]: a reader beside it.
//!   [`reader`]: published files, read without Windrow. [`figures`]: what is counted.

#![cfg(unix)]
#![allow(missing_docs, unreachable_pub, reason = "derive(Record) makes public types")]

use std::{
    collections::VecDeque,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use clap::{Parser, Subcommand};

use self::{
    faults::{Fault, point, point::Pass},
    figures::{Failure, Figures},
    run::Result,
};

mod child;
mod faults;
mod figures;
mod input;
mod oracle;
mod pacing;
mod reader;
mod run;
mod scenario;
mod watcher;

/// After so many failures no new run begins.
const ENOUGH_FAILURES: usize = 5;

/// Starts jobs as real processes, does harm to them, and compares what they published with a naive batch computation.
///
/// The last line has the figures: runs; kills, processes that were ended by a signal; epochs, checkpoints that were decided;
/// rows in published files; rows that were lost; rows that were repeated or that no one can explain. The exit code is 0
/// if nothing was lost or repeated and no other rule was broken.
#[derive(Parser, Debug)]
#[command(name = "crash", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is done to the jobs.
    #[arg(long, value_enum, default_value = "kill")]
    fault: Fault,
    /// How many runs; with `--fault point`, how many for each point and pass.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed; each run takes the next.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this point of the protocol.
    #[arg(long)]
    point: Option<String>,
    /// Only this pass of the point.
    #[arg(long, value_enum)]
    pass: Option<Pass>,
    /// Runs at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Runs instead the seeds of a file: lines of a fault and a seed, such as `kill 17`.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where the runs take place; the system's directory for temporary files if not said.
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The job process. For this program itself.
    #[command(hide = true)]
    Job(child::ChildArgs),
}

/// A run to be done.
#[derive(Clone, Debug)]
struct Task {
    fault: Fault,
    seed: u64,
    point: Option<(String, Pass)>,
}

/// What came of all runs so far.
#[derive(Default)]
struct Outcome {
    figures: Figures,
    hits: point::Hits,
    failures: usize,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Command::Job(job)) = arguments.command.take() {
        return child::run(&job);
    }
    let began = Instant::now();
    let tasks = match tasks(&arguments) {
        Ok(tasks) => tasks,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut outcome = work(&arguments, tasks);
    if arguments.fault == Fault::Point && arguments.replay.is_none() {
        check_coverage(&arguments, &mut outcome);
    }
    let Figures { starts, seen, late, .. } = outcome.figures;
    let elapsed = began.elapsed().as_secs_f64();
    println!("{starts} starts of a job, {seen} files seen appearing, {late} late rows, {elapsed:.0} s");
    if outcome.failures > 0 {
        println!("crash: {}; {} FAILED", outcome.figures, outcome.failures);
        return ExitCode::FAILURE;
    }
    println!("crash: {}", outcome.figures);
    ExitCode::SUCCESS
}

fn tasks(arguments: &Arguments) -> Result<VecDeque<Task>, String> {
    if let Some(file) = &arguments.replay {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        return lines.map(|line| replayed(line).ok_or_else(|| format!("not a fault and a seed: {line:?}"))).collect();
    }
    let points: Vec<_> = match arguments.fault {
        Fault::Point => {
            let points = point::points().map_err(|error| error.to_string())?;
            let points = points.into_iter().filter(|point| arguments.point.as_ref().is_none_or(|only| only == point));
            let passes = |point: String| Pass::ALL.map(|pass| Some((point.clone(), pass)));
            let chosen = |point: &Option<(String, Pass)>| {
                point.as_ref().is_none_or(|(_, pass)| arguments.pass.is_none_or(|only| only == *pass))
            };
            points.flat_map(passes).filter(chosen).collect()
        }
        _ => vec![None],
    };
    let seeds = arguments.first_seed..arguments.first_seed.saturating_add(arguments.seeds);
    let fault = arguments.fault;
    Ok(seeds.flat_map(|seed| points.iter().map(move |point| Task { fault, seed, point: point.clone() })).collect())
}

/// `kill 17`, or `point 17 first K8 decided`.
fn replayed(line: &str) -> Option<Task> {
    let mut words = line.splitn(4, ' ');
    let fault = <Fault as clap::ValueEnum>::from_str(words.next()?, false).ok()?;
    let seed = words.next()?.parse().ok()?;
    let pass = words.next().map(|pass| <Pass as clap::ValueEnum>::from_str(pass, false).ok());
    let point = match (pass, words.next()) {
        (Some(pass), Some(point)) => Some((point.to_string(), pass?)),
        _ => None,
    };
    Some(Task { fault, seed, point })
}

/// Does the tasks, several at a time.
fn work(arguments: &Arguments, tasks: VecDeque<Task>) -> Outcome {
    let (tasks, outcome) = (Mutex::new(tasks), Mutex::new(Outcome::default()));
    let directory = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let worker = || {
        while outcome.lock().unwrap_or_else(PoisonError::into_inner).failures < ENOUGH_FAILURES {
            let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(task) = task else { break };
            one(&task, &directory, &outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(worker);
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Does one task in a directory of its own, which is kept if it fails.
fn one(task: &Task, directory: &Path, outcome: &Mutex<Outcome>) {
    let place = match tempfile::Builder::new().prefix("windrow-crash-").tempdir_in(directory) {
        Ok(place) => place,
        Err(error) => {
            eprintln!("no directory for a run: {error}");
            outcome.lock().unwrap_or_else(PoisonError::into_inner).failures += ENOUGH_FAILURES;
            return;
        }
    };
    let work = AssertUnwindSafe(|| match &task.point {
        Some((point, pass)) => point::run(task.seed, place.path(), point, *pass),
        None => task.fault.run(task.seed, place.path()).map(|figures| (figures, 0)),
    });
    let done = catch_unwind(work).unwrap_or_else(|_| Err(Failure::from("the run panicked".to_string())));
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    match done {
        Ok((figures, hits)) => {
            outcome.figures += figures;
            if let Some(point) = task.point.clone().filter(|_| hits > 0) {
                *outcome.hits.entry(point).or_default() += hits;
            }
        }
        Err(Failure { reason, figures }) => {
            outcome.figures += figures;
            outcome.failures += 1;
            let Task { fault, seed, point } = task;
            let fault = fault.name();
            let point = point.as_ref().map(|(point, pass)| format!(" --point {point:?} --pass {}", pass.name()));
            println!(
                "FAILED {fault} SEED={seed}\n  {}\n  kept: {}\n  again: cargo run --release -p tests --bin crash -- \
                 --fault {fault} --seeds 1 --first-seed {seed}{}",
                reason.replace('\n', "\n  "),
                place.keep().display(),
                point.unwrap_or_default(),
            );
        }
    }
}

/// Every point of the source has ended a process, in every pass that was wanted.
fn check_coverage(arguments: &Arguments, outcome: &mut Outcome) {
    let Ok(points) = point::points() else { return };
    for point in &points {
        let hits = Pass::ALL.map(|pass| outcome.hits.get(&(point.clone(), pass)).copied().unwrap_or_default());
        println!(
            "{point:24} {:4} crashes at the first pass, {:4} at the second, {:4} at a later",
            hits[0], hits[1], hits[2]
        );
    }
    if arguments.point.is_some() {
        return;
    }
    let passes = Pass::ALL.into_iter().filter(|pass| arguments.pass.is_none_or(|only| only == *pass));
    let missing = point::missing(&points, &passes.collect::<Vec<_>>(), &outcome.hits);
    if !missing.is_empty() {
        println!("no process ended at {}", missing.join(", "));
        outcome.failures += 1;
    }
}
