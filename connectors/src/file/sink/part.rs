//! One file while it is written: its rows, its size, its checksum; and its removal if it is not staged.
//!
//! ```text
//!   rows ──► Encoder or ArrowWriter ──► buffer ──► Checked ──► .part-….tmp
//!                                                     └ bytes, XXH3-128
//! ```
//!
//! The checksum is taken of what is written, on its way: to read the file again would cost as much as writing it, and
//! would find what the page cache holds and not what the disk does.

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use tokio::time::Instant;
use twox_hash::xxhash3_128::Hasher;

use super::{directory, name::PartName};
use crate::{ConnectorError, Result, file::format::FileFormat, format::Encoder};

const BUFFER_BYTES: usize = 256 << 10;

/// A hidden file that takes rows. Dropped, it is removed.
pub(super) struct Part {
    file: HiddenFile,
    rows: u64,
    content: Content,
    opened: Instant,
}

enum Content {
    Text(Encoder, Box<Out>),
    Parquet(Box<ArrowWriter<Out>>),
}

type Out = BufWriter<Checked>;

impl Part {
    /// A new file in a directory below the root. Its permissions are what the process gives to any file (the umask):
    /// the file that is hidden now is the one that is published, and readers are to be able to read it.
    pub(super) fn create(
        root: &Path,
        relative: &str,
        name: PartName,
        format: FileFormat,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let path = directory::created(root, relative)?.join(name.hidden());
        let file = fs::File::create_new(&path).map_err(|error| ConnectorError::io("create", &path, error))?;
        let hidden = HiddenFile { path, directory: relative.to_owned(), name, staged: false };
        Self::on(file, hidden, format, schema)
    }

    /// From here on, a file that cannot be used is removed.
    fn on(file: fs::File, hidden: HiddenFile, format: FileFormat, schema: &SchemaRef) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, Checked::new(file));
        let content = match format {
            FileFormat::Text(format) => Content::Text(Encoder::new(format), Box::new(out)),
            FileFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by(concat!("windrow version ", env!("CARGO_PKG_VERSION")).to_owned());
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties.build()));
                Content::Parquet(Box::new(writer.map_err(|error| hidden.explain(error))?))
            }
        };
        Ok(Self { file: hidden, rows: 0, content, opened: Instant::now() })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.content {
            Content::Text(encoder, out) => encoder.encode(batch, &mut **out).map_err(|error| {
                // Arrow's CSV writer keeps the text of what the system said, and nothing else.
                match out.get_mut().refused.take() {
                    Some(refused) => self.file.io(refused),
                    None => error,
                }
            })?,
            Content::Parquet(writer) => writer.write(batch).map_err(|error| self.file.explain(error))?,
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The size that the file would have if it were closed now, or nearly.
    pub(super) fn bytes(&self) -> u64 {
        match &self.content {
            Content::Text(_, out) => out.get_ref().bytes + out.buffer().len() as u64,
            Content::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
        }
    }

    /// The rows that are in memory and can be got out of it, in bytes.
    pub(super) fn memory(&self) -> usize {
        match &self.content {
            Content::Text(..) => 0,
            Content::Parquet(writer) => writer.memory_size(),
        }
    }

    /// Ends the row group, which is held in memory until then.
    pub(super) fn free_memory(&mut self) -> Result<()> {
        match &mut self.content {
            Content::Text(..) => Ok(()),
            Content::Parquet(writer) => writer.flush().map_err(|error| self.file.explain(error)),
        }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Completes the file and makes its content durable. Its directory is not yet.
    pub(super) fn close(self) -> Result<ClosedPart> {
        let Self { file, rows, content, .. } = self;
        let out = match content {
            Content::Text(_, out) => *out,
            Content::Parquet(writer) => writer.into_inner().map_err(|error| file.explain(error))?,
        };
        let Checked { file: open, hasher, bytes, .. } =
            out.into_inner().map_err(|error| file.io(error.into_error()))?;
        open.sync_all().map_err(|error| file.io(error))?;
        Ok(ClosedPart { file, rows, bytes, checksum: hasher.finish_128() })
    }
}

/// A complete file, hidden still. Dropped, it is removed, unless it was staged.
pub(super) struct ClosedPart {
    file: HiddenFile,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) checksum: u128,
}

