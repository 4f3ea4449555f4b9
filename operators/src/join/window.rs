//! Rows of two streams with equal key in the same window.
//!
//! ```text
//!   left  ─► TimedRows ─┐   the watermark closes [10, 20)
//!                       ├─► rows of both sides in [10, 20) ─► Closing: pairs, and rows without a partner ─► results
//!   right ─► TimedRows ─┘   and they are dropped
//! ```
//!
//! There is no table per window: the rows wait by event time, and a window reads its stretch of them when it closes.
//! That a row is in one window is known to [`WindowJoin`]'s `open_from`, `next_window` and `close` only.
//!
//! In the state a row's `side` is 0 for the left side and 1 for the right one. The number `closed` says how far event time had
//! come: windows that end there or before have given their result.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::Field};
use datafusion_expr::Expr;

use super::{
    EMIT_ROWS, JoinType, LEFT, RIGHT,
    closing::Closing,
    index::with_valid_key,
    on_time,
    shape::{Description, Shape},
    side_of,
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::{StateForm, StateReader, StateWriter, timed::TimedRows},
    window::{Slice, Slicing, WINDOW_END, WINDOW_START, Window},
};

/// The number that says how far event time had come.
const CLOSED: &str = "closed";

/// A join of rows in the same window.
///
/// The result has the columns `window_start`, `window_end`, those of the left side and those of the right side; a key column
/// of the same name on both sides is there once. (Of inputs that come from a window themselves the former bounds are left
/// out.) Its event time is the last instant of the window. It leaves when the window closes.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use datafusion_expr::col;
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::join::{JoinType, WindowJoinPlan};
/// use windrow_operators::window::Tumbling;
///
/// let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
/// let time = |seconds: Vec<i64>| Timestamp::column(seconds.into_iter().map(|s| s * 1_000_000).collect());
/// let bids = [("item", numbers(vec![1, 1, 2])), ("price", numbers(vec![5, 7, 9])), ("at", time(vec![0, 3, 12]))];
/// let bids = RecordBatch::try_from_iter(bids).unwrap();
/// let asks = [("item", numbers(vec![1, 2])), ("least", numbers(vec![6, 8])), ("since", time(vec![8, 1]))];
/// let asks = RecordBatch::try_from_iter(asks).unwrap();
/// let left = StreamSchema::with_time(bids.schema(), "at").unwrap();
/// let right = StreamSchema::with_time(asks.schema(), "since").unwrap();
///
/// let window = Tumbling::of(Duration::from_secs(10));
/// let condition = col("price").gt_eq(col("least"));
/// let plan =
///     WindowJoinPlan::new(&left, &right, &[("item", "item")], window, JoinType::Inner, Some(&condition)).unwrap();
/// assert_eq!(
///     plan.output().to_string(),
///     "window_start Timestamp, window_end Timestamp, item Int64, price Int64, at Timestamp, least Int64, since Timestamp"
/// );
/// let mut join = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// join.process(Port::MAIN, bids, &mut out).unwrap();
/// join.process(Port::RIGHT, asks, &mut out).unwrap();
/// join.advance(Timestamp::MAX, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1, "the bid of 7 for item 1");
/// ```
#[derive(Clone, Debug)]
pub struct WindowJoinPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shape: Shape,
    window: Window,
}

