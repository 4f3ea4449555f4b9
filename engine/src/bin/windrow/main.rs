//! The command `windrow`: looks into checkpoints, state and configuration, asks and stops running jobs, sends dead letters again.
//!
//! ```text
//!   directory, bucket ──► checkpoints, inspect, state      no job need run; nothing is written
//!   file, environment ──► config
//!   topics ─────────────► dead-letters re-drive            only counts, unless told to send
//!   a job that serves ──► status, savepoint, stop, cancel, why-open
//! ```
//!
//! A module for each command; [`output`] has what they print with, [`failure`] how they fail, [`remote`] how they ask a job,
//! [`signals`] how one ends that has taken the terminal.

mod checkpoints;
mod config;
#[cfg(feature = "kafka")]
mod dead_letters;
mod failure;
mod inspect;
mod output;
mod place;
mod remote;
mod running;
mod signals;
mod state;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Shown below every help.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed; the message says what to do
  2  the command line is wrong
  3  the job, the broker or the store does not answer
  4  the job wants a token, or another one
  5  done, but some dead letters cannot be sent again";

/// Looks after jobs of Windrow: their checkpoints, state and configuration, and the jobs while they run.
#[derive(Parser)]
#[command(name = "windrow", version, after_help = EXIT_CODES, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists jobs, their checkpoints and savepoints
    Checkpoints(checkpoints::Args),
    /// Shows what is in a checkpoint: operators, tables, splits and positions
    Inspect(inspect::Args),
    /// Shows the state that operators had in a checkpoint
    #[command(subcommand)]
    State(state::Command),
    /// Shows the effective configuration of a job, and where each value is said
    Config(config::Args),
    /// Counts dead letters, and sends the records in them again
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Shows what a running job does
    Status(status::Args),
    /// Takes a savepoint of a running job
    Savepoint(running::SavepointArgs),
    /// Stops a running job cleanly
    Stop(running::StopArgs),
    /// Ends a running job at once
    Cancel(running::CancelArgs),
    /// Says why the windows of an operator are still open
    WhyOpen(running::WhyOpenArgs),
}

#[derive(Subcommand)]
enum DeadLetters {
    /// Sends the records of dead letters back to the topics that they came from
    #[cfg(feature = "kafka")]
    ReDrive(Box<dead_letters::Args>),
    /// Sends the records of dead letters back to the topics that they came from
    #[cfg(not(feature = "kafka"))]
    ReDrive {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Checkpoints(args) => waited(checkpoints::run(args)),
        Command::Inspect(args) => waited(inspect::run(args)),
        Command::State(command) => waited(state::run(command)),
        Command::Config(args) => config::run(&args),
        #[cfg(feature = "kafka")]
        Command::DeadLetters(DeadLetters::ReDrive(args)) => dead_letters::run(*args),
        #[cfg(not(feature = "kafka"))]
        Command::DeadLetters(DeadLetters::ReDrive { rest: _ }) => Err(Failure::new(
            "this windrow was built without Kafka: cargo install windrow --features cli,kafka (it needs OpenSSL's headers, libssl-dev)",
        )),
        Command::Status(args) => status::run(&args),
        Command::Savepoint(args) => running::savepoint(&args),
        Command::Stop(args) => running::stop(&args),
        Command::Cancel(args) => running::cancel(&args),
        Command::WhyOpen(args) => running::why_open(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.told(),
    }
}

/// Waits for a command that reads a store.
fn waited(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot begin: {error}")))?.block_on(command)
}
