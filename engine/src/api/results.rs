//! The results of an operator that may find rows too late: what becomes of those has to be said.

use std::marker::PhantomData;

use windrow_connectors::Untyped;
use windrow_operators::Port;

use super::{
    Stream,
    stream::{SharedGraph, lock},
};
use crate::plan::graph::StreamId;

/// Results, once it is said what becomes of rows that come too late. `T` is the type of the input's rows, `U` that of the
/// results.
#[must_use = "say what becomes of late rows: .with_late() or .drop_late()"]
pub struct Results<T, U = Untyped> {
    graph: SharedGraph,
    at: Option<StreamId>,
    late: Option<StreamId>,
    rows: PhantomData<fn() -> (T, U)>,
}

impl<T: 'static, U: 'static> Results<T, U> {
    /// Of the operator whose main output is `at`.
    pub(super) fn late_on_port(graph: SharedGraph, at: Option<StreamId>) -> Self {
        Self::new(graph, at, at.map(|at| StreamId { port: Port::LATE, ..at }))
    }

    pub(super) fn new(graph: SharedGraph, at: Option<StreamId>, late: Option<StreamId>) -> Self {
        Self { graph, at, late, rows: PhantomData }
    }

    /// Another output of the same operator.
    pub(super) fn output<V: 'static>(&self, port: Port) -> Stream<V> {
        Stream::new(self.graph.clone(), self.at.map(|at| StreamId { port, ..at }))
    }

    /// The same results, seen as another type.
    pub(super) fn retyped<V: 'static>(self) -> Results<T, V> {
        Results { graph: self.graph, at: self.at, late: self.late, rows: PhantomData }
    }

    /// The results, and the late rows as they came.
    pub fn with_late(self) -> (Stream<U>, Stream<T>) {
        if let Some(at) = self.at {
            let mut graph = lock(&self.graph);
            if self.late.and_then(|late| graph.schema(late)).is_none() {
                let mistake = format!("{}: no row is too late for it: say .drop_late()", graph.nodes[at.node].name);
                graph.mistakes.push(mistake);
                return (Stream::new(self.graph.clone(), self.at), Stream::new(self.graph.clone(), None));
            }
        }
        (Stream::new(self.graph.clone(), self.at), Stream::new(self.graph, self.late))
    }

    /// The results; late rows are counted and dropped.
    pub fn drop_late(self) -> Stream<U> {
        if let Some(late) = self.late {
            lock(&self.graph).drop_stream(late);
        }
        Stream::new(self.graph, self.at)
    }
}
