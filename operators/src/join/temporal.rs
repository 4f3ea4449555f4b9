//! Each left row with the version of its key as of its time.
//!
//! ```text
//!   versions of k      ──v1 at 10───────────v2 at 20──────────────►
//!   left rows with k   ─────────at 12: v1──────────at 20: v2──────►
//!
//!   left     ─► wait until the watermark has passed them ─┐
//!   versions ─► coming: newer than the watermark ─────────┴─► Finder ─► results
//!                  └─ the newest of each key ─► newest ────┘
//! ```
//!
//! In the state a row's `side` is 0 for left rows that wait, 1 for versions that are newer than the watermark, 2 for the newest
//! version of each key before that (of several versions of a key the latest counts). The number `watermark` says how far event time
//! had come.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use datafusion_expr::Expr;

use super::{
    JoinType, LEFT, RIGHT,
    index::{KeyIndex, Keys, with_valid_key},
    on_time,
    shape::{Description, Picked, Shape},
    side_of,
    spec::clamp,
    versions::{Finder, Stretch, check_order, newest_rows},
};
use crate::{
    Advance, KeyedOutput, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::{Rule, StateForm, StateReader, StateWriter, timed::TimedRows},
    time::{spelled, times_of},
};

/// The number that says how far event time had come.
const WATERMARK: &str = "watermark";

/// What `side` says of the newest versions.
const NEWEST: u8 = 2;

/// A join of each left row with the newest version of its key whose event time is the row's or earlier.
///
/// Of versions with one key and time that counts which sorts last by all its columns. A condition does not choose among versions:
/// the newest one is found first, and then the pair has to meet the condition, as in SQL's `FOR SYSTEM_TIME AS OF … ON …`. Where it
/// does not the row has no partner, also when an older version would have met it. The result has the columns of the left side
/// and those of the versions; a key column of the same name on both sides is there once. Its event time is the left row's, and it
/// leaves when the watermark has passed that. Rows and versions behind the watermark are late.
///
/// The newest version of every key is kept for ever, unless there is a *ttl*: then a version counts for so long only, from its
/// event time on, and a row that comes later in event time finds none.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
/// use windrow_operators::join::{JoinType, TemporalJoinPlan};
///
/// let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
/// let orders = [("currency", numbers(vec![1, 1])), ("amount", numbers(vec![5, 7])), ("at", Timestamp::column(vec![12, 20]))];
/// let orders = RecordBatch::try_from_iter(orders).unwrap();
/// let rates = [("currency", numbers(vec![1, 1])), ("rate", numbers(vec![3, 4])), ("since", Timestamp::column(vec![10, 20]))];
/// let rates = RecordBatch::try_from_iter(rates).unwrap();
/// let left = StreamSchema::with_time(orders.schema(), "at").unwrap();
/// let versions = StreamSchema::with_time(rates.schema(), "since").unwrap();
///
/// let plan = TemporalJoinPlan::new(&left, &versions, &[("currency", "currency")], JoinType::Inner, None, None).unwrap();
/// assert_eq!(plan.output().to_string(), "currency Int64, amount Int64, at Timestamp, rate Int64, since Timestamp");
/// let mut join = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// join.process(Port::MAIN, orders, &mut out).unwrap();
/// join.process(Port::RIGHT, rates, &mut out).unwrap();
/// join.advance(Timestamp::from_micros(20), &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 1, "another rate as of 20 may come");
/// ```
#[derive(Clone, Debug)]
pub struct TemporalJoinPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shape: Shape,
    /// How long a version counts, in microseconds.
    ttl: Option<i128>,
}

