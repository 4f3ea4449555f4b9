//! All exactly-once sinks of a connection commit as one, and the cluster is the [`Witness`] of what they committed.
//!
//! ```text
//!   fence ──► two producers, windrow.fraud.0 and .1, initialised: no former start of the job can write or commit any more
//!     │
//!     ▼                     ┌──────────────── one transaction ────────────────┐
//!   Run: rows of epoch 7 ──►│ hot-items[0]  hot-items[1]  orders.dead[0]  …   │
//!        decide(7) ────────►│ __windrow.fraud.commits[0]  fraud → {epoch: 7}  │
//!                           └─────────────────────────────────────────────────┘
//!   newest ◄── the newest record of __windrow.fraud.commits that is committed
//! ```
//!
//! A transaction that a process has left behind cannot be committed by the next one, so it is Kafka that decides: the rows and the
//! marker of an epoch become visible in one step, and after a crash the marker says which checkpoint to go on from. There are two
//! producers because the rows of the next epoch are written while this one is being decided; and never more, so that a start of
//! the job knows all transactional ids that any former start may have used, whatever its parallelism was.
//!
//! Several jobs may share a connection: each has a run of its own, with ids and markers of its own.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Kafka,
    cluster::{Cluster, Delivered, Producer},
    connection::Config,
    librdkafka::Librdkafka,
    limits::Limits,
};
use crate::{ConnectorError, Epoch, Incarnation, Marker, Result, Witness};

mod run;
#[cfg(test)]
mod tests;

pub(super) use run::Member;
use run::Run;

/// What the clones of a [`Kafka`] have in common.
#[derive(Default)]
pub(super) struct Transactions {
    /// Set by the first sink that is used.
    connected: OnceLock<Connected>,
    /// By their largest batch, the producers of the sinks that write at once, as long as one of these is there. Most topics take as much
    /// as any, and have the same.
    plain: tokio::sync::Mutex<BTreeMap<usize, Weak<dyn Producer>>>,
    /// What the topics take.
    pub(super) limits: Limits,
    /// By the name of the job.
    runs: Mutex<BTreeMap<String, Arc<Run>>>,
    fencing: tokio::sync::Mutex<()>,
}

struct Connected {
    cluster: Arc<dyn Cluster>,
    config: Config,
}

/// The value of a marker record. `docs/src/exactly-once.md` tells others how to read it.
#[derive(Serialize, Deserialize)]
struct MarkerRecord {
    job: String,
    incarnation: Incarnation,
    epoch: Epoch,
    /// How many records the transaction has, without this one: a reader can count them.
    #[serde(default)]
    records: Delivered,
}

/// Transactions.
impl Kafka {
    /// How long a transaction may stay open, 15 minutes if not said, after which the cluster throws it away and the job goes back to its
    /// last checkpoint. It has to be longer than checkpoints take, with what lies between them. Brokers allow at most
    /// `transaction.max.timeout.ms`, which is 15 minutes unless they are told otherwise.
    ///
    /// When a process dies, readers that ask for committed records only (`read_committed`) wait for its transactions until it is started
    /// again, or for this long.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.config.transaction_timeout = Some(timeout);
        self.changed()
    }

    /// What the transactional ids begin with, `windrow` if not said: those of the job `fraud` are then `windrow.fraud.0` and
    /// `windrow.fraud.1`. The job needs the right to WRITE and DESCRIBE on them.
    pub fn transactional_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.transactional_prefix = Some(prefix.into());
        self.changed()
    }

    /// The topic that keeps the marker of the newest committed epoch, `__windrow.{job}.commits` if not said. It has one
    /// partition, is compacted, and belongs to one job; it is created unless it is there, but for a login by OAUTHBEARER, with which
    /// it has to be there.
    pub fn marker_topic(mut self, topic: impl Into<String>) -> Self {
        self.config.marker_topic = Some(topic.into());
        self.changed()
    }

    /// Writes to `cluster` instead of the brokers. This is for tests, which put one there that loses requests and replies. It is said
    /// last, after all settings.
    pub fn written_to(mut self, cluster: Arc<dyn Cluster>) -> Self {
        self = self.changed();
        // It is new: nobody else can have set it.
        let _ = self.transactions.connected.set(Connected { cluster, config: self.config.clone() });
        self
    }

    /// With other settings it is another connection: its sinks do not commit as one with those that were made before. Whatever
    /// changes the settings ends with this.
    pub(super) fn changed(mut self) -> Self {
        self.transactions = Arc::default();
        self
    }
}

