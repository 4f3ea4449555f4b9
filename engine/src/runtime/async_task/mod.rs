//! A task whose operator calls something outside: a service, a database, a table. Operators are pure and never await, so
//! this is a task of its own.
//!
//! ```text
//!            ┌─────────────────────────── AsyncTask ───────────────────────────┐
//!   Gate ──► │ waiting ──► Queue: unit, unit, watermark, unit …  (≤ capacity)  │──► Chain ──► outputs
//!            │                │ one call a unit  ▲ answer                      │     │
//!            │                └──► calls in flight ── retry, timeout           │     └─ failed rows: a port
//!            └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A *unit* is what one call is for: a row of a map, a batch of a lookup. The gate is read only while no row waits for a
//! place in the queue: that is back-pressure. Results leave in the order of the rows, or as they come; either way a
//! watermark leaves only behind the rows it came behind, and none of the rows that came after it leaves before it.
//!
//! # Checkpoints wait for no call
//!
//! ```text
//!   Gate: rows │ rows │ barrier │ rows                 while a barrier or a stop is wanted
//!         ╰── read on ──╯   │
//!               ▼           ▼
//!           waiting, queue: saved; the barrier overtakes them
//! ```
//!
//! A task sees when a barrier is asked for. Then it reads on, whatever waits, until that barrier has come: so what it has to
//! take in is what the channels and tasks between the sources and it held at that moment. The next checkpoint brings as
//! much again, and calls may be slow for long: so when more rows wait than a channel holds, the task has the sources before
//! it brake ([`brake`](super::brake)). That is the bound: a channel of rows, and once what is between the sources and it.
//!
//! At the barrier the rows that have no result yet, and those whose result has not left, are the state of the task, in
//! order; the barrier goes on at once and overtakes them. A job that is to stop is the same with its end. When the input has
//! ended and calls are in flight, no barrier comes any more: then the task itself makes those that are asked for, for all
//! that came before it is cut by having ended.
//!
//! A watermark behind the last row is not saved: every source says again what it had said, and what it says after a restore
//! queues up behind the restored rows. A watermark between two of them is saved with the second, which may be late because
//! of it. After a restore it is said again, as far as the input has promised it again: another split of the source, or
//! another task, may stand further back.
//!
//! After a restore the rows are called again: calls happen at least once, results exactly once.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use windrow_connectors::{ConnectorError, Epoch};
use windrow_operators::{
    Operator, OperatorError, Outbox, Port, StreamSchema, Timestamp, Watermark,
    state::{StateForm, StateReader, TaskState},
};

use super::{
    brake::Brake,
    channel::{Disconnected, End, Message},
    gate::Gate,
    operator_task::{Body, disconnected},
    report::{Reporter, Snapshot},
};
use crate::{
    Error, Result,
    clock::{Moment, sleep_until},
    metrics::{Counters, TaskCounters},
};

pub(crate) mod asked;
pub(crate) mod call;
mod deliver;
pub(crate) mod lookup;
pub(crate) mod map;
mod queue;
mod rows;
mod state;
mod waiting;

use asked::Asked;
use call::{Answer, OnFailure, Policy, attempts};
use deliver::while_calling;
use queue::Queue;
use rows::Came;
pub(crate) use rows::{Piece, failed_schema};
use state::Saved;
use waiting::Waiting;

/// The most rows that leave in one batch.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// How long a restored task waits at the most for its input to promise again what it had promised.
const PROMISED_AGAIN: Duration = Duration::from_secs(1);

/// The rows of calls that failed leave by this port. They keep the promises of event time.
pub(crate) const FAILED: Port = Port::side(0);

