//! What is in flight, in the order in which it came: units with or without an answer, and the watermarks between them.
//!
//! ```text
//!   ordered     [ unit ✓ ][ unit … ][ unit ✓ ] | 10:05 |      the first leaves, the others wait for the second
//!   unordered   [ unit ✓ ][ unit … ][ unit ✓ ] | 10:05 | [ unit ✓ ]    the first and the third leave; behind the
//!                                                                       watermark nothing does
//! ```
//!
//! Only what promises something that was not promised before is such a watermark. That the stream is idle holds for what
//! came before it and until a row comes: it is said when all rows before it have left, unless another has come since. That
//! it is awake again is said at once. A stream without event time says that it is idle after each of its batches, and so
//! do its results.
//!
//! It knows no calls and no time: who holds it says what has an answer, and takes what may leave.

use std::collections::{BTreeMap, VecDeque};

use windrow_operators::{Timestamp, Watermark};

use super::{Piece, call::Answer, rows::Came};

enum Entry<D> {
    Unit(Piece, Option<Answer<D>>),
    Time(Timestamp),
}

/// What may leave.
pub(super) enum Ready<D> {
    Unit(Piece, Answer<D>),
    Time(Timestamp),
}

pub(super) struct Queue<D> {
    ordered: bool,
    /// Whether the stream has event time.
    timed: bool,
    /// By number, in the order in which they came.
    entries: BTreeMap<u64, Entry<D>>,
    next: u64,
    /// Unordered: units with an answer that are before every watermark.
    ready: VecDeque<u64>,
    /// Where the watermarks are.
    times: VecDeque<u64>,
    rows: usize,
    /// The last time that came, and the last that left.
    promised: Timestamp,
    said: Timestamp,
    /// Nothing came after that nobody should wait for this stream; and whether those behind know.
    idle: bool,
    said_idle: bool,
}

