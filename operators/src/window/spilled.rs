//! Groups of a slice that are not in memory: runs of partial states in the room of the caller.
//!
//! ```text
//!   table or arrays ──spill──► a run: key │ states │ save   in PARTS by hash of the key ─┐ one part of all runs of all
//!   rows that come later ──► live table ──spill──► another run … eight of a tier ► one   ─┤ slices of a window at a time:
//!                                                                                        └► a table ──► a part of the result
//! ```
//!
//! A key may be in several runs: its state is that of all of them, merged. A save makes one run of them first (`settle`), in which
//! every key is once, with the save in which it last changed. That run is what the checkpoint is made of, so the form on disk is
//! the same with and without a budget.
//!
//! A part of all runs together may still be too much for memory. Then it is read several times, each time for some of its keys.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, take},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
};

use super::{
    form::LEADING,
    groups::Groups,
    saved::Saved,
    table::{GroupTable, States, Tables},
};
use crate::{
    OperatorError, Result,
    aggregates::Aggregates,
    key::key_hashes,
    spill::{Memory, Stored},
    state::{
        bounded::bytes_of,
        segments::{Changes, own_bytes},
    },
};

/// Into how many parts the groups of a run are cut.
const PARTS: u64 = 64;
/// So many runs that have been merged equally often become one. So a slice has few, and a group is rarely written.
const TIER: usize = 8;
/// How many times as much as in a run groups take while they are merged and become a result.
const GROWTH: usize = 6;
/// At most so many times a part is read for one window; but not for fewer rows than these, on the average.
const MOST_READS: usize = 1024;
const FEWEST_ROWS: usize = 16;

/// The groups of a slice, of which most are not in memory.
#[derive(Default)]
pub(super) struct Spilled {
    /// Oldest first.
    runs: Vec<Run>,
    /// The groups of rows that have come since.
    live: Option<GroupTable>,
    /// How many groups last changed in which save: known when there is one run and no key is in it twice.
    changes: Option<Changes>,
}

/// What was put away at once.
struct Run {
    stored: Arc<dyn Stored>,
    /// What each of its batches is.
    pieces: Vec<Piece>,
    /// How often its oldest group has been merged.
    tier: usize,
}

/// A batch of a run.
struct Piece {
    part: u64,
    rows: usize,
    bytes: usize,
}

/// Keys that are merged at once: those of a part, or a fraction of it.
#[derive(Clone, Copy)]
pub(super) struct Round {
    part: u64,
    fraction: u64,
    of: u64,
}

impl Round {
    /// Disjoint bits of the hash: the top ones say which task has the key.
    fn part_of(hash: u64) -> u64 {
        (hash >> 40) % PARTS
    }

    fn has(self, hash: u64) -> bool {
        (hash & u64::from(u32::MAX)) % self.of == self.fraction
    }
}

impl Spilled {
    /// The table for rows that come now.
    pub(super) fn table(&mut self, tables: &mut Tables, aggregates: &Aggregates) -> Result<&mut GroupTable> {
        if self.live.is_none() {
            self.live = Some(tables.table(aggregates)?);
        }
        self.live.as_mut().ok_or_else(|| OperatorError::Internal("a table was not made".into()))
    }

    /// The bytes it holds in memory.
    pub(super) fn size(&self) -> usize {
        self.live.as_ref().map_or(0, GroupTable::size)
    }

    /// Adds up how many groups last changed in which save.
    pub(super) fn add_changes(&self, changes: &mut Changes) -> Result<()> {
        let own = self.changes.as_ref().filter(|_| self.live.is_none());
        let own = own.ok_or_else(|| OperatorError::Internal("groups were saved before they were settled".into()))?;
        own.iter().for_each(|(save, groups)| *changes.entry(*save).or_default() += groups);
        Ok(())
    }

    /// The batches of its runs.
    pub(super) fn batches(&self) -> impl Iterator<Item = (Arc<dyn Stored>, usize)> + '_ {
        self.runs.iter().flat_map(|run| (0..run.pieces.len()).map(|batch| (run.stored.clone(), batch)))
    }
}

/// What groups are merged with.
pub(super) struct Tools<'a> {
    pub(super) aggregates: &'a Aggregates,
    pub(super) tables: &'a mut Tables,
    pub(super) scratch: &'a mut Vec<usize>,
    /// The number of the next save, or of the one that is going on.
    pub(super) save: u32,
}

/// Puts groups away and gets them back.
pub(super) struct Spiller {
    pub(super) memory: Memory,
    /// The key, the states, and the save in which a group last changed.
    schema: SchemaRef,
    keys: usize,
}

/// Keys and states, and for each key the save in which it last changed.
struct Merged {
    table: GroupTable,
    changed_at: Vec<u32>,
}

