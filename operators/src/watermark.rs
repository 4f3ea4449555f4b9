//! Watermarks, and the one rule by which several become one.
//!
//! ```text
//!   split / input 0 ── At(12) ──┐
//!   split / input 1 ── Idle   ──┼── WatermarkMerge ──► At(9): the least of those that are active
//!   split / input 2 ── At(9)  ──┘
//! ```
//!
//! The source task merges the watermarks of its splits with it, the gate merges those of its inputs.

use crate::Timestamp;

/// What a stream says about its event time, in band with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// No row earlier than this will come.
    At(Timestamp),
    /// Nothing is coming for now: do not wait for this input. Any later message ends the idleness.
    Idle,
}

#[derive(Clone, Copy, Debug)]
struct Input {
    /// What it has reached, not counting its end.
    time: Timestamp,
    idle: bool,
    ended: bool,
}

impl Input {
    fn is_active(&self) -> bool {
        !self.idle && !self.ended
    }
}

/// Merges the watermarks of several inputs.
///
/// * The merged time is the least of the active inputs. An ended input, at [`Timestamp::MAX`], is not active; the
///   merged stream ends when all have ended, also those that were idle.
/// * When none is active it is the greatest any of them has reached before its end: nobody holds it back, and the result
///   does not depend on who fell idle or ended first.
/// * It never goes backwards. An input that wakes up behind it brings late rows, which is for the windows to say.
///
/// ```
/// use windrow_operators::{Timestamp, Watermark, WatermarkMerge};
/// let at = |t| Watermark::At(Timestamp::from_micros(t));
/// let mut merge = WatermarkMerge::new(2);
/// assert_eq!(merge.observe(0, at(5)), None, "input 1 has promised nothing yet");
/// assert_eq!(merge.observe(1, at(3)), Some(at(3)));
/// assert_eq!(merge.observe(1, Watermark::Idle), Some(at(5)));
/// assert_eq!(merge.observe(0, Watermark::Idle), Some(Watermark::Idle));
/// ```
#[derive(Clone, Debug)]
pub struct WatermarkMerge {
    inputs: Vec<Input>,
    emitted: Timestamp,
    idle: bool,
}

impl WatermarkMerge {
    /// Merges `inputs` inputs, which have promised nothing yet.
    pub fn new(inputs: usize) -> Self {
        Self {
            inputs: vec![Input { time: Timestamp::MIN, idle: false, ended: false }; inputs],
            emitted: Timestamp::MIN,
            idle: false,
        }
    }

    /// One more input, which has promised nothing yet: it holds the merged watermark where it is, and wakes a merged stream
    /// that was idle. Its index is the number of inputs before. Returns what the merged stream has to say.
    ///
    /// ```
    /// use windrow_operators::{Timestamp, Watermark, WatermarkMerge};
    /// let at = |t| Watermark::At(Timestamp::from_micros(t));
    /// let mut merge = WatermarkMerge::new(1);
    /// assert_eq!(merge.observe(0, at(5)), Some(at(5)));
    /// assert_eq!(merge.add(), None, "it does not go back");
    /// assert_eq!(merge.observe(0, at(9)), None, "input 1 holds it");
    /// assert_eq!(merge.observe(1, at(7)), Some(at(7)));
    /// ```
    pub fn add(&mut self) -> Option<Watermark> {
        self.inputs.push(Input { time: Timestamp::MIN, idle: false, ended: false });
        self.poll()
    }

    /// The merged stream had come as far as `time` before its job was restored, and does not go back behind that. Returns what it
    /// has to say again.
    ///
    /// ```
    /// use windrow_operators::{Timestamp, Watermark, WatermarkMerge};
    /// let at = |t| Watermark::At(Timestamp::from_micros(t));
    /// let mut merge = WatermarkMerge::new(1);
    /// assert_eq!(merge.restore(Timestamp::from_micros(5)), Some(at(5)));
    /// assert_eq!(merge.observe(0, at(3)), None, "it does not go back");
    /// ```
    pub fn restore(&mut self, time: Timestamp) -> Option<Watermark> {
        (time > self.emitted).then(|| {
            (self.emitted, self.idle) = (time, false);
            Watermark::At(time)
        })
    }

    /// Takes what `input` says; returns what the merged stream has to say that it has not said before. When all inputs
    /// fall idle and that moves the time, the time comes first and [`WatermarkMerge::poll`] gives the idleness.
    pub fn observe(&mut self, input: usize, watermark: Watermark) -> Option<Watermark> {
        let slot = &mut self.inputs[input];
        match watermark {
            Watermark::At(Timestamp::MAX) => slot.ended = true,
            Watermark::At(time) => (slot.time, slot.idle) = (slot.time.max(time), false),
            Watermark::Idle => slot.idle = true,
        }
        self.poll()
    }

    /// `input` has delivered a row, so it is not idle. The merged stream wakes with it.
    pub fn wake(&mut self, input: usize) -> Option<Watermark> {
        if !self.inputs[input].idle {
            return None;
        }
        self.inputs[input].idle = false;
        self.poll()
    }

