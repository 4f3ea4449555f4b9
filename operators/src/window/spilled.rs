//! Groups of a slice that are not in memory: runs of states in the room of the caller.
//!
//! ```text
//!   runs of a slice, oldest first       whole │ whole │ whole │ more │ more │ more      and rows that come: a table
//!                                       └─ of a key the newest ─┘ └──── all ─────┘
//!   a run: key │ state │ save, in pieces by hash of the key       0..9 │ 9..12 │ 12 │ 13 │ … ..64
//!   a file: a run, or those of several slices that are small
//! ```
//!
//! A row of a `whole` run is all that there was of its key, and takes the place of those in older runs. What came after is more
//! of it, to be merged. A run is never changed; a save writes another, of the keys that more has come to (see `spiller`).

use std::{ops::Range, sync::Arc};

use super::{
    saved::Saved,
    table::{GroupTable, Tables},
};
use crate::{OperatorError, Result, aggregates::Aggregates, key::key_hashes, spill::Stored, state::segments::Changes};

/// Into how many parts keys are cut, by hash.
pub(super) const PARTS: usize = 64;
/// About how many bytes the room takes to know a run, and a batch in it.
const RUN_BYTES: usize = 256;
const BATCH_BYTES: usize = 16;

/// The groups of a slice, of which most are not in memory.
#[derive(Default)]
pub(super) struct Spilled {
    /// Oldest first: those that are `whole`, then the others.
    pub(super) runs: Vec<Run>,
    /// The groups of rows that have come since.
    live: Option<GroupTable>,
    /// The same, when no more rows come before it is put away or gone.
    pub(super) resting: Option<Saved>,
    /// How many groups of the runs that are `whole` last changed in which save, if these have been counted.
    pub(super) changes: Option<Changes>,
}

/// What was put away at once. No key is in it twice.
pub(super) struct Run {
    pub(super) stored: Arc<dyn Stored>,
    /// Which of the batches there is its first.
    pub(super) first: usize,
    /// What each of its batches is.
    pub(super) pieces: Vec<Piece>,
    pub(super) rows: usize,
    /// Whether its states are all there was of their keys.
    pub(super) whole: bool,
    /// How often its oldest group has been merged.
    pub(super) tier: usize,
}

/// A batch of a run: the keys of neighbouring parts.
pub(super) struct Piece {
    /// Which these are: a bit each.
    pub(super) parts: u64,
    /// The newest save in which one of its groups changed.
    pub(super) newest: u32,
    pub(super) rows: u32,
    pub(super) bytes: usize,
}

impl Run {
    pub(super) fn new(stored: Arc<dyn Stored>, mut pieces: Vec<Piece>, whole: bool) -> Self {
        pieces.shrink_to_fit();
        let rows = pieces.iter().map(|piece| piece.rows as usize).sum();
        Self { stored, first: 0, pieces, rows, whole, tier: 0 }
    }

    /// About how many bytes it takes in memory to know where it is.
    fn listed(&self) -> usize {
        RUN_BYTES + self.pieces.len() * (size_of::<Piece>() + BATCH_BYTES)
    }
}

/// Keys that are merged at once: those of neighbouring parts that fit together, or of one part a fraction.
#[derive(Clone)]
pub(super) struct Round {
    pub(super) parts: Range<usize>,
    pub(super) fraction: u64,
    pub(super) of: u64,
}

impl Round {
    /// Disjoint bits of the hash: the top ones say which task has the key.
    pub(super) fn part_of(hash: u64) -> usize {
        (hash >> 40) as usize % PARTS
    }

    /// Whether a key with this hash is one of them.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.parts.contains(&Self::part_of(hash)) && (hash & u64::from(u32::MAX)) % self.of == self.fraction
    }

    /// Whether it is about all keys of these parts, a bit each.
    pub(super) fn covers(&self, parts: u64) -> bool {
        self.of == 1 && parts & !bits(&self.parts) == 0
    }

    /// Whether it is about any key of these parts, a bit each.
    pub(super) fn meets(&self, parts: u64) -> bool {
        parts & bits(&self.parts) != 0
    }
}

/// A bit for each of these parts.
fn bits(parts: &Range<usize>) -> u64 {
    let below = |part: usize| if part < PARTS { (1 << part) - 1 } else { u64::MAX };
    below(parts.end) & !below(parts.start)
}

/// The part that a key with this hash is in, as a bit.
pub(super) fn bit_of(hash: u64) -> u64 {
    1 << Round::part_of(hash)
}

/// Neighbouring parts in ranges of at most `most` bytes together, or of one part. Those without anything are left out at the ends.
pub(super) fn pack(sizes: &[usize], most: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut held) = (Vec::<Range<usize>>::new(), 0_usize);
    for (part, size) in sizes.iter().copied().enumerate().filter(|(_, size)| *size > 0) {
        held = held.saturating_add(size);
        match ranges.last_mut().filter(|_| held <= most) {
            Some(range) => range.end = part + 1,
            None => {
                ranges.push(part..part + 1);
                held = size;
            }
        }
    }
    ranges
}

impl Spilled {
    /// The table for rows that come now.
    pub(super) fn table(&mut self, tables: &mut Tables, aggregates: &Aggregates) -> Result<&mut GroupTable> {
        if self.resting.is_some() {
            return Err(OperatorError::Internal("a row came for a slice that is closed".into()));
        }
        if self.live.is_none() {
            self.live = Some(tables.table(aggregates)?);
        }
        self.live.as_mut().ok_or_else(|| OperatorError::Internal("a table was not made".into()))
    }

