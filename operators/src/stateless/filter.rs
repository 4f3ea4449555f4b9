//! Keeps the rows that meet a condition.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use crate::{
    Operator, Outbox, Port, Result, StreamSchema,
    expr::{Lowering, evaluate_condition},
};

/// Keeps the rows for which an expression is true. The schema stays as it is.
///
/// ```
/// use arrow::array::{Int64Array, RecordBatch};
/// use datafusion_expr::{col, lit};
/// use std::sync::Arc;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, stateless::Filter};
///
/// let batch = RecordBatch::try_from_iter([("price", Arc::new(Int64Array::from(vec![5, 500])) as _)]).unwrap();
/// let stream = StreamSchema::without_time(batch.schema());
/// let mut filter = Filter::new(&stream, &col("price").gt(lit(100))).unwrap();
/// let mut out = Outbox::new();
/// filter.process(Port::MAIN, batch, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    condition: Arc<dyn PhysicalExpr>,
}

impl Filter {
    /// Over rows of `stream`. Fails when the expression names an unknown column or is not a condition.
    pub fn new(stream: &StreamSchema, condition: &Expr) -> Result<Self> {
        stream.expect_rows("a filter of rows")?;
        Ok(Self { condition: Lowering::new(stream)?.condition(condition)? })
    }
}

impl Operator for Filter {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let keep = evaluate_condition(self.condition.as_ref(), &batch)?;
        emit_kept(batch, &keep, out)
    }
}

/// Emits the rows to keep; a batch that is kept whole is not copied.
pub(crate) fn emit_kept(batch: RecordBatch, keep: &BooleanArray, out: &mut Outbox) -> Result<()> {
    out.processed(batch.num_rows());
    match keep.true_count() {
        kept if kept == batch.num_rows() => out.emit(batch),
        0 => {}
        _ => out.emit(filter_record_batch(&batch, keep)?),
    }
    Ok(())
}
