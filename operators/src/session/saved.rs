//! Sessions on their way to a checkpoint and back.
//!
//! ```text
//!   frozen table ──save──► its living fragments, once, as a segment; then only its name
//!   segments of a task ──load──► all fragments by key and time ──those that overlap──► sessions
//! ```
//!
//! What sessions have given, when there is more than one result, is in segments of its own: see `given`.
//!
//! A segment keeps the fragments of sessions that have given their result since it was sealed. They do not come back:
//! what is found at load of such a session lies within its span and ends at `fired` or before, and no other session of
//! the key overlaps that span. (For this a row that is behind `closed` may only fall *into* an open session: one that
//! began a session, or made it begin earlier, could overlap one that is gone.)

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array},
    compute::take,
    datatypes::{DataType, Int64Type},
};

use super::{
    fragments::{Fragments, Frozen},
    given::Said,
    open::Sessions,
    plan::{END, LEADING, START, Shared},
    spec::Span,
};
use crate::{
    Result, Timestamp,
    key::encoded::{KeyBytes, KeyEncoder},
    state::{
        Part, StateReader, StateWriter,
        bounded::{SEGMENT_ROWS, bytes_of, cut},
        segments::{Changes, Loaded, Segments, key_group_column, own_bytes},
    },
    time::times_of,
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
    keys: &KeyEncoder,
    sessions: &Sessions,
    fragments: &mut Fragments,
    state: &mut StateWriter<'_>,
) -> Result<()> {
    for table in fragments.frozen() {
        if table.sealed.is_empty() {
            let segments = segments(plan, keys, sessions, table)?;
            table.sealed = segments.into_iter().map(|segment| state.seal(segment)).collect();
        } else {
            table.sealed.iter().for_each(|id| state.keep(*id));
        }
    }
    Ok(())
}

/// The living fragments of a table, in as many segments as they need.
fn segments(plan: &Shared, keys: &KeyEncoder, sessions: &Sessions, table: &Frozen) -> Result<Vec<RecordBatch>> {
    let living: Vec<(u32, Span, u32)> = table.living().collect();
    // The states are in one table: they fit. With keys of any length besides they may not.
    let state = bytes_of(table.states()) / living.len().max(1);
    let sizes = living.iter().map(|(_, _, owner)| state + sessions.slots[*owner as usize].key.len());
    let ranges = cut(sizes, usize::MAX);
    ranges.into_iter().map(|range| segment(plan, keys, sessions, table, &living[range])).collect()
}

fn segment(
    plan: &Shared,
    keys: &KeyEncoder,
    sessions: &Sessions,
    table: &Frozen,
    living: &[(u32, Span, u32)],
) -> Result<RecordBatch> {
    let key = keys.decode(living.iter().map(|(_, _, owner)| sessions.slots[*owner as usize].key.as_ref()))?;
    let times = |time: fn(Span) -> i64| Timestamp::column(living.iter().map(|(_, span, _)| time(*span)).collect());
    let mut columns = vec![key_group_column(&key, living.len())?, times(|span| span.start), times(|span| span.end)];
    columns.extend(key);
    if table.states().first().is_some_and(|all| all.len() == living.len()) {
        columns.extend(table.states().iter().cloned());
    } else {
        let rows = UInt32Array::from_iter_values(living.iter().map(|(row, _, _)| *row));
        for state in table.states() {
            columns.push(own_bytes(take(state, &rows, None)?));
        }
    }
    if plan.revised {
        let rows = living.iter().map(|(row, ..)| table.rows()[*row as usize]);
        columns.push(Arc::new(Int64Array::from_iter_values(rows)));
        columns.push(new_null_array(&DataType::Int64, living.len()));
    }
    Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
}

/// Seals the results that sessions have given since the last save and that no later one has replaced.
pub(super) fn save_given(
    plan: &Shared,
    keys: &KeyEncoder,
    sessions: &Sessions,
    segments: &mut Segments,
    state: &mut StateWriter<'_>,
) -> Result<()> {
    segments.begin();
    let mut changes = Changes::new();
    for (_, said) in given(sessions) {
        *changes.entry(said.save).or_default() += 1;
    }
    segments.finish(state, &changes, |since| {
        let all: Vec<(&[u8], &Said)> = given(sessions).filter(|(_, said)| said.save > since).collect();
        let ranges = cut(all.iter().map(|(key, _)| key.len()), SEGMENT_ROWS);
        ranges.into_iter().map(|range| given_segment(plan, keys, &all[range])).collect()
    })
}

/// Results, each with the key of its session.
fn given_segment(plan: &Shared, keys: &KeyEncoder, all: &[(&[u8], &Said)]) -> Result<RecordBatch> {
    let key = keys.decode(all.iter().map(|(key, _)| *key))?;
    let times = |time: fn(&Said) -> i64| Timestamp::column(all.iter().map(|(_, said)| time(said)).collect());
    let numbers = |number: fn(&Said) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, said)| number(said))))
    };
    let mut columns =
        vec![key_group_column(&key, all.len())?, times(|said| said.span.start), times(|said| said.span.end)];
    columns.extend(key);
    let fields = plan.form.columns.fields();
    let states = &fields[columns.len()..fields.len() - GIVEN];
    columns.extend(states.iter().map(|state| new_null_array(state.data_type(), all.len())));
    columns.extend([numbers(|said| said.rows), numbers(|said| said.revision)]);
    Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
}

