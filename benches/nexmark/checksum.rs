//! A sink that keeps nothing but a checksum of the answer, which another engine's answer can be put beside.
//!
//! ```text
//!   row      5, "ab", null, 2015-07-15T00:00:01Z, 0.5        ␟ is the byte 1F, ␀ the byte 00
//!   line     5␟ab␟␀␟1436918401000000␟500␟                    integers in decimal, instants in microseconds, doubles in
//!                                                            thousandths (rounded, half away from zero), text as its bytes
//!   hash     FNV-1a of the line, 64 bits, and then mixed     h = cbf29ce484222325; for each byte: h ^= byte; h *= 100000001b3
//!                                                            h ^= h>>33; h *= ff51afd7ed558ccd; h ^= h>>33;
//!                                                            h *= c4ceb9fe1a85ec53; h ^= h>>33
//!   answer   how many rows, and the sum of their hashes, which wraps at 64 bits, as 16 hexadecimal digits
//! ```
//!
//! So rows may come in any order, but each value counts with its place in the row. Of changes it is that of the table as it is at
//! the end.

use std::{
    collections::HashMap,
    fmt,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};
use windrow::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type, SchemaRef, UInt8Type},
    },
    connectors::{ConnectorError, Epoch, Incarnation, OP, Receipt, Sink, SinkWriter},
    operators::changes::DELETE,
};

const SEPARATOR: u8 = 0x1F;
const NULL: u8 = 0;

/// Rows, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub rows: u64,
    /// See the top of this file.
    pub hashes: Hashes,
}

/// A sum of hashes of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes(pub u64);

impl fmt::Display for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Hashes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Sum {
    /// Of the rows of a batch.
    pub fn of(batch: &RecordBatch) -> Result<Self, ConnectorError> {
        let mut sum = Self::default();
        sum.add(row_hashes(batch.columns())?);
        Ok(sum)
    }

    fn add(&mut self, rows: impl IntoIterator<Item = u64>) {
        for hash in rows {
            self.rows += 1;
            self.hashes.0 = self.hashes.0.wrapping_add(hash);
        }
    }
}

/// Adds up all results of a job without checkpoints, at its end. A clone adds to the same sums.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The columns of the key, of changes.
    key: Option<Vec<usize>>,
    sum: Sum,
}

/// Of a table that changes, the hash of each row by the hash of its key.
type Table = HashMap<u64, u64, foldhash::fast::FixedState>;

struct Writer {
    shared: Checksum,
    key: Option<Vec<usize>>,
    sum: Sum,
    table: Table,
}

impl Checksum {
    /// Of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of the answer, once the job has ended.
    pub fn total(&self) -> Sum {
        self.shared().sum
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Sink for Checksum {
    fn name(&self) -> String {
        "checksum".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn accepts_changes(&self, _: &SchemaRef, key: &[usize]) -> Result<(), ConnectorError> {
        self.shared().key = Some(key.to_vec());
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let key = self.shared().key.clone();
        Ok(Box::new(Writer { shared: self.clone(), key, sum: Sum::default(), table: Table::default() }))
    }
}

#[async_trait::async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        match &self.key {
            None => self.sum.add(row_hashes(batch.columns())?),
            Some(key) => change(&mut self.table, &batch, key)?,
        }
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        self.sum.add(self.table.drain().map(|(_, row)| row));
        let own = std::mem::take(&mut self.sum);
        let total = &mut self.shared.shared().sum;
        total.rows += own.rows;
        total.hashes.0 = total.hashes.0.wrapping_add(own.hashes.0);
        Ok(Vec::new())
    }
}

/// A column as its values are written.
enum Values {
    Text(StringArray),
    Views(StringViewArray),
    Thousandths(Float64Array),
    Numbers(Int64Array),
}

