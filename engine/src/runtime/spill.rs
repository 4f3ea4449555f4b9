//! The files that state is put into which is too much for memory.
//!
//! ```text
//!   {the system's directory for temporary files, or what Job::spill_to says}
//!     windrow-spill-4711-9f3a…/    of one attempt of a job, made when it is needed, readable by its user only;
//!       │                          locked itself (flock) as long as the process lives
//!       0.arrow  1.arrow  …        batches, each as a compressed IPC stream; gone when the operator has dropped them
//! ```
//!
//! No restart needs them: that goes on from a checkpoint. So nothing is made durable, and what a killed process leaves is
//! removed by the next job with a budget that begins below the same directory: of the directories of its own user there it
//! removes those that it can lock, for nobody uses them. `systemd-tmpfiles`, which removes what is old, leaves alone what is
//! locked. What something removes nevertheless is an error when it is needed; the job goes on from its checkpoint, with a
//! new directory.
//!
//! Anybody may put anything into a directory for temporary files. So nothing that is found there is followed, read or waited
//! for: it is the directory that is locked, and no file in it is opened.
//!
//! Operators are synchronous, so the task waits for the disk; the runtime gives the other tasks of its thread to another
//! one meanwhile.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_ipc::{
    CompressionType,
    reader::StreamReader,
    writer::{IpcWriteOptions, StreamWriter},
};
use tokio::runtime::{Handle, RuntimeFlavor};
use windrow_operators::{
    OperatorError, Result,
    spill::{self, Room, Stored},
};

use crate::metrics::Counters;

/// What the names of directories begin with.
const PREFIX: &str = "windrow-spill-";
/// So many bytes are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// So often a directory is made that somebody sweeps away before it is locked.
const TRIES: usize = 10;

/// A directory of one attempt. It is removed when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct Directory {
    below: PathBuf,
    made: Mutex<Option<Made>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// The directory, locked. The lock goes with the process. Where directories cannot be locked nobody sweeps.
    _lock: Option<File>,
}

impl Directory {
    /// One that will be made below `below`, or where the system has temporary files.
    pub(crate) fn below(below: Option<&Path>) -> Arc<Self> {
        let below = below.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Arc::new(Self { below, made: Mutex::new(None), next: AtomicU64::new(0) })
    }

    /// The same, when what killed processes have left there is gone.
    pub(crate) async fn swept(below: Option<&Path>) -> Arc<Self> {
        let directory = Self::below(below);
        let sweeping = directory.clone();
        // There may be much to remove: not in a thread that others wait for.
        let _ = tokio::task::spawn_blocking(move || sweeping.sweep()).await;
        directory
    }

    /// Removes what killed processes have left. What cannot be removed harms nobody.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.below).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
        let found: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
        if found.is_empty() {
            return;
        }
        // Whose a directory is that this process makes there tells which of the others are its own.
        let Some(own) = self.path().ok().and_then(|path| fs::symlink_metadata(path).ok()) else { return };
        for path in found {
            if let Some(_lock) = lock_left(&path, &own) {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }

    /// The path of a new file.
    fn file(&self) -> io::Result<PathBuf> {
        Ok(self.path()?.join(format!("{}.arrow", self.next.fetch_add(1, Relaxed))))
    }

    /// The directory, which is made when there is none yet.
    fn path(&self) -> io::Result<PathBuf> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *made {
            Some(made) => made,
            none => none.insert(self.make()?),
        };
        Ok(made.path.clone())
    }

    fn make(&self) -> io::Result<Made> {
        fs::create_dir_all(&self.below)?;
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        for _ in 0..TRIES {
            let path = self.below.join(format!("{PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..)));
            builder.create(&path)?;
            match File::open(&path).map(|directory| (directory.try_lock(), directory)) {
                Ok((Ok(()), directory)) if path.exists() => return Ok(Made { path, _lock: Some(directory) }),
                // A sweep has come between, and takes it for one that was left.
                Ok((Ok(()) | Err(TryLockError::WouldBlock), _)) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok((Err(TryLockError::Error(_)), _)) | Err(_) => return Ok(Made { path, _lock: None }),
            }
        }
        Err(io::Error::other("somebody removes every new directory there at once"))
    }

    fn failed(&self, what: &str, error: &io::Error) -> OperatorError {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let path = made.as_ref().map_or(&self.below, |made| &made.path);
        let why = match made.is_some() && error.kind() == io::ErrorKind::NotFound {
            true => "something has removed it while the job used it",
            false => "make place there",
        };
        OperatorError::Spill(format!(
            "state that is too much for memory cannot be {what} {}: {error}: {why}, name another directory with \
             .spill_to(directory), or allow more memory with .memory_budget(bytes)",
            path.display()
        ))
    }
}

/// Locks a directory of the user whose `own` one is; `None` if it is somebody else's, in use, or no directory.
#[cfg(unix)]
fn lock_left(path: &Path, own: &Metadata) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let seen = fs::symlink_metadata(path).ok().filter(|seen| seen.is_dir() && seen.uid() == own.uid())?;
    // If something else has taken its place since: with the dot nothing but a directory is opened, and it must be the same.
    let opened = File::open(path.join(".")).ok()?;
    let is = opened.metadata().ok()?;
    let is_same = (is.dev(), is.ino()) == (seen.dev(), seen.ino());
    (is_same && opened.try_lock().is_ok()).then_some(opened)
}

#[cfg(not(unix))]
fn lock_left(_path: &Path, _own: &Metadata) -> Option<File> {
    None
}

impl Drop for Directory {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(made) = made {
            // What cannot be removed is swept by the next job.
            let _ = fs::remove_dir_all(&made.path);
        }
    }
}

