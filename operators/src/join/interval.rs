//! Rows of two streams with equal key that are near each other in event time.
//!
//! ```text
//!   a left row at t arrives ──► looks for right rows in [t + lower, t + upper]: pairs leave at once
//!          └─► open: waits for right rows to come ──watermark passes t + upper──► decided
//!                 │                                     └─ outer, semi, anti: looks once more, and gives its own result
//!                 └─ full join: done: waits for right rows that are to be decided
//! ```
//!
//! A row is *decided* when no partner can come any more. A row that gives a result on its own (with nulls, or as the row of
//! a semi or anti join) does so when it is decided, with its own event time; until then the promise made downstream stays at
//! its time. Rows of the other side are kept until all rows that might look for them are decided.
//! (In a full join a row may be decided and still be looked for: then it moves to the rows that are *done*, and is saved once
//! more.)
//!
//! In the state a row's `side` is 0 or 1 for rows of the left or right side that are open, 2 or 3 for those that are decided
//! and still looked for. The number `watermark` says how far event time had come.

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion_expr::Expr;

use super::{
    EMIT_ROWS, Interval, JoinType, LEFT, RIGHT,
    index::{KeyIndex, Keys, with_valid_key},
    on_time,
    probe::{Partners, Probe},
    shape::{Description, Picked, Shape},
    side_of,
    spec::{Reach, clamp},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::{
        StateForm, StateReader, StateWriter,
        timed::{Piece, TimedRows},
    },
    time::times_of,
};

/// The number that says how far event time had come.
const WATERMARK: &str = "watermark";

/// A join of rows that are near each other in event time.
///
/// The result has the columns of the left side and those of the right side; a key column of the same name on both sides is there
/// once. The event time of a pair is the later one of its rows, and it leaves as soon as both are there. Rows without a
/// partner, and those of a semi or anti join, have their own event time and leave when no partner can come any more (those
/// of a semi join at once, if the partner is already there).
///
/// A row behind the watermark is late, because its partners may be gone.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::join::{Interval, IntervalJoinPlan, JoinType};
///
/// let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
/// let time = |seconds: Vec<i64>| Timestamp::column(seconds.into_iter().map(|s| s * 1_000_000).collect());
/// let orders = [("order", numbers(vec![1, 2])), ("ordered", time(vec![0, 10]))];
/// let orders = RecordBatch::try_from_iter(orders).unwrap();
/// let payments = [("order", numbers(vec![2, 1])), ("paid", time(vec![12, 60]))];
/// let payments = RecordBatch::try_from_iter(payments).unwrap();
/// let left = StreamSchema::with_time(orders.schema(), "ordered").unwrap();
/// let right = StreamSchema::with_time(payments.schema(), "paid").unwrap();
///
/// // Orders with their payment within 30 seconds, and those without.
/// let interval = Interval::around(Duration::ZERO, Duration::from_secs(30));
/// let plan = IntervalJoinPlan::new(&left, &right, &[("order", "order")], interval, JoinType::Left, None).unwrap();
/// assert_eq!(plan.output().to_string(), "order Int64, ordered Timestamp, paid Timestamp");
/// let mut join = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// join.process(Port::MAIN, orders, &mut out).unwrap();
/// join.process(Port::RIGHT, payments, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1, "order 2 is paid");
/// join.advance(Timestamp::from_micros(31_000_000), &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1, "order 1 is not, in time");
/// ```
#[derive(Clone, Debug)]
pub struct IntervalJoinPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shape: Shape,
    /// Where partners are, as seen from each side.
    reach: [Reach; 2],
}

