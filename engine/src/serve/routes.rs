//! What can be asked for, and what is done: from a request to the job and back.
//!
//! ```text
//!   path ──► Asset, Route, or neither ──► access ──► body, at most 64 KiB of JSON ──► JobHandle, state ──► JSON
//! ```
//!
//! A path is compared with what there is and never makes a file name; only the name of an operator in it is decoded, once.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Body};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;

use super::{
    access::{Access, Need},
    answer::{Answered, Refusal, Response, bytes_of, json, ok},
    assets::Asset,
    state::{Asked, States},
};
use crate::{
    Error, JobHandle,
    checkpoint::CheckpointError,
    status::{JobStatus, OperatorKind, PROMETHEUS_CONTENT_TYPE, prometheus},
};

/// How many bytes a body may have.
const BODY_BYTES: usize = 64 << 10;
/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(10);

/// A job, and who may do what with it.
pub(super) struct Routes {
    access: Access,
    job: JobHandle,
    states: States,
}

/// What is at a path.
enum Route {
    Page(&'static Asset),
    Status,
    Words,
    Plan,
    Metrics,
    Savepoint,
    Stop,
    Cancel,
    Tables,
    State { operator: String },
}

impl Route {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/api/status" => Self::Status,
            "/api/words" => Self::Words,
            "/api/plan" => Self::Plan,
            "/metrics" => Self::Metrics,
            "/api/savepoint" => Self::Savepoint,
            "/api/stop" => Self::Stop,
            "/api/cancel" => Self::Cancel,
            "/api/state" => Self::Tables,
            _ => match path.strip_prefix("/state/") {
                Some(operator) => {
                    Self::State { operator: percent_decode_str(operator).decode_utf8().ok()?.into_owned() }
                }
                None => Self::Page(Asset::find(path)?),
            },
        })
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Savepoint | Self::Stop | Self::Cancel => "POST",
            Self::State { .. } => "GET, POST",
            _ => "GET",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavepointAsked {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopAsked {
    savepoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Routes {
    pub(super) fn new(access: Access, job: JobHandle) -> Self {
        Self { access, states: States::new(), job }
    }

    /// Answers a request, whatever it is.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        self.answered(request).await.unwrap_or_else(Response::from)
    }

    async fn answered<B>(&self, request: Request<B>) -> Answered
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let (parts, body) = request.into_parts();
        let route = Route::at(parts.uri.path());
        // A HEAD is refused below like a GET that is not there: it is not a change that would need the token.
        let changes = ![Method::GET, Method::HEAD].contains(&parts.method);
        let need = match &route {
            _ if changes => Need::Change,
            Some(Route::Page(_)) => Need::Page,
            Some(Route::State { .. }) => Need::Query,
            _ => Need::Read,
        };
        self.access.check(&parts, need)?;
        let route = route.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, NO_ROUTE))?;
        let methods = route.methods();
        if !methods.split(", ").any(|method| method == parts.method.as_str()) {
            let words = format!("there is no {} of this: use {methods}", parts.method);
            return Err(Refusal { allow: Some(methods), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
        }
        match route {
            Route::Page(asset) => Ok(asset.response()),
            Route::Status => Ok(ok(&self.job.status())),
            Route::Words => Ok(words(&self.job.status())),
            Route::Plan => Ok(ok(&json!({ "text": self.job.explain() }))),
            Route::Metrics => Ok(metrics(&self.job.status())),
            Route::Savepoint => self.savepoint(read(body).await?).await,
            Route::Stop => self.stop(read(body).await?).await,
            Route::Cancel => {
                let Nothing {} = read(body).await?;
                self.job.cancel();
                Ok(json(StatusCode::ACCEPTED, &json!({ "state": "cancelled" })))
            }
            Route::Tables => self.states.tables(&self.job.status()).await,
            Route::State { operator } if changes => {
                self.states.ask(&self.job, &operator, Asked::of_body(read(body).await?)).await
            }
            Route::State { operator } => {
                let asked = Asked::of_query(parts.uri.query().unwrap_or_default())?;
                self.states.ask(&self.job, &operator, asked).await
            }
        }
    }

    async fn savepoint(&self, asked: SavepointAsked) -> Answered {
        let epoch = self.job.savepoint(asked.name).await.map_err(undone)?;
        Ok(ok(&json!({ "epoch": epoch.0 })))
    }

    async fn stop(&self, asked: StopAsked) -> Answered {
        match asked.savepoint {
            Some(name) => {
                let epoch = self.job.stop_with_savepoint(name).await.map_err(undone)?;
                Ok(ok(&json!({ "epoch": epoch.0 })))
            }
            None => {
                self.job.stop();
                Ok(json(StatusCode::ACCEPTED, &json!({ "state": "stopping" })))
            }
        }
    }
}

const NO_ROUTE: &str = "there is nothing here. There are /, /api/status, /api/words, /api/plan, /metrics, /api/state and /state/OPERATOR, and to \
     change something POST /api/savepoint, /api/stop and /api/cancel";

/// What the job has not done, and whose affair that is: of the store, which may be there again or is damaged, or the job's, which does not
/// do that now.
pub(super) fn undone(error: Error) -> Refusal {
    let status = match &error {
        Error::Checkpoint { error: CheckpointError::Corrupt { .. }, .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Checkpoint { error, .. } if error.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
        Error::CheckpointTimeout { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    Refusal::new(status, error.to_string())
}

/// What slows the job down, and why windows are open, for every operator that waits for event time.
fn words(status: &JobStatus) -> Response {
    let waits = |(at, own): &(usize, &crate::status::OperatorStatus)| {
        own.kind == OperatorKind::Stateful && !own.first_phase && !status.timed_sources(*at).is_empty()
    };
    let waiting = status.operators.iter().enumerate().filter(waits);
    let open = |(_, own): (usize, &crate::status::OperatorStatus)| json!({ "operator": own.name, "text": status.why_open(&own.name) });
    let slow = status.bottleneck_at().and_then(|at| status.operators.get(at)).zip(status.bottleneck());
    let slow = slow.map(|(own, text)| json!({ "operator": own.name, "text": text }));
    ok(&json!({ "bottleneck": slow, "why_open": waiting.map(open).collect::<Vec<_>>() }))
}

/// What Prometheus reads.
fn metrics(status: &JobStatus) -> Response {
    bytes_of(StatusCode::OK, PROMETHEUS_CONTENT_TYPE, prometheus(status).into())
}

/// A body as what it should be.
async fn read<T: DeserializeOwned, B>(body: B) -> Result<T, Refusal>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let too_large = || {
        let words = format!("the body has more than {BODY_BYTES} bytes, and nothing that can be said here is so long");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
    };
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(too_large());
    }
    let collected = timeout(BODY, Limited::new(body, BODY_BYTES).collect()).await;
    let collected = collected.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", BODY.as_secs()))
    })?;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Err(error) => return Err(Refusal::bad(format!("the body did not come: {error}"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad(format!("the body is not what is needed here: {error}")))
}
