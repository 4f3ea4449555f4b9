//! What a source is: splits, readers, positions.
//!
//! A source names its *splits* (files, topic partitions, generator shards): the units that are read in order and carry
//! a position each. A *reader* serves one task and reads any number of splits. Each [`Fetch::Rows`] holds rows of one
//! split together with the position that follows them. The engine keeps the positions; per-split watermarks and exact
//! restarts follow from that alone.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Fields, SchemaRef},
};
use async_trait::async_trait;

use crate::{ConnectorError, Origins, Result};

/// The name of a split: stable across runs, unique within its source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SplitId(Arc<str>);

impl SplitId {
    /// A split called `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a split has been read: the position of the next record. Its unit is the connector's (a byte of the
/// decompressed file, an offset, a count); it grows along the split and means nothing to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record that did not decode, or has no usable event time. It travels as a row of its own, so that nothing is lost silently.
///
/// ```
/// use windrow_connectors::{Position, Rejected};
///
/// let bytes = Some(b"8,cheap".to_vec());
/// let rejected = Rejected { position: Some(Position(22)), line: Some(3), bytes, ..Rejected::of("price: cheap is no number") };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Where the record begins in its split. Always there if the record did not decode; absent for one that did if its source
    /// does not say what its rows were.
    pub position: Option<Position>,
    /// The line in the file, counted from 1, when the reader knows it.
    pub line: Option<u64>,
    /// What is wrong with it, in words, naming the column.
    pub reason: String,
    /// The record as it was read, without its line end, or its columns as text if that is not known; `None` for one of a topic that has
    /// no payload.
    pub bytes: Option<Vec<u8>>,
    /// The key of the record, where records have one.
    pub key: Option<Vec<u8>>,
    /// How many bytes the record has, if it is too long to be kept: `bytes` and `key` are only their beginnings then.
    pub truncated: Option<u64>,
    /// Its headers, where records have some: names and values.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The time that its topic keeps of it, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The partition that its split is, if it is one of a topic.
    pub partition: Option<i32>,
}

impl Rejected {
    /// A record that is rejected for this reason. What else is known of it is in the other fields.
    pub fn of(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// The type of a column of headers: a map of text to bytes, which may be null.
    pub fn headers_type() -> DataType {
        let names = Field::new("keys", DataType::Utf8, false);
        let entries = Fields::from(vec![names, Field::new("values", DataType::Binary, true)]);
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
    }
}

/// Rows of one split, in its order.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The split that was read.
    pub split: SplitId,
    /// The rows that decoded. Its schema is [`Source::schema`]. Without rows and without rejected records only the position is
    /// noted: it goes on behind something that is no record, and a split that is idle stays so.
    pub batch: RecordBatch,
    /// The records between this and the former fetch of the split that did not decode.
    pub rejected: Vec<Rejected>,
    /// How many records between this and the former fetch are no rows, and no mistake either: the tombstones behind Debezium's deletes,
    /// say. They count as read and as processed.
    pub passed_over: u64,
    /// The position after the last of them: where a restart begins.
    pub next: Position,
    /// The records that the rows of `batch` were, one for each. The engine rejects rows that have no usable event time: with this
    /// they are rejected as the records they were. `None` from sources whose rows never were any, and when nobody will ask
    /// ([`SourceReader::without_origins`]).
    pub origins: Option<Origins>,
}

/// What a reader delivers.
#[derive(Clone, Debug)]
pub enum Fetch {
    /// Rows of one split.
    Rows(Rows),
    /// This split has no more rows, now and for ever.
    SplitEnd(SplitId),
    /// All assigned splits have ended.
    End,
}

/// A split that a reader is to read and cannot read for now: nobody leads a partition, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// Which one.
    pub split: SplitId,
    /// Why, in words, and what to look at. It is shown as a warning.
    pub reason: String,
    /// Whether records of it may wait: then it is behind and not idle, and event time waits for it. Not of one that begins behind all
    /// that there is.
    pub behind: bool,
    /// Whether somebody was asked and has not answered, rather than that nobody can be asked. A source of which nothing can be read at
    /// its start, with one such split, fails it.
    pub unanswered: bool,
}

