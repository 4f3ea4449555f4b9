//! The rows of a batch and their partners: pairs of equal key that meet the condition, in bounded steps.
//!
//! ```text
//!   rows of one side ─┬─ for each, the index of every piece of the other side: candidates ──► condition ──► pairs
//!                     └◄─ the next candidate, of this row or the next, until enough has been found: there it stops
//!                         and the next step goes on
//! ```

use std::ops::Range;

use arrow::array::RecordBatch;

use super::{
    LEFT,
    index::{KeyIndex, Keys, Lookup},
    shape::{Picked, Shape},
};
use crate::Result;

/// How many rows or candidates may be looked at for one pair that is emitted.
const LOOKS: usize = 16;

/// Rows that look for partners. `F` says between which event times, both included, the partners of a row are; a row without
/// such times has none.
pub(super) struct Probe<'a, F> {
    pub(super) shape: &'a Shape,
    pub(super) side: usize,
    pub(super) rows: &'a RecordBatch,
    pub(super) keys: &'a Keys,
    /// The row after the last that looks.
    pub(super) end: usize,
    pub(super) partners: Vec<Partners<'a>>,
    pub(super) span: F,
    /// Whether one partner is enough.
    pub(super) once: bool,
}

/// Rows of the other side, in order of event time where partners lie between some.
pub(super) struct Partners<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) index: &'a KeyIndex,
    pub(super) times: &'a [i64],
    /// Which of them can be partners.
    pub(super) live: Range<usize>,
}

/// How far a probe has come: the next row that looks, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) row: usize,
    piece: usize,
    from: usize,
}

impl Place {
    /// At the beginning of a row.
    pub(super) fn at(row: usize) -> Self {
        Self { row, piece: 0, from: 0 }
    }
}

/// What a step has found.
pub(super) struct Found<'p> {
    /// Pairs, left and right, of which the condition is true. No more than the step.
    pub(super) pairs: [Picked<'p>; 2],
    /// The work it was, in rows emitted.
    pub(super) cost: usize,
}

impl<'a, F: Fn(usize) -> Option<(i64, i64)>> Probe<'a, F> {
    /// Looks for partners of the rows from `place` on, and moves it. Stops when about `most` pairs have been found, wherever
    /// that is: when all is done `place` is at `end`.
    pub(super) fn step(&self, place: &mut Place, most: usize) -> Result<Found<'a>> {
        let (mut pairs, mut cost) = (self.no_pairs(), 0);
        // Nobody looks into a piece without rows.
        let lookup = |partners: &Partners<'a>| match partners.live.is_empty() {
            true => Ok(None),
            false => Lookup::new(self.keys, partners.index).map(Some),
        };
        let lookups = self.partners.iter().map(lookup).collect::<Result<Vec<_>>>()?;
        if lookups.iter().all(Option::is_none) {
            *place = Place::at(self.end);
        }
        // A condition drops an unknown part of the candidates, so they are looked at in two halves, or more.
        let part = if self.shape.has_condition() { most.div_ceil(2) } else { most };
        while place.row < self.end && pairs[LEFT].rows.len() < part && cost < most {
            let mut candidates = self.no_pairs();
            cost += self.candidates(place, &lookups, part, &mut candidates).div_ceil(LOOKS);
            self.shape.meet(&mut candidates)?;
            for (pairs, candidates) in pairs.iter_mut().zip(candidates) {
                pairs.rows.extend(candidates.rows);
            }
            // The row it stopped in may have its partner.
            if self.once && pairs[self.side].rows.last() == Some(&(0, place.row)) {
                *place = Place::at(place.row + 1);
            }
        }
        Ok(Found { cost: cost.max(pairs[LEFT].rows.len()), pairs })
    }

    /// Pairs of the rows of both sides, and none yet.
    fn no_pairs(&self) -> [Picked<'a>; 2] {
        let own = Picked::none_of(vec![self.rows]);
        let others = Picked::none_of(self.partners.iter().map(|partners| partners.rows).collect());
        if self.side == LEFT { [own, others] } else { [others, own] }
    }

    /// Up to `most` candidates from `place` on, of which the keys are equal; returns how much it has looked at.
    fn candidates(
        &self,
        place: &mut Place,
        lookups: &[Option<Lookup<'_>>],
        most: usize,
        pairs: &mut [Picked<'a>; 2],
    ) -> usize {
        let (mine, theirs) = (self.side, 1 - self.side);
        // With a condition the first candidate may not be a partner.
        let first_only = self.once && !self.shape.has_condition();
        let mut looks = 0;
        while place.row < self.end && looks < LOOKS * most {
            let Place { row, piece: resumed, from } = *place;
            looks += 1;
            let span = if self.keys.is_valid(row) { (self.span)(row) } else { None };
            if let Some((first, last)) = span {
                let pieces = lookups.iter().zip(&self.partners).enumerate().skip(resumed);
                'partners: for (piece, (lookup, Partners { times, live, .. })) in pieces {
                    let Some(lookup) = lookup.as_ref().filter(|lookup| lookup.may_match(row)) else { continue };
                    let start = if piece == resumed { live.start.max(from) } else { live.start };
                    for other in lookup.matches(row, |other| other < start || times[other] < first) {
                        if other >= live.end || times[other] > last {
                            break;
                        }
                        if pairs[mine].rows.len() == most {
                            *place = Place { row, piece, from: other };
                            return looks;
                        }
                        pairs[mine].rows.push((0, row));
                        pairs[theirs].rows.push((piece, other));
                        looks += 1;
                        if first_only {
                            break 'partners;
                        }
                    }
                }
            }
            *place = Place::at(row + 1);
        }
        looks
    }
}
