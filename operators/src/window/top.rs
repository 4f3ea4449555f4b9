//! The greatest rows of each window, per key or over all.
//!
//! ```text
//!   rows ──► slices ──► Bars ──► Buffer: rows that may still win ──window complete──► the first n of each key, with ranks
//!              before the exchange: ──slice closed, budget used up, flush──► the first n of each key
//! ```

mod bars;
mod buffer;
mod order;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array},
    compute::filter_record_batch,
    datatypes::{DataType, Field, FieldRef, Schema},
};
use datafusion_physical_plan::aggregates::group_values::GroupValues;

use self::buffer::Buffer;
use super::{
    Slice, WINDOW_END, WINDOW_START, Window,
    aggregate::{bounds, constant},
    direct::group_values,
    form::{LEADING, SLICE, of_top},
    preaggregate::BUDGET_BYTES,
    slices::{Due, Left, Parts, Slices},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, StreamSchema, Timestamp,
    key::{check_key, comparable},
    plan::{KeyedOutput, Partitioning, Plan, TwoPhases},
    schema::no_duplicates,
    state::{
        StateForm, StateReader, StateWriter,
        bounded::join,
        segments::{Changes, Segments},
    },
};

/// The column of the result that counts the rows of a window and key from 1, the greatest first.
pub const RANK: &str = "rank";

/// Keeps the `n` rows of each window (and key) with the greatest value in one column.
///
/// Equal values are ordered by the other columns, ascending, so that the answer does not depend on the order of
/// arrival. Nulls are least, NaN is greatest. The result has the columns `window_start`, `window_end`, `rank`, and those of the input.
/// With ties there are also the rows whose value equals that of the last of the `n`, ranked on.
#[derive(Clone, Debug)]
pub struct TopPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    window: Window,
    n: usize,
    /// Whether rows that are as great as the last of the n are there too.
    ties: bool,
    key: Vec<usize>,
    by: usize,
    input_time: usize,
    input: StreamSchema,
    between: StreamSchema,
    output: StreamSchema,
    /// The input columns that the result repeats: all but the bounds of a former window.
    kept: Vec<usize>,
    /// The visible columns in the order in which a segment has them.
    saved: Vec<usize>,
    form: StateForm,
}

impl TopPlan {
    /// Over rows of `input`: the `n` with the greatest `by`, per value of the columns `key`.
    pub fn new(input: &StreamSchema, key: &[&str], window: Window, n: usize, by: &str) -> Result<Self> {
        Self::build(input, key, window, n, by, false)
    }

    /// The same, with all rows that are as great as the last of the `n`.
    pub fn with_ties(input: &StreamSchema, key: &[&str], window: Window, n: usize, by: &str) -> Result<Self> {
        Self::build(input, key, window, n, by, true)
    }

