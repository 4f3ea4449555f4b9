//! Rows that wait for event time: held in pieces sorted by it, found by an index of the piece, dropped as time passes.
//!
//! ```text
//!   push(rows) ──► sorted piece ─┐                  ┌─ 4000 rows, segment 3, the first 900 are gone
//!                                ├─ pieces ─────────┼─ 1500 rows, segment 7
//!   similar sizes are merged ◄───┘                  └─   20 rows, not yet sealed
//!                                     │
//!   evict_before(t): the beginning of each piece ──► gone        save: each piece is a segment
//! ```
//!
//! When four pieces are of similar size they become one. So there are at most about 3 log₄(rows) of them, and a row is copied
//! log₄(rows) times; but none is merged to more than fits into a batch. A piece is also what a save seals: those that are as
//! they were are only named again. A segment may still have the rows at the beginning of its piece that have gone since;
//! the number `…_from` tells them at a load.
//!
//! Those who look at whole stretches of time only, such as windows, say so: then the rows of a stretch stay as they came, because
//! sorting them would cost more than all else. "In order" below means the order of their stretches.

use std::ops::Range;

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::{concat_batches, interleave_record_batch, take_record_batch},
};

use crate::{
    Result, Timestamp,
    bytes::lean_bytes,
    state::{
        Part, Rule, SegmentId, StateReader, StateWriter,
        bounded::{batch_bytes, bytes_of},
    },
    time::{event_times, times_of},
};

/// So many pieces of similar size are merged: more are searched for longer, fewer are copied more often.
const ALIKE: usize = 4;
/// The same where merging leaves out rows that are not needed any more.
const ALIKE_COMPACTED: usize = 2;
/// Of how many rows, on the average, a stretch of time is so long that it is copied as it is.
const LONG: usize = 16;

/// Rows by event time, in pieces that each have an index `I`.
pub(crate) struct TimedRows<I> {
    /// What it is called in the state.
    name: &'static str,
    /// The column of event time.
    time: usize,
    index: Box<MakeIndex<I>>,
    /// Leaves out rows that are not needed any more, when pieces are merged.
    compact: Option<Box<Compact>>,
    /// Where the stretch of time begins whose rows need no order.
    stretch: Option<Box<Stretch>>,
    /// Larger ones first, about.
    pieces: Vec<Piece<I>>,
    /// Rows earlier than this are gone.
    from: Timestamp,
}

type MakeIndex<I> = dyn Fn(&RecordBatch) -> Result<I> + Send;

type Compact = dyn Fn(RecordBatch) -> Result<RecordBatch> + Send;

type Stretch = dyn Fn(i64) -> i64 + Send;

/// Some of the rows, in order of event time.
pub(crate) struct Piece<I> {
    /// All rows that the index knows; those before `start` are gone.
    pub(crate) rows: RecordBatch,
    pub(crate) start: usize,
    pub(crate) index: I,
    segment: Option<SegmentId>,
}

impl<I> Piece<I> {
    fn live(&self) -> usize {
        self.rows.num_rows() - self.start
    }

    fn live_rows(&self) -> RecordBatch {
        self.rows.slice(self.start, self.live())
    }
}

impl<I> TimedRows<I> {
    /// No rows yet. `index` makes the index of a piece; `time` is the column of event time.
    pub(crate) fn new(
        name: &'static str,
        time: usize,
        index: impl Fn(&RecordBatch) -> Result<I> + Send + 'static,
    ) -> Self {
        let index = Box::new(index);
        Self { name, time, index, compact: None, stretch: None, pieces: Vec::new(), from: Timestamp::MIN }
    }

    /// Which rows of its segments count, in the column `time` of a segment: of those with this `side`, if there are several
    /// kinds.
    pub(crate) fn rule(name: &str, side: Option<u8>, time: usize) -> Rule {
        Rule::From { side, time, number: number(name) }
    }

    /// When pieces are merged, `compact` leaves out the rows, sorted by event time, that are not needed any more.
    pub(crate) fn compacting(self, compact: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + 'static) -> Self {
        Self { compact: Some(Box::new(compact)), ..self }
    }

