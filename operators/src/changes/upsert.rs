//! Rows as the newest values of their keys: a table of the latest rows.
//!
//! ```text
//!   rows ──► the newest of each key in the batch ──► newer than what is kept? ──yes──► insert, update, delete
//!                                                              │                       └─► store
//!                                                              └─no──► nothing: it is answered for
//! ```

use std::{cmp::Ordering, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::FieldRef,
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use super::{
    DELETE, INSERT, UPDATE, changes,
    lifetime::{Lifetime, check_ttl, not_before, time_column, times},
    store::{self, Newest},
    take_all,
};
use crate::{
    Advance, Operator, Outbox, Port, Result, StreamSchema, Timestamp,
    expr::{Lowering, evaluate_condition},
    key::{
        check_key, comparable,
        encoded::{Grouped, KeyBytes, KeyEncoder},
    },
    plan::{KeyedOutput, Partitioning, Plan},
    state::{StateForm, StateReader, StateWriter},
};

/// Makes a stream of changes of rows: every row is the new value of its key.
///
/// With event time the row with the greatest time is the one that counts, in whatever order rows come: an older one is
/// answered for and dropped. Of rows of one key and one time the one counts whose columns sort last. Without event time the row
/// that came last counts.
///
/// A row that meets the condition `deletes` takes its key away. Then rows that are behind the watermark are late: the operator
/// remembers no longer than that when a key went away.
///
/// With a time to live the row of a key goes away when it is more than that behind the watermark: a delete leaves, whose event
/// time is that of the row and the time to live, and at the end of the input all rows go. A row that is itself more than the time
/// to live behind the watermark is late, and no other is, whether rows take keys away or not. **Without a time to live the row of
/// every key is kept for ever.**
///
/// The state has the columns `__key_group`, the key, `__gone` (the key went away), `__time`, and the other visible columns.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
/// use arrow::datatypes::UInt8Type;
/// use datafusion_expr::{col, lit};
/// use windrow_operators::{Operator, Outbox, Plan, Port, StreamSchema, changes::UpsertPlan};
///
/// let numbers = |numbers: [i64; 2]| Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef;
/// let batch = |stock| RecordBatch::try_from_iter([("item", numbers([1, 2])), ("stock", numbers(stock))]).unwrap();
/// let stream = StreamSchema::without_time(batch([0, 0]).schema());
/// let plan = UpsertPlan::new(&stream, &["item"], Some(&col("stock").eq(lit(0))), None).unwrap();
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, batch([5, 6]), &mut out).unwrap();
/// operator.process(Port::MAIN, batch([4, 0]), &mut out).unwrap();
/// let ops = out.drain().flat_map(|(_, rows)| rows.column(2).as_primitive::<UInt8Type>().values().to_vec());
/// assert_eq!(ops.collect::<Vec<u8>>(), [0, 0, 2, 1], "two inserts, then a delete and an update");
/// ```
#[derive(Clone, Debug)]
pub struct UpsertPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    input: StreamSchema,
    /// The key columns of the input, and the other visible ones.
    key: Vec<usize>,
    others: Vec<usize>,
    deletes: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that decide between rows of one time.
    sorted: Vec<usize>,
    ttl: Option<Duration>,
    output: StreamSchema,
    form: StateForm,
}

impl UpsertPlan {
    /// The newest row of `input` per value of the columns `key`; rows for which `deletes` is true take their key away, and a row
    /// goes after `ttl`. Fails when `input` is a stream of changes, a column does not exist or cannot be a key, `deletes` is not a
    /// condition, or there is a time to live and no event time.
    pub fn new(input: &StreamSchema, key: &[&str], deletes: Option<&Expr>, ttl: Option<Duration>) -> Result<Self> {
        input.expect_rows("an upsert")?;
        check_ttl(ttl, input)?;
        let visible = input.visible();
        let columns = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(&visible, &columns)?;
        let fields =
            |columns: &[usize]| columns.iter().map(|&i| visible.fields()[i].clone()).collect::<Vec<FieldRef>>();
        let others: Vec<usize> = (0..visible.fields().len()).filter(|column| !columns.contains(column)).collect();
        let deletes_of = |expr: &Expr| Lowering::new(input)?.condition(expr);
        let by = if key.is_empty() { "nothing".to_string() } else { key.join(", ") };
        let meaning = format!("upsert by {by}{}", deletes.map(|expr| format!("; deletes {expr}")).unwrap_or_default());
        let sorted = (0..visible.fields().len()).filter(|&i| KeyEncoder::supports(visible.field(i).data_type()));
        Ok(Self(Arc::new(Shared {
            output: match input.time() {
                Some(_) => StreamSchema::changes(&visible, key)?,
                None => StreamSchema::changes_without_time(&visible, key)?,
            },
            form: StateForm {
                columns: store::columns(&fields(&columns), &fields(&others))?,
                identity: key.len(),
                meaning,
                reading: store::reading(key.len()),
            },
            deletes: deletes.map(deletes_of).transpose()?,
            sorted: sorted.collect(),
            ttl,
            input: input.clone(),
            key: columns,
            others,
        })))
    }

