//! Finds the splits of a source that appear while the job runs, and deals them to the tasks that read.
//!
//! ```text
//!   Source::splits() ──every 30 s──► those not known ──in turn──┬──► Found of task 0 ──► SourceReader::add
//!         └ fails, or does not answer: a warning                └──► Found of task 1 ──► …
//! ```
//!
//! Where a split is read is decided here alone, and anew at every start: a checkpoint holds splits, not who reads them. A split
//! that is in the hands of nobody yet when the job ends or fails is in no checkpoint either, and the next start finds it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};
use windrow_connectors::{Source, SplitId};

use crate::{
    Result,
    clock::{Moment, sleep_until},
    metrics::{Counters, Warner},
    trace,
};

/// How many new splits a task takes at once.
const AT_ONCE: usize = 1_000;

/// Looks for the new splits of one source.
pub(crate) struct Discovery {
    source: Arc<dyn Source>,
    every: Duration,
    known: HashSet<SplitId>,
    /// To each task of the source.
    tasks: Vec<UnboundedSender<SplitId>>,
    /// Whose turn it is.
    turn: usize,
    counters: Arc<Counters>,
    stop: watch::Receiver<bool>,
}

impl Discovery {
    /// Deals the splits that are not `known` to as many tasks as `dealt` has been dealt to.
    pub(crate) fn new(
        source: Arc<dyn Source>,
        every: Duration,
        known: HashSet<SplitId>,
        dealt: &[Vec<SplitId>],
        counters: Arc<Counters>,
        stop: watch::Receiver<bool>,
    ) -> (Self, Vec<Found>) {
        let (tasks, found) =
            dealt.iter().map(|_| unbounded_channel()).map(|(task, found)| (task, Found(Some(found)))).unzip();
        let turn = dealt.iter().map(Vec::len).sum();
        (Self { source, every, known, tasks, turn, counters, stop }, found)
    }

    /// Looks until nobody is left to read: it keeps no job from its end.
    pub(crate) async fn run(mut self) -> Result<()> {
        let (tasks, mut stop) = (self.tasks.clone(), self.stop.clone());
        let over = async {
            for task in &tasks {
                task.closed().await;
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = over => {}
            () = self.look() => {}
        }
        Ok(())
    }

    async fn look(&mut self) {
        loop {
            sleep_until(Some(Moment::now().after(self.every))).await;
            let source = self.source.clone();
            let mut answer = std::pin::pin!(source.splits());
            let patience = Moment::now().after(self.every);
            let answer = tokio::select! {
                biased;
                answer = &mut answer => answer,
                () = sleep_until(Some(patience)) => {
                    self.warn(Warner::Silence, &format!("the source has not answered for {:?}", self.every));
                    answer.await
                }
            };
            match answer {
                Ok(splits) => {
                    self.counters.warn(Warner::Silence, None);
                    self.counters.warn(Warner::Discovery, None);
                    splits.into_iter().for_each(|split| self.deal(split));
                }
                // That it has been silent stays said: in an outage it is before each failure.
                Err(error) => self.warn(Warner::Discovery, &error.to_string()),
            }
        }
    }

    fn warn(&self, warner: Warner, reason: &str) {
        let warning = format!("new splits would not be noticed, those that are known are read on: {reason}");
        self.counters.warn(warner, Some(warning));
    }

    /// Gives a new split to the task whose turn it is, or to the next that has not ended.
    fn deal(&mut self, split: SplitId) {
        if !self.known.insert(split.clone()) {
            return;
        }
        trace::split_found(self.counters.name(), split.as_str());
        let tasks = self.tasks.len();
        let taken = (self.turn..self.turn + tasks).find(|turn| self.tasks[turn % tasks].send(split.clone()).is_ok());
        self.turn = taken.unwrap_or(self.turn) + 1;
    }
}

/// The splits that have been found for a task.
#[derive(Default)]
pub(crate) struct Found(Option<UnboundedReceiver<SplitId>>);

impl Found {
    /// Waits for more; for ever when nobody looks for any. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Vec<SplitId> {
        let mut splits = Vec::new();
        let taken = match &mut self.0 {
            Some(found) => found.recv_many(&mut splits, AT_ONCE).await,
            None => 0,
        };
        if taken == 0 {
            std::future::pending::<()>().await;
        }
        splits
    }

    /// The task takes no more, but for those that have been given to it already.
    pub(crate) fn last(&mut self) -> Vec<SplitId> {
        let Some(found) = &mut self.0 else { return Vec::new() };
        found.close();
        std::iter::from_fn(|| found.try_recv().ok()).collect()
    }
}
