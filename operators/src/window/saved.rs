//! What the groups of a slice were at the last save, so that the next one writes only what has changed since.
//!
//! ```text
//!   accumulators ──state──► arrays now ─┐
//!                                       ├─ distinct? ──► changed_at[group] = number of this save
//!   arrays of the last save ────────────┘
//! ```
//!
//! Nothing is noted per row: which groups changed is found at the save, by comparing arrays. Only the key of a new group is
//! noted when it comes, because a table of groups does not give its keys without giving them up.

use arrow::{
    array::{Array, ArrayRef, BooleanBufferBuilder, UInt32Array, make_comparator},
    buffer::BooleanBuffer,
    compute::{SortOptions, concat, kernels::cmp::distinct, take},
    datatypes::DataType,
};

use crate::{
    Result,
    state::segments::{Changes, own_bytes},
};

/// Keys and states of the groups of a slice.
#[derive(Default)]
pub(super) struct Saved {
    /// The key columns of all groups in order, in pieces as the groups came.
    keys: Vec<Vec<ArrayRef>>,
    /// The states of the groups there were at the last save.
    states: Vec<ArrayRef>,
    /// For each of these groups, the save in which it last changed.
    changed_at: Vec<u32>,
    /// How many groups last changed in which save.
    changes: Changes,
    /// How many rows the table had taken at the last save.
    pub(super) rows: usize,
}

/// For each of the groups `before..after`, a row that carries it, given the group of each row. New groups may have been
/// numbered in any order.
pub(super) fn rows_of_new(groups: &[usize], before: usize, after: usize) -> UInt32Array {
    let mut rows = vec![0; after - before];
    for (row, group) in groups.iter().enumerate() {
        if let Some(new) = group.checked_sub(before) {
            rows[new] = row as u32;
        }
    }
    UInt32Array::from(rows)
}

impl Saved {
    /// Groups that no save has seen yet, and that will not change any more.
    pub(super) fn new(keys: Vec<ArrayRef>, states: Vec<ArrayRef>, groups: usize, now: u32) -> Self {
        let changes = Changes::from([(now, groups)]);
        Self { keys: vec![keys], states, changed_at: vec![now; groups], changes, rows: groups }
    }

    /// Notes the keys of new groups.
    pub(super) fn add_keys(&mut self, key: &[ArrayRef], rows: &UInt32Array) -> Result<()> {
        let key = key.iter().map(|column| Ok(own_bytes(take(column, rows, None)?))).collect::<Result<_>>()?;
        self.keys.push(key);
        Ok(())
    }

    /// Adds new groups whose keys have been noted, with the states that a segment has of them.
    pub(super) fn add_states(&mut self, states: Vec<ArrayRef>, groups: usize, save: u32) -> Result<()> {
        if self.changed_at.is_empty() {
            self.states = states;
        } else {
            let both = self.states.iter().zip(&states);
            let both = both.map(|(former, new)| concat(&[former.as_ref(), new.as_ref()]));
            self.states = both.collect::<Result<_, _>>()?;
        }
        self.changed_at.resize(groups, save);
        self.count();
        Ok(())
    }

    /// Takes the states of all groups at the save `now`.
    pub(super) fn compare(&mut self, states: Vec<ArrayRef>, groups: usize, now: u32) -> Result<()> {
        let known = self.changed_at.len();
        let mut changed: Option<BooleanBuffer> = None;
        for (new, former) in states.iter().zip(&self.states) {
            let differs = differs(&new.slice(0, known), former)?;
            changed = Some(changed.map_or(differs.clone(), |changed| &changed | &differs));
        }
        for group in changed.iter().flat_map(BooleanBuffer::set_indices) {
            self.changed_at[group] = now;
        }
        self.changed_at.resize(groups, now);
        self.states = states;
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        self.changes.clear();
        // Groups that changed together are often neighbours.
        for run in self.changed_at.chunk_by(|a, b| a == b) {
            *self.changes.entry(run[0]).or_default() += run.len();
        }
    }

    /// Adds up how many groups last changed in which save.
    pub(super) fn add_changes(&self, changes: &mut Changes) {
        for (save, groups) in &self.changes {
            *changes.entry(*save).or_default() += groups;
        }
    }

    /// The keys and the states of all groups, and how many they are.
    pub(super) fn all(&mut self) -> Result<(usize, &[ArrayRef], &[ArrayRef])> {
        self.join_keys()?;
        Ok((self.changed_at.len(), self.keys.first().map_or(&[][..], |keys| keys), &self.states))
    }

