//! What aggregates are fed with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use datafusion_common::ScalarValue;
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;

use super::Aggregates;
use crate::{Result, expr::evaluate_condition};

/// The arguments of each aggregate over a batch, and which rows it takes (`FILTER`).
pub(crate) struct Arguments {
    values: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl Arguments {
    /// By aggregate: the values, and which rows it takes.
    pub(super) fn each(&self) -> impl Iterator<Item = (&[ArrayRef], Option<&BooleanArray>)> {
        self.values.iter().map(Vec::as_slice).zip(self.filters.iter().map(Option::as_ref))
    }

    /// Those of some rows, which `part` takes of a column.
    pub(crate) fn of_rows(&self, part: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<Self> {
        let values = self.values.iter().map(|columns| columns.iter().map(&part).collect());
        let filters = self.filters.iter().map(|filter| {
            let Some(filter) = filter else { return Ok(None) };
            let selected = part(&(Arc::new(filter.clone()) as ArrayRef))?;
            Ok(Some(BooleanArray::from(selected.to_data())))
        });
        Ok(Self { values: values.collect::<Result<_>>()?, filters: filters.collect::<Result<_>>()? })
    }
}

/// Evaluates the arguments of aggregates, once for a whole batch.
#[derive(Default)]
pub(crate) struct ArgumentReader {
    /// The arrays of constants such as the 1 in `count(1)`, which would otherwise be filled anew for every batch.
    constants: Vec<(ScalarValue, ArrayRef)>,
}

impl ArgumentReader {
    pub(crate) fn read(&mut self, aggregates: &Aggregates, batch: &RecordBatch) -> Result<Arguments> {
        let mut arguments = Arguments { values: Vec::new(), filters: Vec::new() };
        for (lowered, _) in aggregates.each() {
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
