//! What can go wrong with a job, in words that say what happened, where, and what to do.

use std::{fmt, time::Duration};

use windrow_connectors::{ConnectorError, Epoch, Position, SplitId};
use windrow_operators::OperatorError;

use crate::checkpoint::CheckpointError;

/// The result of running a job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job could not be started or could not go on.
#[derive(thiserror::Error)]
pub enum Error {
    /// The job cannot work as it is written. Found before the first row is read; every mistake is listed.
    #[error("job {job:?} cannot run:{}", mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
    Plan {
        /// The job.
        job: String,
        /// What is wrong with each operator, by its number and name in the printed job.
        mistakes: Vec<String>,
    },
    /// A file or the environment does not configure a job. Every mistake is listed.
    #[error("the configuration cannot be used:{}", mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
    Config {
        /// What is wrong, and where: a variable, or a file and a line.
        mistakes: Vec<String>,
    },
    /// A source, or the table of a lookup, cannot be read.
    #[error("{operator}: {}", said(operator, error))]
    Source {
        /// Its number and name in the printed job.
        operator: String,
        /// What the connector said.
        error: ConnectorError,
    },
    /// A record did not decode or has no usable event time, and the job has not said what to do with such records.
    #[error(
        "{operator}: rejected a record of {split} at {}: {reason}\n  the record: {excerpt}\n  \
         to keep such records call .with_rejects() on the source, to count and drop them .drop_rejects()",
        place(*position, *line)
    )]
    Rejected {
        /// The source, by its number and name in the printed job.
        operator: String,
        /// The split it came from.
        split: SplitId,
        /// Where the record begins; absent when it has no usable event time and its source does not say what its rows were.
        position: Option<Position>,
        /// Its line in the file, when known.
        line: Option<u64>,
        /// What is wrong with it.
        reason: String,
        /// The beginning of the record.
        excerpt: String,
    },
    /// An operator cannot go on.
    #[error("{operator}: {error}")]
    Operator {
        /// Its number and name in the printed job.
        operator: String,
        /// What it said.
        error: OperatorError,
    },
    /// A call of an async operator failed for good, and the job has not said what to do with such rows.
    #[error(
        "{operator}: a call failed after {attempts} attempt{}: {reason}\n  the row: {excerpt}\n  \
         to keep such rows say .with_failed() instead of .fail_on_failure(), to count and drop them .drop_failed()",
        if *attempts == 1 { "" } else { "s" }
    )]
    Call {
        /// Its number and name in the printed job.
        operator: String,
        /// How often the call was tried.
        attempts: u32,
        /// What the last attempt said.
        reason: String,
        /// The beginning of the row, or of the first row of the batch, that the call was for.
        excerpt: String,
    },
    /// A sink cannot be written.
    #[error("{operator}: {}", said(operator, error))]
    Sink {
        /// Its number and name in the printed job.
        operator: String,
        /// What the connector said.
        error: ConnectorError,
    },
    /// Code that the user gave to an operator, or a connector, panicked.
    #[error("{operator} panicked: {message}")]
    Panic {
        /// The operator's number and name in the printed job.
        operator: String,
        /// The message of the panic.
        message: String,
    },
    /// A neighbour went away without saying that the stream ended. Never the cause of a failure, always its echo.
    #[error("{operator}: the other end of a channel went away")]
    Disconnected {
        /// Who noticed it.
        operator: String,
    },
    /// The checkpoint store cannot be used.
    #[error("job {job:?}: {error}")]
    Checkpoint {
        /// The job.
        job: String,
        /// What is wrong with the store, or in it.
        error: CheckpointError,
    },
    /// The job has changed in a way that its checkpoint does not fit.
    #[error("job {job:?} cannot go on from checkpoint {epoch}:{}", reasons.iter().map(|r| format!("\n  {r}")).collect::<String>())]
    Misfit {
        /// The job.
        job: String,
        /// The checkpoint.
        epoch: Epoch,
        /// Every reason.
        reasons: Vec<String>,
    },
    /// A checkpoint took too long.
    #[error(
        "checkpoint {epoch} was not complete after {after:?}: no answer from {}{}",
        silent.join(", "),
        lowered.iter().map(|why| format!(". It may take no longer: {why}")).collect::<String>()
    )]
    CheckpointTimeout {
        /// The checkpoint.
        epoch: Epoch,
        /// How long it may take.
        after: Duration,
        /// The tasks that its barrier has not passed.
        silent: Vec<String>,
        /// Why that is shorter than usual although nobody has said so: a sink allows no more.
        lowered: Option<String>,
    },
    /// A savepoint could not be taken. The job itself goes on.
    #[error("job {job:?}: no savepoint: {reason}")]
    Savepoint {
        /// The job.
        job: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint that somebody asked for could not be taken. The job itself goes on.
    #[error("job {job:?}: no checkpoint: {reason}")]
    NoCheckpoint {
        /// The job.
        job: String,
        /// Why.
        reason: String,
    },
    /// The job cannot be served where it is to be: the address is in use, or not one of this machine, or its token cannot be read.
    #[error("job {job:?} cannot be served at {address}: {reason}")]
    Serve {
        /// The job.
        job: String,
        /// Where.
        address: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The job failed again and again without completing a checkpoint in between.
    #[error("job {job:?} gave up after {restarts} restarts without progress: {cause}")]
    GaveUp {
        /// The job.
        job: String,
        /// How many times it was started again.
        restarts: u32,
        /// The last failure.
        cause: Box<Error>,
    },
    /// A second Ctrl-C, or [`JobHandle::cancel`](crate::JobHandle::cancel), asked not to wait for the clean stop.
    #[error("job {job:?} was aborted: what its sinks had not finished is not published")]
    Aborted {
        /// The job.
        job: String,
    },
}

/// As it is displayed: a program whose `main` returns an error prints it so.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn place(position: Option<Position>, line: Option<u64>) -> String {
    match (position, line) {
        (Some(position), Some(line)) => format!("line {line} (position {position})"),
        (Some(position), None) => format!("position {position}"),
        (None, Some(line)) => format!("line {line}"),
        (None, None) => "an unknown position".into(),
    }
}

