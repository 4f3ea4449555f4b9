//! Joins of two keyed streams.

use std::{marker::PhantomData, time::Duration};

use datafusion_expr::Expr;
use windrow_connectors::Untyped;
use windrow_operators::{
    OperatorError, Port, Result as Planned, StreamSchema,
    changes::ChangeJoinPlan,
    join::{Interval, IntervalJoinPlan, JoinType, TemporalJoinPlan, WindowJoinPlan},
    window::Window,
};

use super::{
    Forever, KeyedStream, Stream, Ttl,
    results::late_of,
    stream::{SharedGraph, lock},
};
use crate::plan::graph::{Kind, StreamId, stateful};

type Outputs = (Kind, Vec<(Port, StreamSchema)>);

/// A join that has still to be told which rows of the same key belong together in time:
///
/// | | a left row meets | a result has the event time | late is |
/// |---|---|---|---|
/// | [`window`](Self::window) | the right rows of its window | of the last instant of the window | a row behind which a window has begun or ended: of windows side by side, when its window is closed |
/// | [`within`](Self::within), [`between`](Self::between) | the right rows near it in time | of the later of the two rows | a row that is earlier than the watermark |
/// | [`as_of`](Self::as_of) | the right row that was the newest at its time | of the left row | a row that is earlier than the watermark, on either side |
/// | [`tables`](Self::tables) | the right rows there are now; either may change | of the change | nothing, unless there is a ttl |
///
/// What the rows have to meet besides is said with [`condition`](Self::condition), and which rows without a partner there are with
/// [`kind`](Self::kind). Both are of every join:
///
/// | | kinds | a row with a partner that does not meet the condition |
/// |---|---|---|
/// | [`window`](Self::window), [`within`](Self::within), [`between`](Self::between) | all | looks for another one |
/// | [`as_of`](Self::as_of) | inner, left | has none: the newest one counts, and no older one |
/// | [`tables`](Self::tables) | all | looks for another one, now and whenever a row changes |
///
/// The result has the columns of the left side, then those of the right side; a key column that both call alike is there
/// once. The watermark behind a join is that of the slower side, so what is held depends on how far the sides are apart:
/// [`Watermarks::align_within`](crate::Watermarks::align_within) keeps them together.
///
/// The job does not run when a side has no event time (except for [`tables`](Self::tables)), the keys differ in number or
/// type, or both sides of a join that gives pairs have another column of the same name: `.select(…)` with an `.alias(…)` renames
/// it.
#[must_use]
pub struct Joining<T, U, L = Forever> {
    left: KeyedStream<T, L>,
    right: KeyedStream<U>,
    kind: JoinType,
    condition: Option<Expr>,
}

impl<T: 'static, U: 'static, L> Joining<T, U, L> {
    pub(super) fn new<R>(left: KeyedStream<T, L>, right: KeyedStream<U, R>) -> Self {
        Self { left, right: right.lasting(), kind: JoinType::Inner, condition: None }
    }

    /// Which rows the join gives: pairs only, unless it is said here. All kinds, but for [`as_of`](Self::as_of), which takes
    /// [`JoinType::Inner`] and [`JoinType::Left`]. [`condition`](Self::condition) has an example.
    pub fn kind(self, kind: JoinType) -> Self {
        Self { kind, ..self }
    }