impl ClosedPart {
    pub(super) fn name(&self) -> &PartName {
        &self.file.name
    }

    /// Its directory, relative to the root.
    pub(super) fn directory(&self) -> &str {
        &self.file.directory
    }

    /// From now on a receipt stands for the file, and it stays.
    pub(super) fn keep(mut self) {
        self.file.staged = true;
    }
}

struct HiddenFile {
    path: PathBuf,
    directory: String,
    name: PartName,
    staged: bool,
}

impl HiddenFile {
    fn io(&self, error: std::io::Error) -> ConnectorError {
        ConnectorError::io("write", &self.path, error)
    }

    fn explain(&self, error: ParquetError) -> ConnectorError {
        let error = match error {
            ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
                Ok(error) => return self.io(*error),
                Err(other) => ParquetError::External(other),
            },
            other => other,
        };
        ConnectorError::Data { at: self.path.display().to_string(), reason: error.to_string() }
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.staged {
            // Nobody is left to tell. A file that stays is seen by no reader, and the next generation cleans it up.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file that knows what went into it.
struct Checked {
    file: fs::File,
    hasher: Hasher,
    bytes: u64,
    /// The last error of the system.
    refused: Option<std::io::Error>,
}

impl Checked {
    fn new(file: fs::File) -> Self {
        Self { file, hasher: Hasher::new(), bytes: 0, refused: None }
    }
}

impl Write for Checked {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer).inspect_err(|error| {
            self.refused = error.raw_os_error().map(std::io::Error::from_raw_os_error);
        })?;
        self.hasher.write(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::OwnedFd, sync::Arc};

    use arrow::array::Int64Array;

    use super::*;
    use crate::Incarnation;

    fn batch(seed: u64) -> RecordBatch {
        let mut random = fastrand::Rng::with_seed(seed);
        let column = Int64Array::from_iter_values(std::iter::repeat_with(|| random.i64(..)).take(20_000));
        RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap()
    }

    /// A part whose file is there, but whose bytes go elsewhere.
    fn part(directory: &Path, file: fs::File, format: FileFormat) -> Result<Part> {
        let incarnation = Incarnation { job: "00c0ffee".to_owned(), generation: 1, nonce: 7 };
        let name = PartName::next(&incarnation, 0);
        let path = directory.join(name.hidden());
        fs::write(&path, "").unwrap();
        let hidden = HiddenFile { path, directory: String::new(), name, staged: false };
        Part::on(file, hidden, format, &batch(0).schema())
    }

    fn fill(part: Result<Part>) -> Result<()> {
        let mut part = part?;
        for seed in 0..3 {
            part.write(&batch(seed))?;
            part.free_memory()?;
        }
        let closed = part.close()?;
        assert_eq!(closed.rows, 60_000);
        Ok(())
    }

    /// A pipe that breaks when so many bytes have gone through, and cannot be made durable at all.
    fn pipe(bytes: u64) -> fs::File {
        let (reader, writer) = std::io::pipe().unwrap();
        std::thread::spawn(move || std::io::copy(&mut reader.take(bytes), &mut std::io::sink()));
        OwnedFd::from(writer).into()
    }

    #[test]
    fn a_write_that_fails_anywhere_names_the_file_and_removes_it() {
        let place = tempfile::tempdir().unwrap();
        for format in FileFormat::ALL {
            // A disk that is always full; only Linux has one.
            if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
                let error = fill(part(place.path(), full, format)).unwrap_err().to_string();
                assert!(error.starts_with("cannot write ") && error.contains("/.part-00c0ffee-"), "{format}: {error}");
                assert!(error.contains("No space left"), "{format}: {error}");
            }
            for bytes in [0, 1, 3, 100_000, 300_000, 500_000, u64::MAX] {
                let error = fill(part(place.path(), pipe(bytes), format)).unwrap_err().to_string();
                assert!(error.starts_with("cannot write ") && error.contains("/.part-00c0ffee-"), "{format}: {error}");
            }
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{format}");
        }
    }
}
