//! The form of the state of window operators: a disk format.
//!
//! ```text
//!   aggregation   __key_group │ window_start │ auction │ bids │ avg[count] │ avg[sum]     one row per group
//!                               (the slice)    (key)     (states of the aggregates)
//!   top           __key_group │ window_start │ auction │ price │ at                       one row per candidate
//!                               (the slice)    (key)     (the other visible columns of the input)
//! ```
//!
//! An aggregate whose state is one column gives it its own name; wider states say which part they are. Of the rows of an
//! aggregation with the same slice and key, over the segments of one task, the newest counts. Of a top, the newest
//! segment that has rows of a slice and key has all of them. Rows of slices that no window needs any more, because all of them have
//! given their result, are to be passed over.
//!
//! `window_start` is where the slice begins. A tumbling window and one of the calendar is one slice. Of hopping and
//! cumulating windows each slice has its own rows, and a window is the union of its slices.
//!
//! Numbers go with the segments, in microseconds:
//!
//! | number | meaning |
//! |---|---|
//! | `closed` | how far event time had come: rows of slices that end there or before are late |
//! | `fired` | up to where windows have given their result, if that is not so far |
//! | `fired_7` | the same for the keys of key group 7, if it is further than `fired`: see `progress` |
//! | `open_from` | a row is open if its slice begins there or later |
//! | `open_from_7` | the same for the keys of key group 7, if it is later than `open_from` |
//! | `passed` | windows with revisions: those that end there or before have given a result at a watermark, if that is not `closed` |
//! | `windows_from` | windows that share slices and have revisions: what they have given counts if they end there or later |
//!
//! Of a first phase only `closed` means something.
//!
//! An aggregation whose windows give more than one result has two more columns after the states: `revision`, that of the next
//! result of the group, and `since`, how many rows have come to it since its last result. A global window is one slice, which
//! begins at the least instant. Of hopping and cumulating windows, which share slices, the two are of a window and not of
//! a slice, in rows of their own:
//!
//! ```text
//!   __key_group │ window_start │ window_end │ auction │ bids │ revision │ since
//!                     12:00         null          7      12       null     null     a group of a slice
//!                     11:50        12:10          7     null         2        0     what a window has given of the group
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::{WINDOW_END, WINDOW_START, given, progress::OPEN_FROM};
use crate::{
    OperatorError, Result, Timestamp,
    aggregates::Planned,
    schema::unused,
    state::{KEY_GROUP, Reading, Rule, StateForm},
};

/// Which column of a segment says where the slice of a row begins.
pub(super) const SLICE: usize = 1;
/// Which one then says where a window ends, if windows share slices and give more than one result.
pub(super) const WINDOW: usize = 2;
/// The number that says which rows with the end of a window still count.
pub(super) const WINDOWS_FROM: &str = "windows_from";
/// The columns before those of the operator, without [`WINDOW`].
pub(crate) const LEADING: usize = 2;

/// The columns of a segment, of which `own` are the operator's.
fn columns(own: Vec<Field>) -> Result<SchemaRef> {
    if own.iter().any(|field| field.name() == KEY_GROUP) {
        return Err(OperatorError::Plan(format!("the column name {KEY_GROUP:?} is reserved")));
    }
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false)];
    // A former window's result has a column of this name itself.
    let start = unused(WINDOW_START, |name| own.iter().any(|field| field.name() == name));
    fields.push(Field::new(start, Timestamp::data_type(), false));
    fields.extend(own);
    Ok(Arc::new(Schema::new(fields)))
}

/// The form of an aggregation over `window`.
pub(crate) fn of_aggregation(window: &str, planned: &Planned, revised: bool) -> Result<StateForm> {
    let mut own = planned.states(planned.key_fields().collect());
    for field in given::fields().into_iter().filter(|_| revised) {
        let name = unused(field.name(), |name| own.iter().any(|field| field.name() == name));
        own.push(field.with_name(name));
    }
    let identity = 1 + planned.key.len();
    Ok(StateForm { columns: columns(own)?, identity, meaning: planned.meaning(window), reading: reading() })
}

/// The form of an aggregation of windows that share slices and give more than one result: with the end of the window, where a
/// row says what a window has given.
pub(super) fn with_windows(mut form: StateForm) -> StateForm {
    // Only such rows have the end of a window.
    form.reading.rules.push(Rule::From { side: None, time: WINDOW, number: WINDOWS_FROM.into() });
    let mut fields = form.columns.fields().to_vec();
    let end = unused(WINDOW_END, |name| fields.iter().any(|field| field.name() == name));
    fields.insert(WINDOW, Arc::new(Field::new(end, Timestamp::data_type(), true)));
    StateForm { columns: Arc::new(Schema::new(fields)), identity: form.identity + 1, ..form }
}

/// The form of the greatest rows, which have these columns: the key first. `n` says how many, as `3` or `3 with ties`.
pub(super) fn of_top(window: String, key: &[FieldRef], columns: &Schema, n: &str, by: &str) -> Result<StateForm> {
    let own = columns.fields().iter().map(|field| field.as_ref().clone()).collect();
    let key: Vec<&str> = key.iter().map(|field| field.name().as_str()).collect();
    let per = if key.is_empty() { String::new() } else { format!(" per {}", key.join(", ")) };
    let distinct = (0..key.len()).filter(|&at| !key[..at].contains(&key[at])).count();
    let meaning = format!("{window}; top {n} by {by}{per}");
    Ok(StateForm { columns: self::columns(own)?, identity: 1 + distinct, meaning, reading: reading() })
}

/// Rows count whose slice is in a window that has still to give its result.
fn reading() -> Reading {
    Reading::newest([Rule::From { side: None, time: SLICE, number: OPEN_FROM.into() }])
}
