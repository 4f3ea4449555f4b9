//! What the explanations say of jobs of many shapes, and what a status looks like as JSON.

mod bottleneck;
mod json;
mod prometheus;
mod why_open;

use super::*;

const SECOND: i64 = 1_000_000;
/// 2026-01-01T00:00:00Z.
const BEGAN: i64 = 1_767_225_600 * SECOND;
const NOW_MS: u64 = 1_800_000_000_000;

/// So many seconds after the beginning.
fn at(seconds: i64) -> Option<i64> {
    Some(BEGAN + seconds * SECOND)
}

fn operator(name: &str, kind: OperatorKind, chain: usize) -> OperatorStatus {
    OperatorStatus { name: name.into(), kind, chain, tasks: vec![TaskStatus::default()], ..OperatorStatus::default() }
}

fn edge(from: usize, to: usize, exchange: Exchange) -> EdgeStatus {
    EdgeStatus { from, to, exchange, capacity_bytes: 1_000, ..EdgeStatus::default() }
}

/// A source, in chain 0, a window behind an exchange, and a sink.
fn job() -> JobStatus {
    JobStatus {
        job: "test".into(),
        now_ms: NOW_MS,
        recent_ms: 5_000,
        operators: vec![
            operator("#1 source topic", OperatorKind::Source, 0),
            operator("#2 window tumbling 10s", OperatorKind::Stateful, 1),
            operator("#3 sink out", OperatorKind::Sink, 2),
        ],
        edges: vec![edge(0, 1, Exchange::ByKeyGroup), edge(1, 2, Exchange::Forward)],
        ..JobStatus::default()
    }
}

/// The tasks of an operator, by how much they were at work and waited.
fn tasks(shares: &[(f64, f64)]) -> Vec<TaskStatus> {
    shares
        .iter()
        .map(|(busy, blocked)| TaskStatus { busy: *busy, blocked: *blocked, ..TaskStatus::default() })
        .collect()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    words.iter().for_each(|words| assert!(text.contains(words), "{words:?} is not in {text:?}"));
}
