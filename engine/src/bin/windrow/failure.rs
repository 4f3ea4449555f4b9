//! How commands fail: a message that says what to do next, and a code for scripts.

use std::{io::Write, process::ExitCode};

use windrow::{CheckpointError, Error};

/// Why a command was not done.
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Somebody does not answer.
    pub(crate) fn not_reachable(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// The job wants a token, or another one.
    pub(crate) fn not_allowed(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// It is done, and something is left.
    #[cfg(feature = "kafka")]
    pub(crate) fn left(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into() }
    }

    /// Nobody reads what is printed any more, as with `| head`: that is no failure.
    pub(crate) fn unread() -> Self {
        Self { code: 0, message: String::new() }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn told(self) -> ExitCode {
        if !self.message.is_empty() {
            // If there is no stderr either, the code has to do.
            let _ = writeln!(std::io::stderr(), "windrow: {}", crate::output::clean(&self.message));
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            // Of a store that is not there it is the path that is wrong.
            Error::Checkpoint { error: CheckpointError::Io { path, .. }, .. } if path.contains("://") => {
                Self::not_reachable(error.to_string())
            }
            _ => Self::new(error.to_string()),
        }
    }
}