impl Transactions {
    /// Who the sinks write to. The first one that asks says how to connect.
    pub(super) fn cluster(&self, config: &Config) -> &Arc<dyn Cluster> {
        let connect = || Connected { cluster: Arc::new(Librdkafka::new(config.clone())), config: config.clone() };
        &self.connected.get_or_init(connect).cluster
    }

    /// The producer of the sinks that write at once, to topics that take records of `largest` bytes, if that is known.
    pub(super) async fn plain(&self, config: &Config, largest: Option<usize>) -> Result<Arc<dyn Producer>> {
        let batch = config.batch_bytes(largest);
        let mut plain = self.plain.lock().await;
        if let Some(producer) = plain.get(&batch).and_then(Weak::upgrade) {
            return Ok(producer);
        }
        let producer = self.cluster(config).plain(batch).await?;
        plain.retain(|_, producer| producer.strong_count() > 0);
        plain.insert(batch, Arc::downgrade(&producer));
        Ok(producer)
    }

    /// The next writer gets another producer that writes at once: this one has failed.
    pub(super) async fn forget(&self, failed: &Arc<dyn Producer>) {
        let mut plain = self.plain.lock().await;
        plain.retain(|_, plain| !std::ptr::addr_eq(plain.as_ptr(), Arc::as_ptr(failed)));
    }

    /// A place for a writer in the run of this incarnation.
    pub(super) fn join(&self, incarnation: &Incarnation) -> Result<Member> {
        self.run(incarnation)?.join()
    }

    fn run(&self, incarnation: &Incarnation) -> Result<Arc<Run>> {
        let runs = self.runs();
        if let Some(run) = runs.values().find(|run| run.incarnation == *incarnation) {
            return Ok(run.clone());
        }
        if runs.values().any(|run| run.incarnation.job == incarnation.job) {
            return Err(replaced(self.system()));
        }
        Err(ConnectorError::Config(
            "an exactly-once Kafka sink was used before its transactions were taken over, or after they were given up: call \
             Witness::fence first"
                .into(),
        ))
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the run of a job out, if it is the one that is meant.
    fn take(&self, job: &str, is_meant: impl Fn(&Run) -> bool) -> Option<Arc<Run>> {
        let mut runs = self.runs();
        runs.get(job).is_some_and(|run| is_meant(run)).then(|| runs.remove(job)).flatten()
    }

    fn connected(&self) -> Result<&Connected> {
        let unused = || ConnectorError::Config("the connection has no exactly-once sink".into());
        self.connected.get().ok_or_else(unused)
    }

    fn system(&self) -> String {
        self.connected.get().map_or_else(|| "kafka".into(), |connected| connected.cluster.name())
    }

    fn marker_topic(&self, job: &str) -> String {
        let said = self.connected.get().and_then(|connected| connected.config.marker_topic.clone());
        said.unwrap_or_else(|| format!("__windrow.{job}.commits"))
    }

    /// What the transactional ids begin with.
    fn prefix(&self) -> &str {
        let said = self.connected.get().and_then(|connected| connected.config.transactional_prefix.as_deref());
        said.unwrap_or("windrow")
    }

    /// The topic of the markers is there and can have only one order.
    async fn provide_marker_topic(&self, cluster: &Arc<dyn Cluster>, topic: &str) -> Result<()> {
        cluster.create_compacted(topic).await?;
        match cluster.partitions(topic).await? {
            1 => Ok(()),
            partitions => Err(ConnectorError::Config(format!(
                "{}, topic {topic}: the topic of the markers has {partitions} partitions. It needs exactly one, and \
                 cleanup.policy=compact: name another with Kafka::marker_topic, or create this one again",
                cluster.name()
            ))),
        }
    }
}

#[async_trait]
impl Witness for Transactions {
    fn name(&self, job: &str) -> String {
        // Without the addresses of the brokers: the cluster is the same when it has moved, or is named by another of them. With the
        // transactional ids: a start with others does not fence this one.
        format!("kafka, markers in {}, transactions {}.{job}", self.marker_topic(job), self.prefix())
    }

    fn longest_epoch(&self) -> Duration {
        let default = Config::default();
        self.connected.get().map_or(&default, |connected| &connected.config).transaction_timeout()
    }

