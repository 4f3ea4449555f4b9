//! Files as a sink: a file appears under its name when it is complete, durable and decided, or not at all.
//!
//! ```text
//!   write ──► out/country=DE/.part-….tmp      hidden, growing
//!   stage ──► the same, closed and fsynced; its directories too      ──► Receipt: paths, bytes, checksum, rows
//!                                                                           │ kept in the checkpoint
//!   commit ─► out/country=DE/part-….parquet   hard link, fsync, unlink ◄────┘ again after a crash
//!   clean ──► hidden files of earlier generations of the job are removed
//! ```
//!
//! The final name is given by a hard link, because a link, unlike a rename, fails if the name is taken: nothing is ever
//! overwritten. The file system has to know hard links, as all usual ones of Unix do.
//!
//! | file | why it exists |
//! |---|---|
//! | `mod` | what the user builds |
//! | `writer` | the parts of one task: open, closed, staged |
//! | `part` | one file while it is written |
//! | `partition` | rows to directories, and the names of those |
//! | `publish` | receipts: written, checked, committed |
//! | `clean` | what earlier generations left |
//! | `name` | whose file it is |
//! | `directory` | directories created, made durable, never left |

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use super::format::FileFormat;
use crate::{ConnectorError, Incarnation, Receipt, Result, Sink, SinkWriter, format::Format};

mod clean;
mod directory;
mod name;
mod part;
pub(super) mod partition;
mod publish;
mod writer;

pub use partition::TimePartition;
use partition::{PartitionBy, Partitioning};

/// The size of a part beyond which it is closed, unless the user says otherwise.
const ROLL_BYTES: u64 = 128 << 20;

/// A directory to write to, before it is said in which format. See [`File`](super::File).
#[derive(Clone, Debug)]
pub struct FileOutput {
    directory: PathBuf,
}

impl FileOutput {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// JSON lines: one object a row, without its nulls.
    pub fn json(self) -> FileSink {
        self.write(FileFormat::Text(Format::Json))
    }

    /// CSV with commas and a header.
    pub fn csv(self) -> FileSink {
        self.write(FileFormat::Text(Format::CSV))
    }

    /// Parquet, compressed with zstd. A row group ends with its file, after 1,048,576 rows, or when the open files of a
    /// task hold more than 64 MiB in memory.
    pub fn parquet(self) -> FileSink {
        self.write(FileFormat::Parquet)
    }

    fn write(self, format: FileFormat) -> FileSink {
        let (roll_bytes, roll_after, partition_by) = (ROLL_BYTES, None, Vec::new());
        FileSink {
            settings: Settings { root: self.directory, format, roll_bytes, roll_after, partition_by },
            incarnations: Arc::default(),
        }
    }
}

/// Files in a directory, or in directories below it: each complete, each with rows that are published exactly once.
///
/// A task writes its rows to hidden files. At a checkpoint they are closed and made durable; when the checkpoint is
/// decided they get their names. So a reader never sees a part of a file, nor a row that the job will write again
/// after a crash. There is at least one file per checkpoint, task and partition that had rows: the interval of the
/// checkpoints decides how small they are and how soon readers see them.
///
/// A file is called `part-{job}-{generation}-{epoch}-{task}-{number}-{nonce}.{ending}`. What a job that was killed
/// leaves behind begins with a dot; the next start of a job with checkpoints removes it. Several sinks and jobs may write to one directory.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::{Epoch, File, Incarnation, Sink, SinkWriter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let out = directory.path().join("out");
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2]))])?;
///
/// let sink = File::directory(&out).parquet();
/// let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
/// let mut writer = sink.writer(&incarnation, 0, schema).await?;
/// writer.write(batch).await?;
/// let receipts = writer.stage(Epoch(1)).await?; // a part of the checkpoint, which is decided here
/// sink.commit(&receipts).await?;
///
/// let name = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().file_name();
/// assert!(name.to_str().unwrap().starts_with("part-00c0ffee-000001-0000000001-000-"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FileSink {
    settings: Settings,
    /// Those that this sink has made writers for. What others wrote is read once more before it is published.
    incarnations: Arc<Mutex<Vec<Incarnation>>>,
}

