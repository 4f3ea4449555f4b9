//! A task that reads: the only place that knows positions.
//!
//! ```text
//!   fetch ──► rejected rows ──policy──► fail | count | edge
//!     └─────► event time ──────────────────────────────┐
//!                 └─► watermark of the split ──► merged watermark, after the rows it speaks of
//!                                                       └──► small batches together ──► chain ──► outputs
//! ```
//!
//! Barriers begin here, between two fetches: what has been fetched goes through the chain before them, and the positions say what has
//! not been. A task that is restored first says the watermark it had said before, and is idle only after another silence. Splits that appear come in
//! between two fetches as well, so a checkpoint has them wholly or not at all. Barriers go through while the reader finds out where
//! they begin.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use tokio::sync::{Notify, watch};
use windrow_connectors::{ConnectorError, Epoch, Fetch, Position, Rejected, Rows, SourceReader, SplitId};
use windrow_operators::{OperatorError, Timestamp, Watermark};

use super::{
    channel::{End, Message, SizedBatch},
    discovery::Found,
    operator_task::Body,
    rejects::{RejectTo, excerpt, rejects},
    report::{Reporter, Snapshot},
    source_time::{Heard, SourceTime},
};
use crate::{
    Error, Result,
    checkpoint::{SplitState, mutated},
    clock::{Moment, sleep_until},
    metrics::Counters,
    status::SampleKind,
};

mod new_splits;
mod progress;
mod shown;
mod together;

pub(crate) use new_splits::Waiting;
pub(crate) use progress::{Progress, note_begins};
pub(crate) use shown::Shown;
use shown::{BytesRead, at_work};
pub(crate) use together::Together;

/// How often a reader is asked how far it is behind.
const LAG_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct SourceTask {
    pub(crate) reader: Box<dyn SourceReader>,
    /// What the source says its rows look like.
    pub(crate) schema: SchemaRef,
    pub(crate) splits: HashMap<SplitId, Progress>,
    /// Its splits that appear while it runs.
    pub(crate) found: Found,
    /// Those that its reader cannot read yet, and when they are given to it again.
    pub(crate) put_off: Waiting,
    /// What who watches sees of its splits.
    pub(crate) shown: Shown,
    /// Rung when it is decided where a split begins or ends and no checkpoint holds that.
    pub(crate) decided: Arc<Notify>,
    pub(crate) lag: LagAsked,
    /// Absent when the stream has no event time.
    pub(crate) time: Option<SourceTime>,
    /// Whether its splits can only be paused all at once.
    pub(crate) all_or_none: bool,
    /// Whether it waits for other sources, and reads nothing.
    pub(crate) waits: bool,
    /// How many tasks behind it hold so much that it is not to read.
    pub(crate) brake: watch::Receiver<usize>,
    pub(crate) rejects: RejectTo,
    /// Whether operators have been told the processing time since the last rows.
    pub(crate) ticked: bool,
    /// What the chain has not been told yet.
    pub(crate) together: Together,
    pub(crate) body: Body,
    pub(crate) counters: Arc<Counters>,
    /// What had been said when the checkpoint was taken from which this task goes on.
    pub(crate) said_before: Vec<Watermark>,
    /// The newest epoch whose barrier is wanted.
    pub(crate) barrier: watch::Receiver<Option<Epoch>>,
    pub(crate) reporter: Reporter,
    pub(crate) stop: watch::Receiver<bool>,
    /// Set when the stop came before the end of the input.
    pub(crate) stopped: Arc<AtomicBool>,
}

/// When the reader was last asked how far it is behind.
pub(crate) struct LagAsked {
    at: Moment,
    /// Whether it knew. One that does not is asked again only after rows, so that it is not disturbed for nothing.
    known: bool,
}

impl LagAsked {
    pub(crate) fn not_yet() -> Self {
        Self { at: Moment::now(), known: false }
    }

    fn due(&self) -> Option<Moment> {
        self.known.then(|| self.at.after(LAG_EVERY))
    }
}

