//! Passwords and keys: named in the job, read when a client starts, shown nowhere.
//!
//! ```text
//!   Secret::env("KAFKA_PASSWORD") ──► kept in the job as a name ──► reveal() when a client is made ──► librdkafka, HTTP
//!                                       │
//!                                       └──► Debug: Secret(variable KAFKA_PASSWORD)
//! ```

use std::{env, fmt, fs, io, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use crate::{ConnectorError, Result};

/// A password, a token or a passphrase. It has no `Display`, its `Debug` shows where it comes from and never what it is, and it
/// cannot be serialized: so it does not get into logs, plans or checkpoints.
///
/// One from the environment or a file is read each time a client starts, so a job that starts again takes up a new one.
///
/// ```
/// use windrow_connectors::Secret;
///
/// assert_eq!(format!("{:?}", Secret::new("swordfish")), "Secret(…)");
/// assert_eq!(format!("{:?}", Secret::env("KAFKA_PASSWORD")), "Secret(variable KAFKA_PASSWORD)");
/// assert_eq!(format!("{:?}", Secret::file("/run/secrets/kafka")), "Secret(file /run/secrets/kafka)");
/// ```
#[derive(Clone)]
pub struct Secret(From);

#[derive(Clone)]
enum From {
    Value(Arc<SecretString>),
    Variable(String),
    File(PathBuf),
}

impl Secret {
    /// This text. It should come from somewhere else than the source code or the command line.
    pub fn new(value: impl Into<String>) -> Self {
        Self(From::Value(Arc::new(value.into().into())))
    }

    /// The value of an environment variable.
    pub fn env(name: impl Into<String>) -> Self {
        Self(From::Variable(name.into()))
    }

    /// What a file holds, without the line end at its end.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(From::File(path.into()))
    }

    /// The text itself, for the moment in which it is handed on. Reads a file, so not on a worker of the runtime. The error names
    /// the variable or the file, never what is in it; a text that is empty is one too.
    ///
    /// ```
    /// use secrecy::ExposeSecret;
    /// use windrow_connectors::Secret;
    ///
    /// assert_eq!(Secret::new("swordfish").reveal()?.expose_secret(), "swordfish");
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn reveal(&self) -> Result<SecretString> {
        let text: SecretString = match &self.0 {
            From::Value(value) => value.expose_secret().into(),
            From::Variable(name) => match env::var(name) {
                Ok(value) => value.into(),
                Err(env::VarError::NotPresent) => {
                    return Err(ConnectorError::Config(format!(
                        "the environment variable {name} is not set, and a secret is to come from it"
                    )));
                }
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(ConnectorError::Config(format!(
                        "the environment variable {name}, which holds a secret, is not UTF-8"
                    )));
                }
            },
            From::File(path) => {
                let text = fs::read_to_string(path).map_err(|error| match error.kind() {
                    // The error of a decoder could quote what it read.
                    io::ErrorKind::InvalidData => {
                        let is = "the file holds a secret and is not UTF-8";
                        ConnectorError::io("read", path, io::Error::new(io::ErrorKind::InvalidData, is))
                    }
                    _ => ConnectorError::io("read", path, error),
                })?;
                let text = SecretString::from(text);
                let whole = text.expose_secret();
                let line = whole.strip_suffix('\n').map_or(whole, |line| line.strip_suffix('\r').unwrap_or(line));
                line.into()
            }
        };
        if text.expose_secret().is_empty() {
            return Err(ConnectorError::Config(format!("{self:?} is empty")));
        }
        Ok(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            From::Value(_) => f.write_str("Secret(…)"),
            From::Variable(name) => write!(f, "Secret(variable {name})"),
            From::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7c1f";

    #[test]
    fn a_secret_is_read_where_it_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (content, value) in [("canary-7c1f\n", CANARY), ("canary-7c1f\r\n", CANARY), ("a\n\n", "a\n")] {
            fs::write(&path, content).unwrap();
            assert_eq!(Secret::file(&path).reveal().unwrap().expose_secret(), value);
        }
        assert_eq!(Secret::new(CANARY).reveal().unwrap().expose_secret(), CANARY);
        // Cargo sets it.
        assert_eq!(Secret::env("CARGO_PKG_NAME").reveal().unwrap().expose_secret(), "windrow-connectors");
    }

    #[test]
    fn nothing_shows_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, [CANARY.as_bytes(), &[0xff]].concat()).unwrap();
        let not_text = Secret::file(&path).reveal().unwrap_err();
        assert!(not_text.to_string().contains("password: the file holds a secret and is not UTF-8"), "{not_text}");
        for shown in [format!("{:?}", Secret::new(CANARY)), format!("{not_text:?}"), not_text.to_string()] {
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let unset = Secret::env("WINDROW_NO_SUCH_VARIABLE").reveal().unwrap_err().to_string();
        assert!(unset.contains("WINDROW_NO_SUCH_VARIABLE is not set"), "{unset}");
        let missing = Secret::file("/no/such/secret").reveal().unwrap_err().to_string();
        assert!(missing.contains("/no/such/secret"), "{missing}");
        assert_eq!(Secret::new("").reveal().unwrap_err().to_string(), "Secret(…) is empty");
    }
}
