//! A call for each batch: its distinct keys are looked up in a table, and the rows of the table joined to those of the
//! batch.
//!
//! ```text
//!   rows      shop 3, 7, 3, null, 5 ──► distinct keys 3, 7, 5 ──► Lookup ──► rows of shops 7, 3, 3
//!                │                                                              │
//!                └── by key, with take ─────────────────────────────────────────┘
//!   inner: 3·a 3·b 7 3·a 3·b          left: also null and 5, with nulls for the table's columns
//! ```

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{take, take_record_batch},
    datatypes::{DataType, Field, SchemaRef},
    row::{RowConverter, SortField},
};
use futures::future::BoxFuture;
use windrow_connectors::{ConnectorError, Lookup};
use windrow_operators::{OperatorError, Result, StreamSchema, key::check_key, schema::index_of};

use super::{
    BATCH_ROWS, Piece, Work,
    rows::{extend, extended},
};

/// What becomes of rows that the table has nothing for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// They are dropped.
    Inner,
    /// They stay, with nulls for the columns of the table.
    Left,
}

/// Enriches the rows of a stream from a table.
pub(crate) struct LookupCalls {
    table: Arc<dyn Lookup>,
    columns: SchemaRef,
    /// The key among the columns of the stream, and among those of the table.
    left: Vec<usize>,
    right: Vec<usize>,
    /// The columns of the key as the table calls them.
    keys: SchemaRef,
    /// The columns of the table that come to the rows.
    further: Vec<usize>,
    kind: LookupKind,
    input: StreamSchema,
    output: StreamSchema,
}

impl LookupCalls {
    /// `on` are the columns of the key, in the stream and in the table.
    pub(crate) fn new(
        input: &StreamSchema,
        table: Arc<dyn Lookup>,
        on: &[(String, String)],
        kind: LookupKind,
    ) -> Result<Self> {
        let about = |error: OperatorError| OperatorError::Plan(format!("table {}: {error}", table.name()));
        let columns = table.schema().map_err(|error| OperatorError::Plan(error.to_string()))?;
        if on.is_empty() {
            return Err(OperatorError::Plan("name at least one column of the key".into()));
        }
        let left = on.iter().map(|(left, _)| input.index_of(left)).collect::<Result<Vec<_>>>()?;
        let right = on.iter().map(|(_, right)| index_of(&columns, right)).collect::<Result<Vec<_>>>();
        let right = right.map_err(about)?;
        check_key(input.columns(), &left)?;
        if let Some(place) = (0..right.len()).find(|&place| right[..place].contains(&right[place])) {
            let name = columns.field(right[place]).name();
            return Err(about(OperatorError::Plan(format!("the key has the column {name:?} twice"))));
        }
        for (&left, &right) in left.iter().zip(&right) {
            let (own, other) = (input.columns().field(left), columns.field(right));
            if own.data_type() != other.data_type() {
                return Err(OperatorError::Plan(format!(
                    "column {:?} is {}, but {:?} of the table is {}: make them the same with windrow::cast in a .select(…)",
                    own.name(),
                    own.data_type(),
                    other.name(),
                    other.data_type()
                )));
            }
            if matches!(own.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64) {
                let name = own.name();
                return Err(OperatorError::Plan(format!("column {name:?} is a float: a lookup by it would miss rows")));
            }
        }
        let keys = Arc::new(columns.project(&right)?);
        let further: Vec<usize> = (0..columns.fields().len()).filter(|column| !right.contains(column)).collect();
        let field = |&column: &usize| -> Field {
            let field = columns.field(column);
            field.clone().with_nullable(field.is_nullable() || kind == LookupKind::Left)
        };
        let output = extended(input, &further.iter().map(field).collect::<Vec<_>>())?;
        Ok(Self { table, columns, left, right, keys, further, kind, input: input.clone(), output })
    }

    /// The schema of the result.
    pub(crate) fn output(&self) -> &StreamSchema {
        &self.output
    }

