//! Rows as the newest values of their keys: a table of the latest rows.
//!
//! ```text
//!   rows ──► the newest of each key in the batch ──► newer than what is kept? ──yes──► insert, update, delete
//!                                                              │                       └─► store
//!                                                              └─no──► nothing: it is answered for
//! ```

use std::{sync::Arc, time::Duration};

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
    plan::{Partitioning, Plan},
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
        let mut order = None;
        let mut rows = Vec::new();
        for of_key in grouped.rows() {
            let mut kept = of_key[0] as usize;
            for row in of_key[1..].iter().map(|row| *row as usize) {
                let newer = match times[row].cmp(&times[kept]) {
                    std::cmp::Ordering::Equal => {
                        let order = match &mut order {
                            Some(order) => order,
                            none => none.insert(self.order.encode(&self.plan.columns(batch, &self.plan.sorted))?),
                        };
                        order.get(row) > order.get(kept)
                    }
                    than => than.is_gt(),
                };
                kept = if newer { row } else { kept };
            }
            rows.push(kept as u32);
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Of rows of different keys, those that are newer than what is kept.
    fn newer(&self, rows: &RecordBatch, times: &[i64], found: &[Option<u32>]) -> Result<Vec<u32>> {
        let known: Vec<u32> = found.iter().flatten().copied().collect();
        let kept = self.store.gather(&known)?;
        let kept_times = self.store.times(&kept);
        let is_tie = {
            let of_known = found.iter().zip(times).filter(|(found, _)| found.is_some()).map(|(_, time)| time);
            of_known.zip(kept_times).any(|(time, kept)| time == kept)
        };
        // Columns are compared only where times do not decide.
        let orders = match is_tie {
            true => {
                let kept = self.plan.visible(&self.store, &kept);
                let kept: Vec<ArrayRef> = self.plan.sorted.iter().map(|&column| kept[column].clone()).collect();
                let own = self.order.encode(&self.plan.columns(rows, &self.plan.sorted))?;
                Some((own, self.order.encode(&kept)?))
            }
            false => None,
        };
        let (mut at, mut newer) = (0, Vec::with_capacity(found.len()));
        for (row, found) in found.iter().enumerate() {
            let is_newer = found.is_none()
                || match times[row].cmp(&kept_times[at]) {
                    std::cmp::Ordering::Equal => orders.as_ref().is_some_and(|(own, kept)| own.get(row) > kept.get(at)),
                    than => than.is_gt(),
                };
            at += usize::from(found.is_some());
            if is_newer {
                newer.push(row as u32);
            }
        }
        Ok(newer)
    }

    /// Applies rows of different keys, each newer than what is kept of its key. Each gives one change at the most.
    fn apply(&mut self, rows: &RecordBatch, keys: &KeyBytes, out: &mut Outbox) -> Result<()> {
        let found = self.store.find(keys, rows.num_rows());
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
        let visible = take_all(self.plan.input.show(rows)?.columns(), &setting)?;
        out.emit(changes(&self.plan.output, visible, setting.iter().map(op).collect(), || held(&setting))?);

        if times.is_some() {
            return self.keep(rows, deletes, &found);
        }
        // Nothing that comes later can be older: a key that went away need not be remembered.
        self.store.remove(&slots)?;
        let set = take_record_batch(rows, &UInt32Array::from(setting.clone()))?;
        // What was found before may be elsewhere now.
        let found = self.store.find(&self.store.encode(&self.plan.columns(&set, &self.plan.key))?, set.num_rows());
        self.keep(&set, BooleanArray::from(vec![false; setting.len()]), &found)
    }

    fn keep(&mut self, rows: &RecordBatch, gone: BooleanArray, found: &[Option<u32>]) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let key = self.plan.columns(rows, &self.plan.key);
        let time = times(rows, self.plan.input.time())?.map(<[i64]>::to_vec);
        let time = time_column(time, rows.num_rows());
        let state = self.store.rows(&key, &key, gone, time, self.plan.columns(rows, &self.plan.others))?;
        let keys = self.store.encode(&key)?;
        self.store.put(state, &keys, found)?;
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
        let key_of = |rows: &RecordBatch| self.store.encode(&self.plan.columns(rows, &self.plan.key));
        let newest = self.newest(&batch, &key_of(&batch)?, times(&batch, time)?)?;
        let mut rows = take_record_batch(&batch, &UInt32Array::from(newest))?;
        let mut keys = key_of(&rows)?;
        if let Some(times) = times(&rows, time)? {
            let found = self.store.find(&keys, rows.num_rows());
            let newer = self.newer(&rows, times, &found)?;
            if newer.len() < rows.num_rows() {
                rows = take_record_batch(&rows, &UInt32Array::from(newer))?;
                keys = key_of(&rows)?;
            }
        }
        self.apply(&rows, &keys, out)?;
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
