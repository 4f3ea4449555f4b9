//! Rows of two streams with equal key that are near each other in event time.
//!
//! ```text
//!   a left row at t arrives ──► looks for right rows in [t + lower, t + upper]: pairs leave at once, in steps (`Outbox::again`)
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
    buffer::BooleanBuffer,
    compute::filter_record_batch,
};
use datafusion_expr::Expr;

use super::{
    Interval, JoinType, LEFT, RIGHT,
    index::{KeyIndex, Keys, LazyIndex, with_valid_key},
    on_time,
    probe::{Found, Partners, Place, Probe},
    shape::{Description, Picked, Shape},
    side_of,
    spec::{Reach, clamp},
};
use crate::{
    Advance, KeyedOutput, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
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
        let rows = |side: usize, name| TimedRows::new(name, self.0.shape.times[side], |_| Ok(LazyIndex::default()));
        let sides = [
            Side { open: rows(LEFT, "left"), done: rows(LEFT, "left_done") },
            Side { open: rows(RIGHT, "right"), done: rows(RIGHT, "right_done") },
        ];
        let deciding = VecDeque::new();
        Ok(IntervalJoin { plan: self.0.clone(), sides, watermark: Timestamp::MIN, looking: None, deciding })
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
        self.0.shape.form_of(&[
            (0, LEFT, "left"),
            (1, RIGHT, "right"),
            (2, LEFT, "left_done"),
            (3, RIGHT, "right_done"),
        ])
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        // Rows that wait to be decided hold the promise of their task back, and not that of the others.
        let waits = [LEFT, RIGHT].into_iter().any(|side| self.0.shape.join_type.decides(side));
        self.0.shape.keyed.clone().filter(|_| !waits)
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
    open: TimedRows<LazyIndex>,
    /// Decided, but looked for by rows of the other side when those are decided.
    done: TimedRows<LazyIndex>,
}

/// Holds the rows of both sides for as long as partners may come.
pub struct IntervalJoin {
    plan: Arc<Shared>,
    sides: [Side; 2],
    watermark: Timestamp,
    /// Rows that are half-way through: they have come and have more partners than one step emits, or are being decided.
    looking: Option<Looking>,
    /// Rows that a watermark has decided, by side: they look for partners once more.
    deciding: VecDeque<(usize, RecordBatch)>,
}

/// Rows of one side that look for partners, in as many steps as that takes.
struct Looking {
    side: usize,
    rows: RecordBatch,
    keys: Keys,
    place: Place,
    /// Which of them have met one.
    matched: Vec<bool>,
}

impl Looking {
    fn new(plan: &Shared, side: usize, rows: RecordBatch) -> Result<Self> {
        let keys = Keys::of(&rows, &plan.shape.keys[side])?;
        Ok(Self { side, keys, place: Place::at(0), matched: vec![false; rows.num_rows()], rows })
    }

    /// Whether all of them have looked.
    fn is_done(&self) -> bool {
        self.place.row == self.rows.num_rows()
    }

    /// The next pairs with rows of these pieces of the other side, up to `most`. If one is enough for each row: `once`.
    fn step<'p>(
        &mut self,
        plan: &'p Shared,
        pieces: impl Iterator<Item = &'p Piece<LazyIndex>>,
        once: bool,
        most: usize,
    ) -> Result<(usize, Option<RecordBatch>)> {
        let Self { side, rows, keys, place, matched } = self;
        let (shape, side) = (&plan.shape, *side);
        let (other, own) = (1 - side, times_of(rows, shape.times[side])?);
        let partners = pieces.map(|piece| {
            let index = piece.index.index(&piece.rows, &shape.keys[other])?;
            let times = times_of(&piece.rows, shape.times[other])?;
            Ok(Partners { rows: &piece.rows, index, times, live: piece.start..times.len() })
        });
        let partners = partners.collect::<Result<Vec<_>>>()?;
        let span = |row: usize| plan.reach[side].of(own[row]);
        let probe = Probe { shape, side, rows, keys, end: own.len(), partners, span, once };
        let Found { pairs, cost } = probe.step(place, most)?;
        pairs[side].rows.iter().for_each(|&(_, row)| matched[row] = true);
        let leave = !once && !pairs[side].rows.is_empty();
        Ok((cost, if leave { Some(pairs_of(shape, &pairs)?) } else { None }))
    }
}

