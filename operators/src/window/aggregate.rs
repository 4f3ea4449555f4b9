//! Aggregates per key and window, in one phase or as the second of two.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion_expr::Expr;

use super::{
    PreAggregate, REVISION, Slice, WINDOW_END, WINDOW_START, Window,
    form::{LEADING, SLICE, of_aggregation, with_windows},
    given,
    groups::{Groups, merge},
    overlapping::{Overlapping, Source},
    revise::{Revise, Revision, emit},
    saved::Saved,
    sealing::changed,
    slices::{Due, Left, Parts, Slices},
    spilled::Tools,
    spilling::Spilling,
    table::{Revised, Tables},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, StreamSchema, Timestamp,
    aggregates::{Aggregates, ArgumentReader, Planned},
    key::comparable,
    plan::{KeyedOutput, Partitioning, Plan, TwoPhases},
    spill::Memory,
    state::{
        StateForm, StateReader, StateWriter,
        segments::{Changes, Sealed, Segments},
    },
};

/// What a window aggregation computes. Built once, when the job is planned; makes the operators of every task.
///
/// The result has the columns `window_start`, `window_end`, the key, the aggregates; its event time is the last instant
/// of the window. With results that may be revised there is a column `revision` after `window_end`; of a
/// [`Global`](super::Global) window there are no bounds and no event time.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::{max, sum};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::window::{AggregatePlan, Tumbling};
///
/// let price: ArrayRef = Arc::new(Int64Array::from(vec![5, 7, 9]));
/// let at = Timestamp::column(vec![0, 1_000_000, 10_000_000]);
/// let bids = RecordBatch::try_from_iter([("price", price), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(bids.schema(), "at").unwrap();
///
/// let window = Tumbling::of(Duration::from_secs(10));
/// let plan = AggregatePlan::new(&stream, &[], window, &[sum(col("price")), max(col("price"))]).unwrap();
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, bids, &mut out).unwrap();
/// operator.advance(Timestamp::MAX, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 2, "two windows, one group each");
/// ```
#[derive(Clone, Debug)]
pub struct AggregatePlan(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) window: Window,
    /// The key columns of the input.
    pub(super) key: Vec<usize>,
    pub(super) key_schema: SchemaRef,
    pub(super) aggregates: Aggregates,
    input: StreamSchema,
    /// Only all time can do without.
    pub(super) input_time: Option<usize>,
    pub(super) output: StreamSchema,
    /// What the first phase emits: the key, the states, and the last instant of the slice as hidden event time.
    pub(super) partial: StreamSchema,
    pub(super) form: StateForm,
    /// Whether windows share slices and give more than one result.
    pub(super) overlapping: bool,
}

