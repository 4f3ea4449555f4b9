//! A small cluster in memory that decides epochs by itself, as Kafka does with its transactions; and what goes wrong with
//! one: requests and replies are lost, come late, or take long.
//!
//! ```text
//!   writers ──write, stage──► slot 0  epoch 8, sealed ──decide(marker 8)──► rows and marker visible in one step
//!      │                      slot 1  epoch 9, open       └ lost? late? ──► fence of the next start: lands before it, or never
//!      └ a gate at every barrier: nobody writes rows of 9 before all have staged those of 8
//! ```
//!
//! The cluster outlives the jobs. A job has a [`Connection`] of its own to it; two processes have two.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{ConnectorError, Epoch, Incarnation, Marker, Receipt, Result, Sink, SinkWriter, Witness},
    prelude::*,
};

/// What errors say that come from a lost request or reply.
pub const LOST: &str = "no reply";

/// What becomes of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Fine,
    RequestLost,
    ReplyLost,
    /// The request arrives when its sender is gone, a moment before the next one takes over.
    Late,
    Slow,
    /// Nothing ever comes back, not even an error.
    Never,
}

/// A transaction.
#[derive(Default)]
struct Slot {
    opened: Option<Instant>,
    /// Known from the first writer that has staged.
    epoch: Option<Epoch>,
    staged: Vec<(MemorySink, Vec<Receipt>)>,
}

#[derive(Default)]
struct Broker {
    owner: Option<Incarnation>,
    slots: [Slot; 2],
    markers: Vec<Marker>,
    late: Option<Marker>,
    replies: VecDeque<Fate>,
    chaos: Option<fastrand::Rng>,
    stuck_since: Option<Instant>,
    /// What may never happen, whatever is lost.
    wrong: Vec<String>,
}

impl Broker {
    /// Ends the transaction of an epoch: its rows, to be made visible, and its marker.
    fn end(&mut self, marker: &Marker) -> Vec<(MemorySink, Vec<Receipt>)> {
        if let Some(last) = self.markers.last()
            && last.incarnation.job == marker.incarnation.job
            && last.epoch >= marker.epoch
        {
            self.wrong.push(format!("{marker:?} is decided after {last:?}"));
        }
        self.markers.push(marker.clone());
        let slot = self.slots.iter_mut().find(|slot| slot.epoch == Some(marker.epoch));
        slot.map(std::mem::take).map_or_else(Vec::new, |slot| slot.staged)
    }

    fn check(&self, incarnation: &Incarnation) -> Result<()> {
        match &self.owner {
            Some(owner) if owner == incarnation => Ok(()),
            owner => Err(remote(format!("fenced: {incarnation:?} is not {owner:?}"))),
        }
    }

    fn reply(&mut self) -> Fate {
        use Fate::{Fine, Late, ReplyLost, RequestLost, Slow};
        let drawn = self
            .chaos
            .as_mut()
            .map(|random| [Fine, Fine, Fine, RequestLost, ReplyLost, Late, Slow][random.usize(0..7)]);
        self.replies.pop_front().or(drawn).unwrap_or(Fine)
    }
}

fn remote(reason: impl Into<String>) -> ConnectorError {
    ConnectorError::Remote { system: "cluster".into(), reason: reason.into(), passes: true }
}

async fn show(rows: Vec<(MemorySink, Vec<Receipt>)>) -> Result<()> {
    for (sink, receipts) in rows {
        sink.commit(&receipts).await?;
    }
    Ok(())
}

/// The writers of one incarnation.
struct Session {
    incarnation: Option<Incarnation>,
    gate: Mutex<Gate>,
    rounds: watch::Sender<u64>,
}

#[derive(Default)]
struct Gate {
    writers: usize,
    waiting: usize,
    /// The slot of the rows that come now.
    slot: usize,
    /// Whether a row has been written.
    begun: bool,
}

impl Session {
    fn new(incarnation: Option<Incarnation>) -> Arc<Self> {
        Arc::new(Self { incarnation, gate: Mutex::default(), rounds: watch::channel(0).0 })
    }