    /// Rows whose `stretch` begins at the same time need no order among them. Whoever looks for rows, or drops some, does so
    /// at the beginning of a stretch.
    pub(crate) fn by_stretch(self, stretch: impl Fn(i64) -> i64 + Send + 'static) -> Self {
        Self { stretch: Some(Box::new(stretch)), ..self }
    }

    /// The pieces, for those who look for rows.
    pub(crate) fn pieces(&self) -> &[Piece<I>] {
        &self.pieces
    }

    /// How many rows it holds.
    pub(crate) fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::live).sum()
    }

    /// The event time of the earliest row, or another one in its stretch.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        let first = |piece: &Piece<I>| event_times(&piece.rows, self.time)?.get(piece.start).copied();
        self.pieces.iter().filter_map(first).min().map(Timestamp::from_micros)
    }

    /// The event time of the latest row, or another one in its stretch.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        let last = |piece: &Piece<I>| event_times(&piece.rows, self.time)?.last().copied();
        self.pieces.iter().filter_map(last).max().map(Timestamp::from_micros)
    }

    /// Rows earlier than this have been dropped or taken.
    pub(crate) fn from(&self) -> Timestamp {
        self.from
    }

    /// The bytes of its rows.
    pub(crate) fn size(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows.get_array_memory_size()).sum()
    }

    /// Adds rows.
    pub(crate) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = sorted(rows, self.time, self.stretch.as_deref())?;
        self.add(rows, None)?;
        while let Some(from) = self.to_merge() {
            let live: Vec<RecordBatch> = self.pieces[from..].iter().map(Piece::live_rows).collect();
            self.pieces.truncate(from);
            let one = merged(&live, self.time, self.stretch.as_deref())?;
            let one = if let Some(compact) = &self.compact { compact(one)? } else { one };
            self.add(one, None)?;
        }
        Ok(())
    }

    /// Makes one of all pieces with rows before `time`, as far as they fit, for those who look at each of them often.
    pub(crate) fn unite_before(&mut self, time: Timestamp) -> Result<()> {
        let (mut bytes, most) = (0, self.most());
        let column = self.time;
        let fits = |piece: &mut Piece<I>| {
            let is_before = times_of(&piece.rows, column).is_ok_and(|times| times[piece.start] < time.micros());
            bytes += if is_before { bytes_of(piece.live_rows().columns()) } else { 0 };
            is_before && bytes <= most
        };
        let pieces: Vec<Piece<I>> = self.pieces.extract_if(.., fits).collect();
        let live: Vec<RecordBatch> = pieces.iter().map(Piece::live_rows).collect();
        match &live[..] {
            [] | [_] => self.pieces.extend(pieces),
            live => self.add(merged(live, column, self.stretch.as_deref())?, None)?,
        }
        Ok(())
    }

    /// From which piece on they are merged: enough of the last ones have no more rows than the last, or about as many.
    fn to_merge(&self) -> Option<usize> {
        let alike = if self.compact.is_some() { ALIKE_COMPACTED } else { ALIKE };
        let class = |piece: &Piece<I>| piece.live().max(1).ilog(alike);
        let last = class(self.pieces.last()?);
        let similar = self.pieces.iter().rev().take_while(|piece| class(piece) <= last).count();
        if similar < alike {
            return None;
        }
        let (mut bytes, most) = (0, self.most());
        let fits = self.pieces.iter().rev().take(similar).take_while(|piece| {
            bytes += bytes_of(piece.live_rows().columns());
            bytes <= most
        });
        let fit = fits.count();
        (fit > 1).then(|| self.pieces.len() - fit)
    }

    /// The most bytes of a merged piece. Those who leave out rows do so for as long as Arrow can take them together: otherwise
    /// what is not needed any more would stay.
    fn most(&self) -> usize {
        if self.compact.is_some() { i32::MAX as usize } else { batch_bytes() }
    }

    fn add(&mut self, rows: RecordBatch, segment: Option<SegmentId>) -> Result<()> {
        let rows = lean(&rows)?;
        let index = (self.index)(&rows)?;
        self.pieces.push(Piece { rows, start: 0, index, segment });
        Ok(())
    }

    /// Drops the rows that are earlier than `time`.
    pub(crate) fn evict_before(&mut self, time: Timestamp) -> Result<()> {
        self.take_before(time).map(drop)
    }

    /// Drops the rows that are earlier than `time` and gives them back, each batch in order of event time.
    pub(crate) fn take_before(&mut self, time: Timestamp) -> Result<Vec<RecordBatch>> {
        self.take(time, |t| t < time.micros())
    }

    /// The same with all rows: the end of the input.
    pub(crate) fn take_all(&mut self) -> Result<Vec<RecordBatch>> {
        let last = self.pieces.iter().filter_map(|piece| times_of(&piece.rows, self.time).ok()?.last().copied()).max();
        self.take(last.map_or(self.from, Timestamp::from_micros), |_| true)
    }

    fn take(&mut self, from: Timestamp, is_gone: impl Fn(i64) -> bool) -> Result<Vec<RecordBatch>> {
        self.from = self.from.max(from);
        let mut taken = Vec::new();
        for piece in &mut self.pieces {
            let gone = times_of(&piece.rows, self.time)?.partition_point(|&t| is_gone(t));
            if gone > piece.start {
                taken.push(piece.rows.slice(piece.start, gone - piece.start));
                piece.start = gone;
            }
            // More are gone than are left: give the memory back, and the place on disk at the next save.
            if gone > 0 && piece.live() > 0 && gone > piece.live() {
                let rows = UInt32Array::from_iter_values(gone as u32..piece.rows.num_rows() as u32);
                let rows = lean(&take_record_batch(&piece.rows, &rows)?)?;
                *piece = Piece { index: (self.index)(&rows)?, rows, start: 0, segment: None };
            }
        }
        self.pieces.retain(|piece| piece.live() > 0);
        Ok(taken)
    }

    /// Seals what is new and names what is not. `segment` gives rows the columns of a segment.
    pub(crate) fn save(
        &mut self,
        state: &mut StateWriter<'_>,
        segment: impl Fn(&RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        // Just restored from several tasks it may hold rows that some of them would have dropped.
        let mut from = self.from;
        for piece in &mut self.pieces {
            let first = times_of(&piece.rows, self.time)?[piece.start];
            from = from.min(Timestamp::from_micros(begin_of(self.stretch.as_deref(), first)));
            match piece.segment {
                Some(id) => state.keep(id),
                None => piece.segment = Some(state.seal(segment(&piece.rows.slice(piece.start, piece.live()))?)),
            }
        }
        state.set(&number(self.name), from.micros());
        Ok(())
    }

    /// Takes what former tasks left. `rows` gives the rows of a segment that are of this kind, or `None`.
    ///
    /// The segments of one former task are kept. Those of several are written again at the next save, once: their numbers
    /// are of different tasks, and tasks that stood at different times leave different rows behind.
    pub(crate) fn load(
        &mut self,
        state: &StateReader,
        rows: impl Fn(&RecordBatch) -> Result<Option<RecordBatch>>,
    ) -> Result<()> {
        let from = |part: &Part| part.numbers.get(&number(self.name)).copied();
        let froms: Vec<i64> = state.parts.iter().filter_map(from).collect();
        let one = state.parts.iter().filter(|part| !part.segments.is_empty()).count() == 1;
        self.from = froms.iter().max().map_or(Timestamp::MIN, |from| Timestamp::from_micros(*from));
        for part in &state.parts {
            let from = from(part).unwrap_or(i64::MIN);
            for (id, segment) in &part.segments {
                let Some(rows) = rows(segment)? else { continue };
                let gone = times_of(&rows, self.time)?.partition_point(|&t| t < from);
                let live = rows.slice(gone, rows.num_rows() - gone);
                if live.num_rows() > 0 {
                    self.add(live, one.then_some(*id))?;
                }
            }
        }
        self.pieces.sort_by_key(|piece| std::cmp::Reverse(piece.live()));
        Ok(())
    }
}

