//! Rows in order of event time, or of the stretches of time that they are in.
//!
//! ```text
//!   batches      10 11 15 │ 24 21        16 12 │ 23 29
//!   by time      10 11 12 15 16 21 23 24 29                rows are compared
//!   by stretch   10 11 15 16 12 │ 24 21 23 29              where each stretch ends is looked up: its rows stay as they came
//! ```

use std::ops::Range;

use arrow::{
    array::{ArrayData, MutableArrayData, RecordBatch, UInt32Array, make_array},
    compute::{concat_batches, interleave_record_batch, take_record_batch},
};

use crate::{Result, schema::has_dictionary, time::times_of};

/// Where the stretch of an instant begins and ends; one that ends at the end of time includes it.
pub(super) type Stretch = dyn Fn(i64) -> (i64, i64) + Send;

/// Of how many rows, on the average, a stretch of time is so long that it is copied as it is.
const LONG: usize = 16;

/// The rows of several batches, each in order of event time, in that order; rows of one time in the order they came.
pub(super) fn merged(batches: &[RecordBatch], column: usize, stretch: Option<&Stretch>) -> Result<RecordBatch> {
    let times = batches.iter().map(|rows| times_of(rows, column)).collect::<Result<Vec<_>>>()?;
    let begin = |time: Option<&i64>| time.map(|&time| begin_of(stretch, time));
    let ends: Vec<_> = times.iter().map(|times| (begin(times.first()), begin(times.last()))).collect();
    let mut runs: Vec<usize> = (0..batches.len()).collect();
    runs.sort_by_key(|&run| ends[run].0);
    // Of two batches that touch the one that came first has to be the first.
    let follows = |pair: &[usize]| {
        let (last, first) = (ends[pair[0]].1, ends[pair[1]].0);
        last < first || (last == first && pair[0] < pair[1])
    };
    if runs.windows(2).all(follows) {
        let in_order: Vec<&RecordBatch> = runs.iter().map(|&run| &batches[run]).collect();
        return Ok(concat_batches(batches[0].schema_ref(), in_order)?);
    }
    // The numbers of two dictionaries may not fit together: that has to be looked at.
    let slices = stretch.filter(|_| !has_dictionary(batches[0].schema_ref()));
    if let Some(mut runs) = slices.and_then(|stretch| stretches(&times, stretch)) {
        runs.sort_by_key(|(begin, ..)| *begin);
        return of_runs(batches, &runs);
    }
    let rows = times
        .iter()
        .enumerate()
        .flat_map(|(run, times)| times.iter().enumerate().map(move |(row, &time)| (time, run as u32, row as u32)));
    let mut order: Vec<(i64, u32, u32)> = rows.collect();
    // Without stretches they are a few runs in order: a stable sort finds these.
    order.sort_by_key(|(time, ..)| *time);
    let places: Vec<(usize, usize)> = order.into_iter().map(|(_, run, row)| (run as usize, row as usize)).collect();
    Ok(interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &places)?)
}

/// These runs of rows. What several of a batch share, as texts in views do, is there once: slices would each come with all of it.
fn of_runs(batches: &[RecordBatch], runs: &[(i64, usize, Range<usize>)]) -> Result<RecordBatch> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let column = |column: usize| {
        let parts: Vec<ArrayData> = batches.iter().map(|rows| rows.column(column).to_data()).collect();
        let mut all = MutableArrayData::new(parts.iter().collect(), false, rows);
        runs.iter().try_for_each(|(_, batch, rows)| all.try_extend(*batch, rows.start, rows.end))?;
        Ok(make_array(all.freeze()))
    };
    let columns = (0..batches[0].num_columns()).map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(batches[0].schema(), columns)?)
}

/// Each stretch of each batch, as its begin, the batch and the rows; `None` if they are so short that sorting costs less.
fn stretches(times: &[&[i64]], stretch: &Stretch) -> Option<Vec<(i64, usize, Range<usize>)>> {
    let most = times.iter().map(|times| times.len()).sum::<usize>() / LONG;
    let mut found = Vec::new();
    for (batch, times) in times.iter().enumerate() {
        let mut start = 0;
        while let Some(&time) = times.get(start) {
            let (begin, end) = stretch(time);
            let rest = &times[start..];
            let rows = if end == i64::MAX { rest.len() } else { rest.partition_point(|&time| time < end).max(1) };
            found.push((begin, batch, start..start + rows));
            if found.len() > most {
                return None;
            }
            start += rows;
        }
    }
    Some(found)
}

/// Where the stretch of `time` begins; where there are none, each time is one.
pub(super) fn begin_of(stretch: Option<&Stretch>, time: i64) -> i64 {
    stretch.map_or(time, |stretch| stretch(time).0)
}

pub(super) fn is_in_order(times: &[i64], stretch: Option<&Stretch>) -> bool {
    let Some(stretch) = stretch else { return times.is_sorted() };
    let (mut begin, mut end) = (i64::MIN, i64::MIN);
    times.iter().all(|&time| {
        let is_before = time < begin;
        if time >= end && end != i64::MAX {
            (begin, end) = stretch(time);
        }
        !is_before
    })
}

