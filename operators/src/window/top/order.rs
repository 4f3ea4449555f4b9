//! Which rows win: key by key the first `n`, in order.
//!
//! ```text
//!   key, by ──► bytes that sort alike ──► sorted ──► runs of one key and value    a 9 │ a 7  a 7 │ a 1 │ b 5 │ …
//!                                                          the first n of a key:  ├───── n ──┤         ├─ …
//!   other columns ── of runs of several rows only ──► the order within a run
//! ```
//!
//! Most rows are looked at in the columns that decide, and no others: text moves only when its row has won.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, Scalar, UInt32Array, new_empty_array},
    compute::{
        LexicographicalComparator, SortColumn, SortOptions, concat, filter, interleave, interleave_record_batch,
        kernels::cmp::gt_eq, partition, sort_to_indices, take, take_arrays,
    },
    datatypes::{SchemaRef, UInt32Type},
    row::{RowConverter, Rows, SortField},
};

use super::Shared;
use crate::{OperatorError, Result, key::comparable};

const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: false };
const DESCENDING: SortOptions = SortOptions { descending: true, nulls_first: false };

/// What is left of rows: key by key, the greatest first.
pub(super) struct Winners {
    pub(super) ranks: Vec<u64>,
    /// Where they are, counted over all batches.
    pub(super) places: Vec<u32>,
}

impl Winners {
    /// Of the rows of all batches, of which there is one at the least, or of these of them.
    pub(super) fn of(plan: &Shared, batches: &[RecordBatch], candidates: Option<Vec<u32>>) -> Result<Self> {
        let column = |&column: &usize| {
            let arrays: Vec<ArrayRef> = batches.iter().map(|batch| comparable(batch.column(column))).collect();
            concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())
        };
        let mut deciding: Vec<ArrayRef> = plan.key.iter().chain([&plan.by]).map(column).collect::<Result<_, _>>()?;
        let mut candidates = candidates.map(UInt32Array::from);
        if let Some(candidates) = &candidates {
            deciding = take_arrays(&deciding, candidates, None)?;
        }
        // Without a key few are as great as the n-th greatest: only these are sorted.
        if plan.key.is_empty()
            && let Some(bar) = nth_greatest(&deciding[0], plan.n)?
        {
            let all = || UInt32Array::from_iter_values(0..deciding[0].len() as u32);
            let reached = gt_eq(&deciding[0], &Scalar::new(bar))?;
            let places = filter(&candidates.unwrap_or_else(all), &reached)?;
            deciding = vec![filter(&deciding[0], &reached)?];
            candidates = Some(places.as_primitive::<UInt32Type>().clone());
        }
        let sorted = UInt32Array::from(sorted(&deciding)?);
        let chosen = Chosen::of(plan, &take_arrays(&deciding, &sorted, None)?)?;
        let sorted = match &candidates {
            Some(places) => take(places, &sorted, None)?.as_primitive::<UInt32Type>().clone(),
            None => sorted,
        };
        let places = chosen.places(sorted.values().to_vec(), |tied| ties(plan, batches, tied))?;
        Ok(Self { ranks: chosen.ranks(), places })
    }

    /// How many bytes it takes to say so.
    pub(super) fn size(&self) -> usize {
        size_of_val(&self.ranks[..]) + size_of_val(&self.places[..])
    }
}

/// The n-th greatest of more than `n` values, if it is not null: so nothing less is among the first `n`.
pub(super) fn nth_greatest(values: &ArrayRef, n: usize) -> Result<Option<ArrayRef>> {
    if values.len() <= n || values.len() - values.logical_null_count() < n {
        return Ok(None);
    }
    let greatest = sort_to_indices(values, Some(DESCENDING), Some(n))?;
    Ok(greatest.values().last().map(|&last| values.slice(last as usize, 1)))
}

/// These rows of batches, of which there is one at the least; they are counted over all of them.
pub(super) fn rows_at(batches: &[RecordBatch], rows: &[u32]) -> Result<RecordBatch> {
    let Some(first) = batches.first().filter(|_| !rows.is_empty()) else {
        return Ok(RecordBatch::new_empty(schema(batches)?));
    };
    match batches.len() == 1 && rows.iter().copied().eq(0..first.num_rows() as u32) {
        true => Ok(first.clone()),
        false => {
            let (batches, places) = find(batches, rows);
            Ok(interleave_record_batch(&batches, &places)?)
        }
    }
}

