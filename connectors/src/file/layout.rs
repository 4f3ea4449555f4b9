//! What the footer of a Parquet file says: which columns it has and how those are read that are wanted, and its row groups.
//!
//! The types are those of Parquet. Of what the writer says beside them (the schema of Arrow) only that a whole number is a time is
//! believed: the library would take its word for it that bytes are text.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit},
};
use parquet::{
    arrow::{
        ARROW_SCHEMA_META_KEY, ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
    },
    basic::{ConvertedType, Repetition, Type as Physical},
    errors::ParquetError,
    file::metadata::ParquetStatisticsPolicy,
    schema::types::{ColumnDescriptor, Type},
};

use super::{convert::Conversion, pages::Pages, text::BATCH_BYTES};
use crate::{Result, SplitId, format::alternatives};

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A file, and how the columns that are wanted are read from it.
pub(super) struct Layout {
    pub(super) pages: Pages,
    metadata: ArrowReaderMetadata,
    /// Of the columns that are read.
    mask: ProjectionMask,
    /// The columns of the batches that are read, in the order of the file.
    read: SchemaRef,
    /// How many rows each row group has.
    groups: Vec<u64>,
    pub(super) conversion: Conversion,
}

impl Layout {
    /// Looks at a file. The error names a column that it does not have, and its type if that does not fit.
    pub(super) fn of(split: &SplitId, wanted: &SchemaRef) -> Result<Self> {
        let (pages, metadata) = footer(split)?;
        let wrong = |reason: String| pages.wrong(reason);
        let roots = roots(wanted, &metadata).map_err(wrong)?;
        refuse_what_nobody_sees(&metadata, &roots).map_err(wrong)?;
        let metadata = pages.call(|| {
            let options = ArrowReaderOptions::new().with_schema(as_read(wanted, &metadata));
            ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
        })?;
        let read = Arc::new(sound_schema(wanted, &metadata));
        let conversion = Conversion::new(wanted.clone(), &read).map_err(wrong)?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let groups: Vec<u64> =
            metadata.metadata().row_groups().iter().map(|group| unsigned(group.num_rows())).collect();
        let all = groups.iter().try_fold(0_u64, |all, rows| all.checked_add(*rows));
        let said = metadata.metadata().file_metadata().num_rows();
        if all.and_then(|all| i64::try_from(all).ok()) != Some(said) {
            return Err(wrong(format!(
                "its footer says that it has {said} rows, which are not those of its row groups"
            )));
        }
        Ok(Self { pages, metadata, mask, read, groups, conversion })
    }

    /// Reads the rows of one row group, but for the first `before`.
    pub(super) fn reader(
        &self,
        group: usize,
        before: u64,
        step: usize,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.pages.clone(), self.metadata.clone())
            .with_projection(self.mask.clone())
            .with_row_groups(vec![group])
            .with_offset(usize::try_from(before).unwrap_or(usize::MAX))
            .with_batch_size(step)
            .build()
    }

    /// What was read, with bytes instead of text that the library has not looked at.
    pub(super) fn sound(&self, rows: RecordBatch) -> Result<RecordBatch, ParquetError> {
        let sound = |(values, field): (&ArrayRef, &FieldRef)| -> ArrayRef {
            match (values.data_type(), field.data_type()) {
                (DataType::Utf8View, DataType::BinaryView) => {
                    Arc::new(values.as_string_view().clone().to_binary_view())
                }
                _ => values.clone(),
            }
        };
        let columns = rows.columns().iter().zip(self.read.fields()).map(sound).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.read.clone(), columns, &options)?)
    }

    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How many rows a row group has; none behind the last one.
    pub(super) fn rows_of(&self, group: usize) -> u64 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    /// The row group that a row is in, and the number of the row behind that; for the end of the file that is behind the last one. The
    /// error is the number of rows, when there are fewer.
    pub(super) fn group_of(&self, row: u64) -> Result<(usize, u64), u64> {
        let mut end = 0;
        for (group, rows) in self.groups.iter().enumerate() {
            end += rows;
            if row < end {
                return Ok((group, end));
            }
        }
        if row == end { Ok((self.groups.len(), end)) } else { Err(end) }
    }

    /// Whether all columns are numbers, so that a row takes no more than it does in the file, plain.
    pub(super) fn is_of_numbers(&self) -> bool {
        self.read.fields().iter().all(|field| field.data_type().primitive_width().is_some())
    }

    /// Whether there is text within lists, of which the library makes a copy for each row.
    pub(super) fn has_deep_text(&self) -> bool {
        let columns = self.metadata.parquet_schema().columns().iter().enumerate();
        columns
            .filter(|(leaf, _)| self.mask.leaf_included(*leaf))
            .any(|(_, column)| is_deep(column) && column.physical_type() == Physical::BYTE_ARRAY)
    }

    /// How many rows of a row group are as large as a batch may be, if all are of one size, and their texts as large as in the file.
    pub(super) fn fit(&self, group: usize) -> usize {
        let Some(group) = self.metadata.metadata().row_groups().get(group) else { return usize::MAX };
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| self.mask.leaf_included(*leaf));
        let bytes = columns.map(|(_, column)| {
            let plain = unsigned(column.num_values()).saturating_mul(width(column.column_descr()));
            unsigned(column.uncompressed_size()).max(plain)
        });
        let bytes = bytes.fold(0, u64::saturating_add);
        let bytes_of_row = bytes.div_ceil(unsigned(group.num_rows()).max(1)).max(1);
        usize::try_from(BATCH_BYTES / bytes_of_row).unwrap_or(usize::MAX)
    }
}

