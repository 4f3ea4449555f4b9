//! Joins of two keyed streams.

use std::{marker::PhantomData, time::Duration};

use datafusion_expr::Expr;
use windrow_connectors::Untyped;
use windrow_operators::{
    OperatorError, Port, Result as Planned, StreamSchema,
    changes::ChangeJoinPlan,
    join::{Interval, IntervalJoinPlan, JoinType, TemporalJoinPlan, WindowJoinPlan},
    window::Window,
};

use super::{
    KeyedStream, Stream,
    stream::{SharedGraph, lock},
};
use crate::plan::graph::{Kind, StreamId, stateful};

type Outputs = (Kind, Vec<(Port, StreamSchema)>);

/// A join that has still to be told which rows of the same key belong together in time: [`window`](Self::window),
/// [`between`](Self::between) or [`as_of`](Self::as_of).
#[must_use]
pub struct Joining<T, U> {
    left: KeyedStream<T>,
    right: KeyedStream<U>,
    kind: JoinType,
    condition: Option<Expr>,
}

impl<T: 'static, U: 'static> Joining<T, U> {
    pub(super) fn new(left: KeyedStream<T>, right: KeyedStream<U>) -> Self {
        Self { left, right, kind: JoinType::Inner, condition: None }
    }

    /// Which rows the join gives: pairs only, unless it is said here.
    pub fn kind(self, kind: JoinType) -> Self {
        Self { kind, ..self }
    }

    /// Pairs have to meet a condition besides. A column that is on both sides is written `left("price")`, `right("price")`.
    pub fn condition(self, condition: Expr) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// Rows that fall into the same window: `window_start`, `window_end`, the columns of the left side and of the right.
    pub fn window(self, window: Window) -> Joined<T, U> {
        self.plan(&window.to_string(), |join, left, right, on| {
            Ok(stateful(WindowJoinPlan::new(left, right, on, window.clone(), join.kind, join.condition.as_ref())?))
        })
    }

    /// Rows that are near each other: the right one at most `before` earlier and at most `after` later than the left one.
    pub fn within(self, before: Duration, after: Duration) -> Joined<T, U> {
        self.between(Interval::around(before, after))
    }

    /// The same with any bounds: see [`Interval::between`].
    pub fn between(self, interval: Interval) -> Joined<T, U> {
        self.plan(&interval.to_string(), |join, left, right, on| {
            Ok(stateful(IntervalJoinPlan::new(left, right, on, interval, join.kind, join.condition.as_ref())?))
        })
    }

    /// Each left row with the row of the right side that was the newest at its time: a rate of exchange, an address. Inner or
    /// left. With a [`ttl`](KeyedStream::ttl) on the right side a row is nobody's partner after that time.
    pub fn as_of(self) -> Joined<T, U> {
        self.plan("as of", |join, left, right, on| {
            if join.condition.is_some() {
                return Err(OperatorError::Plan("an as-of join takes no condition: filter what comes out".into()));
            }
            Ok(stateful(TemporalJoinPlan::new(left, right, on, join.kind, join.right.ttl)?))
        })
    }

    /// Tables that change, row by row: both sides are streams of changes (see [`KeyedStream::latest`]), and so is the
    /// result. Its key is that of both sides. Inner, left, right or full; with a [`ttl`](KeyedStream::ttl) on the left side
    /// what has not changed for that time is forgotten.
    pub fn tables(self) -> Joined<T, U> {
        self.plan("tables", |join, left, right, on| {
            if join.condition.is_some() {
                return Err(OperatorError::Plan("a join of tables takes no condition: filter what comes out".into()));
            }
            Ok(stateful(ChangeJoinPlan::new(left, right, on, join.kind, join.left.ttl)?))
        })
    }

    fn plan(
        self,
        what: &str,
        build: impl FnOnce(&Self, &StreamSchema, &StreamSchema, &[(&str, &str)]) -> Planned<Outputs>,
    ) -> Joined<T, U> {
        let (left, right) = (self.left.key.names(), self.right.key.names());
        let name = self.left.name(&format!("{} join, {what}", self.kind));
        let at = self.left.stream.then_both(&self.right.stream, &name, |left_schema, right_schema| {
            if left.len() != right.len() {
                return Err(OperatorError::Plan(format!(
                    "the left side is keyed by {} and the right side by {}: a join needs as many columns on both sides",
                    left.join(", "),
                    right.join(", ")
                )));
            }
            let on: Vec<(&str, &str)> = left.iter().copied().zip(right.iter().copied()).collect();
            build(&self, left_schema, right_schema, &on)
        });
        Joined { graph: self.left.stream.graph, at, rows: PhantomData }
    }
}

/// The result of a join, once it is said what becomes of rows that come too late.
#[must_use = "say what becomes of late rows: .with_late() or .drop_late()"]
pub struct Joined<T, U> {
    graph: SharedGraph,
    at: Option<StreamId>,
    rows: PhantomData<fn() -> (T, U)>,
}

impl<T: 'static, U: 'static> Joined<T, U> {
    /// The results, the late rows of the left side and those of the right.
    pub fn with_late(self) -> (Stream<Untyped>, Stream<T>, Stream<U>) {
        let on = |port| self.at.map(|at| StreamId { port, ..at });
        let (left, right) = (on(Port::LATE), on(Port::LATE_RIGHT));
        let graph = || self.graph.clone();
        (Stream::new(graph(), self.at), Stream::new(graph(), left), Stream::new(graph(), right))
    }

    /// The results; late rows are counted and dropped.
    pub fn drop_late(self) -> Stream<Untyped> {
        if let Some(at) = self.at {
            let mut graph = lock(&self.graph);
            graph.drop_stream(StreamId { port: Port::LATE, ..at });
            graph.drop_stream(StreamId { port: Port::LATE_RIGHT, ..at });
        }
        Stream::new(self.graph, self.at)
    }
}
