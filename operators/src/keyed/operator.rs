//! The operator of a process: rows and time to calls of the user's function, and what the keys hold to segments.
//!
//! ```text
//!   process ──► for each row: what its key holds ──► row()               in steps, Outbox::again
//!   advance ──► timers up to the watermark, in order ──► timer()         in steps, Advance::Again
//!           └─► keys whose last row is older than the ttl: removed
//!   tick    ──► processing-time timers that are due ──► timer()          in steps, wake_at
//! ```
//!
//! When rows come in order of event time, what is due for a key at the time of its row comes before the row. A timer beyond
//! the end of its key's time to live does not fire, whether one watermark passes both or two do: the answer does not depend
//! on how often watermarks come.
//!
//! A step ends when it has emitted [`Outbox::step`] records, or fired as many timers. What one call of the user's function emits
//! is not divided: it leaves in batches of a bounded size, all of them in the step of that call.

use std::{collections::BTreeSet, ops::Bound, sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, LargeBinaryBuilder, ListArray, ListBuilder, RecordBatch, TimestampMicrosecondArray,
        TimestampMicrosecondBuilder, UInt32Array, new_null_array,
    },
    datatypes::{DataType, TimestampMicrosecondType, UInt32Type},
};

use super::{
    Keyed, Process, State as _, Timer,
    context::{Held, Outputs},
    entries::{Entries, apart},
    key_reader::KeyReader,
    process::{Order, Shared},
    state,
    store::{Fate, Key, Store},
    timers::{Kind, Timers},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    key::encoded::KeyBytes,
    state::{StateReader, StateWriter},
    time::times_of,
};

/// The number that says what was promised downstream.
const PROMISED: &str = "promised";

/// How many timers may fire at the end of the input beyond those that were waiting: per key, and for all.
const CHAIN: usize = 1_000;
const CHAINS: usize = 1_000_000;

/// A process at work. Made by [`ProcessPlan`](super::ProcessPlan).
pub struct ProcessOperator<P: Process> {
    plan: Arc<Shared<P>>,
    order: Order,
    pub(super) process: P,
    store: Store<Held<P::State>>,
    entries: Entries,
    keys: KeyReader,
    timers: Timers,
    /// The last watermark but the end of the input, which is not a time: a restored job may go on with more.
    promised: i64,
    /// At the end of the input: how many timers may still fire.
    left: Option<usize>,
    /// A batch of which more has to be emitted than one step does.
    pending: Option<Pending>,
    /// About how many bytes a state has, by the last save.
    state_bytes: usize,
}

/// A batch, and how far it has come.
struct Pending {
    batch: RecordBatch,
    keys: KeyBytes,
    /// The row that is next, and the last timer that has fired before it.
    row: usize,
    fired: Option<i64>,
}

impl<P: Process> ProcessOperator<P> {
    pub(super) fn new(plan: Arc<Shared<P>>, order: Order) -> Result<Self> {
        Ok(Self {
            order,
            process: plan.process.clone(),
            store: Store::new(&plan.key)?,
            entries: Entries::default(),
            keys: KeyReader::new(&plan.key)?,
            timers: Timers::default(),
            promised: i64::MIN,
            left: None,
            pending: None,
            state_bytes: 0,
            plan,
        })
    }

    fn outputs(&self) -> Outputs<P> {
        Outputs::new(&self.plan.output, self.plan.side.as_ref())
    }

    /// Fires one timer.
    fn fire(&mut self, kind: Kind, at: i64, key: &Key, outputs: &mut Outputs<P>, out: &mut Outbox) -> Result<()> {
        let Self { plan, process, store, entries, keys, timers, promised, .. } = self;
        store.existing(key, |held| {
            if kind == Kind::Event && expiry(plan.ttl, held.time).is_some_and(|due| at > due) {
                held.detach(key, timers, entries);
                return Fate::Removed;
            }
            held.fired(kind, at);
            let (timer, time) = match kind {
                Kind::Event => (Timer::Event(Timestamp::from_micros(at)), at),
                Kind::Processing => (Timer::Processing(Timestamp::from_micros(at)), held.time.unwrap_or(*promised)),
            };
            let emit_time = time.max(*promised);
            let time = if kind == Kind::Event { at } else { emit_time };
            let (queues, has_time, changed) = (&mut *timers, plan.input_time.is_some(), true);
            let mut keyed =
                Keyed { key, held, entries, keys, queues, outputs, out, time, emit_time, has_time, changed };
            process.timer(timer, &mut keyed);
            let fate = keyed.fate();
            queue_expiry(plan.ttl, key, held, timers);
            fate
        });
        outputs.check()
    }

