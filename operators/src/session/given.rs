//! What sessions have given, when they give more than one result.
//!
//! ```text
//!   one key      ├─ 0 ─┤     ├─ 0 ─┤           two sessions have given a result each
//!                ├──── 1 ────┤     │           the first one has grown…
//!                ├─────── 2 ───────┤           …a row between them makes one of them: its result replaces both
//! ```
//!
//! A result replaces those that lie within its bounds, and its revision is greater than all of theirs. So what a session has
//! given is a list of results that no later one has replaced: mostly one, or one for each of the sessions it was made of.
//! The session has changed when more rows have come to it than went into these.
//!
//! The list is saved as it is. A result is found again by its bounds, and in older segments those that were replaced are
//! told by the same rule.

use super::spec::Span;

/// A result that a session has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) span: Span,
    pub(super) revision: i64,
    /// How many rows it was of.
    pub(super) rows: i64,
    /// The save that wrote it, or that will.
    pub(super) save: u32,
}

/// What a session has given, and how many rows have come to it.
#[derive(Debug, Default)]
pub(super) struct Given {
    rows: i64,
    results: Vec<Said>,
    /// How many rows went into these.
    said: i64,
    /// Whether it waits for the watermark to pass it.
    pub(super) waits: bool,
}

impl Given {
    /// Counts rows that have come.
    pub(super) fn count(&mut self, rows: i64) {
        self.rows = self.rows.saturating_add(rows);
    }

    /// How many rows have come since the last result.
    pub(super) fn since(&self) -> i64 {
        self.rows - self.said
    }

    /// Adds what another session has given that is part of this one now.
    pub(super) fn join(&mut self, other: Self) {
        self.count(other.rows);
        self.said = self.said.saturating_add(other.said);
        self.results.extend(other.results);
    }

    /// A result is given now, and replaces all former ones. Returns its revision.
    pub(super) fn give(&mut self, span: Span, save: u32) -> i64 {
        let revision = self.results.iter().map(|said| said.revision.saturating_add(1)).max().unwrap_or(0);
        self.results.clear();
        self.results.push(Said { span, revision, rows: self.rows, save });
        self.said = self.rows;
        revision
    }

    /// The results that no later one has replaced.
    pub(super) fn results(&self) -> &[Said] {
        &self.results
    }

    /// Adds a result that was saved, in any order, unless another has replaced it.
    pub(super) fn restore(&mut self, said: Said) {
        let within = |one: &Said, other: &Said| {
            other.revision > one.revision && other.span.start <= one.span.start && one.span.end <= other.span.end
        };
        if self.results.iter().any(|other| *other == said || within(&said, other)) {
            return;
        }
        self.results.retain(|former| !within(former, &said));
        self.results.push(said);
        self.said = self.results.iter().map(|said| said.rows).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(start: i64, end: i64, revision: i64, rows: i64) -> Said {
        Said { span: Span { start, end }, revision, rows, save: 1 }
    }

    #[test]
    fn a_result_replaces_those_within_it_in_whatever_order_they_are_found() {
        let all = [said(0, 10, 0, 2), said(0, 30, 1, 5), said(40, 50, 0, 1), said(40, 50, 1, 2), said(12, 20, 0, 1)];
        for first in 0..all.len() {
            let mut given = Given::default();
            given.count(9);
            (0..all.len()).for_each(|at| given.restore(all[(first + at) % all.len()]));
            assert_eq!((given.results.len(), given.since()), (2, 2), "from {first}");
            assert_eq!(given.give(Span { start: 0, end: 60 }, 2), 2);
            assert_eq!((given.results.len(), given.since()), (1, 0));
        }
    }

    #[test]
    fn of_two_sessions_the_greater_revision_counts() {
        let (mut one, mut other) = (Given::default(), Given::default());
        one.count(3);
        other.count(1);
        assert_eq!([one.give(Span { start: 0, end: 5 }, 1), one.give(Span { start: 0, end: 6 }, 1)], [0, 1]);
        assert_eq!(other.give(Span { start: 8, end: 9 }, 1), 0);
        other.join(one);
        other.count(1);
        assert_eq!(other.since(), 1);
        assert_eq!(other.give(Span { start: 0, end: 9 }, 2), 2);
    }
}
