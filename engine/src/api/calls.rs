//! Calls to something outside: a service, a database, a table.

use std::{fmt::Display, iter::Once, marker::PhantomData, sync::Arc, time::Duration};

use datafusion_expr::Expr;
use windrow_connectors::{Lookup, Untyped};
use windrow_operators::{Port, StreamSchema, typed::Record};

use super::{
    Stream,
    stream::{SharedGraph, lock},
};
use crate::{
    LookupKind, Retry,
    plan::graph::{Kind, StreamId},
    runtime::async_task::{
        Calls, FAILED, Work,
        call::{OnFailure, Policy},
        failed_schema,
        lookup::LookupCalls,
        map::{Call, MapCalls},
    },
};

/// How many calls of a map are in flight unless told.
const CAPACITY: usize = 100;

/// How many batches of a lookup are in flight unless told.
const LOOKUP_CAPACITY: usize = 4;

/// How long one attempt may take unless told.
const TIMEOUT: Duration = Duration::from_secs(60);

impl<T: 'static, S> Stream<T, S> {
    /// Makes one record of each row with a call to something outside. The closure sees the row and makes a future, which
    /// must own what it needs of it; it runs many calls at a time, all on the thread of their task, so a call must not
    /// block. Event time stays with the row.
    ///
    /// What becomes of rows whose call fails is said on the result. Results leave as they come unless
    /// [`ordered`](AsyncResult::ordered) is said: everything in Windrow that depends on event time gives the same answer for
    /// every order of arrival, and a slow call then holds nobody up but the watermark.
    ///
    /// **Calls are made at least once.** A row whose result has not left at a checkpoint is called again after a restore,
    /// with all its attempts; its result is in the output exactly once. So a call may well read, and should write only
    /// what can be written twice.
    ///
    /// A checkpoint and a clean stop wait for no call, however slow: rows in flight, and those that wait behind them, are in
    /// the checkpoint. (Without checkpoints a stop waits for them, for they have no other place.) Of rows that wait a task
    /// holds about what a channel does, and once more what was between the sources and it when it got full; then the sources
    /// before it stop reading until the calls come along.
    ///
    /// A call that panics has failed with the message of the panic, and is tried again like others.
    ///
    /// When a job that was changed goes on from a checkpoint with rows in flight, they are given to the same kind of call with
    /// a result type of the same name, and to nothing else.
    ///
    /// ```
    /// use windrow::{Retry, prelude::*};
    ///
    /// #[derive(Record)]
    /// struct Bid {
    ///     auction: i64,
    ///     price: i64,
    /// }
    ///
    /// #[derive(Record)]
    /// struct Priced {
    ///     auction: i64,
    ///     euro: f64,
    /// }
    ///
    /// async fn rate(auction: i64) -> Result<f64, String> {
    ///     if auction % 100 == 7 { Err(format!("no rate for {auction}")) } else { Ok(0.9) }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("priced");
    /// let (out, dead) = (MemorySink::new(), MemorySink::new());
    /// let (priced, failed) = job
    ///     .source(Nexmark::new().events(1_000).bids())
    ///     .event_time("at", Watermarks::out_of_order(secs(5)))
    ///     .typed::<Bid>()
    ///     .map_async(|bid| {
    ///         let (auction, price) = (bid.auction, bid.price as f64);
    ///         async move { rate(auction).await.map(|rate| Priced { auction, euro: price * rate }) }
    ///     })
    ///     .capacity(50)
    ///     .timeout(secs(5))
    ///     .retry(Retry::exponential(3, millis(1)))
    ///     .with_failed();
    /// priced.sink(out.clone());
    /// failed.select(["auction", "error", "attempts"].map(col)).sink(dead.clone());
    /// let report = job.run().await?;
    /// let calls = report.metrics.named("async map").next().unwrap();
    /// assert_eq!(calls.rows_in as usize, out.rows() + dead.rows());
    /// assert!(calls.balances());
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_async<U, E, Fut, F>(self, call: F) -> AsyncResult<U>
    where
        T: Record,
        U: Record + Send,
        E: Display,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
        F: for<'a> Fn(T::View<'a>) -> Fut + Send + Sync + 'static,
    {
        self.calls("async map", CAPACITY, |schema| {
            let call = move |row: T::View<'_>| -> Call<Once<U>> {
                let answer = call(row);
                Box::pin(async move { answer.await.map(std::iter::once).map_err(|error| error.to_string()) })
            };
            let map = MapCalls::<T, U, Once<U>, _>::new("an async map", schema, call)?;
            let output = map.output().clone();
            Ok((map, output))
        })
    }

    /// Makes any number of records of each row with a call to something outside: an `Option`, a `Vec`. Otherwise as
    /// [`Stream::map_async`]. Each record keeps the row's event time.
    ///
    /// What a call may hold: its answer is kept as it is until its records have left, and up to
    /// [`capacity`](AsyncResult::capacity) answers are there at a time. Records leave in batches of at most 8,192, each when the
    /// one before has found room, and an iterator is asked for no more than that: so an answer of a million records costs
    /// memory as a `Vec`, and none as an iterator that makes them on the way. The records of one answer belong to one
    /// checkpoint, which waits until they have left. Only the call is tried again: an iterator that panics fails the job, as any
    /// closure does.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Number { value: i64 }
    ///
    /// async fn divisors(n: i64) -> Result<Vec<Number>, String> {
    ///     Ok((1..=n).filter(|d| n % d == 0).map(|value| Number { value }).collect())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("divisors");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(7))
    ///     .typed::<Number>()
    ///     .flat_map_async(|number| divisors(number.value))
    ///     .ordered()
    ///     .fail_on_failure()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 1 + 2 + 2 + 3 + 2 + 4, "of 1 to 6");
    /// # Ok(())
    /// # }
    /// ```
    pub fn flat_map_async<U, I, E, Fut, F>(self, call: F) -> AsyncResult<U>
    where
        T: Record,
        U: Record,
        I: IntoIterator<Item = U, IntoIter: Send + 'static>,
        E: Display,
        Fut: Future<Output = Result<I, E>> + Send + 'static,
        F: for<'a> Fn(T::View<'a>) -> Fut + Send + Sync + 'static,
    {
        self.calls("async flat map", CAPACITY, |schema| {
            let call = move |row: T::View<'_>| -> Call<I::IntoIter> {
                let answer = call(row);
                Box::pin(async move { answer.await.map(I::into_iter).map_err(|error| error.to_string()) })
            };
            let map = MapCalls::<T, U, I::IntoIter, _>::new("an async flat map", schema, call)?;
            let output = map.output().clone();
            Ok((map, output))
        })
    }

    /// Enriches each row with the rows of a table that have the same key: `"shop"` when both sides call it so,
    /// `[("shop", "id")]` when the table calls it `id`. The result has the columns of the row, then those of the table
    /// without its key. A null is equal to nothing. With several rows in the table there are several results.
    ///
    /// A batch of rows is one call, with each different key once; [`Cached`](crate::connectors::Cached) keeps what was
    /// found. What is said of calls at [`Stream::map_async`] is true of lookups; rows in flight go on with a table of the same
    /// name by the same key. The table is as it is when the row is looked up: so its results may differ from run to run when it
    /// changes. [`AsyncResult::condition`] says which rows of the table belong to a row besides.
    ///
    /// What a call may hold: the rows of the table for the keys of a batch of at most 8,192 rows, however many they are, and
    /// [`capacity`](AsyncResult::capacity) calls do that at a time. Pairs are made as they leave, at most 8,192 at a time.
    ///
    /// The job does not run when a column of the key is missing on either side, has another type there, or is a float, or both
    /// sides have another column of the same name. For streams of rows, not of changes.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Seller {
    ///     id: i64,
    ///     city: Option<String>,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("sellers.csv");
    /// # std::fs::write(&path, "id,city\n1,Rome\n3,Oslo\n").unwrap();
    /// let sellers = TableFile::csv::<Seller>(path.to_str().unwrap()).refresh(secs(10)); // "sellers.csv"
    /// let job = Job::new("cities");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(5))
    ///     .event_time("at", Watermarks::in_order())
    ///     .lookup(sellers, [("value", "id")], LookupKind::Left)
    ///     .fail_on_failure()
    ///     .filter_expr(col("city").is_not_null())
    ///     .select([col("value"), col("city")])
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lookup(self, table: impl Lookup, on: impl Into<LookupOn>, kind: LookupKind) -> AsyncResult<Untyped> {
        let LookupOn(on) = on.into();
        let name = format!("lookup {}", table.name());
        let mut made = None;
        let result = self.calls(&name, LOOKUP_CAPACITY, |schema| {
            let lookup = made.insert(LookupCalls::new(schema, Arc::new(table), &on, kind)?);
            Ok((lookup.clone(), lookup.output().clone()))
        });
        AsyncResult { lookup: made, ..result }
    }

    /// Adds an async operator.
    fn calls<W: Work, U: 'static>(
        self,
        name: &str,
        capacity: usize,
        build: impl FnOnce(&StreamSchema) -> windrow_operators::Result<(W, StreamSchema)>,
    ) -> AsyncResult<U> {
        let (retry, on_failure) = (Retry::never(), OnFailure::Fail);
        let policy = Policy { capacity, timeout: TIMEOUT, retry, ordered: false, on_failure };
        let at = self.then(name, |schema| {
            schema.expect_rows("a call")?;
            let (work, output) = build(schema)?;
            let plan = Calls { work: Arc::new(work), input: schema.clone() };
            Ok((Kind::Async(Arc::new(plan), policy), vec![(Port::MAIN, output)]))
        });
        AsyncResult { graph: self.graph, at, lookup: None, rows: PhantomData }
    }
}

