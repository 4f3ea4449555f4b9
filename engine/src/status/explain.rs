//! Words for times, spans and shares, and the way through a job that explanations take.

use windrow_operators::Timestamp;

use super::{EdgeStatus, Exchange, JobStatus, OperatorKind, OperatorStatus};

/// The end of event time.
pub(super) const END: i64 = i64::MAX;
/// From this share of the time on a chain that waits for room is said to be slowed down.
pub(super) const BLOCKED: f64 = 0.1;

/// An instant of event time.
pub(crate) fn instant(micros: i64) -> String {
    Timestamp::from_micros(micros).to_string()
}

/// A span of time, as exactly as one needs it: `0.4 s`, `43 s`, `5 min 3 s`, `2 h 5 min`, `3 days 4 h`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1_000;
    let parts = |large: u64, name: &str, small: u64, other: &str| match small {
        0 => format!("{large} {name}"),
        small => format!("{large} {name} {small} {other}"),
    };
    match seconds {
        0..10 if !millis.is_multiple_of(1_000) => format!("{}.{} s", seconds, millis % 1_000 / 100),
        0..60 => format!("{seconds} s"),
        60..3_600 => parts(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => parts(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => {
            let days = seconds / 86_400;
            parts(days, if days == 1 { "day" } else { "days" }, seconds % 86_400 / 3_600, "h")
        }
    }
}

/// The span between two instants of event time.
pub(super) fn between(from: i64, to: i64) -> String {
    span(u64::try_from(to.saturating_sub(from) / 1_000).unwrap_or(0))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

/// One of a thing, or several.
pub(super) fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

impl OperatorStatus {
    /// The share of the recent time that its busiest task was at work.
    pub(crate) fn busiest(&self) -> f64 {
        self.tasks.iter().map(|task| task.busy).fold(0.0, f64::max)
    }

    /// The share of the recent time that the task of its chain that waited longest waited for room downstream.
    pub(crate) fn blocked(&self) -> f64 {
        self.tasks.iter().map(|task| task.blocked).fold(0.0, f64::max)
    }
}

impl JobStatus {
    /// The edges that leave a chain for other tasks.
    pub(super) fn leaving(&self, chain: usize) -> impl Iterator<Item = &EdgeStatus> {
        let of = move |operator: usize| self.operators.get(operator).is_some_and(|from| from.chain == chain);
        self.edges.iter().filter(move |edge| edge.exchange != Exchange::Chained && of(edge.from))
    }

    /// The edges by which event time comes to an operator: late and rejected rows have none.
    pub(super) fn timed_inputs(&self, operator: usize) -> impl Iterator<Item = &EdgeStatus> {
        let timed = |edge: &&EdgeStatus| !edge.label.starts_with("late") && edge.label != "rejected";
        self.edges.iter().filter(move |edge| edge.to == operator).filter(timed)
    }

    /// The sources whose event time comes to an operator.
    pub(crate) fn timed_sources(&self, operator: usize) -> Vec<usize> {
        let (mut seen, mut next) = (vec![operator], vec![operator]);
        while let Some(at) = next.pop() {
            for edge in self.timed_inputs(at).filter(|edge| edge.from < self.operators.len()) {
                if !seen.contains(&edge.from) {
                    seen.push(edge.from);
                    next.push(edge.from);
                }
            }
        }
        seen.retain(|at| self.operators[*at].kind == OperatorKind::Source && self.operators[*at].event_time.is_some());
        seen.sort_unstable();
        seen
    }

    /// Whether nobody waits for an operator: all its tasks are idle, or over.
    pub(super) fn is_silent(&self, operator: usize) -> bool {
        let tasks = self.operators.get(operator).map_or(&[][..], |own| &own.tasks);
        !tasks.is_empty() && tasks.iter().all(|task| task.idle || task.watermark_us == Some(END))
    }
}
