//! From a batch to results and states, by columns.
//!
//! ```text
//!   rows ──► number within the key ──► windows, each a group: first those that had begun before, then new ones
//!                                             │
//!   states of windows that had begun ──merge──┤
//!   arguments of the rows ────────────update──┴─► accumulators ──states──┬─ full ──► results ──► MAIN
//!                                                                        └─ not full ──► Store, by key
//! ```
//!
//! Accumulators live for one batch only, because they do not give the result of some groups and keep the others. So a batch
//! costs what it touches, however many keys are held.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::take,
};

use super::{
    plan::Shared,
    state::{Counter, Open, States},
};
use crate::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    aggregates::{Accumulators, ArgumentReader, Arguments},
    key::{
        comparable,
        encoded::{Grouped, KeyBytes},
    },
    keyed::store::{Fate, Store},
    late::set_late_aside,
    outbox::EMIT_ROWS,
    state::{StateReader, StateWriter},
    time::times_of,
};

/// How many rows are worked on at once, each counted once for every window that it is in.
const WORK_ROWS: u64 = 65_536;
/// Aggregates windows of so many rows of a key.
pub struct CountAggregate {
    plan: Arc<Shared>,
    states: States,
    counters: Store<Counter>,
    /// What the counters point to.
    bytes: usize,
    arguments: ArgumentReader,
    /// Rows earlier than this are late.
    closed: Timestamp,
}

/// A key that has rows in the work at hand.
struct Touched {
    /// One of its rows.
    row: usize,
    /// How many rows it had, and has now.
    before: u64,
    rows: u64,
    /// The first group of its windows that had begun before, and of those that begin now.
    known: usize,
    new: usize,
}

/// Which rows go into which windows.
#[derive(Default)]
struct Work {
    keys: Vec<Touched>,
    /// How many windows had begun before: their groups come first, because an accumulator is told of groups in order.
    known: usize,
    groups: usize,
    /// A row and a group for each window that a row is in.
    rows: Vec<u32>,
    group_of: Vec<usize>,
    /// By group: the time of the first row.
    starts: Vec<i64>,
    /// The groups that become full, and the last row of each.
    full: Vec<u32>,
    last: Vec<u32>,
}

impl CountAggregate {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            states: States::new(plan.state_types()?)?,
            counters: Store::new(&plan.key)?,
            bytes: 0,
            arguments: ArgumentReader::default(),
            closed: Timestamp::MIN,
            plan,
        })
    }

    /// Takes some rows of a batch: its keys in row format, its times, and the arguments of the aggregates.
    fn add(&mut self, input: &Input<'_>, range: Range<usize>, out: &mut Outbox) -> Result<()> {
        let Self { plan, states: forms, counters, bytes, .. } = self;
        let work = Work::of(plan, counters, input, range);
        let mut accumulators = Accumulators::new(&plan.aggregates)?;
        let (known, groups) = work.known(plan, counters, input);
        if !known.is_empty() {
            accumulators.merge(&forms.decode(known.iter().copied())?, &groups, work.known)?;
        }
        let rows = UInt32Array::from(work.rows.clone());
        let as_they_are = rows.len() == input.times.len() && rows.values().iter().copied().eq(0..rows.len() as u32);
        if as_they_are {
            accumulators.update(input.arguments, &work.group_of, work.groups)?;
        } else {
            let arguments = input.arguments.of_rows(|column| Ok(take(column, &rows, None)?))?;
            accumulators.update(&arguments, &work.group_of, work.groups)?;
        }
        let states = accumulators.states()?;
        let encoded = forms.encode(&states, work.groups)?;
        // All that may be too large fails before anything is emitted or noted, and is tried again in halves.
        if !work.full.is_empty() {
            emit(plan, input, &work, results(plan, &states, &work.full)?, out)?;
        }
        *bytes = work.put(plan, counters, input, &encoded, *bytes);
        Ok(())
    }

    /// The same in smaller parts, if the text and the states of all windows at once are more than arrays can take.
    fn add_in_parts(&mut self, input: &Input<'_>, range: Range<usize>, out: &mut Outbox) -> Result<()> {
        let half = range.start + range.len() / 2;
        match self.add(input, range.clone(), out) {
            Err(error) if error.is_too_large() && range.len() > 1 => {
                self.add_in_parts(input, range.start..half, out)?;
                self.add_in_parts(input, half..range.end, out)
            }
            other => other,
        }
    }
}