    /// Pairs have to meet a condition besides. A column that is on both sides is written `left("price")`, `right("price")`.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Order { item: i64, amount: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Price { item: i64, cents: i64, since: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let orders = [(1, 4, 0), (2, 900, 1)].map(|(item, amount, s)| Order { item, amount, at: at(s) });
    /// let prices = [(1, 300, 2), (2, 500, 3)].map(|(item, cents, s)| Price { item, cents, since: at(s) });
    /// let job = Job::new("orders-with-prices");
    /// let out = MemorySink::new();
    /// let prices = job.source(MemorySource::records(prices.into())).event_time("since", Watermarks::in_order());
    /// job.source(MemorySource::records(orders.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("item")
    ///     .join(prices.key_by("item"))
    ///     .kind(JoinType::LeftAnti)
    ///     .condition(left("item").eq(right("item")).and(col("amount").lt(col("cents"))))
    ///     .window(Tumbling::of(secs(10)))
    ///     .drop_late()
    ///     .select(["item", "amount"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+--------+
    /// | item | amount |
    /// +------+--------+
    /// | 2    | 900    |
    /// +------+--------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn condition(self, condition: Expr) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// Rows that fall into the same window: `window_start`, `window_end`, the columns of the left side and of the right. Results
    /// come when the watermark has passed the window (and its allowed lateness). Where windows overlap, as hopping ones do, a pair
    /// is in the result of each window that has both rows, and a row without a partner in that of each where it has none; the rows
    /// themselves are kept once. The job does not run with windows that give early results or corrections.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Order { item: i64, amount: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Price { item: i64, cents: i64, since: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let orders = [(1, 4, 0), (1, 6, 12), (2, 1, 13)].map(|(item, amount, s)| Order { item, amount, at: at(s) });
    /// let prices = [(1, 300, 3), (1, 310, 15), (2, 500, 25)].map(|(item, cents, s)| Price { item, cents, since: at(s) });
    /// let job = Job::new("orders-with-prices");
    /// let out = MemorySink::new();
    /// let prices = job.source(MemorySource::records(prices.into())).event_time("since", Watermarks::in_order());
    /// job.source(MemorySource::records(orders.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("item")
    ///     .join(prices.key_by("item"))
    ///     .window(Tumbling::of(secs(10)))
    ///     .drop_late()
    ///     .select(["item", "amount", "cents"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+--------+-------+
    /// | item | amount | cents |
    /// +------+--------+-------+
    /// | 1    | 4      | 300   |
    /// | 1    | 6      | 310   |
    /// +------+--------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn window(self, window: Window) -> Joined<T, U> {
        self.plan(&window.to_string(), |join, left, right, on| {
            refuse_ttl(join.left.ttl.or(join.right.ttl), "a window forgets its rows by itself")?;
            Ok(stateful(WindowJoinPlan::new(left, right, on, window.clone(), join.kind, join.condition.as_ref())?))
        })
    }

    /// Rows that are near each other: the right one at most `before` earlier and at most `after` later than the left one, both
    /// included, in whole microseconds. A pair leaves as soon as both rows are there, a row without a partner (in an outer join)
    /// when none can come any more.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Order { order: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Payment { order: i64, paid: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let orders = [(1, 0), (2, 10)].map(|(order, s)| Order { order, at: at(s) });
    /// let payments = [(2, 12), (1, 60)].map(|(order, s)| Payment { order, paid: at(s) });
    /// let job = Job::new("paid-in-time");
    /// let out = MemorySink::new();
    /// let payments = job.source(MemorySource::records(payments.into())).event_time("paid", Watermarks::in_order());
    /// job.source(MemorySource::records(orders.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("order")
    ///     .join(payments.key_by("order"))
    ///     .kind(JoinType::Left)
    ///     .within(secs(0), secs(30))
    ///     .drop_late()
    ///     .select([col("order"), col("paid").is_not_null().alias("paid")])
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +-------+-------+
    /// | order | paid  |
    /// +-------+-------+
    /// | 2     | true  |
    /// | 1     | false |
    /// +-------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn within(self, before: Duration, after: Duration) -> Joined<T, U> {
        self.between(Interval::around(before, after))
    }

    /// The same with any bounds, in microseconds: `Interval::between(1, 4_000_000)` is after the left row, within four seconds.
    /// The job does not run when the lower bound is above the upper one.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Alarm { room: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Visit { room: i64, came: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let alarms = vec![Alarm { room: 1, at: at(10) }, Alarm { room: 1, at: at(20) }];
    /// let visits = vec![Visit { room: 1, came: at(10) }, Visit { room: 1, came: at(22) }];
    /// let job = Job::new("after-the-alarm");
    /// let out = MemorySink::new();
    /// let visits = job.source(MemorySource::records(visits)).event_time("came", Watermarks::in_order());
    /// job.source(MemorySource::records(alarms))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("room")
    ///     .join(visits.key_by("room"))
    ///     .between(Interval::between(1, 4_000_000)) // later than the alarm, by four seconds at most
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+----------------------+----------------------+
    /// | room | at                   | came                 |
    /// +------+----------------------+----------------------+
    /// | 1    | 1970-01-01T00:00:20Z | 1970-01-01T00:00:22Z |
    /// +------+----------------------+----------------------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn between(self, interval: Interval) -> Joined<T, U> {
        self.plan(&interval.to_string(), |join, left, right, on| {
            refuse_ttl(join.left.ttl.or(join.right.ttl), "rows are forgotten when the interval is over")?;
            Ok(stateful(IntervalJoinPlan::new(left, right, on, interval, join.kind, join.condition.as_ref())?))
        })
    }

    /// Each left row with the row of the right side that was the newest at its time: a rate of exchange, an address. Inner or
    /// left. With a [`ttl`](KeyedStream::ttl) on the right side a row is nobody's partner after that time; without it the newest
    /// row of every key is kept for ever. A result leaves when the watermark of both sides has passed the left row. Of right rows
    /// of one key and time the one counts that sorts last by its columns.
    ///
    /// A [`condition`](Self::condition) is asked of the newest row and of no older one, as in SQL's `FOR SYSTEM_TIME AS OF … ON …`:
    /// where it is not met the left row has no partner.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Order { item: i64, amount: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Price { item: i64, cents: i64, since: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let orders = [(1, 4, 5), (1, 6, 20), (2, 1, 20)].map(|(item, amount, s)| Order { item, amount, at: at(s) });
    /// let prices = [(1, 300, 0), (1, 310, 20), (2, 500, 25)].map(|(item, cents, s)| Price { item, cents, since: at(s) });
    /// let job = Job::new("orders-with-prices");
    /// let out = MemorySink::new();
    /// let prices = job.source(MemorySource::records(prices.into())).event_time("since", Watermarks::in_order());
    /// job.source(MemorySource::records(orders.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("item")
    ///     .join(prices.key_by("item"))
    ///     .kind(JoinType::Left)
    ///     .as_of()
    ///     .drop_late()
    ///     .select(["item", "amount", "cents"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+--------+-------+
    /// | item | amount | cents |
    /// +------+--------+-------+
    /// | 1    | 4      | 300   |
    /// | 1    | 6      | 310   |
    /// | 2    | 1      |       |
    /// +------+--------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With a condition: a price holds from an amount on.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Order { item: i64, amount: i64, at: Timestamp }
    ///
    /// #[derive(Record)]
    /// struct Price { item: i64, least: i64, cents: i64, since: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |s: u64| Timestamp::default() + secs(s);
    /// let orders = [(4, 5), (9, 20), (6, 25)].map(|(amount, s)| Order { item: 1, amount, at: at(s) });
    /// let prices = [(1, 300, 0), (8, 250, 20)].map(|(least, cents, s)| Price { item: 1, least, cents, since: at(s) });
    /// let job = Job::new("orders-with-prices");
    /// let out = MemorySink::new();
    /// let prices = job.source(MemorySource::records(prices.into())).event_time("since", Watermarks::in_order());
    /// job.source(MemorySource::records(orders.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("item")
    ///     .join(prices.key_by("item"))
    ///     .kind(JoinType::Left)
    ///     .condition(col("amount").gt_eq(col("least")))
    ///     .as_of()
    ///     .drop_late()
    ///     .select(["amount", "cents"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +--------+-------+
    /// | amount | cents |
    /// +--------+-------+
    /// | 4      | 300   |
    /// | 9      | 250   |
    /// | 6      |       |
    /// +--------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_of(self) -> Joined<T, U> {
        self.plan("as of", |join, left, right, on| {
            refuse_ttl(join.left.ttl, "rows of the left side are forgotten as they leave; say it of the right side")?;
            let condition = join.condition.as_ref();
            Ok(stateful(TemporalJoinPlan::new(left, right, on, join.kind, condition, join.right.ttl)?))
        })
    }

    fn changes(self) -> Joined<T, U> {
        self.plan("tables", |join, left, right, on| {
            refuse_ttl(join.right.ttl, "say it of the left side, and it counts for both")?;
            let condition = join.condition.as_ref();
            Ok(stateful(ChangeJoinPlan::new(left, right, on, join.kind, condition, join.left.ttl)?))
        })
    }

    fn plan(
        self,
        what: &str,
        build: impl FnOnce(&Self, &StreamSchema, &StreamSchema, &[(&str, &str)]) -> Planned<Outputs>,
    ) -> Joined<T, U> {
        let (left, right) = (self.left.key.names(), self.right.key.names());
        let name = self.left.name(&format!("{} join, {what}", self.kind));
        let at = self.left.stream.then_both(&self.right.stream, &name, |left_schema, right_schema| {
            if left.len() != right.len() {
                return Err(OperatorError::Plan(format!(
                    "the left side is keyed by {} and the right side by {}: a join needs as many columns on both sides",
                    left.join(", "),
                    right.join(", ")
                )));
            }
            let on: Vec<(&str, &str)> = left.iter().copied().zip(right.iter().copied()).collect();
            build(&self, left_schema, right_schema, &on)
        });
        Joined { graph: self.left.stream.graph, at, rows: PhantomData }
    }
}

