//! How much an operator may hold, and where it puts the rest: an operator touches no disk, its caller does.
//!
//! ```text
//!   the job's budget ──► Memory: an allowance, and a room ──Operator::limit──► operator
//!                                                                               │ holds too much
//!   Room (a directory, of the engine) ◄──store(batches, one at a time)──────────┤
//!     └──► Stored ──read(batch)──────────────────────────────────────────────►──┘ when it needs them
//!             ▲   └──► a segment of a checkpoint, as it is: StateWriter::seal_stored
//!             └─────── a segment of a checkpoint that is restored: Part::stored
//! ```
//!
//! What is stored is never changed and is gone when nobody has it any more. It does not outlive the process: what a restart
//! needs is in a checkpoint.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::{
    array::RecordBatch,
    compute::concat_batches,
    datatypes::{DataType, SchemaRef},
};

use crate::{
    OperatorError, Result,
    state::{bounded::bytes_of, segments::own_bytes},
};

/// Where batches are put that do not fit into memory. Whoever calls operators has one; its calls may block.
pub trait Room: Send + Sync + fmt::Debug {
    /// Writes batches of `schema` one after the other. The next is asked for when one is written, so few are in memory. Fails
    /// with the first error of `batches`, or when there is no place: [`OperatorError::Spill`].
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>>;
}

/// Batches in a [`Room`]. They are gone with the last that has this.
pub trait Stored: Send + Sync + fmt::Debug {
    /// How many there are.
    fn batches(&self) -> usize;

    /// About how many bytes all of them take in memory. Where it is not known nothing else is there beside them.
    fn bytes(&self) -> usize {
        usize::MAX
    }

    /// One of them, counted from 0.
    fn read(&self, batch: usize) -> Result<RecordBatch>;
}

/// All rows of what is stored, in one batch.
pub fn read_all(stored: &dyn Stored) -> Result<RecordBatch> {
    let batches = (0..stored.batches()).map(|batch| stored.read(batch)).collect::<Result<Vec<_>>>()?;
    let empty = || OperatorError::Internal("nothing was stored where a segment was".into());
    let schema = batches.first().ok_or_else(empty)?.schema();
    Ok(concat_batches(&schema, &batches)?)
}

/// About how many bytes the values of these rows have, without those of others in the same memory.
pub fn bytes(rows: &RecordBatch) -> usize {
    bytes_of(rows.columns())
}

/// The same rows in batches of at most about so many bytes, of one row at the least. Types of which a slice would be written with
/// the bytes of all rows are not cut.
pub fn pieces(rows: &RecordBatch, most: usize) -> Vec<RecordBatch> {
    let all = bytes(rows);
    let is_one = rows.num_rows() < 2 || all <= most;
    if is_one || !rows.schema_ref().fields().iter().all(|field| is_cut(field.data_type(), true)) {
        return vec![rows.clone()];
    }
    let each = (rows.num_rows() / all.div_ceil(most.max(1))).max(1);
    let piece = |start: usize| {
        let some = rows.slice(start, each.min(rows.num_rows() - start));
        let columns = some.columns().iter().cloned().map(own_bytes).collect();
        // The columns are the same in all but their bytes.
        RecordBatch::try_new(some.schema(), columns).unwrap_or(some)
    };
    (0..rows.num_rows()).step_by(each).map(piece).collect()
}

/// Whether a slice of such a column is written with its own bytes only.
fn is_cut(data_type: &DataType, is_top: bool) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => is_top,
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => is_cut(of.data_type(), false),
        DataType::Struct(fields) => fields.iter().all(|field| is_cut(field.data_type(), false)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => true,
        DataType::Null | DataType::Boolean | DataType::FixedSizeBinary(_) => true,
        other => other.is_primitive(),
    }
}

/// How much an operator may hold, and where it puts the rest. An operator that has one uses about half of the
/// allowance for what it holds; the other half is for the work of putting it away and getting it back.
#[derive(Clone, Debug)]
pub struct Memory {
    allowance: Arc<AtomicUsize>,
    room: Arc<dyn Room>,
}

impl Memory {
    /// So many bytes, of which the caller may change its mind, and a room.
    pub fn new(allowance: Arc<AtomicUsize>, room: Arc<dyn Room>) -> Self {
        Self { allowance, room }
    }

    /// How many bytes the operator may use now.
    pub fn allowance(&self) -> usize {
        self.allowance.load(Relaxed)
    }

    /// Where it puts what is too much.
    pub fn room(&self) -> &dyn Room {
        self.room.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn pieces_have_all_rows_and_only_their_own_bytes() {
        let name = |i: i64| (i % 5 > 0).then(|| format!("a name that is longer than a view {i}"));
        let numbers = |i: i64| (i % 3 > 0).then(|| (0..i % 7).map(Some).collect::<Vec<_>>());
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new((0..10_000_i64).map(|i| (i % 2 > 0).then_some(i)).collect::<Int64Array>())),
            ("view", Arc::new((0..10_000).map(name).collect::<StringViewArray>())),
            ("text", Arc::new((0..10_000).map(name).collect::<StringArray>())),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>((0..10_000).map(numbers)))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let cut = pieces(&rows, 64 << 10);
        assert!(cut.len() > 10);
        assert!(cut.iter().all(|piece| bytes(piece) < 128 << 10), "about as large as was asked for");
        assert_eq!(concat_batches(rows.schema_ref(), &cut).unwrap(), rows);
        assert_eq!(pieces(&rows, 0).len(), 10_000);
        assert_eq!(pieces(&rows, usize::MAX), std::slice::from_ref(&rows));
        assert_eq!(pieces(&rows.slice(0, 0), 1), [rows.slice(0, 0)]);
    }
}