/// A batch, read.
struct Input<'a> {
    key_columns: &'a [ArrayRef],
    keys: &'a KeyBytes,
    times: &'a [i64],
    arguments: &'a Arguments,
}

impl Input<'_> {
    /// The key of a row; that of all rows is empty when there are no key columns.
    fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }
}

/// How many windows are full after so many rows: as many as end before.
fn full(plan: &Shared, rows: u64) -> u64 {
    rows.checked_sub(plan.size).map_or(0, |after| after / plan.slide + 1)
}

/// How many windows have begun after so many rows.
fn begun(plan: &Shared, rows: u64) -> u64 {
    rows.div_ceil(plan.slide)
}

impl Work {
    fn of(plan: &Shared, counters: &Store<Counter>, input: &Input<'_>, range: Range<usize>) -> Self {
        let mut work = Self::default();
        let grouped = Grouped::new(input.keys, range.clone());
        for rows in grouped.rows() {
            let row = rows[0] as usize;
            let before = counters.get(input.key(row)).map_or(0, |(_, counter)| counter.rows);
            work.keys.push(Touched { row, before, rows: before + rows.len() as u64, known: 0, new: 0 });
        }
        for key in &mut work.keys {
            key.known = work.known;
            work.known += (begun(plan, key.before) - full(plan, key.before)) as usize;
        }
        work.groups = work.known;
        for key in &mut work.keys {
            key.new = work.groups;
            work.groups += (begun(plan, key.rows) - begun(plan, key.before)) as usize;
        }
        work.starts = vec![0; work.groups];
        let mut seen: Vec<u64> = work.keys.iter().map(|key| key.before).collect();
        for (row, place) in range.zip(&grouped.of_row) {
            let place = *place as usize;
            let number = seen[place];
            seen[place] += 1;
            for window in full(plan, number)..begun(plan, number + 1) {
                let group = work.keys[place].group(plan, window);
                work.rows.push(row as u32);
                work.group_of.push(group);
                if number == window * plan.slide {
                    work.starts[group] = input.times[row];
                }
                if number == window * plan.slide + (plan.size - 1) {
                    work.full.push(group as u32);
                    work.last.push(row as u32);
                }
            }
        }
        for key in &work.keys {
            for (at, open) in open_of(counters, input.key(key.row)).iter().enumerate() {
                work.starts[key.group(plan, full(plan, key.before) + at as u64)] = open.start;
            }
        }
        work
    }

    /// The states of windows that had begun before, and their groups.
    fn known<'a>(&self, plan: &Shared, counters: &'a Store<Counter>, input: &Input<'_>) -> (Vec<&'a [u8]>, Vec<usize>) {
        let (mut states, mut groups) = (Vec::new(), Vec::new());
        for key in &self.keys {
            for (window, open) in (full(plan, key.before)..).zip(open_of(counters, input.key(key.row))) {
                states.push(open.state.as_ref());
                groups.push(key.group(plan, window));
            }
        }
        (states, groups)
    }

    /// Notes what is left of each key. `states` are those of the groups that are not complete. Counters had so many `bytes`;
    /// returns how many they have now.
    fn put(
        &self,
        plan: &Shared,
        counters: &mut Store<Counter>,
        input: &Input<'_>,
        states: &[Box<[u8]>],
        mut bytes: usize,
    ) -> usize {
        for key in &self.keys {
            let (full, begun) = (full(plan, key.rows), begun(plan, key.rows));
            let open = (full..begun).map(|window| {
                let group = key.group(plan, window);
                Open { start: self.starts[group], state: states[group].clone() }
            });
            // From now on the first window that is not full is window 0. Rows between two windows still count.
            let rows = key.rows - plan.slide * full.min(key.rows / plan.slide);
            counters.entry(input.key(key.row), |_, counter| {
                bytes -= counter.bytes();
                *counter = Counter { rows, open: open.collect() };
                bytes += counter.bytes();
                if rows == 0 { Fate::Removed } else { Fate::Changed }
            });
        }
        bytes
    }
}

