//! One file of text being read: a bounded buffer over its bytes, its position, and the records between them.

use std::{io, path::Path, sync::Arc};

use arrow::datatypes::{Schema, SchemaRef};
use memchr::memchr;

use super::{format::FileFormat, open::Input};
use crate::{
    ConnectorError, Origins, Position, Rejected, Result, Rows, SplitId,
    format::{Decoder, Format, Frame, MAX_RECORD_BYTES, Span},
};

/// How many bytes are asked for at once.
const CHUNK: usize = 256 << 10;
/// A batch ends after so many bytes of text even if it has few rows, so that long records do not add up.
pub(super) const BATCH_BYTES: u64 = 16 << 20;
/// What is kept of a record that is longer than the limit.
pub(super) const KEPT_BYTES: usize = 1 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What all files of a source have in common.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) format: FileFormat,
    pub(super) batch_rows: usize,
    pub(super) max_record_bytes: usize,
    /// Whether what rows were is kept.
    pub(super) origins: bool,
    /// How many bytes are read at once; tests make it small.
    pub(super) chunk: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let (format, max_record_bytes) = (FileFormat::Text(Format::Json), MAX_RECORD_BYTES);
        Self { format, batch_rows: 8192, max_record_bytes, origins: true, chunk: CHUNK }
    }
}

/// A file of text with a place in it.
pub(super) struct TextFile {
    split: SplitId,
    input: Input,
    decoder: Box<dyn Decoder>,
    settings: Settings,
    buffer: Buffer,
    /// The byte of the file that the unread part of the buffer begins with.
    position: u64,
    /// The number of the line there; unknown when reading began in the middle.
    line: Option<u64>,
    header: Vec<u8>,
    end: End,
    /// The records in the decoder.
    origins: Origins,
}

/// What is behind the buffered bytes.
enum End {
    NotYet,
    File,
    Damage(io::Error),
}

impl TextFile {
    /// Opens a file at a position, or at its beginning.
    pub(super) fn open(
        split: SplitId,
        position: Option<Position>,
        schema: SchemaRef,
        format: Format,
        settings: &Settings,
    ) -> Result<Self> {
        let mut file = Self {
            input: Input::open(Path::new(split.as_str()))?,
            split,
            decoder: format.decoder(schema, settings.max_record_bytes)?,
            settings: settings.clone(),
            buffer: Buffer::default(),
            position: 0,
            line: Some(1),
            header: Vec::new(),
            end: End::NotYet,
            origins: Origins::new(),
        };
        file.skip_byte_order_mark();
        if file.decoder.has_header() {
            file.read_header()?;
        }
        file.go_to(position.unwrap_or_default().0)?;
        Ok(file)
    }

    /// Where the next record begins.
    pub(super) fn position(&self) -> Position {
        Position(self.position)
    }

    /// The next rows and rejected records; `None` at the end of the file. Rows before damage come before its error.
    pub(super) fn read(&mut self) -> Result<Option<Rows>> {
        let start = self.position;
        let mut rejected = Vec::new();
        while self.decoder.len() + rejected.len() < self.settings.batch_rows && self.position - start < BATCH_BYTES {
            match self.decoder.frame(self.buffer.unread(), matches!(self.end, End::File)) {
                Frame::Record(span) => {
                    let record = &self.buffer.unread()[..span.end];
                    match self.decoder.push(record) {
                        Ok(()) if self.settings.origins => {
                            self.origins.push(Position(self.position), self.line, record, None);
                        }
                        Ok(()) => {}
                        Err(reason) => rejected.push(self.reject(span.end, reason)),
                    }
                    self.pass(span);
                }
                Frame::Blank(span) => self.pass(span),
                Frame::Bad(span, reason) => {
                    rejected.push(self.reject(span.end, reason.to_string()));
                    self.pass(span);
                }
                Frame::TooLong => match self.pass_long_line() {
                    Some(record) => rejected.push(record),
                    None => break,
                },
                Frame::More if self.fill() => {}
                Frame::More => break,
            }
        }
        if self.position == start {
            return match &self.end {
                End::Damage(error) => Err(self.input.explain(error)),
                End::File | End::NotYet => Ok(None),
            };
        }
        let batch = self.decoder.flush()?;
        let (next, origins) = (Position(self.position), self.settings.origins.then(|| self.origins.take()));
        Ok(Some(Rows { split: self.split.clone(), batch, rejected, passed_over: 0, next, origins }))
    }

    /// Up to `count` records that frame and parse, for the inference of a schema.
    pub(super) fn sample(
        split: SplitId,
        count: usize,
        format: Format,
        settings: &Settings,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        // Without columns the decoder takes every record that is well formed.
        let mut file = Self::open(split, None, Arc::new(Schema::empty()), format, settings)?;
        let mut records = Vec::new();
        while records.len() < count && file.position < BATCH_BYTES {
            match file.decoder.frame(file.buffer.unread(), matches!(file.end, End::File)) {
                Frame::Record(span) => {
                    let record = &file.buffer.unread()[..span.end];
                    if file.decoder.push(record).is_ok() {
                        records.push(record.to_vec());
                    }
                    file.pass(span);
                }
                Frame::Blank(span) | Frame::Bad(span, _) => file.pass(span),
                Frame::TooLong if file.pass_long_line().is_some() => {}
                Frame::More if file.fill() => {}
                Frame::More | Frame::TooLong => break,
            }
        }
        match &file.end {
            End::Damage(error) if records.is_empty() => Err(file.input.explain(error)),
            _ => Ok((file.header, records)),
        }
    }

