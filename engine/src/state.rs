//! Looks into the state of a stopped job: a checkpoint as tables.
//!
//! ```text
//!   {store}/{job} ──► newest checkpoint ──► window_1: window_start │ auction │ bids │ top      one row per open group
//!                     or a savepoint        source_1: split │ position │ ended │ latest │ idle
//! ```
//!
//! Every source, and every operator with state, is a table, called by its id in checkpoints ([`Stream::id`](crate::Stream::id)).
//! Nothing is written, and the job may even run meanwhile: when it removes the newest checkpoint while that is being read, because there
//! are newer ones, the one that is the newest by then is read.
//!
//! ```
//! use windrow::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> windrow::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let store = directory.path().to_str().unwrap().to_string();
//! let job = Job::new("evens").checkpoint(&store, secs(10));
//! job.source(Sequence::endless().rate(1_000))
//!     .event_time("at", Watermarks::in_order())
//!     .select([col("at"), (col("value") % lit(2)).alias("odd")])
//!     .key_by("odd")
//!     .window(Tumbling::of(hours(24)))
//!     .aggregate([count().alias("numbers")])
//!     .drop_late()
//!     .sink(MemorySink::new());
//! let running = job.start().await?;
//! let handle = running.handle();
//! # while handle.metrics().named("source").all(|source| source.rows_in < 10) { tokio::task::yield_now().await; }
//! handle.stop();
//! running.wait().await?;
//!
//! let state = windrow::state::open(format!("{store}/evens")).await?;
//! let window = state.table("window_1").unwrap();
//! assert_eq!(window.rows().num_rows(), 2, "the window of today is open, for odd and even numbers");
//! println!("{state}");
//! for checkpoint in windrow::state::checkpoints(format!("{store}/evens")).await? {
//!     println!("{} of {} bytes", checkpoint.epoch, checkpoint.bytes);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `sql` the tables can be asked in SQL: `State::context` is a DataFusion session that has them.

mod contents;
mod packed;
mod reading;
mod rows;

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
pub use contents::{Contents, OperatorContents, SinkContents, SourceContents, SplitContents, inspect};
use reading::reading;
use serde::Serialize;
use windrow_connectors::Epoch;
use windrow_operators::{Timestamp, state::StateForm};

pub use crate::checkpoint::Wanted;
use crate::{
    Error, Result,
    checkpoint::{CheckpointStore, Listed, Manifest, SavedTask, Segments, SplitState, job_and_store},
};

/// Opens the newest checkpoint of the job at `url`: what was given to [`Job::checkpoint`](crate::Job::checkpoint), a
/// slash, and the name of the job. The [module](self) has an example.
pub async fn open(url: impl AsRef<str>) -> Result<State> {
    load(url.as_ref(), Wanted::Newest).await
}

/// Opens a savepoint of the job at `url`, which is as in [`open`].
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let store = directory.path().to_str().unwrap().to_string();
/// let job = Job::new("numbers").checkpoint(&store, secs(10));
/// job.source(Sequence::endless().rate(1_000)).id("numbers").sink(MemorySink::new());
/// let running = job.start().await?;
/// let handle = running.handle();
/// let stop = tokio::spawn(async move { handle.stop_with_savepoint("before-upgrade").await });
/// running.wait().await?;
/// let epoch = stop.await.unwrap()?;
///
/// let url = format!("{store}/numbers");
/// let state = windrow::state::open_savepoint(&url, "before-upgrade").await?;
/// assert_eq!(state.epoch(), epoch);
/// assert_eq!(state.table("numbers").unwrap().rows().num_rows(), 1, "one split");
/// let same = windrow::state::open_checkpoint(&url, epoch).await?;
/// assert_eq!(same.to_string(), state.to_string());
/// # Ok(())
/// # }
/// ```
pub async fn open_savepoint(url: impl AsRef<str>, name: impl Into<String>) -> Result<State> {
    load(url.as_ref(), Wanted::Savepoint(name.into())).await
}

/// Opens the checkpoint of the job at `url`, which is as in [`open`], that has this number.
/// [`open_savepoint`] has an example.
pub async fn open_checkpoint(url: impl AsRef<str>, epoch: Epoch) -> Result<State> {
    load(url.as_ref(), Wanted::Epoch(epoch)).await
}

