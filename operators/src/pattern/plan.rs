//! What a pattern computes, checked before a job runs, and the form of its state.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, Schema},
};

use super::{
    MATCH_END, MATCH_START, PatternMatch,
    condition::{Fits, Kept, lower},
    partial::{Absence, Step, Steps},
    spec::{Join, Measure, Pattern, Skip},
    stored,
};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema, Timestamp,
    key::{check_key, encoded::KeyEncoder},
    plan::{Partitioning, Plan},
    schema::no_duplicates,
    state::StateForm,
    time::spelled,
};

/// Finds a [`Pattern`] in the rows of each key.
///
/// The result has the columns `match_start`, `match_end`, the key, the measures. What matches, and when, is said in the
/// [module](crate::pattern).
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
/// use arrow::datatypes::Int64Type;
/// use datafusion_expr::{col, lit};
/// use windrow_operators::pattern::{Pattern, PatternPlan, count_of, last};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
///
/// let amount: ArrayRef = Arc::new(Int64Array::from(vec![3, 5, 4, 800]));
/// let at = Timestamp::column(vec![0, 1, 2, 3]);
/// let payments = RecordBatch::try_from_iter([("amount", amount), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(payments.schema(), "at").unwrap();
///
/// let pattern = Pattern::begin("small", col("amount").lt(lit(10)))
///     .one_or_more()
///     .next("large", col("amount").gt(col("small.amount") * lit(100)))
///     .within(Duration::from_secs(60));
/// let measures = [count_of("small").alias("probes"), last("large", "amount").alias("amount")];
/// let plan = PatternPlan::new(&stream, &[], &pattern, &measures).unwrap();
///
/// let mut operator = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, payments, &mut out).unwrap();
/// let (_, found) = out.drain().next().unwrap();
/// assert_eq!(found.column(2).as_primitive::<Int64Type>().values(), &[3]);
/// assert_eq!(found.column(3).as_primitive::<Int64Type>().values(), &[800]);
/// ```
#[derive(Clone, Debug)]
pub struct PatternPlan(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) input: StreamSchema,
    pub(super) time: usize,
    pub(super) key: Vec<usize>,
    pub(super) steps: Steps,
    pub(super) conditions: Vec<Fits>,
    pub(super) kept: Kept,
    pub(super) measures: Vec<Told>,
    pub(super) skip: Skip,
    /// In microseconds, of which all time has more than an `i64` can say.
    pub(super) within: i128,
    pub(super) output: StreamSchema,
    pub(super) form: StateForm,
}

/// What is told of a match: of which step, and the place of a column among those that are kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    First(usize, usize),
    Last(usize, usize),
    Count(usize),
}

impl Shared {
    /// Whether a match that began at `start` can take no row of `time`.
    pub(super) fn is_over(&self, start: i64, time: i64) -> bool {
        i128::from(start) + self.within <= i128::from(time)
    }

    /// When the time of a match that began at `start` is over; the last instant, if that is later.
    pub(super) fn over(&self, start: i64) -> i64 {
        i64::try_from(i128::from(start) + self.within).unwrap_or(i64::MAX)
    }

    /// Rows earlier than this begin no match that goes on at `time`.
    pub(super) fn horizon(&self, time: Timestamp) -> Timestamp {
        let horizon = i128::from(time.micros()) - self.within + 1;
        Timestamp::from_micros(i64::try_from(horizon).unwrap_or(i64::MIN))
    }

    /// Keys as bytes.
    pub(super) fn key_encoder(&self) -> Result<KeyEncoder> {
        KeyEncoder::new(self.key.iter().map(|&i| self.input.columns().field(i).data_type()))
    }

    /// The key columns of rows of the input.
    pub(super) fn key_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key.iter().map(|&i| rows.column(i).clone()).collect()
    }
}

impl PatternPlan {
    /// Finds `pattern` in rows of `input`, per value of the columns `key`, and tells `measures` of each match. Fails when
    /// the pattern is none, a step or a column does not exist, a condition is not one, or the stream has no event time.
    pub fn new(input: &StreamSchema, key: &[&str], pattern: &Pattern, measures: &[Measure]) -> Result<Self> {
        let time = input.event_time("a pattern")?;
        let key = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &key)?;
        let within = check(pattern)?;

        let names = places(pattern);
        let mut kept = Kept::default();
        let lowered = pattern.steps.iter().enumerate();
        let conditions = lowered.map(|(at, step)| lower(&step.condition, input, &names, at, &mut kept));
        let conditions = conditions.collect::<Result<_>>()?;

        let mut output = vec![
            Field::new(MATCH_START, Timestamp::data_type(), false),
            Field::new(MATCH_END, Timestamp::data_type(), false),
        ];
        output.extend(key.iter().map(|&i| input.columns().field(i).clone()));
        let mut told = Vec::with_capacity(measures.len());
        for measure in measures {
            let (tells, field) = tell(measure, input, pattern, &names, &mut kept)?;
            told.push(tells);
            output.push(field);
        }
        no_duplicates(&output)?;
        kept.finish()?;
        Ok(Self(Arc::new(Shared {
            form: stored::form(input, &key, pattern)?,
            input: input.clone(),
            time,
            key,
            steps: steps(pattern),
            conditions,
            kept,
            measures: told,
            skip: pattern.skip,
            within,
            output: StreamSchema::with_hidden_time(&Schema::new(output))?,
        })))
    }

    /// The schema of the matches.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<PatternMatch> {
        PatternMatch::new(self.0.clone())
    }
}

