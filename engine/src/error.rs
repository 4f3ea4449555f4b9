//! What can go wrong with a job, in words that say what happened, where, and what to do.

use windrow_connectors::{ConnectorError, Position, SplitId};
use windrow_operators::OperatorError;

/// The result of running a job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job could not be started or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job cannot work as it is written. Found before the first row is read; every mistake is listed.
    #[error("job {job:?} cannot run:{}", mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
    Plan {
        /// The job.
        job: String,
        /// What is wrong with each operator, by its number and name in the printed job.
        mistakes: Vec<String>,
    },
    /// A source cannot be read.
    #[error("{operator}: {error}")]
    Source {
        /// Its number and name in the printed job.
        operator: String,
        /// What the connector said.
        error: ConnectorError,
    },
    /// A record did not decode, and the job has not said what to do with such records.
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
        /// Where the record begins; absent when the record decoded but had no usable event time.
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
    /// A sink cannot be written.
    #[error("{operator}: {error}")]
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
    /// A second Ctrl-C asked not to wait for the clean stop.
    #[error("job {job:?} was aborted: what its sinks had not finished is not published")]
    Aborted {
        /// The job.
        job: String,
    },
}

fn place(position: Option<Position>, line: Option<u64>) -> String {
    match (position, line) {
        (Some(position), Some(line)) => format!("line {line} (position {position})"),
        (Some(position), None) => format!("position {position}"),
        (None, Some(line)) => format!("line {line}"),
        (None, None) => "an unknown position".into(),
    }
}

impl Error {
    /// Whether another task's failure explains this one.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(self, Self::Disconnected { .. })
    }
}
