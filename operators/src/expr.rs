//! From a DataFusion expression, as a user writes it, to one that runs on batches.
//!
//! Types are coerced as SQL would (`col("price").gt(lit(100))` compares an `Int64` with an `Int32`), and an unknown
//! column is answered with the columns there are.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, cast::AsArray},
    datatypes::{DataType, SchemaRef},
};
use datafusion_common::{
    Column, DFSchema,
    tree_node::{Transformed, TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{
    BinaryExpr, Expr, ExprSchemable, execution_props::ExecutionProps, expr::AggregateFunction,
    physical_planning_context::PhysicalPlanningContext,
};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion_physical_expr::{
    PhysicalExpr,
    aggregate::{LoweredAggregate, LoweredAggregateBuilder},
    create_physical_expr, expressions,
};

use crate::{OperatorError, Result, StreamSchema, schema::index_of};

/// Lowers expressions over the visible columns of one stream.
pub struct Lowering {
    columns: SchemaRef,
    schema: DFSchema,
    props: ExecutionProps,
}

impl Lowering {
    /// For expressions over `stream`.
    pub fn new(stream: &StreamSchema) -> Result<Self> {
        let columns = stream.visible();
        let schema = DFSchema::try_from(columns.as_ref().clone())?;
        let props = ExecutionProps::new();
        Ok(Self { columns, schema, props })
    }

    /// An expression that gives one value per row, and the type of that value.
    pub fn scalar(&self, expr: &Expr) -> Result<(Arc<dyn PhysicalExpr>, DataType)> {
        let expr = self.coerce(expr)?;
        let physical = create_physical_expr(&expr, &self.schema, &self.props, &PhysicalPlanningContext::default())?;
        let data_type = physical.data_type(&self.columns)?;
        Ok((physical, data_type))
    }

    /// A condition; the error says so when the expression is something else.
    pub fn condition(&self, expr: &Expr) -> Result<Arc<dyn PhysicalExpr>> {
        let (physical, data_type) = self.scalar(expr)?;
        match data_type {
            DataType::Boolean => Ok(physical),
            other => Err(OperatorError::Plan(format!("{expr} is {other}, not a condition (true or false)"))),
        }
    }

    /// Whether the value of `expr` can be null.
    pub fn nullable(&self, expr: &dyn PhysicalExpr) -> Result<bool> {
        Ok(expr.nullable(&self.columns)?)
    }

    /// An aggregate such as `max(col("price")).alias("top")`, its arguments and its filter.
    pub fn aggregate(&self, expr: &Expr) -> Result<LoweredAggregate> {
        let coerced = self.coerce(expr)?;
        let Some(function) = aggregate_of(&coerced) else {
            return Err(OperatorError::Plan(format!("{expr} is not an aggregate such as count() or max(col(\"x\"))")));
        };
        if !function.params.order_by.is_empty() {
            return Err(OperatorError::Plan(format!("{expr}: ORDER BY inside an aggregate is not supported")));
        }
        // As it was written: coercion casts to a condition what is none, and the cast fails on rows.
        if let Some(filter) = aggregate_of(expr).and_then(|function| function.params.filter.as_ref()) {
            self.condition(filter)?;
        }
        let context = PhysicalPlanningContext::default();
        Ok(LoweredAggregateBuilder::new(&coerced, &self.schema, &self.columns, &self.props, &context).build()?)
    }

    fn coerce(&self, expr: &Expr) -> Result<Expr> {
        for column in expr.column_refs() {
            index_of(&self.columns, &column.name)?;
        }
        let mut wrong = None;
        expr.apply(|part| {
            wrong = self.incomparable(part);
            Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if let Some(wrong) = wrong {
            return Err(OperatorError::Plan(wrong));
        }
        let coerced = expr.clone().rewrite(&mut TypeCoercionRewriter::new(&self.schema));
        Ok(coerced.map_err(OperatorError::about(expr))?.data)
    }

    /// What is wrong with a comparison of text with a number. SQL makes a number of the text, and the first row whose text is
    /// none would fail the job.
    fn incomparable(&self, part: &Expr) -> Option<String> {
        use datafusion_expr::Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let Expr::BinaryExpr(BinaryExpr { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right }) = part else {
            return None;
        };
        let (a, b) = (left.get_type(&self.schema).ok()?, right.get_type(&self.schema).ok()?);
        (a.is_string() && b.is_numeric() || a.is_numeric() && b.is_string()).then(|| {
            format!(
                "{part} compares text with a number, {a} with {b}: to convert one of them say \
                 windrow::try_cast(…, DataType::…), which is null where it cannot be"
            )
        })
    }
}

/// The column of its rows that each of these is, as it came; `None` for what is computed.
pub(crate) fn columns_of(values: &[Arc<dyn PhysicalExpr>]) -> Vec<Option<usize>> {
    values.iter().map(|value| value.downcast_ref::<expressions::Column>().map(expressions::Column::index)).collect()
}

/// The aggregate that an expression is, whatever the name of its result.
pub(crate) fn aggregate_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => aggregate_of(&alias.expr),
        Expr::AggregateFunction(function) => Some(function),
        _ => None,
    }
}

/// An expression as the user wrote it, but for the name of its result, which is a column's. All that DataFusion prints,
/// because two must not look the same; but literals without their types.
pub(crate) fn describe(expr: &Expr) -> Result<String> {
    let plain = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            Expr::Literal(value, _) => {
                let text = match value.data_type() {
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => format!("'{value}'"),
                    _ => value.to_string(),
                };
                Transformed::yes(Expr::Column(Column::from_name(text)))
            }
            other => Transformed::no(other),
        })
    });
    Ok(plain?.data.to_string())
}

/// The value of `expr` for each row.
pub fn evaluate(expr: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<ArrayRef> {
    Ok(expr.evaluate(batch)?.into_array(batch.num_rows())?)
}

/// Which rows meet `condition`; null counts as no, as in SQL.
pub fn evaluate_condition(condition: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<BooleanArray> {
    let value = evaluate(condition, batch)?;
    let mask = value.as_boolean();
    Ok(match mask.null_count() {
        0 => mask.clone(),
        _ => arrow::compute::prep_null_mask_filter(mask),
    })
}
