//! How a window aggregation keeps to its memory: when it puts groups away, and how it goes on with them.
//!
//! ```text
//!   process ──► keep_within: too much? the largest slices are spilled, until half of that is left
//!   advance ──► fire: round after round, a part of the window's result each
//!   save ─────► settle each slice ──► seal: segments that are made in the room, not in memory
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{
    Slice,
    aggregate::{Shared, constant, result},
    groups::Groups,
    progress::Owed,
    slices::Slices,
    spilled::{Round, Spilled, Spiller, Tools},
};
use crate::{
    OperatorError, Result, Timestamp,
    spill::{Memory, Stored},
    state::segments::{Sealed, key_group_column},
};

/// A segment of what is not in memory has at most about this part of the allowance, because it is read as a whole when it is
/// uploaded; but not less than so many bytes.
const SEGMENTS: usize = 8;
const SMALLEST_SEGMENT: usize = 1 << 20;

/// What a window aggregation with a budget has besides its slices.
pub(super) struct Spilling {
    spiller: Spiller,
    /// The rounds that the window which is on its way out has still to go through.
    rounds: Option<Vec<Round>>,
}

impl Spilling {
    pub(super) fn new(plan: &Shared, memory: &Memory) -> Self {
        let spiller = Spiller::new(memory.clone(), &plan.form.columns, plan.key.len());
        Self { spiller, rounds: None }
    }

    /// Puts groups away when there are too many in memory, the largest slices first.
    pub(super) fn keep_within(&self, slices: &mut Slices<Groups>, tools: &mut Tools<'_>) -> Result<()> {
        let most = self.spiller.most();
        let mut held: usize = slices.contents().map(Groups::size).sum();
        if held <= most {
            return Ok(());
        }
        tools.tables.within(most);
        slices.forget_grown();
        let mut sizes: Vec<(usize, Timestamp)> =
            slices.held().map(|(slice, groups)| (groups.size(), slice.start)).filter(|(bytes, _)| *bytes > 0).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        held = sizes.iter().map(|(bytes, _)| bytes).sum();
        for (bytes, start) in sizes {
            if held <= most / 2 {
                break;
            }
            if let Some((_, groups)) = slices.at(start) {
                self.spiller.spill(groups, tools)?;
            }
            held -= bytes;
        }
        Ok(())
    }

    /// The next part of the result of a window that is made of these slices, of which some are not in memory, for the keys that
    /// are owed it; and whether there is more.
    pub(super) fn fire(
        &mut self,
        plan: &Shared,
        window: Slice,
        slices: &mut [&mut Groups],
        tools: &mut Tools<'_>,
        owed: Option<&Owed>,
    ) -> Result<(RecordBatch, bool)> {
        if self.rounds.is_none() {
            for groups in slices.iter_mut() {
                self.spiller.spill(groups, tools)?;
            }
            self.rounds = Some(self.spiller.rounds_of(slices.iter().filter_map(|groups| groups.spilled())));
        }
        let round = self.rounds.as_mut().and_then(Vec::pop);
        let more = self.rounds.as_ref().is_some_and(|rounds| !rounds.is_empty());
        if !more {
            self.rounds = None;
        }
        let spilled = slices.iter().filter_map(|groups| groups.spilled());
        let table = round.map(|round| self.spiller.table_of(spilled, round, tools)).transpose()?.flatten();
        let Some(table) = table else { return Ok((RecordBatch::new_empty(plan.output.columns().clone()), more)) };
        let rows = table.groups();
        let (key, values) = tools.tables.results(table)?;
        let results = result(plan, window, rows, key.clone(), values)?;
        Ok(match owed {
            Some(owed) => (owed.keep(results, &key)?, more),
            None => (results, more),
        })
    }

    /// Makes what is not in memory ready for a save.
    pub(super) fn settle(&self, slices: &mut Slices<Groups>, tools: &mut Tools<'_>) -> Result<()> {
        if self.rounds.is_some() {
            return Err(OperatorError::Internal("a window was saved with a result half-way out".into()));
        }
        let spilled = slices.held().filter(|(_, groups)| groups.spilled().is_some());
        spilled.map(|(_, groups)| groups).try_for_each(|groups| self.spiller.settle(groups, tools))
    }

    /// Segments of what is not in memory, of the groups that changed after the save `since`.
    pub(super) fn seal(&self, plan: &Shared, slices: &mut Slices<Groups>, since: u32) -> Result<Vec<Sealed>> {
        let batches = |(slice, groups): (Slice, &mut Groups)| {
            let batches: Vec<_> = groups.spilled().into_iter().flat_map(Spilled::batches).collect();
            batches.into_iter().map(move |(stored, batch)| (slice.start, stored, batch))
        };
        let all: Vec<_> = slices.held().flat_map(batches).collect();
        let mut changed = all
            .into_iter()
            .filter_map(|(start, stored, batch)| self.segment(plan, start, &stored, batch, since).transpose())
            .peekable();
        let most = SMALLEST_SEGMENT.max(self.spiller.memory.allowance() / SEGMENTS);
        let mut sealed = Vec::new();
        while changed.peek().is_some() {
            let mut bytes = 0;
            let mut some = std::iter::from_fn(|| {
                let next = if bytes < most { changed.next()? } else { return None };
                bytes += next.as_ref().map_or(0, RecordBatch::get_array_memory_size);
                Some(next)
            });
            sealed.push(Sealed::Stored(self.spiller.memory.room().store(&plan.form.columns, &mut some)?));
        }
        Ok(sealed)
    }

    /// A batch of a run in the form of a segment.
    fn segment(
        &self,
        plan: &Shared,
        start: Timestamp,
        stored: &Arc<dyn Stored>,
        batch: usize,
        since: u32,
    ) -> Result<Option<RecordBatch>> {
        let Some((rows, key, states)) = self.spiller.since(stored.as_ref(), batch, since)? else { return Ok(None) };
        let mut columns = vec![key_group_column(&key, rows)?, constant(start, rows)];
        columns.extend(key.into_iter().chain(states));
        Ok(Some(RecordBatch::try_new(plan.form.columns.clone(), columns)?))
    }
}
