//! A file as a table for lookups: held in memory, indexed by the key, read again when it has changed.
//!
//! ```text
//!   lookup ──► index ──► rows          the table that is there
//!      │ every so often
//!      └─► has the file changed? ──► read it, index it, on another thread ──► takes the place of the table
//!                                          └─ broken: the table stays, and a warning says so
//! ```

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::SchemaRef,
    row::{RowConverter, SortField},
};
use async_trait::async_trait;
use tokio::{task::JoinHandle, time::Instant};
use typed_arrow::schema::SchemaMeta;

use super::{Lookup, later};
use crate::{ConnectorError, File, Result, Source, SplitId, file::FileSource};

/// How often it is looked whether the file has changed, unless told.
const REFRESH: Duration = Duration::from_secs(60);

/// The rows of a file, for lookups. It is read whole, into memory, before the job reads its first row; a file that is not
/// there or does not decode is an error then.
///
/// Later versions of the file are read while the former one serves. One that cannot be read changes nothing but
/// [`Lookup::warning`]. Replace the file by renaming a complete one: of a file that is still being written, what is there
/// is taken for all.
///
/// ```
/// use typed_arrow::Record;
/// use windrow_connectors::{Lookup, TableFile};
///
/// #[derive(Record)]
/// struct Shop { id: i64, city: Option<String> }
///
/// let shops = TableFile::csv::<Shop>("shops.csv");
/// assert_eq!(shops.name(), "shops.csv");
/// assert_eq!(shops.schema()?.field(1).name(), "city");
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
pub struct TableFile {
    files: Arc<FileSource<()>>,
    refresh: Duration,
    /// Locked across the first reading, so that all tasks wait for one.
    table: tokio::sync::Mutex<Option<Served>>,
    warning: Mutex<Option<String>>,
}

/// Tells one version of the files from another: name, time of change, size.
type Version = Vec<(String, Option<SystemTime>, u64)>;

struct Served {
    table: Arc<Table>,
    look_at: Instant,
    /// A look at the files, and the new table if they have changed.
    looking: Option<JoinHandle<Result<Option<Table>>>>,
}

impl TableFile {
    /// A CSV file with the columns of a `#[derive(Record)]` struct, found by the names in its header.
    pub fn csv<T: SchemaMeta>(path: impl AsRef<str>) -> Self {
        Self::of(File::pattern(path).csv::<T>())
    }

    /// A file of JSON lines with the columns of a `#[derive(Record)]` struct.
    pub fn json<T: SchemaMeta>(path: impl AsRef<str>) -> Self {
        Self::of(File::pattern(path).json::<T>())
    }

    /// A Parquet file, of which the columns of a `#[derive(Record)]` struct are read.
    pub fn parquet<T: SchemaMeta>(path: impl AsRef<str>) -> Self {
        Self::of(File::pattern(path).parquet::<T>())
    }

    /// The records of any file source, all its files together.
    pub fn of<T>(files: FileSource<T>) -> Self {
        let (table, warning) = (tokio::sync::Mutex::new(None), Mutex::new(None));
        Self { files: Arc::new(files.retyped()), refresh: REFRESH, table, warning }
    }

    /// How often it is looked whether the file has changed, when there are lookups. Every minute unless told.
    pub fn refresh(self, every: Duration) -> Self {
        Self { refresh: every, ..self }
    }

    /// The table that is there; the first time, or by another key than the last, once it has been read.
    async fn table(&self, keys: &SchemaRef) -> Result<Arc<Table>> {
        let mut served = self.table.lock().await;
        let served = match &mut *served {
            Some(served) if served.table.keys.fields() == keys.fields() => served,
            other => {
                let table = self.look(None, keys).await.map_err(broke)??;
                let table = table.ok_or_else(|| ConnectorError::Config(format!("{}: it was not read", self.name())))?;
                let look_at = later(self.refresh);
                other.insert(Served { table: Arc::new(table), look_at, looking: None })
            }
        };
        if let Some(looking) = served.looking.take_if(|looking| looking.is_finished()) {
            let looked = looking.await.map_err(broke).and_then(|looked| looked);
            let warning = looked.as_ref().err().map(|error| format!("the rows of before serve on: {error}"));
            *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = warning;
            if let Ok(Some(table)) = looked {
                served.table = Arc::new(table);
            }
        }
        if served.looking.is_none() && served.look_at <= Instant::now() {
            served.looking = Some(self.look(Some(served.table.version.clone()), keys));
            served.look_at = later(self.refresh);
        }
        Ok(served.table.clone())
    }