    async fn join(&self, rows: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let keys: Vec<ArrayRef> = self.left.iter().map(|&column| rows.column(column).clone()).collect();
        let fields = self.keys.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let distinct = Distinct::of(&converter, &keys, rows.num_rows())?;
        let found = match distinct.first.is_empty() {
            true => RecordBatch::new_empty(self.columns.clone()),
            false => {
                let first = UInt32Array::from(distinct.first.clone());
                let asked = keys.iter().map(|column| take(column, &first, None)).collect::<Result<Vec<_>, _>>()?;
                self.table.lookup(RecordBatch::try_new(self.keys.clone(), asked)?).await?
            }
        };
        self.check(&found)?;
        let theirs: Vec<ArrayRef> = self.right.iter().map(|&column| found.column(column).clone()).collect();
        let matches = distinct.matches(&converter, &theirs, found.num_rows())?;
        let (mut left, mut right) = (Vec::with_capacity(rows.num_rows()), Vec::with_capacity(rows.num_rows()));
        for (row, key) in (0..).zip(&distinct.keys) {
            let own = key.map_or(&[][..], |key| matches[key as usize].as_slice());
            left.extend(std::iter::repeat_n(row, own.len()));
            right.extend(own.iter().copied().map(Some));
            if own.is_empty() && self.kind == LookupKind::Left {
                left.push(row);
                right.push(None);
            }
        }
        let rows = take_record_batch(rows, &UInt32Array::from(left))?;
        let right = UInt32Array::from(right);
        let further = self.further.iter().map(|&column| take(found.column(column), &right, None));
        let further = further.collect::<Result<Vec<_>, _>>()?;
        let joined = extend(&self.input, &self.output, rows.columns(), further);
        joined.map_err(|error| self.wrong(error.to_string()))
    }

    /// An answer with other columns than those that were declared is a mistake of the table.
    fn check(&self, found: &RecordBatch) -> Result<(), ConnectorError> {
        let (own, other) = (self.columns.fields(), found.schema_ref().fields());
        let same = own.iter().zip(other).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        match same && own.len() == other.len() {
            true => Ok(()),
            false => Err(self.wrong(format!("it gave {}, but its columns are {}", found.schema_ref(), self.columns))),
        }
    }

    fn wrong(&self, reason: String) -> ConnectorError {
        ConnectorError::Data { at: self.table.name(), reason }
    }
}

/// The different keys of rows.
struct Distinct {
    numbers: HashMap<Box<[u8]>, u32>,
    /// The first row of each.
    first: Vec<u32>,
    /// Of each row the number of its key; none when it holds a null.
    keys: Vec<Option<u32>>,
}

impl Distinct {
    fn of(converter: &RowConverter, columns: &[ArrayRef], rows: usize) -> Result<Self, ConnectorError> {
        let encoded = converter.convert_columns(columns)?;
        let mut distinct = Self { numbers: HashMap::new(), first: Vec::new(), keys: Vec::with_capacity(rows) };
        for row in 0..rows {
            if !has_key(columns, row) {
                distinct.keys.push(None);
                continue;
            }
            let bytes = encoded.row(row);
            let number = match distinct.numbers.get(bytes.as_ref()) {
                Some(number) => *number,
                None => {
                    let number = distinct.first.len() as u32;
                    distinct.first.push(row as u32);
                    distinct.numbers.insert(bytes.as_ref().into(), number);
                    number
                }
            };
            distinct.keys.push(Some(number));
        }
        Ok(distinct)
    }

    /// By number of a key: the rows that have it, in order.
    fn matches(
        &self,
        converter: &RowConverter,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Vec<u32>>, ConnectorError> {
        let mut matches = vec![Vec::new(); self.first.len()];
        let encoded = converter.convert_columns(columns)?;
        for row in (0..rows).filter(|row| has_key(columns, *row)) {
            if let Some(number) = self.numbers.get(encoded.row(row).as_ref()) {
                matches[*number as usize].push(row as u32);
            }
        }
        Ok(matches)
    }
}

/// A null is no key.
fn has_key(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().all(|column| column.is_valid(row))
}

impl Work for LookupCalls {
    type Done = RecordBatch;

    fn unit_rows(&self) -> usize {
        BATCH_ROWS
    }

    fn call(self: Arc<Self>, rows: RecordBatch) -> BoxFuture<'static, Result<RecordBatch, String>> {
        Box::pin(async move { self.join(&rows).await.map_err(|error| error.to_string()) })
    }

    fn build(&self, done: Vec<(Piece, RecordBatch)>) -> Result<Vec<RecordBatch>> {
        let cut = |(_, rows): (Piece, RecordBatch)| {
            let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
            starts.map(move |start| rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start)))
        };
        Ok(done.into_iter().flat_map(cut).collect())
    }

    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>> {
        self.table.open(&self.keys)
    }

    fn warning(&self) -> Option<String> {
        self.table.warning()
    }
}
