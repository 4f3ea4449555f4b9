//! The join of two tables that change, without a window.
//!
//! ```text
//!   left changes  ──► rows by key, and by join key ─┐
//!                                                   ├─► pairs that come and go ──► folded per output key ──► changes
//!   right changes ──► rows by key, and by join key ─┘
//! ```
//!
//! Here: what is joined, and the form of the state. `pairs`: which pairs come and go with a change. `operator`: the state
//! machine around them.

mod operator;
mod pairs;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::join::JoinType;
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt8Array, new_null_array},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt8Type},
};

use super::{lifetime::check_ttl, store};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema,
    join::same_type,
    key::check_key,
    plan::{Partitioning, Plan},
    schema::no_duplicates,
    state::{KEY_GROUP, StateForm, segments::own_bytes},
};

/// The column of the state that says of which side a row is.
const SIDE: &str = "side";
const LEFT: usize = 0;
const RIGHT: usize = 1;
const NAMES: [&str; 2] = ["left", "right"];

/// Joins two streams of changes: the join of the two tables as they are now, kept up to date.
///
/// The result is a stream of changes by the key of the left side and then that of the right one, where a join column that both
/// sides call alike is there once. It has the columns of the left side, then those of the right one; the columns of a side
/// that has no partner are null. Rows whose join columns are null have no partner. When a batch of changes comes, what it
/// does to each row of the result leaves as one change; a row with very many partners gives as many changes at once.
///
/// With a time to live a row goes away when its last change is more than that behind the watermark, with deletes of what it was
/// in; a change that is itself so far behind is late; at the end of the input all rows go. **Without a time to live the rows of
/// both tables are kept for ever.**
///
/// When the join columns are part of the keys of both sides, tasks share the work by them. Otherwise a row may move from one
/// join key to another, and no task but one that has all rows could put its changes in order: then there is one task.
///
/// The state has the columns `__key_group`, `side` (0 left, 1 right), the keys of both sides, `__gone`, `__time`, and the other
/// columns of both sides; those of the other side are null.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt8Array};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_operators::join::JoinType;
/// use windrow_operators::{Operator, Outbox, Plan, Port, StreamSchema, changes::ChangeJoinPlan};
///
/// let table = |columns: [&str; 2]| {
///     let fields = columns.map(|name| Field::new(name, DataType::Int64, false));
///     StreamSchema::changes_without_time(&Schema::new(fields.to_vec()), &[columns[0]]).unwrap()
/// };
/// let change = |table: &StreamSchema, key: i64, value: i64, op: u8| {
///     let number = |n| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
///     let columns = vec![number(key), number(value), Arc::new(UInt8Array::from(vec![op])) as _];
///     RecordBatch::try_new(table.columns().clone(), columns).unwrap()
/// };
/// let (stock, price) = (table(["item", "stock"]), table(["item", "price"]));
/// let plan = ChangeJoinPlan::new(&stock, &price, &[("item", "item")], JoinType::Left, None).unwrap();
/// assert_eq!(plan.output().to_string(), "changes by item: item Int64, stock Int64, price Int64");
///
/// let mut join = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// join.process(Port::MAIN, change(&stock, 7, 3, 0), &mut out).unwrap();
/// join.process(Port::RIGHT, change(&price, 7, 99, 0), &mut out).unwrap();
/// let rows: Vec<_> = out.drain().map(|(_, rows)| rows).collect();
/// assert!(rows[0].column(2).is_null(0), "no price yet: an insert");
/// assert!(rows[1].column(2).is_valid(0), "then an update");
/// ```
#[derive(Clone, Debug)]
pub struct ChangeJoinPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sides: [Side; 2],
    /// Whether the rows of a side that have no partner are in the result.
    keeps: [bool; 2],
    ttl: Option<Duration>,
    sources: Vec<Source>,
    output: StreamSchema,
    form: StateForm,
}

#[derive(Debug)]
struct Side {
    input: StreamSchema,
    /// The visible columns: those of the key of its changes, the others, the join columns, and those that choose the task.
    key: Vec<usize>,
    others: Vec<usize>,
    on: Vec<usize>,
    partition: Vec<usize>,
    /// Those of its store.
    columns: SchemaRef,
}

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Side(usize, usize),
    /// A join column of both sides, from the side that is there.
    Both(usize, usize),
}

