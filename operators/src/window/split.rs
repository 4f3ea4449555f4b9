//! Which rows of a batch belong to which slice.

use std::collections::HashMap;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array},
    compute::{filter, filter_record_batch, take, take_record_batch},
};

use super::{Slice, Slicing};
use crate::{Result, Timestamp};

/// The rows of a batch that belong to one slice.
pub(super) enum Selection {
    All,
    Range { offset: usize, rows: usize },
    Rows(UInt32Array),
}

impl Selection {
    /// All that are in one of these, which have no row in common, in the order of the batch, which has so many rows.
    pub(super) fn union(selections: impl IntoIterator<Item = Self>, rows: usize) -> Self {
        let mut is_in = vec![false; rows];
        for selection in selections {
            match selection {
                Self::All => return Self::All,
                Self::Range { offset, rows } => is_in[offset..offset + rows].fill(true),
                Self::Rows(rows) => rows.values().iter().for_each(|&row| is_in[row as usize] = true),
            }
        }
        Self::Rows(UInt32Array::from_iter_values((0..rows as u32).filter(|&row| is_in[row as usize])))
    }

    pub(super) fn array(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self {
            Self::All => array.clone(),
            Self::Range { offset, rows } => array.slice(*offset, *rows),
            Self::Rows(rows) => take(array, rows, None)?,
        })
    }

    pub(super) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(match self {
            Self::All => batch.clone(),
            // A small part is copied: as a slice it would keep the whole batch alive for as long as it waits.
            Self::Range { offset, rows } if 2 * rows < batch.num_rows() => {
                let rows = UInt32Array::from_iter_values(*offset as u32..(offset + rows) as u32);
                take_record_batch(batch, &rows)?
            }
            Self::Range { offset, rows } => batch.slice(*offset, *rows),
            Self::Rows(rows) => take_record_batch(batch, rows)?,
        })
    }

    /// Of its rows those for which `keep`, which has a value for each of them, is true.
    pub(super) fn filter(&self, batch: &RecordBatch, keep: &BooleanArray) -> Result<RecordBatch> {
        Ok(match self {
            Self::All => filter_record_batch(batch, keep)?,
            Self::Range { offset, rows } => filter_record_batch(&batch.slice(*offset, *rows), keep)?,
            Self::Rows(rows) => take_record_batch(batch, &filter(rows, keep)?)?,
        })
    }

    pub(super) fn rows(&self, batch: &RecordBatch) -> usize {
        match self {
            Self::All => batch.num_rows(),
            Self::Range { rows, .. } => *rows,
            Self::Rows(rows) => rows.len(),
        }
    }
}

/// The rows by slice. The common case, all rows in one slice, costs a scan for the least and the greatest time.
pub(super) fn split(slicing: &Slicing, times: &[i64]) -> Vec<(Slice, Selection)> {
    let Some(&first) = times.first() else { return Vec::new() };
    let (least, greatest) = times.iter().fold((first, first), |(lo, hi), &t| (lo.min(t), hi.max(t)));
    let slice = slicing.slice_of(Timestamp::from_micros(least));
    if slice.contains(Timestamp::from_micros(greatest)) {
        return vec![(slice, Selection::All)];
    }
    let runs = runs(slicing, times);
    let mut parts: Vec<(Slice, Vec<(usize, usize)>)> = Vec::new();
    let mut place: HashMap<Timestamp, usize> = HashMap::new();
    for (slice, offset, rows) in runs {
        let at = *place.entry(slice.start).or_insert_with(|| {
            parts.push((slice, Vec::new()));
            parts.len() - 1
        });
        parts[at].1.push((offset, rows));
    }
    parts.into_iter().map(|(slice, runs)| (slice, select(&runs))).collect()
}

/// Stretches of rows that lie in one slice: (slice, first row, number of rows).
fn runs(slicing: &Slicing, times: &[i64]) -> Vec<(Slice, usize, usize)> {
    let mut runs: Vec<(Slice, usize, usize)> = Vec::new();
    for (row, &time) in times.iter().enumerate() {
        let time = Timestamp::from_micros(time);
        match runs.last_mut() {
            Some((slice, _, rows)) if slice.contains(time) => *rows += 1,
            _ => runs.push((slicing.slice_of(time), row, 1)),
        }
    }
    runs
}

fn select(runs: &[(usize, usize)]) -> Selection {
    match runs {
        [(offset, rows)] => Selection::Range { offset: *offset, rows: *rows },
        _ => {
            let rows = runs.iter().flat_map(|&(offset, rows)| offset as u32..(offset + rows) as u32);
            Selection::Rows(UInt32Array::from_iter_values(rows))
        }
    }
}