/// The columns of a file, or those of them that are chosen. All of them may be null, as those that are inferred from text.
pub(super) fn columns_of(split: &SplitId, chosen: Option<&[String]>) -> Result<SchemaRef> {
    let (pages, metadata) = footer(split)?;
    let (there, types) = (metadata.schema(), Types::of(&metadata));
    let nullable = |field: &FieldRef| {
        let data_type = match types.of_column(field) {
            // One that was always null.
            DataType::Null => DataType::Utf8,
            other => other,
        };
        Field::new(field.name(), data_type, true)
    };
    let wrong = |name: &String| pages.wrong(no_column(name, there));
    let field = |name: &String| there.fields().iter().find(|it| it.name() == name).ok_or_else(|| wrong(name));
    let fields: Vec<&FieldRef> = match chosen {
        Some(chosen) => chosen.iter().map(field).collect::<Result<_>>()?,
        None => there.fields().iter().collect(),
    };
    Ok(Arc::new(Schema::new(fields.into_iter().map(nullable).collect::<Vec<_>>())))
}

/// Whether columns can be read from these files. One that may be null must be in one of them: otherwise its name is a mistake.
pub(super) fn check<'a>(splits: impl IntoIterator<Item = &'a SplitId>, wanted: &SchemaRef) -> Result<()> {
    let mut nowhere: Vec<&FieldRef> = wanted.fields().iter().collect();
    let mut last = None;
    for split in splits {
        let layout = Layout::of(split, wanted)?;
        nowhere.retain(|field| layout.metadata.schema().column_with_name(field.name()).is_none());
        last = Some(layout);
    }
    match (nowhere.first(), last) {
        (Some(field), Some(Layout { pages, metadata, .. })) => {
            Err(pages.wrong(no_column(field.name(), metadata.schema())))
        }
        _ => Ok(()),
    }
}

/// The file, and what it says of itself at its end.
fn footer(split: &SplitId) -> Result<(Pages, ArrowReaderMetadata)> {
    let pages = Pages::open(split)?;
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let metadata = pages.call(|| ArrowReaderMetadata::load(&pages, options))?;
    Ok((pages, metadata))
}

/// Where in the file the wanted columns are. One that is missing must be nullable.
fn roots(wanted: &Schema, metadata: &ArrowReaderMetadata) -> Result<Vec<usize>, String> {
    let mut roots = Vec::new();
    for field in wanted.fields() {
        // Not those of Arrow, which has none for a group without columns.
        let there = metadata.parquet_schema().root_schema().get_fields().iter().enumerate();
        let mut places = there.filter(|(_, it)| it.name() == field.name()).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(place), None) => roots.push(place),
            (Some(_), Some(_)) => return Err(format!("the file names the column {:?} twice", field.name())),
            (None, _) if field.is_nullable() => {}
            (None, _) => return Err(no_column(field.name(), metadata.schema())),
        }
    }
    roots.sort_unstable();
    roots.dedup();
    Ok(roots)
}

fn no_column(name: &str, there: &Schema) -> String {
    let there = alternatives(name, there.fields().iter().map(|field| field.name().as_str()));
    format!("the file has no column {name:?}; it has {there}")
}

