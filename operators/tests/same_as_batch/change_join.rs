//! The join of two tables that change: what its changes add up to is the join of the tables.
//!
//! The harness gives rows in any order within the bound, and changes of one key must come in order. So each side goes through an
//! upsert first, in the same task, because an operator of two inputs is the first one of its pipeline.

use std::collections::{BTreeMap, VecDeque};

use arrow::{
    array::{AsArray, RecordBatch, UInt8Array},
    datatypes::{TimestampMicrosecondType, UInt8Type},
};
use datafusion_expr::{Expr, col, lit};
use proptest::prelude::*;
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::join::JoinType;
use windrow_operators::{
    Advance, KeyGroup, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    changes::{ChangeJoinPlan, UpsertPlan},
    key::key_groups,
    state::{SegmentId, StateForm, StateReader, StateWriter},
    testing::{Check, Pipeline, Row, Value, final_table},
};

use crate::{
    bids::{cases, fail, us},
    joins::TYPES,
    planned::{Fault, Faulty, Task},
};

#[derive(Clone, Debug, PartialEq, Record)]
pub(crate) struct Left {
    pub(crate) k: i64,
    pub(crate) a: i64,
    pub(crate) x: Option<i64>,
    pub(crate) at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Record)]
pub(crate) struct Right {
    pub(crate) y: Option<i64>,
    pub(crate) k: i64,
    pub(crate) c: i64,
    pub(crate) since: Timestamp,
}

fn streams() -> (StreamSchema, StreamSchema) {
    (StreamSchema::with_time(Left::schema(), "at").unwrap(), StreamSchema::with_time(Right::schema(), "since").unwrap())
}

/// What is joined: the keys of both sides, the join columns, and the key of the result among its columns
/// `k, a, x, at, y, c, since`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) left: &'static [&'static str],
    pub(crate) right: &'static [&'static str],
    on: &'static [(&'static str, &'static str)],
    pub(crate) key: &'static [usize],
}

pub(crate) const SHAPES: [Shape; 5] = [
    // By the join key in many tasks.
    Shape { left: &["k"], right: &["k"], on: &[("k", "k")], key: &[0] },
    Shape { left: &["k", "a"], right: &["c", "k"], on: &[("k", "k")], key: &[0, 1, 5] },
    Shape { left: &["a", "k"], right: &["k"], on: &[("k", "k")], key: &[0, 1] },
    // In one task: rows change their join key, which may be null.
    Shape { left: &["a"], right: &["k"], on: &[("k", "k")], key: &[0, 1] },
    Shape { left: &["a"], right: &["c"], on: &[("k", "k"), ("x", "y")], key: &[1, 5] },
];

/// What is joined, how, and whether a condition has to be met: on columns that are of a key in some shapes, and in others change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) shape: Shape,
    pub(crate) join_type: JoinType,
    pub(crate) condition: bool,
}

impl Case {
    fn gives_pairs(&self) -> bool {
        !matches!(self.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
    }

    fn condition(&self) -> Option<Expr> {
        let condition = col("x").gt(col("c")).and(col("right.k").not_eq(lit(3)));
        self.condition.then_some(condition)
    }

    /// The key among the columns of the result: of a semi join that of the left side.
    pub(crate) fn key(&self) -> Vec<usize> {
        let left = |name: &&str| usize::from(*name != "k");
        if self.gives_pairs() { self.shape.key.to_vec() } else { self.shape.left.iter().map(left).collect() }
    }
}

pub(crate) fn some_case() -> impl Strategy<Value = Case> {
    let case = (prop::sample::select(SHAPES.to_vec()), prop::sample::select(TYPES.to_vec()), any::<bool>());
    case.prop_map(|(shape, join_type, condition)| {
        // Rows of both sides could have one key: refused.
        let condition = condition && !(join_type == JoinType::Full && shape.key == [0]);
        Case { shape, join_type, condition }
    })
}

/// Upserts of both sides, and their join.
pub(crate) struct Joined {
    pub(crate) upserts: [UpsertPlan; 2],
    pub(crate) join: ChangeJoinPlan,
}

impl Joined {
    pub(crate) fn new(case: &Case, ttl: Option<u64>) -> Self {
        let Case { shape, join_type, .. } = *case;
        let (left, right) = streams();
        let upserts = [
            UpsertPlan::new(&left, shape.left, Some(&col("x").eq(lit(0))), None).unwrap(),
            UpsertPlan::new(&right, shape.right, Some(&col("y").eq(lit(0))), None).unwrap(),
        ];
        let (l, r) = (upserts[0].output(), upserts[1].output());
        let join = ChangeJoinPlan::new(l, r, shape.on, join_type, case.condition().as_ref(), ttl.map(us)).unwrap();
        Self { upserts, join }
    }

