//! One start of a job: its two producers, the writers that share them, and the gate at which the writers wait for each other.
//!
//! ```text
//!             epoch 6                 gate             epoch 7                 gate
//!   writer A  ──rows──► stage(6) ──┐   │   ┌──rows──────────────► stage(7) ──┐  │
//!   writer B  ──rows──────► stage(6) ──┤   ├──rows────────────► stage(7) ────┤  │
//!                                      │   │                                 │
//!   producer 0  begin … flush ─────────┘   │   … decide(6): marker, commit   │   (epoch 8)
//!   producer 1                             └─► begin … flush ────────────────┘   … decide(7)
//! ```
//!
//! The writers go through the gate together, so every record of an epoch lies in front of every record of the next one. Otherwise
//! records of epoch 6 behind the first of epoch 7 would stay invisible until 7 is committed: readers stop at the first record of
//! an open transaction. The gate cannot lock up a job: a writer that waits here has had its barrier on all inputs, and so every
//! task above it has sent the same barrier to the others.
//!
//! After the first failure nothing of the run is used again: everybody who waits is woken with that failure, and the next run
//! begins with producers of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::super::cluster::{Delivered, Outgoing, Producer};
use crate::{ConnectorError, Epoch, Incarnation, Result};

/// How long the end of a run waits for a transaction to be thrown away. If that does not succeed the next run does it, or the cluster
/// when the transaction is too old.
const ABORT_PATIENCE: Duration = Duration::from_secs(10);

/// One start of a job.
pub(super) struct Run {
    pub(super) job: String,
    pub(super) incarnation: Incarnation,
    /// The cluster's name, for messages.
    system: String,
    state: Mutex<State>,
    /// Tells of every change of the state that somebody may wait for.
    changed: Notify,
    /// Held while a transaction is begun: by the first who has a row.
    beginning: tokio::sync::Mutex<()>,
    /// Held while what is open is thrown away.
    throwing_away: tokio::sync::Mutex<()>,
}

struct State {
    producers: [Arc<dyn Producer>; 2],
    /// Theirs, in the same order.
    transactions: [Transaction; 2],
    /// How often the writers went through the gate. Its parity says which producer takes rows.
    turn: u64,
    writers: BTreeMap<u64, Seat>,
    /// Writers that there ever were.
    seats: u64,
    /// Somebody is flushing, to open the gate.
    flushing: bool,
    failure: Option<ConnectorError>,
}

/// The transaction of a producer.
#[derive(Clone, Copy, Default)]
struct Transaction {
    /// Since when there is one.
    begun: Option<Instant>,
    /// The epoch whose rows are all in it.
    staged: Option<Epoch>,
    /// Its commit has been asked for: from here it must not be thrown away.
    deciding: bool,
}

/// A writer.
#[derive(Default)]
struct Seat {
    /// It waits at the gate.
    staged: Option<Epoch>,
    /// It has written since it was last at the gate.
    rows: bool,
}

impl State {
    fn active(&self) -> usize {
        usize::from(self.turn % 2 == 1)
    }

    fn check(&self) -> Result<()> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.repeated()))
    }

    /// Whether every writer has come to the gate, the producer of the next epoch is free, and nobody is opening the gate yet.
    fn is_complete(&self) -> bool {
        let next = self.transactions[1 - self.active()];
        !self.flushing && next.staged.is_none() && self.writers.values().all(|seat| seat.staged.is_some())
    }
}

impl Run {
    /// A run that takes rows with the first of two producers, which are initialised.
    pub(super) fn new(
        job: String,
        incarnation: Incarnation,
        system: String,
        producers: [Arc<dyn Producer>; 2],
    ) -> Self {
        let transactions = [Transaction::default(); 2];
        let (writers, flushing, failure) = (BTreeMap::new(), false, None);
        let state = State { producers, transactions, turn: 0, writers, seats: 0, flushing, failure };
        let (beginning, throwing_away) = Default::default();
        Self { job, incarnation, system, state: Mutex::new(state), changed: Notify::new(), beginning, throwing_away }
    }

    /// Locks what is only ever locked for a few fields: a panic elsewhere leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the oldest transaction has been open.
    pub(super) fn open_for(&self) -> Option<Duration> {
        let oldest = self.state().transactions.iter().filter_map(|transaction| transaction.begun).min()?;
        Some(oldest.elapsed())
    }

    /// One writer more.
    pub(super) fn join(self: &Arc<Self>) -> Result<Member> {
        let mut state = self.state();
        state.check()?;
        let seat = state.seats;
        state.seats += 1;
        state.writers.insert(seat, Seat::default());
        Ok(Member { run: self.clone(), seat })
    }

