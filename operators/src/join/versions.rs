//! The newest row of each key: which version a left row of a temporal join finds.
//!
//! ```text
//!   coming versions up to the watermark ──sort──► Stretch: by time, of one key by all columns ─┐
//!                                                   │ the last of each key                     ├─► version of a row at t
//!   newest: TimedRows, merged pieces keep one ◄─────┘  when the left rows have looked          ┘   (the stretch first)
//! ```
//!
//! Versions of one key and time are ordered by all their columns, so that the answer does not depend on the order of
//! arrival. In the pieces of *newest* a version may still be there that a newer piece supersedes: it goes when the two are merged,
//! so there are at most a few times as many rows as keys.

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::{Schema, SchemaRef},
    row::{RowConverter, SortField},
};

use super::index::{KeyIndex, Keys, Lookup};
use crate::{OperatorError, Result, state::timed::TimedRows, time::times_of};

/// Refuses columns that have no order.
pub(super) fn check_order(columns: &Schema) -> Result<()> {
    for field in columns.fields() {
        if !RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]) {
            return Err(OperatorError::Plan(format!(
                "column {:?} is {} and cannot be sorted: versions of one key and time are ordered by all their columns",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// The versions of a stretch of time.
pub(super) struct Stretch {
    /// By time; of those of one key and time by all columns.
    pub(super) rows: RecordBatch,
    index: KeyIndex,
}

impl Stretch {
    pub(super) fn new(schema: &SchemaRef, batches: &[RecordBatch], time: usize, key: &[usize]) -> Result<Self> {
        let rows = concat_batches(schema, batches)?;
        let (times, keys) = (times_of(&rows, time)?, Keys::of(&rows, key)?);
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        let of = |row: &u32| (times[*row as usize], keys.hash(*row as usize));
        order.sort_unstable_by_key(of);
        let is_same = |a: &u32, b: &u32| of(a) == of(b);
        // Seldom are there two: then nothing has to be made of all columns.
        if order.windows(2).any(|two| is_same(&two[0], &two[1])) {
            let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
            let values = RowConverter::new(fields.collect())?.convert_columns(rows.columns())?;
            let value = |row: &u32| values.row(*row as usize);
            order.chunk_by_mut(is_same).for_each(|same| same.sort_unstable_by(|a, b| value(a).cmp(&value(b))));
        }
        let rows = match order.is_sorted() {
            true => rows,
            false => take_record_batch(&rows, &UInt32Array::from(order))?,
        };
        Ok(Self { index: KeyIndex::of(&rows, key)?, rows })
    }

    /// The last version of each key.
    pub(super) fn newest(&self) -> Result<RecordBatch> {
        last_of_each_key(&self.rows, &self.index)
    }
}

fn last_of_each_key(rows: &RecordBatch, index: &KeyIndex) -> Result<RecordBatch> {
    let last = index.last_rows()?;
    if last.len() == rows.num_rows() {
        return Ok(rows.clone());
    }
    Ok(take_record_batch(rows, &UInt32Array::from(last))?)
}

/// Holds the newest version of each key, and leaves out those that a newer one supersedes when it merges pieces.
pub(super) fn newest_rows(name: &'static str, time: usize, key: &[usize]) -> TimedRows<KeyIndex> {
    let (to_index, to_compact) = (key.to_vec(), key.to_vec());
    let rows = TimedRows::new(name, time, move |rows| KeyIndex::of(rows, &to_index));
    rows.compacting(move |rows| last_of_each_key(&rows, &KeyIndex::of(&rows, &to_compact)?))
}

/// Finds the versions of the rows of one batch.
pub(super) struct Finder<'a> {
    keys: &'a Keys,
    /// Those of the stretch, then those of each older piece: what looks up keys, the times, and the first row that counts.
    lookups: Vec<(Lookup<'a>, &'a [i64], usize)>,
    /// The same batches, for who takes the rows.
    pub(super) batches: Vec<&'a RecordBatch>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(
        keys: &'a Keys,
        stretch: &'a Stretch,
        newest: &'a TimedRows<KeyIndex>,
        time: usize,
    ) -> Result<Self> {
        let mut lookups = vec![(Lookup::new(keys, &stretch.index)?, times_of(&stretch.rows, time)?, 0)];
        let mut batches = vec![&stretch.rows];
        for piece in newest.pieces() {
            lookups.push((Lookup::new(keys, &piece.index)?, times_of(&piece.rows, time)?, piece.start));
            batches.push(&piece.rows);
        }
        Ok(Self { keys, lookups, batches })
    }

    /// The newest version of `row`, which is at `time`: (batch, row), and the time of the version.
    pub(super) fn version(&self, row: usize, time: i64) -> Option<((usize, usize), i64)> {
        if !self.keys.is_valid(row) {
            return None;
        }
        let of = |batch: usize| {
            let (lookup, times, start) = &self.lookups[batch];
            // Older versions are mostly older than all rows: then the times need no look.
            let all = times.last().is_none_or(|&last| last <= time);
            let until = if all { times.len() } else { times.partition_point(|&version| version <= time) };
            let at = lookup.last(row, until).filter(|at| at >= start)?;
            Some(((batch, at), times[at]))
        };
        // Versions of the stretch are newer than all others of their key.
        of(0).or_else(|| (1..self.lookups.len()).filter_map(of).max_by_key(|(_, version)| *version))
    }
}