impl Spiller {
    /// For groups whose segments have these columns, `keys` of them the key.
    pub(super) fn new(memory: Memory, segment: &Schema, keys: usize) -> Self {
        let mut fields: Vec<_> = segment.fields()[LEADING..].to_vec();
        fields.push(Arc::new(Field::new("__changed_at", DataType::UInt32, false)));
        Self { memory, schema: Arc::new(Schema::new(fields)), keys }
    }

    /// How many bytes may be in memory between two calls. As much again is for the work.
    pub(super) fn most(&self) -> usize {
        self.memory.allowance() / 2
    }

    /// Puts away what is in memory of these groups.
    pub(super) fn spill(&self, groups: &mut Groups, tools: &mut Tools<'_>) -> Result<()> {
        let (saved, mut spilled) = match std::mem::replace(groups, Groups::Closed(Saved::default())) {
            Groups::Open(table) => (Some(tools.tables.close(table, tools.save)?), Box::default()),
            Groups::Closed(saved) => (Some(saved), Box::default()),
            Groups::Spilled(mut spilled) => {
                let live = spilled.live.take();
                (live.map(|table| tools.tables.close(table, tools.save)).transpose()?, spilled)
            }
        };
        if let Some(mut saved) = saved {
            let changed_at: ArrayRef = Arc::new(UInt32Array::from(saved.changed_at().to_vec()));
            let (rows, keys, states) = saved.all()?;
            if rows > 0 {
                let columns: Vec<ArrayRef> = keys.iter().chain(states).cloned().chain([changed_at]).collect();
                drop(saved);
                spilled.runs.push(self.write(&columns, rows)?);
                spilled.changes = None;
                self.merge_tier(&mut spilled, tools)?;
            }
        }
        *groups = Groups::Spilled(spilled);
        Ok(())
    }

    /// Writes groups of one table as a run.
    fn write(&self, columns: &[ArrayRef], rows: usize) -> Result<Run> {
        let mut of_part = vec![Vec::new(); PARTS as usize];
        for (row, hash) in key_hashes(&columns[..self.keys], rows)?.into_iter().enumerate() {
            of_part[Round::part_of(hash) as usize].push(row as u32);
        }
        let mut pieces = Vec::new();
        let parts = (0..PARTS).zip(of_part).filter(|(_, rows)| !rows.is_empty());
        let mut batches = parts.map(|(part, rows)| {
            let rows = UInt32Array::from(rows);
            let columns = columns.iter().map(|column| Ok(own_bytes(take(column, &rows, None)?)));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            pieces.push(Piece { part, rows: rows.len(), bytes: bytes_of(&columns) });
            Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
        });
        let stored = self.memory.room().store(&self.schema, &mut batches)?;
        drop(batches);
        Ok(Run { stored, pieces, tier: 0 })
    }

    /// Makes one run of the newest ones while they are many of one tier.
    fn merge_tier(&self, spilled: &mut Spilled, tools: &mut Tools<'_>) -> Result<()> {
        while let Some(newest) = spilled.runs.last() {
            let tier = newest.tier;
            let equal = spilled.runs.iter().rev().take_while(|run| run.tier == tier).count();
            if equal < TIER {
                break;
            }
            let runs = spilled.runs.split_off(spilled.runs.len() - equal);
            let (run, _) = self.fuse(&runs, tier + 1, tools)?;
            spilled.runs.push(run);
        }
        Ok(())
    }

    /// Makes one run of several, and counts how many of its groups last changed in which save.
    fn fuse(&self, runs: &[Run], tier: usize, tools: &mut Tools<'_>) -> Result<(Run, Changes)> {
        let (mut pieces, mut changes) = (Vec::new(), Changes::new());
        let mut batches = self.rounds(runs.iter()).into_iter().filter_map(|round| {
            let batch = self.merged(runs.iter(), round, tools).and_then(|merged| {
                let Some(Merged { table, changed_at }) = merged else { return Ok(None) };
                changed_at.iter().for_each(|save| *changes.entry(*save).or_default() += 1);
                let (mut columns, states) = tools.tables.states(table)?;
                columns.extend(states);
                columns.push(Arc::new(UInt32Array::from(changed_at)));
                let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
                let bytes = bytes_of(batch.columns());
                pieces.push(Piece { part: round.part, rows: batch.num_rows(), bytes });
                Ok(Some(batch))
            });
            batch.transpose()
        });
        let stored = self.memory.room().store(&self.schema, &mut batches)?;
        drop(batches);
        Ok((Run { stored, pieces, tier }, changes))
    }

    /// Makes one run of all there is of these groups, for a save.
    pub(super) fn settle(&self, groups: &mut Groups, tools: &mut Tools<'_>) -> Result<()> {
        self.spill(groups, tools)?;
        let Groups::Spilled(spilled) = groups else { return Ok(()) };
        if spilled.changes.is_none() {
            let tier = spilled.runs.iter().map(|run| run.tier).max().unwrap_or(0);
            let runs = std::mem::take(&mut spilled.runs);
            let (run, changes) = self.fuse(&runs, tier, tools)?;
            (spilled.runs, spilled.changes) = (vec![run], Some(changes));
        }
        Ok(())
    }

