//! What travels between two tasks, and the channel it travels in, bounded in bytes.
//!
//! The bytes of a batch are those that its rows would take alone ([`bytes_of`]). An exchange makes a batch for every receiver
//! that shares the texts of the batch that came: together they count as that one, not as so many times. A batch that has
//! few rows of large shared buffers left, because a filter took the others, keeps more than it counts for.
//!
//! What that costs: a look at each view of a column of texts in views, 16 bytes a row in order (for 8192 rows about ten
//! microseconds), and at nothing else that grows with the rows. A batch that has been counted knows what it had ([`SizedBatch`]): a source
//! counts what it reads, and what goes on as it was read is not looked at again.

use std::{
    future::poll_fn,
    ops::Deref,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::array::RecordBatch;
use tokio::sync::{
    Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use windrow_connectors::Epoch;
use windrow_operators::{Watermark, bytes::bytes_of};

use crate::metrics::meter::Meter;

/// Everything on an edge, in band and in order.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Batch(SizedBatch),
    Watermark(Watermark),
    /// What came before belongs to this epoch, what comes after to the next: the cut of a checkpoint.
    Barrier(Epoch),
    End(End),
}

/// Rows, and how many bytes they have once somebody has asked.
#[derive(Clone, Debug)]
pub(crate) struct SizedBatch {
    rows: RecordBatch,
    bytes: OnceLock<usize>,
}

impl SizedBatch {
    /// Rows of so many bytes.
    pub(crate) fn of(rows: RecordBatch, bytes: usize) -> Self {
        Self { rows, bytes: bytes.into() }
    }

    pub(crate) fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// Copies that are made from now on know it too: who makes several asks before.
    pub(crate) fn bytes(&self) -> usize {
        *self.bytes.get_or_init(|| bytes_of(self.rows.columns()))
    }
}

#[cfg(test)]
impl SizedBatch {
    /// Whether somebody has asked for its bytes.
    pub(crate) fn is_counted(&self) -> bool {
        self.bytes.get().is_some()
    }
}

impl From<RecordBatch> for SizedBatch {
    fn from(rows: RecordBatch) -> Self {
        Self { rows, bytes: OnceLock::new() }
    }
}

impl Deref for SizedBatch {
    type Target = RecordBatch;

    fn deref(&self) -> &RecordBatch {
        &self.rows
    }
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
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes(),
            Self::Watermark(_) | Self::Barrier(_) | Self::End(_) => 0,
        }
    }
}

