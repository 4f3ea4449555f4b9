//! A task that reads from other tasks: gate, chain, outputs.

use std::time::Duration;

use windrow_operators::{Port, Timestamp, state::TaskState};

use super::{
    chain::Chain,
    channel::{Disconnected, Message},
    exchange::{Output, SendError, send_all},
    gate::Gate,
    report::{Reporter, Snapshot},
};
use crate::{
    Error, Result,
    clock::{Moment, ProcessingTime, sleep_until},
};

pub(crate) struct OperatorTask {
    pub(crate) name: String,
    pub(crate) gate: Gate,
    pub(crate) body: Body,
    pub(crate) reporter: Reporter,
}

impl OperatorTask {
    pub(crate) async fn run(mut self) -> Result<()> {
        // Ticks and messages take turns: a gate that always has something must not hide a timer, nor timers that are always
        // due the gate.
        let mut ticked = false;
        loop {
            tokio::task::coop::consume_budget().await;
            let due = self.body.due();
            if !ticked && due.is_some_and(|due| due <= Moment::now()) {
                self.body.tick(&self.name).await?;
                ticked = true;
                continue;
            }
            let (port, message) = tokio::select! {
                biased;
                next = self.gate.next() => next.map_err(|Disconnected| disconnected(&self.name))?,
                () = sleep_until(due) => {
                    ticked = false;
                    continue;
                }
            };
            ticked = false;
            let barrier = if let Message::Barrier(epoch) = message { Some(epoch) } else { None };
            let last = matches!(message, Message::End(_));
            self.body.take(&self.name, port, message).await?;
            let mut snapshot = || Snapshot { operators: self.body.take_saved(), ..Snapshot::default() };
            match barrier {
                Some(epoch) => self.reporter.barrier(epoch, snapshot()),
                None if last => {
                    self.reporter.ended(snapshot());
                    return Ok(());
                }
                None => {}
            }
        }
    }
}

pub(crate) fn disconnected(name: &str) -> Error {
    Error::Disconnected { operator: name.into() }
}

/// A chain and where it sends to: what source tasks and operator tasks have in common.
pub(crate) struct Body {
    chain: Chain,
    outputs: Vec<Output>,
    messages: Vec<(usize, Message)>,
    clock: ProcessingTime,
    /// How long it has waited for room in the channels.
    waited: Duration,
}

impl Body {
    pub(crate) fn new(chain: Chain, outputs: Vec<Output>, clock: ProcessingTime) -> Self {
        Self { chain, outputs, messages: Vec::new(), clock, waited: Duration::ZERO }
    }

    /// The processing time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// When an operator wants to be told the processing time.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.chain.wake().map(|time| self.clock.moment(time))
    }

    /// Tells the processing time to the operators that asked for it; when it returns, all that caused has been sent.
    pub(crate) async fn tick(&mut self, name: &str) -> Result<()> {
        self.chain.tick(self.clock.now());
        self.work(name).await
    }

    /// How long it has waited for room since the last call.
    pub(crate) fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// The states of its operators at the barrier or the end that it has just taken.
    pub(crate) fn take_saved(&mut self) -> Vec<TaskState> {
        self.chain.take_saved()
    }

    /// Takes one message all the way through: when it returns, all it caused has been sent.
    pub(crate) async fn take(&mut self, name: &str, port: Port, message: Message) -> Result<()> {
        self.chain.feed(port, message, self.clock.now(), &mut self.messages);
        self.work(name).await
    }

    async fn work(&mut self, name: &str) -> Result<()> {
        loop {
            let done = self.chain.run(&mut self.messages)?;
            self.send(name).await?;
            if done {
                return Ok(());
            }
            // There may have been nothing to send.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Sends a message that does not go through the chain: the rejected rows of a source.
    pub(crate) async fn send_to(&mut self, name: &str, edge: usize, message: Message) -> Result<()> {
        self.messages.push((edge, message));
        self.send(name).await
    }

    async fn send(&mut self, name: &str) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let started = Moment::now();
        let sent = send_all(&mut self.outputs, &mut self.messages).await;
        self.waited += started.elapsed();
        sent.map_err(|error| match error {
            SendError::Disconnected => disconnected(name),
            SendError::Partition(error) => Error::Operator { operator: name.into(), error },
        })
    }
}