/// The names of the jobs that have checkpoints below `url`: a directory, or with the feature `s3` a bucket and a path in it.
/// [`inspect`] has an example.
pub async fn jobs(url: impl AsRef<str>) -> Result<Vec<String>> {
    let url = url.as_ref();
    crate::checkpoint::jobs(url).await.map_err(|error| error.of(&job_and_store(url).1))
}

/// The checkpoints of the job at `url`, which is as in [`open`], that can be opened and restored, oldest first.
/// The [module](self) has an example.
pub async fn checkpoints(url: impl AsRef<str>) -> Result<Vec<CheckpointInfo>> {
    let (root, job) = job_and_store(url.as_ref());
    let failed = |error: crate::CheckpointError| error.of(&job);
    let store = CheckpointStore::open_to_read(root, &job).map_err(failed)?;
    let listed = store.manifests().await.map_err(failed)?;
    let info = |listed: Listed| CheckpointInfo {
        epoch: listed.manifest.epoch,
        taken_ms: listed.manifest.created_ms,
        bytes: listed.manifest.segments().map(|segment| segment.length).sum(),
        savepoints: listed.savepoints,
    };
    Ok(listed.into_iter().map(info).collect())
}

/// A checkpoint in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointInfo {
    /// Its number.
    pub epoch: Epoch,
    /// When it was taken, in milliseconds since 1970 by the clock of the machine that ran the job.
    pub taken_ms: u64,
    /// The bytes of state that a restore reads.
    pub bytes: u64,
    /// The savepoints that keep it. One without is removed as newer ones come.
    pub savepoints: Vec<String>,
}

/// A checkpoint as tables. Printing it shows them with their columns and numbers of rows. The
/// [module](self) has an example.
#[derive(Clone, Debug)]
pub struct State {
    job: String,
    epoch: Epoch,
    tables: BTreeMap<String, StateTable>,
}

/// What one operator or source had to remember. The [module](self) has an example.
#[derive(Clone, Debug)]
pub struct StateTable {
    meaning: String,
    rows: RecordBatch,
}

impl State {
    /// The name of the job.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The number of the checkpoint.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The tables by name.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &StateTable)> {
        self.tables.iter().map(|(name, table)| (name.as_str(), table))
    }

    /// One table: `window_1`, `source_1`, or what [`Stream::id`](crate::Stream::id) said.
    pub fn table(&self, name: &str) -> Option<&StateTable> {
        self.tables.get(name)
    }

    /// A DataFusion session that has the tables: `state.context()?.sql("select auction, bids from window_1")`.
    #[cfg(feature = "sql")]
    pub fn context(&self) -> datafusion::error::Result<datafusion::prelude::SessionContext> {
        let context = datafusion::prelude::SessionContext::new();
        for (name, table) in &self.tables {
            // As it is: what is parsed as a name in SQL is cut at dots, and loses its capitals.
            context.register_batch(datafusion::common::TableReference::bare(name.as_str()), table.rows.clone())?;
        }
        Ok(context)
    }
}

impl StateTable {
    /// What it is, in the words of the job: `tumbling 10s; count(1), max(price)`.
    pub fn meaning(&self) -> &str {
        &self.meaning
    }

    /// Its rows: those that the job would go on with. Aggregates show their state: of a count the count, of an average a count
    /// and a sum. The state of a function is JSON.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "checkpoint {} of job {:?}", self.epoch, self.job)?;
        for (name, table) in &self.tables {
            let columns: Vec<&str> =
                table.rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
            writeln!(f, "  {name}: {} rows of ({}) from {}", table.rows.num_rows(), columns.join(", "), table.meaning)?;
        }
        Ok(())
    }
}

/// What is known of a checkpoint without reading its segments.
#[cfg(feature = "serve")]
pub(crate) struct Outline {
    pub(crate) epoch: Epoch,
    /// The names of its tables, each with its meaning.
    pub(crate) tables: Vec<(String, String)>,
    /// How many bytes of segments its tables are read from.
    #[cfg(feature = "sql")]
    pub(crate) bytes: u64,
}

#[cfg(feature = "serve")]
impl Outline {
    fn of(manifest: &Manifest) -> Self {
        let formed =
            manifest.operators.iter().filter_map(|(id, own)| Some((id.clone(), own.form.as_ref()?.meaning.clone())));
        let mut tables: Vec<(String, String)> = formed.collect();
        tables.extend(manifest.sources.keys().map(|id| (id.clone(), SPLITS.into())));
        tables.sort_unstable();
        Self {
            epoch: manifest.epoch,
            tables,
            #[cfg(feature = "sql")]
            bytes: manifest.segments().map(|segment| segment.length).sum(),
        }
    }
}

