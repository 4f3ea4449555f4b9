//! Operators that run in one task as plain function calls.
//!
//! ```text
//!   root ──► filter ──► pre-aggregate ──MAIN──► edge 0 (exchange)
//!                              └───────LATE──► edge 1 (sink)
//! ```
//!
//! A chain is a tree. What is to be done lies on a stack, deepest first, so that the rows an operator emitted are
//! through before it is called again: order is kept and little is held. [`Chain::run`] stops when enough messages for
//! other tasks have gathered; the task sends them, waiting if it must, and calls again. That is back-pressure, and it is
//! why an operator never awaits. An operator that has more to emit than is good for one call says so, and is called again when
//! what it has emitted is through.
//!
//! At a barrier, and at the end, every operator emits what it holds back only to save work; when all of that is through,
//! every operator is saved, and then the barrier goes on. So the states of a chain belong together.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arrow::array::RecordBatch;
use windrow_connectors::Epoch;
use windrow_operators::{
    Advance, Operator, OperatorError, Outbox, Port, Timestamp, Watermark,
    state::{SegmentId, StateWriter, TaskState},
};

use super::{
    channel::{End, Message, SizedBatch},
    memory::Share,
};
use crate::{
    Error, Result,
    checkpoint::mutated,
    clock::Moment,
    metrics::{Counters, samples::first_row},
    status::SampleKind,
};

/// Where rows go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To an operator further down this chain.
    Link(usize),
    /// To another task.
    Edge(usize),
}

/// An operator in a chain.
pub(crate) struct Link {
    pub(crate) operator: Box<dyn Operator>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) targets: Vec<(Port, Target)>,
    /// The number of its next segment.
    pub(crate) next_segment: SegmentId,
    /// When it wants to be told the processing time.
    wake: Option<Timestamp>,
    /// When it was last asked how much it holds.
    sized: Timestamp,
    /// What it has of the job's memory budget, if there is one.
    share: Option<Share>,
    /// How many batches it has taken since it was last asked for that.
    unsized_batches: usize,
}

impl Link {
    pub(crate) fn new(
        operator: Box<dyn Operator>,
        counters: Arc<Counters>,
        targets: Vec<(Port, Target)>,
        next_segment: SegmentId,
        share: Option<Share>,
    ) -> Self {
        // Every operator is told the time once when it begins: it may have been restored with timers.
        let (wake, sized) = (Some(Timestamp::MIN), Timestamp::MIN);
        Self { operator, counters, targets, next_segment, wake, sized, share, unsized_batches: 0 }
    }

    /// Looks at how much the operator holds, at `now`.
    fn size(&mut self, task: usize, now: Timestamp) -> Result<()> {
        self.sized = now;
        self.unsized_batches = 0;
        let bytes = self.operator.size();
        self.counters.task(task).holds(bytes);
        let held = self.share.as_mut().map_or(Ok(()), |share| share.holds(bytes));
        held.map_err(|error| failed(&self.counters, error))
    }
}

enum Work {
    Process(usize, Port, Rows),
    Advance(usize, Timestamp),
    /// The processing time has come that it asked for.
    Tick(usize),
    /// Nobody will wait for what is held back only to save work.
    Flush(usize),
    Idle,
    Barrier(Epoch),
    End(End),
    /// The operator has promised this time, and all it emitted before is through.
    Promise(usize, Timestamp),
}

/// What an operator is given.
struct Rows {
    batch: RecordBatch,
    /// How many rows it has to answer for. More than there are when it goes on with a batch that it has been given.
    owed: u64,
}

impl Rows {
    fn of(batch: RecordBatch) -> Self {
        Self { owed: batch.num_rows() as u64, batch }
    }
}

/// How many messages gather before the task sends them.
const ENOUGH_MESSAGES: usize = 16;
/// So many calls of operators are made before others have their turn: a timer that sets itself again may go on for long.
const ENOUGH_CALLS: usize = 256;

/// How much processing time lies between two looks at how much an operator holds.
const SIZED_EVERY: Duration = Duration::from_secs(1);
/// And how many batches at the most, when there is a memory budget.
const SIZED_EVERY_BATCHES: usize = 64;

pub(crate) struct Chain {
    task: usize,
    root: Vec<Target>,
    links: Vec<Link>,
    stack: Vec<Work>,
    outbox: Outbox,
    /// Whether there are checkpoints that ask for the states of the operators.
    saves: bool,
    /// The states of the operators at the last barrier or at the end.
    saved: Vec<TaskState>,
    /// Whether its input is idle.
    idle: bool,
    /// When the last call ended, or [`Chain::run`] began: so one look at the clock a call is enough.
    mark: Moment,
}