fn number(name: &str) -> String {
    format!("{name}_from")
}

/// With few bytes of other rows: views of text would keep those of all batches that rows ever came with.
fn lean(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().cloned().map(lean_bytes).collect();
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

/// The rows of several batches, each in order of event time, in that order; rows of one time in the order they came.
fn merged(batches: &[RecordBatch], column: usize, stretch: Option<&Stretch>) -> Result<RecordBatch> {
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
    if let Some(mut runs) = stretch.and_then(|stretch| stretches(&times, stretch)) {
        runs.sort_by_key(|(begin, ..)| *begin);
        let runs: Vec<_> = runs.into_iter().map(|(_, run, rows)| batches[run].slice(rows.start, rows.len())).collect();
        return Ok(concat_batches(batches[0].schema_ref(), &runs)?);
    }
    let rows = times
        .iter()
        .enumerate()
        .flat_map(|(run, times)| times.iter().enumerate().map(move |(row, &time)| (time, run as u32, row as u32)));
    let mut order: Vec<(i64, u32, u32)> = rows.collect();
    // They are a few runs in order: a stable sort finds these.
    order.sort_by_key(|(time, ..)| *time);
    let places: Vec<(usize, usize)> = order.into_iter().map(|(_, run, row)| (run as usize, row as usize)).collect();
    Ok(interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &places)?)
}

