//! A source whose splits are lists of batches: complete from the start, or fed by hand while the job runs.
//!
//! Each split is a log that only grows, and a position is an index into it. So one implementation serves both uses,
//! and a source that is fed by hand can be read again from a checkpoint as well.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use tokio::sync::Notify;
use typed_arrow::schema::{BuildRows, IntoRecordBatch, RowBuilder, SchemaMeta};

use crate::{
    ConnectorError, Fetch, Position, Rejected, Result, Rows, Source, SourceReader, SplitId, TypedSource, Untyped,
};

/// A source of batches that lie in memory. They are handed out without copying, one of each split in turn; a position
/// is the number of batches delivered.
///
/// ```
/// use typed_arrow::Record;
/// use windrow_connectors::{MemorySource, Source};
///
/// #[derive(Record)]
/// struct Reading { sensor: i64, celsius: f64 }
///
/// let readings = vec![Reading { sensor: 1, celsius: 20.5 }, Reading { sensor: 2, celsius: 19.0 }];
/// let source: MemorySource<Reading> = MemorySource::records(readings).batch_rows(1).splits(2);
/// assert_eq!(source.schema()?.field(1).name(), "celsius");
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Debug)]
pub struct MemorySource<T = Untyped> {
    /// Absent if there was not one batch to take it from.
    schema: Option<SchemaRef>,
    logs: Arc<Logs>,
    one_by_one: bool,
    row: PhantomData<fn() -> T>,
}

impl<T> Clone for MemorySource<T> {
    /// Another handle to the same splits.
    fn clone(&self) -> Self {
        let Self { schema, logs, one_by_one, row } = self;
        Self { schema: schema.clone(), logs: logs.clone(), one_by_one: *one_by_one, row: *row }
    }
}

impl MemorySource {
    /// A source with the given splits, each a list of batches of `schema`. A batch with other columns is an error of
    /// [`Source::schema`].
    pub fn new(schema: SchemaRef, splits: Vec<Vec<RecordBatch>>) -> Self {
        Self::complete(Some(schema), splits)
    }

    /// A source of one split with these batches; see [`splits`](Self::splits). Without a single batch the columns are
    /// not known: that is an error of [`Source::schema`], and [`MemorySource::new`] is the way to an empty source.
    pub fn batches(batches: Vec<RecordBatch>) -> Self {
        Self::complete(batches.first().map(RecordBatch::schema), vec![batches])
    }

    /// A source of one split with these rows in one batch; see [`batch_rows`](Self::batch_rows) and
    /// [`splits`](Self::splits).
    pub fn records<R: BuildRows + SchemaMeta>(rows: Vec<R>) -> MemorySource<R> {
        let mut builders = R::new_builders(rows.len());
        builders.append_rows(rows);
        MemorySource::complete(Some(R::schema()), vec![vec![builders.finish().into_record_batch()]])
    }

    /// A source of `splits` splits that a test feeds by hand, while the job runs.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
    /// use windrow_connectors::{Fetch, MemorySource, Source};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow_connectors::Result<()> {
    /// # let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    /// # let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))])?;
    /// let (input, source) = MemorySource::by_hand(schema, 1);
    /// let splits = Source::splits(&source).await?.into_iter().map(|split| (split, None)).collect();
    /// let mut reader = source.reader(splits).await?;
    ///
    /// input.push(0, batch);
    /// assert!(matches!(reader.fetch().await?, Fetch::Rows(rows) if rows.batch.num_rows() == 3));
    /// input.end_all();
    /// assert!(matches!(reader.fetch().await?, Fetch::SplitEnd(_)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_hand(schema: SchemaRef, splits: usize) -> (MemoryInput, Self) {
        let logs = Arc::new(Logs::default());
        logs.lock().resize_with(splits, Log::default);
        let hand = Arc::new(Hand { logs: logs.clone(), schema: schema.clone() });
        (MemoryInput(hand), Self { schema: Some(schema), logs, one_by_one: false, row: PhantomData })
    }
}

impl<T> MemorySource<T> {
    fn complete(schema: Option<SchemaRef>, splits: Vec<Vec<RecordBatch>>) -> Self {
        let logs = splits.into_iter().map(Log::complete).collect();
        let logs = Arc::new(Logs { splits: Mutex::new(logs), changed: Notify::new() });
        Self { schema, logs, one_by_one: false, row: PhantomData }
    }