/// The types to read the file as: text and bytes as views.
fn as_read(wanted: &Schema, metadata: &ArrowReaderMetadata) -> SchemaRef {
    let types = Types::of(metadata);
    let as_read = |field: &FieldRef| {
        if wanted.column_with_name(field.name()).is_none() {
            return field.as_ref().clone();
        }
        field.as_ref().clone().with_data_type(match types.of_column(field) {
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
        let words = metadata.metadata().file_metadata().key_value_metadata();
        let has_said = words.is_some_and(|words| words.iter().any(|word| word.key == ARROW_SCHEMA_META_KEY));
        let said = || ArrowReaderMetadata::try_new(metadata.metadata().clone(), ArrowReaderOptions::new());
        let said = catch_unwind(AssertUnwindSafe(said)).ok().and_then(Result::ok).filter(|_| has_said);
        Self { metadata, said: said.map(|said| said.schema().clone()) }
    }

    fn of_column(&self, field: &FieldRef) -> DataType {
        let said = self.said.as_ref().and_then(|said| said.column_with_name(field.name()));
        match (field.data_type(), said) {
            // Nanoseconds since 1970 of a time of 96 bits need not fit into 64.
            _ if self.is_int96(field.name()) => MICROS,
            // Seconds, say, for which Parquet has no name.
            (DataType::Int32 | DataType::Int64, Some((_, said))) if said.data_type().is_temporal() => {
                said.data_type().clone()
            }
            // Of months, days and milliseconds Arrow has some.
            (DataType::Interval(_), Some((_, said))) if matches!(said.data_type(), DataType::Interval(_)) => {
                said.data_type().clone()
            }
            (there, _) => there.clone(),
        }
    }

    fn says_interval(&self, column: &ColumnDescriptor) -> bool {
        let said = self.said.as_ref().and_then(|said| said.column_with_name(column.name()));
        !is_deep(column) && said.is_some_and(|(_, said)| matches!(said.data_type(), DataType::Interval(_)))
    }

    fn is_int96(&self, column: &str) -> bool {
        let columns = self.metadata.parquet_schema().root_schema().get_fields();
        let column = columns.iter().find(|it| it.name() == column);
        let is_list = |it: &Type| {
            it.get_basic_info().has_repetition() && it.get_basic_info().repetition() == Repetition::REPEATED
        };
        column.is_some_and(|it| it.is_primitive() && !is_list(it) && it.get_physical_type() == Physical::INT96)
    }
}

/// How many bytes a value takes at least, as a number; of text that is not known.
fn width(column: &ColumnDescriptor) -> u64 {
    match column.physical_type() {
        Physical::BOOLEAN | Physical::BYTE_ARRAY => 0,
        Physical::INT32 | Physical::FLOAT => 4,
        Physical::INT64 | Physical::DOUBLE | Physical::INT96 => 8,
        Physical::FIXED_LEN_BYTE_ARRAY => unsigned(column.type_length().into()),
    }
}

/// Whether the values of a column are within lists or structs.
fn is_deep(column: &ColumnDescriptor) -> bool {
    column.max_rep_level() > 0 || column.path().parts().len() > 1
}

/// The library checks that text is UTF-8 if the file says in the older of two ways that it is text.
fn is_unproven_text(column: &ColumnDescriptor) -> bool {
    use parquet::basic::LogicalType;
    let is_text = matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Json));
    let proven = column.converted_type() == ConvertedType::UTF8;
    column.physical_type() == Physical::BYTE_ARRAY
        && !proven
        && (is_text || column.converted_type() == ConvertedType::JSON)
}

/// The columns that are read, with bytes for text that the library does not look at.
fn sound_schema(wanted: &Schema, metadata: &ArrowReaderMetadata) -> Schema {
    let is_unproven = |name: &str| {
        let columns = metadata.parquet_schema().columns();
        columns.iter().any(|it| it.path().parts().first().is_some_and(|root| root == name) && is_unproven_text(it))
    };
    let read = metadata.schema().fields().iter().filter(|field| wanted.column_with_name(field.name()).is_some());
    let fields = read.map(|field| match field.data_type() {
        DataType::Utf8View if is_unproven(field.name()) => field.as_ref().clone().with_data_type(DataType::BinaryView),
        _ => field.as_ref().clone(),
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Nobody would see what is read wrong: text within others that is none, times within others that are beyond 2262, and durations
/// without their months.
fn refuse_what_nobody_sees(metadata: &ArrowReaderMetadata, roots: &[usize]) -> Result<(), String> {
    let (schema, types) = (metadata.parquet_schema(), Types::of(metadata));
    for (leaf, column) in schema.columns().iter().enumerate() {
        if !roots.contains(&schema.get_column_root_idx(leaf)) {
            continue;
        }
        let what = if is_deep(column) && is_unproven_text(column) {
            "text that is not marked as UTF8, in a list or a struct"
        } else if is_deep(column) && column.physical_type() == Physical::INT96 {
            "times of 96 bits, in a list or a struct"
        } else if column.converted_type() == ConvertedType::INTERVAL && !types.says_interval(column) {
            "an interval of months, days and milliseconds, of which nobody says which it has"
        } else {
            continue;
        };
        return Err(format!("column {:?} is {what}, which cannot be read: leave it out", column.path().string()));
    }
    Ok(())
}

/// A count of the footer, in which anything may stand.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
