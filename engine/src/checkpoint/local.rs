//! What a store on the local disk has beside objects: a directory that others cannot read, a lock that ends with the
//! process, and leftovers of writes that a crash interrupted.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use object_store::{local::LocalFileSystem, path::Path as ObjectPath};

use super::{error::CheckpointError, names};

type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// How often a lock that somebody has is tried again, and after how long: a fifth of a second in all.
const LOCK_TRIES: u32 = 40;
const LOCK_AGAIN: Duration = Duration::from_millis(5);

/// The directory of a job.
#[derive(Debug)]
pub(super) struct LocalRoot {
    directory: PathBuf,
}

impl LocalRoot {
    /// The directory of the job `job` below `parent`, and the store whose root is `parent`. Makes the directories, for
    /// this user only.
    pub(super) fn create(parent: &Path, job: &ObjectPath) -> Result<(LocalFileSystem, Self)> {
        make(parent)?;
        let (store, root) = Self::open(parent, job)?;
        make(&root.directory)?;
        for folder in [names::GENERATIONS, names::CHECKPOINTS, names::EPOCHS, names::DONE, names::SAVEPOINTS] {
            make(&root.directory.join(folder))?;
        }
        Ok((store, root))
    }

    /// As [`LocalRoot::create`], but makes nothing.
    pub(super) fn open(parent: &Path, job: &ObjectPath) -> Result<(LocalFileSystem, Self)> {
        let io = |error| CheckpointError::io("open", parent.display().to_string(), error);
        // Without the flush a file that was written can be gone after a power cut.
        let store = LocalFileSystem::new_with_prefix(parent).map_err(io)?.with_fsync(true).with_automatic_cleanup(true);
        let directory = store.path_to_filesystem(job).map_err(io)?;
        Ok((store, Self { directory }))
    }

    pub(super) fn shown(&self) -> String {
        self.directory.display().to_string()
    }

    /// What the user should know about the directory.
    pub(super) fn warnings(&self) -> Vec<String> {
        let open = self.directory.ancestors().take(2).filter(|directory| world_writable(directory));
        let warning = |directory: &Path| {
            format!(
                "{} can be written by every user of this machine, and whoever can write checkpoints can change what the \
                 job computes: chmod o-w {0}",
                directory.display()
            )
        };
        open.map(warning).collect()
    }

    /// Takes the lock of the job. It is held until the file is dropped, and ends with the process however that ends.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.directory.join(names::LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| CheckpointError::file("open", &path, error))?;
        let mut tries = LOCK_TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // A process that another thread is just starting has a copy of every open file until it runs its program, also of
                // a lock that was given up in this moment.
                Err(TryLockError::WouldBlock) if tries > 0 => thread::sleep(LOCK_AGAIN),
                Err(TryLockError::WouldBlock) => {
                    return Err(CheckpointError::Locked { path: path.display().to_string() });
                }
                Err(TryLockError::Error(error)) => return Err(CheckpointError::file("lock", &path, error)),
            }
            tries -= 1;
        }
    }

    /// Flushes the entries of `folder`, if it is there.
    pub(super) fn sync(&self, folder: &str) -> Result<()> {
        let path = self.directory.join(folder);
        match sync(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CheckpointError::file("flush", &path, error)),
            _ => Ok(()),
        }
    }

    /// Removes half-written files, which no listing shows. Only for who holds the lock: nobody else is writing, except
    /// that the last write of an incarnation that was dropped in this process may still be ending. What goes meanwhile is
    /// gone.
    pub(super) fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        let mut folders = vec![self.directory.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|error| CheckpointError::file("list", &folder, error))?,
            };
            for entry in entries {
                let entry = entry.map_err(|error| CheckpointError::file("list", &folder, error))?;
                let kind = entry.file_type().map_err(|error| CheckpointError::file("list", &entry.path(), error))?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() && is_staged(&entry.file_name()) {
                    match fs::remove_file(entry.path()) {
                        Ok(()) => swept += 1,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(CheckpointError::file("delete", &entry.path(), error)),
                    }
                }
            }
        }
        Ok(swept)
    }
}

/// `object_store` writes `name` as `name#1` before it links it to its name.
fn is_staged(name: &OsStr) -> bool {
    let digits = |suffix: &str| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit());
    name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, suffix)| digits(suffix))
}

/// Makes a directory and what is missing above it, for this user only, and flushes what was made.
fn make(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if parent != directory {
        make(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        // Two starts at once.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(CheckpointError::file("create", directory, error)),
        Ok(()) => sync(parent).map_err(|error| CheckpointError::file("flush", parent, error)),
    }
}

/// A name is an entry of its directory: it survives a power cut once the directory has reached the disk.
fn sync(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and `object_store` does not flush it either.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn world_writable(directory: &Path) -> bool {
    #[cfg(unix)]
    {
        let mode = fs::metadata(directory).map(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()));
        mode.is_ok_and(|mode| mode & 0o002 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        false
    }
}
