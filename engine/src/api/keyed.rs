//! Streams by key: windows, functions with state, joins, patterns.
//!
//! ```text
//!   .key_by("user") ──► KeyedStream ─┬─ .window(…)            results per window        (windowed.rs)
//!                                    ├─ .join(other)          partners of the same key  (joined.rs)
//!                                    ├─ .process(…), .reduce, .fold                     state and timers per key
//!                                    ├─ .deduplicate(within), .in_order(), .pattern(…)
//!                                    ├─ .with_rules(rules).process(…)                   rules in every task (ruled.rs)
//!                                    └─ .aggregate([…]), .latest()   a table that changes    (tables.rs)
//! ```
//!
//! What depends on the order of rows stands behind a sort by the same key, which has the late rows:
//!
//! ```text
//!   rows ──► in order per user ──► process, reduce, fold, pattern, deduplicate, count windows
//!                 └─ LATE          (.on_arrival() leaves the sort out: arrivals.rs)
//! ```

use std::{marker::PhantomData, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use windrow_operators::{
    OperatorError, Port, StreamSchema,
    keyed::{DedupPlan, Emit, NoSide, Process, ProcessPlan, State, fold, reduce},
    pattern::{Measure, Pattern, PatternPlan},
    sort::SortPlan,
    time::spelled,
    typed::Record,
};

use super::{Joining, Key, OnArrival, Results, Ruled, Stream, WindowKind, Windowed, stream::lock};
use crate::plan::graph::{Kind, StreamId, stateful};

/// Of a [`KeyedStream`]: what is kept of a key is kept for ever.
#[derive(Clone, Copy, Debug)]
pub enum Forever {}

/// Of a [`KeyedStream`]: what is kept of a key has a [time to live](KeyedStream::ttl).
#[derive(Clone, Copy, Debug)]
pub enum Ttl {}

/// A stream partitioned by a key. `L` says how long what is kept of a key is kept: [`Forever`], or its [`Ttl`].
#[must_use]
pub struct KeyedStream<T, L = Forever> {
    pub(super) stream: Stream<T>,
    pub(super) key: Key,
    pub(super) ttl: Option<Duration>,
    kept: PhantomData<fn() -> L>,
}

impl<T: 'static> KeyedStream<T> {
    pub(super) fn new(stream: Stream<T>, key: Key) -> Self {
        Self { stream, key, ttl: None, kept: PhantomData }
    }

    /// Time to live, in event time: what is kept of a key is forgotten when the watermark is more than `ttl` past its last row.
    /// For [`process`](Self::process), [`reduce`](Self::reduce), [`fold`](Self::fold), [`aggregate`](Self::aggregate),
    /// [`latest`](Self::latest) and [`latest_unless`](Self::latest_unless), which otherwise keep every key for ever, also
    /// [`on_arrival`](Self::on_arrival), and for [`with_rules`](Self::with_rules); on the right side of a join
    /// [as of](Joining::as_of), and on the left side of one of [tables](Joining::tables): of other joins it is a mistake that is
    /// told when the job runs. Nothing else has it: windows, patterns and
    /// [`deduplicate`](Self::deduplicate) forget by themselves.
    ///
    /// It needs event time: otherwise the job does not run.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Click { user: i64, page: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Nth { page: i64, nth: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let clicks = [(7, 1, 0), (7, 2, 20), (7, 3, 90)];
    /// let clicks = clicks.map(|(user, page, s)| Click { user, page, at: Timestamp::default() + secs(s) });
    /// let job = Job::new("visits");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(clicks.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("user")
    ///     .ttl(secs(60))
    ///     .fold::<u64, Nth, _>(|seen, click, out| {
    ///         *seen += 1;
    ///         out.emit(Nth { page: click.page, nth: *seen });
    ///     })
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+-----+
    /// | page | nth |
    /// +------+-----+
    /// | 1    | 1   |
    /// | 2    | 2   |
    /// | 3    | 1   |
    /// +------+-----+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn ttl(self, ttl: Duration) -> KeyedStream<T, Ttl> {
        KeyedStream { stream: self.stream, key: self.key, ttl: Some(ttl), kept: PhantomData }
    }

    /// Windows per key over event time: `.window(Tumbling::of(secs(10)))`. See [`WindowKind`] for what there is and
    /// [`Windowed::aggregate`] for an example. The job does not run when the stream has no event time, or the window cannot be
    /// (such as one of no length).
    pub fn window(self, window: impl Into<WindowKind>) -> Windowed<T> {
        Windowed { stream: self.stream, key: self.key, window: window.into() }
    }

    /// The same rows in order of event time (rows of one time in the order of their columns, from the first to the last): each
    /// waits until the watermark has passed it. Rows that are earlier than the watermark when they come are late. Rows are in
    /// order per task, so those of one key are; a sink behind several tasks gets them mixed.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Click { user: i64, page: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let clicks = [(7, 2, 20), (7, 1, 10), (7, 3, 20), (7, 4, 50)];
    /// let clicks = clicks.map(|(user, page, at)| Click { user, page, at: Timestamp::from_micros(at) });
    /// let job = Job::new("ordered");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(clicks.into()))
    ///     .event_time("at", Watermarks::out_of_order(millis(1)))
    ///     .key_by("user")
    ///     .in_order()
    ///     .drop_late()
    ///     .select([col("page")])
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+
    /// | page |
    /// +------+
    /// | 1    |
    /// | 2    |
    /// | 3    |
    /// | 4    |
    /// +------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn in_order(self) -> Results<T, T> {
        let (at, late) = self.sorted();
        Results::new(self.stream.graph, at, late)
    }

    /// Of rows of one key keeps the first by event time, and drops those that are later than it by at most `within` (in whole
    /// microseconds; what is less is cut off). The next one is a first one again. A row waits until the watermark has passed it;
    /// one that is earlier than the watermark when it comes is late, whether it is a duplicate or not.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("once");
    /// let out = MemorySink::new();
    /// // Eight orders a second, of four kinds: each is told once in half a second.
    /// job.source(Sequence::new(16).step(125_000))
    ///     .event_time("at", Watermarks::in_order())
    ///     .select([col("at"), (col("value") % lit(4)).alias("kind")])
    ///     .key_by("kind")
    ///     .deduplicate(millis(500))
    ///     .drop_late()
    ///     .sink(out.clone());
    /// let report = job.run().await?;
    /// assert_eq!(out.rows(), 8);
    /// assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "the others are processed too");
    /// # Ok(())
    /// # }
    /// ```
    pub fn deduplicate(self, within: Duration) -> Results<T, T> {
        self.in_order_then(&format!("first within {}", spelled(within)), |schema| {
            Ok(stateful(DedupPlan::new(schema, &self.key.names(), within)?))
        })
        .retyped()
    }

    /// Finds patterns of rows in order of event time: see [`Pattern`], and the module
    /// [`pattern`](crate::operators::pattern) for what exactly it means. The `measures` say what is told of a match, after
    /// `match_start`, `match_end` and the key: `[first("small", "amount"), count_of("small")]`. A condition reads the row an
    /// earlier step took with [`col_of`](crate::col_of). A row that is earlier than the watermark when it comes is late.
    ///
    /// The job does not run when the pattern has no [`within`](Pattern::within), ends with `not_next`, names a step or a column
    /// that does not exist, or the stream has no event time.
    ///
    /// ```
    /// use windrow::{col_of, prelude::*};
    ///
    /// #[derive(Record)]
    /// struct Payment { card: i64, amount: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// // Small payments, to see whether the card works, and then a large one.
    /// let pattern = Pattern::begin("small", col("amount").lt(lit(10)))
    ///     .one_or_more()
    ///     .next("large", col("amount").gt(col_of("small", "amount") * lit(100)))
    ///     .within(mins(1));
    /// let payments = [(4, 1, 0), (4, 50, 0), (4, 3, 5), (4, 2, 6), (4, 900, 7), (4, 800, 8)];
    /// let payments = payments.map(|(card, amount, s)| Payment { card, amount, at: Timestamp::default() + secs(s) });
    /// let job = Job::new("fraud");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(payments.into()))
    ///     .event_time("at", Watermarks::out_of_order(secs(5)))
    ///     .key_by("card")
    ///     .pattern(&pattern, [count_of("small").alias("probes"), last("large", "amount").alias("amount")])
    ///     .drop_late()
    ///     .select(["card", "probes", "amount"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+--------+--------+
    /// | card | probes | amount |
    /// +------+--------+--------+
    /// | 4    | 2      | 900    |
    /// +------+--------+--------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn pattern(self, pattern: &Pattern, measures: impl IntoIterator<Item = Measure>) -> Results<T> {
        let measures: Vec<Measure> = measures.into_iter().collect();
        self.in_order_then("pattern", |schema| {
            Ok(stateful(PatternPlan::new(schema, &self.key.names(), pattern, &measures)?))
        })
    }
}

