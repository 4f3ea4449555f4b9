//! Files as a sink: a file appears under its name when it is complete and durable, or not at all.
//!
//! A writer fills a hidden file, makes it durable, and only then gives it its name. The name is given by a hard link,
//! because a link, unlike a rename, fails if the name is taken: nothing is ever overwritten.

use std::{
    fs,
    io::BufWriter,
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use async_trait::async_trait;

use crate::{
    ConnectorError, Result, Sink, SinkWriter,
    format::{Encoder, Format},
};

const BUFFER_BYTES: usize = 256 << 10;

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
        self.write(Format::Json)
    }

    /// CSV with commas and a header.
    pub fn csv(self) -> FileSink {
        self.write(Format::CSV)
    }

    fn write(self, format: Format) -> FileSink {
        FileSink { directory: self.directory, format, run: fastrand::u32(..) }
    }
}

/// Files in a directory: one per task that wrote rows, called `part-{run}-{task}.jsonl` or `.csv`, where the run is a
/// number drawn once per sink. A file appears when its task ends, whole; a job that is killed before leaves hidden
/// temporary files and nothing else.
#[derive(Clone, Debug)]
pub struct FileSink {
    directory: PathBuf,
    format: Format,
    run: u32,
}

#[async_trait]
impl Sink for FileSink {
    fn name(&self) -> String {
        format!("file {}", self.directory.join(format!("*.{}", self.format.extension())).display())
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        Encoder::accepts(self.format, schema)
    }

    async fn writer(&self, task: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        fs::create_dir_all(&self.directory).map_err(|error| ConnectorError::io("create", &self.directory, error))?;
        let part = format!("part-{:08x}-{task:03}", self.run);
        Ok(Box::new(FileWriter {
            directory: self.directory.clone(),
            hidden: self.directory.join(format!(".{part}.tmp")),
            visible: self.directory.join(format!("{part}.{}", self.format.extension())),
            format: self.format,
            state: State::NoRows,
        }))
    }
}

/// Writes one file. Its calls block for as long as the page cache takes a buffer, and `finish` for as long as the disk
/// takes to be sure, once.
struct FileWriter {
    directory: PathBuf,
    hidden: PathBuf,
    visible: PathBuf,
    format: Format,
    state: State,
}

enum State {
    /// Nothing to publish yet, and no file.
    NoRows,
    Writing {
        encoder: Encoder,
        out: BufWriter<fs::File>,
    },
    /// A write failed. The file may end within a row and must not be published.
    Failed,
    Finished,
}

impl FileWriter {
    fn create(&self) -> Result<State> {
        let file =
            fs::File::create_new(&self.hidden).map_err(|error| ConnectorError::io("create", &self.hidden, error))?;
        Ok(State::Writing { encoder: Encoder::new(self.format), out: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    /// Gives the hidden file its name, for good.
    fn publish(&self, out: BufWriter<fs::File>) -> Result<()> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |error| ConnectorError::Io { action, path, source: error }
        };
        let file = out.into_inner().map_err(|error| io("write", &self.hidden)(error.into_error()))?;
        file.sync_all().map_err(io("write", &self.hidden))?;
        fs::hard_link(&self.hidden, &self.visible).map_err(io("publish", &self.visible))?;
        fs::remove_file(&self.hidden).map_err(io("remove", &self.hidden))?;
        // The name is an entry of the directory, so the directory has to reach the disk as well.
        fs::File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(io("write", &self.directory))
    }
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if matches!(self.state, State::NoRows) {
            self.state = self.create()?;
        }
        let State::Writing { encoder, out } = &mut self.state else { return Err(unusable(&self.visible)) };
        encoder.encode(&batch, out).map_err(|error| {
            self.state = State::Failed;
            match error {
                ConnectorError::Arrow(ArrowError::IoError(_, source)) => {
                    ConnectorError::io("write", &self.hidden, source)
                }
                other => other,
            }
        })
    }

    async fn finish(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::NoRows => {}
            State::Writing { out, .. } => self.publish(out)?,
            State::Failed | State::Finished => return Err(unusable(&self.visible)),
        }
        self.state = State::Finished;
        Ok(())
    }
}

fn unusable(path: &Path) -> ConnectorError {
    ConnectorError::Data {
        at: path.display().to_string(),
        reason: "the file was finished, or a write to it failed: it takes no more rows".to_string(),
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !matches!(self.state, State::NoRows | State::Finished) {
            // Nobody is left to tell, and a hidden file that stays is read by no pattern.
            let _ = fs::remove_file(&self.hidden);
        }
    }
}