impl<T: 'static, U: 'static> Joining<T, U> {
    /// Tables that change, row by row: both sides are streams of changes (see [`KeyedStream::latest`]), and so is the
    /// result. Its key is that of both sides, in a semi or anti join that of the left one. With a [`ttl`](KeyedStream::ttl) on the
    /// left side what has not changed for that time is forgotten, on both sides. Without it the rows of both tables are kept for
    /// ever, and nothing is late.
    ///
    /// With a [`condition`](Self::condition) a pair is there as long as both rows meet it: it comes and goes as their columns change.
    /// All rows of one key are looked at whenever one of them changes.
    ///
    /// When the columns that are joined by are not part of the keys of both sides, one task does all the work: an update may then
    /// move a row from one value of them to another. In many tasks, one would delete what the row was in, and another insert
    /// what it is in now, and when both changes are of one key of the result (a left row that has no partner before and after)
    /// nothing says which of them comes first. So make what is joined by a part of the keys, `.key_by(["order", "customer"])`,
    /// where a row never moves.
    ///
    /// The job does not run as a full join in which a row of each side without a partner could have the same key: of a column of
    /// the keys that is never null there has to be one, and with a condition it is not called alike on both sides.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let table = |job: &Job, rows, name| {
    ///     job.source(Sequence::new(rows))
    ///         .event_time("at", Watermarks::in_order())
    ///         .select([(col("value") % lit(3)).alias("item"), col("value").alias(name)])
    ///         .key_by("item")
    ///         .latest()
    /// };
    /// let job = Job::new("stock-and-prices");
    /// let out = MemoryTable::new();
    /// let (stock, prices) = (table(&job, 5, "stock"), table(&job, 2, "price"));
    /// stock.key_by("item").join(prices.key_by("item")).kind(JoinType::Left).tables().sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+-------+-------+
    /// | item | stock | price |
    /// +------+-------+-------+
    /// | 0    | 3     | 0     |
    /// | 1    | 4     | 1     |
    /// | 2    | 2     |       |
    /// +------+-------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The rows that have a partner, once each:
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let table = |job: &Job, rows, name| {
    ///     job.source(Sequence::new(rows))
    ///         .event_time("at", Watermarks::in_order())
    ///         .select([(col("value") % lit(3)).alias("item"), col("value").alias(name)])
    ///         .key_by("item")
    ///         .latest()
    /// };
    /// let job = Job::new("items-with-a-price");
    /// let out = MemoryTable::new();
    /// let (stock, prices) = (table(&job, 5, "stock"), table(&job, 2, "price"));
    /// stock
    ///     .key_by("item")
    ///     .join(prices.key_by("item"))
    ///     .kind(JoinType::LeftSemi)
    ///     .condition(col("price").gt(lit(0)))
    ///     .tables()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+-------+
    /// | item | stock |
    /// +------+-------+
    /// | 1    | 4     |
    /// +------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tables(self) -> Stream<Untyped> {
        self.changes().drop_late()
    }
}