    /// The schema of the changes.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }
}

impl Plan for UpsertPlan {
    fn noun(&self) -> &'static str {
        "latest"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let late = self.0.late().then(|| (Port::LATE, self.0.input.clone()));
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
        let types = plan.sorted.iter().map(|&i| plan.input.columns().field(i).data_type());
        let mut store = Newest::new(plan.form.columns.clone(), plan.key.len(), plan.late())?;
        if plan.remembers() {
            store.remember_from(Timestamp::MIN);
        }
        let lifetime = Lifetime::new(plan.ttl);
        Ok(Box::new(Upsert { order: KeyEncoder::new(types)?, store, lifetime, plan }))
    }
}

impl Shared {
    /// Whether rows can be late: when keys go away and times tell what is older.
    fn late(&self) -> bool {
        self.remembers() || self.ttl.is_some()
    }

    /// Whether it is remembered that a row has taken its key away. (One that went by itself is older than all that is not late.)
    fn remembers(&self) -> bool {
        self.deletes.is_some() && self.input.time().is_some()
    }

    /// Rows whose keys are written alike where they are one key, as 0.0 and -0.0 are.
    fn canonical(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        self.key.iter().for_each(|&column| columns[column] = comparable(&columns[column]));
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }

    fn columns(&self, batch: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
        columns.iter().map(|&column| batch.column(column).clone()).collect()
    }

    /// The visible columns of rows of the state.
    fn visible(&self, store: &Newest, rows: &RecordBatch) -> Vec<ArrayRef> {
        let mut placed: Vec<(usize, ArrayRef)> =
            self.key.iter().copied().zip(store.key(rows).iter().cloned()).collect();
        placed.extend(self.others.iter().copied().zip(store.own(rows).iter().cloned()));
        placed.sort_by_key(|(column, _)| *column);
        placed.dedup_by_key(|(column, _)| *column);
        placed.into_iter().map(|(_, array)| array).collect()
    }
}

struct Upsert {
    plan: Arc<Shared>,
    order: KeyEncoder,
    store: Newest,
    lifetime: Lifetime,
}

