//! A cluster in memory, for the tests of the sinks: it keeps what is written, and fails and waits where a test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::cluster::{Cluster, Delivered, Outgoing, Producer};
use crate::{ConnectorError, Result};

/// A record as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) timestamp: Option<i64>,
}

/// A clone is the same cluster.
#[derive(Clone, Default)]
pub(super) struct InMemory {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Sends that are refused for want of room, one after the other.
    pub(super) full: AtomicUsize,
    /// The call that fails from now on: "send", "flush", "commit", "begin", or "ask" for limits.
    failing: Mutex<Option<&'static str>>,
    /// The call that waits until it is let go.
    held: Mutex<Option<&'static str>>,
    let_go: Notify,
    waits: AtomicUsize,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, usize>,
    /// The largest records of topics, and what was asked for at once.
    largest: BTreeMap<String, usize>,
    asked: Vec<String>,
    /// The batches of the producers, in the order in which these were made.
    batches: Vec<usize>,
    committed: Vec<Written>,
    /// What happened, in order.
    story: Vec<String>,
    /// The newest producer of each id.
    newest: BTreeMap<String, usize>,
    producers: usize,
    alive: BTreeSet<usize>,
}

impl InMemory {
    pub(super) fn with_topics(topics: &[&str]) -> Self {
        let cluster = Self::default();
        let topics = topics.iter().map(|topic| ((*topic).to_owned(), 3));
        cluster.state().topics.extend(topics);
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub(super) fn topic(&self, topic: &str, partitions: usize) {
        self.state().topics.insert(topic.into(), partitions);
    }

    /// What a topic takes at most.
    pub(super) fn takes(&self, topic: &str, bytes: usize) {
        self.state().largest.insert(topic.into(), bytes);
    }

    /// The topics whose limits were asked for, those together that were asked for at once.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state().asked)
    }

    /// The largest batches of the producers that were made.
    pub(super) fn batches(&self) -> Vec<usize> {
        std::mem::take(&mut self.state().batches)
    }

    pub(super) fn committed(&self) -> Vec<Written> {
        self.state().committed.clone()
    }

    /// The committed values of a topic.
    pub(super) fn values(&self, topic: &str) -> Vec<String> {
        let committed = self.committed().into_iter().filter(|record| record.topic == topic);
        committed.map(|record| record.value.unwrap_or_else(|| "tombstone".into())).collect()
    }

    pub(super) fn put(&self, topic: &str, value: &str) {
        let record = Written { topic: topic.into(), value: Some(value.into()), ..Written::default() };
        self.state().committed.push(record);
    }

    pub(super) fn story(&self) -> Vec<String> {
        std::mem::take(&mut self.state().story)
    }

    pub(super) fn alive(&self) -> usize {
        self.state().alive.len()
    }

    pub(super) fn fail(&self, call: &'static str) {
        *self.shared.failing.lock().unwrap() = Some(call);
    }

    pub(super) fn mend(&self) {
        *self.shared.failing.lock().unwrap() = None;
    }

    pub(super) fn hold(&self, call: &'static str) {
        *self.shared.held.lock().unwrap() = Some(call);
    }

    pub(super) fn let_go(&self) {
        *self.shared.held.lock().unwrap() = None;
        self.shared.let_go.notify_waiters();
    }

    /// Waits until a call is held.
    pub(super) async fn is_held(&self) {
        while self.shared.waits.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn is_full_for(&self, sends: usize) {
        self.shared.full.store(sends, SeqCst);
    }

    fn producer(&self, id: Option<&str>, batch: usize) -> Arc<dyn Producer> {
        let mut state = self.state();
        state.batches.push(batch);
        state.producers += 1;
        let number = state.producers;
        state.alive.insert(number);
        let (open, sent) = (AtomicBool::new(false), Mutex::default());
        Arc::new(InMemoryProducer { cluster: self.clone(), number, id: id.map(Into::into), open, sent })
    }
}

#[async_trait]
impl Cluster for InMemory {
    fn name(&self) -> String {
        "kafka memory".into()
    }

    async fn transactional(&self, id: &str, batch: usize) -> Result<Arc<dyn Producer>> {
        Ok(self.producer(Some(id), batch))
    }

    async fn plain(&self, batch: usize) -> Result<Arc<dyn Producer>> {
        Ok(self.producer(None, batch))
    }

    async fn partitions(&self, topic: &str) -> Result<usize> {
        let missing = || ConnectorError::Config(format!("topic {topic:?} does not exist"));
        self.state().topics.get(topic).copied().ok_or_else(missing)
    }

