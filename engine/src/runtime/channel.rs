//! What travels between two tasks, and the channel it travels in, bounded in bytes.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use tokio::sync::{
    Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use windrow_connectors::Epoch;
use windrow_operators::Watermark;

/// Everything on an edge, in band and in order.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Batch(RecordBatch),
    Watermark(Watermark),
    /// What came before belongs to this epoch, what comes after to the next: the cut of a checkpoint.
    Barrier(Epoch),
    End(End),
}

/// Why a stream ends. A channel that closes without saying so is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The input is exhausted; all event time has passed, every window is complete.
    Exhausted,
    /// The job was asked to stop. Event time stands where it stood, open windows are not complete.
    Stopped,
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnected;

/// A message without rows still takes room, so that nothing that travels is free.
const LEAST_BYTES: usize = 256;

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch_bytes(batch),
            Self::Watermark(_) | Self::Barrier(_) | Self::End(_) => 0,
        }
    }
}

/// The bytes of the rows, not of the buffers they may be a small slice of.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let column = |array: &Arc<dyn Array>| {
        array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
    };
    batch.columns().iter().map(column).sum()
}

/// A channel that holds at most `capacity` bytes of messages, and always at least one message.
pub(crate) fn channel(capacity: usize) -> (Sender, Receiver) {
    let capacity = capacity.clamp(LEAST_BYTES, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let (sender, receiver) = unbounded_channel();
    let room = Arc::new(Semaphore::new(capacity));
    (Sender { sender, room: room.clone(), capacity }, Receiver { receiver, room })
}

/// The end that waits when the channel is full: back-pressure.
#[derive(Debug)]
pub(crate) struct Sender {
    sender: UnboundedSender<(Message, usize)>,
    room: Arc<Semaphore>,
    capacity: usize,
}

impl Sender {
    pub(crate) async fn send(&self, message: Message) -> Result<(), Disconnected> {
        // What is larger than the channel may pass alone.
        let bytes = message.bytes().clamp(LEAST_BYTES, self.capacity);
        let room = self.room.acquire_many(bytes as u32).await.map_err(|_| Disconnected)?;
        self.sender.send((message, bytes)).map_err(|_| Disconnected)?;
        // The receiver gives the room back.
        room.forget();
        Ok(())
    }
}

/// The end that gives room back as it takes messages.
#[derive(Debug)]
pub(crate) struct Receiver {
    receiver: UnboundedReceiver<(Message, usize)>,
    room: Arc<Semaphore>,
}

impl Receiver {
    pub(crate) fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Message>> {
        self.receiver.poll_recv(cx).map(|received| {
            received.map(|(message, bytes)| {
                self.room.add_permits(bytes);
                message
            })
        })
    }
}

impl Drop for Receiver {
    /// Wakes senders that wait for room that nobody will make.
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use arrow::array::{ArrayRef, Int64Array};
    use futures::FutureExt;

    use super::*;

    fn batch(rows: usize) -> Message {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        Message::Batch(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    #[tokio::test]
    async fn a_full_channel_makes_the_sender_wait_and_a_read_wakes_it() {
        let (sender, mut receiver) = channel(10_000);
        assert!(sender.send(batch(1_000)).now_or_never().is_some());
        let mut second = Box::pin(sender.send(batch(1_000)));
        assert!((&mut second).now_or_never().is_none(), "8,000 of 10,000 bytes are taken");
        assert!(poll_fn(|cx| receiver.poll(cx)).await.is_some());
        assert_eq!(second.await, Ok(()));
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_channel_passes_alone() {
        let (sender, mut receiver) = channel(1_000);
        assert!(sender.send(batch(100_000)).now_or_never().is_some());
        assert!(sender.send(batch(1)).now_or_never().is_none());
        assert!(poll_fn(|cx| receiver.poll(cx)).await.is_some());
        assert!(sender.send(batch(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_small_slice_of_a_large_batch_counts_as_small() {
        let Message::Batch(large) = batch(100_000) else { unreachable!() };
        assert!(Message::Batch(large.slice(5, 10)).bytes() < 200);
    }

    #[tokio::test]
    async fn a_sender_that_waits_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = channel(1_000);
        sender.send(batch(1_000)).await.unwrap();
        let waiting = sender.send(batch(1_000));
        drop(receiver);
        assert_eq!(waiting.await, Err(Disconnected));
    }
}
