//! The result of one window, in bounded steps.
//!
//! ```text
//!   pieces of the left side          pieces of the right side       (by slice of time, each with its index; they stay where
//!   ──├═══════════┤─── ──probe──►    ─────├════════════┤───          they are, unless no other window needs the right ones)
//!        rows of the window ─────────────────┴─────────────────► pairs, about `Outbox::step` for each step
//!        └─ which have met a partner ────────┴─────────────────► then the rows without one (semi, anti: with or without)
//! ```

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};

use super::{
    LEFT, RIGHT,
    index::{KeyIndex, LazyIndex},
    probe::{Partners, Place, Probe},
    shape::{Picked, Places, Shape},
};
use crate::{
    Outbox, Result, Timestamp,
    state::timed::{Piece, TimedRows},
    time::times_of,
    window::{Owed, Slice},
};

/// A window on its way out. Its rows stay with the sides, which do not change meanwhile, unless it has taken those of the right.
pub(super) struct Closing {
    window: Slice,
    /// The right rows, if it has taken them.
    taken: Option<Vec<Piece<LazyIndex>>>,
    /// The rows of the window, by side.
    rows: [Vec<Part>; 2],
    /// The left piece that probes, and the row.
    piece: usize,
    place: Place,
    /// Where the next row is that may give a result on its own: side, piece, row.
    alone: (usize, usize, usize),
}

/// The rows of a window in one piece of a side.
struct Part {
    range: Range<usize>,
    /// By row from the start of the range, whether it has met a partner. Empty if nobody asks.
    met: Vec<bool>,
    /// By row, whether the window has given it a result before the last restore; `None` if that is true of no row.
    given: Option<Vec<bool>>,
}

impl Part {
    fn new(shape: &Shape, side: usize, piece: &Piece<LazyIndex>, window: Slice, owed: &Owed) -> Result<Self> {
        let times = times_of(&piece.rows, shape.times[side])?;
        let last = window.end == Timestamp::MAX;
        let start = times.partition_point(|&time| time < window.start.micros()).max(piece.start);
        let end = if last { times.len() } else { times.partition_point(|&time| time < window.end.micros()) };
        let range = start..end.max(start);
        let met = if shape.join_type.decides(side) { vec![false; range.len()] } else { Vec::new() };
        let given = match owed.all() || range.is_empty() {
            true => None,
            false => {
                let rows = piece.rows.slice(range.start, range.len());
                let key: Vec<ArrayRef> = shape.keys[side].iter().map(|&column| rows.column(column).clone()).collect();
                Some(owed.of(&key, rows.num_rows())?.iter().map(|owed| owed != Some(true)).collect())
            }
        };
        Ok(Self { range, met, given })
    }

    fn is_given(&self, row: usize) -> bool {
        self.given.as_ref().is_some_and(|given| given[row - self.range.start])
    }
}

/// Where the rows of a side are.
fn pieces<'a>(
    side: usize,
    sides: &'a [TimedRows<LazyIndex>; 2],
    taken: &'a Option<Vec<Piece<LazyIndex>>>,
) -> &'a [Piece<LazyIndex>] {
    taken.as_deref().filter(|_| side == RIGHT).unwrap_or_else(|| sides[side].pieces())
}

impl Closing {
    pub(super) fn new(
        shape: &Shape,
        window: Slice,
        sides: &[TimedRows<LazyIndex>; 2],
        taken: Option<Vec<Piece<LazyIndex>>>,
        owed: &Owed,
    ) -> Result<Self> {
        let parts = |side: usize| -> Result<Vec<Part>> {
            let pieces = pieces(side, sides, &taken).iter();
            pieces.map(|piece| Part::new(shape, side, piece, window, owed)).collect()
        };
        let rows = [parts(LEFT)?, parts(RIGHT)?];
        let place = Place::at(rows[LEFT].first().map_or(0, |part| part.range.start));
        Ok(Self { window, taken, rows, piece: 0, place, alone: (LEFT, 0, 0) })
    }

    /// The bytes of the rows it has taken.
    pub(super) fn size(&self) -> usize {
        let bytes = |piece: &Piece<LazyIndex>| {
            piece.rows.get_array_memory_size() + piece.rows.num_rows() * KeyIndex::BYTES_PER_ROW
        };
        self.taken.iter().flatten().map(bytes).sum()
    }

