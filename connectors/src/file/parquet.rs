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

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, SchemaRef},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::{
    convert::shown,
    layout::Layout,
    text::{BATCH_BYTES, KEPT_BYTES, Settings},
};
use crate::{ConnectorError, Position, Rejected, Result, Rows, SplitId};

/// How many rows are read at once, at the most, when they may be of any size.
const STEP: usize = 1024;
/// The same with text within lists, of which each row gets a copy when it is read.
const DEEP_STEP: usize = 64;
/// After so many steps it is tried whether longer ones are small enough again.
const PATIENCE: u32 = 8;

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
    /// How many steps of this length there have been.
    since: u32,
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
            since: 0,
            next,
            position,
            batch_rows,
            max_record_bytes,
            damage,
        };
        file.step = file.full_step();
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
        let read = self.layout.pages.call(|| {
            let rows = if steps.len() == 1 { first.clone() } else { concat_batches(&first.schema(), &steps)? };
            let (batch, bad) = self.layout.conversion.convert(&rows)?;
            let rejected = bad.into_iter().map(|(row, reason)| self.reject(&rows, row, reason));
            Ok((batch, rejected.collect()))
        });
        let (batch, rejected) = read.map_err(|error| self.damaged(error, self.position))?;
        self.position = self.next;
        let (split, next) = (self.split.clone(), self.position());
        Ok(Some(Rows { split, batch, rejected, passed_over: 0, next, origins: None }))
    }

    /// As many rows as belong into a batch, as the file has them; none at its end.
    fn next_rows(&mut self) -> Result<Vec<RecordBatch>> {
        if let Some(reason) = &self.damage {
            return Err(self.layout.pages.wrong(reason.clone()));
        }
        let (mut steps, mut rows, mut bytes, mut last) = (Vec::new(), 0, 0, 0);
        while self.next < self.group_end || self.next_group() {
            if rows > 0 && (rows + self.step > self.batch_rows || bytes + last > BATCH_BYTES) {
                break;
            }
            match self.read_step() {
                Ok(step) => {
                    last = bytes_of(&step);
                    (rows, bytes) = (rows + step.num_rows(), bytes + last);
                    steps.push(step);
                    self.lengthen(last);
                }
                // It comes again.
                Err(_) if rows > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(steps)
    }

    fn read_step(&mut self) -> Result<RecordBatch> {
        loop {
            let before = self.next + self.layout.rows_of(self.group) - self.group_end;
            let Self { layout, group, reader, step, .. } = self;
            let read = layout.pages.call(|| {
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
                    return Err(self.damaged(self.layout.pages.wrong(reason), self.next));
                }
                // Fewer rows may be read up to the damage, or fit into what the library can hold.
                Err(ConnectorError::Data { .. }) if self.step > 1 => {
                    self.go_by(self.step / 16);
                    continue;
                }
                Err(error) => return Err(self.damaged(error, self.next)),
            };
            let (count, bytes) = (rows.num_rows() as u64, bytes_of(&rows));
            if bytes > BATCH_BYTES && self.step > 1 {
                let fit = count * BATCH_BYTES / bytes / 2;
                self.go_by((fit as usize).min(self.step / 2));
                continue;
            }
            self.next += count;
            return Ok(rows);
        }
    }

    /// Goes to the next row group that has rows, if there is one.
    fn next_group(&mut self) -> bool {
        while self.next == self.group_end && self.group + 1 < self.layout.groups() {
            self.group += 1;
            self.group_end += self.layout.rows_of(self.group);
        }
        self.go_by(self.full_step());
        self.next < self.group_end
    }

    /// Steps of equal length make a batch; one, when it is known how large rows are.
    fn full_step(&self) -> usize {
        let at_once = match () {
            () if self.layout.is_of_numbers() => self.batch_rows,
            () if self.layout.has_deep_text() => DEEP_STEP,
            () => STEP,
        };
        let steps = self.batch_rows.div_ceil(at_once.max(1)).max(1);
        self.batch_rows.div_ceil(steps).min(self.layout.fit(self.group)).max(1)
    }

    /// From here on the reader takes other steps.
    fn go_by(&mut self, step: usize) {
        (self.reader, self.step, self.since) = (None, step.max(1), 0);
    }

    /// After some small steps the large row that made them so is behind.
    fn lengthen(&mut self, bytes: u64) {
        self.since += 1;
        let full = self.full_step();
        if self.step < full && self.since >= PATIENCE && bytes <= BATCH_BYTES / 4 {
            self.go_by((2 * self.step).min(full));
        }
    }

    fn damaged(&mut self, error: ConnectorError, from: u64) -> ConnectorError {
        self.reader = None;
        let ConnectorError::Data { at, reason } = error else { return error };
        let reason = format!("{reason} (from row {from} on, counted from 0)");
        self.damage = Some(reason.clone());
        ConnectorError::Data { at, reason }
    }

    /// A row with its columns as text, as the engine shows those that it rejects.
    fn reject(&self, rows: &RecordBatch, row: usize, reason: String) -> Rejected {
        let columns = rows.schema_ref().fields().iter().zip(rows.columns());
        let values = columns.map(|(field, column)| format!("{}={}", field.name(), shown(column, row)));
        let mut bytes = values.collect::<Vec<_>>().join(" ").into_bytes();
        let truncated = (bytes.len() > self.max_record_bytes).then_some(bytes.len() as u64);
        if truncated.is_some() {
            bytes.truncate(KEPT_BYTES.min(self.max_record_bytes));
        }
        let position = Some(Position(self.position + row as u64));
        Rejected { position, bytes: Some(bytes), truncated, ..Rejected::of(reason) }
    }
}

/// What rows take that come fresh from the file, once each has its own copy of its text.
fn bytes_of(rows: &RecordBatch) -> u64 {
    let bytes = |values: &ArrayRef| match values.data_type() {
        DataType::Utf8View => values.as_string_view().lengths().map(u64::from).sum(),
        DataType::BinaryView => values.as_binary_view().lengths().map(u64::from).sum(),
        _ => values.get_buffer_memory_size() as u64,
    };
    rows.columns().iter().map(bytes).sum()
}
