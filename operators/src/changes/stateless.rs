//! What becomes of changes on their way, without state: filter, project, and back to rows.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt8Array},
    datatypes::{DataType, Field, Schema, UInt8Type},
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use super::{DELETE, INSERT, UPDATE};
use crate::{
    Operator, OperatorError, Outbox, Port, Result, StreamSchema,
    expr::{Lowering, columns_of, evaluate, evaluate_condition},
    schema::no_duplicates,
};

/// The first column of what a [`Changelog`] gives: `insert`, `update` or `delete`.
pub const OP_COLUMN: &str = "op";

/// What each change of a batch does.
pub(super) fn ops<'b>(stream: &StreamSchema, batch: &'b RecordBatch) -> Result<&'b UInt8Array> {
    let ops = stream.op().and_then(|op| batch.column(op).as_primitive_opt::<UInt8Type>());
    ops.ok_or_else(|| OperatorError::Internal("a batch without the column of changes came as changes".into()))
}

/// Keeps the rows of a table for which an expression is true.
///
/// A row that does not meet the condition goes on as a delete of its key, because it may have met it before. No state is kept
/// to tell whether it did: so behind a filter a delete may name a key that was never there, and the first change of a key may be
/// an update.
#[derive(Clone, Debug)]
pub struct ChangeFilter {
    condition: Arc<dyn PhysicalExpr>,
    stream: StreamSchema,
}

impl ChangeFilter {
    /// Over the changes `stream`. Fails when it is a stream of rows, or the expression names an unknown column or is not a
    /// condition.
    pub fn new(stream: &StreamSchema, condition: &Expr) -> Result<Self> {
        stream.expect_changes("a filter of changes")?;
        Ok(Self { condition: Lowering::new(stream)?.condition(condition)?, stream: stream.clone() })
    }
}

impl Operator for ChangeFilter {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        out.processed(batch.num_rows());
        let keep = evaluate_condition(self.condition.as_ref(), &batch)?;
        if keep.true_count() == batch.num_rows() {
            out.emit(batch);
            return Ok(());
        }
        let ops = ops(&self.stream, &batch)?.values().iter().zip(keep.values());
        let ops = UInt8Array::from_iter_values(ops.map(|(&op, keep)| if keep { op } else { DELETE }));
        let mut columns = batch.columns().to_vec();
        if let Some(op) = self.stream.op() {
            columns[op] = Arc::new(ops);
        }
        out.emit(RecordBatch::try_new(self.stream.columns().clone(), columns)?);
        Ok(())
    }
}

/// Gives the values of expressions as the new columns of a table, among which the key must be.
#[derive(Clone, Debug)]
pub struct ChangeProject {
    columns: Vec<Arc<dyn PhysicalExpr>>,
    output: StreamSchema,
}

impl ChangeProject {
    /// Over the changes `stream`. Fails when it is a stream of rows, an expression names an unknown column, two results share a
    /// name, or a column of the key is not among the results, as it is or under another name.
    pub fn new(stream: &StreamSchema, expressions: &[Expr]) -> Result<Self> {
        let key = stream.expect_changes("a projection of changes")?;
        let lowering = Lowering::new(stream)?;
        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        for expr in expressions {
            let (physical, data_type) = lowering.scalar(expr)?;
            let name = expr.schema_name().to_string();
            fields.push(Field::new(name, data_type, lowering.nullable(physical.as_ref())?));
            columns.push(physical);
        }
        no_duplicates(&fields)?;
        let name_of = |&column: &usize| {
            let name = stream.columns().field(column).name();
            let kept = expressions.iter().find(|expr| column_of(expr) == Some(name));
            kept.map(|expr| expr.schema_name().to_string()).ok_or_else(|| {
                OperatorError::Plan(format!(
                    "the projection drops {name:?}, a column of the key of the changes: keep it, as it is or with .alias(…)"
                ))
            })
        };
        let key = key.iter().map(name_of).collect::<Result<Vec<_>>>()?;
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        let visible = Schema::new(fields);
        let output = match stream.time() {
            Some(_) => StreamSchema::changes(&visible, &key)?,
            None => StreamSchema::changes_without_time(&visible, &key)?,
        };
        Ok(Self { columns, output })
    }

