//! The one place that merges the inputs of a task.
//!
//! ```text
//!   input 0 ──┐
//!   input 1 ──┼──► Gate ──► batches in order of each input, one merged watermark, one end
//!   input 2 ──┘
//! ```
//!
//! An input that ended stands at the end of time and holds nobody back. When all have ended, so has the task: as
//! exhausted if all were, as stopped if any was stopped.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
};

use arrow::array::RecordBatch;
use windrow_operators::{Timestamp, Watermark, WatermarkMerge};

use super::channel::{Disconnected, End, Message, Receiver};

pub(crate) struct Gate {
    /// `None` once the input has ended.
    inputs: Vec<Option<Receiver>>,
    merge: WatermarkMerge,
    /// What is to be said before the next message is read.
    pending: VecDeque<Message>,
    /// Where the next look begins, so that no input starves the others.
    next: usize,
    open: usize,
    stopped: bool,
}

impl Gate {
    pub(crate) fn new(inputs: Vec<Receiver>) -> Self {
        Self {
            merge: WatermarkMerge::new(inputs.len()),
            pending: VecDeque::new(),
            next: 0,
            open: inputs.len(),
            stopped: false,
            inputs: inputs.into_iter().map(Some).collect(),
        }
    }

    /// The next message of the merged stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Message, Disconnected> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                return Ok(message);
            }
            if self.open == 0 {
                return Ok(Message::End(if self.stopped { End::Stopped } else { End::Exhausted }));
            }
            let (input, message) = poll_fn(|cx| self.poll_inputs(cx)).await;
            if let Some(batch) = self.take(input, message.ok_or(Disconnected)?) {
                self.pending.push_back(Message::Batch(batch));
            }
        }
    }

    fn poll_inputs(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Message>)> {
        let inputs = self.inputs.len();
        for step in 0..inputs {
            let index = (self.next + step) % inputs;
            if let Some(input) = &mut self.inputs[index]
                && let Poll::Ready(message) = input.poll(cx)
            {
                self.next = (index + 1) % inputs;
                return Poll::Ready((index, message));
            }
        }
        Poll::Pending
    }

    /// Notes what `input` said; returns its rows, which follow what they cause to be said.
    fn take(&mut self, input: usize, message: Message) -> Option<RecordBatch> {
        let (said, batch) = match message {
            Message::Batch(batch) => (self.merge.wake(input), Some(batch)),
            Message::Watermark(watermark) => (self.merge.observe(input, watermark), None),
            Message::End(end) => {
                self.inputs[input] = None;
                self.open -= 1;
                self.stopped |= end == End::Stopped;
                // A stopped input promises nothing more than it has.
                let exhausted = end == End::Exhausted;
                (exhausted.then(|| self.merge.observe(input, Watermark::At(Timestamp::MAX))).flatten(), None)
            }
        };
        let mut said = said;
        while let Some(watermark) = said {
            self.pending.push_back(Message::Watermark(watermark));
            said = self.merge.poll();
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::{super::channel::channel, *};

    fn at(t: i64) -> Message {
        Message::Watermark(Watermark::At(Timestamp::from_micros(t)))
    }

    /// Sends each script through an input of its own, one after the other, and gives what the gate says.
    async fn merged(scripts: Vec<Vec<Message>>) -> Vec<String> {
        let mut receivers = Vec::new();
        for script in scripts {
            let (sender, receiver) = channel(1 << 20);
            for message in script {
                sender.send(message).await.unwrap();
            }
            receivers.push(receiver);
        }
        let mut gate = Gate::new(receivers);
        let mut said = Vec::new();
        loop {
            match gate.next().await {
                Err(Disconnected) => said.push("disconnected".into()),
                Ok(message) => said.push(format!("{message:?}")),
            }
            if said.last().is_some_and(|last| last.starts_with("End") || last.starts_with("disc")) {
                return said;
            }
        }
    }

    const MAX: &str = "Watermark(At(Timestamp(9223372036854775807)))";

    #[tokio::test]
    async fn all_exhausted_is_the_end_of_time() {
        let said = merged(vec![vec![at(5), Message::End(End::Exhausted)], vec![at(3), Message::End(End::Exhausted)]]);
        assert_eq!(said.await, ["Watermark(At(Timestamp(3)))", MAX, "End(Exhausted)"]);
    }

    #[tokio::test]
    async fn one_stopped_input_stops_all_and_completes_no_window() {
        let said = merged(vec![vec![at(5), Message::End(End::Exhausted)], vec![at(3), Message::End(End::Stopped)]]);
        let said = said.await;
        assert_eq!(said.last().unwrap(), "End(Stopped)");
        assert!(!said.contains(&MAX.to_string()), "{said:?}");
    }

    #[tokio::test]
    async fn a_channel_that_closes_without_end_is_a_failure() {
        let said = merged(vec![vec![at(5)], vec![at(3), Message::End(End::Exhausted)]]).await;
        assert_eq!(said.last().unwrap(), "disconnected");
    }

    #[tokio::test]
    async fn a_gate_without_inputs_has_ended() {
        assert_eq!(merged(vec![]).await, ["End(Exhausted)"]);
    }
}
