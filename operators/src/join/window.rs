//! Rows of two streams with equal key in the same window.
//!
//! ```text
//!   left  ─► TimedRows ─┐   the watermark passes the end of [10, 20)
//!                       ├─► rows of both sides in [10, 20) ─► Closing: pairs, and rows without a partner ─► results
//!   right ─► TimedRows ─┘   rows that are in no window after it are dropped
//! ```
//!
//! There is no table per window: the rows wait by the slice of time that they are in, and a window looks at its slices when it
//! closes. So a row is held once, in however many windows it is.
//!
//! In the state a row's `side` is 0 for the left side and 1 for the right one. The number `closed` says how far event time had
//! come: windows that end there or before have given their result, unless other numbers say for which keys they have not (see
//! `window::progress`).

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::Field};
use datafusion_expr::Expr;

use super::{
    JoinType, LEFT, RIGHT,
    closing::Closing,
    index::{KeyIndex, LazyIndex, with_valid_key},
    on_time,
    shape::{Description, Shape},
    side_of,
};
use crate::{
    Advance, KeyedOutput, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::{StateForm, StateReader, StateWriter, timed::TimedRows},
    window::{Progress, Slice, Slicing, WINDOW_END, WINDOW_START, Window},
};

/// A join of rows in the same window.
///
/// The result has the columns `window_start`, `window_end`, those of the left side and those of the right side; a key column
/// of the same name on both sides is there once. (Of inputs that come from a window themselves the former bounds are left
/// out.) Its event time is the last instant of the window. It leaves when the window closes.
///
/// Where windows overlap a pair is in the result of each window that both rows are in, and a row without a partner in that of
/// each window in which it has none. A row is late when the slice of time that it is in has closed (see [`Window`]): then it is in
/// no result at all.
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
    /// different types, both sides have a column of one name that is not the key, there can be no such window or it gives
    /// early results or corrections, or the condition is none.
    pub fn new(
        left: &StreamSchema,
        right: &StreamSchema,
        on: &[(&str, &str)],
        window: Window,
        join_type: JoinType,
        condition: Option<&Expr>,
    ) -> Result<Self> {
        window.only_final("the results of a join")?;
        window.slicing()?;
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
        let slicing = self.0.window.slicing()?;
        let side = |side: usize, name| {
            let rows = TimedRows::new(name, self.0.shape.times[side], |_| Ok(LazyIndex::default()));
            rows.by_stretch(move |time| {
                let slice = slicing.slice_of(Timestamp::from_micros(time));
                (slice.start.micros(), slice.end.micros())
            })
        };
        let progress = Progress::new();
        Ok(WindowJoin {
            slicing,
            plan: self.0.clone(),
            sides: [side(LEFT, "left"), side(RIGHT, "right")],
            reached: progress.reached(),
            progress,
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
        self.0.shape.form_of(&[(0, LEFT, "left"), (1, RIGHT, "right")])
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        self.0.shape.keyed.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// Holds the rows of open windows and joins those of each window when it closes.
pub struct WindowJoin {
    plan: Arc<Shared>,
    slicing: Slicing,
    sides: [TimedRows<LazyIndex>; 2],
    progress: Progress,
    /// Where the last window ended that gave its result, if it was not before that of `progress`.
    reached: i128,
    /// The window whose result is on its way out.
    closing: Option<Closing>,
}

impl WindowJoin {
    /// Rows earlier than this are late.
    fn open_from(&self) -> i64 {
        let closed = self.progress.closed;
        let slice = self.slicing.slice_of(closed);
        // The last slice of all includes its end.
        if slice.end <= closed { i64::MAX } else { slice.start.micros() }
    }

    /// The slice of the earliest row.
    fn first_slice(&self) -> Option<Slice> {
        let earliest = self.sides.iter().filter_map(TimedRows::earliest).min()?;
        Some(self.slicing.slice_of(earliest))
    }

    /// Begins with the result of the window that closes next, if its time has come.
    fn close_next(&mut self) -> Result<bool> {
        let Some(slice) = self.first_slice() else { return Ok(false) };
        let stretch = self.slicing.next_window(slice, self.reached);
        let window = stretch.cut();
        if window.end > self.progress.closed {
            return Ok(false);
        }
        let owed = self.progress.owed(window);
        // Each left row looks into each piece of the right side. Where no other window needs those rows they are put together.
        let overlaps = self.slicing.overlaps();
        let taken = (!overlaps).then(|| self.sides[RIGHT].take_stretch(window.end)).transpose()?;
        self.closing = Some(Closing::new(&self.plan.shape, window, &self.sides, taken, &owed)?);
        self.reached = stretch.end;
        Ok(true)
    }

    /// Drops the rows that are in no window to come.
    fn evict(&mut self) -> Result<()> {
        while let Some(slice) = self.first_slice()
            && self.slicing.last_end(slice) <= self.reached
        {
            for side in &mut self.sides {
                match slice.end == Timestamp::MAX {
                    true => side.take_all()?,
                    false => side.take_before(slice.end)?,
                };
            }
        }
        Ok(())
    }
}

impl Operator for WindowJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let shape = &self.plan.shape;
        let side = side_of(port);
        let (open_from, all) = (self.open_from(), self.progress.closed == Timestamp::MAX);
        let rows = on_time(side, batch, shape.times[side], |time| time < open_from || all, out)?;
        let rows = if shape.join_type.decides(side) { rows } else { with_valid_key(&rows, &shape.keys[side])? };
        self.sides[side].push(&rows)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let end_of_input = time == Timestamp::MAX;
        let closed = self.progress.closed;
        if !end_of_input {
            self.progress.closed = closed.max(time.saturating_sub(self.plan.window.lateness()));
        } else if let Some(latest) = self.sides.iter().filter_map(TimedRows::latest).max() {
            // The end is not a time: only windows that have given their result are closed to a job that is started again.
            self.progress.closed = closed.max(self.slicing.needed_until(self.slicing.slice_of(latest)));
        }
        let (mut spent, step) = (0, out.step());
        while spent < step {
            if let Some(closing) = &mut self.closing {
                match closing.step(&self.plan.shape, &self.sides, out)? {
                    Some(cost) => spent += cost,
                    None => {
                        self.closing = None;
                        self.evict()?;
                    }
                }
            } else if self.close_next()? {
                // A window without a result has taken its time, too.
                spent += 1;
            } else {
                self.progress.caught_up();
                self.reached = self.progress.reached();
                // Of the watermark alone, so that all tasks promise the same: just restored they may have closed more than
                // that, which begins anew, has reached, and not all as much.
                let promise = time.saturating_sub(self.plan.window.lateness());
                return Ok(Advance::Promise(if end_of_input { time } else { promise }));
            }
        }
        Ok(Advance::Again)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.closing.is_some() {
            return Err(OperatorError::Internal("a join was saved with a window half-way out".into()));
        }
        self.progress.save(&self.slicing, state);
        let shape = &self.plan.shape;
        let [left, right] = &mut self.sides;
        left.save(state, |rows| shape.segment(LEFT, LEFT as u8, rows))?;
        right.save(state, |rows| shape.segment(RIGHT, RIGHT as u8, rows))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.progress.load(state, self.slicing.overlaps());
        self.reached = self.progress.reached();
        let shape = &self.plan.shape;
        let [left, right] = &mut self.sides;
        left.load(state, |rows| shape.of_segment(LEFT, LEFT as u8, rows))?;
        right.load(state, |rows| shape.of_segment(RIGHT, RIGHT as u8, rows))
    }

    fn size(&self) -> usize {
        let waiting = self.sides.iter().map(|rows| rows.size() + rows.rows() * KeyIndex::BYTES_PER_ROW);
        waiting.sum::<usize>() + self.closing.as_ref().map_or(0, Closing::size)
    }
}
