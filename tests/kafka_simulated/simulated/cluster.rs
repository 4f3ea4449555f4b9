//! The cluster as the sinks see it, and as a test sees it.

use std::sync::Arc;

use windrow::connectors::{
    ConnectorError, async_trait,
    kafka::cluster::{Cluster, Producer},
};

use super::{
    broker::{Code, Partition, Reply, Request},
    faults::{Fate, Kind},
    log::{Log, Record},
    producer::SimulatedProducer,
    read,
    world::{Process, Settings, Shared, World},
};

type Result<T> = std::result::Result<T, ConnectorError>;

/// A handle of one process to the simulated cluster. A clone belongs to the same process.
#[derive(Clone)]
pub struct Simulated {
    shared: Arc<Shared>,
    process: Process,
}

impl Simulated {
    /// A cluster without topics, and the first process.
    pub fn new(settings: Settings) -> Self {
        Self { shared: Shared::new(settings), process: 0 }
    }

    /// Another process with clients of the same cluster.
    pub fn process(&self) -> Self {
        Self { shared: self.shared.clone(), process: self.look(World::number) }
    }

    pub fn look<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        self.shared.look(look)
    }

    pub fn create(&self, topic: &str, partitions: usize) {
        let logs = (0..partitions).map(|_| Log::default()).collect();
        self.look(|world| world.broker.topics.insert(topic.to_owned(), logs));
    }

    /// The next request of a kind has this fate.
    pub fn say(&self, kind: Kind, fate: Fate) {
        self.look(|world| world.plan.say(kind, fate));
    }

    /// This process does not get on, and does not notice: neither its calls nor the threads of its producers.
    pub fn sleep(&self) {
        self.look(|world| world.asleep.insert(self.process));
    }

    /// It goes on as if nothing had happened.
    pub fn wake(&self) {
        self.look(|world| {
            world.asleep.remove(&self.process);
            world.stir();
            let process = self.process;
            let of_process = world.clients.iter().filter(|(_, client)| client.process == process);
            let clients: Vec<u64> = of_process.map(|(number, _)| *number).collect();
            for client in clients {
                world.drain_after(client, 0);
            }
        });
    }

    /// What a `read_committed` reader of a topic has seen, partition by partition.
    pub fn committed(&self, topic: &str) -> Vec<Vec<Arc<Record>>> {
        self.read(topic, |log| read::committed(log.entries()))
    }

    /// What a `read_uncommitted` reader has seen.
    pub fn uncommitted(&self, topic: &str) -> Vec<Vec<Arc<Record>>> {
        self.read(topic, |log| read::uncommitted(log.entries()))
    }

    /// What a `read_committed` reader has seen since it was asked last; the cluster forgets it.
    pub fn take_committed(&self, topic: &str) -> Vec<Arc<Record>> {
        self.look(|world| {
            let logs = world.broker.topics.get_mut(topic).into_iter().flatten();
            logs.flat_map(|log| {
                let seen = read::committed(log.entries());
                log.forget(read::stable(log.entries()));
                seen
            })
            .collect()
        })
    }

    fn read<T>(&self, topic: &str, of: impl Fn(&Log) -> T) -> Vec<T> {
        self.look(|world| world.broker.topics.get(topic).into_iter().flatten().map(of).collect())
    }

    /// The partitions of which a `read_committed` reader does not come to the end.
    pub fn stuck(&self) -> Vec<Partition> {
        self.look(|world| {
            let logs =
                world.broker.topics.iter().flat_map(|(topic, logs)| {
                    (0..).zip(logs).map(move |(at, log)| ((Arc::from(topic.as_str()), at), log))
                });
            let stuck = logs.filter(|(_, log)| read::stable(log.entries()) < log.entries().len());
            stuck.map(|(partition, _)| partition).collect()
        })
    }

    /// The transactional ids with a transaction that is open, or decided and not complete.
    pub fn open(&self) -> Vec<String> {
        self.look(|world| world.broker.coordinator.open().map(str::to_owned).collect())
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        let topic = format!("{request:?}");
        match self.shared.ask_until_known(self.process, request).await {
            Reply::Error(Code::UnknownTopic) => Err(ConnectorError::Config(format!("no such topic: {topic}"))),
            Reply::Error(code) => Err(self.error(format!("{topic}: {code:?}"))),
            Reply::TimedOut => Err(self.error(format!("{topic}: no answer"))),
            reply => Ok(reply),
        }
    }

    fn error(&self, reason: String) -> ConnectorError {
        ConnectorError::Remote { system: Cluster::name(self), reason, passes: true }
    }
}

/// How much is written at once makes no difference here.
pub const BATCH: usize = 1_000_000;

#[async_trait]
impl Cluster for Simulated {
    fn name(&self) -> String {
        "simulated kafka".into()
    }

    async fn transactional(&self, id: &str, _batch: usize) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(SimulatedProducer::new(self.shared.clone(), self.process, Some(id.to_owned()))))
    }

    async fn plain(&self, _batch: usize) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(SimulatedProducer::new(self.shared.clone(), self.process, None)))
    }

    async fn partitions(&self, topic: &str) -> Result<usize> {
        match self.ask(Request::Partitions { topic: topic.to_owned() }).await? {
            Reply::Partitions(count) => Ok(count),
            other => Err(self.error(format!("{topic}: {other:?}"))),
        }
    }

    async fn create_compacted(&self, topic: &str) -> Result<()> {
        self.ask(Request::Create { topic: topic.to_owned() }).await.map(|_| ())
    }

    async fn last_committed(&self, topic: &str) -> Result<Option<Vec<u8>>> {
        let end = match self.ask(Request::HighWatermark { topic: topic.to_owned() }).await? {
            Reply::HighWatermark(end) => end,
            other => return Err(self.error(format!("{topic}: {other:?}"))),
        };
        let patience = self.look(|world| world.now + world.settings.patience);
        loop {
            if let Reply::Fetched { last_stable_offset, last } =
                self.ask(Request::Fetch { topic: topic.to_owned() }).await?
                && last_stable_offset >= end
            {
                return Ok(last.and_then(|record| record.value.clone()));
            }
            if self.look(|world| world.now) >= patience {
                return Err(
                    self.error(format!("topic {topic}: a transaction is open for too long before offset {end}"))
                );
            }
            self.shared.pause().await;
        }
    }
}
