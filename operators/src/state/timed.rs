//! Rows that wait for event time: held in pieces in order of it, found by an index of the piece, dropped as time passes.
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

mod order;

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
};

use order::{Stretch, begin_of, is_in_order, merged, sorted};

use crate::{
    Result, Timestamp,
    bytes::lean_bytes,
    state::{
        Part, Rule, SegmentId, StateReader, StateWriter,
        bounded::{batch_bytes, bytes_of, join},
    },
    time::{event_times, times_of},
};

/// So many pieces of similar size are merged: more are searched for longer, fewer are copied more often.
const ALIKE: usize = 4;
/// The same where merging leaves out rows that are not needed any more.
const ALIKE_COMPACTED: usize = 2;

/// Rows by event time, in pieces that each have an index `I`.
pub(crate) struct TimedRows<I> {
    /// What it is called in the state.
    name: &'static str,
    /// The column of event time.
    time: usize,
    index: Box<MakeIndex<I>>,
    /// Leaves out rows that are not needed any more, when pieces are merged.
    compact: Option<Box<Compact>>,
    /// The stretches of time whose rows need no order.
    stretch: Option<Box<Stretch>>,
    /// Larger ones first, about.
    pieces: Vec<Piece<I>>,
    /// Rows earlier than this are gone.
    from: Timestamp,
}

type MakeIndex<I> = dyn Fn(&RecordBatch) -> Result<I> + Send;

