//! Event time in a source task: where it comes from, and when its splits have to say something without rows.
//!
//! ```text
//!   rows ──► EventTimeReader ──► SplitWatermarks ──► the watermark of the task
//!                  ▲ stamps             ▲ follows, every 200 ms
//!   clock ─────────┴────────────────────┘              in processing time
//!                  └─ how far is the future ──► SplitWatermarks
//! ```

use std::{borrow::Cow, time::Duration};

use arrow::array::RecordBatch;
use windrow_connectors::{Origins, Rejected, SplitId};
use windrow_operators::{OperatorError, Result, Timestamp, Watermark, time::event_times};

use super::{
    EventTimeReader,
    align::{Aligned, Hold},
    splits::SplitWatermarks,
};
use crate::{
    Watermarks,
    clock::{Moment, ProcessingTime},
    event_time::Strategy,
};

/// How often the watermark follows the clock in processing time.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

pub(crate) struct SourceTime {
    reader: EventTimeReader,
    pub(crate) splits: SplitWatermarks,
    clock: ProcessingTime,
    max_future: Option<Duration>,
    /// Whether the rows are shown to a generator of the user's.
    custom: bool,
    /// When the watermark follows the clock next; only in processing time.
    follow_at: Option<Moment>,
    /// Processing time does not go back behind what a checkpoint has seen of it.
    floor: Timestamp,
    aligned: Option<Aligned>,
}

/// What the rows of a fetch say about time.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) latest: Option<i64>,
    /// The watermark of their split, once they are told.
    pub(crate) promised: Option<Timestamp>,
    /// How many rows are too far in the future.
    pub(crate) future: u64,
}

impl SourceTime {
    /// `floor` is the latest time that any split of the source has seen.
    pub(crate) fn new(
        reader: EventTimeReader,
        watermarks: &Watermarks,
        splits: SplitWatermarks,
        clock: ProcessingTime,
        floor: Option<Timestamp>,
    ) -> Self {
        Self {
            reader,
            splits,
            clock,
            max_future: watermarks.max_future,
            custom: matches!(watermarks.strategy, Strategy::Custom(_)),
            follow_at: matches!(watermarks.strategy, Strategy::Clock).then(Moment::now),
            floor: floor.unwrap_or(Timestamp::MIN),
            aligned: None,
        }
    }

    /// Where the event time of its rows is.
    pub(crate) fn column(&self) -> Option<usize> {
        self.reader.output().time()
    }

    pub(crate) fn align_with(&mut self, aligned: Aligned) {
        self.aligned = Some(aligned);
    }

    /// Whether time comes from the rows: it does not go on without them, as that of the clock does.
    pub(crate) fn is_of_rows(&self) -> bool {
        self.follow_at.is_none()
    }

    /// The source is read from now on; it may have been restored for long.
    pub(crate) fn begin(&mut self) {
        self.splits.begin(Moment::now());
    }

    /// The rows that have event time, and what they say; the others are rejected, as the records they were if that is known.
    pub(crate) fn read(
        &mut self,
        split: &SplitId,
        batch: RecordBatch,
        origins: Option<&Origins>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(RecordBatch, Heard)> {
        let (batch, latest) = match self.follow_at {
            Some(_) => self.reader.stamp(&batch, self.now())?,
            None => self.reader.read(batch, origins, rejected)?,
        };
        let Some(latest) = latest else { return Ok((batch, Heard::default())) };
        let output = self.reader.output();
        let times = output.time().and_then(|column| event_times(&batch, column));
        let times = times.ok_or_else(|| OperatorError::Internal("rows of a source without event time".into()))?;
        let rows = if self.custom { Cow::Owned(output.show(&batch)?) } else { Cow::Borrowed(&batch) };
        let most = self.max_future.map(|span| self.clock.now().saturating_add(span).micros());
        let (promised, future) = self.splits.judge(split, &rows, times, latest, most);
        Ok((batch, Heard { latest: Some(latest), promised, future }))
    }

    fn now(&self) -> Timestamp {
        self.clock.now().max(self.floor)
    }

    /// When [`SourceTime::speak`] has to be called if nothing comes before.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.splits.next_idle().into_iter().chain(self.follow_at).min()
    }

    /// What is to be said because of the time that has passed.
    pub(crate) fn speak(&mut self) -> Vec<Watermark> {
        let now = Moment::now();
        let mut said = self.splits.mark_idle(now);
        if self.follow_at.is_some_and(|at| at <= now) {
            self.follow_at = Some(now.after(FOLLOW_EVERY));
            said.extend(self.splits.follow(self.now()));
        }
        said
    }

    /// Tells the other tasks how far this one is, and hears which splits are too far ahead of theirs. `all_or_none`: they can
    /// only be paused all at once. Returns the splits that are not to be read and why, if they are others than before.
    pub(crate) fn align(&mut self, all_or_none: bool) -> Option<(Vec<SplitId>, Hold)> {
        let aligned = self.aligned.as_mut()?;
        aligned.tell(self.splits.slowest());
        let changed = self.splits.pause_beyond(aligned.hold().limit(), all_or_none, Moment::now());
        changed.then(|| (self.splits.paused(), aligned.hold().clone()))
    }

    /// Waits until a split that is paused may be read again.
    pub(crate) async fn may_resume(&mut self) {
        match (&mut self.aligned, self.splits.resumes_at()) {
            (Some(aligned), Some(time)) => aligned.allows(time).await,
            _ => std::future::pending().await,
        }
    }

    /// This task holds the others no more.
    pub(crate) fn leave(&mut self) {
        if let Some(aligned) = &mut self.aligned {
            aligned.tell(None);
        }
    }
}