    /// Nothing is written any more, and everybody who waits is told why. The first reason stays: whether this is it.
    pub(super) fn stop(&self, failure: ConnectorError) -> bool {
        let mut state = self.state();
        let is_first = state.failure.is_none();
        state.failure.get_or_insert(failure);
        self.changed.notify_waiters();
        is_first
    }

    /// As [`Run::stop`], and throws away what is open, in the background: otherwise readers would wait for it until it is too old.
    pub(super) fn fail(self: &Arc<Self>, failure: ConnectorError) {
        let is_first = self.stop(failure);
        if let (true, Ok(runtime)) = (is_first, tokio::runtime::Handle::try_current()) {
            let run = self.clone();
            runtime.spawn(async move { run.throw_away().await });
        }
    }

    /// Throws away what is open and was not asked to be committed, after [`Run::stop`]. Who comes second waits for the first.
    pub(super) async fn throw_away(&self) {
        let _one = self.throwing_away.lock().await;
        tokio::join!(self.abort(0), self.abort(1));
    }

    async fn abort(&self, at: usize) {
        let producer = {
            let state = self.state();
            let Transaction { begun, deciding, .. } = state.transactions[at];
            if begun.is_none() || deciding {
                return;
            }
            state.producers[at].clone()
        };
        // The failure has been told. If this fails too, the next run does it.
        if let Ok(Ok(())) = tokio::time::timeout(ABORT_PATIENCE, producer.abort()).await {
            self.state().transactions[at] = Transaction::default();
        }
    }

    /// Makes a failure that of the whole run.
    fn failing<T>(self: &Arc<Self>, result: Result<T>) -> Result<T> {
        result.inspect_err(|failure| self.fail(failure.repeated()))
    }

    fn broken(&self, reason: &str) -> ConnectorError {
        ConnectorError::Remote { system: self.system.clone(), reason: reason.to_owned(), passes: true }
    }

    /// Begins the transaction of the epoch, unless somebody else has.
    async fn begin(&self) -> Result<()> {
        let _one = self.beginning.lock().await;
        let (producer, active) = {
            let state = self.state();
            state.check()?;
            let active = state.active();
            if state.transactions[active].begun.is_some() {
                return Ok(());
            }
            (state.producers[active].clone(), active)
        };
        self.begin_with(&producer, active).await
    }

    async fn begin_with(&self, producer: &Arc<dyn Producer>, at: usize) -> Result<()> {
        let now = Instant::now();
        producer.begin().await?;
        self.state().transactions[at].begun = Some(now);
        Ok(())
    }

