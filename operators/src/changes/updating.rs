//! Aggregates per key without a window: every batch of rows changes the values of its groups.
//!
//! ```text
//!   rows ──► groups of the batch ──states─┐
//!                                         ├─ merged ──► new states ──► store
//!   store: states of the same groups ─────┘                  └──────► new values ──► one change per group
//! ```
//!
//! An accumulator gives its state or its value only when it is used up. So what is kept are states, in columns, and each batch
//! goes through small fresh tables of groups.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    datatypes::{FieldRef, SchemaRef},
};
use datafusion_expr::Expr;

use super::{
    DELETE, INSERT, UPDATE, changes,
    lifetime::{Lifetime, check_ttl, time_column, times},
    store::{self, Newest},
    take_all,
};
use crate::{
    Advance, Operator, Outbox, Port, Result, StreamSchema, Timestamp,
    aggregates::{Aggregates, ArgumentReader, Planned},
    key::comparable,
    plan::{KeyedOutput, Partitioning, Plan},
    state::{StateForm, StateReader, StateWriter},
    window::table::{GroupTable, Tables},
};

/// Aggregates per key whose values change with every row: a stream of changes with the key and the aggregates.
///
/// Each batch of rows gives one change for each of its groups, with the values they have now. With a time to live a group goes
/// away when its last row is more than that behind the watermark: a delete leaves, whose event time is that of the last row and
/// the time to live, and at the end of the input all groups go. A row that is itself more than the time to live behind the
/// watermark is late. Whether a row that comes after a longer pause finds its group still there depends on how far event time has
/// been told to be. **Without a time to live the state of every key is kept for ever.**
///
/// The state of a group is copied whenever a batch touches it: `count(distinct …)`, `array_agg` and `median`, whose states hold
/// values of all rows, are dear here.
///
/// The state has the columns `__key_group`, the key, `__gone`, `__time` (that of the last row), and the states of the aggregates.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
/// use arrow::datatypes::{Int64Type, UInt8Type};
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::sum;
/// use windrow_operators::{Operator, Outbox, Plan, Port, StreamSchema, changes::UpdatingPlan};
///
/// let numbers = |numbers: [i64; 3]| Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef;
/// let bids = RecordBatch::try_from_iter([("auction", numbers([7, 8, 7])), ("price", numbers([1, 2, 3]))]).unwrap();
/// let stream = StreamSchema::without_time(bids.schema());
/// let plan = UpdatingPlan::new(&stream, &["auction"], &[sum(col("price")).alias("sum")], None).unwrap();
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, bids.clone(), &mut out).unwrap();
/// operator.process(Port::MAIN, bids, &mut out).unwrap();
/// let changes: Vec<_> = out.drain().map(|(_, changes)| changes).collect();
/// assert_eq!(changes[0].column(1).as_primitive::<Int64Type>().values(), &[4, 2]);
/// assert_eq!(changes[0].column(2).as_primitive::<UInt8Type>().values(), &[0, 0], "inserts");
/// assert_eq!(changes[1].column(1).as_primitive::<Int64Type>().values(), &[8, 4]);
/// assert_eq!(changes[1].column(2).as_primitive::<UInt8Type>().values(), &[1, 1], "updates");
/// ```
#[derive(Clone, Debug)]
pub struct UpdatingPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    input: StreamSchema,
    /// The key columns of the input.
    key: Vec<usize>,
    key_schema: SchemaRef,
    aggregates: Aggregates,
    ttl: Option<Duration>,
    output: StreamSchema,
    form: StateForm,
}

impl UpdatingPlan {
    /// Aggregates rows of `input` per value of the columns `key`; without any all rows are one group. Fails when `input` is a
    /// stream of changes, a column does not exist or cannot be a key, an expression is not an aggregate, or there is a time
    /// to live and no event time.
    pub fn new(input: &StreamSchema, key: &[&str], aggregates: &[Expr], ttl: Option<Duration>) -> Result<Self> {
        input.expect_rows("an aggregation")?;
        check_ttl(ttl, input)?;
        let planned = Planned::new(input, key, aggregates)?;
        let output = planned.output(Vec::new())?;
        let key_fields = planned.key_schema.fields();
        let states = planned.states(planned.key_fields().collect());
        let states: Vec<FieldRef> = states.into_iter().skip(key.len()).map(Arc::new).collect();
        let columns = store::columns(key_fields, &states)?;
        Ok(Self(Arc::new(Shared {
            form: StateForm {
                columns,
                identity: key.len(),
                meaning: planned.meaning("updating"),
                reading: store::reading(key.len()),
            },
            input: input.clone(),
            key: planned.key,
            key_schema: planned.key_schema,
            aggregates: planned.aggregates,
            ttl,
            output: match input.time() {
                Some(_) => StreamSchema::changes(&output, key)?,
                None => StreamSchema::changes_without_time(&output, key)?,
            },
        })))
    }

    /// The schema of the changes.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }
}

impl Plan for UpdatingPlan {
    fn noun(&self) -> &'static str {
        "aggregate"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let late = self.0.ttl.map(|_| (Port::LATE, self.0.input.clone()));
        [(Port::MAIN, self.0.output.clone())].into_iter().chain(late).collect()
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        KeyedOutput::named(&self.0.input, &self.0.key, &self.0.output)
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        let plan = self.0.clone();
        Ok(Box::new(Updating {
            tables: Tables::new(plan.key_schema.clone()),
            arguments: ArgumentReader::default(),
            scratch: Vec::new(),
            store: Newest::new(plan.form.columns.clone(), plan.key.len(), plan.ttl.is_some())?,
            lifetime: Lifetime::new(plan.ttl),
            plan,
        }))
    }
}

