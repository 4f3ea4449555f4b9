//! `windrow savepoint`, `stop`, `cancel`, `why-open`: what a running job is asked to do or to say.

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    output,
    remote::{Remote, SOON},
};

/// Takes a savepoint of a running job
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  WINDROW_TOKEN=… windrow savepoint http://127.0.0.1:8080 before-upgrade
  windrow savepoint http://127.0.0.1:8080 before-upgrade --token-file /run/secrets/windrow

The job goes on. It returns when the savepoint is complete, and prints the number of its checkpoint.")]
pub(crate) struct SavepointArgs {
    #[command(flatten)]
    remote: Remote,
    /// What to call it
    name: String,
}

/// Stops a running job cleanly
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  windrow stop http://127.0.0.1:8080 --token-file /run/secrets/windrow
  windrow stop http://127.0.0.1:8080 --savepoint before-upgrade

Sources stop reading, what has been read is processed and written. With checkpoints the next start goes on from there.")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    remote: Remote,
    /// Takes a savepoint of this name that holds everything that was read, and stops
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
}

/// Ends a running job at once
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  windrow cancel http://127.0.0.1:8080 --token-file /run/secrets/windrow

What its sinks have not published is lost, or written again when the job is started from its newest checkpoint. A clean end:
windrow stop.")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    remote: Remote,
}

/// Says why the windows of an operator are still open
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  windrow why-open http://127.0.0.1:8080 3                     operator #3 of windrow status
  windrow why-open http://127.0.0.1:8080 window_1              by its id in checkpoints")]
pub(crate) struct WhyOpenArgs {
    #[command(flatten)]
    remote: Remote,
    /// The operator: its number, its name in windrow status, or its id in checkpoints
    operator: String,
}

pub(crate) fn savepoint(args: &SavepointArgs) -> Result<(), Failure> {
    let answer = args.remote.client()?.post("/api/savepoint", &json!({"name": args.name}), None)?;
    output::print(&format!("savepoint {:?} is checkpoint {}", args.name, epoch(&answer)))
}

pub(crate) fn stop(args: &StopArgs) -> Result<(), Failure> {
    let client = args.remote.client()?;
    match &args.savepoint {
        Some(name) => {
            let answer = client.post("/api/stop", &json!({"savepoint": name}), None)?;
            output::print(&format!("the job has stopped; savepoint {name:?} is checkpoint {}", epoch(&answer)))
        }
        None => {
            client.post("/api/stop", &json!({}), Some(SOON))?;
            output::print(
                "the job is stopping: what it has read is processed and written; windrow status shows how far it is",
            )
        }
    }
}

pub(crate) fn cancel(args: &CancelArgs) -> Result<(), Failure> {
    args.remote.client()?.post("/api/cancel", &json!({}), Some(SOON))?;
    output::print("the job ends at once")
}

pub(crate) fn why_open(args: &WhyOpenArgs) -> Result<(), Failure> {
    let status = args.remote.client()?.status()?;
    let said = status.why_open(&args.operator);
    // An operator that is not there is a mistake of who asks, whose answer names those that are.
    if status.find(&args.operator).is_none() { Err(Failure::new(said)) } else { output::print(&said) }
}

fn epoch(answer: &Value) -> String {
    answer.get("epoch").map_or_else(|| "?".into(), Value::to_string)
}
