//! One Parquet file being read: its columns by name, a batch of rows at a time, from any row on.
//!
//! ```text
//!   footer (layout) ──► a reader for each row group, of few rows a step
//!                                │
//!                                ├─ too large, or not to be read: forgotten, and read again in smaller steps
//!                                ▼
//!                         steps until there are enough rows ──► Conversion ──► Rows
//! ```
//!
//! A row may take very much more than the file says: what is in a dictionary once may stand in every row. How much is known when a
//! step has been read, so steps are short. Text is read as views, which are not copied before it is known that a batch is not too large.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::{arrow::arrow_reader::ParquetRecordBatchReader, errors::ParquetError};

use super::{
    layout::Layout,
    text::{BATCH_BYTES, KEPT_BYTES, Settings},
};
use crate::{ConnectorError, Position, Rejected, Result, Rows, SplitId};

/// How many rows are read at once, at the most, when they may be of any size.
const STEP: usize = 1024;

/// A Parquet file with a place in it.
pub(super) struct ParquetFile {
    split: SplitId,
    layout: Layout,
    /// The row group that is being read.
    group: usize,
    /// The number of the row behind it, counted from 0.
    group_end: u64,
    reader: Option<ParquetRecordBatchReader>,
    step: usize,
    /// The number of the next row that the reader gives.
    next: u64,
    /// The number of the next row that is given away.
    position: u64,
    batch_rows: usize,
    max_record_bytes: usize,
    /// What is wrong with the file. It stays so.
    damage: Option<String>,
}

impl ParquetFile {
    /// Opens a file at a position, or at its beginning.
    pub(super) fn open(
        split: SplitId,
        position: Option<Position>,
        schema: &SchemaRef,
        settings: &Settings,
    ) -> Result<Self> {
        let layout = Layout::of(&split, schema)?;
        let (batch_rows, max_record_bytes) = (settings.batch_rows, settings.max_record_bytes);
        let position = position.unwrap_or_default().0;
        let (group, group_end) = layout.group_of(position).map_err(|rows| ConnectorError::Data {
            at: split.to_string(),
            reason: format!(
                "reading was to resume at row {position}, but the file has only {rows} rows: it was truncated or replaced \
                 since the checkpoint"
            ),
        })?;
        let (next, reader, damage) = (position, None, None);
        let mut file = Self {
            split,
            layout,
            group,
            group_end,
            reader,
            step: 0,
            next,
            position,
            batch_rows,
            max_record_bytes,
            damage,
        };
        file.step = file.first_step();
        Ok(file)
    }

    /// The number of the next row.
    pub(super) fn position(&self) -> Position {
        Position(self.position)
    }

    /// The next rows, and those that are not what was asked for; `None` at the end of the file. Rows before damage come before its
    /// error.
    pub(super) fn read(&mut self) -> Result<Option<Rows>> {
        let steps = self.next_rows()?;
        let Some(first) = steps.first() else { return Ok(None) };
        let read = guarded(&self.split, || {
            let rows = if steps.len() == 1 { first.clone() } else { concat_batches(&first.schema(), &steps)? };
            let (batch, bad) = self.layout.conversion.convert(&rows)?;
            let rejected = bad.into_iter().map(|(row, reason)| self.reject(&rows, row, reason));
            Ok((batch, rejected.collect::<Result<_, ParquetError>>()?))
        });
        let (batch, rejected) = read.map_err(|error| self.damaged(error))?;
        self.position = self.next;
        let (split, next) = (self.split.clone(), self.position());
        Ok(Some(Rows { split, batch, rejected, passed_over: 0, next, origins: None }))
    }

