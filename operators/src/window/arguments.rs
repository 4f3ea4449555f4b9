//! What the aggregates of a window are fed with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use datafusion_common::ScalarValue;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::{PhysicalExpr, aggregate::LoweredAggregate};

use super::split::Selection;
use crate::{Result, expr::evaluate_condition};

/// The arguments of each aggregate over a batch, and which rows it takes (`FILTER`).
pub(crate) struct Arguments {
    pub(crate) values: Vec<Vec<ArrayRef>>,
    pub(crate) filters: Vec<Option<BooleanArray>>,
}

impl Arguments {
    /// Those of the selected rows.
    pub(super) fn select(&self, selection: &Selection) -> Result<Self> {
        let values = self.values.iter().map(|columns| columns.iter().map(|c| selection.array(c)).collect());
        let filters = self.filters.iter().map(|filter| {
            let Some(filter) = filter else { return Ok(None) };
            let selected = selection.array(&(Arc::new(filter.clone()) as ArrayRef))?;
            Ok(Some(BooleanArray::from(selected.to_data())))
        });
        Ok(Self { values: values.collect::<Result<_>>()?, filters: filters.collect::<Result<_>>()? })
    }
}

/// Evaluates the arguments of aggregates, once for a whole batch, before it is cut into slices.
#[derive(Default)]
pub(crate) struct ArgumentReader {
    /// The arrays of constants such as the 1 in `count(1)`, which would otherwise be filled anew for every batch.
    constants: Vec<(ScalarValue, ArrayRef)>,
}

impl ArgumentReader {
    pub(crate) fn read(&mut self, aggregates: &[LoweredAggregate], batch: &RecordBatch) -> Result<Arguments> {
        let mut arguments = Arguments { values: Vec::new(), filters: Vec::new() };
        for lowered in aggregates {
            let expressions = lowered.aggregate.expressions();
            let values = expressions.iter().map(|expr| self.value(expr.as_ref(), batch));
            arguments.values.push(values.collect::<Result<_>>()?);
            let filter = lowered.filter.as_ref().map(|filter| evaluate_condition(filter.as_ref(), batch));
            arguments.filters.push(filter.transpose()?);
        }
        Ok(arguments)
    }

    fn value(&mut self, expr: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        let scalar = match expr.evaluate(batch)? {
            ColumnarValue::Array(array) => return Ok(array),
            ColumnarValue::Scalar(scalar) => scalar,
        };
        if let Some((_, array)) = self.constants.iter().find(|(known, array)| *known == scalar && array.len() >= rows) {
            return Ok(array.slice(0, rows));
        }
        let array = scalar.to_array_of_size(rows)?;
        self.constants.retain(|(known, _)| *known != scalar);
        self.constants.push((scalar, array.clone()));
        Ok(array)
    }
}
