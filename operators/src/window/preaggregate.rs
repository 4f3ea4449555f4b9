//! Aggregation before the exchange, so that groups and not rows cross it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::{
    Slice,
    aggregate::{Shared, constant},
    slices::{Due, Left, Slices},
    table::{GroupTable, Tables},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    aggregates::{Accumulators, ArgumentReader},
    key::comparable,
    spill::Memory,
    state::{StateReader, StateWriter},
};

/// How many rows go by between two looks at whether aggregating pays.
const LOOK_EVERY_ROWS: usize = 65_536;
/// Above this many groups per row it does not pay: the exchange is cheaper than the table.
const WORTHLESS_ABOVE: f64 = 0.8;
/// How many rows pass through before the next try, once it did not pay.
const PASS_ROWS: usize = 16 * LOOK_EVERY_ROWS;
/// What it may hold. More does not help: the table must stay in the cache to be faster than the exchange.
pub(super) const BUDGET_BYTES: usize = 16 << 20;

/// The first phase of a window aggregation: groups rows per slice and emits (key, states).
///
/// It emits a slice when the watermark closes it, and everything when its budget is used up or it is told to flush; it
/// answers for late rows, so that they leave as they came. When it finds that almost every row is a group of its own, it passes each row on as
/// a state for a while, then tries again.
pub struct PreAggregate {
    plan: Arc<Shared>,
    slices: Slices<GroupTable>,
    tables: Tables,
    arguments: ArgumentReader,
    rows_since_look: usize,
    /// Rows still to be passed through without grouping.
    pass: usize,
    scratch: Vec<usize>,
    /// What the job allows, if it has a budget.
    memory: Option<Memory>,
}

impl PreAggregate {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            slices: Slices::first_phase(&plan.window)?,
            tables: Tables::new(plan.key_schema.clone()),
            arguments: ArgumentReader::default(),
            plan,
            rows_since_look: 0,
            pass: 0,
            scratch: Vec::new(),
            memory: None,
        })
    }

    /// Emits every open slice when the budget is used up or grouping does not pay.
    fn look(&mut self, out: &mut Outbox) -> Result<()> {
        // Cheap enough for each batch: a table counts its bytes only when it has grown by an eighth.
        let bytes: usize = self.slices.contents().map(GroupTable::size).sum();
        let most = self.memory.as_ref().map_or(BUDGET_BYTES, |memory| BUDGET_BYTES.min(memory.allowance() / 4));
        if self.rows_since_look < LOOK_EVERY_ROWS && bytes <= most {
            return Ok(());
        }
        let open: Vec<_> = self.slices.take().collect();
        let groups: usize = open.iter().map(|(_, table)| table.groups()).sum();
        let rows: usize = open.iter().map(|(_, table)| table.rows()).sum();
        let worthless = groups as f64 > WORTHLESS_ABOVE * rows as f64;
        if worthless {
            self.pass = PASS_ROWS;
        }
        for (slice, table) in open {
            if worthless || bytes > most {
                out.emit(states(&self.plan, &mut self.tables, slice, table)?);
            } else {
                self.slices.content(slice, || Ok(table))?;
            }
        }
        self.rows_since_look = 0;
        Ok(())
    }
}

/// (key, states, last instant of the slice): that instant cannot be late before the slice is closed.
fn states(plan: &Shared, tables: &mut Tables, slice: Slice, table: GroupTable) -> Result<RecordBatch> {
    let rows = table.groups();
    let (key, states) = tables.states(table)?;
    batch_of(plan, slice, rows, key, states)
}

fn batch_of(
    plan: &Shared,
    slice: Slice,
    rows: usize,
    mut columns: Vec<ArrayRef>,
    states: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    columns.extend(states);
    columns.push(constant(slice.result_time(), rows));
    Ok(RecordBatch::try_new(plan.partial.columns().clone(), columns)?)
}

impl Operator for PreAggregate {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let Self { plan, slices, tables, arguments, scratch, .. } = self;
        let parts = slices.assign(&batch, plan.input_time, out)?;
        if parts.is_empty() {
            return Ok(());
        }
        let arguments = arguments.read(&plan.aggregates, &batch)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&column| comparable(batch.column(column))).collect();
        for (slice, selection) in parts {
            let arguments = arguments.of_rows(|column| selection.array(column))?;
            let key = key.iter().map(|column| selection.array(column)).collect::<Result<Vec<_>>>()?;
            let rows = selection.rows(&batch);
            if self.pass > 0 {
                let states = Accumulators::new(&plan.aggregates)?.states_of_rows(&arguments)?;
                out.emit(batch_of(plan, slice, rows, key, states)?);
                self.pass = self.pass.saturating_sub(rows);
                continue;
            }
            let table = slices.content(slice, || tables.table(&plan.aggregates))?;
            table.update(&key, &arguments, rows, scratch)?;
            self.rows_since_look += rows;
        }
        self.look(out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let Self { plan, slices, tables, .. } = self;
        slices.advance(time, out, |slice, due| match due {
            Due::Slice(table) => Ok((states(plan, tables, slice, table)?, Left::Nothing)),
            Due::Window(..) => Err(OperatorError::Internal("a first phase makes no windows".into())),
        })
    }

    fn flush(&mut self, out: &mut Outbox) -> Result<()> {
        for (slice, table) in self.slices.take() {
            out.emit(states(&self.plan, &mut self.tables, slice, table)?);
        }
        self.rows_since_look = 0;
        Ok(())
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.slices.save_flushed(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.slices.load_flushed(state);
        Ok(())
    }

    fn limit(&mut self, memory: &Memory) -> bool {
        // It puts nothing away: what it holds counts as held, and is a small part.
        self.memory = Some(memory.clone());
        self.tables.within(memory.allowance());
        false
    }

    fn size(&self) -> usize {
        self.slices.contents().map(GroupTable::size).sum()
    }
}
