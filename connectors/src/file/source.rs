//! Files as a source: what the user builds, which files a pattern means, and the reader of a task.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    fmt, fs,
    marker::PhantomData,
    path::{Component, Path, PathBuf},
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use glob::MatchOptions;
use typed_arrow::schema::SchemaMeta;

use super::{
    format::FileFormat,
    layout,
    open::check_regular,
    parquet::ParquetFile,
    text::{Settings, TextFile},
};
use crate::{
    ConnectorError, Fetch, Position, Result, Rows, Source, SourceReader, SplitId, TypedSource, Untyped,
    format::{Format, infer},
};

/// Files of one reader that are open at the same time. The next one is opened when one of them ends. It bounds the
/// file descriptors and, with a chunk of 256 KiB each, the memory.
const MAX_OPEN: usize = 64;
/// The same of Parquet files, which hold a page of each column in memory, of a megabyte or so.
const MAX_OPEN_PARQUET: usize = 8;

/// Files to read, before it is said what is in them. See [`File`](super::File).
#[derive(Clone, Debug)]
pub struct FileInput {
    patterns: Vec<String>,
    settings: Settings,
    delimiter: u8,
    /// What to infer; everything if absent.
    columns: Option<Vec<String>>,
}

impl FileInput {
    pub(super) fn new(patterns: Vec<String>) -> Self {
        Self { patterns, settings: Settings::default(), delimiter: b',', columns: None }
    }