/// What open sessions have given, each with its key.
fn given(sessions: &Sessions) -> impl Iterator<Item = (&[u8], &Said)> {
    sessions.open().flat_map(|session| {
        let results = session.given.iter().flat_map(|given| given.results());
        results.map(|said| (session.key.as_ref(), said))
    })
}

/// How many columns there are behind the states, if sessions give more than one result.
const GIVEN: usize = 2;

/// The state of fragments, and that of results that have been given. When there are several former tasks both are told by
/// segments without rows in the place of the others: segments are kept of one task only, whatever is in them.
pub(super) fn split(state: &StateReader) -> (StateReader, StateReader) {
    let is_given = |rows: &RecordBatch| {
        let revision = rows.columns().last();
        revision.is_some_and(|revision| !revision.is_empty() && revision.null_count() == 0)
    };
    let is_one = with_segments(state).count() == 1;
    let only = |given: bool| {
        let mut state = state.clone();
        for part in &mut state.parts {
            match is_one {
                true => part.segments.retain(|(_, rows)| is_given(rows) == given),
                false => {
                    let others = part.segments.iter_mut().filter(|(_, rows)| is_given(rows) != given);
                    others.for_each(|(_, rows)| *rows = rows.slice(0, 0));
                }
            }
        }
        state
    };
    (only(false), only(true))
}

/// Gives sessions back the results that they had given. Those of others, which were complete, are passed over.
pub(super) fn load_given(
    plan: &Shared,
    keys: &KeyEncoder,
    sessions: &mut Sessions,
    given: &[Loaded<'_>],
) -> Result<()> {
    for (save, rows) in given.iter().flat_map(|former| &former.segments) {
        let rows = plan.form.widen(rows)?;
        let (starts, ends) = (times_of(&rows, START)?, times_of(&rows, END)?);
        let key = keys.encode(&rows.columns()[LEADING..][..plan.key.len()])?;
        let number = |from_last: usize| rows.column(rows.num_columns() - from_last).as_primitive::<Int64Type>();
        let (counts, revisions) = (number(2), number(1));
        for row in 0..rows.num_rows() {
            let span = Span { start: starts[row], end: ends[row] };
            let session = sessions.spanning(key.get(row), span);
            if let Some(given) = session.and_then(|session| session.given.as_mut()) {
                let (revision, rows) = (revisions.value(row), counts.value(row));
                given.restore(Said { span, revision, rows, save: *save });
            }
        }
    }
    Ok(())
}

/// Finds the sessions again that former tasks left.
///
/// The segments of one former task are kept. Those of several are written again at the next save, once: their dead
/// fragments are told by different times.
pub(super) fn load(
    plan: &Shared,
    keys: &KeyEncoder,
    sessions: &mut Sessions,
    fragments: &mut Fragments,
    state: &StateReader,
) -> Result<()> {
    let is_one = with_segments(state).count() == 1;
    for part in with_segments(state) {
        let mut tables = Vec::new();
        for (id, rows) in &part.segments {
            let rows = plan.form.widen(rows)?;
            let (starts, ends) = (times_of(&rows, START)?, times_of(&rows, END)?);
            let spans: Vec<Span> = starts.iter().zip(ends).map(|(&start, &end)| Span { start, end }).collect();
            let (key, states) = rows.columns()[LEADING..].split_at(plan.key.len());
            let (states, given) = states.split_at(states.len() - if plan.revised { GIVEN } else { 0 });
            let counts = match given.first() {
                Some(counts) => counts.as_primitive::<Int64Type>().values().to_vec(),
                None => vec![0; spans.len()],
            };
            let table = fragments.restore(states.to_vec(), spans.clone(), counts.clone(), is_one.then_some(*id));
            tables.push(Table { number: table, keys: keys.encode(key)?, spans, counts });
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
    keys: KeyBytes,
    spans: Vec<Span>,
    /// How many rows each fragment has, if sessions give more than one result.
    counts: Vec<i64>,
}

/// Makes sessions of the fragments of a former task, without those of sessions that had given their result.
fn join(tables: &[Table], fired: i64, sessions: &mut Sessions, fragments: &mut Fragments) {
    let rows = tables.iter().enumerate().flat_map(|(table, t)| (0..t.spans.len()).map(move |row| (table, row)));
    let mut rows: Vec<(usize, usize)> = rows.collect();
    let key = |&(table, row): &(usize, usize)| tables[table].keys.get(row);
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
            sessions.count(slot, own.iter().map(|&(table, row)| tables[table].counts[row]).sum());
            let own = own.iter().map(|&(table, row)| (tables[table].number, row as u32));
            sessions.slots[slot as usize].fragments = fragments.own(own, slot);
        }
    }
}