    fn pipeline(&self, fault: Option<Fault>) -> Pipeline<'_> {
        let [Partitioning::Key(left), right] = &self.join.inputs()[..] else { panic!("two inputs by key") };
        let by_k = !left.is_empty();
        let (l, r) = streams();
        let pipeline = Pipeline::two(&l, &r).exchange_two(left.clone(), right.clone());
        let pipeline = pipeline.stage(self.join.output(), move || {
            let upsert = |plan: &UpsertPlan| {
                Ok::<_, OperatorError>(Upsert { inner: plan.whole()?, by_k, next: SegmentId(0), ids: BTreeMap::new() })
            };
            let [left, right] = &self.upserts;
            let forms = [left.state_form(), right.state_form(), self.join.state_form()];
            let chain = Chain {
                upserts: [upsert(left)?, upsert(right)?],
                join: self.join.whole()?,
                forms,
                changes: VecDeque::new(),
            };
            Ok(Faulty::new(chain, self.join.output(), fault))
        });
        pipeline.keyed(self.join.keyed_output())
    }
}

/// An upsert whose rows came by the key of the join, `k` or none, so that its state must be of these key groups.
struct Upsert {
    inner: Box<dyn Operator>,
    by_k: bool,
    next: SegmentId,
    /// Its numbers of segments, and those that they have in the chain.
    ids: BTreeMap<SegmentId, SegmentId>,
}

impl Upsert {
    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        let mut own = StateWriter::new(&mut self.next);
        self.inner.save(&mut own)?;
        let own = own.finish();
        own.numbers.iter().for_each(|(name, number)| state.set(name, *number));
        for (id, rows) in own.segments {
            let Some(rows) = rows else {
                state.keep(self.ids[&id]);
                continue;
            };
            let k = rows.column_by_name("k").unwrap().clone();
            let groups =
                if self.by_k { key_groups(&[k], rows.num_rows())? } else { vec![KeyGroup(0); rows.num_rows()] };
            let mut columns = rows.columns().to_vec();
            columns[0] = std::sync::Arc::new(UInt8Array::from_iter_values(groups.iter().map(|group| group.0)));
            self.ids.insert(id, state.seal(RecordBatch::try_new(rows.schema(), columns)?));
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        for (id, _) in state.parts.iter().flat_map(|part| &part.segments) {
            self.ids.insert(*id, *id);
            self.next = self.next.max(SegmentId(id.0 + 1));
        }
        self.inner.load(state)
    }
}

struct Chain {
    upserts: [Upsert; 2],
    join: Box<dyn Operator>,
    forms: [StateForm; 3],
    /// Changes for the join; first those that it goes on with.
    changes: VecDeque<RecordBatch>,
}

impl Chain {
    /// Gives changes to the join, which answers for none of its own.
    fn join(&mut self, port: Port, out: &mut Outbox) -> Result<()> {
        let Some(changes) = self.changes.pop_front() else { return Ok(()) };
        let rest = changes.slice(0, 0);
        let mut joined = Outbox::new();
        joined.set_step(out.step());
        self.join.process(port, changes, &mut joined)?;
        if joined.take_again() {
            self.changes.push_front(rest);
        }
        if !self.changes.is_empty() {
            out.again();
        }
        joined.drain().for_each(|(_, rows)| out.emit(rows));
        Ok(())
    }
}

