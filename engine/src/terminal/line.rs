//! The progress line: what matters most, first.

use super::facts::{checkpoint, clean, cut, lag, not_processed, short, slow, state, sum};
use crate::status::{JobStatus, OperatorKind, State, span};

/// What a job does, in one line of at most so many columns: its state, rows per second, how far event time is behind, what slows it down,
/// the age of its newest checkpoint, and rows that were late or rejected. What has no room is left out, the least important first.
///
/// ```
/// use windrow::{status::JobStatus, terminal::line};
///
/// let status = JobStatus { job: "hot-items".into(), elapsed_ms: 90_000, ..JobStatus::default() };
/// assert_eq!(line(&status, 80), "hot-items running 1 min 30 s, in 0/s, out 0/s");
/// ```
pub fn line(status: &JobStatus, columns: usize) -> String {
    let rows = |kind, of: fn(&crate::status::OperatorStatus) -> f64| short(sum(status, kind, of));
    let mut parts = vec![format!("{} {} {}", status.job, state(status.state), span(status.elapsed_ms))];
    if status.state == State::Ended {
        // There is no rate any more: what was done counts.
        let read = rows(OperatorKind::Source, |one| one.rows_in as f64);
        parts.push(format!("{read} rows in, {} out", rows(OperatorKind::Sink, |one| one.rows_in as f64)));
    } else {
        let read = rows(OperatorKind::Source, |one| one.rows_in_per_s);
        parts.push(format!("in {read}/s"));
        parts.push(format!("out {}/s", rows(OperatorKind::Sink, |one| one.rows_in_per_s)));
        parts.extend(lag(status).map(|lag| format!("lag {lag}")));
    }
    parts.extend(not_processed(status));
    parts.extend((status.restarts > 0).then(|| format!("restarts {}", status.restarts)));
    parts.extend(checkpoint(status));
    parts.extend(slow(status));
    let mut line = String::new();
    for part in parts.iter().map(|part| clean(part)) {
        let longer = if line.is_empty() { part } else { format!("{line}, {part}") };
        if longer.chars().count() > columns {
            return if line.is_empty() { cut(&longer, columns) } else { line };
        }
        line = longer;
    }
    line
}
