//! Files of JSON lines, CSV and Parquet: read by pattern, written whole and once.
//!
//! ```text
//!   File::patterns(["logs/*.jsonl", "old.csv.gz"])
//!        │ one split per file, its position a byte of the decompressed text, or the number of a row
//!        ▼
//!   FileSource ──► reader ──┬─► TextFile: open ► gunzip ► frame ► decode ───┐
//!                           ├─► ParquetFile: footer ► pages ► convert       ├─► Rows, round robin
//!                           └─► ... at most 64 open, or 8 of Parquet      ──┘
//!
//!   FileSink ──► writer of a task ──► out/.part-….tmp ── stage: fsync ──► receipt ── commit ──► out/part-….jsonl
//! ```
//!
//! | file | why it exists |
//! |---|---|
//! | `source` | what the user builds; which files a pattern means; the reader that goes round the open files |
//! | `text` | one file of text being read: buffer, position, records |
//! | `open` | bytes of a file, decompressed, and what can be wrong with them |
//! | `parquet` | one Parquet file being read: position, steps, batches |
//! | `pages` | its bytes for the library, and the calls of it |
//! | `layout` | what its footer says: columns, types, row groups |
//! | `convert` | columns of other types than were asked for, and rows that have values that do not fit |
//! | `format` | what can be in a file |
//! | `sink` | files that appear when they are complete, durable and decided, once |

use std::path::PathBuf;

mod convert;
mod format;
mod layout;
mod open;
mod pages;
mod parquet;
pub mod sink;
pub mod source;
#[cfg(test)]
mod tests;
mod text;

pub use sink::{FileOutput, FileSink, TimePartition};
pub use source::{FileInput, FileSource};

/// Where file sources and file sinks begin.
///
/// Reading:
///
/// ```
/// use typed_arrow::Record;
/// use windrow_connectors::{Fetch, File, Source};
///
/// #[derive(Record)]
/// struct Bid { auction: i64, price: i64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let pattern = format!("{}/*.jsonl", directory.path().display());
/// # std::fs::write(directory.path().join("a.jsonl"), "{\"auction\": 1, \"price\": 7}\n").unwrap();
/// let bids = File::pattern(&pattern).json::<Bid>();        // "logs/*.jsonl"
/// let splits = bids.splits().await?.into_iter().map(|split| (split, None)).collect();
/// let mut reader = bids.reader(splits).await?;
/// let Fetch::Rows(rows) = reader.fetch().await? else { unreachable!() };
/// assert_eq!(rows.batch.num_rows(), 1);
/// # Ok(())
/// # }
/// ```
///
/// Writing:
///
/// ```
/// use windrow_connectors::{File, Sink};
///
/// let results = File::directory("out").json();
/// assert_eq!(results.name(), "file out/*.jsonl");
/// ```
#[derive(Clone, Copy, Debug)]
pub enum File {}

impl File {
    /// The files that a pattern means: `*`, `?`, `[a-z]` and `**` for any directories, or simply a path. Files whose
    /// names begin with a dot are matched only by a pattern that says so. `.gz` and `.zst` are decompressed.
    pub fn pattern(pattern: impl AsRef<str>) -> FileInput {
        Self::patterns([pattern])
    }

    /// The files that any of the patterns means, each once.
    pub fn patterns<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> FileInput {
        FileInput::new(patterns.into_iter().map(|pattern| pattern.as_ref().to_string()).collect())
    }

    /// A directory for the files of a sink. It is created if it is not there.
    pub fn directory(path: impl Into<PathBuf>) -> FileOutput {
        FileOutput::new(path.into())
    }
}
