//! What source tasks tell of their splits, for who watches.
//!
//! ```text
//!   source task ── each fetch: the split it was of ──► SplitGauge ──┐
//!               └─ about once a second, and when                    ├──► SplitTable of the source ──► status
//!                  something changes: all ────────► SplitGauge ─────┘
//! ```

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use windrow_connectors::SplitId;

use crate::{clock::Moment, runtime::align::Hold, status::SplitState};

/// So many splits of a source are told of at the most: who looks needs no more, and looking must not take long.
const MOST: usize = 10_000;

/// A split, as its task has told of it last.
#[derive(Debug)]
pub(crate) struct SplitGauge {
    pub(crate) split: SplitId,
    pub(crate) task: usize,
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
    /// When the last of them came.
    pub(crate) rows_at: Option<Moment>,
}

impl Told {
    /// It is in this state now; since when, if it was in another before.
    pub(crate) fn becomes(&mut self, state: SplitState, why: Option<String>, hold: Option<Hold>, now: Moment) {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.why, self.hold) = (state, why, hold);
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
pub(crate) struct SplitTable {
    gauges: Mutex<Vec<Arc<SplitGauge>>>,
    /// How many are not among them.
    left_out: AtomicU64,
}

impl SplitTable {
    fn gauges(&self) -> MutexGuard<'_, Vec<Arc<SplitGauge>>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A split that a task is to read; `None` when there are too many already.
    pub(crate) fn add(&self, split: &SplitId, task: usize, now: Moment) -> Option<Arc<SplitGauge>> {
        let mut gauges = self.gauges();
        if gauges.len() >= MOST {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
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
            rows_at: None,
        };
        let gauge = Arc::new(SplitGauge { split: split.clone(), task, told: Mutex::new(told) });
        gauges.push(gauge.clone());
        Some(gauge)
    }

    /// All that there are, and how many are not among them.
    pub(crate) fn read(&self) -> (Vec<Arc<SplitGauge>>, u64) {
        (self.gauges().clone(), self.left_out.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_not_more_than_one_can_look_at() {
        let table = SplitTable::default();
        let added = (0..MOST + 5).filter_map(|split| table.add(&SplitId::new(split.to_string()), 0, Moment::now()));
        assert_eq!(added.count(), MOST);
        let (gauges, left_out) = table.read();
        assert_eq!((gauges.len(), left_out), (MOST, 5));
    }
}
