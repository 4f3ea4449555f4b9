//! The shape of a join, planned once: keys, condition, the columns of the result, and the disk format.
//!
//! ```text
//!   left: auction, price, at      right: auction, seller, since       on auction = auction
//!
//!   result       [window_start │ window_end │] auction │ price │ at │ seller │ since │ (hidden) event time
//!   segment      __key_group │ side │ left.auction │ left.price │ left.at │ right.auction │ right.seller │ right.since
//! ```
//!
//! A key column that has one name on both sides is one column of the result: the left row's, or, of a right row without a
//! partner, the right row's. In a segment the columns of the other side are null. `side` is 0 for rows of the left side
//! and 1 for those of the right one; what other numbers mean is said by the join that writes them.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt8Array, UInt32Array,
        new_null_array,
    },
    compute::{interleave, take},
    datatypes::{DataType, Field, FieldRef, Schema, UInt8Type},
};
use datafusion_common::{
    Column,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use super::{JoinType, LEFT, RIGHT};
use crate::{
    OperatorError, Partitioning, Port, Result, StreamSchema, Timestamp,
    expr::{Lowering, evaluate_condition},
    key::check_key,
    schema::{index_of, no_duplicates},
    state::{
        KEY_GROUP, StateForm,
        segments::{key_group_column, own_bytes},
    },
    time::times_of,
};

/// What the sides are called in conditions and in segments.
const NAMES: [&str; 2] = ["left", "right"];

/// The columns of a segment before those of the sides.
const LEADING: usize = 2;

/// Which column of a segment says what kind of row it is.
const SIDE: usize = 1;

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) join_type: JoinType,
    pub(super) inputs: [StreamSchema; 2],
    pub(super) keys: [Vec<usize>; 2],
    /// Where event time is on each side.
    pub(super) times: [usize; 2],
    condition: Option<Condition>,
    columns: Vec<Source>,
    pub(super) output: StreamSchema,
    pub(super) form: StateForm,
}

/// Where a column of the result comes from.
#[derive(Debug)]
enum Source {
    Side(usize, usize),
    /// The key column of either side, the left one first.
    Key(usize, usize),
}

/// A condition on pairs, over the columns that it needs.
#[derive(Debug)]
struct Condition {
    expr: Arc<dyn PhysicalExpr>,
    columns: Vec<(usize, usize)>,
    schema: Arc<Schema>,
}

/// What the user says of a join.
pub(super) struct Description<'a> {
    pub(super) left: &'a StreamSchema,
    pub(super) right: &'a StreamSchema,
    pub(super) on: &'a [(&'a str, &'a str)],
    pub(super) join_type: JoinType,
    pub(super) condition: Option<&'a Expr>,
    /// Columns of the result that stand before those of the sides and take the place of those so called.
    pub(super) leading: Vec<Field>,
    /// For the checkpoint: what kind of join it is.
    pub(super) kind: String,
}

impl Shape {
    pub(super) fn new(of: Description<'_>) -> Result<Self> {
        let Description { left, right, on, join_type, condition, leading, kind } = of;
        let inputs = [left.clone(), right.clone()];
        let times = [left.event_time("the left side of a join")?, right.event_time("the right side of a join")?];
        let pair = |(l, r): &(&str, &str)| Ok((left.index_of(l)?, right.index_of(r)?));
        let pairs = on.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let keys = [pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect::<Vec<_>>()];
        check_key(left.columns(), &keys[LEFT])?;
        check_key(right.columns(), &keys[RIGHT])?;
        pairs.iter().try_for_each(|pair| same_type(left.columns().field(pair.0), right.columns().field(pair.1)))?;
        let lowered = condition.map(|expr| Condition::new(&inputs, expr)).transpose()?;
        let (columns, output) = result_columns(&inputs, &pairs, join_type, leading)?;
        let on: Vec<String> = on.iter().map(|(left, right)| format!("left.{left} = right.{right}")).collect();
        let mut meaning = format!("{join_type} join, {kind}, on {}", on.join(" and "));
        if let Some(condition) = condition {
            meaning.push_str(&format!(", where {condition}"));
        }
        let form = form(&inputs, meaning);
        Ok(Self { join_type, inputs, keys, times, condition: lowered, columns, output, form })
    }

    pub(super) fn partitioning(&self) -> Vec<Partitioning> {
        self.keys.iter().cloned().map(Partitioning::Key).collect()
    }

