//! Which directory a row belongs to.
//!
//! ```text
//!   batch: country  at                         country=DE/dt=2026-11-20/hour=13   rows 0, 2, in their order
//!          DE       13:05  ── one key a row ──►
//!          FR       13:07      (arrow rows)    country=FR/dt=2026-11-20/hour=13   row 1
//!          DE       13:59
//! ```
//!
//! The names are those of Hive, so that readers of partitioned data know them. They are made from data: a value becomes
//! a name of harmless characters and bounded length, and two values never the same name, but for two long ones of equal
//! hash (XXH3-128), whose rows would share a directory and nothing worse.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array},
    compute::{CastOptions, cast_with_options, take_record_batch},
    datatypes::{
        ArrowTimestampType, DataType, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType,
    },
    row::{RowConverter, SortField},
    temporal_conversions::date32_to_datetime,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use twox_hash::xxhash3_128::Hasher;

use crate::{ConnectorError, Result, format::alternatives};

/// How fine the directories of [`FileSink::partition_by_time`](super::FileSink::partition_by_time) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePartition {
    /// `dt=2026-11-20`.
    Daily,
    /// `dt=2026-11-20/hour=13`.
    Hourly,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub(in crate::file) enum PartitionBy {
    Column(String),
    Time(String, TimePartition),
}

/// Bytes of a name that stand for themselves, as long as the whole name is not [`NULL`].
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-');

/// The name for null that Hive gave it, and that all readers know.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest name of a value. A longer one is cut to exactly this, which no other has.
const VALUE_BYTES: usize = 200;

/// The longest name of a column, so that with a value it stays below 255 bytes.
const COLUMN_BYTES: usize = 54;

/// The partitions of a stream with a certain schema.
pub(in crate::file) struct Partitioning {
    keys: Vec<Key>,
    /// Makes bytes of the keys of a row, equal if the keys are.
    converter: RowConverter,
}

struct Key {
    column: usize,
    /// The column's name in the names of directories. A time has its own.
    level: String,
    every: Option<TimePartition>,
}

impl Partitioning {
    /// Fails if a column is missing or cannot be partitioned by.
    pub(in crate::file) fn new(by: &[PartitionBy], schema: &SchemaRef) -> Result<Self> {
        let keys = by.iter().map(|by| Key::new(by, schema)).collect::<Result<Vec<_>>>()?;
        let mut levels: Vec<&str> = keys.iter().flat_map(Key::levels).collect();
        levels.sort_unstable();
        if let Some(twice) = levels.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two levels of directories would be called {:?}: partition by it once", twice[0]);
            return Err(ConnectorError::Config(message));
        }
        let fields = keys.iter().map(|key| match key.every {
            None => SortField::new(schema.field(key.column).data_type().clone()),
            Some(_) => SortField::new(DataType::Int64),
        });
        Ok(Self { converter: RowConverter::new(fields.collect())?, keys })
    }

    /// The rows of a batch by directory, which is relative to the root. Rows of one directory keep their order.
    pub(in crate::file) fn split(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        if self.keys.is_empty() {
            return Ok(vec![(String::new(), batch.clone())]);
        }
        let values: Vec<ArrayRef> = self.keys.iter().map(|key| key.values(batch)).collect();
        let rows = self.converter.convert_columns(&values)?;
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut former = None;
        for (row, key) in (0..).zip(rows.iter()) {
            // Most rows belong where the one before them does.
            let place = match former.filter(|(of, _)| *of == key) {
                Some((_, place)) => place,
                None => *places.entry(key).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                }),
            };
            groups[place].push(row);
            former = Some((key, place));
        }
        let whole = groups.len() == 1;
        let split = groups.into_iter().map(|group| {
            let directory = self.directory(&values, group[0] as usize)?;
            let rows = if whole { batch.clone() } else { take_record_batch(batch, &UInt32Array::from(group))? };
            Ok((directory, rows))
        });
        split.collect()
    }

    fn directory(&self, values: &[ArrayRef], row: usize) -> Result<String> {
        let mut names = Vec::with_capacity(self.keys.len() + 1);
        for (key, values) in self.keys.iter().zip(values) {
            key.push_names(values, row, &mut names)?;
        }
        Ok(names.join("/"))
    }
}

impl Key {
    fn new(by: &PartitionBy, schema: &SchemaRef) -> Result<Self> {
        let (PartitionBy::Column(name) | PartitionBy::Time(name, _)) = by;
        let Some((column, field)) = schema.column_with_name(name) else {
            let there = alternatives(name, schema.fields().iter().map(|field| field.name().as_str()));
            let message = format!("cannot partition by column {name:?}: the rows have {there}");
            return Err(ConnectorError::Config(message));
        };
        let every = if let PartitionBy::Time(_, every) = by { Some(*every) } else { None };
        let data_type = field.data_type();
        let hint = match (every, data_type) {
            (Some(_), DataType::Timestamp(..)) => None,
            (Some(_), DataType::Date32) => {
                Some("a date is not a timestamp; say `partition_by` to have a directory per date")
            }
            (Some(_), _) => Some("partitions of time need a timestamp"),
            (None, DataType::Timestamp(..)) => Some("say `partition_by_time` to have a directory per day or hour"),
            (None, DataType::Dictionary(_, value)) if is_discrete(value) => None,
            (None, data_type) if is_discrete(data_type) => None,
            (None, _) => Some("directories are for booleans, whole numbers, text and dates; cast it"),
        };
        if let Some(hint) = hint {
            let message = format!("cannot partition by column {name:?} ({data_type}): {hint}");
            return Err(ConnectorError::Config(message));
        }
        let level = column_name(name);
        if level.len() > COLUMN_BYTES {
            let message = format!(
                "cannot partition by column {name:?}: as the name of a directory it has {} bytes, and {COLUMN_BYTES} is \
                 the limit; rename it",
                level.len()
            );
            return Err(ConnectorError::Config(message));
        }
        Ok(Self { column, level, every })
    }

