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
    rows: PhantomData<fn() -> (T, U)>,
}

impl<T: 'static, U: 'static> Results<T, U> {
    /// Of the operator whose main output is `at`.
    pub(crate) fn new(graph: SharedGraph, at: Option<StreamId>) -> Self {
        Self { graph, at, rows: PhantomData }
    }

    /// The results, and the late rows as they came.
    pub fn with_late(self) -> (Stream<U>, Stream<T>) {
        let late = self.at.map(|at| StreamId { port: Port::LATE, ..at });
        (Stream::new(self.graph.clone(), self.at), Stream::new(self.graph, late))
    }

    /// The results; late rows are counted and dropped.
    pub fn drop_late(self) -> Stream<U> {
        if let Some(at) = self.at {
            lock(&self.graph).drop_stream(StreamId { port: Port::LATE, ..at });
        }
        Stream::new(self.graph, self.at)
    }
}
