//! Splits that appear while a task reads.
//!
//! ```text
//!   Found ──► all at once ──► the reader cannot take them now ──► each half by itself … ──► those that it takes are read
//!     ▲                                                                └── the others: after five seconds, with a warning ──┐
//!     └────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! So one of which nobody can say where it begins keeps neither its task nor the other new ones from being read.

use std::time::Duration;

use async_trait::async_trait;
use windrow_connectors::{ConnectorError, Fetch, SourceReader, SplitId};

use super::{Progress, SourceTask, note_begins};
use crate::{
    Result,
    clock::{Moment, sleep_until},
};

/// When the reader could not take a split that has appeared, how long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

impl SourceTask {
    /// Reads splits that have appeared, too, and puts those off that its reader cannot take now.
    pub(super) async fn take_found(&mut self, found: Vec<SplitId>) -> Result<()> {
        let (mut parts, mut left, mut reason) = (vec![found], Vec::new(), None);
        while let Some(mut part) = parts.pop() {
            match self.take_splits(&part).await? {
                Ok(()) => {}
                Err(error) if !matches!(error, ConnectorError::Remote { passes: true, .. }) => {
                    return Err(self.source_failed(error));
                }
                Err(_) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    left.append(&mut part);
                    reason = Some(error);
                }
            }
        }
        let Some(reason) = reason else {
            if self.has_put_off && self.put_off.is_none() {
                self.has_put_off = false;
                self.counters.warn(None);
            }
            return Ok(());
        };
        let (_, mut put_off) = self.put_off.take().unwrap_or_else(|| (Moment::now(), Vec::new()));
        put_off.append(&mut left);
        let warning = format!("{} new splits are not read yet, and asked for again: {reason}", put_off.len());
        self.counters.warn(Some(warning));
        (self.has_put_off, self.put_off) = (true, Some((Moment::now().after(ASK_AGAIN), put_off)));
        Ok(())
    }

    /// Reads splits that have appeared, too; or says why its reader cannot.
    pub(super) async fn take_splits(&mut self, splits: &[SplitId]) -> Result<Result<(), ConnectorError>> {
        let splits: Vec<_> = splits.iter().filter(|split| !self.splits.contains_key(split)).cloned().collect();
        let began = Moment::now();
        let mut reader = std::mem::replace(&mut self.reader, Box::new(Busy));
        let added = {
            let mut adding = reader.add(splits.clone());
            loop {
                let wanted = tokio::select! {
                    biased;
                    // They are in no checkpoint, so the next start finds them; and the reader is not asked any more.
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
        match added {
            None => return Ok(Ok(())),
            Some(Err(error)) => return Ok(Err(error)),
            Some(Ok(())) => {}
        }
        self.splits.extend(splits.iter().map(|split| (split.clone(), Progress::appeared())));
        note_begins(&mut self.splits, &*self.reader);
        let added = self.time.as_mut().and_then(|time| time.splits.add(&splits, Moment::now()));
        self.say(added).await?;
        self.excuse();
        self.ask_lag().await?;
        Ok(Ok(()))
    }
}

/// Waits until the reader is to be asked again. Cancel-safe.
pub(super) async fn due_again(put_off: &mut Option<(Moment, Vec<SplitId>)>) -> Vec<SplitId> {
    match put_off {
        Some((at, _)) => sleep_until(Some(*at)).await,
        None => std::future::pending().await,
    }
    put_off.take().map_or_else(Vec::new, |(_, splits)| splits)
}

/// Stands in for a reader that is adding splits.
struct Busy;

#[async_trait]
impl SourceReader for Busy {
    async fn fetch(&mut self) -> windrow_connectors::Result<Fetch> {
        std::future::pending().await
    }
}
