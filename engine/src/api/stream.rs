//! Streams, and what can be done with one row at a time.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion_expr::Expr;
use windrow_connectors::{Sink, Untyped};
use windrow_operators::{
    Operator, OperatorError, Port, StreamSchema,
    changes::{ChangeFilter, ChangeProject, Changelog},
    plan::Factory,
    stateless::{Filter, Project},
    typed::{FilterRows, FlatMapRows, MapRows, Record, Rows},
};

use super::{Key, KeyedStream, WindowKind, Windowed};
use crate::{
    EventTime, Watermarks,
    plan::graph::{Graph, Kind, REJECTS, RejectPolicy, StreamId},
    runtime::{EventTimeReader, source_task::rejects_schema},
};

/// A graph that several streams add to.
pub(crate) type SharedGraph = Arc<Mutex<Graph>>;

/// The graph is only ever locked for one addition; a panic elsewhere leaves it whole.
pub(crate) fn lock(graph: &SharedGraph) -> MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream straight from its source: event time and the fate of bad records can still be declared.
#[derive(Clone, Copy, Debug)]
pub enum FromSource {}

/// A stream further down.
#[derive(Clone, Copy, Debug)]
pub enum Derived {}

/// Rows on their way. `T` is the Rust type that closures see them as, a `#[derive(Record)]` struct, or [`Untyped`]
/// when the columns are known at run time only; expressions work on both.
///
/// A stream is used up by what is done with it. A fork is a visible `.clone()`. Every stream goes somewhere: into a sink, or
/// [`discard`](Self::discard)ed.
///
/// ```
/// use windrow::prelude::*;
///
/// #[derive(Record)]
/// struct Bid { auction: i64, price: i64 }
///
/// #[derive(Record)]
/// struct Euro { auction: i64, cents: i64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("expensive");
/// let (dear, euros) = (MemorySink::new(), MemorySink::new());
/// let bids = job
///     .source(Nexmark::new().events(1_000).bids())
///     .typed::<Bid>() // closures see rows as this; expressions need no type
///     .filter(|bid| bid.auction % 10 != 0)
///     .filter_expr(col("price").gt(lit(1_000)));
/// bids.clone().select([col("auction"), (col("price") * lit(2)).alias("double")]).sink(dear.clone());
/// bids.map(|bid| Euro { auction: bid.auction, cents: bid.price * 9 / 10 }).sink(euros.clone());
/// job.run().await?;
/// assert_eq!(dear.rows(), euros.rows());
/// assert_eq!(dear.batches()[0].schema().field(1).name(), "double");
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream that goes nowhere is a mistake when the job runs: give it a sink or .discard() it"]
pub struct Stream<T, S = Derived> {
    pub(crate) graph: SharedGraph,
    /// `None` after a mistake, which has been noted.
    pub(crate) at: Option<StreamId>,
    rows: PhantomData<fn() -> (T, S)>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), at: self.at, rows: PhantomData }
    }
}

