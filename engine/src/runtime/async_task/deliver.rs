//! The way out of an async task: what may leave goes in batches, each sent before the next is made.
//!
//! ```text
//!   Queue ──► unit ✓ ─┐
//!             unit ✓ ─┼─ Leaving ──► Work::next_batch ──► 8192 rows ──► send, which may wait ──► the next 8192 …
//!             unit ✗ ─┘      └─────► failed rows
//! ```
//!
//! Units leave wholly: a barrier is between two of them, so a unit is either called again after a restore or its results
//! are out. That is why what leaves between two looks at the gate is bounded too: about a batch, or one unit.

use std::{collections::VecDeque, pin::pin, sync::atomic::Ordering::Relaxed};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use windrow_operators::{Port, Watermark};

use super::{
    Answered, AsyncTask, BATCH_ROWS, FAILED, Piece, Work,
    call::{Failure, OnFailure},
    queue::Ready,
    rows::{excerpt, failed_rows},
};
use crate::{Error, Result, metrics::Warner, runtime::channel::Message, status::SampleKind};

/// What is on its way out.
struct Leaving<D> {
    done: VecDeque<(Piece, D)>,
    failed: Vec<(Piece, Failure)>,
    /// About how many rows leave, and at least how many came.
    rows: usize,
}

impl<D> Default for Leaving<D> {
    fn default() -> Self {
        Self { done: VecDeque::new(), failed: Vec::new(), rows: 0 }
    }
}

impl<W: Work> AsyncTask<W> {
    /// Sends about a batch of what may leave: results and failed rows, and the watermarks behind them. Begins calls while
    /// there is room. Returns whether a full batch has left, so that there may be more.
    pub(super) async fn deliver(&mut self) -> Result<bool> {
        let mut leaving = Leaving::default();
        self.say_word().await?;
        while leaving.rows < BATCH_ROWS {
            match self.queue.next() {
                Some(Ready::Unit(piece, answer)) => match answer {
                    Ok(done) => {
                        leaving.rows += piece.len().max(self.work.results(&done));
                        leaving.done.push_back((piece, done));
                    }
                    Err(failure) => {
                        leaving.rows += piece.len();
                        leaving.failed.push((piece, failure));
                    }
                },
                Some(Ready::Time(at)) => {
                    self.send_rows(std::mem::take(&mut leaving)).await?;
                    self.counted().reaches(at);
                    self.send(Port::MAIN, Message::Watermark(Watermark::At(at))).await?;
                }
                // What is about to leave has made room for calls, some of which may be answered at once.
                None if self.advance_calls().await => {}
                None => break,
            }
        }
        let full = leaving.rows >= BATCH_ROWS;
        self.send_rows(leaving).await?;
        self.say_word().await?;
        Ok(full)
    }

    async fn say_word(&mut self) -> Result<()> {
        match self.queue.word() {
            Some(word) => {
                self.counted().idles(word == Watermark::Idle);
                self.send(Port::MAIN, Message::Watermark(word)).await
            }
            None => Ok(()),
        }
    }

    async fn send_rows(&mut self, mut leaving: Leaving<W::Done>) -> Result<()> {
        if leaving.rows == 0 {
            return Ok(());
        }
        let done: u64 = leaving.done.iter().map(|(piece, _)| piece.len() as u64).sum();
        let failed: u64 = leaving.failed.iter().map(|(piece, _)| piece.len() as u64).sum();
        if let (OnFailure::Fail, Some((piece, failure))) = (self.policy.on_failure, leaving.failed.first()) {
            return Err(self.failed(piece, failure));
        }
        if let Some((piece, Failure { reason, .. })) = leaving.failed.first() {
            let text = || format!("{reason}: {}", excerpt(&self.input, piece));
            self.counters.samples.offer(SampleKind::Failed, self.body.now(), text);
        }
        let work = self.work.clone();
        while let Some(batch) = work.next_batch(&mut leaving.done).map_err(|error| self.internal(error))? {
            // There may be none among many that were looked at.
            tokio::task::coop::consume_budget().await;
            if batch.num_rows() > 0 {
                self.counted().rows_out.fetch_add(batch.num_rows() as u64, Relaxed);
                self.send(Port::MAIN, Message::Batch(batch.into())).await?;
            }
        }
        if let (Some(schema), false) = (&self.failed, leaving.failed.is_empty()) {
            let batch = failed_rows(&self.input, schema, &leaving.failed).map_err(|error| self.internal(error))?;
            for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let rows = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
                self.send(FAILED, Message::Batch(rows.into())).await?;
            }
        }
        self.counted().processed.fetch_add(done, Relaxed);
        self.counters.failed.fetch_add(failed, Relaxed);
        self.counters.warn(Warner::Task(self.reporter.task.task), self.work.warning());
        self.count_in_flight();
        Ok(())
    }

    /// Sends through the chain.
    pub(super) async fn send(&mut self, port: Port, message: Message) -> Result<()> {
        let Self { body, calls, answered, counters, .. } = self;
        while_calling(calls, answered, body.take(counters.name(), port, message)).await
    }

    fn failed(&self, piece: &Piece, failure: &Failure) -> Error {
        let Failure { reason, attempts } = failure;
        let excerpt = excerpt(&self.input, piece);
        Error::Call { operator: self.counters.name().into(), attempts: *attempts, reason: reason.clone(), excerpt }
    }
}

/// Does `work` and sees to the calls meanwhile: what nobody polls would run into its time-out.
pub(super) async fn while_calling<D, T>(
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
