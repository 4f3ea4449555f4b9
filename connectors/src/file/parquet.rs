//! One Parquet file being read: its columns by name, a batch of rows at a time, from any row on.
//!
//! ```text
//!   footer ──► Found: which columns, as which types ──► ParquetRecordBatchReader
//!                                                         │ text as views: what is in a page once is in memory once
//!                                                         ▼
//!                                       as many rows as fit ──► Conversion ──► Rows
//! ```
//!
//! The types are those of Parquet. Of what the writer says beside them (the schema of Arrow in the footer) only that a whole number is
//! a time is believed: the library would take its word for it that bytes are text.

use std::{
    any::Any,
    collections::HashSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
    },
    basic::{ConvertedType, Type as Physical},
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::{
    convert::Conversion,
    open::check_regular,
    text::{BATCH_BYTES, KEPT_BYTES, Settings},
};
use crate::{ConnectorError, Position, Rejected, Result, Rows, SplitId, format::alternatives};

/// A Parquet file with a place in it.
pub(super) struct ParquetFile {
    split: SplitId,
    reader: ParquetRecordBatchReader,
    conversion: Conversion,
    /// Rows that were read and not yet given away.
    read: Option<RecordBatch>,
    /// The number of the first of them, or of the next one in the file, counted from 0.
    position: u64,
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
        let Found { file, metadata, roots, conversion } = Found::look(&split, schema)?;
        let position = position.unwrap_or_default().0;
        let groups: Vec<u64> =
            metadata.metadata().row_groups().iter().map(|group| unsigned(group.num_rows())).collect();
        let (group, before) = group_of(position, &groups).map_err(|rows| ConnectorError::Data {
            at: split.to_string(),
            reason: format!(
                "reading was to resume at row {position}, but the file has only {rows} rows: it was truncated or replaced \
                 since the checkpoint"
            ),
        })?;
        let reader = guarded(&split, || {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
            let batch_rows = batch_rows(metadata.metadata(), &mask, settings.batch_rows);
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                .with_projection(mask)
                .with_row_groups((group..groups.len()).collect())
                .with_offset(usize::try_from(position - before).unwrap_or(usize::MAX))
                .with_batch_size(batch_rows)
                .build()
        })?;
        let max_record_bytes = settings.max_record_bytes;
        Ok(Self { split, reader, conversion, read: None, position, max_record_bytes, damage: None })
    }

    /// The number of the next row.
    pub(super) fn position(&self) -> Position {
        Position(self.position)
    }

    /// The next rows, and those that are not what was asked for; `None` at the end of the file.
    pub(super) fn read(&mut self) -> Result<Option<Rows>> {
        let Some(rows) = self.next_rows()? else { return Ok(None) };
        let (batch, bad) = self.conversion.convert(&rows)?;
        let rejected = bad.into_iter().map(|(row, reason)| self.reject(&rows, row, reason)).collect::<Result<_>>()?;
        self.position += rows.num_rows() as u64;
        let (split, next) = (self.split.clone(), self.position());
        Ok(Some(Rows { split, batch, rejected, passed_over: 0, next, origins: None }))
    }

    /// As many of the rows that were read as fit into a batch. They take little while their texts are views of the same pages, and may
    /// take very much when each has its own.
    fn next_rows(&mut self) -> Result<Option<RecordBatch>> {
        let read = match self.read.take() {
            Some(read) => read,
            None => match self.read_on()? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let mut count = read.num_rows();
        while count > 1 && text_bytes(&read, count) > BATCH_BYTES {
            count = count.div_ceil(2);
        }
        if count < read.num_rows() {
            self.read = Some(read.slice(count, read.num_rows() - count));
        }
        Ok(Some(read.slice(0, count)))
    }

    fn read_on(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(reason) = &self.damage {
            return Err(ConnectorError::Data { at: self.split.to_string(), reason: reason.clone() });
        }
        let Self { split, reader, .. } = self;
        let next = guarded(split, || {
            Ok(reader.find(|read| read.as_ref().map_or(true, |it| it.num_rows() > 0)).transpose()?)
        });
        next.map_err(|error| {
            let ConnectorError::Data { at, reason } = error else { return error };
            let reason = format!("{reason} (behind row {})", self.position);
            self.damage = Some(reason.clone());
            ConnectorError::Data { at, reason }
        })
    }

    /// A row with its columns as text, as the engine shows those that it rejects.
    fn reject(&self, rows: &RecordBatch, row: usize, reason: String) -> Result<Rejected> {
        let options = FormatOptions::default().with_null("null");
        let columns = rows.schema_ref().fields().iter().zip(rows.columns());
        let values = columns.map(|(field, column)| {
            let value = ArrayFormatter::try_new(column, &options)?;
            Ok(format!("{}={}", field.name(), value.value(row)))
        });
        let mut bytes = values.collect::<Result<Vec<_>>>()?.join(" ").into_bytes();
        let truncated = (bytes.len() > self.max_record_bytes).then_some(bytes.len() as u64);
        if truncated.is_some() {
            bytes.truncate(KEPT_BYTES.min(self.max_record_bytes));
        }
        let position = Some(Position(self.position + row as u64));
        Ok(Rejected { position, bytes: Some(bytes), truncated, ..Rejected::of(reason) })
    }
}