    async fn largest_records(&self, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
        if *self.shared.failing.lock().unwrap() == Some("ask") {
            let (system, reason) = ("kafka memory".into(), "nobody answers".into());
            return Err(ConnectorError::Remote { system, reason, passes: true });
        }
        let mut state = self.state();
        state.asked.push(topics.join(" "));
        let largest = topics.iter().filter_map(|topic| state.largest.get_key_value(*topic));
        Ok(largest.map(|(topic, bytes)| (topic.clone(), *bytes)).collect())
    }

    async fn create_compacted(&self, topic: &str) -> Result<()> {
        self.state().topics.entry(topic.into()).or_insert(1);
        Ok(())
    }

    async fn last_committed(&self, topic: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.values(topic).pop().map(String::into_bytes))
    }
}

struct InMemoryProducer {
    cluster: InMemory,
    number: usize,
    id: Option<String>,
    open: AtomicBool,
    sent: Mutex<Vec<Written>>,
}

impl InMemoryProducer {
    fn tell(&self, what: &str) {
        let who = self.id.as_deref().and_then(|id| id.rsplit('.').next()).unwrap_or("plain");
        self.cluster.state().story.push(format!("{what} {who}"));
    }

    fn may(&self, call: &str) -> Result<()> {
        let failed = |reason: &str, passes| {
            Err(ConnectorError::Remote { system: "kafka memory".into(), reason: reason.into(), passes })
        };
        let newest = self.id.as_ref().and_then(|id| self.cluster.state().newest.get(id).copied());
        if newest.is_some_and(|newest| newest != self.number) {
            return failed("fenced", false);
        }
        match *self.cluster.shared.failing.lock().unwrap() {
            Some(failing) if failing == call => failed(&format!("{call} failed"), true),
            _ => Ok(()),
        }
    }

    async fn wait(&self, call: &str) {
        loop {
            let let_go = self.cluster.shared.let_go.notified();
            if *self.cluster.shared.held.lock().unwrap() != Some(call) {
                return;
            }
            self.cluster.shared.waits.fetch_add(1, SeqCst);
            let_go.await;
            self.cluster.shared.waits.fetch_sub(1, SeqCst);
        }
    }
}

#[async_trait]
impl Producer for InMemoryProducer {
    async fn init_transactions(&self) -> Result<()> {
        self.wait("init").await;
        self.tell("init");
        let id = self.id.clone().unwrap();
        self.cluster.state().newest.insert(id, self.number);
        Ok(())
    }

    async fn begin(&self) -> Result<()> {
        self.may("begin")?;
        self.tell("begin");
        assert!(!self.open.swap(true, SeqCst), "a transaction is open");
        Ok(())
    }

    fn send(&self, record: &Outgoing<'_>) -> Result<bool> {
        self.may("send")?;
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if self.cluster.shared.full.load(SeqCst) > 0 {
            self.cluster.shared.full.fetch_sub(1, SeqCst);
            return Ok(false);
        }
        let written = Written {
            topic: record.topic.into(),
            partition: record.partition,
            key: text(record.key),
            value: text(record.value),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), text(*value))).collect(),
            timestamp: record.timestamp,
        };
        if self.id.is_some() {
            assert!(self.open.load(SeqCst), "no transaction is open");
            self.sent.lock().unwrap().push(written);
        } else {
            self.cluster.state().committed.push(written);
        }
        Ok(true)
    }

    async fn room(&self) {
        self.wait("room").await;
        tokio::task::yield_now().await;
    }

    async fn flush(&self) -> Result<()> {
        self.wait("flush").await;
        self.may("flush")?;
        self.tell("flush");
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        let mut delivered = Delivered::new();
        for record in &*self.sent.lock().unwrap() {
            *delivered.entry(record.topic.clone()).or_default().entry(record.partition.unwrap_or(0)).or_default() += 1;
        }
        delivered
    }

    async fn commit(&self) -> Result<()> {
        self.wait("commit").await;
        // Before it asks for the commit, what was sent must be there.
        self.may("flush")?;
        self.may("commit")?;
        self.tell("commit");
        assert!(self.open.swap(false, SeqCst), "no transaction is open");
        let sent = std::mem::take(&mut *self.sent.lock().unwrap());
        self.cluster.state().committed.extend(sent);
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        self.wait("abort").await;
        self.tell("abort");
        self.open.store(false, SeqCst);
        self.sent.lock().unwrap().clear();
        Ok(())
    }
}

impl Drop for InMemoryProducer {
    fn drop(&mut self) {
        self.cluster.state().alive.remove(&self.number);
    }
}
