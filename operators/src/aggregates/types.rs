//! Whether an aggregate takes the types of its arguments: what is said if not.
//!
//! DataFusion says that no signature fits, of `approx_distinct` only when rows come. So accumulators are made once when the job is
//! planned, and if that fails, what would fit is found by trying:
//!
//! ```text
//!   sum(at)  fails ──► sum(number)? sum(true)? sum(text)? sum(time)? ──► "sum takes a number, but column "at" is Timestamp…"
//! ```

use std::sync::Arc;

use arrow::{
    compute::can_cast_types,
    datatypes::{DataType, Field, Schema},
};
use datafusion_expr::{Expr, col, expr::AggregateFunction};
use datafusion_physical_expr::aggregate::LoweredAggregate;

use super::accumulators::accumulator;
use crate::{
    OperatorError, Result, StreamSchema, Timestamp,
    expr::{Lowering, aggregate_of, describe},
};

/// The column that stands for an argument when types are tried.
const TRIED: &str = "__tried";

/// The types that are tried.
fn kinds() -> [(DataType, &'static str); 5] {
    [
        (DataType::Float64, "a number"),
        (DataType::Int64, "a whole number"),
        (DataType::Boolean, "true or false"),
        (DataType::Utf8, "text"),
        (Timestamp::data_type(), "a time"),
    ]
}

/// An aggregate over `input` that is known to run.
pub(super) fn lower(input: &StreamSchema, expr: &Expr) -> Result<LoweredAggregate> {
    let lowering = Lowering::new(input)?;
    let lowered = lowering.aggregate(expr).and_then(|lowered| {
        tried(&lowered).map_err(OperatorError::about(expr))?;
        Ok(lowered)
    });
    lowered.map_err(|error| misfit(input, &lowering, expr).map_or(error, OperatorError::Plan))
}

/// Fails when there is no such accumulator, which DataFusion does not know before.
fn tried(lowered: &LoweredAggregate) -> datafusion_common::Result<()> {
    accumulator(lowered)?;
    if !lowered.aggregate.groups_accumulator_supported() {
        lowered.aggregate.create_accumulator()?;
    }
    Ok(())
}

/// What is wrong with an aggregate that takes another type as one of its arguments, if that is it.
fn misfit(input: &StreamSchema, lowering: &Lowering, expr: &Expr) -> Option<String> {
    let function = aggregate_of(expr)?;
    function.params.args.iter().enumerate().find_map(|(at, argument)| {
        let (_, data_type) = lowering.scalar(argument).ok()?;
        let mut fitting = kinds().into_iter().filter(|(kind, _)| takes(input, function, at, kind)).collect::<Vec<_>>();
        if fitting.iter().any(|(kind, _)| kind.is_floating()) {
            // It takes whole numbers too, which goes without saying.
            fitting.retain(|(kind, _)| !kind.is_integer());
        }
        let words: Vec<&str> = fitting.iter().map(|(_, words)| *words).collect();
        let argument = match argument {
            Expr::Column(column) => format!("column {:?}", column.name),
            other => describe(other).ok()?,
        };
        let cast = fitting.iter().find(|(kind, _)| can_cast_types(&data_type, kind));
        let cast = cast.map(|(kind, _)| format!(", or convert it with try_cast(…, DataType::{kind})"));
        (!words.is_empty()).then(|| {
            format!(
                "{expr}: {} takes {}, but {argument} is {data_type}: take another column{}",
                function.func.name(),
                words.join(", "),
                cast.unwrap_or_default()
            )
        })
    })
}

/// Whether the function takes a value of this type as the argument `at`.
fn takes(input: &StreamSchema, function: &AggregateFunction, at: usize, kind: &DataType) -> bool {
    let mut fields = input.visible().fields().to_vec();
    fields.push(Arc::new(Field::new(TRIED, kind.clone(), true)));
    let mut function = function.clone();
    function.params.args[at] = col(TRIED);
    let stream = StreamSchema::without_time(Arc::new(Schema::new(fields)));
    let lowered = Lowering::new(&stream).and_then(|lowering| lowering.aggregate(&Expr::AggregateFunction(function)));
    lowered.is_ok_and(|lowered| tried(&lowered).is_ok())
}