impl Chain {
    pub(crate) fn new(task: usize, root: Vec<Target>, links: Vec<Link>, saves: bool) -> Self {
        let (stack, outbox, saved, mark) = (Vec::new(), Outbox::new(), Vec::new(), Moment::now());
        Self { task, root, links, stack, outbox, saves, saved, idle: false, mark }
    }

    /// Puts a message of the chain's input on the stack, or straight out. Call [`Chain::run`] until it is done. `now` is
    /// the processing time; `port` says which input rows are of.
    pub(crate) fn feed(&mut self, port: Port, message: Message, now: Timestamp, out: &mut Vec<(usize, Message)>) {
        self.outbox.set_now(now);
        match message {
            Message::Batch(batch) => self.push_batch(None, port, batch, out),
            Message::Watermark(Watermark::At(time)) => {
                self.idles(false);
                self.push_time(None, time, out);
            }
            Message::Watermark(Watermark::Idle) => self.flush_before(Work::Idle),
            Message::Barrier(epoch) if mutated("operators are not flushed before a barrier") => {
                self.stack.push(Work::Barrier(epoch));
            }
            Message::Barrier(epoch) => self.flush_before(Work::Barrier(epoch)),
            Message::End(end) => self.flush_before(Work::End(end)),
        }
    }

    /// When an operator wants to be told the processing time.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        self.links.iter().filter_map(|link| link.wake).min()
    }

    /// Tells the operators that asked for it that it is `now`. Call [`Chain::run`] until it is done.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.outbox.set_now(now);
        for (index, link) in self.links.iter_mut().enumerate().rev() {
            if link.wake.is_some_and(|wake| wake <= now) {
                link.wake = None;
                self.stack.push(Work::Tick(index));
            }
        }
    }

    /// What its input says of that is true of every operator.
    fn idles(&mut self, idle: bool) {
        if std::mem::replace(&mut self.idle, idle) != idle {
            self.links.iter().for_each(|link| link.counters.task(self.task).idles(idle));
        }
    }

    /// Has every operator, from the root on, emit what it holds back, and then does `work`.
    fn flush_before(&mut self, work: Work) {
        self.stack.push(work);
        self.stack.extend((0..self.links.len()).rev().map(Work::Flush));
    }

    /// The states of the operators, in order, since the last barrier or the end.
    pub(crate) fn take_saved(&mut self) -> Vec<TaskState> {
        std::mem::take(&mut self.saved)
    }

    /// Works until nothing is left (`true`), or enough messages for other tasks have gathered or so many calls been made that
    /// others should have their turn (`false`).
    pub(crate) fn run(&mut self, out: &mut Vec<(usize, Message)>) -> Result<bool> {
        let mut calls = 0;
        self.mark = Moment::now();
        while let Some(work) = self.stack.pop() {
            match work {
                Work::Process(link, port, rows) => self.process(link, port, rows, out)?,
                Work::Advance(link, time) => self.advance(link, time, out)?,
                Work::Tick(link) => self.call(link, out, |operator, outbox| operator.tick(outbox))?,
                Work::Flush(link) => self.call(link, out, |operator, outbox| operator.flush(outbox))?,
                Work::Idle => {
                    self.idles(true);
                    let idle = |edge| (edge, Message::Watermark(Watermark::Idle));
                    out.extend(self.timed_edges().into_iter().map(idle));
                }
                Work::Barrier(epoch) => self.close(Message::Barrier(epoch), out)?,
                Work::End(end) => self.close(Message::End(end), out)?,
                Work::Promise(link, time) => self.push_time(Some(link), time, out),
            }
            calls += 1;
            if out.len() >= ENOUGH_MESSAGES || calls >= ENOUGH_CALLS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn process(&mut self, index: usize, port: Port, rows: Rows, out: &mut Vec<(usize, Message)>) -> Result<()> {
        let Rows { batch, owed } = rows;
        let (n, schema) = (batch.num_rows() as u64, batch.schema());
        let began = self.mark;
        self.timed(index, |operator, outbox| operator.process(port, batch, outbox))?;
        self.took(index, began);
        let (link, outbox) = (&mut self.links[index], &mut self.outbox);
        let (processed, late) = outbox.take_counts();
        let counted = link.counters.task(self.task);
        counted.rows_in.fetch_add(n, Relaxed);
        counted.processed.fetch_add(processed, Relaxed);
        counted.late.fetch_add(late, Relaxed);
        let again = outbox.take_again();
        let answered = processed + late;
        if answered > owed || (answered < owed && !again) {
            let message = format!("it had to answer for {owed} rows and did for {processed} processed and {late} late");
            return Err(failed(&link.counters, OperatorError::Internal(message)));
        }
        if again {
            let rows = Rows { batch: RecordBatch::new_empty(schema), owed: owed - answered };
            self.stack.push(Work::Process(index, port, rows));
        }
        // Where no time comes by, as on a stream without event time, rows are what there is to look after.
        let now = outbox.now();
        link.unsized_batches += 1;
        let counts = link.share.as_ref().is_some_and(|share| !share.spills());
        let is_many = counts && link.unsized_batches >= SIZED_EVERY_BATCHES;
        if is_many || now >= link.sized.saturating_add(2 * SIZED_EVERY) {
            link.size(self.task, now.saturating_sub(SIZED_EVERY))?;
        }
        self.push_outbox(index, out);
        Ok(())
    }

    fn advance(&mut self, index: usize, time: Timestamp, out: &mut Vec<(usize, Message)>) -> Result<()> {
        let began = self.mark;
        let advance = self.timed(index, |operator, outbox| operator.advance(time, outbox))?;
        self.took(index, began);
        let (link, outbox) = (&mut self.links[index], &mut self.outbox);
        // The stack is worked from its top: what comes last is put there first.
        match advance {
            Advance::Again => self.stack.push(Work::Advance(index, time)),
            Advance::Promise(promise) => {
                let counted = link.counters.task(self.task);
                counted.reaches(time);
                counted.promises(promise);
                let now = outbox.now();
                if now >= link.sized.saturating_add(SIZED_EVERY) || time == Timestamp::MAX {
                    link.size(self.task, now)?;
                }
                self.stack.push(Work::Promise(index, promise));
            }
        }
        self.push_outbox(index, out);
        Ok(())
    }

    /// A call that neither takes rows nor promises anything. One that does nothing either is none to tell of: on a stream without event
    /// time there is one for each batch.
    fn call(
        &mut self,
        index: usize,
        out: &mut Vec<(usize, Message)>,
        call: impl FnOnce(&mut dyn Operator, &mut Outbox) -> windrow_operators::Result<()>,
    ) -> Result<()> {
        let began = self.mark;
        self.timed(index, call)?;
        if !self.outbox.is_empty() {
            self.took(index, began);
        }
        self.push_outbox(index, out);
        Ok(())
    }

    /// Calls an operator, and counts the time.
    fn timed<T>(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut dyn Operator, &mut Outbox) -> windrow_operators::Result<T>,
    ) -> Result<T> {
        let (link, outbox) = (&mut self.links[index], &mut self.outbox);
        let counted = link.counters.task(self.task);
        let began = self.mark;
        counted.busy.begin(began);
        let called = guard(&link.counters, || call(link.operator.as_mut(), outbox));
        self.mark = Moment::now();
        counted.busy.end(self.mark);
        called
    }

    /// The call that has just ended counts among those of the operator.
    fn took(&self, index: usize, began: Moment) {
        self.links[index].counters.task(self.task).calls.add(self.mark.since(began));
    }

    /// Saves every operator and lets the message go on, which no later one can overtake.
    fn close(&mut self, message: Message, out: &mut Vec<(usize, Message)>) -> Result<()> {
        self.saved.clear();
        for link in self.links.iter_mut().filter(|_| self.saves) {
            let _busy = link.counters.task(self.task).busy.running();
            let mut state = StateWriter::new(&mut link.next_segment);
            guard(&link.counters, || link.operator.save(&mut state))?;
            self.saved.push(state.finish());
        }
        out.extend(self.edges().into_iter().map(|edge| (edge, message.clone())));
        Ok(())
    }

    fn push_outbox(&mut self, index: usize, out: &mut Vec<(usize, Message)>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        // Said outside of `process` it means nothing; the next operator has not said it.
        outbox.take_again();
        let asked = outbox.take_wake();
        let wake = &mut self.links[index].wake;
        *wake = wake.iter().copied().chain(asked).min();
        let rows = |(port, batch): &(Port, RecordBatch)| if *port == Port::MAIN { batch.num_rows() as u64 } else { 0 };
        let batches: Vec<_> = outbox.drain().collect();
        self.links[index].counters.task(self.task).rows_out.fetch_add(batches.iter().map(rows).sum(), Relaxed);
        if let Some((_, late)) = batches.iter().find(|(port, batch)| !port.is_timed() && batch.num_rows() > 0) {
            self.links[index].counters.samples.offer(SampleKind::Late, outbox.now(), || first_row(late));
        }
        let first_new = self.stack.len();
        for (port, batch) in batches {
            self.push_batch(Some(index), port, batch.into(), out);
        }
        self.stack[first_new..].reverse();
        self.outbox = outbox;
    }

    /// Rows that left an operator by `port`, or came to the chain on it.
    fn push_batch(&mut self, from: Option<usize>, port: Port, batch: SizedBatch, out: &mut Vec<(usize, Message)>) {
        let input = if from.is_none() { port } else { Port::MAIN };
        let targets = self.targets(from, port);
        if targets.iter().filter(|target| matches!(target, Target::Edge(_))).count() > 1 {
            // Once for all, and not of each copy.
            batch.bytes();
        }
        for target in targets {
            match target {
                Target::Link(link) => self.stack.push(Work::Process(link, input, Rows::of(batch.clone().into_rows()))),
                Target::Edge(edge) => out.push((edge, Message::Batch(batch.clone()))),
            }
        }
    }

    fn push_time(&mut self, from: Option<usize>, time: Timestamp, out: &mut Vec<(usize, Message)>) {
        let targets = match from {
            // The end is true of late rows as well: nothing more comes, what is open is complete.
            Some(link) if time == Timestamp::MAX => self.links[link].targets.iter().map(|(_, t)| *t).collect(),
            Some(link) => timed(&self.links[link]).collect(),
            None => self.root.clone(),
        };
        for target in targets {
            match target {
                Target::Link(link) => self.stack.push(Work::Advance(link, time)),
                Target::Edge(edge) => out.push((edge, Message::Watermark(Watermark::At(time)))),
            }
        }
    }

    fn targets(&self, from: Option<usize>, port: Port) -> Vec<Target> {
        match from {
            None => self.root.clone(),
            Some(link) => self.links[link].targets.iter().filter(|(p, _)| *p == port).map(|(_, t)| *t).collect(),
        }
    }

    fn edges(&self) -> Vec<usize> {
        let links = self.links.iter().flat_map(|link| link.targets.iter().map(|(_, target)| *target));
        edges_of(self.root.iter().copied().chain(links))
    }

    /// The edges that carry event time: late rows leave by edges that promise nothing.
    fn timed_edges(&self) -> Vec<usize> {
        edges_of(self.root.iter().copied().chain(self.links.iter().flat_map(timed)))
    }
}

