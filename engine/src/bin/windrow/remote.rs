//! A job that runs elsewhere, asked over its HTTP API.
//!
//! ```text
//!   GET  /api/status                                     ──► JobStatus
//!   POST /api/savepoint, /api/stop, /api/cancel + token  ──► {"epoch": 7}, or {"error": "what happened, and what to do"}
//! ```

use std::{path::PathBuf, time::Duration};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use ureq::{
    Agent,
    http::{Response, Uri, header},
    tls::{RootCerts, TlsConfig, TlsProvider},
};
use windrow::{connectors::Secret, status::JobStatus};

use crate::failure::Failure;

/// The variable with the token.
const VARIABLE: &str = "WINDROW_TOKEN";
/// The largest status that is read: some thousand splits of some hundred operators.
const LARGEST: u64 = 64 << 20;
/// How long an answer may take that is there already.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A job that serves its API.
#[derive(Args, Clone)]
pub(crate) struct Remote {
    /// Where the job is served: http://127.0.0.1:8080, or host:port
    #[arg(value_name = "URL")]
    url: String,
    /// The file that holds the job's token; without it the variable WINDROW_TOKEN does
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// How to ask it.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    address: String,
    token: Option<SecretString>,
}

impl Remote {
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let address = address(&self.url)?;
        let secret = match &self.token_file {
            Some(path) => Some(Secret::file(path)),
            None => std::env::var_os(VARIABLE).filter(|token| !token.is_empty()).map(|_| Secret::env(VARIABLE)),
        };
        let token =
            secret.map(|secret| secret.reveal()).transpose().map_err(|error| Failure::new(error.to_string()))?;
        let plain = |token: &SecretString| token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
        if !token.as_ref().is_none_or(plain) {
            return Err(Failure::new("the token holds characters that no token has: is the file the right one?"));
        }
        let config = Agent::config_builder()
            .tls_config(
                TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build(),
            )
            .timeout_connect(Some(Duration::from_secs(5)))
            .http_status_as_error(false)
            // A redirect would carry the token elsewhere, and so would a proxy.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent("windrow")
            .build();
        Ok(Client { agent: config.new_agent(), address, token })
    }
}

impl Client {
    /// What the job does.
    pub(crate) fn status(&self) -> Result<JobStatus, Failure> {
        let request = self.agent.get(format!("{}/api/status", self.address));
        let request = request.config().timeout_global(Some(SOON)).build();
        let request = match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, bearer(token)),
            None => request,
        };
        let answer = self.answered(request.call())?;
        serde_json::from_value(answer)
            .map_err(|error| self.no_job(&format!("what it says of its job is not understood: {error}")))
    }

    /// Asks the job to do something, and waits so long for its answer; without `patience` as long as it takes: a savepoint of much
    /// state takes its time.
    pub(crate) fn post(&self, path: &str, body: &Value, patience: Option<Duration>) -> Result<Value, Failure> {
        let Some(token) = &self.token else {
            return Err(Failure::not_allowed(format!(
                "a job is changed with its token only: put it into the variable {VARIABLE}, or say --token-file FILE. The job prints it at \
                 its start, in the URL of its page behind #token=, unless it was given one"
            )));
        };
        let request = self.agent.post(format!("{}{path}", self.address));
        let request = request.config().timeout_global(patience).build();
        let request =
            request.header(header::AUTHORIZATION, bearer(token)).header(header::CONTENT_TYPE, "application/json");
        self.answered(request.send(body.to_string()))
    }

    /// Whether changing calls can be made.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn answered(&self, answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut answer = answer.map_err(|error| {
            Failure::not_reachable(format!(
                "{} does not answer: {error}. Does the job run, and does it say .serve(…) with this address?",
                self.address
            ))
        })?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let text =
            text.map_err(|error| Failure::not_reachable(format!("{}: its answer broke off: {error}", self.address)))?;
        let value = serde_json::from_str::<Value>(&text).ok();
        let said = value.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str);
        match (status, value.as_ref(), said) {
            (200..=299, Some(_), _) => value.ok_or_else(|| self.no_job("")),
            (401 | 403, ..) => {
                let what = if self.token.is_some() { "refuses the token" } else { "wants a token" };
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                Err(Failure::not_allowed(format!(
                    "{} {what}{said}. The token is taken from --token-file, or from {VARIABLE}",
                    self.address
                )))
            }
            (_, _, Some(said)) => Err(Failure::new(said)),
            _ => Err(self.no_job(&format!("it answered with status {status}"))),
        }
    }

    fn no_job(&self, why: &str) -> Failure {
        Failure::new(format!("{} does not seem to be a job of Windrow: {why}", self.address))
    }
}

fn bearer(token: &SecretString) -> String {
    format!("Bearer {}", token.expose_secret())
}

/// An address that can be asked. The URL that a job prints for browsers has its token in it, which is not for a command line.
fn address(url: &str) -> Result<String, Failure> {
    if url.contains("token=") {
        return Err(Failure::usage(format!(
            "everybody on this machine can read command lines, and this one has a token: leave out # and what follows, and put the token \
             into the variable {VARIABLE} or a file for --token-file"
        )));
    }
    let url = url.split('#').next().unwrap_or_default().trim();
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |why: &str| Failure::usage(format!("the URL of the job {why}: it looks like http://127.0.0.1:8080"));
    let uri: Uri = url.parse().map_err(|_| wrong("is none"))?;
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds a user name, and there is none to log in with"));
    }
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("is neither http nor https"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}