impl AggregatePlan {
    /// Aggregates rows of `input` per value of the columns `key` and per window. Fails when the stream has no event
    /// time, a column does not exist or cannot be a key, an expression is not an aggregate, or there can be no such window.
    pub fn new(input: &StreamSchema, key: &[&str], window: Window, aggregates: &[Expr]) -> Result<Self> {
        let input_time = if window.is_global() { None } else { Some(input.event_time("a window")?) };
        let revised = window.repeats()?.is_some();
        let overlapping = window.slicing()?.overlaps() && revised;
        let planned = Planned::new(input, key, aggregates)?;
        let mut leading = if window.is_global() { Vec::new() } else { bounds() };
        leading.extend(revised.then(|| Field::new(REVISION, DataType::Int64, false)));
        let output = planned.output(leading)?;
        let form = of_aggregation(&window.describe(), &planned, revised)?;
        Ok(Self(Arc::new(Shared {
            form: if overlapping { with_windows(form) } else { form },
            overlapping,
            partial: StreamSchema::with_hidden_time(&partial(&planned))?,
            key: planned.key,
            key_schema: planned.key_schema,
            aggregates: planned.aggregates,
            input: input.clone(),
            input_time,
            output: match window.is_global() {
                true => StreamSchema::without_time(Arc::new(output)),
                false => StreamSchema::with_hidden_time(&output)?,
            },
            window,
        })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The whole aggregation in one operator: rows to results.
    pub fn whole(&self) -> Result<WindowAggregate> {
        WindowAggregate::new(self.0.clone(), &self.0.window, Input::Rows)
    }

    /// The first of two phases: rows to states of groups. Fails when results may be revised, as does the second.
    pub fn partial(&self) -> Result<PreAggregate> {
        self.in_two_phases()?;
        PreAggregate::new(self.0.clone())
    }

    /// The second of two phases: states of groups to results. The first phase has already waited for late rows.
    pub fn merging(&self) -> Result<WindowAggregate> {
        self.in_two_phases()?;
        WindowAggregate::new(self.0.clone(), &self.0.window.without_lateness(), Input::States)
    }

    fn in_two_phases(&self) -> Result<()> {
        match self.0.window.repeats()? {
            None => Ok(()),
            Some(_) => Err(OperatorError::Plan(format!(
                "a window {}: corrections and early results are made in one phase, by the whole operator",
                self.0.window
            ))),
        }
    }

    /// The schema between the two phases.
    pub fn between(&self) -> &StreamSchema {
        &self.0.partial
    }

    /// The key columns between the two phases, by which the exchange routes.
    pub fn key_between(&self) -> Vec<usize> {
        (0..self.0.key.len()).collect()
    }
}

impl Plan for AggregatePlan {
    fn noun(&self) -> &'static str {
        "window"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let late = (!self.0.window.is_global()).then(|| (Port::LATE, self.0.input.clone()));
        std::iter::once((Port::MAIN, self.0.output.clone())).chain(late).collect()
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        KeyedOutput::named(&self.0.input, &self.0.key, &self.0.output)
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }

    fn spills(&self) -> bool {
        self.in_two_phases().is_ok()
    }

    fn two_phases(&self) -> Option<TwoPhases> {
        self.in_two_phases().ok()?;
        let (first, second) = (self.clone(), self.clone());
        Some(TwoPhases {
            first: Arc::new(move || Ok(Box::new(first.partial()?))),
            key: self.key_between(),
            second: Arc::new(move || Ok(Box::new(second.merging()?))),
        })
    }
}

impl Shared {
    /// How many columns of the state are before the key.
    fn leading(&self) -> usize {
        LEADING + usize::from(self.overlapping)
    }
}

/// The visible columns between the two phases.
fn partial(planned: &Planned) -> Schema {
    let key = planned.key.len();
    let mut columns = planned.states(planned.key_fields().collect());
    for (i, state) in columns[key..].iter_mut().enumerate() {
        state.set_name(format!("__state{i}"));
    }
    Schema::new(columns)
}

/// The two columns that every window's result begins with.
pub(crate) fn bounds() -> Vec<Field> {
    vec![Field::new(WINDOW_START, Timestamp::data_type(), false), Field::new(WINDOW_END, Timestamp::data_type(), false)]
}

/// `rows` times the same instant.
pub(super) fn constant(time: Timestamp, rows: usize) -> ArrayRef {
    Timestamp::column(vec![time.micros(); rows])
}

#[derive(Clone, Copy, Debug)]
enum Input {
    Rows,
    States,
}

/// Keyed window aggregation: a table of groups per open slice. When the slice closes it is emitted and dropped; or its
/// states stay until the last window that they are in has given its result.
pub struct WindowAggregate {
    plan: Arc<Shared>,
    input: Input,
    slices: Slices<Groups>,
    tables: Tables,
    arguments: ArgumentReader,
    scratch: Vec<usize>,
    segments: Segments,
    giving: Giving,
    /// Of a job with a memory budget, when windows give one result each.
    spilling: Option<Spilling>,
}

/// How many results a window gives, and when.
pub(super) enum Giving {
    Once,
    /// Several; it is one slice.
    Slices(Revise),
    /// Several; it shares slices with others.
    Windows(Overlapping),
}

impl WindowAggregate {
    fn new(plan: Arc<Shared>, window: &Window, input: Input) -> Result<Self> {
        let key = plan.key_schema.clone();
        let mut tables = Tables::new(key.clone());
        let giving = match window.repeats()? {
            None => Giving::Once,
            Some(repeats) if plan.overlapping => {
                // Results need the states of slices as a save does.
                tables.record();
                Giving::Windows(Overlapping::new(repeats, Tables::revising(key)))
            }
            Some(repeats) => {
                tables = Tables::revising(key);
                Giving::Slices(Revise::new(repeats))
            }
        };
        Ok(Self {
            input,
            slices: Slices::new(window)?,
            tables,
            giving,
            spilling: None,
            arguments: ArgumentReader::default(),
            scratch: Vec::new(),
            segments: Segments::default(),
            plan,
        })
    }

    /// Adds rows to their slices. Early results that are due by the number of rows leave at once: one at the most for each row and
    /// window that it is in.
    fn add_rows(&mut self, batch: &RecordBatch, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, tables, arguments, scratch, giving, segments, spilling, .. } = self;
        let parts = slices.assign(batch, plan.input_time, out)?;
        if parts.is_empty() {
            return Ok(());
        }
        let arguments = arguments.read(&plan.aggregates, batch)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&column| comparable(batch.column(column))).collect();
        for (slice, selection) in parts {
            let key = key.iter().map(|column| selection.array(column)).collect::<Result<Vec<_>>>()?;
            let rows = selection.rows(batch);
            if let Giving::Windows(windows) = giving {
                windows.come(slice, &key, rows, &mut source(plan, slices, tables, scratch, segments))?;
            }
            let (groups, before) = taking(plan, slices, tables, slice, spilling.is_some())?;
            let table = groups.taking(tables, &plan.aggregates)?;
            table.update(&key, &arguments.of_rows(|column| selection.array(column))?, rows, scratch)?;
            if let Giving::Slices(revise) = giving {
                let due = revise.came(slice, table, scratch)?;
                if !due.is_empty() {
                    emit(&revised(plan, slice, table.revise(due, &plan.aggregates, scratch)?)?, out);
                }
            }
            if let Some(spilling) = spilling {
                spilling.grew(before, groups.spillable());
            }
        }
        Ok(())
    }