    /// For each group, the save in which it last changed.
    pub(super) fn changed_at(&self) -> &[u32] {
        &self.changed_at
    }

    /// The states of the groups there were at the last save.
    pub(super) fn states(&self) -> &[ArrayRef] {
        &self.states
    }

    /// The bytes it holds.
    pub(super) fn size(&self) -> usize {
        let arrays = self.keys.iter().flatten().chain(&self.states);
        arrays.map(|array| array.get_array_memory_size()).sum::<usize>() + size_of_val(&self.changed_at[..])
    }

    /// The keys and the states of the groups that changed after the save `since`, and how many they are.
    pub(super) fn since(&mut self, since: u32) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let rows = self.changes.range(since + 1..).map(|(_, groups)| groups).sum::<usize>();
        if rows == 0 {
            return Ok((0, Vec::new(), Vec::new()));
        }
        self.join_keys()?;
        let keys = self.keys.first().map_or(&[][..], |keys| keys);
        if rows == self.changed_at.len() {
            return Ok((rows, keys.to_vec(), self.states.clone()));
        }
        let changed = self.changed_at.iter().enumerate().filter(|(_, at)| **at > since);
        let changed = UInt32Array::from_iter_values(changed.map(|(group, _)| group as u32));
        let of = |columns: &[ArrayRef]| {
            columns.iter().map(|column| Ok(own_bytes(take(column, &changed, None)?))).collect::<Result<Vec<_>>>()
        };
        Ok((rows, of(keys)?, of(&self.states)?))
    }

    /// Makes one piece of the keys.
    fn join_keys(&mut self) -> Result<()> {
        if self.keys.len() < 2 {
            return Ok(());
        }
        let joined = (0..self.keys[0].len()).map(|column| {
            let pieces: Vec<&dyn Array> = self.keys.iter().map(|piece| piece[column].as_ref()).collect();
            concat(&pieces)
        });
        self.keys = vec![joined.collect::<Result<_, _>>()?];
        Ok(())
    }
}

/// Which rows differ. Of a type that cannot be compared all count as different, which costs bytes but is right.
fn differs(new: &ArrayRef, former: &ArrayRef) -> Result<BooleanBuffer> {
    if !new.data_type().is_nested() && !matches!(new.data_type(), DataType::Dictionary(..)) {
        return Ok(distinct(new, former)?.values().clone());
    }
    Ok(match make_comparator(new, former, SortOptions::default()) {
        Ok(order) => BooleanBuffer::collect_bool(new.len(), |row| order(row, row).is_ne()),
        Err(_) => {
            let mut all = BooleanBufferBuilder::new(new.len());
            all.append_n(new.len(), true);
            all.finish()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn numbers(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    #[test]
    fn only_what_changed_is_given_back() {
        let mut saved = Saved::default();
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "b"]));
        // The table numbered `c` before `b`.
        let rows = rows_of_new(&[0, 2, 1, 2], 0, 3);
        saved.add_keys(std::slice::from_ref(&keys), &rows).unwrap();
        saved.compare(vec![numbers(vec![Some(1), None, Some(3)])], 3, 1).unwrap();
        let (n, keys, states) = saved.since(0).unwrap();
        assert_eq!(keys[0].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "c", "b"]);
        assert_eq!((n, states[0].len()), (3, 3));

        let more: ArrayRef = Arc::new(StringArray::from(vec!["a", "d"]));
        saved.add_keys(std::slice::from_ref(&more), &rows_of_new(&[0, 3], 3, 4)).unwrap();
        saved.compare(vec![numbers(vec![Some(1), Some(2), None, Some(4)])], 4, 2).unwrap();
        let (n, keys, states) = saved.since(1).unwrap();
        assert_eq!(keys[0].as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["c", "b", "d"]);
        assert_eq!(states[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(2), None, Some(4)]);
        assert_eq!(n, 3);
        assert_eq!(saved.since(2).unwrap().0, 0);
        let mut changes = Changes::new();
        saved.add_changes(&mut changes);
        assert_eq!(changes, Changes::from([(1, 1), (2, 3)]));
    }

    #[test]
    fn lists_are_compared_row_by_row() {
        let list = |values: Vec<Option<Vec<Option<i64>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values))
        };
        let former = list(vec![Some(vec![Some(1)]), None, Some(vec![]), Some(vec![None])]);
        let new = list(vec![Some(vec![Some(1)]), Some(vec![]), Some(vec![]), Some(vec![Some(0)])]);
        assert_eq!(differs(&new, &former).unwrap().set_indices().collect::<Vec<_>>(), [1, 3]);
    }
}
