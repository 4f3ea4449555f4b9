//! Watermarks per split: who has delivered what, who is idle, who waits, what the task as a whole may promise.
//!
//! ```text
//!   rows ──► latest ──► bound or generator ──► watermark of the split ──┬─► merged: what the task says
//!              └ not beyond max_future              never backwards      └─► the least: what it tells the other tasks
//! ```
//!
//! A split that appears while the others are read holds the watermark where it is until it speaks, or falls idle, counted from
//! then. The watermark does not go back: the first rows of such a split are late if they are behind it.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use arrow::array::RecordBatch;
use windrow_connectors::SplitId;
use windrow_operators::{Timestamp, Watermark, WatermarkMerge};

use crate::{
    WatermarkGenerator, Watermarks,
    checkpoint::{SplitState, mutated},
    clock::Moment,
    event_time::Strategy,
};

/// The latest that a split can promise before its end.
const LATEST: Timestamp = Timestamp::from_micros(i64::MAX - 1);

struct Split {
    id: SplitId,
    latest: Option<i64>,
    /// Its watermark; `None` before the first.
    promised: Option<Timestamp>,
    generator: Option<Box<dyn WatermarkGenerator>>,
    /// When it last delivered something, on the clock that stands still while the task waits for others.
    active_at: Moment,
    idle: bool,
    ended: bool,
    /// It is not read until others have caught up.
    paused: bool,
}

impl Split {
    fn new(id: &SplitId, watermarks: &Watermarks, now: Moment) -> Self {
        let generator = match &watermarks.strategy {
            Strategy::Custom(generator) => Some(generator()),
            Strategy::OutOfOrder(_) | Strategy::Clock => None,
        };
        Self {
            id: id.clone(),
            latest: None,
            promised: None,
            generator,
            active_at: now,
            idle: false,
            ended: false,
            paused: false,
        }
    }

    fn is_active(&self) -> bool {
        !self.ended && !self.idle
    }

    fn is_beyond(&self, limit: Timestamp) -> bool {
        self.is_active() && self.promised.is_some_and(|promised| promised > limit)
    }
}

/// How far the slowest active split of a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slowest {
    pub(crate) time: Timestamp,
    /// `None` when no split has promised anything yet.
    pub(crate) split: Option<SplitId>,
}

/// The splits of one source task.
pub(crate) struct SplitWatermarks {
    watermarks: Watermarks,
    index: HashMap<SplitId, usize>,
    splits: Vec<Split>,
    merge: WatermarkMerge,
    /// Where the least of the paused splits is.
    resumes_at: Option<Timestamp>,
}

impl SplitWatermarks {
    pub(crate) fn new(watermarks: Watermarks, splits: &[SplitId], now: Moment) -> Self {
        Self {
            index: splits.iter().cloned().zip(0..).collect(),
            splits: splits.iter().map(|id| Split::new(id, &watermarks, now)).collect(),
            merge: WatermarkMerge::new(splits.len()),
            resumes_at: None,
            watermarks,
        }
    }

