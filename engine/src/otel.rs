//! Spans and events to a collector of OpenTelemetry, by OTLP over HTTP.
//!
//! ```text
//!   job ──► tracing ──┬─► spans ──► batches ──► POST /v1/traces ──┐
//!                     └─► events ─► batches ──► POST /v1/logs ────┴─► collector, port 4318
//! ```
//!
//! What there is to see is said where it happens, by `tracing` (`trace.rs`); here it is only taken there. The exporters have threads of
//! their own, so that no task of a job waits for a collector, and what does not fit into their queues is dropped.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, trace::SdkTracerProvider};
use tracing_subscriber::{Registry, filter::LevelFilter, layer::SubscriberExt};

use crate::metrics::redact::redacted;

/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtelError {
    /// The collector cannot be reached by this address, whatever it is doing.
    #[error("no collector can be at {endpoint:?}: {reason}. Say a URL like http://localhost:4318")]
    Endpoint {
        /// What was given, without credentials; empty when it was the environment or the default.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The program has installed a subscriber of `tracing` before.
    #[error(
        "this program has a subscriber of `tracing` already: call windrow::otel::export before it, or instead of it"
    )]
    Taken,
}

/// Exports until it is dropped; then what is on its way is sent, for which it waits some seconds at the most.
#[derive(Debug)]
#[must_use = "nothing is exported any more when it is dropped"]
pub struct Exporting {
    spans: SdkTracerProvider,
    events: SdkLoggerProvider,
}

/// Sends the spans and events of all jobs of this program, and what else it says by `tracing`, from the level `INFO` on, to a collector
/// of OpenTelemetry. `service` is the `service.name` under which they appear there. Without an `endpoint` it is what the variables
/// `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_HEADERS` say, or `http://localhost:4318`. Once in a program, before its first
/// job.
///
/// ```no_run
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let _exporting = windrow::otel::export("numbers", Some("http://localhost:4318"))?;
/// let job = Job::new("numbers");
/// job.source(Sequence::new(1_000)).sink(MemorySink::new());
/// job.run().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When the endpoint is none, or the program has another subscriber of `tracing`. A collector that is not there is no error: what it does
/// not take is dropped.
pub fn export(service: &str, endpoint: Option<&str>) -> Result<Exporting, OtelError> {
    let refused = |error: &dyn std::fmt::Display| OtelError::Endpoint {
        endpoint: redacted(endpoint.unwrap_or_default()),
        reason: redacted(&error.to_string()),
    };
    let at =
        |path: &str| endpoint.map(|endpoint| format!("{}{path}", endpoint.trim_end_matches('/'))).unwrap_or_default();
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let spans = SpanExporter::builder().with_http().with_http_client(Client::new()).with_protocol(Protocol::HttpBinary);
    let spans = spans.with_endpoint(at("/v1/traces")).build().map_err(|error| refused(&error))?;
    let spans = SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build();
    let events = LogExporter::builder().with_http().with_http_client(Client::new()).with_protocol(Protocol::HttpBinary);
    let events = events.with_endpoint(at("/v1/logs")).build().map_err(|error| refused(&error))?;
    let events = SdkLoggerProvider::builder().with_batch_exporter(events).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer("windrow"));
    let subscriber =
        Registry::default().with(layer).with(OpenTelemetryTracingBridge::new(&events)).with(LevelFilter::INFO);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| OtelError::Taken)?;
    Ok(Exporting { spans, events })
}

impl Drop for Exporting {
    fn drop(&mut self) {
        // Who is not there takes nothing, and there is nobody to tell.
        let _ = self.spans.shutdown();
        let _ = self.events.shutdown();
    }
}

/// It is called on the threads of the exporters, which may wait.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        Self(config.build().into())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let (parts, mut body) = self.0.run(Request::from_parts(parts, &body[..]))?.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}
