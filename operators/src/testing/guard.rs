//! An operator and the laws it is held to on every call.

use std::{ops::Range, time::Duration};

use arrow::{
    array::RecordBatch,
    compute::{max, min},
    datatypes::TimestampMicrosecondType,
};
use fastrand::Rng;

use super::{pipeline::Stage, restarts::Habit, store::Store};
use crate::{Advance, Operator, Outbox, Port, StreamSchema, Timestamp, key::KeyGroup, state::StateReader};

/// How often one watermark may be answered with [`Advance::Again`], and one batch with [`Outbox::again`]: far more than any
/// test's data needs.
const AGAIN_LIMIT: usize = 100_000;

/// How many steps of rows an operator that goes on with a batch may emit in one call, beyond one row for each of the batch.
const STEPS: usize = 2;

/// Rows that an operator called late.
pub(super) struct Late {
    pub(super) stage: String,
    /// The input that they came by.
    pub(super) input: Port,
    /// The time that the operator had been given.
    pub(super) time: Timestamp,
    pub(super) rows: RecordBatch,
}

/// An operator that is watched.
pub(super) struct Guarded<'p> {
    stage: &'p Stage<'p>,
    operator: Box<dyn Operator>,
    outbox: Outbox,
    given: Timestamp,
    promised: Timestamp,
    again: usize,
    /// Whether it has gone on with a batch.
    in_steps: bool,
    /// The greatest time that a task had been given which this one goes on from.
    before: Timestamp,
    key_groups: Range<usize>,
    store: Store,
    habit: Habit,
    /// Processing time, when the operator wants to be woken, and how time goes on.
    now: Timestamp,
    wake: Option<Timestamp>,
    clock: Rng,
}

/// What a task of a stage left at a barrier.
pub(super) struct Former {
    operator: usize,
    first_phase: bool,
    key_groups: Range<usize>,
    given: Timestamp,
    now: Timestamp,
    store: Store,
}

impl<'p> Guarded<'p> {
    /// The operator of `task` out of `tasks`.
    pub(super) fn new(stage: &'p Stage<'p>, (task, tasks): (usize, usize), habit: Habit) -> Result<Self, String> {
        let operator = (stage.make)().map_err(|error| format!("{} cannot be made: {error}", stage.name))?;
        let start = Timestamp::MIN;
        let mut outbox = Outbox::new();
        if let Some(rows) = habit.step() {
            outbox.set_step(rows);
        }
        Ok(Self {
            stage,
            operator,
            outbox,
            given: start,
            promised: start,
            again: 0,
            in_steps: false,
            before: start,
            key_groups: KeyGroup::range(task, tasks),
            store: Store::new(),
            now: Timestamp::default(),
            wake: Some(start),
            clock: habit.clock(),
            habit,
        })
    }

    /// Goes on from what the tasks of a former run left. It is given the parts of all that held any of its key groups;
    /// a first phase, before the exchange, those of all.
    pub(super) fn load(&mut self, formers: &[Former]) -> Result<(), String> {
        let own = &self.key_groups;
        let shares = |former: &Former| former.key_groups.start < own.end && own.start < former.key_groups.end;
        let of_operator = formers.iter().filter(|former| former.operator == self.stage.operator);
        let all = self.stage.first_phase;
        let formers: Vec<&Former> = of_operator.filter(|f| all || f.first_phase || shares(f)).collect();
        self.before = formers.iter().map(|former| former.given).max().unwrap_or(self.before);
        self.now = formers.iter().map(|former| former.now).max().unwrap_or(self.now);
        self.store = Store::after(&formers.iter().map(|former| &former.store).collect::<Vec<_>>());
        // A segment that a task kept when it was restored may have rows of other tasks' key groups, long outdated.
        let part = |former: &&Former| {
            let theirs = &former.key_groups;
            former.store.part(former.first_phase, &(own.start.max(theirs.start)..own.end.min(theirs.end)))
        };
        let parts = formers.iter().map(part).collect::<Result<_, _>>()?;
        let reader = StateReader { key_groups: own.clone(), parts };
        self.operator.load(&reader).map_err(|error| self.broken(&format!("failed to load: {error}")))
    }

    /// What it leaves at a barrier, after it has been flushed.
    pub(super) fn leave(&mut self) -> Result<Former, String> {
        self.save()?;
        Ok(Former {
            operator: self.stage.operator,
            first_phase: self.stage.first_phase,
            key_groups: self.key_groups.clone(),
            given: self.given.max(self.before),
            now: self.now,
            store: self.store.clone(),
        })
    }