impl Operator for Chain {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let mut changes = Outbox::new();
        self.upserts[usize::from(port.0)].inner.process(port, batch, &mut changes)?;
        out.processed(changes.take_counts().0 as usize);
        for (to, rows) in changes.drain() {
            match to {
                Port::MAIN => self.changes.push_back(rows),
                _ => out.late_on(if port == Port::RIGHT { Port::LATE_RIGHT } else { Port::LATE }, rows),
            }
        }
        self.join(port, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        for upsert in &mut self.upserts {
            upsert.inner.advance(time, out)?;
        }
        self.join.advance(time, out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.upserts.iter_mut().try_for_each(|upsert| upsert.save(state))?;
        self.join.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        for (at, form) in self.forms.iter().enumerate() {
            let mut state = state.clone();
            // Of the others' segments only that they are there.
            for (_, rows) in state.parts.iter_mut().flat_map(|part| &mut part.segments) {
                if rows.schema_ref().fields().iter().map(|f| f.name()).ne(form
                    .columns
                    .fields()
                    .iter()
                    .map(|f| f.name()))
                {
                    *rows = RecordBatch::new_empty(form.columns.clone());
                }
            }
            match self.upserts.get_mut(at) {
                Some(upsert) => upsert.load(&state)?,
                None => self.join.load(&state)?,
            }
        }
        Ok(())
    }
}

fn newest<T: Clone>(rows: &[T], key: impl Fn(&T) -> Vec<i64>, order: impl Fn(&T) -> Vec<Value>) -> Vec<T> {
    let mut newest: BTreeMap<Vec<i64>, T> = BTreeMap::new();
    for row in rows {
        let kept = newest.entry(key(row)).or_insert_with(|| row.clone());
        if order(row) > order(kept) {
            *kept = row.clone();
        }
    }
    newest.into_values().collect()
}

pub(crate) fn oracle(left: &[Left], right: &[Right], case: &Case) -> Vec<Row> {
    let shape = case.shape;
    let value = |names: &[&str], k, a| names.iter().map(|name| if *name == "k" { k } else { a }).collect();
    let of_left = |row: &Left| vec![row.at.into(), row.k.into(), row.a.into(), row.x.into(), row.at.into()];
    let of_right = |row: &Right| vec![row.since.into(), row.y.into(), row.k.into(), row.c.into()];
    let mut left = newest(left, |row| value(shape.left, row.k, row.a), of_left);
    let mut right = newest(right, |row| value(shape.right, row.k, row.c), of_right);
    left.retain(|row| row.x != Some(0));
    right.retain(|row| row.y != Some(0));
    tables_joined(left, right, case)
}

/// The join of two tables, by the definition.
pub(crate) fn tables_joined(mut left: Vec<Left>, right: Vec<Right>, case: &Case) -> Vec<Row> {
    let Case { shape, join_type, .. } = case;
    let also = shape.on.len() > 1;
    let judge = |l: &Left, r: &Right| !case.condition || (l.x.is_some_and(|x| x > r.c) && r.k != 3);
    let meet = |l: &Left, r: &Right| l.k == r.k && (!also || (l.x.is_some() && l.x == r.y)) && judge(l, r);
    let pair = |l: Option<&Left>, r: Option<&Right>| {
        let k = l.map(|l| l.k).or(r.map(|r| r.k));
        Row::from(vec![
            k.into(),
            l.map(|l| l.a).into(),
            l.and_then(|l| l.x).into(),
            l.map(|l| l.at).into(),
            r.and_then(|r| r.y).into(),
            r.map(|r| r.c).into(),
            r.map(|r| r.since).into(),
        ])
    };
    if !case.gives_pairs() {
        left.retain(|l| right.iter().any(|r| meet(l, r)) == (*join_type == JoinType::LeftSemi));
        return left.iter().map(|l| (l.k, l.a, l.x, l.at).into()).collect();
    }
    let mut rows = Vec::new();
    for l in &left {
        rows.extend(right.iter().filter(|r| meet(l, r)).map(|r| pair(Some(l), Some(r))));
        if matches!(join_type, JoinType::Left | JoinType::Full) && !right.iter().any(|r| meet(l, r)) {
            rows.push(pair(Some(l), None));
        }
    }
    for r in &right {
        if matches!(join_type, JoinType::Right | JoinType::Full) && !left.iter().any(|l| meet(l, r)) {
            rows.push(pair(None, Some(r)));
        }
    }
    rows
}

pub(crate) fn some_rows() -> impl Strategy<Value = (Vec<Left>, Vec<Right>)> {
    let at = || (-20i64..20).prop_map(Timestamp::from_micros);
    let value = || prop::option::weighted(0.8, 0i64..5);
    let left = (0i64..4, 0i64..4, value(), at()).prop_map(|(k, a, x, at)| Left { k, a, x, at });
    let right = (0i64..4, 0i64..4, value(), at()).prop_map(|(k, c, y, since)| Right { y, k, c, since });
    (prop::collection::vec(left, 0..40), prop::collection::vec(right, 0..40))
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn every_join_of_every_shape(
        rows in some_rows(), case in some_case(), bound in 0u64..40, seed: u64,
    ) {
        let joined = Joined::new(&case, None);
        let check = || {
            let check = Check::new(joined.pipeline(None)).out_of_order(us(bound)).seed(seed);
            check.reduced(final_table(&case.key()))
        };
        let oracle = |left: &[Left], right: &[Right]| oracle(left, right, &case);
        check().run_two(&rows.0, &rows.1, oracle).map_err(fail)?;
        let is_late = (|row: &Left, time| row.at < time, |row: &Right, time| row.since < time);
        check().fall_idle().run_two_beyond_bound(&rows.0, &rows.1, is_late, oracle).map_err(fail)?;
    }

    /// At the end all rows have gone, and what they were in.
    #[test]
    fn with_a_time_to_live_nothing_is_left(
        rows in some_rows(), case in some_case(), bound in 0u64..40, ttl in 0u64..40, seed: u64,
    ) {
        let joined = Joined::new(&case, Some(ttl));
        let check = Check::new(joined.pipeline(None)).out_of_order(us(bound)).seed(seed).reduced(final_table(&case.key()));
        check.run_two(&rows.0, &rows.1, |_, _| Vec::<Row>::new()).map_err(fail)?;
    }
}

fn full(shape: Shape) -> Case {
    Case { shape, join_type: JoinType::Full, condition: false }
}

#[test]
fn both_ends_of_time() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX].map(Timestamp::from_micros);
    let left: Vec<_> = (0..).zip(ends).map(|(i, at)| Left { k: i % 3, a: i, x: None, at }).collect();
    let right: Vec<_> = (0..).zip(ends).map(|(i, since)| Right { y: None, k: i % 4, c: i, since }).collect();
    for shape in [SHAPES[0], SHAPES[1], SHAPES[3]] {
        for ttl in [None, Some(0), Some(5), Some(u64::MAX)] {
            let joined = Joined::new(&full(shape), ttl);
            let check = Check::new(joined.pipeline(None)).reduced(final_table(shape.key));
            check.assert_two(&left, &right, |left, right| match ttl {
                None => oracle(left, right, &full(shape)),
                Some(_) => Vec::new(),
            });
        }
    }
}

