//! Windows that share slices and give more than one result: what each has given, and when it gives the next.
//!
//! ```text
//!   row ──► its slice (aggregates)        ├────┼──●─┼────┤              held until all windows over it are closed
//!     └───► records of the windows        ├─────────┤                   window × key ─► next revision, rows since the last
//!           over it: one row more              ├─────────┤
//!                                                                       a result: the keys that have changed, of which the
//!                                                                       states of all slices of the window are merged
//! ```
//!
//! A row is aggregated once, in however many windows it is. What has been given is known per window and key, in a *record*,
//! and a record counts rows. So whatever the occasion, a key gives a result of a window when rows have come to it in the
//! window since its last one, and nothing is said twice.
//!
//! A window that has no early results needs no record before its end: then all keys of its slices count as changed. From
//! there on, until it is closed, it has a record of all its keys, in which the late rows are counted. With early results every
//! row is counted in every window over it. So a record that there is has all keys of its window.
//!
//! A result costs a merge of all slices of its window, also of a cumulating one that begins as the one before it does: a late
//! row may have come to any slice of it since.
//!
//! A record is dropped when its window is closed, a slice when all windows over it are. Windows that are cut off at the end
//! of time to the same bounds are one.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound::{Excluded, Unbounded},
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{filter_record_batch, is_null, not, partition},
};

use super::{
    Slice,
    form::{SLICE, WINDOW, WINDOWS_FROM},
    given,
    groups::Groups,
    occasions::{Occasions, passed},
    progress::{closed, fired},
    repeats::Repeats,
    revise::emit,
    slices::Slices,
    table::{GroupTable, Revised, States, Tables},
};
use crate::{
    Advance, OperatorError, Outbox, Result, Timestamp,
    aggregates::Aggregates,
    state::{
        Part, StateForm, StateReader, StateWriter,
        segments::{Changes, Loaded},
    },
    time::times_of,
};

/// The end and the start of a window: windows give their results by their ends.
type ByEnd = (Timestamp, Timestamp);

fn by_end(window: Slice) -> ByEnd {
    (window.end, window.start)
}

/// Before all windows.
const FIRST: ByEnd = (Timestamp::MIN, Timestamp::MIN);

/// What the windows have given, and on which occasions they give more.
pub(super) struct Overlapping {
    occasions: Occasions,
    /// What the keys of a window have given. Of a window that is not in it nothing has been.
    records: BTreeMap<ByEnd, GroupTable>,
    /// The windows with keys that may have changed since their last result.
    changed: BTreeSet<ByEnd>,
    /// The last window that has given the early results which are due by the clock, while others have still to give theirs.
    /// What changes before it waits for the next time, so that each window gets its turn.
    swept: ByEnd,
    /// The windows with keys to which so many rows have come in this batch that they give an early result.
    due: BTreeSet<ByEnd>,
    tables: Tables,
}

/// What results are made of.
pub(super) struct Source<'a> {
    pub(super) slices: &'a mut Slices<Groups>,
    pub(super) tables: &'a mut Tables,
    pub(super) aggregates: &'a Aggregates,
    pub(super) scratch: &'a mut Vec<usize>,
    /// The number of the next save.
    pub(super) next: u32,
}

impl Source<'_> {
    /// The groups of each slice of a window.
    fn states(&mut self, window: Slice) -> Result<Vec<States>> {
        let closed = self.slices.closed();
        let mut all = Vec::new();
        for (slice, groups) in self.slices.within(window) {
            let is_closed = slice.end <= closed;
            let (rows, key, states) = groups.now(is_closed, self.tables, self.aggregates, self.next, self.scratch)?;
            if rows > 0 {
                all.push((rows, key.to_vec(), states.to_vec()));
            }
        }
        Ok(all)
    }
}

impl Overlapping {
    /// `tables` makes tables of groups that give more than one result.
    pub(super) fn new(repeats: &Repeats, tables: Tables) -> Self {
        Self {
            occasions: Occasions::new(repeats),
            records: BTreeMap::new(),
            changed: BTreeSet::new(),
            swept: FIRST,
            due: BTreeSet::new(),
            tables,
        }
    }

    /// Rows of these keys come to a slice, which does not have them yet.
    pub(super) fn come(&mut self, slice: Slice, key: &[ArrayRef], rows: usize, source: &mut Source<'_>) -> Result<()> {
        let windows: Vec<Slice> = source.slices.windows(slice, source.slices.closed()).collect();
        for window in windows {
            self.changed.insert(by_end(window));
            let is_counted = self.occasions.are_early() || window.end <= self.occasions.passed();
            if !is_counted && !self.records.contains_key(&by_end(window)) {
                continue;
            }
            if !self.records.contains_key(&by_end(window)) {
                let slices = source.states(window)?;
                self.add_changed(window, &slices, source.scratch)?;
            }
            let early = self.occasions.rows_until(window.end);
            let record = self.record(window)?;
            record.count(key, rows, source.scratch)?;
            if let Some(early) = early
                && record.given()?.reach(source.scratch, early)
            {
                self.due.insert(by_end(window));
            }
        }
        Ok(())
    }