    fn save(&mut self) -> Result<(), String> {
        let saved = self.store.save(self.operator.as_mut(), &self.key_groups);
        saved.map_err(|error| self.broken(&error))
    }

    /// After a call: now and then saves the operator, and now and then goes on with another that was restored from it.
    fn checkpoint(&mut self, mut emitted: Vec<RecordBatch>, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        if !self.habit.saves_now() {
            return Ok(emitted);
        }
        emitted.extend(self.flush_quietly(late)?);
        self.save()?;
        if self.habit.loads_now() {
            self.operator = (self.stage.make)().map_err(|error| self.broken(&format!("cannot be made: {error}")))?;
            let part = self.store.part(self.stage.first_phase, &self.key_groups)?;
            let reader = StateReader { key_groups: self.key_groups.clone(), parts: vec![part] };
            let loaded = self.operator.load(&reader);
            loaded.map_err(|error| self.broken(&format!("failed to load: {error}")))?;
            // What it had asked for it has to ask for again.
            self.outbox.take_wake();
            self.wake = Some(Timestamp::MIN);
        }
        Ok(emitted)
    }

    /// Lets processing time go on, and wakes the operator when it has asked for that; before the end of the input, for all
    /// that it asks for. Returns what it emits.
    fn pass_time(&mut self, is_end: bool, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let mut emitted = Vec::new();
        if self.again > 0 {
            return Ok(emitted);
        }
        if self.clock.u8(..4) == 0 {
            self.now = self.now.saturating_add(Duration::from_micros(self.clock.u64(..40)));
        }
        for _ in 0..AGAIN_LIMIT {
            let asked = [self.wake.take(), self.outbox.take_wake()];
            let Some(wake) = asked.into_iter().flatten().min() else { return Ok(emitted) };
            self.now = if is_end { self.now.max(wake) } else { self.now };
            self.outbox.set_now(self.now);
            if wake > self.now {
                self.wake = Some(wake);
                return Ok(emitted);
            }
            let called = self.operator.tick(&mut self.outbox);
            called.map_err(|error| self.broken(&format!("failed on a tick: {error}")))?;
            if self.outbox.take_counts() != (0, 0) {
                return Err(self.broken("answered for rows on a tick: rows are answered for when they come (law 2)"));
            }
            emitted.extend(self.emitted(self.promised, late)?);
        }
        Err(self.broken(&format!("asked {AGAIN_LIMIT} times to be woken at once")))
    }

    /// Gives the operator rows of an input; returns what it emits.
    pub(super) fn process(
        &mut self,
        port: Port,
        batch: RecordBatch,
        late: &mut Vec<Late>,
    ) -> Result<Vec<RecordBatch>, String> {
        let mut emitted = self.pass_time(false, late)?;
        let rows = batch.num_rows() as u64;
        // A row earlier than the given time breaks the promise of whoever sent it. An operator without state passes it on.
        let earliest = range(self.input(port), &batch).map_or(Timestamp::MAX, |(first, _)| first);
        let floor = if earliest < self.given { self.promised.min(earliest) } else { self.promised };
        let none = batch.slice(0, 0);
        let (mut answered, mut steps, mut next) = ((0, 0), 0, Some(batch));
        while let Some(batch) = next.take() {
            let called = self.operator.process(port, batch, &mut self.outbox);
            called.map_err(|error| self.broken(&format!("failed on a batch: {error}")))?;
            let (processed, called_late) = self.outbox.take_counts();
            answered = (answered.0 + processed, answered.1 + called_late);
            if self.outbox.take_again() {
                next = Some(none.clone());
                (self.in_steps, steps) = (true, steps + 1);
            }
            let results = self.emitted(floor, late)?;
            self.check_step(rows, &results)?;
            emitted.extend(results);
            if steps > AGAIN_LIMIT {
                return Err(self.broken(&format!("asked {AGAIN_LIMIT} times to be called again for one batch")));
            }
        }
        let (processed, called_late) = answered;
        if processed + called_late != rows {
            let answered = format!("{processed} rows processed and {called_late} late");
            return Err(self.broken(&format!("took {rows} rows and answered for {answered} (law 2)")));
        }
        self.checkpoint(emitted, late)
    }

    /// An operator that goes on with a batch emits little in each of its calls. `rows` is how many the batch had.
    fn check_step(&self, rows: u64, results: &[RecordBatch]) -> Result<(), String> {
        let (step, emitted) = (self.outbox.step(), results.iter().map(RecordBatch::num_rows).sum::<usize>());
        match !self.in_steps || emitted <= STEPS * step + rows as usize {
            true => Ok(()),
            false => {
                Err(self.broken(&format!("emitted {emitted} rows of {rows} in one call, where a step has {step}")))
            }
        }
    }