/// The columns of a lookup's key, in the stream and in the table: `"shop"`, `["shop", "day"]`, `[("shop", "id")]`.
///
/// ```
/// use windrow::api::LookupOn;
/// assert_eq!(LookupOn::from("shop"), LookupOn::from([("shop", "shop")]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupOn(Vec<(String, String)>);

impl From<&str> for LookupOn {
    fn from(column: &str) -> Self {
        Self(vec![(column.into(), column.into())])
    }
}

impl<const N: usize> From<[&str; N]> for LookupOn {
    fn from(columns: [&str; N]) -> Self {
        Self(columns.map(|column| (column.to_string(), column.to_string())).to_vec())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for LookupOn {
    fn from(columns: [(&str, &str); N]) -> Self {
        Self(columns.map(|(left, right)| (left.to_string(), right.to_string())).to_vec())
    }
}

/// The results of calls, once it is said what becomes of rows whose call fails; and how the calls are made.
/// [`Stream::map_async`] has an example with all of it.
#[must_use = "say what becomes of rows whose call fails: .with_failed(), .drop_failed() or .fail_on_failure()"]
pub struct AsyncResult<U> {
    graph: SharedGraph,
    at: Option<StreamId>,
    /// What is called, of a lookup.
    lookup: Option<LookupCalls>,
    rows: PhantomData<fn() -> U>,
}

/// What can be said of a lookup besides.
impl AsyncResult<Untyped> {
    /// A row of the table belongs to a row only if both meet a condition besides. A column that is on both sides is written
    /// `left("since")` for the row's and `right("since")` for the table's. With [`LookupKind::Left`] a row that meets it with no
    /// row of the table leaves alone, once. The last condition counts.
    ///
    /// The job does not run when it names a column that is on neither side, or is not a condition.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Discount {
    ///     item: i64,
    ///     least: i64,
    ///     percent: i64,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("discounts.csv");
    /// # std::fs::write(&path, "item,least,percent\n1,0,0\n1,1,3\n3,7,5\n").unwrap();
    /// let discounts = TableFile::csv::<Discount>(path.to_str().unwrap()); // "discounts.csv"
    /// let job = Job::new("discounts");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(4))
    ///     .select([col("value").alias("item"), (col("value") * lit(2)).alias("amount")])
    ///     .lookup(discounts, "item", LookupKind::Left)
    ///     .condition(col("amount").gt_eq(col("least")))
    ///     .fail_on_failure()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 5, "items 0, 2 and 3 alone, and twice 1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn condition(self, condition: Expr) -> Self {
        if let (Some(at), Some(lookup)) = (self.at, &self.lookup) {
            let mut graph = lock(&self.graph);
            let node = &mut graph.nodes[at.node];
            match (lookup.with_condition(&condition), &mut node.kind) {
                (Ok(work), Kind::Async(calls, _)) => {
                    *calls = Arc::new(Calls { input: work.input().clone(), work: Arc::new(work) });
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    let mistake = format!("{}: {error}", node.name);
                    graph.mistakes.push(mistake);
                }
            }
        }
        self
    }
}

impl<U: 'static> AsyncResult<U> {
    /// How many calls of a task may be in flight, or have a result that may not leave yet, because an earlier one has to
    /// leave first; one that waits for its next attempt counts too. Beyond that nothing is read. At least 1; 100 unless told
    /// (of a lookup, whose calls are for batches, 4). [`Stream::map_async`] has an example.
    pub fn capacity(self, calls: usize) -> Self {
        let wrong = (calls == 0).then_some("a capacity of 0 would never call: say at least 1");
        self.policy(wrong, |policy| policy.capacity = calls)
    }

