//! The rows of a slice that may still win, and which of them a save has to write.
//!
//! ```text
//!   batches   ┌── kept, by key ──┬─ came since ─┐ ──enough, or a save──► sort, drop the losers
//!   saved_at  │ 3  3  1  1  5  5 │              │      key a: 3 3 ∙ → 3 3     nothing new in it: written by save 3
//!             └──────────────────┴──────────────┘      key b: 1 ∙ 1 → 6 6     a new row: written again by save 6
//! ```
//!
//! The winners of a key change only when a row comes that is one of them. So a save writes the keys that have such a row, with
//! all their winners, and of a key the newest segment that has rows of it has all that count.

use arrow::{
    array::{Array, ArrayRef, RecordBatch, Scalar, UInt32Array},
    compute::{
        SortColumn, SortOptions, concat_batches, kernels::cmp::gt_eq, lexsort_to_indices, partition, sort_to_indices,
        take, take_arrays, take_record_batch,
    },
    datatypes::SchemaRef,
};

use super::Shared;
use crate::{
    OperatorError, Result,
    key::comparable,
    state::segments::{Changes, key_group_column, own_bytes},
    window::{Slice, aggregate::constant, form::LEADING},
};

/// A slice sorts and drops its losers when it holds this many rows, and at least four times what it wants to keep.
const COMPACT_ROWS: usize = 16_384;
/// Instead of the number of a save: no save has written it.
const NEVER: u32 = u32::MAX;

/// The rows of a slice, or of several.
#[derive(Default)]
pub(super) struct Buffer {
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Rows that were left after the last sort. They are the first.
    kept: usize,
    /// About how many bytes they are.
    pub(super) bytes: usize,
    /// By which save the first rows were written, or [`NEVER`]. It lacks those that came since, or all before the first save.
    saved_at: Vec<u32>,
    /// How many rows were written by which save.
    changes: Changes,
    /// Whether rows have come since the last save.
    changed: bool,
}

/// What is left of rows: key by key, the greatest first.
pub(super) struct Winners {
    pub(super) rows: RecordBatch,
    pub(super) ranks: Vec<u64>,
    /// Where they were.
    places: UInt32Array,
}

