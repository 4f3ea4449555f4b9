//! Where a job's checkpoints are, as people say it: the store and the job, or the store alone if it has one job only.

use clap::Args;
use windrow::{
    connectors::Epoch,
    state::{self, State, Wanted},
};

use crate::failure::Failure;

/// A job, and one of its checkpoints.
#[derive(Args)]
pub(crate) struct Place {
    /// What was given to Job::checkpoint, a slash, and the name of the job; the name can be left out where there is one job only
    #[arg(value_name = "DIR_OR_URL/JOB")]
    job: String,
    /// The checkpoint with this number, instead of the newest
    #[arg(long, value_name = "N", conflicts_with = "savepoint")]
    epoch: Option<u64>,
    /// The savepoint of this name, instead of the newest checkpoint
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
}

impl Place {
    /// The URL of the job.
    pub(crate) async fn url(&self) -> Result<String, Failure> {
        let jobs = jobs(&self.job).await?;
        match jobs.as_slice() {
            [] => Ok(self.job.clone()),
            [only] => Ok(below(&self.job, only)),
            several => Err(Failure::usage(format!(
                "{} has several jobs, say which: {}",
                self.job,
                several.iter().map(|job| below(&self.job, job)).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        match (self.epoch, &self.savepoint) {
            (Some(epoch), _) => Wanted::Epoch(Epoch(epoch)),
            (None, Some(name)) => Wanted::Savepoint(name.clone()),
            (None, None) => Wanted::Newest,
        }
    }

    /// The state of the operators.
    pub(crate) async fn state(&self) -> Result<State, Failure> {
        let url = self.url().await?;
        Ok(match self.wanted() {
            Wanted::Newest => state::open(url).await?,
            Wanted::Epoch(epoch) => state::open_checkpoint(url, epoch).await?,
            Wanted::Savepoint(name) => state::open_savepoint(url, name).await?,
        })
    }
}

/// The jobs below a store. A directory that is not there is told in these words rather than in those of a job's store.
pub(crate) async fn jobs(url: &str) -> Result<Vec<String>, Failure> {
    if !url.contains("://") && !std::path::Path::new(url).is_dir() {
        return Err(Failure::new(format!(
            "there is no directory {url}: give what was given to Job::checkpoint, or a slash and the name of a job behind it"
        )));
    }
    Ok(state::jobs(url).await?)
}

/// A job below a store. Its name is escaped as it is there.
pub(crate) fn below(store: &str, job: &str) -> String {
    format!("{}/{}", store.trim_end_matches('/'), job.replace('%', "%25").replace('/', "%2F"))
}
