//! Watermarks per split: who has delivered what, who is idle, who waits, what the task as a whole may promise.
//!
//! ```text
//!   rows ──► latest ──► bound or generator ──► watermark of the split ──┬─► merged: what the task says
//!              └ not beyond max_future              never backwards      └─► the least: what it tells the other tasks
//! ```
//!
//! A split that appears while the others are read holds the watermark where it is until it speaks, or falls idle, counted from
//! then. The watermark does not go back: the first rows of such a split are late if they are behind it.
//!
//! The same is true of a split that was idle when its job was saved. The others went on without it, and what was said then is said
//! again; but what it was silent about since nobody knows, so it is waited for as any other.
//!
//! ```text
//!   before      a: 70       b: 50, idle      said: 70
//!   restored    a: 70       b: 50            said: 70, and nothing more until b has come there, or is idle
//! ```
//!
//! A split of which records wait is not idle, it is behind: perhaps they cannot be read for now. So is one that cannot be read at all,
//! unless it has none: it would find event time far ahead, and all that it has late.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

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
    /// When it last delivered something, and how long the task had waited for others until then.
    active_at: (Moment, Duration),
    idle: bool,
    ended: bool,
    /// It is not read until others have caught up.
    paused: bool,
    /// Records of it wait to be read, as far as is known.
    behind: bool,
    /// It cannot be read, and perhaps records of it wait.
    put_off: bool,
}

impl Split {
    fn new(id: &SplitId, watermarks: &Watermarks, active_at: (Moment, Duration)) -> Self {
        let generator = match &watermarks.strategy {
            Strategy::Custom(generator) => Some(generator()),
            Strategy::OutOfOrder(_) | Strategy::Clock => None,
        };
        Self {
            id: id.clone(),
            latest: None,
            promised: None,
            generator,
            active_at,
            idle: false,
            ended: false,
            paused: false,
            behind: false,
            put_off: false,
        }
    }

    /// Whether it may fall idle. A split that is not read has no chance to speak.
    fn may_idle(&self) -> bool {
        self.is_active() && !self.paused && !self.behind && !self.put_off
    }

    /// When its silence began, which is none of the time that the task has waited for others: `excused` in all.
    fn silent_since(&self, excused: Duration) -> Moment {
        let (active_at, before) = self.active_at;
        active_at.after(excused.saturating_sub(before))
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

/// What there is to see of a split.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub(crate) latest: Option<i64>,
    pub(crate) promised: Option<i64>,
    pub(crate) idle: bool,
    pub(crate) paused: bool,
}

/// The splits of one source task.
pub(crate) struct SplitWatermarks {
    watermarks: Watermarks,
    index: HashMap<SplitId, usize>,
    splits: Vec<Split>,
    merge: WatermarkMerge,
    /// Where the least of the paused splits is.
    resumes_at: Option<Timestamp>,
    /// How long the task has waited for others. One number for all splits: it grows with every fetch.
    excused: Duration,
}

impl SplitWatermarks {
    pub(crate) fn new(watermarks: Watermarks, splits: &[SplitId], now: Moment) -> Self {
        Self {
            index: splits.iter().cloned().zip(0..).collect(),
            splits: splits.iter().map(|id| Split::new(id, &watermarks, (now, Duration::ZERO))).collect(),
            merge: WatermarkMerge::new(splits.len()),
            resumes_at: None,
            excused: Duration::ZERO,
            watermarks,
        }
    }

