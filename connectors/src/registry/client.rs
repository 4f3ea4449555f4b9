//! Requests to the registry, and what its answers mean.
//!
//! ```text
//!   call ──► address 1 ──► no answer, or 429, 5xx ──► address 2 ──► … ──► a pause, and all of them again, three times in all
//!               │
//!               ├─► 2xx: the answer      401, 403: who are you?      3xx: not followed, it would carry the password along
//!               └─► 4xx: what the registry says: it has no such schema, or does not want it
//! ```

use std::{path::PathBuf, sync::OnceLock, thread, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Response, Uri, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};

use crate::{ConnectorError, Result, Secret};

/// The longest answer that is read. A schema beyond this is an accident or an attack.
pub(super) const LONGEST_ANSWER: u64 = 1 << 20;
const ROUNDS: u32 = 3;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// What may stand in a part of a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(super) enum Login {
    #[default]
    Nobody,
    Basic {
        user: String,
        password: Secret,
    },
    Bearer(Secret),
}

/// What the registry said.
#[derive(Debug)]
pub(super) enum Answer {
    /// It did what it was asked to.
    Yes(Value),
    /// It did not, and its number for why, as 40403.
    No { code: u64, message: String },
    /// It did, and its answer is longer than any that is read.
    TooLong,
}

#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Without a slash at the end; or why they cannot be used.
    addresses: Result<Vec<String>, String>,
    pub(super) login: Login,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) pause: Duration,
    /// Made when it is needed, since the file of certificates is read then. A clone shares its connections.
    agent: OnceLock<Agent>,
}

impl Client {
    pub(super) fn new(addresses: &str) -> Self {
        Self {
            addresses: addresses.split(',').map(address).collect(),
            login: Login::Nobody,
            ca_file: None,
            timeout: Duration::from_secs(5),
            pause: Duration::from_millis(200),
            agent: OnceLock::new(),
        }
    }

    /// The same one before it was used, to be changed.
    pub(super) fn changed(self) -> Self {
        Self { agent: OnceLock::new(), ..self }
    }

    /// How many addresses there are.
    pub(super) fn addresses(&self) -> usize {
        self.addresses.as_ref().map_or(0, Vec::len)
    }

    /// Whether a password or token goes to an address without encryption.
    pub(super) fn shows_login(&self) -> bool {
        let open = |addresses: &Vec<String>| addresses.iter().any(|address| address.starts_with("http:"));
        !matches!(self.login, Login::Nobody) && self.addresses.as_ref().is_ok_and(open)
    }

    /// The addresses, for messages.
    pub(super) fn name(&self) -> String {
        match &self.addresses {
            Ok(addresses) => addresses.join(","),
            Err(_) => "(no address)".to_string(),
        }
    }

    /// Asks for `path`, of which each part is escaped; with a body it posts.
    pub(super) fn call(&self, path: &[&str], body: Option<&Value>) -> Result<Answer> {
        self.call_from(0, path, body)
    }

    /// As [`Client::call`], and asks the address at this place of the list first.
    pub(super) fn call_from(&self, first: usize, path: &[&str], body: Option<&Value>) -> Result<Answer> {
        let addresses = self.addresses.as_ref().map_err(|reason| ConnectorError::Config(reason.clone()))?;
        let path: String =
            path.iter().flat_map(|part| ["/".into(), utf8_percent_encode(part, PLAIN).to_string()]).collect();
        let body = body.map(Value::to_string);
        let authorization = self.authorization()?;
        let mut failures = Vec::new();
        for round in 0..ROUNDS {
            if round > 0 {
                thread::sleep(self.pause * 2_u32.pow(round - 1));
            }
            failures.clear();
            let turned = addresses.iter().cycle().skip(first % addresses.len().max(1));
            for address in turned.take(addresses.len()) {
                match self.ask(address, &path, body.as_deref(), authorization.as_ref())? {
                    Ok(answer) => return Ok(answer),
                    Err(reason) => failures.push(format!("{address}{path}: {reason}")),
                }
            }
        }
        Err(self.remote(format!("{} (tried {ROUNDS} times)", failures.join("; ")), true))
    }