impl WindowJoinPlan {
    /// Joins rows of `left` and `right` that have equal values in each pair of columns `on` (left, right), are in the same
    /// window and meet `condition`. In the condition a column that is on both sides is written `left.price` or `right.price`.
    ///
    /// Fails when a side has no event time, a column does not exist or cannot be a key, the two columns of a pair have
    /// different types, both sides have a column of one name that is not the key, or the condition is none.
    pub fn new(
        left: &StreamSchema,
        right: &StreamSchema,
        on: &[(&str, &str)],
        window: Window,
        join_type: JoinType,
        condition: Option<&Expr>,
    ) -> Result<Self> {
        window.only_final("the results of a join")?;
        if window.slicing()?.overlaps() {
            return Err(OperatorError::Plan(format!(
                "a join over {}: a row is in one window only: join over tumbling or calendar windows, or in an interval",
                window.describe()
            )));
        }
        let bound = |name| Field::new(name, Timestamp::data_type(), false);
        let leading = vec![bound(WINDOW_START), bound(WINDOW_END)];
        let kind = window.describe();
        let shape = Shape::new(Description { left, right, on, join_type, condition, leading, kind })?;
        Ok(Self(Arc::new(Shared { shape, window })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.shape.output
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<WindowJoin> {
        let side = |side: usize, name| TimedRows::new(name, self.0.shape.times[side], |_| Ok(()));
        Ok(WindowJoin {
            slicing: self.0.window.slicing()?,
            plan: self.0.clone(),
            sides: [side(LEFT, "left"), side(RIGHT, "right")],
            closed: Timestamp::MIN,
            closing: None,
        })
    }
}

impl Plan for WindowJoinPlan {
    fn noun(&self) -> &'static str {
        "join"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        self.0.shape.partitioning()
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        self.0.shape.outputs()
    }

    fn state_form(&self) -> StateForm {
        self.0.shape.form.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// Holds the rows of open windows and joins those of each window when it closes.
pub struct WindowJoin {
    plan: Arc<Shared>,
    slicing: Slicing,
    sides: [TimedRows<()>; 2],
    /// Every window that ends here or before is closed. Also the promise made downstream.
    closed: Timestamp,
    /// The window whose result is on its way out.
    closing: Option<Closing>,
}

impl WindowJoin {
    /// Rows earlier than this are in no window that is open.
    fn open_from(&self) -> i64 {
        let slice = self.slicing.slice_of(self.closed);
        // The last slice of all includes its end.
        if slice.end <= self.closed { i64::MAX } else { slice.start.micros() }
    }

    /// The window that closes next, if its time has come.
    fn next_window(&self) -> Option<Slice> {
        let earliest = self.sides.iter().filter_map(TimedRows::earliest).min()?;
        Some(self.slicing.slice_of(earliest)).filter(|slice| slice.end <= self.closed)
    }

    fn close(&mut self, window: Slice) -> Result<Closing> {
        let last = window.end == Timestamp::MAX;
        let mut take =
            |side: usize| if last { self.sides[side].take_all() } else { self.sides[side].take_before(window.end) };
        let rows = [take(LEFT)?, take(RIGHT)?];
        Closing::new(&self.plan.shape, window, rows)
    }
}

impl Operator for WindowJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let shape = &self.plan.shape;
        let side = side_of(port);
        let (open_from, all) = (self.open_from(), self.closed == Timestamp::MAX);
        let rows = on_time(side, batch, shape.times[side], |time| time < open_from || all, out)?;
        let rows = if shape.join_type.decides(side) { rows } else { with_valid_key(&rows, &shape.keys[side])? };
        self.sides[side].push(&rows)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end_of_input = time == Timestamp::MAX;
        if !end_of_input {
            self.closed = self.closed.max(time.saturating_sub(self.plan.window.lateness()));
        } else if let Some(latest) = self.sides.iter().filter_map(TimedRows::latest).max() {
            // The end is not a time: only windows that have given their result are closed to a job that is started again.
            self.closed = self.closed.max(self.slicing.slice_of(latest).end);
        }
        let mut emitted = 0;
        while emitted < EMIT_ROWS {
            if let Some(closing) = &mut self.closing {
                match closing.step(&self.plan.shape, out)? {
                    Some(rows) => emitted += rows,
                    None => self.closing = None,
                }
                continue;
            }
            let Some(window) = self.next_window() else {
                // Just restored it may have closed more than the watermark, which begins anew, has reached.
                return Ok(Advance::Promise(if end_of_input { time } else { self.closed.min(time) }));
            };
            self.closing = Some(self.close(window)?);
            // A window without a result has taken its time, too.
            emitted += 1;
        }
        Ok(Advance::Again)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.closing.is_some() {
            return Err(OperatorError::Internal("a join was saved with a window half-way out".into()));
        }
        state.set(CLOSED, self.closed.micros());
        let shape = &self.plan.shape;
        let [left, right] = &mut self.sides;
        left.save(state, |rows| shape.segment(LEFT, LEFT as u8, rows))?;
        right.save(state, |rows| shape.segment(RIGHT, RIGHT as u8, rows))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        // If inputs fell idle one task was ahead: its windows have given their only result, so the greatest counts.
        self.closed = state.greatest(false, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        let shape = &self.plan.shape;
        let [left, right] = &mut self.sides;
        left.load(state, |rows| shape.of_segment(LEFT, LEFT as u8, rows))?;
        right.load(state, |rows| shape.of_segment(RIGHT, RIGHT as u8, rows))
    }

    fn size(&self) -> usize {
        self.sides.iter().map(TimedRows::size).sum()
    }
}