impl TemporalJoinPlan {
    /// Joins rows of `left` with rows of `versions` that have equal values in each pair of columns `on` (left, version).
    /// `join_type` is [`JoinType::Inner`], or [`JoinType::Left`] to keep rows without a version. The row and its newest version have
    /// to meet `condition`, in which a column that is on both sides is written `left.price` or `right.price`. A version counts for
    /// `ttl` of event time (in whole microseconds), or for ever.
    ///
    /// Fails when a side has no event time, a column does not exist or cannot be a key, the two columns of a pair have
    /// different types, both sides have a column of one name that is not the key, the versions have a column that cannot be
    /// sorted, the condition is none, or the type of the join is another.
    pub fn new(
        left: &StreamSchema,
        versions: &StreamSchema,
        on: &[(&str, &str)],
        join_type: JoinType,
        condition: Option<&Expr>,
        ttl: Option<Duration>,
    ) -> Result<Self> {
        if !matches!(join_type, JoinType::Inner | JoinType::Left) {
            return Err(OperatorError::Plan(format!(
                "a temporal join of type {join_type}: each left row has one version, so it is Inner or Left"
            )));
        }
        check_order(versions.columns())?;
        let kind = ttl.map_or("as of time".to_string(), |ttl| format!("as of time within {}", spelled(ttl)));
        // A duration has at most 2^64 seconds.
        let ttl = ttl.map(|ttl| ttl.as_micros() as i128);
        let of = Description { left, right: versions, on, join_type, condition, leading: Vec::new(), kind };
        Ok(Self(Arc::new(Shared { shape: Shape::new(of)?, ttl })))
    }

    /// The schema of the results.
    pub fn output(&self) -> &StreamSchema {
        &self.0.shape.output
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<TemporalJoin> {
        let Shape { times, keys, .. } = &self.0.shape;
        Ok(TemporalJoin {
            plan: self.0.clone(),
            left: TimedRows::new("left", times[LEFT], |_| Ok(())),
            coming: TimedRows::new("coming", times[RIGHT], |_| Ok(())),
            newest: newest_rows("newest", times[RIGHT], &keys[RIGHT]),
            watermark: Timestamp::MIN,
            leaving: None,
        })
    }
}

impl Plan for TemporalJoinPlan {
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
        let shape = &self.0.shape;
        let mut form = shape.form_of(&[(0, LEFT, "left"), (1, RIGHT, "coming"), (NEWEST, RIGHT, "newest")]);
        let place = |column: usize| shape.place(RIGHT, column);
        form.reading.rules.push(Rule::Newest {
            side: Some(NEWEST),
            key: shape.keys[RIGHT].iter().copied().map(place).collect(),
            time: place(shape.times[RIGHT]),
        });
        form
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        self.0.shape.keyed.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// Holds left rows until the watermark has passed them, and the versions that they and later rows may find.
pub struct TemporalJoin {
    plan: Arc<Shared>,
    left: TimedRows<()>,
    /// Versions that are not before the watermark.
    coming: TimedRows<()>,
    /// Of the versions before the watermark the newest of each key.
    newest: TimedRows<KeyIndex>,
    watermark: Timestamp,
    leaving: Option<Leaving>,
}

/// Rows that a watermark has passed, and the versions that it has passed with them.
struct Leaving {
    rows: VecDeque<RecordBatch>,
    versions: Stretch,
}

impl TemporalJoin {
    /// Takes what is before `time`.
    fn leave(&mut self, time: Timestamp) -> Result<Leaving> {
        let shape = &self.plan.shape;
        let rows = if time < Timestamp::MAX {
            self.watermark = self.watermark.max(time);
            self.left.take_before(self.watermark)?
        } else {
            // The end is not a time: a job that is started again may find more. Versions of rows that have left come too late.
            let passed = |latest: Timestamp| Timestamp::from_micros(latest.micros().saturating_add(1));
            self.watermark = self.watermark.max(self.left.latest().map_or(self.watermark, passed));
            self.left.take_all()?
        };
        let versions = match self.watermark {
            Timestamp::MAX => self.coming.take_all()?,
            watermark => self.coming.take_before(watermark)?,
        };
        let columns = shape.inputs[RIGHT].columns();
        let versions = Stretch::new(columns, &versions, shape.times[RIGHT], &shape.keys[RIGHT])?;
        Ok(Leaving { rows: rows.into(), versions })
    }

