//! Puts groups away and gets them back.
//!
//! ```text
//!   table or arrays ──spill──► a run ··· eight of a tier ► one;  of small slices ──spill_together──► their runs in one file
//!   runs of all slices of a window, and what is in memory ──round after round──► a table each ──► a part of the result
//!   at a save ──settle──► a whole run of the keys that more has come to, in place of the runs of more
//!   at a restore ──adopt──► a segment of a checkpoint is a whole run
//! ```
//!
//! A round is as many neighbouring parts of the keys as fit together. If one part is too much for memory it is read several times,
//! each time for some of its keys.
//!
//! After `settle` the newest row of each key in the runs is its state. That is also the rule of the segments of a checkpoint, so
//! the form on disk is the same with and without a budget, and what has not changed is not written again. As with segments a
//! new run takes in older ones that are not much larger, so there are about log₂(rows) of them. Of the others it is read what
//! is in the same parts as the keys that more has come to.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array},
    compute::{filter_record_batch, take, take_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
};

use super::{
    form::LEADING,
    groups::Groups,
    saved::Saved,
    slices::Slices,
    spilled::{Layers, PARTS, Piece, Round, Run, Spilled, Tools, bit_of, hashes, pack},
    table::{GroupTable, States},
};
use crate::{
    OperatorError, Result, Timestamp,
    key::key_hashes,
    spill::{Memory, Stored},
    state::{
        bounded::bytes_of,
        segments::{ABSORB, Changes, own_bytes},
    },
};

/// So many runs that have been merged equally often become one. So a slice has few, and a group is rarely written.
const TIER: usize = 8;
/// About the most bytes of a piece of several parts: smaller ones cost more to find than to read.
const PIECE_BYTES: usize = 8 << 10;
/// How many times as much as in a run groups take while they are merged and become a result.
const MERGING: usize = 6;
/// At most so many times a part is read for one window; but not for fewer rows than these, on the average.
const MOST_READS: usize = 1024;
const FEWEST_ROWS: usize = 16;

/// Puts groups away and gets them back.
pub(super) struct Spiller {
    pub(super) memory: Memory,
    /// The key, the states, and the save in which a group last changed.
    schema: SchemaRef,
    keys: usize,
}

/// Groups of a round.
struct Merged {
    table: GroupTable,
    /// For each the save in which it last changed.
    changed_at: Vec<u32>,
    /// For each the same as `whole` runs have it; 0 if they do not have it. Saves are counted from 1.
    was: Vec<u32>,
    /// For each the last layer that has something of it.
    layer: Vec<usize>,
}

/// The rows of a new run: its columns, how many they are, and whether they are all there is of their keys.
type Rows = (Vec<ArrayRef>, usize, bool);

/// How many groups last changed in which save, while that is counted.
struct Count {
    changes: Changes,
    /// Counted are already the groups as they are in the layers before this one; otherwise none is.
    since: Option<usize>,
}

