//! What a count window computes, and the form of its state: a disk format.
//!
//! ```text
//!   __key_group │ auction │ __window │ __rows │ window_start │ bids │ avg[count] │ avg[sum]
//!                 (key)     which     of the    of the window  (states of the aggregates)
//!                           window    key
//! ```
//!
//! One row for each window of a key that has begun. `__rows` is how many rows the key has had since the first of its
//! windows began, which is window 0 here. A key between two windows has one row without `window_start`; one whose
//! `__rows` is 0 is done, and the row is there because an older segment has rows of it: of the rows of a key, over the
//! segments of one task, the newest segment has all that count.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion_expr::Expr;
use datafusion_physical_expr::aggregate::LoweredAggregate;

use super::{Count, CountAggregate};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema, Timestamp,
    expr::Lowering,
    key::check_key,
    plan::{Partitioning, Plan},
    schema::no_duplicates,
    state::{KEY_GROUP, StateForm},
    window::{
        WINDOW_START,
        aggregate::bounds,
        form::{describe, part_of, unused},
    },
};

/// In how many windows one row may be: what it costs.
const OVERLAP: u64 = 1024;
/// The state columns that are neither the key nor a state, after the key.
pub(super) const WINDOW: &str = "__window";
pub(super) const ROWS: &str = "__rows";

/// Aggregates over windows of `size` rows of a key, a new one every `slide` rows.
///
/// The result has the columns `window_start`, `window_end` (the event times of the first and the last row), the key, the
/// aggregates; its event time is that of the last row. Windows that are not full give nothing.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
/// use arrow::datatypes::Int64Type;
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::sum;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp, count::{Count, CountPlan}};
///
/// let price: ArrayRef = Arc::new(Int64Array::from(vec![5, 7, 9, 11, 13]));
/// let at = Timestamp::column(vec![0, 1, 2, 3, 4]);
/// let bids = RecordBatch::try_from_iter([("price", price), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(bids.schema(), "at").unwrap();
///
/// // The sums of three rows, every two rows.
/// let plan = CountPlan::new(&stream, &[], Count::of(3).every(2), &[sum(col("price")).alias("sum")]).unwrap();
/// let mut count = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// count.process(Port::MAIN, bids, &mut out).unwrap();
/// let (_, result) = out.drain().next().unwrap();
/// assert_eq!(result.column(2).as_primitive::<Int64Type>().values(), &[5 + 7 + 9, 9 + 11 + 13]);
/// ```
#[derive(Clone, Debug)]
pub struct CountPlan(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) input: StreamSchema,
    pub(super) time: usize,
    pub(super) key: Vec<usize>,
    pub(super) size: u64,
    pub(super) slide: u64,
    pub(super) aggregates: Vec<LoweredAggregate>,
    /// How many state columns each aggregate has.
    pub(super) widths: Vec<usize>,
    pub(super) output: StreamSchema,
    pub(super) form: StateForm,
}

impl CountPlan {
    /// Aggregates rows of `input` per value of the columns `key`, over the windows that `count` says. Fails when a number of
    /// rows is 0, a row would be in very many windows, the stream has no event time, a column does not exist or cannot be
    /// a key, or an expression is not an aggregate.
    pub fn new(input: &StreamSchema, key: &[&str], count: Count, aggregates: &[Expr]) -> Result<Self> {
        let Count { size, slide } = count;
        let time = input.event_time("a count window")?;
        check_size(size, slide)?;
        let key = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &key)?;
        let key_fields: Vec<FieldRef> = key.iter().map(|&i| input.columns().fields()[i].clone()).collect();

        let lowering = Lowering::new(input)?;
        let lowered = aggregates.iter().map(|expr| lowering.aggregate(expr)).collect::<Result<Vec<_>>>()?;
        let mut output = bounds();
        output.extend(key_fields.iter().map(|field| field.as_ref().clone()));
        output.extend(lowered.iter().map(|lowered| lowered.aggregate.field().as_ref().clone()));
        no_duplicates(&output)?;

        let widths = lowered.iter().map(|lowered| Ok(lowered.aggregate.state_fields()?.len()));
        Ok(Self(Arc::new(Shared {
            widths: widths.collect::<Result<_>>()?,
            form: form(size, slide, &key_fields, aggregates, &lowered)?,
            input: input.clone(),
            time,
            key,
            size,
            slide,
            aggregates: lowered,
            output: StreamSchema::with_hidden_time(&Schema::new(output))?,
        })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<CountAggregate> {
        CountAggregate::new(self.0.clone())
    }
}

fn check_size(size: u64, slide: u64) -> Result<()> {
    let wrong = match (size, slide) {
        (0, _) | (_, 0) => "both are at least one row".to_string(),
        _ if size > i64::MAX as u64 / 2 || slide > i64::MAX as u64 / 2 => {
            format!("both are at most {} rows", i64::MAX / 2)
        }
        _ if size.div_ceil(slide) > OVERLAP => format!(
            "each row would be in {} windows, at most {OVERLAP} are allowed: let the windows begin every {} rows or more",
            size.div_ceil(slide),
            size.div_ceil(OVERLAP)
        ),
        _ => return Ok(()),
    };
    Err(OperatorError::Plan(format!("count windows of {size} rows every {slide} rows: {wrong}")))
}

fn form(
    size: u64,
    slide: u64,
    key: &[FieldRef],
    expressions: &[Expr],
    aggregates: &[LoweredAggregate],
) -> Result<StateForm> {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false)];
    fields.extend(key.iter().map(|field| field.as_ref().clone()));
    if let Some(field) = key.iter().find(|field| [KEY_GROUP, WINDOW, ROWS].contains(&field.name().as_str())) {
        return Err(OperatorError::Plan(format!("the column name {:?} is reserved", field.name())));
    }
    let mut add = |name: &str, field: Field| {
        let name = unused(name, |name| fields.iter().any(|field| field.name() == name));
        fields.push(field.with_name(name));
    };
    add(WINDOW, Field::new(WINDOW, DataType::Int64, false));
    add(ROWS, Field::new(ROWS, DataType::Int64, false));
    add(WINDOW_START, Field::new(WINDOW_START, Timestamp::data_type(), true));
    for lowered in aggregates {
        let states = lowered.aggregate.state_fields()?;
        let output = lowered.aggregate.field();
        for state in &states {
            let name = match states.len() {
                1 => output.name().clone(),
                _ => format!("{}[{}]", output.name(), part_of(state.name())),
            };
            add(&name, state.as_ref().clone().with_nullable(true));
        }
    }
    let states = fields[1 + key.len() + 3..].iter().map(|field| SortField::new(field.data_type().clone()));
    if !RowConverter::supports_fields(&states.collect::<Vec<_>>()) {
        let message = "one of the aggregates has a state that a count window cannot hold";
        return Err(OperatorError::Plan(format!("{message}: {}", Schema::new(fields))));
    }
    let described: Vec<String> = expressions.iter().map(describe).collect::<Result<_>>()?;
    let meaning = format!("{size} rows every {slide}; {}", described.join(", "));
    Ok(StateForm { columns: Arc::new(Schema::new(fields)), identity: key.len().max(1), meaning })
}

impl Plan for CountPlan {
    fn noun(&self) -> &'static str {
        "count"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        vec![(Port::MAIN, self.0.output.clone()), (Port::LATE, self.0.input.clone())]
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}
