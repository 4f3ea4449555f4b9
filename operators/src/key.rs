//! Key groups: the fixed assignment of keys to 256 groups.
//!
//! ```text
//!   key columns ──hash──► key group 0..256 ──range──► task 0..p
//! ```
//!
//! State is kept and restored by key group, and the exchange routes by the same groups. So the hash is a **disk
//! format**: it depends on the values alone, not on the platform, a seed or the version of a library. Fixed-width values
//! go through the finaliser of MurmurHash3, bytes through XXH3-64, both specified algorithms; columns are combined in
//! order. A test below holds the values fast.

pub(crate) mod bytes;
pub(crate) mod encoded;

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, RecordBatch, cast::AsArray, downcast_integer_array},
    compute::take_record_batch,
    datatypes::{DataType, Date32Type, Date64Type, Float32Type, Float64Type, Schema, TimeUnit},
};

use crate::{OperatorError, Result};

/// The number of key groups. Part of the disk format.
pub const KEY_GROUPS: usize = 256;

/// One of the [`KEY_GROUPS`] groups that keys fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup(pub u8);

impl KeyGroup {
    /// The task, out of `tasks`, that owns this group. Each task owns a contiguous range.
    pub fn task(self, tasks: usize) -> usize {
        usize::from(self.0) * tasks / KEY_GROUPS
    }

    /// The groups that `task` out of `tasks` owns.
    pub fn range(task: usize, tasks: usize) -> Range<usize> {
        (task * KEY_GROUPS).div_ceil(tasks)..((task + 1) * KEY_GROUPS).div_ceil(tasks)
    }
}

/// Refuses key columns whose values have no fixed hash, before a job runs.
pub fn check_key(schema: &Schema, columns: &[usize]) -> Result<()> {
    for &column in columns {
        let field = schema.field(column);
        if !is_hashable(field.data_type()) {
            return Err(OperatorError::Plan(format!(
                "column {:?} is {}, which cannot be a key: use a number, text, bytes, a date or a time",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

fn is_hashable(data_type: &DataType) -> bool {
    use DataType::{
        BinaryView, Boolean, Date32, Date64, Float32, Float64, LargeBinary, LargeUtf8, Timestamp, Utf8, Utf8View,
    };
    data_type.is_integer()
        || matches!(data_type, Boolean | Float32 | Float64 | Date32 | Date64 | Timestamp(..))
        || matches!(data_type, Utf8 | LargeUtf8 | Utf8View | DataType::Binary | LargeBinary | BinaryView)
}

/// The 64-bit finaliser of MurmurHash3: every input bit changes every output bit.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The hash of a null, whatever its type.
const NULL: u64 = 0x6e75_6c6c;

fn fold<V>(hashes: &mut [u64], array: &dyn Array, value: impl Fn(usize) -> V, bits: impl Fn(V) -> u64) {
    let mix_in = |hash: &mut u64, bits: u64| *hash = mix(hash.rotate_left(5) ^ bits);
    // Whether there are nulls is asked once: asked of each row it costs as much as the hash.
    match array.nulls() {
        Some(nulls) => {
            for (row, hash) in hashes.iter_mut().enumerate() {
                mix_in(hash, if nulls.is_null(row) { NULL } else { bits(value(row)) });
            }
        }
        None => hashes.iter_mut().enumerate().for_each(|(row, hash)| mix_in(hash, bits(value(row)))),
    }
}

/// All zeros are one key, and so are all NaNs.
fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// A key column as it is compared: of floats that are one key, one stands for all. Other columns stay as they are.
pub(crate) fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Float32Type>(|value| canonical(value.into()) as f32))
        }
        DataType::Float64 => Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical)),
        _ => column.clone(),
    }
}