#[derive(Clone, Debug)]
struct Settings {
    root: PathBuf,
    format: FileFormat,
    roll_bytes: u64,
    roll_after: Option<Duration>,
    partition_by: Vec<PartitionBy>,
}

impl FileSink {
    /// A file is closed when it has about this size, 128 MiB if not said, and published with the next checkpoint. The
    /// size is looked at after every batch.
    pub fn roll_bytes(mut self, bytes: u64) -> Self {
        self.settings.roll_bytes = bytes.max(1);
        self
    }

    /// A file is closed when it is so old, and published with the next checkpoint, which closes it anyway. So this is
    /// for jobs with rare checkpoints. The age is looked at after every batch.
    pub fn roll_after(mut self, age: Duration) -> Self {
        self.settings.roll_after = Some(age);
        self
    }

    /// One directory per value of a column, in the way of Hive: `country=DE/part-...`. Of several columns, those of the
    /// later are within those of the former; [`FileSink::partition_by_time`] adds to the same list.
    ///
    /// The columns are booleans, whole numbers, text or dates, and stay in the files. A byte of a value that is not an
    /// ASCII letter or digit, `_`, `.` or `-` is percent-encoded; a value that would be over 200 bytes is cut and ends with
    /// its hash; null is `__HIVE_DEFAULT_PARTITION__`. A task keeps 64 files open and closes the least recently used
    /// for one more: with more values than that in use at a time, files are small.
    ///
    /// ```
    /// use windrow_connectors::File;
    ///
    /// let bids = File::directory("bids").parquet().partition_by(["country", "currency"]);
    /// ```
    pub fn partition_by<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        let columns = columns.into_iter().map(|column| PartitionBy::Column(column.into()));
        self.settings.partition_by.extend(columns);
        self
    }

    /// One directory per day, `dt=2026-11-20`, or per hour, `dt=2026-11-20/hour=13`, of a column of timestamps. Days and
    /// hours are those of UTC; a timestamp without a zone is taken as UTC.
    ///
    /// ```
    /// use windrow_connectors::{File, TimePartition};
    ///
    /// let bids = File::directory("bids").json().partition_by_time("at", TimePartition::Hourly);
    /// ```
    pub fn partition_by_time(mut self, column: impl Into<String>, every: TimePartition) -> Self {
        self.settings.partition_by.push(PartitionBy::Time(column.into(), every));
        self
    }
}

#[async_trait]
impl Sink for FileSink {
    fn name(&self) -> String {
        let Settings { root, format, .. } = &self.settings;
        format!("file {}", root.join(format!("*.{}", format.extension())).display())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        self.settings.format.accepts(schema)?;
        Partitioning::new(&self.settings.partition_by, schema).map(drop)
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        name::check_job(&incarnation.job)?;
        let settings = Arc::new(self.settings.clone());
        let writer = writer::FileWriter::new(settings, incarnation.clone(), task, schema)?;
        // Not on another thread: it waits for the disk only the first time, and then the directory is there for sure.
        directory::create_root(&self.settings.root)?;
        let mut incarnations = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        if !incarnations.contains(incarnation) {
            incarnations.push(incarnation.clone());
        }
        Ok(Box::new(writer))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        let (root, receipts) = (self.settings.root.clone(), receipts.to_vec());
        let mine = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        blocking(&self.settings.root, move || publish::commit(&root, &receipts, &mine)).await
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        let (root, incarnation) = (self.settings.root.clone(), incarnation.clone());
        blocking(&self.settings.root, move || clean::remove_earlier(&root, &incarnation)).await
    }
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(root: &Path, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let (at, reason) = (root.display().to_string(), format!("the work on the files here was stopped: {error}"));
        Err(ConnectorError::Data { at, reason })
    })
}
