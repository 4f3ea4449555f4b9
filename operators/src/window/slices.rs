//! The open slices of an operator: which rows go where, what is late, what is complete.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::{take, take_record_batch},
};

use super::{Slice, Slicing, Tumbling};
use crate::{
    Advance, OperatorError, Outbox, Result, Timestamp,
    state::{Part, StateReader, StateWriter},
    time::event_times,
};

/// The number that says how far event time had come: rows of slices that end there or before are late.
const CLOSED: &str = "closed";
/// The number that says how long a slice is: with it a reader tells which rows of a segment have given their result.
const SIZE: &str = "window_size";
/// The number that says up to where slices have given their result, when that is not so far: a task that was restored
/// from several may have closed slices that the next watermark lets out.
const FIRED: &str = "fired";

/// How many result rows one call of `advance` emits before it asks to be called again.
const EMIT_ROWS: usize = 8192;

/// The rows of a batch that belong to one slice.
pub(super) enum Selection {
    All,
    Range { offset: usize, rows: usize },
    Rows(UInt32Array),
}

impl Selection {
    pub(super) fn array(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match self {
            Self::All => array.clone(),
            Self::Range { offset, rows } => array.slice(*offset, *rows),
            Self::Rows(rows) => take(array, rows, None)?,
        })
    }

    pub(super) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(match self {
            Self::All => batch.clone(),
            // A small part is copied: as a slice it would keep the whole batch alive for as long as it waits.
            Self::Range { offset, rows } if 2 * rows < batch.num_rows() => {
                let rows = UInt32Array::from_iter_values(*offset as u32..(offset + rows) as u32);
                take_record_batch(batch, &rows)?
            }
            Self::Range { offset, rows } => batch.slice(*offset, *rows),
            Self::Rows(rows) => take_record_batch(batch, rows)?,
        })
    }

    pub(super) fn rows(&self, batch: &RecordBatch) -> usize {
        match self {
            Self::All => batch.num_rows(),
            Self::Range { rows, .. } => *rows,
            Self::Rows(rows) => rows.len(),
        }
    }
}

/// Slices that are open, each with its content `S`, and the slice whose result is on its way out.
pub(super) struct Slices<S> {
    slicing: Slicing,
    lateness: Duration,
    open: BTreeMap<Timestamp, (Slice, S)>,
    /// Every slice that ends here or before is closed. Also the promise made downstream.
    closed: Timestamp,
    /// Every slice that ends here or before has given its result.
    fired: Timestamp,
    /// A result too large for one call of `advance`, and how much of it is out.
    leaving: Option<(RecordBatch, usize)>,
}

impl<S> Slices<S> {
    pub(super) fn new(window: &Tumbling) -> Result<Self> {
        Ok(Self {
            slicing: window.slicing()?,
            lateness: window.lateness(),
            open: BTreeMap::new(),
            closed: Timestamp::MIN,
            fired: Timestamp::MIN,
            leaving: None,
        })
    }

    /// The rows of `batch` by slice. Rows of closed slices go out as late; what is returned is answered for.
    pub(super) fn assign(&self, batch: &RecordBatch, time: usize, out: &mut Outbox) -> Result<Vec<(Slice, Selection)>> {
        let times = event_times(batch, time)
            .ok_or_else(|| OperatorError::Internal("a row without event time reached a window".into()))?;
        let mut parts = split(&self.slicing, times);
        if parts.iter().any(|(slice, _)| slice.end <= self.closed) {
            let (late, on_time): (Vec<_>, _) = parts.into_iter().partition(|(slice, _)| slice.end <= self.closed);
            for (_, selection) in late {
                out.late(selection.batch(batch)?);
            }
            parts = on_time;
        }
        out.processed(parts.iter().map(|(_, selection)| selection.rows(batch)).sum());
        Ok(parts)
    }

    /// The content of an open slice, made when it is new.
    pub(super) fn content(&mut self, slice: Slice, new: impl FnOnce() -> Result<S>) -> Result<&mut S> {
        Ok(match self.open.entry(slice.start) {
            Entry::Occupied(open) => &mut open.into_mut().1,
            Entry::Vacant(vacant) => &mut vacant.insert((slice, new()?)).1,
        })
    }

    /// Takes all open slices, oldest first, without closing them: rows for them may still come.
    pub(super) fn take_open(&mut self) -> impl Iterator<Item = (Slice, S)> + use<S> {
        std::mem::take(&mut self.open).into_values()
    }

    /// The open slices, oldest first.
    pub(super) fn open(&mut self) -> impl Iterator<Item = (Slice, &mut S)> {
        self.open.values_mut().map(|(slice, content)| (*slice, content))
    }

