//! A sink that keeps nothing but a checksum of the answer, which another engine's answer can be put beside.
//!
//! ```text
//!   row      5  "ab"  2015-07-15T00:00:01Z  0.5   ──►   5 + 2 + 1436918401000000 + 500
//!            │   └ its bytes   └ microseconds  └ thousandths, rounded
//!   rows: how many, and the sum of that, which wraps
//!   changes: the same of the table as it is at the end
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use windrow::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type, SchemaRef, UInt8Type},
    },
    connectors::{ConnectorError, Epoch, Incarnation, OP, Receipt, Sink, SinkWriter},
    operators::changes::DELETE,
};

/// Changes by the hash of their key: what its row adds to the sum.
type Table = HashMap<u64, i64, foldhash::fast::FixedState>;

/// Adds up all results of a job without checkpoints, at its end. A clone adds to the same sums.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The columns of the key, of changes.
    key: Option<Vec<usize>>,
    rows: u64,
    sum: i64,
}

struct Writer {
    shared: Checksum,
    key: Option<Vec<usize>>,
    rows: u64,
    sum: i64,
    table: Table,
}

impl Checksum {
    /// Of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of rows and the sum of their values, once the job has ended.
    pub fn total(&self) -> (u64, i64) {
        let shared = self.shared();
        (shared.rows, shared.sum)
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
        Ok(Box::new(Writer { shared: self.clone(), key, rows: 0, sum: 0, table: Table::default() }))
    }
}

#[async_trait::async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        match &self.key {
            None => {
                self.rows += batch.num_rows() as u64;
                for column in batch.columns() {
                    self.sum = self.sum.wrapping_add(sum(column)?);
                }
            }
            Some(key) => change(&mut self.table, &batch, key)?,
        }
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        let mut shared = self.shared.shared();
        shared.rows += std::mem::take(&mut self.rows) + self.table.len() as u64;
        shared.sum = shared.sum.wrapping_add(std::mem::take(&mut self.sum));
        for (_, row) in self.table.drain() {
            shared.sum = shared.sum.wrapping_add(row);
        }
        Ok(Vec::new())
    }
}

/// The values of all rows of a column.
fn sum(column: &ArrayRef) -> Result<i64, ConnectorError> {
    if let (Some(texts), 0) = (column.as_string_opt::<i32>(), column.null_count()) {
        let offsets = texts.value_offsets();
        return Ok(offsets.last().zip(offsets.first()).map_or(0, |(last, first)| i64::from(last - first)));
    }
    Ok(values(column)?.iter().fold(0, |sum: i64, value| sum.wrapping_add(*value)))
}

/// What each value of a column adds to the sum; a null adds nothing.
fn values(column: &ArrayRef) -> Result<Vec<i64>, ConnectorError> {
    let of = |row: usize, value: i64| if column.is_null(row) { 0 } else { value };
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Ok((0..texts.len()).map(|row| of(row, texts.value_length(row).into())).collect());
    }
    if let Some(numbers) = column.as_primitive_opt::<Float64Type>() {
        let thousandths = |value: f64| (value * 1000.0).round() as i64;
        return Ok(numbers.values().iter().enumerate().map(|(row, value)| of(row, thousandths(*value))).collect());
    }
    let numbers = cast(column, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().values().iter().enumerate().map(|(row, value)| of(row, *value)).collect())
}

fn change(table: &mut Table, batch: &RecordBatch, key: &[usize]) -> Result<(), ConnectorError> {
    let rows = batch.num_rows();
    let (mut keys, mut sums) = (vec![0_u64; rows], vec![0_i64; rows]);
    for (index, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        if field.name() == OP {
            continue;
        }
        for (row, value) in values(column)?.into_iter().enumerate() {
            sums[row] = sums[row].wrapping_add(value);
            if key.contains(&index) {
                // A step of splitmix64: keys here are numbers.
                let mixed = (keys[row] ^ value as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
                keys[row] = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (mixed >> 27);
            }
        }
    }
    let ops = batch.column_by_name(OP).and_then(|ops| ops.as_primitive_opt::<UInt8Type>());
    for row in 0..rows {
        match ops.map(|ops| ops.value(row)) {
            Some(DELETE) => drop(table.remove(&keys[row])),
            _ => drop(table.insert(keys[row], sums[row])),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use windrow::{
        arrow::array::{Float64Array, Int64Array, StringArray, UInt8Array},
        prelude::Timestamp,
    };

    use super::*;

    fn total(key: Option<&[usize]>, batches: &[RecordBatch]) -> (u64, i64) {
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

    #[test]
    fn rows_add_what_is_said() {
        let columns: [(&str, ArrayRef); 5] = [
            ("number", Arc::new(Int64Array::from(vec![5, -7]))),
            ("text", Arc::new(StringArray::from(vec!["ab", "\u{e9}"]))),
            ("maybe", Arc::new(StringArray::from(vec![None, Some("xyz")]))),
            ("at", Timestamp::column(vec![1_436_918_401_000_000, 1])),
            ("share", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
        let first = 5 + 2 + 1_436_918_401_000_000 + 500;
        let second = -7 + 2 + 3 + 1;
        assert_eq!(total(None, std::slice::from_ref(&batch)), (2, first + second));
        assert_eq!(total(None, &[batch.slice(1, 1), batch.slice(0, 1), batch.slice(1, 1)]), (3, first + 2 * second));
    }

    #[test]
    fn of_changes_the_table_at_the_end_counts() {
        let change = |item: i64, stock: i64, op: u8| {
            let numbers = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
            let op = Arc::new(UInt8Array::from(vec![op])) as ArrayRef;
            RecordBatch::try_from_iter([("item", numbers(item)), ("stock", numbers(stock)), (OP, op)]).unwrap()
        };
        let changes = [change(7, 100, 0), change(3, 10, 0), change(7, 200, 1), change(4, 1, 0), change(3, 10, DELETE)];
        assert_eq!(total(Some(&[0]), &changes), (2, 7 + 200 + 4 + 1));
    }
}
