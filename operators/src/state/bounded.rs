//! How much is put into one batch.
//!
//! ```text
//!   state of any size ──cut, join, Ordered──► batches of at most batch_bytes() ──► several segments of one save
//!                                                                             └──► several batches of results
//! ```
//!
//! Arrow counts the bytes of a text column in 32 bits, so a batch of more than 2 GiB fails or even panics. Whoever makes
//! one of many therefore makes several, of at most half of that, so that what is estimated may be wrong by half.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::{concat_batches, interleave_record_batch},
    datatypes::{DataType, SchemaRef},
};

use crate::Result;
pub(crate) use crate::bytes::bytes_of;

/// About the most bytes that are put into one batch.
const BATCH_BYTES: usize = 1 << 30;
/// The most rows of one segment whose rows are made of objects of unknown size.
pub(crate) const SEGMENT_ROWS: usize = 1 << 20;

#[cfg(feature = "testing")]
thread_local! {
    static SMALLER: std::cell::Cell<usize> = const { std::cell::Cell::new(BATCH_BYTES) };
}

/// About the most bytes that are put into one batch.
#[cfg(not(feature = "testing"))]
pub(crate) fn batch_bytes() -> usize {
    BATCH_BYTES
}

/// About the most bytes that are put into one batch, or what a test says.
#[cfg(feature = "testing")]
pub(crate) fn batch_bytes() -> usize {
    SMALLER.get()
}

/// Lets operators that are called by `run`, on this thread, make batches of at most so many bytes where they make several
/// instead of a large one: for tests of what otherwise takes gigabytes.
#[cfg(feature = "testing")]
pub fn with_batches_of<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            SMALLER.set(self.0);
        }
    }
    let _restore = Restore(SMALLER.replace(bytes));
    run()
}

/// About how many bytes each row has: of lists by their lengths, of what is nested otherwise the mean.
fn bytes_of_rows(rows: &RecordBatch) -> Vec<usize> {
    let mut bytes = vec![0; rows.num_rows()];
    for column in rows.columns() {
        let mean = |column: &ArrayRef| bytes_of(std::slice::from_ref(column)) / column.len().max(1);
        let (each, of_value) = match column.data_type() {
            DataType::List(_) => (0, mean(column.as_list::<i32>().values())),
            DataType::LargeList(_) => (0, mean(column.as_list::<i64>().values())),
            other => (other.primitive_width().unwrap_or_else(|| mean(column)), 0),
        };
        let of = |row: usize| match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value_length(row) as usize,
            DataType::LargeUtf8 => column.as_string::<i64>().value_length(row) as usize,
            DataType::Binary => column.as_binary::<i32>().value_length(row) as usize,
            DataType::LargeBinary => column.as_binary::<i64>().value_length(row) as usize,
            DataType::Utf8View => 16 + column.as_string_view().value(row).len(),
            DataType::BinaryView => 16 + column.as_binary_view().value(row).len(),
            DataType::List(_) => of_value * column.as_list::<i32>().value_length(row) as usize,
            DataType::LargeList(_) => of_value * column.as_list::<i64>().value_length(row) as usize,
            _ => each,
        };
        bytes.iter_mut().enumerate().for_each(|(row, bytes)| *bytes += of(row));
    }
    bytes
}

/// Cuts a sequence of things of these sizes, each range of at most [`batch_bytes`] and `most` things. What is larger is
/// alone. Nothing gives no range.
pub(crate) fn cut(sizes: impl IntoIterator<Item = usize>, most: usize) -> Vec<Range<usize>> {
    let limit = batch_bytes();
    let (mut ranges, mut first, mut bytes, mut end) = (Vec::new(), 0, 0_usize, 0);
    for size in sizes {
        if end > first && (bytes.saturating_add(size) > limit || end - first >= most) {
            ranges.push(first..end);
            (first, bytes) = (end, 0);
        }
        bytes = bytes.saturating_add(size);
        end += 1;
    }
    if end > first {
        ranges.push(first..end);
    }
    ranges
}

/// The same rows in fewer batches, none of which is cut.
pub(crate) fn join(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let ranges = cut(batches.iter().map(|batch| bytes_of(batch.columns())), usize::MAX);
    Ok(ranges.into_iter().map(|range| concat_batches(schema, &batches[range])).collect::<Result<_, _>>()?)
}

/// Rows of several batches in some order, to be taken out in bounded batches.
pub(crate) struct Ordered {
    batches: Vec<RecordBatch>,
    /// Which batch, and which row of it; `None` when they come as they are.
    order: Option<Vec<(usize, usize)>>,
    rows: usize,
    /// How many are out.
    out: usize,
    /// The bytes of all rows, when all together may be too many for one batch.
    sizes: Option<Vec<Vec<usize>>>,
}