/// What there is in the newest checkpoint of the job at `url`.
#[cfg(feature = "serve")]
pub(crate) async fn outline(url: &str) -> Result<Outline> {
    reading(url, &Wanted::Newest, |_, manifest| Box::pin(std::future::ready(Ok(Outline::of(&manifest))))).await
}

/// Opens a checkpoint unless `check` refuses it: by what is known before its segments are read.
#[cfg(all(feature = "serve", feature = "sql"))]
pub(crate) async fn open_if<R: Send + 'static>(
    url: &str,
    wanted: &Wanted,
    check: impl Fn(&Outline) -> Result<(), R>,
) -> Result<Result<State, R>> {
    let opened = reading(url, wanted, |store, manifest| match check(&Outline::of(&manifest)) {
        Ok(()) => Box::pin(async move { tables(store, manifest).await.map(Ok) }),
        Err(refused) => Box::pin(std::future::ready(Ok(Err(refused)))),
    });
    opened.await
}

/// What the table of a source is.
const SPLITS: &str = "the splits of a source";

async fn load(url: &str, wanted: Wanted) -> Result<State> {
    reading(url, &wanted, |store, manifest| Box::pin(tables(store, manifest))).await
}

/// A checkpoint of a store as tables.
async fn tables(store: &CheckpointStore, manifest: Manifest) -> Result<State> {
    let Manifest { epoch, operators, sources, .. } = manifest;
    let mut segments = Segments::new(store);
    let mut tables = BTreeMap::new();
    for (id, operator) in operators {
        let Some(form) = operator.form else { continue };
        let (form, mut rows, mut seen) = (StateForm::from(&form), Vec::new(), false);
        for task in operator.tasks.iter().filter(|task| !task.first_phase) {
            let living = living(&mut segments, &form, task, &id).await?;
            rows.push(match form.reading.shared {
                Some(column) => rows::once(&living, column, &mut seen).map_err(|error| arrow(&id, error))?,
                None => living,
            });
        }
        let rows = concat_batches(&form.columns, &rows);
        let rows = rows.and_then(|rows| packed::unpack(&rows, &form.reading.packed)).and_then(|rows| visible(&rows));
        let rows = rows.map_err(|error| arrow(&id, error))?;
        tables.insert(id, StateTable { meaning: form.meaning, rows });
    }
    for (id, splits) in sources {
        let rows = split_rows(&splits).map_err(|error| arrow(&id, error))?;
        tables.insert(id, StateTable { meaning: SPLITS.into(), rows });
    }
    Ok(State { job: store.job().into(), epoch, tables })
}

fn arrow(id: &str, error: ArrowError) -> Error {
    Error::Operator { operator: id.into(), error: error.into() }
}

/// Without the key groups, which are the engine's.
fn visible(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    rows.project(&(1..rows.num_columns()).collect::<Vec<_>>())
}

/// The rows that one task held.
async fn living(segments: &mut Segments<'_>, form: &StateForm, task: &SavedTask, job: &str) -> Result<RecordBatch> {
    let key_groups = usize::from(task.key_groups.0)..usize::from(task.key_groups.1);
    let mut read = Vec::with_capacity(task.segments.len());
    for file in &task.segments {
        // A segment may be older than the types that columns have now.
        let rows = form.widen(&segments.rows(file, &key_groups).await?);
        read.push(rows.map_err(|error| Error::Operator { operator: job.into(), error })?);
    }
    rows::living(form, &task.numbers, &read).map_err(|error| arrow(job, error))
}

fn splits_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("split", DataType::Utf8, false),
        Field::new("position", DataType::UInt64, true),
        Field::new("ended", DataType::Boolean, false),
        Field::new("latest", Timestamp::data_type(), true),
        Field::new("idle", DataType::Boolean, false),
    ]))
}

fn split_rows(splits: &[SplitState]) -> Result<RecordBatch, ArrowError> {
    let latest: Int64Array = splits.iter().map(|split| split.latest).collect();
    let latest = arrow::compute::cast(&latest, &Timestamp::data_type())?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(splits.iter().map(|split| &split.split))),
        Arc::new(splits.iter().map(|split| split.position).collect::<UInt64Array>()),
        Arc::new(splits.iter().map(|split| Some(split.ended)).collect::<BooleanArray>()),
        latest,
        Arc::new(splits.iter().map(|split| Some(split.idle)).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(splits_schema(), columns)
}