    /// Deals the batches anew, in turn, to `splits` splits (at least one).
    pub fn splits(self, splits: usize) -> Self {
        let mut dealt = vec![Vec::new(); splits.max(1)];
        let batches = self.all_splits().into_iter().flatten().enumerate();
        batches.for_each(|(i, batch)| dealt[i % splits.max(1)].push(batch));
        Self { one_by_one: self.one_by_one, ..Self::complete(self.schema, dealt) }
    }

    /// Cuts the batches into such of at most `rows` rows (at least one), without copying, which go through a job
    /// [`one_by_one`](Self::one_by_one).
    pub fn batch_rows(self, rows: usize) -> Self {
        let cut = |batch: RecordBatch| {
            let starts = (0..batch.num_rows()).step_by(rows.max(1));
            starts.map(move |start| batch.slice(start, rows.max(1).min(batch.num_rows() - start)))
        };
        let splits = self.all_splits().into_iter().map(|batches| batches.into_iter().flat_map(cut).collect()).collect();
        Self::complete(self.schema, splits).one_by_one()
    }

    /// Has one batch ready at a time. A job takes small batches that are ready through its operators as one: a test that is about
    /// batches has to know where they begin and end.
    pub fn one_by_one(mut self) -> Self {
        self.one_by_one = true;
        self
    }

    fn all_splits(&self) -> Vec<Vec<RecordBatch>> {
        let batches = |log: &Log| log.entries.iter().map(|entry| entry.batch.clone()).collect();
        self.logs.lock().iter().map(batches).collect()
    }

    /// The schema, if all batches have it.
    fn checked_schema(&self) -> Result<SchemaRef> {
        let Some(schema) = &self.schema else {
            let advice = "use MemorySource::new(schema, splits), which works without batches";
            return Err(ConnectorError::Config(format!(
                "source memory has no batch to take its columns from; {advice}"
            )));
        };
        for (split, log) in self.logs.lock().iter().enumerate() {
            let other = log.entries.iter().position(|entry| entry.batch.schema().fields() != schema.fields());
            if let Some(batch) = other {
                return Err(ConnectorError::Config(format!(
                    "source memory: batch {batch} of split {split} has other columns than the source: {}; expected {}",
                    log.entries[batch].batch.schema(),
                    schema,
                )));
            }
        }
        Ok(schema.clone())
    }
}

#[async_trait]
impl<T: 'static> Source for MemorySource<T> {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.checked_schema()
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        Ok((0..self.logs.lock().len()).map(split_id).collect())
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        let schema = self.checked_schema()?;
        let known = self.logs.lock().len();
        let mut cursors = Vec::with_capacity(assigned.len());
        for (id, position) in assigned {
            let Some(split) = (0..known).find(|split| split_id(*split) == id) else {
                return Err(ConnectorError::Config(format!("source memory has no split {id}; it has {known} splits")));
            };
            cursors.push(Cursor { split, id, next: position.unwrap_or_default().0, paused: false });
        }
        let (logs, one_by_one) = (self.logs.clone(), self.one_by_one);
        Ok(Box::new(MemoryReader { logs, schema, cursors, turn: 0, one_by_one, yielded: false }))
    }
}

impl<T: 'static> TypedSource for MemorySource<T> {
    type Row = T;
}

fn split_id(split: usize) -> SplitId {
    SplitId::new(split.to_string())
}

/// The hand that feeds a source made by [`MemorySource::by_hand`]; a clone is another such hand. If the last one is
/// dropped before every split has ended, readers of the others fail, instead of waiting for ever.
///
/// # Panics
///
/// Its methods panic on a split that the source does not have: that is a mistake in the test.
#[derive(Clone, Debug)]
pub struct MemoryInput(Arc<Hand>);

#[derive(Debug)]
struct Hand {
    logs: Arc<Logs>,
    schema: SchemaRef,
}

impl MemoryInput {
    /// Adds a batch to a split.
    pub fn push(&self, split: usize, batch: RecordBatch) {
        self.append(split, Entry { batch, rejected: Vec::new() });
    }

    /// Adds a record that did not decode to a split.
    pub fn reject(&self, split: usize, rejected: Rejected) {
        let batch = RecordBatch::new_empty(self.0.schema.clone());
        self.append(split, Entry { batch, rejected: vec![rejected] });
    }

    /// Says that no more will come for this split.
    pub fn end(&self, split: usize) {
        self.0.logs.change(|logs| logs[split].ended = true);
    }

