//! The bytes of a Parquet file for the library, and the calls of it.
//!
//! The library panics on some files that are damaged, believes lengths that are longer than the file, and makes text of what the
//! system refuses, which may go away by itself. All of that is dealt with here.

use std::{
    any::Any,
    fs,
    io::{self, BufReader, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::open::check_regular;
use crate::{ConnectorError, Result, SplitId};

/// A file that is open for the library.
#[derive(Clone)]
pub(super) struct Pages {
    split: SplitId,
    file: Arc<fs::File>,
    refused: Refused,
}

/// What the system has refused last.
#[derive(Clone, Default)]
struct Refused(Arc<Mutex<Option<io::Error>>>);

impl Pages {
    pub(super) fn open(split: &SplitId) -> Result<Self> {
        let path = Path::new(split.as_str());
        let found = fs::metadata(path).map_err(|error| ConnectorError::io("open", path, error))?;
        check_regular(path, &found)?;
        let file = fs::File::open(path).map_err(|error| ConnectorError::io("open", path, error))?;
        Ok(Self::of(split, file))
    }

    fn of(split: &SplitId, file: fs::File) -> Self {
        Self { split: split.clone(), file: Arc::new(file), refused: Refused::default() }
    }

    /// Calls the library. The error says that the system has refused something, or what is wrong with the file.
    pub(super) fn call<T>(&self, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
        let reason = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => said(&*panic),
        };
        Err(match self.refused.take() {
            Some(refused) => ConnectorError::io("read", self.split.as_str(), refused),
            None => self.wrong(format!("it cannot be read as Parquet: {reason}")),
        })
    }

    /// The error for what is wrong with the file.
    pub(super) fn wrong(&self, reason: String) -> ConnectorError {
        ConnectorError::Data { at: self.split.to_string(), reason }
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Pages {
    type T = Noted<BufReader<fs::File>>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let inner = self.file.get_read(start).inspect_err(|error| self.refused.note(error))?;
        Ok(Noted { inner, refused: self.refused.clone() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // Room for so many bytes is made before they are read.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes from byte {start} on are more than there are")));
        }
        self.file.get_bytes(start, length).inspect_err(|error| self.refused.note(error))
    }
}

/// Reads, and remembers what the system refuses.
pub(super) struct Noted<R> {
    inner: R,
    refused: Refused,
}

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| self.refused.keep(error))
    }
}

impl Refused {
    fn note(&self, error: &ParquetError) {
        if let ParquetError::External(error) = error
            && let Some(error) = error.downcast_ref::<io::Error>()
        {
            self.keep(error);
        }
    }

    fn keep(&self, error: &io::Error) {
        let same = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(same);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(path: &str) -> Pages {
        Pages::of(&SplitId::new(path), fs::File::open(path).unwrap())
    }

    /// Nothing is at the beginning of a process's memory, which Linux shows as a file.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_refuses_is_not_the_fault_of_the_file() {
        let pages = pages("/proc/self/mem");
        let read = || -> Result<(), ParquetError> {
            let mut byte = [0];
            let refused = pages.get_read(0)?.read_exact(&mut byte).unwrap_err();
            // As the library does it.
            Err(ParquetError::General(refused.to_string()))
        };
        let error = pages.call(read).unwrap_err();
        assert!(matches!(error, ConnectorError::Io { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot read /proc/self/mem: "), "{error}");
        let other = pages.call(|| Err::<(), _>(ParquetError::General("odd".into()))).unwrap_err();
        assert_eq!(other.to_string(), "/proc/self/mem: it cannot be read as Parquet: Parquet error: odd");
    }

    #[test]
    fn no_room_is_made_for_what_is_not_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"seven..").unwrap();
        let pages = pages(file.path().to_str().unwrap());
        assert_eq!(pages.get_bytes(2, 5).unwrap(), &b"ven.."[..]);
        for (start, length) in [(3, 5), (0, usize::MAX), (u64::MAX, 1)] {
            assert!(matches!(pages.get_bytes(start, length), Err(ParquetError::EOF(_))));
        }
    }
}
