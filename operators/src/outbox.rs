//! Where an operator puts what it has to say.

use arrow::array::RecordBatch;

use crate::{Port, Timestamp};

/// About how many rows one step of an operator emits, and the most that a batch of results has.
pub(crate) const EMIT_ROWS: usize = 8192;

/// What one call of an operator produced, in order, and how many rows it answers for. It also says what the processing
/// time is, because an operator reads no clock.
///
/// The caller empties it between two calls. An operator may rely on that and needs no limit of its own, except when one
/// watermark completes very much: see [`Advance::Again`](crate::Advance::Again).
#[derive(Debug, Default)]
pub struct Outbox {
    batches: Vec<(Port, RecordBatch)>,
    processed: u64,
    late: u64,
    now: Timestamp,
    wake: Option<Timestamp>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// The processing time of this call, by its caller. It never goes backwards.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Says what the processing time is: for the caller of an operator.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Asks for [`Operator::tick`](crate::Operator::tick) when processing time has come to `time`, or soon after. Of
    /// several requests the earliest counts; a tick uses up all of them.
    pub fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |earlier| earlier.min(time)));
    }

    /// Takes the time that the operator asked for: for its caller.
    pub fn take_wake(&mut self) -> Option<Timestamp> {
        self.wake.take()
    }

    /// Emits result rows. A batch without rows is not passed on.
    pub fn emit(&mut self, batch: RecordBatch) {
        self.push(Port::MAIN, batch);
    }

    /// Emits rows on a side output. They keep the promises of event time as results do.
    pub fn emit_on(&mut self, side: Port, batch: RecordBatch) {
        self.push(side, batch);
    }

    /// Emits rows that came too late, as they came, and answers for them.
    pub fn late(&mut self, batch: RecordBatch) {
        self.late_on(Port::LATE, batch);
    }

    /// The same for an operator with two inputs: [`Port::LATE`] or [`Port::LATE_RIGHT`].
    pub fn late_on(&mut self, port: Port, batch: RecordBatch) {
        self.late += batch.num_rows() as u64;
        self.push(port, batch);
    }

    /// Answers for `rows` rows of the input: they are in the result, or in the state, or filtered out on purpose.
    pub fn processed(&mut self, rows: usize) {
        self.processed += rows as u64;
    }

    fn push(&mut self, port: Port, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.batches.push((port, batch));
        }
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Takes the batches, oldest first.
    pub fn drain(&mut self) -> impl DoubleEndedIterator<Item = (Port, RecordBatch)> + '_ {
        self.batches.drain(..)
    }

    /// Takes the counts of rows answered for since the last call: (processed, late).
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.processed), std::mem::take(&mut self.late))
    }
}
