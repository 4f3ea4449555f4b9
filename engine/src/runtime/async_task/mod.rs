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
//! A *unit* is what one call is for: a row of a map, a batch of a lookup. The gate is read only while no unit waits for a
//! place in the queue: that is back-pressure. Results leave in the order of the rows, or as they come; either way a
//! watermark leaves only behind the rows it came behind, and none of the rows that came after it leaves before it.
//!
//! At a barrier nothing waits. The rows that have no result yet, and those whose result has not left, are the state of the
//! task, in order; the barrier goes on at once and overtakes them. A watermark behind the last of them is not saved: every
//! source says again what it had said, and what it says after a restore queues up behind the restored rows. A watermark
//! between two of them is saved with the second, which may be late because of it. After a restore it is said again, as far
//! as the input has promised it again: another split of the source, or another task, may stand further back.
//!
//! After a restore the rows are called again: calls happen at least once, results exactly once.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use windrow_connectors::ConnectorError;
use windrow_operators::{
    Operator, OperatorError, Outbox, Port, StreamSchema, Timestamp, Watermark,
    state::{StateForm, StateReader, TaskState},
};

use super::{
    channel::{Disconnected, End, Message},
    gate::Gate,
    operator_task::{Body, disconnected},
    report::{Reporter, Snapshot},
};
use crate::{
    Error, Result,
    clock::{Moment, sleep_until},
    metrics::Counters,
};

pub(crate) mod call;
pub(crate) mod lookup;

pub(crate) mod map;
mod queue;
mod rows;
mod state;

use call::{Answer, Failure, OnFailure, Policy, attempts};
use queue::{Queue, Ready, Time};
pub(crate) use rows::{Piece, failed_schema};
use rows::{excerpt, failed_rows};
use state::{After, Saved};

/// The most rows that leave in one batch.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// How long a restored task waits at the most for its input to promise again what it had promised.
const PROMISED_AGAIN: Duration = Duration::from_secs(1);

/// The rows of calls that failed leave by this port. They keep the promises of event time.
pub(crate) const FAILED: Port = Port::side(0);

/// What is called for each unit, and what becomes of the answers.
pub(crate) trait Work: Send + Sync + 'static {
    /// A good answer.
    type Done: Send + 'static;

    /// How many rows a call is for, at the most.
    fn unit_rows(&self) -> usize;

    /// One attempt; the error is for people.
    fn call(self: Arc<Self>, rows: RecordBatch) -> BoxFuture<'static, Result<Self::Done, String>>;

    /// The result rows of units that have their answers.
    fn build(&self, done: Vec<(Piece, Self::Done)>) -> windrow_operators::Result<Vec<RecordBatch>>;

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
    /// Whether there are checkpoints.
    pub(crate) checkpointed: bool,
}

impl<W: Work> AsyncPlan for Calls<W> {
    fn state_form(&self) -> StateForm {
        state::form(&self.input)
    }

    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>> {
        self.work.open()
    }

    fn task(&self, parts: TaskParts) -> windrow_operators::Result<BoxFuture<'static, Result<()>>> {
        let TaskParts { policy, gate, body, counters, reporter, state, checkpointed } = parts;
        let (saved, waiting) = Saved::load(&self.input, &state)?;
        let failed = match policy.on_failure {
            OnFailure::Stream => Some(failed_schema(&self.input)?),
            OnFailure::Fail | OnFailure::Drop => None,
        };
        let mut task = AsyncTask {
            work: self.work.clone(),
            input: self.input.clone(),
            failed,
            queue: Queue::new(policy.ordered),
            policy,
            gate,
            body,
            counters,
            reporter,
            checkpointed,
            saved,
            waiting: VecDeque::new(),
            read: VecDeque::new(),
            calls: FuturesUnordered::new(),
            answered: Vec::new(),
            end: None,
        };
        waiting.into_iter().for_each(|(after, piece)| task.accept(after, piece));
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
    checkpointed: bool,
    saved: Saved,
    /// Rows that have not been called. While there are any the gate is not read.
    waiting: VecDeque<After<Piece>>,
    /// What was read of the gate before its time.
    read: VecDeque<Message>,
    queue: Queue<W::Done>,
    calls: FuturesUnordered<BoxFuture<'static, Answered<W::Done>>>,
    /// Answers that came while something was being sent.
    answered: Vec<Answered<W::Done>>,
    /// The input has ended.
    end: Option<End>,
}

