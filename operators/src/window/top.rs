//! The greatest rows of each window, per key or over all.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, partition, take_record_batch},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
};

use super::{
    Slice, WINDOW_END, WINDOW_START, Window,
    aggregate::{bounds, constant},
    form::{LEADING, SLICE, of_top},
    slices::{Due, Parts, Slices},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, StreamSchema, Timestamp,
    key::{check_key, comparable},
    plan::{Partitioning, Plan, TwoPhases},
    schema::no_duplicates,
    state::{
        StateForm, StateReader, StateWriter,
        segments::{Changes, Segments, key_group_column, own_bytes},
    },
};

/// The column of the result that counts the rows of a window and key from 1, the greatest first.
pub const RANK: &str = "rank";

/// A slice sorts and drops its losers when it holds this many rows, and at least four times what it wants to keep.
const COMPACT_ROWS: usize = 16_384;

/// Keeps the `n` rows of each window (and key) with the greatest value in one column.
///
/// Equal values are ordered by the other columns, ascending, so that the answer does not depend on the order of
/// arrival. Nulls are least, NaN is greatest. The result has the columns `window_start`, `window_end`, `rank`, and those of the input.
#[derive(Clone, Debug)]
pub struct TopPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    window: Window,
    n: usize,
    key: Vec<usize>,
    by: usize,
    input_time: usize,
    input: StreamSchema,
    between: StreamSchema,
    output: StreamSchema,
    /// The input columns that the result repeats: all but the bounds of a former window.
    kept: Vec<usize>,
    form: StateForm,
}

