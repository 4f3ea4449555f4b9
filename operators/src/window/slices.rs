//! The slices of an operator: which are open, what is late, which windows are complete and what they are made of.
//!
//! ```text
//!                     ┌─ closed ─┬─ closed ─┬─ closed ─┬── open ──┬── open ──┐
//!   held slices       │  S       │  S       │  S       │  S       │  S       │
//!                     └──────────┴──────────┴──────────┴──────────┴──────────┘
//!   the next window   ├────────────────────────────────┤                        fires when the watermark passes its end;
//!   the one after it             ├────────────────────────────────┤             then the first slice is dropped
//! ```

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use arrow::array::RecordBatch;

use super::{
    Slice, Slicing, Window,
    progress::{Owed, Progress, fired},
    slicing::Stretch,
    split::{Selection, split},
};
use crate::{
    Advance, OperatorError, Outbox, Result, Timestamp,
    state::{Part, StateReader, StateWriter},
    time::event_times,
};

/// What a window that is complete is made of.
pub(super) enum Due<'a, S> {
    /// One slice that is in no other window, with its content.
    Slice(S),
    /// Slices that later windows may need too.
    Window(Parts<'a, S>),
}

/// The slices of a window.
pub(super) struct Parts<'a, S> {
    /// Their contents, oldest first. Instead of those of a window that began with this one there may be what was left of it.
    pub(super) contents: Vec<&'a mut S>,
    /// Which keys have yet to get the result.
    pub(super) owed: Owed,
    /// Whether the next window begins with this one: then all contents in one are left to it.
    pub(super) grows: bool,
}

/// The result of a window or a part of it, and what is left when it is out.
pub(super) type Fired<S> = (RecordBatch, Left<S>);

/// What is left of a window that has given a result.
pub(super) enum Left<S> {
    /// Nothing that anybody asks for.
    Nothing,
    /// All its contents in one, if it grows: the next window is made of that.
    Whole(S),
    /// More of its result: it is asked again. Of a slice that was taken its content.
    More(Option<S>),
}

/// Slices that are still needed, each with its content `S`, and the window whose result is on its way out.
pub(super) struct Slices<S> {
    slicing: Slicing,
    lateness: Duration,
    /// Whether slices are in several windows, which merge them; otherwise each gives its own result.
    merging: bool,
    held: BTreeMap<Timestamp, (Slice, S)>,
    progress: Progress,
    /// Where the last window ended that gave its result, if it was not before that of `progress`.
    reached: i128,
    /// What the last window was made of, if the next begins with it. Not saved: it is made of slices that are.
    grown: Option<(Stretch, S)>,
    /// A result too large for one call of `advance`, and how much of it is out.
    leaving: Option<(RecordBatch, usize)>,
}

impl<S> Slices<S> {
    pub(super) fn new(window: &Window) -> Result<Self> {
        let slicing = window.slicing()?;
        let progress = Progress::new();
        Ok(Self {
            lateness: window.lateness(),
            merging: slicing.overlaps(),
            slicing,
            held: BTreeMap::new(),
            reached: progress.reached(),
            progress,
            grown: None,
            leaving: None,
        })
    }

    /// The same for a first phase, which knows of slices only: the second makes windows of them.
    pub(super) fn first_phase(window: &Window) -> Result<Self> {
        Ok(Self { merging: false, ..Self::new(window)? })
    }

    /// The rows of `batch` by slice. Rows of closed slices go out as late; what is returned is answered for. `time` is the
    /// column of event time, which only the slice of all time can do without.
    pub(super) fn assign(
        &self,
        batch: &RecordBatch,
        time: Option<usize>,
        out: &mut Outbox,
    ) -> Result<Vec<(Slice, Selection)>> {
        if let Some(all) = self.slicing.all_time() {
            out.processed(batch.num_rows());
            return Ok(if batch.num_rows() > 0 { vec![(all, Selection::All)] } else { Vec::new() });
        }
        let times = time
            .and_then(|time| event_times(batch, time))
            .ok_or_else(|| OperatorError::Internal("a row without event time reached a window".into()))?;
        let mut parts = split(&self.slicing, times);
        let closed = self.progress.closed;
        if parts.iter().any(|(slice, _)| slice.end <= closed) {
            let (late, on_time): (Vec<_>, _) = parts.into_iter().partition(|(slice, _)| slice.end <= closed);
            let late = late.into_iter().map(|(_, selection)| selection);
            out.late(Selection::union(late, batch.num_rows()).batch(batch)?);
            parts = on_time;
        }
        out.processed(parts.iter().map(|(_, selection)| selection.rows(batch)).sum());
        Ok(parts)
    }