    /// The schema of the result.
    pub fn output(&self) -> &StreamSchema {
        &self.output
    }

    /// Which column of the input each column of the result is, as it came and whatever it is called; `None` for what is
    /// computed.
    pub fn kept(&self) -> Vec<Option<usize>> {
        columns_of(&self.columns)
    }
}

/// The column that `expr` is, perhaps under another name.
fn column_of(expr: &Expr) -> Option<&String> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        Expr::Alias(alias) => column_of(&alias.expr),
        _ => None,
    }
}

impl Operator for ChangeProject {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let values = self.columns.iter().map(|column| evaluate(column.as_ref(), &batch));
        let mut columns = values.collect::<Result<Vec<ArrayRef>>>()?;
        let hidden = self.output.columns().fields().len() - columns.len();
        columns.extend_from_slice(&batch.columns()[batch.num_columns() - hidden..]);
        out.processed(batch.num_rows());
        out.emit(RecordBatch::try_new(self.output.columns().clone(), columns)?);
        Ok(())
    }
}

/// Makes ordinary rows of changes: a first column `op` says what each does, and the row of a delete is the last one.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{AsArray, Int64Array, RecordBatch, UInt8Array};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, changes::Changelog};
///
/// let visible = Schema::new(vec![Field::new("item", DataType::Int64, false)]);
/// let stream = StreamSchema::changes_without_time(&visible, &["item"]).unwrap();
/// let columns = vec![Arc::new(Int64Array::from(vec![7, 7])) as _, Arc::new(UInt8Array::from(vec![0, 2])) as _];
/// let batch = RecordBatch::try_new(stream.columns().clone(), columns).unwrap();
///
/// let mut changelog = Changelog::new(&stream).unwrap();
/// let mut out = Outbox::new();
/// changelog.process(Port::MAIN, batch, &mut out).unwrap();
/// let (_, rows) = out.drain().next().unwrap();
/// assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["insert", "delete"]);
/// assert_eq!(changelog.output().to_string(), "op Utf8, item Int64");
/// ```
#[derive(Clone, Debug)]
pub struct Changelog {
    input: StreamSchema,
    output: StreamSchema,
}

impl Changelog {
    /// Of the changes `stream`. Fails when it is a stream of rows, or has a column `op`.
    pub fn new(stream: &StreamSchema) -> Result<Self> {
        stream.expect_changes("a changelog")?;
        let mut fields = vec![Field::new(OP_COLUMN, DataType::Utf8, false)];
        fields.extend(stream.visible().fields().iter().map(|field| field.as_ref().clone()));
        no_duplicates(&fields)?;
        let output = match stream.time() {
            Some(_) => StreamSchema::with_hidden_time(&Schema::new(fields))?,
            None => StreamSchema::without_time(Arc::new(Schema::new(fields))),
        };
        Ok(Self { input: stream.clone(), output })
    }

    /// The schema of the rows.
    pub fn output(&self) -> &StreamSchema {
        &self.output
    }

    /// Which column of the input each column of the rows is.
    pub fn kept(&self) -> Vec<Option<usize>> {
        std::iter::once(None).chain((0..self.input.visible().fields().len()).map(Some)).collect()
    }
}

impl Operator for Changelog {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let word = |&op: &u8| match op {
            INSERT => "insert",
            UPDATE => "update",
            _ => "delete",
        };
        let words = StringArray::from_iter_values(ops(&self.input, &batch)?.values().iter().map(word));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(words)];
        columns.extend(self.input.show(&batch)?.columns().iter().cloned());
        columns.extend(self.input.time().map(|time| batch.column(time).clone()));
        out.processed(batch.num_rows());
        out.emit(RecordBatch::try_new(self.output.columns().clone(), columns)?);
        Ok(())
    }
}