    fn levels(&self) -> Vec<&str> {
        match self.every {
            None => vec![&self.level],
            Some(TimePartition::Daily) => vec!["dt"],
            Some(TimePartition::Hourly) => vec!["dt", "hour"],
        }
    }

    /// What rows of one directory have in common: the value, or the number of the day or hour since 1970.
    fn values(&self, batch: &RecordBatch) -> ArrayRef {
        let column = batch.column(self.column);
        let seconds = match self.every {
            None => return column.clone(),
            Some(TimePartition::Daily) => 86_400,
            Some(TimePartition::Hourly) => 3_600,
        };
        match column.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => periods::<TimestampSecondType>(column, seconds),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                periods::<TimestampMillisecondType>(column, seconds * 1_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                periods::<TimestampMicrosecondType>(column, seconds * 1_000_000)
            }
            _ => periods::<TimestampNanosecondType>(column, seconds * 1_000_000_000),
        }
    }

    /// The names of the directories for the value of a row.
    fn push_names(&self, values: &ArrayRef, row: usize, names: &mut Vec<String>) -> Result<()> {
        let Some(every) = self.every else {
            // Strictly: a date that no calendar holds must not become null.
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let text = cast_with_options(&values.slice(row, 1), &DataType::Utf8, &options)?;
            let text = text.as_string::<i32>();
            names.push(format!("{}={}", self.level, value_name(text.is_valid(0).then(|| text.value(0).as_bytes()))));
            return Ok(());
        };
        let periods: &Int64Array = values.as_primitive();
        let period = periods.is_valid(row).then(|| periods.value(row));
        let (day, hour) = match every {
            TimePartition::Daily => (period, None),
            TimePartition::Hourly => {
                (period.map(|hour| hour.div_euclid(24)), Some(period.map(|hour| hour.rem_euclid(24))))
            }
        };
        let day = day.map(day_text).transpose()?;
        names.push(format!("dt={}", value_name(day.as_deref().map(str::as_bytes))));
        if let Some(hour) = hour {
            names.push(format!("hour={}", hour.map_or_else(|| NULL.to_owned(), |hour| format!("{hour:02}"))));
        }
        Ok(())
    }
}

/// Whether a type has values that people mean when they ask for one directory each.
fn is_discrete(data_type: &DataType) -> bool {
    use DataType::{Boolean, Date32, LargeUtf8, Utf8, Utf8View};
    data_type.is_integer() || matches!(data_type, Boolean | Utf8 | LargeUtf8 | Utf8View | Date32)
}

fn periods<T: ArrowTimestampType>(column: &ArrayRef, length: i64) -> ArrayRef {
    let periods: Int64Array = column.as_primitive::<T>().unary(|time: i64| time.div_euclid(length));
    std::sync::Arc::new(periods)
}

fn day_text(day: i64) -> Result<String> {
    let date = i32::try_from(day).ok().and_then(date32_to_datetime);
    date.map(|date| date.format("%Y-%m-%d").to_string()).ok_or_else(|| ConnectorError::Data {
        at: "a time to partition by".to_owned(),
        reason: format!("the day {day} after 1970-01-01 is outside the calendar, so its directory has no name"),
    })
}

/// The name of a column in the name of a directory, which must not be hidden.
fn column_name(name: &str) -> String {
    let encoded = percent_encode(name.as_bytes(), ENCODED).to_string();
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    }
}

/// The name of a value in the name of a directory, behind the column's: no `/`, at most 200 bytes, and no other value's.
pub(in crate::file) fn value_name(value: Option<&[u8]>) -> String {
    let Some(value) = value else { return NULL.to_owned() };
    let mut name = percent_encode(value, ENCODED).to_string();
    if name == NULL {
        // The text that looks like null: a name that decodes to it all the same.
        name.replace_range(..1, "%5F");
    }
    if name.len() < VALUE_BYTES {
        return name;
    }
    let hash = format!("-{:032x}", Hasher::oneshot(value));
    let kept = VALUE_BYTES - hash.len();
    // Not within an escape. What is missing then is filled up, because the length says that the name was cut.
    let escape = name[..kept].rfind('%').filter(|at| at + 3 > kept);
    name.truncate(escape.unwrap_or(kept));
    format!("{name:_<kept$}{hash}")
}