/// The directory, as an operator of one task has it.
pub(crate) struct Shelf {
    directory: Arc<Directory>,
    counters: Arc<Counters>,
}

impl Shelf {
    pub(crate) fn new(directory: Arc<Directory>, counters: Arc<Counters>) -> Self {
        Self { directory, counters }
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.fmt(f)
    }
}

impl Room for Shelf {
    fn store(
        &self,
        _schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>> {
        let failed = |error: io::Error| self.directory.failed("written to", &error);
        let mut open = blocking(|| Writing::new(&self.directory)).map_err(failed)?;
        let mut buffer = Vec::new();
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        for batch in batches {
            let batch = batch?;
            open.stored.bytes += spill::bytes(&batch);
            let start = open.written + buffer.len() as u64;
            // Each is a stream of its own, so that it can be read alone, whatever its dictionaries are.
            let mut writer = StreamWriter::try_new_with_options(buffer, batch.schema_ref(), options.clone())?;
            writer.write(&batch)?;
            buffer = writer.into_inner()?;
            let end = open.written + buffer.len() as u64;
            open.stored.batches.push((start, (end - start) as usize));
            if buffer.len() >= WRITE_BYTES {
                blocking(|| open.write(&mut buffer)).map_err(failed)?;
            }
        }
        blocking(|| open.write(&mut buffer)).map_err(failed)?;
        self.counters.spilled(open.written);
        Ok(Arc::new(open.stored))
    }
}

/// A file that is being written. Dropped half-way it is removed.
struct Writing {
    file: File,
    written: u64,
    stored: StoredFile,
}

impl Writing {
    fn new(directory: &Arc<Directory>) -> io::Result<Self> {
        let path = directory.file()?;
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let stored = StoredFile { path, batches: Vec::new(), bytes: 0, directory: directory.clone() };
        Ok(Self { file, written: 0, stored })
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all(buffer)?;
        self.written += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }
}

/// A file, which is removed when nobody needs it any more.
#[derive(Debug)]
struct StoredFile {
    path: PathBuf,
    /// Where each batch begins, and how many bytes it has.
    batches: Vec<(u64, usize)>,
    /// How many bytes all of them take in memory.
    bytes: usize,
    /// Is there as long as the file.
    directory: Arc<Directory>,
}

impl Stored for StoredFile {
    fn batches(&self) -> usize {
        self.batches.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn read(&self, batch: usize) -> Result<RecordBatch> {
        let missing = || OperatorError::Internal(format!("batch {batch} of {} was asked for", self.path.display()));
        let (start, length) = *self.batches.get(batch).ok_or_else(missing)?;
        let read = || {
            let mut bytes = vec![0; length];
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = blocking(read).map_err(|error: io::Error| self.directory.failed("read from", &error))?;
        let rows = StreamReader::try_new(bytes.as_slice(), None)?.next();
        Ok(rows.ok_or_else(missing)??)
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for the disk, without holding up the other tasks of this thread.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    fn names(below: &Path) -> Vec<String> {
        fs::read_dir(below).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn store(directory: &Arc<Directory>, batches: &[RecordBatch]) -> Result<Arc<dyn Stored>> {
        let counters = Counters::new("window".into(), 1);
        let shelf = Shelf::new(directory.clone(), counters);
        shelf.store(&batches[0].schema(), &mut batches.iter().cloned().map(Ok))
    }

    #[test]
    fn what_is_stored_comes_back_and_goes_with_its_owner() {
        let below = tempfile::tempdir().unwrap();
        let directory = Directory::below(Some(below.path()));
        assert!(names(below.path()).is_empty(), "made when it is needed");
        let batches = [batch(0..10), batch(10..300_000), batch(5..5), batch(7..9)];
        let (one, other) = (store(&directory, &batches).unwrap(), store(&directory, &batches[..1]).unwrap());
        let made = below.path().join(&names(below.path())[0]);
        assert_eq!(names(&made).len(), 2);
        for (at, batch) in batches.iter().enumerate().rev() {
            assert_eq!(one.read(at).unwrap(), *batch);
        }
        assert!(one.read(4).is_err());
        drop(one);
        assert_eq!(names(&made).len(), 1);
        drop(directory);
        assert_eq!(other.read(0).unwrap(), batches[0], "the directory is there as long as a file is needed");
        drop(other);
        assert!(names(below.path()).is_empty());
    }

    #[tokio::test]
    async fn what_is_left_is_swept_and_what_is_in_use_is_not() {
        let below = tempfile::tempdir().unwrap();
        let left = below.path().join("windrow-spill-1-00");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0.arrow"), "half").unwrap();
        fs::create_dir(below.path().join("mine")).unwrap();
        let used = Directory::below(Some(below.path()));
        let stored = store(&used, &[batch(0..3)]).unwrap();
        drop(Directory::swept(Some(below.path())).await);
        assert!(!left.exists());
        assert_eq!(names(below.path()).len(), 2);
        assert_eq!(stored.read(0).unwrap(), batch(0..3));
    }

    /// What a cleaner of old files does to see whether a directory is in use: `systemd-tmpfiles` takes its lock.
    #[test]
    #[cfg(unix)]
    fn a_directory_in_use_is_locked_for_everybody() {
        let below = tempfile::tempdir().unwrap();
        let directory = Directory::below(Some(below.path()));
        let stored = store(&directory, &[batch(0..3)]).unwrap();
        let cleaner = File::open(below.path().join(&names(below.path())[0])).unwrap();
        assert!(matches!(cleaner.try_lock(), Err(TryLockError::WouldBlock)));
        drop((directory, stored));
        assert!(cleaner.try_lock().is_ok());
    }

    /// In a directory that everybody may write to: pipes that never answer, links to what is dear, directories of others.
    #[test]
    #[cfg(unix)]
    fn what_others_have_planted_is_neither_followed_nor_waited_for() {
        use std::{os::unix::fs, process::Command, sync::mpsc, thread, time::Duration};
        let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        let (below, dear) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dear.path().join("file"), "dear").unwrap();
        let at = |name: &str| below.path().join(format!("{PREFIX}{name}"));
        pipe(&at("pipe"));
        fs::symlink(dear.path(), at("link")).unwrap();
        for (name, planted) in [("of-a-pipe", true), ("of-a-link", false)] {
            std::fs::create_dir(at(name)).unwrap();
            let lock = at(name).join("lock");
            if planted { pipe(&lock) } else { fs::symlink(dear.path(), &lock).unwrap() }
        }
        std::fs::create_dir(at("of-another")).unwrap();
        let of_another = fs::chown(at("of-another"), Some(1), None).is_ok();
        let (swept, done) = mpsc::channel();
        let directory = Directory::below(Some(below.path()));
        thread::spawn(move || {
            directory.sweep();
            drop(directory);
            swept.send(()).unwrap();
        });
        done.recv_timeout(Duration::from_secs(20)).expect("it waits for a pipe");
        assert_eq!(std::fs::read(dear.path().join("file")).unwrap(), b"dear");
        let mut left = names(below.path());
        left.sort_unstable();
        let expected = if of_another { &["link", "of-another", "pipe"][..] } else { &["link", "pipe"] };
        assert_eq!(left, expected.iter().map(|name| format!("{PREFIX}{name}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_fails_says_where_and_leaves_nothing() {
        let below = tempfile::tempdir().unwrap();
        let file = below.path().join("a-file");
        fs::write(&file, "").unwrap();
        let error = store(&Directory::below(Some(&file)), &[batch(0..3)]).unwrap_err().to_string();
        assert!(error.contains("a-file") && error.contains(".spill_to(directory)"), "{error}");
        let directory = Directory::below(Some(below.path()));
        let broken = || OperatorError::Internal("broken".into());
        let shelf = Shelf::new(directory.clone(), Counters::new("window".into(), 1));
        let batches = &mut [Ok(batch(0..3)), Err(broken())].into_iter();
        assert!(shelf.store(&batch(0..3).schema(), batches).is_err());
        let stored = store(&directory, &[batch(0..3)]).unwrap();
        let made = below.path().join(names(below.path()).into_iter().find(|name| name.starts_with(PREFIX)).unwrap());
        assert_eq!(names(&made).len(), 1);
        fs::remove_dir_all(&made).unwrap();
        for error in [stored.read(0).unwrap_err(), store(&directory, &[batch(0..3)]).unwrap_err()] {
            let error = error.to_string();
            assert!(
                error.contains(PREFIX) && error.contains("something has removed it while the job used it"),
                "{error}"
            );
        }
    }
}
