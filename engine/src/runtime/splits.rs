//! Watermarks per split: who has delivered what, who is idle, what the task as a whole may promise.

use std::{collections::HashMap, time::Duration};

use windrow_connectors::SplitId;
use windrow_operators::{Timestamp, Watermark, WatermarkMerge};

use crate::{
    Watermarks,
    checkpoint::{SplitState, mutated},
    clock::Moment,
};

struct Split {
    latest: Option<i64>,
    /// When it last delivered something, on the clock that stands still while the task waits for others.
    active_at: Moment,
    idle: bool,
    ended: bool,
}

/// The splits of one source task.
pub(crate) struct SplitWatermarks {
    watermarks: Watermarks,
    index: HashMap<SplitId, usize>,
    splits: Vec<Split>,
    merge: WatermarkMerge,
}

impl SplitWatermarks {
    pub(crate) fn new(watermarks: Watermarks, splits: &[SplitId], now: Moment) -> Self {
        Self {
            watermarks,
            index: splits.iter().cloned().zip(0..).collect(),
            splits: splits.iter().map(|_| Split { latest: None, active_at: now, idle: false, ended: false }).collect(),
            merge: WatermarkMerge::new(splits.len()),
        }
    }

    /// Continues where the splits of a checkpoint stood. What is returned must be said before anything else: what the
    /// task had said before it was restored, so that it promises neither more nor less.
    pub(crate) fn restore(&mut self, states: &[SplitState]) -> Vec<Watermark> {
        let mut said = Vec::new();
        for state in states {
            let split = SplitId::new(state.split.as_str());
            if let Some(latest) = state.latest.filter(|_| !mutated("the watermarks of splits are not restored")) {
                said.extend(self.after_rows(&split, latest));
            }
            if state.ended {
                said.extend(self.ended(&split));
            } else if let (true, Some(&index)) =
                (state.idle && self.watermarks.idle_after.is_some(), self.index.get(&split))
                && !mutated("the idleness of splits is not restored")
            {
                self.splits[index].idle = true;
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        said
    }

    /// What a checkpoint remembers of a split: its latest event time and whether it is idle.
    pub(crate) fn state(&self, split: &SplitId) -> (Option<i64>, bool) {
        self.index.get(split).map_or((None, false), |&index| (self.splits[index].latest, self.splits[index].idle))
    }

    /// `split` is about to deliver rows. What is returned must be said before them.
    pub(crate) fn before_rows(&mut self, split: &SplitId, now: Moment) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        self.splits[index].active_at = now;
        self.splits[index].idle = false;
        self.merge.wake(index)
    }

    /// `split` has delivered rows, the latest of them at `latest`. What is returned must be said after them.
    pub(crate) fn after_rows(&mut self, split: &SplitId, latest: i64) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        let seen = self.splits[index].latest.get_or_insert(latest);
        *seen = latest.max(*seen);
        let time = Timestamp::from_micros(*seen).saturating_sub(self.watermarks.bound);
        self.merge.observe(index, Watermark::At(time))
    }

