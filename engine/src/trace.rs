//! What a job tells as it goes, to who collects it with `tracing`: spans and events, none of them for a batch or a row.
//!
//! ```text
//!   job ─┬─ attempt 1 ─┬─ warning                                       spans: what has a duration, and events
//!        │             └─ ERROR failed
//!        ├─ restarted          ▲ follows from
//!        └─ attempt 2 ── …     │
//!   checkpoint 7 ──────────────┘  job, attempt, duration_ms, bytes, …     a root, with the event of a savepoint
//! ```
//!
//! Nobody collects unless the program installs somebody who does; then a span that nobody wants costs a load. With the feature `otel`
//! it is [`otel::export`](crate::otel::export) that installs. Names and fields are listed in `docs/src/operating.md`.
//!
//! A job may go on for weeks, and collectors get a span when it is over and keep what belongs together together: so checkpoints are
//! not below it, and what may come any number of times is no event of it, unless somebody wants the level `DEBUG`.
//!
//! A span lasts as long as anybody has it, so only who does the work has it: what outlives an attempt knows its span by its id.

use tracing::{Span, debug, error, field::Empty, info, info_span, span::Id, warn};

use crate::status::{CheckpointDone, CheckpointKind};

/// A job, from its start to its end.
pub(crate) fn job(name: &str) -> Span {
    info_span!("job", job = name, version = env!("CARGO_PKG_VERSION"))
}

/// An attempt at running it, of this number.
pub(crate) fn attempt(job: &Span, name: &str, number: u32) -> Span {
    info_span!(parent: job, "attempt", job = name, attempt = number, restored_from = Empty)
}

/// The attempt of the current span goes on from this checkpoint.
pub(crate) fn restored_from(epoch: u64) {
    Span::current().record("restored_from", epoch);
}

/// The attempt has failed, for this reason.
pub(crate) fn failed(attempt: &Span, error: &str) {
    error!(parent: attempt, "failed: {error}");
}

/// So often the job was started again now.
pub(crate) fn restarted(restarts: u32) {
    warn!(restarts, "restarted after a failure");
}

/// The job is over; `error` is why, if it failed.
pub(crate) fn ended(job: &str, stopped: bool, error: Option<&str>) {
    match error {
        Some(error) => error!(job, "the job ended: {error}"),
        None => info!(job, stopped, "the job ended"),
    }
}

/// An epoch, from its barrier until it is complete, of the attempt of this number, whose span is the current one.
pub(crate) fn checkpoint(job: &str, attempt: u32, epoch: u64) -> Span {
    let span = info_span!(
        parent: None,
        "checkpoint",
        job,
        attempt,
        epoch,
        kind = Empty,
        savepoint = Empty,
        duration_ms = Empty,
        answered_ms = Empty,
        bytes = Empty,
        segments = Empty,
        complete = false
    );
    span.follows_from(Span::current());
    span
}

/// It is complete.
pub(crate) fn complete(span: &Span, done: &CheckpointDone) {
    let kind = match done.kind {
        CheckpointKind::Periodic => "periodic",
        CheckpointKind::Savepoint => "savepoint",
        CheckpointKind::Final => "final",
    };
    span.record("kind", kind).record("duration_ms", done.took_ms).record("answered_ms", done.answered_ms);
    span.record("bytes", done.bytes).record("segments", done.segments).record("complete", true);
    if let Some(name) = &done.savepoint {
        span.record("savepoint", name);
        info!(parent: span, epoch = done.epoch, savepoint = name, bytes = done.total_bytes, "savepoint complete");
    }
}

/// What a person should know, although the job runs, of an operator or of the whole.
pub(crate) fn warning(attempt: Option<Id>, operator: Option<&str>, text: &str) {
    warn!(parent: attempt, operator, "{text}");
}

/// A source has a split that it had not before.
pub(crate) fn split_found(operator: &str, split: &str) {
    debug!(operator, split, "split found");
}