impl<T: 'static, U: 'static> Joining<T, U, Ttl> {
    /// Tables that change, row by row, of which what has not changed for a time is forgotten, on both sides. Rows that are more
    /// than that behind the watermark are late.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let table = |job: &Job, name| {
    ///     job.source(Sequence::new(4).step(60_000_000)) // a number a minute
    ///         .event_time("at", Watermarks::in_order())
    ///         .select([col("at"), (col("value") % lit(2)).alias("item"), col("value").alias(name)])
    ///         .select([col("item"), col(name)])
    ///         .key_by("item")
    ///         .latest()
    /// };
    /// let job = Job::new("stock-and-prices");
    /// let (now, log) = (MemoryTable::new(), MemorySink::new());
    /// let (stock, prices) = (table(&job, "stock"), table(&job, "price"));
    /// let joined = stock.key_by("item").ttl(hours(1)).join(prices.key_by("item")).tables().drop_late();
    /// joined.clone().sink(now.clone());
    /// joined.changelog().filter_expr(col("op").eq(lit("delete"))).sink(log.clone());
    /// job.run().await?;
    /// assert_eq!((now.rows(), log.rows()), (0, 2), "at the end of the input all go");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tables(self) -> Joined<T, U> {
        self.changes()
    }
}

/// A time to live that would do nothing is a mistake.
fn refuse_ttl(ttl: Option<Duration>, why: &str) -> Planned<()> {
    match ttl {
        Some(_) => Err(OperatorError::Plan(format!(".ttl(…) says nothing here: {why}"))),
        None => Ok(()),
    }
}