enum Event {
    Fetched(windrow_connectors::Result<Fetch>),
    /// Nothing more is ready to be taken together with the rows before.
    Dry,
    /// The splits have to say something without rows: that one is idle, or what the clock says.
    Silence,
    /// A split that is paused may be read again, or there is nothing to do.
    Resume,
    /// An operator of the chain wants to be told the processing time.
    Tick,
    Barrier(Epoch),
    /// Splits have appeared that this task is to read.
    Found(Vec<SplitId>),
    /// It is time to ask how far the reader is behind.
    Lag,
    Stop,
}

impl SourceTask {
    pub(crate) async fn run(mut self) -> Result<()> {
        for watermark in std::mem::take(&mut self.said_before) {
            self.say(Some(watermark)).await?;
        }
        match &mut self.time {
            Some(time) => time.begin(),
            None => self.say(Some(Watermark::Idle)).await?,
        }
        self.send_rejects(None).await?;
        self.ask_lag().await?;
        let splits: Vec<SplitId> = self.splits.keys().cloned().collect();
        self.show_new(&splits);
        self.put_off();
        let end = loop {
            // A source that is always ready must still let others run.
            tokio::task::coop::consume_budget().await;
            self.align();
            let event = self.next_event().await;
            if !matches!(event, Event::Fetched(Ok(Fetch::Rows(_)))) {
                self.go_on().await?;
            }
            match event {
                Event::Stop => {
                    self.stopped.store(true, Relaxed);
                    break End::Stopped;
                }
                Event::Silence => {
                    // What has come to wait since it was asked last is no silence.
                    self.ask_lag().await?;
                    let said = self.time.as_mut().map_or_else(Vec::new, SourceTime::speak);
                    for watermark in said {
                        self.say(Some(watermark)).await?;
                    }
                    self.show_splits();
                    self.excuse();
                }
                Event::Resume | Event::Dry => {}
                Event::Found(splits) => self.take_found(splits).await?,
                Event::Lag => {
                    self.ask_lag().await?;
                    self.show_splits();
                }
                Event::Tick => {
                    self.body.tick(self.counters.name()).await?;
                    self.ticked = true;
                    self.excuse();
                }
                Event::Barrier(epoch) => self.take_barrier(epoch).await?,
                Event::Fetched(fetched) => {
                    self.ticked = false;
                    match fetched.map_err(|error| self.source_failed(error))? {
                        Fetch::Rows(rows) => {
                            self.take_rows(rows).await?;
                            if self.together.has_waited() {
                                self.go_on().await?;
                            }
                        }
                        Fetch::SplitEnd(split) => {
                            self.splits.entry(split.clone()).or_default().ended = true;
                            self.show_end(&split);
                            let said = self.time.as_mut().and_then(|time| time.splits.ended(&split));
                            self.say(said).await?;
                            self.excuse();
                        }
                        Fetch::End => {
                            // What has been given to this task meanwhile nobody else will read.
                            let mut last = self.found.last();
                            last.extend(self.put_off.take());
                            if last.is_empty() {
                                break End::Exhausted;
                            }
                            self.take_found(last).await?;
                        }
                    }
                }
            }
        };
        if let Some(time) = &mut self.time {
            time.leave();
            self.counters.pauses(self.reporter.task.task, &[], None);
        }
        if end == End::Exhausted {
            self.splits.values_mut().for_each(|split| split.ended = true);
            self.say(Some(Watermark::At(Timestamp::MAX))).await?;
        }
        self.send_everywhere(Message::End(end)).await?;
        self.show_lag();
        self.show_splits();
        let snapshot = self.snapshot();
        self.reporter.ended(snapshot);
        Ok(())
    }

    /// What the task has waited for others is not the silence of its splits. Returns how long that was since the last call.
    fn excuse(&mut self) -> Duration {
        let waited = self.body.take_waited();
        if let Some(time) = &mut self.time {
            time.splits.excuse(waited);
        }
        waited
    }

