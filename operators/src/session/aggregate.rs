//! The operator: rows into sessions, complete sessions into results.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::{filter_record_batch, not},
};

use super::{fragments::Fragments, keys::Keys, open::Sessions, plan::Shared, saved, spec::Span};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    aggregates::ArgumentReader,
    key::comparable,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter},
    time::times_of,
};

/// Keyed session aggregation: open sessions, each a union of fragments, that are emitted and dropped when the watermark
/// has passed them. Made by [`SessionPlan`](super::SessionPlan).
pub struct SessionAggregate {
    plan: Arc<Shared>,
    keys: Keys,
    sessions: Sessions,
    fragments: Fragments,
    arguments: ArgumentReader,
    groups: Vec<usize>,
    /// Every session that ends here or before is complete, and rows before it are late unless they fall into one that is
    /// not. Also the promise made downstream.
    closed: Timestamp,
    /// Every session that ends here or before has given its result.
    fired: Timestamp,
    /// Whether some that are complete have given their result and others not.
    is_firing: bool,
}

impl SessionAggregate {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(&plan.key_schema)?,
            sessions: Sessions::new(),
            fragments: Fragments::new(&plan.aggregates)?,
            arguments: ArgumentReader::default(),
            groups: Vec::new(),
            closed: Timestamp::MIN,
            fired: Timestamp::MIN,
            is_firing: false,
            plan,
        })
    }

    /// Finds the session of each row, in `groups` the group of its fragment. Returns which rows are not late, if some are.
    fn assign(&mut self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Self { plan, keys, sessions, fragments, groups, closed, .. } = self;
        let times = times_of(batch, plan.input_time)?;
        let gaps = plan.gaps.read(batch)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&column| comparable(batch.column(column))).collect();
        let keys = keys.rows(&key)?;
        groups.clear();
        let mut late = Vec::new();
        for (row, time) in times.iter().enumerate() {
            let span = Span::of_row(*time, gaps.of(row));
            match sessions.add(keys.of(row), span, closed.micros(), fragments) {
                Some(slot) => groups.push(fragments.group(&mut sessions.slots[slot as usize], slot, span)),
                None => late.push(row),
            }
        }
        if late.is_empty() {
            return Ok(None);
        }
        let mut kept = vec![true; times.len()];
        late.into_iter().for_each(|row| kept[row] = false);
        Ok(Some(BooleanArray::from(kept)))
    }

    /// The results of these sessions, by their ends.
    fn results(&mut self, complete: &[u32]) -> Result<RecordBatch> {
        let Self { plan, keys, sessions, fragments, .. } = self;
        let sessions: Vec<_> = complete.iter().map(|slot| &sessions.slots[*slot as usize]).collect();
        let column = |value: fn(Span) -> i64| Timestamp::column(sessions.iter().map(|s| value(s.span)).collect());
        let mut columns = vec![column(|span| span.start), column(|span| span.end)];
        columns.extend(keys.columns(sessions.iter().map(|session| session.key.as_ref()))?);
        if sessions.iter().any(|s| s.fragments.last().is_some_and(|last| fragments.takes_rows(*last))) {
            fragments.freeze(&plan.aggregates)?;
        }
        columns.extend(fragments.gather(&sessions, &plan.aggregates)?.values()?);
        columns.push(column(|span| span.end - 1));
        Ok(RecordBatch::try_new(plan.output.columns().clone(), columns)?)
    }
}

impl Operator for SessionAggregate {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let kept = match self.assign(&batch)? {
            None => batch,
            Some(kept) => {
                out.late(filter_record_batch(&batch, &not(&kept)?)?);
                filter_record_batch(&batch, &kept)?
            }
        };
        let Self { plan, sessions, fragments, arguments, groups, .. } = self;
        if !groups.is_empty() {
            fragments.update(&arguments.read(&plan.aggregates, &kept)?, groups)?;
            out.processed(groups.len());
        }
        if fragments.is_crowded(sessions) {
            fragments.tidy(sessions, &plan.aggregates)?;
        }
        sessions.tidy(fragments);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end_of_input = time == Timestamp::MAX;
        let until = if end_of_input {
            // All that is open is complete. But the end is not a time: a job that is started again may find more, and only
            // sessions that have given their result are closed to it.
            Timestamp::MAX
        } else {
            self.closed = self.closed.max(time.saturating_sub(self.plan.session.lateness()));
            self.closed
        };
        let complete = self.sessions.complete(until.micros(), EMIT_ROWS);
        if !complete.is_empty() {
            out.emit(self.results(&complete)?);
        }
        let Self { plan, sessions, fragments, closed, .. } = self;
        for &slot in &complete {
            let session = &sessions.slots[slot as usize];
            *closed = (*closed).max(Timestamp::from_micros(session.span.end));
            fragments.kill(&session.fragments);
            sessions.remove(slot);
        }
        self.is_firing = complete.len() == EMIT_ROWS;
        if self.is_firing {
            return Ok(Advance::Again);
        }
        if !complete.is_empty() {
            fragments.tidy(sessions, &plan.aggregates)?;
            sessions.tidy(fragments);
        }
        self.fired = self.closed;
        // Just restored it may have closed more than the watermark, which begins anew, has reached.
        Ok(Advance::Promise(if end_of_input { time } else { self.closed.min(time) }))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.is_firing {
            return Err(OperatorError::Internal("a session was saved with results half-way out".into()));
        }
        let Self { plan, keys, sessions, fragments, closed, fired, .. } = self;
        saved::save_times(*closed, *fired, state);
        fragments.freeze(&plan.aggregates)?;
        fragments.tidy(sessions, &plan.aggregates)?;
        saved::save(plan, keys, sessions, fragments, state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, keys, sessions, fragments, .. } = self;
        (self.closed, self.fired) = saved::load_times(state);
        saved::load(plan, keys, sessions, fragments, state)
    }

    fn size(&self) -> usize {
        self.sessions.size() + self.fragments.size()
    }
}
