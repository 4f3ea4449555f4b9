//! The result of one window, in bounded steps: all its rows are there, and they are in memory.
//!
//! ```text
//!   left rows ──probe──► right rows of the window        pairs, about 8192 for each step
//!      └─ which have met a partner ─────────┴──────────► then the rows without one (semi, anti: with or without)
//! ```

use std::collections::VecDeque;

use arrow::array::{ArrayRef, RecordBatch};

use super::{
    EMIT_ROWS, LEFT, RIGHT,
    index::{KeyIndex, Keys},
    probe::{Partners, Probe},
    shape::{Picked, Places, Shape},
};
use crate::{Outbox, Result, Timestamp, window::Slice};

/// A window on its way out.
pub(super) struct Closing {
    window: Slice,
    left: Vec<(RecordBatch, Keys)>,
    right: Vec<(RecordBatch, KeyIndex)>,
    /// The left row that probes next.
    batch: usize,
    row: usize,
    /// Which rows have met a partner, by side, batch and row.
    met: [Vec<Vec<bool>>; 2],
    /// What gives a result on its own, by side; `None` until all pairs have left.
    rest: Option<VecDeque<(usize, Places)>>,
}

impl Closing {
    /// `rows` are those of the window, by side.
    pub(super) fn new(shape: &Shape, window: Slice, rows: [Vec<RecordBatch>; 2]) -> Result<Self> {
        let met = rows.each_ref().map(|side| side.iter().map(|rows| vec![false; rows.num_rows()]).collect());
        let [left, right] = rows;
        let keys = |rows: RecordBatch| Keys::of(&rows, &shape.keys[LEFT]).map(|keys| (rows, keys));
        let index = |rows: RecordBatch| KeyIndex::of(&rows, &shape.keys[RIGHT]).map(|index| (rows, index));
        Ok(Self {
            window,
            left: left.into_iter().map(keys).collect::<Result<_>>()?,
            right: right.into_iter().map(index).collect::<Result<_>>()?,
            batch: 0,
            row: 0,
            met,
            rest: None,
        })
    }

    /// Emits the next rows; returns how many, or `None` when there are no more.
    pub(super) fn step(&mut self, shape: &Shape, out: &mut Outbox) -> Result<Option<usize>> {
        if self.batch < self.left.len() {
            return self.probe(shape, out).map(Some);
        }
        let mut rest = self.rest.take().unwrap_or_else(|| self.alone(shape));
        let Some((side, mut rows)) = rest.pop_front() else { return Ok(None) };
        let more = rows.split_off(rows.len().min(EMIT_ROWS));
        let batches = match side {
            LEFT => self.left.iter().map(|(rows, _)| rows).collect(),
            _ => self.right.iter().map(|(rows, _)| rows).collect(),
        };
        let picked = Picked { batches, rows };
        let sides = if side == LEFT { [Some(&picked), None] } else { [None, Some(&picked)] };
        let n = picked.rows.len();
        out.emit(shape.result(bounds(self.window, n), sides, vec![self.window.result_time().micros(); n])?);
        if !more.is_empty() {
            rest.push_front((side, more));
        }
        self.rest = Some(rest);
        Ok(Some(n))
    }

    fn probe(&mut self, shape: &Shape, out: &mut Outbox) -> Result<usize> {
        let (rows, keys) = &self.left[self.batch];
        let partners: Vec<_> = self.right.iter().map(|(rows, index)| Partners { rows, index }).collect();
        let (window, met, batch) = (self.window, &mut self.met, self.batch);
        let pairs_leave = shape.join_type.gives_pairs();
        let probe = Probe { side: LEFT, rows, keys, once: !pairs_leave };
        let mut emitted = 0;
        let among = |_: usize, piece: usize| 0..partners[piece].rows.num_rows();
        let next = probe.run(shape, self.row, &partners, among, |pairs| {
            pairs[LEFT].rows.iter().for_each(|&(_, row)| met[LEFT][batch][row] = true);
            pairs[RIGHT].rows.iter().for_each(|&(piece, row)| met[RIGHT][piece][row] = true);
            if pairs_leave {
                let n = pairs[LEFT].rows.len();
                emitted += n;
                let times = vec![window.result_time().micros(); n];
                out.emit(shape.result(bounds(window, n), [Some(&pairs[LEFT]), Some(&pairs[RIGHT])], times)?);
            }
            Ok(())
        })?;
        let done = next == rows.num_rows();
        (self.batch, self.row) = if done { (batch + 1, 0) } else { (batch, next) };
        Ok(emitted)
    }

    /// The rows that give a result on their own.
    fn alone(&self, shape: &Shape) -> VecDeque<(usize, Places)> {
        let wanted = shape.join_type.wants_partner();
        let of_side = |side: usize| {
            let rows = self.met[side].iter().enumerate().flat_map(move |(batch, met)| {
                met.iter().enumerate().filter(move |(_, met)| **met == wanted).map(move |(row, _)| (batch, row))
            });
            (side, rows.collect::<Places>())
        };
        let sides = (LEFT..=RIGHT).filter(|&side| shape.join_type.decides(side));
        sides.map(of_side).filter(|(_, rows)| !rows.is_empty()).collect()
    }
}

/// The columns that say which window a row is of.
fn bounds(window: Slice, rows: usize) -> Vec<ArrayRef> {
    let constant = |time: Timestamp| Timestamp::column(vec![time.micros(); rows]);
    vec![constant(window.start), constant(window.end)]
}