impl<T: 'static, L> KeyedStream<T, L> {
    /// The same, with what is said of its time to live as a value.
    pub(super) fn lasting<M>(self) -> KeyedStream<T, M> {
        KeyedStream { stream: self.stream, key: self.key, ttl: self.ttl, kept: PhantomData }
    }

    /// Joins with the rows of another stream that have the same key, column by column; the columns may have other names
    /// there, but have the same types. What belongs together in time is said on what this returns, which has the examples:
    /// [`Joining`].
    ///
    /// A null equals nothing: a row with a null in its key has no partner.
    pub fn join<U: 'static, R>(self, right: KeyedStream<U, R>) -> Joining<T, U, L> {
        Joining::new(self, right)
    }

    /// Rows as they arrive, and not in order of event time, for a [`process`](OnArrival::process), a
    /// [`reduce`](OnArrival::reduce) or a [`fold`](OnArrival::fold): nothing waits, and nothing is late.
    /// [`OnArrival`] has an example.
    pub fn on_arrival(self) -> OnArrival<T> {
        OnArrival::new(self.lasting())
    }

    /// Calls a function with state and timers per key for each row, in order of event time: see [`Process`], and
    /// [`process_with_side`](Self::process_with_side) for an example with a timer. A row waits until the watermark has passed it, and finds
    /// all timers fired that are due at its time or before. So the answer does not depend on the order of arrival. A row that is
    /// earlier than the watermark when it comes is late.
    ///
    /// The job does not run when the stream has no event time (then say [`on_arrival`](Self::on_arrival)) or lacks a field of
    /// the function's row type. It fails when a state that is restored cannot be read.
    ///
    /// What a key holds is one [`State`], saved as a whole when it changes, and maps and lists that are saved entry by entry:
    /// [`MapState`](crate::operators::keyed::MapState), [`ListState`](crate::operators::keyed::ListState).
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Clone, Record)]
    /// struct Click { user: i64, page: String, at: Timestamp }
    ///
    /// /// Lets each page of a user pass once.
    /// #[derive(Clone)]
    /// struct FirstTime { seen: MapState<String, u64> }
    ///
    /// impl Process for FirstTime {
    ///     type Row = Click;
    ///     type State = ();
    ///     type Output = Click;
    ///     type Side = NoSide;
    ///
    ///     fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
    ///         let mut seen = key.map(&self.seen);
    ///         let times = seen.get(click.page).unwrap_or(0) + 1;
    ///         seen.insert(click.page, times);
    ///         if times == 1 {
    ///             key.emit(Click { user: key.key(), page: click.page.into(), at: click.at });
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let clicks = [(7, "b"), (7, "a"), (8, "a"), (7, "b")];
    /// let click = |(user, page)| Click { user, page: String::from(page), at: Timestamp::default() };
    /// let (job, out) = (Job::new("first-time"), MemorySink::new());
    /// let clicks = job.source(MemorySource::records(clicks.map(click).into()));
    /// let clicks = clicks.event_time("at", Watermarks::in_order()).key_by("user");
    /// clicks.process(FirstTime { seen: MapState::new("seen") }).drop_late().sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn process<P: Process<Row = T, Side = NoSide>>(self, process: P) -> Results<T, P::Output> {
        self.processed(process).retyped()
    }

    /// The same with a side output: its results, and its side. The rows of the side keep event time as the results do. A process
    /// whose side is [`NoSide`] does not compile here.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Click { user: i64, page: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Visit { user: i64, pages: u64 }
    ///
    /// /// Counts the pages of a user until nothing has come for a minute; pages below 0 go aside.
    /// #[derive(Clone)]
    /// struct Visits;
    ///
    /// #[derive(Default, Serialize, Deserialize)]
    /// struct Seen { pages: u64, until: Timestamp }
    /// impl State for Seen {}
    ///
    /// impl Process for Visits {
    ///     type Row = Click;
    ///     type State = Seen;
    ///     type Output = Visit;
    ///     type Side = Click;
    ///
    ///     fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
    ///         if click.page < 0 {
    ///             return key.emit_side(Click { user: click.user, page: click.page, at: click.at });
    ///         }
    ///         let until = key.time() + mins(1);
    ///         let seen = key.state_mut();
    ///         (seen.pages, seen.until) = (seen.pages + 1, until);
    ///         key.set_timer(until);
    ///     }
    ///
    ///     fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
    ///         let seen = key.state();
    ///         if timer == Timer::Event(seen.until) {
    ///             let visit = Visit { user: key.key(), pages: seen.pages };
    ///             key.emit(visit);
    ///             key.clear();
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let clicks = [(7, 1, 0), (8, -1, 5), (7, 2, 30), (7, 3, 120)];
    /// let clicks = clicks.map(|(user, page, s)| Click { user, page, at: Timestamp::default() + secs(s) });
    /// let job = Job::new("visits");
    /// let (out, aside) = (MemorySink::new(), MemorySink::new());
    /// let (visits, odd) = job
    ///     .source(MemorySource::records(clicks.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("user")
    ///     .process_with_side(Visits);
    /// visits.drop_late().sink(out.clone());
    /// odd.sink(aside.clone());
    /// job.run().await?;
    /// assert_eq!(aside.rows(), 1);
    /// assert_eq!(out.to_string(), "\
    /// +------+-------+
    /// | user | pages |
    /// +------+-------+
    /// | 7    | 2     |
    /// | 7    | 1     |
    /// +------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn process_with_side<P>(self, process: P) -> (Results<T, P::Output>, Stream<P::Side>)
    where
        P: Process<Row = T, Side: Record>,
    {
        let results = self.processed(process);
        let side = results.output(Port::side(0));
        (results.retyped(), side)
    }

    fn processed<P: Process<Row = T>>(&self, process: P) -> Results<T> {
        if self.stream.schema().is_some_and(|schema| schema.time().is_none()) {
            let at = self.stream.then(&self.name("process"), |_| {
                Err(OperatorError::Plan(
                    "it takes rows in order of event time, and there is none: declare it at the source with \
                     .event_time(column, …), or say .on_arrival() before it"
                        .into(),
                ))
            });
            return Results::new(self.stream.graph.clone(), at, None);
        }
        self.in_order_then("process", |schema| {
            Ok(stateful(ProcessPlan::new(schema, &self.key.names(), process, self.ttl)?.in_order()))
        })
    }

    /// Combines each row with the result so far of its key and emits the new result; the first row of a key is its first
    /// result: `.reduce(|top, bid| if bid.price > top.price { bid } else { top })`. In order of event time, unless
    /// [`on_arrival`](Self::on_arrival) is said before it; each result has the event time of its row. Keeps one row per key for ever, unless
    /// there is a [`ttl`](Self::ttl).
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use windrow::prelude::*;
    ///
    /// #[derive(Clone, Record, Serialize, Deserialize)]
    /// struct Bid { auction: i64, price: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let bids = [(1, 5, 10), (2, 9, 20), (1, 3, 30), (1, 8, 40)];
    /// let bids = bids.map(|(auction, price, at)| Bid { auction, price, at: Timestamp::from_micros(at) });
    /// let job = Job::new("highest-so-far");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(bids.to_vec()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("auction")
    ///     .reduce(|top, bid| if bid.price > top.price { bid } else { top })
    ///     .drop_late()
    ///     .select([col("auction"), col("price")])
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +---------+-------+
    /// | auction | price |
    /// +---------+-------+
    /// | 1       | 5     |
    /// | 2       | 9     |
    /// | 1       | 5     |
    /// | 1       | 8     |
    /// +---------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn reduce<F>(self, combine: F) -> Results<T, T>
    where
        T: Record + Clone + Send + Serialize + DeserializeOwned,
        T: for<'a> TryFrom<T::View<'a>, Error: std::fmt::Display>,
        F: Fn(T, T) -> T + Send + Sync + 'static,
    {
        self.process(reduce(combine))
    }

    /// Folds the rows of a key into a state, which begins with its default, and emits any number of records for each row. In
    /// order of event time, unless [`on_arrival`](Self::on_arrival) is said; each record has the event time of its row. Keeps the
    /// state of a key for ever, unless there is a [`ttl`](Self::ttl). The state is any [`State`]: a number, a `Vec`, a
    /// `BTreeMap`, or a struct of yours.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// #[derive(Record)]
    /// struct Milestone { auction: i64, bids: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("milestones");
    /// let out = MemorySink::new();
    /// job.source(Nexmark::new().events(5_000).bids())
    ///     .event_time("at", Watermarks::in_order())
    ///     .typed::<Bid>()
    ///     .key_by("auction")
    ///     .fold::<u64, Milestone, _>(|bids, bid, out| {
    ///         *bids += 1;
    ///         if bids.is_multiple_of(100) {
    ///             out.emit(Milestone { auction: bid.auction, bids: *bids });
    ///         }
    ///     })
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert!(out.rows() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fold<S, U, F>(self, step: F) -> Results<T, U>
    where
        T: Record,
        S: State,
        U: Record,
        F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
    {
        self.process(fold(step))
    }

    /// Has every task know all rows of another stream, such as rules: see
    /// [`BroadcastProcess`](windrow_operators::keyed::BroadcastProcess), and [`Ruled::process`] for an example.
    pub fn with_rules<R: 'static>(self, rules: Stream<R>) -> Ruled<T, R> {
        Ruled::new(self.lasting(), rules)
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
        if let Some(error) = self.stream.schema().and_then(|schema| SortPlan::new(&schema, &self.key.names()).err()) {
            // The mistake is one of what was asked for, not of the sort in front of it.
            let at = self.stream.then(&self.name(what), |_| Err(error));
            return Results::new(self.stream.graph.clone(), at, None);
        }
        let (sorted, late) = self.sorted();
        let sorted = Stream::<T>::new(self.stream.graph.clone(), sorted);
        let at = sorted.then(&self.name(what), build);
        if let (Some(at), Some(sort)) = (at, sorted.at) {
            let mut graph = lock(&self.stream.graph);
            graph.sort_for(at.node, sort.node);
            // Behind the sort nothing is late any more.
            graph.drop_stream(StreamId { port: Port::LATE, ..at });
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