    /// What remains to be said; `None` when nothing does.
    pub fn poll(&mut self) -> Option<Watermark> {
        let ended = !self.inputs.is_empty() && self.inputs.iter().all(|input| input.ended);
        let least = self.inputs.iter().filter(|input| input.is_active()).map(|input| input.time).min();
        let active = if ended { Some(Timestamp::MAX) } else { least };
        let time = active.or_else(|| self.inputs.iter().map(|input| input.time).max()).unwrap_or(Timestamp::MIN);
        if time > self.emitted {
            self.emitted = time;
            self.idle = false;
            return Some(Watermark::At(time));
        }
        match (active.is_none(), self.idle) {
            (true, false) => {
                self.idle = true;
                Some(Watermark::Idle)
            }
            (false, true) => {
                self.idle = false;
                Some(Watermark::At(self.emitted))
            }
            _ => None,
        }
    }

    /// The merged watermark as last said.
    pub fn time(&self) -> Timestamp {
        self.emitted
    }

    /// The inputs that hold the merged watermark where it is: active ones with the least time.
    pub fn holders(&self) -> impl Iterator<Item = usize> + '_ {
        let least = self.inputs.iter().filter(|input| input.is_active()).map(|input| input.time).min();
        (0..self.inputs.len()).filter(move |&i| self.inputs[i].is_active() && Some(self.inputs[i].time) == least)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(t: i64) -> Watermark {
        Watermark::At(Timestamp::from_micros(t))
    }

    #[test]
    fn an_input_that_wakes_behind_does_not_pull_the_watermark_back() {
        let mut merge = WatermarkMerge::new(2);
        merge.observe(0, at(1));
        merge.observe(1, Watermark::Idle);
        assert_eq!(merge.observe(0, at(10)), Some(at(10)));
        assert_eq!(merge.wake(1), None, "the merged stream was not idle and has nothing new to say");
        assert_eq!(merge.observe(0, at(20)), None, "input 1 holds it again");
        assert_eq!(merge.time(), Timestamp::from_micros(10));
        assert_eq!(merge.holders().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_new_input_holds_without_pulling_back_and_wakes_what_was_idle() {
        let mut merge = WatermarkMerge::new(1);
        merge.observe(0, at(5));
        assert_eq!(merge.observe(0, Watermark::Idle), Some(Watermark::Idle));
        assert_eq!(merge.add(), Some(at(5)), "awake where it was");
        assert_eq!(merge.observe(0, at(9)), None);
        assert_eq!(merge.holders().collect::<Vec<_>>(), [1]);
        assert_eq!(merge.observe(1, at(2)), None, "behind: nothing goes back");
        assert_eq!(merge.observe(1, Watermark::Idle), Some(at(9)));
    }

    #[test]
    fn all_idle_releases_the_top_watermark_in_either_order() {
        for order in [[0, 1], [1, 0]] {
            let mut merge = WatermarkMerge::new(2);
            merge.observe(0, at(3));
            merge.observe(1, at(8));
            let mut said: Vec<_> = order.iter().filter_map(|&i| merge.observe(i, Watermark::Idle)).collect();
            said.extend(std::iter::from_fn(|| merge.poll()));
            assert_eq!(said, [at(8), Watermark::Idle], "order {order:?}");
            assert_eq!(merge.wake(0), Some(at(8)), "the merged stream wakes where it was");
        }
    }

    #[test]
    fn an_ended_input_does_not_end_what_is_idle() {
        let end = Watermark::At(Timestamp::MAX);
        let mut merge = WatermarkMerge::new(2);
        merge.observe(0, at(3));
        merge.observe(1, at(8));
        assert_eq!(merge.observe(0, Watermark::Idle), Some(at(8)));
        assert_eq!(merge.observe(1, end), Some(Watermark::Idle), "input 0 may wake and go on from 3");
        assert_eq!(merge.wake(0), Some(at(8)), "it has woken");
        assert_eq!(merge.observe(0, at(9)), Some(at(9)));
        assert_eq!(merge.observe(0, end), Some(end));
        assert_eq!(merge.poll(), None);
    }

    #[test]
    fn no_inputs_are_idle() {
        assert_eq!(WatermarkMerge::new(0).poll(), Some(Watermark::Idle));
    }

    proptest! {
        /// Against a naive model: replay the whole history and take the rule's value at each step.
        #[test]
        fn never_regresses_and_equals_the_rule(
            steps in prop::collection::vec((0usize..3, prop::option::of(-5i64..50)), 1..60)
        ) {
            let mut merge = WatermarkMerge::new(3);
            let mut times = [i64::MIN; 3];
            let mut idle = [false; 3];
            let mut highest = i64::MIN;
            let mut last = i64::MIN;
            for (input, step) in steps {
                let first = match step {
                    Some(t) => { times[input] = times[input].max(t); idle[input] = false; merge.observe(input, at(t)) }
                    None => { idle[input] = true; merge.observe(input, Watermark::Idle) }
                };
                let mut said: Vec<_> = first.into_iter().collect();
                while let Some(more) = merge.poll() { said.push(more); }
                let active: Vec<_> = (0..3).filter(|&i| !idle[i]).map(|i| times[i]).collect();
                let rule = active.iter().copied().min().unwrap_or(*times.iter().max().unwrap());
                highest = highest.max(rule);
                prop_assert_eq!(merge.time().micros(), highest);
                for watermark in said {
                    if let Watermark::At(t) = watermark {
                        prop_assert!(t.micros() >= last);
                        last = t.micros();
                    }
                }
            }
        }
    }
}
