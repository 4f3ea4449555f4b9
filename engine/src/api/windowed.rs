//! Windows, whose result has still to be named.

use datafusion_expr::Expr;
use windrow_operators::{
    OperatorError,
    count::{Count, CountPlan},
    session::{Session, SessionPlan},
    window::{AggregatePlan, TopPlan, Window},
};

use super::{Key, KeyedStream, Results, Stream};
use crate::plan::graph::stateful;

/// What `.window(…)` takes: windows on slices ([`Tumbling`](windrow_operators::window::Tumbling),
/// [`Hopping`](windrow_operators::window::Hopping), [`Cumulating`](windrow_operators::window::Cumulating),
/// [`Calendar`](windrow_operators::window::Calendar)), a [`Session`] or a [`Count`].
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
    /// Any DataFusion aggregates, one row per key and window: `window_start`, `window_end`, the key, the aggregates.
    /// A window gives its result when the watermark passes its end (and the allowed lateness). Aggregates that depend on
    /// the order of rows (`first_value`, `array_agg`, …) follow the order of arrival; an integer `sum` wraps on overflow.
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
    /// `rank` from 1, and the columns of the row. Equal values are ordered by the other columns.
    pub fn top(self, n: usize, by: &str) -> Results<T> {
        let at = self.stream.then(&self.name(&format!("top {n} by {by} of")), |schema| match self.window.clone() {
            WindowKind::Slices(window) => Ok(stateful(TopPlan::new(schema, &self.key.names(), window, n, by)?)),
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
