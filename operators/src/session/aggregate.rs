//! The operator: rows into sessions, complete sessions into results.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch},
    compute::{filter_record_batch, not},
};

use super::{fragments::Fragments, open::Sessions, plan::Shared, saved, spec::Span};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    aggregates::ArgumentReader,
    key::encoded::KeyEncoder,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter, bounded::cut, segments::Segments},
    time::times_of,
    window::occasions::Occasions,
};

/// Keyed session aggregation: open sessions, each a union of fragments, that are emitted and dropped when the watermark
/// has passed them. Made by [`SessionPlan`](super::SessionPlan).
pub struct SessionAggregate {
    plan: Arc<Shared>,
    keys: KeyEncoder,
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
    revise: Option<Revise>,
}

/// When sessions that give more than one result give them.
struct Revise {
    occasions: Occasions,
    /// Whether sessions may have changed since the clock last began to let them give results.
    has_changed: bool,
    /// Whether some have given what is due by the clock, and others not.
    is_sweeping: bool,
    /// Sessions to which so many rows have come that they may be due for an early result.
    due: Vec<u32>,
    /// What has been given.
    segments: Segments,
}

impl SessionAggregate {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        let revise = plan.session.repeats()?.map(|repeats| Revise {
            occasions: Occasions::new(repeats),
            has_changed: false,
            is_sweeping: false,
            due: Vec::new(),
            segments: Segments::default(),
        });
        Ok(Self {
            keys: KeyEncoder::new(plan.key_schema.fields().iter().map(|field| field.data_type()))?,
            sessions: Sessions::new(revise.is_some()),
            fragments: Fragments::new(&plan.aggregates)?,
            arguments: ArgumentReader::default(),
            groups: Vec::new(),
            closed: Timestamp::MIN,
            fired: Timestamp::MIN,
            is_firing: false,
            revise,
            plan,
        })
    }

    /// Finds the session of each row, in `groups` the group of its fragment. Returns which rows are not late, if some are.
    fn assign(&mut self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Self { plan, keys, sessions, fragments, groups, closed, revise, .. } = self;
        let times = times_of(batch, plan.input_time)?;
        let gaps = plan.gaps.read(batch)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&column| batch.column(column).clone()).collect();
        let keys = keys.encode(&key)?;
        groups.clear();
        let mut late = Vec::new();
        for (row, time) in times.iter().enumerate() {
            let span = Span::of_row(*time, gaps.of(row));
            match sessions.add(keys.get(row), span, closed.micros(), fragments) {
                Some(slot) => {
                    groups.push(fragments.group(&mut sessions.slots[slot as usize], slot, span));
                    if let Some(revise) = revise
                        && let Some(since) = sessions.count(slot, 1)
                    {
                        revise.came(slot, since, sessions.slots[slot as usize].span);
                    }
                }
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

    /// The results of these sessions, in this order.
    fn results(&mut self, due: &[u32]) -> Result<RecordBatch> {
        let Self { plan, keys, sessions, fragments, revise, .. } = self;
        let revisions: Option<ArrayRef> = revise.as_ref().map(|revise| {
            let save = revise.segments.next();
            let revisions = due.iter().filter_map(|slot| sessions.give(*slot, save));
            Arc::new(Int64Array::from_iter_values(revisions)) as ArrayRef
        });
        let sessions: Vec<_> = due.iter().map(|slot| &sessions.slots[*slot as usize]).collect();
        let column = |value: fn(Span) -> i64| Timestamp::column(sessions.iter().map(|s| value(s.span)).collect());
        let mut columns = vec![column(|span| span.start), column(|span| span.end)];
        columns.extend(revisions);
        columns.extend(keys.decode(sessions.iter().map(|session| session.key.as_ref()))?);
        if sessions.iter().any(|s| s.fragments.last().is_some_and(|last| fragments.takes_rows(*last))) {
            fragments.freeze(&plan.aggregates)?;
        }
        columns.extend(fragments.gather(&sessions, &plan.aggregates)?.values()?);
        columns.push(column(|span| span.end - 1));
        Ok(RecordBatch::try_new(plan.output.columns().clone(), columns)?)
    }

    /// Emits the results of these sessions, in batches of a bounded size.
    fn emit(&mut self, due: &[u32], out: &mut Outbox) -> Result<()> {
        let key_bytes = due.iter().map(|slot| self.sessions.slots[*slot as usize].key.len());
        for some in cut(key_bytes, EMIT_ROWS) {
            out.emit(self.results(&due[some])?);
        }
        Ok(())
    }

    /// Emits results of these sessions, which stay.
    fn give(&mut self, due: &[u32], out: &mut Outbox) -> Result<()> {
        if !due.is_empty() {
            self.emit(due, out)?;
            self.fragments.tidy(&mut self.sessions, &self.plan.aggregates)?;
        }
        Ok(())
    }
}

impl Revise {
    /// Asks to be woken for early results, when something has changed.
    fn ask(&mut self, out: &mut Outbox) {
        self.occasions.ask(self.has_changed || self.is_sweeping, out);
    }

    /// So many rows have come to a session since its last result.
    fn came(&mut self, slot: u32, since: i64, span: Span) {
        self.has_changed = true;
        let rows = self.occasions.rows_until(Timestamp::from_micros(span.end));
        if rows.is_some_and(|rows| since >= rows.into()) && self.due.last() != Some(&slot) {
            self.due.push(slot);
        }
    }

    /// The sessions that give an early result now, because of the rows that came.
    fn take_due(&mut self, sessions: &Sessions) -> Vec<u32> {
        let mut due = std::mem::take(&mut self.due);
        due.sort_unstable();
        due.dedup();
        let (passed, rows) = (self.occasions.passed(), self.occasions.rows_until(Timestamp::MAX));
        let rows = rows.map_or(i64::MAX, i64::from);
        due.retain(|slot| sessions.has_changed(*slot, passed.micros(), rows));
        due
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
        if let Some(revise) = &mut self.revise {
            revise.ask(out);
            let due = revise.take_due(sessions);
            self.give(&due, out)?;
        }
        let Self { plan, sessions, fragments, .. } = self;
        if fragments.is_full() {
            fragments.freeze(&plan.aggregates)?;
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
        let until_passed = match &mut self.revise {
            Some(revise) => revise.occasions.pass(time, self.closed).micros(),
            None => i64::MIN,
        };
        let complete = self.sessions.complete(until.micros(), out.step());
        // Of those that had given a result before only what has changed.
        let is_changed = |slot: &&u32| self.revise.is_none() || self.sessions.has_changed(**slot, i64::MIN, 1);
        let changed: Vec<u32> = complete.iter().filter(is_changed).copied().collect();
        self.emit(&changed, out)?;
        let Self { sessions, fragments, closed, .. } = self;
        for &slot in &complete {
            let session = &sessions.slots[slot as usize];
            *closed = (*closed).max(Timestamp::from_micros(session.span.end));
            fragments.kill(&session.fragments);
            sessions.remove(slot);
        }
        self.is_firing = complete.len() == out.step();
        if self.is_firing {
            return Ok(Advance::Again);
        }
        let passed = sessions.passed(until_passed, out.step());
        self.is_firing = passed.len() == out.step();
        self.give(&passed, out)?;
        if self.is_firing {
            return Ok(Advance::Again);
        }
        let Self { plan, sessions, fragments, .. } = self;
        if !complete.is_empty() {
            fragments.tidy(sessions, &plan.aggregates)?;
            sessions.tidy(fragments);
        }
        self.fired = self.closed;
        // Of the watermark alone, so that all tasks promise the same: just restored they may have closed more than that, which
        // begins anew, has reached, and not all as much.
        Ok(Advance::Promise(if end_of_input { time } else { time.saturating_sub(self.plan.session.lateness()) }))
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        let Some(revise) = &mut self.revise else { return Ok(()) };
        if !revise.occasions.are_due(out) {
            revise.ask(out);
            return Ok(());
        }
        // What changes behind the sweep waits for the next one, so that each session gets its turn.
        revise.has_changed &= revise.is_sweeping;
        let changed = self.sessions.sweep(revise.occasions.passed().micros(), out.step());
        revise.is_sweeping = changed.len() == out.step();
        if revise.is_sweeping {
            out.wake_at(out.now());
        } else {
            revise.occasions.given();
            revise.ask(out);
        }
        self.give(&changed, out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.is_firing {
            return Err(OperatorError::Internal("a session was saved with results half-way out".into()));
        }
        let Self { plan, keys, sessions, fragments, closed, fired, revise, .. } = self;
        saved::save_times(*closed, *fired, state);
        fragments.freeze(&plan.aggregates)?;
        fragments.tidy(sessions, &plan.aggregates)?;
        saved::save(plan, keys, sessions, fragments, state)?;
        if let Some(revise) = revise {
            revise.occasions.save(*closed, state);
            saved::save_given(plan, keys, sessions, &mut revise.segments, state)?;
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, keys, sessions, fragments, revise, .. } = self;
        (self.closed, self.fired) = saved::load_times(state);
        let Some(revise) = revise else { return saved::load(plan, keys, sessions, fragments, state) };
        let (own, given) = saved::split(state);
        saved::load(plan, keys, sessions, fragments, &own)?;
        let (segments, given) = Segments::load(&given);
        saved::load_given(plan, keys, sessions, &given)?;
        revise.segments = segments;
        revise.occasions.load(state, self.closed);
        revise.has_changed = sessions.len() > 0;
        Ok(())
    }

    fn size(&self) -> usize {
        self.sessions.size() + self.fragments.size()
    }
}
