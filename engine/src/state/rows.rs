//! The rows of a state that count: of the segments of a task, what its operator would load.
//!
//! ```text
//!   segments of a task, newest first ──identity──► newest row of each ──rules──► rows that count
//! ```
//!
//! What has to be known of the operator stands beside the state: [`Reading`](windrow_operators::state::Reading).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch, is_not_null, not},
    datatypes::{Int64Type, TimestampMicrosecondType, UInt8Type},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use windrow_operators::{
    state::{Rule, StateForm},
    window::is_open,
};

type Numbers = BTreeMap<String, i64>;

/// The rows of a task that count, of its segments, oldest first, each with the rows of its own key groups.
pub(super) fn living(form: &StateForm, numbers: &Numbers, segments: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let identity: Vec<usize> = (1..=form.identity).collect();
    let mut newer: HashSet<Box<[u8]>> = HashSet::new();
    let mut kept = Vec::new();
    for rows in segments.iter().rev() {
        let shared = |row: usize| form.reading.shared.is_some_and(|column| rows.column(column).is_valid(row));
        let rows = match form.reading.each {
            true => rows.clone(),
            false => {
                let own = keys(rows, &identity)?;
                let keep = own.iter().enumerate().map(|(row, own)| Some(shared(row) || !newer.contains(own)));
                let keep: BooleanArray = keep.collect();
                let own = own.into_iter().enumerate().filter(|(row, _)| !shared(*row));
                newer.extend(own.map(|(_, own)| own));
                filter_record_batch(rows, &keep)?
            }
        };
        kept.push(rows);
    }
    kept.reverse();
    let mut rows = concat_batches(&form.columns, &kept)?;
    if form.reading.is_default() {
        // A checkpoint of a version that did not say it, or a state of which all rows count.
        rows = filter_record_batch(&rows, &in_open_windows(numbers, &rows))?;
    }
    for rule in &form.reading.rules {
        rows = filter_record_batch(&rows, &meets(rule, numbers, &rows)?)?;
    }
    Ok(rows)
}

/// Without rows that are the same in every task, but for one of them if it has not been `seen`.
pub(super) fn once(rows: &RecordBatch, shared: usize, seen: &mut bool) -> Result<RecordBatch, ArrowError> {
    let column = rows.column(shared);
    let keep = (0..rows.num_rows()).map(|row| Some(column.is_null(row) || !std::mem::replace(seen, true)));
    filter_record_batch(rows, &keep.collect())
}

/// Which rows meet a rule.
fn meets(rule: &Rule, numbers: &Numbers, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    match rule {
        Rule::Value(column) => is_not_null(rows.column(*column)),
        Rule::NotGone(column) => not(rows.column(*column).as_boolean_opt().ok_or_else(|| not_there(*column))?),
        Rule::From { side, time, number } => {
            let groups = rows.column(0).as_primitive_opt::<UInt8Type>().ok_or_else(|| not_there(0))?;
            let from = |row: usize| {
                let of_group = numbers.get(&format!("{number}_{}", groups.value(row)));
                of_group.or_else(|| numbers.get(number)).copied()
            };
            let (of_side, times) = (of_side(rows, *side), times(rows, *time)?);
            let keep =
                |row: usize| !of_side(row) || from(row).is_none_or(|from| times(row).is_none_or(|at| at >= from));
            Ok((0..rows.num_rows()).map(|row| Some(keep(row))).collect())
        }
        Rule::Newest { side, key, time } => {
            let (of_side, times, keys) = (of_side(rows, *side), times(rows, *time)?, keys(rows, key)?);
            let mut newest: HashMap<&[u8], usize> = HashMap::new();
            for row in (0..rows.num_rows()).filter(|row| of_side(*row)) {
                let kept = newest.entry(&keys[row]).or_insert(row);
                *kept = if times(row) >= times(*kept) { row } else { *kept };
            }
            let keep = |row: usize| !of_side(row) || newest.get(&*keys[row]) == Some(&row);
            Ok((0..rows.num_rows()).map(|row| Some(keep(row))).collect())
        }
        Rule::Session { key, span: (start, end), after } => {
            let (starts, ends) = (times(rows, *start)?, times(rows, *end)?);
            let after = after.iter().find_map(|number| numbers.get(number)).copied().unwrap_or(i64::MIN);
            let span = |row| starts(row).unwrap_or_default()..ends(row).unwrap_or_default();
            Ok(in_sessions(&keys(rows, key)?, span, after))
        }
        Rule::Marked { key, row, from } => {
            let (keys, order, marks) = (keys(rows, key)?, integers(rows, *row)?, integers(rows, *from)?);
            let mut over: HashMap<&[u8], i64> = HashMap::new();
            for (row, from) in (0..rows.num_rows()).filter_map(|row| Some((row, marks(row)?))) {
                let known = over.entry(&keys[row]).or_insert(from);
                *known = from.max(*known);
            }
            let is_over = |row: usize| over.get(&*keys[row]).is_some_and(|from| order(row) < Some(*from));
            Ok((0..rows.num_rows()).map(|row| Some(marks(row).is_none() && !is_over(row))).collect())
        }
    }
}

