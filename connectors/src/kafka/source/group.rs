//! Tells a group how far the job is final, for whoever watches it from outside.
//!
//! ```text
//!   checkpointed(positions) ──► owed: the newest ──► a thread, as long as something is owed ──► commit
//!                                     ▲                                                          │
//!                                     └────────── unless newer ones have come ◄── failed: later ─┘
//! ```
//!
//! What is newer takes the place of what waits, and what has failed stays owed: a job whose input stands still makes no other
//! checkpoint to put it right, and whoever watches would take the job for one that hangs.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::{Slot, feed::Partition, plan::Plan};
use crate::{ConnectorError, Position, Result, SplitId};

/// How long a job waits for its positions to be committed to the group.
const COMMIT: Duration = Duration::from_secs(2);

/// How long to wait after a commit has failed, at first and at most.
const PAUSES: (Duration, Duration) = match cfg!(test) {
    true => (Duration::from_millis(1), Duration::from_millis(10)),
    false => (Duration::from_secs(1), Duration::from_secs(10)),
};

type Positions = Vec<(SplitId, Position)>;

/// The group of a source.
#[derive(Default)]
pub(super) struct Group {
    client: Slot,
    owed: Mutex<Owed>,
    failed: AtomicU64,
}

#[derive(Default)]
struct Owed {
    positions: Option<Positions>,
    /// Whether a thread commits what is owed.
    committing: bool,
}

impl Group {
    /// How many commits have failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Has these committed, and waits for that for a moment, unless others are being committed: then these come after them.
    pub(super) async fn commit(self: &Arc<Self>, plan: &Plan, positions: &[(SplitId, Position)]) {
        let plan = plan.clone();
        self.commit_with(positions, move |group, positions| commit(&plan, &group.client, positions)).await;
    }

    async fn commit_with(
        self: &Arc<Self>,
        positions: &[(SplitId, Position)],
        commit: impl Fn(&Self, &Positions) -> Result<()> + Send + 'static,
    ) {
        {
            let mut owed = self.owed();
            owed.positions = Some(positions.to_vec());
            if std::mem::replace(&mut owed.committing, true) {
                return;
            }
        }
        let (tried, first) = oneshot::channel();
        let committing = Committing(Some(self.clone()));
        // Not a thread of the runtime, because a runtime does not end before what blocks there has, and a commit can hang for as
        // long as the brokers are gone.
        let thread = std::thread::Builder::new().name("windrow-kafka".into());
        if thread.spawn(move || committing.run(commit, tried)).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // It goes on by itself after that.
        let _ = tokio::time::timeout(COMMIT, first).await;
    }

    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to commit next. When there is nothing the thread must end.
    fn next(&self) -> Option<Positions> {
        let mut owed = self.owed();
        let next = owed.positions.take();
        owed.committing = next.is_some();
        next
    }
}

/// The thread that commits. However it ends, also when it could not be started, another one may come.
struct Committing(Option<Arc<Group>>);

impl Committing {
    /// Commits until nothing is owed, or nobody has the source any more. `tried` hears of the first try.
    fn run(mut self, commit: impl Fn(&Group, &Positions) -> Result<()>, tried: oneshot::Sender<()>) {
        let Some(group) = self.0.clone() else { return };
        let (mut tried, mut pause) = (Some(tried), PAUSES.0);
        while let Some(positions) = group.next() {
            let committed = commit(&group, &positions);
            if committed.is_err() {
                group.failed.fetch_add(1, Ordering::Relaxed);
                group.owed().positions.get_or_insert(positions);
            }
            if let Some(tried) = tried.take() {
                // Nobody may wait any more.
                let _ = tried.send(());
            }
            if committed.is_ok() {
                pause = PAUSES.0;
                continue;
            }
            // Two of them are here.
            if Arc::strong_count(&group) <= 2 {
                return;
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES.1);
        }
        // The next one may have begun already.
        self.0 = None;
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            group.owed().committing = false;
        }
    }
}

fn commit(plan: &Plan, client: &Slot, positions: &Positions) -> Result<()> {
    let mut offsets = TopicPartitionList::with_capacity(positions.len());
    for (split, Position(next)) in positions {
        let at = Partition::of(split, &plan.topics)?;
        let (Some(topic), Ok(next)) = (plan.topics.get(at.topic), i64::try_from(*next)) else { continue };
        offsets
            .add_partition_offset(topic, at.number, Offset::Offset(next))
            .map_err(|error| plan.config.not_made(error))?;
    }
    client.with(plan, |client| {
        client.commit(&offsets).map_err(|error| ConnectorError::Remote {
            system: plan.name(),
            reason: format!("the group's offsets were not committed: {error}"),
            passes: true,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn positions(next: u64) -> Positions {
        vec![(SplitId::new("a/0"), Position(next))]
    }

    fn refused() -> Result<()> {
        Err(ConnectorError::Remote { system: "fake".into(), reason: "away".into(), passes: true })
    }

    /// Waits for the thread to end.
    fn settled(group: &Arc<Group>) {
        for _ in 0..1_000 {
            if !group.owed().committing {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it never ends");
    }

    #[tokio::test]
    async fn what_comes_while_a_commit_takes_long_is_committed_after_it() {
        let group = Arc::new(Group::default());
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (go, wait) = mpsc::channel();
        let slow = move |_: &Group, positions: &Positions| {
            said.send(positions[0].1.0).unwrap();
            wait.recv().unwrap();
            Ok(())
        };
        let its = group.clone();
        let first = tokio::spawn(async move { its.commit_with(&positions(1), slow).await });
        assert_eq!(heard.recv().await, Some(1));
        // None of these waits, and none is committed by a thread of its own.
        for next in 2..5 {
            group.commit_with(&positions(next), |_, _| panic!("a second thread")).await;
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(heard.recv().await, Some(4));
        first.await.unwrap();
        settled(&group);
        assert_eq!(group.failed(), 0);
    }

    #[tokio::test]
    async fn what_has_failed_is_tried_again_although_no_checkpoint_follows() {
        let group = Arc::new(Group::default());
        let (said, heard) = mpsc::channel();
        let late = move |group: &Group, positions: &Positions| {
            if group.failed() < 3 {
                return refused();
            }
            said.send(positions.clone()).unwrap();
            Ok(())
        };
        group.commit_with(&positions(7), late).await;
        settled(&group);
        assert_eq!((group.failed(), heard.try_iter().collect::<Vec<_>>()), (3, vec![positions(7)]));
    }

    #[tokio::test]
    async fn nobody_tries_for_ever_when_the_source_is_gone() {
        let group = Arc::new(Group::default());
        let weak = Arc::downgrade(&group);
        group.commit_with(&positions(7), |_, _| refused()).await;
        drop(group);
        for _ in 0..1_000 {
            if weak.strong_count() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it never ends");
    }

    #[tokio::test]
    async fn a_commit_that_panics_does_not_end_committing() {
        let group = Arc::new(Group::default());
        group.commit_with(&positions(1), |_, _| panic!("as asked")).await;
        settled(&group);
        let (said, heard) = mpsc::channel();
        let well = move |_: &Group, _: &Positions| {
            said.send(()).unwrap();
            Ok(())
        };
        group.commit_with(&positions(2), well).await;
        settled(&group);
        assert_eq!(heard.try_iter().count(), 1);
    }
}
