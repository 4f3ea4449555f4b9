//! Splits that appear while a task reads, and those that its reader cannot read yet.
//!
//! ```text
//!   Found ──► all at once ──► SourceReader::add ──► those that it can read now are read
//!     ▲                             └── put_off: the others, after 5 to 60 s, with a warning ──┐
//!     └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! So one of which nobody can say where it begins keeps neither its task nor the other new ones from being read. The same is done
//! with those that were there when the job began. Event time does not go on without them.

use std::{
    collections::{BTreeSet, HashSet},
    ops::RangeInclusive,
    time::Duration,
};

use async_trait::async_trait;
use windrow_connectors::{Fetch, SourceReader, SplitId};

use super::{Progress, SourceTask, SourceTime, note_begins};
use crate::{
    Result,
    clock::{Moment, sleep_until},
    metrics::Warner,
};

/// When the reader cannot read a split yet, how long until it is asked again at first, and at last.
const ASK_AGAIN: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);

/// The splits that a reader cannot read yet.
#[derive(Default)]
pub(crate) struct Waiting {
    splits: BTreeSet<SplitId>,
    /// Since when it is these.
    since: Option<Moment>,
    /// When they are given to it again.
    again: Option<Moment>,
}

impl Waiting {
    /// It is these now. For as long as they have waited, they wait once more.
    fn are(&mut self, splits: BTreeSet<SplitId>, now: Moment) {
        let former = std::mem::take(self);
        let (since, due) = if splits == former.splits { (former.since, former.again) } else { (None, None) };
        let since = since.unwrap_or(now);
        let again = due.unwrap_or_else(|| now.after(now.since(since).clamp(*ASK_AGAIN.start(), *ASK_AGAIN.end())));
        let again = Some(again).filter(|_| !splits.is_empty());
        *self = Self { splits, since: Some(since), again };
    }

    /// Waits until the reader is to be asked again, for all of them. Cancel-safe.
    pub(super) async fn due_again(&mut self) -> Vec<SplitId> {
        sleep_until(self.again).await;
        self.take()
    }

    /// All of them, to be given to the reader now.
    pub(super) fn take(&mut self) -> Vec<SplitId> {
        self.again = None;
        self.splits.iter().cloned().collect()
    }
}

impl SourceTask {
    /// Notes which splits the reader cannot read yet, with a warning. Event time waits for those that perhaps have records.
    pub(super) fn put_off(&mut self) {
        let (put_off, now) = (self.reader.put_off(), Moment::now());
        let behind: Vec<SplitId> = put_off.iter().filter(|one| one.behind).map(|one| one.split.clone()).collect();
        if let Some(time) = &mut self.time {
            time.splits.put_off(&behind, now);
        }
        let of_rows = self.time.as_ref().is_some_and(SourceTime::is_of_rows);
        let holds = if of_rows && !behind.is_empty() { ", holds event time back, and is" } else { ", and" };
        let warning = put_off.first().map(|first| {
            let splits = if put_off.len() == 1 { "split is" } else { "splits are" };
            format!("{} {splits} not read yet{holds} asked for again: {}", put_off.len(), first.reason)
        });
        self.counters.warn(Warner::Task(self.reporter.task.task), warning);
        self.shown.put_off = put_off.iter().map(|one| (one.split.clone(), one.reason.clone())).collect();
        self.show_splits();
        self.put_off.are(put_off.into_iter().map(|one| one.split).collect(), now);
    }

    /// Reads these splits, too, and puts those off that its reader cannot read now.
    pub(super) async fn take_found(&mut self, found: Vec<SplitId>) -> Result<()> {
        let waiting = self.waiting();
        let is_to_be_read = |split: &SplitId| waiting.contains(split) || !self.splits.contains_key(split);
        let splits: Vec<SplitId> = found.into_iter().filter(is_to_be_read).collect();
        let began = Moment::now();
        let mut reader = std::mem::replace(&mut self.reader, Box::new(Busy));
        let added = {
            let mut adding = reader.add(splits.clone());
            loop {
                let wanted = tokio::select! {
                    biased;
                    // The next start finds them, as they are in no checkpoint; and the reader is not asked any more.
                    Ok(_) = self.stop.wait_for(|stop| *stop) => break None,
                    Ok(()) = self.barrier.changed() => *self.barrier.borrow_and_update(),
                    added = &mut adding => break Some(added),
                };
                if let Some(epoch) = wanted {
                    self.take_barrier(epoch).await?;
                }
            }
        };
        self.reader = reader;
        if let Some(time) = &mut self.time {
            time.splits.excuse(began.elapsed());
        }
        let Some(added) = added else { return Ok(()) };
        added.map_err(|error| self.source_failed(error))?;
        // Also those that it puts off: event time is to wait for them.
        let new: Vec<SplitId> = splits.into_iter().filter(|split| !self.splits.contains_key(split)).collect();
        self.splits.extend(new.iter().map(|split| (split.clone(), Progress::appeared())));
        if note_begins(&mut self.splits, &*self.reader) {
            self.decided.notify_one();
        }
        let said = self.time.as_mut().and_then(|time| time.splits.add(&new, Moment::now()));
        self.say(said).await?;
        self.excuse();
        self.ask_lag().await?;
        self.show_new(&new);
        self.put_off();
        Ok(())
    }

    /// Which splits the reader cannot read yet.
    fn waiting(&self) -> HashSet<SplitId> {
        self.reader.put_off().into_iter().map(|put_off| put_off.split).collect()
    }
}

/// Stands in for a reader that is adding splits.
struct Busy;

#[async_trait]
impl SourceReader for Busy {
    async fn fetch(&mut self) -> windrow_connectors::Result<Fetch> {
        std::future::pending().await
    }
}
