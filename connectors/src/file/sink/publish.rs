//! Receipts: what is staged, and how it gets its name, however often that is tried.
//!
//! ```text
//!   found:   hidden    final      then
//!            there     absent     check the length, link
//!            any       the same   it was published before
//!            any       another    error: somebody else's file, or ours was changed
//!            absent    absent     error: removed or lost
//!
//!   all receipts ──► link each ──► fsync each directory once ──► unlink the hidden names
//! ```
//!
//! Each receipt is for itself: an error of one keeps none of the others from being published, and after a crash at any
//! point the same call goes on from what it finds. The hidden name goes only when the final one is durable. That it is
//! gone need not be durable: should it come back after a power loss, it is a second name of a published file, and is
//! cleaned up.
//!
//! Before it is linked, a file must have the length of its receipt, so a truncated one is never published. Its checksum is
//! compared if another process wrote it: then a crash lies between writing and publishing, perhaps of the whole
//! machine, with a disk that said "durable" too soon. Within one process the bytes were counted and hashed on their way
//! to the disk, and to read each again would double the work. A file found under the final name is always compared.
//!
//! A receipt comes from a file on disk, which somebody may have edited. It can name only hidden parts and their own
//! final names, below the root; see `directory` and `name`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128::Hasher;

use super::{directory, name::PartName, part::ClosedPart};
use crate::{ConnectorError, Epoch, Incarnation, Receipt, Result, file::format::FileFormat, format::excerpt};

/// What a receipt says, as JSON. Paths are relative to the root, with slashes. It is kept in checkpoints: a disk format.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Staged {
    hidden: String,
    published: String,
    bytes: u64,
    /// 32 hexadecimal digits.
    xxh3: String,
    rows: u64,
}

/// The receipt for a closed part, which decides under which name it will be published.
pub(super) fn receipt(part: &ClosedPart, epoch: Epoch, format: FileFormat) -> Result<Receipt> {
    let within = |name: String| match part.directory() {
        "" => name,
        directory => format!("{directory}/{name}"),
    };
    let staged = Staged {
        hidden: within(part.name().hidden()),
        published: within(part.name().published(epoch, format)),
        bytes: part.bytes,
        xxh3: format!("{:032x}", part.checksum),
        rows: part.rows,
    };
    let text = serde_json::to_string(&staged);
    text.map(Receipt).map_err(|error| ConnectorError::Data { at: staged.hidden, reason: error.to_string() })
}

/// Publishes every receipt that can be, and returns the first error.
pub(super) fn commit(root: &Path, receipts: &[Receipt], mine: &[Incarnation]) -> Result<()> {
    let mut result = Ok(());
    let mut linked: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for receipt in receipts {
        match link(root, receipt, mine) {
            Ok(Linked { directory, hidden }) => linked.entry(directory).or_default().push(hidden),
            Err(error) => note(&mut result, Err(error)),
        }
    }
    for (directory, hidden) in linked {
        match directory::sync(&directory) {
            Ok(()) => hidden.iter().for_each(|path| note(&mut result, remove(path))),
            Err(error) => note(&mut result, Err(error)),
        }
    }
    result
}

/// Keeps the first error.
fn note(result: &mut Result<()>, next: Result<()>) {
    if result.is_ok() {
        *result = next;
    }
}

/// A part that has its final name, perhaps not durably, and perhaps its hidden one still.
struct Linked {
    directory: PathBuf,
    hidden: PathBuf,
}