/// A channel that holds at most `capacity` bytes of messages, and always at least one message.
pub(crate) fn channel(capacity: usize) -> (Sender, Receiver) {
    let capacity = capacity.clamp(LEAST_BYTES, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let (sender, receiver) = unbounded_channel();
    let lane = Arc::new(Lane {
        room: Semaphore::new(capacity),
        capacity,
        queued: AtomicUsize::new(0),
        rows: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        blocked: Meter::new(),
    });
    (Sender { sender, lane: lane.clone() }, Receiver { receiver, lane })
}

/// What both ends of a channel share, and who watches.
#[derive(Debug)]
pub(crate) struct Lane {
    room: Semaphore,
    capacity: usize,
    /// The room that is taken by what is in it. A sender that waits takes what room there is already, for a message that is not in it.
    queued: AtomicUsize,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// The time that the sender has waited for room.
    pub(crate) blocked: Meter,
}

impl Lane {
    /// How many bytes wait in it, each message counted as at least [`LEAST_BYTES`]; none when nobody reads any more.
    pub(crate) fn queued(&self) -> usize {
        if self.room.is_closed() { 0 } else { self.queued.load(Relaxed) }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many rows have gone in, and how many bytes they had.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.rows.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// Waits until there is room for so many bytes, and takes it.
    async fn take_room(&self, bytes: usize) -> Result<(), Disconnected> {
        let mut acquiring = pin!(self.room.acquire_many(bytes as u32));
        let mut waiting = None;
        let room = poll_fn(|cx| {
            let polled = acquiring.as_mut().poll(cx);
            // A task that has had its turn is made to wait as well, though there is room: that is not back-pressure.
            if polled.is_pending() && waiting.is_none() && self.room.available_permits() < bytes {
                waiting = Some(self.blocked.running());
            }
            polled
        });
        // The receiver gives the room back.
        room.await.map_err(|_| Disconnected)?.forget();
        Ok(())
    }
}

/// The end that waits when the channel is full: back-pressure.
#[derive(Debug)]
pub(crate) struct Sender {
    sender: UnboundedSender<(Message, usize)>,
    lane: Arc<Lane>,
}

impl Sender {
    pub(crate) async fn send(&self, message: Message) -> Result<(), Disconnected> {
        let bytes = message.bytes();
        let rows = if let Message::Batch(batch) = &message { batch.num_rows() as u64 } else { 0 };
        // What is larger than the channel may pass alone.
        let room = bytes.clamp(LEAST_BYTES, self.lane.capacity);
        self.lane.take_room(room).await?;
        // Before it may be taken out.
        self.lane.queued.fetch_add(room, Relaxed);
        self.sender.send((message, room)).map_err(|_| Disconnected)?;
        self.lane.rows.fetch_add(rows, Relaxed);
        self.lane.bytes.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }
}

/// The end that gives room back as it takes messages.
#[derive(Debug)]
pub(crate) struct Receiver {
    receiver: UnboundedReceiver<(Message, usize)>,
    lane: Arc<Lane>,
}

impl Receiver {
    pub(crate) fn poll(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Message>> {
        self.receiver.poll_recv(cx).map(|received| {
            received.map(|(message, bytes)| {
                self.lane.queued.fetch_sub(bytes, Relaxed);
                self.lane.room.add_permits(bytes);
                message
            })
        })
    }
}

impl Drop for Receiver {
    /// Wakes senders that wait for room that nobody will make.
    fn drop(&mut self) {
        self.lane.room.close();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use futures::FutureExt;

    use super::*;

    fn batch(rows: usize) -> Message {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        Message::Batch(RecordBatch::try_from_iter([("n", column)]).unwrap().into())
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

    #[tokio::test(start_paused = true)]
    async fn what_waits_and_for_how_long_is_counted() {
        let (sender, mut receiver) = channel(10_000);
        let lane = sender.lane().clone();
        let blocked = || lane.blocked.micros(crate::clock::Moment::now());
        sender.send(batch(1_000)).await.unwrap();
        assert_eq!((lane.queued(), lane.capacity(), lane.sent(), blocked()), (8_000, 10_000, (1_000, 8_000), 0));
        let waits = tokio::time::timeout(std::time::Duration::from_secs(3), sender.send(batch(1_000))).await;
        assert!(waits.is_err());
        let mut waits = Box::pin(sender.send(batch(1_000)));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(lane.queued(), 8_000, "what waits for room is not in it");
        drop(waits);
        assert_eq!((lane.sent().0, blocked()), (1_000, 3_000_000));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(blocked(), 3_000_000, "nobody waits any more");
        assert!(poll_fn(|cx| receiver.poll(cx)).await.is_some());
        assert_eq!(lane.queued(), 0);
        sender.send(Message::End(End::Stopped)).await.unwrap();
        assert_eq!((lane.queued(), lane.sent()), (LEAST_BYTES, (1_000, 8_000)));
        drop(receiver);
        assert_eq!(lane.queued(), 0);
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
        assert!(Message::Batch(large.slice(5, 10).into()).bytes() < 200);
    }

    #[tokio::test]
    async fn texts_in_views_count_and_parts_of_a_batch_count_as_the_batch() {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(vec!["x".repeat(100); 1_000]));
        let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let whole = Message::Batch(rows.clone().into()).bytes();
        assert_eq!(whole, 1_000 * (16 + 100));
        let parts: usize = (0..100).map(|part| Message::Batch(rows.slice(10 * part, 10).into()).bytes()).sum();
        assert_eq!(parts, whole);
        let (sender, _receiver) = channel(200_000);
        assert!(sender.send(Message::Batch(rows.clone().into())).now_or_never().is_some());
        assert!(
            sender.send(Message::Batch(rows.into())).now_or_never().is_none(),
            "116,000 of 200,000 bytes are taken"
        );
    }

    #[tokio::test]
    async fn what_has_been_counted_is_not_looked_at_again() {
        let Message::Batch(rows) = batch(1_000) else { unreachable!() };
        let (sender, _receiver) = channel(10_000);
        sender.send(Message::Batch(SizedBatch::of(rows.into_rows(), 7))).await.unwrap();
        assert_eq!(sender.lane().sent(), (1_000, 7));
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
