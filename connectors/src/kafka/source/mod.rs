//! Topics as a source.
//!
//! ```text
//!   KafkaInput ── .json::<Bid>() ──► KafkaSource ── splits: "bids/0" "bids/1" … (asked again while the job runs)
//!   (what the user says)                │
//!                                       └── reader, one per task:
//!    Kafka ──► librdkafka ──► Poller, a thread: a Lane per partition: payloads → columns ──► channel ──► KafkaReader::fetch
//!              (Feed)           ▲ where to begin, as numbers (start)                                        │
//!                               └────────────────────── pause, add ─────────────────────────────────────────┘
//! ```
//!
//! The engine owns the positions: a partition is read from where the checkpoint says, and a position that the log does not have is
//! an error with the number of records that are lost. Groups are for watching only.
//!
//! | file | why it exists |
//! |---|---|
//! | [`input`], `formats` | what the user says |
//! | `plan`, `layout` | the same, ready for readers; which columns come from where |
//! | `feed`, `topics`, `client` | what is asked of Kafka, and librdkafka's answers |
//! | `start`, `fault` | where partitions begin; errors in words |
//! | `appeared` | where partitions begin that were not there before, or had no leader |
//! | `poller`, `lane` | the thread, and one partition in it |
//! | `reader` | the task's side of it |
//! | `watch` | partitions that stand still |
//! | `group` | how far the job is final, for whoever watches |
//! | `sample` | a few records to infer columns from |

use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::oneshot;

use self::{
    client::Client,
    feed::Partition,
    group::Group,
    plan::Plan,
    reader::{Ends, KafkaReader},
    start::Assigned,
    topics::Topics,
};
use crate::{ConnectorError, Position, Result, Source, SourceReader, SplitId, TypedSource};

mod appeared;
mod client;
mod fault;
mod feed;
mod formats;
mod group;
pub mod input;
mod lane;
mod layout;
mod plan;
mod poller;
mod reader;
mod sample;
mod start;
#[cfg(test)]
mod tests;
mod topics;
mod watch;

pub use input::KafkaInput;
pub use plan::{Isolation, Start};

/// Topics as a source. One split per partition, called `topic/number`; a position is the offset of the next record.
pub struct KafkaSource<T> {
    name: String,
    columns: SchemaRef,
    /// Or what is wrong with what the user said.
    plan: Result<Plan, String>,
    discover: Option<Duration>,
    outside: Arc<Outside>,
    row: PhantomData<fn() -> T>,
}

/// What a source itself asks of the cluster, rather than its readers. Two clients, so that a commit that hangs does not keep new
/// partitions from being found.
#[derive(Default)]
struct Outside {
    discovery: Slot,
    group: Arc<Group>,
}

/// A client that is made when it is needed and kept for the next time.
#[derive(Default)]
struct Slot(Mutex<Option<Client>>);

impl Slot {
    /// Does something with the client. Blocks.
    fn with<R>(&self, plan: &Plan, act: impl FnOnce(&Client) -> Result<R>) -> Result<R> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match slot.take() {
            Some(client) => client,
            None => Client::reading(plan, 0, None)?,
        };
        let done = act(&client)?;
        // After an error the next question begins with a new client, and secrets that were read again.
        *slot = Some(client);
        Ok(done)
    }
}

impl Drop for Slot {
    /// Closing a client waits for its threads, which a worker of the runtime must not.
    fn drop(&mut self) {
        if let Some(client) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            std::thread::spawn(move || drop(client));
        }
    }
}

impl<T> KafkaSource<T> {
    fn new(name: String, columns: SchemaRef, plan: Result<Plan, String>, discover: Option<Duration>) -> Self {
        Self { name, columns, plan, discover, outside: Arc::default(), row: PhantomData }
    }

    fn plan(&self) -> Result<&Plan> {
        self.plan.as_ref().map_err(|error| ConnectorError::Config(error.clone()))
    }