/// Numbers hash by value over all integer widths, so that widening a key column keeps its groups.
#[allow(clippy::unnecessary_cast, reason = "one of the integer widths that the macro goes through is the target")]
fn hash_column(array: &dyn Array, hashes: &mut [u64]) -> Result<()> {
    fn floats<T: ArrowPrimitiveType>(array: &dyn Array, hashes: &mut [u64])
    where
        T::Native: Into<f64>,
    {
        let values = array.as_primitive::<T>();
        fold(hashes, array, |row| values.value(row).into(), |v| canonical(v).to_bits());
    }
    let text = |bytes: &[u8]| twox_hash::XxHash3_64::oneshot(bytes);
    downcast_integer_array!(
        array => fold(hashes, array, |row| array.value(row), |v| v as u64),
        DataType::Boolean => { let a = array.as_boolean(); fold(hashes, array, |r| a.value(r), u64::from) }
        DataType::Float32 => floats::<Float32Type>(array, hashes),
        DataType::Float64 => floats::<Float64Type>(array, hashes),
        DataType::Date32 => { let a = array.as_primitive::<Date32Type>(); fold(hashes, array, |r| a.value(r), |v| v as u64) }
        DataType::Date64 => { let a = array.as_primitive::<Date64Type>(); fold(hashes, array, |r| a.value(r), |v| v as u64) }
        DataType::Timestamp(unit, _) => timestamps(array, *unit, hashes),
        DataType::Utf8 => { let a = array.as_string::<i32>(); fold(hashes, array, |r| a.value(r).as_bytes(), text) }
        DataType::LargeUtf8 => { let a = array.as_string::<i64>(); fold(hashes, array, |r| a.value(r).as_bytes(), text) }
        DataType::Utf8View => { let a = array.as_string_view(); fold(hashes, array, |r| a.value(r).as_bytes(), text) }
        DataType::Binary => { let a = array.as_binary::<i32>(); fold(hashes, array, |r| a.value(r), text) }
        DataType::LargeBinary => { let a = array.as_binary::<i64>(); fold(hashes, array, |r| a.value(r), text) }
        DataType::BinaryView => { let a = array.as_binary_view(); fold(hashes, array, |r| a.value(r), text) }
        other => return Err(OperatorError::Internal(format!("a key of type {other} passed the check")))
    );
    Ok(())
}

fn timestamps(array: &dyn Array, unit: TimeUnit, hashes: &mut [u64]) {
    use arrow::datatypes::{
        TimestampMicrosecondType as Us, TimestampMillisecondType as Ms, TimestampNanosecondType as Ns,
        TimestampSecondType as S,
    };
    fn of<T: ArrowPrimitiveType<Native = i64>>(array: &dyn Array, hashes: &mut [u64]) {
        let values = array.as_primitive::<T>();
        fold(hashes, array, |row| values.value(row), |v| v as u64);
    }
    match unit {
        TimeUnit::Second => of::<S>(array, hashes),
        TimeUnit::Millisecond => of::<Ms>(array, hashes),
        TimeUnit::Microsecond => of::<Us>(array, hashes),
        TimeUnit::Nanosecond => of::<Ns>(array, hashes),
    }
}

/// Sends each row of a batch to the task that owns its key group.
#[derive(Clone, Debug)]
pub struct Partitioner {
    key: Vec<usize>,
    tasks: usize,
    hashes: Vec<u64>,
    rows: Vec<Vec<u32>>,
}

impl Partitioner {
    /// Routes by the columns `key` to `tasks` tasks. Without key columns every row goes to the task of group 0.
    pub fn new(key: Vec<usize>, tasks: usize) -> Self {
        Self { key, tasks, hashes: Vec::new(), rows: vec![Vec::new(); tasks] }
    }

    /// The parts of `batch`, by task; a task without rows is left out. Rows of one key keep their order.
    pub fn split(&mut self, batch: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        if self.tasks == 1 || self.key.is_empty() {
            return Ok(vec![(0, batch.clone())]);
        }
        self.hashes.clear();
        self.hashes.resize(batch.num_rows(), 0);
        for &column in &self.key {
            hash_column(batch.column(column).as_ref(), &mut self.hashes)?;
        }
        for rows in &mut self.rows {
            rows.clear();
        }
        for (row, hash) in self.hashes.iter().enumerate() {
            self.rows[group_of(*hash).task(self.tasks)].push(row as u32);
        }
        let mut parts = Vec::with_capacity(self.tasks);
        for (task, rows) in self.rows.iter_mut().enumerate() {
            if rows.len() == batch.num_rows() {
                return Ok(vec![(task, batch.clone())]);
            }
            if !rows.is_empty() {
                let indices = arrow::array::UInt32Array::from(std::mem::take(rows));
                parts.push((task, take_record_batch(batch, &indices)?));
                // The array was the only owner of the buffer: get it back for the next batch.
                *rows = indices.into_parts().1.into_inner().into_vec().unwrap_or_default();
            }
        }
        Ok(parts)
    }
}