    /// Makes arrays of what is in memory, for which no more rows come before it is put away or gone.
    pub(super) fn rest(&mut self, tables: &mut Tables, next: u32) -> Result<()> {
        if let Some(table) = self.live.take() {
            self.resting = Some(tables.close(table, next)?);
        }
        if let Some(saved) = &mut self.resting {
            saved.all()?;
        }
        Ok(())
    }

    /// The bytes that can be put away.
    pub(super) fn spillable(&self) -> usize {
        self.live.as_ref().map_or(0, GroupTable::size) + self.resting.as_ref().map_or(0, Saved::size)
    }

    /// The bytes that it takes to know what was.
    pub(super) fn listed(&self) -> usize {
        self.runs.iter().map(Run::listed).sum()
    }

    /// Adds up how many groups last changed in which save.
    pub(super) fn add_changes(&self, changes: &mut Changes) -> Result<()> {
        let is_settled = self.live.is_none() && self.resting.is_none() && self.whole() == self.runs.len();
        let own = self.changes.as_ref().filter(|_| is_settled);
        let own = own.ok_or_else(|| OperatorError::Internal("groups were saved before they were settled".into()))?;
        own.iter().for_each(|(save, groups)| *changes.entry(*save).or_default() += groups);
        Ok(())
    }

    /// What there is of it, given the hashes of the keys that are in memory. After [`Spilled::rest`].
    pub(super) fn layers<'a>(&'a self, hashes: &'a [u64]) -> Layers<'a> {
        Layers::new(&self.runs, self.resting.as_ref().map(|saved| (saved, hashes)))
    }

    /// How many runs are `whole`: the oldest.
    pub(super) fn whole(&self) -> usize {
        self.runs.iter().take_while(|run| run.whole).count()
    }
}

/// What the groups of a slice are made of: runs, and what came after them and is in memory, with the hashes of its keys.
pub(super) struct Layers<'a> {
    pub(super) runs: &'a [Run],
    pub(super) held: Option<(&'a Saved, &'a [u64])>,
    /// Of the runs before this one nothing is asked for but pieces with keys of these parts, a bit each.
    pub(super) first: usize,
    pub(super) of_older: u64,
}

impl<'a> Layers<'a> {
    /// All of them.
    pub(super) fn new(runs: &'a [Run], held: Option<(&'a Saved, &'a [u64])>) -> Self {
        Self { runs, held, first: 0, of_older: 0 }
    }

    /// Whether a piece of the run at `layer` is asked for.
    pub(super) fn asks(&self, layer: usize, piece: &Piece) -> bool {
        layer >= self.first || piece.parts & self.of_older != 0
    }
}

/// The hashes of the keys of arrays that have been joined.
pub(super) fn hashes(saved: Option<&Saved>) -> Result<Vec<u64>> {
    let Some(saved) = saved else { return Ok(Vec::new()) };
    let (rows, keys, _) = saved.joined()?;
    key_hashes(keys, rows)
}

/// What groups are merged with.
pub(super) struct Tools<'a> {
    pub(super) aggregates: &'a Aggregates,
    pub(super) tables: &'a mut Tables,
    pub(super) scratch: &'a mut Vec<usize>,
    /// The number of the next save, or of the one that is going on.
    pub(super) save: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_packed_while_they_fit() {
        let mut sizes = [0; PARTS];
        assert!(pack(&sizes, 100).is_empty());
        for (part, size) in [(2, 40), (3, 60), (4, 1), (9, 99), (10, 500), (63, 1)] {
            sizes[part] = size;
        }
        assert_eq!(pack(&sizes, 100), [2..4, 4..10, 10..11, 63..64]);
        assert_eq!(pack(&sizes, 0), [2..3, 3..4, 4..5, 9..10, 10..11, 63..64]);
        assert_eq!(pack(&sizes, usize::MAX), std::iter::once(2..64).collect::<Vec<_>>());
    }

    /// Every key is in one round, and that round reads the piece that it is in.
    #[test]
    fn rounds_have_every_key_once() {
        let of_part = |part: usize, of| (0..of).map(move |fraction| Round { parts: part..part + 1, fraction, of });
        let mut rounds: Vec<Round> = vec![Round { parts: 0..20, fraction: 0, of: 1 }];
        rounds.extend((20..PARTS).flat_map(|part| of_part(part, 1 + part as u64 % 7)));
        let mut random = fastrand::Rng::with_seed(11);
        for hash in std::iter::repeat_with(|| random.u64(..)).take(2_000) {
            let own: Vec<&Round> = rounds.iter().filter(|round| round.has(hash)).collect();
            assert_eq!(own.len(), 1);
            assert!(own[0].meets(bit_of(hash)) && own[0].meets(u64::MAX));
            assert_eq!(own[0].covers(bit_of(hash)), own[0].of == 1);
            assert!(!own[0].covers(u64::MAX));
        }
        let all = Round { parts: 0..PARTS, fraction: 0, of: 1 };
        assert!(all.covers(u64::MAX) && !all.meets(0));
        assert_eq!([bits(&(0..1)), bits(&(62..64)), bits(&(3..5)), bits(&(7..7))], [1, 3 << 62, 0b11000, 0]);
    }
}
