//! What a count window computes, and the form of its state: a disk format.
//!
//! ```text
//!   __key_group │ auction │ __rows │ window_start │ bids │ avg[count] │ avg[sum]
//!                 (key)     of the   of each window that has begun: lists of one length
//!                           key
//! ```
//!
//! One row for each key. `__rows` is how many rows it has had since the first of its windows began, which is the first of
//! each list; the lists of a key between two windows are empty. A key that is done has only nulls, and the row is there
//! because an older segment has a row of it: of the rows of a key, over the segments of one task, the newest counts.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_expr::Expr;

use super::{Count, CountAggregate, state::list};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema, Timestamp,
    aggregates::{Aggregates, Planned},
    key::encoded::KeyEncoder,
    keyed::store::KeyPlan,
    plan::{KeyedOutput, Partitioning, Plan},
    state::StateForm,
    window::{WINDOW_START, aggregate::bounds},
};

/// In how many windows one row may be: what it costs.
const OVERLAP: u64 = 1024;
/// The state column that says how many rows a key has had.
const ROWS: &str = "__rows";

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
    pub(super) key: KeyPlan,
    pub(super) size: u64,
    pub(super) slide: u64,
    pub(super) aggregates: Aggregates,
    pub(super) output: StreamSchema,
}

impl Shared {
    /// The types of the states of all aggregates.
    pub(super) fn state_types(&self) -> Result<Vec<DataType>> {
        let fields = self.aggregates.each().map(|(lowered, _)| Ok(lowered.aggregate.state_fields()?));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        Ok(fields.iter().flatten().map(|field| field.data_type().clone()).collect())
    }
}

impl CountPlan {
    /// Aggregates rows of `input` per value of the columns `key`, over the windows that `count` says. Fails when a number of
    /// rows is 0, a row would be in very many windows, the stream has no event time, a column does not exist or cannot be
    /// a key, or an expression is not an aggregate.
    pub fn new(input: &StreamSchema, key: &[&str], count: Count, aggregates: &[Expr]) -> Result<Self> {
        let Count { size, slide } = count;
        let time = input.event_time("a count window")?;
        check_size(size, slide)?;
        let planned = Planned::new(input, key, aggregates)?;
        let output = planned.output(bounds())?;
        Ok(Self(Arc::new(Shared {
            key: key_plan(input, key, count, &planned)?,
            input: input.clone(),
            time,
            size,
            slide,
            aggregates: planned.aggregates,
            output: StreamSchema::with_hidden_time(&output)?,
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

/// The key, and the form of what is held for it.
fn key_plan(input: &StreamSchema, key: &[&str], Count { size, slide }: Count, planned: &Planned) -> Result<KeyPlan> {
    let mut held = vec![Field::new(ROWS, DataType::Int64, true), list(WINDOW_START, &Timestamp::data_type())];
    for state in planned.states(Vec::new()) {
        let (name, data_type) = (state.name(), state.data_type());
        if !KeyEncoder::supports(data_type) {
            return Err(OperatorError::Plan(format!(
                "the state of the aggregate {name:?} is {data_type}, which a count window cannot hold: aggregate it over time, \
                 in a window or a session"
            )));
        }
        held.push(list(name, data_type));
    }
    KeyPlan::new(input, key, held, &planned.meaning(&format!("{size} rows every {slide}")))
}

impl Plan for CountPlan {
    fn noun(&self) -> &'static str {
        "count"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.columns().to_vec())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        vec![(Port::MAIN, self.0.output.clone()), (Port::LATE, self.0.input.clone())]
    }

    fn state_form(&self) -> StateForm {
        self.0.key.form().clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        KeyedOutput::named(&self.0.input, self.0.key.columns(), &self.0.output)
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}