impl Touched {
    /// The group of one of its windows.
    fn group(&self, plan: &Shared, window: u64) -> usize {
        let begun = begun(plan, self.before);
        match window < begun {
            true => self.known + (window - full(plan, self.before)) as usize,
            false => self.new + (window - begun) as usize,
        }
    }
}

fn open_of<'a>(counters: &'a Store<Counter>, key: &[u8]) -> &'a [Open] {
    counters.get(key).map_or(&[], |(_, counter)| &counter.open)
}

/// The results of some groups, by accumulators of their own: those of all groups have given their states.
fn results(plan: &Shared, states: &[ArrayRef], full: &[u32]) -> Result<Vec<ArrayRef>> {
    let full = UInt32Array::from(full.to_vec());
    let group_of: Vec<usize> = (0..full.len()).collect();
    let states = states.iter().map(|state| take(state, &full, None)).collect::<Result<Vec<_>, _>>()?;
    let mut accumulators = Accumulators::new(&plan.aggregates)?;
    accumulators.merge(&states, &group_of, full.len())?;
    accumulators.values()
}

/// Emits the results of the windows that have become full: a row fills one at the most, so a batch gives no more than it has
/// rows.
fn emit(plan: &Shared, input: &Input<'_>, work: &Work, values: Vec<ArrayRef>, out: &mut Outbox) -> Result<()> {
    let last = UInt32Array::from(work.last.clone());
    let ends: Vec<i64> = work.last.iter().map(|&row| input.times[row as usize]).collect();
    let starts = work.full.iter().map(|&group| work.starts[group as usize]).collect();
    let mut columns = vec![Timestamp::column(starts), Timestamp::column(ends.clone())];
    for column in input.key_columns {
        columns.push(take(column, &last, None)?);
    }
    columns.extend(values);
    columns.push(Timestamp::column(ends));
    let results = RecordBatch::try_new(plan.output.columns().clone(), columns)?;
    for offset in (0..results.num_rows()).step_by(EMIT_ROWS) {
        out.emit(results.slice(offset, EMIT_ROWS.min(results.num_rows() - offset)));
    }
    Ok(())
}

impl Operator for CountAggregate {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let plan = self.plan.clone();
        let batch = set_late_aside(batch, plan.time, |time| time < self.closed.micros(), Port::LATE, out)?;
        out.processed(batch.num_rows());
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let key_columns: Vec<ArrayRef> = plan.key.columns().iter().map(|&i| comparable(batch.column(i))).collect();
        let keys = self.counters.keys(&batch)?;
        let arguments = self.arguments.read(&plan.aggregates, &batch)?;
        let times = times_of(&batch, plan.time)?;
        let input = Input { key_columns: &key_columns, keys: &keys, times, arguments: &arguments };
        let step = (WORK_ROWS / plan.size.div_ceil(plan.slide)).max(1) as usize;
        for first in (0..times.len()).step_by(step) {
            self.add_in_parts(&input, first..times.len().min(first + step), out)?;
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, _out: &mut Outbox) -> Result<Advance> {
        self.closed = self.closed.max(time);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        let Self { states, counters, .. } = self;
        counters.save_sized(state, Counter::bytes, |held| states.columns(held))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, states, counters, bytes, .. } = self;
        counters.load(state, |segment, rows| states.read(plan.key.held(segment), rows))?;
        *bytes = counters.iter_mut().map(|(_, counter)| counter.bytes()).sum();
        Ok(())
    }

    fn size(&self) -> usize {
        self.counters.size() + self.bytes
    }
}
