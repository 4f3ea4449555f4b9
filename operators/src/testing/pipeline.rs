//! The pipeline under test: operators, and the exchanges between them.

use crate::{KeyedOutput, Operator, Partitioning, Result, StreamSchema, key::check_key};

type Factory<'a> = Box<dyn Fn() -> Result<Box<dyn Operator>> + 'a>;

/// Operators one after the other, with exchanges by key between them.
///
/// ```text
///   Pipeline::new(&bids)                                  source task i ──┐
///       .first_phase(plan.between(), || plan.partial())   PreAggregate i ◄┘ chained: in the task of its input
///       .exchange(plan.key_between())                          ╳  rows by key, watermarks to all
///       .stage(plan.output(), || plan.merging())          WindowAggregate j
/// ```
///
/// A stage without an exchange before it runs in the task of what is before it. With parallelism `p` each source task
/// has a share of the rows, so an operator that needs all rows of a key must stand behind an exchange.
///
/// ```text
///   Pipeline::two(&bids, &auctions)                       left sources ──┐   right sources ──┐
///       .exchange_two([0], Partitioning::Broadcast)            ╳ by key ─┴──► task j ◄───────┘ all rows to all
///       .stage(plan.output(), || plan.whole())            Join j: MAIN from the left, RIGHT from the right
/// ```
pub struct Pipeline<'a> {
    input: StreamSchema,
    /// The second input, of a pipeline that begins with an operator of two.
    right: Option<StreamSchema>,
    output: StreamSchema,
    segments: Vec<Segment<'a>>,
    stages: usize,
    /// Two phases are one operator.
    operators: usize,
    /// What is said of the rows of the last stage.
    keyed: Option<KeyedOutput>,
}

/// What runs in one task: behind an exchange, or in the source task for the first segment.
#[derive(Default)]
pub(super) struct Segment<'a> {
    /// The key columns of the exchange in front.
    pub(super) key: Vec<usize>,
    /// How the rows of a second input come here.
    pub(super) right: Option<Partitioning>,
    pub(super) stages: Vec<Stage<'a>>,
}

/// One operator: how to make it, and what it takes and gives.
pub(super) struct Stage<'a> {
    /// For messages: the position in the pipeline and the type of the operator.
    pub(super) name: String,
    pub(super) input: StreamSchema,
    /// What it takes on [`Port::RIGHT`](crate::Port::RIGHT).
    pub(super) right: Option<StreamSchema>,
    pub(super) output: StreamSchema,
    /// Which operator of the pipeline it is, or the first phase of.
    pub(super) operator: usize,
    pub(super) first_phase: bool,
    pub(super) make: Factory<'a>,
}

impl<'a> Pipeline<'a> {
    /// Begins with the rows of `input`.
    pub fn new(input: &StreamSchema) -> Self {
        Self {
            input: input.clone(),
            right: None,
            output: input.clone(),
            segments: vec![Segment::default()],
            stages: 0,
            operators: 0,
            keyed: None,
        }
    }

    /// Begins with the rows of two inputs; [`Pipeline::exchange_two`] and the operator that takes both come next. Each input
    /// has as many source tasks as the operator.
    pub fn two(left: &StreamSchema, right: &StreamSchema) -> Self {
        Self { right: Some(right.clone()), ..Self::new(left) }
    }

    /// Appends an operator that emits rows of `output`; `make` is called once for each task of each run, and once for
    /// each time that it is restored.
    #[must_use]
    pub fn stage<O, F>(mut self, output: &StreamSchema, make: F) -> Self
    where
        O: Operator + 'static,
        F: Fn() -> Result<O> + 'a,
    {
        self.push(output, make, false);
        self.operators += 1;
        self
    }

    /// Appends the first of two phases of an operator; the next [`Pipeline::stage`] is the second. A restored task of
    /// either is given what the tasks of both have saved.
    #[must_use]
    pub fn first_phase<O, F>(mut self, output: &StreamSchema, make: F) -> Self
    where
        O: Operator + 'static,
        F: Fn() -> Result<O> + 'a,
    {
        self.push(output, make, true);
        self
    }