    /// Reads the table on another thread, unless it is still of the version `but`.
    fn look(&self, but: Option<Version>, keys: &SchemaRef) -> JoinHandle<Result<Option<Table>>> {
        let (files, keys) = (self.files.clone(), keys.clone());
        tokio::task::spawn_blocking(move || {
            // Before the rows: when the files change meanwhile they are looked at again.
            let version = version(&files)?;
            if but.as_ref() == Some(&version) {
                return Ok(None);
            }
            Table::new(read(&files)?, version, keys, &files.patterns()).map(Some)
        })
    }
}

/// A reading that did not come to its end.
fn broke(error: tokio::task::JoinError) -> ConnectorError {
    ConnectorError::Data { at: "a table".into(), reason: format!("reading it broke off: {error}") }
}

#[async_trait]
impl Lookup for TableFile {
    fn name(&self) -> String {
        self.files.patterns()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.files.schema()
    }

    async fn open(&self, keys: &SchemaRef) -> Result<()> {
        self.table(keys).await.map(drop)
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch> {
        self.table(keys.schema_ref()).await?.find(&keys)
    }

    fn warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The files as they are now.
fn version(files: &FileSource<()>) -> Result<Version> {
    let look = |split: SplitId| {
        let name = split.as_str().to_owned();
        let found = fs::metadata(&name).map_err(|error| ConnectorError::io("look at", &name, error))?;
        Ok((name, found.modified().ok(), found.len()))
    };
    files.files()?.into_iter().map(look).collect()
}

/// All records; one that does not decode makes a table that is not the one that was meant.
fn read(files: &FileSource<()>) -> Result<RecordBatch> {
    files.check()?;
    let mut batches = Vec::new();
    for rows in files.read_all()? {
        if let Some(rejected) = rows.rejected.first() {
            let line = rejected.line.map(|line| format!(" line {line}"));
            let row = || rejected.position.map(|row| format!(" row {row}"));
            let place = line.or_else(row).unwrap_or_default();
            return Err(ConnectorError::Data { at: format!("{}{place}", rows.split), reason: rejected.reason.clone() });
        }
        batches.push(rows.batch);
    }
    Ok(concat_batches(&files.schema()?, &batches)?)
}

/// Rows and where each key is among them.
struct Table {
    rows: RecordBatch,
    version: Version,
    keys: SchemaRef,
    /// The first row of each key.
    first: HashMap<Box<[u8]>, u32>,
    /// Of each row the next one with the same key; itself when there is none.
    next: Vec<u32>,
}

impl Table {
    fn new(rows: RecordBatch, version: Version, keys: SchemaRef, name: &str) -> Result<Self> {
        let broken = |reason: String| ConnectorError::Data { at: name.to_string(), reason };
        let count = u32::try_from(rows.num_rows());
        let count = count.map_err(|_| broken(format!("{} rows are too many for memory", rows.num_rows())))?;
        let column = |name: &String| rows.column_by_name(name).cloned();
        let columns: Option<Vec<ArrayRef>> = keys.fields().iter().map(|field| column(field.name())).collect();
        let columns = columns.ok_or_else(|| broken("a column of the key is not there".into()))?;
        let encoded = converter(&keys)?.convert_columns(&columns)?;
        let (mut first, mut next) = (HashMap::new(), (0..count).collect::<Vec<u32>>());
        // From the last on, so that the rows of a key are found in their order. A null is no key.
        let has_key = |row: &u32| columns.iter().all(|column| column.is_valid(*row as usize));
        for row in (0..count).rev().filter(has_key) {
            if let Some(later) = first.insert(Box::from(encoded.row(row as usize).as_ref()), row) {
                next[row as usize] = later;
            }
        }
        Ok(Self { rows, version, keys, first, next })
    }

    fn find(&self, keys: &RecordBatch) -> Result<RecordBatch> {
        let encoded = converter(&self.keys)?.convert_columns(keys.columns())?;
        let mut found = Vec::with_capacity(keys.num_rows());
        for key in &encoded {
            let Some(mut row) = self.first.get(key.as_ref()).copied() else { continue };
            found.push(row);
            while self.next[row as usize] != row {
                row = self.next[row as usize];
                found.push(row);
            }
        }
        Ok(take_record_batch(&self.rows, &UInt32Array::from(found))?)
    }
}

/// Makes comparable bytes of keys.
pub(super) fn converter(keys: &SchemaRef) -> Result<RowConverter> {
    let fields = keys.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use arrow::{
        array::AsArray,
        array::Int64Array,
        datatypes::{DataType, Field, Int64Type, Schema},
    };
    use typed_arrow::Record;

    use super::*;

    #[derive(Record)]
    #[allow(dead_code, missing_docs, unreachable_pub, reason = "derive(Record) makes public types")]
    struct Shop {
        id: i64,
        rent: Option<i64>,
    }

    fn keys(ids: &[i64]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(ids.to_vec()))]).unwrap()
    }

    async fn rents(table: &TableFile, ids: &[i64]) -> Vec<Option<i64>> {
        table.lookup(keys(ids)).await.unwrap().column(1).as_primitive::<Int64Type>().iter().collect()
    }

    fn write(path: &Path, text: &str) {
        // As one should: complete, by renaming.
        let new = path.with_extension("new");
        fs::File::create(&new).unwrap().write_all(text.as_bytes()).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Looks up until it is so; a reading on another thread takes its time.
    async fn until(table: &TableFile, is_so: impl Fn(Vec<Option<i64>>, Option<String>) -> bool) {
        let began = std::time::Instant::now();
        while !is_so(rents(table, &[1]).await, table.warning()) {
            assert!(began.elapsed() < Duration::from_secs(30), "it hangs: {:?}", table.warning());
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error_at_once() {
        let error = TableFile::csv::<Shop>("/nowhere/shops.csv").open(&keys(&[]).schema()).await.unwrap_err();
        assert!(error.to_string().contains("no such file: /nowhere/shops.csv"), "{error}");
        let error = TableFile::parquet::<Shop>("/nowhere/shops.parquet").open(&keys(&[]).schema()).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/shops.parquet"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shops.csv");
        write(&path, "id,rent\n1,10\n2,20\n1,11\n3,\n");
        let table = TableFile::csv::<Shop>(path.to_str().unwrap()).refresh(Duration::from_secs(5));
        table.open(&keys(&[]).schema()).await.unwrap();
        assert_eq!(rents(&table, &[3, 9, 1]).await, [None, Some(10), Some(11)], "any number of rows per key");
        write(&path, "id,rent\n1,77\n");
        assert_eq!(rents(&table, &[1]).await, [Some(10), Some(11)], "it is not time to look");
        tokio::time::advance(Duration::from_secs(5)).await;
        until(&table, |rents, warning| rents == [Some(77)] && warning.is_none()).await;
        write(&path, "id,rent\n1,oops\n");
        tokio::time::advance(Duration::from_secs(5)).await;
        until(&table, |rents, warning| rents == [Some(77)] && warning.is_some()).await;
        let warning = table.warning().unwrap();
        assert!(warning.contains("serve on") && warning.contains("line 2") && warning.contains("oops"), "{warning}");
        write(&path, "id,rent\n1,88\n2,3\n");
        tokio::time::advance(Duration::from_secs(5)).await;
        until(&table, |rents, warning| rents == [Some(88)] && warning.is_none()).await;
    }

    #[tokio::test]
    async fn parquet_is_read_by_the_names_of_columns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shops.parquet");
        let columns: [(&str, ArrayRef); 3] = [
            ("rent", Arc::new(Int64Array::from(vec![5, 6]))),
            ("more", Arc::new(Int64Array::from(vec![0, 0]))),
            ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let table = TableFile::parquet::<Shop>(path.to_str().unwrap());
        assert_eq!(rents(&table, &[2]).await, [Some(6)]);

        #[derive(Record)]
        #[allow(dead_code, missing_docs, unreachable_pub, reason = "derive(Record) makes public types")]
        struct Typo {
            id: i64,
            rnt: Option<i64>,
        }
        let error = TableFile::parquet::<Typo>(path.to_str().unwrap()).open(&keys(&[]).schema()).await.unwrap_err();
        assert!(error.to_string().contains(r#"no column "rnt""#), "{error}");
    }
}