fn rows() -> (Vec<Left>, Vec<Right>) {
    let at = |i: i64| Timestamp::from_micros(i * 37 % 61);
    let left = (0..90).map(|i| Left { k: i % 7, a: i * i % 5, x: Some(i * 3 % 4), at: at(i) }).collect();
    let right = (0..70).map(|i| Right { y: Some(i % 4), k: i * i % 6, c: i % 3, since: at(i + 1) }).collect();
    (left, right)
}

#[test]
fn faults_are_caught() {
    let (left, right) = rows();
    let caught = [
        (Fault::InsertsForUpdates, "came upon"),
        (Fault::DeletesAreLost, ""),
        (Fault::ForgetsItsState, "came upon"),
        (Fault::LastRowOfABatchIsLost, ""),
        (Fault::DeletesAnotherRow, "came upon"),
    ];
    for shape in [SHAPES[1], SHAPES[3]] {
        let joined = Joined::new(&full(shape), None);
        let run = |fault| {
            let check = Check::new(joined.pipeline(fault)).out_of_order(us(9)).reduced(final_table(shape.key));
            check.run_two(&left, &right, |left, right| oracle(left, right, &full(shape)))
        };
        run(None).unwrap();
        for (fault, words) in caught {
            let failure = run(Some(fault)).expect_err(&format!("{fault:?} was not caught"));
            assert!(failure.contains(words), "{fault:?} was caught, but by this: {failure}");
        }
    }
}

pub(crate) fn change(stream: &StreamSchema, rows: RecordBatch, op: u8) -> RecordBatch {
    let ops = vec![op; rows.num_rows()];
    changes(stream, rows, ops)
}

