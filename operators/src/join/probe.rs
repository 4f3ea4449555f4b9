//! The rows of a batch and their partners: pairs of equal key that meet the condition, in bounded steps.
//!
//! ```text
//!   rows of one side ─┬─ for each, the index of every piece of the other side: candidates ─┐
//!                     │                                                   8192 or so       ▼
//!                     └◄─ the next row, until enough has left                 condition ──► met(pairs)
//! ```

use std::ops::Range;

use arrow::array::RecordBatch;

use super::{
    EMIT_ROWS, LEFT,
    index::{KeyIndex, Keys, Lookup},
    shape::{Picked, Shape},
};
use crate::Result;

/// Rows that look for partners.
pub(super) struct Probe<'a> {
    pub(super) side: usize,
    pub(super) rows: &'a RecordBatch,
    pub(super) keys: &'a Keys,
    /// Whether one partner is enough.
    pub(super) once: bool,
}

/// Rows of the other side.
#[derive(Clone, Copy)]
pub(super) struct Partners<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) index: &'a KeyIndex,
}

impl Probe<'_> {
    /// Looks for partners of the rows from `from` on, among the rows of each of `partners` that `among` names. `met` is
    /// given the pairs, left and right, in parts of up to [`EMIT_ROWS`]. Stops after the row with which so many candidates
    /// have been found; returns the row that comes next.
    ///
    /// One row with a million partners is not interrupted: its pairs leave in parts, but in one call.
    pub(super) fn run<'p>(
        &'p self,
        shape: &Shape,
        from: usize,
        partners: &[Partners<'p>],
        among: impl Fn(usize, usize) -> Range<usize>,
        mut met: impl FnMut(&[Picked<'p>; 2]) -> Result<()>,
    ) -> Result<usize> {
        let lookups = partners.iter().map(|partners| Lookup::new(self.keys, partners.index));
        let lookups = lookups.collect::<Result<Vec<_>>>()?;
        let own = Picked::none_of(vec![self.rows]);
        let others = Picked::none_of(partners.iter().map(|partners| partners.rows).collect());
        // The probing side first, until they are handed over.
        let mut pairs = if self.side == LEFT { [own, others] } else { [others, own] };
        let (mine, theirs) = (self.side, 1 - self.side);
        // With a condition the first candidate may not be a partner.
        let first_only = self.once && !shape.has_condition();
        let (mut row, mut found) = (from, 0);
        while row < self.rows.num_rows() && found < EMIT_ROWS {
            if self.keys.is_valid(row) {
                'partners: for (piece, lookup) in lookups.iter().enumerate() {
                    for other in lookup.matches(row, among(row, piece)) {
                        pairs[mine].rows.push((0, row));
                        pairs[theirs].rows.push((piece, other));
                        found += 1;
                        if first_only {
                            break 'partners;
                        }
                        if pairs[mine].rows.len() == EMIT_ROWS {
                            hand_over(shape, &mut pairs, &mut met)?;
                        }
                    }
                }
            }
            row += 1;
        }
        hand_over(shape, &mut pairs, &mut met)?;
        Ok(row)
    }
}

fn hand_over<'p>(
    shape: &Shape,
    pairs: &mut [Picked<'p>; 2],
    met: &mut impl FnMut(&[Picked<'p>; 2]) -> Result<()>,
) -> Result<()> {
    if pairs[LEFT].rows.is_empty() {
        return Ok(());
    }
    shape.meet(pairs)?;
    if !pairs[LEFT].rows.is_empty() {
        met(pairs)?;
    }
    pairs.iter_mut().for_each(|picked| picked.rows.clear());
    Ok(())
}
