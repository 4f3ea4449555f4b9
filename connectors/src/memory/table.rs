//! A sink of changes that keeps the newest row of each key, as far as it was committed.
//!
//! ```text
//!   write ──► Written ──stage──► Staged(receipt) ──commit──► the table     rows(), batches(), get(key)
//!                └───────────────────┴── clean, by a later generation: forgotten
//! ```
//!
//! It outlives the job that writes to it, as [`MemorySink`](super::MemorySink) does.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use arrow::{
    array::{ArrayRef, AsArray, Datum, RecordBatch, UInt8Array},
    compute::{cast, interleave_record_batch},
    datatypes::{SchemaRef, UInt8Type},
    row::{OwnedRow, RowConverter, SortField},
};
use async_trait::async_trait;
use typed_arrow::schema::{FromRecordBatch, SchemaMeta};

use super::{
    look,
    staging::{Staging, Writer, lock},
};
use crate::{ConnectorError, Incarnation, OP, Receipt, Result, Sink, SinkWriter};

/// A change that takes a row away; every other one sets it.
const DELETE: u8 = 2;
/// How many rows that do not count any more the table may keep besides as many as count.
const SLACK: usize = 8192;

/// Keeps the newest row per key of a stream of changes. A clone is another handle to the same table, so a test keeps one and
/// gives the other to the job.
///
/// A change counts when it is committed: what a reader sees is the table as it was at the last checkpoint. A change is applied
/// once, however often it is committed; a delete of a key that is not there does nothing. Printed it is a table of text.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{Int64Array, RecordBatch, UInt8Array};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::{Epoch, Incarnation, MemoryTable, OP, Sink, SinkWriter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let number = |name| Field::new(name, DataType::Int64, false);
/// let columns = Arc::new(Schema::new(vec![number("item"), number("stock")]));
/// let changes = RecordBatch::try_from_iter([
///     ("item", Arc::new(Int64Array::from(vec![7, 3, 7])) as _),
///     ("stock", Arc::new(Int64Array::from(vec![1, 2, 9])) as _),
///     (OP, Arc::new(UInt8Array::from(vec![0, 0, 1])) as _), // insert, insert, update
/// ])?;
///
/// let table = MemoryTable::new();
/// table.accepts_changes(&columns, &[0])?;
/// let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
/// let mut writer = table.writer(&incarnation, 0, changes.schema()).await?;
/// writer.write(changes).await?;
/// let receipts = writer.stage(Epoch(1)).await?;
/// assert_eq!(table.rows(), 0);
/// table.commit(&receipts).await?;
/// assert_eq!(table.rows(), 2);
/// let row = table.get(&[&Int64Array::new_scalar(7)])?.unwrap();
/// assert_eq!(row.column(1).as_ref(), &Int64Array::from(vec![9]) as &dyn arrow::array::Array);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// What is in it, once a job has said so.
    form: Option<Form>,
    /// What was written and is not committed.
    staging: Staging,
    table: Table,
}

#[derive(Debug)]
struct Form {
    schema: SchemaRef,
    key: Vec<usize>,
    /// `None` without a key: then there is one row.
    converter: Option<RowConverter>,
}

/// The newest row of each key, in order of the keys, and the batches that they are in.
#[derive(Debug, Default)]
struct Table {
    places: BTreeMap<Option<OwnedRow>, (usize, usize)>,
    batches: HashMap<usize, RecordBatch>,
    rows: usize,
    next: usize,
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows the table has.
    pub fn rows(&self) -> usize {
        self.kept().table.places.len()
    }

    /// The rows of the table, sorted by key; no batch when there are none.
    pub fn batches(&self) -> Vec<RecordBatch> {
        let kept = self.kept();
        // The batches are of one form, so they can be put together.
        kept.table.gather(kept.table.places.values().copied()).ok().flatten().into_iter().collect()
    }

    /// The rows of the table as records, sorted by key: see [`MemorySink::records`](super::MemorySink::records).
    pub fn records<R>(&self) -> Result<Vec<R>>
    where
        R: FromRecordBatch + SchemaMeta,
        R: for<'a> TryFrom<R::View<'a>, Error: fmt::Display>,
    {
        look::records(&self.batches())
    }

    /// The row of a key, as a batch of one row. A value of the key is a scalar such as `Int64Array::new_scalar(7)`, in the order
    /// of the key of the changes. Fails when these are not the key's number or types, or when no job has yet said what the
    /// table is of.
    pub fn get(&self, key: &[&dyn Datum]) -> Result<Option<RecordBatch>> {
        let kept = self.kept();
        let form = kept.form()?;
        if key.len() != form.key.len() {
            let message = format!("the key has {} columns, not {}", form.key.len(), key.len());
            return Err(ConnectorError::Config(message));
        }
        let values = key.iter().zip(&form.key).map(|(value, &column)| {
            let (array, _) = value.get();
            Ok(cast(&array.slice(0, 1), form.schema.field(column).data_type())?)
        });
        let key = form.keys(&values.collect::<Result<Vec<_>>>()?, 1)?.pop().flatten();
        kept.table.gather(kept.table.places.get(&key).copied().into_iter())
    }

    /// How many rows are in memory, for the test that they are few.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.kept().table.batches.values().map(RecordBatch::num_rows).sum()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

/// The rows of the table, sorted by key.
impl fmt::Display for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        look::print(&self.batches(), f)
    }
}

impl AsMut<Staging> for Kept {
    fn as_mut(&mut self) -> &mut Staging {
        &mut self.staging
    }
}

