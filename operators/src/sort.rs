//! Rows in order of event time, for operators that depend on it.
//!
//! ```text
//!   rows ──process──► TimedRows: held until the watermark passes them
//!                         │
//!   watermark w ──advance─┴─► rows earlier than w, by time and then by all their columns, in batches of ≤ 8192
//!   rows earlier than the watermark when they come ──► LATE
//! ```
//!
//! Rows of one time are ordered by their other columns, from the first to the last, ascending, nulls first, floats by
//! their total order. So the order that leaves is a function of the rows alone, not of how they arrived, and so is what
//! an operator behind it computes from the order. Such an operator stands in the same task, behind the same exchange.
//!
//! # The disk format
//!
//! `__key_group`, then all columns of the input, hidden event time too: one row for each row that waits. The number
//! `rows_from` is that of `TimedRows`; `closed` says up to where rows have left: earlier ones are late.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{ArrayRef, DynComparator, RecordBatch, make_comparator, new_empty_array},
    compute::SortOptions,
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};

use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, StreamSchema, Timestamp,
    key::check_key,
    late::set_late_aside,
    plan::{KeyedOutput, Partitioning, Plan},
    state::{
        KEY_GROUP, Reading, StateForm, StateReader, StateWriter,
        bounded::Ordered,
        segments::{key_group_column, own_bytes},
        timed::TimedRows,
    },
    time::times_of,
};

/// The number that says up to where rows have left.
const CLOSED: &str = "closed";
/// Nulls first.
const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: true };

/// Lets rows go in order of event time, once the watermark has passed them. Rows come out as they came in; those that are
/// earlier than the watermark when they come are late.
///
/// ```
/// use arrow::array::RecordBatch;
/// use windrow_operators::{Advance, Operator, Outbox, Plan, Port, StreamSchema, Timestamp, sort::SortPlan};
///
/// let rows = RecordBatch::try_from_iter([("at", Timestamp::column(vec![30, 10, 20]))]).unwrap();
/// let stream = StreamSchema::with_time(rows.schema(), "at").unwrap();
/// let mut sort = SortPlan::new(&stream, &[]).unwrap().whole().unwrap();
/// let mut out = Outbox::new();
/// sort.process(Port::MAIN, rows, &mut out).unwrap();
/// let time = Timestamp::from_micros(25);
/// assert_eq!(sort.advance(time, &mut out).unwrap(), Advance::Promise(time));
/// let (_, first) = out.drain().next().unwrap();
/// assert_eq!(first.column(0), &Timestamp::column(vec![10, 20]));
/// ```
#[derive(Clone, Debug)]
pub struct SortPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    input: StreamSchema,
    key: Vec<usize>,
    time: usize,
    form: StateForm,
}

impl SortPlan {
    /// Orders the rows of `input`, which are partitioned by the columns `key`: those of what stands behind it. Fails when
    /// the stream has no event time, a column does not exist or cannot be a key, or a column has no order.
    pub fn new(input: &StreamSchema, key: &[&str]) -> Result<Self> {
        let time = input.event_time("sorting")?;
        let key = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &key)?;
        let columns = input.columns().fields();
        for field in columns {
            check_order(field)?;
        }
        if columns.iter().any(|field| field.name() == KEY_GROUP) {
            return Err(OperatorError::Plan(format!("the column name {KEY_GROUP:?} is reserved")));
        }
        let mut fields = vec![Arc::new(Field::new(KEY_GROUP, DataType::UInt8, false))];
        fields.extend(columns.iter().cloned());
        let names: Vec<&str> = key.iter().map(|&i| columns[i].name().as_str()).collect();
        let per = if key.is_empty() { String::new() } else { format!(" per {}", names.join(", ")) };
        let form = StateForm {
            identity: columns.len(),
            columns: Arc::new(Schema::new(fields)),
            meaning: format!("in order of event time{per}"),
            reading: Reading::each([TimedRows::<()>::rule("rows", None, 1 + time)]),
        };
        Ok(Self(Arc::new(Shared { input: input.clone(), key, time, form })))
    }

    /// The schema of the rows that leave: that of the input.
    pub fn output(&self) -> &StreamSchema {
        &self.0.input
    }

    /// The operator of one task.
    pub fn whole(&self) -> Result<Sort> {
        let time = self.0.time;
        Ok(Sort {
            plan: self.0.clone(),
            rows: TimedRows::new("rows", time, |_| Ok(())),
            closed: Timestamp::MIN,
            leaving: None,
        })
    }
}

/// Refuses a column that rows of one time could not be ordered by.
fn check_order(field: &Field) -> Result<()> {
    let none = new_empty_array(field.data_type());
    match make_comparator(&none, &none, ASCENDING) {
        Ok(_) => Ok(()),
        Err(_) => Err(OperatorError::Plan(format!(
            "column {:?} is {} and has no order, so rows of one time could come out in any order: project it away or \
             make it one that has",
            field.name(),
            field.data_type()
        ))),
    }
}

