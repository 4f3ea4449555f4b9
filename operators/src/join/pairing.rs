//! Which rows of two sides are a pair, and of which columns a result is: planned in one way for joins of rows and of tables.
//!
//! ```text
//!   left: auction, price, at      right: auction, seller, since       on auction = auction, where price > seller
//!            │                             │
//!            └──────────── Either ─────────┘                  a join column that both sides call alike is there once
//!   result   [leading …] auction │ price │ at │ seller │ since
//! ```
//!
//! Whether columns may be null follows from the type of the join: those of a side that may be absent may.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    datatypes::{Field, FieldRef, Schema},
};
use datafusion_common::{
    Column,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use super::{JoinType, LEFT, RIGHT};
use crate::{
    KeyedOutput, OperatorError, Result, StreamSchema,
    expr::{Lowering, evaluate_condition},
    key::check_key,
    schema::{index_of, no_duplicates},
};

/// What the sides are called in conditions and in segments.
pub(crate) const NAMES: [&str; 2] = ["left", "right"];

/// What is joined with what, by visible columns.
#[derive(Debug)]
pub(crate) struct Pairing {
    /// The join columns of each side, pair by pair.
    pub(crate) on: [Vec<usize>; 2],
    pub(crate) condition: Option<PairCondition>,
    /// Where the columns of the result come from that are not leading.
    pub(crate) sources: Vec<Source>,
    /// The columns of the result.
    pub(crate) fields: Vec<Field>,
    /// By which of them the results are with the task of their join columns.
    pub(crate) keyed: Option<KeyedOutput>,
}

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// Of a side, this column.
    Side(usize, usize),
    /// The join column of either side, the left one first.
    Either(usize, usize),
}

impl Pairing {
    /// Pairs rows of the sides that agree in the pairs of columns `on` and meet `condition`. `leading` columns of the result stand
    /// before those of the sides and take the place of those so called.
    pub(crate) fn new(
        sides: [&StreamSchema; 2],
        on: &[(&str, &str)],
        join_type: JoinType,
        condition: Option<&Expr>,
        leading: Vec<Field>,
    ) -> Result<Self> {
        let visible = sides.map(StreamSchema::visible);
        let [left, right] = &visible;
        let pair = |(l, r): &(&str, &str)| Ok((index_of(left, l)?, index_of(right, r)?));
        let pairs = on.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let keys = [pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect::<Vec<_>>()];
        check_key(left, &keys[LEFT])?;
        check_key(right, &keys[RIGHT])?;
        pairs.iter().try_for_each(|&(l, r)| same_type(left.field(l), right.field(r)))?;
        let condition = condition.map(|expr| PairCondition::new(sides, expr)).transpose()?;
        let leads = leading.len();
        let (sources, fields) = result_columns(&visible, &pairs, join_type, leading)?;
        let carry = |pair: &(usize, usize)| {
            let carries = |&at: &usize| sources[at].carries(*pair, join_type);
            (0..sources.len()).filter(carries).map(|at| leads + at).collect()
        };
        let keyed = KeyedOutput::any(pairs.iter().map(carry));
        Ok(Self { on: keys, condition, sources, fields, keyed })
    }
}

impl Source {
    /// Whether it has the value of a pair of join columns in every result. A column of a side that may be absent has not; one
    /// of either side has, also of a row that has null there and so no partner.
    fn carries(self, (left, right): (usize, usize), join_type: JoinType) -> bool {
        match self {
            Self::Side(LEFT, column) => column == left && !join_type.is_outer(RIGHT),
            Self::Side(_, column) => column == right && !join_type.is_outer(LEFT),
            Self::Either(l, r) => (l, r) == (left, right),
        }
    }
}

/// Refuses a pair of join columns of different types.
fn same_type(left: &Field, right: &Field) -> Result<()> {
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

/// The columns of the result, behind those in `leading`, and all its fields.
fn result_columns(
    [left, right]: &[Arc<Schema>; 2],
    pairs: &[(usize, usize)],
    join_type: JoinType,
    leading: Vec<Field>,
) -> Result<(Vec<Source>, Vec<Field>)> {
    let is_leading = |field: &Field| leading.iter().any(|leading| leading.name() == field.name());
    let as_key =
        |name: &str| pairs.iter().find(|(l, r)| left.field(*l).name() == name && right.field(*r).name() == name);
    let (mut sources, mut fields) = (Vec::new(), leading.clone());
    for (at, field) in left.fields().iter().enumerate().filter(|(_, field)| !is_leading(field)) {
        let may_be_absent = join_type.is_outer(RIGHT);
        let (source, null) = match as_key(field.name()) {
            Some(&(l, r)) if may_be_absent => (Source::Either(l, r), right.field(r).is_nullable()),
            _ => (Source::Side(LEFT, at), may_be_absent),
        };
        sources.push(source);
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
            sources.push(Source::Side(RIGHT, at));
            fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || join_type.is_outer(LEFT)));
        }
    }
    no_duplicates(&fields)?;
    Ok((sources, fields))
}

/// A condition on pairs of rows, over the columns that it needs. A column that is on both sides is written `left.price`,
/// `right.price`.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{ArrayRef, Int64Array}, datatypes::{DataType, Field, Schema}};
/// use datafusion_expr::{col, lit};
/// use windrow_operators::{StreamSchema, join::PairCondition};
///
/// let side = StreamSchema::without_time(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])));
/// let condition = PairCondition::new([&side, &side], &col("left.n").lt(col("right.n") + lit(1))).unwrap();
/// let columns: [ArrayRef; 2] = [vec![1, 2, 3], vec![0, 2, 9]].map(|n| Arc::new(Int64Array::from(n)) as ArrayRef);
/// let meets = condition.meets(3, |side, _| Ok(columns[side].clone())).unwrap();
/// assert_eq!(meets.values().iter().collect::<Vec<_>>(), [false, true, true]);
/// ```
#[derive(Debug)]
pub struct PairCondition {
    expr: Arc<dyn PhysicalExpr>,
    columns: Vec<(usize, usize)>,
    schema: Arc<Schema>,
}

impl PairCondition {
    /// Over the visible columns of both sides. Fails when `expr` names a column that is on neither, does not say on which of
    /// both, or is not a condition.
    pub fn new(sides: [&StreamSchema; 2], expr: &Expr) -> Result<Self> {
        let visible = sides.map(StreamSchema::visible);
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

    /// Which of `pairs` pairs meet it; null counts as no. `column` gives the values of a column of a side for all pairs: 0 is the
    /// left side, 1 the right one.
    pub fn meets(&self, pairs: usize, column: impl Fn(usize, usize) -> Result<ArrayRef>) -> Result<BooleanArray> {
        let columns = self.columns.iter().map(|&(side, at)| column(side, at)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(pairs));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        evaluate_condition(self.expr.as_ref(), &rows)
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
            let side = column.name.split_once('.').filter(|(side, _)| NAMES.contains(side));
            if let Some((side, of)) = side {
                let name = &column.name;
                return Err(OperatorError::Plan(format!("there is no column {name:?}: write {side}({of:?})")));
            }
            let all: Vec<FieldRef> = sides.iter().flat_map(|side| side.fields().iter().cloned()).collect();
            index_of(&Schema::new(all), &column.name).map(|column| (LEFT, column))
        }
        _ => Err(OperatorError::Plan(format!(
            "the column {0:?} is on both sides of the join: write left({0:?}) or right({0:?})",
            column.name
        ))),
    }
}