impl Form {
    fn new(schema: &SchemaRef, key: &[usize]) -> Result<Self> {
        let field = |&column: &usize| match schema.fields().get(column) {
            Some(field) => Ok(SortField::new(field.data_type().clone())),
            None => Err(ConnectorError::Config(format!("there is no column number {column}, but the key names it"))),
        };
        let fields = key.iter().map(field).collect::<Result<Vec<_>>>()?;
        let converter = (!fields.is_empty()).then(|| RowConverter::new(fields)).transpose()?;
        Ok(Self { schema: schema.clone(), key: key.to_vec(), converter })
    }

    fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<OwnedRow>>> {
        let Some(converter) = &self.converter else { return Ok(vec![None; rows]) };
        let keys = converter.convert_columns(columns)?;
        Ok(keys.iter().map(|key| Some(key.owned())).collect())
    }
}

impl Kept {
    fn form(&self) -> Result<&Form> {
        let missing = "a memory table does not know its key before a job of changes writes to it";
        self.form.as_ref().ok_or_else(|| ConnectorError::Config(missing.to_owned()))
    }

    fn commit(&mut self, receipt: &Receipt) -> Result<()> {
        self.staging.commit(receipt)?;
        for changes in self.staging.take_committed() {
            let form = self.form.as_ref().ok_or_else(|| ConnectorError::Config("no form".to_owned()))?;
            self.table.apply(form, &changes)?;
        }
        Ok(())
    }
}

impl Table {
    fn apply(&mut self, form: &Form, changes: &RecordBatch) -> Result<()> {
        let (rows, ops) = split(changes)?;
        let key: Vec<ArrayRef> = form.key.iter().map(|&column| rows.column(column).clone()).collect();
        let id = self.next;
        self.next += 1;
        for (row, key) in form.keys(&key, rows.num_rows())?.into_iter().enumerate() {
            match ops.value(row) {
                DELETE => drop(self.places.remove(&key)),
                _ => drop(self.places.insert(key, (id, row))),
            }
        }
        self.rows += rows.num_rows();
        self.batches.insert(id, rows);
        if self.rows > 2 * self.places.len() + SLACK {
            self.compact()?;
        }
        Ok(())
    }

    /// One batch of the rows that count.
    fn compact(&mut self) -> Result<()> {
        let all = self.gather(self.places.values().copied())?;
        self.batches.clear();
        self.rows = self.places.len();
        for (row, place) in self.places.values_mut().enumerate() {
            *place = (self.next, row);
        }
        self.batches.extend(all.map(|all| (self.next, all)));
        self.next += 1;
        Ok(())
    }

    fn gather(&self, places: impl Iterator<Item = (usize, usize)>) -> Result<Option<RecordBatch>> {
        let (ids, batches): (Vec<usize>, Vec<&RecordBatch>) = self.batches.iter().unzip();
        let at: HashMap<usize, usize> = ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
        let places: Vec<(usize, usize)> = places.map(|(id, row)| (at[&id], row)).collect();
        if places.is_empty() {
            return Ok(None);
        }
        Ok(Some(interleave_record_batch(&batches, &places)?))
    }
}

/// The columns a user sees, and what each change does.
fn split(changes: &RecordBatch) -> Result<(RecordBatch, UInt8Array)> {
    let visible = changes.num_columns().saturating_sub(1);
    let schema = changes.schema();
    let ops = schema.fields().last().filter(|last| last.name() == OP);
    let ops = ops.and_then(|_| changes.column(visible).as_primitive_opt::<UInt8Type>());
    let rows = || "rows without a last column of what they do came to a memory table, which takes changes".to_owned();
    let ops = ops.ok_or_else(|| ConnectorError::Config(rows()))?;
    Ok((changes.project(&(0..visible).collect::<Vec<_>>())?, ops.clone()))
}

#[async_trait]
impl Sink for MemoryTable {
    fn name(&self) -> String {
        "memory table".to_owned()
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Err(ConnectorError::Config(
            "a memory table keeps the newest row of each key and takes changes, not rows: write .key_by(…).latest() to it, \
             or use MemorySink, which keeps all rows"
                .to_owned(),
        ))
    }

    /// Remembers the columns and the key; all jobs that write to one table must agree in them.
    fn accepts_changes(&self, schema: &SchemaRef, key: &[usize]) -> Result<()> {
        let mut kept = self.kept();
        match &kept.form {
            // What a job that never ran said of it does not count.
            Some(form)
                if kept.staging.has_writers() && (form.schema.fields() != schema.fields() || form.key != key) =>
            {
                let names = |key: &[usize], schema: &SchemaRef| {
                    key.iter()
                        .filter_map(|&i| Some(schema.fields().get(i)?.name().clone()))
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                Err(ConnectorError::Config(format!(
                    "this memory table is of other changes: by {} with the columns {:?}. Use a table of its own for those by {}",
                    names(&form.key, &form.schema),
                    form.schema.fields().iter().map(|field| field.name()).collect::<Vec<_>>(),
                    names(key, schema)
                )))
            }
            Some(_) if kept.staging.has_writers() => Ok(()),
            _ => {
                kept.form = Some(Form::new(schema, key)?);
                Ok(())
            }
        }
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer::new(&self.kept, incarnation, task, "memory table", |batch| split(batch).map(drop))))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        let mut kept = self.kept();
        let mut result = Ok(());
        for receipt in receipts {
            result = result.and(kept.commit(receipt));
        }
        result
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        self.kept().staging.clean(incarnation);
        Ok(())
    }
}
