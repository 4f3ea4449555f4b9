//! What is in a checkpoint, without its state: of each operator the tables, of each source the positions.
//!
//! Only the manifest is read, so it costs the same for a byte of state as for a terabyte. Everything here has a JSON form, for the
//! command `windrow inspect --json`.

use std::future::ready;

use serde::Serialize;
use windrow_connectors::Epoch;
use windrow_operators::Timestamp;

use super::reading::reading;
use crate::{
    Result,
    checkpoint::{CheckpointReason, Manifest, Wanted},
};

/// Says what is in a checkpoint of the job at `url`, which is as in [`open`](super::open).
///
/// ```
/// use windrow::{prelude::*, state::{self, Wanted}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let store = directory.path().to_str().unwrap().to_string();
/// let job = Job::new("numbers").checkpoint(&store, secs(10));
/// job.source(Sequence::new(10)).id("numbers").sink(MemorySink::new());
/// job.run().await?;
///
/// assert_eq!(state::jobs(&store).await?, ["numbers"]);
/// let contents = state::inspect(format!("{store}/numbers"), Wanted::Newest).await?;
/// assert_eq!(contents.sources[0].splits[0].position, Some(10));
/// # Ok(())
/// # }
/// ```
pub async fn inspect(url: impl AsRef<str>, wanted: Wanted) -> Result<Contents> {
    reading(url.as_ref(), &wanted, |_, manifest| Box::pin(ready(Ok(manifest.into())))).await
}

/// What is in a checkpoint. [`inspect`] has an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// The name of the job.
    pub job: String,
    /// The number of the checkpoint.
    pub epoch: Epoch,
    /// When it was taken, in milliseconds since 1970 by the clock of the machine that ran the job.
    pub taken_ms: u64,
    /// Why it was taken: `periodic`, `savepoint before-upgrade`, or `final`.
    pub why: String,
    /// What operators had to remember.
    pub operators: Vec<OperatorContents>,
    /// How far sources had read.
    pub sources: Vec<SourceContents>,
    /// What sinks make visible with it.
    pub sinks: Vec<SinkContents>,
}

/// What an operator had to remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorContents {
    /// What it is called in checkpoints, and its table.
    pub id: String,
    /// What it is: `tumbling 10s; count(1)`. Empty if it has no table.
    pub meaning: String,
    /// The columns of its table, with their types.
    pub columns: Vec<(String, String)>,
    /// How many tasks wrote it.
    pub tasks: usize,
    /// In how many segments its state lies.
    pub segments: usize,
    /// How many rows these have: also those that are out of date by now, so it may be more than the table has.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// How far a source had read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceContents {
    /// What it is called in checkpoints.
    pub id: String,
    /// Its splits.
    pub splits: Vec<SplitContents>,
}

/// How far a split was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitContents {
    /// Its name: a file, or a topic and a partition.
    pub split: String,
    /// Where the next record begins; absent before the first.
    pub position: Option<u64>,
    /// Whether it was read to its end.
    pub ended: bool,
    /// Where it ends, if that was fixed when the job began.
    pub end: Option<u64>,
    /// The latest event time that was seen, in microseconds since 1970.
    pub latest_us: Option<i64>,
    /// Whether it was idle.
    pub idle: bool,
}

impl SplitContents {
    /// [`latest_us`](Self::latest_us) as an instant.
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest_us.map(Timestamp::from_micros)
    }
}

/// What a sink makes visible with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkContents {
    /// What it is called in checkpoints.
    pub id: String,
    /// What it writes to.
    pub name: String,
    /// How many pieces: files, transactions.
    pub pieces: usize,
}

impl From<Manifest> for Contents {
    fn from(manifest: Manifest) -> Self {
        let why = match &manifest.kind {
            CheckpointReason::Periodic => "periodic".into(),
            CheckpointReason::Savepoint(name) => format!("savepoint {name}"),
            CheckpointReason::Final => "final".into(),
        };
        let operators = manifest.operators.into_iter().map(|(id, operator)| {
            let segments: Vec<_> = operator.tasks.iter().flat_map(|task| &task.segments).collect();
            let (rows, bytes) = segments.iter().fold((0, 0), |sum, one| (sum.0 + one.rows, sum.1 + one.length));
            let columns = operator.form.iter().flat_map(|form| form.columns.fields().iter().skip(1));
            let columns = columns.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
            let meaning = operator.form.as_ref().map(|form| form.meaning.clone()).unwrap_or_default();
            OperatorContents {
                id,
                meaning,
                columns,
                tasks: operator.tasks.len(),
                segments: segments.len(),
                rows,
                bytes,
            }
        });
        let split = |split: crate::checkpoint::SplitState| SplitContents {
            split: split.split,
            position: split.position,
            ended: split.ended,
            end: split.end,
            latest_us: split.latest,
            idle: split.idle,
        };
        let sources = manifest.sources.into_iter();
        let sources =
            sources.map(|(id, splits)| SourceContents { id, splits: splits.into_iter().map(split).collect() });
        let sinks = manifest.sinks.into_iter();
        let sinks = sinks.map(|(id, sink)| SinkContents { id, name: sink.name, pieces: sink.receipts.len() });
        Self {
            job: manifest.job,
            epoch: manifest.epoch,
            taken_ms: manifest.created_ms,
            why,
            operators: operators.collect(),
            sources: sources.collect(),
            sinks: sinks.collect(),
        }
    }
}