    /// Lets all pass when nobody is missing.
    fn open(&self, gate: &mut Gate) {
        if gate.waiting > 0 && gate.waiting == gate.writers {
            gate.waiting = 0;
            gate.slot ^= 1;
            self.rounds.send_modify(|round| *round += 1);
        }
    }

    async fn pass(&self) {
        let mut rounds = self.rounds.subscribe();
        let round = *rounds.borrow();
        {
            let mut gate = lock(&self.gate);
            gate.waiting += 1;
            self.open(&mut gate);
        }
        let waiting = Waiting { session: self, round };
        let _ = rounds.wait_for(|now| *now > round).await;
        drop(waiting);
    }
}

/// Who is dropped while it waits does not wait any more.
struct Waiting<'a> {
    session: &'a Session,
    round: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut gate = lock(&self.session.gate);
        if *self.session.rounds.borrow() == self.round {
            gate.waiting -= 1;
        }
    }
}

/// The connection of one process to the cluster. A clone is the same connection.
#[derive(Clone)]
pub struct Connection(Arc<Cluster>);

struct Cluster {
    broker: Arc<Mutex<Broker>>,
    topic: String,
    longest: Duration,
    session: Mutex<Arc<Session>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Connection {
    /// A connection to a new cluster, whose transactions may last for years.
    pub fn new() -> Self {
        Self::of(Arc::default(), "markers", hours(10_000))
    }

    fn of(broker: Arc<Mutex<Broker>>, topic: &str, longest: Duration) -> Self {
        Self(Arc::new(Cluster { broker, topic: topic.into(), longest, session: Mutex::new(Session::new(None)) }))
    }

    /// Another connection to the same cluster.
    pub fn again(&self) -> Self {
        Self::of(self.0.broker.clone(), &self.0.topic, self.0.longest)
    }

    pub fn longest(&self, longest: Duration) -> Self {
        Self::of(self.0.broker.clone(), &self.0.topic, longest)
    }

    /// The same rows in visible form, but decided by this cluster.
    pub fn sink(&self, to: &MemorySink) -> Decided {
        Decided { to: to.clone(), by: Some(self.clone()) }
    }

    /// What becomes of the next decisions.
    pub fn reply(&self, replies: impl IntoIterator<Item = Fate>) {
        self.broker().replies = replies.into_iter().collect();
    }

    /// From now on anything may happen to a decision.
    pub fn chaos(&self, seed: u64) {
        self.broker().chaos = Some(fastrand::Rng::with_seed(seed));
    }

    pub fn calm(&self) {
        let mut broker = self.broker();
        broker.chaos = None;
        broker.replies.clear();
    }

    pub fn markers(&self) -> Vec<Marker> {
        self.broker().markers.clone()
    }

    pub fn set_markers(&self, markers: Vec<Marker>) {
        self.broker().markers = markers;
    }

    /// From now on, until the next start, an epoch is open.
    pub fn hold_open(&self) {
        self.broker().stuck_since = Some(Instant::now());
    }

    pub fn let_go(&self) {
        self.broker().stuck_since = None;
    }

    /// What happened that may never happen.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.broker().wrong.first().cloned().map_or(Ok(()), Err)
    }

    fn broker(&self) -> MutexGuard<'_, Broker> {
        lock(&self.0.broker)
    }
}

#[async_trait]
impl Witness for Cluster {
    fn name(&self, job: &str) -> String {
        format!("cluster, {} of {job}", self.topic)
    }

    fn longest_epoch(&self) -> Duration {
        self.longest
    }

    fn open_for(&self, _: &str) -> Option<Duration> {
        let broker = lock(&self.broker);
        let opened = broker.slots.iter().filter_map(|slot| slot.opened);
        opened.chain(broker.stuck_since).min().map(|opened| opened.elapsed())
    }

    async fn fence(&self, _: &str, incarnation: &Incarnation, _: &[String]) -> Result<()> {
        let rows = {
            let mut broker = lock(&self.broker);
            // What is still on its way arrives now, or never.
            let late = broker.late.take().filter(|marker| broker.owner.as_ref() == Some(&marker.incarnation));
            late.map(|marker| broker.end(&marker))
        };
        show(rows.unwrap_or_default()).await?;
        let mut broker = lock(&self.broker);
        broker.owner = Some(incarnation.clone());
        broker.slots = Default::default();
        broker.stuck_since = None;
        *lock(&self.session) = Session::new(Some(incarnation.clone()));
        Ok(())
    }

