//! Aggregates at work: one accumulator for each, all over the same groups.
//!
//! DataFusion's accumulators give the states, or the values, of all groups and lose them by that. Whoever goes on puts the states
//! into new ones, and whoever wants the values of some groups takes their states into ones that are only for that.

use arrow::array::ArrayRef;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::LoweredAggregate;

use super::{Aggregates, Arguments};
use crate::Result;

/// Groups are numbered from 0, and `groups` are as many as there are with those that are new.
pub(crate) struct Accumulators {
    /// With how many state columns each has.
    each: Vec<(Box<dyn GroupsAccumulator>, usize)>,
}

impl Accumulators {
    /// Without groups.
    pub(crate) fn new(aggregates: &Aggregates) -> Result<Self> {
        let each = aggregates.each().map(|(lowered, width)| Ok((accumulator(lowered)?, width)));
        Ok(Self { each: each.collect::<Result<_>>()? })
    }

    /// Adds rows, given the group of each.
    pub(crate) fn update(&mut self, arguments: &Arguments, group_of: &[usize], groups: usize) -> Result<()> {
        for ((accumulator, _), (values, filter)) in self.each.iter_mut().zip(arguments.each()) {
            accumulator.update_batch(values, group_of, filter, groups)?;
        }
        Ok(())
    }

    /// Adds states that others gave, in columns, given the group of each.
    pub(crate) fn merge(&mut self, mut states: &[ArrayRef], group_of: &[usize], groups: usize) -> Result<()> {
        for (accumulator, width) in &mut self.each {
            let (own, others) = states.split_at(*width);
            accumulator.merge_batch(own, group_of, groups)?;
            states = others;
        }
        Ok(())
    }

    /// The states of all groups. They are of no use any more: not every accumulator forgets all that it gave.
    pub(crate) fn states(&mut self) -> Result<Vec<ArrayRef>> {
        let mut states = Vec::new();
        for (accumulator, _) in &mut self.each {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(states)
    }

    /// The final values of all groups. They are of no use any more.
    pub(crate) fn values(&mut self) -> Result<Vec<ArrayRef>> {
        let values = self.each.iter_mut().map(|(accumulator, _)| accumulator.evaluate(EmitTo::All));
        Ok(values.collect::<Result<_, _>>()?)
    }

    /// Each row as the state of a group of its own, without becoming one.
    pub(crate) fn states_of_rows(&self, arguments: &Arguments) -> Result<Vec<ArrayRef>> {
        let mut states = Vec::new();
        for ((accumulator, _), (values, filter)) in self.each.iter().zip(arguments.each()) {
            states.extend(accumulator.convert_to_state(values, filter)?);
        }
        Ok(states)
    }

    /// How many state columns they have.
    pub(crate) fn width(&self) -> usize {
        self.each.iter().map(|(_, width)| width).sum()
    }

    /// About how many bytes they hold and are. Some count group by group.
    pub(crate) fn size(&self) -> usize {
        self.each.iter().map(|(accumulator, _)| size_of_val(&**accumulator) + accumulator.size()).sum()
    }
}

/// An accumulator without groups. An aggregate without a vectorised form runs through an adapter.
pub(super) fn accumulator(lowered: &LoweredAggregate) -> datafusion_common::Result<Box<dyn GroupsAccumulator>> {
    let aggregate = lowered.aggregate.clone();
    if aggregate.groups_accumulator_supported() {
        return aggregate.create_groups_accumulator();
    }
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())))
}
