//! How a client shows who it is, and checks who answers.
//!
//! The TLS library is the OpenSSL of the system, linked dynamically: its updates come with the system's. librdkafka checks the
//! brokers' certificates and host names, and there is no way here to turn that off.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rdkafka::ClientConfig;
use secrecy::ExposeSecret;

use crate::{ConnectorError, Result, secret::Secret};

/// An encrypted connection. The broker's certificate, and that it is for the host that was called, are always checked.
///
/// ```
/// use windrow_connectors::{Secret, kafka::{Kafka, Tls}};
///
/// let tls = Tls::ca_file("certificates/ca.pem")
///     .client_certificate("certificates/me.pem", "certificates/me.key")
///     .key_passphrase(Secret::env("KEY_PASSPHRASE"));
/// let kafka = Kafka::brokers("broker.example:9093").tls(tls);
/// assert!(kafka.warnings().is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    passphrase: Option<Secret>,
}

impl Tls {
    /// Trusts the authorities that the system trusts.
    pub fn system() -> Self {
        Self { ca: None, certificate: None, passphrase: None }
    }

    /// Trusts the authorities in this PEM file, and no others.
    pub fn ca_file(path: impl Into<PathBuf>) -> Self {
        Self { ca: Some(path.into()), ..Self::system() }
    }

    /// Shows the broker this certificate (a PEM file, with what it was signed by), which this key belongs to.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// What the key of the client's certificate is encrypted with.
    pub fn key_passphrase(mut self, passphrase: Secret) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    fn apply(&self, client: &mut ClientConfig) -> Result<()> {
        if let Some(ca) = &self.ca {
            client.set("ssl.ca.location", readable(ca)?);
        }
        if let Some((certificate, key)) = &self.certificate {
            client.set("ssl.certificate.location", readable(certificate)?);
            client.set("ssl.key.location", readable(key)?);
        }
        if let Some(passphrase) = &self.passphrase {
            client.set("ssl.key.password", passphrase.reveal()?.expose_secret());
        }
        Ok(())
    }
}

/// The name of a file that can be opened: librdkafka would say less about why not.
fn readable(path: &Path) -> Result<&str> {
    fs::File::open(path).map_err(|error| ConnectorError::io("open", path, error))?;
    path.to_str().ok_or_else(|| {
        ConnectorError::Config(format!("the file name {} is not UTF-8, which librdkafka needs", path.display()))
    })
}

/// How a client logs in.
///
/// ```
/// use windrow_connectors::{Secret, kafka::{Kafka, Sasl, Tls}};
///
/// let login = Sasl::scram_sha_512("fraud", Secret::file("/run/secrets/kafka"));
/// let kafka = Kafka::brokers("broker.example:9093").tls(Tls::system()).sasl(login.clone());
/// assert!(kafka.warnings().is_empty());
/// let open = Kafka::brokers("broker.example:9092").sasl(login);
/// assert!(open.warnings()[0].contains("not encrypted"));
/// ```
#[derive(Clone, Debug)]
pub struct Sasl(Mechanism);

#[derive(Clone)]
enum Mechanism {
    Password { name: &'static str, user: String, password: Secret },
    Oauth(Arc<Provider>),
}

type Provider = dyn Fn() -> Result<Token, Box<dyn Error + Send + Sync>> + Send + Sync;

impl fmt::Debug for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { name, user, .. } => write!(f, "{name} as {user}"),
            Self::Oauth(_) => f.write_str("OAUTHBEARER"),
        }
    }
}

/// A token for OAUTHBEARER.
#[derive(Clone, Debug)]
pub struct Token {
    /// What the broker is shown.
    pub value: Secret,
    /// Whom it stands for: the `sub` of a JSON web token.
    pub principal: String,
    /// When it ends to be good. The next one is asked for when four fifths of the time until then have passed.
    pub expires: SystemTime,
}

impl Sasl {
    /// PLAIN: the password goes to the broker as it is, so use it with TLS only.
    pub fn plain(user: impl Into<String>, password: Secret) -> Self {
        Self::password("PLAIN", user, password)
    }

    /// SCRAM with SHA-256.
    pub fn scram_sha_256(user: impl Into<String>, password: Secret) -> Self {
        Self::password("SCRAM-SHA-256", user, password)
    }

    /// SCRAM with SHA-512.
    pub fn scram_sha_512(user: impl Into<String>, password: Secret) -> Self {
        Self::password("SCRAM-SHA-512", user, password)
    }

    /// OAUTHBEARER with tokens from `provider`. It is asked when a client starts and before a token expires, each time from a
    /// thread of the connector that may wait: but no records are read, and none are known to be written, while it does. When it
    /// fails it is asked again after ten seconds. The text of its error is shown, so it must not hold a token.
    pub fn oauth<F>(provider: F) -> Self
    where
        F: Fn() -> Result<Token, Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    {
        Self(Mechanism::Oauth(Arc::new(provider)))
    }

    fn password(name: &'static str, user: impl Into<String>, password: Secret) -> Self {
        Self(Mechanism::Password { name, user: user.into(), password })
    }

    /// The provider of tokens, if this is how the client logs in.
    pub(super) fn provider(&self) -> Option<&Provider> {
        match &self.0 {
            Mechanism::Oauth(provider) => Some(provider.as_ref()),
            Mechanism::Password { .. } => None,
        }
    }

    fn apply(&self, client: &mut ClientConfig) -> Result<()> {
        match &self.0 {
            Mechanism::Password { name, user, password } => {
                client.set("sasl.mechanisms", *name);
                client.set("sasl.username", user);
                client.set("sasl.password", password.reveal()?.expose_secret());
            }
            Mechanism::Oauth(_) => {
                client.set("sasl.mechanisms", "OAUTHBEARER");
            }
        }
        Ok(())
    }
}

/// The settings of a client that is to get in this way. Reads the secrets.
pub(super) fn apply(tls: Option<&Tls>, sasl: Option<&Sasl>, client: &mut ClientConfig) -> Result<()> {
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    tls.map_or(Ok(()), |tls| tls.apply(client))?;
    sasl.map_or(Ok(()), |sasl| sasl.apply(client))
}