impl<T: 'static> Stream<T, FromSource> {
    /// Says which column holds event time, and how far out of order its rows may come. Windows need it.
    ///
    /// A timestamp column of microseconds in UTC is used as it is. Of any other column the values are converted, and
    /// the column itself stays as it was. Rows without a usable time are rejected. The job does not run when there is no such
    /// column, it is a number and the unit is not said, or its type is none that has a time.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Reading { celsius: f64, unix: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let readings = [(20.5, 60), (19.0, 0), (21.0, 65)].map(|(celsius, unix)| Reading { celsius, unix });
    /// let job = Job::new("per-minute");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(readings.into()))
    ///     .event_time(EventTime::column("unix").seconds(), Watermarks::out_of_order(mins(1)))
    ///     .window(Tumbling::of(mins(1)))
    ///     .aggregate([avg(col("celsius"))])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn event_time(self, column: impl Into<EventTime>, watermarks: Watermarks) -> Self {
        let spec = column.into();
        self.with_time(watermarks, |schema| EventTimeReader::new(schema.columns(), &spec))
    }

    /// The time of a row is when it arrives, and the watermark follows the clock, whether rows come or not: windows end
    /// when the clock says so, and no row is late. What is in which window then depends on when the job runs. A job that
    /// goes on from a checkpoint does not go back in time, also if the clock does.
    ///
    /// ```
    /// # use windrow::prelude::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("arrivals");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(100))
    ///     .processing_time()
    ///     .window(Tumbling::of(secs(10)))
    ///     .aggregate([count()])
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert!(out.rows() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn processing_time(self) -> Self {
        self.with_time(Watermarks::clock(), |schema| EventTimeReader::arrival(schema.columns()))
    }

    fn with_time(
        self,
        watermarks: Watermarks,
        read: impl FnOnce(&StreamSchema) -> windrow_operators::Result<EventTimeReader>,
    ) -> Self {
        self.with_source(|time, schema, _| {
            if time.is_some() {
                let mistake = "its event time has been declared already: say .event_time(…) or .processing_time() once";
                return Err(OperatorError::Plan(mistake.into()));
            }
            let reader = read(schema)?;
            let schema = reader.output().clone();
            *time = Some((reader, watermarks));
            Ok(Some((Port::MAIN, schema)))
        })
    }

    /// Records that do not decode, or have no usable event time, become a stream of their own, with the columns `source`,
    /// `split`, `position`, `line`, `reason` and `bytes`. The others go on. See also [`drop_rejects`](Self::drop_rejects) and
    /// [`fail_on_rejects`](Self::fail_on_rejects).
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("bids.csv");
    /// # std::fs::write(&path, "auction,price\n7,100\n8,cheap\n9,300\n").unwrap();
    /// let job = Job::new("read");
    /// let (out, bad) = (MemorySink::new(), MemorySink::new());
    /// let bids = File::pattern(path.to_str().unwrap()).csv::<Bid>(); // "bids.csv"
    /// let (bids, rejected) = job.source(bids).with_rejects();
    /// bids.sink(out.clone());
    /// rejected.select(["line", "reason"].map(col)).sink(bad.clone());
    /// job.run().await?;
    /// assert_eq!((out.rows(), bad.rows()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_rejects(self) -> (Stream<T>, Stream<Untyped>) {
        let stream = self.with_source(|_, _, rejects| {
            *rejects = RejectPolicy::Stream;
            Ok(Some((REJECTS, StreamSchema::without_time(rejects_schema()))))
        });
        let rejected = stream.at.map(|at| StreamId { port: REJECTS, ..at });
        (stream.retyped(), Stream { graph: stream.graph.clone(), at: rejected, rows: PhantomData })
    }

    /// Records that do not decode are counted ([`OperatorMetrics::rejected`](crate::metrics::OperatorMetrics::rejected)) and
    /// dropped.
    pub fn drop_rejects(self) -> Stream<T> {
        let stream = self.with_source(|_, _, rejects| {
            *rejects = RejectPolicy::Drop;
            Ok(None)
        });
        stream.retyped()
    }

    /// The first record that does not decode fails the job. This is so too when nothing is said.
    pub fn fail_on_rejects(self) -> Stream<T> {
        self.retyped()
    }

    fn with_source(
        mut self,
        change: impl FnOnce(
            &mut Option<(EventTimeReader, Watermarks)>,
            &StreamSchema,
            &mut RejectPolicy,
        ) -> windrow_operators::Result<Option<(Port, StreamSchema)>>,
    ) -> Self {
        let Some(at) = self.at else { return self };
        let mut graph = lock(&self.graph);
        let Some(node) = graph.nodes.get_mut(at.node) else { return self.retyped() };
        let schema = node.outputs[0].1.clone();
        let Kind::Source { time, rejects, .. } = &mut node.kind else { return self.retyped() };
        let mistake = match change(time, &schema, rejects) {
            Ok(Some((Port::MAIN, schema))) => {
                node.outputs[0].1 = schema;
                None
            }
            Ok(Some(output)) => {
                node.outputs.push(output);
                None
            }
            Ok(None) => None,
            Err(error) => Some(format!("{}: {error}", node.name)),
        };
        if let Some(mistake) = mistake {
            graph.mistakes.push(mistake);
            // The source itself is not to blame for going nowhere.
            graph.drop_stream(at);
            drop(graph);
            self.at = None;
            return self;
        }
        drop(graph);
        self
    }
}

