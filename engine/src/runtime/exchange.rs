//! How the messages of a task reach the tasks of the next chain.

use windrow_operators::{Result, key::Partitioner};

use super::channel::{Disconnected, Message, Sender};
use crate::checkpoint::mutated;

/// One edge, from one task.
pub(crate) enum Output {
    /// To one task: rows keep their partition.
    Forward(Sender),
    /// By key group to all tasks; what is not a row goes to each of them.
    Hash(Partitioner, Vec<Sender>),
    /// To all tasks.
    Broadcast(Vec<Sender>),
}

/// Why a message could not be sent.
pub(crate) enum SendError {
    Disconnected,
    Partition(windrow_operators::OperatorError),
}

impl From<Disconnected> for SendError {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

impl Output {
    /// Sends a message, waiting for room.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), SendError> {
        match (self, message) {
            (Self::Forward(sender), message) => sender.send(message).await?,
            (Self::Hash(partitioner, senders), Message::Batch(batch)) => {
                for (task, part) in partitioner.split(&batch).map_err(SendError::Partition)? {
                    senders[task].send(Message::Batch(part.into())).await?;
                }
            }
            (Self::Hash(_, senders) | Self::Broadcast(senders), message) => {
                // Once for all, and not of each copy.
                message.bytes();
                for sender in senders {
                    sender.send(message.clone()).await?;
                }
            }
        }
        Ok(())
    }
}

/// Sends what a chain has gathered, in order.
pub(crate) async fn send_all(outputs: &mut [Output], messages: &mut Vec<(usize, Message)>) -> Result<(), SendError> {
    if mutated("a barrier overtakes the rows before it") {
        messages.sort_by_key(|(_, message)| !matches!(message, Message::Barrier(_)));
    }
    for (edge, message) in messages.drain(..) {
        outputs[edge].send(message).await?;
    }
    Ok(())
}