type Compact = dyn Fn(RecordBatch) -> Result<RecordBatch> + Send;

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

    /// Rows in the same `stretch`, which is told of by its bounds, need no order among them. Whoever looks for rows, or drops
    /// some, does so where a stretch begins.
    pub(crate) fn by_stretch(self, stretch: impl Fn(i64) -> (i64, i64) + Send + 'static) -> Self {
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

    /// Drops the rows of the first stretch, which ends at `end`, and gives them back as few pieces: for who looks into each of them
    /// often.
    pub(crate) fn take_stretch(&mut self, end: Timestamp) -> Result<Vec<Piece<I>>> {
        let rows = if end == Timestamp::MAX { self.take_all()? } else { self.take_before(end)? };
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let piece = |rows: RecordBatch| {
            let rows = lean(&rows)?;
            Ok(Piece { index: (self.index)(&rows)?, rows, start: 0, segment: None })
        };
        join(first.schema_ref(), &rows)?.into_iter().map(piece).collect()
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
                // What a stretch is may have changed since, as days do where the rules of a time zone do.
                let stretch = self.stretch.as_deref();
                let is_as_it_was = is_in_order(times_of(&rows, self.time)?, stretch);
                let rows = if is_as_it_was { rows } else { sorted(&rows, self.time, stretch)? };
                let gone = times_of(&rows, self.time)?.partition_point(|&t| t < from);
                let live = rows.slice(gone, rows.num_rows() - gone);
                if live.num_rows() > 0 {
                    // The next save tells where the stretch of the first row begins: that must bring none back.
                    let none_comes_back = gone == 0 || begin_of(stretch, from) == from;
                    self.add(live, (one && is_as_it_was && none_comes_back).then_some(*id))?;
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

    /// Stretches of a hundred.
    fn hundreds(time: i64) -> (i64, i64) {
        let begin = time.div_euclid(100) * 100;
        (begin, begin + 100)
    }

    /// What a former task left: a segment of whose rows those before `from` are gone.
    fn part(from: i64, rows: RecordBatch, id: u64) -> Part {
        Part {
            first_phase: false,
            numbers: [("rows_from".to_string(), from)].into(),
            segments: vec![(SegmentId(id), rows)],
            stored: Vec::new(),
        }
    }

    fn load(rows: &mut TimedRows<usize>, parts: Vec<Part>) {
        rows.load(&StateReader { key_groups: 0..256, parts }, |rows| Ok(Some(rows.clone()))).unwrap();
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
        let store = || store().by_stretch(move |time| (begin(time), begin(time) + stretch));
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
                load(&mut rows, vec![part]);
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
        let [early, late] = [batch(&[16, 17], 16), batch(&[20, 30], 20)];
        for (parts, sealed) in [(vec![part(0, late.clone(), 0), part(0, early, 0)], 2), (vec![part(0, late, 0)], 0)] {
            let mut rows = store();
            load(&mut rows, parts);
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

    /// The rules of a time zone have changed: what is in one piece is not in the order of its stretches any more.
    #[test]
    fn other_stretches_than_at_the_save_are_put_in_order() {
        let mut rows = store().by_stretch(hundreds);
        load(&mut rows, vec![part(i64::MIN, batch(&[150, 90, 120, 250], 0), 0)]);
        let first = rows.take_stretch(Timestamp::from_micros(100)).unwrap();
        assert_eq!(first.iter().flat_map(|piece| numbers(&piece.rows)).collect::<Vec<_>>(), [1]);
        let mut next = SegmentId(1);
        let mut state = StateWriter::new(&mut next);
        rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
        assert!(state.finish().segments.iter().all(|(_, rows)| rows.is_some()), "it is written again");
        // What had gone by then is in the middle of a stretch now, whose begin is saved.
        let mut rows = store().by_stretch(hundreds);
        load(&mut rows, vec![part(150, batch(&[120, 160], 0), 0)]);
        assert_eq!(held(&rows), [1]);
        let mut state = StateWriter::new(&mut next);
        rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
        let state = state.finish();
        assert_eq!(state.numbers["rows_from"], 100);
        let written: Vec<i64> = state.segments.iter().flat_map(|(_, rows)| numbers(rows.as_ref().unwrap())).collect();
        assert_eq!(written, [1], "it comes back with no load");
    }

    /// The row at 50 is the first of its stretch, and not the earliest.
    #[test]
    fn no_row_of_a_stretch_is_taken_for_gone() {
        let store = || store().by_stretch(hundreds);
        let mut rows = store();
        load(&mut rows, vec![part(100, batch(&[150, 120], 150), 0), part(0, batch(&[50, 20], 50), 1)]);
        let mut next = SegmentId(2);
        let mut state = StateWriter::new(&mut next);
        rows.save(&mut state, |rows| Ok(rows.clone())).unwrap();
        let state = state.finish();
        assert_eq!(state.numbers["rows_from"], 0);
        let segments = state.segments.into_iter().filter_map(|(id, rows)| Some((id, rows?))).collect();
        let part = Part { first_phase: false, numbers: state.numbers, segments, stored: Vec::new() };
        let mut again = store();
        load(&mut again, vec![part]);
        assert_eq!(held(&again), [50, 51, 150, 151]);
    }

    /// Those of the first stretch, from all pieces, in as few as fit; the pieces of the others stay as they are.
    #[test]
    fn a_stretch_is_taken_in_few_pieces() {
        for (bytes, expected) in [(1 << 30, 1), (0, 3)] {
            with_batches_of(bytes, || {
                let mut rows = store().by_stretch(hundreds);
                for (times, first) in [(&[50, 20, 160, 170][..], 0), (&[70], 4), (&[30, 120, 130], 5)] {
                    rows.push(&batch(times, first)).unwrap();
                }
                let taken = rows.take_stretch(Timestamp::from_micros(100)).unwrap();
                assert_eq!(taken.len(), expected);
                assert!(taken.iter().all(|piece| piece.index == piece.rows.num_rows() && piece.start == 0));
                let mut taken: Vec<i64> = taken.iter().flat_map(|piece| numbers(&piece.rows)).collect();
                taken.sort_unstable();
                assert_eq!(taken, [0, 1, 4, 5]);
                assert_eq!(held(&rows), [2, 3, 6, 7]);
                assert_eq!(rows.from(), Timestamp::from_micros(100));
            });
        }
    }

    #[test]
    fn tasks_that_stood_at_different_times_leave_what_each_still_had() {
        let mut rows = store();
        load(&mut rows, vec![part(25, batch(&[20, 30], 20), 0), part(15, batch(&[16, 17], 16), 1)]);
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
