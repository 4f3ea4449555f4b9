//! Which rows have a key: the hashes of the keys, in order.
//!
//! ```text
//!   rows by event time     index: (hash, row)            the rows of a key between two times: one binary search, and on
//!     0  k=7  at 10          (0x03…, 1)
//!     1  k=2  at 11          (0x91…, 0) ◄── k=7 ──►      rows are sorted by time, so a stretch of time is a range of rows
//!     2  k=7  at 15          (0x91…, 2)
//! ```
//!
//! Hashes are the engine's own (see [`key`](crate::key)). Equal hashes are checked by comparing the keys.

use std::ops::Range;

use arrow::{
    array::{ArrayRef, BooleanArray, DynComparator, RecordBatch, make_comparator},
    buffer::NullBuffer,
    compute::{SortOptions, filter_record_batch},
};

use crate::{
    Result,
    key::{comparable, key_hashes},
};

/// The keys of a batch.
pub(super) struct Keys {
    columns: Vec<ArrayRef>,
    hashes: Vec<u64>,
    /// A key with a null in any column equals nothing.
    valid: Option<NullBuffer>,
}

impl Keys {
    pub(super) fn of(rows: &RecordBatch, key: &[usize]) -> Result<Self> {
        let columns: Vec<ArrayRef> = key.iter().map(|&column| comparable(rows.column(column))).collect();
        let hashes = key_hashes(&columns, rows.num_rows())?;
        let valid = columns.iter().fold(None, |valid, column| NullBuffer::union(valid.as_ref(), column.nulls()));
        Ok(Self { columns, hashes, valid })
    }

    pub(super) fn rows(&self) -> usize {
        self.hashes.len()
    }

    /// Whether the key of a row can equal another.
    pub(super) fn is_valid(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.is_valid(row))
    }
}

/// Without the rows whose key equals nothing.
pub(super) fn with_valid_key(rows: &RecordBatch, key: &[usize]) -> Result<RecordBatch> {
    let nulls = key.iter().map(|&column| rows.column(column).nulls());
    match nulls.fold(None, |valid, nulls| NullBuffer::union(valid.as_ref(), nulls)) {
        Some(valid) if valid.null_count() > 0 => {
            Ok(filter_record_batch(rows, &BooleanArray::new(valid.into_inner(), None))?)
        }
        _ => Ok(rows.clone()),
    }
}

/// Finds the rows of a key.
pub(super) struct KeyIndex {
    keys: Keys,
    /// (hash, row) of all rows whose key can equal another.
    order: Vec<(u64, u32)>,
}

impl KeyIndex {
    pub(super) fn of(rows: &RecordBatch, key: &[usize]) -> Result<Self> {
        Ok(Self::over(Keys::of(rows, key)?))
    }

    fn over(keys: Keys) -> Self {
        let valid = (0..keys.rows()).filter(|&row| keys.is_valid(row));
        let mut order: Vec<(u64, u32)> = valid.map(|row| (keys.hashes[row], row as u32)).collect();
        order.sort_unstable();
        Self { keys, order }
    }

    /// The bytes it needs per row, about.
    pub(super) const BYTES_PER_ROW: usize = 24;

    /// The last row of each key, in order.
    pub(super) fn last_rows(&self) -> Result<Vec<u32>> {
        let lookup = Lookup::new(&self.keys, self)?;
        let is_last = |at: &usize| {
            let (hash, row) = self.order[*at];
            let later = self.order[at + 1..].iter().take_while(|(other, _)| *other == hash);
            !later.into_iter().any(|&(_, other)| lookup.equal(row as usize, other as usize))
        };
        let mut rows: Vec<u32> = (0..self.order.len()).filter(is_last).map(|at| self.order[at].1).collect();
        rows.sort_unstable();
        Ok(rows)
    }
}