    /// Fires timers up to `now`, in one step; says whether all have been fired but those that were set meanwhile for the past.
    fn fire_all(&mut self, kind: Kind, now: i64, out: &mut Outbox) -> Result<bool> {
        let mut outputs = self.outputs();
        let mut all = false;
        for _ in 0..out.step() {
            if outputs.emitted() >= out.step() {
                break;
            }
            let Some((at, key)) = self.timers.next(kind, now) else {
                all = true;
                break;
            };
            self.fire(kind, at, &key, &mut outputs, out)?;
            if let Some(left) = &mut self.left {
                *left = left.checked_sub(1).ok_or_else(endless::<P>)?;
            }
        }
        outputs.finish(out)?;
        Ok(all)
    }

    /// Takes rows of a batch until there is enough to emit; says whether that was all.
    fn take(&mut self, rows: &mut Pending, out: &mut Outbox) -> Result<bool> {
        let mut outputs = self.outputs();
        let plan = self.plan.clone();
        let times = match plan.input_time {
            Some(column) => Some(times_of(&rows.batch, column)?),
            None => None,
        };
        let left = rows.batch.num_rows() - rows.row;
        let columns = plan.rows.columns(&rows.batch.slice(rows.row, left))?;
        let mut timers_left = out.step();
        for view in plan.rows.views(&columns)? {
            let view = view?;
            let (key, time) = (rows.keys.get(rows.row), times.map(|times| times[rows.row]));
            let mut is_due = outputs.emitted() < out.step();
            if let (Order::EventTime, Some(time)) = (self.order, time) {
                is_due = is_due && self.catch_up(key, time, (&mut rows.fired, &mut timers_left), &mut outputs, out)?;
            }
            if !is_due {
                outputs.finish(out)?;
                return Ok(false);
            }
            self.row(key, time, &mut outputs, out, |process, keyed| process.row(view, keyed));
            outputs.check()?;
            (rows.row, rows.fired) = (rows.row + 1, None);
        }
        outputs.finish(out)?;
        Ok(true)
    }

