//! The bytes of a file, decompressed by the ending of its name, and what can be wrong with them.

use std::{
    fs,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::{ConnectorError, Result};

/// How much of a compressed file is read at once.
const COMPRESSED_CHUNK: usize = 64 << 10;

/// A file open for reading.
pub(super) struct Input {
    path: PathBuf,
    bytes: Bytes,
    /// The decompressed bytes that were read.
    read: u64,
}

enum Bytes {
    Plain(fs::File),
    Gzip(Box<MultiGzDecoder<BufReader<fs::File>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<fs::File>>>),
}

impl Input {
    /// Opens a regular file. Anything else is refused by name: a pipe would block the whole task, and a directory has
    /// no bytes. Decompression streams, so a small file that expands to a huge one costs time and not memory; zstd
    /// refuses windows over 128 MiB by itself.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // Looked at before it is opened, because opening a pipe without a writer blocks already.
        let found = fs::metadata(path).map_err(|error| ConnectorError::io("open", path, error))?;
        check_regular(path, &found)?;
        let file = fs::File::open(path).map_err(|error| ConnectorError::io("open", path, error))?;
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let buffered = |file| BufReader::with_capacity(COMPRESSED_CHUNK, file);
        let bytes = match ending.to_ascii_lowercase().as_str() {
            "gz" => Bytes::Gzip(Box::new(MultiGzDecoder::new(buffered(file)))),
            "zst" => {
                let decoder = zstd::Decoder::with_buffer(buffered(file));
                Bytes::Zstd(Box::new(decoder.map_err(|error| ConnectorError::io("decompress", path, error))?))
            }
            _ => Bytes::Plain(file),
        };
        let input = Self { path: path.to_path_buf(), bytes, read: 0 };
        if found.len() == 0
            && let Some(compression) = input.compression()
        {
            return Err(input.damaged(compression, "the file is empty; it was cut off, or is not compressed"));
        }
        Ok(input)
    }

    /// Reads some bytes; none at the end of the file.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.bytes {
                Bytes::Plain(file) => file.read(buffer),
                Bytes::Gzip(decoder) => decoder.read(buffer),
                Bytes::Zstd(decoder) => decoder.read(buffer),
            };
            match read {
                Ok(read) => {
                    self.read += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes to a byte without reading what is before it: true if this file can. The byte lies within the file.
    pub(super) fn seek(&mut self, position: u64) -> Result<bool> {
        let Bytes::Plain(file) = &mut self.bytes else { return Ok(false) };
        let size = file.metadata().map_err(|error| ConnectorError::io("look at", &self.path, error))?.len();
        if position > size {
            return Err(self.beyond(position, size));
        }
        file.seek(SeekFrom::Start(position)).map_err(|error| ConnectorError::io("seek in", &self.path, error))?;
        self.read = position;
        Ok(true)
    }

    /// The error for a position that the file does not reach any more.
    pub(super) fn beyond(&self, position: u64, size: u64) -> ConnectorError {
        let decompressed = if self.compression().is_some() { "decompressed " } else { "" };
        ConnectorError::Data {
            at: self.path.display().to_string(),
            reason: format!(
                "reading was to resume at byte {position}, but the file has only {size} {decompressed}bytes: it was \
                 truncated or replaced since the checkpoint"
            ),
        }
    }

    /// The error for a failed read.
    pub(super) fn explain(&self, error: &io::Error) -> ConnectorError {
        match (error.raw_os_error(), self.compression()) {
            (None, Some(compression)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.damaged(compression, "the file is cut off")
            }
            (None, Some(compression)) => self.damaged(compression, &format!("the file is corrupt ({error})")),
            (Some(code), _) => ConnectorError::io("read", &self.path, io::Error::from_raw_os_error(code)),
            (None, None) => ConnectorError::io("read", &self.path, io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn damaged(&self, compression: &str, what: &str) -> ConnectorError {
        ConnectorError::Data {
            at: self.path.display().to_string(),
            reason: format!("{what}: {compression} decompression stopped at decompressed byte {}", self.read),
        }
    }

    fn compression(&self) -> Option<&'static str> {
        match self.bytes {
            Bytes::Plain(_) => None,
            Bytes::Gzip(_) => Some("gzip"),
            Bytes::Zstd(_) => Some("zstd"),
        }
    }
}

/// Refuses everything but regular files, by name.
pub(super) fn check_regular(path: &Path, found: &fs::Metadata) -> Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let path = path.display();
    Err(ConnectorError::Config(if found.is_dir() {
        format!("{path} is a directory, not a file: to read the files in it, say {path}/*")
    } else {
        format!("{path} is not a regular file: pipes, sockets and devices cannot be read from a position")
    }))
}