    fn join(&self, rows: &RecordBatch, versions: &Stretch, out: &mut Outbox) -> Result<()> {
        let shape = &self.plan.shape;
        let times = times_of(rows, shape.times[LEFT])?;
        let keys = Keys::of(rows, &shape.keys[LEFT])?;
        let finder = Finder::new(&keys, versions, &self.newest, shape.times[RIGHT])?;
        let (mut with, mut found) = (Vec::new(), Vec::new());
        for (row, &time) in times.iter().enumerate() {
            let counts = |since: i64| self.plan.ttl.is_none_or(|ttl| i128::from(time) - i128::from(since) <= ttl);
            if let Some((version, _)) = finder.version(row, time).filter(|&(_, since)| counts(since)) {
                with.push((0, row));
                found.push(version);
            }
        }
        let mut pairs = [Picked { batches: vec![rows], rows: with }, Picked { batches: finder.batches, rows: found }];
        // The version is chosen: the condition is asked of it and of no other.
        if !pairs[LEFT].rows.is_empty() {
            shape.meet(&mut pairs)?;
        }
        let [left, right] = pairs;
        if !left.rows.is_empty() {
            let times = left.times(shape.times[LEFT])?;
            out.emit(shape.result(Vec::new(), [Some(&left), Some(&right)], times)?);
        }
        if shape.join_type.is_outer(LEFT) && left.rows.len() < rows.num_rows() {
            let mut met = vec![false; rows.num_rows()];
            left.rows.iter().for_each(|&(_, row)| met[row] = true);
            let left = Picked::of(rows, (0..rows.num_rows()).filter(|&row| !met[row]));
            let times = left.times(shape.times[LEFT])?;
            out.emit(shape.result(Vec::new(), [Some(&left), None], times)?);
        }
        Ok(())
    }
}

impl Operator for TemporalJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let shape = &self.plan.shape;
        let (side, watermark) = (side_of(port), self.watermark.micros());
        let rows = on_time(side, batch, shape.times[side], |time| time < watermark, out)?;
        match side {
            LEFT if shape.join_type.is_outer(LEFT) => self.left.push(&rows),
            LEFT => self.left.push(&with_valid_key(&rows, &shape.keys[LEFT])?),
            _ => self.coming.push(&with_valid_key(&rows, &shape.keys[RIGHT])?),
        }
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let mut leaving = match self.leaving.take() {
            Some(leaving) => leaving,
            None => self.leave(time)?,
        };
        let mut looked = 0;
        while let Some(rows) = leaving.rows.pop_front() {
            let n = rows.num_rows().min(out.step());
            self.join(&rows.slice(0, n), &leaving.versions, out)?;
            if n < rows.num_rows() {
                leaving.rows.push_front(rows.slice(n, rows.num_rows() - n));
            }
            looked += n;
            if looked >= out.step() && !leaving.rows.is_empty() {
                self.leaving = Some(leaving);
                return Ok(Advance::Again);
            }
        }
        self.newest.push(&leaving.versions.newest()?)?;
        if let Some(ttl) = self.plan.ttl {
            let since = i128::from(self.watermark.micros()) - ttl;
            self.newest.evict_before(Timestamp::from_micros(clamp(since)))?;
        }
        // Just restored the watermark, which begins anew, may be behind.
        Ok(Advance::Promise(if time == Timestamp::MAX { time } else { self.watermark.min(time) }))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.leaving.is_some() {
            return Err(OperatorError::Internal("a join was saved with rows half-way out".into()));
        }
        state.set(WATERMARK, self.watermark.micros());
        let shape = &self.plan.shape;
        self.left.save(state, |rows| shape.segment(LEFT, LEFT as u8, rows))?;
        // Oldest first, for who reads the segments: a version that comes is newer than those that are there.
        self.newest.save(state, |rows| shape.segment(RIGHT, NEWEST, rows))?;
        self.coming.save(state, |rows| shape.segment(RIGHT, RIGHT as u8, rows))
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        // If inputs fell idle one task was ahead, and what it had dropped cannot be found: so the greatest counts.
        self.watermark = state.greatest(false, WATERMARK).map_or(Timestamp::MIN, Timestamp::from_micros);
        let shape = &self.plan.shape;
        self.left.load(state, |segment| shape.of_segment(LEFT, LEFT as u8, segment))?;
        self.newest.load(state, |segment| shape.of_segment(RIGHT, NEWEST, segment))?;
        self.coming.load(state, |segment| shape.of_segment(RIGHT, RIGHT as u8, segment))
    }

    fn size(&self) -> usize {
        let index = self.newest.rows() * KeyIndex::BYTES_PER_ROW;
        self.left.size() + self.coming.size() + self.newest.size() + index
    }
}