impl<D> Queue<D> {
    pub(super) fn new(ordered: bool, timed: bool) -> Self {
        Self {
            ordered,
            timed,
            entries: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            times: VecDeque::new(),
            rows: 0,
            promised: Timestamp::MIN,
            said: Timestamp::MIN,
            idle: false,
            said_idle: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many units there are.
    pub(super) fn units(&self) -> usize {
        self.entries.len() - self.times.len()
    }

    /// The rows of these units.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// What is in it, as it came.
    pub(super) fn came(&self) -> impl Iterator<Item = Came<&Piece>> {
        self.entries.values().map(|entry| match entry {
            Entry::Unit(piece, _) => Came::Rows(piece),
            Entry::Time(time) => Came::Time(Watermark::At(*time)),
        })
    }

    /// Adds a unit; returns its number.
    pub(super) fn push(&mut self, piece: Piece) -> u64 {
        self.rows += piece.len();
        // One without event time falls idle again with every batch.
        self.idle &= !self.timed;
        self.add(Entry::Unit(piece, None))
    }

    fn add(&mut self, entry: Entry<D>) -> u64 {
        let number = self.next;
        self.entries.insert(number, entry);
        self.next += 1;
        number
    }

    /// A watermark; several without a unit in between are one.
    pub(super) fn push_time(&mut self, watermark: Watermark) {
        let Watermark::At(at) = watermark else {
            self.idle = true;
            return;
        };
        self.idle &= !self.timed;
        if at <= self.promised {
            return;
        }
        self.promised = at;
        match self.entries.last_entry() {
            Some(mut last) if matches!(last.get(), Entry::Time(_)) => *last.get_mut() = Entry::Time(at),
            _ => {
                let number = self.add(Entry::Time(at));
                self.times.push_back(number);
            }
        }
    }

    /// What is to be said about idleness, whatever is in flight.
    pub(super) fn word(&mut self) -> Option<Watermark> {
        let idle = self.idle && (!self.timed || self.is_empty());
        if std::mem::replace(&mut self.said_idle, idle) == idle {
            return None;
        }
        Some(if idle { Watermark::Idle } else { Watermark::At(self.said) })
    }

    /// A unit has its answer.
    pub(super) fn finish(&mut self, number: u64, answer: Answer<D>) {
        if let Some(Entry::Unit(_, place)) = self.entries.get_mut(&number) {
            *place = Some(answer);
            if !self.ordered && self.times.front().is_none_or(|time| number < *time) {
                self.ready.push_back(number);
            }
        }
    }

    /// Whether something may leave.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
            || match self.entries.first_key_value() {
                Some((_, Entry::Unit(_, answer))) => self.ordered && answer.is_some(),
                Some((_, Entry::Time(_))) => true,
                None => false,
            }
    }

    /// Takes the next that may leave.
    pub(super) fn next(&mut self) -> Option<Ready<D>> {
        if !self.has_ready() {
            return None;
        }
        let number = match self.ready.pop_front() {
            Some(number) => number,
            None => *self.entries.first_key_value()?.0,
        };
        match self.entries.remove(&number)? {
            Entry::Unit(piece, answer) => {
                self.rows -= piece.len();
                // Rows wake those behind.
                self.said_idle = false;
                Some(Ready::Unit(piece, answer?))
            }
            Entry::Time(time) => {
                self.times.pop_front();
                (self.said, self.said_idle) = (time, false);
                if !self.ordered {
                    let until = self.times.front().copied().unwrap_or(u64::MAX);
                    let answered = |(number, entry): (&u64, &Entry<D>)| {
                        matches!(entry, Entry::Unit(_, Some(_))).then_some(*number)
                    };
                    self.ready = self.entries.range(..until).filter_map(answered).collect();
                }
                Some(Ready::Time(time))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn unit(number: i64) -> Piece {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        Piece::of(RecordBatch::try_from_iter([("n", column)]).unwrap()).unwrap()
    }

    fn at(time: i64) -> Watermark {
        Watermark::At(Timestamp::from_micros(time))
    }

    /// Units are numbers, watermarks negative ones.
    fn taken(queue: &mut Queue<i64>) -> Vec<i64> {
        let taken = std::iter::from_fn(|| queue.next()).map(|ready| match ready {
            Ready::Unit(_, answer) => answer.unwrap(),
            Ready::Time(time) => -time.micros(),
        });
        taken.collect()
    }

    fn filled(ordered: bool) -> Queue<i64> {
        let mut queue = Queue::new(ordered, true);
        queue.push(unit(0));
        queue.push(unit(1));
        queue.push_time(at(5));
        queue.push_time(at(7));
        queue.push(unit(3));
        queue
    }

    #[test]
    fn in_order_a_unit_waits_for_those_before_it() {
        let mut queue = filled(true);
        queue.finish(1, Ok(1));
        assert_eq!(taken(&mut queue), Vec::<i64>::new());
        queue.finish(0, Ok(0));
        assert_eq!(taken(&mut queue), [0, 1, -7], "two watermarks without a row in between are one");
        queue.finish(3, Ok(3));
        assert_eq!(taken(&mut queue), [3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn without_order_a_unit_waits_for_watermarks_only() {
        let mut queue = filled(false);
        queue.finish(3, Ok(3));
        queue.finish(1, Ok(1));
        assert_eq!(taken(&mut queue), [1]);
        assert_eq!((queue.units(), queue.rows()), (2, 2));
        queue.finish(0, Ok(0));
        assert_eq!(taken(&mut queue), [0, -7, 3]);
        queue.push_time(Watermark::Idle);
        queue.push_time(at(9));
        assert_eq!(taken(&mut queue), [-9]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_promises_nothing_new_stands_between_no_units() {
        for timed in [true, false] {
            let mut queue = Queue::new(false, timed);
            queue.push_time(Watermark::Idle);
            assert_eq!(queue.word(), Some(Watermark::Idle));
            queue.push_time(at(i64::MIN));
            queue.push(unit(0));
            assert_eq!(queue.word(), timed.then_some(at(i64::MIN)), "awake at once");
            queue.push_time(Watermark::Idle);
            queue.push_time(at(i64::MIN));
            queue.push(unit(1));
            queue.push_time(Watermark::Idle);
            queue.finish(1, Ok(1));
            assert_eq!(taken(&mut queue), [1], "timed: {timed}");
            // The other, which came before, is still to leave; without event time that holds nobody.
            assert_eq!(queue.word(), (!timed).then_some(Watermark::Idle));
            queue.finish(0, Ok(0));
            assert_eq!(taken(&mut queue), [0]);
            assert_eq!(queue.word(), Some(Watermark::Idle));
            assert_eq!(queue.word(), None, "once");
        }
    }

    #[test]
    fn a_row_that_comes_ends_the_idleness_before_it() {
        let mut queue = Queue::new(true, true);
        queue.push_time(at(5));
        queue.push(unit(0));
        queue.push_time(Watermark::Idle);
        let second = queue.push(unit(1));
        queue.finish(second - 1, Ok(0));
        assert_eq!((taken(&mut queue), queue.word()), (vec![-5, 0], None));
        queue.push_time(Watermark::Idle);
        queue.finish(second, Ok(1));
        assert_eq!((taken(&mut queue), queue.word()), (vec![1], Some(Watermark::Idle)));
        queue.push_time(at(5));
        assert_eq!(queue.word(), Some(at(5)), "it is awake, where it stood");
        assert!(queue.is_empty());
    }

    #[test]
    fn any_order_of_answers_keeps_rows_on_their_side_of_the_watermarks() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let ordered = random.bool();
            let mut queue = Queue::new(ordered, true);
            let (mut open, mut time, mut out) = (Vec::new(), 0, Vec::new());
            let mut came = Vec::new();
            for step in 0..60 {
                match random.u8(0..3) {
                    0 if step < 40 => {
                        let number = queue.push(unit(0));
                        open.push(number);
                        came.push(number as i64);
                    }
                    1 if step < 40 => {
                        time += 1;
                        queue.push_time(at(time));
                        if came.last().is_some_and(|last| *last < 0) {
                            came.pop();
                        }
                        came.push(-time);
                    }
                    _ if !open.is_empty() => {
                        let number = open.swap_remove(random.usize(0..open.len()));
                        queue.finish(number, Ok(number as i64));
                        // Taken only now and then, or those that wait would never be several.
                        if random.bool() {
                            out.extend(taken(&mut queue));
                        }
                    }
                    _ => {}
                }
            }
            open.into_iter().for_each(|number| queue.finish(number, Ok(number as i64)));
            out.extend(taken(&mut queue));
            assert!(queue.is_empty());
            // A watermark that left early may be one that was replaced in the model: compare what is before the last of a run.
            let sides = |line: &[i64]| {
                let mut sides: Vec<Vec<i64>> = vec![Vec::new()];
                for entry in line {
                    match entry {
                        time if *time < 0 => {
                            if !sides.last().unwrap().is_empty() {
                                sides.push(Vec::new());
                            }
                        }
                        number => sides.last_mut().unwrap().push(*number),
                    }
                }
                if !ordered {
                    sides.iter_mut().for_each(|side| side.sort_unstable());
                }
                sides
            };
            assert_eq!(sides(&out), sides(&came), "seed {seed}");
            let times: Vec<i64> = out.iter().filter(|entry| **entry < 0).copied().collect();
            assert!(times.is_sorted_by(|a, b| a > b), "seed {seed}: {times:?}");
        }
    }
}
