//! Streams by key: windows, functions with state, joins, patterns.
//!
//! ```text
//!   .key_by("user") ──► KeyedStream ─┬─ .window(…)            results per window        (windowed.rs)
//!                                    ├─ .join(other)          partners of the same key  (joined.rs)
//!                                    ├─ .process(…), .reduce, .fold                     state and timers per key
//!                                    ├─ .deduplicate(within), .in_order()
//!                                    └─ .aggregate([…]), .latest()   a table that changes    (changes.rs)
//! ```

use std::time::Duration;

use datafusion_expr::Expr;
use serde::{Serialize, de::DeserializeOwned};
use windrow_operators::{
    OperatorError, Port, StreamSchema,
    changes::{UpdatingPlan, UpsertPlan},
    keyed::{BroadcastPlan, BroadcastProcess, DedupPlan, Emit, NoSide, Process, ProcessPlan, State, fold, reduce},
    pattern::{Measure, Pattern, PatternPlan},
    sort::SortPlan,
    typed::Record,
};

use super::{Joining, Key, Results, Stream, WindowKind, Windowed, stream::lock};
use crate::plan::graph::{Kind, StreamId, stateful};

/// A stream partitioned by a key.
#[must_use]
pub struct KeyedStream<T> {
    pub(super) stream: Stream<T>,
    pub(super) key: Key,
    pub(super) ttl: Option<Duration>,
    on_arrival: bool,
}