    /// A mark at the beginning says that the text is UTF-8, which we know.
    fn skip_byte_order_mark(&mut self) {
        while self.buffer.unread().len() < BYTE_ORDER_MARK.len() && self.fill() {}
        if self.buffer.unread().starts_with(BYTE_ORDER_MARK) {
            self.pass(Span { end: 0, next: BYTE_ORDER_MARK.len(), lines: 0 });
        }
    }

    /// Reads the names of the columns. An empty file has none, and no rows that would need them.
    fn read_header(&mut self) -> Result<()> {
        loop {
            match self.decoder.frame(self.buffer.unread(), matches!(self.end, End::File)) {
                Frame::Record(span) => {
                    let header = self.buffer.unread()[..span.end].to_vec();
                    self.decoder.header(&header).map_err(|reason| self.data(reason))?;
                    self.header = header;
                    self.pass(span);
                    return Ok(());
                }
                Frame::Blank(span) => self.pass(span),
                Frame::Bad(_, reason) => return Err(self.data(format!("the header is no CSV record: {reason}"))),
                Frame::TooLong => {
                    let limit = self.settings.max_record_bytes;
                    return Err(self.data(format!("the header is longer than max_record_bytes ({limit})")));
                }
                Frame::More if self.fill() => {}
                Frame::More => {
                    return match &self.end {
                        End::Damage(error) => Err(self.input.explain(error)),
                        End::File | End::NotYet => Ok(()),
                    };
                }
            }
        }
    }

    /// Goes to where a former reader stopped. Position 0 is the beginning, whatever was read of it already.
    fn go_to(&mut self, target: u64) -> Result<()> {
        if target == 0 || target == self.position {
            return Ok(());
        }
        if target < self.position {
            let reason = format!("reading was to resume at byte {target}, within the header: the file was replaced");
            return Err(self.data(reason));
        }
        self.line = None;
        if self.input.seek(target)? {
            self.buffer.clear();
            self.position = target;
            self.end = End::NotYet;
            return Ok(());
        }
        // A compressed file has no other way than to decompress what lies before.
        while self.position < target {
            let passed = (self.buffer.unread().len() as u64).min(target - self.position);
            self.buffer.consume(passed as usize);
            self.position += passed;
            if self.position < target && !self.fill() {
                return Err(match &self.end {
                    End::Damage(error) => self.input.explain(error),
                    End::File | End::NotYet => self.input.beyond(target, self.position),
                });
            }
        }
        Ok(())
    }

    fn reject(&self, end: usize, reason: String) -> Rejected {
        let bytes = Some(self.buffer.unread()[..end].to_vec());
        Rejected { position: Some(Position(self.position)), line: self.line, bytes, ..Rejected::of(reason) }
    }

    fn pass(&mut self, span: Span) {
        self.buffer.consume(span.next);
        self.position += span.next as u64;
        self.line = self.line.map(|line| line + span.lines);
    }

    /// Passes a line that is longer than the limit, in bounded memory, and rejects it. `None` if the file is damaged
    /// within: then nobody knows where the next record begins.
    fn pass_long_line(&mut self) -> Option<Rejected> {
        let limit = self.settings.max_record_bytes;
        let mut record = self.reject(limit.min(KEPT_BYTES).min(self.buffer.unread().len()), String::new());
        let mut passed = 0;
        loop {
            let unread = self.buffer.unread();
            let newline = memchr(b'\n', unread);
            let length = newline.map_or(unread.len(), |at| at + 1);
            self.buffer.consume(length);
            passed += length as u64;
            if newline.is_some() {
                break;
            }
            if !self.fill() {
                match self.end {
                    End::Damage(_) => return None,
                    End::File | End::NotYet => break,
                }
            }
        }
        self.position += passed;
        self.line = self.line.map(|line| line + 1);
        record.reason =
            format!("the record is longer than max_record_bytes ({limit}): {passed} bytes with its line end");
        record.truncated = Some(passed);
        Some(record)
    }

    /// Reads more bytes. False if there is nothing new to know: the end was known already, or damage is in the way.
    fn fill(&mut self) -> bool {
        if !matches!(self.end, End::NotYet) {
            return false;
        }
        match self.input.read(self.buffer.room(self.settings.chunk)) {
            Ok(0) => self.end = End::File,
            Ok(read) => self.buffer.filled(read),
            Err(error) => {
                self.end = End::Damage(error);
                return false;
            }
        }
        true
    }

    fn data(&self, reason: String) -> ConnectorError {
        ConnectorError::Data { at: self.split.to_string(), reason }
    }
}

/// Bytes that were read from the file and not yet consumed. It holds one record and one chunk at most.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Room for `chunk` bytes behind the unread ones.
    fn room(&mut self, chunk: usize) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = self.end + chunk;
        if self.bytes.len() < wanted || self.bytes.len() > 4 * wanted {
            // The second case: a record of megabytes has passed, and its memory goes back.
            self.bytes.resize(wanted, 0);
            self.bytes.shrink_to(2 * wanted);
        }
        &mut self.bytes[self.end..wanted]
    }

    fn filled(&mut self, count: usize) {
        self.end += count;
    }
}
