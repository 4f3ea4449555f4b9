//! Where the harness keeps what operators save: segments as bytes, found again only by their number.
//!
//! ```text
//!   Operator::save ──► sealed rows ──► Arrow IPC bytes ─┐
//!                      kept numbers ──► must be there ──┴─► Store ──► rows of my key groups ──► Operator::load
//! ```
//!
//! It is as strict as a checkpoint store: a segment that the last state does not name is gone, and a row belongs to a
//! key group of the task that saves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use arrow::{
    array::{Array, BooleanArray, RecordBatch, UInt8Array},
    compute::{concat_batches, filter_record_batch},
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::{
    Operator,
    spill::read_all,
    state::{KEY_GROUP, Part, SegmentId, StateWriter},
};

/// What one task of an operator saved last.
#[derive(Clone)]
pub(super) struct Store {
    next: SegmentId,
    numbers: BTreeMap<String, i64>,
    /// Oldest first.
    named: Vec<SegmentId>,
    sealed: BTreeMap<SegmentId, Vec<u8>>,
}

impl Store {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { next: SegmentId(0), numbers: BTreeMap::new(), named: Vec::new(), sealed: BTreeMap::new() }
    }

    /// What the task that takes over from these begins with. Segments can be kept when they are all of one task.
    pub(super) fn after(formers: &[&Self]) -> Self {
        let mut store = Self::new();
        store.next = formers.iter().map(|former| former.next).max().unwrap_or(store.next);
        let mut with_segments = formers.iter().filter(|former| !former.named.is_empty());
        if let (Some(one), None) = (with_segments.next(), with_segments.next()) {
            store.sealed = one.sealed.clone();
        }
        store
    }

    /// Takes down the state of an operator that has these key groups.
    pub(super) fn save(&mut self, operator: &mut dyn Operator, key_groups: &Range<usize>) -> Result<(), String> {
        let mut writer = StateWriter::new(&mut self.next);
        operator.save(&mut writer).map_err(|error| format!("failed to save: {error}"))?;
        let state = writer.finish();
        let mut named = BTreeSet::new();
        for (id, rows) in &state.segments {
            if !named.insert(*id) {
                return Err(format!("named {id:?} twice in one state"));
            }
            let stored = state.stored.get(id).map(|stored| read_all(stored.as_ref())).transpose();
            let stored = stored.map_err(|error| format!("sealed what cannot be read: {error}"))?;
            match rows.as_ref().or(stored.as_ref()) {
                Some(rows) => {
                    check(rows, key_groups)?;
                    self.sealed
                        .insert(*id, encode(rows).map_err(|error| format!("sealed what cannot be written: {error}"))?);
                }
                None if self.sealed.contains_key(id) => {}
                None => return Err(format!("kept {id:?}, which its last state did not have")),
            }
        }
        self.sealed.retain(|id, _| named.contains(id));
        (self.numbers, self.named) = (state.numbers, state.segments.into_iter().map(|(id, _)| id).collect());
        Ok(())
    }

    /// What was saved, with the rows of `key_groups`.
    pub(super) fn part(&self, first_phase: bool, key_groups: &Range<usize>) -> Result<Part, String> {
        let segment = |id: &SegmentId| {
            let bytes = self.sealed.get(id).ok_or_else(|| format!("{id:?} is named, but gone"))?;
            let rows = decode(bytes).and_then(|rows| restrict(&rows, key_groups));
            rows.map(|rows| (*id, rows)).map_err(|error| error.to_string())
        };
        let segments = self.named.iter().map(segment).collect::<Result<_, _>>()?;
        Ok(Part { first_phase, numbers: self.numbers.clone(), segments, stored: Vec::new() })
    }
}

fn groups(rows: &RecordBatch) -> Option<&UInt8Array> {
    let first = rows.schema_ref().fields().first().filter(|field| field.name() == KEY_GROUP);
    let groups = first.and_then(|_| rows.column(0).as_any().downcast_ref::<UInt8Array>());
    groups.filter(|groups| groups.null_count() == 0)
}

/// Refuses a segment without rows, without key groups, or with those of other tasks.
fn check(rows: &RecordBatch, key_groups: &Range<usize>) -> Result<(), String> {
    if rows.num_rows() == 0 {
        return Err("sealed a segment without rows".into());
    }
    let groups = groups(rows).ok_or_else(|| format!("sealed a segment whose first column is not {KEY_GROUP:?}"))?;
    match groups.values().iter().find(|group| !key_groups.contains(&usize::from(**group))) {
        Some(other) => Err(format!("sealed a row of key group {other}, but its key groups are {key_groups:?}")),
        None => Ok(()),
    }
}

fn restrict(rows: &RecordBatch, key_groups: &Range<usize>) -> Result<RecordBatch, ArrowError> {
    let own = |group: Option<u8>| group.is_some_and(|group| key_groups.contains(&usize::from(group)));
    let own: BooleanArray = groups(rows).into_iter().flatten().map(|group| Some(own(group))).collect();
    filter_record_batch(rows, &own)
}

pub(super) fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

pub(super) fn decode(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let reader = StreamReader::try_new(bytes, None)?;
    let schema = reader.schema();
    concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>()?)
}
