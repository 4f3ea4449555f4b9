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
    error::said_of,
    plan::graph::{Graph, Kind, StreamId},
};

/// A graph that several streams add to.
pub(crate) type SharedGraph = Arc<Mutex<Graph>>;

/// The graph is only ever locked for one addition; a panic elsewhere leaves it whole.
pub(crate) fn lock(graph: &SharedGraph) -> MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The columns of an operator that leaves them as they are.
fn all(stream: &StreamSchema) -> Vec<Option<usize>> {
    (0..stream.columns().fields().len()).map(Some).collect()
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

impl<T: 'static, S> Stream<T, S> {
    pub(crate) fn new(graph: SharedGraph, at: Option<StreamId>) -> Self {
        Self { graph, at, rows: PhantomData }
    }

    pub(super) fn retyped<U, R>(&self) -> Stream<U, R> {
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

    /// Adds an operator with one output and clones of `operator` as its tasks. With them goes which column of the input each
    /// column of the output is; where nothing is said it is none.
    fn then_each<O: Operator + Clone + Sync + 'static, U>(
        self,
        name: &str,
        build: impl FnOnce(&StreamSchema) -> windrow_operators::Result<(O, StreamSchema, Vec<Option<usize>>)>,
    ) -> Stream<U> {
        let at = self.then(name, |schema| {
            let (operator, output, kept) = build(schema)?;
            let factory: Factory = Arc::new(move || Ok(Box::new(operator.clone())));
            Ok((Kind::Stateless(factory, kept), vec![(Port::MAIN, output)]))
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
        self.then_each("filter", |schema| Ok((FilterRows::<T, F>::new(schema, keep)?, schema.clone(), all(schema))))
    }

    /// Keeps the rows that meet a condition: `.filter_expr(col("price").gt(lit(100)))`. Of changes those of rows that do not
    /// meet it become deletes. [`Stream`] has an example. The job does not run when a column does not exist, it is not a condition,
    /// or it compares text with a number ([`try_cast`](crate::try_cast) makes one of the other).
    pub fn filter_expr(self, condition: Expr) -> Stream<T> {
        let name = format!("filter {condition}");
        match self.has_changes() {
            true => self
                .then_each(&name, |schema| Ok((ChangeFilter::new(schema, &condition)?, schema.clone(), all(schema)))),
            false => {
                self.then_each(&name, |schema| Ok((Filter::new(schema, &condition)?, schema.clone(), all(schema))))
            }
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
            Ok((operator, output, Vec::new()))
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
            Ok((operator, output, Vec::new()))
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
                let (output, kept) = (operator.output().clone(), operator.kept());
                Ok((operator, output, kept))
            });
        }
        self.then_each("select", |schema| {
            let operator = Project::new(schema, &columns)?;
            let (output, kept) = (operator.output().clone(), operator.kept());
            Ok((operator, output, kept))
        })
    }

    /// Makes rows of changes: the columns of the table after a first one, `op`, that says `insert`, `update` or `delete`.
    /// [`KeyedStream::latest`] has an example. The job does not run when the stream is not one of changes.
    pub fn changelog(self) -> Stream<Untyped> {
        self.then_each("changelog", |schema| {
            let operator = Changelog::new(schema)?;
            let (output, kept) = (operator.output().clone(), operator.kept());
            Ok((operator, output, kept))
        })
    }

    fn has_changes(&self) -> bool {
        self.schema().is_some_and(|schema| schema.change_key().is_some())
    }

    /// The same rows, seen by closures as `U`, whose fields are found among the columns by name; there may be other columns.
    /// [`Stream`] has an example. A `String` is a column of text, `Utf8` or `Utf8View`: closures are given a copy of the latter, so
    /// filter by expressions first. The job does not run when a field of `U` is not among the columns or has another type, or the stream
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
    ///
    /// Rows that are with the task of their key already stay there: behind a join, a window or a table by the same columns in the
    /// same order, under whatever names [`filter`](Self::filter), [`filter_expr`](Self::filter_expr) and [`select`](Self::select)
    /// have left them. A [`map`](Self::map) or a function of your own may have changed them; patterns and joins in an interval that
    /// are not inner keep them back for times of their own; and sources may fall idle: then they are exchanged. [`Job::explain`](crate::Job::explain) shows it.
    pub fn key_by(self, key: impl Into<Key>) -> KeyedStream<T> {
        KeyedStream::new(self.retyped(), key.into())
    }

    /// Windows over all rows, without a key. Their result is computed by one task, though most of the work may be done in
    /// front of it. [`Stream::union`] has an example.
    pub fn window(self, window: impl Into<WindowKind>) -> Windowed<T> {
        Windowed { stream: self.retyped(), key: Key(Vec::new()), window: window.into() }
    }

    /// Writes the rows to a sink. The job does not run when the sink does not take the columns, or the stream is one of changes
    /// and the sink does not take those. [`Stream`] has an example.
    pub fn sink(self, sink: impl Sink) {
        let name = sink.name();
        self.then(&format!("sink {name}"), |schema| {
            let accepted = match schema.change_key() {
                Some(key) => sink.accepts_changes(&schema.visible(), key),
                None => sink.accepts(&schema.visible()),
            };
            accepted.map_err(|error| OperatorError::Plan(said_of(&name, &error)))?;
            Ok((Kind::Sink(Arc::new(sink)), Vec::new()))
        });
    }

    /// Says that these rows are not wanted. They are counted all the same.
    /// [`Joined::with_late`](super::Joined::with_late) has an example.
    pub fn discard(self) {
        if let Some(at) = self.at {
            lock(&self.graph).drop_stream(at);
        }
    }
}