/// Which parts of sessions are of one that ends after `after`: those of a key that overlap are one.
fn in_sessions(keys: &[Box<[u8]>], span: impl Fn(usize) -> Range<i64>, after: i64) -> BooleanArray {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|&a, &b| (&keys[a], span(a).start).cmp(&(&keys[b], span(b).start)));
    let mut open = vec![false; keys.len()];
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let mut end = span(first).end;
        let others = rest[1..].iter().take_while(|&&row| {
            let belongs = keys[row] == keys[first] && span(row).start < end;
            end = if belongs { end.max(span(row).end) } else { end };
            belongs
        });
        let (own, others) = rest.split_at(1 + others.count());
        own.iter().for_each(|&row| open[row] = end > after);
        rest = others;
    }
    open.into()
}

/// What these columns of the rows are, for comparing; without any all rows are alike.
fn keys(rows: &RecordBatch, columns: &[usize]) -> Result<Vec<Box<[u8]>>, ArrowError> {
    if columns.is_empty() {
        return Ok(vec![Box::default(); rows.num_rows()]);
    }
    let rows = rows.project(columns)?;
    let fields = rows.columns().iter().map(|column| SortField::new(column.data_type().clone()));
    let keys = RowConverter::new(fields.collect())?.convert_columns(rows.columns())?;
    Ok(keys.iter().map(|key| key.data().into()).collect())
}

/// Whether a row is one that a rule asks.
fn of_side(rows: &RecordBatch, side: Option<u8>) -> impl Fn(usize) -> bool + Copy + use<'_> {
    let sides = rows.columns().get(1).and_then(|column| column.as_primitive_opt::<UInt8Type>());
    move |row| side.is_none_or(|side| sides.is_some_and(|sides| sides.value(row) == side))
}

fn times(rows: &RecordBatch, column: usize) -> Result<impl Fn(usize) -> Option<i64> + Copy + use<'_>, ArrowError> {
    let times = rows.column(column).as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or_else(|| not_there(column))?;
    Ok(move |row| times.is_valid(row).then(|| times.value(row)))
}

fn integers(rows: &RecordBatch, column: usize) -> Result<impl Fn(usize) -> Option<i64> + Copy + use<'_>, ArrowError> {
    let numbers = rows.column(column).as_primitive_opt::<Int64Type>().ok_or_else(|| not_there(column))?;
    Ok(move |row| numbers.is_valid(row).then(|| numbers.value(row)))
}

fn not_there(column: usize) -> ArrowError {
    ArrowError::SchemaError(format!("column {column} of the state is not of the type that its operator says"))
}

/// Which rows are of windows that were not closed.
fn in_open_windows(numbers: &Numbers, rows: &RecordBatch) -> BooleanArray {
    let starts = rows.columns().get(1).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    match starts {
        Some(starts) => starts.values().iter().map(|start| Some(is_open(numbers, *start))).collect(),
        None => vec![true; rows.num_rows()].into(),
    }
}