impl<T: 'static> KeyedStream<T> {
    pub(super) fn new(stream: Stream<T>, key: Key) -> Self {
        Self { stream, key, ttl: None, on_arrival: false }
    }

    /// Has [`process`](Self::process), [`reduce`](Self::reduce) and [`fold`](Self::fold) see rows as they arrive and not in
    /// order of event time. Nothing waits for the watermark and nothing is late, and a stream needs no event time; but what
    /// the function answers may depend on the order of arrival, and timers fire at watermarks only.
    pub fn on_arrival(self) -> Self {
        Self { on_arrival: true, ..self }
    }

    /// Time to live: what is kept of a key is forgotten when the watermark is more than `ttl` past its last row. For
    /// [`process`](Self::process), [`reduce`](Self::reduce), [`fold`](Self::fold) and [`aggregate`](Self::aggregate), which
    /// otherwise keep every key for ever, and for joins [as of](super::Joining::as_of) and of
    /// [tables](super::Joining::tables).
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Windows per key over event time: `.window(Tumbling::of(secs(10)))`.
    pub fn window(self, window: impl Into<WindowKind>) -> Windowed<T> {
        self.refuse_ttl("a window forgets its rows by itself");
        self.refuse_on_arrival();
        Windowed { stream: self.stream, key: self.key, window: window.into() }
    }

    /// Joins with the rows of another stream that have the same key, column by column.
    pub fn join<U: 'static>(self, right: KeyedStream<U>) -> Joining<T, U> {
        Joining::new(self, right)
    }

    /// The same rows in order of event time (rows of one time in the order of their columns): each waits until the watermark
    /// has passed it. Rows that come too late for their place are late.
    pub fn in_order(self) -> Results<T, T> {
        self.refuse_ttl("rows in order are forgotten as they leave");
        self.refuse_on_arrival();
        let (at, late) = self.sorted();
        Results::new(self.stream.graph, at, late)
    }

    /// Of rows of one key keeps the first by event time, and drops those that are later than it by at most `within`.
    pub fn deduplicate(self, within: Duration) -> Results<T, T> {
        self.refuse_ttl("a key is forgotten when its time within which rows are dropped is over");
        self.refuse_on_arrival();
        self.in_order_then(&format!("first within {within:?}"), |schema| {
            Ok(stateful(DedupPlan::new(schema, &self.key.names(), within)?))
        })
        .retyped()
    }

    /// Calls a function with state and timers per key for each row, in order of event time: see [`Process`]. A row waits
    /// until the watermark has passed it, and finds all timers fired that are due at its time. So the answer does not depend
    /// on the order of arrival.
    pub fn process<P: Process<Row = T, Side = NoSide>>(self, process: P) -> Results<T, P::Output> {
        self.processed(process).retyped()
    }

    /// The same with a side output: its results, and its side.
    pub fn process_with_side<P: Process<Row = T>>(self, process: P) -> (Results<T, P::Output>, Stream<P::Side>) {
        let results = self.processed(process);
        let side = results.output(Port::side(0));
        (results.retyped(), side)
    }

    fn processed<P: Process<Row = T>>(&self, process: P) -> Results<T> {
        let plan = |schema: &StreamSchema| ProcessPlan::new(schema, &self.key.names(), process, self.ttl);
        if self.on_arrival {
            let at = self.stream.then(&self.name("process"), |schema| Ok(stateful(plan(schema)?)));
            return Results::new(self.stream.graph.clone(), at, None);
        }
        let timed =
            self.stream.at.and_then(|at| lock(&self.stream.graph).schema(at).map(|schema| schema.time().is_some()));
        if timed == Some(false) {
            let at = self.stream.then(&self.name("process"), |_| {
                Err(OperatorError::Plan(
                    "it takes rows in order of event time, and there is none: declare it at the source with \
                     .event_time(column, …), or say .on_arrival() before it"
                        .into(),
                ))
            });
            return Results::new(self.stream.graph.clone(), at, None);
        }
        self.in_order_then("process", |schema| Ok(stateful(plan(schema)?.in_order())))
    }

    /// Combines each row with the result so far of its key and emits the new result; the first row of a key is its first
    /// result: `.reduce(|top, bid| if bid.price > top.price { bid } else { top })`.
    pub fn reduce<F>(self, combine: F) -> Results<T, T>
    where
        T: Record + Clone + Send + Serialize + DeserializeOwned,
        T: for<'a> TryFrom<T::View<'a>, Error: std::fmt::Display>,
        F: Fn(T, T) -> T + Send + Sync + 'static,
    {
        self.process(reduce(combine))
    }

    /// Folds the rows of a key into a state, which begins with its default, and emits any number of records for each row:
    /// `.fold::<u64, Milestone, _>(|count, bid, out| …)`.
    pub fn fold<S, U, F>(self, step: F) -> Results<T, U>
    where
        T: Record,
        S: State,
        U: Record,
        F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
    {
        self.process(fold(step))
    }

    /// Finds patterns of rows in order of event time: see [`Pattern`]. The `measures` say what is told of a match, after
    /// `match_start`, `match_end` and the key: `[first("small", "amount"), count_of("small")]`.
    pub fn pattern(self, pattern: &Pattern, measures: impl IntoIterator<Item = Measure>) -> Results<T> {
        self.refuse_ttl("a pattern forgets rows by its .within(…)");
        self.refuse_on_arrival();
        let measures: Vec<Measure> = measures.into_iter().collect();
        self.in_order_then("pattern", |schema| {
            Ok(stateful(PatternPlan::new(schema, &self.key.names(), pattern, &measures)?))
        })
    }

    /// Any aggregates over all rows of a key so far: a table that changes. What leaves is a stream of changes, for a sink
    /// that takes them, such as [`MemoryTable`](windrow_connectors::MemoryTable), or for [`Stream::changelog`].
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = Expr>) -> Results<T> {
        self.refuse_on_arrival();
        let aggregates: Vec<Expr> = aggregates.into_iter().collect();
        let at = self.stream.then(&self.name("aggregate"), |schema| {
            Ok(stateful(UpdatingPlan::new(schema, &self.key.names(), &aggregates, self.ttl)?))
        });
        Results::late_on_port(self.stream.graph, at)
    }

    /// The newest row of each key by event time: a table that changes. What leaves is a stream of changes.
    pub fn latest(self) -> Results<T> {
        self.latest_but(None)
    }

    /// The same, but a row that meets a condition takes its key away.
    pub fn latest_unless(self, deleted: Expr) -> Results<T> {
        self.latest_but(Some(deleted))
    }

    fn latest_but(self, deleted: Option<Expr>) -> Results<T> {
        self.refuse_ttl(
            "a table keeps the newest row of every key; say which rows take theirs away with .latest_unless(…)",
        );
        self.refuse_on_arrival();
        let at = self.stream.then(&self.name("latest"), |schema| {
            Ok(stateful(UpsertPlan::new(schema, &self.key.names(), deleted.as_ref())?))
        });
        Results::late_on_port(self.stream.graph, at)
    }

    /// Has every task know all rows of another stream, such as rules: see [`BroadcastProcess`].
    pub fn with_rules<R: 'static>(self, rules: Stream<R>) -> Ruled<T, R> {
        Ruled { rows: self, rules }
    }

    /// Notes that a time to live was said of something that has none.
    fn refuse_ttl(&self, why: &str) {
        if self.ttl.is_some() {
            self.mistake(&format!(".ttl(…) says nothing here: {why}"));
        }
    }

    fn refuse_on_arrival(&self) {
        if self.on_arrival {
            self.mistake(".on_arrival() is for .process(…), .reduce(…) and .fold(…)");
        }
    }

    fn mistake(&self, what: &str) {
        let Some(at) = self.stream.at else { return };
        let mut graph = lock(&self.stream.graph);
        let mistake = format!("{}, keyed by {}: {what}", graph.nodes[at.node].name, self.key.0.join(", "));
        graph.mistakes.push(mistake);
    }

    /// The rows in order of event time, and those that come too late for that.
    pub(super) fn sorted(&self) -> (Option<StreamId>, Option<StreamId>) {
        let at =
            self.stream.then(&self.name("in order"), |schema| Ok(stateful(SortPlan::new(schema, &self.key.names())?)));
        (at, at.map(|at| StreamId { port: Port::LATE, ..at }))
    }

    /// An operator that takes its rows in order of event time, with the rows that come too late for that.
    pub(super) fn in_order_then(
        &self,
        what: &str,
        build: impl FnOnce(&StreamSchema) -> windrow_operators::Result<(Kind, Vec<(Port, StreamSchema)>)>,
    ) -> Results<T> {
        let (sorted, late) = self.sorted();
        let sorted = Stream::<T>::new(self.stream.graph.clone(), sorted);
        let at = sorted.then(&self.name(what), build);
        if let (Some(sorted), Some(at)) = (sorted.at, at) {
            let mut graph = lock(&self.stream.graph);
            // Behind the sort nothing is late any more.
            graph.drop_stream(StreamId { port: Port::LATE, ..at });
            graph.nodes[sorted.node].orders = true;
            let id = graph.nodes[at.node].id.clone();
            id.map(|id| graph.set_id(at.node, id));
        }
        Results::new(self.stream.graph.clone(), at, late)
    }

    pub(super) fn name(&self, what: &str) -> String {
        match self.key.0.is_empty() {
            true => what.to_string(),
            false => format!("{what} per {}", self.key.0.join(", ")),
        }
    }
}