    /// One request to one address. The inner error is worth trying again.
    fn ask(
        &self,
        address: &str,
        path: &str,
        body: Option<&str>,
        authorization: Option<&SecretString>,
    ) -> Result<Result<Answer, String>> {
        let agent = self.agent()?;
        let url = format!("{address}{path}");
        let sent = match body {
            Some(body) => {
                let mut request = agent.post(url).header(header::CONTENT_TYPE, MEDIA_TYPE);
                request = request.header(header::ACCEPT, MEDIA_TYPE);
                if let Some(value) = authorization {
                    request = request.header(header::AUTHORIZATION, value.expose_secret());
                }
                request.send(body)
            }
            None => {
                let mut request = agent.get(url).header(header::ACCEPT, MEDIA_TYPE);
                if let Some(value) = authorization {
                    request = request.header(header::AUTHORIZATION, value.expose_secret());
                }
                request.call()
            }
        };
        match sent {
            Ok(response) => self.read(response),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn read(&self, mut response: Response<Body>) -> Result<Result<Answer, String>> {
        let status = response.status().as_u16();
        match status {
            300..=399 => {
                let reason = format!(
                    "answered with status {status}, a redirect, which is not followed: give the address it leads to"
                );
                return Err(self.remote(reason, false));
            }
            401 | 403 => {
                let who = match self.login {
                    Login::Nobody => "asks who we are: give a user name and a password, or a token",
                    Login::Basic { .. } => "refuses this user name or password",
                    Login::Bearer(_) => "refuses this token",
                };
                return Err(self.remote(format!("it {who} (status {status})"), false));
            }
            429 | 500..=599 => return Ok(Err(format!("status {status}"))),
            _ => {}
        }
        let text = match response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string() {
            Ok(text) => text,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Ok(Ok(Answer::TooLong)),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let Ok(answer) = serde_json::from_str::<Value>(&text) else {
            return Ok(Err(format!(
                "its answer with status {status} is not JSON: is this the address of a schema registry?"
            )));
        };
        if status < 300 {
            return Ok(Ok(Answer::Yes(answer)));
        }
        let code = answer.get("error_code").and_then(Value::as_u64).unwrap_or(status.into());
        let message = answer.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        Ok(Ok(Answer::No { code, message: message.chars().take(2_000).collect() }))
    }

    /// The error of a registry that did not do its part.
    pub(super) fn remote(&self, reason: String, passes: bool) -> ConnectorError {
        ConnectorError::Remote { system: format!("schema registry {}", self.name()), reason, passes }
    }

    fn authorization(&self) -> Result<Option<SecretString>> {
        let value = match &self.login {
            Login::Nobody => return Ok(None),
            Login::Basic { user, password } => {
                let pair = SecretString::from(format!("{user}:{}", password.reveal()?.expose_secret()));
                format!("Basic {}", base64(pair.expose_secret().as_bytes()))
            }
            Login::Bearer(token) => format!("Bearer {}", token.reveal()?.expose_secret()),
        };
        if !value.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
            return Err(ConnectorError::Config(
                "the token for the schema registry holds characters that no header can".into(),
            ));
        }
        Ok(Some(SecretString::from(value)))
    }

    fn agent(&self) -> Result<&Agent> {
        if let Some(agent) = self.agent.get() {
            return Ok(agent);
        }
        let roots = match &self.ca_file {
            Some(path) => RootCerts::new_with_certs(&certificates(path)?),
            None => RootCerts::PlatformVerifier,
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build())
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // What the environment says about proxies is not for the password of the registry.
            .proxy(None)
            .user_agent("windrow")
            .build();
        Ok(self.agent.get_or_init(|| config.new_agent()))
    }
}

/// An address that can be used, or what is wrong with it; without the password that may stand in it.
fn address(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let wrong = |why: &str| format!("the address of the schema registry {why}; it looks like http://localhost:8081");
    let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds a user name: give it with basic_auth, because addresses are shown in messages"));
    }
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("is neither http nor https"));
    }
    if uri.query().is_some() {
        return Err(wrong("holds a question mark"));
    }
    Ok(text.to_string())
}

fn certificates(path: &PathBuf) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path).map_err(|error| ConnectorError::io("read", path, error))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(ConnectorError::Config(format!("{} holds no certificate in PEM form", path.display())));
    }
    Ok(found)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_lengths() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("fooba", "Zm9vYmE=")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address(" https://a:8081/registry/ "), Ok("https://a:8081/registry".to_string()));
        for bad in ["", "localhost:8081", "ftp://a", "http://", "/schemas", "http://a?x=y"] {
            assert!(address(bad).unwrap_err().contains("http://localhost:8081"), "{bad}");
        }
        let error = address("http://ada:canary@a:8081").unwrap_err();
        assert!(error.contains("basic_auth") && !error.contains("canary"), "{error}");
    }
}
