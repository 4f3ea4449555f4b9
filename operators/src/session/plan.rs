//! What a session aggregation computes, and the form of its state.
//!
//! ```text
//!   result   window_start │ window_end │ auction │ bids │ avg        one row per session
//!   state    __key_group │ window_start │ window_end │ auction │ bids │ avg[count] │ avg[sum]     one row per fragment
//! ```
//!
//! The rows of a segment are *fragments*: each has the states of some rows of one session, which lie between its start and its
//! end. The fragments of one key, over all segments of a task, that overlap directly or through others are one session, and
//! its states are the merged states of these. A session that ends at the number `fired` or before has given its result; its
//! fragments may still be in older segments and are to be passed over. No other fragment overlaps them.
//!
//! Sessions that give more than one result have two more columns: `rows`, how many a fragment has, and `revision`. A row with
//! a revision is no fragment but a result that was given, of so many rows, without states. One that lies within another of
//! its key with a greater revision was replaced.
//!
//! Two numbers go with the segments, in microseconds: `closed`, how far event time had come, and, where it is less,
//! `fired`, up to where sessions have given their result. A third one, `passed`, is that of windows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_expr::Expr;

use super::{
    SessionAggregate,
    saved::{CLOSED, FIRED},
    spec::{Gaps, Session},
};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema, Timestamp,
    aggregates::{Aggregates, Planned},
    plan::{KeyedOutput, Partitioning, Plan},
    schema::unused,
    state::{Reading, Rule, StateForm},
    window::{REVISION, WINDOW_END, aggregate::bounds, form::of_aggregation},
};

/// Where the columns of a segment are.
pub(super) const START: usize = 1;
pub(super) const END: usize = 2;
/// The columns of a segment before the key.
pub(super) const LEADING: usize = 3;

/// What a session aggregation computes. Built once, when the job is planned; makes the operators of every task.
///
/// The result has the columns `window_start` (the time of the first row), `window_end` (where the gap after the last row
/// ends), the key, the aggregates; its event time is the last instant of the session.
///
/// A session gives its result when the watermark is the allowed lateness past its end. A row that is further behind the
/// watermark than the allowed lateness is late, unless an open session of its key spans its time. (That its own
/// gap has not ended is not enough: a session that it belongs to may have given its result.) So the results are those
/// of a batch computation over all rows that were not late.
///
/// With [`Session::corrections`], [`Session::early_every`] or [`Session::early_rows`] there are more results, and a column
/// `revision` after `window_end`: see there which of them are the answer.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use datafusion_expr::col;
/// use datafusion_functions_aggregate::expr_fn::sum;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::session::{Session, SessionPlan};
///
/// let user: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1, 1]));
/// let clicks: ArrayRef = Arc::new(Int64Array::from(vec![5, 7, 9, 11]));
/// let at = Timestamp::column(vec![0, 1_000_000, 9_000_000, 20_000_000]);
/// let rows = RecordBatch::try_from_iter([("user", user), ("clicks", clicks), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(rows.schema(), "at").unwrap();
///
/// let session = Session::gap(Duration::from_secs(10));
/// let plan = SessionPlan::new(&stream, &["user"], session, &[sum(col("clicks"))]).unwrap();
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, rows, &mut out).unwrap();
/// operator.advance(Timestamp::from_micros(19_000_000), &mut out).unwrap();
/// let rows = |out: &mut Outbox| out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
/// assert_eq!(rows(&mut out), 2, "user 2 from 1 s to 11 s, user 1 from 0 s to 19 s");
/// operator.advance(Timestamp::MAX, &mut out).unwrap();
/// assert_eq!(rows(&mut out), 1, "user 1 from 20 s to 30 s");
/// ```
#[derive(Clone)]
pub struct SessionPlan(Arc<Shared>);

pub(super) struct Shared {
    pub(super) session: Session,
    pub(super) gaps: Gaps,
    /// The key columns of the input.
    pub(super) key: Vec<usize>,
    pub(super) key_schema: SchemaRef,
    pub(super) aggregates: Aggregates,
    input: StreamSchema,
    pub(super) input_time: usize,
    pub(super) output: StreamSchema,
    pub(super) form: StateForm,
    /// Whether sessions give more than one result.
    pub(super) revised: bool,
}

impl SessionPlan {
    /// Aggregates the sessions of each value of the columns `key`; without key columns all rows have one key. Fails when the
    /// stream has no event time, a column does not exist or cannot be a key, an expression is not an aggregate, or the
    /// gap is none.
    pub fn new(input: &StreamSchema, key: &[&str], session: Session, aggregates: &[Expr]) -> Result<Self> {
        let input_time = input.event_time("a session")?;
        let gaps = session.gaps(input)?;
        let planned = Planned::new(input, key, aggregates)?;
        let revised = session.repeats()?.is_some();
        let mut leading = bounds();
        leading.extend(revised.then(|| Field::new(REVISION, DataType::Int64, false)));
        let output = planned.output(leading)?;
        Ok(Self(Arc::new(Shared {
            form: form(&session, &planned)?,
            revised,
            session,
            gaps,
            key: planned.key,
            key_schema: planned.key_schema,
            aggregates: planned.aggregates,
            input: input.clone(),
            input_time,
            output: StreamSchema::with_hidden_time(&output)?,
        })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The whole aggregation in one operator, behind an exchange by the key.
    pub fn whole(&self) -> Result<SessionAggregate> {
        SessionAggregate::new(self.0.clone())
    }
}

/// The form of an aggregation of windows, with the end of each fragment after its start.
fn form(session: &Session, planned: &Planned) -> Result<StateForm> {
    let form = of_aggregation(&session.describe()?, planned, false)?;
    let mut fields: Vec<FieldRef> = form.columns.fields().to_vec();
    if fields.iter().any(|field| field.name() == WINDOW_END) {
        return Err(OperatorError::Plan(format!("the column name {WINDOW_END:?} is reserved")));
    }
    fields.insert(END, Arc::new(Field::new(WINDOW_END, Timestamp::data_type(), false)));
    let revised = session.repeats()?.is_some();
    for name in ["rows", REVISION].into_iter().filter(|_| revised) {
        let name = unused(name, |name| fields.iter().any(|field| field.name() == name));
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
    }
    // No fragment replaces another: rows are the same only when they agree in everything.
    let identity = fields.len() - 1;
    let reading = Reading::each([Rule::Session {
        key: (LEADING..LEADING + planned.key.len()).collect(),
        span: (START, END),
        after: [FIRED, CLOSED].map(String::from).to_vec(),
    }]);
    Ok(StateForm { columns: Arc::new(Schema::new(fields)), identity, reading, ..form })
}

impl Plan for SessionPlan {
    fn noun(&self) -> &'static str {
        "session"
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

    fn keyed_output(&self) -> Option<KeyedOutput> {
        KeyedOutput::named(&self.0.input, &self.0.key, &self.0.output)
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}