    /// How many times positions could not be committed to the group. They are tried again until newer ones take their place.
    pub fn not_committed(&self) -> u64 {
        self.outside.group.failed()
    }
}

impl<T> Clone for KafkaSource<T> {
    fn clone(&self) -> Self {
        let Self { name, columns, plan, discover, outside, row } = self;
        let (name, columns, plan) = (name.clone(), columns.clone(), plan.clone());
        Self { name, columns, plan, discover: *discover, outside: outside.clone(), row: *row }
    }
}

impl<T> fmt::Debug for KafkaSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("plan", &self.plan).field("discover", &self.discover).finish()
    }
}

#[async_trait]
impl<T: 'static> Source for KafkaSource<T> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(self.columns.clone())
    }

    fn check(&self) -> Result<()> {
        // A decoder is made and dropped to say now which column cannot be read, rather than at the first record.
        self.plan()?.decoder().map(drop)
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        let (plan, outside) = (self.plan()?.clone(), self.outside.clone());
        blocking(move || {
            outside.discovery.with(&plan, |client| {
                let mut splits = Vec::new();
                for (topic, name) in plan.topics.iter().enumerate() {
                    let count = client.partitions(name, 1)?.ok_or_else(|| fault::missing(&plan, topic))?;
                    splits.extend((0..count).map(|number| Partition { topic, number }.split(&plan.topics)));
                }
                Ok(splits)
            })
        })
        .await
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        self.reader_until(assigned, Vec::new()).await
    }

    async fn reader_until(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
        until: Vec<(SplitId, Position)>,
    ) -> Result<Box<dyn SourceReader>> {
        let plan = self.plan()?.clone();
        let until: HashMap<SplitId, Position> = until.into_iter().collect();
        let assigned = assigned.into_iter().map(|(split, position)| {
            let end = until.get(&split).copied();
            Ok(Assigned { at: Partition::of(&split, &plan.topics)?, position, end, appeared: false })
        });
        let assigned = assigned.collect::<Result<Vec<_>>>()?;
        let ends = Ends::default();
        // Statistics are of all partitions that there are, as far as is known.
        let partitions = assigned.iter().map(|assigned| assigned.at.number.saturating_add(1)).max().unwrap_or_default();
        let theirs = plan.clone();
        let open = move |ends: Option<Ends>| Ok(Topics::new(theirs.clone(), ends.map(|ends| (ends, partitions))));
        Ok(Box::new(KafkaReader::start(plan, assigned, ends, open).await?))
    }

    fn discover_every(&self) -> Option<Duration> {
        self.discover
    }

    /// Nobody may look for new partitions, and there are some all the same.
    fn adds_splits(&self) -> bool {
        self.plan.as_ref().is_ok_and(|plan| !plan.bounded)
    }

    fn warnings(&self) -> Vec<String> {
        self.plan.as_ref().map_or_else(|_| Vec::new(), |plan| plan.warnings.clone())
    }

    async fn checkpointed(&self, positions: &[(SplitId, Position)]) {
        match &self.plan {
            Ok(plan) if plan.group.is_some() => self.outside.group.commit(plan, positions).await,
            _ => {}
        }
    }
}

impl<T: 'static> TypedSource for KafkaSource<T> {
    type Row = T;
}

/// Runs what blocks on a thread of its own. Not on the runtime's, because a runtime does not end before what blocks there has.
async fn blocking<R: Send + 'static>(act: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("windrow-kafka".into());
    let ask = move || {
        // Nobody may wait any more.
        let _ = reply.send(act());
    };
    thread.spawn(ask).map_err(|error| ConnectorError::io("start a thread for", "kafka", error))?;
    let lost = || ConnectorError::Remote {
        system: "kafka".to_string(),
        reason: "the thread that asked it has ended unasked: a bug in the connector".to_string(),
        passes: true,
    };
    answer.await.map_err(|_| lost())?
}