impl TopPlan {
    /// Over rows of `input`: the `n` with the greatest `by`, per value of the columns `key`.
    pub fn new(input: &StreamSchema, key: &[&str], window: Window, n: usize, by: &str) -> Result<Self> {
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
        Ok(Self(Arc::new(Shared {
            form: of_top(window.describe(), &key_fields, &visible, n, visible.field(by).name())?,
            window,
            n,
            key,
            by,
            input_time,
            input: input.clone(),
            between: StreamSchema::with_hidden_time(&visible)?,
            output: StreamSchema::with_hidden_time(&Schema::new(output))?,
            kept,
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

#[derive(Default)]
struct Buffer {
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Rows that were left after the last sort.
    kept: usize,
    /// About how many bytes they are.
    bytes: usize,
    /// The last save that found it changed, and whether it has changed since.
    saved: u32,
    changed: bool,
}

impl Top {
    fn new(plan: Arc<Shared>, window: &Window, phase: Phase) -> Result<Self> {
        let slices = if phase == Phase::Candidates { Slices::first_phase(window) } else { Slices::new(window) };
        Ok(Self { slices: slices?, segments: Segments::default(), plan, phase })
    }
}

impl Buffer {
    fn push(&mut self, plan: &Shared, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.bytes += bytes(&batch);
        self.batches.push(batch);
        self.changed = true;
        if self.rows >= COMPACT_ROWS.max(4 * self.kept) {
            self.compact(plan)?;
        }
        Ok(())
    }

    /// Drops the losers.
    fn compact(&mut self, plan: &Shared) -> Result<()> {
        let (kept, _) = self.sort(plan)?;
        (self.rows, self.kept, self.bytes) = (kept.num_rows(), kept.num_rows(), bytes(&kept));
        self.batches = vec![kept];
        Ok(())
    }

    /// The rows of all of these slices that may win in their window. No more rows come for them, so each drops its losers.
    fn union(slices: Vec<&mut Self>, plan: &Shared) -> Result<Self> {
        let mut all = Self::default();
        for slice in slices {
            if slice.rows > slice.kept {
                slice.compact(plan)?;
            }
            all.batches.extend(slice.batches.iter().cloned());
        }
        Ok(all)
    }

    /// What a segment has of the slice: the visible columns, after its key groups and its start.
    fn segment(&self, plan: &Shared, slice: Slice) -> Result<RecordBatch> {
        let rows = concat_batches(&self.schema()?, &self.batches)?;
        let visible = rows.columns()[..plan.form.columns.fields().len() - LEADING].iter().cloned().map(own_bytes);
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
        let mut columns = vec![key_group_column(&key, rows.num_rows())?, constant(slice.start, rows.num_rows())];
        columns.extend(visible);
        Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
    }

    /// Takes back what a segment has of the slice. The hidden event time of a row is not saved: once the row has its
    /// slice nobody reads it.
    fn restore(&mut self, schema: &SchemaRef, slice: Slice, rows: &RecordBatch, save: u32) -> Result<()> {
        let mut columns = rows.columns()[LEADING..].to_vec();
        if columns.len() < schema.fields().len() {
            columns.push(constant(slice.result_time(), rows.num_rows()));
        }
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        self.bytes += bytes(&batch);
        self.batches.push(batch);
        self.rows += rows.num_rows();
        (self.kept, self.saved) = (self.rows, save);
        Ok(())
    }

    fn schema(&self) -> Result<SchemaRef> {
        let empty = || OperatorError::Internal("a slice without rows".into());
        Ok(self.batches.first().ok_or_else(empty)?.schema())
    }

    /// The rows that may still win, key by key, greatest first, and their ranks.
    fn sort(&self, plan: &Shared) -> Result<(RecordBatch, Vec<u64>)> {
        let rows = concat_batches(&self.schema()?, &self.batches)?;
        let visible = plan.input.visible().fields().len();
        let ascending = SortOptions { descending: false, nulls_first: false };
        let descending = SortOptions { descending: true, nulls_first: false };
        let sort = |values: ArrayRef, options| SortColumn { values, options: Some(options) };
        let mut order: Vec<SortColumn> =
            plan.key.iter().map(|&i| sort(comparable(rows.column(i)), ascending)).collect();
        order.push(sort(comparable(rows.column(plan.by)), descending));
        // What breaks ties: the other columns, and floats as they are, because of equal ones only one may win.
        let is_sorted = |i: usize| i == plan.by || plan.key.contains(&i);
        let breaks_ties = |i: &usize| !is_sorted(*i) || rows.column(*i).data_type().is_floating();
        order.extend((0..visible).filter(breaks_ties).map(|i| sort(rows.column(i).clone(), ascending)));
        let limit = plan.key.is_empty().then_some(plan.n);
        let sorted = take_record_batch(&rows, &lexsort_to_indices(&order, limit)?)?;
        if plan.key.is_empty() {
            let ranks = (1..=sorted.num_rows() as u64).collect();
            return Ok((sorted, ranks));
        }
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| comparable(sorted.column(i))).collect();
        let mut winners = Vec::new();
        let mut ranks = Vec::new();
        for range in partition(&key)?.ranges() {
            let n = range.len().min(plan.n);
            winners.extend(range.start as u64..(range.start + n) as u64);
            ranks.extend(1..=n as u64);
        }
        Ok((take_record_batch(&sorted, &UInt64Array::from(winners))?, ranks))
    }
}

/// The bytes of the rows of a batch, which may be a slice of a larger one.
fn bytes(batch: &RecordBatch) -> usize {
    let bytes = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or(array.get_array_memory_size());
    batch.columns().iter().map(bytes).sum()
}

fn result(plan: &Shared, phase: Phase, window: Slice, buffer: &Buffer) -> Result<RecordBatch> {
    let (sorted, ranks) = buffer.sort(plan)?;
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

impl Operator for Top {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, phase, .. } = self;
        let time = if *phase == Phase::Winners { batch.num_columns() - 1 } else { plan.input_time };
        for (slice, selection) in slices.assign(&batch, Some(time), out)? {
            let part = selection.batch(&batch)?;
            slices.content(slice, || Ok(Buffer::default()))?.push(plan, part)?;
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let Self { plan, slices, phase, .. } = self;
        slices.advance(time, out, |window, due| {
            let Parts { contents, owed, grows } = match due {
                Due::Slice(buffer) => return Ok((result(plan, *phase, window, &buffer)?, None)),
                Due::Window(parts) => parts,
            };
            let mut all = Buffer::union(contents, plan)?;
            let mut whole = None;
            if grows {
                all.compact(plan)?;
                whole = Some(Buffer { batches: all.batches.clone(), ..all });
            }
            for rows in &mut all.batches {
                let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
                *rows = owed.keep(rows.clone(), &key)?;
            }
            Ok((result(plan, *phase, window, &all)?, whole))
        })
    }

    fn flush(&mut self, out: &mut Outbox) -> Result<()> {
        if self.phase == Phase::Candidates {
            for (slice, buffer) in self.slices.take() {
                out.emit(result(&self.plan, self.phase, slice, &buffer)?);
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
            if std::mem::take(&mut buffer.changed) {
                buffer.saved = now;
                buffer.compact(plan)?;
            }
            *changes.entry(buffer.saved).or_default() += buffer.rows;
        }
        segments.finish(state, &changes, |since| {
            let changed = slices.held().filter(|(_, buffer)| buffer.saved > since);
            let pieces = changed.map(|(slice, buffer)| buffer.segment(plan, slice)).collect::<Result<Vec<_>>>()?;
            Ok(concat_batches(&plan.form.columns, &pieces)?)
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
            let mut loaded = HashSet::new();
            for (save, rows) in former.segments {
                let rows = plan.form.widen(rows)?;
                for (slice, selection) in slices.saved_parts(former.part, &rows, SLICE)? {
                    if loaded.insert(slice) {
                        let buffer = slices.content(slice, || Ok(Buffer::default()))?;
                        buffer.restore(schema, slice, &selection.batch(&rows)?, save)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.slices.contents().map(|buffer| buffer.bytes).sum()
    }
}
