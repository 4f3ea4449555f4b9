//! Computes new columns from the old ones.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use crate::{
    Operator, Outbox, Port, Result, StreamSchema,
    expr::{Lowering, columns_of, evaluate},
    schema::HIDDEN_TIME,
};

/// Gives the values of expressions as the new columns. Event time stays with the row: under its name when the
/// expressions keep the column as it is, hidden otherwise.
#[derive(Clone, Debug)]
pub struct Project {
    columns: Vec<Arc<dyn PhysicalExpr>>,
    /// The input column that goes on as hidden event time.
    hide: Option<usize>,
    output: StreamSchema,
}

impl Project {
    /// Over rows of `stream`. Fails when an expression names an unknown column or two results share a name.
    pub fn new(stream: &StreamSchema, expressions: &[Expr]) -> Result<Self> {
        stream.expect_rows("a projection of rows")?;
        let lowering = Lowering::new(stream)?;
        let mut columns = Vec::with_capacity(expressions.len());
        let mut fields = Vec::with_capacity(expressions.len());
        let mut kept_time = None;
        for expr in expressions {
            let (physical, data_type) = lowering.scalar(expr)?;
            let name = expr.schema_name().to_string();
            if stream.time().is_some_and(|time| is_column(expr, stream.columns().field(time).name())) {
                kept_time = Some(name.clone());
            }
            fields.push(Field::new(name, data_type, lowering.nullable(physical.as_ref())?));
            columns.push(physical);
        }
        crate::schema::no_duplicates(&fields)?;
        let visible = Schema::new(fields);
        let (output, hide) = match (stream.time(), kept_time) {
            (None, _) => (StreamSchema::without_time(Arc::new(visible)), None),
            (Some(_), Some(name)) => (StreamSchema::with_time(Arc::new(visible), &name)?, None),
            (time, None) => (StreamSchema::with_hidden_time(&visible)?, time),
        };
        Ok(Self { columns, hide, output })
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

/// Whether `expr` is the column `name` itself, perhaps under another name.
fn is_column(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Column(column) => column.name == name && name != HIDDEN_TIME,
        Expr::Alias(alias) => is_column(&alias.expr, name),
        _ => false,
    }
}

impl Operator for Project {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            columns.push(evaluate(column.as_ref(), &batch)?);
        }
        columns.extend(self.hide.map(|time| batch.column(time).clone()));
        out.processed(batch.num_rows());
        out.emit(RecordBatch::try_new(self.output.columns().clone(), columns)?);
        Ok(())
    }
}