    /// How long one attempt may take, in processing time. A minute unless told. An attempt that takes longer has failed.
    /// [`Stream::map_async`] has an example.
    pub fn timeout(self, timeout: Duration) -> Self {
        let wrong = timeout.is_zero().then_some("a timeout of 0 would fail every call: say how long one may take");
        self.policy(wrong, |policy| policy.timeout = timeout)
    }

    /// How often a call is tried before it has failed, and how long it waits in between: see [`Retry`]. Once unless told.
    /// [`Stream::map_async`] has an example.
    pub fn retry(self, retry: Retry) -> Self {
        let wrong = (retry.attempts == 0).then_some("0 attempts would never call: say at least 1");
        self.policy(wrong, |policy| policy.retry = retry)
    }

    /// Results leave in the order of the rows of their task. A slow call then holds up those behind it.
    /// [`Stream::flat_map_async`] has an example.
    pub fn ordered(self) -> Self {
        self.policy(None, |policy| policy.ordered = true)
    }

    /// The results, and the rows whose call failed after its last attempt: all their columns, and `error` and `attempts`. They
    /// keep their event time. [`Stream::map_async`] has an example.
    pub fn with_failed(self) -> (Stream<U>, Stream<Untyped>) {
        let result = self.policy(None, |policy| policy.on_failure = OnFailure::Stream);
        let failed = result.at.and_then(|at| {
            let mut graph = lock(&result.graph);
            let input = graph.nodes[at.node].inputs.first().and_then(|input| graph.schema(*input));
            match failed_schema(input?) {
                Ok(schema) => {
                    graph.nodes[at.node].outputs.push((FAILED, schema));
                    Some(StreamId { port: FAILED, ..at })
                }
                Err(error) => {
                    let mistake = format!("{}: failed rows: {error}", graph.nodes[at.node].name);
                    graph.mistakes.push(mistake);
                    None
                }
            }
        });
        (Stream::new(result.graph.clone(), result.at), Stream::new(result.graph, failed))
    }