/// What is on its way out.
struct Leaving<D> {
    done: Vec<(Piece, D)>,
    failed: Vec<(Piece, Failure)>,
    rows: usize,
}

impl<D> Default for Leaving<D> {
    fn default() -> Self {
        Self { done: Vec::new(), failed: Vec::new(), rows: 0 }
    }
}

impl<W: Work> AsyncTask<W> {
    async fn run(mut self) -> Result<()> {
        self.promise_again().await?;
        // Ticks and the rest take turns, so that timers that are always due hide nothing.
        let mut ticked = false;
        loop {
            // Calls that are always ready must still let others run.
            tokio::task::coop::consume_budget().await;
            self.deliver().await?;
            if let Some(end) = self.end
                && (self.is_idle() || (end == End::Stopped && self.checkpointed))
            {
                return self.finish(end).await;
            }
            let due = self.body.due();
            if !std::mem::take(&mut ticked) && due.is_some_and(|due| due <= Moment::now()) {
                let Self { body, calls, answered, counters, .. } = &mut self;
                while_calling(calls, answered, body.tick(counters.name())).await?;
                ticked = true;
                continue;
            }
            let may_read = self.waiting.is_empty() && self.end.is_none();
            if may_read && let Some(message) = self.read.pop_front() {
                self.take(message).await?;
                continue;
            }
            tokio::select! {
                biased;
                Some((unit, answer)) = self.calls.next(), if !self.calls.is_empty() => self.queue.finish(unit, answer),
                next = self.gate.next(), if may_read => {
                    let (_, message) = next.map_err(|Disconnected| disconnected(self.counters.name()))?;
                    self.take(message).await?;
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// Has restored rows be behind the watermarks that they were behind, as far as the input promises them again.
    async fn promise_again(&mut self) -> Result<()> {
        let Some(before) = self.waiting.iter().filter_map(|(after, _)| *after).max() else { return Ok(()) };
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
                message => other = Some(message),
            }
        }
        // What is said of event time comes once, behind the restored rows.
        let at = promised.map(|at| Message::Watermark(Watermark::At(at)));
        let idle = idle.then_some(Message::Watermark(Watermark::Idle));
        self.read.extend(at.into_iter().chain(idle).chain(other));
        for (after, _) in &mut self.waiting {
            *after = (*after).min(promised);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.queue.is_empty()
    }

    async fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Batch(batch) => Piece::of(batch).into_iter().for_each(|piece| self.accept(None, piece)),
            Message::Watermark(watermark) => self.queue.push_time(watermark),
            Message::Barrier(epoch) => {
                let snapshot = self.close(Message::Barrier(epoch)).await?;
                self.reporter.barrier(epoch, snapshot);
            }
            Message::End(end) => self.end = Some(end),
        }
        Ok(())
    }

    /// Rows that are to be called.
    fn accept(&mut self, after: Option<Timestamp>, piece: Piece) {
        self.counters.rows_in.fetch_add(piece.len() as u64, Relaxed);
        self.waiting.push_back((after, piece));
        self.count_in_flight();
    }

    fn count_in_flight(&self) {
        let waiting: usize = self.waiting.iter().map(|(_, piece)| piece.len()).sum();
        self.counters.in_flight(self.reporter.task.task, waiting + self.queue.rows());
    }

    /// Begins calls while there is room, and takes the answers that are there. Returns whether there were any.
    async fn advance_calls(&mut self) -> bool {
        while self.queue.units() < self.policy.capacity
            && let Some((after, first)) = self.waiting.front_mut()
        {
            if let Some(after) = after.take() {
                self.queue.push_time(Watermark::At(after));
            }
            let piece = first.split(self.work.unit_rows());
            if first.len() == 0 {
                self.waiting.pop_front();
            }
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

    /// Sends all that may leave: results and failed rows, and the watermarks behind them.
    async fn deliver(&mut self) -> Result<()> {
        let mut leaving = Leaving::default();
        loop {
            match self.queue.next() {
                Some(Ready::Unit(piece, answer)) => {
                    leaving.rows += piece.len();
                    match answer {
                        Ok(done) => leaving.done.push((piece, done)),
                        Err(failure) => leaving.failed.push((piece, failure)),
                    }
                }
                Some(Ready::Time(Time { at, idle })) => {
                    self.send_rows(std::mem::take(&mut leaving)).await?;
                    if let Some(at) = at {
                        self.counters.watermark(self.reporter.task.task, at);
                        self.send(Port::MAIN, Message::Watermark(Watermark::At(at))).await?;
                    }
                    if idle {
                        self.send(Port::MAIN, Message::Watermark(Watermark::Idle)).await?;
                    }
                }
                // What is about to leave has made room for calls, some of which may be answered at once.
                None if self.advance_calls().await => {}
                None if leaving.rows == 0 => return Ok(()),
                None => self.send_rows(std::mem::take(&mut leaving)).await?,
            }
            if leaving.rows >= BATCH_ROWS {
                self.send_rows(std::mem::take(&mut leaving)).await?;
            }
        }
    }

    async fn send_rows(&mut self, leaving: Leaving<W::Done>) -> Result<()> {
        if leaving.rows == 0 {
            return Ok(());
        }
        let done = leaving.done.iter().map(|(piece, _)| piece.len() as u64).sum();
        let failed = leaving.failed.iter().map(|(piece, _)| piece.len() as u64).sum();
        if let (OnFailure::Fail, Some((piece, failure))) = (self.policy.on_failure, leaving.failed.first()) {
            return Err(self.failed(piece, failure));
        }
        let results = self.work.build(leaving.done).map_err(|error| self.internal(error))?;
        for batch in results.iter().filter(|batch| batch.num_rows() > 0) {
            self.counters.rows_out.fetch_add(batch.num_rows() as u64, Relaxed);
            self.send(Port::MAIN, Message::Batch(batch.clone())).await?;
        }
        if let (Some(schema), false) = (&self.failed, leaving.failed.is_empty()) {
            let batch = failed_rows(&self.input, schema, &leaving.failed).map_err(|error| self.internal(error))?;
            self.send(FAILED, Message::Batch(batch)).await?;
        }
        self.counters.processed.fetch_add(done, Relaxed);
        self.counters.failed.fetch_add(failed, Relaxed);
        self.counters.warn(self.work.warning());
        self.count_in_flight();
        Ok(())
    }

    /// Sends through the chain.
    async fn send(&mut self, port: Port, message: Message) -> Result<()> {
        let Self { body, calls, answered, counters, .. } = self;
        while_calling(calls, answered, body.take(counters.name(), port, message)).await
    }

    /// Takes down the state, and lets the message go on.
    async fn close(&mut self, message: Message) -> Result<Snapshot> {
        let own = match self.checkpointed {
            true => self.saved.save(
                &self.input,
                self.queue.pieces().chain(self.waiting.iter().map(|(after, piece)| (*after, piece))),
            ),
            false => Ok(TaskState::default()),
        };
        let own = own.map_err(|error| self.internal(error))?;
        let held = own.segments.iter().filter_map(|(_, rows)| Some(rows.as_ref()?.get_array_memory_size())).sum();
        self.counters.holds(self.reporter.task.task, held);
        self.send(Port::MAIN, message).await?;
        let mut operators = self.body.take_saved();
        // What delivers has nothing to remember: its place is that of this task.
        if let Some(first) = operators.first_mut() {
            *first = own;
        }
        Ok(Snapshot { operators, ..Snapshot::default() })
    }

    async fn finish(mut self, end: End) -> Result<()> {
        let snapshot = self.close(Message::End(end)).await?;
        self.reporter.ended(snapshot);
        Ok(())
    }

    fn internal(&self, error: OperatorError) -> Error {
        Error::Operator { operator: self.counters.name().into(), error }
    }

    fn failed(&self, piece: &Piece, failure: &Failure) -> Error {
        let Failure { reason, attempts } = failure;
        let excerpt = excerpt(&self.input, piece);
        Error::Call { operator: self.counters.name().into(), attempts: *attempts, reason: reason.clone(), excerpt }
    }
}

/// Does `work` and sees to the calls meanwhile: what nobody polls would run into its time-out.
async fn while_calling<D, T>(
    calls: &mut FuturesUnordered<BoxFuture<'static, Answered<D>>>,
    answered: &mut Vec<Answered<D>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(answer) = calls.next(), if !calls.is_empty() => answered.push(answer),
        }
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