/// One column of them.
pub(super) fn column_at(batches: &[RecordBatch], column: usize, rows: &[u32]) -> Result<ArrayRef> {
    let (used, places) = find(batches, rows);
    match places.is_empty() {
        true => Ok(new_empty_array(schema(batches)?.field(column).data_type())),
        false => {
            let arrays: Vec<&dyn Array> = used.iter().map(|batch| batch.column(column).as_ref()).collect();
            Ok(interleave(&arrays, &places)?)
        }
    }
}

fn schema(batches: &[RecordBatch]) -> Result<SchemaRef> {
    let none = || OperatorError::Internal("a slice without rows".into());
    Ok(batches.first().ok_or_else(none)?.schema())
}

/// The batches that have these rows, and where in them they are.
fn find<'b>(batches: &'b [RecordBatch], rows: &[u32]) -> (Vec<&'b RecordBatch>, Vec<(usize, usize)>) {
    let mut end = 0;
    let ends = batches.iter().map(|batch| {
        end += batch.num_rows();
        end
    });
    let ends: Vec<usize> = ends.collect();
    let (mut used, mut numbers) = (Vec::new(), vec![None; batches.len()]);
    let place = |&row: &u32| {
        let at = ends.partition_point(|end| *end <= row as usize);
        let number = *numbers[at].get_or_insert_with(|| {
            used.push(&batches[at]);
            used.len() - 1
        });
        (number, row as usize - if at == 0 { 0 } else { ends[at - 1] })
    };
    let places = rows.iter().map(place).collect();
    (used, places)
}

/// Of sorted rows the stretches of one key and value that have winners, and how many of each win.
struct Chosen(Vec<Stretch>);

struct Stretch {
    rows: Range<usize>,
    /// Its first rank.
    rank: usize,
    winners: usize,
}

impl Chosen {
    /// `deciding` are the key columns and that of the value, sorted.
    fn of(plan: &Shared, deciding: &[ArrayRef]) -> Result<Self> {
        let rows = deciding[0].len();
        let keys = match plan.key.is_empty() {
            true => std::iter::once(0..rows).collect(),
            false => partition(&deciding[..plan.key.len()])?.ranges(),
        };
        let mut keys = keys.into_iter();
        let (mut end, mut rank) = (0, 0);
        let mut chosen = Vec::new();
        for rows in partition(deciding)?.ranges() {
            if rows.start >= end {
                (end, rank) = (keys.next().map_or(usize::MAX, |key| key.end), 0);
            }
            if rank < plan.n {
                let winners = if plan.ties { rows.len() } else { rows.len().min(plan.n - rank) };
                chosen.push(Stretch { rows, rank: rank + 1, winners });
                rank += winners;
            }
        }
        Ok(Self(chosen))
    }

    fn ranks(&self) -> Vec<u64> {
        self.0.iter().flat_map(|it| it.rank as u64..(it.rank + it.winners) as u64).collect()
    }

    /// The winners, in order. `ties` compares rows by what decides between equal values, and is given those that need it.
    fn places(
        &self,
        mut sorted: Vec<u32>,
        ties: impl FnOnce(&[u32]) -> Result<LexicographicalComparator>,
    ) -> Result<Vec<u32>> {
        let several = || self.0.iter().filter(|stretch| stretch.rows.len() > 1);
        let tied: Vec<u32> = several().flat_map(|stretch| &sorted[stretch.rows.clone()]).copied().collect();
        if !tied.is_empty() {
            let ties = ties(&tied)?;
            let compare = |a: &u32, b: &u32| ties.compare(*a as usize, *b as usize);
            let mut first = 0;
            for Stretch { rows, winners, .. } in several() {
                let mut order: Vec<u32> = (first as u32..(first + rows.len()) as u32).collect();
                first += rows.len();
                if *winners < rows.len() {
                    order.select_nth_unstable_by(*winners, compare);
                }
                order[..*winners].sort_unstable_by(compare);
                for (place, row) in sorted[rows.clone()].iter_mut().zip(&order[..*winners]) {
                    *place = tied[*row as usize];
                }
            }
        }
        let winners = |stretch: &Stretch| stretch.rows.start..stretch.rows.start + stretch.winners;
        Ok(self.0.iter().flat_map(|stretch| &sorted[winners(stretch)]).copied().collect())
    }
}

/// What breaks ties between rows: the other columns, and floats as they are, because of equal ones only one may win.
fn ties(plan: &Shared, batches: &[RecordBatch], rows: &[u32]) -> Result<LexicographicalComparator> {
    let visible = plan.input.visible();
    let is_sorted = |i: usize| i == plan.by || plan.key.contains(&i);
    let breaks_ties = |i: &usize| !is_sorted(*i) || visible.field(*i).data_type().is_floating();
    let column = |i: usize| -> Result<SortColumn> {
        Ok(SortColumn { values: column_at(batches, i, rows)?, options: Some(ASCENDING) })
    };
    let columns: Vec<SortColumn> =
        (0..visible.fields().len()).filter(breaks_ties).map(column).collect::<Result<_>>()?;
    Ok(LexicographicalComparator::try_new(&columns)?)
}