    /// As many rows as belong into a batch, as the file has them; none at its end.
    fn next_rows(&mut self) -> Result<Vec<RecordBatch>> {
        if let Some(reason) = &self.damage {
            return Err(ConnectorError::Data { at: self.split.to_string(), reason: reason.clone() });
        }
        let (mut steps, mut rows, mut bytes, mut last) = (Vec::new(), 0, 0, 0);
        while rows == 0 || (rows + self.step <= self.batch_rows && bytes + last <= BATCH_BYTES) {
            match self.read_step() {
                Ok(Some(step)) => {
                    last = bytes_of_rows(&step);
                    (rows, bytes) = (rows + step.num_rows(), bytes + last);
                    steps.push(step);
                }
                Ok(None) => break,
                // It comes again.
                Err(_) if rows > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(steps)
    }

    fn read_step(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.next == self.group_end && !self.next_group() {
                return Ok(None);
            }
            let before = self.next + self.layout.rows_of(self.group) - self.group_end;
            let Self { split, layout, group, reader, step, .. } = self;
            let read = guarded(split, || {
                let reader = match reader {
                    Some(reader) => reader,
                    None => reader.insert(layout.reader(*group, before, *step)?),
                };
                reader.next().transpose()?.map(|rows| layout.sound(rows)).transpose()
            });
            let rows = match read {
                Ok(Some(rows)) if self.next + rows.num_rows() as u64 <= self.group_end => rows,
                Ok(_) => {
                    let reason = format!("a row group does not end at row {}, as its footer says", self.group_end);
                    return Err(self.damaged(ConnectorError::Data { at: self.split.to_string(), reason }));
                }
                // Fewer rows may be read up to the damage, or fit into what the library can hold.
                Err(ConnectorError::Data { .. }) if self.step > 1 => {
                    self.shorten(self.step / 16);
                    continue;
                }
                Err(error) => return Err(self.damaged(error)),
            };
            let (count, bytes) = (rows.num_rows() as u64, bytes_of_rows(&rows));
            if bytes > BATCH_BYTES && self.step > 1 {
                let fit = count * BATCH_BYTES / bytes / 2;
                self.shorten((fit as usize).min(self.step / 2));
                continue;
            }
            self.next += count;
            return Ok(Some(rows));
        }
    }

    /// Goes to the next row group that has rows, if there is one.
    fn next_group(&mut self) -> bool {
        self.reader = None;
        while self.next == self.group_end && self.group + 1 < self.layout.groups() {
            self.group += 1;
            self.group_end += self.layout.rows_of(self.group);
        }
        self.step = self.first_step();
        self.next < self.group_end
    }

    /// Steps of equal length make a batch; one, when it is known how large rows are.
    fn first_step(&self) -> usize {
        let steps = if self.layout.is_of_numbers() { 1 } else { self.batch_rows.div_ceil(STEP).max(1) };
        self.batch_rows.div_ceil(steps).min(self.layout.fit(self.group)).max(1)
    }

    fn shorten(&mut self, step: usize) {
        (self.reader, self.step) = (None, step.max(1));
    }

    fn damaged(&mut self, error: ConnectorError) -> ConnectorError {
        self.reader = None;
        let ConnectorError::Data { at, reason } = error else { return error };
        let reason = format!("{reason} (behind row {})", self.next);
        self.damage = Some(reason.clone());
        ConnectorError::Data { at, reason }
    }

    /// A row with its columns as text, as the engine shows those that it rejects.
    fn reject(&self, rows: &RecordBatch, row: usize, reason: String) -> Result<Rejected, ParquetError> {
        let options = FormatOptions::default().with_null("null");
        let columns = rows.schema_ref().fields().iter().zip(rows.columns());
        let values = columns.map(|(field, column)| {
            let value = ArrayFormatter::try_new(column, &options)?;
            Ok(format!("{}={}", field.name(), value.value(row)))
        });
        let mut bytes = values.collect::<Result<Vec<_>, ParquetError>>()?.join(" ").into_bytes();
        let truncated = (bytes.len() > self.max_record_bytes).then_some(bytes.len() as u64);
        if truncated.is_some() {
            bytes.truncate(KEPT_BYTES.min(self.max_record_bytes));
        }
        let position = Some(Position(self.position + row as u64));
        Ok(Rejected { position, bytes: Some(bytes), truncated, ..Rejected::of(reason) })
    }
}

fn bytes_of_rows(rows: &RecordBatch) -> u64 {
    rows.columns().iter().map(bytes_of).sum()
}

/// What values take that nobody else shares, once each has its own copy of its text.
fn bytes_of(values: &ArrayRef) -> u64 {
    match values.data_type() {
        DataType::Utf8View => values.as_string_view().lengths().map(u64::from).sum(),
        DataType::BinaryView => values.as_binary_view().lengths().map(u64::from).sum(),
        DataType::List(_) => bytes_of(values.as_list::<i32>().values()),
        DataType::LargeList(_) => bytes_of(values.as_list::<i64>().values()),
        DataType::Map(..) => values.as_map().entries().columns().iter().map(bytes_of).sum(),
        DataType::Struct(_) => values.as_struct().columns().iter().map(bytes_of).sum(),
        // Fresh from the file: no slice of anything.
        _ => values.get_buffer_memory_size() as u64,
    }
}

/// Calls the library, which panics on some files that are damaged.
pub(super) fn guarded<T>(split: &SplitId, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(ParquetError::External(inner))) => match inner.downcast::<io::Error>() {
            Ok(error) => return Err(ConnectorError::io("read", split.as_str(), *error)),
            Err(other) => other.to_string(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(panic) => said(&*panic),
    };
    Err(ConnectorError::Data { at: split.to_string(), reason: format!("it cannot be read as Parquet: {reason}") })
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
