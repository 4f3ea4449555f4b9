//! Keyed streams and windows.

use datafusion_expr::Expr;
use windrow_operators::window::{AggregatePlan, TopPlan, Tumbling};

use super::{Key, Results, Stream};
use crate::plan::graph::stateful;

/// A stream partitioned by a key.
#[must_use]
pub struct KeyedStream<T> {
    pub(crate) stream: Stream<T>,
    pub(crate) key: Key,
}

impl<T: 'static> KeyedStream<T> {
    /// Windows per key over event time: `.window(Tumbling::of(secs(10)))`.
    pub fn window(self, window: Tumbling) -> Windowed<T> {
        Windowed { stream: self.stream, key: self.key, window }
    }
}

/// Windows whose result has still to be named.
#[must_use]
pub struct Windowed<T> {
    pub(crate) stream: Stream<T>,
    pub(crate) key: Key,
    pub(crate) window: Tumbling,
}

impl<T: 'static> Windowed<T> {
    /// Any DataFusion aggregates, one row per key and window: `window_start`, `window_end`, the key, the aggregates.
    /// A window gives its result when the watermark passes its end (and the allowed lateness). Aggregates that depend on
    /// the order of rows (`first_value`, `array_agg`, …) follow the order of arrival; an integer `sum` wraps on overflow.
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = Expr>) -> Results<T> {
        let aggregates: Vec<Expr> = aggregates.into_iter().collect();
        let at = self.stream.then(&self.name("window"), |schema| {
            let plan = AggregatePlan::new(schema, &self.key.names(), self.window, &aggregates)?;
            Ok(stateful(plan))
        });
        Results::new(self.stream.graph, at)
    }

    /// The `n` rows of each window (and key) with the greatest value in the column `by`: `window_start`, `window_end`,
    /// `rank` from 1, and the columns of the row. Equal values are ordered by the other columns.
    pub fn top(self, n: usize, by: &str) -> Results<T> {
        let at = self.stream.then(&self.name(&format!("top {n} by {by} of")), |schema| {
            let plan = TopPlan::new(schema, &self.key.names(), self.window, n, by)?;
            Ok(stateful(plan))
        });
        Results::new(self.stream.graph, at)
    }

    fn name(&self, what: &str) -> String {
        match self.key.0.is_empty() {
            true => format!("{what} {}", self.window),
            false => format!("{what} {} per {}", self.window, self.key.0.join(", ")),
        }
    }
}
