//! Where an operator puts what it has to say.

use arrow::array::RecordBatch;

use crate::{Port, Timestamp};

/// The most rows that a batch of results has, and about how many one step of an operator emits unless its caller says
/// otherwise: [`Outbox::step`].
pub(crate) const EMIT_ROWS: usize = 8192;

/// What one call of an operator produced, in order, and how many rows it answers for. It also says what the processing
/// time is, because an operator reads no clock.
///
/// The caller empties it between two calls. An operator may rely on that and needs no limit of its own, except when one
/// watermark or one batch makes very much: see [`Advance::Again`](crate::Advance::Again) and [`Outbox::again`].
#[derive(Debug)]
pub struct Outbox {
    batches: Vec<(Port, RecordBatch)>,
    processed: u64,
    late: u64,
    now: Timestamp,
    wake: Option<Timestamp>,
    again: bool,
    step: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        let (batches, now) = (Vec::new(), Timestamp::default());
        Self { batches, processed: 0, late: 0, now, wake: None, again: false, step: EMIT_ROWS }
    }
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// About how many rows one call should emit, of an operator that can say that there is more: at least one.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Says how many rows one call should emit: for the caller of an operator. Unless it says so they are 8192.
    pub fn set_step(&mut self, rows: usize) {
        self.step = rows.max(1);
    }

    /// The batch of this call of [`Operator::process`](crate::Operator::process) makes more than has been emitted: the caller
    /// empties the outbox and calls `process` again, on the same port and with no rows. Until that is done it makes no other
    /// call. This keeps the outbox small when one row makes millions.
    ///
    /// The rows of the batch are answered for in any of these calls, all of them by the last.
    ///
    /// ```
    /// use std::ops::Range;
    /// use std::sync::Arc;
    /// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    /// use windrow_operators::{Operator, Outbox, Port, Result};
    ///
    /// /// Every row makes a hundred.
    /// struct Hundredfold { rows: Range<i64> }
    ///
    /// impl Operator for Hundredfold {
    ///     fn process(&mut self, _: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
    ///         if self.rows.is_empty() {
    ///             out.processed(batch.num_rows());
    ///             self.rows = 0..100 * batch.num_rows() as i64;
    ///         }
    ///         let end = self.rows.end.min(self.rows.start + out.step() as i64);
    ///         let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(self.rows.start..end));
    ///         out.emit(RecordBatch::try_from_iter([("row", rows)])?);
    ///         self.rows.start = end;
    ///         if !self.rows.is_empty() {
    ///             out.again();
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    /// let batch = RecordBatch::try_from_iter([("number", number)]).unwrap();
    /// let (mut operator, mut out) = (Hundredfold { rows: 0..0 }, Outbox::new());
    /// operator.process(Port::MAIN, batch.clone(), &mut out).unwrap();
    /// let (mut steps, mut rows) = (1, out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>());
    /// while out.take_again() {
    ///     operator.process(Port::MAIN, batch.slice(0, 0), &mut out).unwrap();
    ///     rows += out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>();
    ///     steps += 1;
    /// }
    /// assert_eq!((rows, steps), (100_000, 13));
    /// ```
    pub fn again(&mut self) {
        self.again = true;
    }

    /// Whether the operator has said [`Outbox::again`] since the last time: for its caller.
    pub fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
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
