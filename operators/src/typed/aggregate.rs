//! Aggregates written as a Rust struct, for every window that takes DataFusion's.
//!
//! ```text
//!   Aggregate (yours) ── custom(…) ──► Expr, like max(col("price"))
//!                                         │ planned by DataFusion as any other aggregate
//!                        Groups: one State per group ──► MessagePack in a binary column: first phase, checkpoint
//! ```

use std::{
    any::TypeId,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, LargeBinaryBuilder, RecordBatch},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion_common::{DataFusionError, Result as PlanResult, not_impl_err, plan_err};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Signature, Volatility,
    expr::AggregateFunction,
    function::{AccumulatorArgs, StateFieldsArgs},
    ident,
    utils::AggregateOrderSensitivity,
};
use serde::{Serialize, de::DeserializeOwned};
use typed_arrow::{
    bridge::ArrowBinding,
    schema::{FromRecordBatch, SchemaMeta},
};

use super::Record;

/// An aggregate function: how rows become one value.
///
/// Rows may come in any order, and parts of them in different places: so `merge` of two states must give what adding the
/// rows of both to one state would have given.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use typed_arrow::prelude::*;
/// use windrow_operators::typed::{Aggregate, custom};
///
/// #[derive(Record)]
/// struct Trade { price: f64, volume: i64 }
///
/// /// The average price, weighted by volume.
/// struct Vwap;
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Sums { paid: f64, volume: i64 }
///
/// impl Aggregate for Vwap {
///     type Row = Trade;
///     type State = Sums;
///     type Output = f64;
///     const NAME: &'static str = "vwap";
///
///     fn add(&self, state: &mut Sums, trade: TradeView<'_>) {
///         state.paid += trade.price * trade.volume as f64;
///         state.volume += trade.volume;
///     }
///     fn merge(&self, state: &mut Sums, other: Sums) {
///         state.paid += other.paid;
///         state.volume += other.volume;
///     }
///     fn finish(&self, state: &Sums) -> Option<f64> {
///         (state.volume != 0).then(|| state.paid / state.volume as f64)
///     }
/// }
///
/// let vwap = custom(Vwap).alias("vwap"); // as good as `max(col("price"))`
/// assert_eq!(vwap.to_string(), "vwap(price, volume) AS vwap");
/// ```
pub trait Aggregate: Send + Sync + 'static {
    /// The columns it reads, as a `#[derive(Record)]` struct.
    type Row: Record;
    /// What it keeps per group. It is saved in checkpoints and sent between tasks.
    type State: Default + Serialize + DeserializeOwned + Send + 'static;
    /// The type of the result.
    type Output: ArrowBinding;
    /// What it is called in plans and messages, such as `vwap`.
    const NAME: &'static str;

    /// Takes a row.
    fn add(&self, state: &mut Self::State, row: <Self::Row as FromRecordBatch>::View<'_>);
    /// Takes what other rows have come to.
    fn merge(&self, state: &mut Self::State, other: Self::State);
    /// The result; `None` is null.
    fn finish(&self, state: &Self::State) -> Option<Self::Output>;
}

/// An aggregate over the columns that its row type names.
pub fn custom<A: Aggregate>(aggregate: A) -> Expr {
    let fields = A::Row::fields();
    let types = fields.iter().map(|field| field.data_type().clone()).collect();
    let columns = fields.iter().map(|field| ident(field.name())).collect();
    let signature = Signature::exact(types, Volatility::Immutable);
    let function = AggregateUDF::from(Function { aggregate: Arc::new(aggregate), signature });
    Expr::AggregateFunction(AggregateFunction::new_udf(Arc::new(function), columns, false, None, vec![], None))
}

/// An [`Aggregate`] as DataFusion knows functions.
struct Function<A> {
    aggregate: Arc<A>,
    signature: Signature,
}

