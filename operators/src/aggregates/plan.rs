//! From what a user writes to aggregates that run, their columns and their description.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion_expr::Expr;
use datafusion_physical_expr::aggregate::LoweredAggregate;

use super::types::lower;
use crate::{
    Result, StreamSchema,
    expr::describe,
    key::check_key,
    schema::{no_duplicates, unused},
};

/// Aggregates that fit a stream.
#[derive(Debug, Default)]
pub(crate) struct Aggregates(Vec<(LoweredAggregate, usize)>);

impl Aggregates {
    /// Each with how many state columns it has.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&LoweredAggregate, usize)> {
        self.0.iter().map(|(lowered, width)| (lowered, *width))
    }
}

/// Aggregates per key, and all that a plan says of them.
pub(crate) struct Planned {
    /// The key columns of the input.
    pub(crate) key: Vec<usize>,
    pub(crate) key_schema: SchemaRef,
    pub(crate) aggregates: Aggregates,
    /// The state columns of all aggregates, not yet with names that are theirs alone.
    states: Vec<Field>,
    described: Vec<String>,
}

impl Planned {
    /// Aggregates over `input` per value of the columns `key`. Fails when a column does not exist or cannot be a key, or an
    /// expression is not an aggregate, or not one of such a column.
    pub(crate) fn new(input: &StreamSchema, key: &[&str], aggregates: &[Expr]) -> Result<Self> {
        let key = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &key)?;
        let key_fields: Vec<FieldRef> = key.iter().map(|&i| input.columns().fields()[i].clone()).collect();
        let (mut lowered, mut states) = (Vec::with_capacity(aggregates.len()), Vec::new());
        for expr in aggregates {
            let aggregate = lower(input, expr)?;
            let own = state_columns(&aggregate)?;
            lowered.push((aggregate, own.len()));
            states.extend(own);
        }
        Ok(Self {
            key,
            key_schema: Arc::new(Schema::new(key_fields)),
            aggregates: Aggregates(lowered),
            states,
            described: aggregates.iter().map(describe).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn key_fields(&self) -> impl Iterator<Item = Field> {
        self.key_schema.fields().iter().map(|field| field.as_ref().clone())
    }

    /// The columns of the result: `leading`, the key, the aggregates. Fails when two have one name.
    pub(crate) fn output(&self, leading: Vec<Field>) -> Result<Schema> {
        let mut output = leading;
        output.extend(self.key_fields());
        output.extend(self.aggregates.each().map(|(lowered, _)| lowered.aggregate.field().as_ref().clone()));
        no_duplicates(&output)?;
        Ok(Schema::new(output))
    }

    /// The columns of a state: `leading`, then those of the aggregates. Part of the disk format.
    pub(crate) fn states(&self, leading: Vec<Field>) -> Vec<Field> {
        let mut columns = leading;
        for state in &self.states {
            let name = unused(state.name(), |name| columns.iter().any(|field| field.name() == name));
            columns.push(state.clone().with_name(name));
        }
        columns
    }

    /// What is computed, over `window`: `tumbling 10s; count(1), max(price)`. Part of the disk format.
    pub(crate) fn meaning(&self, window: &str) -> String {
        let separator = if self.described.is_empty() { "" } else { "; " };
        format!("{window}{separator}{}", self.described.join(", "))
    }
}

/// The state columns of one aggregate. One that is alone has the name of the aggregate; others say which part they are.
fn state_columns(lowered: &LoweredAggregate) -> Result<Vec<Field>> {
    let states = lowered.aggregate.state_fields()?;
    let output = lowered.aggregate.field();
    let column = |state: &FieldRef| {
        let name = match states.len() {
            1 => output.name().clone(),
            _ => format!("{}[{}]", output.name(), part_of(state.name())),
        };
        state.as_ref().clone().with_name(name).with_nullable(true)
    };
    Ok(states.iter().map(column).collect())
}

/// Of DataFusion's name of a state, `avg(price)[sum]`, the part that says which it is.
fn part_of(state: &str) -> &str {
    state.strip_suffix(']').and_then(|state| state.rsplit_once('[')).map_or(state, |(_, part)| part)
}