impl Upsert {
    /// The row of each key that counts, in the order in which they came.
    fn newest(&self, batch: &RecordBatch, keys: &KeyBytes, times: Option<&[i64]>) -> Result<Vec<u32>> {
        let grouped = Grouped::new(keys, 0..batch.num_rows());
        let Some(times) = times else { return Ok(grouped.last()) };
        // Of keys that have several newest rows these rows, and where each key's end.
        let (mut rows, mut tied, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for of_key in grouped.rows() {
            let time = |row: &u32| times[*row as usize];
            let last = of_key.iter().map(time).max();
            let mut newest = of_key.iter().copied().filter(|row| Some(time(row)) == last);
            match (newest.next(), newest.next()) {
                (Some(first), Some(second)) => {
                    tied.extend([first, second]);
                    tied.extend(newest);
                    ends.push(tied.len());
                }
                (only, _) => rows.extend(only),
            }
        }
        let order = self.order(batch, &tied)?;
        let mut first = 0;
        for end in ends {
            let greatest = |a: usize, b: usize| if order.get(b) > order.get(a) { b } else { a };
            rows.extend((first..end).reduce(greatest).map(|at| tied[at]));
            first = end;
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// What decides between rows of one time. Only those are encoded that need it: few, and all their columns.
    fn order(&self, batch: &RecordBatch, rows: &[u32]) -> Result<KeyBytes> {
        self.order.encode(&take_all(&self.plan.columns(batch, &self.plan.sorted), rows)?)
    }

    /// Of rows of different keys those that are newer than what is kept, as places in `rows`.
    fn newer(&self, batch: &RecordBatch, rows: &[u32], times: &[i64], found: &[Option<u32>]) -> Result<Vec<u32>> {
        let (mut newer, mut tied, mut slots) = (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
        for ((&row, found), at) in rows.iter().zip(found).zip(0..) {
            match found.map(|slot| (slot, times[row as usize].cmp(&self.store.time(slot)))) {
                None | Some((_, Ordering::Greater)) => newer.push(at),
                Some((slot, Ordering::Equal)) => {
                    tied.push(at);
                    slots.push(slot);
                }
                Some((_, Ordering::Less)) => {}
            }
        }
        if !tied.is_empty() {
            let kept = self.plan.visible(&self.store, &self.store.gather(&slots)?);
            let kept: Vec<ArrayRef> = self.plan.sorted.iter().map(|&column| kept[column].clone()).collect();
            let kept = self.order.encode(&kept)?;
            let own = self.order(batch, &tied.iter().map(|&at| rows[at as usize]).collect::<Vec<_>>())?;
            newer.extend(tied.iter().zip(0..).filter(|(_, at)| own.get(*at) > kept.get(*at)).map(|(at, _)| *at));
            newer.sort_unstable();
        }
        Ok(newer)
    }

    /// Applies rows of different keys, each newer than what is kept of its key, which was `found` there. Each gives one change
    /// at the most.
    fn apply(&mut self, rows: &RecordBatch, keys: KeyBytes, found: &[Option<u32>], out: &mut Outbox) -> Result<()> {
        let there: Vec<Option<u32>> = found.iter().map(|slot| slot.filter(|&slot| !self.store.is_gone(slot))).collect();
        let times = times(rows, self.plan.input.time())?;
        let deletes = match &self.plan.deletes {
            Some(condition) => evaluate_condition(condition.as_ref(), rows)?,
            None => BooleanArray::from(vec![false; rows.num_rows()]),
        };
        let (deleting, setting): (Vec<u32>, Vec<u32>) =
            (0..rows.num_rows() as u32).partition(|&row| deletes.value(row as usize));
        let held = |chosen: &[u32]| {
            self.lifetime.held(chosen.iter().map(|&row| times.map_or(i64::MIN, |times| times[row as usize])))
        };

        let deleted: Vec<u32> = deleting.iter().copied().filter(|&row| there[row as usize].is_some()).collect();
        let slots: Vec<u32> = deleted.iter().filter_map(|&row| there[row as usize]).collect();
        let former = self.plan.visible(&self.store, &self.store.gather(&slots)?);
        out.emit(changes(&self.plan.output, former, vec![DELETE; deleted.len()], || held(&deleted))?);
        let op = |row: &u32| if there[*row as usize].is_some() { UPDATE } else { INSERT };
        let visible = self.plan.input.show(rows)?;
        let visible = match setting.len() == rows.num_rows() {
            true => visible.columns().to_vec(),
            false => take_all(visible.columns(), &setting)?,
        };
        out.emit(changes(&self.plan.output, visible, setting.iter().map(op).collect(), || held(&setting))?);

        if times.is_some() || deleting.is_empty() {
            return self.keep(rows, deletes, &keys, found);
        }
        // Nothing that comes later can be older: a key that went away need not be remembered.
        self.store.remove(&slots)?;
        let set = take_record_batch(rows, &UInt32Array::from(setting.clone()))?;
        // What was found before may be elsewhere now.
        let keys = keys.only(&setting);
        let found = self.store.find(&keys, set.num_rows());
        self.keep(&set, BooleanArray::from(vec![false; setting.len()]), &keys, &found)
    }

    fn keep(&mut self, rows: &RecordBatch, gone: BooleanArray, keys: &KeyBytes, found: &[Option<u32>]) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let key = self.plan.columns(rows, &self.plan.key);
        let time = times(rows, self.plan.input.time())?.map(<[i64]>::to_vec);
        let time = time_column(time, rows.num_rows());
        let state = self.store.rows(&key, &key, gone, time, self.plan.columns(rows, &self.plan.others))?;
        self.store.put(state, keys, found)?;
        Ok(())
    }
}

impl Operator for Upsert {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let time = self.plan.input.time();
        let first = self.plan.late().then(|| self.lifetime.horizon());
        let batch = not_before(first, batch, time, Port::LATE, out)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = self.plan.canonical(&batch)?;
        let keys = self.store.encode(&self.plan.columns(&batch, &self.plan.key))?;
        let mut rows = self.newest(&batch, &keys, times(&batch, time)?)?;
        let mut keys = keys.only(&rows);
        let mut found = self.store.find(&keys, rows.len());
        if let Some(times) = times(&batch, time)? {
            let newer = self.newer(&batch, &rows, times, &found)?;
            if newer.len() < rows.len() {
                keys = keys.only(&newer);
                found = newer.iter().map(|&at| found[at as usize]).collect();
                rows = newer.iter().map(|&at| rows[at as usize]).collect();
            }
        }
        // The one time that rows are copied: for what is kept and for the changes.
        let rows = take_record_batch(&batch, &UInt32Array::from(rows))?;
        self.apply(&rows, keys, &found, out)?;
        self.store.renumber();
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if let Some(before) = self.lifetime.ends(time) {
            let (_, ended) = self.store.expire(before, out.step())?;
            if ended.num_rows() > 0 {
                let former = self.plan.visible(&self.store, &ended);
                let times = || self.lifetime.ended(self.store.times(&ended));
                out.emit(changes(&self.plan.output, former, vec![DELETE; ended.num_rows()], times)?);
                return Ok(Advance::Again);
            }
        }
        self.lifetime.reach(time);
        if self.plan.remembers() {
            self.store.forget_before(self.lifetime.horizon())?;
        }
        self.store.renumber();
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.lifetime.save(state);
        self.store.save(state, |rows| Ok(rows.clone()))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.lifetime.load(state);
        if self.plan.remembers() {
            self.store.remember_from(self.lifetime.horizon());
        }
        self.store.load(state, |rows| Ok(Some(self.plan.form.widen(rows)?)))
    }

    fn size(&self) -> usize {
        self.store.size()
    }
}