/// What is called for each unit, and what becomes of the answers.
pub(crate) trait Work: Send + Sync + 'static {
    /// A good answer, as far as its rows have not left.
    type Done: Send + 'static;

    /// What calls, for those who change a job: `an async map to Priced`.
    fn what(&self) -> String;

    /// How many rows a call is for, at the most.
    fn unit_rows(&self) -> usize;

    /// One attempt; the error is for people.
    fn call(self: Arc<Self>, rows: RecordBatch) -> BoxFuture<'static, Result<Self::Done, String>>;

    /// About how many rows an answer gives.
    fn results(&self, done: &Self::Done) -> usize;

    /// The next rows of units that have their answers, at most [`BATCH_ROWS`], perhaps none; `None` when nothing is left.
    fn next_batch(&self, done: &mut VecDeque<(Piece, Self::Done)>) -> windrow_operators::Result<Option<RecordBatch>>;

    /// Before the first row: what can fail now need not fail later.
    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async { Ok(()) })
    }

    /// What a person should know, although the job runs.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// An async operator as the plan knows it.
pub(crate) trait AsyncPlan: Send + Sync {
    fn state_form(&self) -> StateForm;

    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>>;

    /// A task, ready to run.
    fn task(&self, parts: TaskParts) -> windrow_operators::Result<BoxFuture<'static, Result<()>>>;
}

/// Work on the rows of a stream.
pub(crate) struct Calls<W> {
    pub(crate) work: Arc<W>,
    pub(crate) input: StreamSchema,
}

/// What a task is made of, and what it begins with.
pub(crate) struct TaskParts {
    pub(crate) policy: Policy,
    pub(crate) gate: Gate,
    /// Its first operator is [`Deliver`].
    pub(crate) body: Body,
    pub(crate) counters: Arc<Counters>,
    pub(crate) reporter: Reporter,
    pub(crate) state: StateReader,
    pub(crate) asked: Asked,
    /// Set when the stop came before the end of the calls.
    pub(crate) stopped: Arc<AtomicBool>,
    pub(crate) brake: Brake,
    /// How many bytes a channel holds.
    pub(crate) channel_bytes: usize,
}

impl<W: Work> AsyncPlan for Calls<W> {
    fn state_form(&self) -> StateForm {
        state::form(&self.input, &self.work.what())
    }

    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>> {
        self.work.open()
    }

    fn task(&self, parts: TaskParts) -> windrow_operators::Result<BoxFuture<'static, Result<()>>> {
        let TaskParts { policy, gate, body, counters, reporter, state, asked, stopped, brake, channel_bytes } = parts;
        let (saved, came) = Saved::load(&self.input, self.state_form(), &state)?;
        let failed = match policy.on_failure {
            OnFailure::Stream => Some(failed_schema(&self.input)?),
            OnFailure::Fail | OnFailure::Drop => None,
        };
        let mut task = AsyncTask {
            work: self.work.clone(),
            input: self.input.clone(),
            failed,
            queue: Queue::new(policy.ordered, self.input.time().is_some()),
            policy,
            gate,
            body,
            counters,
            reporter,
            asked,
            stopped,
            saved,
            waiting: Waiting::new(channel_bytes, brake),
            read: VecDeque::new(),
            calls: FuturesUnordered::new(),
            answered: Vec::new(),
            end: None,
        };
        for came in came {
            match came {
                Came::Rows(piece) => task.accept(piece),
                Came::Time(watermark) => task.waiting.push_time(watermark),
            }
        }
        Ok(Box::pin(task.run()))
    }
}

type Answered<D> = (u64, Answer<D>);

struct AsyncTask<W: Work> {
    work: Arc<W>,
    input: StreamSchema,
    /// The columns of failed rows, if they go anywhere.
    failed: Option<StreamSchema>,
    policy: Policy,
    gate: Gate,
    body: Body,
    counters: Arc<Counters>,
    reporter: Reporter,
    asked: Asked,
    stopped: Arc<AtomicBool>,
    saved: Saved,
    /// Rows that have not been called. While there are any the gate is read only for a barrier.
    waiting: Waiting,
    /// What was read of the gate before its time.
    read: VecDeque<Message>,
    queue: Queue<W::Done>,
    calls: FuturesUnordered<BoxFuture<'static, Answered<W::Done>>>,
    /// Answers that came while something was being sent.
    answered: Vec<Answered<W::Done>>,
    /// The input has ended.
    end: Option<End>,
}