    /// Ends all splits.
    pub fn end_all(&self) {
        self.0.logs.change(|logs| logs.iter_mut().for_each(|log| log.ended = true));
    }

    fn append(&self, split: usize, entry: Entry) {
        self.0.logs.change(|logs| {
            assert!(!logs[split].ended, "split {split} of the memory source has ended; it can take no more");
            logs[split].entries.push(entry);
        });
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.logs.change(|logs| logs.iter_mut().for_each(|log| log.abandoned = true));
    }
}

/// What the splits hold, shared by a source, its readers and the hands that feed it.
#[derive(Debug, Default)]
struct Logs {
    splits: Mutex<Vec<Log>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    ended: bool,
    /// Nobody is left who could add to it or end it.
    abandoned: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    batch: RecordBatch,
    rejected: Vec<Rejected>,
}

impl Log {
    fn complete(batches: Vec<RecordBatch>) -> Self {
        let entries = batches.into_iter().map(|batch| Entry { batch, rejected: Vec::new() }).collect();
        Self { entries, ended: true, abandoned: false }
    }
}

impl Logs {
    fn lock(&self) -> MutexGuard<'_, Vec<Log>> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Log>)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }
}

struct Cursor {
    split: usize,
    id: SplitId,
    /// The index of the next entry.
    next: u64,
    /// It may end, but delivers nothing.
    paused: bool,
}

struct MemoryReader {
    logs: Arc<Logs>,
    schema: SchemaRef,
    /// The splits that have not been reported as ended.
    cursors: Vec<Cursor>,
    /// The cursor whose turn it is.
    turn: usize,
    one_by_one: bool,
    /// It has not been ready once since the last batch.
    yielded: bool,
}

#[async_trait]
impl SourceReader for MemoryReader {
    async fn fetch(&mut self) -> Result<Fetch> {
        if self.one_by_one && !std::mem::replace(&mut self.yielded, true) {
            tokio::task::yield_now().await;
        }
        let logs = self.logs.clone();
        loop {
            // Made before looking: it sees every change from here on, so none is missed.
            let changed = logs.changed.notified();
            if let Some(fetch) = self.ready()? {
                self.yielded = false;
                return Ok(fetch);
            }
            changed.await;
        }
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.cursors.iter_mut().for_each(|cursor| cursor.paused = splits.contains(&cursor.id));
        true
    }
}

impl MemoryReader {
    /// What can be delivered without waiting; the splits are asked in turn.
    fn ready(&mut self) -> Result<Option<Fetch>> {
        let logs = self.logs.lock();
        let count = self.cursors.len();
        if count == 0 {
            return Ok(Some(Fetch::End));
        }
        for index in (self.turn..self.turn + count).map(|turn| turn % count) {
            let cursor = &mut self.cursors[index];
            let log = &logs[cursor.split];
            let entry = usize::try_from(cursor.next).ok().and_then(|next| log.entries.get(next));
            if cursor.paused && entry.is_some() {
                continue;
            }
            if let Some(entry) = entry {
                cursor.next += 1;
                self.turn = index + 1;
                return deliver(&self.schema, cursor, entry.clone()).map(Some);
            }
            if log.ended {
                self.turn = index;
                return Ok(Some(Fetch::SplitEnd(self.cursors.remove(index).id)));
            }
        }
        match self.cursors.iter().find(|cursor| !cursor.paused && logs[cursor.split].abandoned) {
            Some(cursor) => Err(ConnectorError::Data {
                at: format!("source memory, split {}", cursor.id),
                reason: "its MemoryInput was dropped before the split ended; keep it, or call end() first".to_owned(),
            }),
            None => Ok(None),
        }
    }
}

fn deliver(schema: &SchemaRef, cursor: &Cursor, entry: Entry) -> Result<Fetch> {
    if entry.batch.schema().fields() != schema.fields() {
        return Err(ConnectorError::Data {
            at: format!("source memory, split {}, batch {}", cursor.id, cursor.next - 1),
            reason: format!("its columns are {}; expected {schema}", entry.batch.schema()),
        });
    }
    let next = Position(cursor.next);
    let Entry { batch, rejected } = entry;
    let (split, passed_over) = (cursor.id.clone(), 0);
    Ok(Fetch::Rows(Rows { split, batch, rejected, passed_over, next, origins: None }))
}