    /// Emits the early results that are due because of the rows of a batch that have come, one window at a time in bounded
    /// steps. A row is in very many windows if they are much longer than their distance.
    pub(super) fn give_due(
        &mut self,
        source: &mut Source<'_>,
        out: &mut Outbox,
        result: impl Fn(Slice, Revised) -> Result<RecordBatch>,
    ) -> Result<()> {
        let mut spent = 0;
        while let Some((end, start)) = self.due.first().copied() {
            if spent >= out.step() {
                out.again();
                break;
            }
            self.due.pop_first();
            let window = Slice { start, end };
            let Some(rows) = self.occasions.rows_until(end) else { continue };
            let due = self.record(window)?.given()?.due(rows);
            let slices = source.states(window)?;
            if let Some(revised) = self.give(window, due, &slices, source)? {
                let rows = result(window, revised)?;
                spent += rows.num_rows() + slices.len();
                emit(&rows, out);
            }
        }
        self.ask(out);
        Ok(())
    }

    /// Adds to the record of a window the keys of its slices that it does not have. They have changed.
    fn add_changed(&mut self, window: Slice, slices: &[States], scratch: &mut Vec<usize>) -> Result<()> {
        let record = self.record(window)?;
        slices.iter().try_for_each(|(rows, key, _)| record.add_changed(key, *rows, scratch))
    }

