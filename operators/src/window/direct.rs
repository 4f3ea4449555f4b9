//! Keys that are whole numbers close to each other, such as ids that were given one after the other: a group is found at the
//! place of its key, without a hash.
//!
//! ```text
//!   first = 1000          key 1000  1001  1002  1003  1004  …
//!                      places    0     2     ─     1     ─       the group of each key, if it has one
//!                        keys 1000, 1003, 1001                   of each group its key, in the order they came
//! ```
//!
//! Places may take about as much memory as a hash table would. When keys lie too far apart for that, they all move to
//! DataFusion's hash table, and back when there are enough of them; groups keep their numbers. What has been emptied expects as
//! many groups as it had: so where a window begins with a few keys of a million, the next one is prepared.

use std::{mem, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    buffer::NullBuffer,
    compute::kernels::aggregate::{max, min},
    datatypes::{
        ArrowNumericType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
};
use datafusion_common::{Result, internal_err};
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::{
    group_values::{GroupValues, new_group_values},
    order::GroupOrdering,
};

/// How many places there may be for each group: a hash table takes 20 to 40 bytes for a group, and a place has four. Of ids
/// that were given one after the other, one of eight tasks has about every eighth.
const PLACES: usize = 12;
/// Rows that have come say so many times as many groups at the most, however many the last table had.
const FORESIGHT: usize = 8;
/// No group has this place yet.
const NONE: u32 = u32::MAX;

/// What numbers the groups of these key columns, of which there is one at least.
pub(crate) fn group_values(key: SchemaRef) -> Result<Box<dyn GroupValues>> {
    macro_rules! direct {
        ($kind:ty) => {
            Ok(Box::new(Direct::<$kind>::new(key)))
        };
    }
    match key.fields()[..] {
        [ref field] => match field.data_type() {
            DataType::Int8 => direct!(Int8Type),
            DataType::Int16 => direct!(Int16Type),
            DataType::Int32 => direct!(Int32Type),
            DataType::Int64 => direct!(Int64Type),
            DataType::UInt8 => direct!(UInt8Type),
            DataType::UInt16 => direct!(UInt16Type),
            DataType::UInt32 => direct!(UInt32Type),
            DataType::UInt64 => direct!(UInt64Type),
            _ => hashed(key),
        },
        _ => hashed(key),
    }
}

fn hashed(key: SchemaRef) -> Result<Box<dyn GroupValues>> {
    new_group_values(key, &GroupOrdering::None)
}

/// A whole number as an unsigned one, in the same order.
trait Ordinal: Copy {
    fn ordinal(self) -> u64;
}

macro_rules! ordinals {
    ($($signed:ty, $unsigned:ty;)+) => {$(
        impl Ordinal for $signed {
            fn ordinal(self) -> u64 {
                i64::from(self) as u64 ^ (1 << 63)
            }
        }
        impl Ordinal for $unsigned {
            fn ordinal(self) -> u64 {
                u64::from(self)
            }
        }
    )+};
}
ordinals! { i8, u8; i16, u16; i32, u32; i64, u64; }

/// The least and the greatest key of these rows.
fn ends<T: ArrowNumericType>(rows: &PrimitiveArray<T>) -> Option<(u64, u64)>
where
    T::Native: Ordinal,
{
    Some((min(rows)?.ordinal(), max(rows)?.ordinal()))
}

/// The ends of what lies between the ends of both.
fn both(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (Some((least, greatest)), Some((l, g))) = (one, other) else { return one.or(other) };
    Some((least.min(l), greatest.max(g)))
}

/// Groups by one column of whole numbers.
struct Direct<T: ArrowPrimitiveType> {
    schema: SchemaRef,
    /// The group of each key from `first` on.
    places: Vec<u32>,
    first: u64,
    /// The least and the greatest key of all that have been hashed.
    range: Option<(u64, u64)>,
    /// Of each group its key, or anything in the group of null.
    keys: Vec<T::Native>,
    null: Option<usize>,
    /// How many groups there were before it was emptied.
    expected: usize,
    /// What has all groups instead, while their keys lie too far apart, and with how many of them that is looked at again.
    hashed: Option<(Box<dyn GroupValues>, usize)>,
}

impl<T: ArrowNumericType> Direct<T>
where
    T::Native: Ordinal,
{
    fn new(schema: SchemaRef) -> Self {
        let (places, keys) = (Vec::new(), Vec::new());
        Self { schema, places, first: 0, range: None, keys, null: None, expected: 0, hashed: None }
    }

    /// How many places there may be for so many groups, and so many rows that each may be a new one.
    fn most(&self, groups: usize, rows: usize) -> usize {
        let come = groups.saturating_add(rows);
        let expected = self.expected.min(FORESIGHT.saturating_mul(come));
        come.saturating_mul(2).max(PLACES.saturating_mul(groups.max(expected))).min(NONE as usize)
    }

    /// The least key, how many places there have to be from there on to the greatest and how many there may be, if they lie close
    /// enough to each other. Some have to be left over, or each new key might need all anew.
    fn room(&self, (least, greatest): (u64, u64), groups: usize, rows: usize) -> Option<(u64, usize, usize)> {
        let most = self.most(groups, rows);
        let wanted = usize::try_from(greatest - least).ok().filter(|wanted| *wanted < most)? + 1;
        (wanted + wanted / 4 <= most).then_some((least, wanted, most))
    }

    /// Makes places for so many keys from the least on.
    fn lay_out(&mut self, (least, wanted, most): (u64, usize, usize)) {
        let len = wanted.next_power_of_two().max(self.places.capacity()).min(most);
        // Most ids grow.
        self.first = least.saturating_sub((len - wanted) as u64 / 4);
        self.places.clear();
        self.places.resize(len, NONE);
        for (group, key) in self.keys.iter().enumerate().filter(|(group, _)| Some(*group) != self.null) {
            self.places[(key.ordinal() - self.first) as usize] = group as u32;
        }
    }

    /// The least and the greatest key that has a group.
    fn ends(&self) -> Option<(u64, u64)> {
        let keys = self.keys.iter().enumerate().filter(|(group, _)| Some(*group) != self.null);
        keys.fold(None, |ends, (_, key)| both(ends, Some((key.ordinal(), key.ordinal()))))
    }

    /// Makes places for the keys there are and for those of these rows, if they are close to each other.
    fn reach(&mut self, rows: &PrimitiveArray<T>) -> bool {
        let ends = both(self.ends(), ends(rows));
        let room = ends.and_then(|ends| self.room(ends, self.keys.len(), rows.len()));
        room.map(|room| self.lay_out(room)).is_some()
    }

    /// The group of a key, a new one if there is none yet. `None` if it has no place.
    fn group(&mut self, key: T::Native) -> Option<usize> {
        let place = usize::try_from(key.ordinal().wrapping_sub(self.first)).ok()?;
        let group = self.places.get_mut(place)?;
        if *group == NONE {
            *group = self.keys.len() as u32;
            self.keys.push(key);
        }
        Some(*group as usize)
    }

    /// The group of a row that has no key.
    fn null_group(&mut self) -> usize {
        let keys = &mut self.keys;
        *self.null.get_or_insert_with(|| {
            keys.push(T::Native::default());
            keys.len() - 1
        })
    }

    /// The groups of rows, up to the first whose key has no place. Returns how many these are.
    fn number(&mut self, keys: impl Iterator<Item = Option<T::Native>>, groups: &mut [usize]) -> usize {
        let mut numbered = 0;
        for (key, group) in keys.zip(groups) {
            *group = match key.map(|key| self.group(key)) {
                Some(Some(found)) => found,
                Some(None) => break,
                None => self.null_group(),
            };
            numbered += 1;
        }
        numbered
    }

    /// The groups of these rows, if their keys are close to each other and to the others.
    fn place(&mut self, rows: &PrimitiveArray<T>, groups: &mut Vec<usize>) -> bool {
        groups.clear();
        groups.resize(rows.len(), 0);
        let mut done = 0;
        loop {
            let rest = rows.slice(done, rows.len() - done);
            done += match rest.null_count() {
                0 => self.number(rest.values().iter().copied().map(Some), &mut groups[done..]),
                _ => self.number(rest.iter(), &mut groups[done..]),
            };
            if done == rows.len() {
                return true;
            }
            if !self.reach(&rows.slice(done, rows.len() - done)) {
                return false;
            }
        }
    }

    /// The keys of all groups, of which there are none afterwards.
    fn take_keys(&mut self) -> ArrayRef {
        self.places.clear();
        let keys = mem::take(&mut self.keys);
        let groups = keys.len();
        let nulls = self.null.take().map(|null| (0..groups).map(|group| group != null).collect::<NullBuffer>());
        Arc::new(PrimitiveArray::<T>::new(keys.into(), nulls))
    }

    /// Moves all groups to a hash table.
    fn hash(&mut self) -> Result<&mut Box<dyn GroupValues>> {
        let mut hashed = hashed(self.schema.clone())?;
        let again = 2 * self.keys.len();
        self.range = self.ends();
        let keys = self.take_keys();
        if !keys.is_empty() {
            hashed.intern(&[keys], &mut Vec::new())?;
        }
        self.places = Vec::new();
        Ok(&mut self.hashed.insert((hashed, again)).0)
    }

    /// Moves all groups back from the hash table, if there are now enough of them.
    fn place_again(&mut self) -> Result<()> {
        let Some((hashed, again)) = &mut self.hashed else { return Ok(()) };
        let groups = hashed.len();
        if groups < *again {
            return Ok(());
        }
        *again = 2 * groups;
        let Some(room) = self.range.and_then(|range| self.room(range, groups, 0)) else { return Ok(()) };
        let Some((mut hashed, _)) = self.hashed.take() else { return Ok(()) };
        let keys = hashed.emit(EmitTo::All)?;
        let keys = keys[0].as_primitive::<T>();
        self.null = (0..if keys.null_count() > 0 { groups } else { 0 }).find(|group| keys.is_null(*group));
        self.keys = keys.values().to_vec();
        self.lay_out(room);
        Ok(())
    }
}

impl<T: ArrowNumericType> GroupValues for Direct<T>
where
    T::Native: Ordinal,
{
    fn intern(&mut self, columns: &[ArrayRef], groups: &mut Vec<usize>) -> Result<()> {
        let Some(rows) = columns[0].as_primitive_opt::<T>() else {
            return internal_err!("keys of type {} for groups of {}", columns[0].data_type(), T::DATA_TYPE);
        };
        if let Some((hashed, _)) = &mut self.hashed {
            hashed.intern(columns, groups)?;
            self.range = both(self.range, ends(rows));
            return self.place_again();
        }
        if self.place(rows, groups) {
            return Ok(());
        }
        self.hash()?.intern(columns, groups)?;
        self.range = both(self.range, ends(rows));
        Ok(())
    }

    fn size(&self) -> usize {
        let hashed = self.hashed.as_ref().map_or(0, |(hashed, _)| hashed.size());
        hashed + self.places.capacity() * size_of::<u32>() + self.keys.capacity() * size_of::<T::Native>()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.hashed.as_ref().map_or(self.keys.len(), |(hashed, _)| hashed.len())
    }

    fn emit(&mut self, to: EmitTo) -> Result<Vec<ArrayRef>> {
        match (&mut self.hashed, to) {
            (Some((hashed, _)), _) => hashed.emit(to),
            (None, EmitTo::All) => Ok(vec![self.take_keys()]),
            (None, EmitTo::First(_)) => self.hash()?.emit(to),
        }
    }

    /// Forgets all keys. There were `groups`.
    fn clear_shrink(&mut self, groups: usize) {
        self.expected = groups;
        let range = self.range.take();
        if let Some((hashed, again)) = &mut self.hashed {
            if range.is_some_and(|(least, greatest)| greatest - least >= (PLACES * groups) as u64) {
                *again = groups;
                return hashed.clear_shrink(groups);
            }
            self.hashed = None;
        }
        self.take_keys();
        if self.places.capacity() > PLACES * groups {
            self.places = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::{
        array::{Int8Array, Int64Array, UInt64Array},
        datatypes::{Field, Schema},
    };
    use proptest::prelude::*;

    use super::*;

    fn table(kind: DataType) -> Box<dyn GroupValues> {
        group_values(Arc::new(Schema::new(vec![Field::new("key", kind, true)]))).unwrap()
    }

    /// Numbers keys in the order they come, by a map.
    fn numbered(known: &mut Vec<Option<i64>>, rows: &[Option<i64>]) -> Vec<usize> {
        let mut groups: HashMap<_, _> = known.iter().enumerate().map(|(group, key)| (*key, group)).collect();
        let mut number = |key: &Option<i64>| {
            *groups.entry(*key).or_insert_with(|| {
                known.push(*key);
                known.len() - 1
            })
        };
        rows.iter().map(&mut number).collect()
    }

    /// Keys around some place, close to each other or far apart, some of them null.
    fn batch() -> impl Strategy<Value = Vec<Option<i64>>> {
        let near = prop::sample::select(vec![0, 1_000, 1_000_000, i64::MIN, i64::MAX]);
        let spread = prop::sample::select(vec![1_i64, 3, 300, 30_000, i64::MAX]);
        (near, spread).prop_flat_map(|(near, spread)| {
            let key = (0..spread).prop_map(move |by| near.wrapping_add(by));
            prop::collection::vec(prop::option::weighted(0.95, key), 0..200)
        })
    }

    /// What comes to a table, and whether it is cleared afterwards or its groups only leave.
    fn windows() -> impl Strategy<Value = Vec<(Vec<Vec<Option<i64>>>, bool)>> {
        prop::collection::vec((prop::collection::vec(batch(), 0..6), any::<bool>()), 1..5)
    }

    proptest! {
        /// Whatever comes, groups are numbered as they come, and emptying a table forgets them.
        #[test]
        fn groups_are_numbered_as_they_come(windows in windows()) {
            let mut keys = table(DataType::Int64);
            let mut groups = vec![7];
            for (batches, clear) in windows {
                let mut known = Vec::new();
                for rows in batches {
                    keys.intern(&[Arc::new(Int64Array::from(rows.clone()))], &mut groups).unwrap();
                    prop_assert_eq!(&groups, &numbered(&mut known, &rows));
                    prop_assert_eq!(keys.len(), known.len());
                }
                let count = keys.len();
                let emitted = keys.emit(EmitTo::All).unwrap();
                prop_assert_eq!(emitted[0].as_primitive::<Int64Type>(), &Int64Array::from(known));
                if clear {
                    keys.clear_shrink(count);
                }
                prop_assert!(keys.is_empty());
            }
        }
    }

    #[test]
    fn keys_lie_at_both_ends_of_their_type() {
        let mut groups = Vec::new();
        let mut keys = table(DataType::Int8);
        keys.intern(&[Arc::new((i8::MIN..=i8::MAX).rev().collect::<Int8Array>())], &mut groups).unwrap();
        assert_eq!(groups, (0..256).collect::<Vec<_>>());
        let mut keys = table(DataType::UInt64);
        for (ends, expected) in [([u64::MAX, u64::MAX - 1], [0, 1]), ([0, u64::MAX], [2, 0])] {
            keys.intern(&[Arc::new(UInt64Array::from(ends.to_vec()))], &mut groups).unwrap();
            assert_eq!(groups, expected);
        }
    }

    /// The greatest key alone gets its place back from the hash table.
    #[test]
    fn the_greatest_key_of_all_is_one_group() {
        let (mut keys, mut groups) = (table(DataType::Int64), Vec::new());
        let mut intern = |keys: &mut Box<dyn GroupValues>, rows: Vec<Option<i64>>| {
            keys.intern(&[Arc::new(Int64Array::from(rows))], &mut groups).unwrap();
            groups.clone()
        };
        intern(&mut keys, vec![Some(5), Some(i64::MAX)]);
        keys.emit(EmitTo::All).unwrap();
        keys.clear_shrink(2);
        assert_eq!(intern(&mut keys, vec![Some(i64::MAX), None]), [0, 1]);
        assert_eq!(intern(&mut keys, vec![Some(i64::MAX)]), [0]);
    }

    #[test]
    fn the_first_groups_can_leave_alone() {
        let (mut keys, mut groups) = (table(DataType::Int64), Vec::new());
        keys.intern(&[Arc::new(Int64Array::from(vec![5, 3, 4]))], &mut groups).unwrap();
        let first = keys.emit(EmitTo::First(2)).unwrap();
        assert_eq!(first[0].as_primitive::<Int64Type>().values(), &[5, 3]);
        keys.intern(&[Arc::new(Int64Array::from(vec![5, 4]))], &mut groups).unwrap();
        assert_eq!(groups, [1, 0]);
    }

    /// However far apart the keys of a window lie, its table takes at most two and a half times what a hash table takes.
    #[test]
    fn memory_is_about_that_of_a_hash_table() {
        for apart in [1, 3, 7, 10, 1_000_000] {
            let (mut keys, mut hash, mut groups) = (table(DataType::Int64), hashed_table(), Vec::new());
            for from in 0..50 {
                let rows: ArrayRef =
                    Arc::new(Int64Array::from_iter_values((0..1_000).map(|i| (from * 1_000 + i) * apart)));
                keys.intern(std::slice::from_ref(&rows), &mut groups).unwrap();
                hash.intern(&[rows], &mut groups).unwrap();
                assert!(2 * keys.size() <= 5 * hash.size(), "{} for {}, {apart} apart", keys.size(), hash.size());
            }
        }
    }

    /// Where a window begins with some keys of many, they are hashed until there are enough of them. The next one has places
    /// for them from its first row on.
    #[test]
    fn keys_that_are_scattered_at_first_get_places_when_there_are_enough_of_them() {
        let mut keys = Direct::<Int64Type>::new(Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, true)])));
        let (mut groups, mut hashed) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            for from in 0..10 {
                let rows = Int64Array::from_iter_values((0..1_000).map(|i| i * 50 + from * 5));
                keys.intern(&[Arc::new(rows)], &mut groups).unwrap();
                assert_eq!(groups, (0..1_000).map(|i| from as usize * 1_000 + i).collect::<Vec<_>>());
                hashed.push(keys.hashed.is_some());
            }
            keys.emit(EmitTo::All).unwrap();
            keys.clear_shrink(10_000);
        }
        assert_eq!(hashed, [vec![true; 7], vec![false; 13]].concat());
    }

    /// One of eight tasks has about every eighth id: new ones do not need new places again and again, however many there are.
    #[test]
    fn places_are_made_seldom_while_keys_grow() {
        for apart in [1, 7, 8, 9, 10, 11, 12] {
            let mut keys =
                Direct::<Int64Type>::new(Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, true)])));
            let (mut groups, mut made, mut was) = (Vec::new(), 0, (0, 0, false));
            for from in 0..1_000 {
                let rows = Int64Array::from_iter_values((0..100).map(|i| (from * 100 + i) * apart));
                keys.intern(&[Arc::new(rows)], &mut groups).unwrap();
                let is = (keys.first, keys.places.len(), keys.hashed.is_some());
                made += usize::from(is != was);
                was = is;
            }
            assert!(made < 50, "{made} times, {apart} apart");
        }
    }

    /// Many keys in one window do not make places for as many in the next, until some have come.
    #[test]
    fn few_keys_take_little_behind_many() {
        let (mut keys, mut groups) = (table(DataType::Int64), Vec::new());
        keys.intern(&[Arc::new((0..100_000).collect::<Int64Array>())], &mut groups).unwrap();
        keys.emit(EmitTo::All).unwrap();
        keys.clear_shrink(100_000);
        keys.intern(&[Arc::new((0..8).map(|key| key * 100_000).collect::<Int64Array>())], &mut groups).unwrap();
        assert!(keys.size() < 16_000, "{}", keys.size());
    }

    fn hashed_table() -> Box<dyn GroupValues> {
        hashed(Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, true)]))).unwrap()
    }
}