    fn push<O, F>(&mut self, output: &StreamSchema, make: F, first_phase: bool)
    where
        O: Operator + 'static,
        F: Fn() -> Result<O> + 'a,
    {
        self.stages += 1;
        self.keyed = None;
        let type_name = std::any::type_name::<O>();
        let outer = type_name.split('<').next().unwrap_or(type_name);
        let name = format!("stage {} ({})", self.stages, outer.rsplit("::").next().unwrap_or(outer));
        let input = std::mem::replace(&mut self.output, output.clone());
        let make: Factory<'a> = Box::new(move || Ok(Box::new(make()?)));
        let operator = self.operators;
        if let Some(segment) = self.segments.last_mut() {
            let takes_two = segment.right.is_some() && segment.stages.is_empty();
            let right = self.right.clone().filter(|_| takes_two);
            segment.stages.push(Stage { name, input, right, output: output.clone(), operator, first_phase, make });
        }
    }

    /// Appends an exchange: each row goes to the task that owns the key group of these columns, and every task sees the
    /// watermarks of all. Without columns all rows go to one task.
    #[must_use]
    pub fn exchange(mut self, key: impl Into<Vec<usize>>) -> Self {
        self.segments.push(Segment { key: key.into(), ..Segment::default() });
        self
    }

    /// Appends the exchange of both inputs of [`Pipeline::two`]: rows of the left one go by key, those of the right one as
    /// it says.
    #[must_use]
    pub fn exchange_two(mut self, left: impl Into<Vec<usize>>, right: Partitioning) -> Self {
        self.segments.push(Segment { key: left.into(), right: Some(right), stages: Vec::new() });
        self
    }

    /// Holds the last stage to what its plan says of it: its rows are with the tasks that an exchange by these columns would send
    /// them to, and its tasks promise the same time when they are given the same. `None` says nothing.
    ///
    /// ```text
    ///   Pipeline::new(&bids).exchange(key).stage(plan.output(), || plan.whole()).keyed(plan.keyed_output())
    /// ```
    #[must_use]
    pub fn keyed(self, output: Option<KeyedOutput>) -> Self {
        Self { keyed: output, ..self }
    }

    pub(super) fn keyed_output(&self) -> Option<&KeyedOutput> {
        self.keyed.as_ref()
    }

    /// What is read, the left one of two inputs first.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &StreamSchema> {
        [&self.input].into_iter().chain(&self.right)
    }

    pub(super) fn output(&self) -> &StreamSchema {
        &self.output
    }

    pub(super) fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// Refuses another shape of this pipeline that is not one.
    pub(super) fn validate_shape(&self, other: &Self) -> Result<(), String> {
        other.validate()?;
        if self.operators != other.operators || !self.inputs().eq(other.inputs()) || self.output != other.output {
            let counts = (self.operators, other.operators);
            return Err(format!(
                "the pipelines for one task and for several differ: {} operators and {}, or other columns",
                counts.1, counts.0
            ));
        }
        Ok(())
    }

    /// Refuses key columns that the stream at an exchange does not have or that cannot be keys, and a second input that
    /// goes nowhere.
    pub(super) fn validate(&self) -> Result<(), String> {
        let two: Vec<bool> = self.segments.iter().map(|segment| segment.right.is_some()).collect();
        let second = two.get(1).is_some_and(|two| *two) && self.segments[0].stages.is_empty();
        let misplaced = two.iter().enumerate().any(|(at, two)| *two && at != 1);
        if self.right.is_some() != second || misplaced {
            return Err("Pipeline::two is followed by exchange_two, and nothing else is".into());
        }
        let mut schema = &self.input;
        for segment in &self.segments {
            check_exchange(schema, &segment.key)?;
            if let (Some(right), Some(Partitioning::Key(key))) = (&self.right, &segment.right) {
                check_exchange(right, key)?;
            }
            schema = segment.stages.last().map_or(schema, |stage| &stage.output);
        }
        Ok(())
    }
}

fn check_exchange(schema: &StreamSchema, key: &[usize]) -> Result<(), String> {
    let columns = schema.columns();
    if let Some(column) = key.iter().find(|&&column| column >= columns.fields().len()) {
        return Err(format!("the exchange by column {column}: the stream there has {}", columns.fields().len()));
    }
    check_key(columns, key).map_err(|error| error.to_string())
}