    /// `split` will deliver nothing more: it holds nobody back.
    pub(crate) fn ended(&mut self, split: &SplitId) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        self.splits[index].ended = true;
        let all_ended = self.splits.iter().all(|split| split.ended);
        // When the last one ends the stream ends, and the end says so itself.
        if all_ended { None } else { self.merge.observe(index, Watermark::At(Timestamp::MAX)) }
    }

    /// Marks splits idle that have been silent for long enough; call it when [`SplitWatermarks::next_idle`] has come.
    pub(crate) fn mark_idle(&mut self, now: Moment) -> Vec<Watermark> {
        let Some(span) = self.watermarks.idle_after else { return Vec::new() };
        let mut said = Vec::new();
        for (index, split) in self.splits.iter_mut().enumerate() {
            if !split.ended && !split.idle && now.since(split.active_at) >= span {
                split.idle = true;
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        said
    }

    /// When the next split will be idle unless it delivers something.
    pub(crate) fn next_idle(&self) -> Option<Moment> {
        let span = self.watermarks.idle_after?;
        let waiting = self.splits.iter().filter(|split| !split.ended && !split.idle);
        waiting.map(|split| split.active_at.after(span)).min()
    }

    /// Reading begins: what was before is not the silence of a split.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.splits.iter_mut().for_each(|split| split.active_at = now);
    }

    /// The task could not read for `span` because it waited for others: that is not the silence of a split.
    pub(crate) fn excuse(&mut self, span: Duration) {
        for split in &mut self.splits {
            split.active_at = split.active_at.after(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(t: i64) -> Watermark {
        Watermark::At(Timestamp::from_micros(t))
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_split_holds_until_it_is_idle_or_ended() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let start = Moment::now();
        let strategy = Watermarks::out_of_order(Duration::from_micros(10)).idle_after(SECOND);
        let mut splits = SplitWatermarks::new(strategy, &[a.clone(), b.clone()], start);
        assert_eq!(splits.after_rows(&a, 100), None, "b has said nothing");
        assert_eq!(splits.after_rows(&b, 50), Some(at(40)));
        assert_eq!(splits.after_rows(&b, 30), None, "an older row does not pull it back");
        assert_eq!(splits.before_rows(&a, start.after(SECOND / 2)), None);
        assert_eq!(splits.next_idle(), Some(start.after(SECOND)));
        assert_eq!(splits.mark_idle(start.after(SECOND)), [at(90)], "b is idle, a decides");
        assert_eq!(splits.mark_idle(start.after(2 * SECOND)), [Watermark::Idle]);
        assert_eq!(splits.next_idle(), None);
        assert_eq!(splits.before_rows(&b, start.after(3 * SECOND)), Some(at(90)), "awake, and not back in time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_restored_says_what_had_been_said() {
        let names = ["a", "b", "c"].map(SplitId::new);
        let state =
            |split: &str, latest, idle, ended| SplitState { split: split.into(), position: None, ended, latest, idle };
        let fresh = || SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), &names, Moment::now());
        let mut splits = fresh();
        let states =
            [state("a", Some(70), false, false), state("b", Some(50), true, false), state("c", Some(9), false, true)];
        assert_eq!(splits.restore(&states).last(), Some(&at(70)), "b is idle and c has ended: a decides");
        assert_eq!(splits.before_rows(&names[1], Moment::now()), None, "b wakes, and nothing goes back");
        assert_eq!(splits.after_rows(&names[1], 80), None);
        assert_eq!(splits.state(&names[1]), (Some(80), false));
        let states =
            [state("a", Some(70), true, false), state("b", Some(50), true, false), state("c", None, true, false)];
        assert_eq!(fresh().restore(&states), [at(70), Watermark::Idle]);
        let states =
            [state("a", Some(70), false, false), state("b", None, false, false), state("c", None, true, false)];
        assert_eq!(fresh().restore(&states), [], "b has said nothing yet");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_knows_no_idleness_any_more_waits_for_a_split_that_was_idle() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a, b], Moment::now());
        let state = |split: &str, latest, idle| SplitState {
            split: split.into(),
            position: None,
            ended: false,
            latest: Some(latest),
            idle,
        };
        assert_eq!(splits.restore(&[state("a", 70, false), state("b", 50, true)]), [at(50)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_before_the_reading_is_not_silence() {
        let a = SplitId::new("a");
        let start = Moment::now();
        let strategy = Watermarks::in_order().idle_after(SECOND);
        let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), start);
        splits.begin(start.after(5 * SECOND));
        assert_eq!(splits.next_idle(), Some(start.after(6 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_others_is_not_silence() {
        let a = SplitId::new("a");
        let start = Moment::now();
        let strategy = Watermarks::in_order().idle_after(SECOND);
        let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), start);
        splits.excuse(5 * SECOND);
        assert_eq!(splits.mark_idle(start.after(5 * SECOND)), []);
        assert_eq!(splits.next_idle(), Some(start.after(6 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_split_holds_nobody_and_the_last_leaves_the_end_to_say() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a.clone(), b.clone()], Moment::now());
        splits.after_rows(&a, 7);
        assert_eq!(splits.ended(&b), Some(at(7)));
        assert_eq!(splits.ended(&a), None);
    }
}
