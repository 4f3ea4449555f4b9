//! A call for each batch: its distinct keys are looked up in a table, and the rows of the table joined to those of the
//! batch.
//!
//! ```text
//!   rows      shop 3, 7, 3, null, 5 ──► distinct keys 3, 7, 5 ──► Lookup ──► rows of shops 7, 3, 3
//!                │                                                              │
//!                └── by key, with take ─────────────────────────────────────────┘
//!   inner: 3·a 3·b 7 3·a 3·b          left: also null and 5, with nulls for the table's columns
//! ```
//!
//! What was found is joined a batch of pairs at a time, as they leave. With a condition pairs that do not meet it are
//! dropped on the way; then a left lookup gives a row alone when none of its pairs has met it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array},
    compute::{take, take_record_batch},
    datatypes::{DataType, Field, SchemaRef},
    row::{RowConverter, SortField},
};
use datafusion_expr::Expr;
use futures::future::BoxFuture;
use windrow_connectors::{ConnectorError, Lookup};
use windrow_operators::{OperatorError, Result, StreamSchema, join::PairCondition, key::check_key, schema::index_of};

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
#[derive(Clone)]
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
    condition: Option<Arc<PairCondition>>,
    input: StreamSchema,
    output: StreamSchema,
}

/// A row, and a row of the table.
type Pair = (u32, u32);

/// What was found for a batch, as far as it has not left.
pub(crate) struct Found {
    rows: RecordBatch,
    found: RecordBatch,
    distinct: Distinct,
    /// By number of a key: the rows that were found for it.
    matches: Vec<Vec<u32>>,
    /// The row that comes next, which of its partners, and whether one before that was a partner indeed.
    row: usize,
    partner: usize,
    met: bool,
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
        Ok(Self { table, columns, left, right, keys, further, kind, condition: None, input: input.clone(), output })
    }

    /// The same with a condition on the pairs.
    pub(crate) fn with_condition(&self, condition: &Expr) -> Result<Self> {
        let table = StreamSchema::without_time(self.columns.clone());
        let condition = Arc::new(PairCondition::new([&self.input, &table], condition)?);
        Ok(Self { condition: Some(condition), ..self.clone() })
    }

    pub(crate) fn input(&self) -> &StreamSchema {
        &self.input
    }

    /// The schema of the result.
    pub(crate) fn output(&self) -> &StreamSchema {
        &self.output
    }

    async fn find(&self, rows: RecordBatch) -> Result<Found, ConnectorError> {
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
        Ok(Found { rows, found, distinct, matches, row: 0, partner: 0, met: false })
    }

    /// The next pairs of what was found, and the rows that stay alone.
    fn join(&self, found: &mut Found) -> Result<RecordBatch> {
        let (pairs, ends) = found.next_pairs();
        let left = |pairs: &[Pair]| UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.0));
        let right = |pairs: &[Pair]| UInt32Array::from_iter_values(pairs.iter().map(|pair| pair.1));
        let mask = match &self.condition {
            Some(condition) => Some(condition.meets(pairs.len(), |side, column| match side {
                0 => Ok(take(found.rows.column(column), &left(&pairs), None)?),
                _ => Ok(take(found.found.column(column), &right(&pairs), None)?),
            })?),
            None => None,
        };
        let (mut left, mut right) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
        let mut ends = ends.into_iter().peekable();
        for pair in 0..=pairs.len() {
            // Rows whose last pair was before this one.
            while let Some((_, row)) = ends.next_if(|(end, _)| *end == pair) {
                if !std::mem::take(&mut found.met) && self.kind == LookupKind::Left {
                    left.push(row);
                    right.push(None);
                }
            }
            if pair < pairs.len() && mask.as_ref().is_none_or(|mask| mask.value(pair)) {
                found.met = true;
                left.push(pairs[pair].0);
                right.push(Some(pairs[pair].1));
            }
        }
        let rows = take_record_batch(&found.rows, &UInt32Array::from(left))?;
        let right = UInt32Array::from(right);
        let further = self.further.iter().map(|&column| take(found.found.column(column), &right, None));
        extend(&self.input, &self.output, rows.columns(), further.collect::<Result<Vec<_>, _>>()?)
    }

    /// An answer with other columns than those that were declared is a mistake of the table.
    fn check(&self, found: &RecordBatch) -> Result<(), ConnectorError> {
        let (own, other) = (self.columns.fields(), found.schema_ref().fields());
        let same = own.iter().zip(other).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !same || own.len() != other.len() {
            return Err(self.wrong(format!("it gave {}, but its columns are {}", found.schema_ref(), self.columns)));
        }
        match own.iter().zip(found.columns()).find(|(field, column)| !field.is_nullable() && column.null_count() > 0) {
            None => Ok(()),
            Some((field, _)) => Err(self.wrong(format!("it gave a null in {:?}, which has none", field.name()))),
        }
    }

    fn wrong(&self, reason: String) -> ConnectorError {
        ConnectorError::Data { at: self.table.name(), reason }
    }
}

impl Found {
    /// The next pairs, and by place among them the rows whose last pair is before it. Pairs and rows
    /// without one are together at most a batch; a row whose pairs are all dropped leaves in the place of one of them.
    fn next_pairs(&mut self) -> (Vec<Pair>, Vec<(usize, u32)>) {
        let (mut pairs, mut ends, mut alone) = (Vec::new(), Vec::new(), 0);
        while pairs.len() + alone < BATCH_ROWS && self.row < self.rows.num_rows() {
            let partners = self.distinct.keys[self.row].map_or(&[][..], |key| self.matches[key as usize].as_slice());
            let left = &partners[self.partner..];
            let next = &left[..left.len().min(BATCH_ROWS - pairs.len() - alone)];
            pairs.extend(next.iter().map(|partner| (self.row as u32, *partner)));
            self.partner += next.len();
            if self.partner == partners.len() {
                alone += usize::from(next.is_empty());
                ends.push((pairs.len(), self.row as u32));
                (self.row, self.partner) = (self.row + 1, 0);
            }
        }
        (pairs, ends)
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
    type Done = Found;

    fn what(&self) -> String {
        let on = self.left.iter().zip(&self.right).map(|(&left, &right)| {
            format!("left.{} = right.{}", self.input.columns().field(left).name(), self.columns.field(right).name())
        });
        format!("a lookup in {} on {}", self.table.name(), on.collect::<Vec<_>>().join(" and "))
    }

    fn unit_rows(&self) -> usize {
        BATCH_ROWS
    }

    fn call(self: Arc<Self>, rows: RecordBatch) -> BoxFuture<'static, Result<Found, String>> {
        Box::pin(async move { self.find(rows).await.map_err(|error| error.to_string()) })
    }

    fn results(&self, found: &Found) -> usize {
        found.distinct.keys.iter().flatten().map(|key| found.matches[*key as usize].len()).sum()
    }

    fn next_batch(&self, done: &mut VecDeque<(Piece, Found)>) -> Result<Option<RecordBatch>> {
        let Some((_, found)) = done.front_mut() else { return Ok(None) };
        let batch = self.join(found)?;
        if found.row == found.rows.num_rows() {
            done.pop_front();
        }
        Ok(Some(batch))
    }

    fn open(&self) -> BoxFuture<'_, Result<(), ConnectorError>> {
        self.table.open(&self.keys)
    }

    fn warning(&self) -> Option<String> {
        self.table.warning()
    }
}
