//! Sources that wait for each other: how far the slowest split of a job is, over all tasks.
//!
//! ```text
//!   task of orders    slowest 12:00 ──┐                       ┌──► 12:00 + drift: what is beyond is not read
//!   task of payments  slowest 12:40 ──┼──► Alignment: 12:00 ──┤
//!   task of payments  all idle      ──┘                       └──► …
//! ```
//!
//! The split that is the slowest is never paused, and neither is a task that has promised nothing: so somebody can
//! always go on, or is silent, which is for idleness to say. Every task is a member before the first one runs.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use windrow_operators::Timestamp;

use super::splits::Slowest;

/// All aligned source tasks of a job.
#[derive(Debug)]
pub(crate) struct Alignment {
    members: Mutex<Vec<Option<Holder>>>,
    slowest: watch::Sender<Option<Holder>>,
}

/// The slowest split of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    source: Arc<str>,
    slowest: Slowest,
}

impl Alignment {
    pub(crate) fn new() -> Self {
        Self { members: Mutex::default(), slowest: watch::channel(None).0 }
    }

    /// A task of `source` whose splits are to stay within `drift` of the slowest.
    pub(crate) fn join(self: &Arc<Self>, source: &str, drift: Duration, slowest: Option<Slowest>) -> Aligned {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.push(None);
        let task = members.len() - 1;
        drop(members);
        let hold = Hold { drift, heard: self.slowest.subscribe() };
        let mut aligned = Aligned { group: self.clone(), task, source: source.into(), told: None, hold };
        aligned.tell(slowest);
        aligned
    }

    fn tell(&self, task: usize, holder: Option<Holder>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members[task] = holder;
        let slowest = members.iter().flatten().min_by_key(|holder| holder.slowest.time).cloned();
        // Said under the lock: what is heard last is what is so.
        self.slowest.send_if_modified(|said| {
            let moved = *said != slowest;
            *said = slowest;
            moved
        });
    }
}

/// A task's place among those that wait for each other.
pub(crate) struct Aligned {
    group: Arc<Alignment>,
    task: usize,
    source: Arc<str>,
    told: Option<Slowest>,
    hold: Hold,
}

impl Aligned {
    /// How far the slowest active split of this task is; `None` when there is none, which holds nobody.
    pub(crate) fn tell(&mut self, slowest: Option<Slowest>) {
        if self.told != slowest {
            self.told.clone_from(&slowest);
            let holder = slowest.map(|slowest| Holder { source: self.source.clone(), slowest });
            self.group.tell(self.task, holder);
        }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Waits until what stands at `time` may be read. It does not end at every step of the slowest on the way there: a
    /// reader at work for a split that is not paused is not disturbed for nothing.
    pub(crate) async fn allows(&mut self, time: Timestamp) {
        let drift = self.hold.drift;
        let allows = |holder: &Option<Holder>| limit(holder, drift).is_none_or(|limit| limit >= time);
        // The sender lives as long as this.
        let _ = self.hold.heard.wait_for(allows).await;
    }
}

fn limit(holder: &Option<Holder>, drift: Duration) -> Option<Timestamp> {
    holder.as_ref().map(|holder| holder.slowest.time.saturating_add(drift))
}

/// What holds the splits of a task, at any moment. Its text says why splits are not read.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    drift: Duration,
    heard: watch::Receiver<Option<Holder>>,
}

impl Hold {
    /// The time beyond which splits are not to be read; `None` when nobody holds them.
    pub(crate) fn limit(&self) -> Option<Timestamp> {
        limit(&self.heard.borrow(), self.drift)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {:?} ahead of ", self.drift)?;
        match &*self.heard.borrow() {
            Some(Holder { source, slowest: Slowest { split: Some(split), .. } }) => {
                write!(f, "split {split} of {source}")
            }
            Some(Holder { source, .. }) => write!(f, "{source}, of which a task has promised nothing yet"),
            None => write!(f, "nobody any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use windrow_connectors::SplitId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(micros: i64) -> Option<Slowest> {
        Some(Slowest { time: Timestamp::from_micros(micros), split: Some(SplitId::new("a")) })
    }

    fn limit(aligned: &Aligned) -> Option<i64> {
        aligned.hold().limit().map(Timestamp::micros)
    }

    #[test]
    fn the_slowest_active_task_holds_the_others() {
        let group = Arc::new(Alignment::new());
        let mut one = group.join("#1 source", Duration::ZERO, None);
        assert_eq!(limit(&one), None, "a task without splits holds nobody");
        let mut other = group.join("#2 source", SECOND, at(70));
        one.tell(at(100));
        assert_eq!((limit(&one), limit(&other)), (Some(70), Some(1_000_070)), "each has its own drift");
        assert_eq!(one.hold().to_string(), "more than 0ns ahead of split a of #2 source");
        one.tell(Some(Slowest { time: Timestamp::MIN, split: None }));
        assert_eq!(limit(&other), Some(i64::MIN + 1_000_000));
        let told = other.hold().to_string();
        assert_eq!(told, "more than 1s ahead of #1 source, of which a task has promised nothing yet");
        one.tell(None);
        assert_eq!(limit(&one), Some(70), "idle or ended");
        other.tell(None);
        assert_eq!(limit(&one), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_when_the_slowest_is_near_enough() {
        let group = Arc::new(Alignment::new());
        let (mut one, mut other) = (group.join("one", SECOND, at(5_000_000)), group.join("other", SECOND, at(70)));
        let allows = async |one: &mut Aligned| {
            tokio::time::timeout(SECOND, one.allows(Timestamp::from_micros(5_000_000))).await.is_ok()
        };
        assert!(!allows(&mut one).await);
        other.tell(at(3_999_999));
        assert!(!allows(&mut one).await);
        other.tell(at(4_000_000));
        assert!(allows(&mut one).await && allows(&mut one).await, "also if it was so before");
        other.tell(at(0));
        assert!(!allows(&mut one).await);
        other.tell(None);
        assert!(allows(&mut one).await, "nobody but itself");
    }
}
