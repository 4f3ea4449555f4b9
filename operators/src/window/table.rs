//! The groups of one slice: keys interned by DataFusion's `GroupValues`, one `GroupsAccumulator` per aggregate.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    datatypes::SchemaRef,
};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::LoweredAggregate;
use datafusion_physical_plan::aggregates::{
    group_values::{GroupValues, new_group_values},
    order::GroupOrdering,
};

use super::slices::Selection;
use crate::{
    Result,
    expr::{evaluate, evaluate_condition},
};

/// The arguments of each aggregate over a batch, and which rows it takes (`FILTER`).
pub(super) struct Arguments {
    values: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl Arguments {
    /// Evaluates them once for the whole batch, before it is cut into slices.
    pub(super) fn evaluate(aggregates: &[LoweredAggregate], batch: &RecordBatch) -> Result<Self> {
        let mut arguments = Self { values: Vec::new(), filters: Vec::new() };
        for lowered in aggregates {
            let expressions = lowered.aggregate.expressions();
            let values = expressions.iter().map(|expr| evaluate(expr.as_ref(), batch));
            arguments.values.push(values.collect::<Result<_>>()?);
            let filter = lowered.filter.as_ref().map(|filter| evaluate_condition(filter.as_ref(), batch));
            arguments.filters.push(filter.transpose()?);
        }
        Ok(arguments)
    }

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

/// One accumulator for all groups of a slice. An aggregate without a vectorised form runs through an adapter.
fn accumulator(lowered: &LoweredAggregate) -> Result<Box<dyn GroupsAccumulator>> {
    let aggregate = lowered.aggregate.clone();
    if aggregate.groups_accumulator_supported() {
        return Ok(aggregate.create_groups_accumulator()?);
    }
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}

/// Each row as the state of a group of its own: what pre-aggregation emits when it does not reduce.
pub(super) fn states_of_rows(aggregates: &[LoweredAggregate], arguments: &Arguments) -> Result<Vec<ArrayRef>> {
    let mut states = Vec::new();
    for ((lowered, values), filter) in aggregates.iter().zip(&arguments.values).zip(&arguments.filters) {
        states.extend(accumulator(lowered)?.convert_to_state(values, filter.as_ref())?);
    }
    Ok(states)
}

/// Groups and their aggregates.
pub(super) struct GroupTable {
    /// `None` when there are no key columns: all rows are one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    rows: usize,
}

impl GroupTable {
    pub(super) fn new(key: &SchemaRef, aggregates: &[LoweredAggregate]) -> Result<Self> {
        let keys = match key.fields().is_empty() {
            true => None,
            false => Some(new_group_values(key.clone(), &GroupOrdering::None)?),
        };
        Ok(Self { keys, accumulators: aggregates.iter().map(accumulator).collect::<Result<_>>()?, rows: 0 })
    }

    pub(super) fn groups(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    /// How many rows (or states) have gone into it.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes it holds. Not for every batch: some accumulators count group by group.
    pub(super) fn size(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        keys + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    /// Adds rows. `scratch` is reused between calls.
    pub(super) fn update(
        &mut self,
        key: &[ArrayRef],
        arguments: &Arguments,
        rows: usize,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let groups = self.intern(key, rows, scratch)?;
        let arguments = arguments.values.iter().zip(&arguments.filters);
        for (accumulator, (values, filter)) in self.accumulators.iter_mut().zip(arguments) {
            accumulator.update_batch(values, scratch, filter.as_ref(), groups)?;
        }
        Ok(())
    }

    /// Adds states that other tables emitted: for each row a key and the states of the aggregates, in order.
    pub(super) fn merge(
        &mut self,
        key: &[ArrayRef],
        mut states: &[ArrayRef],
        widths: &[usize],
        rows: usize,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let groups = self.intern(key, rows, scratch)?;
        for (accumulator, &width) in self.accumulators.iter_mut().zip(widths) {
            let (own, others) = states.split_at(width);
            accumulator.merge_batch(own, scratch, groups)?;
            states = others;
        }
        Ok(())
    }

    fn intern(&mut self, key: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<usize> {
        match &mut self.keys {
            Some(keys) => keys.intern(key, scratch)?,
            None => {
                scratch.clear();
                scratch.resize(rows, 0);
            }
        }
        self.rows += rows;
        Ok(self.groups())
    }

    /// The keys and the final values of all groups.
    pub(super) fn results(mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let values = self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All));
        let values = values.collect::<Result<_, _>>()?;
        Ok((self.take_keys()?, values))
    }

    /// The keys and the states of all groups.
    pub(super) fn states(mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let mut states = Vec::new();
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        Ok((self.take_keys()?, states))
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.keys.as_mut().map_or(Ok(Vec::new()), |keys| Ok(keys.emit(EmitTo::All)?))
    }
}