/// Rows as changes that do this.
pub(crate) fn changes(stream: &StreamSchema, rows: RecordBatch, ops: Vec<u8>) -> RecordBatch {
    let time =
        rows.column(stream.visible().fields().iter().position(|f| *f.data_type() == Timestamp::data_type()).unwrap());
    let mut columns = rows.columns().to_vec();
    columns.push(std::sync::Arc::new(UInt8Array::from(ops)));
    columns.push(time.clone());
    RecordBatch::try_new(stream.columns().clone(), columns).unwrap()
}

pub(crate) fn left(rows: Vec<(i64, i64, i64)>) -> RecordBatch {
    let row = |(k, a, at)| Left { k, a, x: None, at: Timestamp::from_micros(at) };
    let mut builders = Left::new_builders(0);
    builders.append_rows(rows.into_iter().map(row));
    builders.finish().into_record_batch()
}

pub(crate) fn right(rows: Vec<(i64, i64, i64)>) -> RecordBatch {
    let row = |(k, c, at)| Right { y: None, k, c, since: Timestamp::from_micros(at) };
    let mut builders = Right::new_builders(0);
    builders.append_rows(rows.into_iter().map(row));
    builders.finish().into_record_batch()
}

/// (op, a, c, time) of what was emitted.
fn told(emitted: Vec<(Port, RecordBatch)>) -> Vec<(u8, Option<i64>, Option<i64>, i64)> {
    let mut told = Vec::new();
    for (_, rows) in emitted {
        let number = |column: usize| {
            rows.column(column).as_primitive::<arrow::datatypes::Int64Type>().iter().collect::<Vec<_>>()
        };
        let ops = rows.column(7).as_primitive::<UInt8Type>().values();
        let times = rows.column(8).as_primitive::<TimestampMicrosecondType>().values();
        let (a, c) = (number(1), number(5));
        told.extend((0..rows.num_rows()).map(|row| (ops[row], a[row], c[row], times[row])));
    }
    told.sort_unstable();
    told
}

#[test]
fn padded_rows_come_and_go() {
    let shape = SHAPES[1];
    let joined = Joined::new(&full(shape), Some(100));
    let (l, r) = (joined.upserts[0].output(), joined.upserts[1].output());
    let mut task = Task::new(&joined.join);
    let mut step = |port, rows| {
        let told = told(task.process(port, rows));
        task.save();
        task.restart();
        told
    };
    let of_left = |rows, op| change(l, left(rows), op);
    let of_right = |rows, op| change(r, right(rows), op);
    assert_eq!(
        step(Port::MAIN, of_left(vec![(1, 10, 5), (1, 11, 6)], 0)),
        [(0, Some(10), None, 5), (0, Some(11), None, 6)]
    );
    let first = [(0, Some(10), Some(7), 8), (0, Some(11), Some(7), 8), (2, Some(10), None, 8), (2, Some(11), None, 8)];
    assert_eq!(step(Port::RIGHT, of_right(vec![(1, 7, 8)], 0)), first);
    assert_eq!(step(Port::RIGHT, of_right(vec![(1, 7, 9)], 1)), [(1, Some(10), Some(7), 9), (1, Some(11), Some(7), 9)]);
    assert_eq!(step(Port::MAIN, of_left(vec![(1, 10, 10)], 2)), [(2, Some(10), Some(7), 10)]);
    assert_eq!(step(Port::MAIN, of_left(vec![(1, 12, 10)], 2)), [], "it was never there");
    assert_eq!(step(Port::MAIN, of_left(vec![(1, 11, 11)], 2)), [(0, None, Some(7), 11), (2, Some(11), Some(7), 11)]);
    assert_eq!(told(task.advance(110)), [(2, None, Some(7), 109)]);
    assert_eq!(
        (task.operator.size(), task.save(), task.state.segments.len()),
        (joined.join.whole().unwrap().size(), 0, 0)
    );
    let late = task.process(Port::RIGHT, of_right(vec![(1, 7, 9)], 1));
    assert_eq!(late[0].0, Port::LATE_RIGHT);
}