/// Rows by key, and rules that every task gets.
#[must_use]
pub struct Ruled<T, R> {
    rows: KeyedStream<T>,
    rules: Stream<R>,
}

impl<T: 'static, R: 'static> Ruled<T, R> {
    /// Calls a function with the rules, and with state and timers per key.
    pub fn process<B: BroadcastProcess<Row = T, Rule = R, Side = NoSide>>(self, process: B) -> Stream<B::Output> {
        let at = self.processed(process);
        Stream::new(self.rows.stream.graph, at)
    }

    /// The same with a side output: its results, and its side.
    pub fn process_with_side<B>(self, process: B) -> (Stream<B::Output>, Stream<B::Side>)
    where
        B: BroadcastProcess<Row = T, Rule = R>,
    {
        let at = self.processed(process);
        let side = at.map(|at| StreamId { port: Port::side(0), ..at });
        (Stream::new(self.rows.stream.graph.clone(), at), Stream::new(self.rows.stream.graph, side))
    }

    fn processed<B: BroadcastProcess<Row = T, Rule = R>>(&self, process: B) -> Option<StreamId> {
        let rows = &self.rows;
        rows.stream.then_both(&self.rules, &rows.name("process with rules"), |schema, rules| {
            Ok(stateful(BroadcastPlan::new(schema, &rows.key.names(), rules, process, rows.ttl)?))
        })
    }
}