    async fn take_barrier(&mut self, epoch: Epoch) -> Result<()> {
        let began = Moment::now();
        self.send_everywhere(Message::Barrier(epoch)).await?;
        let snapshot = self.snapshot();
        self.reporter.barrier(epoch, snapshot);
        // Saving takes time as well, and none of it is silence.
        self.body.take_waited();
        if let Some(time) = &mut self.time {
            time.splits.excuse(began.elapsed());
        }
        Ok(())
    }

    fn source_failed(&self, error: ConnectorError) -> Error {
        Error::Source { operator: self.counters.name().into(), error }
    }

    /// Asks how far the reader is behind, because a split with records waiting is not idle. [`SourceTask::show_splits`] shows it.
    async fn ask_lag(&mut self) -> Result<()> {
        let lag = self.show_lag();
        let said = self.time.as_mut().map_or_else(Vec::new, |time| time.splits.lag(&lag, Moment::now()));
        for watermark in said {
            self.say(Some(watermark)).await?;
        }
        Ok(())
    }

    async fn ask_lag_again(&mut self) -> Result<()> {
        if self.lag.at.elapsed() >= LAG_EVERY {
            self.ask_lag().await?;
            self.show_splits();
        }
        Ok(())
    }

    fn show_lag(&mut self) -> Vec<(SplitId, u64)> {
        let lag = self.reader.lag();
        self.lag = LagAsked { at: Moment::now(), known: !lag.is_empty() };
        self.counters.lags(self.reporter.task.task, &lag);
        self.shown.lag = lag.iter().cloned().collect();
        lag
    }

    /// Leaves out the splits that are too far ahead of other sources.
    fn align(&mut self) {
        let changed = self.time.as_mut().and_then(|time| time.align(self.all_or_none));
        let Some((paused, hold)) = changed else { return };
        match self.all_or_none {
            true => self.waits = !paused.is_empty(),
            false => {
                self.reader.pause(&paused);
            }
        }
        self.counters.pauses(self.reporter.task.task, &paused, Some(hold.clone()));
        self.shown.hold = Some(hold);
        self.show_splits();
    }

