//! With a condition: which rows of a join key are partners, and how many each has.
//!
//! ```text
//!   rows of one side ──join key──► rows of the other ──8192 or so──► condition ──► Met: the partners of each row
//!                                                                                    │
//!                       a row has its first partner, or has lost the last  ◄── Counts ┘ one more or less for each
//! ```
//!
//! Without a condition nothing of this is needed: then all rows of a join key are partners, and whether there are any is seen
//! in the index.

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take,
};

use super::{
    Shared,
    pairs::{ByJoinKey, JoinKeys},
};
use crate::{
    Result,
    changes::{EMIT_ROWS, store::Newest},
    join::PairCondition,
};

/// The partners that rows of one side have on the other.
pub(super) struct Met {
    /// Where those of each row end.
    ends: Vec<usize>,
    slots: Vec<u32>,
}

impl Met {
    /// The partners of a row: slots of the other side.
    pub(super) fn of(&self, row: usize) -> &[u32] {
        let start = row.checked_sub(1).map_or(0, |former| self.ends[former]);
        &self.slots[start..self.ends[row]]
    }
}

/// Looks for partners of rows of a side.
pub(super) struct Finder<'a> {
    pub(super) plan: &'a Shared,
    pub(super) condition: &'a PairCondition,
    pub(super) side: usize,
    /// The rows of the other side.
    pub(super) others: &'a Newest,
    pub(super) index: &'a ByJoinKey,
}

impl Finder<'_> {
    /// The partners of those of `rows` that `wanted` names.
    pub(super) fn partners(&self, rows: &RecordBatch, keys: &JoinKeys, wanted: impl Fn(usize) -> bool) -> Result<Met> {
        let mut met = Met { ends: vec![0; rows.num_rows()], slots: Vec::new() };
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for row in (0..rows.num_rows()).filter(|&row| wanted(row)) {
            for slot in keys.get(row).into_iter().flat_map(|key| self.index.matches(key)) {
                own.push(row as u32);
                other.push(slot);
                if own.len() == EMIT_ROWS {
                    self.judge(rows, &mut own, &mut other, &mut met)?;
                }
            }
        }
        self.judge(rows, &mut own, &mut other, &mut met)?;
        let mut end = 0;
        for count in &mut met.ends {
            end += *count;
            *count = end;
        }
        Ok(met)
    }

    /// Keeps the pairs that meet the condition. Until all are judged `ends` has how many each row has.
    fn judge(&self, rows: &RecordBatch, own: &mut Vec<u32>, other: &mut Vec<u32>, met: &mut Met) -> Result<()> {
        if own.is_empty() {
            return Ok(());
        }
        let chosen = UInt32Array::from(std::mem::take(own));
        let mask = self.condition.meets(chosen.len(), |side, column| {
            let place = self.plan.sides[side].place(column);
            match side == self.side {
                true => Ok(take(rows.column(place), &chosen, None)?),
                false => self.others.column(other, place),
            }
        })?;
        for ((&row, slot), _) in chosen.values().iter().zip(other.drain(..)).zip(mask.values()).filter(|(_, met)| *met)
        {
            met.ends[row as usize] += 1;
            met.slots.push(slot);
        }
        Ok(())
    }
}

/// How many partners each row of a side has, by slot.
#[derive(Default)]
pub(super) struct Counts(Vec<u32>);

impl Counts {
    pub(super) fn set(&mut self, slot: u32, partners: usize) {
        if self.0.len() <= slot as usize {
            self.0.resize(slot as usize + 1, 0);
        }
        self.0[slot as usize] = partners as u32;
    }

    /// One partner more, or one less; returns whether it is the first, or was the last.
    pub(super) fn turn(&mut self, slot: u32, comes: bool) -> bool {
        let Some(count) = self.0.get_mut(slot as usize) else { return false };
        let before = *count;
        *count = if comes { before.saturating_add(1) } else { before.saturating_sub(1) };
        before.min(*count) == 0
    }

    /// The slots have new numbers: `to` has that of each former one that is in use.
    pub(super) fn renumber(&mut self, to: &[Option<u32>]) {
        let former = std::mem::take(&mut self.0);
        for (count, slot) in former.into_iter().zip(to) {
            if let Some(slot) = slot {
                self.set(*slot, count as usize);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn size(&self) -> usize {
        4 * self.0.len()
    }
}
