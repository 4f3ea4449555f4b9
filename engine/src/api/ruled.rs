//! Streams by key with rules that every task gets.
//!
//! ```text
//!   rows by key ────────────────► task 0: rules, state per key ─┐
//!          └────────────────────► task 1: rules, state per key ─┼─► results, side output
//!   rules ──to every task───────►   "        "                  ┘
//! ```

use windrow_operators::{
    Port,
    keyed::{BroadcastPlan, BroadcastProcess, NoSide},
    typed::Record,
};

use super::{KeyedStream, Stream};
use crate::plan::graph::{StreamId, stateful};

/// Rows by key, and rules that every task gets.
#[must_use]
pub struct Ruled<T, R> {
    rows: KeyedStream<T>,
    rules: Stream<R>,
}

impl<T: 'static, R: 'static> Ruled<T, R> {
    pub(super) fn new(rows: KeyedStream<T>, rules: Stream<R>) -> Self {
        Self { rows, rules }
    }

    /// Calls a function with the rules, and with state and timers per key.
    ///
    /// Rows and rules come as they arrive, in no order among each other: a row sees the rules that have come to its task
    /// before it, and no row is late. Where that matters a process keeps the row and judges it in a timer, as here. A rule that
    /// has come stays, until [`BroadcastProcess::rule`] takes it away. Rules without event time hold no watermark back.
    ///
    /// The job does not run when a stream lacks a field of its row type, or when there is a [`ttl`](KeyedStream::ttl) and no
    /// event time.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// #[derive(Record)]
    /// struct Limit { price: i64, since: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Alert { auction: i64, above: u64 }
    ///
    /// #[derive(Clone)]
    /// struct Above;
    ///
    /// impl BroadcastProcess for Above {
    ///     type Row = Bid;
    ///     type Rule = Limit;
    ///     type Rules = Option<i64>; // what a task makes of the rules
    ///     type State = (Vec<i64>, u64); // what a key keeps: here its bids until they are judged
    ///     type Output = Alert;
    ///     type Side = NoSide;
    ///
    ///     fn rule(&mut self, limit: LimitView<'_>, rules: &mut Option<i64>) {
    ///         *rules = Some(limit.price);
    ///     }
    ///
    ///     fn row(&mut self, bid: BidView<'_>, _: &Option<i64>, key: &mut KeyedBy<'_, Self>) {
    ///         key.state_mut().0.push(bid.price);
    ///         // When the watermark, which is that of both inputs, is here, the rules that hold now have come.
    ///         key.set_timer(key.time());
    ///     }
    ///
    ///     fn timer(&mut self, _: Timer, rules: &Option<i64>, key: &mut KeyedBy<'_, Self>) {
    ///         let auction = key.key();
    ///         for price in std::mem::take(&mut key.state_mut().0) {
    ///             if rules.is_some_and(|limit| price > limit) {
    ///                 let (_, above) = key.state_mut();
    ///                 *above += 1;
    ///                 let above = *above;
    ///                 key.emit(Alert { auction, above });
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("above-the-limit").parallelism(2);
    /// let out = MemorySink::new();
    /// let limits = job
    ///     .source(MemorySource::records(vec![Limit { price: 1_000, since: Timestamp::default() }]))
    ///     .event_time("since", Watermarks::in_order())
    ///     .fail_on_rejects();
    /// job.source(Nexmark::new().events(5_000).bids())
    ///     .event_time("at", Watermarks::in_order())
    ///     .typed::<Bid>()
    ///     .key_by("auction")
    ///     .with_rules(limits)
    ///     .process(Above)
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert!(out.rows() > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn process<B: BroadcastProcess<Row = T, Rule = R, Side = NoSide>>(self, process: B) -> Stream<B::Output> {
        let at = self.processed(process);
        Stream::new(self.rows.stream.graph, at)
    }

    /// The same with a side output: its results, and its side. As [`KeyedStream::process_with_side`] shows.
    pub fn process_with_side<B>(self, process: B) -> (Stream<B::Output>, Stream<B::Side>)
    where
        B: BroadcastProcess<Row = T, Rule = R, Side: Record>,
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