/// What a connector says, without what the name of its operator says too: `#2 sink kafka k:9092, topic alerts` and `kafka k:9092, topic
/// alerts: …`, or `kafka k:9092, transactional id windrow.fraud.0: …`.
pub(crate) fn said(operator: &str, error: &ConnectorError) -> String {
    // Behind its number and its kind.
    said_of(operator.splitn(3, ' ').nth(2).unwrap_or_default(), error)
}

/// The same of a connector of this name.
pub(crate) fn said_of(name: &str, error: &ConnectorError) -> String {
    let error = error.to_string();
    let cuts = [name.len()].into_iter().chain(name.rmatch_indices(", ").map(|(cut, _)| cut)).filter(|cut| *cut > 0);
    let mut rests = cuts.filter_map(|cut| error.strip_prefix(name.get(..cut)?));
    let rest = rests.find_map(|rest| rest.strip_prefix(": ").or_else(|| rest.strip_prefix(", ")));
    rest.map_or_else(|| error.clone(), str::to_owned)
}

/// Whether what failed outside may go better the next time.
pub(crate) fn passes(error: &ConnectorError) -> bool {
    match error {
        ConnectorError::Config(_) | ConnectorError::Data { .. } => false,
        ConnectorError::Remote { passes, .. } => *passes,
        ConnectorError::Io { .. } | ConnectorError::Arrow(_) => true,
    }
}

impl Error {
    /// Whether another task's failure explains this one.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }

    /// Whether the job might get further when it is started again. What the user has to mend first does not mend itself.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Source { error, .. } | Self::Sink { error, .. } => passes(error),
            Self::Operator { error, .. } => {
                !matches!(error, OperatorError::Plan(_) | OperatorError::TooLarge(_) | OperatorError::OverBudget(_))
            }
            Self::Checkpoint { error, .. } => error.may_pass(),
            Self::Call { .. } | Self::Panic { .. } | Self::Disconnected { .. } | Self::CheckpointTimeout { .. } => true,
            Self::Plan { .. }
            | Self::Config { .. }
            | Self::Rejected { .. }
            | Self::Misfit { .. }
            | Self::Savepoint { .. }
            | Self::NoCheckpoint { .. }
            | Self::Serve { .. }
            | Self::GaveUp { .. }
            | Self::Aborted { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_connector_says_once_what_it_is_about() {
        let error = |system: &str| {
            let (system, reason) = (system.to_owned(), "cannot write".to_owned());
            let error = ConnectorError::Remote { system, reason, passes: true };
            Error::Sink { operator: "#2 sink kafka k:1,l:2, topic a".into(), error }.to_string()
        };
        for (system, expected) in [
            ("kafka k:1,l:2, topic a", "cannot write"),
            ("kafka k:1,l:2, topic a, partition 7", "partition 7: cannot write"),
            ("kafka k:1,l:2, topic ab", "topic ab: cannot write"),
            ("kafka k:1,l:2, transactional id w.0", "transactional id w.0: cannot write"),
            ("kafka k:1,l:2", "cannot write"),
            ("kafka k:1", "kafka k:1: cannot write"),
            ("schema registry r", "schema registry r: cannot write"),
        ] {
            assert_eq!(error(system), format!("#2 sink kafka k:1,l:2, topic a: {expected}"));
        }
        let (operator, error) = ("#1 source memory".to_owned(), ConnectorError::Config("memory is full".into()));
        assert_eq!(Error::Source { operator, error }.to_string(), "#1 source memory: memory is full");
    }
}