    /// The rows of a batch; 8192 if not said.
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.settings.batch_rows = rows.max(1);
        self
    }

    /// The longest record; 10 MiB if not said. Longer ones are rejected with their first KiB, and reading goes on
    /// behind the next line end.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_record_bytes = bytes.max(1);
        self
    }

    /// What stands between two fields of CSV; a comma if not said.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The columns that [`infer_json`](Self::infer_json) and [`infer_csv`](Self::infer_csv) look for, each once; all if
    /// not said. What the others hold does not matter then. One that the sample does not show is an error, which names
    /// those that it does.
    pub fn columns<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in columns.into_iter().map(Into::into) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.columns = Some(names);
        self
    }

    /// JSON lines with the columns of a `#[derive(Record)]` struct. A time is RFC 3339 text; a plain number in a time
    /// column counts in the column's own unit, which for the engine's event time is microseconds. For numbers in another
    /// unit declare an integer column and name the unit where event time is declared.
    pub fn json<T: SchemaMeta>(self) -> FileSource<T> {
        self.read(FileFormat::Text(Format::Json), T::schema())
    }

    /// JSON lines with these columns.
    pub fn json_with(self, schema: SchemaRef) -> FileSource<Untyped> {
        self.read(FileFormat::Text(Format::Json), schema)
    }

    /// CSV with the columns of a `#[derive(Record)]` struct, found by the names in each file's header.
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{File, Source};
    /// #[derive(Record)]
    /// struct Reading { sensor: i64, celsius: Option<f64> }
    ///
    /// let readings = File::patterns(["readings/*.csv", "older/*.csv.gz"]).delimiter(b';').csv::<Reading>();
    /// assert_eq!(readings.schema()?.fields().len(), 2);
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn csv<T: SchemaMeta>(self) -> FileSource<T> {
        let delimiter = self.delimiter;
        self.read(FileFormat::Text(Format::Csv { delimiter }), T::schema())
    }

    /// CSV with these columns, found by the names in each file's header.
    pub fn csv_with(self, schema: SchemaRef) -> FileSource<Untyped> {
        let delimiter = self.delimiter;
        self.read(FileFormat::Text(Format::Csv { delimiter }), schema)
    }

    /// Parquet with the columns of a `#[derive(Record)]` struct, found by their names; others are not read. A column that a file does
    /// not have is null in its rows, if the column may be null. A type may be wider or narrower than that of the file: integers are
    /// integers, texts are texts, and timestamps are of any unit, of which what is finer than the column is cut off, towards the past.
    /// Rows whose values do not fit, or are null where none may be, are rejected one by one.
    ///
    /// Of the settings [`batch_rows`](Self::batch_rows) counts here, [`columns`](Self::columns) for
    /// [`infer_parquet`](Self::infer_parquet), and [`max_record_bytes`](Self::max_record_bytes) for how much is kept of a rejected row. Pages are uncompressed, or compressed by zstd, Snappy, gzip or LZ4.
    ///
    /// ```
    /// # use typed_arrow::Record;
    /// # use windrow_connectors::{File, Source};
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: Option<f64> }
    ///
    /// let bids = File::pattern("bids/**/*.parquet").parquet::<Bid>();
    /// assert_eq!(bids.schema()?.fields().len(), 2);
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    pub fn parquet<T: SchemaMeta>(self) -> FileSource<T> {
        self.read(FileFormat::Parquet, T::schema())
    }

    /// Parquet with these columns, found by their names.
    pub fn parquet_with(self, schema: SchemaRef) -> FileSource<Untyped> {
        self.read(FileFormat::Parquet, schema)
    }

    /// Parquet with the columns of the first file. Every column is nullable. Reads the end of that file now.
    pub fn infer_parquet(self) -> Result<FileSource<Untyped>> {
        let splits = find(&self.patterns)?;
        let first = splits.first().ok_or_else(|| self.nothing_to_infer())?;
        let schema = layout::columns_of(first, self.columns.as_deref())?;
        Ok(self.parquet_with(schema))
    }

    /// JSON lines with the columns that the first `records` records show, over all files in order. Every column is
    /// nullable; one that was always null is text. Reads the files now.
    pub fn infer_json(self, records: usize) -> Result<FileSource<Untyped>> {
        let mut sample = Vec::new();
        for split in find(&self.patterns)? {
            let missing = records.max(1) - sample.len();
            sample.extend(TextFile::sample(split, missing, Format::Json, &self.settings)?.1);
            if sample.len() >= records {
                break;
            }
        }
        if sample.is_empty() {
            return Err(self.nothing_to_infer());
        }
        let schema = infer::json(&sample, self.columns.as_deref()).map_err(|error| self.cannot_infer(&error))?;
        Ok(self.json_with(schema))
    }

    /// CSV with the columns that the header and the first `records` records of the first file with records show. Every
    /// column is nullable; one that was always empty is text. Reads the files now.
    pub fn infer_csv(self, records: usize) -> Result<FileSource<Untyped>> {
        let delimiter = self.delimiter;
        let format = Format::Csv { delimiter };
        for split in find(&self.patterns)? {
            let (header, sample) = TextFile::sample(split, records.max(1), format, &self.settings)?;
            if !sample.is_empty() {
                let schema = infer::csv(&header, &sample, delimiter, self.columns.as_deref());
                let schema = schema.map_err(|error| self.cannot_infer(&error))?;
                return Ok(self.csv_with(schema));
            }
        }
        Err(self.nothing_to_infer())
    }

    fn read<T>(mut self, format: FileFormat, schema: SchemaRef) -> FileSource<T> {
        self.settings.format = format;
        FileSource { patterns: self.patterns, settings: self.settings, schema, row: PhantomData }
    }

    fn cannot_infer(&self, error: &ConnectorError) -> ConnectorError {
        let at = self.patterns.join(", ");
        let reason = match &self.columns {
            Some(_) => format!("the columns cannot be inferred: {error}"),
            None => format!("the columns cannot be inferred, name those that you need or give a schema: {error}"),
        };
        ConnectorError::Data { at, reason }
    }

    fn nothing_to_infer(&self) -> ConnectorError {
        ConnectorError::Config(format!(
            "the columns of {} cannot be inferred: no record in it could be read; give a schema instead",
            self.patterns.join(", ")
        ))
    }
}

/// Files as a source. One split per file, in the order of their paths; a position is a byte of the decompressed file, or a row of a
/// Parquet file, counted from 0.
///
/// A reader takes its files in turns, a batch from each, so that none falls behind in event time.
pub struct FileSource<T> {
    patterns: Vec<String>,
    settings: Settings,
    schema: SchemaRef,
    row: PhantomData<fn() -> T>,
}

