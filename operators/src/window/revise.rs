//! When a window that gives more than one result gives them.
//!
//! ```text
//!   rows of a window ───────────────────────────┤ end                        ├ end + lateness
//!                      ▲ early_rows, early_every │ ▲ next watermark           │
//!   results            0        1                2      3 (a correction)      └ dropped: what comes now is late
//! ```
//!
//! Whatever the occasion, groups give a result that have changed since their last one. So the last result of a group is the
//! answer, also when it was an early one, and nothing is said twice.

use std::{collections::BTreeSet, time::Duration};

use arrow::array::RecordBatch;

use super::{Slice, groups::Groups, repeats::Repeats, slices::Slices, table::GroupTable};
use crate::{
    Advance, Outbox, Result, Timestamp,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter},
    time::micros_of,
};

/// The number that says which windows are past their end, when that is not all that are closed.
const PASSED: &str = "passed";

/// The occasions on which windows give results.
pub(super) struct Revise {
    corrections: bool,
    every: Option<Duration>,
    rows: Option<u32>,
    /// Windows that end here or before have given a result at a watermark: no more early ones.
    passed: Timestamp,
    /// The windows with groups that may have changed since their last result, by start.
    changed: BTreeSet<Timestamp>,
    /// When early results are due.
    due: Option<Timestamp>,
}

/// What a result is made of: the groups of a window, or all that is left of it.
pub(super) enum Revision<'a> {
    /// These groups, which stay.
    Of(&'a mut GroupTable, Vec<u32>),
    Last(GroupTable),
}

impl Revise {
    pub(super) fn new(repeats: &Repeats) -> Self {
        Self {
            corrections: repeats.corrections,
            every: repeats.every,
            rows: repeats.rows,
            passed: Timestamp::MIN,
            changed: BTreeSet::new(),
            due: None,
        }
    }

    /// Rows have come to the groups `touched` of a window. Returns those of which so many have come that they give an early
    /// result.
    pub(super) fn came(&mut self, slice: Slice, table: &mut GroupTable, touched: &[usize]) -> Result<Vec<u32>> {
        self.changed.insert(slice.start);
        match self.rows.filter(|_| slice.end > self.passed) {
            Some(rows) => Ok(table.given()?.due_among(touched, rows)),
            None => Ok(Vec::new()),
        }
    }

    /// Asks to be woken for early results, when something has changed.
    pub(super) fn ask(&mut self, out: &mut Outbox) {
        match self.every {
            Some(every) if !self.changed.is_empty() => {
                let due = *self.due.get_or_insert_with(|| next_multiple(out.now(), every));
                out.wake_at(due);
            }
            _ => self.due = None,
        }
    }

    /// Emits the early results that are due by the clock, one window at a time in bounded steps.
    pub(super) fn tick(
        &mut self,
        slices: &mut Slices<Groups>,
        out: &mut Outbox,
        mut result: impl FnMut(Slice, Revision<'_>) -> Result<RecordBatch>,
    ) -> Result<()> {
        if self.due.is_none_or(|due| out.now() < due) {
            self.ask(out);
            return Ok(());
        }
        let mut spent = 0;
        let starts: Vec<Timestamp> = self.changed.iter().copied().collect();
        for start in starts {
            let Some((slice, groups)) = slices.at(start).filter(|(slice, _)| slice.end > self.passed) else { continue };
            if spent >= EMIT_ROWS {
                out.wake_at(out.now());
                return Ok(());
            }
            self.changed.remove(&start);
            let table = groups.table()?;
            let due = table.given()?.changed();
            if !due.is_empty() {
                let rows = result(slice, Revision::Of(table, due))?;
                spent += rows.num_rows();
                emit(&rows, out);
            }
        }
        self.due = None;
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
        let closed = slices.closed();
        let passed = if self.corrections && time < Timestamp::MAX { time } else { closed };
        self.passed = self.passed.max(closed).max(passed);
        let until = if time == Timestamp::MAX { time } else { self.passed };
        slices.leave(time, out, |slices| {
            if let Some((slice, groups)) = slices.take_closed() {
                self.changed.remove(&slice.start);
                return Ok(Some((result(slice, Revision::Last(groups.into_table()?))?, 1)));
            }
            while let Some(start) = self.changed.first().copied() {
                let Some((slice, groups)) = slices.at(start).filter(|(slice, _)| slice.end <= until) else { break };
                self.changed.pop_first();
                let table = groups.table()?;
                let due = table.given()?.changed();
                if !due.is_empty() {
                    return Ok(Some((result(slice, Revision::Of(table, due))?, 1)));
                }
            }
            Ok(None)
        })
    }

    /// Takes down what is not of a group.
    pub(super) fn save(&self, slices: &Slices<Groups>, state: &mut StateWriter<'_>) {
        if self.passed > slices.closed() {
            state.set(PASSED, self.passed.micros());
        }
    }

    /// Goes on where former tasks were, whose windows have been loaded. Windows that are past their end for one of them give
    /// no more early results; those of the others are due at the next watermark.
    pub(super) fn load(&mut self, state: &StateReader, slices: &mut Slices<Groups>) -> Result<()> {
        let passed = state.greatest(false, PASSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        self.passed = passed.max(slices.closed());
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

/// The next time after `now` that is a multiple of `every`: the same for all tasks, and after a restore.
fn next_multiple(now: Timestamp, every: Duration) -> Timestamp {
    let (now, every) = (i128::from(now.micros()), i128::from(micros_of(every).max(1)));
    let next = (now.div_euclid(every) + 1) * every;
    Timestamp::from_micros(next.min(i64::MAX.into()) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_multiple_is_later_as_long_as_there_is_time() {
        let next =
            |now: i64, every: u64| next_multiple(Timestamp::from_micros(now), Duration::from_micros(every)).micros();
        assert_eq!([next(0, 10), next(9, 10), next(10, 10), next(-1, 10)], [10, 10, 20, 0]);
        assert_eq!(next(i64::MIN, 7), (i64::MIN.div_euclid(7) + 1) * 7);
        assert_eq!([next(i64::MAX, 7), next(5, u64::MAX)], [i64::MAX, i64::MAX]);
    }
}
