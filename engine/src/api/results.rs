//! The results of an operator that may find rows too late: what becomes of those has to be said.

use std::marker::PhantomData;

use windrow_connectors::Untyped;
use windrow_operators::Port;

use super::{
    Stream,
    stream::{SharedGraph, lock},
};
use crate::plan::graph::StreamId;

/// Results, once it is said what becomes of rows that come too late: until then there is no `.sink(…)`, `.select(…)` or other
/// method of a [`Stream`]. [`drop_late`](Self::drop_late) counts and drops them, [`with_late`](Self::with_late) gives them as a
/// stream. What cannot find a row too late gives a `Stream` at once.
///
/// `T` is the type of the input's rows, `U` that of the results.
#[must_use = "there is no stream before it is said what becomes of late rows: .drop_late() or .with_late()"]
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

    /// The results, and the late rows as they came, with all their columns. Late rows promise nothing about event time: they can
    /// be filtered, mapped and written, and a window over them fires at the end of the input only.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Reading { celsius: f64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let readings = [(20.5, 1), (19.0, 30), (21.0, 2)]; // the last one is 28 seconds behind
    /// let readings = readings.map(|(celsius, s)| Reading { celsius, at: Timestamp::default() + secs(s) });
    /// let job = Job::new("readings");
    /// let (out, too_late) = (MemorySink::new(), MemorySink::new());
    /// let (means, late) = job
    ///     .source(MemorySource::records(readings.into()).batch_rows(1))
    ///     .event_time("at", Watermarks::out_of_order(secs(5)))
    ///     .window(Tumbling::of(secs(10)))
    ///     .aggregate([avg(col("celsius"))])
    ///     .with_late();
    /// means.sink(out.clone());
    /// late.sink(too_late.clone());
    /// job.run().await?;
    /// assert_eq!((out.rows(), too_late.rows()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_late(self) -> (Stream<U>, Stream<T>) {
        let late = self.at.and_then(|at| late_of(&self.graph, at, self.late));
        (Stream::new(self.graph.clone(), self.at), Stream::new(self.graph, late))
    }

    /// The results; late rows are counted ([`OperatorMetrics::late`](crate::metrics::OperatorMetrics::late)) and dropped.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("counts");
    /// let out = MemorySink::new();
    /// let bids = job.source(Nexmark::new().events(50_000).out_of_order(secs(1)).bids());
    /// bids.event_time("at", Watermarks::in_order()) // they are not
    ///     .window(Tumbling::of(millis(100)))
    ///     .aggregate([count()])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// let report = job.run().await?;
    /// let window = report.metrics.named("window").next().unwrap();
    /// assert!(window.late > 0);
    /// assert_eq!(window.rows_in, window.processed + window.late);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_late(self) -> Stream<U> {
        if let Some(late) = self.late {
            lock(&self.graph).drop_stream(late);
        }
        Stream::new(self.graph, self.at)
    }
}

/// The stream of late rows of the operator `at`; when it has none, that is a mistake.
pub(super) fn late_of(graph: &SharedGraph, at: StreamId, late: Option<StreamId>) -> Option<StreamId> {
    let mut graph = lock(graph);
    let late = late.filter(|late| graph.schema(*late).is_some());
    if late.is_none() {
        let mistake = format!("{}: no row is too late for it: say .drop_late()", graph.nodes[at.node].name);
        graph.mistakes.push(mistake);
    }
    late
}
