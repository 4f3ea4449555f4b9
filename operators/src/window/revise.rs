//! When a window that is one slice and gives more than one result gives them.
//!
//! ```text
//!   rows of a window ───────────────────────────┤ end                        ├ end + lateness
//!                      ▲ early_rows, early_every │ ▲ next watermark           │
//!   results            0        1                2      3 (a correction)      └ dropped: what comes now is late
//! ```
//!
//! Whatever the occasion, groups give a result that have changed since their last one. So the last result of a group is the
//! answer, also when it was an early one, and nothing is said twice. For windows of several slices see `overlapping`.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

use arrow::array::RecordBatch;

use super::{Slice, groups::Groups, occasions::Occasions, repeats::Repeats, slices::Slices, table::GroupTable};
use crate::{
    Advance, Outbox, Result, Timestamp,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter},
};

/// The windows that give more than one result, and on which occasions.
pub(super) struct Revise {
    occasions: Occasions,
    /// The windows with groups that may have changed since their last result, by start.
    changed: BTreeSet<Timestamp>,
    /// The last window that has given the early results which are due by the clock, while others have still to give theirs.
    /// What changes before it waits for the next time, so that each window gets its turn.
    swept: Option<Timestamp>,
}

/// What a result is made of: the groups of a window, or all that is left of it.
pub(super) enum Revision<'a> {
    /// These groups, which stay.
    Of(&'a mut GroupTable, Vec<u32>),
    Last(GroupTable),
}

impl Revise {
    pub(super) fn new(repeats: &Repeats) -> Self {
        Self { occasions: Occasions::new(repeats), changed: BTreeSet::new(), swept: None }
    }

    /// Rows have come to the groups `touched` of a window. Returns those of which so many have come that they give an early
    /// result.
    pub(super) fn came(&mut self, slice: Slice, table: &mut GroupTable, touched: &[usize]) -> Result<Vec<u32>> {
        self.changed.insert(slice.start);
        match self.occasions.rows_until(slice.end) {
            Some(rows) => Ok(table.given()?.due_among(touched, rows)),
            None => Ok(Vec::new()),
        }
    }

    /// Asks to be woken for early results, when something has changed.
    pub(super) fn ask(&mut self, out: &mut Outbox) {
        if self.changed.is_empty() {
            self.swept = None;
        }
        self.occasions.ask(!self.changed.is_empty(), out);
    }

    /// Emits the early results that are due by the clock, one window at a time in bounded steps, from the first to the last.
    pub(super) fn tick(
        &mut self,
        slices: &mut Slices<Groups>,
        out: &mut Outbox,
        mut result: impl FnMut(Slice, Revision<'_>) -> Result<RecordBatch>,
    ) -> Result<()> {
        if !self.occasions.are_due(out) {
            self.ask(out);
            return Ok(());
        }
        let passed = self.occasions.passed();
        let mut spent = 0;
        while let Some(&start) = self.changed.range((self.swept.map_or(Unbounded, Excluded), Unbounded)).next() {
            if spent >= out.step() {
                out.wake_at(out.now());
                return Ok(());
            }
            self.swept = Some(start);
            let Some((slice, groups)) = slices.at(start).filter(|(slice, _)| slice.end > passed) else { continue };
            self.changed.remove(&start);
            let table = groups.table()?;
            let due = table.given()?.due(1);
            if !due.is_empty() {
                let rows = result(slice, Revision::Of(table, due))?;
                spent += rows.num_rows();
                emit(&rows, out);
            }
        }
        self.swept = None;
        self.occasions.given();
        // What has changed meanwhile. The last one ends last.
        let last = self.changed.last().and_then(|start| slices.at(*start));
        self.occasions.ask(last.is_some_and(|(slice, _)| slice.end > passed), out);
        Ok(())
    }

    /// Emits what is due when event time has come to `time`: the first results of windows, and corrections. Drops the
    /// windows that are closed.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        slices: &mut Slices<Groups>,
        out: &mut Outbox,
        mut result: impl FnMut(Slice, Revision<'_>) -> Result<RecordBatch>,
    ) -> Result<Advance> {
        slices.close(time);
        let until = self.occasions.pass(time, slices.closed());
        slices.leave(time, out, |slices| {
            if let Some((slice, groups)) = slices.take_closed() {
                self.changed.remove(&slice.start);
                return Ok(Some((result(slice, Revision::Last(groups.into_table()?))?, 1)));
            }
            while let Some(start) = self.changed.first().copied() {
                let Some((slice, groups)) = slices.at(start).filter(|(slice, _)| slice.end <= until) else { break };
                self.changed.pop_first();
                let table = groups.table()?;
                let due = table.given()?.due(1);
                if !due.is_empty() {
                    return Ok(Some((result(slice, Revision::Of(table, due))?, 1)));
                }
            }
            Ok(None)
        })
    }

    /// Takes down what is not of a group.
    pub(super) fn save(&self, slices: &Slices<Groups>, state: &mut StateWriter<'_>) {
        self.occasions.save(slices.closed(), state);
    }

    /// Goes on where former tasks were, whose windows have been loaded. Windows that are past their end for one of them give
    /// no more early results; those of the others are due at the next watermark.
    pub(super) fn load(&mut self, state: &StateReader, slices: &mut Slices<Groups>) -> Result<()> {
        self.occasions.load(state, slices.closed());
        for (slice, groups) in slices.held() {
            if groups.table()?.given()?.has_changed() {
                self.changed.insert(slice.start);
            }
        }
        Ok(())
    }
}

/// Emits a result in batches of a bounded size.
pub(super) fn emit(rows: &RecordBatch, out: &mut Outbox) {
    for offset in (0..rows.num_rows()).step_by(EMIT_ROWS) {
        out.emit(rows.slice(offset, EMIT_ROWS.min(rows.num_rows() - offset)));
    }
}