/// The columns of a file, or those of them that are chosen. All of them may be null, as those that are inferred from text.
pub(super) fn columns_of(split: &SplitId, chosen: Option<&[String]>) -> Result<SchemaRef> {
    let (_, metadata) = footer(split)?;
    let there = metadata.schema();
    let types = Types::of(&metadata);
    let nullable = |field: &FieldRef| Field::new(field.name(), types.of_column(field, &MICROS), true);
    let wrong = |name: &String| ConnectorError::Data { at: split.to_string(), reason: no_column(name, there) };
    let field = |name: &String| there.fields().iter().find(|it| it.name() == name).ok_or_else(|| wrong(name));
    let fields: Vec<&FieldRef> = match chosen {
        Some(chosen) => chosen.iter().map(field).collect::<Result<_>>()?,
        None => there.fields().iter().collect(),
    };
    Ok(Arc::new(Schema::new(fields.into_iter().map(nullable).collect::<Vec<_>>())))
}

/// Whether columns can be read from these files. One that may be null must be in one of them: otherwise its name is a mistake.
pub(super) fn check<'a>(splits: impl IntoIterator<Item = &'a SplitId>, schema: &SchemaRef) -> Result<()> {
    let mut nowhere: Vec<&FieldRef> = schema.fields().iter().collect();
    let mut mistake = Ok(());
    for split in splits {
        let Found { metadata, .. } = Found::look(split, schema)?;
        nowhere.retain(|field| metadata.schema().column_with_name(field.name()).is_none());
        let Some(field) = nowhere.first() else { return Ok(()) };
        mistake =
            Err(ConnectorError::Data { at: split.to_string(), reason: no_column(field.name(), metadata.schema()) });
    }
    mistake
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A file, and how the columns that are wanted are read from it.
struct Found {
    file: fs::File,
    metadata: ArrowReaderMetadata,
    /// The columns to read, by their place in the file.
    roots: Vec<usize>,
    conversion: Conversion,
}

impl Found {
    fn look(split: &SplitId, wanted: &SchemaRef) -> Result<Self> {
        let (file, metadata) = footer(split)?;
        let wrong = |reason: String| ConnectorError::Data { at: split.to_string(), reason };
        let roots = roots(wanted, &metadata).map_err(wrong)?;
        let unchecked = unchecked_text(metadata.metadata());
        let metadata = guarded(split, || {
            let options = ArrowReaderOptions::new().with_schema(as_read(wanted, &metadata));
            ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
        })?;
        let read = metadata.schema().project(&roots)?;
        let conversion = Conversion::new(wanted.clone(), &read, &unchecked).map_err(wrong)?;
        Ok(Self { file, metadata, roots, conversion })
    }
}

/// The file, and what it says of itself at its end.
fn footer(split: &SplitId) -> Result<(fs::File, ArrowReaderMetadata)> {
    let path = Path::new(split.as_str());
    let found = fs::metadata(path).map_err(|error| ConnectorError::io("open", path, error))?;
    check_regular(path, &found)?;
    let file = fs::File::open(path).map_err(|error| ConnectorError::io("open", path, error))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = guarded(split, || ArrowReaderMetadata::load(&file, options))?;
    Ok((file, metadata))
}

/// Where in the file the wanted columns are. One that is missing must be nullable.
fn roots(wanted: &Schema, metadata: &ArrowReaderMetadata) -> Result<Vec<usize>, String> {
    let mut roots = Vec::new();
    for field in wanted.fields() {
        let there = metadata.schema().fields().iter().enumerate();
        let mut places = there.filter(|(_, it)| it.name() == field.name()).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(place), None) => roots.push(place),
            (Some(_), Some(_)) => return Err(format!("the file names the column {:?} twice", field.name())),
            (None, _) if field.is_nullable() => {}
            (None, _) => return Err(no_column(field.name(), metadata.schema())),
        }
    }
    roots.sort_unstable();
    Ok(roots)
}

fn no_column(name: &str, there: &Schema) -> String {
    let there = alternatives(name, there.fields().iter().map(|field| field.name().as_str()));
    format!("the file has no column {name:?}; it has {there}")
}