impl<W: Work> AsyncTask<W> {
    async fn run(mut self) -> Result<()> {
        self.promise_again().await?;
        // Ticks and the rest take turns, so that timers that are always due hide nothing.
        let mut ticked = false;
        loop {
            // Calls that are always ready must still let others run.
            tokio::task::coop::consume_budget().await;
            let full = self.deliver().await?;
            self.counted().busy.set(!self.waiting.is_empty());
            if let Some(end) = self.ends() {
                return self.finish(end).await;
            }
            if let (Some(_), Some(epoch)) = (self.end, self.asked.barrier()) {
                self.pass(epoch).await?;
            }
            let due = self.body.due();
            if !std::mem::take(&mut ticked) && due.is_some_and(|due| due <= Moment::now()) {
                let Self { body, calls, answered, counters, .. } = &mut self;
                while_calling(calls, answered, body.tick(counters.name())).await?;
                ticked = true;
                continue;
            }
            let reads_on = self.asked.stop() || self.asked.barrier().is_some();
            let may_read = self.end.is_none() && (self.waiting.is_empty() || reads_on);
            if may_read && let Some(message) = self.read.pop_front() {
                self.take(message).await?;
                continue;
            }
            let more = full || !self.answered.is_empty();
            tokio::select! {
                biased;
                next = self.gate.next(), if may_read => {
                    let (_, message) = next.map_err(|Disconnected| disconnected(self.counters.name()))?;
                    self.take(message).await?;
                }
                () = std::future::ready(()), if more => {}
                Some((unit, answer)) = self.calls.next(), if !self.calls.is_empty() => self.queue.finish(unit, answer),
                () = self.asked.changed() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// Whether the task is to end, and why: all is done, or rows in flight go into the last checkpoint.
    fn ends(&self) -> Option<End> {
        let end = self.end?;
        if self.waiting.is_empty() && self.queue.is_empty() {
            return Some(end);
        }
        let stops = self.asked.stop() || (end == End::Stopped && self.asked.checkpointed());
        stops.then_some(End::Stopped)
    }

    /// Has restored rows be behind the watermarks that they were behind, as far as the input promises them again.
    async fn promise_again(&mut self) -> Result<()> {
        let times = self.waiting.times().filter_map(|watermark| match watermark {
            Watermark::At(at) => Some(*at),
            Watermark::Idle => None,
        });
        let Some(before) = times.max() else { return Ok(()) };
        let until = Moment::now().after(PROMISED_AGAIN);
        let (mut promised, mut idle, mut other) = (None, false, None);
        while promised < Some(before) && other.is_none() {
            let message = tokio::select! {
                biased;
                next = self.gate.next() => next.map_err(|Disconnected| disconnected(self.counters.name()))?.1,
                () = sleep_until(Some(until)) => break,
            };
            match message {
                Message::Watermark(Watermark::At(at)) => (promised, idle) = (Some(at), false),
                Message::Watermark(Watermark::Idle) => idle = true,
                // What is promised behind a row may come of that row: to say it before would make the row late.
                message => other = Some(message),
            }
        }
        // What is said of event time comes once, behind the restored rows.
        let at = promised.map(|at| Message::Watermark(Watermark::At(at)));
        let idle = idle.then_some(Message::Watermark(Watermark::Idle));
        self.read.extend(at.into_iter().chain(idle).chain(other));
        let promised = promised.unwrap_or(Timestamp::MIN);
        for watermark in self.waiting.times() {
            if let Watermark::At(at) = watermark {
                *at = promised.min(*at);
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Batch(batch) => Piece::of(batch.into_rows()).into_iter().for_each(|piece| self.accept(piece)),
            // It stays behind what waits.
            Message::Watermark(watermark) if !self.waiting.is_empty() => self.waiting.push_time(watermark),
            Message::Watermark(watermark) => self.queue.push_time(watermark),
            Message::Barrier(epoch) => self.pass(epoch).await?,
            Message::End(end) => self.end = Some(end),
        }
        Ok(())
    }

    /// Saves what is in flight, and lets a barrier overtake it.
    async fn pass(&mut self, epoch: Epoch) -> Result<()> {
        let snapshot = self.close(Message::Barrier(epoch)).await?;
        self.asked.passed(epoch);
        self.reporter.barrier(epoch, snapshot);
        Ok(())
    }

    /// Rows that are to be called.
    fn accept(&mut self, piece: Piece) {
        self.counted().rows_in.fetch_add(piece.len() as u64, Relaxed);
        self.waiting.push_rows(piece);
        self.count_in_flight();
    }

    fn count_in_flight(&self) {
        self.counted().in_flight(self.waiting.rows() + self.queue.rows());
    }

    fn counted(&self) -> &TaskCounters {
        self.counters.task(self.reporter.task.task)
    }

    /// Begins calls while there is room, and takes the answers that are there. Returns whether there were any.
    async fn advance_calls(&mut self) -> bool {
        let unit = self.work.unit_rows();
        while let Some(came) = self.waiting.next(unit, self.queue.units() < self.policy.capacity) {
            let piece = match came {
                Came::Rows(piece) => piece,
                Came::Time(watermark) => {
                    self.queue.push_time(watermark);
                    continue;
                }
            };
            let call = attempts(self.work.clone(), piece.rows(), self.policy.clone(), self.counters.clone());
            let unit = self.queue.push(piece);
            self.calls.push(Box::pin(async move { (unit, call.await) }));
        }
        let calls = &mut self.calls;
        let mut answered = std::mem::take(&mut self.answered);
        poll_fn(|cx| {
            while let Poll::Ready(Some(answer)) = calls.poll_next_unpin(cx) {
                answered.push(answer);
            }
            Poll::Ready(())
        })
        .await;
        let any = !answered.is_empty();
        answered.into_iter().for_each(|(unit, answer)| self.queue.finish(unit, answer));
        any
    }

    /// Takes down the state, and lets the message go on.
    async fn close(&mut self, message: Message) -> Result<Snapshot> {
        let own = match self.asked.checkpointed() {
            true => self.saved.save(self.queue.came().chain(self.waiting.came())),
            false => Ok(TaskState::default()),
        };
        let own = own.map_err(|error| self.internal(error))?;
        let held = own.segments.iter().filter_map(|(_, rows)| Some(rows.as_ref()?.get_array_memory_size())).sum();
        self.counted().holds(held);
        self.send(Port::MAIN, message).await?;
        let mut operators = self.body.take_saved();
        // What delivers has nothing to remember: its place is that of this task.
        if let Some(first) = operators.first_mut() {
            *first = own;
        }
        Ok(Snapshot { operators, ..Snapshot::default() })
    }

    async fn finish(mut self, end: End) -> Result<()> {
        if end == End::Stopped {
            self.stopped.store(true, Relaxed);
        }
        let snapshot = self.close(Message::End(end)).await?;
        self.reporter.ended(snapshot);
        Ok(())
    }

    fn internal(&self, error: OperatorError) -> Error {
        Error::Operator { operator: self.counters.name().into(), error }
    }
}

impl<W: Work> Drop for AsyncTask<W> {
    /// However it ends: nobody is at work any more.
    fn drop(&mut self) {
        self.counted().busy.set(false);
    }
}

/// The first operator of the chain behind an async task: has results leave on one port and failed rows on another, and both
/// keep event time.
pub(crate) struct Deliver;

impl Operator for Deliver {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> windrow_operators::Result<()> {
        out.processed(batch.num_rows());
        out.emit_on(port, batch);
        Ok(())
    }
}
