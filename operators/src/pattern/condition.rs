//! Which rows fit: conditions on the row alone once for a whole batch, those on earlier steps row by row.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
};
use datafusion_common::{
    Column,
    tree_node::{Transformed, TreeNode},
};
use datafusion_expr::Expr;
use datafusion_physical_expr::PhysicalExpr;

use super::{
    partial::{Partial, Taken},
    plan::Shared,
    spec::{Condition, Kind, Mask},
};
use crate::{
    OperatorError, Result, StreamSchema,
    expr::{Lowering, evaluate, evaluate_condition},
    key::encoded::{KeyBytes, KeyEncoder},
    schema::index_of,
};

/// A condition that is ready to run.
pub(super) enum Fits {
    /// On the row alone.
    Row(Arc<dyn PhysicalExpr>),
    Rows(Mask),
    /// Also on the last rows of earlier steps.
    Earlier(Earlier),
}

impl std::fmt::Debug for Fits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fits")
    }
}

pub(super) struct Earlier {
    condition: Arc<dyn PhysicalExpr>,
    /// The columns of the row that it reads, then the columns of earlier steps.
    schema: SchemaRef,
    current: Vec<usize>,
    /// Each is a step and the place of the column among those that are kept.
    earlier: Vec<(usize, usize)>,
}

/// The columns of taken rows that measures and conditions need, as bytes.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) columns: Vec<usize>,
    fields: Vec<FieldRef>,
    /// `None` without columns: then nothing is kept.
    encoder: Option<KeyEncoder>,
}

impl Kept {
    /// The place of a column, which is kept from now on.
    pub(super) fn place(&mut self, column: usize, field: &FieldRef) -> usize {
        let place = self.columns.iter().position(|&known| known == column);
        place.unwrap_or_else(|| {
            self.columns.push(column);
            self.fields.push(field.clone());
            self.columns.len() - 1
        })
    }

    /// The type of a column.
    pub(super) fn data_type(&self, place: usize) -> &DataType {
        self.fields[place].data_type()
    }

    /// All columns are known.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some(field) = self.fields.iter().find(|field| !KeyEncoder::supports(field.data_type())) {
            let (name, data_type) = (field.name(), field.data_type());
            return Err(OperatorError::Plan(format!("column {name:?} is {data_type}, which a pattern cannot keep")));
        }
        let types = self.fields.iter().map(|field| field.data_type());
        self.encoder = if self.fields.is_empty() { None } else { Some(KeyEncoder::new(types)?) };
        Ok(())
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Option<KeyBytes>> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&i| batch.column(i).clone()).collect();
        self.encoder.as_ref().map(|encoder| encoder.encode_exactly(&columns)).transpose()
    }

    /// The columns of rows that were kept.
    pub(super) fn columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.encoder.as_ref().map_or(Ok(Vec::new()), |encoder| encoder.decode(rows))
    }
}

/// Makes a condition of step `at` ready. `steps` are the names of all steps, with the places of those that take rows.
pub(super) fn lower(
    condition: &Condition,
    input: &StreamSchema,
    steps: &[(String, Option<usize>)],
    at: usize,
    kept: &mut Kept,
) -> Result<Fits> {
    let expr = match &condition.0 {
        Kind::Rows(mask) => return Ok(Fits::Rows(mask(input)?)),
        Kind::Expr(expr) => expr,
    };
    for column in expr.column_refs().into_iter().filter(|column| column.relation.is_none()) {
        let Some((step, of)) = column.name.split_once('.') else { continue };
        if input.index_of(&column.name).is_err() && steps.iter().any(|(name, _)| name == step) {
            let name = &column.name;
            return Err(OperatorError::Plan(format!("there is no column {name:?}: write col_of({step:?}, {of:?})")));
        }
    }
    if expr.column_refs().iter().all(|column| column.relation.is_none()) {
        return Ok(Fits::Row(Lowering::new(input)?.condition(expr)?));
    }
    let visible = input.visible();
    let mut fields: Vec<FieldRef> = Vec::new();
    let (mut current, mut earlier) = (Vec::new(), Vec::new());
    let mut columns: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
    columns.sort();
    for column in columns.iter().filter(|column| column.relation.is_none()) {
        let index = index_of(&visible, &column.name)?;
        current.push(index);
        fields.push(visible.fields()[index].clone());
    }
    for column in columns.iter().filter(|column| column.relation.is_some()) {
        let index = index_of(&visible, &column.name)?;
        let field = &visible.fields()[index];
        earlier.push((step_of(column, steps, at)?, kept.place(index, field)));
        let name = column.flat_name();
        if fields.iter().any(|field| *field.name() == name) {
            return Err(OperatorError::Plan(format!("{expr}: {name} is both a column and a column of a step")));
        }
        fields.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
    }
    // A name with a dot in it instead of a qualifier: DataFusion takes `amount` next to `small.amount` for ambiguous.
    let flat = expr.as_ref().clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.flat_name())))
            }
            other => Transformed::no(other),
        })
    });
    let schema = Arc::new(Schema::new(fields));
    let condition = Lowering::new(&StreamSchema::without_time(schema.clone()))?.condition(&flat?.data)?;
    Ok(Fits::Earlier(Earlier { condition, schema, current, earlier }))
}