    /// How the groups of these slices are merged: the last comes first.
    pub(super) fn rounds_of<'g>(&self, slices: impl Iterator<Item = &'g Spilled>) -> Vec<Round> {
        self.rounds(slices.flat_map(|spilled| &spilled.runs))
    }

    fn rounds<'r>(&self, runs: impl Iterator<Item = &'r Run>) -> Vec<Round> {
        let mut sizes = vec![(0_usize, 0_usize); PARTS as usize];
        for piece in runs.flat_map(|run| &run.pieces) {
            let (rows, bytes) = &mut sizes[piece.part as usize];
            (*rows, *bytes) = (*rows + piece.rows, bytes.saturating_add(piece.bytes));
        }
        let parts = (0..PARTS).zip(sizes).filter(|(_, (rows, _))| *rows > 0);
        let rounds = parts.flat_map(|(part, (rows, bytes))| {
            let wanted = bytes.saturating_mul(GROWTH) / self.most().max(1) + 1;
            let of = wanted.min(rows.div_ceil(FEWEST_ROWS)).min(MOST_READS) as u64;
            (0..of).map(move |fraction| Round { part, fraction, of })
        });
        rounds.collect()
    }

    /// The table of a round, merged from these slices.
    pub(super) fn table_of<'g>(
        &self,
        slices: impl Iterator<Item = &'g Spilled>,
        round: Round,
        tools: &mut Tools<'_>,
    ) -> Result<Option<GroupTable>> {
        Ok(self.merged(slices.flat_map(|spilled| &spilled.runs), round, tools)?.map(|merged| merged.table))
    }

    fn merged<'r>(
        &self,
        runs: impl Iterator<Item = &'r Run>,
        round: Round,
        tools: &mut Tools<'_>,
    ) -> Result<Option<Merged>> {
        let mut merged: Option<Merged> = None;
        for run in runs {
            for (batch, _) in run.pieces.iter().enumerate().filter(|(_, piece)| piece.part == round.part) {
                let rows = self.some(run.stored.read(batch)?, |hash| round.has(hash), round.of == 1)?;
                if rows.num_rows() == 0 {
                    continue;
                }
                let Merged { table, changed_at } = match &mut merged {
                    Some(merged) => merged,
                    None => {
                        let table = tools.tables.passing(tools.aggregates)?;
                        merged.insert(Merged { table, changed_at: Vec::new() })
                    }
                };
                let (key, states, saves) = self.columns(&rows)?;
                table.merge(key, states, rows.num_rows(), tools.scratch)?;
                changed_at.resize(table.groups(), 0);
                for (group, save) in tools.scratch.iter().zip(saves) {
                    changed_at[*group] = changed_at[*group].max(*save);
                }
            }
        }
        Ok(merged)
    }

    /// The rows whose keys have such hashes.
    fn some(&self, rows: RecordBatch, is_one: impl Fn(u64) -> bool, all: bool) -> Result<RecordBatch> {
        if all {
            return Ok(rows);
        }
        let hashes = key_hashes(&rows.columns()[..self.keys], rows.num_rows())?;
        let some: BooleanArray = hashes.into_iter().map(|hash| Some(is_one(hash))).collect();
        Ok(filter_record_batch(&rows, &some)?)
    }

    /// The key, the states, and the saves of a batch of a run.
    fn columns<'b>(&self, rows: &'b RecordBatch) -> Result<(&'b [ArrayRef], &'b [ArrayRef], &'b [u32])> {
        let columns = rows.columns();
        let saves = columns.last().and_then(|saves| saves.as_primitive_opt::<UInt32Type>());
        match (saves, columns.len() == self.schema.fields().len()) {
            (Some(saves), true) => Ok((&columns[..self.keys], &columns[self.keys..columns.len() - 1], saves.values())),
            _ => Err(OperatorError::Internal("what came back from the room is not what was put there".into())),
        }
    }

    /// The groups of a batch that changed after the save `since`; `None` if there are none.
    pub(super) fn since(&self, stored: &dyn Stored, batch: usize, since: u32) -> Result<Option<States>> {
        let rows = stored.read(batch)?;
        let (_, _, saves) = self.columns(&rows)?;
        let changed: BooleanArray = saves.iter().map(|save| Some(*save > since)).collect();
        let rows = if changed.true_count() == changed.len() { rows } else { filter_record_batch(&rows, &changed)? };
        let (key, states, _) = self.columns(&rows)?;
        let own = |columns: &[ArrayRef]| columns.iter().cloned().map(own_bytes).collect::<Vec<_>>();
        Ok((rows.num_rows() > 0).then(|| (rows.num_rows(), own(key), own(states))))
    }
}