    /// Emits the early results that are due because of rows that have come, and asks for those that are due by the clock.
    fn give_early(&mut self, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, tables, scratch, segments, giving, .. } = self;
        match giving {
            Giving::Once => {}
            Giving::Slices(revise) => revise.ask(out),
            Giving::Windows(windows) => {
                let mut source = source(plan, slices, tables, scratch, segments);
                windows.give_due(&mut source, out, |window, rows| revised(plan, window, rows))?;
            }
        }
        Ok(())
    }

    /// Puts groups away when the job's budget asks for it.
    fn keep_within(&mut self) -> Result<()> {
        let Self { plan, slices, tables, scratch, segments, spilling, .. } = self;
        let Some(spilling) = spilling else { return Ok(()) };
        spilling.keep_within(slices, &mut tools(plan, tables, scratch, segments.next()))
    }

    fn add_states(&mut self, batch: &RecordBatch, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, tables, scratch, spilling, .. } = self;
        let keys = plan.key.len();
        for (slice, selection) in slices.assign(batch, Some(batch.num_columns() - 1), out)? {
            let (groups, before) = taking(plan, slices, tables, slice, spilling.is_some())?;
            let table = groups.taking(tables, &plan.aggregates)?;
            let part = selection.batch(batch)?;
            let (key, states) = part.columns().split_at(keys);
            table.merge(key, &states[..states.len() - 1], part.num_rows(), scratch)?;
            if let Some(spilling) = spilling {
                spilling.grew(before, groups.spillable());
            }
        }
        Ok(())
    }
}

/// The groups of a slice to which rows have come, and, if that is `asked`, how many of their bytes could be put away before.
fn taking<'a>(
    plan: &Shared,
    slices: &'a mut Slices<Groups>,
    tables: &mut Tables,
    slice: Slice,
    asked: bool,
) -> Result<(&'a mut Groups, usize)> {
    let mut is_new = false;
    let groups = slices.content(slice, || {
        is_new = true;
        tables.table(&plan.aggregates).map(Groups::Open)
    })?;
    // An empty table has bytes, too.
    let before = if asked && !is_new { groups.spillable() } else { 0 };
    Ok((groups, before))
}

/// What groups that are not in memory are merged with, for the save `save`.
fn tools<'a>(plan: &'a Shared, tables: &'a mut Tables, scratch: &'a mut Vec<usize>, save: u32) -> Tools<'a> {
    Tools { aggregates: &plan.aggregates, tables, scratch, save }
}

