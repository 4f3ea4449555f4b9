//! Which pairs of rows come and go, and what that adds up to for each row of the result.
//!
//! ```text
//!   row 5 was with 8 and 9: (5,8)−  (5,9)−          per output key the first says whether it was there,
//!   row 5 is now with 9:    (5,9)+              ──► the last whether it is there now: delete (5,8), update (5,9)
//!
//!   row 8 was with 5 only, and is with none: (·,8)+ in an outer join, (8)− in a semi join, (8)+ in an anti join
//! ```

use std::collections::BTreeSet;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array},
    compute::{kernels::zip::zip, take},
};

use super::{LEFT, RIGHT, Shared, Source, nulls};
use crate::{
    Result,
    changes::{DELETE, INSERT, UPDATE, store::Newest},
    key::{
        bytes::Key,
        encoded::{ByKey, Grouped, KeyBytes, KeyEncoder},
    },
};

/// The rows of a side by join key: the slots of its store.
#[derive(Default)]
pub(super) struct ByJoinKey {
    slots: ByKey<Key, BTreeSet<u32>>,
    entries: usize,
    key_bytes: usize,
}

impl ByJoinKey {
    /// Adds a row; returns whether it is the first with this key.
    pub(super) fn add(&mut self, key: &[u8], slot: u32) -> bool {
        self.entries += 1;
        if let Some(slots) = self.slots.get_mut(key) {
            slots.insert(slot);
            return false;
        }
        self.slots.insert(key.into(), BTreeSet::from([slot]));
        self.key_bytes += key.len();
        true
    }

    /// Removes a row; returns whether it was the last with this key.
    pub(super) fn remove(&mut self, key: &[u8], slot: u32) -> bool {
        let Some(slots) = self.slots.get_mut(key) else { return true };
        self.entries -= usize::from(slots.remove(&slot));
        if !slots.is_empty() {
            return false;
        }
        self.slots.remove(key);
        self.key_bytes -= key.len();
        if self.slots.capacity() > 1024 + 8 * self.slots.len() {
            self.slots.shrink_to(2 * self.slots.len());
        }
        true
    }

    pub(super) fn matches(&self, key: &[u8]) -> impl Iterator<Item = u32> + '_ {
        self.slots.get(key).into_iter().flatten().copied()
    }

    /// How many rows have a key.
    pub(super) fn count(&self, key: &[u8]) -> usize {
        self.slots.get(key).map_or(0, BTreeSet::len)
    }

    /// The slots have new numbers, in the order of the former ones: `to` has that of each that is in use.
    pub(super) fn renumber(&mut self, to: &[Option<u32>]) {
        for slots in self.slots.values_mut() {
            *slots = slots.iter().filter_map(|&slot| to[slot as usize]).collect();
        }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        self.slots.len() * size_of::<(Key, BTreeSet<u32>)>() + self.key_bytes + 16 * self.entries
    }
}

/// The join keys of some rows.
pub(super) struct JoinKeys {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) bytes: KeyBytes,
}

impl JoinKeys {
    /// The key of a row; `None` when it has no partner.
    pub(super) fn get(&self, row: usize) -> Option<&[u8]> {
        (!nulls(&self.columns, row)).then(|| self.bytes.get(row))
    }
}

/// A row of the result that comes or goes.
#[derive(Clone, Copy)]
struct Pair {
    comes: bool,
    /// Among the rows of the side that changes, and the slot on the other one.
    own: Option<u32>,
    other: Option<u32>,
    time: i64,
}

/// Pairs in the order in which they come and go, because of changes of one side.
pub(super) struct Pairs<'p> {
    plan: &'p Shared,
    side: usize,
    pairs: Vec<Pair>,
}

impl<'p> Pairs<'p> {
    pub(super) fn new(plan: &'p Shared, side: usize) -> Self {
        Self { plan, side, pairs: Vec::new() }
    }

    /// The row `own` comes or goes, and with it its pairs with `partners`. `turns` says of each of these, in their order, whether
    /// it has had no partner before `own` came, or has none when `own` has gone.
    pub(super) fn row(
        &mut self,
        comes: bool,
        own: u32,
        partners: impl Iterator<Item = u32>,
        mut turns: impl FnMut(u32) -> bool,
        time: i64,
    ) {
        let (mine, theirs) = (self.plan.alone[self.side], self.plan.alone[1 - self.side]);
        let mut met = false;
        for other in partners {
            met = true;
            let alone = theirs.filter(|_| turns(other));
            let alone =
                alone.map(|with_partner| Pair { comes: with_partner == comes, own: None, other: Some(other), time });
            let pair = self.plan.pairs.then_some(Pair { comes, own: Some(own), other: Some(other), time });
            // What goes is said first: a row without a partner may have the key that it has with one.
            if comes {
                self.pairs.extend(alone.into_iter().chain(pair));
            } else {
                self.pairs.extend(pair.into_iter().chain(alone));
            }
            if !self.plan.pairs && theirs.is_none() {
                break;
            }
        }
        if mine.is_some_and(|with_partner| with_partner == met) {
            self.pairs.push(Pair { comes, own: Some(own), other: None, time });
        }
    }