impl Values {
    fn of(column: &ArrayRef) -> Result<Self, ConnectorError> {
        if let Some(texts) = column.as_string_opt::<i32>() {
            return Ok(Self::Text(texts.clone()));
        }
        if let Some(texts) = column.as_string_view_opt() {
            return Ok(Self::Views(texts.clone()));
        }
        if let Some(numbers) = column.as_primitive_opt::<Float64Type>() {
            return Ok(Self::Thousandths(numbers.clone()));
        }
        Ok(Self::Numbers(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
    }

    /// Writing to memory does not fail.
    fn write(&self, row: usize, line: &mut Vec<u8>) {
        match self {
            Self::Text(texts) if texts.is_valid(row) => line.extend_from_slice(texts.value(row).as_bytes()),
            Self::Views(texts) if texts.is_valid(row) => line.extend_from_slice(texts.value(row).as_bytes()),
            Self::Thousandths(numbers) if numbers.is_valid(row) => {
                let _ = write!(line, "{}", (numbers.value(row) * 1000.0).round() as i64);
            }
            Self::Numbers(numbers) if numbers.is_valid(row) => {
                let _ = write!(line, "{}", numbers.value(row));
            }
            _ => line.push(NULL),
        }
        line.push(SEPARATOR);
    }
}

/// The hash of each row.
fn row_hashes(columns: &[ArrayRef]) -> Result<Vec<u64>, ConnectorError> {
    let values = columns.iter().map(Values::of).collect::<Result<Vec<_>, _>>()?;
    let mut line = Vec::new();
    let hash = |row| {
        line.clear();
        values.iter().for_each(|column| column.write(row, &mut line));
        hash_of(&line)
    };
    Ok((0..columns.first().map_or(0, |column| column.len())).map(hash).collect())
}

fn hash_of(line: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let mut hash = line.iter().fold(0xCBF2_9CE4_8422_2325, step);
    // Without this, two rows that change their last digits would often add up to the same.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

fn change(table: &mut Table, batch: &RecordBatch, key: &[usize]) -> Result<(), ConnectorError> {
    let schema = batch.schema();
    let is_visible = |(index, _): &(usize, &ArrayRef)| schema.field(*index).name() != OP;
    let visible: Vec<ArrayRef> =
        batch.columns().iter().enumerate().filter(is_visible).map(|(_, column)| column.clone()).collect();
    let key: Vec<ArrayRef> = key.iter().map(|index| batch.column(*index).clone()).collect();
    // A table without a key has one row.
    let keys = if key.is_empty() { vec![0; batch.num_rows()] } else { row_hashes(&key)? };
    let ops = batch.column_by_name(OP).and_then(|ops| ops.as_primitive_opt::<UInt8Type>());
    for (row, (key, hash)) in keys.into_iter().zip(row_hashes(&visible)?).enumerate() {
        match ops.map(|ops| ops.value(row)) {
            Some(DELETE) => drop(table.remove(&key)),
            _ => drop(table.insert(key, hash)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use windrow::{arrow::array::UInt8Array, prelude::Timestamp};

    use super::*;

    fn total(key: Option<&[usize]>, batches: &[RecordBatch]) -> Sum {
        let checksum = Checksum::new();
        let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let schema = batches[0].schema();
            key.map_or(checksum.accepts(&schema), |key| checksum.accepts_changes(&schema, key)).unwrap();
            let mut writer = checksum.writer(&incarnation, 0, schema).await.unwrap();
            for batch in batches {
                writer.write(batch.clone()).await.unwrap();
            }
            writer.stage(Epoch(1)).await.unwrap();
        });
        checksum.total()
    }

    fn sum_of(lines: &[&str]) -> Sum {
        let mut sum = Sum::default();
        sum.add(lines.iter().map(|line| hash_of(line.as_bytes())));
        sum
    }

    /// For who writes the formula in another language: python3 gives the same.
    #[test]
    fn hashes_are_these() {
        assert_eq!(Hashes(hash_of(b"")).to_string(), "efd01f60ba992926");
        assert_eq!(Hashes(hash_of(b"5\x1fab\x1f\x00\x1f1436918401000000\x1f500\x1f")).to_string(), "9c784314bed39c80");
    }

    #[test]
    fn a_row_is_the_line_that_is_said() {
        let columns: [(&str, ArrayRef); 5] = [
            ("number", Arc::new(Int64Array::from(vec![5, -7]))),
            ("text", Arc::new(StringArray::from(vec!["ab", "\u{e9}"]))),
            ("maybe", Arc::new(StringArray::from(vec![None, Some("")]))),
            ("at", Timestamp::column(vec![1_436_918_401_000_000, 1])),
            ("share", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let first = "5\x1fab\x1f\0\x1f1436918401000000\x1f500\x1f";
        let second = "-7\x1f\u{e9}\x1f\x1f1\x1f\0\x1f";
        assert_eq!(total(None, std::slice::from_ref(&batch)), sum_of(&[first, second]));
        let parts = [batch.slice(1, 1), batch.slice(0, 1), batch.slice(1, 1)];
        assert_eq!(total(None, &parts), sum_of(&[second, first, second]), "in any order, each as often as it is there");
        assert_eq!(Sum::of(&batch).unwrap(), sum_of(&[first, second]));
    }

    #[test]
    fn values_count_with_their_place_and_their_bytes() {
        let rows = |rows: &[(&str, i64)]| {
            let texts: StringArray = rows.iter().map(|(text, _)| Some(*text)).collect();
            let numbers: Int64Array = rows.iter().map(|(_, number)| Some(*number)).collect();
            let columns = [("text", Arc::new(texts) as ArrayRef), ("number", Arc::new(numbers) as ArrayRef)];
            Sum::of(&RecordBatch::try_from_iter(columns).unwrap()).unwrap().hashes
        };
        let answer = rows(&[("ab", 12), ("cd", 13)]);
        assert_eq!(rows(&[("cd", 13), ("ab", 12)]), answer);
        for other in
            [[("ba", 12), ("cd", 13)], [("ab", 13), ("cd", 12)], [("ab1", 2), ("cd", 13)], [("ab", 11), ("cd", 14)]]
        {
            assert_ne!(rows(&other), answer, "{other:?}");
        }
    }

    #[test]
    fn of_changes_the_table_at_the_end_counts() {
        let change = |item: i64, stock: i64, op: u8| {
            let numbers = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
            let op = Arc::new(UInt8Array::from(vec![op])) as ArrayRef;
            RecordBatch::try_from_iter([("item", numbers(item)), ("stock", numbers(stock)), (OP, op)]).unwrap()
        };
        let changes = [change(7, 100, 0), change(3, 10, 0), change(7, 200, 1), change(4, 1, 0), change(3, 10, DELETE)];
        assert_eq!(total(Some(&[0]), &changes), sum_of(&["7\x1f200\x1f", "4\x1f1\x1f"]));
        let one_row = [change(7, 100, 0), change(8, 5, 1)];
        assert_eq!(total(Some(&[]), &one_row), sum_of(&["8\x1f5\x1f"]));
    }
}
