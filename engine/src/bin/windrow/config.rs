//! `windrow config`: what holds for a job, and who says it.

use std::path::PathBuf;

use windrow::config::Config;

use crate::{failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  windrow config                                  what windrow.toml and the environment say for every job
  windrow config hot-items                        for one job, with its table [job.hot-items]
  WINDROW_PARALLELISM=8 windrow config hot-items  environment > [job.NAME] > file > code > default
  windrow config --file prod.toml --json

A line that begins with # is not configured: what the code of the job says holds, or the default. Secrets are not shown.
The tables [job.NAME] of the file are listed above the settings: each counts for the job of exactly that name.
All names, with what they mean: the chapter Configuration of the book.";

/// Shows the effective configuration of a job, and where each value is said
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The name of the job
    job: Option<String>,
    /// The file, instead of the one that WINDROW_CONFIG names, or windrow.toml
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// JSON for programs, with what each setting means
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config = match &args.file {
        Some(path) => Config::file(path)?,
        None => Config::load()?,
    };
    let shown = config.shown(args.job.as_deref().unwrap_or_default());
    if args.json {
        return output::json(&shown);
    }
    let of = args.job.as_ref().map_or("every job".into(), |job| format!("job {job:?}"));
    let from = config.path().map_or("no file".into(), |path| path.display().to_string());
    let tables = match shown.jobs.as_slice() {
        [] => String::new(),
        jobs => format!("# tables for single jobs: {}\n", jobs.join(", ")),
    };
    let warning = shown.warning.as_ref().map_or_else(String::new, |warning| format!("# warning: {warning}\n"));
    output::print(&format!("# {of}: {from}, and the environment\n{tables}{warning}{shown}"))
}
