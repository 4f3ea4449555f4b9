//! Streams by key, as rows arrive.
//!
//! ```text
//!   .key_by("user").on_arrival() ──► OnArrival ── .process(…), .reduce, .fold ──► Stream     no sort, nothing is late
//! ```

use serde::{Serialize, de::DeserializeOwned};
use windrow_operators::{
    Port,
    keyed::{Emit, NoSide, Process, ProcessPlan, State, fold, reduce},
    typed::Record,
};

use super::{KeyedStream, Stream};
use crate::plan::graph::{StreamId, stateful};

/// A stream by key whose rows are taken as they arrive and not in order of event time.
///
/// Nothing waits for the watermark and nothing is late, and the stream needs no event time; but what the function answers may
/// depend on the order of arrival, and timers of event time fire at watermarks only. A time to live is said
/// [before](KeyedStream::ttl).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windrow::prelude::*;
///
/// #[derive(Clone, Record, Serialize, Deserialize)]
/// struct Bid { auction: i64, price: i64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("highest-so-far");
/// let out = MemorySink::new();
/// job.source(Nexmark::new().events(500).bids()) // without event time
///     .typed::<Bid>()
///     .key_by("auction")
///     .on_arrival()
///     .reduce(|top, bid| if bid.price > top.price { bid } else { top })
///     .sink(out.clone());
/// job.run().await?;
/// assert_eq!(out.rows(), 460, "one for each bid");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct OnArrival<T> {
    rows: KeyedStream<T>,
}

impl<T: 'static> OnArrival<T> {
    pub(super) fn new(rows: KeyedStream<T>) -> Self {
        Self { rows }
    }

    /// Calls a function with state and timers per key for each row as it arrives: [`KeyedStream::process`] without the order, which
    /// has an example of a function.
    ///
    /// The job does not run when the stream lacks a field of the function's row type, or there is a time to live and no event
    /// time. It fails when a state that is restored cannot be read.
    pub fn process<P: Process<Row = T, Side = NoSide>>(self, process: P) -> Stream<P::Output> {
        let at = self.processed(process);
        Stream::new(self.rows.stream.graph, at)
    }

    /// The same with a side output: its results, and its side. As [`KeyedStream::process_with_side`] shows.
    pub fn process_with_side<P>(self, process: P) -> (Stream<P::Output>, Stream<P::Side>)
    where
        P: Process<Row = T, Side: Record>,
    {
        let at = self.processed(process);
        let side = at.map(|at| StreamId { port: Port::side(0), ..at });
        (Stream::new(self.rows.stream.graph.clone(), at), Stream::new(self.rows.stream.graph, side))
    }

    /// Combines each row with the result so far of its key and emits the new result: [`KeyedStream::reduce`] without the order.
    /// [`OnArrival`] has an example.
    pub fn reduce<F>(self, combine: F) -> Stream<T>
    where
        T: Record + Clone + Send + Serialize + DeserializeOwned,
        T: for<'a> TryFrom<T::View<'a>, Error: std::fmt::Display>,
        F: Fn(T, T) -> T + Send + Sync + 'static,
    {
        self.process(reduce(combine))
    }

    /// Folds the rows of a key into a state and emits any number of records for each row: [`KeyedStream::fold`] without the
    /// order.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Number { value: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("every-third");
    /// let out = MemorySink::new();
    /// job.source(Sequence::new(10)) // without event time
    ///     .select([col("value"), (col("value") % lit(2)).alias("odd")])
    ///     .typed::<Number>()
    ///     .key_by("odd")
    ///     .on_arrival()
    ///     .fold::<u64, Number, _>(|seen, number, out| {
    ///         *seen += 1;
    ///         if seen.is_multiple_of(3) {
    ///             out.emit(Number { value: number.value });
    ///         }
    ///     })
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 2, "4 of the even and 5 of the odd numbers");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fold<S, U, F>(self, step: F) -> Stream<U>
    where
        T: Record,
        S: State,
        U: Record,
        F: for<'a> Fn(&mut S, T::View<'a>, &mut Emit<'_, U>) + Send + Sync + 'static,
    {
        self.process(fold(step))
    }

    fn processed<P: Process<Row = T>>(&self, process: P) -> Option<StreamId> {
        let rows = &self.rows;
        rows.stream.then(&rows.name("process"), |schema| {
            Ok(stateful(ProcessPlan::new(schema, &rows.key.names(), process, rows.ttl)?))
        })
    }
}