impl ChangeJoinPlan {
    /// Rows of `left` and `right` that agree in the columns `on`; `join_type` is one of `Inner`, `Left`, `Right` and `Full`.
    /// Fails when a side is not a stream of changes, a column does not exist or has another type than its partner, both
    /// sides have a column of one name that is not a join column of both, or there is a time to live and a side without event
    /// time.
    pub fn new(
        left: &StreamSchema,
        right: &StreamSchema,
        on: &[(&str, &str)],
        join_type: JoinType,
        ttl: Option<Duration>,
    ) -> Result<Self> {
        let keeps = match join_type {
            JoinType::Inner => [false, false],
            JoinType::Left => [true, false],
            JoinType::Right => [false, true],
            JoinType::Full => [true, true],
            other => {
                return Err(OperatorError::Plan(format!(
                    "there is no {other} join of changes: it is Inner, Left, Right or Full"
                )));
            }
        };
        let mut pairs = Vec::with_capacity(on.len());
        for (l, r) in on {
            pairs.push((left.index_of(l)?, right.index_of(r)?));
        }
        if pairs.is_empty() {
            return Err(OperatorError::Plan("a join of changes needs at least one pair of join columns".into()));
        }
        pairs.iter().try_for_each(|&(l, r)| same_type(left.columns().field(l), right.columns().field(r)))?;
        let is_of_key = |stream: &StreamSchema, column| stream.change_key().is_some_and(|key| key.contains(column));
        let fixed = pairs.iter().all(|(l, r)| is_of_key(left, l) && is_of_key(right, r));
        let sides = [
            Side::new(left, pairs.iter().map(|pair| pair.0).collect(), fixed)?,
            Side::new(right, pairs.iter().map(|pair| pair.1).collect(), fixed)?,
        ];
        sides.iter().try_for_each(|side| check_ttl(ttl, &side.input))?;
        let (sources, output) = result_columns(&sides, &pairs, keeps)?;
        let mut meaning = format!("{} join on ", format!("{join_type}").to_lowercase());
        for (at, (l, r)) in on.iter().enumerate() {
            let _ = write!(meaning, "{}{l} = {r}", if at == 0 { "" } else { ", " });
        }
        let form = form(&sides, meaning);
        Ok(Self(Arc::new(Shared { sides, keeps, ttl, sources, output, form })))
    }

    /// The schema of the changes.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }
}

impl Plan for ChangeJoinPlan {
    fn noun(&self) -> &'static str {
        "join"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        self.0.sides.iter().map(|side| Partitioning::Key(side.partition.clone())).collect()
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let late = [Port::LATE, Port::LATE_RIGHT].into_iter().zip(&self.0.sides);
        let late = late.filter(|_| self.0.ttl.is_some()).map(|(port, side)| (port, side.input.clone()));
        [(Port::MAIN, self.0.output.clone())].into_iter().chain(late).collect()
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(operator::ChangeJoin::new(self.0.clone())?))
    }
}

impl Side {
    fn new(input: &StreamSchema, on: Vec<usize>, fixed: bool) -> Result<Self> {
        let key = input.expect_changes("a join of changes")?.to_vec();
        let visible = input.visible();
        check_key(&visible, &on)?;
        let others: Vec<usize> = (0..visible.fields().len()).filter(|column| !key.contains(column)).collect();
        let fields =
            |columns: &[usize]| columns.iter().map(|&i| visible.fields()[i].clone()).collect::<Vec<FieldRef>>();
        Ok(Self {
            columns: store::columns(&fields(&key), &fields(&others))?,
            partition: if fixed { on.clone() } else { Vec::new() },
            input: input.clone(),
            key,
            others,
            on,
        })
    }

    /// Where a visible column is in rows of the store.
    fn place(&self, column: usize) -> usize {
        match self.key.iter().position(|key| *key == column) {
            Some(at) => 1 + at,
            None => 3 + self.key.len() + self.others.iter().position(|other| *other == column).unwrap_or_default(),
        }
    }

    /// The join columns of rows of the store.
    fn join_key(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.on.iter().map(|&column| rows.column(self.place(column)).clone()).collect()
    }
}