impl Ordered {
    /// The rows (batch, row) of these batches, which have one schema.
    pub(crate) fn new(batches: Vec<RecordBatch>, order: Vec<(usize, usize)>) -> Self {
        let is_large = batches.iter().map(|batch| bytes_of(batch.columns())).sum::<usize>() > batch_bytes();
        let sizes = is_large.then(|| batches.iter().map(bytes_of_rows).collect());
        Self { rows: order.len(), order: Some(order), batches, out: 0, sizes }
    }

    /// All rows as they are, one batch after the other. Nothing is copied.
    pub(crate) fn as_they_are(batches: Vec<RecordBatch>) -> Self {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Self { rows, order: None, batches, out: 0, sizes: None }
    }

    /// The next rows, at most `most`; `None` when all are out.
    pub(crate) fn take(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let Some(order) = &self.order else {
            let mut first = self.out;
            let next = self.batches.iter().find(|batch| match first < batch.num_rows() {
                true => true,
                false => {
                    first -= batch.num_rows();
                    false
                }
            });
            let taken = next.map(|batch| batch.slice(first, most.min(batch.num_rows() - first)));
            self.out += taken.as_ref().map_or(0, RecordBatch::num_rows);
            return Ok(taken);
        };
        let rest = &order[self.out..];
        let mut some = rest.len().min(most);
        if let Some(sizes) = &self.sizes {
            let (limit, mut bytes) = (batch_bytes(), 0);
            let fits = rest[..some].iter().take_while(|(batch, row)| {
                bytes += sizes[*batch][*row];
                bytes <= limit
            });
            some = fits.count().max(1).min(some);
        }
        self.out += some;
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        Ok(Some(interleave_record_batch(&batches, &rest[..some])?))
    }

    /// Whether all are out.
    pub(crate) fn is_empty(&self) -> bool {
        self.out == self.rows
    }

    /// About how many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
            + self.order.as_ref().map_or(0, |order| size_of_val(&order[..]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn what_is_cut_is_bounded_and_in_order() {
        let cut = |sizes: &[usize], most| with_batches_of(10, || cut(sizes.iter().copied(), most));
        assert!(cut(&[], 9).is_empty());
        assert_eq!(cut(&[4, 6, 1, 10, 11, 0, 9], 9), [0..2, 2..3, 3..4, 4..5, 5..7]);
        assert_eq!(cut(&[0; 5], 2), [0..2, 2..4, 4..5]);
        assert_eq!(cut(&[usize::MAX, usize::MAX], 9), [0..1, 1..2]);
    }

    fn texts(texts: &[&str]) -> RecordBatch {
        let lists = texts.iter().map(|text| Some(text.bytes().map(|byte| Some(i64::from(byte)))));
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(Int64Array::from_iter_values(texts.iter().map(|text| text.len() as i64)))),
            ("text", Arc::new(StringArray::from(texts.to_vec()))),
            ("view", Arc::new(StringViewArray::from(texts.to_vec()))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn rows_leave_in_their_order_and_in_bounded_batches() {
        let batches = vec![texts(&["a", "long text, much longer"]), texts(&["", "bb", "ccc"])];
        let order = vec![(1, 2), (0, 0), (1, 1), (0, 1), (1, 0), (0, 0)];
        for (bytes, most, expected) in
            [(1 << 20, 4, vec![4, 2]), (1, 9, vec![1; 6]), (250, 9, vec![3, 1, 2]), (0, 9, vec![1; 6])]
        {
            let (mut rows, mut lengths) = (Vec::new(), Vec::new());
            with_batches_of(bytes, || {
                let mut ordered = Ordered::new(batches.clone(), order.clone());
                while let Some(batch) = ordered.take(most).unwrap() {
                    lengths.push(batch.num_rows());
                    rows.extend(batch.column(1).as_string::<i32>().iter().flatten().map(str::len));
                }
                assert!(ordered.is_empty());
            });
            assert_eq!(rows, [3, 1, 2, 22, 0, 1]);
            assert_eq!(lengths, expected, "batches of {bytes} bytes");
        }
    }

    #[test]
    fn rows_that_are_in_order_leave_as_they_are() {
        let mut ordered = Ordered::as_they_are(vec![texts(&["a", "b", "c"]), texts(&[]), texts(&["d"])]);
        let mut lengths = Vec::new();
        while let Some(batch) = ordered.take(2).unwrap() {
            lengths.push(batch.num_rows());
        }
        assert!(ordered.is_empty());
        assert_eq!(lengths, [2, 1, 1]);
        assert!(Ordered::as_they_are(Vec::new()).take(9).unwrap().is_none());
    }

    #[test]
    fn batches_are_joined_but_not_cut() {
        let batches = [texts(&["a"]), texts(&["b", "c"]), texts(&["d"])];
        let rows = |bytes| with_batches_of(bytes, || join(&batches[0].schema(), &batches).unwrap());
        assert_eq!(rows(1).iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(rows(1 << 20).iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [4]);
    }
}
