//! The groups of a slice while rows come for it and afterwards, and how a window is made of several slices.
//!
//! ```text
//!   rows ──► Open: table ──no more rows──► Closed: arrays (key, states) ─┐
//!                                          Closed ───────────────────────┼─merge─► a fresh table ──► result of the window
//!                                          Closed ───────────────────────┘
//! ```
//!
//! Under a memory budget the groups of a slice may be `Spilled`: see there.
//!
//! A closed slice does not change, so saves write it once; a window that needs it merges it into a table of its own.

use arrow::array::ArrayRef;

use super::{
    saved::Saved,
    spilled::{Layers, Spilled, hashes},
    table::{GroupTable, Tables},
};
use crate::{OperatorError, Result, aggregates::Aggregates, state::segments::Changes};

/// The groups of a slice.
pub(super) enum Groups {
    Open(GroupTable),
    Closed(Saved),
    /// Most of them are not in memory.
    Spilled(Box<Spilled>),
}

impl Groups {
    /// The table, for rows to come in. If what was in it is not in memory any more, another.
    pub(super) fn taking(&mut self, tables: &mut Tables, aggregates: &Aggregates) -> Result<&mut GroupTable> {
        match self {
            Self::Spilled(spilled) => spilled.table(tables, aggregates),
            Self::Open(_) | Self::Closed(_) => self.table(),
        }
    }

    /// The table of all groups.
    pub(super) fn table(&mut self) -> Result<&mut GroupTable> {
        match self {
            Self::Open(table) => Ok(table),
            Self::Spilled(_) => Err(misplaced()),
            Self::Closed(_) => Err(OperatorError::Internal("a row came for a slice that is closed".into())),
        }
    }

    /// The table of a slice that is a window of its own.
    pub(super) fn into_table(self) -> Result<GroupTable> {
        match self {
            Self::Open(table) => Ok(table),
            Self::Closed(_) | Self::Spilled(_) => {
                Err(OperatorError::Internal("a slice of several windows gave a result of its own".into()))
            }
        }
    }

    /// The keys and states, for which no more rows come. `next` is the number of the next save.
    fn close(&mut self, tables: &mut Tables, next: u32) -> Result<&mut Saved> {
        let groups = std::mem::replace(self, Self::Closed(Saved::default()));
        *self = Self::Closed(match groups {
            Self::Open(table) => tables.close(table, next)?,
            Self::Closed(saved) => saved,
            Self::Spilled(_) => return Err(misplaced()),
        });
        self.saved()
    }

    /// The keys and states as they are now. With `closed` no more rows come for them.
    pub(super) fn now(
        &mut self,
        closed: bool,
        tables: &mut Tables,
        aggregates: &Aggregates,
        next: u32,
        scratch: &mut Vec<usize>,
    ) -> Result<(usize, &[ArrayRef], &[ArrayRef])> {
        match self {
            // What has changed counts as changed in the next save, as if that had come.
            Self::Open(table) if !closed => table.save(aggregates, next, &mut Changes::new(), scratch)?,
            _ => drop(self.close(tables, next)?),
        }
        self.saved()?.all()
    }

    /// Finds out which groups have changed since the last save.
    pub(super) fn save(
        &mut self,
        aggregates: &Aggregates,
        now: u32,
        changes: &mut Changes,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        match self {
            Self::Open(table) => table.save(aggregates, now, changes, scratch),
            Self::Closed(saved) => {
                saved.add_changes(changes);
                Ok(())
            }
            Self::Spilled(spilled) => spilled.add_changes(changes),
        }
    }

    /// What they were at the last save.
    pub(super) fn saved(&mut self) -> Result<&mut Saved> {
        match self {
            Self::Open(table) => table.saved(),
            Self::Closed(saved) => Ok(saved),
            Self::Spilled(_) => Err(misplaced()),
        }
    }

    /// What is not in memory, if anything is.
    pub(super) fn spilled(&self) -> Option<&Spilled> {
        match self {
            Self::Spilled(spilled) => Some(spilled),
            Self::Open(_) | Self::Closed(_) => None,
        }
    }

    /// The bytes it holds in memory.
    pub(super) fn size(&self) -> usize {
        self.spillable() + self.listed()
    }

    /// Those of them that can be put away.
    pub(super) fn spillable(&self) -> usize {
        match self {
            Self::Open(table) => table.size(),
            Self::Closed(saved) => saved.size(),
            Self::Spilled(spilled) => spilled.spillable(),
        }
    }

    /// Those that it takes to know what was put away.
    pub(super) fn listed(&self) -> usize {
        self.spilled().map_or(0, Spilled::listed)
    }

    /// Makes arrays of what is in memory, for which no more rows come, for a window of which some is not. Returns the hashes
    /// of its keys. `next` is the number of the next save.
    pub(super) fn rest(&mut self, tables: &mut Tables, next: u32) -> Result<Vec<u64>> {
        match self {
            Self::Spilled(spilled) => {
                spilled.rest(tables, next)?;
                hashes(spilled.resting.as_ref())
            }
            Self::Open(_) | Self::Closed(_) => {
                let saved = self.close(tables, next)?;
                saved.all()?;
                hashes(Some(saved))
            }
        }
    }

    /// What there is of it, with the hashes that [`Groups::rest`] gave.
    pub(super) fn layers<'a>(&'a self, hashes: &'a [u64]) -> Result<Layers<'a>> {
        match self {
            Self::Spilled(spilled) => Ok(spilled.layers(hashes)),
            Self::Closed(saved) => Ok(Layers::new(&[], Some((saved, hashes)))),
            Self::Open(_) => Err(misplaced()),
        }
    }
}

fn misplaced() -> OperatorError {
    OperatorError::Internal("groups that are not in memory were asked for as if they were".into())
}

/// The groups of all of these slices in one table. They are closed by that.
pub(super) fn merge(
    slices: Vec<&mut Groups>,
    tables: &mut Tables,
    aggregates: &Aggregates,
    next: u32,
    scratch: &mut Vec<usize>,
) -> Result<GroupTable> {
    let mut closed = Vec::with_capacity(slices.len());
    for groups in slices {
        closed.push(groups.close(tables, next)?);
    }
    let mut table = tables.passing(aggregates)?;
    for saved in closed {
        let (rows, key, states) = saved.all()?;
        table.merge(key, states, rows, scratch)?;
    }
    Ok(table)
}
