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

use serde::{Serialize, de::DeserializeOwned};
use windrow_operators::{
    Port,
    keyed::{Emit, NoSide, Process, ProcessPlan, State, fold, reduce},
    typed::Record,
};

use super::{Key, Stream, WindowKind, Windowed};
use crate::plan::graph::{StreamId, stateful};

/// A stream partitioned by a key.
#[must_use]
pub struct KeyedStream<T> {
    pub(super) stream: Stream<T>,
    pub(super) key: Key,
    pub(super) ttl: Option<Duration>,
}

impl<T: 'static> KeyedStream<T> {
    pub(super) fn new(stream: Stream<T>, key: Key) -> Self {
        Self { stream, key, ttl: None }
    }

    /// Time to live: what is kept of a key is forgotten when the watermark is more than `ttl` past its last row. For
    /// [`process`](Self::process), [`reduce`](Self::reduce), [`fold`](Self::fold), [`aggregate`](Self::aggregate) and
    /// [`latest`](Self::latest), which otherwise keep every key for ever.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Windows per key over event time: `.window(Tumbling::of(secs(10)))`.
    pub fn window(self, window: impl Into<WindowKind>) -> Windowed<T> {
        Windowed { stream: self.stream, key: self.key, window: window.into() }
    }

    /// Calls a function with state and timers per key for each row: see [`Process`].
    pub fn process<P: Process<Row = T, Side = NoSide>>(self, process: P) -> Stream<P::Output> {
        let at = self.processed(process);
        Stream::new(self.stream.graph, at)
    }

    /// The same with a side output: its results, and its side.
    pub fn process_with_side<P: Process<Row = T>>(self, process: P) -> (Stream<P::Output>, Stream<P::Side>) {
        let at = self.processed(process);
        let side = at.map(|at| StreamId { port: Port::side(0), ..at });
        (Stream::new(self.stream.graph.clone(), at), Stream::new(self.stream.graph, side))
    }

    fn processed<P: Process<Row = T>>(&self, process: P) -> Option<StreamId> {
        self.stream.then(&self.name("process"), |schema| {
            Ok(stateful(ProcessPlan::new(schema, &self.key.names(), process, self.ttl)?))
        })
    }

    /// Combines each row with the result so far of its key and emits the new result; the first row of a key is its first
    /// result: `.reduce(|top, bid| if bid.price > top.price { bid } else { top })`.
    pub fn reduce<F>(self, combine: F) -> Stream<T>
    where
        T: Record + Clone + Send + Serialize + DeserializeOwned,
        T: for<'a> TryFrom<T::View<'a>, Error: std::fmt::Display>,
        F: Fn(T, T) -> T + Send + Sync + 'static,
    {
        self.process(reduce(combine))
    }

    /// Folds the rows of a key into a state, which begins with its default, and emits any number of records for each row:
    /// `.fold::<u64, Milestone, _>(|count, bid, out| …)`.
    pub fn fold<S, U, F>(self, step: F) -> Stream<U>
    where
        T: Record,
        S: State,
        U: Record,
        F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
    {
        self.process(fold(step))
    }

    pub(super) fn name(&self, what: &str) -> String {
        match self.key.0.is_empty() {
            true => what.to_string(),
            false => format!("{what} per {}", self.key.0.join(", ")),
        }
    }
}
