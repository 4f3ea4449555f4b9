//! Which rows have a key: the hashes of the keys, in order.
//!
//! ```text
//!   rows by event time     index: (hash, row)            the rows of a key between two times: one binary search, and on
//!     0  k=7  at 10          (0x03…, 1)
//!     1  k=2  at 11          (0x91…, 0) ◄── k=7 ──►      rows are in order of time: a stretch of time is a range of rows
//!     2  k=7  at 15          (0x91…, 2)
//! ```
//!
//! Hashes are the engine's own (see [`key`](crate::key)). Equal hashes are checked by comparing the keys, unless those are one number. Where a hash is in
//! the order is looked up by its top bits, of which there are about as many as rows. Most keys are in none of the pieces that are
//! asked for them: a bit for each value of a few more top bits says so, from a place in memory that is small.

use std::cell::OnceCell;

use arrow::{
    array::{ArrayRef, BooleanArray, DynComparator, RecordBatch, make_comparator},
    buffer::NullBuffer,
    compute::{SortOptions, filter_record_batch},
    datatypes::DataType,
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

    pub(super) fn hash(&self, row: usize) -> u64 {
        self.hashes[row]
    }

    /// Whether equal hashes are equal keys: the hash of one number is one to one.
    fn are_hashes(&self) -> bool {
        let is_number = |column: &ArrayRef| {
            let data_type = column.data_type();
            data_type.is_integer() || matches!(data_type, DataType::Timestamp(..))
        };
        self.columns.len() == 1 && self.columns.iter().all(is_number)
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
    /// (hash, row) of all rows whose key can equal another, in order.
    order: Vec<(u64, u32)>,
    /// Where in `order` the hashes begin that have at least so much in their top bits.
    starts: Vec<u32>,
    /// How far a hash is shifted to be a place in `starts`.
    shift: u32,
    /// For each value of the top bits that `starts` looks at and [`MORE_BITS`] whether a hash begins like that.
    there: Vec<u64>,
}

/// A bit is set for one in eight to sixteen of the values of a hash's top bits.
const MORE_BITS: u32 = 3;

impl KeyIndex {
    pub(super) fn of(rows: &RecordBatch, key: &[usize]) -> Result<Self> {
        Ok(Self::over(Keys::of(rows, key)?))
    }

    /// Sorts by counting: hashes are spread evenly, so that few share their top bits.
    fn over(keys: Keys) -> Self {
        let bits = usize::BITS - keys.rows().leading_zeros();
        let shift = u64::BITS - bits.max(1);
        let valid = || (0..keys.rows()).filter(|&row| keys.is_valid(row));
        let mut starts = vec![0_u32; (1 << bits.max(1)) + 1];
        let mut there = vec![0_u64; (1_usize << (bits.max(1) + MORE_BITS)).div_ceil(64)];
        for row in valid() {
            starts[(keys.hashes[row] >> shift) as usize + 1] += 1;
            let bit = keys.hashes[row] >> (shift - MORE_BITS);
            there[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![(0, 0); starts.last().map_or(0, |all| *all as usize)];
        for row in valid() {
            let next = &mut next[(keys.hashes[row] >> shift) as usize];
            order[*next as usize] = (keys.hashes[row], row as u32);
            *next += 1;
        }
        // The rows of one hash are in order already.
        for bounds in starts.windows(2).filter(|bounds| bounds[1] - bounds[0] > 1) {
            order[bounds[0] as usize..bounds[1] as usize].sort_unstable();
        }
        Self { keys, order, starts, shift, there }
    }

    /// Whether there may be rows of a hash.
    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let bit = hash >> (self.shift - MORE_BITS);
        self.there[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Where the rows of a hash are, among others of hashes that begin like it.
    fn near(&self, hash: u64) -> &[(u64, u32)] {
        let at = (hash >> self.shift) as usize;
        &self.order[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    /// The bytes it needs per row, about: a hash, a place in the order, about one and a half of `starts`, and some bits.
    pub(super) const BYTES_PER_ROW: usize = 32;

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
        let pairs = keys.columns.iter().zip(&index.keys.columns).filter(|_| !keys.are_hashes());
        let comparators = pairs.map(|(a, b)| make_comparator(a.as_ref(), b.as_ref(), SortOptions::default()));
        Ok(Self { keys, index, comparators: comparators.collect::<Result<_, _>>()? })
    }

    fn equal(&self, row: usize, other: usize) -> bool {
        self.comparators.iter().all(|compare| compare(row, other).is_eq())
    }

    /// Whether there may be indexed rows with the key of `row`.
    #[inline]
    pub(super) fn may_match(&self, row: usize) -> bool {
        self.index.may_have(self.keys.hashes[row])
    }

    /// The indexed rows with the key of `row`, which is valid, in order: those from the first on that is not `before`.
    pub(super) fn matches(&self, row: usize, before: impl Fn(usize) -> bool) -> impl Iterator<Item = usize> {
        let hash = self.keys.hashes[row];
        let near = self.index.near(hash);
        let is_before = |&(other, at): &(u64, u32)| other < hash || (other == hash && before(at as usize));
        // Most often there are one or two.
        let first = match near.len() {
            0..8 => near.iter().take_while(|row| is_before(row)).count(),
            _ => near.partition_point(is_before),
        };
        let same = near[first..].iter().take_while(move |&&(other, _)| other == hash);
        same.map(|&(_, at)| at as usize).filter(move |&at| self.equal(row, at))
    }

    /// The last indexed row before `end` with the key of `row`, which is valid.
    pub(super) fn last(&self, row: usize, end: usize) -> Option<usize> {
        let hash = self.keys.hashes[row];
        let near = self.index.near(hash);
        let until = near.partition_point(|&(other, at)| (other, at as usize) < (hash, end));
        let same = near[..until].iter().rev().take_while(|&&(other, _)| other == hash);
        same.map(|&(_, at)| at as usize).find(|&at| self.equal(row, at))
    }
}

/// The index of rows that do not change, made when it is first asked for: rows that are merged with others before somebody
/// looks for them never need one.
#[derive(Default)]
pub(super) struct LazyIndex {
    index: OnceCell<KeyIndex>,
    /// Of rows that look for others and are not looked for.
    keys: OnceCell<Keys>,
}

impl LazyIndex {
    /// The index of `rows`, always the same.
    pub(super) fn index(&self, rows: &RecordBatch, key: &[usize]) -> Result<&KeyIndex> {
        first_made(&self.index, || KeyIndex::of(rows, key))
    }

    /// The keys of `rows`, always the same.
    pub(super) fn keys(&self, rows: &RecordBatch, key: &[usize]) -> Result<&Keys> {
        first_made(&self.keys, || Keys::of(rows, key))
    }
}

fn first_made<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
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

    /// The keys of one number are not compared.
    #[test]
    fn one_number_is_found_by_its_hash() {
        let numbers = [Some(i64::MIN), Some(-1), None, Some(0), Some(i64::MAX), Some(-1), Some(0x6e75_6c6c), None];
        let column: arrow::array::Int64Array = numbers.iter().copied().collect();
        let rows = RecordBatch::try_from_iter([("n", Arc::new(column) as ArrayRef)]).unwrap();
        let lazy = LazyIndex::default();
        let (keys, index) = (lazy.keys(&rows, &[0]).unwrap(), lazy.index(&rows, &[0]).unwrap());
        let lookup = Lookup::new(keys, index).unwrap();
        assert!(lookup.comparators.is_empty());
        for (row, number) in numbers.iter().enumerate().filter(|(_, number)| number.is_some()) {
            let same: Vec<usize> = (0..numbers.len()).filter(|&other| numbers[other] == *number).collect();
            assert_eq!(lookup.matches(row, |_| false).collect::<Vec<_>>(), same);
        }
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
            prop_assert!((0..keys.len()).all(|row| lookup.may_match(row) || !index.keys.is_valid(row)));
            let same = |a: usize, b: usize| match (keys[a], keys[b]) {
                (Some((n, t)), Some((m, u))) => (n == m || n.is_nan() && m.is_nan()) && t == u,
                _ => false,
            };
            let among = start.min(keys.len())..(start + rows).min(keys.len());
            let mut lasts = Vec::new();
            for row in (0..keys.len()).filter(|&row| index.keys.is_valid(row)) {
                let expected: Vec<usize> = (among.start..keys.len()).filter(|&other| same(row, other)).collect();
                prop_assert_eq!(lookup.matches(row, |other| other < among.start).collect::<Vec<_>>(), expected);
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
