//! Batches and watermarks through the partial matches of all keys.
//!
//! ```text
//!   rows ──► by key ──► Matching of each ──► matches ──► MAIN
//!                           │
//!                           └─ rows since the first partial match of a key ──► TimedRows ──► checkpoint
//!   watermark ──► keys whose first partial match is over ──► matches ──► MAIN
//! ```

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, new_null_array},
    compute::take,
};

use super::{
    condition::Candidates,
    keys::Keys,
    matching::Match,
    partial::Taken,
    plan::{Shared, Told},
    stored::{self, LEADING},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    key::{
        bytes::Key,
        encoded::{ByKey, Grouped, KeyEncoder},
    },
    late::set_late_aside,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter, bounded::cut, timed::TimedRows},
    time::times_of,
};

/// The number that counts rows.
const ROWS: &str = "rows";

/// How many rows are looked at again at once.
const LOOK_ROWS: usize = 65_536;

/// Finds a pattern in the rows of each key.
pub struct PatternMatch {
    plan: Arc<Shared>,
    encoder: KeyEncoder,
    keys: Keys,
    /// The rows that partial matches are made of, and marks.
    rows: TimedRows<()>,
    /// The number of the next row.
    next: i64,
    /// Rows earlier than this are late.
    closed: Timestamp,
    /// Matches on their way out.
    leaving: VecDeque<(Key, Match)>,
}

/// A mark to be stored: the key, the number from which its rows count, and an event time.
type Mark = (Key, i64, i64);