    /// Emits the next rows, at most [`Outbox::step`]; returns what work that was, in rows, or `None` when there are no more.
    pub(super) fn step(
        &mut self,
        shape: &Shape,
        sides: &[TimedRows<LazyIndex>; 2],
        out: &mut Outbox,
    ) -> Result<Option<usize>> {
        if self.piece < self.rows[LEFT].len() {
            return self.probe(shape, sides, out).map(Some);
        }
        while self.alone.0 <= RIGHT {
            let side = self.alone.0;
            let places = self.take_alone(shape, out.step());
            if !places.is_empty() {
                let n = places.len();
                let pieces = pieces(side, sides, &self.taken).iter();
                let batches: Vec<&RecordBatch> = pieces.map(|piece| &piece.rows).collect();
                let picked = Picked { batches, rows: places };
                let of_sides = if side == LEFT { [Some(&picked), None] } else { [None, Some(&picked)] };
                out.emit(self.result(shape, of_sides, n)?);
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    /// The left rows of one piece look for partners.
    fn probe(&mut self, shape: &Shape, sides: &[TimedRows<LazyIndex>; 2], out: &mut Outbox) -> Result<usize> {
        let [left, right] = &self.rows;
        let part = &left[self.piece];
        let piece = &sides[LEFT].pieces()[self.piece];
        let mut partners = Vec::new();
        if !part.range.is_empty() {
            let pieces = pieces(RIGHT, sides, &self.taken).iter();
            for (piece, part) in pieces.zip(right).filter(|(_, part)| !part.range.is_empty()) {
                let index = piece.index.index(&piece.rows, &shape.keys[RIGHT])?;
                let times = times_of(&piece.rows, shape.times[RIGHT])?;
                partners.push(Partners { rows: &piece.rows, index, times, live: part.range.clone() });
            }
        }
        let mut cost = 1;
        if partners.is_empty() {
            self.place = Place::at(part.range.end);
        } else {
            let probe = Probe {
                shape,
                side: LEFT,
                rows: &piece.rows,
                keys: piece.index.keys(&piece.rows, &shape.keys[LEFT])?,
                end: part.range.end,
                partners,
                span: |row| (!part.is_given(row)).then_some((i64::MIN, i64::MAX)),
                once: !shape.join_type.gives_pairs(),
            };
            let found = probe.step(&mut self.place, out.step())?;
            cost += found.cost;
            let n = found.pairs[LEFT].rows.len();
            if n > 0 && shape.join_type.gives_pairs() {
                out.emit(self.result(shape, found.pairs.each_ref().map(Some), n)?);
            }
            let [left, right] = found.pairs.map(|picked| picked.rows);
            self.meet(left, right);
        }
        if self.place.row >= self.rows[LEFT][self.piece].range.end {
            self.piece += 1;
            self.place = Place::at(self.rows[LEFT].get(self.piece).map_or(0, |part| part.range.start));
        }
        Ok(cost)
    }

    /// Takes down that these have met: left rows of the piece that probes, and right rows of those that have any.
    fn meet(&mut self, left: Places, right: Places) {
        let [lefts, rights] = &mut self.rows;
        let part = &mut lefts[self.piece];
        if !part.met.is_empty() {
            left.into_iter().for_each(|(_, row)| part.met[row - part.range.start] = true);
        }
        let mut parts: Vec<&mut Part> = rights.iter_mut().filter(|part| !part.range.is_empty()).collect();
        for (piece, row) in right {
            let part = &mut parts[piece];
            if let Some(met) = part.met.get_mut(row - part.range.start) {
                *met = true;
            }
        }
    }

    /// The next up to `most` rows that give a result on their own, of the side that `alone` is at; moves it.
    fn take_alone(&mut self, shape: &Shape, most: usize) -> Places {
        let (side, mut piece, mut next) = self.alone;
        let wanted = shape.join_type.wants_partner();
        let mut places = Places::new();
        while let Some(part) = self.rows[side].get(piece) {
            let met = part.met.iter().enumerate().skip(next);
            let leave = met.filter(|&(at, met)| *met == wanted && !part.is_given(part.range.start + at));
            places.extend(leave.map(|(at, _)| (piece, part.range.start + at)).take(most - places.len()));
            if places.len() == most {
                let (piece, row) = places[most - 1];
                next = row + 1 - part.range.start;
                self.alone = (side, piece, next);
                return places;
            }
            (piece, next) = (piece + 1, 0);
        }
        self.alone = (side + 1, 0, 0);
        places
    }

    /// Result rows of this window.
    fn result(&self, shape: &Shape, sides: [Option<&Picked<'_>>; 2], rows: usize) -> Result<RecordBatch> {
        let constant = |time: Timestamp| Timestamp::column(vec![time.micros(); rows]);
        let bounds = vec![constant(self.window.start), constant(self.window.end)];
        shape.result(bounds, sides, vec![self.window.result_time().micros(); rows])
    }
}