    /// Continues where the splits of a checkpoint stood. What is returned must be said before anything else: what the
    /// task had said before it was restored, so that it promises neither more nor less.
    pub(crate) fn restore(&mut self, states: &[SplitState]) -> Vec<Watermark> {
        let mut said = Vec::new();
        for state in states {
            let Some(&index) = self.index.get(&SplitId::new(state.split.as_str())) else { continue };
            if let Some(latest) = state.latest.filter(|_| !mutated("the watermarks of splits are not restored")) {
                let split = &mut self.splits[index];
                split.latest = Some(latest);
                let promised = match (&self.watermarks.strategy, &mut split.generator) {
                    (Strategy::OutOfOrder(bound), _) => Some(Timestamp::from_micros(latest).saturating_sub(*bound)),
                    (_, Some(generator)) => {
                        generator.restore(Timestamp::from_micros(latest));
                        state.promised.map(Timestamp::from_micros)
                    }
                    _ => Some(Timestamp::from_micros(latest)),
                };
                said.extend(promised.and_then(|promised| self.promise(index, promised)));
            }
            if state.ended {
                said.extend(self.end(index));
            } else if state.idle
                && self.watermarks.idle_after.is_some()
                && !mutated("the idleness of splits is not restored")
            {
                self.splits[index].idle = true;
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        said
    }

    /// Splits that have appeared since. What is returned must be said before their rows.
    pub(crate) fn add(&mut self, splits: &[SplitId], now: Moment) -> Option<Watermark> {
        let mut said = None;
        for id in splits {
            self.index.insert(id.clone(), self.splits.len());
            self.splits.push(Split::new(id, &self.watermarks, now));
            said = self.merge.add().or(said);
        }
        // If all others had ended the last of them still held the watermark: the end was to say itself.
        if !splits.is_empty() {
            for (index, _) in self.splits.iter().enumerate().filter(|(_, split)| split.ended) {
                said = self.merge.observe(index, Watermark::At(Timestamp::MAX)).or(said);
            }
        }
        said
    }

    /// What a checkpoint remembers of a split's event time.
    pub(crate) fn save(&self, state: &mut SplitState) {
        let Some(&index) = self.index.get(&SplitId::new(state.split.as_str())) else { return };
        let split = &self.splits[index];
        (state.latest, state.idle) = (split.latest, split.idle);
        // Of other splits it follows from the latest row, also when the job is restored with another bound.
        state.promised = split.generator.as_ref().and(split.promised).map(Timestamp::micros);
    }

    /// `split` is about to deliver rows. What is returned must be said before them.
    pub(crate) fn before_rows(&mut self, split: &SplitId, now: Moment) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        self.splits[index].active_at = now;
        self.splits[index].idle = false;
        self.merge.wake(index)
    }

    /// What the rows that `split` delivers say of time: their event times, at least one, of which `latest` is the latest.
    /// None counts for more than `most`. Returns the watermark of the split for [`SplitWatermarks::after_rows`], and how
    /// many rows are beyond `most`.
    pub(crate) fn judge(
        &mut self,
        split: &SplitId,
        rows: &RecordBatch,
        times: &[i64],
        latest: i64,
        most: Option<i64>,
    ) -> (Option<Timestamp>, u64) {
        let Some(&index) = self.index.get(split) else { return (None, 0) };
        let split = &mut self.splits[index];
        let (mut latest, mut times, mut future) = (latest, Cow::Borrowed(times), 0);
        if let Some(most) = most.filter(|most| latest > *most) {
            future = times.iter().filter(|time| **time > most).count() as u64;
            latest = times.iter().copied().filter(|time| *time <= most).max().unwrap_or(most);
            times = times.iter().map(|time| (*time).min(latest)).collect();
        }
        let seen = split.latest.get_or_insert(latest);
        *seen = latest.max(*seen);
        let promised = match (&self.watermarks.strategy, &mut split.generator) {
            (Strategy::OutOfOrder(bound), _) => Some(Timestamp::from_micros(*seen).saturating_sub(*bound)),
            (_, Some(generator)) => generator.after_rows(rows, &times),
            _ => None,
        };
        let most = most.map_or(LATEST, Timestamp::from_micros);
        (promised.map(|promised| promised.min(most)), future)
    }

    /// The rows of `split` for which it promises this are through. What is returned must be said after them.
    pub(crate) fn after_rows(&mut self, split: &SplitId, promised: Option<Timestamp>) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        self.promise(index, promised?)
    }

    fn promise(&mut self, index: usize, promised: Timestamp) -> Option<Watermark> {
        let split = &mut self.splits[index];
        let promised = promised.min(LATEST).max(split.promised.unwrap_or(Timestamp::MIN));
        split.promised = Some(promised);
        self.merge.observe(index, Watermark::At(promised))
    }

    /// The clock says `now`, and the splits follow it.
    pub(crate) fn follow(&mut self, now: Timestamp) -> Option<Watermark> {
        let mut said = None;
        for index in 0..self.splits.len() {
            let split = &mut self.splits[index];
            if !split.ended {
                split.latest = split.latest.max(Some(now.micros()));
                said = self.promise(index, now).or(said);
            }
        }
        said
    }

    /// `split` will deliver nothing more: it holds nobody back.
    pub(crate) fn ended(&mut self, split: &SplitId) -> Option<Watermark> {
        let index = *self.index.get(split)?;
        self.end(index)
    }