    /// Gives the operator a watermark; returns what it emits and whether that was all.
    pub(super) fn advance(
        &mut self,
        time: Timestamp,
        late: &mut Vec<Late>,
    ) -> Result<(Vec<RecordBatch>, Advance), String> {
        let mut emitted = self.pass_time(time == Timestamp::MAX, late)?;
        self.given = time;
        let called = self.operator.advance(time, &mut self.outbox);
        let advance = called.map_err(|error| self.broken(&format!("failed on a watermark: {error}")))?;
        if self.outbox.take_counts() != (0, 0) {
            return Err(self.broken("answered for rows on a watermark: rows are answered for when they come (law 2)"));
        }
        emitted.extend(self.emitted(self.promised, late)?);
        match advance {
            Advance::Again => {
                self.again += 1;
                if self.again > AGAIN_LIMIT {
                    return Err(self.broken(&format!("asked {AGAIN_LIMIT} times to be called again for one watermark")));
                }
            }
            Advance::Promise(promise) => {
                self.check_promise(promise)?;
                (self.promised, self.again) = (promise, 0);
                emitted = self.checkpoint(emitted, late)?;
            }
        }
        Ok((emitted, advance))
    }

    /// Makes the operator emit what it holds back; returns that.
    pub(super) fn flush(&mut self, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let emitted = self.flush_quietly(late)?;
        self.checkpoint(emitted, late)
    }

    fn flush_quietly(&mut self, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        let called = self.operator.flush(&mut self.outbox);
        called.map_err(|error| self.broken(&format!("failed to flush: {error}")))?;
        self.emitted(self.promised, late)
    }

    fn check_promise(&self, promise: Timestamp) -> Result<(), String> {
        let (promised, given) = (self.promised, self.given);
        if promise < promised {
            return Err(self.broken(&format!("promised {promise} after it had promised {promised} (law 3)")));
        }
        if promise > given {
            return Err(self.broken(&format!("promised {promise} when it was given only {given} (law 3)")));
        }
        if given == Timestamp::MAX && promise != Timestamp::MAX {
            return Err(self.broken(&format!("promised only {promise} at the end of the input")));
        }
        Ok(())
    }

    /// Takes what is in the outbox: results, which must not be before `floor`, and late rows.
    fn emitted(&mut self, floor: Timestamp, late: &mut Vec<Late>) -> Result<Vec<RecordBatch>, String> {
        if self.outbox.take_again() {
            return Err(self.broken("asked to go on with a batch when it was not given one"));
        }
        let mut emitted = Vec::new();
        let batches: Vec<_> = self.outbox.drain().collect();
        for (port, batch) in batches {
            let stage = self.stage;
            if port >= Port::side(0) {
                // No stage of a pipeline takes it.
                continue;
            }
            let input = match port {
                Port::LATE => Some(Port::MAIN),
                Port::LATE_RIGHT => Some(Port::RIGHT),
                _ => None,
            };
            let schema = input.map_or(&stage.output, |input| self.input(input));
            if batch.schema_ref() != schema.columns() {
                let schemas = format!("{:?}, not {:?}", batch.schema_ref().fields(), schema.columns().fields());
                return Err(self.broken(&format!("emitted a batch on {port:?} with the columns {schemas}")));
            }
            if let Some(input) = input {
                let time = self.given.max(self.before);
                late.push(Late { stage: stage.name.clone(), input, time, rows: batch });
                continue;
            }
            if let Some((earliest, _)) = range(schema, &batch).filter(|(earliest, _)| *earliest < floor) {
                let promised = self.promised;
                return Err(
                    self.broken(&format!("emitted a row of {earliest} after it had promised {promised} (law 3)"))
                );
            }
            emitted.push(batch);
        }
        Ok(emitted)
    }

    fn input(&self, port: Port) -> &StreamSchema {
        self.stage.right.as_ref().filter(|_| port == Port::RIGHT).unwrap_or(&self.stage.input)
    }

    /// Whether the end of the input has gone through.
    pub(super) fn has_ended(&self) -> bool {
        self.promised == Timestamp::MAX
    }

    fn broken(&self, what: &str) -> String {
        format!("{} {what}", self.stage.name)
    }
}

/// The least and the greatest event time of a batch; `None` without rows or without event time.
pub(super) fn range(schema: &StreamSchema, batch: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    use arrow::array::cast::AsArray;
    let times = batch.column(schema.time()?).as_primitive_opt::<TimestampMicrosecondType>()?;
    Some((Timestamp::from_micros(min(times)?), Timestamp::from_micros(max(times)?)))
}