    pub(super) fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let [left, right] = self.inputs.clone();
        vec![(Port::MAIN, self.output.clone()), (Port::LATE, left), (Port::LATE_RIGHT, right)]
    }

    /// Whether pairs of equal key are partners without more ado.
    pub(super) fn has_condition(&self) -> bool {
        self.condition.is_some()
    }

    /// Keeps the pairs that meet the condition.
    pub(super) fn meet(&self, pairs: &mut [Picked<'_>; 2]) -> Result<()> {
        let Some(condition) = &self.condition else { return Ok(()) };
        let columns = condition.columns.iter().map(|&(side, column)| pairs[side].column(column));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(pairs[LEFT].rows.len()));
        let rows = RecordBatch::try_new_with_options(condition.schema.clone(), columns, &options)?;
        let mask = evaluate_condition(condition.expr.as_ref(), &rows)?;
        pairs.iter_mut().for_each(|picked| picked.filter(&mask));
        Ok(())
    }

    /// The result of rows of the sides, of which one may be absent: a batch that begins with `leading` columns.
    pub(super) fn result(
        &self,
        leading: Vec<ArrayRef>,
        sides: [Option<&Picked<'_>>; 2],
        times: Vec<i64>,
    ) -> Result<RecordBatch> {
        let mut columns = leading;
        for (source, field) in self.columns.iter().zip(&self.output.columns().fields()[columns.len()..]) {
            let (side, column) = match *source {
                Source::Side(side, column) => (side, column),
                Source::Key(left, _) if sides[LEFT].is_some() => (LEFT, left),
                Source::Key(_, right) => (RIGHT, right),
            };
            columns.push(match sides[side] {
                Some(picked) => picked.column(column)?,
                None => new_null_array(field.data_type(), times.len()),
            });
        }
        columns.push(Timestamp::column(times));
        Ok(RecordBatch::try_new(self.output.columns().clone(), columns)?)
    }

    /// Rows of a side as a segment; `kind` is what its column `side` says.
    pub(super) fn segment(&self, side: usize, kind: u8, rows: &RecordBatch) -> Result<RecordBatch> {
        let key: Vec<ArrayRef> = self.keys[side].iter().map(|&column| rows.column(column).clone()).collect();
        let n = rows.num_rows();
        let mut columns = vec![key_group_column(&key, n)?, Arc::new(UInt8Array::from(vec![kind; n]))];
        for (at, input) in self.inputs.iter().enumerate() {
            match at == side {
                true => columns.extend(rows.columns().iter().cloned().map(own_bytes)),
                false => {
                    columns.extend(input.columns().fields().iter().map(|field| new_null_array(field.data_type(), n)))
                }
            }
        }
        Ok(RecordBatch::try_new(self.form.columns.clone(), columns)?)
    }

    /// The rows of a side in a segment, if they are of this kind: all rows of a segment are of one.
    pub(super) fn of_segment(&self, side: usize, kind: u8, segment: &RecordBatch) -> Result<Option<RecordBatch>> {
        let segment = self.form.widen(segment)?;
        let kinds = segment.column(SIDE).as_primitive::<UInt8Type>().values();
        if kinds.first() != Some(&kind) {
            return Ok(None);
        }
        let lefts = self.inputs[LEFT].columns().fields().len();
        let columns = self.inputs[side].columns();
        let first = if side == LEFT { LEADING } else { LEADING + lefts };
        let rows = segment.columns()[first..first + columns.fields().len()].to_vec();
        Ok(Some(RecordBatch::try_new(columns.clone(), rows)?))
    }
}

/// Refuses a pair of join columns of different types.
pub(crate) fn same_type(left: &Field, right: &Field) -> Result<()> {
    if left.data_type() == right.data_type() {
        return Ok(());
    }
    Err(OperatorError::Plan(format!(
        "joining different key types: {:?} of the left side is {}, {:?} of the right side is {}: give one of them the \
         other's type first, with cast() in .select(…)",
        left.name(),
        left.data_type(),
        right.name(),
        right.data_type()
    )))
}

/// The columns of the result, with those in `leading` before them and event time behind them.
fn result_columns(
    inputs: &[StreamSchema; 2],
    pairs: &[(usize, usize)],
    join_type: JoinType,
    leading: Vec<Field>,
) -> Result<(Vec<Source>, StreamSchema)> {
    let [left, right] = inputs.each_ref().map(StreamSchema::visible);
    let is_leading = |field: &Field| leading.iter().any(|leading| leading.name() == field.name());
    let as_key =
        |name: &str| pairs.iter().find(|(l, r)| left.field(*l).name() == name && right.field(*r).name() == name);
    let (mut columns, mut fields) = (Vec::new(), leading.clone());
    for (at, field) in left.fields().iter().enumerate().filter(|(_, field)| !is_leading(field)) {
        let (source, null) = match as_key(field.name()) {
            Some(&(l, r)) => (Source::Key(l, r), join_type.is_outer(RIGHT) && right.field(r).is_nullable()),
            None => (Source::Side(LEFT, at), join_type.is_outer(RIGHT)),
        };
        columns.push(source);
        fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || null));
    }
    if join_type.gives_pairs() {
        for (at, field) in right.fields().iter().enumerate().filter(|(_, field)| !is_leading(field)) {
            let name = field.name();
            if as_key(name).is_some() {
                continue;
            }
            if left.column_with_name(name).is_some() {
                return Err(OperatorError::Plan(format!(
                    "both sides of the join have a column {name:?}: give it another name on one of them first, \
                     .select([…, col({name:?}).alias(\"right_{name}\")])"
                )));
            }
            columns.push(Source::Side(RIGHT, at));
            fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || join_type.is_outer(LEFT)));
        }
    }
    no_duplicates(&fields)?;
    Ok((columns, StreamSchema::with_hidden_time(&Schema::new(fields))?))
}