impl Buffer {
    pub(super) fn push(&mut self, plan: &Shared, batch: RecordBatch) -> Result<()> {
        self.add(batch);
        self.changed = true;
        if self.rows >= COMPACT_ROWS.max(4 * self.kept) {
            self.compact(plan)?;
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += bytes(&batch);
        self.batches.push(batch);
    }

    /// Drops the losers. Returns the ranks of the others.
    fn compact(&mut self, plan: &Shared) -> Result<Vec<u64>> {
        let Winners { rows, ranks, places } = self.sort(plan)?;
        if !self.saved_at.is_empty() {
            let saved_at = |place: &u32| self.saved_at.get(*place as usize).copied().unwrap_or(NEVER);
            self.saved_at = places.values().iter().map(saved_at).collect();
        }
        (self.rows, self.kept, self.bytes) = (rows.num_rows(), rows.num_rows(), bytes(&rows));
        self.batches = vec![rows];
        Ok(ranks)
    }

    /// The rows of all of these slices that may win in their window. No more rows come for them, so each drops its losers.
    pub(super) fn union(slices: Vec<&mut Self>, plan: &Shared) -> Result<Self> {
        let mut all = Self::default();
        for slice in slices {
            if slice.rows > slice.kept {
                slice.compact(plan)?;
            }
            all.batches.extend(slice.batches.iter().cloned());
        }
        Ok(all)
    }

    /// The same rows without losers, to be part of another union.
    pub(super) fn copy(&mut self, plan: &Shared) -> Result<Self> {
        self.compact(plan)?;
        Ok(Self {
            batches: self.batches.clone(),
            rows: self.rows,
            kept: self.kept,
            bytes: self.bytes,
            ..Self::default()
        })
    }

    /// Keeps of each batch what `of` keeps.
    pub(super) fn retain(&mut self, mut of: impl FnMut(RecordBatch) -> Result<RecordBatch>) -> Result<()> {
        self.batches = std::mem::take(&mut self.batches).into_iter().map(&mut of).collect::<Result<_>>()?;
        Ok(())
    }

    /// Finds out which keys have other winners than at the last save.
    pub(super) fn save(&mut self, plan: &Shared, now: u32, changes: &mut Changes) -> Result<()> {
        if std::mem::take(&mut self.changed) {
            let ranks = self.compact(plan)?;
            self.saved_at.resize(self.rows, NEVER);
            // Ranks begin anew with each key.
            let mut keys = self.saved_at.as_mut_slice();
            for winners in ranks.chunk_by(|rank, next| rank < next) {
                let (of_key, rest) = keys.split_at_mut(winners.len());
                if of_key.contains(&NEVER) {
                    of_key.fill(now);
                }
                keys = rest;
            }
            self.count();
        }
        for (save, rows) in &self.changes {
            *changes.entry(*save).or_default() += rows;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.changes.clear();
        for run in self.saved_at.chunk_by(|a, b| a == b) {
            *self.changes.entry(run[0]).or_default() += run.len();
        }
    }

    /// What a segment has of the slice: rows that were written after the save `since`, if there are any.
    pub(super) fn segment(&self, plan: &Shared, slice: Slice, since: u32) -> Result<Option<RecordBatch>> {
        if self.changes.range(since + 1..).next().is_none() {
            return Ok(None);
        }
        let all = concat_batches(&self.schema()?, &self.batches)?;
        let written = self.saved_at.iter().zip(0..).filter(|(at, _)| **at > since).map(|(_, row)| row);
        let written = UInt32Array::from_iter_values(written);
        let rows = if written.len() == all.num_rows() { all } else { take_record_batch(&all, &written)? };
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
        let mut columns = vec![key_group_column(&key, rows.num_rows())?, constant(slice.start, rows.num_rows())];
        columns.extend(plan.saved.iter().map(|&i| own_bytes(rows.column(i).clone())));
        Ok(Some(RecordBatch::try_new(plan.form.columns.clone(), columns)?))
    }

    /// Takes back what a segment has of the slice. The hidden event time of a row is not saved: once the row has its
    /// slice nobody reads it.
    pub(super) fn restore(
        &mut self,
        plan: &Shared,
        schema: &SchemaRef,
        slice: Slice,
        rows: &RecordBatch,
        save: u32,
    ) -> Result<()> {
        let mut columns = vec![constant(slice.result_time(), rows.num_rows()); schema.fields().len()];
        for (&column, saved) in plan.saved.iter().zip(&rows.columns()[LEADING..]) {
            columns[column] = saved.clone();
        }
        self.add(RecordBatch::try_new(schema.clone(), columns)?);
        self.kept = self.rows;
        self.saved_at.resize(self.rows, save);
        self.count();
        Ok(())
    }

    fn schema(&self) -> Result<SchemaRef> {
        let empty = || OperatorError::Internal("a slice without rows".into());
        Ok(self.batches.first().ok_or_else(empty)?.schema())
    }

    /// The rows that may still win.
    pub(super) fn sort(&self, plan: &Shared) -> Result<Winners> {
        let rows = concat_batches(&self.schema()?, &self.batches)?;
        if let Some(hopeful) = hopeful(plan, &rows)? {
            let mut winners = order(plan, take_record_batch(&rows, &hopeful)?)?;
            winners.places = UInt32Array::from(take(&hopeful, &winners.places, None)?.to_data());
            return Ok(winners);
        }
        order(plan, rows)
    }
}

/// Where the rows are that are not less than the n-th greatest, when they are to be found without a key and with ties: few, so
/// that the others need not be sorted by all their columns.
fn hopeful(plan: &Shared, rows: &RecordBatch) -> Result<Option<UInt32Array>> {
    if !plan.ties || !plan.key.is_empty() {
        return Ok(None);
    }
    let by = comparable(rows.column(plan.by));
    let descending = SortOptions { descending: true, nulls_first: false };
    let greatest = sort_to_indices(&by, Some(descending), Some(plan.n))?;
    let Some(&last) = greatest.values().last().filter(|last| greatest.len() == plan.n && by.is_valid(**last as usize))
    else {
        return Ok(None);
    };
    let least = by.slice(last as usize, 1);
    let enough = gt_eq(&by, &Scalar::new(least))?;
    let places = (0..).zip(enough.iter()).filter(|(_, enough)| *enough == Some(true));
    Ok(Some(places.map(|(place, _)| place).collect()))
}

/// The first rows of each key, sorted by all columns.
fn order(plan: &Shared, rows: RecordBatch) -> Result<Winners> {
    let visible = plan.input.visible().fields().len();
    let ascending = SortOptions { descending: false, nulls_first: false };
    let descending = SortOptions { descending: true, nulls_first: false };
    let sort = |values: ArrayRef, options| SortColumn { values, options: Some(options) };
    let key: Vec<ArrayRef> = plan.key.iter().map(|&i| comparable(rows.column(i))).collect();
    let mut order: Vec<SortColumn> = key.iter().map(|column| sort(column.clone(), ascending)).collect();
    order.push(sort(comparable(rows.column(plan.by)), descending));
    // What breaks ties: the other columns, and floats as they are, because of equal ones only one may win.
    let is_sorted = |i: usize| i == plan.by || plan.key.contains(&i);
    let breaks_ties = |i: &usize| !is_sorted(*i) || rows.column(*i).data_type().is_floating();
    order.extend((0..visible).filter(breaks_ties).map(|i| sort(rows.column(i).clone(), ascending)));
    let limit = (plan.key.is_empty() && !plan.ties).then_some(plan.n);
    let sorted = lexsort_to_indices(&order, limit)?;
    if limit.is_some() {
        let ranks = (1..=sorted.len() as u64).collect();
        return Ok(Winners { rows: take_record_batch(&rows, &sorted)?, ranks, places: sorted });
    }
    let mut winners = Vec::new();
    let mut ranks = Vec::new();
    let keys = match key.is_empty() {
        true => std::iter::once(0..sorted.len()).collect(),
        false => partition(&take_arrays(&key, &sorted, None)?)?.ranges(),
    };
    let mut ends = Vec::new();
    if plan.ties {
        let values = [key, vec![comparable(rows.column(plan.by))]].concat();
        ends = partition(&take_arrays(&values, &sorted, None)?)?.ranges().into_iter().map(|equal| equal.end).collect();
    }
    for range in keys {
        let n = range.len().min(plan.n);
        // Where the last of the rows ends that are equal to the last of the n.
        let end = ends.partition_point(|end| *end < range.start + n);
        let n = ends.get(end).map_or(n, |end| end - range.start);
        winners.extend(range.start as u32..(range.start + n) as u32);
        ranks.extend(1..=n as u64);
    }
    let places = take(&sorted, &UInt32Array::from(winners), None)?;
    let places = UInt32Array::from(places.to_data());
    Ok(Winners { rows: take_record_batch(&rows, &places)?, ranks, places })
}

/// The bytes of the rows of a batch, which may be a slice of a larger one.
fn bytes(batch: &RecordBatch) -> usize {
    let bytes = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or(array.get_array_memory_size());
    batch.columns().iter().map(bytes).sum()
}