/// Pairs as result rows.
fn pairs_of(shape: &Shape, pairs: &[Picked<'_>; 2]) -> Result<RecordBatch> {
    let [left, right] = [pairs[LEFT].times(shape.times[LEFT])?, pairs[RIGHT].times(shape.times[RIGHT])?];
    let later = left.into_iter().zip(right).map(|(left, right)| left.max(right)).collect();
    shape.result(Vec::new(), [Some(&pairs[LEFT]), Some(&pairs[RIGHT])], later)
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

/// The rows that are to be kept.
fn filtered(rows: &RecordBatch, keep: impl Fn(usize) -> bool) -> Result<RecordBatch> {
    let mask = BooleanArray::new(BooleanBuffer::collect_bool(rows.num_rows(), keep), None);
    match mask.true_count() == rows.num_rows() {
        true => Ok(rows.clone()),
        false => Ok(filter_record_batch(rows, &mask)?),
    }
}

impl IntervalJoin {
    /// Lets rows that have come look for partners, in one step; when they are through they are kept.
    fn arrive(&mut self, mut rows: Looking, out: &mut Outbox) -> Result<()> {
        let pairs_leave = self.plan.shape.join_type.gives_pairs();
        // The right rows of a semi or anti join only wait to be found.
        if pairs_leave || rows.side == LEFT {
            let pieces = self.sides[1 - rows.side].open.pieces().iter();
            let (_, pairs) = rows.step(&self.plan, pieces, !pairs_leave, out.step())?;
            pairs.into_iter().for_each(|pairs| out.emit(pairs));
            if !rows.is_done() {
                self.looking = Some(rows);
                out.again();
                return Ok(());
            }
        }
        self.keep(rows, out)
    }

    /// Keeps the rows that will be looked for; lets those that are decided leave.
    fn keep(&mut self, Looking { side, rows, matched, .. }: Looking, out: &mut Outbox) -> Result<()> {
        let plan = self.plan.clone();
        let shape = &plan.shape;
        let (join_type, times) = (shape.join_type, times_of(&rows, shape.times[side])?);
        if !join_type.decides(side) {
            let from = plan.needed_from(side, self.watermark).micros();
            let needed = filtered(&rows, |row| times[row] >= from)?;
            return self.sides[side].open.push(&with_valid_key(&needed, &shape.keys[side])?);
        }
        // A row may be decided when it comes: its partners had to come before it. And a row of a semi or anti join with a
        // partner is.
        let decided = plan.decided_before(side, self.watermark).micros();
        let is_decided = |row: usize| times[row] < decided || (!join_type.gives_pairs() && matched[row]);
        let wanted = join_type.wants_partner();
        let leave: Vec<bool> = (0..times.len()).map(|row| is_decided(row) && matched[row] == wanted).collect();
        emit_alone(shape, side, &rows, &leave, out)?;
        if plan.keeps_decided() {
            self.sides[side].done.push(&filtered(&rows, is_decided)?)?;
        }
        self.sides[side].open.push(&filtered(&rows, |row| !is_decided(row))?)
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

    /// The rows that are to be decided next, up to `most`.
    fn next_decided(&mut self, most: usize) -> Result<Option<Looking>> {
        if let Some(rows) = self.looking.take() {
            return Ok(Some(rows));
        }
        let Some((side, rows)) = self.deciding.pop_front() else { return Ok(None) };
        let n = rows.num_rows().min(most);
        if n < rows.num_rows() {
            self.deciding.push_front((side, rows.slice(n, rows.num_rows() - n)));
        }
        Looking::new(&self.plan, side, rows.slice(0, n)).map(Some)
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
        if let Some(rows) = self.looking.take() {
            if side != rows.side || batch.num_rows() > 0 {
                return Err(OperatorError::Internal("a join was given rows while others were half-way through".into()));
            }
            return self.arrive(rows, out);
        }
        let rows = on_time(side, batch, self.plan.shape.times[side], |time| time < watermark, out)?;
        match rows.num_rows() {
            0 => Ok(()),
            _ => self.arrive(Looking::new(&self.plan, side, rows)?, out),
        }
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if self.deciding.is_empty() && self.looking.is_none() {
            self.decide(time)?;
        }
        let plan = self.plan.clone();
        let shape = &plan.shape;
        let (mut spent, step) = (0, out.step());
        while let Some(mut rows) = self.next_decided(step)? {
            if spent >= step {
                self.looking = Some(rows);
                return Ok(Advance::Again);
            }
            let other = &self.sides[1 - rows.side];
            let pieces = other.open.pieces().iter().chain(other.done.pieces());
            spent += rows.step(&plan, pieces, true, step)?.0;
            if !rows.is_done() {
                self.looking = Some(rows);
                continue;
            }
            let wanted = shape.join_type.wants_partner();
            let leave: Vec<bool> = rows.matched.iter().map(|&matched| matched == wanted).collect();
            emit_alone(shape, rows.side, &rows.rows, &leave, out)?;
            spent += leave.len();
        }
        self.evict()?;
        let waiting = (LEFT..=RIGHT).filter(|&side| shape.join_type.decides(side));
        let earliest = waiting.filter_map(|side| self.sides[side].open.earliest()).min().unwrap_or(time);
        // Just restored the watermark, which begins anew, may be behind.
        let reached = if time == Timestamp::MAX { time } else { self.watermark.min(time) };
        Ok(Advance::Promise(reached.min(earliest)))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.deciding.is_empty() || self.looking.is_some() {
            return Err(OperatorError::Internal("a join was saved with rows half-way through".into()));
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