    /// What the pairs add up to. `own` are the rows of the store of the side that changes, `others` is the store of the other.
    pub(super) fn fold(self, own: &RecordBatch, others: &Newest, encoder: &KeyEncoder) -> Result<Told> {
        let (mut told, plan) = (Told { side: self.side, own: own.clone(), changes: Vec::new(), next: 0 }, self.plan);
        let key = plan.output.change_key().unwrap_or_default();
        let sources: Vec<Source> = key.iter().map(|&column| plan.sources[column]).collect();
        let key = encoder.encode(&told.columns(plan, &sources, self.pairs.iter().copied(), others)?)?;
        told.changes = self.chosen(&key);
        Ok(told)
    }

    /// For each output key one pair at most, and what its change does.
    fn chosen(&self, keys: &KeyBytes) -> Vec<(Pair, u8)> {
        let grouped = Grouped::new(keys, 0..self.pairs.len());
        // The first and the last pair of each key.
        let ends = grouped.rows().map(|pairs| (pairs[0] as usize, pairs[pairs.len() - 1] as usize));
        let is_other = |at: usize| self.pairs[at].own.is_none().then_some(self.pairs[at].other);
        let change = |(first, last): (usize, usize)| match (self.pairs[first].comes, self.pairs[last].comes) {
            (true, true) => Some((last, INSERT)),
            // Rows of the other side are what they were.
            (false, true) if is_other(first).is_some() && is_other(first) == is_other(last) => None,
            (false, true) => Some((last, UPDATE)),
            // The row as it was before any of this.
            (false, false) => Some((first, DELETE)),
            (true, false) => None,
        };
        ends.filter_map(change).map(|(at, op)| (self.pairs[at], op)).collect()
    }
}

/// What pairs add up to, to be told in steps. Slots of the other side must stay what they are until that is done.
pub(super) struct Told {
    side: usize,
    own: RecordBatch,
    /// The rows of the result that change, and what each change does.
    changes: Vec<(Pair, u8)>,
    next: usize,
}

impl Told {
    /// The next changes, up to `most`: the visible columns of the result, what each change does, and when.
    pub(super) fn step(
        &mut self,
        plan: &Shared,
        others: &Newest,
        most: usize,
    ) -> Result<(Vec<ArrayRef>, Vec<u8>, Vec<i64>)> {
        let end = self.changes.len().min(self.next + most);
        let changes = &self.changes[self.next..end];
        let columns = self.columns(plan, &plan.sources, changes.iter().map(|(pair, _)| *pair), others)?;
        let (ops, times) = changes.iter().map(|(pair, op)| (*op, pair.time)).unzip();
        self.next = end;
        Ok((columns, ops, times))
    }

    /// The side that has changed.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// Whether all has been told.
    pub(super) fn is_done(&self) -> bool {
        self.next == self.changes.len()
    }

    /// Columns of the result for some pairs.
    fn columns(
        &self,
        plan: &Shared,
        sources: &[Source],
        pairs: impl Iterator<Item = Pair> + Clone,
        others: &Newest,
    ) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = pairs.clone().filter_map(|pair| pair.other).collect();
        let mut next = 0..;
        let own = UInt32Array::from_iter(pairs.clone().map(|pair| pair.own));
        let other = UInt32Array::from_iter(pairs.map(|pair| pair.other.and_then(|_| next.next())));
        let of = |side: usize, column: usize| -> Result<ArrayRef> {
            let place = plan.sides[side].place(column);
            let (rows, column) = match side == self.side {
                true => (&own, self.own.column(place).clone()),
                // A batch without rows cannot be taken from, not even nothing.
                false if slots.is_empty() => {
                    return Ok(new_null_array(plan.sides[side].columns.field(place).data_type(), other.len()));
                }
                false => (&other, others.column(&slots, place)?),
            };
            match column.is_empty() {
                true => Ok(new_null_array(column.data_type(), rows.len())),
                false => Ok(take(&column, rows, None)?),
            }
        };
        let rows = if self.side == LEFT { &own } else { &other };
        let column = |source: &Source| match *source {
            Source::Side(side, column) => of(side, column),
            Source::Either(left, right) => {
                let is_left = BooleanArray::from_iter(rows.iter().map(|row| Some(row.is_some())));
                Ok(zip(&is_left, &of(LEFT, left)?, &of(RIGHT, right)?)?)
            }
        };
        sources.iter().map(column).collect()
    }
}
