//! Values that are never shown: passwords, tokens, passphrases.

use std::{fmt, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::{ConnectorError, Result};

/// A secret, or where to find one. It is looked up when it is needed, and shown nowhere.
#[derive(Clone)]
pub struct Secret(From);

#[derive(Clone)]
enum From {
    Value(SecretString),
    Env(String),
    File(PathBuf),
}

impl Secret {
    /// This value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(From::Value(SecretString::from(value.into())))
    }

    /// The value of an environment variable.
    pub fn env(name: impl Into<String>) -> Self {
        Self(From::Env(name.into()))
    }

    /// The content of a file, without a line end behind it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(From::File(path.into()))
    }

    /// The value, now.
    pub(crate) fn reveal(&self) -> Result<SecretString> {
        match &self.0 {
            From::Value(value) => Ok(SecretString::from(value.expose_secret().to_string())),
            From::Env(name) => std::env::var(name).map(SecretString::from).map_err(|_| {
                ConnectorError::Config(format!("the environment variable {name} is not set, and it holds a secret"))
            }),
            From::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| ConnectorError::io("read", path, error))?;
                Ok(SecretString::from(text.trim_end_matches(['\r', '\n']).to_string()))
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