    /// Continues where the splits of a checkpoint stood; all tasks of the source together had come as far as `said`. What is
    /// returned must be said before anything else: what had been said before the task was restored, neither more nor less.
    ///
    /// What a split was idle about then it is not idle about now: it counts as active, and so it is said.
    pub(crate) fn restore(&mut self, states: &[SplitState], said: Option<Timestamp>) -> Vec<Watermark> {
        let mut said: Vec<_> = said.and_then(|said| self.merge.restore(said)).into_iter().collect();
        let mut idle = Vec::new();
        for state in states {
            let Some(&index) = self.index.get(&SplitId::new(state.split.as_str())) else { continue };
            if let Some(latest) = known_latest(state) {
                let split = &mut self.splits[index];
                split.latest = Some(latest);
                if let Some(generator) = &mut split.generator {
                    generator.restore(Timestamp::from_micros(latest));
                }
                let promised = promised(&self.watermarks.strategy, state);
                said.extend(promised.and_then(|promised| self.promise(index, promised)));
            }
            if state.ended {
                said.extend(self.end(index));
            } else if was_idle(&self.watermarks, state) {
                idle.push(index);
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        if mutated("restored splits are idle at once") {
            idle.drain(..).for_each(|index| self.splits[index].idle = true);
        }
        if !idle.is_empty() {
            said.extend(idle.into_iter().filter_map(|index| self.merge.wake(index)));
            // Who merges this task with others must not go on without it, not even for a moment.
            said.retain(|said| *said != Watermark::Idle);
            said.dedup();
        }
        said
    }

    /// Splits that have appeared since. What is returned must be said before their rows.
    pub(crate) fn add(&mut self, splits: &[SplitId], now: Moment) -> Option<Watermark> {
        let mut said = None;
        for id in splits {
            self.index.insert(id.clone(), self.splits.len());
            self.splits.push(Split::new(id, &self.watermarks, (now, self.excused)));
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
        self.splits[index].active_at = (now, self.excused);
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

    /// The rows of `split` for which it promises this are told. What is returned must be said after them.
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
            if split.may_idle() && now.since(split.silent_since(self.excused)) >= span {
                split.idle = true;
                said.extend(self.merge.observe(index, Watermark::Idle));
            }
        }
        said.extend(std::iter::from_fn(|| self.merge.poll()));
        said
    }

    /// How many records of splits wait to be read, as far as is known. Who has some is behind, and neither idle nor about to be: its
    /// silence counts from when none wait any more. What is returned must be said.
    pub(crate) fn lag(&mut self, lag: &[(SplitId, u64)], now: Moment) -> Vec<Watermark> {
        self.splits.iter_mut().for_each(|split| split.behind = false);
        let mut said = Vec::new();
        for (id, _) in lag.iter().filter(|(_, waiting)| *waiting > 0) {
            let Some(&index) = self.index.get(id) else { continue };
            let split = &mut self.splits[index];
            (split.behind, split.idle, split.active_at) = (true, false, (now, self.excused));
            said.extend(self.merge.wake(index));
        }
        said
    }

    /// Which splits cannot be read at all for now, and perhaps have records: they are not idle either. The silence of others that could
    /// not counts from now.
    pub(crate) fn put_off(&mut self, splits: &[SplitId], now: Moment) {
        let splits: HashSet<&SplitId> = splits.iter().collect();
        for split in &mut self.splits {
            let put_off = splits.contains(&split.id);
            if std::mem::replace(&mut split.put_off, put_off) && !put_off {
                split.active_at = (now, self.excused);
            }
        }
    }

    /// When the next split will be idle unless it delivers something.
    pub(crate) fn next_idle(&self) -> Option<Moment> {
        let span = self.watermarks.idle_after?;
        let waiting = self.splits.iter().filter(|split| split.may_idle());
        waiting.map(|split| split.silent_since(self.excused).after(span)).min()
    }

    /// Reading begins: what was before is not the silence of a split.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.splits.iter_mut().for_each(|split| split.active_at = (now, self.excused));
    }

    /// The task could not read for `span` because it waited for others: that is not the silence of a split.
    pub(crate) fn excuse(&mut self, span: Duration) {
        self.excused += span;
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
    /// and otherwise none, where they can only be paused all at once. Returns whether that changes anything.
    pub(crate) fn pause_beyond(&mut self, limit: Option<Timestamp>, all_or_none: bool, now: Moment) -> bool {
        let slowest = if all_or_none { self.slowest() } else { None };
        let mut changed = false;
        self.resumes_at = None;
        for split in &mut self.splits {
            let paused = limit.is_some_and(|limit| match all_or_none {
                true => !split.ended && slowest.as_ref().is_some_and(|slowest| slowest.time > limit),
                false => split.is_beyond(limit),
            });
            if split.paused && !paused {
                split.active_at = (now, self.excused);
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

    /// How far a split is, for who watches.
    pub(crate) fn look(&self, split: &SplitId) -> Option<Look> {
        let Split { latest, promised, idle, paused, .. } = self.splits.get(*self.index.get(split)?)?;
        Some(Look { latest: *latest, promised: promised.map(Timestamp::micros), idle: *idle, paused: *paused })
    }

    /// The splits that are not to be read for now.
    pub(crate) fn paused(&self) -> Vec<SplitId> {
        self.splits.iter().filter(|split| split.paused).map(|split| split.id.clone()).collect()
    }
}

/// How far all tasks of a source together had come when its splits were saved; `None` if they had said nothing, or if all splits
/// had ended.
pub(crate) fn said(watermarks: &Watermarks, states: &[SplitState]) -> Option<Timestamp> {
    let mut merge = WatermarkMerge::new(states.len());
    for (index, state) in states.iter().enumerate() {
        if let Some(promised) = known_latest(state).and_then(|_| promised(&watermarks.strategy, state)) {
            merge.observe(index, Watermark::At(promised.min(LATEST)));
        }
        if state.ended {
            merge.observe(index, Watermark::At(Timestamp::MAX));
        } else if was_idle(watermarks, state) {
            merge.observe(index, Watermark::Idle);
        }
    }
    Some(merge.time()).filter(|said| *said > Timestamp::MIN && *said < Timestamp::MAX)
}

/// The latest row of a split that was saved.
fn known_latest(state: &SplitState) -> Option<i64> {
    state.latest.filter(|_| !mutated("the watermarks of splits are not restored"))
}

/// The watermark of a split that was saved and has a latest row.
fn promised(strategy: &Strategy, state: &SplitState) -> Option<Timestamp> {
    let latest = state.latest.map(Timestamp::from_micros);
    match strategy {
        Strategy::OutOfOrder(bound) => latest.map(|latest| latest.saturating_sub(*bound)),
        Strategy::Custom(_) => state.promised.map(Timestamp::from_micros),
        Strategy::Clock => latest,
    }
}

/// Whether the others had gone on without a split that was saved.
fn was_idle(watermarks: &Watermarks, state: &SplitState) -> bool {
    state.idle && watermarks.idle_after.is_some() && !mutated("the idleness of splits is not restored")
}

#[cfg(test)]
mod tests;