/// Looks up the keys of one batch in the index of another.
pub(super) struct Lookup<'a> {
    keys: &'a Keys,
    index: &'a KeyIndex,
    comparators: Vec<DynComparator>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(keys: &'a Keys, index: &'a KeyIndex) -> Result<Self> {
        let pairs = keys.columns.iter().zip(&index.keys.columns);
        let comparators = pairs.map(|(a, b)| make_comparator(a.as_ref(), b.as_ref(), SortOptions::default()));
        Ok(Self { keys, index, comparators: comparators.collect::<Result<_, _>>()? })
    }

    fn equal(&self, row: usize, other: usize) -> bool {
        self.comparators.iter().all(|compare| compare(row, other).is_eq())
    }

    /// The indexed rows in `among` with the key of `row`, which is valid.
    pub(super) fn matches(&self, row: usize, among: Range<usize>) -> impl Iterator<Item = usize> {
        let hash = self.keys.hashes[row];
        let order = &self.index.order;
        let first = order.partition_point(|&(other, at)| (other, at as usize) < (hash, among.start));
        let same = order[first..].iter().take_while(move |&&(other, at)| other == hash && (at as usize) < among.end);
        same.map(|&(_, at)| at as usize).filter(move |&at| self.equal(row, at))
    }

    /// The last indexed row before `end` with the key of `row`, which is valid.
    pub(super) fn last(&self, row: usize, end: usize) -> Option<usize> {
        let hash = self.keys.hashes[row];
        let order = &self.index.order;
        let until = order.partition_point(|&(other, at)| (other, at as usize) < (hash, end));
        let same = order[..until].iter().rev().take_while(|&&(other, _)| other == hash);
        same.map(|&(_, at)| at as usize).find(|&at| self.equal(row, at))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn batch(keys: &[Option<(f64, &str)>]) -> RecordBatch {
        let number: Float64Array = keys.iter().map(|key| key.map(|(number, _)| number)).collect();
        let text: StringArray = keys.iter().map(|key| key.map(|(_, text)| text)).collect();
        RecordBatch::try_from_iter([("n", Arc::new(number) as ArrayRef), ("t", Arc::new(text) as ArrayRef)]).unwrap()
    }

    proptest! {
        #[test]
        fn it_finds_the_rows_of_a_key_in_a_range(
            indexed in prop::collection::vec(prop::option::of((prop::sample::select(vec![0.0, -0.0, f64::NAN, 1.5]), "[ab]?")), 0..40),
            start in 0usize..40, rows in 0usize..40, hashes_collide: bool,
        ) {
            let keys: Vec<_> = indexed.iter().map(|key| key.as_ref().map(|(n, t)| (*n, t.as_str()))).collect();
            let rows_of = batch(&keys);
            let mut all = Keys::of(&rows_of, &[0, 1]).unwrap();
            if hashes_collide {
                all.hashes.fill(7);
            }
            let index = KeyIndex::over(all);
            let lookup = Lookup::new(&index.keys, &index).unwrap();
            let same = |a: usize, b: usize| match (keys[a], keys[b]) {
                (Some((n, t)), Some((m, u))) => (n == m || n.is_nan() && m.is_nan()) && t == u,
                _ => false,
            };
            let among = start.min(keys.len())..(start + rows).min(keys.len());
            let mut lasts = Vec::new();
            for row in (0..keys.len()).filter(|&row| index.keys.is_valid(row)) {
                let expected: Vec<usize> = among.clone().filter(|&other| same(row, other)).collect();
                prop_assert_eq!(lookup.matches(row, among.clone()).collect::<Vec<_>>(), expected);
                prop_assert_eq!(lookup.last(row, among.end), (0..among.end).rfind(|&other| same(row, other)));
                if (0..keys.len()).rfind(|&other| same(row, other)) == Some(row) {
                    lasts.push(row as u32);
                }
            }
            prop_assert_eq!(index.last_rows().unwrap(), lasts);
            prop_assert_eq!(with_valid_key(&rows_of, &[0, 1]).unwrap().num_rows(), keys.iter().flatten().count());
        }
    }
}
