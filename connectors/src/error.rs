//! What can go wrong outside the computation. A bad *row* is not an error but a [`Rejected`](crate::Rejected) value.

use std::path::PathBuf;

use arrow::error::ArrowError;

/// The result of a connector's call.
pub type Result<T, E = ConnectorError> = std::result::Result<T, E>;

/// Why a source or a sink cannot go on. The variants differ in what the reader of the message has to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The system refused: look at the path, its permissions, the disk.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "read", "write".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connector was set up in a way that cannot work: change the call.
    #[error("{0}")]
    Config(String),
    /// The input as a whole cannot be read (not one row of it, which would be rejected): mend the data.
    #[error("{at}: {reason}")]
    Data {
        /// Where: a file, and within it a line or a byte.
        at: String,
        /// What is wrong there.
        reason: String,
    },
    /// A system outside refused, or did not answer.
    #[error("{system}: {reason}")]
    Remote {
        /// Which, and what of it: `kafka localhost:9092, topic orders`.
        system: String,
        /// What it said to what, and what to do.
        reason: String,
        /// Whether it may go away by itself, so that the job is worth starting again.
        passes: bool,
    },
    /// Arrow refused to build or write a batch.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

impl ConnectorError {
    /// Shorthand for [`ConnectorError::Io`].
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The same failure once more, for somebody else who meets it.
    #[cfg(feature = "kafka")]
    pub(crate) fn repeated(&self) -> Self {
        match self {
            Self::Io { action, path, source } => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                Self::Io { action, path: path.clone(), source }
            }
            Self::Config(reason) => Self::Config(reason.clone()),
            Self::Data { at, reason } => Self::Data { at: at.clone(), reason: reason.clone() },
            Self::Remote { system, reason, passes } => {
                Self::Remote { system: system.clone(), reason: reason.clone(), passes: *passes }
            }
            // Arrow's errors cannot be cloned.
            Self::Arrow(error) => Self::Arrow(ArrowError::ExternalError(error.to_string().into())),
        }
    }
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_for_everybody_who_meets_it() {
        let text = || "it".to_owned();
        for failure in [
            ConnectorError::io("write", "/tmp/it", std::io::Error::other("full")),
            ConnectorError::Config(text()),
            ConnectorError::Data { at: text(), reason: text() },
            ConnectorError::Remote { system: text(), reason: text(), passes: true },
            ConnectorError::Remote { system: text(), reason: text(), passes: false },
        ] {
            assert_eq!(format!("{:?}", failure.repeated()), format!("{failure:?}"));
        }
        let failure = ConnectorError::Arrow(ArrowError::ComputeError("no sum".into()));
        assert!(matches!(failure.repeated(), ConnectorError::Arrow(why) if why.to_string().contains("no sum")));
    }
}
