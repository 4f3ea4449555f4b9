//! Where each thing lies below the root of a job, and what may lie there.
//!
//! ```text
//!   {root}/{job}/LOCK                            local stores: held while the process lives
//!                gen/{g:020}                     who started the job: the fence of processes
//!                ckpt/{e:020}-{g}/s/{op}/…       segments of state
//!                ckpt/{e:020}-{g}/MANIFEST       the checkpoint is prepared
//!                epoch/{e:020}                   the checkpoint is decided
//!                done/{e:020}                    what it wrote is visible
//!                savepoint/{name}                a checkpoint to keep
//! ```
//!
//! Names are fixed-width, so that the order of names is the order of numbers.

use std::fmt;

use object_store::path::{Path, PathPart};
use serde::{Deserialize, Serialize};
use windrow_connectors::sink::Epoch;

use super::error::CheckpointError;

pub(super) const LOCK: &str = "LOCK";
pub(super) const GENERATIONS: &str = "gen";
pub(super) const CHECKPOINTS: &str = "ckpt";
pub(super) const EPOCHS: &str = "epoch";
pub(super) const DONE: &str = "done";
pub(super) const SAVEPOINTS: &str = "savepoint";
pub(super) const MANIFEST: &str = "MANIFEST";

const LONGEST_PATH: usize = 1024;
/// File systems allow 255 bytes in a name; a staged file has a few more than its final name.
const LONGEST_NAME: usize = 200;

/// The folder of a checkpoint: its number, and the generation that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Folder {
    pub(crate) epoch: Epoch,
    pub(crate) generation: u64,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CHECKPOINTS}/{:020}-{}", self.epoch.0, self.generation)
    }
}

impl Folder {
    /// Reads `{e:020}-{g}`, in exactly the form in which it is written.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (epoch, generation) = name.split_once('-')?;
        let folder = Self { epoch: Epoch(number(epoch)?), generation: generation.parse().ok()? };
        (folder.to_string().strip_prefix("ckpt/") == Some(name)).then_some(folder)
    }

    pub(super) fn manifest(self) -> String {
        format!("{self}/{MANIFEST}")
    }
}

/// Folders stand in records as the text they are on disk.
impl Serialize for Folder {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Folder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let folder = text.strip_prefix("ckpt/").and_then(Self::parse);
        folder.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not the folder of a checkpoint")))
    }
}

/// A number of 20 digits.
pub(super) fn number(name: &str) -> Option<u64> {
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

pub(super) fn numbered(folder: &str, number: u64) -> String {
    format!("{folder}/{number:020}")
}

/// The folder of a job below the root that the user gave. Injective, and always one step down.
pub(super) fn job_folder(job: &str) -> Result<Path, CheckpointError> {
    let refused = |reason: &str| CheckpointError::Location { location: job.into(), reason: reason.into() };
    if job.is_empty() {
        return Err(refused("a job with checkpoints needs a name: its checkpoints lie in a folder of that name"));
    }
    let part = PathPart::from(job);
    if part.as_ref().len() > LONGEST_NAME {
        return Err(refused("the name of the job, which names the folder of its checkpoints, is over 200 bytes long"));
    }
    Ok(Path::from_iter([part]))
}

/// The path of a segment that is about to be written. `tag` is random: nobody else writes to it.
pub(super) fn segment(folder: Folder, operator: &str, task: usize, tag: u64) -> String {
    // The folder of the operator is for people; that it is the right segment rests on the tag. So it may be shortened.
    let kept = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let operator: String = operator.chars().take(80).map(kept).collect();
    format!("{folder}/s/op-{operator}/{task:03}-{tag:016x}")
}

/// Where the segment at `path` lies, if it is a path that a manifest may name: below the job's root, in the folder of a
/// checkpoint, and written in one way only. The error says what is wrong.
pub(super) fn segment_folder(path: &str) -> Result<Folder, &'static str> {
    if path.len() > LONGEST_PATH {
        return Err("its path is over 1024 bytes long");
    }
    // Before anything else, because a backslash is a separator on some systems.
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte)) {
        return Err("its path has a character that no path of a checkpoint has");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err("its path is absolute or leaves the folder of the job");
    }
    match parts.as_slice() {
        [CHECKPOINTS, folder, "s", _, ..] => Folder::parse(folder).ok_or("its path is not in a checkpoint's folder"),
        _ => Err("its path is not that of a segment in a checkpoint's folder"),
    }
}

/// Whether a savepoint may be called `name`.
pub(super) fn check_savepoint(name: &str) -> Result<(), CheckpointError> {
    let reason = if name.is_empty() || name == "." || name == ".." {
        "it needs a name"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        "only letters, digits and _ . - can be used"
    } else if name.len() > LONGEST_NAME {
        "it is over 200 bytes long"
    } else {
        return Ok(());
    };
    Err(CheckpointError::Name { name: name.into(), reason })
}