    /// Lets everybody through the gate.
    fn switch(&self, epoch: Epoch) -> Result<()> {
        let mut state = self.state();
        state.check()?;
        let active = state.active();
        state.transactions[active].staged = Some(epoch);
        state.turn += 1;
        state.flushing = false;
        for seat in state.writers.values_mut() {
            *seat = Seat::default();
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Commits the rows of an epoch together with a record in `topic`, whose value is made of their numbers.
    pub(super) async fn decide(
        self: &Arc<Self>,
        epoch: Epoch,
        topic: &str,
        value: impl FnOnce(Delivered) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let (at, producer, begun) = {
            let mut state = self.state();
            state.check()?;
            let at = self.to_decide(&state, epoch)?;
            state.transactions[at].staged = Some(epoch);
            (at, state.producers[at].clone(), state.transactions[at].begun.is_some())
        };
        let mut given_up = GivenUp { run: self, what: "a commit", armed: true };
        let decided = async {
            if !begun {
                self.begin_with(&producer, at).await?;
            }
            let value = value(producer.delivered())?;
            let (key, value) = (Some(self.job.as_bytes()), Some(value.as_slice()));
            let marker = Outgoing { topic, partition: Some(0), key, value, headers: &[], timestamp: None };
            while !producer.send(&marker)? {
                producer.room().await;
            }
            // Nothing has been asked for yet: if the marker is refused, the transaction can be thrown away.
            producer.flush().await?;
            self.deciding(at)?;
            producer.commit().await
        }
        .await;
        given_up.armed = false;
        self.failing(decided)?;
        self.state().transactions[at] = Transaction::default();
        self.changed.notify_waiters();
        Ok(())
    }

    /// From here on it must not be thrown away; and it is not committed when it was.
    fn deciding(&self, at: usize) -> Result<()> {
        let mut state = self.state();
        state.check()?;
        state.transactions[at].deciding = true;
        Ok(())
    }

    /// Which producer has the rows of an epoch.
    fn to_decide(&self, state: &State, epoch: Epoch) -> Result<usize> {
        if let Some(at) = state.transactions.iter().position(|transaction| transaction.staged == Some(epoch)) {
            return Ok(at);
        }
        let active = state.active();
        let Transaction { begun, staged, .. } = state.transactions[active];
        // All writers have ended before this epoch: nobody came to the gate, and there are no rows.
        if state.writers.is_empty() && begun.is_none() && staged.is_none() {
            return Ok(active);
        }
        Err(self.broken(&format!("epoch {epoch} was to be committed before all of its writers had staged it")))
    }
}

/// A writer's part in a run. When it is dropped, nobody waits for the writer any more.
pub(in super::super) struct Member {
    run: Arc<Run>,
    seat: u64,
}

impl Member {
    /// The producer that takes the rows of now; its transaction has begun. It stays the same until [`Member::stage`].
    pub(in super::super) async fn producer(&self) -> Result<Arc<dyn Producer>> {
        self.run.failing(self.writes())?;
        let begun = self.run.begin().await;
        self.run.failing(begun)?;
        let state = self.run.state();
        state.check()?;
        Ok(state.producers[state.active()].clone())
    }

    /// Says that the writer has rows that it has not staged.
    fn writes(&self) -> Result<()> {
        let mut state = self.run.state();
        state.check()?;
        if let Some(seat) = state.writers.get_mut(&self.seat) {
            seat.rows = true;
        }
        // The gate does not open before the producer of the next epoch is free.
        match state.transactions[state.active()].staged {
            None => Ok(()),
            Some(epoch) => Err(self.run.broken(&format!("rows were written behind those of epoch {epoch}"))),
        }
    }

    /// Whether the run goes on. To be asked now and then by who waits for something else.
    pub(in super::super) fn check(&self) -> Result<()> {
        self.run.state().check()
    }

    /// Says that the writer cannot go on, so that nobody waits for it.
    pub(in super::super) fn fail(&self, failure: &ConnectorError) {
        self.run.fail(failure.repeated());
    }

    /// Waits until all writers have staged the epoch and everything that they wrote is in the log.
    pub(in super::super) async fn stage(&self, epoch: Epoch) -> Result<()> {
        let arrived = self.arrive(epoch);
        let turn = self.run.failing(arrived)?;
        let mut given_up = GivenUp { run: &self.run, what: "a barrier", armed: true };
        let staged = self.pass_gate(turn, epoch).await;
        given_up.armed = false;
        self.run.failing(staged)
    }

    /// Says that the writer is at the gate, and which turn ends there.
    fn arrive(&self, epoch: Epoch) -> Result<u64> {
        let mut state = self.run.state();
        state.check()?;
        if let Some(other) = state.writers.values().find_map(|seat| seat.staged.filter(|other| *other != epoch)) {
            let reason = format!("writers came to the barriers of different epochs, {other} and {epoch}");
            return Err(self.run.broken(&reason));
        }
        if let Some(seat) = state.writers.get_mut(&self.seat) {
            seat.staged = Some(epoch);
        }
        self.run.changed.notify_waiters();
        Ok(state.turn)
    }

    /// The last who comes flushes for all. When that one is not there any more, it is one of those who wait.
    async fn pass_gate(&self, turn: u64, epoch: Epoch) -> Result<()> {
        loop {
            let changed = self.run.changed.notified();
            let to_flush = {
                let mut state = self.run.state();
                state.check()?;
                if state.turn != turn {
                    return Ok(());
                }
                let complete = state.is_complete();
                state.flushing |= complete;
                let active = state.active();
                complete.then(|| state.transactions[active].begun.map(|_| state.producers[active].clone()))
            };
            match to_flush {
                None => changed.await,
                Some(producer) => {
                    if let Some(producer) = producer {
                        producer.flush().await?;
                    }
                    self.run.switch(epoch)?;
                }
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let seat = self.run.state().writers.remove(&self.seat);
        // The rows of the epoch that it has not staged must not be committed: they are a part of what it would have written.
        if seat.is_some_and(|seat| seat.rows) {
            self.run.fail(self.run.broken("a writer was stopped before it had staged its rows"));
        }
        self.run.changed.notify_waiters();
    }
}

/// Fails the run when what it watches is dropped half-way: nobody knows then how far it came.
struct GivenUp<'a> {
    run: &'a Arc<Run>,
    what: &'static str,
    armed: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.run.fail(self.run.broken(&format!("{} was given up half-way", self.what)));
        }
    }
}