#[test]
fn a_day_with_a_time_to_live_leaves_nothing() {
    let joined = Joined::new(&full(SHAPES[1]), Some(3_600));
    let (l, r) = (joined.upserts[0].output(), joined.upserts[1].output());
    let mut task = Task::new(&joined.join);
    let (mut most, mut early) = (0, 0);
    for minute in 0..24 * 60 {
        let at = minute * 60;
        task.process(Port::MAIN, change(l, left((0..20).map(|i| (minute * 10 + i, i % 3, at)).collect()), 0));
        task.process(Port::RIGHT, change(r, right((0..20).map(|i| (minute * 10 + i, i % 2, at)).collect()), 0));
        task.advance(at);
        if minute % 10 == 0 {
            task.save();
            assert!(task.state.segments.len() < 24, "{} segments", task.state.segments.len());
        }
        if minute % 250 == 0 {
            task.save();
            task.restart();
        }
        most = most.max(task.operator.size());
        early = if minute == 180 { most } else { early };
    }
    assert!(most < 2 * early, "{early} bytes after three hours and {most} at the most");
    task.advance(26 * 3_600);
    assert_eq!(
        (task.operator.size(), task.save(), task.state.segments.len()),
        (joined.join.whole().unwrap().size(), 0, 0)
    );
}

#[test]
fn plans_that_cannot_work() {
    let (rows_of_left, rows_of_right) = streams();
    let table =
        |stream: &StreamSchema, key: &str| UpsertPlan::new(stream, &[key], None, None).unwrap().output().clone();
    let (l, r) = (table(&rows_of_left, "a"), table(&rows_of_right, "c"));
    let error = |l, r, on: &[(&str, &str)], join_type, ttl| {
        ChangeJoinPlan::new(l, r, on, join_type, None, ttl).unwrap_err().to_string()
    };
    let inner = JoinType::Inner;
    assert!(
        error(&rows_of_left, &r, &[("k", "k")], inner, None).contains("make changes of them with .key_by(…).latest()")
    );
    assert!(error(&l, &r, &[("a", "c")], inner, None).contains(r#"both sides of the join have a column "k""#));
    assert!(ChangeJoinPlan::new(&l, &r, &[("a", "c")], JoinType::LeftSemi, None, None).is_ok(), "left columns only");
    assert!(error(&l, &r, &[("k", "since")], inner, None).contains("joining different key types"));
    assert!(error(&l, &r, &[("k", "q")], inner, None).contains(r#"there is no column "q""#));
    assert!(error(&l, &r, &[], inner, None).contains("at least one pair"));
    let untimed = StreamSchema::changes_without_time(&Right::schema(), &["c"]).unwrap();
    assert!(error(&l, &untimed, &[("k", "k")], inner, Some(us(1))).contains("a time to live is counted in event time"));
    let join = ChangeJoinPlan::new(&l, &untimed, &[("k", "k")], inner, None, None).unwrap();
    assert_eq!((join.output().time(), join.inputs()), (None, vec![Partitioning::Key(vec![]); 2]));

    let where_ = |condition: Expr, join_type| {
        ChangeJoinPlan::new(&l, &r, &[("k", "k")], join_type, Some(&condition), None).unwrap_err().to_string()
    };
    assert!(where_(col("k").gt(lit(1)), inner).contains(r#"the column "k" is on both sides of the join"#));
    assert!(where_(col("a") + col("c"), inner).contains("not a condition"));
    assert!(where_(col("b").gt(lit(1)), inner).contains(r#"there is no column "b""#));
}

/// Without a partner there is a row of each side: they must not be one row of the result.
#[test]
fn a_full_join_tells_rows_of_both_sides_apart() {
    let (l, r) = streams();
    let table =
        |stream: &StreamSchema, key: &[&str]| UpsertPlan::new(stream, key, None, None).unwrap().output().clone();
    let condition = col("a").gt(col("c"));
    let full = |left: &[&str], right: &[&str], on: (&str, &str), condition: Option<&Expr>| {
        let plan = ChangeJoinPlan::new(&table(&l, left), &table(&r, right), &[on], JoinType::Full, condition, None);
        plan.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(full(&["k"], &["k"], ("k", "k"), None), Ok(()));
    let text = full(&["k"], &["k"], ("k", "k"), Some(&condition)).unwrap_err();
    assert!(text.contains(r#"both would have the key "k""#) && text.contains(r#"alias("right_k")"#), "{text}");
    assert_eq!(full(&["k", "a"], &["k"], ("k", "k"), Some(&condition)), Ok(()), "a tells them apart");
    let text = full(&["x"], &["y"], ("k", "k"), None).unwrap_err();
    assert!(text.contains("needs a column of a key that is never null"), "{text}");
}