    fn end(&mut self, index: usize) -> Option<Watermark> {
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
            if split.is_active() && !split.paused && now.since(split.active_at) >= span {
                split.idle = true;
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        said
    }

    /// When the next split will be idle unless it delivers something. One that is not read has no chance to.
    pub(crate) fn next_idle(&self) -> Option<Moment> {
        let span = self.watermarks.idle_after?;
        let waiting = self.splits.iter().filter(|split| split.is_active() && !split.paused);
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

    /// How far the slowest active split is; `None` when there is none. A split that has promised nothing yet counts only
    /// while none has: perhaps it is read after the others.
    pub(crate) fn slowest(&self) -> Option<Slowest> {
        let active = || self.splits.iter().filter(|split| split.is_active());
        let promised = active().filter_map(|split| Some((split.promised?, split)));
        match promised.min_by_key(|(promised, _)| *promised) {
            Some((time, split)) => Some(Slowest { time, split: Some(split.id.clone()) }),
            None => active().next().map(|_| Slowest { time: Timestamp::MIN, split: None }),
        }
    }

    /// Pauses the active splits that are beyond `limit` and lets the others go on; or all splits if all are beyond it,
    /// and otherwise none, where they can only be read together. Returns whether that changes anything.
    pub(crate) fn pause_beyond(&mut self, limit: Option<Timestamp>, together: bool, now: Moment) -> bool {
        let slowest = if together { self.slowest() } else { None };
        let mut changed = false;
        self.resumes_at = None;
        for split in &mut self.splits {
            let paused = limit.is_some_and(|limit| match together {
                true => !split.ended && slowest.as_ref().is_some_and(|slowest| slowest.time > limit),
                false => split.is_beyond(limit),
            });
            if split.paused && !paused {
                split.active_at = now;
            }
            changed |= split.paused != paused;
            split.paused = paused;
            if paused && split.is_active() {
                self.resumes_at = self.resumes_at.into_iter().chain(split.promised).min();
            }
        }
        changed
    }

    /// The limit at which the first of the paused splits may be read again; `None` when none is paused.
    pub(crate) fn resumes_at(&self) -> Option<Timestamp> {
        self.resumes_at
    }

    /// The splits that are not to be read for now.
    pub(crate) fn paused(&self) -> Vec<SplitId> {
        self.splits.iter().filter(|split| split.paused).map(|split| split.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(t: i64) -> Watermark {
        Watermark::At(Timestamp::from_micros(t))
    }

    /// One batch of `split` with these times; its watermark is what may be `most`.
    fn batch(splits: &mut SplitWatermarks, split: &SplitId, times: &[i64], most: Option<i64>) -> Option<Watermark> {
        let rows = RecordBatch::try_from_iter([("at", Timestamp::column(times.to_vec()))]).unwrap();
        let latest = times.iter().copied().max().unwrap();
        let (promised, _) = splits.judge(split, &rows, times, latest, most);
        splits.after_rows(split, promised)
    }

    fn read(splits: &mut SplitWatermarks, split: &SplitId, time: i64) -> Option<Watermark> {
        batch(splits, split, &[time], None)
    }

    fn state(split: &str, latest: Option<i64>, idle: bool, ended: bool) -> SplitState {
        SplitState { split: split.into(), position: None, ended, latest, idle, promised: None }
    }

    fn saved(splits: &SplitWatermarks, split: &SplitId) -> (Option<i64>, Option<i64>, bool) {
        let mut state = state(split.as_str(), None, false, false);
        splits.save(&mut state);
        (state.latest, state.promised, state.idle)
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_split_holds_until_it_is_idle_or_ended() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let start = Moment::now();
        let strategy = Watermarks::out_of_order(Duration::from_micros(10)).idle_after(SECOND);
        let mut splits = SplitWatermarks::new(strategy, &[a.clone(), b.clone()], start);
        assert_eq!(read(&mut splits, &a, 100), None, "b has said nothing");
        assert_eq!(read(&mut splits, &b, 50), Some(at(40)));
        assert_eq!(read(&mut splits, &b, 30), None, "an older row does not pull it back");
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
        let fresh = || SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), &names, Moment::now());
        let mut splits = fresh();
        let states =
            [state("a", Some(70), false, false), state("b", Some(50), true, false), state("c", Some(9), false, true)];
        assert_eq!(splits.restore(&states).last(), Some(&at(70)), "b is idle and c has ended: a decides");
        assert_eq!(splits.before_rows(&names[1], Moment::now()), None, "b wakes, and nothing goes back");
        assert_eq!(read(&mut splits, &names[1], 80), None);
        assert_eq!(saved(&splits, &names[1]), (Some(80), None, false));
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
        let states = [state("a", Some(70), false, false), state("b", Some(50), true, false)];
        assert_eq!(splits.restore(&states), [at(50)]);
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
        read(&mut splits, &a, 7);
        assert_eq!(splits.ended(&b), Some(at(7)));
        assert_eq!(splits.ended(&a), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_split_that_appears_holds_until_it_speaks_is_idle_or_ends() {
        let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
        let start = Moment::now();
        let mut splits =
            SplitWatermarks::new(Watermarks::in_order().idle_after(SECOND), std::slice::from_ref(&a), start);
        assert_eq!(read(&mut splits, &a, 70), Some(at(70)));
        assert_eq!(splits.add(std::slice::from_ref(&b), start.after(SECOND / 2)), None);
        assert_eq!(read(&mut splits, &a, 80), None, "b has promised nothing");
        assert_eq!(read(&mut splits, &b, 60), None, "nothing goes back");
        assert_eq!(read(&mut splits, &b, 75), Some(at(75)));
        assert_eq!(saved(&splits, &b), (Some(75), None, false));
        splits.before_rows(&a, start.after(3 * SECOND));
        assert_eq!(splits.mark_idle(start.after(3 * SECOND)), [at(80)], "b is silent");
        assert_eq!(splits.mark_idle(start.after(4 * SECOND)), [Watermark::Idle]);
        assert_eq!(splits.add(std::slice::from_ref(&c), start.after(4 * SECOND)), Some(at(80)), "awake");
        assert_eq!(splits.next_idle(), Some(start.after(5 * SECOND)), "counted from then");
        assert_eq!(splits.mark_idle(start.after(5 * SECOND)), [Watermark::Idle]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_split_that_appears_when_all_have_ended_goes_on_alone() {
        let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
        let mut splits = SplitWatermarks::new(Watermarks::in_order(), &[a.clone(), b.clone()], Moment::now());
        read(&mut splits, &b, 7);
        assert_eq!((splits.ended(&a), splits.ended(&b)), (Some(at(7)), None));
        assert_eq!(splits.add(&[], Moment::now()), None, "that is not the end");
        assert_eq!(splits.add(std::slice::from_ref(&c), Moment::now()), None);
        assert_eq!(read(&mut splits, &c, 9), Some(at(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_from_the_future_moves_nothing_unless_all_are() {
        let a = SplitId::new("a");
        let strategy = Watermarks::out_of_order(Duration::from_micros(10)).max_future(SECOND);
        let mut splits = SplitWatermarks::new(strategy, std::slice::from_ref(&a), Moment::now());
        let most = Some(1_000);
        assert_eq!(batch(&mut splits, &a, &[500, i64::MAX >> 2, 400], most), Some(at(490)));
        assert_eq!(saved(&splits, &a), (Some(500), None, false), "nor after a restore");
        assert_eq!(batch(&mut splits, &a, &[1_000], most), Some(at(990)), "that far it may be");
        assert_eq!(batch(&mut splits, &a, &[2_000, 3_000], Some(1_500)), Some(at(1_490)), "all are: as far as that");
        assert_eq!(batch(&mut splits, &a, &[5_000], Some(1_400)), None, "never backwards");
        let rows = RecordBatch::try_from_iter([("at", Timestamp::column(vec![1, 7, 8, 9]))]).unwrap();
        assert_eq!(splits.judge(&a, &rows, &[1, 7, 8, 9], 9, Some(7)).1, 2, "they are counted");
    }

    /// Says the times it is told, whatever they are, and remembers what it was restored with.
    struct Parrot(Vec<i64>);

    impl WatermarkGenerator for Parrot {
        fn after_rows(&mut self, _: &RecordBatch, times: &[i64]) -> Option<Timestamp> {
            self.0.extend(times);
            times.last().filter(|time| **time != 0).map(|time| Timestamp::from_micros(*time))
        }

        fn restore(&mut self, latest: Timestamp) {
            self.0 = vec![latest.micros()];
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_generator_neither_goes_backwards_nor_ends_time() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let fresh = || {
            let strategy = Watermarks::custom(|| Parrot(Vec::new()));
            SplitWatermarks::new(strategy, &[a.clone(), b.clone()], Moment::now())
        };
        let mut splits = fresh();
        assert_eq!(batch(&mut splits, &a, &[9, 7], None), None, "b has said nothing");
        assert_eq!(batch(&mut splits, &b, &[90, 50], None), Some(at(7)), "each split has its own");
        assert_eq!(batch(&mut splits, &a, &[60, 0], None), None, "it has nothing to say");
        assert_eq!(batch(&mut splits, &a, &[1], None), None, "not backwards");
        assert_eq!(saved(&splits, &a), (Some(60), Some(7), false));
        assert_eq!(batch(&mut splits, &a, &[i64::MAX], None), Some(at(50)), "that is not the end of a");
        assert_eq!(batch(&mut splits, &b, &[i64::MAX], None), Some(Watermark::At(LATEST)));
        assert_eq!(batch(&mut splits, &b, &[i64::MIN], None), None);

        let mut splits = fresh();
        let states = [SplitState { promised: Some(7), ..state("a", Some(60), false, false) }, {
            SplitState { promised: Some(50), ..state("b", Some(90), false, false) }
        }];
        assert_eq!(splits.restore(&states), [at(7)], "what it had said, and not what its rows say");
        assert_eq!(batch(&mut splits, &a, &[6], None), None, "not backwards after a restore either");
        assert_eq!(batch(&mut splits, &a, &[8], None), Some(at(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn splits_follow_the_clock_and_do_not_go_back_with_it() {
        let [a, b] = [SplitId::new("a"), SplitId::new("b")];
        let mut splits = SplitWatermarks::new(Watermarks::clock(), &[a.clone(), b.clone()], Moment::now());
        assert_eq!(splits.follow(Timestamp::from_micros(5)), Some(at(5)));
        assert_eq!(splits.follow(Timestamp::from_micros(3)), None);
        assert_eq!(read(&mut splits, &a, 6), None, "rows say nothing that the clock does not");
        assert_eq!((saved(&splits, &a), saved(&splits, &b)), ((Some(6), None, false), (Some(5), None, false)));
        splits.ended(&a);
        assert_eq!(splits.follow(Timestamp::from_micros(9)), Some(at(9)));
        let mut splits = SplitWatermarks::new(Watermarks::clock(), &[a, b], Moment::now());
        let states = [state("a", Some(9), false, false), state("b", Some(7), false, false)];
        assert_eq!(splits.restore(&states), [at(7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_far_ahead_is_paused_and_not_idle() {
        let [a, b, c] = ["a", "b", "c"].map(SplitId::new);
        let start = Moment::now();
        let strategy = || Watermarks::in_order().idle_after(SECOND).align_within(SECOND);
        let mut splits = SplitWatermarks::new(strategy(), &[a.clone(), b.clone(), c.clone()], start);
        let slowest = |time: i64, split: Option<&SplitId>| {
            Some(Slowest { time: Timestamp::from_micros(time), split: split.cloned() })
        };
        assert_eq!(splits.slowest(), slowest(i64::MIN, None), "nobody has promised anything");
        read(&mut splits, &a, 100);
        assert_eq!(splits.slowest(), slowest(100, Some(&a)), "b and c may be read after it");
        read(&mut splits, &b, 20);
        let limit = |time| Some(Timestamp::from_micros(time));
        assert!(splits.pause_beyond(limit(30), false, start));
        assert!(!splits.pause_beyond(limit(40), false, start), "nothing new");
        assert_eq!((splits.paused(), splits.resumes_at()), (vec![a.clone()], limit(100)));
        // a is paused; b and c are silent.
        splits.mark_idle(start.after(SECOND));
        assert_eq!([&a, &b, &c].map(|split| saved(&splits, split).2), [false, true, true]);
        assert_eq!(splits.next_idle(), None);
        assert_eq!(splits.slowest(), slowest(100, Some(&a)), "idle ones hold nobody");
        assert!(splits.pause_beyond(None, false, start.after(2 * SECOND)));
        assert_eq!(splits.next_idle(), Some(start.after(3 * SECOND)), "its silence begins when it can speak again");

        let mut splits = SplitWatermarks::new(strategy(), &[a.clone(), b.clone(), c.clone()], start);
        read(&mut splits, &a, 100);
        read(&mut splits, &b, 20);
        assert!(!splits.pause_beyond(limit(30), true, start), "b is not ahead, and only all can be paused");
        assert!(splits.pause_beyond(limit(10), true, start));
        assert_eq!((splits.paused(), splits.resumes_at()), (vec![a.clone(), b.clone(), c], limit(20)));
        splits.ended(&b);
        assert_eq!(splits.slowest(), slowest(100, Some(&a)));
    }
}
