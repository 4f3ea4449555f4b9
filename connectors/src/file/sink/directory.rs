//! Directories below the root of a sink: created, made durable, and never left through a symbolic link.
//!
//! The names of directories come from data, and the paths in receipts from a file that somebody may have edited. So a
//! path below the root is text of a few harmless characters ([`check`]), and before it is used every directory on it is
//! looked at: a symbolic link would lead out of the root. (The standard library cannot open a file relative to a
//! directory, so who may rename directories below the root while a job runs can still win a race. The root belongs to
//! the job's user; so does that risk.) The root itself may be a link: the user chose it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{ConnectorError, Result, format::excerpt};

/// Refuses text that is not a path of plain names: absolute, with `.` or `..`, or with characters that this sink never
/// writes. The path is relative to the root and has slashes on every system.
pub(super) fn check(relative: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-=%".contains(&byte);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(is_plain);
    match relative.split('/').all(is_name) {
        true => Ok(()),
        false => Err(format!("{:?} is not a path below the directory of the sink", excerpt(relative))),
    }
}

/// The path of a directory below the root; every directory on the way is there and is no symbolic link.
pub(super) fn existing(root: &Path, relative: &str) -> Result<PathBuf> {
    let mut path = root.to_path_buf();
    for name in names(relative) {
        path.push(name);
        check_directory(&path)?;
    }
    Ok(path)
}

/// As [`existing`], for one that is created where it is missing. The root is not.
pub(super) fn created(root: &Path, relative: &str) -> Result<PathBuf> {
    let mut path = root.to_path_buf();
    for name in names(relative) {
        path.push(name);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_directory(&path)?,
            Err(error) => return Err(ConnectorError::io("create", path, error)),
        }
    }
    Ok(path)
}

/// Creates the root, and makes durable that it is there.
pub(super) fn create_root(root: &Path) -> Result<()> {
    let missing: Vec<&Path> = root.ancestors().take_while(|path| named(path) && !path.exists()).collect();
    fs::create_dir_all(root).map_err(|error| ConnectorError::io("create", root, error))?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Makes durable what is in the directories, and that they are there: each of them and all on the way from the root.
///
/// Not only those that this task created. Another task may have created one a moment ago for rows of a later epoch,
/// and has no reason yet to make it durable.
pub(super) fn sync_below<'a>(root: &Path, relative: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut all = BTreeSet::from([root.to_path_buf()]);
    for directory in relative {
        let mut path = root.to_path_buf();
        for name in names(directory) {
            path.push(name);
            all.insert(path.clone());
        }
    }
    // The deepest first: a directory is durable before the entry that leads to it.
    all.iter().rev().try_for_each(|path| sync(path))
}

/// Makes the entries of a directory durable.
pub(super) fn sync(directory: &Path) -> Result<()> {
    let directory = if named(directory) { directory } else { Path::new(".") };
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| ConnectorError::io("make durable", directory, error))
}

/// The names on a relative path; none for the root itself, which is the empty text.
fn names(relative: &str) -> impl Iterator<Item = &str> {
    relative.split('/').filter(|name| !name.is_empty())
}

/// Whether a path says anything: the parent of `out` is the empty path.
fn named(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn check_directory(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| ConnectorError::io("open", path, error))?;
    if found.is_dir() {
        return Ok(());
    }
    let what = if found.is_symlink() { "a symbolic link" } else { "no directory" };
    Err(ConnectorError::Data {
        at: path.display().to_string(),
        reason: format!("this is {what}, where a file sink needs a directory of its own: remove it or move it away"),
    })
}