/// Each stretch of each batch, as its begin, the batch and the rows; `None` if they are so short that sorting costs less.
fn stretches(times: &[&[i64]], stretch: &Stretch) -> Option<Vec<(i64, usize, Range<usize>)>> {
    let most = times.iter().map(|times| times.len()).sum::<usize>() / LONG;
    let mut found = Vec::new();
    for (batch, times) in times.iter().enumerate() {
        let mut start = 0;
        while let Some(&time) = times.get(start) {
            let begin = stretch(time);
            let rows = times[start..].partition_point(|&time| stretch(time) <= begin).max(1);
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
fn begin_of(stretch: Option<&Stretch>, time: i64) -> i64 {
    stretch.map_or(time, |stretch| stretch(time))
}

/// In order of event time; rows of one time in the order they came.
fn sorted(rows: &RecordBatch, column: usize, stretch: Option<&Stretch>) -> Result<RecordBatch> {
    let times = times_of(rows, column)?;
    let is_one = |stretch: &Stretch| {
        let (least, most) = times.iter().fold((i64::MAX, i64::MIN), |(least, most), &t| (least.min(t), most.max(t)));
        stretch(least) == stretch(most)
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
        array::{ArrayRef, AsArray, Int64Array},
        datatypes::Int64Type,
    };
    use proptest::{prelude::*, test_runner::TestCaseError};

    use super::*;
    use crate::testing::with_batches_of;

    fn batch(times: &[i64], first: i64) -> RecordBatch {
        let row = Int64Array::from_iter_values(first..first + times.len() as i64);
        RecordBatch::try_from_iter([("at", Timestamp::column(times.to_vec())), ("row", Arc::new(row) as ArrayRef)])
            .unwrap()
    }

    fn numbers(rows: &RecordBatch) -> Vec<i64> {
        rows.column(1).as_primitive::<Int64Type>().values().to_vec()
    }

    fn store() -> TimedRows<usize> {
        TimedRows::new("rows", 0, |rows| Ok(rows.num_rows()))
    }

    /// The numbers of the rows it holds.
    fn held(rows: &TimedRows<usize>) -> Vec<i64> {
        let live = rows.pieces().iter().flat_map(|piece| numbers(&piece.rows)[piece.start..].to_vec());
        let mut held: Vec<i64> = live.collect();
        held.sort_unstable();
        held
    }

    proptest! {
        /// Against a plain list, through saves and loads of which only the named segments are read.
        #[test]
        fn it_holds_what_has_not_gone(
            steps in prop::collection::vec((prop::collection::vec(-40i64..60, 0..20), -50i64..70, any::<bool>()), 1..30),
            bytes in prop::sample::select(vec![0, 300, 1 << 30]),
            stretch in prop::sample::select(vec![1, 7, 1_000]),
        ) {
            with_batches_of(bytes, || it_is_a_list(steps, stretch))?;
        }
    }

    type Steps = Vec<(Vec<i64>, i64, bool)>;

    fn it_is_a_list(steps: Steps, stretch: i64) -> Result<(), TestCaseError> {
        let begin = move |time: i64| time.div_euclid(stretch) * stretch;
        let store = || store().by_stretch(begin);
        let mut rows = store();
        let mut model: Vec<(i64, i64)> = Vec::new();
        let (mut next_row, mut next_segment) = (0, SegmentId(0));
        let mut disk: std::collections::HashMap<SegmentId, RecordBatch> = Default::default();
        for (times, before, restart) in steps {
            let before = begin(before);
            // Rows that are gone already do not come again.
            let times: Vec<i64> = times.into_iter().filter(|&t| t >= rows.from().micros()).collect();
            rows.push(&batch(&times, next_row)).unwrap();
            model.extend(times.iter().zip(next_row..).map(|(&t, row)| (t, row)));
            next_row += times.len() as i64;
            let taken = rows.take_before(Timestamp::from_micros(before)).unwrap();
            let mut taken: Vec<i64> = taken.iter().flat_map(numbers).collect();
            taken.sort_unstable();
            let mut gone: Vec<i64> = model.iter().filter(|(t, _)| *t < before).map(|(_, row)| *row).collect();
            gone.sort_unstable();
            prop_assert_eq!(taken, gone);
            model.retain(|(t, _)| *t >= before);
            prop_assert_eq!(held(&rows), model.iter().map(|(_, row)| *row).collect::<Vec<_>>());
            for piece in rows.pieces() {
                prop_assert_eq!(piece.index, piece.rows.num_rows());
                prop_assert!(times_of(&piece.rows, 0).unwrap().is_sorted_by_key(|&time| begin(time)));
            }
            let ends = [model.iter().min(), model.iter().max()].map(|end| end.map(|(time, _)| begin(*time)));
            prop_assert_eq!([rows.earliest(), rows.latest()].map(|end| end.map(|time| begin(time.micros()))), ends);
            if restart {
                let mut state = StateWriter::new(&mut next_segment);
                rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
                let state = state.finish();
                disk.extend(state.segments.iter().filter_map(|(id, rows)| Some((*id, rows.clone()?))));
                let segments = state.segments.iter().map(|(id, _)| (*id, disk[id].clone())).collect();
                let part = Part { first_phase: false, numbers: state.numbers, segments, stored: Vec::new() };
                rows = store();
                rows.load(&StateReader { key_groups: 0..256, parts: vec![part] }, |rows| Ok(Some(rows.clone())))
                    .unwrap();
            }
        }
        Ok(())
    }

    #[test]
    fn pieces_are_logarithmically_many_and_a_save_writes_little() {
        let mut rows = store();
        let (mut next, mut sealed) = (SegmentId(0), 0);
        for i in 0..2_000 {
            rows.push(&batch(&[i], i)).unwrap();
            let mut state = StateWriter::new(&mut next);
            rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
            let state = state.finish();
            assert!(state.segments.len() <= 18, "{} segments", state.segments.len());
            sealed += state.segments.iter().filter_map(|(_, rows)| Some(rows.as_ref()?.num_rows())).sum::<usize>();
        }
        assert!(sealed <= 2_000 * 7, "{sealed} rows were written for 2000");
        rows.evict_before(Timestamp::from_micros(1_999)).unwrap();
        assert_eq!((rows.rows(), rows.pieces().len()), (1, 1));
        assert_eq!(rows.take_all().unwrap().len(), 1);
        assert_eq!(rows.size(), 0);
    }

    #[test]
    fn segments_of_several_tasks_are_written_again() {
        let part = |times: &[i64], id| Part {
            first_phase: false,
            numbers: [("rows_from".to_string(), 0)].into(),
            segments: vec![(SegmentId(id), batch(times, times[0]))],
            stored: Vec::new(),
        };
        for (parts, sealed) in [(vec![part(&[20, 30], 0), part(&[16, 17], 0)], 2), (vec![part(&[20, 30], 0)], 0)] {
            let mut rows = store();
            rows.load(&StateReader { key_groups: 0..256, parts }, |rows| Ok(Some(rows.clone()))).unwrap();
            let mut next = SegmentId(2);
            let mut state = StateWriter::new(&mut next);
            rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
            let state = state.finish();
            assert_eq!(state.segments.iter().filter(|(_, rows)| rows.is_some()).count(), sealed);
        }
    }

    #[test]
    fn merged_pieces_leave_out_what_is_not_needed() {
        let even = |rows: RecordBatch| {
            let keep = UInt32Array::from_iter_values((0..rows.num_rows() as u32).filter(|row| row % 2 == 0));
            Ok(take_record_batch(&rows, &keep)?)
        };
        let mut rows = store().compacting(even);
        assert_eq!((rows.earliest(), rows.latest()), (None, None));
        rows.push(&batch(&[5, 1, 9], 0)).unwrap();
        assert_eq!(held(&rows), [0, 1, 2], "nothing was merged");
        rows.push(&batch(&[7, 3], 3)).unwrap();
        assert_eq!(held(&rows), [0, 1, 2], "of 1, 3, 5, 7, 9 every other");
        rows.evict_before(Timestamp::from_micros(2)).unwrap();
        let ends = [rows.earliest(), rows.latest()];
        assert_eq!(ends, [Some(Timestamp::from_micros(5)), Some(Timestamp::from_micros(9))]);
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
        let hundreds: &Stretch = &|time| time.div_euclid(100) * 100;
        let times = |from: i64| (0..80).map(|row| from + row / 40 * 100 - row).collect::<Vec<_>>();
        let batches = [batch(&times(299), 0), batch(&times(290), 80)];
        let expected: Vec<i64> = (0..40).chain(80..120).chain(40..80).chain(120..160).collect();
        assert_eq!(numbers(&merged(&batches, 0, Some(hundreds)).unwrap()), expected);
        // Too short for that: these are sorted.
        let short = [batch(&[150, 120, 210], 0), batch(&[190, 110, 205], 3)];
        assert_eq!(numbers(&merged(&short, 0, Some(hundreds)).unwrap()), [4, 1, 0, 3, 5, 2]);
        let alike = [batch(&[150, 120], 0), batch(&[190, 110], 2)];
        assert_eq!(numbers(&merged(&alike, 0, Some(hundreds)).unwrap()), [0, 1, 2, 3]);
        let unsorted = batch(&[50, 30, 90], 0);
        assert_eq!(numbers(&sorted(&unsorted, 0, Some(hundreds)).unwrap()), [0, 1, 2]);
        assert_eq!(numbers(&sorted(&batch(&[50, 130, 20], 0), 0, Some(hundreds)).unwrap()), [2, 0, 1]);
    }

    #[test]
    fn tasks_that_stood_at_different_times_leave_what_each_still_had() {
        let part = |from, times: &[i64], id| Part {
            first_phase: false,
            numbers: [("rows_from".to_string(), from)].into(),
            segments: vec![(SegmentId(id), batch(times, times[0]))],
            stored: Vec::new(),
        };
        let mut rows = store();
        let state = StateReader { key_groups: 0..256, parts: vec![part(25, &[20, 30], 0), part(15, &[16, 17], 1)] };
        rows.load(&state, |rows| Ok(Some(rows.clone()))).unwrap();
        assert_eq!(held(&rows), [16, 17, 21], "the row at 20 had gone");
        assert_eq!(rows.from(), Timestamp::from_micros(25));
        let mut next = SegmentId(2);
        let mut state = StateWriter::new(&mut next);
        rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
        let state = state.finish();
        assert_eq!(state.numbers["rows_from"], 16, "rows that are still here must not be taken for gone");
        assert!(state.segments.iter().all(|(_, rows)| rows.is_some()));
    }
}
