//! What a save of an aggregation writes: the rows of segments, in the form of `form`.
//!
//! ```text
//!   slices  ── key, states that changed ──► __key_group │ window_start │ (window_end) │ key │ states │ (given)
//!   records ── key, what was given ───────►
//! ```

use arrow::array::{ArrayRef, RecordBatch, new_null_array};

use super::{
    aggregate::{Giving, Shared, constant},
    groups::Groups,
    slices::Slices,
};
use crate::{
    OperatorError, Result, Timestamp,
    state::{bounded::join, segments::key_group_column},
};

/// The groups of all slices, and the records of all windows, that changed after the save `since`, in as many segments as they
/// need.
pub(super) fn changed(
    plan: &Shared,
    slices: &mut Slices<Groups>,
    giving: &mut Giving,
    since: u32,
) -> Result<Vec<RecordBatch>> {
    let columns = &plan.form.columns;
    let fields = columns.fields();
    let mut pieces = Vec::new();
    let mut add = |start: Timestamp, end: Option<Timestamp>, (rows, key, rest): (usize, Vec<_>, Vec<ArrayRef>)| {
        if rows == 0 {
            return Ok::<_, OperatorError>(());
        }
        let mut all = vec![key_group_column(&key, rows)?, constant(start, rows)];
        if plan.overlapping {
            all.push(end.map_or_else(|| new_null_array(&Timestamp::data_type(), rows), |end| constant(end, rows)));
        }
        all.extend(key);
        // A slice says nothing of what has been given, and what has been given nothing of states.
        let missing = fields.len() - all.len() - rest.len();
        let fill = |from: usize| fields[from..from + missing].iter().map(|f| new_null_array(f.data_type(), rows));
        match end {
            None => {
                let from = all.len() + rest.len();
                all.extend(rest.into_iter().chain(fill(from)));
            }
            Some(_) => {
                let from = all.len();
                all.extend(fill(from).chain(rest));
            }
        }
        pieces.push(RecordBatch::try_new(columns.clone(), all)?);
        Ok(())
    };
    for (slice, groups) in slices.held().filter(|(_, groups)| groups.spilled().is_none()) {
        add(slice.start, None, groups.saved()?.since(since)?)?;
    }
    if let Giving::Windows(windows) = giving {
        for (window, record) in windows.records() {
            add(window.start, Some(window.end), record.saved()?.since(since)?)?;
        }
    }
    join(columns, &pieces)
}