impl IntervalJoinPlan {
    /// Joins rows of `left` and `right` that have equal values in each pair of columns `on` (left, right), are as near in
    /// event time as `interval` says, and meet `condition`. In the condition a column that is on both sides is written
    /// `left.price` or `right.price`.
    ///
    /// Fails when a side has no event time, a column does not exist or cannot be a key, the two columns of a pair have
    /// different types, both sides have a column of one name that is not the key, the interval holds nothing, or the
    /// condition is none.
    pub fn new(
        left: &StreamSchema,
        right: &StreamSchema,
        on: &[(&str, &str)],
        interval: Interval,
        join_type: JoinType,
        condition: Option<&Expr>,
    ) -> Result<Self> {
        interval.check()?;
        let kind = interval.to_string();
        let shape = Shape::new(Description { left, right, on, join_type, condition, leading: Vec::new(), kind })?;
        Ok(Self(Arc::new(Shared { shape, reach: [interval.reach(LEFT), interval.reach(RIGHT)] })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.shape.output
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<IntervalJoin> {
        let rows = |side: usize, name| {
            let key = self.0.shape.keys[side].clone();
            TimedRows::new(name, self.0.shape.times[side], move |rows| KeyIndex::of(rows, &key))
        };
        let sides = [
            Side { open: rows(LEFT, "left"), done: rows(LEFT, "left_done") },
            Side { open: rows(RIGHT, "right"), done: rows(RIGHT, "right_done") },
        ];
        let deciding = VecDeque::new();
        Ok(IntervalJoin { plan: self.0.clone(), sides, watermark: Timestamp::MIN, deciding })
    }
}

impl Plan for IntervalJoinPlan {
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

impl Shared {
    /// Rows of a side that are earlier than this are decided: all their partners would be behind the watermark.
    fn decided_before(&self, side: usize, watermark: Timestamp) -> Timestamp {
        Timestamp::from_micros(clamp(i128::from(watermark.micros()) - self.reach[side].upper))
    }

    /// Rows of a side that are earlier than this are looked for by no row to come, and by none that is to be decided.
    fn needed_from(&self, side: usize, watermark: Timestamp) -> Timestamp {
        let reach = self.reach[side];
        // Rows of the other side are undecided from `watermark + lower` on.
        let waiting = if self.shape.join_type.decides(1 - side) { reach.lower.min(0) } else { 0 };
        Timestamp::from_micros(clamp(i128::from(watermark.micros()) - reach.upper + waiting))
    }

    /// Whether rows that are decided are still looked for by undecided rows of the other side.
    fn keeps_decided(&self) -> bool {
        self.shape.join_type == JoinType::Full
    }
}

/// The rows of one side.
struct Side {
    /// Partners may come. Of a side whose rows give no result on their own: all that may be looked for.
    open: TimedRows<KeyIndex>,
    /// Decided, but looked for by rows of the other side when those are decided.
    done: TimedRows<KeyIndex>,
}

/// Holds the rows of both sides for as long as partners may come.
pub struct IntervalJoin {
    plan: Arc<Shared>,
    sides: [Side; 2],
    watermark: Timestamp,
    /// Rows that a watermark has decided, by side: they look for partners once more.
    deciding: VecDeque<(usize, RecordBatch)>,
}

/// Which of `rows` have a partner among `pieces` of the other side. Pairs are given to `met`.
fn partners(
    plan: &Shared,
    side: usize,
    rows: &RecordBatch,
    pieces: Vec<&Piece<KeyIndex>>,
    once: bool,
    mut met: impl FnMut(&[Picked<'_>; 2]) -> Result<()>,
) -> Result<Vec<bool>> {
    let shape = &plan.shape;
    let mut matched = vec![false; rows.num_rows()];
    let own = times_of(rows, shape.times[side])?;
    let others = pieces.iter().map(|piece| times_of(&piece.rows, shape.times[1 - side])).collect::<Result<Vec<_>>>()?;
    let among = |row: usize, piece: usize| match plan.reach[side].of(own[row]) {
        Some((first, last)) => {
            let start = others[piece].partition_point(|&time| time < first);
            let end = others[piece].partition_point(|&time| time <= last);
            start.max(pieces[piece].start)..end
        }
        None => 0..0,
    };
    let partners: Vec<_> = pieces.iter().map(|piece| Partners { rows: &piece.rows, index: &piece.index }).collect();
    let keys = Keys::of(rows, &shape.keys[side])?;
    let probe = Probe { side, rows, keys: &keys, once };
    let mut next = 0;
    while next < rows.num_rows() {
        next = probe.run(shape, next, &partners, among, |pairs| {
            pairs[side].rows.iter().for_each(|&(_, row)| matched[row] = true);
            met(pairs)
        })?;
    }
    Ok(matched)
}

fn emit_pairs(shape: &Shape, pairs: &[Picked<'_>; 2], out: &mut Outbox) -> Result<()> {
    let [left, right] = [pairs[LEFT].times(shape.times[LEFT])?, pairs[RIGHT].times(shape.times[RIGHT])?];
    let later = left.into_iter().zip(right).map(|(left, right)| left.max(right)).collect();
    out.emit(shape.result(Vec::new(), [Some(&pairs[LEFT]), Some(&pairs[RIGHT])], later)?);
    Ok(())
}

/// Emits the rows of `side` that `leave` on their own.
fn emit_alone(shape: &Shape, side: usize, rows: &RecordBatch, leave: &[bool], out: &mut Outbox) -> Result<()> {
    let picked = Picked::of(rows, (0..rows.num_rows()).filter(|&row| leave[row]));
    if !picked.rows.is_empty() {
        let times = picked.times(shape.times[side])?;
        let sides = if side == LEFT { [Some(&picked), None] } else { [None, Some(&picked)] };
        out.emit(shape.result(Vec::new(), sides, times)?);
    }
    Ok(())
}

impl IntervalJoin {
    /// Finds the partners of rows that have come, and keeps the rows that will be looked for.
    fn arrive(&mut self, side: usize, rows: RecordBatch, out: &mut Outbox) -> Result<()> {
        let plan = self.plan.clone();
        let shape = &plan.shape;
        let (join_type, times) = (shape.join_type, times_of(&rows, shape.times[side])?);
        let pairs_leave = join_type.gives_pairs();
        // The right rows of a semi or anti join only wait to be found.
        let matched = if pairs_leave || side == LEFT {
            let pieces = self.sides[1 - side].open.pieces().iter().collect();
            partners(&plan, side, &rows, pieces, !pairs_leave, |pairs| match pairs_leave {
                true => emit_pairs(shape, pairs, out),
                false => Ok(()),
            })?
        } else {
            Vec::new()
        };
        let mask = |keep: &dyn Fn(usize) -> bool| (0..times.len()).map(|row| Some(keep(row))).collect::<BooleanArray>();
        if !join_type.decides(side) {
            let from = plan.needed_from(side, self.watermark).micros();
            let needed = filter_record_batch(&rows, &mask(&|row| times[row] >= from))?;
            return self.sides[side].open.push(&with_valid_key(&needed, &shape.keys[side])?);
        }
        // A row may be decided when it comes: its partners had to come before it. And a row of a semi or anti join with a
        // partner is.
        let decided = plan.decided_before(side, self.watermark).micros();
        let is_decided = |row: usize| times[row] < decided || (!pairs_leave && matched[row]);
        let wanted = join_type.wants_partner();
        let leave: Vec<bool> = (0..times.len()).map(|row| is_decided(row) && matched[row] == wanted).collect();
        emit_alone(shape, side, &rows, &leave, out)?;
        if plan.keeps_decided() {
            self.sides[side].done.push(&filter_record_batch(&rows, &mask(&is_decided))?)?;
        }
        self.sides[side].open.push(&filter_record_batch(&rows, &mask(&|row| !is_decided(row)))?)
    }

    /// Takes the rows that are decided at `time`.
    fn decide(&mut self, time: Timestamp) -> Result<()> {
        let end_of_input = time == Timestamp::MAX;
        let join_type = self.plan.shape.join_type;
        if !end_of_input {
            self.watermark = self.watermark.max(time);
        }
        for side in (LEFT..=RIGHT).filter(|&side| join_type.decides(side)) {
            let open = &mut self.sides[side].open;
            let taken = match end_of_input {
                false => open.take_before(self.plan.decided_before(side, self.watermark))?,
                true => {
                    // The end is not a time: a job that is started again may find more. To a row that has given its result
                    // no partner may come, so the watermark is where it would have been decided.
                    let after = |time: Timestamp| i128::from(time.micros()) + self.plan.reach[side].upper + 1;
                    let passed = open.latest().map(|latest| Timestamp::from_micros(clamp(after(latest))));
                    self.watermark = self.watermark.max(passed.unwrap_or(self.watermark));
                    open.take_all()?
                }
            };
            for rows in taken {
                if self.plan.keeps_decided() {
                    self.sides[side].done.push(&rows)?;
                }
                self.deciding.push_back((side, rows));
            }
        }
        Ok(())
    }

    /// Drops the rows that nobody will look for.
    fn evict(&mut self) -> Result<()> {
        for side in LEFT..=RIGHT {
            let from = self.plan.needed_from(side, self.watermark);
            if !self.plan.shape.join_type.decides(side) {
                self.sides[side].open.evict_before(from)?;
            }
            self.sides[side].done.evict_before(from)?;
        }
        Ok(())
    }
}

impl Operator for IntervalJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let (side, watermark) = (side_of(port), self.watermark.micros());
        let rows = on_time(side, batch, self.plan.shape.times[side], |time| time < watermark, out)?;
        self.arrive(side, rows, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if self.deciding.is_empty() {
            self.decide(time)?;
        }
        let plan = self.plan.clone();
        let shape = &plan.shape;
        let mut looked = 0;
        while let Some((side, rows)) = self.deciding.pop_front() {
            let n = rows.num_rows().min(EMIT_ROWS);
            let (now, more) = (rows.slice(0, n), rows.slice(n, rows.num_rows() - n));
            if more.num_rows() > 0 {
                self.deciding.push_front((side, more));
            }
            let other = &self.sides[1 - side];
            let pieces = other.open.pieces().iter().chain(other.done.pieces()).collect();
            let matched = partners(&plan, side, &now, pieces, true, |_| Ok(()))?;
            let wanted = shape.join_type.wants_partner();
            let leave: Vec<bool> = matched.into_iter().map(|matched| matched == wanted).collect();
            emit_alone(shape, side, &now, &leave, out)?;
            looked += n;
            if looked >= EMIT_ROWS && !self.deciding.is_empty() {
                return Ok(Advance::Again);
            }
        }
        self.evict()?;
        let waiting = (LEFT..=RIGHT).filter(|&side| shape.join_type.decides(side));
        let earliest = waiting.filter_map(|side| self.sides[side].open.earliest()).min().unwrap_or(time);
        // Just restored the watermark, which begins anew, may be behind.
        let reached = if time == Timestamp::MAX { time } else { self.watermark.min(time) };
        Ok(Advance::Promise(reached.min(earliest)))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.deciding.is_empty() {
            return Err(OperatorError::Internal("a join was saved with rows half decided".into()));
        }
        state.set(WATERMARK, self.watermark.micros());
        let shape = &self.plan.shape;
        for (side, rows) in self.sides.iter_mut().enumerate() {
            rows.open.save(state, |rows| shape.segment(side, side as u8, rows))?;
            rows.done.save(state, |rows| shape.segment(side, 2 + side as u8, rows))?;
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        // If inputs fell idle one task was ahead, and what it had dropped cannot be found: so the greatest counts.
        self.watermark = state.greatest(false, WATERMARK).map_or(Timestamp::MIN, Timestamp::from_micros);
        let shape = &self.plan.shape;
        for (side, rows) in self.sides.iter_mut().enumerate() {
            rows.open.load(state, |segment| shape.of_segment(side, side as u8, segment))?;
            rows.done.load(state, |segment| shape.of_segment(side, 2 + side as u8, segment))?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let stores = self.sides.iter().flat_map(|side| [&side.open, &side.done]);
        stores.map(|rows| rows.size() + rows.rows() * KeyIndex::BYTES_PER_ROW).sum()
    }
}