fn form(inputs: &[StreamSchema; 2], meaning: String) -> StateForm {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false), Field::new("side", DataType::UInt8, false)];
    for (input, side) in inputs.iter().zip(NAMES) {
        let named = |field: &FieldRef| field.as_ref().clone().with_name(format!("{side}.{}", field.name()));
        fields.extend(input.columns().fields().iter().map(named).map(|field| field.with_nullable(true)));
    }
    // Each row is in one segment: none takes the place of another.
    StateForm { identity: fields.len() - 1, columns: Arc::new(Schema::new(fields)), meaning }
}

impl Condition {
    fn new(inputs: &[StreamSchema; 2], expr: &Expr) -> Result<Self> {
        let visible = inputs.each_ref().map(StreamSchema::visible);
        let mut columns: Vec<(usize, usize)> = Vec::new();
        let mut problem = None;
        let name = |(side, column): (usize, usize)| format!("{}.{}", NAMES[side], visible[side].field(column).name());
        let rewritten = expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) => match find(&visible, column) {
                Ok(found) => {
                    if !columns.contains(&found) {
                        columns.push(found);
                    }
                    Ok(Transformed::yes(Expr::Column(Column::from_name(name(found)))))
                }
                Err(error) => {
                    problem.get_or_insert(error);
                    Ok(Transformed::no(expr))
                }
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        if let Some(error) = problem {
            return Err(error);
        }
        let field = |&found: &(usize, usize)| visible[found.0].field(found.1).clone().with_name(name(found));
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let expr = Lowering::new(&StreamSchema::without_time(schema.clone()))?.condition(&rewritten.data)?;
        Ok(Self { expr, columns, schema })
    }
}

/// Which side a column of a condition is on, and where.
fn find(sides: &[Arc<Schema>; 2], column: &Column) -> Result<(usize, usize)> {
    if let Some(relation) = &column.relation {
        let side = NAMES.iter().position(|name| relation.to_string() == *name).ok_or_else(|| {
            OperatorError::Plan(format!("{}: the sides of a join are called left and right", column.flat_name()))
        })?;
        return Ok((side, index_of(&sides[side], &column.name)?));
    }
    let found: Vec<(usize, usize)> =
        (LEFT..=RIGHT).filter_map(|side| Some((side, sides[side].index_of(&column.name).ok()?))).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let all: Vec<FieldRef> = sides.iter().flat_map(|side| side.fields().iter().cloned()).collect();
            index_of(&Schema::new(all), &column.name).map(|column| (LEFT, column))
        }
        _ => Err(OperatorError::Plan(format!(
            "the column {0:?} is on both sides of the join: write left.{0} or right.{0}",
            column.name
        ))),
    }
}

/// Rows of some batches: (batch, row).
pub(super) type Places = Vec<(usize, usize)>;

/// Rows of some batches of one side.
pub(super) struct Picked<'a> {
    pub(super) batches: Vec<&'a RecordBatch>,
    pub(super) rows: Places,
}

impl<'a> Picked<'a> {
    pub(super) fn none_of(batches: Vec<&'a RecordBatch>) -> Self {
        Self { batches, rows: Vec::new() }
    }

    /// The rows of one batch.
    pub(super) fn of(batch: &'a RecordBatch, rows: impl Iterator<Item = usize>) -> Self {
        Self { batches: vec![batch], rows: rows.map(|row| (0, row)).collect() }
    }

    fn column(&self, column: usize) -> Result<ArrayRef> {
        if let [one] = self.batches[..] {
            let rows = UInt32Array::from_iter_values(self.rows.iter().map(|&(_, row)| row as u32));
            return Ok(take(one.column(column), &rows, None)?);
        }
        let arrays: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        Ok(interleave(&arrays, &self.rows)?)
    }

    /// The event times of the rows.
    pub(super) fn times(&self, column: usize) -> Result<Vec<i64>> {
        let all = self.batches.iter().map(|batch| times_of(batch, column)).collect::<Result<Vec<_>>>()?;
        Ok(self.rows.iter().map(|&(batch, row)| all[batch][row]).collect())
    }

    fn filter(&mut self, mask: &BooleanArray) {
        let mut row = 0;
        self.rows.retain(|_| {
            row += 1;
            mask.value(row - 1)
        });
    }
}
