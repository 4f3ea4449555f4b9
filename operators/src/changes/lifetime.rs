//! How far event time has come for an operator that keeps a table, and how long a row of it stays.

use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};

use crate::{
    OperatorError, Outbox, Port, Result, StreamSchema, Timestamp,
    late::set_late_aside,
    state::{StateReader, StateWriter},
    time::times_of,
};

/// The number in the state that says how far event time had come, in microseconds.
const WATERMARK: &str = "watermark";

/// Event time as an operator knows it.
pub(super) struct Lifetime {
    /// What it has been given and has promised.
    watermark: Timestamp,
    ttl: Option<Duration>,
}

/// Refuses a time to live on a stream that has no time.
pub(super) fn check_ttl(ttl: Option<Duration>, stream: &StreamSchema) -> Result<()> {
    match (ttl, stream.time()) {
        (Some(_), None) => Err(OperatorError::Plan(
            "a time to live is counted in event time: declare it at the source with .event_time(column, …), or keep \
             the state for ever"
                .into(),
        )),
        _ => Ok(()),
    }
}

impl Lifetime {
    pub(super) fn new(ttl: Option<Duration>) -> Self {
        Self { watermark: Timestamp::MIN, ttl }
    }

    /// The time to live behind how far event time has come; without one, how far it has come.
    pub(super) fn horizon(&self) -> Timestamp {
        self.watermark.saturating_sub(self.ttl.unwrap_or_default())
    }

    /// Event time has come to `time`, and what that means has been said. The end of the input is not a time: a restored job
    /// may go on with more.
    pub(super) fn reach(&mut self, time: Timestamp) {
        if time < Timestamp::MAX {
            self.watermark = self.watermark.max(time);
        }
    }

    /// Rows earlier than this go away when event time comes to `time`: `None` for no row, `Some(None)` for all of them at the
    /// end of the input.
    pub(super) fn ends(&self, time: Timestamp) -> Option<Option<i64>> {
        let ttl = self.ttl?;
        Some((time < Timestamp::MAX).then(|| time.max(self.watermark).saturating_sub(ttl).micros()))
    }

    /// The event times of changes that take rows of these times away.
    pub(super) fn ended(&self, times: &[i64]) -> Vec<i64> {
        let ttl = self.ttl.unwrap_or_default();
        self.held(times.iter().map(|&time| Timestamp::from_micros(time).saturating_add(ttl).micros()))
    }

    /// Times, none before what was promised.
    pub(super) fn held(&self, times: impl Iterator<Item = i64>) -> Vec<i64> {
        times.map(|time| time.max(self.watermark.micros())).collect()
    }

    /// The rows that come no more than the time to live behind the watermark. The others leave as late; all are answered for.
    pub(super) fn on_time(
        &self,
        batch: RecordBatch,
        time: Option<usize>,
        late: Port,
        out: &mut Outbox,
    ) -> Result<RecordBatch> {
        let first = self.ttl.map(|_| self.horizon());
        not_before(first, batch, time, late, out)
    }

    pub(super) fn save(&self, state: &mut StateWriter<'_>) {
        state.set(WATERMARK, self.watermark.micros());
    }

    pub(super) fn load(&mut self, state: &StateReader) {
        self.watermark = state.greatest(false, WATERMARK).map_or(Timestamp::MIN, Timestamp::from_micros);
    }
}

/// The rows that are not before `first`. The others leave as late; all are answered for.
pub(super) fn not_before(
    first: Option<Timestamp>,
    batch: RecordBatch,
    time: Option<usize>,
    late: Port,
    out: &mut Outbox,
) -> Result<RecordBatch> {
    let batch = match (first, time) {
        (Some(first), Some(time)) => set_late_aside(batch, time, |time| time < first.micros(), late, out)?,
        _ => batch,
    };
    out.processed(batch.num_rows());
    Ok(batch)
}

/// The event times of rows, of a stream that has them.
pub(super) fn times(batch: &RecordBatch, time: Option<usize>) -> Result<Option<&[i64]>> {
    time.map(|time| times_of(batch, time)).transpose()
}

/// A column of the state: these times, or nulls.
pub(super) fn time_column(times: Option<Vec<i64>>, rows: usize) -> ArrayRef {
    times.map_or_else(|| new_null_array(&Timestamp::data_type(), rows), Timestamp::column)
}