struct Updating {
    plan: Arc<Shared>,
    tables: Tables,
    arguments: ArgumentReader,
    scratch: Vec<usize>,
    store: Newest,
    lifetime: Lifetime,
}

/// Groups of a batch, and for each the greatest event time of its rows.
struct Groups {
    key: Vec<ArrayRef>,
    states: Vec<ArrayRef>,
    times: Option<Vec<i64>>,
    rows: usize,
}

impl Updating {
    /// The groups of the rows of a batch.
    fn aggregate(&mut self, batch: &RecordBatch) -> Result<Groups> {
        let Self { plan, tables, arguments, scratch, .. } = self;
        let arguments = arguments.read(&plan.aggregates, batch)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&column| comparable(batch.column(column))).collect();
        let mut table = tables.table(&plan.aggregates)?;
        table.update(&key, &arguments, batch.num_rows(), scratch)?;
        let rows = table.groups();
        let times = times(batch, plan.input.time())?.map(|times| {
            let mut latest = vec![i64::MIN; rows];
            scratch.iter().zip(times).for_each(|(&group, &time)| latest[group] = latest[group].max(time));
            latest
        });
        let (key, states) = tables.states(table)?;
        Ok(Groups { key, states, times, rows })
    }

    /// A table of these states, with the group of each of them in `scratch`.
    fn table(&mut self, key: &[ArrayRef], states: &[ArrayRef], rows: usize) -> Result<GroupTable> {
        let mut table = self.tables.table(&self.plan.aggregates)?;
        table.merge(key, states, rows, &mut self.scratch)?;
        Ok(table)
    }

    /// The states of `new` and of the stored groups together, for each group of `new`.
    fn merge(&mut self, new: &Groups, stored: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = stored.num_rows();
        let (key, states) = (self.store.key(stored).to_vec(), self.store.own(stored).to_vec());
        // The older ones first: an aggregate such as array_agg minds.
        let mut table = self.table(&key, &states, rows)?;
        table.merge(&new.key, &new.states, new.rows, &mut self.scratch)?;
        let (_, states) = self.tables.states(table)?;
        self.aligned(states)
    }

    /// The final values of these states, in their order.
    fn values(&mut self, key: &[ArrayRef], states: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>> {
        let table = self.table(key, states, rows)?;
        let (_, values) = self.tables.results(table)?;
        self.aligned(values)
    }

    /// What a table gave, in the order of the rows that went into it last.
    fn aligned(&self, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let groups = columns.first().map_or(0, |column| column.len());
        if groups == self.scratch.len() && self.scratch.is_sorted() {
            return Ok(columns);
        }
        take_all(&columns, &self.scratch.iter().map(|&group| group as u32).collect::<Vec<_>>())
    }
}

impl Operator for Updating {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let batch = self.lifetime.on_time(batch, self.plan.input.time(), Port::LATE, out)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut groups = self.aggregate(&batch)?;
        let keys = self.store.encode(&groups.key)?;
        let found = self.store.find(&keys, groups.rows);
        let is_there = |slot: &Option<u32>| slot.is_some_and(|slot| !self.store.is_gone(slot));
        let ops: Vec<u8> = found.iter().map(|slot| if is_there(slot) { UPDATE } else { INSERT }).collect();
        let known: Vec<u32> = found.iter().filter(|slot| is_there(slot)).flatten().copied().collect();
        let stored = self.store.gather(&known)?;
        if stored.num_rows() > 0 {
            groups.states = self.merge(&groups, &stored)?;
        }
        let mut visible = groups.key.clone();
        visible.extend(self.values(&groups.key, &groups.states, groups.rows)?);
        // One change for each group of the batch: no more than it has rows.
        let held = || self.lifetime.held(groups.times.iter().flatten().copied());
        let emitted = changes(&self.plan.output, visible, ops.clone(), held)?;

        let mut last = groups.times;
        let former = self.store.times(&stored).iter();
        for (last, former) in
            last.iter_mut().flatten().zip(&ops).filter(|(_, op)| **op == UPDATE).map(|(last, _)| last).zip(former)
        {
            *last = (*last).max(*former);
        }
        let there = BooleanArray::from(vec![false; groups.rows]);
        let rows = self.store.rows(&groups.key, &groups.key, there, time_column(last, groups.rows), groups.states)?;
        self.store.put(rows, &keys, &found)?;
        out.emit(emitted);
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if let Some(before) = self.lifetime.ends(time) {
            let (_, ended) = self.store.expire(before, out.step())?;
            if ended.num_rows() > 0 {
                let (key, states) = (self.store.key(&ended).to_vec(), self.store.own(&ended).to_vec());
                let mut visible = key.clone();
                visible.extend(self.values(&key, &states, ended.num_rows())?);
                let times = || self.lifetime.ended(self.store.times(&ended));
                out.emit(changes(&self.plan.output, visible, vec![DELETE; ended.num_rows()], times)?);
                return Ok(Advance::Again);
            }
            self.store.renumber();
        }
        self.lifetime.reach(time);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.lifetime.save(state);
        self.store.save(state, |rows| Ok(rows.clone()))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.lifetime.load(state);
        self.store.load(state, |rows| Ok(Some(self.plan.form.widen(rows)?)))
    }

    fn size(&self) -> usize {
        self.store.size()
    }
}
