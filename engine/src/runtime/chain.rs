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

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::RecordBatch;
use windrow_operators::{Advance, Operator, OperatorError, Outbox, Port, Timestamp, Watermark};

use super::channel::{End, Message};
use crate::{Error, Result, metrics::Counters};

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
}

enum Work {
    Process(usize, RecordBatch),
    Advance(usize, Timestamp),
    /// The task is about to fall idle: nobody will wait for what is held back only to save work.
    Flush(usize),
    Idle,
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
}

impl Chain {
    pub(crate) fn new(task: usize, root: Vec<Target>, links: Vec<Link>) -> Self {
        Self { task, root, links, stack: Vec::new(), outbox: Outbox::new() }
    }

    /// Puts a message of the chain's input on the stack, or straight out. Call [`Chain::run`] until it is done.
    pub(crate) fn feed(&mut self, message: Message, out: &mut Vec<(usize, Message)>) {
        match message {
            Message::Batch(batch) => self.push_batch(None, Port::MAIN, batch, out),
            Message::Watermark(Watermark::At(time)) => self.push_time(None, time, out),
            Message::Watermark(Watermark::Idle) => {
                self.stack.push(Work::Idle);
                self.stack.extend((0..self.links.len()).rev().map(Work::Flush));
            }
            Message::End(end) => {
                for edge in self.edges() {
                    out.push((edge, Message::End(end)));
                }
            }
        }
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
fn guard<T>(counters: &Counters, call: impl FnOnce() -> windrow_operators::Result<T>) -> Result<T> {
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

/// The end of a stream as the chain's last messages: the end of time, if it is one.
pub(crate) fn last_messages(end: End) -> Vec<Message> {
    match end {
        End::Exhausted => vec![Message::Watermark(Watermark::At(Timestamp::MAX)), Message::End(end)],
        End::Stopped => vec![Message::End(end)],
    }
}