/// What windows that share slices make results of.
fn source<'a>(
    plan: &'a Shared,
    slices: &'a mut Slices<Groups>,
    tables: &'a mut Tables,
    scratch: &'a mut Vec<usize>,
    segments: &Segments,
) -> Source<'a> {
    Source { slices, tables, aggregates: &plan.aggregates, scratch, next: segments.next() }
}

pub(super) fn result(
    plan: &Shared,
    window: Slice,
    rows: usize,
    key: Vec<ArrayRef>,
    values: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let mut columns = vec![constant(window.start, rows), constant(window.end, rows)];
    columns.extend(key);
    columns.extend(values);
    columns.push(constant(window.result_time(), rows));
    Ok(RecordBatch::try_new(plan.output.columns().clone(), columns)?)
}

/// A result that may be replaced by another.
fn revised(plan: &Shared, window: Slice, Revised { key, revision, values }: Revised) -> Result<RecordBatch> {
    let rows = revision.len();
    let is_global = plan.window.is_global();
    let bounds = [window.start, window.end].map(|time| constant(time, rows));
    let mut columns: Vec<ArrayRef> = if is_global { Vec::new() } else { bounds.to_vec() };
    columns.push(revision);
    columns.extend(key);
    columns.extend(values);
    columns.extend((!is_global).then(|| constant(window.result_time(), rows)));
    Ok(RecordBatch::try_new(plan.output.columns().clone(), columns)?)
}

