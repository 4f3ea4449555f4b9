//! What keeps a store small: pieces are merged, keys that are gone are forgotten, and slots are given back.
//!
//! ```text
//!   pieces  9000 │ 800 │ 600 │ 20     ──► 9000 │ 1420          a piece has twice as many rows as all newer ones, half of them live
//!           16 M │ 3 M │ 4 M │ 16 M …  ──► 16 M │ 7 M │ 16 M …  large ones stay, and what is left of them is merged
//!   slots   a ─ ─ b ─ ─ ─ ─ ─ c ─ ─   ──► a b c                when most are free the others get new numbers
//! ```
//!
//! To copy rows is what a table of many rows costs most: fresh memory for them, again and again. Pieces of some megabytes are few
//! enough, and are copied only when most of their rows are dead.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::{NONE, Newest, Piece, lean_bytes};
use crate::{Result, state::bounded::batch_bytes};

/// How many times as many rows as all newer pieces a piece has at the least.
const MERGE: usize = 2;
/// Pieces are merged to at most so many bytes.
const PIECE_BYTES: usize = 16 << 20;
/// How many times as many slots as keys there may be, beyond a few.
const SPARE: usize = 4;
/// So many slots are not worth the work.
const FEW: usize = 64;

impl Newest {
    /// Drops pieces of which nothing counts, and merges small and mostly dead ones.
    pub(super) fn tidy(&mut self) -> Result<()> {
        loop {
            self.pieces.retain(|piece| piece.held > 0);
            if let Some(range) = self.to_merge() {
                self.merge(range)?;
            } else if let Some(at) = self.to_tell() {
                self.tell(at)?;
            } else if let Some(at) = self.to_clean() {
                self.merge(at..at + 1)?;
            } else {
                break;
            }
        }
        if self.index.is_empty() {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
        if self.index.capacity() > 1024 + 8 * self.index.len() {
            self.index.shrink_to(2 * self.index.len());
        }
        Ok(())
    }

    /// Which pieces are to be merged: the newest ones, or older ones that are too large to be merged with all that are newer.
    fn to_merge(&self) -> Option<Range<usize>> {
        let limit = PIECE_BYTES.min(batch_bytes());
        let (mut from, mut newer, mut bytes) = (None, 0, 0);
        for (at, piece) in self.pieces.iter().enumerate().rev() {
            bytes += piece.bytes;
            if newer > 0 && bytes > limit {
                let newest = from.map(|from| from..self.pieces.len());
                return newest.or_else(|| to_shrink(&self.pieces[..=at], limit));
            }
            if piece.held < MERGE * newer || piece.is_mostly_dead() {
                from = Some(at);
            }
            newer += piece.held;
        }
        from.map(|from| from..self.pieces.len())
    }

    /// Makes one piece of several that follow one another, in their place.
    pub(super) fn merge(&mut self, range: Range<usize>) -> Result<()> {
        let first = range.start;
        let pieces: Vec<Piece> = self.pieces.drain(range).collect();
        let merged = self.merged(&pieces)?;
        self.pieces.insert(first, merged);
        Ok(())
    }

    /// A piece before which there is nothing older, or nothing dead: nobody needs to be told which keys are gone.
    fn to_tell(&self) -> Option<usize> {
        let untold = self.pieces.iter().position(|piece| piece.gone > 0 && !piece.told)?;
        self.pieces[..untold].iter().all(|older| older.held == older.rows.num_rows()).then_some(untold)
    }

    /// A piece whose dead rows are why most of what is held says that keys are gone: it is too large to be merged with the
    /// newer ones.
    fn to_clean(&self) -> Option<usize> {
        let untold: usize = self.pieces.iter().filter(|piece| !piece.told).map(|piece| piece.gone).sum();
        let held: usize = self.pieces.iter().map(|piece| piece.held).sum();
        let has_dead = |piece: &Piece| piece.held < piece.rows.num_rows();
        if 2 * untold > held { self.pieces.iter().position(has_dead) } else { None }
    }

    fn tell(&mut self, at: usize) -> Result<()> {
        let mut forgotten = Vec::new();
        let piece = &self.pieces[at];
        for (row, &slot) in piece.slots.iter().enumerate() {
            if self.counts(piece.id, row, slot) && self.is_gone(slot) {
                self.slots[slot as usize].sealed = false;
                if !self.remembers(self.times(&piece.rows)[row]) {
                    forgotten.push(slot);
                }
            }
        }
        self.pieces[at].told = true;
        self.forget_all(&forgotten)
    }

    /// One piece of the rows of several that count.
    pub(super) fn merged(&mut self, pieces: &[Piece]) -> Result<Piece> {
        let mut places = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let slots = piece.slots.iter().copied().enumerate();
            let held = slots.filter(|&(row, slot)| self.counts(piece.id, row, slot));
            places.extend(held.map(|(row, slot)| ((at, row), slot)));
        }
        if self.by_time {
            places.sort_by_key(|&((at, row), _)| self.times(&pieces[at].rows)[row]);
        }
        let (from, slots): (Vec<_>, Vec<_>) = places.into_iter().unzip();
        let rows = self.interleave(pieces, &from)?;
        let columns = rows.columns().iter().cloned().map(lean_bytes).collect();
        let rows = RecordBatch::try_new(self.columns.clone(), columns)?;
        // The number of one of them: numbers ascend.
        let id = pieces.last().map_or(self.next, |piece| piece.id);
        let mut merged = Piece::new(id, rows, None);
        for (row, &slot) in slots.iter().enumerate() {
            let place = &mut self.slots[slot as usize];
            (place.piece, place.row) = (merged.id, row as u32);
            merged.gone += usize::from(place.gone);
        }
        // Keys that are only remembered have been told.
        let is_untold = |slot: &u32| self.slots.get(*slot as usize).is_some_and(|slot| slot.gone && slot.sealed);
        merged.told = !slots.iter().any(is_untold);
        (merged.held, merged.slots) = (slots.len(), slots);
        Ok(merged)
    }

    /// Gives slots new numbers, in their order, when most of them are free: who keeps slots has to do the same. Returns the new
    /// number of each former slot that is in use.
    pub(crate) fn renumber(&mut self) -> Option<Vec<Option<u32>>> {
        if self.slots.len() <= FEW + SPARE * self.index.len() {
            return None;
        }
        let mut used = vec![true; self.slots.len()];
        std::mem::take(&mut self.free).into_iter().for_each(|slot| used[slot as usize] = false);
        let mut next = 0..;
        let to: Vec<Option<u32>> = used.iter().map(|&used| if used { next.next() } else { None }).collect();
        self.slots = self.slots.iter().zip(&used).filter(|(_, used)| **used).map(|(slot, _)| *slot).collect();
        let new = |slot: u32| to.get(slot as usize).copied().flatten().unwrap_or(NONE);
        self.index.values_mut().for_each(|slot| *slot = new(*slot));
        for piece in &mut self.pieces {
            piece.slots.iter_mut().for_each(|slot| *slot = new(*slot));
        }
        Some(to)
    }
}

/// Of large pieces two neighbours of which little is left, so that there are not more and more, or one that is mostly dead.
fn to_shrink(pieces: &[Piece], limit: usize) -> Option<Range<usize>> {
    let is_little = |two: &[Piece]| two.iter().map(Piece::held_bytes).sum::<usize>() <= limit / 2;
    let little = pieces.windows(2).rposition(is_little).map(|at| at..at + 2);
    little.or_else(|| pieces.iter().rposition(Piece::is_mostly_dead).map(|at| at..at + 1))
}
