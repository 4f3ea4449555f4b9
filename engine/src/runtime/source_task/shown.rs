//! What a source task shows of its splits to who watches: [`SplitTable`](crate::metrics::splits::SplitTable).
//!
//! The split of a fetch is shown with it; all of them about once a second, and when something changes that is no row.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::RecordBatch;
use futures::future::poll_fn;
use windrow_connectors::{Rejected, SplitId};
use windrow_operators::bytes::bytes_of;

use super::{Heard, SourceTask};
use crate::{
    clock::Moment,
    metrics::{TaskCounters, meter::Meter, splits::SplitGauge},
    runtime::{align::Hold, channel::SizedBatch},
    status::SplitState,
};

/// What is shown of the splits, beyond how far they are.
#[derive(Default)]
pub(crate) struct Shown {
    /// Of those that have not ended; `None` for a split that is one too many to be shown.
    gauges: HashMap<SplitId, Option<Arc<SplitGauge>>>,
    /// Which the reader cannot read yet, and why.
    pub(super) put_off: HashMap<SplitId, String>,
    /// How many records wait, as far as is known.
    pub(super) lag: HashMap<SplitId, u64>,
    /// Whom those wait for that are paused.
    pub(super) hold: Option<Hold>,
}

impl SourceTask {
    pub(super) fn counted(&self) -> &TaskCounters {
        self.counters.task(self.reporter.task.task)
    }

    /// So many more records of a split have been read, of so many bytes, and this is where it stands now.
    pub(super) fn show_moved(&mut self, split: &SplitId, records: u64, bytes: u64, position: u64) {
        self.counted().bytes_read.fetch_add(bytes, Relaxed);
        if let Some(gauge) = self.gauge(split) {
            let mut told = gauge.told();
            told.rows += records;
            told.bytes += bytes;
            told.position = Some(position);
        }
    }

    /// Rows of a split have been taken, decoded or not, that came at `now`.
    pub(super) fn show_rows(&mut self, split: &SplitId, heard: &Heard, now: Moment) {
        let Some(gauge) = self.gauge(split) else { return };
        let mut told = gauge.told();
        told.rows_at = Some(now);
        told.latest = told.latest.max(heard.latest);
        told.watermark = told.watermark.max(heard.promised.map(|promised| promised.micros()));
        if told.state == SplitState::Idle {
            told.becomes(SplitState::Reading, None, None, now);
        }
    }

    /// A split has ended.
    pub(super) fn show_end(&mut self, split: &SplitId) {
        if let Some(Some(gauge)) = self.shown.gauges.remove(split) {
            self.counters.splits.end(&gauge, Moment::now());
        }
    }

    /// The splits with which it begins, or that it has got since; those that ended before are shown once.
    pub(super) fn show_new(&mut self, new: &[SplitId]) {
        let (now, task) = (Moment::now(), self.reporter.task.task);
        self.counters.splits.knows(new.len());
        for split in new {
            let gauge = self.counters.splits.add(split, task, now);
            self.shown.gauges.insert(split.clone(), gauge);
        }
    }

    /// All splits that have not ended, as they are.
    pub(super) fn show_splits(&mut self) {
        let now = Moment::now();
        let Self { splits, shown, time, counters, reporter, .. } = self;
        let Shown { gauges, put_off, lag, hold } = shown;
        gauges.retain(|split, gauge| {
            let Some(progress) = splits.get(split) else { return false };
            // Another may have ended since.
            let gauge = match gauge {
                Some(gauge) => gauge,
                None => match counters.splits.add(split, reporter.task.task, now) {
                    Some(found) => gauge.insert(found),
                    None => return !progress.ended,
                },
            };
            let look = time.as_ref().and_then(|time| time.splits.look(split)).unwrap_or_default();
            let (state, why, hold) = match put_off.get(split) {
                Some(reason) => (SplitState::PutOff, Some(reason.as_str()), None),
                None if look.paused => (SplitState::Paused, None, hold.clone()),
                None if look.idle => (SplitState::Idle, None, None),
                None => (SplitState::Reading, None, None),
            };
            let mut told = gauge.told();
            (told.latest, told.watermark) = (look.latest, look.promised);
            told.position = progress.position.map(|position| position.0);
            if progress.ended {
                drop(told);
                counters.splits.end(gauge, now);
            } else {
                told.becomes(state, why, hold, now);
                told.lag = lag.get(split).copied();
            }
            !progress.ended
        });
    }

    /// Of a split that has not ended.
    fn gauge(&self, split: &SplitId) -> Option<&SplitGauge> {
        self.shown.gauges.get(split)?.as_deref()
    }
}

/// The bytes of a fetch: of its rows as the reader delivered them, and of the records that did not decode.
pub(super) struct BytesRead {
    rows: usize,
    columns: usize,
    of_rows: usize,
    of_rejected: usize,
}

impl BytesRead {
    pub(super) fn of(batch: &RecordBatch, rejected: &[Rejected]) -> Self {
        let of_rejected = rejected.iter().filter_map(|record| Some(record.bytes.as_ref()?.len())).sum();
        let of_rows = bytes_of(batch.columns());
        Self { rows: batch.num_rows(), columns: batch.num_columns(), of_rows, of_rejected }
    }

    pub(super) fn all(&self) -> u64 {
        (self.of_rows + self.of_rejected) as u64
    }

    /// The rows as they go on, with event time in a column behind the others perhaps: counted again only when some were taken out.
    pub(super) fn known(&self, batch: RecordBatch) -> SizedBatch {
        match batch.columns().get(self.columns..) {
            Some(more) if batch.num_rows() == self.rows => {
                let bytes = self.of_rows + bytes_of(more);
                SizedBatch::of(batch, bytes)
            }
            _ => batch.into(),
        }
    }
}

/// Counts the time in which `work` is at it, and not that in which it waits.
pub(super) async fn at_work<T>(busy: &Meter, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let _busy = busy.running();
        work.as_mut().poll(cx)
    })
    .await
}