// Functions are the same when they are of the same type: what else a value holds is the user's.
impl<A: Aggregate> PartialEq for Function<A> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<A: Aggregate> Eq for Function<A> {}
impl<A: Aggregate> Hash for Function<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        TypeId::of::<A>().hash(state);
    }
}
impl<A: Aggregate> std::fmt::Debug for Function<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(A::NAME)
    }
}

impl<A: Aggregate> AggregateUDFImpl for Function<A> {
    fn name(&self) -> &str {
        A::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(A::Output::data_type())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> PlanResult<FieldRef> {
        for (argument, field) in arguments.iter().zip(A::Row::fields()) {
            if argument.is_nullable() && !field.is_nullable() {
                let name = field.name();
                return plan_err!("column {name:?} may be null: make the field an Option");
            }
        }
        Ok(Arc::new(Field::new(A::NAME, A::Output::data_type(), true)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> PlanResult<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[state]", args.name), DataType::LargeBinary, true))])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        not_impl_err!("{} over one group only", A::NAME)
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { aggregate: self.aggregate.clone(), states: Vec::new() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The state of every group.
struct Groups<A: Aggregate> {
    aggregate: Arc<A>,
    states: Vec<A::State>,
}

impl<A: Aggregate> Groups<A> {
    /// Calls `take` with each row that the filter lets pass.
    fn each(
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
        mut take: impl FnMut(usize, <A::Row as FromRecordBatch>::View<'_>),
    ) -> PlanResult<()> {
        let rows = RecordBatch::try_new(A::Row::schema(), values.to_vec())?;
        let views = A::Row::from_record_batch(&rows).map_err(failed::<A>)?;
        for (row, view) in views.enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                take(row, view.map_err(failed::<A>)?);
            }
        }
        Ok(())
    }

    fn grow(&mut self, groups: usize) {
        self.states.resize_with(groups.max(self.states.len()), A::State::default);
    }
}

impl<A: Aggregate> GroupsAccumulator for Groups<A> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> PlanResult<()> {
        self.grow(total);
        let Self { aggregate, states } = self;
        Self::each(values, filter, |row, view| aggregate.add(&mut states[groups[row]], view))
    }

    fn evaluate(&mut self, emit: EmitTo) -> PlanResult<ArrayRef> {
        let states = emit.take_needed(&mut self.states);
        let mut values = A::Output::new_builder(states.len());
        for state in &states {
            match self.aggregate.finish(state) {
                Some(value) => A::Output::append_value(&mut values, &value),
                None => A::Output::append_null(&mut values),
            }
        }
        Ok(Arc::new(A::Output::finish(values)))
    }

    fn state(&mut self, emit: EmitTo) -> PlanResult<Vec<ArrayRef>> {
        encode::<A>(&emit.take_needed(&mut self.states))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> PlanResult<()> {
        self.grow(total);
        let Some(saved) = values.first().and_then(|column| column.as_binary_opt::<i64>()) else {
            return Err(failed::<A>("its state is not binary"));
        };
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| saved.is_valid(*row)) {
            let state = rmp_serde::from_slice(saved.value(row)).map_err(failed::<A>)?;
            self.aggregate.merge(&mut self.states[*group], state);
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> PlanResult<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut states: Vec<A::State> = Vec::new();
        states.resize_with(rows, A::State::default);
        Self::each(values, filter, |row, view| self.aggregate.add(&mut states[row], view))?;
        encode::<A>(&states)
    }

    /// What states hold on the heap is not known.
    fn size(&self) -> usize {
        self.states.capacity() * size_of::<A::State>()
    }
}

fn encode<A: Aggregate>(states: &[A::State]) -> PlanResult<Vec<ArrayRef>> {
    let mut column = LargeBinaryBuilder::new();
    for state in states {
        column.append_value(rmp_serde::to_vec_named(state).map_err(failed::<A>)?);
    }
    Ok(vec![Arc::new(column.finish())])
}

#[cold]
fn failed<A: Aggregate>(error: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("aggregate {}: {error}", A::NAME))
}