/// In order of event time; rows of one time in the order they came.
pub(super) fn sorted(rows: &RecordBatch, column: usize, stretch: Option<&Stretch>) -> Result<RecordBatch> {
    let times = times_of(rows, column)?;
    let is_one = |stretch: &Stretch| {
        let (least, most) = times.iter().fold((i64::MAX, i64::MIN), |(least, most), &t| (least.min(t), most.max(t)));
        stretch(least).0 == stretch(most).0
    };
    if times.is_sorted() || stretch.is_some_and(is_one) {
        return Ok(rows.clone());
    }
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|&row| times[row as usize]);
    Ok(take_record_batch(rows, &UInt32Array::from(order))?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, AsArray, DictionaryArray, Int64Array, StringViewArray},
        datatypes::{Int32Type, Int64Type},
    };

    use super::*;
    use crate::Timestamp;

    fn batch(times: &[i64], first: i64) -> RecordBatch {
        let row = Int64Array::from_iter_values(first..first + times.len() as i64);
        let columns = [("at", Timestamp::column(times.to_vec())), ("row", Arc::new(row) as ArrayRef)];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// Stretches of a hundred.
    fn hundreds(time: i64) -> (i64, i64) {
        let begin = time.div_euclid(100) * 100;
        (begin, begin + 100)
    }

    fn numbers(rows: &RecordBatch) -> Vec<i64> {
        rows.column(1).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_of_one_time_stay_in_the_order_they_came() {
        // Three pieces of which each begins before the one before it ends, and three that only touch.
        let numbers_of = |batches: &[RecordBatch]| numbers(&merged(batches, 0, None).unwrap());
        let overlapping = [batch(&[1, 5, 5, 9], 0), batch(&[0, 5, 9], 4), batch(&[5, 9], 7)];
        assert_eq!(numbers_of(&overlapping), [4, 0, 1, 2, 5, 7, 3, 6, 8]);
        let touching = [batch(&[5, 6], 0), batch(&[6, 6], 2), batch(&[3, 5], 4)];
        assert_eq!(numbers_of(&touching), [4, 0, 5, 1, 2, 3]);
        let in_order = [batch(&[5, 6], 0), batch(&[6, 6], 2), batch(&[3, 4], 4)];
        assert_eq!(numbers_of(&in_order), [4, 5, 0, 1, 2, 3]);
    }

    /// Two batches of two stretches each, and one whose rows are not in order.
    #[test]
    fn rows_of_one_stretch_stay_as_they_came() {
        let times = |from: i64| (0..80).map(|row| from + row / 40 * 100 - row).collect::<Vec<_>>();
        let batches = [batch(&times(299), 0), batch(&times(290), 80)];
        let expected: Vec<i64> = (0..40).chain(80..120).chain(40..80).chain(120..160).collect();
        assert_eq!(numbers(&merged(&batches, 0, Some(&hundreds)).unwrap()), expected);
        // Too short for that: these are sorted.
        let short = [batch(&[150, 120, 210], 0), batch(&[190, 110, 205], 3)];
        assert_eq!(numbers(&merged(&short, 0, Some(&hundreds)).unwrap()), [4, 1, 0, 3, 5, 2]);
        let alike = [batch(&[150, 120], 0), batch(&[190, 110], 2)];
        assert_eq!(numbers(&merged(&alike, 0, Some(&hundreds)).unwrap()), [0, 1, 2, 3]);
        let unsorted = batch(&[50, 30, 90], 0);
        assert_eq!(numbers(&sorted(&unsorted, 0, Some(&hundreds)).unwrap()), [0, 1, 2]);
        assert_eq!(numbers(&sorted(&batch(&[50, 130, 20], 0), 0, Some(&hundreds)).unwrap()), [2, 0, 1]);
    }

    /// What the batches share is not there once for each of their stretches: dictionaries, and texts behind views.
    #[test]
    fn what_stretches_share_is_there_once() {
        let batch = |from: usize| {
            let names: DictionaryArray<Int32Type> = (0..80).map(|row| ["a", "b", "c"][(row + from) % 3]).collect();
            let texts = StringViewArray::from_iter_values((0..80).map(|_| format!("{from:>40}")));
            let times = (0..80).map(|row| row / 20 * 100 + 50 - row % 20).collect();
            let columns: [(&str, ArrayRef); 3] =
                [("at", Timestamp::column(times)), ("name", Arc::new(names)), ("text", Arc::new(texts))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches: Vec<RecordBatch> = (0..16).map(batch).collect();
        let one = merged(&batches, 0, Some(&hundreds)).unwrap();
        assert_eq!(one.num_rows(), 16 * 80);
        assert!(one.column(1).as_any_dictionary().values().len() <= 16 * 3);
        let texts: Vec<RecordBatch> = batches.iter().map(|rows| rows.project(&[0, 2]).unwrap()).collect();
        let one = merged(&texts, 0, Some(&hundreds)).unwrap();
        let (texts, times) = (one.column(1).as_string_view(), times_of(&one, 0).unwrap());
        assert!(texts.data_buffers().len() <= 16, "{} buffers", texts.data_buffers().len());
        assert!(is_in_order(times, Some(&hundreds)));
        let mut found: Vec<(i64, usize)> =
            times.iter().zip(texts).map(|(time, text)| (*time, text.unwrap().trim().parse().unwrap())).collect();
        found.sort_unstable();
        let row = |row: i64| (0..16).map(move |from| (row / 20 * 100 + 50 - row % 20, from));
        let mut expected: Vec<(i64, usize)> = (0..80).flat_map(row).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_in_order_are_known() {
        for (times, in_order, in_stretches) in [
            (&[][..], true, true),
            (&[1, 5, 5, 150, 201], true, true),
            (&[5, 1, 150, 120, 201], false, true),
            (&[5, 120, 99], false, false),
            (&[-1, 0, -1], false, false),
        ] {
            assert_eq!((is_in_order(times, None), is_in_order(times, Some(&hundreds))), (in_order, in_stretches));
        }
        let at_the_end: &Stretch = &|time| if time < 0 { (i64::MIN, 0) } else { (0, i64::MAX) };
        assert!(is_in_order(&[-1, i64::MIN, 5, i64::MAX, 0], Some(at_the_end)));
        assert!(!is_in_order(&[5, i64::MAX, -1], Some(at_the_end)));
    }
}