/// The types to read the file as: text and bytes as views, whose values are not copied.
fn as_read(wanted: &Schema, metadata: &ArrowReaderMetadata) -> SchemaRef {
    let types = Types::of(metadata);
    let as_read = |field: &FieldRef| {
        let Some((_, wanted)) = wanted.column_with_name(field.name()) else { return field.as_ref().clone() };
        field.as_ref().clone().with_data_type(match types.of_column(field, wanted.data_type()) {
            DataType::Utf8 => DataType::Utf8View,
            DataType::Binary => DataType::BinaryView,
            other => other,
        })
    };
    Arc::new(Schema::new(metadata.schema().fields().iter().map(as_read).collect::<Vec<_>>()))
}

/// What is known of the types of columns.
struct Types<'a> {
    metadata: &'a ArrowReaderMetadata,
    /// What the writer says of them in words of Arrow.
    said: Option<SchemaRef>,
}

impl<'a> Types<'a> {
    fn of(metadata: &'a ArrowReaderMetadata) -> Self {
        let said = || ArrowReaderMetadata::try_new(metadata.metadata().clone(), ArrowReaderOptions::new());
        let said = catch_unwind(AssertUnwindSafe(said)).ok().and_then(Result::ok);
        Self { metadata, said: said.map(|said| said.schema().clone()) }
    }

    fn of_column(&self, field: &FieldRef, wanted: &DataType) -> DataType {
        let said = self.said.as_ref().and_then(|said| said.column_with_name(field.name()));
        match (field.data_type(), said, wanted) {
            // Nanoseconds since 1970 of a time of 96 bits need not fit into 64.
            (_, _, DataType::Timestamp(unit, _)) if self.is_int96(field.name()) => DataType::Timestamp(*unit, None),
            (_, _, _) if self.is_int96(field.name()) => MICROS,
            // Seconds, say, for which Parquet has no name.
            (DataType::Int32 | DataType::Int64, Some((_, said)), _) if said.data_type().is_temporal() => {
                said.data_type().clone()
            }
            (there, _, _) => there.clone(),
        }
    }

    fn is_int96(&self, column: &str) -> bool {
        let columns = self.metadata.parquet_schema().root_schema().get_fields();
        let column = columns.iter().find(|it| it.name() == column);
        column.is_some_and(|it| it.is_primitive() && it.get_physical_type() == Physical::INT96)
    }
}

/// The columns with text that the library does not look at: it checks only what the older of two ways to say that bytes are text says.
fn unchecked_text(metadata: &ParquetMetaData) -> HashSet<String> {
    let schema = metadata.file_metadata().schema_descr();
    let unchecked = schema.columns().iter().enumerate().filter(|(_, column)| {
        column.physical_type() == Physical::BYTE_ARRAY && column.converted_type() != ConvertedType::UTF8
    });
    unchecked.map(|(leaf, _)| schema.get_column_root(leaf).name().to_owned()).collect()
}

/// The row group that a row is in, and how many rows are before it; for the end that behind the last one. The error is the number of
/// rows, when there are fewer.
fn group_of(row: u64, groups: &[u64]) -> Result<(usize, u64), u64> {
    let mut before = 0_u64;
    for (group, rows) in groups.iter().enumerate() {
        let end = before.saturating_add(*rows);
        if row < end {
            return Ok((group, before));
        }
        before = end;
    }
    if row == before { Ok((groups.len(), before)) } else { Err(before) }
}

/// How many rows to read at a time, so that those of the widest row group do not take more than a batch may.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask, at_most: usize) -> usize {
    let bytes_of_rows = metadata.row_groups().iter().map(|group| {
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes = columns.map(|(_, column)| unsigned(column.uncompressed_size())).fold(0, u64::saturating_add);
        bytes.div_ceil(unsigned(group.num_rows()).max(1))
    });
    let fit = BATCH_BYTES / bytes_of_rows.max().unwrap_or(0).max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, at_most)
}

/// A count of the footer, in which anything may stand.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The bytes of the texts of the first rows.
fn text_bytes(rows: &RecordBatch, count: usize) -> u64 {
    let bytes = |column: &Arc<dyn Array>| match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().take(count).map(u64::from).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().take(count).map(u64::from).sum(),
        _ => 0,
    };
    rows.columns().iter().map(bytes).sum()
}

/// Calls the library, which panics on some files that are damaged.
fn guarded<T>(split: &SplitId, call: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => said(&*panic),
    };
    let reason = format!("the file is no Parquet file, or is damaged: {reason}");
    Err(ConnectorError::Data { at: split.to_string(), reason })
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
