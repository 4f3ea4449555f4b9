//! What earlier generations of a job left hidden, and its removal.
//!
//! A job that was killed leaves hidden parts that no checkpoint refers to. They are told from all others by their names
//! alone: the same job, an earlier generation. Files of other jobs, of the same or a later generation, and files that
//! only look alike stay. Only the directories of partitions are searched (`country=DE`), because this sink writes to no
//! others, and never through a symbolic link.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use super::name::PartName;
use crate::{ConnectorError, Incarnation, Result};

/// Removes the hidden parts of earlier generations. Goes on after an error, and returns the first.
pub(super) fn remove_earlier(root: &Path, mine: &Incarnation) -> Result<()> {
    let mut result = Ok(());
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                result = result.and(unless_gone("read", &directory, error));
                continue;
            }
        };
        for entry in entries {
            let visited = entry
                .map_err(|error| ConnectorError::io("read", &directory, error))
                .and_then(|entry| visit(&entry, mine, &mut directories));
            result = result.and(visited);
        }
    }
    result
}

fn visit(entry: &DirEntry, mine: &Incarnation, directories: &mut Vec<PathBuf>) -> Result<()> {
    let (path, name) = (entry.path(), entry.file_name());
    // A name that is not text is not one of ours.
    let Some(name) = name.to_str() else { return Ok(()) };
    let found = match entry.file_type() {
        Ok(found) => found,
        Err(error) => return unless_gone("look at", &path, error),
    };
    if found.is_dir() && name.contains('=') {
        directories.push(path);
    } else if found.is_file()
        && let Some(PartName { incarnation, .. }) = PartName::of_hidden(name)
        && incarnation.job == mine.job
        && incarnation.generation < mine.generation
    {
        return fs::remove_file(&path).or_else(|error| unless_gone("remove", &path, error));
    }
    Ok(())
}

/// An error, unless what was there is not there any more: somebody else cleans too.
fn unless_gone(action: &'static str, path: &Path, error: io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(ConnectorError::io(action, path, error)),
    }
}