impl<T> Clone for FileSource<T> {
    fn clone(&self) -> Self {
        let Self { patterns, settings, schema, row } = self;
        Self { patterns: patterns.clone(), settings: settings.clone(), schema: schema.clone(), row: *row }
    }
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("patterns", &self.patterns).field("settings", &self.settings).finish()
    }
}

impl<T> FileSource<T> {
    /// The same for those who do not know the type.
    pub(crate) fn retyped<U>(self) -> FileSource<U> {
        FileSource { patterns: self.patterns, settings: self.settings, schema: self.schema, row: PhantomData }
    }

    pub(crate) fn patterns(&self) -> String {
        self.patterns.join(", ")
    }

    /// The files there are now.
    pub(crate) fn files(&self) -> Result<Vec<SplitId>> {
        find(&self.patterns)
    }

    /// Everything in the files, with what did not decode. Blocks until it is read.
    pub(crate) fn read_all(&self) -> Result<Vec<Rows>> {
        let mut all = Vec::new();
        for split in self.files()? {
            let mut file = OpenFile::open(split, None, &self.schema, &self.settings)?;
            while let Some(rows) = file.read()? {
                all.push(rows);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
impl<T> FileSource<T> {
    pub(super) fn chunk(mut self, bytes: usize) -> Self {
        self.settings.chunk = bytes;
        self
    }
}

#[async_trait]
impl<T: 'static> Source for FileSource<T> {
    fn name(&self) -> String {
        format!("file {}", self.patterns.join(", "))
    }

    fn schema(&self) -> Result<SchemaRef> {
        // A decoder is made and dropped to say now which column cannot be read, rather than at the first file.
        if let FileFormat::Text(format) = self.settings.format {
            format.decoder(self.schema.clone(), self.settings.max_record_bytes)?;
        }
        Ok(self.schema.clone())
    }

    /// Parquet files say what is in them. Of many files two are asked: it would take long otherwise.
    fn check(&self) -> Result<()> {
        match (self.settings.format, self.files()) {
            (FileFormat::Parquet, Ok(files)) => {
                layout::check(files.first().into_iter().chain(files.last()), &self.schema)
            }
            // That files are not there is told when they are to be read.
            _ => Ok(()),
        }
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        find(&self.patterns)
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        let schema = self.schema()?;
        Ok(Box::new(FileReader {
            schema,
            settings: self.settings.clone(),
            waiting: assigned.into(),
            open: VecDeque::new(),
            paused: HashSet::new(),
        }))
    }
}

impl<T: 'static> TypedSource for FileSource<T> {
    type Row = T;
}

/// Reads the files of one task in turns.
struct FileReader {
    schema: SchemaRef,
    settings: Settings,
    /// Files that were not opened yet, or gave up their place.
    waiting: VecDeque<(SplitId, Option<Position>)>,
    /// The open files; the first is the next to read. At most as many as may be open.
    open: VecDeque<(SplitId, OpenFile)>,
    /// Files that are not to be read for now.
    paused: HashSet<SplitId>,
}

impl FileReader {
    /// What the file whose turn it is holds next; `None` when all that are left are paused.
    fn next(&mut self) -> Result<Option<Fetch>> {
        self.open_next()?;
        let turn = self.open.iter().position(|(split, _)| !self.paused.contains(split));
        let Some(turn) = turn else {
            let ended = self.open.is_empty() && self.waiting.is_empty();
            return Ok(ended.then_some(Fetch::End));
        };
        self.open.rotate_left(turn);
        let Some((split, file)) = self.open.front_mut() else { return Ok(None) };
        let fetch = match file.read()? {
            Some(rows) => {
                self.open.rotate_left(1);
                Fetch::Rows(rows)
            }
            None => {
                let split = split.clone();
                self.open.pop_front();
                Fetch::SplitEnd(split)
            }
        };
        Ok(Some(fetch))
    }

    /// Opens the next file that waits, if there is room for it. When all open ones are paused one gives up its place:
    /// they may be waiting for just that file.
    fn open_next(&mut self) -> Result<()> {
        let Some(next) = self.waiting.iter().position(|(split, _)| !self.paused.contains(split)) else { return Ok(()) };
        let at_most = if self.settings.format == FileFormat::Parquet { MAX_OPEN_PARQUET } else { MAX_OPEN };
        if self.open.len() >= at_most {
            if self.open.iter().any(|(split, _)| !self.paused.contains(split)) {
                return Ok(());
            }
            if let Some((split, file)) = self.open.pop_back() {
                self.waiting.push_back((split, Some(file.position())));
            }
        }
        let (split, position) = &self.waiting[next];
        let file = OpenFile::open(split.clone(), *position, &self.schema, &self.settings)?;
        if let Some((split, _)) = self.waiting.remove(next) {
            self.open.push_front((split, file));
        }
        Ok(())
    }
}

/// A file of any format with a place in it.
enum OpenFile {
    Text(Box<TextFile>),
    Parquet(Box<ParquetFile>),
}

impl OpenFile {
    fn open(split: SplitId, position: Option<Position>, schema: &SchemaRef, settings: &Settings) -> Result<Self> {
        Ok(match settings.format {
            FileFormat::Text(format) => {
                Self::Text(Box::new(TextFile::open(split, position, schema.clone(), format, settings)?))
            }
            FileFormat::Parquet => Self::Parquet(Box::new(ParquetFile::open(split, position, schema, settings)?)),
        })
    }

    fn position(&self) -> Position {
        match self {
            Self::Text(file) => file.position(),
            Self::Parquet(file) => file.position(),
        }
    }

    fn read(&mut self) -> Result<Option<Rows>> {
        match self {
            Self::Text(file) => file.read(),
            Self::Parquet(file) => file.read(),
        }
    }
}

#[async_trait]
impl SourceReader for FileReader {
    /// Reads in place, without a thread for blocking calls: these are regular files, whose reads end soon (mostly they
    /// are copies from the page cache) and which the system offers no readiness for. A hand-over to another thread
    /// costs more than such a read. For the same reason there is no await point before the rows are there, and with it
    /// nothing to cancel.
    async fn fetch(&mut self) -> Result<Fetch> {
        match self.next()? {
            Some(fetch) => Ok(fetch),
            None => std::future::pending().await,
        }
    }

    /// No file is open yet.
    fn without_origins(&mut self) {
        self.settings.origins = false;
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.paused = splits.iter().cloned().collect();
        true
    }
}

/// The files that the patterns mean, sorted, each once.
fn find(patterns: &[String]) -> Result<Vec<SplitId>> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let literal = Path::new(pattern);
        let is_pattern = pattern.contains(['*', '?', '[']);
        // A name that happens to hold a bracket is taken as it stands if there is such a file.
        if !is_pattern || literal.exists() {
            found.insert(file_name(literal)?);
            continue;
        }
        let mut matched = 0;
        for path in matches(pattern)? {
            found.insert(file_name(&path?)?);
            matched += 1;
        }
        if matched == 0 {
            return Err(ConnectorError::Config(format!(
                "no file matches the pattern {pattern:?} (in the directory {})",
                std::env::current_dir().unwrap_or_default().display()
            )));
        }
    }
    if found.is_empty() {
        return Err(ConnectorError::Config("a file source without a pattern has nothing to read".to_string()));
    }
    Ok(found.into_iter().map(SplitId::new).collect())
}

/// The paths that match; hidden files only if the pattern names the dot, so that a sink's unfinished files are not
/// read.
fn matches(pattern: &str) -> Result<impl Iterator<Item = Result<PathBuf>>> {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let paths = glob::glob_with(pattern, options)
        .map_err(|error| ConnectorError::Config(format!("{pattern:?} is not a file pattern: {error}")))?;
    Ok(paths.map(|path| {
        path.map_err(|error| {
            let path = error.path().to_path_buf();
            ConnectorError::io("list", path, error.into())
        })
    }))
}

/// The name of a split: the path, without the `.` parts that would make one file look like two.
fn file_name(path: &Path) -> Result<String> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ConnectorError::Config(format!("no such file: {} (a file source must find its files)", path.display()))
        }
        _ => ConnectorError::io("open", path, error),
    })?;
    check_regular(path, &found)?;
    let plain: PathBuf = path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    plain.into_os_string().into_string().map_err(|name| {
        ConnectorError::Config(format!("the file name {} is not UTF-8, which a split's name must be", name.display()))
    })
}