    /// Sends a message through the chain and on the edges of rejected records.
    async fn send_everywhere(&mut self, message: Message) -> Result<()> {
        self.tell(message.clone()).await?;
        if let RejectTo::Edges(edges) = self.rejects.clone() {
            for edge in edges {
                self.body.send_to(self.counters.name(), edge, message.clone()).await?;
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let state = |(split, progress): (&SplitId, &Progress)| {
            let (split, mut position) = (split.as_str().into(), progress.position.map(|position| position.0));
            let (ended, end) = (progress.ended, progress.end.map(|end| end.0));
            let end = end.filter(|_| !mutated("where splits end is not saved"));
            let mut state = SplitState { split, position, ended, end, latest: None, idle: false, promised: None };
            if let Some(time) = &self.time {
                time.splits.save(&mut state);
            }
            if mutated("a position is saved one too far") {
                position = position.map(|position| position.saturating_add(1));
            } else if mutated("a position is saved one too little") {
                position = position.map(|position| position.saturating_sub(1));
            } else if state.idle && mutated("the positions of idle splits are not saved") {
                position = None;
            }
            SplitState { position, ..state }
        };
        let splits = self.splits.iter().filter(|(_, progress)| !progress.is_still_new()).map(state).collect();
        Snapshot { operators: self.body.take_saved(), splits, receipts: Vec::new() }
    }

    /// What there is to do while it brakes: as when a channel is full, but barriers and a stop come through.
    async fn braked(&mut self) -> Event {
        let (began, due) = (Moment::now(), self.body.due());
        let _braked = self.counters.task(self.reporter.task.task).braked.running();
        let event = tokio::select! {
            biased;
            Ok(_) = self.stop.wait_for(|stop| *stop) => Event::Stop,
            Ok(()) = self.barrier.changed() => match *self.barrier.borrow_and_update() {
                Some(epoch) => Event::Barrier(epoch),
                None => Event::Resume,
            },
            Ok(_) = self.brake.wait_for(|braking| *braking == 0) => Event::Resume,
            () = sleep_until(due) => Event::Tick,
            () = sleep_until(self.lag.due()) => Event::Lag,
        };
        if let Some(time) = &mut self.time {
            time.splits.excuse(began.elapsed());
        }
        event
    }

    async fn next_event(&mut self) -> Event {
        if *self.brake.borrow() > 0 && !self.together.holds() {
            return self.braked().await;
        }
        let silence = self.time.as_ref().and_then(SourceTime::due);
        // A reader that is always ready for one split must not hide the silence of another.
        let silent = silence.is_some_and(|at| at <= Moment::now());
        let due = self.body.due();
        // Timers that are always due must not hide the reader.
        let is_due = !self.ticked && due.is_some_and(|at| at <= Moment::now());
        let reads = !self.waits && *self.brake.borrow() == 0;
        let busy = &self.counters.task(self.reporter.task.task).busy;
        tokio::select! {
            biased;
            // The sender lives as long as the job; a closed channel means nobody can ask for a stop any more.
            Ok(_) = self.stop.wait_for(|stop| *stop) => Event::Stop,
            Ok(()) = self.barrier.changed() => match *self.barrier.borrow_and_update() {
                Some(epoch) => Event::Barrier(epoch),
                None => Event::Resume,
            },
            splits = self.found.next() => Event::Found(splits),
            splits = self.put_off.due_again() => Event::Found(splits),
            () = std::future::ready(()), if silent => Event::Silence,
            () = std::future::ready(()), if is_due => Event::Tick,
            fetched = at_work(busy, self.reader.fetch()), if reads => Event::Fetched(fetched),
            () = std::future::ready(()), if self.together.holds() => Event::Dry,
            () = may_resume(&mut self.time) => Event::Resume,
            () = sleep_until(silence) => Event::Silence,
            () = sleep_until(due) => Event::Tick,
            () = sleep_until(self.lag.due()) => Event::Lag,
        }
    }

    /// Tells the rows of one fetch, then what they say about time, then notes the position.
    async fn take_rows(&mut self, rows: Rows) -> Result<()> {
        let began = Moment::now();
        self.check(&rows)?;
        let Rows { split, batch, mut rejected, passed_over, next, origins } = rows;
        // Their format has answered for them.
        self.counted().rows_in.fetch_add(passed_over, Relaxed);
        self.counted().processed.fetch_add(passed_over, Relaxed);
        if batch.num_rows() == 0 && rejected.is_empty() {
            // Where the split stands now, behind what is no record. That is worth a checkpoint, and no sign of life.
            self.counters.moved.fetch_add(1, Relaxed);
            self.show_moved(&split, passed_over, 0, next.0);
            self.note_position(split, next)?;
            return self.ask_lag_again().await;
        }
        let read = (batch.num_rows() + rejected.len()) as u64;
        let bytes = BytesRead::of(&batch, &rejected);
        let (batch, heard) = match &mut self.time {
            Some(time) => {
                time.read(&split, batch, origins.as_ref(), &mut rejected).map_err(|error| self.failed(error))?
            }
            None => (batch, Heard::default()),
        };
        drop(origins);
        let now = Moment::now();
        self.counted().busy.add(began, now);
        let before = self.time.as_mut().and_then(|time| time.splits.before_rows(&split, now));
        self.say(before).await?;
        self.counted().rows_in.fetch_add(read, Relaxed);
        self.take_rejected(&split, rejected).await?;
        let kept = batch.num_rows() as u64;
        self.counted().rows_out.fetch_add(kept, Relaxed);
        self.counted().processed.fetch_add(kept, Relaxed);
        if kept > 0 {
            self.tell(Message::Batch(bytes.known(batch))).await?;
        }
        if let (Some(latest), Some(time)) = (heard.latest, &mut self.time) {
            self.counters.saw(latest);
            self.counters.future.fetch_add(heard.future, Relaxed);
            let said = time.splits.after_rows(&split, heard.promised);
            self.say(said).await?;
        }
        if self.time.is_none() {
            // It says nothing of event time, so nobody who reads it beside others may wait for it to.
            self.say(Some(Watermark::Idle)).await?;
        }
        self.excuse();
        self.show_moved(&split, read + passed_over, bytes.all(), next.0);
        self.show_rows(&split, &heard, now);
        self.note_position(split, next)?;
        self.ask_lag_again().await
    }

    /// The reader keeps its side of the contract: rows of the source's schema, of a split it was given.
    fn check(&self, Rows { split, batch, origins, .. }: &Rows) -> Result<()> {
        let reason = if self.splits.get(split).is_none_or(|split| split.ended) {
            "the reader delivered rows of a split it was not given, or that had ended"
        } else if batch.schema_ref() != &self.schema {
            "the reader delivered columns that are not those of the source's schema"
        } else if origins.as_ref().is_some_and(|origins| origins.len() != batch.num_rows()) {
            "the reader does not say of each row which record it was (one record is one row)"
        } else {
            return Ok(());
        };
        let error = ConnectorError::Data { at: split.to_string(), reason: format!("{reason}: a bug in the connector") };
        Err(Error::Source { operator: self.counters.name().into(), error })
    }

    /// A position only ever grows; a reader that goes back would deliver rows twice.
    fn note_position(&mut self, split: SplitId, next: Position) -> Result<()> {
        let former = self.splits.entry(split.clone()).or_default().position.replace(next);
        if former.is_some_and(|former| former > next) {
            let reason = format!("the reader went back to position {next}: a bug in the connector");
            let error = ConnectorError::Data { at: split.to_string(), reason };
            return Err(Error::Source { operator: self.counters.name().into(), error });
        }
        Ok(())
    }

    async fn say(&mut self, watermark: Option<Watermark>) -> Result<()> {
        let Some(watermark) = watermark else { return Ok(()) };
        self.counted().idles(watermark == Watermark::Idle);
        if let Watermark::At(time) = watermark {
            self.counted().reaches(time);
            self.counted().promises(time);
        }
        self.tell(Message::Watermark(watermark)).await
    }

    /// In the order of the split, as far as their positions are known: what did not decode and what has no event time come apart.
    async fn take_rejected(&mut self, split: &SplitId, mut rejected: Vec<Rejected>) -> Result<()> {
        rejected.sort_by_key(|record| (record.position.is_none(), record.position));
        let Some(first) = rejected.first() else { return Ok(()) };
        let text = || {
            let at = first.position.map_or_else(String::new, |position| format!(" at {position}"));
            format!("{split}{at}: {}: {}", first.reason, excerpt(first.bytes.as_deref().unwrap_or_default()))
        };
        self.counters.samples.offer(SampleKind::Rejected, self.body.now(), text);
        self.counters.rejected.fetch_add(rejected.len() as u64, Relaxed);
        match &self.rejects {
            RejectTo::Count => Ok(()),
            RejectTo::Fail => {
                // What was before it is not to blame.
                self.go_on().await?;
                Err(Error::Rejected {
                    operator: self.counters.name().into(),
                    split: split.clone(),
                    position: first.position,
                    line: first.line,
                    reason: first.reason.clone(),
                    excerpt: excerpt(first.bytes.as_deref().unwrap_or_default()),
                })
            }
            RejectTo::Edges(_) => {
                let batch = rejects(self.counters.name(), split, &rejected);
                let batch = batch.map_err(|error| self.failed(error))?;
                self.send_rejects(Some(batch.into())).await
            }
        }
    }

    /// Sends rejected records, and that nobody is to wait for more: they say nothing of event time.
    async fn send_rejects(&mut self, rows: Option<SizedBatch>) -> Result<()> {
        let RejectTo::Edges(edges) = self.rejects.clone() else { return Ok(()) };
        for edge in edges {
            for message in rows.clone().map(Message::Batch).into_iter().chain([Message::Watermark(Watermark::Idle)]) {
                self.body.send_to(self.counters.name(), edge, message).await?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: OperatorError) -> Error {
        Error::Operator { operator: self.counters.name().into(), error }
    }
}

async fn may_resume(time: &mut Option<SourceTime>) {
    match time {
        Some(time) => time.may_resume().await,
        None => std::future::pending().await,
    }
}
