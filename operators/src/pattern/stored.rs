//! The state of a pattern is rows: partial matches are made again from them.
//!
//! ```text
//!   __key_group │ __row │ __from │ who │ amount │ at
//!            17 │    40 │        │ ann │      3 │ …    a row of ann, since the first partial match of hers began
//!            17 │    44 │        │ ann │      5 │ …
//!            17 │    45 │     44 │ ann │        │ …    a mark: of ann, rows before number 44 are over
//! ```
//!
//! `__row` counts the rows of a task in the order in which it looked at them, and the marks. While a key has a partial
//! match all its rows are stored, so that to look at them again, in order, gives the same partial matches. A mark is added
//! where that would not be so: when the last partial match is gone and rows that come then are not stored, and when a match
//! has skipped rows, because the match itself will be gone before they are. What has no time left begins nothing:
//! rows go when they are as old as a match may be, and a mark goes after what it is about.
//!
//! What is decided while rows are looked at again had been decided before, and is not emitted again.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array},
    compute::{filter_record_batch, is_not_null, take_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};

use super::{plan::Shared, spec::Pattern};
use crate::{
    OperatorError, Result, StreamSchema, Timestamp,
    key::comparable,
    state::{
        KEY_GROUP, Reading, Rule, StateForm,
        bounded::Ordered,
        segments::{key_group_column, own_bytes},
        timed::TimedRows,
    },
};

const ROW: &str = "__row";
const FROM: &str = "__from";
/// What the rows are called in the numbers of the state.
pub(super) const STORED: &str = "stored";
/// The columns of what is stored before those of the input.
pub(super) const LEADING: usize = 2;

/// The form of the state: a disk format.
pub(super) fn form(input: &StreamSchema, key: &[usize], pattern: &Pattern) -> Result<StateForm> {
    let columns = input.columns().fields();
    let mut fields = vec![
        Field::new(KEY_GROUP, DataType::UInt8, false),
        Field::new(ROW, DataType::Int64, false),
        Field::new(FROM, DataType::Int64, true),
    ];
    if let Some(field) = columns.iter().find(|field| fields.iter().any(|own| own.name() == field.name())) {
        return Err(OperatorError::Plan(format!("the column name {:?} is reserved", field.name())));
    }
    // A mark has the columns of the key, and nulls.
    fields.extend(columns.iter().map(|field| field.as_ref().clone().with_nullable(true)));
    let names: Vec<&str> = key.iter().map(|&i| columns[i].name().as_str()).collect();
    let per = if key.is_empty() { String::new() } else { format!("; per {}", names.join(", ")) };
    let own = |column: usize| 1 + LEADING + column;
    let mut rules: Vec<Rule> =
        input.time().map(|at| TimedRows::<()>::rule(STORED, None, own(at))).into_iter().collect();
    rules.push(Rule::Marked { key: key.iter().copied().map(own).collect(), row: 1, from: 2 });
    Ok(StateForm {
        columns: Arc::new(Schema::new(fields)),
        identity: 1,
        meaning: format!("{pattern}{per}"),
        reading: Reading::each(rules),
    })
}

/// The schema of what is stored: that of a segment, without the key groups.
pub(super) fn schema(plan: &Shared) -> SchemaRef {
    Arc::new(Schema::new(plan.form.columns.fields()[1..].to_vec()))
}

/// Some rows of a batch, with their numbers, the first of which is `first`.
pub(super) fn rows(plan: &Shared, batch: &RecordBatch, rows: &[u32], first: i64) -> Result<RecordBatch> {
    let taken = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?;
    let numbers = Int64Array::from_iter_values(rows.iter().map(|&row| first + i64::from(row)));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(numbers), new_null_array(&DataType::Int64, rows.len())];
    columns.extend(taken.columns().iter().cloned());
    Ok(RecordBatch::try_new(schema(plan), columns)?)
}

/// A mark for each of some keys, in a row of its own: (its own number, from where its rows count, event time).
pub(super) fn marks(plan: &Shared, keys: &[ArrayRef], marks: &[(i64, i64, i64)]) -> Result<RecordBatch> {
    let numbers = Int64Array::from_iter_values(marks.iter().map(|mark| mark.0));
    let from = Int64Array::from_iter_values(marks.iter().map(|mark| mark.1));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(from)];
    for (i, field) in plan.input.columns().fields().iter().enumerate() {
        columns.push(match plan.key.iter().position(|&key| key == i) {
            _ if i == plan.time => Timestamp::column(marks.iter().map(|mark| mark.2).collect()),
            Some(place) => keys[place].clone(),
            None => new_null_array(field.data_type(), marks.len()),
        });
    }
    Ok(RecordBatch::try_new(schema(plan), columns)?)
}

/// What is stored as a segment.
pub(super) fn segment(plan: &Shared, stored: &RecordBatch) -> Result<RecordBatch> {
    let key: Vec<ArrayRef> = plan.key.iter().map(|&i| comparable(stored.column(LEADING + i))).collect();
    let mut columns = vec![key_group_column(&key, stored.num_rows())?];
    columns.extend(stored.columns().iter().cloned().map(own_bytes));
    Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
}

/// A segment as what is stored.
pub(super) fn of_segment(plan: &Shared, segment: &RecordBatch) -> Result<RecordBatch> {
    let columns = plan.form.widen(segment)?.columns()[1..].to_vec();
    Ok(RecordBatch::try_new(schema(plan), columns)?)
}

/// Takes apart all that is stored: rows in order, and marks.
pub(super) fn apart(stored: &TimedRows<()>) -> Result<(Ordered, Vec<RecordBatch>)> {
    let live = stored.pieces().iter().map(|piece| piece.rows.slice(piece.start, piece.rows.num_rows() - piece.start));
    let live: Vec<RecordBatch> = live.collect();
    let is_mark = live.iter().map(|rows| is_not_null(rows.column(1))).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<&Int64Array> = live.iter().map(|rows| rows.column(0).as_primitive::<Int64Type>()).collect();
    let all = live.iter().enumerate().flat_map(|(at, rows)| (0..rows.num_rows()).map(move |row| (at, row)));
    let mut order: Vec<(usize, usize)> = all.filter(|&(at, row)| !is_mark[at].value(row)).collect();
    order.sort_by_key(|&(at, row)| numbers[at].value(row));
    let marks = live.iter().zip(&is_mark).map(|(rows, is_mark)| filter_record_batch(rows, is_mark));
    let marks = marks.collect::<Result<_, _>>()?;
    Ok((Ordered::new(live, order), marks))
}

/// Rows of the input out of what is stored, which has no marks, and the number of each.
pub(super) fn numbered(plan: &Shared, stored: &RecordBatch) -> Result<(RecordBatch, Int64Array)> {
    let numbers = stored.column(0).as_primitive::<Int64Type>().clone();
    Ok((RecordBatch::try_new(plan.input.columns().clone(), stored.columns()[LEADING..].to_vec())?, numbers))
}

/// The key columns of marks, and from which number on rows of the key count.
pub(super) fn told(plan: &Shared, marks: &RecordBatch) -> (Vec<ArrayRef>, Int64Array) {
    let keys = plan.key.iter().map(|&i| marks.column(LEADING + i).clone()).collect();
    (keys, marks.column(1).as_primitive::<Int64Type>().clone())
}
