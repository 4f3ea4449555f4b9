//! What source tasks tell of their splits, for who watches.
//!
//! ```text
//!   source task ── each fetch: the split it was of ──► SplitGauge ──┐
//!               └─ about once a second, and when                    ├──► SplitTable of the source ──► status
//!                  something changes: all ────────► SplitGauge ─────┘
//! ```
//!
//! The table is bounded. When it is full a split that is read takes the place of one that has ended.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use windrow_connectors::SplitId;

use super::redact::redacted;
use crate::{clock::Moment, runtime::align::Hold, status::SplitState};

/// So many splits of a source are told of at the most: who looks needs no more, and looking must not take long.
const MOST: usize = 10_000;

/// A split, as its task has told of it last.
#[derive(Debug)]
pub(crate) struct SplitGauge {
    pub(crate) split: SplitId,
    pub(crate) task: usize,
    /// Where it is in the table.
    place: usize,
    told: Mutex<Told>,
}

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) state: SplitState,
    /// Why it is not read, in words, if it is put off.
    pub(crate) why: Option<String>,
    /// Whom it waits for, if it is paused. It says where those are now.
    pub(crate) hold: Option<Hold>,
    /// Since when it is in this state.
    pub(crate) since: Moment,
    pub(crate) watermark: Option<i64>,
    pub(crate) latest: Option<i64>,
    pub(crate) position: Option<u64>,
    pub(crate) lag: Option<u64>,
    /// Since the attempt began, decoded or not.
    pub(crate) rows: u64,
    /// How many bytes they had.
    pub(crate) bytes: u64,
    /// When the last of them came.
    pub(crate) rows_at: Option<Moment>,
}

impl Told {
    /// It is in this state now; since when, if it was in another before.
    pub(crate) fn becomes(&mut self, state: SplitState, why: Option<&str>, hold: Option<Hold>, now: Moment) {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.why, self.hold) = (state, why.map(redacted), hold);
    }
}

impl SplitGauge {
    /// Nobody has it for long.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The splits of a source.
#[derive(Debug, Default)]
pub(crate) struct SplitTable(Mutex<Gauges>);

#[derive(Debug, Default)]
struct Gauges {
    all: Vec<Arc<SplitGauge>>,
    /// The places of those that have ended.
    ended: VecDeque<usize>,
    /// How many splits there are, but for those that have ended and are not told of any more.
    known: usize,
}

impl SplitTable {
    fn gauges(&self) -> MutexGuard<'_, Gauges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source has so many more splits.
    pub(crate) fn knows(&self, more: usize) {
        self.gauges().known += more;
    }

    /// A split that a task is to read; `None` while there are too many others that have not ended.
    pub(crate) fn add(&self, split: &SplitId, task: usize, now: Moment) -> Option<Arc<SplitGauge>> {
        let mut gauges = self.gauges();
        let free = if gauges.all.len() < MOST { None } else { Some(gauges.ended.pop_front()?) };
        let told = Told {
            state: SplitState::Reading,
            why: None,
            hold: None,
            since: now,
            watermark: None,
            latest: None,
            position: None,
            lag: None,
            rows: 0,
            bytes: 0,
            rows_at: None,
        };
        let place = free.unwrap_or(gauges.all.len());
        let gauge = Arc::new(SplitGauge { split: split.clone(), task, place, told: Mutex::new(told) });
        match gauges.all.get_mut(place) {
            Some(ended) => {
                *ended = gauge.clone();
                gauges.known = gauges.known.saturating_sub(1);
            }
            None => gauges.all.push(gauge.clone()),
        }
        Some(gauge)
    }

    /// A split has ended: another may take its place. Said once.
    pub(crate) fn end(&self, gauge: &SplitGauge, now: Moment) {
        {
            let mut told = gauge.told();
            told.becomes(SplitState::Ended, None, None, now);
            told.lag = None;
        }
        self.gauges().ended.push_back(gauge.place);
    }

    /// Those that are told of, and how many are not among them.
    pub(crate) fn read(&self) -> (Vec<Arc<SplitGauge>>, u64) {
        let gauges = self.gauges();
        (gauges.all.clone(), gauges.known.saturating_sub(gauges.all.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_not_more_than_one_can_look_at_and_those_that_ended_make_room() {
        let table = SplitTable::default();
        let now = Moment::now();
        let add = |split: usize| table.add(&SplitId::new(split.to_string()), 0, now);
        table.knows(MOST + 5);
        let added: Vec<_> = (0..MOST + 5).filter_map(add).collect();
        let (gauges, left_out) = table.read();
        assert_eq!((added.len(), gauges.len(), left_out), (MOST, MOST, 5));
        [7, 3].into_iter().for_each(|ended| table.end(&added[ended], now));
        assert!([MOST, MOST + 1].into_iter().all(|split| add(split).is_some()) && add(MOST + 2).is_none());
        let (gauges, left_out) = table.read();
        assert_eq!((gauges.len(), left_out), (MOST, 3), "two have ended, and two of five took their places");
        let names: Vec<&str> = [7, 3, 8].map(|place: usize| gauges[place].split.as_str()).into();
        assert_eq!(names, ["10000", "10001", "8"]);
        assert!(gauges.iter().all(|gauge| gauge.told().state == SplitState::Reading));
    }
}