impl Count {
    fn add(&mut self, merged: &Merged) -> Result<()> {
        for ((save, was), layer) in merged.changed_at.iter().zip(&merged.was).zip(&merged.layer) {
            if self.since.is_some_and(|since| *layer < since) {
                continue;
            }
            if self.since.is_some() && *was > 0 {
                let wrong = || OperatorError::Internal("a group has changed that was never counted".into());
                let before = self.changes.get_mut(was).ok_or_else(wrong)?;
                *before -= 1;
                if *before == 0 {
                    self.changes.remove(was);
                }
            }
            *self.changes.entry(*save).or_default() += 1;
        }
        Ok(())
    }
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
        let Some((columns, rows, whole)) = self.take(groups, tools)? else { return Ok(()) };
        let run = self.write(&columns, rows, whole)?;
        drop(columns);
        self.push(spilled(Some(groups))?, run, tools)
    }

    /// Puts away what is in memory of these slices, which are small, in one file: it is gone with the last of them.
    pub(super) fn spill_together(
        &self,
        slices: &mut Slices<Groups>,
        starts: &[Timestamp],
        tools: &mut Tools<'_>,
    ) -> Result<()> {
        let mut runs: Vec<(Timestamp, bool, Vec<Piece>)> = Vec::new();
        let (mut starts, mut ready) = (starts.iter(), Vec::new().into_iter());
        let next = std::iter::from_fn(|| {
            loop {
                if let Some((piece, batch)) = ready.next() {
                    if let Some((.., pieces)) = runs.last_mut() {
                        pieces.push(piece);
                    }
                    return Some(Ok(batch));
                }
                let (slice, groups) = slices.at(*starts.next()?)?;
                let cut = self.take(groups, tools).and_then(|rows| {
                    let Some((columns, rows, whole)) = rows else { return Ok(None) };
                    Ok(Some((whole, self.cut(&columns, rows)?.collect::<Result<Vec<_>>>()?)))
                });
                match cut {
                    Ok(None) => {}
                    Ok(Some((whole, cut))) => {
                        runs.push((slice.start, whole, Vec::new()));
                        ready = cut.into_iter();
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        });
        let Some(stored) = self.store(next)? else { return Ok(()) };
        let mut first = 0;
        for (start, whole, pieces) in runs {
            let run = Run { first, ..Run::new(stored.clone(), pieces, whole) };
            first += run.pieces.len();
            self.push(spilled(slices.at(start).map(|(_, groups)| groups))?, run, tools)?;
        }
        Ok(())
    }

    /// Takes out of these groups what is in memory of them, if there is anything, to be put away.
    fn take(&self, groups: &mut Groups, tools: &mut Tools<'_>) -> Result<Option<Rows>> {
        let (saved, mut spilled) = match std::mem::replace(groups, Groups::Closed(Saved::default())) {
            Groups::Open(table) => (Some(tools.tables.close(table, tools.save)?), Box::default()),
            Groups::Closed(saved) => (Some(saved), Box::default()),
            Groups::Spilled(mut spilled) => {
                spilled.rest(tools.tables, tools.save)?;
                (spilled.resting.take(), spilled)
            }
        };
        let mut taken = None;
        if let Some(mut saved) = saved {
            let changed_at: ArrayRef = Arc::new(UInt32Array::from(saved.changed_at().to_vec()));
            let (rows, keys, states) = saved.all()?;
            if rows > 0 {
                let columns: Vec<ArrayRef> = keys.iter().chain(states).cloned().chain([changed_at]).collect();
                // What comes first is all there is.
                let is_first = spilled.runs.is_empty();
                if is_first {
                    spilled.changes = Some(saved.changes().clone());
                }
                taken = Some((columns, rows, is_first));
            }
        }
        *groups = Groups::Spilled(spilled);
        Ok(taken)
    }

    /// Takes over states of keys, all there is of them, which take the place of those that it has of the same keys. `columns` are
    /// those of a segment from the key on. No rows have come yet.
    pub(super) fn adopt(
        &self,
        spilled: &mut Spilled,
        rows: RecordBatch,
        save: u32,
        tools: &mut Tools<'_>,
    ) -> Result<()> {
        let count = rows.num_rows();
        let saves: ArrayRef = Arc::new(UInt32Array::from(vec![save; count]));
        let columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain([saves]).collect();
        let run = self.write(&columns, count, true)?;
        spilled.changes = None;
        self.push(spilled, run, tools)
    }

    /// Writes groups, no key twice, as a run.
    fn write(&self, columns: &[ArrayRef], rows: usize, whole: bool) -> Result<Run> {
        let mut pieces = Vec::new();
        let mut batches = self.cut(columns, rows)?.map(|cut| {
            let (piece, batch) = cut?;
            pieces.push(piece);
            Ok(batch)
        });
        let stored = self.memory.room().store(&self.schema, &mut batches)?;
        drop(batches);
        Ok(Run::new(stored, pieces, whole))
    }

    /// Writes batches, if there are any.
    fn store(&self, batches: impl Iterator<Item = Result<RecordBatch>>) -> Result<Option<Arc<dyn Stored>>> {
        let mut batches = batches.peekable();
        if batches.peek().is_none() {
            return Ok(None);
        }
        Ok(Some(self.memory.room().store(&self.schema, &mut batches)?))
    }

    /// The rows in pieces by the parts of their keys.
    fn cut<'c>(
        &'c self,
        columns: &'c [ArrayRef],
        rows: usize,
    ) -> Result<impl Iterator<Item = Result<(Piece, RecordBatch)>> + 'c> {
        let mut of_part = vec![Vec::new(); PARTS];
        for (row, hash) in key_hashes(&columns[..self.keys], rows)?.into_iter().enumerate() {
            of_part[Round::part_of(hash)].push(row as u32);
        }
        let each = bytes_of(columns) / rows.max(1) + 1;
        let sizes: Vec<usize> = of_part.iter().map(|rows| rows.len().saturating_mul(each)).collect();
        Ok(pack(&sizes, PIECE_BYTES).into_iter().map(move |parts| {
            let own = parts.clone().filter(|part| !of_part[*part].is_empty()).fold(0, |own, part| own | 1 << part);
            let rows = UInt32Array::from(of_part[parts.clone()].concat());
            let columns = columns.iter().map(|column| Ok(own_bytes(take(column, &rows, None)?)));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let bytes = bytes_of(&columns);
            let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
            let (_, _, saves) = self.columns(&batch)?;
            let newest = saves.iter().copied().max().unwrap_or_default();
            Ok((Piece { parts: own, newest, rows: rows.len() as u32, bytes }, batch))
        }))
    }

    /// Adds a run, and makes one of the newest ones while they are many of one tier.
    fn push(&self, spilled: &mut Spilled, run: Run, tools: &mut Tools<'_>) -> Result<()> {
        spilled.runs.push(run);
        while let Some(newest) = spilled.runs.last() {
            let (tier, whole) = (newest.tier, newest.whole);
            let equal = spilled.runs.iter().rev().take_while(|run| run.tier == tier && run.whole == whole).count();
            if equal < TIER {
                break;
            }
            let runs = spilled.runs.split_off(spilled.runs.len() - equal);
            let fused =
                self.fuse(&Layers::new(&runs, None), &mut Count { changes: Changes::new(), since: None }, tools)?;
            spilled.runs.extend(fused.map(|run| Run { tier: tier + 1, whole, ..run }));
        }
        Ok(())
    }

    /// Makes the newest row of each key, in its runs, the state of it, for a save: writes those to which more has come, and counts
    /// which group last changed when.
    pub(super) fn settle(&self, spilled: &mut Spilled, tools: &mut Tools<'_>) -> Result<()> {
        spilled.rest(tools.tables, tools.save)?;
        let whole = spilled.whole();
        if spilled.changes.is_some() && spilled.resting.is_none() && whole == spilled.runs.len() {
            return Ok(());
        }
        let held = spilled.resting.as_ref().map_or(0, |saved| saved.changed_at().len());
        let mut new = held + spilled.runs[whole..].iter().map(|run| run.rows).sum::<usize>();
        let mut first = whole;
        while let Some(before) = first.checked_sub(1).filter(|at| spilled.runs[*at].rows <= ABSORB * new) {
            new += spilled.runs[before].rows;
            first = before;
        }
        let hashes = hashes(spilled.resting.as_ref())?;
        let (mut count, of_older) = match spilled.changes.take() {
            Some(changes) => {
                let more = spilled.runs[whole..].iter().flat_map(|run| &run.pieces).map(|piece| piece.parts);
                let parts = more.chain(hashes.iter().map(|hash| bit_of(*hash))).fold(0, |all, parts| all | parts);
                (Count { changes, since: Some(whole) }, parts)
            }
            None => (Count { changes: Changes::new(), since: None }, u64::MAX),
        };
        let run = self.fuse(&Layers { first, of_older, ..spilled.layers(&hashes) }, &mut count, tools)?;
        spilled.runs.truncate(first);
        spilled.runs.extend(run.map(|run| Run { whole: true, ..run }));
        (spilled.resting, spilled.changes) = (None, Some(count.changes));
        Ok(())
    }

    /// Makes one run of the groups of which there is something in the layer `first` or a later one, if there are any. Counts all
    /// groups that are asked for.
    fn fuse(&self, layers: &Layers<'_>, count: &mut Count, tools: &mut Tools<'_>) -> Result<Option<Run>> {
        let mut pieces = Vec::new();
        let mut rounds = self.rounds(std::slice::from_ref(layers)).into_iter();
        let mut ready = Vec::new().into_iter();
        let next = std::iter::from_fn(|| {
            loop {
                if let Some((piece, batch)) = ready.next() {
                    pieces.push(piece);
                    return Some(Ok(batch));
                }
                match self.fused(layers, &rounds.next()?, count, tools) {
                    Ok(cut) => ready = cut.into_iter(),
                    Err(error) => return Some(Err(error)),
                }
            }
        });
        Ok(self.store(next)?.map(|stored| Run::new(stored, pieces, false)))
    }

    /// What [`Spiller::fuse`] writes of a round.
    fn fused(
        &self,
        layers: &Layers<'_>,
        round: &Round,
        count: &mut Count,
        tools: &mut Tools<'_>,
    ) -> Result<Vec<(Piece, RecordBatch)>> {
        let merged = self.merged(std::slice::from_ref(layers), round, tools)?;
        let Some(merged) = merged else { return Ok(Vec::new()) };
        count.add(&merged)?;
        let Merged { table, changed_at, layer, .. } = merged;
        let written = layer.iter().enumerate().filter(|(_, layer)| **layer >= layers.first);
        let written = UInt32Array::from_iter_values(written.map(|(group, _)| group as u32));
        let (mut columns, states) = tools.tables.states(table)?;
        columns.extend(states);
        columns.push(Arc::new(UInt32Array::from(changed_at)));
        if written.len() < layer.len() {
            columns = columns.iter().map(|column| take(column, &written, None)).collect::<Result<_, _>>()?;
        }
        self.cut(&columns, written.len())?.collect()
    }

    /// How the groups of these slices are merged.
    pub(super) fn rounds(&self, slices: &[Layers<'_>]) -> Vec<Round> {
        let mut sizes = Sizes::default();
        for layers in slices {
            for (layer, run) in layers.runs.iter().enumerate() {
                run.pieces.iter().filter(|piece| layers.asks(layer, piece)).for_each(|piece| sizes.add(piece));
            }
            if let Some((saved, _)) = layers.held {
                sizes.add_all(saved.changed_at().len(), saved.size());
            }
        }
        sizes.rounds(self.most())
    }

    /// The table of a round, merged from these slices.
    pub(super) fn table_of(
        &self,
        slices: &[Layers<'_>],
        round: &Round,
        tools: &mut Tools<'_>,
    ) -> Result<Option<GroupTable>> {
        Ok(self.merged(slices, round, tools)?.map(|merged| merged.table))
    }

    fn merged(&self, slices: &[Layers<'_>], round: &Round, tools: &mut Tools<'_>) -> Result<Option<Merged>> {
        let mut merged = None;
        for layers in slices {
            let Layers { runs, held, .. } = layers;
            let whole = runs.iter().take_while(|run| run.whole).count();
            let mut newer = (whole > 1).then(|| tools.tables.passing(tools.aggregates)).transpose()?;
            for (layer, run) in runs[..whole].iter().enumerate().rev() {
                for rows in self.of_round(run, round, |piece| layers.asks(layer, piece)) {
                    let rows = match &mut newer {
                        Some(newer) => self.without(newer, rows?, tools.scratch)?,
                        None => rows?,
                    };
                    add(&mut merged, self.columns(&rows)?, (layer, true), tools)?;
                }
            }
            for (layer, run) in runs.iter().enumerate().skip(whole) {
                for rows in self.of_round(run, round, |_| true) {
                    add(&mut merged, self.columns(&rows?)?, (layer, false), tools)?;
                }
            }
            if let Some((saved, hashes)) = held {
                let (_, keys, states) = saved.joined()?;
                let own = hashes.iter().enumerate().filter(|(_, hash)| round.has(**hash));
                let own = UInt32Array::from_iter_values(own.map(|(row, _)| row as u32));
                let of = |columns: &[ArrayRef]| {
                    columns.iter().map(|column| Ok(take(column, &own, None)?)).collect::<Result<Vec<_>>>()
                };
                let saves: Vec<u32> = own.values().iter().map(|row| saved.changed_at()[*row as usize]).collect();
                add(&mut merged, (&of(keys)?, &of(states)?, &saves), (runs.len(), false), tools)?;
            }
        }
        Ok(merged)
    }

    /// The rows of a run that are in a round, in batches, of those pieces that are asked for.
    fn of_round<'r>(
        &'r self,
        run: &'r Run,
        round: &'r Round,
        asked: impl Fn(&Piece) -> bool + 'r,
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'r {
        let pieces = run.pieces.iter().enumerate().filter(move |(_, piece)| round.meets(piece.parts) && asked(piece));
        pieces.map(move |(batch, piece)| {
            let rows = self.read(run, batch, piece)?;
            if round.covers(piece.parts) {
                return Ok(rows);
            }
            let hashes = key_hashes(self.columns(&rows)?.0, rows.num_rows())?;
            let some: BooleanArray = hashes.into_iter().map(|hash| Some(round.has(hash))).collect();
            Ok(filter_record_batch(&rows, &some)?)
        })
    }

    /// A piece of a run. Of one that covers it a round takes all rows as they are: so it must be the one that was put there.
    fn read(&self, run: &Run, batch: usize, piece: &Piece) -> Result<RecordBatch> {
        let rows = run.stored.read(run.first + batch)?;
        let (key, ..) = self.columns(&rows)?;
        let first: Vec<ArrayRef> = key.iter().map(|column| column.slice(0, column.len().min(1))).collect();
        let is_it = rows.num_rows() == piece.rows as usize
            && key_hashes(&first, 1)?.iter().all(|hash| bit_of(*hash) & piece.parts != 0);
        if is_it { Ok(rows) } else { Err(not_what_was_put()) }
    }

    /// The rows of an older run whose keys are in no `newer` one, to which these are added.
    fn without(&self, newer: &mut GroupTable, rows: RecordBatch, scratch: &mut Vec<usize>) -> Result<RecordBatch> {
        let (key, ..) = self.columns(&rows)?;
        let new = newer.new_keys(key, rows.num_rows(), scratch)?;
        Ok(if new.len() == rows.num_rows() { rows } else { take_record_batch(&rows, &new)? })
    }

    /// The key, the states, and the saves of a batch of a run.
    fn columns<'b>(&self, rows: &'b RecordBatch) -> Result<(&'b [ArrayRef], &'b [ArrayRef], &'b [u32])> {
        let columns = rows.columns();
        let saves = columns.last().and_then(|saves| saves.as_primitive_opt::<UInt32Type>());
        match (saves, columns.len() == self.schema.fields().len()) {
            (Some(saves), true) => Ok((&columns[..self.keys], &columns[self.keys..columns.len() - 1], saves.values())),
            _ => Err(not_what_was_put()),
        }
    }

    /// How the groups that changed after the save `since` are read. After [`Spiller::settle`].
    pub(super) fn rounds_since(&self, spilled: &Spilled, since: u32) -> Vec<Round> {
        let mut sizes = Sizes::default();
        let pieces = spilled.runs.iter().flat_map(|run| &run.pieces);
        pieces.filter(|piece| piece.newest > since).for_each(|piece| sizes.add(piece));
        sizes.rounds(self.most())
    }

    /// Of a round the groups that changed after the save `since`. A row that takes the place of another is not older, so runs
    /// without a change are not asked.
    pub(super) fn since(
        &self,
        spilled: &Spilled,
        round: &Round,
        since: u32,
        tools: &mut Tools<'_>,
    ) -> Result<Vec<States>> {
        let mut newer = tools.tables.passing(tools.aggregates)?;
        let mut states = Vec::new();
        for run in spilled.runs.iter().rev() {
            for rows in self.of_round(run, round, |piece| piece.newest > since) {
                let rows = self.without(&mut newer, rows?, tools.scratch)?;
                let (.., saves) = self.columns(&rows)?;
                let changed: BooleanArray = saves.iter().map(|save| Some(*save > since)).collect();
                let is_all = changed.true_count() == changed.len();
                let rows = if is_all { rows } else { filter_record_batch(&rows, &changed)? };
                let (key, of_key, _) = self.columns(&rows)?;
                let own = |columns: &[ArrayRef]| columns.iter().cloned().map(own_bytes).collect::<Vec<_>>();
                states.extend((rows.num_rows() > 0).then(|| (rows.num_rows(), own(key), own(of_key))));
            }
        }
        tools.tables.take_keys(newer)?;
        Ok(states)
    }
}

fn not_what_was_put() -> OperatorError {
    OperatorError::Internal("what came back from the room is not what was put there".into())
}

/// Groups that have been put away.
fn spilled(groups: Option<&mut Groups>) -> Result<&mut Spilled> {
    match groups {
        Some(Groups::Spilled(spilled)) => Ok(spilled),
        _ => Err(OperatorError::Internal("groups that were put away are not there".into())),
    }
}

/// Merges rows into the groups of a round: of a layer, which is `whole` or not.
fn add(
    merged: &mut Option<Merged>,
    (key, states, saves): (&[ArrayRef], &[ArrayRef], &[u32]),
    (from, whole): (usize, bool),
    tools: &mut Tools<'_>,
) -> Result<()> {
    if saves.is_empty() {
        return Ok(());
    }
    let Merged { table, changed_at, was, layer } = match merged {
        Some(merged) => merged,
        None => {
            let table = tools.tables.passing(tools.aggregates)?;
            merged.insert(Merged { table, changed_at: Vec::new(), was: Vec::new(), layer: Vec::new() })
        }
    };
    table.merge(key, states, saves.len(), tools.scratch)?;
    changed_at.resize(table.groups(), 0);
    was.resize(table.groups(), 0);
    layer.resize(table.groups(), 0);
    for (group, save) in tools.scratch.iter().zip(saves) {
        changed_at[*group] = changed_at[*group].max(*save);
        if whole {
            was[*group] = *save;
        }
        layer[*group] = layer[*group].max(from);
    }
    Ok(())
}

/// How much there is of each part.
struct Sizes([(usize, usize); PARTS]);

impl Default for Sizes {
    fn default() -> Self {
        Self([(0, 0); PARTS])
    }
}

impl Sizes {
    fn add(&mut self, piece: &Piece) {
        self.spread(piece.parts, piece.rows as usize, piece.bytes);
    }

    fn add_all(&mut self, rows: usize, bytes: usize) {
        if rows > 0 {
            self.spread(u64::MAX, rows, bytes);
        }
    }

    /// Evenly among parts, a bit each: those of a piece are small.
    fn spread(&mut self, parts: u64, rows: usize, bytes: usize) {
        let among = (parts.count_ones() as usize).max(1);
        let own = self.0.iter_mut().enumerate().filter(|(part, _)| parts & (1 << part) != 0);
        for (_, (of_rows, of_bytes)) in own {
            *of_rows += rows.div_ceil(among);
            *of_bytes = of_bytes.saturating_add(bytes / among + 1);
        }
    }

    /// Rounds that need at most so many bytes while they are merged, if that can be.
    fn rounds(&self, most: usize) -> Vec<Round> {
        let needed = self.0.map(|(_, bytes)| bytes.saturating_mul(MERGING));
        let rounds = pack(&needed, most).into_iter().flat_map(|parts| {
            let (rows, _) = self.0[parts.start];
            let wanted = if parts.len() > 1 { 1 } else { needed[parts.start] / most.max(1) + 1 };
            let of = wanted.min(rows.div_ceil(FEWEST_ROWS)).clamp(1, MOST_READS) as u64;
            (0..of).map(move |fraction| Round { parts: parts.clone(), fraction, of })
        });
        rounds.collect()
    }
}

#[cfg(test)]
mod tests;
