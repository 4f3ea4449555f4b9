//! What a row has to reach: the least value among the n greatest so far, over all or of each key.
//!
//! ```text
//!   the value of each row    5   9   2   7   7
//!   the bar of its key       7   ─   7   3   7        none: its key has fewer than n rows, or nobody has looked yet
//!   may still win            ✗   ✓   ✗   ✓   ✓        a tie may win by the other columns
//! ```
//!
//! Bars only rise, so an old one is right, and only lets more pass.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, UInt32Array},
    compute::{is_null, kernels::cmp::gt_eq, or_kleene, take},
};
use datafusion_physical_plan::aggregates::group_values::GroupValues;

use super::{
    Shared,
    order::{Winners, column_at},
};
use crate::{Result, bytes::bytes_of, key::comparable, window::direct::group_values};

/// The bars of the rows of a slice.
pub(super) struct Bars {
    /// One for each of the first keys, or the one over all. With keys some may be null, which no row has to reach.
    least: ArrayRef,
    keys: Option<Box<dyn GroupValues>>,
    groups: Vec<usize>,
}

impl Bars {
    /// One that every row has to reach. It is not null.
    pub(super) fn over_all(bar: ArrayRef) -> Self {
        Self { least: bar, keys: None, groups: Vec::new() }
    }

    /// The values of those who are the n-th among these of the rows of batches. `None` when there are none.
    pub(super) fn of(plan: &Shared, batches: &[RecordBatch], winners: &Winners) -> Result<Option<Self>> {
        let is_nth = |(rank, place): (&u64, &u32)| (*rank == plan.n as u64).then_some(*place);
        let nth: Vec<u32> = winners.ranks.iter().zip(&winners.places).filter_map(is_nth).collect();
        let column = |column: usize| Ok(comparable(&column_at(batches, column, &nth)?));
        let least = column(plan.by)?;
        if least.logical_null_count() == least.len() {
            return Ok(None);
        }
        if plan.key.is_empty() {
            return Ok(Some(Self::over_all(least)));
        }
        let schema = Arc::new(plan.input.visible().project(&plan.key)?);
        let mut keys = group_values(schema)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| column(i)).collect::<Result<_>>()?;
        let mut groups = Vec::new();
        keys.intern(&key, &mut groups)?;
        Ok(Some(Self { least, keys: Some(keys), groups }))
    }

    /// Which rows may still win. Where it says null they may not.
    pub(super) fn reached(&mut self, key: &[ArrayRef], by: &ArrayRef) -> Result<BooleanArray> {
        let Some(keys) = &mut self.keys else { return Ok(gt_eq(by, &Scalar::new(&self.least))?) };
        keys.intern(key, &mut self.groups)?;
        let known = self.least.len();
        let places: UInt32Array = self.groups.iter().map(|group| (*group < known).then_some(*group as u32)).collect();
        let bars = take(&self.least, &places, None)?;
        Ok(or_kleene(&is_null(&bars)?, &gt_eq(by, &bars)?)?)
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        bytes_of(std::slice::from_ref(&self.least)) + keys + size_of_val(&self.groups[..])
    }
}