/// The top bits: the low ones pick the slot in hash tables downstream, which must stay independent of the group.
fn group_of(hash: u64) -> KeyGroup {
    KeyGroup((hash >> 56) as u8)
}

/// The key group of each row.
///
/// ```
/// use arrow::array::{ArrayRef, Int64Array};
/// use std::sync::Arc;
/// let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
/// let groups = windrow_operators::key::key_groups(&[keys], 3).unwrap();
/// assert_eq!(groups[0], groups[2]);
/// ```
pub fn key_groups(key: &[ArrayRef], rows: usize) -> Result<Vec<KeyGroup>> {
    Ok(key_hashes(key, rows)?.into_iter().map(group_of).collect())
}

/// The hash of each row's key, of which the key group is a part.
pub(crate) fn key_hashes(key: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    for column in key {
        hash_column(column.as_ref(), &mut hashes)?;
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, StringViewArray, UInt8Array};
    use proptest::prelude::*;

    use super::*;

    fn groups(column: impl Array + 'static) -> Vec<u8> {
        let rows = column.len();
        key_groups(&[Arc::new(column)], rows).unwrap().into_iter().map(|group| group.0).collect()
    }

    /// These are in every checkpoint ever written. If this fails, the code is wrong, not the test.
    #[test]
    fn the_groups_are_a_disk_format() {
        assert_eq!(groups(Int64Array::from(vec![Some(0), Some(1), Some(-1), Some(1000), None])), GOLDEN_NUMBERS);
        assert_eq!(groups(StringArray::from(vec!["", "a", "auction", "日本"])), GOLDEN_TEXT);
    }

    #[test]
    fn the_groups_of_two_columns_are_a_disk_format() {
        let numbers = Arc::new(Int64Array::from(vec![1, -1, 1000]));
        let text = Arc::new(StringArray::from(vec![Some("a"), Some("auction"), None]));
        let groups = key_groups(&[numbers, text], 3).unwrap();
        assert_eq!(groups, GOLDEN_PAIRS.map(KeyGroup));
    }

    const GOLDEN_NUMBERS: [u8; 5] = [0, 180, 100, 175, 95];
    const GOLDEN_PAIRS: [u8; 3] = [112, 155, 131];
    const GOLDEN_TEXT: [u8; 4] = [14, 6, 3, 68];

    #[test]
    fn equal_values_share_a_group_over_types() {
        assert_eq!(groups(Int32Array::from(vec![7, -7])), groups(Int64Array::from(vec![7, -7])));
        assert_eq!(groups(UInt8Array::from(vec![7])), groups(Int64Array::from(vec![7])));
        assert_eq!(groups(StringArray::from(vec!["x"])), groups(StringViewArray::from(vec!["x"])));
        let zeros = groups(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        assert_eq!((zeros[0], zeros[2]), (zeros[1], zeros[3]));
    }

    #[test]
    fn ranges_are_the_inverse_of_task() {
        for tasks in 1..=KEY_GROUPS {
            for task in 0..tasks {
                for group in KeyGroup::range(task, tasks) {
                    assert_eq!(KeyGroup(group as u8).task(tasks), task);
                }
            }
            assert_eq!((0..tasks).map(|task| KeyGroup::range(task, tasks).len()).sum::<usize>(), KEY_GROUPS);
        }
    }

    proptest! {
        #[test]
        fn split_keeps_every_row_once_in_order_and_a_key_together(
            keys in prop::collection::vec(-20i64..20, 0..300), tasks in 1usize..9
        ) {
            let number = Int64Array::from_iter_values(0..keys.len() as i64);
            let columns = [("k", Arc::new(Int64Array::from(keys.clone())) as ArrayRef), ("n", Arc::new(number) as _)];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let mut partitioner = Partitioner::new(vec![0], tasks);
            // Twice: the second call works on recycled buffers.
            for _ in 0..2 {
                let mut owner = std::collections::HashMap::new();
                let mut seen = Vec::new();
                for (task, part) in partitioner.split(&batch).unwrap() {
                    let numbers = part.column(1).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
                    prop_assert!(numbers.is_sorted());
                    for n in numbers {
                        prop_assert_eq!(*owner.entry(keys[n as usize]).or_insert(task), task);
                        seen.push(n);
                    }
                }
                seen.sort_unstable();
                prop_assert!(seen.into_iter().eq(0..keys.len() as i64));
            }
        }
    }
}