    /// The record of a window, which is empty if there was none.
    fn record(&mut self, window: Slice) -> Result<&mut GroupTable> {
        Ok(match self.records.entry(by_end(window)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.tables.table(&Aggregates::default())?),
        })
    }

    /// The result of these keys of a window, which is made of these slices.
    fn give(
        &mut self,
        window: Slice,
        due: Vec<u32>,
        slices: &[States],
        source: &mut Source<'_>,
    ) -> Result<Option<Revised>> {
        let Some(record) = self.records.get_mut(&by_end(window)).filter(|_| !due.is_empty()) else { return Ok(None) };
        let (key, revision) = record.give(&UInt32Array::from(due))?;
        let table = source.tables.passing(source.aggregates)?;
        let values = table.values_of(&key, revision.len(), slices, source.scratch)?;
        Ok(Some(Revised { key, revision, values }))
    }

    /// The result of all keys of a window that have changed, and what it cost to make. If there is no record of it, these
    /// are all keys of its slices.
    fn give_changed(&mut self, window: Slice, source: &mut Source<'_>) -> Result<Option<(Revised, usize)>> {
        self.changed.remove(&by_end(window));
        let is_new = !self.records.contains_key(&by_end(window));
        if !is_new && !self.record(window)?.given()?.has_changed() {
            return Ok(None);
        }
        let slices = source.states(window)?;
        if is_new {
            self.add_changed(window, &slices, source.scratch)?;
        }
        let due = self.record(window)?.given()?.due(1);
        Ok(self.give(window, due, &slices, source)?.map(|result| (result, slices.len())))
    }

    /// Asks to be woken for early results, when something has changed that may give them.
    fn ask(&mut self, out: &mut Outbox) {
        let has_changed = self.changed.last().is_some_and(|(end, _)| *end > self.occasions.passed());
        if !has_changed {
            self.swept = FIRST;
        }
        self.occasions.ask(has_changed, out);
    }

    /// Emits the early results that are due by the clock, one window at a time in bounded steps, in the order of their ends.
    pub(super) fn tick(
        &mut self,
        source: &mut Source<'_>,
        out: &mut Outbox,
        result: impl Fn(Slice, Revised) -> Result<RecordBatch>,
    ) -> Result<()> {
        if !self.occasions.are_due(out) {
            self.ask(out);
            return Ok(());
        }
        self.swept = self.swept.max((self.occasions.passed(), Timestamp::MAX));
        let mut spent = 0;
        while let Some(&(end, start)) = self.changed.range((Excluded(self.swept), Unbounded)).next() {
            if spent >= out.step() {
                out.wake_at(out.now());
                return Ok(());
            }
            self.swept = (end, start);
            let window = Slice { start, end };
            if let Some((revised, cost)) = self.give_changed(window, source)? {
                let rows = result(window, revised)?;
                spent += rows.num_rows() + cost;
                emit(&rows, out);
            }
        }
        self.swept = FIRST;
        self.occasions.given();
        self.ask(out);
        Ok(())
    }

    /// Emits what is due when event time has come to `time`: the first results of windows, and corrections. Then drops what
    /// is closed.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        source: &mut Source<'_>,
        out: &mut Outbox,
        result: impl Fn(Slice, Revised) -> Result<RecordBatch>,
    ) -> Result<Advance> {
        let Source { slices, tables, aggregates, scratch, next } = source;
        slices.close(time);
        let until = self.occasions.pass(time, slices.closed());
        slices.leave(time, out, |slices| {
            let source = &mut Source { slices, tables, aggregates, scratch, next: *next };
            while let Some(&(end, start)) = self.changed.first().filter(|(end, _)| *end <= until) {
                let window = Slice { start, end };
                if let Some((revised, cost)) = self.give_changed(window, source)? {
                    return Ok(Some((result(window, revised)?, cost)));
                }
            }
            let closed = source.slices.closed();
            while self.records.first_key_value().is_some_and(|((end, _), _)| *end <= closed) {
                self.records.pop_first();
            }
            source.slices.drop_closed();
            Ok(None)
        })
    }

    /// Finds out what has changed since the last save, and takes down what is not of a window.
    pub(super) fn save(
        &mut self,
        closed: Timestamp,
        now: u32,
        changes: &mut Changes,
        scratch: &mut Vec<usize>,
        state: &mut StateWriter<'_>,
    ) -> Result<()> {
        if !self.due.is_empty() {
            return Err(OperatorError::Internal("windows were saved with early results half-way out".into()));
        }
        self.occasions.save(closed, state);
        // They are dropped by their ends.
        let first = self.records.first_key_value().map(|((end, _), _)| end.micros());
        state.set(WINDOWS_FROM, first.unwrap_or(closed.micros().saturating_add(1)));
        self.records.values_mut().try_for_each(|record| record.save(&Aggregates::default(), now, changes, scratch))
    }

    /// The records of all windows.
    pub(super) fn records(&mut self) -> impl Iterator<Item = (Slice, &mut GroupTable)> {
        self.records.iter_mut().map(|(&(end, start), record)| (Slice { start, end }, record))
    }

    /// Takes the records out of the rows of a segment, which are of the save `save`; `leading` columns are before the key,
    /// of `keys` columns. Returns the rows of slices.
    pub(super) fn restore(
        &mut self,
        part: &Part,
        rows: &RecordBatch,
        (leading, keys): (usize, usize),
        save: u32,
        scratch: &mut Vec<usize>,
    ) -> Result<RecordBatch> {
        let is_slice = is_null(rows.column(WINDOW))?;
        let records = filter_record_batch(rows, &not(&is_slice)?)?;
        if records.num_rows() > 0 {
            let bounds = [SLICE, WINDOW].map(|column| records.column(column).clone());
            for range in partition(&bounds)?.ranges() {
                let rows = records.slice(range.start, range.len());
                let at = |column| Ok::<_, OperatorError>(Timestamp::from_micros(times_of(&rows, column)?[0]));
                let window = Slice { start: at(SLICE)?, end: at(WINDOW)? };
                if window.end <= fired(part) {
                    continue;
                }
                let record = self.record(window)?;
                let key = &rows.columns()[leading..leading + keys];
                let given = &rows.columns()[rows.num_columns() - given::COLUMNS..];
                record.restore(key, given, rows.num_rows(), save, scratch)?;
            }
        }
        Ok(filter_record_batch(rows, &is_slice)?)
    }

    /// Goes on where former tasks were, whose slices and records have been loaded. Windows that are past their end for one
    /// of them are for all; the keys of the others have yet to get their first result.
    pub(super) fn load(
        &mut self,
        state: &StateReader,
        parts: &[Loaded<'_>],
        (leading, keys): (usize, usize),
        form: &StateForm,
        source: &mut Source<'_>,
    ) -> Result<()> {
        self.occasions.load(state, source.slices.closed());
        let until = self.occasions.passed();
        for former in parts {
            let since = passed(former.part, closed(former.part));
            if since >= until {
                continue;
            }
            for (_, rows) in &former.segments {
                let rows = form.widen(rows)?;
                let rows = filter_record_batch(&rows, &is_null(rows.column(WINDOW))?)?;
                for (slice, selection) in source.slices.saved_parts(former.part, &rows, SLICE)? {
                    let rows = selection.batch(&rows)?;
                    let key = &rows.columns()[leading..leading + keys];
                    for window in source.slices.windows(slice, since).filter(|window| window.end <= until) {
                        self.record(window)?.add_changed(key, rows.num_rows(), source.scratch)?;
                    }
                }
            }
        }
        if parts.len() > 1 {
            // Under other occasions one of them may have kept a record of a window, and another none.
            let early = self.records.keys().filter(|(end, _)| *end > until);
            for (end, start) in early.copied().collect::<Vec<_>>() {
                let window = Slice { start, end };
                let slices = source.states(window)?;
                self.add_changed(window, &slices, source.scratch)?;
            }
        }
        let held: Vec<Slice> = source.slices.held().map(|(slice, _)| slice).collect();
        let mut reached = until;
        for slice in held {
            // Windows over a later slice that end before are also over this one.
            for window in source.slices.windows(slice, reached) {
                self.changed.insert(by_end(window));
                reached = window.end;
            }
        }
        for (window, record) in &mut self.records {
            match record.given()?.has_changed() {
                true => self.changed.insert(*window),
                false => self.changed.remove(window),
            };
        }
        Ok(())
    }

    /// The bytes they hold.
    pub(super) fn size(&self) -> usize {
        self.records.values().map(GroupTable::size).sum()
    }
}