    /// The results; rows whose call failed after its last attempt are counted
    /// ([`OperatorMetrics::failed`](crate::metrics::OperatorMetrics::failed)) and dropped.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Number { value: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("even");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(10))
    ///     .typed::<Number>()
    ///     .map_async(|number| {
    ///         let value = number.value;
    ///         async move { if value % 2 == 0 { Ok(Number { value }) } else { Err("odd") } }
    ///     })
    ///     .drop_failed()
    ///     .sink(out.clone());
    /// let report = job.run().await?;
    /// assert_eq!(out.rows(), 5);
    /// assert_eq!(report.metrics.named("async map").next().unwrap().failed, 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn drop_failed(self) -> Stream<U> {
        let result = self.policy(None, |policy| policy.on_failure = OnFailure::Drop);
        Stream::new(result.graph, result.at)
    }

    /// The results; the first row whose call fails after its last attempt fails the job. With checkpoints the job is
    /// started again then, like after any failure. [`Stream::flat_map_async`] has an example.
    pub fn fail_on_failure(self) -> Stream<U> {
        Stream::new(self.graph, self.at)
    }

    fn policy(self, wrong: Option<&str>, change: impl FnOnce(&mut Policy)) -> Self {
        let Some(at) = self.at else { return self };
        let mut graph = lock(&self.graph);
        let node = &mut graph.nodes[at.node];
        if let Kind::Async(_, policy) = &mut node.kind {
            change(policy);
        }
        let mistake = wrong.map(|wrong| format!("{}: {wrong}", node.name));
        graph.mistakes.extend(mistake);
        drop(graph);
        self
    }
}