/// The result of a join, once it is said what becomes of rows that come too late: as [`Results`](super::Results), with two
/// sides.
#[must_use = "there is no stream before it is said what becomes of late rows: .drop_late() or .with_late()"]
pub struct Joined<T, U> {
    graph: SharedGraph,
    at: Option<StreamId>,
    rows: PhantomData<fn() -> (T, U)>,
}

impl<T: 'static, U: 'static> Joined<T, U> {
    /// The results, the late rows of the left side and those of the right, as they came.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("pairs");
    /// let (out, late) = (MemorySink::new(), MemorySink::new());
    /// let numbers = |disorder| job.source(Nexmark::new().events(5_000).out_of_order(disorder).bids());
    /// let left = numbers(secs(1)).event_time("at", Watermarks::in_order()); // in order, it says
    /// let right = numbers(secs(0)).event_time("at", Watermarks::in_order());
    /// let (left, right) = (left.select([col("auction")]), right.select([col("auction"), col("price")]));
    /// let joined = left.key_by("auction").join(right.key_by("auction")).within(millis(1), millis(1));
    /// let (pairs, late_left, late_right) = joined.with_late();
    /// pairs.sink(out.clone());
    /// late_left.sink(late.clone());
    /// late_right.discard();
    /// let report = job.run().await?;
    /// let join = report.metrics.named("join").next().unwrap();
    /// assert_eq!(join.rows_in, 2 * 4_600);
    /// assert!(join.balances());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_late(self) -> (Stream<Untyped>, Stream<T>, Stream<U>) {
        let late = |port| self.at.and_then(|at| late_of(&self.graph, at, Some(StreamId { port, ..at })));
        let left = late(Port::LATE);
        // Of a join that has no late rows it is said once.
        let right = left.and_then(|_| late(Port::LATE_RIGHT));
        let graph = || self.graph.clone();
        (Stream::new(graph(), self.at), Stream::new(graph(), left), Stream::new(graph(), right))
    }

    /// The results; late rows are counted ([`OperatorMetrics::late`](crate::metrics::OperatorMetrics::late)) and dropped.
    /// [`Joining::within`] has an example.
    pub fn drop_late(self) -> Stream<Untyped> {
        if let Some(at) = self.at {
            let mut graph = lock(&self.graph);
            graph.drop_stream(StreamId { port: Port::LATE, ..at });
            graph.drop_stream(StreamId { port: Port::LATE_RIGHT, ..at });
        }
        Stream::new(self.graph, self.at)
    }
}
