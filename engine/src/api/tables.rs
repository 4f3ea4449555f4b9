//! Tables that change, made of streams by key.
//!
//! ```text
//!   rows by key ──► .aggregate([…])  values of all rows so far ─┐
//!               ──► .latest()        the newest row ────────────┴─► changes by key ─► .filter_expr, .select, .join(…).tables()
//!                                                                                   ─► a sink of changes, or .changelog()
//! ```

use datafusion_expr::Expr;
use windrow_connectors::Untyped;
use windrow_operators::changes::{UpdatingPlan, UpsertPlan};

use super::{KeyedStream, Results, Stream, Ttl};
use crate::plan::graph::stateful;

impl<T: 'static> KeyedStream<T> {
    /// Any aggregates over all rows of a key so far: a table that changes. What leaves is a stream of
    /// [changes](crate::operators::changes), for a sink that takes them, such as
    /// [`MemoryTable`](windrow_connectors::MemoryTable) or the console, or for
    /// [`Stream::changelog`](super::Stream::changelog).
    ///
    /// A batch gives one change for each of its keys: how many changes there are depends on how rows come, the last one of a
    /// key does not. The values of every key are kept for ever, and nothing is late, unless there is a [`ttl`](Self::ttl).
    ///
    /// The job does not run when the stream is one of changes itself.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("bids-per-auction");
    /// let table = MemoryTable::new();
    /// job.source(Nexmark::new().events(500).bids())
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("auction")
    ///     .aggregate([count().alias("bids"), max(col("price")).alias("top")])
    ///     .filter_expr(col("bids").gt(lit(20)))
    ///     .sink(table.clone());
    /// job.run().await?;
    /// assert_eq!(table.to_string(), "\
    /// +---------+------+----------+
    /// | auction | bids | top      |
    /// +---------+------+----------+
    /// | 1000    | 232  | 84967248 |
    /// +---------+------+----------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = Expr>) -> Stream<Untyped> {
        self.aggregated(aggregates).drop_late()
    }

    /// The newest row of each key by event time: a table that changes. What leaves is a stream of
    /// [changes](crate::operators::changes). Of rows of one time the one counts whose columns sort last; without event time the
    /// one that came last. An older row is dropped and counts as processed.
    ///
    /// With a [`ttl`](Self::ttl) the row of a key goes when the watermark is more than that past it, as a delete with the row as it
    /// was, and at the end of the input all go; a row that is itself so far behind the watermark is late. Without it the row of every
    /// key is kept for ever, and nothing is late.
    ///
    /// The job does not run when the stream is one of changes itself.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Price { item: i64, cents: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let prices = [(1, 300, 10), (2, 500, 20), (1, 250, 40), (1, 999, 30)]; // the last one is an old one
    /// let prices = prices.map(|(item, cents, at)| Price { item, cents, at: Timestamp::from_micros(at) });
    /// let job = Job::new("prices");
    /// let (table, log) = (MemoryTable::new(), MemorySink::new());
    /// let newest = job
    ///     .source(MemorySource::records(prices.into()).batch_rows(2))
    ///     .event_time("at", Watermarks::out_of_order(millis(1)))
    ///     .key_by("item")
    ///     .latest();
    /// newest.clone().select(["item", "cents"].map(col)).sink(table.clone());
    /// newest.changelog().select(["op", "item", "cents"].map(col)).sink(log.clone());
    /// job.run().await?;
    /// assert_eq!(table.to_string(), "\
    /// +------+-------+
    /// | item | cents |
    /// +------+-------+
    /// | 1    | 250   |
    /// | 2    | 500   |
    /// +------+-------+");
    /// assert_eq!(log.to_string(), "\
    /// +--------+------+-------+
    /// | op     | item | cents |
    /// +--------+------+-------+
    /// | insert | 1    | 300   |
    /// | insert | 2    | 500   |
    /// | update | 1    | 250   |
    /// +--------+------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With a [`ttl`](Self::ttl) a key goes, as a delete, when it has had no row for that time. Who has been seen in the last
    /// minute:
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Click { user: i64, page: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let clicks = [(7, 1, 0), (8, 1, 5), (7, 2, 90)];
    /// let clicks = clicks.map(|(user, page, s)| Click { user, page, at: Timestamp::default() + secs(s) });
    /// let job = Job::new("online");
    /// let log = MemorySink::new();
    /// job.source(MemorySource::records(clicks.into()).batch_rows(1))
    ///     .event_time("at", Watermarks::out_of_order(secs(30)))
    ///     .key_by("user")
    ///     .ttl(mins(1))
    ///     .latest()
    ///     .drop_late()
    ///     .changelog()
    ///     .select(["op", "user", "page"].map(col))
    ///     .sink(log.clone());
    /// job.run().await?;
    /// assert_eq!(log.to_string(), "\
    /// +--------+------+------+
    /// | op     | user | page |
    /// +--------+------+------+
    /// | insert | 7    | 1    |
    /// | insert | 8    | 1    |
    /// | update | 7    | 2    |
    /// | delete | 8    | 1    |
    /// | delete | 7    | 2    |
    /// +--------+------+------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn latest(self) -> Stream<Untyped> {
        self.latest_but(None).drop_late()
    }

    /// The same, but a row that meets a condition takes its key away, as a delete. Then rows that are earlier than the watermark
    /// are late, because it is not remembered for longer that a key went away; with a [`ttl`](Self::ttl) it is remembered for so
    /// long, and only rows that are more than that behind the watermark are late.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("stock");
    /// let table = MemoryTable::new();
    /// job.source(Sequence::new(10))
    ///     .event_time("at", Watermarks::in_order())
    ///     .select([(col("value") % lit(3)).alias("item"), col("value").alias("stock")])
    ///     .key_by("item")
    ///     .latest_unless(col("stock").gt(lit(8)))
    ///     .drop_late()
    ///     .sink(table.clone());
    /// job.run().await?;
    /// assert_eq!(table.to_string(), "\
    /// +------+-------+
    /// | item | stock |
    /// +------+-------+
    /// | 1    | 7     |
    /// | 2    | 8     |
    /// +------+-------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn latest_unless(self, deleted: Expr) -> Results<T> {
        self.latest_but(Some(deleted))
    }
}