    fn open_for(&self, job: &str) -> Option<Duration> {
        let run = self.runs().get(job).cloned();
        run.and_then(|run| run.open_for())
    }

    async fn fence(&self, job: &str, incarnation: &Incarnation, places: &[String]) -> Result<()> {
        let _one = self.fencing.lock().await;
        // First: its writers hear that they have been replaced, not that they were fenced. What they left open is thrown away below.
        if let Some(former) = self.take(job, |_| true) {
            former.stop(replaced(self.system()));
        }
        let Connected { cluster, config } = self.connected()?;
        let prefix = self.prefix();
        check_name("the name of the job", job)?;
        check_name("the prefix of the transactional ids", prefix)?;
        let markers = self.marker_topic(job);
        // If neither is answered, the first is told: it knows why.
        let largest = async { Ok(self.limits.of_all(cluster.as_ref(), places, incarnation).await) };
        let ((), largest) = tokio::try_join!(self.provide_marker_topic(cluster, &markers), largest)?;
        let batch = config.batch_bytes(largest?);
        let ids = [format!("{prefix}.{job}.0"), format!("{prefix}.{job}.1")];
        // Both to their ends, also when one fails: a request that is still on its way would fence the next start.
        let (first, second) = tokio::join!(initialised(cluster, &ids[0], batch), initialised(cluster, &ids[1], batch));
        let run = Run::new(job.into(), incarnation.clone(), cluster.name(), [first?, second?]);
        self.runs().insert(job.into(), Arc::new(run));
        Ok(())
    }

    async fn newest(&self, job: &str) -> Result<Option<Marker>> {
        let topic = self.marker_topic(job);
        let value = self.connected()?.cluster.last_committed(&topic).await?;
        value.map(|value| parse(job, &value, || format!("{}, topic {topic}", self.system()))).transpose()
    }

    async fn decide(&self, marker: &Marker) -> Result<()> {
        let Marker { incarnation, epoch } = marker;
        let run = self.run(incarnation)?;
        let record = |records| {
            let (job, incarnation) = (run.job.clone(), incarnation.clone());
            let record = MarkerRecord { job, incarnation, epoch: *epoch, records };
            serde_json::to_vec(&record).map_err(|error| ConnectorError::Config(format!("marker: {error}")))
        };
        run.decide(*epoch, &self.marker_topic(&run.job), record).await
    }

    async fn give_up(&self, job: &str, incarnation: &Incarnation) {
        if let Some(run) = self.take(job, |run| run.incarnation == *incarnation) {
            run.stop(given_up(self.system()));
            run.throw_away().await;
        }
    }
}

/// A producer that has fenced every former one of its id.
async fn initialised(cluster: &Arc<dyn Cluster>, id: &str, batch: usize) -> Result<Arc<dyn Producer>> {
    let producer = cluster.transactional(id, batch).await?;
    producer.init_transactions().await?;
    Ok(producer)
}

fn parse(job: &str, value: &[u8], at: impl Fn() -> String) -> Result<Marker> {
    let refused = |reason: String| ConnectorError::Data { at: at(), reason };
    let record: MarkerRecord = serde_json::from_slice(value).map_err(|error| {
        refused(format!(
            "the newest record is not a marker ({error}), so nobody can say which epoch was committed. Has something else \
             written to this topic?"
        ))
    })?;
    if record.job != job {
        let theirs = &record.job;
        return Err(refused(format!(
            "the newest marker is of the job {theirs:?}, and this is {job:?}: each job needs a topic of its own"
        )));
    }
    Ok(Marker { incarnation: record.incarnation, epoch: record.epoch })
}

/// Names become parts of topics and transactional ids, and of rules of access for them.
fn check_name(what: &str, name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.len() <= 200 && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(ConnectorError::Config(format!(
        "{what}, {name:?}, is a part of Kafka's transactional ids: use 1 to 200 letters, digits, '.', '_' and '-'"
    )))
}

fn replaced(system: String) -> ConnectorError {
    let reason = "the job was started again, and its former start writes no more".into();
    ConnectorError::Remote { system, reason, passes: false }
}

fn given_up(system: String) -> ConnectorError {
    let reason = "the job has ended, and writes no more".into();
    ConnectorError::Remote { system, reason, passes: false }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").finish_non_exhaustive()
    }
}