/// The columns of the result and its key.
fn result_columns(
    sides: &[Side; 2],
    pairs: &[(usize, usize)],
    keeps: [bool; 2],
) -> Result<(Vec<Source>, StreamSchema)> {
    let [left, right] = sides.each_ref().map(|side| side.input.visible());
    let both = |name: &str| pairs.iter().find(|(l, r)| left.field(*l).name() == name && right.field(*r).name() == name);
    let (mut sources, mut fields) = (Vec::new(), Vec::new());
    for (at, field) in left.fields().iter().enumerate() {
        let (source, null) = match both(field.name()) {
            Some(&(l, r)) => (Source::Both(l, r), keeps[RIGHT] && right.field(r).is_nullable()),
            None => (Source::Side(LEFT, at), keeps[RIGHT]),
        };
        sources.push(source);
        fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || null));
    }
    for (at, field) in right.fields().iter().enumerate().filter(|(_, field)| both(field.name()).is_none()) {
        let name = field.name();
        if left.column_with_name(name).is_some() {
            return Err(OperatorError::Plan(format!(
                "both sides of the join have a column {name:?}: give it another name on one of them first, \
                 .select([…, col({name:?}).alias(\"right_{name}\")])"
            )));
        }
        sources.push(Source::Side(RIGHT, at));
        fields.push(field.as_ref().clone().with_nullable(field.is_nullable() || keeps[LEFT]));
    }
    no_duplicates(&fields)?;
    let mut key: Vec<&str> = Vec::new();
    for (side, visible) in sides.iter().zip([&left, &right]) {
        let names = side.key.iter().map(|&column| visible.field(column).name().as_str());
        names.for_each(|name| {
            if !key.contains(&name) {
                key.push(name)
            }
        });
    }
    let visible = Schema::new(fields);
    let timed = sides.iter().all(|side| side.input.time().is_some());
    let output = match timed {
        true => StreamSchema::changes(&visible, &key)?,
        false => StreamSchema::changes_without_time(&visible, &key)?,
    };
    Ok((sources, output))
}

/// The columns of the state: those of the stores of both sides, next to each other.
fn form(sides: &[Side; 2], meaning: String) -> StateForm {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false), Field::new(SIDE, DataType::UInt8, false)];
    let named = |(side, field): (usize, &FieldRef)| {
        field.as_ref().clone().with_name(format!("{}.{}", NAMES[side], field.name())).with_nullable(true)
    };
    let keys = sides
        .iter()
        .enumerate()
        .flat_map(|(i, side)| side.columns.fields()[1..1 + side.key.len()].iter().map(move |field| (i, field)));
    let own = sides
        .iter()
        .enumerate()
        .flat_map(|(i, side)| side.columns.fields()[3 + side.key.len()..].iter().map(move |field| (i, field)));
    fields.extend(keys.map(named));
    let keys = sides[LEFT].key.len();
    fields.extend(sides[LEFT].columns.fields()[1 + keys..3 + keys].iter().map(|field| field.as_ref().clone()));
    fields.extend(own.map(named));
    let identity = 1 + sides.iter().map(|side| side.key.len()).sum::<usize>();
    StateForm { identity, columns: Arc::new(Schema::new(fields)), meaning }
}

impl Shared {
    /// Where in a segment the columns of the store of a side are.
    fn places(&self, side: usize) -> Vec<usize> {
        let [left, right] = &self.sides;
        let keys = left.key.len() + right.key.len();
        let (key, own) = match side {
            LEFT => (2, 4 + keys),
            _ => (2 + left.key.len(), 4 + keys + left.others.len()),
        };
        let own_side = &self.sides[side];
        let mut places = vec![0];
        places.extend(key..key + own_side.key.len());
        places.extend([2 + keys, 3 + keys]);
        places.extend(own..own + own_side.others.len());
        places
    }

    /// Rows of the store of a side as a segment.
    fn segment(&self, side: usize, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.form.columns.fields();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; fields.len()];
        columns[1] = Some(Arc::new(UInt8Array::from(vec![side as u8; rows.num_rows()])));
        for (place, column) in self.places(side).into_iter().zip(rows.columns()) {
            columns[place] = Some(own_bytes(column.clone()));
        }
        let null = |field: &FieldRef| new_null_array(field.data_type(), rows.num_rows());
        let columns = columns.into_iter().zip(fields).map(|(column, field)| column.unwrap_or_else(|| null(field)));
        Ok(RecordBatch::try_new(self.form.columns.clone(), columns.collect())?)
    }

    /// The rows of a segment, if they are of this side: all rows of a segment are of one.
    fn of_segment(&self, side: usize, segment: &RecordBatch) -> Result<Option<RecordBatch>> {
        let segment = self.form.widen(segment)?;
        if segment.column(1).as_primitive::<UInt8Type>().values().first() != Some(&(side as u8)) {
            return Ok(None);
        }
        let columns = self.places(side).into_iter().map(|place| segment.column(place).clone()).collect();
        Ok(Some(RecordBatch::try_new(self.sides[side].columns.clone(), columns)?))
    }
}

/// Which rows of join columns have a null, and so no partner.
fn nulls(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().any(|column| column.is_null(row))
}