/// A place that rows come from. Cheap to build; nothing is read before [`Source::reader`], except what
/// [`Source::schema`] needs (the header of a CSV file).
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What to call it in messages and in the printed graph: `nexmark.bids`, `file logs/*.jsonl`.
    fn name(&self) -> String;

    /// The columns of every batch that its readers deliver.
    fn schema(&self) -> Result<SchemaRef>;

    /// What is wrong with what the user said of it, although the columns are known: then it is told together with the other mistakes of
    /// the job, those in what is done with the rows too. An error of [`Source::schema`] hides these.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The splits there are now, in a stable order.
    async fn splits(&self) -> Result<Vec<SplitId>>;

    /// A reader of the given splits, each from its position, or from the source's configured start.
    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>>;

    /// As [`Source::reader`], when the job goes on from a checkpoint: with the ends that it holds, which are what
    /// [`SourceReader::ends`] said when the job began. A source that ends where its splits ended then ends its readers there, and
    /// fails if it cannot. A split that was not there then has the end 0: nothing of it is to be read. Sources whose ends cannot
    /// move leave this as it is.
    async fn reader_until(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
        ends: Vec<(SplitId, Position)>,
    ) -> Result<Box<dyn SourceReader>> {
        let _ = ends;
        self.reader(assigned).await
    }

    /// What is allowed and unwise, in words: a login that is sent without encryption. Asked once at each start of the job, and shown
    /// while it runs. It must not take long.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// How often the engine asks for [`Source::splits`] again while the job runs, and gives new ones to a reader with
    /// [`SourceReader::add`]. `None`, the default, when the splits that are there at the start are all there will be.
    ///
    /// A split that is not in the list any more is no error here; its reader says what that means. A call that fails, or does not
    /// answer, is a warning until one succeeds. New splits go to the tasks that there are, at most as many as there were splits at
    /// the start: a restart deals all of them anew. A task whose reader has said [`Fetch::End`] takes none, and when all have the
    /// source is over: a reader that has no split yet, or is to wait for more, waits in its `fetch`.
    fn discover_every(&self) -> Option<Duration> {
        None
    }

    /// Whether a split that is there, and of which a checkpoint of the job knows nothing, has appeared since the job began. Then the
    /// next start gives it to [`SourceReader::add`], and it is read from its first record; otherwise it begins where the source is
    /// configured to start, as those did that were there. So it must be true of a source that may get splits and is to lose nothing
    /// of them, whether or not the engine looks for them while the job runs.
    fn adds_splits(&self) -> bool {
        self.discover_every().is_some()
    }

    /// A checkpoint that holds these positions is final, and all its output is visible. For who watches the source from outside;
    /// the job itself never asks for it. It must not take long, and cannot fail: what goes wrong is only counted.
    async fn checkpointed(&self, positions: &[(SplitId, Position)]) {
        let _ = positions;
    }
}

/// Reads the splits of one task.
#[async_trait]
pub trait SourceReader: Send {
    /// The next rows of any split; waits until there are some. Cancel-safe: a future that is dropped before it is
    /// ready has taken nothing. It may be dropped at its first `await` and called again at once, as often as there are small batches: what
    /// takes long, such as a request, belongs into the reader and not into the future.
    async fn fetch(&mut self) -> Result<Fetch>;

    /// Nobody will ask what rows were, so [`Rows::origins`] may be left out, which saves a copy of every record. Called before the
    /// first fetch, when the job has no event time, or only counts what it rejects.
    fn without_origins(&mut self) {}

    /// Where splits begin of which nothing has been fetched yet, as far as the reader has found out. The engine asks once the
    /// reader is there and after each [`SourceReader::add`], and keeps the answer in a checkpoint that it takes at once: so "from now
    /// on" means the same record after a crash.
    fn positions(&self) -> Vec<(SplitId, Position)> {
        Vec::new()
    }

    /// Where splits end that would have no end if it had not been fixed when the reader began. Asked and kept with
    /// [`SourceReader::positions`]; a later start gives them to [`Source::reader_until`]. So a job that reads what there was when it
    /// began reads the same after a crash.
    fn ends(&self) -> Vec<(SplitId, Position)> {
        Vec::new()
    }

    /// Splits that were not there when the job began: reads them too, each from its first record, wherever the source is configured
    /// to start. Called between two fetches, or before the first for splits that have appeared while the job was down, and only if
    /// [`Source::adds_splits`] says that there may be such. What was given to a task just when its reader said [`Fetch::End`] is
    /// added after it, and fetched.
    ///
    /// Between two fetches nothing is fetched until it returns, so it must not take long: those that cannot be read now it puts off,
    /// and reads the others. What [`SourceReader::put_off`] says is given again after some seconds, and after up to a minute when that
    /// goes on. An error ends the reader.
    async fn add(&mut self, splits: Vec<SplitId>) -> Result<()> {
        let _ = splits;
        Err(ConnectorError::Config("the source finds new splits and its reader cannot read them: a bug in it".into()))
    }

    /// Which of its splits it cannot read for now, though it can read the others: those that it was made with, and those that were
    /// added. Asked once the reader is there and after each [`SourceReader::add`], to which they are given again after some seconds,
    /// until they are read: one that it was made with begins, and ends, as it would have then. While there are such
    /// its `fetch` does not say [`Fetch::End`].
    fn put_off(&self) -> Vec<PutOff> {
        Vec::new()
    }

    /// How many records of each split wait to be fetched, as far as is known without asking anyone. Asked about once a second; after
    /// an answer that knows of no split, only when the next rows have come, or when a split is about to count as idle.
    ///
    /// A split with records waiting is never idle, and holds the watermark until they are fetched. So nothing is to be counted that
    /// no fetch gives, or goes behind: markers of transactions at the end of a partition.
    fn lag(&self) -> Vec<(SplitId, u64)> {
        Vec::new()
    }

    /// From now on `splits` are not to be read, and all others are: they are too far ahead of others in event time. Each
    /// call replaces the one before, so an empty list lets all go on. Called between two fetches.
    ///
    /// A reader that can do this says `true`, at every call. Its `fetch` reads any split that is not paused, in whatever
    /// order, waits when only paused ones are left, and may still say that a paused one has ended. One that reads its
    /// splits in an order of its own cannot (this is the default): it reads on, and the engine stops asking it for rows
    /// when all its splits are too far ahead.
    fn pause(&mut self, splits: &[SplitId]) -> bool {
        let _ = splits;
        false
    }
}

/// A source that also knows the Rust type of its rows, so that closures on the stream need no annotation.
/// [`Untyped`] sources know their columns at run time only.
pub trait TypedSource: Source {
    /// A `#[derive(Record)]` struct, or [`Untyped`].
    type Row: 'static;
}

/// The row type of a stream whose columns are known at run time only.
#[derive(Clone, Copy, Debug)]
pub enum Untyped {}
