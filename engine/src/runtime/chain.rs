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
//! why an operator never awaits.
//!
//! At a barrier, and at the end, every operator emits what it holds back only to save work; when all of that is through,
//! every operator is saved, and then the barrier goes on. So the states of a chain belong together.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::RecordBatch;
use windrow_connectors::Epoch;
use windrow_operators::{
    Advance, Operator, OperatorError, Outbox, Port, Timestamp, Watermark,
    state::{SegmentId, StateWriter, TaskState},
};

use super::channel::{End, Message};
use crate::{Error, Result, checkpoint::mutated, metrics::Counters};

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
}

enum Work {
    Process(usize, RecordBatch),
    Advance(usize, Timestamp),
    /// Nobody will wait for what is held back only to save work.
    Flush(usize),
    Idle,
    Barrier(Epoch),
    End(End),
    /// The operator has promised this time, and all it emitted before is through.
    Promise(usize, Timestamp),
}

/// How many messages gather before the task sends them.
const ENOUGH_MESSAGES: usize = 16;

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
}

impl Chain {
    pub(crate) fn new(task: usize, root: Vec<Target>, links: Vec<Link>, saves: bool) -> Self {
        Self { task, root, links, stack: Vec::new(), outbox: Outbox::new(), saves, saved: Vec::new() }
    }

    /// Puts a message of the chain's input on the stack, or straight out. Call [`Chain::run`] until it is done.
    pub(crate) fn feed(&mut self, message: Message, out: &mut Vec<(usize, Message)>) {
        match message {
            Message::Batch(batch) => self.push_batch(None, Port::MAIN, batch, out),
            Message::Watermark(Watermark::At(time)) => self.push_time(None, time, out),
            Message::Watermark(Watermark::Idle) => self.flush_before(Work::Idle),
            Message::Barrier(epoch) if mutated("operators are not flushed before a barrier") => {
                self.stack.push(Work::Barrier(epoch));
            }
            Message::Barrier(epoch) => self.flush_before(Work::Barrier(epoch)),
            Message::End(end) => self.flush_before(Work::End(end)),
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

    /// Works until nothing is left (`true`) or enough messages for other tasks have gathered (`false`).
    pub(crate) fn run(&mut self, out: &mut Vec<(usize, Message)>) -> Result<bool> {
        while let Some(work) = self.stack.pop() {
            match work {
                Work::Process(link, batch) => self.process(link, batch, out)?,
                Work::Advance(link, time) => self.advance(link, time, out)?,
                Work::Flush(link) => self.flush(link, out)?,
                Work::Idle => {
                    let idle = |edge| (edge, Message::Watermark(Watermark::Idle));
                    out.extend(self.timed_edges().into_iter().map(idle));
                }
                Work::Barrier(epoch) => self.close(Message::Barrier(epoch), out)?,
                Work::End(end) => self.close(Message::End(end), out)?,
                Work::Promise(link, time) => self.push_time(Some(link), time, out),
            }
            if out.len() >= ENOUGH_MESSAGES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn process(&mut self, index: usize, batch: RecordBatch, out: &mut Vec<(usize, Message)>) -> Result<()> {
        let link = &mut self.links[index];
        let rows = batch.num_rows() as u64;
        let outbox = &mut self.outbox;
        guard(&link.counters, || link.operator.process(Port::MAIN, batch, outbox))?;
        let (processed, late) = outbox.take_counts();
        link.counters.rows_in.fetch_add(rows, Relaxed);
        link.counters.processed.fetch_add(processed, Relaxed);
        link.counters.late.fetch_add(late, Relaxed);
        if processed + late != rows {
            let message = format!("it took {rows} rows and answered for {processed} processed and {late} late");
            return Err(failed(&link.counters, OperatorError::Internal(message)));
        }
        self.push_outbox(index, out);
        Ok(())
    }

    fn advance(&mut self, index: usize, time: Timestamp, out: &mut Vec<(usize, Message)>) -> Result<()> {
        let link = &mut self.links[index];
        let outbox = &mut self.outbox;
        let advance = guard(&link.counters, || link.operator.advance(time, outbox))?;
        // The stack is worked from its top: what comes last is put there first.
        match advance {
            Advance::Again => self.stack.push(Work::Advance(index, time)),
            Advance::Promise(promise) => {
                link.counters.watermark(self.task, time);
                self.stack.push(Work::Promise(index, promise));
            }
        }
        self.push_outbox(index, out);
        Ok(())
    }

    fn flush(&mut self, index: usize, out: &mut Vec<(usize, Message)>) -> Result<()> {
        let link = &mut self.links[index];
        let outbox = &mut self.outbox;
        guard(&link.counters, || link.operator.flush(outbox))?;
        self.push_outbox(index, out);
        Ok(())
    }

    /// Saves every operator and lets the message go on, which no later one can overtake.
    fn close(&mut self, message: Message, out: &mut Vec<(usize, Message)>) -> Result<()> {
        self.saved.clear();
        for link in self.links.iter_mut().filter(|_| self.saves) {
            let mut state = StateWriter::new(&mut link.next_segment);
            guard(&link.counters, || link.operator.save(&mut state))?;
            self.saved.push(state.finish());
        }
        out.extend(self.edges().into_iter().map(|edge| (edge, message.clone())));
        Ok(())
    }

    fn push_outbox(&mut self, index: usize, out: &mut Vec<(usize, Message)>) {
        let mut outbox = std::mem::take(&mut self.outbox);
        let rows = |(port, batch): &(Port, RecordBatch)| if *port == Port::MAIN { batch.num_rows() as u64 } else { 0 };
        let batches: Vec<_> = outbox.drain().collect();
        self.links[index].counters.rows_out.fetch_add(batches.iter().map(rows).sum(), Relaxed);
        let first_new = self.stack.len();
        for (port, batch) in batches {
            self.push_batch(Some(index), port, batch, out);
        }
        self.stack[first_new..].reverse();
        self.outbox = outbox;
    }

    fn push_batch(&mut self, from: Option<usize>, port: Port, batch: RecordBatch, out: &mut Vec<(usize, Message)>) {
        for target in self.targets(from, port) {
            match target {
                Target::Link(link) => self.stack.push(Work::Process(link, batch.clone())),
                Target::Edge(edge) => out.push((edge, Message::Batch(batch.clone()))),
            }
        }
    }

    fn push_time(&mut self, from: Option<usize>, time: Timestamp, out: &mut Vec<(usize, Message)>) {
        let targets = match from {
            // The end is true of late rows as well: nothing more comes, what is open is complete.
            Some(link) if time == Timestamp::MAX => self.links[link].targets.iter().map(|(_, t)| *t).collect(),
            _ => self.targets(from, Port::MAIN),
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
        let main = |link: &Link| link.targets.clone().into_iter().filter(|(p, _)| *p == Port::MAIN).map(|(_, t)| t);
        edges_of(self.root.iter().copied().chain(self.links.iter().flat_map(main)))
    }
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
