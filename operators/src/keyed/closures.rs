//! Processes that are a closure: a running reduce, a fold.

use std::{borrow::Cow, marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use typed_arrow::schema::FromRecordBatch;

use super::{Keyed, NoSide, Process, State};
use crate::{
    OperatorError,
    typed::{Record, short_name, type_label},
};

/// A running reduce per key: each row is combined with the result so far, and the new result is emitted, with the event
/// time of the row. The first row of a key is its first result.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use typed_arrow::{prelude::*, schema::SchemaMeta};
/// use windrow_operators::{StreamSchema, Timestamp, keyed::{ProcessPlan, reduce}};
///
/// #[derive(Clone, Record, Serialize, Deserialize)]
/// struct Bid { auction: i64, price: i64, at: Timestamp }
///
/// let bids = StreamSchema::with_time(Bid::schema(), "at").unwrap();
/// let dearest = reduce(|top: Bid, bid: Bid| if bid.price > top.price { bid } else { top });
/// let plan = ProcessPlan::new(&bids, &["auction"], dearest, None).unwrap();
/// assert_eq!(plan.output().to_string(), "auction Int64, price Int64, at Timestamp");
/// ```
pub fn reduce<T, F>(combine: F) -> Reduce<T, F>
where
    F: Fn(T, T) -> T + Send + Sync + 'static,
{
    Reduce { combine: Arc::new(combine), record: PhantomData }
}

/// See [`reduce`].
pub struct Reduce<T, F> {
    combine: Arc<F>,
    record: PhantomData<fn() -> T>,
}

impl<T, F> Clone for Reduce<T, F> {
    fn clone(&self) -> Self {
        Self { combine: self.combine.clone(), record: PhantomData }
    }
}

impl<T, F> Process for Reduce<T, F>
where
    T: Record + Clone + Send + Serialize + DeserializeOwned,
    T: for<'a> TryFrom<<T as FromRecordBatch>::View<'a>, Error: std::fmt::Display>,
    F: Fn(T, T) -> T + Send + Sync + 'static,
{
    type Row = T;
    type State = Option<T>;
    type Output = T;
    type Side = NoSide;

    fn row(&mut self, row: T::View<'_>, key: &mut Keyed<'_, Self>) {
        let row = match T::try_from(row) {
            Ok(row) => row,
            Err(error) => {
                return key.fail(OperatorError::Internal(format!("record {}: {error}", short_name::<T>())));
            }
        };
        let state = key.state_mut();
        let result = match state.take() {
            Some(former) => (self.combine)(former, row),
            None => row,
        };
        *state = Some(result.clone());
        key.emit(result);
    }

    fn name() -> Cow<'static, str> {
        format!("Reduce of {}", type_label::<T>()).into()
    }
}

/// What a [`fold`] emits.
pub struct Emit<'a, U>(&'a mut dyn FnMut(U));

impl<U> Emit<'_, U> {
    /// Emits a record with the event time of the row.
    pub fn emit(&mut self, record: U) {
        (self.0)(record);
    }
}

/// Folds the rows of a key into a state, which begins with its default, and emits any number of records for each row.
///
/// ```
/// use typed_arrow::{prelude::*, schema::SchemaMeta};
/// use windrow_operators::{StreamSchema, Timestamp, keyed::{ProcessPlan, fold}};
///
/// #[derive(Record)]
/// struct Bid { auction: i64, price: i64, at: Timestamp }
/// #[derive(Record)]
/// struct Milestone { auction: i64, bids: u64 }
///
/// let bids = StreamSchema::with_time(Bid::schema(), "at").unwrap();
/// let milestones = fold::<Bid, u64, Milestone, _>(|count, bid, out| {
///     *count += 1;
///     if count.is_multiple_of(100) {
///         out.emit(Milestone { auction: bid.auction, bids: *count });
///     }
/// });
/// let plan = ProcessPlan::new(&bids, &["auction"], milestones, None).unwrap();
/// assert_eq!(plan.output().to_string(), "auction Int64, bids UInt64");
/// ```
pub fn fold<T, S, U, F>(step: F) -> Fold<T, S, U, F>
where
    T: Record,
    F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
{
    Fold { step: Arc::new(step), types: PhantomData }
}

/// See [`fold`].
pub struct Fold<T, S, U, F> {
    step: Arc<F>,
    types: PhantomData<fn(T, S) -> U>,
}

impl<T, S, U, F> Clone for Fold<T, S, U, F> {
    fn clone(&self) -> Self {
        Self { step: self.step.clone(), types: PhantomData }
    }
}

impl<T, S, U, F> Process for Fold<T, S, U, F>
where
    T: Record,
    S: State,
    U: Record,
    F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
{
    type Row = T;
    type State = S;
    type Output = U;
    type Side = NoSide;

    fn row(&mut self, row: T::View<'_>, key: &mut Keyed<'_, Self>) {
        key.with_state(|state, emit| (self.step)(state, row, &mut Emit(emit)));
    }

    fn name() -> Cow<'static, str> {
        format!("Fold of {} to {}", type_label::<S>(), type_label::<U>()).into()
    }
}