impl PatternMatch {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            encoder: plan.key_encoder()?,
            keys: Keys::default(),
            rows: TimedRows::new(stored::STORED, LEADING + plan.time, |_| Ok(())),
            next: 0,
            closed: Timestamp::MIN,
            leaving: VecDeque::new(),
            plan,
        })
    }

    fn look_at(&mut self, batch: &RecordBatch, out: &mut Outbox) -> Result<()> {
        let plan = self.plan.clone();
        let times = times_of(batch, self.plan.time)?;
        let keys = self.encoder.encode(&plan.key_columns(batch))?;
        let candidates = Candidates::new(&plan, batch)?;
        let first = self.next;
        self.next = first.saturating_add(times.len() as i64);
        let (mut found, mut matches, mut needed, mut marks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for rows in Grouped::new(&keys, 0..times.len()).rows() {
            let key = keys.get(rows[0] as usize);
            if !rows.iter().any(|&row| candidates.may_begin(row as usize)) && !self.keys.contains(key) {
                continue;
            }
            self.keys.look_at(&plan, key, |key, matching| {
                for &row in rows {
                    let at = (row as usize, first + i64::from(row), times[row as usize]);
                    matching.take(&plan, &candidates, at, &mut found)?;
                }
                matches.extend(found.drain(..).map(|found| (key.clone(), found)));
                let start = matching.start().map(|(start, _)| start);
                let skipped = std::mem::take(&mut matching.skipped);
                if matching.stored && start.is_none_or(|start| skipped || start >= first) {
                    marks.push((key.clone(), start.unwrap_or(self.next), matching.last_time));
                }
                if let Some(start) = start {
                    needed.extend(rows.iter().filter(|&&row| first + i64::from(row) >= start));
                    matching.stored = true;
                }
                Ok(())
            })?;
        }
        needed.sort_unstable();
        self.rows.push(&stored::rows(&plan, batch, &needed, first)?)?;
        self.mark(&marks)?;
        self.emit(&matches, out)
    }

    fn emit(&self, matches: &[(Key, Match)], out: &mut Outbox) -> Result<()> {
        let size = |(key, found): &(Key, Match)| key.len() + found.taken.iter().map(Taken::size).sum::<usize>();
        for some in cut(matches.iter().map(size), EMIT_ROWS) {
            out.emit(self.results(&matches[some])?);
        }
        Ok(())
    }

    fn mark(&mut self, marks: &[Mark]) -> Result<()> {
        for some in cut(marks.iter().map(|(key, ..)| key.len()), usize::MAX) {
            let marks = &marks[some];
            let keys = self.encoder.decode(marks.iter().map(|(key, ..)| &**key))?;
            let numbered: Vec<_> =
                marks.iter().zip(self.next..).map(|((_, from, at), own)| (own, *from, *at)).collect();
            self.next = self.next.saturating_add(marks.len() as i64);
            self.rows.push(&stored::marks(&self.plan, &keys, &numbered)?)?;
        }
        Ok(())
    }

    /// Decides what is over at `time`, until there is enough to emit. Returns whether that was all.
    fn close(&mut self, time: Timestamp, enough: usize) -> Result<bool> {
        let plan = self.plan.clone();
        let end_of_input = time == Timestamp::MAX;
        let is_over = |start| end_of_input || plan.is_over(start, time.micros());
        let mut marks = Vec::new();
        let mut found = Vec::new();
        let all = loop {
            let Some((_, key)) = self.keys.first().filter(|(start, _)| is_over(*start)) else { break true };
            if self.leaving.len() >= enough {
                break false;
            }
            let key = key.clone();
            if !self.keys.contains(&key) {
                return Err(OperatorError::Internal("a key of a pattern was lost".into()));
            }
            self.keys.look_at(&plan, &key, |key, matching| {
                matching.close(&plan, is_over, &mut found);
                self.leaving.extend(found.drain(..).map(|found| (key.clone(), found)));
                // Rows that were skipped may begin nothing, and the match that tells it will be gone before they are.
                let rows_remain = matching.last_time >= plan.horizon(time).micros();
                if std::mem::take(&mut matching.skipped) && matching.stored && rows_remain && !end_of_input {
                    let from = matching.start().map_or(self.next, |(start, _)| start);
                    marks.push((key.clone(), from, matching.last_time));
                }
                Ok(())
            })?;
        };
        self.mark(&marks)?;
        Ok(all)
    }

    /// The rows of matches.
    fn results(&self, matches: &[(Key, Match)]) -> Result<RecordBatch> {
        let instants = |of: fn(&Match) -> i64| Timestamp::column(matches.iter().map(|(_, found)| of(found)).collect());
        let mut columns = vec![instants(|found| found.start), instants(|found| found.end)];
        columns.extend(self.encoder.decode(matches.iter().map(|(key, _)| &**key))?);
        for measure in &self.plan.measures {
            columns.push(match *measure {
                Told::First(step, place) => self.value(matches, place, |found| found.taken[step].first.as_deref())?,
                Told::Last(step, place) => self.value(matches, place, |found| found.taken[step].last.as_deref())?,
                Told::Count(step) => {
                    let count = |(_, found): &(Key, Match)| i64::try_from(found.taken[step].count).unwrap_or(i64::MAX);
                    Arc::new(Int64Array::from_iter_values(matches.iter().map(count)))
                }
            });
        }
        columns.push(instants(|found| found.time));
        Ok(RecordBatch::try_new(self.plan.output.columns().clone(), columns)?)
    }

    /// A column of a row that each match took, or of none.
    fn value(&self, matches: &[(Key, Match)], place: usize, row: impl Fn(&Match) -> Option<&[u8]>) -> Result<ArrayRef> {
        let mut rows = Vec::with_capacity(matches.len());
        let mut at = Vec::with_capacity(matches.len());
        for (_, found) in matches {
            let row = row(found);
            at.push(row.map(|_| rows.len() as u32));
            rows.extend(row);
        }
        if rows.is_empty() {
            return Ok(new_null_array(self.plan.kept.data_type(place), matches.len()));
        }
        let values = self.plan.kept.columns(rows.into_iter())?.swap_remove(place);
        Ok(take(&values, &UInt32Array::from(at), None)?)
    }

    /// Makes the partial matches of what is stored. What is decided on the way has been emitted.
    fn look_again(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        let (mut stored, marks) = stored::apart(&self.rows)?;
        let mut from: ByKey<Key, i64> = ByKey::default();
        for marks in &marks {
            let (keys, numbers) = stored::told(&plan, marks);
            let keys = self.encoder.encode(&keys)?;
            for (mark, &number) in numbers.values().iter().enumerate() {
                let from = from.entry(keys.get(mark).into()).or_insert(number);
                *from = number.max(*from);
            }
        }
        while let Some(rows) = stored.take(LOOK_ROWS)? {
            let (rows, numbers) = stored::numbered(&plan, &rows)?;
            let times = times_of(&rows, plan.time)?;
            let keys = self.encoder.encode(&plan.key_columns(&rows))?;
            let candidates = Candidates::new(&plan, &rows)?;
            for rows in Grouped::new(&keys, 0..times.len()).rows() {
                let key = keys.get(rows[0] as usize);
                let from = from.get(key).copied().unwrap_or(i64::MIN);
                self.keys.look_at(&plan, key, |_, matching| {
                    for row in rows.iter().map(|row| *row as usize).filter(|&row| numbers.value(row) >= from) {
                        matching.take(&plan, &candidates, (row, numbers.value(row), times[row]), &mut Vec::new())?;
                    }
                    (matching.stored, matching.skipped) = (true, false);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl Operator for PatternMatch {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        // Just restored from tasks of which one was behind, rows come that wait in the sort since then.
        let batch = set_late_aside(batch, self.plan.time, |time| time < self.closed.micros(), Port::LATE, out)?;
        out.processed(batch.num_rows());
        if batch.num_rows() > 0 {
            self.look_at(&batch, out)?;
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.closed = self.closed.max(time);
        let all = self.close(time, out.step())?;
        let some = self.leaving.len().min(out.step());
        if some > 0 {
            let matches: Vec<_> = self.leaving.drain(..some).collect();
            self.emit(&matches, out)?;
        }
        if !all || !self.leaving.is_empty() {
            return Ok(Advance::Again);
        }
        if time == Timestamp::MAX {
            self.rows.take_all()?;
            return Ok(Advance::Promise(time));
        }
        self.rows.evict_before(self.plan.horizon(time))?;
        let held = self.keys.held().map_or(time, Timestamp::from_micros);
        Ok(Advance::Promise(held.min(time)))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.leaving.is_empty() {
            return Err(OperatorError::Internal("a pattern was saved with matches half-way out".into()));
        }
        state.set(ROWS, self.next);
        let plan = &self.plan;
        self.rows.save(state, |rows| stored::segment(plan, rows))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.next = state.greatest(false, ROWS).unwrap_or(0);
        let plan = self.plan.clone();
        self.rows.load(state, |segment| stored::of_segment(&plan, segment).map(Some))?;
        self.look_again()
    }

    fn size(&self) -> usize {
        let leaving = size_of::<Match>() + self.plan.steps.steps.len() * size_of::<Taken>();
        self.keys.size() + self.rows.size() + self.leaving.len() * leaving
    }
}