/// The place of the step that a column is qualified by: an earlier one, or the one whose condition it is.
fn step_of(column: &Column, steps: &[(String, Option<usize>)], at: usize) -> Result<usize> {
    let name = column.relation.as_ref().map(|relation| relation.to_string()).unwrap_or_default();
    let named = |wrong: &str| {
        let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
        let of = &steps[at].0;
        OperatorError::Plan(format!(
            "the condition of {of:?} reads {column}, but {wrong} (steps: {})",
            names.join(", ")
        ))
    };
    match steps.iter().position(|(step, _)| *step == name) {
        None => Err(named(&format!("there is no step {name:?}"))),
        Some(later) if later > at => Err(named(&format!("step {name:?} comes later"))),
        Some(step) => steps[step].1.ok_or_else(|| named(&format!("step {name:?} is of rows that are absent"))),
    }
}

/// A batch whose rows are looked at.
pub(super) struct Candidates<'a> {
    plan: &'a Shared,
    batch: &'a RecordBatch,
    /// By condition, if it is one on the row alone.
    masks: Vec<Option<BooleanArray>>,
    kept: Option<KeyBytes>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(plan: &'a Shared, batch: &'a RecordBatch) -> Result<Self> {
        let mask = |fits: &Fits| {
            Ok(match fits {
                Fits::Row(condition) => Some(evaluate_condition(condition.as_ref(), batch)?),
                Fits::Rows(mask) => Some(mask(batch)?),
                Fits::Earlier(_) => None,
            })
        };
        let masks = plan.conditions.iter().map(mask).collect::<Result<_>>()?;
        Ok(Self { plan, batch, masks, kept: plan.kept.rows(batch)? })
    }

    /// Whether a row may begin a match, as far as that is known without looking further.
    pub(super) fn may_begin(&self, row: usize) -> bool {
        let begin = self.plan.steps.steps[0].condition;
        self.masks[begin].as_ref().is_none_or(|mask| mask.value(row))
    }

    /// What a match keeps of a row.
    pub(super) fn keep(&self, row: usize) -> Option<Arc<[u8]>> {
        self.kept.as_ref().map(|kept| kept.get(row).into())
    }

    /// Whether a row fits a condition, as the next one of a partial match.
    pub(super) fn fits(&self, condition: usize, row: usize, partial: &Partial) -> Result<bool> {
        if let Some(mask) = &self.masks[condition] {
            return Ok(mask.value(row));
        }
        let Fits::Earlier(earlier) = &self.plan.conditions[condition] else { return Ok(false) };
        let mut columns: Vec<ArrayRef> = earlier.current.iter().map(|&i| self.batch.column(i).slice(row, 1)).collect();
        for (field, &(step, place)) in earlier.schema.fields()[columns.len()..].iter().zip(&earlier.earlier) {
            let Taken { last, .. } = &partial.taken[step];
            columns.push(match last {
                Some(last) => self.plan.kept.columns(std::iter::once(last.as_ref()))?.swap_remove(place),
                None => new_null_array(field.data_type(), 1),
            });
        }
        let value = evaluate(earlier.condition.as_ref(), &RecordBatch::try_new(earlier.schema.clone(), columns)?)?;
        let value = value.as_boolean();
        Ok(value.is_valid(0) && value.value(0))
    }
}