fn link(root: &Path, receipt: &Receipt, mine: &[Incarnation]) -> Result<Linked> {
    let refused = |reason: String| ConnectorError::Data {
        at: format!("a receipt of the sink to {}", root.display()),
        reason: format!("{reason}; the checkpoint was damaged or edited, or is of another sink"),
    };
    let staged: Staged = serde_json::from_str(&receipt.0).map_err(|error| refused(error.to_string()))?;
    let (within, part, published) = staged.names().map_err(refused)?;
    let directory = match directory::existing(root, within) {
        Err(ConnectorError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(staged.lost(root));
        }
        directory => directory?,
    };
    let (hidden, published) = (directory.join(part.hidden()), directory.join(published));

    // The hidden name first. Another incarnation may be at the same receipt, and links before it unlinks: so if the
    // hidden name is gone, the final one is there.
    let found = look(&hidden)?;
    match (look(&published)?, found) {
        (Some(_), _) => staged.check_published(root, &published)?,
        (None, None) => return Err(staged.lost(root)),
        (None, Some(found)) => {
            let linked = staged.check_hidden(&hidden, &found, mine.contains(&part.incarnation)).and_then(|()| {
                fs::hard_link(&hidden, &published).map_err(|error| ConnectorError::io("publish", &published, error))
            });
            match linked {
                // Somebody was faster: an incarnation that is about to find out that it is not the last one.
                Err(ConnectorError::Io { source, .. })
                    if matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) =>
                {
                    staged.check_published(root, &published)?;
                }
                linked => linked?,
            }
        }
    }
    Ok(Linked { directory, hidden })
}

impl Staged {
    /// The directory, the part and the final name, if they are such as this sink gives.
    fn names(&self) -> Result<(&str, PartName, &str), String> {
        let split = |path| {
            directory::check(path)?;
            Ok::<_, String>(path.rsplit_once('/').unwrap_or(("", path)))
        };
        let (within, hidden) = split(self.hidden.as_str())?;
        let (published_within, published) = split(self.published.as_str())?;
        match PartName::of_hidden(hidden) {
            Some(part) if within == published_within && part.is_published_as(published) => {
                Ok((within, part, published))
            }
            _ => Err(format!("{:?} and {:?} are not the two names of one part", excerpt(hidden), excerpt(published))),
        }
    }

    fn differs_in_length(&self, found: &fs::Metadata) -> Option<String> {
        if !found.is_file() {
            return Some("it is not a regular file".to_owned());
        }
        (found.len() != self.bytes).then(|| format!("it has {} bytes, and had {}", found.len(), self.bytes))
    }

    /// How a file is not what was staged.
    fn differs(&self, path: &Path, found: &fs::Metadata) -> Result<Option<String>> {
        let by_length = self.differs_in_length(found);
        if by_length.is_some() {
            return Ok(by_length);
        }
        let checksum = checksum(path).map_err(|error| ConnectorError::io("read", path, error))?;
        let differs = format!("{checksum:032x}") != self.xxh3;
        Ok(differs.then(|| "its checksum is another".to_owned()))
    }

    /// Refuses to publish what is not what was staged; without reading it, if `trusted`.
    fn check_hidden(&self, path: &Path, found: &fs::Metadata, trusted: bool) -> Result<()> {
        let why = if trusted { self.differs_in_length(found) } else { self.differs(path, found)? };
        let Some(why) = why else { return Ok(()) };
        Err(ConnectorError::Data {
            at: path.display().to_string(),
            reason: format!(
                "the file was damaged after it was staged, and is not published: {why}. Put it back from a copy; \
                 or go back to an earlier checkpoint, which writes again all rows since then"
            ),
        })
    }

    fn check_published(&self, root: &Path, path: &Path) -> Result<()> {
        let found = look(path)?.ok_or_else(|| self.lost(root))?;
        let Some(why) = self.differs(path, &found)? else { return Ok(()) };
        Err(ConnectorError::Data {
            at: path.display().to_string(),
            reason: format!(
                "a file with this name is there, but not the one that was staged: {why}. It is not overwritten. If it was \
                 changed, put the original back; if it is not of this job, move it away. Then start the job again"
            ),
        })
    }

    fn lost(&self, root: &Path) -> ConnectorError {
        ConnectorError::Data {
            at: root.join(&self.published).display().to_string(),
            reason: format!(
                "published file was removed or lost: the checkpoint says that it has {} rows in {} bytes, but neither it \
                 nor its hidden form {} is there. If it was moved, put it back and start the job again; it can be \
                 moved once the job runs. If it is lost, go back to an earlier checkpoint, which writes again all rows \
                 since then",
                self.rows,
                self.bytes,
                root.join(&self.hidden).display(),
            ),
        }
    }
}

/// What is at a path itself: a symbolic link is not followed.
fn look(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConnectorError::io("look at", path, error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ConnectorError::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn checksum(path: &Path) -> io::Result<u128> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish_128()),
            Ok(read) => hasher.write(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
