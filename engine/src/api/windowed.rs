//! Windows, whose result has still to be named.

use datafusion_expr::Expr;
use windrow_operators::{
    OperatorError, StreamSchema,
    count::{Count, CountPlan},
    session::{Session, SessionPlan},
    window::{AggregatePlan, TopPlan, Window},
};

use super::{Key, KeyedStream, Results, Stream};
use crate::plan::graph::stateful;

/// What `.window(…)` takes: windows on slices ([`Tumbling`](windrow_operators::window::Tumbling),
/// [`Hopping`](windrow_operators::window::Hopping), [`Cumulating`](windrow_operators::window::Cumulating),
/// [`Calendar`](windrow_operators::window::Calendar), and [`Global`](windrow_operators::window::Global), which is all time), a
/// [`Session`] or a [`Count`].
///
/// ```
/// use windrow::{api::WindowKind, prelude::*};
/// let kinds: [WindowKind; 7] = [
///     Tumbling::of(secs(10)).offset(secs(5)).into(),
///     Hopping::of(mins(10), mins(2)).into(),
///     Cumulating::of(hours(24), hours(1)).into(),
///     Calendar::days("Europe/Berlin").allowed_lateness(mins(5)).into(),
///     Session::gap(mins(30)).into(),
///     Count::of(100).every(10).into(),
///     Global::every(secs(10)).into(),
/// ];
/// assert_eq!(kinds[1].to_string(), "hopping 10min every 2min");
/// ```
#[derive(Clone, Debug)]
pub enum WindowKind {
    /// Windows whose bounds do not depend on the rows.
    Slices(Window),
    /// Windows that end when no row of the key has come for a while.
    Session(Session),
    /// Windows of so many rows of a key, in order of event time.
    Count(Count),
}

impl From<Window> for WindowKind {
    fn from(window: Window) -> Self {
        Self::Slices(window)
    }
}

impl From<Session> for WindowKind {
    fn from(session: Session) -> Self {
        Self::Session(session)
    }
}

impl From<Count> for WindowKind {
    fn from(count: Count) -> Self {
        Self::Count(count)
    }
}

impl std::fmt::Display for WindowKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Slices(window) => window.fmt(f),
            Self::Session(session) => session.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Windows whose result has still to be named.
#[must_use]
pub struct Windowed<T> {
    pub(super) stream: Stream<T>,
    pub(super) key: Key,
    pub(super) window: WindowKind,
}