    /// Takes down how far event time has come. The contents are for the operator to save.
    pub(super) fn save(&self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.leaving.is_some() {
            return Err(OperatorError::Internal("a window was saved with a result half-way out".into()));
        }
        state.set(CLOSED, self.closed.micros());
        state.set(SIZE, self.slicing.size());
        if self.fired < self.closed {
            state.set(FIRED, self.fired.micros());
        }
        Ok(())
    }

    /// Takes down the same of a first phase, which has been flushed and holds nothing else.
    pub(super) fn save_flushed(&self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.open.is_empty() {
            return Err(OperatorError::Internal("the first phase of a window was saved before it was flushed".into()));
        }
        self.save(state)
    }

    /// Goes on where former tasks were. Behind the exchange they stood at the same time, or, when inputs fell idle, one
    /// was ahead: its windows have given their only result and must not open again, so the greatest counts.
    pub(super) fn load(&mut self, state: &StateReader) {
        self.closed = state.greatest(false, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        // Of those with segments: if it is one it keeps them, and they have rows of slices that have long fired.
        let with_segments = state.parts.iter().filter(|part| !part.segments.is_empty());
        self.fired = with_segments.map(fired).min().unwrap_or(self.closed);
    }

    /// The same for a first phase. Before the exchange tasks stand at different times; the least makes no row late that
    /// was not. But what the second phase has closed would be late there, and could no longer be told as rows.
    pub(super) fn load_flushed(&mut self, state: &StateReader) {
        self.load(state);
        let least = state.least(true, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        self.closed = self.closed.max(least);
        self.fired = self.closed;
    }

    /// The rows of a segment by slice, without those of slices whose result its task had given. `start` is the column
    /// that says where the slice of a row begins.
    pub(super) fn saved_parts(&self, part: &Part, rows: &RecordBatch, start: usize) -> Result<Vec<(Slice, Selection)>> {
        let starts = event_times(rows, start)
            .ok_or_else(|| OperatorError::Internal("a row of a segment has no slice".into()))?;
        let fired = fired(part);
        let parts = split(&self.slicing, starts).into_iter();
        Ok(parts.filter(|(slice, _)| slice.end > fired).collect())
    }

    /// Closes the slices that `time` completes and emits what `result` makes of each, in bounded steps.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        out: &mut Outbox,
        mut result: impl FnMut(Slice, S) -> Result<RecordBatch>,
    ) -> Result<Advance> {
        let end_of_input = time == Timestamp::MAX;
        if !end_of_input {
            self.closed = self.closed.max(time.saturating_sub(self.lateness));
        } else if let Some((last, _)) = self.open.last_key_value().map(|(_, open)| open) {
            // All that is open is complete. But the end is not a time: a job that is started again may find more, for
            // instance a new file, and only windows that have given their result are closed to it.
            self.closed = self.closed.max(last.end);
        }
        let mut emitted = 0;
        while emitted < EMIT_ROWS {
            if let Some((batch, offset)) = self.leaving.take() {
                let rows = (batch.num_rows() - offset).min(EMIT_ROWS - emitted);
                out.emit(batch.slice(offset, rows));
                emitted += rows;
                if offset + rows < batch.num_rows() {
                    self.leaving = Some((batch, offset + rows));
                }
                continue;
            }
            match self.open.first_entry() {
                Some(first) if first.get().0.end <= self.closed => {
                    let (slice, content) = first.remove();
                    self.leaving = Some((result(slice, content)?, 0));
                }
                _ => {
                    self.fired = self.closed;
                    // Just restored it may have closed more than the watermark, which begins anew, has reached.
                    return Ok(Advance::Promise(if end_of_input { time } else { self.closed.min(time) }));
                }
            }
        }
        Ok(Advance::Again)
    }
}

/// Up to where slices of a former task have given their result.
fn fired(part: &Part) -> Timestamp {
    fired_micros(&part.numbers).map_or(Timestamp::MIN, Timestamp::from_micros)
}

fn fired_micros(numbers: &BTreeMap<String, i64>) -> Option<i64> {
    numbers.get(FIRED).or_else(|| numbers.get(CLOSED)).copied()
}

/// Whether the window that begins at `start` (microseconds) had yet to give its result when its task set these numbers
/// of its state. For who reads a checkpoint without the job: segments still have rows of windows that are done.
pub fn is_open(numbers: &BTreeMap<String, i64>, start: i64) -> bool {
    match (numbers.get(SIZE), fired_micros(numbers)) {
        (Some(size), Some(fired)) => start.saturating_add(*size) > fired,
        _ => true,
    }
}

/// The rows by slice. The common case, all rows in one slice, costs a scan for the least and the greatest time.
fn split(slicing: &Slicing, times: &[i64]) -> Vec<(Slice, Selection)> {
    let Some(&first) = times.first() else { return Vec::new() };
    let (least, greatest) = times.iter().fold((first, first), |(lo, hi), &t| (lo.min(t), hi.max(t)));
    let slice = slicing.slice_of(Timestamp::from_micros(least));
    if slice.contains(Timestamp::from_micros(greatest)) {
        return vec![(slice, Selection::All)];
    }
    let runs = runs(slicing, times);
    let mut parts: Vec<(Slice, Vec<(usize, usize)>)> = Vec::new();
    let mut place: HashMap<Timestamp, usize> = HashMap::new();
    for (slice, offset, rows) in runs {
        let at = *place.entry(slice.start).or_insert_with(|| {
            parts.push((slice, Vec::new()));
            parts.len() - 1
        });
        parts[at].1.push((offset, rows));
    }
    parts.into_iter().map(|(slice, runs)| (slice, select(&runs))).collect()
}

/// Stretches of rows that lie in one slice: (slice, first row, number of rows).
fn runs(slicing: &Slicing, times: &[i64]) -> Vec<(Slice, usize, usize)> {
    let mut runs: Vec<(Slice, usize, usize)> = Vec::new();
    for (row, &time) in times.iter().enumerate() {
        let time = Timestamp::from_micros(time);
        match runs.last_mut() {
            Some((slice, _, rows)) if slice.contains(time) => *rows += 1,
            _ => runs.push((slicing.slice_of(time), row, 1)),
        }
    }
    runs
}

fn select(runs: &[(usize, usize)]) -> Selection {
    match runs {
        [(offset, rows)] => Selection::Range { offset: *offset, rows: *rows },
        _ => {
            let rows = runs.iter().flat_map(|&(offset, rows)| offset as u32..(offset + rows) as u32);
            Selection::Rows(UInt32Array::from_iter_values(rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn batch(times: &[i64]) -> RecordBatch {
        let row = Int64Array::from_iter_values(0..times.len() as i64);
        RecordBatch::try_from_iter([("at", Timestamp::column(times.to_vec())), ("row", Arc::new(row) as ArrayRef)])
            .unwrap()
    }

    proptest! {
        #[test]
        fn every_row_goes_to_its_slice_or_out_as_late(
            times in prop::collection::vec(-60i64..60, 0..80), watermark in -70i64..70, lateness in 0u64..20
        ) {
            let window = Tumbling::of(Duration::from_micros(10)).allowed_lateness(Duration::from_micros(lateness));
            let mut slices = Slices::<()>::new(&window).unwrap();
            let mut out = Outbox::new();
            slices.advance(Timestamp::from_micros(watermark), &mut out, |_, ()| unreachable!()).unwrap();
            let batch = batch(&times);
            let mut on_time = Vec::new();
            for (slice, selection) in slices.assign(&batch, 0, &mut out).unwrap() {
                let part = selection.batch(&batch).unwrap();
                prop_assert_eq!(part.num_rows(), selection.rows(&batch));
                for &row in part.column(1).as_primitive::<Int64Type>().values() {
                    prop_assert_eq!(slice.start.micros(), times[row as usize].div_euclid(10) * 10);
                    on_time.push(row as usize);
                }
            }
            on_time.sort_unstable();
            let expected: Vec<usize> = (0..times.len())
                .filter(|&row| times[row].div_euclid(10) * 10 + 10 + lateness as i64 > watermark)
                .collect();
            prop_assert_eq!(&on_time, &expected);
            let counts = ((expected.len()) as u64, (times.len() - expected.len()) as u64);
            prop_assert_eq!(out.take_counts(), counts);
        }
    }

    #[test]
    fn a_large_result_leaves_in_steps_before_the_promise_is_made() {
        let mut slices = Slices::<usize>::new(&Tumbling::of(Duration::from_micros(10))).unwrap();
        for (start, rows) in [(0, 3), (10, 20_000), (20, 5)] {
            let slice = slices.slicing.slice_of(Timestamp::from_micros(start));
            slices.content(slice, || Ok(rows)).unwrap();
        }
        let mut emitted = Vec::new();
        let promise = loop {
            let mut out = Outbox::new();
            let step = slices.advance(Timestamp::from_micros(20), &mut out, |_, rows| Ok(batch(&vec![0; rows])));
            let rows: usize = out.drain().map(|(_, batch)| batch.num_rows()).sum();
            assert!(rows <= EMIT_ROWS);
            emitted.push(rows);
            if let Advance::Promise(time) = step.unwrap() {
                break time;
            }
        };
        assert_eq!(promise, Timestamp::from_micros(20));
        assert_eq!(emitted.iter().sum::<usize>(), 20_003, "the slice [20, 30) stays open");
        assert!(emitted.len() > 2);
    }
}