impl Plan for SortPlan {
    fn noun(&self) -> &'static str {
        "sort"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.clone())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        vec![(Port::MAIN, self.0.input.clone()), (Port::LATE, self.0.input.clone())]
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        Some(KeyedOutput::columns(self.0.key.iter().copied()))
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// Holds rows until the watermark passes them.
pub struct Sort {
    plan: Arc<Shared>,
    rows: TimedRows<()>,
    /// Rows earlier than this have left.
    closed: Timestamp,
    /// Rows on their way out.
    leaving: Option<Ordered>,
}

impl Operator for Sort {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let on_time = set_late_aside(batch, self.plan.time, |time| time < self.closed.micros(), Port::LATE, out)?;
        out.processed(on_time.num_rows());
        self.rows.push(&on_time)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if self.leaving.is_none() {
            let end_of_input = time == Timestamp::MAX;
            let gone = if end_of_input { self.rows.take_all()? } else { self.rows.take_before(time)? };
            // The end is not a time: a job that is started again may find more, as long as it is not before what has left.
            self.closed = self.closed.max(if end_of_input { self.rows.from() } else { time });
            self.leaving = if gone.is_empty() { None } else { Some(ordered(&self.plan, gone)?) };
        }
        let Some(mut leaving) = self.leaving.take() else { return Ok(Advance::Promise(time)) };
        if let Some(rows) = leaving.take(out.step())? {
            out.emit(rows);
        }
        if leaving.is_empty() {
            return Ok(Advance::Promise(time));
        }
        self.leaving = Some(leaving);
        Ok(Advance::Again)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.leaving.is_some() {
            return Err(OperatorError::Internal("a sort was saved with rows half-way out".into()));
        }
        state.set(CLOSED, self.closed.micros());
        let plan = &self.plan;
        self.rows.save(state, |rows| {
            let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
            let mut columns = vec![key_group_column(&key, rows.num_rows())?];
            columns.extend(rows.columns().iter().cloned().map(own_bytes));
            Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
        })
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        // Of tasks that stood at different times one was ahead: what is behind it has seen rows up to there.
        self.closed = state.greatest(false, CLOSED).map_or(Timestamp::MIN, Timestamp::from_micros);
        let plan = &self.plan;
        self.rows.load(state, |segment| {
            let columns = plan.form.widen(segment)?.columns()[1..].to_vec();
            Ok(Some(RecordBatch::try_new(plan.input.columns().clone(), columns)?))
        })
    }

    fn size(&self) -> usize {
        self.rows.size() + self.leaving.as_ref().map_or(0, Ordered::size)
    }
}

/// The rows in the order in which they leave. Pieces stay as they are: together they may be too large for one batch.
fn ordered(plan: &Shared, pieces: Vec<RecordBatch>) -> Result<Ordered> {
    let times = pieces.iter().map(|rows| times_of(rows, plan.time)).collect::<Result<Vec<_>>>()?;
    if times.iter().copied().flatten().is_sorted_by(|a, b| a < b) {
        return Ok(Ordered::as_they_are(pieces));
    }
    let of_piece = |(piece, times): (usize, &&[i64])| {
        times.iter().enumerate().map(|(row, time)| (*time, (piece, row))).collect::<Vec<_>>()
    };
    let mut order: Vec<(i64, (usize, usize))> = times.iter().enumerate().flat_map(of_piece).collect();
    order.sort_by_key(|(time, _)| *time);
    let mut others = Comparators::new(plan, &pieces);
    for same in order.chunk_by_mut(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1) {
        same.sort_unstable_by(|(_, a), (_, b)| others.compare(*a, *b));
    }
    others.finish()?;
    Ok(Ordered::new(pieces, order.into_iter().map(|(_, place)| place).collect()))
}

/// Compares rows of pieces by all columns but the time, from the first to the last.
struct Comparators<'a> {
    columns: Vec<usize>,
    pieces: &'a [RecordBatch],
    /// By two pieces, made when rows of them are first compared: one for each column.
    made: Vec<Option<Vec<DynComparator>>>,
    failed: Option<ArrowError>,
}

impl<'a> Comparators<'a> {
    fn new(plan: &Shared, pieces: &'a [RecordBatch]) -> Self {
        let columns = (0..plan.input.columns().fields().len()).filter(|&i| i != plan.time).collect();
        let made = (0..pieces.len() * pieces.len()).map(|_| None).collect();
        Self { columns, pieces, made, failed: None }
    }

    fn compare(&mut self, (a, left): (usize, usize), (b, right): (usize, usize)) -> Ordering {
        let Self { columns, pieces, made, failed } = self;
        let comparators = made[a * pieces.len() + b].get_or_insert_with(|| {
            let of = |&i: &usize| make_comparator(pieces[a].column(i), pieces[b].column(i), ASCENDING);
            columns.iter().map(of).collect::<Result<_, _>>().unwrap_or_else(|error| {
                *failed = Some(error);
                Vec::new()
            })
        });
        comparators.iter().map(|compare| compare(left, right)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
