//! `windrow checkpoints`: what there is to go back to.

use serde::Serialize;
use windrow::{
    state::{self, CheckpointInfo},
    terminal::bytes,
};

use crate::{
    failure::Failure,
    output::{self, age, table},
    place::{below, jobs},
};

const EXAMPLES: &str = "\
Examples:
  windrow checkpoints /var/lib/jobs               every job that has checkpoints there
  windrow checkpoints /var/lib/jobs/hot-items     one job
  windrow checkpoints s3://bucket/jobs --json     for a program (S3: built with the feature s3, keys in AWS_…)

A savepoint is kept until its file is removed: rm DIR/JOB/savepoint/NAME.";

/// Lists jobs, their checkpoints and savepoints
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What was given to Job::checkpoint, or one job below it
    #[arg(value_name = "DIR_OR_URL")]
    store: String,
    /// JSON for programs: times in milliseconds since 1970, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    job: String,
    checkpoints: Vec<CheckpointInfo>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let jobs = jobs(&args.store).await?;
    let mut listed = Vec::new();
    for job in &jobs {
        listed.push(Listed { job: job.clone(), checkpoints: state::checkpoints(below(&args.store, job)).await? });
    }
    if jobs.is_empty() {
        // It may be the folder of a job.
        let checkpoints = state::checkpoints(&args.store).await?;
        if checkpoints.is_empty() {
            return Err(Failure::new(format!(
                "there are no checkpoints below {}: give what was given to Job::checkpoint; a job has one from its first moments on",
                args.store
            )));
        }
        let name = args.store.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        listed.push(Listed { job: name.into(), checkpoints });
    }
    if args.json {
        return output::json(&listed);
    }
    let rows = listed.iter().flat_map(|job| {
        job.checkpoints.iter().rev().map(|one| {
            let savepoints = if one.savepoints.is_empty() { "-".into() } else { one.savepoints.join(", ") };
            vec![job.job.clone(), one.epoch.to_string(), age(one.taken_ms), bytes(one.bytes), savepoints]
        })
    });
    output::print(&table(&["JOB", "CHECKPOINT", "AGE", "STATE", "SAVEPOINTS"], &rows.collect::<Vec<_>>()))
}
