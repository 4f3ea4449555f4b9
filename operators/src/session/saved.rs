//! Sessions on their way to a checkpoint and back.
//!
//! ```text
//!   frozen table ──save──► its living fragments, once, as a segment; then only its name
//!   segments of a task ──load──► all fragments by key and time ──those that overlap──► sessions
//! ```
//!
//! A segment keeps the fragments of sessions that have given their result since it was sealed. They do not come back:
//! what is found at load of such a session lies within its span and ends at `fired` or before, and no other session of
//! the key overlaps that span. (For this a row that is behind `closed` may only fall *into* an open session: one that
//! began a session, or made it begin earlier, could overlap one that is gone.)

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take,
};

use super::{
    fragments::{Fragments, Frozen},
    keys::{Keys, RowKeys},
    open::Sessions,
    plan::{END, LEADING, START, Shared},
    spec::Span,
};
use crate::{
    OperatorError, Result, Timestamp,
    key::comparable,
    state::{
        Part, StateReader, StateWriter,
        segments::{key_group_column, own_bytes},
    },
    time::event_times,
};

/// The number that says how far event time had come.
pub(super) const CLOSED: &str = "closed";
/// The number that says up to where sessions have given their result, when that is not so far: a task that was restored
/// from several may have closed sessions that the next watermark lets out.
pub(super) const FIRED: &str = "fired";

pub(super) fn save_times(closed: Timestamp, fired: Timestamp, state: &mut StateWriter<'_>) {
    state.set(CLOSED, closed.micros());
    if fired < closed {
        state.set(FIRED, fired.micros());
    }
}

/// How far event time had come, and up to where sessions have given their result. Former tasks stood at the same time,
/// or, when inputs fell idle, one was ahead: its sessions have given their only result, so the greatest time counts.
pub(super) fn load_times(state: &StateReader) -> (Timestamp, Timestamp) {
    let closed = state.greatest(false, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
    (closed, with_segments(state).map(fired).min().unwrap_or(closed))
}

fn with_segments(state: &StateReader) -> impl Iterator<Item = &Part> {
    state.parts.iter().filter(|part| !part.segments.is_empty())
}

/// Up to where sessions of a former task have given their result.
fn fired(part: &Part) -> Timestamp {
    let number = part.numbers.get(FIRED).or_else(|| part.numbers.get(CLOSED));
    number.copied().map_or(Timestamp::MIN, Timestamp::from_micros)
}

/// Names the tables that have been sealed and seals the others. The current one has been frozen.
pub(super) fn save(
    plan: &Shared,
    keys: &Keys,
    sessions: &Sessions,
    fragments: &mut Fragments,
    state: &mut StateWriter<'_>,
) -> Result<()> {
    for table in fragments.frozen() {
        match table.sealed {
            Some(id) => state.keep(id),
            None => table.sealed = Some(state.seal(segment(plan, keys, sessions, table)?)),
        }
    }
    Ok(())
}

/// The living fragments of a table.
fn segment(plan: &Shared, keys: &Keys, sessions: &Sessions, table: &Frozen) -> Result<RecordBatch> {
    let living: Vec<(u32, Span, u32)> = table.living().collect();
    let key = keys.columns(living.iter().map(|(_, _, owner)| sessions.slots[*owner as usize].key.as_ref()))?;
    let times = |time: fn(Span) -> i64| Timestamp::column(living.iter().map(|(_, span, _)| time(*span)).collect());
    let mut columns = vec![key_group_column(&key, living.len())?, times(|span| span.start), times(|span| span.end)];
    columns.extend(key);
    if table.all_live() {
        columns.extend(table.states().iter().cloned());
    } else {
        let rows = UInt32Array::from_iter_values(living.iter().map(|(row, _, _)| *row));
        for state in table.states() {
            columns.push(own_bytes(take(state, &rows, None)?));
        }
    }
    Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
}

/// Finds the sessions again that former tasks left.
///
/// The segments of one former task are kept. Those of several are written again at the next save, once: their dead
/// fragments are told by different times.
pub(super) fn load(
    plan: &Shared,
    keys: &Keys,
    sessions: &mut Sessions,
    fragments: &mut Fragments,
    state: &StateReader,
) -> Result<()> {
    let is_one = with_segments(state).count() == 1;
    for part in with_segments(state) {
        let mut tables = Vec::new();
        for (id, rows) in &part.segments {
            let rows = plan.form.widen(rows)?;
            let (starts, ends) = event_times(&rows, START)
                .zip(event_times(&rows, END))
                .ok_or_else(|| OperatorError::Internal("a fragment of a session has no time".into()))?;
            let spans: Vec<Span> = starts.iter().zip(ends).map(|(&start, &end)| Span { start, end }).collect();
            let (key, states) = rows.columns()[LEADING..].split_at(plan.key.len());
            let key: Vec<ArrayRef> = key.iter().map(comparable).collect();
            let table = fragments.restore(states.to_vec(), spans.clone(), is_one.then_some(*id));
            tables.push(Table { number: table, keys: keys.rows(&key)?, spans });
        }
        join(&tables, fired(part).micros(), sessions, fragments);
    }
    if !is_one {
        fragments.merge_all(sessions, &plan.aggregates)?;
    }
    Ok(())
}

struct Table {
    number: u64,
    keys: RowKeys,
    spans: Vec<Span>,
}

/// Makes sessions of the fragments of a former task, without those of sessions that had given their result.
fn join(tables: &[Table], fired: i64, sessions: &mut Sessions, fragments: &mut Fragments) {
    let rows = tables.iter().enumerate().flat_map(|(table, t)| (0..t.spans.len()).map(move |row| (table, row)));
    let mut rows: Vec<(usize, usize)> = rows.collect();
    let key = |&(table, row): &(usize, usize)| tables[table].keys.of(row);
    let span = |&(table, row): &(usize, usize)| tables[table].spans[row];
    rows.sort_unstable_by(|a, b| (key(a), span(a).start).cmp(&(key(b), span(b).start)));
    let mut rest = &rows[..];
    while let Some(first) = rest.first() {
        let mut whole = span(first);
        let others = rest[1..].iter().take_while(|row| {
            let belongs = key(row) == key(first) && span(row).start < whole.end;
            if belongs {
                whole = whole.hull(span(row));
            }
            belongs
        });
        let (own, others) = rest.split_at(1 + others.count());
        rest = others;
        if whole.end > fired {
            let slot = sessions.restore(key(first), whole, Vec::new());
            let own = own.iter().map(|&(table, row)| (tables[table].number, row as u32));
            sessions.slots[slot as usize].fragments = fragments.own(own, slot);
        }
    }
}