/// Refuses what is not a pattern; returns how long it may take, in microseconds.
fn check(pattern: &Pattern) -> Result<i128> {
    let wrong = |message: String| Err(OperatorError::Plan(message));
    if let Some(mistake) = &pattern.mistake {
        return wrong(mistake.clone());
    }
    for (at, step) in pattern.steps.iter().enumerate() {
        let name = &step.name;
        if name.is_empty() || name.contains('.') {
            return wrong(format!("a step of a pattern cannot be called {name:?}: conditions could not name it"));
        }
        if pattern.steps[..at].iter().any(|former| former.name == *name) {
            return wrong(format!("two steps of a pattern are called {name:?}"));
        }
    }
    match (pattern.steps.first(), pattern.steps.last()) {
        (Some(first), _) if first.optional => {
            let name = &first.name;
            return wrong(format!(
                "the first step of a pattern, {name:?}, cannot be optional: begin with the next one"
            ));
        }
        (_, Some(last)) if last.join == Join::NotNext => {
            let name = &last.name;
            return wrong(format!(
                "a pattern cannot end with not_next({name:?}): the row that decides it may never come; end it with \
                 not_followed_by"
            ));
        }
        _ => {}
    }
    // In `a, not followed by x, b optional` nothing would end the absence when b does not come.
    let last_needed = pattern.steps.iter().rposition(|step| !step.join.is_absence() && !step.optional).unwrap_or(0);
    let mut behind = pattern.steps[last_needed..].iter();
    if let Some(absence) = behind.find(|step| step.join.is_absence())
        && let Some(optional) = behind.find(|step| !step.join.is_absence())
    {
        let (absence, optional) = (&absence.name, &optional.name);
        return wrong(format!(
            "nothing ends the absence of {absence:?} in a pattern, because {optional:?} behind it is optional: put the \
             absence at the end, or a step that is not optional behind it"
        ));
    }
    match pattern.within {
        None => wrong(
            "a pattern needs a time: without .within(…) the partial matches of a key that falls silent would be kept for \
             ever"
                .into(),
        ),
        Some(within) if within.is_zero() || !within.subsec_nanos().is_multiple_of(1_000) => {
            wrong(format!("a pattern within {}: the time is in whole microseconds, and at least one", spelled(within)))
        }
        Some(within) => Ok(within.as_micros() as i128),
    }
}

/// The names of all steps, with the places of those that take rows.
fn places(pattern: &Pattern) -> Vec<(String, Option<usize>)> {
    let mut places = 0..;
    let place = |step: &super::spec::Step| {
        let place = if step.join.is_absence() { None } else { places.next() };
        (step.name.clone(), place)
    };
    pattern.steps.iter().map(place).collect()
}

fn steps(pattern: &Pattern) -> Steps {
    let mut steps = Steps { steps: Vec::new(), absent: vec![Vec::new()] };
    for (condition, step) in pattern.steps.iter().enumerate() {
        if step.join.is_absence() {
            let absence = Absence { condition, next_only: step.join == Join::NotNext };
            steps.absent[steps.steps.len()].push(absence);
            continue;
        }
        let strict = step.join != Join::FollowedBy;
        steps.steps.push(Step { condition, strict, min: step.min, max: step.max, optional: step.optional });
        steps.absent.push(Vec::new());
    }
    steps
}

fn tell(
    measure: &Measure,
    input: &StreamSchema,
    pattern: &Pattern,
    names: &[(String, Option<usize>)],
    kept: &mut Kept,
) -> Result<(Told, Field)> {
    let place = |name: &str| {
        let at = names.iter().position(|(step, _)| step == name);
        match at.map(|at| (at, names[at].1)) {
            Some((at, Some(place))) => Ok((place, pattern.steps[at].optional)),
            Some((_, None)) => {
                Err(OperatorError::Plan(format!("step {name:?} is of rows that are absent: there is nothing to tell")))
            }
            None => {
                let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
                Err(OperatorError::Plan(format!("there is no step {name:?} (steps: {})", names.join(", "))))
            }
        }
    };
    let mut column = |step: &str, column: &str, name: &str| {
        let (place, optional) = place(step)?;
        let index = input.index_of(column)?;
        let field = &input.columns().fields()[index];
        let result = field.as_ref().clone().with_name(name).with_nullable(optional || field.is_nullable());
        Ok::<_, OperatorError>((place, kept.place(index, field), result))
    };
    Ok(match measure {
        Measure::First { step, column: of, name } => {
            let (step, kept, field) = column(step, of, name)?;
            (Told::First(step, kept), field)
        }
        Measure::Last { step, column: of, name } => {
            let (step, kept, field) = column(step, of, name)?;
            (Told::Last(step, kept), field)
        }
        Measure::Count { step, name } => (Told::Count(place(step)?.0), Field::new(name, DataType::Int64, false)),
    })
}

impl Plan for PatternPlan {
    fn noun(&self) -> &'static str {
        "pattern"
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