    fn build(input: &StreamSchema, key: &[&str], window: Window, n: usize, by: &str, ties: bool) -> Result<Self> {
        let input_time = input.event_time("a window")?;
        window.slicing()?;
        window.only_final("the top rows of a window")?;
        if n == 0 {
            return Err(OperatorError::Plan("the top 0 rows are no rows: ask for at least one".into()));
        }
        let key = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &key)?;
        let by = input.index_of(by)?;
        let visible = input.visible();
        if let Some(field) = visible.fields().iter().find(|field| field.data_type().is_nested()) {
            let message = "cannot be sorted: top needs an order over all columns";
            return Err(OperatorError::Plan(format!(
                "column {:?} is {} and {message}",
                field.name(),
                field.data_type()
            )));
        }
        let is_bound = |name: &str| name == WINDOW_START || name == WINDOW_END;
        let kept: Vec<usize> = (0..visible.fields().len()).filter(|&i| !is_bound(visible.field(i).name())).collect();
        let mut output = bounds();
        output.push(Field::new(RANK, DataType::UInt64, false));
        output.extend(kept.iter().map(|&i| visible.field(i).clone()));
        no_duplicates(&output)?;
        let key_fields: Vec<FieldRef> = key.iter().map(|&i| visible.fields()[i].clone()).collect();
        let mut saved: Vec<usize> = Vec::new();
        for column in key.iter().copied().chain(0..visible.fields().len()) {
            if !saved.contains(&column) {
                saved.push(column);
            }
        }
        let how_many = if ties { format!("{n} with ties") } else { n.to_string() };
        Ok(Self(Arc::new(Shared {
            form: of_top(
                window.describe(),
                &key_fields,
                &visible.project(&saved)?,
                &how_many,
                visible.field(by).name(),
            )?,
            window,
            n,
            ties,
            key,
            by,
            input_time,
            input: input.clone(),
            between: StreamSchema::with_hidden_time(&visible)?,
            output: StreamSchema::with_hidden_time(&Schema::new(output))?,
            kept,
            saved,
        })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The whole computation in one operator.
    pub fn whole(&self) -> Result<Top> {
        Top::new(self.0.clone(), &self.0.window, Phase::Whole)
    }

    /// The first of two phases: the candidates of one task.
    pub fn partial(&self) -> Result<Top> {
        Top::new(self.0.clone(), &self.0.window, Phase::Candidates)
    }

    /// The second of two phases: the winners among the candidates. The first has already waited for late rows.
    pub fn merging(&self) -> Result<Top> {
        Top::new(self.0.clone(), &self.0.window.without_lateness(), Phase::Winners)
    }

    /// The schema between the two phases.
    pub fn between(&self) -> &StreamSchema {
        &self.0.between
    }

    /// The key columns between the two phases, by which the exchange routes.
    pub fn key_between(&self) -> Vec<usize> {
        self.0.key.clone()
    }
}

impl Plan for TopPlan {
    fn noun(&self) -> &'static str {
        "top"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        vec![(Port::MAIN, self.0.output.clone()), (Port::LATE, self.0.input.clone())]
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        // A bound of a former window, which may be a key, gives way to that of this one.
        let behind = self.0.output.columns().fields().len() - 1 - self.0.kept.len();
        let place = |key: &usize| self.0.kept.iter().position(|kept| kept == key).map(|at| vec![behind + at]);
        KeyedOutput::any(self.0.key.iter().map(|key| place(key).unwrap_or_default()))
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }

    fn two_phases(&self) -> Option<TwoPhases> {
        let (first, second) = (self.clone(), self.clone());
        Some(TwoPhases {
            first: Arc::new(move || Ok(Box::new(first.partial()?))),
            key: self.key_between(),
            second: Arc::new(move || Ok(Box::new(second.merging()?))),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Whole,
    Candidates,
    Winners,
}

/// Buffers the rows of each slice that is still needed, sorting out losers as it goes.
pub struct Top {
    plan: Arc<Shared>,
    phase: Phase,
    slices: Slices<Buffer>,
    segments: Segments,
}

impl Top {
    fn new(plan: Arc<Shared>, window: &Window, phase: Phase) -> Result<Self> {
        let slices = if phase == Phase::Candidates { Slices::first_phase(window) } else { Slices::new(window) };
        Ok(Self { slices: slices?, segments: Segments::default(), plan, phase })
    }
}

fn result(plan: &Shared, phase: Phase, window: Slice, sorted: RecordBatch, ranks: Vec<u64>) -> Result<RecordBatch> {
    let rows = sorted.num_rows();
    let time = constant(window.result_time(), rows);
    if phase == Phase::Candidates {
        let mut columns = plan.input.show(&sorted)?.columns().to_vec();
        columns.push(time);
        return Ok(RecordBatch::try_new(plan.between.columns().clone(), columns)?);
    }
    let mut columns = vec![constant(window.start, rows), constant(window.end, rows)];
    columns.push(Arc::new(UInt64Array::from(ranks)));
    columns.extend(plan.kept.iter().map(|&i| sorted.column(i).clone()));
    columns.push(time);
    Ok(RecordBatch::try_new(plan.output.columns().clone(), columns)?)
}

/// The keys of a slice that newer segments have rows of; without key columns nothing, but that they have.
type Newer = Option<Box<dyn GroupValues>>;

/// Of what a segment has of a slice, the rows of keys that no newer one has rows of.
fn without_newer(
    plan: &Shared,
    newer: &mut HashMap<Slice, Newer>,
    slice: Slice,
    rows: RecordBatch,
) -> Result<RecordBatch> {
    let keys = plan.form.identity - 1;
    let key_columns: Vec<usize> = (LEADING..LEADING + keys).collect();
    let is_first = !newer.contains_key(&slice);
    if is_first {
        let schema = Arc::new(plan.form.columns.project(&key_columns)?);
        let none = (keys > 0).then(|| group_values(schema)).transpose()?;
        newer.insert(slice, none);
    }
    let Some(Some(known)) = newer.get_mut(&slice) else {
        return Ok(if is_first { rows } else { rows.slice(0, 0) });
    };
    let before = known.len();
    let key: Vec<ArrayRef> = key_columns.iter().map(|&column| comparable(rows.column(column))).collect();
    let mut groups = Vec::with_capacity(rows.num_rows());
    known.intern(&key, &mut groups)?;
    if before == 0 {
        return Ok(rows);
    }
    let is_new: BooleanArray = groups.iter().map(|group| Some(*group >= before)).collect();
    Ok(filter_record_batch(&rows, &is_new)?)
}

impl Operator for Top {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, phase, .. } = self;
        let time = if *phase == Phase::Winners { batch.num_columns() - 1 } else { plan.input_time };
        for (slice, selection) in slices.assign(&batch, Some(time), out)? {
            slices.content(slice, || Ok(Buffer::default()))?.push(plan, &batch, &selection)?;
        }
        if *phase == Phase::Candidates && slices.contents().map(Buffer::size).sum::<usize>() > BUDGET_BYTES {
            self.flush(out)?;
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let Self { plan, slices, phase, .. } = self;
        slices.advance(time, out, |window, due| {
            let Parts { contents, owed, grows } = match due {
                Due::Slice(mut buffer) => {
                    let (rows, ranks, more) = buffer.leave(plan)?;
                    let left = if more { Left::More(Some(buffer)) } else { Left::Nothing };
                    return Ok((result(plan, *phase, window, rows, ranks)?, left));
                }
                Due::Window(parts) => parts,
            };
            let mut all = Buffer::union(contents, plan)?;
            let mut whole = Left::Nothing;
            if grows {
                whole = Left::Whole(all.copy(plan)?);
            }
            all.retain(|rows| {
                let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
                owed.keep(rows, &key)
            })?;
            let (rows, ranks) = all.winners(plan)?;
            Ok((result(plan, *phase, window, rows, ranks)?, whole))
        })
    }

    fn flush(&mut self, out: &mut Outbox) -> Result<()> {
        if self.phase == Phase::Candidates {
            for (slice, mut buffer) in self.slices.take() {
                let mut more = true;
                while more {
                    let (rows, ranks);
                    (rows, ranks, more) = buffer.leave(&self.plan)?;
                    out.emit(result(&self.plan, self.phase, slice, rows, ranks)?);
                }
            }
        }
        Ok(())
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        let Self { plan, slices, phase, segments } = self;
        if *phase == Phase::Candidates {
            return slices.save_flushed(state);
        }
        slices.save(state)?;
        let now = segments.begin();
        let mut changes = Changes::new();
        for (_, buffer) in slices.held() {
            buffer.save(plan, now, &mut changes)?;
        }
        segments.finish(state, &changes, |since| {
            let pieces = slices.held().filter_map(|(slice, buffer)| buffer.segment(plan, slice, since).transpose());
            let pieces = pieces.collect::<Result<Vec<_>>>()?;
            join(&plan.form.columns, &pieces)
        })
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, slices, phase, segments } = self;
        if *phase == Phase::Candidates {
            slices.load_flushed(state);
            return Ok(());
        }
        slices.load(state);
        let schema = if *phase == Phase::Winners { plan.between.columns() } else { plan.input.columns() };
        let (kept, parts) = Segments::load(state);
        *segments = kept;
        for former in parts {
            let mut newer = HashMap::new();
            for (save, rows) in former.segments {
                let rows = plan.form.widen(rows)?;
                for (slice, selection) in slices.saved_parts(former.part, &rows, SLICE)? {
                    let rows = without_newer(plan, &mut newer, slice, selection.batch(&rows)?)?;
                    if rows.num_rows() > 0 {
                        let buffer = slices.content(slice, || Ok(Buffer::default()))?;
                        buffer.restore(plan, schema, slice, &rows, save)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.slices.contents().map(Buffer::size).sum()
    }
}
