//! Rows that wait for a place among the calls, and what came between them about event time.
//!
//! ```text
//!   Gate ──► [ 8192 rows ] | 10:05 | [ 100 rows ] ──► Queue, a unit at a time, while it has room
//!                 └─ more than a channel holds: the sources before it brake
//! ```
//!
//! There is more than one batch only because a barrier was waited for.

use std::collections::VecDeque;

use windrow_operators::Watermark;

use super::{Piece, rows::Came};
use crate::runtime::brake::Brake;

pub(super) struct Waiting {
    /// With their bytes.
    came: VecDeque<(Came<Piece>, usize)>,
    rows: usize,
    bytes: usize,
    /// Beyond so many bytes the sources brake.
    room: usize,
    brake: Brake,
}

impl Waiting {
    pub(super) fn new(room: usize, brake: Brake) -> Self {
        Self { came: VecDeque::new(), rows: 0, bytes: 0, room, brake }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push_rows(&mut self, piece: Piece) {
        let bytes = piece.bytes();
        self.rows += piece.len();
        self.came.push_back((Came::Rows(piece), bytes));
        self.hold(self.bytes + bytes);
    }

    pub(super) fn push_time(&mut self, watermark: Watermark) {
        self.came.push_back((Came::Time(watermark), 0));
    }

    /// Takes what is at the beginning: a watermark, or at most `unit` rows if rows may be taken.
    pub(super) fn next(&mut self, unit: usize, may_take_rows: bool) -> Option<Came<Piece>> {
        let (first, bytes) = self.came.front_mut()?;
        let (taken, bytes) = match first {
            Came::Time(watermark) => (Came::Time(*watermark), 0),
            Came::Rows(_) if !may_take_rows => return None,
            Came::Rows(rows) => {
                let piece = rows.split(unit);
                self.rows -= piece.len();
                if rows.len() > 0 {
                    return Some(Came::Rows(piece));
                }
                (Came::Rows(piece), *bytes)
            }
        };
        self.came.pop_front();
        self.hold(self.bytes - bytes);
        Some(taken)
    }

    fn hold(&mut self, bytes: usize) {
        self.bytes = bytes;
        // One batch may be larger than the channel that it came through.
        self.brake.set(bytes > self.room && self.came.len() > 1);
    }

    /// What is in it, as it came.
    pub(super) fn came(&self) -> impl Iterator<Item = Came<&Piece>> {
        self.came.iter().map(|(came, _)| match came {
            Came::Rows(piece) => Came::Rows(piece),
            Came::Time(watermark) => Came::Time(*watermark),
        })
    }

    /// The watermarks between the rows.
    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Watermark> {
        self.came
            .iter_mut()
            .filter_map(|(came, _)| if let Came::Time(watermark) = came { Some(watermark) } else { None })
    }
}
