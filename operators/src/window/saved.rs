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
    OperatorError, Result,
    state::segments::{Changes, own_bytes},
};

/// Keys and states of the groups of a slice.
#[derive(Default)]
pub(super) struct Saved {
    /// The key columns of all groups in order, in pieces as the groups came.
    keys: Vec<Vec<ArrayRef>>,
    /// The states of the groups there were at the last save, in pieces as they were loaded.
    states: Vec<Vec<ArrayRef>>,
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
        Self { keys: vec![keys], states: vec![states], changed_at: vec![now; groups], changes, rows: groups }
    }

    /// Notes the keys of new groups.
    pub(super) fn add_keys(&mut self, key: &[ArrayRef], rows: &UInt32Array) -> Result<()> {
        let key = key.iter().map(|column| Ok(own_bytes(take(column, rows, None)?))).collect::<Result<_>>()?;
        self.keys.push(key);
        Ok(())
    }

    /// Adds new groups whose keys have been noted, with the states that a segment has of them.
    pub(super) fn add_states(&mut self, states: Vec<ArrayRef>, groups: usize, save: u32) {
        // There may be many pieces: they are joined when all are there.
        self.states.push(states.into_iter().map(own_bytes).collect());
        *self.changes.entry(save).or_default() += groups - self.changed_at.len();
        self.changed_at.resize(groups, save);
    }

    /// Takes the states of all groups at the save `now`.
    pub(super) fn compare(&mut self, states: Vec<ArrayRef>, groups: usize, now: u32) -> Result<()> {
        join(&mut self.states)?;
        let known = self.changed_at.len();
        let mut changed: Option<BooleanBuffer> = None;
        for (new, former) in states.iter().zip(self.states.iter().flatten()) {
            let differs = differs(&new.slice(0, known), former)?;
            changed = Some(changed.map_or(differs.clone(), |changed| &changed | &differs));
        }
        for group in changed.iter().flat_map(BooleanBuffer::set_indices) {
            self.changed_at[group] = now;
        }
        self.changed_at.resize(groups, now);
        self.states = vec![states];
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
        join(&mut self.keys)?;
        join(&mut self.states)?;
        self.joined()
    }

    /// The same, once [`Saved::all`] has been asked.
    pub(super) fn joined(&self) -> Result<(usize, &[ArrayRef], &[ArrayRef])> {
        if self.keys.len().max(self.states.len()) > 1 {
            return Err(OperatorError::Internal("groups were asked for before their pieces were joined".into()));
        }
        let [keys, states] = [&self.keys, &self.states].map(|pieces| pieces.first().map_or(&[][..], |piece| piece));
        Ok((self.changed_at.len(), keys, states))
    }

    /// How many groups last changed in which save.
    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// For each group, the save in which it last changed.
    pub(super) fn changed_at(&self) -> &[u32] {
        &self.changed_at
    }

    /// The bytes it holds.
    pub(super) fn size(&self) -> usize {
        let arrays = self.keys.iter().chain(&self.states).flatten();
        arrays.map(|array| array.get_array_memory_size()).sum::<usize>() + size_of_val(&self.changed_at[..])
    }

    /// The keys and the states of the groups that changed after the save `since`, and how many they are.
    pub(super) fn since(&mut self, since: u32) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let rows = self.changes.range(since + 1..).map(|(_, groups)| groups).sum::<usize>();
        if rows == 0 {
            return Ok((0, Vec::new(), Vec::new()));
        }
        let (all, keys, states) = self.all()?;
        if rows == all {
            return Ok((rows, keys.to_vec(), states.to_vec()));
        }
        let (_, keys, states) = self.joined()?;
        let changed = self.changed_at.iter().enumerate().filter(|(_, at)| **at > since);
        let changed = UInt32Array::from_iter_values(changed.map(|(group, _)| group as u32));
        let of = |columns: &[ArrayRef]| {
            columns.iter().map(|column| Ok(own_bytes(take(column, &changed, None)?))).collect::<Result<Vec<_>>>()
        };
        Ok((rows, of(keys)?, of(states)?))
    }
}

/// Makes one piece of several.
fn join(pieces: &mut Vec<Vec<ArrayRef>>) -> Result<()> {
    let Some(columns) = pieces.first().filter(|_| pieces.len() > 1).map(Vec::len) else { return Ok(()) };
    let joined = (0..columns).map(|column| {
        let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece[column].as_ref()).collect();
        concat(&pieces)
    });
    *pieces = vec![joined.collect::<Result<_, _>>()?];
    Ok(())
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

    /// As they are loaded: some of the groups of each segment are known already from a newer one.
    #[test]
    fn pieces_that_are_loaded_are_one() {
        let mut saved = Saved::default();
        for (piece, save) in (0_i64..).zip([3, 3, 2, 1]) {
            let keys = numbers(vec![Some(2 * piece), Some(2 * piece + 1)]);
            saved.add_keys(&[keys], &UInt32Array::from(vec![0, 1])).unwrap();
            saved.add_states(vec![numbers(vec![None, Some(piece)])], 2 * piece as usize + 2, save);
        }
        assert_eq!(*saved.changes(), Changes::from([(1, 2), (2, 2), (3, 4)]));
        assert!(saved.joined().is_err());
        let (n, keys, states) = saved.since(2).unwrap();
        assert_eq!((n, &keys[0]), (4, &numbers(vec![Some(0), Some(1), Some(2), Some(3)])));
        assert_eq!(&states[0], &numbers(vec![None, Some(0), None, Some(1)]));
        assert_eq!(saved.all().unwrap().0, 8);
        let now = vec![None, Some(0), None, Some(1), None, Some(7), None, Some(3), Some(9)];
        saved.add_keys(&[numbers(vec![Some(8)])], &UInt32Array::from(vec![0])).unwrap();
        saved.compare(vec![numbers(now)], 9, 4).unwrap();
        let (n, keys, states) = saved.since(3).unwrap();
        assert_eq!((n, &keys[0], &states[0]), (2, &numbers(vec![Some(5), Some(8)]), &numbers(vec![Some(7), Some(9)])));
        assert_eq!(*saved.changes(), Changes::from([(1, 2), (2, 1), (3, 4), (4, 2)]));
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