    /// The content of a slice, made when it is new.
    pub(super) fn content(&mut self, slice: Slice, new: impl FnOnce() -> Result<S>) -> Result<&mut S> {
        Ok(match self.held.entry(slice.start) {
            Entry::Occupied(held) => &mut held.into_mut().1,
            Entry::Vacant(vacant) => &mut vacant.insert((slice, new()?)).1,
        })
    }

    /// The slice that begins at `start`, if it is held.
    pub(super) fn at(&mut self, start: Timestamp) -> Option<(Slice, &mut S)> {
        self.held.get_mut(&start).map(|(slice, content)| (*slice, content))
    }

    /// Takes the oldest slice, if it is closed.
    pub(super) fn take_closed(&mut self) -> Option<(Slice, S)> {
        let first = self.held.first_entry().filter(|first| first.get().0.end <= self.progress.closed);
        first.map(|first| first.remove())
    }

    /// The windows over a slice that end after `reached`, by their ends, as much of each as there is. Those that are cut off
    /// to the same are one.
    pub(super) fn windows(&self, slice: Slice, reached: Timestamp) -> impl Iterator<Item = Slice> + '_ {
        let mut reached = i128::from(reached.micros());
        let last = self.slicing.last_end(slice);
        let mut former = None;
        let all = std::iter::from_fn(move || {
            let window = (last > reached).then(|| self.slicing.next_window(slice, reached))?;
            reached = window.end;
            Some(window.cut())
        });
        all.filter(move |window| former.replace(*window) != Some(*window))
    }

    /// The slices of a window that are held.
    pub(super) fn within(&mut self, window: Slice) -> impl Iterator<Item = (Slice, &mut S)> {
        self.held.range_mut(window.start..window.end).map(|(_, (slice, content))| (*slice, content))
    }

    /// Drops the slices of which all windows are closed.
    pub(super) fn drop_closed(&mut self) {
        let closed = self.progress.closed;
        while let Some(first) = self.held.first_entry().filter(|it| self.slicing.needed_until(it.get().0) <= closed) {
            first.remove();
        }
    }

    /// Every slice that ends here or before is closed.
    pub(super) fn closed(&self) -> Timestamp {
        self.progress.closed
    }

    /// Takes all slices, oldest first, without closing them: rows for them may still come.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Slice, S)> + use<S> {
        std::mem::take(&mut self.held).into_values()
    }

    /// Gives up what the last window was made of: the next can be made of slices.
    pub(super) fn forget_grown(&mut self) {
        self.grown = None;
    }

    /// The slices that are still needed, oldest first.
    pub(super) fn held(&mut self) -> impl Iterator<Item = (Slice, &mut S)> {
        self.held.values_mut().map(|(slice, content)| (*slice, content))
    }

    /// All that is held.
    pub(super) fn contents(&self) -> impl Iterator<Item = &S> {
        self.held.values().map(|(_, content)| content).chain(self.grown.as_ref().map(|(_, content)| content))
    }

    /// Takes down how far event time has come. The contents are for the operator to save.
    pub(super) fn save(&self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.leaving.is_some() {
            return Err(OperatorError::Internal("a window was saved with a result half-way out".into()));
        }
        self.progress.save(&self.slicing, state);
        Ok(())
    }

    /// Takes down the same of a first phase, which has been flushed and holds nothing else.
    pub(super) fn save_flushed(&self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.held.is_empty() {
            return Err(OperatorError::Internal("the first phase of a window was saved before it was flushed".into()));
        }
        self.save(state)
    }

    /// Goes on where former tasks were.
    pub(super) fn load(&mut self, state: &StateReader) {
        self.progress.load(state, self.merging);
        self.reached = self.progress.reached();
    }

    /// The same for a first phase.
    pub(super) fn load_flushed(&mut self, state: &StateReader) {
        self.progress.load_flushed(state);
        self.reached = self.progress.reached();
    }

    /// The rows of a segment by slice, without those of slices that its task did not need any more. `start` is the column
    /// that says where the slice of a row begins.
    pub(super) fn saved_parts(&self, part: &Part, rows: &RecordBatch, start: usize) -> Result<Vec<(Slice, Selection)>> {
        let starts = event_times(rows, start)
            .ok_or_else(|| OperatorError::Internal("a row of a segment has no slice".into()))?;
        let fired = fired(part);
        let parts = split(&self.slicing, starts).into_iter();
        Ok(parts.filter(|(slice, _)| self.slicing.needed_until(*slice) > fired).collect())
    }

    /// Lets the windows fire that `time` completes, in order of their ends: emits what `result` makes of each, in bounded
    /// steps.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        out: &mut Outbox,
        mut result: impl FnMut(Slice, Due<'_, S>) -> Result<Fired<S>>,
    ) -> Result<Advance> {
        self.close(time);
        self.leave(time, out, |slices| slices.fire(&mut result))
    }

    /// Closes the slices that `time` completes, after the allowed lateness. All time never closes: whoever goes on after
    /// the end of the input goes on with it.
    pub(super) fn close(&mut self, time: Timestamp) {
        let closed = self.progress.closed;
        if self.slicing.all_time().is_some() {
            return;
        }
        if time < Timestamp::MAX {
            self.progress.closed = closed.max(time.saturating_sub(self.lateness));
        } else if let Some((last, _)) = self.held.last_key_value().map(|(_, held)| held) {
            // All that is held is complete. But the end is not a time: a job that is started again may find more, for
            // instance a new file, and only windows that have given their result are closed to it.
            let end = if self.merging { self.slicing.needed_until(*last) } else { last.end };
            self.progress.closed = closed.max(end);
        }
    }

    /// Emits, in bounded steps, the results that `next` gives until there is none, each with what it cost to make in rows.
    /// Then all windows that are closed have given their result, and the promise is made.
    pub(super) fn leave(
        &mut self,
        time: Timestamp,
        out: &mut Outbox,
        mut next: impl FnMut(&mut Self) -> Result<Option<(RecordBatch, usize)>>,
    ) -> Result<Advance> {
        let mut spent = 0;
        while spent < out.step() {
            if let Some((batch, offset)) = self.leaving.take() {
                let rows = (batch.num_rows() - offset).min(out.step() - spent);
                out.emit(batch.slice(offset, rows));
                spent += rows;
                if offset + rows < batch.num_rows() {
                    self.leaving = Some((batch, offset + rows));
                }
                continue;
            }
            match next(self)? {
                Some((batch, cost)) => {
                    self.leaving = Some((batch, 0));
                    spent += cost;
                }
                None => {
                    self.progress.caught_up();
                    self.reached = self.progress.reached();
                    // Of the watermark alone, so that all tasks promise the same: just restored they may have closed more
                    // than that, which begins anew, has reached, and not all as much.
                    let is_all = time == Timestamp::MAX || self.slicing.all_time().is_some();
                    return Ok(Advance::Promise(if is_all { time } else { time.saturating_sub(self.lateness) }));
                }
            }
        }
        Ok(Advance::Again)
    }

    /// The result of the next window, if it is complete, and how many slices were merged for it. Drops the slices that it
    /// was the last to need.
    fn fire(
        &mut self,
        result: &mut impl FnMut(Slice, Due<'_, S>) -> Result<Fired<S>>,
    ) -> Result<Option<(RecordBatch, usize)>> {
        let Self { slicing, merging, held, progress, reached, grown, .. } = self;
        let Some(first) = held.first_entry() else { return Ok(None) };
        let slice = first.get().0;
        if !*merging {
            if slice.end > progress.closed {
                return Ok(None);
            }
            let (batch, left) = result(slice, Due::Slice(first.remove().1))?;
            if let Left::More(Some(content)) = left {
                held.insert(slice.start, (slice, content));
            }
            return Ok(Some((batch, 0)));
        }
        let window = slicing.next_window(slice, *reached);
        let bounds = window.cut();
        if bounds.end > progress.closed {
            return Ok(None);
        }
        let mut former = grown.take().filter(|(former, _)| former.start == window.start);
        let covered = former.as_ref().map_or(bounds.start, |(of, _)| of.cut().end);
        let slices = held.range_mut(covered..bounds.end).map(|(_, (_, content))| content);
        let contents: Vec<&mut S> = former.iter_mut().map(|(_, content)| content).chain(slices).collect();
        let merged = contents.len();
        let parts = Parts { contents, owed: progress.owed(bounds), grows: slicing.grows(window) };
        let (batch, left) = result(bounds, Due::Window(parts))?;
        *grown = match left {
            Left::Nothing => None,
            Left::Whole(whole) => Some((window, whole)),
            Left::More(_) => {
                *grown = former;
                return Ok(Some((batch, merged)));
            }
        };
        *reached = window.end;
        while held.first_key_value().is_some_and(|(_, (slice, _))| slicing.last_end(*slice) <= *reached) {
            held.pop_first();
        }
        Ok(Some((batch, merged)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        outbox::EMIT_ROWS,
        window::{Hopping, Tumbling},
    };

    fn batch(times: &[i64]) -> RecordBatch {
        let row = Int64Array::from_iter_values(0..times.len() as i64);
        RecordBatch::try_from_iter([("at", Timestamp::column(times.to_vec())), ("row", Arc::new(row) as ArrayRef)])
            .unwrap()
    }

    fn rows_of(due: Due<'_, usize>) -> usize {
        match due {
            Due::Slice(rows) => rows,
            Due::Window(parts) => parts.contents.into_iter().map(|rows| *rows).sum(),
        }
    }

    proptest! {
        #[test]
        fn every_row_goes_to_its_slice_or_out_as_late(
            times in prop::collection::vec(-60i64..60, 0..80), watermark in -70i64..70, lateness in 0u64..20
        ) {
            let window = Tumbling::of(Duration::from_micros(10)).allowed_lateness(Duration::from_micros(lateness));
            let mut slices = Slices::<()>::new(&window).unwrap();
            let mut out = Outbox::new();
            slices.advance(Timestamp::from_micros(watermark), &mut out, |_, _| unreachable!()).unwrap();
            let batch = batch(&times);
            let mut on_time = Vec::new();
            for (slice, selection) in slices.assign(&batch, Some(0), &mut out).unwrap() {
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
            let step = slices.advance(Timestamp::from_micros(20), &mut out, |_, due| {
                Ok((batch(&vec![0; rows_of(due)]), Left::Nothing))
            });
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

    /// Few rows, but each of many slices.
    #[test]
    fn many_merges_are_done_in_steps() {
        let mut slices =
            Slices::<usize>::new(&Hopping::of(Duration::from_micros(1_000), Duration::from_micros(1))).unwrap();
        for start in 0..1_000 {
            let slice = slices.slicing.slice_of(Timestamp::from_micros(start));
            slices.content(slice, || Ok(1)).unwrap();
        }
        let (mut steps, mut windows) = (1, 0);
        let mut step = |slices: &mut Slices<usize>| {
            let result = |_, due: Due<'_, usize>| Ok((batch(&vec![0; rows_of(due).min(1)]), Left::Nothing));
            let mut out = Outbox::new();
            let step = slices.advance(Timestamp::MAX, &mut out, result).unwrap();
            windows += out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>();
            step
        };
        while step(&mut slices) == Advance::Again {
            steps += 1;
        }
        assert!(steps > 100, "a million merges in {steps} steps");
        assert_eq!(windows, 1_999);
    }

    /// What windows are made of, which windows there are, and which slices stay.
    #[test]
    fn a_slice_stays_until_its_last_window_has_fired() {
        let mut slices =
            Slices::<usize>::new(&Hopping::of(Duration::from_micros(10), Duration::from_micros(5))).unwrap();
        for (start, rows) in [(0, 1), (5, 10), (30, 100)] {
            let slice = slices.slicing.slice_of(Timestamp::from_micros(start));
            slices.content(slice, || Ok(rows)).unwrap();
        }
        let mut fired = Vec::new();
        for (time, held) in [(4, 3), (5, 3), (10, 2), (14, 2), (15, 1), (39, 1)] {
            let step = slices.advance(Timestamp::from_micros(time), &mut Outbox::new(), |window, due| {
                fired.push((window.start.micros(), window.end.micros(), rows_of(due)));
                Ok((batch(&[0]), Left::Nothing))
            });
            assert_eq!(step.unwrap(), Advance::Promise(Timestamp::from_micros(time)));
            assert_eq!(slices.held().count(), held, "at {time}");
        }
        assert_eq!(fired, [(-5, 5, 1), (0, 10, 11), (5, 15, 10), (25, 35, 100)]);
    }
}
