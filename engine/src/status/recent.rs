//! What went on lately: rates and shares, from what had been counted some seconds before.
//!
//! ```text
//!   12 s ── 13 s ── 14 s ── 15 s ── 16 s ── 17 s ── now: 17.4 s
//!    ▲ the newest that is 5 s old: now less then, divided by 5.4 s
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{JobStatus, TaskStatus, live::Counts};
use crate::clock::Moment;

/// How long ago it is that is compared with.
const SPAN: Duration = Duration::from_secs(5);
/// How often it is noted what has been counted.
pub(crate) const NOTED_EVERY: Duration = Duration::from_secs(1);

/// What an attempt had counted.
#[derive(Debug)]
pub(crate) struct Recent {
    began: Moment,
    /// Oldest first.
    noted: VecDeque<Noted>,
}

#[derive(Debug)]
struct Noted {
    at: Moment,
    counts: Counts,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { began: Moment::now(), noted: VecDeque::new() }
    }

    /// For all handles of a job together.
    pub(crate) fn shared(self) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(self))
    }

    /// Fills in what is of the last seconds, and notes what is now. `senders`: how many tasks send on each edge.
    pub(crate) fn fill(&mut self, status: &mut JobStatus, senders: &[usize], now: Moment) {
        self.forget(now);
        let then = self.noted.front();
        let since = then.map_or(self.began, |then| then.at);
        let micros = now.since(since).as_micros();
        let span = Span { micros: micros as f64 };
        for (index, operator) in status.operators.iter_mut().enumerate() {
            let former = then.and_then(|then| then.counts.tasks.get(index));
            let (mut rows_in, mut rows_out) = (0, 0);
            for (task, own) in operator.tasks.iter_mut().enumerate() {
                let then = former.and_then(|tasks| tasks.get(task)).copied().unwrap_or_default();
                own.busy = span.share(own.busy_us, then.busy_us, 1);
                own.blocked = span.share(own.blocked_us, then.blocked_us, 1);
                rows_in += own.rows_in.saturating_sub(then.rows_in);
                rows_out += own.rows_out.saturating_sub(then.rows_out);
            }
            operator.rows_in_per_s = span.rate(rows_in);
            operator.rows_out_per_s = span.rate(rows_out);
        }
        for (index, edge) in status.edges.iter_mut().enumerate() {
            let then = then.and_then(|then| then.counts.edges.get(index));
            let (rows, blocked_us) = then.map_or((0, 0), |then| (then.rows, then.blocked_us));
            edge.rows_per_s = span.rate(edge.rows.saturating_sub(rows));
            edge.blocked = span.share(edge.blocked_us, blocked_us, senders.get(index).copied().unwrap_or(1));
        }
        status.recent_ms = u64::try_from(micros / 1_000).unwrap_or(u64::MAX);
        if self.is_due(now) {
            let tasks: Vec<Vec<TaskStatus>> = status.operators.iter().map(|operator| operator.tasks.clone()).collect();
            self.note(Counts { tasks, edges: status.edges.clone() }, now);
        }
    }

    /// Notes what has been counted, once a second at the most.
    pub(crate) fn note(&mut self, counts: Counts, now: Moment) {
        self.forget(now);
        if self.is_due(now) {
            self.noted.push_back(Noted { at: now, counts });
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        self.noted.back().is_none_or(|last| now.since(last.at) >= NOTED_EVERY)
    }

    fn forget(&mut self, now: Moment) {
        while self.noted.get(1).is_some_and(|second| now.since(second.at) >= SPAN) {
            self.noted.pop_front();
        }
    }
}

struct Span {
    micros: f64,
}

impl Span {
    /// Of so many tasks, to three places.
    fn share(&self, now: u64, then: u64, tasks: usize) -> f64 {
        let of = self.micros * tasks.max(1) as f64;
        let share = if of > 0.0 { now.saturating_sub(then) as f64 / of } else { 0.0 };
        (share.min(1.0) * 1_000.0).round() / 1_000.0
    }

    /// To one place.
    fn rate(&self, count: u64) -> f64 {
        let seconds = self.micros / 1_000_000.0;
        let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        (rate * 10.0).round() / 10.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EdgeStatus, OperatorStatus};

    fn counted(rows: u64, busy_us: u64) -> JobStatus {
        let task = TaskStatus { rows_in: rows, busy_us, ..TaskStatus::default() };
        let operator = OperatorStatus { tasks: vec![task; 2], ..OperatorStatus::default() };
        let edge = EdgeStatus { rows, blocked_us: busy_us, ..EdgeStatus::default() };
        JobStatus { operators: vec![operator], edges: vec![edge], ..JobStatus::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_five_seconds_ago_is_taken_off() {
        let mut recent = Recent::new();
        let mut seen = Vec::new();
        // A thousand rows a second, half of the time busy, from the tenth second on nothing.
        for second in 1..=20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let active = second.min(10);
            let mut status = counted(1_000 * active, 500_000 * active);
            recent.fill(&mut status, &[2], Moment::now());
            let (operator, edge) = (&status.operators[0], &status.edges[0]);
            assert_eq!(operator.tasks[0].busy, operator.tasks[1].busy);
            assert_eq!(edge.blocked, (operator.tasks[0].busy * 500.0).round() / 1_000.0, "of two tasks");
            assert_eq!(2.0 * edge.rows_per_s, operator.rows_in_per_s);
            seen.push((status.recent_ms, operator.rows_in_per_s, operator.tasks[0].busy));
        }
        assert_eq!(seen[0], (1_000, 2_000.0, 0.5));
        assert_eq!(seen[8], (5_000, 2_000.0, 0.5));
        assert_eq!(seen[12], (5_000, 800.0, 0.2));
        assert_eq!(seen[19], (5_000, 0.0, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn asked_often_it_notes_once_a_second_and_asked_at_once_it_says_nothing() {
        let mut recent = Recent::new();
        let mut status = counted(5, 5);
        recent.fill(&mut status, &[1], Moment::now());
        assert_eq!((status.recent_ms, status.operators[0].rows_in_per_s), (0, 0.0));
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            recent.fill(&mut counted(5, 5), &[1], Moment::now());
        }
        assert!(recent.noted.len() <= 7, "{}", recent.noted.len());
    }
}