/// The rows by key and then by value, the greatest value first; equal ones in any order.
fn sorted(deciding: &[ArrayRef]) -> Result<Vec<u32>> {
    let field = |(i, column): (usize, &ArrayRef)| {
        let options = if i + 1 == deciding.len() { DESCENDING } else { ASCENDING };
        SortField::new_with_options(column.data_type().clone(), options)
    };
    let converter = RowConverter::new(deciding.iter().enumerate().map(field).collect())?;
    Ok(by_bytes(&converter.convert_columns(deciding)?))
}

/// So many bytes of a row fit into a number, besides where the row is.
const BYTES: usize = 12;

/// Where rows are, the least first. What is sorted are numbers made of the first bytes that are not the same in all rows: with
/// numbers for keys and values these are few, and nothing else is looked at.
fn by_bytes(rows: &Rows) -> Vec<u32> {
    let Some(first) = rows.iter().next() else { return Vec::new() };
    let first = first.data();
    let (mut differ, mut one_length) = (vec![0; first.len()], true);
    for row in rows {
        one_length &= row.data().len() == first.len();
        for (differ, (a, b)) in differ.iter_mut().zip(row.data().iter().zip(first)) {
            *differ |= a ^ b;
        }
    }
    let differing: Vec<usize> = (0..first.len()).filter(|&at| differ[at] != 0).collect();
    let is_all = one_length && differing.len() <= BYTES;
    let number = |data: &[u8]| {
        let bytes = differing.iter().take(BYTES).map(|&at| data.get(at).copied().unwrap_or(0));
        bytes.fold(0_u128, |number, byte| number << 8 | u128::from(byte))
    };
    let mut numbers: Vec<u128> = rows.iter().zip(0_u128..).map(|(row, at)| number(row.data()) << 32 | at).collect();
    if is_all {
        // Finds what is in order already: those that were sorted before.
        numbers.sort();
    } else {
        // Neither is a beginning of the other, so the first byte that differs decides, and it is in the numbers or behind them.
        let row = |number: &u128| rows.row(*number as u32 as usize);
        numbers.sort_unstable_by(|a, b| (a >> 32).cmp(&(b >> 32)).then_with(|| row(a).cmp(&row(b))));
    }
    numbers.into_iter().map(|number| number as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{BooleanArray, Float64Array, Int64Array, StringArray},
        compute::lexsort_to_indices,
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As Arrow sorts them, row by row.
        #[test]
        fn bytes_sort_as_the_values_do(
            rows in prop::collection::vec(
                (prop::option::of("[ab]{0,20}"), prop::option::of(prop_oneof![-3i64..3, any::<i64>()]), prop::bool::ANY,
                 prop::option::of(prop_oneof![Just(f64::NAN), Just(-1.0), any::<f64>()])),
                0..80,
            ),
            columns in 1usize..5,
        ) {
            let all: [ArrayRef; 4] = [
                Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>()),
                Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|row| Some(row.2)).collect::<BooleanArray>()),
                Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
            ];
            for some in all.windows(columns) {
                let sort = |(i, values): (usize, &ArrayRef)| {
                    let options = if i + 1 == some.len() { DESCENDING } else { ASCENDING };
                    SortColumn { values: values.clone(), options: Some(options) }
                };
                let expected = lexsort_to_indices(&some.iter().enumerate().map(sort).collect::<Vec<_>>(), None).unwrap();
                let places = UInt32Array::from(sorted(some).unwrap());
                let taken = |places| take_arrays(some, places, None).unwrap();
                prop_assert_eq!(taken(&places), taken(&expected));
            }
        }
    }

    #[test]
    fn the_nth_greatest_is_known_when_there_are_more_and_it_is_a_value() {
        let values = |values: &[Option<i64>]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
        let nth = |of: &[Option<i64>], n| nth_greatest(&values(of), n).unwrap();
        assert_eq!(nth(&[Some(1), Some(3), None, Some(2)], 2), Some(values(&[Some(2)])));
        assert_eq!(nth(&[Some(1), Some(1), Some(1)], 2), Some(values(&[Some(1)])));
        assert_eq!(nth(&[Some(1), None, None], 2), None, "a null is the second");
        assert_eq!(nth(&[Some(1), Some(2)], 2), None, "no row can be left out");
    }
}