impl<T: 'static> KeyedStream<T, Ttl> {
    /// Any aggregates over all rows of a key so far, as a table that changes and of which a key goes when it has had no row for a
    /// time. A row that is more than that behind the watermark is late. At the end of the input all keys go.
    /// [`KeyedStream::latest`] has an example with a time to live.
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = Expr>) -> Results<T> {
        self.aggregated(aggregates)
    }

    /// The newest row of each key, as a table of which a key goes when it has had no row for a time. A row that is more than that
    /// behind the watermark is late. At the end of the input all keys go. [`KeyedStream::latest`] without one has an example of this.
    pub fn latest(self) -> Results<T> {
        self.latest_but(None)
    }

    /// The same, but a row that meets a condition takes its key away, as a delete, which is remembered as long as a row would be.
    /// [`KeyedStream::latest_unless`] has an example.
    pub fn latest_unless(self, deleted: Expr) -> Results<T> {
        self.latest_but(Some(deleted))
    }
}

impl<T: 'static, L> KeyedStream<T, L> {
    fn aggregated(self, aggregates: impl IntoIterator<Item = Expr>) -> Results<T> {
        let aggregates: Vec<Expr> = aggregates.into_iter().collect();
        let at = self.stream.then(&self.name("aggregate"), |schema| {
            Ok(stateful(UpdatingPlan::new(schema, &self.key.names(), &aggregates, self.ttl)?))
        });
        Results::late_on_port(self.stream.graph, at)
    }

    fn latest_but(self, deleted: Option<Expr>) -> Results<T> {
        let at = self.stream.then(&self.name("latest"), |schema| {
            Ok(stateful(UpsertPlan::new(schema, &self.key.names(), deleted.as_ref(), self.ttl)?))
        });
        Results::late_on_port(self.stream.graph, at)
    }
}
