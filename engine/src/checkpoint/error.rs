//! What can go wrong with a checkpoint, in words for the person who has to repair it: which file, what about it, what to
//! do.

use std::{error::Error as StdError, io};

use object_store::Error as StoreError;
use windrow_connectors::ConnectorError;

use crate::{Error, error::passes};

/// Why the checkpoint store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The place of the checkpoints is not one that can be used.
    #[error("checkpoints cannot be kept in {location:?}: {reason}")]
    Location {
        /// What the user gave.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The storage failed.
    #[error("cannot {action} {path}: {reason}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or object.
        path: String,
        /// What the storage said, and what to do where that is known.
        reason: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A file is not what was written.
    #[error("{path} is damaged: {reason}; {advice}")]
    Corrupt {
        /// The file.
        path: String,
        /// How it differs.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file is whole, but this program or this job cannot use it.
    #[error("{path} cannot be used: {reason}")]
    Incompatible {
        /// The file.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Another process holds the lock.
    #[error(
        "another process runs this job: it holds {path}. Stop it first, or give this job another name or directory"
    )]
    Locked {
        /// The lock.
        path: String,
    },
    /// Another process made its generation at the same moment.
    #[error("another process is starting this job at this moment: it has just written {path}. Let one of them run")]
    Starting {
        /// The generation that the other one took.
        path: String,
    },
    /// A newer process has taken over. This one must stop, and must publish nothing more.
    #[error(
        "this process was the {generation}. start of the job, and a later one has taken over: {by}. This one stops"
    )]
    Fenced {
        /// The generation of this process.
        generation: u64,
        /// What shows it.
        by: String,
    },
    /// Two things that exclude each other were found.
    #[error("{path}: {reason}")]
    Conflict {
        /// Where.
        path: String,
        /// What excludes what, and what to do.
        reason: String,
    },
    /// What was asked for is not there.
    #[error("{what} does not exist below {path}")]
    Missing {
        /// What was asked for.
        what: String,
        /// Where it was looked for.
        path: String,
    },
    /// A savepoint cannot have this name.
    #[error("a savepoint cannot be called {name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is a savepoint of this name.
    #[error("there is already a savepoint {name:?}, {path}: give the new one another name")]
    Exists {
        /// The name.
        name: String,
        /// Its record.
        path: String,
    },
    /// The system that decides which checkpoints count failed, or may soon throw rows away.
    #[error("{operator}: {}", crate::error::said(operator, error))]
    Witness {
        /// The sink that it belongs to, by its number and name in the printed job.
        operator: String,
        /// What the connector said.
        error: ConnectorError,
    },
    /// The job has published more than this checkpoint knows of.
    #[error(
        "{wanted} is checkpoint {epoch}, but the job has gone on to checkpoint {newest}, and what it wrote in between is \
         already visible. Going back writes those rows a second time: if that is meant, say \
         Restore::savepoint(…).repeat_output(); otherwise start from the newest checkpoint"
    )]
    Rewind {
        /// What was asked for.
        wanted: String,
        /// Its checkpoint.
        epoch: u64,
        /// The newest committed checkpoint.
        newest: u64,
    },
}

impl CheckpointError {
    /// Whether it may go better the next time: when the storage or a witness failed. What is wrong in the store stays wrong.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Witness { error, .. } => passes(error),
            _ => false,
        }
    }

    /// The error of the job whose store failed.
    pub(crate) fn of(self, job: &str) -> Error {
        Error::Checkpoint { job: job.into(), error: self }
    }

    /// An error of the object store.
    pub(super) fn io(action: &'static str, path: String, source: StoreError) -> Self {
        let reason = reason(&source);
        Self::Io { action, path, reason, source: Some(Box::new(source)) }
    }

    /// An error of the file system.
    pub(super) fn file(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        let reason = reason(&source);
        Self::Io { action, path: path.display().to_string(), reason, source: Some(Box::new(source)) }
    }
}

/// The innermost cause, in words; the layers around it only repeat the path.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(known) = cause.downcast_ref::<io::Error>().and_then(|error| words(error.kind())) {
            return format!("{known} ({cause})");
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => return cause.to_string(),
        }
    }
}

fn words(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full. Make room and start the job again: it goes on from the last checkpoint"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only. Checkpoints need a place to write to",
        io::ErrorKind::PermissionDenied => "this user may not do that. Check the owner and the rights of the directory",
        io::ErrorKind::NotFound => "it does not exist",
        _ => return None,
    })
}
