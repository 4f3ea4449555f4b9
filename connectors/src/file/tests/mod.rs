//! Tests of files as source and sink, on a real directory.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    compute::concat_batches,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use tempfile::TempDir;

use crate::{Epoch, Fetch, Incarnation, Position, Receipt, Rejected, Result, Sink, Source, SplitId, file::FileSink};

mod cleaning;
mod parquet;
mod partitions;
mod publishing;
mod reading;
mod resume;
mod writing;

/// A directory that is removed with its files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// Writes a file, compressed as its name says.
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, compress(name, bytes)).unwrap();
        path
    }

    /// The files below a directory, hidden ones too, as sorted paths relative to it.
    fn files(&self, below: &str) -> Vec<String> {
        let root = self.0.path().join(below);
        let (mut files, mut directories) = (Vec::new(), vec![root.clone()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else {
                    files.push(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn compress(name: &str, bytes: &[u8]) -> Vec<u8> {
    match PathBuf::from(name).extension().and_then(|ending| ending.to_str()) {
        Some("gz") => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    }
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let fields: Vec<Field> =
        fields.iter().map(|(name, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable)).collect();
    Arc::new(Schema::new(fields))
}

/// Everything a reader delivers, in order.
#[derive(Debug, Default)]
struct Delivered {
    batches: Vec<RecordBatch>,
    rejected: Vec<Rejected>,
    /// What each row was.
    origins: Vec<Rejected>,
    /// After each batch: its split, the position behind it, and how many rows and rejects there were by then.
    steps: Vec<(SplitId, Position, usize, usize)>,
    ended: Vec<SplitId>,
}

impl Delivered {
    fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn batch(&self, schema: &SchemaRef) -> RecordBatch {
        concat_batches(schema, &self.batches).unwrap()
    }
}

/// Reads the given splits to their end, or to an error.
async fn read_from(source: &impl Source, assigned: Vec<(SplitId, Option<Position>)>) -> (Delivered, Result<()>) {
    let mut delivered = Delivered::default();
    let mut reader = match source.reader(assigned).await {
        Ok(reader) => reader,
        Err(error) => return (delivered, Err(error)),
    };
    loop {
        match reader.fetch().await {
            Ok(Fetch::Rows(rows)) => {
                // Rows of Parquet were no records.
                if let Some(origins) = rows.origins {
                    assert_eq!(origins.len(), rows.batch.num_rows());
                    delivered.origins.extend((0..origins.len()).filter_map(|row| origins.reject(row, String::new())));
                }
                delivered.batches.push(rows.batch);
                delivered.rejected.extend(rows.rejected);
                delivered.steps.push((rows.split, rows.next, delivered.rows(), delivered.rejected.len()));
            }
            Ok(Fetch::SplitEnd(split)) => delivered.ended.push(split),
            Ok(Fetch::End) => return (delivered, Ok(())),
            Err(error) => {
                let again = reader.fetch().await.unwrap_err().to_string();
                assert_eq!(again, error.to_string(), "an error is not forgotten");
                return (delivered, Err(error));
            }
        }
    }
}

/// Reads all splits from their beginning.
async fn read_all(source: &impl Source) -> (Delivered, Result<()>) {
    match source.splits().await {
        Ok(splits) => read_from(source, splits.into_iter().map(|split| (split, None)).collect()).await,
        Err(error) => (Delivered::default(), Err(error)),
    }
}

async fn read_well(source: &impl Source) -> Delivered {
    let (delivered, end) = read_all(source).await;
    end.unwrap();
    delivered
}

async fn error_of(source: &impl Source) -> String {
    read_all(source).await.1.unwrap_err().to_string()
}

fn incarnation(generation: u64) -> Incarnation {
    Incarnation { job: "00c0ffee".to_owned(), generation, nonce: 0x89ab_cdef_u32.wrapping_mul(generation as u32) }
}

/// What a task writes in one epoch, staged.
async fn staged(sink: &FileSink, generation: u64, task: usize, epoch: u64, batches: &[RecordBatch]) -> Vec<Receipt> {
    let mut writer = sink.writer(&incarnation(generation), task, batches[0].schema()).await.unwrap();
    for batch in batches {
        writer.write(batch.clone()).await.unwrap();
    }
    writer.stage(Epoch(epoch)).await.unwrap()
}

/// A field of a receipt.
fn says(receipt: &Receipt, field: &str) -> String {
    let fields: serde_json::Value = serde_json::from_str(&receipt.0).unwrap();
    fields[field].as_str().unwrap().to_owned()
}

/// The rows of a Parquet file, which is complete.
fn parquet_rows(path: impl AsRef<Path>) -> Vec<RecordBatch> {
    let file = fs::File::open(path.as_ref()).unwrap();
    let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader.build().unwrap().map(|batch| batch.unwrap()).collect()
}