/// Where the rows of an operator go that its promises are about.
fn timed(link: &Link) -> impl Iterator<Item = Target> + '_ {
    link.targets.iter().filter(|(port, _)| port.is_timed()).map(|(_, target)| *target)
}

fn edges_of(targets: impl Iterator<Item = Target>) -> Vec<usize> {
    targets.filter_map(|target| if let Target::Edge(edge) = target { Some(edge) } else { None }).collect()
}

fn failed(counters: &Counters, error: OperatorError) -> Error {
    Error::Operator { operator: counters.name().into(), error }
}

/// Calls an operator; a panic in the user's code becomes an error that names it.
pub(crate) fn guard<T>(counters: &Counters, call: impl FnOnce() -> windrow_operators::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| failed(counters, error)),
        Err(panic) => Err(Error::Panic { operator: counters.name().into(), message: panic_message(&*panic) }),
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringViewArray};

    use super::*;

    #[test]
    fn what_goes_to_several_tasks_is_counted_once() {
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values(["one", "a text that is no part of its view"]));
        let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let feed = |edges: usize| {
            let mut chain = Chain::new(0, (0..edges).map(Target::Edge).collect(), Vec::new(), false);
            let mut out = Vec::new();
            chain.feed(Port::MAIN, Message::Batch(rows.clone().into()), Timestamp::MIN, &mut out);
            let counted = |(_, message): &(usize, Message)| match message {
                Message::Batch(batch) => batch.is_counted(),
                _ => false,
            };
            out.iter().map(counted).collect::<Vec<_>>()
        };
        assert_eq!(feed(2), [true, true], "before copies are made");
        assert_eq!(feed(1), [false], "who sends it counts it");
    }
}