    async fn newest(&self, _: &str) -> Result<Option<Marker>> {
        Ok(lock(&self.broker).markers.last().cloned())
    }

    async fn decide(&self, marker: &Marker) -> Result<()> {
        let reply = lock(&self.broker).reply();
        if reply == Fate::Never {
            std::future::pending::<()>().await;
        }
        if reply == Fate::Slow {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let rows = {
            let mut broker = lock(&self.broker);
            broker.check(&marker.incarnation)?;
            let slot = broker.slots.iter().find(|slot| slot.epoch == Some(marker.epoch));
            if slot.and_then(|slot| slot.opened).is_some_and(|opened| opened.elapsed() > self.longest) {
                return Err(remote("the transaction took too long and was aborted"));
            }
            match reply {
                Fate::RequestLost => return Err(remote(LOST)),
                Fate::Late => {
                    broker.late = Some(marker.clone());
                    return Err(remote(LOST));
                }
                Fate::Fine | Fate::Slow | Fate::ReplyLost | Fate::Never => broker.end(marker),
            }
        };
        show(rows).await?;
        if reply == Fate::ReplyLost { Err(remote(LOST)) } else { Ok(()) }
    }
}

/// A sink in memory whose rows become visible when the cluster decides, or a plain one.
#[derive(Clone)]
pub struct Decided {
    pub to: MemorySink,
    pub by: Option<Connection>,
}

#[async_trait]
impl Sink for Decided {
    fn name(&self) -> String {
        self.to.name()
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        self.to.accepts(schema)
    }

    fn witness(&self) -> Option<Arc<dyn Witness>> {
        self.by.as_ref().map(|by| by.0.clone() as Arc<dyn Witness>)
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let inner = self.to.writer(incarnation, task, schema).await?;
        let Some(Connection(cluster)) = &self.by else { return Ok(inner) };
        let session = lock(&cluster.session).clone();
        {
            let mut gate = lock(&session.gate);
            gate.writers += 1;
            if gate.begun || session.incarnation.as_ref() != Some(incarnation) {
                lock(&cluster.broker).wrong.push("a writer is made before the fence or after the first row".into());
            }
        }
        let (cluster, to) = (cluster.clone(), self.to.clone());
        Ok(Box::new(Writer { cluster, session, to, inner, incarnation: incarnation.clone(), last: None }))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        self.to.commit(receipts).await
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        self.to.clean(incarnation).await
    }
}

struct Writer {
    cluster: Arc<Cluster>,
    session: Arc<Session>,
    to: MemorySink,
    inner: Box<dyn SinkWriter>,
    incarnation: Incarnation,
    /// The epoch that was staged last.
    last: Option<Epoch>,
}

impl Writer {
    /// The transaction that is open now.
    fn in_slot<T>(&self, work: impl FnOnce(&mut Slot) -> T) -> Result<T> {
        let mut gate = lock(&self.session.gate);
        gate.begun = true;
        let mut broker = lock(&self.cluster.broker);
        broker.check(&self.incarnation)?;
        if let (Some(there), Some(last)) = (broker.slots[gate.slot].epoch, self.last)
            && there.0 != last.0 + 1
        {
            broker.wrong.push(format!("rows of the epoch after {last} come while {there} is not decided"));
        }
        Ok(work(&mut broker.slots[gate.slot]))
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.in_slot(|slot| slot.opened.get_or_insert_with(Instant::now).elapsed())?;
        self.inner.write(batch).await
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        let receipts = self.inner.stage(epoch).await?;
        let to = self.to.clone();
        let staged = self.in_slot(|slot| {
            let one = *slot.epoch.get_or_insert(epoch);
            slot.staged.push((to, receipts));
            one
        })?;
        if staged != epoch {
            lock(&self.cluster.broker).wrong.push(format!("one writer stages {staged}, another {epoch}"));
        }
        self.last = Some(epoch);
        self.session.pass().await;
        Ok(Vec::new())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut gate = lock(&self.session.gate);
        gate.writers -= 1;
        self.session.open(&mut gate);
    }
}
