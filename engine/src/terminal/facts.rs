//! What of a job is worth a place on a line, and numbers as people read them.

use crate::status::{JobStatus, OperatorKind, OperatorStatus, State, instant, span};

/// The end of event time.
pub(super) const END: i64 = i64::MAX;

/// `734`, `50.1k`, `1.2M`, `3.4G`.
pub(super) fn short(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(size, _)| number >= size * 0.9995) {
        Some((size, unit)) => format!("{:.1}{unit}", number / size),
        None => format!("{number:.0}"),
    }
}

/// A number of bytes for people, in powers of 1024.
///
/// ```
/// assert_eq!(windrow::terminal::bytes(1_572_864), "1.5 MiB");
/// ```
pub fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Stopping => "stopping",
        State::Restarting => "restarting",
        State::Ended => "ended",
    }
}

/// A watermark: an instant, `end`, or nothing yet.
pub(super) fn watermark(micros: Option<i64>) -> String {
    match micros {
        None => "-".into(),
        Some(END) => "end".into(),
        Some(micros) => instant(micros),
    }
}

/// What comes from outside may hold what steers a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of a text, of so many columns at the most.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    if columns == 0 { kept } else { kept + "…" }
}

/// The sum of something over the operators of a kind.
pub(super) fn sum(status: &JobStatus, kind: OperatorKind, of: impl Fn(&OperatorStatus) -> f64) -> f64 {
    status.operators.iter().filter(|operator| operator.kind == kind).map(of).fold(0.0, |sum, one| sum + one)
}

/// How far event time is behind the latest row that was read, in words: where it is furthest behind.
pub(super) fn lag(status: &JobStatus) -> Option<String> {
    let latest = status.operators.iter().filter_map(|operator| operator.latest_us).max()?;
    let waits = |operator: &&OperatorStatus| operator.kind != OperatorKind::Source;
    let least = status.operators.iter().filter(waits).filter_map(|operator| operator.watermark_us).min()?;
    (least != END).then(|| span(u64::try_from(latest.saturating_sub(least) / 1_000).unwrap_or(0)))
}

/// The newest checkpoint and its age: `checkpoint 7, 3 s ago`; nothing where none are taken.
pub(super) fn checkpoint(status: &JobStatus) -> Option<String> {
    let own = &status.checkpoints;
    if let Some(last) = own.last.first() {
        let age = span(status.now_ms.saturating_sub(last.began_ms + last.took_ms));
        return Some(format!("checkpoint {}, {age} ago", last.epoch));
    }
    own.store.is_some().then(|| "no checkpoint yet".into())
}

/// Rows that were not processed: `late 5, rejected 2, failed 1`.
pub(super) fn not_processed(status: &JobStatus) -> Option<String> {
    let all = |of: fn(&OperatorStatus) -> u64| status.operators.iter().map(of).sum::<u64>();
    let kinds =
        [("late", all(|one| one.late)), ("rejected", all(|one| one.rejected)), ("failed", all(|one| one.failed))];
    let some: Vec<String> = kinds
        .into_iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(kind, rows)| format!("{kind} {}", short(rows as f64)))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// What slows the job down, and how busy it is.
pub(super) fn slow(status: &JobStatus) -> Option<String> {
    let operator = status.operators.get(status.bottleneck_at()?)?;
    let busy = operator.tasks.iter().map(|task| task.busy).fold(0.0, f64::max);
    Some(format!("slowed by {} ({:.0}% busy)", operator.name, 100.0 * busy))
}