    /// A row has come for a key, and the function has its `turn`.
    fn row(
        &mut self,
        key: &[u8],
        time: Option<i64>,
        outputs: &mut Outputs<P>,
        out: &mut Outbox,
        turn: impl FnOnce(&mut P, &mut Keyed<'_, P>),
    ) {
        let Self { plan, process, store, entries, keys, timers, promised, .. } = self;
        store.entry(key, |key, held| {
            let changed = time > held.time;
            held.time = held.time.max(time);
            let (has_time, time) = (time.is_some(), time.unwrap_or(i64::MIN));
            let (queues, emit_time) = (&mut *timers, time.max(*promised));
            let mut keyed =
                Keyed { key, held, entries, keys, queues, outputs, out, time, emit_time, has_time, changed };
            turn(process, &mut keyed);
            let fate = keyed.fate();
            queue_expiry(plan.ttl, key, held, timers);
            fate
        });
    }

    /// What is due for a key before its next row, at `time`: its timers, then the end of its time to live. A timer that
    /// is set meanwhile for the past waits for the next row or watermark. Says whether that was all, or there is enough to emit
    /// or no timer `left`; then it is called again, with the one that has `fired` last.
    fn catch_up(
        &mut self,
        key: &[u8],
        time: i64,
        (fired, left): (&mut Option<i64>, &mut usize),
        outputs: &mut Outputs<P>,
        out: &mut Outbox,
    ) -> Result<bool> {
        while let Some((key, at)) = self.store.get(key).and_then(|(key, held)| {
            let after = fired.map_or(Bound::Unbounded, Bound::Excluded);
            let at = held.timers.range((after, Bound::Unbounded)).next()?;
            (*at <= time).then(|| (key.clone(), *at))
        }) {
            if *left == 0 || outputs.emitted() >= out.step() {
                return Ok(false);
            }
            (*fired, *left) = (Some(at), *left - 1);
            self.timers.unset(Kind::Event, [at], &key);
            self.fire(Kind::Event, at, &key, outputs, out)?;
        }
        let Self { plan, store, entries, timers, .. } = self;
        if let Some((key, held)) = store.get(key)
            && expiry(plan.ttl, held.time).is_some_and(|due| due < time)
        {
            let key = key.clone();
            store.existing(&key, |held| {
                held.detach(&key, timers, entries);
                Fate::Removed
            });
        }
        Ok(outputs.emitted() < out.step())
    }

    /// Nothing else is asked of it while a batch is half-way through.
    pub(super) fn check_idle(&self, what: &str) -> Result<()> {
        match self.pending {
            None => Ok(()),
            Some(_) => Err(OperatorError::Internal(format!("a process {what} with others half-way through"))),
        }
    }

    /// Removes some of the keys whose time to live has passed; says whether all have been removed.
    fn expire(&mut self, now: i64, most: usize) -> bool {
        let Self { plan, store, entries, timers, .. } = self;
        for _ in 0..most {
            let Some(key) = timers.expiry.next(now) else { return true };
            store.existing(&key, |held| {
                held.due = None;
                if expiry(plan.ttl, held.time).is_some_and(|due| due < now) {
                    held.detach(&key, timers, entries);
                    return Fate::Removed;
                }
                // Rows have come since.
                queue_expiry(plan.ttl, &key, held, timers);
                Fate::Same
            });
        }
        false
    }
}

/// The last watermark at which a key lives.
fn expiry(ttl: Option<Duration>, last: Option<i64>) -> Option<i64> {
    Some(Timestamp::from_micros(last?).saturating_add(ttl?).micros())
}

/// Sees to it that a key is looked at when it may have expired.
fn queue_expiry<S>(ttl: Option<Duration>, key: &Key, held: &mut Held<S>, timers: &mut Timers) {
    if held.live && held.due.is_none() {
        held.due = expiry(ttl, held.time);
        if let Some(due) = held.due {
            timers.expiry.expect(due, key);
        }
    }
}

fn endless<P: Process>() -> OperatorError {
    OperatorError::Plan(format!(
        "process {} sets timers without end: at the end of the input each that fires sets another; give the process a time to \
         live, or let the chain end",
        P::name()
    ))
}

impl<P: Process> Operator for ProcessOperator<P> {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        if batch.num_rows() > 0 {
            self.check_idle("was given rows")?;
        }
        let mut rows = match self.pending.take() {
            Some(rows) => rows,
            None => {
                out.processed(batch.num_rows());
                Pending { keys: self.store.keys(&batch)?, batch, row: 0, fired: None }
            }
        };
        if !self.take(&mut rows, out)? {
            self.pending = Some(rows);
            out.again();
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let now = time.micros();
        if time == Timestamp::MAX && self.left.is_none() {
            self.left = Some(self.timers.events() + CHAIN * self.store.len() + CHAINS);
        }
        if !self.fire_all(Kind::Event, now, out)? {
            return Ok(Advance::Again);
        }
        if time < Timestamp::MAX && !self.expire(now, out.step()) {
            return Ok(Advance::Again);
        }
        // What was set meanwhile for the past waits for the next watermark; after the last there is none.
        let more = self.timers.fired(Kind::Event);
        if time < Timestamp::MAX {
            self.promised = self.promised.max(now);
        } else if more {
            return Ok(Advance::Again);
        }
        Ok(Advance::Promise(time))
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        let now = out.now().micros();
        if !self.fire_all(Kind::Processing, now, out)? {
            out.wake_at(out.now());
            return Ok(());
        }
        self.timers.fired(Kind::Processing);
        if let Some(first) = self.timers.first_processing() {
            out.wake_at(Timestamp::from_micros(first));
        }
        Ok(())
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.check_idle("was saved")?;
        state.set(PROMISED, self.promised);
        let state_bytes = &mut self.state_bytes;
        let others = &self.plan.others;
        self.entries.save(state, self.plan.key.form(), &self.keys)?;
        self.store.save(state, |held| {
            let no_entry = [DataType::Utf8, DataType::LargeBinary].map(|none| new_null_array(&none, held.len()));
            let (held_columns, bytes) = columns(held)?;
            let mut columns: Vec<ArrayRef> = no_entry.into_iter().chain(held_columns).collect();
            columns.extend(others.iter().map(|field| new_null_array(field.data_type(), held.len())));
            *state_bytes = bytes / held.len().max(1);
            Ok(columns)
        })
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, store, entries, keys, timers, .. } = self;
        // The least: with more the rows of tasks that were behind would get later times than they have.
        self.promised = state.least(false, PROMISED).unwrap_or(i64::MIN);
        let mut bytes = (0, 0);
        let (of_keys, of_entries) = apart(state, plan.key.columns().len());
        entries.load(&of_entries, plan.key.form(), keys)?;
        store.load(&of_keys, |segment, rows| {
            let all = rows.iter().map(|&row| held_of::<P>(plan, segment, row, &mut bytes));
            all.collect()
        })?;
        self.state_bytes = bytes.0 / bytes.1.max(1);
        for (key, held) in store.iter_mut() {
            held.timers.iter().for_each(|at| timers.set(Kind::Event, *at, key));
            held.processing.iter().for_each(|at| timers.set(Kind::Processing, *at, key));
            queue_expiry(plan.ttl, key, held, timers);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.store.size() + self.entries.size() + self.timers.size() + self.state_bytes * self.store.len()
    }
}

fn list(instants: &mut ListBuilder<TimestampMicrosecondBuilder>, values: &BTreeSet<i64>) {
    values.iter().for_each(|value| instants.values().append_value(*value));
    instants.append(true);
}

fn instants() -> ListBuilder<TimestampMicrosecondBuilder> {
    ListBuilder::new(TimestampMicrosecondBuilder::new().with_data_type(Timestamp::data_type()))
}

/// What keys hold as columns, and how many bytes the states have.
fn columns<S: super::State>(held: &[Option<&Held<S>>]) -> Result<(Vec<ArrayRef>, usize)> {
    let mut states = LargeBinaryBuilder::new();
    let (mut timers, mut processing) = (instants(), instants());
    let mut bytes = 0;
    for held in held {
        let Some(held) = held else {
            states.append_null();
            timers.append_null();
            processing.append_null();
            continue;
        };
        let state = state::write(&held.state)?;
        bytes += state.len();
        states.append_value(&state);
        list(&mut timers, &held.timers);
        list(&mut processing, &held.processing);
    }
    let versions: UInt32Array = held.iter().map(|held| held.map(|_| S::VERSION)).collect();
    let times: TimestampMicrosecondArray = held.iter().map(|held| held.and_then(|held| held.time)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(versions),
        Arc::new(states.finish()),
        Arc::new(times.with_data_type(Timestamp::data_type())),
        Arc::new(timers.finish()),
        Arc::new(processing.finish()),
    ];
    Ok((columns, bytes))
}

/// What a row of a segment holds; `None` for a tombstone. Adds to the bytes and the number of states.
fn held_of<P: Process>(
    plan: &Shared<P>,
    segment: &RecordBatch,
    row: usize,
    bytes: &mut (usize, usize),
) -> Result<Option<Held<P::State>>> {
    // After those of an entry.
    let columns = &plan.key.held(segment)[2..];
    let states = columns[1].as_binary::<i64>();
    if states.is_null(row) {
        return Ok(None);
    }
    let version = columns[0].as_primitive::<UInt32Type>().value(row);
    let state = state::read(version, states.value(row)).map_err(|error| {
        let (meaning, key) = (&plan.key.form().meaning, plan.key.printed(segment, row));
        let now = P::State::VERSION;
        OperatorError::Plan(format!(
            "process {meaning}: the state of key ({key}), of version {version} (now {now}), cannot be read: {error}"
        ))
    })?;
    *bytes = (bytes.0 + states.value(row).len(), bytes.1 + 1);
    let times = columns[2].as_primitive::<TimestampMicrosecondType>();
    Ok(Some(Held {
        state,
        time: times.is_valid(row).then(|| times.value(row)),
        timers: instants_of(columns[3].as_list(), row),
        processing: instants_of(columns[4].as_list(), row),
        due: None,
        live: true,
    }))
}

fn instants_of(lists: &ListArray, row: usize) -> BTreeSet<i64> {
    lists.value(row).as_primitive::<TimestampMicrosecondType>().values().iter().copied().collect()
}