/// What makes a result of a [`Revision`].
fn reviser<'a>(
    plan: &'a Shared,
    tables: &'a mut Tables,
    scratch: &'a mut Vec<usize>,
) -> impl FnMut(Slice, Revision<'_>) -> Result<RecordBatch> + 'a {
    move |window, revision| {
        let rows = match revision {
            Revision::Of(table, due) => Some(table.revise(due, &plan.aggregates, scratch)?),
            Revision::Last(table) => tables.last_results(table)?,
        };
        match rows {
            Some(rows) => revised(plan, window, rows),
            None => Ok(RecordBatch::new_empty(plan.output.columns().clone())),
        }
    }
}

impl Operator for WindowAggregate {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        match self.input {
            Input::Rows => {
                self.add_rows(&batch, out)?;
                self.give_early(out)?;
            }
            Input::States => self.add_states(&batch, out)?,
        }
        self.keep_within()
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let Self { plan, slices, tables, scratch, segments, giving, spilling, .. } = self;
        match giving {
            Giving::Once => {}
            Giving::Slices(revise) => return revise.advance(time, slices, out, reviser(plan, tables, scratch)),
            Giving::Windows(windows) => {
                let mut source = source(plan, slices, tables, scratch, segments);
                return windows.advance(time, &mut source, out, |window, rows| revised(plan, window, rows));
            }
        }
        let next = segments.next();
        let spilled = || OperatorError::Internal("groups were spilled without a budget".into());
        slices.advance(time, out, |window, due| {
            spilling.iter_mut().for_each(Spilling::moved);
            let Parts { mut contents, owed, grows } = match due {
                Due::Slice(mut groups) if groups.spilled().is_some() => {
                    let spilling = spilling.as_mut().ok_or_else(spilled)?;
                    let tools = &mut tools(plan, tables, scratch, next);
                    let (rows, more) = spilling.fire(plan, window, &mut [&mut groups], tools, None)?;
                    return Ok((rows, if more { Left::More(Some(groups)) } else { Left::Nothing }));
                }
                Due::Slice(groups) => {
                    let table = groups.into_table()?;
                    let rows = table.groups();
                    let (key, values) = tables.results(table)?;
                    return Ok((result(plan, window, rows, key, values)?, Left::Nothing));
                }
                Due::Window(parts) => parts,
            };
            if contents.iter().any(|groups| groups.spilled().is_some()) {
                let spilling = spilling.as_mut().ok_or_else(spilled)?;
                let tools = &mut tools(plan, tables, scratch, next);
                let (rows, more) = spilling.fire(plan, window, &mut contents, tools, Some(&owed))?;
                return Ok((rows, if more { Left::More(None) } else { Left::Nothing }));
            }
            let table = merge(contents, tables, &plan.aggregates, next, scratch)?;
            let rows = table.groups();
            let (key, values, whole) = match grows {
                true => {
                    let (key, values, states) = tables.results_and_states(table, &plan.aggregates, scratch)?;
                    let whole = Groups::Closed(Saved::new(key.clone(), states, rows, next));
                    (key, values, Left::Whole(whole))
                }
                false => tables.results(table).map(|(key, values)| (key, values, Left::Nothing))?,
            };
            Ok((owed.keep(result(plan, window, rows, key.clone(), values)?, &key)?, whole))
        })
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, tables, scratch, giving, segments, .. } = self;
        match giving {
            Giving::Once => Ok(()),
            Giving::Slices(revise) => revise.tick(slices, out, reviser(plan, tables, scratch)),
            Giving::Windows(windows) => {
                let mut source = source(plan, slices, tables, scratch, segments);
                windows.tick(&mut source, out, |window, rows| revised(plan, window, rows))
            }
        }
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        let Self { plan, slices, tables, scratch, segments, giving, spilling, .. } = self;
        slices.save(state)?;
        let now = segments.begin();
        if let Some(spilling) = spilling {
            spilling.settle(slices, &mut tools(plan, tables, scratch, now))?;
        }
        if tables.record() {
            for (_, groups) in slices.held() {
                if let Groups::Open(table) = groups {
                    tables.recorded(table, &plan.aggregates, now, scratch)?;
                }
            }
        }
        let mut changes = Changes::new();
        for (_, groups) in slices.held() {
            groups.save(&plan.aggregates, now, &mut changes, scratch)?;
        }
        match giving {
            Giving::Once => {}
            Giving::Slices(revise) => revise.save(slices, state),
            Giving::Windows(windows) => windows.save(slices.closed(), now, &mut changes, scratch, state)?,
        }
        segments.finish(state, &changes, |since| {
            let mut sealed: Vec<Sealed> = Vec::new();
            if let Some(spilling) = spilling {
                sealed = spilling.seal(plan, slices, since, &mut tools(plan, tables, scratch, now))?;
            }
            sealed.extend(changed(plan, slices, giving, since)?.into_iter().map(Sealed::Rows));
            Ok(sealed)
        })
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, slices, tables, scratch, giving, spilling, .. } = self;
        slices.load(state);
        tables.record();
        let (segments, parts) = Segments::load(state);
        let next = segments.next();
        self.segments = segments;
        if let Some(spilling) = spilling.as_ref().filter(|spilling| spilling.is_too_much(&parts)) {
            return spilling.adopt(plan, slices, &parts, &mut tools(plan, tables, scratch, next));
        }
        for former in &parts {
            for piece in former.pieces() {
                let (save, rows) = piece?;
                let mut rows = plan.form.widen(&rows)?;
                if let Giving::Windows(windows) = giving {
                    rows = windows.restore(former.part, &rows, (plan.leading(), plan.key.len()), save, scratch)?;
                }
                for (slice, selection) in slices.saved_parts(former.part, &rows, SLICE)? {
                    let groups = slices.content(slice, || tables.table(&plan.aggregates).map(Groups::Open))?;
                    let table = groups.taking(tables, &plan.aggregates)?;
                    let rows = selection.batch(&rows)?;
                    let (key, states) = rows.columns()[plan.leading()..].split_at(plan.key.len());
                    let states = if plan.overlapping { &states[..states.len() - given::COLUMNS] } else { states };
                    table.restore(key, states, rows.num_rows(), save, scratch)?;
                }
            }
        }
        match giving {
            Giving::Once => self.keep_within(),
            Giving::Slices(revise) => revise.load(state, slices),
            Giving::Windows(windows) => {
                let mut source = Source { slices, tables, aggregates: &plan.aggregates, scratch, next };
                windows.load(state, &parts, (plan.leading(), plan.key.len()), &plan.form, &mut source)
            }
        }
    }

    fn limit(&mut self, memory: &Memory) -> bool {
        if let Giving::Once = self.giving {
            self.spilling = Some(Spilling::new(&self.plan, memory));
        }
        self.spilling.is_some()
    }

    fn size(&self) -> usize {
        let records = match &self.giving {
            Giving::Windows(windows) => windows.size(),
            Giving::Once | Giving::Slices(_) => 0,
        };
        self.slices.contents().map(Groups::size).sum::<usize>() + records
    }
}