impl<T: 'static> Windowed<T> {
    /// Any DataFusion aggregates, one row per key and window: `window_start`, `window_end`, the key, the aggregates; the event
    /// time of the row is the last instant of the window. A window gives its result once, when the watermark passes its end (and
    /// the allowed lateness); one without rows gives none. Aggregates that depend on the order of rows (`first_value`,
    /// `array_agg`, …) follow the order of arrival, except in a [`Count`] window; an integer `sum` wraps on overflow. An aggregate
    /// of your own is [`custom`](crate::operators::typed::custom).
    ///
    /// With `.corrections()`, `.early_every(…)` and `.early_rows(…)` windows and sessions give more than one result, marked by the
    /// column `revision` behind `window_end`. Of a window and key the greatest is the answer; a result of a session replaces
    /// those of its key that lie within its bounds.
    ///
    /// In a [`Count`] window `window_start` and `window_end` are the event times of its first and of its last row, and one that is
    /// not full gives nothing.
    ///
    /// The job does not run when the stream has no event time or is one of changes, a column does not exist, an expression is
    /// not an aggregate, or the window cannot be.
    ///
    /// ```
    /// use windrow::{api::WindowKind, prelude::*};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let windows = |job: &Job, window: WindowKind| {
    ///     let out = MemorySink::new();
    ///     job.source(Sequence::new(60).step(1_000_000)) // a minute, a number a second
    ///         .event_time("at", Watermarks::out_of_order(secs(5)))
    ///         .select([col("value"), (col("value") % lit(2)).alias("odd")])
    ///         .key_by("odd")
    ///         .window(window)
    ///         .aggregate([count(), max(col("value")).alias("top")])
    ///         .drop_late()
    ///         .select(["odd", "count", "top"].map(col))
    ///         .sink(out.clone());
    ///     out
    /// };
    /// let job = Job::new("windows");
    /// let out = windows(&job, Tumbling::of(secs(40)).into());
    /// let hopping = windows(&job, Hopping::of(secs(20), secs(10)).into());
    /// let sessions = windows(&job, Session::gap(secs(3)).into());
    /// let counts = windows(&job, Count::of(20).into());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +-----+-------+-----+
    /// | odd | count | top |
    /// +-----+-------+-----+
    /// | 0   | 20    | 38  |
    /// | 1   | 20    | 39  |
    /// | 0   | 10    | 58  |
    /// | 1   | 10    | 59  |
    /// +-----+-------+-----+");
    /// assert_eq!(hopping.rows(), 2 * 7, "from [-10 s, 10 s) to [50 s, 70 s)");
    /// assert_eq!(sessions.rows(), 2, "nobody was silent for three seconds");
    /// assert_eq!(counts.rows(), 2, "20 of 30 rows: the others do not fill a window");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The last twenty seconds, every ten, and visits, with corrections for a row that comes late:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use windrow::{
    ///     api::WindowKind,
    ///     arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    ///     arrow::datatypes::{Int64Type, TimestampMicrosecondType},
    ///     prelude::*,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let at = |seconds: &[i64]| {
    ///     let n: ArrayRef = Arc::new(Int64Array::from(vec![1; seconds.len()]));
    ///     let at = Timestamp::column(seconds.iter().map(|second| second * 1_000_000).collect());
    ///     RecordBatch::try_from_iter([("n", n), ("at", at)]).unwrap()
    /// };
    /// let clicks = [at(&[1, 7]), at(&[21]), at(&[9])]; // the last one comes late
    /// let job = Job::new("corrected");
    /// let counts = |window: WindowKind| {
    ///     let out = MemorySink::new();
    ///     job.source(MemorySource::new(clicks[0].schema(), vec![clicks.to_vec()]))
    ///         .event_time("at", Watermarks::in_order())
    ///         .window(window)
    ///         .aggregate([count()])
    ///         .drop_late()
    ///         .select(["window_start", "window_end", "revision", "count"].map(col))
    ///         .sink(out.clone());
    ///     out
    /// };
    /// let hopping = counts(Hopping::of(secs(20), secs(10)).allowed_lateness(secs(30)).corrections().into());
    /// let visits = counts(Session::gap(secs(13)).allowed_lateness(secs(30)).corrections().into());
    /// job.run().await?;
    ///
    /// // (from, to, revision, count), in seconds.
    /// let rows = |out: &MemorySink| {
    ///     let mut rows = Vec::new();
    ///     for batch in out.batches() {
    ///         let second = |column: usize, row| batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row) / 1_000_000;
    ///         let number = |column: usize, row| batch.column(column).as_primitive::<Int64Type>().value(row);
    ///         rows.extend((0..batch.num_rows()).map(|row| (second(0, row), second(1, row), number(2, row), number(3, row))));
    ///     }
    ///     rows
    /// };
    /// assert_eq!(rows(&hopping), [
    ///     (-10, 10, 0, 2), (0, 20, 0, 2), // when 21 has come
    ///     (-10, 10, 1, 3), (0, 20, 1, 3), // corrected by 9
    ///     (10, 30, 0, 1), (20, 40, 0, 1),
    /// ]);
    /// assert_eq!(rows(&visits), [
    ///     (1, 20, 0, 2),
    ///     (1, 34, 1, 4), // 9 makes one visit of it and the one that began at 21: this replaces what lies within
    /// ]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = Expr>) -> Results<T> {
        let aggregates: Vec<Expr> = aggregates.into_iter().collect();
        let key = self.key.names();
        let at = match self.window.clone() {
            WindowKind::Count(count) => {
                let keyed = KeyedStream::new(self.stream.clone(), self.key.clone());
                return keyed.in_order_then(&format!("window {count}"), |schema| {
                    Ok(stateful(CountPlan::new(schema, &key, count, &aggregates)?))
                });
            }
            WindowKind::Slices(window) => self.stream.then(&self.name("window"), |schema| {
                Ok(stateful(AggregatePlan::new(schema, &key, window, &aggregates)?))
            }),
            WindowKind::Session(session) => self.stream.then(&self.name("window"), |schema| {
                Ok(stateful(SessionPlan::new(schema, &key, session, &aggregates)?))
            }),
        };
        Results::late_on_port(self.stream.graph, at)
    }

    /// The `n` rows of each window (and key) with the greatest value in the column `by`: `window_start`, `window_end`,
    /// `rank` from 1, and the columns of the row. Equal values are ordered by the other columns. Rows that are results of a window
    /// of the same bounds themselves are ranked within it: the busiest three auctions of every ten seconds. Results of windows that
    /// overlap are ranked in `Tumbling` windows of their step: the event time of a result is the last instant of its window, which
    /// lies in several windows that overlap, but in one of those.
    ///
    /// The job does not run when `n` is 0, the column does not exist or has no order, or the window is a [`Session`] or a [`Count`].
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let job = Job::new("hot-items");
    /// let out = MemorySink::new();
    /// let window = Tumbling::of(secs(10));
    /// job.source(Nexmark::new().events(100_000).event_rate(5_000).bids())
    ///     .event_time("at", Watermarks::in_order())
    ///     .key_by("auction")
    ///     .window(window.clone())
    ///     .aggregate([count().alias("bids")])
    ///     .drop_late()
    ///     .window(window) // of all auctions: no key
    ///     .top(3, "bids")
    ///     .drop_late()
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.rows(), 2 * 3, "two windows of ten seconds");
    /// # Ok(())
    /// # }
    /// ```
    pub fn top(self, n: usize, by: &str) -> Results<T> {
        self.greatest(&format!("top {n} by {by} of"), |schema, key, window| TopPlan::new(schema, key, window, n, by))
    }

    /// The same, and all rows whose value equals that of the last of the `n`, ranked on: of those with the greatest value
    /// [`top`](Self::top) gives one, and this all.
    ///
    /// ```
    /// use windrow::prelude::*;
    ///
    /// #[derive(Record)]
    /// struct Shot { player: i64, points: i64, at: Timestamp }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// let shots = [(1, 7), (2, 9), (3, 9)].map(|(player, points)| Shot { player, points, at: Timestamp::default() });
    /// let job = Job::new("best");
    /// let out = MemorySink::new();
    /// job.source(MemorySource::records(shots.into()))
    ///     .event_time("at", Watermarks::in_order())
    ///     .window(Tumbling::of(secs(10)))
    ///     .top_with_ties(1, "points")
    ///     .drop_late()
    ///     .select(["rank", "player"].map(col))
    ///     .sink(out.clone());
    /// job.run().await?;
    /// assert_eq!(out.to_string(), "\
    /// +------+--------+
    /// | rank | player |
    /// +------+--------+
    /// | 1    | 2      |
    /// | 2    | 3      |
    /// +------+--------+");
    /// # Ok(())
    /// # }
    /// ```
    pub fn top_with_ties(self, n: usize, by: &str) -> Results<T> {
        let name = format!("top {n} with ties by {by} of");
        self.greatest(&name, |schema, key, window| TopPlan::with_ties(schema, key, window, n, by))
    }

    fn greatest(
        self,
        name: &str,
        plan: impl Fn(&StreamSchema, &[&str], Window) -> windrow_operators::Result<TopPlan>,
    ) -> Results<T> {
        let at = self.stream.then(&self.name(name), |schema| match self.window.clone() {
            WindowKind::Slices(window) => Ok(stateful(plan(schema, &self.key.names(), window)?)),
            WindowKind::Session(_) | WindowKind::Count(_) => Err(OperatorError::Plan(
                "the greatest rows are there for windows whose bounds do not depend on the rows: aggregate this one"
                    .into(),
            )),
        });
        Results::late_on_port(self.stream.graph, at)
    }

    fn name(&self, what: &str) -> String {
        match self.key.0.is_empty() {
            true => format!("{what} {}", self.window),
            false => format!("{what} {} per {}", self.window, self.key.0.join(", ")),
        }
    }
}