impl<T: 'static, S> Stream<T, S> {
    pub(crate) fn new(graph: SharedGraph, at: Option<StreamId>) -> Self {
        Self { graph, at, rows: PhantomData }
    }

    fn retyped<U, R>(&self) -> Stream<U, R> {
        Stream { graph: self.graph.clone(), at: self.at, rows: PhantomData }
    }

    /// What its rows are; `None` after a mistake.
    pub(crate) fn schema(&self) -> Option<StreamSchema> {
        self.at.and_then(|at| lock(&self.graph).schema(at).cloned())
    }

    /// Adds an operator behind this stream; on a mistake notes it, and what follows does nothing.
    pub(crate) fn then(
        &self,
        name: &str,
        build: impl FnOnce(&StreamSchema) -> windrow_operators::Result<(Kind, Vec<(Port, StreamSchema)>)>,
    ) -> Option<StreamId> {
        let at = self.at?;
        let mut graph = lock(&self.graph);
        let schema = graph.schema(at).cloned();
        let built = schema.ok_or_else(|| OperatorError::Internal("a stream without a schema".into()));
        match built.and_then(|schema| build(&schema)) {
            Ok((kind, outputs)) => {
                let node = graph.add(name, kind, vec![at], outputs);
                Some(StreamId { node, port: Port::MAIN })
            }
            Err(error) => {
                let mistake = format!("{}: {error}", graph.next_name(name));
                graph.mistakes.push(mistake);
                // What feeds the mistake is not a mistake of its own.
                graph.drop_stream(at);
                None
            }
        }
    }

    /// Adds an operator behind this stream and another; on a mistake notes it, and what follows does nothing.
    pub(crate) fn then_both<U: 'static, R>(
        &self,
        other: &Stream<U, R>,
        name: &str,
        build: impl FnOnce(&StreamSchema, &StreamSchema) -> windrow_operators::Result<(Kind, Vec<(Port, StreamSchema)>)>,
    ) -> Option<StreamId> {
        let (Some(left), Some(right)) = (self.at, other.at) else {
            // One side is a mistake already; the other is not to blame for going nowhere.
            self.at.into_iter().for_each(|left| lock(&self.graph).drop_stream(left));
            other.at.into_iter().for_each(|right| lock(&other.graph).drop_stream(right));
            return None;
        };
        let same_job = Arc::ptr_eq(&self.graph, &other.graph);
        let mut graph = lock(&self.graph);
        let built = match (graph.schema(left).cloned(), graph.schema(right).cloned()) {
            _ if !same_job => Err(OperatorError::Plan("the other stream belongs to another job".into())),
            (Some(a), Some(b))
                if a.time().is_some() && b.time().is_some() && graph.is_timed(left) != graph.is_timed(right) =>
            {
                Err(OperatorError::Plan(
                    "one side has late or rejected rows, which promise nothing about event time: every result behind \
                     the two would come at the end of the input only; give them a sink or a window of their own"
                        .into(),
                ))
            }
            (Some(left), Some(right)) => build(&left, &right),
            _ => Err(OperatorError::Internal("a stream without a schema".into())),
        };
        match built {
            Ok((kind, outputs)) => {
                let node = graph.add(name, kind, vec![left, right], outputs);
                Some(StreamId { node, port: Port::MAIN })
            }
            Err(error) => {
                let mistake = format!("{}: {error}", graph.next_name(name));
                graph.mistakes.push(mistake);
                // What feeds the mistake is not a mistake of its own.
                graph.drop_stream(left);
                if same_job {
                    graph.drop_stream(right);
                }
                None
            }
        }
    }

    /// Adds an operator with one output and clones of `operator` as its tasks.
    fn then_each<O: Operator + Clone + Sync + 'static, U>(
        self,
        name: &str,
        build: impl FnOnce(&StreamSchema) -> windrow_operators::Result<(O, StreamSchema)>,
    ) -> Stream<U> {
        let at = self.then(name, |schema| {
            let (operator, output) = build(schema)?;
            let factory: Factory = Arc::new(move || Ok(Box::new(operator.clone())));
            Ok((Kind::Stateless(factory), vec![(Port::MAIN, output)]))
        });
        Stream { graph: self.graph, at, rows: PhantomData }
    }

    /// Names what this stream comes from, if it keeps state, for checkpoints: its state is kept under this name, and found
    /// again by it in a job that has been changed. Without a name operators are counted by kind, `window_1`, `process_1`,
    /// `join_2`: enough until one of them is added, removed or moved. The sort in front of what depends on the order of rows has
    /// a state of its own under the same name with `_in_order` behind it.
    ///
    /// The job does not run when what it comes from keeps no state, or two have one name.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = directory.path().to_str().unwrap().to_string();
    /// let job = Job::new("named").checkpoint(&store, secs(10));
    /// job.source(Sequence::new(100))
    ///     .event_time("at", Watermarks::in_order())
    ///     .id("numbers")
    ///     .window(Tumbling::of(millis(10)))
    ///     .aggregate([count()])
    ///     .drop_late()
    ///     .id("per-10-ms")
    ///     .sink(MemorySink::new());
    /// job.run().await?;
    /// let state = windrow::state::open(format!("{store}/named")).await?;
    /// assert!(state.table("per-10-ms").is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(self, id: impl Into<String>) -> Self {
        if let Some(at) = self.at {
            let (id, mut graph) = (id.into(), lock(&self.graph));
            if !graph.set_id(at.node, id) {
                let name = &graph.nodes[at.node].name;
                let mistake =
                    format!("{name}: it keeps no state, so it needs no id: name what has something to remember");
                graph.mistakes.push(mistake);
            }
        }
        self
    }

    /// Keeps the rows for which a closure says yes: `.filter(|bid| bid.price > 100)`. [`Stream`] has an example. The job does not
    /// run when a field of `T` is not among the columns or has another type, or the stream is one of changes.
    pub fn filter<F>(self, keep: F) -> Stream<T>
    where
        T: Record,
        F: for<'a> Fn(T::View<'a>) -> bool + Send + Sync + 'static,
    {
        self.then_each("filter", |schema| Ok((FilterRows::<T, F>::new(schema, keep)?, schema.clone())))
    }

    /// Keeps the rows that meet a condition: `.filter_expr(col("price").gt(lit(100)))`. Of changes those of rows that do not
    /// meet it become deletes.
    pub fn filter_expr(self, condition: Expr) -> Stream<T> {
        let name = format!("filter {condition}");
        match self.has_changes() {
            true => self.then_each(&name, |schema| Ok((ChangeFilter::new(schema, &condition)?, schema.clone()))),
            false => self.then_each(&name, |schema| Ok((Filter::new(schema, &condition)?, schema.clone()))),
        }
    }

    /// Makes one record of each row: `.map(|bid| Euro { cents: bid.price * 9 / 10 })`. Event time stays with the row, in a hidden
    /// column. [`Stream`] has an example.
    pub fn map<U, F>(self, map: F) -> Stream<U>
    where
        T: Record,
        U: Record,
        F: for<'a> Fn(T::View<'a>) -> U + Send + Sync + 'static,
    {
        self.then_each("map", |schema| {
            let operator = MapRows::<T, U, F>::new(schema, map)?;
            let output = operator.output().clone();
            Ok((operator, output))
        })
    }

    /// Makes any number of records of each row. Each keeps the row's event time.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Number { value: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("countdown");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(4))
    ///     .typed::<Number>()
    ///     .flat_map(|number| (0..number.value).map(|value| Number { value }))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 0 + 1 + 2 + 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn flat_map<U, F, I>(self, map: F) -> Stream<U>
    where
        T: Record,
        U: Record,
        F: for<'a> Fn(T::View<'a>) -> I + Send + Sync + 'static,
        I: IntoIterator<Item = U> + 'static,
    {
        self.then_each("flat map", |schema| {
            let operator = FlatMapRows::<T, U, F>::new(schema, map)?;
            let output = operator.output().clone();
            Ok((operator, output))
        })
    }

    /// Computes new columns: `.select([col("auction"), (col("price") * lit(2)).alias("double")])`. Event time stays with
    /// the row, whether it is among the columns or not. Of changes the key must stay among the columns. [`Stream`] has an
    /// example. The job does not run when a column does not exist or two results have one name.
    pub fn select(self, columns: impl IntoIterator<Item = Expr>) -> Stream<Untyped> {
        let columns: Vec<Expr> = columns.into_iter().collect();
        if self.has_changes() {
            return self.then_each("select", |schema| {
                let operator = ChangeProject::new(schema, &columns)?;
                let output = operator.output().clone();
                Ok((operator, output))
            });
        }
        self.then_each("select", |schema| {
            let operator = Project::new(schema, &columns)?;
            let output = operator.output().clone();
            Ok((operator, output))
        })
    }

    /// Makes rows of changes: the columns of the table after a first one, `op`, that says `insert`, `update` or `delete`.
    /// [`KeyedStream::latest`] has an example. The job does not run when the stream is not one of changes.
    pub fn changelog(self) -> Stream<Untyped> {
        self.then_each("changelog", |schema| {
            let operator = Changelog::new(schema)?;
            let output = operator.output().clone();
            Ok((operator, output))
        })
    }

    fn has_changes(&self) -> bool {
        self.schema().is_some_and(|schema| schema.change_key().is_some())
    }

    /// The same rows, seen by closures as `U`, whose fields are found among the columns by name; there may be other columns.
    /// [`Stream`] has an example. The job does not run when a field of `U` is not among the columns or has another type, or the stream
    /// is one of changes: expressions ([`filter_expr`](Self::filter_expr), [`select`](Self::select)) take those, closures do not.
    pub fn typed<U: Record>(self) -> Stream<U> {
        if let Some(at) = self.at {
            let mut graph = lock(&self.graph);
            let checked = graph.schema(at).map(Rows::<U>::new);
            if let Some(Err(error)) = checked {
                let record = std::any::type_name::<U>();
                let record = record.split('<').next().and_then(|name| name.rsplit("::").next()).unwrap_or(record);
                let mistake = format!("{}, .typed::<{record}>(): {error}", graph.nodes[at.node].name);
                graph.mistakes.push(mistake);
                graph.drop_stream(at);
                return Stream { graph: self.graph.clone(), at: None, rows: PhantomData };
            }
        }
        self.retyped()
    }

    /// The rows of both streams, in no order among each other. They must have the same columns: `.select(…)` the same from
    /// both. The merged watermark is the lesser of the two. Streams of changes are not united.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("both");
    /// let out = MemorySink::new();
    /// let numbers = |count| job.source(Sequence::new(count)).event_time("at", Watermarks::in_order());
    /// numbers(3).union(numbers(5)).window(Tumbling::of(secs(1))).aggregate([count()]).drop_late().sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 1, "one window, of eight rows");
    /// # Ok(())
    /// # }
    /// ```
    pub fn union<R>(self, other: Stream<T, R>) -> Stream<T> {
        let at = self.then_both(&other, "union", |left, right| match left == right {
            // Changes of one key could come from both sides, in any order.
            true if left.change_key().is_some() => left.expect_rows("a union").map(|()| (Kind::Union, Vec::new())),
            true => Ok((Kind::Union, vec![(Port::MAIN, left.clone())])),
            false => Err(OperatorError::Plan(format!(
                "the columns differ: {left} and {right}; .select(…) the same from both"
            ))),
        });
        Stream::new(self.graph, at)
    }

    /// Partitions by the values of one or more columns: `.key_by("auction")`, `.key_by(["auction", "bidder"])`. The columns are
    /// numbers, text, bytes, dates or times; a null is a key like any other. [`Windowed::aggregate`] has an example.
    pub fn key_by(self, key: impl Into<Key>) -> KeyedStream<T> {
        KeyedStream::new(self.retyped(), key.into())
    }

    /// Windows over all rows, without a key. Their result is computed by one task, though most of the work may be done in
    /// front of it. [`Stream::union`] has an example.
    pub fn window(self, window: impl Into<WindowKind>) -> Windowed<T> {
        Windowed { stream: self.retyped(), key: Key(Vec::new()), window: window.into() }
    }

    /// Writes the rows to a sink. The job does not run when the sink does not take the columns, or the stream is one of changes
    /// and the sink does not take those.
    pub fn sink(self, sink: impl Sink) {
        let name = format!("sink {}", sink.name());
        self.then(&name, |schema| {
            let accepted = match schema.change_key() {
                Some(key) => sink.accepts_changes(&schema.visible(), key),
                None => sink.accepts(&schema.visible()),
            };
            accepted.map_err(|error| OperatorError::Plan(error.to_string()))?;
            Ok((Kind::Sink(Arc::new(sink)), Vec::new()))
        });
    }

    /// Says that these rows are not wanted. They are counted all the same.
    pub fn discard(self) {
        if let Some(at) = self.at {
            lock(&self.graph).drop_stream(at);
        }
    }
}
